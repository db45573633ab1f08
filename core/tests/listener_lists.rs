//! The listener's lists, what ends a conversation from outside, and what it says to an owner who answers wrongly.

mod common;

use common::{Answering, ENTROPY, asked, asks, done, entry, entry_bytes, frame, off, refusals, reply, status};
use fencewire_core::classic::Code;
use fencewire_core::classic::serial::{END_OF_LIST, decode_entry, has_magic};
use fencewire_core::{
    Accept, Answer, Ask, Endpoint, Event, Failure, ListEntry, Millis, NotNow, Power, Refusal, RequestId, Uuid,
};

fn list_asked() -> (Answering, RequestId) {
    let mut end = Answering::settled();
    let (id, request) = end.asked(&frame(&Ask::List, 1));
    assert_eq!(request.ask(), &Ask::List);
    (end, id)
}

// Lists.

/// A list of any length needs one entry's room: the next is asked for when the last has gone.
#[test]
fn a_list_is_pulled_one_entry_at_a_time() {
    let (mut end, id) = list_asked();
    let mut whole = Vec::new();
    for name in ["vm1", "vm2", "vm3"] {
        end.answer(id, Answer::Entry(entry(name))).unwrap();
        assert_eq!(end.polled(), [], "what is there has not gone");
        let (bytes, events) = end.drained();
        assert_eq!(events, [Event::EntryWanted(id)]);
        whole.extend(bytes);
    }
    end.answer(id, Answer::EndOfList).unwrap();
    whole.extend(end.read());

    let mut expected = reply(Code::HostList);
    for name in ["vm1", "vm2", "vm3"] {
        expected.extend(entry_bytes(name));
    }
    expected.extend(END_OF_LIST);
    expected.extend(reply(Code::Success));
    assert_eq!(whole, expected);
    assert!(end.listener.is_idle());
}

/// The real client wants a list's header and end, also where there is nobody in it.
#[test]
fn an_empty_list_is_a_list() {
    let (mut end, id) = list_asked();
    end.answer(id, Answer::EndOfList).unwrap();
    let expected = [reply(Code::HostList), END_OF_LIST.to_vec(), reply(Code::Success)].concat();
    assert_eq!(end.read(), expected);
}

/// Rule 1: what is left of a list when its reader has gone is no reply to the next asker, whatever a guest is called.
#[test]
fn no_reply_stands_in_a_lists_entry() {
    for (name, uuid) in [
        ("abba", "b33f94f9-8a30-4e83-9165-fd8681eeabba"),
        ("xabba", "abba94f9-8a30-4e83-9165-fd8681ee13cf"),
        ("abbabba\u{1}", "b33fabba-abba-4e83-abba-abbabba1abba"),
    ] {
        let uuid = Uuid::parse(uuid.as_bytes()).unwrap();
        let (mut end, id) = list_asked();
        end.answer(id, Answer::Entry(ListEntry { name, uuid, power: Power::On })).unwrap();
        let (bytes, _) = end.drained();
        assert!(!has_magic(&bytes[5..]), "{name} {uuid}");
        let entry = decode_entry(bytes[5..].try_into().unwrap()).unwrap();
        assert_eq!(entry.uuid, Some(uuid));
    }
}

/// An entry is wanted once, however often the owner polls, and not before the last byte has gone.
#[test]
fn an_entry_is_wanted_once_and_in_its_time() {
    let (mut end, id) = list_asked();
    end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
    assert_eq!(end.answer(id, Answer::Entry(entry("vm2"))), Err(NotNow::EntryNotWanted));
    let all = end.listener.transmit().len();
    end.listener.sent(all - 1, end.now);
    assert_eq!(end.polled(), []);
    end.listener.sent(1, end.now);
    assert_eq!(end.polled(), [Event::EntryWanted(id)]);
    assert_eq!(end.polled(), []);
}

/// A hypervisor that goes away in the middle of a list makes it one that says "failed", not one that seems complete.
#[test]
fn a_list_can_fail_in_the_middle() {
    for answer in [Answer::Failed(Failure::Unreachable), Answer::Denied] {
        let (mut end, id) = list_asked();
        end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
        end.drained();
        end.answer(id, answer).unwrap();
        assert_eq!(end.read(), [END_OF_LIST.to_vec(), reply(Code::Failed)].concat());
    }
}

/// A host list to a peer that does not read: given up after 5 s, and nothing more of it is ever sent.
#[test]
fn a_list_that_nobody_reads_is_given_up() {
    let (mut end, id) = list_asked();
    end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
    assert_eq!(end.later(4_999), []);
    assert_eq!(end.later(1), [Event::Withdrawn(id), Event::Refused(Refusal::ReplyNotRead)]);
    assert_eq!(end.read(), []);
    assert_eq!(end.answer(id, Answer::Entry(entry("vm2"))), Err(NotNow::Gone));
    assert!(end.listener.is_idle());
}

