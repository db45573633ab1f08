//! The asking end of our own wire: a handshake, the request, and its repetition with the same id while nothing is heard.
//!
//! ```text
//!            hello               welcome           accepted, working …      done
//! greeting ────────▶ (repeated) ────────▶ asking ────────────────────▶ … ────────▶ over
//!     ▲                                     │ nothing heard for 3 s
//!     └─────────────────────────────────────┘
//! ```

use super::Reply;
use crate::Endpoint;
use crate::classic::serial::Entry;
use crate::listener::DEADLINE_MAX;
use crate::native::frame::{self, Deframer, FRAMING, PAYLOAD_MAX, Payload};
use crate::native::keys::{Keys, Session};
use crate::native::message::{self, HELLO_MAX, Head, Hello, REQUEST_MAX, Said, Welcome, What, Whom};
use crate::native::{CURRENT, MIN};
use crate::sha::sha256;
use crate::words::{Ask, Entropy, Incarnation, ListEntry, Millis, PowerAction, Target, Uuid};

/// What is sent: one frame at a time, and the longest is a request.
const OUT_MAX: usize = REQUEST_MAX + FRAMING;

/// How long after a hello has gone it is sent again: at first, and later.
const FIRST_REPEAT: Millis = Millis(300);
const NEXT_REPEAT: Millis = Millis(1_000);

/// A bridge says every second that it works; one that was not heard for so long does not know the session any more.
const LOST: Millis = Millis(3_000);

/// See [`super::Client`].
#[derive(Debug)]
pub(super) struct NativeClient {
    keys: Keys,
    ask: Ask,
    guard: Option<Incarnation>,
    id: u64,
    deadline: Millis,
    entropy: [u8; message::NONCE_LEN],
    /// Hellos with a nonce of their own so far.
    greeted: u32,
    hello: heapless::Vec<u8, HELLO_MAX, u8>,
    state: State,
    session: Option<Session>,
    /// Of the last frame that was sent, and that was heard, in the session.
    counter: u32,
    heard: u32,
    heard_at: Millis,
    /// The deadline on the other end's clock, and what that clock showed last.
    due: Option<(u64, u64)>,
    accepted: bool,
    /// When what is in `out` is to be sent again; none while it is being sent.
    repeat_at: Option<Millis>,
    repeated: bool,
    out: heapless::Vec<u8, OUT_MAX, u8>,
    sent: u8,
    deframer: Deframer,
    /// Entries of a list's chunk that are still to be handed out, and where in the payload they begin; whether there are
    /// more chunks.
    chunk: Option<(u8, u8, bool)>,
    /// The last guest of a list so far.
    after: Option<Uuid>,
    reply: Option<Reply>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection.
    Idle,
    /// A hello is out.
    Greeting,
    /// The request is.
    Asking,
    /// It has ended.
    Over,
}

impl NativeClient {
    pub(super) fn new(keys: &Keys, ask: &Ask, id: u64, guard: Option<Incarnation>, deadline: Millis) -> NativeClient {
        NativeClient {
            keys: keys.clone(),
            ask: ask.clone(),
            guard,
            id,
            deadline,
            entropy: [0; message::NONCE_LEN],
            greeted: 0,
            hello: heapless::Vec::new(),
            state: State::Idle,
            session: None,
            counter: 0,
            heard: 0,
            heard_at: Millis(0),
            due: None,
            accepted: false,
            repeat_at: None,
            repeated: false,
            out: heapless::Vec::new(),
            sent: 0,
            deframer: Deframer::new(),
            chunk: None,
            after: None,
            reply: None,
        }
    }

    pub(super) fn poll(&mut self) -> Option<Reply> {
        self.reply.take().or_else(|| self.next_entry())
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over && self.chunk.is_none()
    }

    fn end(&mut self, reply: Reply) {
        self.reply = Some(reply);
        self.state = State::Over;
        self.chunk = None;
    }

    /// Begins a handshake, with a nonce that was never used.
    fn greet(&mut self) {
        self.greeted += 1;
        let digest = sha256(&[&self.entropy, &self.greeted.to_le_bytes()]);
        let nonce = *digest.first_chunk().unwrap_or(&[0; message::NONCE_LEN]);
        let (generation, guest) = (self.keys.generation(), *self.keys.guest().as_bytes());
        self.hello.clear();
        let _ = self.hello.push(message::HELLO);
        message::write(&Hello { min: MIN, max: CURRENT, generation, guest, nonce }, &mut self.hello);
        let tag = self.keys.hello_tag(&self.hello);
        let _ = self.hello.extend_from_slice(&tag);
        self.state = State::Greeting;
        self.repeated = false;
        self.accepted = false;
        self.send_hello();
    }

