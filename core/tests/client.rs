//! The client's promises, in virtual time: which bytes are a reply to its request, when it asks again, how it ends.

mod common;

use common::{Asking, ENTROPY, entry_bytes, frame, off, reply, status};
use fencewire_core::classic::serial::{END_OF_LIST, ENTRY_LEN};
use fencewire_core::classic::{Code, REMEMBERED_MS};
use fencewire_core::{Ask, BadName, Client, Endpoint, Millis, Power, PowerAction, Reply, Speak, Unspeakable};

const SEQNO: u32 = 0x01_0203;

fn power(action: PowerAction) -> Ask {
    Ask::Power(action, common::target("vm1"))
}

/// When whole copies of the request go out, counted from the connection, with a port that takes them at once.
fn copies(end: &mut Asking, ms: u64) -> Vec<u64> {
    let start = end.now;
    let mut times = Vec::new();
    for _ in 0..=ms {
        end.client.wake(end.now);
        let written = end.written();
        assert!(written.is_empty() || written.len() == 74, "whole copies");
        if !written.is_empty() {
            times.push(end.now.since(start).0);
        }
        end.now = end.now.plus(Millis(1));
    }
    times
}

fn names(replies: &[Reply]) -> Vec<String> {
    let name = |reply: &Reply| match reply {
        Reply::Entry(entry) => String::from_utf8_lossy(entry.name()).into_owned(),
        other => format!("{other:?}"),
    };
    replies.iter().map(name).collect()
}

// Which bytes are a reply.

/// Each code means what the wire says, and no more: "failed" to a status is not "off".
#[test]
fn every_code_has_its_meaning() {
    let meanings = [
        (power(PowerAction::Off), Code::Success, Reply::Done),
        (power(PowerAction::Off), Code::Failed, Reply::Failed),
        (power(PowerAction::Off), Code::Denied, Reply::Denied),
        (power(PowerAction::Reboot), Code::Success, Reply::Done),
        (power(PowerAction::On), Code::Success, Reply::Done),
        (Ask::Monitor, Code::Success, Reply::Done),
        (Ask::Monitor, Code::Failed, Reply::Failed),
        (status("vm1"), Code::Success, Reply::Power(Power::On)),
        (status("vm1"), Code::Off, Reply::Power(Power::Off)),
        (status("vm1"), Code::Failed, Reply::Power(Power::Unknown)),
        (status("vm1"), Code::Denied, Reply::Denied),
        (Ask::List, Code::Failed, Reply::Failed),
        (Ask::List, Code::Denied, Reply::Denied),
    ];
    for (ask, code, meaning) in meanings {
        let mut end = Asking::asked(&ask);
        assert_eq!(end.give(&reply(code)), [meaning], "{ask:?} {code:?}");
        assert!(end.client.is_over());
        assert_eq!(end.client.wake_at(), None);
        assert_eq!(end.client.transmit(), []);
    }
}

/// Rule 1: a code that cannot answer this request is from another conversation; the right one still counts.
#[test]
fn codes_for_something_else_are_passed_over() {
    let strangers = [
        (off("vm1"), Code::Off),
        (off("vm1"), Code::HostList),
        (Ask::Monitor, Code::HostList),
        (status("vm1"), Code::HostList),
        (Ask::List, Code::Success),
        (Ask::List, Code::Off),
    ];
    for (ask, code) in strangers {
        let mut end = Asking::asked(&ask);
        assert_eq!(end.give(&reply(code)), [], "{ask:?} {code:?}");
        assert_eq!(end.give(&reply(Code::Denied)), [Reply::Denied]);
    }
}

/// Rule 1: bytes 4 to 252, and 254 and 255, are no codes at all.
#[test]
fn bytes_that_are_no_code_are_passed_over() {
    for byte in (4..=252).chain(254..=255) {
        let mut end = Asking::asked(&off("vm1"));
        assert_eq!(end.give(&[b"abba", &[byte][..]].concat()), [], "{byte}");
        assert_eq!(end.give(&reply(Code::Success)), [Reply::Done], "after {byte}");
    }
}

/// Rule 1: what was in the channel before the request is a reply to another one. All but the last byte of the request
/// is not the request.
#[test]
fn nothing_counts_before_the_whole_request_was_sent() {
    let mut end = Asking::within(30_000, &off("vm1"));
    assert_eq!(end.give(&reply(Code::Success)), []);
    end.client.sent(73, end.now);
    assert_eq!(end.give(&reply(Code::Success)), []);
    assert_eq!(end.give(b"abba"), []);
    end.client.sent(1, end.now);
    assert_eq!(end.give(&[0]), [], "a reply that began before");
    assert_eq!(end.give(&reply(Code::Failed)), [Reply::Failed]);
}

