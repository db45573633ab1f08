//! Who may do what to whom. The default is no.
//!
//! The only place that makes an [`Allowed`]; without one there is no power action.

use crate::channels::PortType;
use crate::guests::{HolderId, Member, Requester, Roster};
use fencewire_core::{PowerAction, Uuid};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// `[[group]]`: its members may do to one another what `actions` says.
#[derive(Debug, Clone)]
pub struct Group {
    /// For people.
    pub name: String,
    /// Who is in it.
    pub members: Vec<Member>,
    /// What they may do.
    pub actions: Actions,
    /// Whether a member may change its own power.
    pub allow_self: bool,
    /// Destroys that one member may cause in a minute.
    pub budget_per_minute: usize,
    /// Whether members may ask over the classic wire.
    pub classic: bool,
}

/// A set of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actions(u8);

impl Actions {
    /// None.
    pub const NONE: Actions = Actions(0);
    /// off, on, reboot and status.
    pub const ALL: Actions = Actions(0b1111);

    /// Adds one by its name in the configuration. Says false where there is no such.
    pub fn add(&mut self, name: &str) -> bool {
        let bit = match name {
            "off" => Self::bit(Some(PowerAction::Off)),
            "on" => Self::bit(Some(PowerAction::On)),
            "reboot" => Self::bit(Some(PowerAction::Reboot)),
            "status" => Self::bit(None),
            _ => return false,
        };
        self.0 |= bit;
        true
    }

    /// Whether it is in; none stands for status.
    pub const fn has(self, action: Option<PowerAction>) -> bool {
        self.0 & Self::bit(action) != 0
    }

    const fn bit(action: Option<PowerAction>) -> u8 {
        match action {
            None => 0b0001,
            Some(PowerAction::Off) => 0b0010,
            Some(PowerAction::On) => 0b0100,
            Some(PowerAction::Reboot) => 0b1000,
        }
    }
}

/// Who asks, with what the policy has to know of how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By<'a> {
    /// A guest.
    Guest(Uuid, Via),
    /// A holder of the key that lets it target that group.
    Holder(HolderId, &'a str),
}

/// How a guest asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Over fence-virt's wire, by a channel of that type.
    Classic(PortType),
    /// Over our own.
    Native,
}

impl By<'_> {
    /// Who that is.
    pub const fn requester(self) -> Requester {
        match self {
            By::Guest(uuid, _) => Requester::Guest(uuid),
            By::Holder(holder, _) => Requester::Holder(holder),
        }
    }

    fn is(self, guest: Uuid) -> bool {
        self.requester().is(guest)
    }
}

/// Proof that a requester may do this to that target.
#[derive(Debug)]
pub struct Allowed {
    requester: Requester,
    target: Uuid,
    action: PowerAction,
    budget_per_minute: usize,
}

impl Allowed {
    /// Who asked.
    pub const fn requester(&self) -> Requester {
        self.requester
    }

    /// Whom it is done to.
    pub const fn target(&self) -> Uuid {
        self.target
    }

    /// What is done.
    pub const fn action(&self) -> PowerAction {
        self.action
    }

    /// Destroys that the requester may cause in a minute.
    pub const fn budget_per_minute(&self) -> usize {
        self.budget_per_minute
    }
}

/// Why not. Displays as a sentence for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// No hypervisor knows the guest that the channel is for.
    UnknownRequester,
    /// The requester is in no group that may use its wire, or the key's group may not.
    NoGroup,
    /// No group has both in it, or none knows the target.
    NotTogether,
    /// The group that has both does not have this action.
    Action,
    /// A guest's own power, without `allow_self`.
    Itself,
    /// Power over the classic wire on a virtio port, without `classic_virtio`.
    ClassicVirtio,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denied::UnknownRequester => "the hypervisor knows no guest of the channel's name: see channel.guest",
            Denied::NoGroup => {
                "the guest is in no group that may use this wire (fence-virt's takes classic = true), or the key's may not"
            }
            Denied::NotTogether => "no group has both guests, or there is no such guest",
            Denied::Action => "the group's actions do not have this one",
            Denied::Itself => "a guest may not change its own power without allow_self = true",
            Denied::ClassicVirtio => {
                "a virtio port cannot be flushed, so old bytes could fence: power over the classic wire needs \
                 wire.classic_virtio = true there"
            }
        })
    }
}

/// The groups, and who is in them as far as the hypervisor knows these guests.
#[derive(Debug)]
pub struct Policy {
    groups: Vec<(Group, HashSet<Uuid>)>,
    /// The groups of each guest, by their place in `groups`.
    of: HashMap<Uuid, Vec<usize>>,
    classic_virtio: bool,
}

impl Policy {
    /// From a checked configuration. Of its members, those are known that it names by UUID.
    pub fn new(groups: Vec<Group>, classic_virtio: bool) -> Policy {
        let groups = groups.into_iter().map(|group| (group, HashSet::new())).collect();
        let mut policy = Policy { groups, of: HashMap::new(), classic_virtio };
        policy.bind(&Roster::default());
        policy
    }

