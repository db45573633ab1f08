//! What a killed bridge leaves to the next one: a small file for each power request that was begun.
//!
//! The folder is on a tmpfs: it outlives the program and not the host, whose restart ends every guest anyway. A line is
//! written before the first change, and after each step. A request that is repeated to the next bridge gets the answer
//! that was written down, or is carried on without another destroy.
//!
//! ```text
//! {"step":"begun","boot":"…","requester":"…","id":…,"body":"…","target":"…","action":"off","received":…,"until":…,
//!  "incarnation":"…"}
//! {"step":"off","seen":…}
//! {"step":"done","outcome":"off"}
//! ```
//!
//! One more file, `instance`, is the journal's name: random, and another after each of the host's starts, and when a
//! request's file cannot be read. Guests are told of it, and do not ask again what they asked a bridge with another
//! journal.

use crate::entropy::entropy;
use crate::guests::Requester;
use crate::power::incarnation::{self, Incarnation};
use crate::power::{Earlier, Order};
use fencewire_core::{Failure, Millis, Outcome, PowerAction, Remembered, RequestKey, Restart};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The journal's folder, open for writing.
#[derive(Debug, Clone)]
pub struct Journal {
    folder: PathBuf,
    boot: String,
    instance: u64,
    /// The folder itself, locked: a second bridge is kept out of it.
    _lock: Arc<File>,
}

/// A request that an earlier run wrote down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who asked.
    pub requester: Requester,
    /// Which request.
    pub key: RequestKey,
    /// Until when a repetition gets the same answer.
    pub until: Millis,
    /// What came of it.
    pub what: Remembered,
    /// What was done of it, where nothing came of it yet.
    pub earlier: Earlier,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "lowercase")]
enum Line {
    Begun {
        boot: String,
        requester: String,
        id: u64,
        body: [u8; 16],
        target: String,
        action: Action,
        received: u64,
        until: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        incarnation: Option<String>,
    },
    Off {
        seen: u64,
    },
    Done {
        outcome: Result,
    },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Off,
    Reboot,
    On,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Result {
    Off,
    Rebooted,
    OffNotStarted,
    On,
    Failed,
}

/// A request could not be written down; the log says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotRecorded;

/// `statfs`'s type of a tmpfs: linux/magic.h.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

impl Journal {
    /// Opens the folder, makes it where it is missing, and gives what earlier runs left in it.
    pub fn open(folder: &Path, now: Millis) -> io::Result<(Journal, Vec<Entry>)> {
        fs::create_dir_all(folder)?;
        let lock = File::open(folder)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::new(io::ErrorKind::AddrInUse, "another fencewired uses it"))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let mut journal = Journal { folder: folder.to_owned(), boot, instance: 0, _lock: Arc::new(lock) };
        if rustix::fs::statfs(folder)?.f_type != TMPFS_MAGIC {
            tracing::warn!(
                folder = %folder.display(),
                "the journal's folder is not on a tmpfs: every fence waits for its disk"
            );
        }
        // A folder that can be read and not written would be found out at the first fence.
        let probe = folder.join(".probe");
        File::create(&probe)?;
        fs::remove_file(&probe)?;
        let (mut entries, mut is_whole) = (Vec::new(), true);
        for file in fs::read_dir(folder)? {
            let file = file?;
            if !is_of_a_request(&file.file_name()) {
                continue;
            }
            let path = file.path();
            match fs::read_to_string(&path).map(|text| journal.read(&text)) {
                Ok(Some(entry)) if entry.until > now => entries.push(entry),
                Ok(_) => fs::remove_file(&path)?,
                Err(why) => {
                    is_whole = false;
                    let file = path.display();
                    tracing::error!(%file, %why, "a request of an earlier run cannot be read: whoever asked is not answered for it");
                    fs::remove_file(&path)?;
                }
            }
        }
        journal.instance = instance(folder, &journal.boot, is_whole)?;
        Ok((journal, entries))
    }

    /// Which journal this is. Another run with the same folder has the same, until the host's next start.
    pub const fn instance(&self) -> u64 {
        self.instance
    }

    /// Writes down that an order is begun, against that run of its target. Without that, nothing may be done for it.
    pub fn begin(&self, order: &Order, incarnation: Option<Incarnation>) -> std::result::Result<(), NotRecorded> {
        let key = order.key();
        let begun = Line::Begun {
            boot: self.boot.clone(),
            requester: order.requester().to_string(),
            id: key.id,
            body: key.body,
            target: order.target().to_string(),
            action: match order.action() {
                PowerAction::Off => Action::Off,
                PowerAction::Reboot => Action::Reboot,
                PowerAction::On => Action::On,
            },
            received: order.permit.received().0,
            until: order.remember_until.0,
            incarnation: incarnation.map(|incarnation| incarnation.to_string()),
        };
        self.append(order.requester(), key, &begun).map_err(|why| {
            tracing::error!(folder = %self.folder.display(), %why, "the journal cannot be written: nothing is fenced");
            NotRecorded
        })
    }

