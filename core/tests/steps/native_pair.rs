//! Both ends of the native wire, with a bridge, guests and a hypervisor around them; the channels between them are in the
//! hands of whoever makes the steps. What must never happen is the simulation's: `core/tests/simulation/rules.rs`.

use super::bridge::{Bridge, GUESTS, LISTED, OFFSET, Outside, Planted, STEP_MAX, guest_of, keys, uuid};
use super::by_hand::{Guest, payloads};
use super::chance::Chance;
use super::common::input::Input;
use super::hypervisor::Hypervisor;
use super::rules::{Broken, Meant, Name, Record};
use fencewire_core::native::keys::Keys;
use fencewire_core::native::message::{self, REQUEST, What, Whom};
use fencewire_core::{Ask, Client, Endpoint, Entropy, Millis, Power, PowerAction, Reply, Speak, Target};
use std::collections::HashMap;

const STEPS: usize = 120;

/// Guests that ask; the bridge has one more, which may do nothing.
const ASKERS: usize = 3;

/// Spans at, and next to, which something is due.
const SPANS: [u64; 12] = [1, 250, 299, 300, 999, 1_000, 1_001, 2_999, 3_000, 5_000, 10_000, 40_000];

/// What is under way has ended so much later, when nothing goes wrong: a lost session is noticed after 3 s, and a call has
/// three steps.
const ENDS: u64 = 3_000 + 1_500 + 4 * STEP_MAX;

/// A status on a sound channel is answered sooner than anything is repeated.
const AT_ONCE: u64 = 250;

const ENOUGH: usize = 10_000;

struct Asker {
    client: Client,
    ask: Ask,
    id: u64,
    at: Millis,
    listed: Vec<u8>,
    /// With a key that is not this guest's.
    is_impostor: bool,
}

struct Channel {
    there: Vec<u8>,
    back: Vec<u8>,
    asker: Option<Asker>,
    /// Somebody else in the guest who has its key, and makes each frame by hand.
    other: Guest,
}

struct Bed {
    now: Millis,
    keys: fn(usize) -> Keys,
    machines: Hypervisor,
    record: Record,
    bridge: Bridge,
    is_up: bool,
    channels: Vec<Channel>,
    stopped: Vec<usize>,
    meant: HashMap<Name, Meant>,
    /// All that was ever said, on any channel, in either direction.
    recording: Vec<Vec<u8>>,
    /// Requests so far.
    asked: u64,
    /// The last client's reply.
    last: Option<Reply>,
}

type Done = Result<(), Broken>;

fn keyless(_guest: usize) -> Keys {
    Keys::keyless()
}

fn name(guest: usize) -> Target {
    Target::parse(format!("vm{guest}").as_bytes()).expect("a good name")
}

impl Bed {
    fn new(input: &mut Input<'_>) -> Bed {
        let keys: fn(usize) -> Keys = if input.flag() { keyless } else { keys };
        let bridge = Bridge::new(keys, Planted::Nothing, Chance::from(input.byte().into()), Millis(0));
        let channel = |guest| Channel { there: vec![], back: vec![], asker: None, other: Guest::new(keys(guest)) };
        Bed {
            now: Millis(0),
            keys,
            machines: Hypervisor::new(GUESTS),
            record: Record::default(),
            bridge,
            is_up: true,
            channels: (0..ASKERS).map(channel).collect(),
            stopped: vec![],
            meant: HashMap::new(),
            recording: vec![],
            asked: 0,
            last: None,
        }
    }

    // The host.

    fn bridge_turns(&mut self) -> Result<bool, Broken> {
        if !self.is_up {
            return Ok(false);
        }
        let Bed { machines, record, stopped, .. } = self;
        let busy = self.bridge.turn(&mut Outside { machines, record, stopped }, self.now)?;
        self.guests_went();
        Ok(busy)
    }

    /// Guests that were put off ask no more. What they had written is still in their channels.
    fn guests_went(&mut self) {
        for guest in std::mem::take(&mut self.stopped) {
            if let Some(channel) = self.channels.get_mut(guest) {
                channel.asker = None;
            }
            if self.is_up {
                self.bridge.guest_was_reset(guest, self.now);
            }
        }
    }

    fn settles(&mut self) -> Done {
        for _ in 0..ENOUGH {
            if !self.bridge_turns()? {
                return Ok(());
            }
        }
        Err(Broken::Livelock)
    }

    fn is_killed(&mut self) -> Done {
        if !self.is_up {
            self.is_up = true;
            self.bridge.starts(self.now);
            return Ok(());
        }
        self.is_up = false;
        let Bed { machines, record, stopped, .. } = self;
        self.bridge.is_killed(&mut Outside { machines, record, stopped }, self.now)?;
        self.guests_went();
        Ok(())
    }

