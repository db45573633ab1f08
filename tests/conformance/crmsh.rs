//! crmsh, on a configuration in a file and on a shadow of none.

use fencewire_tests::node::{Node, TOOL_DEADLINE};
use fencewire_tests::process::run;

use crate::{done, failed};

/// The line of `docs/operating.md`.
const PRIMITIVE: [&str; 11] = [
    "configure",
    "primitive",
    "fence-nfs",
    "stonith:fence_wire",
    "params",
    "serial_device=/dev/ttyS1",
    "pcmk_host_map=nfs1:nfs-server1;nfs2:nfs-server2",
    "pcmk_delay_base=nfs1:5s;nfs2:0s",
    "op",
    "monitor",
    "interval=60s",
];

#[test]
fn crmsh_lists_and_describes_the_agent() {
    let node = Node::start();
    let list = done(node.run("crm", &["ra", "list", "stonith"]));
    assert!(list.split_whitespace().any(|word| word == "fence_wire"), "{list}");

    let described = done(node.run("crm", &["ra", "info", "stonith:fence_wire"]));
    for part in ["plug (string): Name or UUID", "serial_device (string): ", "timeout (second): ", "debug (boolean): "] {
        assert!(described.contains(part), "{part}: {described}");
    }
}

#[test]
fn crmsh_configures_the_agent() {
    let node = Node::start();
    let file = node.path("cib.xml");
    std::fs::write(&file, done(node.run("cibadmin", &["--empty"]))).expect("a configuration");
    let crm = |arguments: &[&str]| {
        let mut command = node.command("crm");
        run(command.env("CIB_file", &file).args(arguments), TOOL_DEADLINE)
    };

    done(crm(&PRIMITIVE));
    done(crm(&["configure", "property", "stonith-enabled=true"]));
    done(crm(&["configure", "verify"]));
    let shown = done(crm(&["configure", "show"]));
    assert!(shown.contains("primitive fence-nfs stonith:fence_wire"), "{shown}");

    let said = failed(&crm(&["configure", "primitive", "bad", "stonith:fence_wire", "params", "nosuch=1"]));
    assert!(said.contains("\"nosuch\" is not known"), "{said}");
}

#[test]
fn crmsh_configures_the_agent_in_a_shadow() {
    let node = Node::start();
    done(node.run("crm", &["cib", "new", "trial", "empty"]));
    done(node.run("crm", &[&["-c", "trial"][..], &PRIMITIVE].concat()));
    let shown = done(node.run("crm", &["-c", "trial", "configure", "show"]));
    assert!(shown.contains("primitive fence-nfs stonith:fence_wire"), "{shown}");
}
