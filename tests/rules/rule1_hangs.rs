//! Rule 1: "fenced" is said only when the target was seen off after the request came. Here: a hypervisor that hangs. Its
//! calls cannot be taken back; what becomes of them is answered to whoever asks the same again.

use std::thread;

use fencewire_tests::bridge_bed::BridgeBed;
use fencewire_tests::guest_channel::{
    FAILED, GuestChannel, OFF, ON, REBOOT, REPLY_LENGTH, REQUEST_LENGTH, STATUS, SUCCESS, reply,
};
use fencewire_tests::process::DEADLINE;
use fencewire_tests::scripted::{Call, Gate, OnDestroy, ScriptedHypervisor};
use fencewired::power::hypervisor::State;

use crate::common::{IMPATIENT, ask, frame};

/// vm1 has asked to fence vm3, and the hypervisor hangs in that.
struct Hanging {
    hypervisor: ScriptedHypervisor,
    gate: Gate,
    bed: BridgeBed,
    vm1: GuestChannel,
    frame: [u8; REQUEST_LENGTH],
}

impl Hanging {
    #[track_caller]
    fn new(action: u8, script: OnDestroy, hold: impl FnOnce(&ScriptedHypervisor) -> Gate) -> Self {
        let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3", "vm4"]);
        hypervisor.change("vm3", |guest| guest.on_destroy = script);
        let bed = BridgeBed::setup(&hypervisor).hypervisor(IMPATIENT).start();
        let gate = hold(&hypervisor);
        let mut vm1 = bed.channel("vm1");
        let frame = frame(action, "vm3");
        vm1.send(&frame);
        gate.wait_for(1, DEADLINE);
        Self { hypervisor, gate, bed, vm1, frame }
    }

    /// The answer while it hangs.
    #[track_caller]
    fn answer(&mut self) -> u8 {
        reply(&self.vm1.read(REPLY_LENGTH, DEADLINE))
    }

    /// The answer to the same frame, sent again.
    #[track_caller]
    fn again(&mut self) -> u8 {
        self.vm1.ask(&self.frame, DEADLINE)
    }
}

/// Rules 1, 3 and 4, hung destroy: answered "failed" in time, while others' fencing goes on; when it succeeds at last,
/// the same frame is answered with that, and not done again.
#[test]
fn a_destroy_that_hangs_is_failed_in_time_and_success_once_it_happened() {
    let mut hanging = Hanging::new(OFF, OnDestroy::Works, |hypervisor| hypervisor.hold(Call::Destroy, "vm3"));
    let mut vm2 = hanging.bed.channel("vm2");
    assert_eq!(ask(&mut vm2, OFF, "vm4"), SUCCESS, "another guest's fencing goes on");
    assert_eq!(hanging.answer(), FAILED);
    assert_eq!(ask(&mut hanging.vm1, STATUS, "vm3"), SUCCESS, "it runs on, and that is said");
    hanging.gate.open();
    assert_eq!(hanging.again(), SUCCESS, "the very same request");
    assert_eq!(hanging.hypervisor.state("vm3"), State::Off);
    assert_eq!(hanging.hypervisor.done_to("vm3"), [Call::Destroy], "once");
}

/// Rules 1 and 3, hung destroy: when it comes to nothing, that is what the same frame is answered.
#[test]
fn a_destroy_that_hangs_and_then_does_not_happen_stays_failed() {
    let mut hanging = Hanging::new(OFF, OnDestroy::SaysDone, |hypervisor| hypervisor.hold(Call::Destroy, "vm3"));
    assert_eq!(hanging.answer(), FAILED);
    hanging.gate.open();
    assert_eq!(hanging.again(), FAILED);
    assert_eq!(hanging.hypervisor.done_to("vm3"), [Call::Destroy]);
}

/// Rule 1, hung destroy: whoever else asks for the same meanwhile is not told more than is known.
#[test]
fn whoever_joins_a_destroy_that_hangs_is_failed_in_time_too() {
    let mut hanging = Hanging::new(OFF, OnDestroy::Works, |hypervisor| hypervisor.hold(Call::Destroy, "vm3"));
    let mut vm2 = hanging.bed.channel("vm2");
    assert_eq!(ask(&mut vm2, OFF, "vm3"), FAILED);
    assert_eq!(hanging.answer(), FAILED);
    assert_eq!(hanging.hypervisor.count(Call::Destroy, "vm3"), 1);
}

