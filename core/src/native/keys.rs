//! Keys and tags. A guest has two keys, one for each direction, derived from the host's master key; a session has two of
//! its own, derived from these and from everything that was said in its handshake.

use super::message::{HELLO, WELCOME};
use crate::sha::{hmac_sha256, sha256};
use crate::words::{UUID_TEXT_LEN, Uuid};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// Bytes of a tag: the first of an HMAC-SHA256.
pub const TAG_LEN: usize = 16;

/// Bytes of a session's name.
pub const SESSION_LEN: usize = 4;

/// One key. Wiped when it is dropped.
#[derive(Clone)]
pub struct Key([u8; KEY_LEN]);

impl Drop for Key {
    // Called: written out at each end of each key's life, it would be a large part of the agent.
    #[inline(never)]
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl Key {
    /// These bytes.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Key {
        Key(bytes)
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; KEY_LEN] {
        hmac_sha256(&self.0, parts)
    }

    /// The tag of `parts`.
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; TAG_LEN] {
        *self.mac(parts).first_chunk().unwrap_or(&[0; TAG_LEN])
    }

    /// Whether `tag` is that of `parts`. Takes as long for a wrong one as for a right one.
    pub fn proves(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        self.tag(parts).ct_eq(tag).into()
    }
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key")
    }
}

/// What a guest and its host share.
#[derive(Clone, Debug)]
pub struct Keys {
    guest: Uuid,
    generation: u32,
    /// For what the guest says.
    asking: Key,
    /// For what the host says.
    answering: Key,
}

/// The generation that stands for no secret at all.
pub const KEYLESS: u32 = 0;

/// [`Keys::derive`] makes these of the master "fencewire without a key" and a UUID of zeros. They are here so that who
/// needs no others need not derive any.
const KEYLESS_ASKING: [u8; KEY_LEN] = [
    0x71, 0x64, 0xaf, 0x5d, 0xc1, 0xad, 0x31, 0xde, 0x75, 0xd9, 0xd1, 0xbc, 0x21, 0xd9, 0xe2, 0x68, 0x23, 0x54, 0xe1,
    0xff, 0x49, 0x71, 0x8f, 0x1f, 0x75, 0xec, 0xd0, 0xb9, 0xee, 0x28, 0xef, 0x9e,
];
const KEYLESS_ANSWERING: [u8; KEY_LEN] = [
    0xcc, 0x07, 0x8e, 0x44, 0x5c, 0x60, 0xd9, 0x1b, 0x8e, 0x5c, 0x02, 0x77, 0xc3, 0x7a, 0x7e, 0x98, 0x63, 0xff, 0xa1,
    0xa0, 0xa8, 0xc2, 0x79, 0x0a, 0x13, 0x60, 0xbb, 0x59, 0xde, 0x86, 0x2d, 0xd2,
];

/// What master keys are salted with.
const SALT: &[u8] = b"fencewire";

impl Keys {
    /// A guest's, out of the host's master key. `generation` counts from 1: enrolling a guest again revokes its old keys.
    pub fn derive(master: &[u8], guest: Uuid, generation: u32) -> Keys {
        let hkdf = Hkdf::<Sha256>::new(Some(SALT), master);
        let key = |direction: u8| {
            let mut key = [0; KEY_LEN];
            let info = [guest.as_bytes(), &generation.to_le_bytes()[..], &[direction]];
            // 32 bytes are never too many.
            let _ = hkdf.expand_multi_info(&info, &mut key);
            Key::from_bytes(key)
        };
        Keys { guest, generation, asking: key(b'>'), answering: key(b'<') }
    }

    /// The same for everybody, and public: what they prove is only that nothing was damaged, repeated or kept.
    pub fn keyless() -> Keys {
        Keys {
            guest: Uuid::from_bytes([0; 16]),
            generation: KEYLESS,
            asking: Key::from_bytes(KEYLESS_ASKING),
            answering: Key::from_bytes(KEYLESS_ANSWERING),
        }
    }

    /// The guest that they belong to; all zeros for [`Keys::keyless`].
    pub const fn guest(&self) -> Uuid {
        self.guest
    }

