//! A stream of the serial wire, cut into frames by a listener and, a second time, by looking for what is a frame: a magic
//! and 70 bytes among which no other magic begins, or none that was there before time had shown the frame to be whole.

use fencewire_core::classic::Malformed;
use fencewire_core::classic::serial::{REQUEST_LEN, decode_request};
use fencewire_core::{Answer, Ask, Endpoint, Event, Refusal};

use super::common::input::Input;
use super::common::{Answering, frame, frame_with_domain};

/// What came of a frame.
type Said = Result<Ask, Malformed>;

/// A piece of a stream, and whether 50 ms pass behind it.
type Piece = (Vec<u8>, bool);

/// Good frames, torn ones, ones that end oddly, magics, and anything. The pauses are a second together at most: noise is
/// counted anew after that, and one whose end is the beginning of a magic is counted too high.
fn stream(input: &mut Input<'_>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut pauses = 0;
    while !input.is_empty() && pieces.len() < 64 {
        let whole = |input: &mut Input<'_>| frame(&input.ask(), u32::from(input.word())).to_vec();
        let piece = match input.below(7) {
            0 => whole(input),
            1 => {
                let mut torn = whole(input);
                torn.truncate(input.below(REQUEST_LEN + 1));
                torn
            }
            2 => {
                let mut odd = whole(input);
                odd[REQUEST_LEN - 3..].copy_from_slice(input.one_of(&[b"\0\0a", b"\0ab", b"abb", b"bba"]));
                odd
            }
            3 => frame_with_domain(&input.array::<64>()).to_vec(),
            4 => b"abba"[..=input.below(4)].to_vec(),
            5 => {
                let mut malformed = whole(input);
                malformed[input.below(REQUEST_LEN)] = input.byte();
                malformed
            }
            _ => input.some().to_vec(),
        };
        let pause = pauses < 15 && input.below(4) == 3;
        pauses += usize::from(pause);
        pieces.push((piece, pause));
    }
    pieces
}

/// What is to be found in it, and how many bytes are no frame's.
fn frames(pieces: &[Piece]) -> (Vec<Said>, usize) {
    let (mut stream, mut pauses) = (Vec::new(), Vec::new());
    for (piece, pause) in pieces {
        stream.extend(piece);
        pauses.extend(pause.then_some(stream.len()));
    }
    let magics: Vec<usize> = (0..stream.len()).filter(|&at| stream[at..].starts_with(b"abba")).collect();
    let mut said = Vec::new();
    let mut taken = 0;
    for &at in magics.iter().filter(|&&at| at + REQUEST_LEN <= stream.len()) {
        let end = at + REQUEST_LEN;
        let in_time = |other: usize| !pauses.iter().any(|pause| (end..other + 4).contains(pause));
        let torn = magics.iter().any(|&other| (at + 1..end).contains(&other) && in_time(other));
        if at >= taken && !torn {
            taken = end;
            let frame = stream[at..].first_chunk().expect("it is whole");
            said.push(decode_request(frame).map(|(ask, _)| ask));
        }
    }
    let others = stream.len() - said.len() * REQUEST_LEN;
    (said, others)
}

/// What a listener finds, whose owner answers at once and whose peer reads at once.
struct Found {
    end: Answering,
    said: Vec<Said>,
    other: usize,
}

impl Found {
    fn give(&mut self, mut bytes: &[u8]) {
        loop {
            let taken = self.end.listener.receive(bytes, self.end.now);
            assert!(taken <= bytes.len());
            bytes = &bytes[taken..];
            let events = self.end.polled();
            assert!(taken > 0 || bytes.is_empty() || !events.is_empty(), "nothing taken, and nothing to say");
            self.look_at(events);
            if bytes.is_empty() {
                return;
            }
        }
    }

    fn look_at(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Asked(id, request) => {
                    self.said.push(Ok(request.ask().clone()));
                    self.end.answer(id, Answer::Denied).expect("it is out");
                }
                Event::Refused(Refusal::Malformed(why)) => self.said.push(Err(why)),
                Event::Refused(Refusal::Noise(count)) => self.other += usize::try_from(count).expect("a few"),
                Event::Refused(Refusal::Torn(count)) => self.other += usize::from(count),
                other => panic!("{other:?}"),
            }
        }
        let (_, events) = self.end.drained();
        if !events.is_empty() {
            self.look_at(events);
        }
    }
}

fn found(pieces: &[Piece]) -> (Vec<Said>, usize) {
    let mut found = Found { end: Answering::settled(), said: Vec::new(), other: 0 };
    for (piece, pause) in pieces {
        found.give(piece);
        let events = found.end.later(if *pause { 50 } else { 0 });
        found.look_at(events);
    }
    // Time shows what the last bytes were.
    let events = found.end.later(20_000);
    found.look_at(events);
    assert!(found.end.listener.is_idle());
    (found.said, found.other)
}

/// A stream of the serial wire: in as few pieces as its pauses allow, in more, and byte by byte.
pub fn serial_stream(bytes: &[u8]) {
    let pieces = stream(&mut Input::new(bytes));
    let expected = frames(&pieces);
    assert_eq!(found(&pieces), expected);
    let few: Vec<Piece> = pieces
        .chunk_by(|(_, pause), _| !pause)
        .map(|pieces| {
            (pieces.iter().flat_map(|(piece, _)| piece.clone()).collect(), pieces.iter().any(|piece| piece.1))
        })
        .collect();
    assert_eq!(found(&few), expected);
    let by_bytes: Vec<Piece> = few
        .iter()
        .flat_map(|(piece, pause)| {
            let last = piece.len().saturating_sub(1);
            let byte = move |(at, byte): (usize, &u8)| (vec![*byte], *pause && at == last);
            let none = piece.is_empty().then(|| (vec![], *pause));
            piece.iter().enumerate().map(byte).chain(none).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(found(&by_bytes), expected);
}
