use super::*;
use crate::power::orders::{guest, order};
use fencewire_core::{Observation, Power, Uuid};
use tempfile::TempDir;

const A: Uuid = guest(0xa);
const TARGET: Uuid = guest(0xf);
const NOW: Millis = Millis(1_000);

/// The folder, the journal of one run of the program, and an order for it.
fn bench(action: PowerAction) -> (TempDir, Journal, Order) {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path()).0;
    (folder, journal, order(A, action, TARGET, NOW))
}

fn open(folder: &Path) -> (Journal, Vec<Entry>) {
    Journal::open(folder, NOW).unwrap()
}

/// What the next run finds.
fn next_run(folder: &Path, journal: Journal) -> Vec<Remembered> {
    drop(journal);
    open(folder).1.into_iter().map(|entry| entry.what).collect()
}

fn off(order: &Order) -> Outcome {
    Outcome::Off(order.permit.confirm_off(Observation { power: Power::Off, asked: NOW }).unwrap())
}

fn rebooted(order: &Order, restart: Restart) -> Outcome {
    Outcome::Rebooted(order.permit.confirm_off(Observation { power: Power::Off, asked: NOW }).unwrap(), restart)
}

/// The files that are about requests.
fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    paths.filter(|path| is_of_a_request(path.file_name().unwrap())).collect()
}

#[test]
fn a_journal_keeps_its_name_until_the_host_is_started_again() {
    let (folder, journal, _) = bench(PowerAction::Off);
    let name = folder.path().join("instance");
    let first = journal.instance();
    drop(journal);
    assert_eq!(open(folder.path()).0.instance(), first);
    let written = fs::read_to_string(&name).unwrap();
    let another_boot = format!("00000000-0000-0000-0000-000000000000 {first:016x}\n");
    for unread in [&another_boot, "", "noise", &written[..written.len() - 3].replace(' ', "")] {
        fs::write(&name, unread).unwrap();
        let (journal, _) = open(folder.path());
        assert_ne!(journal.instance(), first, "{unread:?}");
        let named = journal.instance();
        drop(journal);
        assert_eq!(open(folder.path()).0.instance(), named, "{unread:?}");
    }
    assert_ne!(bench(PowerAction::Off).1.instance(), first, "another folder is another's");
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_journal_of_which_a_part_cannot_be_read_has_another_name() {
    let (folder, journal, order) = bench(PowerAction::Off);
    let first = journal.instance();
    journal.begin(&order, None).unwrap();
    fs::write(&files(folder.path())[0], b"\xff").unwrap();
    drop(journal);
    let (journal, entries) = open(folder.path());
    assert!(entries.is_empty() && journal.instance() != first);
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

type Steps = fn(&Journal, &Order);

#[test]
fn each_step_is_found_by_the_next_run() {
    use PowerAction::{Off, On, Reboot};
    use Restart::{NotStarted, Started};
    let done = |action, restart| vec![Remembered::Done(action, NOW, restart)];
    let cases: [(PowerAction, Steps, Vec<Remembered>); 11] = [
        (Off, |_, _| {}, vec![]),
        (Off, |journal, order| journal.begin(order, None).unwrap(), vec![Remembered::Begun(NOW)]),
        (Off, seen_off, done(Off, NotStarted)),
        (
            Off,
            |journal, order| {
                seen_off(journal, order);
                journal.done(order, off(order));
            },
            done(Off, NotStarted),
        ),
        (Reboot, seen_off, vec![Remembered::Begun(NOW)]),
        (
            Reboot,
            |journal, order| {
                seen_off(journal, order);
                journal.done(order, rebooted(order, Restart::Started));
            },
            done(Reboot, Started),
        ),
        (
            Reboot,
            |journal, order| {
                seen_off(journal, order);
                journal.done(order, rebooted(order, Restart::NotStarted));
            },
            done(Reboot, NotStarted),
        ),
        (On, |journal, order| journal.begin(order, None).unwrap(), vec![Remembered::Begun(NOW)]),
        (Off, failed, vec![Remembered::Failed(Failure::Unconfirmed)]),
        // It failed before it was begun: nothing needs to be known.
        (Off, |journal, order| journal.done(order, Outcome::Failed(Failure::Expired)), vec![]),
        // Where the last line is missing, it is as if that step had not been reached.
        (
            Off,
            |journal, order| {
                failed(journal, order);
                cut_last_line(journal);
            },
            vec![Remembered::Begun(NOW)],
        ),
    ];
    for (number, (action, steps, expected)) in cases.into_iter().enumerate() {
        let (folder, journal, order) = bench(action);
        steps(&journal, &order);
        assert_eq!(next_run(folder.path(), journal), expected, "{number}");
    }
}

fn seen_off(journal: &Journal, order: &Order) {
    journal.begin(order, None).unwrap();
    journal.seen_off(order, NOW);
}

fn failed(journal: &Journal, order: &Order) {
    journal.begin(order, None).unwrap();
    journal.done(order, Outcome::Failed(Failure::Unconfirmed));
}

/// What a full disk may leave of a line.
fn cut_last_line(journal: &Journal) {
    for path in files(&journal.folder) {
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 5]).unwrap();
    }
}

