//! Bytes to meaning: each decoder beside a second reading of the same bytes.

use fencewire_core::classic::key::{Hash, KEY_MAX, Key, TAG_LEN, WeakHash};
use fencewire_core::classic::packet::{self, Fresh, REQUEST_LEN, RequestPacket, Unproved};
use fencewire_core::classic::serial::{self, ENTRY_LEN, RequestFrame};
use fencewire_core::classic::{Malformed, action_byte};
use fencewire_core::{Ask, BadName, ListEntry, Power, PowerAction, Target, Uuid};

use super::common::input::Input;

/// What a frame's or a packet's fields mean.
fn meaning(action: u8, flags: u8, domain: &[u8]) -> Result<Ask, Malformed> {
    if action == 0 || action > 6 {
        return Err(Malformed::Action(action));
    }
    if flags > 1 {
        return Err(Malformed::Flags(flags));
    }
    let mut fields = domain.splitn(2, |&byte| byte == 0);
    let (text, padding) = (fields.next().unwrap_or_default(), fields.next());
    let why = match padding {
        None => Some(BadName::TooLong),
        Some(padding) if padding.iter().any(|&byte| byte != 0) => Some(BadName::AfterNul),
        Some(_) => None,
    };
    if let Some(why) = why {
        return Err(Malformed::Name(why));
    }
    let target = target(text).map_err(Malformed::Name)?;
    let power = |action, target| Ask::Power(action, target);
    match (action, target) {
        (5, _) => Ok(Ask::Monitor),
        (6, _) => Ok(Ask::List),
        (_, None) => Err(Malformed::Name(BadName::Empty)),
        (1, Some(target)) => Ok(power(PowerAction::Off, target)),
        (2, Some(target)) => Ok(power(PowerAction::Reboot, target)),
        (3, Some(target)) => Ok(power(PowerAction::On, target)),
        (_, Some(target)) => Ok(Ask::Status(target)),
    }
}

fn target(bytes: &[u8]) -> Result<Option<Target>, BadName> {
    // What is wrong first is what is said.
    let parsed = core::str::from_utf8(bytes);
    let good = parsed.map_or_else(|why| why.valid_up_to(), str::len);
    if String::from_utf8_lossy(&bytes[..good]).chars().any(char::is_control) {
        return Err(BadName::Control);
    }
    let Ok(text) = parsed else { return Err(BadName::NotUtf8) };
    if text.is_empty() {
        return Ok(None);
    }
    let target = Target::parse(bytes).expect("nothing is wrong with it");
    let groups: Vec<&str> = text.split('-').collect();
    let digits = groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let is_uuid = digits && groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]);
    assert_eq!(is_uuid, matches!(target, Target::Uuid(_)));
    let said = if is_uuid { text.to_ascii_lowercase() } else { text.to_owned() };
    assert_eq!(target.to_string(), said);
    Ok(Some(target))
}

/// Whether the target is a name in which the serial wire's magic stands.
fn has_magic(ask: &Ask) -> bool {
    matches!(ask.target(), Some(Target::Name(name)) if name.as_str().contains("abba"))
}

/// A request of the serial wire.
pub fn serial_request(bytes: &[u8]) {
    let frame: RequestFrame = Input::new(bytes).array();
    let read = serial::decode_request(&frame);
    assert_eq!(read.clone().map(|(ask, _)| ask), meaning(frame[4], frame[5], &frame[6..70]));
    let Ok((ask, key)) = read else { return };
    assert_eq!(action_byte(&ask), frame[4]);

    let mut other = frame;
    other[70] ^= 1;
    let (_, other) = serial::decode_request(&other).expect("the sequence number may be any");
    assert!(other.id != key.id && other.body != key.body);

    let seqno = u32::from_le_bytes(frame[70..].try_into().expect("4 bytes"));
    match serial::encode_request(&ask, seqno) {
        Err(why) => assert!(why == BadName::Magic && has_magic(&ask)),
        Ok(said) => {
            assert!(!has_magic(&ask) && !serial::has_magic(&said[1..]));
            assert_eq!((&said[..4], said[5], said[73]), (&b"abba"[..], 0, 0));
            assert_eq!(serial::decode_request(&said).map(|(ask, _)| ask), Ok(ask));
        }
    }
}

/// An entry of a host list, read and written.
pub fn serial_entry(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let entry: [u8; ENTRY_LEN] = input.array();
    match serial::decode_entry(&entry) {
        None => assert_eq!(entry[0], 0),
        Some(read) => {
            let name = entry[..63].split(|&byte| byte == 0).next().unwrap_or_default();
            assert_eq!(read.name(), name);
            let uuid = entry[64..127].split(|&byte| byte == 0).next().unwrap_or_default();
            assert_eq!(read.uuid.map(|uuid| uuid.to_string().into_bytes()), uuid_text(uuid));
            let off_or_on = if entry[128] == 5 { Power::Off } else { Power::On };
            assert!(read.power == off_or_on || !matches!(entry[128], 1 | 5) && read.power == Power::Unknown);
        }
    }

    let uuid = Uuid::from_bytes(input.array());
    let power = input.power();
    let name = String::from_utf8_lossy(input.some()).into_owned();
    let said = serial::encode_entry(&ListEntry { name: &name, uuid, power });
    assert!(!serial::has_magic(&said));
    assert_eq!((said[63], said[127], said[129]), (0, 0, 0));
    let read = serial::decode_entry(&said).expect("no entry is the list's end");
    let can_be_said = !name.is_empty() && name.len() < 64 && !name.contains("abba") && !name.contains(char::is_control);
    if can_be_said {
        assert_eq!(read.name(), name.as_bytes());
    } else {
        assert_eq!(read.name().to_ascii_lowercase(), uuid.to_string().into_bytes());
    }
    assert_eq!(read.uuid, Some(uuid));
    assert_eq!(read.power == Power::Off, power == Power::Off);
}

