//! The native wire's listener, driven by steps: whoever is at the other end has the guest's key, another's or none, and
//! frames are delivered, cut, damaged, repeated and held up; fence-virt's among them, where that wire is answered too.
//!
//! What may come of it is in `native_model.rs`.

use super::by_hand::{GUEST, accept, framed, keys, written};
use super::common::input::Input;
use super::common::owner::answer;
use super::common::{Answering, frame};
use super::native_bytes::reason;
use super::native_model::Model;
use fencewire_core::native::frame::{Deframer, PAYLOAD_MAX};
use fencewire_core::native::keys::{Keys, TAG_LEN};
use fencewire_core::native::message::{HEAD_MAX, HELLO, Head, Hello, REQUEST, Request as Asked, What, Whom};
use fencewire_core::{Answer, Ask, Endpoint, Entropy, Event, Failure, NotNow, Refusal, Request, RequestId, Uuid};

/// More than any state is away from any other.
const STEPS: usize = 100;

/// Spans at, and next to, which something is due.
const SPANS: [u64; 12] = [0, 1, 49, 250, 999, 1_000, 1_001, 4_999, 5_000, 20_000, 25_000, 700_000];

/// How far away deadlines are.
const DEADLINES: [u64; 8] = [20_000, 1, 0, 999, 5_000, 600_000, 600_001, u64::MAX];

struct Bed {
    end: Answering,
    model: Model,
    classic: bool,
    /// Everything that was ever said by either side, frame by frame.
    recording: Vec<Vec<u8>>,
    /// What is in the channel; what was not read of a frame.
    queue: Vec<u8>,
    rest: Vec<u8>,
    out: Vec<(RequestId, Request)>,
    ended: Vec<RequestId>,
}

impl Bed {
    fn new(keys: Keys, classic: bool) -> Bed {
        let end = Answering::connected(accept(keys.clone(), classic));
        let model = Model::new(keys);
        Bed { end, model, classic, recording: vec![], queue: vec![], rest: vec![], out: vec![], ended: vec![] }
    }

    fn says(&mut self, frame: Vec<u8>) {
        self.queue.extend(&frame);
        self.recording.push(frame);
    }

    fn hello(&mut self, keys: &Keys, versions: (u8, u8), nonce: u8) {
        let (guest, generation) = (*keys.guest().as_bytes(), keys.generation());
        let hello = Hello { min: versions.0, max: versions.1, generation, guest, nonce: [nonce; 16] };
        let payload = [&[HELLO][..], &written(&hello)].concat();
        self.says(framed(&[&payload[..], &keys.hello_tag(&payload)].concat()));
    }

    /// In one of the sessions that there are, with the key for one direction or the other.
    fn request(&mut self, session: usize, counter: Option<u32>, turned: bool, body: &[u8]) {
        let number = self.model.sessions.len();
        let Some(known) = number.checked_sub(1 + session % number.max(1)).map(|at| &mut self.model.sessions[at]) else {
            return;
        };
        let counter = counter.unwrap_or(known.said.saturating_add(1));
        known.said = known.said.max(counter);
        let head = written(&Head { session: known.session.name, counter });
        let payload = [&[REQUEST][..], &head, body].concat();
        let key = if turned { &known.session.answering } else { &known.session.asking };
        let frame = framed(&[&payload[..], &key.tag(&[&payload])].concat());
        self.says(frame);
    }

    fn asks(&mut self, input: &mut Input<'_>) {
        let run = input.flag().then_some([5; 16]);
        let uuid = Whom::Uuid(input.one_of(&[[7; 16], [8; 16]]));
        let whom = input.one_of(&[Whom::Name("vm1"), Whom::Name("abba"), uuid, Whom::Name("a\nb")]);
        let (off, reboot) = (What::Off(whom, run), What::Reboot(whom, run));
        let what = input.one_of(&[off, reboot, What::On(whom), What::Status(whom), What::Monitor, What::List(run)]);
        let deadline = self.end.now.0.saturating_add(input.one_of(&DEADLINES));
        let body = written(&Asked { id: u64::from(input.byte() & 3), deadline, what });
        let counter = input.one_of(&[None, None, None, Some(1), Some(2), Some(40), Some(u32::MAX)]);
        self.request(input.below(3), counter, input.below(16) == 15, &body);
    }

