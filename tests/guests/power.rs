//! From a process in one guest to the end of another guest's process.

use fencewire_tests::guest::{Guest, SERIAL};
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::real_libvirt::Host;

use crate::common::{Bed, TARGET, WAYS, setup, wait_connected};

/// Every action, by every way. When the agent says "done", the process is gone.
#[test]
fn power_is_what_the_processes_say() {
    let bed = Bed::start();
    let mut last = bed.target();
    for (nth, way) in WAYS.into_iter().enumerate() {
        assert_eq!(bed.code(way, "-o monitor"), 0, "{way:?}");
        let listed = |what: &str| bed.ask(way, what).stdout;
        assert!(listed("-o list").starts_with("target,"), "{way:?}: {}", listed("-o list"));
        assert!(listed("-o list-status").trim_end().ends_with(",on"), "{way:?}: {}", listed("-o list-status"));
        assert_eq!(bed.code(way, "-o status -n target"), 0, "{way:?}");

        let rebooted = bed.ask(way, "-o reboot -n target");
        assert_eq!((rebooted.code, last.lives()), (Some(0), false), "{way:?}: {rebooted:?}");
        last = bed.host.qemu(TARGET);
        assert!(last.lives(), "{way:?}: rebooted, and not started again");

        let off = bed.ask(way, "-o off -n target");
        assert_eq!((off.code, last.lives()), (Some(0), false), "{way:?}: {off:?}");
        assert_eq!(bed.code(way, "-o status -n target"), 2, "{way:?}");
        assert!(listed("-o list-status").trim_end().ends_with(",off"), "{way:?}: {}", listed("-o list-status"));
        assert_eq!(bed.code(way, "-o off -n target"), 0, "{way:?}: it is off already");

        assert_eq!(bed.code(way, "-o on -n target"), 0, "{way:?}");
        last = bed.host.qemu(TARGET);
        assert!(last.lives(), "{way:?}: on, and it has no process");
        assert_eq!(bed.host.destroyed(TARGET), 2 * (nth + 1), "{way:?}");
        for refused in ["-o off -n asker", "-o off -n nobody-of-that-name"] {
            assert_eq!(bed.code(way, refused), 1, "{way:?} {refused}");
        }
    }
}

/// Debian's `fence_virt` on the same serial port, with the same bridge.
#[test]
fn fence_virt_fences_through_its_serial_port() {
    let bed = Bed::start();
    let mut last = bed.target();
    let fence_virt = |what: &str| bed.asker.run(&format!("fence_virt -D {SERIAL} {what}"));
    assert_eq!(fence_virt("-o status -H target").code, Some(0));
    let rebooted = fence_virt("-o reboot -H target");
    assert_eq!((rebooted.code, last.lives()), (Some(0), false), "{rebooted:?}");
    last = bed.host.qemu(TARGET);
    let off = fence_virt("-o off -H target");
    assert_eq!((off.code, last.lives()), (Some(0), false), "{off:?}");
    assert_eq!(fence_virt("-o status -H target").code, Some(2));
    assert_eq!(fence_virt("-o on -H target").code, Some(0));
    assert!(bed.host.qemu(TARGET).lives());
}

/// A guest that was rebooted by another fences that one a moment later, through the ports of its new process.
#[test]
fn a_guest_that_was_fenced_comes_back_and_can_fence() {
    let host = Host::start();
    let guests = Guest::boot(&host, ["one", "two"]);
    let [one, two] = &guests;
    let mut daemon = setup(&host, &[one, two]).start();
    wait_connected(&daemon, &[one, two], 1);
    let before = two.qemu(&host);
    assert_eq!(one.run("fence_wire -o reboot -n two").code, Some(0));
    assert!(!before.lives());
    let two = Guest::of(&host, "two");
    let first = one.qemu(&host);
    let done = two.run("fence_wire -o off -n one");
    assert_eq!((done.code, first.lives()), (Some(0), false), "{done:?}");
    let records = daemon.stop_and_read_records();
    let acts: Vec<_> = records.iter().map(|record| (&record["requester"], &record["target"])).collect();
    assert_eq!(acts, [(&"one".into(), &"two".into()), (&"two".into(), &"one".into())], "{records:?}");
}

/// Both shoot at once, by whatever way: exactly one of them is left.
#[test]
fn of_two_guests_that_fence_each_other_one_survives() {
    let host = Host::start();
    let guests = Guest::boot(&host, ["one", "two"]);
    let daemon = setup(&host, &guests.each_ref()).start();
    wait_connected(&daemon, &guests.each_ref(), 1);
    let qemus = guests.each_ref().map(|guest| guest.qemu(&host));
    let [one, two] = [(&guests[0], "two"), (&guests[1], "one")]
        .map(|(guest, at)| guest.begin(&format!("fence_wire -o off -n {at}")));
    wait_until(DEADLINE, "one of them to end", || qemus.iter().any(|qemu| !qemu.lives()).then_some(()));
    let survivor = usize::from(qemus[1].lives());
    // The one that is left hears that it was done, so all that was to be done is over.
    let done = if survivor == 0 { one.end() } else { two.end() };
    assert_eq!((done.code, qemus[survivor].lives()), (Some(0), true), "{done:?}\n{}", daemon.log());
    assert_eq!(host.told("virDomainDestroy", "one") + host.told("virDomainDestroy", "two"), 1);
}
