//! What the asking end believes, and how it goes on when nothing comes: its host is played by hand.

use crate::by_hand::{Host, ID, asking, asking_within, framed, keys, payloads, written};
use crate::common::{Asking, off, status, target};
use fencewire_core::listener::DEADLINE_MAX;
use fencewire_core::native::message::{Done, REPLY, REQUEST, Reason, Result as Came, Runs, Said, WELCOME, Welcome};
use fencewire_core::{Ask, Client, Endpoint, Entropy, Failure, Incarnation, Millis, Power, PowerAction, Reply, Speak};

const STAMP: u64 = 5_000_000;

const DONE: Done =
    Done { result: Came::Off, before: Runs::On, now: Runs::Off, incarnation: None, seen_off: true, repeated: false };

/// It has asked in a session; nothing is accepted yet.
fn in_session(end: &mut Asking) -> (Host, Vec<u8>) {
    let mut host = Host::new();
    let welcome = host.welcome(&end.written(), STAMP);
    assert_eq!(end.give(&welcome), []);
    let request = end.written();
    assert_eq!(host.requests(&request).len(), 1);
    (host, request)
}

#[test]
fn done_is_believed_only_where_it_answers_what_was_asked_and_the_guest_was_seen_off() {
    let power = |action| Ask::Power(action, target("vm1"));
    let (off, reboot, on) = (power(PowerAction::Off), power(PowerAction::Reboot), power(PowerAction::On));
    for (ask, done, reply) in [
        (&off, DONE, Reply::Done),
        (&off, Done { seen_off: false, ..DONE }, Reply::Failed),
        (&off, Done { result: Came::On, ..DONE }, Reply::Failed),
        (&off, Done { result: Came::Rebooted, ..DONE }, Reply::Failed),
        (&off, Done { result: Came::Failed(Reason::Unconfirmed), ..DONE }, Reply::NotDone(Failure::Unconfirmed)),
        (&reboot, Done { result: Came::Rebooted, ..DONE }, Reply::Done),
        (&reboot, Done { result: Came::NotStarted, ..DONE }, Reply::Done),
        (&reboot, Done { result: Came::Rebooted, seen_off: false, ..DONE }, Reply::Failed),
        (&reboot, DONE, Reply::Failed),
        (&on, Done { result: Came::On, seen_off: false, ..DONE }, Reply::Done),
        (&on, DONE, Reply::Failed),
    ] {
        let mut end = asking(ask);
        let (mut host, _) = in_session(&mut end);
        assert_eq!(end.give(&host.reply(ID, Said::Done(done), &[])), [reply], "{ask:?} {done:?}");
    }
    for said in [Said::Status(Runs::Off, None), Said::Alive, Said::List(0, false)] {
        let mut end = asking(&off);
        let (mut host, _) = in_session(&mut end);
        assert_eq!(end.give(&host.reply(ID, said, &[])), [Reply::Failed], "{said:?}");
    }
}

#[test]
fn replies_of_other_ids_counters_and_sessions_are_not_heard() {
    let mut end = asking(&status("vm1"));
    let (mut host, _) = in_session(&mut end);
    let off = Said::Status(Runs::Off, None);
    assert_eq!(end.give(&host.reply(ID + 1, off, &[])), []);
    assert_eq!(end.give(&host.reply(ID - 1, off, &[])), []);
    for counter in [0, 1, 2] {
        assert_eq!(end.give(&host.reply_numbered(counter, ID, off, &[])), [], "{counter}");
    }
    let mut other = asking(&status("vm1"));
    let (mut elsewhere, _) = in_session(&mut other);
    let foreign = elsewhere.welcome(&[framed(&[1; 40])].concat(), STAMP);
    assert_eq!(end.give(&foreign), []);
    assert_eq!(end.give(&elsewhere.reply_numbered(9, ID, off, &[])), []);
    assert_eq!(end.give(&host.reply(ID, Said::Status(Runs::On, None), &[])), [Reply::Power(Power::On)]);
}

#[test]
fn its_own_frames_sent_back_are_no_welcome_and_no_reply() {
    let mut end = asking(&off("vm1"));
    let hello = end.written();
    for kind in [1, WELCOME, REQUEST, REPLY] {
        let mut payload = payloads(&hello).remove(0);
        payload[0] = kind;
        assert_eq!(end.give(&framed(&payload)), []);
    }
    assert_eq!(end.written(), [], "no session came of it");
    let mut end = asking(&off("vm1"));
    let (_, request) = in_session(&mut end);
    for kind in [1, WELCOME, REQUEST, REPLY] {
        let mut payload = payloads(&request).remove(0);
        payload[0] = kind;
        assert_eq!(end.give(&framed(&payload)), []);
    }
}

