//! At most once: a repeated power request gets the first one's answer, and is neither done again nor met by silence.
//!
//! One ledger per requester; it outlives connections. Status is not in here: it is never answered from memory.

use crate::words::{
    ConfirmedOff, Failure, Millis, Observation, Outcome, Power, PowerAction, Request, RequestKey, Restart,
};

/// What one requester has asked of others' power, and what came of it. Holds `N` requests; a full one refuses.
///
/// A request is remembered until its [`Request::remember_until`], and while it runs: until then a repetition is found.
/// Afterwards it is refused, since no deadline lies beyond; but a classic request's deadline counts from the receipt of
/// each copy, so its asker must have stopped repeating it by then.
#[derive(Debug)]
pub struct Ledger<const N: usize> {
    entries: heapless::Vec<Entry, N>,
}

#[derive(Debug)]
struct Entry {
    key: RequestKey,
    remember_until: Millis,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Running,
    /// An earlier run of this program began it, after it had come at that time.
    Interrupted(Millis),
    Settled(Outcome),
}

/// What [`Ledger::admit`] says to a request.
#[derive(Debug)]
pub enum Admit {
    /// New: carry it out, then [`settle`](Ledger::settle).
    Act(Permit),
    /// It is being carried out: this one gets the same outcome when that is there.
    Running,
    /// It was carried out, and this came of it.
    Repeat(Outcome),
    /// Not admitted. Nothing may be done for it.
    Refused(NotAdmitted),
}

/// Why a request was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// Every place is taken by a request that may still be repeated. It passes with time.
    Full,
    /// The same id came before with another body. One of the two is not what its requester sent.
    OtherBody,
    /// Its time is up.
    Expired,
}

impl From<NotAdmitted> for Failure {
    fn from(why: NotAdmitted) -> Failure {
        match why {
            NotAdmitted::Expired => Failure::Expired,
            NotAdmitted::Full | NotAdmitted::OtherBody => Failure::Busy,
        }
    }
}

/// Proof that a power request was admitted: the one chance to carry it out. It cannot be copied.
#[derive(Debug)]
pub struct Permit {
    key: RequestKey,
    received: Millis,
    deadline: Millis,
    resumed: bool,
}

impl Permit {
    /// Which request this is for.
    pub const fn key(&self) -> RequestKey {
        self.key
    }

    /// When it came first.
    pub const fn received(&self) -> Millis {
        self.received
    }

    /// From when on nothing may be begun for it.
    pub const fn deadline(&self) -> Millis {
        self.deadline
    }

    /// Whether an earlier run of this program began it and did not live to see what came of it. Then a guest that runs
    /// may be put off only if it has not been started since; seeing it off is as good as ever, and so is what that run
    /// saw after the request had first come.
    pub const fn resumed(&self) -> bool {
        self.resumed
    }

    /// Takes an observation for proof that the target is off: if it says so, and if it was made after the request
    /// came. What was seen before that says nothing of a guest that somebody has started since.
    pub fn confirm_off(&self, seen: Observation) -> Option<ConfirmedOff> {
        (seen.power == Power::Off && seen.asked >= self.received).then_some(ConfirmedOff { seen: seen.asked })
    }
}

/// What an earlier run of this program wrote down of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// It was begun, after it had come at that time. What came of it, nobody saw.
    Begun(Millis),
    /// It was carried out: the target was seen off (at that time, where the action is one that puts it off).
    Done(PowerAction, Millis, Restart),
    /// It failed.
    Failed(Failure),
}

impl<const N: usize> Ledger<N> {
    /// An empty one.
    pub const fn new() -> Self {
        Ledger { entries: heapless::Vec::new() }
    }

