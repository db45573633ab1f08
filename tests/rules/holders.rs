//! Rules 2, 3 and 5 on TCP ports, where who asks is whoever proves the key. Nobody knows which guest that is, if it is one:
//! what follows from that is shown as well.

use std::net::Ipv4Addr;
use std::path::Path;

use fencewire_core::classic::key::TAG_LEN;
use fencewire_core::classic::packet::{REQUEST_LEN, RequestPacket};
use fencewire_tests::bridge_bed::BridgeBed;
use fencewire_tests::caller::{CHALLENGE, Caller, HERE, Terms};
use fencewire_tests::daemon::{Daemon, acts};
use fencewire_tests::guest_channel::{DENIED, FAILED, IS_OFF, MONITOR, OFF, ON, REBOOT, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::{Guest, uuid_of};
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::scripted::{Call, Gate, ScriptedHypervisor};
use fencewire_tests::tcp_channel::TcpChannel;
use fencewired::config;
use fencewired::power::hypervisor::State;

use crate::common::{ask, three};

/// Other addresses than the usual one.
const THERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

const POWER: [u8; 3] = [OFF, REBOOT, ON];

/// A bridge with one port, whose key's holders may target everybody.
#[track_caller]
fn bed(hypervisor: &ScriptedHypervisor) -> (BridgeBed, TcpChannel) {
    let bed = BridgeBed::setup(hypervisor).tcp("all", "").start();
    // Whoever is destroyed is marked first; and by then the bridge listens.
    hypervisor.wait_marked();
    let tcp = bed.tcp(0);
    assert_eq!(tcp.ask(MONITOR, ""), SUCCESS);
    (bed, tcp)
}

/// Asks from another address.
#[track_caller]
fn ask_from(from: Ipv4Addr, tcp: &TcpChannel, packet: &RequestPacket) -> u8 {
    tcp.call_from(from).ask(packet)
}

/// Sends a request, and waits until the bridge has read all of it.
#[track_caller]
fn put(tcp: &TcpChannel, from: Ipv4Addr, packet: &RequestPacket) -> Caller {
    let mut caller = tcp.call_from(from);
    caller.prove(packet);
    assert_eq!(tcp.ask(STATUS, "vm1"), SUCCESS, "what came before is read before");
    caller
}

/// vm2 is being rebooted, which hangs: whatever else is asked of it waits.
#[track_caller]
fn busy(hypervisor: &ScriptedHypervisor, tcp: &TcpChannel) -> (Gate, Caller) {
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    let caller = put(tcp, HERE, &tcp.terms.packet(REBOOT, "vm2"));
    gate.wait_for(1, DEADLINE);
    (gate, caller)
}

// Rule 2: nothing before the proof.

/// Rule 2, no proof: nothing is done, and nobody is looked at, for a request that is not proved, however far it got.
#[test]
fn a_request_that_is_not_proved_is_none() {
    let hypervisor = three();
    let (bed, tcp) = bed(&hypervisor);
    let before = hypervisor.count(Call::Look, "vm2") + hypervisor.count(Call::State, "vm2");
    let mut callers = Vec::new();
    for action in POWER {
        let packet = tcp.terms.packet(action, "vm2");
        let said = [&packet[..], &CHALLENGE].concat();
        for length in [REQUEST_LEN - 1, REQUEST_LEN, REQUEST_LEN + TAG_LEN - 1, said.len()] {
            let mut caller = tcp.call();
            caller.send(&said[..length]);
            callers.push(caller);
        }
        let mut caller = tcp.call();
        let challenge = caller.challenged(&packet);
        caller.send(&tcp.terms.proof(&challenge)[..TAG_LEN - 1]);
        callers.push(caller);
        // One of another challenge, as a recording has it.
        let mut caller = tcp.call();
        caller.challenged(&packet);
        caller.send(&tcp.terms.proof(&challenge));
        caller.expect_nothing();
    }
    assert_eq!(ask_from(THERE, &tcp, &tcp.terms.packet(STATUS, "vm1")), SUCCESS, "by now the bridge has read all that");
    assert_eq!(hypervisor.count(Call::Look, "vm2") + hypervisor.count(Call::State, "vm2"), before);
    assert_eq!(hypervisor.done_to("vm2"), []);
    // They go, and take what they have said along.
    drop(callers);
    assert_eq!(tcp.ask(STATUS, "vm2"), SUCCESS);
    drop(bed);
    assert_eq!(hypervisor.done_to("vm2"), []);
}

/// Rule 2, gone: whoever asked and went away before it began is not waited for: it does not begin.
#[test]
fn a_request_whose_caller_went_away_before_it_began_is_not_begun() {
    let hypervisor = three();
    let (_bed, tcp) = bed(&hypervisor);
    let (gate, mut first) = busy(&hypervisor, &tcp);
    let waiting = put(&tcp, THERE, &tcp.terms.packet(OFF, "vm2"));
    drop(waiting);
    assert_eq!(tcp.ask(STATUS, "vm1"), SUCCESS, "by now the bridge has seen it go");
    gate.open();
    assert_eq!(first.reply(), SUCCESS);
    assert_eq!(tcp.ask(ON, "vm2"), SUCCESS, "what goes through the same queue afterwards");
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy, Call::Start], "the reboot's");
}

