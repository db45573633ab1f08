//! The end that answers: takes requests off a channel, hands each out once, and takes its answer back by id.
//!
//! Here is what every wire shares; how each is listened to is in `listener/serial.rs`, `listener/native.rs` with
//! `listener/sessions.rs` (all behind `listener/stream.rs`) and `listener/packet.rs`.

mod native;
mod outbox;
mod packet;
mod refusals;
mod serial;
mod sessions;
mod stream;

use crate::Endpoint;
use crate::classic::key::{Hash, Key};
use crate::classic::packet::Unproved;
use crate::classic::{Malformed, TIME_TO_ACT_MS};
use crate::native::keys::Keys;
use crate::words::{Answer, Details, Entropy, Millis, Request};
pub use native::{DEADLINE_MAX, WORKING};
pub use packet::HANDSHAKE_TIME;
use packet::PacketListener;
pub use serial::{FRAME_TIME, PIPELINE_TIME};
pub use sessions::{HALF_OPEN, REQUEST_TIME};
use stream::StreamListener;

/// How long bytes are discarded after a serial or virtio channel was connected, and around a reset of its guest: what
/// comes then may have waited in the channel since who knows when.
pub const SETTLE: Millis = Millis(200);

/// A reply that could not be sent for so long is dropped: its asker has gone.
pub const REPLY_TIME: Millis = Millis(5_000);

/// What a listener of a channel accepts.
#[derive(Clone, Debug)]
pub struct Accept {
    /// How long bytes are discarded after [`Endpoint::opened`], for the classic wire; [`SETTLE`] unless there can be no old
    /// ones.
    pub settle: Millis,
    /// From when on after its receipt nothing may be begun for a classic request.
    pub time_to_act: Millis,
    /// Whether fence-virt's wire is answered.
    pub classic: bool,
    /// Whether our own is, and to whom.
    pub native: Option<NativeAccept>,
}

/// To whom our own wire is answered.
#[derive(Clone, Debug)]
pub struct NativeAccept {
    /// The guest's keys; or those that everybody has.
    pub keys: Keys,
    /// Which memory of requests the owner has: random, and the same for as long as that memory and the clock last. A guest
    /// does not ask another to do what it has asked this one.
    pub instance: u64,
}

impl Default for Accept {
    /// fence-virt's wire alone.
    fn default() -> Self {
        Accept { settle: SETTLE, time_to_act: Millis(TIME_TO_ACT_MS), classic: true, native: None }
    }
}

/// Names a request between [`Event::Asked`] and its answer. Never used twice by one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// What a listener has to tell its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody asks. Give it to [`Listener::answer`], whenever you can.
    Asked(RequestId, Request),
    /// Give the list's next entry, or its end.
    EntryWanted(RequestId),
    /// Nobody waits for this one's answer any more. What is begun goes on; what is not, need not be.
    Withdrawn(RequestId),
    /// Bytes came for which nothing was done.
    Refused(Refusal),
}

/// Why nothing was done for some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// That many bytes belonged to no frame.
    Noise(u32),
    /// A frame stopped after that many bytes, because time was up or another began.
    Torn(u8),
    /// A whole frame said nothing. It was answered with "failed", unless another reply was awaited when it came.
    Malformed(Malformed),
    /// More requests at once than are held. This one was dropped, unanswered.
    TooMany,
    /// A request waited behind another until its time was up, until another came that nobody sends who still waits, or
    /// behind a reply that nobody read.
    Superseded,
    /// Nobody read the reply for 5 s. It was dropped.
    ReplyNotRead,
    /// A packet that does not prove who sent it. The connection is to be closed.
    Unproved(Unproved),
    /// A good packet, whose sender did not prove that it holds the key: it is a recording, or from somebody who answers
    /// challenges with another hash. The connection is to be closed.
    WrongProof,
    /// The caller wants a challenge answered that is one of ours, or of a sibling's with the same key: it would give our
    /// answer as its own. The connection is to be closed.
    Reflection,
    /// The caller has not asked and proved all in time. The connection is to be closed.
    TooSlow,
    /// A whole frame of our own wire that proves nothing here: of another key or session, or a recording.
    NotProved,
    /// The beginning of a frame of fence-virt's wire where only our own is answered.
    OtherWire,
    /// A hello of somebody who has the key and speaks only these versions of our wire.
    Version {
        /// The oldest.
        min: u8,
        /// The newest.
        max: u8,
    },
}

/// Why [`Listener::answer`] did not take an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// No such request is out: it was withdrawn or answered. Drop the answer.
    Gone,
    /// This does not answer what was asked. It is a fault of the owner's.
    DoesNotFit,
    /// The last entry has not been sent yet. Wait for [`Event::EntryWanted`].
    EntryNotWanted,
}

