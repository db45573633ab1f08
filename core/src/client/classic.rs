//! The asking end of fence-virt's wires: how a reply is read, which is the same on both but for what stands before a code.
//!
//! Not here: when a request is repeated on a serial port (`serial.rs`), and how the ends of a packet conversation prove
//! themselves (`packet.rs`).

use super::packet::Proofs;
use super::serial::Repeats;
use super::{Reply, Signing};
use crate::Endpoint;
use crate::classic::Code;
use crate::classic::key::TAG_LEN;
use crate::classic::packet::{Fresh, REQUEST_LEN, encode_request, encode_unsigned};
use crate::classic::serial::{ENTRY_LEN, MagicScanner, decode_entry, encode_request as encode_frame};
use crate::words::{Ask, BadName, Entropy, Millis, Power};

/// See [`super::Client`].
// Small fields first: what is within 128 bytes of the beginning is reached with shorter instructions.
#[derive(Debug)]
#[repr(C)]
pub(super) struct ClassicClient {
    state: State,
    ask: Kind,
    /// How much has come of the magic that is looked for.
    scanner: MagicScanner,
    sent: u16,
    deadline: Millis,
    reply: Option<Reply>,
    /// What is read as a whole, and has not come whole yet.
    input: heapless::Vec<u8, IN_MAX>,
    /// The request, and on a packet's connection what goes out after it.
    out: heapless::Vec<u8, OUT_MAX>,
    wire: Wire,
}

/// The request, our challenge, our proof.
const OUT_MAX: usize = REQUEST_LEN + TAG_LEN + TAG_LEN;

/// A host list's entry is the longest.
const IN_MAX: usize = ENTRY_LEN;
const _: () = assert!(TAG_LEN <= IN_MAX);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one, and no allocator to box it with")]
enum Wire {
    Serial(Repeats),
    /// None: nobody proves anything.
    Packet(Option<Proofs>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection.
    Idle,
    /// Packet: the other end's answer to our challenge is to come.
    Proof,
    /// Packet: its own challenge is.
    Challenge,
    /// Serial: looking for a reply's magic.
    Magic,
    /// The next byte is the reply's code.
    Code,
    /// In a host list.
    Entries,
    /// Serial, after a host list: looking for the final reply.
    LastMagic,
    /// The next byte is the code after a host list.
    LastCode,
    /// It has ended.
    Over,
}

impl ClassicClient {
    /// With no request yet: one of the next two says what and how.
    pub(super) const fn idle(ask: &Ask, deadline: Millis) -> ClassicClient {
        ClassicClient {
            wire: Wire::Packet(None),
            ask: Kind::of(ask),
            state: State::Idle,
            out: heapless::Vec::new(),
            sent: 0,
            scanner: MagicScanner::NEW,
            input: heapless::Vec::new(),
            reply: None,
            deadline,
        }
    }

    /// On a serial port or channel.
    pub(super) fn on_serial(&mut self, ask: &Ask, seqno: u32) -> Result<(), BadName> {
        let _ = self.out.extend_from_slice(&encode_frame(ask, seqno)?);
        self.wire = Wire::Serial(Repeats::default());
        Ok(())
    }

