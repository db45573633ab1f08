//! The classic wire on a serial port or channel: requests of 74 bytes, replies of 5, host lists.
//!
//! Bytes to meaning and back. Not here: who says what when (see [`crate::Client`], [`crate::Listener`]).
//!
//! ```text
//! request  61 62 62 61 · action u8 · flags u8 · domain [u8; 64] · seqno u32
//! reply    61 62 62 61 · code u8
//! list     reply with code 253 · entry … · entry of 130 zeros · reply with the final code
//! entry    name [u8; 64] · uuid [u8; 64] · state u8 · pad u8
//! ```

use super::{Code, NAME_FIELD, action_byte, put_target};
pub use super::{FLAG_UUID, Malformed};
use crate::words::{Ask, BadName, GuestName, ListEntry, Power, RequestKey, Target, UUID_TEXT_LEN, Uuid};

/// 0x61626261, little-endian: "abba".
pub const MAGIC: [u8; 4] = [0x61, 0x62, 0x62, 0x61];

/// Bytes of a request: magic, action, flags, domain, sequence number.
pub const REQUEST_LEN: usize = MAGIC.len() + 1 + 1 + NAME_FIELD + 4;
const _: () = assert!(REQUEST_LEN == 74);

/// Where the domain field begins: after magic, action and flags.
const DOMAIN: usize = MAGIC.len() + 1 + 1;

/// Bytes of a reply: magic, code.
pub const REPLY_LEN: usize = MAGIC.len() + 1;

/// Bytes of a host list's entry: name, UUID in text, state, padding.
pub const ENTRY_LEN: usize = NAME_FIELD + NAME_FIELD + 1 + 1;
const _: () = assert!(ENTRY_LEN == 130);

/// libvirt's `VIR_DOMAIN_RUNNING`, the only state that fence_virt prints as `on`.
const STATE_ON: u8 = 1;
/// libvirt's `VIR_DOMAIN_SHUTOFF`.
const STATE_OFF: u8 = 5;

/// The bytes of a request.
pub type RequestFrame = [u8; REQUEST_LEN];

/// Writes a request. A name in which the magic stands cannot be sent: the other end could not find the frame's end.
/// Of the sequence number the low 24 bits go out, so that the frame's last byte is 0 and never looks like the first of
/// another. The flags are 0, as fence_virt's are.
pub fn encode_request(ask: &Ask, seqno: u32) -> Result<RequestFrame, BadName> {
    let mut domain = [0; NAME_FIELD];
    put_target(&mut domain, ask);
    if has_magic(&domain) {
        let Some(Target::Uuid(_)) = ask.target() else { return Err(BadName::Magic) };
        domain.make_ascii_uppercase();
    }
    let mut frame = [0u8; REQUEST_LEN];
    frame[..MAGIC.len()].copy_from_slice(&MAGIC);
    frame[MAGIC.len()] = action_byte(ask);
    frame[DOMAIN..DOMAIN + NAME_FIELD].copy_from_slice(&domain);
    frame[DOMAIN + NAME_FIELD..].copy_from_slice(&(seqno & 0x00ff_ffff).to_le_bytes());
    Ok(frame)
}

/// Reads a frame that begins with the magic.
pub fn decode_request(frame: &RequestFrame) -> Result<(Ask, RequestKey), Malformed> {
    let [_, _, _, _, action, flags, rest @ ..] = frame;
    let (domain, _seqno) = rest.split_at(NAME_FIELD);
    Ok((super::ask_of(*action, *flags, domain)?, super::key_of(frame)))
}

/// Whether the magic stands anywhere in `bytes`.
pub fn has_magic(bytes: &[u8]) -> bool {
    bytes.windows(MAGIC.len()).any(|window| window == MAGIC)
}

/// A UUID's text; in upper case where the magic would stand in it, and perhaps a reply with the NUL after it.
fn uuid_text(uuid: Uuid) -> [u8; UUID_TEXT_LEN] {
    let mut text = uuid.text();
    if has_magic(&text) {
        text.make_ascii_uppercase();
    }
    text
}

/// Writes a reply.
pub const fn encode_reply(code: Code) -> [u8; REPLY_LEN] {
    let [a, b, c, d] = MAGIC;
    [a, b, c, d, code as u8]
}

