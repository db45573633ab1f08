//! Rule 4: no guest can stop another guest's fencing, by whatever it sends or does not read, or by asking for work that
//! hangs.
//!
//! In each test one or more guests do their worst while `vm1` fences `target`, ten times over. The bound is loose, since
//! the machine may be busy with other things; the times that were measured are printed (`--nocapture`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fencewire_tests::bridge_bed::{BridgeBed, Setup};
use fencewire_tests::guest_channel::{
    FAILED, GuestChannel, HOST_LIST_FOLLOWS, LIST, MONITOR, OFF, ON, REPLY_LENGTH, STATUS, SUCCESS, reply,
};
use fencewire_tests::libvirt_file::uuid_of;
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::scripted::{Call, Gate, ScriptedHypervisor};
use fencewired::power::hypervisor::State;

use crate::common::{IMPATIENT, ask, frame};

/// A fence that is not hindered takes milliseconds; one that waits behind a hung call takes that call's deadline, 20 s.
const UNHINDERED: Duration = Duration::from_secs(5);

/// A hypervisor with these guests, `vm1` and `target`.
fn with(names: &[&str]) -> ScriptedHypervisor {
    ScriptedHypervisor::with(names.iter().copied().chain(["vm1", "target"]))
}

/// For a bed that serves all of them, with a budget that is never used up.
fn setup(hypervisor: &ScriptedHypervisor) -> Setup {
    let names = hypervisor.names();
    let members: Vec<&str> = names.iter().map(String::as_str).collect();
    BridgeBed::setup(hypervisor).group("all", &members, "budget_per_minute = 100000")
}

/// Fences `target` ten times and says how long the slowest took.
#[track_caller]
fn fence_ten_times(what: &str, hypervisor: &ScriptedHypervisor, vm1: &mut GuestChannel) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        hypervisor.change("target", |guest| guest.state = State::Running);
        let asked = Instant::now();
        assert_eq!(ask(vm1, OFF, "target"), SUCCESS, "{what}");
        slowest = slowest.max(asked.elapsed());
    }
    println!("{what}: the slowest of ten fences took {slowest:?}");
    assert!(slowest < UNHINDERED, "{what}: {slowest:?}");
    assert_eq!(hypervisor.count(Call::Destroy, "target"), 10);
    slowest
}

/// Fences `target` while `hostile` goes on, on a channel of its own, until it is told to stop.
#[track_caller]
fn fence_beside(what: &str, hypervisor: &ScriptedHypervisor, mut hostile: impl FnMut(&mut GuestChannel) + Send) {
    let bed = setup(hypervisor).channels(["hostile", "vm1"]).start();
    let [mut channel, mut vm1] = ["hostile", "vm1"].map(|guest| bed.channel(guest));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                hostile(&mut channel);
            }
        });
        let fenced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            fence_ten_times(what, hypervisor, &mut vm1);
        }));
        over.store(true, Ordering::Relaxed);
        // Or one that blocks in a write would do so for ever.
        hypervisor.release();
        fenced.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Sends what the bridge takes of that at once, and reads nothing.
fn pour(channel: &mut GuestChannel, bytes: &[u8]) {
    channel.stream().set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let _taken = std::io::Write::write(&mut channel.stream(), bytes);
}

