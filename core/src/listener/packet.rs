//! The answering end of a connection of its own, TCP or vsock: one request, proved by both sides, answered once.
//!
//! ```text
//! caller  request · challenge               proof
//! us                           proof · challenge    code [· entries · zeros · code]
//! ```
//!
//! Nothing is answered before the request's signature is found good, and nothing is done before the caller's own proof,
//! which a recording of an old request does not have. Each of our challenges carries a mark that only the key's holder
//! can make: one that a caller sends back to us, to learn what to answer, is known for what it is, whichever listener
//! with the same key it came from.

use super::outbox::Outbox;
use super::refusals::Refusals;
use super::{Event, NotNow, REPLY_TIME, Refusal, RequestId, Trust};
use crate::Endpoint;
use crate::classic::key::{Hash, Key, TAG_LEN, Tag};
use crate::classic::packet::{self, REQUEST_LEN, Unproved};
use crate::classic::serial;
use crate::classic::{Code, Malformed, REMEMBERED_MS, code_for};
use crate::words::{Answer, Ask, Entropy, Millis, Request, RequestKey, Which};
use subtle::ConstantTimeEq;

/// For all that comes before the request may be handed out. fence_virt's own parts of it take a millisecond.
pub const HANDSHAKE_TIME: Millis = Millis(5_000);

/// Bytes of a challenge that are random; the rest are their mark.
const NONCE_LEN: usize = TAG_LEN / 2;

/// What a challenge's mark is a hash of, with the key before it and the nonce behind. It must not make the whole look
/// like anything else that is hashed with the key: its first byte is no action, and it is not 64 bytes long with a nonce.
const MARK: &[u8] = b"fencewire: a challenge of a listener's, not to be answered by one";
const _: () = assert!(MARK.len() + NONCE_LEN != TAG_LEN && MARK.len() + NONCE_LEN != REQUEST_LEN);

/// See [`super::Listener`].
#[derive(Debug)]
pub(super) struct PacketListener {
    trust: Trust,
    time_to_act: Millis,
    stage: Stage,
    /// When the connection was opened.
    since: Millis,
    nonce: [u8; NONCE_LEN],
    input: heapless::Vec<u8, REQUEST_LEN>,
    /// Of this connection's request.
    id: RequestId,
    /// An earlier connection's, perhaps.
    withdrawn: Option<RequestId>,
    refusals: Refusals,
    out: Outbox,
}

#[derive(Debug)]
enum Stage {
    /// The request is to come.
    Asking,
    /// It came, well signed. The caller's challenge is to come.
    Challenge(Said),
    /// That is answered, and ours is out. The caller's proof is to come.
    Proof(Said),
    /// All is proved. Not handed out yet.
    Waiting(Request),
    /// Handed out.
    Asked(Request),
    /// A list of which a part is out. `wanted`: its owner was asked for the next entry.
    Listing { request: Request, wanted: bool },
    /// The whole reply is in the outbox, or nothing more is said.
    Ending,
}

/// What a well-signed packet says, if it says anything.
type Said = Result<(Ask, RequestKey), Malformed>;

