//! A bridge that is killed (SIGKILL) at every step of a fence of a real QEMU, while its requester repeats itself: what
//! has been done is not done again, what has not is not said to be, and there is an answer.

use std::fs;
use std::thread;
use std::time::Duration;

use fencewire_tests::bridge_bed::reconnect;
use fencewire_tests::daemon::Daemon;
use fencewire_tests::guest_channel::{FAILED, GuestChannel, OFF, REBOOT, REPLY_LENGTH, REQUEST_LENGTH, SUCCESS, reply};
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine, Qemu};

use crate::common::{TARGET, frame, host, mark, serve, wait_for_mark};

/// When the bridge is killed.
#[derive(Debug, Clone, Copy)]
enum When {
    /// When its journal has this step.
    Step(&'static str),
    /// When libvirt has been told to destroy the target.
    Told,
    /// So long after the request was sent.
    After(Duration),
}

/// Every step, and moments between them; a destroy takes a quarter of a second, and so does a start.
fn moments(until: u64) -> impl Iterator<Item = When> {
    let times = (0..=until).step_by(60).map(|ms| When::After(Duration::from_millis(ms)));
    ["begun", "off", "done"].map(When::Step).into_iter().chain(times)
}

/// A host, a bridge on it, and the asker's channel; for one fence after another.
struct Scene {
    daemon: Daemon,
    asker: GuestChannel,
    host: Host,
}

/// A fence in which the bridge was killed.
struct Killed {
    frame: [u8; REQUEST_LENGTH],
    /// The target's process then.
    first: Qemu,
    /// The answers that came before.
    answers: Vec<u8>,
    destroyed: usize,
}

impl Scene {
    #[track_caller]
    fn new() -> Self {
        let host = host();
        host.define(&Machine::new(TARGET));
        let (daemon, asker) = serve(&host);
        Self { daemon, asker, host }
    }

    /// Starts the bridge again, which takes up what its journal has.
    #[track_caller]
    fn restart(&mut self) {
        self.daemon.start_again();
        reconnect([&mut self.asker]);
    }

    /// The target's process, marked by this run of the bridge, so that the next one can tell it from another.
    #[track_caller]
    fn marked(&mut self) -> Qemu {
        let qemu = self.host.try_qemu(TARGET).unwrap_or_else(|| self.host.switch_on(TARGET));
        self.restart();
        wait_for_mark(&self.host);
        qemu
    }

    /// Has the target fenced by somebody who repeats himself, and kills the bridge in the midst of that.
    #[track_caller]
    fn kill_in(&mut self, action: u8, when: When) -> Killed {
        let first = self.marked();
        self.kill_in_fence_of(first, action, when)
    }

    #[track_caller]
    fn kill_in_fence_of(&mut self, first: Qemu, action: u8, when: When) -> Killed {
        let (destroyed, told) = (self.host.destroyed(TARGET), self.host.told("virDomainDestroy", TARGET));
        let others = self.daemon.journaled();
        let frame = frame(action);
        self.asker.send(&[frame, frame].concat());
        match when {
            When::Step(step) => {
                let step = format!("\"step\":\"{step}\"");
                wait_until(DEADLINE, "a step in the journal", || {
                    let file = self.daemon.journaled().into_iter().find(|file| !others.contains(file))?;
                    fs::read_to_string(file).ok()?.contains(&step).then_some(())
                });
            }
            When::Told => wait_until(DEADLINE, "the destroy", || {
                (self.host.told("virDomainDestroy", TARGET) > told).then_some(())
            }),
            When::After(time) => thread::sleep(time),
        }
        self.daemon.kill();
        let bytes = self.asker.read_up_to(2 * REPLY_LENGTH, DEADLINE);
        let answers = bytes.chunks_exact(REPLY_LENGTH).map(reply).collect();
        Killed { frame, first, answers, destroyed }
    }

    /// Starts the bridge again, repeats the request to it, and gives the answer.
    #[track_caller]
    fn again(&mut self, killed: &Killed) -> u8 {
        self.restart();
        let answer = self.asker.ask(&killed.frame, DEADLINE);
        let lives = killed.first.lives();
        for answer in killed.answers.iter().chain([&answer]) {
            assert!(*answer != SUCCESS || !lives, "fenced, and it lives");
        }
        assert_eq!(self.asker.ask(&killed.frame, DEADLINE), answer, "asked once more");
        answer
    }

