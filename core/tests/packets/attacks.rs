//! The packet wire under attack by somebody without the key: recordings, reflections, relays, forgeries.
//!
//! The attacker reads and writes everything on the line, on as many connections as it likes, to any listener and from any
//! caller with the same key. What the wire gives, and what it cannot:
//!
//! | the attacker | |
//! |---|---|
//! | sends a recording, whole or in part, to any listener of ours | is not heard: each connection has its own challenge |
//! | sends our challenge to us, or to another listener of ours with the same key, to learn the answer | is not answered |
//! | forges a signature by extending the hash of a challenge | gets a request whose name no guest has |
//! | takes the proof of a live caller for a recorded request | **is heard.** A proof answers a challenge; nothing in it says for which request. The recorded request is carried out once more, at the moment at which somebody asks for something else. No listener can tell: both halves are genuine |
//! | asks fence_virtd (or another server that answers any challenge) with the same key to answer ours | **is heard**, for the same reason |
//! | relays both proofs and then says the code itself | **is believed.** The code is not signed |
//!
//! So a packet connection is as good as the line between its two ends where the attacker can also hold a caller's
//! connection; and its key must not be shared with a server that answers challenges of ours. A test below for each line,
//! the last ones included: if one of these begins to fail, the wire has become better than it can be.

use crate::common::packets::{
    CHALLENGE, FRESH, HASHES, TIME_TO_ACT, entropy, key, proof, request, shared, signed, trust,
};
use crate::common::{Answering, Asking, ENTROPY, asked, asks, done, off, status};
use fencewire_core::classic::Malformed;
use fencewire_core::classic::key::{Hash, Key};
use fencewire_core::classic::packet::{REQUEST_LEN, Unproved, decode_request, encode_request};
use fencewire_core::{
    Admit, Ask, BadName, Endpoint, Event, GuestName, Ledger, Listener, Millis, PowerAction, Refusal, Reply, Target,
};

/// All that an honest caller said on one connection, and all that it heard.
struct Recording {
    said: Vec<u8>,
    heard: Vec<u8>,
}

/// Of a whole conversation, in which the request was carried out.
fn recorded() -> Recording {
    let mut end = Answering::keyed();
    let mut said = [&request(&off("vm1"))[..], &CHALLENGE].concat();
    assert_eq!(end.give(&said), []);
    let mut heard = end.read();
    let proof = proof(&heard[64..], Hash::Sha256);
    let (id, request) = asked(end.give(&proof));
    said.extend(proof);
    end.answer(id, done(&request)).unwrap();
    heard.extend(end.read());
    Recording { said, heard }
}

/// A listener with the same key, on another connection.
fn another(byte: u8) -> Answering {
    let mut end = Answering::keyed();
    assert_eq!(end.reopened(&entropy(byte)), []);
    end
}

// Recordings.

/// Rule 2: a recording has the right signature and can be sent by anybody; its sender cannot answer a new challenge.
#[test]
fn a_recording_is_not_heard() {
    let said = recorded().said;
    for pieces in [1, 64, 176, 240, said.len()] {
        let mut end = another(9);
        let events: Vec<Event> = said.chunks(pieces).flat_map(|piece| end.give(piece)).collect();
        assert_eq!(events, [Event::Refused(Refusal::WrongProof)], "in pieces of {pieces}");
        end.is_at_its_end();
    }
}

/// The same with what the listener said in it, in place of the caller's own, from any byte to any other.
#[test]
fn no_part_of_a_recording_is_a_proof() {
    let Recording { said, heard } = recorded();
    let all = [&said[..], &heard].concat();
    for from in 0..=all.len() - 64 {
        let mut end = another(9);
        end.challenged(&request(&off("vm1")));
        assert_eq!(end.give(&all[from..from + 64]), [Event::Refused(Refusal::WrongProof)], "{from}");
    }
}

/// A part of it is no request, from wherever it begins.
#[test]
fn no_other_part_of_a_recording_is_a_request() {
    let Recording { said, heard } = recorded();
    for from in 1..said.len() {
        let mut end = another(9);
        let events = end.give(&[&said[from..], &heard, &said].concat());
        assert!(matches!(events[..], [Event::Refused(Refusal::Unproved(_))]), "{from}: {events:?}");
        end.is_at_its_end();
    }
}