impl PacketListener {
    pub(super) const fn new(trust: Trust, time_to_act: Millis) -> PacketListener {
        PacketListener {
            trust,
            time_to_act,
            stage: Stage::Ending,
            since: Millis(0),
            nonce: [0; NONCE_LEN],
            input: heapless::Vec::new(),
            id: RequestId(0),
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
        match &mut self.stage {
            Stage::Waiting(request) => {
                let request = request.clone();
                self.stage = Stage::Asked(request.clone());
                Some(Event::Asked(self.id, request))
            }
            Stage::Listing { wanted, .. } if !*wanted => {
                *wanted = true;
                Some(Event::EntryWanted(self.id))
            }
            _ => None,
        }
    }

    pub(super) fn answer(&mut self, id: RequestId, answer: Answer<'_>, now: Millis) -> Result<(), NotNow> {
        if id != self.id {
            return Err(NotNow::Gone);
        }
        let (request, begun) = match &self.stage {
            Stage::Asked(request) => (request, false),
            Stage::Listing { wanted: false, .. } => return Err(NotNow::EntryNotWanted),
            Stage::Listing { request, .. } => (request, true),
            _ => return Err(NotNow::Gone),
        };
        let last = match (answer, request.ask == Ask::List) {
            (Answer::Entry(entry), true) => {
                let request = request.clone();
                if !begun {
                    self.out.put(&[Code::HostList as u8], now);
                }
                self.out.put(&serial::encode_entry(&entry), now);
                self.stage = Stage::Listing { request, wanted: false };
                return Ok(());
            }
            (Answer::EndOfList, true) => Code::Success,
            (Answer::Failed(_) | Answer::Denied, _) if begun => Code::Failed,
            (answer, _) => code_for(&request.ask, &answer).ok_or(NotNow::DoesNotFit)?,
        };
        if begun || answer == Answer::EndOfList {
            if !begun {
                self.out.put(&[Code::HostList as u8], now);
            }
            self.out.put(&serial::END_OF_LIST, now);
        }
        self.end_with(last, now);
        Ok(())
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Ending) && self.out.is_empty()
    }

    pub(super) fn is_proved(&self) -> bool {
        match self.stage {
            Stage::Asking | Stage::Challenge(_) | Stage::Proof(_) => false,
            Stage::Waiting(_) | Stage::Asked(_) | Stage::Listing { .. } => true,
            // Nobody else gets a reply.
            Stage::Ending => !self.out.is_empty(),
        }
    }

    /// How many bytes the stage waits for; none where it waits for the owner, or for nothing.
    const fn wanted(&self) -> Option<usize> {
        match self.stage {
            Stage::Asking => Some(REQUEST_LEN),
            Stage::Challenge(_) | Stage::Proof(_) => Some(TAG_LEN),
            Stage::Waiting(_) | Stage::Asked(_) | Stage::Listing { .. } | Stage::Ending => None,
        }
    }

    /// All that the stage waits for has come.
    fn whole(&mut self, now: Millis) {
        match core::mem::replace(&mut self.stage, Stage::Ending) {
            Stage::Asking => {
                let decoded = self.input.first_chunk().map(|request| match &self.trust {
                    Trust::Key { key, minimum, .. } => packet::decode_request(request, *minimum, key),
                    Trust::Anybody => packet::decode_unsigned(request),
                });
                let said = match decoded {
                    Some(Ok(said)) => Ok(said),
                    // Its sender has a right to be told so.
                    Some(Err(Unproved::Malformed(why))) => Err(why),
                    Some(Err(why)) => return self.refuse(Refusal::Unproved(why)),
                    None => return,
                };
                match self.trust {
                    Trust::Key { .. } => self.stage = Stage::Challenge(said),
                    Trust::Anybody => self.proved(said, now),
                }
            }
            Stage::Challenge(said) => {
                let Trust::Key { key, auth, .. } = &self.trust else { return };
                if is_ours(key, *auth, &self.input) {
                    return self.refuse(Refusal::Reflection);
                }
                let proof = key.tag(*auth, &[&self.input]);
                let challenge = challenge(key, *auth, &self.nonce);
                self.out.put(&proof, now);
                self.out.put(&challenge, now);
                self.stage = Stage::Proof(said);
            }
            Stage::Proof(said) => {
                let Trust::Key { key, auth, .. } = &self.trust else { return };
                let challenge = challenge(key, *auth, &self.nonce);
                let proves = |proof| key.proves(*auth, &[&challenge], proof);
                if self.input.first_chunk().is_some_and(proves) {
                    self.proved(said, now);
                } else {
                    self.refuse(Refusal::WrongProof);
                }
            }
            other => self.stage = other,
        }
    }

