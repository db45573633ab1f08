//! Our own wire: what both ends make of one another, and of everybody who wants something that they may not.

mod answers;
mod any_bytes;
mod attacks;
#[allow(dead_code, reason = "each part takes its part of it")]
#[path = "../simulation/bridge.rs"]
mod bridge;
mod by_hand;
#[allow(dead_code, reason = "each part takes its part of it")]
#[path = "../conversation/chance.rs"]
mod chance;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod ends;
#[path = "../simulation/hypervisor.rs"]
mod hypervisor;
mod limits;
mod lists;
mod mixed;
#[path = "../steps/native_bytes.rs"]
mod native_bytes;
#[path = "../steps/native_guest.rs"]
mod native_guest;
#[path = "../steps/native_host.rs"]
mod native_host;
#[path = "../steps/native_model.rs"]
mod native_model;
#[path = "../steps/native_pair.rs"]
mod native_pair;
mod pair;
mod pieces;
#[path = "../simulation/rules.rs"]
mod rules;
mod slow_line;
