//! Names of guests: those that are odd and right, and those that are wrong.

use fencewire_tests::daemon::{Daemon, ask};
use fencewire_tests::guest_channel::{DENIED, FAILED, IS_OFF, OFF, ON, REBOOT, STATUS, SUCCESS, fresh_seqno, request};
use fencewire_tests::libvirt_file::{Guest, uuid_of};
use fencewire_tests::process::DEADLINE;

use crate::{Bed, is_served};

#[test]
fn names_that_are_odd_and_right() {
    let longest = "n".repeat(63);
    let names =
        [&longest, "x", "a b", " begins", "ends ", "büro", "日本", "a,b;c", "a=b", "<&>'\"", "-o", "UPPER", "\\"];
    let mut daemon = Daemon::setup().known(names.map(Guest::new)).served([Guest::new("asker")]).start();
    let mut channel = daemon.channel("asker");

    for name in names {
        for (action, then) in [(STATUS, SUCCESS), (OFF, IS_OFF), (ON, SUCCESS), (REBOOT, SUCCESS)] {
            assert_eq!(ask(&mut channel, action, name), SUCCESS, "{name:?} action {action}");
            assert_eq!(ask(&mut channel, STATUS, name), then, "{name:?} after action {action}");
        }
    }
    let list = channel.ask_list(DEADLINE);
    for name in names {
        assert_eq!(list.entry(name).map(|entry| entry.uuid.clone()), Some(uuid_of(name)), "{name:?} in the list");
    }
}

/// The wire has no room for it, or would take a part of it for the beginning of a frame: its UUID stands for it.
#[test]
fn names_that_go_by_their_uuid() {
    let names = ["n".repeat(64), "n".repeat(200), "cabbage-abba".to_owned(), "é".repeat(32)];
    let mut daemon =
        Daemon::setup().known(names.iter().map(|name| Guest::new(name))).served([Guest::new("asker")]).start();
    let mut channel = daemon.channel("asker");

    let list = channel.ask_list(DEADLINE);
    for name in &names {
        let uuid = uuid_of(name);
        assert_eq!(list.entry(&uuid).map(|entry| &entry.uuid), Some(&uuid), "{name:?} in the list");
        for (action, expected) in
            [(STATUS, SUCCESS), (OFF, SUCCESS), (STATUS, IS_OFF), (ON, SUCCESS), (STATUS, SUCCESS)]
        {
            assert_eq!(ask(&mut channel, action, &uuid), expected, "{name:?} action {action}");
        }
    }
}

/// A frame with one of these says nothing: it is answered with "failed".
#[test]
fn names_that_are_none() {
    let (bed, mut channel) = Bed::with_one();
    let longest = [b'n'; 64];

    for name in [
        &b""[..],
        &longest,
        b"running\0x",
        b"running\0\0\0\0\0running",
        b"\0running",
        b"running\n",
        b"run\nning",
        b"run\tning",
        b"running\r",
        b"running\x7f",
        b"\x1b[2Jrunning",
        "running\u{85}".as_bytes(),
        b"running\xff",
        b"\xc3",
        b"\xc0\x80",
        b"\xed\xa0\x80",
    ] {
        for action in [STATUS, OFF, REBOOT, ON] {
            let frame = request(action, name, fresh_seqno());
            assert_eq!(
                channel.ask(&frame, DEADLINE),
                FAILED,
                "action {action} of {:?}",
                name.escape_ascii().to_string()
            );
        }
    }
    is_served(&mut channel);

    let line = bed.daemon.wait_for_log("a frame that says nothing: answered with \"failed\"");
    assert!(line.contains(&format!("channel=\"{}\" guest=misused why=", channel.path().display())), "{line}");
    bed.nothing_was_done();
}

/// No group has a guest of such a name.
#[test]
fn names_that_are_nobodys() {
    let (bed, mut channel) = Bed::with_one();
    let uuid = uuid_of("running");
    let beyond = format!("{uuid}0");

    for name in [
        "nobody",
        "../../etc",
        " running",
        "running ",
        "Running",
        "running.",
        "runnin",
        "%s%n",
        "*",
        ".",
        "/",
        "1",
        "üñ",
        "00000000-0000-0000-0000-000000000000",
        &uuid[..35],
        &beyond,
        &uuid.replace('-', ""),
    ] {
        for action in [STATUS, OFF, REBOOT, ON] {
            assert_eq!(ask(&mut channel, action, name), DENIED, "action {action} of {name:?}");
        }
    }
    is_served(&mut channel);

    let line = bed.daemon.wait_for_log("target=\"nobody\"");
    assert!(line.contains("requester=\"misused\"") && line.contains("outcome=\"denied\""), "{line}");
    bed.nothing_was_done();
}

/// A frame with the magic in its name is a torn frame and the beginning of another, which never ends.
#[test]
fn a_name_with_the_magic_in_it() {
    let (bed, mut channel) = Bed::with_one();

    for name in ["abba", "abba-1", "cabbage-abba", "running-abba"] {
        channel.send(&request(OFF, name.as_bytes(), fresh_seqno()));
        is_served(&mut channel);
    }

    let line = bed.daemon.wait_for_log("a frame stopped before its end");
    assert!(line.contains(&format!("channel=\"{}\" guest=misused bytes=", channel.path().display())), "{line}");
    bed.nothing_was_done();
}
