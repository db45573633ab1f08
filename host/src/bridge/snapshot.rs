//! What the bridge does at this moment, for whoever asks from outside. It looks, and changes nothing.
//!
//! Here is also what is kept only to be shown: since when a channel is as it is, and the last fences.

use super::channel::Channel;
use super::{Bridge, Handle, Note};
use crate::channels::{ChannelKind, ChannelSpec};
use crate::clock;
use crate::control::snapshot::{
    ChannelGuest, ChannelStatus, Errand, Fence, GuestStatus, LaneStatus, Link, RecordsStatus, Serving, Snapshot,
    VERSION, Wire,
};
use crate::guests::Requester;
use crate::power::lane::Task;
use crate::records::Record;
use fencewire_core::{Millis, Power, Uuid};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

/// Fences that are kept to be shown.
const FENCES: usize = 64;

/// What is kept of a channel to be shown.
#[derive(Debug)]
pub(super) struct Seen {
    /// Since when it is connected, or is not.
    since: Millis,
    heard: Option<Millis>,
    asked: Option<Millis>,
    is_native: bool,
}

impl Seen {
    pub(super) fn new() -> Seen {
        Seen { since: clock::now(), heard: None, asked: None, is_native: false }
    }

    /// It was connected, or is not any more.
    pub(super) fn changed(&mut self, now: Millis) {
        self.since = now;
    }

    /// Bytes came.
    pub(super) fn heard(&mut self) {
        self.heard = Some(clock::now());
    }

    fn asked(&mut self, is_native: bool) {
        (self.asked, self.is_native) = (Some(clock::now()), is_native);
    }
}

/// The last fences, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Lately(VecDeque<(Millis, Record)>);

impl Lately {
    pub(super) fn put(&mut self, record: &Record) {
        if self.0.len() == FENCES {
            self.0.pop_front();
        }
        self.0.push_back((clock::now(), record.clone()));
    }
}

/// Who wants a snapshot. It is called once, in the event loop's thread, and must not wait.
pub(super) struct Wanted(Box<dyn FnOnce(Snapshot) + Send>);

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wanted")
    }
}

impl Handle {
    /// Has `then` given what the bridge does. It is called in the event loop's thread, and must not wait there.
    pub fn snapshot(&self, then: impl FnOnce(Snapshot) + Send + 'static) {
        self.tell(Note::Snapshot(Wanted(Box::new(then))));
    }
}

impl Bridge {
    /// A request came on that connection.
    pub(super) fn was_asked(&mut self, connection: usize, is_native: bool) {
        let Some(connection) = self.connections.get_mut(&connection) else { return };
        if is_native {
            connection.session.get_or_insert_with(clock::now);
        }
        self.channels[connection.channel].seen.asked(is_native);
    }

    pub(super) fn show(&self, wanted: Wanted) {
        wanted.0(self.snapshot());
    }

    fn snapshot(&self) -> Snapshot {
        let now = clock::now();
        let hypervisors = self.fleet.shown(now);
        let guests = self.fleet.known();
        let sessions: HashSet<usize> =
            self.connections.values().filter(|open| open.session.is_some()).map(|open| open.channel).collect();
        let powers: HashMap<Uuid, Power> = guests.iter().map(|(uuid, _, power)| (*uuid, *power)).collect();
        let live = self.channels.iter().enumerate().filter(|(_, channel)| !channel.retired);
        let channels: Vec<ChannelStatus> =
            live.map(|(at, channel)| self.show_channel(channel, sessions.contains(&at), &powers, now)).collect();
        let records = RecordsStatus { required: self.records.is_required(), written: self.records.is_written() };
        let state = if self.stopping.is_some() { Serving::Stopping } else { Serving::Serving };
        let all_served = state == Serving::Serving
            && records.written
            && hypervisors.iter().all(|hypervisor| hypervisor.state == crate::control::snapshot::Reach::Answers)
            && channels.iter().all(|channel| channel.served);
        Snapshot {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            state,
            for_ms: now.since(self.started).0,
            all_served,
            hypervisors,
            guests: guests.into_iter().map(|(uuid, name, power)| guest(uuid, name, power)).collect(),
            channels,
            lanes: self.show_lanes(now),
            fences: self.lately.0.iter().rev().map(|(at, record)| fence(record, now.since(*at))).collect(),
            records,
        }
    }

