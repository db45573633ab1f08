//! Rule 1: "fenced" is said only when the target was seen off after the request came. Here: what a destroy, and a look,
//! may do wrong.

use std::thread;
use std::time::Duration;

use fencewire_tests::bridge_bed::BridgeBed;
use fencewire_tests::guest_channel::{
    FAILED, GuestChannel, IS_OFF, MONITOR, OFF, ON, REBOOT, REPLY_LENGTH, STATUS, SUCCESS, reply,
};
use fencewire_tests::libvirt_file::uuid_of;
use fencewire_tests::process::DEADLINE;
use fencewire_tests::scripted::{Call, OnDestroy, OnLook, OnStart, ScriptedGuest, ScriptedHypervisor};
use fencewired::power::hypervisor::HypervisorError::{self, NoSuchGuest};
use fencewired::power::hypervisor::State;

use crate::common::{IMPATIENT, ask, bed, frame, impatient_bed, three};

/// For each script, has one guest fenced by `off` and another by `reboot`, all at the same time and each by a guest of its
/// own, of a hypervisor that does so when it is told to destroy them. The targets are `off-0`, `reboot-0` and so on.
#[track_caller]
fn off_and_reboot(scripts: &[(&str, OnDestroy)], keys: &str) -> (ScriptedHypervisor, Vec<[u8; 2]>) {
    let hypervisor = ScriptedHypervisor::default();
    let names =
        (0..scripts.len()).flat_map(|number| [(OFF, format!("off-{number}")), (REBOOT, format!("reboot-{number}"))]);
    let names: Vec<_> = names.collect();
    for ((_, target), (_, script)) in names.iter().zip(scripts.iter().flat_map(|script| [script, script])) {
        for name in [target, &format!("asks-{target}")] {
            hypervisor.add(name, &uuid_of(name));
        }
        hypervisor.change(target, |guest| guest.on_destroy = *script);
    }
    let bed = BridgeBed::setup(&hypervisor).hypervisor(&format!("workers = 16\n{keys}")).start();
    let mut askers: Vec<_> = names.iter().map(|(_, target)| bed.channel(&format!("asks-{target}"))).collect();
    for (asker, (action, target)) in askers.iter_mut().zip(&names) {
        asker.send(&frame(*action, target));
    }
    let mut answers = askers.iter_mut().map(|asker| reply(&asker.read(REPLY_LENGTH, DEADLINE)));
    let answers = scripts.iter().map(|_| [answers.next().unwrap(), answers.next().unwrap()]).collect();
    (hypervisor, answers)
}

/// Rule 1, power: whatever a destroy says, it is no fence where the guest was not seen off afterwards. It is called once
/// for a request, and nothing is started after it.
#[test]
fn a_destroy_after_which_the_guest_is_not_seen_off_is_failed() {
    let (hypervisor, answers) = off_and_reboot(NOT_FENCED, IMPATIENT);
    for (number, ((what, _), answers)) in NOT_FENCED.iter().zip(answers).enumerate() {
        assert_eq!(answers, [FAILED, FAILED], "{what}");
        for target in [format!("off-{number}"), format!("reboot-{number}")] {
            assert_eq!(hypervisor.done_to(&target), [Call::Destroy], "{what}");
        }
    }
}

const NOT_FENCED: &[(&str, OnDestroy)] = &[
    ("it says done, and the guest runs on", OnDestroy::SaysDone),
    ("it fails, and the guest runs on", OnDestroy::Fails),
    ("its answer is lost, and the guest runs on", OnDestroy::Breaks { happens: false }),
    ("the guest has been started anew before anybody could look", OnDestroy::ComesBack),
    ("the guest is paused", OnDestroy::Leaves(State::Paused)),
    ("the guest is crashed", OnDestroy::Leaves(State::Crashed)),
    ("the guest has no state", OnDestroy::Leaves(State::NoState)),
    ("the guest was migrated", OnDestroy::Leaves(State::OffMigrated)),
    ("the guest cannot be looked at", OnDestroy::Does(|guest| unseen(guest, failed()))),
    ("the connection is broken", OnDestroy::Does(|guest| unseen(guest, unreachable()))),
    ("the guest is gone, though it was defined", OnDestroy::Does(|guest| unseen(guest, NoSuchGuest))),
];

/// Rule 1, power, the other side: where the guest was seen off, it is fenced, whatever the destroy said, and though it
/// took a while, or somebody started it again.
#[test]
fn a_guest_that_is_seen_off_after_a_destroy_is_fenced() {
    let (hypervisor, answers) = off_and_reboot(FENCED, "");
    for (number, ((what, _), answers)) in FENCED.iter().zip(answers).enumerate() {
        assert_eq!(answers, [SUCCESS, SUCCESS], "{what}");
        assert_eq!(hypervisor.done_to(&format!("off-{number}")), [Call::Destroy], "{what}");
        assert_eq!(hypervisor.done_to(&format!("reboot-{number}")), [Call::Destroy, Call::Start], "{what}");
    }
}

