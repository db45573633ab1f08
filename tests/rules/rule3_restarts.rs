//! Rule 3: a repeated request gets the first one's answer; it neither acts again nor meets silence. Here: when the bridge
//! that was asked first has ended, or was killed at any step.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fencewire_tests::bridge_bed::{BridgeBed, reconnect};
use fencewire_tests::daemon::Daemon;
use fencewire_tests::guest_channel::{
    FAILED, GuestChannel, OFF, ON, REBOOT, REPLY_LENGTH, REQUEST_LENGTH, STATUS, SUCCESS, reply,
};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::scripted::{Call, OnDestroy, ScriptedGuest, ScriptedHypervisor};
use fencewired::power::hypervisor::State;
use fencewired::power::incarnation::Incarnation;
use rustix::io::ioctl_fionread;
use tempfile::TempDir;

use crate::common::{ask, bed, frame, impatient_bed, three};

/// vm1 asked something of vm2, and the bridge was killed at some step of that.
struct Killed {
    journal: TempDir,
    frame: [u8; REQUEST_LENGTH],
    /// What vm2's run was marked with at that moment.
    incarnation: Option<Incarnation>,
}

impl Killed {
    /// In the middle of `step`.
    #[track_caller]
    fn in_step(action: u8, before: State, step: Call) -> Self {
        let hypervisor = three();
        hypervisor.change("vm2", |guest| guest.state = before);
        let gate = hypervisor.hold(step, "vm2");
        let (bed, mut vm1) = bed(&hypervisor);
        let frame = frame(action, "vm2");
        vm1.send(&frame);
        gate.wait_for(1, DEADLINE);
        Self { journal: bed.journal_now(), frame, incarnation: incarnation(&hypervisor) }
    }

    /// After it had answered that.
    #[track_caller]
    fn after_answer(action: u8, before: State, script: OnDestroy, expected: u8) -> Self {
        let hypervisor = three();
        hypervisor.change("vm2", |guest| (guest.state, guest.on_destroy) = (before, script));
        let (bed, mut vm1) = impatient_bed(&hypervisor);
        let frame = frame(action, "vm2");
        assert_eq!(vm1.ask(&frame, DEADLINE), expected);
        // One that failed may have been answered a moment before it ended.
        wait_until(DEADLINE, "the outcome in the journal", || {
            let journal = bed.journal_now();
            let mut files = fs::read_dir(journal.path()).expect("a folder").map(|file| file.expect("an entry").path());
            fs::read_to_string(files.next()?).expect("a text").contains("\"done\"").then_some(())
        });
        Self { journal: bed.journal_now(), frame, incarnation: incarnation(&hypervisor) }
    }

    /// What the next bridge answers to the same frame, and what it does, when it finds vm2 so.
    #[track_caller]
    fn again(&self, found: State) -> (u8, Vec<Call>) {
        self.again_with(|guest| guest.state = found)
    }

    /// Likewise, when vm2 runs, and is the one that it was.
    #[track_caller]
    fn again_same_run(&self) -> (u8, Vec<Call>) {
        let same = self.incarnation.expect("it was marked");
        self.again_with(|guest| guest.mark(same).expect("it runs"))
    }

    #[track_caller]
    fn again_with(&self, found: impl FnOnce(&mut ScriptedGuest)) -> (u8, Vec<Call>) {
        let hypervisor = three();
        hypervisor.change("vm2", found);
        // On a copy: another bridge may be asked the same.
        let journal = tempfile::tempdir().expect("a private folder");
        copy(self.journal.path(), journal.path());
        let bed = BridgeBed::setup(&hypervisor).journal(journal.path()).channels(["vm1"]).start();
        let mut vm1 = bed.channel("vm1");
        let answer = vm1.ask(&self.frame, DEADLINE);
        assert_eq!(vm1.ask(&self.frame, DEADLINE), answer, "and once more");
        (answer, hypervisor.done_to("vm2"))
    }

    /// Makes another file of each file of the journal.
    fn edit(self, edit: impl Fn(&str) -> String) -> Self {
        for file in fs::read_dir(self.journal.path()).expect("the journal's folder") {
            let path = file.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("a text");
            fs::write(&path, edit(&text)).expect("a file");
        }
        self
    }
}

fn incarnation(hypervisor: &ScriptedHypervisor) -> Option<Incarnation> {
    hypervisor.guest("vm2")?.incarnation()
}

fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).expect("a folder") {
        let path = file.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
}

