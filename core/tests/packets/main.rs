//! The packet wire, in virtual time.
//!
//! | module | what |
//! |---|---|
//! | `both_ends` | ours with ours, in pieces of any size, and ends that do not agree |
//! | `listener` | step by step: what is heard, what is told, when it ends |
//! | `answers` | codes, lists, deadlines, and callers that do not read |
//! | `client` | whom it believes, what it answers, what a reply means |
//! | `attacks` | recordings, reflections, forgeries, relays |
//! | `hostile` | any calls in any order, with any bytes |
//!
//! The captured conversations of the real fence_virt are in `../golden_classic_packet.rs`.

mod answers;
mod attacks;
mod both_ends;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod listener;
#[path = "../steps/packet.rs"]
mod steps;
