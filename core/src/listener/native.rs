//! The answering end of our own wire: handshakes, one session, one request at a time.
//!
//! ```text
//!  hello (good tag) ──▶ pending session, welcome out ── a good request in it ──▶ established
//!                          │ 1 s                                                    │ another one established, or closed
//!                          ▼                                                        ▼
//!                        gone                                                     gone
//! ```
//!
//! A hello proves that its sender has, or once had, the key; it changes nothing that is established. What counts is a frame
//! of a session, whose keys are made of both ends' nonces: nobody else can have said it, and it was not said before.

use super::{Event, NativeAccept, NotNow, REFUSALS, REPLY_TIME, Refusal, RequestId};
use crate::Endpoint;
use crate::classic::Malformed;
use crate::native::frame::{self, Deframer, FRAME_MAX, FRAMING, Payload};
use crate::native::keys::{Session, TAG_LEN};
use crate::native::message::{self, CHUNK_MAX, Done, Head, Hello, NONCE_LEN, Reply, Said, WELCOME_MAX, Welcome, What};
use crate::native::{CURRENT, MIN};
use crate::sha::sha256;
use crate::words::{
    Answer, Ask, BadName, Details, Entropy, Failure, Incarnation, Millis, Outcome, Power, PowerAction, Request,
    RequestKey, Restart, Uuid, Which,
};

/// How long a session may be pending.
pub const HALF_OPEN: Millis = Millis(1_000);

/// How often an asker hears that its request is still worked on.
pub const WORKING: Millis = Millis(1_000);

/// A deadline is at most so far away.
pub const DEADLINE_MAX: Millis = Millis(600_000);

/// What waits to be sent: a reply with a chunk of a list, and what was said before it: "accepted", or a welcome.
const OUT_MAX: usize = FRAME_MAX + WELCOME_MAX + FRAMING;

/// Random bytes that nonces are made of: as many as a nonce has.
const ENTROPY_LEN: usize = NONCE_LEN;

/// Ids of this wire's requests have this bit, those of the classic wire on the same channel have not.
const NATIVE_ID: u64 = 1 << 63;

/// See [`super::Listener`].
#[derive(Debug)]
pub(super) struct NativeListener {
    accept: NativeAccept,
    entropy: [u8; ENTROPY_LEN],
    welcomed: u32,
    deframer: Deframer,
    established: Option<Live>,
    pending: Option<Pending>,
    current: Option<Current>,
    next_id: u64,
    withdrawn: Option<RequestId>,
    refusals: heapless::Deque<Refusal, REFUSALS>,
    out: heapless::Vec<u8, OUT_MAX>,
    sent: u16,
    since: Millis,
}

/// A session and how far it has come.
#[derive(Debug)]
struct Live {
    session: Session,
    /// Of the last frame that counted, and of the last that was said.
    heard: u32,
    said: u32,
}

/// A session that nobody has spoken in yet, and the hello that it answers.
#[derive(Debug)]
struct Pending {
    live: Live,
    hello: [u8; TAG_LEN],
    nonce: [u8; NONCE_LEN],
    since: Millis,
}

/// The request that is dealt with.
#[derive(Debug)]
struct Current {
    id: RequestId,
    /// Its asker's own id.
    wire_id: u64,
    request: Request,
    stage: Stage,
    /// When its asker heard last that it is worked on.
    said_at: Millis,
}

#[derive(Debug)]
enum Stage {
    /// Not handed out yet.
    Waiting,
    /// Handed out.
    Asked,
    /// A list of which entries have come. `wanted`: its owner was asked for the next.
    Listing { chunk: heapless::Vec<u8, CHUNK_MAX, u8>, count: u8, wanted: bool },
}

