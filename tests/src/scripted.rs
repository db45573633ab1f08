//! The programmable hypervisor: does whatever a test wants a hypervisor to do, above all what libvirt will not do on
//! demand, and remembers every call.
//!
//! It stands behind the same traits as libvirt. A guest runs, can be looked at, destroyed and started, and does what is
//! asked of it, until [`ScriptedHypervisor::change`] gives it another script:
//!
//! | what | script |
//! |---|---|
//! | a destroy that says done, or not, and what really becomes of the guest | [`OnDestroy`] |
//! | a state that cannot be read, or only slowly | [`OnLook`] |
//! | a start that fails, or only says that it worked | [`OnStart`] |
//! | a migration that ends when it is aborted, or goes on | [`OnAbort`], [`ScriptedGuest::job`] |
//! | a managed-save image that can be removed, or not | [`OnRemoveSaved`], [`ScriptedGuest::saved`] |
//! | any call that hangs until it is released, before it does anything or after | [`ScriptedHypervisor::hold`], [`hold_reply`](ScriptedHypervisor::hold_reply) |
//! | a hypervisor that is gone, from now or from the n-th call on | [`ScriptedHypervisor::unreachable_after`] |
//!
//! The log says what was *done*, which no reply proves: [`ScriptedHypervisor::count`], [`calls`](ScriptedHypervisor::calls).
//! Nothing here sleeps to wait for another thread; only a slow look, which is one on purpose, takes its time.

mod gate;
mod guest;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fencewire_core::Uuid;
use fencewired::power::Order;
use fencewired::power::hypervisor::{
    Guest, Happening, Hypervisor, HypervisorError, Sighting, Source, State, Tell, Watch,
};
use fencewired::power::incarnation::Incarnation;

use crate::libvirt_file::uuid_of;
use crate::process::{DEADLINE, wait_until};

pub use gate::Gate;
pub use guest::{OnAbort, OnDestroy, OnLook, OnRemoveSaved, OnStart, ScriptedGuest};

/// The programmable hypervisor. A clone is the same one.
#[derive(Clone, Default)]
pub struct ScriptedHypervisor {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inside: Mutex<Inside>,
    called: Condvar,
}

#[derive(Default)]
struct Inside {
    guests: Vec<ScriptedGuest>,
    log: Vec<Called>,
    holds: Vec<Hold>,
    /// Calls until it is out of reach; none: always within.
    reach: Option<u64>,
    /// Who wants to be told what happens, where anybody can be.
    listeners: Vec<Tell>,
    is_silent: bool,
    /// Connections opened before the last time it was out of reach are dead.
    era: u64,
}

/// A call to the hypervisor, as the log has it. Whether a connection is alive is asked too often to be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A connection was opened.
    Connect,
    /// All guests were asked for.
    Guests,
    /// A guest's XML.
    Xml,
    /// A guest's name and state.
    State,
    /// Everything about a guest's power.
    Look,
    /// Which run of a guest this is.
    Incarnation,
    /// The mark on this run of a guest.
    Mark,
    /// The end of a guest.
    Destroy,
    /// Its start.
    Start,
    /// The end of its migration.
    AbortJob,
    /// The removal of its managed-save image.
    RemoveSaved,
}

/// One line of the log. It is written when the call begins, whatever becomes of it.
#[derive(Debug, Clone)]
pub struct Called {
    /// What was called.
    pub what: Call,
    /// For which guest: the name that it bore then; empty where it is for none.
    pub whom: String,
    /// For which requester's order, as the UUID's text; empty where there is none.
    pub by: String,
    /// When.
    pub when: Instant,
}

struct Hold {
    call: Call,
    /// Of which guest; none: of any.
    whom: Option<Uuid>,
    after: bool,
    /// How many such calls are still to be held.
    times: usize,
    gate: Gate,
}

