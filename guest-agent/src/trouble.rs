//! Every reason for exit code 1, and the sentence for it. Each says what to do next.
//!
//! Of a power request that went out and was not answered the sentence says that it may have happened: nobody may take
//! exit code 1 for "not done".

use crate::options::{Key, name};
use crate::order::Order;
use crate::system::{Errno, System};
use crate::text::{Facts, say, texts};
use crate::texts::Text;
use fencewire_core::{BadName, Failure};

/// Why the agent ends with 1, where the bridge has no part in it: the sentence, and what is in it.
// No enum: moving one about takes several times the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trouble<'a> {
    sentence: Text,
    /// Somebody else's words.
    text: &'a [u8],
    key: Key,
    /// What to do, or what is wrong with it.
    remark: Text,
    errno: Errno,
}

/// How an exchange with the bridge failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The bridge said: not done, or not known to be done.
    Failed,
    /// It said so, and why.
    NotDone(Failure),
    /// The bridge said: not allowed.
    Denied,
    /// The bridge said that it cannot tell on from off.
    Unknown,
    /// No answer came.
    Lost(Errno),
    /// The other end went away before it had proved anything.
    Dropped,
    /// The other end does not hold the key.
    NotProved,
}

/// The sentence has been said; what is left to do is to end with 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told;

impl<'a> Trouble<'a> {
    /// A sentence about `text`.
    pub(crate) const fn about(sentence: Text, text: &'a [u8]) -> Trouble<'a> {
        Trouble { sentence, text, key: Key::Help, remark: Text::Nothing, errno: Errno(0) }
    }

    /// `value` cannot be that option's.
    pub(crate) fn value(key: Key, value: &'a [u8]) -> Trouble<'a> {
        let remark = match key {
            Key::Action => Text::GiveAction,
            Key::LineParams => Text::GiveLineParams,
            Key::Timeout => Text::GiveTimeout,
            Key::Delay => Text::GiveDelay,
            Key::Wire => Text::GiveWire,
            Key::IpAddress => Text::GiveAddress,
            Key::Hash | Key::Auth => Text::GiveHash,
            _ => Text::GivePort,
        };
        Trouble { key, remark, ..Trouble::about(Text::Value, value) }
    }

    /// Not in this version, or not on this wire.
    pub(crate) fn unserved(key: Key) -> Trouble<'a> {
        let remark = match key {
            Key::ChannelAddress | Key::Vsock => Text::UseDevice,
            Key::UseUuid => Text::UuidHasShape,
            _ => Text::NoMulticast,
        };
        Trouble { key, remark, ..Trouble::about(Text::Unserved, b"") }
    }

    /// Two ways to the host.
    pub(crate) fn two_ways(one: Key, other: Key) -> Trouble<'a> {
        Trouble { key: one, remark: name(other), ..Trouble::about(Text::TwoWays, b"") }
    }

    /// No guest can be asked for by that name.
    pub(crate) fn bad_name(name: &'a [u8], bad: BadName) -> Trouble<'a> {
        let remark = match bad {
            BadName::Empty => Text::NameEmpty,
            BadName::TooLong => Text::NameTooLong,
            BadName::NotUtf8 => Text::NameNotUtf8,
            BadName::Control | BadName::AfterNul => Text::NameControl,
            BadName::Magic => Text::NameMagic,
        };
        Trouble { remark, ..Trouble::about(Text::BadName, name) }
    }

    /// Standard input or output failed.
    pub(crate) fn stream(sentence: Text, errno: Errno) -> Trouble<'a> {
        Trouble { errno, ..Trouble::about(sentence, b"") }
    }

