//! Our own wire: what both ends make of one another, and of everybody who wants something that they may not.

mod attacks;
mod by_hand;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod ends;
mod limits;
mod lists;
mod mixed;
mod pair;
mod slow_line;
