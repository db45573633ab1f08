//! The asking end on a serial port or channel: the request is repeated while no reply comes.
//!
//! A reply says not to which request it belongs. So nothing that comes before the whole request was sent counts, and the
//! owner is expected to have emptied the channel before.

use super::{Kind, Meaning, Reply, meaning};
use crate::Endpoint;
use crate::classic::serial::{self, ENTRY_LEN, MagicScanner, RequestFrame};
use crate::classic::{Code, REMEMBERED_MS};
use crate::words::{Ask, BadName, Entropy, Millis};

/// How long after a request has gone it is sent again for the first time: a bridge that has just connected discards what
/// comes in its first 200 ms.
const FIRST_REPEAT: Millis = Millis(300);

/// How long after the last copy has gone the next is sent.
const NEXT_REPEAT: Millis = Millis(1_000);

/// For how long copies are sent. One that reaches a bridge which has forgotten the first is carried out again; 10 s are
/// what it may take to get there.
const REPEAT_FOR: Millis = Millis(REMEMBERED_MS - 10_000);

/// See [`super::Client`].
#[derive(Debug)]
pub(super) struct SerialClient {
    ask: Kind,
    frame: RequestFrame,
    sent: u8,
    /// The whole request has gone out at least once.
    asked: bool,
    state: State,
    scanner: MagicScanner,
    entry: heapless::Vec<u8, ENTRY_LEN>,
    reply: Option<Reply>,
    /// When the next copy is due; none while one is under way, and after the last.
    repeat_at: Option<Millis>,
    /// None until the request has gone for the first time.
    repeat_until: Option<Millis>,
    deadline: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection.
    Idle,
    /// Looking for a reply's magic.
    Magic,
    /// The next byte is the reply's code.
    Code,
    /// In a host list.
    Entries,
    /// After a host list: looking for the final reply.
    LastMagic,
    LastCode,
    /// It has ended.
    Over,
}

impl SerialClient {
    pub(super) fn new(ask: &Ask, seqno: u32, deadline: Millis) -> Result<SerialClient, BadName> {
        Ok(SerialClient {
            ask: Kind::of(ask),
            frame: serial::encode_request(ask, seqno)?,
            sent: 0,
            asked: false,
            state: State::Idle,
            scanner: MagicScanner::default(),
            entry: heapless::Vec::new(),
            reply: None,
            repeat_at: None,
            repeat_until: None,
            deadline,
        })
    }

    pub(super) fn poll(&mut self) -> Option<Reply> {
        self.reply.take()
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    fn push(&mut self, byte: u8) {
        match self.state {
            State::Idle | State::Over => {}
            State::Magic | State::LastMagic => {
                if self.scanner.push(byte) {
                    self.state = if self.state == State::Magic { State::Code } else { State::LastCode };
                }
            }
            State::Code => self.code(byte),
            State::LastCode => match Code::from_byte(byte) {
                Some(Code::Success) => self.end(Reply::EndOfList),
                Some(_) => self.end(Reply::Failed),
                None => self.look_on(State::LastMagic, byte),
            },
            State::Entries => self.entry_byte(byte),
        }
    }

    fn code(&mut self, byte: u8) {
        match meaning(byte, self.ask) {
            Meaning::End(reply) => self.end(reply),
            Meaning::List => self.state = State::Entries,
            // An answer to something else, left over in the channel, or noise.
            Meaning::Nothing => self.look_on(State::Magic, byte),
        }
    }

    /// The byte after a magic was no code for us: it may go on in another magic, but cannot complete one.
    fn look_on(&mut self, state: State, byte: u8) {
        self.state = state;
        let _ = self.scanner.push(byte);
    }

    fn entry_byte(&mut self, byte: u8) {
        let _ = self.entry.push(byte);
        let Ok(bytes) = <&[u8; ENTRY_LEN]>::try_from(self.entry.as_slice()) else { return };
        if let Some(entry) = serial::decode_entry(bytes) {
            self.reply = Some(Reply::Entry(entry));
        } else {
            self.scanner = MagicScanner::default();
            self.state = State::LastMagic;
        }
        self.entry.clear();
    }

    fn end(&mut self, reply: Reply) {
        self.reply = Some(reply);
        self.state = State::Over;
    }
}

impl Endpoint for SerialClient {
    fn opened(&mut self, _entropy: &Entropy, _now: Millis) {
        if self.is_over() {
            return;
        }
        self.sent = 0;
        self.asked = false;
        self.state = State::Magic;
        self.scanner = MagicScanner::default();
        self.entry.clear();
        self.repeat_at = None;
    }

    fn receive(&mut self, bytes: &[u8], _now: Millis) -> usize {
        if !self.asked {
            return bytes.len();
        }
        for (at, &byte) in bytes.iter().enumerate() {
            if self.reply.is_some() {
                return at;
            }
            self.push(byte);
        }
        bytes.len()
    }

    fn closed(&mut self, _now: Millis) {
        if !matches!(self.state, State::Idle | State::Over) && self.reply.is_none() {
            self.end(Reply::Closed);
        }
    }

    fn transmit(&self) -> &[u8] {
        if matches!(self.state, State::Idle | State::Over) {
            return &[];
        }
        self.frame.get(usize::from(self.sent)..).unwrap_or_default()
    }

    fn sent(&mut self, n: usize, now: Millis) {
        let n = n.min(self.transmit().len());
        self.sent += n as u8;
        if n == 0 || !self.transmit().is_empty() {
            return;
        }
        let wait = if self.asked { NEXT_REPEAT } else { FIRST_REPEAT };
        self.asked = true;
        let until = *self.repeat_until.get_or_insert(now.plus(REPEAT_FOR));
        self.repeat_at = Some(now.plus(wait)).filter(|&at| at <= until);
    }

    fn wake_at(&self) -> Option<Millis> {
        match self.state {
            State::Over => None,
            State::Magic | State::Code => Some(self.repeat_at.map_or(self.deadline, |at| at.min(self.deadline))),
            _ => Some(self.deadline),
        }
    }

    fn wake(&mut self, now: Millis) {
        if self.is_over() || self.reply.is_some() {
            return;
        }
        if now >= self.deadline {
            self.end(Reply::TimedOut);
        } else if matches!(self.state, State::Magic | State::Code) && self.repeat_at.is_some_and(|at| now >= at) {
            self.repeat_at = None;
            if self.repeat_until.is_some_and(|until| now <= until) {
                self.sent = 0;
            }
        }
    }
}
