//! What the tests of the core share: asks and frames, and either end of a conversation with an owner that keeps to the
//! order of calls, in virtual time.
#![allow(dead_code, reason = "each test takes its part of it")]

pub(crate) mod input;
pub(crate) mod owner;
pub(crate) mod packets;

use fencewire_core::classic::Code;
use fencewire_core::classic::serial::{self, ENTRY_LEN, RequestFrame};
use fencewire_core::{
    Accept, Admit, Answer, Ask, Client, Endpoint, Entropy, Event, Ledger, ListEntry, Listener, Millis, NotNow,
    Observation, Outcome, Permit, Power, PowerAction, Refusal, Reply, Request, RequestId, Restart, Speak, Target, Uuid,
};

/// More than anything that ends needs at one point in time.
pub(crate) const ENOUGH: usize = 10_000;

/// Random bytes, for this purpose.
pub(crate) const ENTROPY: Entropy = Entropy([0x5a; 64]);

pub(crate) fn target(text: &str) -> Target {
    Target::parse(text.as_bytes()).expect("a good name")
}

pub(crate) fn off(text: &str) -> Ask {
    Ask::Power(PowerAction::Off, target(text))
}

pub(crate) fn status(text: &str) -> Ask {
    Ask::Status(target(text))
}

/// What a client with this sequence number sends.
pub(crate) fn frame(ask: &Ask, seqno: u32) -> RequestFrame {
    serial::encode_request(ask, seqno).expect("can be said")
}

/// A frame that asks to put a guest off, with these bytes in the domain field.
pub(crate) fn frame_with_domain(domain: &[u8]) -> RequestFrame {
    let mut bytes = frame(&off("x"), 0x01_0203);
    bytes[6..70].fill(0);
    bytes[6..6 + domain.len()].copy_from_slice(domain);
    bytes
}

pub(crate) fn reply(code: Code) -> Vec<u8> {
    serial::encode_reply(code).to_vec()
}

pub(crate) fn entry(name: &str) -> ListEntry<'_> {
    ListEntry { name, uuid: Uuid::from_bytes([7; 16]), power: Power::On }
}

pub(crate) fn entry_bytes(name: &str) -> [u8; ENTRY_LEN] {
    serial::encode_entry(&entry(name))
}

/// "Done" to a power request, proved as it has to be.
pub(crate) fn done(request: &Request) -> Answer<'static> {
    let Ask::Power(action, _) = request.ask() else { panic!("no power request: {request:?}") };
    let Admit::Act(permit) = Ledger::<1>::new().admit(request, request.received()) else {
        panic!("not admitted: {request:?}")
    };
    Answer::Outcome(success(*action, &permit, request.received()))
}

/// What comes of a power request when all goes well.
pub(crate) fn success(action: PowerAction, permit: &Permit, asked: Millis) -> Outcome {
    let seen = Observation { power: Power::Off, asked };
    let off = || permit.confirm_off(seen).expect("seen after the request came");
    match action {
        PowerAction::Off => Outcome::Off(off()),
        PowerAction::Reboot => Outcome::Rebooted(off(), Restart::Started),
        PowerAction::On => Outcome::On,
    }
}

/// A listener, its owner's side of the contract, and the time.
pub(crate) struct Answering {
    pub(crate) listener: Listener,
    pub(crate) now: Millis,
}

impl Answering {
    /// Connected for so long that nothing is discarded any more.
    pub(crate) fn settled() -> Answering {
        let mut end = Answering::connected(Accept::default());
        assert_eq!(end.later(1_000), []);
        end
    }

    pub(crate) fn connected(accept: Accept) -> Answering {
        let mut end = Answering { listener: Listener::new(accept), now: Millis(1_000_000) };
        end.listener.opened(&ENTROPY, end.now);
        end
    }

    /// Bytes come, all at once.
    pub(crate) fn give(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.listener.receive(rest, self.now);
            let polled = self.polled();
            assert!(taken > 0 || !polled.is_empty(), "nothing taken, and nothing to say");
            events.extend(polled);
            rest = &rest[taken..];
        }
        events
    }

    /// Time passes. The listener is woken when it wishes.
    pub(crate) fn later(&mut self, ms: u64) -> Vec<Event> {
        let until = self.now.plus(Millis(ms));
        let mut events = Vec::new();
        for _ in 0..ENOUGH {
            let Some(at) = self.listener.wake_at().filter(|&at| at <= until) else {
                self.now = until;
                return events;
            };
            self.now = self.now.max(at);
            self.listener.wake(self.now);
            events.extend(self.polled());
        }
        panic!("wants to be woken for ever: {:?}", self.listener)
    }

    pub(crate) fn polled(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.listener.poll() {
            events.push(event);
            assert!(events.len() < ENOUGH, "always one more event");
        }
        events
    }

    /// The peer reads all there is, until nothing more comes by itself. Says what was read and what happened.
    pub(crate) fn drained(&mut self) -> (Vec<u8>, Vec<Event>) {
        let (mut bytes, mut events) = (Vec::new(), Vec::new());
        while !self.listener.transmit().is_empty() {
            bytes.extend(self.listener.transmit());
            self.listener.sent(self.listener.transmit().len(), self.now);
            events.extend(self.polled());
            assert!(bytes.len() < ENOUGH, "always one more byte");
        }
        (bytes, events)
    }

    /// The peer reads all there is; nothing happens by that.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        let (bytes, events) = self.drained();
        assert_eq!(events, [], "by reading");
        bytes
    }

    pub(crate) fn answer(&mut self, id: RequestId, answer: Answer<'_>) -> Result<(), NotNow> {
        self.listener.answer(id, answer, self.now)
    }

    /// A frame comes and is handed out at once, with nothing else.
    pub(crate) fn asked(&mut self, frame: &[u8]) -> (RequestId, Request) {
        asked(self.give(frame))
    }
}

