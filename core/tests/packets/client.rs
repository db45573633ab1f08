//! The packet client's promises: whom it believes, what it answers, what each byte of a reply means, and how it ends.

use crate::common::packets::{
    CHALLENGE, FRESH, HASHES, UNSIGNED, code, entropy, key, proof, request, said_by_theirs, shared, signed,
};
use crate::common::{Asking, ENTROPY, by_bytes, entry_bytes, off, status, target};
use fencewire_core::classic::Code;
use fencewire_core::classic::key::Hash;
use fencewire_core::classic::packet::{decode_request, encode_request, encode_unsigned};
use fencewire_core::classic::serial::{END_OF_LIST, ENTRY_LEN};
use fencewire_core::{Ask, Client, Endpoint, Millis, Power, PowerAction, Reply};

fn names(replies: &[Reply]) -> Vec<String> {
    let name = |reply: &Reply| match reply {
        Reply::Entry(entry) => String::from_utf8_lossy(entry.name()).into_owned(),
        other => format!("{other:?}"),
    };
    replies.iter().map(name).collect()
}

// Whom it believes.

/// The request and a challenge go out at once, signed as was asked for; the challenge is this connection's entropy.
#[test]
fn a_request_and_a_challenge_are_sent() {
    for (hash, auth) in HASHES.into_iter().flat_map(|hash| HASHES.map(|auth| (hash, auth))) {
        let mut end = Asking::of_packets(signed(&shared(), hash, auth), &off("vm1"), &entropy(9));
        let sent = end.written();
        assert_eq!(sent, [&encode_request(&off("vm1"), FRESH, hash, &shared())[..], &[9; 64]].concat());
        assert!(!end.client.is_over());
        assert_eq!(end.give(&[proof(&[9; 64], auth), CHALLENGE].concat()), []);
        assert_eq!(end.written(), proof(&CHALLENGE, auth));
        assert_eq!(end.give(&[0]), [Reply::Done]);
        end.is_at_its_end();
    }
}

/// Rule 1: whoever does not hold the key is not believed, and gets no answer to what it would like answered.
#[test]
fn who_does_not_prove_itself_is_not_believed() {
    let wrong = [
        key("another").tag(Hash::Sha256, &[&ENTROPY.0]),
        proof(&ENTROPY.0, Hash::Sha512),
        proof(&CHALLENGE, Hash::Sha256),
        ENTROPY.0,
        [0; 64],
    ];
    let flipped = (0..64).map(|at| {
        let mut proof = proof(&ENTROPY.0, Hash::Sha256);
        proof[at] ^= 1;
        proof
    });
    for wrong in wrong.into_iter().chain(flipped) {
        let mut end = Asking::keyed(&off("vm1"));
        assert_eq!(end.give(&[&wrong[..], &CHALLENGE, &[0]].concat()), [Reply::NotProved]);
        end.is_at_its_end();
    }
}

/// Our own challenge, sent back to us to learn the answer, is not answered.
#[test]
fn our_own_challenge_is_not_answered() {
    let mut end = Asking::keyed(&off("vm1"));
    assert_eq!(end.give(&proof(&ENTROPY.0, Hash::Sha256)), []);
    assert_eq!(end.give(&[&ENTROPY.0[..], &[0]].concat()), [Reply::NotProved]);
    end.is_at_its_end();
}

/// Nothing is answered before all of the challenge is there.
#[test]
fn a_challenge_is_answered_when_it_is_whole() {
    let mut end = Asking::keyed(&off("vm1"));
    for byte in &said_by_theirs(&ENTROPY) {
        assert_eq!(end.written(), []);
        assert_eq!(end.give(&[*byte]), []);
    }
    assert_eq!(end.written(), proof(&CHALLENGE, Hash::Sha256));
}