/// Rule 2, out of time: what waits longer than it may is answered that it was not done, and is not.
#[test]
fn a_request_whose_time_is_up_is_never_carried_out() {
    let hypervisor = three();
    let bed = BridgeBed::setup(&hypervisor).wire("classic = true\nclassic_timeout_s = 1").tcp("all", "").start();
    hypervisor.wait_marked();
    let tcp = bed.tcp(0);
    let (gate, mut first) = busy(&hypervisor, &tcp);
    let mut waiting = put(&tcp, THERE, &tcp.terms.packet(OFF, "vm2"));
    assert_eq!((waiting.reply(), first.reply()), (FAILED, FAILED), "both within their second");
    gate.open();
    wait_until(DEADLINE, "the end of what hung", || (tcp.ask(ON, "vm2") == SUCCESS).then_some(()));
    assert_eq!(hypervisor.count(Call::Destroy, "vm2"), 1, "the one that hung, and no other");
}

// Rule 3: never twice.

/// Rule 3, repeated after it was done: over another connection, from the same address: the same answer, and nothing is
/// done again.
#[test]
fn a_repeated_packet_is_answered_and_not_done_again() {
    for (action, done) in [(OFF, &[Call::Destroy][..]), (REBOOT, &[Call::Destroy, Call::Start])] {
        let hypervisor = three();
        let (_bed, tcp) = bed(&hypervisor);
        let packet = tcp.terms.packet(action, "vm2");
        assert_eq!(tcp.call().ask(&packet), SUCCESS);
        hypervisor.change("vm2", |guest| guest.state = State::Running);
        for _ in 0..3 {
            assert_eq!(tcp.call().ask(&packet), SUCCESS, "action {action}");
        }
        assert_eq!(hypervisor.done_to("vm2"), done);
        assert_eq!(hypervisor.state("vm2"), State::Running, "it was started by somebody, and is left alone");
        assert_eq!(tcp.ask(OFF, "vm2"), SUCCESS);
        assert_eq!(hypervisor.state("vm2"), State::Off, "another packet is another request");
    }
}

