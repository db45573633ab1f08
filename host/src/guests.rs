//! Who is who: the configuration's names and the hypervisor's UUIDs.
//!
//! A name in the configuration is bound to the UUID that first bore it and stays bound: renaming a guest grants it
//! nothing, and a new guest under an old name is a new guest. A name in a *request* means the guest that bears it now.

use fencewire_core::{Target, Uuid};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

/// Who asks: what the channel says, or the key that was proved; never what the request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Requester {
    /// The guest at a channel's other end.
    Guest(Uuid),
    /// Somebody who holds a key. Which guest that is, if it is one, nobody knows.
    Holder(HolderId),
}

/// A holder of one channel's key at one address: the same one after a restart of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HolderId([u8; 16]);

/// What a holder's text begins with.
const HOLDER: &str = "key-";

impl Requester {
    /// A holder of the key of that channel, at that address.
    pub fn holder(channel: &str, address: IpAddr) -> Requester {
        let digest: [u8; 32] = Sha256::digest(format!("{channel} {address}")).into();
        Requester::Holder(HolderId(*digest.first_chunk().unwrap_or(&[0; 16])))
    }

    /// The guest, where it is known to be one.
    pub const fn guest(self) -> Option<Uuid> {
        match self {
            Requester::Guest(uuid) => Some(uuid),
            Requester::Holder(_) => None,
        }
    }

    /// Whether it is that guest, for all that is known.
    pub fn is(self, guest: Uuid) -> bool {
        self.guest() == Some(guest)
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Requester> {
        match text.strip_prefix(HOLDER) {
            None => Uuid::parse(text.as_bytes()).map(Requester::Guest),
            Some(digits) if digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
                let number = u128::from_str_radix(digits, 16).ok()?;
                Some(Requester::Holder(HolderId(number.to_be_bytes())))
            }
            Some(_) => None,
        }
    }
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Requester::Guest(uuid) => fmt::Display::fmt(uuid, f),
            Requester::Holder(HolderId(bytes)) => write!(f, "{HOLDER}{:032x}", u128::from_be_bytes(*bytes)),
        }
    }
}

/// A guest as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Member {
    /// By a libvirt domain's name, of any length.
    Name(String),
    /// By UUID. Text of a UUID's shape is always one.
    Uuid(Uuid),
}

impl Member {
    /// Reads a name or a UUID's text.
    pub fn parse(text: &str) -> Member {
        Uuid::parse(text.as_bytes()).map_or_else(|| Member::Name(text.to_owned()), Member::Uuid)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Name(name) => f.write_str(name),
            Member::Uuid(uuid) => fmt::Display::fmt(uuid, f),
        }
    }
}

/// What is known of who is who.
#[derive(Debug, Default)]
pub struct Roster {
    /// The configuration's names, each with its UUID once one was seen.
    bound: HashMap<String, Option<Uuid>>,
    /// The names that guests bore when the hypervisors were last asked; none for one that two bore.
    now: HashMap<String, Option<Uuid>>,
    names: HashMap<Uuid, String>,
    /// Names are to be bound anew.
    is_anew: bool,
    /// Names of the configuration that were found to be borne by two.
    ambiguous: HashSet<String>,
}

/// What [`Roster::learn`] changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The configuration's names that were bound, and to whom.
    pub bound: Vec<(String, Uuid)>,
    /// Names of the configuration's that two guests bear. Said once for each.
    pub ambiguous: Vec<String>,
    /// A name of the configuration's is not bound any more.
    pub unbound: bool,
}

