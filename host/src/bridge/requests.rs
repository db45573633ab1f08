//! A request from its arrival to its answer: who asks, may they, what is done, what came of it, and the record of that.

use super::Bridge;
use super::fleet::{self, Fleet, Listed, PATIENCE};
use crate::clock;
use crate::guests::Requester;
use crate::policy::{By, Denied};
use crate::power::Order;
use crate::power::hypervisor::{Guest, HypervisorError};
use crate::power::lane::{Verdict, Waiting};
use crate::power::operation::Seen;
use crate::records::Record;
use fencewire_core::{
    Admit, Answer, Ask as What, Details, Failure, ListEntry, Millis, Outcome, Permit, Power, PowerAction, Request,
    RequestId, RequestKey, Restart, Target, Uuid,
};
use std::collections::VecDeque;
use std::net::IpAddr;

/// Names an ask, across connections. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AskId(pub(super) u64);

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Ask {
    /// Where the answer goes, if that is still there.
    connection: usize,
    /// Where it came from.
    pub(super) channel: usize,
    pub(super) from: Option<IpAddr>,
    id: RequestId,
    pub(super) request: Request,
    /// The target, once it is known.
    pub(super) target: Option<Uuid>,
    /// What each hypervisor has said to it, since it was put to them.
    said: Vec<Option<Result<fleet::Answer, HypervisorError>>>,
    put: Millis,
}

/// A list that is being given out, entry by entry.
#[derive(Debug)]
pub(super) struct Listing {
    id: RequestId,
    rest: VecDeque<Listed>,
}

/// An answer, and what the record says of it.
struct Decision<'a> {
    answer: Answer<'a>,
    why: Option<String>,
    repeated: bool,
}

