//! Rule 1 with several hypervisors: a guest is off only where every hypervisor that may run it has said so, and is fenced
//! where it runs. DESIGN's table, row by row.

use std::thread;
use std::time::Duration;

use fencewire_tests::bridge_bed::{BridgeBed, Setup};
use fencewire_tests::guest_channel::{
    FAILED, GuestChannel, IS_OFF, MONITOR, OFF, ON, REBOOT, REPLY_LENGTH, STATUS, SUCCESS, reply,
};
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::scripted::{Call, OnDestroy, OnLook, ScriptedHypervisor};
use fencewired::power::hypervisor::{HypervisorError, State};

use crate::common::{IMPATIENT, ask, frame, three};

/// Two hypervisors that have the same three guests; on the second they are off.
fn two() -> (ScriptedHypervisor, ScriptedHypervisor) {
    let (here, there) = (three(), three());
    for name in ["vm1", "vm2", "vm3"] {
        there.change(name, |guest| guest.state = State::Off);
    }
    (here, there)
}

fn setup(here: &ScriptedHypervisor, there: &ScriptedHypervisor) -> Setup {
    BridgeBed::setup(here).beside(there).hypervisor(IMPATIENT)
}

fn bed(here: &ScriptedHypervisor, there: &ScriptedHypervisor) -> (BridgeBed, GuestChannel) {
    let bed = setup(here, there).start();
    let channel = bed.channel("vm1");
    (bed, channel)
}

fn state(hypervisor: &ScriptedHypervisor, state: State) {
    hypervisor.change("vm2", |guest| guest.state = state);
}

/// Active on one, inactive on the other, whichever comes first in the configuration: it is fenced where it is active, and
/// the other is not touched.
#[test]
fn a_guest_is_fenced_where_it_is_active() {
    for swapped in [false, true] {
        for (action, done) in [(OFF, vec![Call::Destroy]), (REBOOT, vec![Call::Destroy, Call::Start]), (ON, vec![])] {
            let (here, there) = two();
            if swapped {
                state(&here, State::Off);
                state(&there, State::Running);
            }
            let (bed, mut vm1) = bed(&here, &there);
            assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS);
            assert_eq!(ask(&mut vm1, action, "vm2"), SUCCESS);
            let (active, inactive) = if swapped { (&there, &here) } else { (&here, &there) };
            assert_eq!((active.done_to("vm2"), inactive.done_to("vm2")), (done, vec![]), "action {action}, {swapped}");
            drop(bed);
        }
    }
}

/// Two that are looked for at the same time: each is fenced where it is, and not where the other one is.
#[test]
fn guests_that_are_looked_for_at_once_are_not_mistaken_for_each_other() {
    let names = ["vm1", "vm2", "vm3", "vm4"];
    let (here, there) = (ScriptedHypervisor::with(names), ScriptedHypervisor::with(names));
    for name in ["vm1", "vm2", "vm3"] {
        there.change(name, |guest| guest.state = State::Off);
    }
    here.change("vm4", |guest| guest.state = State::Off);
    let bed = setup(&here, &there).channels(["vm1", "vm3"]).start();
    let [mut vm1, mut vm3] = ["vm1", "vm3"].map(|guest| bed.channel(guest));
    let gate = there.hold_all(Call::Look);
    vm1.send(&frame(OFF, "vm2"));
    vm3.send(&frame(OFF, "vm4"));
    gate.wait_for(2, DEADLINE);
    gate.open();
    for channel in [&mut vm1, &mut vm3] {
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    }
    assert_eq!((here.done_to("vm2"), there.done_to("vm2")), (vec![Call::Destroy], vec![]));
    assert_eq!((here.done_to("vm4"), there.done_to("vm4")), (vec![], vec![Call::Destroy]));
}

/// Active on two: nobody knows which of them is meant, or whether it is one guest at all.
#[test]
fn a_guest_that_is_active_on_two_is_left_alone() {
    let (here, there) = two();
    state(&there, State::Paused);
    let (_bed, mut vm1) = bed(&here, &there);
    for action in [STATUS, OFF, REBOOT, ON] {
        assert_eq!(ask(&mut vm1, action, "vm2"), FAILED, "action {action}");
    }
    assert_eq!((here.done_to("vm2"), there.done_to("vm2")), (vec![], vec![]));
}