    /// On a connection of its own.
    pub(super) fn on_packets(&mut self, ask: &Ask, fresh: Fresh, signing: Signing<'_>) {
        match signing {
            Signing::Nothing => _ = self.out.extend_from_slice(&encode_unsigned(ask, fresh)),
            Signing::Key { key, hash, auth } => {
                let _ = self.out.extend_from_slice(&encode_request(ask, fresh, hash, key));
                self.wire = Wire::Packet(Some(Proofs::new(key, auth)));
            }
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

    #[inline(never)]
    fn push(&mut self, byte: u8) {
        let wanted = match self.state {
            State::Idle | State::Over => return,
            State::Magic | State::LastMagic | State::Code | State::LastCode => 1,
            State::Proof | State::Challenge => TAG_LEN,
            State::Entries => ENTRY_LEN,
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
            State::Magic | State::LastMagic => {
                if self.scanner.push(last) {
                    self.state = if self.state == State::Magic { State::Code } else { State::LastCode };
                }
            }
            // It came before all was said that it could be a reply to: it is from something else.
            State::Proof if !self.transmit().is_empty() => self.end(Reply::NotProved),
            State::Code if !self.is_serial() && !self.transmit().is_empty() => self.end(Reply::Failed),
            State::Proof => match &self.wire {
                Wire::Packet(Some(proofs)) if proofs.proves(&self.input) => self.state = State::Challenge,
                _ => self.end(Reply::NotProved),
            },
            State::Challenge => match &self.wire {
                Wire::Packet(Some(proofs)) if !proofs.is_ours(&self.input) => {
                    let _ = self.out.extend_from_slice(&proofs.answer(&self.input));
                    self.state = State::Code;
                }
                // Our own, sent back: whoever does so wants our answer to give it to us.
                _ => self.end(Reply::NotProved),
            },
            State::Code => match meaning(last, self.ask) {
                Meaning::End(reply) => self.end(reply),
                Meaning::List => self.state = State::Entries,
                Meaning::Nothing => self.no_code(State::Magic, last),
            },
            State::Entries => match self.input.first_chunk().and_then(decode_entry) {
                Some(entry) => self.reply = Some(Reply::Entry(entry)),
                None if self.is_serial() => {
                    self.scanner = MagicScanner::default();
                    self.state = State::LastMagic;
                }
                None => self.state = State::LastCode,
            },
            State::LastCode => match Code::from_byte(last) {
                Some(Code::Success) => self.end(Reply::EndOfList),
                Some(_) => self.end(Reply::Failed),
                None => self.no_code(State::LastMagic, last),
            },
        }
    }

    /// Where a code should be was this. On a serial port it is an answer to something else, left over in the channel, or
    /// noise; it may go on in another magic, but cannot complete one.
    fn no_code(&mut self, look_on: State, byte: u8) {
        if self.is_serial() {
            self.state = look_on;
            let _ = self.scanner.push(byte);
        } else {
            // Nothing but the reply can be here.
            self.end(Reply::Failed);
        }
    }

    const fn is_serial(&self) -> bool {
        matches!(self.wire, Wire::Serial(_))
    }

    /// When the request is to be sent once more: only while no reply has begun.
    #[inline(never)]
    fn repeat_at(&self) -> Option<Millis> {
        match (&self.wire, self.state) {
            (Wire::Serial(repeats), State::Magic | State::Code) => repeats.next(),
            _ => None,
        }
    }
}

impl Endpoint for ClassicClient {
    fn opened(&mut self, entropy: &Entropy, _now: Millis) {
        if self.is_over() {
            return;
        }
        self.sent = 0;
        self.scanner = MagicScanner::default();
        self.input.clear();
        self.state = match &mut self.wire {
            Wire::Serial(repeats) => {
                repeats.opened();
                State::Magic
            }
            Wire::Packet(None) => State::Code,
            Wire::Packet(Some(proofs)) => {
                proofs.challenge = entropy.0;
                self.out.truncate(REQUEST_LEN);
                let _ = self.out.extend_from_slice(&entropy.0);
                State::Proof
            }
        };
    }

    fn receive(&mut self, bytes: &[u8], _now: Millis) -> usize {
        if let Wire::Serial(repeats) = &self.wire
            && !repeats.asked()
        {
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
        if self.reply.is_some() {
            return;
        }
        match self.state {
            State::Idle | State::Over => {}
            State::Proof if self.input.is_empty() => self.end(Reply::Dropped),
            _ => self.end(Reply::Closed),
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
        self.sent += n as u16;
        if n > 0
            && self.transmit().is_empty()
            && let Wire::Serial(repeats) = &mut self.wire
        {
            repeats.sent(now);
        }
    }

    fn wake_at(&self) -> Option<Millis> {
        let first = self.repeat_at().map_or(self.deadline, |at| at.min(self.deadline));
        (!self.is_over()).then_some(first)
    }

    fn wake(&mut self, now: Millis) {
        if self.is_over() || self.reply.is_some() {
            return;
        }
        if now >= self.deadline {
            self.end(Reply::TimedOut);
        } else if self.repeat_at().is_some_and(|at| now >= at)
            && let Wire::Serial(repeats) = &mut self.wire
            && repeats.again(now)
        {
            self.sent = 0;
        }
    }
}

/// The action, as far as it decides what a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Power,
    Status,
    Monitor,
    List,
}

impl Kind {
    const fn of(ask: &Ask) -> Kind {
        match ask {
            Ask::Power(..) => Kind::Power,
            Ask::Status(_) => Kind::Status,
            Ask::Monitor => Kind::Monitor,
            Ask::List => Kind::List,
        }
    }
}

/// What a reply's byte means to who asked.
enum Meaning {
    /// This is what came of it.
    End(Reply),
    /// Entries follow.
    List,
    /// Nothing to this asker: no code, or an answer to something else.
    Nothing,
}

fn meaning(byte: u8, asked: Kind) -> Meaning {
    Meaning::End(match (Code::from_byte(byte), asked) {
        (Some(Code::Failed), Kind::Status) => Reply::Power(Power::Unknown),
        (Some(Code::Failed), _) => Reply::Failed,
        (Some(Code::Denied), _) => Reply::Denied,
        (Some(Code::Success), Kind::Status) => Reply::Power(Power::On),
        (Some(Code::Off), Kind::Status) => Reply::Power(Power::Off),
        (Some(Code::Success), Kind::Power | Kind::Monitor) => Reply::Done,
        (Some(Code::HostList), Kind::List) => return Meaning::List,
        _ => return Meaning::Nothing,
    })
}
