//! Any calls in any order, with any bytes: neither end panics, is stuck, or loses count of what it said. What must hold is
//! in `steps/serial.rs`.
//!
//! The careful owner keeps to the order of calls; the careless one does not, and lets time go back, too.

mod common;
#[path = "steps/serial.rs"]
mod steps;

use common::{entry_bytes, frame, frame_with_domain, off, reply, status};
use fencewire_core::Ask;
use fencewire_core::classic::Code;
use fencewire_core::classic::serial::END_OF_LIST;
use proptest::prelude::*;
use steps::{Step, client, with_a_careful_owner, with_a_careless_owner};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let ask = prop::sample::select(vec![off("vm1"), status("vm1"), Ask::Monitor, Ask::List]);
    let whole = (ask, 0..8_u32).prop_map(|(ask, seqno)| frame(&ask, seqno).to_vec());
    let torn = (whole.clone(), 0..74_usize).prop_map(|(bytes, at)| bytes[..at].to_vec());
    let ends_oddly = prop::sample::select(vec![&b"a"[..], b"ab", b"abb"]).prop_map(|tail| {
        let mut bytes = frame(&off("vm1"), 1).to_vec();
        bytes.truncate(74 - tail.len());
        [&bytes, tail].concat()
    });
    let malformed =
        prop::sample::select(vec![&b""[..], b"\xff", b"x\0y"]).prop_map(|name| frame_with_domain(name).to_vec());
    let replies = prop::sample::select(vec![Code::Success, Code::Failed, Code::Off, Code::Denied, Code::HostList]);
    let letters = prop::collection::vec(prop::sample::select(b"ab\0\xff".to_vec()), 0..20);
    let several = prop::collection::vec(whole.clone(), 2..8).prop_map(|frames| frames.concat());
    prop_oneof![
        4 => whole,
        2 => torn,
        1 => several,
        1 => ends_oddly,
        1 => malformed,
        2 => replies.prop_map(reply),
        1 => prop_oneof![Just(entry_bytes("vm1")), Just(END_OF_LIST)].prop_map(|bytes| bytes.to_vec()),
        2 => letters,
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ms = prop::sample::select(vec![0, 1, 49, 50, 199, 200, 249, 250, 1_000, 4_999, 5_000, 25_000, 60_000]);
    prop_oneof![
        8 => bytes().prop_map(Step::Bytes),
        4 => ms.prop_map(Step::Pass),
        4 => prop_oneof![0..6_usize, Just(1_000)].prop_map(Step::Sent),
        6 => (0..9_u8, prop::bool::weighted(0.9)).prop_map(|(kind, current)| Step::Answer(kind, current)),
        1 => Just(Step::Opened),
        1 => Just(Step::Closed),
        1 => Just(Step::Reset),
        2 => Just(Step::Poll),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    /// Whatever the peer does, the owner's picture of what is out is the listener's.
    #[test]
    fn a_listener_with_a_careful_owner(steps in steps()) {
        with_a_careful_owner(steps);
    }

    /// Nothing that its owner does wrong makes it panic, or deaf after the next connection.
    #[test]
    fn a_listener_with_a_careless_owner(steps in steps()) {
        with_a_careless_owner(steps);
    }

    /// A request ends exactly once, at its deadline at the latest.
    #[test]
    fn a_client(
        ask in prop::sample::select(vec![off("vm1"), status("vm1"), Ask::Monitor, Ask::List]),
        careful in any::<bool>(),
        steps in steps(),
    ) {
        client(&ask, careful, steps);
    }
}
