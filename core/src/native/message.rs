//! What frames say, in bytes: a kind, a body in postcard, a tag.
//!
//! ```text
//! hello    1 · Hello                              · tag
//! welcome  2 · Welcome                            · tag
//! request  3 · session [4] · counter · Request    · tag     guest to host
//! reply    4 · session [4] · counter · Reply …    · tag     host to guest
//! ```
//!
//! Discriminants are their order here, and never change: new ones are added at the end.

use super::frame::PAYLOAD_MAX;
use super::keys::{SESSION_LEN, TAG_LEN};
use crate::words::{BadName, Failure, Power, Target, Uuid};
use heapless::LenType;
use serde::{Deserialize, Serialize};

/// The kind of a hello.
pub const HELLO: u8 = 1;
/// The kind of a welcome.
pub const WELCOME: u8 = 2;
/// The kind of a request.
pub const REQUEST: u8 = 3;
/// The kind of a reply.
pub const REPLY: u8 = 4;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 16;

/// The guest begins a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version that it speaks.
    pub min: u8,
    /// The newest.
    pub max: u8,
    /// Which of its keys it has: [`Keys::generation`](super::keys::Keys::generation).
    pub generation: u32,
    /// Who it is, as its key file has it; zeros without one.
    pub guest: [u8; 16],
    /// New in each hello.
    pub nonce: [u8; NONCE_LEN],
}

/// The host answers a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The oldest version that it speaks.
    pub min: u8,
    /// The newest.
    pub max: u8,
    /// The one that is spoken from here on.
    pub version: u8,
    /// Which memory of requests the host has: random, and the same for as long as that memory and its clock last.
    pub instance: u64,
    /// Its clock now, in milliseconds; deadlines are points on it.
    pub stamp: u64,
    /// New in each welcome.
    pub nonce: [u8; NONCE_LEN],
}

