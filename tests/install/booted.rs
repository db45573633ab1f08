//! What `make install` puts there, started by a systemd of the test's own: PID 1 of its own namespaces, on a root of
//! its own (`boot`). Not this machine's systemd, which need not run at all.
//!
//! Guests are those of libvirt's test driver, inside the daemon. Real guests and libvirt's system daemon are not here.

use super::{SLOW, make_well, needs_root, variable};
use fencewire_tests::libvirt_file::{Guest, LibvirtFile};
use fencewire_tests::process::{Finished, Process, program, run, wait_until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;
use tempfile::TempDir;

/// A systemd that runs, and all that it has started; killed when dropped.
struct Booted {
    process: Process,
    /// systemd's process id as this process sees it.
    init: String,
    cgroup: PathBuf,
    _folder: TempDir,
}

impl Booted {
    /// Installs, adds what an operator would, and waits until systemd is up. The daemon does not run yet.
    #[track_caller]
    fn start() -> Booted {
        needs_root();
        for name in ["unshare", "nsenter", "systemctl", "journalctl", "kill"] {
            program(name);
        }
        let folder = tempfile::tempdir().expect("a private folder");
        let (root, installed) = (folder.path().join("root"), folder.path().join("installed"));
        fs::create_dir(&root).expect("a folder");
        make_well(["install", &variable("DESTDIR", &installed)]);
        LibvirtFile::new(installed.join("etc/fencewire/guests.xml")).guests(["vm1", "vm2"].map(Guest::new)).write();
        fs::write(installed.join("etc/fencewire/fencewired.toml"), CONFIGURATION).expect("a configuration");
        // Ten seconds are too long for a test.
        let drop_in = installed.join("etc/systemd/system/fencewired.service.d/test.conf");
        fs::create_dir_all(drop_in.parent().expect("a folder")).expect("a folder");
        fs::write(drop_in, "[Service]\nWatchdogSec=2s\n").expect("a drop-in");

        let cgroup = own_cgroup().join(format!("fencewire-test-{}", std::process::id()));
        let boot = Path::new(env!("CARGO_MANIFEST_DIR")).join("install/boot");
        let process = Process::start(Command::new(boot).args([&root, &installed, &cgroup]));
        // From here on, whatever fails, nothing is left.
        let mut booted = Booted { process, init: String::new(), cgroup, _folder: folder };
        booted.init = wait_until(SLOW, "a first process in the namespaces", || {
            let process = &mut booted.process;
            assert!(process.is_running(), "no namespaces to boot in: {}", process.stderr());
            let children = format!("/proc/{0}/task/{0}/children", process.id());
            let child = fs::read_to_string(children).ok()?.split_whitespace().next()?.to_owned();
            // The script until it becomes systemd.
            let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (name.trim() == "systemd").then_some(child)
        });
        wait_until(SLOW, "systemd to be up", || {
            assert!(booted.process.is_running(), "systemd has ended: {}", booted.process.stderr());
            let state = booted.run(&["systemctl", "is-active", "basic.target"]).stdout;
            (state.trim() == "active").then_some(())
        });
        booted
    }

    /// Runs a command inside.
    #[track_caller]
    fn run(&self, command: &[&str]) -> Finished {
        let mut enter = Command::new(program("nsenter"));
        enter.args([
            "--target", &self.init, "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net", "--root", "--wd",
        ]);
        enter.args(["--", "env", "-i", "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"]).args(command);
        run(&mut enter, SLOW)
    }

    /// Runs a command inside that must succeed, and returns what it prints.
    #[track_caller]
    fn well(&self, command: &[&str]) -> String {
        let Finished { code, stdout, stderr, .. } = self.run(command);
        assert_eq!(code, Some(0), "{command:?}\n{stdout}{stderr}\n{}", self.log());
        stdout
    }

    /// What the daemon has written to its log.
    fn log(&self) -> String {
        self.run(&["journalctl", "--no-pager", "--output=cat", "--unit=fencewired"]).stdout
    }

    /// A property of the unit.
    #[track_caller]
    fn shown(&self, property: &str) -> String {
        let property = format!("--property={property}");
        self.well(&["systemctl", "show", "--value", &property, "fencewired"]).trim().to_owned()
    }

    #[track_caller]
    fn signal(&self, signal: &str) {
        self.well(&["systemctl", "kill", "--kill-whom=main", &format!("--signal={signal}"), "fencewired"]);
    }

    /// Waits until another process than this serves.
    #[track_caller]
    fn wait_for_successor_of(&self, process: &str) -> String {
        wait_until(SLOW, "the daemon to be started again", || {
            let now = self.shown("MainPID");
            (now != process && now != "0" && self.shown("ActiveState") == "active").then_some(now)
        })
    }

    #[track_caller]
    fn agent(&self, action: &str) -> Finished {
        self.run(&["fence_wire", "-D", "/run/fencewire/vm1.sock", "-o", action, "-n", "vm2"])
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // With the first process of a namespace all others end.
        self.process.kill();
        // They are empty a moment later. A panic here could hide another.
        let end = Instant::now() + SLOW;
        while remove_cgroup(&self.cgroup).is_err() && Instant::now() < end {
            thread::yield_now();
        }
    }
}

const CONFIGURATION: &str = r#"
[[hypervisor]]
uri = "test:///etc/fencewire/guests.xml"
[[channel]]
kind = "unix-listen"
path = "/run/fencewire/vm1.sock"
guest = "vm1"
[[group]]
name = "both"
members = ["vm1", "vm2"]
[wire]
classic = true
"#;

/// This process's own, in the hierarchy of version 2, wherever that is.
#[track_caller]
fn own_cgroup() -> PathBuf {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_else(|why| panic!("{file}: {why}"));
    let mounts = read("/proc/self/mounts");
    let is_v2 = |line: &&str| line.split(' ').nth(2) == Some("cgroup2");
    let mount = mounts.lines().find(is_v2).and_then(|line| line.split(' ').nth(1));
    let mount = mount.expect("a mounted cgroup2 hierarchy, in which this test may make a group");
    let own = read("/proc/self/cgroup");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("a cgroup of version 2");
    Path::new(mount).join(own)
}

/// From the leaves up: such folders are removed when nothing but files of the kernel's is in them.
fn remove_cgroup(folder: &Path) -> std::io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

#[test]
fn installed_enabled_started_it_fences_and_is_always_started_again() {
    let booted = Booted::start();
    let enabled = booted.run(&["systemctl", "enable", "--now", "fencewired"]);
    assert_eq!(enabled.code, Some(0), "{}{}{}", enabled.stderr, booted.log(), booted.process.stderr());
    assert_eq!(booted.well(&["systemctl", "is-enabled", "fencewired"]), "enabled\n");
    assert_eq!(booted.shown("StatusText"), "serving; channels: 1");

    // It does what it is there for, as its own user, in the folders that are made for it.
    assert_eq!(booted.agent("off").code, Some(0), "{}", booted.log());
    assert_eq!(booted.agent("status").code, Some(2), "{}", booted.log());
    let owners = "stat --format='%U %a' /run/fencewire /run/fencewire/journal /var/log/fencewire \
                  /var/log/fencewire/records.jsonl /run/fencewire/control.sock /var/lib/fencewire \
                  /var/lib/fencewire/away";
    let owners = booted.well(&["sh", "-c", owners]);
    assert_eq!(
        owners,
        "fencewire 755\nfencewire 700\nfencewire 750\nfencewire 600\nfencewire 660\nfencewire 700\nfencewire 600\n"
    );
    assert!(booted.well(&["fencewired", "status"]).contains("/run/fencewire/vm1.sock"));
    let first = booted.shown("MainPID");
    let status = booted.well(&["cat", &format!("/proc/{first}/status")]);
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "no {line:?} in\n{status}");
    }

    // A hung one is found out, killed and started again, and its successor knows what it did.
    booted.signal("SIGSTOP");
    let mut process = booted.wait_for_successor_of(&first);
    assert!(booted.log().contains("requests of an earlier run are remembered"), "{}", booted.log());

    // So is one that was killed: more often than systemd's own limit, five times in ten seconds.
    for _ in 0..6 {
        booted.signal("SIGKILL");
        process = booted.wait_for_successor_of(&process);
    }
    // And one that ended by itself, as it was asked to by somebody else than systemd.
    booted.signal("SIGTERM");
    process = booted.wait_for_successor_of(&process);
    assert_eq!(booted.agent("status").code, Some(0), "the test driver's guests are those of the new process");

    // One that cannot start is tried until it can.
    let (file, away) = ("/etc/fencewire/fencewired.toml", "/etc/fencewire/away");
    booted.well(&["mv", file, away]);
    booted.signal("SIGKILL");
    wait_until(SLOW, "the daemon to fail", || booted.log().contains(&format!("{file}: ")).then_some(()));
    booted.well(&["mv", away, file]);
    booted.wait_for_successor_of(&process);

    // Only who stops it stops it; and what it knows is kept.
    booted.well(&["systemctl", "stop", "fencewired"]);
    assert_eq!((booted.shown("ActiveState"), booted.shown("Result")), ("inactive".into(), "success".into()));
    let journal = booted.well(&["sh", "-c", "ls /run/fencewire/journal | grep -vc ^instance$"]);
    assert_eq!(journal.trim(), "1", "{}", booted.log());
}
