//! Two libvirtds with a guest of the same UUID defined on both: it is fenced where it runs, and is off where both say so.

use std::time::Duration;

use fencewire_tests::daemon::Daemon;
use fencewire_tests::guest_channel::{FAILED, GuestChannel, IS_OFF, OFF, ON, REBOOT, STATUS, SUCCESS};
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine};

use crate::common::{TARGET, ask, host, setup, start};

/// The asker runs on the first; the target is defined on both.
fn hosts() -> (Host, Host) {
    let (here, there) = (host(), Host::start());
    here.define(&Machine::new(TARGET));
    there.define(&Machine::new(TARGET));
    (here, there)
}

/// How long a request may take that is to succeed: a busy machine needs seconds to start a QEMU, or to end one.
const PATIENT: Duration = Duration::from_secs(15);

/// The same where others are to fail, which takes all of it.
const IMPATIENT: Duration = Duration::from_secs(6);

fn serve(here: &Host, there: &Host, deadline: Duration) -> (Daemon, GuestChannel) {
    start(setup(here).beside(&there.uri()).hypervisor(&format!("deadline_ms = {}", deadline.as_millis())))
}

/// Active on one: there it is fenced, whichever that is, and the other's definition is left alone.
#[test]
fn a_guest_is_fenced_on_the_host_where_it_runs() {
    let (here, there) = hosts();
    let (_daemon, mut asker) = serve(&here, &there, PATIENT);
    for (active, other) in [(&there, &here), (&here, &there)] {
        let first = active.switch_on(TARGET);
        assert_eq!(ask(&mut asker, STATUS, TARGET), SUCCESS);
        assert_eq!(ask(&mut asker, REBOOT, TARGET), SUCCESS);
        assert!(!first.lives());
        let second = active.qemu(TARGET);
        assert!(second.lives() && other.qemus(TARGET).is_empty(), "it is started where it was");
        assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
        assert!(!second.lives());
        assert_eq!(ask(&mut asker, STATUS, TARGET), IS_OFF);
    }
    assert_eq!((here.destroyed(TARGET), there.destroyed(TARGET)), (2, 2));
}

/// Active on both: nobody knows which of them is meant, and neither is touched.
#[test]
fn a_guest_that_runs_on_both_is_left_alone() {
    let (here, there) = hosts();
    let (one, other) = (here.switch_on(TARGET), there.switch_on(TARGET));
    let (_daemon, mut asker) = serve(&here, &there, PATIENT);
    for action in [STATUS, OFF, REBOOT, ON] {
        assert_eq!(ask(&mut asker, action, TARGET), FAILED, "action {action}");
    }
    assert!(one.lives() && other.lives());
    there.virsh(&["destroy", TARGET]);
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    assert!(!one.lives() && !other.lives());
}

/// Active on none: off, and `on` starts it on one. A saved image is removed wherever it is.
#[test]
fn a_guest_that_runs_on_neither_is_off() {
    let (here, there) = hosts();
    let (_daemon, mut asker) = serve(&here, &there, PATIENT);
    assert_eq!(ask(&mut asker, STATUS, TARGET), IS_OFF);
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    assert_eq!(ask(&mut asker, ON, TARGET), SUCCESS);
    assert_eq!((here.qemus(TARGET).len(), there.qemus(TARGET).len()), (1, 0));
    here.virsh(&["destroy", TARGET]);

    there.switch_on(TARGET);
    there.virsh(&["managedsave", TARGET]);
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    assert_eq!(there.virsh(&["start", TARGET, "--paused"]), "");
    assert_eq!(there.state(TARGET), "paused (user)", "started afresh: there was no image left");
}

/// One that hangs: it stops no fence on the other, and what is off on the other may run on it. When it goes on, it counts
/// again.
#[test]
fn a_host_that_hangs_makes_off_unknown_and_stops_no_fence_on_the_other() {
    let (here, there) = hosts();
    let qemu = here.switch_on(TARGET);
    let (_daemon, mut asker) = serve(&here, &there, IMPATIENT);
    there.hang();
    assert_eq!(ask(&mut asker, STATUS, TARGET), SUCCESS, "it runs here");
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    assert!(!qemu.lives());
    for action in [STATUS, OFF, ON] {
        assert_eq!(ask(&mut asker, action, TARGET), FAILED, "action {action}");
    }
    there.go_on();
    wait_until(DEADLINE * 3, "the host that hung to be asked again", || {
        (ask(&mut asker, STATUS, TARGET) == IS_OFF).then_some(())
    });
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    assert_eq!((here.destroyed(TARGET), there.destroyed(TARGET)), (1, 0));
}

/// The one on which it runs is killed: nothing is known of it, until that is back.
#[test]
fn a_guest_on_a_host_that_is_gone_is_unknown_until_that_is_back() {
    let (here, mut there) = hosts();
    let qemu = there.switch_on(TARGET);
    let (_daemon, mut asker) = serve(&here, &there, IMPATIENT);
    assert_eq!(ask(&mut asker, STATUS, TARGET), SUCCESS);
    there.kill();
    for action in [STATUS, OFF, REBOOT, ON] {
        assert_eq!(ask(&mut asker, action, TARGET), FAILED, "action {action}");
    }
    assert!(qemu.lives() && here.qemus(TARGET).is_empty());
    there.start_again();
    // It finds its guests again before it says anything of them.
    wait_until(DEADLINE * 3, "the host that is back to be asked again", || {
        (ask(&mut asker, STATUS, TARGET) == SUCCESS).then_some(())
    });
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    assert!(!qemu.lives());
}
