//! The kernel's side: where the program begins, and [`System`] in system calls. No decision is made here.
//!
//! The numbers and layouts are those of Linux on x86-64.

mod call;
mod start;

use call::{call3, call5, check};
use core::cell::Cell;
use core::mem::size_of;
use core::ptr::{from_mut, from_ref};
use fence_wire_agent::{Errno, Family, Kind, LineParams, Parity, Path, Signs, Stream, System};
use fencewire_core::Millis;

/// The system under the program.
pub(crate) struct Linux {
    channel: Cell<Fd>,
    folder: Cell<Fd>,
    random: u32,
}

/// A file descriptor.
#[derive(Clone, Copy)]
struct Fd(u32);

/// None: every call on it fails with `EBADF`.
const CLOSED: Fd = Fd(u32::MAX);

const STDIN: Fd = Fd(0);
const STDOUT: Fd = Fd(1);
const STDERR: Fd = Fd(2);

/// The first one that is none of those. What is opened goes there or further up, also where some of those are closed:
/// else a sentence for standard error could go to the bridge.
const FIRST_OWN: u32 = 3;

/// As in `open(2)`.
const O_RDONLY: usize = 0;
const O_RDWR: usize = 2;
const O_NOCTTY: usize = 0o400;
const O_NONBLOCK: usize = 0o4000;
const O_CLOEXEC: usize = 0o2_000_000;

/// As in `ioctl_tty(2)`.
const TCFLSH: usize = 0x540b;

/// As in `poll(2)`.
#[repr(C)]
struct PollFd {
    fd: u32,
    events: i16,
    revents: i16,
}

const POLLIN: i16 = 0x01;
const POLLOUT: i16 = 0x04;
const POLLERR: i16 = 0x08;
const POLLHUP: i16 = 0x10;
const POLLNVAL: i16 = 0x20;

#[repr(C)]
struct Timespec {
    seconds: u64,
    nanoseconds: u64,
}

/// As in `unix(7)`; an address as in `ip(7)` or `ipv6(7)` is the beginning of one, and the kernel does not look further.
#[repr(C)]
struct Address {
    family: u16,
    rest: [u8; 108],
}

/// `struct termios2` of the kernel. Its speeds are numbers, where `control` says so.
#[repr(C)]
struct Termios {
    input: u32,
    output: u32,
    control: u32,
    local: u32,
    discipline: u8,
    characters: [u8; 19],
    input_speed: u32,
    output_speed: u32,
}

const _: () = assert!(size_of::<Termios>() == 44);

/// As in `fcntl(2)`.
#[repr(C)]
struct Lock {
    kind: i16,
    whence: i16,
    start: i64,
    length: i64,
    process: i32,
}

const _: () = assert!(size_of::<Lock>() == 32);

/// `struct statx`, of which only the mode is looked at.
#[repr(C)]
struct Statx {
    before: [u32; 7],
    mode: u16,
    after: [u16; 113],
}

const _: () = assert!(size_of::<Statx>() == 256);

impl Linux {
    /// `random`: what the kernel gave the process.
    fn new(random: u32) -> Linux {
        const SIG_BLOCK: usize = 0;
        // SIGPIPE, the 13th: a reader that goes away must be an error, not the end of the process.
        let signals = 1u64 << 12;
        // SAFETY: the kernel reads the 8 bytes of `signals`.
        let _ = unsafe { call5(call::RT_SIGPROCMASK, SIG_BLOCK, from_ref(&signals).expose_provenance(), 0, 8, 0) };
        Linux { channel: Cell::new(CLOSED), folder: Cell::new(CLOSED), random }
    }

    /// Drops what a serial port has not sent. Nobody waits for an answer to it any more; it would go out when the host reads
    /// again, and until then the kernel keeps a process that closes the port, for 30 s at most.
    fn drop_unsent(&self) {
        const TCOFLUSH: usize = 1;
        // SAFETY: no memory is involved.
        let _ = unsafe { call3(call::IOCTL, self.channel.get().arg(), TCFLSH, TCOFLUSH) };
    }
}

impl Fd {
    /// Opens `path`, whatever it is, without blocking and without becoming its process's terminal.
    #[inline(never)]
    fn open(path: &Path, access: usize) -> Result<Fd, Errno> {
        let flags = access | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
        // SAFETY: the kernel reads the path up to its NUL.
        Fd::own(unsafe { call3(call::OPEN, path.as_bytes_with_nul().as_ptr().expose_provenance(), flags, 0) })
    }

    /// A new descriptor, out of the way of the standard ones.
    fn own(result: isize) -> Result<Fd, Errno> {
        const F_DUPFD_CLOEXEC: usize = 1030;
        let fd = Fd(check(result)?);
        if fd.0 >= FIRST_OWN {
            return Ok(fd);
        }
        // SAFETY: no memory is involved.
        let moved = check(unsafe { call3(call::FCNTL, fd.arg(), F_DUPFD_CLOEXEC, FIRST_OWN as usize) });
        fd.close();
        moved.map(Fd)
    }

