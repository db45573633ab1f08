//! Configurations that are wrong. Each is refused as a whole, by `check` and by serving alike, with the file and the line
//! and what to do; what may come right by itself is a warning, and the rest is served.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use fencewire_tests::daemon::{Daemon, ask, settle};
use fencewire_tests::guest_channel::{DENIED, FAILED, GuestChannel, MONITOR, OFF, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::{DEADLINE, Finished, ours, run};
use rustix::process::Signal;
use tempfile::TempDir;

/// `GUEST` is the one that `test:///default` has. `FOLDER` becomes the test's own.
const RIGHT: &str = r#"[[hypervisor]]
uri = "test:///default"
[wire]
classic = true
[[channel]]
kind = "unix"
path = "FOLDER/guest.sock"
guest = "test"
[[group]]
name = "cluster"
members = ["test", "6695eb01-f6a4-8304-79aa-97f2502e193e"]
[records]
path = "FOLDER/records.jsonl"
[control]
journal = "FOLDER/journal"
state = "FOLDER/state"
socket = "FOLDER/control.sock"
"#;

/// What there is to say even of that.
const UNKNOWN: &str = ": warning: the hypervisor knows no guest \"6695eb01-f6a4-8304-79aa-97f2502e193e\"; it is served";

/// A configuration file in a folder of its own, with a socket at `guest.sock`.
struct File {
    folder: TempDir,
    path: PathBuf,
    _listener: UnixListener,
}

impl File {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().expect("a private folder");
        let listener = UnixListener::bind(folder.path().join("guest.sock")).expect("a socket");
        let file = Self { path: folder.path().join("fencewired.toml"), folder, _listener: listener };
        fs::write(&file.path, content).expect("a configuration file");
        file
    }

    /// [`RIGHT`] with one part replaced.
    fn with(part: &str, by: &str) -> Self {
        assert!(RIGHT.contains(part), "{part}");
        let file = Self::new("");
        let text = RIGHT.replacen(part, by, 1).replace("FOLDER", &file.folder.path().display().to_string());
        fs::write(&file.path, text).expect("a configuration file");
        file
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn check(&self) -> Finished {
        check(&self.path)
    }

    /// What `check` says must be these lines and no other: `:LINE: error: …`, of which the beginning is enough.
    #[track_caller]
    fn says(&self, lines: &[&str]) -> Finished {
        let checked = self.check();
        let said = format!("{}{}", checked.stdout, checked.stderr);
        let said: Vec<_> = said.lines().filter(|line| !line.contains(": can be served (")).collect();
        let file = self.path.display().to_string();
        let folder = self.folder.path().display().to_string();
        let expected: Vec<_> = lines.iter().map(|line| format!("{file}{}", line.replace("FOLDER", &folder))).collect();
        let same =
            said.len() == expected.len() && said.iter().zip(&expected).all(|(said, line)| said.starts_with(line));
        assert!(same, "said\n{}\nand not\n{}", said.join("\n"), expected.join("\n"));
        checked
    }

    /// It is refused for these reasons, and by nobody served.
    #[track_caller]
    fn is_refused(&self, lines: &[&str]) {
        let checked = self.says(lines);
        assert_eq!((checked.code, checked.stdout.as_str()), (Some(1), ""), "check");
        let served = serve(&self.path);
        assert_eq!((served.code, served.stdout.as_str()), (Some(1), ""), "serve");
        assert_eq!(served.stderr, checked.stderr, "serving says what check says");
        for made in ["records.jsonl", "journal"] {
            assert!(!self.at(made).exists(), "{made} was made for a configuration that is refused");
        }
    }
}

fn check(file: &Path) -> Finished {
    run(Command::new(ours("fencewired")).arg("check").arg("--config").arg(file), DEADLINE)
}

/// Of a configuration that cannot be served: with one that can, this does not end.
fn serve(file: &Path) -> Finished {
    run(Command::new(ours("fencewired")).arg("--config").arg(file), DEADLINE)
}

#[test]
fn the_one_that_all_others_are_made_of_is_right() {
    let file = File::with("classic", "classic");
    let checked = file.says(&[UNKNOWN]);
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    assert!(checked.stdout.contains(": can be served ("), "{}", checked.stdout);
}

#[test]
fn an_unknown_key() {
    for (part, by, says) in [
        ("[wire]\n", "[wire]\nclasic = true\n", ":4: error: unknown field `clasic`, expected one of `classic`"),
        ("[records]\n", "[record]\n", ":12: error: unknown field `record`, expected one of `hypervisor`"),
        ("kind = ", "sort = \"x\"\nkind = ", ":6: error: unknown field `sort`"),
        ("name = ", "nmae = \"x\"\nname = ", ":10: error: unknown field `nmae`"),
        ("uri = ", "url = \"x\"\nuri = ", ":2: error: unknown field `url`"),
        ("[[hypervisor]]", "classic = true\n[[hypervisor]]", ":1: error: unknown field `classic`"),
    ] {
        File::with(part, by).is_refused(&[says]);
    }
}

#[test]
fn a_missing_key() {
    for (part, says) in [
        ("kind = \"unix\"\n", ":5: error: missing field `kind`"),
        ("path = \"FOLDER/guest.sock\"\n", ":5: error: channel of kind \"unix\" without a path: say where it is"),
        ("guest = \"test\"\n", ":5: error: channel without a guest: say who is at its other end"),
        ("name = \"cluster\"\n", ":9: error: missing field `name`"),
        ("members = [\"test\", \"6695eb01-f6a4-8304-79aa-97f2502e193e\"]\n", ":9: error: missing field `members`"),
        ("uri = \"test:///default\"\n", ":1: error: missing field `uri`"),
    ] {
        File::with(part, "").is_refused(&[says]);
    }
}

/// What is wrong is quoted: TOML's own words name no key.
#[test]
fn a_value_of_the_wrong_type() {
    for (part, by, says) in [
        ("classic = true", "classic = \"yes\"", ":4: error: invalid type: string \"yes\", expected a boolean"),
        ("classic = true", "classic = 1", ":4: error: invalid type: integer `1`, expected a boolean"),
        ("guest = \"test\"", "guest = 7", ":8: error: invalid type: integer `7`, expected a string"),
        ("[[hypervisor]]", "[hypervisor]", ":1: error: invalid type: map, expected a sequence"),
        ("members = [", "budget_per_minute = \"all\"\nmembers = [", ":11: error: invalid type: string \"all\""),
        ("members = [\"test\", ", "members = [1, ", ":11: error: invalid type: integer `1`, expected a string"),
        ("[wire]", "[[wire]]", ":3: error: invalid type: "),
    ] {
        let file = File::with(part, by);
        file.is_refused(&[says]);
        let said = file.check().stderr;
        let quoted = by.lines().next().unwrap_or_default();
        assert!(said.contains(quoted), "{quoted:?} is quoted in {said}");
    }
}

#[test]
fn a_value_out_of_bounds() {
    for (part, by, says) in [
        ("[wire]", "workers = 0\n[wire]", ":3: error: hypervisor.workers = 0: must be 1 to 16"),
        ("[wire]", "workers = 17\n[wire]", ":3: error: hypervisor.workers = 17: must be 1 to 16"),
        ("[wire]", "deadline_ms = 0\n[wire]", ":3: error: hypervisor.deadline_ms = 0: must be 100 to 600000"),
        ("classic = true", "classic = true\nclassic_timeout_s = -1", ":5: error: wire.classic_timeout_s = -1: must be"),
        ("members", "budget_per_minute = 0\nmembers", ":11: error: group.budget_per_minute = 0: must be 1 to 100000"),
        ("uri = \"test:///default\"", "uri = \"\"", ":2: error: hypervisor.uri = \"\": not a libvirt URI"),
    ] {
        File::with(part, by).is_refused(&[says]);
    }
}

#[test]
fn what_is_no_toml() {
    for (part, by, says) in [
        ("[wire]", "[wire", ":3: error: "),
        ("classic = true", "classic", ":4: error: "),
        ("[wire]", "[wire]\nclassic = true", ":5: error: duplicate key"),
        ("\"cluster\"", "\"cluster", ":10: error: "),
    ] {
        File::with(part, by).is_refused(&[says]);
    }
}

#[test]
fn a_group_twice() {
    let second = "[[group]]\nname = \"cluster\"\nmembers = [\"a\", \"b\"]\n[records]";
    File::with("[records]", second)
        .is_refused(&[":13: error: group.name = \"cluster\": line 10 has a group of this name already"]);
}

#[test]
fn a_member_twice() {
    File::with("\"test\", ", "\"test\", \"test\", ")
        .is_refused(&[":11: error: group \"cluster\" names \"test\" twice"]);
}

#[test]
fn a_channel_twice() {
    let second = "[[channel]]\nkind = \"unix\"\npath = \"FOLDER/guest.sock\"\nguest = \"test\"\n[[group]]";
    File::with("[[group]]", second)
        .is_refused(&[":9: error: channel.path = \"FOLDER/guest.sock\": line 5 has a channel there already"]);
}

#[test]
fn actions_and_kinds_that_are_none() {
    File::with("members", "actions = [\"off\", \"fence\"]\nmembers")
        .is_refused(&[":11: error: group.actions: \"fence\" is none of \"off\", \"on\", \"reboot\", \"status\""]);
    for (kind, says) in [
        ("morse", ":6: error: channel.kind = \"morse\": must be \"unix\", \"unix-listen\", \"tty\" or \"tcp\""),
        ("vsock", ":6: error: channel.kind = \"vsock\": not served by this version"),
    ] {
        File::with("kind = \"unix\"", &format!("kind = \"{kind}\"")).is_refused(&[says]);
    }
}

#[test]
fn no_group_at_all() {
    let group = "[[group]]\nname = \"cluster\"\nmembers = [\"test\", \"6695eb01-f6a4-8304-79aa-97f2502e193e\"]\n";
    File::with(group, "").is_refused(&[
        ": error: no [[group]]: nobody may fence anybody, so this configuration serves nobody",
        ":5: warning: channel.guest = \"test\" is in no group: whatever it asks is denied",
    ]);
}

#[test]
fn no_channel() {
    let channel = "[[channel]]\nkind = \"unix\"\npath = \"FOLDER/guest.sock\"\nguest = \"test\"\n";
    File::with(channel, "[discover]\nvirtio_name = \"\"\n")
        .is_refused(&[": error: no [[channel]], and none are looked for (discover.virtio_name = \"\"): this"]);
    let far = "[[hypervisor]]\nuri = \"test+ssh://host/default\"\n[[group]]\nname = \"a\"\nmembers = [\"b\", \"c\"]\n";
    File::new(format!("{far}[wire]\nclassic = true\n")).is_refused(&[
        ": error: no [[channel]], and no [[hypervisor]] of this host, whose guests' channels are found: this",
    ]);
}

#[test]
fn no_hypervisor_or_the_same_twice() {
    File::with("[[hypervisor]]\nuri = \"test:///default\"\n", "")
        .is_refused(&[": error: no [[hypervisor]]: add one with its libvirt uri"]);
    File::with("[wire]", "[[hypervisor]]\nuri = \"test:///default\"\n[wire]").is_refused(&[
        ":4: error: hypervisor.uri = \"test:///default\": there is a [[hypervisor]] of this uri already",
    ]);
}

#[test]
fn nobody_who_may_speak_the_classic_wire() {
    File::with("classic = true", "classic = false").is_refused(&[": error: no group may use the classic wire"]);
}

/// Without it, guests that have a key would be served without.
#[test]
fn a_master_key_that_cannot_be_read() {
    for wire in ["classic = true", "keyless = true", "classic = false"] {
        let file = File::with("classic = true", &format!("{wire}\nmaster_key = \"/nowhere/k\""));
        file.is_refused(&[":5: error: wire.master_key = \"/nowhere/k\" cannot be read"]);
    }
}

#[test]
fn names_that_are_none() {
    for (name, shown) in [("", "\"\""), ("a\\u0000b", "\"a\\0b\""), ("a\\nb", "\"a\\nb\"")] {
        let member = File::with("\"test\", ", &format!("\"test\", \"{name}\", "));
        member.is_refused(&[&format!(":11: error: group.members: {shown} is no guest's name")]);
        let guest = File::with("guest = \"test\"", &format!("guest = \"{name}\""));
        guest.is_refused(&[&format!(":8: error: channel.guest: {shown} is no guest's name")]);
    }
}

#[test]
fn names_that_the_classic_wire_cannot_carry() {
    for name in ["x".repeat(64), "cabbage-abba".to_owned()] {
        let file = File::with("\"test\", ", &format!("\"test\", \"{name}\", "));
        file.says(&[
            &format!(":11: warning: group.members: the classic wire cannot carry \"{name}\""),
            UNKNOWN,
            &format!(": warning: the hypervisor knows no guest \"{name}\""),
        ]);
        assert_eq!(file.check().code, Some(0));
    }
}

#[test]
fn a_channels_path_that_is_no_socket() {
    for (kind, part) in [("unix", "a socket"), ("unix-listen", "a socket"), ("tty", "a character device")] {
        let file = File::with(
            "kind = \"unix\"\npath = \"FOLDER/guest.sock\"",
            &format!("kind = \"{kind}\"\npath = \"FOLDER/x\""),
        );
        let says = format!(":7: error: channel.path = \"FOLDER/x\" is not {part}, as kind \"{kind}\" needs");

        fs::write(file.at("x"), "a regular file").expect("a regular file");
        file.is_refused(&[&says]);
        assert_eq!(fs::read_to_string(file.at("x")).expect("it is still there"), "a regular file");

        fs::remove_file(file.at("x")).expect("it can be removed");
        fs::create_dir(file.at("x")).expect("a folder");
        file.is_refused(&[&says]);
    }
}

#[test]
fn a_channels_path_that_cannot_be_one() {
    let long = format!("/{}", "x".repeat(107));
    for (path, says) in [
        ("relative.sock", ":7: error: channel.path = \"relative.sock\": must begin with \"/\"".to_owned()),
        ("", ":7: error: channel.path = \"\": must begin with \"/\"".to_owned()),
        (&long, format!(":7: error: channel.path = \"{long}\": a socket's path has at most 107 bytes")),
    ] {
        let file = File::with("FOLDER/guest.sock", path);
        let said = file.check();
        assert_eq!(said.code, Some(1));
        let expected = format!("{}{says}", file.path.display());
        assert!(said.stderr.lines().any(|line| line == expected), "{expected}\n{}", said.stderr);
    }
}

/// On such a line no wire can be spoken: refused by `check` and at the start alike, whatever the wires are.
#[test]
fn a_serial_line_that_carries_no_whole_byte() {
    for wire in ["classic = true", "keyless = true"] {
        let text = RIGHT.replace("classic = true", wire);
        let text =
            text.replace("kind = \"unix\"\npath = \"FOLDER/guest.sock\"", "kind = \"tty\"\npath = \"/dev/null\"");
        for (params, bits) in [("9600,7E1", 7), ("115200,5N1", 5)] {
            let file = File::new("");
            let text = text.replace("guest = \"test\"", &format!("guest = \"test\"\nparams = \"{params}\""));
            let text = text.replace("FOLDER", &file.folder.path().display().to_string());
            fs::write(&file.path, text).expect("a configuration file");
            file.is_refused(&[&format!(
                ":9: error: channel.params = \"{params}\" for \"/dev/null\": {bits} data bits carry no whole byte. Our own \
                 wire cannot work there, and fence-virt's would take a name for another guest's, and lose its lists. Set 8 \
                 here and at the other end"
            )]);
        }
    }
}

#[test]
fn a_channels_path_where_nothing_is_yet() {
    File::with("FOLDER/guest.sock", "FOLDER/later.sock")
        .says(&[":7: warning: channel.path = \"FOLDER/later.sock\" is not there; it is served when it comes", UNKNOWN]);
    File::with(
        "kind = \"unix\"\npath = \"FOLDER/guest.sock\"",
        "kind = \"unix-listen\"\npath = \"FOLDER/later/x.sock\"",
    )
    .says(&[":7: warning: channel.path = \"FOLDER/later/x.sock\": its folder is not there", UNKNOWN]);
}

#[test]
fn a_file_that_is_not_there() {
    let file = File::new("");
    fs::remove_file(&file.path).expect("it can be removed");
    file.is_refused(&[": error: cannot be read (No such file or directory (os error 2)): name a file"]);
}

#[test]
fn a_file_that_is_a_folder() {
    let file = File::new("");
    fs::remove_file(&file.path).expect("it can be removed");
    fs::create_dir(&file.path).expect("a folder");
    file.is_refused(&[": error: cannot be read (Is a directory (os error 21)): name a file"]);
}

#[test]
fn a_file_with_nothing_in_it() {
    let says = [": error: no [[hypervisor]]: add one", ": error: no [[group]]: nobody"];
    File::new("").is_refused(&says);
    File::new("\n# nothing\n\n").is_refused(&says);
    let checked = check(Path::new("/dev/null"));
    assert_eq!(checked.code, Some(1));
    assert!(checked.stderr.starts_with("/dev/null: error: no [[hypervisor]]"), "{}", checked.stderr);
}

#[test]
fn a_file_of_garbage() {
    File::new(b"\xff\xfe\x00\x01\x02").is_refused(&[":1: error: not text in UTF-8"]);
    File::new(b"[[hypervisor]]\nuri = \"\xe4\"\n").is_refused(&[":2: error: not text in UTF-8"]);
    File::new(b"\0\0\0\0").is_refused(&[":1: error: "]);
    File::new(fs::read("/bin/true").expect("a program")).is_refused(&[":1: error: not text in UTF-8"]);
}

#[test]
fn a_journal_that_cannot_be_written() {
    let file = File::with("FOLDER/journal", "FOLDER/file/journal");
    fs::write(file.at("file"), "").expect("a regular file");
    let served = serve(&file.path);
    assert_eq!(served.code, Some(1));
    let says = format!("fencewired: control.journal: {} cannot be used (", file.at("file/journal").display());
    assert!(served.stderr.contains(&says), "{}", served.stderr);
}

#[test]
fn records_that_are_required_and_cannot_be_written() {
    let file = File::with("FOLDER/records.jsonl", "FOLDER/file/records\"\nrequired = true\n#");
    fs::write(file.at("file"), "").expect("a regular file");
    let served = serve(&file.path);
    assert_eq!(served.code, Some(1));
    let says = format!("fencewired: records.path: {} cannot be written (", file.at("file/records").display());
    assert!(served.stderr.contains(&says), "{}", served.stderr);
}

#[test]
fn a_guest_that_does_not_exist() {
    let setup = Daemon::setup().served(["vm1", "vm2"].map(Guest::new)).group("cluster", &["vm1", "vm2", "nobody"], "");
    let mut ghost = GuestChannel::listen();
    let mut daemon = setup.channel("unix", ghost.path(), "nobody").start();
    ghost.accept(DEADLINE);
    settle();

    let warning = daemon.wait_for_log("the configuration names a guest that the hypervisor does not know");
    assert!(warning.contains("name=\"nobody\""), "{warning}");
    let checked = check(&daemon.config());
    let says = format!("{}: warning: the hypervisor knows no guest \"nobody\"; it is", daemon.config().display());
    assert!(checked.stdout.lines().any(|line| line.starts_with(&says)), "{says}\n{}", checked.stdout);
    assert_eq!(checked.code, Some(0));

    assert_eq!(ask(&mut ghost, MONITOR, ""), DENIED, "nobody asks");
    assert_eq!(ask(&mut ghost, OFF, "vm1"), DENIED, "nobody asks");
    let mut vm1 = daemon.channel("vm1");
    assert_eq!(ask(&mut vm1, STATUS, "nobody"), FAILED);
    assert_eq!(ask(&mut vm1, OFF, "nobody"), FAILED);
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "the others are served");
    daemon.stop_and_expect_no_act();
}

