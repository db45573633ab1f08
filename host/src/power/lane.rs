//! Which power action may begin when: one queue for each target. Decides, and does nothing.
//!
//! - One action at a time for a target; `off` goes ahead of `on` and `reboot`.
//! - A request joins an action that runs if it asks for the same; it still has to prove its own outcome by what was
//!   seen after it came.
//! - Shoot-out: once a fence of a guest has begun, nothing that this guest asked for begins. So of guests that fence
//!   each other, one survives.
//! - A guest has at most one request waiting, and four running.

use super::Order;
use super::incarnation::Incarnation;
use super::operation::Seen;
use crate::guests::Requester;
use crate::policy::Allowed;
use fencewire_core::{Failure, Millis, Outcome, PowerAction, Uuid};
use std::collections::{HashMap, VecDeque};

/// Actions that may run at the same time for one requester: as many as hang without any other requester noticing.
pub const RUNNING_PER_REQUESTER: usize = 4;

/// A request in a lane, and its order while nobody carries that out.
#[derive(Debug)]
pub struct Waiting<W> {
    /// What was asked, and the proofs.
    pub order: Order,
    /// When the request came.
    pub received: Millis,
    /// The lanes' owner's own mark on it.
    pub who: W,
}

/// What is to be done with a request that was put in.
#[derive(Debug)]
pub enum Verdict<W> {
    /// Carry it out now. Its order comes back with [`Lanes::ended`].
    Start(Order),
    /// It waits, or has joined one that runs.
    Waits,
    /// Nothing is done for it.
    Refused(Failure, Waiting<W>),
}

/// What follows from the end of an action.
#[derive(Debug)]
pub struct Ended<W> {
    /// Each request that it decided, with its outcome.
    pub decided: Vec<(Waiting<W>, Outcome)>,
    /// What is to be carried out next.
    pub start: Vec<Order>,
    /// Requests for which nothing is done any more.
    pub refused: Vec<(Waiting<W>, Failure)>,
}

/// A request in a lane, to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// What was asked.
    pub action: PowerAction,
    /// Who asked.
    pub requester: Requester,
    /// When.
    pub received: Millis,
}

/// A lane, to be shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whose it is.
    pub target: Uuid,
    /// What runs.
    pub running: Option<Task>,
    /// How many have joined that.
    pub joined: usize,
    /// What waits, in its order.
    pub waiting: Vec<Task>,
}

/// All lanes.
#[derive(Debug)]
pub struct Lanes<W> {
    lanes: HashMap<Uuid, Lane<W>>,
    running: HashMap<Requester, usize>,
}

#[derive(Debug)]
struct Lane<W> {
    running: Option<Running<W>>,
    waiting: VecDeque<Waiting<W>>,
}

#[derive(Debug)]
struct Running<W> {
    action: PowerAction,
    guard: Option<Incarnation>,
    requester: Requester,
    /// Whose order is being carried out: its mark, and when it came.
    first: (W, Millis),
    joined: Vec<Waiting<W>>,
}

