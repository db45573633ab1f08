//! Off, reboot, on, status and list of real QEMU processes.

use fencewire_tests::daemon::states;
use fencewire_tests::guest_channel::{IS_OFF, OFF, ON, REBOOT, STATUS, SUCCESS};

use crate::common::{TARGET, ask, host_with_target, serve};

/// Rule 1: when "fenced" arrives, the process is gone.
#[test]
fn power_is_what_the_processes_say() {
    let (host, first) = host_with_target();
    let (_daemon, mut asker) = serve(&host);
    let listed = |asker: &mut _| states(asker)[TARGET];
    assert_eq!((ask(&mut asker, STATUS, TARGET), listed(&mut asker)), (SUCCESS, 1));

    assert_eq!(ask(&mut asker, REBOOT, TARGET), SUCCESS);
    assert!(!first.lives(), "rebooted, and its first process lives");
    let second = host.qemu(TARGET);
    assert!(second.lives() && second.id() != first.id());
    assert_eq!(ask(&mut asker, STATUS, TARGET), SUCCESS);

    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS);
    assert!(!second.lives(), "fenced, and its process lives");
    assert_eq!((ask(&mut asker, STATUS, TARGET), listed(&mut asker)), (IS_OFF, 5));
    assert_eq!(ask(&mut asker, OFF, TARGET), SUCCESS, "it is off already");
    assert_eq!(host.state(TARGET), "shut off (destroyed)");

    assert_eq!(ask(&mut asker, ON, TARGET), SUCCESS);
    let third = host.qemu(TARGET);
    assert!(third.lives());
    assert_eq!(ask(&mut asker, ON, TARGET), SUCCESS, "it is on already");
    assert!(third.lives());
    assert_eq!((host.told("virDomainDestroy", TARGET), host.destroyed(TARGET)), (2, 2));
    assert_eq!((host.told("virDomainCreateWithFlags", TARGET), host.told("virDomainCreate", TARGET)), (2, 1));
}
