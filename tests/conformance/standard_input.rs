//! The same lines on the standard input of Debian's fence_virt and of ours, and what each then asks its bridge for.
//!
//! Where the two differ the table says how, and why ours does. What only ours is given (garbage, sockets, devices) is in
//! `bad_input`; how lines are read is in the agent's own tests.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fencewire_tests::fence_virt::FenceVirt;
use fencewire_tests::guest_channel::{GuestChannel, MAGIC, REQUEST_LENGTH, SUCCESS};
use fencewire_tests::process::{DEADLINE, Finished, ours, program, run, run_with_input};
use tempfile::TempDir;

/// A serial port, and a bridge that does all it is asked for and remembers what that was.
struct Bed {
    /// None: on the way out.
    port: Option<FenceVirt>,
    device: String,
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
    bridge: Option<JoinHandle<()>>,
    _folder: TempDir,
}

/// What came of some lines.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The bridge was asked for this.
    Asks(String),
    /// The bridge was asked for nothing.
    Refuses,
    /// Nobody was asked, and all is well.
    Done,
}

impl Bed {
    #[track_caller]
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a private folder");
        let port = FenceVirt::new(folder.path());
        let channel = UnixStream::connect(port.socket_path()).expect("the port's other end");
        port.wait_for_bridge(DEADLINE);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let bridge = thread::spawn({
            let asked = Arc::clone(&asked);
            move || answer_all(channel, &asked)
        });
        let device = port.device().display().to_string();
        Self { port: Some(port), device, asked, bridge: Some(bridge), _folder: folder }
    }

    /// Gives the lines to an agent, after one that names the port. What came of it, and what was said.
    #[track_caller]
    fn tell(&self, agent: &mut Command, lines: &[u8]) -> (Answer, String) {
        let device = format!("serial_device={}\n", self.device);
        let Finished { code, stdout, stderr, .. } =
            run_with_input(agent, &[device.as_bytes(), lines].concat(), DEADLINE);
        let mut asked = std::mem::take(&mut *self.asked.lock().expect("the bridge goes on"));
        // Ours repeats a request that is not answered soon.
        asked.dedup();
        let answer = match (asked.as_slice(), code) {
            ([frame], Some(0)) => Answer::Asks(spelled(frame)),
            ([], Some(0)) => Answer::Done,
            ([], Some(1)) => Answer::Refuses,
            _ => panic!("{code:?} after {asked:?} was asked for: {stderr}"),
        };
        (answer, stdout + &stderr)
    }

    #[track_caller]
    fn theirs(&self, lines: &[u8]) -> (Answer, String) {
        self.tell(&mut Command::new(program("fence_virt")), lines)
    }

    #[track_caller]
    fn ours(&self, lines: &[u8]) -> (Answer, String) {
        self.tell(&mut Command::new(ours("fence_wire")), lines)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.port = None;
        if let Some(bridge) = self.bridge.take() {
            drop(bridge.join());
        }
    }
}

/// Says "done" to each request, until the other end is gone.
fn answer_all(mut channel: UnixStream, asked: &Mutex<Vec<Vec<u8>>>) {
    let mut frame = vec![0; REQUEST_LENGTH];
    while channel.read_exact(&mut frame).is_ok() {
        // Remembered first: who has the answer may look at once.
        asked.lock().expect("nobody panics with it").push(frame.clone());
        if channel.write_all(&[&MAGIC[..], &[SUCCESS]].concat()).is_err() {
            break;
        }
    }
}

/// A request in words, such as "off vm2".
fn spelled(frame: &[u8]) -> String {
    const ACTIONS: [&str; 7] = ["null", "off", "reboot", "on", "status", "monitor", "list"];
    let name = frame[6..70].split(|byte| *byte == 0).next().unwrap_or_default();
    format!("{} {}", ACTIONS[usize::from(frame[4])], String::from_utf8_lossy(name))
}

/// A row's answer: a request in words; "" for a refusal; "-" for a success without a request.
fn answer(text: &str) -> Answer {
    match text {
        "" => Answer::Refuses,
        "-" => Answer::Done,
        request => Answer::Asks(request.to_owned()),
    }
}

const LONG: &str = "a-name-that-has-63-bytes-which-is-as-many-as-this-wire-can-take";

