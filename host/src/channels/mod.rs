//! Channels: where they are, who is at their other end, and how they are opened.
//!
//! A [`ChannelSpec`] is a named way in and stays; a [`Stream`] is one open connection of it and goes. Not here: what is
//! said on them (the core's `Listener`), and when they are opened again (the bridge).

mod tty;
mod unix;

pub use tty::{Tty, TtyParams};
pub use unix::listen;

use crate::guests::Member;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// `[[channel]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSpec {
    /// How it is opened.
    pub kind: ChannelKind,
    /// Where it is.
    pub path: PathBuf,
    /// Who is at its other end.
    pub guest: Member,
    /// What the guest has at its end.
    pub port: PortType,
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
}

impl ChannelSpec {
    /// Opens it now, or says why that cannot be done now. Not for [`ChannelKind::UnixListen`], which is called.
    pub fn open(&self) -> io::Result<Stream> {
        match self.kind {
            ChannelKind::Unix => unix::connect(&self.path).map(Stream::Unix),
            ChannelKind::Tty(params) => Tty::open(&self.path, params).map(Stream::Tty),
            ChannelKind::UnixListen { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl Stream {
    /// Asks for events about both directions, at each change.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Unix(stream) => registry.register(stream, token, both),
            Stream::Tty(tty) => registry.register(&mut tty.source(), token, both),
        }
    }

    /// Asks for no more events. Dropping a stream does the same for its file, but a copy of it may live on.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => registry.deregister(stream),
            Stream::Tty(tty) => registry.deregister(&mut tty.source()),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tty(tty) => tty.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tty(tty) => tty.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