impl ScriptedHypervisor {
    /// With running guests of these names, whose UUIDs are those of [`uuid_of`].
    pub fn with<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let hypervisor = Self::default();
        for name in names {
            hypervisor.add(name, &uuid_of(name));
        }
        hypervisor
    }

    /// Adds a running guest.
    ///
    /// # Panics
    /// When `uuid` is none.
    pub fn add(&self, name: &str, uuid: &str) {
        let uuid = Uuid::parse(uuid.as_bytes()).expect("a UUID's text");
        self.shared.lock().guests.push(ScriptedGuest::new(name, uuid));
    }

    /// Takes a guest away, as undefine does to one that is off.
    pub fn remove(&self, name: &str) {
        self.shared.lock().guests.retain(|guest| guest.name != name);
    }

    /// Changes a guest, or its script.
    ///
    /// # Panics
    /// When there is none of that name.
    #[track_caller]
    pub fn change(&self, name: &str, change: impl FnOnce(&mut ScriptedGuest)) {
        let mut inside = self.shared.lock();
        let guest = inside.guests.iter_mut().find(|guest| guest.name == name);
        change(guest.unwrap_or_else(|| panic!("there is no guest {name}")));
    }

    /// The guests' names now.
    pub fn names(&self) -> Vec<String> {
        self.shared.lock().guests.iter().map(|guest| guest.name.clone()).collect()
    }

    /// A guest as it is now; none where there is none of that name.
    pub fn guest(&self, name: &str) -> Option<ScriptedGuest> {
        let mut inside = self.shared.lock();
        let guest = inside.guests.iter_mut().find(|guest| guest.name == name)?;
        guest.let_time_pass();
        Some(guest.clone())
    }

    /// Waits until every guest that runs was marked, as a bridge does in the background with those that may be fenced.
    ///
    /// # Panics
    /// When that takes too long.
    #[track_caller]
    pub fn wait_marked(&self) {
        let is_off = |guest: &ScriptedGuest| matches!(guest.state, State::Off | State::OffMigrated);
        let is_marked = |guest: &ScriptedGuest| is_off(guest) || guest.incarnation().is_some();
        wait_until(DEADLINE, "every guest to be marked", || {
            self.shared.lock().guests.iter().all(is_marked).then_some(())
        });
    }

    /// A guest's state now.
    ///
    /// # Panics
    /// When there is none of that name.
    #[track_caller]
    pub fn state(&self, name: &str) -> State {
        self.guest(name).unwrap_or_else(|| panic!("there is no guest {name}")).state
    }

    /// Holds every such call for that guest at its beginning, until the gate is opened.
    #[track_caller]
    pub fn hold(&self, call: Call, name: &str) -> Gate {
        self.add_hold(call, Some(name), false, usize::MAX)
    }

    /// Lets every such call for that guest do its work, and holds its answer until the gate is opened.
    #[track_caller]
    pub fn hold_reply(&self, call: Call, name: &str) -> Gate {
        self.add_hold(call, Some(name), true, usize::MAX)
    }

    /// Holds every such call, for whomever, at its beginning.
    pub fn hold_all(&self, call: Call) -> Gate {
        self.add_hold(call, None, false, usize::MAX)
    }

    /// Holds the next such call, for whomever, at its beginning; the ones after it go on.
    pub fn hold_next(&self, call: Call) -> Gate {
        self.add_hold(call, None, false, 1)
    }

    #[track_caller]
    fn add_hold(&self, call: Call, name: Option<&str>, after: bool, times: usize) -> Gate {
        let mut inside = self.shared.lock();
        let whom = name.map(|name| {
            let guest = inside.guests.iter().find(|guest| guest.name == name);
            guest.unwrap_or_else(|| panic!("there is no guest {name}")).uuid()
        });
        let gate = Gate::default();
        inside.holds.push(Hold { call, whom, after, times, gate: gate.clone() });
        gate
    }

    /// Opens every gate.
    pub fn release(&self) {
        for hold in self.shared.lock().holds.drain(..) {
            hold.gate.open();
        }
    }

    /// Out of reach after `calls` more calls: open connections break, new ones cannot be opened.
    pub fn unreachable_after(&self, calls: u64) {
        self.shared.lock().reach = Some(calls);
    }

    /// Within reach again; connections from before stay broken.
    pub fn reachable(&self) {
        let mut inside = self.shared.lock();
        inside.reach = None;
        inside.era += 1;
    }

    /// Tells nobody of anything, as a hypervisor does that has no events: to be said before a bridge is there.
    pub fn tells_nothing(&self) {
        self.shared.lock().is_silent = true;
    }

    /// Tells whoever listens that this has happened.
    pub fn tell(&self, what: Happening) {
        let listeners = self.shared.lock().listeners.clone();
        for tell in listeners {
            tell(what);
        }
    }

    /// Everything that was called, in the order of time.
    pub fn calls(&self) -> Vec<Called> {
        self.shared.lock().log.clone()
    }

    /// How often `call` was called for `name`.
    pub fn count(&self, call: Call, name: &str) -> usize {
        self.shared.lock().count(call, name)
    }

    /// How often `call` was called at all.
    pub fn count_all(&self, call: Call) -> usize {
        self.shared.lock().log.iter().filter(|called| called.what == call).count()
    }

    /// What was done to a guest: its destroys, starts, aborted migrations and removed images, in the order of time.
    pub fn done_to(&self, name: &str) -> Vec<Call> {
        let inside = self.shared.lock();
        let its = inside.log.iter().filter(|called| called.whom == name).map(|called| called.what);
        its.filter(|call| matches!(call, Call::Destroy | Call::Start | Call::AbortJob | Call::RemoveSaved)).collect()
    }

    /// Waits until `call` was called `times` for `name`.
    ///
    /// # Panics
    /// When it was not after `deadline`.
    #[track_caller]
    pub fn wait_for(&self, call: Call, name: &str, times: usize, deadline: Duration) {
        let fewer = |inside: &mut Inside| inside.count(call, name) < times;
        let waited = self.shared.called.wait_timeout_while(self.shared.lock(), deadline, fewer).expect("a lock");
        let count = waited.0.count(call, name);
        drop(waited);
        assert!(count >= times, "waited {deadline:?} for {times} times {call:?} of {name}, there were {count}");
    }
}

