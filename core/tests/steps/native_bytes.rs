//! The native wire's frames and messages, from any bytes: each decoder beside a second reading, and each value through
//! the wire and back.

use super::common::input::Input;
use fencewire_core::native::frame::{self, Deframer, FRAME_MAX, FRAMING, PAYLOAD_MAX, Payload};
use fencewire_core::native::keys::{self, FILE_LEN, Keys};
use fencewire_core::native::message::{
    self, CHUNK_MAX, Done, ENTRY_MAX, Entry, HEAD_MAX, HELLO_MAX, Head, Hello, REPLY_MAX, REQUEST_MAX, Reason, Reply,
    Request, Result as Came, Runs, Said, WELCOME_MAX, Welcome, What, Whom,
};
use fencewire_core::{Failure, Power, Target, Uuid};
use serde::Serialize;
use std::fmt::Debug;

const TAG: usize = keys::TAG_LEN;

/// The payloads between zeros, read by what COBS is rather than byte by byte: runs that fill the space exactly.
fn payloads_between_zeros(stream: &[u8]) -> Vec<Vec<u8>> {
    let Some(first) = stream.iter().position(|&byte| byte == 0) else { return Vec::new() };
    let mut parts: Vec<&[u8]> = stream[first + 1..].split(|&byte| byte == 0).collect();
    // What is behind the last zero has not ended.
    parts.pop();
    parts.into_iter().filter(|part| !part.is_empty()).filter_map(payload_of).collect()
}

fn payload_of(part: &[u8]) -> Option<Vec<u8>> {
    let mut runs: Vec<&[u8]> = Vec::new();
    let mut rest = part;
    while let Some((&code, behind)) = rest.split_first() {
        let (run, behind) = behind.split_at_checked(usize::from(code) - 1)?;
        runs.push(run);
        rest = behind;
    }
    let payload = runs.join(&0);
    (1..=PAYLOAD_MAX).contains(&payload.len()).then_some(payload)
}

/// A payload, with zeros here and there, of any length.
fn payload(input: &mut Input<'_>) -> Vec<u8> {
    let length = input.below(PAYLOAD_MAX + 4);
    let every = input.below(40);
    let mut payload: Vec<u8> = input.some().iter().copied().cycle().take(length).collect();
    payload.resize(length, 7);
    if every > 0 {
        payload.iter_mut().step_by(every).for_each(|byte| *byte = 0);
    }
    payload
}

/// A stream of frames, torn ones and anything; and a room of any size that a frame is written into.
pub(crate) fn frames(input: &mut Input<'_>) {
    let mut stream = Vec::new();
    let mut whole = Vec::new();
    while !input.is_empty() && stream.len() < 20_000 {
        let payload = payload(input);
        let mut framed = heapless::Vec::<u8, { 2 * FRAME_MAX }>::new();
        let filled = input.below(FRAME_MAX);
        framed.resize(filled, 9).expect("there is room");
        assert!(frame::encode(&payload, &mut framed) || payload.len() > PAYLOAD_MAX);
        let framed = &framed[filled..];
        if (1..=PAYLOAD_MAX).contains(&payload.len()) {
            assert_eq!(framed.len(), payload.len() + FRAMING);
            assert_eq!(payloads_between_zeros(framed), [&payload[..]]);
        }
        let mut small = heapless::Vec::<u8, 64>::new();
        small.resize(filled % 65, 9).expect("there is room");
        let room = small.len() + payload.len() + FRAMING <= 64;
        assert_eq!(frame::encode(&payload, &mut small), room);
        assert_eq!(small.len() == filled % 65, !room, "what has no room is not begun");

        match input.below(6) {
            0..=2 => {
                stream.extend(framed);
                whole.push(payload);
            }
            3 => stream.extend(&framed[..input.below(256).min(framed.len())]),
            4 if !framed.is_empty() => {
                let mut damaged = framed.to_vec();
                let at = input.below(256) % damaged.len();
                damaged[at] = input.byte();
                stream.extend(damaged);
            }
            _ => stream.extend(input.some()),
        }
    }
    let mut deframer = Deframer::new();
    let mut found = Vec::new();
    for (at, &byte) in stream.iter().enumerate() {
        if deframer.push(byte) {
            found.push(deframer.payload().to_vec());
        }
        // An end that drops its memory of a quiet channel loses nothing by it.
        if !deframer.has_begun() && byte != 0 {
            let lost = stream[..=at].iter().rev().take_while(|&&byte| byte != 0).count();
            assert!(lost > 0);
            deframer.reset();
        }
    }
    assert_eq!(found, payloads_between_zeros(&stream));
    // Two zeros in a row are nothing, whatever was before.
    for zero in [0, 0] {
        deframer.push(zero);
    }
    let Some(last) = whole.iter().rfind(|payload| (1..=PAYLOAD_MAX).contains(&payload.len())) else { return };
    let mut framed = heapless::Vec::<u8, FRAME_MAX>::new();
    assert!(frame::encode(last, &mut framed));
    let ends: Vec<usize> = (0..framed.len()).filter(|&at| deframer.push(framed[at])).collect();
    assert_eq!((ends, deframer.payload()), (vec![framed.len() - 1], &last[..]));
}

