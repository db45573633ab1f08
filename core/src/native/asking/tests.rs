//! What is written and read by hand is what `message`'s types and postcard make of it.

extern crate std;

use super::*;
use crate::native::frame::Payload;
use crate::native::message::{Entry, Head, Hello, Reply, Request, Welcome, What, Whom};
use proptest::prelude::*;
use serde::Serialize;
use std::vec::Vec;

const UUID: [u8; 16] = [0xb3, 0x3f, 0x94, 0xf9, 0x8a, 0x30, 0x4e, 0x83, 0x91, 0x65, 0xfd, 0x86, 0x81, 0xee, 0x13, 0xcf];

fn bytes(value: &impl Serialize) -> Vec<u8> {
    let mut room = [0; 512];
    postcard::to_slice(value, &mut room).expect("room").to_vec()
}

fn written(write: impl FnOnce(&mut Payload)) -> Vec<u8> {
    let mut payload = Payload::new();
    write(&mut payload);
    payload.to_vec()
}

/// Numbers at which a varint changes its length, and others.
fn number() -> impl Strategy<Value = u64> {
    let edges = (0..=64u32).prop_map(|bits| 1u64.checked_shl(bits).unwrap_or(0).wrapping_sub(1));
    prop_oneof![edges.clone(), edges.prop_map(|edge| edge.wrapping_add(1)), any::<u64>()]
}

fn reasons() -> impl Strategy<Value = Reason> {
    prop::sample::select(Reason::ALL.to_vec())
}

fn runs() -> impl Strategy<Value = Runs> {
    prop::sample::select([Runs::On, Runs::Off, Runs::Unknown].to_vec())
}

fn said() -> impl Strategy<Value = Said> {
    let incarnation = || prop::option::of(any::<[u8; 16]>());
    let result = prop_oneof![
        prop::sample::select([Result::Off, Result::Rebooted, Result::NotStarted, Result::On].to_vec()),
        reasons().prop_map(Result::Failed),
    ];
    let done = (result, runs(), runs(), incarnation(), any::<bool>(), any::<bool>());
    prop_oneof![
        Just(Said::Accepted),
        Just(Said::Working),
        done.prop_map(|(result, before, now, incarnation, seen_off, repeated)| {
            Said::Done(Done { result, before, now, incarnation, seen_off, repeated })
        }),
        (runs(), incarnation()).prop_map(|(runs, incarnation)| Said::Status(runs, incarnation)),
        Just(Said::Alive),
        any::<(u8, bool)>().prop_map(|(count, more)| Said::List(count, more)),
        Just(Said::Denied),
        reasons().prop_map(Said::Failed),
    ]
}

/// As it is without what the asking end does not keep.
fn kept(said: Said) -> Said {
    match said {
        Said::Done(done) => Said::Done(Done { incarnation: None, ..done }),
        Said::Status(runs, _) => Said::Status(runs, None),
        said => said,
    }
}

#[test]
fn every_request_is_written_as_the_listener_reads_it() {
    let uuid = Uuid::from_bytes(UUID);
    let guard = Incarnation::from_bytes([9; 16]);
    let longest = [b'x'; NAME_MAX];
    let targets = [&b"v"[..], b"nfs-server2", "gäste".as_bytes(), &longest].map(|name| Target::parse(name).unwrap());
    for target in targets.into_iter().chain([Target::Uuid(uuid)]) {
        let name = match &target {
            Target::Name(name) => Whom::Name(name.as_str()),
            Target::Uuid(uuid) => Whom::Uuid(*uuid.as_bytes()),
        };
        for guard in [None, Some(guard)] {
            let run = guard.map(|guard| *guard.as_bytes());
            for (action, what) in [
                (PowerAction::Off, What::Off(name, run)),
                (PowerAction::Reboot, What::Reboot(name, run)),
                (PowerAction::On, What::On(name)),
            ] {
                let ask = Ask::Power(action, target.clone());
                assert_eq!(written(|to| write_what(&ask, guard, None, to)), bytes(&what), "{ask:?} {guard:?}");
            }
        }
        let ask = Ask::Status(target.clone());
        assert_eq!(written(|to| write_what(&ask, None, None, to)), bytes(&What::Status(name)));
    }
    assert_eq!(written(|to| write_what(&Ask::Monitor, None, None, to)), bytes(&What::Monitor));
    for after in [None, Some(uuid)] {
        let what = What::List(after.map(|uuid| *uuid.as_bytes()));
        assert_eq!(written(|to| write_what(&Ask::List, None, after, to)), bytes(&what));
    }
    let longest = What::Off(Whom::Name(core::str::from_utf8(&longest).unwrap()), Some(UUID));
    assert_eq!(bytes(&longest).len(), WHAT_MAX);
}

