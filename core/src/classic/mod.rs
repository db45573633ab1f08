//! fence-virt's wire, byte for byte, as Debian's fence_virt 4.12.1 speaks it.
//!
//! [`serial`] is its transport for serial ports and channels; [`packet`] its signed request for TCP and vsock, with the
//! [`key`] that signs it. All integers are little-endian, all structs packed, names are padded with NUL. This file holds
//! what every classic transport shares.

pub mod key;
pub mod packet;
pub mod serial;

use crate::words::{Answer, Ask, BadName, Failure, Outcome, Power, PowerAction, RequestKey, Target, UUID_TEXT_LEN};
use core::fmt;
use sha2::{Digest, Sha256};

/// Port of fence-virt's TCP, vsock and guestfwd transports.
pub const PORT: u16 = 1229;

/// Bytes of a name's field: 63 of the name and a NUL.
pub const NAME_FIELD: usize = crate::words::NAME_MAX + 1;
const _: () = assert!(UUID_TEXT_LEN < NAME_FIELD);

/// From when on nothing may be begun for a request, unless the configuration says otherwise: fence_virt waits 30 s,
/// and an answer needs time to get there.
pub const TIME_TO_ACT_MS: u64 = 25_000;

/// How long a repetition of a frame gets the first one's answer.
pub const REMEMBERED_MS: u64 = 60_000;

/// A reply's byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Done. To a status: on.
    Success = 0,
    /// Not done, or cannot tell.
    Failed = 1,
    /// To a status: off.
    Off = 2,
    /// Permission denied.
    Denied = 3,
    /// A host list follows.
    HostList = 253,
}

impl Code {
    /// Reads the byte. A value that the wire does not know is none.
    pub const fn from_byte(byte: u8) -> Option<Code> {
        Some(match byte {
            0 => Code::Success,
            1 => Code::Failed,
            2 => Code::Off,
            3 => Code::Denied,
            253 => Code::HostList,
            _ => return None,
        })
    }
}

/// The byte for an action.
#[inline(never)]
pub const fn action_byte(ask: &Ask) -> u8 {
    match ask {
        Ask::Power(PowerAction::Off, _) => 1,
        Ask::Power(PowerAction::Reboot, _) => 2,
        Ask::Power(PowerAction::On, _) => 3,
        Ask::Status(_) => 4,
        Ask::Monitor => 5,
        Ask::List => 6,
    }
}

/// Writes the target, where there is one, into a name's field that is all zeros.
#[inline(never)]
pub(crate) fn put_target(field: &mut [u8], ask: &Ask) {
    let uuid_text;
    let text: &[u8] = match ask.target() {
        None => &[],
        Some(Target::Name(name)) => name.as_bytes(),
        Some(Target::Uuid(uuid)) => {
            uuid_text = uuid.text();
            &uuid_text
        }
    };
    for (place, byte) in field.iter_mut().zip(text) {
        *place = *byte;
    }
}

/// What the action byte and the target ask; none where the byte is no action of this wire, or wants a target that is
/// not there.
pub(crate) fn ask_from(action: u8, target: Option<Target>) -> Option<Ask> {
    Some(match action {
        1 => Ask::Power(PowerAction::Off, target?),
        2 => Ask::Power(PowerAction::Reboot, target?),
        3 => Ask::Power(PowerAction::On, target?),
        4 => Ask::Status(target?),
        5 => Ask::Monitor,
        6 => Ask::List,
        _ => return None,
    })
}

/// The code that says `answer` to `ask`; none where that does not answer that, or where it takes a list to say it.
pub(crate) fn code_for(ask: &Ask, answer: &Answer<'_>) -> Option<Code> {
    Some(match (answer, ask) {
        (Answer::Denied | Answer::Outcome(Outcome::Failed(Failure::Forbidden)), _) => Code::Denied,
        (Answer::Failed(_), _) => Code::Failed,
        (Answer::Alive, Ask::Monitor) => Code::Success,
        (Answer::Power(power), Ask::Status(_)) => match power {
            Power::On => Code::Success,
            Power::Off => Code::Off,
            Power::Unknown => Code::Failed,
        },
        (Answer::Outcome(outcome), Ask::Power(action, _)) => match (outcome, action) {
            (Outcome::Off(_), PowerAction::Off)
            | (Outcome::Rebooted(..), PowerAction::Reboot)
            | (Outcome::On, PowerAction::On) => Code::Success,
            (Outcome::Failed(_), _) => Code::Failed,
            _ => return None,
        },
        _ => return None,
    })
}

/// `flags` bit 0: the domain field holds a UUID. No other bit is defined. fence_xvm sets it and fence_virt does not;
/// nobody needs it, since the text's shape says as much.
pub const FLAG_UUID: u8 = 1;

/// Why a whole frame is no request. It is answered with "failed", and nothing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// This action byte stands for nothing. 0 ("null") is one of these.
    Action(u8),
    /// An undefined bit is set in the flags.
    Flags(u8),
    /// The domain field holds no name that a guest can have.
    Name(BadName),
    /// A deadline of our own wire's that is over ten minutes away: it was counted on another clock.
    Deadline,
    /// A body of our own wire's that nobody of this version can read.
    Body,
    /// A serial request's last byte is not 0, on a channel that has our own wire, too: that byte, and up to three before it,
    /// may be of a frame behind a torn one.
    LastByte,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Action(byte) => write!(f, "{byte} is no action"),
            Malformed::Flags(bits) => write!(f, "flags {bits:#04x} has an undefined bit"),
            Malformed::Name(why) => fmt::Display::fmt(why, f),
            Malformed::Deadline => f.write_str("its deadline is over ten minutes away"),
            Malformed::Body => f.write_str("its body cannot be read"),
            Malformed::LastByte => {
                f.write_str("its last byte is not 0, and may be of a frame of the native wire behind it")
            }
        }
    }
}

/// What the fields that every request has ask.
pub(crate) fn ask_of(action: u8, flags: u8, domain: &[u8]) -> Result<Ask, Malformed> {
    if !matches!(action, 1..=6) {
        return Err(Malformed::Action(action));
    }
    if flags & !FLAG_UUID != 0 {
        return Err(Malformed::Flags(flags));
    }
    let target = match padded(domain).map_err(Malformed::Name)? {
        [] => None,
        text => Some(Target::parse(text).map_err(Malformed::Name)?),
    };
    ask_from(action, target).ok_or(Malformed::Name(BadName::Empty))
}

/// The classic sequence number is the microseconds of the requester's clock, no more than a hint: the whole frame is
/// what makes a request the same request.
pub(crate) fn key_of(frame: &[u8]) -> RequestKey {
    let digest: [u8; 32] = Sha256::digest(frame).into();
    let (id, body) = digest.split_at(8);
    RequestKey { id: u64::from_le_bytes(leading(id)), body: leading(body) }
}

/// The first `N` bytes; zeros where there are not so many.
fn leading<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// The text before the first NUL of a padded field; only NUL may follow, and one must.
fn padded(field: &[u8]) -> Result<&[u8], BadName> {
    let end = field.iter().position(|&byte| byte == 0).ok_or(BadName::TooLong)?;
    let (text, padding) = field.split_at(end);
    if padding.iter().any(|&byte| byte != 0) {
        return Err(BadName::AfterNul);
    }
    Ok(text)
}
