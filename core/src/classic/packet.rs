//! The classic wire's packet: a signed request of 176 bytes, over TCP or vsock. Bytes to meaning and back.
//!
//! ```text
//! request u8 · hashtype u8 · addrlen u8 · flags u8 · domain [u8; 64] · address [u8; 28] · port u16 · random [u8; 6]
//! seqno u32 · family u32 · hash [u8; 64]
//! ```
//!
//! `hash` is H(key ‖ the 176 bytes with `hash` zero). Address, port and family are for multicast, where the server calls
//! the client back; here they are zero. Not here: the challenges that follow on the connection.

use super::key::{Hash, Key, TAG_LEN, Tag, WeakHash};
use super::{Malformed, NAME_FIELD, action_byte, ask_of, key_of, put_target};
use crate::words::{Ask, RequestKey};

/// Bytes of a request.
pub const REQUEST_LEN: usize = 176;

const HASHTYPE: usize = 1;
const FLAGS: usize = 3;
const DOMAIN: usize = 4;
const RANDOM: usize = DOMAIN + NAME_FIELD + 28 + 2;
const SEQNO: usize = RANDOM + 6;
const HASH: usize = SEQNO + 4 + 4;
const _: () = assert!(HASH + TAG_LEN == REQUEST_LEN);

/// The bytes of a request.
pub type RequestPacket = [u8; REQUEST_LEN];

/// What makes one request another than the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// Random.
    pub random: [u8; 6],
    /// The real client's: microseconds of its clock.
    pub seqno: u32,
}

/// Why a packet is no request. Nothing is done for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproved {
    /// It is signed with no hash, or one that proves nothing.
    WeakHash(WeakHash),
    /// It is signed with less than is asked for.
    BelowMinimum(Hash),
    /// It is not signed with this key.
    Signature,
    /// It is signed where nobody holds a key, so that nothing can be known of the signature.
    Signed(u8),
    /// It is signed by the key's holder, or need not be, and says nothing.
    Malformed(Malformed),
}

/// Writes a signed request.
pub fn encode_request(ask: &Ask, fresh: Fresh, hash: Hash, key: &Key) -> RequestPacket {
    let mut packet = encode_unsigned(ask, fresh);
    packet[HASHTYPE] = hash.as_byte();
    let tag = key.tag(hash, &[&packet]);
    packet[HASH..].copy_from_slice(&tag);
    packet
}

/// Writes a request that proves nothing.
pub fn encode_unsigned(ask: &Ask, fresh: Fresh) -> RequestPacket {
    let mut packet = [0; REQUEST_LEN];
    packet[0] = action_byte(ask);
    put_target(&mut packet[DOMAIN..DOMAIN + NAME_FIELD], ask);
    packet[RANDOM..SEQNO].copy_from_slice(&fresh.random);
    packet[SEQNO..SEQNO + 4].copy_from_slice(&fresh.seqno.to_le_bytes());
    packet
}

/// Reads a packet. Its signature is looked at before anything that it says.
pub fn decode_request(packet: &RequestPacket, minimum: Hash, key: &Key) -> Result<(Ask, RequestKey), Unproved> {
    let hash = Hash::from_byte(packet[HASHTYPE]).map_err(Unproved::WeakHash)?;
    if hash < minimum {
        return Err(Unproved::BelowMinimum(hash));
    }
    let (signed, tag) = packet.split_at(HASH);
    let tag: &Tag = tag.try_into().map_err(|_| Unproved::Signature)?;
    if !key.proves(hash, &[signed, &[0; TAG_LEN]], tag) {
        return Err(Unproved::Signature);
    }
    meaning(packet)
}

/// Reads a packet where nobody holds a key.
pub fn decode_unsigned(packet: &RequestPacket) -> Result<(Ask, RequestKey), Unproved> {
    match packet[HASHTYPE] {
        0 => meaning(packet),
        signed => Err(Unproved::Signed(signed)),
    }
}

fn meaning(packet: &RequestPacket) -> Result<(Ask, RequestKey), Unproved> {
    let ask = ask_of(packet[0], packet[FLAGS], &packet[DOMAIN..DOMAIN + NAME_FIELD]).map_err(Unproved::Malformed)?;
    Ok((ask, key_of(packet)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{BadName, GuestName, PowerAction, Target};

    const FRESH: Fresh = Fresh { random: [1, 2, 3, 4, 5, 6], seqno: 767_637 };

    fn off(name: &str) -> Ask {
        Ask::Power(PowerAction::Off, Target::Name(GuestName::parse(name.as_bytes()).unwrap()))
    }

    fn signed(ask: &Ask, hash: Hash) -> (RequestPacket, Key) {
        let key = Key::absorb(b"key").unwrap();
        (encode_request(ask, FRESH, hash, &key), key)
    }

    #[test]
    fn a_request_survives_the_wire_under_each_hash() {
        for hash in [Hash::Sha256, Hash::Sha512] {
            for ask in [off("vm1"), Ask::Monitor, Ask::List] {
                let (packet, key) = signed(&ask, hash);
                assert_eq!(decode_request(&packet, Hash::Sha256, &key).map(|(ask, _)| ask), Ok(ask));
            }
        }
    }

    #[test]
    fn a_packet_with_any_byte_changed_is_not_signed() {
        let (packet, key) = signed(&off("vm1"), Hash::Sha256);
        for at in (0..REQUEST_LEN).filter(|at| *at != HASHTYPE) {
            let mut other = packet;
            other[at] ^= 1;
            assert_eq!(decode_request(&other, Hash::Sha256, &key).err(), Some(Unproved::Signature), "byte {at}");
        }
    }

    #[test]
    fn a_packet_signed_by_somebody_else_says_nothing() {
        let (packet, _) = signed(&off("vm1"), Hash::Sha256);
        let other = Key::absorb(b"another key").unwrap();
        assert_eq!(decode_request(&packet, Hash::Sha256, &other), Err(Unproved::Signature));
    }

    #[test]
    fn nobody_is_talked_down_to_a_weaker_hash() {
        let (mut packet, key) = signed(&off("vm1"), Hash::Sha256);
        assert_eq!(decode_request(&packet, Hash::Sha512, &key), Err(Unproved::BelowMinimum(Hash::Sha256)));
        for (byte, why) in [(0, WeakHash::None), (1, WeakHash::Sha1), (4, WeakHash::Unknown(4))] {
            packet[HASHTYPE] = byte;
            assert_eq!(decode_request(&packet, Hash::Sha256, &key), Err(Unproved::WeakHash(why)));
        }
    }

    #[test]
    fn the_holder_of_the_key_may_still_say_nothing() {
        let resigned = |change: &dyn Fn(&mut RequestPacket)| {
            let (mut packet, key) = signed(&off("vm1"), Hash::Sha256);
            packet[HASH..].fill(0);
            change(&mut packet);
            let tag = key.tag(Hash::Sha256, &[&packet]);
            packet[HASH..].copy_from_slice(&tag);
            decode_request(&packet, Hash::Sha256, &key).err()
        };
        let malformed = |why| Some(Unproved::Malformed(why));
        assert_eq!(resigned(&|packet| packet[0] = 7), malformed(Malformed::Action(7)));
        assert_eq!(resigned(&|packet| packet[FLAGS] = 2), malformed(Malformed::Flags(2)));
        assert_eq!(resigned(&|packet| packet[DOMAIN] = 0), malformed(Malformed::Name(BadName::AfterNul)));
        assert_eq!(resigned(&|packet| packet[DOMAIN] = b'\n'), malformed(Malformed::Name(BadName::Control)));
    }
}
