//! Our own wire: authenticated, at most once, and safe on a channel that loses, repeats and keeps bytes.
//!
//! | module | what |
//! |---|---|
//! | `asking` | the same as the asking end says and hears it, in less code |
//! | [`frame`] | where a frame begins and ends in a stream: COBS between zeros |
//! | [`message`] | what frames say: hello, welcome, requests, replies |
//! | [`keys`] | who can say it: a guest's keys, a session's keys, tags |
//!
//! To the byte it is written down in `docs/protocol.md`. Not here: who says what when (see [`crate::Client`],
//! [`crate::Listener`]).

pub(crate) mod asking;
pub mod frame;
pub mod keys;
pub mod message;

/// The only version there is.
pub const CURRENT: u8 = 1;

/// The oldest version that is spoken.
pub const MIN: u8 = 1;
