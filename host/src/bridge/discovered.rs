//! Channels that are found: who is looked at when, and what is opened and closed for it.
//!
//! A guest's XML is read by a worker whenever there is reason to: something happened to it, its socket was closed, it is
//! on a list of guests for the first time. All of them are read every so often, and when the hypervisor can be asked
//! again. What comes of that is decided in [`crate::discover`]; a hypervisor that says nothing changes nothing.

use super::channel::Channel;
use super::{Bridge, LOOK_AROUND, Note};
use crate::channels::{ChannelKind, ChannelSpec, Found, GuestChannel};
use crate::clock;
use crate::discover::reconcile::{self, Place, Wanted, Where};
use crate::discover::{self, Live, Rules};
use crate::guests::Member;
use crate::power::hypervisor::{Happening, Hypervisor, HypervisorError, Source, Watch};
use crate::power::workers::Pool;
use fencewire_core::{Millis, Uuid};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Guests whose XML is read in one go.
const GO: usize = 16;

/// After so long another thread is tried: the one before hangs.
const PATIENCE: Millis = Millis(30_000);

/// So long after its start a guest's XML may lack a socket; it is read again until then.
const YOUNG: Millis = Millis(5_000);

/// A connection that was made so long after its guest's XML was read may be to another guest, which has the path by now.
const STALE: Millis = Millis(1_000);

/// Between two times at which all that is known is gone through, while more is being read, or where there are many guests.
const PAUSE: Millis = Millis(100);

/// Many guests: to go through them takes about a millisecond.
const MANY: usize = 500;

/// How often a hypervisor is asked who its guests are because of what happens there, at most.
const LIST_PAUSE: Millis = Millis(250);

/// What is known of the guests that run, and of the channels that were opened for it.
pub(super) struct Discovery {
    rules: Arc<Rules>,
    nodes: Vec<Node>,
    /// What is served, by the sockets' real paths; and which channel that is.
    served: BTreeMap<PathBuf, (Place, usize)>,
    /// What the log was told and is still so.
    said: BTreeSet<String>,
    /// Guests that had a socket in common when all was gone through last. They were looked at for that once.
    doubtful: BTreeSet<Where>,
    /// When all was gone through last; and whether there is reason to do so again.
    reconciled: Millis,
    is_due: bool,
    /// The real paths of the configuration's own channels, as they were then.
    configured: Option<(Millis, Arc<BTreeSet<PathBuf>>)>,
    next_go: u64,
}

/// A hypervisor, as far as its guests' channels are concerned.
struct Node {
    uri: String,
    is_local: bool,
    pool: Pool,
    /// Keeps it telling.
    _watch: Option<Watch>,
    live: BTreeMap<Uuid, Known>,
    /// When those guests were started, as far as that was seen and is not long ago.
    started: BTreeMap<Uuid, Millis>,
    /// Whose XML is to be read.
    queue: BTreeSet<Uuid>,
    going: Option<Go>,
    /// When all were put into the queue last.
    swept: Option<Millis>,
    /// All were read once: who comes from now on has just been started.
    is_settled: bool,
    /// Who its guests are is to be asked.
    lists: bool,
}

/// A reading of some guests' XML.
struct Go {
    id: u64,
    since: Millis,
    guests: Vec<Uuid>,
}

/// What is known of a guest that runs.
struct Known {
    live: Live,
    /// When its XML was read: before that moment nothing of this was so for certain.
    read: Millis,
}

/// What came of reading a guest's XML. None: it does not run.
pub(super) type Looked = (Uuid, Result<Option<Live>, HypervisorError>);

impl Discovery {
    /// Starts a thread for each hypervisor. Asks nothing yet.
    pub(super) fn start(
        rules: Rules,
        sources: &[(String, Arc<dyn Source>)],
        watches: Vec<Option<Watch>>,
    ) -> io::Result<Discovery> {
        let mut nodes = Vec::with_capacity(sources.len());
        for ((uri, source), watch) in sources.iter().zip(watches) {
            let is_local = discover::is_local(uri);
            if !is_local && rules.is_on() {
                let text = "the guests of this hypervisor are on another host: their channels are not looked for";
                tracing::info!(uri, "{text}");
            }
            nodes.push(Node {
                uri: uri.clone(),
                is_local,
                pool: Pool::start("discover", source.clone(), 1)?,
                _watch: watch,
                live: BTreeMap::new(),
                started: BTreeMap::new(),
                queue: BTreeSet::new(),
                going: None,
                swept: None,
                is_settled: false,
                lists: false,
            });
        }
        Ok(Discovery {
            rules: Arc::new(rules),
            nodes,
            served: BTreeMap::new(),
            said: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            reconciled: Millis(0),
            is_due: false,
            configured: None,
            next_go: 0,
        })
    }

