//! How much memory the ends take, and how many bytes a conversation has: numbers that are in `docs/protocol.md` too. Fewer
//! bytes are welcome; more need a reason.

mod common;

use common::{done, off, status};
use fencewire_core::native::frame::FRAME_MAX;
use fencewire_core::native::keys::Keys;
use fencewire_core::{
    Accept, Answer, Ask, Client, Endpoint, Entropy, Event, Listener, Millis, NativeAccept, Power, Speak, Uuid,
};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

#[test]
#[cfg(target_pointer_width = "64")]
fn the_ends_take_no_more_than_the_document_says() {
    let pinned = [("Client", size_of::<Client>(), 1_024), ("Listener", size_of::<Listener>(), 2_048)];
    for (name, size, aim) in pinned {
        let row = format!("| {name} | {size} | {aim} |");
        assert!(DOCUMENT.contains(&row), "the document does not say {row:?}");
        assert!(size <= aim, "{name}: over its aim");
    }
}

/// The lengths of the frames that are said, in their order, with the numbers of the document's examples.
fn frames(ask: &Ask, instance: u64, stamp: u64, id: u64) -> [usize; 5] {
    let keys = Keys::derive(b"master", Uuid::from_bytes([7; 16]), 1);
    let now = Millis(stamp);
    let speak = Speak::Native { keys: &keys, id, guard: None };
    let mut client = Client::new(speak, ask, now.plus(Millis(20_000))).expect("can be said");
    client.opened(&Entropy([1; 64]), now);
    let native = Some(NativeAccept { keys: keys.clone(), instance });
    let mut listener = Listener::new(Accept { classic: false, native, ..Accept::default() });
    listener.opened(&Entropy([2; 64]), now);
    let mut lengths = Vec::new();
    loop {
        let there = client.transmit().to_vec();
        client.sent(there.len(), now);
        assert_eq!(listener.receive(&there, now), there.len());
        lengths.push(there.len());
        let asked = listener.poll();
        let first = listener.transmit().to_vec();
        listener.sent(first.len(), now);
        assert_eq!(client.receive(&first, now), first.len());
        lengths.push(first.len());
        let Some(Event::Asked(id, request)) = asked else { continue };
        let answer = if let Ask::Power(..) = ask { done(&request) } else { Answer::Power(Power::On) };
        listener.answer(id, answer, now).expect("it was asked");
        lengths.push(listener.transmit().len());
        return lengths.try_into().expect("five frames");
    }
}

#[test]
fn a_conversation_has_the_bytes_that_the_document_says() {
    let [status, off] = [status("nfs-server2"), off("nfs-server2")]
        .map(|ask| frames(&ask, 0x0102_0304_0506_0708, 1_000_000, 0x1122_3344_5566_7788));
    let [hello, welcome, status_request, accepted, status_reply] = status;
    let [_, _, off_request, _, done] = off;
    let in_all = |frames: [usize; 5]| frames.iter().sum::<usize>();
    let ms = |bytes: usize| (bytes * 10 * 1_000 + 115_200 / 2) / 115_200;
    for said in [
        format!("| a frame at most | {FRAME_MAX} |"),
        format!("| hello, welcome | {hello}, {welcome} |"),
        format!("| status, off of `nfs-server2` | {status_request}, {off_request} |"),
        format!("| accepted, done, a status' answer | {accepted}, {done}, {status_reply} |"),
        format!(
            "An off is {} bytes both ways, handshake included: {} ms at 115200 baud 8N1; a status is {} bytes, {} ms.",
            in_all(off),
            ms(in_all(off)),
            in_all(status),
            ms(in_all(status))
        ),
    ] {
        assert!(DOCUMENT.contains(&said), "the document does not say {said:?}");
    }
    // A week is 30 bits.
    let longest = frames(&common::off("nfs-server2"), u64::MAX, 7 * 24 * 3_600_000, u64::MAX);
    let more: Vec<usize> = longest.iter().zip(&off).map(|(more, less)| more - less).collect();
    assert_eq!(more, [0, 3, 3, 1, 1], "as the document says below its table");
}