/// The same after the listener was opened again: nothing of the connection on which it was heard is left.
#[test]
fn a_recording_is_not_heard_after_reopening() {
    let mut end = Answering::keyed();
    let packet = request(&off("vm1"));
    let challenge = end.challenged(&packet);
    let first = proof(&challenge, Hash::Sha256);
    let (id, _) = asked(end.give(&first));

    assert_eq!(end.reopened(&entropy(9)), [Event::Withdrawn(id)]);
    assert_eq!(end.give(&[&packet[..], &CHALLENGE, &first].concat()), [Event::Refused(Refusal::WrongProof)]);
    end.is_at_its_end();

    // Not even the proof alone, where the challenge had just been said.
    assert_eq!(end.reopened(&entropy(10)), []);
    let challenge = end.challenged(&packet);
    assert_eq!(end.reopened(&entropy(11)), []);
    assert_eq!(end.give(&proof(&challenge, Hash::Sha256)), []);
    assert_eq!(end.later(5_000), [Event::Refused(Refusal::TooSlow)]);
}

/// What all of this rests on. An owner whose entropy repeats has no protection: that is what [`Entropy`]'s "used once" says.
///
/// [`Entropy`]: fencewire_core::Entropy
#[test]
fn each_connections_challenge_is_its_own() {
    let packet = request(&off("vm1"));
    let mut seen = Vec::new();
    for byte in 0..=255 {
        let challenge = another(byte).challenged(&packet);
        assert!(!seen.contains(&challenge));
        seen.push(challenge);
    }
    for at in 0..32 {
        let mut other = ENTROPY;
        other.0[at] ^= 1;
        let mut end = Answering::keyed();
        end.reopened(&other);
        assert_ne!(end.challenged(&packet), Answering::keyed().challenged(&packet), "bit in byte {at}");
    }
    assert_eq!(another(9).challenged(&packet), another(9).challenged(&packet));
}

/// Rule 3: the holder of the key may send its own packet again on a new connection, and a ledger knows it.
#[test]
fn a_packet_sent_again_by_its_caller_is_not_done_again() {
    let mut ledger = Ledger::<4>::new();
    let packet = request(&off("vm1"));
    let (_, first) = asked(another(1).proved(&packet));
    let Admit::Act(permit) = ledger.admit(&first, first.received()) else { panic!() };
    let (_, again) = asked(another(2).proved(&packet));
    assert!(matches!(ledger.admit(&again, again.received()), Admit::Running));
    ledger.withdraw(permit);
}

// Reflections.

/// Rule 2: our own challenge, sent to us on another connection to learn the answer, is not answered, whichever of our
/// listeners it is sent to, and however the key is used there for signatures.
#[test]
fn a_challenge_of_ours_is_not_answered_for_others() {
    for (auth, minimum) in HASHES.into_iter().flat_map(|auth| HASHES.map(|minimum| (auth, minimum))) {
        let packet = encode_request(&off("vm1"), FRESH, Hash::Sha512, &shared());
        let mut first = Answering::of_packets(trust(Hash::Sha256, auth));
        let ours = first.challenged(&packet);

        let mut second = Listener::of_packets(trust(minimum, auth), TIME_TO_ACT);
        second.opened(&entropy(9), Millis(0));
        let mut second = Answering { listener: second, now: Millis(0) };
        let events = second.give(&[&packet[..], &ours].concat());
        assert_eq!(events, [Event::Refused(Refusal::Reflection)]);
        second.is_at_its_end();

        // Nor on the very connection.
        let mut same = Answering::of_packets(trust(Hash::Sha256, auth));
        assert_eq!(same.give(&[&packet[..], &ours].concat()), [Event::Refused(Refusal::Reflection)]);
        same.is_at_its_end();
    }
}

