//! What `fence_wire` is given: on its command line, on its standard input, as its device. It fails with one sentence, and
//! the bridge hears nothing of it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use fencewire_tests::guest_channel::GuestChannel;
use fencewire_tests::process::{DEADLINE, Finished, Process, ours, run, run_with_input};

/// It failed, and said why in one sentence with this part in it.
#[track_caller]
fn has_failed(finished: &Finished, part: &str) {
    let Finished { code, signal, stdout, stderr, .. } = finished;
    assert_eq!((*code, *signal, stdout.as_str()), (Some(1), None, ""), "{stderr}");
    let is_sentence = stderr.starts_with("fence_wire: ") && stderr.find('\n') == Some(stderr.len() - 1);
    assert!(is_sentence && stderr.contains(part), "{part:?} in one sentence: {stderr:?}");
}

/// With a redirection as a shell writes it.
fn redirected(redirection: &str, arguments: &[&str]) -> Finished {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec \"$0\" \"$@\" {redirection}")).arg(ours("fence_wire"));
    run(shell.args(arguments), DEADLINE)
}

fn told(input: &[u8]) -> Finished {
    run_with_input(&mut Command::new(ours("fence_wire")), input, DEADLINE)
}

fn called(arguments: &[&str]) -> Finished {
    run(Command::new(ours("fence_wire")).args(arguments), DEADLINE)
}

#[test]
fn nothing_on_standard_input() {
    for finished in [told(b""), redirected("</dev/null", &[])] {
        has_failed(&finished, "standard input");
    }
    has_failed(&told(b"\n\n# a comment\n   \n"), "standard input");
}

#[test]
fn a_standard_input_that_cannot_be_read() {
    has_failed(&redirected("<&-", &[]), "standard input");
    has_failed(&redirected("</", &[]), "standard input");
}

#[test]
fn garbage_on_standard_input() {
    let device = GuestChannel::listen();
    let known = format!("serial_device={}\n", device.path().display());

    for garbage in [
        &b"garbage"[..],
        b"\xff\xfe\0\x01\n\0\n",
        b"==\n=\n",
        b"action\nport\n",
        &fs::read("/bin/true").expect("a program")[..4096],
    ] {
        has_failed(&told(&[known.as_bytes(), garbage].concat()), "");
    }
    has_failed(&told(&[known.as_bytes(), b"garbage\naction=off\n"].concat()), "key=value");
    has_failed(&told(&[b'x'; 9000]), "standard input");
    has_failed(&told(&[b'\n'; 9000]), "standard input");
    is_not_asked(device);
}

/// Nothing has connected to it.
#[track_caller]
fn is_not_asked(mut device: GuestChannel) {
    assert!(!device.accept_within(Duration::ZERO), "the bridge was called");
}

#[test]
fn options_that_are_none() {
    let device = GuestChannel::listen();
    let path = device.path().display().to_string();
    let long = "n".repeat(64);

    for (arguments, part) in [
        (&["-Q"][..], "Q"),
        (&["--off"], "fence_wire -h"),
        (&["off"], "'off'"),
        (&["-o"], "value"),
        (&["-o", "fence", "-n", "vm2"], "'fence'"),
        (&["-o", "", "-n", "vm2"], "action"),
        (&["-o", "null", "-n", "vm2"], "'null'"),
        (&["-o", "off"], "guest"),
        (&["-o", "off", "-n", ""], "guest"),
        (&[], "guest"),
        (&["-o", "off", "-n", &long], "63 bytes"),
        (&["-o", "off", "-n", "a\nb"], "control"),
        (&["-o", "off", "-n", "cabbage-abba"], "abba"),
        (&["-o", "off", "-n", "vm2", "-H", "vm3"], "guest"),
        (&["-o", "off", "-n", "vm2", "-t", "0"], "'0'"),
        (&["-o", "off", "-n", "vm2", "-t", "1e9"], "'1e9'"),
        (&["-o", "off", "-n", "vm2", "-w", "-1"], "'-1'"),
        (&["-o", "off", "-n", "vm2", "-P", "fast"], "'fast'"),
        (&["-o", "off", "-n", "vm2", "-a", "225.0.0.12"], "multicast"),
        (&["-o", "off", "-n", "vm2", "-S", "2"], "vsock"),
    ] {
        has_failed(&called(&[&["-D", &path], arguments].concat()), part);
    }
    is_not_asked(device);
}

#[test]
fn a_name_with_a_nul_in_it() {
    let device = GuestChannel::listen();
    let lines = format!("serial_device={}\naction=off\nplug=vm2\0x\n", device.path().display());
    has_failed(&told(lines.as_bytes()), "control");
    is_not_asked(device);
}

#[test]
fn a_device_that_is_none() {
    let folder = tempfile::tempdir().expect("a private folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("file"), "a regular file").expect("a regular file");
    let long = format!("/{}", "x".repeat(300));

    for (path, part) in [
        ("/", "folder"),
        (&at("file"), "file'"),
        (&at("missing"), "missing'"),
        ("/dev/null", "'/dev/null'"),
        (&long, "path"),
    ] {
        for arguments in [&["-o", "monitor"][..], &["-o", "off", "-n", "vm2"], &["-o", "list"]] {
            let finished = called(&[&["-D", path], arguments].concat());
            has_failed(&finished, part);
            assert!(finished.elapsed < Duration::from_secs(5), "at once: {:?}", finished.elapsed);
        }
    }
    assert_eq!(fs::read_to_string(at("file")).expect("it is still there"), "a regular file");
}

/// It must not take an endless stream for an answer, nor wait for its end.
#[test]
fn a_device_that_never_stops_talking() {
    has_failed(&called(&["-D", "/dev/zero", "-o", "monitor", "-t", "1"]), "'/dev/zero'");
    let mut bridge = GuestChannel::listen();
    for noise in [[0; 4096], [b'a'; 4096]] {
        let path = bridge.path().display().to_string();
        let mut process = Process::start(
            Command::new(ours("fence_wire")).args(["-D", &path, "-o", "status", "-n", "vm2", "-t", "1"]),
        );
        bridge.accept(DEADLINE);
        while bridge.try_send(&noise).is_ok() {}
        has_failed(&process.wait(DEADLINE), &path);
    }
}

/// A list of which a part is lost is no list.
#[test]
fn a_standard_output_that_cannot_be_written() {
    for redirection in [">/dev/full", ">&-"] {
        has_failed(&redirected(redirection, &["-o", "metadata"]), "standard output");
    }
}