/// A port may take the request and the proof one byte at a time.
#[test]
fn partial_writes_are_fine() {
    let by_bytes = |end: &mut Asking| {
        let written = by_bytes(&mut end.client, end.now);
        end.client.sent(1_000, end.now);
        written
    };
    let mut end = Asking::of_packets(signed(&shared(), Hash::Sha256, Hash::Sha256), &off("vm1"), &ENTROPY);
    assert_eq!(by_bytes(&mut end), [&request(&off("vm1"))[..], &ENTROPY.0].concat());
    end.give(&said_by_theirs(&ENTROPY));
    assert_eq!(by_bytes(&mut end), proof(&CHALLENGE, Hash::Sha256));
    assert_eq!(end.give(&[0]), [Reply::Done]);
}

/// Rule 1: where nobody proves anything, what comes before the whole request was sent is no answer to it: it is some
/// other service. With a key, what comes before our proof has gone is none.
#[test]
fn nothing_counts_before_the_whole_request_was_sent() {
    for sent in [0, 1, 175] {
        let mut end = Asking::of_packets(UNSIGNED, &off("vm1"), &ENTROPY);
        end.client.sent(sent, end.now);
        assert_eq!(end.give(&[0]), [Reply::Failed], "{sent}");
        end.is_at_its_end();
    }
    // Nobody can answer a challenge that has not gone.
    for sent in [0, 175, 239] {
        let mut end = Asking::of_packets(signed(&shared(), Hash::Sha256, Hash::Sha256), &off("vm1"), &ENTROPY);
        end.client.sent(sent, end.now);
        assert_eq!(end.give(&said_by_theirs(&ENTROPY)), [Reply::NotProved], "{sent}");
        end.is_at_its_end();
    }
    for sent in [0, 1, 63] {
        let mut end = Asking::keyed(&off("vm1"));
        assert_eq!(end.give(&said_by_theirs(&ENTROPY)), []);
        end.client.sent(sent, end.now);
        assert_eq!(end.give(&[0]), [Reply::Failed], "{sent} of the proof");
        end.is_at_its_end();
    }
}

/// What this wire can name: a name in which the serial wire's magic stands, too.
#[test]
fn every_name_can_be_said() {
    let longest = "x".repeat(63);
    for name in ["x", "abba", "xabbax", "büro", &longest, "b33f94f9-8a30-4e83-9165-fd8681eeabba"] {
        let mut end = Asking::keyed(&Ask::Power(PowerAction::Reboot, target(name)));
        assert_eq!(end.written(), []);
        let packet = request(&off(name));
        assert_eq!(decode_request(&packet, Hash::Sha256, &shared()).unwrap().0, off(name));
    }
}

// What a reply means.

/// Each code means what the wire says, and no more; with a key and without.
#[test]
fn every_code_has_its_meaning() {
    let power = |action| Ask::Power(action, target("vm1"));
    let meanings = [
        (power(PowerAction::Off), Code::Success, Reply::Done),
        (power(PowerAction::Off), Code::Failed, Reply::Failed),
        (power(PowerAction::Off), Code::Denied, Reply::Denied),
        (power(PowerAction::Reboot), Code::Success, Reply::Done),
        (power(PowerAction::On), Code::Success, Reply::Done),
        (Ask::Monitor, Code::Success, Reply::Done),
        (Ask::Monitor, Code::Failed, Reply::Failed),
        (status("vm1"), Code::Success, Reply::Power(Power::On)),
        (status("vm1"), Code::Off, Reply::Power(Power::Off)),
        (status("vm1"), Code::Failed, Reply::Power(Power::Unknown)),
        (status("vm1"), Code::Denied, Reply::Denied),
        (Ask::List, Code::Failed, Reply::Failed),
        (Ask::List, Code::Denied, Reply::Denied),
    ];
    for (ask, said, meaning) in meanings {
        for mut end in [Asking::proved(&ask), Asking::unkeyed(&ask)] {
            assert_eq!(end.give(&[&code(said)[..], b"\0\x01\x02"].concat()), [meaning], "{ask:?} {said:?}");
            end.is_at_its_end();
        }
    }
}

