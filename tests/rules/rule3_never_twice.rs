//! Rule 3: a repeated request gets the first one's answer; it neither acts again nor meets silence. Here: while one
//! bridge lives. What outlives it is in `rule3_restarts`.

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use fencewire_tests::bridge_bed::{BridgeBed, reconnect};
use fencewire_tests::guest_channel::{FAILED, IS_OFF, OFF, ON, REBOOT, REPLY_LENGTH, STATUS, SUCCESS, reply};
use fencewire_tests::process::DEADLINE;
use fencewire_tests::scripted::{Call, OnDestroy, ScriptedHypervisor};
use fencewired::power::hypervisor::State;

use crate::common::{ask, bed, frame, impatient_bed, three};

/// Rule 3, repeated after it was done: the same answer, and nothing is done again, whatever has become of the target.
#[test]
fn a_repeated_fence_is_answered_and_not_done_again() {
    for (action, done) in [(OFF, &[Call::Destroy][..]), (REBOOT, &[Call::Destroy, Call::Start])] {
        let hypervisor = three();
        let (_bed, mut vm1) = bed(&hypervisor);
        let frame = frame(action, "vm2");
        assert_eq!(vm1.ask(&frame, DEADLINE), SUCCESS);
        hypervisor.change("vm2", |guest| guest.state = State::Running);
        for _ in 0..3 {
            assert_eq!(vm1.ask(&frame, DEADLINE), SUCCESS, "action {action}");
        }
        vm1.close();
        reconnect([&mut vm1]);
        assert_eq!(vm1.ask(&frame, DEADLINE), SUCCESS, "over another connection, action {action}");
        assert_eq!(hypervisor.done_to("vm2"), done);
        assert_eq!(hypervisor.state("vm2"), State::Running, "it was started by somebody, and is left alone");
    }
}

/// Rule 3, repeated after it failed: failed it stays, and is not tried again. A new request is.
#[test]
fn a_repeated_failure_is_answered_and_not_tried_again() {
    let hypervisor = three();
    hypervisor.change("vm2", |guest| guest.on_destroy = OnDestroy::Fails);
    let (_bed, mut vm1) = impatient_bed(&hypervisor);
    let off = frame(OFF, "vm2");
    assert_eq!(vm1.ask(&off, DEADLINE), FAILED);
    hypervisor.change("vm2", |guest| guest.on_destroy = OnDestroy::Works);
    assert_eq!(vm1.ask(&off, DEADLINE), FAILED);
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "a new request");
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy, Call::Destroy]);
}

