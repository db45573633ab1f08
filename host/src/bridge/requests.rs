//! A request from its arrival to its answer: who asks, may they, what is done, what came of it, and the record of that.

use super::Bridge;
use super::fleet;
use super::queries::{state, state_and_run};
use crate::clock;
use crate::guests::Requester;
use crate::policy::{By, Denied};
use crate::power::Order;
use crate::power::hypervisor::HypervisorError;
use crate::power::lane::{Verdict, Waiting};
use crate::power::operation::{Carried, Seen};
use crate::records::Record;
use fencewire_core::{
    Admit, Answer, Ask as What, Details, Failure, Millis, Outcome, Permit, Power, PowerAction, Request, RequestId,
    RequestKey, Restart, Target, Uuid,
};
use std::net::IpAddr;

/// Names an ask, across connections. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AskId(pub(super) u64);

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Ask {
    /// Where the answer goes, if that is still there.
    pub(super) connection: usize,
    /// Where it came from.
    pub(super) channel: usize,
    pub(super) from: Option<IpAddr>,
    pub(super) id: RequestId,
    pub(super) request: Request,
    /// The target, once it is known.
    pub(super) target: Option<Uuid>,
    /// What each hypervisor has said to it, since it was put to them.
    pub(super) said: Vec<Option<Result<fleet::Answer, HypervisorError>>>,
    pub(super) put: Millis,
}

/// An answer from memory.
const REPEATED: Details = Details { repeated: true, ..Details::NONE };

/// An answer, and what the record says of it.
pub(super) struct Decision<'a> {
    pub(super) answer: Answer<'a>,
    pub(super) why: Option<String>,
    pub(super) details: Details,
}

impl<'a> From<Answer<'a>> for Decision<'a> {
    fn from(answer: Answer<'a>) -> Self {
        Decision { answer, why: None, details: Details::NONE }
    }
}

impl Bridge {
    /// A channel has handed out a request.
    pub(super) fn asked(&mut self, connection: usize, id: RequestId, request: Request) {
        let ask = AskId(self.next_ask);
        self.next_ask += 1;
        let Some(channel) = self.connections.get(&connection).map(|connection| connection.channel) else { return };
        let from = self.from(connection);
        let (target, said, put) = (None, Vec::new(), clock::now());
        self.was_asked(connection, request.is_native());
        self.asks.insert(ask, Ask { connection, channel, from, id, request, target, said, put });
        self.decide(ask, false);
    }

    /// Decides what is done for an ask. Where a name is not known, the hypervisor is asked first; `fresh` says that it
    /// was.
    pub(super) fn decide(&mut self, id: AskId, fresh: bool) {
        let Some(ask) = self.asks.get(&id) else { return };
        let (channel, from, what) = (ask.channel, ask.from, ask.request.ask().clone());
        let is_native = ask.request.is_native();
        let target = what.target().and_then(|target| self.roster.target(target));
        let unknown = self.is_unknown(id);
        if unknown && !fresh && self.refresh(id) {
            return;
        }
        if unknown && self.fleet.is_incomplete() {
            return self.finish(id, Answer::Failed(Failure::Unreachable).into());
        }
        if self.by(channel, from, is_native).is_none() {
            return self.deny(id, Denied::UnknownRequester);
        }
        if target.is_none() && self.is_missing_member(id) {
            return self.finish(id, Answer::Failed(Failure::NotFound).into());
        }
        let Some(by) = self.by(channel, from, is_native) else { return };
        let requester = by.requester();
        let decided = match &what {
            What::Monitor | What::List => self.policy.greet(by).map(|()| None),
            What::Status(_) => self.policy.status(by, target).map(|_| None),
            What::Power(action, _) => self.policy.power(by, *action, target).map(Some),
        };
        let Some(ask) = self.asks.get_mut(&id) else { return };
        ask.target = target;
        match (decided, what, target) {
            (Err(why), ..) => self.deny(id, why),
            (Ok(Some(allowed)), What::Power(_, named), _) => self.power_allowed(id, allowed, &named),
            (Ok(None), What::Status(_), Some(target)) => {
                let question = if is_native { state_and_run } else { state };
                self.put_to_all(id, requester, Some(target), question);
            }
            (Ok(None), What::List, _) => {
                self.put_to_all(id, requester, None, |hypervisor, _| hypervisor.guests().map(fleet::Answer::List));
            }
            (Ok(None), What::Monitor, _) => self.put_to_all(id, requester, None, |_, _| Ok(fleet::Answer::Here)),
            // A status without a target is denied, and only a power request is given an `Allowed`.
            _ => self.deny(id, Denied::NotTogether),
        }
    }