impl NativeListener {
    pub(super) const fn new(accept: NativeAccept) -> NativeListener {
        NativeListener {
            accept,
            entropy: [0; ENTROPY_LEN],
            welcomed: 0,
            deframer: Deframer::new(),
            established: None,
            pending: None,
            current: None,
            next_id: NATIVE_ID,
            withdrawn: None,
            refusals: heapless::Deque::new(),
            out: heapless::Vec::new(),
            sent: 0,
            since: Millis(0),
        }
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        if let Some(id) = self.withdrawn.take() {
            return Some(Event::Withdrawn(id));
        }
        if let Some(refusal) = self.refusals.pop_front() {
            return Some(Event::Refused(refusal));
        }
        let current = self.current.as_mut()?;
        match &mut current.stage {
            Stage::Waiting => {
                current.stage = Stage::Asked;
                Some(Event::Asked(current.id, current.request.clone()))
            }
            Stage::Listing { wanted, .. } if !*wanted => {
                *wanted = true;
                Some(Event::EntryWanted(current.id))
            }
            _ => None,
        }
    }

    pub(super) fn owns(id: RequestId) -> bool {
        id.0 & NATIVE_ID != 0
    }

    pub(super) fn answer(
        &mut self,
        id: RequestId,
        answer: Answer<'_>,
        details: Details,
        now: Millis,
    ) -> Result<(), NotNow> {
        let current = self.current.as_mut().filter(|current| current.id == id).ok_or(NotNow::Gone)?;
        let is_list = current.request.ask == Ask::List;
        let wire_id = current.wire_id;
        match (&mut current.stage, answer) {
            (Stage::Waiting, _) => return Err(NotNow::Gone),
            (Stage::Listing { wanted: false, .. }, _) => return Err(NotNow::EntryNotWanted),
            (Stage::Asked, Answer::Entry(_) | Answer::EndOfList) if is_list => {
                current.stage = Stage::Listing { chunk: heapless::Vec::new(), count: 0, wanted: true };
            }
            _ => {}
        }
        if let (Stage::Listing { chunk, count, wanted }, true) = (&mut current.stage, is_list) {
            match answer {
                Answer::Entry(entry) => {
                    *wanted = false;
                    let is_new = match current.request.which {
                        Which::After(after) => entry.uuid > after,
                        Which::Any | Which::Run(_) => true,
                    };
                    let name = if entry.name.len() > crate::words::NAME_MAX { "" } else { entry.name };
                    let written = message::Entry { uuid: *entry.uuid.as_bytes(), runs: entry.power.into(), name };
                    if !is_new {
                        return Ok(());
                    }
                    if message::write(&written, chunk) {
                        *count += 1;
                        current.request.which = Which::After(entry.uuid);
                        return Ok(());
                    }
                    // The owner need not go on: the rest is asked for anew.
                    self.withdrawn = Some(id);
                    self.end_list(true, now);
                    return Ok(());
                }
                Answer::EndOfList => {
                    self.end_list(false, now);
                    return Ok(());
                }
                Answer::Denied | Answer::Failed(_) => {}
                _ => return Err(NotNow::DoesNotFit),
            }
        }
        let said = said(&current.request.ask, answer, details).ok_or(NotNow::DoesNotFit)?;
        self.current = None;
        self.say(wire_id, said, &[], now);
        Ok(())
    }

    fn end_list(&mut self, more: bool, now: Millis) {
        if let Some(Current { wire_id, stage: Stage::Listing { chunk, count, .. }, .. }) = self.current.take() {
            self.say(wire_id, Said::List(count, more), &chunk, now);
        }
    }

    pub(super) fn guest_was_reset(&mut self, now: Millis) {
        self.closed(now);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.established.is_none()
            && self.pending.is_none()
            && self.current.is_none()
            && self.withdrawn.is_none()
            && self.refusals.is_empty()
            && self.transmit().is_empty()
            && !self.deframer.has_begun()
    }

    /// A part of what waits has gone: the rest goes before anything of another wire.
    pub(super) fn is_in_a_frame(&self) -> bool {
        self.sent > 0 && !self.transmit().is_empty()
    }

    pub(super) fn must_be_polled(&self) -> bool {
        self.withdrawn.is_some() || !self.refusals.is_empty()
    }