impl fmt::Debug for ScriptedHypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedHypervisor").field("guests", &self.shared.lock().guests).finish_non_exhaustive()
    }
}

impl Source for ScriptedHypervisor {
    fn watch(&self, tell: Tell) -> Option<Watch> {
        let mut inside = self.shared.lock();
        if inside.is_silent {
            return None;
        }
        inside.listeners.push(tell);
        // A bridge that is no more is told for ever, and does not mind.
        Some(Box::new(()))
    }

    fn connect(&self) -> Result<Arc<dyn Hypervisor>, HypervisorError> {
        self.shared.pass(Call::Connect, None, "", false);
        let mut inside = self.shared.lock();
        inside.reach()?;
        Ok(Arc::new(Connection { shared: self.shared.clone(), era: inside.era }))
    }
}

struct Connection {
    shared: Arc<Shared>,
    era: u64,
}

impl Connection {
    /// One call: logged, held where it is to be, and then `act` where the hypervisor is within reach.
    fn call<T>(
        &self,
        call: Call,
        whom: Option<Uuid>,
        by: &str,
        act: impl FnOnce(&mut Inside) -> Result<T, HypervisorError>,
    ) -> Result<T, HypervisorError> {
        self.shared.pass(call, whom, by, false);
        let done = {
            let mut inside = self.shared.lock();
            inside.reach()?;
            if inside.era != self.era {
                return Err(HypervisorError::Unreachable("the connection broke".to_owned()));
            }
            act(&mut inside)
        };
        self.shared.wait(call, whom, true);
        done
    }

    fn order(
        &self,
        call: Call,
        order: &Order,
        act: impl FnOnce(&mut ScriptedGuest) -> Result<(), HypervisorError>,
    ) -> Result<(), HypervisorError> {
        let whom = order.target();
        self.call(call, Some(whom), &order.requester().to_string(), |inside| {
            let done = act(inside.guest(whom)?);
            inside.drop_gone();
            done
        })
    }

    /// A call that is no look: it does not count as one.
    fn about<T>(
        &self,
        call: Call,
        whom: Uuid,
        what: impl FnOnce(&mut ScriptedGuest) -> Result<T, HypervisorError>,
    ) -> Result<T, HypervisorError> {
        self.call(call, Some(whom), "", |inside| what(inside.guest(whom)?))
    }

    fn seen<T>(&self, call: Call, whom: Uuid, what: impl FnOnce(&ScriptedGuest) -> T) -> Result<T, HypervisorError> {
        let takes = match self.shared.lock().guest(whom).map(|guest| guest.on_look.clone()) {
            Ok(OnLook::Takes(time)) => time,
            _ => Duration::ZERO,
        };
        let seen = self.call(call, Some(whom), "", |inside| {
            let guest = inside.guest(whom)?;
            if let OnLook::Fails(why) = &guest.on_look {
                return Err(why.clone());
            }
            let seen = what(guest);
            guest.was_looked_at();
            inside.drop_gone();
            Ok(seen)
        });
        thread::sleep(takes);
        seen
    }
}

