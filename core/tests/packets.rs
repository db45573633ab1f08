//! The packet wire, both ends: a conversation of ours with ours, step by step, and what breaks it off.

mod common;

use common::{ENTROPY, done, entry, off};
use fencewire_core::classic::key::{Hash, Key, WeakHash};
use fencewire_core::classic::packet::{Fresh, REQUEST_LEN, Unproved};
use fencewire_core::listener::HANDSHAKE_TIME;
use fencewire_core::{
    Answer, Ask, Client, Endpoint, Entropy, Event, Listener, Millis, Refusal, Reply, Request, RequestId, Signing,
    Speak, Trust,
};

const NOW: Millis = Millis(1_000_000);
const TIME_TO_ACT: Millis = Millis(25_000);

fn key(text: &str) -> Key {
    Key::absorb(text.as_bytes()).expect("a good key")
}

fn listener(minimum: Hash, auth: Hash) -> Listener {
    let trust = Trust::Key { key: key("shared"), minimum, auth };
    let mut listener = Listener::of_packets(trust, TIME_TO_ACT);
    listener.opened(&ENTROPY, NOW);
    listener
}

fn client_with(ask: &Ask, key: &Key, hash: Hash, auth: Hash, entropy: u8) -> Client {
    let fresh = Fresh { random: [entropy; 6], seqno: 7 };
    let speak = Speak::ClassicPacket { fresh, signing: Signing::Key { key, hash, auth } };
    let mut client = Client::new(speak, ask, NOW.plus(Millis(30_000))).expect("can be said");
    client.opened(&Entropy([entropy; 64]), NOW);
    client
}

fn client(ask: &Ask) -> Client {
    client_with(ask, &key("shared"), Hash::Sha256, Hash::Sha256, 1)
}

/// Moves bytes, `piece` at a time, until neither end has any more to send.
fn exchange(client: &mut Client, listener: &mut Listener, piece: usize) -> (Vec<Event>, Vec<Reply>) {
    let (mut events, mut replies) = (Vec::new(), Vec::new());
    loop {
        let there = take(client, piece);
        give(listener, &there, |listener| events.extend(std::iter::from_fn(|| listener.poll())));
        let back = take(listener, piece);
        give(client, &back, |client| replies.extend(std::iter::from_fn(|| client.poll())));
        if there.is_empty() && back.is_empty() {
            events.extend(std::iter::from_fn(|| listener.poll()));
            return (events, replies);
        }
    }
}

fn take(end: &mut impl Endpoint, piece: usize) -> Vec<u8> {
    let bytes: Vec<u8> = end.transmit().iter().take(piece).copied().collect();
    end.sent(bytes.len(), NOW);
    bytes
}

fn give<E: Endpoint>(end: &mut E, mut bytes: &[u8], mut polled: impl FnMut(&mut E)) {
    while !bytes.is_empty() {
        let taken = end.receive(bytes, NOW);
        bytes = &bytes[taken..];
        polled(end);
    }
}

fn asked(events: Vec<Event>) -> (RequestId, Request) {
    match <[Event; 1]>::try_from(events) {
        Ok([Event::Asked(id, request)]) => (id, request),
        other => panic!("not one request: {other:?}"),
    }
}

#[test]
fn an_exchange_in_pieces_of_any_size() {
    for piece in [1, 3, 64, 239, 1_000] {
        for hash in [Hash::Sha256, Hash::Sha512] {
            let mut listener = listener(hash, hash);
            let mut client = client_with(&off("vm1"), &key("shared"), hash, hash, 1);
            let (id, request) = asked(exchange(&mut client, &mut listener, piece).0);
            assert_eq!(request.ask(), &off("vm1"));
            assert!(listener.is_proved() && !listener.is_over());
            listener.answer(id, done(&request), NOW).unwrap();
            assert_eq!(exchange(&mut client, &mut listener, piece), (vec![], vec![Reply::Done]));
            assert!(listener.is_over() && client.is_over());
        }
    }
}

#[test]
fn a_list_entry_by_entry() {
    let (mut listener, mut client) = (listener(Hash::Sha256, Hash::Sha256), client(&Ask::List));
    let (id, _) = asked(exchange(&mut client, &mut listener, 1_000).0);
    for name in ["vm1", "vm2"] {
        listener.answer(id, Answer::Entry(entry(name)), NOW).unwrap();
        let (events, replies) = exchange(&mut client, &mut listener, 1_000);
        assert_eq!(events, [Event::EntryWanted(id)]);
        assert!(matches!(replies[..], [Reply::Entry(entry)] if entry.name() == name.as_bytes()));
    }
    listener.answer(id, Answer::EndOfList, NOW).unwrap();
    assert_eq!(exchange(&mut client, &mut listener, 1_000), (vec![], vec![Reply::EndOfList]));
}

