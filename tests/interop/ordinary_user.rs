//! The bridge needs no privilege of its own: it runs as any user who may talk to libvirt, open the channels and write
//! the two folders.

use fencewire_tests::guest_channel::{GuestChannel, OFF, SUCCESS, fresh_seqno, request};
use fencewire_tests::libvirt_file::{Guest, LibvirtFile};
use fencewire_tests::process::{DEADLINE, Process, ours, program};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

/// Debian's `nobody`.
const NOBODY: u32 = 65_534;

#[test]
fn ours_runs_as_an_ordinary_user() {
    let folder = tempfile::tempdir().expect("a private folder");
    let at = |name: &str| folder.path().join(name);
    let uri = LibvirtFile::new(at("guests.xml")).guests(["vm1", "vm2"].map(Guest::new)).write();
    let mut channel = GuestChannel::listen_at(at("vm1.sock"));
    let shown = folder.path().display();
    let config = format!(
        "[[hypervisor]]\nuri = \"{uri}\"\n[[channel]]\nkind = \"unix\"\npath = \"{shown}/vm1.sock\"\nguest = \"vm1\"\n\
         [[group]]\nname = \"g\"\nmembers = [\"vm1\", \"vm2\"]\n[wire]\nclassic = true\n\
         [records]\npath = \"{shown}/records\"\n[control]\njournal = \"{shown}/journal\"\nstate = \"{shown}/state\"\n"
    );
    fs::write(at("config.toml"), config).expect("a configuration");
    // The program may lie where that user may not go.
    fs::copy(ours("fencewired"), at("fencewired")).expect("a copy of the program");
    let is_root = rustix::process::geteuid().is_root();
    let mut command = if is_root {
        for path in [folder.path(), &at("vm1.sock"), &at("guests.xml"), &at("config.toml"), &at("fencewired")] {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("root may give files away");
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("its owner's only");
        let mut command = Command::new(program("setpriv"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(at("fencewired"));
        command
    } else {
        Command::new(at("fencewired"))
    };

    let mut daemon = Process::start(command.arg("--config").arg(at("config.toml")));
    channel.accept(DEADLINE);
    fencewire_tests::daemon::settle();
    assert_eq!(channel.ask(&request(OFF, b"vm2", fresh_seqno()), DEADLINE), SUCCESS, "{}", daemon.stderr());
    assert_eq!(daemon.stop(DEADLINE).code, Some(0));
    assert!(fs::read_to_string(at("records")).expect("records").contains("confirmed off"));
}
