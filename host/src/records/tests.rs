use super::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn records(path: &Path, required: bool) -> io::Result<Records> {
    Records::open(&RecordsConfig { path: path.to_owned(), required })
}

fn record(action: &'static str, number: u64) -> Record {
    Record {
        time: Record::now(),
        channel: "/run/fence/vm1.sock".to_owned(),
        requester: "vm1".to_owned(),
        action,
        target: Some("vm2".to_owned()),
        uuid: None,
        outcome: "confirmed off".to_owned(),
        why: None,
        repeated: false,
        ms: number,
    }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn wait_until(what: &str, mut probe: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !probe() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn each_record_is_a_line_with_what_there_is_to_say_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("below").join("records.jsonl");
    let mut records = records(&path, true).unwrap();
    records.put(record("off", 7));
    records.put(Record { why: Some("\"why\"\n".to_owned()), repeated: true, ..record("status", 8) });
    drop(records);
    let [first, second] = &lines(&path)[..] else { panic!("two lines") };
    let keys: Vec<&str> = first.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["action", "channel", "ms", "outcome", "requester", "target", "time"]);
    assert_eq!((&first["action"], &first["ms"]), (&"off".into(), &7.into()));
    assert_eq!((&second["why"], &second["repeated"]), (&"\"why\"\n".into(), &true.into()));
}

#[test]
fn records_are_in_order_and_go_behind_those_of_an_earlier_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    for run in 0..2 {
        let mut records = records(&path, false).unwrap();
        for number in 0..300 {
            records.put(record(if number % 7 == 0 { "off" } else { "status" }, run * 300 + number));
        }
    }
    let numbers: Vec<u64> = lines(&path).iter().map(|line| line["ms"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..600).collect::<Vec<_>>());
}

#[test]
fn a_power_action_is_written_at_once_and_a_question_when_it_is_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    let mut records = records(&path, false).unwrap();
    records.put(record("status", 1));
    assert_eq!(lines(&path).len(), 0);
    records.put(record("off", 2));
    wait_until("both are written", || lines(&path).len() == 2);
    records.put(record("status", 3));
    records.hand_over();
    wait_until("the third is written", || lines(&path).len() == 3);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_only_where_records_are_required() {
    let folder = tempfile::tempdir().unwrap();
    assert!(records(folder.path(), true).is_err());
    let mut without = records(folder.path(), false).unwrap();
    without.put(record("off", 1));
    assert!(!without.refuse());
}

#[test]
fn a_full_disk_refuses_power_only_where_records_are_required() {
    for required in [true, false] {
        let mut records = records(Path::new("/dev/full"), required).unwrap();
        assert!(!records.refuse());
        records.put(record("off", 1));
        wait_until("the writer has failed", || records.failing.load(Ordering::Relaxed));
        assert_eq!(records.refuse(), required);
    }
}

#[test]
fn a_disk_that_hangs_makes_nobody_wait_and_is_served_again_when_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    // A pipe whose reader does not read: a write blocks once it is full.
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut records = records(&path, true).unwrap();
    let began = Instant::now();
    wait_until("more than can wait", || {
        records.put(Record { outcome: "x".repeat(4_096), ..record("off", 1) });
        records.refuse()
    });
    assert!(began.elapsed() < SOON && records.lost > 0);
    // It goes on, and so do the records; what was lost was counted.
    let mut copy = reader.try_clone().unwrap();
    let drained = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while copy.read(&mut buffer).is_ok_and(|got| !buffer[..got].ends_with(b"\"ms\":3}\n")) {}
    });
    wait_until("it goes on", || {
        records.put(record("off", 2));
        !records.refuse()
    });
    wait_until("there is room", || {
        records.put(record("off", 3));
        drained.is_finished()
    });
}

#[test]
fn where_records_are_required_what_begins_is_on_the_disk_first_or_does_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    let good = records(&path, true).unwrap();
    assert!(good.beforehand().unwrap().write(record("off", 1)));
    assert_eq!(lines(&path).len(), 1, "it is there when that returns");

    let full = records(Path::new("/dev/full"), true).unwrap();
    assert!(!full.beforehand().unwrap().write(record("off", 1)));

    assert!(records(&path, false).unwrap().beforehand().is_none(), "nobody waits for what is not required");
}
