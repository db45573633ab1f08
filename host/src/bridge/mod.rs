//! The event loop: moves bytes, requests and outcomes between the parts, and decides nothing.
//!
//! One thread owns all of it: no lock, no task and no timer for each channel. Blocking happens in
//! [`crate::power::workers`], whose results come back through one queue.
//!
//! | module | what |
//! |---|---|
//! | `callers` | who calls a channel that listens |
//! | `channel` | a channel and the state of opening it |
//! | `connections` | channels opened, read, written, closed and opened again |
//! | `dispatch` | on which hypervisor a power action is carried out |
//! | `discovered` | channels that are found: who is looked at when, and what is opened and closed for it |
//! | `held` | connections that end when a guest's own process ends |
//! | `fleet` | the hypervisors: which is asked what, and what their answers make together |
//! | `reload` | another configuration in place of the one that is served |
//! | `requests` | a request from its arrival to its answer; power actions |
//! | `queries` | monitors, statuses and lists |
//! | `refusals` | what the log says of bytes for which nothing was done |
//! | `memory` | what is remembered of whoever asks |
//! | `snapshot` | what all this comes to at one moment, for people |

mod callers;
mod channel;
mod connections;
mod discovered;
mod dispatch;
mod fleet;
mod held;
mod memory;
mod queries;
mod refusals;
mod reload;
mod requests;
mod snapshot;

use crate::channels::ChannelSpec;
use crate::clock;
use crate::config::Config;
use crate::enrolled::Enrolled;
use crate::guests::{Requester, Roster};
use crate::journal::Journal;
use crate::notify::Notifier;
use crate::policy::Policy;
use crate::power::Order;
use crate::power::away::{self, Keeper, Remembering};
use crate::power::hypervisor::{Guest, Happening, HypervisorError, Source, Tell};
use crate::power::lane::Lanes;
use crate::power::operation::Carried;
use crate::power::owner::Said;
use crate::records::Records;
use channel::Channel;
use connections::Connection;
use discovered::{Discovery, Looked};
use fencewire_core::native::keys::Keys;
use fencewire_core::{Accept, Millis, NativeAccept, Uuid};
use fleet::Fleet;
use memory::Memory;
use mio::{Events, Poll, Token, Waker};
use reload::Fixed;
use requests::{Ask, AskId};
use snapshot::Lately;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;
use std::{fmt, io};

/// How long what has begun may take to end after [`Handle::stop`].
const STOP_TIME: Millis = Millis(30_000);

/// How long after the last answer of a bridge that stops that is waited for to be taken: a serial port takes 16 bytes at a
/// time, and what is on its way is lost when the channel is closed.
const TAKE_TIME: Millis = Millis(1_000);

/// How often it is looked meanwhile whether all is taken, which nobody tells.
const TAKE_PAUSE: Duration = Duration::from_millis(5);

/// How often threads are looked after while jobs are out, and old journal entries removed.
const HOUSEKEEPING: Millis = Millis(250);

/// How often the hypervisors are asked for their guests while one of the configuration's is missing or one does not
/// answer.
const REFRESH: Millis = Millis(2_000);

/// How often they are asked in any case: for guests that somebody else has started.
const LOOK_AROUND: Millis = Millis(30_000);

/// The loop's own token; connections and listeners count from 1.
const WAKE: Token = Token(0);

/// The bridge, ready to run.
pub struct Bridge {
    poll: Poll,
    handle: Handle,
    notes: Receiver<Note>,
    wires: Wires,
    channels: Vec<Channel>,
    connections: HashMap<usize, Connection>,
    /// Listening sockets: which channel's.
    listeners: HashMap<usize, usize>,
    next_token: usize,
    /// Connections with more to read than one turn takes, and sockets on which more may call.
    again: VecDeque<usize>,
    buffer: Box<[u8; 4096]>,
    roster: Roster,
    fleet: Fleet,
    discovery: Discovery,
    /// What of the configuration a reload does not change.
    fixed: Fixed,
    policy: Policy,
    memories: HashMap<Requester, Memory>,
    asks: HashMap<AskId, Ask>,
    next_ask: u64,
    /// Asks that wait for the roster.
    unresolved: Vec<AskId>,
    lanes: Lanes<AskId>,
    timers: BinaryHeap<Reverse<(Millis, Timer)>>,
    journal: Journal,
    records: Records,
    notifier: Notifier,
    lately: Lately,
    started: Millis,
    stopping: Option<Millis>,
    /// Until when the last answers may be taken, once all are sent.
    taken_by: Option<Millis>,
    /// Keeps what is known of guests that are away, for longer than anybody can learn more.
    _away: Keeper,
}

