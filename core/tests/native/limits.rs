//! What a guest that has the key may say, and what not: ids, deadlines, counters, bodies.

use crate::by_hand::{Guest, answering, keys, nothing_asked, payloads, written};
use crate::common::{Answering, done, refusals};
use fencewire_core::classic::Malformed;
use fencewire_core::listener::{DEADLINE_MAX, HALF_OPEN};
use fencewire_core::native::message::{REQUEST_MAX, Reason, Reply, Request, Result as Came, Said, What, Whom};
use fencewire_core::{
    Admit, Answer, BadName, Endpoint, Event, Ledger, Millis, NotAdmitted, Power, Refusal, Target, Uuid,
};

const VM1: What<'static> = What::Off(Whom::Name("vm1"), None);

fn said(guest: &Guest, end: &mut Answering) -> Vec<Said> {
    guest.replies(&end.read()).into_iter().map(|reply| reply.said).collect()
}

/// Rule 1: who says another request under an id that is dealt with does not get that one's answer.
#[test]
fn the_same_id_with_another_body_is_busy_and_does_not_disturb_the_first() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let deadline = end.now.plus(Millis(20_000));
    let first = guest.request(5, deadline, VM1);
    let (id, request) = end.asked(&first);
    assert_eq!(said(&guest, &mut end), [Said::Accepted]);
    for other in [What::Off(Whom::Name("vm2"), None), What::Off(Whom::Name("vm1"), Some([1; 16])), What::Monitor] {
        let frame = guest.request(5, deadline, other);
        assert_eq!(end.give(&frame), []);
        assert_eq!(said(&guest, &mut end), [Said::Failed(Reason::Busy)]);
    }
    let again = guest.request(5, deadline, VM1);
    assert_eq!(end.give(&again), []);
    assert_eq!(said(&guest, &mut end), [Said::Accepted]);
    end.answer(id, done(&request)).unwrap();
    assert!(matches!(said(&guest, &mut end).as_slice(), [Said::Done(_)]));
}

/// The same after it was dealt with: then the ledger says so.
#[test]
fn the_same_id_with_another_body_later_is_refused_by_the_ledger() {
    let mut ledger = Ledger::<4>::new();
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let deadline = end.now.plus(Millis(20_000));
    let first = guest.request(5, deadline, VM1);
    let (id, request) = end.asked(&first);
    assert!(matches!(ledger.admit(&request, end.now), Admit::Act(_)));
    end.answer(id, done(&request)).unwrap();
    let other = guest.request(5, deadline, What::Reboot(Whom::Name("vm1"), None));
    let (_, request) = end.asked(&other);
    assert!(matches!(ledger.admit(&request, end.now), Admit::Refused(NotAdmitted::OtherBody)));
}

#[test]
fn a_deadline_in_the_past_is_handed_out_for_the_ledger_to_find_it_and_admits_nothing() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    for deadline in [Millis(0), Millis(end.now.0 - 1), end.now] {
        let frame = guest.request(deadline.0 + 50, deadline, VM1);
        let events = end.give(&frame);
        let Some(Event::Asked(_, request)) = events.last() else { panic!("{events:?}") };
        let admitted = Ledger::<1>::new().admit(request, end.now);
        assert!(matches!(admitted, Admit::Refused(NotAdmitted::Expired)), "{deadline:?}");
    }
}

#[test]
fn a_deadline_ten_minutes_ahead_is_taken_and_a_millisecond_more_is_not() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let last = end.now.plus(DEADLINE_MAX);
    for (id, deadline) in [(5, last.plus(Millis(1))), (6, Millis(u64::MAX))] {
        let frame = guest.request(id, deadline, VM1);
        let events = end.give(&frame);
        nothing_asked(&events);
        assert_eq!(refusals(&events), [Refusal::Malformed(Malformed::Deadline)]);
        assert_eq!(said(&guest, &mut end), [Said::Failed(Reason::Expired)]);
    }
    let frame = guest.request(7, last, VM1);
    assert_eq!(end.asked(&frame).1.deadline(), last);
}

