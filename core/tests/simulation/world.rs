//! The guests with their clients, the channels, and time.

use crate::bent::Bent;
use crate::bridge::{Bridge, GUESTS, LISTED, Outside, Planted, STEP_MAX, guest_of, keys, uuid};
use crate::chance::Chance;
use crate::hypervisor::Hypervisor;
use crate::line::{Faults, Line};
use crate::rules::{Broken, Meant, Record};
use fencewire_core::native::message::{HELLO, REQUEST};
use fencewire_core::{Ask, Client, Endpoint, Entropy, Millis, Power, PowerAction, Reply, Speak, Target};

/// From then on nothing goes wrong any more.
const HEALED: Millis = Millis(30_000);

/// What is asked then, and what is still asked, has ended so much later: a session that is lost is noticed after 3 s, and a
/// call has three steps.
const ENDS: Millis = Millis(3_000 + 1_500 + 4 * STEP_MAX);

/// A status on a sound channel is answered sooner than anything is repeated.
const AT_ONCE: Millis = Millis(250);

/// More turns than that at one point in time come to nothing.
const ENOUGH: usize = 10_000;

/// Bytes that an adversary keeps of all that was ever said.
const KEPT: usize = 6_000;

#[derive(Clone, Copy, Debug)]
enum Incident {
    Reconnect(usize),
    GuestReset(usize),
    ClientKilled(usize),
    Garbage(usize),
    Replay(usize),
    Impostor(usize),
    BridgeKilled,
    Started(usize),
    Stopped(usize),
}

struct Asker {
    client: Client,
    ask: Ask,
    id: u64,
    at: Millis,
    deadline: Millis,
    listed: Vec<u8>,
    /// With a key that is not this guest's.
    is_impostor: bool,
}

struct Guest {
    there: Line,
    back: Line,
    asker: Option<Asker>,
    next: Millis,
    hears_bent: Bent,
    asks_bent: Bent,
}

pub(crate) struct World {
    now: Millis,
    planted: Planted,
    chance: Chance,
    machines: Hypervisor,
    record: Record,
    bridge: Bridge,
    /// When a killed bridge is started again.
    up_at: Option<Millis>,
    guests: Vec<Guest>,
    incidents: Vec<(Millis, Incident)>,
    /// The adversary's recording.
    said: Vec<u8>,
    stopped: Vec<usize>,
}

impl World {
    pub(crate) fn new(seed: u64, planted: Planted) -> World {
        let mut chance = Chance::from(seed);
        let bridge = Bridge::new(keys, planted, chance.split(), Millis(0));
        let guests = (0..GUESTS)
            .map(|guest| Guest {
                there: Line::new(Faults::any(&mut chance), chance.split()),
                back: Line::new(Faults::any(&mut chance), chance.split()),
                asker: None,
                next: Millis(chance.below(2_000)),
                hears_bent: Bent::new(planted, keys(guest)),
                asks_bent: Bent::new(planted, keys(guest)),
            })
            .collect();
        let number = if chance.happens(250) { 0 } else { chance.below(60) };
        let mut incidents: Vec<_> = (0..number).map(|_| (Millis(chance.below(HEALED.0)), any(&mut chance))).collect();
        incidents.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        World {
            now: Millis(0),
            planted,
            machines: Hypervisor::new(GUESTS),
            record: Record::default(),
            bridge,
            up_at: None,
            guests,
            incidents,
            said: Vec::new(),
            stopped: Vec::new(),
            chance,
        }
    }

    pub(crate) fn run(mut self) -> Result<(), Broken> {
        while self.now < HEALED {
            self.incidents()?;
            for guest in 0..GUESTS {
                let is_up = self.machines.power(guest) == Power::On;
                if is_up && self.guests[guest].asker.is_none() && self.now >= self.guests[guest].next {
                    let ask = self.any_ask();
                    let patience = 500 + self.chance.below(29_500);
                    self.begin(guest, ask, Millis(patience), guest);
                }
            }
            self.turns()?;
            self.now = self.next(HEALED);
        }
        self.heal()
    }

