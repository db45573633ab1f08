//! The real `fencewired` as a process, on libvirt's test driver.
//!
//! ```no_run
//! # use fencewire_tests::{daemon::{Daemon, ask}, guest_channel::{OFF, SUCCESS}, libvirt_file::Guest};
//! let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
//! assert_eq!(ask(&mut daemon.channel("vm1"), OFF, "vm2"), SUCCESS);
//! let records = daemon.stop_and_read_records();
//! ```
//!
//! Unless a test says otherwise: a served guest has a channel of kind `unix` on which the bed listens, everybody is in
//! one group whose budget is never used up, the classic wire is on, and records and journal are in the bed's own folder.
//!
//! What a bridge reads in the first 200 ms after it connected a channel, and after it fenced the guest at its end, it
//! discards. [`settle`] waits that time out. That is exact and not a guess: the bridge counts from before it connected,
//! respectively from before it answered, so whoever waits from when he saw that is read. With `classic_virtio = true` it
//! also discards what comes first by a virtio port: see [`bridge_bed::settle`](crate::bridge_bed::settle).

mod setup;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use fencewire_core::listener;
use serde_json::Value;
use tempfile::TempDir;

use crate::bridge_bed::settle as settle_heard;
use crate::fence_virt::{Far, Pump};
use crate::guest_channel::{GuestChannel, HostList, MONITOR, SUCCESS, fresh_seqno, request};
use crate::libvirt_file::Guest;
use crate::process::{DEADLINE, Finished, Process, ours, processor_time, program, run, wait_until};
use crate::tcp_channel::TcpChannel;

pub use setup::Setup;

/// It may take 30 s to end, when a power action hangs.
const STOP_DEADLINE: Duration = Duration::from_secs(45);

/// Sends a fresh request and reads the response byte.
///
/// # Panics
/// When no reply comes, or something else than a reply.
#[track_caller]
pub fn ask(channel: &mut GuestChannel, action: u8, target: &str) -> u8 {
    channel.ask(&request(action, target.as_bytes(), fresh_seqno()), DEADLINE)
}

/// Waits until nothing that is sent from now on is discarded: after a channel was seen connected, and after a guest was
/// seen fenced whose channel is to be used.
pub fn settle() {
    thread::sleep(Duration::from_millis(listener::SETTLE.0 + 1));
}

/// Debian's `nobody`.
const NOBODY: u32 = 65_534;

/// How the daemon is started.
#[derive(Debug)]
struct How {
    file_limit: Option<u32>,
    log: Option<PathBuf>,
    environment: Vec<(String, String)>,
    /// What `nobody` is to run. None: whoever the test is runs our own program where it was built.
    program: Option<PathBuf>,
}

impl How {
    fn start(&self, config: &Path) -> Process {
        let limit = self.file_limit.map(|limit| format!("ulimit -Sn {limit} && ")).unwrap_or_default();
        let nobody = self
            .program
            .as_ref()
            .map(|_| format!("{} --reuid={NOBODY} --regid={NOBODY} --clear-groups ", program("setpriv").display()));
        let before = format!("{limit}exec {}", nobody.unwrap_or_default());
        let mut command = Command::new("sh");
        match &self.log {
            None => command.arg("-c").arg(format!("{before}\"$0\" \"$@\"")),
            Some(path) => command.env("LOG", path).arg("-c").arg(format!("{before}\"$0\" \"$@\" 2>>\"$LOG\"")),
        };
        command.arg(self.program.clone().unwrap_or_else(|| ours("fencewired")));
        // What a service manager told us is not for it.
        for name in ["FENCEWIRED_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::start(command.arg("--config").arg(config))
    }
}

/// A running `fencewired`; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    /// The first field: dropped before the sockets and the folder that it uses.
    process: Process,
    channels: BTreeMap<String, GuestChannel>,
    served: Vec<String>,
    virtio: BTreeSet<String>,
    tcp: Vec<TcpChannel>,
    pumps: Vec<Pump>,
    how: How,
    folder: TempDir,
}

