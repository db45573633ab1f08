use super::*;
use crate::power::orders::guest;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const G: Uuid = guest(0x9);
const URI: &str = "qemu:///system";

fn opened(folder: &Path, uris: &[&str]) -> (Arc<Away>, Keeper) {
    open(folder, uris.iter().map(|uri| (*uri).to_owned())).unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// What the file says; nothing where there is none yet.
fn written(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join("away")).unwrap_or_default()
}

/// What was shown, asked at that time.
fn shown(away: &Away, state: State, asked: u64) -> State {
    away.shown(0, G, state, Moment(asked))
}

#[test]
fn off_where_it_left_is_not_off_whatever_the_hypervisor_forgets() {
    let folder = folder();
    let (away, _keeper) = opened(folder.path(), &[URI]);
    assert_eq!(shown(&away, State::Off, 1), State::Off, "nothing was seen of it");
    for (asked, state, expected) in [
        (2, State::OffMigrated, State::OffMigrated),
        (3, State::Off, State::OffMigrated),
        (4, State::Underway, State::Migrating),
        (5, State::Off, State::OffMigrated),
        (6, State::Crashed, State::Crashed),
        (7, State::NoState, State::NoState),
        (8, State::Off, State::OffMigrated),
        (9, State::Running, State::Running),
        (10, State::Off, State::Off),
        (11, State::OffMigrated, State::OffMigrated),
        (12, State::Paused, State::Paused),
        (13, State::Off, State::Off),
        (14, State::Underway, State::Underway),
        (15, State::Off, State::Off),
        (16, State::Migrating, State::Migrating),
        (17, State::Off, State::OffMigrated),
    ] {
        assert_eq!(shown(&away, state, asked), expected, "{asked}: {state:?}");
    }
}

#[test]
fn what_is_told_counts_as_what_is_seen() {
    let folder = folder();
    let (away, _keeper) = opened(folder.path(), &[URI, "b"]);
    for (told, expected) in [
        (Happening::Changed(G), State::Off),
        (Happening::Leaves(G), State::OffMigrated),
        (Happening::Defined(G), State::OffMigrated),
        (Happening::Resumed(G), State::Off),
        (Happening::Arrives(G), State::OffMigrated),
        (Happening::Returned, State::OffMigrated),
        (Happening::Started(G), State::Off),
        (Happening::Leaves(G), State::OffMigrated),
        (Happening::Leaves(guest(1)), State::OffMigrated),
        (Happening::Started(guest(1)), State::OffMigrated),
    ] {
        away.happened(0, told);
        assert_eq!(away.shown(0, G, State::Off, away.moment()), expected, "{told:?}");
        assert_eq!(away.shown(1, G, State::Off, away.moment()), State::Off, "another hypervisor's guest");
    }
}

/// A look takes its time: what it shows is as old as the question.
#[test]
fn an_old_look_says_nothing_against_a_newer_one() {
    let folder = folder();
    let (away, _keeper) = opened(folder.path(), &[URI]);
    shown(&away, State::OffMigrated, 10);
    shown(&away, State::Running, 9);
    assert_eq!(shown(&away, State::Off, 11), State::OffMigrated, "it was asked before the guest had gone");
    shown(&away, State::Running, 12);
    shown(&away, State::OffMigrated, 11);
    assert_eq!(shown(&away, State::Off, 13), State::Off, "it was asked before the guest was started");
    shown(&away, State::OffMigrated, 14);
    away.forget(0, G, Moment(13));
    assert_eq!(shown(&away, State::Off, 15), State::OffMigrated);
    away.forget(0, G, Moment(16));
    assert_eq!(shown(&away, State::Off, 17), State::Off, "it was not there any more, and is defined anew");
}

