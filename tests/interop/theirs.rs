//! What Debian's `fence_virtd` 4.12.1 does and ours must not: the reasons for Fencewire, reproduced on the real daemon.
//!
//! Each test is one row; its doc says what ours does instead. When one of these fails, the daemon has changed, and the
//! row should be looked at; it says nothing about Fencewire. Here are those of its serial listener, in `theirs_tcp.rs` those
//! of its TCP listener. Rows that neither on libvirt's test driver can show (a libvirtd that restarts, several hosts)
//! are not here.

#[path = "theirs_tcp.rs"]
mod tcp;

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fencewire_tests::fence_virt::FenceVirt;
use fencewire_tests::fence_virtd::{FenceVirtd, Mode};
use fencewire_tests::guest_channel::{
    ENTRY_LENGTH, FAILED, GuestChannel, IS_OFF, LIST, MAGIC, OFF, ON, REBOOT, REPLY_LENGTH, REQUEST_LENGTH, STATUS,
    SUCCESS, fresh_seqno, request,
};
use fencewire_tests::libvirt_file::{Guest, State, uuid_of};
use fencewire_tests::process::{DEADLINE, raise_file_limit, wait_until};

/// Long beside the 30 µs in which the daemon answers when it does.
const SILENCE: Duration = Duration::from_secs(1);

fn ask(channel: &mut GuestChannel, action: u8, target: &str) -> u8 {
    channel.ask(&request(action, target.as_bytes(), fresh_seqno()), DEADLINE)
}

fn three_guests() -> FenceVirtd {
    FenceVirtd::start(["vm1", "vm2", "vm3"].map(Guest::new))
}

/// Ours: acts on a whole valid frame only.
#[test]
fn theirs_powers_off_without_looking_at_the_magic() {
    let daemon = three_guests();
    let mut channel = daemon.channel("vm1");
    assert_eq!(ask(&mut channel, STATUS, "vm2"), SUCCESS, "on before");

    let mut frame = request(OFF, b"vm2", fresh_seqno());
    frame[..4].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
    assert_eq!(channel.ask(&frame, DEADLINE), SUCCESS);

    assert_eq!(ask(&mut channel, STATUS, "vm2"), IS_OFF, "off after a frame that is none");
}

/// Ours: finds the next magic at once.
#[test]
fn theirs_loses_its_place_after_a_torn_frame() {
    let daemon = FenceVirtd::start([Guest::new("vm1"), Guest::new("vm2"), Guest::new("vm3").state(State::Shutoff)]);
    let mut channel = daemon.channel("vm1");
    assert_eq!(ask(&mut channel, STATUS, "vm3"), IS_OFF, "the true answer");

    channel.send(&request(STATUS, b"vm2", fresh_seqno())[..40]);
    assert_eq!(ask(&mut channel, STATUS, "vm3"), SUCCESS, "the answer for vm2, taken for one for vm3");
    assert_eq!(ask(&mut channel, STATUS, "vm3"), FAILED, "the middle of a frame, read as an action");
    channel.send(&request(STATUS, b"vm3", fresh_seqno()));
    channel.expect_silence(Duration::from_millis(1500));

    assert_eq!(ask(&mut channel, STATUS, "vm3"), IS_OFF, "in step again after a second of silence");
}

/// Ours: a torn frame is never completed with the bytes of the next one.
#[test]
fn theirs_fences_by_half_a_frame_and_half_of_another() {
    let daemon = three_guests();
    let mut channel = daemon.channel("vm1");

    channel.send(&request(OFF, b"vm2", fresh_seqno())[..40]);
    assert_eq!(ask(&mut channel, STATUS, "vm3"), SUCCESS);

    assert_eq!(ask(&mut daemon.channel("vm3"), STATUS, "vm2"), IS_OFF, "off by half a request");
}