const FENCED: &[(&str, OnDestroy)] = &[
    ("it says that it failed", OnDestroy::FailsAndWorks),
    ("its answer is lost", OnDestroy::Breaks { happens: true }),
    ("it takes a few looks", OnDestroy::OffAfterLooks(5)),
    ("it takes a while", OnDestroy::OffAfter(Duration::from_millis(700))),
    ("it is started again after one look", OnDestroy::ComesBackOnceSeen),
];

/// The hypervisor says done, and from then on nobody can see that.
fn unseen(guest: &mut ScriptedGuest, why: HypervisorError) {
    guest.state = State::Off;
    guest.on_look = OnLook::Fails(why);
}

fn failed() -> HypervisorError {
    HypervisorError::Failed("cannot be read".to_owned())
}

fn unreachable() -> HypervisorError {
    HypervisorError::Unreachable("broken".to_owned())
}

/// Rule 1, power: one that is off only after the time is up has been answered "failed" by then.
#[test]
fn a_guest_that_is_off_too_late_is_failed_then_and_off_when_asked_again() {
    let hypervisor = three();
    hypervisor.change("vm2", |guest| guest.on_destroy = OnDestroy::OffAfter(Duration::from_mins(1)));
    let (_bed, mut vm1) = impatient_bed(&hypervisor);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED);
    hypervisor.change("vm2", |guest| guest.state = State::Off);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "a new request finds it off");
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Rule 1, power: a guest whose state cannot be read beforehand is not even touched.
#[test]
fn a_guest_that_cannot_be_looked_at_is_failed_and_not_touched() {
    let hypervisor = three();
    let cannot = OnLook::Fails(HypervisorError::Failed("cannot be read".to_owned()));
    hypervisor.change("vm2", |guest| guest.on_look = cannot);
    let (_bed, mut vm1) = bed(&hypervisor);
    for action in [OFF, REBOOT, ON, STATUS] {
        assert_eq!(ask(&mut vm1, action, "vm2"), FAILED, "action {action}");
    }
    assert_eq!(hypervisor.done_to("vm2"), []);
}

/// Rule 1, status: what is unknown is said to be neither on nor off; a paused guest is on.
#[test]
fn the_status_of_an_unknown_is_failed_and_a_paused_guest_is_on() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    for (state, expected) in [
        (State::Running, SUCCESS),
        (State::Paused, SUCCESS),
        (State::Off, IS_OFF),
        (State::OffMigrated, FAILED),
        (State::Crashed, FAILED),
        (State::NoState, FAILED),
    ] {
        hypervisor.change("vm2", |guest| guest.state = state);
        assert_eq!(ask(&mut vm1, STATUS, "vm2"), expected, "{state:?}");
    }
}

/// Rule 1, list: the wire knows on and off there; only off is said to be off.
#[test]
fn a_list_says_off_only_of_what_is_off() {
    const LISTED_ON: u8 = 1;
    const LISTED_OFF: u8 = 5;
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    for (state, expected) in [
        (State::Paused, LISTED_ON),
        (State::Off, LISTED_OFF),
        (State::OffMigrated, LISTED_ON),
        (State::Crashed, LISTED_ON),
        (State::NoState, LISTED_ON),
    ] {
        hypervisor.change("vm2", |guest| guest.state = state);
        let list = vm1.ask_list(DEADLINE);
        assert_eq!(list.entry("vm2").expect("in the list").state, expected, "{state:?}");
    }
}

/// Rule 1, power: a guest in a state that nobody can interpret is destroyed, and fenced only if it is off then.
#[test]
fn a_crashed_guest_is_fenced_once_it_is_off() {
    for state in [State::Crashed, State::NoState, State::Paused] {
        let hypervisor = three();
        hypervisor.change("vm2", |guest| guest.state = state);
        let (_bed, mut vm1) = bed(&hypervisor);
        assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "{state:?}");
        assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy], "{state:?}");
    }
}

/// Rule 1, hypervisor: one that cannot be reached answers nothing but "failed"; it is asked anew once it can be.
#[test]
fn an_unreachable_hypervisor_is_failed_whatever_is_asked() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    hypervisor.unreachable_after(0);
    for action in [OFF, REBOOT, ON, STATUS, MONITOR] {
        assert_eq!(ask(&mut vm1, action, "vm2"), FAILED, "action {action}");
    }
    assert_eq!(hypervisor.done_to("vm2"), []);
    hypervisor.reachable();
    assert_eq!(ask(&mut vm1, MONITOR, "vm2"), SUCCESS);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "and the fence works again");
}

