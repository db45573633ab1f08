//! Our own wire with everything that stands at both its ends: several guests that fence one another, their channels on
//! which everything goes wrong, a bridge that is killed and started again, and a hypervisor, in virtual time and from a
//! seed. The clients, the listeners and the ledgers are the real ones.
//!
//! What must never happen is in `rules.rs`; that it would be noticed is shown by faults that are planted, each by name.
//! A run that fails says its seed: `FENCEWIRE_SEED=n cargo test -p fencewire-core --test simulation` is the same run again.
//! `FENCEWIRE_SEEDS=n` says how many seeds are run, from 0 or from `FENCEWIRE_SEED` on.

mod bent;
mod bridge;
#[allow(dead_code, reason = "each simulation takes its part of it")]
#[path = "../conversation/chance.rs"]
mod chance;
mod hypervisor;
mod line;
mod rules;
mod world;

use bridge::Planted;
use rules::Broken;
use world::World;

/// Seeds of an ordinary run.
const SEEDS: u64 = 2_000;

fn run(seed: u64, planted: Planted) -> Result<(), Broken> {
    World::new(seed, planted).run()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Nothing unasked, nothing twice, nothing too late, nobody's success but the true one, nobody stuck; and when all is well
/// again, what is asked is done in its time.
#[test]
fn the_rules_hold_whatever_happens() {
    let (first, many) = (number("FENCEWIRE_SEED"), number("FENCEWIRE_SEEDS"));
    let many = many.unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let first = first.unwrap_or(0);
    for seed in first..first + many {
        if seed > 0 && seed % 10_000 == 0 {
            println!("{seed} seeds");
        }
        if let Err(broken) = run(seed, Planted::Nothing) {
            panic!("{broken:?}: run again with FENCEWIRE_SEED={seed}");
        }
    }
}

/// The same seed, the same run.
#[test]
fn a_run_can_be_repeated() {
    for seed in 0..20 {
        assert_eq!(run(seed, Planted::NoLedger), run(seed, Planted::NoLedger));
    }
}

/// One of the rules notices the planted fault, and says what it is.
#[track_caller]
fn is_found(planted: Planted, is_it: impl Fn(&Broken) -> bool) {
    let is_found = (0..400).any(|seed| run(seed, planted).err().is_some_and(|broken| is_it(&broken)));
    assert!(is_found, "{planted:?} is not found in 400 runs");
}

#[test]
fn a_bridge_without_a_ledger_is_found() {
    is_found(Planted::NoLedger, |broken| matches!(broken, Broken::ActedTwice(_)));
}

#[test]
fn a_bridge_without_a_journal_is_found() {
    is_found(Planted::NoJournal, |broken| matches!(broken, Broken::ActedTwice(_)));
}

#[test]
fn a_bridge_that_has_lost_its_journal_and_says_it_is_the_same_is_found() {
    is_found(Planted::OneInstance, |broken| matches!(broken, Broken::ActedTwice(_)));
}

#[test]
fn a_bridge_that_heeds_no_guard_is_found() {
    is_found(Planted::NoGuard, |broken| matches!(broken, Broken::AnotherRun(_)));
}

#[test]
fn a_bridge_that_heeds_no_deadline_is_found() {
    is_found(Planted::NoDeadline, |broken| matches!(broken, Broken::ActedLate(_)));
}

#[test]
fn a_bridge_that_does_not_look_whether_it_is_off_is_found() {
    is_found(Planted::NoConfirmation, |broken| matches!(broken, Broken::FalseSuccess(_)));
}

#[test]
fn a_bridge_that_asks_no_policy_is_found() {
    is_found(Planted::NoPolicy, |broken| matches!(broken, Broken::NotAllowed(_)));
}

#[test]
fn a_bridge_that_lets_the_fenced_fence_is_found() {
    is_found(Planted::NoShootOut, |broken| matches!(broken, Broken::FencedFences(_)));
}

#[test]
fn a_bridge_that_answers_a_status_from_memory_is_found() {
    is_found(Planted::OldStatus, |broken| matches!(broken, Broken::FalseStatus(_)));
}

#[test]
fn a_deaf_bridge_is_found() {
    is_found(Planted::Deaf, |broken| matches!(broken, Broken::NotCompleted(_)));
}

#[test]
fn a_listener_that_accepts_another_guests_key_is_found() {
    is_found(Planted::AnothersKey, |broken| matches!(broken, Broken::ActedUnasked(_)));
}

#[test]
fn a_listener_that_looks_at_no_tag_is_found() {
    is_found(Planted::NoTag, |broken| matches!(broken, Broken::ActedUnasked(_)));
}

#[test]
fn a_listener_that_looks_at_no_counter_is_found() {
    is_found(Planted::NoCounter, |broken| matches!(broken, Broken::HandedOutTwice(_)));
}

#[test]
fn a_listener_to_which_all_sessions_are_one_is_found() {
    is_found(Planted::NoNonce, |broken| matches!(broken, Broken::HandedOutTwice(_)));
}

#[test]
fn frames_without_a_leading_delimiter_are_found() {
    is_found(Planted::NoLeadingZero, |broken| matches!(broken, Broken::NotCompleted(_)));
}

#[test]
fn replies_that_are_believed_whatever_their_id_are_found() {
    is_found(Planted::NoId, |broken| matches!(broken, Broken::BadList(_) | Broken::FalseSuccess(_)));
}