impl Hypervisor for Connection {
    fn is_alive(&self) -> bool {
        let inside = self.shared.lock();
        inside.era == self.era && inside.reach != Some(0)
    }

    fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        self.call(Call::Guests, None, "", |inside| {
            inside.guests.iter_mut().for_each(ScriptedGuest::let_time_pass);
            inside.drop_gone();
            Ok(inside.guests.iter().map(ScriptedGuest::in_a_list).collect())
        })
    }

    fn xml(&self, guest: Uuid) -> Result<String, HypervisorError> {
        self.about(Call::Xml, guest, |guest| Ok(guest.xml()))
    }

    fn state(&self, guest: Uuid) -> Result<Guest, HypervisorError> {
        self.seen(Call::State, guest, ScriptedGuest::in_a_list)
    }

    fn look(&self, guest: Uuid) -> Result<Sighting, HypervisorError> {
        self.seen(Call::Look, guest, |guest| Sighting {
            name: guest.name.clone(),
            state: guest.state,
            job: guest.job,
            saved: guest.saved,
            persistent: guest.persistent,
        })
    }

    fn incarnation(&self, guest: Uuid) -> Result<Option<Incarnation>, HypervisorError> {
        self.about(Call::Incarnation, guest, |guest| Ok(guest.incarnation()))
    }

    fn mark(&self, guest: Uuid, incarnation: Incarnation) -> Result<(), HypervisorError> {
        self.about(Call::Mark, guest, |guest| guest.mark(incarnation))
    }

    fn destroy(&self, order: &Order) -> Result<(), HypervisorError> {
        self.order(Call::Destroy, order, ScriptedGuest::destroy)
    }

    fn start(&self, order: &Order) -> Result<(), HypervisorError> {
        self.order(Call::Start, order, ScriptedGuest::start)
    }

    fn abort_job(&self, order: &Order) -> Result<(), HypervisorError> {
        self.order(Call::AbortJob, order, ScriptedGuest::abort_job)
    }

    fn remove_saved(&self, order: &Order) -> Result<(), HypervisorError> {
        self.order(Call::RemoveSaved, order, ScriptedGuest::remove_saved)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        lock(&self.inside)
    }

    /// Writes a call down and holds it where it is to be held.
    fn pass(&self, call: Call, whom: Option<Uuid>, by: &str, after: bool) {
        let mut inside = self.lock();
        let name = whom.and_then(|uuid| inside.guests.iter().find(|guest| guest.uuid() == uuid));
        let whom_name = name.map(|guest| guest.name.clone()).unwrap_or_default();
        inside.log.push(Called { what: call, whom: whom_name, by: by.to_owned(), when: Instant::now() });
        drop(inside);
        self.called.notify_all();
        self.wait(call, whom, after);
    }

    fn wait(&self, call: Call, whom: Option<Uuid>, after: bool) {
        let gates: Vec<Gate> = {
            let mut inside = self.lock();
            let its = |hold: &&mut Hold| {
                let is_such = hold.call == call && hold.after == after && hold.times > 0;
                is_such && (hold.whom.is_none() || hold.whom == whom)
            };
            let holds = inside.holds.iter_mut().filter(its);
            holds
                .map(|hold| {
                    hold.times -= 1;
                    hold.gate.clone()
                })
                .collect()
        };
        gates.iter().for_each(Gate::pass);
    }
}

impl Inside {
    fn count(&self, call: Call, name: &str) -> usize {
        self.log.iter().filter(|called| called.what == call && called.whom == name).count()
    }

    fn reach(&mut self) -> Result<(), HypervisorError> {
        match &mut self.reach {
            Some(0) => Err(HypervisorError::Unreachable("out of reach".to_owned())),
            Some(calls) => {
                *calls -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn guest(&mut self, uuid: Uuid) -> Result<&mut ScriptedGuest, HypervisorError> {
        let guest = self.guests.iter_mut().find(|guest| guest.uuid() == uuid).ok_or(HypervisorError::NoSuchGuest)?;
        guest.let_time_pass();
        Ok(guest)
    }

    /// A transient guest that is off is no more.
    fn drop_gone(&mut self) {
        self.guests.retain(|guest| guest.persistent || guest.state != State::Off);
    }
}

/// A thread that panicked while it held a lock has said so already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
