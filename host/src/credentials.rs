//! Who is at the other end of a unix socket, by the kernel's word: it keeps with each connection who listened there, or
//! called from there.
//!
//! Not here: who of them may do what ([`crate::control`], [`crate::channels`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Supplementary groups that are looked at. The kernel's own bound is 65,536, and nobody has so many.
const GROUPS: usize = 1_024;

/// A process, as it was when it listened or called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// Its number. None where it has none here: it is in another container.
    pub(crate) pid: Option<libc::pid_t>,
    /// Its user's number.
    pub(crate) uid: libc::uid_t,
    /// Its group's number.
    pub(crate) gid: libc::gid_t,
}

impl Credentials {
    /// Of whoever is at the other end.
    pub(crate) fn of(stream: &impl AsFd) -> io::Result<Credentials> {
        // Not rustix's: in its words a process has a number, and the kernel's 0 is none.
        let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the descriptor is open for as long as `stream` is borrowed; the kernel writes `length` bytes at most,
        // which are `peer`'s, and any bytes are a `ucred`.
        let result = unsafe {
            libc::getsockopt(
                stream.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut peer).cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Credentials { pid: Some(peer.pid).filter(|pid| *pid > 0), uid: peer.uid, gid: peer.gid })
    }
}

/// The supplementary groups of whoever is at the other end.
pub(crate) fn groups(stream: &impl AsFd) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; GROUPS];
    let size = size_of::<libc::gid_t>();
    let mut length = libc::socklen_t::try_from(groups.len() * size).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed; the kernel writes `length` bytes at most, which
    // the vector has, and says how many it has written.
    let result = unsafe {
        libc::getsockopt(
            stream.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(length as usize / size);
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{getegid, geteuid, getgroups, getpid};
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_kernel_says_who_is_at_the_other_end() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Credentials::of(&ours).unwrap();
        assert_eq!(peer.pid, Some(getpid().as_raw_nonzero().get()));
        assert_eq!((peer.uid, peer.gid), (geteuid().as_raw(), getegid().as_raw()));
        let own: Vec<_> = getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert_eq!(groups(&ours).unwrap(), own);
    }

    #[test]
    fn of_what_is_no_socket_it_says_nothing() {
        let file = tempfile::tempfile().unwrap();
        assert!(Credentials::of(&file).is_err() && groups(&file).is_err());
    }
}