/// A reader that stalls for less than 5 s at a time gets its whole list, up to the time to act.
#[test]
fn a_list_survives_a_reader_that_stalls() {
    let (mut end, id) = list_asked();
    for _ in 0..5 {
        end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
        assert_eq!(end.later(4_900), []);
        assert_eq!(end.drained().1, [Event::EntryWanted(id)]);
    }
    assert_eq!(end.later(500), [Event::Withdrawn(id)]);
    assert_eq!(end.read(), [], "a single reply would be read as an entry");
}

/// Somebody else's frame ends a list that is under way: its rest would hide that one's reply.
#[test]
fn a_list_is_superseded_in_the_middle() {
    let (mut end, id) = list_asked();
    end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
    end.listener.sent(100, end.now);
    end.later(250);
    let events = end.give(&frame(&Ask::Monitor, 2));
    assert_eq!(events[0], Event::Withdrawn(id));
    let (second, _) = asked(events[1..].to_vec());
    end.answer(second, Answer::Alive).unwrap();
    assert_eq!(end.read(), reply(Code::Success));
}

// What ends it from outside.

/// When the connection is gone nobody waits: all is withdrawn, and nothing is left to send to the next one.
#[test]
fn all_is_withdrawn_at_close() {
    let mut end = Answering::settled();
    let (first, request) = end.asked(&frame(&off("vm1"), 1));
    end.give(&frame(&off("vm2"), 2));
    end.give(&frame(&off("vm3"), 3)[..40]);
    end.listener.closed(end.now);
    assert_eq!(end.polled(), [Event::Withdrawn(first), Event::Refused(Refusal::Superseded)]);
    assert_eq!(end.answer(first, done(&request)), Err(NotNow::Gone));
    assert_eq!(end.later(60_000), []);
    assert_eq!(end.read(), []);
    assert!(end.listener.is_idle());
}

/// A reply that had not gone does not go to the next connection.
#[test]
fn a_reply_does_not_outlive_its_connection() {
    let mut end = Answering::settled();
    let (id, request) = end.asked(&frame(&off("vm1"), 1));
    end.answer(id, done(&request)).unwrap();
    end.listener.opened(&ENTROPY, end.now);
    assert_eq!(end.polled(), []);
    assert_eq!(end.read(), []);
}

/// Rule 2: after a reset of the guest, what was begun before it is not completed by what comes after it.
#[test]
fn a_reset_of_the_guest_drops_everything_and_discards_for_200_ms() {
    let mut end = Answering::settled();
    let (id, request) = end.asked(&frame(&off("vm1"), 1));
    let torn = frame(&off("vm2"), 2);
    end.give(&torn[..40]);
    end.listener.guest_was_reset(end.now);
    assert_eq!(end.polled(), [Event::Withdrawn(id)]);
    assert_eq!(end.answer(id, done(&request)), Err(NotNow::Gone));

    end.later(199);
    assert_eq!(end.give(&frame(&off("vm3"), 3)), []);
    end.later(1);
    assert_eq!(asks(&end.give(&torn[40..])), []);
    let events = end.give(&frame(&off("vm4"), 4));
    assert_eq!(asks(&events), [off("vm4")]);
}

/// A reset while a channel still settles does not cut that short.
#[test]
fn a_reset_does_not_shorten_the_settling() {
    let mut end = Answering::connected(Accept { settle: Millis(1_000), ..Accept::default() });
    end.later(100);
    end.listener.guest_was_reset(end.now);
    end.later(899);
    assert_eq!(end.give(&frame(&off("vm1"), 1)), []);
    end.later(1);
    end.asked(&frame(&off("vm1"), 2));
}

/// The owner of 10,000 channels drops those that are idle: nothing that is going on may be lost by that.
#[test]
fn idle_means_that_nothing_is_going_on() {
    let mut end = Answering::settled();
    assert!(end.listener.is_idle());
    assert_eq!(end.listener.receive(&[0xff], end.now), 1);
    assert!(!end.listener.is_idle(), "noise to be told");
    end.later(1_000);
    assert!(end.listener.is_idle());

    let bytes = frame(&Ask::Monitor, 1);
    assert_eq!(end.listener.receive(&bytes[..73], end.now), 73);
    assert!(!end.listener.is_idle(), "a frame begun");
    assert_eq!(end.listener.receive(&bytes[73..], end.now), 1);
    assert!(!end.listener.is_idle(), "a request to be polled");
    let (id, _) = asked(end.polled());
    assert!(!end.listener.is_idle(), "a request out");
    end.answer(id, Answer::Alive).unwrap();
    assert!(!end.listener.is_idle(), "a reply to be sent");
    end.read();
    assert!(end.listener.is_idle());

    end.asked(&bytes);
    end.listener.closed(end.now);
    assert!(!end.listener.is_idle(), "a withdrawal to be polled");
    end.polled();
    assert!(end.listener.is_idle());
}

