//! Our agent against Debian's `fence_virtd`.

use std::collections::BTreeSet;
use std::path::Path;

use fencewire_tests::daemon::ask;
use fencewire_tests::fence_virt::FenceVirt;
use fencewire_tests::fence_virtd::{FenceVirtd, Mode};
use fencewire_tests::guest_channel::{GuestChannel, IS_OFF, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::{Guest, State, uuid_of};

use crate::agent::{agent, agent_told, has_failed};

const ON: (Option<i32>, &str) = (Some(0), "Status: ON\n");
const OFF: (Option<i32>, &str) = (Some(2), "Status: OFF\n");
const DONE: (Option<i32>, &str) = (Some(0), "");

fn guests() -> [Guest; 4] {
    let [vm1, vm2, witness] = ["vm1", "vm2", "witness"].map(Guest::new);
    [vm1, vm2, Guest::new("vm3").state(State::Shutoff), witness]
}

/// Everything that our agent asks of a server by which it is answered, and what the witness then sees of vm2.
#[track_caller]
fn does_everything(device: &Path, mut witness: GuestChannel) {
    let uuid = uuid_of("vm2");
    let shouted = uuid.to_uppercase();
    for (arguments, expected, vm2) in [
        (&["-o", "monitor"][..], DONE, SUCCESS),
        (&["-o", "status", "-H", "vm2"], ON, SUCCESS),
        (&["-o", "status", "-H", "vm3"], OFF, SUCCESS),
        (&["-o", "off", "-H", "vm2"], DONE, IS_OFF),
        (&["-o", "status", "-n", "vm2"], OFF, IS_OFF),
        (&["-o", "off", "-n", "vm2"], DONE, IS_OFF),
        (&["-o", "on", "-H", "vm2"], DONE, SUCCESS),
        (&["-o", "status", "-H", "vm2"], ON, SUCCESS),
        (&["-o", "on", "-H", "vm2"], DONE, SUCCESS),
        (&["-o", "reboot", "-H", "vm2"], DONE, SUCCESS),
        (&["-H", "vm2"], DONE, SUCCESS),
        (&["-o", "off", "-H", &uuid], DONE, IS_OFF),
        (&["-o", "status", "-H", &shouted], OFF, IS_OFF),
        (&["-o", "ON", "-H", &shouted], DONE, SUCCESS),
        (&["-o", "status", "-H", &uuid], ON, SUCCESS),
        (&["-o", "validate-all"], DONE, SUCCESS),
    ] {
        let finished = agent(device, arguments);
        assert_eq!((finished.code, finished.stdout.as_str()), expected, "{arguments:?}: {}", finished.stderr);
        assert_eq!(finished.stderr, "", "{arguments:?}");
        assert_eq!(ask(&mut witness, STATUS, "vm2"), vm2, "after {arguments:?}");
    }
}

#[test]
fn their_server_does_what_our_agent_asks_by_a_socket() {
    let mut daemon = FenceVirtd::start(guests());
    let witness = daemon.channel("witness");
    does_everything(daemon.socket_path("vm1"), witness);
}

#[test]
fn their_server_does_what_our_agent_asks_by_a_terminal() {
    let daemon = FenceVirtd::setup().mode(Mode::Serial).guests(guests()).start();
    let port = FenceVirt::over(daemon.stream("vm1"));
    does_everything(port.device(), daemon.channel("witness"));
}

/// As Pacemaker calls it.
#[test]
fn their_server_does_what_our_agent_is_told_on_standard_input() {
    let mut daemon = FenceVirtd::start(guests());
    let mut witness = daemon.channel("witness");
    let device = daemon.socket_path("vm1").to_owned();

    for (lines, expected, vm2) in [
        ("action=monitor", DONE, SUCCESS),
        ("action=off\nport=vm2\n", DONE, IS_OFF),
        ("port=vm2\naction=status", OFF, IS_OFF),
        ("# a comment\nunknown=key\nplug=vm2\noption=on\n", DONE, SUCCESS),
        ("plug=vm2\naction=status\n", ON, SUCCESS),
        ("plug=vm2\nport=vm2\n", DONE, SUCCESS),
    ] {
        let finished = agent_told(&device, lines);
        assert_eq!((finished.code, finished.stdout.as_str()), expected, "{lines:?}: {}", finished.stderr);
        assert_eq!(ask(&mut witness, STATUS, "vm2"), vm2, "after {lines:?}");
    }
}

/// The whole list, with the strays in its entries, and what `fence_virt` makes of the same.
#[test]
fn their_servers_list_is_read_as_their_client_reads_it() {
    let paused = Guest::new("paused").state(State::Paused);
    let mut daemon = FenceVirtd::start(guests().into_iter().chain([paused]));
    let theirs = FenceVirt::over(daemon.stream("witness")).run(&["-o", "list"]);
    let device = daemon.socket_path("vm1").to_owned();

    let (list, states) = (agent(&device, &["-o", "list"]), agent(&device, &["-o", "list-status"]));

    let lines = |text: &str, line: &dyn Fn(&str) -> String| text.lines().map(line).collect::<BTreeSet<_>>();
    let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let names = lines(&theirs.stdout, &|line| columns(line)[..2].join(","));
    assert_eq!((list.code, list.stderr.as_str()), (Some(0), ""));
    assert_eq!(lines(&list.stdout, &str::to_owned), names);
    // Their client prints "off" for whatever is not running.
    let power = lines(&theirs.stdout, &|line| {
        let power = if line.starts_with("paused ") { "unknown" } else { &columns(line)[2] };
        format!("{},{power}", columns(line)[..2].join(","))
    });
    assert_eq!((states.code, states.stderr.as_str()), (Some(0), ""));
    assert_eq!(lines(&states.stdout, &str::to_owned), power);
}

/// Status is what their server says, and that is "off". The rest fails.
#[test]
fn their_server_knows_no_such_guest() {
    let mut daemon = FenceVirtd::start(guests());
    let device = daemon.socket_path("vm1").to_owned();

    let status = agent(&device, &["-o", "status", "-H", "nobody"]);
    assert_eq!((status.code, status.stdout.as_str()), OFF);
    for action in ["off", "on", "reboot"] {
        has_failed(&agent(&device, &["-o", action, "-H", "nobody"]), "'nobody'");
    }
}

#[test]
fn their_server_is_gone() {
    let mut daemon = FenceVirtd::start(guests());
    let device = daemon.socket_path("vm1").to_owned();
    daemon.stop();

    for arguments in [&["-o", "monitor"][..], &["-o", "off", "-H", "vm2"]] {
        let finished = agent(&device, arguments);
        has_failed(&finished, &device.display().to_string());
        assert!(finished.elapsed.as_secs() < 5, "at once: {:?}", finished.elapsed);
    }
}
