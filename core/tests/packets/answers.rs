//! What a packet listener makes of its owner's answers: codes, lists, deadlines, and callers that do not read.

use crate::common::packets::{HASHES, code, proof, request, trust};
use crate::common::{Answering, asked, done, entry, entry_bytes, off, status};
use fencewire_core::classic::Code;
use fencewire_core::classic::key::Hash;
use fencewire_core::classic::packet::encode_unsigned;
use fencewire_core::classic::serial::{END_OF_LIST, ENTRY_LEN};
use fencewire_core::listener::REPLY_TIME;
use fencewire_core::{
    Answer, Ask, Endpoint, Event, Failure, Millis, NotNow, Outcome, Power, PowerAction, Refusal, RequestId, Trust,
};

fn power(action: PowerAction) -> Ask {
    Ask::Power(action, crate::common::target("vm1"))
}

fn list_asked() -> (Answering, RequestId) {
    let mut end = Answering::keyed();
    let (id, request) = end.asked_for(&Ask::List);
    assert_eq!(request.ask(), &Ask::List);
    (end, id)
}

// Codes.

/// Each answer is one byte, and then there is no more to say.
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
    for (ask, answer, said) in codes {
        let mut end = Answering::keyed();
        let (id, _) = end.asked_for(&ask);
        end.answer(id, answer).unwrap();
        assert_eq!(end.answer(id, answer), Err(NotNow::Gone), "twice");
        assert_eq!(end.read(), code(said), "{ask:?} {answer:?}");
        end.is_at_its_end();
    }
    for action in [PowerAction::Off, PowerAction::Reboot, PowerAction::On] {
        let mut end = Answering::keyed();
        let (id, request) = end.asked_for(&power(action));
        end.answer(id, done(&request)).unwrap();
        assert_eq!(end.read(), code(Code::Success));
        end.is_at_its_end();
    }
}

/// Rule 1: "done" of one action is not "done" of another, and no status is.
#[test]
fn an_answer_that_does_not_fit_is_not_taken() {
    let of = |action| done(&Answering::keyed().asked_for(&power(action)).1);
    let (off, reboot, on) = (of(PowerAction::Off), of(PowerAction::Reboot), of(PowerAction::On));
    let vm1 = Answer::Entry(entry("vm1"));
    let wrong = [
        (power(PowerAction::Off), vec![reboot, on, Answer::Power(Power::Off), Answer::Alive]),
        (power(PowerAction::Reboot), vec![off, on, vm1]),
        (power(PowerAction::On), vec![off, reboot, Answer::Power(Power::On), Answer::EndOfList]),
        (status("vm1"), vec![off, Answer::Alive, Answer::EndOfList, vm1]),
        (Ask::Monitor, vec![off, Answer::Power(Power::On), Answer::EndOfList]),
        (Ask::List, vec![off, Answer::Power(Power::On), Answer::Alive]),
    ];
    for (ask, answers) in wrong {
        let mut end = Answering::keyed();
        let (id, _) = end.asked_for(&ask);
        for answer in answers {
            assert_eq!(end.answer(id, answer), Err(NotNow::DoesNotFit), "{ask:?} {answer:?}");
            assert_eq!(end.read(), [], "{ask:?} {answer:?}");
        }
        end.answer(id, Answer::Denied).unwrap();
        assert_eq!(end.read(), code(Code::Denied), "it is still out");
    }
}

/// A request that was not handed out yet cannot be answered, though its id can be guessed.
#[test]
fn an_answer_before_the_question_is_not_taken() {
    let mut end = Answering::keyed();
    let (id, _) = Answering::keyed().asked_for(&Ask::Monitor);
    for bytes in [&request(&Ask::Monitor)[..], &[0xc1; 64]] {
        assert_eq!(end.answer(id, Answer::Alive), Err(NotNow::Gone));
        assert_eq!(end.give(bytes), []);
    }
    let challenge = end.read()[64..].to_vec();
    assert_eq!(end.listener.receive(&proof(&challenge, Hash::Sha256), end.now), 64);
    assert_eq!(end.answer(id, Answer::Alive), Err(NotNow::Gone), "not polled");
    assert_eq!(asked(end.polled()).0, id);
    end.answer(id, Answer::Alive).unwrap();
}

// Lists.

