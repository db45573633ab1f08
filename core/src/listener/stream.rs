//! A channel on which requests follow one another, over fence-virt's serial wire, over our own, or over either.
//!
//! Every byte is shown to both. Neither can take the other's frames for its own: ours have a tag that only the key makes,
//! and no zero inside; fence-virt's have a magic, and zeros in the middle. Once a frame of ours was found good, what the
//! other made of its bytes is forgotten.
//!
//! What is sent takes turns, a whole frame of ours and a whole answer of fence-virt's. A list of fence-virt's is one answer,
//! from its header to its last code: its entries have no mark, and whatever came between them would be read as one.

use super::native::NativeListener;
use super::serial::SerialListener;
use super::{Accept, Event, NotNow, Refusal, RequestId};
use crate::Endpoint;
use crate::classic::serial::MAGIC;
use crate::words::{Answer, Details, Entropy, Millis};

/// See [`super::Listener`].
#[derive(Debug)]
pub(super) struct StreamListener {
    classic: Option<SerialListener>,
    native: Option<NativeListener>,
    watch: Watch,
}

/// Looks for fence-virt's frames where they are not answered, so that somebody can be told.
#[derive(Debug, Default)]
struct Watch {
    last: u32,
    seen: bool,
}

impl Watch {
    /// Takes the next byte. Says whether it is a zero after a magic: in every frame of theirs there is one.
    fn push(&mut self, byte: u8) -> bool {
        self.last = (self.last << 8) | u32::from(byte);
        self.seen |= self.last == u32::from_be_bytes(MAGIC);
        byte == 0 && core::mem::take(&mut self.seen)
    }
}

impl StreamListener {
    pub(super) fn new(accept: Accept) -> StreamListener {
        StreamListener {
            classic: accept
                .classic
                .then(|| SerialListener::new(accept.settle, accept.time_to_act, accept.native.is_some())),
            native: accept.native.map(NativeListener::new),
            watch: Watch::default(),
        }
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        let native = self.native.as_mut().and_then(NativeListener::poll);
        native.or_else(|| self.classic.as_mut().and_then(SerialListener::poll))
    }

    pub(super) fn answer(
        &mut self,
        id: RequestId,
        answer: Answer<'_>,
        details: Details,
        now: Millis,
    ) -> Result<(), NotNow> {
        if NativeListener::owns(id) {
            self.native.as_mut().map_or(Err(NotNow::Gone), |native| native.answer(id, answer, details, now))
        } else {
            self.classic.as_mut().map_or(Err(NotNow::Gone), |classic| classic.answer(id, answer, now))
        }
    }

    pub(super) fn guest_was_reset(&mut self, now: Millis) {
        if let Some(classic) = &mut self.classic {
            classic.guest_was_reset(now);
        }
        if let Some(native) = &mut self.native {
            native.guest_was_reset(now);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.classic.as_ref().is_none_or(SerialListener::is_idle)
            && self.native.as_ref().is_none_or(NativeListener::is_idle)
    }

    /// Takes bytes that were in the channel before it was opened: only our own wire knows old from new.
    pub(super) fn receive_old(&mut self, bytes: &[u8], now: Millis) -> usize {
        self.native.as_mut().map_or(bytes.len(), |native| native.receive(bytes, now))
    }

    fn must_be_polled(&self) -> bool {
        self.native.as_ref().is_some_and(NativeListener::must_be_polled)
            || self.classic.as_ref().is_some_and(SerialListener::must_be_polled)
    }

    /// Whose bytes go next: one's frame is not broken by the other's.
    fn native_goes_first(&self) -> bool {
        let waits = |bytes: &[u8]| !bytes.is_empty();
        let classic = self.classic.as_ref().is_some_and(|classic| waits(classic.transmit()) || classic.is_in_a_list());
        self.native.as_ref().is_some_and(|native| waits(native.transmit()) && (native.is_in_a_frame() || !classic))
    }
}

impl Endpoint for StreamListener {
    fn opened(&mut self, entropy: &Entropy, now: Millis) {
        if let Some(classic) = &mut self.classic {
            classic.opened(entropy, now);
        }
        if let Some(native) = &mut self.native {
            native.opened(entropy, now);
        }
    }

    fn receive(&mut self, bytes: &[u8], now: Millis) -> usize {
        match (&mut self.classic, &mut self.native) {
            (None, None) => bytes.len(),
            (Some(classic), None) => classic.receive(bytes, now),
            (None, Some(_)) => {
                for (at, byte) in bytes.iter().enumerate() {
                    if self.must_be_polled() {
                        return at;
                    }
                    let Some(native) = &mut self.native else { break };
                    let is_good = native.push(*byte, now);
                    // Ours may have a name in them with the magic in it.
                    if self.watch.push(*byte) && !is_good {
                        native.refuse(Refusal::OtherWire);
                    }
                }
                bytes.len()
            }
            (Some(classic), Some(_)) => {
                // A frame whose time is up is dropped before the next byte, and that is to be polled first.
                let _ = classic.receive(&[], now);
                for (at, byte) in bytes.iter().enumerate() {
                    if self.must_be_polled() {
                        return at;
                    }
                    let (Some(classic), Some(native)) = (&mut self.classic, &mut self.native) else { break };
                    if native.push(*byte, now) {
                        classic.forget_bytes();
                    } else {
                        let _ = classic.receive(core::slice::from_ref(byte), now);
                    }
                }
                bytes.len()
            }
        }
    }

    fn closed(&mut self, now: Millis) {
        if let Some(classic) = &mut self.classic {
            classic.closed(now);
        }
        if let Some(native) = &mut self.native {
            native.closed(now);
        }
    }

    fn transmit(&self) -> &[u8] {
        let native = self.native.as_ref().map_or(&[][..], |native| native.transmit());
        let classic = self.classic.as_ref().map_or(&[][..], |classic| classic.transmit());
        if self.native_goes_first() { native } else { classic }
    }

    fn sent(&mut self, n: usize, now: Millis) {
        if self.native_goes_first() {
            if let Some(native) = &mut self.native {
                native.sent(n, now);
            }
        } else if let Some(classic) = &mut self.classic {
            classic.sent(n, now);
            if let Some(native) = &mut self.native {
                native.waited_for_its_turn(now);
            }
        }
    }

    fn wake_at(&self) -> Option<Millis> {
        let classic = self.classic.as_ref().and_then(Endpoint::wake_at);
        let native = self.native.as_ref().and_then(Endpoint::wake_at);
        classic.into_iter().chain(native).min()
    }

    fn wake(&mut self, now: Millis) {
        let is_natives_turn = self.native_goes_first();
        if let Some(classic) = &mut self.classic {
            classic.wake(now);
        }
        if let Some(native) = &mut self.native {
            if !is_natives_turn {
                native.waited_for_its_turn(now);
            }
            native.wake(now);
        }
    }
}
