//! What the agent needs of the system it runs on, as a trait, and the words for it. The program implements it with
//! system calls; the tests with a stand-in. No decision is made on the other side of it.

use crate::text::cut;
use core::fmt;
use fencewire_core::Millis;

/// The system. One channel is open at a time, and one folder.
///
/// What is counted is bytes; no single call moves as many as 32 bits can count. Methods take `&self`: a list is written
/// while the channel that it comes from is borrowed.
pub trait System {
    /// The time, on a clock that only goes forward, also while the guest sleeps.
    fn now(&self) -> Millis;

    /// A number that nobody can foretell.
    fn random(&self) -> u32;

    /// Fills `into` with random bytes, without waiting for any. False: there are none yet.
    #[must_use]
    fn entropy(&self, into: &mut [u8]) -> bool;

    /// Reads from standard input; 0 at its end. [`Errno::TIMEDOUT`]: nothing came for half a minute.
    fn read_input(&self, into: &mut [u8]) -> Result<u32, Errno>;

    /// Writes all of `bytes`. [`Errno::TIMEDOUT`]: nobody took any for seconds.
    fn write(&self, to: Stream, bytes: &[u8]) -> Result<(), Errno>;

    /// What is at `path`, links followed.
    fn kind(&self, path: &Path) -> Result<Kind, Errno>;

    /// A file's content, or as much as `into` holds. Never waits for a writer.
    fn read_file(&self, path: &Path, into: &mut [u8]) -> Result<u32, Errno>;

    /// Opens a folder, to be read once.
    fn open_folder(&self, path: &Path) -> Result<(), Errno>;

    /// The folder's next entries, as the kernel writes them (`linux_dirent64`); 0 at its end.
    fn read_folder(&self, into: &mut [u8]) -> Result<u32, Errno>;

    /// Opens a device as the channel, without blocking and without becoming its process's terminal.
    fn open(&self, path: &Path) -> Result<(), Errno>;

    /// Connects the channel to a socket, without blocking. `address`: what the kernel wants after the family. Over a
    /// network it has only begun then: [`wait`](Self::wait) says when it is done, and where it failed, which looks like a
    /// hang-up, [`receive`](Self::receive) says why.
    fn connect(&self, family: Family, address: &[u8]) -> Result<(), Errno>;

    /// Takes the lock that fence_virt, too, takes on the channel's device. [`Errno::AGAIN`]:
    /// somebody else has it.
    fn lock(&self) -> Result<(), Errno>;

    /// Makes the channel's tty a raw one with these parameters and drops its input. [`Errno::NOTTY`]: it is none.
    fn set_line(&self, line: LineParams) -> Result<(), Errno>;

    /// Reads from the channel; 0 where the other end is gone.
    fn receive(&self, into: &mut [u8]) -> Result<u32, Errno>;

    /// Writes to the channel as much as it takes.
    fn send(&self, bytes: &[u8]) -> Result<u32, Errno>;

    /// Waits until the channel can be read, or, where `write` says so, written, or has hung up; or for as long as
    /// `span`.
    fn wait(&self, write: bool, span: Millis) -> Result<Signs, Errno>;

    /// Waits for nothing but `span` to pass.
    fn pause(&self, span: Millis);
}

/// How the program ends, as Pacemaker reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done. To a status: on.
    Done = 0,
    /// Not done, or cannot tell. One sentence on standard error says why.
    Failed = 1,
    /// To a status only: off.
    Off = 2,
}

/// Where text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// What can be at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A character device: a tty, a virtio port, or something that is no channel.
    Device,
    /// A unix socket.
    Socket,
    /// A folder.
    Folder,
    /// A regular file, a pipe, a disk.
    Other,
}

/// Kinds of sockets, by their numbers in Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Family {
    /// The address is a path with its NUL.
    Unix = 1,
    /// TCP. The address is `port u16 · IPv4 address [u8; 4]`, both in the network's order.
    Ipv4 = 2,
    /// TCP. The address is `port u16 · flow [u8; 4] · IPv6 address [u8; 16]`, likewise.
    Ipv6 = 10,
}

/// What a channel is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// There are bytes, or an end of them.
    pub read: bool,
    /// There is room for bytes.
    pub write: bool,
    /// Nobody has the other end, or it failed. A read says which; there may be bytes before.
    pub hung_up: bool,
}

