//! The packet listener's promises, step by step: what is heard, what is told, when it ends. Answers, lists and times are in
//! `answers.rs`; recordings and relays in `attacks.rs`.

use crate::common::packets::{
    CHALLENGE, FRESH, HASHES, TIME_TO_ACT, code, entropy, key, proof, request, resigned, shared, trust,
};
use crate::common::{Answering, ENTROPY, asked, asks, by_bytes, done, off, refusals, status};
use fencewire_core::classic::key::{Hash, Key, WeakHash};
use fencewire_core::classic::packet::{REQUEST_LEN, Unproved, encode_request, encode_unsigned};
use fencewire_core::classic::{Code, Malformed, REMEMBERED_MS};
use fencewire_core::listener::HANDSHAKE_TIME;
use fencewire_core::{Answer, Ask, BadName, Endpoint, Event, Listener, Millis, NotNow, Refusal, Trust};

/// All that an honest caller sends, as far as the first step that waits for the other end.
fn first_half() -> Vec<u8> {
    [&request(&off("vm1"))[..], &CHALLENGE].concat()
}

// The steps.

/// Rule 5: what the listener says before it has a request's signature is nothing, and what it says then is what the key's
/// holder can check.
#[test]
fn nothing_is_said_before_the_signature_and_the_challenge() {
    let mut end = Answering::keyed();
    for byte in first_half() {
        assert_eq!(end.listener.transmit(), []);
        assert_eq!(end.give(&[byte]), []);
    }
    let said = end.read();
    assert_eq!(said.len(), 128);
    assert_eq!(said[..64], proof(&CHALLENGE, Hash::Sha256));
    assert_ne!(said[64..], CHALLENGE);
}

/// Every step cut short, at every byte: nothing is handed out, the rest is not waited for longer than 5 s, and a
/// connection that goes away is no event.
#[test]
fn every_step_cut_short() {
    assert_eq!(HANDSHAKE_TIME, Millis(5_000));
    let whole = first_half();
    for (length, answers) in (0..whole.len() + 64).flat_map(|length| [(length, false), (length, true)]) {
        let mut end = Answering::keyed();
        let opened = end.now;
        let first = length.min(whole.len());
        assert_eq!(end.give(&whole[..first]), []);
        let said = end.read();
        assert_eq!(said.is_empty(), length < whole.len(), "{length}");
        if length > whole.len() {
            assert_eq!(end.give(&proof(&said[64..], Hash::Sha256)[..length - first]), []);
        }
        assert!(!end.listener.is_proved() && !end.listener.is_over() && !end.listener.is_idle());
        if answers {
            assert_eq!(end.listener.wake_at(), Some(opened.plus(HANDSHAKE_TIME)));
            assert_eq!(end.later(4_999), []);
            assert_eq!(end.later(1), [Event::Refused(Refusal::TooSlow)], "{length}");
        } else {
            end.listener.closed(end.now);
            assert_eq!(end.polled(), []);
        }
        end.is_at_its_end();
    }
}

/// The time counts from the connection, not from the last byte: dribbling does not lengthen it.
#[test]
fn a_caller_that_dribbles_is_given_up_as_soon() {
    let mut end = Answering::keyed();
    let mut events = Vec::new();
    for byte in first_half() {
        events.extend(end.give(&[byte]));
        events.extend(end.later(100));
    }
    assert_eq!(events, [Event::Refused(Refusal::TooSlow)]);
    end.is_at_its_end();
}

/// Nor does an owner who is late to wake it: the bytes that come too late do not complete anything.
#[test]
fn a_late_wake_does_not_give_a_caller_more_time() {
    let mut end = Answering::keyed();
    let challenge = end.challenged(&request(&off("vm1")));
    end.now = end.now.plus(HANDSHAKE_TIME);
    assert_eq!(end.give(&proof(&challenge, Hash::Sha256)), [Event::Refused(Refusal::TooSlow)]);
    end.is_at_its_end();
}

