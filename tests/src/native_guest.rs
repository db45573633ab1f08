//! A guest that speaks our own wire, with the core's client, over a channel's socket: as fast as bytes go. What it says
//! is the core's; for a client that is not, there is `tests/second_client/`.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use fencewire_core::native::keys::Keys;
use fencewire_core::words::ENTROPY_LEN;
use fencewire_core::{Ask, Client, Endpoint as _, Entropy, Millis, Reply, Speak};

use crate::guest_channel::GuestChannel;
use crate::process::DEADLINE;

/// How often it looks whether it has to say something again.
const LOOK: Duration = Duration::from_millis(100);

fn random() -> Entropy {
    let mut entropy = Entropy([0; ENTROPY_LEN]);
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut entropy.0)).expect("random bytes");
    entropy
}

/// Asks over a channel of a bed's, handshake included, until there is an end. Lists have none here.
///
/// # Panics
/// When the bridge has closed.
#[track_caller]
pub fn ask_native(channel: &GuestChannel, keys: &Keys, ask: &Ask) -> Reply {
    let mut stream: &UnixStream = channel.stream();
    stream.set_read_timeout(Some(LOOK)).expect("a socket");
    let begun = Instant::now();
    let now = || Millis(begun.elapsed().as_millis() as u64);
    let entropy = random();
    let id = u64::from_le_bytes(*entropy.0.last_chunk().expect("64 bytes"));
    let speak = Speak::Native { keys, id, guard: None };
    let mut client = Client::new(speak, ask, Millis(DEADLINE.as_millis() as u64)).expect("it can be said");
    client.opened(&entropy, now());
    let mut bytes = [0; 512];
    loop {
        if !client.transmit().is_empty() {
            stream.write_all(client.transmit()).expect("the bridge has closed");
            client.sent(client.transmit().len(), now());
        }
        let count = match stream.read(&mut bytes) {
            Ok(0) => panic!("the bridge has closed"),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(error) => panic!("the channel cannot be read: {error}"),
        };
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            rest = &rest[client.receive(rest, now())..];
            if let Some(reply) = client.poll() {
                return reply;
            }
        }
        if client.wake_at().is_some_and(|at| at <= now()) {
            client.wake(now());
            if let Some(reply) = client.poll() {
                return reply;
            }
        }
    }
}
