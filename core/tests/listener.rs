//! The listener's promises, in virtual time: when bytes count, which frame gets which reply, and when a reply is dropped.
//! Lists, resets and the owner's mistakes are in `listener_lists.rs`; damaged input is in `bad_input.rs`.

mod common;

use common::{Answering, ENTROPY, asked, asks, by_bytes, done, frame, off, refusals, reply, status};
use fencewire_core::classic::serial::{Malformed, RequestFrame};
use fencewire_core::classic::{Code, REMEMBERED_MS, TIME_TO_ACT_MS};
use fencewire_core::listener::{FRAME_TIME, PIPELINE_TIME, REPLY_TIME, SETTLE};
use fencewire_core::{Accept, Answer, Ask, Endpoint, Event, Failure, Millis, NotNow, Outcome, Power, Refusal};

// When bytes count.

/// Rule 2: what waited in the channel since who knows when is not acted upon.
#[test]
fn what_comes_in_the_first_200_ms_is_discarded() {
    assert_eq!(SETTLE, Millis(200));
    let mut end = Answering::connected(Accept::default());
    assert_eq!(end.give(&frame(&off("vm1"), 1)), []);
    assert_eq!(end.later(199), []);
    assert_eq!(end.give(&frame(&off("vm1"), 2)), []);
    assert!(end.listener.is_idle());

    end.later(1);
    assert_eq!(end.asked(&frame(&off("vm1"), 3)).1.ask(), &off("vm1"));
}

/// Rule 2: a frame of which the beginning was discarded is none.
#[test]
fn a_frame_half_discarded_is_no_frame() {
    let mut end = Answering::connected(Accept::default());
    let (early, late) = halves(frame(&off("vm1"), 1), 10);
    end.give(&early);
    end.later(200);
    assert_eq!(end.give(&late), []);
    assert_eq!(end.later(1_000), [Event::Refused(Refusal::Noise(64))]);
}

/// A socket that is new for each guest has no old bytes: its owner says so, and nothing is discarded.
#[test]
fn a_channel_without_old_bytes_need_not_settle() {
    let mut end = Answering::connected(Accept { settle: Millis(0), ..Accept::default() });
    end.asked(&frame(&Ask::Monitor, 1));
}

/// Rule 2: a torn frame waits for its rest no longer than 5 s.
#[test]
fn a_frame_must_be_whole_after_5_s() {
    assert_eq!(FRAME_TIME, Millis(5_000));
    let (most, rest) = halves(frame(&off("vm1"), 1), 73);

    let mut end = Answering::settled();
    end.give(&most);
    assert_eq!(end.later(4_999), []);
    assert_eq!(asks(&end.give(&rest)), [off("vm1")]);

    let mut end = Answering::settled();
    end.give(&most);
    assert_eq!(end.later(5_000), [Event::Refused(Refusal::Torn(73))]);
    assert_eq!(end.give(&rest), []);
}

/// The same when the owner was late to wake it: the bytes that come too late do not complete the frame.
#[test]
fn a_late_wake_does_not_give_a_frame_more_time() {
    let (most, rest) = halves(frame(&off("vm1"), 1), 73);
    let mut end = Answering::settled();
    end.give(&most);
    end.now = end.now.plus(FRAME_TIME);
    assert_eq!(end.give(&rest), [Event::Refused(Refusal::Torn(73))]);
}

/// A line of 300 baud is slow, not torn.
#[test]
fn a_slow_frame_is_a_frame() {
    let mut end = Answering::settled();
    let mut events = Vec::new();
    for byte in frame(&off("vm1"), 1) {
        events.extend(end.later(34));
        events.extend(end.give(&[byte]));
    }
    assert_eq!(asked(events).1.ask(), &off("vm1"));
}

/// A frame that may be a torn one and the beginning of the next waits 50 ms for the next byte, then it is whole.
#[test]
fn a_frame_that_ends_like_a_magic_begins_is_kept_back_for_50_ms() {
    let mut bytes = frame(&off("vm1"), 1);
    bytes[73] = b'a';

    let mut end = Answering::settled();
    assert_eq!(end.give(&bytes), []);
    assert_eq!(end.later(49), []);
    assert_eq!(asks(&end.later(1)), [off("vm1")]);

    let mut end = Answering::settled();
    end.give(&bytes[..73]);
    end.later(1_000);
    end.give(&bytes[73..]);
    assert_eq!(end.later(49), [], "from its last byte");
    assert_eq!(asks(&end.later(1)), [off("vm1")]);

    let mut end = Answering::settled();
    assert_eq!(end.give(&bytes), []);
    let torn = Event::Refused(Refusal::Torn(73));
    assert_eq!(end.give(b"bba")[..], [torn], "it was 73 bytes, and another frame begins");
}

