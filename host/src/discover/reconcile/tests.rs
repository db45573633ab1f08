use super::*;

const A: Uuid = Uuid::from_bytes([0xa; 16]);
const B: Uuid = Uuid::from_bytes([0xb; 16]);

fn rules() -> Rules {
    Rules { virtio_name: Some("x".to_owned()), directory: Some("/run/fence".into()), owners: vec![] }
}

fn named(path: &str) -> Port {
    let source = Source::Listens { path: path.into(), real: path.into() };
    Port { what: "channel \"x\"".to_owned(), is_named: true, is_inside: false, port: PortType::Virtio, source }
}

fn serial(path: &str) -> Port {
    let what = "serial port 1".to_owned();
    Port { what, is_named: false, is_inside: true, port: PortType::Serial, ..named(path) }
}

fn live(name: &str, ports: impl Into<Vec<Port>>) -> Live {
    Live { name: name.to_owned(), ports: Ok(ports.into()) }
}

fn of(guests: &[(Uuid, &Live)], configured: &[&str]) -> Wanted {
    let guests = guests.iter().map(|(uuid, live)| Guest { at: (0, *uuid), live, is_young: false });
    wanted(guests, &configured.iter().map(PathBuf::from).collect(), &rules())
}

fn paths(wanted: &Wanted) -> Vec<&str> {
    wanted.places.values().map(|place| place.path.to_str().unwrap()).collect()
}

#[track_caller]
fn refused(port: Port) -> String {
    let wanted = of(&[(A, &live("a", [port])), (B, &live("b", [named("/b")]))], &[]);
    assert_eq!(paths(&wanted), ["/b"], "the other guest is served");
    let lines: Vec<_> = wanted.refused.into_iter().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(&format!("guest a ({A}): ")), "{lines:?}");
    lines[0].clone()
}

#[test]
fn every_port_of_every_guest_is_served_as_what_it_is() {
    let two = live("a", [named("/a1"), named("/a2"), serial("/run/fence/a")]);
    let wanted = of(&[(A, &two), (B, &live("b", [named("/b")]))], &[]);
    assert_eq!(paths(&wanted), ["/a1", "/a2", "/b", "/run/fence/a"]);
    assert!(wanted.refused.is_empty() && wanted.remarks.is_empty(), "{wanted:?}");
    let serial = &wanted.places[Path::new("/run/fence/a")];
    assert_eq!((serial.at, serial.port, serial.is_confined), ((0, A), PortType::Serial, true));
    let virtio = &wanted.places[Path::new("/b")];
    assert_eq!((virtio.at, virtio.port, virtio.is_confined), ((0, B), PortType::Virtio, false));
}

#[test]
fn a_channel_of_the_configuration_is_served_by_that() {
    let wanted = of(&[(A, &live("a", [named("/a")])), (B, &live("b", [named("/b")]))], &["/a"]);
    assert_eq!(paths(&wanted), ["/b"]);
    assert!(wanted.refused.is_empty() && wanted.remarks.iter().all(|line| line.contains("/a")), "{wanted:?}");
    assert_eq!(wanted.remarks.len(), 1);
}

#[test]
fn a_socket_of_two_guests_is_served_for_neither_and_both_are_named() {
    let (a, b) = (live("a", [named("/same"), named("/a")]), live("b\n", [named("/same")]));
    let wanted = of(&[(A, &a), (B, &b)], &[]);
    assert_eq!(paths(&wanted), ["/a"]);
    let line = wanted.refused.first().unwrap();
    assert_eq!(wanted.doubtful, BTreeSet::from([(0, A), (0, B)]));
    assert!(line.contains(&format!("a ({A}), b\\n ({B})")) && line.contains("/same"), "{line}");
    // By whatever way they come there.
    let linked = Port { source: Source::Listens { path: "/link/same".into(), real: "/same".into() }, ..named("") };
    assert_eq!(paths(&of(&[(A, &a), (B, &live("b", [linked]))], &[])), ["/a"]);
    // One guest may have it twice, or on two hypervisors while it goes from one to the other.
    assert_eq!(paths(&of(&[(A, &live("a", [named("/same"), named("/same")]))], &[])), ["/same"]);
    let twice = [0, 1].map(|node| Guest { at: (node, A), live: &a, is_young: false });
    assert_eq!(super::wanted(twice, &BTreeSet::new(), &rules()).places.len(), 2);
    // Of a thousand not all are named.
    let many: Vec<_> = (0..1_000_u128).map(|n| (Uuid::from_bytes(n.to_be_bytes()), &a)).collect();
    let wanted = of(&many, &[]);
    assert!(wanted.places.is_empty() && wanted.refused.iter().all(|line| line.len() < 1_000), "{wanted:?}");
    assert!(wanted.refused.iter().all(|line| line.contains("and 996 more")));
}