    /// May this power request be carried out now?
    pub fn admit(&mut self, request: &Request, now: Millis) -> Admit {
        self.forget(now);
        let key = request.key;
        let permit = Permit { key, received: request.received, deadline: request.deadline, resumed: false };
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key.id == key.id) {
            if entry.key.body != key.body {
                return Admit::Refused(NotAdmitted::OtherBody);
            }
            return match entry.state {
                State::Settled(outcome) => Admit::Repeat(outcome),
                State::Running => {
                    // Its last copy may be on its way when the outcome comes, however long that takes.
                    entry.remember_until = entry.remember_until.max(request.remember_until);
                    Admit::Running
                }
                State::Interrupted(_) if now >= request.deadline => Admit::Refused(NotAdmitted::Expired),
                State::Interrupted(received) => {
                    entry.state = State::Running;
                    Admit::Act(Permit { received, resumed: true, ..permit })
                }
            };
        }
        if now >= request.deadline {
            return Admit::Refused(NotAdmitted::Expired);
        }
        // A memory shorter than the time to act would let a request be done twice within its time.
        let remember_until = request.remember_until.max(request.deadline);
        match self.entries.push(Entry { key, remember_until, state: State::Running }) {
            Ok(()) => Admit::Act(permit),
            Err(_) => Admit::Refused(NotAdmitted::Full),
        }
    }

    /// Writes down what came of an admitted request.
    #[expect(clippy::needless_pass_by_value, reason = "the one chance is spent")]
    pub fn settle(&mut self, permit: Permit, outcome: Outcome) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == permit.key) {
            entry.state = State::Settled(outcome);
        }
    }

    /// Takes back an admission for which nothing was begun: the same request may come again and be new. What an earlier
    /// run of this program began stays begun.
    #[expect(clippy::needless_pass_by_value, reason = "the one chance is spent")]
    pub fn withdraw(&mut self, permit: Permit) {
        if !permit.resumed {
            self.entries.retain(|entry| entry.key != permit.key);
        } else if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == permit.key) {
            entry.state = State::Interrupted(permit.received);
        }
    }

    /// Takes over what an earlier run of this program wrote down. Says false where there is no room.
    pub fn restore(&mut self, key: RequestKey, remember_until: Millis, what: Remembered) -> bool {
        let state = match what {
            Remembered::Begun(received) => State::Interrupted(received),
            Remembered::Failed(failure) => State::Settled(Outcome::Failed(failure)),
            Remembered::Done(PowerAction::Off, seen, _) => State::Settled(Outcome::Off(ConfirmedOff { seen })),
            Remembered::Done(PowerAction::Reboot, seen, restart) => {
                State::Settled(Outcome::Rebooted(ConfirmedOff { seen }, restart))
            }
            Remembered::Done(PowerAction::On, ..) => State::Settled(Outcome::On),
        };
        self.entries.push(Entry { key, remember_until, state }).is_ok()
    }

    /// How many requests are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An entry goes when its time is up; one that is being carried out stays until it is settled.
    fn forget(&mut self, now: Millis) {
        self.entries.retain(|entry| now < entry.remember_until || matches!(entry.state, State::Running));
    }
}

