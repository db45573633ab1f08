//! The shape that both ends of a conversation share.

use crate::words::{Entropy, Millis};

/// One end of a conversation over one channel: bytes and time in, bytes and a wish to be woken out.
///
/// The order of calls is at the [crate's top](crate#call-order).
pub trait Endpoint {
    /// There is a new connection: what was left of the old one is dropped. `entropy` is for this connection alone.
    fn opened(&mut self, entropy: &Entropy, now: Millis);

    /// Bytes have come. Says how many were taken; when fewer than given, poll, then give it the rest.
    #[must_use = "the bytes that were not taken are to be given again"]
    fn receive(&mut self, bytes: &[u8], now: Millis) -> usize;

    /// The connection is gone.
    fn closed(&mut self, now: Millis);

    /// What is to be sent now. Empty: nothing.
    fn transmit(&self) -> &[u8];

    /// The first `n` bytes of [`transmit`](Self::transmit) have been sent.
    fn sent(&mut self, n: usize, now: Millis);

    /// When to call [`wake`](Self::wake), if nothing else happens before.
    fn wake_at(&self) -> Option<Millis>;

    /// Time has passed. Does nothing where nothing is due.
    fn wake(&mut self, now: Millis);
}
