//! Bytes on a channel that are no frame, half of one, or one that says nothing.

use std::thread;
use std::time::{Duration, Instant};

use fencewire_core::listener;
use fencewire_tests::daemon::settle;
use fencewire_tests::guest_channel::{
    DENIED, FAILED, GuestChannel, IS_OFF, LIST, MAGIC, MONITOR, OFF, ON, REBOOT, REPLY_LENGTH, REQUEST_LENGTH, STATUS,
    SUCCESS, fresh_seqno, reply, request,
};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::{DEADLINE, wait_until};

use crate::{Bed, is_served};

const WRONG: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];

fn off() -> [u8; REQUEST_LENGTH] {
    request(OFF, b"running", fresh_seqno())
}

fn status() -> [u8; REQUEST_LENGTH] {
    request(STATUS, b"stopped", fresh_seqno())
}

/// A bed with a channel for each length that a part of a frame can have, and these channels.
fn one_for_each_part() -> (Bed, Vec<(usize, GuestChannel)>) {
    let name = |length: usize| format!("misused{length}");
    let mut bed = Bed::start((1..REQUEST_LENGTH).map(|length| Guest::new(&name(length))));
    let channels = (1..REQUEST_LENGTH).map(|length| (length, bed.daemon.channel(&name(length)))).collect();
    (bed, channels)
}

#[test]
fn every_length_of_a_frames_beginning_and_then_silence() {
    let (mut bed, mut channels) = one_for_each_part();

    for (length, channel) in &mut channels {
        channel.send(&off()[..*length]);
    }
    bed.others_are_served();

    // Each is spoken of once: what begins a frame as torn, what could not even do that as noise.
    let spoken_of = |log: &str, length: usize, channel: &GuestChannel| {
        let kind =
            if length < MAGIC.len() { "bytes that belong to no frame" } else { "a frame stopped before its end" };
        let (name, bytes) = (format!("channel=\"{}\"", channel.path().display()), format!("bytes={length}"));
        log.lines().any(|line| line.contains(kind) && line.contains(&name) && line.ends_with(&bytes))
    };
    wait_until(DEADLINE, "a line in the log for each", || {
        let log = bed.daemon.log();
        channels.iter().all(|(length, channel)| spoken_of(&log, *length, channel)).then_some(())
    });
    bed.others_are_served();
    for (_, channel) in &mut channels {
        is_served(channel);
    }
    bed.nothing_was_done();
}

#[test]
fn every_length_of_a_frames_beginning_and_then_a_whole_frame() {
    let (bed, mut channels) = one_for_each_part();

    for (length, channel) in &mut channels {
        channel.send_pieces([&off()[..*length], &status()]);
    }

    for (length, channel) in &mut channels {
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), IS_OFF, "after {length} bytes");
        is_served(channel);
    }
    bed.nothing_was_done();
}

#[test]
fn a_frame_split_at_every_byte() {
    let (mut bed, mut channels) = one_for_each_part();
    let frames: Vec<_> = channels.iter().map(|_| status()).collect();

    for ((length, channel), frame) in channels.iter_mut().zip(&frames) {
        channel.send(&frame[..*length]);
    }
    bed.others_are_served();
    for ((length, channel), frame) in channels.iter_mut().zip(&frames) {
        channel.send(&frame[*length..]);
    }

    for (length, channel) in &mut channels {
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), IS_OFF, "split after {length} bytes");
        is_served(channel);
    }
    bed.nothing_was_done();
}

#[test]
fn a_frame_in_single_bytes() {
    let (mut bed, mut channel) = Bed::with_one();

    for byte in status() {
        channel.send(&[byte]);
        bed.others_are_served();
    }

    assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), IS_OFF);
    is_served(&mut channel);
    bed.nothing_was_done();
}

#[test]
fn a_wrong_magic_before_a_frame() {
    let (bed, mut channel) = Bed::with_one();
    let mut wrong = off();
    wrong[..4].copy_from_slice(&WRONG);

    for before in [&wrong[..], &WRONG, b"a", b"ab", b"abb", b"abbb", b"aabb", b"bbaa", b"\0\0\0\0", &MAGIC, &[0x61; 74]]
    {
        channel.send(&[before, &status()].concat());
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), IS_OFF, "after {before:02x?}");
        is_served(&mut channel);
    }

    bed.daemon.wait_for_log("bytes that belong to no frame");
    bed.nothing_was_done();
}

