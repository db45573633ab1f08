//! Rules 2, 3 and 5 against somebody on the channel: with no key, with another's, with a recording of all that was ever
//! said, or with a hand on the bytes while they pass.

use crate::by_hand::{
    GUEST, Guest, accept, answering, answering_both, framed, keys, nothing_asked, payloads, restarted,
};
use crate::common::{Answering, ENTROPY, asks, done, frame, off, refusals, status};
use crate::pair::Pair;
use fencewire_core::native::keys::Keys;
use fencewire_core::native::message::{HELLO, REPLY, REQUEST, Said, WELCOME, What, Whom};
use fencewire_core::{
    Accept, Answer, Ask, Endpoint, Event, Listener, Millis, NativeAccept, Power, Refusal, Reply, Uuid,
};
use proptest::prelude::*;

fn other_guest() -> Keys {
    Keys::derive(b"master", Uuid::from_bytes([0xb; 16]), 1)
}

/// All that went to the host and back in a fence that went well.
fn recording() -> (Vec<u8>, Vec<u8>) {
    let mut pair = Pair::new(&off("vm1"));
    let (mut there, mut back) = pair.run();
    let (id, request) = pair.asked();
    pair.listener.answer(id, done(&request), pair.now).unwrap();
    let (more, last) = pair.run();
    assert_eq!(pair.replies, [Reply::Done]);
    there.extend(more);
    back.extend(last);
    (there, back)
}

fn whole_frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    payloads(bytes).iter().map(|payload| framed(payload)).collect()
}

#[test]
fn a_channel_without_a_key_asks_for_nothing_and_gets_no_answer() {
    let mut end = answering(keys(1));
    let mut guest = Guest::new(keys(1));
    let hello = guest.say_hello(1);
    let payload = payloads(&hello).remove(0);
    for tag in [[0; 16], [0xff; 16], [7; 16]] {
        let forged = framed(&[&payload[..payload.len() - 16], &tag].concat());
        nothing_asked(&end.give(&forged));
        for kind in 0..=255 {
            nothing_asked(&end.give(&framed(&[&[kind][..], &[1; 60], &tag].concat())));
        }
    }
    assert_eq!(end.read(), []);
}

/// Every frame of a sibling that has a key of the same host, and of the guest before it was enrolled again.
#[test]
fn what_another_key_says_is_not_heard_in_any_step() {
    for wrong in [other_guest(), keys(2), Keys::keyless(), Keys::derive(b"another master", GUEST, 1)] {
        // It has a session of its own elsewhere, and says its request here.
        let mut elsewhere = answering(wrong.clone());
        let mut guest = Guest::new(wrong);
        guest.greets(&mut elsewhere, 1);
        let request = guest.request(5, elsewhere.now.plus(Millis(9_000)), What::Off(Whom::Name("vm1"), None));
        let mut end = answering(keys(1));
        let hello = framed(&guest.hello.clone());
        for said in [&hello, &request] {
            let events = end.give(said);
            assert_eq!(events, [Event::Refused(Refusal::NotProved)]);
        }
        assert_eq!(end.read(), []);
    }
}

#[test]
fn a_recording_whole_and_in_part_asks_for_nothing() {
    let (there, _) = recording();
    for from in 0..there.len() {
        let mut end = answering(keys(1));
        nothing_asked(&end.give(&there[from..]));
        nothing_asked(&end.give(&there[..from]));
    }
}

#[test]
fn a_recording_frame_by_frame_in_any_order_asks_for_nothing() {
    let (there, back) = recording();
    let frames = whole_frames(&[there, back].concat());
    let mut end = answering(keys(1));
    for first in 0..frames.len() {
        for second in 0..frames.len() {
            nothing_asked(&end.give(&[&frames[first][..], &frames[second]].concat()));
            end.drained();
        }
    }
}

#[test]
fn a_recording_in_another_session_asks_for_nothing() {
    let (there, _) = recording();
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    nothing_asked(&end.give(&there));
    end.drained();
    // And the session goes on.
    let frame = guest.request(9, end.now.plus(Millis(9_000)), What::Monitor);
    end.asked(&frame);
}

