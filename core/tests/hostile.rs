//! Any calls in any order, with any bytes: neither end panics, is stuck, or loses count of what it said.
//!
//! The careful owner keeps to the order of calls; the careless one does not, and lets time go back, too.

mod common;

use common::owner::{Told, answer};
use common::{Answering, Asking, ENTROPY, asks, entry_bytes, frame, frame_with_domain, off, reply, status};
use fencewire_core::classic::Code;
use fencewire_core::classic::serial::END_OF_LIST;
use fencewire_core::{Accept, Ask, Endpoint, Event, Listener, Millis, Reply};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Bytes(Vec<u8>),
    Pass(u64),
    /// The peer reads so many bytes, or the port takes so many.
    Sent(usize),
    /// The owner answers in one of several ways: the request that is out, or an older one.
    Answer(u8, bool),
    Opened,
    Closed,
    Reset,
    Poll,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let ask = prop::sample::select(vec![off("vm1"), status("vm1"), Ask::Monitor, Ask::List]);
    let whole = (ask, 0..8_u32).prop_map(|(ask, seqno)| frame(&ask, seqno).to_vec());
    let torn = (whole.clone(), 0..74_usize).prop_map(|(bytes, at)| bytes[..at].to_vec());
    let ends_oddly = prop::sample::select(vec![&b"a"[..], b"ab", b"abb"]).prop_map(|tail| {
        let mut bytes = frame(&off("vm1"), 1).to_vec();
        bytes.truncate(74 - tail.len());
        [&bytes, tail].concat()
    });
    let malformed =
        prop::sample::select(vec![&b""[..], b"\xff", b"x\0y"]).prop_map(|name| frame_with_domain(name).to_vec());
    let replies = prop::sample::select(vec![Code::Success, Code::Failed, Code::Off, Code::Denied, Code::HostList]);
    let letters = prop::collection::vec(prop::sample::select(b"ab\0\xff".to_vec()), 0..20);
    let several = prop::collection::vec(whole.clone(), 2..8).prop_map(|frames| frames.concat());
    prop_oneof![
        4 => whole,
        2 => torn,
        1 => several,
        1 => ends_oddly,
        1 => malformed,
        2 => replies.prop_map(reply),
        1 => prop_oneof![Just(entry_bytes("vm1")), Just(END_OF_LIST)].prop_map(|bytes| bytes.to_vec()),
        2 => letters,
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ms = prop::sample::select(vec![0, 1, 49, 50, 199, 200, 249, 250, 1_000, 4_999, 5_000, 25_000, 60_000]);
    prop_oneof![
        8 => bytes().prop_map(Step::Bytes),
        4 => ms.prop_map(Step::Pass),
        4 => prop_oneof![0..6_usize, Just(1_000)].prop_map(Step::Sent),
        6 => (0..9_u8, prop::bool::weighted(0.9)).prop_map(|(kind, current)| Step::Answer(kind, current)),
        1 => Just(Step::Opened),
        1 => Just(Step::Closed),
        1 => Just(Step::Reset),
        2 => Just(Step::Poll),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..60)
}

fn with_a_careful_owner(steps: Vec<Step>) {
    let mut end = Answering::connected(Accept::default());
    let mut told = Told::default();
    for step in steps {
        match step {
            Step::Bytes(bytes) => {
                let events = end.give(&bytes);
                told.events(events);
            }
            Step::Pass(ms) => {
                let events = end.later(ms);
                told.events(events);
            }
            Step::Sent(n) => end.listener.sent(n, end.now),
            Step::Answer(kind, current) => told.answer(&mut end, kind, current),
            Step::Opened => end.listener.opened(&ENTROPY, end.now),
            Step::Closed => end.listener.closed(end.now),
            Step::Reset => end.listener.guest_was_reset(end.now),
            Step::Poll => {}
        }
        let events = end.polled();
        told.events(events);
        assert!(end.listener.wake_at().is_none_or(|at| at > end.now), "due, and nothing came of it");
        assert!(!end.listener.is_idle() || told.out().is_none(), "idle with a request out");
    }
    // Once the line is quiet, nobody waits and the rest was read, it is as good as new.
    told.events(end.later(60_000));
    told.events(end.drained().1);
    told.events(end.later(60_000));
    assert!(told.out().is_none() && end.listener.is_idle(), "{:?}", end.listener);
    assert_eq!(asks(&end.give(&frame(&off("good"), 0x77_7777))), [off("good")]);
}

