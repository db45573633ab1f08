//! What a hostile guest or a bad line puts on the classic wire, and that a good frame is understood before and after it.

mod common;

use common::{Answering, asks, frame, frame_with_domain, off, refusals, reply, status, target};
use fencewire_core::classic::serial::{self, Malformed, REQUEST_LEN};
use fencewire_core::classic::{Code, action_byte};
use fencewire_core::{Answer, Ask, BadName, Event, PowerAction, Refusal};
use proptest::prelude::*;

/// A good frame comes next: it is the only request, and it gets its reply.
fn a_good_frame_is_understood(end: &mut Answering, after: &str) {
    let events = end.give(&frame(&status("good"), 0x77_7777));
    assert_eq!(asks(&events), [status("good")], "after {after}");
    let Some(Event::Asked(id, _)) = events.last() else { panic!("not handed out after {after}: {events:?}") };
    end.answer(*id, Answer::Denied).unwrap();
    assert_eq!(end.read(), reply(Code::Denied), "after {after}");
}

/// What the listener makes of such a name, and the reply that its sender gets at once.
fn name(bytes: &[u8]) -> (Vec<Ask>, Vec<Refusal>, Vec<u8>) {
    let mut end = Answering::settled();
    let events = end.give(&frame_with_domain(bytes));
    let read = end.read();
    end.later(20_000);
    a_good_frame_is_understood(&mut Answering::settled(), "a name");
    (asks(&events), refusals(&events), read)
}

/// Rule 2: a name that no guest can have is answered with "failed", and nothing is done.
#[test]
fn bad_names() {
    let bad: [(&[u8], BadName); 9] = [
        (b"", BadName::Empty),
        (&[b'x'; 64], BadName::TooLong),
        (b"vm1\0vm2", BadName::AfterNul),
        (b"\0vm1", BadName::AfterNul),
        (b"vm1\nvm2", BadName::Control),
        (b"vm1\r\n", BadName::Control),
        (b"\x1b[2J", BadName::Control),
        (b"\xc3", BadName::NotUtf8),
        (b"\xff\xfe", BadName::NotUtf8),
    ];
    for (bytes, why) in bad {
        let refused = Refusal::Malformed(Malformed::Name(why));
        assert_eq!(name(bytes), (vec![], vec![refused], reply(Code::Failed)), "{bytes:?}");
    }
}

/// What is wrong with a frame stands in the owner's log in words.
#[test]
fn what_is_malformed_is_said_in_words() {
    let words = [
        (Malformed::Action(9), "9 is no action"),
        (Malformed::Flags(2), "flags 0x02 has an undefined bit"),
        (Malformed::Name(BadName::Magic), "the guest's name has \"abba\" in it"),
        (Malformed::LastByte, "its last byte is not 0, and may be of a frame of the native wire behind it"),
    ];
    for (why, said) in words {
        assert_eq!(why.to_string(), said);
    }
}

/// What libvirt allows in a name, the wire carries.
#[test]
fn odd_names() {
    let longest = "x".repeat(63);
    for text in [&longest, "x", "two words", " vm1 ", "büro", "仮想", "vm1.example.org", "a-b_c/d", "abb", "bba"] {
        assert_eq!(name(text.as_bytes()), (vec![off(text)], vec![], vec![]), "{text}");
    }
}

/// A name with the magic in it looks like the beginning of another frame: nothing is done, and both ends say so.
#[test]
fn names_with_the_magic() {
    for text in ["abba", "xabba", "abbax", "xabbax", "abbabba"] {
        let (asks, refusals, read) = name(text.as_bytes());
        assert_eq!((asks, read), (vec![], vec![]), "{text}");
        assert!(matches!(refusals[..], [Refusal::Torn(_), ..]), "{text}: {refusals:?}");
        assert_eq!(serial::encode_request(&off(text), 1), Err(BadName::Magic));
    }
}