/// Whom a listener of packets believes.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is no allocator to box it with")]
pub enum Trust {
    /// Who proves that it holds the key.
    Key {
        /// The key.
        key: Key,
        /// What a request is to be signed with at least.
        minimum: Hash,
        /// What challenges are answered with, on both sides.
        auth: Hash,
    },
    /// Anybody who can connect: nothing is signed, and nothing is proved.
    Anybody,
}

/// The answering end of one channel, or of one connection.
#[derive(Debug)]
pub struct Listener {
    wire: Wire,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is no allocator to box it with")]
enum Wire {
    Stream(StreamListener),
    Packet(PacketListener),
}

/// Calls a method of whatever wire is spoken.
macro_rules! on_wire {
    ($listener:expr, $end:ident => $call:expr) => {
        match &$listener.wire {
            Wire::Stream($end) => $call,
            Wire::Packet($end) => $call,
        }
    };
    (mut $listener:expr, $end:ident => $call:expr) => {
        match &mut $listener.wire {
            Wire::Stream($end) => $call,
            Wire::Packet($end) => $call,
        }
    };
}

impl Listener {
    /// For a serial port or channel; with no connection yet.
    pub fn new(accept: Accept) -> Listener {
        Listener { wire: Wire::Stream(StreamListener::new(accept)) }
    }

    /// For a connection of TCP or vsock, which carries one request; with no connection yet. `time_to_act`: from when on
    /// after its receipt nothing may be begun for it.
    pub const fn of_packets(trust: Trust, time_to_act: Millis) -> Listener {
        Listener { wire: Wire::Packet(PacketListener::new(trust, time_to_act)) }
    }

    /// What has happened. Ask until it says `None`.
    pub fn poll(&mut self) -> Option<Event> {
        on_wire!(mut self, end => end.poll())
    }

    /// Takes the answer to a request that was handed out. A list is answered with its first entry or its end, then
    /// with one more at each [`Event::EntryWanted`].
    pub fn answer(&mut self, id: RequestId, answer: Answer<'_>, now: Millis) -> Result<(), NotNow> {
        self.answer_with(id, answer, Details::NONE, now)
    }

    /// Likewise, with what else is known: our own wire says that too.
    pub fn answer_with(
        &mut self,
        id: RequestId,
        answer: Answer<'_>,
        details: Details,
        now: Millis,
    ) -> Result<(), NotNow> {
        match &mut self.wire {
            Wire::Stream(end) => end.answer(id, answer, details, now),
            Wire::Packet(end) => end.answer(id, answer, now),
        }
    }

    /// Takes bytes that were in the channel before it was opened, or its guest was reset. Only a wire that knows old from
    /// new makes anything of them. As [`Endpoint::receive`], it says how many were taken.
    #[must_use = "the bytes that were not taken are to be given again"]
    pub fn receive_old(&mut self, bytes: &[u8], now: Millis) -> usize {
        match &mut self.wire {
            Wire::Stream(end) => end.receive_old(bytes, now),
            Wire::Packet(_) => bytes.len(),
        }
    }

    /// The guest has been reset: nobody waits for a reply any more, and what comes in the next 200 ms may be from
    /// before. Nothing of either is kept.
    pub fn guest_was_reset(&mut self, now: Millis) {
        match &mut self.wire {
            Wire::Stream(end) => end.guest_was_reset(now),
            Wire::Packet(end) => end.closed(now),
        }
    }

    /// Whether nothing is going on: no request held, nothing to send, no frame begun. Such a listener can be dropped
    /// and made anew at the next byte. Never so where the connection itself is part of what was proved.
    pub fn is_idle(&self) -> bool {
        match &self.wire {
            Wire::Stream(end) => end.is_idle(),
            Wire::Packet(_) => false,
        }
    }

    /// Whether all is said that will be: the connection is to be closed.
    pub fn is_over(&self) -> bool {
        match &self.wire {
            Wire::Stream(_) => false,
            Wire::Packet(end) => end.is_over(),
        }
    }

    /// Whether the caller has proved what it has to prove. Who can hold only so many connections closes others first.
    pub fn is_proved(&self) -> bool {
        match &self.wire {
            Wire::Stream(_) => true,
            Wire::Packet(end) => end.is_proved(),
        }
    }
}

impl Endpoint for Listener {
    fn opened(&mut self, entropy: &Entropy, now: Millis) {
        on_wire!(mut self, end => end.opened(entropy, now));
    }

    fn receive(&mut self, bytes: &[u8], now: Millis) -> usize {
        on_wire!(mut self, end => end.receive(bytes, now))
    }

    fn closed(&mut self, now: Millis) {
        on_wire!(mut self, end => end.closed(now));
    }

    fn transmit(&self) -> &[u8] {
        on_wire!(self, end => end.transmit())
    }

    fn sent(&mut self, n: usize, now: Millis) {
        on_wire!(mut self, end => end.sent(n, now));
    }

    fn wake_at(&self) -> Option<Millis> {
        on_wire!(self, end => end.wake_at())
    }

    fn wake(&mut self, now: Millis) {
        on_wire!(mut self, end => end.wake(now));
    }
}
