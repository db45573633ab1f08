//! Golden bytes of the classic wire's serial transport. Each vector was captured from Debian's fence_virt 4.12.1 on a
//! pseudo-terminal, together with the reply it was given and what it did with that; `vectors/classic-serial.json` is the
//! whole capture. These are facts about other people's programs: if this fails, do not change the test.

mod common;

use common::{Answering, Asking, asked, done, target};
use fencewire_core::classic::serial::{decode_request, encode_request};
use fencewire_core::{Answer, Ask, Endpoint, Failure, ListEntry, Power, PowerAction, Reply, Uuid};

const MAGIC: &str = "61626261"; // "abba"
const NO_FLAGS: &str = "00"; // also for a UUID
const NO_DOMAIN: &str = "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000";

/// What one run of the real client did.
struct Vector {
    ask: Ask,
    seqno: u32,
    /// What it sent: the action, the domain's text, the sequence number; the rest is the same in all.
    request: [&'static str; 3],
    /// The reply that it was given. For the list see below.
    reply: &'static str,
    /// What our client makes of that reply, as the real one's exit code and output said.
    meant: Reply,
}

fn vectors() -> [Vector; 6] {
    let power = |action, text| Ask::Power(action, target(text));
    let status = || Ask::Status(target("nfs-server1"));
    let nfs_server1 = "6e66732d73657276657231";
    [
        // "Status: ON", exit 0
        Vector {
            ask: status(),
            seqno: 427_054,
            request: ["04", nfs_server1, "2e840600"],
            reply: "6162626100",
            meant: Reply::Power(Power::On),
        },
        // "Status: OFF", exit 2
        Vector {
            ask: status(),
            seqno: 429_402,
            request: ["04", nfs_server1, "5a8d0600"],
            reply: "6162626102",
            meant: Reply::Power(Power::Off),
        },
        // exit 0. The text is that of a UUID, and the flags do not say so.
        Vector {
            ask: power(PowerAction::Off, "b33f94f9-8a30-4e83-9165-fd8681ee13cf"),
            seqno: 434_204,
            request: ["01", "62333366393466392d386133302d346538332d393136352d666438363831656531336366", "1ca00600"],
            reply: "6162626100",
            meant: Reply::Done,
        },
        // "Operation failed", exit 1
        Vector {
            ask: power(PowerAction::Reboot, "vm"),
            seqno: 436_819,
            request: ["02", "766d", "53aa0600"],
            reply: "6162626101",
            meant: Reply::Failed,
        },
        // "Permission denied", exit 3
        Vector {
            ask: power(PowerAction::On, "vm"),
            seqno: 439_323,
            request: ["03", "766d", "1bb40600"],
            reply: "6162626103",
            meant: Reply::Denied,
        },
        // exit 0
        Vector {
            ask: Ask::Monitor,
            seqno: 442_130,
            request: ["05", "", "12bf0600"],
            reply: "6162626100",
            meant: Reply::Done,
        },
    ]
}

const LIST_SEQNO: u32 = 444_678;
const LIST_REQUEST: [&str; 3] = ["06", "", "06c90600"];

/// Printed as "nfs-server1                      41a4d124-6ab2-416c-af66-435e0e1419f4 on", exit 0.
const LIST_REPLY: &str = concat!(
    "61626261fd", // a host list follows
    // name
    "6e66732d73657276657231",
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    // UUID
    "34316134643132342d366162322d343136632d616636362d343335653065313431396634",
    "00000000000000000000000000000000000000000000000000000000",
    "01", // state: running
    "00", // padding
    // the list's end
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    "000000000000000000000000",
    "6162626100", // the final reply
);

fn bytes(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len() % 2, 0);
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// A whole request: 74 bytes.
fn request([action, domain, seqno]: [&str; 3]) -> Vec<u8> {
    let padding = &NO_DOMAIN[..128 - domain.len()];
    bytes(&[MAGIC, action, NO_FLAGS, domain, padding, seqno].concat())
}

/// Their client to our listener: what it asks is understood.
#[test]
fn the_real_clients_requests_are_read() {
    for vector in vectors() {
        let frame = request(vector.request).try_into().expect("74 bytes");
        assert_eq!(decode_request(&frame).map(|(ask, _)| ask), Ok(vector.ask));
    }
    let frame = request(LIST_REQUEST).try_into().expect("74 bytes");
    assert_eq!(decode_request(&frame).map(|(ask, _)| ask), Ok(Ask::List));
}

/// Our client to their daemon: given the same ask and sequence number it sends what theirs sends.
#[test]
fn the_same_ask_makes_the_same_bytes() {
    for vector in vectors() {
        let frame = encode_request(&vector.ask, vector.seqno).expect("can be said");
        assert_eq!(frame[..], request(vector.request), "{:?}", vector.ask);
    }
    assert_eq!(encode_request(&Ask::List, LIST_SEQNO).unwrap()[..], request(LIST_REQUEST));
}

/// The real client's sequence number is below a million: the last byte of its frames is 0. So is ours, whatever the number.
#[test]
fn the_last_byte_of_a_request_is_0() {
    for seqno in [0, 0xff, 0x61_6262, 0x6162_6261, u32::MAX] {
        let frame = encode_request(&Ask::Monitor, seqno).expect("can be said");
        assert_eq!(frame[70..73], seqno.to_le_bytes()[..3]);
        assert_eq!(frame[73], 0);
    }
}

/// Their daemon to our client: each reply means to ours what it meant to theirs.
#[test]
fn replies_mean_what_they_meant_to_the_real_client() {
    for vector in vectors() {
        let mut end = Asking::asked(&vector.ask);
        assert_eq!(end.give(&bytes(vector.reply)), [vector.meant], "{:?}", vector.ask);
    }
}

/// Our listener to their client: the answers are the bytes that it was given.
#[test]
fn answers_are_the_bytes_that_the_real_client_was_given() {
    for vector in vectors() {
        let mut end = Answering::settled();
        let (id, asked) = end.asked(&request(vector.request));
        let answer = match vector.meant {
            Reply::Power(power) => Answer::Power(power),
            Reply::Failed => Answer::Failed(Failure::NotFound),
            Reply::Denied => Answer::Denied,
            _ if vector.ask == Ask::Monitor => Answer::Alive,
            _ => done(&asked),
        };
        end.answer(id, answer).expect("fits");
        assert_eq!(end.listener.transmit(), bytes(vector.reply), "{:?}", vector.ask);
    }
}

fn nfs_server1() -> ListEntry<'static> {
    ListEntry {
        name: "nfs-server1",
        uuid: Uuid::parse(b"41a4d124-6ab2-416c-af66-435e0e1419f4").expect("a UUID"),
        power: Power::On,
    }
}

