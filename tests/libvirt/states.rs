//! Guests that are neither simply on nor simply off: paused, crashed, saved, transient.

use fencewire_tests::guest_channel::{FAILED, IS_OFF, OFF, ON, REBOOT, STATUS, SUCCESS};
use fencewire_tests::real_libvirt::{Machine, Program};

use crate::common::{TARGET, ask, host, host_with_target, serve, wait_for_state};

/// Paused is on, and is fenced like what runs.
#[test]
fn a_paused_guest_is_on_and_is_fenced() {
    let host = host();
    host.define(&Machine::new(TARGET));
    let (_daemon, mut asker) = serve(&host);
    for action in [REBOOT, OFF] {
        let qemu = host.try_qemu(TARGET).unwrap_or_else(|| host.switch_on(TARGET));
        host.virsh(&["suspend", TARGET]);
        assert_eq!(ask(&mut asker, STATUS, TARGET), SUCCESS);
        assert_eq!(ask(&mut asker, ON, TARGET), SUCCESS, "which leaves it as it is");
        assert_eq!(host.state(TARGET), "paused (user)");
        assert_eq!(ask(&mut asker, action, TARGET), SUCCESS);
        assert!(!qemu.lives());
        assert_eq!(host.qemus(TARGET).len(), usize::from(action == REBOOT));
    }
}

/// The process of a guest whose system crashed is there and can be looked into: it is not off, and is fenced.
#[test]
fn a_crashed_guest_is_unknown_and_is_fenced() {
    let host = host();
    host.define(&Machine::new(TARGET).runs(Program::Panics));
    let (_daemon, mut asker) = serve(&host);
    for action in [REBOOT, OFF] {
        let qemu = host.try_qemu(TARGET).unwrap_or_else(|| host.switch_on(TARGET));
        wait_for_state(&host, TARGET, "crashed (panicked)");
        assert_eq!(ask(&mut asker, STATUS, TARGET), FAILED);
        assert_eq!(ask(&mut asker, ON, TARGET), FAILED, "nor is it switched on");
        assert!(qemu.lives());
        // A reboot may see it crash again before it has seen it run.
        assert_eq!(ask(&mut asker, action, TARGET), SUCCESS);
        assert!(!qemu.lives());
    }
    assert_eq!(ask(&mut asker, STATUS, TARGET), IS_OFF);
}

/// A managed-save image is the old guest waiting to go on: it is removed before "fenced" is said, and what is started
/// then is a new one.
#[test]
fn a_saved_guest_is_fenced_when_its_image_is_gone() {
    for action in [OFF, REBOOT] {
        let (host, _) = host_with_target();
        host.virsh(&["managedsave", TARGET]);
        assert_eq!(host.state(TARGET), "shut off (saved)");
        let image = host.path(&format!("config/libvirt/qemu/save/{TARGET}.save"));
        assert!(image.exists());
        let (_daemon, mut asker) = serve(&host);
        assert_eq!(ask(&mut asker, STATUS, TARGET), IS_OFF);
        assert_eq!(ask(&mut asker, action, TARGET), SUCCESS);
        assert!(!image.exists(), "fenced by {action}, and it can go on");
        if action == REBOOT {
            assert_eq!(host.state(TARGET), "running (booted)");
        }
    }
}

/// `on` does not let the old guest go on either.
#[test]
fn a_saved_guest_is_started_afresh() {
    let (host, _) = host_with_target();
    host.virsh(&["managedsave", TARGET]);
    let (_daemon, mut asker) = serve(&host);
    assert_eq!(ask(&mut asker, ON, TARGET), SUCCESS);
    assert_eq!(host.state(TARGET), "running (booted)", "not restored");
}

/// A guest that is not defined is gone when it is off. A reboot of it is a fence that has succeeded, and nothing to
/// start afterwards.
#[test]
fn a_transient_guest_is_off_when_it_is_gone() {
    for action in [OFF, REBOOT] {
        let host = host();
        let qemu = host.run_transient(&Machine::new(TARGET));
        let (mut daemon, mut asker) = serve(&host);
        assert_eq!(ask(&mut asker, action, TARGET), SUCCESS);
        assert!(!qemu.lives());
        assert!(host.try_virsh(&["domstate", TARGET]).is_err(), "libvirt does not know it any more");
        // Nobody knows whether it runs elsewhere by now.
        assert_ne!(ask(&mut asker, STATUS, TARGET), IS_OFF);
        assert_ne!(ask(&mut asker, OFF, TARGET), SUCCESS);
        let records = daemon.stop_and_read_records();
        let said = if action == OFF { "confirmed off" } else { "confirmed off, not started again" };
        assert!(records.iter().any(|record| record["outcome"] == said), "{records:?}");
    }
}
