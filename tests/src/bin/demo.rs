//! The main job, for a person to watch: from its own channel, a guest lists whom it may fence, asks, fences, and is
//! refused what it may not. Real daemon, real agent; the guests are those of libvirt's own test driver.
//!
//! Ends with 0 only if everything went as it should.

use fencewire_tests::fence_virt::FenceVirt;
use fencewire_tests::libvirt_file::{Guest, LibvirtFile};
use fencewire_tests::process::{DEADLINE, Finished, Process, ours, run};
use fencewire_tests::story::{in_a_line, indented};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

const GUESTS: [&str; 4] = ["nfs-server1", "nfs-server2", "python-dev", "afmdb"];

/// What nfs-server2 asks, what that should print and the exit status it should have.
const STEPS: [Step; 6] = [
    Step { says: "Is the host there?", ask: "-o monitor", prints: "", exit: 0 },
    Step { says: "Whom may I fence?", ask: "-o list", prints: "nfs-server1,", exit: 0 },
    Step { says: "Does my sibling run?", ask: "-o status -n nfs-server1", prints: "", exit: 0 },
    Step { says: "It hangs: reboot it.", ask: "-o reboot -n nfs-server1", prints: "", exit: 0 },
    Step { says: "Does it run again?", ask: "-o status -n nfs-server1", prints: "", exit: 0 },
    Step { says: "And a guest of somebody else's?", ask: "-o off -n python-dev", prints: "", exit: 1 },
];

struct Step {
    says: &'static str,
    ask: &'static str,
    prints: &'static str,
    exit: i32,
}

fn main() -> ExitCode {
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!("Four guests on this host: {}. One group: nfs-server1 and nfs-server2.\n", GUESTS.join(", "));
    let port = FenceVirt::new(folder.path());
    let config = configure(folder.path(), port.socket_path());
    println!("The host runs fencewired with this configuration:\n");
    println!("{}", indented(&config));
    let mut daemon = Process::start(Command::new(ours("fencewired")).arg("--config").arg(folder.path().join("toml")));
    port.wait_for_bridge(DEADLINE);

    println!("In nfs-server2, over its serial port:\n");
    let mut as_it_should = true;
    for step in &STEPS {
        as_it_should &= take(step, port.device());
    }
    let stopped = daemon.stop(DEADLINE);
    as_it_should &= stopped.code == Some(0);

    println!("What the host has recorded of all that:\n");
    let records = fs::read_to_string(folder.path().join("records")).unwrap_or_default();
    let lines: Vec<String> = records.lines().filter_map(in_a_line).collect();
    println!("{}", indented(&lines.join("\n")));
    as_it_should &= lines.len() == STEPS.len();
    if as_it_should {
        println!("All as it should be. Nothing is left running.");
        ExitCode::SUCCESS
    } else {
        println!("Something is NOT as it should be. The daemon's log:\n\n{}", indented(&stopped.stderr));
        ExitCode::FAILURE
    }
}

fn configure(folder: &Path, channel: &Path) -> String {
    let uri = LibvirtFile::new(folder.join("guests.xml")).guests(GUESTS.map(Guest::new)).write();
    let config = format!(
        "[[hypervisor]]\nuri = \"{uri}\"\n\n\
         [[channel]]\nkind = \"unix\"\npath = \"{}\"\nguest = \"nfs-server2\"\n\n\
         [[group]]\nname = \"nfs\"\nmembers = [\"nfs-server1\", \"nfs-server2\"]\n\n\
         [wire]\nclassic = true\n\n\
         [records]\npath = \"{}\"\n\n[control]\njournal = \"{}\"\nstate = \"{}\"\n",
        channel.display(),
        folder.join("records").display(),
        folder.join("journal").display(),
        folder.join("state").display(),
    );
    fs::write(folder.join("toml"), &config).expect("a configuration file");
    config
}

/// Runs the agent as the guest would, and shows it. Says whether it did what it should.
fn take(step: &Step, device: &Path) -> bool {
    println!("  # {}", step.says);
    println!("  $ fence_wire -D {} {}", device.display(), step.ask);
    let mut agent = Command::new(ours("fence_wire"));
    let Finished { code, stdout, stderr, elapsed, .. } =
        run(agent.arg("-D").arg(device).args(step.ask.split(' ')), DEADLINE);
    for line in stdout.lines().chain(stderr.lines()) {
        println!("  {line}");
    }
    let code = code.unwrap_or(-1);
    let right = code == step.exit && stdout.starts_with(step.prints);
    let verdict = if right { "as expected" } else { "NOT as expected" };
    println!("  exit {code}, {verdict} ({:.1} ms)\n", elapsed.as_secs_f64() * 1000.0);
    right
}
