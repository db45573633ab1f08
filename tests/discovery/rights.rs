//! Sockets in folders that the bridge's user may not enter, as those are that a system's libvirtd makes for QEMU: what is
//! wrong is said once, nothing is served meanwhile, and all is soon after the right was given, without a restart.
//!
//! The bridge is `nobody` here, the folders are somebody else's, and root makes both: these tests need root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fencewire_tests::daemon::{Daemon, ask};
use fencewire_tests::guest_channel::{GuestChannel, OFF, STATUS, SUCCESS, fresh_seqno, request};
use fencewire_tests::libvirt_file::{Guest, uuid_of};
use fencewire_tests::process::{DEADLINE, program, run, wait_until};
use tempfile::TempDir;

use crate::common::{NAME, connected, serial};

/// Who QEMU is.
const QEMU: u32 = 12_345;

/// In which a channel would have been tried again several times, and a bridge that spins have used a processor up.
const WHILE: Duration = Duration::from_millis(2_500);

/// Far less than the 30 s after which everything is looked at again anyway.
const SOON: Duration = Duration::from_secs(10);

/// What was read of a guest so long ago is read again when its channel is connected.
const STALE: Duration = Duration::from_millis(1_100);

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
}

/// A folder that everybody may enter.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    set_mode(folder.path(), 0o755);
    folder
}

/// A socket of root's, whom the bridge trusts, to which everybody may connect who comes so far.
fn socket(path: PathBuf) -> GuestChannel {
    let channel = GuestChannel::listen_at(path);
    set_mode(channel.path(), 0o777);
    channel
}

/// Why the bridge cannot open that channel, as its log has said it, and how often it has.
fn said(daemon: &Daemon, path: &Path) -> Vec<String> {
    let named = format!("the channel cannot be opened; trying again until it can channel=\"{}\"", path.display());
    daemon.log().lines().filter(|line| line.contains(&named)).map(str::to_owned).collect()
}

#[track_caller]
fn wait_until_said(daemon: &Daemon, path: &Path, parts: &[&str]) {
    let what = format!("{parts:?} of {}", path.display());
    wait_until(DEADLINE, &what, || {
        said(daemon, path).iter().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    });
}

/// What `fencewired check` says as the bridge's user, who may read its folder.
fn check(daemon: &Daemon) -> String {
    let mut command = Command::new(program("setpriv"));
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(daemon.config().with_file_name("fencewired")).arg("check").arg("--config").arg(daemon.config());
    let checked = run(&mut command, DEADLINE);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    checked.stdout
}

/// As libvirt has it: `…/qemu` is QEMU's, mode 0750, and all sockets lie somewhere below it; of one guest's channel the
/// folder that is searched is in there, too.
#[test]
fn a_folder_that_only_qemu_may_enter() {
    let folder = open_folder();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("qemu/channel/domain-1-named")).expect("folders");
    fs::create_dir_all(at("qemu/serial/deep")).expect("folders");
    chown(at("qemu"), Some(QEMU), Some(QEMU)).expect("root may give files away: run this as root");
    set_mode(&at("qemu"), 0o750);
    let mut good = socket(at("good.sock"));
    let mut closed = [at("qemu/channel/domain-1-named").join(NAME), at("qemu/serial/deep/a.sock")].map(socket);
    let [named, below] = closed.each_ref().map(|channel| channel.path().to_owned());
    let guests = [
        Guest::new("good").channel(NAME, good.path()),
        Guest::new("named").channel(NAME, &named),
        Guest::new("below").devices(&serial(&below)),
    ];
    let setup = Daemon::setup().known(guests).discover(&format!("directory = {:?}", at("qemu/serial")));
    let mut daemon = setup.as_nobody().launch();
    connected(&mut good);
    daemon.wait_connected(good.path(), 1);

    let folder = format!("may not enter the folder {}. Let it", at("qemu").display());
    let parts = ["Permission denied (os error 13): user 65534, as whom this program runs", &folder];
    for path in [&named, &below] {
        wait_until_said(&daemon, path, &parts);
    }
    let line = daemon.logged("discover.directory").expect("a word about the folder that is searched");
    assert!(line.contains(&at("qemu").display().to_string()) && !line.contains("is not there"), "{line}");

    let before = daemon.processor_time();
    thread::sleep(WHILE);
    let used = daemon.processor_time().saturating_sub(before);
    assert!(used < WHILE / 10, "{used:?} of {WHILE:?}");
    for path in [&named, &below] {
        assert_eq!(said(&daemon, path).len(), 1, "{}", daemon.log());
    }
    assert!(closed.iter_mut().all(|channel| !channel.accept_within(Duration::ZERO)));
    assert_eq!(ask(&mut good, STATUS, "named"), SUCCESS);
    let (status, is_all_served) = daemon.status();
    assert!(!is_all_served && status.to_string().contains(&folder), "{status}");
    let checked = check(&daemon);
    for part in [parts[0], &folder, "found: channel", "warning: discover.directory"] {
        assert!(checked.contains(part), "{part} in {checked}");
    }

    let given = Instant::now();
    set_mode(&at("qemu"), 0o751);
    for channel in &mut closed {
        connected(channel);
    }
    assert!(given.elapsed() < SOON, "{:?}", given.elapsed());
    println!("served {:?} after the right was given", given.elapsed());
    for (channel, name) in closed.iter_mut().zip(["named", "below"]) {
        daemon.wait_connected(channel.path(), 1);
        assert_eq!(ask(channel, STATUS, "good"), SUCCESS, "{}", daemon.log());
        assert!(daemon.logged(&format!("guest {name} ({})", uuid_of(name))).is_some());
    }
    assert!(!check(&daemon).contains("cannot be opened"));
    daemon.stop_and_expect_no_act();
}

