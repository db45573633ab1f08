//! Somebody who calls a TCP port in fence-virt's packets, step by step, so that it can stop, or say the wrong thing, at
//! each.
//!
//! ```text
//! caller   request · challenge                       proof
//! bridge                         proof · challenge           code [· entries · zeros · code]
//! ```
//!
//! What it sends is made by `fencewire-core`, whose own tests hold the packets against recordings of the real programs;
//! what the bridge says is checked here.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::Duration;

use fencewire_core::classic::key::{Hash, Key, TAG_LEN, Tag};
use fencewire_core::classic::packet::{Fresh, REQUEST_LEN, RequestPacket, encode_request, encode_unsigned};
use fencewire_core::{Ask, PowerAction, Target};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

use crate::bytes::{hex, read_at_most};
use crate::guest_channel::{
    ENTRY_LENGTH, Entry, HOST_LIST_FOLLOWS, HostList, LIST, MONITOR, OFF, ON, REBOOT, STATUS, fresh_seqno,
};
use crate::process::{DEADLINE, wait_until};

/// What a caller wants the bridge to answer.
pub const CHALLENGE: Tag = [0xc1; TAG_LEN];

/// From where a [`Caller`] calls unless a test says otherwise.
pub const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// With which key and hashes somebody proves itself.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The key.
    pub key: Key,
    /// What requests are signed with.
    pub hash: Hash,
    /// What challenges are answered with.
    pub auth: Hash,
}

impl Terms {
    /// With that key and SHA-256 throughout, as is usual.
    ///
    /// # Panics
    /// When it is no key.
    pub fn of(key: &[u8]) -> Self {
        Self { key: Key::absorb(key).expect("a key"), hash: Hash::Sha256, auth: Hash::Sha256 }
    }

    /// A fresh request.
    pub fn packet(&self, action: u8, target: &str) -> RequestPacket {
        encode_request(&what(action, target), fresh(), self.hash, &self.key)
    }

    /// A fresh request to put `target` off with these changes, by somebody who holds the key and means them.
    pub fn changed(&self, target: &str, change: impl FnOnce(&mut RequestPacket)) -> RequestPacket {
        let mut packet = self.packet(OFF, target);
        change(&mut packet);
        let (_, tag) = packet.split_at_mut(REQUEST_LEN - TAG_LEN);
        tag.fill(0);
        let tag = self.key.tag(self.hash, &[&packet]);
        packet[REQUEST_LEN - TAG_LEN..].copy_from_slice(&tag);
        packet
    }

    /// The answer to a challenge.
    pub fn proof(&self, challenge: &[u8]) -> Tag {
        self.key.tag(self.auth, &[challenge])
    }
}

/// A fresh request that nobody signed.
pub fn unsigned(action: u8, target: &str) -> RequestPacket {
    encode_unsigned(&what(action, target), fresh())
}

fn fresh() -> Fresh {
    Fresh { random: *b"random", seqno: fresh_seqno() }
}

fn what(action: u8, target: &str) -> Ask {
    let target = || Target::parse(target.as_bytes()).expect("a guest's name or UUID");
    match action {
        OFF => Ask::Power(PowerAction::Off, target()),
        REBOOT => Ask::Power(PowerAction::Reboot, target()),
        ON => Ask::Power(PowerAction::On, target()),
        STATUS => Ask::Status(target()),
        MONITOR => Ask::Monitor,
        LIST => Ask::List,
        other => panic!("{other} is no action"),
    }
}

/// One connection to a TCP port.
#[derive(Debug)]
pub struct Caller {
    stream: TcpStream,
    terms: Terms,
}

impl Caller {
    /// Calls, trying again until somebody listens there.
    ///
    /// # Panics
    /// When nobody does.
    #[track_caller]
    pub fn connect(from: Ipv4Addr, to: SocketAddr, terms: &Terms) -> Self {
        let what = format!("somebody to listen at {to}");
        wait_until(DEADLINE, &what, || Self::try_connect(from, to, terms).ok())
    }

