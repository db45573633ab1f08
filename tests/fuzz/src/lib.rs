//! What the fuzz targets do. Each takes any bytes and panics where a promise is broken: not only where the core panics.
//!
//! | target | what it looks at |
//! |---|---|
//! | [`serial_request`], [`packet_request`] | every frame and packet means what a second reading says, and survives the wire |
//! | [`serial_entry`] | the same of a host list's entries |
//! | [`serial_stream`] | any stream is cut as a second way of cutting says, and every byte of it is accounted for |
//! | [`key`] | keys of every length; tags over parts |
//! | [`serial_client`], [`packet_client`], [`serial_listener`], [`packet_listener`] | any steps: see `core/tests/steps/` |
//! | [`native_frames`], [`native_messages`] | the same of our own wire's frames, messages and key files |
//! | [`native_client`], [`native_listener`], [`mixed_listener`] | any steps, against a second way of keeping sessions |
//! | [`native_pair`] | any steps between two real ends, with the five rules |
//! | [`ledger`] | any operations against a model of it |
//!
//! The tests package reads this file as a module, too (`tests/fuzz_corpus/main.rs`).

#[allow(dead_code, reason = "what is driven by steps takes its part of it")]
#[path = "../../../core/tests/simulation/bridge.rs"]
mod bridge;
#[allow(dead_code, reason = "what is driven by steps takes its part of it")]
#[path = "../../../core/tests/native/by_hand.rs"]
mod by_hand;
#[allow(dead_code, reason = "what is driven by steps takes its part of it")]
#[path = "../../../core/tests/conversation/chance.rs"]
mod chance;
#[path = "../../../core/tests/common/mod.rs"]
mod common;
mod decoders;
mod ends;
#[path = "../../../core/tests/simulation/hypervisor.rs"]
mod hypervisor;
mod memory;
mod native;
#[path = "../../../core/tests/steps/native_bytes.rs"]
mod native_bytes;
#[path = "../../../core/tests/steps/native_guest.rs"]
mod native_guest;
#[path = "../../../core/tests/steps/native_host.rs"]
mod native_host;
#[path = "../../../core/tests/steps/native_model.rs"]
mod native_model;
#[path = "../../../core/tests/steps/native_pair.rs"]
mod native_pair;
#[path = "../../../core/tests/steps/packet.rs"]
mod packet_steps;
#[path = "../../../core/tests/simulation/rules.rs"]
mod rules;
#[path = "../../../core/tests/steps/serial.rs"]
mod serial_steps;
mod stream;

pub use decoders::{key, packet_request, serial_entry, serial_request};
pub use ends::{packet_client, packet_listener, serial_client, serial_listener};
pub use memory::ledger;
pub use native::{mixed_listener, native_client, native_frames, native_listener, native_messages, native_pair};
pub use stream::serial_stream;

/// A target: any bytes.
pub type Target = fn(&[u8]);

/// Every target, by the name that it has in `fuzz_targets/`.
pub const TARGETS: [(&str, Target); 16] = [
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
    ("native_frames", native_frames),
    ("native_messages", native_messages),
    ("native_client", native_client),
    ("native_listener", native_listener),
    ("mixed_listener", mixed_listener),
    ("native_pair", native_pair),
];
