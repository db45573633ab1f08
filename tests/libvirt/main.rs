//! Power on a real libvirt: the real `fencewired` on private libvirtds, each with real QEMU processes.
//!
//! Whether a guest was fenced is not asked of libvirt here. When the answer arrives, the test looks whether its process
//! lives.
//!
//! | file | what becomes of a fence |
//! |---|---|
//! | `power` | when nothing is wrong |
//! | `states` | of a guest that is paused, crashed, saved, transient |
//! | `hangs` | when a QEMU hangs, or a libvirtd; when that is killed |
//! | `two_hosts` | of a guest that is defined on two libvirtds |
//! | `migration` | of a guest that goes from one to the other |
//! | `test_driver` | with several of libvirt's own test drivers: every pair of states |
//! | `witness` | when libvirt says "shut off" of a QEMU that lives |
//! | `incarnation` | the mark of one run of a guest, which the others rely on |
//! | `journal` | when the bridge is killed in the midst of it |
//! | `serial_port` | when a guest asks for it through a UART of its own |
//!
//! The guests are emulated and have no system; at most a boot sector. Not to be had that way, or at all:
//!
//! | what | why not |
//! |---|---|
//! | a guest that is suspended, or in its shutdown | needs a system in it that does that |
//! | a QEMU that not even SIGKILL ends | needs a disk or a network file system that hangs in the kernel |
//! | the instant between the two halves of a migration's end, on purpose | nothing stops there; `migration` asks at ten moments, some of which hit it now and then |

mod common;
mod hangs;
mod incarnation;
mod journal;
mod migration;
mod power;
mod serial_port;
mod states;
mod test_driver;
mod two_hosts;
mod witness;
