//! Our agent, as it is installed, over our own wire.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fencewire_tests::bridge_bed::BridgeBed;
use fencewire_tests::daemon::Daemon;
use fencewire_tests::guest_channel::GuestChannel;
use fencewire_tests::libvirt_file::{Guest, State};
use fencewire_tests::process::{DEADLINE, Finished, Process, ours, run, run_with_input};
use fencewire_tests::scripted::{Call, ScriptedHypervisor};
use fencewired::power::hypervisor::State as Power;
use serde_json::Value;

use crate::enrolled::Keyed;
use crate::second::{between, read};

/// Kilobytes that are resident at most, its own code included.
const RESIDENT: u32 = 64;

/// The agent on that socket.
fn asked(socket: &Path, lines: &str) -> Finished {
    let lines = format!("serial_device={}\n{lines}\n", socket.display());
    run_with_input(&mut Command::new(ours("fence_wire")), lines.as_bytes(), DEADLINE)
}

/// The agent on that socket, without a key.
fn agent(socket: &Path, lines: &str) -> Finished {
    asked(socket, &format!("wire=native\n{lines}"))
}

/// The agent before a channel that stays the test's; `carry` is called until it ends.
#[track_caller]
fn over(lines: &str, carry: impl FnMut(&Process, &mut UnixStream)) -> Finished {
    let start = |path: &Path| {
        let lines = format!("serial_device={}\nwire=native\n{lines}\n", path.display());
        Process::start_with_input(&mut Command::new(ours("fence_wire")), lines.as_bytes())
    };
    between(start, carry)
}

/// Carries what there is, both ways.
fn carry(channel: &mut GuestChannel, guest: &mut UnixStream) {
    if let Some(bytes) = read(guest) {
        channel.send(&bytes);
    }
    // It may have ended.
    let _ = guest.write_all(&channel.read_up_to(1 << 12, Duration::from_millis(2)));
}

/// The agent on that socket, with a key, which says which wire to speak.
fn keyed(socket: &Path, key: &Path, options: &[&str]) -> Finished {
    let mut command = Command::new(ours("fence_wire"));
    run(command.arg("-D").arg(socket).arg("-k").arg(key).args(options), DEADLINE)
}

#[track_caller]
fn failed(finished: &Finished, part: &str) {
    assert_eq!((finished.code, finished.stderr.matches('\n').count()), (Some(1), 1), "{finished:?}");
    assert!(finished.stderr.contains(part), "{}", finished.stderr);
}

#[test]
fn every_action_without_a_key() {
    let guests = [Guest::new("vm2"), Guest::new("stopped").state(State::Shutoff), Guest::new("stranger")];
    let members = ["vm1", "vm2", "stopped"];
    let setup = Daemon::setup().served([Guest::new("vm1")]).known(guests).wire("keyless = true");
    let mut daemon = setup.group("g", &members, "").start();
    let socket = daemon.socket_path("vm1");
    let code = |lines: &str| {
        let finished = agent(&socket, lines);
        assert_eq!(finished.stderr, "", "{lines}");
        (finished.code, finished.stdout)
    };
    let said = |code, text: &str| (Some(code), text.to_owned());
    assert_eq!(code("action=monitor"), said(0, ""));
    assert_eq!(code("action=status\nplug=vm2"), said(0, "Status: ON\n"));
    assert_eq!(code("action=status\nplug=stopped"), said(2, "Status: OFF\n"));
    assert_eq!(code("action=off\nplug=vm2"), said(0, ""));
    assert_eq!(code("action=status\nplug=vm2"), said(2, "Status: OFF\n"));
    assert_eq!(code(&format!("action=on\nplug={}", Guest::new("vm2").uuid_text())), said(0, ""));
    assert_eq!(code("plug=vm2"), said(0, ""), "reboot is what is done unless told otherwise");
    assert_eq!(code("action=status\nplug=vm2"), said(0, "Status: ON\n"));

    let (_, listed) = code("action=list-status");
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    let line = |name: &str, power: &str| format!("{name},{},{power}", Guest::new(name).uuid_text());
    assert_eq!(lines, [line("stopped", "off"), line("vm2", "on")]);

    for target in ["stranger", "vm1", "nobody-of-that-name"] {
        failed(&agent(&socket, &format!("action=off\nplug={target}")), "does not allow off");
    }
    let records = daemon.stop_and_read_records();
    let acts = records.iter().filter(|record| matches!(record["action"].as_str(), Some("off" | "on" | "reboot")));
    assert_eq!(acts.filter(|record| record["outcome"] != "denied").count(), 3);
}

#[test]
fn a_list_of_many_chunks() {
    let crowd: Vec<Guest> = (0..40).map(|number| Guest::new(&format!("guest-{number:057}"))).collect();
    let setup = Daemon::setup().served([Guest::new("vm1")]).known(crowd.clone()).wire("keyless = true");
    let mut daemon = setup.start();
    let finished = agent(&daemon.socket_path("vm1"), "action=list");
    let mut expected: Vec<String> =
        crowd.iter().map(|guest| format!("{},{}", guest.name(), guest.uuid_text())).collect();
    expected.sort_by_key(|line| line.split_once(',').map(|(_, uuid)| uuid.to_owned()));
    assert_eq!(finished.stdout.lines().collect::<Vec<_>>(), expected, "{}", finished.stderr);
}