    /// Takes the next byte. Says whether it ended a frame that was said by whoever has the key.
    pub(super) fn push(&mut self, byte: u8, now: Millis) -> bool {
        if !self.deframer.push(byte) {
            return false;
        }
        let deframer = core::mem::take(&mut self.deframer);
        let payload = deframer.payload();
        let taken = match payload.first() {
            Some(&message::HELLO) => self.hello(payload, now),
            Some(&message::REQUEST) => self.request(payload, now),
            _ => None,
        };
        let is_ours = matches!(payload.first(), Some(&(message::HELLO | message::REQUEST)));
        if taken.is_none() && is_ours && payload.len() > TAG_LEN {
            let _ = self.refusals.push_back(Refusal::NotProved);
        }
        self.deframer = deframer;
        taken.is_some()
    }

    /// None where it is not to be believed.
    fn hello(&mut self, payload: &[u8], now: Millis) -> Option<()> {
        let (body, tag) = message::split_tag(payload)?;
        if !self.accept.keys.proves_hello(body, tag) {
            return None;
        }
        let (hello, rest) = message::read::<Hello>(message::HELLO, body)?;
        let keys = &self.accept.keys;
        let is_for_us = hello.guest == *keys.guest().as_bytes() && hello.generation == keys.generation();
        if !rest.is_empty() || !is_for_us {
            return None;
        }
        let version = hello.max.min(CURRENT);
        if version < hello.min.max(MIN) {
            let _ = self.refusals.push_back(Refusal::Version { min: hello.min, max: hello.max });
            return Some(());
        }
        // The same hello again gets the same welcome: the first may be answered already.
        let pending = self.pending.as_ref().filter(|pending| now.since(pending.since) < HALF_OPEN);
        let again = pending.filter(|pending| pending.hello == tag).map(|pending| (pending.nonce, pending.since));
        let (nonce, since) = again.unwrap_or_else(|| (self.nonce(), now));
        let keys = &self.accept.keys;
        let mut welcome = Payload::new();
        let _ = welcome.push(message::WELCOME);
        let said = Welcome { min: MIN, max: CURRENT, version, instance: self.accept.instance, stamp: since.0, nonce };
        message::write(&said, &mut welcome);
        let answer = keys.welcome_tag(payload, &welcome);
        let _ = welcome.extend_from_slice(&answer);
        if again.is_none() {
            let live = Live { session: keys.session(payload, &welcome), heard: 0, said: 0 };
            let hello = *tag.first_chunk().unwrap_or(&[0; TAG_LEN]);
            self.pending = Some(Pending { live, hello, nonce, since });
        }
        self.put(&welcome, now);
        Some(())
    }

    fn nonce(&mut self) -> [u8; NONCE_LEN] {
        self.welcomed = self.welcomed.wrapping_add(1);
        let digest = sha256(&[&self.entropy, &self.welcomed.to_le_bytes()]);
        *digest.first_chunk().unwrap_or(&[0; NONCE_LEN])
    }

    /// None where it is not to be believed.
    fn request(&mut self, payload: &[u8], now: Millis) -> Option<()> {
        let (body, tag) = message::split_tag(payload)?;
        let (head, rest) = message::read::<Head>(message::REQUEST, body)?;
        self.pending = self.pending.take().filter(|pending| now.since(pending.since) < HALF_OPEN);
        let proves = |live: &Live| {
            live.session.name == head.session && head.counter > live.heard && live.session.asking.proves(&[body], tag)
        };
        if let Some(live) = self.established.as_mut().filter(|live| proves(live)) {
            live.heard = head.counter;
        } else if self.pending.as_ref().is_some_and(|pending| proves(&pending.live)) {
            self.established = self.pending.take().map(|pending| Live { heard: head.counter, ..pending.live });
        } else {
            return None;
        }
        self.asked(rest, now);
        Some(())
    }

