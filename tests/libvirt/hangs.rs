//! A QEMU that hangs, a libvirtd that hangs, and one that is killed.

use std::time::{Duration, Instant};

use fencewire_tests::guest_channel::{
    FAILED, GuestChannel, IS_OFF, MONITOR, OFF, REBOOT, REPLY_LENGTH, REQUEST_LENGTH, STATUS, SUCCESS, fresh_seqno,
    reply, request,
};
use fencewire_tests::process::{DEADLINE, Process, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine, Qemu};

use crate::common::{ASKER, TARGET, ask, frame, host_with_target, serve, setup, start, wait_for_mark};

/// libvirt needs 10 s to end a QEMU that hangs, by SIGKILL in the end. That is in time.
#[test]
fn a_qemu_that_hangs_is_fenced_when_libvirt_has_killed_it() {
    let (host, qemu) = host_with_target();
    let (_daemon, mut asker) = serve(&host);
    qemu.hang();
    assert_eq!(asker.ask(&frame(OFF), DEADLINE), SUCCESS);
    assert!(!qemu.lives());
}

/// With less time the answer is "failed" while it lives; whoever repeats the request learns what came of it, and it is
/// destroyed once.
#[test]
fn a_qemu_that_hangs_for_longer_than_there_is_time_is_not_said_to_be_fenced() {
    let (host, qemu) = host_with_target();
    let (_daemon, mut asker) = start(setup(&host).hypervisor("deadline_ms = 1500"));
    qemu.hang();
    let off = frame(OFF);
    assert_eq!(asker.ask(&off, DEADLINE), FAILED);
    assert!(qemu.lives(), "else it is not what this test is about");
    assert!(qemu.ends_within(DEADLINE), "what was handed to libvirt cannot be withdrawn");
    assert_eq!(asker.ask(&off, DEADLINE), SUCCESS);
    assert_eq!(host.told("virDomainDestroy", TARGET), 1);
}

/// Nothing was handed to a libvirtd that hung before the request came, so nothing happens when it goes on.
#[test]
fn a_libvirtd_that_hangs_is_told_nothing_that_it_would_do_later() {
    for action in [OFF, REBOOT] {
        let (host, qemu) = host_with_target();
        let (_daemon, mut asker) = start(setup(&host).hypervisor("deadline_ms = 1500"));
        host.hang();
        let first = frame(action);
        assert_eq!(asker.ask(&first, DEADLINE), FAILED);
        assert_eq!(ask(&mut asker, STATUS, TARGET), FAILED);
        host.go_on();
        wait_until(DEADLINE, "the bridge to see the guest again", || {
            (ask(&mut asker, STATUS, TARGET) == SUCCESS).then_some(())
        });
        assert_eq!(asker.ask(&first, DEADLINE), FAILED, "that request is over");
        assert!(qemu.lives());
        assert_eq!(host.told("virDomainDestroy", TARGET), 0);
        assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
        assert!(!qemu.lives());
    }
}

/// A libvirtd that hangs when it was told: that is not called back, and is not said to have happened.
#[test]
fn a_libvirtd_that_hangs_in_a_destroy_is_not_believed_before_it_says_so() {
    let (host, qemu) = host_with_target();
    let (_daemon, mut asker) = start(setup(&host).hypervisor("deadline_ms = 1500"));
    qemu.hang();
    let off = frame(OFF);
    asker.send(&off);
    wait_until(DEADLINE, "the destroy", || (host.told("virDomainDestroy", TARGET) == 1).then_some(()));
    host.hang();
    assert_eq!(reply(&asker.read(REPLY_LENGTH, DEADLINE)), FAILED);
    assert!(qemu.lives());
    host.go_on();
    assert!(qemu.ends_within(DEADLINE));
    assert_eq!(asker.ask(&off, DEADLINE), SUCCESS);
    assert_eq!(host.told("virDomainDestroy", TARGET), 1);
}