/// Rule 4, garbage: a guest that sends megabytes of it as fast as they are taken.
#[test]
fn a_guest_that_sends_megabytes_of_noise_delays_nobody() {
    let hypervisor = with(&["hostile"]);
    let noise: Vec<u8> = (0..1_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fence_beside("a megabyte of noise, again and again", &hypervisor, |channel| pour(channel, &noise));
}

/// Rule 4, flooding: a guest that asks as fast as it can and reads no answer.
#[test]
fn a_guest_that_floods_with_questions_and_reads_no_answer_delays_nobody() {
    let hypervisor = with(&["hostile"]);
    fence_beside("a flood of questions", &hypervisor, |channel| {
        let questions: Vec<u8> = (0..100).flat_map(|_| frame(STATUS, "vm1")).collect();
        pour(channel, &questions);
    });
}

/// Rule 4, flooding: a guest that has its own requests for power refused as fast as it can.
#[test]
fn a_guest_that_floods_with_fences_delays_nobody() {
    let hypervisor = with(&["hostile", "other"]);
    fence_beside("a flood of fences", &hypervisor, |channel| {
        let fences: Vec<u8> = (0..100).flat_map(|_| frame(OFF, "other")).collect();
        pour(channel, &fences);
    });
}

/// Rule 4, dribbling: a guest that sends a byte of a frame now and then.
#[test]
fn a_guest_that_dribbles_delays_nobody() {
    let hypervisor = with(&["hostile"]);
    fence_beside("a byte every millisecond", &hypervisor, |channel| {
        channel.dribble(&frame(OFF, "vm1")[..73], Duration::from_millis(1));
    });
}

/// Rule 4, coming and going: a guest whose channel ends as soon as it was opened.
#[test]
fn a_guest_that_hangs_up_again_and_again_delays_nobody() {
    let hypervisor = with(&["hostile"]);
    fence_beside("hanging up again and again", &hypervisor, |channel| {
        channel.close();
        channel.accept_within(Duration::from_millis(100));
    });
}

/// Rule 4, not reading: a guest that asks for a list that no buffer holds, and reads none of it.
#[test]
fn a_guest_that_does_not_read_a_long_list_delays_nobody() {
    let hypervisor = with(&["hostile"]);
    let names: Vec<String> = (0..1_000).map(|number| format!("listed-{number}")).collect();
    for name in &names {
        hypervisor.add(name, &uuid_of(name));
    }
    let bed = setup(&hypervisor).channels(["hostile", "vm1"]).start();
    let [mut hostile, mut vm1] = ["hostile", "vm1"].map(|guest| bed.channel(guest));
    hostile.send(&frame(LIST, ""));
    assert_eq!(reply(&hostile.read(REPLY_LENGTH, DEADLINE)), HOST_LIST_FOLLOWS);
    fence_ten_times("a list of a thousand guests that nobody reads", &hypervisor, &mut vm1);
    assert_eq!(ask(&mut vm1, MONITOR, ""), SUCCESS);
}

/// Rule 4, silencing: a guest that has others switched on although they are on does not make the bridge deaf to them.
#[test]
fn a_guest_that_switches_another_on_again_and_again_does_not_silence_it() {
    let hypervisor = with(&["hostile"]);
    fence_beside("being switched on again and again", &hypervisor, |channel| {
        // More than a thousand in a minute are refused anyway.
        assert_eq!(ask(channel, ON, "vm1"), SUCCESS);
        thread::sleep(Duration::from_millis(5));
    });
    assert_eq!(hypervisor.done_to("vm1"), []);
}

/// Rule 4, hanging: a guest whose targets the hypervisor hangs on, as many as may run for one guest.
#[test]
fn a_guest_whose_four_targets_hang_delays_nobody() {
    let hangs = ["hang0", "hang1", "hang2", "hang3"];
    let hypervisor = with(&[&["hostile"], &hangs[..]].concat());
    let gates = hangs.map(|target| hypervisor.hold(Call::Destroy, target));
    let bed = setup(&hypervisor).channels(["hostile", "hostile", "hostile", "hostile", "vm1"]).start();
    let mut channels = ["hostile", "hostile+", "hostile++", "hostile+++"].map(|channel| bed.channel(channel));
    let mut vm1 = bed.channel("vm1");
    for ((channel, target), gate) in channels.iter_mut().zip(hangs).zip(&gates) {
        channel.send(&frame(OFF, target));
        gate.wait_for(1, DEADLINE);
    }
    fence_ten_times("four destroys that hang", &hypervisor, &mut vm1);
}

/// Rule 4, hanging: questions that hang do not hold up fences, and not for long other questions.
#[test]
fn a_guest_whose_questions_hang_delays_nobody() {
    let hypervisor = with(&["hostile", "hang"]);
    let gate = hypervisor.hold(Call::State, "hang");
    let bed = setup(&hypervisor).channels(["hostile", "hostile", "hostile", "vm1"]).start();
    let mut channels = ["hostile", "hostile+", "hostile++"].map(|channel| bed.channel(channel));
    let mut vm1 = bed.channel("vm1");
    for channel in &mut channels {
        channel.send(&frame(STATUS, "hang"));
    }
    gate.wait_for(2, DEADLINE);
    fence_ten_times("three questions that hang", &hypervisor, &mut vm1);
    let asked = Instant::now();
    assert_eq!(ask(&mut vm1, STATUS, "vm1"), SUCCESS);
    println!("three questions that hang: another question took {:?}", asked.elapsed());
    assert!(asked.elapsed() < UNHINDERED);
}

/// Rule 4, hanging: nor does a guest that asks for names which the hypervisor has to be asked for, while that hangs.
#[test]
fn a_guest_that_asks_for_unknown_names_delays_nobody() {
    let hypervisor = with(&["hostile"]);
    let bed = setup(&hypervisor).channels(["hostile", "vm1"]).start();
    let [mut hostile, mut vm1] = ["hostile", "vm1"].map(|guest| bed.channel(guest));
    let gate = hypervisor.hold_all(Call::Guests);
    hostile.send(&frame(OFF, "nobody"));
    gate.wait_for(1, DEADLINE);
    fence_ten_times("a list of guests that hangs", &hypervisor, &mut vm1);
}

/// Rule 4, hanging: a list of guests that never comes does not keep new guests unknown for ever.
#[test]
fn a_list_of_guests_that_never_comes_is_asked_for_again() {
    let hypervisor = with(&[]);
    let setup = BridgeBed::setup(&hypervisor).group("one comes later", &["vm1", "target", "late"], "");
    let bed = setup.hypervisor(IMPATIENT).channels(["vm1"]).start();
    let mut vm1 = bed.channel("vm1");
    let gate = hypervisor.hold_next(Call::Guests);
    vm1.send(&frame(OFF, "late"));
    gate.wait_for(1, DEADLINE);
    hypervisor.add("late", &uuid_of("late"));
    let answer = reply(&vm1.read(REPLY_LENGTH, DEADLINE));
    assert!(matches!(answer, SUCCESS | FAILED), "{answer}");
    wait_until(DEADLINE, "it to be asked again", || (ask(&mut vm1, OFF, "late") == SUCCESS).then_some(()));
}

/// Rule 4, a request too many: what one guest may not have at once is refused it, and taken from nobody else.
#[test]
fn a_guest_that_asks_for_more_than_it_may_have_at_once_is_refused_and_nobody_else() {
    let hangs = ["hang0", "hang1", "hang2", "hang3", "hang4", "hang5"];
    let hypervisor = with(&[&["hostile"], &hangs[..]].concat());
    let gates = hangs.map(|target| hypervisor.hold(Call::Destroy, target));
    let bed = setup(&hypervisor).channels(std::iter::repeat_n("hostile", hangs.len()).chain(["vm1"])).start();
    let names = (0..hangs.len()).map(|number| "hostile".to_owned() + &"+".repeat(number));
    let mut channels: Vec<_> = names.map(|name| bed.channel(&name)).collect();
    let mut vm1 = bed.channel("vm1");
    for (channel, target) in channels.iter_mut().zip(hangs) {
        channel.send(&frame(OFF, target));
        assert_eq!(ask(&mut vm1, STATUS, "hostile"), SUCCESS, "by now the bridge has read it");
    }
    assert_eq!(reply(&channels[5].read(REPLY_LENGTH, DEADLINE)), FAILED, "four run and one waits");
    for (number, gate) in gates.iter().enumerate().take(4) {
        gate.wait_for(1, DEADLINE);
        assert_eq!(hypervisor.count(Call::Destroy, hangs[number]), 1);
    }
    assert_eq!(hypervisor.count(Call::Destroy, hangs[4]), 0, "it waits");
    fence_ten_times("four destroys that hang, one that waits", &hypervisor, &mut vm1);
}

/// Rule 4, a place in the queue: a guest that waits for a target, and may not begin, keeps nobody behind it waiting.
#[test]
fn a_guest_that_waits_for_the_end_of_its_hung_fences_holds_no_place_in_the_queue() {
    let hangs = ["hang0", "hang1", "hang2", "hang3"];
    let hypervisor = with(&[&["hostile", "other"], &hangs[..]].concat());
    let gates = hangs.map(|target| hypervisor.hold(Call::Destroy, target));
    hypervisor.change("target", |guest| guest.state = State::Off);
    let start = hypervisor.hold(Call::Start, "target");
    let bed = setup(&hypervisor).channels(std::iter::repeat_n("hostile", 5).chain(["vm1", "vm1", "other"])).start();
    let [mut vm1, mut other] = ["vm1", "other"].map(|guest| bed.channel(guest));
    let mut channels: Vec<_> =
        (0..5).map(|number| bed.channel(&("hostile".to_owned() + &"+".repeat(number)))).collect();
    for ((channel, target), gate) in channels.iter_mut().zip(hangs).zip(&gates) {
        channel.send(&frame(OFF, target));
        gate.wait_for(1, DEADLINE);
    }
    other.send(&frame(ON, "target"));
    start.wait_for(1, DEADLINE);
    for channel in [&mut channels[4], &mut vm1] {
        channel.send(&frame(OFF, "target"));
    }
    // Both wait in the queue once something that was sent later is answered.
    let [mut witness] = [bed.channel("vm1+")];
    assert_eq!(ask(&mut witness, STATUS, "hostile"), SUCCESS);
    let asked = Instant::now();
    start.open();
    assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
    println!("behind a guest that may not begin: the fence took {:?}", asked.elapsed());
    assert!(asked.elapsed() < UNHINDERED);
    assert_eq!(hypervisor.done_to("target"), [Call::Start, Call::Destroy]);
}

/// Rule 4, joining: a fence that fails for a reason of its asker's own is done all the same for whoever joined it.
#[test]
fn a_fence_that_fails_for_its_askers_sake_does_not_fail_whoever_joined_it() {
    // The asker is off; it asks by a name that the target has lost; its time is up before the hypervisor answers.
    let asker_is_off = |hypervisor: &ScriptedHypervisor| {
        hypervisor.change("hostile", |guest| guest.state = State::Off);
        hypervisor.hold(Call::State, "hostile")
    };
    let renamed = |hypervisor: &ScriptedHypervisor| {
        hypervisor.change("target", |guest| guest.name = "renamed".to_owned());
        hypervisor.hold(Call::Look, "renamed")
    };
    let scripts: [&dyn Fn(&ScriptedHypervisor) -> Gate; 2] = [&asker_is_off, &renamed];
    for script in scripts {
        let hypervisor = with(&["hostile"]);
        let bed = setup(&hypervisor).channels(["hostile", "vm1", "vm1"]).start();
        let [mut hostile, mut vm1, mut witness] = ["hostile", "vm1", "vm1+"].map(|channel| bed.channel(channel));
        let gate = script(&hypervisor);
        hostile.send(&frame(OFF, "target"));
        gate.wait_for(1, DEADLINE);
        vm1.send(&frame(OFF, &uuid_of("target")));
        assert_eq!(ask(&mut witness, STATUS, "vm1"), SUCCESS, "by now the bridge has read both");
        gate.open();
        assert_eq!(reply(&hostile.read(REPLY_LENGTH, DEADLINE)), FAILED);
        assert_eq!(reply(&vm1.read(REPLY_LENGTH, DEADLINE)), SUCCESS);
        assert_eq!(hypervisor.count_all(Call::Destroy), 1);
    }
}

/// Rule 4, its limit: forty destroys that hang, by ten guests, are more threads than there are. Then a fence is answered
/// "failed" in time, and nothing is done for it later; as soon as the hypervisor goes on, so does everything.
#[test]
fn forty_destroys_that_hang_leave_an_answer_in_time_and_nothing_for_later() {
    const GUESTS: usize = 10;
    const EACH: usize = 4;
    const THREADS: usize = fencewired::power::workers::THREADS_MAX;
    let name = |guest: usize| format!("hostile{guest}");
    let target = |guest: usize, number: usize| format!("hang{guest}-{number}");
    let names: Vec<String> =
        (0..GUESTS).flat_map(|guest| (0..EACH).map(move |number| target(guest, number)).chain([name(guest)])).collect();
    let hypervisor = with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let gate = hypervisor.hold_all(Call::Destroy);
    let channels: Vec<String> = (0..GUESTS).flat_map(|guest| std::iter::repeat_n(name(guest), EACH)).collect();
    let setup = setup(&hypervisor).hypervisor("workers = 16\ndeadline_ms = 4000");
    let bed = setup.channels(channels.iter().map(String::as_str).chain(["vm1"])).start();
    let mut hostile = Vec::new();
    for guest in 0..GUESTS {
        for number in 0..EACH {
            let mut channel = bed.channel(&(name(guest) + &"+".repeat(number)));
            let off = frame(OFF, &target(guest, number));
            channel.send(&off);
            hostile.push((channel, off));
        }
    }
    let mut vm1 = bed.channel("vm1");
    gate.wait_for(THREADS, DEADLINE);
    let off = frame(OFF, "target");
    let asked = Instant::now();
    assert_eq!(vm1.ask(&off, DEADLINE), FAILED);
    println!("forty destroys that hang: another fence was answered \"failed\" after {:?}", asked.elapsed());
    assert_eq!(ask(&mut vm1, STATUS, "target"), SUCCESS, "questions are answered all the while");
    gate.open();
    assert_eq!(vm1.ask(&off, DEADLINE), FAILED, "that request is over");
    fence_ten_times("after forty destroys that hung", &hypervisor, &mut vm1);
    for (channel, off) in &mut hostile {
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), FAILED, "it hung");
        let answer = channel.ask(off, DEADLINE);
        assert!(matches!(answer, SUCCESS | FAILED), "{answer}");
    }
    let destroyed = (0..GUESTS).flat_map(|guest| (0..EACH).map(move |number| target(guest, number)));
    let destroyed = destroyed.filter(|target| hypervisor.count(Call::Destroy, target) > 0).count();
    assert_eq!(destroyed, THREADS, "those that had a thread happened; the others never will");
}