    fn deliver(&mut self, n: usize) {
        let n = n.min(self.queue.len());
        let bytes: Vec<u8> = self.queue.drain(..n).collect();
        // One frame of ours at a time, to see what comes of it.
        for bytes in bytes.split_inclusive(|&byte| byte == 0) {
            let before = self.end.listener.transmit().len();
            self.model.comes(bytes, self.end.now);
            let events = self.end.give(bytes);
            let said = self.end.listener.transmit().len() > before;
            let seen = !self.classic || said && self.out.iter().all(|(_, request)| request.is_native());
            self.model.was_welcomed(seen.then_some(said));
            self.events(events);
        }
    }

    fn events(&mut self, events: Vec<Event>) {
        let mut refused = 0;
        if self.model.is_unsure {
            return;
        }
        for event in events {
            match event {
                Event::Asked(id, request) => {
                    self.model.handed_out(&request, self.classic);
                    let others = self.out.iter().filter(|(_, other)| other.is_native() == request.is_native());
                    assert_eq!(others.count(), 0, "two requests of one wire are out");
                    assert!(!self.ended.contains(&id), "an id that was used");
                    self.out.push((id, request));
                }
                Event::EntryWanted(id) => {
                    let out = self.out.iter().find(|(out, _)| *out == id);
                    assert_eq!(out.map(|(_, request)| request.ask()), Some(&Ask::List));
                }
                Event::Withdrawn(id) => self.ends(id),
                Event::Refused(Refusal::NotProved) => refused += 1,
                Event::Refused(Refusal::ReplyNotRead) => {
                    self.model.was_not_read(!self.classic);
                    (self.model.going, self.rest) = (Deframer::new(), vec![]);
                }
                Event::Refused(Refusal::OtherWire) => assert!(!self.classic),
                Event::Refused(_) => {}
            }
        }
        assert_eq!(refused, core::mem::take(&mut self.model.refused), "frames that prove nothing");
    }

    fn ends(&mut self, id: RequestId) {
        let at = self.out.iter().position(|(out, _)| *out == id).expect("it is out");
        self.out.swap_remove(at);
        self.ended.push(id);
    }

    fn read(&mut self, n: usize) {
        let bytes = self.end.listener.transmit();
        if !bytes.starts_with(&self.rest) {
            // What was read of the last frame is nothing: nobody read the rest of it in time.
            self.model.going = Deframer::new();
        }
        let (bytes, rest) = bytes.split_at(n.min(bytes.len()));
        let (bytes, rest) = (bytes.to_vec(), rest.to_vec());
        self.rest = rest;
        self.end.listener.sent(bytes.len(), self.end.now);
        self.model.goes(&bytes, self.end.now);
        self.recording.push(bytes);
        let events = self.end.polled();
        self.events(events);
    }

    fn read_all(&mut self) {
        while !self.end.listener.transmit().is_empty() {
            self.read(usize::MAX);
        }
    }

    fn pass(&mut self, ms: u64) {
        let events = self.end.later(ms);
        self.events(events);
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        let old = self.ended.last().copied().filter(|_| input.below(8) == 7).map(|id| (id, None));
        let out = self.out.get(input.below(2)).or(self.out.first()).map(|(id, request)| (*id, Some(request.clone())));
        let Some((id, request)) = old.or(out) else { return };
        let kind = input.byte() % 10;
        let answer = match kind {
            2 | 3 => {
                let mut entry =
                    super::common::entry(if kind == 2 { "vm1" } else { "a name of more bytes, and of more" });
                entry.uuid = Uuid::from_bytes([input.byte(); 16]);
                Answer::Entry(entry)
            }
            8 => Answer::Failed(reason(input).into()),
            9 => Answer::Power(input.power()),
            _ if request.as_ref().is_some_and(|request| request.deadline() <= request.received()) => {
                Answer::Failed(Failure::Expired)
            }
            _ => answer(kind, request.as_ref()),
        };
        let Some(request) = request else {
            assert_eq!(self.end.answer(id, answer), Err(NotNow::Gone));
            return;
        };
        match self.end.answer(id, answer) {
            Ok(()) => {
                self.model.answered.push((request.key().id, answer));
                if !matches!(answer, Answer::Entry(_)) {
                    self.ends(id);
                }
            }
            Err(NotNow::Gone) => panic!("gone, and nobody said so"),
            Err(NotNow::DoesNotFit | NotNow::EntryNotWanted) => {}
        }
    }

