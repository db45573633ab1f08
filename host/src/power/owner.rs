//! Which of several hypervisors a guest is on, by what each of them says. Where there is only one, nobody asks.
//!
//! | what they say | what that means |
//! |---|---|
//! | active on one | it is there, whatever the others say or do not say |
//! | active on two | nobody knows which of them it is: nothing is done |
//! | active nowhere, all have answered | it is off |
//! | active nowhere, one is silent | unknown: it may run there |
//!
//! A definition that is not active says nothing against one that is. "Migrated" says that it is not here; so it is off
//! where every other hypervisor says that it is not there either.

use super::hypervisor::{Hypervisor, HypervisorError, Sighting, State};
use super::workers::Pool;
use crate::clock;
use fencewire_core::{Millis, Uuid};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

/// What one hypervisor says of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It has a process there, or may have one.
    Active,
    /// It is defined there and not active.
    Inactive {
        /// It went from there to another hypervisor.
        migrated: bool,
        /// A managed-save image of it waits to be resumed.
        saved: bool,
    },
    /// There is no such guest.
    NotThere,
    /// It does not say.
    Silent,
}

impl From<State> for Said {
    fn from(state: State) -> Said {
        match state {
            State::Running | State::Paused | State::Underway | State::Migrating | State::Crashed | State::NoState => {
                Said::Active
            }
            State::Off => Said::Inactive { migrated: false, saved: false },
            State::OffMigrated => Said::Inactive { migrated: true, saved: false },
        }
    }
}

impl From<&Result<Sighting, HypervisorError>> for Said {
    fn from(looked: &Result<Sighting, HypervisorError>) -> Said {
        match looked {
            Ok(sighting) => match Said::from(sighting.state) {
                Said::Inactive { migrated, .. } => Said::Inactive { migrated, saved: sighting.saved },
                said => said,
            },
            Err(why) => Said::from(why),
        }
    }
}

impl From<&HypervisorError> for Said {
    fn from(why: &HypervisorError) -> Said {
        match why {
            HypervisorError::NoSuchGuest => Said::NotThere,
            HypervisorError::Unreachable(_) | HypervisorError::Failed(_) => Said::Silent,
        }
    }
}

/// Where a guest is. The numbers are the hypervisors', in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Active there, and nowhere else that is known.
    On(usize),
    /// Active nowhere; what is to be done with it is done there.
    Off(usize),
    /// Active on more than one.
    Twice,
    /// Off, and with a saved image on more than one: which is to be resumed, and which removed, nobody knows.
    SavedTwice,
    /// Active nowhere that is known, and one does not say.
    Silent,
    /// None knows it.
    Nowhere,
}

/// Where a guest is, by what each says.
pub fn owner(said: &[Said]) -> Owner {
    let at = |is: &dyn Fn(Said) -> bool| said.iter().position(|said| is(*said));
    let count = |is: &dyn Fn(Said) -> bool| said.iter().filter(|said| is(**said)).count();
    let is_saved = |said| matches!(said, Said::Inactive { saved: true, .. });
    match count(&|said| said == Said::Active) {
        0 => {}
        1 => return at(&|said| said == Said::Active).map_or(Owner::Nowhere, Owner::On),
        _ => return Owner::Twice,
    }
    if said.contains(&Said::Silent) {
        return Owner::Silent;
    }
    if count(&is_saved) > 1 {
        return Owner::SavedTwice;
    }
    // Its image has to go; else it is at home where it was last.
    at(&is_saved)
        .or_else(|| at(&|said| matches!(said, Said::Inactive { migrated: false, .. })))
        .or_else(|| at(&|said| matches!(said, Said::Inactive { .. })))
        .map_or(Owner::Nowhere, Owner::Off)
}

/// The other hypervisors, for an action that is carried out on one.
#[derive(Debug, Clone, Default)]
pub struct Others(Vec<Arc<Pool>>);