    /// Whether somebody whom the ask is from or about is not known.
    pub(super) fn is_unknown(&self, id: AskId) -> bool {
        let Some(ask) = self.asks.get(&id) else { return false };
        let target = ask.request.ask().target();
        self.by(ask.channel, ask.from, ask.request.is_native()).is_none()
            || target.is_some_and(|target| self.roster.target(target).is_none())
    }

    /// Whether the ask's target is one that the configuration names and that does not exist.
    fn is_missing_member(&self, id: AskId) -> bool {
        let target = self.asks.get(&id).and_then(|ask| ask.request.ask().target());
        matches!(target, Some(Target::Name(name)) if self.roster.unbound().any(|unbound| unbound == name.as_str()))
    }

    pub(super) fn deny(&mut self, id: AskId, why: Denied) {
        self.finish(id, Decision { answer: Answer::Denied, why: Some(why.to_string()), details: Details::NONE });
    }

    /// A power request that the policy allows: is it new, and may it begin?
    fn power_allowed(&mut self, id: AskId, allowed: crate::policy::Allowed, named: &Target) {
        let now = clock::now();
        let Some(ask) = self.asks.get(&id) else { return };
        let (request, requester, target) = (ask.request.clone(), allowed.requester(), allowed.target());
        let is_off = allowed.action() != PowerAction::On;
        let memory = self.memories.entry(requester).or_default();
        let permit = match memory.ledger.admit(&request, now) {
            Admit::Act(permit) => permit,
            Admit::Running => return memory.twin(request.key(), id),
            Admit::Repeat(outcome) => {
                return self.finish(id, Decision { answer: Answer::Outcome(outcome), why: None, details: REPEATED });
            }
            Admit::Refused(why) => {
                let reason = Some(format!("{why:?}"));
                return self
                    .finish(id, Decision { answer: Answer::Failed(why.into()), why: reason, details: Details::NONE });
            }
        };
        let refusal = if self.stopping.is_some() {
            Some("the bridge is stopping")
        } else if self.records.refuse() {
            Some("records are required, and the last could not be written")
        } else if is_off && !memory.may_destroy(target, allowed.budget_per_minute(), now) {
            Some("the group's budget_per_minute is used up")
        } else {
            None
        };
        if let Some(why) = refusal {
            let busy = Outcome::Failed(Failure::Busy);
            return self.settle(requester, permit, id, busy, Power::Unknown, Some(why));
        }
        memory.journals(request.key(), request.remember_until());
        let earlier = memory.earlier(&permit);
        let by_name = match named {
            Target::Name(name) => Some(name.as_str().to_owned()),
            Target::Uuid(_) => None,
        };
        let remember_until = request.remember_until();
        // However long it waits for its turn: what has not begun when its requester is told so does not begin.
        let until = request.received().plus(self.fleet.time_to_answer()).min(request.deadline());
        let order = Order { permit, allowed, remember_until, by_name, earlier, guard: request.guard(), until };
        self.put(Waiting { order, received: request.received(), who: id });
    }

    fn put(&mut self, request: Waiting<AskId>) {
        let (verdict, silenced) = self.lanes.put(request);
        for waiting in silenced {
            self.refuse(waiting, Failure::RequesterFenced);
        }
        match verdict {
            Verdict::Start(order) => self.start(order),
            Verdict::Waits => {}
            Verdict::Refused(failure, waiting) => self.refuse(waiting, failure),
        }
    }

    /// Gives an order to a worker.
    fn start(&mut self, order: Order) {
        let now = clock::now();
        if order.action() != PowerAction::On {
            self.memories.entry(order.requester()).or_default().destroys(order.target(), now);
        }
        self.carry_out(order);
    }

    /// A worker has carried out an order.
    pub(super) fn ended(&mut self, order: Order, carried: Carried) {
        let Carried { seen, before } = carried;
        let Some(order) = self.follows(order, seen) else { return };
        let target = order.target();
        let ended = self.lanes.ended(order, seen);
        if seen.was_reset() {
            self.guest_was_reset(target, clock::now());
            self.mark_anew(target);
        }
        if seen == Seen::Failed(Failure::NotFound) {
            // It is gone, or has another name by now: whoever asks next is to be told by what is so now.
            self.ask_who_is_who();
        }
        for (waiting, outcome) in ended.decided {
            self.decided(waiting, outcome, before);
        }
        for (waiting, failure) in ended.refused {
            self.refuse(waiting, failure);
        }
        for order in ended.start {
            self.start(order);
        }
    }

