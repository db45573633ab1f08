//! What the beds that speak byte by byte share: reading with a deadline, and showing bytes.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::process::readable;

/// Reads what comes until there are `n` bytes, the stream ends or `deadline` is over. The bytes, and whether the stream
/// has ended.
///
/// # Panics
/// When the stream cannot be read.
#[track_caller]
pub(crate) fn read_at_most(mut stream: impl Read + AsFd, n: usize, deadline: Duration) -> (Vec<u8>, bool) {
    let end = Instant::now() + deadline;
    let mut bytes = Vec::new();
    let mut buffer = [0; 1 << 12];
    while bytes.len() < n && readable(&stream, end.saturating_duration_since(Instant::now())) {
        let room = buffer.len().min(n - bytes.len());
        match stream.read(&mut buffer[..room]) {
            Ok(0) => return (bytes, true),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return (bytes, true),
            Err(error) => panic!("cannot read: {error}"),
        }
    }
    (bytes, false)
}

/// Bytes as a person reads them: the first few of many.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 256;
    let shown = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    if bytes.len() > SHOWN { format!("{shown} and {} more", bytes.len() - SHOWN) } else { shown }
}
