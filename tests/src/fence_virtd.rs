//! Debian's `fence_virtd` behind its serial listener, on libvirt's test driver. Behind its TCP listener: [`tcp`].
//!
//! What was found by running 4.12.1 with its listener `serial` and its backend `libvirt`:
//!
//! - The *guest's side listens*, the daemon connects: to the unix sockets (`mode='bind'` only) of every guest that is
//!   active when the daemon starts, or that a libvirt event reports started later. It takes the `<channel>`s with
//!   `mode = "vmchannel"`, whatever their target is (guestfwd or virtio), and the `<serial>`s with `mode = "serial"`;
//!   the paths must lie in the folder `path`. A crashed guest's is left alone although the test driver calls it active;
//!   every other active state is served.
//! - Each channel is connected *once*. Nobody listening at that moment, or an end of file later: the guest is unserved
//!   until it is started anew, which the test driver never reports, because listener and backend each have a
//!   connection, hence a state, of their own.
//! - The sockets are connected within a few milliseconds, the first request is looked at up to 1 s later. A key file
//!   must exist although this listener has no use for it; the files it is given lose their group and world bits.
//! - A second after its start it looks at the channels that it has connected by then, and at later ones when something wakes
//!   it: a request on one of the former, or a byte in a pipe of its own. Until then it is deaf on them. See
//!   [`FenceVirtd::wake`].
//! - Its memory of requests (10 s) goes by action, target and sequence number, *not* by who asked: two guests that use
//!   one number for the same thing, and the second gets no answer. [`guest_channel::fresh_seqno`] avoids it.
//! - That memory is searched from end to end: every request of the last 10 s adds about 9 ns to the next one. Whoever
//!   compares speeds says how many requests went before.
//!
//! The configuration that works, one setting a line:
//!
//! ```text
//! fence_virtd {
//!     listener = "serial";
//!     backend = "libvirt";
//!     module_path = "/usr/lib/x86_64-linux-gnu/fence-virt";
//! }
//! listeners {
//!     serial {
//!         uri = "test:///FOLDER/guests.xml";
//!         path = "/FOLDER/channels";
//!         mode = "vmchannel";
//!         key_file = "/FOLDER/key";
//!     }
//! }
//! backends {
//!     libvirt {
//!         uri = "test:///FOLDER/guests.xml";
//!         uri1 = "test:///FOLDER/more-guests.xml";     (a second hypervisor, if any)
//!     }
//! }
//! ```

pub mod tcp;

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::fence_virt::{Far, Pump};
use crate::guest_channel::{self, GuestChannel};
use crate::libvirt_file::{Guest, LibvirtFile, State};
use crate::process::{DEADLINE, Finished, Process, program, readable, wait_until};

/// Which of a guest's devices the daemon listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Its serial port, `/dev/ttyS1`.
    Serial,
    /// Its channel: guestfwd or virtio-serial.
    VmChannel,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::VmChannel => "vmchannel",
        }
    }
}

/// What a [`FenceVirtd`] is to serve.
#[derive(Debug, Clone)]
pub struct Setup {
    mode: Mode,
    guests: Vec<Guest>,
    second: Vec<Guest>,
}

impl Setup {
    /// Listens to the guests' serial ports or channels.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Adds a guest. The daemon's bed gives it its channel.
    #[must_use]
    pub fn guest(mut self, guest: Guest) -> Self {
        self.guests.push(guest);
        self
    }

    /// Adds guests.
    #[must_use]
    pub fn guests(mut self, guests: impl IntoIterator<Item = Guest>) -> Self {
        self.guests.extend(guests);
        self
    }

    /// Adds a guest of a second hypervisor, which the backend knows as well. It has no channel.
    #[must_use]
    pub fn second_hypervisor(mut self, guest: Guest) -> Self {
        self.second.push(guest);
        self
    }

    /// Starts the daemon and waits until it answers on every channel.
    ///
    /// # Panics
    /// When it does not come up, or when no guest has a channel by which to tell.
    #[track_caller]
    pub fn start(self) -> FenceVirtd {
        let mut daemon = self.launch();
        daemon.connect();
        daemon
    }

