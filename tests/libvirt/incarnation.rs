//! The mark by which one run of a guest is told from the next.

use std::time::{Duration, Instant};

use fencewire_tests::guest_channel::{OFF, REBOOT, STATUS, SUCCESS};
use fencewire_tests::process::{DEADLINE, wait_until};

use crate::common::{TARGET, ask, frame, host_with_target, mark, serve, wait_for_mark};

/// It comes by itself, stays for as long as the guest's process does, whatever becomes of libvirtd and of the guest's
/// system, and goes with it.
#[test]
fn a_run_has_one_mark_from_its_beginning_to_its_end() {
    let (mut host, qemu) = host_with_target();
    let (_daemon, mut asker) = serve(&host);
    let first = wait_for_mark(&host);
    assert!(!host.virsh(&["dumpxml", "--inactive", TARGET]).contains("fencewire"), "only what runs is marked");

    host.virsh(&["reset", TARGET]);
    assert_eq!(mark(&host), Some(first.clone()), "after a reset");
    host.kill();
    host.start_again();
    assert_eq!(mark(&host), Some(first.clone()), "after libvirtd was killed");
    host.stop();
    host.start_again();
    assert_eq!(mark(&host), Some(first.clone()), "after libvirtd was restarted");
    assert!(qemu.lives());

    assert_eq!(ask(&mut asker, REBOOT, TARGET), SUCCESS);
    let second = wait_for_mark(&host);
    assert_ne!(second, first, "after a reboot of ours");

    host.virsh(&["managedsave", TARGET]);
    host.virsh(&["start", TARGET]);
    assert_eq!(mark(&host), Some(second.clone()), "restored: the same run goes on");

    host.virsh(&["destroy", TARGET]);
    assert_eq!(mark(&host), None, "it is off");
    host.virsh(&["start", TARGET]);
    assert_ne!(mark(&host), Some(second), "somebody has started it anew");
}

/// libvirt marks no guest in which something hangs, and says so after half a minute. A fence of such a guest is no slower
/// for that: it takes the 10 s in which libvirt ends a QEMU that hangs.
#[test]
fn a_mark_that_cannot_be_made_delays_no_fence() {
    let (host, qemu) = host_with_target();
    qemu.hang();
    let _holds_its_job = host.start_virsh(&["suspend", TARGET]);
    wait_until(DEADLINE, "a call that hangs", || (host.told("virDomainSuspend", TARGET) == 1).then_some(()));
    let (_daemon, mut asker) = serve(&host);
    wait_until(DEADLINE, "a mark that hangs", || (host.told("virDomainSetMetadata", TARGET) == 1).then_some(()));
    assert_eq!(ask(&mut asker, STATUS, TARGET), SUCCESS);
    let begun = Instant::now();
    assert_eq!(asker.ask(&frame(OFF), DEADLINE), SUCCESS);
    assert!(!qemu.lives());
    assert!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
}
