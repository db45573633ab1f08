//! Rule 5: nobody fences whom they may not. Who asks is what the channel says; who may do what to whom is what the
//! configuration says; what is not known is refused, and nothing fails open.

use std::path::Path;

use fencewire_tests::bridge_bed::{BridgeBed, Setup};
use fencewire_tests::guest_channel::{
    DENIED, FAILED, GuestChannel, IS_OFF, MONITOR, OFF, ON, REBOOT, REPLY_LENGTH, STATUS, SUCCESS, reply,
};
use fencewire_tests::libvirt_file::uuid_of;
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::scripted::{Call, OnLook, ScriptedHypervisor};
use fencewired::config;
use fencewired::power::hypervisor::{HypervisorError, State};

use crate::common::{ask, bed, frame, three};

const POWER: [u8; 3] = [OFF, REBOOT, ON];

/// A bridge whose groups are these, each with its members and further lines; and the channel of vm1.
#[track_caller]
fn grouped(hypervisor: &ScriptedHypervisor, groups: &[(&[&str], &str)]) -> (BridgeBed, GuestChannel) {
    let setup = BridgeBed::setup(hypervisor).channels(["vm1"]);
    let setup = groups.iter().enumerate().fold(setup, |setup: Setup, (number, (members, lines))| {
        setup.group(&format!("group {number}"), members, lines)
    });
    let bed = setup.start();
    let channel = bed.channel("vm1");
    (bed, channel)
}

/// Says that each of these is denied, and that nothing is done to that guest.
#[track_caller]
fn expect_denied(hypervisor: &ScriptedHypervisor, channel: &mut GuestChannel, actions: &[u8], target: &str) {
    for action in actions {
        assert_eq!(ask(channel, *action, target), DENIED, "{target}, action {action}");
    }
    assert_eq!(hypervisor.done_to(target), []);
}

/// Asks anew until it is done: for a moment the bridge goes by what it was told last of who is who.
#[track_caller]
fn asked_until_success(channel: &mut GuestChannel, action: u8, target: &str) {
    wait_until(DEADLINE, "success", || (ask(channel, action, target) == SUCCESS).then_some(()));
}

/// Rule 5, groups: who is in no group with the asker is not the asker's to fence, nor to ask about, nor to list.
#[test]
fn a_guest_outside_the_group_is_denied() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3"]);
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&["vm1", "vm2"], ""), (&["vm2", "vm3"], "")]);
    expect_denied(&hypervisor, &mut vm1, &[OFF, REBOOT, ON, STATUS], "vm3");
    let list = vm1.ask_list(DEADLINE);
    assert_eq!(list.entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["vm2"]);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "who is in it may be fenced");
}

/// Rule 5, groups: a guest whose channel is served and that is in no group may nothing.
#[test]
fn a_guest_in_no_group_is_denied_everything() {
    let hypervisor = three();
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&["vm2", "vm3"], "")]);
    expect_denied(&hypervisor, &mut vm1, &[OFF, REBOOT, ON, STATUS, MONITOR], "vm2");
}

/// Rule 5, groups: nor is anything done to who is in none; not even is its run marked.
#[test]
fn a_guest_in_no_group_is_left_alone() {
    let hypervisor = three();
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&["vm1", "vm2"], "")]);
    let mark = |name| hypervisor.guest(name).expect("a guest").incarnation();
    wait_until(DEADLINE, "the members to be marked", || mark("vm1").and(mark("vm2")));
    assert_eq!(ask(&mut vm1, REBOOT, "vm2"), SUCCESS);
    wait_until(DEADLINE, "its new run to be marked", || mark("vm2"));
    assert_eq!((mark("vm3"), hypervisor.done_to("vm3")), (None, vec![]));
}