#[test]
fn counters_that_are_repeated_or_lower_do_not_count_and_gaps_do_not_matter() {
    let mut end = answering(keys(1));
    let guest = Guest::established(&mut end);
    let deadline = end.now.plus(Millis(20_000));
    let frame = |counter, id| guest.request_numbered(counter, id, deadline, VM1);
    for counter in [0, 1] {
        nothing_asked(&end.give(&frame(counter, 5)));
    }
    end.asked(&frame(1_000, 6));
    for counter in [2, 999, 1_000] {
        let events = end.give(&frame(counter, 7));
        nothing_asked(&events);
    }
    let events = end.give(&frame(u32::MAX, 8));
    assert!(events.iter().any(|event| matches!(event, Event::Asked(..))));
    // Nothing is higher: the session has come to its end, and another one takes its place.
    for counter in [u32::MAX, 0, 1] {
        nothing_asked(&end.give(&frame(counter, 9)));
    }
    let mut next = Guest::new(keys(1));
    next.greets(&mut end, 77);
    let request = next.request(10, deadline, VM1);
    let events = end.give(&request);
    assert!(events.iter().any(|event| matches!(event, Event::Asked(..))));
}

#[test]
fn a_malformed_body_under_a_good_tag_says_nothing() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let good = written(&Request { id: 5, deadline: end.now.0 + 9_000, what: VM1 });
    let mut bodies: Vec<Vec<u8>> = (0..good.len()).map(|cut| good[..cut].to_vec()).collect();
    bodies.push([&good[..], &[0]].concat()); // more than it says
    bodies.push(vec![0xff; 40]); // no integer ends
    for what in [6, 7, 0x80, 0xff] {
        bodies.push(vec![5, 0, what, 1]);
    }
    bodies.push(vec![5, 0, 0, 2, 1, b'x', 0]); // neither a name nor a UUID
    bodies.push(vec![5, 0, 0, 0, 3, 0xff, 0xff, 0xff, 0]); // no UTF-8
    bodies.push(vec![5, 0, 0, 0, 200, 1, b'x', 0]); // longer than the frame
    for body in bodies {
        guest.counter += 1;
        let events = end.give(&guest.body(guest.counter, &body));
        nothing_asked(&events);
        assert_eq!(refusals(&events), [Refusal::Malformed(Malformed::Body)], "{body:02x?}");
    }
    assert_eq!(end.read(), []);
}

#[test]
fn names_that_are_none_are_answered_and_not_handed_out() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let long = "x".repeat(64);
    let names =
        [("", BadName::Empty), ("a\nb", BadName::Control), ("a\0b", BadName::Control), (&long, BadName::TooLong)];
    for (id, (name, why)) in (50..).zip(names) {
        let frame = guest.request(id, end.now.plus(Millis(9_000)), What::Status(Whom::Name(name)));
        assert_eq!(refusals(&end.give(&frame)), [Refusal::Malformed(Malformed::Name(why))]);
        let reply = Reply { id, said: Said::Failed(Reason::NotFound) };
        assert_eq!(guest.replies(&end.read()), [reply]);
    }
}

/// Each field as long as it can be: a listener keeps room for that much of a frame and for no more.
#[test]
fn the_longest_request_is_understood_and_what_is_longer_is_nothing() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let name = "x".repeat(63);
    let what = What::Reboot(Whom::Name(&name), Some([1; 16]));
    let frame = guest.request_numbered(u32::MAX - 1, u64::MAX, end.now.plus(DEADLINE_MAX), what);
    // A clock that has run for ever would say a deadline of 10 bytes; this one is at its beginning.
    assert_eq!(payloads(&frame)[0].len() + 10 - written(&end.now.plus(DEADLINE_MAX).0).len(), REQUEST_MAX);
    end.asked(&frame);
    guest.counter = u32::MAX - 1;
    let longer = guest.body(u32::MAX, &[0xff; REQUEST_MAX]);
    assert_eq!(end.give(&longer), []);
    let other = Guest::new(keys(1)).say_hello(9);
    assert_eq!(end.give(&other), []);
    assert!(!end.read().is_empty(), "and what comes next is understood");
}

/// Rule 5: a guest that is named like another's UUID is never meant by it.
#[test]
fn a_name_of_a_uuids_shape_is_a_uuid() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let text = "b33f94f9-8a30-4e83-9165-fd8681ee13cf";
    let frame = guest.request(5, end.now.plus(Millis(9_000)), What::Off(Whom::Name(text), None));
    let uuid = Uuid::parse(text.as_bytes()).unwrap();
    assert_eq!(end.asked(&frame).1.ask().target(), Some(&Target::Uuid(uuid)));
}