/// Rule 1, hypervisor: it may go away at any moment of a fence; there is no call after which that would look like one.
#[test]
fn a_hypervisor_that_goes_away_in_the_middle_is_failed_at_every_call() {
    const FENCE: [Call; 6] = [Call::Connect, Call::State, Call::Look, Call::Incarnation, Call::Destroy, Call::Look];
    thread::scope(|scope| {
        for calls in 0..FENCE.len() {
            scope.spawn(move || {
                let hypervisor = three();
                let (_bed, mut vm1) = impatient_bed(&hypervisor);
                let before = hypervisor.calls().len();
                hypervisor.change("vm2", |guest| guest.on_destroy = OnDestroy::SaysDone);
                hypervisor.unreachable_after(calls as u64);
                assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED, "reachable for {calls} calls");
                let made: Vec<Call> = hypervisor.calls()[before..].iter().map(|called| called.what).collect();
                assert!(made.starts_with(&FENCE[..=calls]), "reachable for {calls} calls: {made:?}");
            });
        }
    });
}

/// Rule 1, hypervisor: one that answers slowly is told nothing that it might do much later.
#[test]
fn a_hypervisor_that_answers_slowly_is_not_told_to_destroy() {
    let hypervisor = three();
    hypervisor.change("vm2", |guest| guest.on_look = OnLook::Takes(Duration::from_millis(300)));
    let (_bed, mut vm1) = impatient_bed(&hypervisor);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED);
    assert_eq!(hypervisor.done_to("vm2"), []);
    hypervisor.change("vm2", |guest| guest.on_look = OnLook::Works);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "as soon as it is prompt again");
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Rule 1, hypervisor: nor is one that was prompt when it was looked at, and is slow by the time of the destroy.
#[test]
fn a_hypervisor_that_has_become_slow_since_the_look_is_not_told_to_destroy() {
    let hypervisor = three();
    let (_bed, mut vm1) = impatient_bed(&hypervisor);
    let gate = hypervisor.hold(Call::Incarnation, "vm2");
    vm1.send(&frame(OFF, "vm2"));
    gate.wait_for(1, DEADLINE);
    hypervisor.change("vm2", |guest| guest.on_look = OnLook::Takes(Duration::from_millis(300)));
    // Longer than the look before a destroy may be ago.
    thread::sleep(Duration::from_millis(300));
    gate.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), FAILED);
    assert_eq!(hypervisor.done_to("vm2"), []);
}

/// Rule 1, reboot: the fence has succeeded once off is confirmed; that it does not start again is in the record.
#[test]
fn a_reboot_whose_start_fails_is_a_fence_and_recorded_as_such() {
    for script in [OnStart::Fails, OnStart::SaysDone] {
        let hypervisor = three();
        hypervisor.change("vm2", |guest| guest.on_start = script);
        let (mut bed, mut vm1) = bed(&hypervisor);
        assert_eq!(ask(&mut vm1, REBOOT, "vm2"), SUCCESS, "{script:?}");
        assert_eq!(hypervisor.state("vm2"), State::Off, "{script:?}");
        let records = bed.records();
        let record = records.iter().find(|record| record["action"] == "reboot").expect("a record of it");
        assert_eq!(record["outcome"], "confirmed off, not started again", "{script:?}");
    }
}

/// Rule 1, on: a start that fails, or only says that it worked, has not switched it on.
#[test]
fn an_on_is_done_only_when_the_guest_runs() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    hypervisor.change("vm2", |guest| guest.state = State::Off);
    for (script, expected) in
        [(OnStart::Fails, FAILED), (OnStart::SaysDone, FAILED), (OnStart::Works, SUCCESS), (OnStart::Fails, SUCCESS)]
    {
        hypervisor.change("vm2", |guest| guest.on_start = script);
        assert_eq!(ask(&mut vm1, ON, "vm2"), expected, "{script:?}");
    }
    assert_eq!(hypervisor.count(Call::Start, "vm2"), 3, "one that runs is not started again");
}

/// Rule 1, wire: the answer to a request is what was seen after that request, not what an earlier one was told.
#[test]
fn an_earlier_success_is_no_answer_to_a_new_request() {
    let hypervisor = three();
    let (_bed, mut vm1) = impatient_bed(&hypervisor);
    let off = |vm1: &mut GuestChannel| ask(vm1, OFF, "vm2");
    assert_eq!(off(&mut vm1), SUCCESS);
    hypervisor.change("vm2", |guest| {
        guest.state = State::Running;
        guest.on_destroy = OnDestroy::SaysDone;
    });
    assert_eq!(off(&mut vm1), FAILED);
}
