//! Measures Fencewire beside what it replaces, in one run on one machine: the daemons over the same kind of socket with
//! the same client, the agents as processes against the same bridge. Prints the tables of docs/benchmarks.md.
//!
//! Debian's `fence_virtd` searches its memory of the last 10 s at each request, about 9 ns for each that is in it: a long
//! loop would flatter us. So a round has few requests, and between rounds that memory passes.

use fencewire_core::native::keys::{Keys, read_file};
use fencewire_core::{Ask, Power, PowerAction, Reply, Target};
use fencewire_tests::daemon::{Daemon, settle};
use fencewire_tests::fence_virt::{FenceVirt, by_tcp as by_tcp_to};
use fencewire_tests::fence_virtd::FenceVirtd;
use fencewire_tests::fence_virtd::tcp::ByTcp;
use fencewire_tests::guest_channel::{
    GuestChannel, OFF, ON, REBOOT, REPLY_LENGTH, REQUEST_LENGTH, STATUS, fresh_seqno, reply, request,
};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::native_guest::ask_native;
use fencewire_tests::process::{DEADLINE, Finished, Process, ours, program, run, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine};
use rustix::process::Signal;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;
const STATUSES: usize = 100;
const POWERS: usize = 20;
/// Theirs takes a second each.
const THEIR_REBOOTS: usize = 2;
const PROCESSES: usize = 100;
/// Each costs a second or two, most of which is QEMU's.
const FENCES: usize = 10;

/// What `fence_virtd` remembers of requests passes in this time.
const THEIR_MEMORY: Duration = Duration::from_secs(11);

fn main() {
    machine();
    if std::env::args().nth(1).as_deref() == Some("wires") {
        return wires();
    }
    daemons();
    wires();
    sixteen();
    by_tcp();
    real_guests();
    agents();
}

fn machine() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, it)| it);
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("Machine: {model}, {cores} cores, Linux {}.\n", kernel.trim());
}

/// Times of one kind of request, to one of two servers.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn ask(&mut self, channel: &mut GuestChannel, action: u8, times: usize) {
        for _ in 0..times {
            let frame = request(action, b"target", fresh_seqno());
            let begun = Instant::now();
            let code = channel.ask(&frame, DEADLINE);
            self.0.push(begun.elapsed());
            assert_eq!(code, 0, "action {action} was not done");
        }
    }

    fn at(&mut self, part: f64) -> Duration {
        self.0.sort();
        #[expect(clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a short list")]
        let place = ((self.0.len() - 1) as f64 * part).round() as usize;
        self.0[place]
    }
}

fn daemons() {
    let guests = || ["asker", "target"].map(Guest::new);
    let theirs = FenceVirtd::start([Guest::new("asker"), Guest::new("target")]);
    let mut their_channel = theirs.channel("asker");
    let mut ours = Daemon::setup().served(guests()).group("all", &["asker", "target"], "").start();
    let mut our_channel = ours.channel("asker");

    let rows = ["status", "off", "on", "reboot"];
    let mut times: [(Times, Times); 4] = Default::default();
    for round in 0..ROUNDS {
        if round > 0 {
            thread::sleep(THEIR_MEMORY);
        }
        for (channel, is_ours) in [(&mut their_channel, false), (&mut our_channel, true)] {
            let of = |pair: &mut (Times, Times)| std::mem::take(if is_ours { &mut pair.1 } else { &mut pair.0 });
            let [mut status, mut off, mut on, mut reboot] = times.each_mut().map(of);
            status.ask(channel, STATUS, STATUSES);
            for _ in 0..POWERS {
                off.ask(channel, OFF, 1);
                on.ask(channel, ON, 1);
            }
            reboot.ask(channel, REBOOT, if is_ours { POWERS } else { THEIR_REBOOTS });
            for (pair, measured) in times.iter_mut().zip([status, off, on, reboot]) {
                *(if is_ours { &mut pair.1 } else { &mut pair.0 }) = measured;
            }
        }
    }
    println!("A request over a unix socket, libvirt's test driver; {ROUNDS} rounds in turn.\n");
    println!("| request | fence_virtd p50 | p99 | fencewired p50 | p99 | ratio of p50 |");
    println!("|---|---|---|---|---|---|");
    for (row, (theirs, ours)) in rows.iter().zip(&mut times) {
        let (their_p50, our_p50) = (theirs.at(0.5), ours.at(0.5));
        let ratio = our_p50.as_secs_f64() / their_p50.as_secs_f64();
        let (their_p99, our_p99) = (theirs.at(0.99), ours.at(0.99));
        println!(
            "| {row} | {} | {} | {} | {} | {ratio:.4} |",
            shown(their_p50),
            shown(their_p99),
            shown(our_p50),
            shown(our_p99)
        );
    }
    println!();
}

