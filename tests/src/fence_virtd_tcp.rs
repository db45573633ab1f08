//! Debian's `fence_virtd` behind its TCP listener, on libvirt's test driver. The listener is in the package of the daemon.
//!
//! What was found by running 4.12.1 with its listener `tcp` and its backend `libvirt`:
//!
//! - It takes no port 0. So the bed takes one that is free, and another where somebody else was quicker.
//! - `family = "ipv6"` listens at `::1`, and at no address of IPv4.
//! - One thread: it serves one connection at a time and closes it after one answer.
//! - A request that is not signed as it wants is not answered: it closes the connection while the client's challenge is
//!   still unread, which reaches the client as a reset.
//! - `hash` is the least that a request must be signed with. `auth` is not what the manual says: it, too, sets what
//!   `hash` sets, and wins where both are given. Challenges are always answered with SHA-256, also with `auth = "none"`,
//!   so that no conversation without a key comes about; its own client cannot do it either.
//!
//! The configuration that works:
//!
//! ```text
//! fence_virtd {
//!     listener = "tcp";
//!     backend = "libvirt";
//!     module_path = "/usr/lib/x86_64-linux-gnu/fence-virt";
//! }
//! listeners {
//!     tcp {
//!         key_file = "/FOLDER/key";
//!         family = "ipv4";
//!         address = "127.0.0.1";
//!         port = "12345";
//!         hash = "sha256";
//!     }
//! }
//! backends {
//!     libvirt {
//!         uri = "test:///FOLDER/guests.xml";
//!     }
//! }
//! ```

use std::env::consts::ARCH;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::libvirt_file::{Guest, LibvirtFile};
use crate::process::{DEADLINE, Finished, Process, program, run, wait_until};

/// What a [`FenceVirtdTcp`] is to be like.
#[derive(Debug, Clone)]
pub struct Setup {
    guests: Vec<Guest>,
    address: IpAddr,
    minimum: &'static str,
}

impl Setup {
    /// Adds guests.
    #[must_use]
    pub fn guests(mut self, guests: impl IntoIterator<Item = Guest>) -> Self {
        self.guests.extend(guests);
        self
    }

    /// Listens at this address, a loopback one.
    #[must_use]
    pub fn address(mut self, address: impl Into<IpAddr>) -> Self {
        self.address = address.into();
        self
    }

    /// The weakest hash that a request may be signed with: sha256, if nothing is said.
    #[must_use]
    pub fn minimum(mut self, hash: &'static str) -> Self {
        self.minimum = hash;
        self
    }

    /// Starts the daemon and waits until it answers `fence_virt`.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(self) -> FenceVirtdTcp {
        // Somebody else may take the port between the look and the daemon's own attempt.
        for _ in 0..5 {
            let mut daemon = self.launch();
            let answers = wait_until(DEADLINE, "fence_virtd to answer its own client, or to end", || {
                let answers = daemon.fence_virt(&["-o", "monitor", "-t", "5"]).code == Some(0);
                (answers || !daemon.process.is_running()).then_some(answers)
            });
            if answers {
                return daemon;
            }
        }
        panic!("fence_virtd could not listen at any of five ports that were free just before");
    }

    fn launch(&self) -> FenceVirtdTcp {
        let binary = program("fence_virtd");
        let folder = tempfile::tempdir().expect("a private folder");
        let at = |name: &str| folder.path().join(name);
        let address = self.address;
        let port = TcpListener::bind((address, 0))
            .and_then(|listener| listener.local_addr())
            .unwrap_or_else(|error| panic!("{address} is needed on the loopback interface: {error}"))
            .port();
        let uri = LibvirtFile::new(at("guests.xml")).guests(self.guests.clone()).write();
        fs::write(at("key"), KEY).expect("a key file");
        fs::write(at("fence_virt.conf"), self.configuration(folder.path(), port, &uri)).expect("a configuration file");
        let mut command = Command::new(binary);
        // In its own folder, so that a core file of it, where the system makes those, goes when the folder goes.
        command.current_dir(folder.path());
        command.arg("-F").arg("-f").arg(at("fence_virt.conf")).arg("-p").arg(at("pid"));
        let process = Process::start(&mut command);
        FenceVirtdTcp { process, address, port, folder }
    }

    fn configuration(&self, folder: &Path, port: u16, uri: &str) -> String {
        let Self { address, minimum, .. } = self;
        let folder = folder.display();
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        format!(
            "fence_virtd {{
\tlistener = \"tcp\";
\tbackend = \"libvirt\";
\tmodule_path = \"/usr/lib/{ARCH}-linux-gnu/fence-virt\";
}}
listeners {{
\ttcp {{
\t\tkey_file = \"{folder}/key\";
\t\tfamily = \"{family}\";
\t\taddress = \"{address}\";
\t\tport = \"{port}\";
\t\thash = \"{minimum}\";
\t}}
}}
backends {{
\tlibvirt {{
\t\turi = \"{uri}\";
\t}}
}}
"
        )
    }
}

/// What the key file has in it.
const KEY: &[u8] = b"a key for the tests\nin two lines, with a NUL\0 in it";

/// A running `fence_virtd`; stopped when dropped.
#[derive(Debug)]
pub struct FenceVirtdTcp {
    /// The first field: dropped before the folder that it uses.
    process: Process,
    address: IpAddr,
    port: u16,
    folder: TempDir,
}

impl FenceVirtdTcp {
    /// On 127.0.0.1, without guests.
    pub fn setup() -> Setup {
        Setup { guests: Vec::new(), address: Ipv4Addr::LOCALHOST.into(), minimum: "sha256" }
    }

    /// A daemon on 127.0.0.1 for these guests.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(guests: impl IntoIterator<Item = Guest>) -> Self {
        Self::setup().guests(guests).start()
    }

    /// The options by which fence_virt, or our agent, gets there.
    pub fn options(&self) -> [String; 6] {
        let key = self.key_file().display().to_string();
        ["-T".into(), self.address.to_string(), "-p".into(), self.port.to_string(), "-k".into(), key]
    }

    /// The same, as lines on standard input.
    pub fn lines(&self) -> String {
        format!("ipaddr={}\nipport={}\nkey_file={}\n", self.address, self.port, self.key_file().display())
    }

    /// The key that both ends have.
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// Runs `fence_virt` with these further arguments, in a way that the daemon takes whatever its minimum is.
    ///
    /// # Panics
    /// When it takes longer than it would by itself.
    #[track_caller]
    pub fn fence_virt(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program("fence_virt"));
        command.args(self.options()).args(["-c", "sha512"]).args(arguments);
        run(&mut command, DEADLINE * 2)
    }

    /// The daemon itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
