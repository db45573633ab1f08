//! What our agent costs the guest: bytes on the disk, memory, system calls. It is for guests in which everything else
//! fails, and each of these is something that can. And what it leaves in memory of a key.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use fencewire_tests::fence_virtd::FenceVirtd;
use fencewire_tests::fence_virtd::tcp::ByTcp;
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::{DEADLINE, Process, ours, program, run, wait_until};

/// Eight pages of 4 KiB.
const SIZE: u64 = 32_768;

/// Kilobytes that are resident at most, its own code included.
const RESIDENT: u32 = 64;

/// From exec to exit, of a status by a unix socket, exec included: 15, and 3 for an answer that comes in two pieces.
const CALLS_BY_SOCKET: usize = 18;

/// The same by TCP: 26, and 6 for pieces. The key is opened, read, read to its end and closed; random bytes are asked for
/// twice; and there is a proof to be read and one to be written, each with a wait and a look at the clock.
const CALLS_BY_TCP: usize = 32;

const STATUS: [&str; 4] = ["-o", "status", "-n", "vm2"];

#[test]
fn bytes_on_the_disk() {
    let size = fs::metadata(ours("fence_wire")).expect("our agent").len();
    assert!(size <= SIZE, "{size} bytes");
}

#[test]
fn memory_while_it_waits_for_an_answer() {
    let folder = tempfile::tempdir().expect("a private folder");
    let (socket, key) = (folder.path().join("socket"), folder.path().join("key"));
    fs::write(&key, [7; 4096]).expect("a key file");
    let unix = UnixListener::bind(&socket).expect("a socket");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port on the loopback interface");
    let port = tcp.local_addr().expect("its address").port().to_string();

    let mut agent = Command::new(ours("fence_wire"));
    let process = Process::start(agent.arg("-D").arg(&socket).args(STATUS));
    let (mut stream, _) = unix.accept().expect("the agent's connection");
    stream.read_exact(&mut [0; 74]).expect("its request");
    let by_socket = process.resident();

    let lines = format!("ipaddr=127.0.0.1\nipport={port}\nkey_file={}\naction=status\nplug=vm2\n", key.display());
    let process = Process::start_with_input(&mut Command::new(ours("fence_wire")), lines.as_bytes());
    let (mut stream, _) = tcp.accept().expect("the agent's connection");
    stream.read_exact(&mut [0; 176 + 64]).expect("its request and its challenge");
    let by_tcp = process.resident();

    assert!(by_socket <= RESIDENT && by_tcp <= RESIDENT, "{by_socket} kB by a socket, {by_tcp} kB by TCP");
}

/// All that the agent can write to.
#[track_caller]
fn stack(process: &Process) -> Vec<u8> {
    let at = |file: &str| format!("/proc/{}/{file}", process.id());
    let maps = fs::read_to_string(at("maps")).expect("a running process");
    let line = maps.lines().find(|line| line.ends_with("[stack]")).expect("a stack");
    let (begin, end) = line.split_whitespace().next().and_then(|range| range.split_once('-')).expect("a range");
    let [begin, end] = [begin, end].map(|at| u64::from_str_radix(at, 16).expect("an address"));
    let mut bytes = vec![0; usize::try_from(end - begin).expect("a stack fits")];
    File::open(at("mem")).and_then(|file| file.read_exact_at(&mut bytes, begin)).expect("the memory of a child");
    bytes
}

/// The file is read to where nothing of it stays. Of a key whose length is a multiple of a hash's block its last block may
/// be there, and what all of it was made into; no more.
#[test]
fn the_key_does_not_stay_in_memory() {
    let folder = tempfile::tempdir().expect("a private folder");
    let key_file = folder.path().join("key");
    let mut key = [0; 4096];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut key)).expect("random bytes");
    fs::write(&key_file, key).expect("a key file");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on the loopback interface");
    let port = listener.local_addr().expect("its address").port().to_string();
    let mut agent = Command::new(ours("fence_wire"));
    let process = Process::start(agent.args(["-T", "127.0.0.1", "-p", &port, "-k"]).arg(&key_file).args(STATUS));
    let (mut stream, _) = listener.accept().expect("the agent's connection");
    let mut sent = [0; 176 + 64];
    stream.read_exact(&mut sent).expect("its request and its challenge");

    let stack = stack(&process);
    let has = |part: &[u8]| stack.windows(part.len()).any(|window| window == part);
    assert!(has(&sent[176..]), "its challenge is there, so this is its memory");
    let found = key[..4096 - 128].chunks(16).filter(|part| has(part)).count();
    assert_eq!(found, 0, "parts of the key are there, 16 bytes each");
}

/// How many system calls a run makes.
#[track_caller]
fn calls(log: &Path, agent: &mut Command) -> usize {
    let mut traced = Command::new(program("strace"));
    traced.args(["-qq", "-o"]).arg(log).arg(agent.get_program()).args(agent.get_args());
    let done = run(&mut traced, DEADLINE);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "Status: ON\n"), "{}", done.stderr);
    let listed = wait_until(DEADLINE, "strace's list", || fs::read_to_string(log).ok());
    listed.lines().count()
}

#[test]
fn system_calls() {
    let folder = tempfile::tempdir().expect("a private folder");
    let log = folder.path().join("calls");
    let guests = || ["vm1", "vm2"].map(Guest::new);

    let mut daemon = FenceVirtd::start(guests());
    let socket = daemon.socket_path("vm1").to_owned();
    let by_socket = calls(&log, Command::new(ours("fence_wire")).arg("-D").arg(socket).args(STATUS));

    let daemon = ByTcp::start(guests(), "sha256", "sha256");
    let by_tcp = calls(&log, Command::new(ours("fence_wire")).args(daemon.options()).args(STATUS));

    assert!(by_socket <= CALLS_BY_SOCKET && by_tcp <= CALLS_BY_TCP, "{by_socket} by a socket, {by_tcp} by TCP");
}
