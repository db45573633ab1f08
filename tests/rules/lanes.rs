//! One queue for each target: what goes ahead of what, and what may run at the same time.

use fencewire_tests::bridge_bed::BridgeBed;
use fencewire_tests::guest_channel::{FAILED, OFF, ON, REBOOT, REPLY_LENGTH, STATUS, SUCCESS, reply};
use fencewire_tests::process::DEADLINE;
use fencewire_tests::scripted::{Call, ScriptedHypervisor};
use fencewired::power::hypervisor::State;

use crate::common::{ask, frame};

/// Lanes: an `off` is carried out before an `on` or a reboot that came earlier and has not begun.
#[test]
fn an_off_goes_ahead_of_what_waits() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3", "vm4", "target"]);
    hypervisor.change("target", |guest| guest.state = State::Off);
    let gate = hypervisor.hold(Call::Start, "target");
    let bed = BridgeBed::start(&hypervisor);
    let [mut vm1, mut vm2, mut vm3, mut vm4] = ["vm1", "vm2", "vm3", "vm4"].map(|guest| bed.channel(guest));
    vm1.send(&frame(ON, "target"));
    gate.wait_for(1, DEADLINE);
    for (channel, action) in [(&mut vm2, REBOOT), (&mut vm3, OFF)] {
        channel.send(&frame(action, "target"));
        assert_eq!(ask(&mut vm4, STATUS, "vm1"), SUCCESS, "by now the bridge has read it");
    }
    gate.open();
    for channel in [&mut vm1, &mut vm2, &mut vm3] {
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    }
    // The reboot came last: it found the target off, and started it.
    assert_eq!(hypervisor.done_to("target"), [Call::Start, Call::Destroy, Call::Start]);
    assert_eq!(hypervisor.state("target"), State::Running);
}

/// Lanes: one action at a time for a target; an `on` that comes during a fence begins when that has ended.
#[test]
fn an_on_begins_after_the_fence_before_it_has_ended() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3", "target"]);
    let gate = hypervisor.hold_reply(Call::Destroy, "target");
    let bed = BridgeBed::start(&hypervisor);
    let [mut vm1, mut vm2, mut vm3] = ["vm1", "vm2", "vm3"].map(|guest| bed.channel(guest));
    vm1.send(&frame(OFF, "target"));
    gate.wait_for(1, DEADLINE);
    vm2.send(&frame(ON, "target"));
    assert_eq!(ask(&mut vm3, STATUS, "vm1"), SUCCESS, "by now the bridge has read it");
    assert_eq!(hypervisor.count(Call::Start, "target"), 0);
    gate.open();
    for channel in [&mut vm1, &mut vm2] {
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    }
    assert_eq!(hypervisor.done_to("target"), [Call::Destroy, Call::Start]);
    assert_eq!(hypervisor.state("target"), State::Running);
}

/// Lanes: fences of several targets go on at the same time, as many as there are workers.
#[test]
fn fences_of_several_targets_go_on_at_the_same_time() {
    let pairs: Vec<[String; 2]> =
        (0..8).map(|number| ["asks", "target"].map(|kind| format!("{kind}{number}"))).collect();
    let hypervisor = ScriptedHypervisor::with(pairs.iter().flatten().map(String::as_str));
    let gate = hypervisor.hold_all(Call::Destroy);
    let bed = BridgeBed::setup(&hypervisor).hypervisor("workers = 8").start();
    let mut channels: Vec<_> = pairs.iter().map(|[asks, _]| bed.channel(asks)).collect();
    for (channel, [_, target]) in channels.iter_mut().zip(&pairs) {
        channel.send(&frame(OFF, target));
    }
    gate.wait_for(pairs.len(), DEADLINE);
    gate.open();
    for channel in &mut channels {
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    }
}

/// Lanes: a guest has one request waiting at most. The next is refused at once, and not queued.
#[test]
fn a_second_request_that_would_wait_is_refused() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3", "one", "other"]);
    for target in ["one", "other"] {
        hypervisor.change(target, |guest| guest.state = State::Off);
    }
    let gates = ["one", "other"].map(|target| hypervisor.hold(Call::Start, target));
    let bed = BridgeBed::setup(&hypervisor).channels(["vm1", "vm1", "vm2", "vm2", "vm3"]).start();
    let [mut first, mut second, mut vm3] = ["vm1", "vm1+", "vm3"].map(|channel| bed.channel(channel));
    let [mut blocker, mut other_blocker] = ["vm2", "vm2+"].map(|channel| bed.channel(channel));
    for ((channel, target), gate) in [(&mut blocker, "one"), (&mut other_blocker, "other")].into_iter().zip(&gates) {
        channel.send(&frame(ON, target));
        gate.wait_for(1, DEADLINE);
    }
    first.send(&frame(OFF, "one"));
    assert_eq!(ask(&mut vm3, STATUS, "vm1"), SUCCESS, "by now the bridge has read it");
    assert_eq!(ask(&mut second, OFF, "other"), FAILED, "one waits already");
    gates.iter().for_each(fencewire_tests::scripted::Gate::open);
    assert_eq!(reply(&first.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    assert_eq!(hypervisor.done_to("one"), [Call::Start, Call::Destroy]);
    assert_eq!(hypervisor.done_to("other"), [Call::Start]);
}
