//! Measures what a process in a real guest sees of a fence, beside Debian's `fence_virt` and `fence_virtd` on the same
//! guest, host and libvirtd in the same run; and beside what libvirt itself takes to end a guest. Prints the table of
//! docs/benchmarks.md.
//!
//! Times are taken in the guest, from the start of a shell that becomes the agent until its end. Everything is done in
//! turn, so that what else the machine does falls on all alike.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fencewire_tests::daemon::Daemon;
use fencewire_tests::guest::{Guest, SERIAL};
use fencewire_tests::process::{DEADLINE, Finished, Process, program, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine, Qemu};
use tempfile::TempDir;
use virt::connect::Connect;

const ASKER: &str = "asker";
const TARGET: &str = "target";

/// With each server, in turn.
const ROUNDS: usize = 3;
/// Of each request, in a round.
const STATUSES: usize = 10;
const FENCES: usize = 4;

/// Who is asked, by whom, and how.
struct Way {
    name: &'static str,
    agent: &'static str,
    is_theirs: bool,
}

/// A program that does nothing. By its path: the shell has a `true` of its own, for which no process is started.
const NOTHING: &str = "exec /bin/true";

const WAYS: [Way; 6] = [
    Way { name: "fence_virt, serial port, fence_virtd", agent: "fence_virt -D /dev/ttyS1 -H", is_theirs: true },
    Way { name: "fence_virt, serial port, fencewired", agent: "fence_virt -D /dev/ttyS1 -H", is_theirs: false },
    Way {
        name: "fence_wire, serial port, their wire",
        agent: "fence_wire -W classic -D /dev/ttyS1 -n",
        is_theirs: false,
    },
    Way { name: "fence_wire, serial port, our wire", agent: "fence_wire -W native -D /dev/ttyS1 -n", is_theirs: false },
    Way { name: "fence_wire, virtio port, their wire", agent: "fence_wire -W classic -n", is_theirs: false },
    Way { name: "fence_wire, virtio port, our wire", agent: "fence_wire -W native -n", is_theirs: false },
];

/// What was measured of one way.
#[derive(Default)]
struct Row {
    status: Vec<Duration>,
    off: Vec<Duration>,
    reboot: Vec<Duration>,
}

fn main() {
    machine();
    let host = Host::start();
    let [asker] = Guest::boot(&host, [ASKER]);
    host.run(&Machine::new(TARGET));
    let libvirt = Connect::open(Some(&host.uri())).expect("a connection to libvirt");
    let mut rows: [Row; WAYS.len()] = Default::default();
    let (mut nothing, mut destroys) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for is_theirs in [true, false] {
            let _server = serve(&host, &asker, is_theirs);
            for _ in 0..STATUSES {
                nothing.push(took(&asker.run(NOTHING)));
                for (way, row) in WAYS.iter().zip(&mut rows).filter(|(way, _)| way.is_theirs == is_theirs) {
                    row.status.push(ask(&asker, way, "status"));
                }
            }
            for _ in 0..FENCES {
                for (way, row) in WAYS.iter().zip(&mut rows).filter(|(way, _)| way.is_theirs == is_theirs) {
                    destroys.push(destroy(&host, &libvirt));
                    host.switch_on(TARGET);
                    let qemu = idle(&host);
                    row.off.push(ask(&asker, way, "off"));
                    assert!(!qemu.lives(), "{}: off, and its process lives", way.name);
                    host.switch_on(TARGET);
                    idle(&host);
                    row.reboot.push(ask(&asker, way, "reboot"));
                }
            }
        }
    }
    print(&mut rows, &mut nothing, &mut destroys);
}

fn machine() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, it)| it);
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    println!(
        "Machine: {model}, {cores} cores, Linux {}, load {load} at the beginning; guests are emulated.\n",
        kernel.trim()
    );
}

fn ask(asker: &Guest, way: &Way, action: &str) -> Duration {
    took(&asker.run(&format!("exec {} {TARGET} -o {action}", way.agent)))
}