// Answers that cannot be taken.

/// Rule 1: an answer goes to the request that it names, or nowhere.
#[test]
fn an_answer_to_what_is_not_out_is_not_taken() {
    let mut end = Answering::settled();
    let (first, request) = end.asked(&frame(&off("vm1"), 1));
    end.give(&frame(&off("vm2"), 2));
    end.answer(first, done(&request)).unwrap();
    assert_eq!(end.answer(first, done(&request)), Err(NotNow::Gone), "twice");
    let (_, events) = end.drained();
    let (second, _) = asked(events);
    assert_eq!(end.answer(first, done(&request)), Err(NotNow::Gone), "another is out");
    end.answer(second, Answer::Denied).unwrap();
}

/// A request that has not been handed out cannot be answered, whatever its id turns out to be.
#[test]
fn an_answer_before_the_question_is_not_taken() {
    let mut end = Answering::settled();
    let (id, _) = end.asked(&frame(&Ask::Monitor, 1));
    end.answer(id, Answer::Alive).unwrap();
    end.read();
    assert_eq!(end.answer(id, Answer::Alive), Err(NotNow::Gone));
    assert_eq!(end.read(), []);
}

/// Rule 1: "done" of one action is not "done" of another, and no status is.
#[test]
fn an_answer_that_does_not_fit_is_not_taken() {
    let of = |ask: &Ask| Answering::settled().asked(&frame(ask, 1)).1;
    let power = |action| Ask::Power(action, common::target("vm1"));
    let (off, reboot, on) = (
        of(&power(fencewire_core::PowerAction::Off)),
        of(&power(fencewire_core::PowerAction::Reboot)),
        of(&power(fencewire_core::PowerAction::On)),
    );
    let wrong: [(&Ask, Vec<Answer<'_>>); 6] = [
        (off.ask(), vec![done(&reboot), done(&on), Answer::Power(Power::Off), Answer::Alive]),
        (reboot.ask(), vec![done(&off), done(&on), Answer::Entry(entry("vm1"))]),
        (on.ask(), vec![done(&off), done(&reboot), Answer::Power(Power::On), Answer::EndOfList]),
        (&status("vm1"), vec![done(&off), Answer::Alive, Answer::EndOfList, Answer::Entry(entry("vm1"))]),
        (&Ask::Monitor, vec![done(&off), Answer::Power(Power::On), Answer::EndOfList]),
        (&Ask::List, vec![done(&off), Answer::Power(Power::On), Answer::Alive]),
    ];
    for (ask, answers) in wrong {
        let mut end = Answering::settled();
        let (id, _) = end.asked(&frame(ask, 1));
        for answer in answers {
            assert_eq!(end.answer(id, answer), Err(NotNow::DoesNotFit), "{ask:?} {answer:?}");
            assert_eq!(end.read(), [], "{ask:?} {answer:?}");
        }
        end.answer(id, Answer::Denied).unwrap();
        assert_eq!(end.read(), reply(Code::Denied), "it is still out");
    }
}

/// The same in the middle of a list.
#[test]
fn a_list_goes_on_with_entries_only() {
    let (mut end, id) = list_asked();
    end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
    end.drained();
    for answer in [Answer::Alive, Answer::Power(Power::On)] {
        assert_eq!(end.answer(id, answer), Err(NotNow::DoesNotFit));
    }
    end.answer(id, Answer::EndOfList).unwrap();
    assert_eq!(end.read(), [END_OF_LIST.to_vec(), reply(Code::Success)].concat());
}

/// An owner that polls seldom loses some refusals from its log, and no request and no withdrawal.
#[test]
fn nothing_but_refusals_is_lost_by_polling_seldom() {
    let mut end = Answering::settled();
    let (id, _) = end.asked(&frame(&off("vm1"), 1));
    for seqno in 2..5 {
        assert_eq!(end.listener.receive(&frame(&off("vm2"), seqno), end.now), 74);
    }
    end.listener.closed(end.now);
    end.listener.opened(&ENTROPY, end.now);
    end.listener.wake(end.now.plus(Millis(60_000)));
    let events = end.polled();
    assert_eq!(events[0], Event::Withdrawn(id));
    assert_eq!(refusals(&events), [Refusal::Superseded; 3]);
}