    fn arg(self) -> usize {
        self.0 as usize
    }

    #[inline(never)]
    fn close(self) {
        // SAFETY: no memory is involved.
        let _ = unsafe { call3(call::CLOSE, self.arg(), 0, 0) };
    }

    fn read(self, into: &mut [u8]) -> Result<u32, Errno> {
        // SAFETY: the kernel writes to `into` and not beyond its length.
        check(unsafe { call3(call::READ, self.arg(), into.as_mut_ptr().expose_provenance(), into.len()) })
    }

    #[inline(never)]
    fn write(self, bytes: &[u8]) -> Result<u32, Errno> {
        // SAFETY: the kernel reads `bytes` and not beyond its length.
        check(unsafe { call3(call::WRITE, self.arg(), bytes.as_ptr().expose_provenance(), bytes.len()) })
    }

    /// Waits for as long as `span`, or until one of `events` has come, or it has failed. Which. What is waited for on
    /// [`CLOSED`] is only the time.
    fn poll(self, events: i16, span: Millis) -> Result<i16, Errno> {
        let mut entry = PollFd { fd: self.0, events, revents: 0 };
        let mut time = Timespec { seconds: span.0 / 1000, nanoseconds: span.0 % 1000 * 1_000_000 };
        // No signal has a handler: whoever stops and continues the process does not interrupt this.
        // SAFETY: the kernel reads and writes the one entry and `time`.
        check(unsafe {
            call5(
                call::PPOLL,
                from_mut(&mut entry).expose_provenance(),
                1,
                from_mut(&mut time).expose_provenance(),
                0,
                8,
            )
        })?;
        Ok(entry.revents)
    }

    /// Waits until one of `events` has come, or it has failed.
    #[inline(never)]
    fn until(self, events: i16, span: Millis) -> Result<(), Errno> {
        if self.poll(events, span)? == 0 { Err(Errno::TIMEDOUT) } else { Ok(()) }
    }
}

impl System for Linux {
    #[inline(never)]
    fn now(&self) -> Millis {
        const CLOCK_BOOTTIME: usize = 7;
        let mut time = Timespec { seconds: 0, nanoseconds: 0 };
        // SAFETY: the kernel writes one `Timespec`.
        let _ = unsafe { call3(call::CLOCK_GETTIME, CLOCK_BOOTTIME, from_mut(&mut time).expose_provenance(), 0) };
        Millis(time.seconds * 1000 + time.nanoseconds / 1_000_000)
    }

    fn random(&self) -> u32 {
        self.random
    }

    #[inline(never)]
    fn entropy(&self, into: &mut [u8]) -> bool {
        const GRND_NONBLOCK: usize = 1;
        // SAFETY: the kernel writes to `into` and not beyond its length.
        let got =
            check(unsafe { call3(call::GETRANDOM, into.as_mut_ptr().expose_provenance(), into.len(), GRND_NONBLOCK) });
        got == Ok(into.len() as u32)
    }

    fn read_input(&self, into: &mut [u8]) -> Result<u32, Errno> {
        STDIN.until(POLLIN, Millis(30_000))?;
        STDIN.read(into)
    }

    fn write(&self, to: Stream, mut bytes: &[u8]) -> Result<(), Errno> {
        let (fd, span) = match to {
            Stream::Output => (STDOUT, Millis(5_000)),
            // What is wrong there must not keep the exit code back.
            Stream::Error => (STDERR, Millis(500)),
        };
        while !bytes.is_empty() {
            fd.until(POLLOUT, span)?;
            // A pipe that says so has room for 4096 bytes at least, and no caller has more.
            let written = fd.write(bytes)?;
            bytes = bytes.get(written as usize..).unwrap_or_default();
        }
        Ok(())
    }

    fn kind(&self, path: &Path) -> Result<Kind, Errno> {
        const AT_FDCWD: usize = (-100isize).cast_unsigned();
        const STATX_TYPE: usize = 1;
        let mut status = Statx { before: [0; 7], mode: 0, after: [0; 113] };
        let name = path.as_bytes_with_nul().as_ptr().expose_provenance();
        // SAFETY: the kernel reads the path up to its NUL, and writes one `Statx`.
        check(unsafe { call5(call::STATX, AT_FDCWD, name, 0, STATX_TYPE, from_mut(&mut status).expose_provenance()) })?;
        Ok(match status.mode & 0o170_000 {
            0o020_000 => Kind::Device,
            0o140_000 => Kind::Socket,
            0o040_000 => Kind::Folder,
            _ => Kind::Other,
        })
    }

