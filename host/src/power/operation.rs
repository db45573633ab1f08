//! One power action, from the first look to the confirmation. Blocks; runs in a worker.
//!
//! ```text
//! off, reboot:  look ─▶ end its migration ─▶ destroy ─▶ look until off ─▶ remove the saved image ─▶ (start)
//! on:           look ─▶ start ─▶ look
//! ```
//!
//! What a call returns is never taken for what happened: only a later look is. A destroy is called once for a request,
//! and only just after a look that the hypervisor answered at once: a call handed to it cannot be taken back, and one
//! that lies in the queue of a stopped libvirtd happens when that wakes.

use super::Order;
use super::held::{Held, SeenOff};
use super::hypervisor::{Guest, Hypervisor, HypervisorError, Sighting, State};
use super::incarnation::Incarnation;
use super::owner::Others;
use crate::clock;
use crate::journal::{Journal, NotRecorded};
use fencewire_core::{ConfirmedOff, Failure, Millis, Outcome, Permit, Power, PowerAction, Restart};
use std::cell::Cell;
use std::thread;
use std::time::Duration;

/// A destroy is called only after a look that was answered within this time.
const PROMPT: Millis = Millis(200);

/// How long a guest may take to be off after its destroy.
const CONFIRM: Millis = Millis(5_000);

/// How long the other hypervisors may take to say whether they have a guest.
const OTHERS: Millis = Millis(1_000);

/// Between two looks: at first, and at most.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What was seen of an action that ended, for any request that asked for it: each has to prove its own outcome by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The target was seen off, and for a reboot, then this.
    Off(SeenOff, Option<Restart>),
    /// The target was seen on by a look that began then; and whether it had been off and was started for that.
    On(Millis, Started),
    /// Not done, or not known to be done.
    Failed(Failure),
}

/// Whether a guest that is on was started for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It was off.
    Now,
    /// It ran already, and was left alone.
    Before,
}

impl Seen {
    /// Whether the guest is not the one any more that it was.
    pub const fn was_reset(self) -> bool {
        matches!(self, Seen::Off(..) | Seen::On(_, Started::Now))
    }

    /// What this means for a request. None: it was seen before the request came, and proves nothing for it.
    pub fn outcome(self, permit: &Permit, received: Millis) -> Option<Outcome> {
        match self {
            Seen::Failed(failure) => Some(Outcome::Failed(failure)),
            Seen::On(at, _) => (at >= received).then_some(Outcome::On),
            Seen::Off(off, restart) => {
                let off: ConfirmedOff = permit.confirm_off(off.observation())?;
                Some(restart.map_or(Outcome::Off(off), |restart| Outcome::Rebooted(off, restart)))
            }
        }
    }
}

/// What came of an action, and what there was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// What was seen of it.
    pub seen: Seen,
    /// The target's power before.
    pub before: Power,
}

impl From<Failure> for Carried {
    /// It failed before the target was looked at.
    fn from(failure: Failure) -> Carried {
        Carried { seen: Seen::Failed(failure), before: Power::Unknown }
    }
}

/// Carries out `order`, before its time is up. `others`: the other hypervisors on which its guests may be. `held`: the
/// connections to its target's own process.
pub fn run(hypervisor: &dyn Hypervisor, others: &Others, held: &Held, order: &Order, journal: &Journal) -> Carried {
    let deadline = order.until.min(order.permit.deadline());
    let run = Run { hypervisor, others, held, order, journal, deadline, before: Cell::new(Power::Unknown) };
    let seen = match order.action() {
        PowerAction::Off => run.off().map(|off| Seen::Off(off, None)),
        PowerAction::Reboot => run.reboot(),
        PowerAction::On => run.on(),
    };
    Carried { seen: seen.unwrap_or_else(Seen::Failed), before: run.before.get() }
}

