//! Rule 2: nobody is fenced whom nobody asks to fence any more. Here: requests whose time is up, whose asker has gone, or
//! whose asker is off.

use std::thread;
use std::time::Duration;

use fencewire_tests::bridge_bed::{BridgeBed, reconnect};
use fencewire_tests::guest_channel::{
    FAILED, GuestChannel, OFF, ON, REBOOT, REPLY_LENGTH, REQUEST_LENGTH, STATUS, SUCCESS, reply,
};
use fencewire_tests::libvirt_file::uuid_of;
use fencewire_tests::process::DEADLINE;
use fencewire_tests::scripted::{Call, Gate, OnStart, ScriptedHypervisor};
use fencewired::power::hypervisor::State;

use crate::common::{IMPATIENT, ask, bed, expect_nothing_done, frame, three};

/// vm1 switches `slow` on, and the hypervisor hangs in that; vm2's `off` waits behind it.
struct Queue {
    hypervisor: ScriptedHypervisor,
    gate: Gate,
    _bed: BridgeBed,
    vm1: GuestChannel,
    vm2: GuestChannel,
    vm3: GuestChannel,
    off: [u8; REQUEST_LENGTH],
}

impl Queue {
    #[track_caller]
    fn new() -> Self {
        Self::with("")
    }

    /// With these lines for the hypervisor.
    #[track_caller]
    fn with(lines: &str) -> Self {
        let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3", "slow"]);
        hypervisor.change("slow", |guest| guest.state = State::Off);
        let gate = hypervisor.hold(Call::Start, "slow");
        let bed = BridgeBed::setup(&hypervisor).hypervisor(lines).start();
        let [mut vm1, mut vm2, mut vm3] = ["vm1", "vm2", "vm3"].map(|guest| bed.channel(guest));
        vm1.send(&frame(ON, "slow"));
        gate.wait_for(1, DEADLINE);
        let off = frame(OFF, "slow");
        vm2.send(&off);
        assert_eq!(ask(&mut vm3, STATUS, "vm1"), SUCCESS, "by now the bridge has read what vm2 sent");
        Self { hypervisor, gate, _bed: bed, vm1, vm2, vm3, off }
    }

    /// Lets the hypervisor go on, and says that vm2's `off` is never begun.
    #[track_caller]
    fn go_on_and_expect_no_destroy(&mut self) {
        self.gate.open();
        assert_eq!(reply(&self.vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS, "the `on` that hung");
        assert_eq!(ask(&mut self.vm3, ON, "slow"), SUCCESS, "what goes through the same queue afterwards");
        assert_eq!(self.hypervisor.done_to("slow"), [Call::Start]);
    }
}

/// Rule 2, time: a request that waited behind another until its time was up is answered "failed" then, and never begun.
#[test]
fn a_request_whose_time_is_up_in_the_queue_is_never_carried_out() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3", "slow"]);
    hypervisor.change("slow", |guest| guest.state = State::Off);
    let gate = hypervisor.hold(Call::Start, "slow");
    let bed = BridgeBed::setup(&hypervisor).wire("classic = true\nclassic_timeout_s = 1").start();
    let [mut vm1, mut vm2, mut vm3] = ["vm1", "vm2", "vm3"].map(|guest| bed.channel(guest));
    let on = frame(ON, "slow");
    vm1.send(&on);
    gate.wait_for(1, DEADLINE);
    let off = frame(OFF, "slow");
    assert_eq!(vm2.ask(&off, DEADLINE), FAILED, "its time is up");
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), FAILED, "the other's, too");
    gate.open();
    assert_eq!(vm1.ask(&on, DEADLINE), SUCCESS, "what hung has happened");
    assert_eq!(vm2.ask(&off, DEADLINE), FAILED, "the same request is over for good");
    assert_eq!(ask(&mut vm3, ON, "slow"), SUCCESS, "what goes through the same queue afterwards");
    assert_eq!(hypervisor.done_to("slow"), [Call::Start]);
}

/// Rule 2, time: nor is one that was answered "failed" while it waited, since the hypervisor takes too long for another.
#[test]
fn a_request_that_was_answered_while_it_waited_is_never_carried_out() {
    let mut queue = Queue::with(IMPATIENT);
    assert_eq!(reply(&queue.vm2.read(REPLY_LENGTH, DEADLINE)), FAILED);
    assert_eq!(reply(&queue.vm1.read(REPLY_LENGTH, DEADLINE)), FAILED, "the `on` that hangs");
    queue.gate.open();
    assert_eq!(ask(&mut queue.vm3, ON, "slow"), SUCCESS, "what goes through the same queue afterwards");
    assert_eq!(queue.vm2.ask(&queue.off, DEADLINE), FAILED, "the same request is over for good");
    assert_eq!(queue.hypervisor.done_to("slow"), [Call::Start]);
}

