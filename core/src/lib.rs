//! The fence protocol, both ends, for anything that can move bytes: a guest, a daemon, a microcontroller.
//!
//! Nothing in here does I/O, reads a clock, allocates or panics. Bytes and time come in as parameters, and the same
//! inputs give the same outputs. What lives where:
//!
//! | module | what |
//! |---|---|
//! | [`words`] | what is said, whatever the wire: guests, actions, power, requests, answers, outcomes |
//! | [`endpoint`] | the shape that both ends share: bytes in, bytes out, time |
//! | [`client`] | the end that asks |
//! | [`listener`] | the end that answers: hands each request out and takes the answer back by id |
//! | [`ledger`] | at most once: what was asked before, and what came of it |
//! | [`driver`] | runs either end over a blocking port, for an agent or firmware |
//! | [`classic`] | fence-virt's own bytes |
//! | [`native`] | our own |
//!
//! # Call order
//!
//! Four families of methods, on [`Client`] and [`Listener`] alike:
//!
//! 1. *events in*: [`Endpoint::opened`], [`Endpoint::receive`], [`Endpoint::closed`], [`Endpoint::wake`];
//! 2. *what came of it*: `poll`, again and again until it says `None`;
//! 3. *answers in* (listener only): [`Listener::answer`];
//! 4. *bytes and time out*: [`Endpoint::transmit`] and [`Endpoint::sent`], [`Endpoint::wake_at`].
//!
//! After any call of family 1 or 3, go through 2 and 4.
//!
//! Where `#[inline(never)]` stands it was measured: the guest agent is smaller for it.
#![no_std]
#![forbid(unsafe_code)]

pub mod classic;
pub mod client;
pub mod driver;
pub mod endpoint;
pub mod ledger;
pub mod listener;
pub mod native;
mod sha;
mod utf8;
pub mod words;

pub use client::{Client, Reply, Signing, Speak, Unspeakable};
pub use endpoint::Endpoint;
pub use ledger::{Admit, Ledger, NotAdmitted, Permit, Remembered};
pub use listener::{Accept, Event, Listener, NativeAccept, NotNow, Refusal, RequestId, Trust};
pub use words::{
    Answer, Ask, BadName, ConfirmedOff, Details, Entropy, Failure, GuestName, Incarnation, ListEntry, Millis,
    Observation, Outcome, Power, PowerAction, Request, RequestKey, Restart, Target, Uuid,
};