proptest! {
    #[test]
    fn heads_and_hellos_are_written_as_the_listener_reads_them(
        generation in any::<u32>(), guest in any::<[u8; 16]>(), nonce in any::<[u8; 16]>(),
        id in number(), deadline in number(), session in any::<[u8; 4]>(), counter in any::<u32>(),
    ) {
        let hello = Hello { min: MIN, max: CURRENT, generation, guest, nonce };
        let hello = [&[message::HELLO][..], &bytes(&hello)].concat();
        prop_assert_eq!(written(|to| write_hello(generation, Uuid::from_bytes(guest), &nonce, to)), hello);
        let request = Request { id, deadline, what: What::Monitor };
        let request = [&[message::REQUEST][..], &bytes(&Head { session, counter }), &bytes(&request)].concat();
        let by_hand = written(|to| {
            write_head(message::REQUEST, &session, counter, to);
            add_number(to, id);
            add_number(to, deadline);
            write_what(&Ask::Monitor, None, None, to);
        });
        prop_assert_eq!(by_hand, request);
    }

    #[test]
    fn welcomes_heads_and_entries_are_read_as_the_listener_writes_them(
        instance in number(), stamp in number(), nonce in any::<[u8; 16]>(),
        session in any::<[u8; 4]>(), counter in any::<u32>(), runs in runs(), name in "[a-zäß]{0,20}",
    ) {
        let welcome = bytes(&Welcome { min: 1, max: 2, version: 3, instance, stamp, nonce });
        let mut read = Reader::new(&welcome);
        prop_assert_eq!([(); 3].map(|()| read.byte()), [1, 2, 3]);
        prop_assert_eq!((read.number(), read.number(), read.array()), (instance, stamp, nonce));
        prop_assert!(read.is_good() && read.rest().is_empty());

        let head = bytes(&Head { session, counter });
        let mut read = Reader::new(&head);
        prop_assert_eq!((read.bytes(4), read.short_number()), (&session[..], counter));
        prop_assert!(read.is_good() && read.rest().is_empty());

        let entry = bytes(&Entry { uuid: UUID, runs, name: &name });
        let mut read = Reader::new(&entry);
        prop_assert_eq!((read.array(), read.runs()), (UUID, runs));
        let length = read.byte();
        prop_assert_eq!(read.bytes(usize::from(length)), name.as_bytes());
        prop_assert!(read.is_good() && read.rest().is_empty());
    }

    #[test]
    fn replies_are_read_as_the_listener_writes_them_and_not_when_they_are_cut(id in number(), said in said()) {
        let reply = bytes(&Reply { id, said });
        let mut read = Reader::new(&reply);
        prop_assert_eq!((read.number(), read.said()), (id, Some(kept(said))));
        prop_assert!(read.rest().is_empty());
        for end in 0..reply.len() {
            let mut read = Reader::new(&reply[..end]);
            read.number();
            prop_assert_eq!(read.said(), None, "cut after {}", end);
        }
    }

    /// Whatever postcard takes for a reply is one here, and is the same; but for varints in more bytes than they need.
    #[test]
    fn any_bytes_are_the_same_reply_here_and_there(any in prop::collection::vec(0u8..16, 0..40)) {
        let theirs = postcard::take_from_bytes::<Reply>(&any);
        let mut read = Reader::new(&any);
        let (id, said) = (read.number(), read.said());
        match theirs {
            Ok((reply, rest)) => {
                prop_assert_eq!((id, said), (reply.id, Some(kept(reply.said))));
                prop_assert_eq!(read.rest(), rest);
            }
            Err(_) => prop_assert_eq!(said, None),
        }
    }
}

#[test]
fn numbers_that_are_too_large_are_none() {
    for (text, limit, good) in [
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..], u64::MAX, true),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], u64::MAX, false),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0x00], u64::MAX, false),
        (&[0xff, 0xff, 0xff, 0xff, 0x0f], u64::from(u32::MAX), true),
        (&[0xff, 0xff, 0xff, 0xff, 0x1f], u64::from(u32::MAX), false),
        (&[0x80], u64::MAX, false),
        (&[], u64::MAX, false),
    ] {
        let mut read = Reader::new(text);
        read.number_up_to(limit);
        assert_eq!(read.is_good(), good, "{text:x?}");
    }
}
