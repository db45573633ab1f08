//! `fencewired keygen`, `enroll` and `revoke`, and their bad input: each gets one clear line, and nothing is left half-done.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use fencewire_tests::libvirt_file::{Guest, LibvirtFile};
use fencewire_tests::process::{DEADLINE, Finished, Process, ours, program, run};
use tempfile::TempDir;

const GUEST: &str = "b33f94f9-8a30-4e83-9165-fd8681ee13cf";

/// A folder with a configuration, guests for it, and a folder for the keys.
struct Bed {
    folder: TempDir,
}

impl Bed {
    #[track_caller]
    fn new() -> Self {
        let bed = Self { folder: tempfile::tempdir().expect("a private folder") };
        fs::create_dir(bed.at("keys")).expect("a folder");
        let uri = LibvirtFile::new(bed.at("guests.xml")).guest(Guest::new("vm1").uuid(GUEST)).write();
        let (key, records) = (bed.master(), bed.at("records.jsonl"));
        let (key, records) = (key.display(), records.display());
        let [journal, state, socket] =
            ["journal", "state", "control.sock"].map(|name| bed.at(name).display().to_string());
        let text = format!(
            "[[hypervisor]]\nuri = {uri:?}\n[wire]\nmaster_key = \"{key}\"\n[records]\npath = \"{records}\"\n\
             [control]\njournal = \"{journal}\"\nstate = \"{state}\"\nsocket = \"{socket}\"\n\
             [[group]]\nname = \"g\"\nmembers = [\"vm1\"]\n\
             [[channel]]\nkind = \"unix\"\npath = \"/run/none.sock\"\nguest = \"vm1\"\n"
        );
        fs::write(bed.at("fencewired.toml"), text).expect("a file");
        bed
    }

    /// With a master key.
    #[track_caller]
    fn with_key() -> Self {
        let bed = Self::new();
        assert_eq!(bed.run(&["keygen"]).code, Some(0));
        bed
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn master(&self) -> PathBuf {
        self.at("keys/master.key")
    }

    fn guests(&self) -> PathBuf {
        self.at("keys/master.key.guests")
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Finished {
        self.run_as(&mut Command::new(ours("fencewired")), arguments)
    }

    #[track_caller]
    fn run_as(&self, command: &mut Command, arguments: &[&str]) -> Finished {
        run(command.args(arguments).arg("--config").arg(self.at("fencewired.toml")), DEADLINE)
    }

    /// Every file and what is in it.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let folders = [self.folder.path().to_owned(), self.at("keys")];
        let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder"));
        let paths = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
        paths.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
    }

    /// Says that this is refused with one line that has all of `says` in it, and that no file has changed.
    #[track_caller]
    fn refuses(&self, arguments: &[&str], says: &[&str]) {
        let before = self.files();
        let refused = self.run(arguments);
        is_refused(&refused, says);
        assert!(self.files() == before, "{arguments:?} has changed a file");
    }
}

#[track_caller]
fn is_refused(finished: &Finished, says: &[&str]) {
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    for part in says {
        assert!(finished.stderr.contains(part), "{part:?} is not in: {}", finished.stderr);
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("a file").permissions().mode() & 0o777
}

#[test]
fn what_they_make() {
    let bed = Bed::new();
    let made = bed.run(&["keygen"]);
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""));
    assert!(made.stdout.contains("master.key: made. "), "{}", made.stdout);
    assert_eq!(mode(&bed.master()), 0o600);
    let text = fs::read_to_string(bed.master()).expect("a file");
    assert!(text.starts_with("fencewire-master-1\n") && text.len() == 19 + 65, "{} bytes", text.len());

    let key = bed.at("vm1.key");
    let enrolled = bed.run(&["enroll", "vm1", "--out", key.to_str().expect("UTF-8")]);
    assert_eq!((enrolled.code, enrolled.stdout.as_str()), (Some(0), ""), "{}", enrolled.stderr);
    assert_eq!(mode(&key), 0o600);
    let text = fs::read_to_string(&key).expect("a file");
    assert!(text.starts_with(&format!("fencewire-key-1\n{GUEST}\n00000001\n")));
    assert_eq!(fs::read_to_string(bed.guests()).expect("a file"), format!("{GUEST} 1\n"));
    assert_eq!(mode(&bed.guests()), 0o644, "the daemon need not be who enrols, and nothing in it is secret");

    // On standard output, the file alone; by UUID the guest need not be known.
    let again = bed.run(&["enroll", GUEST]);
    assert!(again.stdout.starts_with(&format!("fencewire-key-1\n{GUEST}\n00000002\n")), "{}", again.stderr);
    assert_eq!(again.stdout.lines().count(), 5);
    let revoked = bed.run(&["revoke", "vm1"]);
    assert_eq!((revoked.code, revoked.stderr.as_str()), (Some(0), ""));
    assert_eq!(fs::read_to_string(bed.guests()).expect("a file"), format!("{GUEST} 3 revoked\n"));
    assert_eq!(bed.run(&["check"]).code, Some(0), "and a configuration with all that can be served");
}

