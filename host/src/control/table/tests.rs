use super::*;
use crate::control::snapshot::{ChannelGuest, GuestStatus, LaneStatus, RecordsStatus, VERSION};

fn sample() -> Snapshot {
    let uuid = "b33f94f9-8a30-4e83-9165-fd8681ee13cf".to_owned();
    let errand = |action: &str, for_ms| Errand { action: action.to_owned(), requester: "vm1".to_owned(), for_ms };
    Snapshot {
        version: VERSION,
        program: "0.1.0".to_owned(),
        pid: 7,
        state: Serving::Serving,
        for_ms: 3_725_000,
        all_served: false,
        hypervisors: vec![HypervisorStatus {
            uri: "qemu:///system".to_owned(),
            state: Reach::Unreachable,
            for_ms: 61_000,
            why: Some("unreachable: no\nsocket".to_owned()),
            asked_ms_ago: None,
            guests: 1,
            power: Workers { threads: 5, busy: 1, set_aside: 1, waiting: 2 },
            queries: Workers { threads: 2, ..Workers::default() },
        }],
        guests: vec![GuestStatus { name: "vm1".to_owned(), uuid: uuid.clone(), power: "on".to_owned() }],
        channels: vec![ChannelStatus {
            name: "/run/fence/vm1.sock".to_owned(),
            transport: "unix".to_owned(),
            guest: Some(ChannelGuest {
                bound: "vm1".to_owned(),
                name: Some("vm1".to_owned()),
                uuid: Some(uuid.clone()),
            }),
            group: None,
            state: Link::NotConnected,
            why: Some("No such file".to_owned()),
            for_ms: 999,
            connections: 0,
            heard_ms_ago: Some(90_000_000),
            asked_ms_ago: None,
            wire: Wire::NativeKeyed,
            session: false,
            served: false,
        }],
        lanes: vec![LaneStatus {
            name: Some("vm2".to_owned()),
            uuid: uuid.clone(),
            running: Some(errand("reboot", 1_500)),
            joined: 1,
            waiting: vec![errand("on", 20)],
        }],
        fences: vec![Fence {
            ms_ago: 7_200_000,
            channel: "/run/fence/vm1.sock".to_owned(),
            requester: "vm1".to_owned(),
            action: "off".to_owned(),
            target: Some("vm2".to_owned()),
            uuid: Some(uuid),
            outcome: "confirmed off".to_owned(),
            why: None,
            repeated: true,
            took_ms: 210,
        }],
        records: RecordsStatus { required: true, written: false },
    }
}

#[test]
fn all_that_matters_is_in_the_table() {
    let shown = table(&sample());
    for line in [
        "fencewired 0.1.0, process 7, serving, for 1 h 2 min",
        "records are NOT written, and power actions are refused: see records.path, and the log",
        "guests known: 1 (1 on)",
        "qemu:///system  ! unreachable: no\u{fffd}socket  1 min 1 s  1       1 of 5 busy, 1 set aside, 2 calls wait  0 of 2 busy",
        "!  /run/fence/vm1.sock  vm1 (b33f94f9-8a30-4e83-9165-fd8681ee13cf)  not connected: No such file  999 ms  1 d 1 h ago  native keyed",
        "vm2     reboot for vm1, since 1 s (and 1 more)  on for vm1, since 20 ms",
        "2 h ago      vm1  off   vm2   confirmed off (repeated)  210 ms",
        "NOT all is served: see what is marked with an exclamation mark, and the log",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\nis not in\n{shown}");
    }
    assert!(shown.lines().all(|line| line.trim_end() == line));
}

/// What programs rely on. Fields may come; these stay, as long as the version is this one.
#[test]
fn the_documents_fields_are_these() {
    let value = serde_json::to_value(sample()).unwrap();
    assert_eq!(value["version"], 1);
    let expected = serde_json::json!({
        "name": "/run/fence/vm1.sock", "transport": "unix",
        "guest": { "bound": "vm1", "name": "vm1", "uuid": "b33f94f9-8a30-4e83-9165-fd8681ee13cf" },
        "state": "not_connected", "why": "No such file", "for_ms": 999, "connections": 0,
        "heard_ms_ago": 90_000_000, "asked_ms_ago": null, "wire": "native_keyed", "session": false, "served": false,
    });
    assert_eq!(value["channels"][0], expected);
    let expected = serde_json::json!({
        "uri": "qemu:///system", "state": "unreachable", "for_ms": 61_000, "why": "unreachable: no\nsocket",
        "asked_ms_ago": null, "guests": 1,
        "power": { "threads": 5, "busy": 1, "set_aside": 1, "waiting": 2 },
        "queries": { "threads": 2, "busy": 0, "set_aside": 0, "waiting": 0 },
    });
    assert_eq!(value["hypervisors"][0], expected);
    let expected = serde_json::json!({
        "name": "vm2", "uuid": "b33f94f9-8a30-4e83-9165-fd8681ee13cf", "joined": 1,
        "running": { "action": "reboot", "requester": "vm1", "for_ms": 1_500 },
        "waiting": [{ "action": "on", "requester": "vm1", "for_ms": 20 }],
    });
    assert_eq!(value["lanes"][0], expected);
    let expected = serde_json::json!({
        "ms_ago": 7_200_000, "channel": "/run/fence/vm1.sock", "requester": "vm1", "action": "off", "target": "vm2",
        "uuid": "b33f94f9-8a30-4e83-9165-fd8681ee13cf", "outcome": "confirmed off", "repeated": true, "took_ms": 210,
    });
    assert_eq!(value["fences"][0], expected);
    assert_eq!(value["records"], serde_json::json!({ "required": true, "written": false }));
    let names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "all_served channels fences for_ms guests hypervisors lanes pid program records state version";
    assert_eq!(names.join(" "), expected);
}

#[test]
fn a_field_that_came_later_does_no_harm() {
    let mut value = serde_json::to_value(sample()).unwrap();
    value["new"] = true.into();
    value["channels"][0]["new"] = 1.into();
    assert_eq!(serde_json::from_value::<Snapshot>(value).unwrap(), sample());
}