    /// Somebody who may be believed asks.
    fn asked(&mut self, body: &[u8], now: Millis) {
        let Ok((asked, rest)) = postcard::take_from_bytes::<message::Request<'_>>(body) else {
            return self.malformed(Malformed::Body);
        };
        if !rest.is_empty() {
            return self.malformed(Malformed::Body);
        }
        let key = RequestKey { id: asked.id, body: body_hash(&asked.what) };
        if let Some(current) = self.current.as_ref().filter(|current| current.wire_id == key.id) {
            // One of the two is not what its asker sent: neither may get the other's answer.
            let is_copy = current.request.key == key;
            let said = if is_copy { Said::Accepted } else { Said::Failed(Failure::Busy.into()) };
            return self.say(key.id, said, &[], now);
        }
        // Whoever asks anew does not wait for the old answer.
        self.drop_current();
        let parsed = parse(&asked.what);
        let (ask, which) = match parsed {
            Ok(parsed) => parsed,
            Err(why) => {
                self.malformed(Malformed::Name(why));
                return self.say(asked.id, Said::Failed(Failure::NotFound.into()), &[], now);
            }
        };
        if asked.deadline > now.plus(DEADLINE_MAX).0 {
            self.malformed(Malformed::Deadline);
            return self.say(asked.id, Said::Failed(Failure::Expired.into()), &[], now);
        }
        let deadline = Millis(asked.deadline);
        let request = Request { ask, key, received: now, deadline, remember_until: deadline, which, native: true };
        let id = RequestId(self.next_id);
        self.next_id = NATIVE_ID | (self.next_id + 1);
        self.current = Some(Current { id, wire_id: asked.id, request, stage: Stage::Waiting, said_at: now });
        self.say(asked.id, Said::Accepted, &[], now);
    }

    fn malformed(&mut self, why: Malformed) {
        self.refuse(Refusal::Malformed(why));
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let _ = self.refusals.push_back(refusal);
    }

    fn drop_current(&mut self) {
        if let Some(current) = self.current.take() {
            match current.stage {
                Stage::Waiting => _ = self.refusals.push_back(Refusal::Superseded),
                Stage::Asked | Stage::Listing { .. } => self.withdrawn = Some(current.id),
            }
        }
    }

    fn say(&mut self, id: u64, said: Said, entries: &[u8], now: Millis) {
        let Some(live) = &mut self.established else { return };
        live.said = live.said.saturating_add(1);
        let mut payload = Payload::new();
        let _ = payload.push(message::REPLY);
        message::write(&Head { session: live.session.name, counter: live.said }, &mut payload);
        message::write(&Reply { id, said }, &mut payload);
        let _ = payload.extend_from_slice(entries);
        let tag = live.session.answering.tag(&[&payload]);
        let _ = payload.extend_from_slice(&tag);
        self.put(&payload, now);
    }

    /// Adds a frame to what waits to be sent. One for which there is no room is lost: its asker asks again.
    fn put(&mut self, payload: &[u8], now: Millis) {
        if self.transmit().is_empty() {
            self.out.clear();
            self.sent = 0;
            self.since = now;
        }
        frame::encode(payload, &mut self.out);
    }
}

impl Endpoint for NativeListener {
    fn opened(&mut self, entropy: &Entropy, now: Millis) {
        self.closed(now);
        self.entropy = *entropy.0.last_chunk().unwrap_or(&[0; ENTROPY_LEN]);
    }

    fn receive(&mut self, bytes: &[u8], now: Millis) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.must_be_polled() {
                return at;
            }
            self.push(byte, now);
        }
        bytes.len()
    }

    fn closed(&mut self, _now: Millis) {
        self.drop_current();
        (self.established, self.pending) = (None, None);
        self.deframer.reset();
        self.out.clear();
        self.sent = 0;
    }

    fn transmit(&self) -> &[u8] {
        self.out.get(usize::from(self.sent)..).unwrap_or_default()
    }

    fn sent(&mut self, n: usize, _now: Millis) {
        self.sent += n.min(self.transmit().len()) as u16;
    }

    fn wake_at(&self) -> Option<Millis> {
        let half_open = self.pending.as_ref().map(|pending| pending.since.plus(HALF_OPEN));
        let reply = (!self.transmit().is_empty()).then(|| self.since.plus(REPLY_TIME));
        let current = self.current.as_ref().map(|current| current.said_at.plus(WORKING).min(current.ends()));
        [half_open, reply, current].into_iter().flatten().min()
    }

    fn wake(&mut self, now: Millis) {
        self.pending = self.pending.take().filter(|pending| now.since(pending.since) < HALF_OPEN);
        if !self.transmit().is_empty() && now.since(self.since) >= REPLY_TIME {
            self.out.clear();
            self.sent = 0;
            let _ = self.refusals.push_back(Refusal::ReplyNotRead);
        }
        let Some(current) = &mut self.current else { return };
        if now >= current.ends() {
            let wire_id = current.wire_id;
            let said = match current.request.ask {
                Ask::Power(..) => done(Outcome::Failed(Failure::Unconfirmed), Details::NONE),
                _ => Said::Failed(Failure::Unreachable.into()),
            };
            self.say(wire_id, said, &[], now);
            self.drop_current();
        } else if now.since(current.said_at) >= WORKING {
            current.said_at = now;
            let wire_id = current.wire_id;
            // One that nobody reads need not be told again.
            if self.transmit().is_empty() {
                self.say(wire_id, Said::Working, &[], now);
            }
        }
    }
}

