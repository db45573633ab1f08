//! The guest's side of a channel, byte by byte, and the classic serial frames built by hand.
//!
//! A [`GuestChannel`] stands where QEMU and the guest would: on a channel that the bridge connects to (kind `unix`,
//! and what libvirt makes) it [listens](GuestChannel::listen); on one where the bridge listens (kind `unix-listen`) it
//! [connects](GuestChannel::connect). It adds nothing to the bytes and takes nothing away, so what a test sends is what
//! the bridge reads.
//!
//! The frames are written down here a second time, from the description of the wire and not from `fencewire-core`: a
//! test that used the same code at both ends would agree with any mistake in it.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::bytes::{hex, read_at_most};
use crate::process::{DEADLINE, Process, of_the_tests, readable, wait_until};

/// The guest's side of one channel, with at most one connection to the bridge.
#[derive(Debug)]
pub struct GuestChannel {
    side: Side,
    stream: Option<UnixStream>,
    /// Whom the kernel takes for the one that listens, in place of this process.
    qemu: Option<Process>,
}

#[derive(Debug)]
enum Side {
    /// We listen at `path`, the bridge connects. No listener: the guest is gone for the moment.
    Listening { path: PathBuf, listener: Option<UnixListener>, _folder: Option<TempDir> },
    /// The bridge listens at `path`, we connect.
    Connecting { path: PathBuf },
    /// Somebody gave us a stream; it cannot be had a second time.
    Given,
}

impl GuestChannel {
    /// Listens at a path in a private folder, as QEMU does.
    ///
    /// # Panics
    /// When the socket cannot be made.
    #[track_caller]
    pub fn listen() -> Self {
        let folder = tempfile::tempdir().expect("a private folder");
        let path = folder.path().join("channel.sock");
        let listener = Some(bind(&path));
        Self { side: Side::Listening { path, listener, _folder: Some(folder) }, stream: None, qemu: None }
    }