#[test]
fn the_same_lines_are_the_same_request() {
    let bed = Bed::start();
    let long = format!("action=off\nport={LONG}\n");
    let long_line = format!("action=off\nunknown={}\nport=vm2\n", "x".repeat(5000));
    let pacemakers = "nodename=node2\naction=off\nport=vm2\ndelay=0\ncrm_feature_set=3.16.1\npcmk_host_map=node2:vm2\n\
                      CRM_meta_timeout=60000\nquiet=1\nverbose=1\n";
    for (lines, request) in [
        ("action=off\nport=vm2\n", "off vm2"),
        ("port=vm2\naction=off\n", "off vm2"),
        ("action=off\nport=vm2", "off vm2"),
        ("action=off\nplug=vm2\n", "off vm2"),
        ("action=off\ndomain=vm2\n", "off vm2"),
        ("option=off\nport=vm2\n", "off vm2"),
        ("action=OFF\nport=vm2\n", "off vm2"),
        ("ACTION=off\nPORT=vm2\n", "off vm2"),
        ("#action=on\n\n\naction=off\nport=vm2\n", "off vm2"),
        ("action=off\r\nport=vm2\r\n", "off vm2"),
        ("\taction=off\n\tport=vm2\t\n", "off vm2"),
        (pacemakers, "off vm2"),
        ("action=off\nport=a=b\n", "off a=b"),
        ("action=off\nport=Büro\n", "off Büro"),
        (&long, &format!("off {LONG}")),
        (&long_line, "off vm2"),
        ("port=vm2\n", "reboot vm2"),
        ("action=reboot\nport=vm2\n", "reboot vm2"),
        ("action=on\nport=vm2\n", "on vm2"),
        ("action=status\nport=vm2\n", "status vm2"),
        ("action=monitor\n", "monitor "),
        // The last action counts, under whichever name.
        ("action=off\naction=status\nport=vm2\n", "status vm2"),
        ("option=off\naction=status\nport=vm2\n", "status vm2"),
        ("action=off\noption=status\nport=vm2\n", "status vm2"),
        // Nobody else is asked.
        ("action=validate-all\nport=node1\n", "-"),
        ("action=metadata\n", "-"),
        // A line that both ignore, beside an action.
        ("action=off\ngarbage\nport=vm2\n", "off vm2"),
        ("=x\naction=off\nport=vm2\n", "off vm2"),
    ] {
        let (theirs, said) = bed.theirs(lines.as_bytes());
        assert_eq!(theirs, answer(request), "theirs: {lines:?}: {said}");
        let (ours, said) = bed.ours(lines.as_bytes());
        assert_eq!(ours, theirs, "ours, then theirs: {lines:?}: {said}");
    }
}

#[test]
fn neither_takes_what_is_no_order() {
    let bed = Bed::start();
    for lines in [
        "",
        "action=off\n",
        "action=off\nnodename=vm2\n",
        "action=off\nuuid=vm2\n",
        "action=off\nport=\n",
        "action=off\nport\n",
        "action=off\nport=vm2\nport=\n",
        "action=\nport=vm2\n",
        "action=fence\nport=vm2\n",
        "action=start\n",
        "action=enable\nport=vm2\n",
        "action=off;port=vm2\n",
        "action=\"off\"\nport=\"vm2\"\n",
        "action=off\nport=vm2\nplug=vm3\n",
        "action=off\nplug=vm3\nport=vm2\n",
        "action=off\nport=a-name-of-64-bytes-which-is-one-more-than-this-wire-can-ever-carry\n",
        "action=off\nport=vm2\ntimeout=soon\n",
        "action=off\nport=vm2\ntimeout=0\n",
        "action=off\nport=vm2\ntimeout=-1\n",
        "action=off\nport=vm2\nipport=0\n",
    ] {
        let (theirs, said) = bed.theirs(lines.as_bytes());
        assert_eq!(theirs, Answer::Refuses, "theirs: {lines:?}: {said}");
        let (ours, said) = bed.ours(lines.as_bytes());
        assert_eq!(ours, Answer::Refuses, "ours: {lines:?}: {said}");
        assert!(said.starts_with("fence_wire: ") && said.lines().count() == 1, "{lines:?}: {said}");
    }
}

#[test]
fn where_ours_takes_lines_otherwise_than_theirs() {
    let bed = Bed::start();
    let much = format!("action=off\n{}port=vm2\n", "unknown=x\n".repeat(1000));
    for (lines, theirs, ours, why) in [
        // A key that stands without its value, or behind what is no letter, is not taken for one that is not there.
        (&b"action\nport=vm2\n"[..], "reboot vm2", "", "a reboot that nobody asked for"),
        (b"\xef\xbb\xbfaction=off\nport=vm2\n", "reboot vm2", "", "a reboot instead of an off: a byte order mark"),
        (b"act\0ion=off\nport=vm2\n", "reboot vm2", "", "a reboot instead of an off: a NUL"),
        // A value is all of its line.
        (b"action=off\nport=vm 2\n", "off vm", "off vm 2", "another guest than the one that was named"),
        (b"action=off\nport=vm2\0x\n", "off vm2", "", "another guest than the one that was named"),
        (b"action=off\nport=vm2 # mine\n", "off vm2", "off vm2 # mine", "comments have lines of their own"),
        (b"action=off # now\nport=vm2\n", "off vm2", "", "comments have lines of their own"),
        (b"  action = off \n  port =  vm2  \n", "", "off vm2", "blanks are nothing"),
        // Names that cannot be a guest's, or cannot be carried.
        (b"action=off\nport=\xff\xfe\n", "off \u{fffd}\u{fffd}", "", "no text"),
        (b"action=off\nport=a\x1b[0m\n", "off a\x1b[0m", "", "a terminal would take it for a command"),
        (b"action=off\nport=cabbage-abba\n", "off cabbage-abba", "", "the frame could be taken for two"),
        // The last value counts, as with fence-agents' own library; where two keys differ, neither does.
        (b"action=off\nport=vm2\nport=vm3\n", "", "off vm3", "the last value counts"),
        // What this wire has no use for cannot be wrong.
        (b"action=off\nport=vm2\ntimeout=\n", "", "off vm2", "an empty value is none"),
        (b"action=off\nport=vm2\nauth=none\nkey_file=/missing\n", "", "off vm2", "no key on this wire"),
        (b"action=monitor\nport=vm2\n", "monitor vm2", "monitor ", "a monitor is about nobody"),
        (b"action=null\nport=vm2\n", "null vm2", "", "it could only fail"),
        // What would be silently something else than was asked for.
        (b"action=off\nport=vm2\nmulticast_address=225.0.0.12\n", "off vm2", "", "not the way that was named"),
        (b"action=off\nport=vm2\nuse_uuid=1\n", "off vm2", "", "not what was meant by it"),
        (much.as_bytes(), "off vm2", "", "8 KiB, ten times what Pacemaker sends, and no more"),
    ] {
        let shown = String::from_utf8_lossy(lines);
        let (got, said) = bed.theirs(lines);
        assert_eq!(got, answer(theirs), "theirs: {shown:?}: {said}");
        let (got, said) = bed.ours(lines);
        assert_eq!(got, answer(ours), "ours ({why}): {shown:?}: {said}");
    }
}