    fn read_file(&self, path: &Path, into: &mut [u8]) -> Result<u32, Errno> {
        let fd = Fd::open(path, O_RDONLY)?;
        let mut have = 0;
        let result = loop {
            match fd.read(into.get_mut(have..).unwrap_or_default()) {
                Ok(0) => break Ok(have as u32),
                Ok(read) => have += read as usize,
                Err(errno) => break Err(errno),
            }
        };
        fd.close();
        result
    }

    fn open_folder(&self, path: &Path) -> Result<(), Errno> {
        self.folder.set(Fd::open(path, O_RDONLY)?);
        Ok(())
    }

    fn read_folder(&self, into: &mut [u8]) -> Result<u32, Errno> {
        // SAFETY: the kernel writes to `into` and not beyond its length.
        check(unsafe {
            call3(call::GETDENTS64, self.folder.get().arg(), into.as_mut_ptr().expose_provenance(), into.len())
        })
    }

    fn open(&self, path: &Path) -> Result<(), Errno> {
        self.channel.set(Fd::open(path, O_RDWR)?);
        Ok(())
    }

    #[inline(never)]
    fn connect(&self, family: Family, bytes: &[u8]) -> Result<(), Errno> {
        const SOCK_STREAM: usize = 1;
        const INPROGRESS: Errno = Errno(115);

        let mut address = Address { family: family as u16, rest: [0; 108] };
        address.rest.get_mut(..bytes.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(bytes);
        // SAFETY: no memory is involved.
        let fd = Fd::own(unsafe { call3(call::SOCKET, family as usize, SOCK_STREAM | O_NONBLOCK | O_CLOEXEC, 0) })?;
        // SAFETY: the kernel reads one `Address`.
        let result = check(unsafe {
            call3(call::CONNECT, fd.arg(), from_ref(&address).expose_provenance(), size_of::<Address>())
        });
        match result {
            Ok(_) | Err(INPROGRESS) => {
                self.channel.set(fd);
                Ok(())
            }
            Err(errno) => {
                fd.close();
                Err(errno)
            }
        }
    }

    fn lock(&self) -> Result<(), Errno> {
        const F_SETLK: usize = 6;
        const F_WRLCK: i16 = 1;
        let whole = Lock { kind: F_WRLCK, whence: 0, start: 0, length: 0, process: 0 };
        // SAFETY: the kernel reads one `Lock`.
        check(unsafe { call3(call::FCNTL, self.channel.get().arg(), F_SETLK, from_ref(&whole).expose_provenance()) })
            .map(|_| ())
    }

    fn set_line(&self, line: LineParams) -> Result<(), Errno> {
        const TCSETS2: usize = 0x402c_542b;
        const TCIFLUSH: usize = 0;
        const BOTHER: u32 = 0o010_000;
        const CSTOPB: u32 = 0x40;
        const CREAD: u32 = 0x80;
        const PARENB: u32 = 0x100;
        const PARODD: u32 = 0x200;
        const CLOCAL: u32 = 0x800;

        let parity = match line.parity {
            Parity::None => 0,
            Parity::Even => PARENB,
            Parity::Odd => PARENB | PARODD,
        };
        // CS5 is 0, CS8 is 0x30.
        let size = u32::from(line.data_bits.saturating_sub(5) & 3) << 4;
        let stop = if line.two_stop_bits { CSTOPB } else { 0 };
        let mut termios = Termios {
            input: 0,
            output: 0,
            // Without HUPCL: the modem lines are left alone, also at the end.
            control: BOTHER | size | stop | parity | CREAD | CLOCAL,
            local: 0,
            discipline: 0,
            characters: [0; 19],
            input_speed: line.baud,
            output_speed: line.baud,
        };
        // VMIN: how many bytes make a read return. With 0 a read of nothing would look like an end.
        termios.characters[6] = 1;
        let fd = self.channel.get().arg();
        // SAFETY: the kernel reads one `Termios`.
        check(unsafe { call3(call::IOCTL, fd, TCSETS2, from_ref(&termios).expose_provenance()) })?;
        // SAFETY: no memory is involved.
        check(unsafe { call3(call::IOCTL, fd, TCFLSH, TCIFLUSH) }).map(|_| ())
    }

    fn receive(&self, into: &mut [u8]) -> Result<u32, Errno> {
        self.channel.get().read(into)
    }

    fn send(&self, bytes: &[u8]) -> Result<u32, Errno> {
        self.channel.get().write(bytes)
    }

    fn wait(&self, write: bool, span: Millis) -> Result<Signs, Errno> {
        let events = if write { POLLIN | POLLOUT } else { POLLIN };
        let came = self.channel.get().poll(events, span)?;
        Ok(Signs {
            read: came & POLLIN != 0,
            write: came & POLLOUT != 0,
            hung_up: came & (POLLHUP | POLLERR | POLLNVAL) != 0,
        })
    }

    fn pause(&self, span: Millis) {
        let _ = CLOSED.poll(0, span);
    }
}
