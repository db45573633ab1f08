//! A system for tests, in virtual time: files of which there is only the kind, a channel with a bridge at its other end
//! that does what it was told to, standard streams in memory.
//!
//! Time passes only in `wait` and `pause`, at once, and up to the next thing that happens. Who waits again and again
//! without time passing is stopped: that would be a spin.

use crate::system::{Errno, Family, Kind, LineParams, Path, Signs, Stream, System};
use fencewire_core::Millis;
use fencewire_core::classic::serial::{MAGIC, REQUEST_LEN};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// Waits in a row without time passing that no honest agent needs.
const SPIN: u32 = 5_000;

/// The system. Made by its builders, read afterwards.
#[derive(Debug, Default)]
pub(crate) struct StandIn {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    now: u64,
    idle_waits: u32,
    input: VecDeque<u8>,
    input_error: Option<Errno>,
    output: Vec<u8>,
    /// Standard output fails after so many bytes.
    output_room: Option<usize>,
    error: Vec<u8>,
    things: BTreeMap<Vec<u8>, Result<Kind, Errno>>,
    /// The virtio ports in sysfs and what their `name` files say.
    ports: Vec<(String, String)>,
    ports_read: usize,
    files: BTreeMap<Vec<u8>, Result<Vec<u8>, Errno>>,
    no_entropy: bool,
    /// Random bytes that were given, so far.
    entropy: u8,
    /// What a socket was connected to.
    address: Option<(Family, Vec<u8>)>,
    bridge: Bridge,
    wire: Wire,
    log: Vec<Call>,
    line: Option<LineParams>,
}

/// What the agent did with the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    Connect,
    Lock,
    SetLine,
}

/// The channel and who is at its other end.
#[derive(Debug, Default)]
pub(crate) struct Bridge {
    /// Opening, or connecting, fails with this until then.
    pub(crate) busy: Option<(Errno, u64)>,
    /// The lock is somebody else's until then.
    pub(crate) locked_until: u64,
    /// What setting the line fails with. None: it is a tty.
    pub(crate) not_a_tty: Option<Errno>,
    /// The other end is gone from then on.
    pub(crate) gone_from: Option<u64>,
    /// How many bytes it takes. None: any number.
    pub(crate) takes: Option<usize>,
    /// What it sends without being asked, and when.
    pub(crate) unasked: Vec<(u64, Vec<u8>)>,
    /// What it answers to the first request, the second and so on, and how much later.
    pub(crate) answers: Vec<(u64, Vec<u8>)>,
    /// It is gone as soon as it has got a whole request and given its answers.
    pub(crate) goes_after_request: bool,
    /// A connection takes so long to come about.
    pub(crate) connects_at: u64,
    /// What a read fails with once the other end is gone. None: it finds an end.
    pub(crate) gone_with: Option<Errno>,
    /// In place of all answers: who speaks at the other end of a network.
    pub(crate) peer: Option<Peer>,
}

/// Who speaks at the other end of a network.
pub(crate) struct Peer(pub(crate) Box<Script>);

/// Given all that came, all that was said by then, and what happens next.
pub(crate) type Script = dyn Fn(&[u8]) -> (Vec<u8>, Stays);

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peer")
    }
}

/// What a peer does once it has said what it had to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stays {
    Open,
    Closes,
    Resets,
}

/// The bytes on the channel.
#[derive(Debug, Default)]
struct Wire {
    /// All that the agent sent.
    came: Vec<u8>,
    requests: usize,
    /// Bytes that a peer has said.
    said: usize,
    /// On their way to the agent, and when they are there.
    arriving: BTreeMap<u64, Vec<u8>>,
    /// There, and not read.
    waiting: VecDeque<u8>,
}

impl StandIn {
    pub(crate) fn new() -> StandIn {
        StandIn::default()
    }

    fn change(self, change: impl FnOnce(&mut State)) -> StandIn {
        change(&mut self.state.borrow_mut());
        self
    }

    /// Something is at `path`.
    pub(crate) fn with(self, path: &str, kind: Kind) -> StandIn {
        self.change(|state| _ = state.things.insert(path.into(), Ok(kind)))
    }

    /// `path` cannot be looked at.
    pub(crate) fn with_error(self, path: &str, errno: Errno) -> StandIn {
        self.change(|state| _ = state.things.insert(path.into(), Err(errno)))
    }

    pub(crate) fn with_ports(self, ports: &[(&str, &str)]) -> StandIn {
        self.change(|state| {
            state.ports = ports.iter().map(|&(port, name)| (port.into(), name.into())).collect();
        })
    }

    pub(crate) fn with_input(self, input: &[u8]) -> StandIn {
        self.change(|state| state.input = input.iter().copied().collect())
    }

    pub(crate) fn with_input_error(self, errno: Errno) -> StandIn {
        self.change(|state| state.input_error = Some(errno))
    }

