//! Rule 2: nobody is fenced whom nobody asked to fence. Here: bytes that are no request. What is a request and must not
//! be carried out any more is in `rule2_out_of_time`.

use std::thread;
use std::time::{Duration, Instant};

use fencewire_core::listener::SETTLE;
use fencewire_tests::bridge_bed::{BridgeBed, flush, settle};
use fencewire_tests::daemon::Daemon;
use fencewire_tests::guest_channel::{
    DENIED, FAILED, GuestChannel, MONITOR, OFF, ON, REBOOT, REQUEST_LENGTH, STATUS, SUCCESS,
};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::DEADLINE;
use fencewire_tests::scripted::Call;
use rustix::process::Signal;

use crate::common::{ask, bed, expect_nothing_done, frame, three};

/// Bytes from a seed, the same in every run.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// Rule 2, noise: a megabyte of it does nothing, and the frame after it is understood.
#[test]
fn noise_fences_nobody() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    for seed in 1..=256 {
        vm1.send(&noise(4_096, seed));
    }
    expect_nothing_done(&hypervisor, &mut vm1, "vm2");
}

/// Rule 2, torn frame: an `off` that stops anywhere before its last byte does nothing, and hides nothing that follows.
#[test]
fn a_torn_frame_fences_nobody() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    for length in 0..REQUEST_LENGTH {
        vm1.send(&frame(OFF, "vm2")[..length]);
        assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "after {length} bytes of an off");
    }
    // Without its beginning, likewise.
    for from in 1..REQUEST_LENGTH {
        vm1.send(&frame(REBOOT, "vm2")[from..]);
        assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "after a reboot without its first {from} bytes");
    }
    expect_nothing_done(&hypervisor, &mut vm1, "vm2");
}

/// Rule 2, wrong magic: what does not begin as a request is none.
#[test]
fn a_frame_with_another_magic_fences_nobody() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    for magic in [*b"\xde\xad\xbe\xef", *b"abbb", *b"bbba", *b"ABBA", [0; 4], [0xff; 4]] {
        let mut frame = frame(OFF, "vm2");
        frame[..4].copy_from_slice(&magic);
        vm1.send(&frame);
    }
    expect_nothing_done(&hypervisor, &mut vm1, "vm2");
}

/// What is done to a frame's bytes.
type Damage = fn(&mut [u8]);

/// Rule 2, damaged frame: one that is whole and says nothing is answered "failed", and nothing is done.
#[test]
fn a_frame_that_says_nothing_fences_nobody() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    let damages: [(&str, Damage); 7] = [
        ("action 0", |frame| frame[4] = 0),
        ("action 7", |frame| frame[4] = 7),
        ("action 0x81", |frame| frame[4] = 0x81),
        ("a flag that nobody knows", |frame| frame[5] = 2),
        ("bytes after the name's end", |frame| frame[40] = b'x'),
        ("no end of the name", |frame| frame[6..70].fill(b'v')),
        ("no name", |frame| frame[6..70].fill(0)),
    ];
    for (what, damage) in damages {
        let mut frame = frame(OFF, "vm2");
        damage(&mut frame);
        assert_eq!(vm1.ask(&frame, DEADLINE), FAILED, "{what}");
    }
    expect_nothing_done(&hypervisor, &mut vm1, "vm2");
}

/// Rule 2, stale bytes: what comes in the first 200 ms after the bridge has connected may have waited for it in the
/// channel since who knows when.
#[test]
fn bytes_of_the_first_moment_after_connecting_fence_nobody() {
    // That they came in that time is certain only where they were sent well within it after the bridge was started.
    for _ in 0..10 {
        let hypervisor = three();
        let started = Instant::now();
        let bed = BridgeBed::setup(&hypervisor).channels(["vm1"]).launch();
        let mut vm1 = bed.channel("vm1");
        vm1.accept(DEADLINE);
        vm1.send(&frame(OFF, "vm2"));
        let in_time = started.elapsed() < Duration::from_millis(60);
        settle([&mut vm1]);
        if in_time {
            return expect_nothing_done(&hypervisor, &mut vm1, "vm2");
        }
    }
    panic!("no bridge was connected within 60 ms, ten times over");
}

/// Rule 2, stale bytes: what a virtio port has kept is handed over when the guest comes to it, which may be long after the
/// bridge has connected. It comes first and at once; where the operator lets such ports fence, all of that is discarded.
#[test]
fn what_comes_first_by_a_virtio_port_fences_nobody_however_late_it_comes() {
    for count in [1, 20] {
        let hypervisor = three();
        let setup = BridgeBed::setup(&hypervisor).channel("vm1", "port = \"virtio\"");
        let bed = setup.wire("classic = true\nclassic_virtio = true").launch();
        let mut vm1 = bed.channel("vm1");
        vm1.accept(DEADLINE);
        thread::sleep(3 * Duration::from_millis(SETTLE.0));
        let kept: Vec<u8> = (0..count).flat_map(|_| frame(OFF, "vm2")).collect();
        vm1.send(&kept);
        settle([&mut vm1]);
        assert_eq!(hypervisor.count(Call::Destroy, "vm2"), 0, "{count}");
        assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "what comes now is heard");
    }
}

