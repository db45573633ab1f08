//! A channel on which both wires are answered: neither end's frames are taken for the other's, wherever one breaks into
//! the other.

use crate::by_hand::{Guest, answering_both, keys, nothing_asked};
use crate::common::{Answering, asks, done, entry, entry_bytes, frame, off, refusals, reply, status};
use fencewire_core::classic::serial::{END_OF_LIST, REQUEST_LEN};
use fencewire_core::classic::{Code, Malformed};
use fencewire_core::native::message::{Said, What, Whom};
use fencewire_core::{Answer, Ask, Endpoint, Event, Millis, Power, Refusal, Request, RequestId};

fn requests(events: Vec<Event>) -> Vec<(RequestId, Request)> {
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::Asked(id, request) => Some((id, request)),
            _ => None,
        })
        .collect()
}

fn both() -> (Answering, Guest) {
    let mut end = answering_both(keys(1), true);
    let guest = Guest::established(&mut end);
    (end, guest)
}

#[test]
fn each_wire_is_answered_in_its_own_words() {
    let (mut end, mut guest) = both();
    let (id, request) = end.asked(&frame(&status("vm1"), 7));
    assert!(!request.is_native());
    end.answer(id, Answer::Power(Power::Off)).unwrap();
    assert_eq!(end.read(), reply(Code::Off));
    let native = guest.request(5, end.now.plus(Millis(9_000)), What::Status(Whom::Name("vm1")));
    let (id, request) = end.asked(&native);
    assert!(request.is_native());
    end.answer(id, Answer::Power(Power::Off)).unwrap();
    let said: Vec<Said> = guest.replies(&end.read()).into_iter().map(|reply| reply.said).collect();
    assert!(matches!(said.as_slice(), [Said::Accepted, Said::Status(..)]));
}

/// Whichever is broken into: what is whole is understood, what is not is nothing.
#[test]
fn a_frame_of_ours_in_the_middle_of_one_of_fence_virts_at_every_byte() {
    let classic = frame(&off("vm1"), 0x01_0203);
    for at in 0..=classic.len() {
        let (mut end, mut guest) = both();
        let native = guest.request(5, end.now.plus(Millis(9_000)), What::Status(Whom::Name("vm2")));
        let events = end.give(&[&classic[..at], &native, &classic[at..]].concat());
        let handed = asks(&events);
        assert!(handed.contains(&status("vm2")), "at {at}: {events:?}");
        // A frame of ours begins with the zero that is the last byte of theirs.
        let whole = at == 0 || at >= classic.len() - 1;
        assert_eq!(handed.contains(&off("vm1")), whole, "at {at}");
        assert_eq!(handed.len(), 1 + usize::from(whole));
        if !whole {
            // And the next of fence-virt's is understood.
            end.drained();
            let next = end.give(&frame(&off("vm3"), 8));
            assert_eq!(asks(&next), [off("vm3")], "at {at}: {next:?}");
        }
    }
}

/// Where there is no other wire, who numbers otherwise is answered.
#[test]
fn a_frame_of_fence_virts_ends_in_zero_where_ours_may_follow() {
    for last in [0, 1, 255] {
        let mut frame = frame(&status("vm1"), 7);
        frame[REQUEST_LEN - 1] = last;
        assert_eq!(asks(&Answering::settled().give(&frame)), [status("vm1")], "{last}");
        let (mut end, _) = both();
        let events = end.give(&frame);
        if last == 0 {
            assert_eq!(asks(&events), [status("vm1")]);
        } else {
            assert_eq!(refusals(&events), [Refusal::Malformed(Malformed::LastByte)], "{last}: {events:?}");
            assert_eq!(end.read(), reply(Code::Failed));
        }
    }
}