/// Writes an entry of a host list. A name that the wire cannot carry is replaced by the UUID. What cannot be told is
/// sent as on: only off is off.
pub fn encode_entry(entry: &ListEntry<'_>) -> [u8; ENTRY_LEN] {
    let uuid = uuid_text(entry.uuid);
    let name = entry.name.as_bytes();
    let name = match GuestName::parse(name) {
        Ok(_) if !has_magic(name) => name,
        _ => &uuid,
    };
    let state = if entry.power == Power::Off { STATE_OFF } else { STATE_ON };
    let field = |text| core::iter::Iterator::chain(<[u8]>::iter(text).copied(), core::iter::repeat(0)).take(NAME_FIELD);
    let mut bytes = [0u8; ENTRY_LEN];
    for (place, byte) in bytes.iter_mut().zip(field(name).chain(field(&uuid)).chain([state])) {
        *place = byte;
    }
    bytes
}

/// The end of a host list.
pub const END_OF_LIST: [u8; ENTRY_LEN] = [0; ENTRY_LEN];

/// An entry of a host list as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    name: [u8; NAME_FIELD - 1],
    name_len: u8,
    /// The guest's UUID; none where the text in the entry is not one.
    pub uuid: Option<Uuid>,
    /// What the entry says of its power. The wire knows on and off; fence_virtd lists a paused guest as off.
    pub power: Power,
}

impl Entry {
    /// For what another wire says of a guest. Of a name that is too long nothing is kept.
    pub(crate) fn of(uuid: Uuid, power: Power, bytes: &[u8]) -> Entry {
        let mut name = [0; NAME_FIELD - 1];
        let name_len = name.get_mut(..bytes.len()).map_or(0, |place| {
            place.copy_from_slice(bytes);
            bytes.len() as u8
        });
        Entry { name, name_len, uuid: Some(uuid), power }
    }

    /// The name's bytes, whatever they are: up to 63.
    pub fn name(&self) -> &[u8] {
        self.name.get(..usize::from(self.name_len)).unwrap_or_default()
    }
}

/// Reads an entry; none where it is the list's end. Takes what fence_virtd sends: bytes 63, 127 and 129 of its
/// entries are whatever its stack held.
pub fn decode_entry(bytes: &[u8; ENTRY_LEN]) -> Option<Entry> {
    if bytes.first() == Some(&0) {
        return None;
    }
    let (_, rest) = bytes.split_at(NAME_FIELD);
    let (uuid, last) = rest.split_at(NAME_FIELD);
    let length = uuid.iter().take_while(|&&byte| byte != 0).count();
    let uuid = uuid.get(..length).and_then(Uuid::parse);
    let power = match last.first() {
        Some(&STATE_ON) => Power::On,
        Some(&STATE_OFF) => Power::Off,
        _ => Power::Unknown,
    };
    let (name, name_len) = name_of(bytes);
    Some(Entry { name, name_len, uuid, power })
}

/// The name in an entry, with zeros behind it, and how many bytes it has.
fn name_of(entry: &[u8; ENTRY_LEN]) -> ([u8; NAME_FIELD - 1], u8) {
    let mut name = [0; NAME_FIELD - 1];
    let mut length = 0;
    for (place, &byte) in name.iter_mut().zip(entry.iter().take_while(|&&byte| byte != 0)) {
        *place = byte;
        length += 1;
    }
    (name, length)
}

/// Finds the magic in a stream, byte by byte, overlaps included: `a abba` and `abbabba` do not hide it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MagicScanner {
    /// How many bytes of the magic the stream's end matches: 0 to 3.
    matched: u8,
}

impl MagicScanner {
    pub(crate) const NEW: MagicScanner = MagicScanner { matched: 0 };

    /// Takes the next byte; says whether it completes the magic.
    pub(crate) fn push(&mut self, byte: u8) -> bool {
        let [a, b, ..] = MAGIC;
        let (matched, complete) = match (self.matched, byte) {
            // The magic's last byte may be the first of the next.
            (3, byte) if byte == a => (1, true),
            (1, byte) if byte == b => (2, false),
            (2, byte) if byte == b => (3, false),
            (_, byte) if byte == a => (1, false),
            _ => (0, false),
        };
        self.matched = matched;
        complete
    }
}

