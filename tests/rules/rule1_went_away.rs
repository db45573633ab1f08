//! Rule 1: "fenced" is said only when the target was seen off after the request came. Here: a guest that went to
//! another host by migration, and of which the hypervisor that it left says "off" and no more, because it has forgotten
//! why.

use std::fs;

use fencewire_core::Uuid;
use fencewire_tests::bridge_bed::{BridgeBed, Setup};
use fencewire_tests::daemon::states;
use fencewire_tests::guest_channel::{FAILED, GuestChannel, IS_OFF, OFF, ON, REBOOT, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::uuid_of;
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::scripted::{Call, ScriptedHypervisor};
use fencewired::power::hypervisor::{Happening, State};

use crate::common::{IMPATIENT, ask, bed, three};

fn vm2() -> Uuid {
    Uuid::parse(uuid_of("vm2").as_bytes()).expect("a UUID")
}

fn state(hypervisor: &ScriptedHypervisor, state: State) {
    hypervisor.change("vm2", |guest| guest.state = state);
}

/// Says that whatever is asked of it is failed, and nothing done.
#[track_caller]
fn expect_away(hypervisor: &ScriptedHypervisor, vm1: &mut GuestChannel) {
    let before = hypervisor.done_to("vm2");
    for action in [OFF, REBOOT, ON, STATUS] {
        assert_eq!(ask(vm1, action, "vm2"), FAILED, "action {action}");
    }
    assert_eq!(states(vm1)["vm2"], 1, "on a list");
    assert_eq!(hypervisor.done_to("vm2"), before);
}

/// Says that it is off, and fenced when that is asked.
#[track_caller]
fn expect_off(vm1: &mut GuestChannel) {
    assert_eq!((ask(vm1, STATUS, "vm2"), states(vm1)["vm2"]), (IS_OFF, 5));
    assert_eq!(ask(vm1, OFF, "vm2"), SUCCESS);
}

/// Has it seen that the guest was migrated, by whatever it is asked; then the hypervisor forgets it.
#[track_caller]
fn goes_away(hypervisor: &ScriptedHypervisor, vm1: &mut GuestChannel, by: u8) {
    state(hypervisor, State::OffMigrated);
    assert_eq!(ask(vm1, by, "vm2"), FAILED, "action {by}");
    state(hypervisor, State::Off);
}

/// Rule 1, migration: seen by a status, a fence or a list, or told; then forgotten by the hypervisor.
#[test]
fn a_guest_that_went_away_is_failed_whatever_the_hypervisor_forgets() {
    for by in [STATUS, OFF] {
        let hypervisor = three();
        let (_bed, mut vm1) = bed(&hypervisor);
        goes_away(&hypervisor, &mut vm1, by);
        expect_away(&hypervisor, &mut vm1);
    }
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    state(&hypervisor, State::OffMigrated);
    assert_eq!(states(&mut vm1)["vm2"], 1);
    state(&hypervisor, State::Off);
    expect_away(&hypervisor, &mut vm1);

    // Nobody has looked when it went.
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    state(&hypervisor, State::Underway);
    hypervisor.tell(Happening::Leaves(vm2()));
    state(&hypervisor, State::Off);
    expect_away(&hypervisor, &mut vm1);
}

/// Rule 1, migration: one that is seen on its way, and of which nothing is told, may have arrived: destroyed here it is
/// not off.
#[test]
fn a_guest_that_was_seen_on_its_way_is_failed() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    state(&hypervisor, State::Migrating);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED);
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
    expect_away(&hypervisor, &mut vm1);

    let hypervisor = three();
    hypervisor.change("vm2", |guest| (guest.persistent, guest.state) = (false, State::Migrating));
    let (_bed, mut vm1) = bed(&hypervisor);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED, "it is gone, and may be elsewhere");
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);

    // Told to leave, and paused for a reason that the hypervisor has forgotten.
    let hypervisor = three();
    hypervisor.change("vm2", |guest| guest.persistent = false);
    let (_bed, mut vm1) = bed(&hypervisor);
    hypervisor.tell(Happening::Leaves(vm2()));
    state(&hypervisor, State::Underway);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED);
}

/// Rule 1, migration: one that comes from another host and does not arrive goes on there. What has arrived is off when
/// it is.
#[test]
fn a_guest_that_did_not_arrive_is_failed() {
    let hypervisor = three();
    state(&hypervisor, State::Off);
    let (_bed, mut vm1) = bed(&hypervisor);
    expect_off(&mut vm1);
    hypervisor.tell(Happening::Arrives(vm2()));
    state(&hypervisor, State::Underway);
    assert_eq!((ask(&mut vm1, STATUS, "vm2"), states(&mut vm1)["vm2"]), (SUCCESS, 1));
    state(&hypervisor, State::Off);
    expect_away(&hypervisor, &mut vm1);
    hypervisor.tell(Happening::Arrives(vm2()));
    state(&hypervisor, State::Running);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    expect_off(&mut vm1);
}