/// The session that takes another's place gets the answers to the request with the same id; the old one hears no more.
#[test]
fn an_answer_goes_to_the_session_that_asks_for_it_now() {
    let mut end = answering(keys(1));
    let mut old = Guest::established(&mut end);
    let deadline = end.now.plus(Millis(20_000));
    let frame = old.request(5, deadline, VM1);
    let (id, request) = end.asked(&frame);
    let mut new = Guest::new(keys(1));
    new.greets(&mut end, 9);
    let frame = new.request(5, deadline, VM1);
    assert_eq!(end.give(&frame), []);
    end.answer(id, done(&request)).unwrap();
    let bytes = end.read();
    assert_eq!(old.replies(&bytes), []);
    assert!(matches!(
        new.replies(&bytes).as_slice(),
        [Reply { said: Said::Accepted, .. }, Reply { said: Said::Done(_), .. }]
    ));
}

/// A listener that is idle may be dropped and made anew at the next byte: not in the middle of a frame.
#[test]
fn a_listener_in_a_frame_is_not_idle() {
    let mut end = answering(keys(1));
    assert!(end.listener.is_idle());
    let hello = Guest::new(keys(1)).say_hello(1);
    for at in 1..hello.len() {
        end.give(&hello[at - 1..at]);
        assert!(!end.listener.is_idle(), "after {at} bytes");
    }
    end.give(&[1, 2, 3, 0]);
    end.listener.closed(end.now);
    end.polled();
    assert!(end.listener.is_idle());
}

/// Nor with a session: it would be lost.
#[test]
fn a_listener_with_a_session_is_not_idle() {
    let mut end = answering(keys(1));
    let _guest = Guest::established(&mut end);
    end.later(60_000);
    assert!(!end.listener.is_idle(), "it is as good as ever");
    end.listener.closed(end.now);
    assert!(end.listener.is_idle());
}

/// The half-open one goes by itself, at its time.
#[test]
fn a_half_open_session_wakes_its_listener_and_goes() {
    let mut end = answering(keys(1));
    let mut guest = Guest::new(keys(1));
    guest.greets(&mut end, 1);
    assert_eq!(end.listener.wake_at(), Some(end.now.plus(HALF_OPEN)));
    end.later(HALF_OPEN.0 - 1);
    assert!(!end.listener.is_idle());
    end.later(1);
    assert!(end.listener.is_idle());
}

/// Whoever looks at the clock late does not make it later.
#[test]
fn a_half_open_session_is_over_at_its_time_though_nobody_was_woken() {
    for (ms, good) in [(0, true), (HALF_OPEN.0 - 1, true), (HALF_OPEN.0, false), (HALF_OPEN.0 + 1, false)] {
        let mut end = answering(keys(1));
        let mut guest = Guest::new(keys(1));
        guest.greets(&mut end, 1);
        end.now = end.now.plus(Millis(ms));
        let request = guest.request(5, end.now.plus(Millis(9_000)), What::Monitor);
        let asked = end.give(&request).iter().any(|event| matches!(event, Event::Asked(..)));
        assert_eq!(asked, good, "after {ms} ms");
    }
}

#[test]
fn who_is_not_answered_in_time_is_told_that_nobody_knows() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    for (id, what, reason) in [(5, What::Status(Whom::Name("vm1")), Reason::Unreachable)] {
        let frame = guest.request(id, end.now.plus(Millis(3_000)), what);
        let (out, _) = end.asked(&frame);
        end.read();
        let mut heard = Vec::new();
        for _ in 0..4 {
            end.later(1_000);
            heard.extend(said(&guest, &mut end));
        }
        assert_eq!(heard, [Said::Working, Said::Working, Said::Failed(reason)]);
        assert!(end.answer(out, Answer::Power(Power::On)).is_err(), "nobody waits for it");
    }
}

/// Rule 1: what has begun for it may still happen, and nobody says more than that.
#[test]
fn who_waits_for_a_fence_that_nobody_answers_is_told_that_it_may_have_happened() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let frame = guest.request(5, end.now.plus(Millis(1_500)), VM1);
    let (id, _) = end.asked(&frame);
    end.read();
    assert_eq!(end.later(1_500), [Event::Withdrawn(id)]);
    let heard = said(&guest, &mut end);
    let [Said::Working, Said::Done(done)] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((done.result, done.seen_off), (Came::Failed(Reason::Unconfirmed), false));
}
