//! Runs either end over a blocking port: for an agent, for firmware. A host with many channels drives the same
//! machines from its event loop instead.

use crate::{Client, Endpoint, Entropy, Event, Listener, Millis, Reply};
use embedded_io::{Read, Write};

/// Where bytes go in and out, and where time passes.
///
/// `read` and `write` must not block when [`wait`](Self::wait) has just said that they are ready. A `read` of 0 bytes
/// means that the other end is gone.
pub trait Port: Read + Write {
    /// The time now, on a clock that only goes forward.
    fn now(&mut self) -> Millis;

    /// Waits until bytes can be read, or, where `write` says so, written; or until the time `until`.
    fn wait(&mut self, write: bool, until: Option<Millis>) -> Result<Ready, Self::Error>;
}

/// What a port is ready for. Neither: time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// There are bytes, or an end of them.
    pub read: bool,
    /// There is room for bytes.
    pub write: bool,
}

/// Bytes read at a time.
const CHUNK: usize = 256;

/// One end and its port, in conversation. A driver is for one connection; make another for the next.
#[derive(Debug)]
pub struct Driver<'a, E, P> {
    end: &'a mut E,
    port: &'a mut P,
    /// What was read last. Kept between calls: nothing that came with a reply's last byte is lost.
    input: [u8; CHUNK],
    /// Where in it those bytes begin, and end, that were not taken yet.
    begin: usize,
    filled: usize,
    closed: bool,
}

impl<'a, E: Endpoint, P: Port> Driver<'a, E, P> {
    /// Begins a conversation: the port has just been opened.
    pub fn open(end: &'a mut E, port: &'a mut P, entropy: &Entropy) -> Self {
        let now = port.now();
        end.opened(entropy, now);
        Driver { end, port, input: [0; CHUNK], begin: 0, filled: 0, closed: false }
    }

    /// The end that is driven.
    pub fn end(&mut self) -> &mut E {
        self.end
    }

    /// Hands over what was read, or waits for something to do and does it. To be called when a poll said `None`.
    fn turn(&mut self) -> Result<(), P::Error> {
        let now = self.port.now();
        let waiting = self.input.get(self.begin..self.filled).unwrap_or_default();
        if !waiting.is_empty() {
            self.begin += self.end.receive(waiting, now);
            return Ok(());
        }
        let wake_at = self.end.wake_at();
        if wake_at.is_some_and(|at| at <= now) {
            self.end.wake(now);
            return Ok(());
        }
        let ready = self.port.wait(!self.end.transmit().is_empty(), wake_at)?;
        let now = self.port.now();
        if ready.write && !self.end.transmit().is_empty() {
            let sent = self.port.write(self.end.transmit())?;
            self.end.sent(sent, now);
        }
        if ready.read {
            let read = self.port.read(&mut self.input)?;
            (self.begin, self.filled) = (0, read);
            if read == 0 {
                self.closed = true;
                self.end.closed(now);
            }
        }
        Ok(())
    }
}

impl<P: Port> Driver<'_, Client, P> {
    /// Asks until the next reply. After [`Reply::Entry`] there are more.
    pub fn reply(&mut self) -> Result<Reply, P::Error> {
        loop {
            if let Some(reply) = self.end.poll() {
                return Ok(reply);
            }
            if self.closed || self.end.is_over() {
                return Ok(Reply::Closed);
            }
            self.turn()?;
        }
    }
}

impl<P: Port> Driver<'_, Listener, P> {
    /// Listens until something happens; none when the other end is gone, or there is no more to say to it. Answer
    /// through [`Driver::end`].
    pub fn event(&mut self) -> Result<Option<Event>, P::Error> {
        loop {
            if let Some(event) = self.end.poll() {
                return Ok(Some(event));
            }
            if self.closed || self.end.is_over() {
                return Ok(None);
            }
            self.turn()?;
        }
    }
}
