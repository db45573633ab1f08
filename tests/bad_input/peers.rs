//! Who asks and does not read, or asks too much at once.

use std::time::Duration;

use fencewire_tests::daemon::{Daemon, ask, settle};
use fencewire_tests::guest_channel::{
    ENTRY_LENGTH, GuestChannel, IS_OFF, LIST, REPLY_LENGTH, STATUS, SUCCESS, fresh_seqno, request,
};
use fencewire_tests::libvirt_file::{Guest, State};
use fencewire_tests::process::{DEADLINE, raise_file_limit, wait_until};

use crate::{Bed, is_served};

/// More than a socket holds for who does not read.
const MANY: usize = 3_000;

/// The witness and the one who does not read, with many others on their lists.
fn many() -> (Daemon, GuestChannel, GuestChannel) {
    let others = (0..MANY).map(|number| Guest::new(&format!("vm{number}")).state(State::Shutoff));
    let mut daemon = Daemon::setup().known(others).served(["deaf", "witness"].map(Guest::new)).start();
    let (deaf, witness) = (daemon.channel("deaf"), daemon.channel("witness"));
    (daemon, deaf, witness)
}

#[test]
fn a_list_that_nobody_reads() {
    let (mut daemon, mut deaf, mut witness) = many();

    deaf.send(&request(LIST, b"", fresh_seqno()));
    let line = wait_until(DEADLINE, "the list to be given up", || {
        assert_eq!(ask(&mut witness, STATUS, "vm0"), IS_OFF, "the others are served");
        daemon.logged("nobody read the reply: dropped")
    });
    assert!(line.contains(&format!("channel=\"{}\" guest=deaf", deaf.path().display())), "{line}");

    // What was sent before is there, and it is a part of a list.
    deaf.send(&request(STATUS, b"vm0", fresh_seqno()));
    assert_eq!(ask(&mut witness, STATUS, "vm0"), IS_OFF);
    let mut bytes = Vec::new();
    wait_until(DEADLINE, "the answer to the status after the list's part", || {
        bytes.extend(deaf.read_up_to(1 << 16, Duration::from_millis(1)));
        bytes.ends_with(b"abba\x02").then_some(())
    });
    assert!(bytes.len() < REPLY_LENGTH + MANY * ENTRY_LENGTH, "{} bytes are a whole list", bytes.len());
    assert_eq!(ask(&mut deaf, STATUS, "vm0"), IS_OFF);
    daemon.stop_and_expect_no_act();
}

#[test]
fn a_list_that_is_read_late() {
    let (mut daemon, mut late, mut witness) = many();

    late.send(&request(LIST, b"", fresh_seqno()));
    for _ in 0..10 {
        assert_eq!(ask(&mut witness, STATUS, "vm0"), IS_OFF, "the others are served");
    }

    let list = late.read(REPLY_LENGTH + (MANY + 2) * ENTRY_LENGTH + REPLY_LENGTH, DEADLINE);
    assert!(list.starts_with(b"abba\xfd") && list.ends_with(b"abba\x00"), "from its beginning to its end");
    assert_eq!(ask(&mut late, STATUS, "vm0"), IS_OFF);
    daemon.stop_and_expect_no_act();
}

#[test]
fn a_list_whose_reader_goes_away() {
    let (mut daemon, mut gone, mut witness) = many();

    for _ in 0..5 {
        gone.send(&request(LIST, b"", fresh_seqno()));
        assert_eq!(ask(&mut witness, STATUS, "vm0"), IS_OFF, "the others are served");
        gone.close();
        gone.accept(DEADLINE);
        settle();
    }

    assert_eq!(ask(&mut gone, STATUS, "vm0"), IS_OFF);
    daemon.stop_and_expect_no_act();
}

/// Replies that nobody reads: each is small, together they fill the socket.
#[test]
fn statuses_that_nobody_reads() {
    let (mut bed, mut deaf) = Bed::with_one();

    for _ in 0..2_000 {
        deaf.send(&request(STATUS, b"running", fresh_seqno()));
        bed.others_are_served();
    }

    let bytes = deaf.read(REPLY_LENGTH, DEADLINE);
    assert_eq!(bytes, [b'a', b'b', b'b', b'a', SUCCESS]);
    // With somebody at its end the bridge would wait for the last reply to be read before it stops.
    drop(deaf);
    bed.nothing_was_done();
}

/// Everybody talks nonsense at once, and everybody is served.
#[test]
fn garbage_on_every_channel_at_once() {
    raise_file_limit();
    let names: Vec<_> = (0..100).map(|number| format!("misused{number}")).collect();
    let mut bed = Bed::start(names.iter().map(|name| Guest::new(name)));
    let mut channels: Vec<_> = names.iter().map(|name| bed.daemon.channel(name)).collect();

    for round in 0..20_u8 {
        for channel in &mut channels {
            channel.send(&[round; 100]);
        }
        bed.others_are_served();
    }

    channels.iter_mut().for_each(is_served);
    bed.nothing_was_done();
}