/// What was right when it was checked, and is not any more.
#[test]
fn a_channels_path_that_becomes_something_else() {
    let folder = tempfile::tempdir().expect("a private folder");
    let at = |name: &str| folder.path().join(name);
    let setup = Daemon::setup().served(["vm1", "vm2"].map(Guest::new));
    let mut daemon = ["file", "folder", "nothing"]
        .into_iter()
        .fold(setup, |setup, name| setup.channel("unix", &at(name), "vm1"))
        .launch();
    daemon.wait_for_log("serving");
    fs::write(at("file"), "a regular file").expect("a regular file");
    fs::create_dir(at("folder")).expect("a folder");

    for name in ["file", "folder"] {
        let says = format!("channel=\"{}\" why=\"there is something there that is not a socket\"", at(name).display());
        daemon.wait_for_log(&says);
    }
    let mut vm2 = daemon.channel("vm2");
    vm2.accept(DEADLINE);
    settle();
    assert_eq!(ask(&mut vm2, STATUS, "vm1"), SUCCESS, "the others are served");

    fs::remove_file(at("file")).expect("it can be removed");
    let mut vm1 = GuestChannel::listen_at(at("file"));
    vm1.accept(DEADLINE);
    settle();
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "served when it came");
    daemon.stop_and_expect_no_act();
}

