//! What a daemon is to serve, and its configuration file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Daemon, How, NOBODY};
use crate::guest_channel::GuestChannel;
use crate::libvirt_file::{Guest, LibvirtFile};
use crate::process::ours;
use crate::tcp_channel::{KEY, TcpChannel};

/// What a [`Daemon`] is to serve, and how.
#[derive(Debug)]
pub struct Setup {
    folder: TempDir,
    uri: Option<String>,
    more_uris: Vec<String>,
    guests: Vec<Guest>,
    served: Vec<String>,
    virtio: BTreeSet<String>,
    channels: String,
    tcp: Vec<TcpChannel>,
    groups: String,
    hypervisor: String,
    wire: String,
    control: Option<PathBuf>,
    discover: String,
    log: Option<PathBuf>,
    file_limit: Option<u32>,
    is_nobodys: bool,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// For nobody.
    pub(super) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a private folder"),
            uri: None,
            more_uris: Vec::new(),
            guests: Vec::new(),
            served: Vec::new(),
            virtio: BTreeSet::new(),
            channels: String::new(),
            tcp: Vec::new(),
            groups: String::new(),
            hypervisor: String::new(),
            wire: String::new(),
            control: None,
            discover: String::new(),
            log: None,
            file_limit: None,
            is_nobodys: false,
            environment: Vec::new(),
        }
    }

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

    /// Adds another hypervisor.
    #[must_use]
    pub fn beside(mut self, uri: &str) -> Self {
        self.more_uris.push(uri.to_owned());
        self
    }

    /// Adds a line to each `[[hypervisor]]`.
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

    /// Adds a line to `[discover]`.
    #[must_use]
    pub fn discover(mut self, line: &str) -> Self {
        push_line(&mut self.discover, line);
        self
    }

    /// Adds a channel that the bed does not listen on.
    #[must_use]
    pub fn channel(mut self, kind: &str, path: &Path, guest: &str) -> Self {
        push_channel(&mut self.channels, kind, path, guest);
        self
    }

    /// The same, of a virtio port.
    #[must_use]
    pub fn virtio_channel(mut self, kind: &str, path: &Path, guest: &str) -> Self {
        self = self.channel(kind, path, guest);
        push_line(&mut self.channels, "port = \"virtio\"");
        self
    }

    /// Adds a TCP port whose key, [`KEY`], lets its holders target that group, with further lines for it.
    #[must_use]
    pub fn tcp(self, group: &str, lines: &str) -> Self {
        self.tcp_with_key(group, &KEY, lines)
    }

    /// The same with that key.
    #[must_use]
    pub fn tcp_with_key(mut self, group: &str, key: &[u8], lines: &str) -> Self {
        let channel = TcpChannel::new(self.folder.path(), key);
        self.channels += &channel.section(group, lines);
        self.tcp.push(channel);
        self
    }

    /// Adds a TCP port by which anybody may target that group.
    #[must_use]
    pub fn tcp_for_anybody(mut self, group: &str) -> Self {
        let channel = TcpChannel::new(self.folder.path(), &KEY);
        self.channels += &channel.section_without_key(group, "hash = \"none-anybody-may-fence\"");
        self.tcp.push(channel);
        self
    }

    /// The ports that were added, for what a test does with them before the daemon runs.
    pub fn tcp_channels(&self) -> &[TcpChannel] {
        &self.tcp
    }

    /// Adds a group, with further lines for it. The first one takes the place of the group of everybody.
    #[must_use]
    pub fn group(mut self, name: &str, members: &[&str], lines: &str) -> Self {
        push_group(&mut self.groups, name, members.iter().copied(), lines);
        self
    }

    /// Has its control socket elsewhere than in the bed's folder.
    #[must_use]
    pub fn control(mut self, path: &Path) -> Self {
        self.control = Some(path.to_owned());
        self
    }

    /// Has it log to that file or pipe. The bed does not see its log then.
    #[must_use]
    pub fn log_to(mut self, path: &Path) -> Self {
        self.log = Some(path.to_owned());
        self
    }

    /// Starts the daemon with this soft limit of open files.
    #[must_use]
    pub fn file_limit(mut self, limit: u32) -> Self {
        self.file_limit = Some(limit);
        self
    }

    /// Starts the daemon as the user `nobody`, to whom its folder is given. This needs root.
    #[must_use]
    pub fn as_nobody(mut self) -> Self {
        self.is_nobodys = true;
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

    /// Starts the daemon and waits until it answers on every channel that the bed listens on, and listens on every TCP
    /// port.
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
        let Self { served, virtio, tcp, file_limit, is_nobodys, log, environment, folder, .. } = self;
        let mut how = How { file_limit, log, environment, program: None };
        if is_nobodys {
            how.program = Some(give_to_nobody(folder.path()));
        }
        let process = how.start(&folder.path().join("fencewired.toml"));
        Daemon { process, channels, served, virtio, tcp, pumps: Vec::new(), how, folder }
    }

    fn configuration(&self, uri: &str) -> String {
        let Self { folder, channels, groups, hypervisor, wire, discover, .. } = self;
        let folder = folder.path().to_str().expect("a test's paths are UTF-8");
        let control = self.control.clone().unwrap_or_else(|| self.folder.path().join("control.sock"));
        let mut hypervisors = String::new();
        for uri in [uri].into_iter().chain(self.more_uris.iter().map(String::as_str)) {
            push_line(&mut hypervisors, &format!("[[hypervisor]]\nuri = {}\n{hypervisor}", quoted(uri)));
        }
        format!(
            "{hypervisors}
[wire]
classic = true
{wire}
[discover]
{discover}
[records]
path = {records}

[control]
journal = {journal}
state = {state}
socket = {socket}
{channels}{groups}",
            records = quoted(&format!("{folder}/records.jsonl")),
            journal = quoted(&format!("{folder}/journal")),
            state = quoted(&format!("{folder}/state")),
            socket = quoted(control.to_str().expect("a test's paths are UTF-8")),
        )
    }
}

/// Gives a bed's folder to `nobody`, with our program in it: it may lie where that user may not go. Where it is then.
#[track_caller]
fn give_to_nobody(folder: &Path) -> PathBuf {
    let there = folder.join("fencewired");
    fs::copy(ours("fencewired"), &there).expect("a copy of the program");
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    for path in entries.chain([folder.to_owned()]) {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may give files away: run this as root");
    }
    there
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