/// Rule 2, time: nor is one that waited for its turn for a while, had it, and was answered "failed" before anything was
/// begun. Its time goes from its receipt.
#[test]
fn a_request_that_was_answered_before_it_began_is_never_begun() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3"]);
    let bed = BridgeBed::setup(&hypervisor).hypervisor(IMPATIENT).channels(["vm1", "vm2", "vm2"]).start();
    let [mut vm1, mut vm2, mut witness] = ["vm1", "vm2", "vm2+"].map(|channel| bed.channel(channel));
    // One holds vm1's `on` until vm2 has waited for a while, the other vm2's `off` until it is answered.
    let (first, second) = (hypervisor.hold(Call::Look, "vm3"), hypervisor.hold(Call::State, "vm2"));
    vm1.send(&frame(ON, "vm3"));
    first.wait_for(1, DEADLINE);
    let off = frame(OFF, "vm3");
    vm2.send(&off);
    assert_eq!(ask(&mut witness, STATUS, "vm1"), SUCCESS, "by now the bridge has read that");
    // Long beside the time between an answer and the opening below, short beside the time that it has.
    thread::sleep(Duration::from_millis(700));
    first.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS, "it runs");
    second.wait_for(1, DEADLINE);
    assert_eq!(reply(&vm2.read(REPLY_LENGTH, DEADLINE)), FAILED);
    second.open();
    assert_eq!(vm2.ask(&off, DEADLINE), FAILED, "the same request is over for good");
    assert_eq!(hypervisor.done_to("vm3"), []);
}

/// Rule 2, withdrawn: a request whose connection has gone before it began is never begun. Sent again, it is a new one.
#[test]
fn a_request_whose_connection_closed_before_it_began_is_never_carried_out() {
    let mut queue = Queue::new();
    queue.vm2.close();
    reconnect([&mut queue.vm2]);
    queue.go_on_and_expect_no_destroy();
    assert_eq!(queue.vm2.ask(&queue.off, DEADLINE), SUCCESS, "the same frame, from somebody who waits");
    assert_eq!(queue.hypervisor.done_to("slow"), [Call::Start, Call::Destroy]);
}

/// Asks for something else until that is answered: by then nobody waits for what was asked before.
#[track_caller]
fn give_up_and_ask_something_else(channel: &mut GuestChannel, target: &str) {
    let question = frame(STATUS, target);
    for _ in 0..40 {
        // Whoever asks sooner after his last question may still be waiting for its answer.
        thread::sleep(Duration::from_millis(300));
        channel.send(&question);
        let bytes = channel.read_up_to(REPLY_LENGTH, Duration::from_millis(200));
        if !bytes.is_empty() {
            return assert_eq!(reply(&bytes), SUCCESS);
        }
    }
    panic!("not answered");
}

/// Rule 2, withdrawn: nor is one whose asker asks for something else by now.
#[test]
fn a_request_whose_asker_gave_up_before_it_began_is_never_carried_out() {
    let mut queue = Queue::new();
    give_up_and_ask_something_else(&mut queue.vm2, "vm1");
    queue.go_on_and_expect_no_destroy();
}

/// Rule 2, withdrawn: nor is one that had not even been understood when its asker gave up, or went away. Whoever else waits
/// for the same name is answered.
#[test]
fn a_request_that_waits_for_its_targets_name_and_is_given_up_is_never_carried_out() {
    let give_ups: [fn(&mut GuestChannel); 2] = [
        |vm1| give_up_and_ask_something_else(vm1, "vm2"),
        |vm1| {
            vm1.close();
            // The bridge connects anew once it has noticed.
            vm1.accept(DEADLINE);
        },
    ];
    for give_up in give_ups {
        let hypervisor = three();
        let bed = BridgeBed::setup(&hypervisor)
            .group("one comes later", &["vm1", "vm2", "vm3", "late"], "")
            .channels(["vm1", "vm2", "vm3"])
            .start();
        let [mut vm1, mut vm2, mut vm3] = ["vm1", "vm2", "vm3"].map(|guest| bed.channel(guest));
        let gate = hypervisor.hold_all(Call::Guests);
        vm1.send(&frame(OFF, "late"));
        gate.wait_for(1, DEADLINE);
        vm3.send(&frame(STATUS, "late"));
        assert_eq!(ask(&mut vm2, STATUS, "vm1"), SUCCESS, "by now the bridge has read what both have sent");
        give_up(&mut vm1);
        hypervisor.add("late", &uuid_of("late"));
        gate.open();
        assert_eq!(reply(&vm3.read(REPLY_LENGTH, DEADLINE)), SUCCESS, "its name is known now");
        assert_eq!(ask(&mut vm2, ON, "late"), SUCCESS);
        assert_eq!(hypervisor.done_to("late"), []);
    }
}

