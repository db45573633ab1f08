//! What must survive a connection, a session and a bridge, and what is about one run of a guest: the core's own client, and
//! the second one, before a bridge in this process on the programmable hypervisor.

use std::convert::identity;
use std::fs::File;
use std::io::Read as _;
use std::thread;
use std::time::{Duration, Instant};

use fencewire_core::native::keys::Keys;
use fencewire_core::{Ask, Client, Endpoint as _, Entropy, Failure, Incarnation, Millis, PowerAction, Reply, Speak};
use fencewire_core::{GuestName, Target};
use fencewire_tests::bridge_bed::BridgeBed;
use fencewire_tests::guest_channel::GuestChannel;
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::scripted::{Call, ScriptedHypervisor};
use fencewired::power::hypervisor::State;

use crate::second::ask_over;

const KEYLESS: &str = "classic = true\nkeyless = true";
const STRANGER: Incarnation = Incarnation::from_bytes([0x5a; 16]);

/// One request by the core's client.
struct Asking {
    client: Client,
    since: Instant,
}

impl Asking {
    /// Of vm2, with that id.
    fn new(action: PowerAction, id: u64, guard: Option<Incarnation>) -> Self {
        let target = Target::Name(GuestName::parse(b"vm2").expect("a name"));
        let (keys, deadline) = (Keys::keyless(), Millis(DEADLINE.as_millis() as u64));
        let speak = Speak::Native { keys: &keys, id, guard };
        let client = Client::new(speak, &Ask::Power(action, target), deadline).expect("it can be said");
        Self { client, since: Instant::now() }
    }

    fn now(&self) -> Millis {
        Millis(self.since.elapsed().as_millis() as u64)
    }

    /// On a connection on which it has not spoken yet.
    fn opened(mut self) -> Self {
        let mut entropy = Entropy([0; fencewire_core::words::ENTROPY_LEN]);
        File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut entropy.0)).expect("random bytes");
        let now = self.now();
        self.client.opened(&entropy, now);
        self
    }

    /// Sends what is to be sent, and takes what has come.
    #[track_caller]
    fn step(&mut self, channel: &mut GuestChannel) -> Option<Reply> {
        let now = self.now();
        if self.client.wake_at().is_some_and(|at| at <= now) {
            self.client.wake(now);
        }
        let bytes = self.client.transmit().to_vec();
        if !bytes.is_empty() {
            channel.send(&bytes);
            self.client.sent(bytes.len(), now);
        }
        let bytes = channel.read_up_to(1 << 10, Duration::from_millis(2));
        let mut rest = &bytes[..];
        loop {
            if let Some(reply) = self.client.poll() {
                return Some(reply);
            }
            if rest.is_empty() {
                return None;
            }
            let now = self.now();
            let taken = self.client.receive(rest, now);
            rest = &rest[taken..];
        }
    }

    #[track_caller]
    fn reply(&mut self, channel: &mut GuestChannel) -> Reply {
        wait_until(2 * DEADLINE, "a reply", || self.step(channel))
    }
}

#[track_caller]
fn ask(channel: &mut GuestChannel, action: PowerAction, id: u64, guard: Option<Incarnation>) -> Reply {
    Asking::new(action, id, guard).opened().reply(channel)
}

fn two() -> ScriptedHypervisor {
    ScriptedHypervisor::with(["vm1", "vm2"])
}

#[track_caller]
fn bed(hypervisor: &ScriptedHypervisor) -> (BridgeBed, GuestChannel) {
    let bed = BridgeBed::setup(hypervisor).wire(KEYLESS).channels(["vm1"]).start();
    hypervisor.wait_marked();
    let channel = bed.channel("vm1");
    (bed, channel)
}

fn run_of(hypervisor: &ScriptedHypervisor) -> Incarnation {
    hypervisor.guest("vm2").and_then(|guest| guest.incarnation()).expect("a marked guest")
}

