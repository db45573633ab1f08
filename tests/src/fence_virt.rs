//! Debian's `fence_virt` as a guest would run it, on a serial port that is a pseudo-terminal; and [by TCP](by_tcp).
//!
//! ```text
//! fence_virt -D pty ──▶ terminal ──▶ pump (a thread) ──▶ unix socket at socket_path() ◀── the bridge connects
//! ```
//!
//! The terminal is raw, and this side keeps it open between two clients, so the pump sees no hang-up when one ends. What
//! a pseudo-terminal lacks are the modem lines: the client cannot drop DTR, complains "ioctl1: Inappropriate ioctl for
//! device" and goes on without its pause of 0.3 s. It does flush both directions when it opens the terminal, so no reply
//! left over from an earlier client reaches it.
//!
//! The pump behaves like QEMU with an ISA serial port: one client on the socket at a time, the next one waits; what is
//! written while nobody is connected is lost.

use std::fs::File;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::process::{Finished, program, run, wait_until};

/// The client gives up by itself after 30 s unless told otherwise.
const CLIENT_DEADLINE: Duration = Duration::from_secs(45);

/// A guest's serial port for `fence_virt`, or for any other program that takes a terminal.
#[derive(Debug)]
pub struct FenceVirt {
    device: PathBuf,
    socket_path: Option<PathBuf>,
    pump: Pump,
    /// Keeps the terminal from hanging up when a client closes it.
    _terminal: OwnedFd,
}

impl FenceVirt {
    /// A terminal whose other end is a unix socket that listens in `folder`, at [`socket_path`](Self::socket_path).
    ///
    /// # Panics
    /// When the socket or the terminal cannot be made.
    #[track_caller]
    pub fn new(folder: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = folder.join(format!("terminal-{}.sock", NEXT.fetch_add(1, Ordering::Relaxed)));
        let listener =
            UnixListener::bind(&path).unwrap_or_else(|error| panic!("cannot listen at {}: {error}", path.display()));
        Self { socket_path: Some(path), ..Self::with(Far::Listening(listener)) }
    }

    /// A terminal whose other end is a stream that is connected already.
    ///
    /// # Panics
    /// When the terminal cannot be made.
    #[track_caller]
    pub fn over(stream: UnixStream) -> Self {
        Self::with(Far::Given(stream))
    }

    #[track_caller]
    fn with(far: Far) -> Self {
        // Checked here, so that a test fails at its beginning where the program is missing.
        program("fence_virt");
        let (near, terminal, device) = pseudo_terminal().expect("a pseudo-terminal");
        Self { device, socket_path: None, pump: Pump::start(far, near), _terminal: terminal }
    }

    /// Where the bridge connects.
    ///
    /// # Panics
    /// When the bed was made [over](Self::over) a stream.
    #[track_caller]
    pub fn socket_path(&self) -> &Path {
        self.socket_path.as_deref().expect("a terminal over a given stream has no socket path")
    }

    /// The terminal, as `fence_virt -D` takes it.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Whether a bridge is connected.
    pub fn is_connected(&self) -> bool {
        self.pump.is_connected()
    }

    /// Waits until a bridge is connected.
    ///
    /// # Panics
    /// When none is after `deadline`.
    #[track_caller]
    pub fn wait_for_bridge(&self, deadline: Duration) {
        wait_until(deadline, "the bridge to connect to fence_virt's terminal", || self.is_connected().then_some(()));
    }

    /// Runs `fence_virt -D <terminal>` with these further arguments, such as `&["-o", "status", "-H", "vm2"]`. One at
    /// a time: two programs on one terminal would take each other's bytes.
    ///
    /// # Panics
    /// When it takes longer than it would by itself.
    #[track_caller]
    pub fn run(&mut self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program("fence_virt"));
        run(command.arg("-D").arg(&self.device).args(arguments), CLIENT_DEADLINE)
    }
}

/// Runs `fence_virt -T` at that port with that key file and these further arguments.
///
/// # Panics
/// When it takes longer than it would by itself.
#[track_caller]
pub fn by_tcp(to: SocketAddr, key_file: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(program("fence_virt"));
    command.arg("-T").arg(to.ip().to_string()).arg("-p").arg(to.port().to_string()).arg("-k").arg(key_file);
    run(command.args(arguments), CLIENT_DEADLINE)
}

/// The controlling end, the terminal, and the terminal's path.
fn pseudo_terminal() -> io::Result<(OwnedFd, OwnedFd, PathBuf)> {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&near)?;
    unlockpt(&near)?;
    let name = ptsname(&near, Vec::new())?;
    let terminal = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let mut settings = tcgetattr(&terminal)?;
    settings.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &settings)?;
    let device = PathBuf::from(name.to_str().map_err(io::Error::other)?);
    Ok((near, terminal, device))
}

/// The end of a [`Pump`] to which somebody connects, or is connected.
pub(crate) enum Far {
    /// Takes one connection after the other.
    Listening(UnixListener),
    /// Has one connection, for good.
    Given(UnixStream),
}