/// The real client's scanner misses a reply after an `a`; this one finds it after anything.
#[test]
fn a_reply_is_found_after_anything() {
    for before in [&b"a"[..], b"ab", b"abb", b"abba", b"abbabb", b"abbabba", b"login: ", &[0; 130], &[0xff; 1000]] {
        let bytes = [before, &reply(Code::Failed)].concat();
        let mut end = Asking::asked(&off("vm1"));
        assert_eq!(end.give(&bytes), [Reply::Failed], "after {before:?}");

        let mut end = Asking::asked(&off("vm1"));
        let by_bytes: Vec<Reply> = bytes.iter().flat_map(|&byte| end.give(&[byte])).collect();
        assert_eq!(by_bytes, [Reply::Failed], "byte by byte after {before:?}");
    }
}

/// "abbabba" and a code: the magic's last byte is the next one's first.
#[test]
fn magics_may_overlap() {
    let mut end = Asking::asked(&off("vm1"));
    assert_eq!(end.give(b"abbabba\0"), [Reply::Done]);
    let mut end = Asking::asked(&off("vm1"));
    assert_eq!(end.give(b"abbabbabbabba\x03"), [Reply::Denied]);
}

/// The first reply ends it: what follows is for nobody.
#[test]
fn only_the_first_reply_counts() {
    let mut end = Asking::asked(&off("vm1"));
    let bytes = [reply(Code::Failed), reply(Code::Success)].concat();
    assert_eq!(end.give(&bytes), [Reply::Failed]);
    assert_eq!(end.give(&bytes), []);
    end.client.closed(end.now);
    end.client.opened(&ENTROPY, end.now);
    end.client.wake(end.now.plus(Millis(60_000)));
    assert_eq!((end.polled(), end.client.transmit()), (vec![], &[][..]));
}

// When it asks again.

/// A bridge that has just connected discards what comes in its first 200 ms: the second copy comes after that.
#[test]
fn a_request_is_repeated_after_300_ms_and_then_every_second() {
    let mut end = Asking::within(30_000, &off("vm1"));
    assert_eq!(copies(&mut end, 4_000), [0, 300, 1_300, 2_300, 3_300]);
}

/// The time to the first repetition counts from when the request had gone: two copies back to back get two replies, of
/// which the second lies to the next asker.
#[test]
fn a_port_that_takes_nothing_for_long_gets_one_copy_then() {
    let mut end = Asking::within(30_000, &off("vm1"));
    assert_eq!(end.later(2_000), []);
    assert_eq!(copies(&mut end, 1_000), [0, 300]);
}

/// A repetition that the port is slow to take is not begun anew.
#[test]
fn a_repetition_under_way_is_finished_first() {
    let mut end = Asking::asked(&off("vm1"));
    end.later(300);
    end.client.sent(70, end.now);
    assert_eq!(end.later(5_000), []);
    assert_eq!(end.written(), frame(&off("vm1"), SEQNO)[70..]);
    assert_eq!(end.written(), []);
}

/// All copies are the same frame: that is how the other end knows them.
#[test]
fn a_repetition_is_the_same_frame() {
    let mut end = Asking::asked(&off("vm1"));
    end.later(300);
    assert_eq!(end.written(), frame(&off("vm1"), SEQNO));
}

/// Rule 5 of liveness: a reply that lost its last byte is asked for again.
#[test]
fn a_reply_without_its_code_is_asked_for_again() {
    let mut end = Asking::asked(&off("vm1"));
    assert_eq!(end.give(b"abba"), []);
    assert_eq!(end.client.wake_at(), Some(end.now.plus(Millis(300))));
    assert_eq!(copies(&mut end, 400), [300]);
    assert_eq!(end.give(&reply(Code::Success)), [Reply::Done]);
}

/// Rule 3: a copy that comes when the other end has forgotten the first would be done again.
#[test]
fn a_request_is_not_repeated_for_longer_than_it_is_remembered() {
    let mut end = Asking::within(3 * REMEMBERED_MS, &off("vm1"));
    let times = copies(&mut end, 3 * REMEMBERED_MS - 1);
    let last = times.last().copied().unwrap();
    assert!((40_000..=REMEMBERED_MS - 10_000).contains(&last), "{last}");
    assert_eq!(end.later(1), [Reply::TimedOut]);

    let mut end = Asking::within(3 * REMEMBERED_MS, &off("vm1"));
    end.written();
    end.client.wake(end.now.plus(Millis(REMEMBERED_MS)));
    assert_eq!(end.written(), [], "nor by an owner who wakes it too late");
}