/// Every guest can be named by its UUID, whatever digits it has.
#[test]
fn a_uuid_with_the_magic_in_it_can_be_said() {
    for text in [
        "abba94f9-8a30-4e83-9165-fd8681ee13cf",
        "b33f94f9-8a30-4e83-9165-fd8681eeabba",
        "b33fabba-abba-4e83-abba-abbabba1abba",
    ] {
        let ask = Ask::Power(PowerAction::Off, target(text));
        let mut end = Answering::settled();
        assert_eq!(end.asked(&frame(&ask, 1)).1.ask(), &ask);
    }
}

/// 1 to 73 bytes and then silence: nothing is done, and the next frame is understood, at once or later.
#[test]
fn torn_frames_and_then_silence() {
    let bytes = frame(&off("vm1"), 1);
    for length in 1..REQUEST_LEN {
        for silence in [0, 300, 4_999, 5_000, 60_000] {
            let mut end = Answering::settled();
            assert_eq!(asks(&end.give(&bytes[..length])), []);
            assert_eq!(asks(&end.later(silence)), []);
            assert_eq!(end.read(), []);
            a_good_frame_is_understood(&mut end, &format!("{length} bytes and {silence} ms"));
        }
    }
}

/// The 5 s count from a frame's beginning, not from its last byte: dribbling does not lengthen them.
#[test]
fn a_frame_that_dribbles_is_torn() {
    let mut end = Answering::settled();
    let mut events = Vec::new();
    for byte in frame(&off("vm1"), 0x01_0203) {
        events.extend(end.give(&[byte]));
        events.extend(end.later(100));
    }
    assert_eq!(asks(&events), []);
    // The 54th byte came 5 s after the magic's last, and too late.
    assert_eq!(refusals(&events)[0], Refusal::Torn(53));
}

/// Noise that goes on is told every second all the same.
#[test]
fn noise_that_goes_on_is_told() {
    let mut end = Answering::settled();
    let mut told = Vec::new();
    for _ in 0..50 {
        told.extend(end.give(&[0xff]));
        told.extend(end.later(100));
    }
    assert_eq!(refusals(&told), [Refusal::Noise(10); 5]);
}

/// A frame split at every byte, and in three parts everywhere, is one frame.
#[test]
fn frames_split_everywhere() {
    let bytes = frame(&off("vm1"), 1);
    for first in 1..REQUEST_LEN {
        for second in first..REQUEST_LEN {
            let mut end = Answering::settled();
            let mut events = end.give(&bytes[..first]);
            events.extend(end.give(&bytes[first..second]));
            events.extend(end.later(100));
            events.extend(end.give(&bytes[second..]));
            assert_eq!(asks(&events), [off("vm1")], "{first} {second}");
            assert_eq!(refusals(&events), [], "{first} {second}");
        }
    }
}

/// A wrong magic before, inside and after a good frame.
#[test]
fn wrong_magics() {
    let good = frame(&off("vm1"), 0x01_0203);
    let wrong: [&[u8]; 8] = [b"\xde\xad\xbe\xef", b"abb", b"abbb", b"aabb", b"baab", b"ABBA", b"a", b"\0\0\0\0"];
    for magic in wrong {
        let mut end = Answering::settled();
        assert_eq!(asks(&end.give(&[magic, &good].concat())), [off("vm1")], "{magic:?} before");

        let mut end = Answering::settled();
        assert_eq!(asks(&end.give(&[&good, magic].concat())), [off("vm1")], "{magic:?} after");
        end.later(20_000);
        a_good_frame_is_understood(&mut Answering::settled(), "a wrong magic");

        // Theirs acts on this one.
        let mut end = Answering::settled();
        let mut bytes = good;
        bytes[..magic.len()].copy_from_slice(magic);
        if bytes != good {
            assert_eq!(asks(&end.give(&bytes)), [], "{magic:?} in its place");
            end.later(6_000);
            a_good_frame_is_understood(&mut end, "a wrong magic in place of the right one");
        }
    }
}

