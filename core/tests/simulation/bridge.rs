//! The host's side: a listener for each guest, a ledger for each requester, who may fence whom, a journal that outlives the
//! bridge, and power calls that take their time. As small as it can be and keep all five rules.

use super::chance::Chance;
use super::hypervisor::Hypervisor;
use super::rules::{Broken, Record};
use fencewire_core::native::keys::Keys;
use fencewire_core::{
    Accept, Admit, Answer, Ask, Details, Endpoint, Entropy, Event, Failure, Incarnation, Ledger, ListEntry, Listener,
    Millis, NativeAccept, NotNow, Observation, Outcome, Permit, Power, PowerAction, Remembered, Request, RequestId,
    RequestKey, Restart, Target, Uuid,
};
use std::collections::{HashMap, VecDeque};

/// Guests; all but the last may fence one another.
pub(crate) const GUESTS: usize = 4;

/// A step of a power call takes less than this; a call has three.
pub(crate) const STEP_MAX: u64 = 1_000;

/// The host's clock is so much later.
pub(crate) const OFFSET: Millis = Millis(7_000_000);

/// Guests on a list that are there all the time: the even numbers up to this.
pub(crate) const LISTED: u8 = 40;

/// A fault that a rule must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    NoLedger,
    NoJournal,
    OneInstance,
    NoGuard,
    NoDeadline,
    NoConfirmation,
    NoPolicy,
    NoShootOut,
    OldStatus,
    Deaf,
    AnothersKey,
    // In `bent.rs`: ends that leave a check out.
    NoTag,
    NoCounter,
    NoNonce,
    NoLeadingZero,
    NoId,
}

pub(crate) fn keys(guest: usize) -> Keys {
    Keys::derive(b"the host's master key", uuid(guest), 1)
}

pub(crate) fn uuid(guest: usize) -> Uuid {
    Uuid::from_bytes([guest as u8 + 1; 16])
}

pub(crate) fn guest_of(target: &Target) -> Option<usize> {
    (0..GUESTS).find(|&guest| match target {
        Target::Uuid(asked) => *asked == uuid(guest),
        Target::Name(name) => name.as_str() == format!("vm{guest}"),
    })
}

fn may(who: usize, target: usize) -> bool {
    who != target && who < GUESTS - 1 && target < GUESTS - 1
}

enum Step {
    Act,
    Look,
    Start(Outcome),
}

struct Call {
    who: usize,
    target: usize,
    action: PowerAction,
    request: Request,
    permit: Permit,
    /// Which run of the target an earlier bridge began with.
    earlier: Option<Incarnation>,
    step: Step,
    at: Millis,
}

struct Written {
    who: usize,
    key: RequestKey,
    until: Millis,
    what: Remembered,
    run: Option<Incarnation>,
}

/// Everything outside the bridge that it touches.
pub(crate) struct Outside<'a> {
    pub(crate) machines: &'a mut Hypervisor,
    pub(crate) record: &'a mut Record,
    /// Guests that were put off.
    pub(crate) stopped: &'a mut Vec<usize>,
}

pub(crate) struct Bridge {
    pub(crate) listeners: Vec<Listener>,
    /// Until what is in the channels since before it was connected was read.
    pub(crate) old: Vec<bool>,
    keys: fn(usize) -> Keys,
    planted: Planted,
    chance: Chance,
    ledgers: Vec<Ledger<256>>,
    calls: Vec<Call>,
    out: HashMap<(usize, RequestId), Request>,
    listings: HashMap<usize, VecDeque<u8>>,
    journal: Vec<Written>,
    /// The journal's name.
    instance: u64,
    statuses: HashMap<usize, Power>,
    /// Out of a thousand: a guest that a destroy does not put off.
    stubborn: u64,
}

impl Bridge {
    pub(crate) fn new(keys: fn(usize) -> Keys, planted: Planted, mut chance: Chance, now: Millis) -> Bridge {
        let stubborn = if chance.happens(500) { 0 } else { chance.below(500) };
        let mut bridge = Bridge {
            listeners: Vec::new(),
            old: vec![true; GUESTS],
            keys,
            planted,
            chance,
            ledgers: Vec::new(),
            calls: Vec::new(),
            out: HashMap::new(),
            listings: HashMap::new(),
            journal: Vec::new(),
            instance: 0,
            statuses: HashMap::new(),
            stubborn,
        };
        bridge.loses_its_journal();
        bridge.starts(now);
        bridge
    }

