//! A client and a listener over a channel on which everything goes wrong that goes wrong on channels, in virtual time and
//! from a seed. What must never happen is in `rules.rs`; that it would be noticed is shown by planted faults.
//!
//! A run that fails prints its plan: `run(&Plan { .. }, Planted::Nothing)` is the same run again.

mod bridge;
mod chance;
#[path = "../common/mod.rs"]
mod common;
mod line;
mod rules;
mod world;

use bridge::Planted;
use line::Faults;
use proptest::prelude::*;
use rules::Broken;
use world::{Plan, World};

fn run(plan: &Plan, planted: Planted) -> Result<(), Broken> {
    World::new(plan, planted).run()
}

/// Half of all runs are without a given fault, so that what is left when one shrinks is what it takes.
fn rate(most: u64) -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..=most]
}

fn faults() -> impl Strategy<Value = Faults> {
    let parts = (rate(1_000), rate(1_000), rate(100), rate(100), rate(100));
    let writes = (rate(300), rate(200), rate(300));
    (parts, writes).prop_map(|((split, delay, drop, damage, noise), (repeat, stall, block))| Faults {
        split,
        delay,
        drop,
        damage,
        noise,
        repeat,
        stall,
        block,
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    (any::<u64>(), faults(), rate(40)).prop_map(|(seed, faults, incidents)| Plan { seed, faults, incidents })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Nothing that nobody asked for, nothing twice, nobody else's success, nobody stuck; and when all is well again, a
    /// request is done in its time.
    #[test]
    fn the_rules_hold_whatever_the_channel_does(plan in plan()) {
        prop_assert_eq!(run(&plan, Planted::Nothing), Ok(()));
    }

    /// The same inputs, the same outputs.
    #[test]
    fn a_run_can_be_repeated(plan in plan().prop_filter("short", |plan| plan.incidents < 5)) {
        prop_assert_eq!(run(&plan, Planted::NoLedger), run(&plan, Planted::NoLedger));
    }
}

/// What the rules say of this planted fault, over many seeds.
fn found(planted: Planted, faults: Faults, incidents: u64) -> Vec<Broken> {
    (0..60).filter_map(|seed| run(&Plan { seed, faults, incidents }, planted).err()).collect()
}

/// The rules notice a bridge that acts on every copy.
#[test]
fn a_bridge_without_a_ledger_is_found() {
    let found = found(Planted::NoLedger, Faults { repeat: 300, ..Faults::default() }, 0);
    assert!(found.iter().any(|broken| matches!(broken, Broken::ActedTwice(_))), "{found:?}");
}

/// The rules notice a bridge that acts on noise.
#[test]
fn a_bridge_that_acts_on_noise_is_found() {
    let found = found(Planted::ActsOnMalformed, Faults { damage: 100, ..Faults::default() }, 0);
    assert!(found.iter().any(|broken| matches!(broken, Broken::ActedUnasked(_))), "{found:?}");
}

/// The rules notice a reply to a request that was withdrawn.
#[test]
fn a_bridge_that_answers_the_withdrawn_is_found() {
    let found = found(Planted::AnswersTheWithdrawn, Faults::default(), 40);
    assert!(found.iter().any(|broken| matches!(broken, Broken::AnotherRequestsReply(_))), "{found:?}");
}

/// The rules notice a bridge that does not answer.
#[test]
fn a_deaf_bridge_is_found() {
    let found = found(Planted::Deaf, Faults::default(), 0);
    assert!(found.iter().all(|broken| matches!(broken, Broken::NotCompleted(_))), "{found:?}");
    assert_eq!(found.len(), 60);
}
