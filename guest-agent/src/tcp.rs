//! The way over TCP: an address, a port, and a key with its hashes. What was given of them, checked; and the key read.
//!
//! Not here: what is said there (see the core's client).

use crate::order::number;
use crate::system::{Errno, Family, Path, System};
use crate::text::{cut, trim};
use crate::texts::Text;
use fencewire_core::classic::PORT;
use fencewire_core::classic::key::{BadKey, Hash, KEY_MAX, Key};
use zeroize::Zeroize;

/// The first line of a native wire's key. Whoever has one speaks nothing else with it.
const NATIVE_KEY: &[u8] = b"fencewire-key-1";

/// Where to, and how the two ends prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tcp<'a> {
    pub(crate) family: Family,
    /// Of an IPv4 address the first 4.
    octets: [u8; 16],
    pub(crate) port: u16,
    /// What the request is signed with; none: it is not.
    pub(crate) hash: Option<Hash>,
    /// What challenges are answered with; none: there are none.
    pub(crate) auth: Option<Hash>,
    pub(crate) key_file: &'a [u8],
}

impl Tcp<'_> {
    /// fence_virt's defaults.
    pub(crate) const NEW: Tcp<'static> = Tcp {
        family: Family::Ipv4,
        octets: [0; 16],
        port: PORT,
        hash: Some(Hash::Sha256),
        auth: Some(Hash::Sha256),
        key_file: b"/etc/cluster/fence_xvm.key",
    };

    /// Takes an address in figures. No name: who would look it up may be what is to be fenced, and this program cannot.
    #[inline(never)]
    pub(crate) fn set_address(&mut self, text: &[u8]) -> Option<()> {
        if let Some(octets) = v4(text) {
            self.octets[..4].copy_from_slice(&octets);
        } else {
            self.family = Family::Ipv6;
            self.octets = v6(text)?;
        }
        Some(())
    }

    /// As the kernel wants it.
    pub(crate) fn address(&self) -> [u8; 22] {
        let mut address = [0; 22];
        address[..2].copy_from_slice(&self.port.to_be_bytes());
        let after_port = match self.family {
            Family::Ipv6 => &mut address[6..],
            _ => &mut address[2..18],
        };
        after_port.copy_from_slice(&self.octets);
        address
    }

    /// Reads the key. Not inlined also because of its room on the stack, which only this way needs.
    #[inline(never)]
    pub(crate) fn key<S: System>(&self, system: &S) -> Result<Key, Errno> {
        let mut path = Path::new();
        if !path.set(self.key_file, b"") {
            return Err(Errno::NAMETOOLONG);
        }
        // One byte more than a key may have: one that has more is to be noticed.
        let mut bytes = [0; KEY_MAX + 1];
        let read = system.read_file(&path, &mut bytes);
        let key = read.and_then(|read| absorb(bytes.get(..read as usize).unwrap_or_default()));
        bytes.zeroize();
        key
    }
}

fn absorb(file: &[u8]) -> Result<Key, Errno> {
    if trim(cut(file, b'\n').0) == NATIVE_KEY {
        return Err(Errno::KEYREJECTED);
    }
    Key::absorb(file).map_err(|bad| match bad {
        BadKey::Empty => Errno::NODATA,
        BadKey::TooLong => Errno::TOOBIG,
    })
}

/// Makes `hash` what the word says; `none` is none. False: it says none of these, and nothing changes.
#[inline(never)]
pub(crate) fn set_hash(hash: &mut Option<Hash>, word: &[u8]) -> bool {
    *hash = if Text::Sha256.is(word) {
        Some(Hash::Sha256)
    } else if Text::Sha512.is(word) {
        Some(Hash::Sha512)
    } else if Text::None.is(word) {
        None
    } else {
        return false;
    };
    true
}

#[inline(never)]
fn v4(text: &[u8]) -> Option<[u8; 4]> {
    let mut octets = [0; 4];
    let mut rest = Some(text);
    for octet in &mut octets {
        let (figures, after) = cut(rest?, b'.');
        // 010 is ten to some and eight to others.
        if let [b'0', _, ..] = figures {
            return None;
        }
        *octet = number(figures, 0, 255)? as u8;
        rest = after;
    }
    rest.is_none().then_some(octets)
}

