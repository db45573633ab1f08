//! The hypervisors: which of them is asked what, and what their answers make together.
//!
//! With one, what it says is the answer. With several, a status, a list and the place of a power action are put together
//! from what each of them says; one that is silent is waited for a little, and then only where it matters.

use super::dispatch::Search;
use super::requests::AskId;
use super::{Bridge, Note};
use crate::clock;
use crate::config::HypervisorConfig;
use crate::control::snapshot::{HypervisorStatus, Reach};
use crate::guests::Requester;
use crate::power::hypervisor::{Guest, Hypervisor, HypervisorError, Source, State};
use crate::power::incarnation::{self, Incarnation};
use crate::power::owner::{Others, Owner, Said, owner};
use crate::power::workers::Pool;
use fencewire_core::{Millis, Power, Uuid};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;

/// Threads that only look. They have connections of their own: no status waits behind a destroy.
const QUERY_THREADS: usize = 2;

/// How long a hypervisor that does not answer is waited for when others have.
pub(super) const PATIENCE: Millis = Millis(500);

/// For so long, what the hypervisors said of who their guests are is not asked again for a name that nobody bears.
const FRESH: Millis = Millis(100);

/// For so long, a run that was seen marked is not looked at again: it could only have ended by somebody else's doing.
const MARKS_LAST: Millis = Millis(10_000);

/// One hypervisor.
pub(super) struct Node {
    uri: String,
    /// How long one power action may take here.
    pub(super) deadline: Millis,
    pub(super) power: Pool,
    pub(super) queries: Arc<Pool>,
    /// One thread that marks runs of guests. It may hang for half a minute, and nobody waits for it.
    marks: Pool,
    marking: HashSet<Uuid>,
    /// Those that were marked, or seen marked, since then.
    marked: (Millis, HashSet<Uuid>),
    /// What it said last of who its guests are.
    guests: Vec<Guest>,
    /// Since when its next answer to that is waited for.
    refreshing: Option<Millis>,
    refreshed: Option<Millis>,
    unreachable: bool,
    /// Since when it answers, or does not, and what it said last where it does not.
    since: Millis,
    why: Option<String>,
}

/// All of them, in the configuration's order.
pub(super) struct Fleet {
    pub(super) nodes: Vec<Node>,
    /// Targets that are looked for.
    pub(super) searches: HashMap<u64, Search>,
    pub(super) next_search: u64,
}

/// What a hypervisor says to a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is there.
    Here,
    /// To a status; and which run of the guest that is, where that was asked.
    State(Guest, Option<Incarnation>),
    /// To a list.
    List(Vec<Guest>),
}

/// A question that is put to every hypervisor.
pub(super) type Question = fn(&dyn Hypervisor, Option<Uuid>) -> Result<Answer, HypervisorError>;

/// A guest on a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) uuid: Uuid,
    pub(super) name: String,
    pub(super) power: Power,
}

impl Fleet {
    /// Starts the threads. `time_to_act` is the wire's.
    pub(super) fn start(
        hypervisors: Vec<(HypervisorConfig, Arc<dyn Source>)>,
        time_to_act: Millis,
    ) -> io::Result<Fleet> {
        let mut nodes = Vec::with_capacity(hypervisors.len());
        for (config, source) in hypervisors {
            nodes.push(Node {
                power: Pool::start("power", source.clone(), config.workers)?,
                queries: Arc::new(Pool::start("query", source.clone(), QUERY_THREADS)?),
                marks: Pool::start("mark", source, 1)?,
                marking: HashSet::new(),
                marked: (Millis(0), HashSet::new()),
                uri: config.uri,
                deadline: config.deadline.min(time_to_act),
                guests: Vec::new(),
                refreshing: None,
                refreshed: None,
                unreachable: false,
                since: clock::now(),
                why: None,
            });
        }
        Ok(Fleet { nodes, searches: HashMap::new(), next_search: 0 })
    }

