use super::*;
use crate::power::Earlier;
use crate::power::orders::{guest, order, resumed_order, seen_off};
use fencewire_core::Uuid;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use tempfile::TempDir;

const A: Uuid = guest(0xa);
const TARGET: Uuid = guest(0xf);

type Looked = Result<Sighting, HypervisorError>;

/// A hypervisor that shows what it is told to show, look by look; the last look stays.
struct Stub {
    looks: Mutex<VecDeque<Looked>>,
    requester: Result<State, HypervisorError>,
    destroys: Result<(), HypervisorError>,
    /// What this run of the target is marked with.
    mark: Mutex<Option<Incarnation>>,
    journal: PathBuf,
    log: Mutex<Vec<String>>,
}

impl Stub {
    fn call(&self, what: &str) {
        self.log.lock().unwrap().push(what.to_owned());
    }

    /// What the journal has of requests at this moment.
    fn journaled(&self) -> usize {
        let files = std::fs::read_dir(&self.journal).unwrap().map(|file| file.unwrap().file_name());
        files.filter(|name| name != "instance").count()
    }
}

impl Hypervisor for Stub {
    fn is_alive(&self) -> bool {
        true
    }

    fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        unreachable!("nobody is listed in a power action")
    }

    fn state(&self, guest: Uuid) -> Result<Guest, HypervisorError> {
        self.requester.clone().map(|state| Guest { uuid: guest, name: "a".to_owned(), state })
    }

    fn look(&self, _guest: Uuid) -> Looked {
        let mut looks = self.looks.lock().unwrap();
        let look = looks.pop_front().expect("a look");
        if looks.is_empty() {
            looks.push_back(look.clone());
        }
        look
    }

    fn incarnation(&self, _guest: Uuid) -> Result<Option<Incarnation>, HypervisorError> {
        Ok(*self.mark.lock().unwrap())
    }

    fn mark(&self, _guest: Uuid, incarnation: Incarnation) -> Result<(), HypervisorError> {
        *self.mark.lock().unwrap() = Some(incarnation);
        Ok(())
    }

    fn destroy(&self, _order: &Order) -> Result<(), HypervisorError> {
        assert_eq!(self.journaled(), 1, "it is in the journal before it is destroyed");
        self.call("destroy");
        self.destroys.clone()
    }

    fn start(&self, _order: &Order) -> Result<(), HypervisorError> {
        assert_eq!(self.journaled(), 1, "it is in the journal before it is started");
        self.call("start");
        Ok(())
    }

    fn abort_job(&self, _order: &Order) -> Result<(), HypervisorError> {
        self.call("abort");
        Ok(())
    }

    fn remove_saved(&self, _order: &Order) -> Result<(), HypervisorError> {
        self.call("remove");
        Ok(())
    }
}

/// A case: who asks for what of a hypervisor that shows what.
struct Case {
    stub: Stub,
    order: RefCell<Option<Order>>,
    deadline: Millis,
    others: Others,
    held: Held,
    folder: TempDir,
}

impl Case {
    fn new(action: PowerAction, looks: &[Look]) -> Case {
        let folder = tempfile::tempdir().unwrap();
        let stub = Stub {
            looks: Mutex::new(looks.iter().map(|look| look.shows()).collect()),
            requester: Ok(State::Running),
            destroys: Ok(()),
            mark: Mutex::new(None),
            journal: folder.path().to_owned(),
            log: Mutex::default(),
        };
        let order = order(A, action, TARGET, clock::now());
        // What is never confirmed is over soon.
        Case {
            stub,
            order: RefCell::new(Some(order)),
            deadline: clock::now().plus(Millis(400)),
            others: Others::NONE,
            held: Held::NONE,
            folder,
        }
    }

    /// What was seen, and what was called for that.
    fn run(self) -> (Seen, Vec<String>) {
        let (carried, called) = self.carry_out();
        (carried.seen, called)
    }

    fn carry_out(self) -> (Carried, Vec<String>) {
        let (journal, _) = Journal::open(self.folder.path(), clock::now()).unwrap();
        let mut order = self.order.take().unwrap();
        order.until = self.deadline;
        let carried = run(&self.stub, &self.others, &self.held, &order, &journal);
        (carried, self.stub.log.into_inner().unwrap())
    }
}

fn sighting(state: State) -> Sighting {
    Sighting { name: "target".to_owned(), state, job: false, saved: false, persistent: true }
}

/// What a look shows.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    In(State),
    Migrating,
    Saved,
    Transient,
    Gone,
    Unreadable,
    Broken,
}

const RUNNING: Look = Look::In(State::Running);
const SHUT: Look = Look::In(State::Off);

