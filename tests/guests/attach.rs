//! `fencewired attach` and `detach` under a guest that has the port open: a program that reads it, one that never lets go of
//! it, an agent that waits for its answer. What is done to the definitions of guests without a system is in `control`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fencewire_tests::daemon::Daemon;
use fencewire_tests::guest::{Begun, Guest, PORT};
use fencewire_tests::process::{DEADLINE, ours, run, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine};

use crate::common::{ASKER, TARGET, Way, virtio_device, wait_connected};

/// QEMU takes a port from a guest that runs without asking it. Long beside that, short beside the 10 s that the verb has.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A guest whose port is found, because that is how one that was attached gets served; its serial port is configured.
struct Bed {
    daemon: Daemon,
    asker: Guest,
    host: Host,
}

impl Bed {
    #[track_caller]
    fn start() -> Self {
        let host = Host::start();
        let [asker] = Guest::boot(&host, [ASKER]);
        let setup =
            Daemon::setup().uri(&host.uri()).group("all", &[ASKER, TARGET], "").discover("owners = [\"nobody\"]");
        let setup = setup.wire("keyless = true").wire("classic_virtio = true");
        let daemon = setup.channel("unix", &asker.serial(), ASKER).start();
        wait_connected(&daemon, &[&asker], 1);
        Self { daemon, asker, host }
    }

    /// Has `fencewired` do that to the guest, and gives what it says.
    #[track_caller]
    fn has(&self, verb: &[&str]) -> String {
        let mut command = Command::new(ours("fencewired"));
        let done = run(command.args(verb).arg("--config").arg(self.daemon.config()), DEADLINE);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{verb:?}: {}", done.stdout);
        assert!(done.elapsed < AT_ONCE, "{verb:?}: {:?}", done.elapsed);
        done.stdout
    }

    /// Whether the live definition has the port, and the persistent one.
    fn defined(&self) -> (bool, bool) {
        let has = |options: &[&str]| self.host.virsh(&[&["dumpxml", ASKER], options].concat()).contains(PORT);
        (has(&[]), has(&["--inactive"]))
    }

    /// The port is gone from the guest, and its channel from the bridge, which says so; everything else is as it was.
    #[track_caller]
    fn is_gone(&self, socket: &Path, nth: usize) {
        let gone = self.asker.run("fence_wire -W native -o off -n target");
        assert_eq!(gone.code, Some(1), "{gone:?}");
        assert!(gone.stderr.contains("there is no virtio port org.fencewire.fence.0"), "{gone:?}");
        assert_eq!(virtio_device_of(&self.asker), None);
        assert_eq!(
            self.asker.run("fence_wire -D /dev/ttyS1 -o monitor").code,
            Some(0),
            "by the port that it still has"
        );
        let closed = format!("this channel is closed for good channel=\"{}\"", socket.display());
        wait_until(DEADLINE, "the channel to be closed for good", || {
            (self.daemon.log().matches(&closed).count() >= nth).then_some(())
        });
        let (status, is_all_served) = self.daemon.status();
        let names: Vec<&str> =
            status["channels"].as_array().expect("a list").iter().filter_map(|it| it["name"].as_str()).collect();
        let serial = self.asker.serial();
        assert_eq!(names, [serial.to_str().expect("a test's paths are UTF-8")]);
        assert!(is_all_served, "nothing is missed that is not there: {status}");
    }

    /// The port is there again, and fences over both wires.
    #[track_caller]
    fn fences(&self, socket: &Path, nth: usize) {
        self.daemon.wait_connected(socket, nth);
        wait_until(DEADLINE, "the port in the guest", || virtio_device_of(&self.asker));
        for way in [Way::VirtioClassic, Way::VirtioNative] {
            let target = self.host.run(&Machine::new(TARGET));
            let done = self.asker.run(&format!("{} -o off -n target", way.agent()));
            assert_eq!((done.code, target.lives()), (Some(0), false), "{way:?}: {done:?}\n{}", self.daemon.log());
        }
    }

    /// Starts something in the guest that opens the port, `PORT` in its text, and waits until it has.
    #[track_caller]
    fn holds(&self, script: &str) -> Begun<'_> {
        let device = virtio_device(&self.asker);
        let begun = self.asker.begin_for(&script.replace("PORT", &device), DEADLINE * 6);
        wait_until(DEADLINE, "the port to be opened", || {
            (self.asker.run(&format!("ls -l /proc/[0-9]*/fd 2>/dev/null | grep '{device}$'")).code == Some(0))
                .then_some(())
        });
        begun
    }
}

/// The port in `/dev`, where there is one.
fn virtio_device_of(guest: &Guest) -> Option<String> {
    let device = guest.run(&format!("cd /sys/class/virtio-ports; grep -l '^{PORT}$' */name"));
    (device.code == Some(0)).then_some(device.stdout)
}

