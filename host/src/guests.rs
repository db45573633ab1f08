//! Who is who: the configuration's names and the hypervisor's UUIDs.
//!
//! A name in the configuration is bound to the UUID that first bore it and stays bound: renaming a guest grants it
//! nothing, and a new guest under an old name is a new guest. A name in a *request* means the guest that bears it now.

use fencewire_core::{Target, Uuid};
use std::collections::HashMap;
use std::fmt;

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
    /// The names that guests bore when the hypervisor was last asked.
    now: HashMap<String, Uuid>,
    names: HashMap<Uuid, String>,
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

    /// Takes over what the hypervisor says. Gives the configuration's names that were bound by it.
    pub fn learn(&mut self, guests: impl Iterator<Item = (Uuid, String)>) -> Vec<(String, Uuid)> {
        self.names = guests.collect();
        self.now = self.names.iter().map(|(uuid, name)| (name.clone(), *uuid)).collect();
        let mut new = Vec::new();
        for (name, uuid) in &mut self.bound {
            if uuid.is_none()
                && let Some(found) = self.now.get(name)
            {
                *uuid = Some(*found);
                new.push((name.clone(), *found));
            }
        }
        new
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
            Target::Name(name) => self.now.get(name.as_str()).copied(),
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
        roster.learn([(A, "vm".to_owned())].into_iter());
        // A was renamed, and a new guest took its name.
        roster.learn([(A, "old".to_owned()), (B, "vm".to_owned())].into_iter());
        assert_eq!(roster.member(&vm), Some(A), "the new guest is not who the configuration means");
        assert_eq!(roster.target(&target("vm")), Some(B), "a request means the guest that bears the name now");
        assert_eq!(roster.target(&target("old")), Some(A));
    }

    #[test]
    fn text_of_a_uuids_shape_is_never_a_name() {
        let text = A.to_string();
        let roster = {
            let mut roster = Roster::default();
            roster.learn([(B, text.clone())].into_iter());
            roster
        };
        assert_eq!(roster.target(&target(&text)), Some(A));
        assert_eq!(Member::parse(&text), Member::Uuid(A));
    }
}