/// fence-agents' own library, in the one agent of it that needs no device.
#[test]
fn the_last_of_two_values_counts_with_others_too() {
    let folder = tempfile::tempdir().expect("a private folder");
    let file = folder.path().join("state");
    let told = |lines: &str| {
        let lines = format!("status_file={}\n{lines}", file.display());
        run_with_input(&mut Command::new(program("fence_dummy")), lines.as_bytes(), DEADLINE)
    };
    assert!(told("action=off\naction=on\n").stdout.contains("ON"));
    assert_eq!(told("action=off\naction=status\n").stdout, "Status: ON\n");
    assert_eq!(told("action\n").code, Some(1), "a key without a value is an empty one");
}

/// By letter and by name: it is said why, and what to do instead. Nothing is asked for.
#[test]
fn what_only_fence_xvm_has_is_refused_with_advice() {
    let mut device = GuestChannel::listen();
    let path = device.path().display().to_string();
    for (letter, name, value, advice) in [
        ("-a", "multicast_address", "225.0.0.12", "multicast needs a network, leave it out"),
        ("-i", "ip_family", "ipv4", "multicast needs a network, leave it out"),
        ("-I", "interface", "eth0", "multicast needs a network, leave it out"),
        ("-r", "retrans", "20", "multicast needs a network, leave it out"),
        ("-u", "use_uuid", "1", "a UUID is known by its shape, leave it out"),
    ] {
        let mut arguments = vec!["-D", &path, "-o", "off", "-n", "vm2", letter];
        arguments.extend((letter != "-u").then_some(value));
        let called = run(Command::new(ours("fence_wire")).args(arguments), DEADLINE);
        let lines = format!("serial_device={path}\naction=off\nplug=vm2\n{name}={value}\n");
        let told = run_with_input(&mut Command::new(ours("fence_wire")), lines.as_bytes(), DEADLINE);
        for finished in [called, told] {
            assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{name}");
            assert_eq!(finished.stderr, format!("fence_wire: {name} is not served: {advice}\n"));
        }
    }
    assert!(!device.accept_within(Duration::ZERO), "the bridge was called");
}

/// Every option of their two agents is one of ours, by the same name and the same letter: a bad value for it is noticed,
/// alike by both.
#[test]
fn ours_knows_every_option_of_theirs() {
    let bed = Bed::start();
    let base = "debug=1\naction=off\nplug=vm2\n";
    let without = bed.ours(base.as_bytes());
    for agent in ["fence_virt", "fence_xvm"] {
        let metadata = run(Command::new(program(agent)).args(["-o", "metadata"]), DEADLINE).stdout;
        let parameters: Vec<_> = metadata.split("<parameter ").skip(1).collect();
        assert!(parameters.len() > 10, "{metadata}");
        for parameter in parameters {
            let attribute = |before| {
                let (_, after) = parameter.split_once(before).expect("a parameter has it");
                after.split('"').next().expect("it is in quotes")
            };
            let (name, letter) = (attribute("name=\""), attribute("mixed=\""));
            let is_debug = name == "debug";
            let value = if is_debug { "0" } else { "bad" };
            let by_name = bed.ours(format!("{base}{name}={value}\n").as_bytes());
            assert_ne!(by_name, without, "{name}");
            if !letter.is_empty() && !is_debug {
                let mut command = Command::new(ours("fence_wire"));
                command.args(["-D", &bed.device, "-d", "-o", "off", "-n", "vm2", letter]);
                // Their metadata call it a string, but the letter takes no value.
                command.args((name != "use_uuid").then_some(value));
                assert_eq!(bed.tell(&mut command, b""), by_name, "{letter}, {name}");
            }
        }
    }
}
