//! Guests that have a key of their own are served with it, and in no other way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fencewire_tests::daemon::{Daemon, Setup, ask, settle};
use fencewire_tests::guest_channel::{OFF, STATUS, SUCCESS, fresh_seqno, request};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::{DEADLINE, Finished, ours, run, wait_until};
use rustix::process::Signal;

use crate::second::{Second, ask_over};

/// Long enough for three hellos.
const BRIEFLY: [&str; 2] = ["--timeout", "1.5"];

/// A daemon with a master key, and what its operator does.
pub(crate) struct Keyed {
    pub(crate) daemon: Daemon,
    folder: PathBuf,
}

impl Keyed {
    /// Nobody has a key yet: who is to have one is enrolled while it serves.
    #[track_caller]
    pub(crate) fn start(served: &[&str], setup: impl FnOnce(Setup) -> Setup) -> Self {
        let bed = setup(Daemon::setup().served(served.iter().copied().map(Guest::new)));
        let folder = bed.folder().to_owned();
        let line = format!("master_key = \"{}\"", folder.join("master.key").display());
        // To make a key, a file that names it is enough.
        let stub = folder.join("stub.toml");
        fs::write(&stub, format!("[wire]\n{line}\n")).expect("a file");
        let made = fencewired(&["keygen"], &stub);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        assert!(made.stdout.contains("made"), "{}", made.stdout);
        Self { daemon: bed.wire(&line).start(), folder }
    }

    /// Gives the file with the guest's new key, which counts from the next reload on.
    #[track_caller]
    pub(crate) fn enroll(&self, guest: &str, file: &str) -> PathBuf {
        let path = self.folder.join(file);
        let shown = path.to_str().expect("a test's paths are UTF-8");
        let done = fencewired(&["enroll", guest, "--out", shown], &self.daemon.config());
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stderr.contains("reload fencewired"), "{}", done.stderr);
        path
    }

    #[track_caller]
    pub(crate) fn reload(&mut self) {
        let reloads = |daemon: &Daemon| daemon.log().lines().filter(|line| line.contains(" reloaded ")).count();
        let before = reloads(&self.daemon);
        self.daemon.process().signal(Signal::HUP);
        wait_until(DEADLINE, "the reload", || (reloads(&self.daemon) > before).then_some(()));
    }

    /// How often the log says that somebody proved nothing.
    fn unproved(&self) -> usize {
        self.daemon.log().lines().filter(|line| line.contains("a frame that proves nothing")).count()
    }
}

#[track_caller]
fn fencewired(arguments: &[&str], config: &Path) -> Finished {
    run(Command::new(ours("fencewired")).args(arguments).arg("--config").arg(config), DEADLINE)
}

#[test]
fn an_enrolled_guest_is_served_with_its_key() {
    let mut bed = Keyed::start(&["vm1", "vm2"], |setup| setup);
    let key = bed.enroll("vm1", "vm1.key");
    let by_uuid = bed.enroll(Guest::new("vm2").uuid_text(), "vm2.key");
    bed.reload();
    let vm1 = Second::connecting(&bed.daemon.socket_path("vm1")).key(&key);
    let vm2 = Second::connecting(&bed.daemon.socket_path("vm2")).key(&by_uuid);
    assert_eq!(vm1.ask(&["monitor"]).text("said"), "alive");
    assert_eq!(vm1.ask(&["list"]).outcome["guests"][0]["name"], "vm2");
    vm1.ask(&["off", "vm2"]).is_done("off", false);
    assert_eq!(vm1.ask(&["status", "vm2"]).code, Some(2));
    vm1.ask(&["on", "vm2"]).is_done("on", false);
    vm2.ask(&["reboot", "vm1"]).is_done("rebooted", false);
    assert_eq!(vm2.ask(&["status", "vm1"]).code, Some(0));
    let (shown, _) = bed.daemon.status();
    let channels = shown["channels"].as_array().expect("channels");
    assert!(channels.iter().all(|channel| channel["wire"] == "native_keyed"), "{shown:#}");
    // The first was rebooted by the second: nobody is in a session there any more but who asked after that.
    assert!(channels.iter().any(|channel| channel["session"] == true), "{shown:#}");
    let records = bed.daemon.stop_and_read_records();
    let done: Vec<_> = records.iter().filter(|record| record["action"] == "reboot").collect();
    assert_eq!((done.len(), done[0]["requester"].as_str(), done[0]["target"].as_str()), (1, Some("vm2"), Some("vm1")));
}

