//! Another configuration in place of the one that is served (SIGHUP): what was granted before is not granted by memory,
//! and what is the same is not disturbed. And names: who they mean when guests are renamed, undefined and defined anew.

use fencewire_tests::bridge_bed::{BridgeBed, settle};
use fencewire_tests::guest_channel::{DENIED, FAILED, GuestChannel, OFF, REBOOT, REPLY_LENGTH, STATUS, SUCCESS, reply};
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::scripted::{Call, ScriptedHypervisor};
use fencewired::power::hypervisor::State;

use crate::common::{ask, frame, three};

const ANOTHER: &str = "00000000-0000-4000-8000-0000000000ff";

/// What the configuration says of a channel.
fn section(channel: &GuestChannel, guest: &str) -> String {
    format!("[[channel]]\nkind = \"unix\"\npath = \"{}\"\nguest = {guest:?}", channel.path().display())
}

/// A channel that both configurations have stays connected, and what was asked on it is answered.
#[test]
fn what_stays_is_not_touched() {
    let hypervisor = three();
    let mut bed = BridgeBed::start(&hypervisor);
    let (mut vm1, mut vm3) = (bed.channel("vm1"), bed.channel("vm3"));
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    vm1.send(&frame(OFF, "vm2"));
    gate.wait_for(1, DEADLINE);
    bed.reload(|text| text.replace(&section(&vm3, "vm3"), ""));
    vm3.expect_end(DEADLINE);
    gate.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    assert_eq!(ask(&mut vm1, OFF, "vm3"), SUCCESS, "vm3 has lost its channel, and not its membership");
}

/// A channel that only the new configuration has is opened; one whose guest is another is closed and opened anew.
#[test]
fn what_is_new_is_opened() {
    let hypervisor = three();
    let mut bed = BridgeBed::setup(&hypervisor).channels(["vm1"]).start();
    let mut channel = bed.channel("vm1");
    assert_eq!(ask(&mut channel, OFF, "vm1"), DENIED, "vm1 itself");
    bed.reload(|text| text.replace("guest = \"vm1\"", "guest = \"vm3\""));
    channel.expect_end(DEADLINE);
    channel.accept(DEADLINE);
    settle([&mut channel]);
    assert_eq!(ask(&mut channel, OFF, "vm1"), SUCCESS, "vm3 asks now");
    assert_eq!(ask(&mut channel, OFF, "vm3"), DENIED);
}

/// Rule 5: a channel that comes takes the place of none that is there, nor of one that has gone while its fence runs: who
/// asks is who the channel says.
#[test]
fn what_is_new_is_taken_for_no_other() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3", "vm4"]);
    let setup =
        BridgeBed::setup(&hypervisor).group("one", &["vm1", "vm2", "vm4"], "").group("two", &["vm2", "vm3"], "");
    let mut bed = setup.channels(["vm1", "vm2"]).start();
    let [mut vm1, mut vm2] = ["vm1", "vm2"].map(|guest| bed.channel(guest));
    let gate = hypervisor.hold(Call::Destroy, "vm4");
    vm2.send(&frame(OFF, "vm4"));
    gate.wait_for(1, DEADLINE);
    let mut vm3 = GuestChannel::listen();
    bed.reload(|text| text.replace(&section(&vm2, "vm2"), &section(&vm3, "vm3")));
    vm2.expect_end(DEADLINE);
    vm3.accept(DEADLINE);
    settle([&mut vm3]);
    assert_eq!((ask(&mut vm1, STATUS, "vm2"), ask(&mut vm1, STATUS, "vm3")), (SUCCESS, DENIED));
    assert_eq!((ask(&mut vm3, STATUS, "vm2"), ask(&mut vm3, STATUS, "vm1")), (SUCCESS, DENIED));
    gate.open();
    wait_until(DEADLINE, "the fence", || (hypervisor.state("vm4") == State::Off).then_some(()));
    let path = vm2.path().display().to_string();
    let records = bed.records();
    let record = records.iter().find(|record| record["target"] == "vm4").expect("a record of it");
    assert_eq!((&record["channel"], &record["requester"]), (&path.into(), &"vm2".into()));
}

/// Rule 5: a request that waits in its lane when its permission goes is not begun.
#[test]
fn what_waits_in_a_lane_is_decided_anew() {
    let hypervisor = three();
    let mut bed = BridgeBed::setup(&hypervisor)
        .group("one", &["vm1", "vm2"], "")
        .group("two", &["vm3", "vm2"], "")
        .channels(["vm1", "vm2", "vm3"])
        .start();
    let [mut vm1, mut vm2, mut vm3] = ["vm1", "vm2", "vm3"].map(|guest| bed.channel(guest));
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    vm1.send(&frame(REBOOT, "vm2"));
    gate.wait_for(1, DEADLINE);
    let waits = frame(OFF, "vm2");
    vm3.send(&waits);
    // What comes later, on whatever channel, is read later.
    assert_eq!(ask(&mut vm2, STATUS, "vm1"), SUCCESS);
    bed.reload(|text| text.replace("members = [\"vm3\", \"vm2\"]", "members = [\"vm3\", \"vm1\"]"));
    assert_eq!(reply(&vm3.read(REPLY_LENGTH, DEADLINE)), DENIED);
    gate.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    assert_eq!(hypervisor.count(Call::Destroy, "vm2"), 1, "for vm1, and not for vm3");
    assert_eq!(hypervisor.state("vm2"), State::Running);
    assert_eq!(ask(&mut vm3, OFF, "vm2"), DENIED);
}