/// The same daemon by each of its wires, a guest for each: over our own every request has a handshake of its own, as when an
/// agent is started for it.
fn wires() {
    let setup = Daemon::setup().served(["plain", "keyless", "keyed"].map(Guest::new)).known([Guest::new("target")]);
    let setup = setup.group("all", &["plain", "keyless", "keyed", "target"], "");
    let folder = setup.folder().to_owned();
    let line = format!("master_key = \"{}\"", folder.join("master.key").display());
    // To make a key, a file that names it is enough.
    let stub = folder.join("stub.toml");
    fs::write(&stub, format!("[wire]\n{line}\n")).expect("a file");
    let fencewired = |arguments: &[&str]| {
        let done = run(Command::new(ours("fencewired")).args(arguments).arg("--config").arg(&stub), DEADLINE);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        done.stdout
    };
    fencewired(&["keygen"]);
    let mut daemon = setup.wire(&line).wire("keyless = true").start();
    let keyed = fencewired(&["enroll", Guest::new("keyed").uuid_text()]);
    let keys = [Keys::keyless(), read_file(keyed.as_bytes()).expect("a key file")];
    daemon.process().signal(Signal::HUP);
    daemon.wait_for_log(" reloaded ");
    let mut plain = daemon.channel("plain");
    let native = ["keyless", "keyed"].map(|guest| daemon.channel(guest));
    settle();
    let target = || Target::parse(b"target").expect("a name");
    let rows = [
        ("status", STATUS, Ask::Status(target())),
        ("off", OFF, Ask::Power(PowerAction::Off, target())),
        ("on", ON, Ask::Power(PowerAction::On, target())),
    ];
    let mut times: [[Times; 3]; 3] = Default::default();
    let mut ask = |row: usize, wire: usize| {
        let (_, action, ask) = &rows[row];
        match wire.checked_sub(1) {
            None => times[row][wire].ask(&mut plain, *action, 1),
            Some(wire) => {
                let begun = Instant::now();
                let reply = ask_native(&native[wire], &keys[wire], ask);
                times[row][wire + 1].0.push(begun.elapsed());
                assert!(matches!(reply, Reply::Done | Reply::Power(Power::On)), "{reply:?}");
            }
        }
    };
    for _ in 0..ROUNDS * POWERS {
        for wire in 0..3 {
            for _ in 0..STATUSES / POWERS {
                ask(0, wire);
            }
            ask(1, wire);
            ask(2, wire);
        }
    }
    println!("fencewired by each of its wires, libvirt's test driver; {} turns.\n", ROUNDS * POWERS);
    println!("| request | classic p50 | keyless p50 | keyed p50 | p99 | keyed to classic, p50 |");
    println!("|---|---|---|---|---|---|");
    for ((row, ..), [classic, keyless, keyed]) in rows.iter().zip(&mut times) {
        let (classic, keyless, p50, p99) = (classic.at(0.5), keyless.at(0.5), keyed.at(0.5), keyed.at(0.99));
        let ratio = p50.as_secs_f64() / classic.as_secs_f64();
        println!("| {row} | {} | {} | {} | {} | {ratio:.2} |", shown(classic), shown(keyless), shown(p50), shown(p99));
    }
    println!();
}