/// The key file alone says which wire to speak.
#[test]
fn with_a_key_of_its_own() {
    let mut bed = Keyed::start(&["vm1", "vm2"], |setup| setup);
    let old = bed.enroll("vm1", "old.key");
    let key = bed.enroll("vm1", "vm1.key");
    let others = bed.enroll("vm2", "vm2.key");
    bed.reload();
    let socket = bed.daemon.socket_path("vm1");
    assert_eq!(keyed(&socket, &key, &["-o", "monitor"]).code, Some(0));
    assert_eq!(keyed(&socket, &key, &["-o", "off", "-n", "vm2"]).code, Some(0));
    assert_eq!(keyed(&socket, &key, &["-o", "status", "-n", "vm2"]).code, Some(2));
    for wrong in [&old, &others] {
        let finished = keyed(&socket, wrong, &["-o", "on", "-n", "vm2", "-t", "2"]);
        failed(&finished, "time was up");
    }
    let lines = format!("wire=classic\nkey_file={}\naction=on\nplug=vm2\ntimeout=1", key.display());
    failed(&asked(&socket, &lines), "time was up");
    assert_eq!(keyed(&socket, &key, &["-o", "status", "-n", "vm2"]).code, Some(2), "nobody has switched it on");
}

/// A key that cannot be used is an error, and no reason for another wire.
#[test]
fn a_broken_key_is_not_passed_over() {
    let folder = tempfile::tempdir().expect("a private folder");
    let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    let socket = daemon.socket_path("vm1");
    for (name, content) in
        [("cut", &b"fencewire-key-1\nb33f94f9"[..]), ("head", b"fencewire-key-1\n"), ("v2", b"fencewire-key-12\n")]
    {
        let key = folder.path().join(name);
        fs::write(&key, content).expect("a file");
        failed(&keyed(&socket, &key, &["-o", "off", "-n", "vm2"]), "not valid");
    }
    daemon.stop_and_expect_no_act();
}

/// Each reason has a sentence of its own.
#[test]
fn what_was_not_done_is_said_with_its_reason() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2"]);
    let bed = BridgeBed::setup(&hypervisor).wire("classic = true\nkeyless = true").channels(["vm1"]).start();
    let mut vm1 = bed.channel("vm1");
    let mut says = |action: &str, part: &str| {
        let finished = over(&format!("action={action}\nplug=vm2"), |_, guest| carry(&mut vm1, guest));
        failed(&finished, part);
    };
    hypervisor.change("vm2", |guest| guest.state = Power::OffMigrated);
    says("off", "did not confirm off for 'vm2': the guest is or was migrating, and may run elsewhere; read its log");
    hypervisor.change("vm2", |guest| guest.state = Power::NoState);
    says("status", "cannot tell the status of 'vm2'");
}

/// An "off" whose answers are lost, and a daemon that is killed when it has done it, with its journal or not. What the agent
/// says, and the records of each "off": what came of it, and whether it was a repetition.
fn daemon_killed(forgets: bool) -> (Finished, Vec<(String, bool)>) {
    let mut daemon = Daemon::setup().served(["vm1", "vm2"].map(Guest::new)).wire("keyless = true").start();
    let mut vm1 = daemon.channel("vm1");
    let (mut welcomed, mut killed) = (false, false);
    let finished = over("action=off\nplug=vm2", |_, guest| {
        if let Some(bytes) = read(guest) {
            let _ = vm1.try_send(&bytes);
        }
        let bytes = vm1.read_up_to(1 << 12, Duration::from_millis(2));
        // The first that comes is the welcome; what comes after it is lost.
        if killed || !welcomed {
            let _ = guest.write_all(&bytes);
        }
        welcomed |= !bytes.is_empty();
        if !killed && daemon.records().iter().any(|record| record["action"] == "off") {
            daemon.kill();
            if forgets {
                fs::remove_dir_all(daemon.journal()).expect("a journal that can be removed");
            }
            daemon.start_again();
            vm1.accept(DEADLINE);
            killed = true;
        }
    });
    assert!(killed, "the reply came before the record");
    let records = daemon.stop_and_read_records();
    let offs = records.iter().filter(|record| record["action"] == "off");
    let came = |record: &Value| record["outcome"].as_str().expect("an outcome").to_owned();
    (finished, offs.map(|record| (came(record), record["repeated"] == true)).collect())
}

/// Rule 3: it asks again with the same id, over whatever the channel leads to by then.
#[test]
fn the_daemon_is_killed_before_its_reply_arrives() {
    let (finished, offs) = daemon_killed(false);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let off = || "confirmed off".to_owned();
    assert_eq!(offs, [(off(), false), (off(), true)]);
}

/// Rule 3: whoever does not know what was asked before is not asked again, be it another host or one that has forgotten.
#[test]
fn a_daemon_without_its_journal_is_not_asked_again() {
    let (finished, offs) = daemon_killed(true);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("may have happened"), "{}", finished.stderr);
    assert_eq!(offs, [("confirmed off".to_owned(), false)]);
}

#[test]
fn memory_after_a_handshake() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2"]);
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    let bed = BridgeBed::setup(&hypervisor).wire("classic = true\nkeyless = true").channels(["vm1"]).start();
    let mut vm1 = bed.channel("vm1");
    let mut resident = None;
    let finished = over("action=off\nplug=vm2", |process, guest| {
        carry(&mut vm1, guest);
        if resident.is_none() && hypervisor.count(Call::Destroy, "vm2") == 1 {
            resident = Some(process.resident());
            gate.open();
        }
    });
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(resident.is_some_and(|resident| resident <= RESIDENT), "{resident:?} kB");
}
