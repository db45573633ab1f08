//! The answering end of a serial port or channel, on which requests follow one another.
//!
//! ```text
//!             frame               poll: Asked            answer
//!  bytes ──▶ waiting ───────────▶ asked ───────────────▶ reply in transmit ──▶ sent
//!              │                    │ answer: Entry ⇄ poll: EntryWanted (a list)
//!              │ a later frame, or time: Withdrawn
//!              ▼
//!            gone, unanswered
//! ```
//!
//! A reply on this wire says not to which request it belongs. So one request is out at a time, and replies come in the
//! order of the requests; and when a frame comes that cannot be from somebody who still waits for an earlier one's
//! reply, that reply is never sent, lest it be taken for the later one's.

use super::outbox::Outbox;
use super::refusals::Refusals;
use super::{Event, NotNow, REPLY_TIME, Refusal, RequestId, SETTLE};
use crate::Endpoint;
use crate::classic::serial::{self, Cut, Deframer};
use crate::classic::{Code, Malformed, REMEMBERED_MS, code_for};
use crate::words::{Answer, Ask, Entropy, Millis, Request, RequestKey, Which};

/// A frame must be whole this long after its magic: eight times what 74 bytes take at 1,200 baud.
pub const FRAME_TIME: Millis = Millis(5_000);

/// How long a frame is kept back whose last bytes may be the first of another: what a byte takes at 300 baud, and some.
const KEEP_BACK: Millis = Millis(50);

/// A frame that comes sooner after the first whose reply is awaited is from somebody who sends several at once. One that
/// comes later is from somebody who has given up on the others: fence_virt holds DTR down for 0.3 s before it asks.
pub const PIPELINE_TIME: Millis = Millis(250);

/// Requests held at a time. More are refused, unanswered.
const HELD: usize = 4;

/// Noise is reported when a frame begins, and this long after it came at the latest.
const NOISE_TIME: Millis = Millis(1_000);

/// See [`super::Listener`].
#[derive(Debug)]
pub(super) struct SerialListener {
    settle: Millis,
    time_to_act: Millis,
    /// Our own wire's frames come on this channel, too.
    beside_native: bool,
    discard_until: Millis,
    deframer: Deframer,
    frame_since: Millis,
    noise_since: Millis,
    held: heapless::Deque<Held, HELD>,
    /// How far the first of them has come. The others wait.
    head: Stage,
    awaited: Option<Awaited>,
    next_id: u64,
    withdrawn: Option<RequestId>,
    refusals: Refusals,
    out: Outbox,
}

/// The frames whose replies are awaited, or are not gone yet.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    /// When the first of them came.
    since: Millis,
    /// Its key, where it is the only one and says something.
    only: Option<RequestKey>,
}

impl Awaited {
    /// Whether whoever sent the first cannot be the one from whom another frame comes now.
    fn given_up(self, now: Millis) -> bool {
        now.since(self.since) >= PIPELINE_TIME
    }
}

/// What is not the same in all requests of this wire.
#[derive(Debug)]
struct Held {
    id: RequestId,
    ask: Ask,
    key: RequestKey,
    received: Millis,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Not handed out yet.
    Waiting,
    /// Handed out.
    Asked,
    /// A list of which a part is out. `wanted`: its owner was asked for the next entry.
    Listing { wanted: bool },
}

impl Held {
    fn request(&self, time_to_act: Millis) -> Request {
        Request {
            ask: self.ask.clone(),
            key: self.key,
            received: self.received,
            deadline: self.received.plus(time_to_act),
            remember_until: self.received.plus(Millis(REMEMBERED_MS)),
            which: Which::Any,
            native: false,
        }
    }
}

impl SerialListener {
    pub(super) const fn new(settle: Millis, time_to_act: Millis, beside_native: bool) -> SerialListener {
        SerialListener {
            settle,
            time_to_act,
            beside_native,
            discard_until: Millis(0),
            deframer: Deframer::new(),
            frame_since: Millis(0),
            noise_since: Millis(0),
            held: heapless::Deque::new(),
            head: Stage::Waiting,
            awaited: None,
            next_id: 0,
            withdrawn: None,
            refusals: Refusals::new(),
            out: Outbox::new(),
        }
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        if let Some(id) = self.withdrawn.take() {
            return Some(Event::Withdrawn(id));
        }
        if let Some(refusal) = self.refusals.pop() {
            return Some(Event::Refused(refusal));
        }
        if !self.out.is_empty() {
            return None;
        }
        let first = self.held.front()?;
        match self.head {
            Stage::Waiting => {
                self.head = Stage::Asked;
                Some(Event::Asked(first.id, first.request(self.time_to_act)))
            }
            Stage::Listing { wanted: false } => {
                self.head = Stage::Listing { wanted: true };
                Some(Event::EntryWanted(first.id))
            }
            Stage::Asked | Stage::Listing { wanted: true } => None,
        }
    }