impl Look {
    fn shows(self) -> Looked {
        match self {
            Look::In(state) => Ok(sighting(state)),
            Look::Migrating => Ok(Sighting { job: true, ..sighting(State::Paused) }),
            Look::Saved => Ok(Sighting { saved: true, ..sighting(State::Off) }),
            Look::Transient => Ok(Sighting { persistent: false, ..sighting(State::Running) }),
            Look::Gone => Err(HypervisorError::NoSuchGuest),
            Look::Unreadable => Err(HypervisorError::Failed("cannot be read".to_owned())),
            Look::Broken => Err(HypervisorError::Unreachable("broken".to_owned())),
        }
    }
}

const OFF: PowerAction = PowerAction::Off;
const REBOOT: PowerAction = PowerAction::Reboot;
const ON: PowerAction = PowerAction::On;

#[test]
fn off_and_reboot_by_what_is_seen() {
    for (number, (action, looks, calls)) in FENCED.iter().enumerate() {
        let (seen, called) = Case::new(*action, looks).run();
        assert!(matches!(seen, Seen::Off(..)), "{number}: {seen:?}");
        assert_eq!(called, *calls, "{number}");
    }
    thread::scope(|scope| {
        for (number, (looks, failure, calls)) in NOT_FENCED.iter().enumerate() {
            for action in [OFF, REBOOT] {
                scope.spawn(move || {
                    let (seen, called) = Case::new(action, looks).run();
                    assert_eq!(seen, Seen::Failed(*failure), "{number}");
                    assert_eq!(called, *calls, "{number}");
                });
            }
        }
    });
}

const FENCED: &[(PowerAction, &[Look], &[&str])] = &[
    (OFF, &[RUNNING, SHUT], &["destroy"]),
    (OFF, &[RUNNING, RUNNING, RUNNING, SHUT], &["destroy"]),
    (OFF, &[RUNNING, Look::Broken, Look::Unreadable, SHUT], &["destroy"]),
    (OFF, &[SHUT], &[]),
    (OFF, &[Look::Saved, SHUT], &["remove"]),
    (OFF, &[RUNNING, Look::Saved, SHUT], &["destroy", "remove"]),
    (OFF, &[Look::Migrating, Look::Migrating, RUNNING, RUNNING, SHUT], &["abort", "destroy"]),
    (OFF, &[Look::Transient, Look::Gone], &["destroy"]),
    (REBOOT, &[RUNNING, SHUT, RUNNING], &["destroy", "start"]),
    (REBOOT, &[Look::Transient, Look::Gone], &["destroy", "start"]),
];

const NOT_FENCED: &[(&[Look], Failure, &[&str])] = &[
    (&[RUNNING], Failure::Unconfirmed, &["destroy"]),
    (&[RUNNING, Look::Unreadable], Failure::Unconfirmed, &["destroy"]),
    (&[RUNNING, Look::Broken], Failure::Unconfirmed, &["destroy"]),
    (&[RUNNING, Look::Gone], Failure::Unconfirmed, &["destroy"]),
    (&[RUNNING, Look::In(State::Crashed)], Failure::Unconfirmed, &["destroy"]),
    (&[RUNNING, Look::In(State::OffMigrated)], Failure::Elsewhere, &["destroy"]),
    (&[RUNNING, Look::Migrating], Failure::Elsewhere, &["destroy"]),
    (&[Look::Migrating], Failure::Elsewhere, &["abort"]),
    (&[Look::Migrating, RUNNING, Look::Migrating], Failure::Elsewhere, &["abort"]),
    (&[Look::Migrating, Look::In(State::OffMigrated)], Failure::Elsewhere, &["abort"]),
    (&[Look::Saved], Failure::Unconfirmed, &["remove"]),
    (&[Look::Saved, RUNNING], Failure::Unconfirmed, &["remove"]),
    (&[Look::Gone], Failure::NotFound, &[]),
    (&[Look::Unreadable], Failure::Unreachable, &[]),
];
/// What the looks show, what is to be seen, and what is to be called.
type Switched<'a> = (&'a [Look], Result<Started, Failure>, &'a [&'a str]);