/// Cuts a stream into request frames. A magic begins a frame wherever it stands, also inside another frame, which was
/// torn then: nothing is lost of what follows a fault.
///
/// A frame whose last bytes could be the first of another's magic may be a torn one and the beginning of the next. It
/// is kept back until the next byte, or a little time, tells.
#[derive(Clone, Debug)]
pub(crate) struct Deframer {
    frame: RequestFrame,
    /// Bytes of the frame that are there: 0, or from 4 on; 74 while it is kept back.
    have: u8,
    scanner: MagicScanner,
    noise: u32,
}

/// What a byte completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing yet.
    More,
    /// A frame: read it with [`Deframer::frame`] before the next byte.
    Frame,
    /// The beginning of a frame, and with it the end of one that stayed a torn one of that many bytes.
    Torn(u8),
}

impl Deframer {
    pub(crate) const fn new() -> Deframer {
        Deframer { frame: [0; REQUEST_LEN], have: 0, scanner: MagicScanner { matched: 0 }, noise: 0 }
    }

    /// The frame that [`Cut::Frame`] spoke of.
    pub(crate) const fn frame(&self) -> &RequestFrame {
        &self.frame
    }

    /// Bytes of a begun frame; 0 where none is. A frame of all its bytes is kept back.
    pub(crate) const fn begun(&self) -> u8 {
        self.have
    }

    /// Whether a frame is kept back.
    pub(crate) const fn keeps_back(&self) -> bool {
        self.have as usize == REQUEST_LEN
    }

    /// No byte came in time that would make the kept-back frame a torn one: it is whole, and its last bytes are its own.
    pub(crate) fn release(&mut self) {
        self.reset();
    }

    /// Drops a begun frame.
    pub(crate) fn reset(&mut self) {
        self.have = 0;
        self.scanner = MagicScanner::default();
    }

    /// How many bytes belonged to no frame since this was last asked.
    pub(crate) fn take_noise(&mut self) -> u32 {
        core::mem::take(&mut self.noise)
    }

    /// Whether some did.
    pub(crate) const fn has_noise(&self) -> bool {
        self.noise > 0
    }

    pub(crate) fn push(&mut self, byte: u8) -> Cut {
        let matched = self.scanner.matched;
        let begins = self.scanner.push(byte);
        if self.have == 0 {
            if begins {
                self.begin();
                // The magic's first three bytes were counted as noise when they came.
                self.noise = self.noise.saturating_sub(3);
            } else {
                self.noise = self.noise.saturating_add(1);
            }
            return Cut::More;
        }
        if begins {
            // Its first three bytes were taken for the other frame's last or, once that was kept back, for noise.
            let noise = if self.keeps_back() { self.noise.min(3) } else { 0 };
            self.noise = self.noise.saturating_sub(noise);
            let torn = (self.have + noise as u8).saturating_sub(3);
            self.begin();
            return Cut::Torn(torn);
        }
        if self.keeps_back() {
            self.noise = self.noise.saturating_add(1);
            if self.scanner.matched > matched {
                return Cut::More;
            }
            self.have = 0;
            return Cut::Frame;
        }
        if let Some(place) = self.frame.get_mut(usize::from(self.have)) {
            *place = byte;
        }
        self.have += 1;
        if !self.keeps_back() || self.scanner.matched > 0 {
            return Cut::More;
        }
        self.have = 0;
        Cut::Frame
    }