/// Eight groups; or fewer, and once `::` for the zeros between them. The last two may be written as an IPv4 address.
fn v6(text: &[u8]) -> Option<[u8; 16]> {
    let mut given = heapless::Vec::<u8, 16>::new();
    let mut gap = None;
    let mut rest = match text {
        [b':', after @ ..] if after.starts_with(b":") => Some(after),
        [b':', ..] => return None,
        _ => Some(text),
    };
    while let Some(mut text) = rest {
        // The second colon of two.
        if let [b':', after @ ..] = text {
            if gap.replace(given.len()).is_some() {
                return None;
            }
            if after.is_empty() {
                break;
            }
            text = after;
        }
        let (figures, after) = cut(text, b':');
        rest = after;
        match v4(figures) {
            Some(octets) if after.is_none() => given.extend_from_slice(&octets).ok()?,
            _ => given.extend_from_slice(&group(figures)?.to_be_bytes()).ok()?,
        }
    }
    let zeros = 16 - given.len();
    if gap.is_some() == (zeros == 0) {
        return None;
    }
    let mut octets = [0; 16];
    for (nth, byte) in given.iter().enumerate() {
        let at = if gap.is_some_and(|gap| nth >= gap) { nth + zeros } else { nth };
        *octets.get_mut(at)? = *byte;
    }
    Some(octets)
}

/// One to four hexadecimal figures.
fn group(figures: &[u8]) -> Option<u16> {
    if figures.is_empty() || figures.len() > 4 {
        return None;
    }
    let mut group = 0;
    for &figure in figures {
        group = group << 4 | (figure as char).to_digit(16)? as u16;
    }
    Some(group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn address(text: &str) -> Option<IpAddr> {
        let mut tcp = Tcp::NEW;
        tcp.set_address(text.as_bytes())?;
        let bytes = tcp.address();
        assert_eq!(bytes[..2], [4, 0xcd]);
        Some(match tcp.family {
            Family::Ipv4 => <[u8; 4]>::try_from(&bytes[2..6]).unwrap().into(),
            _ => <[u8; 16]>::try_from(&bytes[6..]).unwrap().into(),
        })
    }

    #[test]
    fn addresses_are_what_the_standard_library_takes_for_them() {
        for text in [
            "10.0.0.1",
            "255.255.255.255",
            "256.0.0.1",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.",
            "01.2.3.4",
            "1.2.3.-4",
            "0x7f.0.0.1",
            "::",
            "::1",
            "fd00::1",
            "FD00:0:0:0:0:0:0:1",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7::",
            "::2:3:4:5:6:7:8",
            "1::3:4:5:6:7:8",
            "1::2:3:4:5:6:7:8",
            "1:2:3:4::5:6:7:8",
            "::ffff:192.168.1.1",
            "::192.168.1.1",
            "1:2:3:4:5:6:10.0.0.1",
            "1:2:3:4:5:6:7:10.0.0.1",
            "10.0.0.1::",
            "::10.0.0.1:1",
            "::10.0.0.01",
            "12345::",
            "::g",
            "fe80::1%eth0",
            "[::1]",
            "localhost",
            " ::1",
            "10.0.0.1:1229",
            "-",
            "",
        ] {
            assert_eq!(address(text), text.parse().ok(), "{text}");
        }
    }

    /// Every text of up to six of the bytes that matter.
    #[test]
    fn and_of_nothing_else() {
        let mut texts = vec![String::new()];
        for _ in 0..7 {
            for text in &texts {
                assert_eq!(address(text), text.parse().ok(), "{text}");
            }
            let longer = texts.iter().flat_map(|text| ":.01f".chars().map(move |last| format!("{text}{last}")));
            texts = longer.collect();
        }
    }

    #[test]
    fn hashes_in_any_case() {
        let said = |word: &[u8]| {
            let mut hash = Some(Hash::Sha256);
            set_hash(&mut hash, word).then_some(hash)
        };
        assert_eq!(said(b"sha256"), Some(Some(Hash::Sha256)));
        assert_eq!(said(b"SHA512"), Some(Some(Hash::Sha512)));
        assert_eq!(said(b"None"), Some(None));
        for none in [&b""[..], b"sha1", b"sha", b"sha2566", b"2"] {
            assert_eq!(said(none), None);
        }
    }
}
