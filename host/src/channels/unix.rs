//! Unix sockets: those that somebody listens on, and those that we do.

use mio::net::{UnixListener, UnixStream};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net;
use std::path::Path;

/// Connects to whoever listens at `path`.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).map_err(|why| match (why.kind(), fs::metadata(path)) {
        // The system says "connection refused" of a file and of a folder, too.
        (io::ErrorKind::ConnectionRefused, Ok(found)) if !found.file_type().is_socket() => not_a_socket(),
        _ => why,
    })
}

/// Listens at `path`. A socket that an earlier run left there is replaced; anything else, and a socket on which
/// somebody listens, is left alone.
pub(crate) fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(not_a_socket());
        }
        match net::UnixStream::connect(path) {
            Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            _ => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there"));
            }
        }
    }
    // Nobody may call before the permissions are what they should be.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777 & !mode));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

fn not_a_socket() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "there is something there that is not a socket")
}