    pub(super) fn answer(&mut self, id: RequestId, answer: Answer<'_>, now: Millis) -> Result<(), NotNow> {
        let first = self.held.front().filter(|first| first.id == id).ok_or(NotNow::Gone)?;
        let begun = match self.head {
            Stage::Waiting => return Err(NotNow::Gone),
            Stage::Listing { wanted: false } => return Err(NotNow::EntryNotWanted),
            Stage::Listing { wanted: true } => true,
            Stage::Asked => false,
        };
        let of_list = first.ask == Ask::List;
        let last = match (answer, of_list) {
            (Answer::Entry(entry), true) => {
                self.head = Stage::Listing { wanted: false };
                if !begun {
                    self.out.put(&serial::encode_reply(Code::HostList), now);
                }
                self.out.put(&serial::encode_entry(&entry), now);
                return Ok(());
            }
            (Answer::EndOfList, true) => Code::Success,
            (Answer::Failed(_) | Answer::Denied, _) if begun => Code::Failed,
            (answer, _) => code_for(&first.ask, &answer).ok_or(NotNow::DoesNotFit)?,
        };
        if begun || answer == Answer::EndOfList {
            if !begun {
                self.out.put(&serial::encode_reply(Code::HostList), now);
            }
            self.out.put(&serial::END_OF_LIST, now);
        }
        self.out.put(&serial::encode_reply(last), now);
        let _ = self.take_head();
        Ok(())
    }

    /// The guest has been reset: nobody waits for a reply any more, and what comes in the next 200 ms may be from
    /// before. Nothing of either is kept.
    pub(super) fn guest_was_reset(&mut self, now: Millis) {
        self.closed(now);
        self.discard_until = self.discard_until.max(now.plus(SETTLE));
    }

    /// Whether nothing is going on: no request held, nothing to send, no frame begun. Such a listener can be dropped
    /// and made anew at the next byte.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty()
            && self.out.is_empty()
            && self.withdrawn.is_none()
            && self.refusals.is_empty()
            && self.deframer.begun() == 0
            && !self.deframer.has_noise()
    }

    /// A list has begun to be answered, and is not at its end.
    pub(super) fn is_in_a_list(&self) -> bool {
        matches!(self.head, Stage::Listing { .. })
    }

    fn frame_is_whole(&mut self, now: Millis) {
        let decoded = self.decode();
        let key = decoded.as_ref().ok().map(|(_, key)| *key);
        if self.is_repetition(key, now) {
            return;
        }
        let superseded = self.supersede(now);
        let together = self.awaited();
        let taken = match decoded {
            Ok((ask, key)) => self.hold(ask, key, now),
            Err(why) => {
                self.refuse(Refusal::Malformed(why));
                // Somebody who waits for another reply would take this one for it.
                let alone = self.held.is_empty() && !superseded;
                if alone {
                    self.out.put(&serial::encode_reply(Code::Failed), now);
                }
                alone
            }
        };
        if taken {
            let first = Awaited { since: now, only: key };
            self.awaited = Some(together.map_or(first, |first| Awaited { only: None, ..first }));
        }
    }

    /// One of our own frames has no magic by which a torn frame before it would be known: its first bytes complete that one.
    /// They are a zero, as the last of whatever fence-virt and our agent send is, and then others.
    fn decode(&self) -> Result<(Ask, RequestKey), Malformed> {
        let frame = self.deframer.frame();
        match frame.last() {
            Some(1..) if self.beside_native => Err(Malformed::LastByte),
            _ => serial::decode_request(frame),
        }
    }

    /// Says whether there was room for it.
    fn hold(&mut self, ask: Ask, key: RequestKey, now: Millis) -> bool {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let held = self.held.push_back(Held { id, ask, key, received: now }).is_ok();
        if !held {
            self.refuse(Refusal::TooMany);
        }
        held
    }

    fn awaited(&self) -> Option<Awaited> {
        self.awaited.filter(|_| !self.held.is_empty() || !self.out.is_empty())
    }

    /// The very frame whose reply is still awaited, sent again by an asker who waits: one reply is enough. Where others are
    /// awaited too, it is from somebody who would take their replies for its own.
    fn is_repetition(&self, key: Option<RequestKey>, now: Millis) -> bool {
        key.is_some() && self.awaited().is_some_and(|awaited| awaited.only == key && awaited.given_up(now))
    }

    /// Forgets the requests whose asker cannot be waiting any more, now that another frame has come, and a reply that has
    /// not gone. Says whether there was anything to forget.
    fn supersede(&mut self, now: Millis) -> bool {
        let given_up = self.awaited().is_some_and(|awaited| awaited.given_up(now));
        if given_up {
            self.drop_all();
        }
        given_up
    }

    fn drop_all(&mut self) {
        self.out.clear();
        while !self.held.is_empty() {
            self.drop_head();
        }
    }

    /// Says whether a single reply may take the place of what the head would have got: not in the middle of a list,
    /// where it would be read as an entry.
    fn drop_head(&mut self) -> bool {
        let Some((id, stage)) = self.take_head() else { return false };
        match stage {
            Stage::Waiting => self.refuse(Refusal::Superseded),
            Stage::Asked | Stage::Listing { .. } => self.withdrawn = Some(id),
        }
        !matches!(stage, Stage::Listing { .. })
    }

    fn take_head(&mut self) -> Option<(RequestId, Stage)> {
        let id = self.held.pop_front()?.id;
        Some((id, core::mem::replace(&mut self.head, Stage::Waiting)))
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.refusals.push(refusal);
    }

    /// Ends a frame that has begun and whose time is up: a torn one is dropped, a kept-back one is whole.
    fn end_late_frame(&mut self, now: Millis) {
        if self.frame_ends_at().is_none_or(|at| now < at) {
            return;
        }
        if self.deframer.keeps_back() {
            self.deframer.release();
            self.frame_is_whole(now);
        } else {
            let begun = self.deframer.begun();
            self.deframer.reset();
            self.refuse(Refusal::Torn(begun));
        }
    }

    fn frame_ends_at(&self) -> Option<Millis> {
        let time = if self.deframer.keeps_back() { KEEP_BACK } else { FRAME_TIME };
        (self.deframer.begun() > 0).then(|| self.frame_since.plus(time))
    }

    fn report_noise(&mut self) {
        if self.deframer.has_noise() {
            let noise = self.deframer.take_noise();
            self.refuse(Refusal::Noise(noise));
        }
    }

    /// What has come belongs to somebody else: no frame of this wire was begun by it.
    pub(super) fn forget_bytes(&mut self) {
        self.deframer.reset();
        let _ = self.deframer.take_noise();
    }

    pub(super) fn must_be_polled(&self) -> bool {
        self.withdrawn.is_some() || !self.refusals.is_empty()
    }

    fn head_deadline(&self) -> Option<Millis> {
        self.held.front().map(|head| head.received.plus(self.time_to_act))
    }
}

