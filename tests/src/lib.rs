//! The beds on which Fencewire is proved: what a test stands on, and no test of its own.
//!
//! | module | what it gives a test |
//! |---|---|
//! | [`process`] | programs that are started, watched and always ended; waiting for a condition with a deadline |
//! | [`libvirt_file`] | a file of guests for libvirt's own test driver |
//! | [`guest_channel`] | the guest's side of a channel, byte by byte, and the classic serial frames built by hand |
//! | [`native_guest`] | a guest that speaks our own wire, with the core's client |
//! | [`caller`] | a caller of the packet wire, step by step |
//! | [`tcp_channel`] | a TCP port that nobody else gets, and its key file |
//! | [`fence_virtd`] | Debian's `fence_virtd` behind its serial listener, and behind its TCP listener beside ours |
//! | [`fence_virt`] | Debian's `fence_virt`, on a pseudo-terminal whose other end is a unix socket, or by TCP |
//! | [`daemon`] | the real `fencewired`, on libvirt's test driver |
//! | [`node`] | a cluster node for Pacemaker's programs, in namespaces |
//! | [`real_libvirt`] | a libvirtd of one's own with real QEMU processes, several at a time |
//! | [`guest`] | guests with a Linux system on that |
//! | [`scripted`] | the programmable hypervisor: what libvirt will not do on demand |
//! | [`bridge_bed`] | the bridge in this process, between the programmable hypervisor and guests' channels |
//! | [`story`] | what the demos print for people |
//!
//! Three rules hold for every bed. A program that is not there is a failure that names its package, never a test
//! skipped. Nothing is shared between tests: no fixed port, no fixed path. Whatever a bed started ends when the bed is
//! dropped, also when the test panics; it is ended by the process it started, never by name.

pub mod bridge_bed;
mod bytes;
pub mod caller;
pub mod daemon;
pub mod fence_virt;
pub mod fence_virtd;
pub mod guest;
pub mod guest_channel;
pub mod libvirt_file;
pub mod native_guest;
pub mod node;
pub mod process;
pub mod real_libvirt;
pub mod scripted;
pub mod story;
pub mod tcp_channel;