/// Ours: unaffected.
#[test]
fn theirs_lets_a_dribbling_guest_delay_another() {
    let daemon = three_guests();
    let mut quick = daemon.channel("vm1");
    let mut slow = daemon.channel("vm2");
    let status = |channel: &mut GuestChannel| {
        let started = Instant::now();
        assert_eq!(ask(channel, STATUS, "vm3"), SUCCESS);
        started.elapsed()
    };
    let alone = status(&mut quick);

    let done = AtomicBool::new(false);
    let frame = request(STATUS, b"vm3", fresh_seqno());
    slow.send(&frame[..1]);
    thread::scope(|scope| {
        scope.spawn(|| {
            for byte in &frame[1..] {
                slow.dribble(&[*byte], Duration::from_millis(50));
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        // Not always the first one: who asks again at once may be read again before the slow guest is.
        wait_until(Duration::from_secs(3), "a status to wait for a guest that sends a byte every 50 ms", || {
            (status(&mut quick) > Duration::from_millis(500)).then_some(())
        });
        done.store(true, Ordering::Relaxed);
    });

    assert!(alone < Duration::from_millis(100), "alone: {alone:?}");
}

/// Ours: gets the first one's answer.
#[test]
fn theirs_answers_a_repeated_frame_with_silence() {
    let daemon = three_guests();
    let mut channel = daemon.channel("vm1");
    let frame = request(OFF, b"vm2", fresh_seqno());
    assert_eq!(channel.ask(&frame, DEADLINE), SUCCESS);

    channel.send(&frame);
    channel.expect_silence(SILENCE);

    assert_eq!(ask(&mut channel, STATUS, "vm2"), IS_OFF, "the channel is alive; only the repeat got no answer");
}

/// Ours: what one guest asked has no part in the answer to another.
#[test]
fn theirs_takes_another_guests_request_for_a_repeat() {
    let daemon = three_guests();
    let seqno = fresh_seqno();
    assert_eq!(daemon.channel("vm1").ask(&request(REBOOT, b"vm2", seqno), DEADLINE), SUCCESS);
    assert_eq!(ask(&mut daemon.channel("vm1"), OFF, "vm2"), SUCCESS, "off since");

    let mut other = daemon.channel("vm3");
    other.send(&request(REBOOT, b"vm2", seqno));
    other.expect_silence(SILENCE);
    assert_eq!(other.ask(&request(ON, b"vm2", seqno), DEADLINE), SUCCESS, "another action: no repeat");
}

/// Ours: as long as the hypervisor takes.
#[test]
fn theirs_takes_a_second_for_a_reboot() {
    let daemon = three_guests();
    let mut channel = daemon.channel("vm1");

    let started = Instant::now();
    assert_eq!(ask(&mut channel, REBOOT, "vm2"), SUCCESS);

    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

/// Ours: in parallel.
#[test]
fn theirs_reboots_three_guests_in_three_seconds() {
    let daemon = three_guests();
    let started = Instant::now();

    thread::scope(|scope| {
        for (requester, target) in [("vm1", "vm2"), ("vm2", "vm3"), ("vm3", "vm1")] {
            let mut channel = daemon.channel(requester);
            scope.spawn(move || assert_eq!(ask(&mut channel, REBOOT, target), SUCCESS));
        }
    });

    assert!(started.elapsed() >= Duration::from_secs(3), "{:?}", started.elapsed());
}

/// Ours: an error.
#[test]
fn theirs_says_off_of_an_unknown_guest() {
    let daemon = three_guests();
    let mut client = FenceVirt::over(daemon.stream("vm1"));

    let finished = client.run(&["-o", "status", "-H", "nobody"]);

    assert_eq!(finished.stdout, "Status: OFF\n");
    assert_eq!(finished.code, Some(2));
}

/// Ours: on.
#[test]
fn theirs_lists_a_paused_guest_as_off() {
    let paused = Guest::new("vm2").state(State::Paused);
    let daemon = FenceVirtd::setup().mode(Mode::Serial).guest(Guest::new("vm1")).guest(paused).start();
    let mut client = FenceVirt::over(daemon.stream("vm1"));

    let list = client.run(&["-o", "list"]);
    let status = client.run(&["-o", "status", "-H", "vm2"]);

    let lines: BTreeSet<_> = list.stdout.lines().map(str::to_owned).collect();
    let line = |name, power| format!("{name:<32} {} {power}", uuid_of(name));
    assert_eq!(lines, BTreeSet::from([line("vm1", "on"), line("vm2", "off")]));
    assert_eq!((status.stdout.as_str(), status.code), ("Status: ON\n", Some(0)), "and yet its own status says on");
}

/// Ours: zeros.
#[test]
fn theirs_sends_bytes_of_its_stack_in_a_list() {
    let daemon = three_guests();

    let list = daemon.channel("vm1").ask_list(DEADLINE);

    assert_eq!(list.last, SUCCESS);
    assert_eq!(list.entries.len(), 3);
    let vm2 = list.entry("vm2").expect("vm2 is in the list");
    assert_eq!((vm2.uuid.as_str(), vm2.state), (uuid_of("vm2").as_str(), State::Running as u8));
    let stray: BTreeSet<_> = list.entries.iter().flat_map(|entry| [63, 127, 129].map(|at| entry.raw[at])).collect();
    assert_ne!(stray, BTreeSet::from([0]), "bytes 63, 127 and 129 come from nowhere");
}

/// Ours: complete.
#[test]
fn theirs_scrambles_the_list_of_two_hypervisors() {
    let here = ["here1", "here2", "here3", "here4"];
    let daemon = FenceVirtd::setup()
        .guests(here.map(Guest::new))
        .second_hypervisor(Guest::new("there1"))
        .second_hypervisor(Guest::new("there2"))
        .start();
    let mut channel = daemon.channel("here1");
    assert_eq!(ask(&mut channel, STATUS, "there1"), SUCCESS, "the second hypervisor's guests are known");

    // Read raw: the entries that are missing were sent as garbage, and garbage of zeros ends a list for its reader.
    channel.send(&request(LIST, b"", fresh_seqno()));
    let bytes = channel.read_up_to(1 << 16, SILENCE);

    let entries = &bytes[REPLY_LENGTH..bytes.len() - REPLY_LENGTH];
    let listed = |name: &str| {
        let whole =
            |entry: &[u8]| entry.starts_with(name.as_bytes()) && entry[64..].starts_with(uuid_of(name).as_bytes());
        entries.chunks_exact(ENTRY_LENGTH).any(whole)
    };
    assert_eq!(entries.len(), 7 * ENTRY_LENGTH, "room for six guests and the end");
    assert!(listed("there1") && listed("there2"), "the second hypervisor's guests are there");
    assert!(!here.iter().all(|name| listed(name)), "the first one's are not, or not all");
}

/// Ours: thousands.
#[test]
fn theirs_aborts_at_a_thousand_channels() {
    const MANY: usize = 1_200;
    raise_file_limit();
    let guests = (0..MANY).map(|number| Guest::new(&format!("vm{number}")));

    let mut daemon = FenceVirtd::setup().guests(guests).launch();
    // On a busy machine it has not got a thousand when it looks for the first time.
    daemon.wake(MANY);
    let finished = daemon.process().wait(DEADLINE);

    assert_eq!(finished.signal, Some(6), "SIGABRT: {}", finished.stderr);
    assert!(finished.stderr.contains("FD_SETSIZE"), "{}", finished.stderr);
}

/// Not a row, but what the others stand on: the real client's frame is the one that the beds build by hand.
#[test]
fn theirs_client_sends_the_frame_that_we_build_by_hand() {
    let folder = tempfile::tempdir().expect("a private folder");
    let mut client = FenceVirt::new(folder.path());
    let mut bridge = GuestChannel::connect(client.socket_path(), DEADLINE);
    client.wait_for_bridge(DEADLINE);

    let finished = thread::scope(|scope| {
        let run = scope.spawn(|| client.run(&["-o", "status", "-H", "nfs-server1"]));
        let frame = bridge.read(REQUEST_LENGTH, DEADLINE);
        let seqno = u32::from_le_bytes(frame[70..].try_into().expect("the last four bytes"));
        assert_eq!(frame, request(STATUS, b"nfs-server1", seqno));
        bridge.send(&[&MAGIC[..], &[IS_OFF]].concat());
        run.join().expect("the client ran")
    });

    assert_eq!((finished.stdout.as_str(), finished.code), ("Status: OFF\n", Some(2)));
    assert!(fs::exists(client.socket_path()).expect("the folder is there"));
}
