//! Our agent against Debian's `fence_virtd`, by TCP.

use std::fs;
use std::net::Ipv6Addr;
use std::process::Command;

use fencewire_tests::fence_virtd::tcp::ByTcp;
use fencewire_tests::libvirt_file::{Guest, State, uuid_of};
use fencewire_tests::process::{DEADLINE, Finished, ours, run, run_with_input};

use crate::agent::has_failed;

const ON: (Option<i32>, &str) = (Some(0), "Status: ON\n");
const OFF: (Option<i32>, &str) = (Some(2), "Status: OFF\n");
const DONE: (Option<i32>, &str) = (Some(0), "");

fn guests() -> [Guest; 3] {
    [Guest::new("vm1"), Guest::new("vm2"), Guest::new("vm3").state(State::Shutoff)]
}

#[track_caller]
fn agent(daemon: &ByTcp, arguments: &[&str]) -> Finished {
    run(Command::new(ours("fence_wire")).args(daemon.options()).args(arguments), DEADLINE)
}

/// What their own client says of a guest's power.
#[track_caller]
fn theirs(daemon: &ByTcp, guest: &str) -> &'static str {
    match daemon.fence_virt(&["-o", "status", "-H", guest]).code {
        Some(0) => "on",
        Some(2) => "off",
        other => panic!("fence_virt ended with {other:?}"),
    }
}

/// Everything that our agent asks of a server by which it is answered, and what their client then sees of vm2.
#[track_caller]
fn does_everything(daemon: &ByTcp, hashes: &[&str]) {
    let uuid = uuid_of("vm2");
    let shouted = uuid.to_uppercase();
    for (arguments, expected, vm2) in [
        (&["-o", "monitor"][..], DONE, "on"),
        (&["-o", "status", "-n", "vm2"], ON, "on"),
        (&["-o", "status", "-H", "vm3"], OFF, "on"),
        (&["-o", "off", "-n", "vm2"], DONE, "off"),
        (&["-o", "status", "-n", "vm2"], OFF, "off"),
        (&["-o", "off", "-n", "vm2"], DONE, "off"),
        (&["-o", "on", "-n", "vm2"], DONE, "on"),
        (&["-o", "reboot", "-n", "vm2"], DONE, "on"),
        (&["-n", "vm2"], DONE, "on"),
        (&["-o", "off", "-n", &uuid], DONE, "off"),
        (&["-o", "status", "-n", &shouted], OFF, "off"),
        (&["-o", "ON", "-n", &shouted], DONE, "on"),
        (&["-o", "validate-all"], DONE, "on"),
    ] {
        let finished = agent(daemon, &[hashes, arguments].concat());
        assert_eq!((finished.code, finished.stdout.as_str()), expected, "{arguments:?}: {}", finished.stderr);
        assert_eq!(finished.stderr, "", "{arguments:?}");
        assert_eq!(theirs(daemon, "vm2"), vm2, "after {arguments:?}");
    }
}

#[test]
fn their_tcp_server_does_what_our_agent_asks() {
    does_everything(&ByTcp::start(guests(), "sha256", "sha256"), &[]);
}

#[test]
fn their_tcp_server_does_so_by_ipv6() {
    let daemon = ByTcp::at(Ipv6Addr::LOCALHOST.into(), guests());
    does_everything(&daemon, &["-c", "sha512"]);
}

/// As Pacemaker calls it.
#[test]
fn their_tcp_server_does_what_our_agent_is_told_on_standard_input() {
    let daemon = ByTcp::start(guests(), "sha256", "sha256");
    for (lines, expected, vm2) in [
        ("action=monitor", DONE, "on"),
        ("action=off\nport=vm2\n", DONE, "off"),
        ("plug=vm2\naction=status\nhash=sha512\nauth=sha256\n", OFF, "off"),
        ("plug=vm2\naction=on\n", DONE, "on"),
    ] {
        let input = format!("nodename=node2\n{}crm_feature_set=3.16.2\n{lines}", daemon.lines());
        let finished = run_with_input(&mut Command::new(ours("fence_wire")), input.as_bytes(), DEADLINE);
        assert_eq!((finished.code, finished.stdout.as_str()), expected, "{lines:?}: {}", finished.stderr);
        assert_eq!(theirs(&daemon, "vm2"), vm2, "after {lines:?}");
    }
}

/// Every minimum that theirs can have, and every pair of hashes that ours takes. Theirs answers challenges with SHA-256,
/// whatever it is told to.
#[test]
fn hashes_of_their_tcp_server_and_of_our_agent() {
    const ORDER: [&str; 4] = ["none", "sha1", "sha256", "sha512"];
    let strength = |hash| ORDER.iter().position(|known| *known == hash);
    for minimum in ORDER {
        let daemon = ByTcp::start(guests(), minimum, minimum);
        for (hash, auth) in
            [("sha256", "sha256"), ("sha512", "sha256"), ("sha256", "sha512"), ("sha512", "sha512"), ("none", "none")]
        {
            let finished = agent(&daemon, &["-c", hash, "-C", auth, "-o", "off", "-n", "vm2", "-t", "2"]);
            let case = format!("theirs {minimum}, ours {hash} and {auth}: {}", finished.stderr);
            let is_enough = strength(hash) >= strength(minimum);
            if is_enough && auth == "sha256" {
                assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{case}");
                assert_eq!(theirs(&daemon, "vm2"), "off", "{case}");
                assert_eq!(daemon.fence_virt(&["-o", "on", "-H", "vm2"]).code, Some(0), "{case}");
                continue;
            }
            let part = match (is_enough, auth) {
                // Theirs waits for a challenge.
                (true, "none") => "(time was up): off for 'vm2' may have happened or may still happen",
                (true, _) => "does not hold the key: do not trust it, and compare key_file and auth",
                // Without a proof to wait for, nobody knows what an end means.
                (false, "none") => "off for 'vm2' may have happened or may still happen",
                (false, _) => "hung up on this request: compare key_file and hash",
            };
            has_failed(&finished, part);
            assert!(finished.elapsed.as_secs() < 4, "{case}");
            assert_eq!(theirs(&daemon, "vm2"), "on", "{case}");
        }
    }
}

