//! The unit on its own, as systemd-analyze reads it.

use super::{SLOW, make_well, repository, variable};
use fencewire_tests::process::{program, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The unit, installed in a folder, where the paths in it are true.
fn installed() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a private folder");
    let (prefix, etc) = (variable("PREFIX", folder.path()), variable("SYSCONFDIR", &folder.path().join("etc")));
    make_well(["install-host", &prefix, &etc]);
    let unit = folder.path().join("lib/systemd/system/fencewired.service");
    (folder, unit)
}

fn analyze(arguments: &[&str], unit: &Path) -> String {
    let mut command = Command::new(program("systemd-analyze"));
    let finished = run(command.arg("--no-pager").args(arguments).arg(unit), SLOW);
    assert_eq!(finished.code, Some(0), "{}{}", finished.stdout, finished.stderr);
    format!("{}{}", finished.stdout, finished.stderr)
}

#[test]
fn systemd_has_nothing_to_say_of_the_unit() {
    let (_folder, unit) = installed();
    assert_eq!(analyze(&["verify"], &unit), "");
    // That silence means something: a mistake is told.
    let text = fs::read_to_string(&unit).expect("the unit").replace("ProtectHome=", "ProtectHouse=");
    fs::write(&unit, text).expect("a unit");
    assert!(analyze(&["verify"], &unit).contains("ProtectHouse"));
}

#[test]
fn the_unit_is_as_closed_as_documented() {
    let (_folder, unit) = installed();
    let said = analyze(&["security", "--offline=yes"], &unit);
    let overall = said.lines().find_map(|line| line.split_once("Overall exposure level for fencewired.service: "));
    let (_, overall) = overall.unwrap_or_else(|| panic!("no overall exposure in\n{said}"));
    let overall: f64 = overall.split(' ').next().and_then(|figure| figure.parse().ok()).expect("a figure");
    let version = systemd_version();
    let documented = documented_exposure(version);
    assert!(overall <= documented, "systemd {version} says {overall}, docs/installing.md says {documented}\n{said}");
}

/// The first word of `systemd-analyze --version` after the name.
fn systemd_version() -> u32 {
    let said = run(Command::new(program("systemd-analyze")).arg("--version"), SLOW).stdout;
    said.split_whitespace().nth(1).and_then(|version| version.parse().ok()).expect("systemd's version")
}

/// From the rows `| 252 (Debian 12) | 1.6 |`: this version's, or the highest where it has none.
fn documented_exposure(version: u32) -> f64 {
    let text = fs::read_to_string(repository().join("docs/installing.md")).expect("docs/installing.md");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let version: u32 = cells.next()?.split(' ').next()?.parse().ok()?;
        let figure: f64 = cells.next()?.trim_end_matches([' ', '|']).parse().ok()?;
        Some((version, figure))
    };
    let rows: Vec<(u32, f64)> = text.lines().filter_map(row).collect();
    let of_this = rows.iter().find(|(of, _)| *of == version).map(|(_, figure)| *figure);
    let highest = rows.iter().map(|(_, figure)| *figure).reduce(f64::max);
    of_this.or(highest).expect("docs/installing.md has rows `| 252 (Debian 12) | 1.6 |`")
}