fn with_a_careless_owner(steps: Vec<Step>) {
    let mut listener = Listener::new(Accept::default());
    let mut now = 100_000_u64;
    let mut out = None;
    for (at, step) in steps.into_iter().enumerate() {
        // Every third step is in the past.
        let then = Millis(if at % 3 == 0 { now / 2 } else { now });
        match step {
            Step::Bytes(bytes) => assert!(listener.receive(&bytes, then) <= bytes.len()),
            Step::Pass(ms) => {
                now += ms;
                listener.wake(then);
            }
            Step::Sent(n) => listener.sent(n, then),
            Step::Answer(kind, _) => {
                if let Some((id, request)) = &out {
                    let _ = listener.answer(*id, answer(kind, Some(request)), then);
                }
            }
            Step::Opened => listener.opened(&ENTROPY, then),
            Step::Closed => listener.closed(then),
            Step::Reset => listener.guest_was_reset(then),
            Step::Poll => {
                if let Some(Event::Asked(id, request)) = listener.poll() {
                    out = Some((id, request));
                }
            }
        }
    }
    let mut end = Answering { listener, now: Millis(now) };
    end.listener.opened(&ENTROPY, end.now);
    end.polled();
    end.later(60_000);
    assert_eq!(asks(&end.give(&frame(&off("good"), 0x77_7777))), [off("good")]);
}

fn client(ask: &Ask, careful: bool, steps: Vec<Step>) {
    let mut end = Asking::within(40_000, ask);
    let mut replies = Vec::new();
    for step in steps {
        match step {
            Step::Bytes(bytes) if careful => replies.extend(end.give(&bytes)),
            Step::Bytes(bytes) => assert!(end.client.receive(&bytes, end.now) <= bytes.len()),
            Step::Pass(ms) if careful => replies.extend(end.later(ms)),
            Step::Pass(ms) => {
                end.now = Millis(if ms % 2 == 0 { end.now.0 + ms } else { end.now.0 / 2 });
                end.client.wake(end.now);
            }
            Step::Sent(n) => end.client.sent(n, end.now),
            Step::Opened | Step::Reset => end.client.opened(&ENTROPY, end.now),
            Step::Closed => end.client.closed(end.now),
            Step::Answer(..) | Step::Poll => replies.extend(end.client.poll()),
        }
        if careful {
            replies.extend(end.polled());
            assert!(end.client.wake_at().is_none_or(|at| at > end.now), "due, and nothing came of it");
        }
    }
    end.now = end.now.max(Millis(1_000_000));
    replies.extend(end.polled());
    replies.extend(end.later(40_000));
    replies.extend(end.polled());
    let ends = replies.iter().filter(|reply| !matches!(reply, Reply::Entry(_))).count();
    assert_eq!(ends, 1, "it ends, and once: {replies:?}");
    assert!(end.client.is_over());
    assert!(ask == &Ask::List || replies.len() == 1, "entries of what is no list");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    /// Whatever the peer does, the owner's picture of what is out is the listener's.
    #[test]
    fn a_listener_with_a_careful_owner(steps in steps()) {
        with_a_careful_owner(steps);
    }

    /// Nothing that its owner does wrong makes it panic, or deaf after the next connection.
    #[test]
    fn a_listener_with_a_careless_owner(steps in steps()) {
        with_a_careless_owner(steps);
    }

    /// A request ends exactly once, at its deadline at the latest.
    #[test]
    fn a_client(
        ask in prop::sample::select(vec![off("vm1"), status("vm1"), Ask::Monitor, Ask::List]),
        careful in any::<bool>(),
        steps in steps(),
    ) {
        client(&ask, careful, steps);
    }
}
