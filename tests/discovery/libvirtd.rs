//! A libvirtd that is killed, stopped, hangs: the guests run on and are served, and what happened meanwhile is seen when
//! it is back.

use fencewire_tests::real_libvirt::{Host, Machine};

use crate::common::{NAME, connections, finds, socket_of, wait_closed, wait_served};

/// Guests that run, a bridge that serves them, and their sockets.
fn served(host: &Host, names: &[&str]) -> (fencewire_tests::daemon::Daemon, Vec<std::path::PathBuf>) {
    for name in names {
        host.run(&Machine::new(name).channel_anywhere(NAME));
    }
    let daemon = finds(host, &["vm1", "vm2", "vm3", "vm4"]).start();
    let sockets: Vec<_> = names.iter().map(|name| socket_of(host, name)).collect();
    for socket in &sockets {
        wait_served(&daemon, socket);
    }
    (daemon, sockets)
}

/// Killed, and stopped in order: no guest notices; who dies meanwhile is let go, who comes afterwards is found.
#[test]
fn a_libvirtd_that_goes_and_comes_back_costs_no_channel() {
    let mut host = Host::start();
    let (daemon, sockets) = served(&host, &["vm1", "vm2"]);
    for (round, name) in ["vm3", "vm4"].into_iter().enumerate() {
        if round == 0 {
            let dies = host.qemu("vm2");
            host.kill();
            dies.crash();
        } else {
            host.stop();
        }
        assert_eq!(connections(&sockets[0]), 1);
        host.start_again();
        host.run(&Machine::new(name).channel_anywhere(NAME));
        wait_served(&daemon, &socket_of(&host, name));
        assert_eq!(connections(&sockets[0]), 1);
    }
    wait_closed(&daemon, &sockets[1], 1);
    let log = daemon.log();
    let vm1 = format!("channel=\"{}\"", sockets[0].display());
    let connected = log.lines().filter(|line| line.contains(" connected ") && line.contains(&vm1));
    assert_eq!(connected.count(), 1, "it was never let go: {log}");
}

/// One that takes what it is sent and does nothing, while a guest dies; then it goes on.
#[test]
fn a_libvirtd_that_hangs_costs_no_channel() {
    let host = Host::start();
    let (daemon, sockets) = served(&host, &["vm1", "vm2"]);
    host.define(&Machine::new("vm3").channel_anywhere(NAME));
    let dies = host.qemu("vm2");
    host.hang();
    dies.crash();
    daemon.wait_for_log(&format!("connection ended channel=\"{}\"", sockets[1].display()));
    assert_eq!(connections(&sockets[0]), 1);
    host.go_on();
    wait_closed(&daemon, &sockets[1], 1);
    host.switch_on("vm3");
    wait_served(&daemon, &socket_of(&host, "vm3"));
    assert_eq!(connections(&sockets[0]), 1);
}

/// It hangs from before the bridge begins; another hypervisor's guests are served, and its own when it goes on.
#[test]
fn a_libvirtd_that_hangs_costs_the_guests_of_another_nothing() {
    let [hangs, other] = [Host::start(), Host::start()];
    hangs.run(&Machine::new("vm1").channel_anywhere(NAME));
    other.run(&Machine::new("vm2").channel_anywhere(NAME));
    let [late, socket] = [socket_of(&hangs, "vm1"), socket_of(&other, "vm2")];
    hangs.hang();
    let daemon = finds(&hangs, &["vm1", "vm2", "vm3"]).beside(&other.uri()).start();
    wait_served(&daemon, &socket);
    other.run(&Machine::new("vm3").channel_anywhere(NAME));
    wait_served(&daemon, &socket_of(&other, "vm3"));
    assert_eq!(connections(&late), 0);
    hangs.go_on();
    wait_served(&daemon, &late);
}

/// It was not there when the bridge began.
#[test]
fn a_libvirtd_that_comes_later_is_found() {
    let mut host = Host::start();
    host.run(&Machine::new("vm1").channel_anywhere(NAME));
    let socket = socket_of(&host, "vm1");
    host.kill();
    let daemon = finds(&host, &["vm1", "vm2"]).start();
    daemon.wait_for_log("does not say who its guests are");
    host.start_again();
    wait_served(&daemon, &socket);
}
