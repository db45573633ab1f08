//! Rule 1: a hypervisor that says "off" of a guest whose process lives. The bridge has a channel to that process, which
//! the kernel closes when it ends: while it is open, the guest is not off.

use std::thread;
use std::time::Duration;

use fencewire_tests::bridge_bed::{BridgeBed, Setup};
use fencewire_tests::daemon::states;
use fencewire_tests::guest_channel::{
    FAILED, GuestChannel, IS_OFF, OFF, ON, REBOOT, REPLY_LENGTH, STATUS, SUCCESS, reply,
};
use fencewire_tests::process::DEADLINE;
use fencewire_tests::scripted::{Call, OnDestroy, OnRemoveSaved, ScriptedHypervisor};
use fencewired::power::hypervisor::State;

use crate::common::{ask, frame, three};

/// As a list has it.
const LISTED_ON: u8 = 1;
const LISTED_OFF: u8 = 5;

/// vm1 asks; of vm2 the bridge has a channel to its QEMU.
fn setup(hypervisor: &ScriptedHypervisor) -> Setup {
    BridgeBed::setup(hypervisor).channels(["vm1"]).qemu_channel("vm2")
}

/// That bridge, and both channels.
#[track_caller]
fn bed(hypervisor: &ScriptedHypervisor) -> (BridgeBed, GuestChannel, GuestChannel) {
    let bed = setup(hypervisor).start();
    hypervisor.wait_marked();
    let (vm1, vm2) = (bed.channel("vm1"), bed.channel("vm2"));
    (bed, vm1, vm2)
}

/// Rule 1, power: destroyed, "off" by the hypervisor's word, and alive. A reboot does not start it a second time.
#[test]
fn a_guest_whose_process_lives_after_its_destroy_is_not_fenced() {
    for action in [OFF, REBOOT] {
        let hypervisor = three();
        let (mut bed, mut vm1, mut vm2) = bed(&hypervisor);
        let first = frame(action, "vm2");
        assert_eq!(vm1.ask(&first, DEADLINE), FAILED, "action {action}");
        assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy], "action {action}");
        vm2.vanish();
        assert_eq!(vm1.ask(&first, DEADLINE), FAILED, "that request is over");
        assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "another sees it off");
        let records = bed.records();
        let said = "not confirmed: may have happened, or may still happen";
        assert!(records.iter().any(|record| record["outcome"] == said), "{records:?}");
    }
}

/// Rule 1, power: "off" before anything was asked, and alive: nothing is done, neither to it nor to its image.
#[test]
fn a_guest_that_was_lost_and_lives_is_not_fenced_and_not_started() {
    let hypervisor = three();
    hypervisor.change("vm2", |guest| (guest.state, guest.saved) = (State::Off, true));
    let (_bed, mut vm1, mut vm2) = bed(&hypervisor);
    for action in [OFF, REBOOT, ON] {
        assert_eq!(ask(&mut vm1, action, "vm2"), FAILED, "action {action}");
    }
    assert_eq!(hypervisor.done_to("vm2"), []);
    vm2.vanish();
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    assert_eq!(hypervisor.done_to("vm2"), [Call::RemoveSaved]);
    assert_eq!(ask(&mut vm1, ON, "vm2"), SUCCESS);
}

/// Rule 1, status and list: it is not off.
#[test]
fn a_guest_that_was_lost_and_lives_is_unknown() {
    let hypervisor = three();
    let (_bed, mut vm1, mut vm2) = bed(&hypervisor);
    let is = |vm1: &mut GuestChannel| (ask(vm1, STATUS, "vm2"), states(vm1)["vm2"]);
    assert_eq!(is(&mut vm1), (SUCCESS, LISTED_ON));
    hypervisor.change("vm2", |guest| guest.state = State::Off);
    assert_eq!(is(&mut vm1), (FAILED, LISTED_ON));
    vm2.vanish();
    assert_eq!(is(&mut vm1), (IS_OFF, LISTED_OFF));
}

/// Rule 1, power: with several hypervisors, all of which say that it is off.
#[test]
fn a_guest_that_all_have_lost_and_that_lives_is_not_off() {
    let (here, there) = (three(), three());
    for hypervisor in [&here, &there] {
        hypervisor.change("vm2", |guest| guest.state = State::Off);
    }
    let bed = setup(&here).beside(&there).start();
    let (mut vm1, mut vm2) = (bed.channel("vm1"), bed.channel("vm2"));
    for action in [STATUS, OFF, ON] {
        assert_eq!(ask(&mut vm1, action, "vm2"), FAILED, "action {action}");
    }
    assert_eq!(states(&mut vm1)["vm2"], LISTED_ON);
    assert_eq!((here.done_to("vm2"), there.done_to("vm2")), (vec![], vec![]));
    vm2.vanish();
    assert_eq!((ask(&mut vm1, STATUS, "vm2"), ask(&mut vm1, OFF, "vm2")), (IS_OFF, SUCCESS));
}