    /// From when on after its receipt a request is answered that nobody knows what comes of it.
    pub(super) fn time_to_answer(&self) -> Millis {
        self.nodes.iter().map(|node| node.deadline).max().unwrap_or(Millis(0))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether one of them does not say who its guests are.
    pub(super) fn is_incomplete(&self) -> bool {
        let waits = |node: &Node| node.refreshed.is_none() || node.refreshing.is_some_and(overdue);
        self.nodes.iter().any(|node| node.unreachable || (self.nodes.len() > 1 && waits(node)))
    }

    /// What they said of who their guests are does not count any more, nor what they are about to say.
    pub(super) fn distrust(&mut self) {
        for node in &mut self.nodes {
            (node.refreshing, node.refreshed) = (None, None);
        }
    }

    pub(super) fn set_time_to_act(&mut self, hypervisors: &[HypervisorConfig], time_to_act: Millis) {
        for (node, config) in self.nodes.iter_mut().zip(hypervisors) {
            node.deadline = config.deadline.min(time_to_act);
        }
    }

    /// Whether one of them has not said for so long who its guests are.
    pub(super) fn is_older_than(&self, age: Millis) -> bool {
        let now = clock::now();
        self.nodes.iter().any(|node| node.refreshed.is_none_or(|at| now.since(at) >= age))
    }

    /// Whether a hypervisor is not being asked who its guests are, and has not said so for a while.
    pub(super) fn may_be_asked(&self, at: usize, pause: Millis) -> bool {
        let node = &self.nodes[at];
        node.refreshing.is_none() && node.refreshed.is_none_or(|refreshed| clock::now().since(refreshed) >= pause)
    }

    /// Whether a hypervisor has had that guest when it was last asked.
    pub(super) fn has(&self, at: usize, guest: Uuid) -> bool {
        self.nodes[at].guests.iter().any(|known| known.uuid == guest)
    }

    pub(super) fn relieve(&self, now: Millis) {
        for node in &self.nodes {
            node.power.relieve(now);
            node.queries.relieve(now);
        }
    }

    /// Whether an answer to who is who is still worth waiting for.
    fn is_refreshing(&self) -> bool {
        let alone = self.nodes.len() == 1;
        self.nodes.iter().any(|node| node.refreshing.is_some_and(|since| alone || !overdue(since)))
    }

    /// Every guest that any of them has, with the name that it has where it is active.
    fn who_is_who(&self) -> Vec<(Uuid, String)> {
        let mut names: BTreeMap<Uuid, (bool, String)> = BTreeMap::new();
        for guest in self.nodes.iter().flat_map(|node| &node.guests) {
            let is_active = Said::from(guest.state) == Said::Active;
            let known = names.entry(guest.uuid).or_insert_with(|| (is_active, guest.name.clone()));
            if is_active && !known.0 {
                *known = (true, guest.name.clone());
            }
        }
        names.into_iter().map(|(uuid, (_, name))| (uuid, name)).collect()
    }

    /// What a guest's power is by what each hypervisor says of it; for a single one, its own word.
    pub(super) fn power(said: &[Option<Result<Guest, HypervisorError>>]) -> Result<Guest, HypervisorError> {
        let silent = || HypervisorError::Unreachable("it does not answer".to_owned());
        if let [only] = said {
            return only.clone().unwrap_or_else(|| Err(silent()));
        }
        let words: Vec<Said> = said.iter().map(|said| said_of(said.as_ref())).collect();
        let of = |at: usize| said.get(at).cloned().flatten().unwrap_or_else(|| Err(silent()));
        match owner(&words) {
            Owner::On(at) => of(at),
            Owner::Off(at) => of(at).map(|guest| Guest { state: State::Off, ..guest }),
            Owner::SavedTwice | Owner::Twice => {
                Err(HypervisorError::Failed("it is active on more than one hypervisor".to_owned()))
            }
            Owner::Silent => {
                let why = said.iter().flatten().find_map(|said| said.as_ref().err().cloned());
                Err(why.filter(|why| *why != HypervisorError::NoSuchGuest).unwrap_or_else(silent))
            }
            Owner::Nowhere => Err(HypervisorError::NoSuchGuest),
        }
    }

    /// All guests, by what each hypervisor says. Of one that is silent those are on it that it had last.
    pub(super) fn list(&self, said: &[Option<Result<Vec<Guest>, HypervisorError>>]) -> Vec<Listed> {
        let mut words: BTreeMap<Uuid, (String, Vec<Said>, Power)> = BTreeMap::new();
        for (at, said) in said.iter().enumerate() {
            let (guests, answered) = match said {
                Some(Ok(guests)) => (guests, true),
                _ => (&self.nodes[at].guests, false),
            };
            for guest in guests {
                let silent = || vec![Said::NotThere; self.nodes.len()];
                let known = words.entry(guest.uuid).or_insert_with(|| (guest.name.clone(), silent(), Power::Unknown));
                known.1[at] = if answered { Said::from(guest.state) } else { Said::Silent };
                if known.1[at] == Said::Active || self.nodes.len() == 1 {
                    known.0.clone_from(&guest.name);
                    known.2 = guest.state.power();
                }
            }
        }
        let alone = self.nodes.len() == 1;
        let is_silent: Vec<bool> = said.iter().map(|said| !matches!(said, Some(Ok(_)))).collect();
        let listed = words.into_iter().map(|(uuid, (name, mut said, power))| {
            for (said, _) in said.iter_mut().zip(&is_silent).filter(|(_, silent)| **silent) {
                *said = Said::Silent;
            }
            let power = match owner(&said) {
                _ if alone => power,
                Owner::On(_) => power,
                Owner::Off(_) | Owner::SavedTwice => Power::Off,
                Owner::Twice | Owner::Silent | Owner::Nowhere => Power::Unknown,
            };
            Listed { uuid, name, power }
        });
        listed.collect()
    }

    /// How each of them is.
    pub(super) fn shown(&self, now: Millis) -> Vec<HypervisorStatus> {
        let shown = self.nodes.iter().map(|node| {
            let (state, since) = match node.refreshing {
                _ if node.unreachable => (Reach::Unreachable, node.since),
                Some(since) if overdue(since) => (Reach::Silent, since),
                None | Some(_) if node.refreshed.is_some() => (Reach::Answers, node.since),
                asked => (Reach::Silent, asked.unwrap_or(node.since)),
            };
            HypervisorStatus {
                uri: node.uri.clone(),
                state,
                for_ms: now.since(since).0,
                why: node.why.clone(),
                asked_ms_ago: node.refreshed.map(|at| now.since(at).0),
                guests: node.guests.len(),
                power: node.power.workers(),
                queries: node.queries.workers(),
            }
        });
        shown.collect()
    }

    /// Every guest, its name and its power, by what each hypervisor said last.
    pub(super) fn known(&self) -> Vec<(Uuid, String, Power)> {
        let said: Vec<_> = self.nodes.iter().map(|node| Some(Ok(node.guests.clone()))).collect();
        self.list(&said).into_iter().map(|listed| (listed.uuid, listed.name, listed.power)).collect()
    }

    /// Whether all of them have said after that who their guests are.
    pub(super) fn all_said_since(&self, since: Millis) -> bool {
        self.nodes.iter().all(|node| node.refreshed.is_some_and(|at| at > since))
    }

    pub(super) fn others(&self, than: usize) -> Others {
        let others = self.nodes.iter().enumerate().filter(|(at, _)| *at != than);
        Others::new(others.map(|(_, node)| node.queries.clone()).collect())
    }
}

fn overdue(since: Millis) -> bool {
    clock::now().since(since) >= PATIENCE
}

fn said_of(said: Option<&Result<Guest, HypervisorError>>) -> Said {
    match said {
        Some(Ok(guest)) => Said::from(guest.state),
        Some(Err(why)) => Said::from(why),
        None => Said::Silent,
    }
}

impl Bridge {
    /// Puts a question to every hypervisor; what each says comes to [`Bridge::said`].
    pub(super) fn ask_all(&self, id: AskId, of: Requester, target: Option<Uuid>, question: Question) {
        for (at, node) in self.fleet.nodes.iter().enumerate() {
            let handle = self.handle.clone();
            let ask = Box::new(move |hypervisor: Result<&dyn Hypervisor, _>| {
                handle.tell(Note::Said(id, at, hypervisor.and_then(|hypervisor| question(hypervisor, target))));
            });
            node.queries.give(Some(of), ask);
        }
    }