/// Active nowhere, and all have answered: off. It is started where it is defined.
#[test]
fn a_guest_that_is_active_nowhere_is_off_once_all_have_said_so() {
    let (here, there) = two();
    state(&here, State::Off);
    there.remove("vm2");
    let (_bed, mut vm1) = bed(&here, &there);
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), IS_OFF);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    assert_eq!(here.count(Call::Destroy, "vm2"), 0);
    assert_eq!(ask(&mut vm1, ON, "vm2"), SUCCESS);
    assert_eq!(here.done_to("vm2"), [Call::Start]);
}

/// One is silent: a guest that is active on the other is fenced all the same; one that is active nowhere may run there.
#[test]
fn a_silent_hypervisor_makes_off_unknown_and_stops_no_fence_elsewhere() {
    let check = |silence: fn(&ScriptedHypervisor)| {
        let (here, there) = two();
        let (bed, mut vm1) = bed(&here, &there);
        silence(&there);
        assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
        assert_eq!(here.done_to("vm2"), [Call::Destroy]);
        for action in [STATUS, OFF, REBOOT, ON] {
            assert_eq!(ask(&mut vm1, action, "vm2"), FAILED, "off here, and nobody knows what is there: {action}");
        }
        assert_eq!(here.done_to("vm2"), [Call::Destroy]);
        assert_eq!(ask(&mut vm1, MONITOR, ""), SUCCESS);
        there.release();
        drop(bed);
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            check(|there| {
                for call in [Call::Look, Call::State, Call::Guests] {
                    drop(there.hold_all(call));
                }
            });
        });
        scope.spawn(|| check(|there| there.unreachable_after(0)));
    });
}

/// One that was silent comes back, and what it says counts again.
#[test]
fn a_hypervisor_that_comes_back_is_asked_again() {
    let (here, there) = two();
    state(&here, State::Off);
    let (_bed, mut vm1) = bed(&here, &there);
    there.unreachable_after(0);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED);
    there.reachable();
    wait_until(DEADLINE, "the fence after it came back", || (ask(&mut vm1, OFF, "vm2") == SUCCESS).then_some(()));
}

/// "Migrated" says that it is not here: with every other hypervisor saying that it is not there either, it is off.
#[test]
fn a_guest_that_was_migrated_is_off_where_all_say_that_it_is_not_active() {
    for (there_is, status, off) in [(State::Off, IS_OFF, SUCCESS), (State::Running, SUCCESS, SUCCESS)] {
        let (here, there) = two();
        state(&here, State::OffMigrated);
        state(&there, there_is);
        let (_bed, mut vm1) = bed(&here, &there);
        assert_eq!(ask(&mut vm1, STATUS, "vm2"), status);
        assert_eq!(ask(&mut vm1, OFF, "vm2"), off);
        assert_eq!(here.count(Call::Destroy, "vm2"), 0);
        assert_eq!(there.state("vm2"), State::Off);
    }
}

/// A guest that turns out to have been migrated by the time it is destroyed is followed to where it runs.
#[test]
fn a_guest_that_goes_to_the_other_hypervisor_is_fenced_there() {
    let (here, there) = two();
    // The last moments of a migration: the destroy returns, and the guest runs on at the destination.
    here.change("vm2", |guest| guest.on_destroy = OnDestroy::Leaves(State::OffMigrated));
    let gate = here.hold_reply(Call::Destroy, "vm2");
    let (_bed, mut vm1) = bed(&here, &there);
    vm1.send(&frame(OFF, "vm2"));
    gate.wait_for(1, DEADLINE);
    state(&there, State::Running);
    here.release();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    assert_eq!(there.done_to("vm2"), [Call::Destroy]);
    assert_eq!(there.state("vm2"), State::Off);
}

/// A guest that is fenced while it is on its way has something at the other end as well, which libvirt says nothing of:
/// until that is gone, it is not fenced.
#[test]
fn a_guest_that_was_on_its_way_is_off_when_nothing_is_left_at_the_other_end() {
    for (is_left, answer) in [(true, FAILED), (false, SUCCESS)] {
        let (here, there) = two();
        here.change("vm2", |guest| guest.job = true);
        if is_left {
            let incoming = OnLook::Fails(HypervisorError::Failed("incoming".to_owned()));
            there.change("vm2", |guest| guest.on_look = incoming);
        }
        let (_bed, mut vm1) = bed(&here, &there);
        assert_eq!(ask(&mut vm1, OFF, "vm2"), answer, "something is left: {is_left}");
        assert_eq!(here.done_to("vm2"), [Call::AbortJob, Call::Destroy]);
    }
}

