//! Who calls the control socket, by the kernel's word at the time of the call; and whether that may.
//!
//! Root may, and the user that the daemon runs as, and whoever is in the group that the daemon runs as: by its own group
//! or a supplementary one. The socket's permissions say the same; this holds where somebody has changed those.

use rustix::net::sockopt::socket_peercred;
use rustix::process::{getegid, geteuid};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Supplementary groups that are looked at. The kernel's own bound is 65,536, and nobody has so many.
const GROUPS: usize = 1_024;

/// Whether the one at the other end may ask; if not, who it is.
pub(super) fn check(stream: &impl AsFd) -> Result<(), String> {
    let peer = socket_peercred(stream).map_err(|why| format!("a caller of whom the kernel says nothing ({why})"))?;
    let group = getegid().as_raw();
    let is_known = peer.uid.is_root() || peer.uid == geteuid() || peer.gid.as_raw() == group;
    if is_known || groups(stream).is_ok_and(|groups| groups.contains(&group)) {
        return Ok(());
    }
    Err(format!("user {} of group {}", peer.uid.as_raw(), peer.gid.as_raw()))
}

/// The supplementary groups of the one at the other end.
fn groups(stream: &impl AsFd) -> io::Result<Vec<libc::gid_t>> {
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