/// Rule 5, actions: a group is narrowed by its actions.
#[test]
fn an_action_that_the_group_does_not_have_is_denied() {
    let hypervisor = three();
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&["vm1", "vm2"], "actions = [\"status\", \"reboot\"]")]);
    expect_denied(&hypervisor, &mut vm1, &[OFF, ON], "vm2");
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS);
    assert_eq!(ask(&mut vm1, REBOOT, "vm2"), SUCCESS);
    let hypervisor = three();
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&["vm1", "vm2"], "actions = []")]);
    expect_denied(&hypervisor, &mut vm1, &[OFF, REBOOT, ON, STATUS], "vm2");
}

/// Rule 5, itself: a guest changes its own power only with the operator's word.
#[test]
fn a_guest_that_fences_itself_is_denied_without_allow_self() {
    let hypervisor = three();
    let (_bed, mut vm1) = bed(&hypervisor);
    expect_denied(&hypervisor, &mut vm1, &POWER, "vm1");
    assert_eq!(ask(&mut vm1, STATUS, "vm1"), SUCCESS, "it may ask about itself");
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&["vm1"], "allow_self = true")]);
    vm1.send(&frame(OFF, "vm1"));
    hypervisor.wait_for(Call::Destroy, "vm1", 1, DEADLINE);
}

/// Rule 5, virtio: a port that nobody can flush may hold old bytes, so power needs the operator's word there.
#[test]
fn power_over_a_virtio_port_is_denied_without_classic_virtio() {
    let hypervisor = three();
    let setup = || BridgeBed::setup(&hypervisor).channel("vm1", "port = \"virtio\"");
    let bed = setup().start();
    let mut vm1 = bed.channel("vm1");
    expect_denied(&hypervisor, &mut vm1, &POWER, "vm2");
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "questions are answered");
    let bed = setup().wire("classic = true\nclassic_virtio = true").start();
    let mut vm1 = bed.channel("vm1");
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
}

/// Rule 5, wire: a group that may not use the classic wire is not served on it.
#[test]
fn a_group_without_the_classic_wire_is_denied_on_it() {
    let hypervisor = three();
    let groups: &[(&[&str], &str)] = &[(&["vm1", "vm2"], "classic = false"), (&["vm2", "vm3"], "classic = true")];
    let (_bed, mut vm1) = grouped(&hypervisor, groups);
    expect_denied(&hypervisor, &mut vm1, &[OFF, REBOOT, ON, STATUS, MONITOR], "vm2");
}

/// Rule 5, requester: a channel of a guest that no hypervisor knows is nobody's.
#[test]
fn a_requester_that_the_hypervisor_does_not_know_is_denied() {
    let hypervisor = ScriptedHypervisor::with(["vm2", "vm3"]);
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&["vm1", "vm2"], "")]);
    expect_denied(&hypervisor, &mut vm1, &[OFF, REBOOT, ON, STATUS, MONITOR], "vm2");
    hypervisor.add("vm1", &uuid_of("vm1"));
    asked_until_success(&mut vm1, OFF, "vm2");
}

/// Rule 5, requester: while the hypervisor does not say who is who, nobody is taken for anybody.
#[test]
fn nobody_is_known_before_the_hypervisor_has_said_who_is_who() {
    let hypervisor = three();
    hypervisor.unreachable_after(0);
    let bed = BridgeBed::start(&hypervisor);
    let mut vm1 = bed.channel("vm1");
    for action in [OFF, REBOOT, ON, STATUS, MONITOR] {
        assert_eq!(ask(&mut vm1, action, "vm2"), FAILED, "action {action}");
    }
    assert_eq!(hypervisor.done_to("vm2"), []);
    hypervisor.reachable();
    asked_until_success(&mut vm1, OFF, "vm2");
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Rule 5, requester: what a frame says of who sends it counts for nothing, since it says nothing; who asks is the
/// channel. The same frame is one guest's right and another's offence.
#[test]
fn who_asks_is_who_the_channel_says() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3"]);
    let bed = BridgeBed::setup(&hypervisor).group("two", &["vm1", "vm2"], "").channels(["vm1", "vm3"]).start();
    let [mut vm1, mut vm3] = ["vm1", "vm3"].map(|guest| bed.channel(guest));
    let off = frame(OFF, "vm2");
    assert_eq!(vm3.ask(&off, DEADLINE), DENIED);
    assert_eq!(hypervisor.done_to("vm2"), []);
    assert_eq!(vm1.ask(&off, DEADLINE), SUCCESS);
    assert_eq!(vm3.ask(&off, DEADLINE), DENIED, "nor is the answer to it given to another");
}