impl Roster {
    /// For the guests that a configuration names.
    pub fn new<'a>(members: impl Iterator<Item = &'a Member>) -> Roster {
        let names = members.filter_map(|member| match member {
            Member::Name(name) => Some((name.clone(), None)),
            Member::Uuid(_) => None,
        });
        Roster { bound: names.collect(), ..Roster::default() }
    }

    /// For the guests that a configuration names that has taken this one's place. Its names are bound anew when the
    /// hypervisors have said who is who; until then those that both have stay bound.
    #[must_use]
    pub fn anew<'a>(&self, members: impl Iterator<Item = &'a Member>) -> Roster {
        let mut roster = Roster::new(members);
        for (name, uuid) in &mut roster.bound {
            *uuid = self.bound.get(name).copied().flatten();
        }
        roster.is_anew = true;
        roster.now.clone_from(&self.now);
        roster.names.clone_from(&self.names);
        roster
    }

    /// Takes over what the hypervisors say. `is_complete`: all of them have said it.
    pub fn learn(&mut self, guests: impl IntoIterator<Item = (Uuid, String)>, is_complete: bool) -> Learned {
        self.names = guests.into_iter().collect();
        self.now.clear();
        for (uuid, name) in &self.names {
            // Two that bear the same name are none that is meant by it.
            let bearer = self.now.entry(name.clone()).or_insert(Some(*uuid));
            *bearer = bearer.filter(|bearer| bearer == uuid);
        }
        let is_anew = self.is_anew && is_complete;
        self.is_anew &= !is_complete;
        let mut learned = Learned::default();
        for (name, bound) in &mut self.bound {
            let found = self.now.get(name);
            if found == Some(&None) && bound.is_none() && self.ambiguous.insert(name.clone()) {
                learned.ambiguous.push(name.clone());
            }
            let found = found.copied().flatten();
            if *bound != found && (bound.is_none() || is_anew) {
                *bound = found;
                learned.bound.extend(found.map(|found| (name.clone(), found)));
                learned.unbound |= found.is_none();
            }
        }
        learned
    }

    /// Whom the configuration means.
    pub fn member(&self, member: &Member) -> Option<Uuid> {
        match member {
            Member::Uuid(uuid) => Some(*uuid),
            Member::Name(name) => self.bound.get(name).copied().flatten(),
        }
    }

    /// Whom a request means, as far as known.
    pub fn target(&self, target: &Target) -> Option<Uuid> {
        match target {
            Target::Uuid(uuid) => Some(*uuid),
            Target::Name(name) => self.now.get(name.as_str()).copied().flatten(),
        }
    }

    /// The name that a guest bore when the hypervisor was last asked.
    pub fn name(&self, uuid: Uuid) -> Option<&str> {
        self.names.get(&uuid).map(String::as_str)
    }

    /// Whether nothing was learned yet.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The configuration's names that no guest has borne yet.
    pub fn unbound(&self) -> impl Iterator<Item = &str> {
        self.bound.iter().filter(|(_, uuid)| uuid.is_none()).map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_bytes([0xa; 16]);
    const B: Uuid = Uuid::from_bytes([0xb; 16]);

    fn target(name: &str) -> Target {
        Target::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn a_name_stays_bound_to_the_guest_that_first_bore_it() {
        let vm = Member::parse("vm");
        let mut roster = Roster::new([vm.clone()].iter());
        assert_eq!(roster.member(&vm), None);
        roster.learn([(A, "vm".to_owned())], true);
        // A was renamed, and a new guest took its name.
        roster.learn([(A, "old".to_owned()), (B, "vm".to_owned())], true);
        assert_eq!(roster.member(&vm), Some(A), "the new guest is not who the configuration means");
        assert_eq!(roster.target(&target("vm")), Some(B), "a request means the guest that bears the name now");
        assert_eq!(roster.target(&target("old")), Some(A));
    }

    #[test]
    fn a_new_configuration_binds_its_names_anew_once_all_is_known() {
        let vm = Member::parse("vm");
        let mut roster = Roster::new([vm.clone()].iter());
        roster.learn([(A, "vm".to_owned())], true);
        let mut anew = roster.anew([vm.clone(), Member::parse("other")].iter());
        assert_eq!(anew.member(&vm), Some(A), "until all is known, as before");
        anew.learn([(B, "vm".to_owned())], false);
        assert_eq!(anew.member(&vm), Some(A));
        assert_eq!(anew.learn([(B, "vm".to_owned())], true).bound, [("vm".to_owned(), B)]);
        assert_eq!(anew.member(&vm), Some(B));
        anew.learn([(A, "vm".to_owned())], true);
        assert_eq!(anew.member(&vm), Some(B), "once");
        let mut gone = anew.anew([vm.clone()].iter());
        assert!(gone.learn([], true).unbound);
        assert_eq!(gone.member(&vm), None);
    }

    #[test]
    fn a_name_that_two_bear_means_neither() {
        let vm = Member::parse("vm");
        let mut roster = Roster::new([vm.clone()].iter());
        let two = || [(A, "vm".to_owned()), (B, "vm".to_owned())];
        assert_eq!(roster.learn(two(), true).ambiguous, ["vm"]);
        assert_eq!(roster.learn(two(), true).ambiguous, [] as [&str; 0], "said once");
        assert_eq!((roster.member(&vm), roster.target(&target("vm"))), (None, None));
        roster.learn([(B, "vm".to_owned())], true);
        assert_eq!(roster.member(&vm), Some(B));
    }

    #[test]
    fn a_requester_is_read_as_it_is_written() {
        let holder = |channel, address: [u8; 4]| Requester::holder(channel, address.into());
        let known = holder("a", [127, 0, 0, 1]);
        for requester in [Requester::Guest(A), known] {
            assert_eq!(Requester::parse(&requester.to_string()), Some(requester));
        }
        assert_ne!(known, holder("b", [127, 0, 0, 1]));
        assert_ne!(known, holder("a", [127, 0, 0, 2]));
        for text in ["", "vm", "key-", "key-+0000000000000000000000000000000", "key-00"] {
            assert_eq!(Requester::parse(text), None, "{text}");
        }
    }

    #[test]
    fn text_of_a_uuids_shape_is_never_a_name() {
        let text = A.to_string();
        let roster = {
            let mut roster = Roster::default();
            roster.learn([(B, text.clone())], true);
            roster
        };
        assert_eq!(roster.target(&target(&text)), Some(A));
        assert_eq!(Member::parse(&text), Member::Uuid(A));
    }
}
