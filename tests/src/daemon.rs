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
//! respectively from before it answered, so whoever waits from when he saw that is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use fencewire_core::listener;
use serde_json::Value;
use tempfile::TempDir;

use crate::fence_virt::{Far, Pump};
use crate::guest_channel::{GuestChannel, HostList, MONITOR, SUCCESS, fresh_seqno, request};
use crate::libvirt_file::{Guest, LibvirtFile};
use crate::process::{DEADLINE, Finished, Process, ours, wait_until};

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

/// What a [`Daemon`] is to serve, and how.
#[derive(Debug)]
pub struct Setup {
    folder: TempDir,
    uri: Option<String>,
    guests: Vec<Guest>,
    served: Vec<String>,
    virtio: BTreeSet<String>,
    channels: String,
    groups: String,
    hypervisor: String,
    wire: String,
    file_limit: Option<u32>,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// Adds guests, each with a channel of kind `unix` on which the bed listens.
    #[must_use]
    pub fn served(mut self, guests: impl IntoIterator<Item = Guest>) -> Self {
        for guest in guests {
            self.served.push(guest.name().to_owned());
            self.guests.push(guest);
        }
        self
    }

    /// Adds guests whose channels are virtio ports.
    #[must_use]
    pub fn served_by_virtio(mut self, guests: impl IntoIterator<Item = Guest>) -> Self {
        for guest in guests {
            self.virtio.insert(guest.name().to_owned());
            self = self.served([guest]);
        }
        self
    }

    /// Adds guests without a channel.
    #[must_use]
    pub fn known(mut self, guests: impl IntoIterator<Item = Guest>) -> Self {
        self.guests.extend(guests);
        self
    }

    /// Uses another hypervisor than the bed's own. The bed's guests are then names for channels and groups only.
    #[must_use]
    pub fn uri(mut self, uri: &str) -> Self {
        self.uri = Some(uri.to_owned());
        self
    }

    /// Adds a line to `[[hypervisor]]`.
    #[must_use]
    pub fn hypervisor(mut self, line: &str) -> Self {
        push_line(&mut self.hypervisor, line);
        self
    }

    /// Adds a line to `[wire]`.
    #[must_use]
    pub fn wire(mut self, line: &str) -> Self {
        push_line(&mut self.wire, line);
        self
    }

    /// Adds a channel that the bed does not listen on.
    #[must_use]
    pub fn channel(mut self, kind: &str, path: &Path, guest: &str) -> Self {
        push_channel(&mut self.channels, kind, path, guest);
        self
    }

    /// Adds a group, with further lines for it. The first one takes the place of the group of everybody.
    #[must_use]
    pub fn group(mut self, name: &str, members: &[&str], lines: &str) -> Self {
        push_group(&mut self.groups, name, members.iter().copied(), lines);
        self
    }

    /// Starts the daemon with this soft limit of open files.
    #[must_use]
    pub fn file_limit(mut self, limit: u32) -> Self {
        self.file_limit = Some(limit);
        self
    }

