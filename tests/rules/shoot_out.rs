//! Guests that fence each other at the same moment: once the fence of a guest has begun, nothing that this guest asked for
//! begins. So of two, one survives, and of a ring, at least one.

use std::sync::Barrier;
use std::thread;

use fencewire_tests::bridge_bed::{BridgeBed, make_heard};
use fencewire_tests::guest_channel::{
    FAILED, GuestChannel, OFF, ON, REBOOT, REPLY_LENGTH, REQUEST_LENGTH, SUCCESS, reply,
};
use fencewire_tests::process::DEADLINE;
use fencewire_tests::scripted::{Call, ScriptedHypervisor};

use crate::common::{ask, frame};

/// Rings of guests, each of which fences the next one.
struct Rings {
    hypervisor: ScriptedHypervisor,
    guests: Vec<Vec<String>>,
    _bed: BridgeBed,
    channels: Vec<GuestChannel>,
    witness: GuestChannel,
}

impl Rings {
    #[track_caller]
    fn new(rings: usize, size: usize) -> Self {
        let ring = |number| (0..size).map(|place| format!("ring{number}-{place}")).collect();
        let rings: Vec<Vec<String>> = (0..rings).map(ring).collect();
        let hypervisor = ScriptedHypervisor::with(rings.iter().flatten().map(String::as_str).chain(["witness"]));
        let bed = BridgeBed::setup(&hypervisor).hypervisor("workers = 16").start();
        let channels = rings.iter().flatten().map(|guest| bed.channel(guest)).collect();
        let witness = bed.channel("witness");
        Self { hypervisor, guests: rings, _bed: bed, channels, witness }
    }

    /// Every guest fences the next one of its ring, all at the same moment. Says how many of each ring were destroyed, once
    /// the bridge has dealt with all of it.
    #[track_caller]
    fn shoot(&mut self, action: u8) -> Vec<Vec<usize>> {
        let frames = self
            .guests
            .iter()
            .flat_map(|ring| (0..ring.len()).map(move |place| frame(action, &ring[(place + 1) % ring.len()])));
        let frames: Vec<[u8; REQUEST_LENGTH]> = frames.collect();
        let together = Barrier::new(frames.len());
        thread::scope(|scope| {
            for (channel, frame) in self.channels.iter_mut().zip(&frames) {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    channel.send(frame);
                });
            }
        });
        make_heard(self.channels.iter_mut());
        // All has been read. What has begun by that has ended when something else has gone through the same queues.
        for guest in self.guests.iter().flatten() {
            assert_eq!(ask(&mut self.witness, ON, guest), SUCCESS);
        }
        let destroys = |guest: &String| self.hypervisor.count(Call::Destroy, guest);
        self.guests.iter().map(|ring| ring.iter().map(destroys).collect()).collect()
    }
}

/// Rules 1 and 3, shoot-out: of two that fence each other one survives, and is told that it has fenced the other. Fifty
/// times.
#[test]
fn of_two_guests_that_fence_each_other_exactly_one_survives() {
    for _ in 0..2 {
        for pair in Rings::new(25, 2).shoot(OFF) {
            assert!(matches!(pair[..], [0, 1] | [1, 0]), "{pair:?}");
        }
    }
}

/// Rules 2 and 3, shoot-out: where they reboot each other, one is rebooted, and what it had asked for is not carried out
/// when it is back. Fifty times.
#[test]
fn of_two_guests_that_reboot_each_other_exactly_one_is_rebooted() {
    for _ in 0..2 {
        for pair in Rings::new(25, 2).shoot(REBOOT) {
            assert!(matches!(pair[..], [0, 1] | [1, 0]), "{pair:?}");
        }
    }
}

/// Shoot-out: of three in a ring somebody is fenced and somebody survives. Thirty times.
#[test]
fn of_three_guests_in_a_ring_at_least_one_is_fenced_and_at_least_one_survives() {
    for ring in Rings::new(30, 3).shoot(OFF) {
        assert!(ring.iter().all(|destroys| *destroys <= 1), "{ring:?}");
        assert!(matches!(ring.iter().sum(), 1 | 2), "{ring:?}");
    }
}

/// Shoot-out, the answers: who is being fenced is refused, and who fences is told when that is done.
#[test]
fn who_is_being_fenced_is_refused_while_that_lasts() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2", "vm3"]);
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    let bed = BridgeBed::start(&hypervisor);
    let [mut vm1, mut vm2] = ["vm1", "vm2"].map(|guest| bed.channel(guest));
    vm1.send(&frame(OFF, "vm2"));
    gate.wait_for(1, DEADLINE);
    for target in ["vm1", "vm3"] {
        assert_eq!(vm2.ask(&frame(OFF, target), DEADLINE), FAILED, "{target}");
    }
    gate.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    for target in ["vm1", "vm3"] {
        assert_eq!(hypervisor.done_to(target), [], "{target}");
    }
}