/// Rule 1, migration: what ends it is a new run here: seen, or told and over by the time that anybody looks.
#[test]
fn a_guest_that_ran_here_again_is_off_when_it_is() {
    for comes in [State::Running, State::Paused] {
        let hypervisor = three();
        let (_bed, mut vm1) = bed(&hypervisor);
        goes_away(&hypervisor, &mut vm1, STATUS);
        state(&hypervisor, comes);
        assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "{comes:?}");
        assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy], "{comes:?}");
        expect_off(&mut vm1);
    }
    for told in [Happening::Started(vm2()), Happening::Resumed(vm2())] {
        let hypervisor = three();
        let (_bed, mut vm1) = bed(&hypervisor);
        goes_away(&hypervisor, &mut vm1, OFF);
        hypervisor.tell(told);
        expect_off(&mut vm1);
    }
}

/// Rule 1, migration: what became of a guest that is not defined any more is forgotten; one that is defined anew is off.
#[test]
fn a_guest_that_was_undefined_is_forgotten() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    goes_away(&hypervisor, &mut vm1, OFF);
    hypervisor.remove("vm2");
    wait_until(DEADLINE, "it to be gone from a list", || (!states(&mut vm1).contains_key("vm2")).then_some(()));
    hypervisor.add("vm2", &uuid_of("vm2"));
    state(&hypervisor, State::Off);
    wait_until(DEADLINE, "it to be off", || (ask(&mut vm1, STATUS, "vm2") == IS_OFF).then_some(()));
    expect_off(&mut vm1);
}

/// Rule 1, migration: the bridge that is started again knows it as well; it is not the only thing that is restarted
/// when guests are sent away.
#[test]
fn a_guest_that_went_away_is_failed_by_the_next_bridge() {
    let hypervisor = three();
    let (mut bed, mut vm1) = bed(&hypervisor);
    goes_away(&hypervisor, &mut vm1, STATUS);
    for _ in 0..2 {
        bed.restart([&mut vm1]);
        expect_away(&hypervisor, &mut vm1);
    }
    state(&hypervisor, State::Running);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    bed.restart([&mut vm1]);
    expect_off(&mut vm1);
}

/// Rule 1, migration: a folder that is lost meanwhile is an error in the log and no more; the next bridge makes it anew.
#[test]
fn a_guest_that_went_away_is_failed_though_it_cannot_be_written_down() {
    let hypervisor = three();
    let (bed, mut vm1) = bed(&hypervisor);
    fs::remove_dir_all(bed.state()).expect("a folder");
    goes_away(&hypervisor, &mut vm1, STATUS);
    expect_away(&hypervisor, &mut vm1);
    assert_eq!(ask(&mut vm1, OFF, "vm3"), SUCCESS, "and others are fenced");
}

/// Rule 1, migration: with every hypervisor configured, it is off where all say so, and at home where it went last.
#[test]
fn with_all_hypervisors_it_is_off_where_all_say_so() {
    let (here, there) = (three(), three());
    here.change("vm3", |guest| guest.state = State::Off);
    there.change("vm1", |guest| guest.state = State::Off);
    let start = |setup: Setup| {
        let bed = setup.hypervisor(IMPATIENT).start();
        let channel = bed.channel("vm1");
        (bed, channel)
    };
    let (_bed, mut vm1) = start(BridgeBed::setup(&here).beside(&there));
    goes_to(&here, &there, &mut vm1);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    assert_eq!((here.done_to("vm2"), there.done_to("vm2")), (vec![], vec![Call::Destroy]));
    expect_off(&mut vm1);
    assert_eq!(ask(&mut vm1, ON, "vm2"), SUCCESS);
    assert_eq!((here.state("vm2"), there.state("vm2")), (State::Off, State::Running));
}

/// It goes from the one to the other, and the first forgets it.
#[track_caller]
fn goes_to(here: &ScriptedHypervisor, there: &ScriptedHypervisor, vm1: &mut GuestChannel) {
    state(here, State::OffMigrated);
    assert_eq!(ask(vm1, STATUS, "vm2"), SUCCESS, "it runs there");
    state(here, State::Off);
    assert_eq!((ask(vm1, STATUS, "vm2"), there.state("vm2")), (SUCCESS, State::Running));
}