// How it ends.

/// No reply: it ends at its time, neither before nor after, connected or not.
#[test]
fn it_ends_at_its_deadline() {
    let mut end = Asking::asked(&off("vm1"));
    assert_eq!(end.later(29_999), []);
    assert_eq!(end.later(1), [Reply::TimedOut]);

    let mut end = Asking::within(500, &off("vm1"));
    assert_eq!(end.later(500), [Reply::TimedOut], "the port takes nothing");

    let speak = Speak::ClassicSerial { seqno: 1 };
    let mut never_connected = Client::new(speak, &off("vm1"), Millis(500)).unwrap();
    assert_eq!(never_connected.wake_at(), Some(Millis(500)));
    never_connected.wake(Millis(500));
    assert_eq!(never_connected.poll(), Some(Reply::TimedOut));
}

/// A late reply does not turn "timed out" into "done".
#[test]
fn a_reply_after_the_deadline_does_not_count() {
    let mut end = Asking::asked(&off("vm1"));
    assert_eq!(end.later(30_000), [Reply::TimedOut]);
    assert_eq!(end.give(&reply(Code::Success)), []);
}

/// A connection that goes away is told, once, and never as success.
#[test]
fn a_lost_connection_ends_it() {
    for torn in [0, 3, 4] {
        let mut end = Asking::asked(&off("vm1"));
        end.give(&reply(Code::Success)[..torn]);
        end.client.closed(end.now);
        assert_eq!(end.polled(), [Reply::Closed]);
        assert!(end.client.is_over());
        end.client.closed(end.now);
        assert_eq!(end.polled(), []);
    }
}

/// A reply that has come before the connection went counts.
#[test]
fn a_reply_before_the_connection_went_counts() {
    let mut end = Asking::asked(&off("vm1"));
    assert_eq!(end.client.receive(&reply(Code::Success), end.now), 5);
    end.client.closed(end.now);
    assert_eq!(end.polled(), [Reply::Done]);
}

/// A new connection begins with the whole request, and with no byte of an old reply.
#[test]
fn a_new_connection_begins_anew() {
    let mut end = Asking::asked(&off("vm1"));
    end.give(b"abba");
    end.client.opened(&ENTROPY, end.now);
    assert_eq!(end.give(&reply(Code::Success)), []);
    assert_eq!(end.written(), frame(&off("vm1"), SEQNO));
    assert_eq!(end.give(&[0]), []);
    assert_eq!(end.give(&reply(Code::Success)), [Reply::Done]);
}

/// Nor with the beginning of an old magic, or of an old list's entry.
#[test]
fn a_new_connection_has_no_half_of_anything() {
    let mut end = Asking::asked(&off("vm1"));
    end.give(b"abb");
    end.client.opened(&ENTROPY, end.now);
    end.written();
    assert_eq!(end.give(b"a\0"), []);

    let mut end = Asking::asked(&Ask::List);
    end.give(&list(&["old"])[..100]);
    end.client.opened(&ENTROPY, end.now);
    end.written();
    assert_eq!(names(&end.give(&list(&["new"]))), ["new"]);
}

/// A request that the wire cannot carry is refused before anything is sent.
#[test]
fn what_cannot_be_said_is_not_begun() {
    let speak = Speak::ClassicSerial { seqno: 1 };
    let said = Client::new(speak, &off("xabbax"), Millis(1));
    assert_eq!(said.err(), Some(Unspeakable::Name(BadName::Magic)));
}

// Lists.

fn list(names: &[&str]) -> Vec<u8> {
    let mut bytes = reply(Code::HostList);
    for name in names {
        bytes.extend(entry_bytes(name));
    }
    bytes.extend(END_OF_LIST);
    bytes
}

/// Every entry is handed out in its order, however the bytes come, and the list is whole only with its final reply.
#[test]
fn a_list_is_handed_out_entry_by_entry() {
    let bytes = [list(&["vm1", "vm2", "vm3"]), reply(Code::Success)].concat();
    for chunk in [1, 2, 5, 64, 129, 130, 131, 1_000] {
        let mut end = Asking::asked(&Ask::List);
        let replies: Vec<Reply> = bytes.chunks(chunk).flat_map(|part| end.give(part)).collect();
        assert_eq!(names(&replies), ["vm1", "vm2", "vm3", "EndOfList"], "by {chunk}");
    }
}

