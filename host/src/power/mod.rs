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
//! | [`operation`] | one power action from the first look to the confirmation; blocks |
//! | [`lane`] | which action may begin when; decides, does nothing |
//! | [`workers`] | the threads in which the blocking happens |

pub mod hypervisor;
pub mod lane;
pub mod libvirt;
pub mod operation;
#[cfg(test)]
pub(crate) mod orders;
pub mod workers;

use crate::guests::Requester;
use crate::policy::Allowed;
use fencewire_core::{Millis, Permit, PowerAction, RequestKey, Uuid};

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