impl<'a> From<Answer<'a>> for Decision<'a> {
    fn from(answer: Answer<'a>) -> Self {
        Decision { answer, why: None, repeated: false }
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
                self.put_to_all(id, requester, Some(target), |hypervisor, target| {
                    target
                        .map_or(Err(HypervisorError::NoSuchGuest), |target| hypervisor.state(target))
                        .map(fleet::Answer::State)
                });
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

    fn deny(&mut self, id: AskId, why: Denied) {
        self.finish(id, Decision { answer: Answer::Denied, why: Some(why.to_string()), repeated: false });
    }

    fn put_to_all(&mut self, id: AskId, requester: Requester, target: Option<Uuid>, question: fleet::Question) {
        if let Some(ask) = self.asks.get_mut(&id) {
            ask.said.clear();
            ask.said.resize_with(self.fleet.len(), || None);
            ask.put = clock::now();
            self.ask_all(id, requester, target, question);
        }
    }

    /// A hypervisor has said something to an ask.
    pub(super) fn said(&mut self, id: AskId, at: usize, said: Result<fleet::Answer, HypervisorError>) {
        let Some(place) = self.asks.get_mut(&id).and_then(|ask| ask.said.get_mut(at)) else { return };
        *place = Some(said);
        self.conclude(id, false);
    }

    /// Answers what some hypervisors have said enough to, and others are silent about.
    pub(super) fn conclude_late(&mut self, now: Millis) {
        let is_late = |ask: &Ask| now.since(ask.put) >= PATIENCE && ask.said.iter().any(Option::is_some);
        let late: Vec<AskId> = self.asks.iter().filter(|(_, ask)| is_late(ask)).map(|(id, _)| *id).collect();
        for id in late {
            self.conclude(id, true);
        }
    }

    /// Answers an ask if what the hypervisors have said is enough; for a late one, if it says anything.
    fn conclude(&mut self, id: AskId, is_late: bool) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        let is_complete = ask.said.iter().all(Option::is_some);
        let is_good = ask.said.iter().any(|said| matches!(said, Some(Ok(_))));
        let ready = match ask.request.ask() {
            What::Monitor => is_good || is_complete,
            What::Status(_) | What::List => is_complete || (is_late && is_good),
            What::Power(..) => false,
        };
        if !ready {
            return;
        }
        let said = std::mem::take(&mut ask.said);
        match ask.request.ask() {
            What::Status(_) => {
                let guest = Fleet::power(&only(said, |answer| match answer {
                    fleet::Answer::State(guest) => Some(guest),
                    _ => None,
                }));
                self.state(id, guest);
            }
            What::List => {
                let lists = only(said, |answer| match answer {
                    fleet::Answer::List(guests) => Some(guests),
                    _ => None,
                });
                self.list(id, lists);
            }
            _ if is_good => self.finish(id, Answer::Alive.into()),
            _ => {
                let why = said.into_iter().flatten().find_map(Result::err);
                self.failed_query(id, &why.unwrap_or(HypervisorError::NoSuchGuest));
            }
        }
    }

    fn state(&mut self, id: AskId, state: Result<Guest, HypervisorError>) {
        let Some(ask) = self.asks.get(&id) else { return };
        match state {
            Ok(guest) if is_named_otherwise(ask.request.ask().target(), &guest.name) => {
                // It was renamed since the hypervisor was last asked who is who.
                if !self.refresh(id) {
                    self.finish(id, Answer::Failed(Failure::NotFound).into());
                }
            }
            Ok(guest) => self.finish(id, Answer::Power(guest.state.power()).into()),
            // It went, and another may bear its name.
            Err(HypervisorError::NoSuchGuest) if is_by_name(ask.request.ask()) && self.refresh(id) => {}
            Err(why) => self.failed_query(id, &why),
        }
    }

    fn list(&mut self, id: AskId, said: Vec<Option<Result<Vec<Guest>, HypervisorError>>>) {
        let why = said.iter().flatten().find_map(|said| said.as_ref().err().cloned());
        if let Some(why) = why.filter(|_| !said.iter().flatten().any(Result::is_ok)) {
            return self.failed_query(id, &why);
        }
        let listed = self.fleet.list(&said);
        for (at, guests) in said.into_iter().enumerate() {
            if let Some(Ok(guests)) = guests {
                self.learn(at, guests);
            }
        }
        let Some(ask) = self.asks.get(&id) else { return };
        let Some(by) = self.by(ask.channel, ask.from, ask.request.is_native()) else { return };
        let mut rest: VecDeque<Listed> = listed.into_iter().filter(|guest| self.policy.lists(by, guest.uuid)).collect();
        if ask.request.is_native() {
            // Its lists go on where they left off, by UUID.
            rest.make_contiguous().sort_by_key(|guest| guest.uuid);
        } else {
            rest.make_contiguous().sort_by(|a, b| a.name.cmp(&b.name));
        }
        let (token, request) = (ask.connection, ask.id);
        let shown = rest.len();
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.listing = Some(Listing { id: request, rest });
        }
        self.next_entry(token, request);
        self.pump(token);
        if let Some(ask) = self.asks.remove(&id) {
            self.record(&ask, &Answer::EndOfList, Some(format!("{shown} on it")), false);
        }
    }

    /// Gives a list's next entry, or its end.
    pub(super) fn next_entry(&mut self, token: usize, id: RequestId) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let Some(listing) = connection.listing.as_mut().filter(|listing| listing.id == id) else { return };
        let next = listing.rest.pop_front();
        if next.is_none() {
            connection.listing = None;
        }
        let answer = match &next {
            Some(guest) => Answer::Entry(ListEntry { name: &guest.name, uuid: guest.uuid, power: guest.power }),
            None => Answer::EndOfList,
        };
        if let Some(listener) = connection.listener() {
            let _ = listener.answer(id, answer, clock::now());
        }
    }

    fn failed_query(&mut self, id: AskId, why: &HypervisorError) {
        let failure = match why {
            HypervisorError::NoSuchGuest => Failure::NotFound,
            HypervisorError::Unreachable(_) | HypervisorError::Failed(_) => Failure::Unreachable,
        };
        let why = Some(why.to_string());
        self.finish(id, Decision { answer: Answer::Failed(failure), why, repeated: false });
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
                return self.finish(id, Decision { answer: Answer::Outcome(outcome), why: None, repeated: true });
            }
            Admit::Refused(why) => {
                let reason = Some(format!("{why:?}"));
                return self.finish(id, Decision { answer: Answer::Failed(why.into()), why: reason, repeated: false });
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
            return self.settle(requester, permit, id, Outcome::Failed(Failure::Busy), Some(why));
        }
        memory.journals(request.key(), request.remember_until());
        let earlier = memory.earlier(&permit);
        let by_name = match named {
            Target::Name(name) => Some(name.as_str().to_owned()),
            Target::Uuid(_) => None,
        };
        let (remember_until, until) = (request.remember_until(), request.deadline());
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
    pub(super) fn ended(&mut self, order: Order, seen: Seen) {
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
            self.decided(waiting, outcome);
        }
        for (waiting, failure) in ended.refused {
            self.refuse(waiting, failure);
        }
        for order in ended.start {
            self.start(order);
        }
    }

    pub(super) fn refuse(&mut self, waiting: Waiting<AskId>, failure: Failure) {
        self.decided(waiting, Outcome::Failed(failure));
    }

    /// The outcome of a power request: written down, then answered to all who asked for it.
    fn decided(&mut self, waiting: Waiting<AskId>, outcome: Outcome) {
        let Waiting { order, who, .. } = waiting;
        self.journal.done(&order, outcome);
        self.settle(order.requester(), order.permit, who, outcome, None);
    }

    fn settle(&mut self, requester: Requester, permit: Permit, id: AskId, outcome: Outcome, why: Option<&str>) {
        let memory = self.memories.entry(requester).or_default();
        let twins = memory.take_twins(permit.key());
        memory.ledger.settle(permit, outcome);
        let decision = |repeated| Decision { answer: Answer::Outcome(outcome), why: why.map(str::to_owned), repeated };
        self.finish(id, decision(false));
        for twin in twins {
            self.finish(twin, decision(true));
        }
    }

    /// Answers an ask, then writes that down. One that nobody waits for any more is only written down.
    fn finish(&mut self, id: AskId, decision: Decision<'_>) {
        let Some(ask) = self.asks.remove(&id) else { return };
        if let Some(connection) = self.connections.get_mut(&ask.connection) {
            let details = Details { repeated: decision.repeated, ..Details::NONE };
            connection.answer(ask.id, decision.answer, details, clock::now());
        }
        self.record(&ask, &decision.answer, decision.why, decision.repeated);
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
        self.finish(id, Decision { answer: Answer::Failed(failure), why, repeated: false });
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

    fn record(&mut self, ask: &Ask, answer: &Answer<'_>, why: Option<String>, repeated: bool) {
        let (outcome, is_good) = in_words(answer);
        let is_power = matches!(ask.request.ask(), What::Power(..));
        let record = self.record_of(ask, outcome, why, repeated);
        let Record { requester, action, target, why, ms, .. } = &record;
        match (is_good, is_power) {
            (false, _) => tracing::warn!(requester, action, target, outcome, why, repeated, ms, "not done"),
            (true, true) => tracing::info!(requester, action, target, outcome, repeated, ms, "done"),
            (true, false) => tracing::debug!(requester, action, target, outcome, ms, "answered"),
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
                (Some(guest), _) => guest.to_string(),
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

/// Of what each hypervisor said, what answers the question.
fn only<T>(
    said: Vec<Option<Result<fleet::Answer, HypervisorError>>>,
    what: impl Fn(fleet::Answer) -> Option<T>,
) -> Vec<Option<Result<T, HypervisorError>>> {
    let answer = |said| match said {
        Ok(answer) => what(answer).map(Ok),
        Err(why) => Some(Err(why)),
    };
    said.into_iter().map(|said| said.and_then(answer)).collect()
}

fn is_by_name(ask: &What) -> bool {
    matches!(ask.target(), Some(Target::Name(_)))
}

fn is_named_otherwise(target: Option<&Target>, name: &str) -> bool {
    matches!(target, Some(Target::Name(asked)) if asked.as_str() != name)
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