    /// There is a file at `path`, or a reason why it cannot be read.
    pub(crate) fn with_file(self, path: &str, content: Result<&[u8], Errno>) -> StandIn {
        self.change(|state| _ = state.files.insert(path.into(), content.map(<[u8]>::to_vec)))
    }

    pub(crate) fn without_entropy(self) -> StandIn {
        self.change(|state| state.no_entropy = true)
    }

    /// Standard output takes so many bytes and no more.
    pub(crate) fn with_output_room(self, room: usize) -> StandIn {
        self.change(|state| state.output_room = Some(room))
    }

    pub(crate) fn with_bridge(self, bridge: Bridge) -> StandIn {
        self.change(|state| {
            for (at, bytes) in &bridge.unasked {
                state.wire.arriving.entry(*at).or_default().extend(bytes);
            }
            state.bridge = bridge;
        })
    }

    pub(crate) fn output(&self) -> String {
        String::from_utf8(self.state.borrow().output.clone()).unwrap()
    }

    pub(crate) fn error(&self) -> String {
        String::from_utf8(self.state.borrow().error.clone()).unwrap()
    }

    /// Milliseconds since the program began.
    pub(crate) fn time(&self) -> u64 {
        self.state.borrow().now
    }

    /// Every byte that went to the bridge.
    pub(crate) fn came(&self) -> Vec<u8> {
        self.state.borrow().wire.came.clone()
    }

    /// What a socket was connected to.
    pub(crate) fn address(&self) -> Option<(Family, Vec<u8>)> {
        self.state.borrow().address.clone()
    }

    pub(crate) fn log(&self) -> Vec<Call> {
        self.state.borrow().log.clone()
    }

    pub(crate) fn line(&self) -> Option<LineParams> {
        self.state.borrow().line
    }
}

impl State {
    fn is_gone(&self) -> bool {
        self.bridge.gone_from.is_some_and(|from| from <= self.now)
    }

    fn has_room(&self) -> bool {
        !self.is_gone() && self.now >= self.bridge.connects_at && self.bridge.takes != Some(0)
    }

    /// What is due by now has arrived.
    fn arrive(&mut self) {
        while let Some(entry) = self.wire.arriving.first_entry() {
            if *entry.key() > self.now {
                break;
            }
            self.wire.waiting.extend(entry.remove());
        }
    }

    fn signs(&mut self, write: bool) -> Signs {
        self.arrive();
        Signs { read: !self.wire.waiting.is_empty(), write: write && self.has_room(), hung_up: self.is_gone() }
    }

    /// Lets time pass up to `until`, or to the next thing that happens.
    fn pass(&mut self, until: u64) {
        let next = self.wire.arriving.keys().next().copied();
        let Bridge { gone_from, connects_at, .. } = self.bridge;
        let next = [next, gone_from, Some(connects_at)].into_iter().flatten().filter(|&at| at > self.now).min();
        self.now = until.min(next.unwrap_or(until)).max(self.now);
    }

    fn attempt(&mut self, call: Call) -> Result<(), Errno> {
        self.log.push(call);
        match self.bridge.busy {
            Some((errno, until)) if self.now < until => Err(errno),
            _ => Ok(()),
        }
    }
}

impl System for StandIn {
    fn now(&self) -> Millis {
        Millis(self.time())
    }

    fn random(&self) -> u32 {
        0x1234_5678
    }

    fn read_input(&self, into: &mut [u8]) -> Result<u32, Errno> {
        let mut state = self.state.borrow_mut();
        if let Some(errno) = state.input_error {
            return Err(errno);
        }
        // Piece by piece, as a pipe may give it.
        let read = into.len().min(state.input.len()).min(100);
        for (place, byte) in into.iter_mut().zip(state.input.drain(..read)) {
            *place = byte;
        }
        Ok(read as u32)
    }