impl Current {
    /// When nobody waits for its answer any more: its deadline, and time to be told so for one that came late.
    fn ends(&self) -> Millis {
        self.request.deadline.max(self.request.received.plus(WORKING))
    }
}

fn parse(what: &What<'_>) -> Result<(Ask, Which), BadName> {
    let run = |run: &Option<[u8; 16]>| run.map_or(Which::Any, |run| Which::Run(Incarnation::from_bytes(run)));
    let after = |uuid: &Option<[u8; 16]>| uuid.map_or(Which::Any, |uuid| Which::After(Uuid::from_bytes(uuid)));
    Ok(match what {
        What::Off(whom, guard) => (Ask::Power(PowerAction::Off, whom.target()?), run(guard)),
        What::Reboot(whom, guard) => (Ask::Power(PowerAction::Reboot, whom.target()?), run(guard)),
        What::On(whom) => (Ask::Power(PowerAction::On, whom.target()?), Which::Any),
        What::Status(whom) => (Ask::Status(whom.target()?), Which::Any),
        What::Monitor => (Ask::Monitor, Which::Any),
        What::List(uuid) => (Ask::List, after(uuid)),
    })
}

/// What makes a request the same when it comes again with the same id: all but its deadline, which every session has to say
/// anew.
fn body_hash(what: &What<'_>) -> [u8; 16] {
    let mut body = Payload::new();
    message::write(what, &mut body);
    let digest = sha256(&[&body]);
    *digest.first_chunk().unwrap_or(&[0; 16])
}

/// How an answer is said; none where it does not answer that.
fn said(ask: &Ask, answer: Answer<'_>, details: Details) -> Option<Said> {
    Some(match (answer, ask) {
        (Answer::Denied, _) | (Answer::Outcome(Outcome::Failed(Failure::Forbidden)), Ask::Power(..)) => Said::Denied,
        (Answer::Failed(failure), Ask::Power(..)) => done(Outcome::Failed(failure), details),
        (Answer::Failed(failure), _) => Said::Failed(failure.into()),
        (Answer::Alive, Ask::Monitor) => Said::Alive,
        (Answer::Power(power), Ask::Status(_)) => {
            Said::Status(power.into(), details.incarnation.map(|run| *run.as_bytes()))
        }
        (Answer::Outcome(outcome), Ask::Power(action, _)) => match (outcome, action) {
            (Outcome::Off(_), PowerAction::Off)
            | (Outcome::Rebooted(..), PowerAction::Reboot)
            | (Outcome::On, PowerAction::On)
            | (Outcome::Failed(_), _) => done(outcome, details),
            _ => return None,
        },
        _ => return None,
    })
}

fn done(outcome: Outcome, details: Details) -> Said {
    let (result, now) = match outcome {
        Outcome::Off(_) => (message::Result::Off, Power::Off),
        Outcome::Rebooted(_, Restart::Started) => (message::Result::Rebooted, Power::On),
        Outcome::Rebooted(_, Restart::NotStarted) => (message::Result::NotStarted, Power::Off),
        Outcome::On => (message::Result::On, Power::On),
        Outcome::Failed(failure) => (message::Result::Failed(failure.into()), Power::Unknown),
    };
    Said::Done(Done {
        result,
        before: details.before.into(),
        now: now.into(),
        incarnation: details.incarnation.map(|run| *run.as_bytes()),
        seen_off: matches!(outcome, Outcome::Off(_) | Outcome::Rebooted(..)),
        repeated: details.repeated,
    })
}
