//! Golden bytes of version 1 of our own wire: each message, each number that stands for something, keys, key file, frames.
//! Guests and hosts of this version are out there: **never edit this file**. What is added to the wire gets a file of its
//! own; if this one fails, what was changed is what is wrong.
//!
//! The bytes were made by hand and by another program in another language, from `docs/protocol.md` alone. The document's own
//! examples are read out of it and checked here.

use fencewire_core::Uuid;
use fencewire_core::native::frame::{self, Deframer, FRAME_MAX, Payload};
use fencewire_core::native::keys::{self, Keys};
use fencewire_core::native::message::{
    self, Done, Entry, Head, Hello, Reason, Reply, Request, Result as Came, Runs, Said, Welcome, What, Whom,
};
use serde::{Deserialize, Serialize};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

const GUEST: [u8; 16] = *b"\xb3\x3f\x94\xf9\x8a\x30\x4e\x83\x91\x65\xfd\x86\x81\xee\x13\xcf";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).expect("a digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).expect("a digit");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

fn keys() -> Keys {
    let master: Vec<u8> = (0..32).collect();
    Keys::derive(&master, Uuid::from_bytes(GUEST), 1)
}

/// The value has these bytes, and these bytes are the value.
#[track_caller]
fn is<'a, T: Serialize + Deserialize<'a> + PartialEq + std::fmt::Debug>(value: T, bytes: &'a [u8]) {
    let mut written = Payload::new();
    assert!(message::write(&value, &mut written), "{value:?}");
    assert_eq!(hex(&written), hex(bytes), "{value:?}");
    let kind_and_body: &'a [u8] = [&[9], bytes].concat().leak();
    assert_eq!(message::read(9, kind_and_body), Some((value, &[][..])));
}

const A: [u8; 16] = [0xaa; 16];

#[test]
fn kinds() {
    assert_eq!([message::HELLO, message::WELCOME, message::REQUEST, message::REPLY], [1, 2, 3, 4]);
}

#[test]
fn what_and_whom() {
    let uuid = b"\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa";
    let with = |head: &[u8], tail: &[u8]| -> &'static [u8] { [head, uuid, tail].concat().leak() };
    is(Whom::Name("vm1"), b"\x00\x03vm1");
    is(Whom::Uuid(A), with(b"\x01", b""));
    is(What::Off(Whom::Name("vm1"), None), b"\x00\x00\x03vm1\x00");
    is(What::Off(Whom::Name("vm1"), Some(A)), with(b"\x00\x00\x03vm1\x01", b""));
    is(What::Off(Whom::Uuid(A), None), with(b"\x00\x01", b"\x00"));
    is(What::Reboot(Whom::Name("vm1"), None), b"\x01\x00\x03vm1\x00");
    is(What::Reboot(Whom::Name("vm1"), Some(A)), with(b"\x01\x00\x03vm1\x01", b""));
    is(What::On(Whom::Name("vm1")), b"\x02\x00\x03vm1");
    is(What::Status(Whom::Name("vm1")), b"\x03\x00\x03vm1");
    is(What::Monitor, b"\x04");
    is(What::List(None), b"\x05\x00");
    is(What::List(Some(A)), with(b"\x05\x01", b""));
}

#[test]
fn said_done_and_entries() {
    let uuid = [0xaa; 16];
    let with = |head: &[u8], tail: &[u8]| -> &'static [u8] { [head, &uuid, tail].concat().leak() };
    let done = |result, incarnation| Done {
        result,
        before: Runs::On,
        now: Runs::Off,
        incarnation,
        seen_off: true,
        repeated: false,
    };
    is(Said::Accepted, b"\x00");
    is(Said::Working, b"\x01");
    is(Said::Done(done(Came::Off, None)), b"\x02\x00\x00\x01\x00\x01\x00");
    is(Said::Done(done(Came::Failed(Reason::Busy), Some(A))), with(b"\x02\x04\x07\x00\x01\x01", b"\x01\x00"));
    is(Said::Done(Done { seen_off: false, repeated: true, ..done(Came::On, None) }), b"\x02\x03\x00\x01\x00\x00\x01");
    is(Said::Status(Runs::Off, None), b"\x03\x01\x00");
    is(Said::Status(Runs::On, Some(A)), with(b"\x03\x00\x01", b""));
    is(Said::Alive, b"\x04");
    is(Said::List(2, true), b"\x05\x02\x01");
    is(Said::List(0, false), b"\x05\x00\x00");
    is(Said::Denied, b"\x06");
    is(Said::Failed(Reason::NotFound), b"\x07\x00");
    is(Entry { uuid: A, runs: Runs::Unknown, name: "vm1" }, with(b"", b"\x02\x03vm1"));
    is(Entry { uuid: A, runs: Runs::On, name: "" }, with(b"", b"\x00\x00"));
}

#[test]
fn results_runs_and_reasons() {
    is(Came::Off, &[0]);
    is(Came::Rebooted, &[1]);
    is(Came::NotStarted, &[2]);
    is(Came::On, &[3]);
    is(Runs::On, &[0]);
    is(Runs::Off, &[1]);
    is(Runs::Unknown, &[2]);
    for (number, reason) in [
        Reason::NotFound,
        Reason::Unreachable,
        Reason::Unconfirmed,
        Reason::Expired,
        Reason::RequesterFenced,
        Reason::Elsewhere,
        Reason::NotStarted,
        Reason::Busy,
        Reason::NotRecorded,
        Reason::Replaced,
        Reason::Ambiguous,
        Reason::Forbidden,
    ]
    .into_iter()
    .enumerate()
    {
        is(reason, vec![number as u8].leak());
        is(Came::Failed(reason), vec![4, number as u8].leak());
        is(Said::Failed(reason), vec![7, number as u8].leak());
    }
}

#[test]
fn numbers_that_stand_for_nothing() {
    let nothing = |kind: u8, body: &[u8]| {
        let bytes = [&[kind], body].concat();
        let read = match kind {
            1 => message::read::<What<'_>>(1, &bytes).is_some(),
            2 => message::read::<Said>(2, &bytes).is_some(),
            3 => message::read::<Came>(3, &bytes).is_some(),
            4 => message::read::<Runs>(4, &bytes).is_some(),
            5 => message::read::<Reason>(5, &bytes).is_some(),
            _ => message::read::<Whom<'_>>(6, &bytes).is_some(),
        };
        assert!(!read, "{kind}: {body:02x?}");
    };
    for number in 200..=255 {
        for kind in 1..=6 {
            nothing(kind, &[number, 1, 0, 0, 0]);
        }
    }
    nothing(1, &[3, 0, 2, 0xff, 0xfe]); // a name that is no UTF-8
    nothing(1, &[0, 0, 1, b'x', 2]); // an option is 0 or 1
    nothing(2, &[5, 0, 2]); // so is a boolean
}

#[test]
fn integers_are_varints() {
    is(Head { session: [1, 2, 3, 4], counter: 1 }, b"\x01\x02\x03\x04\x01");
    is(Head { session: [1, 2, 3, 4], counter: 128 }, b"\x01\x02\x03\x04\x80\x01");
    is(Head { session: [1, 2, 3, 4], counter: u32::MAX }, b"\x01\x02\x03\x04\xff\xff\xff\xff\x0f");
    is(Request { id: 300, deadline: 0, what: What::Monitor }, b"\xac\x02\x00\x04");
    is(
        Request { id: u64::MAX, deadline: 1_020_000, what: What::Monitor },
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xe0\xa0\x3e\x04",
    );
    is(Reply { id: 127, said: Said::Alive }, b"\x7f\x04");
}

const HELLO: &str = "01 01 01 01 b33f94f98a304e839165fd8681ee13cf 11111111111111111111111111111111";
const HELLO_TAG: &str = "740d73ac1c54b7f9d7dc9a4169fc5f9f";
const WELCOME: &str = "02 01 01 01 888e98a8c0e0808101 c0843d 22222222222222222222222222222222";
const WELCOME_TAG: &str = "f815c26fb81d3288998f7d8438b3932b";

#[test]
fn a_hello_and_its_welcome() {
    let hello = Hello { min: 1, max: 1, generation: 1, guest: GUEST, nonce: [0x11; 16] };
    is(hello, unhex(HELLO)[1..].to_vec().leak());
    assert_eq!(hex(&keys().hello_tag(&unhex(HELLO))), HELLO_TAG);
    let welcome =
        Welcome { min: 1, max: 1, version: 1, instance: 0x0102_0304_0506_0708, stamp: 1_000_000, nonce: [0x22; 16] };
    is(welcome, unhex(WELCOME)[1..].to_vec().leak());
    let whole_hello = unhex(&[HELLO, HELLO_TAG].concat());
    assert_eq!(hex(&keys().welcome_tag(&whole_hello, &unhex(WELCOME))), WELCOME_TAG);
}

#[test]
fn a_sessions_name_and_tags() {
    let (hello, welcome) = (unhex(&[HELLO, HELLO_TAG].concat()), unhex(&[WELCOME, WELCOME_TAG].concat()));
    let session = keys().session(&hello, &welcome);
    assert_eq!(hex(&session.name), "1653e3c6");
    let asking = keys::Key::from_bytes(
        unhex("89c3fce6a223bcc7dc77a6640272cbb805d22801489344b4bbc13d6ddce63b56").try_into().unwrap(),
    );
    let answering = keys::Key::from_bytes(
        unhex("39315f55f0e754acef37762c9c9a09c517defade80cc233477a800a25b62c45f").try_into().unwrap(),
    );
    assert_eq!(session.asking.tag(&[b"any"]), asking.tag(&[b"any"]));
    assert_eq!(session.answering.tag(&[b"any"]), answering.tag(&[b"any"]));
    // A chunk of a list with two guests, "vm1" that runs and one without a name of which nothing is known, and more behind.
    let list = "04 1653e3c6 03 88ef99abc5e88c9111 05 02 01 \
                01010101010101010101010101010101 00 03766d31 02020202020202020202020202020202 02 00";
    assert_eq!(hex(&answering.tag(&[&unhex(list)])), "4e7626e9ed214545fd9ff83f8ab7e961");
}

#[test]
fn keys_of_a_guest_and_of_nobody() {
    let file = "fencewire-key-1\n\
                b33f94f9-8a30-4e83-9165-fd8681ee13cf\n\
                00000001\n\
                db47ab3ded5ada8ed0c1fe47ea4195f1f1a533bd90fda2d049c6a4954b16073e\n\
                247892ffa2d3fefc7c2d1ace1bb559ba8a24ae863f1a78744ee9397ac206789d\n";
    assert_eq!(std::str::from_utf8(&keys::write_file(&keys())), Ok(file));
    let read = keys::read_file(file.as_bytes()).expect("a key file");
    assert_eq!(keys::write_file(&read), keys::write_file(&keys()));
    let nobodys = "fencewire-key-1\n\
                   00000000-0000-0000-0000-000000000000\n\
                   00000000\n\
                   7164af5dc1ad31de75d9d1bc21d9e2682354e1ff49718f1f75ecd0b9ee28ef9e\n\
                   cc078e445c60d91b8e5c0277c37a7e9863ffa1a0a8c2790a1360bb59de862dd2\n";
    assert_eq!(std::str::from_utf8(&keys::write_file(&Keys::keyless())), Ok(nobodys));
    assert!(keys::read_file(nobodys.as_bytes()).is_none(), "everybody has them: they are not kept in files");
    let hello = "01 01 01 00 00000000000000000000000000000000 11111111111111111111111111111111";
    assert_eq!(hex(&Keys::keyless().hello_tag(&unhex(hello))), "7519f0b19e4263688d73178d833faf96");
}

#[test]
fn frames() {
    let frame = |payload: &[u8]| {
        let mut out = heapless::Vec::<u8, FRAME_MAX>::new();
        assert!(frame::encode(payload, &mut out));
        out.to_vec()
    };
    assert_eq!(frame(&[7, 0, 0, 8]), [0, 2, 7, 1, 2, 8, 0]);
    assert_eq!(frame(&[1]), [0, 2, 1, 0]);
    assert_eq!(frame(&[0]), [0, 1, 1, 0]);
    assert_eq!(frame(&[9; 208]), [&[0, 209][..], &[9; 208], &[0]].concat());
    assert_eq!(FRAME_MAX, 211);
}

// The document.

/// What stands behind this word at the beginning of a line of the document's examples.
fn example(name: &str) -> &'static str {
    let examples = DOCUMENT.split_once("## Examples").expect("examples").1;
    let line = |line: &'static str| line.strip_prefix(name)?.strip_prefix(' ').map(str::trim);
    examples.lines().find_map(line).unwrap_or_else(|| panic!("no example of {name}"))
}