    /// To a guest it is another host's from there on.
    pub(crate) fn loses_its_journal(&mut self) {
        self.journal.clear();
        if self.planted != Planted::OneInstance {
            self.instance = self.chance.below(u64::MAX);
        }
    }

    /// With empty memory but for the journal.
    pub(crate) fn starts(&mut self, now: Millis) {
        self.ledgers = (0..GUESTS).map(|_| Ledger::new()).collect();
        self.journal.retain(|written| written.until > now.plus(OFFSET));
        for written in &self.journal {
            self.ledgers[written.who].restore(written.key, written.until, written.what);
        }
        self.listeners.clear();
        for guest in 0..GUESTS {
            let whose = if self.planted == Planted::AnothersKey { (guest + 1) % GUESTS } else { guest };
            let native = Some(NativeAccept { keys: (self.keys)(whose), instance: self.instance });
            self.listeners.push(Listener::new(Accept { classic: false, native, ..Accept::default() }));
            self.connects(guest, now);
        }
    }

    pub(crate) fn connects(&mut self, guest: usize, now: Millis) {
        let mut entropy = [0; 64];
        entropy.fill_with(|| self.chance.below(256) as u8);
        self.old[guest] = true;
        self.listeners[guest].opened(&Entropy(entropy), now.plus(OFFSET));
    }

    pub(crate) fn disconnects(&mut self, guest: usize, now: Millis) {
        self.listeners[guest].closed(now.plus(OFFSET));
    }

    /// It is gone, at once; what it had handed to the hypervisor may happen all the same.
    pub(crate) fn is_killed(&mut self, outside: &mut Outside<'_>, now: Millis) -> Result<(), Broken> {
        // It answers nobody any more, whatever has happened that it was not told yet.
        self.out.clear();
        for call in std::mem::take(&mut self.calls) {
            if matches!(call.step, Step::Act) && self.chance.happens(500) {
                self.act(call, outside, now)?;
            }
        }
        self.calls.clear();
        self.listings.clear();
        self.statuses.clear();
        if self.planted == Planted::NoJournal {
            self.journal.clear();
        }
        outside.record.bridge_was_killed();
        Ok(())
    }

    pub(crate) fn heal(&mut self) {
        self.stubborn = 0;
    }

    pub(crate) fn next(&self) -> Option<Millis> {
        let wakes = self.listeners.iter().filter_map(Endpoint::wake_at).map(|at| at.since(OFFSET));
        self.calls.iter().map(|call| call.at).chain(wakes).min()
    }

    /// Bytes of that guest's channel. Says how many were taken.
    pub(crate) fn reads(&mut self, guest: usize, bytes: &[u8], now: Millis) -> usize {
        let listener = &mut self.listeners[guest];
        let now = now.plus(OFFSET);
        if self.old[guest] { listener.receive_old(bytes, now) } else { listener.receive(bytes, now) }
    }

    pub(crate) fn sent(&mut self, guest: usize, n: usize, now: Millis) {
        self.listeners[guest].sent(n, now.plus(OFFSET));
    }

    /// Polls, and does what is due. Says whether there was anything.
    pub(crate) fn turn(&mut self, outside: &mut Outside<'_>, now: Millis) -> Result<bool, Broken> {
        let mut busy = false;
        for guest in 0..GUESTS {
            if self.listeners[guest].wake_at().is_some_and(|at| at <= now.plus(OFFSET)) {
                self.listeners[guest].wake(now.plus(OFFSET));
                busy = true;
            }
            while let Some(event) = self.listeners[guest].poll() {
                busy = true;
                match event {
                    Event::Asked(id, request) => self.asked(guest, id, request, outside, now)?,
                    Event::EntryWanted(id) => self.entry(guest, id, now)?,
                    Event::Withdrawn(id) => {
                        let withdrawn = self.out.remove(&(guest, id));
                        // A list that is full is withdrawn when its last entry is answered.
                        withdrawn.ok_or(Broken::Contradiction("withdrawn, and never asked"))?;
                    }
                    Event::Refused(_) => {}
                }
            }
        }
        while let Some(due) = self.calls.iter().position(|call| call.at <= now) {
            let call = self.calls.swap_remove(due);
            match call.step {
                Step::Act => self.act(call, outside, now)?,
                Step::Look => self.look(call, outside, now)?,
                Step::Start(outcome) => {
                    outside.machines.start(call.target, now);
                    self.finish(call, outcome, now)?;
                }
            }
            busy = true;
        }
        Ok(busy)
    }