/// A challenge with a bit changed is no challenge of ours, and its answer is of no use.
#[test]
fn a_challenge_like_ours_is_answered_to_no_use() {
    let packet = request(&off("vm1"));
    let ours = another(1).challenged(&packet);
    for at in 0..64 {
        let mut like = ours;
        like[at] ^= 0x10;
        let mut oracle = another(2);
        assert_eq!(oracle.give(&[&packet[..], &like].concat()), []);
        let answer = oracle.read()[..64].to_vec();

        let mut end = another(1);
        assert_eq!(end.challenged(&packet), ours);
        assert_eq!(end.give(&answer), [Event::Refused(Refusal::WrongProof)], "byte {at}");
    }
}

/// With another hash for challenges, ours are not known for ours there, and the answer is not ours either.
#[test]
fn a_listener_with_another_hash_is_no_oracle() {
    let packet = request(&off("vm1"));
    let mut end = another(1);
    let ours = end.challenged(&packet);
    let mut oracle = Answering::of_packets(trust(Hash::Sha256, Hash::Sha512));
    assert_eq!(oracle.give(&[&packet[..], &ours].concat()), []);
    let answer = oracle.read()[..64].to_vec();
    assert_eq!(end.give(&answer), [Event::Refused(Refusal::WrongProof)]);
}

/// Nor does a client of ours answer for itself: what it is asked is not what it has asked.
#[test]
fn a_client_does_not_answer_its_own_challenge() {
    let mut caller = Asking::keyed(&off("vm1"));
    let theirs = proof(&ENTROPY.0, Hash::Sha256);
    assert_eq!(caller.give(&[theirs, ENTROPY.0].concat()), [Reply::NotProved]);
    caller.is_at_its_end();
}

/// Nobody without the key learns anything from a listener: it says nothing to a challenge before a signature.
#[test]
fn a_listener_is_no_oracle_for_strangers() {
    let mut end = Answering::keyed();
    let forged = encode_request(&off("vm1"), FRESH, Hash::Sha256, &key("a guess"));
    let events = end.give(&[&forged[..], &CHALLENGE].concat());
    assert_eq!(events, [Event::Refused(Refusal::Unproved(Unproved::Signature))]);
    end.is_at_its_end();
}

// Forgeries.

/// SHA-2 over key and message can be extended: who has H(key ‖ challenge), for a challenge that it chose, can compute
/// H(key ‖ challenge ‖ padding ‖ anything) without the key. Where the padding ends before the packet's hash field, that
/// signs a packet whose first 64 bytes it chose. But the padding begins with 0x80 where the name's field has its 61st
/// byte: such a packet names nobody, unless a guest's name is 61 bytes long and ends in that byte.
#[test]
fn an_extended_hash_is_no_request() {
    for (hash, block, length_len) in [(Hash::Sha256, 64, 8), (Hash::Sha512, 128, 16)] {
        let mut forged = 0;
        for key_len in 1..=256 {
            let key = Key::absorb(&vec![7; key_len]).unwrap();
            // What the hash function itself puts behind key and challenge.
            let unpadded = key_len + 64;
            let padding = (unpadded + 1 + length_len).next_multiple_of(block) - unpadded;
            let mut packet = request(&off("vm1"));
            packet[1] = hash.as_byte();
            packet[64..].fill(0);
            if 64 + padding > REQUEST_LEN - 64 {
                // Its length's bytes would stand where the signed packet has zeros.
                continue;
            }
            forged += 1;
            packet[64] = 0x80;
            let bits = u64::try_from(unpadded * 8).unwrap().to_be_bytes();
            packet[64 + padding - 8..64 + padding].copy_from_slice(&bits);
            let tag = key.tag(hash, &[&packet]);
            packet[REQUEST_LEN - 64..].copy_from_slice(&tag);
            let read = decode_request(&packet, Hash::Sha256, &key);
            assert_eq!(read.err(), Some(Unproved::Malformed(Malformed::Name(BadName::AfterNul))), "{key_len}");
        }
        assert!(forged > 50, "of every length: {forged}");
    }
}

