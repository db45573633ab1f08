//! The bed itself.

use fencewire_tests::guest::{Guest, PORT};
use fencewire_tests::real_libvirt::Host;

/// Commands and what comes of them; a reset; the end.
#[test]
fn a_guest_does_what_it_is_told() {
    let host = Host::start();
    let [guest] = Guest::boot(&host, ["guest"]);
    let done = guest.run("echo out; echo err >&2; exit 3");
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (Some(3), "out\n", "err\n"));
    assert_eq!(guest.run("kill -9 $$").signal, Some(9));
    let [slow, quick] = [guest.begin("sleep 1; echo slow"), guest.begin("echo quick")];
    assert_eq!((quick.end().stdout.as_str(), slow.end().stdout.as_str()), ("quick\n", "slow\n"));
    assert!(guest.done("cat /sys/class/virtio-ports/*/name").contains(PORT));
    let boot = || guest.done("cat /proc/sys/kernel/random/boot_id");
    let (before, qemu) = (boot(), guest.qemu(&host));
    guest.resets(|guest| drop(guest.begin("reboot -f")));
    assert!(boot() != before && qemu.lives(), "its own reset is no new process");
    drop(host);
    assert!(!qemu.lives());
}