    pub(super) fn refuse(&mut self, waiting: Waiting<AskId>, failure: Failure) {
        self.decided(waiting, Outcome::Failed(failure), Power::Unknown);
    }

    /// The outcome of a power request: written down, then answered to all who asked for it.
    fn decided(&mut self, waiting: Waiting<AskId>, outcome: Outcome, before: Power) {
        let Waiting { order, who, .. } = waiting;
        self.journal.done(&order, outcome);
        self.settle(order.requester(), order.permit, who, outcome, before, None);
    }

    fn settle(
        &mut self,
        requester: Requester,
        permit: Permit,
        id: AskId,
        outcome: Outcome,
        before: Power,
        why: Option<&str>,
    ) {
        let memory = self.memories.entry(requester).or_default();
        let twins = memory.take_twins(permit.key());
        memory.ledger.settle(permit, outcome);
        let decision = |repeated| {
            let details = Details { before, incarnation: None, repeated };
            Decision { answer: Answer::Outcome(outcome), why: why.map(str::to_owned), details }
        };
        self.finish(id, decision(false));
        for twin in twins {
            self.finish(twin, decision(true));
        }
    }

    /// Answers an ask, then writes that down. One that nobody waits for any more is only written down.
    pub(super) fn finish(&mut self, id: AskId, decision: Decision<'_>) {
        let Some(ask) = self.asks.remove(&id) else { return };
        if let Some(connection) = self.connections.get_mut(&ask.connection) {
            connection.answer(ask.id, decision.answer, decision.details, clock::now());
        }
        self.record(&ask, &decision.answer, decision.why, decision.details.repeated);
        self.pump(ask.connection);
    }

    /// Answers the asks whose time is up. What has not begun does not begin; what has may still happen.
    pub(super) fn end_late_asks(&mut self, now: Millis) {
        let time = self.fleet.time_to_answer();
        let is_late = |ask: &Ask| now.since(ask.request.received()) >= time;
        let late: Vec<AskId> = self.asks.iter().filter(|(_, ask)| is_late(ask)).map(|(id, _)| *id).collect();
        for id in late {
            self.end_late(id);
        }
    }

    fn end_late(&mut self, id: AskId) {
        if let Some(waiting) = self.lanes.withdraw(id) {
            return self.refuse(waiting, Failure::Expired);
        }
        let is_power = self.asks.get(&id).is_some_and(|ask| matches!(ask.request.ask(), What::Power(..)));
        let failure = if is_power { Failure::Unconfirmed } else { Failure::Unreachable };
        let why = Some("the hypervisor did not answer in time".to_owned());
        self.finish(id, Decision { answer: Answer::Failed(failure), why, details: Details::NONE });
    }

