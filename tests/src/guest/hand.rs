//! The test's end of the port by which a guest carries out commands; `src/bin/guest_hand.rs` is the other.
//!
//! Each line is a JSON object. We send `id`, `run` (for a shell) and `ms` (what it may take). It sends the same `id` with
//! `code`, `signal`, `stdout`, `stderr` and `us` (what it took), or with `failed`; and once after each boot
//! `ready` with the boot's id. A guest that is reset leaves half lines behind, at both ends.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{DEADLINE, Finished, readable, wait_until};

/// No two orders of this test program have the same number.
static NEXT: AtomicU64 = AtomicU64::new(1);

#[derive(Debug)]
pub(super) struct Hand {
    stream: UnixStream,
    unread: Vec<u8>,
    answers: HashMap<u64, Value>,
    /// Of each boot that was heard of.
    boots: Vec<String>,
}

impl Hand {
    /// Connects to the socket on which QEMU listens.
    #[track_caller]
    pub(super) fn connect(path: &Path) -> Self {
        let what = format!("QEMU to listen at {}", path.display());
        let stream = wait_until(DEADLINE, &what, || UnixStream::connect(path).ok());
        Self { stream, unread: Vec::new(), answers: HashMap::new(), boots: Vec::new() }
    }

    /// How often it was heard that the guest is ready.
    pub(super) fn boots(&self) -> usize {
        self.boots.len()
    }

    /// Has the guest begin with a command; the order's number.
    #[track_caller]
    pub(super) fn order(&mut self, script: &str, deadline: Duration) -> u64 {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let order = json!({ "id": id, "run": script, "ms": deadline.as_millis() as u64 });
        self.stream.set_write_timeout(Some(DEADLINE)).expect("a deadline");
        self.stream.write_all(format!("\n{order}\n").as_bytes()).expect("the guest takes an order");
        id
    }

    /// What came of an order, if that comes before the deadline.
    #[track_caller]
    pub(super) fn answer(&mut self, id: u64, deadline: Duration) -> Option<Result<Finished, String>> {
        self.listen(deadline, |hand| hand.answers.contains_key(&id));
        let answer = self.answers.remove(&id)?;
        if let Some(why) = answer["failed"].as_str() {
            return Some(Err(why.to_owned()));
        }
        let number = |key: &str| answer[key].as_i64().and_then(|number| i32::try_from(number).ok());
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        Some(Ok(Finished {
            code: number("code"),
            signal: number("signal"),
            stdout: text("stdout"),
            stderr: text("stderr"),
            elapsed: Duration::from_micros(answer["us"].as_u64().unwrap_or_default()),
        }))
    }

    /// Whether the guest has become ready for that time, counted from 1, before the deadline.
    pub(super) fn is_ready(&mut self, nth: usize, deadline: Duration) -> bool {
        self.listen(deadline, |hand| hand.boots.len() >= nth)
    }

    fn listen(&mut self, deadline: Duration, is_enough: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + deadline;
        let mut buffer = [0; 4096];
        while !is_enough(self) {
            if !readable(&self.stream, end.saturating_duration_since(Instant::now())) {
                return false;
            }
            match self.stream.read(&mut buffer) {
                // It is off.
                Ok(0) | Err(_) => return false,
                Ok(read) => self.unread.extend_from_slice(&buffer[..read]),
            }
            self.take_lines();
        }
        true
    }

    fn take_lines(&mut self) {
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let Ok(line) = serde_json::from_slice::<Value>(&line) else { continue };
            if let Some(boot) = line["ready"].as_str() {
                self.boots.push(boot.to_owned());
            } else if let Some(id) = line["id"].as_u64() {
                self.answers.insert(id, line);
            }
        }
    }
}