    /// How many of the target's runs were ended since that fence was asked for.
    fn destroyed_since(&self, killed: &Killed) -> usize {
        self.host.destroyed(TARGET) - killed.destroyed
    }
}

/// An `off`: the guest is off in the end, was destroyed once, and that is what is answered.
#[test]
fn an_off_in_which_the_bridge_is_killed_is_done_once_and_answered() {
    let mut scene = Scene::new();
    for when in moments(360) {
        let killed = scene.kill_in(OFF, when);
        assert_eq!(scene.again(&killed), SUCCESS, "{when:?}");
        assert_eq!(scene.destroyed_since(&killed), 1, "{when:?}");
        assert!(scene.host.qemus(TARGET).is_empty(), "{when:?}");
    }
}

/// A reboot: one of the target's runs was destroyed, and another runs in the end.
#[test]
fn a_reboot_in_which_the_bridge_is_killed_is_done_once_and_answered() {
    let mut scene = Scene::new();
    for when in moments(600) {
        let killed = scene.kill_in(REBOOT, when);
        assert_eq!(scene.again(&killed), SUCCESS, "{when:?}");
        assert_eq!(scene.destroyed_since(&killed), 1, "{when:?}");
        assert_eq!(scene.host.qemus(TARGET).len(), 1, "{when:?}");
    }
}

/// A QEMU that hangs, so that the destroy that the killed bridge has handed to libvirt is still being done when the next
/// bridge is asked.
#[test]
fn a_destroy_that_outlives_its_bridge_is_waited_for_by_the_next() {
    let mut scene = Scene::new();
    let first = scene.marked();
    first.hang();
    let killed = scene.kill_in_fence_of(first, OFF, When::Told);
    assert_eq!(scene.again(&killed), SUCCESS);
    assert_eq!(scene.destroyed_since(&killed), 1);
}

/// Somebody has started the target in between: that run of it is nobody's to shoot, and whether the old one was fenced
/// is said by what the journal has.
#[test]
fn a_guest_that_was_started_by_hand_in_between_is_not_shot() {
    let mut scene = Scene::new();
    for (action, when, answer) in [
        (OFF, When::Told, FAILED),
        (REBOOT, When::Told, FAILED),
        (OFF, When::Step("off"), SUCCESS),
        (OFF, When::Step("done"), SUCCESS),
        (REBOOT, When::Step("off"), SUCCESS),
    ] {
        let killed = scene.kill_in(action, when);
        assert!(killed.first.ends_within(DEADLINE), "{action}, {when:?}: libvirt does what it was told");
        // The start of a reboot may have been handed to libvirt as well.
        let second = wait_until(DEADLINE, "the target to be started", || {
            drop(scene.host.try_virsh(&["start", TARGET]));
            scene.host.try_qemu(TARGET).filter(Qemu::lives)
        });
        assert_eq!(scene.again(&killed), answer, "{action}, {when:?}");
        assert!(second.lives(), "{action}, {when:?}");
        assert_eq!(scene.destroyed_since(&killed), 1, "{action}, {when:?}");
    }
}

/// The bridge was killed before it had libvirt destroy anything: the same run of the target is there, and is destroyed.
#[test]
fn a_guest_that_was_not_destroyed_before_its_bridge_was_killed_is_destroyed() {
    let mut scene = Scene::new();
    let off = frame(OFF);
    assert_eq!(scene.asker.ask(&off, DEADLINE), SUCCESS, "it is off");
    let qemu = scene.marked();
    scene.daemon.kill();
    // What the journal would have, had this request come by now and gone no further than that.
    let file = scene.daemon.journaled().remove(0);
    let begun = fs::read_to_string(&file).expect("a journal");
    let begun = begun.lines().next().and_then(|line| line.strip_suffix('}')).expect("its first line");
    let mark = mark(&scene.host).expect("it was marked");
    let token = mark.split(['<', '>']).nth(2).expect("an element").trim();
    fs::write(&file, format!("{begun},\"incarnation\":\"{token}\"}}\n")).expect("a journal");
    scene.restart();
    assert_eq!(scene.asker.ask(&off, DEADLINE), SUCCESS);
    assert!(!qemu.lives());
}
