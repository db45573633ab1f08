//! What an operator asks of `fencewired` beside serving.
//!
//! | file | what |
//! |---|---|
//! | `attach` | a guest's virtio channel, added and removed by a real libvirt, with a real QEMU |
//! | `attach_refused` | what cannot be done: each is told, and changes nothing |
//! | `check` | folders that cannot be written, before anybody serves |
//! | `status` | what a daemon says of itself, to whom, and where none says anything |
//! | `snapshot` | the same of a bridge whose hypervisor misbehaves on purpose |
//! | `log` | a daemon whose log nobody reads |
//! | `callers` | callers of the control socket who do their worst |
//!
//! `check` and `status` need root: they are other users, too.

mod attach;
mod attach_refused;
mod callers;
mod check;
mod log;
mod snapshot;
mod status;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fencewire_tests::process::{DEADLINE, Finished, ours, run};
use tempfile::TempDir;

/// A configuration for whoever asks and does not serve.
struct Operator {
    folder: TempDir,
}

impl Operator {
    /// With these hypervisors.
    fn of(uris: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a private folder");
        let mut hypervisors = String::new();
        for uri in uris {
            writeln!(hypervisors, "[[hypervisor]]\nuri = \"{uri}\"").expect("a String takes everything");
        }
        let rest = "[wire]\nkeyless = true\n[[group]]\nname = \"g\"\nmembers = [\"vm1\", \"vm2\"]\n\
                    [[channel]]\nkind = \"unix\"\npath = \"/nowhere/vm1.sock\"\nguest = \"vm1\"\n";
        fs::write(folder.path().join("fencewired.toml"), format!("{hypervisors}{rest}")).expect("a file");
        Self { folder }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("fencewired.toml")
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Finished {
        run(Command::new(ours("fencewired")).args(arguments).arg("--config").arg(self.config()), DEADLINE * 2)
    }

    /// Runs it, and gives what it prints.
    #[track_caller]
    fn well(&self, arguments: &[&str]) -> String {
        let finished = self.run(arguments);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{arguments:?}: {}", finished.stdout);
        finished.stdout
    }

    /// Says that this is refused with one line that has all of `says` in it.
    #[track_caller]
    fn refused(&self, arguments: &[&str], says: &[&str]) {
        let Finished { code, stdout, stderr, .. } = self.run(arguments);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{arguments:?}: {stderr}");
        for part in says {
            assert!(stderr.contains(part), "{part:?} is not in: {stderr}");
        }
    }
}
