//! What is said, whatever the wire: guests and how they are named, actions, power, requests, answers, outcomes.
//!
//! Not here: how any of it looks in bytes (see [`crate::classic`]).

use crate::utf8::first_character;
use core::fmt;

/// A point on a monotonic clock, or a span of it, in milliseconds. The zero is the caller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// This point, `span` later. Saturates at the end of time.
    #[must_use]
    pub const fn plus(self, span: Millis) -> Millis {
        Millis(self.0.saturating_add(span.0))
    }

    /// How long it is from `earlier` to here; zero where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// Bytes of [`Entropy`]: as many as the longest challenge has.
pub const ENTROPY_LEN: usize = 64;

/// Random bytes that nobody else knows or can guess. Each is used once.
#[derive(Clone, PartialEq, Eq)]
pub struct Entropy(pub [u8; ENTROPY_LEN]);

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}

/// A domain's UUID, as libvirt gives it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid([u8; 16]);

/// Bytes of a UUID in text: 32 hexadecimal digits and 4 hyphens.
pub const UUID_TEXT_LEN: usize = 36;

impl Uuid {
    /// From its 16 bytes, in the order of the text.
    pub const fn from_bytes(bytes: [u8; 16]) -> Uuid {
        Uuid(bytes)
    }

    /// Its 16 bytes, in the order of the text.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads `8-4-4-4-12` hexadecimal digits of either case. Anything else is not a UUID but perhaps a name.
    pub fn parse(text: &[u8]) -> Option<Uuid> {
        if text.len() != UUID_TEXT_LEN {
            return None;
        }
        let mut bytes = [0u8; 16];
        let mut digits = 0usize;
        for (at, &byte) in text.iter().enumerate() {
            if is_hyphen(at) {
                if byte != b'-' {
                    return None;
                }
                continue;
            }
            let digit = (byte as char).to_digit(16)? as u8;
            let slot = bytes.get_mut(digits / 2)?;
            *slot = (*slot << 4) | digit;
            digits += 1;
        }
        Some(Uuid(bytes))
    }

    /// Its text in lower case.
    #[inline(never)]
    pub fn text(&self) -> [u8; UUID_TEXT_LEN] {
        let mut text = [b'-'; UUID_TEXT_LEN];
        let mut left = u128::from_be_bytes(self.0);
        for (at, place) in text.iter_mut().enumerate() {
            if !is_hyphen(at) {
                left = left.rotate_left(4);
                let digit = left as u8 & 0x0f;
                *place = if digit < 10 { b'0' + digit } else { b'a' - 10 + digit };
            }
        }
        text
    }
}

const fn is_hyphen(at: usize) -> bool {
    matches!(at, 8 | 13 | 18 | 23)
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes of a guest's name at most: the classic wire has 64 for it, the last of them a NUL.
pub const NAME_MAX: usize = 63;

/// A guest's name that any wire can carry: 1 to 63 bytes of UTF-8 without control characters, not shaped like a UUID.
// 64 bytes that are copied word by word: without the alignment the guest agent is 1.7 KB larger.
#[derive(Clone, PartialEq, Eq, Hash)]
#[repr(align(8))]
pub struct GuestName(heapless::Vec<u8, NAME_MAX, u8>);

/// Why some bytes are not a guest's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    /// No byte at all. Say which guest is meant.
    Empty,
    /// Over 63 bytes. Use the guest's UUID instead.
    TooLong,
    /// Not UTF-8. Use the guest's UUID instead.
    NotUtf8,
    /// A control character (a newline, a tab, a NUL) in it. Use the guest's UUID instead.
    Control,
    /// Bytes other than NUL after the NUL that ends it. The frame is damaged or made by hand.
    AfterNul,
    /// "abba", the classic wire's mark of a frame's beginning, in it. Use the guest's UUID instead.
    Magic,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadName::Empty => "no guest is named",
            BadName::TooLong => "the guest's name has over 63 bytes",
            BadName::NotUtf8 => "the guest's name is not UTF-8",
            BadName::Control => "the guest's name has a control character in it",
            BadName::AfterNul => "there are bytes after the NUL that ends the guest's name",
            BadName::Magic => "the guest's name has \"abba\" in it",
        })
    }
}