/// Rule 1, hung destroy: the guest may be off long before the hypervisor says so. Until somebody has looked, it is not.
#[test]
fn a_destroy_that_works_and_does_not_return_is_failed_until_it_does() {
    let mut hanging = Hanging::new(OFF, OnDestroy::Works, |hypervisor| hypervisor.hold_reply(Call::Destroy, "vm3"));
    assert_eq!(hanging.answer(), FAILED);
    hanging.gate.open();
    assert_eq!(hanging.again(), SUCCESS);
    assert_eq!(hanging.hypervisor.done_to("vm3"), [Call::Destroy]);
}

/// Rules 1 and 2, hung look: nothing was begun when the time was up, so nothing is begun when it returns.
#[test]
fn a_look_that_hangs_until_the_time_is_up_is_followed_by_no_destroy() {
    let look = |hypervisor: &ScriptedHypervisor| hypervisor.hold(Call::Look, "vm3");
    let state = |hypervisor: &ScriptedHypervisor| hypervisor.hold(Call::State, "vm1");
    let connect = |hypervisor: &ScriptedHypervisor| hypervisor.hold_all(Call::Connect);
    let check = |mut hanging: Hanging| {
        assert_eq!(hanging.answer(), FAILED);
        hanging.gate.open();
        assert_eq!(hanging.again(), FAILED, "the same request is over");
        assert_eq!(hanging.hypervisor.done_to("vm3"), []);
        assert_eq!(ask(&mut hanging.vm1, OFF, "vm3"), SUCCESS, "a new one is not");
    };
    thread::scope(|scope| {
        scope.spawn(|| check(Hanging::new(OFF, OnDestroy::Works, look)));
        scope.spawn(|| check(Hanging::new(OFF, OnDestroy::Works, state)));
        scope.spawn(|| check(Hanging::new(OFF, OnDestroy::Works, connect)));
    });
}

/// Rules 1 and 2, hung migration: nor when the time was used up by the end of the target's migration.
#[test]
fn a_migration_whose_end_hangs_until_the_time_is_up_is_followed_by_no_destroy() {
    let mut hanging = Hanging::new(OFF, OnDestroy::Works, |hypervisor| {
        hypervisor.change("vm3", |guest| guest.job = true);
        hypervisor.hold(Call::AbortJob, "vm3")
    });
    assert_eq!(hanging.answer(), FAILED);
    hanging.gate.open();
    assert_eq!(hanging.again(), FAILED, "the same request is over");
    assert_eq!(hanging.hypervisor.done_to("vm3"), [Call::AbortJob]);
}

/// Rule 1, hung start: a reboot of which nobody saw the end is not said to be done, but once it has ended.
#[test]
fn a_reboot_whose_start_hangs_is_success_once_it_has_ended() {
    let mut hanging = Hanging::new(REBOOT, OnDestroy::Works, |hypervisor| hypervisor.hold(Call::Start, "vm3"));
    assert_eq!(hanging.answer(), FAILED);
    hanging.gate.open();
    assert_eq!(hanging.again(), SUCCESS);
    assert_eq!(hanging.hypervisor.done_to("vm3"), [Call::Destroy, Call::Start]);
    assert_eq!(hanging.hypervisor.state("vm3"), State::Running);
}

/// Rule 1, hung start: an `on` likewise.
#[test]
fn an_on_that_hangs_is_success_once_it_has_ended() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm3"]);
    hypervisor.change("vm3", |guest| guest.state = State::Off);
    let bed = BridgeBed::setup(&hypervisor).hypervisor(IMPATIENT).channels(["vm1"]).start();
    let gate = hypervisor.hold(Call::Start, "vm3");
    let mut vm1 = bed.channel("vm1");
    let frame = frame(ON, "vm3");
    assert_eq!(vm1.ask(&frame, DEADLINE), FAILED);
    gate.open();
    assert_eq!(vm1.ask(&frame, DEADLINE), SUCCESS);
    assert_eq!(hypervisor.done_to("vm3"), [Call::Start]);
}
