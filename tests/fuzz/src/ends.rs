//! Bytes to steps. What the steps do, and what must hold of them, is the core's own: `core/tests/steps/`.

use fencewire_core::classic::Code;
use fencewire_core::classic::key::Hash;
use fencewire_core::classic::packet::{REQUEST_LEN, encode_request, encode_unsigned};
use fencewire_core::classic::serial::END_OF_LIST;

use super::common::input::Input;
use super::common::packets::{CHALLENGE, FRESH, key, request, resigned, shared};
use super::common::{entry_bytes, frame, frame_with_domain, reply};
use super::{packet_steps, serial_steps};

/// More than any state is away from any other.
const STEPS: usize = 100;

const CODES: [Code; 5] = [Code::Success, Code::Failed, Code::Off, Code::Denied, Code::HostList];

/// Spans at, and next to, which something is due.
const SPANS: [u64; 12] = [0, 1, 49, 50, 199, 250, 300, 4_999, 5_000, 24_999, 25_000, 60_000];

fn serial_step(input: &mut Input<'_>) -> serial_steps::Step {
    use serial_steps::Step;
    let whole = |input: &mut Input<'_>| frame(&input.ask(), u32::from(input.byte() & 7)).to_vec();
    match input.below(14) {
        0..=2 => Step::Bytes(whole(input)),
        3 => {
            let mut bytes = whole(input);
            bytes.truncate(input.below(75));
            Step::Bytes(bytes)
        }
        4 => {
            let mut bytes = whole(input);
            bytes[71..].copy_from_slice(input.one_of(&[b"\0\0a", b"\0ab", b"abb"]));
            Step::Bytes(bytes)
        }
        5 => Step::Bytes(frame_with_domain(&input.array::<8>()).to_vec()),
        6 => Step::Bytes(reply(input.one_of(&CODES))),
        7 => Step::Bytes(if input.flag() { entry_bytes("vm1") } else { END_OF_LIST }.to_vec()),
        8 => Step::Bytes(input.some().to_vec()),
        9 => Step::Pass(input.one_of(&SPANS)),
        10 => Step::Pass(u64::from(input.word())),
        11 => Step::Sent(usize::from(input.byte())),
        12 => Step::Answer(input.byte() % 9, input.flag()),
        _ => input.one_of(&[Step::Opened, Step::Closed, Step::Reset, Step::Poll]),
    }
}

fn serial_steps(input: &mut Input<'_>) -> Vec<serial_steps::Step> {
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < STEPS {
        steps.push(serial_step(input));
    }
    steps
}

/// The serial listener, with an owner who keeps to the order of calls or one who does not.
pub fn serial_listener(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let careful = !input.flag();
    let steps = serial_steps(&mut input);
    if careful { serial_steps::with_a_careful_owner(steps) } else { serial_steps::with_a_careless_owner(steps) }
}

/// The serial client, likewise.
pub fn serial_client(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (careful, ask) = (!input.flag(), input.ask());
    serial_steps::client(&ask, careful, serial_steps(&mut input));
}

/// The fuzzer holds the key: it gets past signatures.
fn packet_bytes(input: &mut Input<'_>) -> Vec<u8> {
    let ask = input.ask();
    let packet = match input.below(7) {
        0 | 1 => request(&ask),
        2 => encode_unsigned(&ask, FRESH),
        3 => encode_request(&ask, FRESH, Hash::Sha512, &shared()),
        4 => encode_request(&ask, FRESH, Hash::Sha256, &key("another")),
        5 => {
            let (at, byte) = (input.below(REQUEST_LEN - 64), input.byte());
            resigned(|packet| packet[at] = byte)
        }
        _ => {
            let mut packet = request(&ask);
            packet[input.below(REQUEST_LEN)] ^= input.byte();
            packet
        }
    };
    packet.to_vec()
}

fn packet_step(input: &mut Input<'_>) -> packet_steps::Step {
    use packet_steps::Step;
    match input.below(16) {
        0 | 1 => Step::Bytes(packet_bytes(input)),
        2 => {
            let mut bytes = packet_bytes(input);
            bytes.truncate(input.below(REQUEST_LEN));
            Step::Bytes(bytes)
        }
        3 => Step::Bytes(CHALLENGE.to_vec()),
        4 => Step::Bytes(vec![input.one_of(&CODES) as u8]),
        5 => Step::Bytes(if input.flag() { entry_bytes("vm1") } else { END_OF_LIST }.to_vec()),
        6 => Step::Bytes(input.some().to_vec()),
        7 => Step::Proof,
        8 => input.one_of(&[Step::OtherProof, Step::OldProof, Step::Reflect]),
        9 => Step::Handshake(input.ask()),
        10 => Step::Pass(input.one_of(&SPANS)),
        11 => Step::Pass(u64::from(input.word())),
        12 => Step::Sent(usize::from(input.byte())),
        13 => Step::Sent(1_000),
        14 => Step::Answer(input.byte() % 9, input.flag()),
        _ => input.one_of(&[Step::Opened, Step::Closed, Step::Reset, Step::Poll]),
    }
}

fn packet_steps(input: &mut Input<'_>) -> Vec<packet_steps::Step> {
    let mut steps = Vec::new();
    while !input.is_empty() && steps.len() < STEPS {
        steps.push(packet_step(input));
    }
    steps
}

fn auth(input: &mut Input<'_>) -> Option<Hash> {
    input.one_of(&[Some(Hash::Sha256), Some(Hash::Sha512), None])
}

/// The packet listener, likewise.
pub fn packet_listener(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (careful, auth) = (!input.flag(), auth(&mut input));
    let steps = packet_steps(&mut input);
    if careful {
        packet_steps::with_a_careful_owner(auth, steps);
    } else {
        packet_steps::with_a_careless_owner(auth, steps);
    }
}

/// The packet client, likewise.
pub fn packet_client(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (careful, auth, ask) = (!input.flag(), auth(&mut input), input.ask());
    packet_steps::client(&ask, auth, careful, packet_steps(&mut input));
}