impl GuestName {
    /// Takes `bytes` for a name, or says why not. A UUID's text is a good name here; [`Target::parse`] tells them apart.
    pub fn parse(bytes: &[u8]) -> Result<GuestName, BadName> {
        if bytes.is_empty() {
            return Err(BadName::Empty);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let (character, after) = first_character(rest).ok_or(BadName::NotUtf8)?;
            if character.is_control() {
                return Err(BadName::Control);
            }
            rest = after;
        }
        heapless::Vec::from_slice(bytes).map(GuestName).map_err(|_| BadName::TooLong)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        // `parse` has seen to it that it is.
        core::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The guest that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// By name.
    Name(GuestName),
    /// By UUID. Text of a UUID's shape is always one, never a name.
    Uuid(Uuid),
}

impl Target {
    /// Reads a name or a UUID's text.
    pub fn parse(text: &[u8]) -> Result<Target, BadName> {
        match Uuid::parse(text) {
            Some(uuid) => Ok(Target::Uuid(uuid)),
            None => GuestName::parse(text).map(Target::Name),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Name(name) => fmt::Display::fmt(name, f),
            Target::Uuid(uuid) => fmt::Display::fmt(uuid, f),
        }
    }
}

/// Whether a guest runs. Unknown is never rounded to off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs, or could go on running: paused and suspended guests are on.
    On,
    /// It does not run.
    Off,
    /// Nobody can tell.
    Unknown,
}

/// What may be done to a guest's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PowerAction {
    /// Make it not run.
    Off,
    /// Make it not run, then start it anew.
    Reboot,
    /// Start it where it does not run.
    On,
}

impl PowerAction {
    /// As Pacemaker and the configuration spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            PowerAction::Off => "off",
            PowerAction::Reboot => "reboot",
            PowerAction::On => "on",
        }
    }
}

/// The mark of one run of a guest: another in the next. 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation([u8; 16]);

impl Incarnation {
    /// These bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Incarnation {
        Incarnation(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What one end asks of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Do this to that guest's power.
    Power(PowerAction, Target),
    /// Does that guest run?
    Status(Target),
    /// Are you there?
    Monitor,
    /// Whom may I fence?
    List,
}

impl Ask {
    /// The action's name, as Pacemaker spells it.
    pub const fn action(&self) -> &'static str {
        match self {
            Ask::Power(action, _) => action.as_str(),
            Ask::Status(_) => "status",
            Ask::Monitor => "monitor",
            Ask::List => "list",
        }
    }

    /// The guest asked about, where there is one.
    pub const fn target(&self) -> Option<&Target> {
        match self {
            Ask::Power(_, target) | Ask::Status(target) => Some(target),
            Ask::Monitor | Ask::List => None,
        }
    }
}

/// What makes a request the same request when it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// The requester's own mark on it. On the classic wire, which has none worth the name, the first 8 bytes of the
    /// frame's SHA-256.
    pub id: u64,
    /// What it asks: bytes 8 to 24 of the SHA-256 of the body.
    pub body: [u8; 16],
}

/// One whole, well-formed request, as a listener hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub(crate) ask: Ask,
    pub(crate) key: RequestKey,
    pub(crate) received: Millis,
    pub(crate) deadline: Millis,
    pub(crate) remember_until: Millis,
    pub(crate) which: Which,
    pub(crate) native: bool,
}

/// What narrows a request. A power request never says after whom, and a list never which run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Any,
    /// This run of its target, and no other.
    Run(Incarnation),
    /// The guests after this one.
    After(Uuid),
}

impl Request {
    /// Whether it came over our own wire.
    pub const fn is_native(&self) -> bool {
        self.native
    }

    /// Which run of its target it means, if it says so: another one is not to be touched for it.
    pub const fn guard(&self) -> Option<Incarnation> {
        match self.which {
            Which::Run(run) => Some(run),
            Which::Any | Which::After(_) => None,
        }
    }

    /// What is asked.
    pub const fn ask(&self) -> &Ask {
        &self.ask
    }

    /// What makes it the same request when it comes again.
    pub const fn key(&self) -> RequestKey {
        self.key
    }

    /// When its last byte came.
    pub const fn received(&self) -> Millis {
        self.received
    }

    /// From when on nothing may be begun for it.
    pub const fn deadline(&self) -> Millis {
        self.deadline
    }

    /// Until when a repetition of it gets the first one's answer.
    pub const fn remember_until(&self) -> Millis {
        self.remember_until
    }
}

/// What somebody who can see it says of a guest's power, and since when that is worth something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What was seen.
    pub power: Power,
    /// When the one who saw was *asked*: the answer is no older than this.
    pub asked: Millis,
}

/// Proof that a target was seen off after the request to put it off came. Without one, nothing says "fenced".
///
/// Only [`Permit::confirm_off`](crate::Permit::confirm_off) makes one, out of an [`Observation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmedOff {
    pub(crate) seen: Millis,
}