#[test]
fn the_next_run_knows_who_is_away() {
    let folder = folder();
    let (away, keeper) = opened(folder.path(), &[URI, "b"]);
    shown(&away, State::OffMigrated, 1);
    away.shown(1, guest(2), State::OffMigrated, Moment(1));
    away.shown(1, guest(3), State::Running, Moment(1));
    drop((away, keeper));
    assert_eq!(written(&folder).lines().count(), 2, "{}", written(&folder));
    // One of them is not configured any more, and comes back.
    let (away, keeper) = opened(folder.path(), &[URI]);
    assert_eq!(shown(&away, State::Off, 1), State::OffMigrated);
    shown(&away, State::Running, 2);
    drop((away, keeper));
    let (away, keeper) = opened(folder.path(), &["b", URI]);
    assert_eq!(away.shown(0, guest(2), State::Off, Moment(1)), State::OffMigrated);
    assert_eq!(away.shown(1, G, State::Off, Moment(1)), State::Off);
    away.forget(0, guest(2), Moment(2));
    drop((away, keeper));
    assert_eq!(written(&folder), "");
}

#[test]
fn it_is_written_when_it_is_learned_and_not_at_the_end_only() {
    let folder = folder();
    let (away, _keeper) = opened(folder.path(), &[URI]);
    for (asked, state, is_away) in
        [(1, State::OffMigrated, true), (2, State::Running, false), (3, State::OffMigrated, true)]
    {
        shown(&away, state, asked);
        wait_written(&folder, is_away);
    }
}

/// Until the file says that the guest is away, or nothing.
#[track_caller]
fn wait_written(folder: &TempDir, is_away: bool) {
    let line = format!("{{\"guest\":\"{G}\",\"hypervisor\":\"{URI}\"}}\n");
    let until = Instant::now() + Duration::from_secs(10);
    while written(folder) != if is_away { line.as_str() } else { "" } {
        assert!(Instant::now() < until, "{}", written(folder));
        thread::yield_now();
    }
}

/// Without it, a guest that is away would be off; without a place to write it, the next run would say so.
#[test]
fn a_file_that_cannot_be_read_or_may_not_be_written_is_refused() {
    let uris = || [URI.to_owned()].into_iter();
    let unreadable = folder();
    fs::create_dir(unreadable.path().join("away")).unwrap();
    assert_eq!(open(unreadable.path(), uris()).err().unwrap().kind(), std::io::ErrorKind::IsADirectory);
    let no_place = folder();
    symlink("/proc/self/none", no_place.path().join(".away.new")).unwrap();
    assert_eq!(open(no_place.path(), uris()).err().unwrap().kind(), std::io::ErrorKind::NotFound);
}

/// A full disk, or what else stands in the way for a while.
#[test]
fn what_cannot_be_written_is_written_when_it_can_be() {
    let folder = folder();
    let obstacle = folder.path().join(".away.new");
    fs::create_dir(&obstacle).unwrap();
    let (away, _keeper) = opened(folder.path(), &[URI]);
    fs::remove_dir(&obstacle).unwrap();
    shown(&away, State::OffMigrated, 1);
    wait_written(&folder, true);
}

#[test]
fn a_folder_that_cannot_be_used_is_refused() {
    let folder = folder();
    let uris = || [URI.to_owned()].into_iter();
    let (_away, keeper) = open(folder.path(), uris()).unwrap();
    assert_eq!(open(folder.path(), uris()).err().unwrap().kind(), std::io::ErrorKind::AddrInUse);
    drop(keeper);
    let line = format!("{{\"guest\":\"{G}\",\"hypervisor\":\"{URI}\"}}");
    for bad in ["\n", "x\n", "{\"guest\":\"vm\",\"hypervisor\":\"b\"}\n", "{\"guest\":\"", "{}"] {
        fs::write(folder.path().join("away"), format!("{line}\n{bad}")).unwrap();
        let why = open(folder.path(), uris()).err().unwrap().to_string();
        assert!(why.starts_with("line 2 of ") && why.ends_with("take it out"), "{bad:?}: {why}");
    }
    fs::write(folder.path().join("away"), &line).unwrap();
    assert!(open(folder.path(), uris()).is_ok(), "an editor may leave out the last line's end");
    assert!(open(Path::new("/proc/self/none"), uris()).is_err());
}
