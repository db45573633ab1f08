//! The channel to the bridge: opened without blocking, alone, empty of what came before; then a port for the core's
//! driver. Every step has a deadline.

use crate::find::Way;
use crate::order::Order;
use crate::system::{Errno, Family, Path, Signs, System};
use embedded_io::{ErrorType, Read, Write};
use fencewire_core::Millis;
use fencewire_core::classic::serial::REQUEST_LEN;
use fencewire_core::driver::{Port, Ready};

/// How often to try again for a device that another agent has.
const TRY_AGAIN: Millis = Millis(50);

/// How long a device must be silent to count as empty. What waits in the host is handed over after the opening: within
/// a millisecond by an idle QEMU.
const SILENCE: Millis = Millis(25);

/// An open channel.
#[derive(Debug)]
pub(crate) struct Channel<'s, S> {
    system: &'s S,
    /// Read once after each wait: between two waits no time passes that would matter.
    now: Millis,
    deadline: Millis,
    written: u32,
    dropped: u32,
}

/// What somebody else may stand in the way of.
#[derive(Clone, Copy)]
enum Step<'p> {
    Connect(Family, &'p [u8]),
    Open(&'p Path),
    Lock,
}

impl<'s, S: System> Channel<'s, S> {
    /// To be opened now and used before the deadline.
    pub(crate) fn new(system: &'s S, now: Millis, deadline: Millis) -> Channel<'s, S> {
        Channel { system, now, deadline, written: 0, dropped: 0 }
    }

    /// Opens what is at `path`, or at the order's address. `knows_old`: what is asked there tells the answers to it
    /// from others, so the channel need not be empty.
    #[inline(never)]
    pub(crate) fn open(&mut self, path: &Path, way: Way, order: &Order<'_>, knows_old: bool) -> Result<(), Errno> {
        match way {
            Way::Device => {}
            // A new connection holds nothing of an earlier one: there is nothing to empty.
            Way::Socket => return self.until_free(Step::Connect(Family::Unix, path.as_bytes_with_nul())),
            Way::Tcp => return self.until_free(Step::Connect(order.tcp.family, &order.tcp.address())),
        }
        // The kernel lets one process at a time have a virtio port. A serial port it lets many have, and they would
        // read each other's answers: hence the lock, before anything is set or flushed.
        self.until_free(Step::Open(path))?;
        self.until_free(Step::Lock)?;
        match self.system.set_line(order.line) {
            // A virtio port has no line to set.
            Ok(()) | Err(Errno::NOTTY) if knows_old => Ok(()),
            Ok(()) | Err(Errno::NOTTY) => self.empty(),
            Err(errno) => Err(errno),
        }
    }

    /// Whether a whole request has gone out.
    pub(crate) fn asked(&self) -> bool {
        self.written >= REQUEST_LEN as u32
    }

    /// How many bytes were there that nobody had asked for.
    pub(crate) fn dropped(&self) -> u32 {
        self.dropped
    }

    /// Tries again for as long as somebody else has it, and there is time.
    fn until_free(&mut self, step: Step<'_>) -> Result<(), Errno> {
        loop {
            let result = match step {
                Step::Connect(family, address) => self.system.connect(family, address),
                Step::Open(path) => self.system.open(path),
                Step::Lock => self.system.lock(),
            };
            // A virtio port says that it is busy; a lock, and a socket with too many callers, say: not now.
            if !matches!(result, Err(Errno::BUSY | Errno::AGAIN)) || self.now >= self.deadline {
                return result;
            }
            self.system.pause(TRY_AGAIN);
            self.now = self.system.now();
        }
    }

    /// Drops what waits in the channel: an answer to somebody else's request, perhaps, and on this wire answers do not
    /// say to which request they belong. [`Errno::TIMEDOUT`]: more and more comes.
    fn empty(&mut self) -> Result<(), Errno> {
        // The other half is for the exchange. A list that somebody did not want to the end may take its time.
        let give_up = self.now.plus(Millis(self.deadline.since(self.now).0 / 2));
        let mut silent_at = self.now.plus(SILENCE);
        while self.now < silent_at {
            let signs = self.signs(false, silent_at)?;
            if !signs.read && !signs.hung_up {
                continue;
            }
            match self.system.receive(&mut [0; 256]) {
                Ok(read @ 1..) => self.dropped = self.dropped.saturating_add(read),
                Err(Errno::AGAIN) if !signs.hung_up => {}
                _ => return Err(Errno::PIPE),
            }
            if self.now >= give_up {
                return Err(Errno::TIMEDOUT);
            }
            silent_at = self.now.plus(SILENCE);
        }
        Ok(())
    }

    fn signs(&mut self, write: bool, until: Millis) -> Result<Signs, Errno> {
        let signs = self.system.wait(write, until.since(self.now));
        self.now = self.system.now();
        signs
    }
}

impl<S> ErrorType for Channel<'_, S> {
    type Error = Errno;
}

impl<S: System> Read for Channel<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Errno> {
        loop {
            match self.system.receive(into) {
                Ok(read) => return Ok(read as usize),
                // A sign without bytes behind it. 0 would mean that the other end is gone: unless it is.
                Err(Errno::AGAIN) if self.now < self.deadline => {
                    let signs = self.signs(false, self.deadline)?;
                    if signs.hung_up && !signs.read {
                        return Ok(0);
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl<S: System> Write for Channel<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        match self.system.send(bytes) {
            Ok(sent) => {
                self.written = self.written.saturating_add(sent);
                Ok(sent as usize)
            }
            Err(Errno::AGAIN) => Ok(0),
            Err(errno) => Err(errno),
        }
    }

    fn flush(&mut self) -> Result<(), Errno> {
        Ok(())
    }
}

impl<S: System> Port for Channel<'_, S> {
    fn now(&mut self) -> Millis {
        self.now
    }

    fn wait(&mut self, write: bool, until: Option<Millis>) -> Result<Ready, Errno> {
        let until = until.map_or(self.deadline, |until| until.min(self.deadline));
        let signs = self.signs(write, until)?;
        Ok(Ready {
            // What hung up is read to its end: the answer may be before it.
            read: signs.read || signs.hung_up,
            write: signs.write && !signs.hung_up,
        })
    }
}
