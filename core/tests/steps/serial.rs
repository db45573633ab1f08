//! The serial wire's two ends, driven by steps: what a property's strategy or a fuzzer makes up, and what must hold of it.

use super::common::owner::{Told, answer};
use super::common::{Answering, Asking, ENTROPY, asks, frame, off};
use fencewire_core::classic::serial::{MAGIC, REQUEST_LEN};
use fencewire_core::{Accept, Ask, Endpoint, Event, Listener, Millis, Power, Reply};

#[derive(Clone, Debug)]
pub(crate) enum Step {
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

/// Holds the listener to its promises, as its owner holds to its own.
pub(crate) fn with_a_careful_owner(steps: Vec<Step>) {
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

/// Wants nothing but that it goes on.
pub(crate) fn with_a_careless_owner(steps: Vec<Step>) {
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

/// What has passed over a client's connection.
#[derive(Default)]
struct Passed {
    /// Bytes of the request that have gone, copies included.
    sent: usize,
    /// What was given after its first whole copy.
    given: Vec<u8>,
}

impl Passed {
    fn give(&mut self, bytes: &[u8]) {
        if self.sent >= REQUEST_LEN {
            self.given.extend(bytes);
        }
    }

    /// Rule 1: what is told was said, after the whole request had gone.
    fn look_at(&self, replies: &[Reply]) {
        for reply in replies {
            let code = match reply {
                Reply::Done | Reply::Power(Power::On) => 0,
                Reply::Power(Power::Unknown) => 1,
                Reply::Power(Power::Off) => 2,
                Reply::Denied => 3,
                Reply::Entry(_) | Reply::EndOfList => 253,
                Reply::NotDone(_) => panic!("this wire cannot say why"),
                Reply::Failed | Reply::TimedOut | Reply::Closed | Reply::Dropped | Reply::NotProved => continue,
            };
            let said = [&MAGIC[..], &[code]].concat();
            assert!(self.given.windows(said.len()).any(|bytes| bytes == said), "nobody said that: {reply:?}");
        }
    }
}

/// The same two of a client.
pub(crate) fn client(ask: &Ask, careful: bool, steps: Vec<Step>) {
    let mut end = Asking::within(40_000, ask);
    let mut passed = Passed::default();
    let mut replies = Vec::new();
    for step in steps {
        let mut now = Vec::new();
        match step {
            Step::Bytes(bytes) if careful => {
                passed.give(&bytes);
                now.extend(end.give(&bytes));
            }
            Step::Bytes(bytes) => assert!(end.client.receive(&bytes, end.now) <= bytes.len()),
            Step::Pass(ms) if careful => now.extend(end.later(ms)),
            Step::Pass(ms) => {
                end.now = Millis(if ms % 2 == 0 { end.now.0 + ms } else { end.now.0 / 2 });
                end.client.wake(end.now);
            }
            Step::Sent(n) => {
                passed.sent += n.min(end.client.transmit().len());
                end.client.sent(n, end.now);
            }
            Step::Opened | Step::Reset => {
                passed = Passed::default();
                end.client.opened(&ENTROPY, end.now);
            }
            Step::Closed => end.client.closed(end.now),
            Step::Answer(..) | Step::Poll => now.extend(end.client.poll()),
        }
        if careful {
            now.extend(end.polled());
            passed.look_at(&now);
            assert!(end.client.wake_at().is_none_or(|at| at > end.now), "due, and nothing came of it");
        }
        replies.extend(now);
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