/// The keyless keys are everybody's: what one guest said is good on no other guest's channel all the same.
#[test]
fn a_recording_on_another_channel_asks_for_nothing() {
    for keys in [other_guest(), Keys::keyless()] {
        let mut first = answering(keys.clone());
        let mut guest = Guest::new(keys.clone());
        let hello = guest.say_hello(1);
        first.give(&hello);
        guest.welcomed(&first.read()).unwrap();
        let request = guest.request(5, first.now.plus(Millis(9_000)), What::Off(Whom::Name("vm1"), None));
        first.asked(&request);
        let mut other = Answering { listener: Listener::new(accept(keys, false)), now: first.now };
        other.listener.opened(&fencewire_core::Entropy([0x77; 64]), other.now);
        nothing_asked(&other.give(&[hello, request].concat()));
    }
}

#[test]
fn a_recording_after_a_restart_of_either_end_asks_for_nothing() {
    let mut end = answering(keys(1));
    let mut guest = Guest::new(keys(1));
    let hello = guest.say_hello(1);
    end.give(&hello);
    guest.welcomed(&end.read()).unwrap();
    let request = guest.request(5, end.now.plus(Millis(20_000)), What::Off(Whom::Name("vm1"), None));
    end.asked(&request);
    let all = [hello, request].concat();
    // The bridge is killed.
    restarted(&mut end, keys(1), 9);
    nothing_asked(&end.give(&all));
    // The guest is reset, and the channel is opened anew, with the bytes from before in it.
    end.listener.guest_was_reset(end.now);
    nothing_asked(&end.give(&all));
    end.listener.closed(end.now);
    end.listener.opened(&ENTROPY, end.now);
    nothing_asked(&end.polled());
    let taken = end.listener.receive_old(&all, end.now);
    nothing_asked(&end.polled());
    assert!(taken <= all.len());
}

#[test]
fn its_own_frames_sent_back_to_a_listener_ask_for_nothing() {
    let (_, back) = recording();
    let mut end = answering(keys(1));
    let guest = Guest::established(&mut end);
    let mut mine = Guest::new(keys(1));
    mine.greets(&mut end, 3);
    for payload in payloads(&back) {
        nothing_asked(&end.give(&framed(&payload)));
        for kind in [HELLO, WELCOME, REQUEST, REPLY] {
            let mut turned = payload.clone();
            turned[0] = kind;
            nothing_asked(&end.give(&framed(&turned)));
        }
    }
    assert_eq!(end.drained().0, [], "nor is there an answer");
    drop(guest);
}

/// The tag that a session's reply has is never one that a request would need.
#[test]
fn a_reply_of_this_very_session_is_no_request_of_it() {
    let mut end = answering(keys(1));
    let mut guest = Guest::new(keys(1));
    guest.greets(&mut end, 1);
    let frame = guest.request(5, end.now.plus(Millis(9_000)), What::Status(Whom::Name("vm1")));
    let (id, _) = end.asked(&frame);
    end.answer(id, Answer::Power(Power::On)).unwrap();
    for mut payload in payloads(&end.read()) {
        payload[0] = REQUEST;
        payload[5] = 9; // its counter
        nothing_asked(&end.give(&framed(&payload)));
    }
}

#[test]
fn a_flood_of_forged_hellos_with_chosen_nonces_gets_no_answer_at_all() {
    let mut end = answering(keys(1));
    let mut forger = Guest::new(other_guest());
    for nonce in 0..=255 {
        let mut payload = payloads(&forger.say_hello(nonce)).remove(0);
        // In the name of the guest whose channel it is.
        payload[4..20].copy_from_slice(GUEST.as_bytes());
        assert_eq!(refusals(&end.give(&framed(&payload))), [Refusal::NotProved]);
    }
    assert_eq!(end.read(), []);
}

/// Rule 3: a guest that is moved to another host in the middle of a request does not ask there again. That host knows
/// nothing of what the first has done.
#[test]
fn another_host_is_not_asked_to_do_it_again() {
    let mut pair = Pair::new(&off("vm1"));
    pair.asked();
    let native = Some(NativeAccept { keys: keys(1), instance: 8 });
    pair.listener = Listener::new(Accept { native, ..accept(keys(1), false) });
    pair.now = pair.now.plus(Millis(3_000));
    pair.listener.opened(&ENTROPY, pair.now);
    pair.client.wake(pair.now);
    let events = pair.events.len();
    pair.run();
    assert_eq!(pair.replies, [Reply::Closed]);
    assert_eq!(pair.events.len(), events, "nothing is asked there");
}