#[test]
fn a_welcome_or_a_reply_with_any_bit_turned_is_not_believed() {
    let mut end = asking(&off("vm1"));
    let mut host = Host::new();
    let welcome = host.welcome(&end.written(), STAMP);
    let turned = |frame: &[u8], end: &mut Asking| {
        for at in 0..frame.len() {
            for bit in 0..8 {
                let mut damaged = frame.to_vec();
                damaged[at] ^= 1 << bit;
                assert_eq!(end.give(&damaged), []);
                assert_eq!(end.give(&[0]), []);
                assert_eq!(end.written(), [], "byte {at}, bit {bit}");
            }
        }
    };
    turned(&welcome, &mut end);
    assert_eq!(end.give(&welcome), []);
    assert_eq!(host.requests(&end.written()).len(), 1);
    let done = host.reply(ID, Said::Done(DONE), &[]);
    turned(&done, &mut end);
    assert_eq!(end.give(&done), [Reply::Done]);
}

#[test]
fn a_welcome_of_a_version_that_it_does_not_speak_or_for_another_hello_is_not_taken() {
    let mut end = asking(&off("vm1"));
    let hello = end.written();
    let mut host = Host::new();
    for version in [0, 2, 255] {
        let welcome = Welcome { min: 0, max: 255, version, instance: 1, stamp: STAMP, nonce: [1; 16] };
        assert_eq!(end.give(&host.welcome_of(&hello, welcome)), []);
        assert_eq!(end.written(), []);
    }
    // What was said to a hello before this connection.
    let old = host.welcome(&hello, STAMP);
    end.client.opened(&Entropy([2; 64]), end.now);
    assert_ne!(end.written(), hello, "another nonce");
    assert_eq!(end.give(&old), []);
    assert_eq!(end.written(), []);
}

#[test]
fn a_hello_and_a_request_are_repeated_until_there_is_an_answer() {
    let mut end = asking(&off("vm1"));
    let hello = end.written();
    for wait in [300, 1_000, 1_000, 1_000] {
        assert_eq!(end.later(wait - 1), []);
        assert_eq!(end.written(), []);
        assert_eq!(end.later(1), []);
        assert_eq!(end.written(), hello);
    }
    let mut host = Host::new();
    let welcome = host.welcome(&hello, STAMP);
    end.give(&welcome);
    let first = end.written();
    end.later(300);
    let second = end.written();
    assert_ne!(first, second, "a frame of its own");
    assert_eq!(host.requests(&first), host.requests(&second));
    end.give(&host.reply(ID, Said::Accepted, &[]));
    end.later(2_900);
    assert_eq!(end.written(), [], "it waits");
}

/// The session was lost after the request had been accepted, and the first hello after that is lost too.
#[test]
fn a_second_handshake_is_repeated_like_the_first() {
    let mut end = asking(&off("vm1"));
    let (mut host, _) = in_session(&mut end);
    end.give(&host.reply(ID, Said::Accepted, &[]));
    end.later(3_000);
    let lost = end.written();
    assert_eq!(payloads(&lost).len(), 1);
    end.later(300);
    assert_eq!(end.written(), lost);
    end.later(1_000);
    let again = end.written();
    assert_eq!(again, lost);
    end.give(&host.welcome(&again, STAMP + 4_300));
    assert_eq!(host.requests(&end.written()), [(ID, STAMP + 30_000)]);
}

/// The channel stood still for longer than a session is waited for, and goes on: the old session is alive, and there is no
/// other. A handshake that is waited for no more would be one that nobody repeats.
#[test]
fn a_session_that_is_heard_again_is_taken_up_again() {
    let mut end = asking(&off("vm1"));
    let (mut host, _) = in_session(&mut end);
    end.give(&host.reply(ID, Said::Accepted, &[]));
    end.later(3_000);
    let hello = end.written();
    end.give(&host.reply(ID, Said::Working, &[]));
    // Then the host is gone: the asker notices again.
    end.later(3_000);
    let next = end.written();
    assert_eq!(payloads(&next).len(), 1);
    assert_ne!(hello, next);
    end.later(300);
    assert_eq!(end.written(), next);
}

/// The last word of a session that was given up counts.
#[test]
fn what_was_done_is_heard_during_a_second_handshake() {
    let mut end = asking(&off("vm1"));
    let (mut host, _) = in_session(&mut end);
    end.later(3_000);
    end.written();
    assert_eq!(end.give(&host.reply(ID, Said::Done(DONE), &[])), [Reply::Done]);
}

