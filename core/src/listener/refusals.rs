//! Refusals that wait to be polled.

use super::Refusal;

/// So many are held; more are counted no further.
const HELD: usize = 4;

/// In the order in which they came.
#[derive(Debug)]
pub(super) struct Refusals([Option<Refusal>; HELD]);

impl Refusals {
    pub(super) const fn new() -> Refusals {
        Refusals([None; HELD])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    pub(super) fn push(&mut self, refusal: Refusal) {
        if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
            *place = Some(refusal);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Refusal> {
        let first = self.0.first_mut()?.take();
        self.0.rotate_left(1);
        first
    }
}
