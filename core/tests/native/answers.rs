//! What a listener takes from its owner, and what its asker hears of it.

use crate::by_hand::{Guest, answering, answering_both, framed, keys};
use crate::common::{Answering, done, entry, frame, off, refusals, reply};
use fencewire_core::classic::Code;
use fencewire_core::native::message::{Done, Reason, Result as Came, Runs, Said, What, Whom};
use fencewire_core::{
    Answer, Details, Endpoint, Event, Failure, Incarnation, Millis, NotNow, Outcome, Power, Refusal, RequestId, Uuid,
};

/// A guest in a session, and its request, which is handed out and was accepted.
fn asked(what: What<'_>) -> (Answering, Guest, RequestId) {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let request = guest.request(5, end.now.plus(Millis(9_000)), what);
    let (id, _) = end.asked(&request);
    assert_eq!(said(&guest, &mut end), [Said::Accepted]);
    (end, guest, id)
}

fn said(guest: &Guest, end: &mut Answering) -> Vec<Said> {
    guest.replies(&end.read()).into_iter().map(|reply| reply.said).collect()
}

#[test]
fn the_next_entry_is_not_taken_before_it_is_wanted() {
    let (mut end, guest, id) = asked(What::List(None));
    end.answer(id, Answer::Entry(entry("vm1"))).expect("the first is wanted");
    for answer in [Answer::Entry(entry("vm2")), Answer::EndOfList, Answer::Denied] {
        assert_eq!(end.answer(id, answer), Err(NotNow::EntryNotWanted));
    }
    assert_eq!(end.polled(), [Event::EntryWanted(id)]);
    end.answer(id, Answer::EndOfList).expect("it is wanted");
    assert_eq!(said(&guest, &mut end), [Said::List(1, false)]);
    assert_eq!(end.answer(id, Answer::EndOfList), Err(NotNow::Gone));
}

#[test]
fn a_list_may_be_refused_or_fail_before_it_begins_and_in_its_middle() {
    for (answer, heard) in
        [(Answer::Denied, Said::Denied), (Answer::Failed(Failure::Unreachable), Said::Failed(Reason::Unreachable))]
    {
        for entries in 0..2 {
            let (mut end, guest, id) = asked(What::List(None));
            for _ in 0..entries {
                end.answer(id, Answer::Entry(entry("vm1"))).expect("it is wanted");
                assert_eq!(end.polled(), [Event::EntryWanted(id)]);
            }
            end.answer(id, answer).expect("it fits");
            assert_eq!(said(&guest, &mut end), [heard], "behind {entries}");
        }
    }
}

/// "Failed" would say neither what was before nor that this is the answer to an earlier copy.
#[test]
fn a_power_action_that_failed_is_done_with_a_reason_and_all_that_is_known() {
    let run = [6; 16];
    let details = Details { before: Power::On, incarnation: Some(Incarnation::from_bytes(run)), repeated: true };
    let heard = Done {
        result: Came::Failed(Reason::Busy),
        before: Runs::On,
        now: Runs::Unknown,
        incarnation: Some(run),
        seen_off: false,
        repeated: true,
    };
    let vm1 = Whom::Name("vm1");
    for what in [What::Off(vm1, None), What::Reboot(vm1, None), What::On(vm1)] {
        for answer in [Answer::Failed(Failure::Busy), Answer::Outcome(Outcome::Failed(Failure::Busy))] {
            let (mut end, guest, id) = asked(what.clone());
            end.listener.answer_with(id, answer, details, end.now).expect("it fits");
            assert_eq!(said(&guest, &mut end), [Said::Done(heard)], "{what:?}, {answer:?}");
        }
    }
}

#[test]
fn what_does_not_answer_a_list_is_not_taken_and_the_list_goes_on() {
    let (mut end, guest, id) = asked(What::List(None));
    for answer in [Answer::Alive, Answer::Power(Power::On)] {
        assert_eq!(end.answer(id, answer), Err(NotNow::DoesNotFit));
    }
    end.answer(id, Answer::EndOfList).expect("it is out");
    assert_eq!(said(&guest, &mut end), [Said::List(0, false)]);
}

#[test]
fn an_entry_does_not_answer_what_is_no_list() {
    let (mut end, guest, id) = asked(What::Status(Whom::Name("vm1")));
    for answer in [Answer::Entry(entry("vm1")), Answer::EndOfList, Answer::Alive] {
        assert_eq!(end.answer(id, answer), Err(NotNow::DoesNotFit));
    }
    end.answer(id, Answer::Power(Power::On)).expect("it is out");
    assert!(matches!(said(&guest, &mut end).as_slice(), [Said::Status(..)]));
}

