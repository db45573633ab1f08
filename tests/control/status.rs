//! `fencewired status`, and the real daemon that it asks.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use fencewire_tests::daemon::{Daemon, ask};
use fencewire_tests::guest_channel::{OFF, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::{Guest, State, uuid_of};
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewired::control::snapshot::Snapshot;
use rustix::process::Signal;
use serde_json::Value;

/// The channel of that guest.
#[track_caller]
fn channel<'a>(status: &'a Value, guest: &str) -> &'a Value {
    let channels = status["channels"].as_array().expect("channels");
    let its = channels.iter().find(|channel| channel["guest"]["bound"] == guest);
    its.unwrap_or_else(|| panic!("{guest} has no channel in {status:#}"))
}

#[test]
fn a_daemon_says_what_it_does_and_what_it_did() {
    let mut daemon = Daemon::setup().served(["vm1", "vm2"].map(Guest::new)).known([Guest::new("vm3")]).start();
    let (status, all) = daemon.status();
    assert!(all && status["all_served"] == true, "{status:#}");
    assert_eq!((&status["version"], &status["state"]), (&1.into(), &"serving".into()));
    assert_eq!(status["pid"], daemon.process().id());
    let hypervisor = &status["hypervisors"][0];
    assert_eq!((&hypervisor["state"], &hypervisor["guests"]), (&"answers".into(), &3.into()), "{hypervisor:#}");
    assert_eq!((&hypervisor["power"]["threads"], &hypervisor["power"]["busy"]), (&4.into(), &0.into()));
    let names: Vec<&Value> = status["guests"].as_array().expect("guests").iter().map(|guest| &guest["name"]).collect();
    assert!(names.len() == 3 && names.contains(&&"vm3".into()), "{names:?}");
    let vm1 = channel(&status, "vm1");
    for (field, value) in [
        ("transport", Value::from("unix")),
        ("state", "connected".into()),
        ("connections", 1.into()),
        // The bed has asked on each channel whether it is served.
        ("wire", "classic".into()),
        ("session", false.into()),
        ("served", true.into()),
    ] {
        assert_eq!(vm1[field], value, "{field}");
    }
    assert_eq!((&vm1["guest"]["name"], &vm1["guest"]["uuid"]), (&"vm1".into(), &uuid_of("vm1").into()));
    assert!(vm1["heard_ms_ago"].is_u64() && vm1["asked_ms_ago"].is_u64() && vm1["why"].is_null(), "{vm1:#}");
    assert!(status["lanes"] == Value::Array(vec![]) && status["fences"] == Value::Array(vec![]));

    assert_eq!(ask(&mut daemon.channel("vm1"), OFF, "vm2"), SUCCESS);
    let (status, _) = daemon.status();
    let fence = &status["fences"][0];
    for (field, value) in [
        ("requester", Value::from("vm1")),
        ("action", "off".into()),
        ("target", "vm2".into()),
        ("uuid", uuid_of("vm2").into()),
        ("outcome", "confirmed off".into()),
        ("repeated", false.into()),
    ] {
        assert_eq!(fence[field], value, "{field}");
    }
    assert!(fence["ms_ago"].is_u64() && fence["took_ms"].is_u64());
    assert_eq!(status["fences"].as_array().map(Vec::len), Some(1), "a status is none");

    let table = daemon.ask_status(&[]);
    for part in ["HYPERVISOR", "answers", "vm1 (", "connected", "classic", "LAST FENCES", "confirmed off"] {
        assert!(table.stdout.contains(part), "{part:?} is not in\n{}", table.stdout);
    }
    assert!(table.stderr.is_empty() && table.stdout.lines().last().is_some_and(|last| last.contains("served")));
}

/// What is documented is what the program reads itself: every field of it.
#[test]
fn a_document_has_every_field() {
    let daemon = Daemon::serve([Guest::new("vm1"), Guest::new("vm2")]);
    let (status, _) = daemon.status();
    serde_json::from_value::<Snapshot>(status).expect("a whole document");
}

