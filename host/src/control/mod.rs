//! What an operator asks of Fencewire beside its configuration.
//!
//! | module | what |
//! |---|---|
//! | [`attach`] | a guest's virtio channel, added to its definition or removed from it |

pub mod attach;
mod definition;
