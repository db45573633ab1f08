//! The asking end on a connection of its own, TCP or vsock: the request and a challenge go out at once; the reply counts
//! once the other end has proved that it holds the key.
//!
//! ```text
//! us     request · challenge               proof
//! them                       proof · challenge    code [· entries · zeros · code]
//! ```
//!
//! Without a key, the code follows the request.

use super::{Kind, Meaning, Reply, Signing, meaning};
use crate::Endpoint;
use crate::classic::Code;
use crate::classic::key::{Hash, Key, TAG_LEN, Tag};
use crate::classic::packet::{self, Fresh, REQUEST_LEN};
use crate::classic::serial::{self, ENTRY_LEN};
use crate::words::{Ask, Entropy, Millis};

/// The request and a challenge.
const OUT_MAX: usize = REQUEST_LEN + TAG_LEN;

/// What is read as a whole: a host list's entry is the longest.
const IN_MAX: usize = ENTRY_LEN;
const _: () = assert!(TAG_LEN <= IN_MAX && OUT_MAX <= u8::MAX as usize);

/// See [`super::Client`].
#[derive(Debug)]
pub(super) struct PacketClient {
    ask: Kind,
    request: [u8; REQUEST_LEN],
    /// The key and what challenges are answered with; none where nobody proves anything.
    key: Option<(Key, Hash)>,
    challenge: Tag,
    out: heapless::Vec<u8, OUT_MAX>,
    sent: u8,
    state: State,
    input: heapless::Vec<u8, IN_MAX>,
    reply: Option<Reply>,
    deadline: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection.
    Idle,
    /// The other end's answer to our challenge is to come.
    Proof,
    /// Its own challenge is.
    Challenge,
    /// The reply's code is.
    Code,
    /// In a host list.
    Entries,
    /// The code after a host list is to come.
    LastCode,
    /// It has ended.
    Over,
}

impl PacketClient {
    pub(super) fn new(ask: &Ask, fresh: Fresh, signing: Signing<'_>, deadline: Millis) -> PacketClient {
        let (request, key) = match signing {
            Signing::Key { key, hash, auth } => {
                (packet::encode_request(ask, fresh, hash, key), Some((key.clone(), auth)))
            }
            Signing::Nothing => (packet::encode_unsigned(ask, fresh), None),
        };
        PacketClient {
            ask: Kind::of(ask),
            request,
            key,
            challenge: [0; TAG_LEN],
            out: heapless::Vec::new(),
            sent: 0,
            state: State::Idle,
            input: heapless::Vec::new(),
            reply: None,
            deadline,
        }
    }

    pub(super) fn poll(&mut self) -> Option<Reply> {
        self.reply.take()
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    fn end(&mut self, reply: Reply) {
        self.reply = Some(reply);
        self.state = State::Over;
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.transmit().is_empty() {
            self.out.clear();
            self.sent = 0;
        }
        let _ = self.out.extend_from_slice(bytes);
    }

    fn push(&mut self, byte: u8) {
        let wanted = match self.state {
            State::Idle | State::Over => return,
            State::Proof | State::Challenge => TAG_LEN,
            State::Entries => ENTRY_LEN,
            State::Code | State::LastCode => 1,
        };
        let _ = self.input.push(byte);
        if self.input.len() >= wanted {
            self.whole(byte);
            self.input.clear();
        }
    }

    /// All of what the state waits for has come; `last` is its last byte.
    fn whole(&mut self, last: u8) {
        match self.state {
            State::Idle | State::Over => {}
            State::Proof => {
                let proves = |(key, auth): &(Key, Hash)| {
                    let proof = self.input.first_chunk();
                    proof.is_some_and(|proof| key.proves(*auth, &[&self.challenge], proof))
                };
                if self.key.as_ref().is_some_and(proves) {
                    self.state = State::Challenge;
                } else {
                    self.end(Reply::NotProved);
                }
            }
            State::Challenge => {
                // Our own, sent back: whoever does so wants our answer to give it to us.
                if self.input == self.challenge {
                    return self.end(Reply::NotProved);
                }
                if let Some((key, auth)) = &self.key {
                    let proof = key.tag(*auth, &[&self.input]);
                    self.put(&proof);
                }
                self.state = State::Code;
            }
            // It came before all was said that it could be a reply to: it is from something else.
            State::Code if !self.transmit().is_empty() => self.end(Reply::Failed),
            State::Code => match meaning(last, self.ask) {
                Meaning::End(reply) => self.end(reply),
                Meaning::List => self.state = State::Entries,
                // Nothing but the reply can be here.
                Meaning::Nothing => self.end(Reply::Failed),
            },
            State::Entries => match self.input.first_chunk().and_then(serial::decode_entry) {
                Some(entry) => self.reply = Some(Reply::Entry(entry)),
                None => self.state = State::LastCode,
            },
            State::LastCode => match Code::from_byte(last) {
                Some(Code::Success) => self.end(Reply::EndOfList),
                _ => self.end(Reply::Failed),
            },
        }
    }
}

impl Endpoint for PacketClient {
    fn opened(&mut self, entropy: &Entropy, _now: Millis) {
        if self.is_over() {
            return;
        }
        self.out.clear();
        self.sent = 0;
        self.input.clear();
        let _ = self.out.extend_from_slice(&self.request);
        self.challenge = entropy.0;
        if self.key.is_some() {
            let _ = self.out.extend_from_slice(&entropy.0);
            self.state = State::Proof;
        } else {
            self.state = State::Code;
        }
    }

    fn receive(&mut self, bytes: &[u8], _now: Millis) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.reply.is_some() {
                return at;
            }
            self.push(byte);
        }
        bytes.len()
    }

    fn closed(&mut self, _now: Millis) {
        if self.reply.is_some() {
            return;
        }
        match self.state {
            State::Idle | State::Over => {}
            State::Proof => self.end(Reply::Dropped),
            _ => self.end(Reply::Closed),
        }
    }

    fn transmit(&self) -> &[u8] {
        match self.state {
            State::Idle | State::Over => &[],
            _ => self.out.get(usize::from(self.sent)..).unwrap_or_default(),
        }
    }

    fn sent(&mut self, n: usize, _now: Millis) {
        self.sent += n.min(self.transmit().len()) as u8;
    }

    fn wake_at(&self) -> Option<Millis> {
        (!self.is_over()).then_some(self.deadline)
    }

    fn wake(&mut self, now: Millis) {
        if !self.is_over() && self.reply.is_none() && now >= self.deadline {
            self.end(Reply::TimedOut);
        }
    }
}
