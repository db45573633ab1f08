//! When a request is repeated on a serial port or channel: while no reply comes. A reply says not to which request it
//! belongs. So nothing that comes before the whole request was sent counts, and the owner is expected to have emptied the
//! channel before.

use crate::classic::REMEMBERED_MS;
use crate::words::Millis;

/// How long after a request has gone it is sent again for the first time: a bridge that has just connected discards what
/// comes in its first 200 ms.
const FIRST_REPEAT: Millis = Millis(300);

/// How long after the last copy has gone the next is sent.
const NEXT_REPEAT: Millis = Millis(1_000);

/// For how long copies are sent. One that reaches a bridge which has forgotten the first is carried out again; 10 s are
/// what it may take to get there.
const REPEAT_FOR: Millis = Millis(REMEMBERED_MS - 10_000);

/// The copies of a request.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// The whole request has gone out at least once.
    asked: bool,
    /// When the next copy is due; none while one is under way, and after the last.
    next: Option<Millis>,
    /// None until the request has gone for the first time.
    until: Option<Millis>,
}

impl Repeats {
    pub(super) const fn asked(&self) -> bool {
        self.asked
    }

    pub(super) const fn next(&self) -> Option<Millis> {
        self.next
    }

    /// On a new connection nothing has gone yet. For how long copies are sent is counted from the very first.
    pub(super) fn opened(&mut self) {
        self.asked = false;
        self.next = None;
    }

    /// A whole copy has gone.
    #[inline(never)]
    pub(super) fn sent(&mut self, now: Millis) {
        let wait = if self.asked { NEXT_REPEAT } else { FIRST_REPEAT };
        self.asked = true;
        let until = *self.until.get_or_insert(now.plus(REPEAT_FOR));
        self.next = Some(now.plus(wait)).filter(|&at| at <= until);
    }

    /// The next copy is due. Whether it is still to be sent.
    pub(super) fn again(&mut self, now: Millis) -> bool {
        self.next = None;
        self.until.is_some_and(|until| now <= until)
    }
}
