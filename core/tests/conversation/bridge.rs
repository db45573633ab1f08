//! The listener's owner, as small as it can be: a ledger, and a hypervisor that takes its time.

use crate::chance::Chance;
use crate::common::success;
use crate::rules::{Broken, Record};
use fencewire_core::{
    Accept, Admit, Answer, Ask, Endpoint, Event, Ledger, ListEntry, Listener, Millis, NotNow, Outcome, Permit, Power,
    PowerAction, Refusal, Request, RequestId, RequestKey, Target, Uuid,
};
use std::collections::HashMap;

/// A power call takes less than this.
pub(crate) const CALL_MAX: u64 = 3_000;

/// So many guests are listed.
const LISTED: u8 = 5;

/// A fault in the owner that a rule must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    /// Carries out every request that it is handed.
    NoLedger,
    /// Takes a frame that says nothing for one that says off.
    ActsOnMalformed,
    /// Writes a reply to the channel also where the request was withdrawn.
    AnswersTheWithdrawn,
    /// Never answers a power request.
    Deaf,
}

struct Call {
    done: Millis,
    action: PowerAction,
    target: Target,
    request: Request,
    permit: Option<Permit>,
}

pub(crate) struct Bridge {
    pub(crate) listener: Listener,
    /// Bytes that a planted fault writes past the listener.
    pub(crate) smuggled: Vec<(RequestKey, [u8; 5])>,
    /// Whose answer the listener was given last.
    pub(crate) answered: Option<RequestKey>,
    planted: Planted,
    chance: Chance,
    ledger: Ledger<256>,
    calls: Vec<Call>,
    /// Requests that are out.
    out: HashMap<RequestId, Request>,
    withdrawn: Vec<RequestKey>,
    power: HashMap<Target, Power>,
    listed: u8,
}

impl Bridge {
    pub(crate) fn new(planted: Planted, chance: Chance) -> Bridge {
        Bridge {
            listener: Listener::new(Accept::default()),
            smuggled: Vec::new(),
            answered: None,
            planted,
            chance,
            ledger: Ledger::new(),
            calls: Vec::new(),
            out: HashMap::new(),
            withdrawn: Vec::new(),
            power: HashMap::new(),
            listed: 0,
        }
    }

    pub(crate) fn power(&self, target: &Target) -> Power {
        self.power.get(target).copied().unwrap_or(Power::On)
    }

    pub(crate) fn next(&self) -> Option<Millis> {
        self.calls.iter().map(|call| call.done).chain(self.listener.wake_at()).min()
    }

    /// Polls, and does what is due. Says whether there was anything.
    pub(crate) fn turn(&mut self, record: &mut Record, now: Millis) -> Result<bool, Broken> {
        let mut busy = false;
        if self.listener.wake_at().is_some_and(|at| at <= now) {
            self.listener.wake(now);
            busy = true;
        }
        while let Some(event) = self.listener.poll() {
            self.event(event, record, now)?;
            busy = true;
        }
        while let Some(due) = self.calls.iter().position(|call| call.done <= now) {
            let call = self.calls.swap_remove(due);
            self.carried_out(call, now)?;
            busy = true;
        }
        Ok(busy)
    }

    fn event(&mut self, event: Event, record: &mut Record, now: Millis) -> Result<(), Broken> {
        match event {
            Event::Asked(id, request) => self.asked(id, &request, record, now),
            Event::EntryWanted(id) => self.entry(id, now),
            Event::Withdrawn(id) => {
                let request = self.out.remove(&id).ok_or(Broken::WithdrawnWithoutRequest)?;
                self.withdrawn.push(request.key());
                Ok(())
            }
            Event::Refused(Refusal::Malformed(_)) if self.planted == Planted::ActsOnMalformed => {
                let target = Target::Uuid(Uuid::from_bytes([1; 16]));
                record.acted(&Ask::Power(PowerAction::Off, target), RequestKey { id: 0, body: [0; 16] })
            }
            Event::Refused(_) => Ok(()),
        }
    }

    fn asked(&mut self, id: RequestId, request: &Request, record: &mut Record, now: Millis) -> Result<(), Broken> {
        if self.out.insert(id, request.clone()).is_some() {
            return Err(Broken::IdUsedTwice);
        }
        record.taken(request);
        match request.ask() {
            Ask::Power(action, target) => self.power_asked(id, request, *action, target, record, now),
            Ask::Status(target) => self.answer(id, Answer::Power(self.power(target)), now),
            Ask::Monitor => self.answer(id, Answer::Alive, now),
            Ask::List => {
                self.listed = 0;
                self.entry(id, now)
            }
        }
    }

    fn power_asked(
        &mut self,
        id: RequestId,
        request: &Request,
        action: PowerAction,
        target: &Target,
        record: &mut Record,
        now: Millis,
    ) -> Result<(), Broken> {
        let permit = match self.ledger.admit(request, now) {
            Admit::Act(permit) => Some(permit),
            Admit::Running | Admit::Repeat(_) if self.planted == Planted::NoLedger => None,
            Admit::Running => return Ok(()),
            Admit::Repeat(outcome) => return self.answer(id, Answer::Outcome(outcome), now),
            Admit::Refused(why) => return self.answer(id, Answer::Failed(why.into()), now),
        };
        record.acted(request.ask(), request.key())?;
        let done = now.plus(Millis(self.chance.below(CALL_MAX)));
        self.calls.push(Call { done, action, target: target.clone(), request: request.clone(), permit });
        Ok(())
    }

    fn carried_out(&mut self, call: Call, now: Millis) -> Result<(), Broken> {
        let power = if call.action == PowerAction::Off { Power::Off } else { Power::On };
        self.power.insert(call.target, power);
        let Some(permit) = call.permit else {
            return Ok(());
        };
        let outcome = success(call.action, &permit, now);
        self.ledger.settle(permit, outcome);
        self.tell_all(call.request.key(), outcome, now)
    }

    /// Everybody who waits for this outcome gets it.
    fn tell_all(&mut self, key: RequestKey, outcome: Outcome, now: Millis) -> Result<(), Broken> {
        if self.planted == Planted::Deaf {
            return Ok(());
        }
        if self.planted == Planted::AnswersTheWithdrawn && self.withdrawn.contains(&key) {
            self.smuggled.push((key, *b"abba\0"));
        }
        let waiting = self.out.iter().find(|(_, request)| request.key() == key).map(|(id, _)| *id);
        waiting.map_or(Ok(()), |id| self.answer(id, Answer::Outcome(outcome), now))
    }

    fn entry(&mut self, id: RequestId, now: Millis) -> Result<(), Broken> {
        if self.listed == LISTED {
            return self.answer(id, Answer::EndOfList, now);
        }
        let uuid = Uuid::from_bytes([self.listed; 16]);
        self.listed += 1;
        self.answer(id, Answer::Entry(ListEntry { name: "listed", uuid, power: Power::On }), now)
    }

    /// What is out can be answered: if not, the listener has withdrawn it without a word.
    fn answer(&mut self, id: RequestId, answer: Answer<'_>, now: Millis) -> Result<(), Broken> {
        let key = self.out.get(&id).map(Request::key).ok_or(Broken::AnswerWithoutRequest)?;
        if !matches!(answer, Answer::Entry(_)) {
            self.out.remove(&id);
        }
        self.answered = Some(key);
        match self.listener.answer(id, answer, now) {
            Ok(()) => Ok(()),
            Err(NotNow::Gone) => Err(Broken::GoneWithoutWithdrawn),
            Err(_) => Err(Broken::AnswerNotTaken),
        }
    }
}
