//! The bridge itself, in this process, between a [`ScriptedHypervisor`] and [`GuestChannel`]s.
//!
//! ```text
//! test ──▶ GuestChannel (listens) ◀── bridge (a thread) ──▶ ScriptedHypervisor
//! ```
//!
//! Without more said, every guest of the hypervisor is in one group that may do everything over the classic wire, and
//! has a serial channel, unless there are TCP ports. A bridge discards what comes in its first 200 ms on a channel; the
//! bed asks each channel until it is answered, so what a test sends afterwards counts.
//!
//! Journal and records are in a private folder. [`BridgeBed::restart`] ends the bridge as SIGTERM would and starts
//! another on the same journal. What SIGKILL would leave is had by [`BridgeBed::journal_now`]: a copy of the journal at
//! this very moment, on which a second bridge can be [started](Setup::journal) while the first one still hangs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fencewire_core::listener::SETTLE;
use fencewired::bridge::{Bridge, CannotStart, Handle};
use fencewired::config::{self, Config};
use fencewired::power::hypervisor::Source;
use tempfile::TempDir;

use crate::guest_channel::{
    ENTRY_LENGTH, GuestChannel, HOST_LIST_FOLLOWS, LIST, MONITOR, REPLY_LENGTH, SUCCESS, fresh_seqno, reply, request,
};
use crate::process::{DEADLINE, wait_until};
use crate::scripted::ScriptedHypervisor;
use crate::tcp_channel::{KEY, TcpChannel};

/// How long a monitor's answer is waited for before it is asked again: a little longer than the bridge discards what
/// comes on a new connection.
const ASK_AGAIN: Duration = Duration::from_millis(SETTLE.0 + 5);

/// The records' file, in the bed's folder.
const RECORDS: &str = "records.jsonl";
/// The folder for what outlives the host's restart, in that of the bed.
const STATE: &str = "state";

/// What a bridge is to serve, before it starts.
#[derive(Debug)]
pub struct Setup {
    hypervisor: ScriptedHypervisor,
    beside: Vec<ScriptedHypervisor>,
    hypervisor_keys: String,
    wire: String,
    groups: String,
    channels: Vec<Spec>,
    /// What `[discover]` says.
    discover: String,
    finds: bool,
    tcp: Vec<TcpChannel>,
    /// What the configuration says of them.
    tcp_sections: String,
    journal: Option<PathBuf>,
    /// Where records go, without which nothing may happen.
    required_records: Option<PathBuf>,
    folder: TempDir,
}

#[derive(Debug)]
struct Spec {
    guest: String,
    keys: String,
    of_qemu: bool,
}

/// A running bridge; stopped when dropped.
#[derive(Debug)]
pub struct BridgeBed {
    /// None while it is being restarted.
    running: Option<Running>,
    hypervisors: Vec<ScriptedHypervisor>,
    config: String,
    journal: PathBuf,
    /// Those that no test has taken yet.
    channels: RefCell<BTreeMap<String, GuestChannel>>,
    tcp: Vec<TcpChannel>,
    folder: TempDir,
}

#[derive(Debug)]
struct Running {
    handle: Handle,
    thread: JoinHandle<io::Result<()>>,
}

