//! `fencewired attach` and `detach` where nothing can be done, on libvirt's test driver: it has guests, and cannot change
//! their devices.

use fencewire_tests::libvirt_file::{Guest, LibvirtFile, uuid_of};
use tempfile::TempDir;

use crate::Operator;

const NAME: &str = "org.fencewire.fence.0";

struct Bed {
    folder: TempDir,
    operator: Operator,
}

/// A hypervisor with these guests.
fn bed(guests: impl IntoIterator<Item = Guest>) -> Bed {
    let folder = tempfile::tempdir().expect("a private folder");
    let uri = LibvirtFile::new(folder.path().join("guests.xml")).guests(guests).write();
    Bed { folder, operator: Operator::of(&[&uri]) }
}

#[test]
fn who_is_not_known() {
    let bed = bed([Guest::new("vm1")]);
    for verb in ["attach", "detach"] {
        for guest in ["vm7", &uuid_of("vm7")] {
            bed.operator.refused(&[verb, guest], &["no hypervisor knows a guest", guest, "virsh list"]);
        }
    }
}

#[test]
fn a_name_that_two_bear() {
    let folder = tempfile::tempdir().expect("a private folder");
    let uris = ["1", "2"].map(|number| {
        let guest = Guest::new("vm1").uuid(&uuid_of(number));
        LibvirtFile::new(folder.path().join(number)).guest(guest).write()
    });
    let operator = Operator::of(&[&uris[0], &uris[1]]);
    operator.refused(&["attach", "vm1"], &["more than one guest bears the name \"vm1\"", "give its UUID"]);
}

/// A guest of that name may be on the one that does not answer.
#[test]
fn a_hypervisor_that_does_not_answer() {
    let folder = tempfile::tempdir().expect("a private folder");
    let uri = LibvirtFile::new(folder.path().join("guests.xml")).guest(Guest::new("vm1")).write();
    let operator = Operator::of(&[&uri, "test+unix:///default?socket=/nowhere/socket"]);
    operator
        .refused(&["attach", "vm1"], &["socket=/nowhere", "does not say who", "libvirt runs", "Nothing was changed"]);
}

#[test]
fn what_libvirt_refuses_is_told_in_its_words() {
    let bed = bed([Guest::new("vm1")]);
    bed.operator.refused(&["attach", "vm1", "--persistent"], &["vm1 (", "nothing was changed", "not supported"]);
    let shown = bed.operator.well(&["attach", "vm1", "--persistent", "--dry-run"]);
    assert!(shown.contains("would be changed") && shown.contains(&format!("name='{NAME}'")), "{shown}");
}

#[test]
fn a_channel_that_is_there_already() {
    let bed = bed([Guest::new("vm1").channel(NAME, "/run/vm1.sock".as_ref())]);
    let said = bed.operator.well(&["attach", "vm1"]);
    assert!(said.contains("has the channel already") && said.contains("on this host: /run/vm1.sock"), "{said}");
    bed.operator.refused(&["detach", "vm1"], &["could not be detached", "not supported"]);
    assert!(
        bed.operator.well(&["detach", "vm1", "--dry-run"]).contains("-     <source mode='bind' path='/run/vm1.sock'/>")
    );
}

/// The name is the configuration's.
#[test]
fn a_port_of_another_name() {
    let bed = bed([Guest::new("vm1").channel(NAME, "/run/vm1.sock".as_ref())]);
    let text = std::fs::read_to_string(bed.operator.config()).expect("a file");
    let with = |name: &str| {
        let text = format!("{text}[discover]\nvirtio_name = \"{name}\"\n");
        std::fs::write(bed.operator.config(), text).expect("a file");
    };
    with("com.example.0");
    let shown = bed.operator.well(&["attach", "vm1", "--persistent", "--dry-run"]);
    assert!(shown.contains("name='com.example.0'") && !shown.contains(NAME), "{shown}");
    with("");
    bed.operator.refused(&["attach", "vm1"], &["discover.virtio_name", NAME]);
    drop(bed.folder);
}

#[test]
fn command_lines_that_are_none() {
    let operator = Operator::of(&["test:///default"]);
    for (arguments, says) in [
        (&["attach"][..], "attach: which guest?"),
        (&["detach", "--live"], "detach: which guest?"),
        (&["attach", "a", "b"], "unexpected argument \"b\""),
        (&["check", "--live"], "invalid option '--live'"),
        (&["--dry-run", "attach", "a"], "invalid option '--dry-run'"),
    ] {
        let refused = operator.run(arguments);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert_eq!(refused.stderr, format!("fencewired: {says}; try fencewired --help\n"), "{arguments:?}");
    }
}
