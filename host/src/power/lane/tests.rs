use super::*;
use crate::power::operation::Started;
use crate::power::orders::{guest, order, resumed_order, seen_off};
use fencewire_core::Restart;

const OFF: PowerAction = PowerAction::Off;
const REBOOT: PowerAction = PowerAction::Reboot;
const ON: PowerAction = PowerAction::On;

const A: Uuid = guest(0xa);
const B: Uuid = guest(0xb);
const C: Uuid = guest(0xc);
const TARGET: Uuid = guest(0xf);

/// Lanes whose requests are marked with numbers.
#[derive(Default)]
struct Bench {
    lanes: Lanes<u32>,
    now: u64,
}

impl Bench {
    /// Puts a request in, a millisecond after the last.
    fn put(&mut self, who: u32, requester: Uuid, action: PowerAction, target: Uuid) -> (Verdict<u32>, Vec<u32>) {
        self.put_guarded(who, requester, action, target, None)
    }

    /// The same for a request that means that run of the target.
    fn put_guarded(
        &mut self,
        who: u32,
        requester: Uuid,
        action: PowerAction,
        target: Uuid,
        guard: Option<Incarnation>,
    ) -> (Verdict<u32>, Vec<u32>) {
        self.now += 1;
        let order = Order { guard, ..order(requester, action, target, Millis(self.now)) };
        let (verdict, silenced) = self.lanes.put(Waiting { order, received: Millis(self.now), who });
        (verdict, silenced.into_iter().map(|waiting| waiting.who).collect())
    }

    #[track_caller]
    fn starts(&mut self, who: u32, requester: Uuid, action: PowerAction, target: Uuid) -> Order {
        match self.put(who, requester, action, target) {
            (Verdict::Start(order), _) => order,
            other => panic!("not started: {other:?}"),
        }
    }

    #[track_caller]
    fn waits(&mut self, who: u32, requester: Uuid, action: PowerAction, target: Uuid) {
        match self.put(who, requester, action, target) {
            (Verdict::Waits, silenced) => assert_eq!(silenced, [] as [u32; 0]),
            other => panic!("does not wait: {other:?}"),
        }
    }