    /// Listens at `path`, as QEMU does; for what insists on the folder in which the socket lies.
    ///
    /// # Panics
    /// When the socket cannot be made.
    #[track_caller]
    pub fn listen_at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let listener = Some(bind(&path));
        Self { side: Side::Listening { path, listener, _folder: None }, stream: None, qemu: None }
    }

    /// Listens as [`listen`](Self::listen) does; and for all that the bridge can see, who listens is a QEMU.
    ///
    /// # Panics
    /// When the socket cannot be made, or the program that stands in for QEMU is missing.
    #[track_caller]
    pub fn listen_as_qemu() -> Self {
        let mut channel = Self::listen();
        channel.be_qemu();
        channel
    }

    #[track_caller]
    fn be_qemu(&mut self) {
        let Side::Listening { listener: Some(listener), .. } = &self.side else { return };
        let socket = listener.as_fd().try_clone_to_owned().expect("another handle of the socket");
        let qemu = Process::start_with_file(&mut Command::new(of_the_tests("qemu-stand-in")), socket);
        wait_until(DEADLINE, "the stand-in for QEMU", || (!qemu.stdout().is_empty()).then_some(()));
        self.qemu = Some(qemu);
    }

    /// Connects to a bridge that listens at `path`, trying again until it does.
    ///
    /// # Panics
    /// When nobody listens there after `deadline`.
    #[track_caller]
    pub fn connect(path: impl Into<PathBuf>, deadline: Duration) -> Self {
        let mut channel = Self { side: Side::Connecting { path: path.into() }, stream: None, qemu: None };
        channel.reconnect(deadline);
        channel
    }

    /// Speaks over a stream that is already connected.
    pub fn over(stream: UnixStream) -> Self {
        Self { side: Side::Given, stream: Some(stream), qemu: None }
    }

    /// Where the socket is.
    ///
    /// # Panics
    /// When the channel was made [over](Self::over) a stream.
    #[track_caller]
    pub fn path(&self) -> &Path {
        match &self.side {
            Side::Listening { path, .. } | Side::Connecting { path } => path,
            Side::Given => panic!("a channel over a given stream has no path"),
        }
    }

    /// Waits for the bridge to connect. An earlier connection is closed: QEMU has one client at a time.
    ///
    /// # Panics
    /// When the bridge has not connected after `deadline`, or when this side does not listen.
    #[track_caller]
    pub fn accept(&mut self, deadline: Duration) {
        assert!(
            self.accept_within(deadline),
            "waited {deadline:?} for the bridge to connect to {}",
            self.path().display()
        );
    }

    /// Whether the bridge connected within `duration`, for a test that says it must not.
    ///
    /// # Panics
    /// When this side does not listen.
    #[track_caller]
    pub fn accept_within(&mut self, duration: Duration) -> bool {
        let Side::Listening { listener: Some(listener), .. } = &self.side else {
            panic!("only a channel that listens can accept");
        };
        self.stream = None;
        if !readable(listener, duration) {
            return false;
        }
        let (stream, _) = listener.accept().expect("a connection that is waiting can be accepted");
        self.stream = Some(stream);
        true
    }

    /// Whether somebody calls within `duration` while the connection that there is stays.
    ///
    /// # Panics
    /// When this side does not listen.
    #[track_caller]
    pub fn is_called_again(&self, duration: Duration) -> bool {
        let Side::Listening { listener: Some(listener), .. } = &self.side else {
            panic!("only a channel that listens can be called");
        };
        readable(listener, duration)
    }

    /// Connects anew to a bridge that listens. An earlier connection is closed.
    ///
    /// # Panics
    /// When nobody listens there after `deadline`, or when this side is not the one that connects.
    #[track_caller]
    pub fn reconnect(&mut self, deadline: Duration) {
        let Side::Connecting { path } = &self.side else { panic!("only a channel that connects can do so again") };
        self.stream = None;
        let what = format!("a bridge to listen at {}", path.display());
        self.stream = Some(wait_until(deadline, &what, || UnixStream::connect(path).ok()));
    }

    /// Closes the connection; a socket that we listen on stays, and the bridge may come again.
    pub fn close(&mut self) {
        self.stream = None;
    }

    /// Does what a destroyed guest's QEMU does: end of file, nobody listens, the path is gone.
    ///
    /// # Panics
    /// When this side does not listen.
    #[track_caller]
    pub fn vanish(&mut self) {
        self.stream = None;
        let Side::Listening { path, listener, .. } = &mut self.side else {
            panic!("only a channel that listens can vanish")
        };
        *listener = None;
        drop(fs::remove_file(path));
        self.qemu = None;
    }

    /// Does what a newly started guest's QEMU does: listens at the same path, on a new socket.
    ///
    /// # Panics
    /// When this side does not listen, or the socket cannot be made.
    #[track_caller]
    pub fn listen_again(&mut self) {
        let is_qemu = self.qemu.is_some();
        self.vanish();
        if let Side::Listening { path, listener, .. } = &mut self.side {
            *listener = Some(bind(path));
        }
        if is_qemu {
            self.be_qemu();
        }
    }

    /// Does what a newly started QEMU does, though who listened there before was none.
    ///
    /// # Panics
    /// When this side does not listen, or the socket cannot be made.
    #[track_caller]
    pub fn listen_again_as_qemu(&mut self) {
        self.listen_again();
        if self.qemu.is_none() {
            self.be_qemu();
        }
    }

    /// The connection itself, for what the methods here do not do.
    ///
    /// # Panics
    /// When there is no connection.
    #[track_caller]
    pub fn stream(&self) -> &UnixStream {
        self.stream.as_ref().expect("no connection: the channel was closed, or `accept` not called yet")
    }

    /// Sends `bytes` in one write.
    ///
    /// # Panics
    /// When the bridge has closed, or does not take them within [`DEADLINE`].
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_send(bytes) {
            panic!("cannot send {} bytes: {error}", bytes.len());
        }
    }

    /// Sends `bytes` in one write where the bridge may have closed, or may not be reading.
    ///
    /// # Panics
    /// When there is no connection.
    #[track_caller]
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.stream();
        stream.set_write_timeout(Some(DEADLINE))?;
        match stream.write(bytes)? {
            written if written == bytes.len() => Ok(()),
            written => Err(io::Error::other(format!("only {written} of {} bytes were taken", bytes.len()))),
        }
    }

    /// Sends each piece in a write of its own, one straight after the other.
    ///
    /// # Panics
    /// Like [`send`](Self::send).
    #[track_caller]
    pub fn send_pieces<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        for piece in pieces {
            self.send(piece);
        }
    }

    /// Sends byte by byte with a pause after each, as a slow or hostile guest does.
    ///
    /// # Panics
    /// Like [`send`](Self::send).
    #[track_caller]
    pub fn dribble(&mut self, bytes: &[u8], pause: Duration) {
        for byte in bytes {
            self.send(&[*byte]);
            thread::sleep(pause);
        }
    }

    /// Reads exactly `n` bytes.
    ///
    /// # Panics
    /// When fewer came before `deadline` or before the bridge closed; says which came.
    #[track_caller]
    pub fn read(&mut self, n: usize, deadline: Duration) -> Vec<u8> {
        let (bytes, ended) = read_at_most(self.stream(), n, deadline);
        let how = if ended { "the bridge closed" } else { "the time was up" };
        assert_eq!(bytes.len(), n, "{how} ({deadline:?}) when only these bytes had come: [{}]", hex(&bytes));
        bytes
    }

    /// Reads what comes until there are `n` bytes, the bridge closes or `deadline` is over.
    ///
    /// # Panics
    /// When there is no connection.
    #[track_caller]
    pub fn read_up_to(&mut self, n: usize, deadline: Duration) -> Vec<u8> {
        read_at_most(self.stream(), n, deadline).0
    }

    /// Says that for all of `duration` nothing comes and the bridge does not close.
    ///
    /// # Panics
    /// When something comes, or the bridge closes.
    #[track_caller]
    pub fn expect_silence(&mut self, duration: Duration) {
        let (bytes, ended) = read_at_most(self.stream(), 1 << 16, duration);
        assert!(bytes.is_empty(), "silence was expected, these bytes came: [{}]", hex(&bytes));
        assert!(!ended, "silence was expected, the bridge closed");
    }

    /// Waits until the bridge closes, and returns what came before.
    ///
    /// # Panics
    /// When the bridge is still there after `deadline`.
    #[track_caller]
    pub fn expect_end(&mut self, deadline: Duration) -> Vec<u8> {
        let (bytes, ended) = read_at_most(self.stream(), usize::MAX, deadline);
        assert!(ended, "waited {deadline:?} for the bridge to close; these bytes came: [{}]", hex(&bytes));
        bytes
    }

    /// Sends a frame and reads the classic reply to it: the response byte.
    ///
    /// # Panics
    /// When no reply comes before `deadline`, or something else than a reply.
    #[track_caller]
    pub fn ask(&mut self, frame: &[u8], deadline: Duration) -> u8 {
        self.send(frame);
        reply(&self.read(REPLY_LENGTH, deadline))
    }

    /// Asks for a classic host list and reads it to its end.
    ///
    /// # Panics
    /// When anything else than a whole list comes, or it takes longer than `deadline`.
    #[track_caller]
    pub fn ask_list(&mut self, deadline: Duration) -> HostList {
        let end = Instant::now() + deadline;
        let left = || end.saturating_duration_since(Instant::now());
        assert_eq!(self.ask(&request(LIST, b"", fresh_seqno()), left()), HOST_LIST_FOLLOWS, "a host list is announced");
        let mut entries = Vec::new();
        loop {
            let entry = self.read(ENTRY_LENGTH, left());
            if entry.iter().all(|&byte| byte == 0) {
                break;
            }
            entries.push(Entry::new(entry));
        }
        let last = reply(&self.read(REPLY_LENGTH, left()));
        HostList { entries, last }
    }
}