/// Rule 2, stale bytes: where the bridge listens, they wait for as long as it takes to be let in.
#[test]
fn bytes_that_waited_for_the_bridge_to_answer_the_call_fence_nobody() {
    const CALLERS: usize = 4;
    let setup = Daemon::setup().served([Guest::new("vm1")]).known([Guest::new("vm2")]);
    let path = setup.folder().join("called.sock");
    let mut daemon = setup.channel("unix-listen", &path, "vm2").start();
    let mut callers: Vec<_> = (0..CALLERS).map(|_| GuestChannel::connect(&path, DEADLINE)).collect();
    settle(&mut callers);
    let mut waiting = GuestChannel::connect(&path, DEADLINE);
    waiting.send(&frame(OFF, "vm1"));
    // It has to wait until one of the others goes.
    callers.pop();
    settle([&mut waiting]);
    daemon.stop_and_expect_no_act();
}

/// Rule 2, stale bytes: a bridge that connects and is then held up, as by a busy machine, still reads old bytes as old.
#[test]
fn bytes_that_a_bridge_reads_late_after_connecting_fence_nobody() {
    let names: Vec<String> = (0..400).map(|number| format!("vm{number:03}")).collect();
    for _ in 0..10 {
        let mut daemon = Daemon::setup().served(names.iter().map(|name| Guest::new(name))).launch();
        let mut first = daemon.channel("vm000");
        first.accept(DEADLINE);
        daemon.process().signal(Signal::STOP);
        first.send(&frame(OFF, "vm001"));
        thread::sleep(Duration::from_millis(300));
        // It was still connecting to the others then, and had read nothing, unless it has said that it serves.
        let was_held_up = daemon.logged(" serving ").is_none();
        daemon.process().signal(Signal::CONT);
        settle([&mut first]);
        if was_held_up {
            return daemon.stop_and_expect_no_act();
        }
    }
    panic!("no bridge was held up while it connected, ten times over");
}

/// Rule 2, reset: a guest that was fenced has nothing more to say: what it had begun to say is not carried on with.
#[test]
fn the_bytes_of_a_guest_before_and_after_its_reboot_are_no_frame() {
    let hypervisor = three();
    let (bed, mut vm1) = bed(&hypervisor);
    let (mut vm2, mut vm3) = (bed.channel("vm2"), bed.channel("vm3"));
    let off = frame(OFF, "vm3");
    vm2.send(&off[..40]);
    assert_eq!(ask(&mut vm3, STATUS, "vm1"), SUCCESS, "the bridge has read that half");
    assert_eq!(ask(&mut vm1, REBOOT, "vm2"), SUCCESS);
    settle([&mut vm2]);
    vm2.send(&off[40..]);
    flush(&mut vm2);
    assert_eq!(hypervisor.count(Call::Destroy, "vm3"), 0);
    assert_eq!(ask(&mut vm2, OFF, "vm3"), SUCCESS, "a whole request of the new run is one");
}

/// Rule 2, reset: what comes from a guest in the first moments after its reboot may be from before.
#[test]
fn bytes_of_the_first_moment_after_a_reboot_fence_nobody() {
    for _ in 0..10 {
        let hypervisor = three();
        let (bed, mut vm1) = bed(&hypervisor);
        let mut vm2 = bed.channel("vm2");
        let asked = Instant::now();
        assert_eq!(ask(&mut vm1, REBOOT, "vm2"), SUCCESS);
        vm2.send(&frame(OFF, "vm3"));
        let in_time = asked.elapsed() < Duration::from_millis(60);
        settle([&mut vm2]);
        if in_time {
            return assert_eq!(hypervisor.count(Call::Destroy, "vm3"), 0);
        }
    }
    panic!("no reboot was done within 60 ms, ten times over");
}

/// Rule 2, questions: whatever else is asked, nothing is done to anybody's power.
#[test]
fn asking_changes_nothing() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    assert_eq!(ask(&mut vm1, MONITOR, "vm2"), SUCCESS);
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS);
    assert_eq!(ask(&mut vm1, STATUS, "vm1"), SUCCESS, "its own");
    assert_eq!(ask(&mut vm1, STATUS, "vm9"), DENIED, "a stranger's");
    assert_eq!(vm1.ask_list(DEADLINE).entries.len(), 2);
    assert_eq!(ask(&mut vm1, ON, "vm2"), SUCCESS, "it is on: nothing is to be done");
    expect_nothing_done(&hypervisor, &mut vm1, "vm2");
}