/// The owner's log tells of noise, when a frame begins or after a second at the latest.
#[test]
fn noise_is_counted_and_told() {
    let mut end = Answering::settled();
    assert_eq!(end.give(&[0xff; 500]), []);
    assert_eq!(end.later(999), []);
    assert_eq!(end.later(1), [Event::Refused(Refusal::Noise(500))]);
    end.give(b"login: ");
    let events = end.give(&frame(&Ask::Monitor, 1));
    assert_eq!(refusals(&events), [Refusal::Noise(7)]);
    assert_eq!(asks(&events), [Ask::Monitor]);
}

/// The same of torn frames: none is lost of many in one read.
#[test]
fn every_torn_frame_is_told() {
    let mut end = Answering::settled();
    let events = end.give(&b"abba\x01".repeat(20));
    assert_eq!(refusals(&events), [Refusal::Torn(5); 19]);
}

// What a request is.

/// The time to act counts from the frame's last byte, and so does the memory of it.
#[test]
fn a_requests_times_count_from_its_last_byte() {
    let (most, rest) = halves(frame(&off("vm1"), 1), 30);
    let mut end = Answering::settled();
    end.give(&most);
    end.later(700);
    let now = end.now;
    let (_, request) = asked(end.give(&rest));
    assert_eq!(request.received(), now);
    assert_eq!(request.deadline(), now.plus(Millis(TIME_TO_ACT_MS)));
    assert_eq!(request.remember_until(), now.plus(Millis(REMEMBERED_MS)));
}

/// Rule 3 rests on this: the same frame has the same key on any connection, any other frame another.
#[test]
fn the_whole_frame_is_what_makes_a_request_the_same() {
    let key = |bytes: &[u8]| Answering::settled().asked(bytes).1.key();
    let first = key(&frame(&off("vm1"), 1));
    assert_eq!(key(&frame(&off("vm1"), 1)), first);
    for other in [frame(&off("vm1"), 2), frame(&off("vm2"), 1), frame(&status("vm1"), 1)] {
        assert_ne!(key(&other).id, first.id);
        assert_ne!(key(&other).body, first.body);
    }
}

/// An answer that is late finds no other request under its id.
#[test]
fn ids_are_never_used_twice() {
    let mut end = Answering::settled();
    let mut ids = Vec::new();
    for seqno in 0..20 {
        let (id, _) = end.asked(&frame(&Ask::Monitor, seqno));
        assert!(!ids.contains(&id));
        ids.push(id);
        end.answer(id, Answer::Alive).unwrap();
        end.read();
        end.listener.closed(end.now);
        end.listener.opened(&ENTROPY, end.now);
        end.later(200);
    }
}

// Which frame gets which reply.

/// Each answer is one reply, in one piece, with nothing before it: the real client's scanner needs that.
#[test]
fn every_answer_has_its_code() {
    let codes = [
        (status("vm1"), Answer::Power(Power::On), Code::Success),
        (status("vm1"), Answer::Power(Power::Off), Code::Off),
        (status("vm1"), Answer::Power(Power::Unknown), Code::Failed),
        (status("vm1"), Answer::Failed(Failure::NotFound), Code::Failed),
        (status("vm1"), Answer::Denied, Code::Denied),
        (Ask::Monitor, Answer::Alive, Code::Success),
        (off("vm1"), Answer::Failed(Failure::Unconfirmed), Code::Failed),
        (off("vm1"), Answer::Outcome(Outcome::Failed(Failure::Unconfirmed)), Code::Failed),
        (off("vm1"), Answer::Denied, Code::Denied),
        (Ask::List, Answer::Denied, Code::Denied),
        (Ask::List, Answer::Failed(Failure::Unreachable), Code::Failed),
    ];
    for (ask, answer, code) in codes {
        let mut end = Answering::settled();
        let (id, _) = end.asked(&frame(&ask, 1));
        end.answer(id, answer).unwrap();
        assert_eq!(end.listener.transmit(), reply(code), "{ask:?} {answer:?}");
    }
    let mut end = Answering::settled();
    let (id, request) = end.asked(&frame(&off("vm1"), 1));
    end.answer(id, done(&request)).unwrap();
    assert_eq!(end.listener.transmit(), reply(Code::Success));
}