/// The list's header, end and final code, also where there is nobody in it.
#[test]
fn an_empty_list_is_a_list() {
    let (mut end, id) = list_asked();
    end.answer(id, Answer::EndOfList).unwrap();
    assert_eq!(end.read(), [code(Code::HostList), END_OF_LIST.to_vec(), code(Code::Success)].concat());
    end.is_at_its_end();
}

/// A list of any length needs one entry's room: the next is asked for when the last has gone, and once.
#[test]
fn a_long_list_is_pulled_one_entry_at_a_time() {
    let names: Vec<String> = (0..1_000).map(|number| format!("vm{number}")).collect();
    let (mut end, id) = list_asked();
    let (mut read, mut expected) = (Vec::new(), code(Code::HostList));
    for name in &names {
        end.answer(id, Answer::Entry(entry(name))).unwrap();
        assert_eq!(end.answer(id, Answer::Entry(entry(name))), Err(NotNow::EntryNotWanted));
        assert_eq!(end.answer(id, Answer::EndOfList), Err(NotNow::EntryNotWanted));
        assert!(end.listener.transmit().len() <= 1 + ENTRY_LEN);
        let (bytes, events) = end.drained();
        assert_eq!(events, [Event::EntryWanted(id)]);
        assert_eq!(end.polled(), [], "once");
        read.extend(bytes);
        expected.extend(entry_bytes(name));
    }
    for answer in [Answer::Alive, Answer::Power(Power::On)] {
        assert_eq!(end.answer(id, answer), Err(NotNow::DoesNotFit));
    }
    end.answer(id, Answer::EndOfList).unwrap();
    read.extend(end.read());
    expected.extend(END_OF_LIST);
    expected.extend(code(Code::Success));
    assert_eq!(read, expected);
    end.is_at_its_end();
}

/// The next entry is not wanted before the last byte of this one has gone.
#[test]
fn an_entry_is_wanted_in_its_time() {
    let (mut end, id) = list_asked();
    end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
    end.listener.sent(ENTRY_LEN, end.now);
    assert_eq!(end.polled(), []);
    end.listener.sent(1, end.now);
    assert_eq!(end.polled(), [Event::EntryWanted(id)]);
}

/// A hypervisor that goes away in the middle of a list makes it one that says "failed", not one that seems complete.
#[test]
fn a_list_can_fail_in_the_middle() {
    for answer in [Answer::Failed(Failure::Unreachable), Answer::Denied] {
        let (mut end, id) = list_asked();
        end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
        end.drained();
        end.answer(id, answer).unwrap();
        assert_eq!(end.read(), [END_OF_LIST.to_vec(), code(Code::Failed)].concat());
        end.is_at_its_end();
    }
}

/// A list whose reader goes away is withdrawn, and nothing is left of it.
#[test]
fn a_list_whose_reader_goes_is_withdrawn() {
    let (mut end, id) = list_asked();
    end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
    end.listener.sent(100, end.now);
    end.listener.closed(end.now);
    assert_eq!(end.polled(), [Event::Withdrawn(id)]);
    assert_eq!(end.answer(id, Answer::EndOfList), Err(NotNow::Gone));
    end.is_at_its_end();
}

/// A host list to a peer that does not read: given up after 5 s, and nothing more of it is ever sent.
#[test]
fn a_list_that_nobody_reads_is_given_up() {
    for read in [0, 1, ENTRY_LEN] {
        let (mut end, id) = list_asked();
        end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
        end.listener.sent(read, end.now);
        assert_eq!(end.later(4_999), []);
        assert_eq!(end.later(1), [Event::Withdrawn(id), Event::Refused(Refusal::ReplyNotRead)]);
        assert_eq!(end.answer(id, Answer::Entry(entry("vm2"))), Err(NotNow::Gone));
        end.is_at_its_end();
    }
}

/// A reader that stalls for less than 5 s at a time gets its whole list, up to the time to act; then it gets no more,
/// since a code would be read as an entry.
#[test]
fn a_list_ends_at_its_deadline() {
    let (mut end, id) = list_asked();
    for _ in 0..5 {
        end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
        assert_eq!(end.later(4_900), []);
        assert_eq!(end.drained().1, [Event::EntryWanted(id)]);
    }
    assert_eq!(end.later(499), []);
    assert_eq!(end.later(1), [Event::Withdrawn(id)]);
    assert_eq!(end.read(), []);
    end.is_at_its_end();
}