/// Where the program has said that the socket is.
#[track_caller]
fn socket_in(said: &str) -> PathBuf {
    let path = said.lines().find_map(|line| line.trim().strip_prefix("on this host: "));
    path.unwrap_or_else(|| panic!("no path in {said}")).into()
}

/// Nobody in the guest has a say in it. Who reads hears that the device is gone; who never closes it keeps nothing that
/// anybody else needs, so that the next port of the name is as good as the first.
#[test]
fn a_port_is_taken_from_whoever_has_it_open_and_can_be_given_again() {
    let bed = Bed::start();
    assert_eq!(bed.defined(), (true, true));
    let reader = bed.holds("exec cat PORT");
    let said = bed.has(&["detach", ASKER]);
    assert!(said.contains("detached, live and persistent\n"), "{said}");
    assert_eq!(bed.defined(), (false, false));
    let heard = reader.end();
    assert!(heard.code == Some(1) && heard.stderr.contains("No such device"), "{heard:?}");
    bed.is_gone(&bed.asker.virtio(), 1);

    let said = bed.has(&["attach", ASKER]);
    assert!(said.contains("attached, live and persistent\n"), "{said}");
    assert_eq!(bed.defined(), (true, true));
    let socket = socket_in(&said);
    bed.fences(&socket, 1);

    // Of the guest that runs only; and who has it open sleeps.
    let sleeper = bed.holds("exec 3<>PORT; echo $$ >/run/sleeper; kill -STOP $$; echo it >&3");
    bed.asker.done("until grep -q '^State:.T' /proc/$(cat /run/sleeper)/status; do usleep 1000; done");
    let said = bed.has(&["detach", ASKER, "--live"]);
    assert!(said.contains("detached, live\n"), "{said}");
    assert_eq!(bed.defined(), (false, true));
    bed.is_gone(&socket, 1);
    let said = bed.has(&["attach", ASKER]);
    assert!(said.contains("attached, live; it has the channel already, persistent\n"), "{said}");
    bed.fences(&socket, 2);
    bed.asker.done("kill -CONT $(cat /run/sleeper)");
    let wrote = sleeper.end();
    assert!(
        wrote.code != Some(0) && wrote.stderr.contains("No such device"),
        "it wakes up with a port that is none: {wrote:?}"
    );
    bed.fences(&socket, 2);

    // The whole guest sleeps: it learns of it when it goes on.
    bed.host.virsh(&["suspend", ASKER]);
    let said = bed.has(&["detach", ASKER]);
    assert!(said.contains("detached, live and persistent\n"), "{said}");
    assert_eq!(bed.defined(), (false, false));
    bed.host.virsh(&["resume", ASKER]);
    wait_until(DEADLINE, "the guest to let go of the port", || virtio_device_of(&bed.asker).is_none().then_some(()));
    bed.is_gone(&socket, 2);
    let said = bed.has(&["attach", ASKER]);
    assert_eq!(socket_in(&said), socket);
    bed.fences(&socket, 3);
}

/// It cannot know what came of its fence, says so at once, and what came of it is to be had by the next port.
#[test]
fn an_agent_whose_port_is_taken_does_not_wait_and_claims_nothing() {
    let bed = Bed::start();
    let mut socket = bed.asker.virtio();
    for (nth, way) in [Way::VirtioClassic, Way::VirtioNative].into_iter().enumerate() {
        let target = bed.host.run(&Machine::new(TARGET));
        target.hang();
        let asking = bed.asker.begin(&format!("exec {} -o off -n target -t 18", way.agent()));
        let told = || (bed.host.told("virDomainDestroy", TARGET) > nth).then_some(());
        wait_until(DEADLINE, "the destroy", told);
        let said = bed.has(&["detach", ASKER]);
        assert!(said.contains("detached, live and persistent\n"), "{way:?}: {said}");
        let done = asking.end();
        assert_eq!(done.code, Some(1), "{way:?}: {done:?}");
        assert!(done.stderr.contains("may have happened"), "{way:?}: {done:?}");
        assert!(done.elapsed < Duration::from_secs(12), "{way:?}: it does not wait for its 18 s: {done:?}");
        bed.is_gone(&socket, 1);

        target.go_on();
        assert!(target.ends_within(DEADLINE), "what has begun is finished");
        socket = socket_in(&bed.has(&["attach", ASKER]));
        bed.daemon.wait_connected(&socket, nth + 1);
        let status = bed.asker.run(&format!("{} -o status -n target", way.agent()));
        assert_eq!(status.code, Some(2), "{way:?}: {status:?}");
    }
}