/// A byte belongs to one frame: the last of one that time has shown to be whole is not also the first of another, whose
/// own was lost.
#[test]
fn a_whole_frames_last_byte_begins_no_other() {
    let whole = frame(&off("vm1"), 0x01_0203);
    for shared in 1..4 {
        let mut first = whole;
        first[REQUEST_LEN - shared..].copy_from_slice(&b"abb"[..shared]);
        for early in 0..4 - shared {
            let mut end = Answering::settled();
            let (now, late) = whole[shared..].split_at(early);
            assert_eq!(asks(&end.give(&first)), []);
            assert_eq!(asks(&end.give(now)), []);
            let events = end.later(50);
            assert_eq!(deny_all(&mut end, events), [off("vm1")], "{shared} {early}");
            let events = end.give(late);
            assert_eq!(deny_all(&mut end, events), [], "{shared} {early}");
        }
    }
}

/// A frame that ends as a magic begins, and another directly behind it: the first byte that goes on otherwise shows that
/// both are whole. Where a whole magic comes about between them, the first is taken for a torn one.
#[test]
fn a_frame_behind_one_that_ends_like_a_magic() {
    let second = frame(&status("vm2"), 0x01_0203);
    let both = [off("vm1"), status("vm2")];
    for (tail, found) in [(&b"a"[..], &both[..]), (b"ab", &both), (b"abb", &both[1..])] {
        let mut first = frame(&off("vm1"), 0x01_0203);
        first[REQUEST_LEN - tail.len()..].copy_from_slice(tail);
        let mut end = Answering::settled();
        let events = end.give(&[first, second].concat());
        assert_eq!(deny_all(&mut end, events), found, "{tail:?}");
    }
}

/// A wrong magic inside a frame is part of a name, or makes the frame say nothing; the right one begins a frame.
#[test]
fn magics_inside() {
    let good = frame(&off("vm1"), 0x01_0203);
    for at in 6..REQUEST_LEN {
        let mut end = Answering::settled();
        let stream = [&good[..at], &frame(&status("vm2"), 3), &good[at..]].concat();
        assert_eq!(asks(&end.give(&stream)), [status("vm2")], "a frame inside at {at}");
    }
    for at in 6..67 {
        let mut end = Answering::settled();
        let mut bytes = good;
        bytes[at..at + 4].copy_from_slice(b"abba");
        assert_eq!(asks(&end.give(&bytes)), [], "a magic inside at {at}");
        a_good_frame_is_understood(&mut end, "a magic inside");
    }
}

/// 1 MB of noise and then a good frame.
#[test]
fn a_megabyte_of_noise() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let noise: Vec<u8> = (0..1 << 20)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    let mut end = Answering::settled();
    let mut told = Vec::new();
    for part in noise.chunks(4_096) {
        told.extend(end.give(part));
        told.extend(end.later(10));
    }
    assert_eq!(asks(&told), []);
    assert!(told.len() < 10, "a log that is no flood: {}", told.len());
    a_good_frame_is_understood(&mut end, "1 MB of noise");
}

/// The same of nothing but beginnings of magics.
#[test]
fn a_megabyte_of_almost_magics() {
    let mut end = Answering::settled();
    assert_eq!(asks(&end.give(&b"abb".repeat(1 << 18))), []);
    a_good_frame_is_understood(&mut end, "almost magics");
}

/// Two good frames in one write are two requests, each with its reply.
#[test]
fn two_frames_in_one_write() {
    let mut end = Answering::settled();
    let events = end.give(&[frame(&status("vm1"), 1), frame(&status("vm2"), 2)].concat());
    let (first, request) = common::asked(events);
    assert_eq!(request.ask(), &status("vm1"));
    end.answer(first, Answer::Denied).unwrap();
    let (bytes, events) = end.drained();
    assert_eq!(bytes, reply(Code::Denied));
    assert_eq!(common::asked(events).1.ask(), &status("vm2"));
}

