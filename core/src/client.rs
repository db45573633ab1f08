//! The end that asks: sends one request and says what came of it.
//!
//! Here is what every wire shares; how each is spoken is in `client/classic.rs` (fence-virt's, on a serial port and on
//! packets) and `client/native.rs`.

mod classic;
mod native;
mod packet;
mod serial;

use crate::Endpoint;
use crate::classic::key::{Hash, Key};
use crate::classic::packet::Fresh;
use crate::classic::serial::Entry;
use crate::native::keys::Keys;
use crate::words::Incarnation;
use crate::words::{Ask, BadName, Entropy, Failure, Millis, Power};
use classic::ClassicClient;
use native::NativeClient;

/// Which wire to speak.
#[derive(Clone, Copy, Debug)]
pub enum Speak<'a> {
    /// fence-virt's, on a serial port or channel.
    ClassicSerial {
        /// What makes this request another one than the last: different at each call, the same in its repetitions.
        seqno: u32,
    },
    /// fence-virt's, on a connection of its own: TCP or vsock.
    ClassicPacket {
        /// What makes this request another one than the last.
        fresh: Fresh,
        /// How both ends prove who they are.
        signing: Signing<'a>,
    },
    /// Our own, on anything that carries bytes.
    Native {
        /// The guest's.
        keys: &'a Keys,
        /// Random: what makes this request another one than every other.
        id: u64,
        /// Which run of its target it means, if only that one is to be touched.
        guard: Option<Incarnation>,
    },
}

/// How the two ends of a packet conversation prove that they hold the same key.
#[derive(Clone, Copy, Debug)]
pub enum Signing<'a> {
    /// By hashes over it.
    Key {
        /// The key.
        key: &'a Key,
        /// What the request is signed with: the other end's minimum, or better.
        hash: Hash,
        /// What the challenges are answered with: the very one that the other end uses.
        auth: Hash,
    },
    /// Not at all: anybody may have asked, and anybody may have answered.
    Nothing,
}

/// Why a request cannot be said on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unspeakable {
    /// The target's name cannot. Use its UUID.
    Name(BadName),
}

/// What came of a request. All but [`Reply::Entry`] end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It was done; or, to a monitor: the other end is there.
    Done,
    /// To a status. Unknown: the other end cannot tell.
    Power(Power),
    /// To a list: one more guest.
    Entry(Entry),
    /// To a list: that was the last.
    EndOfList,
    /// Not done, or not known to be done. The other end's log says why.
    Failed,
    /// Likewise, and why. Only our own wire can say that.
    NotDone(Failure),
    /// Not allowed.
    Denied,
    /// No reply in time. It may have been done, or may still be.
    TimedOut,
    /// The connection went away before a reply came. It may have been done, or may still be.
    Closed,
    /// The connection went away before the other end had said anything, where it should have proved that it holds the
    /// key: it does not take this key or this hash. Nothing was done, unless it asks nobody for a proof and is gone for
    /// another reason.
    Dropped,
    /// The other end does not hold the key, or answers challenges with another hash. It is not to be believed.
    NotProved,
}

/// The asking end, for one request.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
}

#[derive(Debug)]
enum Wire {
    Classic(ClassicClient),
    Native(NativeClient),
}

/// Calls a method of whatever wire is spoken.
macro_rules! on_wire {
    ($client:expr, $end:ident => $call:expr) => {
        match &$client.wire {
            Wire::Classic($end) => $call,
            Wire::Native($end) => $call,
        }
    };
    (mut $client:expr, $end:ident => $call:expr) => {
        match &mut $client.wire {
            Wire::Classic($end) => $call,
            Wire::Native($end) => $call,
        }
    };
}

impl Client {
    /// For one request, to be answered before `deadline`.
    #[inline(never)]
    pub fn new(speak: Speak<'_>, ask: &Ask, deadline: Millis) -> Result<Client, Unspeakable> {
        let mut classic = ClassicClient::idle(ask, deadline);
        match speak {
            Speak::ClassicSerial { seqno } => classic.on_serial(ask, seqno).map_err(Unspeakable::Name)?,
            Speak::ClassicPacket { fresh, signing } => classic.on_packets(ask, fresh, signing),
            Speak::Native { keys, id, guard } => {
                return Ok(Client { wire: Wire::Native(NativeClient::new(keys, ask, id, guard, deadline)) });
            }
        }
        Ok(Client { wire: Wire::Classic(classic) })
    }

    /// What came. Ask until it says `None`.
    pub fn poll(&mut self) -> Option<Reply> {
        on_wire!(mut self, end => end.poll())
    }

    /// Whether the request has ended. What it ended with was, or is still to be, polled.
    pub fn is_over(&self) -> bool {
        on_wire!(self, end => end.is_over())
    }
}

impl Endpoint for Client {
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