impl<W: Copy + PartialEq> Lanes<W> {
    /// No lane yet.
    pub fn new() -> Lanes<W> {
        Lanes { lanes: HashMap::new(), running: HashMap::new() }
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether a fence of this guest has begun and not ended.
    pub fn is_being_fenced(&self, guest: Uuid) -> bool {
        let running = self.lanes.get(&guest).and_then(|lane| lane.running.as_ref());
        running.is_some_and(|running| running.action != PowerAction::On)
    }

    /// Whether nothing that this requester asks for begins: it is being fenced, and by somebody else.
    fn is_silenced(&self, requester: Requester, target: Uuid) -> bool {
        requester.guest().is_some_and(|guest| guest != target && self.is_being_fenced(guest))
    }

    /// Puts a request in. Gives also the requests of the target that nothing is done for, if its fence begins now.
    pub fn put(&mut self, request: Waiting<W>) -> (Verdict<W>, Vec<Waiting<W>>) {
        let (requester, target) = (request.order.requester(), request.order.target());
        if self.is_silenced(requester, target) {
            return (Verdict::Refused(Failure::RequesterFenced, request), Vec::new());
        }
        if self.waits(requester) {
            return (Verdict::Refused(Failure::Busy, request), Vec::new());
        }
        let lane = self.lane(target);
        if let Some(running) = &mut lane.running {
            if (running.action, running.guard) == (request.order.action(), request.order.guard) {
                running.joined.push(request);
            } else {
                lane.queue(request);
            }
            return (Verdict::Waits, Vec::new());
        }
        if !self.may_run_more(requester) {
            self.lane(target).queue(request);
            return (Verdict::Waits, Vec::new());
        }
        let order = self.begin(target, request);
        let refused = self.silence(target, &order);
        (Verdict::Start(order), refused)
    }

    /// An action has ended, and this was seen of it. `order` is what [`Verdict::Start`] gave.
    pub fn ended(&mut self, order: Order, seen: Seen) -> Ended<W> {
        let target = order.target();
        let mut ended = Ended { decided: Vec::new(), start: Vec::new(), refused: Vec::new() };
        let Some(lane) = self.lanes.get_mut(&target) else { return ended };
        let Some(running) = lane.running.take() else { return ended };
        if let Some(count) = self.running.get_mut(&running.requester) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(&running.requester);
            }
        }
        let (who, received) = running.first;
        let says_nothing = concerns_only(&order, seen);
        match seen.outcome(&order.permit, received) {
            Some(outcome) => ended.decided.push((Waiting { order, received, who }, outcome)),
            None => lane.queue(Waiting { order, received, who }),
        }
        for request in running.joined {
            match seen.outcome(&request.order.permit, request.received).filter(|_| !says_nothing) {
                Some(outcome) => ended.decided.push((request, outcome)),
                // What was seen was seen before this one came: it has to be done for it.
                None => lane.queue(request),
            }
        }
        self.start_waiting(&mut ended);
        ended
    }

    /// What runs and what waits, for each target.
    pub fn shown(&self) -> impl Iterator<Item = Shown> {
        let waits = |waiting: &Waiting<W>| Task {
            action: waiting.order.action(),
            requester: waiting.order.requester(),
            received: waiting.received,
        };
        self.lanes.iter().map(move |(target, lane)| Shown {
            target: *target,
            running: lane.running.as_ref().map(|running| Task {
                action: running.action,
                requester: running.requester,
                received: running.first.1,
            }),
            joined: lane.running.as_ref().map_or(0, |running| running.joined.len()),
            waiting: lane.waiting.iter().map(waits).collect(),
        })
    }

    /// Whoever waits for its turn, or for what another's request has begun.
    pub fn waiting(&self) -> impl Iterator<Item = W> {
        let all = self.lanes.values().flat_map(|lane| {
            let joined = lane.running.iter().flat_map(|running| &running.joined);
            lane.waiting.iter().chain(joined)
        });
        all.map(|waiting| waiting.who)
    }

    /// Gives a request that waits a new proof that it may be carried out; without one, takes it out.
    pub fn allow_anew(&mut self, who: W, allowed: Option<Allowed>) -> Option<Waiting<W>> {
        let Some(allowed) = allowed else { return self.leave(who) };
        let all = self.lanes.values_mut().flat_map(|lane| {
            let joined = lane.running.iter_mut().flat_map(|running| &mut running.joined);
            lane.waiting.iter_mut().chain(joined)
        });
        if let Some(waiting) = all.into_iter().find(|waiting| waiting.who == who) {
            waiting.order.allowed = allowed;
        }
        None
    }

    /// Takes out a request whose time is up, if nothing has begun that may still become its outcome.
    pub fn withdraw(&mut self, who: W) -> Option<Waiting<W>> {
        self.take_out(|lane| {
            let at = lane.waiting.iter().position(|waiting| waiting.who == who)?;
            lane.waiting.remove(at)
        })
    }

    /// Takes out a request that nobody waits for any more, unless it is being carried out itself.
    pub fn leave(&mut self, who: W) -> Option<Waiting<W>> {
        self.withdraw(who).or_else(|| {
            self.take_out(|lane| {
                let running = lane.running.as_mut()?;
                let at = running.joined.iter().position(|joined| joined.who == who)?;
                Some(running.joined.remove(at))
            })
        })
    }

    fn take_out(&mut self, from: impl FnMut(&mut Lane<W>) -> Option<Waiting<W>>) -> Option<Waiting<W>> {
        let taken = self.lanes.values_mut().find_map(from);
        self.lanes.retain(|_, lane| lane.running.is_some() || !lane.waiting.is_empty());
        taken
    }

    fn lane(&mut self, target: Uuid) -> &mut Lane<W> {
        self.lanes.entry(target).or_insert_with(|| Lane { running: None, waiting: VecDeque::new() })
    }

    fn may_run_more(&self, requester: Requester) -> bool {
        self.running.get(&requester).is_none_or(|running| *running < RUNNING_PER_REQUESTER)
    }

    fn waits(&self, requester: Requester) -> bool {
        self.lanes.values().any(|lane| lane.waiting.iter().any(|waiting| waiting.order.requester() == requester))
    }

    fn begin(&mut self, target: Uuid, request: Waiting<W>) -> Order {
        let Waiting { order, received, who } = request;
        *self.running.entry(order.requester()).or_insert(0) += 1;
        self.lane(target).running = Some(Running {
            action: order.action(),
            guard: order.guard,
            requester: order.requester(),
            first: (who, received),
            joined: Vec::new(),
        });
        order
    }

    /// Once the fence of a guest has begun, nothing that it asked for begins.
    fn silence(&mut self, target: Uuid, order: &Order) -> Vec<Waiting<W>> {
        let mut silenced = Vec::new();
        if order.action() == PowerAction::On {
            return silenced;
        }
        for lane in self.lanes.values_mut() {
            let (its, others): (Vec<_>, Vec<_>) =
                lane.waiting.drain(..).partition(|waiting| waiting.order.requester().is(target));
            lane.waiting = others.into();
            silenced.extend(its);
        }
        silenced
    }

    /// Begins whatever may begin now.
    fn start_waiting(&mut self, ended: &mut Ended<W>) {
        loop {
            // One that may not begin yet keeps its place, and nobody behind it waiting.
            let free = self.lanes.iter().find_map(|(target, lane)| {
                let waiting = lane.waiting.iter().filter(|_| lane.running.is_none());
                let next = waiting.map(|next| next.order.requester()).position(|next| self.may_run_more(next))?;
                Some((*target, next))
            });
            let Some((target, next)) = free else { break };
            let Some(next) = self.lanes.get_mut(&target).and_then(|lane| lane.waiting.remove(next)) else {
                break;
            };
            let requester = next.order.requester();
            if self.is_silenced(requester, target) {
                ended.refused.push((next, Failure::RequesterFenced));
                continue;
            }
            let order = self.begin(target, next);
            let silenced = self.silence(target, &order);
            ended.refused.extend(silenced.into_iter().map(|waiting| (waiting, Failure::RequesterFenced)));
            ended.start.push(order);
            self.join_waiting(target);
        }
        self.lanes.retain(|_, lane| lane.running.is_some() || !lane.waiting.is_empty());
    }

    /// Those that wait for the same as what has just begun need not wait for their turn.
    fn join_waiting(&mut self, target: Uuid) {
        let Some(lane) = self.lanes.get_mut(&target) else { return };
        let Some(running) = &mut lane.running else { return };
        let same = (running.action, running.guard);
        let (same, others): (Vec<_>, Vec<_>) =
            lane.waiting.drain(..).partition(|waiting| (waiting.order.action(), waiting.order.guard) == same);
        lane.waiting = others.into();
        running.joined.extend(same);
    }
}

impl<W: Copy + PartialEq> Default for Lanes<W> {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether an action failed for a reason of that order's own, and not of its target's: then it is done anew for whoever
/// had joined it.
fn concerns_only(order: &Order, seen: Seen) -> bool {
    match seen {
        Seen::Failed(
            Failure::Expired | Failure::RequesterFenced | Failure::NotFound | Failure::NotRecorded | Failure::Replaced,
        ) => true,
        Seen::Failed(_) => order.permit.resumed(),
        Seen::Off(..) | Seen::On(..) => false,
    }
}

impl<W> Lane<W> {
    /// `off` goes ahead of what is not.
    fn queue(&mut self, request: Waiting<W>) {
        let off = request.order.action() == PowerAction::Off;
        let at = self.waiting.iter().position(|waiting| off && waiting.order.action() != PowerAction::Off);
        self.waiting.insert(at.unwrap_or(self.waiting.len()), request);
    }
}

#[cfg(test)]
mod tests;