#[test]
fn what_cannot_be_served_is_refused_in_a_line_that_says_what_to_do() {
    assert!(refused(named("a.sock")).contains("relative"));
    assert!(refused(named("/run/../a.sock")).contains("\"..\""));
    assert!(refused(named(&format!("/{}", "a".repeat(107)))).contains("107 bytes"));
    assert!(refused(serial("/run/fence/../a.sock")).contains("\"..\""));
    let out = Port { is_inside: false, ..serial("/run/fence/link/a.sock") };
    assert!(refused(out).contains("leads out of discover.directory (/run/fence)"));
    let with = |source| Port { source, ..named("") };
    assert!(refused(with(Source::Missing)).contains("names no socket"));
    assert!(refused(with(Source::Calls("/c".into()))).contains("unix-listen"));
    assert!(refused(with(Source::Other("pty".to_owned()))).contains("type='pty'"));
    // As long as a path can be.
    let long = format!("/{}", "a".repeat(106));
    assert_eq!(paths(&of(&[(A, &live("a", [named(&long)]))], &[])), [long.as_str()]);
}

#[test]
fn xml_that_cannot_be_understood_costs_its_guest_alone() {
    let wanted = of(
        &[(A, &Live { name: "a".to_owned(), ports: Err("broken".to_owned()) }), (B, &live("b", [named("/b")]))],
        &[],
    );
    assert_eq!(paths(&wanted), ["/b"]);
    assert!(wanted.refused.first().unwrap().contains("broken"));
}

#[test]
fn what_a_guest_lacks_at_first_is_not_said() {
    let live = live("a", [Port { source: Source::Missing, ..named("") }]);
    let at = |is_young| wanted([Guest { at: (0, A), live: &live, is_young }], &BTreeSet::new(), &rules());
    assert!(at(true).refused.is_empty());
    assert_eq!(at(false).refused.len(), 1);
}

#[test]
fn a_guest_has_so_many_channels_and_no_more() {
    let many: Vec<_> = (0..2_000).map(|number| named(&format!("/a{number:04}"))).collect();
    let wanted = of(&[(A, &live("a", many)), (B, &live("b", [named("/b")]))], &[]);
    assert_eq!((wanted.places.len(), wanted.refused.len()), (PORTS_MAX + 1, 1));
    assert!(wanted.refused.first().unwrap().contains("more than 16"));
}

#[test]
fn only_what_differs_changes() {
    let served = of(&[(A, &live("a", [named("/a")])), (B, &live("b", [named("/b")]))], &[]).places;
    assert_eq!(changes(&served, &served), Changes::default());
    let renamed = of(&[(A, &live("new", [named("/a")])), (B, &live("b", [named("/b")]))], &[]).places;
    assert_eq!(changes(&served, &renamed), Changes::default());
    // Another guest's, another way, gone, new.
    let swapped = of(&[(B, &live("b", [named("/a")]))], &[]).places;
    let changed = changes(&served, &swapped);
    assert_eq!(changed.gone, [Path::new("/a"), Path::new("/b")]);
    assert_eq!(
        changed.new.iter().map(|(real, place)| (real.as_path(), place.at.1)).collect::<Vec<_>>(),
        [(Path::new("/a"), B)]
    );
    let serial = of(&[(A, &live("a", [serial("/a")])), (B, &live("b", [named("/b")]))], &[]).places;
    assert_eq!(changes(&served, &serial).gone, [Path::new("/a")]);
    assert_eq!(changes(&BTreeMap::new(), &served).new.len(), 2);
    assert_eq!(changes(&served, &BTreeMap::new()).gone.len(), 2);
}