/// A caller whose proof comes in the last moment has its full time to act.
#[test]
fn a_requests_times_count_from_its_callers_proof() {
    let mut end = Answering::keyed();
    let challenge = end.challenged(&request(&off("vm1")));
    assert_eq!(end.later(4_999), []);
    let (_, request) = asked(end.give(&proof(&challenge, Hash::Sha256)));
    assert_eq!(request.received(), end.now);
    assert_eq!(request.deadline(), end.now.plus(TIME_TO_ACT));
    assert_eq!(request.remember_until(), end.now.plus(Millis(REMEMBERED_MS)));
    assert_eq!(end.later(24_999), []);
}

/// Both halves split at every byte, for each hash: the same request, once.
#[test]
fn every_step_split_everywhere() {
    for auth in HASHES {
        let bytes = [&encode_request(&off("vm1"), FRESH, auth, &shared())[..], &CHALLENGE].concat();
        for at in 0..bytes.len() {
            let mut end = Answering::of_packets(trust(auth, auth));
            assert_eq!(end.give(&bytes[..at]), []);
            assert_eq!(end.give(&bytes[at..]), []);
            let said = end.read();
            let proof = proof(&said[64..], auth);
            let cut = at % 64;
            assert_eq!(end.give(&proof[..cut]), []);
            assert_eq!(asked(end.give(&proof[cut..])).1.ask(), &off("vm1"));
        }
    }
}

/// What the other end takes of the listener's bytes, it may take one at a time.
#[test]
fn partial_writes_are_fine() {
    let mut end = Answering::keyed();
    assert_eq!(end.give(&first_half()), []);
    let said = by_bytes(&mut end.listener, end.now);
    assert_eq!(said.len(), 128);
    asked(end.give(&proof(&said[64..], Hash::Sha256)));
}

/// A request is handed out when what was said before it has gone: an answer never overtakes a proof.
#[test]
fn nothing_is_handed_out_before_the_listeners_own_words_have_gone() {
    let mut end = Answering::keyed();
    assert_eq!(end.give(&first_half()), []);
    let challenge = end.listener.transmit()[64..].to_vec();
    assert_eq!(end.give(&proof(&challenge, Hash::Sha256)), []);
    end.listener.sent(127, end.now);
    assert_eq!(end.polled(), []);
    end.listener.sent(1, end.now);
    asked(end.polled());
}

/// One byte more after the request or the challenge takes the place of the next step's first: it is not passed over.
#[test]
fn an_extra_byte_between_the_steps_shifts_what_follows() {
    for extra in [0, 1, 0xc1] {
        let mut end = Answering::keyed();
        assert_eq!(end.give(&[&request(&off("vm1"))[..], &[extra], &CHALLENGE].concat()), []);
        let said = end.read();
        let heard = [&[extra], &CHALLENGE[..63]].concat();
        assert_eq!(said[..64], proof(&heard, Hash::Sha256));
        let events = end.give(&proof(&said[64..], Hash::Sha256));
        assert_eq!(events, [Event::Refused(Refusal::WrongProof)], "{extra}");
        end.is_at_its_end();
    }
}

/// What comes behind the proof is for nobody, before and after the answer; also another whole request is.
#[test]
fn extra_bytes_after_the_last_step_change_nothing() {
    for extra in [vec![0], vec![0xff; 1_000], first_half()] {
        let mut end = Answering::keyed();
        let challenge = end.challenged(&request(&off("vm1")));
        let (id, request) = asked(end.give(&[&proof(&challenge, Hash::Sha256)[..], &extra].concat()));
        assert_eq!(end.give(&extra), []);
        end.answer(id, done(&request)).unwrap();
        assert_eq!(end.give(&extra), []);
        assert_eq!(end.read(), code(Code::Success));
        assert_eq!(end.give(&extra), []);
        end.is_at_its_end();
    }
}

// Who is not heard.

