//! What the real daemon tells the service manager that started it.

use fencewire_tests::daemon::{Daemon, Setup, ask};
use fencewire_tests::guest_channel::{OFF, SUCCESS};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::{DEADLINE, Process, program};
use std::io;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// A manager's socket.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    /// In the bed's folder.
    fn of(setup: &Setup) -> Manager {
        let path = setup.folder().join("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a socket to listen on");
        Manager { socket, path: path.to_str().expect("a test's paths are UTF-8").to_owned() }
    }

    /// The next message, where one comes in time.
    fn heard_within(&self, deadline: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(deadline)).expect("a deadline");
        let mut message = [0; 1024];
        match self.socket.recv(&mut message) {
            Ok(length) => Some(String::from_utf8(message[..length].to_vec()).expect("text")),
            Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => None,
            Err(why) => panic!("the manager's socket failed: {why}"),
        }
    }

    #[track_caller]
    fn heard(&self) -> String {
        self.heard_within(DEADLINE).expect("a message in time")
    }

    /// The next message that is not only a sign of life.
    #[track_caller]
    fn heard_of_state(&self) -> String {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            let message = self.heard();
            if message != "WATCHDOG=1\n" {
                return message;
            }
        }
        panic!("only signs of life for {DEADLINE:?}");
    }
}

/// A setup with one channel on which the daemon listens, and the manager that is told.
fn setup() -> (Setup, Manager) {
    let setup = Daemon::setup().known(["vm1", "vm2"].map(Guest::new));
    let manager = Manager::of(&setup);
    let listening = setup.folder().join("vm1.sock");
    let setup = setup.channel("unix-listen", &listening, "vm1").environment("NOTIFY_SOCKET", &manager.path);
    (setup, manager)
}

#[test]
fn ready_is_said_when_it_serves_and_stopping_when_it_is_asked_to_end() {
    let (setup, manager) = setup();
    let listening = setup.folder().join("vm1.sock");
    let mut daemon = setup.launch();
    assert_eq!(manager.heard(), "READY=1\nSTATUS=serving; channels: 1\n");
    // At once: who waits for readiness need not try twice.
    UnixStream::connect(&listening).expect("the channel is open when the daemon says that it is ready");
    let finished = daemon.stop();
    assert_eq!(manager.heard(), "STOPPING=1\nSTATUS=stopping: what has begun is finished\n");
    assert_eq!((finished.code, finished.signal), (Some(0), None), "{}", finished.stderr);
    assert_eq!(manager.heard_within(Duration::from_millis(1)), None, "nothing more was said");
}

#[test]
fn ready_is_not_said_by_a_daemon_that_cannot_start() {
    let (setup, manager) = setup();
    std::fs::write(setup.folder().join("journal"), "no folder").expect("a file");
    let mut daemon = setup.launch();
    let finished = daemon.process().wait(DEADLINE);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert_eq!(manager.heard_within(Duration::from_millis(1)), None);
}

#[test]
fn signs_of_life_come_in_the_asked_time() {
    let (setup, manager) = setup();
    let _daemon = setup.environment("WATCHDOG_USEC", "2000000").launch();
    assert!(manager.heard().starts_with("READY=1\n"));
    assert_eq!(manager.heard(), "WATCHDOG=1\n");
    let first = Instant::now();
    for _ in 0..5 {
        assert_eq!(manager.heard(), "WATCHDOG=1\n");
    }
    // Each after 750 ms: at the last occasion before half the time, 1 s, is over. Before 2 s were over, all would do.
    let five = first.elapsed();
    assert!(five > Duration::from_millis(2_500) && five < Duration::from_secs(10), "five of them took {five:?}");
}

#[test]
fn signs_of_life_are_for_the_process_that_was_asked_for_them() {
    let (setup, manager) = setup();
    let mut daemon = setup.environment("WATCHDOG_USEC", "500000").environment("WATCHDOG_PID", "1").launch();
    assert!(manager.heard().starts_with("READY=1\n"));
    // Three occasions to send one go by.
    assert_eq!(manager.heard_within(Duration::from_millis(800)), None);
    daemon.stop();
    assert!(manager.heard().starts_with("STOPPING=1\n"));
}

/// The thread with the loop is stopped, and no other: strace holds it when it is about to wait.
#[test]
fn a_loop_that_hangs_gives_no_sign_of_life() {
    let (setup, manager) = setup();
    let mut daemon = setup.environment("WATCHDOG_USEC", "1000000").launch();
    assert!(manager.heard().starts_with("READY=1\n"));
    assert_eq!(manager.heard(), "WATCHDOG=1\n");

    let mut command = Command::new(program("strace"));
    let waits = "?epoll_wait,?epoll_pwait";
    command.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={waits}")]);
    command.args(["-e", &format!("inject={waits}:delay_enter=600s")]);
    let mut strace = Process::start(command.arg("-p").arg(daemon.process().id().to_string()));
    let end = Instant::now() + DEADLINE;
    // A loop that turns gives three in this time.
    while manager.heard_within(Duration::from_millis(1_500)).is_some() {
        assert!(strace.is_running(), "{}", strace.stderr());
        assert!(Instant::now() < end, "the loop that hangs still says that it turns");
    }

    // It turns again, and says so.
    strace.stop(DEADLINE);
    assert_eq!(manager.heard(), "WATCHDOG=1\n");
}

#[test]
fn a_manager_that_does_not_read_stops_no_fence() {
    let guests = ["vm1", "vm2"].map(Guest::new);
    let setup = Daemon::setup().served(guests);
    let manager = Manager::of(&setup);
    // A new socket each time: the system also limits what one sender may have on its way.
    let is_full = || {
        let filler = UnixDatagram::unbound().expect("a socket");
        filler.set_nonblocking(true).expect("a socket that does not wait");
        filler.send_to(b"FILLER=1\n", &manager.path).is_err()
    };
    while !is_full() {}
    // Waits until it answers on every channel.
    let mut daemon = setup.environment("NOTIFY_SOCKET", &manager.path).environment("WATCHDOG_USEC", "1000000").start();
    assert_eq!(ask(&mut daemon.channel("vm1"), OFF, "vm2"), SUCCESS);
    // Once there is room, all is said, in order.
    let mut said = manager.heard();
    while said == "FILLER=1\n" {
        said = manager.heard();
    }
    assert_eq!(said, "READY=1\nSTATUS=serving; channels: 2\n");
    assert_eq!(manager.heard(), "WATCHDOG=1\n");
    daemon.stop();
    assert!(manager.heard_of_state().starts_with("STOPPING=1\n"));
}