/// Rule 3, repeated while it runs: one action, and one answer to whoever waits on that connection.
#[test]
fn a_fence_repeated_while_it_runs_is_done_once_and_answered_once() {
    let hypervisor = three();
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    let (_bed, mut vm1) = bed(&hypervisor);
    let off = frame(OFF, "vm2");
    vm1.send(&off);
    gate.wait_for(1, DEADLINE);
    for _ in 0..2 {
        // Not sooner: two frames at once are two questions.
        thread::sleep(Duration::from_millis(300));
        vm1.send(&off);
    }
    gate.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    // On a busy machine the bridge may have read both copies late, and takes them for two questions: two more answers.
    while let [.., SUCCESS] = vm1.read_up_to(REPLY_LENGTH, Duration::from_millis(50))[..] {}
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), IS_OFF);
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Rule 3, repeated at once: each copy has its answer, and it is done once.
#[test]
fn copies_of_a_fence_in_one_write_are_done_once_and_each_is_answered() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    let off = frame(OFF, "vm2");
    vm1.send(&[off, off, off].concat());
    for _ in 0..3 {
        assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    }
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Rule 3, repeated over a guest's other channel: who asks is the guest, by whichever way.
#[test]
fn a_fence_repeated_over_another_channel_while_it_runs_is_done_once_and_answered_on_both() {
    let hypervisor = three();
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    let bed = BridgeBed::setup(&hypervisor).channels(["vm1", "vm1", "vm3"]).start();
    let [mut one, mut other, mut vm3] = ["vm1", "vm1+", "vm3"].map(|channel| bed.channel(channel));
    let off = frame(OFF, "vm2");
    one.send(&off);
    gate.wait_for(1, DEADLINE);
    other.send(&off);
    assert_eq!(ask(&mut vm3, STATUS, "vm1"), SUCCESS, "by now the bridge has read both");
    gate.open();
    for channel in [&mut one, &mut other] {
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    }
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Rule 3, repeated over a guest's other channel: the one that is still waited for is done, though the first asker left.
#[test]
fn a_repeated_fence_whose_first_asker_went_away_is_done_for_the_second() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3"]);
    hypervisor.change("vm2", |guest| guest.state = State::Off);
    let gate = hypervisor.hold(Call::Start, "vm2");
    let bed = BridgeBed::setup(&hypervisor).channels(["vm1", "vm1", "vm3", "vm3"]).start();
    let [mut one, mut other, mut vm3, mut witness] = ["vm1", "vm1+", "vm3", "vm3+"].map(|name| bed.channel(name));
    vm3.send(&frame(ON, "vm2"));
    gate.wait_for(1, DEADLINE);
    let off = frame(OFF, "vm2");
    for channel in [&mut one, &mut other] {
        channel.send(&off);
        assert_eq!(ask(&mut witness, STATUS, "vm1"), SUCCESS, "by now the bridge has read it");
    }
    one.close();
    reconnect([&mut one]);
    gate.open();
    assert_eq!(reply(&other.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    assert_eq!(hypervisor.done_to("vm2"), [Call::Start, Call::Destroy]);
}

/// Rule 3, other request: another sequence number is another request, and so is the same frame from another guest.
#[test]
fn what_is_not_the_same_frame_of_the_same_guest_is_another_request() {
    let hypervisor = three();
    let (bed, mut vm1) = bed(&hypervisor);
    let mut vm3 = bed.channel("vm3");
    let off = frame(OFF, "vm2");
    let mut destroys = 0;
    for (channel, frame) in [(&mut vm1, off), (&mut vm3, off)] {
        hypervisor.change("vm2", |guest| guest.state = State::Running);
        assert_eq!(channel.ask(&frame, DEADLINE), SUCCESS);
        destroys += 1;
        assert_eq!(hypervisor.count(Call::Destroy, "vm2"), destroys);
    }
    hypervisor.change("vm2", |guest| guest.state = State::Running);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    assert_eq!(hypervisor.count(Call::Destroy, "vm2"), destroys + 1);
}

/// Rule 3, two at once: guests that fence the same target at the same moment cause one destroy, and both have an answer.
#[test]
fn guests_that_fence_the_same_target_at_once_cause_one_destroy() {
    const TARGETS: usize = 12;
    let names: Vec<[String; 3]> =
        (0..TARGETS).map(|number| ["a", "b", "target"].map(|kind| format!("{kind}{number}"))).collect();
    let hypervisor = ScriptedHypervisor::with(names.iter().flatten().map(String::as_str));
    let bed = BridgeBed::start(&hypervisor);
    let together = Barrier::new(2 * TARGETS);
    thread::scope(|scope| {
        for [a, b, target] in &names {
            for asker in [a, b] {
                let (mut channel, together) = (bed.channel(asker), &together);
                scope.spawn(move || {
                    let off = frame(OFF, target);
                    together.wait();
                    assert_eq!(channel.ask(&off, DEADLINE), SUCCESS, "{asker} fences {target}");
                });
            }
        }
    });
    for [.., target] in &names {
        assert_eq!(hypervisor.done_to(target), [Call::Destroy], "{target}");
    }
}

/// Rule 3, two at once: a reboot likewise, as long as the second request came before the target was seen off.
#[test]
fn guests_that_reboot_the_same_target_at_once_cause_one_reboot() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3", "vm4"]);
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    let bed = BridgeBed::start(&hypervisor);
    let [mut vm1, mut vm3, mut vm4] = ["vm1", "vm3", "vm4"].map(|guest| bed.channel(guest));
    vm1.send(&frame(REBOOT, "vm2"));
    gate.wait_for(1, DEADLINE);
    vm3.send(&frame(REBOOT, "vm2"));
    assert_eq!(ask(&mut vm4, STATUS, "vm1"), SUCCESS, "by now the bridge has read both");
    gate.open();
    for channel in [&mut vm1, &mut vm3] {
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    }
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy, Call::Start]);
}

