//! The agent's metadata and fence-agents' schema.

use std::fs;
use std::path::Path;
use std::process::Command;

use fencewire_tests::process::{DEADLINE, Finished, ours, program, run};

use crate::{done, failed};

/// In the package fence-agents.
const SCHEMA: &str = "/usr/share/cluster/relaxng/metadata.rng";

/// Holds a document against the schema.
#[track_caller]
pub(crate) fn check(document: &str) -> Finished {
    assert!(Path::new(SCHEMA).exists(), "{SCHEMA} is missing: it is in the Debian package fence-agents");
    let folder = tempfile::tempdir().expect("a private folder");
    let path = folder.path().join("metadata.xml");
    fs::write(&path, document).expect("a file");
    run(Command::new(program("xmllint")).args(["--noout", "--relaxng", SCHEMA]).arg(path), DEADLINE)
}

fn metadata() -> String {
    done(run(Command::new(ours("fence_wire")).args(["-o", "metadata"]), DEADLINE))
}

#[test]
fn the_metadata_is_valid() {
    done(check(&metadata()));
}

/// Else the test above would say nothing.
#[test]
fn the_schema_refuses_what_is_not_metadata() {
    let metadata = metadata();
    for part in
        [" unique=\"0\"", " mixed=\"-n\"", " type=\"second\"", " lang=\"en\"", "</vendor-url>", " name=\"reboot\""]
    {
        assert!(metadata.contains(part), "{part}");
        failed(&check(&metadata.replace(part, "")));
    }
    failed(&check(&metadata.replace("type=\"second\"", "type=\"seconds\"")));
}

/// What Pacemaker, pcs and crmsh rely on, and the schema does not ask for.
#[test]
fn the_metadata_has_what_a_cluster_relies_on() {
    let metadata = metadata();
    for part in [
        "<parameter name=\"action\" ",
        "<parameter name=\"plug\" unique=\"0\" required=\"1\" obsoletes=\"port\">",
        "<parameter name=\"port\" unique=\"0\" required=\"1\" deprecated=\"1\" obsoletes=\"domain\">",
        "<parameter name=\"domain\" unique=\"0\" required=\"0\" deprecated=\"1\">",
    ] {
        assert!(metadata.contains(part), "{part}: {metadata}");
    }
    for action in ["on", "off", "reboot", "status", "monitor", "list", "list-status", "metadata", "validate-all"] {
        assert_eq!(metadata.matches(&format!("<action name=\"{action}\" />")).count(), 1, "{action}");
    }
}