    fn asked(
        &mut self,
        who: usize,
        id: RequestId,
        request: Request,
        outside: &mut Outside<'_>,
        now: Millis,
    ) -> Result<(), Broken> {
        let ask = request.ask().clone();
        outside.record.handed_out((who, request.key().id))?;
        if self.out.insert((who, id), request.clone()).is_some() {
            return Err(Broken::Contradiction("an id is used twice"));
        }
        let target = ask.target().map(guest_of);
        match (&ask, target) {
            (Ask::Monitor, _) => self.answer(who, id, Answer::Alive, Details::NONE, now),
            (Ask::List, _) => {
                let chance = &mut self.chance;
                let there = (1..=LISTED).filter(|number| number % 2 == 0 || chance.happens(500)).collect();
                self.listings.insert(who, there);
                self.entry(who, id, now)
            }
            (_, Some(None) | None) => self.answer(who, id, Answer::Failed(Failure::NotFound), Details::NONE, now),
            (Ask::Status(_), Some(Some(target))) => {
                let power = outside.machines.power(target);
                let first = *self.statuses.entry(target).or_insert(power);
                let power = if self.planted == Planted::OldStatus { first } else { power };
                self.answer(who, id, Answer::Power(power), Details::NONE, now)
            }
            (Ask::Power(action, _), Some(Some(target))) => {
                let action = *action;
                self.power_asked((who, id), request, action, target, outside, now)
            }
        }
    }

    fn power_asked(
        &mut self,
        (who, id): (usize, RequestId),
        request: Request,
        action: PowerAction,
        target: usize,
        outside: &mut Outside<'_>,
        now: Millis,
    ) -> Result<(), Broken> {
        let allowed = may(who, target);
        if !allowed && self.planted != Planted::NoPolicy {
            return self.answer(who, id, Answer::Denied, Details::NONE, now);
        }
        let is_fenced = self.calls.iter().any(|call| call.target == who && call.action != PowerAction::On)
            || outside.machines.power(who) == Power::Off;
        if is_fenced && self.planted != Planted::NoShootOut {
            return self.answer(who, id, Answer::Failed(Failure::RequesterFenced), Details::NONE, now);
        }
        let clock = if self.planted == Planted::NoDeadline { Millis(0) } else { now.plus(OFFSET) };
        let mut nothing = Ledger::<256>::new();
        let ledger = if self.planted == Planted::NoLedger { &mut nothing } else { &mut self.ledgers[who] };
        let permit = match ledger.admit(&request, clock) {
            Admit::Act(permit) => permit,
            Admit::Running => return Ok(()),
            Admit::Repeat(outcome) => {
                let details = Details { repeated: true, ..Details::NONE };
                return self.answer(who, id, Answer::Outcome(outcome), details, now);
            }
            Admit::Refused(why) => return self.answer(who, id, Answer::Failed(why.into()), Details::NONE, now),
        };
        if is_fenced {
            return Err(Broken::FencedFences(who));
        }
        outside.record.begins((who, request.key().id), request.ask(), allowed, now)?;
        let key = request.key();
        let known = self.journal.iter().find(|written| (written.who, written.key) == (who, key));
        let earlier = known.and_then(|written| written.run);
        if known.is_none() {
            let run = outside.machines.run(target);
            let until = request.remember_until();
            self.journal.push(Written { who, key, until, what: Remembered::Begun(permit.received()), run });
        }
        let at = now.plus(Millis(self.chance.below(STEP_MAX)));
        self.calls.push(Call { who, target, action, request, permit, earlier, step: Step::Act, at });
        Ok(())
    }

    fn act(&mut self, call: Call, outside: &mut Outside<'_>, now: Millis) -> Result<(), Broken> {
        let run = outside.machines.run(call.target);
        let guard = call.request.guard().filter(|_| self.planted != Planted::NoGuard);
        let failure = if now.plus(OFFSET) >= call.permit.deadline() && self.planted != Planted::NoDeadline {
            Some(Failure::Expired)
        } else if run.is_some() && guard.is_some_and(|guard| Some(guard) != run) {
            Some(Failure::Replaced)
        } else if run.is_some() && call.permit.resumed() && run != call.earlier {
            Some(Failure::Unconfirmed)
        } else {
            None
        };
        if let Some(failure) = failure {
            return self.finish(call, Outcome::Failed(failure), now);
        }
        if call.action == PowerAction::On {
            outside.machines.start(call.target, now);
            return self.finish(call, Outcome::On, now);
        }
        if !self.chance.happens(self.stubborn)
            && let Some(run) = outside.machines.stop(call.target, now)
        {
            outside.record.stopped((call.who, call.request.key().id), run, now)?;
            outside.stopped.push(call.target);
        }
        let at = now.plus(Millis(self.chance.below(STEP_MAX)));
        self.calls.push(Call { step: Step::Look, at, ..call });
        Ok(())
    }

