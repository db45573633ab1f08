//! A fuzzer's input, read as numbers and bytes. Where it has ended there are only zeros, so that every input means
//! something.

use fencewire_core::{Ask, Power, PowerAction};

use super::target;

pub(crate) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    /// A number below `end`, which is 256 at most.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// As many bytes as there are, up to `n`.
    pub(crate) fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(n.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// The same, with zeros behind.
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// One byte says how many there are.
    pub(crate) fn some(&mut self) -> &'a [u8] {
        let n = usize::from(self.byte());
        self.take(n)
    }

    pub(crate) fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    pub(crate) fn ask(&mut self) -> Ask {
        let power = |action| Ask::Power(action, target("vm1"));
        match self.below(7) {
            0 => power(PowerAction::Off),
            1 => power(PowerAction::Reboot),
            2 => power(PowerAction::On),
            3 => Ask::Status(target("vm1")),
            4 => Ask::Monitor,
            5 => Ask::List,
            _ => Ask::Power(PowerAction::Off, target("b33f94f9-8a30-4e83-9165-fd8681ee13cf")),
        }
    }

    pub(crate) fn power(&mut self) -> Power {
        self.one_of(&[Power::On, Power::Off, Power::Unknown])
    }
}
