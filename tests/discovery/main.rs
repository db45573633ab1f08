//! Channels that the bridge finds by itself: the configuration names hypervisors and groups, and nothing else.
//!
//! | file | what |
//! |---|---|
//! | `scripted` | by reading again alone, and by events that come, come late, come wrongly or not at all |
//! | `test_driver` | on libvirt's own test driver, whose guests live in the connection |
//! | `bad_input` | XML and sockets of every wrong kind: a line for each, and all others served |
//! | `life` | real guests from their definition to their end |
//! | `libvirtd` | one that is killed, stopped, hangs |
//! | `rights` | sockets in folders that the bridge may not enter |
//! | `many` | 32 guests at once, and how long it takes |
//!
//! That a channel is served is said by an answer through it, or by a connection to its socket; never by the log alone.

mod bad_input;
mod common;
mod libvirtd;
mod life;
mod many;
mod rights;
mod scripted;
mod test_driver;