/// Rule 5: whoever cannot sign as it is asked for learns nothing, not even that there is a challenge; nor does it get
/// another try.
#[test]
fn packets_that_prove_nothing() {
    let with = |hash, key: &Key| encode_request(&off("vm1"), FRESH, hash, key).to_vec();
    let typed = |hashtype: u8| resigned(|packet| packet[1] = hashtype).to_vec();
    let unproved = [
        (with(Hash::Sha512, &key("another")), Unproved::Signature),
        (with(Hash::Sha512, &key("share")), Unproved::Signature),
        (with(Hash::Sha512, &key("shared\n")), Unproved::Signature),
        (with(Hash::Sha256, &shared()), Unproved::BelowMinimum(Hash::Sha256)),
        (encode_unsigned(&off("vm1"), FRESH).to_vec(), Unproved::WeakHash(WeakHash::None)),
        (typed(0), Unproved::WeakHash(WeakHash::None)),
        (typed(1), Unproved::WeakHash(WeakHash::Sha1)),
        (typed(4), Unproved::WeakHash(WeakHash::Unknown(4))),
        (typed(255), Unproved::WeakHash(WeakHash::Unknown(255))),
        (typed(3), Unproved::Signature),
        (vec![0; REQUEST_LEN], Unproved::WeakHash(WeakHash::None)),
        (vec![0xff; REQUEST_LEN], Unproved::WeakHash(WeakHash::Unknown(255))),
    ];
    for (packet, why) in unproved {
        let mut end = Answering::of_packets(trust(Hash::Sha512, Hash::Sha256));
        let good = encode_request(&off("vm1"), FRESH, Hash::Sha512, &shared());
        let stream = [&packet, &CHALLENGE[..], &good, &CHALLENGE].concat();
        assert_eq!(end.give(&stream), [Event::Refused(Refusal::Unproved(why))]);
        assert!(!end.listener.is_proved());
        end.is_at_its_end();
    }
}

/// A stronger hash than the minimum is as good.
#[test]
fn a_request_may_be_signed_with_more_than_the_minimum() {
    let mut end = Answering::keyed();
    let packet = encode_request(&off("vm1"), FRESH, Hash::Sha512, &shared());
    assert_eq!(asked(end.proved(&packet)).1.ask(), &off("vm1"));
}

/// Rule 5: a proof of the right challenge with another hash, or another key, or with a bit changed, is none.
#[test]
fn wrong_proofs() {
    for auth in HASHES {
        let other = HASHES[usize::from(auth == HASHES[0])];
        // The same entropy, the same challenge.
        let challenge = Answering::of_packets(trust(Hash::Sha256, auth)).challenged(&request(&off("vm1")));
        let right = proof(&challenge, auth);
        let wrong = [
            proof(&challenge, other),
            key("another").tag(auth, &[&challenge]),
            proof(&CHALLENGE, auth),
            challenge,
            [0; 64],
        ];
        let flipped = (0..64).map(|at| {
            let mut proof = right;
            proof[at] ^= 0x80;
            proof
        });
        for wrong in wrong.into_iter().chain(flipped) {
            let mut end = Answering::of_packets(trust(Hash::Sha256, auth));
            assert_eq!(end.challenged(&request(&off("vm1"))), challenge);
            assert_eq!(end.give(&wrong), [Event::Refused(Refusal::WrongProof)]);
            assert!(!end.listener.is_proved());
            end.is_at_its_end();
        }
    }
}

/// Where nobody holds a key, nothing can be known of a signature: its sender believes in something that is not there.
#[test]
fn where_nobody_holds_a_key_a_signed_request_is_refused() {
    for hashtype in 1..=255 {
        let mut end = Answering::of_packets(Trust::Anybody);
        let events = end.give(&resigned(|packet| packet[1] = hashtype));
        assert_eq!(events, [Event::Refused(Refusal::Unproved(Unproved::Signed(hashtype)))]);
        end.is_at_its_end();
    }
}

/// There, the answer follows the request.
#[test]
fn where_nobody_holds_a_key_an_unsigned_request_is_heard_at_once() {
    let packet = encode_unsigned(&off("vm1"), FRESH);
    for at in 0..REQUEST_LEN {
        let mut end = Answering::of_packets(Trust::Anybody);
        assert_eq!(end.give(&packet[..at]), []);
        let (id, request) = asked(end.give(&[&packet[at..], &[7; 100]].concat()));
        assert_eq!(request.ask(), &off("vm1"));
        end.answer(id, done(&request)).unwrap();
        assert_eq!(end.read(), code(Code::Success));
        end.is_at_its_end();
    }
    let mut end = Answering::of_packets(Trust::Anybody);
    assert_eq!(end.give(&packet[..REQUEST_LEN - 1]), []);
    assert_eq!(end.later(5_000), [Event::Refused(Refusal::TooSlow)]);
}