/// An owner that polls late gets them all the same: nothing is taken while an entry waits to be polled.
#[test]
fn an_entry_is_not_overwritten_by_the_next() {
    let mut end = Asking::asked(&Ask::List);
    let bytes = list(&["vm1", "vm2"]);
    let first = 5 + ENTRY_LEN;
    assert_eq!(end.client.receive(&bytes, end.now), first);
    assert_eq!(end.client.receive(&bytes[first..], end.now), 0);
    assert_eq!(names(&end.polled()), ["vm1"]);
    assert_eq!(names(&end.give(&bytes[first..])), ["vm2"]);
}

/// A list that the other end could not finish is no list.
#[test]
fn a_list_that_ends_with_a_failure_has_failed() {
    for code in [Code::Failed, Code::Denied, Code::Off, Code::HostList] {
        let mut end = Asking::asked(&Ask::List);
        let replies = end.give(&[list(&["vm1"]), reply(code)].concat());
        assert_eq!(names(&replies), ["vm1", "Failed"], "{code:?}");
    }
}

/// Rule 1: a byte between a list and its end is noise, whatever it would mean behind a magic.
#[test]
fn a_byte_behind_a_list_does_not_end_it() {
    for code in [Code::Success, Code::Failed, Code::Off] {
        let mut end = Asking::asked(&Ask::List);
        let replies = end.give(&[&list(&["vm1"])[..], &[code as u8]].concat());
        assert_eq!(names(&replies), ["vm1"], "{code:?}");
        assert_eq!(end.give(&reply(Code::Failed)), [Reply::Failed], "{code:?}");
    }
}

/// A list that breaks off is never a whole one, wherever it does; and it is not asked for again in its middle, where the
/// new one would be read as an entry.
#[test]
fn a_torn_list_is_never_whole() {
    let bytes = [list(&["vm1", "vm2"]), reply(Code::Success)].concat();
    for length in 5..bytes.len() {
        let mut end = Asking::asked(&Ask::List);
        let mut replies = end.give(&bytes[..length]);
        assert_eq!(copies(&mut end, 1_500), [], "{length}");
        replies.extend(end.later(30_000));
        assert_eq!(replies.last(), Some(&Reply::TimedOut), "{length}");
        assert!(!replies.contains(&Reply::EndOfList));
    }
}

/// After the list's end its final reply is found behind whatever comes before.
#[test]
fn the_final_reply_is_found_after_noise() {
    let mut end = Asking::asked(&Ask::List);
    let replies = end.give(&[list(&[]), b"abb\xffabba\x09abbabba\0".to_vec()].concat());
    assert_eq!(replies, [Reply::EndOfList]);
}

/// fence_virtd sends bytes 63, 127 and 129 of its entries as its stack had them.
#[test]
fn stray_bytes_of_fence_virtd_change_nothing() {
    let mut stray = entry_bytes("vm1");
    (stray[63], stray[127], stray[129]) = (0x61, 0xff, 0x7f);
    let bytes = [&reply(Code::HostList)[..], &stray, &END_OF_LIST, &reply(Code::Success)].concat();
    let mut end = Asking::asked(&Ask::List);
    let replies = end.give(&bytes);
    assert_eq!(names(&replies), ["vm1", "EndOfList"]);
    let Reply::Entry(entry) = replies[0] else { panic!() };
    assert_eq!((entry.uuid, entry.power), (Some(common::entry("vm1").uuid), Power::On));
}

/// A name of 63 bytes has no NUL after it that fence_virtd would have set.
#[test]
fn a_longest_name_ends_before_the_stray_byte() {
    let longest = "x".repeat(63);
    let mut stray = entry_bytes(&longest);
    stray[63] = b'y';
    let mut end = Asking::asked(&Ask::List);
    assert_eq!(names(&end.give(&[&reply(Code::HostList)[..], &stray].concat())), [longest]);
}

/// libvirt has more states than on and off: what is neither is unknown, never off.
#[test]
fn an_entrys_state_is_off_only_where_it_says_off() {
    for state in 0..=255 {
        let mut bytes = entry_bytes("vm1");
        bytes[128] = state;
        let mut end = Asking::asked(&Ask::List);
        end.give(&reply(Code::HostList));
        let Reply::Entry(entry) = end.give(&bytes)[0] else { panic!() };
        let expected = match state {
            1 => Power::On,
            5 => Power::Off,
            _ => Power::Unknown,
        };
        assert_eq!(entry.power, expected, "{state}");
    }
}