    /// Starts the daemon and does not wait for anything; it is not expected to serve.
    ///
    /// # Panics
    /// When it cannot be started at all.
    #[track_caller]
    pub fn launch(self) -> FenceVirtd {
        let binary = program("fence_virtd");
        let folder = tempfile::tempdir().expect("a private folder");
        let at = |name: &str| folder.path().join(name);

        fs::create_dir(at("channels")).expect("a folder for the sockets");
        let mut listeners = BTreeMap::new();
        let mut guests = LibvirtFile::new(at("guests.xml"));
        for (number, guest) in self.guests.into_iter().enumerate() {
            // By number: a name may hold what a path may not.
            let path = at("channels").join(format!("{number}.sock"));
            if is_served(&guest) {
                let listener = UnixListener::bind(&path)
                    .unwrap_or_else(|error| panic!("cannot listen at {}: {error}", path.display()));
                listeners.insert(guest.name().to_owned(), listener);
            }
            guests = guests.guest(match self.mode {
                Mode::Serial => guest.serial(1, &path),
                Mode::VmChannel => guest.vmchannel(&path),
            });
        }
        let first = guests.write();
        let second = (!self.second.is_empty()).then(|| LibvirtFile::new(at("second.xml")).guests(self.second).write());

        fs::write(at("key"), [0x2a; 32]).expect("a key file");
        fs::write(at("fence_virt.conf"), configuration(folder.path(), self.mode, &first, second.as_deref()))
            .expect("a configuration file");
        let mut command = Command::new(binary);
        // In its own folder, so that a core file of it, where the system makes those, goes when the folder goes.
        command.current_dir(folder.path());
        command.arg("-F").arg("-f").arg(at("fence_virt.conf")).arg("-p").arg(at("pid"));
        FenceVirtd {
            process: Process::start(&mut command),
            listeners,
            streams: BTreeMap::new(),
            pumps: BTreeMap::new(),
            folder,
        }
    }
}

/// Whether the daemon connects to this guest's channel; see the module's own words.
fn is_served(guest: &Guest) -> bool {
    guest.is_active() && guest.current_state() != State::Crashed
}

fn configuration(folder: &Path, mode: Mode, first: &str, second: Option<&str>) -> String {
    let folder = folder.display();
    let mode = mode.word();
    let second = second.map_or_else(String::new, |uri| format!("\t\turi1 = \"{uri}\";\n"));
    format!(
        "fence_virtd {{
\tlistener = \"serial\";
\tbackend = \"libvirt\";
\tmodule_path = \"/usr/lib/{ARCH}-linux-gnu/fence-virt\";
}}
listeners {{
\tserial {{
\t\turi = \"{first}\";
\t\tpath = \"{folder}/channels\";
\t\tmode = \"{mode}\";
\t\tkey_file = \"{folder}/key\";
\t}}
}}
backends {{
\tlibvirt {{
\t\turi = \"{first}\";
{second}\t}}
}}
"
    )
}

/// A running `fence_virtd`; stopped when dropped.
#[derive(Debug)]
pub struct FenceVirtd {
    /// The first field: dropped before the sockets and the folder that it uses.
    process: Process,
    listeners: BTreeMap<String, UnixListener>,
    streams: BTreeMap<String, UnixStream>,
    pumps: BTreeMap<String, (PathBuf, Pump)>,
    folder: TempDir,
}

impl FenceVirtd {
    /// What the daemon is to serve: channels of no guest, until guests are added.
    pub fn setup() -> Setup {
        Setup { mode: Mode::VmChannel, guests: Vec::new(), second: Vec::new() }
    }

    /// A daemon that serves these guests' channels.
    ///
    /// # Panics
    /// When it does not come up, or when no guest has a channel by which to tell.
    #[track_caller]
    pub fn start(guests: impl IntoIterator<Item = Guest>) -> Self {
        Self::setup().guests(guests).start()
    }

