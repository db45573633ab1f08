//! Command lines of `fencewired` that are none, and those that only say something.

use std::process::Command;

use fencewire_tests::process::{DEADLINE, Finished, ours, run};

fn call(arguments: &[&str]) -> Finished {
    run(Command::new(ours("fencewired")).args(arguments), DEADLINE)
}

#[test]
fn what_is_no_command_line() {
    for (arguments, says) in [
        (&["--bogus"][..], "invalid option '--bogus'"),
        (&["-x"], "invalid option '-x'"),
        (&["start"], "unexpected argument \"start\""),
        (&["check", "check"], "unexpected argument \"check\""),
        (&["check", "file.toml"], "unexpected argument \"file.toml\""),
        (&["--config"], "missing argument for option '--config'"),
        (&["-c"], "missing argument for option '-c'"),
        (&[""], "unexpected argument \"\""),
    ] {
        let finished = call(arguments);
        assert_eq!(finished.code, Some(2), "{arguments:?}");
        assert_eq!(finished.stderr, format!("fencewired: {says}; try fencewired --help\n"), "{arguments:?}");
        assert_eq!(finished.stdout, "", "{arguments:?}");
    }
}

#[test]
fn help_and_version() {
    for argument in ["--help", "-h"] {
        let help = call(&[argument]);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
        for part in ["fencewired [--config FILE]", "fencewired check [--config FILE]", "/etc/fencewire/fencewired.toml"]
        {
            assert!(help.stdout.contains(part), "{}", help.stdout);
        }
    }
    for argument in ["--version", "-V"] {
        let version = call(&[argument]);
        assert_eq!((version.code, version.stderr.as_str()), (Some(0), ""));
        assert_eq!(version.stdout, format!("fencewired {}\n", env!("CARGO_PKG_VERSION")));
    }
}

/// Without `--config`, the file that the help names, whether it is there or not.
#[test]
fn the_default_file() {
    let finished = call(&["check"]);
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert!(!said.is_empty() && said.lines().all(|line| line.starts_with("/etc/fencewire/fencewired.toml:")), "{said}");
}