#[test]
fn on_the_same_clock_a_request_never_becomes_younger() {
    let mut end = asking(&off("vm1"));
    let (host, request) = in_session(&mut end);
    let due = STAMP + 30_000;
    assert_eq!(host.requests(&request), [(ID, due)]);
    // The guest was stopped for 50 s of the host's time, and its own clock with it.
    end.later(3_000);
    let mut host = Host::new();
    let welcome = host.welcome(&end.written(), STAMP + 53_000);
    end.give(&welcome);
    assert_eq!(host.requests(&end.written()), [(ID, due)]);
}

/// Rule 3: the host that was asked first may have done it.
#[test]
fn of_another_host_no_power_is_asked_again() {
    let clocks = [STAMP - 1, STAMP, STAMP + 3_000];
    let actions = [PowerAction::Off, PowerAction::Reboot, PowerAction::On];
    for (action, clock) in actions.into_iter().flat_map(|action| clocks.map(|clock| (action, clock))) {
        let ask = Ask::Power(action, target("vm1"));
        let mut end = asking(&ask);
        in_session(&mut end);
        end.later(3_000);
        let welcome = Host::other().welcome(&end.written(), clock);
        assert_eq!(end.give(&welcome), [Reply::Closed], "{ask:?} at {clock}");
        assert!(end.written().is_empty(), "{ask:?} at {clock}");
    }
}

#[test]
fn on_another_hosts_clock_a_question_has_what_is_left_of_its_time() {
    let mut end = asking(&status("vm1"));
    in_session(&mut end);
    for (mut host, stamp, due) in [
        (Host::new(), STAMP + 53_000, STAMP + 30_000),
        (Host::other(), STAMP + 54_000, STAMP + 54_000 + 24_000),
        (Host::other(), STAMP + 90_000, STAMP + 54_000 + 24_000),
        (Host::new(), STAMP + 60_000, STAMP + 60_000 + 18_000),
    ] {
        end.later(3_000);
        let welcome = host.welcome(&end.written(), stamp);
        end.give(&welcome);
        assert_eq!(host.requests(&end.written()), [(ID, due)]);
    }
}

/// Under a good tag: what a later version adds, or what says less than it must.
#[test]
fn a_welcome_that_is_longer_or_shorter_is_not_taken() {
    let mut end = asking(&off("vm1"));
    let hello = payloads(&end.written()).remove(0);
    let host = Host::new();
    let welcome = Welcome { min: 1, max: 1, version: 1, instance: 7, stamp: STAMP, nonce: [2; 16] };
    let good = [&[WELCOME][..], &written(&welcome)].concat();
    let longer = [&good[..], &[0]].concat();
    for body in (4..good.len()).map(|at| &good[..at]).chain([&longer[..]]) {
        let tag = host.keys.welcome_tag(&hello, body);
        assert_eq!(end.give(&framed(&[body, &tag].concat())), []);
        assert_eq!(end.written(), [], "{} bytes of {}", body.len(), good.len());
    }
    let tag = host.keys.welcome_tag(&hello, &good);
    end.give(&framed(&[&good[..], &tag].concat()));
    assert!(!end.written().is_empty());
}

/// A guest that has more time than any request may have asks all the same.
#[test]
fn a_deadline_is_never_said_that_a_host_refuses() {
    let mut end = asking_within(&off("vm1"), 3_600_000);
    let (host, request) = in_session(&mut end);
    assert_eq!(host.requests(&request), [(ID, STAMP + DEADLINE_MAX.0)]);
}

#[test]
fn it_ends_at_its_deadline_whatever_is_said() {
    let mut end = asking(&off("vm1"));
    let (mut host, _) = in_session(&mut end);
    for _ in 0..29 {
        assert_eq!(end.give(&host.reply(ID, Said::Working, &[])), []);
        assert_eq!(end.later(1_000), []);
    }
    assert_eq!(end.give(&host.reply(ID, Said::Working, &[])), []);
    assert_eq!(end.later(1_000), [Reply::TimedOut]);
    assert!(end.client.is_over());
    assert_eq!(end.give(&host.reply(ID, Said::Done(DONE), &[])), []);
    assert_eq!((end.client.transmit(), end.client.wake_at()), (&[][..], None));
}

