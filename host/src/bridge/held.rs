//! Connections that end when a guest's own process ends: what they say of a guest that the hypervisor says is off.

use super::Bridge;
use super::connections::Connection;
use crate::power::held::Held;
use fencewire_core::{Millis, Uuid};
use std::collections::HashSet;

impl Bridge {
    /// What is held of that guest's own process.
    pub(super) fn held(&self, guest: Uuid) -> Held {
        let its = self.of_qemu().filter(|(of, _)| *of == guest);
        Held::new(its.filter_map(|(_, connection)| connection.stream.copy()))
    }

    /// Whether a process of that guest lives to which we have been connected since before that time.
    pub(super) fn lives(&self, guest: Uuid, before: Millis) -> bool {
        self.of_qemu().any(|(of, connection)| of == guest && lives(connection, before))
    }

    /// Which of these guests have such a process.
    pub(super) fn living(&self, guests: &HashSet<Uuid>, before: Millis) -> HashSet<Uuid> {
        let theirs = self.of_qemu().filter(|(of, _)| guests.contains(of));
        theirs.filter(|(_, connection)| lives(connection, before)).map(|(of, _)| of).collect()
    }

    /// Connections to QEMUs, and whose those are: by the channel, never by what QEMU says.
    fn of_qemu(&self) -> impl Iterator<Item = (Uuid, &Connection)> {
        let its = self.connections.values().filter(|connection| connection.of_qemu.is_some());
        its.filter_map(|connection| {
            let guest = self.channels[connection.channel].spec.guest()?;
            Some((self.roster.member(guest)?, connection))
        })
    }
}

/// Asks the kernel: the loop may not have come to it yet.
fn lives(connection: &Connection, before: Millis) -> bool {
    connection.of_qemu.is_some_and(|since| since <= before) && !connection.stream.has_ended()
}
