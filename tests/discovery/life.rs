//! Real guests from their definition to their end: what they have is served while they have it.

use std::time::Duration;

use fencewire_tests::daemon::Daemon;
use fencewire_tests::guest_channel::{OFF, fresh_seqno, request};
use fencewire_tests::libvirt_file::uuid_of;
use fencewire_tests::process::{DEADLINE, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine, Program};

use fencewired::power::incarnation::NAMESPACE;

use crate::common::{NAME, OWNERS, channel, connections, finds, make_folder, socket_of, wait_closed, wait_served};

/// From the guest's UART to the end of the other's process, with nothing configured but a folder.
#[test]
fn a_serial_port_below_the_folder_is_found_and_fences() {
    let host = Host::start();
    let target = host.run(&Machine::new("target"));
    let ask = request(OFF, b"target", fresh_seqno());
    host.run(&Machine::new("asker").serial(&host.path("asker.sock")).runs(Program::Asks(ask)));
    let folder = format!("directory = {:?}", host.path("."));
    let mut daemon = finds(&host, &["asker", "target"]).discover(&folder).start();
    assert!(target.ends_within(DEADLINE), "{}", daemon.log());
    wait_until(DEADLINE, "the answer", || daemon.logged("confirmed off"));
    let records = daemon.stop_and_read_records();
    let asker = format!("asker ({})", uuid_of("asker"));
    assert_eq!((&records[0]["requester"], &records[0]["action"]), (&asker.into(), &"off".into()), "{records:?}");
}

/// Defined, started, reset, destroyed, started again: and each time where libvirt has put the socket.
#[test]
fn a_guest_is_served_from_its_start_to_its_end() {
    let host = Host::start();
    let daemon = finds(&host, &["vm1", "vm2"]).start();
    host.define(&Machine::new("vm1").channel_anywhere(NAME));
    host.switch_on("vm1");
    let first = socket_of(&host, "vm1");
    wait_served(&daemon, &first);
    let found = format!("found in guest vm1 ({}) on {}", uuid_of("vm1"), host.uri());
    daemon.wait_for_log(&found);
    host.virsh(&["reset", "vm1"]);
    host.virsh(&["suspend", "vm1"]);
    host.virsh(&["resume", "vm1"]);
    assert_eq!(connections(&first), 1, "a reset closes nothing");
    host.virsh(&["destroy", "vm1"]);
    wait_closed(&daemon, &first, 1);
    host.switch_on("vm1");
    let second = socket_of(&host, "vm1");
    assert_ne!(first, second, "else it is not what this test is about");
    wait_served(&daemon, &second);
    host.qemu("vm1").crash();
    wait_closed(&daemon, &second, 1);
}

/// It is nobody's name that is bound: its UUID is, and the log has the name that it has now.
#[test]
fn a_guest_that_is_renamed_or_undefined_is_who_it_was() {
    let host = Host::start();
    let daemon = finds(&host, &["vm1", "vm2"]).start();
    host.define(&Machine::new("vm1").channel_anywhere(NAME));
    host.virsh(&["domrename", "vm1", "other"]);
    host.switch_on("other");
    wait_served(&daemon, &socket_of(&host, "other"));
    daemon.wait_for_log(&format!("found in guest other ({})", uuid_of("vm1")));
    // Undefined while it runs, it is transient, and served all the same.
    host.virsh(&["undefine", "other"]);
    let path = socket_of(&host, "other");
    assert_eq!(connections(&path), 1);
    host.virsh(&["destroy", "other"]);
    wait_closed(&daemon, &path, 1);
    // One that never was defined.
    host.run_transient(&Machine::new("vm2").channel_anywhere(NAME));
    wait_served(&daemon, &socket_of(&host, "vm2"));
}

/// A channel that comes and goes while its guest runs, beside one that stays.
#[test]
fn a_channel_that_is_plugged_in_is_served_until_it_is_plugged_out() {
    let host = Host::start();
    let [folder, stays, other, comes] =
        ["ours", "ours/stays.sock", "other.sock", "comes.sock"].map(|name| host.path(name));
    make_folder(&folder);
    host.run(&Machine::new("vm1").channel("some.other.0", &other).serial(&stays));
    let daemon = finds(&host, &["vm1", "vm2"]).discover(&format!("directory = {folder:?}")).start();
    wait_served(&daemon, &stays);
    assert_eq!(connections(&other), 0, "that one is not ours");
    let device = host.path("device.xml");
    std::fs::write(&device, channel(&comes)).expect("a device's XML");
    let device = device.to_str().expect("UTF-8");
    for nth in 1..=2 {
        host.virsh(&["attach-device", "vm1", device, "--live"]);
        wait_served(&daemon, &comes);
        host.virsh(&["detach-device", "vm1", device, "--live"]);
        wait_closed(&daemon, &comes, nth);
    }
    assert_eq!(connections(&stays), 1, "{}", daemon.log());
}

/// The operator writes another path; it counts from the guest's next start on.
#[test]
fn a_path_that_changes_is_served_where_it_is() {
    let host = Host::start();
    let [before, after] = ["before.sock", "after.sock"].map(|name| host.path(name));
    host.run(&Machine::new("vm1").channel(NAME, &before));
    let daemon = finds(&host, &["vm1", "vm2"]).start();
    wait_served(&daemon, &before);
    host.define(&Machine::new("vm1").channel(NAME, &after));
    assert_eq!(connections(&before), 1, "it runs as it was started");
    host.virsh(&["destroy", "vm1"]);
    host.switch_on("vm1");
    wait_served(&daemon, &after);
    wait_closed(&daemon, &before, 1);
}

/// The run's mark is there when its guest is served, not half a minute later.
#[test]
fn a_run_that_somebody_else_began_is_marked_at_once() {
    let host = Host::start();
    let _daemon = Daemon::setup().uri(&host.uri()).group("all", &["vm1", "vm2"], "").discover(OWNERS).start();
    let mark = || host.try_virsh(&["metadata", "vm1", NAMESPACE, "--live"]).ok();
    host.run(&Machine::new("vm1"));
    let first = wait_until(DEADLINE, "the first run to be marked", mark);
    host.virsh(&["destroy", "vm1"]);
    host.switch_on("vm1");
    let second = wait_until(Duration::from_secs(5), "the second run to be marked", mark);
    assert_ne!(first, second);
}