/// Rules 1 and 3, two at once: whoever asks after the target was last seen off is answered by a look of their own.
#[test]
fn who_joins_a_fence_after_its_last_look_is_answered_by_a_new_look() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3", "vm4"]);
    hypervisor.change("vm2", |guest| guest.state = State::Off);
    let gate = hypervisor.hold_reply(Call::Look, "vm2");
    let bed = BridgeBed::start(&hypervisor);
    let [mut vm1, mut vm3, mut vm4] = ["vm1", "vm3", "vm4"].map(|guest| bed.channel(guest));
    vm1.send(&frame(ON, "vm4"));
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS, "the workers are awake");
    vm1.send(&frame(OFF, "vm2"));
    gate.wait_for(1, DEADLINE);
    // What vm1 will hear is from before this, and somebody starts the target now.
    hypervisor.change("vm2", |guest| guest.state = State::Running);
    thread::sleep(Duration::from_millis(5));
    vm3.send(&frame(OFF, "vm2"));
    assert_eq!(ask(&mut vm4, STATUS, "vm1"), SUCCESS, "by now the bridge has read both");
    gate.open();
    let [_first, second] = [&mut vm1, &mut vm3].map(|channel| reply(&channel.read(REPLY_LENGTH, DEADLINE)));
    assert_eq!(second, SUCCESS);
    assert_eq!(hypervisor.state("vm2"), State::Off, "off for the one that asked last");
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Rules 1 and 3, two at once: an `on` likewise.
#[test]
fn who_joins_an_on_after_its_last_look_is_answered_by_a_new_look() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3", "vm4"]);
    let gate = hypervisor.hold_reply(Call::Look, "vm2");
    let bed = BridgeBed::start(&hypervisor);
    let [mut vm1, mut vm3, mut vm4] = ["vm1", "vm3", "vm4"].map(|guest| bed.channel(guest));
    vm1.send(&frame(ON, "vm2"));
    gate.wait_for(1, DEADLINE);
    hypervisor.change("vm2", |guest| guest.state = State::Off);
    thread::sleep(Duration::from_millis(5));
    vm3.send(&frame(ON, "vm2"));
    assert_eq!(ask(&mut vm4, STATUS, "vm1"), SUCCESS, "by now the bridge has read both");
    gate.open();
    assert_eq!([&mut vm1, &mut vm3].map(|channel| reply(&channel.read(REPLY_LENGTH, DEADLINE))), [SUCCESS, SUCCESS]);
    assert_eq!(hypervisor.state("vm2"), State::Running, "on for the one that asked last");
    assert_eq!(hypervisor.done_to("vm2"), [Call::Start]);
}

/// Rule 3, journal: what could not be remembered over a restart is not begun.
#[test]
fn a_fence_that_cannot_be_written_down_is_failed_and_not_begun() {
    let hypervisor = three();
    let (bed, mut vm1) = bed(&hypervisor);
    fs::remove_dir_all(bed.journal()).expect("a journal that can be removed");
    for action in [OFF, REBOOT] {
        assert_eq!(ask(&mut vm1, action, "vm2"), FAILED, "action {action}");
    }
    assert_eq!(hypervisor.done_to("vm2"), []);
    fs::create_dir(bed.journal()).expect("a journal");
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "as soon as it can be");
}

/// Nor is what cannot be recorded, where nothing may happen without a record.
#[test]
fn a_fence_that_cannot_be_recorded_is_failed_and_not_begun_where_records_are_required() {
    let hypervisor = three();
    let bed = BridgeBed::setup(&hypervisor).required_records(Path::new("/dev/full")).start();
    hypervisor.wait_marked();
    let mut vm1 = bed.channel("vm1");
    for action in [OFF, REBOOT, OFF] {
        assert_eq!(ask(&mut vm1, action, "vm2"), FAILED, "action {action}");
    }
    assert_eq!(hypervisor.done_to("vm2"), []);
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "whoever only asks is answered");
}

/// What is being carried out when its asker goes away goes on, and is recorded as any other.
#[test]
fn a_fence_whose_asker_went_away_is_finished_and_recorded() {
    let hypervisor = three();
    let (mut bed, mut vm1) = bed(&hypervisor);
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    vm1.send(&frame(OFF, "vm2"));
    gate.wait_for(1, DEADLINE);
    vm1.close();
    // The bridge connects anew once it has noticed.
    reconnect([&mut vm1]);
    gate.open();
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "another, which sees it off");
    let records = bed.records();
    let outcomes = records.iter().filter(|record| record["action"] == "off").map(|record| &record["outcome"]);
    assert_eq!(outcomes.collect::<Vec<_>>(), ["confirmed off", "confirmed off"]);
}