fn payload_of(frame: &[u8]) -> Vec<u8> {
    let mut deframer = Deframer::new();
    let whole = frame.iter().map(|&byte| deframer.push(byte)).collect::<Vec<_>>();
    assert_eq!(whole.iter().position(|is_whole| *is_whole), Some(frame.len() - 1));
    deframer.payload().to_vec()
}

#[test]
fn the_documents_key_file_is_one_and_derived_as_it_says() {
    let (_, after) = DOCUMENT.split_once("key file\nfencewire-key-1\n").expect("a key file");
    let file = format!("fencewire-key-1\n{}\n", after.lines().take(4).collect::<Vec<_>>().join("\n"));
    assert_eq!(file.as_bytes(), keys::write_file(&keys()));
}

#[test]
fn the_documents_handshake_proves_itself() {
    let (hello, welcome) = (unhex(example("hello")), unhex(example("welcome")));
    let (body, tag) = message::split_tag(&hello).unwrap();
    assert!(keys().proves_hello(body, tag));
    let (said, rest) = message::read::<Hello>(message::HELLO, body).unwrap();
    assert_eq!(said, Hello { min: 1, max: 1, generation: 1, guest: GUEST, nonce: [0x11; 16] });
    assert_eq!(rest, []);
    assert_eq!(payload_of(&unhex(example("in frame"))), hello);

    let (body, tag) = message::split_tag(&welcome).unwrap();
    assert!(keys().proves_welcome(&hello, body, tag));
    let (said, rest) = message::read::<Welcome>(message::WELCOME, body).unwrap();
    assert_eq!((said.instance, said.stamp, said.nonce), (0x0102_0304_0506_0708, 1_000_000, [0x22; 16]));
    assert_eq!(rest, []);
    assert!(DOCUMENT.contains("instance 0x0102030405060708, stamp 1000000; the session's name is 1653e3c6"));
    assert_eq!(hex(&keys().session(&hello, &welcome).name), "1653e3c6");
}

