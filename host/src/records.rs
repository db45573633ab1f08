//! One JSON line for each decision: who asked what of whom by which channel, and what came of it.
//!
//! Written by a thread of its own: a full or hung disk delays no fence. Power actions are handed to it at once, the
//! rest a few at a time. What could not be written is counted and said in the log. With `required = true`, a power
//! action begins only when it is on the disk that it does, and is refused while the last record could not be written.

use crate::config::RecordsConfig;
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

/// Batches that may wait for the disk.
const WAITING: usize = 64;

/// Records handed over at once, at most.
const BATCH: usize = 64;

/// One decision. Serialises as one line of the file.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// When it was made: RFC 3339, in UTC.
    pub time: String,
    /// The channel's path.
    pub channel: String,
    /// Who asked: the channel's guest, as the configuration names it.
    pub requester: String,
    /// off, reboot, on, status, monitor or list.
    pub action: &'static str,
    /// The target as the request names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The target's UUID, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// What came of it, in a word or two.
    pub outcome: String,
    /// Why, where that needs saying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether this repeats the answer to an earlier request.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    /// Milliseconds from the request's last byte to this decision.
    pub ms: u64,
}

impl Record {
    /// The time now, as a record has it.
    pub fn now() -> String {
        humantime::format_rfc3339_millis(SystemTime::now()).to_string()
    }

    fn is_power(&self) -> bool {
        matches!(self.action, "off" | "reboot" | "on")
    }
}

/// Where records go.
#[derive(Debug)]
pub struct Records {
    sender: Option<SyncSender<Batch>>,
    writer: Option<JoinHandle<()>>,
    batch: Vec<Record>,
    lost: usize,
    required: bool,
    failing: Arc<AtomicBool>,
}

impl Records {
    /// Opens the file, and its folder where that is missing. A file that cannot be opened is an error only where
    /// records are required.
    pub fn open(config: &RecordsConfig) -> io::Result<Records> {
        let failing = Arc::new(AtomicBool::new(false));
        let mut records =
            Records { sender: None, writer: None, batch: Vec::new(), lost: 0, required: config.required, failing };
        let file = match open(config) {
            Ok(file) => file,
            Err(why) if config.required => return Err(why),
            Err(why) => {
                tracing::warn!(path = %config.path.display(), %why, "no records are written: see records.path");
                return Ok(records);
            }
        };
        let (sender, receiver) = sync_channel(WAITING);
        let failing = records.failing.clone();
        let writer = thread::Builder::new().name("records".to_owned());
        records.writer = Some(writer.spawn(move || write(file, &receiver, &failing))?);
        records.sender = Some(sender);
        Ok(records)
    }

    /// Whether power requests are to be refused, because what is required cannot be recorded.
    pub fn refuse(&self) -> bool {
        self.required && (self.failing.load(Ordering::Relaxed) || self.lost > 0)
    }

    /// Whether nothing may be fenced that cannot be recorded.
    pub const fn is_required(&self) -> bool {
        self.required
    }

    /// Whether records are written, and the last one was.
    pub fn is_written(&self) -> bool {
        self.sender.is_some() && self.lost == 0 && !self.failing.load(Ordering::Relaxed)
    }

    /// What a power action has to be written with before it begins, where records are required.
    pub fn beforehand(&self) -> Option<Beforehand> {
        self.sender.clone().filter(|_| self.required).map(Beforehand)
    }

    /// Takes a record. Never waits for the disk.
    pub fn put(&mut self, record: Record) {
        let at_once = record.is_power();
        self.batch.push(record);
        if at_once || self.batch.len() >= BATCH {
            self.hand_over();
        }
    }

    /// Hands over what was kept for a batch. To be called every so often.
    pub fn hand_over(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let Some(sender) = self.sender.as_ref().filter(|_| !batch.is_empty()) else { return };
        match sender.try_send(Batch { records: batch, written: None }) {
            Ok(()) => {
                if self.lost > 0 {
                    tracing::warn!(lost = self.lost, "records were lost: the disk did not take them in time");
                    self.lost = 0;
                }
            }
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => self.lost += batch.records.len(),
        }
    }
}

/// Records for the writer, and who waits until they are on the disk.
#[derive(Debug)]
struct Batch {
    records: Vec<Record>,
    written: Option<SyncSender<bool>>,
}

/// For a worker that may begin nothing unless it is on the disk that it does.
#[derive(Debug, Clone)]
pub struct Beforehand(SyncSender<Batch>);

impl Beforehand {
    /// Writes a record and waits for the disk. Says whether it is there.
    pub fn write(&self, record: Record) -> bool {
        let (written, is_written) = sync_channel(1);
        let batch = Batch { records: vec![record], written: Some(written) };
        self.0.send(batch).is_ok() && is_written.recv().unwrap_or(false)
    }
}

impl Drop for Records {
    /// Waits for what was handed over.
    fn drop(&mut self) {
        self.hand_over();
        drop(self.sender.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn open(config: &RecordsConfig) -> io::Result<File> {
    if let Some(folder) = config.path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(&config.path)
}

/// Writes whatever waits in one go; flushes to the disk once for all the power actions in it.
fn write(mut file: File, records: &Receiver<Batch>, failing: &AtomicBool) {
    let mut lines = Vec::new();
    while let Ok(first) = records.recv() {
        lines.clear();
        let mut power = false;
        let mut waiting = Vec::new();
        for batch in std::iter::once(first).chain(records.try_iter()) {
            waiting.extend(batch.written);
            for record in batch.records {
                power |= record.is_power();
                if serde_json::to_writer(&mut lines, &record).is_ok() {
                    lines.push(b'\n');
                }
            }
        }
        let written = file.write_all(&lines).and_then(|()| if power { file.sync_data() } else { Ok(()) });
        // A pipe or a terminal cannot be flushed, and need not be.
        let written = written.or_else(|why| if why.kind() == io::ErrorKind::InvalidInput { Ok(()) } else { Err(why) });
        if let Err(why) = &written {
            tracing::error!(%why, "records could not be written");
        }
        failing.store(written.is_err(), Ordering::Relaxed);
        for worker in waiting {
            // One that has given up is told nothing.
            let _ = worker.try_send(written.is_ok());
        }
    }
}

#[cfg(test)]
mod tests;