    /// Calls once.
    ///
    /// # Panics
    /// When there is no such place to call from.
    pub fn try_connect(from: Ipv4Addr, to: SocketAddr, terms: &Terms) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrV4::new(from, 0)).expect("every address that begins with 127 is this machine's");
        connect(&socket, &to)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream, terms: terms.clone() })
    }

    /// Proves itself in this way from now on.
    pub fn use_terms(&mut self, terms: &Terms) {
        self.terms = terms.clone();
    }

    /// The connection itself, for what the methods here do not do.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When they are not taken.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_send(bytes) {
            panic!("cannot send {} bytes: {error}", bytes.len());
        }
    }

    /// Sends bytes where the bridge may have closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends byte by byte with a pause after each, until all are sent or the bridge has closed. Says how many went.
    pub fn dribble(&mut self, bytes: &[u8], pause: Duration) -> usize {
        let taken = |byte: &&u8| {
            let taken = self.try_send(&[**byte]).is_ok();
            thread::sleep(pause);
            taken
        };
        bytes.iter().take_while(taken).count()
    }

    /// Reads exactly `n` bytes.
    ///
    /// # Panics
    /// When fewer came in time, or before the bridge closed; says which came.
    #[track_caller]
    pub fn read(&mut self, n: usize) -> Vec<u8> {
        let (bytes, ended) = read_at_most(&self.stream, n, DEADLINE);
        let how = if ended { "the bridge closed" } else { "the time was up" };
        assert_eq!(bytes.len(), n, "{how} when only these bytes had come: [{}]", hex(&bytes));
        bytes
    }

    /// Waits until the bridge closes, and returns what came before.
    ///
    /// # Panics
    /// When the bridge is still there after `deadline`.
    #[track_caller]
    pub fn expect_end(&mut self, deadline: Duration) -> Vec<u8> {
        let (bytes, ended) = read_at_most(&self.stream, usize::MAX, deadline);
        assert!(ended, "waited {deadline:?} for the bridge to close; these bytes came: [{}]", hex(&bytes));
        bytes
    }

    /// Says that the bridge closes without a word.
    ///
    /// # Panics
    /// When it says something, or does not close.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        let said = self.expect_end(DEADLINE);
        assert!(said.is_empty(), "the bridge said [{}]", hex(&said));
    }

    /// Sends a request and a challenge, checks the bridge's proof, and gives its challenge.
    ///
    /// # Panics
    /// When the bridge does not prove itself.
    #[track_caller]
    pub fn challenged(&mut self, packet: &RequestPacket) -> Tag {
        self.send(&[&packet[..], &CHALLENGE].concat());
        self.hear_challenge()
    }

    /// Checks the bridge's proof, and gives its challenge.
    ///
    /// # Panics
    /// When the bridge does not prove itself.
    #[track_caller]
    pub fn hear_challenge(&mut self) -> Tag {
        let said = self.read(2 * TAG_LEN);
        let (proof, challenge) = said.split_at(TAG_LEN);
        assert_eq!(hex(proof), hex(&self.terms.proof(&CHALLENGE)), "the bridge's proof");
        challenge.try_into().expect("its other half")
    }

    /// Sends a request and proves itself: the bridge may act from now on.
    ///
    /// # Panics
    /// When the bridge does not prove itself.
    #[track_caller]
    pub fn prove(&mut self, packet: &RequestPacket) {
        let challenge = self.challenged(packet);
        let proof = self.terms.proof(&challenge);
        self.send(&proof);
    }

    /// Reads the reply, after which the bridge closes.
    ///
    /// # Panics
    /// When no reply comes, or more than a reply.
    #[track_caller]
    pub fn reply(&mut self) -> u8 {
        let code = self.read(1)[0];
        let more = self.expect_end(DEADLINE);
        assert!(more.is_empty(), "after the code {code} came [{}]", hex(&more));
        code
    }

    /// Asks, from the first step to the last.
    ///
    /// # Panics
    /// When no reply comes.
    #[track_caller]
    pub fn ask(&mut self, packet: &RequestPacket) -> u8 {
        self.prove(packet);
        self.reply()
    }

    /// Reads a host list to its end.
    ///
    /// # Panics
    /// When anything else than a whole list comes.
    #[track_caller]
    pub fn list(&mut self) -> HostList {
        assert_eq!(self.read(1), [HOST_LIST_FOLLOWS], "a host list is announced");
        let mut entries = Vec::new();
        loop {
            let entry = self.read(ENTRY_LENGTH);
            if entry.iter().all(|&byte| byte == 0) {
                break;
            }
            entries.push(Entry::new(entry));
        }
        HostList { entries, last: self.reply() }
    }

    /// Closes so that the bridge hears of a reset, not of an end.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn reset(self) {
        sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("a socket that lingers not at all");
    }

    /// Says that nothing more is sent.
    ///
    /// # Panics
    /// When the connection has ended.
    pub fn end(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a connection that can be half closed");
    }
}
