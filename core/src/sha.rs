//! SHA-256 and SHA-512 as one: a state that takes bytes in and gives a tag. The compression is the sha2 crate's; here is
//! what surrounds it (FIPS 180-4, chapters 5 and 6), once for both, because the two differ in the width of a word alone.
//! The crate's own surroundings are made anew for each of the two, and would be an eighth of the guest agent.
//!
//! Not here: what is hashed (see `classic::key`, `native::keys`).

use crate::classic::key::{Hash, TAG_LEN, Tag};
use sha2::block_api::{compress256, compress512};
use zeroize::Zeroize;

/// Bytes of SHA-512's block; SHA-256's is half of it.
const BLOCK_MAX: usize = 128;

/// SHA-512's initial words. SHA-256's are their upper halves.
const INITIAL: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// What was taken in. Wiped when it is dropped.
pub(crate) struct State {
    hash: Hash,
    /// SHA-256's are the upper halves.
    words: [u64; 8],
    /// What does not fill a block yet.
    block: [u8; BLOCK_MAX],
    filled: u8,
    /// Bytes that were taken in.
    length: u64,
}

impl State {
    #[inline(never)]
    pub(crate) const fn new(hash: Hash) -> State {
        State { hash, words: INITIAL, block: [0; BLOCK_MAX], filled: 0, length: 0 }
    }

    /// Bytes of a word. A block has 16 of them.
    const fn word_len(&self) -> u8 {
        match self.hash {
            Hash::Sha256 => 4,
            Hash::Sha512 => 8,
        }
    }

    /// Takes `bytes` in.
    #[inline(never)]
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.push(byte);
        }
        self.length += bytes.len() as u64;
    }

    #[inline(never)]
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.block.get_mut(usize::from(self.filled)) {
            *place = byte;
        }
        self.filled += 1;
        if self.filled < self.word_len() * 16 {
            return;
        }
        self.filled = 0;
        match self.hash {
            Hash::Sha256 => {
                let mut words = self.words.map(|word| (word >> 32) as u32);
                compress256(&mut words, self.block.as_chunks().0.get(..1).unwrap_or_default());
                for (wide, word) in self.words.iter_mut().zip(words) {
                    *wide = u64::from(word) << 32;
                }
            }
            Hash::Sha512 => compress512(&mut self.words, core::slice::from_ref(&self.block)),
        }
    }

    /// The hash of all that was taken in, and then of `parts`.
    #[inline(never)]
    pub(crate) fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut state = self.clone();
        for part in parts {
            state.take(part);
        }
        state.finish()
    }

    #[inline(never)]
    fn finish(&mut self) -> Tag {
        let bits = self.length * 8;
        // A 1 bit, zeros, and in a block's last two words the number of bits.
        self.push(0x80);
        while self.filled != self.word_len() * 14 {
            self.push(0);
        }
        for from_end in (0..u32::from(self.word_len()) * 2).rev() {
            self.push(bits.checked_shr(from_end * 8).unwrap_or(0) as u8);
        }
        let mut tag = [0; TAG_LEN];
        let mut places = tag.iter_mut();
        for mut word in self.words {
            for place in places.by_ref().take(self.word_len().into()) {
                word = word.rotate_left(8);
                *place = word as u8;
            }
        }
        tag
    }
}

/// Bytes of a SHA-256.
pub(crate) const SHA256_LEN: usize = 32;

/// The SHA-256 of `parts`, one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; SHA256_LEN] {
    *State::new(Hash::Sha256).tag(parts).first_chunk().unwrap_or(&[0; SHA256_LEN])
}

/// HMAC-SHA256 (RFC 2104), with a key of 32 bytes. The library's would be made anew around the crate's own surroundings.
#[inline(never)]
pub(crate) fn hmac_sha256(key: &[u8; SHA256_LEN], parts: &[&[u8]]) -> [u8; SHA256_LEN] {
    let inner = keyed(key, 0x36).tag(parts);
    *keyed(key, 0x5c).tag(&[inner.get(..SHA256_LEN).unwrap_or_default()]).first_chunk().unwrap_or(&[0; SHA256_LEN])
}

#[inline(never)]
fn keyed(key: &[u8; SHA256_LEN], pad: u8) -> State {
    let mut state = State::new(Hash::Sha256);
    for byte in key {
        state.push(byte ^ pad);
    }
    for _ in SHA256_LEN..BLOCK_MAX / 2 {
        state.push(pad);
    }
    state.length = BLOCK_MAX as u64 / 2;
    state
}

impl Clone for State {
    #[inline(never)]
    fn clone(&self) -> State {
        State { ..*self }
    }
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("State")
    }
}

impl Drop for State {
    #[inline(never)]
    fn drop(&mut self) {
        self.words.zeroize();
        self.block.zeroize();
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::{Digest, Sha256, Sha512};
    use std::vec::Vec;

    #[test]
    fn an_hmac_is_the_one_that_the_library_makes() {
        let message: Vec<u8> = (0..300u32).map(|nth| (nth * 11 % 241) as u8).collect();
        for length in 0..message.len() {
            let key = [length as u8; 32];
            let (begin, end) = message[..length].split_at(length / 3);
            let library = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(&message[..length]);
            assert_eq!(hmac_sha256(&key, &[begin, end])[..], library.finalize().into_bytes()[..], "{length}");
        }
    }

    /// All lengths up to some blocks, in two pieces that are cut anywhere.
    #[test]
    fn they_are_the_hashes_that_the_crate_makes() {
        let message: Vec<u8> = (0..600u32).map(|nth| (nth * 7 % 251) as u8).collect();
        for length in (0..=message.len()).chain([64, 128, 256, 512]) {
            let message = &message[..length];
            let (begin, end) = message.split_at(length * 5 / 11);
            let tag = |hash| {
                let mut state = State::new(hash);
                state.take(begin);
                state.clone().take(b"of no effect on the one that it was cloned from");
                state.take(end);
                state.tag(&[])
            };
            let (short, long) = (Sha256::digest(message), Sha512::digest(message));
            assert_eq!((&tag(Hash::Sha256)[..32], &tag(Hash::Sha256)[32..]), (&short[..], &[0; 32][..]), "{length}");
            assert_eq!(tag(Hash::Sha512)[..], long[..], "{length}");
        }
    }

    #[test]
    fn a_sha256_of_parts_is_that_of_all_of_them() {
        assert_eq!(sha256(&[b"some", b"", b" parts"])[..], Sha256::digest(b"some parts")[..]);
    }

    #[test]
    fn what_was_taken_in_does_not_stand_in_a_log() {
        let mut state = State::new(Hash::Sha256);
        state.take(b"a key");
        assert_eq!(std::format!("{state:?}"), "State");
    }
}