    fn send_hello(&mut self) {
        let hello = core::mem::take(&mut self.hello);
        self.put(&hello);
        self.hello = hello;
    }

    fn put(&mut self, payload: &[u8]) {
        self.out.clear();
        self.sent = 0;
        frame::encode(payload, &mut self.out);
        self.repeat_at = None;
    }

    fn send_request(&mut self) {
        let Some(session) = &self.session else { return };
        let text = match self.ask.target() {
            Some(Target::Name(name)) => Whom::Name(name.as_str()),
            Some(Target::Uuid(uuid)) => Whom::Uuid(*uuid.as_bytes()),
            None => Whom::Name(""),
        };
        let guard = self.guard.map(|guard| *guard.as_bytes());
        let what = match &self.ask {
            Ask::Power(PowerAction::Off, _) => What::Off(text, guard),
            Ask::Power(PowerAction::Reboot, _) => What::Reboot(text, guard),
            Ask::Power(PowerAction::On, _) => What::On(text),
            Ask::Status(_) => What::Status(text),
            Ask::Monitor => What::Monitor,
            Ask::List => What::List(self.after.map(|uuid| *uuid.as_bytes())),
        };
        self.counter += 1;
        let head = Head { session: session.name, counter: self.counter };
        let deadline = self.due.map_or(0, |(due, _)| due);
        let mut payload = Payload::new();
        let _ = payload.push(message::REQUEST);
        message::write(&head, &mut payload);
        message::write(&message::Request { id: self.id, deadline, what }, &mut payload);
        let tag = session.asking.tag(&[&payload]);
        let _ = payload.extend_from_slice(&tag);
        self.put(&payload);
    }

    /// A whole frame has come.
    fn frame(&mut self, now: Millis) {
        let deframer = core::mem::take(&mut self.deframer);
        match deframer.payload().first() {
            Some(&message::WELCOME) if self.state == State::Greeting => self.welcomed(deframer.payload(), now),
            Some(&message::REPLY) => self.replied(deframer.payload(), now),
            _ => {}
        }
        self.deframer = deframer;
    }

    fn welcomed(&mut self, payload: &[u8], now: Millis) {
        let Some((body, tag)) = message::split_tag(payload) else { return };
        if !self.keys.proves_welcome(&self.hello, body, tag) {
            return;
        }
        let Some((welcome, [])) = message::read::<Welcome>(message::WELCOME, body) else { return };
        if !(MIN..=CURRENT).contains(&welcome.version) {
            return;
        }
        self.session = Some(self.keys.session(&self.hello, payload));
        (self.counter, self.heard, self.heard_at) = (0, 0, now);
        self.accepted = false;
        // Further off it would be refused. What is not done by then is not done.
        let left = self.deadline.since(now).min(DEADLINE_MAX);
        let due = welcome.stamp.saturating_add(left.0);
        // On the same clock a request never becomes younger, whatever pauses this end.
        self.due = Some(match self.due {
            Some((before, stamp)) if welcome.stamp >= stamp => (before.min(due), welcome.stamp),
            _ => (due, welcome.stamp),
        });
        self.state = State::Asking;
        self.repeated = false;
        self.send_request();
    }

    fn replied(&mut self, payload: &[u8], now: Millis) {
        let Some((body, tag)) = message::split_tag(payload) else { return };
        let Some(session) = &self.session else { return };
        let Some((head, rest)) = message::read::<Head>(message::REPLY, body) else { return };
        if head.session != session.name || head.counter <= self.heard || !session.answering.proves(&[body], tag) {
            return;
        }
        self.heard = head.counter;
        self.heard_at = now;
        let Ok((reply, rest)) = postcard::take_from_bytes::<message::Reply>(rest) else { return };
        if reply.id != self.id {
            return;
        }
        let chunk_at = body.len() - rest.len();
        match (reply.said, &self.ask) {
            (Said::Accepted | Said::Working, _) => {
                // The session that was given up is alive: a handshake that has begun is not needed.
                self.state = State::Asking;
                self.accepted = true;
                self.repeat_at = None;
            }
            (Said::Done(done), Ask::Power(action, _)) => self.end(match (done.result, action) {
                (message::Result::Failed(reason), _) => Reply::NotDone(reason.into()),
                (message::Result::On, PowerAction::On) => Reply::Done,
                (message::Result::Off, PowerAction::Off)
                | (message::Result::Rebooted | message::Result::NotStarted, PowerAction::Reboot)
                    if done.seen_off =>
                {
                    Reply::Done
                }
                _ => Reply::Failed,
            }),
            (Said::Status(runs, _), Ask::Status(_)) => self.end(Reply::Power(runs.into())),
            (Said::Alive, Ask::Monitor) => self.end(Reply::Done),
            (Said::List(count, more), Ask::List) => self.chunk = Some((count, chunk_at as u8, more)),
            (Said::Denied, _) => self.end(Reply::Denied),
            (Said::Failed(reason), _) => self.end(Reply::NotDone(reason.into())),
            _ => self.end(Reply::Failed),
        }
    }

