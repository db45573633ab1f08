//! Pacemaker's own programs: those that only look at the agent, and the fencer, which runs it. The bridge is the real one.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fencewire_tests::daemon::{Daemon, acts, ask};
use fencewire_tests::guest_channel::{GuestChannel, IS_OFF, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::{Guest, uuid_of};
use fencewire_tests::node::Node;
use fencewire_tests::process::{DEADLINE, Finished, Process, wait_until};

use crate::metadata;
use crate::{done, failed};

/// Where Debian has it.
const FENCER: &str = "/usr/lib/pacemaker/pacemaker-fenced";

/// A node whose fencer runs, alone.
struct Fencer {
    /// The first field: dropped before the node that it runs in.
    _process: Process,
    node: Node,
}

impl Fencer {
    #[track_caller]
    fn start() -> Self {
        let node = Node::start();
        let mut command = node.command(FENCER);
        let mut process = Process::start(command.arg("--stand-alone").arg("--logfile").arg(node.path("log")));
        wait_until(DEADLINE, "the fencer", || {
            assert!(process.is_running(), "the fencer has ended: {}", process.stderr());
            (node.run("stonith_admin", &["--list-registered"]).code == Some(0)).then_some(())
        });
        Self { _process: process, node }
    }

    /// `stonith_admin arguments`.
    #[track_caller]
    fn admin(&self, arguments: &[&str]) -> Finished {
        self.node.run("stonith_admin", arguments)
    }

    /// Registers a device of this agent with these parameters.
    #[track_caller]
    fn register(&self, device: &str, agent: &str, parameters: &[&str]) {
        let mut arguments = vec!["--register", device, "--agent", agent];
        arguments.extend(parameters.iter().flat_map(|parameter| ["--option", parameter]));
        done(self.admin(&arguments));
    }

    /// Whether the device takes itself to be able to fence that node.
    #[track_caller]
    fn can_fence(&self, device: &str, node: &str) -> bool {
        let listed = self.admin(&["--list", node]);
        listed.stdout.lines().any(|line| line.trim() == device)
    }

    /// What the fencer has logged.
    fn log(&self) -> String {
        fs::read_to_string(self.node.path("log")).unwrap_or_default()
    }
}

/// The bridge, with vm1's channel as a socket for the agent, and a witness.
struct Bridge {
    daemon: Daemon,
    device: String,
    witness: GuestChannel,
}

impl Bridge {
    #[track_caller]
    fn start() -> Self {
        let mut daemon = Daemon::setup()
            .known(["vm2", "vm3", "stranger"].map(Guest::new))
            .served(["vm1", "witness"].map(Guest::new))
            .group("cluster", &["vm1", "vm2", "vm3"], "")
            .group("witnesses", &["witness", "vm2", "vm3", "stranger"], "")
            .start();
        let device = format!("serial_device={}", daemon.socket_path("vm1").display());
        Self { device, witness: daemon.channel("witness"), daemon }
    }

    #[track_caller]
    fn state(&mut self, guest: &str) -> u8 {
        ask(&mut self.witness, STATUS, guest)
    }
}

#[test]
fn pacemaker_finds_the_agent_and_its_metadata() {
    let node = Node::start();
    let installed = done(node.run("stonith_admin", &["--list-installed"]));
    assert!(installed.lines().any(|line| line.trim() == "fence_wire"), "{installed}");
    assert!(!installed.contains("fence_virt"), "the node has agents of the system: {installed}");

    let metadata = done(node.run("stonith_admin", &["--metadata", "--agent", "fence_wire"]));
    // Two actions more: Pacemaker starts and stops a device without asking the agent, and says so here.
    let lines = metadata.lines().filter(|line| !line.contains("timeout=\"20s\""));
    done(metadata::check(&lines.collect::<Vec<_>>().join("\n")));
    assert!(metadata.contains("<parameter name=\"serial_device\""), "{metadata}");
}

#[test]
fn pacemaker_validates_what_is_configured() {
    let node = Node::start();
    let device = GuestChannel::listen();
    let device = format!("serial_device={}", device.path().display());
    let validate = |options: &[&str]| {
        let mut arguments = vec!["--validate", "--agent", "fence_wire"];
        arguments.extend(options.iter().flat_map(|option| ["--option", option]));
        node.run("stonith_admin", &arguments)
    };

    done(validate(&[&device]));
    done(validate(&[&device, "timeout=20", "pcmk_host_map=node1:vm1"]));
    for (options, part) in [
        (&[][..], "no virtio port org.fencewire.fence.0"),
        (&["serial_device=/missing"], "no such file"),
        (&[&device, "timeout=soon"], "timeout is 'soon'"),
        (&[&device, "ipaddr=192.0.2.1"], "two ways to the host"),
        (&[&device, "multicast_address=225.0.0.12"], "multicast"),
    ] {
        let said = failed(&validate(options));
        assert!(said.contains(part), "{options:?}: {said}");
    }
}

#[test]
fn the_fencer_fences_through_the_bridge() {
    let mut bridge = Bridge::start();
    let fencer = Fencer::start();
    let uuid = uuid_of("vm3");
    let map = format!("pcmk_host_map=node2:vm2;node3:{uuid};node4:stranger");
    fencer.register("fence-vms", "fence_wire", &[&bridge.device, &map]);
    done(fencer.admin(&["--query", "fence-vms"]));
    assert!(fencer.can_fence("fence-vms", "node2"));
    assert!(!fencer.can_fence("fence-vms", "node9"));

    for (action, node, guest, state) in [
        ("--fence", "node2", "vm2", IS_OFF),
        ("--unfence", "node2", "vm2", SUCCESS),
        ("--reboot", "node2", "vm2", SUCCESS),
        ("--fence", "node3", "vm3", IS_OFF),
        ("--fence", "node3", "vm3", IS_OFF),
    ] {
        done(fencer.admin(&[action, node, "--timeout", "20"]));
        assert_eq!(bridge.state(guest), state, "{guest} after {action} {node}\n{}", fencer.log());
    }
    // The agent's own sentence is what an administrator reads.
    failed(&fencer.admin(&["--fence", "node4", "--timeout", "20"]));
    assert_eq!(bridge.state("stranger"), SUCCESS);
    assert!(fencer.log().contains("does not allow off for 'stranger' from this guest"), "{}", fencer.log());

    let records = bridge.daemon.stop_and_read_records();
    let acts: Vec<_> =
        acts(&records).iter().map(|act| ["requester", "action", "target"].map(|key| &act[key])).collect();
    let expected = [("off", "vm2"), ("on", "vm2"), ("reboot", "vm2"), ("off", &*uuid), ("off", &*uuid)];
    assert_eq!(acts, expected.map(|(action, target)| ["vm1", action, target]));
}

/// Without a map a node's name is its guest's. Pacemaker then asks for the list, or for the node's status.
#[test]
fn the_fencer_asks_whom_the_device_can_fence() {
    let mut bridge = Bridge::start();
    let fencer = Fencer::start();
    let uuid = uuid_of("vm3");
    fencer.register("by-list", "fence_wire", &[&bridge.device]);
    fencer.register("by-status", "fence_wire", &[&bridge.device, "pcmk_host_check=status"]);

    for device in ["by-list", "by-status"] {
        for (node, expected) in [("vm2", true), (&uuid, true), ("stranger", false), ("nobody", false)] {
            assert_eq!(fencer.can_fence(device, node), expected, "{node} {device}\n{}", fencer.log());
        }
    }
    done(fencer.admin(&["--fence", &uuid, "--timeout", "20"]));
    assert_eq!(bridge.state("vm3"), IS_OFF);
}

/// What our agent must understand, seen and not assumed. What comes later is the device's own parameters, less those
/// that are Pacemaker's.
#[test]
fn the_fencer_tells_the_agent_what_we_think_it_does() {
    let mut bridge = Bridge::start();
    let fencer = Fencer::start();
    let told = fencer.node.path("told");
    let script =
        format!("{{ echo \"arguments: $#\"; tee /dev/fd/3; echo; }} 3>&1 >>{0} | fence_wire\n", told.display());
    fencer.node.add_agent("fence_told", &script);
    fencer.register(
        "told",
        "fence_told",
        &[&bridge.device, "pcmk_host_map=node2:vm2;node5:vm 5", "pcmk_off_timeout=30", "delay=0", "unknown=x"],
    );
    fs::remove_file(&told).ok();

    done(fencer.admin(&["--fence", "node2", "--timeout", "20"]));

    assert_eq!(bridge.state("vm2"), IS_OFF);
    let told = fs::read_to_string(told).expect("what the agent was told");
    let mut lines: Vec<_> = told.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    let mut expected =
        vec!["action=off", "arguments: 0", "delay=0", "nodename=node2", "port=vm2", &bridge.device, "unknown=x"];
    expected.sort_unstable();
    assert_eq!(lines, expected);

    // A map's names end at a blank.
    failed(&fencer.admin(&["--fence", "node5", "--timeout", "20"]));
    assert!(fencer.log().contains("does not allow off for 'vm' from this guest"), "{}", fencer.log());
}

/// Of two nodes that fence each other the one with the delay loses.
#[test]
fn the_fencer_waits_as_long_as_the_documentation_says() {
    let mut bridge = Bridge::start();
    let fencer = Fencer::start();
    fencer.register(
        "fence-vms",
        "fence_wire",
        &[&bridge.device, "pcmk_host_map=node2:vm2;node3:vm3", "pcmk_delay_base=node2:2s;node3:0s"],
    );
    for (node, guest, waits) in [("node2", "vm2", true), ("node3", "vm3", false)] {
        let started = Instant::now();
        done(fencer.admin(&["--fence", node, "--timeout", "20"]));
        assert_eq!(bridge.state(guest), IS_OFF);
        assert!(started.elapsed() >= Duration::from_secs(2) || !waits, "{:?}", started.elapsed());
        let delaying = format!("Delaying 'off' action targeting {node}");
        assert_eq!(fencer.log().contains(&delaying), waits, "{}", fencer.log());
    }
}

/// A dead bridge is reported at once: else Pacemaker would wait for it before it tries another device.
#[test]
fn the_fencer_learns_at_once_that_the_bridge_is_dead() {
    let fencer = Fencer::start();
    let folder = tempfile::tempdir().expect("a private folder");
    let dead = folder.path().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("a socket on which nobody listens"));
    let parameters = |path: &Path| format!("serial_device={}", path.display());
    fencer.register("dead", "fence_wire", &[&parameters(&dead), "pcmk_host_map=node2:vm2"]);

    let started = Instant::now();
    failed(&fencer.admin(&["--query", "dead"]));
    failed(&fencer.admin(&["--fence", "node2", "--timeout", "60"]));

    // Pacemaker tries each twice, a second apart.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(fencer.log().contains("nobody listens"), "{}", fencer.log());
}