/// Sixteen guests reboot sixteen others at once, each over its own channel.
fn sixteen() {
    const GUESTS: usize = 16;
    let names = |kind: &str| (0..GUESTS).map(|number| format!("{kind}{number}")).collect::<Vec<_>>();
    let (askers, targets) = (names("asker"), names("target"));
    let all: Vec<&str> = askers.iter().chain(&targets).map(String::as_str).collect();
    let guests = || all.iter().map(|name| Guest::new(name));
    let reboot = |mut channels: Vec<GuestChannel>| {
        let begun = Instant::now();
        for (channel, target) in channels.iter_mut().zip(&targets) {
            channel.send(&request(REBOOT, target.as_bytes(), fresh_seqno()));
        }
        for channel in &mut channels {
            assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE * 2)), 0, "a reboot was not done");
        }
        begun.elapsed()
    };
    let theirs = FenceVirtd::start(guests());
    let took_theirs = reboot(askers.iter().map(|asker| theirs.channel(asker)).collect());
    drop(theirs);
    let mut ours = Times::default();
    for _ in 0..ROUNDS {
        let mut daemon = Daemon::setup().served(guests()).group("all", &all, "").start();
        ours.0.push(reboot(askers.iter().map(|asker| daemon.channel(asker)).collect()));
    }
    println!(
        "{GUESTS} guests reboot {GUESTS} others at once: the time until all are answered; ours the median of {ROUNDS}.\n"
    );
    println!("| fence_virtd | fencewired | ratio |");
    println!("|---|---|---|");
    let median = ours.at(0.5);
    let ratio = median.as_secs_f64() / took_theirs.as_secs_f64();
    println!("| {} | {} | {ratio:.5} |\n", shown(took_theirs), shown(median));
}

/// `fence_virt -T` as a process, to either daemon.
fn by_tcp() {
    let guests = || ["asker", "target"].map(Guest::new);
    let theirs = ByTcp::start(guests(), "sha256", "sha256");
    let ours = Daemon::setup().known(guests()).group("all", &["asker", "target"], "").tcp("all", "").start();
    let port = ours.tcp(0);
    let mut rows = [("status", Times::default(), Times::default()), ("off", Times::default(), Times::default())];
    let ask = |times: &mut Times, is_ours: bool, action: &str| {
        let arguments = ["-o", action, "-H", "target"];
        let done = if is_ours {
            by_tcp_to(port.address(), port.key_file(), &arguments)
        } else {
            theirs.fence_virt(&arguments)
        };
        assert_eq!(done.code, Some(0), "{action}: {}", done.stdout);
        times.0.push(done.elapsed);
    };
    for _ in 0..POWERS * ROUNDS {
        for is_ours in [false, true] {
            for (action, their_times, our_times) in &mut rows {
                ask(if is_ours { our_times } else { their_times }, is_ours, action);
            }
            ask(&mut Times::default(), is_ours, "on");
        }
    }
    println!("`fence_virt -T` as a process, from exec to exit; {} runs of each in turn.\n", POWERS * ROUNDS);
    println!("| request | fence_virtd p50 | fencewired p50 | ratio |");
    println!("|---|---|---|---|");
    for (row, theirs, ours) in &mut rows {
        let (theirs, ours) = (theirs.at(0.5), ours.at(0.5));
        println!("| {row} | {} | {} | {:.2} |", shown(theirs), shown(ours), ours.as_secs_f64() / theirs.as_secs_f64());
    }
    println!();
}

/// What a fence takes when there is a QEMU to end, beside libvirt's own client.
fn real_guests() {
    let host = Host::start();
    host.run(&Machine::new("asker"));
    host.run(&Machine::new("target"));
    let served = Daemon::setup().uri(&host.uri()).served([Guest::new("asker")]);
    let mut daemon = served.group("both", &["asker", "target"], "").start();
    let mut channel = daemon.channel("asker");
    let mut times: [Times; 4] = Default::default();
    let virsh = |times: &mut Times, action| {
        let begun = Instant::now();
        host.virsh(&[action, "target"]);
        times.0.push(begun.elapsed());
    };
    for _ in 0..FENCES {
        virsh(&mut times[0], "domstate");
        virsh(&mut times[1], "destroy");
        host.switch_on("target");
        times[2].ask(&mut channel, OFF, 1);
        let qemu = host.switch_on("target");
        times[3].ask(&mut channel, REBOOT, 1);
        assert!(!qemu.lives(), "rebooted, and its first process lives");
    }
    println!("With a QEMU behind it (emulated, without a system); {FENCES} of each in turn.\n");
    println!("| what | p50 | slowest |");
    println!("|---|---|---|");
    let rows = ["`virsh domstate`, a process", "`virsh destroy`, a process", "fencewired, off", "fencewired, reboot"];
    for (row, times) in rows.iter().zip(&mut times) {
        println!("| {row} | {} | {} |", shown(times.at(0.5)), shown(times.at(1.0)));
    }
    println!();
}

