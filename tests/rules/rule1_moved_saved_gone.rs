//! Rule 1: "fenced" is said only when the target was seen off after the request came. Here: guests that are being
//! migrated, were migrated, wait in a saved image, or exist only while they run.

use std::thread;

use fencewire_tests::bridge_bed::BridgeBed;
use fencewire_tests::guest_channel::{DENIED, FAILED, OFF, ON, REBOOT, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::uuid_of;
use fencewire_tests::scripted::{Call, OnAbort, OnDestroy, OnRemoveSaved, ScriptedHypervisor};
use fencewired::power::hypervisor::State;

use crate::common::{ask, bed, impatient_bed, three};

/// Rule 1, migration: one that can be ended is ended first; then the guest is here, and is fenced here.
#[test]
fn a_guest_that_is_being_migrated_is_fenced_once_its_migration_has_ended() {
    let hypervisor = three();
    hypervisor.change("vm2", |guest| guest.job = true);
    let (_bed, mut vm1) = bed(&hypervisor);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    assert_eq!(hypervisor.done_to("vm2"), [Call::AbortJob, Call::Destroy]);
}

/// Rule 1, migration: while one goes on, the guest may come to run elsewhere: it is not even destroyed.
#[test]
fn a_guest_whose_migration_does_not_end_is_failed_and_not_touched() {
    let check = |script| {
        let hypervisor = three();
        hypervisor.change("vm2", |guest| {
            guest.job = true;
            guest.on_abort = script;
        });
        let (_bed, mut vm1) = impatient_bed(&hypervisor);
        assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED, "{script:?}");
        assert_eq!(hypervisor.done_to("vm2"), [Call::AbortJob], "{script:?}");
    };
    thread::scope(|scope| {
        scope.spawn(|| check(OnAbort::SaysDone));
        scope.spawn(|| check(OnAbort::Fails));
    });
}

/// Rule 1, migration: one that was over when it was to be aborted has left the guest running elsewhere.
#[test]
fn a_guest_whose_migration_was_over_already_is_failed() {
    let hypervisor = three();
    hypervisor.change("vm2", |guest| {
        guest.job = true;
        guest.on_abort = OnAbort::TooLate;
    });
    let (_bed, mut vm1) = bed(&hypervisor);
    assert_eq!(ask(&mut vm1, REBOOT, "vm2"), FAILED);
    assert_eq!(hypervisor.done_to("vm2"), [Call::AbortJob]);
}

/// Rule 1, migration: one that is seen after the destroy may have taken the guest along: "off" here says nothing then.
#[test]
fn a_migration_that_is_seen_after_the_destroy_is_failed() {
    let hypervisor = three();
    hypervisor.change("vm2", |guest| {
        guest.on_destroy = OnDestroy::Does(|guest| {
            guest.state = State::Off;
            guest.job = true;
        });
    });
    let (_bed, mut vm1) = bed(&hypervisor);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED);
}

/// Rule 1, migration: off because it was migrated is not off; it is neither destroyed nor started here.
#[test]
fn a_guest_that_was_migrated_is_failed_whatever_is_asked() {
    let hypervisor = three();
    hypervisor.change("vm2", |guest| guest.state = State::OffMigrated);
    let (_bed, mut vm1) = bed(&hypervisor);
    for action in [OFF, REBOOT, ON, STATUS] {
        assert_eq!(ask(&mut vm1, action, "vm2"), FAILED, "action {action}");
    }
    assert_eq!(hypervisor.done_to("vm2"), []);
}

/// Rule 1, saved state: an image is the old guest waiting to go on; it is gone before "fenced" is said, and before the
/// guest is started.
#[test]
fn a_saved_image_is_removed_before_success_is_said() {
    for (action, expected) in [(OFF, &[Call::RemoveSaved][..]), (REBOOT, &[Call::RemoveSaved, Call::Start])] {
        let hypervisor = three();
        hypervisor.change("vm2", |guest| {
            guest.state = State::Off;
            guest.saved = true;
        });
        let (_bed, mut vm1) = bed(&hypervisor);
        assert_eq!(ask(&mut vm1, action, "vm2"), SUCCESS, "action {action}");
        assert_eq!(hypervisor.done_to("vm2"), expected, "action {action}");
        assert!(!hypervisor.guest("vm2").unwrap().saved, "action {action}");
    }
}