/// A thread that carries bytes both ways between `Far` and a file descriptor; it ends when the pump is dropped.
#[derive(Debug)]
pub(crate) struct Pump {
    connections: Arc<AtomicUsize>,
    /// Its end of file tells the thread to stop.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    pub(crate) fn start(far: Far, near: OwnedFd) -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = UnixStream::pair().expect("a pair of sockets");
        let (listener, connection) = match far {
            Far::Listening(listener) => (Some(listener), None),
            Far::Given(stream) => (None, Some(stream)),
        };
        let flags = fcntl_getfl(&near).expect("the flags of an open file");
        fcntl_setfl(&near, flags | OFlags::NONBLOCK).expect("an open file can be made non-blocking");
        let mut turn = Turn {
            stopped,
            listener,
            connection: None,
            near: File::from(near),
            to_near: Vec::new(),
            to_far: Vec::new(),
            connections: Arc::clone(&connections),
        };
        if let Some(stream) = connection {
            turn.connect(stream);
        }
        let thread = thread::Builder::new().name("pump".to_owned()).spawn(move || while turn.take() {});
        Self { connections, stop: Some(stop), thread: Some(thread.expect("a thread")) }
    }

    fn is_connected(&self) -> bool {
        self.connections.load(Ordering::Acquire) > 0
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; a second one here could abort the test program.
            drop(thread.join());
        }
    }
}

/// What the pump's thread has in hand.
struct Turn {
    stopped: UnixStream,
    listener: Option<UnixListener>,
    connection: Option<UnixStream>,
    near: File,
    /// Read from the connection, not written yet. While there is some, no more is read.
    to_near: Vec<u8>,
    to_far: Vec<u8>,
    connections: Arc<AtomicUsize>,
}

impl Turn {
    /// Waits for something to do and does it. False: the pump is at its end.
    fn take(&mut self) -> bool {
        let [stopped, listener, connection, near] = self.wait();
        if !stopped.is_empty() {
            return false;
        }
        if !listener.is_empty()
            && let Some(Ok((stream, _))) = self.listener.as_ref().map(UnixListener::accept)
        {
            self.connect(stream);
        }
        if let Some(mut stream) = self.connection.take() {
            // A connection that ends takes what was on its way to it along; what it has sent is still delivered.
            let goes_on = step(&mut stream, connection, &mut self.to_near, &mut self.to_far);
            if goes_on {
                self.connection = Some(stream);
            } else {
                self.connections.store(0, Ordering::Release);
                self.to_far.clear();
            }
        }
        if !step(&mut self.near, near, &mut self.to_far, &mut self.to_near) {
            return false;
        }
        if self.connection.is_none() {
            self.to_far.clear();
        }
        self.connection.is_some() || self.listener.is_some()
    }

    fn wait(&self) -> [PollFlags; 4] {
        let wanted = |read: &[u8], write: &[u8]| {
            let reading = if read.is_empty() { PollFlags::IN } else { PollFlags::empty() };
            let writing = if write.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            reading | writing
        };
        let stopped = self.stopped.as_fd();
        let connection = self.connection.as_ref().map(UnixStream::as_fd);
        let listener = self.listener.as_ref().filter(|_| connection.is_none()).map(UnixListener::as_fd);
        let mut fds = [
            slot(Some(stopped), PollFlags::IN, stopped),
            slot(listener, PollFlags::IN, stopped),
            slot(connection, wanted(&self.to_near, &self.to_far), stopped),
            slot(Some(self.near.as_fd()), wanted(&self.to_far, &self.to_near), stopped),
        ];
        loop {
            match poll(&mut fds, None) {
                Ok(_) => return fds.map(|fd| fd.revents()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("poll failed: {}", io::Error::from(error)),
            }
        }
    }

    fn connect(&mut self, stream: UnixStream) {
        stream.set_nonblocking(true).expect("a socket can be made non-blocking");
        self.connection = Some(stream);
        self.connections.store(1, Ordering::Release);
    }
}

/// One place in the list that is polled. What must wait is not polled at all, or its hang-up would be reported again and
/// again: `idle` takes the place and is asked for nothing.
fn slot<'fd>(fd: Option<BorrowedFd<'fd>>, wanted: PollFlags, idle: BorrowedFd<'fd>) -> PollFd<'fd> {
    match fd {
        Some(fd) if !wanted.is_empty() => PollFd::from_borrowed_fd(fd, wanted),
        _ => PollFd::from_borrowed_fd(idle, PollFlags::empty()),
    }
}

/// Reads from one end if it has something and the last was passed on, and writes what waits for it. False: it has ended.
fn step(end: &mut (impl io::Read + io::Write), ready: PollFlags, read: &mut Vec<u8>, write: &mut Vec<u8>) -> bool {
    if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && read.is_empty() {
        let mut buffer = [0; 1 << 14];
        match end.read(&mut buffer) {
            Ok(0) => return false,
            Ok(n) => read.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    if !write.is_empty() {
        match end.write(write) {
            Ok(n) => *write = mem::take(write).split_off(n),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    true
}
