//! Our agent, called as its users call it.

use std::path::Path;
use std::process::Command;

use fencewire_tests::process::{DEADLINE, Finished, ours, run, run_with_input};

/// `fence_wire -D device arguments`.
#[track_caller]
pub(crate) fn agent(device: &Path, arguments: &[&str]) -> Finished {
    run(command(device).args(arguments), DEADLINE)
}

/// `fence_wire -D device`, to be added to.
pub(crate) fn command(device: &Path) -> Command {
    let mut command = Command::new(ours("fence_wire"));
    command.arg("-D").arg(device);
    command
}

/// `fence_wire` with these lines on its standard input, and what Pacemaker says there besides.
#[track_caller]
pub(crate) fn agent_told(device: &Path, lines: &str) -> Finished {
    let input = format!("nodename=node2\nserial_device={}\ncrm_feature_set=3.16.2\n{lines}", device.display());
    run_with_input(&mut Command::new(ours("fence_wire")), input.as_bytes(), DEADLINE)
}

/// Says that it failed and why: one sentence on standard error with this part in it, and nothing else.
#[track_caller]
pub(crate) fn has_failed(finished: &Finished, part: &str) {
    let Finished { code, stdout, stderr, .. } = finished;
    assert_eq!((*code, stdout.as_str()), (Some(1), ""), "{stderr}");
    let is_sentence = stderr.starts_with("fence_wire: ") && stderr.find('\n') == Some(stderr.len() - 1);
    assert!(is_sentence && stderr.contains(part), "{part:?} in one sentence: {stderr:?}");
}