/// The folder is open and the socket is not, as QEMU makes it for its own group.
#[test]
fn a_socket_to_which_only_qemu_may_connect() {
    let folder = open_folder();
    let mut channel = GuestChannel::listen_at(folder.path().join("a.sock"));
    set_mode(channel.path(), 0o775);
    let guests = [Guest::new("guest").channel(NAME, channel.path()), Guest::new("other")];
    let mut daemon = Daemon::setup().known(guests).as_nobody().launch();
    wait_until_said(&daemon, channel.path(), &["user 65534", "may not write to this socket. Let it"]);
    assert!(check(&daemon).contains("may not write to this socket. Let it"));
    let given = Instant::now();
    set_mode(channel.path(), 0o777);
    connected(&mut channel);
    assert!(given.elapsed() < SOON, "{:?}", given.elapsed());
    daemon.wait_connected(channel.path(), 1);
    assert_eq!(ask(&mut channel, STATUS, "other"), SUCCESS);
    assert_eq!(said(&daemon, channel.path()).len(), 1, "{}", daemon.log());
    daemon.stop_and_expect_no_act();
}

/// A configured channel says the same.
#[test]
fn a_configured_channel_in_a_folder_that_only_qemu_may_enter() {
    let folder = open_folder();
    let closed = folder.path().join("qemu");
    fs::create_dir(&closed).expect("a folder");
    set_mode(&closed, 0o700);
    let mut channel = socket(closed.join("a.sock"));
    let setup = Daemon::setup().known(["guest", "other"].map(Guest::new)).channel("unix", channel.path(), "guest");
    let mut daemon = setup.as_nobody().launch();
    let what = format!("may not enter the folder {}", closed.display());
    wait_until_said(&daemon, channel.path(), &["user 65534", &what]);
    let checked = check(&daemon);
    assert!(checked.contains(&what) && !checked.contains("is not there"), "{checked}");
    set_mode(&closed, 0o711);
    connected(&mut channel);
    daemon.wait_connected(channel.path(), 1);
    assert_eq!(ask(&mut channel, STATUS, "other"), SUCCESS);
    daemon.stop_and_expect_no_act();
}

/// Behind a folder that cannot be entered, nobody sees that two paths are one, or that one leads elsewhere. Both are
/// seen when it can be, before anything that comes there is carried out.
#[test]
fn what_a_closed_folder_hides_is_seen_when_it_is_open() {
    let folder = open_folder();
    let at = |name: &str| folder.path().join(name);
    for name in ["real", "real/closed", "real/closed/deep", "elsewhere"] {
        fs::create_dir(at(name)).expect("a folder");
    }
    symlink(at("real"), at("link")).expect("a link");
    symlink(at("elsewhere"), at("real/closed/out")).expect("a link");
    let mut shared = socket(at("real/closed/deep/a.sock"));
    let mut outside = socket(at("elsewhere/a.sock"));
    set_mode(&at("real/closed"), 0o700);
    let guests = [
        Guest::new("left").channel(NAME, &at("link/closed/deep/a.sock")),
        Guest::new("right").channel(NAME, shared.path()),
        Guest::new("out").devices(&serial(&at("real/closed/out/a.sock"))),
    ];
    let setup = Daemon::setup().known(guests).wire("classic_virtio = true");
    let mut daemon = setup.discover(&format!("directory = {:?}", at("real"))).as_nobody().launch();
    for path in ["link/closed/deep/a.sock", "real/closed/deep/a.sock", "real/closed/out/a.sock"] {
        wait_until_said(&daemon, &at(path), &["may not enter the folder"]);
    }
    thread::sleep(STALE);

    set_mode(&at("real/closed"), 0o711);
    let off = |target: &str| request(OFF, target.as_bytes(), fresh_seqno());
    let of_both = format!("the socket {} is in the XML of more than one guest", shared.path().display());
    let by_link =
        format!("the socket {} is in the XML of more than one guest", at("link/closed/deep/a.sock").display());
    connected(&mut shared);
    // Whoever it is asks as soon as somebody is there, and again until it is known that it is nobody.
    wait_until(DEADLINE, "the socket of two guests to be seen", || {
        let _ = shared.try_send(&[off("left"), off("right"), off("out")].concat());
        (daemon.logged(&of_both).is_some() || daemon.logged(&by_link).is_some()).then_some(())
    });
    wait_until_said(&daemon, &at("real/closed/out/a.sock"), &["out of discover.directory"]);
    assert!(!outside.accept_within(Duration::ZERO));
    daemon.stop_and_expect_no_act();
}