    /// Has an ask decided anew once the hypervisors have said who their guests are. Says false where they have just said
    /// so.
    pub(super) fn refresh(&mut self, ask: AskId) -> bool {
        let now = clock::now();
        let is_fresh = |node: &Node| node.refreshed.is_some_and(|at| now.since(at) < FRESH);
        if self.fleet.nodes.iter().all(|node| is_fresh(node) && node.refreshing.is_none()) {
            return false;
        }
        self.unresolved.push(ask);
        self.ask_who_is_who();
        true
    }

    /// Asks every hypervisor that is not being asked.
    pub(super) fn ask_who_is_who(&mut self) {
        for at in 0..self.fleet.len() {
            self.ask_who_its_guests_are(at);
        }
    }

    /// Asks a hypervisor, if it is not being asked.
    pub(super) fn ask_who_its_guests_are(&mut self, at: usize) {
        let now = clock::now();
        let time = self.fleet.time_to_answer();
        let node = &mut self.fleet.nodes[at];
        // One answer at a time; but one that never comes is not waited for for ever.
        if node.refreshing.is_some_and(|since| now.since(since) < time) {
            return;
        }
        node.refreshing = Some(now);
        let handle = self.handle.clone();
        let ask = Box::new(move |hypervisor: Result<&dyn Hypervisor, _>| {
            handle.tell(Note::Guests(at, now, hypervisor.and_then(Hypervisor::guests)));
        });
        node.queries.give(None, ask);
    }

