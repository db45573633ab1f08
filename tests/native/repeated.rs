//! What a guest hears when a reply was lost, when it asks again, and when the daemon is killed meanwhile.
//!
//! The test driver's guests are as in the beginning after the daemon was killed: what can be seen is the answer. What such a
//! daemon does is in `runs`.

use fencewire_tests::daemon::{Daemon, Setup};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::{DEADLINE, wait_until};

use crate::second::{Said, Second};

const ID: [&str; 2] = ["--id", "1122334455667788"];

fn setup() -> Setup {
    Daemon::setup().wire("keyless = true")
}

/// The outcomes in the records, with what is repeated marked by "again".
fn outcomes(daemon: &mut Daemon) -> Vec<String> {
    let records = daemon.stop_and_read_records();
    let power = records.iter().filter(|record| !matches!(record["action"].as_str(), Some("monitor" | "status")));
    let again = |repeated: bool| if repeated { ", again" } else { "" };
    power
        .map(|record| {
            let outcome = record["outcome"].as_str().expect("an outcome");
            format!("{outcome}{}", again(record["repeated"].as_bool() == Some(true)))
        })
        .collect()
}

/// Three seconds after it heard the last it begins a new session, and asks with the same id.
#[test]
fn a_lost_reply_is_had_again() {
    let mut daemon = setup().served(["vm1", "vm2"].map(Guest::new)).start();
    let vm1 = Second::connecting(&daemon.socket_path("vm1")).keyless();
    let said = vm1.ask(&["--lose", "1", "off", "vm2"]);
    said.is_done("off", true);
    assert_eq!(said.outcome["sessions"].as_u64(), Some(2));
    assert_eq!(outcomes(&mut daemon), ["confirmed off", "confirmed off, again"]);
}

#[test]
fn the_same_id_is_the_same_request() {
    let mut daemon = setup().served(["vm1", "vm2", "vm3"].map(Guest::new)).start();
    let vm1 = Second::connecting(&daemon.socket_path("vm1")).keyless();
    let with_id = |arguments: &[&str]| vm1.ask(&[&ID[..], arguments].concat());
    with_id(&["off", "vm2"]).is_done("off", false);
    vm1.ask(&["on", "vm2"]).is_done("on", false);
    with_id(&["off", "vm2"]).is_done("off", true);
    assert_eq!(vm1.ask(&["status", "vm2"]).text("runs"), "on", "it was not done again");
    for other in [["off", "vm3"], ["reboot", "vm2"], ["on", "vm2"]] {
        let said = with_id(&other);
        assert_eq!((said.text("said"), said.text("result"), said.text("reason")), ("done", "failed", "busy"));
        assert_eq!(said.code, Some(1));
    }
    assert_eq!(vm1.ask(&["status", "vm3"]).text("runs"), "on");
    // Another guest's ids are its own.
    let vm3 = Second::connecting(&daemon.socket_path("vm3")).keyless();
    vm3.ask(&[&ID[..], &["off", "vm2"]].concat()).is_done("off", false);
}

/// The channel is one that QEMU listens on, or one that the bridge listens on.
#[test]
fn the_daemon_is_killed_before_its_reply_is_read() {
    for listens in [true, false] {
        let setup = setup().known(["vm1", "vm2"].map(Guest::new));
        let path = setup.folder().join("vm1.sock");
        let kind = if listens { "unix" } else { "unix-listen" };
        let mut daemon = setup.channel(kind, &path, "vm1").start();
        let second = if listens { Second::listening(&path) } else { Second::connecting(&path) };
        // The first reply is lost: the second client is in the middle of its request until it has asked again.
        let mut asking = second.keyless().start(&["--lose", "1", "off", "vm2"]);
        wait_until(DEADLINE, "a record", || daemon.records().iter().any(|it| it["action"] == "off").then_some(()));
        daemon.start_again();
        let said = Said::of(&asking.wait(DEADLINE));
        said.is_done("off", true);
        assert_eq!(said.outcome["sessions"].as_u64(), Some(2), "{kind}");
        assert_eq!(outcomes(&mut daemon), ["confirmed off", "confirmed off, again"], "{kind}");
    }
}