/// Action bytes 0 to 255, with and without a name. A byte that stands for nothing does nothing.
#[test]
fn action_bytes() {
    for action in 0..=255 {
        for domain in [&b"vm1"[..], b""] {
            let mut bytes = frame_with_domain(domain);
            bytes[4] = action;
            let mut end = Answering::settled();
            let asks = asks(&end.give(&bytes));
            let known = matches!((action, domain), (1..=4, b"vm1") | (5..=6, _));
            assert_eq!(asks.len(), usize::from(known), "{action} {domain:?}");
            assert!(asks.iter().all(|ask| action_byte(ask) == action));
            assert_eq!(end.read().is_empty(), known, "{action} {domain:?}");
        }
    }
}

/// An undefined flag may change what a request means one day: nothing is done.
#[test]
fn flags() {
    for flags in 0..=255 {
        let mut bytes = frame(&off("vm1"), 1);
        bytes[5] = flags;
        let mut end = Answering::settled();
        assert_eq!(asks(&end.give(&bytes)).len(), usize::from(flags < 2), "{flags}");
    }
}

/// Rule 2: a frame that lost some of its bytes is never another frame, whatever fills it up. This holds where the
/// sequence number's lowest byte is not 0, else one byte of padding goes unmissed and the name may have lost one; and
/// zeros must not take the place of the whole rest, else the name is merely shorter.
#[test]
fn a_frame_with_a_gap_is_never_another_frame() {
    let ask = off("vm12345");
    let whole = frame(&ask, 0x01_0203);
    let fills: [&[u8]; 3] = [&[0; REQUEST_LEN], &[0xff; REQUEST_LEN], &frame(&status("other"), 0x04_0506)];
    for (from, to) in (0..REQUEST_LEN).flat_map(|from| (from + 1..=REQUEST_LEN).map(move |to| (from, to))) {
        let fills = if to <= 70 { &fills[..] } else { &fills[1..] };
        for fill in fills {
            let mut end = Answering::settled();
            let events = end.give(&[&whole[..from], &whole[to..], fill].concat());
            let good = [ask.clone(), status("other")];
            let asks = asks(&events);
            assert!(asks.iter().all(|ask| good.contains(ask)), "{from}..{to}: {asks:?}");
        }
    }
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let torn = (0..REQUEST_LEN).prop_map(|length| frame(&off("torn"), 0x01_0203)[..length].to_vec());
    prop_oneof![
        torn,
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(prop::sample::select(vec![b'a', b'b']), 0..20),
        prop::sample::select(vec![b"abba".to_vec(), b"abb".to_vec(), reply(Code::Success), vec![0; 130]]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// After any garbage the next whole frame is understood, at once.
    #[test]
    fn after_any_garbage_the_next_whole_frame_is_understood(
        garbage in prop::collection::vec((piece(), 0..400_u64), 0..6),
    ) {
        let mut end = Answering::settled();
        for (bytes, pause) in garbage {
            let mut events = end.give(&bytes);
            events.extend(end.later(pause));
            deny_all(&mut end, events);
        }
        let events = end.give(&frame(&status("good"), 0x77_7777));
        let asks = deny_all(&mut end, events);
        prop_assert_eq!(asks.last(), Some(&status("good")));
    }
}

/// The peer reads, and what was asked is denied, one after the other. Says what that was.
fn deny_all(end: &mut Answering, mut events: Vec<Event>) -> Vec<Ask> {
    let mut denied = Vec::new();
    loop {
        events.extend(end.drained().1);
        let Some(Event::Asked(id, request)) = events.iter().find(|event| matches!(event, Event::Asked(..))) else {
            return denied;
        };
        denied.push(request.ask().clone());
        end.answer(*id, Answer::Denied).unwrap();
        events.clear();
    }
}