impl Setup {
    /// Adds lines to `[[hypervisor]]`, such as `deadline_ms = 1500`.
    #[must_use]
    pub fn hypervisor(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.hypervisor_keys);
        self
    }

    /// Adds another hypervisor. Groups and channels are made for the first one's guests.
    #[must_use]
    pub fn beside(mut self, hypervisor: &ScriptedHypervisor) -> Self {
        self.beside.push(hypervisor.clone());
        self
    }

    /// Makes these lines `[wire]`, in place of `classic = true`.
    #[must_use]
    pub fn wire(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.wire);
        self
    }

    /// Adds a group of these members, with further lines such as `actions = ["status"]`.
    #[must_use]
    pub fn group(mut self, name: &str, members: &[&str], lines: &str) -> Self {
        writeln!(self.groups, "[[group]]\nname = {name:?}\nmembers = {members:?}\n{lines}")
            .expect("a String takes everything");
        self
    }

    /// Adds a channel of that guest, with further lines such as `port = "virtio"`.
    #[must_use]
    pub fn channel(mut self, guest: &str, lines: &str) -> Self {
        self.channels.push(Spec { guest: guest.to_owned(), keys: lines.to_owned(), of_qemu: false });
        self
    }

    /// Adds a serial channel of that guest at whose other end there is a QEMU, for all that the bridge can see.
    #[must_use]
    pub fn qemu_channel(mut self, guest: &str) -> Self {
        self.channels.push(Spec { guest: guest.to_owned(), keys: String::new(), of_qemu: true });
        self
    }

    /// Adds a serial channel for each of these guests. A guest that has one already gets another.
    #[must_use]
    pub fn channels<'a>(mut self, guests: impl IntoIterator<Item = &'a str>) -> Self {
        for guest in guests {
            self = self.channel(guest, "");
        }
        self
    }

    /// Has channels found, with these lines in `[discover]`; otherwise none are looked for. No channel is made for
    /// anybody then unless it is added.
    #[must_use]
    pub fn discover(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.discover);
        self.finds = true;
        self
    }

    /// Adds a TCP port whose key lets its holders target that group, with further lines for it. The group of everybody
    /// is called "all".
    #[must_use]
    pub fn tcp(mut self, group: &str, lines: &str) -> Self {
        let channel = TcpChannel::new(self.folder.path(), &KEY);
        self.tcp_sections += &channel.section(group, lines);
        self.tcp.push(channel);
        self
    }

    /// Adds a TCP port that another bed has too: where it listens, and its key.
    #[must_use]
    pub fn same_tcp(mut self, channel: &TcpChannel, group: &str) -> Self {
        self.tcp_sections += &channel.section(group, "");
        self.tcp.push(channel.clone());
        self
    }

    /// Uses that folder as its journal.
    #[must_use]
    pub fn journal(mut self, folder: &Path) -> Self {
        self.journal = Some(folder.to_owned());
        self
    }

    /// Writes records to that file, in place of one of its own, and requires them.
    #[must_use]
    pub fn required_records(mut self, file: &Path) -> Self {
        self.required_records = Some(file.to_owned());
        self
    }

    /// Starts the bridge and waits until it answers on every channel.
    ///
    /// # Panics
    /// When the configuration is none, or the bridge does not come up.
    #[track_caller]
    pub fn start(self) -> BridgeBed {
        let bed = self.launch();
        let mut channels = bed.channels.borrow_mut();
        channels.values_mut().for_each(|channel| channel.accept(DEADLINE));
        settle(channels.values_mut());
        drop(channels);
        bed
    }

    /// Starts the bridge and waits for nothing. Its channels listen; nobody has accepted the bridge there.
    ///
    /// # Panics
    /// When the configuration is none, or the bridge cannot start.
    #[track_caller]
    pub fn launch(mut self) -> BridgeBed {
        let guests: Vec<String> = self.hypervisor.names();
        if self.groups.is_empty() {
            let members: Vec<&str> = guests.iter().map(String::as_str).collect();
            self = self.group("all", &members, "");
        }
        if self.channels.is_empty() && self.tcp.is_empty() && !self.finds {
            self = self.channels(guests.iter().map(String::as_str));
        }
        let journal = self.journal.take().unwrap_or_else(|| self.folder.path().join("journal"));
        let (required, records) = match self.required_records.take() {
            Some(file) => (true, file),
            None => (false, self.folder.path().join(RECORDS)),
        };
        let state = self.folder.path().join(STATE);
        let Self { hypervisor_keys, wire, discover, groups, tcp_sections, .. } = &self;
        let hypervisors: Vec<ScriptedHypervisor> =
            [&self.hypervisor].into_iter().chain(&self.beside).cloned().collect();
        let mut text = String::new();
        for number in 0..hypervisors.len() {
            writeln!(text, "[[hypervisor]]\nuri = \"scripted:{number}\"\n{hypervisor_keys}")
                .expect("a String takes everything");
        }
        write!(
            text,
            "[wire]\n{wire}\n[discover]\n{discover}\n[records]\npath = \"{}\"\nrequired = {required}\n\
             [control]\njournal = \"{}\"\nstate = \"{}\"\n{groups}{tcp_sections}",
            records.display(),
            journal.display(),
            state.display(),
        )
        .expect("a String takes everything");
        let mut channels = BTreeMap::new();
        for Spec { guest, keys, of_qemu } in &self.channels {
            let channel = if *of_qemu { GuestChannel::listen_as_qemu() } else { GuestChannel::listen() };
            let path = channel.path().display();
            writeln!(text, "[[channel]]\nkind = \"unix\"\npath = \"{path}\"\nguest = {guest:?}\n{keys}")
                .expect("a String takes everything");
            let mut name = guest.clone();
            while channels.contains_key(&name) {
                name.push('+');
            }
            channels.insert(name, channel);
        }
        let running = Some(Running::start(&text, &hypervisors));
        let Self { tcp, folder, .. } = self;
        BridgeBed { running, hypervisors, config: text, journal, channels: RefCell::new(channels), tcp, folder }
    }
}

