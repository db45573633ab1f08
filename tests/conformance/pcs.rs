//! pcs, on a configuration in a file.

use fencewire_tests::guest_channel::GuestChannel;
use fencewire_tests::node::Node;
use fencewire_tests::process::Finished;

use crate::{done, failed};

/// A node with a configuration.
struct Configuration {
    node: Node,
    file: String,
}

impl Configuration {
    #[track_caller]
    fn new() -> Self {
        let node = Node::start();
        let file = node.path("cib.xml");
        let empty = done(node.run("cibadmin", &["--empty"]));
        std::fs::write(&file, empty).expect("a configuration");
        Self { node, file: file.display().to_string() }
    }

    /// `pcs -f FILE arguments`.
    #[track_caller]
    fn pcs(&self, arguments: &[&str]) -> Finished {
        self.node.run("pcs", &[&["-f", &self.file], arguments].concat())
    }

    /// Tries to create a device with these options.
    #[track_caller]
    fn create(&self, name: &str, options: &[&str]) -> Finished {
        self.pcs(&[&["stonith", "create", name, "fence_wire"], options].concat())
    }
}

#[test]
fn pcs_lists_and_describes_the_agent() {
    let node = Node::start();
    let list = done(node.run("pcs", &["stonith", "list", "fence_"]));
    assert_eq!(list, "fence_wire - Fence agent for virtual machines\n");

    let described = done(node.run("pcs", &["stonith", "describe", "fence_wire"]));
    for part in ["fence_wire - Fence agent", "  plug: Name or UUID", "  serial_device: ", "  timeout: ", "  delay: "] {
        assert!(described.contains(part), "{part}: {described}");
    }
    assert!(!described.contains("  port: "), "what is deprecated is not described: {described}");
}

/// The lines of `docs/operating.md`.
#[test]
fn pcs_takes_the_lines_of_our_documentation() {
    let configuration = Configuration::new();
    done(configuration.create(
        "fence-nfs",
        &[
            "serial_device=/dev/ttyS1",
            "pcmk_host_map=nfs1:nfs-server1;nfs2:nfs-server2",
            "pcmk_delay_base=nfs1:5s;nfs2:0s",
        ],
    ));
    done(configuration.pcs(&["property", "set", "stonith-enabled=true"]));

    let shown = done(configuration.pcs(&["stonith", "config"]));
    for part in ["type=fence_wire", "serial_device=/dev/ttyS1", "nfs1:nfs-server1;nfs2:nfs-server2", "interval=60s"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    done(configuration.node.run("crm_verify", &["--xml-file", &configuration.file]));
}

#[test]
fn pcs_knows_which_options_there_are() {
    let configuration = Configuration::new();
    let said = failed(&configuration.create("a", &["nosuch=1"]));
    assert!(said.contains("invalid stonith option 'nosuch'"), "{said}");
    for (option, instead) in [("port=vm2", "'plug'"), ("domain=vm2", "'port'")] {
        let created = configuration.create(option.split('=').next().unwrap_or_default(), &[option]);
        assert!(created.stderr.contains(&format!("is deprecated and should not be used, use {instead} instead")));
        done(created);
    }
}

/// pcs runs the agent's validate-all when it is asked to.
#[test]
fn pcs_lets_the_agent_validate_what_is_configured() {
    let configuration = Configuration::new();
    let channel = GuestChannel::listen();
    let device = format!("serial_device={}", channel.path().display());

    done(configuration.create("good", &[&device, "--agent-validation"]));
    for (options, part) in [
        (&["--agent-validation"][..], "there is no virtio port org.fencewire.fence.0"),
        (&["serial_device=/missing", "--agent-validation"], "'/missing' cannot be used (no such file)"),
        (&[&device, "timeout=soon", "--agent-validation"], "timeout is 'soon': give 1 to 3600 seconds"),
    ] {
        let said = failed(&configuration.create("bad", options));
        assert!(said.contains(part), "{options:?}: {said}");
    }
}
