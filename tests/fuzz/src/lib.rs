//! What the fuzz targets do. Each takes any bytes and panics where a promise is broken: not only where the core panics.
//!
//! | target | what it looks at |
//! |---|---|
//! | [`serial_request`], [`packet_request`] | every frame and packet means what a second reading says, and survives the wire |
//! | [`serial_entry`] | the same of a host list's entries |
//! | [`serial_stream`] | any stream is cut as a second way of cutting says, and every byte of it is accounted for |
//! | [`key`] | keys of every length; tags over parts |
//! | [`serial_client`], [`packet_client`], [`serial_listener`], [`packet_listener`] | any steps: see `core/tests/steps/` |
//! | [`ledger`] | any operations against a model of it |
//!
//! The tests package reads this file as a module, too (`tests/fuzz_corpus/main.rs`).

#[path = "../../../core/tests/common/mod.rs"]
mod common;
mod decoders;
mod ends;
mod memory;
#[path = "../../../core/tests/steps/packet.rs"]
mod packet_steps;
#[path = "../../../core/tests/steps/serial.rs"]
mod serial_steps;
mod stream;

pub use decoders::{key, packet_request, serial_entry, serial_request};
pub use ends::{packet_client, packet_listener, serial_client, serial_listener};
pub use memory::ledger;
pub use stream::serial_stream;

/// A target: any bytes.
pub type Target = fn(&[u8]);

/// Every target, by the name that it has in `fuzz_targets/`.
pub const TARGETS: [(&str, Target); 10] = [
    ("serial_request", serial_request),
    ("serial_stream", serial_stream),
    ("serial_entry", serial_entry),
    ("packet_request", packet_request),
    ("key", key),
    ("serial_client", serial_client),
    ("packet_client", packet_client),
    ("serial_listener", serial_listener),
    ("packet_listener", packet_listener),
    ("ledger", ledger),
];
