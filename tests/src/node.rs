//! A cluster node for Pacemaker's programs, without a machine: mounts, network and shared memory of its own.
//!
//! In it `/usr/sbin` has every program that it has outside but no fence agents, only ours; Pacemaker's folders are empty;
//! and what listens on a name in memory, as Pacemaker's daemons do, is not seen outside. Nothing of the system is
//! written to, and all of it is gone when the node is dropped. Files elsewhere, `/tmp` among them, are those of outside,
//! unix sockets in them too: so a bridge outside can be reached.
//!
//! As root this takes the right to mount; as anybody else, user namespaces, in which one is root. For both to be the
//! same, Pacemaker's user and group are root in there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{DEADLINE, Finished, Process, ours, program, run, wait_until};

/// What Pacemaker's programs may take: some start an interpreter, and ask twenty agents for their metadata.
pub const TOOL_DEADLINE: Duration = Duration::from_mins(2);

/// Makes the node, in its namespaces; the folder is `$1`. Mode 755: in a folder that everybody may write to the kernel
/// keeps even root from opening somebody else's files.
const SET_UP: &str = r#"
own() { mount -t tmpfs -o mode=755 none "$1"; }
own /run
own /dev/shm
own /var/lib/pacemaker
own /var/log/pacemaker
own /var/log/crmsh
mkdir /run/crm /run/sbin /var/lib/pacemaker/blackbox /var/lib/pacemaker/cib /var/lib/pacemaker/cores /var/lib/pacemaker/pengine
sed 's/^hacluster:x:[0-9]*:[0-9]*:/hacluster:x:0:0:/' /etc/passwd >/run/passwd
sed 's/^haclient:x:[0-9]*:/haclient:x:0:/' /etc/group >/run/group
mount --bind /run/passwd /etc/passwd
mount --bind /run/group /etc/group
mount --bind /usr/sbin /run/sbin
own /usr/sbin
for program in /run/sbin/*; do
    case $program in */fence_*) ;; *) ln -s "$program" /usr/sbin/ ;; esac
done
cp "$1/fence_wire" /usr/sbin/fence_wire
echo ready
exec sleep infinity
"#;

/// The node; gone when dropped.
#[derive(Debug)]
pub struct Node {
    /// Keeps the namespaces. The first field: dropped before the folder.
    holder: Process,
    folder: TempDir,
}

impl Node {
    /// A node that has our agent.
    ///
    /// # Panics
    /// When it cannot be made: a program is missing, or the right to make namespaces.
    #[track_caller]
    pub fn start() -> Self {
        // Their packages make the folders that are hidden below.
        for name in ["stonith_admin", "crm"] {
            program(name);
        }
        let folder = tempfile::tempdir().expect("a private folder");
        // The program may lie where the user that we are in there may not go.
        fs::copy(ours("fence_wire"), folder.path().join("fence_wire")).expect("a copy of the agent");
        let mut command = Command::new(program("unshare"));
        if !is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "--net", "--ipc", "sh", "-euc", SET_UP, "sh"]).arg(folder.path());
        let mut holder = Process::start(&mut command);
        wait_until(DEADLINE, "a node for Pacemaker's programs", || {
            let made = holder.stdout().contains("ready");
            assert!(made || holder.is_running(), "the node cannot be made: {}", holder.stderr());
            made.then_some(())
        });
        Self { holder, folder }
    }

    /// A path that is the same inside and outside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Adds an agent that is a shell script.
    ///
    /// # Panics
    /// When it cannot be written.
    #[track_caller]
    pub fn add_agent(&self, name: &str, script: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}")).expect("a script");
        let installed = self.run("install", &["-m", "755", &path.display().to_string(), "/usr/sbin"]);
        assert_eq!(installed.code, Some(0), "{}", installed.stderr);
    }

    /// A program that is to run in the node: its name, or its path.
    ///
    /// # Panics
    /// When it is missing.
    #[track_caller]
    pub fn command(&self, name: &str) -> Command {
        let path = if name.starts_with('/') { Path::new(name).to_owned() } else { program(name) };
        assert!(path.exists(), "the program {name} is missing: it is in the Debian package pacemaker");
        let mut command = Command::new(program("nsenter"));
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--mount", "--net", "--ipc", "--target", &self.holder.id().to_string()]).arg(path);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8").env("HOME", self.folder.path());
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_CACHE_HOME");
        command
    }

    /// Runs a program in the node to its end.
    ///
    /// # Panics
    /// When it is missing, or does not end.
    #[track_caller]
    pub fn run(&self, name: &str, arguments: &[&str]) -> Finished {
        run(self.command(name).args(arguments), TOOL_DEADLINE)
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
