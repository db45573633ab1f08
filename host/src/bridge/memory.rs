//! What is remembered of whoever asks: its ledger, its budget, and who waits for the same answer.

use super::requests::AskId;
use crate::journal::Entry;
use crate::power::Earlier;
use fencewire_core::{Ledger, Millis, Permit, Remembered, RequestKey, Uuid};
use std::collections::{HashMap, VecDeque};

/// Power requests of one requester that are remembered at a time, each for a minute. More are refused.
pub(super) const REMEMBERED: usize = 1_024;

/// Over what time a budget goes.
const MINUTE: Millis = Millis(60_000);

/// What is remembered of one requester.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) ledger: Box<Ledger<REMEMBERED>>,
    /// Asks that repeat a request that is being carried out.
    twins: HashMap<RequestKey, Vec<AskId>>,
    destroys: VecDeque<(Millis, Uuid)>,
    /// What an earlier run did for requests that it did not live to see the end of.
    earlier: HashMap<RequestKey, Earlier>,
    /// What the journal has of it, in the order of time.
    journaled: VecDeque<(Millis, RequestKey)>,
}

impl Memory {
    /// Takes over what an earlier run wrote down.
    pub(super) fn restore(&mut self, entry: &Entry) {
        if self.ledger.restore(entry.key, entry.until, entry.what) {
            self.journaled.push_back((entry.until, entry.key));
            if matches!(entry.what, Remembered::Begun(_)) {
                self.earlier.insert(entry.key, entry.earlier);
            }
        }
    }

    /// What an earlier run did for a request that it began.
    pub(super) fn earlier(&self, permit: &Permit) -> Option<Earlier> {
        let unknown = Earlier { incarnation: None, seen_off: None };
        permit.resumed().then(|| self.earlier.get(&permit.key()).copied().unwrap_or(unknown))
    }

    /// Whether one more destroy is within the budget. The first of a target in a minute always is.
    pub(super) fn may_destroy(&mut self, target: Uuid, budget: usize, now: Millis) -> bool {
        while self.destroys.front().is_some_and(|(at, _)| now.since(*at) >= MINUTE) {
            self.destroys.pop_front();
        }
        self.destroys.len() < budget || self.destroys.iter().all(|(_, other)| *other != target)
    }

    /// A destroy is about to be issued for it.
    pub(super) fn destroys(&mut self, target: Uuid, now: Millis) {
        self.destroys.push_back((now, target));
    }

    /// The journal is about to have something of this request.
    pub(super) fn journals(&mut self, key: RequestKey, until: Millis) {
        self.journaled.push_back((until, key));
    }

    /// Requests that the journal need not have any more.
    pub(super) fn forget(&mut self, now: Millis) -> Vec<RequestKey> {
        let mut old = Vec::new();
        while let Some((until, key)) = self.journaled.front()
            && *until <= now
        {
            let key = *key;
            self.journaled.pop_front();
            // One that came again when its time was up has a time of its own.
            if self.journaled.iter().all(|(_, other)| *other != key) {
                self.earlier.remove(&key);
                old.push(key);
            }
        }
        old
    }

    /// `ask` repeats a request that is being carried out.
    pub(super) fn twin(&mut self, key: RequestKey, ask: AskId) {
        self.twins.entry(key).or_default().push(ask);
    }

    /// One that repeated a request, to take the place of the one that came first.
    pub(super) fn take_twin(&mut self, key: RequestKey) -> Option<AskId> {
        let twins = self.twins.get_mut(&key)?;
        let first = (!twins.is_empty()).then(|| twins.remove(0));
        if twins.is_empty() {
            self.twins.remove(&key);
        }
        first
    }

    /// `ask` is waited for no more. Says whether it repeated a request.
    pub(super) fn remove_twin(&mut self, key: RequestKey, ask: AskId) -> bool {
        let Some(twins) = self.twins.get_mut(&key) else { return false };
        let before = twins.len();
        twins.retain(|twin| *twin != ask);
        let removed = twins.len() < before;
        if twins.is_empty() {
            self.twins.remove(&key);
        }
        removed
    }

    /// Who repeated a request that has now been decided.
    pub(super) fn take_twins(&mut self, key: RequestKey) -> Vec<AskId> {
        self.twins.remove(&key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_came_again_is_forgotten_when_its_second_time_is_up() {
        let [key, other] = [1, 2].map(|id| RequestKey { id, body: [0; 16] });
        let mut memory = Memory::default();
        for (until, key) in [(10, key), (11, other), (20, key)] {
            memory.journals(key, Millis(until));
        }
        assert_eq!(memory.forget(Millis(9)), []);
        assert_eq!(memory.forget(Millis(11)), [other]);
        assert_eq!(memory.forget(Millis(20)), [key]);
    }

    #[test]
    fn the_first_twin_takes_the_place_of_one_that_left_and_one_that_left_takes_none() {
        let key = RequestKey { id: 1, body: [0; 16] };
        let [a, b, c] = [1, 2, 3].map(AskId);
        let mut memory = Memory::default();
        for ask in [a, b, c] {
            memory.twin(key, ask);
        }
        assert!(memory.remove_twin(key, a) && !memory.remove_twin(key, a));
        assert_eq!(memory.take_twin(key), Some(b));
        assert_eq!(memory.take_twins(key), [c]);
        assert_eq!(memory.take_twin(key), None);
    }

    #[test]
    fn a_budget_counts_destroys_and_never_refuses_the_first_of_a_target() {
        let (a, b) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        let mut memory = Memory::default();
        for at in 0..2 {
            assert!(memory.may_destroy(a, 2, Millis(at)));
            memory.destroys(a, Millis(at));
        }
        assert!(!memory.may_destroy(a, 2, Millis(10)));
        assert!(memory.may_destroy(b, 2, Millis(10)));
        assert!(memory.may_destroy(a, 2, Millis(60_000)), "the first one is a minute old");
    }
}