    fn look(&mut self, call: Call, outside: &mut Outside<'_>, now: Millis) -> Result<(), Broken> {
        let seen = outside.machines.power(call.target);
        let power = if self.planted == Planted::NoConfirmation { Power::Off } else { seen };
        let seen = Observation { power, asked: now.plus(OFFSET) };
        match (call.permit.confirm_off(seen), call.action) {
            (None, _) => self.finish(call, Outcome::Failed(Failure::Unconfirmed), now),
            (Some(off), PowerAction::Reboot) => {
                self.write(&call, Remembered::Done(call.action, off.seen(), Restart::NotStarted));
                let at = now.plus(Millis(self.chance.below(STEP_MAX)));
                let step = Step::Start(Outcome::Rebooted(off, Restart::Started));
                self.calls.push(Call { step, at, ..call });
                Ok(())
            }
            (Some(off), _) => self.finish(call, Outcome::Off(off), now),
        }
    }

    fn write(&mut self, call: &Call, what: Remembered) {
        let (who, key) = (call.who, call.request.key());
        if let Some(written) = self.journal.iter_mut().find(|written| (written.who, written.key) == (who, key)) {
            written.what = what;
        }
    }

    fn finish(&mut self, call: Call, outcome: Outcome, now: Millis) -> Result<(), Broken> {
        self.write(
            &call,
            match outcome {
                Outcome::Off(off) => Remembered::Done(PowerAction::Off, off.seen(), Restart::NotStarted),
                Outcome::Rebooted(off, restart) => Remembered::Done(PowerAction::Reboot, off.seen(), restart),
                Outcome::On => Remembered::Done(PowerAction::On, Millis(0), Restart::Started),
                Outcome::Failed(failure) => Remembered::Failed(failure),
            },
        );
        let (who, key) = (call.who, call.request.key());
        self.ledgers[who].settle(call.permit, outcome);
        if self.planted == Planted::Deaf {
            return Ok(());
        }
        let waits = self.out.iter().find(|((guest, _), request)| *guest == who && request.key() == key);
        let waiting = waits.map(|((_, id), _)| *id);
        waiting.map_or(Ok(()), |id| self.answer(who, id, Answer::Outcome(outcome), Details::NONE, now))
    }

    fn entry(&mut self, who: usize, id: RequestId, now: Millis) -> Result<(), Broken> {
        match self.listings.get_mut(&who).and_then(VecDeque::pop_front) {
            None => self.answer(who, id, Answer::EndOfList, Details::NONE, now),
            Some(number) => {
                let uuid = Uuid::from_bytes([number; 16]);
                let entry = ListEntry { name: "one that is listed", uuid, power: Power::On };
                self.answer(who, id, Answer::Entry(entry), Details::NONE, now)
            }
        }
    }

    /// What is out can be answered: if not, the listener has withdrawn it without a word.
    fn answer(
        &mut self,
        who: usize,
        id: RequestId,
        answer: Answer<'_>,
        details: Details,
        now: Millis,
    ) -> Result<(), Broken> {
        if !self.out.contains_key(&(who, id)) {
            return Err(Broken::Contradiction("an answer to nothing"));
        }
        if !matches!(answer, Answer::Entry(_)) {
            self.out.remove(&(who, id));
        }
        match self.listeners[who].answer_with(id, answer, details, now.plus(OFFSET)) {
            Ok(()) => Ok(()),
            Err(NotNow::Gone) => Err(Broken::Contradiction("gone, and not withdrawn")),
            Err(_) => Err(Broken::Contradiction("an answer that is not taken")),
        }
    }

    pub(crate) fn guest_was_reset(&mut self, guest: usize, now: Millis) {
        self.listeners[guest].guest_was_reset(now.plus(OFFSET));
    }
}