    /// The hypervisor's guests are looked for here.
    fn is_on(&self, at: usize) -> bool {
        self.rules.is_on() && self.nodes[at].is_local
    }

    fn wanted(&self, configured: &BTreeSet<PathBuf>, now: Millis) -> Wanted {
        let guests = self.nodes.iter().enumerate().flat_map(|(node, it)| {
            it.live.iter().map(move |(uuid, known)| reconcile::Guest {
                at: (node, *uuid),
                live: &known.live,
                is_young: it.started.get(uuid).is_some_and(|started| now.since(*started) < YOUNG),
            })
        });
        reconcile::wanted(guests, configured, &self.rules)
    }

    fn has_many(&self) -> bool {
        self.nodes.iter().map(|node| node.live.len()).sum::<usize>() >= MANY
    }

    fn live(&self, at: Where) -> Option<&Known> {
        self.nodes.get(at.0)?.live.get(&at.1)
    }
}

impl Bridge {
    /// A hypervisor tells of something. What it is has to be looked up: it may be over already.
    pub(super) fn happened(&mut self, at: usize, what: Happening) {
        let node = &mut self.discovery.nodes[at];
        tracing::debug!(uri = node.uri, ?what, "the hypervisor tells");
        match what {
            Happening::Returned => (node.swept, node.lists) = (None, true),
            Happening::Started(guest) | Happening::Arrives(guest) => {
                node.started.insert(guest, clock::now());
                // Who is not known yet is on the next list, and marked then.
                node.lists |= !self.fleet.has(at, guest);
                if self.policy.has(guest) {
                    self.mark_anew(guest);
                }
                self.look_at(at, guest);
            }
            Happening::Changed(guest) | Happening::Leaves(guest) => self.look_at(at, guest),
            // It is and has what it was and had.
            Happening::Resumed(_) => {}
            Happening::Defined(_) => node.lists = true,
        }
        self.list_if_due(at);
    }

    /// Asks a hypervisor who its guests are, if there is reason to, and not all the time.
    fn list_if_due(&mut self, at: usize) {
        let node = &mut self.discovery.nodes[at];
        if node.lists && self.fleet.may_be_asked(at, LIST_PAUSE) {
            node.lists = false;
            self.ask_who_its_guests_are(at);
        }
    }

    /// A hypervisor has said who its guests are. Those that run are read whose XML was not, or not for long; and those
    /// that did and do not any more.
    pub(super) fn look_around(&mut self, at: usize, running: &BTreeSet<Uuid>) {
        if !self.discovery.is_on(at) {
            return;
        }
        let now = clock::now();
        let node = &mut self.discovery.nodes[at];
        if node.swept.is_none_or(|swept| now.since(swept) >= LOOK_AROUND) {
            node.swept = Some(now);
            node.queue.extend(running);
            node.queue.extend(node.live.keys());
        } else {
            let known: BTreeSet<Uuid> = node.live.keys().copied().collect();
            node.queue.extend(known.symmetric_difference(running));
        }
        self.go(at);
    }

    fn look_at(&mut self, at: usize, guest: Uuid) {
        if self.discovery.is_on(at) {
            self.discovery.nodes[at].queue.insert(guest);
            self.go(at);
        }
    }

    /// Has the next guests' XML read, if none is being read.
    fn go(&mut self, at: usize) {
        let now = clock::now();
        let discovery = &mut self.discovery;
        let node = &mut discovery.nodes[at];
        if let Some(hung) = node.going.take_if(|going| now.since(going.since) >= PATIENCE) {
            node.queue.extend(hung.guests);
        }
        if node.going.is_some() || node.queue.is_empty() {
            return;
        }
        let guests: Vec<Uuid> = std::iter::from_fn(|| node.queue.pop_first()).take(GO).collect();
        discovery.next_go += 1;
        let (id, rules, handle) = (discovery.next_go, discovery.rules.clone(), self.handle.clone());
        node.going = Some(Go { id, since: now, guests: guests.clone() });
        let look = Box::new(move |hypervisor: Result<&dyn Hypervisor, HypervisorError>| {
            let look = |guest| match &hypervisor {
                Ok(hypervisor) => discover::look(*hypervisor, guest, &rules),
                Err(why) => Err(why.clone()),
            };
            let looked: Vec<Looked> = guests.into_iter().map(|guest| (guest, look(guest))).collect();
            handle.tell(Note::Looked(at, id, looked));
        });
        node.pool.give(None, look);
    }

