//! Frames in a stream: a 0x00, the payload in COBS (which has no 0x00 in it), a 0x00. After any garbage the next whole
//! frame is found.
//!
//! Bytes to payloads and back. Not here: what a payload says, and whether it is to be believed.

use heapless::{LenType, VecView};

/// Bytes of a payload at most: a chunk of a list with two of the longest names.
pub const PAYLOAD_MAX: usize = 208;

/// Bytes of a frame that are not its payload's: COBS adds one; a zero before and one behind.
pub const FRAMING: usize = 1 + 2;

/// Bytes of a frame at most.
pub const FRAME_MAX: usize = PAYLOAD_MAX + FRAMING;

// A longer payload could have a run of 254 bytes without a zero, after which COBS implies none.
const _: () = assert!(PAYLOAD_MAX < 254);

/// A payload that is written and read in place.
pub type Payload = heapless::Vec<u8, PAYLOAD_MAX>;

/// Adds a frame with that payload to `out`; adds nothing where there is no room.
pub fn encode<const N: usize, L: LenType>(payload: &[u8], out: &mut heapless::Vec<u8, N, L>) -> bool {
    let before = out.len();
    let whole = put(payload, out).is_some();
    if !whole {
        out.truncate(before);
    }
    whole
}

fn put<const N: usize, L: LenType>(payload: &[u8], out: &mut heapless::Vec<u8, N, L>) -> Option<()> {
    out.push(0).ok()?;
    let mut rest = payload;
    loop {
        let run = rest.iter().take_while(|&&byte| byte != 0).count();
        let (bytes, after) = rest.split_at_checked(run)?;
        out.push(run as u8 + 1).ok()?;
        out.extend_from_slice(bytes).ok()?;
        rest = match after {
            [] => break,
            [_zero, after @ ..] => after,
        };
    }
    out.push(0).ok()
}

/// Finds payloads in a stream, and keeps each until the next byte.
#[derive(Clone, Debug)]
pub struct Deframer {
    decoder: Decoder,
    payload: heapless::Vec<u8, PAYLOAD_MAX, u8>,
}

impl Deframer {
    /// In a stream of which nothing is known.
    pub const fn new() -> Deframer {
        Deframer { decoder: Decoder::new(), payload: heapless::Vec::new() }
    }

    /// Forgets what has begun.
    pub fn reset(&mut self) {
        self.decoder.reset();
        self.payload.clear();
    }

    /// Whether the next bytes may belong to a frame of which a part is here.
    pub fn has_begun(&self) -> bool {
        self.decoder.has_begun()
    }

    /// The payload of the frame that [`push`](Self::push) found.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Takes the next byte. Says whether it ends a frame; read it with [`payload`](Self::payload) before the next byte.
    pub fn push(&mut self, byte: u8) -> bool {
        self.decoder.push(byte, &mut self.payload)
    }
}

impl Default for Deframer {
    fn default() -> Self {
        Self::new()
    }
}

/// How far a frame has come. Its payload is kept by whoever reads the stream, who knows how long one may be that is for it.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    /// Bytes of the present run that are to come; 0: the next byte begins a run.
    run: u8,
    /// A run was there before: a zero stands between it and the next.
    owes_zero: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first zero, or after what cannot be a frame: waits for a zero.
    Lost,
    /// In a frame, or before its first byte.
    Reading,
    /// A frame was given out; its payload is dropped at the next byte.
    Given,
}

impl Decoder {
    pub(crate) const fn new() -> Decoder {
        Decoder { run: 0, owes_zero: false, state: State::Lost }
    }

    /// Forgets what has begun.
    pub(crate) fn reset(&mut self) {
        self.state = State::Lost;
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.state == State::Reading
    }

