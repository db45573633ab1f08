//! Guests that went to another host, remembered: "shut off" where they came from is not off.
//!
//! libvirt says "shut off (migrated)" of such a guest, until it is restarted or a migration back has failed; then it says
//! "unknown" or "crashed", as of any guest that is off. So what was seen of a guest last counts, and how old it is:
//!
//! | last seen here, or told | its "shut off" here after that |
//! |---|---|
//! | off or paused because it was migrated; it leaves, or comes, by migration | not off: shown as [`State::OffMigrated`] |
//! | it runs, is paused, was started, goes on | off |
//! | no such guest | what was seen before is forgotten |
//! | off for any other reason, crashed, paused for none that is known | as before |
//!
//! A [`Remembering`] stands in front of each hypervisor and sees all that this says, so that nobody behind it has to know.
//! `file` keeps it over restarts, of the host, too: the guest goes on elsewhere meanwhile.

mod file;

use super::Order;
use super::hypervisor::{Guest, Happening, Hypervisor, HypervisorError, Sighting, Source, State, Tell, Watch};
use super::incarnation::Incarnation;
use fencewire_core::Uuid;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use file::{Keeper, open};

/// What is known of all hypervisors' guests.
pub struct Away {
    known: Mutex<Known>,
    moments: AtomicU64,
    changed: Sender<file::Order>,
}

struct Known {
    /// One for each hypervisor, in the configuration's order.
    of: Vec<OfOne>,
    /// What an earlier run wrote down of hypervisors that are not configured.
    others: Vec<file::Line>,
}

struct OfOne {
    uri: String,
    guests: HashMap<Uuid, Word>,
}

/// What was seen of a guest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    is_away: bool,
    /// When that was so at the earliest: when it was asked for, or told.
    at: Moment,
}

/// When something was asked or told, for what came before what: a clock's milliseconds would not tell that of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(u64);

/// What a state says of where the guest is.
const fn is_away(state: State) -> Option<bool> {
    match state {
        State::Running | State::Paused => Some(false),
        State::Migrating | State::OffMigrated => Some(true),
        State::Off | State::Underway | State::Crashed | State::NoState => None,
    }
}