/// Rule 3, ended: what one bridge answered, the next one answers.
#[test]
fn a_fence_repeated_to_the_next_bridge_is_answered_and_not_done_again() {
    for action in [OFF, REBOOT] {
        let hypervisor = three();
        let (mut bed, mut vm1) = bed(&hypervisor);
        let frame = frame(action, "vm2");
        assert_eq!(vm1.ask(&frame, DEADLINE), SUCCESS);
        hypervisor.change("vm2", |guest| guest.state = State::Running);
        bed.restart([&mut vm1]);
        assert_eq!(vm1.ask(&frame, DEADLINE), SUCCESS, "action {action}");
        assert_eq!(hypervisor.count(Call::Destroy, "vm2"), 1, "action {action}");
        assert_eq!(hypervisor.state("vm2"), State::Running);
    }
}

/// Rule 3, killed before or in the destroy: whether it happened nobody knows. A guest that runs may be a new run of it,
/// and is not shot for the old one; one that is off is fenced.
#[test]
fn a_fence_that_was_begun_when_the_bridge_was_killed_is_not_begun_again() {
    let killed = Killed::in_step(OFF, State::Running, Call::Destroy);
    assert_eq!(killed.again(State::Running), (FAILED, vec![]));
    assert_eq!(killed.again(State::Off), (SUCCESS, vec![]));
    let killed = Killed::in_step(REBOOT, State::Running, Call::Destroy);
    assert_eq!(killed.again(State::Running), (FAILED, vec![]));
    assert_eq!(killed.again(State::Off), (SUCCESS, vec![Call::Start]));
}

/// Rule 3, killed before or in the destroy: a guest that is the very one against which it was begun has not been destroyed
/// for it, or has outlived that: it is.
#[test]
fn a_fence_that_was_begun_goes_on_against_the_same_run_of_its_target() {
    for (action, done) in [(OFF, vec![Call::Destroy]), (REBOOT, vec![Call::Destroy, Call::Start])] {
        let killed = Killed::in_step(action, State::Running, Call::Destroy);
        assert_eq!(killed.again_same_run(), (SUCCESS, done));
    }
}

/// Rule 3: a guest that nobody could mark may be another by now.
#[test]
fn a_fence_that_was_begun_against_a_run_without_a_mark_is_not_begun_again() {
    let without_mark = |text: &str| {
        let (before, after) = text.split_once(",\"incarnation\"").expect("a mark in the journal");
        format!("{before}{}", after.split_once("\"}").map_or("", |_| "}\n"))
    };
    let killed = Killed::in_step(OFF, State::Running, Call::Destroy);
    let incarnation = killed.incarnation;
    let killed = Killed { incarnation, ..killed.edit(without_mark) };
    assert_eq!(killed.again_same_run(), (FAILED, vec![]));
}

/// Rule 3, killed after off was seen: an `off` is done; a reboot goes on with its second half.
#[test]
fn a_fence_whose_target_was_seen_off_when_the_bridge_was_killed_is_not_destroyed_again() {
    let not_done = |line: &&str| !line.contains("\"done\"");
    let without_done = |text: &str| text.lines().filter(not_done).fold(String::new(), |text, line| text + line + "\n");
    let killed = Killed::after_answer(OFF, State::Running, OnDestroy::Works, SUCCESS).edit(without_done);
    assert_eq!(killed.again(State::Running), (SUCCESS, vec![]), "it has been started since, by somebody else");
    assert_eq!(killed.again(State::Off), (SUCCESS, vec![]));
    let killed = Killed::in_step(REBOOT, State::Running, Call::Start);
    assert_eq!(killed.again(State::Off), (SUCCESS, vec![Call::Start]));
    assert_eq!(killed.again(State::Running), (SUCCESS, vec![]), "it was off, and has been started since");
}

/// Rule 3, killed after the answer: the next bridge gives the same one.
#[test]
fn a_fence_that_was_answered_when_the_bridge_was_killed_is_answered_again() {
    let check = |action, before, script, answer| {
        let killed = Killed::after_answer(action, before, script, answer);
        for found in [State::Running, State::Off] {
            assert_eq!(killed.again(found), (answer, vec![]), "action {action}, found {found:?}");
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| check(OFF, State::Running, OnDestroy::Works, SUCCESS));
        scope.spawn(|| check(OFF, State::Off, OnDestroy::Works, SUCCESS));
        scope.spawn(|| check(REBOOT, State::Running, OnDestroy::Works, SUCCESS));
        scope.spawn(|| check(ON, State::Off, OnDestroy::Works, SUCCESS));
        scope.spawn(|| check(OFF, State::Running, OnDestroy::Fails, FAILED));
    });
}

/// Rule 3, killed in a start: it is started once more only where it does not run.
#[test]
fn an_on_that_was_begun_when_the_bridge_was_killed_is_carried_on() {
    let killed = Killed::in_step(ON, State::Off, Call::Start);
    assert_eq!(killed.again(State::Running), (SUCCESS, vec![]));
    assert_eq!(killed.again(State::Off), (SUCCESS, vec![Call::Start]));
}

