//! What must never happen, and what happened so far as far as that asks for it.

use super::hypervisor::Hypervisor;
use fencewire_core::{Ask, Incarnation, Millis, Power, PowerAction};
use std::collections::{HashMap, HashSet};

/// A rule that did not hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Rule 1: "done", and the target was not in that state since it was asked.
    FalseSuccess(Ask),
    FalseStatus(Power),
    /// A guest that is there all the time is not on the list once, or the order is wrong.
    BadList(Vec<u8>),
    /// Rule 2: nobody asked for that.
    ActedUnasked(Ask),
    ActedLate(Ask),
    /// Rule 3.
    ActedTwice(Ask),
    AnotherRun(Ask),
    /// One frame was a request more than once.
    HandedOutTwice(u64),
    /// Rule 4: what is allowed is not done in its time though all is well.
    NotCompleted(String),
    Livelock,
    /// Rule 5.
    NotAllowed(Ask),
    FencedFences(usize),
    /// Events and answers contradict each other.
    Contradiction(&'static str),
}

/// A request as it was meant.
#[derive(Clone, Debug)]
pub(crate) struct Meant {
    pub(crate) ask: Ask,
    pub(crate) at: Millis,
    pub(crate) deadline: Millis,
    pub(crate) guard: Option<Incarnation>,
}

/// A guest's own mark on its request.
pub(crate) type Name = (usize, u64);

#[derive(Default)]
pub(crate) struct Record {
    meant: HashMap<Name, Meant>,
    /// Frames that asked it, and how often it was handed out.
    copies: HashMap<Name, u64>,
    handed: HashMap<Name, u64>,
    /// Begun by the bridge that runs now.
    begun: HashSet<Name>,
    stopped: HashMap<Name, Incarnation>,
}

impl Record {
    pub(crate) fn means(&mut self, name: Name, meant: Meant) {
        self.meant.insert(name, meant);
    }

    pub(crate) fn sends_a_copy(&mut self, name: Name) {
        *self.copies.entry(name).or_default() += 1;
    }

    /// Its time is up: from there on the same name is another request's.
    #[allow(dead_code, reason = "only who makes requests by hand uses a name twice")]
    pub(crate) fn forgets(&mut self, name: Name) {
        self.begun.remove(&name);
        self.stopped.remove(&name);
    }

    pub(crate) fn bridge_was_killed(&mut self) {
        self.begun.clear();
    }

    pub(crate) fn handed_out(&mut self, name: Name) -> Result<(), Broken> {
        let times = self.handed.entry(name).or_default();
        *times += 1;
        let copies = self.copies.get(&name).copied();
        if copies.is_some_and(|copies| *times > copies) { Err(Broken::HandedOutTwice(name.1)) } else { Ok(()) }
    }

    /// The bridge begins to act.
    pub(crate) fn begins(&mut self, name: Name, ask: &Ask, allowed: bool, now: Millis) -> Result<(), Broken> {
        let meant = self.meant.get(&name).filter(|meant| meant.ask == *ask);
        let Some(meant) = meant else { return Err(Broken::ActedUnasked(ask.clone())) };
        if !allowed {
            return Err(Broken::NotAllowed(ask.clone()));
        }
        if now >= meant.deadline {
            return Err(Broken::ActedLate(ask.clone()));
        }
        if !self.begun.insert(name) {
            return Err(Broken::ActedTwice(ask.clone()));
        }
        Ok(())
    }

    /// It has put a guest off.
    pub(crate) fn stopped(&mut self, name: Name, run: Incarnation, now: Millis) -> Result<(), Broken> {
        let Some(meant) = self.meant.get(&name) else { return Ok(()) };
        if now >= meant.deadline {
            return Err(Broken::ActedLate(meant.ask.clone()));
        }
        if meant.guard.is_some_and(|guard| guard != run) {
            return Err(Broken::AnotherRun(meant.ask.clone()));
        }
        if self.stopped.insert(name, run).is_some() {
            return Err(Broken::ActedTwice(meant.ask.clone()));
        }
        Ok(())
    }

    /// An asker was told "done".
    pub(crate) fn succeeded(&self, name: Name, target: usize, machines: &Hypervisor) -> Result<(), Broken> {
        let Some(meant) = self.meant.get(&name) else { return Ok(()) };
        let power = match &meant.ask {
            Ask::Power(PowerAction::On, _) => Power::On,
            Ask::Power(..) => Power::Off,
            _ => return Ok(()),
        };
        let is_true = machines.was(target, power, meant.at);
        if is_true { Ok(()) } else { Err(Broken::FalseSuccess(meant.ask.clone())) }
    }
}
