//! The guest agent's every decision: which options, which channel, which request, what to say of what came.
//!
//! Nothing in here calls the system: that is behind [`System`], which the program implements with system calls and the
//! tests with a stand-in that has virtual time. What lives where:
//!
//! | module | what |
//! |---|---|
//! | `options` | the options there are; what was given, on the command line or on standard input |
//! | `order` | what was given, checked: what to do |
//! | `find` | which device or socket |
//! | `tcp` | which address, and which key |
//! | `channel` | opening it, emptying it, moving bytes with deadlines |
//! | `run` | doing it: asking, and the exit code |
//! | `list` | a list's lines |
//! | `metadata` | what the agent says of itself: the XML that Pacemaker reads, and the help |
//! | `trouble` | every reason for exit code 1 |
//! | `texts` | every text that is said |
//! | `pack`, `packed` | making that table smaller, when the program is built; the smaller one |
//! | `text` | text in and out, in fixed buffers |
//! | `system` | what the agent needs of the system |
//!
//! The program is to have 24 KiB at most. Where `#[inline(never)]` stands it was measured: the copies that the compiler
//! would make for the callers take more than the calls.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod channel;
mod find;
mod list;
mod metadata;
mod options;
mod order;
#[cfg(test)]
mod pack;
mod packed;
mod run;
mod secret;
#[cfg(test)]
mod stand_in;
mod system;
mod tcp;
mod text;
mod texts;
mod trouble;

pub use run::run;
pub use system::{Errno, Exit, Family, Kind, LineParams, Parity, Path, Signs, Stream, System};
