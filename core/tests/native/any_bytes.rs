//! Any bytes, taken for steps: what a fuzzer looks for longer (`docs/fuzzing.md`), from seeds.

use crate::chance::Chance;
use crate::common::input::Input;
use crate::{native_bytes, native_guest, native_host, native_pair};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn bytes(seed: u64, most: u64) -> Vec<u8> {
    let mut chance = Chance::from(seed);
    let length = chance.below(most);
    (0..length).map(|_| chance.below(256) as u8).collect()
}

fn each(seeds: u64, most: u64, body: impl Fn(&mut Input<'_>)) {
    for seed in 0..seeds {
        let bytes = bytes(seed, most);
        let kept = catch_unwind(AssertUnwindSafe(|| body(&mut Input::new(&bytes)))).is_ok();
        assert!(kept, "seed {seed}: see above");
    }
}

#[test]
fn frames_are_found_as_a_second_way_of_looking_finds_them() {
    each(1_000, 2_000, native_bytes::frames);
}

#[test]
fn every_message_survives_the_wire_and_any_bytes_are_one_or_none() {
    each(2_000, 400, native_bytes::messages);
}

#[test]
fn a_listener_hears_whoever_has_the_key_and_nobody_else() {
    each(1_000, 500, |input| native_guest::listener(input, false));
}

#[test]
fn a_listener_of_both_wires_does_so_too() {
    each(1_000, 500, |input| native_guest::listener(input, true));
}

#[test]
fn a_client_tells_what_was_said_and_ends_once() {
    each(1_000, 500, native_host::client);
}

#[test]
fn both_ends_keep_the_rules_whatever_is_done_to_the_bytes_between_them() {
    each(500, 500, native_pair::both_ends);
}