/// An owner that comes late, and wakes it although it wished for nothing.
#[test]
fn what_has_ended_does_not_end_again() {
    let mut end = asking(&off("vm1"));
    let (mut host, _) = in_session(&mut end);
    assert_eq!(end.give(&host.reply(ID, Said::Done(DONE), &[])), [Reply::Done]);
    for ms in [300, 3_000, 30_000] {
        end.client.wake(end.now.plus(Millis(ms)));
        assert_eq!((end.client.poll(), end.client.transmit()), (None, &[][..]), "{ms} ms later");
    }
}

#[test]
fn a_list_whose_entries_are_none_has_failed() {
    let mut end = asking(&Ask::List);
    let (mut host, _) = in_session(&mut end);
    let reply = host.reply(ID, Said::List(3, false), &[1; 20]);
    let heard = end.give(&reply);
    assert_eq!(heard.last(), Some(&Reply::Failed));
    assert!(end.client.is_over());
}

/// A later chunk has another id: a repetition of the first is no answer to it.
#[test]
fn an_old_chunk_again_is_not_taken_for_the_next() {
    let mut end = asking(&Ask::List);
    let (mut host, _) = in_session(&mut end);
    let entry = |number: u8| [&[number; 16][..], &[0, 2, b'v', b'm']].concat();
    assert_eq!(end.give(&host.reply(ID, Said::List(1, true), &entry(1))).len(), 1);
    assert_eq!(host.requests(&end.written()).first().map(|(id, _)| *id), Some(ID + 1));
    assert_eq!(end.give(&host.reply(ID, Said::List(1, true), &entry(1))), []);
    let heard = end.give(&host.reply(ID + 1, Said::List(1, false), &entry(2)));
    assert_eq!((heard.len(), heard.last()), (2, Some(&Reply::EndOfList)));
    assert!(end.now > Millis(0));
}

#[test]
fn it_is_over_when_it_has_ended_and_not_before() {
    let mut end = asking(&Ask::List);
    assert!(!end.client.is_over());
    let (mut host, _) = in_session(&mut end);
    assert!(!end.client.is_over());
    assert_eq!(end.give(&host.reply(ID, Said::Accepted, &[])), []);
    assert!(!end.client.is_over());
    let entry = |number: u8| [&[number; 16][..], &[0, 2, b'v', b'm']].concat();
    let reply = host.reply(ID, Said::List(2, false), &[entry(1), entry(2)].concat());
    assert_eq!(end.client.receive(&reply, end.now), reply.len());
    for _ in 0..2 {
        assert!(!end.client.is_over(), "there are more entries");
        assert!(matches!(end.client.poll(), Some(Reply::Entry(_))));
    }
    assert!(!end.client.is_over(), "the end is not told yet");
    assert_eq!(end.client.poll(), Some(Reply::EndOfList));
    assert!(end.client.is_over());
}

/// Each field as long as it can be, on a clock that has run for ever.
#[test]
fn the_longest_request_has_room() {
    let ask = Ask::Power(PowerAction::Reboot, target(&"x".repeat(63)));
    let speak = Speak::Native { keys: &keys(1), id: u64::MAX, guard: Some(Incarnation::from_bytes([7; 16])) };
    let mut end = Asking::of_packets(speak, &ask, &Entropy([1; 64]));
    let mut host = Host::new();
    let stamp = u64::MAX - 40_000;
    let welcome = host.welcome(&end.written(), stamp);
    assert_eq!(end.give(&welcome), []);
    assert_eq!(host.requests(&end.written()), [(u64::MAX, stamp + 30_000)]);
}

#[test]
fn a_connection_that_goes_ends_what_had_begun_and_nothing_else() {
    let now = Millis(1_000_000);
    let speak = Speak::Native { keys: &keys(1), id: ID, guard: None };
    let mut client = Client::new(speak, &off("vm1"), now.plus(Millis(9_000))).expect("can be said");
    client.closed(now);
    assert_eq!((client.poll(), client.is_over(), client.transmit()), (None, false, &[][..]));
    client.opened(&Entropy([1; 64]), now);
    client.closed(now);
    assert!(client.transmit().is_empty());
    assert_eq!((client.poll(), client.poll(), client.is_over()), (Some(Reply::Closed), None, true));
    client.closed(now);
    assert_eq!((client.poll(), client.transmit()), (None, &[][..]));

    // What was heard before counts.
    let mut end = asking(&off("vm1"));
    let (mut host, _) = in_session(&mut end);
    let done = host.reply(ID, Said::Done(DONE), &[]);
    assert_eq!(end.client.receive(&[&done[..], &done].concat(), end.now), done.len(), "no more until it is polled");
    end.client.closed(end.now);
    assert_eq!((end.client.poll(), end.client.poll()), (Some(Reply::Done), None));
}
