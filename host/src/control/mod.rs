//! What an operator asks of Fencewire beside its configuration.
//!
//! | module | what |
//! |---|---|
//! | [`attach`] | a guest's virtio channel, added to its definition or removed from it |
//! | [`snapshot`] | what a bridge does at one moment, as programs read it |
//! | [`socket`] | the control socket, on which a bridge says that |
//! | [`ask`] | who asks there |
//! | [`table`] | the same for people |

pub mod ask;
pub mod attach;
mod definition;
mod peer;
pub mod snapshot;
pub mod socket;
pub mod table;