#[track_caller]
fn bind(path: &Path) -> UnixListener {
    UnixListener::bind(path).unwrap_or_else(|error| panic!("cannot listen at {}: {error}", path.display()))
}

// The classic serial wire. All integers are little-endian; a `domain` has 64 bytes, padded with NUL.

/// What begins every classic serial frame: "abba", 0x61626261 in either byte order.
pub const MAGIC: [u8; 4] = [0x61, 0x62, 0x62, 0x61];
/// Bytes of a request.
pub const REQUEST_LENGTH: usize = 74;
/// Bytes of a reply.
pub const REPLY_LENGTH: usize = 5;
/// Bytes of one entry of a host list.
pub const ENTRY_LENGTH: usize = 130;

/// The action "null", which does nothing and fails.
pub const NULL: u8 = 0;
/// The action "off".
pub const OFF: u8 = 1;
/// The action "reboot".
pub const REBOOT: u8 = 2;
/// The action "on".
pub const ON: u8 = 3;
/// The action "status".
pub const STATUS: u8 = 4;
/// The action "monitor".
pub const MONITOR: u8 = 5;
/// The action "list".
pub const LIST: u8 = 6;

/// The response "done"; to a status: "on".
pub const SUCCESS: u8 = 0;
/// The response "failed".
pub const FAILED: u8 = 1;
/// The response to a status: "off".
pub const IS_OFF: u8 = 2;
/// The response "permission denied".
pub const DENIED: u8 = 3;
/// The response "a host list follows".
pub const HOST_LIST_FOLLOWS: u8 = 253;

/// A sequence number that no other request of this test program has: a classic server tells repeats by it.
pub fn fresh_seqno() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A classic serial request.
///
/// # Panics
/// When `domain` does not fit into its 64 bytes.
pub fn request(action: u8, domain: &[u8], seqno: u32) -> [u8; REQUEST_LENGTH] {
    assert!(domain.len() <= 64, "a domain has 64 bytes at most");
    let mut frame = [0; REQUEST_LENGTH];
    frame[..4].copy_from_slice(&MAGIC);
    frame[4] = action;
    // frame[5]: the flags; fence_virt never sets any on this wire.
    frame[6..6 + domain.len()].copy_from_slice(domain);
    frame[70..].copy_from_slice(&seqno.to_le_bytes());
    frame
}

/// The response byte of a classic serial reply.
///
/// # Panics
/// When `bytes` are not a reply.
#[track_caller]
pub fn reply(bytes: &[u8]) -> u8 {
    match bytes {
        [magic @ .., response] if *magic == MAGIC => *response,
        _ => panic!("not a classic reply: [{}]", hex(bytes)),
    }
}

/// A classic host list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostList {
    /// The entries before the one of zeros that ends the list.
    pub entries: Vec<Entry>,
    /// The response that came after the list.
    pub last: u8,
}

impl HostList {
    /// The entry of that name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }
}

/// One entry of a classic host list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The guest's name.
    pub name: String,
    /// Its UUID as text.
    pub uuid: String,
    /// Its state, as libvirt numbers it.
    pub state: u8,
    /// All [`ENTRY_LENGTH`] bytes as they came.
    pub raw: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(raw: Vec<u8>) -> Self {
        let text = |field: &[u8]| {
            let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        Self { name: text(&raw[..64]), uuid: text(&raw[64..128]), state: raw[128], raw }
    }
}
