//! The sessions of a channel on our own wire: one at most that is established, and one that is pending.
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
//!
//! Not here: what is asked in a session, and what is answered to it (`listener/native.rs`).

use super::{NativeAccept, Refusal};
use crate::native::frame::Payload;
use crate::native::keys::{Session, TAG_LEN};
use crate::native::message::{self, Head, Hello, NONCE_LEN, Reply, Said, Welcome};
use crate::native::{CURRENT, MIN};
use crate::sha::sha256;
use crate::words::{Entropy, Millis};

/// How long a session may be pending.
pub const HALF_OPEN: Millis = Millis(1_000);

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
struct Pending {
    live: Live,
    hello: [u8; TAG_LEN],
    nonce: [u8; NONCE_LEN],
    since: Millis,
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

    /// When the pending one is over.
    pub(super) fn wake_at(&self) -> Option<Millis> {
        self.pending.as_ref().map(|pending| pending.since.plus(HALF_OPEN))
    }

    pub(super) fn wake(&mut self, now: Millis) {
        self.pending = self.pending.take().filter(|pending| now.since(pending.since) < HALF_OPEN);
    }

    /// The welcome to a hello, or what is wrong with a good one; none where it is not to be believed.
    pub(super) fn hello(&mut self, payload: &[u8], now: Millis) -> Option<Result<Payload, Refusal>> {
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
            return Some(Err(Refusal::Version { min: hello.min, max: hello.max }));
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
        Some(Ok(welcome))
    }

    fn nonce(&mut self) -> [u8; NONCE_LEN] {
        self.welcomed = self.welcomed.wrapping_add(1);
        let digest = sha256(&[&self.entropy, &self.welcomed.to_le_bytes()]);
        *digest.first_chunk().unwrap_or(&[0; NONCE_LEN])
    }

    /// What stands in a request after its head; none where it is not to be believed. From here on its session is the
    /// established one.
    pub(super) fn request<'a>(&mut self, payload: &'a [u8], now: Millis) -> Option<&'a [u8]> {
        let (body, tag) = message::split_tag(payload)?;
        let (head, rest) = message::read::<Head>(message::REQUEST, body)?;
        self.wake(now);
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