    // Bytes.

    fn take_there(&mut self, guest: usize, n: usize) {
        let Channel { asker: Some(asker), there, .. } = &mut self.channels[guest] else { return };
        let bytes = asker.client.transmit();
        let bytes = bytes[..n.min(bytes.len())].to_vec();
        if bytes.is_empty() {
            return;
        }
        let whole = asker.client.transmit();
        if whole.len() > 2 && whole[0] == 0 && whole[2] == REQUEST && asker.ask != Ask::List {
            self.record.sends_a_copy((guest, asker.id));
        }
        there.extend(&bytes);
        asker.client.sent(bytes.len(), self.now);
        self.recording.push(bytes);
    }

    fn take_back(&mut self, guest: usize, n: usize) {
        if !self.is_up {
            return;
        }
        let bytes = self.bridge.listeners[guest].transmit();
        let bytes = bytes[..n.min(bytes.len())].to_vec();
        self.channels[guest].back.extend(&bytes);
        self.bridge.sent(guest, bytes.len(), self.now);
        self.recording.push(bytes);
    }

    fn deliver_there(&mut self, guest: usize, n: usize) -> Done {
        if !self.is_up {
            return Ok(());
        }
        let there = &mut self.channels[guest].there;
        let bytes: Vec<u8> = there.drain(..n.min(there.len())).collect();
        let mut rest = &bytes[..];
        for _ in 0..ENOUGH {
            if rest.is_empty() {
                self.bridge.old[guest] = false;
                return Ok(());
            }
            let taken = self.bridge.reads(guest, rest, self.now);
            rest = &rest[taken..];
            self.bridge_turns()?;
        }
        Err(Broken::Livelock)
    }

    fn deliver_back(&mut self, guest: usize, n: usize) -> Done {
        let back = &mut self.channels[guest].back;
        let bytes: Vec<u8> = back.drain(..n.min(back.len())).collect();
        // Whoever reads the channel reads all of it.
        for payload in payloads(&bytes) {
            takes_welcome(&mut self.channels[guest].other, &payload);
        }
        let mut rest = &bytes[..];
        for _ in 0..ENOUGH {
            let Some(asker) = self.channels[guest].asker.as_mut().filter(|_| !rest.is_empty()) else { return Ok(()) };
            let taken = asker.client.receive(rest, self.now);
            rest = &rest[taken..];
            self.polls(guest)?;
        }
        Err(Broken::Livelock)
    }

    /// All that there is moves, until nothing more comes of it.
    fn flows(&mut self, guest: usize) -> Done {
        for _ in 0..ENOUGH {
            self.take_there(guest, usize::MAX);
            self.take_back(guest, usize::MAX);
            let Channel { there, back, .. } = &self.channels[guest];
            if (there.is_empty() || !self.is_up) && back.is_empty() {
                return Ok(());
            }
            self.deliver_there(guest, usize::MAX)?;
            self.settles()?;
            self.deliver_back(guest, usize::MAX)?;
        }
        Err(Broken::Livelock)
    }

    // The guests.

    fn begin(&mut self, guest: usize, ask: Ask, patience: u64, guarded: bool, key_of: usize) {
        self.asked += 1;
        let (id, at, deadline) = (self.asked << 8, self.now, self.now.plus(Millis(patience)));
        let target = ask.target().and_then(guest_of);
        let guard = target.filter(|_| guarded).and_then(|target| self.machines.run(target));
        // An impostor has a key all the same: another guest's, or where nobody needs one, an enrolled guest's.
        let keys = if key_of == guest { (self.keys)(guest) } else { keys(key_of) };
        let speak = Speak::Native { keys: &keys, id, guard };
        let mut client = Client::new(speak, &ask, deadline).expect("can be said");
        client.opened(&Entropy([self.asked as u8; 64]), self.now);
        let is_impostor = key_of != guest;
        if !is_impostor {
            self.record.means((guest, id), Meant { ask: ask.clone(), at, deadline, guard });
        }
        self.channels[guest].asker = Some(Asker { client, ask, id, at, listed: vec![], is_impostor });
    }