impl Others {
    /// These.
    pub const fn new(pools: Vec<Arc<Pool>>) -> Others {
        Others(pools)
    }

    /// None: the hypervisor is the only one.
    pub const NONE: Others = Others(Vec::new());

    /// Whether there is no other.
    pub const fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there are any, and each of them says before `until` that the guest is not active there. Blocks.
    pub fn say_not_active(&self, guest: Uuid, until: Millis) -> bool {
        !self.are_none() && self.ask(guest, until).is_some_and(|said| said.iter().all(|said| is_not_active(*said)))
    }

    /// Whether one of them has the guest active, or does not say before `until`. Blocks.
    pub fn may_have(&self, guest: Uuid, until: Millis) -> bool {
        self.ask(guest, until).is_none_or(|said| said.iter().any(|said| !is_not_active(*said)))
    }

    /// What each says; none where one does not say in time.
    fn ask(&self, guest: Uuid, until: Millis) -> Option<Vec<Said>> {
        let (say, hear) = mpsc::channel();
        for pool in &self.0 {
            let say = say.clone();
            let look = move |hypervisor: Result<&dyn Hypervisor, HypervisorError>| {
                let state = hypervisor.and_then(|hypervisor| hypervisor.state(guest));
                // Whoever asked may have given up.
                let _ = say.send(state.map_or_else(|why| Said::from(&why), |guest| Said::from(guest.state)));
            };
            pool.give(None, Box::new(look));
        }
        let wait = || Duration::from_millis(until.since(clock::now()).0);
        self.0.iter().map(|_| hear.recv_timeout(wait()).ok()).collect()
    }
}

fn is_not_active(said: Said) -> bool {
    matches!(said, Said::Inactive { .. } | Said::NotThere)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: Said = Said::Inactive { migrated: false, saved: false };
    const SAVED: Said = Said::Inactive { migrated: false, saved: true };
    const MIGRATED: Said = Said::Inactive { migrated: true, saved: false };
    const ON: Said = Said::Active;
    const NONE: Said = Said::NotThere;
    const SILENT: Said = Said::Silent;

    #[test]
    fn where_a_guest_is() {
        for (said, expected) in [
            (&[ON, OFF][..], Owner::On(0)),
            (&[OFF, ON], Owner::On(1)),
            (&[SILENT, ON], Owner::On(1)),
            (&[NONE, SAVED, ON], Owner::On(2)),
            (&[MIGRATED, ON], Owner::On(1)),
            (&[ON, ON], Owner::Twice),
            (&[ON, SILENT, ON], Owner::Twice),
            (&[OFF, NONE], Owner::Off(0)),
            (&[NONE, OFF], Owner::Off(1)),
            (&[OFF, SAVED], Owner::Off(1)),
            (&[SAVED, SAVED], Owner::SavedTwice),
            (&[MIGRATED, OFF], Owner::Off(1)),
            (&[MIGRATED, NONE], Owner::Off(0)),
            (&[OFF, SILENT], Owner::Silent),
            (&[NONE, SILENT], Owner::Silent),
            (&[MIGRATED, SILENT], Owner::Silent),
            (&[NONE, NONE], Owner::Nowhere),
        ] {
            assert_eq!(owner(said), expected, "{said:?}");
        }
    }

    #[test]
    fn what_may_run_is_active() {
        for state in [State::Running, State::Paused, State::Underway, State::Migrating, State::Crashed, State::NoState]
        {
            assert_eq!(Said::from(state), Said::Active, "{state:?}");
        }
        assert_eq!(Said::from(State::Off), OFF);
        assert_eq!(Said::from(State::OffMigrated), MIGRATED);
        assert_eq!(Said::from(&HypervisorError::Failed(String::new())), Said::Silent);
        assert_eq!(Said::from(&HypervisorError::Unreachable(String::new())), Said::Silent);
        assert_eq!(Said::from(&HypervisorError::NoSuchGuest), Said::NotThere);
    }
}
