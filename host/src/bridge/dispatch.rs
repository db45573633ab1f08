//! Where an order is carried out: on the hypervisor that has its target. With several, the target is looked for first.
//!
//! Not here: what is done there (`power::operation`), and what the hypervisors' words make together (`power::owner`).

use super::fleet::PATIENCE;
use super::{Bridge, Note, Timer};
use crate::clock;
use crate::power::Order;
use crate::power::hypervisor::{Hypervisor, HypervisorError, Sighting};
use crate::power::operation::{self, Seen};
use crate::power::owner::{Owner, Said, owner};
use fencewire_core::{Failure, Millis};
use std::panic::{self, AssertUnwindSafe};

/// Until a guest that was on its way from one hypervisor to another is looked for again.
const SEARCH_AGAIN: Millis = Millis(200);

/// A target that is looked for, to carry out an order where it is.
pub(super) struct Search {
    order: Order,
    since: Millis,
    /// Each round of looking has a number of its own; what comes from an earlier one is dropped.
    said: Vec<Option<Said>>,
}

impl Bridge {
    /// Has an order carried out where its target is.
    pub(super) fn carry_out(&mut self, order: Order) {
        match self.fleet.len() {
            1 => self.give(0, order),
            _ => self.search(order),
        }
    }

    fn search(&mut self, order: Order) {
        let now = clock::now();
        let id = self.fleet.next_search;
        self.fleet.next_search += 1;
        let (target, requester) = (order.target(), order.requester());
        let said = vec![None; self.fleet.len()];
        self.fleet.searches.insert(id, Search { order, since: now, said });
        for (at, node) in self.fleet.nodes.iter().enumerate() {
            let handle = self.handle.clone();
            let look = Box::new(move |hypervisor: Result<&dyn Hypervisor, _>| {
                let looked: Result<Sighting, _> = hypervisor.and_then(|hypervisor| hypervisor.look(target));
                handle.tell(Note::Found(id, at, Said::from(&looked)));
            });
            node.queries.give(Some(requester), look);
        }
        self.at(now.plus(PATIENCE), Timer::Search(id));
    }

    /// A hypervisor has said whether it has a target that is looked for.
    pub(super) fn found(&mut self, id: u64, at: usize, said: Said) {
        if let Some(search) = self.fleet.searches.get_mut(&id) {
            search.said[at] = Some(said);
            self.end_search(id);
        }
    }

    /// Carries an order out where its target was found, if that can be told.
    pub(super) fn end_search(&mut self, id: u64) {
        let now = clock::now();
        let Some(search) = self.fleet.searches.get(&id) else { return };
        let is_complete = search.said.iter().all(Option::is_some);
        let is_late = now.since(search.since) >= PATIENCE;
        let words: Vec<Said> = search.said.iter().map(|said| said.unwrap_or(Said::Silent)).collect();
        let owner = owner(&words);
        let is_over = now >= search.order.until;
        let decided = is_complete || is_over || (is_late && matches!(owner, Owner::On(_) | Owner::Twice));
        if !decided {
            if is_late {
                self.at(now.plus(SEARCH_AGAIN), Timer::Search(id));
            }
            return;
        }
        let Some(Search { order, .. }) = self.fleet.searches.remove(&id) else { return };
        let target = order.target();
        let failure = match owner {
            Owner::On(at) | Owner::Off(at) => return self.give(at, order),
            Owner::Twice => {
                tracing::error!(guest = %target, "active on more than one hypervisor: nothing is done to it");
                Failure::Ambiguous
            }
            Owner::SavedTwice => {
                tracing::error!(guest = %target, "off, with a saved image on more than one hypervisor: remove those by hand");
                Failure::Ambiguous
            }
            Owner::Silent => Failure::Unreachable,
            Owner::Nowhere => Failure::NotFound,
        };
        self.ended(order, failure.into());
    }

    /// Gives an order to a worker of that hypervisor.
    fn give(&mut self, at: usize, mut order: Order) {
        let node = &self.fleet.nodes[at];
        order.until = order.until.min(clock::now().plus(node.deadline));
        let (handle, journal) = (self.handle.clone(), self.journal.clone());
        let others = self.fleet.others(at);
        let held = self.held(order.target());
        let requester = order.requester();
        let beforehand = self.records.beforehand().zip(self.begun_record(&order));
        let carry_out = Box::new(move |hypervisor: Result<&dyn Hypervisor, HypervisorError>| {
            let is_written = beforehand.is_none_or(|(records, begun)| records.write(begun));
            let carried = match hypervisor {
                Ok(_) if !is_written => Failure::NotRecorded.into(),
                Ok(hypervisor) => {
                    let run = || operation::run(hypervisor, &others, &held, &order, &journal);
                    panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Failure::Unconfirmed.into())
                }
                Err(why) => {
                    tracing::error!(%why, "nothing was done: the hypervisor cannot be reached");
                    Failure::Unreachable.into()
                }
            };
            handle.tell(Note::Ended(order, carried));
        });
        node.power.give(Some(requester), carry_out);
    }

    /// Whether an order whose target has gone to another hypervisor is to be carried out there. If so, it is.
    pub(super) fn follows(&mut self, order: Order, seen: Seen) -> Option<Order> {
        let has_gone = seen == Seen::Failed(Failure::Elsewhere) && self.fleet.len() > 1;
        if !has_gone || clock::now().plus(SEARCH_AGAIN) >= order.until.min(order.permit.deadline()) {
            return Some(order);
        }
        self.search(order);
        None
    }
}