/// What a worker, or somebody outside, tells the loop.
#[derive(Debug)]
enum Note {
    /// Who the guests of that hypervisor are, asked at that time.
    Guests(usize, Millis, Result<Vec<Guest>, HypervisorError>),
    /// What that hypervisor says to a monitor, a status or a list.
    Said(AskId, usize, Result<fleet::Answer, HypervisorError>),
    /// What that hypervisor says of a target that is looked for.
    Found(u64, usize, Said),
    /// A run of that guest on that hypervisor was marked, or cannot be.
    Marked(usize, Uuid),
    /// That hypervisor tells of something.
    Happened(usize, Happening),
    /// What that hypervisor shows of its guests' XML, in that reading.
    Looked(usize, u64, Vec<Looked>),
    /// A power action has ended.
    Ended(Order, Carried),
    /// Serve this configuration from now on.
    Reload(Box<Config>),
    /// Say what is being done.
    Snapshot(snapshot::Wanted),
    /// Finish what has begun, then end.
    Stop,
}

/// What is due at a time. What is no longer so is found out then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Connection(usize),
    Open(usize),
    Housekeeping,
    Refresh,
    Search(u64),
    Stop,
}

/// Which wires are answered to whom.
#[derive(Debug, PartialEq, Eq)]
struct Wires {
    time_to_act: Millis,
    keyless: bool,
    enrolled: Option<Enrolled>,
    instance: u64,
}

impl Wires {
    fn of(config: &Config, instance: u64) -> Wires {
        Wires { time_to_act: config.time_to_act, keyless: config.keyless, enrolled: config.enrolled.clone(), instance }
    }

    /// What is answered to a guest. None: nothing yet, since whether it has a key is not known before it is.
    fn accept(&self, guest: Option<Uuid>) -> Option<Accept> {
        let accept = Accept { time_to_act: self.time_to_act, ..Accept::default() };
        let native = |keys| Some(NativeAccept { keys, instance: self.instance });
        let keyless = || if self.keyless { native(Keys::keyless()) } else { None };
        let Some(enrolled) = &self.enrolled else { return Some(Accept { native: keyless(), ..accept }) };
        Some(match enrolled.keys(guest?) {
            // Who has a key is served with it and in no other way.
            Some(keys) => Accept { classic: false, native: native(keys), ..accept },
            None => Accept { native: keyless(), ..accept },
        })
    }
}

/// Reaches a running bridge from another thread.
#[derive(Clone)]
pub struct Handle {
    sender: Sender<Note>,
    waker: Arc<Waker>,
}

impl Handle {
    /// Ends the bridge when what has begun has ended, 30 s from now at most.
    pub fn stop(&self) {
        self.tell(Note::Stop);
    }

    /// Serves another configuration in place of the one that is served. What is the same in both is not touched.
    pub fn reload(&self, config: Config) {
        self.tell(Note::Reload(Box::new(config)));
    }

    /// What that hypervisor tells.
    fn watches(&self, hypervisor: usize) -> Tell {
        let handle = self.clone();
        Arc::new(move |what| handle.tell(Note::Happened(hypervisor, what)))
    }

    fn tell(&self, note: Note) {
        // Nobody is there to be told once the loop has ended.
        if self.sender.send(note).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("channels", &self.channels.len()).finish_non_exhaustive()
    }
}

/// Why a bridge cannot start. Displays as a sentence that says what to do.
#[derive(Debug)]
pub enum CannotStart {
    /// The journal's folder cannot be used.
    Journal(io::Error, PathBuf),
    /// The folder for what outlives the host's restart cannot be used.
    State(io::Error, PathBuf),
    /// Records are required and cannot be written.
    Records(io::Error, PathBuf),
    /// The system gives no event queue or no thread.
    System(io::Error),
}