    /// Starts the daemon with this variable in its environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The bed's folder, for paths that a test needs before the daemon runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the daemon and waits until it answers on every channel that the bed listens on.
    ///
    /// # Panics
    /// When it does not come up, or does not answer that it is well.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let mut daemon = self.launch();
        daemon.connect();
        daemon
    }

    /// Starts the daemon and waits for nothing.
    ///
    /// # Panics
    /// When it cannot be started at all.
    #[track_caller]
    pub fn launch(mut self) -> Daemon {
        let at = |name: &str| self.folder.path().join(name);
        let mut channels = BTreeMap::new();
        for (number, name) in self.served.iter().enumerate() {
            // By number: a name may hold what a path may not.
            let channel = GuestChannel::listen_at(at(&format!("{number}.sock")));
            push_channel(&mut self.channels, "unix", channel.path(), name);
            if self.virtio.contains(name) {
                push_line(&mut self.channels, "port = \"virtio\"");
            }
            channels.insert(name.clone(), channel);
        }
        let uri = self.uri.take().unwrap_or_else(|| {
            let file = LibvirtFile::new(at("guests.xml"));
            file.guests(self.guests.iter().cloned()).write()
        });
        if self.groups.is_empty() {
            let everybody = self.guests.iter().map(Guest::name);
            push_group(&mut self.groups, "everybody", everybody, "");
        }
        fs::write(at("fencewired.toml"), self.configuration(&uri)).expect("a configuration file");
        let process = start(&at("fencewired.toml"), self.file_limit, &self.environment);
        let Self { served, file_limit, environment, folder, .. } = self;
        Daemon { process, channels, served, pumps: Vec::new(), file_limit, environment, folder }
    }

    fn configuration(&self, uri: &str) -> String {
        let Self { folder, channels, groups, hypervisor, wire, .. } = self;
        let folder = folder.path().to_str().expect("a test's paths are UTF-8");
        format!(
            "[[hypervisor]]
uri = {uri}
{hypervisor}
[wire]
classic = true
{wire}
[records]
path = {records}

[control]
journal = {journal}
{channels}{groups}",
            uri = quoted(uri),
            records = quoted(&format!("{folder}/records.jsonl")),
            journal = quoted(&format!("{folder}/journal")),
        )
    }
}

fn push_line(section: &mut String, line: &str) {
    writeln!(section, "{line}").expect("a String takes everything");
}

fn push_channel(channels: &mut String, kind: &str, path: &Path, guest: &str) {
    let path = quoted(path.to_str().expect("a test's paths are UTF-8"));
    let guest = quoted(guest);
    write!(channels, "\n[[channel]]\nkind = \"{kind}\"\npath = {path}\nguest = {guest}\n")
        .expect("a String takes everything");
}

fn push_group<'a>(groups: &mut String, name: &str, members: impl Iterator<Item = &'a str>, lines: &str) {
    let members: Vec<_> = members.map(quoted).collect();
    let (name, members) = (quoted(name), members.join(", "));
    write!(groups, "\n[[group]]\nname = {name}\nmembers = [{members}]\nbudget_per_minute = 100000\n{lines}\n")
        .expect("a String takes everything");
}

/// A TOML string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ if letter.is_control() => {
                write!(quoted, "\\u{:04x}", u32::from(letter)).expect("a String takes everything");
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

fn start(config: &Path, file_limit: Option<u32>, environment: &[(String, String)]) -> Process {
    let program = ours("fencewired");
    let mut command = match file_limit {
        None => Command::new(program),
        Some(limit) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("ulimit -Sn {limit} && exec \"$0\" \"$@\"")).arg(program);
            shell
        }
    };
    // What a service manager told us is not for it.
    for name in ["FENCEWIRED_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    Process::start(command.arg("--config").arg(config))
}

/// A running `fencewired`; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    /// The first field: dropped before the sockets and the folder that it uses.
    process: Process,
    channels: BTreeMap<String, GuestChannel>,
    served: Vec<String>,
    pumps: Vec<Pump>,
    file_limit: Option<u32>,
    environment: Vec<(String, String)>,
    folder: TempDir,
}

impl Daemon {
    /// What the daemon is to serve: nobody, until guests are added.
    ///
    /// # Panics
    /// When there is no folder to be had.
    pub fn setup() -> Setup {
        Setup {
            folder: tempfile::tempdir().expect("a private folder"),
            uri: None,
            guests: Vec::new(),
            served: Vec::new(),
            virtio: BTreeSet::new(),
            channels: String::new(),
            groups: String::new(),
            hypervisor: String::new(),
            wire: String::new(),
            file_limit: None,
            environment: Vec::new(),
        }
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
        let begun = fs::read_dir(self.journal()).expect("the journal's folder").count();
        assert_eq!(begun, 0, "nothing was to be begun");
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
        self.process = start(&self.config(), self.file_limit, &self.environment);
        self.connect();
    }

    /// Takes the daemon's connections, then asks on each of them, for only an answer says that it serves.
    #[track_caller]
    fn connect(&mut self) {
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
