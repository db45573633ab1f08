//! What these tests share: the XML of a channel, and its guest's end.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fencewire_tests::daemon::{Daemon, Setup};
use fencewire_tests::guest_channel::GuestChannel;
use fencewire_tests::libvirt_file::uuid_of;
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::real_libvirt::Host;

use fencewire_core::Uuid;

/// The name of the channels that are found.
pub(crate) const NAME: &str = "org.fencewire.fence.0";

/// The XML of a virtio channel that is found by its name.
pub(crate) fn channel(path: &Path) -> String {
    device("channel", path, &format!("<target type='virtio' name='{NAME}'/>"))
}

/// The XML of a serial port.
pub(crate) fn serial(path: &Path) -> String {
    device("serial", path, "<target port='1'/>")
}

fn device(kind: &str, path: &Path, target: &str) -> String {
    let path = path.to_str().expect("a test's paths are UTF-8");
    format!("<{kind} type='unix'><source mode='bind' path='{path}'/>{target}</{kind}>")
}

/// The UUID of a guest of that name.
pub(crate) fn uuid(name: &str) -> Uuid {
    Uuid::parse(uuid_of(name).as_bytes()).expect("a UUID")
}

/// The guest's end of a channel that a bridge has connected to.
#[track_caller]
pub(crate) fn connected(channel: &mut GuestChannel) {
    channel.accept(DEADLINE);
}

/// A bridge that finds the channels of that host's guests by itself, all of them in one group.
pub(crate) fn finds(host: &Host, guests: &[&str]) -> Setup {
    Daemon::setup().uri(&host.uri()).group("all", guests, "").wire("classic_virtio = true").discover(OWNERS)
}

/// The bed's libvirtd is that user's, where the test is root.
pub(crate) const OWNERS: &str = "owners = [\"nobody\"]";

/// The socket of a guest's channel, where libvirt has put it.
#[track_caller]
pub(crate) fn socket_of(host: &Host, name: &str) -> PathBuf {
    let xml = host.virsh(&["dumpxml", name]);
    let (before, _) = xml.split_once(&format!("name='{NAME}'")).expect("a channel");
    let (_, path) = before.rsplit_once("path='").expect("a path");
    path.split_once('\'').expect("its end").0.into()
}

/// How many programs are connected to a socket that listens at `path`.
pub(crate) fn connections(path: &Path) -> usize {
    /// The state of a unix socket that is connected.
    const CONNECTED: &str = "03";
    let path = path.to_str().expect("a test's paths are UTF-8");
    let table = fs::read_to_string("/proc/net/unix").expect("the kernel's table");
    let is_one = |line: &&str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        words.get(7) == Some(&path) && words[5] == CONNECTED
    };
    table.lines().filter(is_one).count()
}

/// Waits until the bridge is connected to that socket.
#[track_caller]
pub(crate) fn wait_served(daemon: &Daemon, path: &Path) {
    let what = format!("a connection to {}", path.display());
    let end = Instant::now() + DEADLINE;
    while connections(path) == 0 {
        assert!(Instant::now() < end, "waited for {what}; the bridge said\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the bridge has closed that channel for good, after the `nth` time that it served it.
#[track_caller]
pub(crate) fn wait_closed(daemon: &Daemon, path: &Path, nth: usize) {
    let named = format!("channel=\"{}\"", path.display());
    wait_until(DEADLINE, &format!("{} to be closed", path.display()), || {
        let log = daemon.log();
        let closed = log.lines().filter(|line| line.contains("closed for good") && line.contains(&named));
        (closed.count() >= nth).then_some(())
    });
}

/// Makes a folder in which the bed's QEMUs may make their sockets.
pub(crate) fn make_folder(path: &Path) {
    fs::create_dir(path).expect("a folder");
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("it is ours");
}