    fn show_channel(
        &self,
        channel: &Channel,
        session: bool,
        powers: &HashMap<Uuid, Power>,
        now: Millis,
    ) -> ChannelStatus {
        let seen = &channel.seen;
        let uuid = channel.spec.guest().and_then(|guest| self.roster.member(guest));
        let (transport, group) = match &channel.spec {
            ChannelSpec::Guest(own) => (transport(own.kind), None),
            ChannelSpec::Keyed(keyed) => ("tcp", Some(keyed.group.clone())),
        };
        let state = match (channel.open, channel.listens()) {
            (1.., _) => Link::Connected,
            (0, true) => Link::Listening,
            (0, false) => Link::NotConnected,
        };
        let is_enrolled = || uuid.zip(self.wires.enrolled.as_ref()).is_some_and(|(uuid, keys)| keys.has(uuid));
        let wire = match (seen.asked, seen.is_native) {
            (None, _) => Wire::None,
            (Some(_), false) => Wire::Classic,
            (Some(_), true) if is_enrolled() => Wire::NativeKeyed,
            (Some(_), true) => Wire::NativeKeyless,
        };
        let power = uuid.and_then(|uuid| powers.get(&uuid));
        let served = match (channel.spec.guest(), power, state) {
            (None, _, state) => state != Link::NotConnected,
            (Some(_), None, _) => false,
            (_, _, Link::Connected | Link::Listening) | (_, Some(Power::Off), _) => true,
            // A guest that has just gone off is on until the hypervisors are asked again.
            (_, Some(_), Link::NotConnected) => !self.fleet.all_said_since(seen.since),
        };
        let ago = |at: Option<Millis>| at.map(|at| now.since(at).0);
        ChannelStatus {
            name: channel.name.clone(),
            transport: transport.to_owned(),
            guest: channel.spec.guest().map(|bound| ChannelGuest {
                bound: bound.to_string(),
                name: uuid.and_then(|uuid| self.roster.name(uuid)).map(str::to_owned),
                uuid: uuid.map(|uuid| uuid.to_string()),
            }),
            group,
            state,
            why: channel.trouble().filter(|_| state == Link::NotConnected).map(str::to_owned),
            for_ms: now.since(seen.since).0,
            connections: channel.open,
            heard_ms_ago: ago(seen.heard),
            asked_ms_ago: ago(seen.asked),
            wire,
            session,
            served,
        }
    }

    fn show_lanes(&self, now: Millis) -> Vec<LaneStatus> {
        let errand = |task: Task| Errand {
            action: task.action.as_str().to_owned(),
            requester: self.show_requester(task.requester),
            for_ms: now.since(task.received).0,
        };
        let mut lanes: Vec<LaneStatus> = self
            .lanes
            .shown()
            .map(|lane| LaneStatus {
                name: self.roster.name(lane.target).map(str::to_owned),
                uuid: lane.target.to_string(),
                running: lane.running.map(errand),
                joined: lane.joined,
                waiting: lane.waiting.into_iter().map(errand).collect(),
            })
            .collect();
        lanes.sort_unstable_by(|one, other| one.uuid.cmp(&other.uuid));
        lanes
    }

    fn show_requester(&self, requester: Requester) -> String {
        let name = requester.guest().and_then(|uuid| self.roster.name(uuid));
        name.map_or_else(|| requester.to_string(), str::to_owned)
    }
}

const fn transport(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Unix => "unix",
        ChannelKind::UnixListen { .. } => "unix-listen",
        ChannelKind::Tty(_) => "tty",
    }
}

fn guest(uuid: Uuid, name: String, power: Power) -> GuestStatus {
    let power = match power {
        Power::On => "on",
        Power::Off => "off",
        Power::Unknown => "unknown",
    };
    GuestStatus { name, uuid: uuid.to_string(), power: power.to_owned() }
}

fn fence(record: &Record, ago: Millis) -> Fence {
    Fence {
        ms_ago: ago.0,
        channel: record.channel.clone(),
        requester: record.requester.clone(),
        action: record.action.to_owned(),
        target: record.target.clone(),
        uuid: record.uuid.clone(),
        outcome: record.outcome.clone(),
        why: record.why.clone(),
        repeated: record.repeated,
        took_ms: record.ms,
    }
}