impl Running {
    #[track_caller]
    fn start(text: &str, hypervisors: &[ScriptedHypervisor]) -> Self {
        let config = parse(text);
        let sources = || hypervisors.iter().map(|it| Arc::new(it.clone()) as Arc<dyn Source>).collect();
        // A worker of the bridge before may hold the journal for a moment longer than that bridge ran.
        let bridge =
            wait_until(DEADLINE, "the journal of the bridge before", || match Bridge::new(config.clone(), sources()) {
                Ok(bridge) => Some(bridge),
                Err(CannotStart::Journal(why, _)) if why.kind() == io::ErrorKind::AddrInUse => None,
                Err(why) => panic!("the bridge cannot start: {why}"),
            });
        let handle = bridge.handle();
        let thread = thread::Builder::new().name("bridge".to_owned()).spawn(move || bridge.run());
        Self { handle, thread: thread.expect("a thread") }
    }

    fn stop(self) -> io::Result<()> {
        self.handle.stop();
        // A panic of the thread was printed; a second one here could abort the test program.
        self.thread.join().unwrap_or(Ok(()))
    }
}

#[track_caller]
fn parse(text: &str) -> Config {
    let loaded = config::parse(Path::new("bed.toml"), text);
    loaded.config.unwrap_or_else(|| panic!("{}\nin\n{text}", loaded.findings))
}

impl BridgeBed {
    /// What a bridge on that hypervisor is to serve.
    ///
    /// # Panics
    /// When there is no folder to be had.
    pub fn setup(hypervisor: &ScriptedHypervisor) -> Setup {
        Setup {
            hypervisor: hypervisor.clone(),
            beside: Vec::new(),
            hypervisor_keys: String::new(),
            wire: "classic = true".to_owned(),
            groups: String::new(),
            channels: Vec::new(),
            discover: "virtio_name = \"\"".to_owned(),
            finds: false,
            tcp: Vec::new(),
            tcp_sections: String::new(),
            journal: None,
            required_records: None,
            folder: tempfile::tempdir().expect("a private folder"),
        }
    }

    /// A bridge that serves every guest of that hypervisor.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(hypervisor: &ScriptedHypervisor) -> Self {
        Self::setup(hypervisor).start()
    }

    /// The guest's side of its channel, once. A guest's second channel has a plus sign after its name.
    ///
    /// # Panics
    /// When there is none, or it was taken already.
    #[track_caller]
    pub fn channel(&self, guest: &str) -> GuestChannel {
        let channel = self.channels.borrow_mut().remove(guest);
        channel.unwrap_or_else(|| panic!("{guest} has no channel, or it was taken already"))
    }

    /// Its TCP port of that number, from 0, in the order in which they were added.
    ///
    /// # Panics
    /// When there are not so many.
    #[track_caller]
    pub fn tcp(&self, number: usize) -> TcpChannel {
        self.tcp.get(number).unwrap_or_else(|| panic!("the bed has {} TCP ports", self.tcp.len())).clone()
    }

    /// Ends the bridge as SIGTERM does, starts another on the same journal, and waits until it answers on these
    /// channels. Held calls are let through.
    ///
    /// # Panics
    /// When the bridge does not end well, or does not come up again.
    #[track_caller]
    pub fn restart<'a>(&mut self, channels: impl IntoIterator<Item = &'a mut GuestChannel>) {
        self.stop();
        self.running = Some(Running::start(&self.config, &self.hypervisors));
        reconnect(channels);
    }

    /// Has the bridge reload its configuration, as SIGHUP does, with `change` made in its text. Waits for nothing.
    ///
    /// # Panics
    /// When the new text is no configuration, or the bridge is stopped.
    #[track_caller]
    pub fn reload(&mut self, change: impl FnOnce(&str) -> String) {
        self.config = change(&self.config);
        let running = self.running.as_ref().expect("a running bridge");
        running.handle.reload(parse(&self.config));
    }

    /// Reaches the bridge from outside.
    ///
    /// # Panics
    /// When it is stopped.
    #[track_caller]
    pub fn handle(&self) -> Handle {
        self.running.as_ref().expect("a running bridge").handle.clone()
    }

    /// Asks the bridge to end, as SIGTERM does, and waits for nothing.
    pub fn ask_to_stop(&self) {
        if let Some(running) = &self.running {
            running.handle.stop();
        }
    }

    /// Ends the bridge as SIGTERM does. Held calls are let through, or it would wait for them.
    ///
    /// # Panics
    /// When it does not end well.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            self.hypervisors.iter().for_each(ScriptedHypervisor::release);
            running.stop().expect("the bridge ends well");
        }
    }

    /// A copy of the journal as it is at this moment: what a bridge that is killed now leaves. A file for each request.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn journal_now(&self) -> TempDir {
        let copy = tempfile::tempdir().expect("a private folder");
        for file in fs::read_dir(&self.journal).expect("the journal's folder") {
            let file = file.expect("a folder's entry");
            // That one is the journal's name, and of no request.
            if file.file_name() != "instance" {
                fs::copy(file.path(), copy.path().join(file.file_name())).expect("a copy of a journal's file");
            }
        }
        copy
    }

    /// The journal's folder.
    pub fn journal(&self) -> &Path {
        &self.journal
    }

    /// The folder of what outlives the host's restart.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join(STATE)
    }

    /// The records, line by line, once the bridge has stopped: it writes them when it can.
    ///
    /// # Panics
    /// When they cannot be read.
    #[track_caller]
    pub fn records(&mut self) -> Vec<serde_json::Value> {
        self.stop();
        let text = fs::read_to_string(self.folder.path().join(RECORDS)).expect("the records");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

impl Drop for BridgeBed {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.hypervisors.iter().for_each(ScriptedHypervisor::release);
            drop(running.stop());
        }
    }
}

