//! How a channel lies, with a real one: what it keeps, tears, glues together and hands over later, and what must not come
//! of it. Power that nobody has asked for is looked for in what libvirt was told.
//!
//! | the channel | here |
//! |---|---|
//! | keeps what a guest wrote while no bridge was there, for the next that comes | `what_was_written_before_the_bridge_came_fences_nobody`, and `…_where_classic_virtio_may_fence` |
//! | hands over half a frame, and then a whole one | `half_a_frame_hides_no_request`, `a_reset_in_the_midst_of_a_frame_is_seen_by_nobody_and_harms_nothing` |
//! | keeps an answer until the next agent opens it | `an_answer_that_nobody_took_answers_no_other_request` |
//! | hands what was for a dead guest to the rebooted one | `an_answer_for_a_dead_guest_is_none_for_the_rebooted_one` |
//! | takes nothing more, for nobody reads at the other end | `nobody_waits_for_a_host_that_does_not_read` |
//! | says nothing, or at once, of a host that went away | `a_bridge_that_was_killed_is_not_waited_for_and_found_again` |
//! | drops what was said before a close | `a_bridge_that_is_stopped_says_first_what_came_of_it` |
//! | is flooded by its guest | `a_guest_that_floods_stops_no_other` |

use std::thread;
use std::time::{Duration, Instant};

use fencewire_tests::daemon::acts;
use fencewire_tests::guest::{Guest, SERIAL};
use fencewire_tests::guest_channel::{OFF, REQUEST_LENGTH, STATUS, fresh_seqno, request};
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine};
use rustix::process::Signal;
use std::os::unix::net::UnixStream;

use crate::common::{ASKER, Bed, TARGET, WAYS, Way, make_raw, setup, virtio_device, wait_connected, writing};

/// Long beside the 200 ms in which a bridge that has connected takes nothing.
const LATER: Duration = Duration::from_secs(2);

fn off() -> [u8; REQUEST_LENGTH] {
    request(OFF, TARGET.as_bytes(), fresh_seqno())
}

#[test]
fn what_was_written_before_the_bridge_came_fences_nobody() {
    let host = Host::start();
    let [asker] = Guest::boot(&host, [ASKER]);
    let target = host.run(&Machine::new(TARGET));
    make_raw(&asker);
    let device = virtio_device(&asker);
    asker.done(&writing(&off(), SERIAL));
    // Our agent is told at once that nobody is there; by the serial port nothing is to be seen. Others wait.
    let nobody = asker.run("fence_wire -o off -n target");
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.elapsed < Duration::from_secs(3), "{nobody:?}");
    let stuck = asker.begin_for(&writing(&off(), &device), DEADLINE * 3);
    let busy = asker.run("fence_wire -o off -n target -t 1");
    assert_eq!(busy.code, Some(1), "{busy:?}");

    // As it is without classic_virtio = true: how long a guest takes to hand over what it kept has no bound.
    let mut daemon = fencewire_tests::daemon::Daemon::setup()
        .uri(&host.uri())
        .group("all", &[ASKER, TARGET], "")
        .virtio_channel("unix", &asker.virtio(), ASKER)
        .channel("unix", &asker.serial(), ASKER)
        .start();
    wait_connected(&daemon, &[&asker], 1);
    assert_eq!(stuck.end().code, Some(0), "it was written when somebody came");
    assert_eq!(asker.run("fence_wire -o status -n target").code, Some(0), "what comes now is heard");
    assert_eq!(asker.run("fence_wire -D /dev/ttyS1 -o status -n target").code, Some(0));
    assert!(target.lives());
    daemon.stop_and_expect_no_act();
}

/// How the guest comes to have waited with what it had to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    /// It runs, and says it as soon as somebody is there.
    Runs,
    /// It is suspended when somebody comes, and goes on long after that.
    IsSuspended,
    /// It was reset before somebody came: from within, and by libvirt.
    WasReset,
}

