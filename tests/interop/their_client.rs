//! Debian's `fence_virt` against our bridge: what it prints and how it exits is what it does against its own daemon,
//! wherever ours does not mean to differ.

use std::collections::BTreeSet;
use std::process::Command;

use fencewire_tests::daemon::{Daemon, Setup, acts, ask};
use fencewire_tests::fence_virt::FenceVirt;
use fencewire_tests::fence_virtd::FenceVirtd;
use fencewire_tests::guest_channel::{IS_OFF, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::{Guest, State, uuid_of};
use fencewire_tests::process::{DEADLINE, Finished, program, run_with_input};
use tempfile::TempDir;

/// `fence_virt` in vm1, and our daemon that it reaches by vm1's serial port.
struct Pair {
    daemon: Daemon,
    client: FenceVirt,
    _folder: TempDir,
}

impl Pair {
    /// vm1's port is added to what `setup` has; vm1 itself must be there.
    fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().expect("a private folder");
        let client = FenceVirt::new(folder.path());
        let daemon = setup.channel("unix", client.socket_path(), "vm1").start();
        daemon.wait_connected(client.socket_path(), 1);
        Self { daemon, client, _folder: folder }
    }

    /// vm1 has the client; vm2, which is on, vm3, which is off, and the witness are in its group.
    fn usual() -> Self {
        let witness = [Guest::new("witness")];
        Self::start(Daemon::setup().known(guests()).served(witness))
    }
}

fn guests() -> [Guest; 3] {
    [Guest::new("vm1"), Guest::new("vm2"), Guest::new("vm3").state(State::Shutoff)]
}

/// How it ended, without the time that it took.
fn said(finished: &Finished) -> (Option<i32>, &str, &str) {
    (finished.code, &finished.stdout, &finished.stderr)
}

#[test]
fn their_client_sees_no_difference() {
    let theirs = FenceVirtd::start(guests());
    let mut beside = FenceVirt::over(theirs.stream("vm1"));
    let mut ours = Pair::start(Daemon::setup().known(guests()));
    let uuid = uuid_of("vm2");
    let shouted = uuid.to_uppercase();
    let on = (Some(0), "Status: ON\n");
    let off = (Some(2), "Status: OFF\n");
    let done = (Some(0), "");
    let failed = (Some(1), "Operation failed\n");

    for (arguments, expected) in [
        (&["-o", "monitor"][..], done),
        (&["-o", "status", "-H", "vm2"], on),
        (&["-o", "status", "-H", "vm3"], off),
        (&["-o", "off", "-H", "vm2"], done),
        (&["-o", "status", "-H", "vm2"], off),
        (&["-o", "off", "-H", "vm2"], done),
        (&["-o", "status", "-H", "vm2"], off),
        (&["-o", "on", "-H", "vm2"], done),
        (&["-o", "status", "-H", "vm2"], on),
        (&["-o", "on", "-H", "vm2"], done),
        (&["-o", "status", "-H", "vm2"], on),
        (&["-o", "reboot", "-H", "vm2"], done),
        (&["-o", "status", "-H", "vm2"], on),
        (&["-n", "vm2"], done),
        (&["-o", "status", "-n", "vm2"], on),
        (&["-o", "status", "-H", &uuid], on),
        (&["-o", "off", "-H", &uuid], done),
        (&["-o", "status", "-H", &shouted], off),
        (&["-o", "on", "-H", &shouted], done),
        (&["-o", "status", "-H", &uuid], on),
        (&["-o", "reboot", "-H", &uuid], done),
        (&["-o", "status", "-H", &uuid], on),
        (&["-o", "null", "-H", "vm2"], failed),
    ] {
        let (theirs, ours) = (beside.run(arguments), ours.client.run(arguments));
        assert_eq!((theirs.code, theirs.stdout.as_str()), expected, "theirs: {arguments:?}");
        assert_eq!(said(&ours), said(&theirs), "ours, then theirs: {arguments:?}");
    }
}

#[test]
fn their_client_lists_whom_it_may_fence() {
    let theirs = FenceVirtd::start(guests());
    let mut beside = FenceVirt::over(theirs.stream("vm1"));
    let mut ours = Pair::start(Daemon::setup().known(guests()).known([Guest::new("stranger")]).group(
        "cluster",
        &["vm1", "vm2", "vm3"],
        "",
    ));

    for action in ["list", "list-status"] {
        let (theirs, ours) = (beside.run(&["-o", action]), ours.client.run(&["-o", action]));

        let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let mut without_itself = lines(&theirs.stdout);
        without_itself.retain(|line| !line.starts_with("vm1 "));
        assert_eq!(lines(&ours.stdout), without_itself, "{action}");
        assert_eq!((ours.code, ours.stderr), (theirs.code, theirs.stderr), "{action}");
    }
}