/// A device of the right kind that is another thing: it can be told only by opening it.
#[test]
fn a_terminal_that_is_none() {
    let setup = Daemon::setup().served(["vm1", "vm2"].map(Guest::new));
    let mut daemon = setup.channel("tty", Path::new("/dev/null"), "vm1").start();

    daemon.wait_for_log("channel=\"/dev/null\" why=\"what is there is not a serial port\"");

    assert_eq!(ask(&mut daemon.channel("vm2"), STATUS, "vm1"), SUCCESS, "the others are served");
    daemon.stop_and_expect_no_act();
}

/// A bad file must not end the fencing of a daemon that runs: it says what is wrong and goes on as before. A good one is
/// taken over.
#[test]
fn a_file_that_goes_bad_while_it_is_served() {
    let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    let good = fs::read_to_string(daemon.config()).expect("a configuration file");
    fs::write(daemon.config(), "garbage").expect("a configuration file");

    daemon.process().signal(Signal::HUP);
    daemon.wait_for_log("not reloaded: the configuration stays as it was");
    let mut vm1 = daemon.channel("vm1");
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "served as before");

    fs::write(daemon.config(), good.replace("\"vm2\"", "\"vm3\"")).expect("a configuration file");
    daemon.process().signal(Signal::HUP);
    daemon.wait_for_log("reloaded gone=");
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), DENIED);
    daemon.stop_and_expect_no_act();
}
