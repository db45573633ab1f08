//! Our agent before the programs that judge a fence agent, as Debian 12 has them, and beside Debian's own agent.
//!
//! | module | who judges |
//! |---|---|
//! | `metadata` | fence-agents 4.12.1: the schema by which every agent's metadata must be valid |
//! | `pacemaker` | Pacemaker 2.1.5: its command-line tools, and its fencer, which runs the agent as in a cluster |
//! | `pcs` | pcs 0.11.5 |
//! | `crmsh` | crmsh 4.4.1 |
//! | `standard_input` | fence_virt 4.12.1, which is given the same lines; and fence_xvm's options |
//!
//! No cluster runs here. The fencer runs alone, without corosync; pcs and crmsh change a configuration in a file.
//! Pacemaker's own fencing tests (`cts-fencing`) are in no Debian package.

mod crmsh;
mod metadata;
mod pacemaker;
mod pcs;
mod standard_input;

use fencewire_tests::process::Finished;

/// It ended well. What it wrote to standard output.
#[track_caller]
fn done(finished: Finished) -> String {
    assert_eq!((finished.code, finished.signal), (Some(0), None), "{}\n{}", finished.stdout, finished.stderr);
    finished.stdout
}

/// It ended with an error. What it wrote, to whichever stream.
#[track_caller]
fn failed(finished: &Finished) -> String {
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert!(finished.code.is_some_and(|code| code != 0), "{:?}: {said}", finished.code);
    said
}