    /// Which of the guest's keys these are.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// The tag of a hello: `payload` is all that comes before it.
    pub fn hello_tag(&self, payload: &[u8]) -> [u8; TAG_LEN] {
        self.asking.tag(&[payload])
    }

    /// Whether it is.
    pub fn proves_hello(&self, payload: &[u8], tag: &[u8]) -> bool {
        payload.first() == Some(&HELLO) && self.asking.proves(&[payload], tag)
    }

    /// The tag of a welcome: `hello` is the whole payload that it answers.
    pub fn welcome_tag(&self, hello: &[u8], payload: &[u8]) -> [u8; TAG_LEN] {
        self.answering.tag(&[hello, payload])
    }

    /// Whether it is.
    pub fn proves_welcome(&self, hello: &[u8], payload: &[u8], tag: &[u8]) -> bool {
        payload.first() == Some(&WELCOME) && self.answering.proves(&[hello, payload], tag)
    }

    /// The session of that handshake: both whole payloads, tags included.
    pub fn session(&self, hello: &[u8], welcome: &[u8]) -> Session {
        let transcript = sha256(&[hello, welcome]);
        let key = |of: &Key| Key::from_bytes(of.mac(&[b"fencewire session", &transcript]));
        Session {
            name: *transcript.first_chunk().unwrap_or(&[0; SESSION_LEN]),
            asking: key(&self.asking),
            answering: key(&self.answering),
        }
    }
}

/// What both ends have after a handshake.
#[derive(Clone, Debug)]
pub struct Session {
    /// Tells its frames from those of other sessions; no secret.
    pub name: [u8; SESSION_LEN],
    /// For what the guest says.
    pub asking: Key,
    /// For what the host says.
    pub answering: Key,
}

/// The first line of a key file.
pub const FILE_HEAD: &[u8] = b"fencewire-key-1";

/// Bytes of a key file: four lines after the first, each with its newline.
pub const FILE_LEN: usize = FILE_HEAD.len() + 1 + (UUID_TEXT_LEN + 1) + (8 + 1) + 2 * (2 * KEY_LEN + 1);

/// The text of a guest's key file: a head, the guest's UUID, the generation, both keys, all numbers in hexadecimal.
pub fn write_file(keys: &Keys) -> [u8; FILE_LEN] {
    let hex = |bytes: &'_ [u8]| {
        let mut text = heapless::Vec::<u8, { 2 * KEY_LEN }>::new();
        for digit in bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]) {
            let _ = text.push(if digit < 10 { b'0' + digit } else { b'a' - 10 + digit });
        }
        text
    };
    let uuid = keys.guest.text();
    let generation = hex(&keys.generation.to_be_bytes());
    let (asking, answering) = (hex(&keys.asking.0), hex(&keys.answering.0));
    let lines = [FILE_HEAD, &uuid, &generation, &asking, &answering];
    let mut file = [0; FILE_LEN];
    let text = lines.iter().flat_map(|line| line.iter().chain(b"\n"));
    for (place, &byte) in file.iter_mut().zip(text) {
        *place = byte;
    }
    file
}

/// Whether a file is meant to be one of native keys, whether it is a good one or not. Such a file is for this wire alone.
pub fn is_native_file(file: &[u8]) -> bool {
    file.starts_with(FILE_HEAD)
}

/// Where the newlines are behind a key file's UUID, where another is.
const GENERATION_ENDS: usize = 1 + 8;
const ASKING_ENDS: usize = GENERATION_ENDS + 1 + 2 * KEY_LEN;
const ANSWERING_ENDS: usize = ASKING_ENDS + 1 + 2 * KEY_LEN;

/// Reads the text of a key file; none where it is none. A last newline may be missing.
pub fn read_file(file: &[u8]) -> Option<Keys> {
    let mut keys = Keys::keyless();
    keys.read_file(file).map(|()| keys)
}