/// Rule 5, target: by the text of its UUID, in either case, a guest is the same guest with the same rights on it.
#[test]
fn a_target_by_uuid_is_the_guest_of_that_uuid() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3"]);
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&["vm1", "vm2"], "")]);
    assert_eq!(ask(&mut vm1, OFF, &uuid_of("vm3")), DENIED);
    assert_eq!(ask(&mut vm1, OFF, "00000000-0000-4000-8000-000000000000"), DENIED);
    assert_eq!(ask(&mut vm1, OFF, &uuid_of("vm2").to_uppercase()), SUCCESS);
    assert_eq!(ask(&mut vm1, STATUS, &uuid_of("vm2")), IS_OFF);
    assert_eq!(hypervisor.count_all(Call::Destroy), 1);
}

/// Rule 5, target: a guest whose name has a UUID's shape is not hit by that UUID, nor is it its bearer.
#[test]
fn a_name_of_a_uuids_shape_is_never_a_name() {
    let hypervisor = three();
    let disguise = uuid_of("vm2");
    hypervisor.add(&disguise, "99999999-0000-4000-8000-000000000000");
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&["vm1", &disguise], "")]);
    assert_eq!(ask(&mut vm1, OFF, &disguise), SUCCESS);
    assert_eq!(hypervisor.state("vm2"), State::Off, "the member is the guest of that UUID");
    assert_eq!(hypervisor.state(&disguise), State::Running);
}

/// Rule 5, pinned: a new guest under a member's old name is not that member, neither as a target nor as the one that asks.
#[test]
fn a_new_guest_under_an_old_name_is_not_the_member() {
    let hypervisor = three();
    let (bed, mut vm1) = bed(&hypervisor);
    let (mut vm2, mut vm3) = (bed.channel("vm2"), bed.channel("vm3"));
    hypervisor.remove("vm2");
    hypervisor.add("vm2", "22222222-0000-4000-8000-000000000000");
    for action in POWER {
        assert_ne!(ask(&mut vm1, action, "vm2"), SUCCESS, "action {action}");
        assert_ne!(ask(&mut vm2, action, "vm3"), SUCCESS, "action {action}");
    }
    // However often, and also once the bridge has heard of it.
    assert_eq!(vm1.ask_list(DEADLINE).entry("vm2"), None);
    expect_denied(&hypervisor, &mut vm1, &[OFF, REBOOT, ON, STATUS], "vm2");
    assert_ne!(ask(&mut vm2, OFF, "vm3"), SUCCESS);
    assert_eq!(hypervisor.done_to("vm3"), []);
    assert_eq!(ask(&mut vm3, OFF, "vm1"), SUCCESS, "the others are who they were");
}

/// Rule 5, pinned: a member under a new name is still that member; its old name is nobody's, or another's who is not one.
#[test]
fn a_renamed_member_is_still_the_member_and_its_old_name_grants_nothing() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "stranger"]);
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&["vm1", "vm2"], "")]);
    hypervisor.change("vm2", |guest| guest.name = "renamed".to_owned());
    hypervisor.change("stranger", |guest| guest.name = "vm2".to_owned());
    for action in [OFF, REBOOT, ON, STATUS] {
        assert_ne!(ask(&mut vm1, action, "vm2"), SUCCESS, "action {action}");
    }
    assert_eq!(hypervisor.done_to("vm2"), [], "the stranger of that name");
    assert_eq!(hypervisor.done_to("renamed"), [], "nor the member, for its old name");
    assert_eq!(ask(&mut vm1, OFF, "renamed"), SUCCESS);
    assert_eq!(hypervisor.done_to("renamed"), [Call::Destroy]);
}