/// A reply that the port takes byte by byte is the same reply.
#[test]
fn partial_writes_are_fine() {
    let mut end = Answering::settled();
    let (id, _) = end.asked(&frame(&Ask::Monitor, 1));
    end.answer(id, Answer::Alive).unwrap();
    assert_eq!(by_bytes(&mut end.listener, end.now), reply(Code::Success));
    end.listener.sent(100, end.now);
    assert!(end.listener.is_idle());
}

/// Somebody who sends several at once gets as many replies, in that order.
#[test]
fn frames_within_250_ms_are_answered_in_their_order() {
    assert_eq!(PIPELINE_TIME, Millis(250));
    let mut end = Answering::settled();
    let (first, request) = end.asked(&frame(&off("vm1"), 1));
    assert_eq!(end.later(249), []);
    assert_eq!(end.give(&frame(&status("vm2"), 2)), [], "one request is out at a time");

    end.answer(first, done(&request)).unwrap();
    assert_eq!(end.polled(), [], "nor as long as a reply has not gone");
    let (bytes, events) = end.drained();
    assert_eq!(bytes, reply(Code::Success));
    let (second, _) = asked(events);
    end.answer(second, Answer::Power(Power::Off)).unwrap();
    assert_eq!(end.read(), reply(Code::Off));
}

/// Rule 1: a later asker does not get the reply to an earlier one's request, which is still being carried out.
#[test]
fn a_frame_after_250_ms_supersedes_what_is_awaited() {
    let mut end = Answering::settled();
    let (first, request) = end.asked(&frame(&off("vm1"), 1));
    end.later(250);
    let events = end.give(&frame(&off("vm2"), 2));
    assert_eq!(events[0], Event::Withdrawn(first));
    let (second, _) = asked(events[1..].to_vec());

    assert_eq!(end.answer(first, done(&request)), Err(NotNow::Gone));
    end.answer(second, Answer::Denied).unwrap();
    assert_eq!(end.read(), reply(Code::Denied));
}

/// What waited behind is superseded too, and was never handed out.
#[test]
fn a_frame_after_250_ms_supersedes_what_waits() {
    let mut end = Answering::settled();
    let (first, _) = end.asked(&frame(&off("vm1"), 1));
    end.give(&frame(&off("vm2"), 2));
    end.later(250);
    let events = end.give(&frame(&off("vm3"), 3));
    assert_eq!(events[..2], [Event::Withdrawn(first), Event::Refused(Refusal::Superseded)]);
    assert_eq!(asks(&events), [off("vm3")]);
}

/// Rule 1: one asker after the other, each soon after the last, are not one who sends several at once.
#[test]
fn frames_are_together_with_the_first_not_with_each_other() {
    let mut end = Answering::settled();
    let (first, request) = end.asked(&frame(&off("vm1"), 1));
    let mut events = Vec::new();
    for seqno in 2..5 {
        events.extend(end.later(100));
        events.extend(end.give(&frame(&status("vm2"), seqno)));
    }
    assert_eq!(events[0], Event::Withdrawn(first));
    assert_eq!(end.answer(first, done(&request)), Err(NotNow::Gone));
    assert_eq!(asks(&events), [status("vm2")]);
}

/// Rule 1: the same where the reply is there already and waits to be sent.
#[test]
fn a_frame_after_250_ms_supersedes_a_reply_that_has_not_gone() {
    for gone in 0..5 {
        let mut end = Answering::settled();
        let (first, request) = end.asked(&frame(&off("vm1"), 1));
        end.answer(first, done(&request)).unwrap();
        end.listener.sent(gone, end.now);
        end.later(250);
        let (second, _) = end.asked(&frame(&off("vm2"), 2));
        end.answer(second, Answer::Denied).unwrap();
        assert_eq!(end.read(), reply(Code::Denied), "{gone} bytes had gone");
    }
}