#[test]
fn another_key_than_their_tcp_servers() {
    let daemon = ByTcp::start(guests(), "sha256", "sha256");
    let folder = tempfile::tempdir().expect("a private folder");
    let other = folder.path().join("key");
    let key = fs::read(daemon.channel().key_file()).expect("its key");
    for content in [&b"another key"[..], &[&key[..], b"\n"].concat(), &key[..key.len() - 1]] {
        fs::write(&other, content).expect("a key file");
        for question in [&["-o", "monitor"][..], &["-o", "off", "-n", "vm2"], &["-o", "list"]] {
            let key_file = ["-k", other.to_str().expect("a test's paths are UTF-8")];
            let finished = agent(&daemon, &[&key_file, question].concat());
            has_failed(&finished, "hung up on this request: compare key_file and hash");
            assert!(finished.elapsed.as_secs() < 4, "at once: {:?}", finished.elapsed);
        }
    }
    assert_eq!(theirs(&daemon, "vm2"), "on");
}

#[test]
fn the_list_of_their_tcp_server() {
    let paused = Guest::new("paused").state(State::Paused);
    let daemon = ByTcp::start(guests().into_iter().chain([paused]), "sha256", "sha256");
    let [list, states] = ["list", "list-status"].map(|action| agent(&daemon, &["-o", action]));
    assert_eq!((list.code, list.stderr.as_str(), states.code, states.stderr.as_str()), (Some(0), "", Some(0), ""));
    for (name, power) in [("vm1", "on"), ("vm2", "on"), ("vm3", "off"), ("paused", "unknown")] {
        let line = format!("{name},{}", uuid_of(name));
        assert!(list.stdout.lines().any(|listed| listed == line), "{name}: {}", list.stdout);
        let line = format!("{line},{power}");
        assert!(states.stdout.lines().any(|listed| listed == line), "{name}: {}", states.stdout);
    }
    assert_eq!((list.stdout.lines().count(), states.stdout.lines().count()), (4, 4));
}

#[test]
fn a_long_list_of_their_tcp_server() {
    let daemon =
        ByTcp::start((0..1_000).map(|nth| Guest::new(&format!("vm{nth}")).state(State::Shutoff)), "sha256", "sha256");
    let list = agent(&daemon, &["-o", "list"]);
    assert_eq!((list.code, list.stderr.as_str(), list.stdout.lines().count()), (Some(0), "", 1_000));
}

#[test]
fn their_tcp_server_knows_no_such_guest() {
    let daemon = ByTcp::start(guests(), "sha256", "sha256");
    let status = agent(&daemon, &["-o", "status", "-n", "nobody"]);
    assert_eq!((status.code, status.stdout.as_str()), OFF);
    for action in ["off", "on", "reboot"] {
        has_failed(&agent(&daemon, &["-o", action, "-n", "nobody"]), "'nobody'");
    }
}

#[test]
fn their_tcp_server_is_gone() {
    let mut daemon = ByTcp::start(guests(), "sha256", "sha256");
    daemon.process().stop(DEADLINE);
    for arguments in [&["-o", "monitor"][..], &["-o", "off", "-n", "vm2"]] {
        let finished = agent(&daemon, arguments);
        has_failed(&finished, "'127.0.0.1' took no request (nobody listens), so nothing was done: start the bridge");
        assert!(finished.elapsed.as_secs() < 4, "at once: {:?}", finished.elapsed);
    }
}

/// What theirs does with two ways, a name and a key that is none, and what ours says.
#[test]
fn what_fence_virt_takes_or_leaves_and_ours_refuses() {
    let daemon = ByTcp::start(guests(), "sha256", "sha256");
    // The last way that it knows of wins, without a word.
    assert_eq!(daemon.fence_virt(&["-D", "/dev/ttyS1", "-o", "monitor"]).code, Some(0));
    has_failed(&agent(&daemon, &["-D", "/dev/ttyS1", "-o", "monitor"]), "serial_device and ipaddr are two ways");
    // A name is no file, it says.
    let theirs = daemon.fence_virt(&["-T", "localhost", "-o", "monitor"]);
    assert!(theirs.code == Some(1) && theirs.stdout.contains("No such file or directory"), "{theirs:?}");
    has_failed(&agent(&daemon, &["-T", "localhost", "-o", "monitor"]), "ipaddr is 'localhost': give an IPv4 or IPv6");
    // It uses the first 4096 bytes, or prints its help.
    let long = daemon.channel().key_file().with_file_name("long");
    fs::write(&long, [7; 5_000]).expect("a key file");
    has_failed(&agent(&daemon, &["-k", long.to_str().unwrap_or_default(), "-o", "monitor"]), "it is too long");
    // Whoever sets that gets no answer, and no word why.
    let theirs = daemon.fence_virt(&["-c", "none", "-o", "monitor"]);
    assert_eq!(theirs.code, Some(1), "{theirs:?}");
    has_failed(&agent(&daemon, &["-c", "none", "-o", "monitor"]), "or none for both hash and auth");
}
