//! The file that keeps which guests are away: a line for each, in a folder that outlives the host's restart.
//!
//! ```text
//! {"guest":"…","hypervisor":"qemu:///system"}
//! ```
//!
//! It is written by a thread of its own, whole, beside the old one and then put in its place: no fence waits for its disk.

use super::{Away, Known, Moment, OfOne, Word};
use fencewire_core::Uuid;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Its name in the folder.
const NAME: &str = "away";

/// When to write again what could not be written.
const RETRY: Duration = Duration::from_secs(10);

/// How long the first write is waited for at the program's start, and the last at its end.
const START_TIME: Duration = Duration::from_secs(1);
const END_TIME: Duration = Duration::from_secs(1);

/// A guest that is away, and from where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    guest: String,
    hypervisor: String,
}

/// What the thread that writes is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Write,
    End,
}

/// Keeps the file. What is not written yet is written when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    orders: Sender<Order>,
    has_ended: Receiver<()>,
    /// The folder itself, locked: a second bridge would write over what this one knows.
    _lock: File,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::End);
        let _ = self.has_ended.recv_timeout(END_TIME);
    }
}

/// Opens the folder, makes it where it is missing, and takes up what an earlier run left of these hypervisors.
pub fn open(folder: &Path, uris: impl Iterator<Item = String>) -> io::Result<(Arc<Away>, Keeper)> {
    fs::create_dir_all(folder)?;
    let lock = File::open(folder)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::new(ErrorKind::AddrInUse, "another fencewired uses it"))?;
    let mut known = Known { of: uris.map(|uri| OfOne { uri, guests: HashMap::new() }).collect(), others: Vec::new() };
    known.take_up(read(&folder.join(NAME))?);
    let (orders, inbox) = mpsc::channel();
    let away = Arc::new(Away { known: Mutex::new(known), moments: AtomicU64::new(1), changed: orders.clone() });
    let (ended, has_ended) = mpsc::channel();
    let (written, first) = mpsc::channel();
    let (folder, its) = (folder.to_owned(), away.clone());
    thread::Builder::new().name("away".to_owned()).spawn(move || {
        let came = write(&folder, &its.lock().text());
        let is_due = came.is_err();
        let _ = written.send(came);
        keep(&folder, &its, &inbox, is_due);
        drop(ended);
    })?;
    // A folder that can be read and not written would be found out when it is too late. A disk that is full or hangs is no
    // reason to fence nobody.
    match first.recv_timeout(START_TIME) {
        Ok(Err(why)) if matches!(why.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => return Err(why),
        Ok(Err(why)) => cannot_be_written(&why.to_string()),
        Ok(Ok(())) => {}
        Err(_) => cannot_be_written("the disk does not answer"),
    }
    Ok((away, Keeper { orders, has_ended, _lock: lock }))
}

/// Writes whenever that is due, until the end.
fn keep(folder: &Path, away: &Away, inbox: &Receiver<Order>, mut is_due: bool) {
    let mut has_failed = is_due;
    loop {
        let first =
            if is_due { inbox.recv_timeout(RETRY) } else { inbox.recv().map_err(|_| RecvTimeoutError::Disconnected) };
        let is_over = match first {
            Ok(first) => [first].into_iter().chain(inbox.try_iter()).any(|order| order == Order::End),
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let text = away.lock().text();
        let written = write(folder, &text);
        if let Err(why) = &written
            && !has_failed
        {
            cannot_be_written(&why.to_string());
        }
        is_due = written.is_err();
        has_failed = is_due;
        if is_over {
            return;
        }
    }
}

fn cannot_be_written(why: &str) {
    tracing::error!(
        why,
        "control.state: which guests went to another host cannot be written down: after a restart \"shut off\" may be said of \
         them. Mend its disk; it is tried again until then"
    );
}

fn read(path: &Path) -> io::Result<Vec<Line>> {
    let text = match fs::read_to_string(path) {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let line = |(number, line): (usize, &str)| {
        let line: Option<Line> = serde_json::from_str(line).ok();
        line.filter(|line| Uuid::parse(line.guest.as_bytes()).is_some()).ok_or_else(|| {
            let text = format!("line {} of {} says nothing: mend it or take it out", number + 1, path.display());
            io::Error::new(ErrorKind::InvalidData, text)
        })
    };
    text.lines().enumerate().map(line).collect()
}

/// Whole or not at all, whatever ends this program or the host.
fn write(folder: &Path, text: &str) -> io::Result<()> {
    let new: PathBuf = folder.join(format!(".{NAME}.new"));
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, folder.join(NAME))?;
    File::open(folder)?.sync_all()
}

impl Known {
    fn take_up(&mut self, lines: Vec<Line>) {
        let word = Word { is_away: true, at: Moment(0) };
        for line in lines {
            let Some(guest) = Uuid::parse(line.guest.as_bytes()) else { continue };
            let mut is_configured = false;
            for it in self.of.iter_mut().filter(|it| it.uri == line.hypervisor) {
                it.guests.insert(guest, word);
                is_configured = true;
            }
            if !is_configured {
                self.others.push(line);
            }
        }
    }

    fn text(&self) -> String {
        let away = self.of.iter().flat_map(|it| {
            let guests = it.guests.iter().filter(|(_, word)| word.is_away);
            guests.map(|(guest, _)| Line { guest: guest.to_string(), hypervisor: it.uri.clone() })
        });
        let mut lines: Vec<Line> = away.chain(self.others.iter().cloned()).collect();
        lines.sort_unstable();
        lines.dedup();
        let line = |line: &Line| serde_json::to_string(line).map(|text| text + "\n").unwrap_or_default();
        lines.iter().map(line).collect()
    }
}
