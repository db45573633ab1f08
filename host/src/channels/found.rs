//! Sockets that were found: nobody has written their paths into our configuration, so who made them is looked at.

use super::{Found, unix};
use crate::credentials::Credentials;
use crate::discover::is_inside;
use mio::net::UnixStream;
use rustix::process::geteuid;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Connects to whoever listens at `path`, if it is one who may.
pub(super) fn connect(path: &Path, asked: &Found) -> io::Result<UnixStream> {
    let socket = fs::symlink_metadata(path)?;
    if socket.is_symlink() {
        return Err(refused("it is a symbolic link, which libvirt makes none: not followed".to_owned()));
    }
    if socket.file_type().is_socket() {
        allow(asked, socket.uid(), "the socket belongs to")?;
    }
    if let Some(directory) = &asked.directory {
        let folder = path.parent().unwrap_or(path).canonicalize()?;
        if !is_inside(&folder.join("socket"), directory) {
            let directory = directory.display();
            return Err(refused(format!("a link leads from it out of discover.directory ({directory}): not followed")));
        }
    }
    let stream = unix::connect(path)?;
    // The path may have become another's meanwhile: this is who listens.
    allow(asked, Credentials::of(&stream)?.uid, "who listens there is")?;
    Ok(stream)
}

fn allow(asked: &Found, uid: u32, what: &str) -> io::Result<()> {
    if uid == 0 || uid == geteuid().as_raw() || asked.owners.contains(&uid) {
        return Ok(());
    }
    Err(refused(format!(
        "{what} user {uid}, who is neither root nor this program's own user nor one of discover.owners: not trusted. If \
         that is QEMU's user, add \"{uid}\" there"
    )))
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[track_caller]
    fn refusal(path: &Path, found: &Found) -> String {
        connect(path, found).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_socket_of_ones_own_is_connected_and_no_link_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let _listener = UnixListener::bind(at("a.sock")).unwrap();
        let anywhere = Found { directory: None, owners: vec![] };
        assert!(connect(&at("a.sock"), &anywhere).is_ok());
        symlink(at("a.sock"), at("link.sock")).unwrap();
        assert!(refusal(&at("link.sock"), &anywhere).contains("symbolic link"));
        assert_eq!(connect(&at("b.sock"), &anywhere).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(at("file"), "").unwrap();
        assert!(refusal(&at("file"), &anywhere).contains("not a socket"));
    }

    #[test]
    fn a_folder_that_is_a_link_is_followed_as_long_as_it_stays_inside() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["in", "in/deep", "out"] {
            fs::create_dir(at(name)).unwrap();
        }
        symlink(at("in"), at("way")).unwrap();
        symlink(at("out"), at("in/leads-out")).unwrap();
        let _listeners = ["in/deep/a.sock", "out/a.sock"].map(|name| UnixListener::bind(at(name)).unwrap());
        for directory in ["in", "way"] {
            let inside = Found { directory: Some(at(directory)), owners: vec![] };
            assert!(connect(&at("in/deep/a.sock"), &inside).is_ok());
            assert!(connect(&at("way/deep/a.sock"), &inside).is_ok());
            assert!(refusal(&at("in/leads-out/a.sock"), &inside).contains("out of discover.directory"));
        }
    }

    #[test]
    fn whoever_is_not_named_is_not_trusted() {
        let found = |owners: &[u32]| Found { directory: None, owners: owners.to_vec() };
        assert!(allow(&found(&[]), 0, "").is_ok() && allow(&found(&[]), geteuid().as_raw(), "").is_ok());
        assert!(allow(&found(&[64_055]), 64_055, "").is_ok());
        let why = allow(&found(&[64_055]), 64_056, "the socket belongs to").unwrap_err().to_string();
        assert!(why.contains("belongs to user 64056") && why.contains("discover.owners"), "{why}");
    }
}
