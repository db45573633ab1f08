//! What a bridge shows of itself while its hypervisor misbehaves on purpose.

use std::sync::mpsc;

use fencewire_tests::bridge_bed::BridgeBed;
use fencewire_tests::guest_channel::{
    GuestChannel, OFF, ON, REPLY_LENGTH, STATUS, SUCCESS, fresh_seqno, reply, request,
};
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::scripted::{Call, ScriptedHypervisor};
use fencewired::control::snapshot::{Link, Reach, Snapshot};

#[track_caller]
fn snapshot(bed: &BridgeBed) -> Snapshot {
    let (sender, snapshots) = mpsc::channel();
    bed.handle().snapshot(move |snapshot| drop(sender.send(snapshot)));
    snapshots.recv_timeout(DEADLINE).expect("the event loop turns")
}

/// Waits until the bridge shows this.
#[track_caller]
fn wait_for(bed: &BridgeBed, what: &str, is: impl Fn(&Snapshot) -> bool) -> Snapshot {
    wait_until(DEADLINE, what, || Some(snapshot(bed)).filter(&is))
}

fn send(channel: &mut GuestChannel, action: u8, target: &str) {
    channel.send(&request(action, target.as_bytes(), fresh_seqno()));
}

#[test]
fn what_runs_and_what_waits() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3", "target"]);
    let gate = hypervisor.hold(Call::Destroy, "target");
    let bed = BridgeBed::start(&hypervisor);
    let [mut vm1, mut vm2, mut vm3] = ["vm1", "vm2", "vm3"].map(|guest| bed.channel(guest));
    assert!(snapshot(&bed).all_served && snapshot(&bed).lanes.is_empty());
    send(&mut vm1, OFF, "target");
    gate.wait_for(1, DEADLINE);
    send(&mut vm2, ON, "target");
    send(&mut vm3, OFF, "target");
    let shown = wait_for(&bed, "all three", |shown| {
        shown.lanes.first().is_some_and(|lane| lane.waiting.len() == 1 && lane.joined == 1)
    });
    let [lane] = &shown.lanes[..] else { panic!("one lane: {:?}", shown.lanes) };
    assert_eq!(lane.name.as_deref(), Some("target"));
    let words = |errand: &fencewired::control::snapshot::Errand| (errand.action.clone(), errand.requester.clone());
    assert_eq!(lane.running.as_ref().map(words), Some(("off".to_owned(), "vm1".to_owned())));
    assert_eq!(words(&lane.waiting[0]), ("on".to_owned(), "vm2".to_owned()));
    assert_eq!(shown.hypervisors[0].power.busy, 1);
    assert!(shown.fences.is_empty() && shown.all_served);

    // A call that hangs is set aside after a second, and another thread takes its place.
    let shown = wait_for(&bed, "a thread set aside", |shown| shown.hypervisors[0].power.set_aside == 1);
    assert_eq!(shown.hypervisors[0].power.threads, 5);
    gate.open();
    for channel in [&mut vm1, &mut vm2, &mut vm3] {
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    }
    let shown = wait_for(&bed, "three outcomes", |shown| shown.fences.len() == 3 && shown.lanes.is_empty());
    assert_eq!(shown.fences[0].outcome, "on", "the newest first");
}

#[test]
fn a_hypervisor_that_is_silent_or_out_of_reach() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2"]);
    let bed = BridgeBed::start(&hypervisor);
    let shown = snapshot(&bed);
    assert_eq!((shown.hypervisors[0].state, shown.hypervisors[0].guests), (Reach::Answers, 2));
    assert_eq!(shown.hypervisors[0].why, None);

    hypervisor.unreachable_after(0);
    // A name that nobody bears has it asked.
    let mut vm1 = bed.channel("vm1");
    send(&mut vm1, STATUS, "nobody");
    let shown = wait_for(&bed, "it to be out of reach", |shown| shown.hypervisors[0].state == Reach::Unreachable);
    assert!(shown.hypervisors[0].why.as_ref().is_some_and(|why| why.contains("out of reach")) && !shown.all_served);
    assert!(shown.channels.iter().all(|channel| channel.state == Link::Connected), "channels do not depend on it");
    hypervisor.reachable();
    wait_for(&bed, "it to answer", |shown| shown.hypervisors[0].state == Reach::Answers && shown.all_served);

    // What it has just said is not asked again.
    wait_for(&bed, "that to be old", |shown| shown.hypervisors[0].asked_ms_ago.is_some_and(|ago| ago > 200));
    let gate = hypervisor.hold_all(Call::Guests);
    send(&mut vm1, STATUS, "nobody");
    let shown = wait_for(&bed, "it to be silent", |shown| shown.hypervisors[0].state == Reach::Silent);
    assert!(!shown.all_served && shown.hypervisors[0].queries.busy > 0);
    gate.open();
    wait_for(&bed, "it to answer", |shown| shown.all_served);
}

/// The ring of last fences has its bound.
#[test]
fn the_last_fences_and_no_more() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "target"]);
    let bed = BridgeBed::setup(&hypervisor).group("g", &["vm1", "target"], "budget_per_minute = 1000").start();
    let mut vm1 = bed.channel("vm1");
    for _ in 0..70 {
        send(&mut vm1, ON, "target");
        assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    }
    send(&mut vm1, OFF, "stranger");
    vm1.read(REPLY_LENGTH, DEADLINE);
    let shown = snapshot(&bed);
    assert_eq!(shown.fences.len(), 64);
    let newest = &shown.fences[0];
    assert_eq!((newest.requester.as_str(), newest.target.as_deref()), ("vm1", Some("stranger")));
    assert_eq!((newest.outcome.as_str(), newest.why.is_some()), ("denied", true), "{newest:?}");
    assert!(shown.fences[1..].iter().all(|fence| fence.outcome == "on"));
}