    /// Writes down that the target was seen off.
    pub fn seen_off(&self, order: &Order, seen: Millis) {
        self.note(order.requester(), order.key(), &Line::Off { seen: seen.0 });
    }

    /// Writes down what came of a request. One that joined another's action was not begun itself; of one that failed
    /// before it was begun nothing needs to be known.
    pub fn done(&self, order: &Order, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Off(_) => Result::Off,
            Outcome::Rebooted(_, Restart::Started) => Result::Rebooted,
            Outcome::Rebooted(_, Restart::NotStarted) => Result::OffNotStarted,
            Outcome::On => Result::On,
            Outcome::Failed(_) => Result::Failed,
        };
        let begun = self.path(order.requester(), order.key()).exists();
        let succeeded = !matches!(outcome, Result::Failed);
        if begun || (succeeded && self.begin(order, None).is_ok()) {
            self.note(order.requester(), order.key(), &Line::Done { outcome });
        }
    }

    /// Forgets a request whose time is up.
    pub fn forget(&self, requester: Requester, key: RequestKey) {
        let _ = fs::remove_file(self.path(requester, key));
    }

    fn note(&self, requester: Requester, key: RequestKey, line: &Line) {
        if let Err(why) = self.append(requester, key, line) {
            tracing::error!(folder = %self.folder.display(), %why, "a step could not be written to the journal");
        }
    }

    /// One write for a line: a killed program leaves whole lines.
    fn append(&self, requester: Requester, key: RequestKey, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        OpenOptions::new().create(true).append(true).open(self.path(requester, key))?.write_all(&text)
    }

    fn path(&self, requester: Requester, key: RequestKey) -> PathBuf {
        self.folder.join(format!("{requester}-{:016x}", key.id))
    }

    /// None for what is from before the host's last start, or is not ours.
    fn read(&self, text: &str) -> Option<Entry> {
        let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let Line::Begun { boot, requester, id, body, action, mut received, mut until, mut incarnation, .. } =
            lines.next()?
        else {
            return None;
        };
        if boot != self.boot {
            return None;
        }
        let (mut seen_off, mut outcome) = (Millis(0), None);
        for line in lines {
            match line {
                Line::Off { seen } => seen_off = Millis(seen),
                Line::Done { outcome: done } => outcome = Some(done),
                // The same frame came again when its time was up.
                Line::Begun { received: again, until: anew, incarnation: now, .. } => {
                    (received, until, incarnation) = (again, anew, now);
                    (seen_off, outcome) = (Millis(0), None);
                }
            }
        }
        let what = match (outcome, action) {
            (Some(Result::Off), _) => Remembered::Done(PowerAction::Off, seen_off, Restart::NotStarted),
            (Some(Result::Rebooted), _) => Remembered::Done(PowerAction::Reboot, seen_off, Restart::Started),
            (Some(Result::OffNotStarted), _) => Remembered::Done(PowerAction::Reboot, seen_off, Restart::NotStarted),
            (Some(Result::On), _) => Remembered::Done(PowerAction::On, seen_off, Restart::Started),
            (Some(Result::Failed), _) => Remembered::Failed(Failure::Unconfirmed),
            // It was seen off, and that is all that was asked.
            (None, Action::Off) if seen_off > Millis(0) => {
                Remembered::Done(PowerAction::Off, seen_off, Restart::NotStarted)
            }
            (None, _) => Remembered::Begun(Millis(received)),
        };
        let requester = Requester::parse(&requester)?;
        let earlier = Earlier {
            incarnation: incarnation.as_deref().and_then(incarnation::parse),
            seen_off: Some(seen_off).filter(|seen| *seen > Millis(0)),
        };
        Some(Entry { requester, key: RequestKey { id, body }, until: Millis(until), what, earlier })
    }
}

/// Reads the journal's name, or gives it one, and another where it is not whole. A line: the host's start that it is
/// of, and 16 hexadecimal digits.
fn instance(folder: &Path, boot: &str, is_whole: bool) -> io::Result<u64> {
    let path = folder.join("instance");
    let written = fs::read_to_string(&path).unwrap_or_default();
    let of_this_boot = written.trim_end().split_once(' ').filter(|(of, _)| is_whole && *of == boot);
    if let Some(instance) = of_this_boot.and_then(|(_, digits)| u64::from_str_radix(digits, 16).ok()) {
        return Ok(instance);
    }
    let instance = u64::from_le_bytes(*entropy()?.0.first_chunk().unwrap_or(&[0; 8]));
    // Whole or not at all: half a name would be another journal's.
    let half = folder.join(".instance.new");
    fs::write(&half, format!("{boot} {instance:016x}\n"))?;
    fs::rename(&half, &path)?;
    Ok(instance)
}

/// Whether a file of that name is about a request. Another is somebody else's, and no business of ours.
fn is_of_a_request(name: &OsStr) -> bool {
    let Some((requester, id)) = name.to_str().and_then(|name| name.rsplit_once('-')) else { return false };
    let is_id = id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_id && Requester::parse(requester).is_some()
}

#[cfg(test)]
mod tests;