fn written(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Payload::new();
    assert!(message::write(value, &mut bytes));
    bytes.to_vec()
}

/// Whatever these bytes are, they are nothing or a value; and what is written of it is that value, in no more bytes.
macro_rules! reads {
    ($message:ty, $bytes:expr) => {
        let bytes = $bytes;
        if let Some((value, rest)) = message::read::<$message>(0, bytes) {
            let again = [&[0], &written(&value)[..]].concat();
            assert!(again.len() <= bytes.len() - rest.len(), "{value:?}");
            assert_eq!(message::read::<$message>(0, &again), Some((value, &[][..])));
            assert!(message::read::<$message>(0, &again[..again.len() - 1]).is_none(), "a byte less is no value");
        }
    };
}

/// A value of the fuzzer's own, through the wire.
fn survives<T: Serialize + PartialEq + Debug>(value: &T, max: usize, read: impl Fn(&[u8]) -> Option<T>) {
    let bytes = written(value);
    assert!(bytes.len() <= max, "{} bytes of {max}: {value:?}", bytes.len());
    assert_eq!(read(&[&[0], &bytes[..]].concat()).as_ref(), Some(value));
}

fn number(input: &mut Input<'_>) -> u64 {
    u64::from_le_bytes(input.array()) >> (input.below(8) * 8)
}

fn run(input: &mut Input<'_>) -> Option<[u8; 16]> {
    input.flag().then(|| input.array())
}

pub(crate) fn reason(input: &mut Input<'_>) -> Reason {
    input.one_of(&Reason::ALL)
}

pub(crate) fn said(input: &mut Input<'_>) -> Said {
    let runs = |input: &mut Input<'_>| input.one_of(&[Runs::On, Runs::Off, Runs::Unknown]);
    match input.below(10) {
        0 => Said::Accepted,
        1 => Said::Working,
        2..=4 => {
            let failed = Came::Failed(reason(input));
            let result = input.one_of(&[Came::Off, Came::Rebooted, Came::NotStarted, Came::On, failed]);
            let (before, now, incarnation) = (runs(input), runs(input), run(input));
            Said::Done(Done { result, before, now, incarnation, seen_off: input.flag(), repeated: input.flag() })
        }
        5 => Said::Status(runs(input), run(input)),
        6 => Said::Alive,
        7 => Said::List(input.byte(), input.flag()),
        8 => Said::Denied,
        _ => Said::Failed(reason(input)),
    }
}