/// Where the operator lets guests fence over fence-virt's wire by their virtio ports. A request of before is none all the
/// same, over which nobody has any say who starts a bridge; one of now is carried out.
#[test]
fn what_was_written_before_the_bridge_came_fences_nobody_where_classic_virtio_may_fence() {
    let host = Host::start();
    let [asker] = Guest::boot(&host, [ASKER]);
    let mut target = host.run(&Machine::new(TARGET));
    for (nth, waited) in [Waited::Runs, Waited::IsSuspended, Waited::WasReset, Waited::Runs].into_iter().enumerate() {
        let device = virtio_device(&asker);
        let stuck = asker.begin_for(&writing(&off(), &device), DEADLINE * 3);
        let waits = format!("until ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q '{device}$'; do usleep 10000; done");
        asker.done(&waits);
        match waited {
            Waited::Runs => {}
            Waited::IsSuspended => drop(host.virsh(&["suspend", ASKER])),
            Waited::WasReset => {
                asker.resets(|asker| drop(asker.begin("reboot -f")));
                drop(asker.begin_for(&writing(&off(), &device), DEADLINE * 3));
                asker.done(&waits);
                asker.resets(|_| drop(host.virsh(&["reset", ASKER])));
            }
        }
        let mut daemon = setup(&host, &[&asker]).start();
        wait_connected(&daemon, &[&asker], 1);
        if waited == Waited::IsSuspended {
            thread::sleep(LATER);
            host.virsh(&["resume", ASKER]);
        }
        if waited != Waited::WasReset {
            assert_eq!(stuck.end().code, Some(0), "{waited:?}: it was written when somebody came");
        }
        for way in [Way::VirtioClassic, Way::VirtioNative] {
            let done = asker.run(&format!("{} -o status -n target -t 8", way.agent()));
            assert_eq!(done.code, Some(0), "{waited:?}, {way:?}: what comes now is heard: {done:?}\n{}", daemon.log());
        }
        assert_eq!(
            (host.told("virDomainDestroy", TARGET), target.lives()),
            (nth, true),
            "{waited:?}\n{}",
            daemon.log()
        );
        let done = asker.run(&format!("{} -o off -n target", Way::VirtioClassic.agent()));
        assert_eq!((done.code, target.lives()), (Some(0), false), "{waited:?}: {done:?}\n{}", daemon.log());
        let records = daemon.stop_and_read_records();
        assert_eq!(acts(&records).len(), 1, "{waited:?}: the one that was asked for: {records:#?}");
        target = host.switch_on(TARGET);
    }
}

/// Of fence-virt's wire, and then a whole one of either. Its last byte is a zero, and so is the first of ours: with
/// ours behind it a frame that lacks that byte alone is whole.
#[test]
fn half_a_frame_hides_no_request() {
    let bed = Bed::start();
    let target = bed.target();
    make_raw(&bed.asker);
    for way in WAYS {
        let device = way.device(&bed.asker);
        let most = if way.is_native() { REQUEST_LENGTH - 2 } else { REQUEST_LENGTH - 1 };
        for length in [1, 4, 5, 9, 40, REQUEST_LENGTH - 5, most] {
            bed.asker.done(&writing(&off()[..length], &device));
            let done = bed.ask(way, "-o status -n target -t 4");
            assert_eq!(done.code, Some(0), "{way:?}, after {length} bytes: {done:?}\n{}", bed.daemon.log());
        }
    }
    assert_eq!((bed.host.told("virDomainDestroy", TARGET), target.lives()), (0, true));
}

#[test]
fn a_reset_in_the_midst_of_a_frame_is_seen_by_nobody_and_harms_nothing() {
    let bed = Bed::start();
    let target = bed.target();
    make_raw(&bed.asker);
    for way in WAYS {
        bed.asker.done(&writing(&off()[..40], &way.device(&bed.asker)));
    }
    bed.asker.resets(|asker| drop(asker.begin("reboot -f")));
    for way in WAYS {
        assert_eq!(bed.code(way, "-o status -n target -t 4"), 0, "{way:?}");
    }
    let ends = bed.daemon.log().lines().filter(|line| line.contains("connection ended")).count();
    assert_eq!(ends, 0, "the channel does not say that the guest was reset");
    assert_eq!((bed.host.told("virDomainDestroy", TARGET), target.lives()), (0, true));
}

/// An agent asks for one guest and is killed, now sooner, now later; the next one asks for the other.
#[test]
fn an_answer_that_nobody_took_answers_no_other_request() {
    let bed = Bed::start();
    let _target = bed.target();
    bed.host.define(&Machine::new("other"));
    for way in WAYS {
        for (nth, ms) in [1, 15, 30, 45, 60, 75, 90, 120].into_iter().enumerate() {
            let [(first, _), (second, code)] =
                if nth % 2 == 0 { [("other", 2), ("target", 0)] } else { [("target", 0), ("other", 2)] };
            let agent = way.agent();
            let killed = format!("{agent} -o status -n {first} & usleep {ms}000; kill -9 $!; wait $! 2>/dev/null; ");
            let done = bed.asker.run(&format!("{killed} exec {agent} -o status -n {second}"));
            assert_eq!(done.code, Some(code), "{way:?}, killed after {ms} ms: {done:?}");
        }
    }
}

/// The answer to an "off" comes when the guest that has asked for it is being reset. The same byte would be a "yes, it runs"
/// and a "yes, it is off" to what it asks next.
#[test]
fn an_answer_for_a_dead_guest_is_none_for_the_rebooted_one() {
    let bed = Bed::with(|setup| setup.hypervisor("deadline_ms = 3000"));
    bed.host.define(&Machine::new("other"));
    for (nth, way) in WAYS.into_iter().enumerate() {
        let target = bed.target();
        target.hang();
        drop(bed.begin(way, "-o off -n target"));
        let told = || (bed.host.told("virDomainDestroy", TARGET) > 2 * nth).then_some(());
        wait_until(DEADLINE, "the destroy", told);
        bed.asker.resets(|asker| {
            drop(asker.begin("reboot -f"));
            target.go_on();
        });
        assert!(target.ends_within(DEADLINE));
        assert_eq!(bed.code(way, "-o status -n other"), 2, "{way:?}: an old answer was believed");

        let next = bed.target();
        next.hang();
        let done = bed.ask(way, "-o off -n target -t 15");
        assert_eq!((done.code, next.lives()), (Some(1), true), "{way:?}: {done:?}\n{}", bed.daemon.log());
        assert!(done.stderr.contains("the bridge did not"), "{way:?}: {done:?}\n{}", bed.daemon.log());
        next.go_on();
        assert!(next.ends_within(DEADLINE));
    }
}

