//! The asking end of the control socket: what `fencewired status` does.

use super::snapshot::{Snapshot, VERSION};
use super::socket::STATUS;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::Value;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the whole may take: a little longer than the daemon waits for its event loop.
const TIME: Duration = Duration::from_secs(10);

/// Bytes of an answer at most: those of some hundred thousand channels.
const ANSWER_MAX: usize = 64 << 20;

/// Why there is no answer. Displays as a sentence that says what to do.
#[derive(Debug)]
pub enum Unanswered {
    /// Nobody serves there.
    Nobody(io::Error),
    /// The socket's permissions keep this user out.
    Forbidden,
    /// What it said is a refusal.
    Refused(String),
    /// It said something else than this program understands.
    OtherVersion,
    /// It broke off, or took too long.
    Broken(io::Error),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unanswered::Nobody(why) => {
                write!(f, "no fencewired serves there ({why}): see systemctl status fencewired, and control.socket")
            }
            Unanswered::Forbidden => {
                f.write_str("this user may not ask: be root, or a member of the group that fencewired runs as")
            }
            Unanswered::Refused(why) => write!(f, "fencewired says: {why}"),
            Unanswered::OtherVersion => f.write_str("fencewired there is of another version: use its own program"),
            Unanswered::Broken(why) => write!(f, "fencewired does not answer ({why}): see its log"),
        }
    }
}

impl std::error::Error for Unanswered {}

/// Asks the daemon behind that socket. Gives its answer as it came, and read.
pub fn status(path: &Path) -> Result<(String, Snapshot), Unanswered> {
    let until = Instant::now() + TIME;
    let mut stream = call(path).map_err(|why| match why.kind() {
        io::ErrorKind::PermissionDenied => Unanswered::Forbidden,
        io::ErrorKind::WouldBlock => Unanswered::Broken(io::ErrorKind::TimedOut.into()),
        _ => Unanswered::Nobody(why),
    })?;
    let mut answer = Vec::new();
    // One that refuses has hung up, perhaps, before it was asked.
    let asked = writeln!(stream, "{STATUS}");
    let read = read_all(&mut stream, &mut answer, until);
    if answer.is_empty() {
        asked.and(read).map_err(Unanswered::Broken)?;
        return Err(Unanswered::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    let text = String::from_utf8(answer).map_err(|_| Unanswered::OtherVersion)?;
    let value: Value = serde_json::from_str(&text).map_err(|why| Unanswered::Broken(why.into()))?;
    if let Some(why) = value["error"].as_str() {
        return Err(Unanswered::Refused(why.to_owned()));
    }
    if value["version"] != VERSION {
        return Err(Unanswered::OtherVersion);
    }
    let snapshot = serde_json::from_value(value).map_err(|_| Unanswered::OtherVersion)?;
    Ok((text, snapshot))
}

/// Connects; a daemon that hangs lets nobody wait for ever.
fn call(path: &Path) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(TIME))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(TIME))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

fn read_all(stream: &mut UnixStream, answer: &mut Vec<u8>, until: Instant) -> io::Result<()> {
    let mut buffer = [0; 16_384];
    while answer.len() < ANSWER_MAX {
        if Instant::now() >= until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(got) => answer.extend_from_slice(&buffer[..got]),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(why) => return Err(why),
        }
    }
    Err(io::Error::other("its answer does not end"))
}
