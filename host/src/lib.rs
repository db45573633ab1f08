//! The host bridge: maps each guest's channel to actions of its hypervisor.
//!
//! ```text
//! channels ──bytes──▶ bridge::connections ──requests──▶ policy ──allowed──▶ power::lane ──▶ power::workers
//! (who is there)      (core::Listener, Ledger)          (who may whom)      (one per target)  (they block)
//!      ▲                                                                                          │
//!      └────────────────────────────────── outcome, by id ◀───────────────────────────────────────┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`config`] | the file, checked |
//! | [`channels`] | where channels are, who is at their other end, how they are opened |
//! | [`discover`] | which channels the running guests have |
//! | [`guests`] | names and UUIDs |
//! | [`enrolled`] | which guests have keys of their own |
//! | [`policy`] | who may do what to whom |
//! | [`power`] | what a hypervisor is asked and told, and when |
//! | [`bridge`] | the event loop that moves all this |
//! | [`control`] | what an operator asks of it beside the configuration |
//! | [`records`], [`journal`] | what is written down: for people, and for the next run |
//! | [`notify`], [`log`] | what the service manager is told, and whoever reads standard error |
//! | [`clock`], [`entropy`] | the time, and random bytes |
//! | `credentials` | who is at a unix socket's other end |

pub mod bridge;
pub mod channels;
pub mod clock;
pub mod config;
pub mod control;
mod credentials;
pub mod discover;
pub mod enrolled;
pub mod entropy;
pub mod guests;
pub mod journal;
pub mod log;
pub mod notify;
pub mod policy;
pub mod power;
pub mod records;