/// The channel of a guest that is off need not be connected; one of a guest that is on, or not known, does.
#[test]
fn a_channel_that_is_not_there() {
    let lost = tempfile::tempdir().expect("a private folder");
    let at = |name: &str| lost.path().join(name);
    let setup = || Daemon::setup().served([Guest::new("vm1")]);
    let daemon =
        setup().known([Guest::new("off").state(State::Shutoff)]).channel("unix", &at("off.sock"), "off").start();
    let (status, all) = daemon.status();
    let off = channel(&status, "off");
    assert_eq!((&off["state"], &off["served"]), (&"not_connected".into(), &true.into()), "{off:#}");
    assert!(all && off["why"].as_str().is_some_and(|why| why.contains("No such file")), "{off:#}");

    let daemon = setup()
        .known([Guest::new("on")])
        .channel("unix", &at("on.sock"), "on")
        .channel("unix", &at("who.sock"), "who")
        .group("g", &["vm1", "on", "who"], "")
        .start();
    // One that has just gone off would be served: so the hypervisor is asked once more first.
    let (status, all) = wait_until(DEADLINE, "a hypervisor that was asked again", || {
        let (status, all) = daemon.status();
        (channel(&status, "on")["served"] == false).then_some((status, all))
    });
    for guest in ["on", "who"] {
        let its = channel(&status, guest);
        assert_eq!((&its["state"], &its["served"]), (&"not_connected".into(), &false.into()), "{its:#}");
    }
    assert!(!all && status["all_served"] == false);
    assert_eq!(channel(&status, "who")["guest"]["uuid"], Value::Null);
    let table = daemon.ask_status(&[]);
    assert_eq!(table.code, Some(1));
    assert!(table.stdout.contains("who (not known)") && table.stdout.contains("NOT all is served"), "{}", table.stdout);
    // It comes: all the same daemon.
    let listener = UnixListener::bind(at("on.sock")).expect("a socket");
    listener.accept().expect("the daemon calls");
    wait_until(DEADLINE, "the channel to be shown connected", || {
        (channel(&daemon.status().0, "on")["state"] == "connected").then_some(())
    });
}

#[test]
fn each_kind_of_channel() {
    let mut setup = Daemon::setup().served([Guest::new("vm1")]).known([Guest::new("vm2")]).tcp("everybody", "");
    let path = setup.folder().join("listens.sock");
    setup = setup.channel("unix-listen", &path, "vm2");
    let daemon = setup.start();
    daemon.wait_for_log("listens.sock");
    let (status, _) = daemon.status();
    let listens = channel(&status, "vm2");
    assert_eq!((&listens["transport"], &listens["state"]), (&"unix-listen".into(), &"listening".into()));
    assert_eq!(listens["served"], true);
    let channels = status["channels"].as_array().expect("channels");
    let tcp = channels.iter().find(|channel| channel["transport"] == "tcp").expect("a TCP port");
    assert_eq!((&tcp["guest"], &tcp["group"]), (&Value::Null, &"everybody".into()));
    assert_eq!((&tcp["state"], &tcp["served"]), (&"listening".into(), &true.into()));
    assert!(tcp["name"].as_str().is_some_and(|name| name.starts_with("tcp ")), "{tcp:#}");
}

#[test]
fn where_nobody_serves() {
    let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    assert_eq!(fs::metadata(daemon.control()).expect("a socket").permissions().mode() & 0o777, 0o660);
    daemon.stop();
    assert!(!daemon.control().exists(), "it takes its socket away");
    let expect = |says: &[&str]| {
        for options in [&[][..], &["--json"]] {
            let asked = daemon.ask_status(options);
            assert_eq!((asked.code, asked.stdout.as_str()), (Some(2), ""), "{}", asked.stderr);
            assert_eq!(asked.stderr.lines().count(), 1, "{}", asked.stderr);
            assert!(says.iter().all(|part| asked.stderr.contains(part)), "{says:?}: {}", asked.stderr);
        }
    };
    let shown = daemon.control().display().to_string();
    expect(&[&shown, "no fencewired serves there", "systemctl status fencewired"]);
    drop(UnixListener::bind(daemon.control()).expect("a socket that nobody serves"));
    expect(&[&shown, "no fencewired serves there"]);
    fs::remove_file(daemon.config()).expect("a file");
    expect(&["fencewired.toml", "cannot be read", "--config"]);
}

/// Somebody else's socket of that name, and what it says.
#[test]
fn who_answers_and_is_no_daemon() {
    let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    daemon.stop();
    for (answer, says) in [
        ("", "does not answer"),
        ("not json\n", "does not answer"),
        ("{\"version\":2}\n", "of another version"),
        ("{\"version\":1}\n", "of another version"),
        ("{\"version\":1,\"error\":\"no\\nway\"}\n", "says: no"),
    ] {
        drop(fs::remove_file(daemon.control()));
        let listener = UnixListener::bind(daemon.control()).expect("a socket");
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a caller");
            drop(std::io::Read::read(&mut stream, &mut [0; 64]));
            drop(std::io::Write::write_all(&mut stream, answer.as_bytes()));
        });
        let asked = daemon.ask_status(&["--json"]);
        answering.join().expect("it has answered");
        assert_eq!((asked.code, asked.stdout.as_str()), (Some(2), ""), "{answer}");
        assert!(asked.stderr.contains(says), "{answer}: {}", asked.stderr);
    }
}

/// A daemon that was killed leaves its socket; the next one takes its place.
#[test]
fn a_stale_socket_is_replaced() {
    let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    daemon.kill();
    assert!(daemon.control().exists());
    daemon.start_again();
    assert!(daemon.status().1);
}

