//! Ours with theirs, ours beside theirs, and ours with ours: Debian's `fence_virt` and `fence_virtd` 4.12.1, our agent
//! and our bridge.
//!
//! | module | at the guest's end | at the host's end |
//! |---|---|---|
//! | `their_client` | `fence_virt` | our bridge |
//! | `their_client_tcp` | `fence_virt -T` | our bridge, and `fence_virtd` beside it |
//! | `their_server` | our agent | `fence_virtd` |
//! | `their_tcp_server` | our agent, by TCP | `fence_virtd` |
//! | `ours_both` | our agent | our bridge |
//! | `footprint` | our agent | `fence_virtd`: what it costs |
//! | `ours` | bytes | our bridge, where theirs does what it must not |
//! | `ordinary_user` | bytes | our bridge, without privilege |
//! | `theirs` (a test program of its own) | bytes and `fence_virt` | `fence_virtd`, doing what it must not |
//!
//! What `fence_virtd` does and ours must not is a table of rows, "theirs / ours"; each row that can be seen over a
//! serial channel is a test in `theirs` and one in `ours`; those of TCP are in `theirs_tcp` and `their_client_tcp`,
//! which has their table. Those that are in neither, or in one only:
//!
//! | theirs | why not here |
//! |---|---|
//! | after a libvirtd restart it stays up, deaf to new guests | theirs: its bed has no libvirtd. Ours is here |
//! | with two hypervisor URIs the list comes out scrambled | ours: several are `several_hypervisors` in `rules` |
//! | with the cpg backend, a guest on an unreachable host is reported fenced while it runs | ours has no such backend: one bridge speaks for one host |

mod agent;
mod footprint;
mod libvirtd;
mod ordinary_user;
mod ours;
mod ours_both;
mod their_client;
mod their_client_tcp;
mod their_server;
mod their_tcp_server;