impl Away {
    /// This one, which is after all that were before.
    fn moment(&self) -> Moment {
        Moment(self.moments.fetch_add(1, Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was seen of a guest.
    fn learn(&self, hypervisor: usize, guest: Uuid, word: Word) {
        let mut known = self.lock();
        let it = &mut known.of[hypervisor];
        let before = it.guests.get(&guest).copied();
        if before.is_some_and(|before| before.at >= word.at) {
            return;
        }
        it.guests.insert(guest, word);
        if word.is_away == before.is_some_and(|before| before.is_away) {
            return;
        }
        if word.is_away {
            let text = "it goes to another host, or comes from one: until it runs here, \"shut off\" here is not off";
            tracing::info!(%guest, hypervisor = it.uri, "{text}");
        } else {
            tracing::info!(%guest, hypervisor = it.uri, "it is here: \"shut off\" is off again");
        }
        self.write(known);
    }

    /// A guest was asked for at that time, and there is none.
    fn forget(&self, hypervisor: usize, guest: Uuid, asked: Moment) {
        self.forget_if(hypervisor, |known, word| *known == guest && word.at < asked);
    }

    fn forget_if(&self, hypervisor: usize, is_gone: impl Fn(&Uuid, &Word) -> bool) {
        let mut known = self.lock();
        let it = &mut known.of[hypervisor];
        let mut is_changed = false;
        it.guests.retain(|guest, word| {
            let is_gone = is_gone(guest, word);
            if is_gone && word.is_away {
                is_changed = true;
                tracing::info!(%guest, hypervisor = it.uri, "it is not defined here any more: what became of it is forgotten");
            }
            !is_gone
        });
        if is_changed {
            self.write(known);
        }
    }

    fn write(&self, known: MutexGuard<'_, Known>) {
        drop(known);
        // At the program's end nobody writes any more.
        let _ = self.changed.send(file::Order::Write);
    }

    /// The state that a hypervisor has shown, asked at that time, as it is by all that was seen before.
    fn shown(&self, hypervisor: usize, guest: Uuid, state: State, asked: Moment) -> State {
        if let Some(is_away) = is_away(state) {
            self.learn(hypervisor, guest, Word { is_away, at: asked });
        }
        let is_away = || self.lock().of[hypervisor].guests.get(&guest).is_some_and(|word| word.is_away);
        match state {
            State::Off if is_away() => State::OffMigrated,
            State::Underway if is_away() => State::Migrating,
            state => state,
        }
    }

    fn happened(&self, hypervisor: usize, what: Happening) {
        let (guest, is_away) = match what {
            Happening::Arrives(guest) | Happening::Leaves(guest) => (guest, true),
            Happening::Started(guest) | Happening::Resumed(guest) => (guest, false),
            Happening::Returned | Happening::Changed(_) | Happening::Defined(_) => return,
        };
        self.learn(hypervisor, guest, Word { is_away, at: self.moment() });
    }
}

/// A hypervisor that forgets, and the memory in front of it.
pub struct Remembering {
    source: Arc<dyn Source>,
    away: Arc<Away>,
    hypervisor: usize,
}

impl Remembering {
    /// In front of each of these, which are the configuration's in their order.
    pub fn all(sources: Vec<Arc<dyn Source>>, away: &Arc<Away>) -> Vec<Arc<dyn Source>> {
        let each = sources.into_iter().enumerate();
        each.map(|(hypervisor, source)| Arc::new(Remembering { source, away: away.clone(), hypervisor }) as _).collect()
    }
}

impl Source for Remembering {
    fn connect(&self) -> Result<Arc<dyn Hypervisor>, HypervisorError> {
        let inner = self.source.connect()?;
        Ok(Arc::new(Connection { inner, away: self.away.clone(), hypervisor: self.hypervisor }))
    }

    fn watch(&self, tell: Tell) -> Option<Watch> {
        let (away, hypervisor) = (self.away.clone(), self.hypervisor);
        self.source.watch(Arc::new(move |what| {
            away.happened(hypervisor, what);
            tell(what);
        }))
    }
}

struct Connection {
    inner: Arc<dyn Hypervisor>,
    away: Arc<Away>,
    hypervisor: usize,
}

impl Connection {
    /// Asks for one guest.
    fn about<T>(
        &self,
        guest: Uuid,
        ask: impl FnOnce() -> Result<T, HypervisorError>,
    ) -> Result<(T, Moment), HypervisorError> {
        let asked = self.away.moment();
        let said = ask();
        if let Err(HypervisorError::NoSuchGuest) = &said {
            self.away.forget(self.hypervisor, guest, asked);
        }
        Ok((said?, asked))
    }

    fn shown(&self, guest: Uuid, state: State, asked: Moment) -> State {
        self.away.shown(self.hypervisor, guest, state, asked)
    }
}

impl Hypervisor for Connection {
    fn is_alive(&self) -> bool {
        self.inner.is_alive()
    }

    fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        let asked = self.away.moment();
        let mut guests = self.inner.guests()?;
        for guest in &mut guests {
            guest.state = self.shown(guest.uuid, guest.state, asked);
        }
        let there: HashSet<Uuid> = guests.iter().map(|guest| guest.uuid).collect();
        self.away.forget_if(self.hypervisor, |guest, word| !there.contains(guest) && word.at < asked);
        Ok(guests)
    }

    fn xml(&self, guest: Uuid) -> Result<String, HypervisorError> {
        self.inner.xml(guest)
    }

    fn state(&self, guest: Uuid) -> Result<Guest, HypervisorError> {
        let (said, asked) = self.about(guest, || self.inner.state(guest))?;
        Ok(Guest { state: self.shown(guest, said.state, asked), ..said })
    }

    fn look(&self, guest: Uuid) -> Result<Sighting, HypervisorError> {
        let (said, asked) = self.about(guest, || self.inner.look(guest))?;
        Ok(Sighting { state: self.shown(guest, said.state, asked), ..said })
    }

    fn incarnation(&self, guest: Uuid) -> Result<Option<Incarnation>, HypervisorError> {
        self.inner.incarnation(guest)
    }

    fn mark(&self, guest: Uuid, incarnation: Incarnation) -> Result<(), HypervisorError> {
        self.inner.mark(guest, incarnation)
    }

    fn destroy(&self, order: &Order) -> Result<(), HypervisorError> {
        self.inner.destroy(order)
    }

    fn start(&self, order: &Order) -> Result<(), HypervisorError> {
        self.inner.start(order)
    }

    fn abort_job(&self, order: &Order) -> Result<(), HypervisorError> {
        self.inner.abort_job(order)
    }

    fn remove_saved(&self, order: &Order) -> Result<(), HypervisorError> {
        self.inner.remove_saved(order)
    }
}

#[cfg(test)]
mod tests;
