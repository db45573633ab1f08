//! The blocking driver, over a port that is a script: what comes when, and what is taken.

mod common;

use common::{Answering, ENTROPY, done, frame, off, packets, reply};
use core::convert::Infallible;
use embedded_io::{ErrorType, Read, Write};
use fencewire_core::classic::Code;
use fencewire_core::classic::key::Hash;
use fencewire_core::classic::serial::END_OF_LIST;
use fencewire_core::driver::{Driver, Port, Ready};
use fencewire_core::{Accept, Answer, Ask, Client, Event, Listener, Millis, Refusal, Reply, Speak};
use std::collections::VecDeque;

const SEQNO: u32 = 0x01_0203;

/// Bytes that come at their times; an end of the stream, if any, after them.
struct Script {
    now: Millis,
    input: VecDeque<(u64, Vec<u8>)>,
    closes_at: Option<u64>,
    written: Vec<u8>,
    /// How many bytes a write takes.
    takes: usize,
    waits: usize,
}

impl Script {
    fn new(input: &[(u64, &[u8])]) -> Script {
        Script {
            now: Millis(0),
            input: input.iter().map(|(at, bytes)| (*at, bytes.to_vec())).collect(),
            closes_at: None,
            written: Vec::new(),
            takes: usize::MAX,
            waits: 0,
        }
    }

    fn next_input(&self) -> Option<u64> {
        self.input.front().map(|(at, _)| *at).or(self.closes_at)
    }
}

impl ErrorType for Script {
    type Error = Infallible;
}

