//! What a listener has to send.

use crate::classic::key::TAG_LEN;
use crate::classic::serial::{ENTRY_LEN, REPLY_LEN};
use crate::words::Millis;

/// What waits to be sent. All of it is dropped when the oldest byte has waited too long.
#[derive(Debug)]
pub(super) struct Outbox {
    bytes: heapless::Vec<u8, OUT_MAX, u8>,
    sent: u8,
    /// When the oldest byte was put in.
    pub(super) since: Millis,
}

/// The reply before it, a list's header, its end, and its final reply.
const OUT_MAX: usize = REPLY_LEN + REPLY_LEN + ENTRY_LEN + REPLY_LEN;
const _: () = assert!(OUT_MAX == 145 && OUT_MAX <= u8::MAX as usize);
/// On the packet wire: a proof, a challenge, and a code.
const _: () = assert!(TAG_LEN + TAG_LEN < OUT_MAX);

impl Outbox {
    pub(super) const fn new() -> Outbox {
        Outbox { bytes: heapless::Vec::new(), sent: 0, since: Millis(0) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unsent().is_empty()
    }

    pub(super) fn unsent(&self) -> &[u8] {
        self.bytes.get(usize::from(self.sent)..).unwrap_or_default()
    }

    /// Adds a whole reply or entry, or nothing where there is no room.
    pub(super) fn put(&mut self, bytes: &[u8], now: Millis) {
        if self.is_empty() {
            self.clear();
            self.since = now;
        }
        let _ = self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn sent(&mut self, n: usize) {
        let n = n.min(self.unsent().len());
        self.sent += n as u8;
        if self.is_empty() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }
}