    /// Nobody waits for a request's answer any more. What has not begun does not begin.
    pub(super) fn withdrawn(&mut self, token: usize, id: RequestId) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.listing = None;
        }
        let of_it = |ask: &Ask| ask.connection == token && ask.id == id;
        let Some((ask, deadline)) =
            self.asks.iter().find(|(_, ask)| of_it(ask)).map(|(id, ask)| (*id, ask.request.deadline()))
        else {
            return;
        };
        if clock::now() >= deadline {
            // It was answered that its time is up, and stays answered so: the same frame is no new request.
            self.end_late(ask);
        } else {
            self.withdraw(ask);
        }
    }

    /// A connection is gone, and with it whoever waited at its other end.
    pub(super) fn connection_gone(&mut self, token: usize) {
        let its: Vec<AskId> = self.asks.iter().filter(|(_, ask)| ask.connection == token).map(|(id, _)| *id).collect();
        for ask in its {
            self.withdraw(ask);
        }
    }

    /// What is being carried out goes on, and its outcome is recorded when it is there. So does the request of a guest
    /// that fences itself: it goes away by that.
    fn withdraw(&mut self, id: AskId) {
        let Some(ask) = self.asks.get(&id) else { return };
        let requester = self.by(ask.channel, ask.from, ask.request.is_native()).map(By::requester);
        if ask.target.is_some_and(|target| requester.is_some_and(|requester| requester.is(target))) {
            return;
        }
        let key = ask.request.key();
        let has_name = !self.unresolved.contains(&id);
        self.unresolved.retain(|unresolved| *unresolved != id);
        if has_name && !requester.is_some_and(|requester| self.leave(id, requester, key)) {
            return;
        }
        if let Some(ask) = self.asks.remove(&id) {
            let why = Some("its asker went away".to_owned());
            self.record(&ask, &Answer::Failed(Failure::Expired), why, false);
        }
    }

    /// Says whether nothing is done for that ask any more.
    fn leave(&mut self, id: AskId, requester: Requester, key: RequestKey) -> bool {
        let Some(memory) = self.memories.get_mut(&requester) else { return false };
        if memory.remove_twin(key, id) {
            return true;
        }
        let Some(waiting) = self.lanes.leave(id) else { return false };
        match memory.take_twin(key) {
            // The same request came by another way as well, and its answer is waited for there.
            Some(twin) => self.put(Waiting { who: twin, ..waiting }),
            None => memory.ledger.withdraw(waiting.order.permit),
        }
        true
    }

    /// Removes what need not be remembered any more.
    pub(super) fn forget(&mut self, now: Millis) {
        for (requester, memory) in &mut self.memories {
            for key in memory.forget(now) {
                self.journal.forget(*requester, key);
            }
        }
    }

    /// That an order is about to be carried out, for whoever asked for it.
    pub(super) fn begun_record(&self, order: &Order) -> Option<Record> {
        let ask = self.asks.values().find(|ask| ask.request.key() == order.key())?;
        Some(self.record_of(ask, "begun", None, false))
    }

    pub(super) fn record(&mut self, ask: &Ask, answer: &Answer<'_>, why: Option<String>, repeated: bool) {
        let (outcome, is_good) = in_words(answer);
        let is_power = matches!(ask.request.ask(), What::Power(..));
        let record = self.record_of(ask, outcome, why, repeated);
        let Record { requester, action, target, why, ms, .. } = &record;
        match (is_good, is_power) {
            (false, _) => tracing::warn!(requester, action, target, outcome, why, repeated, ms, "not done"),
            (true, true) => tracing::info!(requester, action, target, outcome, repeated, ms, "done"),
            (true, false) => tracing::debug!(requester, action, target, outcome, ms, "answered"),
        }
        if is_power {
            self.lately.put(&record);
        }
        self.records.put(record);
    }

    fn record_of(&self, ask: &Ask, outcome: &str, why: Option<String>, repeated: bool) -> Record {
        let request = ask.request.ask();
        let channel = &self.channels[ask.channel];
        Record {
            time: Record::now(),
            channel: channel.name.clone(),
            requester: match (channel.spec.guest(), ask.from) {
                (Some(guest), _) => self.found_name(ask.channel).unwrap_or_else(|| guest.to_string()),
                (None, Some(from)) => format!("holder of its key at {from}"),
                (None, None) => "holder of its key".to_owned(),
            },
            action: request.action(),
            target: request.target().map(ToString::to_string),
            uuid: ask.target.map(|uuid| uuid.to_string()),
            outcome: outcome.to_owned(),
            why,
            repeated,
            ms: clock::now().since(ask.request.received()).0,
        }
    }
}

/// An answer as records and the log have it, and whether it is what the requester hoped for.
fn in_words(answer: &Answer<'_>) -> (&'static str, bool) {
    match answer {
        Answer::Outcome(Outcome::Off(_)) => ("confirmed off", true),
        Answer::Outcome(Outcome::Rebooted(_, Restart::Started)) => ("confirmed off, then started", true),
        Answer::Outcome(Outcome::Rebooted(_, Restart::NotStarted)) => ("confirmed off, not started again", true),
        Answer::Outcome(Outcome::On) => ("on", true),
        Answer::Power(Power::On) => ("is on", true),
        Answer::Power(Power::Off) => ("is off", true),
        Answer::Power(Power::Unknown) => ("unknown", false),
        Answer::Alive => ("alive", true),
        Answer::Entry(_) | Answer::EndOfList => ("listed", true),
        Answer::Denied => ("denied", false),
        Answer::Outcome(Outcome::Failed(failure)) | Answer::Failed(failure) => (in_other_words(*failure), false),
    }
}

fn in_other_words(failure: Failure) -> &'static str {
    match failure {
        Failure::NotFound => "no such guest",
        Failure::Unreachable => "the hypervisor does not say",
        Failure::Unconfirmed => "not confirmed: may have happened, or may still happen",
        Failure::Expired => "time was up before it began",
        Failure::RequesterFenced => "refused: the requester is being fenced, or is off",
        Failure::Elsewhere => "migrating or migrated: may run elsewhere",
        Failure::NotStarted => "could not be started",
        Failure::Busy => "refused",
        Failure::NotRecorded => "refused: it cannot be written down first",
        Failure::Replaced => "replaced: it has been off since, and was started again",
        Failure::Ambiguous => "on more than one hypervisor: nothing was done",
        Failure::Forbidden => "refused: the configuration was changed meanwhile",
    }
}
