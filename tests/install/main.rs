//! What `make install` puts where, whether systemd takes it, and whether the daemon tells systemd what it should.
//!
//! | module | what |
//! |---|---|
//! | `files` | the list of files, their modes; nobody's configuration is touched; nothing is left |
//! | `unit` | the unit: systemd-analyze has nothing to say of it, and finds it as closed as documented |
//! | `fragments` | user, folders and the guest's device, as sysusers, tmpfiles and udev make them |
//! | `notify` | READY, WATCHDOG and STOPPING of the real daemon |
//! | `booted` | all of it together: installed, then started by a systemd of the test's own |
//!
//! `fragments` and `booted` need root: they give files away and make namespaces.

mod booted;
mod files;
mod fragments;
mod notify;
mod unit;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fencewire_tests::process::{Finished, ours, program, run};

/// For what takes a second when nothing is broken.
const SLOW: Duration = Duration::from_mins(1);

/// The repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository")
}

/// Where `make build` has put our programs.
fn programs() -> PathBuf {
    ours("fence_wire");
    ours("fencewired").parent().expect("a program is in a folder").to_owned()
}

/// Runs make with a umask that would show if modes were left to chance.
#[track_caller]
fn make<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Finished {
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077 && exec \"$0\" \"$@\""]).arg(program("make"));
    command.arg("--no-print-directory").arg("-C").arg(repository());
    // These tests are run by a make, too, and perhaps by somebody who has some of these set.
    let variables = "MAKEFLAGS MFLAGS MAKELEVEL MAKEFILES DESTDIR PREFIX SBINDIR SYSCONFDIR DOCDIR UNITDIR SYSUSERSDIR \
                     TMPFILESDIR UDEVRULESDIR";
    for name in variables.split(' ') {
        command.env_remove(name);
    }
    command.arg(format!("FENCEWIRE_PROGRAMS={}", programs().display()));
    run(command.args(arguments), SLOW)
}

/// Runs `make install` or the like, which must succeed.
#[track_caller]
fn make_well<'a>(arguments: impl IntoIterator<Item = &'a str>) {
    let finished = make(arguments);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{}", finished.stdout);
}

/// `NAME=path`, for make.
fn variable(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

/// # Panics
/// When this is not root, for which there is nothing that a test could do instead.
#[track_caller]
fn needs_root() {
    let is_root = rustix::process::geteuid().is_root();
    assert!(is_root, "this test gives files to other users and makes namespaces: run it as root (sudo -E make test)");
}