/// Rule 3: whoever asks again with the id of a fence that hangs waits for that one.
#[test]
fn a_fence_outlives_the_connection_that_it_came_by() {
    let hypervisor = two();
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    let (_bed, mut vm1) = bed(&hypervisor);
    let mut first = Asking::new(PowerAction::Off, 7, None).opened();
    wait_until(DEADLINE, "the destroy", || {
        assert_eq!(first.step(&mut vm1), None);
        (hypervisor.count(Call::Destroy, "vm2") == 1).then_some(())
    });
    vm1.close();
    vm1.accept(DEADLINE);
    let mut second = Asking::new(PowerAction::Off, 7, None).opened();
    // Long enough for a handshake and the question.
    let until = Instant::now() + Duration::from_millis(700);
    while Instant::now() < until {
        assert_eq!(second.step(&mut vm1), None, "nothing is confirmed yet");
    }
    gate.open();
    assert_eq!(second.reply(&mut vm1), Reply::Done);
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// Who waits is told each second that somebody works on it, and begins no new session.
#[test]
fn who_waits_hears_that_it_is_worked_on() {
    let hypervisor = two();
    let gate = hypervisor.hold(Call::Destroy, "vm2");
    let (_bed, mut vm1) = bed(&hypervisor);
    let opener = thread::spawn(move || {
        gate.wait_for(1, DEADLINE);
        // The client would begin anew after 3 s.
        thread::sleep(Duration::from_millis(3_500));
        gate.open();
    });
    let (said, _) = ask_over(&mut vm1, None, &["off", "vm2"], identity);
    opener.join().expect("it ends");
    said.is_done("off", false);
    let counts = ["sessions", "accepted"].map(|field| said.outcome[field].as_u64());
    assert_eq!(counts, [Some(1), Some(1)], "{said:?}");
    assert!(said.outcome["working"].as_u64() >= Some(3), "{said:?}");
}

/// Rule 3, over a bridge that ended in order.
#[test]
fn the_next_bridge_knows_what_was_asked() {
    let hypervisor = two();
    let (mut bed, mut vm1) = bed(&hypervisor);
    assert_eq!(ask(&mut vm1, PowerAction::Reboot, 7, None), Reply::Done);
    bed.restart([&mut vm1]);
    assert_eq!(ask(&mut vm1, PowerAction::Reboot, 7, None), Reply::Done);
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy, Call::Start]);
    assert_eq!(ask(&mut vm1, PowerAction::Off, 7, None), Reply::NotDone(Failure::Busy), "another request of that id");
    assert_eq!(ask(&mut vm1, PowerAction::Reboot, 8, None), Reply::Done, "and the same of another id is another");
    assert_eq!(hypervisor.count(Call::Destroy, "vm2"), 2);
}

/// Rule 3, killed in the destroy: what the next bridge finds decides.
#[test]
fn a_bridge_that_is_killed_in_a_fence_is_gone_on_for() {
    let hypervisor = two();
    let _gate = hypervisor.hold(Call::Destroy, "vm2");
    let (killed, mut vm1) = bed(&hypervisor);
    let mut first = Asking::new(PowerAction::Off, 7, None).opened();
    wait_until(DEADLINE, "the destroy", || {
        assert_eq!(first.step(&mut vm1), None);
        (hypervisor.count(Call::Destroy, "vm2") == 1).then_some(())
    });
    let run = run_of(&hypervisor);
    let replaced = Reply::NotDone(Failure::Replaced);
    for (found, state, reply, done) in [
        (Some(run), State::Running, Reply::Done, vec![Call::Destroy]),
        (Some(STRANGER), State::Running, replaced, vec![]),
        (None, State::Off, Reply::Done, vec![]),
    ] {
        let next = two();
        next.change("vm2", |guest| {
            guest.state = state;
            if let Some(found) = found {
                guest.mark(found).expect("it runs");
            }
        });
        let journal = killed.journal_now();
        let setup = BridgeBed::setup(&next).wire(KEYLESS).channels(["vm1"]).journal(journal.path());
        let bed = setup.start();
        let mut vm1 = bed.channel("vm1");
        assert_eq!(ask(&mut vm1, PowerAction::Off, 7, None), reply, "{found:?}");
        assert_eq!(ask(&mut vm1, PowerAction::Off, 7, None), reply, "{found:?}, and once more");
        assert_eq!(next.done_to("vm2"), done, "{found:?}");
    }
}

#[test]
fn a_request_that_means_one_run_touches_no_other() {
    let hypervisor = two();
    let (_bed, mut vm1) = bed(&hypervisor);
    let run = run_of(&hypervisor);
    for action in [PowerAction::Off, PowerAction::Reboot] {
        assert_eq!(ask(&mut vm1, action, action as u64, Some(STRANGER)), Reply::NotDone(Failure::Replaced));
    }
    let guarded = |run: Incarnation, action| ["--incarnation".to_owned(), run.to_string(), action, "vm2".to_owned()];
    for action in ["off", "reboot"] {
        let arguments = guarded(STRANGER, action.to_owned());
        let (said, _) = ask_over(&mut vm1, None, &arguments.each_ref().map(String::as_str), identity);
        assert_eq!((said.text("said"), said.text("result"), said.text("reason")), ("done", "failed", "replaced"));
        assert_eq!(said.code, Some(1));
    }
    assert_eq!(hypervisor.done_to("vm2"), []);
    assert_eq!(ask(&mut vm1, PowerAction::Reboot, 11, Some(run)), Reply::Done);
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy, Call::Start]);
    hypervisor.wait_marked();
    let (now, old) = (run_of(&hypervisor), run);
    assert_ne!(now, old, "another run");
    assert_eq!(ask(&mut vm1, PowerAction::Off, 12, Some(old)), Reply::NotDone(Failure::Replaced));
    let arguments = guarded(now, "off".to_owned());
    ask_over(&mut vm1, None, &arguments.each_ref().map(String::as_str), identity).0.is_done("off", false);
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy, Call::Start, Call::Destroy]);
}