    /// Takes the next byte. Says whether it ends a frame, which is `payload` then; that must be the same at each call. A
    /// frame for which there is no room in it is none.
    pub(crate) fn push(&mut self, byte: u8, payload: &mut VecView<u8, u8>) -> bool {
        if self.state == State::Given {
            self.begin(payload);
        }
        if byte == 0 {
            let is_whole = self.state == State::Reading && self.run == 0 && !payload.is_empty();
            if is_whole {
                self.state = State::Given;
            } else {
                self.begin(payload);
            }
            return is_whole;
        }
        if self.state == State::Reading && self.take(byte, payload).is_none() {
            self.state = State::Lost;
        }
        false
    }

    fn begin(&mut self, payload: &mut VecView<u8, u8>) {
        payload.clear();
        (self.run, self.owes_zero, self.state) = (0, false, State::Reading);
    }

    /// None: there is no room for it.
    fn take(&mut self, byte: u8, payload: &mut VecView<u8, u8>) -> Option<()> {
        if self.run > 0 {
            self.run -= 1;
            return payload.push(byte).ok();
        }
        if self.owes_zero {
            payload.push(0).ok()?;
        }
        self.run = byte.checked_sub(1)?;
        self.owes_zero = true;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn framed(payload: &[u8]) -> Vec<u8> {
        let mut out = heapless::Vec::<u8, FRAME_MAX>::new();
        assert!(encode(payload, &mut out));
        out.to_vec()
    }

    fn payloads(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut deframer = Deframer::new();
        let mut found = Vec::new();
        for &byte in bytes {
            if deframer.push(byte) {
                found.push(deframer.payload().to_vec());
            }
        }
        found
    }

    #[test]
    fn bytes_by_hand() {
        assert_eq!(framed(&[1, 2]), [0, 3, 1, 2, 0]);
        assert_eq!(framed(&[0]), [0, 1, 1, 0]);
        assert_eq!(framed(&[7, 0, 0, 8]), [0, 2, 7, 1, 2, 8, 0]);
        let long = [7; PAYLOAD_MAX];
        assert_eq!(framed(&long), [&[0, PAYLOAD_MAX as u8 + 1][..], &long, &[0]].concat());
        assert_eq!(payloads(&[&[0, 255][..], &[7; 254], &[0]].concat()), [] as [Vec<u8>; 0], "longer than any");
    }

    #[test]
    fn what_has_no_room_is_not_begun() {
        let mut out = heapless::Vec::<u8, 6>::new();
        assert!(encode(&[1, 2], &mut out));
        assert!(!encode(&[1], &mut out));
        assert_eq!(&out[..], [0, 3, 1, 2, 0]);
    }

    #[test]
    fn what_was_begun_before_a_reset_does_not_go_on_behind_it() {
        let frame = framed(&[1, 2, 3]);
        for at in 1..frame.len() {
            let mut deframer = Deframer::new();
            frame[..at].iter().for_each(|&byte| assert!(!deframer.push(byte)));
            assert!(deframer.has_begun());
            deframer.reset();
            assert!(!deframer.has_begun());
            frame[at..].iter().for_each(|&byte| assert!(!deframer.push(byte), "reset after {at} bytes"));
        }
    }

    proptest! {
        #[test]
        fn what_is_framed_is_found_after_any_garbage(
            garbage in prop::collection::vec(any::<u8>(), 0..600),
            payload in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 1..=PAYLOAD_MAX),
        ) {
            let frame = framed(&payload);
            prop_assert!(frame.len() <= FRAME_MAX);
            prop_assert!(!frame[1..frame.len() - 1].contains(&0));
            let found = payloads(&[garbage, frame].concat());
            prop_assert_eq!(found.last(), Some(&payload));
        }

        #[test]
        fn frames_that_follow_one_another_are_all_found(
            all in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=PAYLOAD_MAX), 1..8),
        ) {
            let stream: Vec<u8> = all.iter().flat_map(|payload| framed(payload)).collect();
            prop_assert_eq!(payloads(&stream), all);
        }
    }
}