fn shown(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    if micros < 1_000.0 { format!("{micros:.0} µs") } else { format!("{:.2} ms", micros / 1_000.0) }
}

/// One of the two agents, and how it is asked for a status.
struct Agent {
    name: &'static str,
    file: std::path::PathBuf,
    arguments: [&'static str; 4],
}

fn agents() {
    let agents = [
        Agent { name: "fence_virt", file: program("fence_virt"), arguments: ["-o", "status", "-H", "target"] },
        Agent { name: "fence_wire", file: ours("fence_wire"), arguments: ["-o", "status", "-n", "target"] },
    ];
    println!("A status as a process, over a pseudo-terminal to fencewired; {PROCESSES} runs of each in turn.\n");
    println!("| agent | bytes on disk | its libraries | VmHWM | page faults | system calls | exec to exit p50 | p99 |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut times = exec_to_exit(&agents);
    for (agent, times) in agents.iter().zip(&mut times) {
        let (size, libraries) = sizes(&agent.file);
        let (resident, faults) = while_it_waits(agent);
        let calls = system_calls(agent);
        let (p50, p99) = (shown(times.at(0.5)), shown(times.at(0.99)));
        println!("| {} | {size} | {libraries} | {resident} | {faults} | {calls} | {p50} | {p99} |", agent.name);
    }
}

impl Agent {
    fn on(&self, device: &Path) -> Command {
        let mut command = Command::new(&self.file);
        command.arg("-D").arg(device).args(self.arguments);
        command
    }
}

fn bridge(folder: &Path) -> (FenceVirt, Daemon) {
    let port = FenceVirt::new(folder);
    let daemon = Daemon::setup()
        .known(["asker", "target"].map(Guest::new))
        .channel("unix", port.socket_path(), "asker")
        .group("all", &["asker", "target"], "")
        .start();
    port.wait_for_bridge(DEADLINE);
    let settled = run(Command::new(ours("fence_wire")).arg("-D").arg(port.device()).args(["-o", "monitor"]), DEADLINE);
    assert_eq!(settled.code, Some(0), "the bridge does not answer: {settled:?}");
    (port, daemon)
}

fn exec_to_exit(agents: &[Agent; 2]) -> [Times; 2] {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (port, _daemon) = bridge(folder.path());
    let mut times: [Times; 2] = Default::default();
    for _ in 0..PROCESSES {
        for (agent, times) in agents.iter().zip(&mut times) {
            let Finished { code, elapsed, stderr, .. } = run(&mut agent.on(port.device()), DEADLINE);
            assert_eq!(code, Some(0), "{}: {stderr}", agent.name);
            times.0.push(elapsed);
        }
    }
    times
}

/// Its own bytes, and those of the libraries that it loads.
fn sizes(file: &Path) -> (u64, u64) {
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    let listed = run(Command::new(program("ldd")).arg(file), DEADLINE).stdout;
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(|path| size(Path::new(path)));
    (size(file), libraries.sum())
}

/// Peak resident memory and page faults of an agent that has asked and waits for the answer.
fn while_it_waits(agent: &Agent) -> (String, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let port = FenceVirt::new(folder.path());
    let mut nobody = UnixStream::connect(port.socket_path()).expect("the port's socket");
    port.wait_for_bridge(DEADLINE);
    let waiting = Process::start(&mut agent.on(port.device()));
    nobody.read_exact(&mut [0; REQUEST_LENGTH]).expect("its request");
    let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", waiting.id())).unwrap_or_default();
    let resident = wait_until(DEADLINE, "the agent's memory", || {
        let status = of("status");
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(|text| text.trim().to_owned())
    });
    // Fields are counted after the name, which is in brackets: state is the first, minor faults the eighth.
    let stat = of("stat");
    let faults = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(7)).unwrap_or("?").to_owned();
    (resident, faults)
}

fn system_calls(agent: &Agent) -> usize {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (port, _daemon) = bridge(folder.path());
    let log = folder.path().join("calls");
    let mut traced = Command::new(program("strace"));
    traced.args(["-f", "-qq", "-o"]).arg(&log);
    let agent = agent.on(port.device());
    let done = run(traced.arg(agent.get_program()).args(agent.get_args()), DEADLINE);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    fs::read_to_string(log).unwrap_or_default().lines().count()
}