/// Rule 2, withdrawn: nor is one that had joined another's fence, where that one turns out to prove nothing for it.
#[test]
fn a_request_that_joined_another_and_was_given_up_is_never_carried_out() {
    let hypervisor = three();
    hypervisor.change("vm2", |guest| guest.state = State::Off);
    let bed = BridgeBed::setup(&hypervisor).channels(["vm1", "vm3", "vm3"]).start();
    let [mut vm1, mut vm3, mut witness] = ["vm1", "vm3", "vm3+"].map(|channel| bed.channel(channel));
    let gate = hypervisor.hold(Call::Start, "vm2");
    let reboot = frame(REBOOT, "vm2");
    vm1.send(&reboot);
    gate.wait_for(1, DEADLINE);
    // The target was seen off before this one came.
    thread::sleep(Duration::from_millis(5));
    vm3.send(&frame(REBOOT, "vm2"));
    assert_eq!(ask(&mut witness, STATUS, "vm1"), SUCCESS, "by now the bridge has read both");
    vm3.close();
    reconnect([&mut vm3]);
    gate.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    assert_eq!(ask(&mut vm1, ON, "vm2"), SUCCESS, "what goes through the same queue afterwards");
    assert_eq!(hypervisor.done_to("vm2"), [Call::Start]);
}

/// Rule 2, requester: bytes of a guest that is off, or gone, are old bytes.
#[test]
fn a_guest_that_is_off_fences_nobody() {
    let hypervisor = three();
    let (bed, mut vm1) = bed(&hypervisor);
    let mut vm3 = bed.channel("vm3");
    for state in [State::Off, State::OffMigrated] {
        hypervisor.change("vm1", |guest| guest.state = state);
        for action in [OFF, REBOOT, ON] {
            assert_eq!(ask(&mut vm1, action, "vm2"), FAILED, "{state:?}, action {action}");
        }
    }
    hypervisor.remove("vm1");
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED, "it does not exist any more");
    expect_nothing_done(&hypervisor, &mut vm3, "vm2");
}

/// Rule 2, requester: what a guest had asked for before it was fenced is not begun afterwards, also when it runs again.
#[test]
fn what_a_guest_asked_for_before_it_was_rebooted_is_never_carried_out() {
    let mut queue = Queue::new();
    assert_eq!(ask(&mut queue.vm3, REBOOT, "vm2"), SUCCESS);
    assert_eq!(queue.hypervisor.state("vm2"), State::Running);
    queue.go_on_and_expect_no_destroy();
}

/// Rule 2, stopping: a bridge that ends begins nothing any more; what it has begun it ends.
#[test]
fn a_bridge_that_is_stopping_begins_nothing() {
    let hypervisor = three();
    hypervisor.change("vm3", |guest| (guest.state, guest.on_start) = (State::Off, OnStart::Works));
    let gate = hypervisor.hold(Call::Start, "vm3");
    let (bed, mut vm1) = bed(&hypervisor);
    let mut vm2 = bed.channel("vm2");
    vm1.send(&frame(ON, "vm3"));
    gate.wait_for(1, DEADLINE);
    bed.ask_to_stop();
    // It learns of that in one of its next turns; a question that it still answers in between is no fault.
    assert_eq!(ask(&mut vm2, STATUS, "vm1"), SUCCESS);
    assert_eq!(ask(&mut vm2, OFF, "vm1"), FAILED);
    gate.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS, "what was begun is ended, and answered");
    vm1.expect_end(DEADLINE);
    assert_eq!(hypervisor.done_to("vm1"), []);
    assert_eq!(hypervisor.done_to("vm3"), [Call::Start]);
}
