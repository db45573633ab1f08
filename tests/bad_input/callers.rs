//! Who calls a TCP port and stops, dribbles, says nonsense, or too much. Most of them hold the key: it gives them no more
//! than a request.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use fencewire_core::classic::key::{Hash, TAG_LEN};
use fencewire_core::classic::packet::{REQUEST_LEN, RequestPacket};
use fencewire_core::listener::HANDSHAKE_TIME;
use fencewire_tests::caller::{CHALLENGE, Caller, unsigned};
use fencewire_tests::daemon::Daemon;
use fencewire_tests::guest_channel::{
    self, ENTRY_LENGTH, FAILED, IS_OFF, LIST, MONITOR, OFF, REBOOT, STATUS, SUCCESS, fresh_seqno,
};
use fencewire_tests::libvirt_file::{Guest, State};
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::tcp_channel::{Port, TcpChannel};

use crate::Bed;

/// What a caller says in all, until the bridge may act.
const CONVERSATION: usize = REQUEST_LEN + 2 * TAG_LEN;

/// Long beside what takes milliseconds, short beside what waits for somebody's time to be up.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How long a caller has for all of its conversation.
const ITS_TIME: Duration = Duration::from_millis(HANDSHAKE_TIME.0);

/// Says the first `length` bytes of a request to put "running" off, as somebody who holds the key.
#[track_caller]
fn says_no_more_than(channel: &TcpChannel, length: usize) -> Caller {
    let mut caller = channel.call();
    let packet = channel.terms.packet(OFF, "running");
    let said = [&packet[..], &CHALLENGE].concat();
    caller.send(&said[..length.min(said.len())]);
    if let Some(more) = length.checked_sub(said.len()) {
        let challenge = caller.hear_challenge();
        caller.send(&channel.terms.proof(&challenge)[..more]);
    }
    caller
}