    /// Rule 4: what is under way ends, what is asked is answered at once, and what is allowed is done.
    fn heal(mut self) -> Result<(), Broken> {
        self.incidents.clear();
        self.up_at = self.up_at.map(|_| self.now);
        self.bridge.heal();
        for guest in &mut self.guests {
            guest.there.heal(self.now);
            guest.back.heal(self.now);
            guest.next = Millis(u64::MAX);
        }
        let mut patient = Vec::new();
        for guest in 0..GUESTS {
            let asker = self.guests[guest].asker.as_ref().filter(|asker| !asker.is_impostor);
            patient.extend(asker.filter(|asker| asker.deadline > self.now.plus(ENDS)).map(|asker| (guest, asker.id)));
        }
        self.pass(ENDS)?;
        for (guest, id) in patient {
            if self.guests[guest].asker.as_ref().is_some_and(|asker| asker.id == id) {
                return Err(Broken::NotCompleted(format!("what vm{guest} asked before")));
            }
        }
        for guest in 0..GUESTS {
            self.machines.start(guest, self.now);
            self.guests[guest].asker = None;
            // Half a frame, or anything without a zero in it, waits in the channel.
            let garbage: Vec<u8> = (0..self.chance.below(20)).map(|_| 1 + self.chance.below(255) as u8).collect();
            self.guests[guest].there.inject(&garbage, self.now);
            self.guests[guest].back.inject(&garbage, self.now);
            let target = (guest + 1) % GUESTS;
            self.begin(guest, Ask::Status(name(target)), AT_ONCE, guest);
            self.pass(AT_ONCE.plus(Millis(1)))?;
        }
        self.begin(0, Ask::Power(PowerAction::Off, name(1)), ENDS, 0);
        self.pass(ENDS.plus(Millis(1)))?;
        match self.machines.power(1) {
            Power::Off => Ok(()),
            _ => Err(Broken::NotCompleted("off, and it runs".into())),
        }
    }

    fn pass(&mut self, time: Millis) -> Result<(), Broken> {
        let end = self.now.plus(time);
        while self.now < end {
            self.incidents()?;
            self.turns()?;
            self.now = self.next(end);
        }
        Ok(())
    }

    /// When something happens next, `end` at the latest. Time never stands still.
    fn next(&self, end: Millis) -> Millis {
        let now = self.now;
        let guests = self.guests.iter().flat_map(|guest| {
            let asker = guest.asker.as_ref().map_or(Some(guest.next), |asker| asker.client.wake_at());
            [asker, guest.there.next(now), guest.back.next(now)]
        });
        let bridge = self.up_at.map_or_else(|| self.bridge.next(), Some);
        let incident = self.incidents.last().map(|(at, _)| *at);
        let all = guests.chain([bridge, incident]).flatten();
        // What has arrived for nobody is not waited for.
        all.filter(|at| *at > now).min().map_or(end, |at| at.min(end)).min(now.plus(Millis(100))).min(end)
    }

    /// All that happens at this point in time.
    fn turns(&mut self) -> Result<(), Broken> {
        for _ in 0..ENOUGH {
            let mut busy = false;
            for guest in 0..GUESTS {
                busy |= self.host_reads(guest)?;
                busy |= self.host_writes(guest);
                busy |= self.guest_reads(guest)?;
                busy |= self.guest_writes(guest);
                busy |= self.guest_wakes(guest)?;
            }
            if !(busy | self.bridge_turns()?) {
                return Ok(());
            }
        }
        Err(Broken::Livelock)
    }

    // The host.

    fn bridge_turns(&mut self) -> Result<bool, Broken> {
        if self.up_at.is_some() {
            return Ok(false);
        }
        let (machines, record, stopped) = (&mut self.machines, &mut self.record, &mut self.stopped);
        let busy = self.bridge.turn(&mut Outside { machines, record, stopped }, self.now)?;
        self.guests_went();
        Ok(busy)
    }

    /// Guests that were put off ask no more. What they had written is still in their channels, or is not.
    fn guests_went(&mut self) {
        for guest in std::mem::take(&mut self.stopped) {
            self.guests[guest].asker = None;
            if self.chance.happens(500) {
                self.guests[guest].there.cut();
                self.guests[guest].back.cut();
            }
            if self.up_at.is_none() {
                self.bridge.guest_was_reset(guest, self.now);
            }
        }
    }

    fn host_reads(&mut self, guest: usize) -> Result<bool, Broken> {
        if self.up_at.is_some() {
            return Ok(false);
        }
        let arrived = self.guests[guest].there.read(self.now);
        let bytes = self.guests[guest].hears_bent.before_listener(arrived);
        let mut rest = &bytes[..];
        for _ in 0..=ENOUGH {
            if rest.is_empty() {
                self.bridge.old[guest] = false;
                return Ok(!bytes.is_empty());
            }
            let taken = self.bridge.reads(guest, rest, self.now);
            rest = &rest[taken..];
            // With these bytes' frames a session may be made that the next of them are looked at for.
            self.host_writes(guest);
            self.bridge_turns()?;
        }
        Err(Broken::Livelock)
    }

    fn host_writes(&mut self, guest: usize) -> bool {
        if self.up_at.is_some() {
            return false;
        }
        let bytes = self.bridge.listeners[guest].transmit().to_vec();
        let written = if bytes.is_empty() { 0 } else { self.guests[guest].back.write(&bytes, self.now) };
        self.guests[guest].hears_bent.after_listener(&bytes[..written]);
        self.keep(&bytes[..written]);
        self.bridge.sent(guest, written, self.now);
        written > 0
    }