/// Hellos that were recorded are answered. Nothing that was said before follows from the answers.
#[test]
fn a_flood_of_recorded_hellos_disturbs_no_session_and_fills_no_memory() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let frame = guest.request(5, end.now.plus(Millis(20_000)), What::Off(Whom::Name("vm1"), None));
    let (id, request) = end.asked(&frame);
    let mut other = Guest::new(keys(1));
    for nonce in 0..=255 {
        nothing_asked(&end.give(&other.say_hello(nonce)));
    }
    let (bytes, _) = end.drained();
    assert!(bytes.len() < 500, "{}", bytes.len());
    end.answer(id, done(&request)).unwrap();
    let said = guest.replies(&end.read());
    assert!(matches!(said.as_slice(), [reply] if matches!(reply.said, Said::Done(_))), "{said:?}");
}

#[test]
fn half_open_handshakes_without_end_leave_the_session_and_the_newest_of_them() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let mut other = Guest::new(keys(1));
    for nonce in 0..200 {
        other.greets(&mut end, nonce);
        assert_eq!(end.later(100), []);
        let frame = guest.request(u64::from(nonce) + 10, end.now.plus(Millis(9_000)), What::Monitor);
        let (id, _) = end.asked(&frame);
        end.answer(id, Answer::Alive).unwrap();
        end.read();
    }
    let frame = other.request(900, end.now.plus(Millis(9_000)), What::Monitor);
    end.asked(&frame);
    // Now that one is established; the other is gone.
    let old = guest.request(901, end.now.plus(Millis(9_000)), What::Monitor);
    nothing_asked(&end.give(&old));
}

/// Greeted; its request begins to come so long after the welcome went, and is whole so long after that.
fn asked_after(begins: u64, takes: u64) -> bool {
    let mut end = answering(keys(1));
    let mut guest = Guest::new(keys(1));
    guest.greets(&mut end, 1);
    end.later(begins);
    let frame = guest.request(5, end.now.plus(Millis(90_000)), What::Monitor);
    let (first, rest) = frame.split_at(1);
    nothing_asked(&end.give(first));
    nothing_asked(&end.later(takes));
    !asks(&end.give(rest)).is_empty()
}

#[test]
fn a_pending_session_is_good_for_a_second_and_not_for_more() {
    for (ms, good) in [(0, true), (999, true), (1_000, false), (60_000, false)] {
        assert_eq!(asked_after(ms, 0), good, "after {ms} ms");
    }
}

/// A slow line: what has begun in time may take its time. What dribbles is not waited for without end.
#[test]
fn a_request_that_has_begun_in_time_may_end_two_seconds_later() {
    for (begins, takes, good) in
        [(0, 1_999, true), (999, 1_999, true), (999, 2_000, false), (0, 2_000, false), (1_000, 1, false)]
    {
        assert_eq!(asked_after(begins, takes), good, "after {begins} ms, within {takes} ms");
    }
}

/// Whoever holds a frame open holds nothing else open: it is all over three seconds after the welcome went.
#[test]
fn a_frame_without_end_keeps_no_session_pending() {
    let mut end = answering(keys(1));
    let mut guest = Guest::new(keys(1));
    guest.greets(&mut end, 1);
    assert_eq!(end.later(999), []);
    nothing_asked(&end.give(&[0]));
    for _ in 0..30 {
        assert_eq!(end.later(100), []);
        nothing_asked(&end.give(&[200]));
    }
    assert_eq!(end.listener.wake_at(), None, "nothing is waited for any more");
    let frame = guest.request(5, end.now.plus(Millis(9_000)), What::Monitor);
    nothing_asked(&end.give(&frame));
}