/// Takes the bridge's next connection on each of these channels, and waits until it answers there.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn reconnect<'a>(channels: impl IntoIterator<Item = &'a mut GuestChannel>) {
    let mut channels: Vec<_> = channels.into_iter().collect();
    for channel in &mut channels {
        channel.accept(DEADLINE);
    }
    settle(channels);
}

/// Asks on each of these channels until the bridge answers, then [flushes](flush) it: whatever is sent now counts, and
/// what is read now answers it.
///
/// # Panics
/// When it does not answer.
#[track_caller]
pub fn settle<'a>(channels: impl IntoIterator<Item = &'a mut GuestChannel>) {
    let mut channels: Vec<_> = channels.into_iter().collect();
    let answers = make_heard(channels.iter_mut().map(|channel| &mut **channel));
    for (channel, _) in channels.into_iter().zip(answers).filter(|(_, answer)| *answer == SUCCESS) {
        flush(channel);
    }
}

/// Asks on each of these channels until the bridge answers, and gives the first answer on each, to whatever it was: all
/// that was sent before has been read by then. More answers may follow.
///
/// # Panics
/// When it does not answer.
#[track_caller]
pub fn make_heard<'a>(channels: impl IntoIterator<Item = &'a mut GuestChannel>) -> Vec<u8> {
    let question = request(MONITOR, b"", fresh_seqno());
    let end = Instant::now() + DEADLINE;
    let mut channels: Vec<_> = channels.into_iter().map(|channel| (channel, None)).collect();
    loop {
        let mut waiting: Vec<_> = channels.iter_mut().filter(|(_, answer)| answer.is_none()).collect();
        if waiting.is_empty() {
            return channels.into_iter().filter_map(|(_, answer)| answer).collect();
        }
        assert!(Instant::now() < end, "the bridge does not answer on {} channels", waiting.len());
        for (channel, _) in &mut waiting {
            channel.send(&question);
        }
        let again = Instant::now() + ASK_AGAIN;
        for (channel, answer) in waiting {
            let bytes = channel.read_up_to(REPLY_LENGTH, again.saturating_duration_since(Instant::now()));
            *answer = (!bytes.is_empty()).then(|| reply(&bytes));
        }
    }
}

/// Asks for a list and reads until it has ended: whatever was sent before has been dealt with by then, and no reply to
/// it is left. Only for a channel on which nothing hangs.
///
/// # Panics
/// When no list comes.
#[track_caller]
pub fn flush(channel: &mut GuestChannel) {
    channel.send(&request(LIST, b"", fresh_seqno()));
    while reply(&channel.read(REPLY_LENGTH, DEADLINE)) != HOST_LIST_FOLLOWS {}
    while channel.read(ENTRY_LENGTH, DEADLINE).iter().any(|&byte| byte != 0) {}
    assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), SUCCESS, "the end of a list");
}
