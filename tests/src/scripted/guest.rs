//! A guest and its script: what becomes of it when it is looked at, destroyed, started.

use std::time::{Duration, Instant};

use fencewire_core::{Power, Uuid};
use fencewired::power::hypervisor::{Guest, HypervisorError, State};
use fencewired::power::incarnation::Incarnation;

use crate::libvirt_file::escaped;

/// A guest and its script.
#[derive(Debug, Clone)]
pub struct ScriptedGuest {
    uuid: Uuid,
    /// Its name now.
    pub name: String,
    /// Its state now.
    pub state: State,
    /// The devices in its XML, as text.
    pub devices: String,
    /// Its whole XML, where that is to be another one.
    pub xml: Option<String>,
    /// Whether it stays defined when it is off.
    pub persistent: bool,
    /// Whether it has a managed-save image.
    pub saved: bool,
    /// Whether a migration of it is under way.
    pub job: bool,
    /// What comes of looking at it.
    pub on_look: OnLook,
    /// What comes of destroying it.
    pub on_destroy: OnDestroy,
    /// What comes of starting it.
    pub on_start: OnStart,
    /// What comes of aborting its migration.
    pub on_abort: OnAbort,
    /// What comes of removing its image.
    pub on_remove_saved: OnRemoveSaved,
    /// How often it was started, or came back: which of its runs this is.
    pub runs: u32,
    /// What its runs were marked with.
    marks: Vec<(u32, Incarnation)>,
    next: Option<(When, State)>,
}

/// When a guest's state changes by itself.
#[derive(Debug, Clone, Copy)]
enum When {
    /// After so many looks.
    Looks(u32),
    At(Instant),
}

/// What comes of looking at a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnLook {
    /// The truth.
    Works,
    /// The truth, after this time.
    Takes(Duration),
    /// Nothing but this error.
    Fails(HypervisorError),
}

/// What comes of destroying a guest.
#[derive(Debug, Clone, Copy)]
pub enum OnDestroy {
    /// It is off, and the hypervisor says done.
    Works,
    /// The hypervisor says done, and the guest runs on.
    SaysDone,
    /// The hypervisor says that it failed, and the guest runs on.
    Fails,
    /// The hypervisor says that it failed, and the guest is off all the same.
    FailsAndWorks,
    /// The connection breaks before an answer comes; it is off, or not.
    Breaks {
        /// Whether it is off.
        happens: bool,
    },
    /// The hypervisor says done; the guest is off after so many looks that still show it running.
    OffAfterLooks(u32),
    /// The hypervisor says done; the guest is off after this time.
    OffAfter(Duration),
    /// The hypervisor says done; the guest has been started anew before anybody can look.
    ComesBack,
    /// The hypervisor says done; the guest is off for one look, and runs anew at the next.
    ComesBackOnceSeen,
    /// The hypervisor says done; the guest is in this state.
    Leaves(State),
    /// The hypervisor says done; anything else has become of the guest.
    Does(fn(&mut ScriptedGuest)),
}

/// What comes of starting a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStart {
    /// It runs.
    Works,
    /// The hypervisor says that it failed, and it does not run.
    Fails,
    /// The hypervisor says done, and it does not run.
    SaysDone,
}

/// What comes of aborting a guest's migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAbort {
    /// It has ended; the guest runs here.
    Ends,
    /// The hypervisor says done, and it goes on for ever.
    SaysDone,
    /// It cannot be aborted, and goes on for ever.
    Fails,
    /// It was over already: the guest runs elsewhere.
    TooLate,
}

/// What comes of removing a guest's managed-save image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRemoveSaved {
    /// It is gone.
    Works,
    /// The hypervisor says that it failed, and the image stays.
    Fails,
    /// The hypervisor says done, and the image stays.
    SaysDone,
    /// It was resumed in the last moment: the old guest goes on.
    Resumed,
}

impl ScriptedGuest {
    /// A running one that does what it is told.
    pub(super) fn new(name: &str, uuid: Uuid) -> Self {
        Self {
            uuid,
            name: name.to_owned(),
            state: State::Running,
            devices: String::new(),
            xml: None,
            persistent: true,
            saved: false,
            job: false,
            on_look: OnLook::Works,
            on_destroy: OnDestroy::Works,
            on_start: OnStart::Works,
            on_abort: OnAbort::Ends,
            on_remove_saved: OnRemoveSaved::Works,
            runs: 1,
            marks: Vec::new(),
            next: None,
        }
    }

    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    pub(super) fn in_a_list(&self) -> Guest {
        Guest { uuid: self.uuid, name: self.name.clone(), state: self.state }
    }