    /// Guests' XML was read, or could not be.
    pub(super) fn looked(&mut self, at: usize, id: u64, looked: Vec<Looked>) {
        let node = &mut self.discovery.nodes[at];
        let Some(going) = node.going.take_if(|going| going.id == id) else {
            // It was given up, and may be older than what is known.
            node.queue.extend(looked.into_iter().map(|(guest, _)| guest));
            return self.go(at);
        };
        for (guest, live) in looked {
            node.learn(guest, live, going.since);
        }
        node.is_settled |= node.queue.is_empty() && node.swept.is_some();
        self.discovery.is_due = true;
        self.go(at);
        let has_more = self.discovery.nodes[at].going.is_some() || self.discovery.has_many();
        if !has_more || clock::now().since(self.discovery.reconciled) >= PAUSE {
            self.reconcile();
        }
    }

    /// What is due for no other reason than that time has passed.
    pub(super) fn discover_on(&mut self, now: Millis) {
        for at in 0..self.discovery.nodes.len() {
            let node = &mut self.discovery.nodes[at];
            node.pool.relieve(now);
            // A little longer, so that it is said what they lack.
            node.started.retain(|_, started| now.since(*started) < YOUNG.plus(Millis(1_000)));
            let is_incomplete = |guest: &&Uuid| node.live.get(*guest).is_some_and(|known| known.live.is_incomplete());
            let incomplete: Vec<Uuid> = node.started.keys().filter(is_incomplete).copied().collect();
            node.queue.extend(incomplete);
            self.go(at);
            self.list_if_due(at);
        }
        if self.discovery.is_due && now.since(self.discovery.reconciled) >= PAUSE {
            self.reconcile();
        }
    }

    /// Opens, closes and says what is to be, by all that is known.
    fn reconcile(&mut self) {
        let now = clock::now();
        self.discovery.is_due = false;
        let configured = self.configured_paths();
        let wanted = self.discovery.wanted(&configured, now);
        self.say(&wanted);
        let served = self.discovery.served.iter().map(|(real, (place, _))| (real.clone(), place.clone())).collect();
        let changes = reconcile::changes(&served, &wanted.places);
        let has_changed = changes != reconcile::Changes::default();
        for real in changes.gone {
            if let Some((_, channel)) = self.discovery.served.remove(&real) {
                self.retire(channel, "its guest does not run any more, or has it no longer");
            }
        }
        for (real, place) in changes.new {
            self.serve(real, place);
        }
        self.open_again();
        let doubtful = std::mem::replace(&mut self.discovery.doubtful, wanted.doubtful);
        let new: Vec<Where> = self.discovery.doubtful.difference(&doubtful).copied().collect();
        for at in new {
            self.look_at(at.0, at.1);
        }
        if has_changed && self.stopping.is_none() {
            self.notifier.status(&self.status());
        }
        self.discovery.reconciled = clock::now();
    }

    fn configured_paths(&mut self) -> Arc<BTreeSet<PathBuf>> {
        let now = clock::now();
        if let Some((since, paths)) = &self.discovery.configured
            && now.since(*since) < LOOK_AROUND
        {
            return paths.clone();
        }
        let own = self.channels.iter().filter(|channel| !channel.retired && channel.spec.found().is_none());
        let paths = own.filter_map(|channel| match &channel.spec {
            ChannelSpec::Guest(own) => Some([own.path.clone(), discover::real_path(&own.path)]),
            ChannelSpec::Keyed(_) => None,
        });
        let paths: Arc<BTreeSet<PathBuf>> = Arc::new(paths.flatten().collect());
        self.discovery.configured = Some((now, paths.clone()));
        paths
    }

    /// Each thing once, and again when it has been otherwise.
    fn say(&mut self, wanted: &Wanted) {
        for line in wanted.refused.difference(&self.discovery.said) {
            tracing::warn!("{line}");
        }
        for line in wanted.remarks.difference(&self.discovery.said) {
            tracing::info!("{line}");
        }
        self.discovery.said = wanted.refused.union(&wanted.remarks).cloned().collect();
    }

