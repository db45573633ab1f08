//! Guests without a key of their own, with `keyless = true`.

use std::collections::BTreeMap;
use std::convert::identity;
use std::time::Duration;

use fencewire_tests::daemon::{Daemon, ask};
use fencewire_tests::guest_channel::{GuestChannel, IS_OFF, MAGIC, OFF, ON, STATUS, SUCCESS, fresh_seqno, request};
use fencewire_tests::libvirt_file::{Guest, State};
use fencewire_tests::process::DEADLINE;
use serde_json::Value;

use crate::second::{Second, ask_over};

const KEYLESS: &str = "keyless = true";

#[test]
fn every_action_and_what_is_recorded_of_it() {
    let guests = [Guest::new("vm2"), Guest::new("stopped").state(State::Shutoff), Guest::new("stranger")];
    let members = ["vm1", "vm2", "stopped"];
    let setup = Daemon::setup().served([Guest::new("vm1")]).known(guests).wire(KEYLESS).group("g", &members, "");
    let mut daemon = setup.start();
    let second = Second::connecting(&daemon.socket_path("vm1")).keyless();
    let uuid = Guest::new("vm2").uuid_text().to_owned();
    let status = |target: &str| {
        let said = second.ask(&["status", target]);
        assert_eq!(said.text("said"), "status", "{said:?}");
        (said.text("runs").to_owned(), said.code)
    };

    assert_eq!((second.ask(&["monitor"]).text("said"), second.ask(&["monitor"]).code), ("alive", Some(0)));
    assert_eq!(status("vm2"), ("on".to_owned(), Some(0)));
    assert_eq!(status("stopped"), ("off".to_owned(), Some(2)));
    second.ask(&["off", "vm2"]).is_done("off", false);
    assert_eq!(status(&uuid), ("off".to_owned(), Some(2)));
    second.ask(&["on", &uuid]).is_done("on", false);
    second.ask(&["reboot", "vm2"]).is_done("rebooted", false);
    assert_eq!(status("vm2"), ("on".to_owned(), Some(0)));
    for denied in [["off", "stranger"], ["off", "vm1"], ["status", "stranger"], ["reboot", "nobody-of-that-name"]] {
        let said = second.ask(&denied);
        assert_eq!((said.text("said"), said.code), ("denied", Some(1)), "{denied:?}");
    }

    let shown = daemon.status().0["channels"][0].clone();
    assert_eq!((&shown["wire"], &shown["session"]), (&"native_keyless".into(), &true.into()), "{shown:#}");
    let records = daemon.stop_and_read_records();
    let text = |record: &Value, field: &str| record[field].as_str().unwrap_or("").to_owned();
    let of = |record: &Value| ["action", "target", "outcome"].map(|field| text(record, field));
    assert!(records.iter().all(|record| record["requester"] == "vm1"));
    // The first is the bed's own monitor.
    let lines: Vec<[String; 3]> = records[1..].iter().map(of).collect();
    let lines: Vec<[&str; 3]> = lines.iter().map(|line| line.each_ref().map(String::as_str)).collect();
    let expected = [
        ["monitor", "", "alive"],
        ["monitor", "", "alive"],
        ["status", "vm2", "is on"],
        ["status", "stopped", "is off"],
        ["off", "vm2", "confirmed off"],
        ["status", &uuid, "is off"],
        ["on", &uuid, "on"],
        ["reboot", "vm2", "confirmed off, then started"],
        ["status", "vm2", "is on"],
        ["off", "stranger", "denied"],
        ["off", "vm1", "denied"],
        ["status", "stranger", "denied"],
        ["reboot", "nobody-of-that-name", "denied"],
    ];
    assert_eq!(lines, expected);
}

/// What fence-virt's wire cannot have there.
#[test]
fn a_virtio_port_fences() {
    let setup = Daemon::setup().served_by_virtio([Guest::new("vm1")]).known([Guest::new("vm2")]).wire(KEYLESS);
    let mut daemon = setup.start();
    let second = Second::connecting(&daemon.socket_path("vm1")).keyless();
    second.ask(&["off", "vm2"]).is_done("off", false);
}