#[test]
fn a_frame_of_fence_virts_in_the_middle_of_one_of_ours_at_every_byte() {
    let classic = frame(&off("vm1"), 0x01_0203);
    let (mut sample, mut guest) = both();
    let length = guest.request(5, sample.now.plus(Millis(9_000)), What::Status(Whom::Name("vm2"))).len();
    sample.polled();
    for at in 0..=length {
        let (mut end, mut guest) = both();
        let deadline = end.now.plus(Millis(9_000));
        let native = guest.request(5, deadline, What::Status(Whom::Name("vm2")));
        let handed = asks(&end.give(&[&native[..at], &classic, &native[at..]].concat()));
        assert!(handed.contains(&off("vm1")), "at {at}");
        // After its first zero alone it is whole: fence-virt's frame ends with one.
        let whole = at <= 1 || at == length;
        assert_eq!(handed.contains(&status("vm2")), whole, "at {at}");
        let next = guest.request(6, deadline, What::Monitor);
        assert_eq!(asks(&end.give(&next)), [Ask::Monitor], "at {at}");
    }
}

/// Split at every byte, with both wires' frames in turn: what comes of it is the same.
#[test]
fn bytes_may_come_in_any_two_pieces() {
    let (mut end, mut guest) = both();
    let deadline = end.now.plus(Millis(9_000));
    let make = |guest: &mut Guest| {
        let native = guest.request(5, deadline, What::Status(Whom::Name("abbaabba")));
        [&frame(&off("vm1"), 7)[..], &native, b"noise", &frame(&off("vm1"), 7)].concat()
    };
    let whole = asks(&end.give(&make(&mut guest)));
    for at in 0..200 {
        let (mut end, mut guest) = both();
        let bytes = make(&mut guest);
        let at = at.min(bytes.len());
        let mut events = end.give(&bytes[..at]);
        events.extend(end.give(&bytes[at..]));
        assert_eq!(asks(&events), whole, "at {at}");
    }
}

/// Every name of ours that has fence-virt's mark in it, and any tag: never a request of fence-virt's.
#[test]
fn a_frame_of_ours_with_the_other_wires_mark_in_it_is_one_of_ours_alone() {
    let (mut end, mut guest) = both();
    for number in 0..2_000_u64 {
        let name = ["abba", "xabba", "abba\u{e4}bba"][number as usize % 3];
        let frame = guest.request(100 + number, end.now.plus(Millis(9_000)), What::Status(Whom::Name(name)));
        let handed = requests(end.give(&frame));
        assert!(matches!(handed.as_slice(), [(_, request)] if request.is_native()));
        let (id, _) = handed[0];
        end.answer(id, Answer::Power(Power::On)).unwrap();
        end.drained();
    }
}

/// A frame of fence-virt's that was begun long ago ends when the next byte comes, and that byte is not lost with it.
#[test]
fn the_first_byte_after_a_torn_frame_is_not_lost() {
    let (mut end, _) = both();
    let classic = frame(&off("vm1"), 7);
    nothing_asked(&end.give(&classic[..40]));
    // Nobody wakes it in time: the bytes come first.
    end.now = end.now.plus(Millis(60_000));
    assert_eq!(asks(&end.give(&classic)), [off("vm1")]);
}

/// Its entries have no mark: what came between two of them would be read as one. From every byte of the list on, a guest
/// greets over our wire, and is welcomed when the list is whole.
#[test]
fn a_list_of_fence_virts_is_not_broken_into() {
    let names = ["vm1", "vm2", "vm3"];
    let mut list = reply(Code::HostList);
    list.extend(names.iter().flat_map(|name| entry_bytes(name)));
    list.extend(END_OF_LIST);
    list.extend(reply(Code::Success));
    for at in 0..=list.len() {
        let (mut end, _) = both();
        let (id, _) = end.asked(&frame(&Ask::List, 7));
        let mut left = names.iter();
        end.answer(id, Answer::Entry(entry(left.next().unwrap()))).unwrap();
        let mut guest = Guest::new(keys(1));
        let hello = guest.say_hello(9);
        let mut read = Vec::new();
        // It takes its time, byte by byte, and its owner gives the next entry when there is nothing left to send.
        for _ in 0..list.len() + 60 {
            if read.len() == at {
                nothing_asked(&end.give(&hello));
            }
            if let Some(&byte) = end.listener.transmit().first() {
                read.push(byte);
                end.listener.sent(1, end.now);
            } else if end.answer(id, left.next().map_or(Answer::EndOfList, |name| Answer::Entry(entry(name)))).is_err()
            {
                break;
            }
            end.polled();
            let events = end.later(20);
            assert!(!events.iter().any(|event| matches!(event, Event::Refused(_))), "at {at}: {events:?}");
        }
        let (theirs, ours) = read.split_at(list.len());
        assert!(theirs == list, "at {at}: {theirs:02x?}");
        guest.welcomed(ours).expect("a welcome behind it");
        let native = guest.request(5, end.now.plus(Millis(9_000)), What::Monitor);
        assert!(end.asked(&native).1.is_native());
    }
}

