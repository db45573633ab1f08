//! The examples of `docs/protocol.md`, made again by the core.

use fencewire_core::Uuid;
use fencewire_core::native::frame::{self, Deframer, FRAME_MAX, Payload};
use fencewire_core::native::keys::{Keys, write_file};
use fencewire_core::native::message::{
    self, Done, HELLO, Head, Hello, REPLY, REQUEST, Reply, Request, Result, Runs, Said, WELCOME, Welcome, What, Whom,
};

const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md"));
const ID: u64 = 0x1122_3344_5566_7788;

/// The examples: all that stands in the last block of the document.
fn examples() -> &'static str {
    let (_, examples) = DOCUMENT.split_once("## Examples").expect("the examples' heading");
    examples.split("```").nth(1).expect("a block").strip_prefix("text").expect("of text")
}

/// The bytes of the line with that word in front; of the `nth` such line.
fn bytes(word: &str, nth: usize) -> Vec<u8> {
    let mut lines = examples().lines().filter_map(|line| line.strip_prefix(word)).map(str::trim);
    let digits = lines.nth(nth).unwrap_or_else(|| panic!("no {word}"));
    let pairs = (0..digits.len() / 2).map(|at| &digits[2 * at..2 * at + 2]);
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal digits")).collect()
}

fn keys() -> Keys {
    let master: [u8; 32] = std::array::from_fn(|at| at as u8);
    let guest = Uuid::parse(b"b33f94f9-8a30-4e83-9165-fd8681ee13cf").expect("a UUID");
    Keys::derive(&master, guest, 1)
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut out = heapless::Vec::<u8, FRAME_MAX>::new();
    assert!(frame::encode(payload, &mut out));
    out.to_vec()
}

fn welcome() -> Welcome {
    let instance = 0x0102_0304_0506_0708;
    Welcome { min: 1, max: 1, version: 1, instance, stamp: 1_000_000, nonce: [0x22; 16] }
}

/// A frame of the session: its kind, its counter and its body, and the tag.
fn in_session(kind: u8, counter: u32, body: impl FnOnce(&mut Payload) -> bool) -> Vec<u8> {
    let session = keys().session(&bytes("hello", 0), &bytes("welcome", 0));
    let mut payload = Payload::new();
    payload.push(kind).expect("room");
    assert!(message::write(&Head { session: session.name, counter }, &mut payload) && body(&mut payload));
    let key = if kind == REQUEST { &session.asking } else { &session.answering };
    let tag = key.tag(&[&payload]);
    [&payload[..], &tag].concat()
}

fn reply(counter: u32, said: Said) -> Vec<u8> {
    in_session(REPLY, counter, |payload| message::write(&Reply { id: ID, said }, payload))
}

#[test]
fn the_key_file() {
    let file = write_file(&keys());
    let text = std::str::from_utf8(&file).expect("a text");
    assert!(examples().contains(&format!("key file\n{text}\n")), "{text}");
}

#[test]
fn the_handshake() {
    let mut hello = Payload::new();
    hello.push(HELLO).expect("room");
    let guest = *keys().guest().as_bytes();
    message::write(&Hello { min: 1, max: 1, generation: 1, guest, nonce: [0x11; 16] }, &mut hello);
    let tag = keys().hello_tag(&hello);
    assert_eq!(bytes("hello", 0), [&hello[..], &tag].concat());
    assert_eq!(bytes("in frame", 0), framed(&bytes("hello", 0)));

    let mut body = Payload::new();
    body.push(WELCOME).expect("room");
    message::write(&welcome(), &mut body);
    let tag = keys().welcome_tag(&bytes("hello", 0), &body);
    assert_eq!(bytes("welcome", 0), [&body[..], &tag].concat());
    let name = keys().session(&bytes("hello", 0), &bytes("welcome", 0)).name;
    assert_eq!(name, [0x16, 0x53, 0xe3, 0xc6]);
    assert!(examples().contains("the session's name is 1653e3c6"));
}

#[test]
fn a_request_and_its_replies() {
    let what = What::Off(Whom::Name("nfs-server2"), None);
    let request = Request { id: ID, deadline: 1_020_000, what };
    assert_eq!(bytes("request", 0), in_session(REQUEST, 1, |payload| message::write(&request, payload)));
    assert_eq!(bytes("accepted", 0), reply(1, Said::Accepted));
    let (result, before, now) = (Result::Off, Runs::On, Runs::Off);
    let done = Done { result, before, now, incarnation: None, seen_off: true, repeated: false };
    assert_eq!(bytes("done", 0), reply(2, Said::Done(done)));
    assert_eq!(bytes("in frame", 1), framed(&bytes("done", 0)));
}

#[test]
fn a_frame_is_found_between_zeros() {
    let mut deframer = Deframer::new();
    let frame = bytes("in frame", 0);
    let found = frame.iter().filter(|byte| deframer.push(**byte)).count();
    assert_eq!((found, deframer.payload()), (1, &bytes("hello", 0)[..]));
    assert!(DOCUMENT.contains("`07 00 00 08` is `02 07 01 02 08`"));
    assert_eq!(framed(&[7, 0, 0, 8]), [0, 2, 7, 1, 2, 8, 0]);
}

#[test]
fn the_sizes() {
    let length = |payload: &[u8]| framed(payload).len();
    let hello = length(&bytes("hello", 0));
    let welcome = length(&bytes("welcome", 0));
    let off = length(&bytes("request", 0));
    let status = Request { id: ID, deadline: 1_020_000, what: What::Status(Whom::Name("nfs-server2")) };
    let status = length(&in_session(REQUEST, 1, |payload| message::write(&status, payload)));
    let (accepted, done) = (length(&bytes("accepted", 0)), length(&bytes("done", 0)));
    let is_on = length(&reply(2, Said::Status(Runs::On, None)));
    for row in [
        format!("| a frame at most | {FRAME_MAX} |"),
        format!("| hello, welcome | {hello}, {welcome} |"),
        format!("| status, off of `nfs-server2` | {status}, {off} |"),
        format!("| accepted, done, a status' answer | {accepted}, {done}, {is_on} |"),
        format!("An off is {} bytes both ways", hello + welcome + off + accepted + done),
        format!("a status is {} bytes", hello + welcome + status + accepted + is_on),
    ] {
        assert!(DOCUMENT.contains(&row), "the document does not say: {row}");
    }
}