impl Daemon {
    /// What the daemon is to serve: nobody, until guests are added.
    ///
    /// # Panics
    /// When there is no folder to be had.
    pub fn setup() -> Setup {
        Setup::new()
    }

    /// A daemon that serves these guests, all in one group.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn serve(guests: impl IntoIterator<Item = Guest>) -> Self {
        Self::setup().served(guests).start()
    }

    /// The guest's side of its channel, connected. It is the caller's from then on.
    ///
    /// # Panics
    /// When the guest has none, or it was taken before.
    #[track_caller]
    pub fn channel(&mut self, guest: &str) -> GuestChannel {
        self.channels.remove(guest).unwrap_or_else(|| panic!("the bed has no channel of {guest}, or not any more"))
    }

    /// A unix socket that listens, and whose connections, one at a time, lead to the daemon by the guest's channel: for
    /// a program that connects, such as our agent with `-D`. The channel is this socket's alone.
    ///
    /// # Panics
    /// When the guest has no channel, or it was taken before.
    #[track_caller]
    pub fn socket_path(&mut self, guest: &str) -> PathBuf {
        let channel = self.channel(guest);
        let path = self.folder.path().join(format!("agent-{}.sock", self.pumps.len()));
        let listener =
            UnixListener::bind(&path).unwrap_or_else(|error| panic!("cannot listen at {}: {error}", path.display()));
        let near = channel.stream().try_clone().expect("a second handle of a socket");
        self.pumps.push(Pump::start(Far::Listening(listener), near.into()));
        path
    }

    /// Every channel that was not taken yet.
    pub fn channels(&mut self) -> BTreeMap<String, GuestChannel> {
        std::mem::take(&mut self.channels)
    }

    /// Its TCP port of that number, from 0, in the order in which they were added.
    ///
    /// # Panics
    /// When there are not so many.
    #[track_caller]
    pub fn tcp(&self, number: usize) -> &TcpChannel {
        self.tcp.get(number).unwrap_or_else(|| panic!("the bed has {} TCP ports", self.tcp.len()))
    }

    /// Waits until the daemon has connected a channel that the bed does not listen on, or was called on it, for the
    /// `nth` time, and reads what comes.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn wait_connected(&self, path: &Path, nth: usize) {
        let named = format!("channel=\"{}\"", path.display());
        wait_until(DEADLINE, &format!("connection {nth} of {}", path.display()), || {
            let log = self.log();
            let connected = log.lines().filter(|line| line.contains(" connected ") && line.contains(&named));
            (connected.count() >= nth).then_some(())
        });
        settle();
    }

    /// Waits until its log has this text, and returns the first line with it.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        wait_until(DEADLINE, &format!("{text:?} in the log"), || self.logged(text))
    }

    /// The first line of its log with this text.
    pub fn logged(&self, text: &str) -> Option<String> {
        self.log().lines().find(|line| line.contains(text)).map(str::to_owned)
    }

    /// What it has written to standard error until now.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("fencewired.toml")
    }

    /// Its control socket.
    pub fn control(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// How much time of a processor it has had since it was started.
    ///
    /// # Panics
    /// When it has ended.
    #[track_caller]
    pub fn processor_time(&self) -> Duration {
        processor_time(self.process.id())
    }

    /// Asks it with `fencewired status`, with these options.
    ///
    /// # Panics
    /// When that does not end.
    #[track_caller]
    pub fn ask_status(&self, options: &[&str]) -> Finished {
        run(Command::new(ours("fencewired")).arg("status").args(options).arg("--config").arg(self.config()), DEADLINE)
    }

    /// What it says that it does, and whether all is served.
    ///
    /// # Panics
    /// When it says nothing, or no JSON.
    #[track_caller]
    pub fn status(&self) -> (Value, bool) {
        let asked = self.ask_status(&["--json"]);
        assert!(matches!(asked.code, Some(0 | 1)), "{}", asked.stderr);
        (serde_json::from_str(&asked.stdout).expect("a document"), asked.code == Some(0))
    }

    /// Its journal's folder.
    pub fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// The process itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has recorded until now, in order. A record is written after its answer is sent: to have all of them,
    /// [stop it](Self::stop_and_read_records).
    ///
    /// # Panics
    /// When a line is no JSON object.
    #[track_caller]
    pub fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("records.jsonl")).unwrap_or_default();
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|why| panic!("a record is no JSON ({why}): {line}"));
        whole.lines().map(parse).collect()
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn stop(&mut self) -> Finished {
        self.process.stop(STOP_DEADLINE)
    }

    /// Stops it and returns all that it has recorded.
    ///
    /// # Panics
    /// When it does not end, or ends with an error.
    #[track_caller]
    pub fn stop_and_read_records(&mut self) -> Vec<Value> {
        let finished = self.stop();
        assert_eq!((finished.code, finished.signal), (Some(0), None), "{}", finished.stderr);
        self.records()
    }

    /// Stops it and says that it has begun nothing, by its records as by its journal.
    ///
    /// # Panics
    /// When it has, or does not end, or ends with an error.
    #[track_caller]
    pub fn stop_and_expect_no_act(&mut self) {
        let records = self.stop_and_read_records();
        let acts = acts(&records);
        assert!(acts.is_empty(), "nothing was to be done: {acts:#?}");
        // What is begun is written there before anything else, and is still there a minute later.
        assert_eq!(self.journaled(), Vec::<PathBuf>::new(), "nothing was to be begun");
    }

    /// The journal's files, one for each request. Its name is of none.
    ///
    /// # Panics
    /// When the folder cannot be read.
    pub fn journaled(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.journal()).expect("the journal's folder");
        let paths = files.map(|file| file.expect("a folder's entry").path());
        paths.filter(|path| !path.ends_with("instance")).collect()
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) -> Finished {
        self.process.kill()
    }

    /// Starts it again on the same configuration, folder and sockets, and waits until it answers on every channel that
    /// was not taken. The hypervisor's state is as in the beginning: it lives in the daemon.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process.kill();
        self.process = self.how.start(&self.config());
        self.connect();
    }

    /// Takes the daemon's connections, then asks on each of them, for only an answer says that it serves.
    #[track_caller]
    fn connect(&mut self) {
        for channel in &self.tcp {
            self.wait_for_log(&format!("listening channel=\"{}\"", channel.name()));
        }
        for name in &self.served {
            let Some(channel) = self.channels.get_mut(name) else { continue };
            if !channel.accept_within(DEADLINE) {
                let said = end_of(&self.process.kill().stderr);
                panic!("fencewired has not connected to the channel of {name}; it said\n{said}");
            }
        }
        if self.channels.is_empty() {
            return;
        }
        settle();
        // What comes first by one of these may be discarded.
        settle_heard(
            self.channels.iter_mut().filter(|(name, _)| self.virtio.contains(*name)).map(|(_, channel)| channel),
        );
        for (name, channel) in &mut self.channels {
            let answer = ask(channel, MONITOR, "");
            assert_eq!(answer, SUCCESS, "{name} asks whether the bridge is well\n{}", end_of(&self.process.stderr()));
        }
    }
}

/// The last lines of a log, as many as one wants to see under a failure.
fn end_of(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Asks over `channel` for a list and says of each guest on it whether it is on (1) or off (5).
///
/// # Panics
/// When no whole list comes.
#[track_caller]
pub fn states(channel: &mut GuestChannel) -> BTreeMap<String, u8> {
    let HostList { entries, last } = channel.ask_list(DEADLINE);
    assert_eq!(last, SUCCESS, "the list's last word");
    entries.into_iter().map(|entry| (entry.name, entry.state)).collect()
}

/// The records of power actions that were begun: neither denied nor refused before anything was done.
pub fn acts(records: &[Value]) -> Vec<&Value> {
    let is_power = |record: &Value| matches!(record["action"].as_str(), Some("off" | "reboot" | "on"));
    let is_nothing = |record: &Value| {
        let outcome = record["outcome"].as_str().unwrap_or_default();
        outcome == "denied" || outcome == "no such guest" || outcome.starts_with("refused")
    };
    records.iter().filter(|record| is_power(record) && !is_nothing(record)).collect()
}