    fn write(&self, to: Stream, bytes: &[u8]) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        match to {
            Stream::Error => state.error.extend(bytes),
            Stream::Output => {
                if state.output_room.is_some_and(|room| state.output.len() + bytes.len() > room) {
                    return Err(Errno(32));
                }
                state.output.extend(bytes);
            }
        }
        Ok(())
    }

    fn kind(&self, path: &Path) -> Result<Kind, Errno> {
        let state = self.state.borrow();
        state.things.get(path.as_bytes()).copied().unwrap_or(Err(Errno::NOENT))
    }

    fn entropy(&self, into: &mut [u8]) -> bool {
        let mut state = self.state.borrow_mut();
        for byte in into {
            state.entropy += 1;
            *byte = state.entropy;
        }
        !state.no_entropy
    }

    fn read_file(&self, path: &Path, into: &mut [u8]) -> Result<u32, Errno> {
        let state = self.state.borrow();
        if let Some(content) = state.files.get(path.as_bytes()) {
            let content = content.as_ref().map_err(|errno| *errno)?;
            let read = content.len().min(into.len());
            into[..read].copy_from_slice(&content[..read]);
            return Ok(read as u32);
        }
        let wanted = |port: &str| format!("/sys/class/virtio-ports/{port}/name").as_bytes() == path.as_bytes();
        let (_, name) = state.ports.iter().find(|(port, _)| wanted(port)).ok_or(Errno::NOENT)?;
        let read = name.len().min(into.len());
        into[..read].copy_from_slice(&name.as_bytes()[..read]);
        Ok(read as u32)
    }

    fn open_folder(&self, path: &Path) -> Result<(), Errno> {
        assert_eq!(path.as_bytes(), b"/sys/class/virtio-ports/");
        let state = self.state.borrow();
        if state.ports.is_empty() { Err(Errno::NOENT) } else { Ok(()) }
    }

    fn read_folder(&self, into: &mut [u8]) -> Result<u32, Errno> {
        let mut state = self.state.borrow_mut();
        let mut used = 0;
        while let Some((port, _)) = state.ports.get(state.ports_read) {
            let length = (19 + port.len() + 1).next_multiple_of(8);
            let Some(entry) = into.get_mut(used..used + length) else {
                break;
            };
            entry.fill(0);
            entry[16..18].copy_from_slice(&(length as u16).to_ne_bytes());
            entry[19..19 + port.len()].copy_from_slice(port.as_bytes());
            used += length;
            state.ports_read += 1;
        }
        Ok(used as u32)
    }

    fn open(&self, path: &Path) -> Result<(), Errno> {
        assert_eq!(self.kind(path), Ok(Kind::Device));
        self.state.borrow_mut().attempt(Call::Open)
    }

    fn connect(&self, family: Family, address: &[u8]) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        if family == Family::Unix {
            let path = address.strip_suffix(b"\0").expect("a path's NUL");
            assert_eq!(state.things.get(path), Some(&Ok(Kind::Socket)));
        }
        state.address = Some((family, address.into()));
        state.attempt(Call::Connect)
    }

    fn lock(&self) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        state.log.push(Call::Lock);
        if state.now < state.bridge.locked_until {
            return Err(Errno::AGAIN);
        }
        Ok(())
    }

    fn set_line(&self, line: LineParams) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        state.log.push(Call::SetLine);
        if let Some(errno) = state.bridge.not_a_tty {
            return Err(errno);
        }
        state.arrive();
        state.wire.waiting.clear();
        state.line = Some(line);
        Ok(())
    }

    fn receive(&self, into: &mut [u8]) -> Result<u32, Errno> {
        let mut state = self.state.borrow_mut();
        state.arrive();
        if state.wire.waiting.is_empty() {
            let end = state.bridge.gone_with.map_or(Ok(0), Err);
            return if state.is_gone() { end } else { Err(Errno::AGAIN) };
        }
        let read = into.len().min(state.wire.waiting.len());
        for (place, byte) in into.iter_mut().zip(state.wire.waiting.drain(..read)) {
            *place = byte;
        }
        Ok(read as u32)
    }

    fn send(&self, bytes: &[u8]) -> Result<u32, Errno> {
        let mut state = self.state.borrow_mut();
        if !state.has_room() {
            return Err(Errno::AGAIN);
        }
        let now = state.now;
        let State { bridge, wire, .. } = &mut *state;
        // In pieces, as a serial port may take them.
        let sent = bytes.len().min(50).min(bridge.takes.unwrap_or(usize::MAX));
        bridge.takes = bridge.takes.map(|takes| takes - sent);
        wire.came.extend(&bytes[..sent]);
        if let Some(Peer(peer)) = &bridge.peer {
            let (said, stays) = peer(&wire.came);
            wire.arriving.entry(now + 1).or_default().extend(&said[wire.said..]);
            wire.said = said.len();
            if stays != Stays::Open {
                bridge.gone_from = Some(now + 1);
                bridge.gone_with = (stays == Stays::Resets).then_some(Errno::CONNRESET);
            }
            return Ok(sent as u32);
        }
        while wire.came.len() >= (wire.requests + 1) * REQUEST_LEN {
            assert_eq!(wire.came[wire.requests * REQUEST_LEN..][..4], MAGIC);
            if let Some((later, answer)) = bridge.answers.get(wire.requests) {
                wire.arriving.entry(now + later).or_default().extend(answer);
            }
            wire.requests += 1;
            if bridge.goes_after_request {
                bridge.gone_from = Some(now);
            }
        }
        Ok(sent as u32)
    }

    fn wait(&self, write: bool, span: Millis) -> Result<Signs, Errno> {
        let mut state = self.state.borrow_mut();
        let until = state.now + span.0;
        let before = state.now;
        let mut signs = state.signs(write);
        if signs == Signs::default() {
            state.pass(until);
            signs = state.signs(write);
        }
        state.idle_waits = if state.now == before { state.idle_waits + 1 } else { 0 };
        assert!(state.idle_waits < SPIN, "the agent spins");
        Ok(signs)
    }

    fn pause(&self, span: Millis) {
        let mut state = self.state.borrow_mut();
        assert!(span.0 > 0, "a pause of nothing is a spin");
        state.now += span.0;
    }
}