    #[track_caller]
    fn refused(&mut self, who: u32, requester: Uuid, action: PowerAction, target: Uuid) -> Failure {
        match self.put(who, requester, action, target) {
            (Verdict::Refused(failure, waiting), _) if waiting.who == who => failure,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Ends an action with what was seen; a look that is asked now sees the target off.
    fn ends(&mut self, order: Order, seen: Seen) -> Ended<u32> {
        self.lanes.ended(order, seen)
    }

    fn off_now(&self) -> Seen {
        off_at(self.now)
    }
}

fn off_at(at: u64) -> Seen {
    Seen::Off(seen_off(at), None)
}

fn failed(failure: Failure) -> Seen {
    Seen::Failed(failure)
}

fn decided(ended: &Ended<u32>) -> Vec<(u32, bool)> {
    ended.decided.iter().map(|(waiting, outcome)| (waiting.who, !matches!(outcome, Outcome::Failed(_)))).collect()
}

fn requesters(orders: &[Order]) -> Vec<Uuid> {
    orders.iter().filter_map(|order| order.requester().guest()).collect()
}

fn refused(ended: &Ended<u32>) -> Vec<(u32, Failure)> {
    ended.refused.iter().map(|(waiting, failure)| (waiting.who, *failure)).collect()
}

#[test]
fn a_request_for_the_same_joins_and_has_the_same_outcome() {
    let mut bench = Bench::default();
    let order = bench.starts(1, A, OFF, TARGET);
    bench.waits(2, B, OFF, TARGET);
    let seen = bench.off_now();
    let ended = bench.ends(order, seen);
    assert_eq!(decided(&ended), [(1, true), (2, true)]);
    assert!(ended.start.is_empty() && bench.lanes.is_empty());
}

#[test]
fn a_request_that_means_another_run_has_it_done_for_itself() {
    let [one, other] = [1, 2].map(|run| Some(Incarnation::from_bytes([run; 16])));
    let mut bench = Bench::default();
    let (Verdict::Start(order), _) = bench.put_guarded(1, A, OFF, TARGET, one) else { panic!("not started") };
    for (who, requester, guard) in [(2, B, other), (3, C, None), (4, guest(0xd), other), (5, guest(0xe), one)] {
        assert!(matches!(bench.put_guarded(who, requester, OFF, TARGET, guard).0, Verdict::Waits));
    }
    let seen = bench.off_now();
    let mut ended = bench.ends(order, seen);
    assert_eq!(decided(&ended), [(1, true), (5, true)], "who means the same run has joined, and nobody else");
    assert_eq!((requesters(&ended.start), ended.start[0].guard), (vec![B], other));
    bench.now += 1;
    let seen = bench.off_now();
    let ended = bench.ends(ended.start.remove(0), seen);
    assert_eq!(decided(&ended), [(2, true), (4, true)], "who waits for the same joins when that begins");
    assert_eq!(requesters(&ended.start), [C]);
}

#[test]
fn a_request_that_joined_after_the_last_look_has_it_done_for_itself() {
    let mut bench = Bench::default();
    let order = bench.starts(1, A, OFF, TARGET);
    let seen = bench.off_now();
    bench.waits(2, B, OFF, TARGET);
    let mut ended = bench.ends(order, seen);
    assert_eq!(decided(&ended), [(1, true)]);
    assert_eq!(requesters(&ended.start), [B]);
    let seen = bench.off_now();
    let ended = bench.ends(ended.start.remove(0), seen);
    assert_eq!(decided(&ended), [(2, true)]);
}

#[test]
fn a_failure_of_the_targets_is_the_failure_of_all() {
    for failure in [Failure::Unconfirmed, Failure::Unreachable, Failure::Elsewhere, Failure::NotStarted] {
        let mut bench = Bench::default();
        let order = bench.starts(1, A, OFF, TARGET);
        bench.waits(2, B, OFF, TARGET);
        assert_eq!(decided(&bench.ends(order, failed(failure))), [(1, false), (2, false)], "{failure:?}");
    }
}

#[test]
fn a_failure_of_the_first_ones_own_is_not_the_failure_of_whoever_joined() {
    for failure in [Failure::Expired, Failure::RequesterFenced, Failure::NotFound, Failure::NotRecorded] {
        let mut bench = Bench::default();
        let order = bench.starts(1, A, OFF, TARGET);
        bench.waits(2, B, OFF, TARGET);
        let ended = bench.ends(order, failed(failure));
        assert_eq!((decided(&ended), requesters(&ended.start)), (vec![(1, false)], vec![B]), "{failure:?}");
    }
    // One that an earlier run began may not be destroyed again. One that is new may.
    let mut bench = Bench::default();
    let order = resumed_order(A, OFF, TARGET, Millis(0));
    let (Verdict::Start(order), _) = bench.lanes.put(Waiting { order, received: Millis(0), who: 1 }) else { panic!() };
    bench.waits(2, B, OFF, TARGET);
    let ended = bench.ends(order, failed(Failure::Unconfirmed));
    assert_eq!((decided(&ended), requesters(&ended.start)), (vec![(1, false)], vec![B]));
}

#[test]
fn another_action_waits_and_an_off_goes_ahead_of_it() {
    let mut bench = Bench::default();
    let on = bench.starts(1, A, ON, TARGET);
    bench.waits(2, B, REBOOT, TARGET);
    bench.waits(3, C, OFF, TARGET);
    let at = Millis(bench.now);
    let ended = bench.ends(on, Seen::On(at, Started::Now));
    assert_eq!(decided(&ended), [(1, true)]);
    assert_eq!(ended.start.iter().map(Order::action).collect::<Vec<_>>(), [OFF]);
}

#[test]
fn those_that_wait_for_the_same_begin_together() {
    let mut bench = Bench::default();
    let on = bench.starts(1, A, ON, TARGET);
    bench.waits(2, B, OFF, TARGET);
    bench.waits(3, C, OFF, TARGET);
    let mut ended = bench.ends(on, failed(Failure::NotStarted));
    assert_eq!(requesters(&ended.start), [B]);
    let seen = bench.off_now();
    assert_eq!(decided(&bench.ends(ended.start.remove(0), seen)), [(2, true), (3, true)]);
}

#[test]
fn a_guest_has_one_request_waiting_and_four_running() {
    let mut bench = Bench::default();
    let mut orders: Vec<Order> = (1..=4).map(|number| bench.starts(number.into(), A, OFF, guest(number))).collect();
    bench.waits(5, A, OFF, guest(5));
    assert_eq!(bench.refused(6, A, OFF, guest(6)), Failure::Busy);
    let b = bench.starts(7, B, OFF, guest(6));
    let seen = bench.off_now();
    assert!(bench.ends(b, seen).start.is_empty(), "the end of another's lets none of its begin");
    let ended = bench.ends(orders.remove(0), seen);
    assert_eq!(ended.start.iter().map(Order::target).collect::<Vec<_>>(), [guest(5)]);
}

#[test]
fn one_that_may_not_begin_yet_keeps_nobody_behind_it_waiting() {
    let mut bench = Bench::default();
    let on = bench.starts(1, C, ON, TARGET);
    let _running: Vec<Order> = (1..=4).map(|number| bench.starts(number.into(), A, OFF, guest(number))).collect();
    bench.waits(10, A, OFF, TARGET);
    bench.waits(11, B, OFF, TARGET);
    let mut ended = bench.ends(on, failed(Failure::NotStarted));
    assert_eq!(requesters(&ended.start), [B]);
    let seen = bench.off_now();
    assert_eq!(decided(&bench.ends(ended.start.remove(0), seen)), [(11, true), (10, true)], "the other one joined it");
}

#[test]
fn one_that_may_not_begin_yet_is_kept_when_another_is_taken_out() {
    let mut bench = Bench::default();
    let mut running: Vec<Order> = (1..=4).map(|number| bench.starts(number.into(), A, OFF, guest(number))).collect();
    bench.waits(10, A, OFF, TARGET);
    let _on = bench.starts(11, B, ON, guest(5));
    bench.waits(12, B, OFF, guest(5));
    assert!(bench.lanes.leave(12).is_some());
    let seen = bench.off_now();
    let started: Vec<Uuid> = bench.ends(running.remove(0), seen).start.iter().map(Order::target).collect();
    assert_eq!(started, [TARGET]);
}

#[test]
fn who_is_being_fenced_begins_nothing() {
    for action in [OFF, REBOOT] {
        let mut bench = Bench::default();
        let order = bench.starts(1, A, action, B);
        assert!(bench.lanes.is_being_fenced(B));
        assert_eq!(bench.refused(2, B, OFF, A), Failure::RequesterFenced, "{action:?}");
        assert_eq!(bench.refused(3, B, ON, TARGET), Failure::RequesterFenced, "{action:?}");
        let seen = bench.off_now();
        bench.ends(order, seen);
        assert!(!bench.lanes.is_being_fenced(B));
    }
    let mut bench = Bench::default();
    let _on = bench.starts(1, A, ON, B);
    let _fence = bench.starts(2, B, OFF, A);
}

#[test]
fn who_comes_to_be_fenced_has_nothing_waiting_any_more() {
    let mut bench = Bench::default();
    let on = bench.starts(1, C, ON, TARGET);
    bench.waits(2, B, OFF, TARGET);
    let (verdict, silenced) = bench.put(3, A, OFF, B);
    assert!(matches!(verdict, Verdict::Start(_)));
    assert_eq!(silenced, [2]);
    assert!(bench.ends(on, failed(Failure::NotStarted)).start.is_empty());
}

#[test]
fn a_fence_that_begins_late_silences_likewise() {
    let mut bench = Bench::default();
    let first = bench.starts(1, C, ON, B);
    let on = bench.starts(2, C, ON, TARGET);
    bench.waits(3, B, OFF, TARGET);
    bench.waits(4, A, OFF, B);
    let ended = bench.ends(first, failed(Failure::NotStarted));
    assert_eq!((requesters(&ended.start), refused(&ended)), (vec![A], vec![(3, Failure::RequesterFenced)]));
    assert!(bench.ends(on, failed(Failure::NotStarted)).start.is_empty());
}

#[test]
fn one_that_joined_begins_nothing_for_itself_once_it_is_being_fenced() {
    let mut bench = Bench::default();
    let order = bench.starts(1, A, OFF, TARGET);
    let seen = bench.off_now();
    bench.waits(2, B, OFF, TARGET);
    let _fence = bench.starts(3, C, OFF, B);
    let ended = bench.ends(order, seen);
    assert_eq!(refused(&ended), [(2, Failure::RequesterFenced)]);
    assert!(ended.start.is_empty());
}

#[test]
fn of_a_ring_of_any_size_somebody_survives() {
    for size in 2..10_u8 {
        let mut bench = Bench::default();
        let begun: Vec<bool> = (0..size)
            .map(|asks| {
                let (verdict, _) = bench.put(asks.into(), guest(asks), OFF, guest((asks + 1) % size));
                matches!(verdict, Verdict::Start(_))
            })
            .collect();
        let deaths = begun.iter().filter(|begun| **begun).count();
        assert!((1..usize::from(size)).contains(&deaths), "{size}: {deaths}");
        assert_eq!(begun[0..2], [true, false], "{size}: the first one's target fences nobody any more");
    }
}

#[test]
fn a_guest_may_fence_itself() {
    let mut bench = Bench::default();
    let order = bench.starts(1, A, OFF, A);
    let seen = bench.off_now();
    assert_eq!(decided(&bench.ends(order, seen)), [(1, true)]);
}

#[test]
fn what_waits_can_be_withdrawn_and_what_is_carried_out_cannot() {
    let mut bench = Bench::default();
    let order = bench.starts(1, A, OFF, TARGET);
    bench.waits(2, B, OFF, TARGET);
    bench.waits(3, C, ON, TARGET);
    assert!(bench.lanes.withdraw(1).is_none() && bench.lanes.leave(1).is_none());
    assert!(bench.lanes.withdraw(2).is_none(), "what it joined may still become its outcome");
    assert_eq!(bench.lanes.withdraw(3).map(|waiting| waiting.who), Some(3));
    let seen = bench.off_now();
    assert_eq!(decided(&bench.ends(order, seen)), [(1, true), (2, true)]);
    assert!(bench.lanes.is_empty());
}

#[test]
fn one_that_joined_and_left_is_not_done_for_itself() {
    let mut bench = Bench::default();
    let order = bench.starts(1, A, OFF, TARGET);
    let seen = bench.off_now();
    bench.waits(2, B, OFF, TARGET);
    assert_eq!(bench.lanes.leave(2).map(|waiting| waiting.who), Some(2));
    assert!(bench.ends(order, seen).start.is_empty());
    assert!(bench.lanes.is_empty());
}

#[test]
fn a_reboot_says_what_became_of_its_start() {
    let mut bench = Bench::default();
    let order = bench.starts(1, A, REBOOT, TARGET);
    let seen = Seen::Off(seen_off(bench.now), Some(Restart::NotStarted));
    let ended = bench.ends(order, seen);
    assert!(matches!(ended.decided[0].1, Outcome::Rebooted(_, Restart::NotStarted)));
}

#[test]
fn a_new_permission_is_its_own_requests_and_whoever_gets_none_is_taken_out() {
    let mut bench = Bench::default();
    let first = bench.starts(1, A, OFF, TARGET);
    bench.waits(2, B, REBOOT, TARGET);
    bench.waits(3, C, ON, TARGET);
    assert_eq!(bench.lanes.waiting().collect::<Vec<_>>(), [2, 3]);
    let asked = |bench: &Bench| {
        let shown: Vec<Shown> = bench.lanes.shown().collect();
        let [lane] = &shown[..] else { panic!("one lane") };
        lane.waiting.iter().map(|task| (task.requester, task.action)).collect::<Vec<_>>()
    };
    let before = asked(&bench);
    for (who, requester, action) in [(2, B, REBOOT), (3, C, ON)] {
        let anew = order(requester, action, TARGET, Millis(9)).allowed;
        assert!(bench.lanes.allow_anew(who, Some(anew)).is_none());
        assert_eq!(asked(&bench), before, "{who}");
    }
    assert!(bench.lanes.allow_anew(2, None).is_some_and(|taken| taken.who == 2));
    assert!(bench.lanes.allow_anew(1, None).is_none(), "it is being carried out");
    assert_eq!(asked(&bench), before[1..]);
    let seen = bench.off_now();
    assert_eq!(requesters(&bench.ends(first, seen).start), [C]);
}