#[test]
fn on_by_what_is_seen() {
    let cases: [Switched; 6] = [
        (&[RUNNING], Ok(Started::Before), &[]),
        (&[Look::In(State::Paused)], Ok(Started::Before), &[]),
        (&[SHUT, RUNNING], Ok(Started::Now), &["start"]),
        (&[SHUT], Err(Failure::NotStarted), &["start"]),
        (&[Look::In(State::OffMigrated)], Err(Failure::Elsewhere), &[]),
        (&[Look::Unreadable], Err(Failure::Unreachable), &[]),
    ];
    for (number, (looks, expected, calls)) in cases.into_iter().enumerate() {
        let (seen, called) = Case::new(ON, looks).run();
        let as_expected = match expected {
            Ok(started) => matches!(seen, Seen::On(_, is) if is == started),
            Err(failure) => seen == Seen::Failed(failure),
        };
        assert!(as_expected, "{number}: {seen:?}");
        assert_eq!(called, calls, "{number}");
    }
}

/// What the hypervisor shows, whether the target's process has closed what is held of it by then, and what is seen then.
type Witnessed<'a> = (PowerAction, &'a [Look], bool, Result<(), Failure>, &'a [&'a str]);

#[test]
fn off_is_not_confirmed_while_the_targets_process_has_its_channel_open() {
    let cases: [Witnessed; 8] = [
        (OFF, &[RUNNING, SHUT], false, Err(Failure::Unconfirmed), &["destroy"]),
        (OFF, &[RUNNING, SHUT], true, Ok(()), &["destroy"]),
        (REBOOT, &[RUNNING, SHUT, RUNNING], false, Err(Failure::Unconfirmed), &["destroy"]),
        (OFF, &[SHUT], false, Err(Failure::Unconfirmed), &[]),
        (OFF, &[Look::Saved, SHUT], false, Err(Failure::Unconfirmed), &[]),
        (OFF, &[Look::Transient, Look::Gone], false, Err(Failure::Unconfirmed), &["destroy"]),
        (ON, &[SHUT, RUNNING], false, Err(Failure::NotStarted), &[]),
        (ON, &[RUNNING], false, Ok(()), &[]),
    ];
    for (number, (action, looks, closes, expected, calls)) in cases.into_iter().enumerate() {
        let mut case = Case::new(action, looks);
        let (ours, theirs) = UnixStream::pair().unwrap();
        case.held = Held::new([Ok(ours.into())]);
        let lives = (!closes).then_some(theirs);
        let (seen, called) = case.run();
        let seen = if let Seen::Failed(failure) = seen { Err(failure) } else { Ok(()) };
        assert_eq!(seen, expected, "{number}");
        assert_eq!(called, calls, "{number}");
        drop(lives);
    }
}

#[test]
fn a_reboot_has_started_what_is_seen_to_run() {
    for (looks, expected) in
        [(&[RUNNING, SHUT, RUNNING], Restart::Started), (&[RUNNING, SHUT, SHUT], Restart::NotStarted)]
    {
        let (seen, _) = Case::new(REBOOT, looks).run();
        assert!(matches!(seen, Seen::Off(_, Some(restart)) if restart == expected), "{seen:?}");
    }
}

#[test]
fn whoever_is_off_is_not_obeyed() {
    for (requester, is_obeyed) in [
        (Ok(State::Off), false),
        (Ok(State::OffMigrated), false),
        (Err(HypervisorError::NoSuchGuest), false),
        (Ok(State::Paused), true),
        (Err(HypervisorError::Failed(String::new())), true),
    ] {
        for action in [OFF, REBOOT, ON] {
            let mut case = Case::new(action, &[SHUT, RUNNING]);
            case.stub.requester = requester.clone();
            let refused = case.run().0 == Seen::Failed(Failure::RequesterFenced);
            assert_eq!(refused, !is_obeyed, "{requester:?}");
        }
    }
    let mut case = Case::new(OFF, &[RUNNING, SHUT]);
    case.stub.requester = Ok(State::Off);
    *case.order.borrow_mut() = Some(order(TARGET, OFF, TARGET, clock::now()));
    assert!(matches!(case.run().0, Seen::Off(..)), "who fences itself is off in the end");
}

#[test]
fn nothing_is_begun_once_the_time_is_up() {
    for action in [OFF, REBOOT, ON] {
        let mut case = Case::new(action, &[RUNNING]);
        case.deadline = clock::now();
        assert_eq!(case.run(), (Seen::Failed(Failure::Expired), vec![]));
        // The order's own time.
        let case = Case::new(action, &[RUNNING]);
        *case.order.borrow_mut() = Some(order(A, action, TARGET, Millis(0)));
        assert_eq!(case.run(), (Seen::Failed(Failure::Expired), vec![]));
    }
}

#[test]
fn a_target_that_bears_another_name_by_now_is_left_alone() {
    for action in [OFF, REBOOT, ON] {
        let case = Case::new(action, &[RUNNING]);
        case.order.borrow_mut().as_mut().unwrap().by_name = Some("other".to_owned());
        assert_eq!(case.run(), (Seen::Failed(Failure::NotFound), vec![]));
    }
}

