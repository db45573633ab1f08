//! Who is at the other end of a unix socket, by the kernel's word; and whether they have gone.
//!
//! The process's name tells QEMU from what stands between QEMU and this bridge, such as a relay, whose end says nothing of
//! the guest's.

use crate::credentials::Credentials;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

/// libvirt's daemons: libvirt makes the socket and listens on it, and QEMU, when it has started, takes over.
const FOR_QEMU: [&str; 3] = ["libvirtd", "virtqemud", "virt-qemu-run"];

/// The name of the program at the other end, as the kernel has it (15 bytes at most). None where it has ended already, or
/// where `/proc` hides it.
pub(super) fn program(stream: impl AsFd) -> Option<String> {
    let pid = Credentials::of(&stream).ok()?.pid?;
    // Not its command line: to read that is to wait for a process that hangs.
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// Whether what a program of that name has open is closed when its guest ends, and not before: `qemu-system-x86`,
/// `qemu-kvm`, `qemu:GUEST` (libvirt's `set_process_name`), `kvm`.
pub(crate) fn is_qemu(program: &str) -> bool {
    program.starts_with("qemu") || program == "kvm" || FOR_QEMU.contains(&program)
}

/// Whether the other end is closed in both directions, or will be within `time`. Reads nothing.
pub(crate) fn has_ended(stream: impl AsFd, time: Duration) -> bool {
    let Ok(time) = Timespec::try_from(time) else { return false };
    loop {
        // An end is told of unasked.
        match poll(&mut [PollFd::new(&stream, PollFlags::empty())], Some(&time)) {
            Err(Errno::INTR) => {}
            events => return matches!(events, Ok(1..)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn an_end_is_one_of_both_directions() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(!has_ended(&ours, Duration::ZERO));
        theirs.write_all(b"bytes").unwrap();
        assert!(!has_ended(&ours, Duration::ZERO), "bytes are none");
        theirs.shutdown(Shutdown::Write).unwrap();
        assert!(!has_ended(&ours, Duration::from_millis(1)), "it may still read");
        drop(theirs);
        assert!(has_ended(&ours, Duration::ZERO), "though nobody has read what came before");
    }

    #[test]
    fn an_end_that_nobody_accepted_is_one_too() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let ours = UnixStream::connect(folder.path().join("socket")).unwrap();
        assert!(!has_ended(&ours, Duration::ZERO));
        drop(listener);
        assert!(has_ended(&ours, Duration::ZERO));
    }

    #[test]
    fn the_program_at_the_other_end_is_known_by_its_name() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(program(&ours).as_deref(), Some(own.trim_end()));
        for name in ["qemu-system-x86", "qemu-kvm", "qemu:vm1", "kvm", "libvirtd", "virtqemud"] {
            assert!(is_qemu(name), "{name}");
        }
        for name in ["", "socat", "fencewired", "virtlogd", "libvirt-test", "kvm-proxy", "not-qemu"] {
            assert!(!is_qemu(name), "{name}");
        }
    }
}
