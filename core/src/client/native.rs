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
use crate::native::asking::{self, Reader, WHAT_MAX};
use crate::native::frame::{self, Deframer, FRAMING, PAYLOAD_MAX, Payload};
use crate::native::keys::{Keys, SESSION_LEN, Session};
use crate::native::message::{self, HELLO_MAX, REQUEST_MAX, Said};
use crate::native::{CURRENT, MIN};
use crate::sha::sha256;
use crate::words::{Ask, Entropy, Incarnation, Millis, Uuid};

/// What is sent: one frame at a time, and the longest is a request.
const OUT_MAX: usize = REQUEST_MAX + FRAMING;

/// How long after a hello has gone it is sent again: at first, and later.
const FIRST_REPEAT: Millis = Millis(300);
const NEXT_REPEAT: Millis = Millis(1_000);

/// A bridge says every second that it works; one that was not heard for so long does not know the session any more.
const LOST: Millis = Millis(3_000);

/// See [`super::Client`].
// Small fields first: what is within 128 bytes of the beginning is reached with shorter instructions.
#[derive(Debug)]
#[repr(C)]
pub(super) struct NativeClient {
    state: State,
    accepted: bool,
    repeated: bool,
    sent: u8,
    /// Entries of a list's chunk that are still to be handed out, and where in the payload they begin; whether there are
    /// more chunks.
    chunk: Option<(u8, u8, bool)>,
    /// Hellos with a nonce of their own so far.
    greeted: u32,
    /// Of the last frame that was sent, and that was heard, in the session.
    counter: u32,
    heard: u32,
    id: u64,
    deadline: Millis,
    heard_at: Millis,
    /// The deadline on the other end's clock, and the instance whose clock that is.
    due: Option<(u64, u64)>,
    /// When what is in `out` is to be sent again; none while it is being sent.
    repeat_at: Option<Millis>,
    /// What is asked, as it stands in the request.
    what: heapless::Vec<u8, WHAT_MAX>,
    reply: Option<Reply>,
    session: Option<Session>,
    keys: Keys,
    entropy: [u8; message::NONCE_LEN],
    hello: heapless::Vec<u8, HELLO_MAX>,
    deframer: Deframer,
    out: heapless::Vec<u8, OUT_MAX, u8>,
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
        let mut client = NativeClient {
            keys: keys.clone(),
            what: heapless::Vec::new(),
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
            reply: None,
        };
        asking::write_what(ask, guard, None, &mut client.what);
        client
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
        let nonce = digest.first_chunk().unwrap_or(&[0; message::NONCE_LEN]);
        self.hello.clear();
        asking::write_hello(self.keys.generation(), self.keys.guest(), nonce, &mut self.hello);
        let tag = self.keys.hello_tag(&self.hello);
        asking::add(&mut self.hello, &tag);
        self.state = State::Greeting;
        self.repeated = false;
        self.accepted = false;
        self.send_hello();
    }

    fn send_hello(&mut self) {
        put(&self.hello, &mut self.out);
        (self.sent, self.repeat_at) = (0, None);
    }

    fn send_request(&mut self) {
        let Some(session) = &self.session else { return };
        self.counter += 1;
        let mut payload = Payload::new();
        asking::write_head(message::REQUEST, &session.name, self.counter, &mut payload);
        asking::add_number(&mut payload, self.id);
        asking::add_number(&mut payload, self.due.map_or(0, |(due, _)| due));
        asking::add(&mut payload, &self.what);
        let tag = session.asking.tag(&[&payload]);
        asking::add(&mut payload, &tag);
        put(&payload, &mut self.out);
        (self.sent, self.repeat_at) = (0, None);
    }

    /// A whole frame has come.
    #[inline(never)]
    fn frame(&mut self, now: Millis) {
        let deframer = core::mem::take(&mut self.deframer);
        match deframer.payload().first() {
            Some(&message::WELCOME) if self.state == State::Greeting => self.welcomed(deframer.payload(), now),
            Some(&message::REPLY) => self.replied(deframer.payload(), now),
            _ => {}
        }
        self.deframer = deframer;
    }

    #[inline(never)]
    fn welcomed(&mut self, payload: &[u8], now: Millis) {
        let Some((body, tag)) = message::split_tag(payload) else { return };
        if !self.keys.proves_welcome(&self.hello, body, tag) {
            return;
        }
        let mut read = Reader::new(body);
        let [_kind, _min, _max, version] = [(); 4].map(|()| read.byte());
        let (instance, stamp, _nonce) = (read.number(), read.number(), read.array());
        if !read.is_good() || !read.rest().is_empty() || !(MIN..=CURRENT).contains(&version) {
            return;
        }
        let before = self.due.filter(|(_, of)| *of == instance);
        // Another host's, to which this guest was moved; or this one has lost its journal. What was asked before, and
        // may have been done, it does not know: it would do it again.
        let is_power = matches!(self.what.first(), Some(&(asking::OFF | asking::REBOOT | asking::ON)));
        if is_power && self.due != before {
            return self.end(Reply::Closed);
        }
        self.session = Some(self.keys.session(&self.hello, payload));
        (self.counter, self.heard, self.heard_at) = (0, 0, now);
        self.accepted = false;
        // Further off it would be refused. What is not done by then is not done.
        let left = self.deadline.since(now).min(DEADLINE_MAX);
        let due = stamp.saturating_add(left.0);
        // On the same clock a request never becomes younger, whatever pauses this end.
        self.due = Some((before.map_or(due, |(before, _)| before.min(due)), instance));
        self.state = State::Asking;
        self.repeated = false;
        self.send_request();
    }

    #[inline(never)]
    fn replied(&mut self, payload: &[u8], now: Millis) {
        let Some((body, tag)) = message::split_tag(payload) else { return };
        let Some(session) = &self.session else { return };
        let mut read = Reader::new(body);
        let (_kind, name, counter) = (read.byte(), read.bytes(SESSION_LEN), read.short_number());
        let is_ours = read.is_good() && name == session.name && counter > self.heard;
        if !is_ours || !session.answering.proves(&[body], tag) {
            return;
        }
        self.heard = counter;
        self.heard_at = now;
        let id = read.number();
        let Some(said) = read.said().filter(|_| id == self.id) else { return };
        let chunk_at = body.len() - read.rest().len();
        let asked = self.what.first().copied().unwrap_or_default();
        match (said, asked) {
            (Said::Accepted | Said::Working, _) => {
                // The session that was given up is alive: a handshake that has begun is not needed.
                self.state = State::Asking;
                self.accepted = true;
                self.repeat_at = None;
            }
            (Said::Done(done), asking::OFF | asking::REBOOT | asking::ON) => self.end(match (done.result, asked) {
                (message::Result::Failed(reason), _) => Reply::NotDone(reason.into()),
                (message::Result::On, asking::ON) => Reply::Done,
                (message::Result::Off, asking::OFF)
                | (message::Result::Rebooted | message::Result::NotStarted, asking::REBOOT)
                    if done.seen_off =>
                {
                    Reply::Done
                }
                _ => Reply::Failed,
            }),
            (Said::Status(runs, _), asking::STATUS) => self.end(Reply::Power(runs.into())),
            (Said::Alive, asking::MONITOR) => self.end(Reply::Done),
            (Said::List(count, more), asking::LIST) => self.chunk = Some((count, chunk_at as u8, more)),
            (Said::Denied, _) => self.end(Reply::Denied),
            (Said::Failed(reason), _) => self.end(Reply::NotDone(reason.into())),
            _ => self.end(Reply::Failed),
        }
    }

    /// The next entry of the chunk that has come; at its end, the next chunk is asked for.
    #[inline(never)]
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
        let mut read = Reader::new(body.get(usize::from(at)..)?);
        let (uuid, runs) = (Uuid::from_bytes(read.array()), read.runs());
        let length = read.byte();
        let name = read.bytes(usize::from(length));
        if !read.is_good() {
            self.end(Reply::Failed);
            return self.reply.take();
        }
        let left_at = body.len() - read.rest().len();
        let entry = Reply::Entry(Entry::of(uuid, runs.into(), name));
        self.what.clear();
        asking::write_what(&Ask::List, None, Some(uuid), &mut self.what);
        self.chunk = Some((left, left_at as u8, more));
        Some(entry)
    }
}

/// A frame in place of the last one.
#[inline(never)]
fn put(payload: &[u8], out: &mut heapless::Vec<u8, OUT_MAX, u8>) {
    out.clear();
    frame::encode(payload, out);
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