#[test]
fn the_documents_request_and_replies_prove_themselves() {
    let session = keys().session(&unhex(example("hello")), &unhex(example("welcome")));
    let request = unhex(example("request"));
    let (body, tag) = message::split_tag(&request).unwrap();
    assert!(session.asking.proves(&[body], tag) && !session.answering.proves(&[body], tag));
    let (head, rest) = message::read::<Head>(message::REQUEST, body).unwrap();
    assert_eq!(head, Head { session: session.name, counter: 1 });
    let what = What::Off(Whom::Name("nfs-server2"), None);
    let asked = Request { id: 0x1122_3344_5566_7788, deadline: 1_020_000, what };
    assert_eq!(message::read::<Request<'_>>(9, &[&[9], rest].concat()), Some((asked, &[][..])));

    let done = Done {
        result: Came::Off,
        before: Runs::On,
        now: Runs::Off,
        incarnation: None,
        seen_off: true,
        repeated: false,
    };
    for (name, counter, said) in [("accepted", 1, Said::Accepted), ("done", 2, Said::Done(done))] {
        let reply = unhex(example(name));
        let (body, tag) = message::split_tag(&reply).unwrap();
        assert!(session.answering.proves(&[body], tag) && !session.asking.proves(&[body], tag), "{name}");
        let (head, rest) = message::read::<Head>(message::REPLY, body).unwrap();
        assert_eq!(head, Head { session: session.name, counter });
        let reply = Reply { id: 0x1122_3344_5566_7788, said };
        assert_eq!(message::read::<Reply>(9, &[&[9], rest].concat()), Some((reply, &[][..])));
    }
    let in_frame = DOCUMENT.lines().rfind(|line| line.starts_with("in frame")).unwrap();
    assert_eq!(payload_of(&unhex(&in_frame["in frame".len()..])), unhex(example("done")));
}

/// The numbers of the document's tables are those of the code: read row by row.
#[test]
fn the_documents_tables_are_those_of_this_file() {
    let row = |text: &str| assert!(DOCUMENT.contains(text), "not in the document: {text}");
    for kind in ["| 1 hello | guest |", "| 2 welcome | host |", "| 3 request | guest |", "| 4 reply | host |"] {
        row(kind);
    }
    for what in ["| 0 | off |", "| 1 | reboot |", "| 2 | on |", "| 3 | status |", "| 4 | monitor |", "| 5 | list |"] {
        row(what);
    }
    for said in ["| 0 | accepted |", "| 1 | working |", "| 2 | done |", "| 3 | status | Runs", "| 4 | alive |"] {
        row(said);
    }
    for said in ["| 5 | list | count u8", "| 6 | denied |", "| 7 | failed | Reason |"] {
        row(said);
    }
    row("| Runs | 0 on | 1 off | 2 unknown |");
    row("| Result | 0 off | 1 rebooted | 2 off, and not started again | 3 on | 4 failed: Reason |");
    row("`07 00 00 08` is `02 07 01 02 08`");
    row("A frame has 211 bytes at most");
}