    fn polls(&mut self, guest: usize) -> Done {
        while let Some((reply, asker)) =
            self.channels[guest].asker.as_mut().and_then(|asker| Some((asker.client.poll()?, asker)))
        {
            let target = asker.ask.target().and_then(guest_of);
            match reply {
                Reply::Entry(entry) => {
                    asker.listed.push(entry.uuid.map_or(0, |uuid| uuid.as_bytes()[0]));
                    continue;
                }
                Reply::EndOfList => {
                    let listed = &asker.listed;
                    let whole = (1..=LISTED).filter(|number| number % 2 == 0).all(|number| listed.contains(&number));
                    if !whole || !listed.is_sorted_by(|a, b| a < b) {
                        return Err(Broken::BadList(listed.clone()));
                    }
                }
                Reply::Power(power) => {
                    let target = target.ok_or(Broken::Contradiction("a status of nobody"))?;
                    if power == Power::Unknown || !self.machines.was(target, power, asker.at) {
                        return Err(Broken::FalseStatus(power));
                    }
                }
                Reply::Done if asker.is_impostor => return Err(Broken::FalseSuccess(asker.ask.clone())),
                Reply::Done => {
                    if let Some(target) = target {
                        self.record.succeeded((guest, asker.id), target, &self.machines)?;
                    }
                }
                _ => {}
            }
            self.last = Some(reply);
            self.channels[guest].asker = None;
        }
        Ok(())
    }

    /// Whoever else has the guest's key may ask what the guest may ask, and how often it likes.
    fn other_asks(&mut self, guest: usize, input: &mut Input<'_>) {
        if input.below(3) == 0 {
            let hello = self.channels[guest].other.say_hello(input.byte());
            self.channels[guest].there.extend(&hello);
            self.recording.push(hello);
            return;
        }
        if self.channels[guest].other.session.is_none() {
            return;
        }
        let target = input.below(ASKERS);
        let whom = format!("vm{target}");
        let whom = Whom::Name(&whom);
        let (what, action) = input.one_of(&[
            (What::Off(whom, None), PowerAction::Off),
            (What::Reboot(whom, None), PowerAction::Reboot),
            (What::On(whom), PowerAction::On),
        ]);
        // With another body the same id would be another request: what is acted on could be either.
        let id = 1 + u64::from(input.byte() & 1) * 100 + target as u64 * 10 + action as u64;
        let until = self.now.plus(Millis(input.one_of(&[20_000, 1, 0, 5_000, 600_000, 600_001])));
        if self.meant.get(&(guest, id)).is_some_and(|before| before.deadline <= self.now) {
            // Its time is up, and nobody has to remember it: it is another request.
            self.meant.remove(&(guest, id));
            self.record.forgets((guest, id));
        }
        let fresh = Meant { ask: Ask::Power(action, name(target)), at: self.now, deadline: until, guard: None };
        let meant = self.meant.entry((guest, id)).or_insert(fresh);
        // One that is asked again never becomes younger.
        let until = until.min(meant.deadline);
        self.record.means((guest, id), meant.clone());
        self.record.sends_a_copy((guest, id));
        let frame = self.channels[guest].other.request(id, until.plus(OFFSET), what);
        self.channels[guest].there.extend(&frame);
        self.recording.push(frame);
    }

    // Time.

    fn pass(&mut self, ms: u64, flows: bool) -> Done {
        let end = self.now.plus(Millis(ms));
        for _ in 0..ENOUGH {
            for guest in 0..ASKERS {
                if flows {
                    self.flows(guest)?;
                }
                if let Some(asker) = &mut self.channels[guest].asker
                    && asker.client.wake_at().is_some_and(|at| at <= self.now)
                {
                    asker.client.wake(self.now);
                    self.polls(guest)?;
                    if flows {
                        self.flows(guest)?;
                    }
                }
            }
            self.settles()?;
            if flows {
                (0..ASKERS).try_for_each(|guest| self.flows(guest))?;
            }
            if self.now >= end {
                return Ok(());
            }
            let asker = |channel: &Channel| channel.asker.as_ref()?.client.wake_at();
            let clients = self.channels.iter().filter_map(asker);
            let next = clients.chain(self.bridge.next().filter(|_| self.is_up)).filter(|at| *at > self.now).min();
            self.now = next.map_or(end, |at| at.min(end));
        }
        Err(Broken::Livelock)
    }