/// The name that such a packet could have. It is read as what it is; that it was signed is the wire's limit.
#[test]
fn the_one_name_that_an_extended_hash_can_say() {
    let name = format!("{}À", "x".repeat(59));
    assert_eq!((name.len(), name.as_bytes()[60]), (61, 0x80));
    let ask = Ask::Power(PowerAction::Off, Target::Name(GuestName::parse(name.as_bytes()).unwrap()));
    assert_eq!(asks(&Answering::keyed().proved(&request(&ask))), [ask]);
}

/// A signature is no proof of a challenge and a proof is no signature, whatever is asked to be hashed.
#[test]
fn a_signature_is_no_proof() {
    let packet = request(&off("vm1"));
    let mut end = Answering::keyed();
    end.challenged(&packet);
    assert_eq!(end.give(&packet[REQUEST_LEN - 64..]), [Event::Refused(Refusal::WrongProof)]);
}

// Relays.

/// Two connections whose steps an attacker exchanges: no proof counts but on the connection whose challenge it answers.
#[test]
fn steps_of_two_connections_do_not_mix() {
    let (mut first, mut second) = (another(1), another(2));
    let (one, two) = (request(&off("vm1")), request(&status("vm2")));
    let (challenge_one, challenge_two) = (first.challenged(&one), second.challenged(&two));
    let (proof_one, proof_two) = (proof(&challenge_one, Hash::Sha256), proof(&challenge_two, Hash::Sha256));
    assert_eq!(first.give(&proof_two), [Event::Refused(Refusal::WrongProof)]);
    assert_eq!(second.give(&proof_one), [Event::Refused(Refusal::WrongProof)]);

    // Both challenges are used up: the right proofs come too late.
    assert_eq!(first.give(&proof_one), []);
    assert_eq!(second.give(&proof_two), []);
}

/// One proof lets one request through, once.
#[test]
fn a_proof_counts_once() {
    let mut end = another(1);
    let packet = request(&off("vm1"));
    let challenge = end.challenged(&packet);
    let proof = proof(&challenge, Hash::Sha256);
    asked(end.give(&proof));
    assert_eq!(end.give(&[&proof[..], &packet, &CHALLENGE, &proof].concat()), []);
}

/// A limit of the wire: a live caller's proof lets a recorded request of another through. Both are genuine.
#[test]
fn a_live_callers_proof_can_be_lent_to_a_recording() {
    let recording = recorded().said;
    let mut end = another(9);
    // Somebody asks for a status of vm2, over a line that the attacker holds.
    let speak = shared();
    let mut caller = Asking::of_packets(signed(&speak, Hash::Sha256, Hash::Sha256), &status("vm2"), &entropy(3));
    let said = caller.written();
    // Its challenge goes out behind the recorded request.
    assert_eq!(end.give(&[&recording[..REQUEST_LEN], &said[REQUEST_LEN..]].concat()), []);
    assert_eq!(caller.give(&end.read()), []);
    let lent = caller.written();
    assert_eq!(asks(&end.give(&lent)), [off("vm1")]);
}

/// A limit of the wire: whoever answers any challenge with the same key answers ours, too.
#[test]
fn a_server_that_answers_any_challenge_is_an_oracle() {
    let recording = recorded().said;
    let mut end = another(9);
    let challenge = end.challenged(&recording[..REQUEST_LEN]);
    // fence_virtd, to which the recording was sent with our challenge behind it.
    let fence_virtd = |challenge: &[u8]| shared().tag(Hash::Sha256, &[challenge]);
    assert_eq!(asks(&end.give(&fence_virtd(&challenge))), [off("vm1")]);
}

/// A limit of the wire: the code is not signed. Who can relay the proofs can say it.
#[test]
fn a_relay_can_say_the_code_itself() {
    let mut caller = Asking::keyed(&off("vm1"));
    let mut end = another(9);
    let said = [&request(&off("vm1"))[..], &ENTROPY.0].concat();
    assert_eq!(end.give(&said), []);
    assert_eq!(caller.give(&end.read()), []);
    let _not_delivered = caller.written();
    assert_eq!(caller.give(&[0]), [Reply::Done]);
    assert_eq!(end.later(5_000), [Event::Refused(Refusal::TooSlow)], "and nothing was done");
}
