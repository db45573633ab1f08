//! Either end of our own wire by hand: each frame is made by the test, so that it can be made wrongly.

use super::common::{Answering, Asking};
use fencewire_core::native::frame::{self, Deframer, FRAME_MAX, Payload};
use fencewire_core::native::keys::{Keys, Session};
use fencewire_core::native::message::{self, Head, Hello, Reply, Request, Said, Welcome, What};
use fencewire_core::{Accept, Ask, Client, Endpoint, Entropy, Event, Listener, Millis, NativeAccept, Speak, Uuid};
use serde::Serialize;

pub(crate) const GUEST: Uuid = Uuid::from_bytes([0xa; 16]);

pub(crate) fn keys(generation: u32) -> Keys {
    Keys::derive(b"master", GUEST, generation)
}

pub(crate) fn framed(payload: &[u8]) -> Vec<u8> {
    let mut out = heapless::Vec::<u8, FRAME_MAX>::new();
    assert!(frame::encode(payload, &mut out));
    out.to_vec()
}

pub(crate) fn payloads(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut deframer = Deframer::new();
    let mut found = Vec::new();
    for &byte in bytes {
        if deframer.push(byte) {
            found.push(deframer.payload().to_vec());
        }
    }
    found
}

pub(crate) fn written(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Payload::new();
    assert!(message::write(value, &mut bytes));
    bytes.to_vec()
}

/// A listener of our own wire, just connected.
pub(crate) fn answering(keys: Keys) -> Answering {
    answering_both(keys, false)
}

/// Likewise; of fence-virt's wire too, if it is said. Nothing is discarded.
pub(crate) fn answering_both(keys: Keys, classic: bool) -> Answering {
    Answering::connected(accept(keys, classic))
}

pub(crate) fn accept(keys: Keys, classic: bool) -> Accept {
    Accept { settle: Millis(0), classic, native: Some(NativeAccept { keys, instance: 7 }), ..Accept::default() }
}

/// The same listener, made anew as a bridge does that was killed.
pub(crate) fn restarted(end: &mut Answering, keys: Keys, entropy: u8) {
    end.listener = Listener::new(accept(keys, false));
    end.listener.opened(&Entropy([entropy; 64]), end.now);
}

/// A client of our own wire, just connected, to be answered within 30 s.
pub(crate) fn asking(ask: &Ask) -> Asking {
    asking_within(ask, 30_000)
}

pub(crate) fn asking_within(ask: &Ask, ms: u64) -> Asking {
    let now = Millis(1_000_000);
    let speak = Speak::Native { keys: &keys(1), id: ID, guard: None };
    let mut client = Client::new(speak, ask, now.plus(Millis(ms))).expect("can be said");
    client.opened(&Entropy([1; 64]), now);
    Asking { client, now }
}

pub(crate) const ID: u64 = 0x1234;

/// The asking end.
pub(crate) struct Guest {
    pub(crate) keys: Keys,
    pub(crate) hello: Vec<u8>,
    pub(crate) session: Option<Session>,
    pub(crate) counter: u32,
}

impl Guest {
    pub(crate) fn new(keys: Keys) -> Guest {
        Guest { keys, hello: Vec::new(), session: None, counter: 0 }
    }

    /// With a session that is established; what was asked in it is answered or withdrawn.
    pub(crate) fn established(end: &mut Answering) -> Guest {
        let mut guest = Guest::new(keys(1));
        guest.greets(end, 1);
        let frame = guest.request(1, end.now.plus(Millis(20_000)), What::Monitor);
        let (id, _) = end.asked(&frame);
        end.answer(id, fencewire_core::Answer::Alive).expect("it is out");
        end.read();
        guest
    }

    /// The frame of a hello with that nonce.
    pub(crate) fn say_hello(&mut self, nonce: u8) -> Vec<u8> {
        self.say_hello_of(1, 1, nonce)
    }

    pub(crate) fn say_hello_of(&mut self, min: u8, max: u8, nonce: u8) -> Vec<u8> {
        let (generation, guest) = (self.keys.generation(), *self.keys.guest().as_bytes());
        let hello = Hello { min, max, generation, guest, nonce: [nonce; 16] };
        let mut payload = [&[message::HELLO][..], &written(&hello)].concat();
        let tag = self.keys.hello_tag(&payload);
        payload.extend(tag);
        self.hello = payload;
        framed(&self.hello)
    }

    /// Reads the welcome among these bytes.
    pub(crate) fn welcomed(&mut self, bytes: &[u8]) -> Option<Welcome> {
        let welcome = payloads(bytes).into_iter().find(|payload| payload.first() == Some(&message::WELCOME))?;
        let (body, tag) = message::split_tag(&welcome)?;
        assert!(self.keys.proves_welcome(&self.hello, body, tag));
        self.session = Some(self.keys.session(&self.hello, &welcome));
        self.counter = 0;
        message::read::<Welcome>(message::WELCOME, body).map(|(welcome, _)| welcome)
    }