/// Where the name is, anything that is none makes the frame say nothing.
#[test]
fn a_wrong_magic_inside_a_frame() {
    let (bed, mut channel) = Bed::with_one();

    for at in 6..=66 {
        let mut frame = off();
        frame[at..at + 4].copy_from_slice(&WRONG);
        assert_eq!(channel.ask(&frame, DEADLINE), FAILED, "at byte {at}");
    }
    is_served(&mut channel);

    bed.daemon.wait_for_log("a frame that says nothing");
    bed.nothing_was_done();
}

/// It begins another frame, and that one is not whole.
#[test]
fn a_right_magic_inside_a_frame() {
    let (bed, mut channel) = Bed::with_one();

    for at in 1..=REQUEST_LENGTH - 4 {
        let mut frame = off();
        frame[at..at + 4].copy_from_slice(&MAGIC);
        channel.send(&frame);
        is_served(&mut channel);
    }

    bed.daemon.wait_for_log("a frame stopped before its end");
    bed.nothing_was_done();
}

#[test]
fn a_wrong_magic_after_a_frame() {
    let (bed, mut channel) = Bed::with_one();
    let mut wrong = off();
    wrong[..4].copy_from_slice(&WRONG);

    for after in [&wrong[..], &WRONG, b"a", b"ab", b"abb", b"abbb", b"\0\0\0\0"] {
        channel.send(&[&status(), after].concat());
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), IS_OFF, "before {after:02x?}");
        is_served(&mut channel);
    }
    bed.nothing_was_done();
}

/// The last bytes of a frame are its sequence number, and may be the first of the magic.
#[test]
fn a_frame_that_ends_as_another_begins() {
    let (bed, mut channel) = Bed::with_one();

    // With all but the magic's last byte at the end of the one and that byte at the beginning of the other, the first is
    // taken for a torn one: nobody can tell. The second is found all the same.
    for (tail, answers) in [(*b"\0\0\0a", 2), (*b"\0\0ab", 2), (*b"\0abb", 1)] {
        let mut frame = status();
        frame[70..].copy_from_slice(&tail);
        assert_eq!(channel.ask(&frame, DEADLINE), IS_OFF, "alone, ending with {tail:02x?}");
        channel.send(&[&frame[..], &request(STATUS, b"running", fresh_seqno())].concat());
        let codes: Vec<_> = (0..answers).map(|_| reply(&channel.read(REPLY_LENGTH, DEADLINE))).collect();
        assert_eq!(codes, [IS_OFF, SUCCESS][2 - answers..], "ending with {tail:02x?}");
        is_served(&mut channel);
    }
    bed.nothing_was_done();
}

/// Bytes that look like noise, the same in every run.
fn noise(length: usize, mut letter: impl FnMut(u64) -> u8) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        letter(state >> 32)
    };
    (0..length).map(|_| next()).collect()
}

fn has_magic(bytes: &[u8]) -> bool {
    bytes.windows(MAGIC.len()).any(|window| window == MAGIC)
}

#[test]
fn a_megabyte_of_noise_and_then_a_frame() {
    // Half of it "a" and "b", with a "c" wherever the magic would stand.
    let mut bytes = noise(1 << 20, |random| match random % 8 {
        0 | 1 => b'a',
        2 | 3 => b'b',
        _ => (random >> 8) as u8,
    });
    for at in 3..bytes.len() {
        if bytes[at - 3..=at] == MAGIC {
            bytes[at] = b'c';
        }
    }
    assert!(!has_magic(&bytes));
    let (mut bed, mut channel) = Bed::with_one();

    thread::scope(|scope| {
        let sending = scope.spawn(|| channel.send(&bytes));
        while !sending.is_finished() {
            bed.others_are_served();
        }
    });
    // Nothing was answered: the first reply is the next frame's.
    is_served(&mut channel);

    let line = bed.daemon.wait_for_log("bytes that belong to no frame");
    assert!(line.contains(&format!("channel=\"{}\" guest=misused bytes=", channel.path().display())), "{line}");
    bed.nothing_was_done();
}