struct Run<'a> {
    hypervisor: &'a dyn Hypervisor,
    others: &'a Others,
    held: &'a Held,
    order: &'a Order,
    journal: &'a Journal,
    deadline: Millis,
    /// The target's power at the first look.
    before: Cell<Power>,
}

impl Run<'_> {
    fn reboot(&self) -> Result<Seen, Failure> {
        let off = self.off()?;
        if self.order.earlier.is_some_and(|earlier| earlier.seen_off.is_some()) && self.runs() {
            return Ok(Seen::Off(off, Some(Restart::Started)));
        }
        let why = self.hypervisor.start(self.order).err().map(|why| why.to_string());
        let restart = match self.hypervisor.look(self.order.target()) {
            Ok(Sighting { state: State::Running, .. }) => Restart::Started,
            _ => {
                tracing::warn!(guest = %self.order.target(), why, "fenced, but it does not run after it was started");
                Restart::NotStarted
            }
        };
        Ok(Seen::Off(off, Some(restart)))
    }

    fn off(&self) -> Result<SeenOff, Failure> {
        if let Some(off) = self.order.earlier.and_then(SeenOff::earlier) {
            return Ok(off);
        }
        self.requester_is_not_off()?;
        let (mut asked, mut before) = self.look_promptly()?;
        let was_leaving = before.job;
        if was_leaving {
            self.end_job()?;
            (asked, before) = self.look_promptly()?;
        }
        if before.job || self.is_away(before.state) {
            return Err(Failure::Elsewhere);
        }
        let is_off = matches!(before.state, State::Off | State::OffMigrated);
        let incarnation = if is_off { None } else { self.incarnation()? };
        if !is_off && let Some(guard) = self.order.guard {
            match incarnation {
                Some(run) if run == guard => {}
                Some(_) => return Err(Failure::Replaced),
                None => return Err(Failure::Unreachable),
            }
        }
        if self.order.earlier.is_none() {
            self.journal.begin(self.order, incarnation).map_err(|NotRecorded| Failure::NotRecorded)?;
        }
        let (asked, saved) = if is_off {
            (asked, before.saved)
        } else {
            if clock::now().since(asked) > PROMPT {
                // Its mark took long to read.
                (_, before) = self.look_promptly()?;
            }
            self.destroy(&before, incarnation)?
        };
        if was_leaving {
            self.has_left_nothing_elsewhere()?;
        }
        let mut off = self.has_closed(asked).ok_or(Failure::Unconfirmed)?;
        if saved {
            off = self.has_closed(self.remove_saved(&before)?).ok_or(Failure::Unconfirmed)?;
        }
        self.journal.seen_off(self.order, off.asked());
        Ok(off)
    }

    fn destroy(&self, before: &Sighting, incarnation: Option<Incarnation>) -> Result<(Millis, bool), Failure> {
        if let Some(earlier) = self.order.earlier {
            match (earlier.incarnation, incarnation) {
                // Whatever was done for this request, this run of the guest has outlived it.
                (Some(then), Some(now)) if then == now => {}
                (Some(_), Some(_)) => return Err(Failure::Replaced),
                // It may have been destroyed for this request already, and started since.
                _ => return Err(Failure::Unconfirmed),
            }
        }
        let destroyed = self.hypervisor.destroy(self.order);
        if let Err(why) = &destroyed {
            tracing::warn!(guest = %self.order.target(), %why, "the hypervisor says that it did not destroy it");
        }
        self.confirm(before)
    }

    /// Looks until the target is off, and says when it asked and whether a saved image is left. A look is proof only if
    /// nothing could have moved the guest elsewhere meanwhile.
    fn confirm(&self, before: &Sighting) -> Result<(Millis, bool), Failure> {
        let until = clock::now().plus(CONFIRM).min(self.deadline);
        // It is off here. Whether that is all of it only the others can tell where it was on its way, and they may need
        // a moment.
        let is_off = |state, seen| {
            let (was_leaving, has_left) = (before.state == State::Migrating, state == State::OffMigrated);
            if !(was_leaving || has_left) || self.is_nowhere_else() {
                return Some(Ok(seen));
            }
            (self.others.are_none() || !was_leaving).then_some(Err(Failure::Elsewhere))
        };
        poll(until, || {
            let asked = clock::now();
            match self.hypervisor.look(self.order.target()) {
                Ok(Sighting { job: true, .. }) => Some(Err(Failure::Elsewhere)),
                Ok(Sighting { state: state @ (State::Off | State::OffMigrated), saved, .. }) => {
                    is_off(state, (asked, saved))
                }
                Ok(_) => None,
                // A transient guest that was seen here goes when it is off.
                Err(HypervisorError::NoSuchGuest) if !before.persistent => is_off(State::Off, (asked, false)),
                Err(why) => {
                    tracing::warn!(guest = %self.order.target(), %why, "cannot see whether it is off");
                    matches!(why, HypervisorError::NoSuchGuest).then_some(Err(Failure::Unconfirmed))
                }
            }
        })
        .unwrap_or(Err(Failure::Unconfirmed))
    }

    /// The hypervisor, asked at that time, says that the target is off: so its own process must have closed what it had
    /// open to this bridge.
    fn has_closed(&self, asked: Millis) -> Option<SeenOff> {
        let off = self.held.confirm(asked, self.deadline);
        if off.is_none() {
            let guest = self.order.target();
            tracing::error!(%guest, "the hypervisor says that it is off, and its process has its channel open: it lives");
        }
        off
    }

    /// A saved image is the old guest waiting to go on. Somebody may have let it, so the guest has to be seen off again.
    fn remove_saved(&self, before: &Sighting) -> Result<Millis, Failure> {
        let why = self.hypervisor.remove_saved(self.order).err().map(|why| why.to_string());
        match self.confirm(before)? {
            (asked, false) => Ok(asked),
            (_, true) => {
                tracing::warn!(guest = %self.order.target(), why, "its saved image could not be removed");
                Err(Failure::Unconfirmed)
            }
        }
    }

    fn on(&self) -> Result<Seen, Failure> {
        self.requester_is_not_off()?;
        let (asked, before) = self.look_promptly()?;
        match before.state {
            State::Running | State::Paused | State::Underway | State::Migrating => {
                return Ok(Seen::On(asked, Started::Before));
            }
            state if self.is_away(state) => return Err(Failure::Elsewhere),
            State::Off | State::OffMigrated | State::Crashed | State::NoState => {}
        }
        if matches!(before.state, State::Off | State::OffMigrated) {
            // Two of it would write to the same disks.
            self.has_closed(asked).ok_or(Failure::NotStarted)?;
        }
        self.journal.begin(self.order, None).map_err(|NotRecorded| Failure::NotRecorded)?;
        let started = self.hypervisor.start(self.order);
        let asked = clock::now();
        if self.runs() {
            return Ok(Seen::On(asked, Started::Now));
        }
        let why = started.err().map(|why| why.to_string());
        tracing::warn!(guest = %self.order.target(), why, "it does not run after it was started");
        Err(Failure::NotStarted)
    }

    /// Looks until the hypervisor answers at once: then it will act at once, too. Gives the time of asking as well.
    fn look_promptly(&self) -> Result<(Millis, Sighting), Failure> {
        loop {
            let asked = clock::now();
            if asked >= self.deadline {
                return Err(Failure::Expired);
            }
            let seen = self.hypervisor.look(self.order.target()).map_err(|why| failure(&why))?;
            // The name was looked up a while ago; the guest may have been renamed, and another may bear its name.
            if self.order.by_name.as_ref().is_some_and(|name| *name != seen.name) {
                return Err(Failure::NotFound);
            }
            if self.before.get() == Power::Unknown {
                self.before.set(seen.state.power());
            }
            let now = clock::now();
            if now.since(asked) <= PROMPT && now < self.deadline {
                return Ok((asked, seen));
            }
            tracing::warn!(guest = %self.order.target(), ms = now.since(asked).0, "the hypervisor answers slowly");
        }
    }

    /// Bytes of a guest that is off are old bytes: nobody asks.
    fn requester_is_not_off(&self) -> Result<(), Failure> {
        let Some(requester) = self.order.requester().guest().filter(|guest| *guest != self.order.target()) else {
            return Ok(());
        };
        match self.hypervisor.state(requester) {
            Ok(Guest { state: State::Off | State::OffMigrated, .. }) | Err(HypervisorError::NoSuchGuest)
                if !self.others.may_have(requester, self.soon()) =>
            {
                Err(Failure::RequesterFenced)
            }
            _ => Ok(()),
        }
    }

    /// Whether it may run on a host to which it was migrated.
    fn is_away(&self, state: State) -> bool {
        let is_away = state == State::OffMigrated && !self.is_nowhere_else();
        if is_away {
            let text = "it went to another host, and nobody says that it is off there: fence it there, configure that host's \
                        hypervisor, too, or see section 6 of operating.md";
            tracing::warn!(guest = %self.order.target(), "{text}");
        }
        is_away
    }

    /// Whether there are other hypervisors and all of them say that the target is not active there: then it is off that
    /// was migrated from here.
    fn is_nowhere_else(&self) -> bool {
        self.others.say_not_active(self.order.target(), self.soon())
    }

    /// What a guest that was on its way has elsewhere goes by itself when its migration was ended, unless whoever sees to
    /// that hangs.
    fn has_left_nothing_elsewhere(&self) -> Result<(), Failure> {
        if self.others.are_none() {
            return Ok(());
        }
        let until = clock::now().plus(CONFIRM).min(self.deadline);
        poll(until, || self.is_nowhere_else().then_some(())).ok_or(Failure::Elsewhere)
    }

    /// Until when other hypervisors are waited for.
    fn soon(&self) -> Millis {
        clock::now().plus(OTHERS).min(self.deadline)
    }

    fn runs(&self) -> bool {
        matches!(self.hypervisor.look(self.order.target()), Ok(Sighting { state: State::Running, .. }))
    }

    /// Which run of the target this is, where it is marked. Only read: to mark it, libvirt would wait for whatever hangs
    /// in it, and what hangs is what is fenced.
    fn incarnation(&self) -> Result<Option<Incarnation>, Failure> {
        match self.hypervisor.incarnation(self.order.target()) {
            Ok(incarnation) => Ok(incarnation),
            Err(HypervisorError::Unreachable(_)) => Err(Failure::Unreachable),
            Err(why) => {
                tracing::debug!(guest = %self.order.target(), %why, "which run of it this is cannot be read");
                Ok(None)
            }
        }
    }

    fn end_job(&self) -> Result<(), Failure> {
        if let Err(why) = self.hypervisor.abort_job(self.order) {
            tracing::warn!(guest = %self.order.target(), %why, "its migration could not be aborted");
        }
        let until = clock::now().plus(CONFIRM).min(self.deadline);
        poll(until, || match self.hypervisor.look(self.order.target()) {
            Ok(Sighting { job: true, .. }) => None,
            Ok(_) => Some(Ok(())),
            Err(why) => Some(Err(failure(&why))),
        })
        .unwrap_or(Err(Failure::Elsewhere))
    }
}

/// Asks `what` again and again until it says something or time is up.
fn poll<T>(until: Millis, mut what: impl FnMut() -> Option<T>) -> Option<T> {
    let mut pause = PAUSE;
    loop {
        if let Some(found) = what() {
            return Some(found);
        }
        if clock::now() >= until {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// What it means that a guest could not be looked at before anything was done.
fn failure(why: &HypervisorError) -> Failure {
    match why {
        HypervisorError::NoSuchGuest => Failure::NotFound,
        HypervisorError::Unreachable(_) | HypervisorError::Failed(_) => Failure::Unreachable,
    }
}

#[cfg(test)]
mod tests;