impl ConfirmedOff {
    /// When the target was seen off.
    pub const fn seen(self) -> Millis {
        self.seen
    }
}

/// What came of the second half of a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// It runs again.
    Started,
    /// It stays off: it could not be started, or cannot be (a transient guest). The fence has succeeded all the same.
    NotStarted,
}

/// What came of a power request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `off`: it does not run.
    Off(ConfirmedOff),
    /// `reboot`: it did not run, and then this.
    Rebooted(ConfirmedOff, Restart),
    /// `on`: it runs.
    On,
    /// Not done, or not known to be done.
    Failed(Failure),
}

/// Why a request was not carried out, or is not known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No hypervisor knows such a guest.
    NotFound,
    /// The hypervisor cannot be asked, or does not say. Nothing was done.
    Unreachable,
    /// Begun, and not confirmed: it may have happened, or may still happen.
    Unconfirmed,
    /// Its time was up before it was begun. Nothing was done.
    Expired,
    /// The guest that asks is itself being fenced, or off. Nothing was done.
    RequesterFenced,
    /// The guest is being migrated, or was: it may run on another host.
    Elsewhere,
    /// It could not be started.
    NotStarted,
    /// Too many requests wait already, or the budget is used up. Nothing was done.
    Busy,
    /// What a later check of the same request needs could not be written down. Nothing was done.
    NotRecorded,
    /// The guest is not the one any more that was asked about: it has been off since, and started again.
    Replaced,
    /// It is active on more than one hypervisor. Nothing was done.
    Ambiguous,
    /// Meanwhile the configuration does not let its requester do that any more. Nothing was done.
    Forbidden,
}

/// One guest of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry<'a> {
    /// The guest's name, of any length and content; a wire that cannot carry it sends the UUID in its place.
    pub name: &'a str,
    /// The guest's UUID.
    pub uuid: Uuid,
    /// Whether it runs.
    pub power: Power,
}

/// What is known besides an answer, for a wire that can say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Details {
    /// What the target's power was before a power action.
    pub before: Power,
    /// Which run of the target there is now, where it runs and that is known.
    pub incarnation: Option<Incarnation>,
    /// Whether this repeats the answer to an earlier copy of the request.
    pub repeated: bool,
}

impl Details {
    /// Nothing is.
    pub const NONE: Details = Details { before: Power::Unknown, incarnation: None, repeated: false };
}

/// What the listener's owner answers to a request that it was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// To a power request.
    Outcome(Outcome),
    /// To a status.
    Power(Power),
    /// To a monitor.
    Alive,
    /// To a list: one more guest. Only after [`Event::EntryWanted`](crate::Event::EntryWanted).
    Entry(ListEntry<'a>),
    /// To a list: that was the last.
    EndOfList,
    /// To anything: you may not.
    Denied,
    /// To anything: not done, and why.
    Failed(Failure),
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_uuid_is_read_in_either_case_and_written_in_lower() {
        let uuid = Uuid::parse(b"B33F94F9-8a30-4e83-9165-fd8681ee13cf").unwrap();
        assert_eq!(uuid.to_string(), "b33f94f9-8a30-4e83-9165-fd8681ee13cf");
        assert_eq!(Uuid::parse(uuid.to_string().as_bytes()), Some(uuid));
    }

    #[test]
    fn what_is_not_quite_a_uuid_is_a_name() {
        for text in [
            "b33f94f9-8a30-4e83-9165-fd8681ee13c",
            "b33f94f9-8a30-4e83-9165-fd8681ee13cfa",
            "b33f94f9x8a30-4e83-9165-fd8681ee13cf",
            "b33f94f9-8a30-4e83-9165-fd8681ee13cg",
            "+33f94f9-8a30-4e83-9165-fd8681ee13cf",
        ] {
            assert!(matches!(Target::parse(text.as_bytes()), Ok(Target::Name(_))), "{text}");
        }
    }

    #[test]
    fn names_of_every_length_and_kind() {
        assert_eq!(GuestName::parse(b""), Err(BadName::Empty));
        assert!(GuestName::parse(&[b'x'; 63]).is_ok());
        assert_eq!(GuestName::parse(&[b'x'; 64]), Err(BadName::TooLong));
        assert!(GuestName::parse("büro 2".as_bytes()).is_ok());
        assert_eq!(GuestName::parse(b"a\nb"), Err(BadName::Control));
        assert_eq!(GuestName::parse(b"a\0b"), Err(BadName::Control));
        assert_eq!(GuestName::parse(b"\xff\xfe"), Err(BadName::NotUtf8));
    }
}
