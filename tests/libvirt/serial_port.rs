//! Serial ports that QEMU makes: a guest that fences another through its own, and a bridge that finds the socket again.

use fencewire_tests::daemon::{Daemon, Setup};
use fencewire_tests::guest_channel::{OFF, REBOOT};
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine, Program};

use crate::common::{ASKER, TARGET, frame};

/// A bridge whose only channel is the asker's serial port.
fn setup(host: &Host) -> Setup {
    Daemon::setup().uri(&host.uri()).channel("unix", &host.path("asker.sock"), ASKER).group(
        "both",
        &[ASKER, TARGET],
        "",
    )
}

/// A guest that asks every second for the same.
fn asker(host: &Host, action: u8) -> Machine {
    Machine::new(ASKER).serial(&host.path("asker.sock")).runs(Program::Asks(frame(action)))
}

/// From the guest's UART to the end of the other's process, by way of QEMU, the bridge and libvirt.
#[test]
fn a_guest_fences_another_through_its_serial_port() {
    let host = Host::start();
    let target = host.run(&Machine::new(TARGET));
    host.run(&asker(&host, OFF));
    let mut daemon = setup(&host).start();
    assert!(target.ends_within(DEADLINE), "{}", daemon.log());
    wait_until(DEADLINE, "the answer", || daemon.logged("confirmed off"));
    let records = daemon.stop_and_read_records();
    assert_eq!((&records[0]["requester"], &records[0]["action"]), (&ASKER.into(), &"off".into()), "{records:?}");
}

/// What repeats itself is one request, for as long as it does so: the target is rebooted once. And when the asker is
/// started anew, with another socket at the same path, it is heard again.
#[test]
fn a_guest_that_repeats_itself_reboots_another_once() {
    let host = Host::start();
    let first = host.run(&Machine::new(TARGET));
    host.run(&asker(&host, REBOOT));
    let daemon = setup(&host).start();
    let repeated = |daemon: &Daemon| daemon.records().iter().filter(|record| record["repeated"] == true).count();
    wait_until(DEADLINE, "two repetitions", || (repeated(&daemon) >= 2).then_some(()));
    assert!(!first.lives());
    let second = host.qemu(TARGET);
    host.virsh(&["destroy", ASKER]);
    host.run(&asker(&host, OFF));
    daemon.wait_connected(&host.path("asker.sock"), 2);
    assert!(second.ends_within(DEADLINE), "{}", daemon.log());
    assert_eq!(host.told("virDomainDestroy", TARGET), 2);
}
