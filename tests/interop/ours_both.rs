//! Our agent against our bridge, over every kind of channel that both have.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fencewire_tests::daemon::{Daemon, Setup, acts, ask};
use fencewire_tests::fence_virt::FenceVirt;
use fencewire_tests::guest_channel::{GuestChannel, IS_OFF, OFF, REPLY_LENGTH, REQUEST_LENGTH, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::{Guest, State, uuid_of};
use fencewire_tests::process::{DEADLINE, Process};

use crate::agent::{agent, agent_told, command, has_failed};
use crate::libvirtd::Libvirtd;

/// What does not have to wait for anything takes no longer, however busy the machine is.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A daemon with a witness, and vm1's channel with our agent at its other end.
struct Pair {
    daemon: Daemon,
    device: PathBuf,
    witness: GuestChannel,
    /// Keeps a terminal open.
    _port: Option<FenceVirt>,
}

impl Pair {
    /// The bridge connects to QEMU's socket, and so does the agent, as it were.
    fn by_a_socket() -> Self {
        let mut daemon = setup().served([Guest::new("vm1")]).start();
        Self { device: daemon.socket_path("vm1"), witness: daemon.channel("witness"), daemon, _port: None }
    }

    /// The agent has a terminal.
    fn by_a_terminal() -> Self {
        let setup = setup().known([Guest::new("vm1")]);
        let port = FenceVirt::new(setup.folder());
        let mut daemon = setup.channel("unix", port.socket_path(), "vm1").start();
        daemon.wait_connected(port.socket_path(), 1);
        Self { device: port.device().to_owned(), witness: daemon.channel("witness"), daemon, _port: Some(port) }
    }

    /// The bridge listens, and the agent calls it.
    fn by_a_call() -> Self {
        let setup = setup().known([Guest::new("vm1")]);
        let device = setup.folder().join("bridge.sock");
        let mut daemon = setup.channel("unix-listen", &device, "vm1").start();
        Self { witness: daemon.channel("witness"), device, daemon, _port: None }
    }
}

/// vm1's channel is added by who uses this.
fn setup() -> Setup {
    let vm3 = Guest::new("vm3").state(State::Shutoff);
    let others = [Guest::new("vm2"), vm3, Guest::new("crashed").state(State::Crashed), Guest::new("stranger")];
    Daemon::setup()
        .known(others)
        .served([Guest::new("witness")])
        .group("cluster", &["vm1", "vm2", "vm3", "crashed", "to-come"], "")
        .group("witnesses", &["witness", "vm2", "stranger"], "")
}

/// Every action, and what the witness sees of vm2 after it.
#[track_caller]
fn does_everything(mut pair: Pair) {
    let uuid = uuid_of("vm2");
    let (on, off, done) = ((0, "Status: ON\n"), (2, "Status: OFF\n"), (0, ""));
    for (arguments, (code, stdout), vm2) in [
        (&["-o", "monitor"][..], done, SUCCESS),
        (&["-o", "status", "-n", "vm2"], on, SUCCESS),
        (&["-o", "status", "-n", "vm3"], off, SUCCESS),
        (&["-o", "off", "-n", "vm2"], done, IS_OFF),
        (&["-o", "status", "-n", "vm2"], off, IS_OFF),
        (&["-o", "on", "-n", "vm2"], done, SUCCESS),
        (&["-o", "reboot", "-n", "vm2"], done, SUCCESS),
        (&["-n", "vm2"], done, SUCCESS),
        (&["-o", "off", "-n", &uuid], done, IS_OFF),
        (&["-o", "status", "-n", &uuid], off, IS_OFF),
        (&["-o", "reboot", "-n", &uuid], done, SUCCESS),
        (&["-o", "validate-all"], done, SUCCESS),
    ] {
        let finished = agent(&pair.device, arguments);
        assert_eq!(
            (finished.code, finished.stdout.as_str()),
            (Some(code), stdout),
            "{arguments:?}: {}",
            finished.stderr
        );
        assert_eq!(finished.stderr, "", "{arguments:?}");
        assert_eq!(ask(&mut pair.witness, STATUS, "vm2"), vm2, "after {arguments:?}");
    }
    let line = |name: &str, power: &str| format!("{name},{}{power}\n", uuid_of(name));
    let list = ["crashed", "vm2", "vm3"].map(|name| line(name, "")).concat();
    let states = [line("crashed", ",on"), line("vm2", ",on"), line("vm3", ",off")].concat();
    for (action, expected) in [("list", list), ("list-status", states)] {
        let finished = agent(&pair.device, &["-o", action]);
        assert_eq!((finished.code, finished.stdout), (Some(0), expected), "{action}: {}", finished.stderr);
    }
    let told = agent_told(&pair.device, "action=off\nplug=vm2\n");
    assert_eq!((told.code, told.stdout.as_str(), told.stderr.as_str()), (Some(0), "", ""));
    assert_eq!(ask(&mut pair.witness, STATUS, "vm2"), IS_OFF, "after the agent was told on standard input");
}

#[test]
fn ours_do_everything_by_a_socket() {
    does_everything(Pair::by_a_socket());
}

#[test]
fn ours_do_everything_by_a_terminal() {
    does_everything(Pair::by_a_terminal());
}

#[test]
fn ours_do_everything_by_a_call() {
    does_everything(Pair::by_a_call());
}

/// Pacemaker takes 0 for done and 1 for not done, and for a status 2 for off. What nobody can tell is never one of the
/// others.
#[test]
fn ours_say_what_was_not_done() {
    let mut pair = Pair::by_a_socket();

    for (arguments, part) in [
        (&["-o", "off", "-n", "stranger"][..], "allow"),
        (&["-o", "status", "-n", "stranger"], "allow"),
        (&["-o", "reboot", "-n", "nobody"], "allow"),
        (&["-o", "status", "-n", "nobody"], "allow"),
        (&["-o", "off", "-n", "vm1"], "allow"),
        (&["-o", "off", "-n", "to-come"], "'to-come'"),
        (&["-o", "status", "-n", "to-come"], "'to-come'"),
        (&["-o", "status", "-n", "crashed"], "'crashed'"),
    ] {
        has_failed(&agent(&pair.device, arguments), part);
    }

    assert_eq!(ask(&mut pair.witness, STATUS, "stranger"), SUCCESS);
    pair.daemon.stop_and_expect_no_act();
}

/// A virtio port cannot be flushed: what fences over it may be from who knows when. The operator has to say so.
#[test]
fn ours_switch_nothing_over_a_virtio_port_unless_that_is_wanted() {
    for wanted in [false, true] {
        let setup = Daemon::setup().served_by_virtio(["vm1", "vm2"].map(Guest::new));
        let mut daemon = setup.wire(&format!("classic_virtio = {wanted}")).start();
        let device = daemon.socket_path("vm1");

        for action in ["off", "on", "reboot"] {
            let finished = agent(&device, &["-o", action, "-n", "vm2"]);
            if wanted {
                assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{action}");
            } else {
                has_failed(&finished, "allow");
            }
        }
        assert_eq!(agent(&device, &["-o", "status", "-n", "vm2"]).stdout, "Status: ON\n");
        if !wanted {
            daemon.stop_and_expect_no_act();
        }
    }
}

/// Pacemaker tries this device first for a minute if it does not hear at once that it is dead.
#[test]
fn ours_say_at_once_that_no_bridge_is_there() {
    let folder = tempfile::tempdir().expect("a private folder");
    let at = |name: &str| folder.path().join(name);
    drop(UnixListener::bind(at("nobody")).expect("a socket on which nobody listens"));
    let hung_up = FenceVirt::new(folder.path());
    let device = hung_up.device().to_owned();
    drop(hung_up);

    for path in [&at("missing"), &at("nobody"), &device] {
        for arguments in [&["-o", "monitor"][..], &["-o", "off", "-n", "vm2"], &["-o", "list"]] {
            let finished = agent(path, arguments);
            has_failed(&finished, &path.display().to_string());
            assert!(finished.elapsed < AT_ONCE, "{arguments:?} of {}: {:?}", path.display(), finished.elapsed);
        }
    }
}

/// A bridge that takes the request and ends before it has answered.
#[test]
fn ours_say_at_once_that_the_bridge_has_gone() {
    let mut bridge = GuestChannel::listen();
    let mut process = Process::start(command(bridge.path()).args(["-o", "off", "-n", "vm2"]));
    bridge.accept(DEADLINE);
    bridge.read(REQUEST_LENGTH, DEADLINE);
    bridge.vanish();

    let finished = process.wait(DEADLINE);
    has_failed(&finished, "may have happened");
    assert!(finished.elapsed < AT_ONCE, "{:?}", finished.elapsed);
}

#[test]
fn ours_give_up_in_time_on_a_bridge_that_never_answers() {
    let mut bridge = GuestChannel::listen();

    for (arguments, part) in
        [(&["-o", "monitor", "-t", "1"][..], "answer"), (&["-o", "off", "-n", "vm2", "-t", "1"], "may have happened")]
    {
        let mut process = Process::start(command(bridge.path()).args(arguments));
        bridge.accept(DEADLINE);
        let finished = process.wait(DEADLINE);
        has_failed(&finished, part);
        let elapsed = finished.elapsed;
        assert!((Duration::from_secs(1)..AT_ONCE).contains(&elapsed), "{arguments:?}: {elapsed:?}");
        assert_eq!(bridge.read(REQUEST_LENGTH, DEADLINE)[..4], *b"abba", "it was asked");
    }
}

/// The agent asks again when no answer comes. That is the same request: it is answered as often, and done once.
#[test]
fn ours_repeat_a_request_and_not_what_it_does() {
    let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    let mut channel = daemon.channel("vm1");
    let mut between = GuestChannel::listen();
    let mut process = Process::start(command(between.path()).args(["-o", "reboot", "-n", "vm2"]));
    between.accept(DEADLINE);
    let [first, second] = [0, 1].map(|_| between.read(REQUEST_LENGTH, DEADLINE));
    assert_eq!(first, second);

    channel.send_pieces([&first[..], &second]);
    let replies = channel.read(2 * REPLY_LENGTH, DEADLINE);
    between.send(&replies);

    let finished = process.wait(DEADLINE);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let records = daemon.stop_and_read_records();
    let mut repeated: Vec<_> = acts(&records).iter().map(|record| record["repeated"] == true).collect();
    repeated.sort_unstable();
    assert_eq!(repeated, [false, true], "{records:#?}");
}

/// SIGTERM: nothing is begun any more, and what has begun is finished and answered.
#[test]
fn ours_end_a_fence_before_the_bridge_ends() {
    let libvirtd = Libvirtd::start();
    let guests = ["vm1", "vm2", "vm3"].map(Guest::new);
    let uri = libvirtd.uri_of(guests.clone());
    let mut daemon = Daemon::setup().uri(&uri).served(guests).start();
    let device = daemon.socket_path("vm1");
    let mut vm3 = daemon.channel("vm3");

    libvirtd.hang();
    let mut process = Process::start(command(&device).args(["-o", "off", "-n", "vm2"]));
    daemon.wait_for_log("the hypervisor hangs");
    daemon.process().signal(rustix::process::Signal::TERM);
    daemon.wait_for_log("stopping: what has begun is finished");
    assert_ne!(ask(&mut vm3, OFF, "vm1"), SUCCESS, "nothing is begun any more");
    assert!(process.is_running() && daemon.process().is_running(), "{}", daemon.log());
    libvirtd.go_on();

    let finished = process.wait(DEADLINE);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{}", daemon.log());
    let ended = daemon.process().wait(DEADLINE);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let records = daemon.records();
    let acts: Vec<_> =
        acts(&records).iter().map(|record| ["action", "target", "outcome"].map(|key| &record[key])).collect();
    assert_eq!(acts, [["off", "vm2", "confirmed off"]]);
}

#[test]
fn ours_go_on_when_the_bridge_was_killed_and_started_again() {
    let mut pair = Pair::by_a_call();
    assert_eq!(agent(&pair.device, &["-o", "off", "-n", "vm2"]).code, Some(0));
    pair.daemon.kill();
    has_failed(&agent(&pair.device, &["-o", "status", "-n", "vm2"]), &shown(&pair.device));

    pair.daemon.start_again();

    pair.daemon.wait_for_log("listening");
    let status = agent(&pair.device, &["-o", "status", "-n", "vm3"]);
    assert_eq!((status.code, status.stdout.as_str()), (Some(2), "Status: OFF\n"), "{}", status.stderr);
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