impl fmt::Display for CannotStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CannotStart::Journal(why, folder) => {
                let folder = folder.display();
                write!(
                    f,
                    "control.journal: {folder} cannot be used ({why}): name a folder on a tmpfs that this user may write"
                )
            }
            CannotStart::State(why, folder) => {
                let folder = folder.display();
                write!(
                    f,
                    "control.state: {folder} cannot be used ({why}): name a folder that this user may write and that \
                     outlives the host's restart"
                )
            }
            CannotStart::Records(why, path) => {
                let path = path.display();
                write!(f, "records.path: {path} cannot be written ({why}), and records.required = true")
            }
            CannotStart::System(why) => write!(f, "the system gives no event queue or no thread: {why}"),
        }
    }
}

impl std::error::Error for CannotStart {}

impl Bridge {
    /// Makes everything ready that may fail. Opens no channel and asks no hypervisor yet.
    /// `sources`: one for each of its hypervisors, in their order.
    pub fn new(config: Config, sources: Vec<Arc<dyn Source>>) -> Result<Bridge, CannotStart> {
        let now = clock::now();
        let (journal, remembered) = match Journal::open(&config.journal, now) {
            Ok(opened) => opened,
            Err(why) => return Err(CannotStart::Journal(why, config.journal)),
        };
        let uris = || config.hypervisors.iter().map(|hypervisor| hypervisor.uri.clone());
        let (away, keeper) = match away::open(&config.state, uris()) {
            Ok(opened) => opened,
            Err(why) => return Err(CannotStart::State(why, config.state)),
        };
        let sources = Remembering::all(sources, &away);
        let records = match Records::open(&config.records) {
            Ok(records) => records,
            Err(why) => return Err(CannotStart::Records(why, config.records.path)),
        };
        let poll = Poll::new().map_err(CannotStart::System)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(CannotStart::System)?);
        let (sender, notes) = mpsc::channel();
        let fixed = Fixed::of(&config);
        let wires = Wires::of(&config, journal.instance());
        let handle = Handle { sender, waker };
        let named: Vec<_> = uris().zip(sources.iter().cloned()).collect();
        let watches = sources.iter().enumerate().map(|(at, source)| source.watch(handle.watches(at))).collect();
        let discovery = Discovery::start(config.discover, &named, watches).map_err(CannotStart::System)?;
        let hypervisors = config.hypervisors.into_iter().zip(sources).collect();
        let fleet = Fleet::start(hypervisors, config.time_to_act).map_err(CannotStart::System)?;
        let policy = Policy::new(config.groups, config.classic_virtio);
        let roster = Roster::new(policy.members().chain(config.channels.iter().filter_map(ChannelSpec::guest)));
        let mut bridge = Bridge {
            poll,
            handle,
            notes,
            wires,
            channels: config.channels.into_iter().map(Channel::new).collect(),
            connections: HashMap::new(),
            listeners: HashMap::new(),
            next_token: 1,
            again: VecDeque::new(),
            buffer: Box::new([0; 4096]),
            roster,
            fleet,
            discovery,
            fixed,
            policy,
            memories: HashMap::new(),
            asks: HashMap::new(),
            next_ask: 0,
            unresolved: Vec::new(),
            lanes: Lanes::new(),
            timers: BinaryHeap::new(),
            journal,
            records,
            notifier: Notifier::default(),
            lately: Lately::default(),
            started: now,
            stopping: None,
            taken_by: None,
            _away: keeper,
        };
        if !remembered.is_empty() {
            tracing::info!(requests = remembered.len(), "requests of an earlier run are remembered");
        }
        for entry in remembered {
            bridge.memories.entry(entry.requester).or_default().restore(&entry);
        }
        Ok(bridge)
    }

    /// Reaches this bridge while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Has the service manager told of what this bridge does. Nobody is told otherwise.
    #[must_use]
    pub fn notifying(mut self, notifier: Notifier) -> Bridge {
        self.notifier = notifier;
        self
    }

    /// Serves until it is stopped.
    pub fn run(mut self) -> io::Result<()> {
        let now = clock::now();
        self.ask_who_is_who();
        for channel in 0..self.channels.len() {
            self.open_channel(channel);
        }
        self.at(now.plus(HOUSEKEEPING), Timer::Housekeeping);
        self.at(now.plus(REFRESH), Timer::Refresh);
        tracing::info!(channels = self.channels.len(), "serving");
        self.notifier.ready(&self.status());
        let mut events = Events::with_capacity(256);
        while !self.has_stopped() {
            self.wait(&mut events)?;
            for event in &events {
                self.guarded(event.token().0, |bridge, token| bridge.ready(token, event.is_read_closed()));
            }
            while let Ok(note) = self.notes.try_recv() {
                self.note(note);
            }
            self.due();
            for _ in 0..self.again.len() {
                if let Some(token) = self.again.pop_front() {
                    self.guarded(token, |bridge, token| bridge.ready(token, false));
                }
            }
        }
        tracing::info!("stopped");
        Ok(())
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout = if self.again.is_empty() {
            let next = self.timers.peek().map(|Reverse((at, _))| *at);
            next.map(|at| Duration::from_millis(at.since(clock::now()).0))
        } else {
            Some(Duration::ZERO)
        };
        let timeout = self.taken_by.map_or(timeout, |_| Some(timeout.unwrap_or(TAKE_PAUSE).min(TAKE_PAUSE)));
        match self.poll.poll(events, timeout) {
            Err(why) if why.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    /// One channel's fault must not stop all fencing: a panic in its turn costs it its connection.
    fn guarded(&mut self, token: usize, turn: impl FnOnce(&mut Bridge, usize)) {
        let turn = panic::catch_unwind(AssertUnwindSafe(|| turn(self, token)));
        if turn.is_err() {
            tracing::error!(token, "a channel's turn panicked; this is a fault in fencewired");
            self.close(token, "a fault of fencewired");
        }
    }

    fn at(&mut self, at: Millis, timer: Timer) {
        self.timers.push(Reverse((at, timer)));
    }

    fn due(&mut self) {
        let now = clock::now();
        while self.timers.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, timer))) = self.timers.pop() else { return };
            match timer {
                Timer::Connection(token) => self.guarded(token, |bridge, token| bridge.wake_connection(token, now)),
                Timer::Open(channel) => self.open_channel(channel),
                Timer::Housekeeping => {
                    self.fleet.relieve(now);
                    self.discover_on(now);
                    self.decide_unresolved();
                    self.conclude_late(now);
                    self.end_late_asks(now);
                    self.forget(now);
                    self.records.hand_over();
                    self.notifier.alive(now, HOUSEKEEPING);
                    self.at(now.plus(HOUSEKEEPING), Timer::Housekeeping);
                }
                Timer::Refresh => {
                    let is_due = self.fleet.is_older_than(LOOK_AROUND);
                    if is_due || self.fleet.is_incomplete() || self.roster.unbound().next().is_some() {
                        self.ask_who_is_who();
                    }
                    self.at(now.plus(REFRESH), Timer::Refresh);
                }
                Timer::Search(search) => self.end_search(search),
                // It only wakes the loop, which looks whether it may end.
                Timer::Stop => {}
            }
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Guests(hypervisor, asked, guests) => self.guests(hypervisor, asked, guests),
            Note::Said(ask, hypervisor, said) => self.said(ask, hypervisor, said),
            Note::Found(search, hypervisor, said) => self.found(search, hypervisor, said),
            Note::Marked(hypervisor, guest) => self.marked(hypervisor, guest),
            Note::Happened(hypervisor, what) => self.happened(hypervisor, what),
            Note::Looked(hypervisor, id, looked) => self.looked(hypervisor, id, looked),
            Note::Reload(config) => self.reload(*config),
            Note::Ended(order, carried) => self.ended(order, carried),
            Note::Snapshot(wanted) => self.show(wanted),
            Note::Stop => self.stop(),
        }
    }

    fn stop(&mut self) {
        if self.stopping.is_none() {
            let until = clock::now().plus(STOP_TIME);
            tracing::info!(running = !self.lanes.is_empty(), "stopping: what has begun is finished");
            self.notifier.stopping("stopping: what has begun is finished");
            self.stopping = Some(until);
            self.at(until, Timer::Stop);
        }
    }

    fn has_stopped(&mut self) -> bool {
        let Some(until) = self.stopping else { return false };
        let now = clock::now();
        if self.lanes.is_empty() && self.connections.values().all(Connection::has_sent_all) {
            let taken_by = *self.taken_by.get_or_insert(now.plus(TAKE_TIME));
            return now >= taken_by.min(until) || self.connections.values().all(|open| open.is_all_taken(now));
        }
        self.taken_by = None;
        now >= until
    }
}