/// Rule 3, journal: what is from before the host's last start is about guests that are no more.
#[test]
fn a_journal_of_another_boot_is_not_believed() {
    let other_boot = |text: &str| text.replacen("\"boot\":\"", "\"boot\":\"another-", 1);
    let killed = Killed::after_answer(OFF, State::Running, OnDestroy::Works, SUCCESS).edit(other_boot);
    assert_eq!(killed.again(State::Running), (SUCCESS, vec![Call::Destroy]), "a new request");
}

/// Rule 3, journal: a file that stops in the middle of a line says what its whole lines say.
#[test]
fn a_torn_journal_says_what_its_whole_lines_say() {
    let torn = |text: &str| text.trim_end().trim_end_matches('}').to_owned();
    let killed = Killed::in_step(OFF, State::Running, Call::Destroy);
    let whole = fs::read_dir(killed.journal.path()).expect("a folder").count();
    assert_eq!(whole, 1, "one file for one request");
    let done = Killed::after_answer(REBOOT, State::Running, OnDestroy::Works, SUCCESS).edit(torn);
    assert_eq!(done.again(State::Running).1, [], "begun and seen off, and no more");
}

/// Rule 3, the program itself: killed with SIGKILL after it answered.
#[test]
fn a_daemon_that_was_killed_after_its_answer_does_not_fence_again() {
    let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    let mut vm1 = daemon.channel("vm1");
    let off = frame(OFF, "vm2");
    assert_eq!(vm1.ask(&off, DEADLINE), SUCCESS);
    daemon.kill();
    daemon.start_again();
    reconnect([&mut vm1]);
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "libvirt's test driver has started it anew with the daemon");
    assert_eq!(vm1.ask(&off, DEADLINE), SUCCESS);
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "and it still runs");
}

/// Rule 3, the program itself: killed with SIGKILL while it was about to destroy.
#[test]
fn a_daemon_that_was_killed_in_a_destroy_does_not_destroy_again() {
    let killed = Killed::in_step(OFF, State::Running, Call::Destroy);
    let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    let mut vm1 = daemon.channel("vm1");
    daemon.kill();
    copy(killed.journal.path(), &daemon.journal());
    daemon.start_again();
    reconnect([&mut vm1]);
    assert_eq!(vm1.ask(&killed.frame, DEADLINE), FAILED);
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "it still runs");
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "a new request is carried out");
}

/// Rules 1 and 3: what the journal says was seen is from before a new request came, and proves nothing for that.
#[test]
fn a_journal_is_no_proof_for_a_new_request() {
    let killed = Killed::after_answer(OFF, State::Running, OnDestroy::Works, SUCCESS);
    let hypervisor: ScriptedHypervisor = three();
    hypervisor.change("vm2", |guest| guest.on_destroy = OnDestroy::SaysDone);
    let bed = BridgeBed::setup(&hypervisor).hypervisor("deadline_ms = 700").journal(killed.journal.path()).start();
    let mut vm1 = bed.channel("vm1");
    assert_eq!(ask(&mut vm1, OFF, "vm2"), FAILED);
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Rule 3, stopping: the last answer is not lost with its channel. QEMU reads no further once the other end is closed,
/// and gives a serial port's guest 16 bytes at a time.
#[test]
fn a_bridge_that_stops_waits_until_its_last_answer_was_taken() {
    let hypervisor = three();
    let (bed, mut vm1) = bed(&hypervisor);
    let mut vm2 = bed.channel("vm2");
    answered_and_not_read(&mut vm1);
    bed.ask_to_stop();
    vm2.expect_silence(Duration::from_millis(150));
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    vm2.expect_end(DEADLINE);
}

/// Rule 4, stopping: who takes no answer keeps a bridge from its end for a second.
#[test]
fn a_bridge_that_stops_does_not_wait_for_who_does_not_read() {
    let hypervisor = three();
    let (bed, mut vm1) = bed(&hypervisor);
    let mut vm2 = bed.channel("vm2");
    answered_and_not_read(&mut vm1);
    let asked = Instant::now();
    bed.ask_to_stop();
    vm2.expect_end(DEADLINE);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(
        reply(&vm1.read(REPLY_LENGTH, DEADLINE)),
        SUCCESS,
        "a socket's bytes are not lost, whoever has closed it"
    );
}

/// Has the bridge answer something, and leaves that where it is.
#[track_caller]
fn answered_and_not_read(channel: &mut GuestChannel) {
    channel.send(&frame(OFF, "vm3"));
    let length = REPLY_LENGTH as u64;
    wait_until(DEADLINE, "an answer", || ioctl_fionread(channel.stream()).is_ok_and(|has| has >= length).then_some(()));
}