#[test]
fn a_file_that_is_there_is_kept() {
    let bed = Bed::with_key();
    bed.refuses(&["keygen"], &["master.key is there already", "Remove it first"]);
    let out = bed.at("vm1.key");
    fs::write(&out, "precious").expect("a file");
    bed.refuses(&["enroll", "vm1", "--out", out.to_str().expect("UTF-8")], &["vm1.key is there already", "--out"]);
    // A link to nowhere is there, too.
    let link = bed.at("link.key");
    std::os::unix::fs::symlink(bed.at("nowhere"), &link).expect("a link");
    bed.refuses(&["enroll", "vm1", "--out", link.to_str().expect("UTF-8")], &["link.key is there already"]);
}

#[test]
fn without_a_master_key() {
    let bed = Bed::new();
    for arguments in [&["enroll", "vm1"][..], &["revoke", "vm1"]] {
        bed.refuses(arguments, &["master.key cannot be read", "fencewired keygen"]);
    }
    let text = fs::read_to_string(bed.at("fencewired.toml")).expect("a file");
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("master_key")).collect();
    fs::write(bed.at("fencewired.toml"), without.join("\n")).expect("a file");
    for arguments in [&["keygen"][..], &["enroll", "vm1"], &["revoke", "vm1"]] {
        bed.refuses(arguments, &["fencewired.toml: ", "has no wire.master_key"]);
    }
    fs::remove_file(bed.at("fencewired.toml")).expect("it was there");
    bed.refuses(&["keygen"], &["fencewired.toml: ", "cannot be read"]);
}

#[test]
fn a_master_key_that_is_none_or_that_others_read() {
    let bed = Bed::with_key();
    let good = fs::read(bed.master()).expect("a file");
    for bad in
        [&b""[..], b"fencewire-master-1\n", &good[..good.len() - 2], b"\xff\xfe", &[good.as_slice(), b"00"].concat()]
    {
        fs::write(bed.master(), bad).expect("a file");
        bed.refuses(&["enroll", "vm1"], &["master.key "]);
        assert_eq!(bed.run(&["check"]).code, Some(1));
    }
    fs::write(bed.master(), &good).expect("a file");
    for mode in [0o644, 0o604, 0o602] {
        fs::set_permissions(bed.master(), Permissions::from_mode(mode)).expect("permissions");
        bed.refuses(&["enroll", "vm1"], &["master.key has permissions 0", "chmod o="]);
    }
    fs::set_permissions(bed.master(), Permissions::from_mode(0o640)).expect("permissions");
    assert_eq!(bed.run(&["enroll", "vm1"]).code, Some(0));
}

#[test]
fn guests_that_are_not_known() {
    let bed = Bed::with_key();
    bed.refuses(&["enroll", "vm7"], &["no hypervisor knows a guest \"vm7\"", "virsh list"]);
    bed.refuses(&["revoke", "vm7"], &["no hypervisor knows a guest \"vm7\""]);
    bed.refuses(&["revoke", "vm1"], &[GUEST, "was never enrolled"]);
    let text = fs::read_to_string(bed.at("fencewired.toml")).expect("a file");
    let dead = text.replace("test:///", "test+unix:///default?socket=/nowhere/");
    fs::write(bed.at("fencewired.toml"), dead).expect("a file");
    bed.refuses(&["enroll", "vm1"], &["does not say who \"vm1\" is", "give its UUID"]);
}

#[test]
fn garbage_in_the_list_of_guests() {
    let bed = Bed::with_key();
    let good = format!("{GUEST} 7");
    for bad in [
        "nonsense".to_owned(),
        GUEST.to_owned(),
        format!("{GUEST} 0"),
        format!("{GUEST} 4294967296"),
        format!("{good} forgotten"),
        format!("{good} revoked twice"),
        format!("{good}\n{good}"),
    ] {
        fs::write(bed.guests(), format!("{bad}\n")).expect("a file");
        let line = format!("line {}", bad.lines().count());
        bed.refuses(&["enroll", "vm1"], &["master.key.guests", &line]);
        bed.refuses(&["revoke", "vm1"], &["master.key.guests", &line]);
        assert!(bed.run(&["check"]).stderr.contains(&line));
    }
    fs::write(bed.guests(), b"\xff\xff\n").expect("a file");
    bed.refuses(&["enroll", "vm1"], &["master.key.guests", "cannot be read"]);
    fs::write(bed.guests(), format!("{GUEST} 4294967295\n")).expect("a file");
    bed.refuses(&["enroll", "vm1"], &["has had every key there is"]);
}