// Who is heard, and says nothing.

fn malformed() -> Vec<([u8; REQUEST_LEN], Malformed)> {
    let action = |byte| (resigned(|packet| packet[0] = byte), Malformed::Action(byte));
    let flags = |byte| (resigned(|packet| packet[3] = byte), Malformed::Flags(byte));
    let name = |domain: &[u8], why| {
        let packet = resigned(|packet| {
            packet[4..68].fill(0);
            packet[4..4 + domain.len()].copy_from_slice(domain);
        });
        (packet, Malformed::Name(why))
    };
    let mut all: Vec<_> = [0, 7, 128, 253, 255].map(action).into();
    all.extend([2, 3, 0x80, 0xff].map(flags));
    all.extend([
        name(b"", BadName::Empty),
        name(&[b'x'; 64], BadName::TooLong),
        name(b"vm1\0vm2", BadName::AfterNul),
        name(b"\0vm1", BadName::AfterNul),
        name(b"vm1\nvm2", BadName::Control),
        name(b"\x1b[2J", BadName::Control),
        name(b"\xff\xfe", BadName::NotUtf8),
    ]);
    all
}

/// Rule 2: a well-signed request that says nothing is told so, once its sender has proved itself, and no sooner.
#[test]
fn well_signed_and_malformed_is_failed_after_the_proofs() {
    for (packet, why) in malformed() {
        let mut end = Answering::keyed();
        let challenge = end.challenged(&packet);
        let refused = Event::Refused(Refusal::Malformed(why));
        assert_eq!(end.give(&proof(&challenge, Hash::Sha256)), [refused], "{why:?}");
        assert_eq!(end.read(), code(Code::Failed));
        end.is_at_its_end();

        let mut end = Answering::keyed();
        end.challenged(&packet);
        assert_eq!(end.give(&[0; 64]), [Event::Refused(Refusal::WrongProof)], "{why:?}");
        end.is_at_its_end();
    }
}

/// Without a key it is told at once.
#[test]
fn unsigned_and_malformed_is_failed() {
    for (mut packet, why) in malformed() {
        packet[1] = 0;
        let mut end = Answering::of_packets(Trust::Anybody);
        assert_eq!(end.give(&packet), [Event::Refused(Refusal::Malformed(why))]);
        assert_eq!(end.read(), code(Code::Failed));
        end.is_at_its_end();
    }
}

/// The address, port and family of a multicast caller are of no use here, and no ground to refuse anything.
#[test]
fn fields_of_multicast_are_not_looked_at() {
    let mut end = Answering::keyed();
    let packet = resigned(|packet| {
        packet[2] = 16;
        packet[68..98].fill(0xee);
        packet[108..112].fill(0xee);
    });
    assert_eq!(asked(end.proved(&packet)).1.ask(), &off("vm1"));
}

// One connection after another.

/// An answer that is late finds no other request under its id.
#[test]
fn ids_are_never_used_twice() {
    let mut end = Answering::keyed();
    let mut ids = Vec::new();
    for round in 0..20 {
        let (id, _) = end.asked_for(&Ask::Monitor);
        assert!(!ids.contains(&id));
        ids.push(id);
        for id in &ids[..ids.len() - 1] {
            assert_eq!(end.answer(*id, Answer::Alive), Err(NotNow::Gone));
        }
        end.answer(id, Answer::Alive).unwrap();
        assert_eq!(end.read(), code(Code::Success));
        assert_eq!(end.reopened(&entropy(round)), []);
    }
}

/// Rule 3 rests on this: the same packet has the same key on any connection, any other packet another.
#[test]
fn the_whole_packet_is_what_makes_a_request_the_same() {
    let key = |packet: &[u8]| asked(Answering::keyed().proved(packet)).1.key();
    let first = key(&request(&off("vm1")));
    assert_eq!(key(&request(&off("vm1"))), first);
    let another = resigned(|packet| packet[98] ^= 1);
    for other in [another, request(&off("vm2")), request(&status("vm1"))] {
        assert_ne!(key(&other).id, first.id);
        assert_ne!(key(&other).body, first.body);
    }
}