/// Rule 5: permissions that go, go at once; those that come, come at once.
#[test]
fn groups_are_those_of_the_new_configuration() {
    let hypervisor = three();
    let mut bed = BridgeBed::setup(&hypervisor).group("g", &["vm1", "vm2"], "").channels(["vm1"]).start();
    let mut vm1 = bed.channel("vm1");
    assert_eq!((ask(&mut vm1, STATUS, "vm2"), ask(&mut vm1, STATUS, "vm3")), (SUCCESS, DENIED));
    bed.reload(|text| text.replace("\"vm2\"]", "\"vm3\"]"));
    wait_until(DEADLINE, "the new groups", || (ask(&mut vm1, STATUS, "vm3") == SUCCESS).then_some(()));
    assert_eq!(ask(&mut vm1, OFF, "vm2"), DENIED);
    assert_eq!(hypervisor.count_all(Call::Destroy), 0);
}

/// A guest that is defined after the bridge has started is known when it is asked about.
#[test]
fn a_guest_that_is_defined_later_is_served() {
    let hypervisor = ScriptedHypervisor::with(["vm1"]);
    let bed = BridgeBed::setup(&hypervisor).group("g", &["vm1", "vm2"], "").channels(["vm1"]).start();
    let mut vm1 = bed.channel("vm1");
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED);
    hypervisor.add("vm2", ANOTHER);
    wait_until(DEADLINE, "the new guest", || (ask(&mut vm1, OFF, "vm2") == SUCCESS).then_some(()));
}

/// Rule 5: a rename grants nothing and takes nothing: the configuration means the guest that first bore the name.
#[test]
fn a_renamed_guest_stays_who_it_was() {
    let hypervisor = three();
    hypervisor.add("other", ANOTHER);
    let bed = BridgeBed::setup(&hypervisor).group("g", &["vm1", "vm2"], "").channels(["vm1"]).start();
    let mut vm1 = bed.channel("vm1");
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS);
    hypervisor.change("vm2", |guest| guest.name = "was-vm2".to_owned());
    hypervisor.change("other", |guest| guest.name = "vm2".to_owned());
    wait_until(DEADLINE, "the new names", || (ask(&mut vm1, STATUS, "vm2") == DENIED).then_some(()));
    assert_eq!(ask(&mut vm1, OFF, "vm2"), DENIED, "a stranger under its name");
    assert_eq!(ask(&mut vm1, OFF, "was-vm2"), SUCCESS);
    assert_eq!(hypervisor.count(Call::Destroy, "vm2"), 0);
}

/// Rule 5: a guest that is undefined and defined anew under its name is another one, until somebody reloads: then the
/// configuration's names mean whoever bears them.
#[test]
fn a_guest_that_is_defined_anew_is_another_one_until_a_reload() {
    let hypervisor = three();
    let mut bed = BridgeBed::setup(&hypervisor).group("g", &["vm1", "vm2"], "").channels(["vm1"]).start();
    let mut vm1 = bed.channel("vm1");
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS);
    hypervisor.remove("vm2");
    hypervisor.add("vm2", ANOTHER);
    wait_until(DEADLINE, "the new guest", || (ask(&mut vm1, STATUS, "vm2") == DENIED).then_some(()));
    assert_eq!(ask(&mut vm1, OFF, "vm2"), DENIED);
    bed.reload(str::to_owned);
    wait_until(DEADLINE, "the names bound anew", || (ask(&mut vm1, OFF, "vm2") == SUCCESS).then_some(()));
}

/// What cannot be changed while it runs is said, and the rest is taken over.
#[test]
fn another_hypervisor_takes_a_restart_and_the_rest_does_not() {
    let hypervisor = three();
    let mut bed = BridgeBed::setup(&hypervisor).group("g", &["vm1", "vm2"], "").channels(["vm1"]).start();
    let mut vm1 = bed.channel("vm1");
    bed.reload(|text| text.replace("scripted:0", "scripted:other").replace("\"vm2\"]", "\"vm3\"]"));
    wait_until(DEADLINE, "the new groups", || (ask(&mut vm1, OFF, "vm3") == SUCCESS).then_some(()));
    assert_eq!(hypervisor.done_to("vm3"), [Call::Destroy]);
}
