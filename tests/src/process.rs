//! Programs that a test starts, and waiting with a deadline.
//!
//! A [`Process`] is killed and reaped when it is dropped, so a test that panics leaves nothing running. Its output goes
//! to unlinked files: it can be read at any time, a child that says much never blocks, and a grandchild that keeps the
//! output open holds nobody up.

use std::env;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, setrlimit};

/// How long a test waits for what takes milliseconds when nothing is broken. Generous, because the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Runs `command` to its end with nothing on its standard input.
///
/// # Panics
/// When it cannot be started, or is still running after `deadline`; it is killed then.
#[track_caller]
pub fn run(command: &mut Command, deadline: Duration) -> Finished {
    Process::start(command).wait(deadline)
}

/// Runs `command` to its end with `input` on its standard input, which then ends.
///
/// # Panics
/// When it cannot be started, or is still running after `deadline`; it is killed then.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &[u8], deadline: Duration) -> Finished {
    Process::start_with_input(command, input).wait(deadline)
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// From just before its start until its end was noticed.
    pub elapsed: Duration,
}

/// A running program with its output captured; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Refers to this very process, whatever happens to its number.
    pidfd: OwnedFd,
    stdout: File,
    stderr: File,
    started: Instant,
    ended: Option<(ExitStatus, Duration)>,
}

impl Process {
    /// Starts `command` with nothing on its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(command)
    }

    /// Starts `command` and writes `input` to its standard input, which then ends.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start_with_input(command: &mut Command, input: &[u8]) -> Self {
        command.stdin(Stdio::piped());
        let mut process = Self::spawn(command);
        let mut pipe = process.child.stdin.take().expect("standard input was made a pipe");
        let input = input.to_vec();
        // From a thread: a child that does not read must not stop the test. It may also end before it has read all,
        // which is its own affair; the write error says no more than that.
        thread::spawn(move || drop(pipe.write_all(&input)));
        process
    }

    /// Starts `command` with a pipe on its standard input, which ends when the pipe is dropped.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start_with_pipe(command: &mut Command) -> (Self, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut process = Self::spawn(command);
        let pipe = process.child.stdin.take().expect("standard input was made a pipe");
        (process, pipe)
    }

    /// Starts `command` with a file of ours as its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start_with_file(command: &mut Command, file: OwnedFd) -> Self {
        command.stdin(file);
        Self::spawn(command)
    }

    #[track_caller]
    fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let capture = || tempfile::tempfile().expect("a temporary file for a program's output");
        let (stdout, stderr) = (capture(), capture());
        let copy = |file: &File| file.try_clone().expect("a second handle of a temporary file");
        command.stdout(copy(&stdout)).stderr(copy(&stderr));
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap_or_else(|error| {
            drop(child.kill());
            drop(child.wait());
            panic!("no pidfd for {name}: {error}; Linux 5.3 or newer is needed")
        });
        Self { name, child, pidfd, stdout, stderr, started, ended: None }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kilobytes of it that were resident at most, at any time before now.
    ///
    /// # Panics
    /// When it has ended.
    #[track_caller]
    pub fn resident(&self) -> u32 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number of kilobytes")
    }

    /// What it has written to standard output until now. Many programs write to a file only in large pieces.
    pub fn stdout(&self) -> String {
        written(&self.stdout)
    }

    /// What it has written to standard error until now.
    pub fn stderr(&self) -> String {
        written(&self.stderr)
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        !self.reap_within(Duration::ZERO)
    }

    /// Whether it ends within that time.
    pub fn ends_within(&mut self, time: Duration) -> bool {
        self.reap_within(time)
    }

    /// Sends it a signal; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        // The only error left is that it has ended.
        pidfd_send_signal(&self.pidfd, signal).ok();
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// When it is still running after `deadline`; it is killed then.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> Finished {
        if !self.reap_within(deadline) {
            self.kill();
            panic!(
                "{} was still running after {deadline:?}; it had written\n{}\nand to standard error\n{}",
                self.name,
                self.stdout(),
                self.stderr(),
            );
        }
        self.finished()
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// When it is still running after `deadline`; it is killed then.
    #[track_caller]
    pub fn stop(&mut self, deadline: Duration) -> Finished {
        self.signal(Signal::TERM);
        self.wait(deadline)
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> Finished {
        self.signal(Signal::KILL);
        // Bounded only by the kernel, which does not leave a killed process waiting.
        while !self.reap_within(DEADLINE) {}
        self.finished()
    }

    /// Whether it has ended and was reaped, at the latest after `deadline`.
    fn reap_within(&mut self, deadline: Duration) -> bool {
        if self.ended.is_none() && readable(&self.pidfd, deadline) {
            let elapsed = self.started.elapsed();
            let status = self.child.wait().expect("a child that has ended can be reaped");
            self.ended = Some((status, elapsed));
        }
        self.ended.is_some()
    }

    fn finished(&self) -> Finished {
        let (status, elapsed) = self.ended.expect("called after the child was reaped");
        Finished { code: status.code(), signal: status.signal(), stdout: self.stdout(), stderr: self.stderr(), elapsed }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill();
        }
    }
}

