//! The folders that a configuration names, tried as serving would use them: can this user make its files there?
//!
//! What is tried leaves nothing behind, and no folder is made: `fencewired check` is run by root, too, whose folders the
//! daemon could not use. Not here: what is wrong with the file as it is written (`check`).

use super::check::{JOURNAL_PATH, Lines, RECORDS_PATH, SOCKET_PATH, STATE_PATH};
use super::schema::File;
use super::{Finding, Findings};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use toml::Spanned;

/// Tries the folders of records, journal, state and control socket. Says nothing of a file that is none.
pub fn try_folders(file: &Path) -> Findings {
    let mut findings = Findings { file: file.to_owned(), list: Vec::new() };
    let Ok(text) = fs::read_to_string(file) else { return findings };
    let Ok(parsed) = toml::from_str::<File>(&text) else { return findings };
    let lines = Lines::of(&text);
    let mut say = |is_error, at: Option<&Spanned<String>>, text: String| {
        let line = at.map_or(0, |at| lines.line(at.span().start));
        findings.list.push(Finding { is_error, line, text });
    };
    let (records, control) = (&parsed.records, &parsed.control);
    let records_path = path(records.path.as_ref(), RECORDS_PATH);
    let journal = path(control.journal.as_ref(), JOURNAL_PATH);
    let state = path(control.state.as_ref(), STATE_PATH);
    let socket = path(control.socket.as_ref(), SOCKET_PATH);
    if let Err(why) = try_records(records_path) {
        let then = if records.required {
            "and records.required = true: fencewired would not start"
        } else {
            "and fencewired would serve without records"
        };
        let shown = records_path.display();
        say(
            records.required,
            records.path.as_ref(),
            format!("records.path = \"{shown}\" cannot be written by this user ({why}), {then}. Name another file"),
        );
    }
    let is_served = UnixStream::connect(socket).is_ok();
    for (folder, at, key, which) in [
        (journal, &control.journal, "control.journal", "a folder on a tmpfs that it may write"),
        (state, &control.state, "control.state", "a folder that it may write and that outlives the host's restart"),
    ] {
        let shown = folder.display();
        match try_folder(folder) {
            Err(why) => say(
                true,
                at.as_ref(),
                format!(
                    "{key} = \"{shown}\" cannot be written by this user ({why}): fencewired would not start. Name {which}"
                ),
            ),
            Ok(()) if !is_served && is_locked(folder) => say(
                false,
                at.as_ref(),
                format!("{key} = \"{shown}\": a fencewired that runs uses it, and lets no other one in"),
            ),
            Ok(()) => {}
        }
    }
    let made = [journal, state, records_path];
    let would_be_made = |folder: &Path| made.iter().any(|path| path.starts_with(folder));
    if let Err(why) = try_socket(socket, would_be_made).map_err(|why| why.to_string())
        && !is_served
    {
        let shown = socket.display();
        say(
            false,
            control.socket.as_ref(),
            format!(
                "control.socket = \"{shown}\" cannot be made by this user ({why}): fences would be served, fencewired \
                 status would not"
            ),
        );
    }
    findings.list.sort_by_key(|finding| finding.line);
    findings
}

fn path<'a>(given: Option<&'a Spanned<String>>, default: &'static str) -> &'a Path {
    Path::new(given.map_or(default, |path| path.get_ref()))
}

fn try_records(path: &Path) -> io::Result<()> {
    if path.exists() {
        return OpenOptions::new().append(true).open(path).map(drop);
    }
    try_folder(path.parent().unwrap_or(Path::new("/")))
}

fn try_socket(path: &Path, would_be_made: impl Fn(&Path) -> bool) -> io::Result<()> {
    if let Ok(found) = fs::symlink_metadata(path)
        && !found.file_type().is_socket()
    {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something there that is not a socket"));
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.exists() && !would_be_made(folder) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "its folder is not there; nobody makes it"));
    }
    try_folder(folder)
}

/// Whether files can be made in a folder; where it is missing, whether it can be made.
fn try_folder(folder: &Path) -> io::Result<()> {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    if !there.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no folder", there.display())));
    }
    let probe = there.join(format!(".fencewired-check-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    fs::remove_file(&probe)
}

/// Whether somebody holds the lock of a folder. To try that lock would keep a daemon out that starts just now.
fn is_locked(folder: &Path) -> bool {
    let Ok(found) = fs::metadata(folder) else { return false };
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    let held = format!(" {major:02x}:{minor:02x}:{} ", found.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|lock| lock.contains(" FLOCK ") && lock.contains(&held))
}
