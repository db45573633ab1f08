//! libvirt's own test driver: its guests live in the connection, so its events come on the one that there is.

use fencewire_tests::bridge_bed::settle;
use fencewire_tests::daemon::{Daemon, ask};
use fencewire_tests::guest_channel::{GuestChannel, OFF, ON, SUCCESS};
use fencewire_tests::libvirt_file::{Guest, State};

use crate::common::{NAME, connected};

/// A guest that is off when the bridge begins, and is started by another: the event tells of it.
#[test]
fn a_guest_that_is_started_is_served_at_once() {
    let [mut one, mut other] = [GuestChannel::listen(), GuestChannel::listen()];
    let guest = |name, channel: &GuestChannel| Guest::new(name).channel(NAME, channel.path());
    let guests = [guest("vm1", &one), guest("vm2", &other).state(State::Shutoff)];
    let daemon = Daemon::setup().known(guests).wire("classic_virtio = true").start();
    connected(&mut one);
    settle([&mut one]);
    assert!(!other.accept_within(std::time::Duration::ZERO), "it does not run");
    assert_eq!(ask(&mut one, ON, "vm2"), SUCCESS);
    connected(&mut other);
    settle([&mut other]);
    assert_eq!(ask(&mut other, OFF, "vm1"), SUCCESS);
    // It runs no more, and neither is its channel served, though its socket lives on.
    one.expect_end(fencewire_tests::process::DEADLINE);
    assert!(!one.accept_within(std::time::Duration::from_millis(700)), "{}", daemon.log());
}