/// Rule 1, saved state: an image that cannot be removed, or only is said to be, is a guest that can still go on.
#[test]
fn a_saved_image_that_stays_is_failed() {
    let check = |script, action| {
        let hypervisor = three();
        hypervisor.change("vm2", |guest| {
            guest.state = State::Off;
            guest.saved = true;
            guest.on_remove_saved = script;
        });
        let (_bed, mut vm1) = impatient_bed(&hypervisor);
        assert_eq!(ask(&mut vm1, action, "vm2"), FAILED, "{script:?}, action {action}");
        assert_eq!(hypervisor.done_to("vm2"), [Call::RemoveSaved], "{script:?}, action {action}");
    };
    thread::scope(|scope| {
        for script in [OnRemoveSaved::Fails, OnRemoveSaved::SaysDone, OnRemoveSaved::Resumed] {
            scope.spawn(move || check(script, OFF));
            scope.spawn(move || check(script, REBOOT));
        }
    });
}

/// Rule 1, saved state: one that the destroy left is looked for as well.
#[test]
fn a_saved_image_that_is_there_after_the_destroy_is_removed() {
    let hypervisor = three();
    hypervisor.change("vm2", |guest| {
        guest.on_destroy = OnDestroy::Does(|guest| {
            guest.state = State::Off;
            guest.saved = true;
        });
    });
    let (_bed, mut vm1) = bed(&hypervisor);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy, Call::RemoveSaved]);
}

/// Rule 1, transient: a guest that exists only while it runs is off when it is gone, if it was seen to run here.
#[test]
fn a_transient_guest_is_fenced_when_it_is_gone() {
    for action in [OFF, REBOOT] {
        let hypervisor = three();
        hypervisor.change("vm2", |guest| guest.persistent = false);
        let (mut bed, mut vm1) = bed(&hypervisor);
        assert_eq!(ask(&mut vm1, action, "vm2"), SUCCESS, "action {action}");
        assert!(hypervisor.guest("vm2").is_none(), "it is gone");
        let records = bed.records();
        let outcome = records.last().expect("a record")["outcome"].as_str().expect("a word").to_owned();
        let expected = if action == OFF { "confirmed off" } else { "confirmed off, not started again" };
        assert_eq!(outcome, expected);
    }
}

/// Rule 1, transient: one that was gone before anybody looked was never seen to run here; it may run elsewhere.
#[test]
fn a_transient_guest_that_was_gone_before_is_not_said_to_be_fenced() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    hypervisor.remove("vm2");
    assert_eq!(ask(&mut vm1, OFF, &uuid_of("vm2")), FAILED, "by UUID");
    assert_ne!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "by name");
    assert_ne!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "a status");
}

/// Rule 1, names: a guest that no hypervisor knows is neither off nor on.
#[test]
fn a_guest_that_does_not_exist_is_never_said_to_be_fenced() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2"]);
    let bed = BridgeBed::setup(&hypervisor)
        .group("with one that is not there", &["vm1", "vm2", "vm3"], "")
        .channels(["vm1"])
        .start();
    let mut vm1 = bed.channel("vm1");
    for action in [OFF, REBOOT, ON, STATUS] {
        assert_eq!(ask(&mut vm1, action, "vm3"), FAILED, "a member, action {action}");
        assert_eq!(ask(&mut vm1, action, "vm4"), DENIED, "a stranger, action {action}");
    }
    for call in [Call::Destroy, Call::Start] {
        assert_eq!(hypervisor.count_all(call), 0, "{call:?}");
    }
}