/// Rule 5, pinned: a guest that was renamed between the decision and the destroy is left alone.
#[test]
fn a_target_that_is_renamed_at_the_last_moment_is_left_alone() {
    let hypervisor = three();
    let gate = hypervisor.hold(Call::State, "vm1");
    let (_bed, mut vm1) = bed(&hypervisor);
    vm1.send(&frame(OFF, "vm2"));
    gate.wait_for(1, DEADLINE);
    hypervisor.change("vm2", |guest| guest.name = "renamed".to_owned());
    gate.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), FAILED);
    assert_eq!(hypervisor.done_to("renamed"), []);
}

/// Rule 5, names: a name means the guest that bears it now. Where the bridge has not heard of that, it finds out.
#[test]
fn a_name_that_has_moved_to_another_member_is_found_there() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3"]);
    let members = [uuid_of("vm1"), uuid_of("vm2"), uuid_of("vm3")];
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&members, "")]);
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS);
    for (from, to) in [("vm2", "other"), ("vm3", "vm2")] {
        hypervisor.change(from, |guest| guest.name = to.to_owned());
    }
    asked_until_success(&mut vm1, OFF, "vm2");
    assert_eq!(hypervisor.done_to("other"), [], "never the one that has lost the name");
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Rule 5, budget: it is spent by destroys, and never keeps anybody from the first fence of a target.
#[test]
fn a_budget_that_is_used_up_refuses_the_second_fence_of_a_target_and_never_the_first() {
    let hypervisor = three();
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&["vm1", "vm2", "vm3"], "budget_per_minute = 1")]);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    hypervisor.change("vm2", |guest| guest.state = State::Running);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED, "the second of that guest in this minute");
    assert_eq!(ask(&mut vm1, OFF, "vm3"), SUCCESS, "the first of that one");
    assert_eq!(hypervisor.count_all(Call::Destroy), 2);
}

/// Rule 5, configuration: one that says something else than it seems to say is not served at all.
#[test]
fn a_configuration_with_a_mistake_serves_nobody() {
    let good = "[[hypervisor]]\nuri = \"test:///default\"\n[wire]\nclassic = true\n\
                [[channel]]\nkind = \"unix\"\npath = \"/nowhere/vm1\"\nguest = \"vm1\"\n\
                [[group]]\nname = \"g\"\nmembers = [\"vm1\", \"vm2\"]\n";
    let parse = |text: &str| config::parse(Path::new("a.toml"), text).config.is_some();
    assert!(parse(good));
    for mistake in [
        "action = [\"status\"]",
        "actions = [\"state\"]",
        "actions = \"status\"",
        "allow_self = \"yes\"",
        "budget_per_minute = 0",
        "[[group]]\nname = \"g\"\nmembers = [\"vm3\"]",
        "[groups]",
    ] {
        assert!(!parse(&format!("{good}{mistake}\n")), "{mistake}");
    }
    for (key, other) in [("classic = true", "clasic = true"), ("classic = true", ""), ("guest = \"vm1\"", "")] {
        assert!(!parse(&good.replace(key, other)), "{other} for {key}");
    }
}

/// Rule 5, what is not known: a requester whose state nobody can read is asked no further; its target decides.
#[test]
fn a_requester_whose_state_cannot_be_read_gets_no_more_than_its_rights() {
    let hypervisor = three();
    let cannot = OnLook::Fails(HypervisorError::Failed("cannot be read".to_owned()));
    hypervisor.change("vm1", |guest| guest.on_look = cannot);
    let (_bed, mut vm1) = grouped(&hypervisor, &[(&["vm1", "vm2"], "")]);
    expect_denied(&hypervisor, &mut vm1, &POWER, "vm3");
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
}