/// Rule 1: the same where the later asker's frame says nothing: it is somebody who waits, too. It gets no reply, since
/// it may as well be a damaged repetition of the other.
#[test]
fn a_malformed_frame_after_250_ms_supersedes_as_well() {
    let mut bad = frame(&off("vm2"), 2);
    bad[4] = 99;
    let refused = Event::Refused(Refusal::Malformed(Malformed::Action(99)));

    let mut end = Answering::settled();
    let (first, request) = end.asked(&frame(&off("vm1"), 1));
    end.later(250);
    assert_eq!(end.give(&bad), [Event::Withdrawn(first), refused.clone()]);
    assert_eq!(end.answer(first, done(&request)), Err(NotNow::Gone));
    assert_eq!(end.read(), []);

    let mut end = Answering::settled();
    let (first, request) = end.asked(&frame(&off("vm1"), 1));
    end.answer(first, done(&request)).unwrap();
    end.later(250);
    assert_eq!(end.give(&bad), [refused]);
    assert_eq!(end.read(), []);
}

/// Rule 3: an asker who repeats its frame gets one reply, not several of which the rest lies about.
#[test]
fn a_repetition_of_what_is_awaited_gets_one_reply() {
    let bytes = frame(&off("vm1"), 1);
    let mut end = Answering::settled();
    let (id, request) = end.asked(&bytes);
    for _ in 0..10 {
        end.later(1_000);
        assert_eq!(end.give(&bytes), []);
    }
    end.answer(id, done(&request)).unwrap();
    end.later(1_000);
    assert_eq!(end.give(&bytes), [], "also while the reply has not gone");
    assert_eq!(end.read(), reply(Code::Success));
    assert!(end.listener.is_idle());
}

/// Rule 1: one who asks again while several are awaited is told of its own request, not of those before it.
#[test]
fn a_repetition_of_one_of_several_is_asked_anew() {
    let mut end = Answering::settled();
    let (first, request) = end.asked(&frame(&off("vm1"), 1));
    end.later(100);
    end.give(&frame(&off("vm2"), 2));
    end.later(300);
    let events = end.give(&frame(&off("vm2"), 2));
    assert_eq!(events[..2], [Event::Withdrawn(first), Event::Refused(Refusal::Superseded)]);
    let (second, _) = asked(events[2..].to_vec());
    assert_eq!(end.answer(first, done(&request)), Err(NotNow::Gone));
    end.answer(second, Answer::Denied).unwrap();
    assert_eq!(end.read(), reply(Code::Denied));

    // The same of the first of them: the second one's reply would come after its own.
    let mut end = Answering::settled();
    let (first, _) = end.asked(&frame(&off("vm1"), 1));
    end.give(&frame(&off("vm2"), 2));
    end.later(300);
    let events = end.give(&frame(&off("vm1"), 1));
    assert_eq!(events[0], Event::Withdrawn(first));
    assert_eq!(asks(&events), [off("vm1")]);
}

/// A repetition does not make a request younger.
#[test]
fn a_repetition_gives_no_more_time() {
    let bytes = frame(&off("vm1"), 1);
    let mut end = Answering::settled();
    let (id, _) = end.asked(&bytes);
    end.later(20_000);
    end.give(&bytes);
    assert_eq!(end.later(5_000), [Event::Withdrawn(id)]);
}

/// Rule 3: after its reply has gone, a repetition is handed out again: the ledger knows it.
#[test]
fn a_repetition_after_the_reply_is_handed_out_with_the_same_key() {
    let bytes = frame(&off("vm1"), 1);
    let mut end = Answering::settled();
    let (id, request) = end.asked(&bytes);
    end.answer(id, done(&request)).unwrap();
    end.read();
    end.later(1_000);
    let (again, repeated) = end.asked(&bytes);
    assert_ne!(again, id);
    assert_eq!(repeated.key(), request.key());
}

/// Rule 4: a flood is held no further than to four; the rest is refused, and the first four are answered all the same.
#[test]
fn more_than_four_at_once_are_refused() {
    let mut end = Answering::settled();
    let flood: Vec<u8> = (0..7).flat_map(|seqno| frame(&Ask::Monitor, seqno)).collect();
    let events = end.give(&flood);
    assert_eq!(refusals(&events), [Refusal::TooMany; 3]);

    let mut waiting = events.into_iter().find(|event| matches!(event, Event::Asked(..)));
    let mut bytes = Vec::new();
    while let Some(Event::Asked(id, _)) = waiting {
        end.answer(id, Answer::Alive).unwrap();
        let (more, events) = end.drained();
        bytes.extend(more);
        waiting = events.into_iter().next();
    }
    assert_eq!(bytes, reply(Code::Success).repeat(4));
    assert!(end.listener.is_idle());
}