impl<const N: usize> Default for Ledger<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Ask, GuestName, Target, Which};

    fn request(id: u64, body: u8, received: u64) -> Request {
        Request {
            ask: Ask::Power(PowerAction::Off, Target::Name(GuestName::parse(b"vm").unwrap())),
            key: RequestKey { id, body: [body; 16] },
            received: Millis(received),
            deadline: Millis(received + 25_000),
            remember_until: Millis(received + 60_000),
            which: Which::Any,
            native: false,
        }
    }

    fn admitted(admit: Admit) -> Permit {
        match admit {
            Admit::Act(permit) => permit,
            other => panic!("not admitted: {other:?}"),
        }
    }

    fn off_at(permit: &Permit, at: u64) -> Outcome {
        let seen = Observation { power: Power::Off, asked: Millis(at) };
        Outcome::Off(permit.confirm_off(seen).expect("seen after the request came"))
    }

    #[test]
    fn a_repetition_gets_the_first_ones_answer_and_no_second_permit() {
        let mut ledger = Ledger::<4>::new();
        let permit = admitted(ledger.admit(&request(1, 1, 0), Millis(0)));
        assert!(matches!(ledger.admit(&request(1, 1, 5), Millis(5)), Admit::Running));
        let outcome = off_at(&permit, 7);
        ledger.settle(permit, outcome);
        assert!(matches!(ledger.admit(&request(1, 1, 59_000), Millis(59_000)), Admit::Repeat(o) if o == outcome));
    }

    /// What is resumed is not put off again: a new request that looked resumed would never be carried out.
    #[test]
    fn a_new_request_is_not_resumed() {
        let mut ledger = Ledger::<1>::new();
        let permit = admitted(ledger.admit(&request(1, 1, 0), Millis(0)));
        assert!(!permit.resumed());
    }

    #[test]
    fn what_is_remembered_is_counted() {
        let mut ledger = Ledger::<3>::default();
        assert_eq!((ledger.len(), ledger.is_empty()), (0, true));
        for id in 0..2 {
            let permit = admitted(ledger.admit(&request(id, 1, 0), Millis(0)));
            ledger.settle(permit, Outcome::On);
        }
        assert_eq!((ledger.len(), ledger.is_empty()), (2, false));
        let _ = ledger.admit(&request(9, 1, 60_000), Millis(60_000));
        assert_eq!(ledger.len(), 1, "the others have had their time");
    }

    #[test]
    fn the_same_id_with_another_body_is_an_error() {
        let mut ledger = Ledger::<4>::new();
        let _running = admitted(ledger.admit(&request(1, 1, 0), Millis(0)));
        assert!(matches!(ledger.admit(&request(1, 2, 1), Millis(1)), Admit::Refused(NotAdmitted::OtherBody)));
    }

    #[test]
    fn a_full_ledger_refuses_until_an_entry_has_had_its_time() {
        let mut ledger = Ledger::<2>::new();
        for id in 0..2 {
            let permit = admitted(ledger.admit(&request(id, 1, 0), Millis(0)));
            ledger.settle(permit, Outcome::On);
        }
        assert!(matches!(ledger.admit(&request(2, 1, 59_999), Millis(59_999)), Admit::Refused(NotAdmitted::Full)));
        let _ = admitted(ledger.admit(&request(2, 1, 60_000), Millis(60_000)));
    }

    #[test]
    fn what_still_runs_is_not_forgotten_however_long_it_takes() {
        let mut ledger = Ledger::<1>::new();
        let permit = admitted(ledger.admit(&request(1, 1, 0), Millis(0)));
        assert!(matches!(ledger.admit(&request(1, 1, 0), Millis(9_000_000)), Admit::Running));
        ledger.settle(permit, Outcome::Failed(Failure::Unconfirmed));
        assert!(matches!(ledger.admit(&request(1, 1, 0), Millis(9_000_001)), Admit::Refused(NotAdmitted::Expired)));
    }

    #[test]
    fn a_request_whose_time_is_up_is_refused() {
        let mut ledger = Ledger::<1>::new();
        assert!(matches!(ledger.admit(&request(1, 1, 0), Millis(25_000)), Admit::Refused(NotAdmitted::Expired)));
    }

    #[test]
    fn off_is_confirmed_only_by_what_was_seen_after_the_request_came() {
        let mut ledger = Ledger::<1>::new();
        let permit = admitted(ledger.admit(&request(1, 1, 100), Millis(100)));
        let seen = |power, asked| permit.confirm_off(Observation { power, asked: Millis(asked) });
        assert!(seen(Power::Off, 99).is_none());
        assert!(seen(Power::Off, 100).is_some());
        assert!(seen(Power::On, 200).is_none());
        assert!(seen(Power::Unknown, 200).is_none());
    }

    #[test]
    fn what_an_earlier_run_began_is_resumed_and_what_it_finished_is_repeated() {
        let mut ledger = Ledger::<2>::new();
        assert!(ledger.restore(RequestKey { id: 1, body: [1; 16] }, Millis(60_000), Remembered::Begun(Millis(0))));
        let done = Remembered::Done(PowerAction::Off, Millis(3), Restart::NotStarted);
        assert!(ledger.restore(RequestKey { id: 2, body: [2; 16] }, Millis(60_000), done));
        assert!(!ledger.restore(RequestKey { id: 3, body: [3; 16] }, Millis(60_000), Remembered::Begun(Millis(0))));
        assert!(admitted(ledger.admit(&request(1, 1, 10), Millis(10))).resumed());
        assert!(matches!(ledger.admit(&request(1, 1, 11), Millis(11)), Admit::Running));
        assert!(matches!(ledger.admit(&request(2, 2, 12), Millis(12)), Admit::Repeat(Outcome::Off(_))));
    }

    /// It may have been done before this copy came, and been seen then.
    #[test]
    fn what_was_seen_since_a_resumed_request_first_came_counts_and_nothing_from_before() {
        let mut ledger = Ledger::<1>::new();
        assert!(ledger.restore(RequestKey { id: 1, body: [1; 16] }, Millis(60_000), Remembered::Begun(Millis(5))));
        let permit = admitted(ledger.admit(&request(1, 1, 10), Millis(10)));
        assert_eq!(permit.received(), Millis(5));
        for (asked, counts) in [(4, false), (5, true), (9, true), (10, true)] {
            let seen = Observation { power: Power::Off, asked: Millis(asked) };
            assert_eq!(permit.confirm_off(seen).is_some(), counts, "at {asked} ms");
        }
    }

    #[test]
    fn what_was_withdrawn_before_it_began_may_come_again() {
        let mut ledger = Ledger::<1>::new();
        let permit = admitted(ledger.admit(&request(1, 1, 0), Millis(0)));
        ledger.withdraw(permit);
        assert!(ledger.is_empty());
        let _ = admitted(ledger.admit(&request(1, 1, 9), Millis(9)));
    }

    #[test]
    fn what_an_earlier_run_began_is_not_resumed_when_its_time_is_up() {
        let mut ledger = Ledger::<1>::new();
        assert!(ledger.restore(RequestKey { id: 1, body: [1; 16] }, Millis(60_000), Remembered::Begun(Millis(0))));
        assert!(matches!(ledger.admit(&request(1, 1, 0), Millis(25_000)), Admit::Refused(NotAdmitted::Expired)));
    }

    #[test]
    fn what_an_earlier_run_began_stays_begun_when_its_permit_is_taken_back() {
        let mut ledger = Ledger::<1>::new();
        assert!(ledger.restore(RequestKey { id: 1, body: [1; 16] }, Millis(60_000), Remembered::Begun(Millis(0))));
        let permit = admitted(ledger.admit(&request(1, 1, 10), Millis(10)));
        ledger.withdraw(permit);
        assert!(admitted(ledger.admit(&request(1, 1, 11), Millis(11))).resumed());
    }

    #[test]
    fn a_repetition_of_what_runs_is_remembered_as_long_as_any_request() {
        let mut ledger = Ledger::<1>::new();
        let permit = admitted(ledger.admit(&request(1, 1, 0), Millis(0)));
        assert!(matches!(ledger.admit(&request(1, 1, 59_000), Millis(59_000)), Admit::Running));
        let outcome = off_at(&permit, 70_000);
        ledger.settle(permit, outcome);
        // On its way when the answer came.
        assert!(matches!(ledger.admit(&request(1, 1, 70_001), Millis(70_001)), Admit::Repeat(o) if o == outcome));
        let _ = admitted(ledger.admit(&request(1, 1, 119_000), Millis(119_000)));
    }
}