/// Reads by position: the child writes at the position that both handles share.
fn written(file: &File) -> String {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = vec![0; usize::try_from(length).expect("output fits in memory")];
    let end = match file.read_at(&mut bytes, 0) {
        Ok(read) => read,
        Err(error) => panic!("a program's output cannot be read back: {error}"),
    };
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Finds a program in `PATH`, `/usr/sbin` or `/sbin`.
///
/// # Panics
/// With a sentence that names the program and the Debian package that has it, where it is missing.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let Some(found) = folders.map(|folder| folder.join(name)).find(|candidate| is_program(candidate)) else {
        let package = package_of(name);
        panic!("the program {name} is missing: it is in the Debian package {package} (apt-get install {package})")
    };
    found
}

/// The Debian package of a program that the beds use.
fn package_of(name: &str) -> &str {
    match name {
        "fence_virt" | "fence_xvm" => "fence-virt",
        "fence_virtd" => "fence-virtd",
        "fence_dummy" => "fence-agents",
        "virsh" => "libvirt-clients",
        "libvirtd" => "libvirt-daemon-system",
        "qemu-system-x86_64" => "qemu-system-x86",
        "busybox" => "busybox-static",
        "mke2fs" => "e2fsprogs",
        "pacemakerd" => "pacemaker",
        "crm_mon" | "crm_node" | "crm_resource" | "crm_verify" | "cibadmin" | "stonith_admin" => "pacemaker-cli-utils",
        "crm" => "crmsh",
        "ip" => "iproute2",
        "nsenter" | "setpriv" | "unshare" => "util-linux",
        "udevadm" => "udev",
        "xmllint" => "libxml2-utils",
        _ if name.starts_with("systemd") => "systemd",
        // Named like their packages: make, socat, corosync, pcs, strace, ...
        _ => name,
    }
}

/// A program of the tests' own, from `src/bin`, which cargo has built together with the test that asks for it.
///
/// # Panics
/// Where it is missing.
#[track_caller]
pub fn of_the_tests(name: &str) -> PathBuf {
    let this = env::current_exe().expect("a test has a path");
    // A test lies in a folder below the one with the programs.
    let found = this.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| is_program(path));
    found.unwrap_or_else(|| panic!("{name} is missing: `cargo build -p fencewire-tests --bin {name}` makes it"))
}

/// One of our own programs (`fencewired`, `fence_wire`): in the folder that `FENCEWIRE_PROGRAMS` names, else where
/// `make build` puts them.
///
/// # Panics
/// With "run `make build`" where it is missing.
#[track_caller]
pub fn ours(name: &str) -> PathBuf {
    let folder = env::var_os("FENCEWIRE_PROGRAMS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("release"), PathBuf::from);
    let path = folder.join(name);
    assert!(is_program(&path), "our own program {} is missing: run `make build`", path.display());
    path
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// How much time of a processor the process of that number has had since it was started.
///
/// # Panics
/// When it has ended.
#[track_caller]
pub fn processor_time(id: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("a running process");
    // Behind the name, which may hold anything; in hundredths of a second, whatever the kernel's own clock is.
    let (_, fields) = text.rsplit_once(") ").expect("its name");
    let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number"));
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// Polls `probe` until it gives a value, and returns that.
///
/// # Panics
/// After `deadline`, naming `what` was waited for.
#[track_caller]
pub fn wait_until<T>(deadline: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    /// Short beside anything that is worth waiting for, long beside a probe.
    const INTERVAL: Duration = Duration::from_millis(2);

    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "waited {deadline:?} for {what}");
        thread::sleep(INTERVAL);
    }
}

/// Lets this process, and what it starts from now on, hold as many files open as the system allows at all.
///
/// # Panics
/// When the system refuses.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("the soft limit may always be raised to the hard one");
}

/// Whether `fd` has something to read, an end or an error, at the latest after `deadline`.
pub(crate) fn readable(fd: &impl AsFd, deadline: Duration) -> bool {
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a deadline of a test fits");
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll failed: {}", io::Error::from(error)),
        }
    }
}