#[test]
fn a_megabyte_of_magics_and_then_a_frame() {
    let bytes = noise(1 << 20, |random| if random & 1 == 0 { b'a' } else { b'b' });
    assert!(has_magic(&bytes));
    let (mut bed, mut channel) = Bed::with_one();

    thread::scope(|scope| {
        let sending = scope.spawn(|| channel.send(&bytes));
        while !sending.is_finished() {
            bed.others_are_served();
        }
    });
    channel.send(&status());

    // What happened to be as long as a frame was answered with "failed".
    wait_until(DEADLINE, "the answer to the frame after the noise", || {
        let code = reply(&channel.read(REPLY_LENGTH, DEADLINE));
        assert!([FAILED, IS_OFF].contains(&code), "{code}");
        (code == IS_OFF).then_some(())
    });
    is_served(&mut channel);
    bed.nothing_was_done();
}

#[test]
fn two_frames_in_one_write() {
    let (bed, mut channel) = Bed::with_one();
    let on = || request(STATUS, b"running", fresh_seqno());

    for frames in [[on(), status()], [status(), on()]] {
        channel.send(&frames.concat());
        let codes = [0, 1].map(|_| reply(&channel.read(REPLY_LENGTH, DEADLINE)));
        assert_eq!(codes, if frames[0][6] == b'r' { [SUCCESS, IS_OFF] } else { [IS_OFF, SUCCESS] });
    }
    bed.nothing_was_done();
}

#[test]
fn more_frames_in_one_write_than_are_held() {
    let (bed, mut channel) = Bed::with_one();

    channel.send(&[(); 6].map(|()| status()).concat());

    for _ in 0..4 {
        assert_eq!(reply(&channel.read(REPLY_LENGTH, DEADLINE)), IS_OFF);
    }
    is_served(&mut channel);
    bed.daemon.wait_for_log("more requests at once than are held: one dropped");
    bed.nothing_was_done();
}

#[test]
fn every_action_byte() {
    let (bed, mut channel) = Bed::with_one();

    for action in 0..=u8::MAX {
        // Nobody may do anything to this guest.
        let frame = request(action, b"stranger", fresh_seqno());
        match action {
            OFF | REBOOT | ON | STATUS => assert_eq!(channel.ask(&frame, DEADLINE), DENIED, "{action}"),
            MONITOR => assert_eq!(channel.ask(&frame, DEADLINE), SUCCESS),
            LIST => assert_eq!(channel.ask_list(DEADLINE).entries.len(), 3),
            _ => assert_eq!(channel.ask(&frame, DEADLINE), FAILED, "{action}"),
        }
    }

    let line = bed.daemon.wait_for_log("a frame that says nothing: answered with \"failed\"");
    assert!(line.contains(&format!("channel=\"{}\" guest=misused why=", channel.path().display())), "{line}");
    bed.nothing_was_done();
}

/// Bit 0 says that the target is a UUID, which its shape says as well. The others are nobody's.
#[test]
fn every_flag() {
    let (bed, mut channel) = Bed::with_one();

    for flags in 0..=u8::MAX {
        let mut frame = status();
        frame[5] = flags;
        let expected = if flags & !1 == 0 { IS_OFF } else { FAILED };
        assert_eq!(channel.ask(&frame, DEADLINE), expected, "{flags:08b}");
    }
    bed.nothing_was_done();
}

/// What comes in the first 200 ms after connecting may have waited in the channel since who knows when.
#[test]
fn a_frame_that_was_there_before_the_bridge() {
    let (mut bed, mut channel) = Bed::with_one();

    // The bridge connects after the close. A try in which it had read the frame only later than that says nothing.
    wait_until(DEADLINE, "a try that is quick enough", || {
        let started = Instant::now();
        channel.close();
        channel.accept(DEADLINE);
        channel.send(&request(STATUS, b"running", fresh_seqno()));
        bed.others_are_served();
        (started.elapsed() < Duration::from_millis(listener::SETTLE.0)).then_some(())
    });

    settle();
    is_served(&mut channel);
    bed.nothing_was_done();
}