/// The guest's second does not begin before it can have heard anything. A welcome that nobody reads is dropped with its
/// session.
#[test]
fn the_second_begins_when_the_whole_welcome_has_gone() {
    for (waits, good) in [(4_999, true), (5_000, false)] {
        let mut end = answering(keys(1));
        let mut guest = Guest::new(keys(1));
        let hello = guest.say_hello(1);
        nothing_asked(&end.give(&hello));
        let welcome = end.listener.transmit().to_vec();
        end.listener.sent(welcome.len() - 1, end.now);
        let events = end.later(waits);
        assert_eq!(refusals(&events).contains(&Refusal::ReplyNotRead), !good);
        // The same hello again does not fill the line with what waits already.
        nothing_asked(&end.give(&hello));
        let rest = end.read();
        assert_eq!(rest.len() == 1, good);
        guest.welcomed(&welcome).expect("a welcome");
        end.later(999);
        let frame = guest.request(5, end.now.plus(Millis(9_000)), What::Monitor);
        assert_eq!(!asks(&end.give(&frame)).is_empty(), good, "after {waits} ms");
    }
}

/// A recorded hello said again and again gets the same welcome, and no more time by that.
#[test]
fn a_repeated_hello_gives_a_pending_session_no_more_time() {
    let mut end = answering(keys(1));
    let mut guest = Guest::new(keys(1));
    let hello = guest.say_hello(1);
    end.give(&hello);
    let first = guest.welcomed(&end.read()).expect("a welcome");
    end.later(600);
    end.give(&hello);
    assert_eq!(guest.welcomed(&end.read()), Some(first), "the same, with its old stamp");
    let request = guest.request(5, end.now.plus(Millis(9_000)), What::Monitor);
    end.later(400);
    end.give(&hello);
    let second = end.read();
    nothing_asked(&end.give(&request));
    assert_ne!(guest.welcomed(&second), Some(first), "after a second it is another");
    let request = guest.request(6, end.now.plus(Millis(9_000)), What::Monitor);
    assert_eq!(asks(&end.give(&request)), [Ask::Monitor]);
}

/// Nobody reads, and hellos come: the welcomes that have room go, and the last of those is the one that counts.
#[test]
fn a_hello_whose_welcome_cannot_be_said_takes_nobodys_place() {
    let mut end = answering(keys(1));
    let mut guests: Vec<Guest> = (0..20).map(|_| Guest::new(keys(1))).collect();
    for (nonce, guest) in (1..).zip(&mut guests) {
        nothing_asked(&end.give(&guest.say_hello(nonce)));
    }
    let frames = whole_frames(&end.read());
    assert!(!frames.is_empty() && frames.len() < guests.len(), "{}", frames.len());
    end.later(999);
    for (at, frame) in frames.iter().enumerate() {
        guests[at].welcomed(frame).expect("its welcome");
        let request = guests[at].request(at as u64 + 5, end.now.plus(Millis(9_000)), What::Monitor);
        assert_eq!(!asks(&end.give(&request)).is_empty(), at + 1 == frames.len(), "guest {at}");
    }
}

#[test]
fn a_changed_version_range_is_not_believed_by_either_end() {
    let mut guest = Guest::new(keys(1));
    let payload = payloads(&guest.say_hello(1)).remove(0);
    for (at, version) in [(1, 0), (1, 2), (2, 0), (2, 2), (2, 255)] {
        let mut end = answering(keys(1));
        let mut changed = payload.clone();
        changed[at] = version;
        assert_eq!(end.give(&framed(&changed)), [Event::Refused(Refusal::NotProved)]);
        assert_eq!(end.read(), []);
    }
}

#[test]
fn a_guest_with_no_version_in_common_is_told_nothing_and_the_log_all() {
    let mut end = answering(keys(1));
    let mut guest = Guest::new(keys(1));
    for (min, max) in [(2, 9), (0, 0), (9, 2)] {
        let hello = guest.say_hello_of(min, max, 1);
        assert_eq!(end.give(&hello), [Event::Refused(Refusal::Version { min, max })]);
        assert_eq!(end.read(), []);
    }
    // A later one that still speaks ours is served with ours.
    let hello = guest.say_hello_of(0, 200, 2);
    assert_eq!(end.give(&hello), []);
    assert_eq!(guest.welcomed(&end.read()).unwrap().version, 1);
}