impl Endpoint for SerialListener {
    fn opened(&mut self, _entropy: &Entropy, now: Millis) {
        self.closed(now);
        self.discard_until = now.plus(self.settle);
    }

    fn receive(&mut self, bytes: &[u8], now: Millis) -> usize {
        if now < self.discard_until {
            return bytes.len();
        }
        self.end_late_frame(now);
        for (at, &byte) in bytes.iter().enumerate() {
            if self.must_be_polled() {
                return at;
            }
            let quiet = !self.deframer.has_noise();
            let cut = self.deframer.push(byte);
            if quiet && self.deframer.has_noise() {
                self.noise_since = now;
            }
            match cut {
                Cut::More if usize::from(self.deframer.begun()) == serial::MAGIC.len() => {
                    self.frame_since = now;
                    self.report_noise();
                }
                Cut::More if self.deframer.keeps_back() => self.frame_since = now,
                Cut::More => {}
                Cut::Torn(have) => {
                    self.frame_since = now;
                    self.refuse(Refusal::Torn(have));
                }
                Cut::Frame => {
                    self.frame_is_whole(now);
                    return at + 1;
                }
            }
        }
        bytes.len()
    }

    fn closed(&mut self, _now: Millis) {
        self.deframer.reset();
        self.drop_all();
    }

    fn transmit(&self) -> &[u8] {
        self.out.unsent()
    }

    fn sent(&mut self, n: usize, _now: Millis) {
        self.out.sent(n);
    }

    fn wake_at(&self) -> Option<Millis> {
        let noise = self.deframer.has_noise().then(|| self.noise_since.plus(NOISE_TIME));
        let reply = (!self.out.is_empty()).then(|| self.out.since.plus(REPLY_TIME));
        [self.frame_ends_at(), noise, reply, self.head_deadline()].into_iter().flatten().min()
    }

    fn wake(&mut self, now: Millis) {
        self.end_late_frame(now);
        if now.since(self.noise_since) >= NOISE_TIME {
            self.report_noise();
        }
        if !self.out.is_empty() && now.since(self.out.since) >= REPLY_TIME {
            self.refuse(Refusal::ReplyNotRead);
            // Whoever waits behind it would take the next reply for this one, and a list without a part is no list.
            self.drop_all();
        }
        let late = self.head_deadline().is_some_and(|deadline| now >= deadline);
        if late && self.withdrawn.is_none() && self.drop_head() {
            self.out.put(&serial::encode_reply(Code::Failed), now);
        }
    }
}