/// When the connection is gone nobody waits: its request is withdrawn, under its own id, also where the next connection
/// is what tells of it; and nothing of the old conversation reaches the new one.
#[test]
fn what_is_out_is_withdrawn_when_its_connection_goes() {
    let ends: [fn(&mut Listener, Millis); 3] = [
        |listener, now| listener.closed(now),
        |listener, now| listener.opened(&ENTROPY, now),
        |listener, now| listener.guest_was_reset(now),
    ];
    for go in ends {
        let mut end = Answering::keyed();
        let (id, request) = end.asked_for(&off("vm1"));
        go(&mut end.listener, end.now);
        assert_eq!(end.polled(), [Event::Withdrawn(id)]);
        assert_eq!(end.answer(id, done(&request)), Err(NotNow::Gone));
        assert_eq!(end.read(), []);
        assert_eq!(end.reopened(&ENTROPY), []);
        let (second, request) = end.asked_for(&off("vm2"));
        assert_ne!(second, id);
        end.answer(second, done(&request)).unwrap();
        assert_eq!(end.read(), code(Code::Success));
    }
}

/// An owner that polls late hears of the withdrawal before anything of the next connection.
#[test]
fn a_withdrawal_comes_before_what_follows_it() {
    let mut end = Answering::keyed();
    let (id, _) = end.asked_for(&off("vm1"));
    end.listener.closed(end.now);
    end.listener.opened(&ENTROPY, end.now);
    end.listener.opened(&ENTROPY, end.now);
    assert_eq!(end.listener.receive(&first_half(), end.now), 0, "poll first");
    assert_eq!(end.polled(), [Event::Withdrawn(id)]);
    assert_eq!(end.polled(), []);
    end.asked_for(&off("vm2"));
}

/// A step that was begun on one connection is not completed on the next.
#[test]
fn a_new_connection_has_no_half_of_anything() {
    let whole = first_half();
    for length in 1..whole.len() {
        let mut end = Answering::keyed();
        assert_eq!(end.give(&whole[..length]), []);
        assert_eq!(end.reopened(&ENTROPY), []);
        assert_eq!(asks(&end.give(&whole[length..])), [], "{length}");
        assert_eq!(end.read(), []);
    }
    let mut end = Answering::keyed();
    end.give(&whole);
    assert_eq!(end.reopened(&ENTROPY), []);
    assert_eq!(end.read(), [], "words of the old connection");
    end.asked_for(&off("vm2"));
}

/// What the owner of many connections goes by.
#[test]
fn proved_over_and_idle_say_what_they_mean() {
    let at = |end: &Answering| (end.listener.is_proved(), end.listener.is_over(), end.listener.is_idle());
    let (open, proved, over) = ((false, false, false), (true, false, false), (false, true, false));

    let unopened = Answering { listener: Listener::of_packets(Trust::Anybody, TIME_TO_ACT), now: Millis(0) };
    assert_eq!(at(&unopened), over);

    let mut end = Answering::keyed();
    assert_eq!(at(&end), open);
    let challenge = end.challenged(&request(&Ask::Monitor));
    assert_eq!(at(&end), open);
    assert_eq!(end.listener.receive(&proof(&challenge, Hash::Sha256), end.now), 64);
    assert_eq!(at(&end), proved, "not polled");
    let (id, _) = asked(end.polled());
    assert_eq!(at(&end), proved);
    end.answer(id, Answer::Alive).unwrap();
    assert_eq!(at(&end), proved, "its reply is worth more than a stranger's hello");
    end.read();
    assert_eq!(at(&end), over);
}

/// An owner that never polls loses some refusals from its log, and nothing else.
#[test]
fn nothing_but_refusals_is_lost_by_polling_seldom() {
    let mut end = Answering::keyed();
    let (id, _) = end.asked_for(&off("vm1"));
    end.later(0);
    for _ in 0..20 {
        end.listener.opened(&ENTROPY, end.now);
        end.now = end.now.plus(HANDSHAKE_TIME);
        end.listener.wake(end.now);
    }
    let events = end.polled();
    assert_eq!(events[0], Event::Withdrawn(id));
    assert_eq!(refusals(&events), [Refusal::TooSlow; 4]);
}