#[test]
fn without_the_configurations_word_nobody_is_answered_keyless() {
    let mut daemon = Daemon::serve(["vm1", "vm2"].map(Guest::new));
    Second::connecting(&daemon.socket_path("vm1")).keyless().ask(&["--timeout", "1", "off", "vm2"]).is_nothing();
    daemon.stop_and_expect_no_act();
}

/// QEMU listens, and the bridge connects when it can; or the bridge listens.
#[test]
fn channels_of_both_kinds() {
    let setup = Daemon::setup().known(["vm1", "vm2"].map(Guest::new)).wire(KEYLESS);
    let (here, there) = (setup.folder().join("here.sock"), setup.folder().join("there.sock"));
    let _daemon = setup.channel("unix", &here, "vm1").channel("unix-listen", &there, "vm2").start();
    for second in [Second::listening(&here), Second::connecting(&there)] {
        let second = second.keyless();
        assert_eq!(second.ask(&["monitor"]).code, Some(0));
        assert_eq!(second.ask(&["list"]).code, Some(0), "and once more, on a new connection");
    }
}

#[test]
fn a_list_has_every_guest_once_in_the_order_of_uuids() {
    let long = Guest::new(&"l".repeat(64)).state(State::Shutoff);
    let mut crowd: Vec<Guest> = (1..60).map(|number| Guest::new(&format!("guest-{number:057}"))).collect();
    crowd[7] = Guest::new("a name with blänks").state(State::Crashed);
    crowd.push(long.clone());
    let uuids: Vec<String> = crowd.iter().map(|guest| guest.uuid_text().to_owned()).collect();
    let members: Vec<&str> = uuids.iter().map(String::as_str).chain(["asker"]).collect();
    let served = ["asker", "paired", "alone"].map(Guest::new);
    let setup = Daemon::setup().served(served).known([Guest::new("other")]).known(crowd.clone()).wire(KEYLESS);
    let setup = setup.group("crowd", &members, "").group("pair", &["paired", "other"], "").group("one", &["alone"], "");
    let mut daemon = setup.start();
    let list = |daemon: &mut Daemon, guest: &str| {
        let said = Second::connecting(&daemon.socket_path(guest)).keyless().ask(&["list"]);
        assert_eq!((said.text("said"), said.code), ("list", Some(0)));
        said.outcome["guests"].as_array().expect("guests").clone()
    };
    let field = |guest: &Value, field: &str| guest[field].as_str().expect("a text").to_owned();

    assert_eq!(list(&mut daemon, "alone"), Vec::<Value>::new());
    let pair = list(&mut daemon, "paired");
    assert_eq!(pair.iter().map(|guest| field(guest, "name")).collect::<Vec<_>>(), ["other"]);

    let listed = list(&mut daemon, "asker");
    let by_uuid: BTreeMap<&str, &Guest> = crowd.iter().map(|guest| (guest.uuid_text(), guest)).collect();
    assert_eq!(
        listed.iter().map(|guest| field(guest, "uuid")).collect::<Vec<_>>(),
        by_uuid.keys().copied().collect::<Vec<_>>(),
        "all 60, once, in order"
    );
    for entry in &listed {
        let guest = by_uuid[field(entry, "uuid").as_str()];
        let name = if guest.name() == long.name() { "" } else { guest.name() };
        let runs = match guest.current_state() {
            State::Shutoff => "off",
            State::Crashed => "unknown",
            _ => "on",
        };
        assert_eq!((field(entry, "name").as_str(), field(entry, "runs").as_str()), (name, runs));
    }
}

/// One after the other, on one connection.
#[test]
fn both_wires_in_turn() {
    let mut daemon = Daemon::setup().served(["vm1", "vm2"].map(Guest::new)).wire(KEYLESS).start();
    let mut vm1 = daemon.channel("vm1");
    for _ in 0..3 {
        ask_over(&mut vm1, None, &["off", "vm2"], identity).0.is_done("off", false);
        assert_eq!(ask(&mut vm1, STATUS, "vm2"), IS_OFF);
        assert_eq!(ask(&mut vm1, ON, "vm2"), SUCCESS);
        assert_eq!(ask_over(&mut vm1, None, &["status", "vm2"], identity).0.text("runs"), "on");
    }
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
}

