//! Unix sockets: those that somebody listens on, and those that we do.

use mio::net::{UnixListener, UnixStream};
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::ioctl::Getter;
use rustix::process::geteuid;
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

/// Whether this process has the right to connect to a socket at `path`, or why not. Nobody is called.
pub fn may_connect(path: &Path) -> io::Result<()> {
    match rustix::fs::access(path, Access::WRITE_OK) {
        Err(Errno::ACCESS) => Err(explained(Errno::ACCESS.into(), path)),
        _ => Ok(()),
    }
}

/// The same error, and where the system only says "permission denied": which folder or socket that is about, and what to do.
pub(crate) fn explained(why: io::Error, path: &Path) -> io::Error {
    if Errno::from_io_error(&why) != Some(Errno::ACCESS) {
        return why;
    }
    let user = geteuid().as_raw();
    let text = match closed_folder(path) {
        Some(folder) => format!(
            "{why}: user {user}, as whom this program runs, may not enter the folder {}. Let it, or give the channel a path \
             in a folder that it may enter",
            folder.display()
        ),
        None => format!("{why}: user {user}, as whom this program runs, may not write to this socket. Let it"),
    };
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// The first folder on the way to `path` that this process may not enter.
pub(crate) fn closed_folder(path: &Path) -> Option<&Path> {
    let is_closed = |folder: &&Path| {
        let entered = fs::symlink_metadata(folder.join("."));
        entered.is_err_and(|why| why.kind() == io::ErrorKind::PermissionDenied)
    };
    // From the root on; what lies below a closed one is closed, too.
    path.ancestors().skip(1).filter(is_closed).last()
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

/// Whether the other end has taken all that was written. What it has not is lost if that is QEMU and this end is closed: it
/// sees the end first, and reads no further.
pub(super) fn is_all_taken(stream: &UnixStream) -> bool {
    // SAFETY: the kernel writes an integer, which the getter has room for.
    let left = unsafe { rustix::ioctl::ioctl(stream, Getter::<{ libc::TIOCOUTQ as u32 }, libc::c_int>::new()) };
    // For a socket it is the memory that unread bytes take, and not how many there are. Who cannot say has none to wait for.
    !matches!(left, Ok(1..))
}

fn not_a_socket() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "there is something there that is not a socket")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn denied() -> io::Error {
        Errno::ACCESS.into()
    }

    #[test]
    fn a_denied_permission_says_of_what_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let why = explained(denied(), &folder.path().join("a.sock")).to_string();
        assert!(why.starts_with("Permission denied (os error 13): user "), "{why}");
        assert!(why.ends_with("may not write to this socket. Let it"), "{why}");
        let other = explained(Errno::NOENT.into(), folder.path());
        assert_eq!(
            (other.kind(), other.to_string()),
            (io::ErrorKind::NotFound, io::Error::from(Errno::NOENT).to_string())
        );
    }

    #[test]
    fn no_folder_is_closed_to_who_may_enter_all() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(closed_folder(&folder.path().join("not-there/a.sock")), None);
        assert_eq!(closed_folder(Path::new("a.sock")), None);
        assert!(may_connect(folder.path()).is_ok() && may_connect(&folder.path().join("a.sock")).is_ok());
    }

    #[test]
    fn what_was_read_was_taken() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(is_all_taken(&ours));
        ours.write_all(&[7; 100]).unwrap();
        theirs.read_exact(&mut [0; 99]).unwrap();
        assert!(!is_all_taken(&ours), "one is left");
        theirs.write_all(&[7; 100]).unwrap();
        theirs.read_exact(&mut [0; 1]).unwrap();
        assert!(is_all_taken(&ours), "whatever came back");
        ours.write_all(&[7; 100]).unwrap();
        drop(theirs);
        assert!(is_all_taken(&ours), "nobody is there who could take it");
    }
}
