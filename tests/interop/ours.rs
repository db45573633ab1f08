//! What our bridge does where Debian's `fence_virtd` does what it must not: `theirs.rs`, row by row, on our daemon.

use std::thread;
use std::time::{Duration, Instant};

use fencewire_tests::daemon::{Daemon, ask, settle, states};
use fencewire_tests::fence_virt::FenceVirt;
use fencewire_tests::guest_channel::{
    FAILED, GuestChannel, IS_OFF, MONITOR, OFF, ON, REBOOT, STATUS, SUCCESS, fresh_seqno, request,
};
use fencewire_tests::libvirt_file::{Guest, State, uuid_of};
use fencewire_tests::process::{DEADLINE, raise_file_limit, wait_until};

use crate::libvirtd::Libvirtd;

/// Nobody is fenced in so short a time who has to wait for somebody else's second.
const AT_ONCE: Duration = Duration::from_secs(1);

fn three_guests() -> Daemon {
    Daemon::serve(["vm1", "vm2", "vm3"].map(Guest::new))
}

/// Theirs: never looks at the serial magic.
#[test]
fn ours_acts_on_a_whole_valid_frame_only() {
    let mut daemon = three_guests();
    let mut channel = daemon.channel("vm1");

    let mut frame = request(OFF, b"vm2", fresh_seqno());
    frame[..4].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
    channel.send(&frame);

    // Replies come in the order of the requests: what comes is the answer to the second.
    assert_eq!(ask(&mut channel, STATUS, "vm2"), SUCCESS, "still on");
    daemon.wait_for_log("bytes that belong to no frame");
    daemon.stop_and_expect_no_act();
}

/// Theirs: a torn frame shifts the stream; every later request in it fails until 1 s of silence.
#[test]
fn ours_finds_the_next_frame_after_a_torn_one() {
    let guests = [Guest::new("vm1"), Guest::new("vm2"), Guest::new("vm3").state(State::Shutoff)];
    let mut daemon = Daemon::serve(guests);
    let mut channel = daemon.channel("vm1");

    let started = Instant::now();
    channel.send(&request(STATUS, b"vm2", fresh_seqno())[..40]);
    for _ in 0..3 {
        assert_eq!(ask(&mut channel, STATUS, "vm3"), IS_OFF, "the true answer");
    }
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
}

/// Theirs: half a frame to put one guest off, half of another's status: off.
#[test]
fn ours_never_completes_a_torn_frame_with_the_next() {
    let mut daemon = three_guests();
    let mut channel = daemon.channel("vm1");

    channel.send(&request(OFF, b"vm2", fresh_seqno())[..40]);
    assert_eq!(ask(&mut channel, STATUS, "vm3"), SUCCESS);

    assert_eq!(ask(&mut daemon.channel("vm3"), STATUS, "vm2"), SUCCESS, "still on");
    daemon.stop_and_expect_no_act();
}

/// Theirs: one thread; a guest that sends a byte every 50 ms makes every other guest's request wait 0.95 s.
#[test]
fn ours_lets_no_dribbling_guest_delay_another() {
    let mut daemon = three_guests();
    let (mut quick, mut slow) = (daemon.channel("vm1"), daemon.channel("vm2"));
    let frame = request(STATUS, b"vm3", fresh_seqno());

    thread::scope(|scope| {
        let dribbling = scope.spawn(|| slow.dribble(&frame, Duration::from_millis(30)));
        while !dribbling.is_finished() {
            let started = Instant::now();
            assert_eq!(ask(&mut quick, STATUS, "vm3"), SUCCESS);
            assert!(started.elapsed() < AT_ONCE / 2, "{:?}", started.elapsed());
        }
    });

    assert_eq!(slow.read(5, DEADLINE)[4], SUCCESS, "slow as it is, it is answered");
}

/// Theirs: a repeated frame within 10 s gets no answer at all.
#[test]
fn ours_gives_a_repeated_frame_the_first_ones_answer() {
    let mut daemon = three_guests();
    let mut channel = daemon.channel("vm1");
    let frame = request(OFF, b"vm2", fresh_seqno());
    assert_eq!(channel.ask(&frame, DEADLINE), SUCCESS);
    assert_eq!(ask(&mut channel, ON, "vm2"), SUCCESS);

    assert_eq!(channel.ask(&frame, DEADLINE), SUCCESS);

    assert_eq!(ask(&mut channel, STATUS, "vm2"), SUCCESS, "on: the repeat was answered and not carried out");
    let records = daemon.stop_and_read_records();
    let repeated: Vec<_> =
        records.iter().filter(|record| record["action"] == "off").map(|record| record["repeated"] == true).collect();
    assert_eq!(repeated, [false, true]);
}

