//! The packet wire, both ends: a conversation of ours with ours, in pieces of any size, and what each end makes of another
//! with which it does not agree.

use crate::common::packets::{FRESH, HASHES, UNSIGNED, entropy, key, shared, signed, trust};
use crate::common::{Answering, Asking, ENOUGH, ENTROPY, asked, done, entry, off, status};
use fencewire_core::classic::key::{Hash, WeakHash};
use fencewire_core::classic::packet::Unproved;
use fencewire_core::{
    Answer, Ask, Endpoint, Event, Failure, Power, PowerAction, Refusal, Reply, Signing, Speak, Trust,
};

/// Moves bytes, `piece` at a time, until neither end has any more to send.
fn exchange(caller: &mut Asking, end: &mut Answering, piece: usize) -> (Vec<Event>, Vec<Reply>) {
    let (mut events, mut replies) = (Vec::new(), Vec::new());
    for _ in 0..ENOUGH {
        let there = take(&mut caller.client, end.now, piece);
        events.extend(end.give(&there));
        let back = take(&mut end.listener, end.now, piece);
        replies.extend(caller.give(&back));
        if there.is_empty() && back.is_empty() {
            events.extend(end.polled());
            return (events, replies);
        }
    }
    panic!("there is always more to say")
}

fn take(end: &mut impl Endpoint, now: fencewire_core::Millis, piece: usize) -> Vec<u8> {
    let bytes: Vec<u8> = end.transmit().iter().take(piece).copied().collect();
    end.sent(bytes.len(), now);
    bytes
}

/// Every way in which two ends can agree.
fn agreed(ask: &Ask) -> Vec<(Asking, Answering)> {
    let mut pairs = vec![(Asking::of_packets(UNSIGNED, ask, &entropy(1)), Answering::of_packets(Trust::Anybody))];
    for auth in HASHES {
        for (hash, minimum) in
            [(Hash::Sha256, Hash::Sha256), (Hash::Sha512, Hash::Sha256), (Hash::Sha512, Hash::Sha512)]
        {
            let caller = Asking::of_packets(signed(&shared(), hash, auth), ask, &entropy(1));
            pairs.push((caller, Answering::of_packets(trust(minimum, auth))));
        }
    }
    pairs
}

#[test]
fn an_exchange_in_pieces_of_any_size() {
    for piece in [1, 3, 63, 64, 65, 239, 240, 1_000] {
        for (mut caller, mut end) in agreed(&off("vm1")) {
            let (id, request) = asked(exchange(&mut caller, &mut end, piece).0);
            assert_eq!(request.ask(), &off("vm1"));
            assert!(end.listener.is_proved() && !end.listener.is_over());
            end.answer(id, done(&request)).unwrap();
            assert_eq!(exchange(&mut caller, &mut end, piece), (vec![], vec![Reply::Done]));
            end.is_at_its_end();
            caller.is_at_its_end();
        }
    }
}

#[test]
fn a_list_in_pieces_of_any_size() {
    for piece in [1, 64, 130, 131, 1_000] {
        for (mut caller, mut end) in agreed(&Ask::List) {
            let (id, _) = asked(exchange(&mut caller, &mut end, piece).0);
            for name in ["vm1", "vm2"] {
                end.answer(id, Answer::Entry(entry(name))).unwrap();
                let (events, replies) = exchange(&mut caller, &mut end, piece);
                assert_eq!(events, [Event::EntryWanted(id)]);
                assert!(matches!(replies[..], [Reply::Entry(entry)] if entry.name() == name.as_bytes()));
            }
            end.answer(id, Answer::EndOfList).unwrap();
            assert_eq!(exchange(&mut caller, &mut end, piece), (vec![], vec![Reply::EndOfList]));
        }
    }
}

