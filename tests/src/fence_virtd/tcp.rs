//! Debian's `fence_virtd` behind its TCP listener, which the same package has, on libvirt's test driver.
//!
//! What was found by running 4.12.1:
//!
//! - It takes no port 0. `family = "ipv6"` listens at `::1`, and at no address of IPv4.
//! - The setting `auth` says with which hash requests must be signed at least; `hash` says so where `auth` does not.
//!   Challenges are answered with SHA-256 whatever is set, also with `auth = "none"`: no conversation without a key comes
//!   about, and its own client cannot do it either.
//! - A request that is not signed as it wants is not answered: it closes the connection while the client's challenge is
//!   still unread, which reaches the client as a reset.
//! - One caller at a time. One who says nothing has 1 s, one who has sent a signed request has 10 s for each further step.
//! - A packet that came in the last 10 s is answered by closing the connection; so is one whose signature is not good.
//! - Of a key file, the first 4096 bytes are the key. It loses its group and world bits. One that cannot be read is no
//!   key: who signs nothing may do everything then. One that is not there keeps the daemon from starting.

use std::env::consts::ARCH;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tempfile::TempDir;

use crate::libvirt_file::{Guest, LibvirtFile};
use crate::process::{DEADLINE, Finished, Process, program, run, wait_until};
use crate::tcp_channel::{KEY, Port, TcpChannel};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A running `fence_virtd` that is called by TCP; killed when dropped.
#[derive(Debug)]
pub struct ByTcp {
    /// The first field: dropped before the port and the folder that it uses.
    process: Process,
    channel: TcpChannel,
    _folder: TempDir,
}

impl ByTcp {
    /// With the usual key and these settings of `hash` and `auth`.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(guests: impl IntoIterator<Item = Guest>, hash: &str, auth: &str) -> Self {
        Self::with_key(guests, &KEY, hash, auth)
    }

    /// The same with that content of its key file.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn with_key(guests: impl IntoIterator<Item = Guest>, key: &[u8], hash: &str, auth: &str) -> Self {
        Self::prepared(guests, HERE, hash, auth, |channel| channel.write_key(key))
    }

    /// With the usual key at this address of the loopback.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn at(ip: IpAddr, guests: impl IntoIterator<Item = Guest>) -> Self {
        Self::prepared(guests, ip, "sha256", "sha256", |_| {})
    }

    /// The same with a key file that nobody can read: a folder.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn with_unreadable_key(guests: impl IntoIterator<Item = Guest>, hash: &str, auth: &str) -> Self {
        Self::prepared(guests, HERE, hash, auth, |channel| {
            fs::remove_file(channel.key_file()).expect("a file that can be removed");
            fs::create_dir(channel.key_file()).expect("a folder");
            fs::set_permissions(channel.key_file(), fs::Permissions::from_mode(0o600)).expect("permissions");
        })
    }

    #[track_caller]
    fn prepared(
        guests: impl IntoIterator<Item = Guest>,
        ip: IpAddr,
        hash: &str,
        auth: &str,
        prepare: impl FnOnce(&TcpChannel),
    ) -> Self {
        let binary = program("fence_virtd");
        let folder = tempfile::tempdir().expect("a private folder");
        let at = |name: &str| folder.path().join(name);
        let channel = TcpChannel::on(Port::at(ip), folder.path(), &KEY);
        prepare(&channel);
        let uri = LibvirtFile::new(at("guests.xml")).guests(guests).write();
        let (key_file, address) = (channel.key_file().display(), channel.address());
        let (family, port) = (if ip.is_ipv4() { "ipv4" } else { "ipv6" }, address.port());
        let configuration = format!(
            "fence_virtd {{
\tlistener = \"tcp\";
\tbackend = \"libvirt\";
\tmodule_path = \"/usr/lib/{ARCH}-linux-gnu/fence-virt\";
}}
listeners {{
\ttcp {{
\t\tkey_file = \"{key_file}\";
\t\thash = \"{hash}\";
\t\tauth = \"{auth}\";
\t\tfamily = \"{family}\";
\t\taddress = \"{ip}\";
\t\tport = \"{port}\";
\t}}
}}
backends {{
\tlibvirt {{
\t\turi = \"{uri}\";
\t}}
}}
"
        );
        fs::write(at("fence_virt.conf"), configuration).expect("a configuration file");
        let mut command = Command::new(binary);
        command.current_dir(folder.path());
        command.arg("-F").arg("-f").arg(at("fence_virt.conf")).arg("-p").arg(at("pid"));
        let mut process = Process::start(&mut command);
        // It listens before it serves; who calls between waits for no longer than that.
        wait_until(DEADLINE, "fence_virtd to listen", || {
            assert!(process.is_running(), "fence_virtd ended; it said\n{}\n{}", process.stdout(), process.stderr());
            TcpStream::connect(address).ok()
        });
        Self { process, channel, _folder: folder }
    }

    /// Its port and key.
    pub fn channel(&self) -> &TcpChannel {
        &self.channel
    }

    /// The options by which fence_virt, or our agent, gets there.
    pub fn options(&self) -> [String; 6] {
        let (address, key) = (self.channel.address(), self.channel.key_file().display().to_string());
        ["-T".into(), address.ip().to_string(), "-p".into(), address.port().to_string(), "-k".into(), key]
    }

    /// The same, as lines on standard input.
    pub fn lines(&self) -> String {
        let (address, key) = (self.channel.address(), self.channel.key_file().display());
        format!("ipaddr={}\nipport={}\nkey_file={key}\n", address.ip(), address.port())
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
