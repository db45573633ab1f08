//! A guest's clients, one after the other, a channel, and a bridge, in virtual time.

use crate::bridge::{Bridge, CALL_MAX, Planted};
use crate::chance::Chance;
use crate::common::{ENTROPY, frame, off, status, target};
use crate::line::{Faults, Line};
use crate::rules::{Broken, Origin, Record};
use fencewire_core::classic::serial::{REQUEST_LEN, decode_request};
use fencewire_core::listener::{FRAME_TIME, SETTLE};
use fencewire_core::{Ask, Client, Endpoint, Millis, Power, PowerAction, Reply, RequestKey, Speak};

/// Everything about a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Faults,
    /// So many times the channel or the guest does something by itself.
    pub(crate) incidents: u64,
}

/// From then on nothing goes wrong any more.
const HEALED: Millis = Millis(40_000);

/// More turns than that at one point in time come to nothing.
const ENOUGH: usize = 10_000;

/// When so much of a request has gone, it has been said: damage may take the place of the rest, and no end can tell.
const SEQNO_AT: usize = REQUEST_LEN - 4;

/// Where a byte that reaches the listener is from: whose request, which copy of it, which byte of that.
type Place = (RequestKey, u32, usize);

#[derive(Clone, Copy, Debug)]
enum Incident {
    Reconnect,
    GuestReset,
    ClientKilled,
    Garbage,
}

struct Asker {
    client: Client,
    ask: Ask,
    key: RequestKey,
}

pub(crate) struct World {
    now: Millis,
    chance: Chance,
    record: Record,
    bridge: Bridge,
    to_host: Line<Place>,
    to_guest: Line<Origin>,
    asker: Option<Asker>,
    next_asker: Millis,
    asked: u32,
    copies: u32,
    incidents: Vec<(Millis, Incident)>,
    settled: Millis,
    /// The copy that is just reaching the listener whole, how many of its bytes have, and since when.
    reaching: (u32, usize, Millis),
}

impl World {
    pub(crate) fn new(plan: &Plan, planted: Planted) -> World {
        let mut chance = Chance::from(plan.seed);
        let kinds = [Incident::Reconnect, Incident::GuestReset, Incident::ClientKilled, Incident::Garbage];
        let mut incidents: Vec<_> =
            (0..plan.incidents).map(|_| (Millis(chance.below(HEALED.0)), chance.one_of(&kinds))).collect();
        incidents.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let faults = plan.faults;
        let damaging = faults.damage + faults.noise + faults.drop + faults.block + plan.incidents > 0;
        let mut world = World {
            now: Millis(0),
            record: Record::new(damaging),
            bridge: Bridge::new(planted, chance.split()),
            to_host: Line::new(faults, chance.split()),
            to_guest: Line::new(faults, chance.split()),
            asker: None,
            next_asker: Millis(0),
            asked: 0,
            copies: 0,
            incidents,
            settled: SETTLE,
            reaching: (0, 0, Millis(0)),
            chance,
        };
        world.bridge.listener.opened(&ENTROPY, world.now);
        world
    }

    /// Clients ask while things go wrong; then nothing goes wrong any more, and one more asks.
    pub(crate) fn run(mut self) -> Result<(), Broken> {
        while self.now < HEALED {
            self.incidents();
            if self.asker.is_none() && self.now >= self.next_asker {
                let ask = self.any_ask();
                let patience = 2_000 + self.chance.below(28_000);
                self.begin(ask, patience);
            }
            self.turns()?;
            self.now = self.next(HEALED);
        }
        self.heal()
    }

    /// Rule 5: what is allowed is done in its time, and "done" is true.
    fn heal(mut self) -> Result<(), Broken> {
        self.asker = None;
        self.next_asker = Millis(u64::MAX);
        self.incidents.clear();
        self.to_host.heal(self.now);
        self.to_guest.heal(self.now);
        self.pass_until(HEALED.plus(Millis(1_000)))?;
        self.begin(off("omega"), CALL_MAX);
        self.pass_until(self.now.plus(Millis(CALL_MAX + 1)))?;
        let succeeded = self.asker.is_none();
        match self.bridge.power(&target("omega")) {
            _ if !succeeded => Err(Broken::NotCompleted("no reply in time".into())),
            Power::Off => Ok(()),
            _ => Err(Broken::FalseSuccess),
        }
    }