/// Two administrators, or a script that enrols all guests at once: none is lost, and no two get the same key.
#[test]
fn many_at_once() {
    let bed = Bed::with_key();
    let uuid = |number: usize| format!("00000000-0000-0000-0000-{number:012}");
    let start = |arguments: [&str; 2]| {
        Process::start(Command::new(ours("fencewired")).args(arguments).arg("--config").arg(bed.at("fencewired.toml")))
    };
    assert_eq!(bed.run(&["enroll", &uuid(99)]).code, Some(0));
    let all: Vec<Process> = (0..8)
        .flat_map(|number| [start(["enroll", GUEST]), start(["enroll", &uuid(number)]), start(["revoke", &uuid(99)])])
        .collect();
    let mut keys = Vec::new();
    for mut process in all {
        let finished = process.wait(DEADLINE);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        keys.extend(finished.stdout.lines().nth(2).filter(|_| finished.stdout.contains(GUEST)).map(str::to_owned));
    }
    keys.sort_unstable();
    assert_eq!(keys, (1..=8).map(|number| format!("{number:08}")).collect::<Vec<_>>());
    let mut list: Vec<String> = (0..8).map(|number| format!("{} 1", uuid(number))).collect();
    list.extend([format!("{} 9 revoked", uuid(99)), format!("{GUEST} 8")]);
    assert_eq!(fs::read_to_string(bed.guests()).expect("a file").lines().collect::<Vec<_>>(), list);
}

/// At each step of it that a disk could see: there is the old list or the new one, and the next one is not held up.
#[test]
fn killed_while_they_change_the_list() {
    let bed = Bed::with_key();
    let other = "00000000-0000-0000-0000-000000000001";
    assert_eq!(bed.run(&["enroll", other]).code, Some(0));
    let line = |number: u32| format!("{other} 1\n{GUEST} {number}\n");
    let mut generation = 0;
    let mut killed = 0;
    for call in ["flock", "unlink", "fchmod", "write", "fsync", "rename"] {
        // Each call of that name in turn, until it is not called so often.
        for when in 1.. {
            let mut traced = Command::new(program("strace"));
            let inject = format!("inject=/^{call}(at)?2?$:signal=KILL:when={when}");
            traced.args(["-f", "-qq", "-o"]).arg(bed.at("calls")).args(["-e", &inject]).arg(ours("fencewired"));
            let finished = bed.run_as(&mut traced, &["enroll", GUEST]);
            let list = fs::read_to_string(bed.guests()).expect("a list");
            if list == line(generation + 1) {
                generation += 1;
            } else if generation > 0 {
                assert_eq!(list, line(generation), "{call} {when}");
            } else {
                assert_eq!(list, format!("{other} 1\n"), "{call} {when}");
            }
            if finished.code == Some(0) {
                assert!(when > 1, "{call} is not what it calls");
                break;
            }
            assert_eq!(finished.signal, Some(9), "{}", finished.stderr);
            killed += 1;
        }
        generation += 1;
        assert_eq!(bed.run(&["enroll", GUEST]).code, Some(0));
        assert_eq!(fs::read_to_string(bed.guests()).expect("a list"), line(generation), "after {call}");
        assert!(!bed.at("keys/master.key.guests.new").exists());
    }
    assert!(killed >= 7, "{killed}: a folder is synced, too");
}

/// Where a file cannot be made, a guest keeps the key that it has.
#[test]
fn folders_that_cannot_be_written() {
    let bed = Bed::with_key();
    bed.refuses(
        &["enroll", "vm1", "--out", "/proc/vm1.key"],
        &["/proc/vm1.key cannot be written", "nothing was changed"],
    );
    bed.refuses(&["enroll", "vm1", "--out", "/nowhere/vm1.key"], &["/nowhere/vm1.key cannot be written"]);
    // The list of guests stands in its own way: root may write everywhere, but not there.
    fs::create_dir(bed.at("keys/master.key.guests.new")).expect("a folder");
    let out = bed.at("vm1.key");
    bed.refuses(&["enroll", "vm1", "--out", out.to_str().expect("UTF-8")], &["master.key.guests cannot be written"]);
    bed.refuses(&["enroll", "vm1"], &["master.key.guests cannot be written"]);
    fs::remove_dir(bed.at("keys/master.key.guests.new")).expect("it was there");
    fs::remove_file(bed.master()).expect("it was there");
    fs::remove_dir(bed.at("keys")).expect("it is empty");
    is_refused(&bed.run(&["keygen"]), &["master.key cannot be written"]);
}

#[test]
fn command_lines_that_are_none() {
    for (arguments, says) in [
        (&["enroll"][..], "enroll: which guest?"),
        (&["revoke"], "revoke: which guest?"),
        (&["enroll", "vm1", "vm2"], "unexpected argument \"vm2\""),
        (&["revoke", "vm1", "--out", "x"], "invalid option '--out'"),
        (&["keygen", "--out", "x"], "invalid option '--out'"),
        (&["--out", "x", "enroll", "vm1"], "invalid option '--out'"),
        (&["enroll", "vm1", "--out"], "missing argument for option '--out'"),
    ] {
        let refused = run(Command::new(ours("fencewired")).args(arguments), DEADLINE);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert_eq!(refused.stderr, format!("fencewired: {says}; try fencewired --help\n"), "{arguments:?}");
    }
}