    /// Takes over who is who. To be called when a name of the configuration was bound to a guest.
    pub fn bind(&mut self, roster: &Roster) {
        self.of.clear();
        for (at, (group, bound)) in self.groups.iter_mut().enumerate() {
            *bound = group.members.iter().filter_map(|member| roster.member(member)).collect();
            for guest in bound.iter() {
                self.of.entry(*guest).or_default().push(at);
            }
        }
    }

    /// May whoever asks do this to `target`?
    pub fn power(&self, by: By<'_>, action: PowerAction, target: Option<Uuid>) -> Result<Allowed, Denied> {
        if matches!(by, By::Guest(_, Via::Classic(PortType::Virtio))) && !self.classic_virtio {
            return Err(Denied::ClassicVirtio);
        }
        let target = target.ok_or(Denied::NotTogether)?;
        let granting = self.granting(by, target, Some(action))?;
        let granting = granting.filter(|group| !by.is(target) || group.allow_self);
        let budget_per_minute = granting.map(|group| group.budget_per_minute).max().ok_or(Denied::Itself)?;
        Ok(Allowed { requester: by.requester(), target, action, budget_per_minute })
    }

    /// Whether fence-virt's wire may change power on a virtio port.
    pub const fn lets_classic_virtio_fence(&self) -> bool {
        self.classic_virtio
    }

    /// May whoever asks have the status of `target`?
    pub fn status(&self, by: By<'_>, target: Option<Uuid>) -> Result<Uuid, Denied> {
        let target = target.ok_or(Denied::NotTogether)?;
        let _granting = self.granting(by, target, None)?;
        Ok(target)
    }

    /// May whoever asks know whether anybody is there, and whom it may fence?
    pub fn greet(&self, by: By<'_>) -> Result<(), Denied> {
        self.of(by).next().map(|_| ()).ok_or(Denied::NoGroup)
    }

    /// Whether `target` belongs on the list of whom whoever asks may fence.
    pub fn lists(&self, by: By<'_>, target: Uuid) -> bool {
        self.together(by, target).any(|group| {
            let fences = group.actions.has(Some(PowerAction::Off)) || group.actions.has(Some(PowerAction::Reboot));
            fences && (!by.is(target) || group.allow_self)
        })
    }

    /// Whether a group has that guest.
    pub fn has(&self, guest: Uuid) -> bool {
        self.groups.iter().any(|(_, bound)| bound.contains(&guest))
    }