    /// The next entry of the chunk that has come; at its end, the next chunk is asked for.
    fn next_entry(&mut self) -> Option<Reply> {
        let (count, at, more) = self.chunk?;
        let Some(left) = count.checked_sub(1) else {
            self.chunk = None;
            if !more {
                self.state = State::Over;
                return Some(Reply::EndOfList);
            }
            self.id = self.id.wrapping_add(1);
            self.accepted = false;
            self.send_request();
            return None;
        };
        let (body, _) = message::split_tag(self.deframer.payload())?;
        let rest = body.get(usize::from(at)..)?;
        let Ok((entry, rest)) = postcard::take_from_bytes::<message::Entry<'_>>(rest) else {
            self.end(Reply::Failed);
            return self.reply.take();
        };
        let uuid = Uuid::from_bytes(entry.uuid);
        let listed = ListEntry { name: entry.name, uuid, power: entry.runs.into() };
        let entry = Reply::Entry(Entry::of(&listed));
        self.after = Some(uuid);
        self.chunk = Some((left, (body.len() - rest.len()) as u8, more));
        Some(entry)
    }
}

impl Endpoint for NativeClient {
    fn opened(&mut self, entropy: &Entropy, now: Millis) {
        if self.state == State::Over {
            return;
        }
        self.entropy = *entropy.0.first_chunk().unwrap_or(&[0; message::NONCE_LEN]);
        self.session = None;
        self.chunk = None;
        self.deframer.reset();
        self.heard_at = now;
        self.greet();
    }

    fn receive(&mut self, bytes: &[u8], now: Millis) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.reply.is_some() || self.chunk.is_some() {
                return at;
            }
            if self.state != State::Over && self.deframer.push(byte) {
                self.frame(now);
            }
        }
        bytes.len()
    }

    fn closed(&mut self, _now: Millis) {
        if !matches!(self.state, State::Idle | State::Over) && self.reply.is_none() {
            self.end(Reply::Closed);
        }
    }

    fn transmit(&self) -> &[u8] {
        match self.state {
            State::Idle | State::Over => &[],
            _ => self.out.get(usize::from(self.sent)..).unwrap_or_default(),
        }
    }

    fn sent(&mut self, n: usize, now: Millis) {
        let n = n.min(self.transmit().len());
        self.sent += n as u8;
        if n > 0 && self.transmit().is_empty() && !self.accepted {
            let wait = if self.repeated { NEXT_REPEAT } else { FIRST_REPEAT };
            self.repeat_at = Some(now.plus(wait));
        }
    }

    fn wake_at(&self) -> Option<Millis> {
        let lost = (self.state == State::Asking).then(|| self.heard_at.plus(LOST));
        let ends = (self.state != State::Over).then_some(self.deadline);
        [self.repeat_at.filter(|_| self.state != State::Over), lost, ends].into_iter().flatten().min()
    }

    fn wake(&mut self, now: Millis) {
        if matches!(self.state, State::Over) || self.reply.is_some() {
            return;
        }
        if now >= self.deadline {
            return self.end(Reply::TimedOut);
        }
        if self.state == State::Asking && now.since(self.heard_at) >= LOST {
            return self.greet();
        }
        if self.repeat_at.is_some_and(|at| now >= at) {
            self.repeated = true;
            match self.state {
                State::Greeting => self.send_hello(),
                // A frame of its own: one that came twice counts once.
                State::Asking => self.send_request(),
                State::Idle | State::Over => {}
            }
        }
    }
}

const _: () = assert!(HELLO_MAX <= REQUEST_MAX && OUT_MAX <= u8::MAX as usize && PAYLOAD_MAX <= u8::MAX as usize);
