//! Channels: where they are, who is at their other end, and how they are opened.
//!
//! A [`ChannelSpec`] is a named way in and stays; a [`Stream`] is one open connection of it and goes. Not here: what is
//! said on them (the core's `Listener`), and when they are opened again (the bridge).

mod found;
mod peer;
mod tcp;
mod tty;
mod unix;

pub(crate) use peer::{has_ended, is_qemu};
pub use tcp::{KeyFileTrouble, Trusted};
pub use tty::{Tty, TtyParams};
pub use unix::may_connect;
pub(crate) use unix::{closed_folder, explained, listen as listen_at};

use crate::guests::Member;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// `[[channel]]`, or one that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelSpec {
    /// A guest's own: who asks is what the channel says.
    Guest(GuestChannel),
    /// For whoever proves a key.
    Keyed(KeyedChannel),
}

/// A channel with one guest at its other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestChannel {
    /// How it is opened.
    pub kind: ChannelKind,
    /// Where it is.
    pub path: PathBuf,
    /// Who is at its other end.
    pub guest: Member,
    /// What the guest has at its end.
    pub port: PortType,
    /// What is asked of its socket, where it was found; none: it is configured.
    pub found: Option<Found>,
}

/// What is asked of the socket of a channel that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// It really lies below this folder.
    pub directory: Option<PathBuf>,
    /// It, and whoever listens there, belongs to one of these users, to root, or to this process's own.
    pub owners: Vec<u32>,
}

/// A TCP port on which fence-virt's packets are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedChannel {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The group that whoever is trusted may target.
    pub group: String,
    /// Who is trusted.
    pub trust: Trusted,
}

impl ChannelSpec {
    /// The guest at its other end, where that is known.
    pub const fn guest(&self) -> Option<&Member> {
        match self {
            ChannelSpec::Guest(channel) => Some(&channel.guest),
            ChannelSpec::Keyed(_) => None,
        }
    }

    /// What is asked of its socket, where it was found.
    pub const fn found(&self) -> Option<&Found> {
        match self {
            ChannelSpec::Guest(channel) => channel.found.as_ref(),
            ChannelSpec::Keyed(_) => None,
        }
    }

    /// Opens it now, to be called or as a connection; or says why that cannot be done now.
    pub fn open(&self) -> io::Result<Opened> {
        match self {
            ChannelSpec::Guest(channel) => match channel.kind {
                ChannelKind::Unix => {
                    let stream = match &channel.found {
                        None => unix::connect(&channel.path),
                        Some(found) => found::connect(&channel.path, found),
                    };
                    let stream = stream.map_err(|why| explained(why, &channel.path))?;
                    Ok(Opened::Stream(Stream::Unix(stream)))
                }
                ChannelKind::Tty(params) => {
                    Tty::open(&channel.path, params).map(|tty| Opened::Stream(Stream::Tty(tty)))
                }
                ChannelKind::UnixListen { mode } => {
                    unix::listen(&channel.path, mode).map(|listener| Opened::Calls(Calls::Unix(listener)))
                }
            },
            ChannelSpec::Keyed(channel) => tcp::listen(channel.listen).map(|tcp| Opened::Calls(Calls::Tcp(tcp))),
        }
    }

    /// Takes away what [`ChannelSpec::open`] made, so that callers are refused at once.
    pub fn clean_up(&self) {
        if let ChannelSpec::Guest(GuestChannel { kind: ChannelKind::UnixListen { .. }, path, .. }) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The channel as records and the log name it: its path, or `tcp ADDRESS:PORT`.
impl fmt::Display for ChannelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelSpec::Guest(channel) => fmt::Display::fmt(&channel.path.display(), f),
            ChannelSpec::Keyed(channel) => write!(f, "tcp {}", channel.listen),
        }
    }
}

/// A channel that was opened.
#[derive(Debug)]
pub enum Opened {
    /// A connection.
    Stream(Stream),
    /// It is called.
    Calls(Calls),
}

/// A socket that is called.
#[derive(Debug)]
pub enum Calls {
    /// By the one guest to which it was given.
    Unix(UnixListener),
    /// By anybody.
    Tcp(TcpListener),
}

impl Calls {
    /// Asks for events when somebody calls.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Calls::Unix(listener) => registry.register(listener, token, Interest::READABLE),
            Calls::Tcp(listener) => registry.register(listener, token, Interest::READABLE),
        }
    }

    /// The next caller, and from where it calls.
    pub fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Calls::Unix(listener) => listener.accept().map(|(stream, _)| (Stream::Unix(stream), None)),
            Calls::Tcp(listener) => {
                let (stream, from) = listener.accept()?;
                // A reply is a byte, and somebody waits for it.
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Some(from.ip().to_canonical())))
            }
        }
    }
}

/// How a channel is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// A unix socket that somebody else, such as QEMU, listens on.
    Unix,
    /// A unix socket that we listen on, with these permissions.
    UnixListen {
        /// As in chmod.
        mode: u32,
    },
    /// A serial port.
    Tty(TtyParams),
}

/// What the guest has at its end of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortType {
    /// A serial port, which the guest's side can flush.
    Serial,
    /// A virtio port, which nobody can flush.
    Virtio,
}

/// One open connection of a channel.
#[derive(Debug)]
pub enum Stream {
    /// Of a unix socket, whoever called.
    Unix(UnixStream),
    /// Of a serial port.
    Tty(Tty),
    /// Of TCP.
    Tcp(TcpStream),
}

impl Stream {
    /// The name of the program at the other end of a unix socket. To be asked when the connection is made: later that may
    /// have been replaced, and the kernel know no name.
    pub fn program(&self) -> Option<String> {
        match self {
            Stream::Unix(stream) => peer::program(stream),
            Stream::Tty(_) | Stream::Tcp(_) => None,
        }
    }

    /// Whether the other end is closed, though nobody may have read that far.
    pub fn has_ended(&self) -> bool {
        matches!(self, Stream::Unix(stream) if peer::has_ended(stream, Duration::ZERO))
    }

    /// Whether it can be closed without the loss of what was written. What goes by TCP or a serial port, the kernel
    /// sends all the same.
    pub fn is_all_taken(&self) -> bool {
        match self {
            Stream::Unix(stream) => unix::is_all_taken(stream),
            Stream::Tty(_) | Stream::Tcp(_) => true,
        }
    }

    /// Another handle of it, for who only waits for its end; none where it is no unix socket.
    pub fn copy(&self) -> Option<io::Result<OwnedFd>> {
        match self {
            Stream::Unix(stream) => Some(stream.as_fd().try_clone_to_owned()),
            Stream::Tty(_) | Stream::Tcp(_) => None,
        }
    }

    /// Whether a read that gave less than was asked for has given all there is.
    pub const fn short_read_is_all(&self) -> bool {
        matches!(self, Stream::Unix(_) | Stream::Tcp(_))
    }

    /// Asks for events about both directions, at each change.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Unix(stream) => registry.register(stream, token, both),
            Stream::Tty(tty) => registry.register(&mut tty.source(), token, both),
            Stream::Tcp(stream) => registry.register(stream, token, both),
        }
    }

    /// Asks for no more events. Dropping a stream does the same for its file, but a copy of it may live on.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => registry.deregister(stream),
            Stream::Tty(tty) => registry.deregister(&mut tty.source()),
            Stream::Tcp(stream) => registry.deregister(stream),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tty(tty) => tty.read(buffer),
            Stream::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tty(tty) => tty.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