impl Keys {
    /// Reads the text of a key file into these: moving them about takes more code than reading them. Where it is no
    /// key file, what they are then is of no use.
    #[inline(never)]
    pub fn read_file(&mut self, file: &[u8]) -> Option<()> {
        // Every line has its length, and with it every byte its place.
        let (head, rest) = file.split_at_checked(FILE_HEAD.len())?;
        let (uuid, numbers) = rest.strip_prefix(b"\n")?.split_at_checked(UUID_TEXT_LEN)?;
        self.guest = Uuid::parse(uuid)?;
        self.generation = 0;
        for (at, &byte) in numbers.iter().enumerate() {
            if matches!(at, 0 | GENERATION_ENDS | ASKING_ENDS | ANSWERING_ENDS) {
                if byte != b'\n' {
                    return None;
                }
                continue;
            }
            let digit = (byte as char).to_digit(16)?;
            if at < GENERATION_ENDS {
                self.generation = (self.generation << 4) | digit;
                continue;
            }
            let (key, begin) = if at < ASKING_ENDS {
                (&mut self.asking, GENERATION_ENDS + 1)
            } else {
                (&mut self.answering, ASKING_ENDS + 1)
            };
            let place = key.0.get_mut((at - begin) / 2)?;
            *place = (*place << 4) | digit as u8;
        }
        let is_one = head == FILE_HEAD && numbers.len() >= ANSWERING_ENDS && self.generation != KEYLESS;
        is_one.then_some(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    fn guest() -> Uuid {
        Uuid::from_bytes([7; 16])
    }

    #[test]
    fn a_key_file_is_read_as_it_is_written() {
        let keys = Keys::derive(b"master", guest(), 3);
        let file = write_file(&keys);
        assert!(is_native_file(&file) && file.ends_with(b"\n") && !file.contains(&0));
        let read = read_file(&file).expect("a key file");
        assert_eq!((read.guest, read.generation), (guest(), 3));
        assert_eq!((read.asking.0, read.answering.0), (keys.asking.0, keys.answering.0));
        assert!(read_file(&file[..FILE_LEN - 1]).is_some(), "without the last newline");
    }

    #[test]
    fn the_keys_that_everybody_has_are_derived_as_any() {
        let derived = Keys::derive(b"fencewire without a key", Uuid::from_bytes([0; 16]), KEYLESS);
        let keyless = Keys::keyless();
        assert_eq!((derived.guest, derived.generation), (keyless.guest, keyless.generation));
        assert_eq!((derived.asking.0, derived.answering.0), (keyless.asking.0, keyless.answering.0));
    }

    #[test]
    fn what_is_no_key_file_is_none() {
        let file = write_file(&Keys::derive(b"master", guest(), 3));
        for end in 0..FILE_LEN - 1 {
            assert!(read_file(&file[..end]).is_none(), "{end}");
        }
        for at in 0..FILE_LEN {
            let mut broken = file;
            broken[at] = b'!';
            assert!(read_file(&broken).is_none() || at == FILE_LEN, "{at}");
        }
        assert!(read_file(&[&file[..], b"more"].concat()).is_none());
        assert!(!is_native_file(b"a key of fence-virt's\n") && !is_native_file(b""));
        assert!(read_file(&write_file(&Keys::keyless())).is_none(), "generation 0 is no secret");
    }

    #[test]
    fn keys_say_whose_they_are_and_nothing_of_themselves() {
        let keys = Keys::derive(b"master", guest(), 3);
        assert_eq!((keys.guest(), keys.generation()), (guest(), 3));
        assert_eq!(std::format!("{:?}", keys.asking), "Key");
    }

    #[test]
    fn guests_generations_and_directions_have_keys_of_their_own() {
        let keys = Keys::derive(b"master", guest(), 1);
        let others = [
            Keys::derive(b"master", guest(), 2),
            Keys::derive(b"master", Uuid::from_bytes([8; 16]), 1),
            Keys::derive(b"another", guest(), 1),
        ];
        assert_ne!(keys.asking.0, keys.answering.0);
        for other in others {
            assert_ne!(keys.asking.0, other.asking.0);
            assert_ne!(keys.answering.0, other.answering.0);
        }
    }
}
