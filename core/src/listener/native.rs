//! The answering end of our own wire: one request at a time, in the session that is established.
//!
//! ```text
//!            request (of the session)          poll: Asked            answer
//!  bytes ──▶ waiting, "accepted" out ─────────▶ asked ───────────────▶ reply in transmit ──▶ sent
//!              │                                 │ each second: "working"
//!              │ another id, or its time: Withdrawn
//!              ▼
//!            gone
//! ```
//!
//! Not here: who is believed (`listener/sessions.rs`).

use super::refusals::Refusals;
use super::sessions::{Greeted, Sessions};
use super::{Event, NativeAccept, NotNow, REPLY_TIME, Refusal, RequestId};
use crate::Endpoint;
use crate::classic::Malformed;
use crate::native::frame::{self, Decoder, FRAME_MAX, FRAMING, Payload};
use crate::native::keys::TAG_LEN;
use crate::native::message::{self, CHUNK_MAX, Done, HELLO_MAX, REQUEST_MAX, Said, WELCOME_MAX, What};
use crate::sha::sha256;
use crate::words::{
    Answer, Ask, BadName, Details, Entropy, Failure, Incarnation, Millis, Outcome, Power, PowerAction, Request,
    RequestKey, Restart, Uuid, Which,
};

/// How often an asker hears that its request is still worked on.
pub const WORKING: Millis = Millis(1_000);

/// A deadline is at most so far away.
pub const DEADLINE_MAX: Millis = Millis(600_000);

/// What waits to be sent: a reply with a chunk of a list, and what was said before it: "accepted", or a welcome.
const OUT_MAX: usize = FRAME_MAX + WELCOME_MAX + FRAMING;

/// Bytes of the longest payload that a guest says: longer ones are nobody's.
const HEARD_MAX: usize = REQUEST_MAX;
const _: () = assert!(HELLO_MAX <= HEARD_MAX);

/// Ids of this wire's requests have this bit, those of the classic wire on the same channel have not.
const NATIVE_ID: u64 = 1 << 63;

/// See [`super::Listener`].
#[derive(Debug)]
pub(super) struct NativeListener {
    sessions: Sessions,
    decoder: Decoder,
    payload: heapless::Vec<u8, HEARD_MAX, u8>,
    /// When the frame began that is coming.
    begun: Millis,
    current: Option<Current>,
    next_id: u64,
    withdrawn: Option<RequestId>,
    refusals: Refusals,
    out: heapless::Vec<u8, OUT_MAX, u16>,
    sent: u16,
    since: Millis,
    /// Where in `out` the last welcome ends; 0 when it has gone.
    welcome_ends: u16,
}