/// All that an end has to say, where one byte at a time is taken of it.
pub(crate) fn by_bytes(end: &mut impl Endpoint, now: Millis) -> Vec<u8> {
    let mut said = Vec::new();
    while let Some(&byte) = end.transmit().first() {
        said.push(byte);
        assert!(said.len() < ENOUGH, "always one more byte");
        end.sent(1, now);
        end.sent(0, now);
    }
    said
}

/// The one request in these events, which hold nothing else.
pub(crate) fn asked(events: Vec<Event>) -> (RequestId, Request) {
    match <[Event; 1]>::try_from(events) {
        Ok([Event::Asked(id, request)]) => (id, request),
        other => panic!("not one request: {other:?}"),
    }
}

/// All requests in these events, whatever else is there.
pub(crate) fn asks(events: &[Event]) -> Vec<Ask> {
    let ask = |event: &Event| match event {
        Event::Asked(_, request) => Some(request.ask().clone()),
        _ => None,
    };
    events.iter().filter_map(ask).collect()
}

/// All refusals in these events, whatever else is there.
pub(crate) fn refusals(events: &[Event]) -> Vec<Refusal> {
    let refusal = |event: &Event| match event {
        Event::Refused(refusal) => Some(*refusal),
        _ => None,
    };
    events.iter().filter_map(refusal).collect()
}

/// A client, its owner's side of the contract, and the time.
pub(crate) struct Asking {
    pub(crate) client: Client,
    pub(crate) now: Millis,
}

impl Asking {
    /// Connected, to be answered within `ms`.
    pub(crate) fn within(ms: u64, ask: &Ask) -> Asking {
        let now = Millis(1_000_000);
        let speak = Speak::ClassicSerial { seqno: 0x01_0203 };
        let mut client = Client::new(speak, ask, now.plus(Millis(ms))).expect("can be said");
        client.opened(&ENTROPY, now);
        Asking { client, now }
    }

    /// Connected, and the request is sent.
    pub(crate) fn asked(ask: &Ask) -> Asking {
        let mut end = Asking::within(30_000, ask);
        assert_eq!(end.written(), frame(ask, 0x01_0203));
        end
    }

    /// Connected over the packet wire, to be answered within 30 s.
    pub(crate) fn of_packets(speak: Speak<'_>, ask: &Ask, entropy: &Entropy) -> Asking {
        let now = Millis(1_000_000);
        let mut client = Client::new(speak, ask, now.plus(Millis(30_000))).expect("can be said");
        client.opened(entropy, now);
        Asking { client, now }
    }

    /// The port takes all there is.
    pub(crate) fn written(&mut self) -> Vec<u8> {
        let bytes = self.client.transmit().to_vec();
        self.client.sent(bytes.len(), self.now);
        bytes
    }

    /// Bytes come, all at once.
    pub(crate) fn give(&mut self, bytes: &[u8]) -> Vec<Reply> {
        let mut replies = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.client.receive(rest, self.now);
            let polled = self.polled();
            assert!(taken > 0 || !polled.is_empty(), "nothing taken, and nothing to say");
            replies.extend(polled);
            rest = &rest[taken..];
        }
        replies
    }

    /// Time passes. The client is woken when it wishes, and the port takes nothing.
    pub(crate) fn later(&mut self, ms: u64) -> Vec<Reply> {
        let until = self.now.plus(Millis(ms));
        let mut replies = Vec::new();
        for _ in 0..ENOUGH {
            let Some(at) = self.client.wake_at().filter(|&at| at <= until) else {
                self.now = until;
                return replies;
            };
            self.now = self.now.max(at);
            self.client.wake(self.now);
            replies.extend(self.polled());
        }
        panic!("wants to be woken for ever: {:?}", self.client)
    }

    pub(crate) fn polled(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        while let Some(reply) = self.client.poll() {
            replies.push(reply);
            assert!(replies.len() < ENOUGH, "always one more reply");
        }
        replies
    }
}