    fn again(&mut self, input: &mut Input<'_>, damaged: bool) {
        let Some(last) = self.recording.len().checked_sub(1) else { return };
        let mut frame = self.recording[last.saturating_sub(input.below(256))].clone();
        if damaged && !frame.is_empty() {
            let at = input.below(256) % frame.len();
            match input.below(3) {
                0 => frame[at] ^= input.byte(),
                1 => frame.truncate(at),
                _ => _ = frame.remove(at),
            }
        }
        self.queue.extend(frame);
    }

    fn connection(&mut self, kind: usize) {
        match kind {
            0 => self.end.listener.opened(&Entropy([self.ended.len() as u8; 64]), self.end.now),
            1 => self.end.listener.closed(self.end.now),
            _ => self.end.listener.guest_was_reset(self.end.now),
        }
        self.model.closed();
        (self.model.going, self.rest) = (Deframer::new(), vec![]);
        let events = self.end.polled();
        self.events(events);
    }

    fn step(&mut self, input: &mut Input<'_>, others: &[Keys]) {
        match input.below(18) {
            0 | 1 => {
                let mine = self.model.keys.clone();
                self.hello(&mine, (1, 1), input.byte() & 7);
                if input.flag() {
                    self.deliver(usize::MAX);
                    self.read_all();
                }
            }
            2 => {
                let versions = input.one_of(&[(1, 1), (0, 9), (2, 9), (0, 0), (9, 2)]);
                let mine = self.model.keys.clone();
                self.hello(&mine, versions, input.byte() & 7);
            }
            3 => self.hello(&input.one_of(others), (1, 1), input.byte() & 7),
            4..=7 => self.asks(input),
            8 => {
                let body = input.some();
                let body = body[..body.len().min(PAYLOAD_MAX - HEAD_MAX - TAG_LEN)].to_vec();
                self.request(input.below(3), None, false, &body);
            }
            9 => self.again(input, false),
            10 => self.again(input, true),
            11 => self.queue.extend(input.some()),
            12 => self.queue.extend(frame(&input.ask(), u32::from(input.byte() & 7))),
            13 => self.pass(input.one_of(&SPANS)),
            14 => self.pass(u64::from(input.word())),
            15 => self.read(usize::from(input.byte())),
            16 => self.answer(input),
            _ => self.connection(input.below(3)),
        }
        match input.below(8) {
            0..=4 => self.deliver(usize::MAX),
            5 => self.deliver(usize::from(input.byte())),
            6 => (0..self.queue.len()).for_each(|_| self.deliver(1)),
            _ => {}
        }
        // A frame that was waited for may have ended without a request: what waited for it is over then.
        self.pass(0);
        assert!(self.end.listener.wake_at().is_none_or(|at| at > self.end.now), "due, and nothing came of it");
        assert!(!self.end.listener.is_idle() || self.out.is_empty(), "idle with a request out");
    }

    /// Rule 4: whatever was, a guest that has the key is heard, in a session of its own.
    fn is_as_good_as_new(&mut self) {
        self.deliver(usize::MAX);
        self.read_all();
        // What is begun and never goes on ends by itself; a zero ends it for our own.
        self.pass(70_000);
        self.read_all();
        self.pass(700_000);
        self.read_all();
        if self.model.is_unsure {
            return;
        }
        assert!(self.out.is_empty(), "{:?}", self.end.listener);
        let mine = self.model.keys.clone();
        self.hello(&mine, (1, 1), 200);
        self.deliver(usize::MAX);
        self.read_all();
        let body = written(&Asked { id: 900, deadline: self.end.now.0 + 9_000, what: What::Monitor });
        self.request(0, None, false, &body);
        self.deliver(usize::MAX);
        assert!(matches!(&self.out[..], [(_, request)] if request.is_native() && request.key().id == 900));
        self.connection(1);
        assert!(self.end.listener.is_idle() && self.out.is_empty());
    }
}

fn others() -> [Keys; 3] {
    [Keys::derive(b"master", Uuid::from_bytes([0xb; 16]), 1), keys(2), Keys::derive(b"another master", GUEST, 1)]
}

/// A guest that was enrolled, or one of those without a key; fence-virt's wire on the same channel, or not.
pub(crate) fn listener(input: &mut Input<'_>, classic: bool) {
    let keyless = classic || input.flag();
    let mine = if keyless { Keys::keyless() } else { keys(1) };
    let mut others = others().to_vec();
    others.push(if keyless { keys(1) } else { Keys::keyless() });
    let mut bed = Bed::new(mine, classic);
    for _ in 0..STEPS {
        if input.is_empty() || bed.model.is_unsure {
            break;
        }
        bed.step(input, &others);
    }
    bed.is_as_good_as_new();
}