/// The request that is dealt with.
#[derive(Debug)]
struct Current {
    id: RequestId,
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
            sessions: Sessions::new(accept),
            decoder: Decoder::new(),
            payload: heapless::Vec::new(),
            begun: Millis(0),
            current: None,
            next_id: NATIVE_ID,
            withdrawn: None,
            refusals: Refusals::new(),
            out: heapless::Vec::new(),
            sent: 0,
            since: Millis(0),
            welcome_ends: 0,
        }
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        if let Some(id) = self.withdrawn.take() {
            return Some(Event::Withdrawn(id));
        }
        if let Some(refusal) = self.refusals.pop() {
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
        let wire_id = current.request.key.id;
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
        if let Some(Current { request, stage: Stage::Listing { chunk, count, .. }, .. }) = self.current.take() {
            self.say(request.key.id, Said::List(count, more), &chunk, now);
        }
    }

    pub(super) fn guest_was_reset(&mut self, now: Millis) {
        self.closed(now);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.sessions.is_empty()
            && self.current.is_none()
            && self.withdrawn.is_none()
            && self.refusals.is_empty()
            && self.transmit().is_empty()
            && !self.decoder.has_begun()
    }

    /// A part of what waits has gone: the rest goes before anything of another wire.
    pub(super) fn is_in_a_frame(&self) -> bool {
        self.sent > 0 && !self.transmit().is_empty()
    }

    /// The line was another wire's until now: what waits here is not what nobody reads.
    pub(super) fn waited_for_its_turn(&mut self, now: Millis) {
        self.since = now;
    }

    pub(super) fn must_be_polled(&self) -> bool {
        self.withdrawn.is_some() || !self.refusals.is_empty()
    }

    /// Takes the next byte. Says whether it ended a frame that was said by whoever has the key.
    pub(super) fn push(&mut self, byte: u8, now: Millis) -> bool {
        let begins = byte == 0 || !self.decoder.has_begun();
        if !self.decoder.push(byte, &mut self.payload) {
            if begins {
                self.begun = now;
            }
            return false;
        }
        // The decoder wants it back empty.
        let payload = core::mem::take(&mut self.payload);
        let taken = match payload.first() {
            Some(&message::HELLO) => self.hello(&payload, now),
            Some(&message::REQUEST) => self.request(&payload, now),
            _ => None,
        };
        let is_ours = matches!(payload.first(), Some(&(message::HELLO | message::REQUEST)));
        if taken.is_none() && is_ours && payload.len() > TAG_LEN {
            self.refuse(Refusal::NotProved);
        }
        taken.is_some()
    }

    /// None where it is not to be believed.
    fn hello(&mut self, payload: &[u8], now: Millis) -> Option<()> {
        match self.sessions.hello(payload, now)? {
            Greeted::Welcome(welcome, pending) => {
                // One that cannot be said takes nobody's place.
                if self.put(&welcome, now) {
                    self.welcome_ends = self.out.len() as u16;
                    if let Some(pending) = pending {
                        self.sessions.welcomes(pending);
                    }
                }
            }
            Greeted::Waits => {}
            Greeted::Refused(refusal) => self.refuse(refusal),
        }
        Some(())
    }

    /// None where it is not to be believed.
    fn request(&mut self, payload: &[u8], now: Millis) -> Option<()> {
        let body = self.sessions.request(payload, self.begun, now)?;
        self.asked(body, now);
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
        if let Some(current) = self.current.as_ref().filter(|current| current.request.key.id == key.id) {
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
        self.current = Some(Current { id, request, stage: Stage::Waiting, said_at: now });
        self.say(asked.id, Said::Accepted, &[], now);
    }

    fn malformed(&mut self, why: Malformed) {
        self.refuse(Refusal::Malformed(why));
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusals.push(refusal);
    }

    fn drop_current(&mut self) {
        if let Some(current) = self.current.take() {
            match current.stage {
                Stage::Waiting => self.refuse(Refusal::Superseded),
                Stage::Asked | Stage::Listing { .. } => self.withdrawn = Some(current.id),
            }
        }
    }

    fn say(&mut self, id: u64, said: Said, entries: &[u8], now: Millis) {
        if let Some(reply) = self.sessions.reply(id, said, entries) {
            self.put(&reply, now);
        }
    }

    /// Adds a frame to what waits to be sent. One for which there is no room is lost: its asker asks again.
    fn put(&mut self, payload: &[u8], now: Millis) -> bool {
        if self.transmit().is_empty() {
            self.out.clear();
            self.sent = 0;
            self.since = now;
        }
        frame::encode(payload, &mut self.out)
    }

    /// When the frame began that is coming, if one is.
    fn coming_since(&self) -> Option<Millis> {
        self.decoder.has_begun().then_some(self.begun)
    }
}

impl Endpoint for NativeListener {
    fn opened(&mut self, entropy: &Entropy, now: Millis) {
        self.closed(now);
        self.sessions.opened(entropy);
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
        self.sessions.closed();
        self.decoder.reset();
        self.out.clear();
        (self.sent, self.welcome_ends) = (0, 0);
    }

    fn transmit(&self) -> &[u8] {
        self.out.get(usize::from(self.sent)..).unwrap_or_default()
    }

    fn sent(&mut self, n: usize, now: Millis) {
        self.sent += n.min(self.transmit().len()) as u16;
        if self.welcome_ends > 0 && self.sent >= self.welcome_ends {
            self.welcome_ends = 0;
            self.sessions.welcome_has_gone(now);
        }
    }

    fn wake_at(&self) -> Option<Millis> {
        let half_open = self.sessions.wake_at(self.coming_since());
        let reply = (!self.transmit().is_empty()).then(|| self.since.plus(REPLY_TIME));
        let current = self.current.as_ref().map(|current| current.said_at.plus(WORKING).min(current.ends()));
        [half_open, reply, current].into_iter().flatten().min()
    }

    fn wake(&mut self, now: Millis) {
        self.sessions.wake(self.coming_since(), now);
        if !self.transmit().is_empty() && now.since(self.since) >= REPLY_TIME {
            if self.welcome_ends > 0 {
                self.sessions.welcome_is_lost();
            }
            self.out.clear();
            (self.sent, self.welcome_ends) = (0, 0);
            self.refuse(Refusal::ReplyNotRead);
        }
        let Some(current) = &mut self.current else { return };
        if now >= current.ends() {
            let wire_id = current.request.key.id;
            let said = match current.request.ask {
                Ask::Power(..) => done(Outcome::Failed(Failure::Unconfirmed), Details::NONE),
                _ => Said::Failed(Failure::Unreachable.into()),
            };
            self.say(wire_id, said, &[], now);
            self.drop_current();
        } else if now.since(current.said_at) >= WORKING {
            current.said_at = now;
            let wire_id = current.request.key.id;
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