    /// The guest's side of its channel. Every call returns the same connection, the only one there will be: once all
    /// copies of it are closed, the daemon does not serve the guest any more.
    ///
    /// # Panics
    /// When the guest has none.
    #[track_caller]
    pub fn stream(&self, guest: &str) -> UnixStream {
        let stream = self.streams.get(guest).unwrap_or_else(|| panic!("{guest} has no channel to the daemon"));
        stream.try_clone().expect("a second handle of a socket")
    }

    /// The same, with what a test does on a channel.
    ///
    /// # Panics
    /// When the guest has none.
    #[track_caller]
    pub fn channel(&self, guest: &str) -> GuestChannel {
        GuestChannel::over(self.stream(guest))
    }

    /// A unix socket that listens, and whose connections, one at a time, lead to the daemon by the guest's channel: for
    /// a program that connects, such as our agent with `-D`. From then on the channel is this socket's alone.
    ///
    /// # Panics
    /// When the guest has no channel, or the socket cannot be made.
    #[track_caller]
    pub fn socket_path(&mut self, guest: &str) -> &Path {
        let near = OwnedFd::from(self.stream(guest));
        let path = self.folder.path().join(format!("agent-{}.sock", self.pumps.len()));
        let (path, _) = self.pumps.entry(guest.to_owned()).or_insert_with(|| {
            let listener = UnixListener::bind(&path)
                .unwrap_or_else(|error| panic!("cannot listen at {}: {error}", path.display()));
            let pump = Pump::start(Far::Listening(listener), near);
            (path, pump)
        });
        path
    }

    /// The daemon itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until it has connected to that many channels, or has ended, and has it look at all of them. Where it was
    /// so slow in connecting to them that it does not know of all, it would do so only when the next request comes.
    ///
    /// # Panics
    /// When it has not connected to so many.
    #[track_caller]
    pub fn wake(&mut self, channels: usize) {
        let files = format!("/proc/{}/fd", self.process.id());
        let of = |files: &str, kind: &str| -> Vec<(PathBuf, PathBuf)> {
            let all = fs::read_dir(files).into_iter().flatten().flatten().map(|entry| entry.path());
            let known = all.filter_map(|path| Some((fs::read_link(&path).ok()?, path)));
            known.filter(|(what, _)| what.to_string_lossy().starts_with(kind)).collect()
        };
        wait_until(DEADLINE * 6, "fence_virtd to connect to its channels", || {
            (of(&files, "socket:").len() >= channels || !self.process.is_running()).then_some(())
        });
        // What it has from us is not its own, such as a pipe of cargo's.
        let ours = of("/proc/self/fd", "pipe:");
        let own = |(what, _): &(PathBuf, PathBuf)| !ours.iter().any(|(ours, _)| ours == what);
        if let Some((_, pipe)) = of(&files, "pipe:").into_iter().find(own) {
            // It may have ended meanwhile.
            let _ = fs::File::options().write(true).open(pipe).and_then(|mut pipe| pipe.write_all(b"x"));
        }
    }

    /// Stops the daemon and returns how it ended, with what it said.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn stop(&mut self) -> Finished {
        self.process.stop(DEADLINE)
    }

    /// Takes the daemon's connections, then asks on each of them, for only an answer says that it serves.
    #[track_caller]
    fn connect(&mut self) {
        assert!(!self.listeners.is_empty(), "a daemon without a guest that has a channel cannot be seen to serve");
        for (guest, listener) in &self.listeners {
            if !readable(listener, DEADLINE) {
                let Finished { stdout, stderr, .. } = self.process.kill();
                panic!("fence_virtd has not connected to the channel of {guest}; it said\n{stdout}\n{stderr}");
            }
            let (stream, _) = listener.accept().expect("a connection that is waiting can be accepted");
            self.streams.insert(guest.clone(), stream);
        }
        self.wake(0);
        for guest in self.streams.keys() {
            let question = guest_channel::request(guest_channel::MONITOR, b"", guest_channel::fresh_seqno());
            self.channel(guest).ask(&question, DEADLINE);
        }
    }
}
