//! Debian's `fence_virt -T` against our bridge: what it prints and how it exits is what it does against its own daemon,
//! wherever ours does not mean to differ. Where it does, in both directions:
//!
//! | `fence_virtd`'s TCP listener (`theirs_tcp` shows it) | ours |
//! |---|---|
//! | `auth` says with what requests are signed at least; `hash` says nothing; challenges are answered with SHA-256 whatever is set | each is what it is called: `a_bridge_takes_what_its_hash_and_auth_say` |
//! | SHA-1 is good enough where it is configured | never: `a_bridge_takes_what_its_hash_and_auth_say` |
//! | a key file that cannot be read: nobody has to prove anything | it does not start (`bad_input`) |
//! | a key file of 5000 bytes: its first 4096 are the key | it does not start (`bad_input`); of `fence_virt`'s own, likewise the first 4096: `keys_of_every_length` |
//! | a silent caller keeps others waiting for 0.9 s, one that has sent a recorded request for 9.9 s | at once: `ours_keeps_nobody_waiting` |
//! | a repeated packet: the connection is closed | the first one's answer: `ours_answers_a_repeated_packet` |
//! | a status of nobody: "Status: OFF", exit 2 | an error: `who_is_in_no_group_is_denied` |
//! | a reboot takes a second, and one guest's waits for another's | `bench` |

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use fencewire_tests::daemon::{Daemon, acts, ask};
use fencewire_tests::fence_virt::by_tcp;
use fencewire_tests::fence_virtd::tcp::ByTcp;
use fencewire_tests::guest_channel::{IS_OFF, MONITOR, OFF, ON, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::{Guest, State, uuid_of};
use fencewire_tests::process::{DEADLINE, Finished, program, run_with_input};
use fencewire_tests::tcp_channel::{KEY, TcpChannel};
use rustix::process::Signal;

/// Nobody is served in so short a time who has to wait for somebody else's second.
const AT_ONCE: Duration = Duration::from_millis(500);

fn guests() -> [Guest; 3] {
    [Guest::new("vm1"), Guest::new("vm2"), Guest::new("vm3").state(State::Shutoff)]
}

/// A daemon that serves these, with a TCP port for all of them.
fn usual() -> Daemon {
    Daemon::setup().known(guests()).tcp("everybody", "").start()
}

fn client(channel: &TcpChannel, arguments: &[&str]) -> Finished {
    by_tcp(channel.address(), channel.key_file(), arguments)
}

/// How it ended, without the time that it took.
fn said(finished: &Finished) -> (Option<i32>, &str, &str) {
    (finished.code, &finished.stdout, &finished.stderr)
}

/// Everything that their client asks of a server by which it is answered, and what it makes of that.
fn everything() -> Vec<(Vec<String>, (i32, &'static str))> {
    let uuid = uuid_of("vm2");
    let shouted = uuid.to_uppercase();
    let on = (0, "Status: ON\n");
    let off = (2, "Status: OFF\n");
    let done = (0, "");
    let failed = (1, "Operation failed\n");
    [
        (&["-o", "monitor"][..], done),
        (&["-o", "status", "-H", "vm2"], on),
        (&["-o", "status", "-H", "vm3"], off),
        (&["-o", "off", "-H", "vm2"], done),
        (&["-o", "status", "-H", "vm2"], off),
        (&["-o", "off", "-H", "vm2"], done),
        (&["-o", "on", "-H", "vm2"], done),
        (&["-o", "status", "-H", "vm2"], on),
        (&["-o", "on", "-H", "vm2"], done),
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
    ]
    .into_iter()
    .map(|(arguments, expected)| (arguments.iter().map(|&argument| argument.to_owned()).collect(), expected))
    .collect()
}

/// Says that their client sees no difference between the two, with these arguments besides.
#[track_caller]
fn sees_no_difference(theirs: &TcpChannel, ours: &TcpChannel, besides: &[&str]) {
    for (arguments, (code, stdout)) in everything() {
        let arguments: Vec<&str> = besides.iter().copied().chain(arguments.iter().map(String::as_str)).collect();
        let (theirs, ours) = (client(theirs, &arguments), client(ours, &arguments));
        assert_eq!((theirs.code, theirs.stdout.as_str()), (Some(code), stdout), "theirs: {arguments:?}");
        assert_eq!(said(&ours), said(&theirs), "ours, then theirs: {arguments:?}");
    }
    for action in ["list", "list-status"] {
        let arguments = [besides, &["-o", action]].concat();
        let (theirs, ours) = (client(theirs, &arguments), client(ours, &arguments));
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(lines(&ours.stdout), lines(&theirs.stdout), "{action}");
        assert_eq!(lines(&ours.stdout).len(), 3, "nobody knows who asks, so that all are on it");
        assert_eq!((ours.code, ours.stderr), (theirs.code, theirs.stderr), "{action}");
    }
}

#[test]
fn their_client_sees_no_difference_with_a_key() {
    let theirs = ByTcp::start(guests(), "sha256", "sha256");
    let ours = usual();
    sees_no_difference(theirs.channel(), ours.tcp(0), &[]);
}

#[test]
fn their_client_sees_no_difference_where_nobody_proves_anything() {
    let theirs = ByTcp::with_unreadable_key(guests(), "none", "none");
    let mut ours = Daemon::setup().known(guests()).tcp_for_anybody("everybody").start();
    // It wants a key file of its own even so.
    let own = ours.tcp(0).key_file().to_owned();
    let beside = |channel: &TcpChannel, arguments: &[&str]| by_tcp(channel.address(), &own, arguments);

    for (arguments, (code, stdout)) in everything() {
        let arguments: Vec<&str> =
            ["-c", "none", "-C", "none"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        let (theirs, ours) = (beside(theirs.channel(), &arguments), beside(ours.tcp(0), &arguments));
        assert_eq!((theirs.code, theirs.stdout.as_str()), (Some(code), stdout), "theirs: {arguments:?}");
        assert_eq!(said(&ours), said(&theirs), "ours, then theirs: {arguments:?}");
    }
    // Signed, with a key that nobody can check.
    for arguments in [&["-o", "off", "-H", "vm2"][..], &["-C", "none", "-o", "off", "-H", "vm2"]] {
        let (theirs, ours) = (beside(theirs.channel(), arguments), beside(ours.tcp(0), arguments));
        assert_eq!((theirs.code, ours.code), (Some(1), Some(1)), "{arguments:?}");
    }
    ours.wait_for_log("it signs, and this channel has no key to check that with");
    ours.wait_for_log("whoever can connect here may fence the whole group");
    assert_eq!(beside(ours.tcp(0), &["-c", "none", "-C", "none", "-o", "status", "-H", "vm2"]).stdout, "Status: ON\n");
    assert_eq!(ours.stop().code, Some(0));
}

/// Each of our two settings, and whatever their client can be told.
#[test]
fn a_bridge_takes_what_its_hash_and_auth_say() {
    const HASHES: [&str; 2] = ["sha256", "sha512"];
    let strength = |hash: &str| ["none", "sha1", "sha256", "sha512"].iter().position(|name| *name == hash);
    let setup = Daemon::setup().known(guests());
    let settings: Vec<(&str, &str)> = HASHES.iter().flat_map(|hash| HASHES.map(|auth| (*hash, auth))).collect();
    let mut daemon = settings
        .iter()
        .fold(setup, |setup, (hash, auth)| setup.tcp("everybody", &format!("hash = \"{hash}\"\nauth = \"{auth}\"")))
        .start();

    for (number, (hash, auth)) in settings.iter().enumerate() {
        for signed in ["none", "sha1", "sha256", "sha512"] {
            // Without a proof of its own their client waits for a reply until the bridge closes, 5 s later: once is enough.
            for proved in ["sha1", "sha256", "sha512"] {
                let good = strength(signed) >= strength(hash) && proved == *auth;
                let finished = client(daemon.tcp(number), &["-c", signed, "-C", proved, "-o", "status", "-H", "vm3"]);
                let expected = if good { Some(2) } else { Some(1) };
                assert_eq!(finished.code, expected, "{hash} {auth}, -c {signed} -C {proved}: {}", finished.stdout);
                assert!(good || finished.stdout.ends_with("Operation failed\n"), "{}", finished.stdout);
            }
        }
    }
    let finished = client(daemon.tcp(0), &["-C", "none", "-o", "off", "-H", "vm2"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), "Operation failed\n"));
    assert!(finished.elapsed < Duration::from_secs(10), "theirs takes ten seconds: {:?}", finished.elapsed);

    for why in [
        "it signs nothing: give its agent the key file, and -c sha256",
        "it signs with SHA-1, which can be forged",
        "it signs with a weaker hash than channel.hash",
        "a caller went away before its proof",
    ] {
        let line = daemon.wait_for_log(why);
        assert!(line.contains("channel=\"tcp 127.0.0.1:") && line.contains("from=127.0.0.1"), "{line}");
    }
    daemon.stop_and_expect_no_act();
}

/// A file with that key, which belongs to nobody's bed.
fn key_file(folder: &std::path::Path, name: &str, key: &[u8]) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, key).expect("a key file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("permissions");
    file
}

#[test]
fn another_key_is_no_key() {
    let folder = tempfile::tempdir().expect("a private folder");
    let mut last_bit = KEY;
    last_bit[255] ^= 1;
    let others: [(&str, &[u8]); 5] = [
        ("another", b"another key"),
        ("one bit", &last_bit),
        ("less", &KEY[..255]),
        ("more", &[&KEY[..], b"\n"].concat()),
        ("nothing", b""),
    ];
    let mut daemon = usual();

    for (name, key) in others {
        let file = key_file(folder.path(), name, key);
        let finished = by_tcp(daemon.tcp(0).address(), &file, &["-o", "off", "-H", "vm2"]);
        assert_eq!(finished.code, Some(1), "{name}: {}", finished.stdout);
    }

    daemon.wait_for_log("it has another key");
    assert_eq!(daemon.tcp(0).ask(STATUS, "vm2"), SUCCESS, "still on, and the right key is still served");
    daemon.stop_and_expect_no_act();
}

#[test]
fn keys_of_every_length() {
    let long: Vec<u8> = KEY.repeat(20);
    let keys: [&[u8]; 6] = [&long[..1], &long[..63], &long[..64], &long[..65], &long[..4095], &long[..4096]];
    let setup = Daemon::setup().known(guests());
    let daemon = keys.iter().fold(setup, |setup, key| setup.tcp_with_key("everybody", key, "")).start();
    let folder = tempfile::tempdir().expect("a private folder");

    for (number, key) in keys.iter().enumerate() {
        let finished = client(daemon.tcp(number), &["-o", "status", "-H", "vm3"]);
        assert_eq!(finished.code, Some(2), "a key of {} bytes: {}", key.len(), finished.stdout);
    }
    // What is beyond 4096 bytes is nothing to their client.
    let more = key_file(folder.path(), "5000", &long[..5000]);
    let finished = by_tcp(daemon.tcp(5).address(), &more, &["-o", "status", "-H", "vm3"]);
    assert_eq!(finished.code, Some(2), "{}", finished.stdout);
}

#[test]
fn who_is_in_no_group_is_denied() {
    let guests = guests().into_iter().chain([Guest::new("stranger")]);
    let mut daemon = Daemon::setup()
        .known(guests)
        .served([Guest::new("witness")])
        .group("cluster", &["vm1", "vm2", "to-come"], "actions = [\"reboot\", \"status\"]")
        .group("others", &["witness", "stranger", "vm2"], "")
        .tcp("cluster", "")
        .start();
    let mut witness = daemon.channel("witness");
    let uuid = uuid_of("stranger");

    for (arguments, expected) in [
        (["-o", "off", "-H", "stranger"], (Some(3), "Permission denied\n")),
        (["-o", "reboot", "-H", "stranger"], (Some(3), "Permission denied\n")),
        (["-o", "status", "-H", "stranger"], (Some(3), "Permission denied\n")),
        (["-o", "off", "-H", &uuid], (Some(3), "Permission denied\n")),
        (["-o", "off", "-H", "vm2"], (Some(3), "Permission denied\n")),
        (["-o", "on", "-H", "vm3"], (Some(3), "Permission denied\n")),
        (["-o", "status", "-H", "nobody"], (Some(3), "Permission denied\n")),
        (["-o", "status", "-H", "to-come"], (Some(1), "Operation failed\n")),
        (["-o", "reboot", "-H", "to-come"], (Some(1), "Operation failed\n")),
    ] {
        let finished = client(daemon.tcp(0), &arguments);
        assert_eq!((finished.code, finished.stdout.as_str()), expected, "{arguments:?}");
    }

    for guest in ["stranger", "vm2"] {
        assert_eq!(ask(&mut witness, STATUS, guest), SUCCESS, "{guest} is on");
    }
    daemon.stop_and_expect_no_act();
}

#[test]
fn a_fence_by_tcp_is_seen_by_others_and_recorded() {
    let setup = Daemon::setup().known(guests()).served([Guest::new("witness")]);
    let mut daemon = setup.tcp("everybody", "").start();
    let mut witness = daemon.channel("witness");

    assert_eq!(client(daemon.tcp(0), &["-o", "off", "-H", "vm2"]).code, Some(0));
    assert_eq!(ask(&mut witness, STATUS, "vm2"), IS_OFF);
    assert_eq!(client(daemon.tcp(0), &["-o", "reboot", "-H", "vm3"]).code, Some(0));
    assert_eq!(ask(&mut witness, STATUS, "vm3"), SUCCESS, "what was off is on after a reboot: ours only");

    let name = daemon.tcp(0).name();
    let records = daemon.stop_and_read_records();
    let told: Vec<_> = acts(&records)
        .iter()
        .map(|record| ["channel", "requester", "action", "target", "outcome"].map(|key| &record[key]))
        .collect();
    let holder = "holder of its key at 127.0.0.1";
    assert_eq!(
        told,
        [
            [&name, holder, "off", "vm2", "confirmed off"],
            [&name, holder, "reboot", "vm3", "confirmed off, then started"],
        ]
    );
}

/// As Pacemaker calls it.
#[test]
fn their_client_is_told_on_standard_input_to_call_by_tcp() {
    let daemon = usual();
    let channel = daemon.tcp(0);
    let call = |lines: &str| {
        let (ip, port, key_file) = (channel.address().ip(), channel.address().port(), channel.key_file().display());
        let input = format!("nodename=node2\nipaddr={ip}\nipport={port}\nkey_file={key_file}\n{lines}\n");
        run_with_input(&mut Command::new(program("fence_virt")), input.as_bytes(), DEADLINE)
    };

    for (lines, expected, vm2) in [
        ("action=monitor", 0, SUCCESS),
        ("action=off\nport=vm2", 0, IS_OFF),
        ("port=vm2\naction=status", 2, IS_OFF),
        ("port=vm2\naction=on\nhash=sha512", 0, SUCCESS),
        ("port=vm2\naction=off\nauth=sha512", 1, SUCCESS),
        ("port=nobody\naction=off", 3, SUCCESS),
    ] {
        let finished = call(lines);
        assert_eq!(finished.code, Some(expected), "{lines:?}: {}", finished.stdout);
        assert_eq!(channel.ask(STATUS, "vm2"), vm2, "after {lines:?}");
    }
}

#[test]
fn their_client_goes_on_when_the_bridge_was_killed_and_started_again() {
    let mut daemon = usual();
    assert_eq!(client(daemon.tcp(0), &["-o", "off", "-H", "vm2"]).code, Some(0));

    daemon.kill();
    assert_eq!(client(daemon.tcp(0), &["-o", "status", "-H", "vm3"]).code, Some(1), "nobody listens");
    daemon.start_again();

    let status = client(daemon.tcp(0), &["-o", "status", "-H", "vm3"]);
    assert_eq!((status.code, status.stdout.as_str()), (Some(2), "Status: OFF\n"));
}

/// Other keys on one host: each opens its own group.
#[test]
fn several_ports_each_with_a_key_and_a_group() {
    let mut daemon = Daemon::setup()
        .known(guests())
        .group("one", &["vm1", "vm2"], "")
        .group("two", &["vm2", "vm3"], "")
        .tcp_with_key("one", b"one's", "")
        .tcp_with_key("two", b"two's", "")
        .start();
    let call = |port: usize, key: usize, arguments: &[&str]| {
        by_tcp(daemon.tcp(port).address(), daemon.tcp(key).key_file(), arguments).code
    };

    assert_eq!(
        (call(0, 0, &["-o", "status", "-H", "vm1"]), call(1, 1, &["-o", "status", "-H", "vm3"])),
        (Some(0), Some(2))
    );
    assert_eq!((call(0, 0, &["-o", "on", "-H", "vm3"]), call(1, 1, &["-o", "off", "-H", "vm1"])), (Some(3), Some(3)));
    for (port, key) in [(0, 1), (1, 0)] {
        assert_eq!(call(port, key, &["-o", "off", "-H", "vm2"]), Some(1), "the other's key");
    }
    daemon.stop_and_expect_no_act();
}

/// Theirs: 0.9 s for each silent caller, 9.9 s for each that has sent a recorded request.
#[test]
fn ours_keeps_nobody_waiting() {
    let daemon = usual();
    let channel = daemon.tcp(0);
    let _silent: Vec<_> = (0..10).map(|_| channel.call()).collect();
    let mut recordings: Vec<_> = (0..10).map(|_| channel.call()).collect();
    for recording in &mut recordings {
        recording.send(&channel.terms.packet(MONITOR, ""));
    }

    let begun = Instant::now();
    assert_eq!(channel.ask(STATUS, "vm2"), SUCCESS);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

/// Theirs: the connection is closed without a word.
#[test]
fn ours_answers_a_repeated_packet() {
    let mut daemon = usual();
    let off = daemon.tcp(0).terms.packet(OFF, "vm2");
    assert_eq!(daemon.tcp(0).call().ask(&off), SUCCESS);
    assert_eq!(daemon.tcp(0).ask(ON, "vm2"), SUCCESS);

    assert_eq!(daemon.tcp(0).call().ask(&off), SUCCESS);

    assert_eq!(daemon.tcp(0).ask(STATUS, "vm2"), SUCCESS, "on: the repeat was answered and not carried out");
    let records = daemon.stop_and_read_records();
    let repeated: Vec<_> =
        records.iter().filter(|record| record["action"] == "off").map(|record| record["repeated"] == true).collect();
    assert_eq!(repeated, [false, true]);
}

/// SIGHUP after the key file was changed: the old key opens nothing any more, the new one does, and whoever is connected by
/// another channel notices nothing.
#[test]
fn a_reload_takes_the_key_file_as_it_is_then() {
    let setup = Daemon::setup().known(guests()).served([Guest::new("witness")]);
    let mut daemon = setup.tcp("everybody", "").tcp_with_key("everybody", b"another", "").start();
    let mut witness = daemon.channel("witness");
    let folder = tempfile::tempdir().expect("a private folder");
    let old = key_file(folder.path(), "old", &KEY);
    let (changed, other) = (daemon.tcp(0).clone(), daemon.tcp(1).clone());
    let status = ["-o", "status", "-H", "vm3"];
    // Waits for somebody at the other port while the reload happens.
    let mut in_between = other.call();
    let challenge = in_between.challenged(&other.terms.packet(STATUS, "vm3"));

    changed.write_key(b"the new one");
    assert_eq!(by_tcp(changed.address(), &old, &status).code, Some(2), "not before it is told to");
    daemon.process().signal(Signal::HUP);
    daemon.wait_for_log("reloaded gone=1 new=1");

    assert_eq!(by_tcp(changed.address(), &old, &["-o", "off", "-H", "vm2"]).code, Some(1), "the old key");
    assert_eq!(by_tcp(changed.address(), changed.key_file(), &status).code, Some(2), "the new key");
    in_between.send(&other.terms.proof(&challenge));
    assert_eq!(in_between.reply(), IS_OFF, "the other port's caller");
    assert_eq!(ask(&mut witness, STATUS, "vm3"), IS_OFF, "the witness, on its old connection");
    daemon.stop_and_expect_no_act();
}

/// A bad key file changes nothing; a reload says so by line.
#[test]
fn a_reload_with_a_bad_key_file_keeps_the_old_key() {
    let mut daemon = usual();
    let channel = daemon.tcp(0).clone();
    fs::write(channel.key_file(), "").expect("a key file");

    daemon.process().signal(Signal::HUP);
    daemon.wait_for_log("not reloaded: the configuration stays as it was");
    daemon.wait_for_log("is empty: fill it with random bytes");

    assert_eq!(channel.ask(STATUS, "vm3"), IS_OFF, "with the old key");
    daemon.stop_and_expect_no_act();
}
