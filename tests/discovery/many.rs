//! 32 guests at once, and how long it takes: from a guest's start, and from libvirtd's return.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fencewire_tests::process::{DEADLINE, Process, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine};

use crate::common::{NAME, connections, finds, wait_served};

const MANY: usize = 32;

/// Started all at once, found one and all; and once more by a bridge that comes when they run.
#[test]
fn guests_that_are_started_all_at_once_are_all_served() {
    let mut host = Host::start();
    let names: Vec<String> = (1..=MANY).map(|number| format!("vm{number}")).collect();
    let members: Vec<&str> = names.iter().map(String::as_str).collect();
    let sockets: Vec<PathBuf> = names.iter().map(|name| host.path(&format!("{name}.sock"))).collect();
    for (name, socket) in names.iter().zip(&sockets) {
        host.define(&Machine::new(name).channel(NAME, socket));
    }
    let mut daemon = finds(&host, &members).start();
    let starts: Vec<Process> = names.iter().map(|name| host.start_virsh(&["start", name])).collect();
    for mut start in starts {
        assert_eq!(start.wait(DEADLINE * 3).code, Some(0));
    }
    let begun = Instant::now();
    for socket in &sockets {
        wait_served(&daemon, socket);
    }
    println!(
        "{MANY} guests were started at once: the last was served {:?} after the last start at most",
        begun.elapsed()
    );
    assert!(sockets.iter().all(|socket| connections(socket) == 1));
    daemon.stop();
    // Each QEMU has to notice.
    wait_until(DEADLINE, "all to be let go", || sockets.iter().all(|socket| connections(socket) == 0).then_some(()));
    // A bridge that comes while libvirtd is away, and all there is to find when that comes back.
    host.kill();
    let daemon = finds(&host, &members).start();
    daemon.wait_for_log("does not say who its guests are");
    host.start_again();
    let returned = Instant::now();
    for socket in &sockets {
        wait_served(&daemon, socket);
    }
    println!("libvirtd came back with {MANY} guests: all were served after {:?}", returned.elapsed());
}

/// One after the other, on a machine that does nothing else.
#[test]
fn a_guest_is_served_soon_after_its_start() {
    let host = Host::start();
    let path = host.path("vm1.sock");
    host.define(&Machine::new("vm1").channel(NAME, &path));
    let _daemon = finds(&host, &["vm1", "vm2"]).start();
    let mut took = Vec::new();
    for _ in 0..7 {
        host.virsh(&["start", "vm1"]);
        let started = Instant::now();
        while connections(&path) == 0 {
            assert!(started.elapsed() < DEADLINE);
            std::thread::sleep(Duration::from_micros(200));
        }
        took.push(started.elapsed());
        host.virsh(&["destroy", "vm1"]);
    }
    took.sort_unstable();
    println!("from the end of virsh start to the connection: median {:?}, all {took:?}", took[took.len() / 2]);
    assert!(took[took.len() / 2] < Duration::from_secs(1));
}
