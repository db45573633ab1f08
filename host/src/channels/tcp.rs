//! A TCP port; whom it believes: the key's holders; and how a key file is read.

use fencewire_core::Trust;
use fencewire_core::classic::key::{BadKey, Hash, KEY_MAX, Key};
use mio::net::TcpListener;
use rustix::fs::OFlags;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// Callers that may wait to be let in. One for whom there is no place tries again a second later.
const WAITING: i32 = 1_024;

/// Listens there.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // It listens already, for fewer.
    rustix::net::listen(&listener, WAITING)?;
    Ok(listener)
}

/// A [`Trust`] that can be told from another.
#[derive(Debug, Clone)]
pub struct Trusted(Box<Trust>);

/// What two keys are compared by: a tag of this.
const SAME: &[u8] = b"fencewired: is this the same key?";

impl Trusted {
    /// Who holds the key of that file and uses these hashes.
    pub fn key(file: &Path, minimum: Hash, auth: Hash) -> Result<Trusted, KeyFileTrouble> {
        Ok(Trusted(Box::new(Trust::Key { key: read_key(file)?, minimum, auth })))
    }

    /// Anybody who can connect.
    pub fn anybody() -> Trusted {
        Trusted(Box::new(Trust::Anybody))
    }

    /// For a listener.
    pub const fn trust(&self) -> &Trust {
        &self.0
    }
}

impl PartialEq for Trusted {
    fn eq(&self, other: &Trusted) -> bool {
        match (&*self.0, &*other.0) {
            (Trust::Anybody, Trust::Anybody) => true,
            (Trust::Key { key: a, minimum, auth }, Trust::Key { key: b, minimum: their_minimum, auth: their_auth }) => {
                let same_hashes = (minimum, auth) == (their_minimum, their_auth);
                same_hashes && b.proves(Hash::Sha512, &[SAME], &a.tag(Hash::Sha512, &[SAME]))
            }
            _ => false,
        }
    }
}

impl Eq for Trusted {}

/// Why a key file cannot be used. Displays as what is wrong with it and what to do.
#[derive(Debug)]
pub enum KeyFileTrouble {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is a folder, a device or the like.
    NoFile,
    /// Others than its owner and group may read or write it: these are its permissions.
    OpenToOthers(u32),
    /// It holds nothing that is a key.
    NoKey(BadKey),
    /// It is a key of the native wire.
    Native,
}

impl fmt::Display for KeyFileTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyFileTrouble::Unreadable(why) => write!(f, "cannot be read ({why}): let this program's user read it"),
            KeyFileTrouble::NoFile => f.write_str("is no regular file: name a file that holds the key"),
            KeyFileTrouble::OpenToOthers(mode) => {
                write!(
                    f,
                    "has permissions {mode:04o}, which lets everybody read or change it: chmod o= it, and make a new key if it was read"
                )
            }
            KeyFileTrouble::NoKey(BadKey::Empty) => {
                f.write_str("is empty: fill it with random bytes, the same on every machine")
            }
            KeyFileTrouble::NoKey(BadKey::TooLong) => {
                write!(f, "has over {KEY_MAX} bytes, more than fence_virt would read: make it shorter")
            }
            KeyFileTrouble::Native => {
                f.write_str("is a key of the native wire, which is not to be used on another: name a classic key file")
            }
        }
    }
}

/// The first line of a native key file.
const NATIVE: &[u8] = b"fencewire-key-1";

fn read_key(path: &Path) -> Result<Key, KeyFileTrouble> {
    // Without that, opening a fifo waits for somebody who writes to it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(KeyFileTrouble::Unreadable)?;
    let metadata = file.metadata().map_err(KeyFileTrouble::Unreadable)?;
    if !metadata.is_file() {
        return Err(KeyFileTrouble::NoFile);
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(KeyFileTrouble::OpenToOthers(mode));
    }
    // Room for all of it at once: a buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * KEY_MAX));
    file.take(KEY_MAX as u64 + 1).read_to_end(&mut bytes).map_err(KeyFileTrouble::Unreadable)?;
    if bytes.starts_with(NATIVE) {
        return Err(KeyFileTrouble::Native);
    }
    Key::absorb(&bytes).map_err(KeyFileTrouble::NoKey)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(bytes: &[u8], mode: u32) -> Result<Trusted, KeyFileTrouble> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Trusted::key(&path, Hash::Sha256, Hash::Sha256)
    }

    #[test]
    fn a_key_file_is_used_only_where_it_is_a_secret() {
        for (bytes, mode, part) in [
            (&b""[..], 0o600, "is empty"),
            (&[7; KEY_MAX + 1][..], 0o600, "over 4096"),
            (b"key", 0o604, "0604"),
            (b"key", 0o602, "0602"),
            (b"fencewire-key-1\n...", 0o600, "native"),
        ] {
            let said = file(bytes, mode).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
        assert!(Trusted::key(Path::new("/nowhere/key"), Hash::Sha256, Hash::Sha256).is_err());
        assert!(Trusted::key(Path::new("/"), Hash::Sha256, Hash::Sha256).is_err());
    }

    #[test]
    fn who_is_trusted_is_compared_by_key_and_hashes() {
        let key = |bytes: &[u8]| file(bytes, 0o640).unwrap();
        assert_eq!(key(&[7; KEY_MAX]), key(&[7; KEY_MAX]));
        assert_ne!(key(b"a"), key(b"b"));
        assert_ne!(key(b"a"), Trusted::anybody());
        assert_eq!(Trusted::anybody(), Trusted::anybody());
    }
}