/// Nobody waits for the end of a list that has none: then the line is ours.
#[test]
fn a_list_of_fence_virts_that_does_not_go_on_does_not_hold_ours_up_for_ever() {
    let (mut end, mut guest) = both();
    let (id, _) = end.asked(&frame(&Ask::List, 7));
    end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
    assert_eq!(end.drained().1, [Event::EntryWanted(id)]);
    let native = guest.request(5, end.now.plus(Millis(60_000)), What::Status(Whom::Name("vm1")));
    let (native_id, _) = end.asked(&native);
    assert_eq!(end.listener.transmit(), [], "it waits for its turn");
    end.answer(native_id, Answer::Power(Power::On)).unwrap();
    assert_eq!(end.later(24_999), [], "and is not given up as what nobody reads");
    assert_eq!(end.listener.transmit(), []);
    assert_eq!(end.later(1), [Event::Withdrawn(id)]);
    let said: Vec<Said> = guest.replies(&end.read()).into_iter().map(|reply| reply.said).collect();
    assert!(matches!(said.as_slice(), [Said::Accepted, Said::Status(..)]), "{said:?}");
}

/// The other way round: a list's header waits for the end of a frame of ours.
#[test]
fn a_frame_of_ours_is_not_broken_into_by_a_list_of_fence_virts() {
    let (mut end, mut guest) = both();
    let (id, _) = end.asked(&frame(&Ask::List, 7));
    let native = guest.request(5, end.now.plus(Millis(60_000)), What::Monitor);
    let (native_id, _) = end.asked(&native);
    let mut read = end.listener.transmit()[..3].to_vec();
    end.listener.sent(3, end.now);
    end.answer(id, Answer::Entry(entry("vm1"))).unwrap();
    end.answer(native_id, Answer::Alive).unwrap();
    read.extend(end.drained().0);
    let theirs = [reply(Code::HostList), entry_bytes("vm1").to_vec()].concat();
    let ours = read.strip_suffix(theirs.as_slice()).expect("the list's beginning last");
    let said: Vec<Said> = guest.replies(ours).into_iter().map(|reply| reply.said).collect();
    assert_eq!(said, [Said::Accepted, Said::Alive]);
}

/// A reply of ours of which a part went out is dropped when nobody reads the rest; then the wires take turns as before.
#[test]
fn a_dropped_reply_of_ours_breaks_no_later_one_of_fence_virts() {
    let (mut end, mut guest) = both();
    let native = guest.request(5, end.now.plus(Millis(60_000)), What::Status(Whom::Name("vm1")));
    let (native_id, _) = end.asked(&native);
    end.listener.sent(3, end.now);
    end.later(5_000);
    while !end.listener.transmit().is_empty() {
        end.listener.sent(1, end.now);
        if end.listener.transmit().len() == 1 {
            break;
        }
    }
    end.later(5_000);
    end.drained();
    let (id, request) = end.asked(&frame(&off("vm1"), 7));
    end.answer(id, done(&request)).unwrap();
    end.listener.sent(2, end.now);
    end.answer(native_id, Answer::Power(Power::On)).unwrap();
    assert_eq!(end.listener.transmit(), &reply(Code::Success)[2..], "the rest of it goes first");
}