    /// The channel at this path cannot be used. [`Errno::TIMEDOUT`]: it never falls silent. [`Errno::PIPE`]: nobody has
    /// the other end.
    #[inline(never)]
    pub(crate) fn channel(path: &'a [u8], errno: Errno, by_tcp: bool) -> Trouble<'a> {
        let sentence = match errno {
            Errno::TIMEDOUT => Text::NeverQuiet,
            Errno::PIPE => Text::Nobody,
            _ => Text::Channel,
        };
        Trouble { remark: remedy(errno, by_tcp), errno, ..Trouble::about(sentence, path) }
    }

    /// The key's file is none.
    #[inline(never)]
    pub(crate) fn key(path: &'a [u8], errno: Errno) -> Trouble<'a> {
        Trouble { remark: Text::GiveKey, errno, ..Trouble::about(Text::Channel, path) }
    }

    /// Says the sentence.
    pub(crate) fn tell<S: System>(&self, system: &S) -> Told {
        let texts = texts(self.remark, name(self.key));
        let facts = Facts { a: self.text, texts, errno: self.errno, ..Facts::NONE };
        say(system, self.sentence, &facts);
        Told
    }
}

/// What to do about a way that does not lead to the bridge.
#[inline(never)]
fn remedy(errno: Errno, by_tcp: bool) -> Text {
    match errno {
        Errno::CONNREFUSED => Text::StartBridge,
        Errno::BUSY | Errno::AGAIN => Text::InUse,
        _ if by_tcp => Text::SeeNetwork,
        _ => Text::NameChannel,
    }
}

const fn reason(failure: Failure) -> Text {
    match failure {
        Failure::NotFound => Text::NotFound,
        Failure::Unreachable => Text::NoHypervisor,
        Failure::Unconfirmed => Text::Unconfirmed,
        Failure::Expired => Text::Expired,
        Failure::RequesterFenced => Text::AskerFenced,
        Failure::Elsewhere => Text::Elsewhere,
        Failure::NotStarted => Text::NotStarted,
        Failure::Busy => Text::TooMany,
        Failure::NotRecorded => Text::NotRecorded,
        Failure::Replaced => Text::Replaced,
        Failure::Ambiguous => Text::Ambiguous,
        Failure::Forbidden => Text::Forbidden,
    }
}

impl Broken {
    /// Says the sentence for it. `asked`: the whole request went out.
    #[inline(never)]
    pub(crate) fn tell<S: System>(self, system: &S, order: &Order<'_>, path: &[u8], asked: bool) -> Told {
        let for_guest = if order.guest.is_empty() { Text::Nothing } else { Text::ForGuest };
        let template = match self {
            Broken::Failed if order.guest.is_empty() => Text::Failed,
            Broken::Failed => Text::FailedOf,
            Broken::NotDone(_) => Text::NotDone,
            Broken::Denied => Text::Denied,
            Broken::Unknown => Text::Unknown,
            Broken::NotProved => Text::NotProved,
            Broken::Lost(_) | Broken::Dropped if !asked => Text::NotAsked,
            Broken::Dropped => Text::Dropped,
            Broken::Lost(_) if order.job.switches() => Text::PerhapsDone,
            Broken::Lost(_) => Text::NoAnswer,
        };
        let errno = if let Broken::Lost(errno) = self { errno } else { Errno::CONNRESET };
        let remedy = if order.by_tcp { remedy(errno, true) } else { Text::SeeBridge };
        let reason = if let Broken::NotDone(failure) = self { reason(failure) } else { Text::Nothing };
        let texts = [order.job.name(), for_guest, remedy, reason];
        say(system, template, &Facts { a: order.guest, b: path, texts, errno, ..Facts::NONE });
        Told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Given, OPTIONS};
    use crate::stand_in::StandIn;
    use fencewire_core::native::message::Reason;

    fn says(action: &str, broken: Broken, asked: bool) -> String {
        let system = StandIn::new();
        let lines = format!("plug=vm2\naction={action}");
        let mut given = Given::new();
        given.read_lines(lines.as_bytes());
        let mut order = Order::NEW;
        order.fill_in(&given).unwrap();
        broken.tell(&system, &order, b"/dev/x", asked);
        system.error()
    }

    #[test]
    fn a_power_request_that_went_out_may_have_happened() {
        for errno in [Errno::TIMEDOUT, Errno::BADF, Errno::IO] {
            let lost = Broken::Lost(errno);
            let sentence = says("off", lost, true);
            assert!(sentence.contains("off for 'vm2' may have happened or may still happen"), "{sentence}");
            assert!(says("off", lost, false).contains("nothing was done"));
            assert!(!says("status", lost, true).contains("happen"));
        }
        assert!(says("off", Broken::Failed, true).contains("take nothing for done"));
    }

    #[test]
    fn each_reason_of_the_bridge_has_a_sentence_of_its_own() {
        let mut said = Vec::new();
        for failure in Reason::ALL.map(Failure::from) {
            let sentence = says("off", Broken::NotDone(failure), true);
            let why = sentence.strip_prefix("fence_wire: the bridge did not confirm off for 'vm2': ");
            let why = why.and_then(|why| why.strip_suffix("; read its log\n")).expect("a whole sentence");
            assert!(why.len() > 10 && !said.contains(&why.to_owned()), "{failure:?}: {sentence}");
            said.push(why.to_owned());
        }
    }

    #[test]
    fn each_is_one_line_and_whole() {
        let long = &[b'x'; 300][..];
        let mut troubles = vec![
            Trouble::about(Text::NoOption, b"x"),
            Trouble::about(Text::NoValue, b"\n"),
            Trouble::about(Text::Operand, b""),
            Trouble::stream(Text::Input, Errno(9)),
            Trouble::about(Text::NothingGiven, b""),
            Trouble::about(Text::NoGuest, b""),
            Trouble::about(Text::Garbage, b""),
            Trouble::about(Text::TwoGuests, long),
            Trouble::two_ways(Key::Device, Key::Vsock),
            Trouble::about(Text::NoPort, b""),
            Trouble::stream(Text::Output, Errno(32)),
        ];
        let bad = [BadName::Empty, BadName::TooLong, BadName::NotUtf8, BadName::Control, BadName::Magic];
        troubles.extend(bad.map(|bad| Trouble::bad_name(long, bad)));
        for errno in [2, 5, 11, 16, 22, 32, 61, 77, 101, 104, 110, 111, 113, 129].map(Errno) {
            let [device, tcp] = [false, true].map(|by_tcp| Trouble::channel(long, errno, by_tcp));
            troubles.extend([device, tcp, Trouble::key(long, errno)]);
        }
        for known in OPTIONS.iter().filter(|known| known.name != Text::Nothing) {
            troubles.extend([Trouble::value(known.key, long), Trouble::unserved(known.key)]);
        }
        for trouble in troubles {
            let system = StandIn::new();
            trouble.tell(&system);
            let sentence = system.error();
            assert!(sentence.starts_with("fence_wire: ") && sentence.contains(": "), "{sentence}");
            assert!(!sentence.contains('%') && !sentence.contains("  "), "{sentence}");
            assert_eq!(sentence.find('\n'), Some(sentence.len() - 1), "{sentence}");
            assert!(sentence.len() < 350, "{sentence}");
        }
    }
}
