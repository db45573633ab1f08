//! The agent in a guest that has little, or that is failing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use fencewire_tests::guest::{Guest, PORT};
use fencewire_tests::process::{DEADLINE, ours, program, run, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine};

use crate::common::{ASKER, Bed, WAYS, setup, virtio_device, wait_connected};

/// It is found by its name, which the kernel knows; udev's link is not needed, and is enough.
#[test]
fn the_virtio_port_is_found_with_udev_and_without() {
    let bed = Bed::start();
    let asks = || bed.asker.run("fence_wire -o monitor");
    let device = virtio_device(&bed.asker);
    bed.asker.done("! test -e /dev/virtio-ports");
    assert_eq!(asks().code, Some(0), "by the kernel's list");
    bed.asker.done("umount /sys");
    let nothing = asks();
    assert_eq!(nothing.code, Some(1), "there is neither");
    assert!(nothing.stderr.contains(PORT), "{}", nothing.stderr);
    bed.asker.done(&format!("mkdir /dev/virtio-ports && ln -s {device} /dev/virtio-ports/{PORT}"));
    assert_eq!(asks().code, Some(0), "by the link");
}

/// One file and the kernel's own file systems are all that it needs: no library, no shell, no /proc, no /tmp.
#[test]
fn it_fences_where_nothing_else_is() {
    let bed = Bed::start();
    let target = bed.target();
    bed.asker.done("mkdir -p /alone/dev /alone/sys && cp /bin/fence_wire /alone");
    bed.asker.done("mount -t devtmpfs dev /alone/dev && mount -t sysfs sys /alone/sys");
    let done = bed.asker.run("exec chroot /alone /fence_wire -o off -n target");
    assert_eq!((done.code, target.lives()), (Some(0), false), "{done:?}");
}

/// The kernel lets one have a virtio port; on a serial port the agents see to it themselves. So each hears its own answer.
#[test]
fn several_at_once_hear_their_own_answers() {
    let bed = Bed::start();
    let _target = bed.target();
    bed.host.define(&Machine::new("other"));
    for way in WAYS {
        let begun: Vec<_> = (0..8)
            .map(|nth| if nth % 2 == 0 { ("target", Some(0)) } else { ("other", Some(2)) })
            .map(|(name, code)| (bed.begin(way, &format!("-o status -n {name}")), code))
            .collect();
        for (nth, (begun, code)) in begun.into_iter().enumerate() {
            let done = begun.end();
            assert_eq!(done.code, code, "{way:?}, number {nth}: {done:?}");
        }
    }
}

/// Something eats all memory that there is, again and again: the kernel kills it, and it begins anew. The agent needs a few
/// pages, and is not what the kernel kills; the shell that is to become the agent needs more, and may be.
#[test]
fn it_fences_while_memory_is_exhausted() {
    let bed = Bed::start();
    // Most of it lies in files that cannot be written anywhere else, so that the rest is soon eaten.
    bed.asker.done("mkdir /full && mount -t tmpfs -o size=100% full /full");
    bed.asker.done(
        "free=$(sed -n 's/MemAvailable: *\\([0-9]*\\).*/\\1/p' /proc/meminfo); \
         dd if=/dev/zero of=/full/all bs=64k count=$((free / 64 - 384)) 2>/dev/null",
    );
    // Who eats is always there, and so is somebody else to be killed while one that was has not ended yet: without any, the
    // kernel gives up the whole guest.
    let eats = "echo -1000 >/proc/$$/oom_score_adj; \
                for n in 1 2 3 4 5 6 7 8; do sh -c 'echo 999 >/proc/$$/oom_score_adj; exec sleep 1000' & done; \
                while ! test -e /run/enough; do \
                sh -c 'echo 1000 >/proc/$$/oom_score_adj; exec tail /dev/zero'; usleep 20000; done; kill %1 %2 %3 %4 %5 %6 %7 %8; :";
    let eater = bed.asker.begin_for(eats, DEADLINE * 6);
    let killed = |name: &str| {
        let count = format!("dmesg | grep -c 'Killed process .*({name})' || true");
        bed.asker.done(&count).parse::<usize>().expect("a number")
    };
    wait_until(DEADLINE, "memory to be exhausted", || (killed("tail") > 0).then_some(()));
    let before = killed("tail");
    for way in WAYS {
        let target = bed.target();
        let became_one = || Some(bed.ask(way, "-o off -n target -w 2")).filter(|done| done.signal.is_none());
        let done = wait_until(DEADLINE, "a shell that becomes the agent", became_one);
        assert_eq!((done.code, target.lives()), (Some(0), false), "{way:?}: {done:?}");
    }
    assert!(killed("tail") > before, "memory was not exhausted meanwhile");
    assert_eq!(killed("fence_wire"), 0, "the agent itself");
    bed.asker.done("touch /run/enough");
    eater.end();
}

/// The disk that the system runs from is gone: whatever is read from it fails. An agent that lies in memory, as one in an
/// initramfs or on a tmpfs does, fences all the same, and so does one that was started from the disk before.
#[test]
fn it_fences_when_the_root_disk_is_gone() {
    let host = Host::start();
    let [folder, disk] = ["root", "disk"].map(|name| host.path(name));
    fs::create_dir(&folder).expect("a folder");
    for (name, from) in [("fence_wire", ours("fence_wire")), ("busybox", program("busybox"))] {
        fs::copy(from, folder.join(name)).expect("a copy of a program");
    }
    let made = run(
        Command::new(program("mke2fs")).args(["-q", "-t", "ext4", "-d"]).arg(&folder).arg(&disk).arg("16M"),
        DEADLINE,
    );
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o666)).expect("the disk is for QEMU");
    let [asker] = Guest::boot_machines(&host, [Guest::machine(&host, ASKER).disk(&disk)]);
    let daemon = setup(&host, &[&asker]).start();
    wait_connected(&daemon, &[&asker], 1);

    asker.done(
        "modprobe virtio_blk && mkdir /disk && mount -t ext4 /dev/vda /disk && mkdir /disk/dev /disk/sys /disk/run",
    );
    asker.done("mount -t devtmpfs dev /disk/dev && mount -t sysfs sys /disk/sys && mount -t tmpfs run /disk/run");
    asker.done("cp /disk/fence_wire /disk/run");
    let [early_target, target] = ["target", "other"].map(|name| host.run(&Machine::new(name)));
    let early = asker.begin("exec chroot /disk /fence_wire -w 5 -o off -n target");
    wait_until(DEADLINE, "the agent from the disk", || (asker.run("pidof fence_wire").code == Some(0)).then_some(()));
    asker.done("cd /sys/bus/virtio/drivers/virtio_blk && for disk in virtio*; do echo $disk >unbind; done");
    // Of what is not used right now nothing is kept in memory either.
    asker.done("echo 3 >/proc/sys/vm/drop_caches");
    assert_ne!(asker.run("exec chroot /disk /busybox true").code, Some(0), "the disk is still there");

    let done = asker.run("exec chroot /disk /run/fence_wire -o off -n other");
    assert_eq!((done.code, target.lives()), (Some(0), false), "{done:?}");
    assert!(early_target.lives(), "it was to wait for longer");
    let done = early.end();
    assert_eq!((done.code, early_target.lives()), (Some(0), false), "{done:?}");
}
