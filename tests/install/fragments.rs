//! User, folders and the guest's device: the fragments for sysusers, tmpfiles and udev, given to those programs.

use super::{SLOW, make_well, needs_root, repository, variable};
use fencewire_tests::process::{Finished, program, run};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

#[track_caller]
fn well(command: &mut Command) -> Finished {
    let finished = run(command, SLOW);
    assert_eq!(finished.code, Some(0), "{}{}", finished.stdout, finished.stderr);
    finished
}

#[test]
fn a_user_that_may_talk_to_libvirt_and_folders_that_are_its_own_are_made() {
    needs_root();
    let folder = tempfile::tempdir().expect("a private folder");
    let root = folder.path();
    make_well(["install-host", &variable("DESTDIR", root)]);
    let in_root = format!("--root={}", root.display());
    let sysusers = || {
        let mut command = Command::new(program("systemd-sysusers"));
        command.arg(&in_root);
        command
    };
    let planned = well(sysusers().arg("--dry-run")).stderr;
    assert!(planned.contains("fencewire"), "{planned}");
    assert!(!root.join("etc/passwd").exists());

    well(&mut sysusers());
    let line = |file: &str, start: &str| {
        let text = fs::read_to_string(root.join(file)).unwrap_or_else(|why| panic!("{file}: {why}"));
        let found = text.lines().find(|line| line.starts_with(start)).map(str::to_owned);
        found.unwrap_or_else(|| panic!("no {start} in {file}:\n{text}"))
    };
    let user = line("etc/passwd", "fencewire:");
    assert!(user.ends_with("/nologin"), "nobody can log in as {user}");
    assert!(line("etc/group", "libvirt:").ends_with(":fencewire"), "it may talk to libvirt");
    let id = |nth| user.split(':').nth(nth).and_then(|id| id.parse::<u32>().ok()).expect("a number");

    well(Command::new(program("systemd-tmpfiles")).args(["--create", &in_root]));
    for (path, mode) in [("run/fencewire", 0o755), ("var/log/fencewire", 0o750), ("var/lib/fencewire", 0o700)] {
        let found = fs::metadata(root.join(path)).unwrap_or_else(|why| panic!("{path}: {why}"));
        assert_eq!((found.uid(), found.gid()), (id(2), id(3)), "{path}");
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{path}");
    }
    // Nothing of it is ever cleaned up: the journal must last until the host restarts, and who is away for longer.
    let entries = ["run/fencewire/entry", "var/lib/fencewire/away"];
    for entry in entries {
        fs::write(root.join(entry), "").expect("a file");
    }
    well(Command::new(program("systemd-tmpfiles")).args(["--clean", "--remove", "--create", &in_root]));
    assert!(entries.iter().all(|entry| root.join(entry).exists()));
}

/// A port as the kernel shows it, in a /sys and a /dev of its own; no rule but ours; then what udev makes of it. The
/// device number is /dev/null's: nobody opens it.
const PORT: &str = r#"
set -eu
mount -t tmpfs tmpfs /sys
mount -t tmpfs -o mode=755 tmpfs /dev
mount -t tmpfs tmpfs /run
for folder in /usr/lib/udev/rules.d /usr/local/lib/udev/rules.d /etc/udev/rules.d; do
    [ ! -e "$folder" ] || mount -t tmpfs tmpfs "$folder"
done
mkdir -p /run/udev/rules.d
cp "$RULES" /run/udev/rules.d/
device=/sys/devices/virtual/virtio-ports/vport0p1
mkdir -p "$device" /sys/class/virtio-ports /sys/bus /sys/dev/char
printf 'MAJOR=1\nMINOR=3\nDEVNAME=vport0p1\n' >"$device/uevent"
echo 1:3 >"$device/dev"
echo "$PORT_NAME" >"$device/name"
ln -s /sys/class/virtio-ports "$device/subsystem"
ln -s "$device" /sys/class/virtio-ports/vport0p1
ln -s "$device" /sys/dev/char/1:3
mknod -m 666 /dev/vport0p1 c 1 3
SYSTEMD_DEVICE_VERIFY_SYSFS=0 SYSTEMD_LOG_LEVEL=debug exec "$UDEVADM" test --action=add "$device"
"#;

/// What `udevadm test` says of a port of this name.
#[track_caller]
fn port_named(name: &str, rules: &Path) -> String {
    let mut command = Command::new(program("unshare"));
    command.args(["--mount", "--propagation", "private", "sh", "-c", PORT]);
    command.env("RULES", rules).env("PORT_NAME", name).env("UDEVADM", program("udevadm"));
    let finished = well(&mut command);
    finished.stdout + &finished.stderr
}

#[test]
fn the_guests_port_gets_its_link_and_is_roots_alone() {
    needs_root();
    let rules = repository().join("guest-agent/dist/60-fence-wire.rules");
    let ours = port_named("org.fencewire.fence.0", &rules);
    for text in [
        "DEVLINKS=/dev/virtio-ports/org.fencewire.fence.0",
        "60-fence-wire.rules:4 OWNER 0",
        "60-fence-wire.rules:4 GROUP 0",
        "60-fence-wire.rules:4 MODE 0600",
    ] {
        assert!(ours.contains(text), "no {text:?} in\n{ours}");
    }
    // The rest of the ports is none of our business.
    for name in ["org.qemu.guest_agent.0", "org.fencewire.fence.01"] {
        let other = port_named(name, &rules);
        assert!(!other.contains("60-fence-wire.rules:4"), "{name}\n{other}");
        assert!(!other.contains("DEVLINKS"), "{name}\n{other}");
    }
}

#[test]
fn udev_has_nothing_to_say_of_the_rule() {
    needs_root();
    let rules = repository().join("guest-agent/dist/60-fence-wire.rules");
    let complaints = |said: &str| {
        let is_one = |line: &&str| line.contains("60-fence-wire.rules") && !line.contains("Reading rules file");
        said.lines().filter(is_one).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complaints(&port_named("org.qemu.guest_agent.0", &rules)), [""; 0]);
    // That silence means something: a mistake is told.
    let folder = tempfile::tempdir().expect("a private folder");
    let wrong = folder.path().join("60-fence-wire.rules");
    let text = fs::read_to_string(&rules).expect("the rule").replace("SYMLINK", "SIMLINK");
    fs::write(&wrong, text).expect("a rule");
    assert_ne!(complaints(&port_named("org.qemu.guest_agent.0", &wrong)), [""; 0]);

    // From version 254 on there is a command for that.
    let verify = run(Command::new(program("udevadm")).arg("verify").arg(&rules), SLOW);
    let has_none = verify.stderr.contains("Unknown command verb");
    assert!(has_none || verify.code == Some(0), "{}{}", verify.stdout, verify.stderr);
}