    // The guests.

    fn begin(&mut self, guest: usize, ask: Ask, patience: Millis, key_of: usize) {
        if self.chance.happens(500) {
            // It empties the channel first.
            let _ = self.guests[guest].back.read(self.now);
        }
        let (id, at, deadline) = (self.chance.below(u64::MAX), self.now, self.now.plus(patience));
        let target = ask.target().and_then(guest_of);
        let guard = target.filter(|_| self.chance.happens(300)).and_then(|target| self.machines.run(target));
        let speak = Speak::Native { keys: &keys(key_of), id, guard };
        let mut client = Client::new(speak, &ask, deadline).expect("can be said");
        client.opened(&self.entropy(), self.now);
        let is_impostor = key_of != guest;
        if !is_impostor {
            self.record.means((guest, id), Meant { ask: ask.clone(), at, deadline, guard });
        }
        self.guests[guest].asker = Some(Asker { client, ask, id, at, deadline, listed: vec![], is_impostor });
    }

    fn entropy(&mut self) -> Entropy {
        let mut entropy = [0; 64];
        entropy.fill_with(|| self.chance.below(256) as u8);
        Entropy(entropy)
    }

    fn any_ask(&mut self) -> Ask {
        let guest = self.chance.below(GUESTS as u64) as usize;
        let target = if self.chance.happens(500) { name(guest) } else { Target::Uuid(uuid(guest)) };
        match self.chance.below(10) {
            0 => Ask::Monitor,
            1 | 2 => Ask::List,
            3 | 4 => Ask::Status(target),
            5 | 6 => Ask::Power(PowerAction::Off, target),
            7 | 8 => Ask::Power(PowerAction::Reboot, target),
            _ => Ask::Power(PowerAction::On, target),
        }
    }

    fn guest_writes(&mut self, guest: usize) -> bool {
        let Guest { asker: Some(asker), there, asks_bent, .. } = &mut self.guests[guest] else { return false };
        let mut bytes = asker.client.transmit().to_vec();
        if bytes.is_empty() {
            return false;
        }
        let begins = bytes[0] == 0 && bytes.len() > 1;
        if begins && bytes[2] == REQUEST && asker.ask != Ask::List {
            self.record.sends_a_copy((guest, asker.id));
        }
        if begins && self.planted == Planted::NoLeadingZero && (bytes[2] == HELLO || bytes[2] == REQUEST) {
            asker.client.sent(1, self.now);
            bytes.remove(0);
        }
        let written = there.write(&bytes, self.now);
        asks_bent.after_client(&bytes[..written]);
        asker.client.sent(written, self.now);
        self.keep(&bytes[..written]);
        written > 0
    }

    fn guest_reads(&mut self, guest: usize) -> Result<bool, Broken> {
        if self.guests[guest].asker.is_none() {
            return Ok(false);
        }
        let arrived = self.guests[guest].back.read(self.now);
        let bytes = self.guests[guest].asks_bent.before_client(arrived);
        let mut rest = &bytes[..];
        for _ in 0..=ENOUGH {
            let Some(asker) = self.guests[guest].asker.as_mut().filter(|_| !rest.is_empty()) else {
                return Ok(!bytes.is_empty());
            };
            let taken = asker.client.receive(rest, self.now);
            rest = &rest[taken..];
            self.guest_polls(guest)?;
        }
        Err(Broken::Livelock)
    }

    fn guest_wakes(&mut self, guest: usize) -> Result<bool, Broken> {
        let Some(asker) = &mut self.guests[guest].asker else { return Ok(false) };
        if asker.client.wake_at().is_none_or(|at| at > self.now) {
            return Ok(false);
        }
        asker.client.wake(self.now);
        self.guest_polls(guest)?;
        Ok(true)
    }