/// A saved image is removed where it is; with one on each hypervisor, a person has to say which.
#[test]
fn a_saved_image_is_removed_wherever_it_is() {
    let (here, there) = two();
    state(&here, State::Off);
    there.change("vm2", |guest| guest.saved = true);
    let (_bed, mut vm1) = bed(&here, &there);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    assert_eq!((here.done_to("vm2"), there.done_to("vm2")), (vec![], vec![Call::RemoveSaved]));
    for hypervisor in [&here, &there] {
        hypervisor.change("vm2", |guest| guest.saved = true);
    }
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED);
}

/// A transient guest that was seen active on one and is then on none is off.
#[test]
fn a_transient_guest_is_off_when_it_is_gone() {
    let (here, there) = two();
    there.remove("vm2");
    here.change("vm2", |guest| guest.persistent = false);
    let (_bed, mut vm1) = bed(&here, &there);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    assert_eq!(here.done_to("vm2"), [Call::Destroy]);
}

/// Rule 2: a requester that is off on both is not obeyed, however long one of them takes to say so.
#[test]
fn a_requester_that_is_off_everywhere_is_not_heard() {
    let (here, there) = two();
    let (_bed, mut vm1) = bed(&here, &there);
    here.change("vm1", |guest| guest.state = State::Off);
    let gate = there.hold(Call::State, "vm1");
    vm1.send(&frame(OFF, "vm2"));
    gate.wait_for(1, DEADLINE);
    // Longer than an answer that nobody waits for would take.
    thread::sleep(Duration::from_millis(200));
    gate.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), FAILED);
    assert_eq!(here.done_to("vm2"), []);
}

/// The requester lives on the other hypervisor than its target: it is not taken for one that is off.
#[test]
fn a_requester_on_another_hypervisor_is_heard() {
    let (here, there) = (ScriptedHypervisor::with(["vm1"]), ScriptedHypervisor::with(["vm2"]));
    let bed = setup(&here, &there).group("g", &["vm1", "vm2"], "").channels(["vm1"]).start();
    let mut vm1 = bed.channel("vm1");
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    assert_eq!(there.done_to("vm2"), [Call::Destroy]);
}

/// A list is complete: each guest once, with what all hypervisors say of it. Of a silent one, what it had last.
#[test]
fn a_list_is_put_together_from_all() {
    let (here, there) = (ScriptedHypervisor::with(["vm1", "vm2"]), ScriptedHypervisor::with(["vm2", "vm3"]));
    there.change("vm2", |guest| guest.state = State::Off);
    there.change("vm3", |guest| guest.state = State::Off);
    let bed = setup(&here, &there).group("g", &["vm1", "vm2", "vm3"], "").channels(["vm1"]).start();
    let mut vm1 = bed.channel("vm1");
    let listed = |vm1: &mut GuestChannel| {
        let list = vm1.ask_list(DEADLINE);
        list.entries.into_iter().map(|entry| (entry.name, entry.state)).collect::<Vec<_>>()
    };
    let known = |vm3| vec![("vm2".to_owned(), 1), ("vm3".to_owned(), vm3)];
    assert_eq!(listed(&mut vm1), known(5));
    there.change("vm2", |guest| guest.on_look = OnLook::Fails(HypervisorError::Failed("x".to_owned())));
    there.unreachable_after(0);
    assert_eq!(listed(&mut vm1), known(1), "what is not known to be off is not listed as off");
}

/// Two guests of one name: the name means neither of them.
#[test]
fn a_name_that_two_guests_bear_fences_nobody() {
    let (here, there) = (ScriptedHypervisor::with(["vm1", "vm2"]), ScriptedHypervisor::default());
    there.add("vm2", "00000000-0000-4000-8000-0000000000ff");
    let (_bed, mut vm1) = bed(&here, &there);
    assert_ne!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    assert_eq!((here.done_to("vm2"), there.done_to("vm2")), (vec![], vec![]));
}