    /// A hypervisor has said who its guests are, or that it cannot; asked at that time.
    pub(super) fn guests(&mut self, at: usize, asked: Millis, guests: Result<Vec<Guest>, HypervisorError>) {
        let node = &mut self.fleet.nodes[at];
        if node.refreshing != Some(asked) {
            return;
        }
        node.refreshing = None;
        if node.refreshed.is_none() || node.unreachable == guests.is_ok() {
            node.since = clock::now();
        }
        node.why = guests.as_ref().err().map(ToString::to_string);
        node.refreshed = Some(clock::now());
        match guests {
            Ok(guests) => {
                if node.unreachable {
                    tracing::info!(uri = node.uri, "the hypervisor answers again");
                }
                node.unreachable = false;
                self.learn(at, guests);
            }
            Err(why) => {
                if !node.unreachable {
                    let uri = &node.uri;
                    tracing::error!(uri, %why, "the hypervisor does not say who its guests are; asking again");
                }
                node.unreachable = true;
            }
        }
        self.decide_unresolved();
    }

    /// Decides what waits for who is who: what can be decided, and all of it where no answer is worth waiting for.
    pub(super) fn decide_unresolved(&mut self) {
        let is_last = !self.fleet.is_refreshing();
        for ask in std::mem::take(&mut self.unresolved) {
            if is_last || !self.is_unknown(ask) {
                self.decide(ask, true);
            } else {
                self.unresolved.push(ask);
            }
        }
    }

    /// Takes over who the guests of one hypervisor are.
    pub(super) fn learn(&mut self, at: usize, guests: Vec<Guest>) {
        let running = guests.iter().filter(|guest| Said::from(guest.state) == Said::Active);
        self.look_around(at, &running.map(|guest| guest.uuid).collect());
        self.fleet.nodes[at].guests = guests;
        let is_first = self.roster.is_empty();
        let is_complete = !self.fleet.is_incomplete();
        let learned = self.roster.learn(self.fleet.who_is_who(), is_complete);
        if !learned.bound.is_empty() || learned.unbound {
            self.policy.bind(&self.roster);
            if self.wires.enrolled.is_some() {
                // Who is at a channel's end may be another one now, with a key or without.
                self.listen_anew();
            }
        }
        for (name, uuid) in learned.bound {
            tracing::debug!(name, %uuid, "the configuration's guest is known");
        }
        for name in learned.ambiguous {
            tracing::warn!(
                name,
                "two guests bear a name of the configuration's: name the one that is meant by its UUID"
            );
        }
        self.mark_runs(at);
        if is_first {
            for name in self.roster.unbound() {
                tracing::warn!(
                    name,
                    "the configuration names a guest that the hypervisor does not know; it may come later"
                );
            }
        }
    }

    /// Marks what runs on that hypervisor and may be fenced.
    fn mark_runs(&mut self, at: usize) {
        let now = clock::now();
        let node = &mut self.fleet.nodes[at];
        if now.since(node.marked.0) >= MARKS_LAST {
            node.marked = (now, HashSet::new());
        }
        let runs = self.fleet.nodes[at].guests.iter().filter(|guest| Said::from(guest.state) == Said::Active);
        let members = runs.map(|guest| guest.uuid).filter(|guest| self.policy.has(*guest));
        for guest in members.collect::<Vec<_>>() {
            self.mark(at, guest);
        }
    }

    fn mark(&mut self, at: usize, guest: Uuid) {
        let node = &mut self.fleet.nodes[at];
        if node.marked.1.contains(&guest) || !node.marking.insert(guest) {
            return;
        }
        let handle = self.handle.clone();
        let mark = Box::new(move |hypervisor: Result<&dyn Hypervisor, HypervisorError>| {
            if let Err(why) = hypervisor.and_then(|hypervisor| incarnation::mark(hypervisor, guest)) {
                tracing::debug!(%guest, %why, "this run of it cannot be marked");
            }
            handle.tell(Note::Marked(at, guest));
        });
        node.marks.give(None, mark);
    }

    /// A guest was marked, or cannot be.
    pub(super) fn marked(&mut self, at: usize, guest: Uuid) {
        let node = &mut self.fleet.nodes[at];
        node.marking.remove(&guest);
        node.marked.1.insert(guest);
    }

    /// A guest was started: wherever it runs, that is a new run of it.
    pub(super) fn mark_anew(&mut self, guest: Uuid) {
        for at in 0..self.fleet.nodes.len() {
            self.fleet.nodes[at].marked.1.remove(&guest);
            if self.fleet.nodes[at].guests.iter().any(|known| known.uuid == guest) {
                self.mark(at, guest);
            }
        }
    }
}