/// Who sent it learns that it said nothing, instead of waiting in vain.
#[test]
fn a_malformed_frame_is_answered_with_failed() {
    let mut bad = frame(&off("vm1"), 1);
    bad[4] = 0;
    let mut end = Answering::settled();
    let refused = Refusal::Malformed(Malformed::Action(0));
    assert_eq!(end.give(&bad), [Event::Refused(refused)]);
    assert_eq!(end.read(), reply(Code::Failed));
}

/// Somebody who waits for another reply would take "failed" for it.
#[test]
fn a_malformed_frame_is_not_answered_while_another_is_awaited() {
    let mut bad = frame(&off("vm1"), 1);
    bad[4] = 0;
    let mut end = Answering::settled();
    let (id, request) = end.asked(&frame(&off("vm1"), 1));
    end.give(&bad);
    assert_eq!(end.read(), []);
    end.answer(id, done(&request)).unwrap();
    assert_eq!(end.read(), reply(Code::Success));
}

// When time is up.

/// A peer that does not read holds up nothing for longer than 5 s, and a late reader gets no stale success.
#[test]
fn a_reply_that_nobody_reads_is_dropped_after_5_s() {
    assert_eq!(REPLY_TIME, Millis(5_000));
    for gone in 0..5 {
        let mut end = Answering::settled();
        let (id, request) = end.asked(&frame(&off("vm1"), 1));
        end.answer(id, done(&request)).unwrap();
        end.listener.sent(gone, end.now);
        assert_eq!(end.later(4_999), []);
        assert_eq!(end.later(1), [Event::Refused(Refusal::ReplyNotRead)]);
        assert!(end.listener.is_idle());
        assert_eq!(end.read(), []);
    }
}

/// Rule 1: who reads late and counts replies does not take the second request's for the first one's.
#[test]
fn what_waits_behind_a_reply_that_nobody_reads_is_dropped_with_it() {
    let mut end = Answering::settled();
    let (id, _) = end.asked(&frame(&off("vm1"), 1));
    end.give(&frame(&Ask::Monitor, 2));
    end.answer(id, Answer::Denied).unwrap();
    let events = end.later(5_000);
    assert_eq!(refusals(&events), [Refusal::ReplyNotRead, Refusal::Superseded]);
    assert_eq!(asks(&events), []);
}

/// Rule 5 of an asker's patience: 25 s after its receipt a request is answered "failed", whoever still works on it.
#[test]
fn a_request_is_failed_and_withdrawn_after_25_s() {
    let mut end = Answering::settled();
    let (id, request) = end.asked(&frame(&off("vm1"), 1));
    assert_eq!(end.later(24_999), []);
    assert_eq!(end.later(1), [Event::Withdrawn(id)]);
    assert_eq!(end.answer(id, done(&request)), Err(NotNow::Gone));
    assert_eq!(end.read(), reply(Code::Failed));
}

/// The time to act is the configuration's.
#[test]
fn the_time_to_act_can_be_set() {
    let mut end = Answering::connected(Accept { settle: Millis(0), time_to_act: Millis(700), ..Accept::default() });
    let (id, request) = end.asked(&frame(&off("vm1"), 1));
    assert_eq!(request.deadline(), request.received().plus(Millis(700)));
    assert_eq!(end.later(700), [Event::Withdrawn(id)]);
}

/// One that waited behind it fails as well, in its turn, and is never handed out.
#[test]
fn what_waited_behind_another_for_25_s_fails_in_its_turn() {
    let mut end = Answering::settled();
    let (first, _) = end.asked(&frame(&off("vm1"), 1));
    end.later(100);
    end.give(&frame(&off("vm2"), 2));
    assert_eq!(end.later(24_900), [Event::Withdrawn(first)]);
    assert_eq!(end.later(100), [Event::Refused(Refusal::Superseded)]);
    assert_eq!(end.read(), reply(Code::Failed).repeat(2));
}

fn halves(frame: RequestFrame, at: usize) -> (Vec<u8>, Vec<u8>) {
    (frame[..at].to_vec(), frame[at..].to_vec())
}
