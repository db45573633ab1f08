//! Channels that the bridge finds by itself: the configuration names hypervisors and groups, and nothing else.
//!
//! | file | what |
//! |---|---|
//! | `scripted` | by reading again alone, and by events that come, come late, come wrongly or not at all |
//!
//! That a channel is served is said by an answer through it, or by a connection to its socket; never by the log alone.

mod common;
mod scripted;
