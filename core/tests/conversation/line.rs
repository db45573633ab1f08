//! One direction of a channel: splits, delays, drops, damages, repeats and stalls what is written to it.
//!
//! The wire has no checksum, so some damage makes one valid frame out of another, and no end can tell. This line does not
//! do what does that:
//! - a letter that turns into another, or comes twice: a damaged or invented byte inside a write is 0x80 to 0xbf, which
//!   alone is no UTF-8, no action, no flags and no code; and what is repeated is a whole write;
//! - one frame's head and another's tail that make up 74 bytes: after garbage, and after a write that lost something or
//!   was not taken whole, the next loses nothing.

use crate::chance::Chance;
use fencewire_core::Millis;
use std::collections::VecDeque;

/// What may go wrong, out of a thousand: per write, or per part of a write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) split: u64,
    pub(crate) delay: u64,
    pub(crate) drop: u64,
    pub(crate) damage: u64,
    pub(crate) noise: u64,
    pub(crate) repeat: u64,
    /// Nothing arrives for a while, then all at once.
    pub(crate) stall: u64,
    /// Nothing can be written for a while.
    pub(crate) block: u64,
}

const SPLIT_MAX: u64 = 16;
const DELAY_MAX: u64 = 40;
const STALL_MAX: u64 = 8_000;
const BLOCK_MAX: u64 = 7_000;

/// Bytes under way, each with a note on where it comes from; none on what the line invented.
pub(crate) struct Line<N> {
    faults: Faults,
    chance: Chance,
    moving: VecDeque<(Millis, u8, Option<N>)>,
    arrives: Millis,
    blocked_until: Millis,
    /// The last write was passed on whole.
    sound: bool,
}

impl<N: Copy> Line<N> {
    pub(crate) fn new(faults: Faults, chance: Chance) -> Line<N> {
        Line { faults, chance, moving: VecDeque::new(), arrives: Millis(0), blocked_until: Millis(0), sound: true }
    }

    /// Writes some of these, or none. Says how many. Only what is `whole` may come twice.
    pub(crate) fn write(&mut self, bytes: &[(u8, N)], whole: bool, now: Millis) -> usize {
        if now < self.blocked_until {
            return 0;
        }
        let mut taken = bytes.len();
        if self.chance.happens(self.faults.block) {
            self.blocked_until = now.plus(Millis(1 + self.chance.below(BLOCK_MAX)));
            taken = self.chance.below(bytes.len() as u64) as usize;
        }
        let whole = whole && taken == bytes.len();
        self.pass(&bytes[..taken], whole, now);
        if whole && self.chance.happens(self.faults.repeat) {
            self.pass(bytes, whole, now);
        }
        taken
    }

    fn pass(&mut self, bytes: &[(u8, N)], whole: bool, now: Millis) {
        if self.chance.happens(self.faults.stall) {
            self.arrives = now.plus(Millis(self.chance.below(STALL_MAX)));
        }
        let mut may_drop = whole && self.sound;
        self.sound = whole;
        let mut rest = bytes;
        while !rest.is_empty() {
            let part = if self.chance.happens(self.faults.split) { 1 + self.chance.below(SPLIT_MAX) } else { u64::MAX };
            let (part, after) = rest.split_at(rest.len().min(part as usize));
            rest = after;
            if self.chance.happens(self.faults.delay) {
                self.arrives = self.arrives.max(now).plus(Millis(self.chance.below(DELAY_MAX)));
            }
            if self.chance.happens(self.faults.noise) {
                self.invent(now);
            }
            if may_drop && self.chance.happens(self.faults.drop) {
                may_drop = false;
                self.sound = false;
            } else {
                self.move_on(part, now);
            }
        }
    }

    fn move_on(&mut self, part: &[(u8, N)], now: Millis) {
        let damaged = self.chance.happens(self.faults.damage).then(|| self.chance.below(part.len() as u64) as usize);
        for (at, &(byte, note)) in part.iter().enumerate() {
            if damaged == Some(at) {
                self.invent(now);
            } else {
                self.moving.push_back((self.arrives.max(now), byte, Some(note)));
            }
        }
    }

    fn invent(&mut self, now: Millis) {
        let byte = 0x80 + self.chance.below(0x40) as u8;
        self.moving.push_back((self.arrives.max(now), byte, None));
    }

    /// Bytes that nobody wrote, between two writes.
    pub(crate) fn inject(&mut self, bytes: &[u8], now: Millis) {
        self.sound = false;
        let at = self.arrives.max(now);
        self.moving.extend(bytes.iter().map(|&byte| (at, byte, None)));
    }

    /// What has arrived.
    pub(crate) fn read(&mut self, now: Millis) -> Vec<(u8, Option<N>)> {
        let arrived = self.moving.iter().take_while(|(at, ..)| *at <= now).count();
        self.moving.drain(..arrived).map(|(_, byte, note)| (byte, note)).collect()
    }

    /// When something happens by itself.
    pub(crate) fn next(&self, now: Millis) -> Option<Millis> {
        let unblocked = Some(self.blocked_until).filter(|&at| at > now);
        self.moving.front().map(|(at, ..)| *at).into_iter().chain(unblocked).min()
    }

    /// All that is under way is lost.
    pub(crate) fn cut(&mut self) {
        self.moving.clear();
        self.blocked_until = Millis(0);
        self.arrives = Millis(0);
    }

    /// From now on nothing goes wrong, and all that was held up arrives.
    pub(crate) fn heal(&mut self, now: Millis) {
        self.faults = Faults::default();
        self.blocked_until = now;
        self.arrives = now;
        for (at, ..) in &mut self.moving {
            *at = now;
        }
    }
}