/// Rule 1: a byte that is no answer to this request is a failure: nothing but the answer can be there.
#[test]
fn every_other_byte_is_a_failure() {
    let known = |ask: &Ask| match ask {
        Ask::Power(..) | Ask::Monitor => vec![0, 1, 3],
        Ask::Status(_) => vec![0, 1, 2, 3],
        Ask::List => vec![1, 3, 253],
    };
    for ask in [off("vm1"), status("vm1"), Ask::Monitor, Ask::List] {
        for byte in (0..=255).filter(|byte| !known(&ask).contains(byte)) {
            for mut end in [Asking::proved(&ask), Asking::unkeyed(&ask)] {
                assert_eq!(end.give(&[byte]), [Reply::Failed], "{ask:?} {byte}");
                end.is_at_its_end();
            }
        }
    }
}

// Lists.

/// Sent as it has to be: nobody can reply before the proof has gone.
fn give_in_turn(end: &mut Asking, said: &[u8]) -> Vec<Reply> {
    let (proofs, reply) = said.split_at(said.len().min(128));
    assert_eq!(end.give(proofs), []);
    end.written();
    end.give(reply)
}

fn list(names: &[&str]) -> Vec<u8> {
    let entries = names.iter().flat_map(|name| entry_bytes(name)).collect();
    [code(Code::HostList), entries, END_OF_LIST.to_vec()].concat()
}

/// Every entry is handed out in its order, however the bytes come, and the list is whole only with its final code.
#[test]
fn a_list_is_handed_out_entry_by_entry() {
    let bytes = [list(&["vm1", "vm2", "vm3"]), code(Code::Success)].concat();
    for chunk in [1, 2, 5, 64, 129, 130, 131, 1_000] {
        for mut end in [Asking::proved(&Ask::List), Asking::unkeyed(&Ask::List)] {
            let replies: Vec<Reply> = bytes.chunks(chunk).flat_map(|part| end.give(part)).collect();
            assert_eq!(names(&replies), ["vm1", "vm2", "vm3", "EndOfList"], "by {chunk}");
            end.is_at_its_end();
        }
    }
}

#[test]
fn an_empty_list_is_a_list() {
    let mut end = Asking::proved(&Ask::List);
    assert_eq!(end.give(&[list(&[]), code(Code::Success)].concat()), [Reply::EndOfList]);
}

/// An owner that polls late gets them all the same: nothing is taken while an entry waits to be polled.
#[test]
fn an_entry_is_not_overwritten_by_the_next() {
    let mut end = Asking::proved(&Ask::List);
    let bytes = list(&["vm1", "vm2"]);
    let first = 1 + ENTRY_LEN;
    assert_eq!(end.client.receive(&bytes, end.now), first);
    assert_eq!(end.client.receive(&bytes[first..], end.now), 0);
    assert_eq!(names(&end.polled()), ["vm1"]);
    assert_eq!(names(&end.give(&bytes[first..])), ["vm2"]);
}

/// A list that the other end could not finish is no list.
#[test]
fn a_list_that_ends_with_anything_but_success_has_failed() {
    for byte in 1..=255 {
        let mut end = Asking::proved(&Ask::List);
        assert_eq!(names(&end.give(&[list(&["vm1"]), vec![byte]].concat())), ["vm1", "Failed"], "{byte}");
        end.is_at_its_end();
    }
}

/// fence_virtd sends bytes 63, 127 and 129 of its entries as its stack had them.
#[test]
fn stray_bytes_of_fence_virtd_change_nothing() {
    let mut stray = entry_bytes("vm1");
    (stray[63], stray[127], stray[129]) = (0x61, 0xff, 0x7f);
    let mut end = Asking::proved(&Ask::List);
    let replies = end.give(&[&code(Code::HostList)[..], &stray, &END_OF_LIST, &[0]].concat());
    assert_eq!(names(&replies), ["vm1", "EndOfList"]);
    let Reply::Entry(entry) = replies[0] else { panic!() };
    assert_eq!((entry.uuid, entry.power), (Some(crate::common::entry("vm1").uuid), Power::On));
}