/// Rule 3, repeated while it runs: one action, and an answer on each connection.
#[test]
fn a_packet_repeated_while_it_runs_is_done_once_and_answered_on_each_connection() {
    let hypervisor = three();
    let (_bed, tcp) = bed(&hypervisor);
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    let packet = tcp.terms.packet(OFF, "vm2");
    let mut callers: Vec<Caller> = (0..5).map(|_| put(&tcp, HERE, &packet)).collect();
    gate.wait_for(1, DEADLINE);
    // One of them does not wait for it.
    drop(callers.remove(2));
    gate.open();
    for caller in &mut callers {
        assert_eq!(caller.reply(), SUCCESS);
    }
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Rule 3, lost: whose connection broke while it ran asks again, and hears what came of it.
#[test]
fn who_was_cut_off_asks_again_and_hears_what_came_of_it() {
    let hypervisor = three();
    let (_bed, tcp) = bed(&hypervisor);
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    let packet = tcp.terms.packet(OFF, "vm2");
    put(&tcp, HERE, &packet).reset();
    gate.wait_for(1, DEADLINE);
    let mut again = put(&tcp, HERE, &packet);
    gate.open();
    assert_eq!(again.reply(), SUCCESS);
    assert_eq!(tcp.call().ask(&packet), SUCCESS, "and once more when it is over");
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Rule 3, who: a holder is a key and an address. From another address, or by another port, the same packet is somebody
/// else's request.
#[test]
fn the_same_packet_from_another_address_or_by_another_port_is_another_request() {
    let hypervisor = three();
    let bed = BridgeBed::setup(&hypervisor).tcp("all", "").tcp("all", "").start();
    hypervisor.wait_marked();
    let (tcp, other) = (bed.tcp(0), bed.tcp(1));
    let packet = tcp.terms.packet(OFF, "vm2");
    let mut destroys = 0;
    for (from, port) in [(HERE, &tcp), (THERE, &tcp), (HERE, &other)] {
        hypervisor.change("vm2", |guest| guest.state = State::Running);
        for _ in 0..2 {
            assert_eq!(ask_from(from, port, &packet), SUCCESS);
        }
        destroys += 1;
        assert_eq!(hypervisor.count(Call::Destroy, "vm2"), destroys, "{from}, {}", port.name());
    }
}

/// Rule 3, ended: what one bridge answered, the next one answers.
#[test]
fn a_packet_repeated_to_the_next_bridge_is_answered_and_not_done_again() {
    for action in [OFF, REBOOT] {
        let hypervisor = three();
        let (mut bed, tcp) = bed(&hypervisor);
        let packet = tcp.terms.packet(action, "vm2");
        assert_eq!(tcp.call().ask(&packet), SUCCESS);
        hypervisor.change("vm2", |guest| guest.state = State::Running);
        bed.restart([]);
        assert_eq!(tcp.call().ask(&packet), SUCCESS, "action {action}");
        assert_eq!(hypervisor.count(Call::Destroy, "vm2"), 1, "action {action}");
        assert_eq!(hypervisor.state("vm2"), State::Running);
    }
}

/// Rule 3, killed in the destroy: the next bridge does not begin it again against a guest that may be a new run.
#[test]
fn a_packet_that_was_begun_when_the_bridge_was_killed_is_not_begun_again() {
    for (found, answer) in [(State::Running, FAILED), (State::Off, SUCCESS)] {
        let hypervisor = three();
        let gate = hypervisor.hold(Call::Destroy, "vm2");
        let (mut killed, tcp) = bed(&hypervisor);
        let packet = tcp.terms.packet(OFF, "vm2");
        let _waiting = put(&tcp, HERE, &packet);
        gate.wait_for(1, DEADLINE);
        let journal = killed.journal_now();
        // It has to go from its port; what it does meanwhile is done to another hypervisor.
        killed.stop();
        let hypervisor = three();
        hypervisor.change("vm2", |guest| guest.state = found);
        let next = BridgeBed::setup(&hypervisor).journal(journal.path()).same_tcp(&tcp, "all").start();
        assert_eq!((tcp.call().ask(&packet), tcp.call().ask(&packet)), (answer, answer), "{found:?}");
        assert_eq!(hypervisor.done_to("vm2"), []);
        drop(next);
    }
}

/// Rule 3, killed after the answer: the real daemon, killed for good.
#[test]
fn a_packet_repeated_to_a_daemon_that_was_killed_is_answered_and_not_done_again() {
    let mut daemon = Daemon::setup().known(["vm1", "vm2"].map(Guest::new)).tcp("everybody", "").start();
    let tcp = daemon.tcp(0).clone();
    let off = tcp.terms.packet(OFF, "vm2");
    assert_eq!(tcp.call().ask(&off), SUCCESS);
    wait_until(DEADLINE, "the record of that", || (daemon.records().len() == 1).then_some(()));
    daemon.kill();
    // libvirt's test driver forgets with its process: vm2 is on.
    daemon.start_again();
    assert_eq!(tcp.call().ask(&off), SUCCESS);
    assert_eq!(tcp.ask(STATUS, "vm2"), SUCCESS, "on");
    let records = daemon.stop_and_read_records();
    let repeated: Vec<_> = acts(&records).iter().map(|record| record["repeated"] == true).collect();
    assert_eq!(repeated, [false, true], "{records:#?}");
}

// Rule 5: nobody fences whom they may not.

/// A bridge with two groups and a port for each.
#[track_caller]
fn two_groups(hypervisor: &ScriptedHypervisor, lines: &str) -> (BridgeBed, [TcpChannel; 2]) {
    let setup = BridgeBed::setup(hypervisor).group("one", &["vm1", "vm2"], lines).group("two", &["vm2", "vm3"], "");
    let bed = setup.tcp("one", "").tcp("two", "").start();
    let ports = [bed.tcp(0), bed.tcp(1)];
    (bed, ports)
}

/// Rule 5, groups: a key's holder may target its group, all of it, and nobody else, by name or UUID.
#[test]
fn a_holder_may_target_its_group_and_no_other() {
    let hypervisor = three();
    let (_bed, [one, two]) = two_groups(&hypervisor, "");
    let uuid = uuid_of("vm3");
    for target in ["vm3", &uuid, &uuid.to_uppercase(), "vm9", &uuid_of("vm9")] {
        for action in [OFF, REBOOT, ON, STATUS] {
            assert_eq!(one.ask(action, target), DENIED, "action {action} of {target}");
        }
    }
    assert_eq!(hypervisor.done_to("vm3"), []);
    let listed = |port: &TcpChannel| {
        let list = port.ask_list();
        assert_eq!(list.last, SUCCESS);
        list.entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    assert_eq!((listed(&one), listed(&two)), (vec!["vm1".into(), "vm2".into()], vec!["vm2".into(), "vm3".into()]));
    for target in ["vm1", &uuid_of("vm2")] {
        assert_eq!((one.ask(OFF, target), one.ask(STATUS, target)), (SUCCESS, IS_OFF), "{target}");
    }
    assert_eq!(two.ask(OFF, "vm3"), SUCCESS);
    assert_eq!(hypervisor.count_all(Call::Destroy), 3);
}

/// Rule 5, actions: as for its members.
#[test]
fn a_holder_may_do_what_the_groups_actions_say() {
    let hypervisor = three();
    let (_bed, [one, _]) = two_groups(&hypervisor, "actions = [\"status\", \"on\"]");
    for action in [OFF, REBOOT] {
        assert_eq!(one.ask(action, "vm2"), DENIED, "action {action}");
    }
    assert_eq!((one.ask(STATUS, "vm2"), one.ask(ON, "vm2")), (SUCCESS, SUCCESS));
    assert_eq!(one.ask_list().entries, [], "nobody whom it may fence");
    assert_eq!(hypervisor.count_all(Call::Destroy), 0);
}

/// Rule 5, wire: a group that may not use the classic wire has no TCP port, nor does one that is not there. There is no
/// such configuration.
#[test]
fn a_group_without_the_classic_wire_has_no_port() {
    let folder = tempfile::tempdir().expect("a private folder");
    let tcp = TcpChannel::new(folder.path(), b"a key");
    let config = |classic: bool, group: &str| {
        let text = format!(
            "[[hypervisor]]\nuri = \"scripted:0\"\n[[group]]\nname = \"one\"\nmembers = [\"vm1\", \"vm2\"]\n\
             classic = {classic}\n[[group]]\nname = \"two\"\nmembers = [\"vm2\", \"vm3\"]\nclassic = true\n{}",
            tcp.section(group, "")
        );
        let loaded = config::parse(Path::new("a.toml"), &text);
        (loaded.config.is_some(), loaded.findings.to_string())
    };
    assert!(config(true, "one").0);
    for (classic, group, says) in [(false, "one", "may not use the classic wire"), (true, "three", "no [[group]]")] {
        let (is_good, said) = config(classic, group);
        assert!(!is_good && said.contains(says), "{said}");
    }
}

/// Rule 5, unknown: while the hypervisor does not say who is who, nobody is taken for anybody.
#[test]
fn nobody_is_fenced_before_the_hypervisor_has_said_who_is_who() {
    let hypervisor = three();
    hypervisor.unreachable_after(0);
    let bed = BridgeBed::setup(&hypervisor).tcp("all", "").start();
    let tcp = bed.tcp(0);
    for action in POWER {
        assert_eq!(tcp.ask(action, "vm2"), FAILED, "action {action}");
    }
    assert_eq!(hypervisor.done_to("vm2"), []);
    hypervisor.reachable();
    wait_until(DEADLINE, "success", || (tcp.ask(OFF, "vm2") == SUCCESS).then_some(()));
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Rule 5, pinned: a new guest under a member's old name is not that member.
#[test]
fn a_new_guest_under_an_old_name_is_not_the_member_to_a_holder() {
    let hypervisor = three();
    let (_bed, tcp) = bed(&hypervisor);
    hypervisor.remove("vm2");
    hypervisor.add("vm2", "22222222-0000-4000-8000-000000000000");
    for action in POWER {
        assert_ne!(tcp.ask(action, "vm2"), SUCCESS, "action {action}");
    }
    assert_eq!(tcp.ask_list().entry("vm2"), None);
    assert_eq!(hypervisor.done_to("vm2"), []);
}

/// Rule 5, budget: one for each key and address, and never against the first fence of a target.
#[test]
fn a_holders_budget_is_its_own() {
    let hypervisor = three();
    let setup = BridgeBed::setup(&hypervisor).group("all", &["vm1", "vm2", "vm3"], "budget_per_minute = 2");
    let bed = setup.tcp("all", "").start();
    hypervisor.wait_marked();
    let tcp = bed.tcp(0);
    for expected in [SUCCESS, SUCCESS, FAILED, FAILED] {
        assert_eq!(tcp.ask(REBOOT, "vm2"), expected);
    }
    assert_eq!(tcp.ask(OFF, "vm3"), SUCCESS, "another target's first");
    assert_eq!(ask_from(THERE, &tcp, &tcp.terms.packet(OFF, "vm2")), SUCCESS, "another holder");
    assert_eq!(hypervisor.count(Call::Destroy, "vm2"), 3);
}

// A reload.

/// The text of that port's section.
fn section(text: &str, tcp: &TcpChannel) -> String {
    let begins =
        text.find(&format!("[[channel]]\nkind = \"tcp\"\nlisten = \"{}\"", tcp.address())).expect("its section");
    let rest = &text[begins..];
    let length = rest[1..].find("\n[[").map_or(rest.len(), |at| at + 1);
    rest[..length].to_owned()
}

/// Rule 5, reload: a group that a guest has left is not that guest's any more, for what waits as for what comes.
#[test]
fn a_reload_that_takes_a_member_from_the_group_takes_it_from_the_holders() {
    let hypervisor = three();
    let (mut bed, [one, two]) = two_groups(&hypervisor, "");
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    let mut first = two.call();
    first.prove(&two.terms.packet(REBOOT, "vm2"));
    gate.wait_for(1, DEADLINE);
    let mut waiting = one.call();
    waiting.prove(&one.terms.packet(OFF, "vm2"));
    assert_eq!(one.ask(STATUS, "vm1"), SUCCESS, "by now the bridge has read it");
    bed.reload(|text| text.replace("members = [\"vm1\", \"vm2\"]", "members = [\"vm1\", \"vm3\"]"));
    assert_eq!(waiting.reply(), DENIED);
    gate.open();
    assert_eq!(first.reply(), SUCCESS, "what had begun is finished");
    assert_eq!((one.ask(OFF, "vm2"), one.ask(STATUS, "vm2")), (DENIED, DENIED));
    assert_eq!(hypervisor.count(Call::Destroy, "vm2"), 1);
    assert_eq!(one.ask(OFF, "vm3"), SUCCESS, "who came is the holders' now");
}

/// Rule 5, reload: another group for the key.
#[test]
fn a_reload_that_gives_the_key_another_group_takes_the_old_one_away() {
    let hypervisor = three();
    let (mut bed, [one, _]) = two_groups(&hypervisor, "");
    assert_eq!((one.ask(STATUS, "vm1"), one.ask(STATUS, "vm3")), (SUCCESS, DENIED));
    let mut in_between = one.call();
    let challenge = in_between.challenged(&one.terms.packet(OFF, "vm1"));
    bed.reload(|text| {
        let old = section(text, &one);
        text.replace(&old, &old.replace("group = \"one\"", "group = \"two\""))
    });
    in_between.expect_nothing();
    // Too late: the bridge has closed.
    let _ = in_between.try_send(&one.terms.proof(&challenge));
    assert_eq!((one.ask(OFF, "vm1"), one.ask(OFF, "vm3")), (DENIED, SUCCESS));
    assert_eq!(hypervisor.done_to("vm1"), []);
}

/// Rule 5, reload: a port that is gone is nobody's, and what waits of it is not begun.
#[test]
fn a_reload_that_takes_the_port_away_ends_whatever_was_asked_there() {
    let hypervisor = three();
    let (mut bed, [one, two]) = two_groups(&hypervisor, "");
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    let mut first = two.call();
    first.prove(&two.terms.packet(REBOOT, "vm2"));
    gate.wait_for(1, DEADLINE);
    let mut waiting = one.call();
    waiting.prove(&one.terms.packet(OFF, "vm2"));
    assert_eq!(one.ask(STATUS, "vm1"), SUCCESS, "by now the bridge has read it");
    bed.reload(|text| text.replace(&section(text, &one), ""));
    waiting.expect_nothing();
    Caller::try_connect(HERE, one.address(), &one.terms).expect_err("nobody listens there");
    gate.open();
    assert_eq!(first.reply(), SUCCESS);
    assert_eq!(two.ask(ON, "vm2"), SUCCESS, "what goes through the same queue afterwards");
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy, Call::Start]);
}

/// Rule 5, reload: a key that is changed opens nothing to whoever holds the old one, not even where it has begun to prove
/// it; whoever holds another port's is not disturbed.
#[test]
fn a_reload_that_changes_the_key_shuts_the_old_one_out() {
    let hypervisor = three();
    let (mut bed, [one, two]) = two_groups(&hypervisor, "");
    let [mut old, mut other] = [one.call(), two.call()];
    let (off, status) = (one.terms.packet(OFF, "vm2"), two.terms.packet(STATUS, "vm3"));
    let challenges = [old.challenged(&off), other.challenged(&status)];
    one.write_key(b"the new key");
    bed.reload(str::to_owned);
    old.expect_nothing();
    other.send(&two.terms.proof(&challenges[1]));
    assert_eq!(other.reply(), SUCCESS);
    let mut refused = one.call();
    refused.send(&[&off[..], &CHALLENGE].concat());
    refused.expect_nothing();
    let mut with_new = one.clone();
    with_new.terms = Terms::of(b"the new key");
    assert_eq!(with_new.ask(STATUS, "vm2"), SUCCESS);
    assert_eq!(hypervisor.count_all(Call::Destroy), 0);
}

// What nobody can know.

/// The limit of a key: nobody knows which guest a holder is. It may target what is itself, and of two that fence each
/// other both may go off. By a channel of its own, a guest does neither (`shoot_out`).
#[test]
fn nobody_knows_which_guest_a_holder_is() {
    let hypervisor = three();
    let (_bed, tcp) = bed(&hypervisor);
    let gates = ["vm1", "vm2"].map(|target| hypervisor.hold(Call::Destroy, target));
    let [mut vm1, mut vm2] = [(THERE, "vm2"), (ELSEWHERE, "vm1")].map(|(from, target)| {
        let mut caller = tcp.call_from(from);
        caller.prove(&tcp.terms.packet(OFF, target));
        caller
    });
    for gate in &gates {
        gate.wait_for(1, DEADLINE);
    }
    gates.iter().for_each(Gate::open);
    assert_eq!((vm1.reply(), vm2.reply()), (SUCCESS, SUCCESS));
    assert_eq!((hypervisor.state("vm1"), hypervisor.state("vm2")), (State::Off, State::Off));
}

/// A guest with a channel of its own is the guest, and a holder at whatever address is not: what one asked is not the
/// other's to repeat, and the guest is not disturbed by what is asked there.
#[test]
fn a_holder_is_nobody_with_a_channel() {
    let hypervisor = three();
    let setup = BridgeBed::setup(&hypervisor).channels(["vm1"]).tcp("all", "");
    let bed = setup.start();
    hypervisor.wait_marked();
    let (mut vm1, tcp) = (bed.channel("vm1"), bed.tcp(0));
    assert_eq!(ask(&mut vm1, OFF, "vm1"), DENIED, "not itself");
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    assert_eq!(tcp.ask(ON, "vm2"), SUCCESS);
    let by: Vec<String> = hypervisor
        .calls()
        .into_iter()
        .filter(|call| matches!(call.what, Call::Destroy | Call::Start))
        .map(|call| call.by)
        .collect();
    assert_eq!(by[0], uuid_of("vm1"));
    assert!(by[1].starts_with("key-"), "{by:?}");
}
