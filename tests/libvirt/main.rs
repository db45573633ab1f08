//! Power on a real libvirt.

mod common;
mod hangs;
mod migration;
mod power;
mod states;
mod two_hosts;
