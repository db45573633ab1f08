//! A `[[channel]]` of kind `tcp`: a port that nobody else gets, a key file, and callers who hold the key.
//!
//! A port is had by binding a socket to port 0. It is kept by not closing that socket, which never listens: with
//! `SO_REUSEADDR`, as both daemons set it, another socket may be bound beside it on purpose, and the system gives the
//! port to nobody who asks for any, or who connects.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

use crate::caller::{Caller, HERE, Terms};
use crate::guest_channel::{HostList, LIST};

/// What a bed's key file holds unless a test says otherwise: every byte there is, so that none is taken for an end.
pub const KEY: [u8; 256] = {
    let mut key = [0; 256];
    let mut at = 0;
    while at < key.len() {
        key[at] = at as u8;
        at += 1;
    }
    key
};

/// A TCP port of the loopback that is one's own for as long as a copy of this lives.
#[derive(Debug, Clone)]
pub struct Port {
    address: SocketAddr,
    _kept: Arc<OwnedFd>,
}

impl Port {
    /// One of 127.0.0.1 that was free.
    ///
    /// # Panics
    /// When there is none.
    pub fn new() -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into())
    }

    /// One of that address, of the loopback, that was free.
    ///
    /// # Panics
    /// When there is none.
    pub fn at(ip: IpAddr) -> Self {
        let kept = || -> rustix::io::Result<(OwnedFd, SocketAddr)> {
            let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &SocketAddr::new(ip, 0))?;
            let address = getsockname(&socket)?.try_into()?;
            Ok((socket, address))
        };
        let (kept, address) = kept().unwrap_or_else(|why| panic!("no free port at {ip}: {why}"));
        Self { address, _kept: Arc::new(kept) }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Default for Port {
    fn default() -> Self {
        Self::new()
    }
}

/// A TCP port with a key file, and who calls there.
#[derive(Debug, Clone)]
pub struct TcpChannel {
    port: Port,
    key_file: PathBuf,
    /// How its callers prove themselves.
    pub terms: Terms,
}

impl TcpChannel {
    /// With that key, in a file in `folder`.
    ///
    /// # Panics
    /// When there is no port, or the file cannot be written.
    pub fn new(folder: &Path, key: &[u8]) -> Self {
        Self::on(Port::new(), folder, key)
    }

    /// The same on that port.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn on(port: Port, folder: &Path, key: &[u8]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let key_file = folder.join(format!("{}.key", NEXT.fetch_add(1, Ordering::Relaxed)));
        let channel = Self { port, key_file, terms: Terms::of(key) };
        channel.write_key(key);
        channel
    }

    /// Makes that the key file's content. Its callers go on with the key that they have.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_key(&self, key: &[u8]) {
        fs::write(&self.key_file, key).expect("a key file");
        fs::set_permissions(&self.key_file, fs::Permissions::from_mode(0o600)).expect("permissions");
    }

    /// Its section in the configuration, with further lines such as `auth = "sha512"`.
    ///
    /// # Panics
    /// When the key file's path is no text.
    pub fn section(&self, group: &str, lines: &str) -> String {
        let file = self.key_file.to_str().expect("a test's paths are UTF-8");
        self.section_without_key(group, &format!("key_file = {file:?}\n{lines}"))
    }

    /// The same without a key file.
    pub fn section_without_key(&self, group: &str, lines: &str) -> String {
        let listen = self.address();
        format!("\n[[channel]]\nkind = \"tcp\"\nlisten = \"{listen}\"\ngroup = {group:?}\n{lines}\n")
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// What the bridge calls it in its log and records.
    pub fn name(&self) -> String {
        format!("tcp {}", self.address())
    }

    /// Where its key is.
    pub fn key_file(&self) -> &Path {
        &self.key_file
    }

    /// Calls it.
    ///
    /// # Panics
    /// When nobody listens there.
    #[track_caller]
    pub fn call(&self) -> Caller {
        self.call_from(HERE)
    }

    /// Calls it from another address, which makes another requester.
    ///
    /// # Panics
    /// When nobody listens there.
    #[track_caller]
    pub fn call_from(&self, from: Ipv4Addr) -> Caller {
        Caller::connect(from, self.address(), &self.terms)
    }

    /// Calls it and asks.
    ///
    /// # Panics
    /// When no reply comes.
    #[track_caller]
    pub fn ask(&self, action: u8, target: &str) -> u8 {
        self.call().ask(&self.terms.packet(action, target))
    }

    /// Calls it and asks for a list.
    ///
    /// # Panics
    /// When no list comes.
    #[track_caller]
    pub fn ask_list(&self) -> HostList {
        let mut caller = self.call();
        caller.prove(&self.terms.packet(LIST, ""));
        caller.list()
    }
}
