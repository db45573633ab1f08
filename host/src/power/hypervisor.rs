//! Everything that is asked of a hypervisor, as a trait, so that one that misbehaves on purpose can take its place.
//!
//! All calls block, for as long as they please. They are made from worker threads only.

use super::Order;
use super::incarnation::Incarnation;
use fencewire_core::{Power, Uuid};
use std::fmt;
use std::sync::Arc;

/// Opens connections to one hypervisor.
pub trait Source: Send + Sync {
    /// A connection, for one thread at a time unless the hypervisor's state lives in the connection.
    fn connect(&self) -> Result<Arc<dyn Hypervisor>, HypervisorError>;

    /// Tells of what happens there as it happens, until what is returned is dropped. None: it tells nothing, and has to be
    /// asked every so often. To be called before anything is connected; does not block.
    fn watch(&self, _tell: Tell) -> Option<Watch> {
        None
    }
}

/// Whom a hypervisor tells what happens. Called from its own thread, and returns at once.
pub type Tell = Arc<dyn Fn(Happening) + Send + Sync>;

/// Keeps a hypervisor telling.
pub type Watch = Box<dyn Send>;

/// What happens on a hypervisor. It may be told late, and some of it never: it is a reason to look, and nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// It can be asked: for the first time, or again. What has happened meanwhile was not told.
    Returned,
    /// A guest runs, for the first time or anew.
    Started(Uuid),
    /// A guest comes by migration. It runs elsewhere until it is here, and goes on there if it does not arrive.
    Arrives(Uuid),
    /// A guest goes to another host by migration, or has gone there.
    Leaves(Uuid),
    /// A guest goes on here that had stood still.
    Resumed(Uuid),
    /// A guest has stopped, or has got or lost a device.
    Changed(Uuid),
    /// There is a guest that was not there before, or one less, or one has another name.
    Defined(Uuid),
}

/// One connection to a hypervisor.
pub trait Hypervisor: Send + Sync {
    /// Whether the connection is still good for anything.
    fn is_alive(&self) -> bool;

    /// Every guest that is defined or runs.
    fn guests(&self) -> Result<Vec<Guest>, HypervisorError>;

    /// What it knows of a guest as it is at this moment, as XML: of one that runs, with what it has been given meanwhile.
    /// One that shows none has no channels that could be found.
    fn xml(&self, _guest: Uuid) -> Result<String, HypervisorError> {
        Err(HypervisorError::NoSuchGuest)
    }

    /// A guest's name and state, and no more than that: the quick way, for a status.
    fn state(&self, guest: Uuid) -> Result<Guest, HypervisorError>;

    /// Everything there is to know of a guest's power.
    fn look(&self, guest: Uuid) -> Result<Sighting, HypervisorError>;

    /// Which run of the guest this is; none where it is not marked, or does not run.
    fn incarnation(&self, guest: Uuid) -> Result<Option<Incarnation>, HypervisorError>;

    /// Marks this run of the guest, until it ends.
    fn mark(&self, guest: Uuid, incarnation: Incarnation) -> Result<(), HypervisorError>;

    /// Ends the target at once. What this returns proves nothing; look.
    fn destroy(&self, order: &Order) -> Result<(), HypervisorError>;

    /// Starts the target afresh, whatever saved state there is.
    fn start(&self, order: &Order) -> Result<(), HypervisorError>;

    /// Asks for the end of whatever job runs on the target, a migration above all.
    fn abort_job(&self, order: &Order) -> Result<(), HypervisorError>;

    /// Removes the target's managed-save image.
    fn remove_saved(&self, order: &Order) -> Result<(), HypervisorError>;
}

/// A guest in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its name now.
    pub name: String,
    /// Its state.
    pub state: State,
}

/// A guest's state, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs, or is blocked, or is about to shut down: anything that has a processor.
    Running,
    /// Paused or suspended: it can go on at any time.
    Paused,
    /// Paused, and the hypervisor does not say by whom, or is starting it: that says nothing of where it runs.
    Underway,
    /// Paused because it is on its way to another host or from one: it may run there.
    Migrating,
    /// Not running.
    Off,
    /// Not running here because it was migrated: it may run on another host.
    OffMigrated,
    /// Crashed; its process may live.
    Crashed,
    /// The hypervisor has no word for it, or could not read it.
    NoState,
}

impl State {
    /// On, off or unknown. Unknown is never rounded to off.
    pub const fn power(self) -> Power {
        match self {
            State::Running | State::Paused | State::Underway | State::Migrating => Power::On,
            State::Off => Power::Off,
            State::OffMigrated | State::Crashed | State::NoState => Power::Unknown,
        }
    }
}

/// What was seen of a guest's power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: State,
    /// Whether a job, such as an outgoing migration, runs on it.
    pub job: bool,
    /// Whether a managed-save image of it waits to be resumed.
    pub saved: bool,
    /// Whether it is still defined when it is off. A transient guest is gone then.
    pub persistent: bool,
}

/// What went wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HypervisorError {
    /// There is no such guest.
    NoSuchGuest,
    /// The hypervisor cannot be reached, or the connection broke: nobody knows what it did.
    Unreachable(String),
    /// It says that it did not do it, and why.
    Failed(String),
}

impl fmt::Display for HypervisorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HypervisorError::NoSuchGuest => f.write_str("no such guest"),
            HypervisorError::Unreachable(why) => write!(f, "unreachable: {why}"),
            HypervisorError::Failed(why) => f.write_str(why),
        }
    }
}