impl Read for Script {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        let Some((_, bytes)) = self.input.front_mut() else {
            return Ok(0);
        };
        let read = bytes.len().min(into.len());
        into[..read].copy_from_slice(&bytes[..read]);
        bytes.drain(..read);
        if bytes.is_empty() {
            self.input.pop_front();
        }
        Ok(read)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let taken = bytes.len().min(self.takes);
        self.written.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Port for Script {
    fn now(&mut self) -> Millis {
        self.now
    }

    fn wait(&mut self, write: bool, until: Option<Millis>) -> Result<Ready, Infallible> {
        self.waits += 1;
        assert!(self.waits < 100_000, "waits for ever");
        let ready =
            Ready { read: self.next_input().is_some_and(|at| at <= self.now.0), write: write && self.takes > 0 };
        if !ready.read && !ready.write {
            let next = self.next_input().into_iter().chain(until.map(|until| until.0)).min();
            self.now = Millis(next.expect("nothing would ever happen"));
        }
        Ok(ready)
    }
}

fn client(ask: &Ask, deadline: u64) -> Client {
    Client::new(Speak::ClassicSerial { seqno: SEQNO }, ask, Millis(deadline)).unwrap()
}

/// One exchange: the request goes out whole, the reply comes back.
#[test]
fn a_client_asks_and_is_answered() {
    for takes in [1, 7, 74] {
        let mut port = Script::new(&[(50, &reply(Code::Success))]);
        port.takes = takes;
        let mut client = client(&off("vm1"), 30_000);
        let replied = Driver::open(&mut client, &mut port, &ENTROPY).reply().unwrap();
        assert_eq!(replied, Reply::Done);
        assert_eq!(port.written, frame(&off("vm1"), SEQNO));
    }
}

/// Silence: the request is repeated at its times, and given up at its deadline.
#[test]
fn a_client_repeats_and_gives_up() {
    let mut port = Script::new(&[]);
    let mut client = client(&off("vm1"), 3_000);
    assert_eq!(Driver::open(&mut client, &mut port, &ENTROPY).reply().unwrap(), Reply::TimedOut);
    assert_eq!(port.now, Millis(3_000));
    assert_eq!(port.written, frame(&off("vm1"), SEQNO).repeat(4));
}

/// Rule 4 seen from the agent: a port that takes nothing, or a peer that never stops talking, does not hold it up.
#[test]
fn a_client_gives_up_in_time_whatever_the_port_does() {
    let mut stuck = Script::new(&[]);
    stuck.takes = 0;
    let mut end = client(&off("vm1"), 3_000);
    assert_eq!(Driver::open(&mut end, &mut stuck, &ENTROPY).reply().unwrap(), Reply::TimedOut);

    let chatter: Vec<(u64, &[u8])> = (0..5_000).map(|ms| (ms, &[0xee; 1_000][..])).collect();
    let mut talkative = Script::new(&chatter);
    let mut end = client(&off("vm1"), 3_000);
    assert_eq!(Driver::open(&mut end, &mut talkative, &ENTROPY).reply().unwrap(), Reply::TimedOut);
    assert_eq!(talkative.now, Millis(3_000));
}

/// A dead bridge is reported at once, and again to whoever asks again.
#[test]
fn a_client_learns_that_the_other_end_is_gone() {
    let mut port = Script::new(&[]);
    port.closes_at = Some(100);
    let mut client = client(&off("vm1"), 30_000);
    let mut driver = Driver::open(&mut client, &mut port, &ENTROPY);
    assert_eq!(driver.reply().unwrap(), Reply::Closed);
    assert_eq!(driver.reply().unwrap(), Reply::Closed);
    assert_eq!(port.now, Millis(100));
}

/// A list in one read, and longer than one read: each call gives one entry, and nothing is lost between the calls.
#[test]
fn a_client_reads_a_list_entry_by_entry() {
    let names: Vec<String> = (0..50).map(|number| format!("vm{number}")).collect();
    let mut bytes = reply(Code::HostList);
    for name in &names {
        bytes.extend(common::entry_bytes(name));
    }
    bytes.extend(END_OF_LIST);
    bytes.extend(reply(Code::Success));
    let mut port = Script::new(&[(10, &bytes)]);
    port.closes_at = Some(10);
    let mut client = client(&Ask::List, 30_000);
    let mut driver = Driver::open(&mut client, &mut port, &ENTROPY);
    for name in names {
        let Reply::Entry(entry) = driver.reply().unwrap() else { panic!("{name} is missing") };
        assert_eq!(entry.name(), name.as_bytes());
    }
    assert_eq!(driver.reply().unwrap(), Reply::EndOfList);
    assert_eq!(driver.reply().unwrap(), Reply::Closed, "it is over");
}

/// A microcontroller's loop: events in their order, answers between them, and the end of the stream as none.
#[test]
fn a_listener_hears_and_answers() {
    let two = [frame(&Ask::Monitor, 1), frame(&Ask::Monitor, 2)].concat();
    let mut port = Script::new(&[(0, &two), (300, &two)]);
    port.closes_at = Some(400);
    let mut listener = Listener::new(Accept::default());
    let mut driver = Driver::open(&mut listener, &mut port, &ENTROPY);
    let mut answered = 0;
    while let Some(event) = driver.event().unwrap() {
        let Event::Asked(id, request) = event else { panic!("{event:?}") };
        assert_eq!(request.received(), Millis(300), "the others came too early");
        driver.end().answer(id, Answer::Alive, Millis(300)).unwrap();
        answered += 1;
    }
    assert_eq!(answered, 2);
    assert_eq!(port.written, reply(Code::Success).repeat(2));
}

/// What was out when the other end went is withdrawn before the end is told.
#[test]
fn a_listener_learns_what_was_withdrawn() {
    let mut port = Script::new(&[(300, &frame(&off("vm1"), 1))]);
    port.closes_at = Some(400);
    let mut listener = Listener::new(Accept::default());
    let mut driver = Driver::open(&mut listener, &mut port, &ENTROPY);
    let Some(Event::Asked(id, _)) = driver.event().unwrap() else { panic!("not asked") };
    assert_eq!(driver.event().unwrap(), Some(Event::Withdrawn(id)));
    assert_eq!(driver.event().unwrap(), None);
    assert_eq!(driver.event().unwrap(), None);
}

/// The packet wire: what is to be sent goes before the next is read, and one request is all that a connection is for.
#[test]
fn the_packet_wire_is_driven_alike() {
    let said_by_client = [&packets::request(&off("vm1"))[..], &ENTROPY.0].concat();
    let mut twin = Answering::of_packets(packets::trust(Hash::Sha256, Hash::Sha256));
    assert_eq!(twin.give(&said_by_client), []);
    let said_by_listener = twin.read();
    let proof = packets::proof(&said_by_listener[64..], Hash::Sha256);

    let mut port = Script::new(&[(0, &said_by_client), (9, &proof), (9, &said_by_client)]);
    port.takes = 7;
    let mut listener = Listener::of_packets(packets::trust(Hash::Sha256, Hash::Sha256), Millis(25_000));
    let mut driver = Driver::open(&mut listener, &mut port, &ENTROPY);
    let Some(Event::Asked(id, request)) = driver.event().unwrap() else { panic!("not asked") };
    driver.end().answer(id, done(&request), Millis(10)).unwrap();
    assert_eq!(driver.event().unwrap(), None, "all is said");
    assert_eq!(port.written, [&said_by_listener[..], &[0]].concat());

    let mut port = Script::new(&[(5, &packets::said_by_theirs(&ENTROPY)), (9, &[0])]);
    port.takes = 7;
    let key = packets::shared();
    let speak = packets::signed(&key, Hash::Sha256, Hash::Sha256);
    let mut client = Client::new(speak, &off("vm1"), Millis(30_000)).unwrap();
    let mut driver = Driver::open(&mut client, &mut port, &ENTROPY);
    assert_eq!(driver.reply().unwrap(), Reply::Done);
    let proof = packets::proof(&packets::CHALLENGE, Hash::Sha256);
    assert_eq!(port.written, [said_by_client, proof.to_vec()].concat());
}

/// A caller that says nothing ends its own connection, with a reason for the log.
#[test]
fn a_listener_of_packets_gives_up() {
    let mut port = Script::new(&[(0, &[1])]);
    let mut listener = Listener::of_packets(packets::trust(Hash::Sha256, Hash::Sha256), Millis(25_000));
    let mut driver = Driver::open(&mut listener, &mut port, &ENTROPY);
    assert_eq!(driver.event().unwrap(), Some(Event::Refused(Refusal::TooSlow)));
    assert_eq!(driver.event().unwrap(), None);
    assert_eq!(port.now, Millis(5_000));
}
