//! `fencewired check` on the folders that a configuration names: what serving would meet is said before, and trying leaves
//! nothing behind. Other mistakes in a file are in `bad_input`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use fencewire_tests::daemon::Daemon;
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::{DEADLINE, Finished, ours, program, run};
use tempfile::TempDir;

/// A folder with a configuration in it.
struct Bed {
    folder: TempDir,
}

impl Bed {
    /// With these lines for `[records]` and `[control]`, in which FOLDER is the test's own.
    fn new(records: &str, control: &str) -> Self {
        let bed = Self { folder: tempfile::tempdir().expect("a private folder") };
        let text = format!(
            "[[hypervisor]]\nuri = \"test:///default\"\n[wire]\nclassic = true\n[[group]]\nname = \"g\"\n\
             members = [\"test\"]\nallow_self = true\n[[channel]]\nkind = \"unix-listen\"\npath = \"FOLDER/c.sock\"\n\
             guest = \"test\"\n[records]\n{records}\n[control]\n{control}\n"
        );
        let text = text.replace("FOLDER", bed.folder.path().to_str().expect("UTF-8"));
        fs::write(bed.at("fencewired.toml"), text).expect("a file");
        bed
    }

    /// With all in the test's folder, and these lines in place of those that begin as they do.
    fn with(lines: &[&str]) -> Self {
        let mut all = [
            "path = \"FOLDER/r/records.jsonl\"",
            "journal = \"FOLDER/j/journal\"",
            "state = \"FOLDER/l/state\"",
            "socket = \"FOLDER/s\"",
        ];
        for line in lines {
            let key = line.split(' ').next();
            let place = all.iter_mut().find(|known| known.split(' ').next() == key).expect("a line like it");
            *place = line;
        }
        let [records, journal, state, socket] = all;
        Self::new(records, &format!("{journal}\n{state}\n{socket}"))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn check(&self) -> Finished {
        check(&self.at("fencewired.toml"))
    }

    /// As somebody who is not root, and to whom the test's folder may be given. The program is where everybody may run it.
    #[track_caller]
    fn check_as_nobody(&self) -> Finished {
        assert!(rustix::process::geteuid().is_root(), "this test needs root, to be somebody else");
        fs::set_permissions(self.folder.path(), Permissions::from_mode(0o755)).expect("permissions");
        let there = self.at("program");
        fs::copy(ours("fencewired"), &there).expect("a copy");
        let mut command = Command::new(program("setpriv"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(there);
        run(command.args(["check", "--config"]).arg(self.at("fencewired.toml")), DEADLINE)
    }

    /// The names of what is in the test's folder.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).expect("a folder").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name != "program");
        names.sort_unstable();
        names
    }
}

fn check(config: &Path) -> Finished {
    run(Command::new(ours("fencewired")).args(["check", "--config"]).arg(config), DEADLINE)
}

#[track_caller]
fn is_well(checked: &Finished) {
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{}", checked.stdout);
    assert_eq!(checked.stdout.lines().count(), 1, "{}", checked.stdout);
}

/// Says that it can be served, and that there is one warning, with these words in it.
#[track_caller]
fn warns(checked: &Finished, says: &[&str]) {
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{}", checked.stdout);
    let warnings: Vec<_> = checked.stdout.lines().filter(|line| line.contains(": warning: ")).collect();
    let [warning] = warnings[..] else { panic!("one warning: {}", checked.stdout) };
    assert!(says.iter().all(|part| warning.contains(part)), "{says:?} is not in {warning}");
}

#[track_caller]
fn fails(checked: &Finished, says: &[&str]) {
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    assert!(checked.stderr.contains(": error: "), "{}", checked.stderr);
    assert!(says.iter().all(|part| checked.stderr.contains(part)), "{says:?} is not in {}", checked.stderr);
    assert!(!checked.stdout.contains("can be served"), "{}", checked.stdout);
}

#[test]
fn what_is_tried_leaves_nothing_behind() {
    let bed = Bed::with(&[]);
    is_well(&bed.check());
    assert_eq!(bed.names(), ["fencewired.toml"], "no folder was made");
    for folder in ["r", "j", "j/journal"] {
        fs::create_dir(bed.at(folder)).expect("a folder");
    }
    fs::write(bed.at("r/records.jsonl"), "a record\n").expect("a file");
    is_well(&bed.check());
    assert_eq!(fs::read_dir(bed.at("j/journal")).expect("a folder").count(), 0);
    assert_eq!(fs::read_dir(bed.at("r")).expect("a folder").count(), 1);
    assert_eq!(fs::read_to_string(bed.at("r/records.jsonl")).expect("a file"), "a record\n");
}

#[test]
fn folders_that_this_user_may_not_write() {
    // Nobody may write what is root's.
    let bed = Bed::with(&["socket = \"/tmp/fencewired-check.sock\""]);
    fails(&bed.check_as_nobody(), &[":16: error: control.journal", "Permission denied", "would not start"]);
    let (journal, socket) = ("journal = \"/tmp/fencewired-check-journal\"", "socket = \"/tmp/fencewired-check.sock\"");
    let bed = Bed::with(&[journal, socket]);
    fails(&bed.check_as_nobody(), &[":17: error: control.state", "Permission denied", "would not start"]);
    let state = "state = \"/tmp/fencewired-check-state\"";
    let bed = Bed::with(&[journal, state, socket]);
    warns(&bed.check_as_nobody(), &[":14: warning: records.path", "Permission denied", "without records"]);
    let required = "path = \"FOLDER/r/records.jsonl\"\nrequired = true";
    let bed = Bed::new(required, &[journal, state, socket].join("\n"));
    fails(&bed.check_as_nobody(), &[":14: error: records.path", "records.required = true", "would not start"]);
    let bed = Bed::with(&[journal, state, "path = \"/tmp/fencewired-check.jsonl\""]);
    warns(&bed.check_as_nobody(), &[":18: warning: control.socket", "Permission denied", "status would not"]);
    for left in ["-journal", "-state", ".jsonl", ".sock"] {
        assert!(!Path::new(&format!("/tmp/fencewired-check{left}")).exists());
    }
}

#[test]
fn paths_where_nothing_can_be_made() {
    // Root may write everywhere, but not there.
    fails(&Bed::with(&["journal = \"/proc/journal\""]).check(), &["control.journal = \"/proc/journal\""]);
    fails(&Bed::with(&["state = \"/proc/state\""]).check(), &["control.state = \"/proc/state\""]);
    warns(&Bed::with(&["path = \"/proc/records\""]).check(), &["records.path = \"/proc/records\""]);
    warns(&Bed::with(&["socket = \"/proc/s\""]).check(), &["control.socket = \"/proc/s\""]);
    warns(&Bed::with(&["socket = \"FOLDER/none/s\""]).check(), &["its folder is not there"]);
    // The journal's folder is made, and the socket's with it.
    is_well(&Bed::with(&["socket = \"FOLDER/j/s\""]).check());
    let bed =
        Bed::with(&["path = \"FOLDER/file/records\"", "journal = \"FOLDER/file/journal\"", "socket = \"FOLDER/file\""]);
    fs::write(bed.at("file"), "").expect("a file");
    fails(&bed.check(), &["control.journal", "is no folder", "records.path", "control.socket", "not a socket"]);
}

/// A daemon that runs with this very configuration is no reason to warn; another one with the same journal is.
#[test]
fn a_journal_that_somebody_uses() {
    let daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    is_well(&check(&daemon.config()));
    let bed = Bed::with(&[&format!("journal = \"{}\"", daemon.journal().display())]);
    warns(&bed.check(), &[":16: warning: control.journal", "a fencewired that runs uses it"]);
    drop(daemon);
}