    fn pass_until(&mut self, end: Millis) -> Result<(), Broken> {
        while self.now < end {
            self.turns()?;
            self.now = self.next(end);
        }
        Ok(())
    }

    /// When something happens next, `end` at the latest. Time never stands still.
    fn next(&self, end: Millis) -> Millis {
        let asker = match &self.asker {
            Some(asker) => asker.client.wake_at(),
            None => Some(self.next_asker),
        };
        let incident = self.incidents.last().map(|(at, _)| *at);
        let next = [asker, incident, self.bridge.next(), self.to_host.next(self.now), self.to_guest.next(self.now)];
        next.into_iter().flatten().min().map_or(end, |at| at.max(self.now.plus(Millis(1))).min(end))
    }

    /// All that happens at this point in time.
    fn turns(&mut self) -> Result<(), Broken> {
        for _ in 0..ENOUGH {
            let busy = self.host_reads()?
                | self.bridge.turn(&mut self.record, self.now)?
                | self.host_writes()
                | self.guest_reads()?
                | self.guest_writes()
                | self.guest_wakes()?;
            if !busy {
                return Ok(());
            }
        }
        Err(Broken::Livelock)
    }

    // The host.

    fn host_reads(&mut self) -> Result<bool, Broken> {
        let arrived = self.to_host.read(self.now);
        for (_, place) in &arrived {
            self.reaches(*place);
        }
        let bytes: Vec<u8> = arrived.iter().map(|(byte, _)| *byte).collect();
        let mut rest = &bytes[..];
        for _ in 0..=ENOUGH {
            if rest.is_empty() {
                return Ok(!bytes.is_empty());
            }
            let taken = self.bridge.listener.receive(rest, self.now);
            rest = &rest[taken..];
            self.bridge.turn(&mut self.record, self.now)?;
        }
        Err(Broken::Livelock)
    }

    /// Follows whether a copy reaches the listener whole: in one piece, in its time, and when it is not discarded.
    fn reaches(&mut self, place: Option<Place>) {
        let (copy, reached, since) = self.reaching;
        let now = self.now;
        self.reaching = match place {
            Some((_, copy, 0)) if now >= self.settled => (copy, 1, now),
            Some((_, same, at)) if (same, at) == (copy, reached) && now.since(since) < FRAME_TIME => {
                (copy, at + 1, since)
            }
            _ => (0, 0, now),
        };
        if let (Some((key, ..)), REQUEST_LEN) = (place, self.reaching.1) {
            self.record.heard(key, now);
        }
    }

    fn host_writes(&mut self) -> bool {
        for (of, bytes) in std::mem::take(&mut self.bridge.smuggled) {
            let origin = Origin { of: Some(of), sent: self.now };
            self.to_guest.write(&bytes.map(|byte| (byte, origin)), true, self.now);
        }
        let origin = Origin { of: self.bridge.answered, sent: self.now };
        let bytes: Vec<_> = self.bridge.listener.transmit().iter().map(|&byte| (byte, origin)).collect();
        let written = if bytes.is_empty() { 0 } else { self.to_guest.write(&bytes, true, self.now) };
        self.bridge.listener.sent(written, self.now);
        written > 0
    }

    // The guest.

    fn begin(&mut self, ask: Ask, patience: u64) {
        // It empties the channel first.
        let _ = self.to_guest.read(self.now);
        self.asked += 1;
        // Its low bytes are not 0: a frame that has lost a byte is never another frame.
        let seqno = 0x0011_1111 + self.asked % 0x40 + 0x100 * (self.asked / 0x40);
        let (_, key) = decode_request(&frame(&ask, seqno)).expect("our own");
        let deadline = self.now.plus(Millis(patience));
        let mut client = Client::new(Speak::ClassicSerial { seqno }, &ask, deadline).expect("can be said");
        client.opened(&ENTROPY, self.now);
        self.asker = Some(Asker { client, ask, key });
    }

    fn any_ask(&mut self) -> Ask {
        let guests = ["alpha", "beta", "b33f94f9-8a30-4e83-9165-fd8681ee13cf"];
        let guest = self.chance.one_of(&guests);
        let action = self.chance.one_of(&[PowerAction::Off, PowerAction::Reboot, PowerAction::On]);
        match self.chance.below(8) {
            0 => Ask::Monitor,
            1 => Ask::List,
            2 => status(guest),
            _ => Ask::Power(action, target(guest)),
        }
    }

