//! `fencewired attach` and `detach` on a private libvirtd with QEMU. What has changed is asked of `virsh`.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use fencewire_tests::libvirt_file::uuid_of;
use fencewire_tests::process::{DEADLINE, Process, ours, wait_until};
use fencewire_tests::real_libvirt::{Host, Machine};

use crate::Operator;

const NAME: &str = "org.fencewire.fence.0";
/// Another channel, which every guest of an ordinary host has, and with it a controller.
const OTHER: &str = "org.qemu.guest_agent.0";

fn with_another(host: &Host) -> Machine {
    Machine::new("vm1").channel(OTHER, &host.path("other.sock"))
}

/// What libvirt starts the guest from.
#[track_caller]
fn persistent(host: &Host) -> String {
    host.virsh(&["dumpxml", "--inactive", "vm1"])
}

#[track_caller]
fn live(host: &Host) -> String {
    host.virsh(&["dumpxml", "vm1"])
}

/// Every line that `after` has and `before` has not.
fn added<'a>(before: &str, after: &'a str) -> Vec<&'a str> {
    let mut rest: Vec<&str> = before.lines().collect();
    let is_new = |line: &&str| match rest.iter().position(|known| known == line) {
        Some(at) => {
            rest.remove(at);
            false
        }
        None => true,
    };
    after.lines().filter(is_new).map(str::trim).collect()
}

/// The path on this host that the program has told.
#[track_caller]
fn path_in(said: &str) -> &Path {
    let path = said.lines().find_map(|line| line.trim().strip_prefix("on this host: "));
    Path::new(path.unwrap_or_else(|| panic!("no path in {said}")))
}

#[test]
fn a_guest_that_runs_gets_it_at_once_and_for_good_and_loses_it_again() {
    let host = Host::start();
    host.run(&with_another(&host));
    let operator = Operator::of(&[&host.uri()]);
    let before = (persistent(&host), live(&host));

    let shown = operator.well(&["attach", "vm1", "--dry-run"]);
    for part in
        ["vm1 (", "live definition", "persistent definition", "\n+     <target type='virtio' name='org.fencewire"]
    {
        assert!(shown.contains(part), "{part:?} is not in: {shown}");
    }
    assert_eq!((persistent(&host), live(&host)), before, "a dry run");

    let said = operator.well(&["attach", "vm1"]);
    assert!(said.contains("attached, live and persistent"), "{said}");
    assert!(said.contains(&format!("the virtio port {NAME}")), "{said}");
    UnixStream::connect(path_in(&said)).expect("QEMU listens there");
    let target = format!("<target type='virtio' name='{NAME}'/>");
    let new = added(&before.0, &persistent(&host)).join("");
    assert!(new.starts_with("<channel type='unix'>") && new.contains(&target) && new.ends_with("</channel>"), "{new}");
    assert!(!new.contains("controller type="), "there is one already: {new}");

    let again = operator.well(&["attach", &uuid_of("vm1")]);
    assert!(again.contains("has the channel already, live and persistent: nothing was changed"), "{again}");
    assert_eq!(path_in(&again), path_in(&said));
    let shown = operator.well(&["attach", "vm1", "--dry-run"]);
    assert!(shown.contains("nothing was changed"), "{shown}");

    let attached = (persistent(&host), live(&host));
    let shown = operator.well(&["detach", "vm1", "--dry-run"]);
    assert!(shown.contains(&format!("\n-     <source mode='bind' path='{}'/>", path_in(&said).display())), "{shown}");
    assert_eq!((persistent(&host), live(&host)), attached, "a dry run");
    let gone = operator.well(&["detach", "vm1"]);
    assert!(gone.contains("detached, live and persistent"), "{gone}");
    assert_eq!((persistent(&host), live(&host)), before, "to the byte");
    let gone = operator.well(&["detach", "vm1"]);
    assert!(gone.contains("has no such channel, live and persistent: nothing was changed"), "{gone}");
}

#[test]
fn each_definition_can_be_changed_alone() {
    let host = Host::start();
    host.run(&with_another(&host));
    let operator = Operator::of(&[&host.uri()]);
    let before = (persistent(&host), live(&host));

    let said = operator.well(&["attach", "vm1", "--live"]);
    assert!(said.contains("attached, live\n"), "{said}");
    assert_eq!(persistent(&host), before.0);
    let said = operator.well(&["attach", "vm1", "--persistent"]);
    assert!(said.contains("attached, persistent\n") && said.contains("from its next start on"), "{said}");
    let said = operator.well(&["detach", "vm1", "--live"]);
    assert!(said.contains("detached, live\n"), "{said}");
    assert_eq!(live(&host), before.1);
    assert!(persistent(&host).contains(NAME));

    // Off and on again, it has what its definition says.
    host.virsh(&["destroy", "vm1"]);
    operator.refused(&["attach", "vm1", "--live"], &["vm1 (", "it is off", "leave out --live"]);
    host.switch_on("vm1");
    let said = operator.well(&["attach", "vm1"]);
    UnixStream::connect(path_in(&said)).expect("QEMU listens there");
    host.virsh(&["destroy", "vm1"]);
    let said = operator.well(&["detach", "vm1"]);
    assert!(said.contains("detached, persistent\n"), "{said}");
    assert_eq!(persistent(&host), before.0);
}