#[test]
fn a_name_of_63_bytes_is_said_and_a_longer_one_is_not() {
    let longest = "x".repeat(63);
    let longer = "x".repeat(64);
    for (name, is_said) in [("vm1", true), (&longest, true), (&longer, false)] {
        let (mut end, _, id) = asked(What::List(None));
        end.answer(id, Answer::Entry(entry(name))).expect("it is wanted");
        end.polled();
        end.answer(id, Answer::EndOfList).expect("it is wanted");
        let bytes = end.read();
        assert_eq!(bytes.windows(name.len()).any(|bytes| bytes == name.as_bytes()), is_said, "{name}");
        assert_eq!(bytes.len() > 63, is_said && name.len() == 63);
    }
}

/// The cursor is the asker's, and its own guest comes no more.
#[test]
fn a_list_goes_on_behind_the_cursor() {
    let (mut end, guest, id) = asked(What::List(Some([5; 16])));
    for number in [4, 5, 6] {
        let mut listed = entry("vm");
        listed.uuid = Uuid::from_bytes([number; 16]);
        end.answer(id, Answer::Entry(listed)).expect("it is wanted");
        assert_eq!(end.polled(), [Event::EntryWanted(id)]);
    }
    end.answer(id, Answer::EndOfList).expect("it is wanted");
    assert_eq!(said(&guest, &mut end), [Said::List(1, false)]);
}

/// Rule 2: who asked is not there any more, nor is the session.
#[test]
fn a_reset_guest_has_no_session_and_waits_for_nothing() {
    let (mut end, mut guest, id) = asked(What::Off(Whom::Name("vm1"), None));
    end.listener.guest_was_reset(end.now);
    assert_eq!(end.polled(), [Event::Withdrawn(id)]);
    let again = guest.request(5, end.now.plus(Millis(9_000)), What::Off(Whom::Name("vm1"), None));
    assert_eq!(end.give(&again), [Event::Refused(Refusal::NotProved)]);
    assert_eq!(end.read(), []);
}

#[test]
fn a_reply_of_fence_virts_does_not_go_into_the_middle_of_one_of_ours() {
    let mut end = answering_both(keys(1), true);
    let mut guest = Guest::established(&mut end);
    let native = guest.request(5, end.now.plus(Millis(9_000)), What::Status(Whom::Name("vm1")));
    let (_, _) = end.asked(&native);
    let ours = end.listener.transmit().to_vec();
    for sent in 1..ours.len() {
        end.listener.sent(1, end.now);
        if sent == 1 {
            let (id, request) = end.asked(&frame(&off("vm1"), 7));
            end.answer(id, done(&request)).expect("it is out");
        }
        assert_eq!(end.listener.transmit(), &ours[sent..]);
    }
    end.listener.sent(1, end.now);
    assert_eq!(end.read(), reply(Code::Success));
}

/// However much comes at once, an owner that polls as it should misses nothing.
#[test]
fn nothing_is_lost_of_what_comes_at_once() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let forged = framed(&[3; 40]);
    assert_eq!(refusals(&end.give(&forged.repeat(9))), [Refusal::NotProved; 9]);
    let requests = [5, 6, 7].map(|id| guest.request(id, end.now.plus(Millis(9_000)), What::Monitor));
    let events = end.give(&requests.concat());
    // Nobody had polled the first when the second came.
    let [Event::Refused(Refusal::Superseded), Event::Asked(second, _), Event::Withdrawn(gone), Event::Asked(third, _)] =
        &events[..]
    else {
        panic!("{events:?}");
    };
    assert!(second == gone && second < third);
}

/// What is not longer than a tag says nothing, and is no line in a log.
#[test]
fn what_is_too_short_to_prove_anything_is_nothing() {
    let mut end = answering(keys(1));
    for kind in [1, 3] {
        for length in 1..=16 {
            assert_eq!(end.give(&framed(&vec![kind; length])), [], "{length} bytes");
        }
        assert_eq!(end.give(&framed(&[kind; 17])), [Event::Refused(Refusal::NotProved)]);
    }
}

/// Our own wire knows old from new: what was in the channel before it was opened is heard, and a guest need not repeat it.
#[test]
fn what_was_in_the_channel_before_is_taken_until_there_is_something_to_say() {
    let mut end = answering(keys(1));
    let mut guest = Guest::new(keys(1));
    let hello = guest.say_hello(1);
    assert_eq!(end.listener.receive_old(&hello, end.now), hello.len());
    guest.welcomed(&end.read()).expect("a welcome");
    let forged = framed(&[3; 40]);
    assert_eq!(end.listener.receive_old(&forged.repeat(2), end.now), forged.len());
    assert_eq!(refusals(&end.polled()), [Refusal::NotProved]);
}