/// Rule 5: nobody is heard who does not prove that it holds the key, with a hash that is good enough.
#[test]
fn whoever_does_not_hold_the_key_is_refused() {
    let cases = [
        (
            client_with(&off("vm1"), &key("other"), Hash::Sha512, Hash::Sha512, 1),
            Refusal::Unproved(Unproved::Signature),
        ),
        (
            client_with(&off("vm1"), &key("shared"), Hash::Sha256, Hash::Sha512, 1),
            Refusal::Unproved(Unproved::BelowMinimum(Hash::Sha256)),
        ),
    ];
    for (mut client, refusal) in cases {
        let mut listener = listener(Hash::Sha512, Hash::Sha512);
        assert_eq!(exchange(&mut client, &mut listener, 1_000), (vec![Event::Refused(refusal)], vec![]));
        assert!(listener.is_over());
        client.closed(NOW);
        assert_eq!(client.poll(), Some(Reply::Dropped));
    }
    let mut unsigned = Client::new(
        Speak::ClassicPacket { fresh: Fresh { random: [0; 6], seqno: 1 }, signing: Signing::Nothing },
        &off("vm1"),
        NOW.plus(Millis(9)),
    )
    .unwrap();
    unsigned.opened(&ENTROPY, NOW);
    let mut listener = listener(Hash::Sha256, Hash::Sha256);
    let refusal = Refusal::Unproved(Unproved::WeakHash(WeakHash::None));
    assert_eq!(exchange(&mut unsigned, &mut listener, 1_000).0, [Event::Refused(refusal)]);
}

/// Rule 2: a recording has the right signature and can be sent by anybody; its sender cannot answer a new challenge.
#[test]
fn a_recording_is_not_heard() {
    let (mut first, mut asker) = (listener(Hash::Sha256, Hash::Sha256), client(&off("vm1")));
    let request = take(&mut asker, REQUEST_LEN + 64);
    let _ = first.receive(&request, NOW);
    let answers = take(&mut first, 1_000);
    let _ = asker.receive(&answers, NOW);
    let proof = take(&mut asker, 1_000);

    let trust = Trust::Key { key: key("shared"), minimum: Hash::Sha256, auth: Hash::Sha256 };
    let mut second = Listener::of_packets(trust, TIME_TO_ACT);
    second.opened(&Entropy([9; 64]), NOW);
    let _ = second.receive(&[request, proof].concat(), NOW);
    assert_eq!(second.poll(), Some(Event::Refused(Refusal::WrongProof)));
    assert_eq!(second.poll(), None);
}

/// Rule 2: our own challenge, sent to us on another connection to learn the answer, is not answered.
#[test]
fn a_challenge_of_ours_is_not_answered_for_others() {
    let request = take(&mut client(&off("vm1")), REQUEST_LEN);
    let mut first = listener(Hash::Sha256, Hash::Sha256);
    let _ = first.receive(&[&request[..], &[7; 64]].concat(), NOW);
    let ours = take(&mut first, 1_000)[64..].to_vec();
    let mut second = listener(Hash::Sha256, Hash::Sha256);
    let _ = second.receive(&[request, ours].concat(), NOW);
    assert_eq!(second.poll(), Some(Event::Refused(Refusal::Reflection)));
    assert!(second.transmit().is_empty() && second.is_over());
}

#[test]
fn a_caller_that_stops_is_given_up() {
    let whole = take(&mut client(&off("vm1")), 1_000);
    for part in [0, 1, REQUEST_LEN, REQUEST_LEN + 63, REQUEST_LEN + 64] {
        let mut listener = listener(Hash::Sha256, Hash::Sha256);
        let _ = listener.receive(&whole[..part], NOW);
        take(&mut listener, 1_000);
        assert_eq!(listener.wake_at(), Some(NOW.plus(HANDSHAKE_TIME)), "{part}");
        listener.wake(NOW.plus(HANDSHAKE_TIME));
        assert_eq!(listener.poll(), Some(Event::Refused(Refusal::TooSlow)));
        assert!(listener.is_over() && listener.wake_at().is_none());
    }
}
