//! Our own wire as a stranger speaks it: the second client (`tests/second_client/`), written from `docs/protocol.md` alone,
//! and the real `fencewired`; and the keys that it makes, gives and takes away.
//!
//! | module | what |
//! |---|---|
//! | `second` | the second client, started |
//! | `agent` | our agent: every action, keys, what it says of refusals, a daemon that is killed, memory |
//! | `keyless` | guests without a key: every action, lists, virtio ports, both wires on one channel |
//! | `enrolled` | guests with a key, and who has another or none |
//! | `repeated` | replies that were lost, ids that come again, a daemon that was killed |
//! | `runs` | the same with the core's own client and the programmable hypervisor: what must survive a bridge, and runs of guests |
//! | `document` | the examples in the document, made again by the core |
//! | `commands` | `keygen`, `enroll`, `revoke`, and their bad input |

mod agent;
mod commands;
mod document;
mod enrolled;
mod keyless;
mod repeated;
mod runs;
mod second;