#[test]
fn fence_virts_wire_is_not_answered_to_an_enrolled_guest() {
    let mut end = answering(keys(1));
    for ask in [off("vm1"), status("vm1"), Ask::Monitor, Ask::List] {
        assert_eq!(end.give(&frame(&ask, 7)), [Event::Refused(Refusal::OtherWire)], "for the log");
    }
    assert_eq!(end.later(10_000), []);
    assert_eq!(end.read(), []);
}

#[test]
fn keyed_and_keyless_do_not_understand_one_another() {
    for (asks, answers) in [(Keys::keyless(), keys(1)), (keys(1), Keys::keyless())] {
        let mut end = answering(answers);
        let mut guest = Guest::new(asks);
        assert_eq!(end.give(&guest.say_hello(1)), [Event::Refused(Refusal::NotProved)]);
        assert_eq!(end.read(), []);
    }
    // A hello that claims to be keyless, with the guest's key, and the other way round.
    for (claims, has) in [(Keys::keyless(), keys(1)), (keys(1), Keys::keyless())] {
        for answers in [keys(1), Keys::keyless()] {
            let mut end = answering(answers);
            let hello = payloads(&Guest::new(claims.clone()).say_hello(1)).remove(0);
            let body = &hello[..hello.len() - 16];
            nothing_asked(&end.give(&framed(&[body, &has.hello_tag(body)].concat())));
            assert_eq!(end.read(), []);
        }
    }
}

/// The right key, and in the hello another guest, or another generation of this one: either is enough.
#[test]
fn a_hello_that_names_somebody_else_is_not_answered() {
    let mut end = answering(keys(1));
    let hello = payloads(&Guest::new(keys(1)).say_hello(1)).remove(0);
    // Its generation stands before its guest.
    for at in [3, 4, 19] {
        let mut body = hello[..hello.len() - 16].to_vec();
        body[at] ^= 2;
        let tag = keys(1).hello_tag(&body);
        assert_eq!(end.give(&framed(&[&body[..], &tag].concat())), [Event::Refused(Refusal::NotProved)], "byte {at}");
        assert_eq!(end.read(), []);
    }
}

#[test]
fn a_frame_with_any_bit_turned_is_never_acted_on() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let deadline = end.now.plus(Millis(20_000));
    let request = guest.request(5, deadline, What::Off(Whom::Name("nfs-server2"), None));
    let hello = Guest::new(keys(1)).say_hello(9);
    for frame in [&hello, &request] {
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut damaged = frame.clone();
                damaged[at] ^= 1 << bit;
                nothing_asked(&end.give(&damaged));
                assert_eq!(end.read(), [], "byte {at}, bit {bit}");
                // The channel may lose the zero that ends it: another one comes.
                nothing_asked(&end.give(&[0]));
            }
        }
    }
    // None of it counted: the request itself still does.
    end.asked(&request);
}

#[test]
fn a_frame_that_is_cut_anywhere_is_never_acted_on_and_the_next_is_understood() {
    let mut end = answering(keys(1));
    let mut guest = Guest::established(&mut end);
    let mut id = 100;
    for cut in 0..50 {
        id += 2;
        let deadline = end.now.plus(Millis(20_000));
        let first = guest.request(id, deadline, What::Off(Whom::Name("vm1"), None));
        // Without its last zero alone it is whole: the next one's first ends it.
        nothing_asked(&end.give(&first[..cut.min(first.len() - 2)]));
        let second = guest.request(id + 1, deadline, What::Monitor);
        assert_eq!(asks(&end.give(&second)), [Ask::Monitor], "cut at {cut}");
        end.drained();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// A channel that has heard all and may say anything: pieces of the recording, damaged, between any bytes.
    #[test]
    fn no_mixture_of_old_bytes_asks_for_anything(
        pieces in prop::collection::vec((0..400_usize, 0..400_usize, any::<u8>(), any::<bool>()), 1..20),
        classic in any::<bool>(),
    ) {
        let (there, back) = recording();
        let all = [there, back].concat();
        let mut end = answering_both(keys(1), classic);
        for (from, length, change, damaged) in pieces {
            let from = from % all.len();
            let mut piece = all[from..all.len().min(from + length)].to_vec();
            if damaged && !piece.is_empty() {
                let at = usize::from(change) % piece.len();
                piece[at] = change;
            }
            nothing_asked(&end.give(&piece));
            end.drained();
        }
    }
}
