//! Callers of the control socket who do their worst: none keeps another from its answer, and none delays a fence.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use fencewire_tests::daemon::{Daemon, ask};
use fencewire_tests::guest_channel::{GuestChannel, OFF, ON, SUCCESS};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::{DEADLINE, raise_file_limit};
use serde_json::Value;

/// Long for what takes a millisecond, and far below what a caller may take.
const SOON: Duration = Duration::from_secs(1);

fn daemon() -> (Daemon, GuestChannel) {
    let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    let channel = daemon.channel("vm1");
    (daemon, channel)
}

#[track_caller]
fn call(daemon: &Daemon) -> UnixStream {
    UnixStream::connect(daemon.control()).expect("the daemon listens")
}

/// Says that a guest is fenced and started again, and the state is told, each in no time.
#[track_caller]
fn all_goes_on(daemon: &Daemon, channel: &mut GuestChannel) {
    for action in [OFF, ON] {
        let since = Instant::now();
        assert_eq!(ask(channel, action, "vm2"), SUCCESS);
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    }
    let since = Instant::now();
    let (status, _) = daemon.status();
    assert_eq!(status["state"], "serving");
    assert!(since.elapsed() < SOON * 2, "{:?}", since.elapsed());
}

/// The answer to these bytes, and that the daemon hangs up after it.
#[track_caller]
fn answer(daemon: &Daemon, bytes: &[u8]) -> Vec<u8> {
    let mut stream = call(daemon);
    stream.write_all(bytes).expect("the daemon reads");
    end_of(stream)
}

#[track_caller]
fn end_of(mut stream: UnixStream) -> Vec<u8> {
    stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(why) => assert_eq!(why.kind(), std::io::ErrorKind::ConnectionReset, "{why}"),
    }
    answer
}

#[test]
fn a_hundred_that_say_nothing() {
    let (daemon, mut channel) = daemon();
    let callers: Vec<UnixStream> = (0..100).map(|_| call(&daemon)).collect();
    all_goes_on(&daemon, &mut channel);
    // Each is hung up on in its time.
    for caller in callers {
        assert_eq!(end_of(caller), b"");
    }
    all_goes_on(&daemon, &mut channel);
}

#[test]
fn a_hundred_that_ask_and_do_not_read() {
    raise_file_limit();
    // More than a socket takes before anybody reads.
    let lost = tempfile::tempdir().expect("a private folder");
    let mut setup = Daemon::setup().served(["vm1", "vm2"].map(Guest::new));
    for number in 0..1_000 {
        setup = setup.channel("unix", &lost.path().join(format!("{number}.sock")), &format!("guest-{number}"));
    }
    let mut daemon = setup.start();
    let mut channel = daemon.channel("vm1");
    let (status, all) = daemon.status();
    assert_eq!((status["channels"].as_array().map(Vec::len), all), (Some(1_002), false));
    assert!(status.to_string().len() > 250_000, "{}", status.to_string().len());
    let callers: Vec<UnixStream> = (0..100)
        .map(|_| {
            let mut caller = call(&daemon);
            // It may be hung up on by now.
            drop(caller.write_all(b"status 1\n"));
            caller
        })
        .collect();
    all_goes_on(&daemon, &mut channel);
    drop(callers);
    let table = daemon.ask_status(&[]);
    assert_eq!((table.code, table.stderr.as_str()), (Some(1), ""));
    assert!(table.stdout.lines().count() > 1_000);
}

#[test]
fn a_thousand_channels_that_are_connected() {
    raise_file_limit();
    let guests: Vec<String> = (0..1_000).map(|number| format!("guest-{number}")).collect();
    let mut daemon = Daemon::serve(guests.iter().map(|name| Guest::new(name)));
    let (status, all) = daemon.status();
    let channels = status["channels"].as_array().expect("channels");
    assert!(all && channels.len() == 1_000 && channels.iter().all(|channel| channel["state"] == "connected"));
    let mut channel = daemon.channel("guest-7");
    let since = Instant::now();
    for _ in 0..20 {
        assert!(daemon.status().1);
    }
    assert_eq!(ask(&mut channel, OFF, "guest-8"), SUCCESS);
    assert!(since.elapsed() < DEADLINE, "{:?}", since.elapsed());
}

#[test]
fn junk() {
    let (daemon, mut channel) = daemon();
    let long = vec![b'x'; 100_000];
    for bytes in [
        &b"\n"[..],
        b"help\n",
        b"status\n",
        b"status 2\n",
        b"status 1 \n",
        b"STATUS 1\n",
        b"\0\0\0\n",
        &[0xff; 64],
        &long,
    ] {
        let mut stream = call(&daemon);
        drop(stream.write_all(bytes));
        let answer = end_of(stream);
        let value: Value = serde_json::from_slice(&answer).unwrap_or_else(|why| panic!("{bytes:?}: {why}: {answer:?}"));
        assert_eq!(value["version"], 1);
        assert!(value["error"].as_str().is_some_and(|why| why.contains("not understood")), "{value}");
    }
    // What follows a question is not read.
    let whole = answer(&daemon, b"status 1\nstatus 1\nrubbish");
    assert_eq!(whole.iter().position(|byte| *byte == b'\n'), Some(whole.len() - 1));
    all_goes_on(&daemon, &mut channel);
}

#[test]
fn half_a_question() {
    let (daemon, mut channel) = daemon();
    for half in [&b""[..], b"s", b"status 1"] {
        // And then an end, and then silence.
        let mut stream = call(&daemon);
        stream.write_all(half).expect("the daemon reads");
        stream.shutdown(std::net::Shutdown::Write).expect("a socket");
        assert_eq!(end_of(stream), b"");
        assert_eq!(answer(&daemon, half), b"");
    }
    // In pieces it is whole.
    let mut stream = call(&daemon);
    for byte in b"status 1\n" {
        stream.write_all(&[*byte]).expect("the daemon reads");
        std::thread::yield_now();
    }
    assert!(end_of(stream).ends_with(b"}\n"));
    all_goes_on(&daemon, &mut channel);
}

/// Whoever asks all the time is answered all the time, and costs a fence nothing.
#[test]
fn callers_that_come_and_go() {
    let (daemon, mut channel) = daemon();
    std::thread::scope(|scope| {
        let flood: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..50 {
                        drop(call(&daemon));
                        assert!(answer(&daemon, b"status 1\n").ends_with(b"}\n"));
                        let mut gone = call(&daemon);
                        drop(gone.write_all(b"status 1\n"));
                    }
                })
            })
            .collect();
        for _ in 0..10 {
            let since = Instant::now();
            assert_eq!(ask(&mut channel, OFF, "vm2"), SUCCESS);
            assert_eq!(ask(&mut channel, ON, "vm2"), SUCCESS);
            assert!(since.elapsed() < SOON * 2, "{:?}", since.elapsed());
        }
        for thread in flood {
            thread.join().expect("all are answered");
        }
    });
}