    /// Its XML now; with an id while it runs.
    pub(super) fn xml(&self) -> String {
        let Self { uuid, devices, .. } = self;
        let id = if self.state.power() == Power::Off { String::new() } else { format!(" id='{}'", self.runs) };
        let name = escaped(&self.name);
        self.xml.clone().unwrap_or_else(|| {
            format!("<domain{id}><name>{name}</name><uuid>{uuid}</uuid><devices>{devices}</devices></domain>")
        })
    }

    /// What this run is marked with.
    pub fn incarnation(&self) -> Option<Incarnation> {
        let of_this_run = self.marks.iter().rev().find(|(run, _)| *run == self.runs);
        of_this_run.filter(|_| self.state.power() != Power::Off).map(|(_, mark)| *mark)
    }

    /// Marks this run of it.
    ///
    /// # Errors
    /// When it is off.
    pub fn mark(&mut self, incarnation: Incarnation) -> Result<(), HypervisorError> {
        if self.state.power() == Power::Off {
            return Err(HypervisorError::Failed("the guest is not running".to_owned()));
        }
        self.marks.push((self.runs, incarnation));
        Ok(())
    }

    fn become_now(&mut self, state: State) {
        if state == State::Running {
            self.runs += 1;
        }
        self.state = state;
        self.next = None;
    }

    pub(super) fn let_time_pass(&mut self) {
        if let Some((When::At(at), state)) = self.next
            && Instant::now() >= at
        {
            self.become_now(state);
        }
    }

    pub(super) fn was_looked_at(&mut self) {
        if let Some((When::Looks(left), state)) = &mut self.next {
            *left = left.saturating_sub(1);
            if *left == 0 {
                let state = *state;
                self.become_now(state);
            }
        }
    }

    pub(super) fn destroy(&mut self) -> Result<(), HypervisorError> {
        let failed = || Err(HypervisorError::Failed("destroy failed, says the script".to_owned()));
        if self.state == State::Off {
            return Err(HypervisorError::Failed("the guest is not running".to_owned()));
        }
        match self.on_destroy {
            OnDestroy::Works => self.become_now(State::Off),
            OnDestroy::SaysDone => {}
            OnDestroy::Fails => return failed(),
            OnDestroy::FailsAndWorks => {
                self.become_now(State::Off);
                return failed();
            }
            OnDestroy::Breaks { happens } => {
                if happens {
                    self.become_now(State::Off);
                }
                return Err(HypervisorError::Unreachable("the connection broke, says the script".to_owned()));
            }
            OnDestroy::OffAfterLooks(looks) => self.next = Some((When::Looks(looks), State::Off)),
            OnDestroy::OffAfter(time) => self.next = Some((When::At(Instant::now() + time), State::Off)),
            OnDestroy::ComesBack => self.become_now(State::Running),
            OnDestroy::ComesBackOnceSeen => {
                self.become_now(State::Off);
                self.next = Some((When::Looks(1), State::Running));
            }
            OnDestroy::Leaves(state) => self.become_now(state),
            OnDestroy::Does(what) => what(self),
        }
        Ok(())
    }

    pub(super) fn start(&mut self) -> Result<(), HypervisorError> {
        match (self.on_start, self.state) {
            (_, State::Running | State::Paused) => {
                Err(HypervisorError::Failed("the guest is running already".to_owned()))
            }
            (OnStart::Fails, _) => Err(HypervisorError::Failed("start failed, says the script".to_owned())),
            (OnStart::SaysDone, _) => Ok(()),
            (OnStart::Works, _) => {
                self.become_now(State::Running);
                Ok(())
            }
        }
    }

    pub(super) fn abort_job(&mut self) -> Result<(), HypervisorError> {
        match self.on_abort {
            OnAbort::Ends => self.job = false,
            OnAbort::SaysDone => {}
            OnAbort::Fails => return Err(HypervisorError::Failed("abort failed, says the script".to_owned())),
            OnAbort::TooLate => {
                self.job = false;
                self.become_now(State::OffMigrated);
            }
        }
        Ok(())
    }

    pub(super) fn remove_saved(&mut self) -> Result<(), HypervisorError> {
        match self.on_remove_saved {
            OnRemoveSaved::Works => self.saved = false,
            OnRemoveSaved::SaysDone => {}
            OnRemoveSaved::Fails => {
                return Err(HypervisorError::Failed("the image cannot be removed, says the script".to_owned()));
            }
            OnRemoveSaved::Resumed => {
                self.saved = false;
                self.become_now(State::Running);
            }
        }
        Ok(())
    }
}