    fn begin(&mut self) {
        for (place, byte) in self.frame.iter_mut().zip(MAGIC) {
            *place = byte;
        }
        self.have = MAGIC.len() as u8;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::words::PowerAction;
    use std::vec::Vec;

    fn off(name: &str) -> Ask {
        Ask::Power(PowerAction::Off, Target::parse(name.as_bytes()).unwrap())
    }

    fn frames(bytes: &[u8]) -> Vec<RequestFrame> {
        let mut deframer = Deframer::new();
        let mut found = Vec::new();
        for &byte in bytes {
            if deframer.push(byte) == Cut::Frame {
                found.push(*deframer.frame());
            }
        }
        if deframer.keeps_back() {
            found.push(*deframer.frame());
        }
        found
    }

    #[test]
    fn a_request_survives_the_wire() {
        for ask in [off("vm1"), off("b33f94f9-8a30-4e83-9165-fd8681ee13cf"), Ask::Monitor, Ask::List] {
            let frame = encode_request(&ask, 7).unwrap();
            assert_eq!(decode_request(&frame).unwrap().0, ask);
        }
    }

    #[test]
    fn action_bytes_0_to_255() {
        let mut frame = encode_request(&off("vm1"), 7).unwrap();
        for action in 0..=255 {
            frame[4] = action;
            let decoded = decode_request(&frame);
            assert_eq!(decoded.is_ok(), (1..=6).contains(&action), "{action}");
            if !(1..=6).contains(&action) {
                assert_eq!(decoded, Err(Malformed::Action(action)));
            }
        }
    }

    #[test]
    fn names_that_are_none() {
        let with = |domain: &[u8]| {
            let mut frame = encode_request(&off("x"), 7).unwrap();
            frame[6..70].fill(0);
            frame[6..6 + domain.len()].copy_from_slice(domain);
            decode_request(&frame).map(|(ask, _)| ask)
        };
        assert_eq!(with(b""), Err(Malformed::Name(BadName::Empty)));
        assert!(with(&[b'x'; 63]).is_ok());
        assert_eq!(with(&[b'x'; 64]), Err(Malformed::Name(BadName::TooLong)));
        assert_eq!(with(b"vm1\0vm2"), Err(Malformed::Name(BadName::AfterNul)));
        assert_eq!(with(b"vm1\nvm2"), Err(Malformed::Name(BadName::Control)));
        assert_eq!(with(b"\xc3"), Err(Malformed::Name(BadName::NotUtf8)));
        assert!(with("a b ü".as_bytes()).is_ok());
    }

    #[test]
    fn a_name_with_the_magic_in_it_is_not_sent() {
        assert_eq!(encode_request(&off("xabbax"), 7), Err(BadName::Magic));
        let entry = ListEntry { name: "xabbax", uuid: Uuid::from_bytes([7; 16]), power: Power::On };
        assert_eq!(&encode_entry(&entry)[..36], &entry.uuid.text());
    }

    #[test]
    fn a_frame_is_found_after_before_and_inside_anything() {
        let good = encode_request(&off("vm1"), 7).unwrap();
        for before in
            [&b"a"[..], b"ab", b"abb", b"abbabb", b"\xde\xad\xbe\xef", b"abba", b"abbb", &good[..73], &good[..5]]
        {
            let stream = [before, &good, before, &good].concat();
            assert_eq!(frames(&stream), [good, good], "after {before:02x?}");
        }
    }

    #[test]
    fn a_frame_that_ends_like_a_magic_begins_is_whole_all_the_same() {
        let other = encode_request(&off("vm2"), 7).unwrap();
        for tail in [*b"\0\0\0a", *b"\0\0ab", *b"\0abb"] {
            let mut frame = encode_request(&off("vm1"), 0).unwrap();
            frame[70..].copy_from_slice(&tail);
            assert_eq!(frames(&frame), [frame]);
            assert_eq!(frames(&[&frame[..], b"noise", &other].concat()), [frame, other], "{tail:?}");
        }
    }

    #[test]
    fn a_frame_that_is_none_does_not_swallow_the_beginning_of_the_next() {
        let good = encode_request(&off("vm1"), 7).unwrap();
        let mut bad = good;
        bad[4] = 0xff;
        for keep in 0..4 {
            // The bad frame's last bytes are the good one's first.
            let stream = [&bad[..74 - keep], &good].concat();
            assert_eq!(frames(&stream).last(), Some(&good), "{keep} shared");
        }
    }

    #[test]
    fn entries_carry_zeros_where_nothing_is_said() {
        let entry = ListEntry { name: "vm1", uuid: Uuid::from_bytes([7; 16]), power: Power::Unknown };
        let bytes = encode_entry(&entry);
        assert_eq!((bytes[63], bytes[127], bytes[128], bytes[129]), (0, 0, STATE_ON, 0));
        let read = decode_entry(&bytes).unwrap();
        assert_eq!((read.name(), read.uuid), (&b"vm1"[..], Some(entry.uuid)));
        assert_eq!(decode_entry(&END_OF_LIST), None);
    }

    #[test]
    fn entries_of_fence_virtd_are_read_with_their_stray_bytes() {
        let mut bytes = encode_entry(&ListEntry { name: "vm1", uuid: Uuid::from_bytes([7; 16]), power: Power::Off });
        (bytes[63], bytes[127], bytes[129]) = (0xaa, 0xbb, 0xcc);
        let read = decode_entry(&bytes).unwrap();
        assert_eq!((read.name(), read.power), (&b"vm1"[..], Power::Off));
    }
}
