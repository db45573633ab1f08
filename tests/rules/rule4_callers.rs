//! Rule 4 on TCP ports: nobody who calls one stops another's fencing, whether it holds the key or not.
//!
//! In each test somebody at one address does its worst while `target` is fenced ten times over, by a guest over its own
//! channel and by a holder of the key at another address. The bound is loose, since the machine may be busy with other
//! things; the times that were measured are printed (`--nocapture`).

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fencewire_core::classic::key::TAG_LEN;
use fencewire_core::classic::packet::REQUEST_LEN;
use fencewire_tests::bridge_bed::BridgeBed;
use fencewire_tests::caller::{CHALLENGE, Caller};
use fencewire_tests::guest_channel::{FAILED, GuestChannel, OFF, STATUS, SUCCESS};
use fencewire_tests::process::{DEADLINE, raise_file_limit};
use fencewire_tests::scripted::{Call, ScriptedHypervisor};
use fencewire_tests::tcp_channel::TcpChannel;
use fencewired::power::hypervisor::State;

use crate::common::ask;

/// A fence that is not hindered takes milliseconds; one that waits behind a hung call takes that call's deadline, 20 s.
const UNHINDERED: Duration = Duration::from_secs(5);

/// Where somebody does its worst.
const HOSTILE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// More than are served at a time.
const MANY: usize = 300;

/// What all of this is about.
struct Bed {
    hypervisor: ScriptedHypervisor,
    bridge: BridgeBed,
    vm1: GuestChannel,
    tcp: TcpChannel,
}

impl Bed {
    /// With further guests of these names.
    #[track_caller]
    fn start(names: &[&str]) -> Self {
        raise_file_limit();
        let names = [&["vm1", "target"], names].concat();
        let hypervisor = ScriptedHypervisor::with(names.iter().copied());
        let setup = BridgeBed::setup(&hypervisor).group("all", &names, "budget_per_minute = 100000");
        let bridge = setup.channels(["vm1"]).tcp("all", "").start();
        hypervisor.wait_marked();
        let (vm1, tcp) = (bridge.channel("vm1"), bridge.tcp(0));
        Self { hypervisor, bridge, vm1, tcp }
    }

    /// Calls as somebody hostile.
    #[track_caller]
    fn hostile(&self) -> Caller {
        self.tcp.call_from(HOSTILE)
    }

    /// Fences `target` ten times, and says what the slowest took.
    #[track_caller]
    fn fence_ten_times(&mut self, what: &str) {
        let mut slowest = Duration::ZERO;
        for time in 0..10 {
            self.hypervisor.change("target", |guest| guest.state = State::Running);
            let asked = Instant::now();
            let code = if time % 2 == 0 { ask(&mut self.vm1, OFF, "target") } else { self.tcp.ask(OFF, "target") };
            assert_eq!(code, SUCCESS, "{what}");
            slowest = slowest.max(asked.elapsed());
        }
        println!("{what}: the slowest of ten fences took {slowest:?}");
        assert!(slowest < UNHINDERED, "{what}: {slowest:?}");
        assert_eq!(self.hypervisor.count(Call::Destroy, "target"), 10);
    }

    /// The same while `hostile` goes on, again and again.
    #[track_caller]
    fn fence_beside(&mut self, what: &str, hostile: impl Fn(&TcpChannel) + Sync) {
        let (over, tcp) = (AtomicBool::new(false), self.tcp.clone());
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    hostile(&tcp);
                }
            });
            let fenced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.fence_ten_times(what)));
            over.store(true, Ordering::Relaxed);
            fenced.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }
}

/// Rule 4, silence: callers that stop in each step, more of them than are served at a time.
#[test]
fn callers_that_stop_in_each_step_delay_nobody() {
    for length in [0, 1, REQUEST_LEN - 1, REQUEST_LEN, REQUEST_LEN + TAG_LEN, REQUEST_LEN + 2 * TAG_LEN - 1] {
        let mut bed = Bed::start(&[]);
        let callers: Vec<Caller> = (0..MANY)
            .map(|_| {
                let mut caller = bed.hostile();
                let said = [&bed.tcp.terms.packet(OFF, "vm1")[..], &CHALLENGE].concat();
                caller.send(&said[..length.min(said.len())]);
                if length >= said.len() {
                    let challenge = caller.hear_challenge();
                    caller.send(&bed.tcp.terms.proof(&challenge)[..length - said.len()]);
                }
                caller
            })
            .collect();
        bed.fence_ten_times(&format!("{} callers that stop after {length} bytes", callers.len()));
        assert_eq!(bed.hypervisor.done_to("vm1"), []);
    }
}