/// A frame of fence-virt's before every frame of ours: neither loses an answer.
#[test]
fn both_wires_at_once() {
    let mut daemon = Daemon::setup().served(["vm1", "vm2", "vm3"].map(Guest::new)).wire(KEYLESS).start();
    let mut vm1 = daemon.channel("vm1");
    for [action, target] in [["status", "vm2"], ["off", "vm2"], ["on", "vm2"], ["reboot", "vm2"]] {
        let mut asked = 0;
        let (said, heard) = ask_over(&mut vm1, None, &[action, target], |bytes| {
            asked += 1;
            [&request(STATUS, b"vm3", fresh_seqno())[..], &bytes].concat()
        });
        assert_eq!(said.code, Some(0), "{said:?}");
        let answer = [&MAGIC[..], &[SUCCESS]].concat();
        let mut answers = heard.windows(answer.len()).filter(|bytes| *bytes == answer).count();
        // The client may have ended before the last of them came.
        while answers < asked {
            assert_eq!(vm1.read(answer.len(), DEADLINE), answer);
            answers += 1;
        }
        assert_eq!(answers, asked);
    }
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS);
}

/// All that a guest ever said, said again by somebody who has recorded it: in the same session, in the same connection
/// after another session, and in a new one.
#[test]
fn a_recording_does_nothing() {
    let setup = Daemon::setup().known(["vm1", "vm2"].map(Guest::new)).wire(KEYLESS);
    let path = setup.folder().join("vm1.sock");
    let mut daemon = setup.channel("unix-listen", &path, "vm1").start();
    let mut vm1 = GuestChannel::connect(&path, DEADLINE);
    let mut recording = Vec::new();
    let (said, _) = ask_over(&mut vm1, None, &["off", "vm2"], |bytes| {
        recording.extend_from_slice(&bytes);
        bytes
    });
    said.is_done("off", false);
    let replay = |vm1: &mut GuestChannel| {
        vm1.send(&recording);
        // The hello in it is good, and gets a welcome, whose session nobody can speak in.
        let came = vm1.read_up_to(1 << 10, Duration::from_millis(500));
        assert!(came.len() < 60, "a welcome and nothing else: {} bytes", came.len());
    };
    replay(&mut vm1);
    daemon.wait_for_log("a frame that proves nothing");
    ask_over(&mut vm1, None, &["on", "vm2"], identity).0.is_done("on", false);
    for _ in 0..2 {
        replay(&mut vm1);
        assert_eq!(ask_over(&mut vm1, None, &["status", "vm2"], identity).0.text("runs"), "on");
        vm1.reconnect(DEADLINE);
    }
    let records = daemon.stop_and_read_records();
    assert_eq!(records.iter().filter(|record| record["action"] == "off").count(), 1);
}

/// Each frame twice, or every other one lost: the request is done once, and answered.
#[test]
fn a_channel_that_repeats_and_one_that_loses() {
    let mut daemon = Daemon::setup().served(["vm1", "vm2"].map(Guest::new)).wire(KEYLESS).start();
    let mut vm1 = daemon.channel("vm1");
    ask_over(&mut vm1, None, &["off", "vm2"], |bytes| bytes.repeat(2)).0.is_done("off", false);
    let mut sent = 0;
    let (said, _) = ask_over(&mut vm1, None, &["on", "vm2"], |bytes| {
        sent += 1;
        // Half of it: a zero is in it somewhere, and the other half is in no frame.
        if sent % 2 == 1 { bytes[..bytes.len() / 2].to_vec() } else { bytes }
    });
    said.is_done("on", false);
    assert!(sent >= 4, "a hello and a request, twice each: {sent}");
    let records = daemon.stop_and_read_records();
    assert_eq!(records.iter().filter(|record| record["repeated"] == true).count(), 0);
}
