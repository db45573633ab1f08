//! Bytes in pieces and behind garbage: what comes of a conversation is the same however its bytes come, and the next whole
//! frame is understood after anything.

use crate::by_hand::{Guest, Host, ID, answering_both, asking, keys, nothing_asked};
use crate::chance::Chance;
use crate::common::{ENOUGH, asks, done, off, status};
use crate::pair::Pair;
use fencewire_core::native::keys::Keys;
use fencewire_core::native::message::{Runs, Said, What, Whom};
use fencewire_core::{Ask, Endpoint, Event, Millis, Power, Reply};

/// Moves bytes both ways, so many at a time.
fn moves(pair: &mut Pair, n: usize) {
    for _ in 0..ENOUGH {
        let bytes: Vec<u8> = pair.client.transmit().iter().copied().take(n).collect();
        pair.client.sent(bytes.len(), pair.now);
        pair.hear(&bytes);
        let answers: Vec<u8> = pair.listener.transmit().iter().copied().take(n).collect();
        pair.listener.sent(answers.len(), pair.now);
        pair.reply(&answers);
        if bytes.is_empty() && answers.is_empty() {
            return;
        }
    }
    panic!("there is always more to say")
}

#[test]
fn a_conversation_may_come_in_pieces_of_any_size() {
    for size in 1..=70 {
        for keys in [keys(1), Keys::keyless()] {
            let mut pair = Pair::with(&off("vm1"), &keys, keys.clone());
            moves(&mut pair, size);
            let events: Vec<Event> = pair.events.drain(..).collect();
            let [Event::Asked(id, request)] = events.as_slice() else { panic!("by {size}: {events:?}") };
            pair.listener.answer(*id, done(request), pair.now).expect("it is out");
            moves(&mut pair, size);
            assert_eq!(pair.replies, [Reply::Done], "by {size}");
        }
    }
}

#[test]
fn each_frame_of_a_guests_may_be_split_at_every_byte() {
    let length = Guest::new(keys(1)).say_hello(1).len();
    for at in 0..=length.max(80) {
        let mut end = answering_both(keys(1), false);
        let mut guest = Guest::new(keys(1));
        let hello = guest.say_hello(1);
        let (first, second) = hello.split_at(at.min(hello.len()));
        assert_eq!(end.give(first), []);
        assert_eq!(end.give(second), []);
        guest.welcomed(&end.read()).expect("a welcome");
        let request = guest.request(5, end.now.plus(Millis(9_000)), What::Off(Whom::Name("nfs-server2"), None));
        let (first, second) = request.split_at(at.min(request.len()));
        let events = [end.give(first), end.give(second)].concat();
        assert_eq!(asks(&events), [off("nfs-server2")], "at {at}");
    }
}

#[test]
fn each_frame_of_a_hosts_may_be_split_at_every_byte() {
    for at in 0..=80 {
        let mut end = asking(&status("vm1"));
        let mut host = Host::new();
        let welcome = host.welcome(&end.written(), 5_000_000);
        let (first, second) = welcome.split_at(at.min(welcome.len()));
        assert_eq!((end.give(first), end.give(second)), (vec![], vec![]));
        assert_eq!(host.requests(&end.written()).len(), 1, "at {at}");
        let reply = host.reply(ID, Said::Status(Runs::Off, Some([7; 16])), &[]);
        let (first, second) = reply.split_at(at.min(reply.len()));
        let replies = [end.give(first), end.give(second)].concat();
        assert_eq!(replies, [Reply::Power(Power::Off)], "at {at}");
    }
}

/// Zeros, marks of fence-virt's, anything; or a frame that stops anywhere.
fn garbage(chance: &mut Chance, frame: &[u8]) -> Vec<u8> {
    let mut garbage = Vec::new();
    for _ in 0..chance.below(6) {
        match chance.below(4) {
            0 => garbage.extend((0..chance.below(300)).map(|_| chance.below(256) as u8)),
            1 => garbage.extend((0..chance.below(20)).map(|_| chance.one_of(&[0, 1, 2, 255]))),
            2 => garbage.extend(b"abba"),
            _ => garbage.extend(&frame[..chance.below(frame.len() as u64) as usize]),
        }
    }
    // A frame that is whole but for its last zero would be ended by the next one's first.
    garbage.push(9);
    garbage.push(9);
    garbage
}

#[test]
fn after_any_garbage_the_next_frame_is_understood_by_a_host() {
    for seed in 0..1_000 {
        let mut chance = Chance::from(seed);
        let mut end = answering_both(keys(1), chance.happens(500));
        let mut guest = Guest::new(keys(1));
        let hello = guest.say_hello(1);
        nothing_asked(&end.give(&garbage(&mut chance, &hello)));
        end.drained();
        end.give(&hello);
        guest.welcomed(&end.drained().0).expect("a welcome");
        let request = guest.request(5, end.now.plus(Millis(9_000)), What::Status(Whom::Name("vm1")));
        let events = end.give(&[garbage(&mut chance, &request), request].concat());
        assert_eq!(asks(&events), [status("vm1")], "seed {seed}");
    }
}

#[test]
fn after_any_garbage_the_next_frame_is_understood_by_a_guest() {
    for seed in 0..1_000 {
        let mut chance = Chance::from(seed);
        let mut end = asking(&Ask::Monitor);
        let mut host = Host::new();
        let welcome = host.welcome(&end.written(), 5_000_000);
        assert_eq!(end.give(&[garbage(&mut chance, &welcome), welcome].concat()), []);
        assert_eq!(host.requests(&end.written()).len(), 1, "seed {seed}");
        let reply = host.reply(ID, Said::Alive, &[]);
        assert_eq!(end.give(&[garbage(&mut chance, &reply), reply].concat()), [Reply::Done], "seed {seed}");
    }
}