/// Theirs: a repeated frame is one whoever sent it; another guest's request is taken for a repeat.
#[test]
fn ours_takes_no_other_guests_request_for_a_repeat() {
    let mut daemon = three_guests();
    let (mut one, mut other) = (daemon.channel("vm1"), daemon.channel("vm3"));
    let frame = request(REBOOT, b"vm2", fresh_seqno());
    assert_eq!(one.ask(&frame, DEADLINE), SUCCESS);
    assert_eq!(ask(&mut one, OFF, "vm2"), SUCCESS, "off since");

    assert_eq!(other.ask(&frame, DEADLINE), SUCCESS);

    assert_eq!(ask(&mut other, STATUS, "vm2"), SUCCESS, "on: it was carried out");
    let records = daemon.stop_and_read_records();
    assert!(records.iter().all(|record| record["repeated"] != true), "{records:#?}");
}

/// Theirs: at least 1.0006 s.
#[test]
fn ours_reboots_as_quickly_as_the_hypervisor() {
    let mut daemon = three_guests();
    let mut channel = daemon.channel("vm1");

    let started = Instant::now();
    assert_eq!(ask(&mut channel, REBOOT, "vm2"), SUCCESS);

    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
}

/// Theirs: 16.01 s.
#[test]
fn ours_reboots_sixteen_guests_in_parallel() {
    let requesters: Vec<_> = (0..16).map(|number| format!("requester{number}")).collect();
    let targets: Vec<_> = (0..16).map(|number| format!("target{number}")).collect();
    let all = [&requesters[..], &targets[..]].concat();
    let mut daemon = Daemon::serve(all.iter().map(|name| Guest::new(name)));
    let channels: Vec<_> = requesters.iter().map(|name| daemon.channel(name)).collect();

    let started = Instant::now();
    thread::scope(|scope| {
        for (mut channel, target) in channels.into_iter().zip(&targets) {
            scope.spawn(move || assert_eq!(ask(&mut channel, REBOOT, target), SUCCESS));
        }
    });
    let elapsed = started.elapsed();

    println!("16 reboots: {elapsed:?}");
    assert!(elapsed < AT_ONCE, "{elapsed:?}");
    settle();
    let states = states(&mut daemon.channel("target0"));
    assert!(states.values().all(|state| *state == State::Running as u8), "{states:?}");
}

/// Theirs: aborts at about 1,020.
#[test]
fn ours_serves_thousands_of_channels() {
    const CHANNELS: u16 = 3_000;
    raise_file_limit();
    let name = |number: u16| format!("vm{}", number % CHANNELS);
    // The limit that a service has unless somebody thought of it.
    let setup = Daemon::setup().file_limit(1_024).served((0..CHANNELS).map(|number| Guest::new(&name(number))));

    let started = Instant::now();
    let mut daemon = setup.start();
    let mut channels = daemon.channels();
    let up = started.elapsed();
    let started = Instant::now();
    for number in 0..CHANNELS {
        let channel = channels.get_mut(&name(number)).expect("each guest has one");
        assert_eq!(ask(channel, STATUS, &name(number + 1)), SUCCESS, "{}", name(number));
    }

    println!("{CHANNELS} channels: up in {up:?}, a status by each of them in {:?}", started.elapsed());
}

/// Theirs: "Status: OFF", exit 2.
#[test]
fn ours_says_an_error_of_an_unknown_guest() {
    let folder = tempfile::tempdir().expect("a private folder");
    let mut client = FenceVirt::new(folder.path());
    let daemon = Daemon::setup().known([Guest::new("vm1")]).channel("unix", client.socket_path(), "vm1").start();
    daemon.wait_connected(client.socket_path(), 1);

    let finished = client.run(&["-o", "status", "-H", "nobody"]);

    assert_eq!((finished.stdout.as_str(), finished.code), ("Permission denied\n", Some(3)));
}