/// Rule 4, flooding: callers that come and go as fast as they can.
#[test]
fn callers_that_come_and_go_delay_nobody() {
    let mut bed = Bed::start(&[]);
    // They reset the connection: the system keeps the port of one that was closed for a minute, and would run out of them.
    bed.fence_beside("callers that come and go", |tcp| {
        Caller::try_connect(HOSTILE, tcp.address(), &tcp.terms).into_iter().for_each(Caller::reset);
    });
}

/// Rule 4, flooding: callers that come as fast as they can, and stay.
#[test]
fn callers_that_come_and_stay_delay_nobody() {
    let mut bed = Bed::start(&[]);
    bed.fence_beside("callers that come and stay", |tcp| {
        let callers: Vec<_> = (0..500).map(|_| Caller::try_connect(HOSTILE, tcp.address(), &tcp.terms)).collect();
        callers.into_iter().flatten().for_each(Caller::reset);
    });
}

/// Rule 4, garbage: callers that send megabytes of it.
#[test]
fn callers_that_send_megabytes_of_noise_delay_nobody() {
    let mut bed = Bed::start(&[]);
    let noise: Vec<u8> = (0..1_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    bed.fence_beside("callers that send megabytes of noise", |tcp| {
        if let Ok(mut caller) = Caller::try_connect(HOSTILE, tcp.address(), &tcp.terms) {
            let _ = caller.try_send(&noise);
        }
    });
}

/// Rule 4, a place: who takes its time over each step keeps its place while others come, in any number, from elsewhere.
#[test]
fn callers_push_out_nobody_who_calls_from_elsewhere() {
    let bed = Bed::start(&[]);
    let mut hostile = Vec::new();
    let mut crowd = || hostile.extend((0..MANY).map(|_| bed.hostile()));
    let off = bed.tcp.terms.packet(OFF, "target");

    crowd();
    let mut slow = bed.tcp.call();
    crowd();
    slow.send(&off[..100]);
    crowd();
    slow.send(&off[100..]);
    crowd();
    slow.send(&CHALLENGE);
    let challenge = slow.hear_challenge();
    crowd();
    let gate = bed.hypervisor.hold(Call::Destroy, "target");
    slow.send(&bed.tcp.terms.proof(&challenge));
    gate.wait_for(1, DEADLINE);
    crowd();
    gate.open();

    assert_eq!(slow.reply(), SUCCESS);
}

/// Rule 4, hanging: a holder of the key whose questions the hypervisor hangs on, more of them than are served at a time.
#[test]
fn callers_whose_questions_hang_delay_nobody() {
    let mut bed = Bed::start(&["hang"]);
    let gate = bed.hypervisor.hold(Call::State, "hang");
    let mut hostile = Vec::new();
    for _ in 0..MANY {
        let mut caller = bed.hostile();
        caller.prove(&bed.tcp.terms.packet(STATUS, "hang"));
        hostile.push(caller);
    }
    gate.wait_for(1, DEADLINE);
    bed.fence_ten_times("questions that hang");
}

/// Rule 4, hanging: a holder of the key whose targets the hypervisor hangs on. Four run, one waits; others are refused.
#[test]
fn callers_whose_targets_hang_delay_nobody() {
    let hangs = ["hang0", "hang1", "hang2", "hang3", "hang4", "hang5"];
    let mut bed = Bed::start(&hangs);
    let gates = hangs.map(|target| bed.hypervisor.hold(Call::Destroy, target));
    let mut hostile = Vec::new();
    for target in hangs {
        let mut caller = bed.hostile();
        caller.prove(&bed.tcp.terms.packet(OFF, target));
        assert_eq!(bed.tcp.ask(STATUS, "vm1"), SUCCESS, "by now the bridge has read it");
        hostile.push(caller);
    }
    for gate in &gates[..4] {
        gate.wait_for(1, DEADLINE);
    }
    assert_eq!(hostile[5].reply(), FAILED, "four run and one waits");
    bed.fence_ten_times("four destroys that hang, one that waits");
    for target in &hangs[4..] {
        assert_eq!(bed.hypervisor.count(Call::Destroy, target), 0);
    }
    gates.iter().for_each(fencewire_tests::scripted::Gate::open);
    for caller in &mut hostile[..5] {
        assert_eq!(caller.reply(), SUCCESS, "they have hung, and happened");
    }
    bed.bridge.stop();
}