/// A libvirtd that is killed takes no guest with it. While it is gone nothing is known and nothing is done, and that is
/// said at once; when it is back, so is the bridge.
#[test]
fn a_libvirtd_that_was_killed_is_found_again() {
    let (mut host, qemu) = host_with_target();
    let (_daemon, mut asker) = serve(&host);
    assert_eq!(ask(&mut asker, STATUS, TARGET), SUCCESS);
    host.kill();
    let begun = Instant::now();
    for action in [STATUS, OFF, REBOOT, MONITOR] {
        assert_eq!(asker.ask(&frame(action), DEADLINE), FAILED, "action {action}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    assert!(qemu.lives());
    host.start_again();
    assert_eq!(ask(&mut asker, STATUS, TARGET), SUCCESS);
    host.stop();
    host.start_again();
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    assert!(!qemu.lives());
    host.kill();
    host.start_again();
    assert_eq!(ask(&mut asker, STATUS, TARGET), IS_OFF);
    assert_eq!(host.told("virDomainDestroy", TARGET), 1);
}

/// A guest beside the target, in whose way nothing stands but the target's calls.
const OTHER: &str = "other";

/// libvirtd has 20 threads for ordinary calls, and all of them wait for a QEMU that hangs. Then nobody can tell whether a
/// guest is being migrated, so none is fenced; nor is it later, when the threads are free and its time is up.
#[test]
fn a_libvirtd_whose_every_thread_waits_fences_nobody_and_not_later_either() {
    let (host, qemu) = host_with_target();
    let other = host.run(&Machine::new(OTHER));
    let setup = setup(&host).group("three", &[ASKER, TARGET, OTHER], "").hypervisor("deadline_ms = 1500");
    let (_daemon, mut asker) = start(setup);
    // The bridge itself would be one of those who wait.
    wait_for_mark(&host);
    // libvirt gives up a call after half a minute, which is not long on a busy machine.
    let off = (0..5).find_map(|_| off_while_every_thread_waits(&host, &qemu, &mut asker));
    let off = off.expect("threads that all wait while the other is to be fenced, once in five times");
    assert_eq!(ask(&mut asker, STATUS, OTHER), SUCCESS);
    wait_until(DEADLINE, "a fence that works", || (ask(&mut asker, OFF, TARGET) == SUCCESS).then_some(()));
    assert!(!qemu.lives());
    assert_eq!(asker.ask(&off, DEADLINE), FAILED, "that request is over");
    assert!(other.lives());
    assert_eq!(host.told("virDomainDestroy", OTHER), 0);
}

/// Has every thread wait and the other fenced meanwhile, and lets them go. None if they did not wait to the end of that.
#[track_caller]
fn off_while_every_thread_waits(host: &Host, qemu: &Qemu, asker: &mut GuestChannel) -> Option<[u8; REQUEST_LENGTH]> {
    qemu.hang();
    let mut waiting: Vec<_> = (0..20).map(|_| host.start_virsh(&["suspend", TARGET])).collect();
    let mut probe = wait_until(DEADLINE, "every thread to wait", || {
        let probe = an_ordinary_call_that_waits(host);
        if probe.is_none() {
            waiting.extend((0..4).map(|_| host.start_virsh(&["suspend", TARGET])));
        }
        probe
    });
    let off = request(OFF, OTHER.as_bytes(), fresh_seqno());
    let answers = [asker.ask(&off, DEADLINE), ask(asker, STATUS, OTHER)];
    let waited_to_the_end = probe.is_running();
    qemu.go_on();
    drop(waiting);
    if waited_to_the_end {
        assert_eq!(answers, [FAILED, SUCCESS], "what needs no such thread is answered");
    }
    // It was fenced in a moment in which a thread was free, or has to be, for another try.
    waited_to_the_end.then_some(off)
}

/// An ordinary call about the other that does not end, while calls for which libvirtd has threads of their own do.
#[track_caller]
fn an_ordinary_call_that_waits(host: &Host) -> Option<Process> {
    let mut call = host.start_virsh(&["domjobinfo", OTHER]);
    for _ in 0..3 {
        if call.ends_within(Duration::from_millis(700)) {
            return None;
        }
        host.virsh(&["domstate", OTHER]);
    }
    Some(call)
}