/// The guest asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request<'a> {
    /// Random; the same in each repetition.
    pub id: u64,
    /// From when on nothing may be begun for it, on the host's clock.
    pub deadline: u64,
    /// What.
    #[serde(borrow)]
    pub what: What<'a>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What<'a> {
    /// Put it off: whom, and if given, which run of it and no other.
    Off(#[serde(borrow)] Whom<'a>, Option<[u8; 16]>),
    /// Put it off, then start it.
    Reboot(#[serde(borrow)] Whom<'a>, Option<[u8; 16]>),
    /// Start it where it is off.
    On(#[serde(borrow)] Whom<'a>),
    /// Does it run?
    Status(#[serde(borrow)] Whom<'a>),
    /// Are you there?
    Monitor,
    /// Whom may I fence? Those whose UUID comes after this one.
    List(Option<[u8; 16]>),
}

/// A target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whom<'a> {
    /// By name.
    Name(&'a str),
    /// By UUID.
    Uuid([u8; 16]),
}

/// The host answers. After a [`Said::List`], its entries follow, one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's.
    pub id: u64,
    /// What it says.
    pub said: Said,
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// It came, and is being dealt with.
    Accepted,
    /// It still is. Said every second.
    Working,
    /// A power action has ended.
    Done(Done),
    /// To a status.
    Status(Runs, Option<[u8; 16]>),
    /// To a monitor.
    Alive,
    /// To a list: so many entries follow here, and whether there are more behind the last of them.
    List(u8, bool),
    /// You may not.
    Denied,
    /// Not done, and why.
    Failed(Reason),
}

/// What came of a power action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What was done.
    pub result: Result,
    /// What its power was before.
    pub before: Runs,
    /// What it is now.
    pub now: Runs,
    /// Which run of it that is, where it runs and that is known.
    pub incarnation: Option<[u8; 16]>,
    /// Whether it was seen off since the request came.
    pub seen_off: bool,
    /// Whether this repeats the answer to an earlier copy.
    pub repeated: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Result {
    /// It is off.
    Off,
    /// It was off, and runs again.
    Rebooted,
    /// It was off, and could not be started.
    NotStarted,
    /// It runs.
    On,
    /// Not done, or not known to be.
    Failed(Reason),
}

/// Whether a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runs {
    /// It does.
    On,
    /// It does not.
    Off,
    /// Nobody can tell.
    Unknown,
}

impl From<Power> for Runs {
    fn from(power: Power) -> Runs {
        match power {
            Power::On => Runs::On,
            Power::Off => Runs::Off,
            Power::Unknown => Runs::Unknown,
        }
    }
}

impl From<Runs> for Power {
    fn from(runs: Runs) -> Power {
        match runs {
            Runs::On => Power::On,
            Runs::Off => Power::Off,
            Runs::Unknown => Power::Unknown,
        }
    }
}

/// Why something was not done: [`Failure`], in an order that never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the Failure of the same name")]
pub enum Reason {
    NotFound,
    Unreachable,
    Unconfirmed,
    Expired,
    RequesterFenced,
    Elsewhere,
    NotStarted,
    Busy,
    NotRecorded,
    Replaced,
    Ambiguous,
    Forbidden,
}

macro_rules! same {
    ($($name:ident)*) => {
        impl Reason {
            /// All of them, each at the place of its number.
            pub const ALL: [Reason; 12] = [$(Reason::$name),*];
        }

        impl From<Failure> for Reason {
            fn from(failure: Failure) -> Reason {
                match failure { $(Failure::$name => Reason::$name,)* }
            }
        }

        impl From<Reason> for Failure {
            fn from(reason: Reason) -> Failure {
                match reason { $(Reason::$name => Failure::$name,)* }
            }
        }
    };
}

same!(NotFound Unreachable Unconfirmed Expired RequesterFenced Elsewhere NotStarted Busy NotRecorded Replaced Ambiguous
      Forbidden);

/// A guest on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<'a> {
    /// Its UUID: entries are in the order of these.
    pub uuid: [u8; 16],
    /// Whether it runs.
    pub runs: Runs,
    /// Its name; empty where the wire cannot carry it.
    pub name: &'a str,
}

/// Bytes of a hello's payload at most: kind, versions, generation, guest, nonce, tag.
pub const HELLO_MAX: usize = 1 + 2 + 5 + 16 + NONCE_LEN + TAG_LEN;

/// Bytes of a welcome's payload at most: kind, versions, instance, stamp, nonce, tag.
pub const WELCOME_MAX: usize = 1 + 3 + 10 + 10 + NONCE_LEN + TAG_LEN;

/// Bytes of an entry at most.
pub const ENTRY_MAX: usize = 16 + 1 + 1 + crate::words::NAME_MAX;

/// Bytes before the body of a request or reply at most: kind, session, counter.
pub const HEAD_MAX: usize = 1 + SESSION_LEN + 5;

/// Bytes of a request's payload at most: head, id, deadline, action, target, run, tag.
pub const REQUEST_MAX: usize = HEAD_MAX + 10 + 10 + 1 + (1 + 1 + crate::words::NAME_MAX) + (1 + 16) + TAG_LEN;

/// The body of a payload and its tag; none where it is too short to have one.
pub fn split_tag(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    payload.split_at_checked(payload.len().checked_sub(TAG_LEN)?)
}

/// Reads a body of that kind, and gives what follows it.
pub fn read<'a, T: Deserialize<'a>>(kind: u8, body: &'a [u8]) -> Option<(T, &'a [u8])> {
    let (first, rest) = body.split_first()?;
    if *first != kind {
        return None;
    }
    postcard::take_from_bytes(rest).ok()
}

/// What a request or reply begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Of which session.
    pub session: [u8; SESSION_LEN],
    /// Which frame of that session and direction: counts up from 1.
    pub counter: u32,
}

impl Whom<'_> {
    /// The target that it names. Text of a UUID's shape is one, whatever it is said to be.
    pub fn target(self) -> core::result::Result<Target, BadName> {
        match self {
            Whom::Name(name) => Target::parse(name.as_bytes()),
            Whom::Uuid(uuid) => Ok(Target::Uuid(Uuid::from_bytes(uuid))),
        }
    }
}

/// Bytes of a chunk's entries at most.
pub const CHUNK_MAX: usize = PAYLOAD_MAX - REPLY_MAX;

/// Bytes of a reply's payload at most, without a chunk's entries: the longest is "done" with a result that gives a reason.
pub const REPLY_MAX: usize = HEAD_MAX + 10 + (1 + 2 + 1 + 1 + 17 + 1 + 1) + TAG_LEN;

const _: () = assert!(REQUEST_MAX <= PAYLOAD_MAX && CHUNK_MAX >= ENTRY_MAX);

/// Adds a value in postcard to `payload`; says whether there was room.
pub fn write<const N: usize, L: LenType>(value: &impl Serialize, payload: &mut heapless::Vec<u8, N, L>) -> bool {
    let mut room = [0; PAYLOAD_MAX];
    match postcard::to_slice(value, &mut room) {
        Ok(bytes) => payload.extend_from_slice(bytes).is_ok(),
        Err(_) => false,
    }
}