/// Fencing does not depend on it: where the socket cannot be made, that is told, and all else is served.
#[test]
fn a_socket_that_cannot_be_made() {
    let first = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    let taken = first.control();
    let folder = tempfile::tempdir().expect("a private folder");
    let no_socket = folder.path().join("file");
    fs::write(&no_socket, "precious").expect("a file");
    for (path, says) in [
        (taken.clone(), "another fencewired serves there"),
        (folder.path().join("none/control.sock"), "make its folder"),
        (no_socket.clone(), "not a socket"),
    ] {
        let mut daemon = Daemon::setup().served(["vm1", "vm2"].map(Guest::new)).control(&path).start();
        let line = daemon.wait_for_log("no control socket");
        assert!(line.contains("WARN") && line.contains(says) && line.contains(&path.display().to_string()), "{line}");
        assert_eq!(ask(&mut daemon.channel("vm1"), OFF, "vm2"), SUCCESS);
        daemon.stop_and_read_records();
    }
    assert_eq!(fs::read_to_string(no_socket).expect("a file"), "precious");
    assert!(first.status().1, "and the first one's socket is its own still");
}

#[test]
fn a_reload_does_not_move_it() {
    let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    let text = fs::read_to_string(daemon.config()).expect("a file");
    let moved = text.replace("control.sock", "other.sock");
    fs::write(daemon.config(), moved).expect("a file");
    daemon.process().signal(Signal::HUP);
    let line = daemon.wait_for_log("restart fencewired for that");
    assert!(line.contains("control.socket"), "{line}");
    fs::write(daemon.config(), text).expect("a file");
    assert!(daemon.status().1);
}

/// A program that hangs lets nobody wait for ever.
#[test]
fn a_daemon_that_hangs() {
    let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    daemon.process().signal(Signal::STOP);
    let asked = daemon.ask_status(&[]);
    daemon.process().signal(Signal::CONT);
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(2), ""), "{}", asked.stderr);
    assert!(asked.stderr.contains("does not answer"), "{}", asked.stderr);
    assert_eq!(ask(&mut daemon.channel("vm1"), STATUS, "vm2"), SUCCESS);
}

#[test]
fn records_that_cannot_be_written() {
    let setup = Daemon::setup().served(["vm1", "vm2"].map(Guest::new));
    fs::create_dir(setup.folder().join("records.jsonl.d")).expect("a folder");
    // A link to nowhere below a file: no folder can be made there.
    fs::write(setup.folder().join("file"), "").expect("a file");
    std::os::unix::fs::symlink(setup.folder().join("file/x"), setup.folder().join("records.jsonl")).expect("a link");
    let daemon = setup.start();
    let (status, all) = daemon.status();
    assert_eq!((&status["records"]["written"], &status["records"]["required"]), (&false.into(), &false.into()));
    assert!(!all && daemon.ask_status(&[]).stdout.contains("records are NOT written: see records.path"));
}

/// By the socket's permissions, and by what the kernel says of the caller where somebody has changed those.
#[test]
fn who_may_ask() {
    use fencewire_tests::process::{ours, program, run};
    assert!(rustix::process::geteuid().is_root(), "this test needs root, to be somebody else");
    let daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    let folder = daemon.config().parent().expect("a folder").to_owned();
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("permissions");
    // Where everybody may run it.
    let ours_there = folder.join("fencewired");
    fs::copy(ours("fencewired"), &ours_there).expect("a copy");
    let status_of = |ids: &[&str]| {
        let mut command = std::process::Command::new(program("setpriv"));
        command.args(ids).arg(&ours_there).args(["status", "--json", "--config"]).arg(daemon.config());
        run(&mut command, DEADLINE)
    };
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let group = ["--reuid=65534", "--regid=0", "--clear-groups"];
    let supplementary = ["--reuid=65534", "--regid=65534", "--groups=7,0"];
    let refused = status_of(&nobody);
    assert_eq!(refused.code, Some(2), "{}", refused.stdout);
    assert!(refused.stderr.contains("this user may not ask"), "{}", refused.stderr);
    for ids in [group, supplementary] {
        assert_eq!(status_of(&ids).code, Some(0), "{ids:?}");
    }
    fs::set_permissions(daemon.control(), Permissions::from_mode(0o666)).expect("permissions");
    let refused = status_of(&nobody);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    assert!(refused.stderr.contains("user 65534 of group 65534 may not ask"), "{}", refused.stderr);
    let line = daemon.wait_for_log("somebody who may not");
    assert!(line.contains("65534"), "{line}");
    for ids in [group, supplementary] {
        assert_eq!(status_of(&ids).code, Some(0), "{ids:?}");
    }
}