/// Every message, from bytes and from values.
pub(crate) fn messages(input: &mut Input<'_>) {
    let bytes = [&[0], input.some()].concat();
    reads!(Hello, &bytes);
    reads!(Welcome, &bytes);
    reads!(Head, &bytes);
    reads!(Request<'_>, &bytes);
    reads!(Reply, &bytes);
    reads!(Entry<'_>, &bytes);
    let kind = input.byte();
    assert_eq!(message::read::<Head>(kind, &bytes).is_some(), kind == 0 && message::read::<Head>(0, &bytes).is_some());
    match message::split_tag(&bytes) {
        None => assert!(bytes.len() < TAG),
        Some((body, tag)) => assert_eq!((body.len() + TAG, [body, tag].concat()), (bytes.len(), bytes.clone())),
    }

    let (min, max, generation) = (input.byte(), input.byte(), number(input) as u32);
    let (guest, nonce) = (input.array(), input.array());
    let hello = Hello { min, max, generation, guest, nonce };
    survives(&hello, HELLO_MAX - 1 - TAG, |bytes| Some(message::read(0, bytes)?.0));
    let (version, instance, stamp) = (input.byte(), number(input), number(input));
    let welcome = Welcome { min, max, version, instance, stamp, nonce };
    survives(&welcome, WELCOME_MAX - 1 - TAG, |bytes| Some(message::read(0, bytes)?.0));
    let head = Head { session: input.array(), counter: number(input) as u32 };
    survives(&head, HEAD_MAX - 1, |bytes| Some(message::read(0, bytes)?.0));
    let reply = Reply { id: number(input), said: said(input) };
    survives(&reply, REPLY_MAX - HEAD_MAX - TAG, |bytes| Some(message::read(0, bytes)?.0));

    let text = String::from_utf8_lossy(input.some()).into_owned();
    let name: String = text
        .chars()
        .scan(0, |taken, c| {
            *taken += c.len_utf8();
            (*taken <= 63).then_some(c)
        })
        .collect();
    let whom = if input.flag() { Whom::Name(&name) } else { Whom::Uuid(guest) };
    targets(whom);
    let what = match input.below(6) {
        0 => What::Off(whom, run(input)),
        1 => What::Reboot(whom, run(input)),
        2 => What::On(whom),
        3 => What::Status(whom),
        4 => What::Monitor,
        _ => What::List(run(input)),
    };
    let request = Request { id: number(input), deadline: number(input), what };
    let bytes = [&[0], &written(&request)[..]].concat();
    assert!(bytes.len() - 1 <= REQUEST_MAX - HEAD_MAX - TAG, "{request:?}");
    assert_eq!(message::read(0, &bytes), Some((request, &[][..])));
    let entry = Entry { uuid: guest, runs: input.one_of(&[Runs::On, Runs::Off, Runs::Unknown]), name: &name };
    let bytes = [&[0], &written(&entry)[..]].concat();
    assert!(bytes.len() - 1 <= ENTRY_MAX && ENTRY_MAX <= CHUNK_MAX);
    assert_eq!(message::read(0, &bytes), Some((entry, &[][..])));

    let why = reason(input);
    assert_eq!(Reason::from(Failure::from(why)), why);
    let power = input.one_of(&[Power::On, Power::Off, Power::Unknown]);
    assert_eq!(Power::from(Runs::from(power)), power);
    key_file(input);
}

/// Text of a UUID's shape is one, and nothing else is.
fn targets(whom: Whom<'_>) {
    match (whom, whom.target()) {
        (Whom::Uuid(uuid), target) => assert_eq!(target, Ok(Target::Uuid(Uuid::from_bytes(uuid)))),
        (Whom::Name(name), Ok(Target::Name(same))) => {
            assert_eq!((same.as_str(), Uuid::parse(name.as_bytes())), (name, None));
        }
        (Whom::Name(name), Ok(Target::Uuid(uuid))) => assert_eq!(uuid.to_string(), name.to_ascii_lowercase()),
        (Whom::Name(name), Err(_)) => {
            assert!(name.is_empty() || name.len() > 63 || name.chars().any(char::is_control), "{name:?}");
        }
    }
}

/// What is read of a key file is what is written; a file with any byte changed is another key or none.
fn key_file(input: &mut Input<'_>) {
    let generation = number(input) as u32;
    let keys = Keys::derive(input.some(), Uuid::from_bytes(input.array()), generation);
    let file = keys::write_file(&keys);
    let read = keys::read_file(&file);
    assert_eq!(read.is_some(), generation != 0);
    assert!(keys::is_native_file(&file));
    let Some(read) = read else { return };
    assert_eq!(keys::write_file(&read), file);
    let mut other = file;
    other[input.below(256) % FILE_LEN] ^= input.byte();
    if let Some(read) = keys::read_file(&other) {
        // Upper case and lower case are the same digits.
        let same = keys::write_file(&read)[..].eq_ignore_ascii_case(&other);
        assert!(same || other[FILE_LEN - 1] != b'\n');
        assert!(keys::write_file(&read) != file || other.eq_ignore_ascii_case(&file));
    }
    let any = [&file[..input.below(256) % FILE_LEN], input.some()].concat();
    if let Some(read) = keys::read_file(&any) {
        assert!(any.to_ascii_lowercase().starts_with(&keys::write_file(&read)[..FILE_LEN - 1]));
    }
}
