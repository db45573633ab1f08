//! Who calls the control socket, by the kernel's word at the time of the call; and whether that may.
//!
//! Root may, and the user that the daemon runs as, and whoever is in the group that the daemon runs as: by its own group
//! or a supplementary one. The socket's permissions say the same; this holds where somebody has changed those.

use crate::credentials::{Credentials, groups};
use rustix::process::{getegid, geteuid};
use std::os::fd::AsFd;

/// Whether the one at the other end may ask; if not, who it is.
pub(super) fn check(stream: &impl AsFd) -> Result<(), String> {
    let peer = Credentials::of(stream).map_err(|why| format!("a caller of whom the kernel says nothing ({why})"))?;
    let group = getegid().as_raw();
    let is_known = peer.uid == 0 || peer.uid == geteuid().as_raw() || peer.gid == group;
    if is_known || groups(stream).is_ok_and(|groups| groups.contains(&group)) {
        return Ok(());
    }
    Err(format!("user {} of group {}", peer.uid, peer.gid))
}