    fn guest_writes(&mut self) -> bool {
        let Some(asker) = &mut self.asker else {
            return false;
        };
        let bytes = asker.client.transmit();
        if bytes.is_empty() {
            return false;
        }
        let first = REQUEST_LEN - bytes.len();
        if first == 0 {
            self.copies += 1;
        }
        let places = (first..).map(|at| (asker.key, self.copies, at));
        let bytes: Vec<_> = bytes.iter().copied().zip(places).collect();
        let written = self.to_host.write(&bytes, first == 0, self.now);
        asker.client.sent(written, self.now);
        if first + written >= SEQNO_AT {
            self.record.said(asker.key, &asker.ask);
        }
        written > 0
    }

    fn guest_reads(&mut self) -> Result<bool, Broken> {
        if self.asker.is_none() {
            return Ok(false);
        }
        let arrived = self.to_guest.read(self.now);
        for &(byte, origin) in &arrived {
            let Some(asker) = &mut self.asker else {
                break;
            };
            let taken = asker.client.receive(&[byte], self.now);
            if taken != 1 {
                return Err(Broken::Livelock);
            }
            self.guest_polls(origin)?;
        }
        Ok(!arrived.is_empty())
    }

    fn guest_wakes(&mut self) -> Result<bool, Broken> {
        let due = |asker: &Asker| asker.client.wake_at().is_some_and(|at| at <= self.now);
        let Some(asker) = self.asker.as_mut().filter(|asker| due(asker)) else {
            return Ok(false);
        };
        asker.client.wake(self.now);
        self.guest_polls(None)?;
        Ok(true)
    }

    fn guest_polls(&mut self, last: Option<Origin>) -> Result<(), Broken> {
        while let Some((reply, asker)) = self.asker.as_mut().and_then(|asker| Some((asker.client.poll()?, asker))) {
            let success = match reply {
                Reply::Entry(_) => continue,
                Reply::Done | Reply::EndOfList => true,
                Reply::Power(power) => power != Power::Unknown,
                Reply::Failed
                | Reply::NotDone(_)
                | Reply::Denied
                | Reply::TimedOut
                | Reply::Closed
                | Reply::Dropped
                | Reply::NotProved => false,
            };
            if success {
                self.record.succeeded(asker.key, &asker.ask, last)?;
            } else if self.now > HEALED {
                return Err(Broken::NotCompleted(format!("{reply:?}")));
            }
            self.asker = None;
            self.next_asker = self.now.plus(Millis(self.chance.below(1_500)));
        }
        Ok(())
    }

    // What happens by itself.

    fn incidents(&mut self) {
        while let Some((_, incident)) = self.incidents.pop_if(|(at, _)| *at <= self.now) {
            match incident {
                Incident::Reconnect => self.reconnect(),
                Incident::GuestReset => {
                    self.asker = None;
                    self.bridge.listener.guest_was_reset(self.now);
                    self.settled = self.now.plus(SETTLE);
                }
                Incident::ClientKilled => self.asker = None,
                Incident::Garbage => self.garbage(),
            }
        }
    }

    fn reconnect(&mut self) {
        self.to_host.cut();
        self.to_guest.cut();
        self.bridge.listener.closed(self.now);
        self.bridge.listener.opened(&ENTROPY, self.now);
        self.settled = self.now.plus(SETTLE);
        // It learns of it, and there is nothing in "closed" that a rule forbids.
        if let Some(mut asker) = self.asker.take() {
            asker.client.closed(self.now);
            assert_eq!(asker.client.poll(), Some(Reply::Closed));
        }
    }

    /// Between two requests: beginnings of magics, torn frames, and bytes of any kind.
    fn garbage(&mut self) {
        let whole = |asker: &Asker| [0, REQUEST_LEN].contains(&asker.client.transmit().len());
        if !self.asker.as_ref().is_none_or(whole) {
            return;
        }
        let torn = frame(&off("nobody-said-this"), 0x11_1111);
        let any: Vec<u8> = (0..40).map(|_| self.chance.below(256) as u8).collect();
        let pieces = [&b"a"[..], b"ab", b"abb", b"abba", b"abbabb", &torn[..20], &torn[..50], &any];
        let piece = self.chance.one_of(&pieces);
        self.to_host.inject(piece, self.now);
    }
}