/// Without any virtio port a guest has no controller for them, and libvirt adds one to a definition only. It stays there.
#[test]
fn a_first_virtio_port_needs_a_start() {
    let host = Host::start();
    host.run(&Machine::new("vm1"));
    let operator = Operator::of(&[&host.uri()]);
    let before = (persistent(&host), live(&host));
    for arguments in [&["attach", "vm1"][..], &["attach", "vm1", "--live"], &["attach", "vm1", "--dry-run"]] {
        operator.refused(arguments, &["without a virtio-serial controller", "use --persistent", "Nothing was changed"]);
    }
    assert_eq!((persistent(&host), live(&host)), before);

    let said = operator.well(&["attach", "vm1", "--persistent"]);
    assert!(said.contains("attached, persistent\n") && said.contains("a reboot inside it is not enough"), "{said}");
    assert_eq!(live(&host), before.1);
    host.virsh(&["destroy", "vm1"]);
    host.switch_on("vm1");
    let said = operator.well(&["attach", "vm1"]);
    UnixStream::connect(path_in(&said)).expect("QEMU listens there");
    operator.well(&["detach", "vm1"]);
    let after = persistent(&host);
    let controller = added(&before.0, &after);
    assert!(controller[0].starts_with("<controller type='virtio-serial'"), "{controller:?}");
    assert_eq!(added(&after, &before.0), [""; 0]);
    assert_eq!(controller.iter().filter(|line| line.starts_with("<controller")).count(), 1, "{controller:?}");
}

/// libvirt would leave a controller in the live definition that QEMU does not have.
#[test]
fn a_controller_without_a_free_port_is_left_alone() {
    let host = Host::start();
    let controller = "<controller type='virtio-serial' index='0' ports='2'/>";
    host.run(&with_another(&host).devices(controller));
    let operator = Operator::of(&[&host.uri()]);
    let before = (persistent(&host), live(&host));
    operator.refused(&["attach", "vm1"], &["a free port", "use --persistent", "Nothing was changed"]);
    assert_eq!((persistent(&host), live(&host)), before);
}

#[test]
fn a_transient_guest_has_it_while_it_runs() {
    let host = Host::start();
    host.run_transient(&with_another(&host));
    let operator = Operator::of(&[&host.uri()]);
    let before = live(&host);
    operator.refused(&["attach", "vm1", "--persistent"], &["it is transient", "leave out --persistent"]);
    let said = operator.well(&["attach", "vm1"]);
    assert!(said.contains("attached, live\n"), "{said}");
    assert!(operator.well(&["detach", "vm1"]).contains("detached, live\n"));
    assert_eq!(live(&host), before);
}

/// A bridge that has the channel loses it, and nothing else happens.
#[test]
fn a_channel_that_the_host_has_open_is_taken_away() {
    let host = Host::start();
    let qemu = host.run(&with_another(&host));
    let operator = Operator::of(&[&host.uri()]);
    let before = live(&host);
    let said = operator.well(&["attach", "vm1"]);
    let mut stream = UnixStream::connect(path_in(&said)).expect("QEMU listens there");
    operator.well(&["detach", "vm1"]);
    assert_eq!(std::io::Read::read(&mut stream, &mut [0; 8]).expect("an end"), 0);
    assert!(qemu.lives());
    assert_eq!(live(&host), before);
}

/// One that the operator has defined by hand, with a path, counts, too.
#[test]
fn a_channel_at_a_path_is_the_same_channel() {
    let host = Host::start();
    let path = host.path("by-hand.sock");
    host.run(&with_another(&host).channel(NAME, &path));
    let operator = Operator::of(&[&host.uri()]);
    let said = operator.well(&["attach", "vm1"]);
    assert!(said.contains("has the channel already, live and persistent"), "{said}");
    assert_eq!(path_in(&said), path);
    let said = operator.well(&["detach", "vm1"]);
    assert!(said.contains("detached, live and persistent"), "{said}");
    assert!(!persistent(&host).contains(NAME) && persistent(&host).contains(OTHER));
}

/// Where it is defined on both, both are changed.
#[test]
fn a_guest_of_two_hypervisors_gets_it_on_both() {
    let hosts = [Host::start(), Host::start()];
    hosts[0].run(&with_another(&hosts[0]));
    hosts[1].define(&with_another(&hosts[1]));
    let uris = [hosts[0].uri(), hosts[1].uri()];
    let operator = Operator::of(&[&uris[0], &uris[1]]);
    let said = operator.well(&["attach", "vm1"]);
    assert!(said.contains("attached, live and persistent") && said.contains("attached, persistent\n"), "{said}");
    assert!(hosts.iter().all(|host| persistent(host).contains(NAME)));
}

/// libvirt waits for it, and so does the command: it says nothing of what is not done. The persistent definition is changed
/// before that.
#[test]
fn a_qemu_that_hangs_is_waited_for() {
    let host = Host::start();
    let qemu = host.run(&with_another(&host));
    let operator = Operator::of(&[&host.uri()]);
    operator.well(&["attach", "vm1"]);
    qemu.hang();
    let mut command = Command::new(ours("fencewired"));
    let mut detach = Process::start(command.args(["detach", "vm1"]).arg("--config").arg(operator.config()));
    wait_until(DEADLINE, "the persistent definition to be changed", || {
        (!persistent(&host).contains(NAME)).then_some(())
    });
    assert!(detach.is_running() && detach.stdout().is_empty(), "{}{}", detach.stdout(), detach.stderr());
    assert!(live(&host).contains(NAME), "it is there as long as QEMU has not said otherwise");
    qemu.go_on();
    let done = detach.wait(DEADLINE);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert!(done.stdout.contains("detached, live and persistent"), "{}", done.stdout);
    assert!(!live(&host).contains(NAME));
}