/// The lower-case text of what looks like a UUID.
fn uuid_text(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = core::str::from_utf8(bytes).ok()?;
    let plain: String = text.split('-').collect();
    let shape = text.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    (shape && plain.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase().into_bytes())
}

/// A packet as it comes, one signed by the key's holder, and one not signed at all.
pub fn packet_request(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let hash = input.one_of(&[Hash::Sha256, Hash::Sha512]);
    let minimum = input.one_of(&[Hash::Sha256, Hash::Sha512]);
    let flipped = input.below(REQUEST_LEN);
    let key = Key::absorb(b"the fuzzer's").expect("a good key");
    let raw: RequestPacket = input.array();
    let meant = meaning(raw[0], raw[3], &raw[4..68]).map_err(Unproved::Malformed);

    // As it comes: whatever is believed of it, its tag is the key's.
    let said_hash = match raw[1] {
        0 => Err(Unproved::WeakHash(WeakHash::None)),
        1 => Err(Unproved::WeakHash(WeakHash::Sha1)),
        2 if minimum == Hash::Sha512 => Err(Unproved::BelowMinimum(Hash::Sha256)),
        2 => Ok(Hash::Sha256),
        3 => Ok(Hash::Sha512),
        other => Err(Unproved::WeakHash(WeakHash::Unknown(other))),
    };
    let signed_by_us = |hash| key.tag(hash, &[&raw[..REQUEST_LEN - TAG_LEN], &[0; TAG_LEN]]) == raw[112..];
    let believed = match said_hash {
        Ok(hash) if !signed_by_us(hash) => Err(Unproved::Signature),
        Ok(_) => meant.clone(),
        Err(why) => Err(why),
    };
    assert_eq!(packet::decode_request(&raw, minimum, &key).map(|(ask, _)| ask), believed);

    // Without a key.
    let believed = if raw[1] == 0 { meant.clone() } else { Err(Unproved::Signed(raw[1])) };
    assert_eq!(packet::decode_unsigned(&raw).map(|(ask, _)| ask), believed);

    // Signed.
    let mut signed = raw;
    signed[1] = hash.as_byte();
    signed[112..].fill(0);
    let tag = key.tag(hash, &[&signed]);
    signed[112..].copy_from_slice(&tag);
    let believed = if hash < minimum { Err(Unproved::BelowMinimum(hash)) } else { meant };
    let read = packet::decode_request(&signed, minimum, &key);
    assert_eq!(read.clone().map(|(ask, _)| ask), believed);

    // Changed on its way.
    let mut changed = signed;
    changed[flipped] ^= 1 << (raw[0] & 7);
    assert!(packet::decode_request(&changed, minimum, &key).is_err());

    let Ok((ask, _)) = read else { return };
    let fresh = Fresh { random: input.array(), seqno: u32::from(input.word()) };
    let said = packet::encode_request(&ask, fresh, hash, &key);
    assert_eq!(packet::decode_request(&said, minimum, &key).map(|(ask, _)| ask), Ok(ask.clone()));
    assert_eq!(packet::decode_unsigned(&packet::encode_unsigned(&ask, fresh)).map(|(ask, _)| ask), Ok(ask));
}

/// A key file of any length, and tags over parts of any length.
pub fn key(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let hash = input.one_of(&[Hash::Sha256, Hash::Sha512]);
    let (repeated, cut) = (usize::from(input.word()) % 5_000, usize::from(input.word()));
    // Files longer than a fuzzer likes to write.
    let pattern = input.some();
    let file: Vec<u8> = pattern.iter().copied().cycle().take(if pattern.is_empty() { 0 } else { repeated }).collect();
    let key = Key::absorb(&file);
    assert_eq!(key.is_ok(), (1..=KEY_MAX).contains(&file.len()));
    let Ok(key) = key else { return };
    assert_eq!(format!("{key:?}"), "Key");

    // The key is what is hashed first, and only that: however key and parts are cut, the tag is the same.
    let first = input.some();
    let parts: [&[u8]; 2] = [first, input.take(usize::MAX)];
    let tag = key.tag(hash, &parts);
    assert_eq!(tag, key.tag(hash, &[&parts.concat()]));
    let cut = cut % file.len();
    if cut > 0 {
        let shorter = Key::absorb(&file[..cut]).expect("as good");
        assert_eq!(tag, shorter.tag(hash, &[&file[cut..], parts[0], parts[1]]));
        assert_eq!(shorter.proves(hash, &parts, &tag), shorter.tag(hash, &parts) == tag);
    }
    assert!(hash == Hash::Sha512 || tag[32..] == [0; 32]);
    assert!(key.proves(hash, &parts, &tag));
    let mut wrong = tag;
    wrong[cut % TAG_LEN] ^= 1;
    assert!(!key.proves(hash, &parts, &wrong));
    let other = if hash == Hash::Sha256 { Hash::Sha512 } else { Hash::Sha256 };
    assert!(!key.proves(other, &parts, &tag));
}
