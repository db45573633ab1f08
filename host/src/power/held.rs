//! The second witness of "off": connections to the target's own process that this bridge has held since before.
//!
//! libvirt has been seen to say "shut off" of a QEMU that lives, because it had lost what it knew of it. The kernel closes
//! what a process has open when it ends, so a connection to that QEMU that stays open says otherwise. Its end alone proves
//! nothing: it is asked for besides libvirt's word, never in its place.

use super::Earlier;
use crate::channels;
use crate::clock;
use fencewire_core::{Millis, Observation, Power};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long after the hypervisor has said that a guest is off its process's connections may stay open. The kernel closes
/// them before anybody can see the process gone, except where it does that in the background (io_uring).
const CLOSED: Millis = Millis(1_000);

/// Connections to a guest's own process.
#[derive(Debug)]
pub struct Held {
    /// A copy of each: whatever the event loop does with its own, the other end's end is seen.
    ends: Vec<OwnedFd>,
    /// There are more, of which no copy could be had.
    is_incomplete: bool,
}

/// The target was seen off: the hypervisor said so, and no connection to its process was left open. Only
/// [`Held::confirm`] makes one, and [`SeenOff::earlier`] out of what it made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenOff {
    asked: Millis,
}

impl Held {
    /// None: there is no channel to the guest, or it is not QEMU's.
    pub const NONE: Held = Held { ends: Vec::new(), is_incomplete: false };

    /// These; fewer than there are, if copies of some could not be had.
    pub fn new(ends: impl IntoIterator<Item = std::io::Result<OwnedFd>>) -> Held {
        let mut held = Held::NONE;
        for end in ends {
            match end {
                Ok(end) => held.ends.push(end),
                Err(why) => {
                    tracing::error!(%why, "no copy of a guest's connection: it cannot be confirmed off");
                    held.is_incomplete = true;
                }
            }
        }
        held
    }

    /// For a hypervisor that, asked at that time, has just said that the guest is off. Waits for the end of what is held,
    /// at most for a second and at most `until`; none where that does not come. Blocks.
    pub fn confirm(&self, asked: Millis, until: Millis) -> Option<SeenOff> {
        let until = clock::now().plus(CLOSED).min(until);
        let left = || Duration::from_millis(until.since(clock::now()).0);
        let all_ended = !self.is_incomplete && self.ends.iter().all(|end| channels::has_ended(end, left()));
        all_ended.then_some(SeenOff { asked })
    }
}

impl SeenOff {
    /// What an earlier run of this program has written down, which it did when it had seen it.
    pub fn earlier(earlier: Earlier) -> Option<SeenOff> {
        earlier.seen_off.map(|asked| SeenOff { asked })
    }

    /// When the hypervisor was asked.
    pub const fn asked(self) -> Millis {
        self.asked
    }

    /// For the request's own proof.
    pub const fn observation(self) -> Observation {
        Observation { power: Power::Off, asked: self.asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn later(ms: u64) -> Millis {
        clock::now().plus(Millis(ms))
    }

    #[test]
    fn off_is_confirmed_when_all_that_is_held_has_ended() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (others, its) = UnixStream::pair().unwrap();
        let held = Held::new([Ok(ours.into()), Ok(others.into())]);
        assert_eq!(held.confirm(Millis(7), later(10)), None);
        drop(theirs);
        assert_eq!(held.confirm(Millis(7), later(10)), None, "one is left");
        let asked = thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(20));
                drop(its);
            });
            held.confirm(Millis(7), later(5_000)).map(SeenOff::asked)
        });
        assert_eq!(asked, Some(Millis(7)), "it came a little later");
    }

    #[test]
    fn what_is_held_is_waited_for_for_a_second() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let begun = clock::now();
        assert_eq!(Held::new([Ok(ours.into())]).confirm(begun, later(60_000)), None);
        let waited = clock::now().since(begun);
        assert!((CLOSED.0..10 * CLOSED.0).contains(&waited.0), "{waited:?}");
    }

    #[test]
    fn without_anything_held_the_hypervisors_word_is_enough() {
        assert_eq!(Held::NONE.confirm(Millis(7), Millis(0)).map(SeenOff::asked), Some(Millis(7)));
    }

    #[test]
    fn what_cannot_be_watched_is_not_confirmed() {
        assert_eq!(Held::new([Err(io::ErrorKind::Other.into())]).confirm(Millis(7), later(10)), None);
    }
}
