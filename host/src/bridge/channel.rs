//! A channel and the state of opening it. Not here: its connections (`connections`), and when it is opened again.

use super::snapshot::Seen;
use crate::channels::{Calls, ChannelSpec};
use crate::discover::reconcile::Where;
use fencewire_core::Millis;
use std::collections::BTreeSet;

/// Between two tries to open a channel: at first, and at most.
pub(super) const RETRY: Millis = Millis(50);
pub(super) const RETRY_MAX: Millis = Millis(1_000);

/// Refusals on one channel that are logged in a minute.
const REFUSALS_LOGGED: u32 = 20;

/// A channel and the state of opening it.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) spec: ChannelSpec,
    pub(super) name: String,
    pub(super) retry: Millis,
    /// Why it could not be opened last; said once in the log.
    pub(super) why: Option<String>,
    /// Why its last connection ended, until there is another.
    pub(super) ended: Option<String>,
    pub(super) calls: Option<Calls>,
    /// More are to be let in at the end of this turn.
    pub(super) is_again: bool,
    pub(super) open: usize,
    /// The connections of a TCP port, the oldest first.
    pub(super) callers: BTreeSet<usize>,
    /// A reload took it away. It stays for the requests that came by it.
    pub(super) retired: bool,
    /// Whose it is, where it was found.
    pub(super) place: Option<Where>,
    /// Since when it is not known whether it is still that guest's: until it is, it is not opened, and what comes on it is
    /// discarded.
    pub(super) doubted: Option<Millis>,
    refusals: (Millis, u32),
    pub(super) seen: Seen,
}

impl Channel {
    pub(super) fn new(spec: ChannelSpec) -> Channel {
        let refusals = (Millis(0), 0);
        Channel {
            name: spec.to_string(),
            spec,
            retry: RETRY,
            why: None,
            ended: None,
            calls: None,
            is_again: false,
            open: 0,
            callers: BTreeSet::new(),
            retired: false,
            place: None,
            doubted: None,
            refusals,
            seen: Seen::new(),
        }
    }

    /// Whether there is a connection, or a socket that is called.
    pub(super) const fn is_open(&self) -> bool {
        self.calls.is_some() || self.open > 0
    }

    /// Why it could not be opened last, or was closed.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.why.as_deref().or(self.ended.as_deref())
    }

    pub(super) const fn may_not_be_opened(&self) -> bool {
        self.retired || self.doubted.is_some() || self.is_open()
    }

    /// Whether it is called, rather than calling.
    pub(super) const fn listens(&self) -> bool {
        self.calls.is_some()
    }

    /// Whether to speak of a refusal: not where too many were spoken of lately.
    pub(super) fn may_log_refusal(&mut self, now: Millis) -> bool {
        let (since, count) = &mut self.refusals;
        if now.since(*since) >= Millis(60_000) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count == REFUSALS_LOGGED {
            tracing::warn!(channel = self.name, "more like the following are not logged for a minute");
        }
        *count <= REFUSALS_LOGGED
    }
}