    /// Every guest that the groups name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.groups.iter().flat_map(|(group, _)| &group.members)
    }

    /// The groups, one at least, that let whoever asks do that to `target`, itself included.
    fn granting<'a>(
        &'a self,
        by: By<'a>,
        target: Uuid,
        action: Option<PowerAction>,
    ) -> Result<impl Iterator<Item = &'a Group>, Denied> {
        self.greet(by)?;
        self.together(by, target).next().ok_or(Denied::NotTogether)?;
        let granting = move || self.together(by, target).filter(move |group| group.actions.has(action));
        granting().next().ok_or(Denied::Action)?;
        Ok(granting())
    }

    /// The groups that have `target` and that whoever asks may use.
    fn together<'a>(&'a self, by: By<'a>, target: Uuid) -> impl Iterator<Item = &'a Group> {
        self.of(by).filter(move |(_, bound)| bound.contains(&target)).map(|(group, _)| group)
    }

    /// The groups that whoever asks may use over its wire: those that a guest is in, or the key's.
    fn of<'a>(&'a self, by: By<'a>) -> impl Iterator<Item = &'a (Group, HashSet<Uuid>)> {
        let (guests, keys, native) = match by {
            By::Guest(guest, via) => (self.of.get(&guest), None, via == Via::Native),
            By::Holder(_, group) => (None, Some(group), false),
        };
        let guests = guests.into_iter().flatten().filter_map(|at| self.groups.get(*at));
        let guests = guests.filter(move |(group, _)| native || group.classic);
        let is_keys = move |group: &Group| keys.is_some_and(|name| group.name == name && group.classic);
        let keys = keys.is_some().then(|| self.groups.iter().filter(move |(group, _)| is_keys(group)));
        guests.chain(keys.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_bytes([0xa; 16]);
    const B: Uuid = Uuid::from_bytes([0xb; 16]);
    const C: Uuid = Uuid::from_bytes([0xc; 16]);
    const OFF: PowerAction = PowerAction::Off;
    const BY_A: By<'static> = By::Guest(A, Via::Classic(PortType::Serial));

    fn group(members: &[Uuid]) -> Group {
        Group {
            name: "g".to_owned(),
            members: members.iter().copied().map(Member::Uuid).collect(),
            actions: Actions::ALL,
            allow_self: false,
            budget_per_minute: 30,
            classic: true,
        }
    }

    fn ask(groups: Vec<Group>, action: PowerAction, target: Uuid) -> Result<Uuid, Denied> {
        let policy = Policy::new(groups, false);
        policy.power(BY_A, action, Some(target)).map(|allowed| allowed.target())
    }

    #[test]
    fn members_of_one_group_may_and_nobody_else() {
        assert_eq!(ask(vec![group(&[A, B])], OFF, B), Ok(B));
        assert_eq!(ask(vec![group(&[A, B]), group(&[B, C])], OFF, C), Err(Denied::NotTogether));
        assert_eq!(ask(vec![group(&[B, C])], OFF, B), Err(Denied::NoGroup));
        assert_eq!(ask(vec![], OFF, B), Err(Denied::NoGroup));
    }

    #[test]
    fn a_group_is_narrowed_by_its_actions_and_another_one_may_widen_it() {
        let mut narrow = group(&[A, B]);
        narrow.actions = Actions::NONE;
        assert!(narrow.actions.add("reboot"));
        assert_eq!(ask(vec![narrow.clone()], OFF, B), Err(Denied::Action));
        assert_eq!(ask(vec![narrow.clone()], PowerAction::Reboot, B), Ok(B));
        assert_eq!(ask(vec![narrow, group(&[A, B])], OFF, B), Ok(B));
    }

    #[test]
    fn an_action_has_its_name_and_no_other() {
        use PowerAction::{Off, On, Reboot};
        for (name, named) in [("off", Some(Off)), ("on", Some(On)), ("reboot", Some(Reboot)), ("status", None)] {
            let mut actions = Actions::NONE;
            assert!(actions.add(name), "{name}");
            for action in [Some(Off), Some(On), Some(Reboot), None] {
                assert_eq!(actions.has(action), action == named, "{name}: {action:?}");
            }
        }
        for name in ["Off", "monitor", "list", ""] {
            let mut actions = Actions::NONE;
            assert!(!actions.add(name) && actions == Actions::NONE, "{name}");
        }
    }

    #[test]
    fn a_guest_fences_itself_only_with_allow_self() {
        let mut own = group(&[A, B]);
        assert_eq!(ask(vec![own.clone()], OFF, A), Err(Denied::Itself));
        own.allow_self = true;
        assert_eq!(ask(vec![own], OFF, A), Ok(A));
    }

    #[test]
    fn without_classic_nothing_is_asked_over_the_classic_wire() {
        let mut off = group(&[A, B]);
        off.classic = false;
        assert_eq!(ask(vec![off.clone()], OFF, B), Err(Denied::NoGroup));
        let policy = Policy::new(vec![off], true);
        assert!(!policy.lists(BY_A, B));
        assert!(policy.power(By::Guest(A, Via::Native), OFF, Some(B)).is_ok(), "and over our own all the same");
    }

    #[test]
    fn on_a_virtio_port_power_needs_the_operators_word() {
        for (word, expected) in [(false, Some(Denied::ClassicVirtio)), (true, None)] {
            let policy = Policy::new(vec![group(&[A, B])], word);
            let by = By::Guest(A, Via::Classic(PortType::Virtio));
            let asked = policy.power(by, OFF, Some(B));
            assert_eq!(asked.err(), expected);
            assert_eq!(policy.status(by, Some(B)), Ok(B));
            assert_eq!(policy.lets_classic_virtio_fence(), word);
        }
    }

    #[test]
    fn who_holds_a_groups_key_may_target_that_group_and_no_other() {
        let Requester::Holder(holder) = Requester::holder("tcp", [127, 0, 0, 1].into()) else { panic!("a holder") };
        let mut other = group(&[B, C]);
        other.name = "other".to_owned();
        let policy = Policy::new(vec![group(&[A, B]), other.clone()], false);
        let by = By::Holder(holder, "g");
        let asked = |by, target| policy.power(by, OFF, Some(target)).map(|allowed| allowed.requester());
        assert_eq!(asked(by, B), Ok(Requester::Holder(holder)));
        assert_eq!(asked(by, C), Err(Denied::NotTogether));
        assert_eq!(asked(By::Holder(holder, "none"), B), Err(Denied::NoGroup));
        assert!(policy.lists(by, A) && !policy.lists(by, C));
        other.classic = false;
        assert_eq!(Policy::new(vec![other], false).greet(By::Holder(holder, "other")), Err(Denied::NoGroup));
    }

    #[test]
    fn a_list_shows_only_whom_one_may_fence() {
        let policy = Policy::new(vec![group(&[A, B])], false);
        let shown = |target| policy.lists(BY_A, target);
        assert_eq!([shown(A), shown(B), shown(C)], [false, true, false]);
        for (name, is_shown) in [("off", true), ("reboot", true), ("on", false), ("status", false)] {
            let mut narrow = group(&[A, B]);
            narrow.actions = Actions::NONE;
            assert!(narrow.actions.add(name));
            assert_eq!(Policy::new(vec![narrow], false).lists(BY_A, B), is_shown, "{name}");
        }
    }
}