#[test]
fn their_client_is_denied_what_no_group_has() {
    let guests = guests().into_iter().chain([Guest::new("stranger")]);
    let mut pair = Pair::start(
        Daemon::setup()
            .known(guests)
            .served([Guest::new("witness")])
            .group("cluster", &["vm1", "vm2"], "actions = [\"reboot\", \"status\"]")
            .group("others", &["witness", "stranger", "vm2"], ""),
    );
    let mut witness = pair.daemon.channel("witness");
    let uuid = uuid_of("stranger");

    for arguments in [
        ["-o", "off", "-H", "stranger"],
        ["-o", "reboot", "-H", "stranger"],
        ["-o", "status", "-H", "stranger"],
        ["-o", "off", "-H", &uuid],
        ["-o", "off", "-H", "vm1"],
        ["-o", "off", "-H", "vm2"],
    ] {
        let finished = pair.client.run(&arguments);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(3), "Permission denied\n"), "{arguments:?}");
    }

    for guest in ["stranger", "vm2"] {
        assert_eq!(ask(&mut witness, STATUS, guest), SUCCESS, "{guest} is on");
    }
    pair.daemon.stop_and_expect_no_act();
}

#[test]
fn their_clients_fence_is_seen_by_others_and_recorded() {
    let mut pair = Pair::usual();
    let mut witness = pair.daemon.channel("witness");

    assert_eq!(pair.client.run(&["-o", "off", "-H", "vm2"]).code, Some(0));
    assert_eq!(ask(&mut witness, STATUS, "vm2"), IS_OFF);
    assert_eq!(pair.client.run(&["-o", "reboot", "-H", "vm3"]).code, Some(0));
    assert_eq!(ask(&mut witness, STATUS, "vm3"), SUCCESS, "what was off is on after a reboot: ours only");

    let records = pair.daemon.stop_and_read_records();
    let told: Vec<_> = acts(&records)
        .iter()
        .map(|record| ["requester", "action", "target", "uuid", "outcome"].map(|key| &record[key]))
        .collect();
    assert_eq!(
        told,
        [
            ["vm1", "off", "vm2", &uuid_of("vm2"), "confirmed off"],
            ["vm1", "reboot", "vm3", &uuid_of("vm3"), "confirmed off, then started"],
        ]
    );
}

/// As Pacemaker calls it.
#[test]
fn their_client_is_told_what_to_do_on_standard_input() {
    let mut pair = Pair::usual();
    let mut witness = pair.daemon.channel("witness");
    let device = pair.client.device().display().to_string();
    let call = |lines: &str| {
        let input = format!("nodename=node2\nserial_device={device}\n{lines}\n");
        run_with_input(&mut Command::new(program("fence_virt")), input.as_bytes(), DEADLINE)
    };

    assert_eq!(call("action=off\nport=vm2").code, Some(0));
    assert_eq!(ask(&mut witness, STATUS, "vm2"), IS_OFF);
    assert_eq!(call("port=vm2\naction=status").code, Some(2));
    assert_eq!(call("port=vm2\naction=on").code, Some(0));
    assert_eq!(ask(&mut witness, STATUS, "vm2"), SUCCESS);
    assert_eq!(call("action=monitor").code, Some(0));
    assert_eq!(call("action=off\nport=nobody").code, Some(3));
}

/// What ours does on purpose where theirs does something else; see `ours` for the rest.
#[test]
fn their_client_gets_an_error_for_a_guest_that_nobody_knows() {
    let mut pair = Pair::start(Daemon::setup().known(guests()).group("cluster", &["vm1", "vm2", "to-come"], ""));

    for (guest, expected) in
        [("to-come", (Some(1), "Operation failed\n")), ("nobody", (Some(3), "Permission denied\n"))]
    {
        for action in ["status", "off", "reboot", "on"] {
            let finished = pair.client.run(&["-o", action, "-H", guest]);
            assert_eq!((finished.code, finished.stdout.as_str()), expected, "{action} {guest}");
        }
    }

    pair.daemon.stop_and_expect_no_act();
}

#[test]
fn their_client_goes_on_when_the_bridge_was_restarted() {
    let mut pair = Pair::usual();
    assert_eq!(pair.client.run(&["-o", "off", "-H", "vm2"]).code, Some(0));

    assert_eq!(pair.daemon.stop().code, Some(0));
    pair.daemon.start_again();
    pair.daemon.wait_connected(pair.client.socket_path(), 1);

    let status = pair.client.run(&["-o", "status", "-H", "vm3"]);
    assert_eq!((status.code, status.stdout.as_str()), (Some(2), "Status: OFF\n"));
}
