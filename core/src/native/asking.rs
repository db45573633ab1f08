//! What the asking end writes and reads, in as little code as possible: postcard's would be a seventh of the guest agent.
//!
//! The bytes are those of [`message`](super::message), whose types say what they are; tests hold the two against each
//! other. Not here: tags, and who says what when (see `client/native.rs`).

use super::message::{self, Done, Reason, Result, Runs, Said};
use super::{CURRENT, MIN};
use crate::words::{Ask, Incarnation, NAME_MAX, PowerAction, Target, Uuid};
use heapless::vec::VecView;

/// Bytes of what is asked, at most: action, target, run.
pub(crate) const WHAT_MAX: usize = 1 + (1 + 1 + NAME_MAX) + (1 + 16);

/// What is asked, by its number.
pub(crate) const OFF: u8 = 0;
pub(crate) const REBOOT: u8 = 1;
pub(crate) const ON: u8 = 2;
pub(crate) const STATUS: u8 = 3;
pub(crate) const MONITOR: u8 = 4;
pub(crate) const LIST: u8 = 5;

/// Adds a hello without its tag.
pub(crate) fn write_hello(generation: u32, guest: Uuid, nonce: &[u8; message::NONCE_LEN], to: &mut VecView<u8>) {
    add(to, &[message::HELLO, MIN, CURRENT]);
    add_number(to, u64::from(generation));
    add(to, guest.as_bytes());
    add(to, nonce);
}

/// Adds what a request or reply begins with.
pub(crate) fn write_head(kind: u8, session: &[u8], counter: u32, to: &mut VecView<u8>) {
    add(to, &[kind]);
    add(to, session);
    add_number(to, u64::from(counter));
}

/// Adds what is asked: of that run of the target where one is given, and in a list, of the guests after that one.
pub(crate) fn write_what(ask: &Ask, guard: Option<Incarnation>, after: Option<Uuid>, to: &mut VecView<u8>) {
    let what = match ask {
        Ask::Power(PowerAction::Off, _) => OFF,
        Ask::Power(PowerAction::Reboot, _) => REBOOT,
        Ask::Power(PowerAction::On, _) => ON,
        Ask::Status(_) => STATUS,
        Ask::Monitor => MONITOR,
        Ask::List => LIST,
    };
    add(to, &[what]);
    match ask.target() {
        Some(Target::Name(name)) => {
            let name = name.as_bytes();
            add(to, &[0, name.len() as u8]);
            add(to, name);
        }
        Some(Target::Uuid(uuid)) => {
            add(to, &[1]);
            add(to, uuid.as_bytes());
        }
        None => {}
    }
    match what {
        OFF | REBOOT => add_optional(to, guard.as_ref().map(Incarnation::as_bytes)),
        LIST => add_optional(to, after.as_ref().map(Uuid::as_bytes)),
        _ => {}
    }
}

/// There is always room: whoever adds has it for the longest message.
#[inline(never)]
pub(crate) fn add(to: &mut VecView<u8>, bytes: &[u8]) {
    let _ = to.extend_from_slice(bytes);
}

#[inline(never)]
pub(crate) fn add_number(to: &mut VecView<u8>, mut number: u64) {
    while number > 0x7f {
        add(to, &[number as u8 | 0x80]);
        number >>= 7;
    }
    add(to, &[number as u8]);
}

fn add_optional(to: &mut VecView<u8>, bytes: Option<&[u8; 16]>) {
    add(to, &[u8::from(bytes.is_some())]);
    if let Some(bytes) = bytes {
        add(to, bytes);
    }
}

/// Takes values out of a payload, one after the other. What is none is read as zeros, and [`Reader::is_good`] says so
/// at the end: a check at each would be most of the code.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    is_good: bool,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(payload: &'a [u8]) -> Reader<'a> {
        Reader { rest: payload, is_good: true }
    }

    /// What is left of the payload.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all that was read was there, and was what it should be.
    pub(crate) const fn is_good(&self) -> bool {
        self.is_good
    }

    #[inline(never)]
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        match self.rest.split_at_checked(count) {
            Some((bytes, rest)) => {
                self.rest = rest;
                bytes
            }
            None => {
                self.is_good = false;
                &[]
            }
        }
    }

    pub(crate) fn array(&mut self) -> [u8; 16] {
        *self.bytes(16).first_chunk().unwrap_or(&[0; 16])
    }

    #[inline(never)]
    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    /// Up to `limit`.
    #[inline(never)]
    fn number_up_to(&mut self, limit: u64) -> u64 {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte();
            let part = u64::from(byte & 0x7f);
            number |= part << shift;
            if byte < 0x80 {
                self.is_good &= number <= limit && (shift < 63 || part < 2);
                return number;
            }
        }
        self.is_good = false;
        number
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.number_up_to(u64::MAX)
    }

    pub(crate) fn short_number(&mut self) -> u32 {
        self.number_up_to(u64::from(u32::MAX)) as u32
    }

    /// A number that is one of `values`.
    fn one_of<T: Copy>(&mut self, values: &[T]) -> Option<T> {
        let value = values.get(usize::from(self.byte())).copied();
        self.is_good &= value.is_some();
        value
    }

    fn yes_or_no(&mut self) -> bool {
        self.one_of(&[false, true]).unwrap_or_default()
    }

    /// The asking end has no use for the incarnations that it is told.
    fn incarnation(&mut self) -> Option<[u8; 16]> {
        if self.yes_or_no() {
            self.bytes(16);
        }
        None
    }

    pub(crate) fn runs(&mut self) -> Runs {
        self.one_of(&[Runs::On, Runs::Off, Runs::Unknown]).unwrap_or(Runs::Unknown)
    }

    fn reason(&mut self) -> Option<Reason> {
        self.one_of(&Reason::ALL)
    }

    /// What a reply says, without incarnations; none where it cannot be read.
    pub(crate) fn said(&mut self) -> Option<Said> {
        let said = match self.byte() {
            0 => Said::Accepted,
            1 => Said::Working,
            2 => Said::Done(Done {
                result: match self.byte() {
                    0 => Result::Off,
                    1 => Result::Rebooted,
                    2 => Result::NotStarted,
                    3 => Result::On,
                    4 => Result::Failed(self.reason()?),
                    _ => return None,
                },
                before: self.runs(),
                now: self.runs(),
                incarnation: self.incarnation(),
                seen_off: self.yes_or_no(),
                repeated: self.yes_or_no(),
            }),
            3 => Said::Status(self.runs(), self.incarnation()),
            4 => Said::Alive,
            5 => Said::List(self.byte(), self.yes_or_no()),
            6 => Said::Denied,
            7 => Said::Failed(self.reason()?),
            _ => return None,
        };
        self.is_good.then_some(said)
    }
}

#[cfg(test)]
#[path = "asking/tests.rs"]
mod tests;
