//! One direction of a channel: loses, repeats, damages, cuts, holds up and keeps what is written to it. Unlike the line of
//! fence-virt's wire this one may do anything with any byte: no damage may ever make one request of another.

use crate::chance::Chance;
use fencewire_core::Millis;
use std::collections::VecDeque;

/// What may go wrong, out of a thousand, per write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) drop: u64,
    pub(crate) damage: u64,
    pub(crate) cut: u64,
    pub(crate) repeat: u64,
    pub(crate) delay: u64,
    /// Nothing arrives for a while, then all at once.
    pub(crate) stall: u64,
    /// Nothing can be written for a while.
    pub(crate) block: u64,
}

impl Faults {
    /// Half of all runs are without a given fault.
    pub(crate) fn any(chance: &mut Chance) -> Faults {
        let mut rate = |most| if chance.happens(500) { 0 } else { chance.below(most) };
        Faults {
            drop: rate(200),
            damage: rate(300),
            cut: rate(200),
            repeat: rate(300),
            delay: rate(1_000),
            stall: rate(60),
            block: rate(60),
        }
    }
}

const DELAY_MAX: u64 = 40;
const STALL_MAX: u64 = 8_000;
const BLOCK_MAX: u64 = 7_000;

pub(crate) struct Line {
    faults: Faults,
    chance: Chance,
    moving: VecDeque<(Millis, u8)>,
    arrives: Millis,
    blocked_until: Millis,
}

impl Line {
    pub(crate) fn new(faults: Faults, chance: Chance) -> Line {
        Line { faults, chance, moving: VecDeque::new(), arrives: Millis(0), blocked_until: Millis(0) }
    }

    /// Writes some of these, or none. Says how many.
    pub(crate) fn write(&mut self, bytes: &[u8], now: Millis) -> usize {
        if now < self.blocked_until {
            return 0;
        }
        let mut taken = bytes.len();
        if self.chance.happens(self.faults.block) {
            self.blocked_until = now.plus(Millis(1 + self.chance.below(BLOCK_MAX)));
            taken = self.chance.below(bytes.len() as u64) as usize;
        }
        let copies = 1 + usize::from(self.chance.happens(self.faults.repeat));
        for _ in 0..copies {
            self.pass(&bytes[..taken], now);
        }
        taken
    }

    fn pass(&mut self, bytes: &[u8], now: Millis) {
        if self.chance.happens(self.faults.drop) || bytes.is_empty() {
            return;
        }
        if self.chance.happens(self.faults.stall) {
            self.arrives = now.plus(Millis(self.chance.below(STALL_MAX)));
        }
        if self.chance.happens(self.faults.delay) {
            self.arrives = self.arrives.max(now).plus(Millis(self.chance.below(DELAY_MAX)));
        }
        let mut bytes = bytes.to_vec();
        if self.chance.happens(self.faults.damage) {
            let at = self.chance.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.chance.below(8);
        }
        if self.chance.happens(self.faults.cut) {
            let from = self.chance.below(bytes.len() as u64) as usize;
            let length = self.chance.below(8) as usize;
            bytes.drain(from..(from + length).min(bytes.len()));
        }
        self.inject(&bytes, now);
    }

    /// Bytes behind those that are under way.
    pub(crate) fn inject(&mut self, bytes: &[u8], now: Millis) {
        let at = self.arrives.max(now);
        self.moving.extend(bytes.iter().map(|&byte| (at, byte)));
    }

    /// What has arrived.
    pub(crate) fn read(&mut self, now: Millis) -> Vec<u8> {
        let arrived = self.moving.iter().take_while(|(at, _)| *at <= now).count();
        self.moving.drain(..arrived).map(|(_, byte)| byte).collect()
    }

    /// When something happens by itself.
    pub(crate) fn next(&self, now: Millis) -> Option<Millis> {
        let unblocked = Some(self.blocked_until).filter(|&at| at > now);
        self.moving.front().map(|(at, _)| *at).into_iter().chain(unblocked).min()
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
        (self.blocked_until, self.arrives) = (now, now);
        for (at, _) in &mut self.moving {
            *at = now;
        }
    }
}
