//! What these tests share: a bridge on real libvirts, a guest that asks, and the guest that it asks about.

use fencewire_tests::daemon::{Daemon, Setup};
use fencewire_tests::guest_channel::{GuestChannel, REQUEST_LENGTH, fresh_seqno, request};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine, Qemu};

use fencewired::power::incarnation::NAMESPACE;

pub(crate) use fencewire_tests::daemon::ask;

/// Who asks: a guest that runs on the first host.
pub(crate) const ASKER: &str = "asker";
/// Whom it asks about.
pub(crate) const TARGET: &str = "target";

/// A host on which the asker runs.
#[track_caller]
pub(crate) fn host() -> Host {
    let host = Host::start();
    host.run(&Machine::new(ASKER));
    host
}

/// A host on which the asker runs, and a target that does.
#[track_caller]
pub(crate) fn host_with_target() -> (Host, Qemu) {
    let host = host();
    let qemu = host.run(&Machine::new(TARGET));
    (host, qemu)
}

/// A bridge that is to serve the asker, on that host.
pub(crate) fn setup(host: &Host) -> Setup {
    Daemon::setup().uri(&host.uri()).served([Guest::new(ASKER)]).group("both", &[ASKER, TARGET], "")
}

/// A bridge that serves the asker on that host, and the asker's channel.
#[track_caller]
pub(crate) fn serve(host: &Host) -> (Daemon, GuestChannel) {
    start(setup(host))
}

/// That bridge, and the asker's channel.
#[track_caller]
pub(crate) fn start(setup: Setup) -> (Daemon, GuestChannel) {
    let mut daemon = setup.start();
    let channel = daemon.channel(ASKER);
    (daemon, channel)
}

/// A fresh request about the target.
pub(crate) fn frame(action: u8) -> [u8; REQUEST_LENGTH] {
    request(action, TARGET.as_bytes(), fresh_seqno())
}

/// Waits until libvirt says that of a guest.
#[track_caller]
pub(crate) fn wait_for_state(host: &Host, name: &str, state: &str) {
    wait_until(DEADLINE, &format!("{name} to be {state}"), || (host.state(name) == state).then_some(()));
}

/// The mark of the target's run, if it runs and has one.
#[track_caller]
pub(crate) fn mark(host: &Host) -> Option<String> {
    host.try_virsh(&["metadata", TARGET, NAMESPACE, "--live"]).ok()
}

/// Waits until the target's run is marked.
#[track_caller]
pub(crate) fn wait_for_mark(host: &Host) -> String {
    wait_until(DEADLINE, "the target's run to be marked", || mark(host))
}