    fn serve(&mut self, real: PathBuf, place: Place) {
        let rules = &self.discovery.rules;
        let found =
            Found { directory: rules.directory.clone().filter(|_| place.is_confined), owners: rules.owners.clone() };
        let spec = ChannelSpec::Guest(GuestChannel {
            kind: ChannelKind::Unix,
            path: place.path.clone(),
            guest: Member::Uuid(place.at.1),
            port: place.port,
            found: Some(found),
        });
        let (path, who) = (place.path.display(), reconcile::shown(&place.name, place.at.1));
        tracing::info!("serving channel {path}, found in guest {who} on {}", self.discovery.nodes[place.at.0].uri);
        let mut channel = Channel::new(spec);
        channel.place = Some(place.at);
        let at = self.put_channel(channel);
        self.discovery.served.insert(real, (place, at));
        self.open_channel(at);
    }

    /// Opens what was closed and is still to be served, by XML that was read after that.
    fn open_again(&mut self) {
        let now = clock::now();
        let is_certain = |(place, channel): &&(Place, usize)| {
            let doubted = self.channels[*channel].doubted;
            doubted.is_some_and(|since| self.discovery.live(place.at).is_some_and(|known| known.read >= since))
        };
        let certain: Vec<usize> =
            self.discovery.served.values().filter(is_certain).map(|(_, channel)| *channel).collect();
        for at in certain {
            self.channels[at].doubted = None;
            if self.channels[at].open == 0 {
                self.open_later(at, now);
            }
        }
    }

    /// A connection of a channel was made. If it was found, and may lead to somebody else by now, that is looked into, and
    /// what comes on it is discarded until then.
    pub(super) fn found_connected(&mut self, channel: usize) {
        let Some(at) = self.channels[channel].place else { return };
        let is_stale = |known: &Known| clock::now().since(known.read) >= STALE;
        if self.discovery.live(at).is_none_or(is_stale) {
            self.channels[channel].doubted = Some(clock::now());
            self.look_at(at.0, at.1);
        }
    }

    /// The connection of a channel has ended. If it was found, it is not opened again before its guest was looked at: the
    /// path may be another guest's by now.
    pub(super) fn found_closed(&mut self, channel: usize) {
        let Some(at) = self.channels[channel].place else { return };
        self.channels[channel].doubted = Some(clock::now());
        self.look_at(at.0, at.1);
    }

    /// Whose channel that is, for people, where it was found: its name as it is now, and the UUID that it is bound to.
    pub(super) fn found_name(&self, channel: usize) -> Option<String> {
        let (_, guest) = self.channels[channel].place?;
        self.roster.name(guest).map(|name| reconcile::shown(name, guest))
    }

    /// Other rules in place of those that were. What is to be served by both is not touched.
    pub(super) fn rediscover(&mut self, rules: Rules) {
        let discovery = &mut self.discovery;
        let before = std::mem::replace(&mut discovery.rules, Arc::new(rules));
        let is_same = before == discovery.rules;
        for node in &mut discovery.nodes {
            node.swept = None;
            if !is_same && let Some(by_old_rules) = node.going.take() {
                node.queue.extend(by_old_rules.guests);
            }
            if !discovery.rules.is_on() {
                node.live.clear();
                node.queue.clear();
            }
        }
        if before.owners != discovery.rules.owners {
            for (_, channel) in std::mem::take(&mut discovery.served).into_values() {
                self.retire(channel, "discover.owners has changed");
            }
        }
        self.discovery.said.clear();
        self.discovery.configured = None;
        self.reconcile();
    }
}

impl Node {
    fn learn(&mut self, guest: Uuid, live: Result<Option<Live>, HypervisorError>, read: Millis) {
        let is_known = self.live.contains_key(&guest);
        match live {
            Ok(Some(live)) => {
                if self.is_settled && !is_known {
                    self.started.entry(guest).or_insert_with(clock::now);
                }
                self.live.insert(guest, Known { live, read });
            }
            Ok(None) => {
                self.live.remove(&guest);
            }
            // What is served stays. All are read again when it answers.
            Err(HypervisorError::Unreachable(why)) => {
                (self.swept, self.lists) = (None, true);
                tracing::debug!(uri = self.uri, %guest, why, "its XML cannot be had");
            }
            Err(why) if !is_known => {
                let live = Live { name: guest.to_string(), ports: Err(why.to_string()) };
                self.live.insert(guest, Known { live, read });
            }
            Err(why) => tracing::debug!(uri = self.uri, %guest, %why, "its XML cannot be had"),
        }
    }
}
