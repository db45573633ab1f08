//! Our own wire, both ends: ours with ours over a channel that the test moves, step by step.

use crate::by_hand::{GUEST, keys};
use crate::common::{done, entry, off, status, target};
use crate::pair::Pair;
use fencewire_core::listener::{HALF_OPEN, WORKING};
use fencewire_core::native::keys::Keys;
use fencewire_core::{
    Accept, Answer, Ask, Endpoint, Entropy, Event, Failure, Incarnation, ListEntry, Listener, Millis, NativeAccept,
    Power, PowerAction, Refusal, Reply, Uuid,
};

#[test]
fn each_ask_and_its_answer() {
    let on = Ask::Power(PowerAction::On, target("vm1"));
    for (ask, answer, reply) in [
        (status("vm1"), Answer::Power(Power::Off), Reply::Power(Power::Off)),
        (status("vm1"), Answer::Power(Power::Unknown), Reply::Power(Power::Unknown)),
        (Ask::Monitor, Answer::Alive, Reply::Done),
        (off("vm1"), Answer::Denied, Reply::Denied),
        (off("vm1"), Answer::Failed(Failure::Busy), Reply::NotDone(Failure::Busy)),
        (status("vm1"), Answer::Failed(Failure::NotFound), Reply::NotDone(Failure::NotFound)),
        (on, Answer::Outcome(fencewire_core::Outcome::On), Reply::Done),
    ] {
        let mut pair = Pair::new(&ask);
        let (id, request) = pair.asked();
        assert_eq!(request.ask(), &ask);
        assert!(request.is_native());
        assert_eq!(request.deadline(), pair.now.plus(Millis(20_000)));
        pair.answer(id, answer);
        assert_eq!(pair.replies, [reply]);
        assert!(pair.client.is_over());
    }
    let mut pair = Pair::new(&off("vm1"));
    let (id, request) = pair.asked();
    pair.answer(id, done(&request));
    assert_eq!(pair.replies, [Reply::Done]);
}

#[test]
fn a_list_of_any_length_comes_whole_and_in_chunks() {
    for guests in [0u8, 1, 2, 5, 40] {
        let mut pair = Pair::new(&Ask::List);
        pair.run();
        for _ in 0..200 {
            let events: Vec<Event> = pair.events.drain(..).collect();
            let Some(Event::Asked(id, _)) = events.into_iter().find(|event| matches!(event, Event::Asked(..))) else {
                break;
            };
            // The owner begins from the first at each chunk.
            let mut number = 0;
            loop {
                let name = format!("{number}-{}", "x".repeat(usize::from(number)));
                let listed = ListEntry { uuid: Uuid::from_bytes([number; 16]), ..entry(&name) };
                let answer = if number < guests { Answer::Entry(listed) } else { Answer::EndOfList };
                pair.listener.answer(id, answer, pair.now).expect("it was wanted");
                number += 1;
                match pair.listener.poll() {
                    Some(Event::EntryWanted(_)) => {}
                    Some(Event::Withdrawn(_)) | None => break,
                    other => panic!("{other:?}"),
                }
            }
            pair.run();
        }
        let (last, entries) = pair.replies.split_last().expect("an end");
        assert_eq!(*last, Reply::EndOfList);
        let uuids: Vec<u8> = entries
            .iter()
            .map(|reply| match reply {
                Reply::Entry(entry) => entry.uuid.expect("a UUID").as_bytes()[0],
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(uuids, (0..guests).collect::<Vec<u8>>());
    }
}

#[test]
fn an_asker_hears_every_second_that_it_is_worked_on_and_waits() {
    let mut pair = Pair::new(&off("vm1"));
    let (id, request) = pair.asked();
    pair.later(10_000);
    assert_eq!((pair.replies.len(), pair.events.len()), (0, 0));
    pair.answer(id, done(&request));
    assert_eq!(pair.replies, [Reply::Done]);
}

/// Rule 3: a bridge that was killed knows no session; the asker synchronises again and asks with the same id.
#[test]
fn a_session_that_is_lost_is_made_anew_and_the_request_keeps_its_id() {
    let mut pair = Pair::new(&off("vm1"));
    let (_, first) = pair.asked();
    let native = Some(NativeAccept { keys: keys(1), instance: 7 });
    pair.listener = Listener::new(Accept { classic: false, native, ..Accept::default() });
    pair.listener.opened(&Entropy([3; 64]), pair.now);
    pair.later(3_500);
    let (id, again) = pair.asked();
    assert_eq!(again.key(), first.key());
    assert_eq!(again.deadline(), first.deadline(), "it has not become younger");
    pair.answer(id, done(&again));
    assert_eq!(pair.replies, [Reply::Done]);
}

/// Rule 5, adversary "another guest's key" and "a revoked key": neither gets as far as a welcome.
#[test]
fn another_key_is_not_heard() {
    let other = Keys::derive(b"master", Uuid::from_bytes([0xb; 16]), 1);
    for wrong in [other, keys(2), Keys::keyless(), Keys::derive(b"another master", GUEST, 1)] {
        let mut pair = Pair::with(&off("vm1"), &wrong, keys(1));
        let (_, back) = pair.run();
        assert_eq!(pair.events, [Event::Refused(Refusal::NotProved)]);
        assert_eq!(back, []);
    }
}

/// Rule 2, adversary "a recording": everything that was ever said, said again, asks for nothing.
#[test]
fn a_recording_asks_for_nothing() {
    let mut pair = Pair::new(&off("vm1"));
    let (there, _) = pair.run();
    pair.events.clear();
    for entropy in [2, 9] {
        // To the same listener, and to one that was opened anew.
        pair.hear(&there);
        let asked = pair.events.iter().any(|event| matches!(event, Event::Asked(..)));
        assert!(!asked, "{:?}", pair.events);
        pair.listener.opened(&Entropy([entropy; 64]), pair.now);
        pair.events.clear();
    }
}

/// A hello, good or recorded, disturbs no session; one that nobody follows up is forgotten after a second.
#[test]
fn a_hello_disturbs_no_session() {
    let mut pair = Pair::new(&off("vm1"));
    let hello = pair.client.transmit().to_vec();
    let (id, request) = pair.asked();
    pair.hear(&hello);
    assert_eq!(pair.events, []);
    pair.answer(id, done(&request));
    assert_eq!(pair.replies, [Reply::Done]);
    pair.later(HALF_OPEN.0 + WORKING.0);
}

#[test]
fn a_guard_comes_along() {
    let run = Incarnation::from_bytes([5; 16]);
    let mut pair = Pair::guarded(&off("vm1"), &keys(1), keys(1), Some(run));
    assert_eq!(pair.asked().1.guard(), Some(run));
}

/// Somebody should learn why an agent of the other wire hears nothing. Bytes of ours that look like its magic are no reason.
#[test]
fn a_frame_of_the_other_wire_is_spoken_of_where_it_is_not_answered() {
    let mut pair = Pair::new(&off("61626261-6162-6261-6162-626161626261"));
    let (id, request) = pair.asked();
    pair.answer(id, done(&request));
    assert_eq!((&pair.events[..], &pair.replies[..]), (&[][..], &[Reply::Done][..]));
    let theirs = fencewire_core::classic::serial::encode_request(&status("vm2"), 7).expect("can be said");
    pair.hear(&theirs);
    pair.hear(&theirs);
    assert_eq!(pair.events, [Event::Refused(Refusal::OtherWire), Event::Refused(Refusal::OtherWire)]);
    assert!(pair.listener.transmit().is_empty());
}