#[test]
fn a_request_that_joined_anothers_action_is_found_done_too() {
    let (folder, journal, order) = bench(PowerAction::Off);
    journal.done(&order, off(&order));
    let found = next_run(folder.path(), journal);
    assert!(matches!(found[..], [Remembered::Done(PowerAction::Off, ..)]), "{found:?}");
}

#[test]
fn an_entry_names_the_request_and_how_long_it_is_remembered() {
    let (folder, journal, order) = bench(PowerAction::Off);
    let incarnation = Some(incarnation::new().unwrap());
    journal.begin(&order, incarnation).unwrap();
    drop(journal);
    let expected = Entry {
        requester: Requester::Guest(A),
        key: order.key(),
        until: order.remember_until,
        what: Remembered::Begun(NOW),
        earlier: Earlier { incarnation, seen_off: None },
    };
    assert_eq!(open(folder.path()).1, [expected]);
}

#[test]
fn what_is_old_or_of_another_boot_or_torn_is_removed() {
    let (folder, journal, order) = bench(PowerAction::Off);
    journal.begin(&order, None).unwrap();
    drop(journal);
    let [path] = &files(folder.path())[..] else { panic!("one file") };
    let text = fs::read_to_string(path).unwrap();
    let spoilt: [String; 4] = [
        text.replacen("\"boot\":\"", "\"boot\":\"x", 1),
        text[..text.len() / 2].to_owned(),
        String::new(),
        text.replacen("begun", "done", 1),
    ];
    for spoilt in spoilt {
        fs::write(path, &spoilt).unwrap();
        assert_eq!(open(folder.path()).1, [], "{spoilt}");
        assert!(files(folder.path()).is_empty(), "{spoilt}");
    }
    fs::write(path, &text).unwrap();
    assert_eq!(Journal::open(folder.path(), order.remember_until).unwrap().1, [], "its time is up");
    assert!(files(folder.path()).is_empty());
}

#[test]
fn what_is_not_of_a_journal_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "records.jsonl",
        "fencewired.toml",
        "b33f94f9-8a30-4e83-9165-fd8681ee13cf",
        "x-0123456789abcdef",
        "b33f94f9-8a30-4e83-9165-fd8681ee13cf-0123456789abcde",
        "b33f94f9-8a30-4e83-9165-fd8681ee13cf-0123456789abcdex",
        "b33f94f9-8a30-4e83-9165-fd8681ee13cf-0123456789abcdeg",
    ];
    for name in names {
        fs::write(folder.path().join(name), "of somebody else").unwrap();
    }
    let (journal, found) = open(folder.path());
    // And the journal's name.
    assert_eq!((found, fs::read_dir(folder.path()).unwrap().count()), (vec![], names.len() + 1));
    drop(journal);
}

#[test]
fn a_request_is_forgotten_by_its_name() {
    let (folder, journal, order) = bench(PowerAction::Off);
    journal.begin(&order, None).unwrap();
    journal.forget(Requester::Guest(A), RequestKey { id: order.key().id ^ 1, ..order.key() });
    journal.forget(Requester::Guest(TARGET), order.key());
    assert_eq!(files(folder.path()).len(), 1, "another's");
    journal.forget(Requester::Guest(A), order.key());
    assert!(files(folder.path()).is_empty());
    assert_eq!(next_run(folder.path(), journal), []);
}

/// The same frame, sent once more when its time is up, is a new request: what the journal has of the first one is over.
#[test]
fn a_request_that_is_begun_anew_is_remembered_for_as_long_as_the_new_one() {
    let (folder, journal, first) = bench(PowerAction::Off);
    seen_off(&journal, &first);
    journal.done(&first, off(&first));
    let again = Order { remember_until: first.remember_until.plus(Millis(60_000)), ..first };
    journal.begin(&again, None).unwrap();
    drop(journal);
    let (_journal, found) = Journal::open(folder.path(), first_until(&again)).unwrap();
    assert_eq!(found.len(), 1, "the first one's time is up, the second one's is not");
    assert_eq!((found[0].until, found[0].what), (again.remember_until, Remembered::Begun(again.permit.received())));
}

fn first_until(again: &Order) -> Millis {
    again.remember_until.since(Millis(60_000))
}

#[test]
fn a_folder_that_cannot_be_used_is_found_out_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(Journal::open(&file, NOW).is_err());
    assert!(Journal::open(&file.join("below"), NOW).is_err());
    let (_first, _) = open(folder.path());
    assert!(Journal::open(folder.path(), NOW).is_err(), "another bridge uses it");
}