/// Theirs: a paused guest is listed as `off`, and is ON by its own status.
#[test]
fn ours_lists_as_on_whatever_is_not_off() {
    let mut daemon = Daemon::setup()
        .served([Guest::new("vm1")])
        .known([
            Guest::new("running"),
            Guest::new("blocked").state(State::Blocked),
            Guest::new("paused").state(State::Paused),
            Guest::new("suspended").state(State::PmSuspended),
            Guest::new("in-shutdown").state(State::Shutdown),
            Guest::new("crashed").state(State::Crashed),
            Guest::new("stateless").state(State::NoState),
            Guest::new("off").state(State::Shutoff),
        ])
        .start();
    let mut channel = daemon.channel("vm1");

    let listed = states(&mut channel);

    for (guest, status, state) in [
        ("running", SUCCESS, State::Running),
        ("blocked", SUCCESS, State::Running),
        ("paused", SUCCESS, State::Running),
        ("suspended", SUCCESS, State::Running),
        ("in-shutdown", SUCCESS, State::Running),
        ("crashed", FAILED, State::Running),
        ("stateless", FAILED, State::Running),
        ("off", IS_OFF, State::Shutoff),
    ] {
        assert_eq!(listed[guest], state as u8, "{guest} in the list");
        assert_eq!(ask(&mut channel, STATUS, guest), status, "status of {guest}");
    }
}

/// Theirs: after a libvirtd restart it stays up, deaf to new guests.
#[test]
fn ours_reconnects_after_a_libvirtd_restart() {
    const GUEST: &str = "test";
    let mut libvirtd = Libvirtd::start();
    let setup = Daemon::setup().uri(&libvirtd.uri()).served([Guest::new(GUEST)]);
    let mut daemon = setup.group("alone", &[GUEST], "allow_self = true").start();
    let mut channel = daemon.channel(GUEST);
    assert_eq!(ask(&mut channel, STATUS, GUEST), SUCCESS, "before");

    libvirtd.stop();
    for action in [MONITOR, STATUS, OFF] {
        assert_eq!(ask(&mut channel, action, GUEST), FAILED, "action {action} without a libvirtd");
    }

    libvirtd.start_again();
    for action in [MONITOR, STATUS] {
        assert_eq!(ask(&mut channel, action, GUEST), SUCCESS, "action {action} after the restart\n{}", daemon.log());
    }
    // A guest that has put itself off is not there to be answered.
    channel.send(&request(OFF, GUEST.as_bytes(), fresh_seqno()));
    daemon.wait_for_log("outcome=\"confirmed off\"");
    settle();
    assert_eq!(ask(&mut channel, STATUS, GUEST), IS_OFF);
}

/// Theirs: deaf to what comes after a restart of libvirtd; ours also comes up before it.
#[test]
fn ours_serves_as_soon_as_a_late_libvirtd_is_there() {
    let mut libvirtd = Libvirtd::start();
    libvirtd.stop();
    let setup = Daemon::setup().uri(&libvirtd.uri()).served([Guest::new("test")]);
    let mut daemon = setup.group("alone", &["test"], "allow_self = true").launch();
    let mut channel: GuestChannel = daemon.channel("test");
    channel.accept(DEADLINE);
    settle();
    assert_eq!(ask(&mut channel, MONITOR, ""), FAILED, "nobody can be asked yet");
    assert_eq!(ask(&mut channel, STATUS, "test"), FAILED, "unknown is not off");

    libvirtd.start_again();
    wait_until(DEADLINE, "a status of a guest of the late libvirtd", || {
        (ask(&mut channel, STATUS, "test") == SUCCESS).then_some(())
    });
}

/// Theirs: bytes 63, 127 and 129 come from its stack.
#[test]
fn ours_sends_zeros_where_a_list_says_nothing() {
    let mut daemon = Daemon::serve(["vm1", "vm2", "vm3"].map(Guest::new));

    let list = daemon.channel("vm1").ask_list(DEADLINE);

    assert_eq!(list.last, SUCCESS);
    assert_eq!(list.entries.len(), 2);
    for entry in list.entries {
        let mut expected = vec![0; 130];
        expected[..3].copy_from_slice(entry.name.as_bytes());
        expected[64..100].copy_from_slice(uuid_of(&entry.name).as_bytes());
        expected[128] = State::Running as u8;
        assert_eq!(entry.raw, expected);
    }
}
