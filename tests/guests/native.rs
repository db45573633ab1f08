//! Our own wire on real ports. What a channel keeps, tears, repeats or hands over later is no request there, and no answer.

use std::fs;
use std::path::Path;
use std::process::Command;

use fencewire_tests::daemon::{Daemon, Setup};
use fencewire_tests::guest::{Guest, SERIAL};
use fencewire_tests::process::{DEADLINE, Finished, ours, run};
use fencewire_tests::real_libvirt::{Host, Machine};
use rustix::process::Signal;

use crate::common::{ASKER, TARGET, make_raw, virtio_device, wait_connected, writing};
use crate::tap::Tap;

/// Whoever may fence whom, over our wire without keys. Over fence-virt's only by a serial port.
fn setup(host: &Host) -> Setup {
    Daemon::setup().uri(&host.uri()).group("all", &[ASKER, TARGET], "").wire("keyless = true")
}

/// A fence as it was on the wire, said once more: on the same connection, by a guest that was reset since, cut off anywhere,
/// and kept by a virtio port for the next bridge, which knows nothing of it.
#[test]
fn a_recording_fences_nobody() {
    for is_virtio in [true, false] {
        let host = Host::start();
        let [asker] = Guest::boot(&host, [ASKER]);
        make_raw(&asker);
        let (socket, device, agent) = if is_virtio {
            (asker.virtio(), virtio_device(&asker), "fence_wire -W native")
        } else {
            (asker.serial(), SERIAL.to_owned(), "fence_wire -W native -D /dev/ttyS1")
        };
        let tap = Tap::on(&socket);
        let daemon = setup(&host).virtio_channel("unix", tap.path(), ASKER).start();
        daemon.wait_connected(tap.path(), 1);
        let first = host.run(&Machine::new(TARGET));
        let done = asker.run(&format!("{agent} -o off -n target"));
        assert_eq!((done.code, first.lives()), (Some(0), false), "{done:?}\n{}", daemon.log());
        let recording = tap.take();
        assert!(recording.len() > 100, "a hello and a request: {recording:?}");

        let target = host.switch_on(TARGET);
        let is_on = |when: &str| {
            let done = asker.run(&format!("{agent} -o status -n target -t 8"));
            assert_eq!((done.code, target.lives()), (Some(0), true), "{when}: {done:?}\n{}", daemon.log());
        };
        asker.done(&writing(&recording, &device));
        is_on("said again");
        for length in [1, 20, 56, 70, recording.len() - 1] {
            asker.done(&writing(&recording[..length], &device));
            is_on(&format!("of which {length} bytes were said again"));
        }
        asker.done(&writing(&recording[..70], &device));
        asker.resets(|asker| drop(asker.begin("reboot -f")));
        is_on("said in part, before a reset");
        make_raw(&asker);
        asker.done(&writing(&recording, &device));
        is_on("said again, after a reset");

        drop((daemon, tap));
        let kept = asker.begin_for(&writing(&recording, &device), DEADLINE * 3);
        let next = setup(&host).virtio_channel("unix", &socket, ASKER).start();
        next.wait_connected(&socket, 1);
        assert_eq!(kept.end().code, Some(0), "it was said when somebody came");
        let done = asker.run(&format!("{agent} -o status -n target -t 8"));
        assert_eq!((done.code, target.lives()), (Some(0), true), "{done:?}\n{}", next.log());
        assert_eq!(host.told("virDomainDestroy", TARGET), 1, "the one that was asked for");
    }
}

fn fencewired(arguments: &[&str], config: &Path) -> Finished {
    let done = run(Command::new(ours("fencewired")).args(arguments).arg("--config").arg(config), DEADLINE);
    assert_eq!(done.code, Some(0), "{arguments:?}: {}", done.stderr);
    done
}

/// With its key a guest fences by both ports; without, or with the one that it had before, by none.
#[test]
fn a_guest_with_a_key_fences_with_it_and_in_no_other_way() {
    let host = Host::start();
    let [asker] = Guest::boot(&host, [ASKER]);
    let setup = setup(&host).virtio_channel("unix", &asker.virtio(), ASKER).channel("unix", &asker.serial(), ASKER);
    let folder = setup.folder().to_owned();
    let line = format!("master_key = \"{}\"", folder.join("master.key").display());
    let stub = folder.join("stub.toml");
    fs::write(&stub, format!("[wire]\n{line}\n")).expect("a file");
    fencewired(&["keygen"], &stub);
    let mut daemon = setup.wire(&line).start();
    wait_connected(&daemon, &[&asker], 1);
    for name in ["old", "new"] {
        let file = folder.join(name);
        fencewired(&["enroll", ASKER, "--out", file.to_str().expect("a test's paths are UTF-8")], &daemon.config());
        asker.done(&writing(&fs::read(&file).expect("a key"), &format!("/run/{name}.key")));
    }
    daemon.process().signal(Signal::HUP);
    daemon.wait_for_log(" reloaded ");

    let target = host.run(&Machine::new(TARGET));
    for port in ["", "-D /dev/ttyS1"] {
        for other in ["-W native", "-W classic", "-k /run/old.key"] {
            let done = asker.run(&format!("fence_wire {port} {other} -o off -n target -t 2"));
            assert_eq!((done.code, target.lives()), (Some(1), true), "{port} {other}: {done:?}");
        }
    }
    for port in ["", "-D /dev/ttyS1"] {
        let target = host.try_qemu(TARGET).unwrap_or_else(|| host.switch_on(TARGET));
        let done = asker.run(&format!("fence_wire {port} -k /run/new.key -o off -n target"));
        assert_eq!((done.code, target.lives()), (Some(0), false), "{port}: {done:?}\n{}", daemon.log());
        assert_eq!(asker.run(&format!("fence_wire {port} -k /run/new.key -o status -n target")).code, Some(2));
    }
}