    fn guest_polls(&mut self, guest: usize) -> Result<(), Broken> {
        while let Some((reply, asker)) =
            self.guests[guest].asker.as_mut().and_then(|asker| Some((asker.client.poll()?, asker)))
        {
            let target = asker.ask.target().and_then(guest_of);
            let failed = match reply {
                Reply::Entry(entry) => {
                    asker.listed.push(entry.uuid.map_or(0, |uuid| uuid.as_bytes()[0]));
                    continue;
                }
                Reply::EndOfList => {
                    let whole = (1..=LISTED).filter(|number| number % 2 == 0);
                    let listed = &asker.listed;
                    if !listed.is_sorted_by(|a, b| a < b) || whole.into_iter().any(|number| !listed.contains(&number)) {
                        return Err(Broken::BadList(listed.clone()));
                    }
                    false
                }
                Reply::Power(power) => {
                    let target = target.ok_or(Broken::Contradiction("a status of nobody"))?;
                    if power == Power::Unknown || !self.machines.was(target, power, asker.at) {
                        return Err(Broken::FalseStatus(power));
                    }
                    false
                }
                Reply::Done => {
                    if asker.is_impostor {
                        return Err(Broken::FalseSuccess(asker.ask.clone()));
                    }
                    if let Some(target) = target {
                        self.record.succeeded((guest, asker.id), target, &self.machines)?;
                    }
                    false
                }
                _ => true,
            };
            if failed && self.now > HEALED.plus(ENDS) {
                return Err(Broken::NotCompleted(format!("{reply:?} to {:?}", asker.ask)));
            }
            self.guests[guest].asker = None;
            if self.now < HEALED {
                self.guests[guest].next = self.now.plus(Millis(self.chance.below(1_500)));
            }
        }
        Ok(())
    }

    // What happens by itself.

    fn incidents(&mut self) -> Result<(), Broken> {
        if self.up_at.is_some_and(|at| at <= self.now) {
            self.up_at = None;
            self.bridge.starts(self.now);
        }
        while let Some((_, incident)) = self.incidents.pop_if(|(at, _)| *at <= self.now) {
            self.incident(incident)?;
        }
        Ok(())
    }

    fn incident(&mut self, incident: Incident) -> Result<(), Broken> {
        match incident {
            Incident::Reconnect(guest) => {
                self.guests[guest].there.cut();
                self.guests[guest].back.cut();
                if self.up_at.is_none() {
                    self.bridge.disconnects(guest, self.now);
                    self.bridge.connects(guest, self.now);
                }
                // Its client learns of it, or does not.
                if self.chance.happens(500)
                    && let Some(asker) = &mut self.guests[guest].asker
                {
                    asker.client.closed(self.now);
                    self.guest_polls(guest)?;
                }
            }
            Incident::GuestReset(guest) => {
                self.guests[guest].asker = None;
                if self.up_at.is_none() && self.chance.happens(500) {
                    self.bridge.guest_was_reset(guest, self.now);
                }
            }
            Incident::ClientKilled(guest) => self.guests[guest].asker = None,
            Incident::Garbage(guest) => {
                let garbage: Vec<u8> = (0..self.chance.below(60)).map(|_| self.chance.below(256) as u8).collect();
                self.guests[guest].there.inject(&garbage, self.now);
                self.guests[guest].back.inject(&garbage, self.now);
            }
            Incident::Replay(guest) => {
                // Of anybody's, in either direction, whole frames or not.
                let length = self.said.len() as u64 + 1;
                let from = self.chance.below(length) as usize;
                let piece = self.said[from..].iter().copied().take(self.chance.below(900) as usize);
                let piece: Vec<u8> = piece.collect();
                self.guests[guest].there.inject(&piece, self.now);
                self.guests[guest].back.inject(&piece, self.now);
            }
            Incident::Impostor(guest) => {
                let ask = Ask::Power(PowerAction::Off, name(self.chance.below(3) as usize));
                self.begin(guest, ask, Millis(5_000), (guest + 1) % GUESTS);
            }
            Incident::BridgeKilled if self.up_at.is_none() => {
                let (machines, record, stopped) = (&mut self.machines, &mut self.record, &mut self.stopped);
                self.up_at = Some(self.now.plus(Millis(1 + self.chance.below(4_000))));
                self.bridge.is_killed(&mut Outside { machines, record, stopped }, self.now)?;
                if self.chance.happens(250) {
                    self.bridge.loses_its_journal();
                }
                self.guests_went();
            }
            Incident::BridgeKilled => {}
            Incident::Started(guest) => self.machines.start(guest, self.now),
            Incident::Stopped(guest) => {
                if self.machines.stop(guest, self.now).is_some() {
                    self.stopped.push(guest);
                    self.guests_went();
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.said.extend(bytes);
        let too_many = self.said.len().saturating_sub(KEPT);
        self.said.drain(..too_many);
    }
}

fn name(guest: usize) -> Target {
    Target::parse(format!("vm{guest}").as_bytes()).expect("a good name")
}

fn any(chance: &mut Chance) -> Incident {
    let guest = chance.below(GUESTS as u64) as usize;
    match chance.below(12) {
        0 => Incident::Reconnect(guest),
        1 => Incident::GuestReset(guest),
        2 => Incident::ClientKilled(guest),
        3 => Incident::Garbage(guest),
        4..=6 => Incident::Replay(guest),
        7 => Incident::Impostor(guest),
        8 => Incident::BridgeKilled,
        9 | 10 => Incident::Started(guest),
        _ => Incident::Stopped(guest),
    }
}
