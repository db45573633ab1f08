//! The packet wire, any calls in any order, with any bytes: neither end panics, is stuck, or loses count of what it said;
//! nothing is handed out or believed without its proofs. What must hold is in `../steps/packet.rs`.
//!
//! The careful owner keeps to the order of calls; the careless one does not, and lets time go back, too.

use crate::common::packets::{CHALLENGE, FRESH, code, key, request, resigned, shared};
use crate::common::{entry_bytes, off, status};
use crate::steps::{Step, client, with_a_careful_owner, with_a_careless_owner};
use fencewire_core::Ask;
use fencewire_core::classic::Code;
use fencewire_core::classic::key::Hash;
use fencewire_core::classic::packet::{REQUEST_LEN, encode_request, encode_unsigned};
use fencewire_core::classic::serial::END_OF_LIST;
use proptest::prelude::*;

fn ask() -> impl Strategy<Value = Ask> {
    prop::sample::select(vec![off("vm1"), status("vm1"), Ask::Monitor, Ask::List])
}

fn packets() -> impl Strategy<Value = Vec<u8>> {
    ask().prop_flat_map(|ask| {
        prop_oneof![
            4 => Just(request(&ask)),
            2 => Just(encode_unsigned(&ask, FRESH)),
            1 => Just(encode_request(&ask, FRESH, Hash::Sha512, &shared())),
            1 => Just(encode_request(&ask, FRESH, Hash::Sha256, &key("another"))),
            1 => Just(resigned(|packet| packet[0] = 9)),
            1 => Just(resigned(|packet| packet[4] = 0)),
            1 => (0..REQUEST_LEN).prop_map(move |at| { let mut packet = request(&ask); packet[at] ^= 1; packet }),
        ]
        .prop_map(Vec::from)
    })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let codes = prop::sample::select(vec![Code::Success, Code::Failed, Code::Off, Code::Denied, Code::HostList]);
    prop_oneof![
        4 => packets(),
        2 => (packets(), 0..REQUEST_LEN).prop_map(|(packet, at)| packet[..at].to_vec()),
        4 => Just(CHALLENGE.to_vec()),
        2 => codes.prop_map(code),
        1 => prop_oneof![Just(entry_bytes("vm1")), Just(END_OF_LIST)].prop_map(|bytes| bytes.to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ms = prop::sample::select(vec![0, 1, 4_999, 5_000, 24_999, 25_000, 60_000]);
    prop_oneof![
        8 => bytes().prop_map(Step::Bytes),
        4 => Just(Step::Proof),
        1 => Just(Step::OtherProof),
        1 => Just(Step::OldProof),
        1 => Just(Step::Reflect),
        4 => ask().prop_map(Step::Handshake),
        4 => ms.prop_map(Step::Pass),
        4 => prop_oneof![0..6_usize, Just(1_000)].prop_map(Step::Sent),
        6 => (0..9_u8, prop::bool::weighted(0.9)).prop_map(|(kind, current)| Step::Answer(kind, current)),
        2 => Just(Step::Opened),
        1 => Just(Step::Closed),
        1 => Just(Step::Reset),
        2 => Just(Step::Poll),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..60)
}

/// How the listener's end of a property is set up: the hash of its challenges, or no key at all.
fn auths() -> impl Strategy<Value = Option<Hash>> {
    prop_oneof![4 => Just(Some(Hash::Sha256)), 1 => Just(Some(Hash::Sha512)), 1 => Just(None)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Whatever the peer does, the owner's picture of what is out is the listener's.
    #[test]
    fn a_listener_with_a_careful_owner(auth in auths(), steps in steps()) {
        with_a_careful_owner(auth, steps);
    }

    /// Nothing that its owner does wrong makes it panic, or deaf after the next connection.
    #[test]
    fn a_listener_with_a_careless_owner(auth in auths(), steps in steps()) {
        with_a_careless_owner(auth, steps);
    }

    /// A request ends exactly once, at its deadline at the latest.
    #[test]
    fn a_client(ask in ask(), auth in auths(), careful in any::<bool>(), steps in steps()) {
        client(&ask, auth, careful, steps);
    }
}