// How it ends.

/// A connection that goes away, at every byte of a reply: where nothing was said nothing was done; after that it is
/// unknown, since one that proves nothing may have said what it did; success is never made of it, and neither is a list's
/// end.
#[test]
fn a_connection_that_goes_is_never_success() {
    let said = [said_by_theirs(&ENTROPY), list(&["vm1"]), code(Code::Success)].concat();
    for ask in [off("vm1"), Ask::List] {
        let most = if ask == Ask::List { said.len() } else { 129 };
        for length in 0..most {
            let mut end = Asking::keyed(&ask);
            let entries = give_in_turn(&mut end, &said[..length]);
            assert_eq!(entries.len(), usize::from(length > 128 + ENTRY_LEN), "{length}");
            end.client.closed(end.now);
            let expected = if length == 0 { Reply::Dropped } else { Reply::Closed };
            assert_eq!(end.polled(), [expected], "{length}");
            end.is_at_its_end();
        }
    }
    let mut end = Asking::unkeyed(&off("vm1"));
    end.client.closed(end.now);
    assert_eq!(end.polled(), [Reply::Closed]);
}

/// A reply that has come before the connection went counts.
#[test]
fn a_reply_before_the_connection_went_counts() {
    let mut end = Asking::proved(&off("vm1"));
    assert_eq!(end.client.receive(&[0], end.now), 1);
    end.client.closed(end.now);
    assert_eq!(end.polled(), [Reply::Done]);
}

/// No reply: it ends at its time, neither before nor after, at whatever byte it waits, connected or not.
#[test]
fn it_ends_at_its_deadline() {
    let said = [said_by_theirs(&ENTROPY), list(&["vm1"])].concat();
    for length in 0..=said.len() {
        let mut end = Asking::keyed(&Ask::List);
        give_in_turn(&mut end, &said[..length]);
        assert_eq!(end.client.wake_at(), Some(end.now.plus(Millis(30_000))));
        assert_eq!(end.later(29_999), []);
        assert_eq!(end.later(1), [Reply::TimedOut], "{length}");
        end.is_at_its_end();
    }
    let mut never_connected = Client::new(UNSIGNED, &off("vm1"), Millis(500)).unwrap();
    assert_eq!((never_connected.transmit(), never_connected.wake_at()), (&[][..], Some(Millis(500))));
    assert_eq!(never_connected.receive(&[0], Millis(1)), 1);
    never_connected.closed(Millis(2));
    never_connected.wake(Millis(499));
    assert_eq!(never_connected.poll(), None);
    never_connected.wake(Millis(500));
    assert_eq!(never_connected.poll(), Some(Reply::TimedOut));
}

/// A new connection begins with the whole request, its own challenge, and no byte of what the old one said.
#[test]
fn a_new_connection_begins_anew() {
    let said = [said_by_theirs(&ENTROPY), list(&["vm1"])].concat();
    for length in 0..said.len() {
        let mut end = Asking::keyed(&Ask::List);
        give_in_turn(&mut end, &said[..length]);
        end.client.opened(&entropy(9), end.now);
        assert_eq!(end.written(), [&request(&Ask::List)[..], &[9; 64]].concat(), "{length}");
        assert_eq!(end.give(&said_by_theirs(&entropy(9))), []);
        assert_eq!(end.written(), proof(&CHALLENGE, Hash::Sha256));
        assert_eq!(names(&end.give(&list(&["new"]))), ["new"]);
    }
    let mut end = Asking::keyed(&off("vm1"));
    end.client.opened(&entropy(9), end.now);
    end.written();
    assert_eq!(end.give(&said_by_theirs(&ENTROPY)), [Reply::NotProved], "the old connection's proof");

    let mut end = Asking::of_packets(UNSIGNED, &off("vm1"), &ENTROPY);
    end.client.sent(100, end.now);
    end.client.opened(&ENTROPY, end.now);
    assert_eq!(end.written(), encode_unsigned(&off("vm1"), FRESH));
}
