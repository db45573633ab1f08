//! The shared key of the packet transports: absorbed into hash states at once, and not kept.
//!
//! Everything that the transports prove is H(key ‖ something). A state that has taken in the key serves for all of it, so
//! the key itself need not stay in memory; the states are wiped when they are dropped.

pub(crate) use crate::sha::State as KeyState;
use subtle::ConstantTimeEq;

/// Bytes of a key file at most.
pub const KEY_MAX: usize = 4_096;

/// Bytes of every tag and challenge on the wire; a shorter hash is padded with zeros.
pub const TAG_LEN: usize = 64;

/// A hash, left-aligned and padded with zeros.
pub type Tag = [u8; TAG_LEN];

/// The hashes that are good enough. The wire has two more numbers: 0, no hash at all, and 1, SHA-1; neither is a value of
/// this type, so nothing that takes one can be talked down to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hash {
    /// 2 on the wire.
    Sha256,
    /// 3 on the wire.
    Sha512,
}

/// Why a byte is no [`enum@Hash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeakHash {
    /// 0: the sender proves nothing.
    None,
    /// 1: SHA-1, with which proofs can be forged by who can pay for it. Use sha256.
    Sha1,
    /// A number that stands for nothing.
    Unknown(u8),
}

impl Hash {
    /// Reads the wire's byte.
    pub const fn from_byte(byte: u8) -> Result<Hash, WeakHash> {
        match byte {
            2 => Ok(Hash::Sha256),
            3 => Ok(Hash::Sha512),
            0 => Err(WeakHash::None),
            1 => Err(WeakHash::Sha1),
            other => Err(WeakHash::Unknown(other)),
        }
    }

    /// The wire's byte.
    pub const fn as_byte(self) -> u8 {
        match self {
            Hash::Sha256 => 2,
            Hash::Sha512 => 3,
        }
    }
}

/// Why the bytes of a key file are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKey {
    /// No byte at all: with such a key anybody can prove anything.
    Empty,
    /// Over 4,096 bytes: fence-virt's programs would use the first of them only, or refuse.
    TooLong,
}

/// A key, in the form of hash states that have taken it in.
#[derive(Clone)]
pub struct Key {
    sha256: KeyState,
    sha512: KeyState,
}

impl Key {
    /// Takes in a whole key file. The caller wipes its own copy.
    #[inline(never)]
    pub fn absorb(file: &[u8]) -> Result<Key, BadKey> {
        match file.len() {
            0 => Err(BadKey::Empty),
            1..=KEY_MAX => {
                let mut key = Key { sha256: KeyState::new(Hash::Sha256), sha512: KeyState::new(Hash::Sha512) };
                key.sha256.take(file);
                key.sha512.take(file);
                Ok(key)
            }
            _ => Err(BadKey::TooLong),
        }
    }

    /// What has taken it in for this hash.
    pub(crate) const fn state(&self, hash: Hash) -> &KeyState {
        match hash {
            Hash::Sha256 => &self.sha256,
            Hash::Sha512 => &self.sha512,
        }
    }

    /// H(key ‖ `parts`).
    pub fn tag(&self, hash: Hash, parts: &[&[u8]]) -> Tag {
        self.state(hash).tag(parts)
    }

    /// Whether `tag` is H(key ‖ `parts`). Takes as long for a wrong one as for a right one.
    pub fn proves(&self, hash: Hash, parts: &[&[u8]], tag: &Tag) -> bool {
        self.tag(hash, parts).ct_eq(tag).into()
    }
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use sha2::{Digest, Sha256, Sha512};
    use std::format;

    #[test]
    fn a_tag_is_the_hash_of_the_key_and_what_follows() {
        let key = Key::absorb(b"key").unwrap();
        let whole: [u8; 32] = Sha256::digest(b"keyab").into();
        let tag = key.tag(Hash::Sha256, &[b"a", b"b"]);
        assert_eq!((&tag[..32], &tag[32..]), (&whole[..], &[0; 32][..]));
        assert_eq!(key.tag(Hash::Sha512, &[b"ab"]), <[u8; 64]>::from(Sha512::digest(b"keyab")));
    }

    #[test]
    fn only_the_right_tag_of_the_right_hash_proves() {
        let key = Key::absorb(b"key").unwrap();
        let mut tag = key.tag(Hash::Sha256, &[b"a"]);
        assert!(key.proves(Hash::Sha256, &[b"a"], &tag));
        assert!(!key.proves(Hash::Sha512, &[b"a"], &tag));
        assert!(!key.proves(Hash::Sha256, &[b"b"], &tag));
        assert!(!Key::absorb(b"kez").unwrap().proves(Hash::Sha256, &[b"a"], &tag));
        tag[63] = 1;
        assert!(!key.proves(Hash::Sha256, &[b"a"], &tag), "the padding is part of it");
    }

    #[test]
    fn keys_of_every_length() {
        assert_eq!(Key::absorb(&[]).err(), Some(BadKey::Empty));
        assert!(Key::absorb(&[7]).is_ok());
        assert!(Key::absorb(&[7; KEY_MAX]).is_ok());
        assert_eq!(Key::absorb(&[7; KEY_MAX + 1]).err(), Some(BadKey::TooLong));
    }

    #[test]
    fn a_key_in_a_log_is_a_word() {
        assert_eq!(format!("{:?}", Key::absorb(b"secret").unwrap()), "Key");
    }

    #[test]
    fn weak_hashes_have_no_value() {
        assert_eq!(Hash::from_byte(0), Err(WeakHash::None));
        assert_eq!(Hash::from_byte(1), Err(WeakHash::Sha1));
        assert_eq!(Hash::from_byte(4), Err(WeakHash::Unknown(4)));
        for hash in [Hash::Sha256, Hash::Sha512] {
            assert_eq!(Hash::from_byte(hash.as_byte()), Ok(hash));
        }
    }
}