    /// Hello and welcome.
    pub(crate) fn greets(&mut self, end: &mut Answering, nonce: u8) -> Welcome {
        let hello = self.say_hello(nonce);
        assert_eq!(end.give(&hello), []);
        self.welcomed(&end.read()).expect("a welcome")
    }

    pub(crate) fn request(&mut self, id: u64, deadline: Millis, what: What<'_>) -> Vec<u8> {
        self.counter += 1;
        self.request_numbered(self.counter, id, deadline, what)
    }

    pub(crate) fn request_numbered(&self, counter: u32, id: u64, deadline: Millis, what: What<'_>) -> Vec<u8> {
        self.body(counter, &written(&Request { id, deadline: deadline.0, what }))
    }

    /// A frame with any body and a good tag.
    pub(crate) fn body(&self, counter: u32, body: &[u8]) -> Vec<u8> {
        let session = self.session.as_ref().expect("a session");
        let head = written(&Head { session: session.name, counter });
        let payload = [&[message::REQUEST][..], &head, body].concat();
        framed(&[&payload[..], &session.asking.tag(&[&payload])].concat())
    }

    /// What the host's frames say, if they are of this session.
    pub(crate) fn replies(&self, bytes: &[u8]) -> Vec<Reply> {
        let session = self.session.as_ref().expect("a session");
        let reply = |payload: Vec<u8>| {
            let (body, tag) = message::split_tag(&payload)?;
            let (head, rest) = message::read::<Head>(message::REPLY, body)?;
            let ours = head.session == session.name && session.answering.proves(&[body], tag);
            ours.then(|| message::read::<Reply>(0, &[&[0], rest].concat()).expect("a reply").0)
        };
        payloads(bytes).into_iter().filter_map(reply).collect()
    }
}

/// The answering end.
pub(crate) struct Host {
    pub(crate) keys: Keys,
    pub(crate) instance: u64,
    pub(crate) session: Option<Session>,
    pub(crate) counter: u32,
}

impl Host {
    pub(crate) fn new() -> Host {
        Host { keys: keys(1), instance: 7, session: None, counter: 0 }
    }

    /// Which knows nothing of what the first was asked.
    pub(crate) fn other() -> Host {
        Host { instance: 8, ..Host::new() }
    }

    /// The frame of a welcome to the hello among these bytes.
    pub(crate) fn welcome(&mut self, bytes: &[u8], stamp: u64) -> Vec<u8> {
        let instance = self.instance;
        self.welcome_of(bytes, Welcome { min: 1, max: 1, version: 1, instance, stamp, nonce: [0x22; 16] })
    }

    pub(crate) fn welcome_of(&mut self, bytes: &[u8], welcome: Welcome) -> Vec<u8> {
        let hello = payloads(bytes).pop().expect("a hello");
        assert_eq!(hello.first(), Some(&message::HELLO));
        let mut payload = [&[message::WELCOME][..], &written(&welcome)].concat();
        let tag = self.keys.welcome_tag(&hello, &payload);
        payload.extend(tag);
        self.session = Some(self.keys.session(&hello, &payload));
        self.counter = 0;
        framed(&payload)
    }

    pub(crate) fn reply(&mut self, id: u64, said: Said, entries: &[u8]) -> Vec<u8> {
        self.counter += 1;
        self.reply_numbered(self.counter, id, said, entries)
    }

    pub(crate) fn reply_numbered(&self, counter: u32, id: u64, said: Said, entries: &[u8]) -> Vec<u8> {
        let session = self.session.as_ref().expect("a session");
        let head = written(&Head { session: session.name, counter });
        let payload = [&[message::REPLY][..], &head, &written(&Reply { id, said }), entries].concat();
        framed(&[&payload[..], &session.answering.tag(&[&payload])].concat())
    }

    /// What the guest's frames ask, if they are of this session: their id and deadline.
    pub(crate) fn requests(&self, bytes: &[u8]) -> Vec<(u64, u64)> {
        let session = self.session.as_ref().expect("a session");
        let request = |payload: Vec<u8>| {
            let (body, tag) = message::split_tag(&payload)?;
            let (head, rest) = message::read::<Head>(message::REQUEST, body)?;
            let ours = head.session == session.name && session.asking.proves(&[body], tag);
            let bytes = [&[0], rest].concat();
            ours.then(|| message::read::<Request<'_>>(0, &bytes).expect("a request").0).map(|r| (r.id, r.deadline))
        };
        payloads(bytes).into_iter().filter_map(request).collect()
    }
}

/// Nothing was asked for by these events.
#[track_caller]
pub(crate) fn nothing_asked(events: &[Event]) {
    assert!(!events.iter().any(|event| matches!(event, Event::Asked(..))), "{events:?}");
}
