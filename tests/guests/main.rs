//! Real guests: a Linux system in each, under QEMU and a libvirtd of the test's own, behind the real `fencewired`.
//!
//! | file | what is proved |
//! |---|---|
//! | `bed` | that the bed itself does what it says |
//! | `agent` | the agent in a guest that has little, or that is failing |
//! | `attach` | a port taken from a guest that has it open, and given again |
//! | `dangers` | how a channel lies, and what does not come of it |
//! | `native` | our own wire: what was recorded of it, torn or kept is nothing; keys |
//! | `power` | off, reboot, on, status, list and monitor, from a process in a guest to another guest's process |
//!
//! What is done to a target is looked at in the kernel's list of processes, never asked of libvirt or the bridge. Targets
//! have no system where they need none.

mod agent;
mod attach;
mod bed;
mod common;
mod dangers;
mod native;
mod power;
mod tap;