/// Our listener to their client: a host list, byte for byte.
#[test]
fn a_list_is_the_bytes_that_the_real_client_was_given() {
    let mut end = Answering::settled();
    let (id, _) = asked(end.give(&request(LIST_REQUEST)));
    end.answer(id, Answer::Entry(nfs_server1())).expect("fits");
    let (mut sent, _) = end.drained();
    end.answer(id, Answer::EndOfList).expect("fits");
    sent.extend(end.read());
    assert_eq!(sent, bytes(LIST_REPLY));
}

/// Their daemon to our client: a host list.
#[test]
fn a_list_reads_as_the_real_client_printed_it() {
    let mut end = Asking::asked(&Ask::List);
    let replies = end.give(&bytes(LIST_REPLY));
    let [Reply::Entry(entry), Reply::EndOfList] = replies[..] else { panic!("{replies:?}") };
    let expected = nfs_server1();
    assert_eq!(entry.name(), expected.name.as_bytes());
    assert_eq!((entry.uuid, entry.power), (Some(expected.uuid), expected.power));
}

/// The literals above are the capture's, none forgotten.
#[test]
fn the_vectors_are_the_captured_ones() {
    let captured = include_str!("vectors/classic-serial.json");
    let field = |name: &str| -> Vec<&str> {
        let field = format!("\"{name}\": \"");
        captured
            .split(&field)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .filter(|value| value.starts_with(MAGIC))
            .collect()
    };
    let requests = vectors().map(|vector| vector.request).into_iter().chain([LIST_REQUEST]);
    let replies = vectors().map(|vector| vector.reply).into_iter().chain([LIST_REPLY]);
    let hex = |text: &str| bytes(text);
    assert_eq!(field("request").into_iter().map(hex).collect::<Vec<_>>(), requests.map(request).collect::<Vec<_>>());
    assert_eq!(field("reply"), replies.collect::<Vec<_>>());
}