#[test]
fn what_an_earlier_run_began_is_not_destroyed_again() {
    for (looks, expected) in [(&[RUNNING], None), (&[SHUT], Some(()))] {
        let case = Case::new(OFF, looks);
        *case.order.borrow_mut() = Some(resumed_order(A, OFF, TARGET, clock::now()));
        let (seen, called) = case.run();
        assert_eq!(matches!(seen, Seen::Off(..)).then_some(()), expected, "{seen:?}");
        assert_eq!(called, [] as [&str; 0]);
    }
}

#[test]
fn what_an_earlier_run_began_is_destroyed_only_if_it_is_that_very_run() {
    let [then, now] = [1, 2].map(|run| Some(Incarnation::from_bytes([run; 16])));
    for (journaled, marked, expected) in [
        (then, then, None),
        (then, now, Some(Failure::Replaced)),
        (then, None, Some(Failure::Unconfirmed)),
        (None, now, Some(Failure::Unconfirmed)),
    ] {
        let case = Case::new(OFF, &[RUNNING, SHUT]);
        *case.stub.mark.lock().unwrap() = marked;
        let earlier = Some(Earlier { incarnation: journaled, seen_off: None });
        // As the run before has it in its journal.
        let (journal, _) = Journal::open(case.folder.path(), clock::now()).unwrap();
        let order = Order { earlier, ..resumed_order(A, OFF, TARGET, clock::now()) };
        journal.begin(&order, journaled).unwrap();
        drop(journal);
        *case.order.borrow_mut() = Some(order);
        let (seen, called) = case.run();
        let failed = if let Seen::Failed(failure) = seen { Some(failure) } else { None };
        assert_eq!(failed, expected, "{journaled:?}, {marked:?}");
        assert_eq!(called.is_empty(), expected.is_some(), "{journaled:?}, {marked:?}: {called:?}");
    }
}

#[test]
fn what_the_target_was_before_is_what_the_first_look_showed() {
    for (action, looks, before) in [
        (OFF, &[RUNNING, SHUT][..], Power::On),
        (OFF, &[SHUT], Power::Off),
        (OFF, &[Look::Migrating, RUNNING, SHUT], Power::On),
        (REBOOT, &[RUNNING, SHUT, RUNNING], Power::On),
        (REBOOT, &[SHUT, RUNNING], Power::Off),
        (ON, &[SHUT, RUNNING], Power::Off),
        (ON, &[RUNNING], Power::On),
        (OFF, &[Look::Gone], Power::Unknown),
    ] {
        let (carried, _) = Case::new(action, looks).carry_out();
        assert_eq!(carried.before, before, "{action:?}: {:?}", carried.seen);
    }
}

#[test]
fn what_cannot_be_written_down_is_not_begun() {
    for (action, before) in [(OFF, RUNNING), (REBOOT, RUNNING), (ON, SHUT)] {
        let case = Case::new(action, &[before]);
        let (journal, _) = Journal::open(case.folder.path(), clock::now()).unwrap();
        case.folder.close().unwrap();
        let order = case.order.take().unwrap();
        assert_eq!(
            run(&case.stub, &Others::NONE, &Held::NONE, &order, &journal).seen,
            Seen::Failed(Failure::NotRecorded)
        );
        assert_eq!(case.stub.log.into_inner().unwrap(), [] as [&str; 0]);
    }
}

#[test]
fn an_outcome_has_to_be_proved_for_each_request() {
    let permit = order(A, OFF, TARGET, Millis(100)).permit;
    let seen = |asked| Seen::Off(seen_off(asked), None).outcome(&permit, Millis(100));
    assert!(matches!(seen(100), Some(Outcome::Off(_))));
    assert_eq!(seen(99), None, "seen before it came");
    assert_eq!(Seen::On(Millis(99), Started::Before).outcome(&permit, Millis(100)), None);
    let failed = Seen::Failed(Failure::Unconfirmed);
    assert_eq!(failed.outcome(&permit, Millis(100)), Some(Outcome::Failed(Failure::Unconfirmed)));
}

#[test]
fn only_what_was_put_off_or_started_was_reset() {
    for (seen, was_reset) in [
        (Seen::Off(seen_off(1), None), true),
        (Seen::On(Millis(1), Started::Now), true),
        (Seen::On(Millis(1), Started::Before), false),
        (Seen::Failed(Failure::Unconfirmed), false),
    ] {
        assert_eq!(seen.was_reset(), was_reset, "{seen:?}");
    }
}
