//! Where calls are held.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::lock;

/// A held call goes on by itself after this time, so that a test that fails does not leave threads behind.
const HELD_MAX: Duration = Duration::from_mins(2);

/// Where held calls wait until they are let through. A clone is the same gate.
#[derive(Clone, Default)]
pub struct Gate {
    inside: Arc<(Mutex<Waiting>, Condvar)>,
}

#[derive(Default)]
struct Waiting {
    arrived: usize,
    open: bool,
}

impl Gate {
    /// Lets all through, those that wait and those that come.
    pub fn open(&self) {
        let (waiting, changed) = &*self.inside;
        lock(waiting).open = true;
        changed.notify_all();
    }

    /// Waits until `calls` have arrived.
    ///
    /// # Panics
    /// When they have not after `deadline`.
    #[track_caller]
    pub fn wait_for(&self, calls: usize, deadline: Duration) {
        let (waiting, changed) = &*self.inside;
        let held =
            changed.wait_timeout_while(lock(waiting), deadline, |waiting| waiting.arrived < calls).expect("a lock");
        let arrived = held.0.arrived;
        drop(held);
        assert!(arrived >= calls, "waited {deadline:?} for {calls} held calls, {arrived} came");
    }

    pub(super) fn pass(&self) {
        let (waiting, changed) = &*self.inside;
        let mut held = lock(waiting);
        held.arrived += 1;
        changed.notify_all();
        drop(changed.wait_timeout_while(held, HELD_MAX, |waiting| !waiting.open));
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}
