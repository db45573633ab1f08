//! A libvirtd that says "shut off" of a QEMU that lives, because it has lost what it knew of it: it is not believed while
//! that QEMU has its channel to the bridge open.

use std::fs;

use fencewire_tests::daemon::{Daemon, Setup, states};
use fencewire_tests::guest_channel::{FAILED, GuestChannel, IS_OFF, OFF, ON, REBOOT, STATUS, SUCCESS};
use fencewire_tests::real_libvirt::{Host, Machine, Qemu};

use crate::common::{TARGET, ask, host, setup, start};

/// A target with a channel of its own.
fn target(host: &Host) -> Machine {
    Machine::new(TARGET).serial(&host.path("target.sock"))
}

/// A bridge that has the target's channel, too.
fn with_channel(host: &Host) -> Setup {
    setup(host).channel("unix", &host.path("target.sock"), TARGET)
}

/// That bridge, connected.
#[track_caller]
fn serve(host: &Host) -> (Daemon, GuestChannel) {
    let (daemon, asker) = start(with_channel(host));
    daemon.wait_connected(&host.path("target.sock"), 1);
    (daemon, asker)
}

/// libvirtd is killed, and what it has written down of the target is lost.
#[track_caller]
fn lose(host: &mut Host) {
    host.kill();
    fs::remove_file(host.path(&format!("run/libvirt/qemu/run/{TARGET}.xml"))).expect("its status file");
    host.start_again();
    assert_eq!(host.state(TARGET), "shut off (unknown)", "else it is not what this test is about");
}

/// Says that nothing is said to be done of a target that lives, and nothing done.
#[track_caller]
fn expect_nothing_done(host: &Host, asker: &mut GuestChannel, qemu: &Qemu) {
    assert_eq!((ask(asker, STATUS, TARGET), states(asker)[TARGET]), (FAILED, 1));
    for action in [OFF, REBOOT, ON, STATUS] {
        assert_eq!(ask(asker, action, TARGET), FAILED, "action {action}");
    }
    assert!(qemu.lives());
    assert_eq!(host.qemus(TARGET).len(), 1, "it was not started a second time");
    assert_eq!(host.told("virDomainCreateWithFlags", TARGET), 0);
}

/// When its process has ended, by whatever, it is off.
#[track_caller]
fn expect_off_once_it_ends(asker: &mut GuestChannel, qemu: &Qemu) {
    qemu.kill();
    assert_eq!((ask(asker, STATUS, TARGET), states(asker)[TARGET]), (IS_OFF, 5));
    assert_eq!(ask(asker, OFF, TARGET), SUCCESS);
}

/// The bridge was there before.
#[test]
fn a_guest_that_libvirt_has_lost_is_not_fenced_while_it_lives() {
    let mut host = host();
    let qemu = host.run(&target(&host));
    let (_daemon, mut asker) = serve(&host);
    lose(&mut host);
    expect_nothing_done(&host, &mut asker, &qemu);
    expect_off_once_it_ends(&mut asker, &qemu);
}

/// A bridge that comes later connects to the process that lives.
#[test]
fn a_guest_that_libvirt_had_lost_before_is_not_fenced_while_it_lives() {
    let mut host = host();
    let qemu = host.run(&target(&host));
    lose(&mut host);
    let (_daemon, mut asker) = serve(&host);
    expect_nothing_done(&host, &mut asker, &qemu);
    expect_off_once_it_ends(&mut asker, &qemu);
}

/// In the first moment after a start it is libvirtd that listens on the socket, for QEMU. However soon the bridge connects,
/// it knows whose channel that is; and a fence without anything wrong is none the worse for it.
#[test]
fn a_guest_whose_channel_is_held_is_fenced_as_any_other() {
    let host = host();
    let first = host.run(&target(&host));
    let (daemon, mut asker) = serve(&host);
    for nth in 2..7 {
        assert_eq!(ask(&mut asker, REBOOT, TARGET), SUCCESS);
        daemon.wait_connected(&host.path("target.sock"), nth);
    }
    assert!(!first.lives());
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    let path = host.path("target.sock").display().to_string();
    let log = daemon.log();
    let connected: Vec<_> = log.lines().filter(|line| line.contains("connected") && line.contains(&path)).collect();
    assert!(connected.iter().all(|line| line.contains("is_of_qemu=true")), "{log}");
}
