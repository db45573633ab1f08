//! Power: what a hypervisor can be asked and told, and how a fence is carried out so that "off" means off.
//!
//! ```text
//! bridge ──Order──▶ lane (one per target) ──▶ workers ──▶ operation ──▶ hypervisor
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`hypervisor`] | the trait: everything that is asked of libvirt, and nothing more |
//! | [`libvirt`] | libvirt behind that trait |
//! | [`away`] | guests that went to another host, remembered when libvirt has forgotten it |
//! | [`owner`] | which of several hypervisors a guest is on |
//! | [`incarnation`] | one run of a guest, told from the next |
//! | [`held`] | connections to the target's own process: off is not confirmed while one is open |
//! | [`operation`] | one power action from the first look to the confirmation; blocks |
//! | [`lane`] | which action may begin when; decides, does nothing |
//! | [`workers`] | the threads in which the blocking happens |

pub mod away;
pub mod held;
pub mod hypervisor;
pub mod incarnation;
pub mod lane;
pub mod libvirt;
pub mod operation;
#[cfg(test)]
pub(crate) mod orders;
pub mod owner;
pub mod workers;

use crate::guests::Requester;
use crate::policy::Allowed;
use fencewire_core::{Millis, Permit, PowerAction, RequestKey, Uuid};
use incarnation::Incarnation;

/// A power action that is admitted (the ledger's [`Permit`]) and allowed (the policy's [`Allowed`]). Nothing else makes
/// a hypervisor act.
#[derive(Debug)]
pub struct Order {
    /// The one chance to carry it out.
    pub permit: Permit,
    /// Who may do what to whom.
    pub allowed: Allowed,
    /// Until when a repetition of the request gets its answer.
    pub remember_until: Millis,
    /// The target's name in the request, where it was named by name: it must still bear it.
    pub by_name: Option<String>,
    /// What an earlier run of this program did for this very request, where it did not live to see what came of it.
    pub earlier: Option<Earlier>,
    /// Which run of the target the request means, if it says so: another one is not touched.
    pub guard: Option<Incarnation>,
    /// From when on its requester is told that nobody knows what comes of it.
    pub until: Millis,
}

/// What the journal has of a request that was begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    /// Which run of its target it was begun against; none where the target was off, or had no token.
    pub incarnation: Option<Incarnation>,
    /// When the target was seen off for it.
    pub seen_off: Option<Millis>,
}

impl Order {
    /// Who asked.
    pub const fn requester(&self) -> Requester {
        self.allowed.requester()
    }

    /// Whom it is done to.
    pub const fn target(&self) -> Uuid {
        self.allowed.target()
    }

    /// What is done.
    pub const fn action(&self) -> PowerAction {
        self.allowed.action()
    }

    /// Which request it is for.
    pub const fn key(&self) -> RequestKey {
        self.permit.key()
    }
}