/// What the owner answers is what the asker hears.
#[test]
fn every_answer_arrives() {
    let answers = [
        (status("vm1"), Answer::Power(Power::On), Reply::Power(Power::On)),
        (status("vm1"), Answer::Power(Power::Off), Reply::Power(Power::Off)),
        (status("vm1"), Answer::Power(Power::Unknown), Reply::Power(Power::Unknown)),
        (status("vm1"), Answer::Denied, Reply::Denied),
        (Ask::Monitor, Answer::Alive, Reply::Done),
        (off("vm1"), Answer::Failed(Failure::Unconfirmed), Reply::Failed),
        (off("abba"), Answer::Denied, Reply::Denied),
        (Ask::List, Answer::Failed(Failure::Unreachable), Reply::Failed),
        (Ask::List, Answer::EndOfList, Reply::EndOfList),
    ];
    for (ask, answer, reply) in answers {
        for (mut caller, mut end) in agreed(&ask) {
            let (id, request) = asked(exchange(&mut caller, &mut end, 1_000).0);
            assert_eq!(request.ask(), &ask);
            end.answer(id, answer).unwrap();
            assert_eq!(exchange(&mut caller, &mut end, 1_000).1, [reply], "{ask:?}");
        }
    }
    for action in [PowerAction::Off, PowerAction::Reboot, PowerAction::On] {
        let ask = Ask::Power(action, crate::common::target("vm1"));
        let (mut caller, mut end) = agreed(&ask).remove(1);
        let (id, request) = asked(exchange(&mut caller, &mut end, 1_000).0);
        end.answer(id, done(&request)).unwrap();
        assert_eq!(exchange(&mut caller, &mut end, 1_000).1, [Reply::Done]);
    }
}

/// Rule 1: a listener whose time is up says "failed", and its caller hears that.
#[test]
fn a_request_that_is_not_answered_in_time_has_failed_for_both() {
    for (mut caller, mut end) in agreed(&off("vm1")) {
        let (id, _) = asked(exchange(&mut caller, &mut end, 1_000).0);
        assert_eq!(end.later(25_000), [Event::Withdrawn(id)]);
        assert_eq!(exchange(&mut caller, &mut end, 1_000).1, [Reply::Failed]);
        end.is_at_its_end();
        caller.is_at_its_end();
    }
}

/// Rule 5: two ends that do not agree never do anything, and both owners are told; the client by the connection's end where
/// the listener says nothing.
#[test]
fn ends_that_do_not_agree() {
    let unproved = |why| Refusal::Unproved(why);
    let with = |key, hash, auth| Speak::ClassicPacket { fresh: FRESH, signing: Signing::Key { key, hash, auth } };
    let (ours, another) = (shared(), key("another"));
    let (sha256, sha512) = (Hash::Sha256, Hash::Sha512);
    let cases = [
        // Another key.
        (with(&another, sha512, sha256), trust(sha512, sha256), Some(unproved(Unproved::Signature)), Reply::Dropped),
        // A weaker signature.
        (
            with(&ours, sha256, sha256),
            trust(sha512, sha256),
            Some(unproved(Unproved::BelowMinimum(sha256))),
            Reply::Dropped,
        ),
        // None.
        (UNSIGNED, trust(sha256, sha256), Some(unproved(Unproved::WeakHash(WeakHash::None))), Reply::Closed),
        // One where nobody can know it.
        (with(&ours, sha256, sha256), Trust::Anybody, Some(unproved(Unproved::Signed(2))), Reply::Dropped),
        // Another way to answer challenges: it is the client that notices.
        (with(&ours, sha256, sha512), trust(sha256, sha256), None, Reply::NotProved),
        (with(&ours, sha512, sha256), trust(sha512, sha512), None, Reply::NotProved),
    ];
    for (speak, trust, refusal, reply) in cases {
        let mut caller = Asking::of_packets(speak, &off("vm1"), &ENTROPY);
        let mut end = Answering::of_packets(trust);
        let (events, mut replies) = exchange(&mut caller, &mut end, 1_000);
        assert_eq!(events, refusal.map(Event::Refused).into_iter().collect::<Vec<_>>());
        assert_eq!(end.listener.is_over(), refusal.is_some());
        // Whoever says no more closes.
        caller.client.closed(caller.now);
        end.listener.closed(end.now);
        replies.extend(caller.polled());
        assert_eq!(replies, [reply]);
        assert_eq!(end.polled(), []);
        end.is_at_its_end();
        caller.is_at_its_end();
    }
}
