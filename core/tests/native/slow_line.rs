//! How slow a line may be, and how late an answer: a handshake and a request over a serial line on which every byte takes
//! its time, with and without a buffer of the system's between an end and its line.

use crate::by_hand::keys;
use crate::common::{ENOUGH, ENTROPY, done, off, status, target};
use fencewire_core::{
    Accept, Answer, Ask, Client, Endpoint, Event, Incarnation, Listener, Millis, NativeAccept, Power, PowerAction,
    Reply, Speak,
};
use std::collections::VecDeque;

/// One direction of a line.
struct Line {
    /// What a byte takes, in microseconds: a start bit, 8 bits, a stop bit.
    byte: u64,
    /// What it is late by on top of that.
    delay: u64,
    /// Whether an end hands over all that it has at once, and counts it as sent.
    buffered: bool,
    free_at: u64,
    coming: VecDeque<(u64, u8)>,
}

impl Line {
    fn new(baud: u64, delay_ms: u64, buffered: bool) -> Line {
        Line { byte: 10_000_000 / baud, delay: delay_ms * 1_000, buffered, free_at: 0, coming: VecDeque::new() }
    }

    /// Takes what may go at this time.
    fn take(&mut self, end: &mut impl Endpoint, at: u64) {
        while !end.transmit().is_empty() && (self.buffered || self.free_at <= at) {
            let count = if self.buffered { end.transmit().len() } else { 1 };
            for byte in &end.transmit()[..count] {
                self.free_at = self.free_at.max(at) + self.byte;
                self.coming.push_back((self.free_at + self.delay, *byte));
            }
            end.sent(count, Millis(at / 1_000));
            assert!(self.coming.len() < ENOUGH, "there is always more to say");
        }
    }

    fn arrived(&mut self, at: u64) -> Option<u8> {
        self.coming.front().filter(|(due, _)| *due <= at)?;
        self.coming.pop_front().map(|(_, byte)| byte)
    }
}

/// What came of it, and after how many milliseconds.
#[derive(Debug)]
struct Came {
    reply: Reply,
    ms: u64,
    /// Frames that were not believed or not sent.
    refused: usize,
}

fn conversation(ask: &Ask, guard: Option<Incarnation>, line: impl Fn() -> Line) -> Came {
    let (mut up, mut down) = (line(), line());
    let speak = Speak::Native { keys: &keys(1), id: u64::MAX, guard };
    let mut client = Client::new(speak, ask, Millis(20_000)).expect("can be said");
    let native = Some(NativeAccept { keys: keys(1), instance: u64::MAX });
    let mut listener = Listener::new(Accept { classic: false, native, ..Accept::default() });
    client.opened(&ENTROPY, Millis(0));
    listener.opened(&ENTROPY, Millis(0));
    let mut came = Came { reply: Reply::TimedOut, ms: 0, refused: 0 };
    for at in (0..25_000_000).step_by(80) {
        let now = Millis(at / 1_000);
        for end in [&mut client as &mut dyn Endpoint, &mut listener] {
            if end.wake_at().is_some_and(|due| due <= now) {
                end.wake(now);
            }
        }
        up.take(&mut client, at);
        down.take(&mut listener, at);
        while let Some(byte) = up.arrived(at) {
            if listener.receive(&[byte], now) == 0 {
                came.refused += std::iter::from_fn(|| listener.poll()).count();
                assert_eq!(listener.receive(&[byte], now), 1, "it was polled");
            }
        }
        while let Some(event) = listener.poll() {
            let Event::Asked(id, request) = event else {
                came.refused += 1;
                continue;
            };
            let answer = match ask {
                Ask::Power(..) => done(&request),
                _ => Answer::Power(Power::On),
            };
            listener.answer(id, answer, now).expect("it is out");
        }
        while let Some(byte) = down.arrived(at) {
            let _ = client.receive(&[byte], now);
        }
        if let Some(reply) = client.poll() {
            return Came { reply, ms: now.0, ..came };
        }
    }
    came
}

/// The shortest name and the longest, and all else that can stand in a request.
fn asks() -> [(Ask, Option<Incarnation>, Reply); 3] {
    let longest = Ask::Power(PowerAction::Reboot, target(&"x".repeat(63)));
    [
        (status("nfs-server2"), None, Reply::Power(Power::On)),
        (off("nfs-server2"), None, Reply::Done),
        (longest, Some(Incarnation::from_bytes([0xff; 16])), Reply::Done),
    ]
}

/// Each rate has its bound: what the bytes take, and the repetitions before them. No handshake is made anew.
#[test]
fn a_request_is_answered_at_the_first_attempt_at_every_rate_from_1200_baud_on() {
    for (baud, at_most) in [(1_200, 2_600), (2_400, 1_400), (9_600, 380), (115_200, 50)] {
        for buffered in [false, true] {
            for (ask, guard, expected) in asks() {
                let came = conversation(&ask, guard, || Line::new(baud, 0, buffered));
                let what = format!("{} at {baud} baud, buffered {buffered}: {came:?}", ask.action());
                assert_eq!((came.reply, came.refused), (expected, 0), "{what}");
                assert!(came.ms <= at_most, "{what}");
            }
        }
    }
}

/// At 115200 baud the time is nearly all on the way. A guest's answer that begins a second after the welcome went is
/// too late.
#[test]
fn a_request_is_answered_where_bytes_come_late() {
    for (delay, served) in [(100, true), (450, true), (600, false)] {
        for (ask, guard, expected) in asks() {
            let came = conversation(&ask, guard, || Line::new(115_200, delay, true));
            let what = format!("{} over {delay} ms each way: {came:?}", ask.action());
            assert_eq!(came.reply == expected, served, "{what}");
        }
    }
}