fn took(done: &Finished) -> Duration {
    assert_eq!(done.code, Some(0), "{done:?}");
    done.elapsed
}

/// The target's process, once its firmware is done: until then it would take half the machine from whoever asks.
fn idle(host: &Host) -> Qemu {
    let qemu = host.qemu(TARGET);
    qemu.wait_until_idle();
    qemu
}

/// What the call takes by which both daemons end a guest.
fn destroy(host: &Host, libvirt: &Connect) -> Duration {
    idle(host);
    let domain = libvirt.lookup_domain_by_name(TARGET).expect("the target");
    let begun = Instant::now();
    domain.destroy().expect("it runs");
    let took = begun.elapsed();
    assert!(host.try_qemu(TARGET).is_none(), "destroyed, and it has a process");
    took
}

/// One of the two daemons, with what it needs; ended when dropped.
#[expect(dead_code, reason = "they are held")]
enum Server {
    Theirs(Process, TempDir),
    Ours(Box<Daemon>),
}

/// Starts it and waits until it answers. Both have the serial port; the virtio port, ours alone.
fn serve(host: &Host, asker: &Guest, is_theirs: bool) -> Server {
    let server = if is_theirs {
        let folder = tempfile::tempdir().expect("a private folder");
        let (key, file) = (folder.path().join("key"), folder.path().join("fence_virt.conf"));
        fs::write(&key, [0x2a; 32]).expect("a key file, for which it has no use");
        fs::write(&file, configuration(host, &key)).expect("a configuration file");
        let mut command = Command::new(program("fence_virtd"));
        command.current_dir(folder.path()).arg("-F").arg("-f").arg(file).arg("-p").arg(folder.path().join("pid"));
        Server::Theirs(Process::start(&mut command), folder)
    } else {
        let daemon = Daemon::setup()
            .uri(&host.uri())
            .virtio_channel("unix", &asker.virtio(), ASKER)
            .channel("unix", &asker.serial(), ASKER)
            .group("all", &[ASKER, TARGET], "")
            .wire("classic_virtio = true\nkeyless = true")
            .start();
        daemon.wait_connected(&asker.virtio(), 1);
        daemon.wait_connected(&asker.serial(), 1);
        Server::Ours(Box::new(daemon))
    };
    wait_until(DEADLINE, "the server to answer", || {
        let done = asker.run(&format!("fence_virt -D {SERIAL} -o status -H {TARGET} -t 2"));
        (done.code == Some(0)).then_some(())
    });
    server
}

fn configuration(host: &Host, key: &std::path::Path) -> String {
    let (uri, key, sockets) = (host.uri(), key.display(), host.path(""));
    let sockets: PathBuf = sockets.components().collect();
    format!(
        "fence_virtd {{
\tlistener = \"serial\";
\tbackend = \"libvirt\";
\tmodule_path = \"/usr/lib/x86_64-linux-gnu/fence-virt\";
}}
listeners {{
\tserial {{
\t\turi = \"{uri}\";
\t\tpath = \"{}\";
\t\tmode = \"serial\";
\t\tkey_file = \"{key}\";
\t}}
}}
backends {{
\tlibvirt {{
\t\turi = \"{uri}\";
\t}}
}}
",
        sockets.display()
    )
}

fn print(rows: &mut [Row; WAYS.len()], nothing: &mut [Duration], destroys: &mut [Duration]) {
    println!(
        "As a process in the guest sees it; the median of {} and {}, in turn.\n",
        ROUNDS * STATUSES,
        ROUNDS * FENCES
    );
    println!("| agent, port, who answers | status | off | reboot |");
    println!("|---|---|---|---|");
    println!("| a process that does nothing | {} | | |", shown(median(nothing)));
    println!("| libvirt's own destroy, called on the host | | {} | |", shown(median(destroys)));
    for (way, row) in WAYS.iter().zip(rows) {
        let [status, off, reboot] = [&mut row.status, &mut row.off, &mut row.reboot].map(|times| shown(median(times)));
        println!("| {} | {status} | {off} | {reboot} |", way.name);
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn shown(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
