//! A hypervisor: guests that run or do not, each run of a guest with a mark of its own, and what was when.

use fencewire_core::{Incarnation, Millis, Power};

pub(crate) struct Hypervisor {
    guests: Vec<Guest>,
    runs: u128,
}

#[derive(Default)]
struct Guest {
    run: Option<Incarnation>,
    /// Since when it runs, or does not.
    changes: Vec<(Millis, bool)>,
}

impl Hypervisor {
    pub(crate) fn new(guests: usize) -> Hypervisor {
        let mut all = Hypervisor { guests: (0..guests).map(|_| Guest::default()).collect(), runs: 0 };
        (0..guests).for_each(|guest| all.start(guest, Millis(0)));
        all
    }

    pub(crate) fn start(&mut self, guest: usize, now: Millis) {
        if self.guests[guest].run.is_none() {
            self.runs += 1;
            self.guests[guest].run = Some(Incarnation::from_bytes(self.runs.to_be_bytes()));
            self.guests[guest].changes.push((now, true));
        }
    }

    /// Gives the run that it ends.
    pub(crate) fn stop(&mut self, guest: usize, now: Millis) -> Option<Incarnation> {
        let run = self.guests[guest].run.take()?;
        self.guests[guest].changes.push((now, false));
        Some(run)
    }

    pub(crate) fn run(&self, guest: usize) -> Option<Incarnation> {
        self.guests[guest].run
    }

    pub(crate) fn power(&self, guest: usize) -> Power {
        if self.run(guest).is_some() { Power::On } else { Power::Off }
    }

    /// Whether it was so at any time from then on.
    pub(crate) fn was(&self, guest: usize, power: Power, from: Millis) -> bool {
        let changes = &self.guests[guest].changes;
        let before = changes.iter().rposition(|(at, _)| *at <= from).unwrap_or(0);
        changes[before..].iter().any(|(_, runs)| *runs == (power == Power::On))
    }
}
