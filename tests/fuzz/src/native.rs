//! Our own wire. What the bytes are taken for, and what must hold of it, is the core's own: `core/tests/steps/native_*.rs`.

use super::common::input::Input;
use super::{native_bytes, native_guest, native_host};

/// Frames in a stream.
pub fn native_frames(bytes: &[u8]) {
    native_bytes::frames(&mut Input::new(bytes));
}

/// Messages and key files.
pub fn native_messages(bytes: &[u8]) {
    native_bytes::messages(&mut Input::new(bytes));
}

/// The client, of a guest with a key or without.
pub fn native_client(bytes: &[u8]) {
    native_host::client(&mut Input::new(bytes));
}

/// The listener, likewise.
pub fn native_listener(bytes: &[u8]) {
    native_guest::listener(&mut Input::new(bytes), false);
}

/// The listener of both wires.
pub fn mixed_listener(bytes: &[u8]) {
    native_guest::listener(&mut Input::new(bytes), true);
}

/// Both ends, and all that stands at them.
pub fn native_pair(bytes: &[u8]) {
    super::native_pair::both_ends(&mut Input::new(bytes));
}