/// Says that whoever holds the key is served at once.
#[track_caller]
fn is_served(channel: &TcpChannel) {
    let begun = Instant::now();
    assert_eq!(channel.ask(STATUS, "stopped"), IS_OFF);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[test]
fn every_length_of_a_conversations_beginning_and_then_an_end() {
    let (bed, channel) = Bed::with_tcp();
    for length in 0..CONVERSATION {
        drop(says_no_more_than(&channel, length));
    }
    is_served(&channel);
    bed.daemon.wait_for_log("a caller went away before its proof");
    bed.nothing_was_done();
}

#[test]
fn every_length_of_a_conversations_beginning_and_then_a_reset() {
    let (bed, channel) = Bed::with_tcp();
    for length in 0..CONVERSATION {
        says_no_more_than(&channel, length).reset();
    }
    is_served(&channel);
    bed.nothing_was_done();
}

/// Who says nothing more, and stays to hear something, is closed when its time is up.
#[test]
fn every_length_of_a_conversations_beginning_and_then_silence() {
    let (mut bed, channel) = Bed::with_tcp();
    // No more than are served at a time: each other length, and those before and after a step.
    let lengths: Vec<usize> = (0..CONVERSATION).step_by(2).chain([1, 175, 177, 239, 241, 303]).collect();

    let begun = Instant::now();
    let mut callers: Vec<Caller> = lengths.iter().map(|length| says_no_more_than(&channel, *length)).collect();
    let all_called = begun.elapsed();
    is_served(&channel);
    bed.others_are_served();
    callers.iter_mut().for_each(Caller::expect_nothing);

    assert!(begun.elapsed() >= ITS_TIME, "{:?}", begun.elapsed());
    println!("{} callers in {all_called:?}, all closed after {:?}", lengths.len(), begun.elapsed());
    bed.daemon.wait_for_log("it stopped before its proof");
    is_served(&channel);
    bed.nothing_was_done();
}

#[test]
fn a_caller_that_dribbles_is_served_in_its_time_and_closed_after_it() {
    let (bed, channel) = Bed::with_tcp();
    let dribbled = |pause| {
        let mut caller = channel.call();
        let begun = Instant::now();
        let packet = channel.terms.packet(STATUS, "stopped");
        let said = [&packet[..], &CHALLENGE].concat();
        if caller.dribble(&said, pause) < said.len() {
            return (None, begun.elapsed());
        }
        let challenge = caller.hear_challenge();
        caller.dribble(&channel.terms.proof(&challenge), pause);
        (caller.expect_end(DEADLINE).first().copied(), begun.elapsed())
    };

    thread::scope(|scope| {
        // 2 s for the fast one, if the machine is not too busy; 12 s for the slow one, if it were let.
        let [fast, slow] = [6, 40].map(|millis| scope.spawn(move || dribbled(Duration::from_millis(millis))));
        while !(fast.is_finished() && slow.is_finished()) {
            is_served(&channel);
        }
        let (fast, slow) = (fast.join().expect("a caller"), slow.join().expect("a caller"));
        assert!(fast.0 == Some(IS_OFF) || fast.1 >= ITS_TIME, "{fast:?}");
        assert!(slow.0.is_none() && slow.1 >= ITS_TIME, "{slow:?}");
    });
    bed.nothing_was_done();
}

/// Whatever it is, the first 176 bytes of it are not signed with the key, and nothing is said to them.
#[test]
fn garbage() {
    let (bed, channel) = Bed::with_tcp();
    let http = b"GET /admin HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a-browser-with-a-rather-long-name/1.0 \
                 (and a comment, and another one)\r\nAccept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n\r\n";
    let serial = guest_channel::request(OFF, b"running", fresh_seqno()).repeat(3);
    let noise: Vec<u8> = (0..1_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let zeros = [0; REQUEST_LEN];
    let ones = [0xff; 10 * REQUEST_LEN];
    for bytes in [&http[..], &serial, &noise[..], &zeros, &ones] {
        let mut caller = channel.call();
        // The bridge may have closed before all of it was sent.
        let _ = caller.try_send(bytes);
        caller.expect_nothing();
    }
    is_served(&channel);
    for why in ["it signs with a hash that nobody knows", "it signs nothing"] {
        bed.daemon.wait_for_log(why);
    }
    bed.nothing_was_done();
}

/// What is done to a packet's bytes.
type Change = fn(&mut RequestPacket);

/// From somebody who holds the key and signs nonsense: it is told that it failed, once it has proved itself.
#[test]
fn requests_of_which_a_field_is_nonsense() {
    let (bed, channel) = Bed::with_tcp();
    let changes: [(&str, Change); 14] = [
        ("action 0, which is null", |packet| packet[0] = 0),
        ("action 7", |packet| packet[0] = 7),
        ("action 0x81", |packet| packet[0] = 0x81),
        ("action 0xff", |packet| packet[0] = 0xff),
        ("flags 2", |packet| packet[3] = 2),
        ("flags 0xff", |packet| packet[3] = 0xff),
        ("no name for an off", |packet| packet[4..68].fill(0)),
        ("no name for a status", |packet| {
            packet[0] = STATUS;
            packet[4..68].fill(0);
        }),
        ("a name without its NUL", |packet| packet[4..68].fill(b'v')),
        ("bytes after the name's NUL", |packet| packet[40] = b'x'),
        ("a name's last byte", |packet| packet[67] = b'x'),
        ("a NUL before the name", |packet| packet[4] = 0),
        ("a line feed in the name", |packet| packet[6] = b'\n'),
        ("a name that is no UTF-8", |packet| packet[6] = 0xe4),
    ];
    for (what, change) in changes {
        let packet = channel.terms.changed("running", change);
        assert_eq!(channel.call().ask(&packet), FAILED, "{what}");
        // Without the signature, nothing is said at all.
        let mut forged = packet;
        forged[REQUEST_LEN - 1 - 32] ^= 1;
        let mut caller = channel.call();
        caller.send(&[&forged[..], &CHALLENGE].concat());
        caller.expect_nothing();
    }
    let line = bed.daemon.wait_for_log("a frame that says nothing: answered with \"failed\"");
    assert!(line.contains("from=127.0.0.1"), "{line}");
    is_served(&channel);
    bed.nothing_was_done();
}

/// Every byte of a request counts: with another one it is not signed.
#[test]
fn requests_of_which_a_byte_was_changed_on_the_way() {
    let (bed, channel) = Bed::with_tcp();
    for at in 0..REQUEST_LEN {
        let mut packet = channel.terms.packet(OFF, "running");
        packet[at] ^= 1;
        let mut caller = channel.call();
        caller.send(&[&packet[..], &CHALLENGE].concat());
        caller.expect_nothing();
    }
    is_served(&channel);
    bed.nothing_was_done();
}

/// Where the answer is to go is said by a packet that comes by multicast. Here it is where the question came from.
#[test]
fn requests_with_an_address_to_call_back() {
    let (bed, channel) = Bed::with_tcp();
    let port = Port::new();
    let elsewhere = TcpListener::bind(port.address()).expect("a port of our own");
    let [low, high] = port.address().port().to_le_bytes();

    let packet = channel.terms.changed("stopped", |packet| {
        packet[0] = STATUS;
        packet[2] = 4;
        packet[68..72].copy_from_slice(&[127, 0, 0, 1]);
        packet[96..98].copy_from_slice(&[low, high]);
        packet[108] = 2;
    });
    assert_eq!(channel.call().ask(&packet), IS_OFF, "on the connection on which it was asked");

    is_served(&channel);
    elsewhere.set_nonblocking(true).expect("a socket can be made non-blocking");
    assert!(elsewhere.accept().is_err(), "nobody called there");
    bed.nothing_was_done();
}

#[test]
fn more_bytes_than_a_conversation_has() {
    let (bed, channel) = Bed::with_tcp();
    let (off, status) = (channel.terms.packet(OFF, "running"), channel.terms.packet(STATUS, "stopped"));
    // Behind the proof, a whole request and what goes with it.
    for more in [&b"x"[..], &off, &[&off[..], &CHALLENGE, &CHALLENGE].concat()] {
        let mut caller = channel.call();
        let challenge = caller.challenged(&status);
        caller.send(&[&channel.terms.proof(&challenge), more].concat());
        assert_eq!(caller.expect_end(DEADLINE), [IS_OFF], "one answer to one request");
    }
    // Before it: then it is the proof, and a wrong one.
    let mut caller = channel.call();
    let challenge = caller.challenged(&status);
    caller.send(&[&b"x"[..], &channel.terms.proof(&challenge)].concat());
    caller.expect_nothing();
    // All at once, before there can be a proof.
    let mut caller = channel.call();
    caller.send(&[&off[..], &CHALLENGE, &off, &CHALLENGE].concat());
    assert!([0, 2 * TAG_LEN].contains(&caller.expect_end(DEADLINE).len()), "a proof and a challenge, if that");
    is_served(&channel);
    bed.nothing_was_done();
}

/// What somebody says to a challenge.
type Proof<'a> = dyn Fn(&[u8]) -> [u8; TAG_LEN] + 'a;

/// A proof with another hash, of another challenge, with another key, of nothing.
#[test]
fn proofs_that_prove_nothing() {
    let (bed, channel) = Bed::with_tcp();
    let off = channel.terms.packet(OFF, "running");
    let mut sha512 = channel.terms.clone();
    sha512.auth = Hash::Sha512;
    let proofs: [(&str, &Proof); 6] = [
        ("of zeros", &|_| [0; TAG_LEN]),
        ("the challenge itself", &|challenge| challenge.try_into().expect("a challenge")),
        ("with SHA-512", &|challenge| sha512.proof(challenge)),
        ("of half of it", &|challenge| channel.terms.proof(&challenge[..TAG_LEN / 2])),
        ("of the caller's own challenge", &|_| channel.terms.proof(&CHALLENGE)),
        ("but for the last bit", &|challenge| {
            let mut proof = channel.terms.proof(challenge);
            proof[TAG_LEN - 1] ^= 1;
            proof
        }),
    ];
    for (what, proof) in proofs {
        let mut caller = channel.call();
        let challenge = caller.challenged(&off);
        caller.send(&proof(&challenge));
        let said = caller.expect_end(DEADLINE);
        assert!(said.is_empty(), "{what}: {said:?}");
    }
    bed.daemon.wait_for_log("its sender does not prove that it holds the key");
    is_served(&channel);
    bed.nothing_was_done();
}

/// 256 callers are served at a time; for another, the oldest goes of whoever calls most, and has proved nothing.
#[test]
fn three_hundred_callers_that_say_nothing() {
    const SILENT: usize = 300;
    const SERVED: usize = 256;
    let (mut bed, channel) = Bed::with_tcp();

    let begun = Instant::now();
    let mut silent: Vec<Caller> = (0..SILENT).map(|_| channel.call()).collect();
    is_served(&channel);
    bed.others_are_served();
    for caller in &mut silent[..=SILENT - SERVED] {
        caller.expect_nothing();
    }
    assert!(begun.elapsed() < ITS_TIME, "they went for others: {:?}", begun.elapsed());
    bed.daemon.wait_for_log("another calls, and most calls are from its address");
    for caller in &mut silent[SILENT - SERVED + 1..] {
        caller.expect_nothing();
    }
    assert!(begun.elapsed() >= ITS_TIME, "these went when their time was up: {:?}", begun.elapsed());
    is_served(&channel);
    bed.nothing_was_done();
}

/// Who holds the key and asks for more than a socket holds.
#[test]
fn a_list_by_tcp_that_nobody_reads() {
    // 5.2 MB. The system keeps 4 MB at most for who does not read, unless somebody has set it otherwise.
    const MANY: usize = 40_000;
    let others = (0..MANY).map(|number| Guest::new(&format!("vm{number}")).state(State::Shutoff));
    let mut daemon = Daemon::setup().known(others).tcp("everybody", "").start();
    let channel = daemon.tcp(0).clone();
    // libvirt takes seconds to say who so many are, a busy machine many, and nobody is answered before.
    wait_until(DEADLINE * 6, "all guests to be known", || {
        (daemon.status().0["hypervisors"][0]["guests"] == MANY).then_some(())
    });

    let mut deaf = channel.call();
    deaf.prove(&channel.terms.packet(LIST, ""));
    assert_eq!(channel.ask(STATUS, "vm7"), IS_OFF);
    daemon.wait_for_log("nobody read the reply: dropped");
    assert_eq!(channel.ask(STATUS, "vm7"), IS_OFF);
    let said = deaf.expect_end(DEADLINE);
    assert!(said.len() < MANY * ENTRY_LENGTH, "{} bytes are a whole list", said.len());
    // One that reads gets all.
    assert_eq!(channel.ask_list().entries.len(), MANY);
    daemon.stop_and_expect_no_act();
}

/// Where nobody has to prove anything, a request must still be one.
#[test]
fn nonsense_where_anybody_may_fence() {
    let bed = Bed::of(Daemon::setup().tcp_for_anybody("everybody"));
    let channel = bed.daemon.tcp(0).clone();
    let said = |bytes: &[u8]| {
        let mut caller = channel.call();
        caller.send(bytes);
        caller.expect_end(DEADLINE)
    };
    let changed = |change: Change| {
        let mut packet = unsigned(REBOOT, "running");
        change(&mut packet);
        said(&packet)
    };
    assert_eq!(said(&unsigned(MONITOR, "")), [SUCCESS]);
    assert_eq!(changed(|packet| packet[0] = 0), [FAILED]);
    assert_eq!(changed(|packet| packet[3] = 2), [FAILED]);
    assert_eq!(changed(|packet| packet[40] = b'x'), [FAILED]);
    assert!(changed(|packet| packet[1] = 2).is_empty(), "it says that it is signed");
    assert!(said(&channel.terms.packet(OFF, "running")).is_empty(), "it is signed");
    assert_eq!(said(&[&unsigned(STATUS, "stopped")[..], &unsigned(OFF, "running")].concat()), [IS_OFF]);
    bed.nothing_was_done();
}