/// Rule 1, power: each of its channels counts.
#[test]
fn a_guest_of_whose_channels_one_is_open_is_not_fenced() {
    let hypervisor = three();
    let bed = setup(&hypervisor).qemu_channel("vm2").start();
    let [mut vm1, mut one, mut other] = ["vm1", "vm2", "vm2+"].map(|name| bed.channel(name));
    one.vanish();
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED);
    other.vanish();
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
}

/// Rule 1, power: the channel may close a moment after the hypervisor's word, but it closes.
#[test]
fn a_guest_whose_channel_closes_within_a_second_is_fenced() {
    let hypervisor = three();
    let (_bed, mut vm1, mut vm2) = bed(&hypervisor);
    vm1.send(&frame(OFF, "vm2"));
    hypervisor.wait_for(Call::Destroy, "vm2", 1, DEADLINE);
    thread::sleep(Duration::from_millis(300));
    vm2.vanish();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
}

/// Rule 1, power: the channel's end alone is no fence.
#[test]
fn a_guest_whose_channel_closes_and_that_is_not_seen_off_is_not_fenced() {
    let hypervisor = three();
    hypervisor.change("vm2", |guest| guest.on_destroy = OnDestroy::SaysDone);
    let bed = setup(&hypervisor).hypervisor(crate::common::IMPATIENT).start();
    let (mut vm1, mut vm2) = (bed.channel("vm1"), bed.channel("vm2"));
    vm1.send(&frame(OFF, "vm2"));
    hypervisor.wait_for(Call::Destroy, "vm2", 1, DEADLINE);
    vm2.vanish();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), FAILED);
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS);
}

/// Rule 1, power: the bridge lets go of the channel while it fences, and it is watched all the same.
#[test]
fn a_channel_that_a_reload_takes_away_meanwhile_is_watched_to_the_end() {
    let hypervisor = three();
    let mut bed = setup(&hypervisor).channels(["vm3"]).start();
    let [mut vm1, vm2, mut vm3] = ["vm1", "vm2", "vm3"].map(|name| bed.channel(name));
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    vm1.send(&frame(OFF, "vm2"));
    gate.wait_for(1, DEADLINE);
    let path = vm2.path().display().to_string();
    bed.reload(|text| text.replace(&format!("[[channel]]\nkind = \"unix\"\npath = \"{path}\"\nguest = \"vm2\""), ""));
    assert_eq!(ask(&mut vm3, STATUS, "vm1"), SUCCESS, "which is answered after the reload");
    gate.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), FAILED);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "the bridge has no such channel, and only the hypervisor's word");
}

/// Rule 4: a channel that does not end with the guest is no witness: another guest's, one of a relay that stands between
/// QEMU and the bridge, and one that came after the fence had begun.
#[test]
fn a_channel_that_is_not_the_guests_own_from_before_delays_no_fence() {
    let hypervisor = three();
    let bed = setup(&hypervisor).channels(["vm2"]).qemu_channel("vm3").start();
    let [mut vm1, mut vm2, _relay, _vm3] = ["vm1", "vm2", "vm2+", "vm3"].map(|name| bed.channel(name));
    vm2.vanish();
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    vm1.send(&frame(OFF, "vm2"));
    gate.wait_for(1, DEADLINE);
    vm2.listen_again_as_qemu();
    vm2.accept(DEADLINE);
    gate.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
}

/// Nor does it make a guest that is off one of which nothing is known.
#[test]
fn anothers_channel_says_nothing_of_a_guest_that_is_off() {
    let hypervisor = three();
    hypervisor.change("vm3", |guest| guest.state = State::Off);
    let (_bed, mut vm1, _vm2) = bed(&hypervisor);
    assert_eq!(ask(&mut vm1, STATUS, "vm3"), IS_OFF);
    assert_eq!(states(&mut vm1)["vm3"], LISTED_OFF);
    assert_eq!(ask(&mut vm1, OFF, "vm3"), SUCCESS);
}

/// Rule 1, power: a saved image is removed when the process has ended; it is no reason to believe more.
#[test]
fn a_saved_guest_whose_process_lives_keeps_its_image() {
    let hypervisor = three();
    hypervisor.change("vm2", |guest| {
        guest.on_destroy = OnDestroy::Does(|guest| (guest.state, guest.saved) = (State::Off, true));
        guest.on_remove_saved = OnRemoveSaved::Works;
    });
    let (_bed, mut vm1, _vm2) = bed(&hypervisor);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED);
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Self-fencing: the requester's own channel ends with it, which is what has to be seen.
#[test]
fn a_guest_that_fences_itself_is_fenced_when_its_own_channel_has_ended() {
    let hypervisor = three();
    let bed = BridgeBed::setup(&hypervisor).group("all", &["vm1", "vm2"], "allow_self = true");
    let mut bed = bed.channels(["vm1"]).qemu_channel("vm2").start();
    let mut vm2 = bed.channel("vm2");
    vm2.send(&frame(OFF, "vm2"));
    hypervisor.wait_for(Call::Destroy, "vm2", 1, DEADLINE);
    vm2.vanish();
    let records = bed.records();
    assert!(records.iter().any(|record| record["outcome"] == "confirmed off"), "{records:?}");
}
