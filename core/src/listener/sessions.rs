//! The sessions of a channel on our own wire: one at most that is established, and one that is pending.
//!
//! ```text
//!  hello (good tag) ──▶ pending session, welcome out ── a good request in it ──▶ established
//!                          │ 1 s after the welcome has gone                         │ another one established, or closed
//!                          ▼                                                        ▼
//!                        gone                                                     gone
//! ```
//!
//! A hello proves that its sender has, or once had, the key; it changes nothing that is established. What counts is a frame
//! of a session, whose keys are made of both ends' nonces: nobody else can have said it, and it was not said before.
//!
//! The second is the guest's: neither the time that the welcome waits here counts, nor that which a slow line takes for a
//! request that has begun. Hellos without end cost no more than one: the next takes the pending one's place.
//!
//! Not here: what is asked in a session, and what is answered to it (`listener/native.rs`).

use super::{NativeAccept, Refusal};
use crate::native::frame::Payload;
use crate::native::keys::{Session, TAG_LEN};
use crate::native::message::{self, Head, Hello, NONCE_LEN, Reply, Said, Welcome};
use crate::native::{CURRENT, MIN};
use crate::sha::sha256;
use crate::words::{Entropy, Millis};

/// How long after its welcome has gone a session may be pending before a request in it begins to come.
pub const HALF_OPEN: Millis = Millis(1_000);

/// How long that request may take to come: nearly twice what the longest takes at 1200 baud.
pub const REQUEST_TIME: Millis = Millis(2_000);

/// Random bytes that nonces are made of: as many as a nonce has.
const ENTROPY_LEN: usize = NONCE_LEN;

/// The sessions of one channel.
#[derive(Debug)]
pub(super) struct Sessions {
    accept: NativeAccept,
    entropy: [u8; ENTROPY_LEN],
    welcomed: u32,
    established: Option<Live>,
    pending: Option<Pending>,
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
pub(super) struct Pending {
    live: Live,
    hello: [u8; TAG_LEN],
    nonce: [u8; NONCE_LEN],
    stamp: Millis,
    /// When a request must have begun to come; none while the welcome has not gone.
    until: Option<Millis>,
}

impl Pending {
    /// Whether a request may begin to come.
    fn is_open(&self, now: Millis) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// When it is over, where a frame has begun to come at that time.
    fn over_at(&self, begun: Option<Millis>) -> Option<Millis> {
        let in_time = begun.filter(|begun| self.is_open(*begun)).map(|begun| begun.plus(REQUEST_TIME));
        self.until.map(|until| in_time.map_or(until, |in_time| in_time.max(until)))
    }

    fn is_over(&self, begun: Option<Millis>, now: Millis) -> bool {
        self.over_at(begun).is_some_and(|at| now >= at)
    }
}

/// What comes of a good hello.
#[expect(clippy::large_enum_variant, reason = "there is no allocator to box it with")]
pub(super) enum Greeted {
    /// This is to be said; then, where there is one, this is pending.
    Welcome(Payload, Option<Pending>),
    /// The welcome to it has not gone yet.
    Waits,
    /// There is nothing to say to it.
    Refused(Refusal),
}

impl Sessions {
    pub(super) const fn new(accept: NativeAccept) -> Sessions {
        Sessions { accept, entropy: [0; ENTROPY_LEN], welcomed: 0, established: None, pending: None }
    }

    pub(super) fn opened(&mut self, entropy: &Entropy) {
        self.entropy = *entropy.0.last_chunk().unwrap_or(&[0; ENTROPY_LEN]);
    }

    pub(super) fn closed(&mut self) {
        (self.established, self.pending) = (None, None);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.established.is_none() && self.pending.is_none()
    }

    /// When the pending one is over; `begun`: when the frame began that is coming.
    pub(super) fn wake_at(&self, begun: Option<Millis>) -> Option<Millis> {
        self.pending.as_ref().and_then(|pending| pending.over_at(begun))
    }

    pub(super) fn wake(&mut self, begun: Option<Millis>, now: Millis) {
        self.pending = self.pending.take().filter(|pending| !pending.is_over(begun, now));
    }

    /// The welcome of this one will go, and this one is pending from here on.
    pub(super) fn welcomes(&mut self, pending: Pending) {
        self.pending = Some(pending);
    }

    /// The last welcome has gone. One that was said again gives no more time than the first.
    pub(super) fn welcome_has_gone(&mut self, now: Millis) {
        if let Some(pending) = &mut self.pending {
            pending.until.get_or_insert(now.plus(HALF_OPEN));
        }
    }

    /// The last welcome will not go.
    pub(super) fn welcome_is_lost(&mut self) {
        self.pending = self.pending.take().filter(|pending| pending.until.is_some());
    }

    /// What comes of a hello; none where it is not to be believed.
    pub(super) fn hello(&mut self, payload: &[u8], now: Millis) -> Option<Greeted> {
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
            return Some(Greeted::Refused(Refusal::Version { min: hello.min, max: hello.max }));
        }
        // The same hello again gets the same welcome: the first may be answered already.
        let again = self.pending.as_ref().filter(|pending| pending.hello == tag && pending.is_open(now));
        if again.is_some_and(|pending| pending.until.is_none()) {
            return Some(Greeted::Waits);
        }
        let again = again.map(|pending| (pending.nonce, pending.stamp));
        let (nonce, stamp) = again.unwrap_or_else(|| (self.nonce(), now));
        let keys = &self.accept.keys;
        let mut welcome = Payload::new();
        let _ = welcome.push(message::WELCOME);
        let said = Welcome { min: MIN, max: CURRENT, version, instance: self.accept.instance, stamp: stamp.0, nonce };
        message::write(&said, &mut welcome);
        let answer = keys.welcome_tag(payload, &welcome);
        let _ = welcome.extend_from_slice(&answer);
        let pending = again.is_none().then(|| {
            let live = Live { session: keys.session(payload, &welcome), heard: 0, said: 0 };
            let hello = *tag.first_chunk().unwrap_or(&[0; TAG_LEN]);
            Pending { live, hello, nonce, stamp, until: None }
        });
        Some(Greeted::Welcome(welcome, pending))
    }

    fn nonce(&mut self) -> [u8; NONCE_LEN] {
        self.welcomed = self.welcomed.wrapping_add(1);
        let digest = sha256(&[&self.entropy, &self.welcomed.to_le_bytes()]);
        *digest.first_chunk().unwrap_or(&[0; NONCE_LEN])
    }

    /// What stands in a request after its head; none where it is not to be believed. From here on its session is the
    /// established one. `begun`: when its first byte came.
    pub(super) fn request<'a>(&mut self, payload: &'a [u8], begun: Millis, now: Millis) -> Option<&'a [u8]> {
        let (body, tag) = message::split_tag(payload)?;
        let (head, rest) = message::read::<Head>(message::REQUEST, body)?;
        self.wake(Some(begun), now);
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
        Some(rest)
    }

    /// The next reply in the established session; none where there is no such session.
    pub(super) fn reply(&mut self, id: u64, said: Said, entries: &[u8]) -> Option<Payload> {
        let live = self.established.as_mut()?;
        live.said = live.said.saturating_add(1);
        let mut payload = Payload::new();
        let _ = payload.push(message::REPLY);
        message::write(&Head { session: live.session.name, counter: live.said }, &mut payload);
        message::write(&Reply { id, said }, &mut payload);
        let _ = payload.extend_from_slice(entries);
        let tag = live.session.answering.tag(&[&payload]);
        let _ = payload.extend_from_slice(&tag);
        Some(payload)
    }
}