#[test]
fn nobody_waits_for_a_host_that_does_not_read() {
    let host = Host::start();
    let [asker] = Guest::boot(&host, [ASKER]);
    make_raw(&asker);
    let sockets = [asker.virtio(), asker.serial()].map(|path| UnixStream::connect(path).expect("QEMU listens"));
    for way in WAYS {
        let device = way.device(&asker);
        // What is in the kernel's own buffer goes with who wrote it; the kernel waits for half a minute before.
        asker.begin_for(&format!("timeout 2 dd if=/dev/zero of={device} bs=4k; :"), DEADLINE * 3).end();
        for _ in 0..2 {
            let done = asker.run(&format!("{} -o off -n target -t 3", way.agent()));
            assert_eq!(done.code, Some(1), "{way:?}: {done:?}");
            assert!(done.elapsed < Duration::from_secs(8), "{way:?}: {done:?}");
        }
    }
    drop(sockets);
}

#[test]
fn a_bridge_that_was_killed_is_not_waited_for_and_found_again() {
    let mut bed = Bed::start();
    for way in WAYS {
        let target = bed.target();
        let before = bed.host.told("virDomainDestroy", TARGET);
        target.hang();
        let asking = bed.asker.begin(&format!("exec {} -o off -n target -t 12", way.agent()));
        wait_until(DEADLINE, "the destroy", || (bed.host.told("virDomainDestroy", TARGET) > before).then_some(()));
        let killed = Instant::now();
        bed.daemon.kill();
        let done = asking.end();
        assert_eq!(done.code, Some(1), "{way:?}: {done:?}");
        assert!(done.stderr.contains("may have happened"), "{way:?}: {done:?}");
        if way.is_virtio() {
            assert!(killed.elapsed() < Duration::from_secs(6), "{way:?}: a virtio port says that the host is gone");
        }
        target.go_on();
        assert!(target.ends_within(DEADLINE));
        bed.daemon.start_again();
        wait_connected(&bed.daemon, &[&bed.asker], 1);
        assert_eq!(bed.code(way, "-o status -n target"), 2, "{way:?}");
    }
}

/// It has answered before it closes, and the answer arrives, also where a UART takes it in many pieces: that was the
/// first one of which a part was lost, and so it is tried more than once.
#[test]
fn a_bridge_that_is_stopped_says_first_what_came_of_it() {
    let mut bed = Bed::start();
    for way in WAYS.into_iter().chain([Way::SerialNative; 5]) {
        let target = bed.target();
        let before = bed.host.told("virDomainDestroy", TARGET);
        target.hang();
        let asking = bed.asker.begin(&format!("exec {} -o off -n target -t 12", way.agent()));
        wait_until(DEADLINE, "the destroy", || (bed.host.told("virDomainDestroy", TARGET) > before).then_some(()));
        bed.daemon.process().signal(Signal::TERM);
        target.go_on();
        let done = asking.end();
        assert!(target.ends_within(DEADLINE));
        assert_eq!(done.code, Some(0), "{way:?}: {done:?}\n{}", bed.daemon.log());
        assert_eq!(bed.daemon.stop().code, Some(0));
        bed.daemon.start_again();
        wait_connected(&bed.daemon, &[&bed.asker], 1);
    }
}

/// One guest sends requests and noise by both ports as fast as it can, and reads nothing. The other fences meanwhile.
#[test]
fn a_guest_that_floods_stops_no_other() {
    let host = Host::start();
    let [asker, flooder] = &Guest::boot(&host, [ASKER, "flooder"]);
    let daemon = setup(&host, &[asker, flooder]).start();
    wait_connected(&daemon, &[asker, flooder], 1);
    make_raw(flooder);
    let frame = request(STATUS, TARGET.as_bytes(), fresh_seqno());
    let device = virtio_device(flooder);
    flooder.done(&writing(&frame, "/run/frame"));
    flooder.done("cd /run; for n in 1 2 3 4 5 6 7 8 9; do cat frame frame >twice; mv twice frame; done");
    flooder.done("cd /run; dd if=/dev/urandom bs=1k count=8 >>frame; mv frame frames");
    for device in [&device, SERIAL] {
        flooder.done(&format!("while :; do cat /run/frames; done >{device} 2>/dev/null &"));
    }
    for way in WAYS {
        let target = host.run(&Machine::new(TARGET));
        let done = asker.run(&format!("{} -o off -n target", way.agent()));
        assert_eq!((done.code, target.lives()), (Some(0), false), "{way:?}: {done:?}");
        assert!(done.elapsed < Duration::from_secs(8), "{way:?}: {done:?}");
    }
    assert!(flooder.qemu(&host).lives());
}