// Time.

/// Rule 1: what is not done in its time has failed, in that moment, and an answer that comes later is not sent.
#[test]
fn a_request_fails_at_its_deadline() {
    for ask in [off("vm1"), status("vm1"), Ask::Monitor, Ask::List] {
        let mut end = Answering::keyed();
        let (id, request) = end.asked_for(&ask);
        assert_eq!(end.listener.wake_at(), Some(request.deadline()));
        assert_eq!(end.later(24_999), []);
        assert_eq!(end.later(1), [Event::Withdrawn(id)]);
        assert_eq!(end.answer(id, Answer::Denied), Err(NotNow::Gone));
        assert_eq!(end.read(), code(Code::Failed));
        end.is_at_its_end();
    }
}

/// A request that its owner has not taken by then is never handed out.
#[test]
fn a_request_that_is_not_polled_in_time_is_not_handed_out() {
    let mut end = Answering::keyed();
    let challenge = end.challenged(&request(&off("vm1")));
    assert_eq!(end.listener.receive(&proof(&challenge, Hash::Sha256), end.now), 64);
    end.now = end.now.plus(Millis(25_000));
    end.listener.wake(end.now);
    assert_eq!(end.polled(), []);
    assert_eq!(end.read(), code(Code::Failed));
    end.is_at_its_end();
}

/// A reply that nobody reads is dropped after 5 s, whatever it is: the connection is not held for it.
#[test]
fn a_reply_that_nobody_reads_is_dropped() {
    assert_eq!(REPLY_TIME, Millis(5_000));
    let mut end = Answering::keyed();
    let (id, _) = end.asked_for(&Ask::Monitor);
    assert_eq!(end.later(20_000), []);
    end.answer(id, Answer::Alive).unwrap();
    assert_eq!(end.listener.wake_at(), Some(end.now.plus(REPLY_TIME)));
    assert_eq!(end.later(4_999), []);
    assert!(!end.listener.is_over());
    assert_eq!(end.later(1), [Event::Refused(Refusal::ReplyNotRead)]);
    end.is_at_its_end();

    let mut end = Answering::keyed();
    let (id, _) = end.asked_for(&Ask::Monitor);
    assert_eq!(end.later(25_000), [Event::Withdrawn(id)]);
    assert_eq!(end.later(5_000), [Event::Refused(Refusal::ReplyNotRead)], "nor a failure");
    end.is_at_its_end();
}

/// Nor does a caller that proves itself without reading what it proves keep a connection: it has recorded a challenge
/// that comes again only where entropy does.
#[test]
fn a_caller_that_does_not_read_the_challenge_is_given_up() {
    let mut end = Answering::keyed();
    assert_eq!(end.give(&[&request(&off("vm1"))[..], &[0xc1; 64]].concat()), []);
    let challenge = end.listener.transmit()[64..].to_vec();
    assert_eq!(end.give(&proof(&challenge, Hash::Sha256)), []);
    assert_eq!(end.later(4_999), []);
    assert_eq!(end.later(1), [Event::Refused(Refusal::ReplyNotRead)]);
    end.is_at_its_end();
}

/// All of it is the same with the other hash, and where nobody holds a key.
#[test]
fn lists_and_codes_are_the_same_for_each_trust() {
    let listing = |mut end: Answering, events| {
        let (id, _) = asked(events);
        end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
        let (mut bytes, events) = end.drained();
        assert_eq!(events, [Event::EntryWanted(id)]);
        end.answer(id, Answer::EndOfList).unwrap();
        bytes.extend(end.read());
        end.is_at_its_end();
        bytes
    };
    let expected =
        [code(Code::HostList), entry_bytes("vm1").to_vec(), END_OF_LIST.to_vec(), code(Code::Success)].concat();
    for auth in HASHES {
        let mut end = Answering::of_packets(trust(Hash::Sha256, auth));
        let challenge = end.challenged(&request(&Ask::List));
        let events = end.give(&proof(&challenge, auth));
        assert_eq!(listing(end, events), expected);
    }
    let mut end = Answering::of_packets(Trust::Anybody);
    let events = end.give(&encode_unsigned(&Ask::List, crate::common::packets::FRESH));
    assert_eq!(listing(end, events), expected);
}