    fn step(&mut self, input: &mut Input<'_>) -> Done {
        let guest = input.below(ASKERS);
        match input.below(20) {
            0 | 1 => {
                let target = input.below(GUESTS);
                let target = if input.flag() { name(target) } else { Target::Uuid(uuid(target)) };
                let power = |action| Ask::Power(action, target.clone());
                let (off, reboot) = (power(PowerAction::Off), power(PowerAction::Reboot));
                let on = power(PowerAction::On);
                let ask = input.one_of(&[off, reboot, on, Ask::Status(target.clone()), Ask::Monitor, Ask::List]);
                let patience = input.one_of(&[20_000, 1_000, 300, 5_000, 30_000]);
                let key_of = if input.below(8) == 7 { (guest + 1) % GUESTS } else { guest };
                self.begin(guest, ask, patience, input.below(4) == 3, key_of);
            }
            2..=4 => self.flows(guest)?,
            5 => self.take_there(guest, usize::from(input.byte())),
            6 => self.take_back(guest, usize::from(input.byte())),
            7 => self.deliver_there(guest, usize::from(input.byte()))?,
            8 => self.deliver_back(guest, usize::from(input.byte()))?,
            9 => self.disturb(guest, input),
            10 | 11 => {
                let Some(last) = self.recording.len().checked_sub(1) else { return Ok(()) };
                let again = self.recording[last.saturating_sub(input.below(256))].clone();
                let channel = &mut self.channels[guest];
                if input.flag() { channel.back.extend(again) } else { channel.there.extend(again) }
            }
            12 => {
                let channel = &mut self.channels[guest];
                if input.flag() { channel.back.extend(input.some()) } else { channel.there.extend(input.some()) }
            }
            13 => self.pass(input.one_of(&SPANS), false)?,
            14 => self.pass(u64::from(input.byte()), false)?,
            15 => self.pass(input.one_of(&SPANS), true)?,
            16 | 17 => self.other_asks(guest, input),
            18 => match input.below(4) {
                0 => self.channels[guest].asker = None,
                1 if self.is_up => self.bridge.guest_was_reset(guest, self.now),
                _ => self.reconnects(guest, input.flag())?,
            },
            _ => match input.below(4) {
                0 | 1 => self.is_killed()?,
                2 => self.machines.start(guest, self.now),
                _ => {
                    if self.machines.stop(guest, self.now).is_some() {
                        self.stopped.push(guest);
                        self.guests_went();
                    }
                }
            },
        }
        self.settles()
    }

    /// A piece of what is under way is lost, or a byte of it is another.
    fn disturb(&mut self, guest: usize, input: &mut Input<'_>) {
        let channel = &mut self.channels[guest];
        let bytes = if input.flag() { &mut channel.back } else { &mut channel.there };
        if bytes.is_empty() {
            return;
        }
        let at = input.below(256) % bytes.len();
        match input.below(3) {
            0 => bytes[at] ^= input.byte(),
            1 => _ = bytes.drain(at..(at + input.below(256)).min(bytes.len())),
            _ => bytes.insert(at, input.byte()),
        }
    }

    fn reconnects(&mut self, guest: usize, client_learns: bool) -> Done {
        let channel = &mut self.channels[guest];
        (channel.there, channel.back) = (vec![], vec![]);
        if self.is_up {
            self.bridge.disconnects(guest, self.now);
            self.bridge.connects(guest, self.now);
        }
        if client_learns && let Some(asker) = &mut self.channels[guest].asker {
            asker.client.closed(self.now);
            self.polls(guest)?;
        }
        Ok(())
    }

    /// Rule 4: whatever was, when nothing goes wrong any more what is asked is answered at once, and what is allowed is
    /// done.
    fn is_as_good_as_new(&mut self) -> Done {
        if !self.is_up {
            self.is_killed()?;
        }
        self.bridge.heal();
        self.pass(ENDS, true)?;
        self.channels.iter_mut().for_each(|channel| channel.asker = None);
        for guest in 0..ASKERS {
            (0..GUESTS).for_each(|guest| self.machines.start(guest, self.now));
            self.last = None;
            self.begin(guest, Ask::Status(name((guest + 1) % ASKERS)), AT_ONCE, false, guest);
            self.pass(AT_ONCE, true)?;
            if self.last != Some(Reply::Power(Power::On)) {
                return Err(Broken::NotCompleted(format!("vm{guest}'s status: {:?}", self.last)));
            }
        }
        self.begin(0, Ask::Power(PowerAction::Off, name(1)), ENDS, false, 0);
        self.pass(ENDS, true)?;
        let is_off = self.machines.power(1) == Power::Off && self.last == Some(Reply::Done);
        if is_off { Ok(()) } else { Err(Broken::NotCompleted(format!("off: {:?}", self.last))) }
    }
}

/// If it is one, and answers its hello.
fn takes_welcome(guest: &mut Guest, payload: &[u8]) {
    let Some((body, tag)) = message::split_tag(payload) else { return };
    if guest.keys.proves_welcome(&guest.hello, body, tag) {
        (guest.session, guest.counter) = (Some(guest.keys.session(&guest.hello, payload)), 0);
    }
}

/// Any steps, with keys or without.
pub(crate) fn both_ends(input: &mut Input<'_>) {
    let mut bed = Bed::new(input);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let done = bed.step(input);
        assert_eq!(done, Ok(()), "at {:?}", bed.now);
    }
    let done = bed.is_as_good_as_new();
    assert_eq!(done, Ok(()), "when all is well again");
}