/// How a serial line is set. fence_virt's `serial_params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineParams {
    /// Bits per second.
    pub baud: u32,
    /// Data bits: 5 to 8.
    pub data_bits: u8,
    /// The parity bit.
    pub parity: Parity,
    /// Two stop bits instead of one.
    pub two_stop_bits: bool,
}

/// A parity bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// `N`
    None,
    /// `E`
    Even,
    /// `O`
    Odd,
}

/// Bytes of a path at most.
const PATH_MAX: usize = 255;

/// A path of at most 255 bytes, in a place of its own, with the NUL that the kernel wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(heapless::Vec<u8, { PATH_MAX + 1 }>);

impl Path {
    /// Room for a path. As long as nothing is set it is empty, which the kernel takes for no path.
    pub const fn new() -> Path {
        Path(heapless::Vec::new())
    }

    /// Makes it `folder` and `name`, one after the other. False: they are no path.
    #[must_use]
    pub fn set(&mut self, folder: &[u8], name: &[u8]) -> bool {
        self.0.clear();
        self.0.push(0).is_ok() && self.add(folder) && self.add(name) && self.0.len() > 1
    }

    /// Adds to its end. False: it would be no path, and is none now.
    #[must_use]
    pub fn add(&mut self, part: &[u8]) -> bool {
        self.0.pop();
        let is_path = cut(part, 0).1.is_none() && self.0.extend_from_slice(part).is_ok() && self.0.push(0).is_ok();
        if !is_path {
            self.0.clear();
        }
        is_path
    }

    /// As the kernel wants it: ended by a NUL, the only one in it.
    #[inline(never)]
    pub fn as_bytes_with_nul(&self) -> &[u8] {
        if self.0.is_empty() { &[0] } else { &self.0 }
    }

    /// As it was set.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split_last().map_or(&[], |(_, bytes)| bytes)
    }
}

impl Default for Path {
    fn default() -> Path {
        Path::new()
    }
}

/// Why the kernel refused a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// No such file.
    pub const NOENT: Errno = Errno(2);
    /// Input/output error.
    pub const IO: Errno = Errno(5);
    /// More than there is room for.
    pub const TOOBIG: Errno = Errno(7);
    /// It is closed.
    pub const BADF: Errno = Errno(9);
    /// Not now.
    pub const AGAIN: Errno = Errno(11);
    /// In use.
    pub const BUSY: Errno = Errno(16);
    /// A folder.
    pub const ISDIR: Errno = Errno(21);
    /// Not a tty.
    pub const NOTTY: Errno = Errno(25);
    /// Nobody has the other end.
    pub const PIPE: Errno = Errno(32);
    /// No path: too long, or none at all.
    pub const NAMETOOLONG: Errno = Errno(36);
    /// Not what it should be.
    pub const INVAL: Errno = Errno(22);
    /// There is nothing in it.
    pub const NODATA: Errno = Errno(61);
    /// The other end ended it by force.
    pub const CONNRESET: Errno = Errno(104);
    /// Time was up.
    pub const TIMEDOUT: Errno = Errno(110);
    /// Nobody listens.
    pub const CONNREFUSED: Errno = Errno(111);
    /// A key of another kind.
    pub const KEYREJECTED: Errno = Errno(129);
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Errno").field(&self.0).finish()
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kernel refused")
    }
}

impl core::error::Error for Errno {}

impl embedded_io::Error for Errno {
    fn kind(&self) -> embedded_io::ErrorKind {
        embedded_io::ErrorKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let mut path = Path::new();
        assert_eq!(path.as_bytes_with_nul(), b"\0");
        assert!(path.set(b"/dev/", b"ttyS1"));
        assert_eq!((path.as_bytes(), path.as_bytes_with_nul()), (&b"/dev/ttyS1"[..], &b"/dev/ttyS1\0"[..]));
        assert!(path.set(&[b'x'; 255], b""));
        for none in [&b""[..], &[b'x'; 256], b"/dev/tty\0S1"] {
            assert!(!path.set(none, b"") && !path.set(b"", none));
            assert_eq!((path.as_bytes(), path.as_bytes_with_nul()), (&b""[..], &b"\0"[..]));
        }
    }
}