    fn proved(&mut self, said: Said, now: Millis) {
        match said {
            Ok((ask, key)) => {
                self.stage = Stage::Waiting(Request {
                    ask,
                    key,
                    received: now,
                    deadline: now.plus(self.time_to_act),
                    remember_until: now.plus(Millis(REMEMBERED_MS)),
                    which: Which::Any,
                    native: false,
                });
            }
            Err(why) => {
                self.end_with(Code::Failed, now);
                self.refusals.push(Refusal::Malformed(why));
            }
        }
    }

    fn end_with(&mut self, code: Code, now: Millis) {
        self.out.put(&[code as u8], now);
        self.stage = Stage::Ending;
    }

    /// Says no more on this connection.
    fn refuse(&mut self, refusal: Refusal) {
        self.out.clear();
        self.stage = Stage::Ending;
        self.refusals.push(refusal);
    }

    fn end_late_handshake(&mut self, now: Millis) {
        if self.wanted().is_some() && now.since(self.since) >= HANDSHAKE_TIME {
            self.refuse(Refusal::TooSlow);
        }
    }

    const fn request(&self) -> Option<&Request> {
        match &self.stage {
            Stage::Waiting(request) | Stage::Asked(request) | Stage::Listing { request, .. } => Some(request),
            _ => None,
        }
    }
}

impl Endpoint for PacketListener {
    fn opened(&mut self, entropy: &Entropy, now: Millis) {
        self.closed(now);
        self.id.0 += 1;
        self.since = now;
        self.nonce = *entropy.0.first_chunk().unwrap_or(&[0; NONCE_LEN]);
        self.stage = Stage::Asking;
    }

    fn receive(&mut self, bytes: &[u8], now: Millis) -> usize {
        self.end_late_handshake(now);
        for (at, &byte) in bytes.iter().enumerate() {
            if !self.refusals.is_empty() || self.withdrawn.is_some() {
                return at;
            }
            let Some(wanted) = self.wanted() else { break };
            let _ = self.input.push(byte);
            if self.input.len() >= wanted {
                self.whole(now);
                self.input.clear();
            }
        }
        // What comes behind the proof is for nobody.
        bytes.len()
    }

    fn closed(&mut self, _now: Millis) {
        if matches!(self.stage, Stage::Asked(_) | Stage::Listing { .. }) {
            self.withdrawn = Some(self.id);
        }
        self.stage = Stage::Ending;
        self.input.clear();
        self.out.clear();
    }

    fn transmit(&self) -> &[u8] {
        self.out.unsent()
    }

    fn sent(&mut self, n: usize, _now: Millis) {
        self.out.sent(n);
    }

    fn wake_at(&self) -> Option<Millis> {
        let handshake = self.wanted().map(|_| self.since.plus(HANDSHAKE_TIME));
        let reply = (!self.out.is_empty()).then(|| self.out.since.plus(REPLY_TIME));
        let deadline = self.request().map(|request| request.deadline);
        [handshake, reply, deadline].into_iter().flatten().min()
    }

    fn wake(&mut self, now: Millis) {
        self.end_late_handshake(now);
        if !self.out.is_empty() && now.since(self.out.since) >= REPLY_TIME {
            self.closed(now);
            self.refuse(Refusal::ReplyNotRead);
        }
        if self.request().is_some_and(|request| now >= request.deadline) {
            // In the middle of a list a code would be read as an entry.
            let may_say_so = !matches!(self.stage, Stage::Listing { .. });
            self.closed(now);
            if may_say_so {
                self.end_with(Code::Failed, now);
            }
        }
    }
}

fn challenge(key: &Key, auth: Hash, nonce: &[u8; NONCE_LEN]) -> Tag {
    let mark = key.tag(auth, &[MARK, nonce]);
    let mut challenge = [0; TAG_LEN];
    for (place, &byte) in challenge.iter_mut().zip(nonce.iter().chain(&mark)) {
        *place = byte;
    }
    challenge
}

/// Whether somebody with this key made it for a challenge, and not for us to answer.
fn is_ours(key: &Key, auth: Hash, bytes: &[u8]) -> bool {
    let Some(nonce) = bytes.first_chunk() else { return false };
    challenge(key, auth, nonce).ct_eq(bytes).into()
}
