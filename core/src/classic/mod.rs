//! fence-virt's wire, byte for byte, as Debian's fence_virt 4.12.1 speaks it.
//!
//! [`serial`] is its transport for serial ports and channels. All integers are little-endian, all structs packed,
//! names are padded with NUL. This file holds the numbers that every classic transport shares.

pub mod serial;

use crate::words::{Answer, Ask, Outcome, Power, PowerAction, Target};

/// Port of fence-virt's TCP, vsock and guestfwd transports.
pub const PORT: u16 = 1229;

/// Bytes of a name's field: 63 of the name and a NUL.
pub const NAME_FIELD: usize = crate::words::NAME_MAX + 1;

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
        (Answer::Denied, _) => Code::Denied,
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