/// Each stands where the guest's own channel ends, and asks for the same.
#[test]
fn who_has_another_key_or_none_is_not_answered() {
    let mut bed = Keyed::start(&["vm1", "vm2", "vm3", "victim"], |setup| setup.wire("keyless = true"));
    let first = bed.enroll("vm1", "first.key");
    let key = bed.enroll("vm1", "vm1.key");
    let others = bed.enroll("vm2", "vm2.key");
    let revoked = bed.enroll("vm3", "vm3.key");
    let done = fencewired(&["revoke", "vm3"], &bed.daemon.config());
    assert!(done.code == Some(0) && done.stdout.contains("worthless"), "{}{}", done.stdout, done.stderr);
    bed.reload();

    // The same guest and generation, and the last digit of the guest's key is another.
    let text = fs::read_to_string(&key).expect("a key file");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let digit = if lines[3].pop() == Some('0') { '1' } else { '0' };
    lines[3].push(digit);
    let wrong = bed.folder.join("wrong.key");
    fs::write(&wrong, format!("{}\n", lines.join("\n"))).expect("a file");

    let vm1 = Second::connecting(&bed.daemon.socket_path("vm1"));
    let vm3 = Second::connecting(&bed.daemon.socket_path("vm3"));
    let off = [&BRIEFLY[..], &["off", "victim"]].concat();
    for (who, second) in [
        ("another key", vm1.clone().key(&wrong)),
        ("the key from before it was enrolled again", vm1.clone().key(&first)),
        ("another guest's key", vm1.clone().key(&others)),
        ("no key", vm1.clone().keyless()),
        ("a revoked key", vm3.clone().key(&revoked)),
        ("no key, after it was revoked", vm3.clone().keyless()),
    ] {
        let before = bed.unproved();
        second.ask(&off).is_nothing();
        assert!(bed.unproved() > before, "{who}: a line in the log\n{}", bed.daemon.log());
    }
    assert_eq!(vm1.key(&key).ask(&["status", "victim"]).text("runs"), "on", "and its own key is good all the while");
    bed.daemon.stop_and_expect_no_act();
}

#[test]
fn an_enrolled_guest_is_not_answered_over_fence_virts_wire() {
    let mut bed = Keyed::start(&["vm1", "vm2"], |setup| setup);
    let mut vm1 = bed.daemon.channel("vm1");
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "before it was enrolled");
    let key = bed.enroll("vm1", "vm1.key");
    bed.reload();
    settle();
    for action in [STATUS, OFF] {
        vm1.send(&request(action, b"vm2", fresh_seqno()));
        vm1.expect_silence(Duration::from_millis(500));
    }
    let line = bed.daemon.wait_for_log("a frame of fence-virt's wire");
    assert!(line.contains("vm1") && line.contains("give its agent the key file"), "{line}");
    let (said, _) = ask_over(&mut vm1, Some(&key), &["status", "vm2"], |bytes| {
        [&request(OFF, b"vm2", fresh_seqno())[..], &bytes].concat()
    });
    assert_eq!(said.text("runs"), "on", "{said:?}");
    bed.daemon.stop_and_expect_no_act();
}

/// A guest that was revoked has a key again once it is enrolled again; the others keep theirs.
#[test]
fn a_revoked_guest_is_enrolled_again() {
    let mut bed = Keyed::start(&["vm1", "vm2"], |setup| setup);
    let (old, vm2) = (bed.enroll("vm1", "old.key"), bed.enroll("vm2", "vm2.key"));
    assert_eq!(fencewired(&["revoke", "vm1"], &bed.daemon.config()).code, Some(0));
    let new = bed.enroll("vm1", "new.key");
    bed.reload();
    let one = Second::connecting(&bed.daemon.socket_path("vm1"));
    let two = Second::connecting(&bed.daemon.socket_path("vm2"));
    one.clone().key(&old).ask(&[&BRIEFLY[..], &["monitor"]].concat()).is_nothing();
    assert_eq!(one.key(&new).ask(&["monitor"]).code, Some(0));
    assert_eq!(two.key(&vm2).ask(&["monitor"]).code, Some(0));
}

/// Until the daemon reads its files again, it serves as it did.
#[test]
fn a_reload_with_a_bad_list_of_guests_changes_nothing() {
    let mut bed = Keyed::start(&["vm1", "vm2"], |setup| setup);
    let key = bed.enroll("vm1", "vm1.key");
    bed.reload();
    let vm1 = Second::connecting(&bed.daemon.socket_path("vm1")).key(&key);
    assert_eq!(vm1.ask(&["monitor"]).code, Some(0));
    fs::write(bed.folder.join("master.key.guests"), "nonsense\n").expect("a file");
    bed.daemon.process().signal(Signal::HUP);
    let line = bed.daemon.wait_for_log("master.key.guests");
    assert!(line.contains("line 1") && line.contains("ERROR"), "{line}");
    bed.daemon.wait_for_log("not reloaded");
    assert_eq!(vm1.ask(&["monitor"]).code, Some(0));
}

/// The list of guests stays: who was enrolled with the old one is served with a key of the new one, or not at all.
#[test]
fn a_new_master_key_makes_all_keys_worthless() {
    let mut bed = Keyed::start(&["vm1", "vm2"], |setup| setup.wire("keyless = true"));
    let old = bed.enroll("vm1", "old.key");
    fs::remove_file(bed.folder.join("master.key")).expect("it was there");
    assert_eq!(fencewired(&["keygen"], &bed.daemon.config()).code, Some(0));
    bed.reload();
    let vm1 = Second::connecting(&bed.daemon.socket_path("vm1"));
    let monitor = [&BRIEFLY[..], &["monitor"]].concat();
    vm1.clone().key(&old).ask(&monitor).is_nothing();
    vm1.clone().keyless().ask(&monitor).is_nothing();
    let new = bed.enroll("vm1", "new.key");
    bed.reload();
    assert_eq!(vm1.key(&new).ask(&monitor).code, Some(0));
}
