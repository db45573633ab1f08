//! The bridge on the programmable hypervisor: by reading again alone, and by events that come, come late, come wrongly or
//! not at all.

use std::thread;
use std::time::Duration;

use fencewire_core::listener::SETTLE;
use fencewire_tests::bridge_bed::{BridgeBed, reconnect, settle};
use fencewire_tests::daemon::ask;
use fencewire_tests::guest_channel::{GuestChannel, IS_OFF, OFF, REBOOT, STATUS, SUCCESS, fresh_seqno, request};
use fencewire_tests::process::DEADLINE;
use fencewire_tests::scripted::{Call, ScriptedHypervisor};
use fencewired::power::hypervisor::{Happening, State};

use crate::common::{channel, connected, serial, uuid};

/// Nothing is found in that time which is not to be found.
const NEVER: Duration = Duration::from_millis(700);

/// Guests of these names, the first of them with a channel.
fn with_channel(names: &[&str]) -> (ScriptedHypervisor, GuestChannel) {
    let hypervisor = ScriptedHypervisor::with(names.iter().copied());
    let end = GuestChannel::listen();
    hypervisor.change(names[0], |guest| guest.devices = channel(end.path()));
    (hypervisor, end)
}

fn start(hypervisor: &ScriptedHypervisor) -> BridgeBed {
    BridgeBed::setup(hypervisor).wire("classic = true\nclassic_virtio = true").discover("").launch()
}

#[test]
fn a_channel_is_found_with_nothing_configured_and_fences() {
    let (hypervisor, mut vm1) = with_channel(&["vm1", "vm2"]);
    hypervisor.tells_nothing();
    let _bed = start(&hypervisor);
    reconnect([&mut vm1]);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
    assert_eq!(hypervisor.done_to("vm2"), [Call::Destroy]);
}

/// A guest that is known by its UUID alone: what its channel says is who it is.
#[test]
fn who_asks_is_the_guest_in_whose_xml_the_channel_is() {
    let (hypervisor, mut vm1) = with_channel(&["vm1", "vm2"]);
    let mut vm2 = GuestChannel::listen();
    hypervisor.change("vm2", |guest| guest.devices = channel(vm2.path()));
    let bed = BridgeBed::setup(&hypervisor)
        .discover("")
        .group("one", &["vm1"], "allow_self = true")
        .group("other", &["vm2"], "allow_self = true")
        .wire("classic = true\nclassic_virtio = true")
        .launch();
    reconnect([&mut vm1, &mut vm2]);
    assert_ne!(ask(&mut vm1, STATUS, "vm2"), SUCCESS);
    assert_eq!(ask(&mut vm1, STATUS, "vm1"), SUCCESS);
    assert_eq!(ask(&mut vm2, STATUS, "vm2"), SUCCESS);
    drop(bed);
}

/// No event says so; but a list of guests is made every 2 s as long as one of the configuration's is not there.
#[test]
fn a_guest_that_comes_later_is_found_without_events() {
    let hypervisor = ScriptedHypervisor::with(["vm1"]);
    hypervisor.tells_nothing();
    let _bed = BridgeBed::setup(&hypervisor)
        .discover("")
        .group("all", &["vm1", "vm2"], "")
        .wire("classic = true\nclassic_virtio = true")
        .launch();
    hypervisor.wait_for(Call::Xml, "vm1", 1, DEADLINE);
    let mut vm2 = GuestChannel::listen();
    hypervisor.add("vm2", &uuid("vm2").to_string());
    hypervisor.change("vm2", |guest| guest.devices = channel(vm2.path()));
    reconnect([&mut vm2]);
    assert_eq!(ask(&mut vm2, STATUS, "vm1"), SUCCESS);
}

/// A device that is plugged in and out again, and one at another path.
#[test]
fn an_event_has_the_guest_looked_at_and_what_it_has_is_served() {
    let (hypervisor, mut first) = with_channel(&["vm1", "vm2"]);
    let _bed = start(&hypervisor);
    connected(&mut first);
    let mut second = GuestChannel::listen();
    hypervisor.change("vm1", |guest| guest.devices += &channel(second.path()));
    hypervisor.tell(Happening::Changed(uuid("vm1")));
    connected(&mut second);
    settle([&mut second]);
    assert_eq!(ask(&mut second, STATUS, "vm2"), SUCCESS);
    let only_second = channel(second.path());
    hypervisor.change("vm1", |guest| guest.devices = only_second);
    hypervisor.tell(Happening::Changed(uuid("vm1")));
    first.expect_end(DEADLINE);
    assert_eq!(ask(&mut second, STATUS, "vm2"), SUCCESS, "that one was not touched");
}

/// A bridge whose target is destroyed and started by itself keeps the target's channel.
#[test]
fn a_guest_that_is_rebooted_is_served_again() {
    let (hypervisor, mut vm1) = with_channel(&["vm1", "vm2"]);
    let mut vm2 = GuestChannel::listen();
    hypervisor.change("vm2", |guest| guest.devices = channel(vm2.path()));
    let _bed = start(&hypervisor);
    reconnect([&mut vm1, &mut vm2]);
    assert_eq!(ask(&mut vm1, REBOOT, "vm2"), SUCCESS);
    vm2.close();
    reconnect([&mut vm2]);
    assert_eq!(ask(&mut vm2, STATUS, "vm1"), SUCCESS);
}

/// Its end closed, and it does not run: the path may be anybody's now, so nobody is connected there in its name.
#[test]
fn a_path_whose_guest_has_ended_is_not_connected_again() {
    let (hypervisor, mut vm1) = with_channel(&["vm1", "vm2"]);
    hypervisor.tells_nothing();
    let _bed = start(&hypervisor);
    connected(&mut vm1);
    hypervisor.change("vm1", |guest| guest.state = State::Off);
    vm1.close();
    assert!(!vm1.accept_within(NEVER));
    hypervisor.change("vm1", |guest| guest.state = State::Running);
    assert_eq!(hypervisor.guest("vm1").map(|guest| guest.state), Some(State::Running));
}

/// The socket is there long after its guest was looked at, and the hypervisor does not say whether that is still so: what
/// comes on it may be anybody's, and does nothing.
#[test]
fn what_comes_before_it_is_known_who_it_is_does_nothing() {
    let (hypervisor, mut vm1) = with_channel(&["vm1", "vm2"]);
    hypervisor.tells_nothing();
    vm1.vanish();
    let _bed = start(&hypervisor);
    hypervisor.wait_for(Call::Xml, "vm1", 1, DEADLINE);
    // Older than a second is what is known of it then.
    thread::sleep(Duration::from_millis(1_100));
    let gate = hypervisor.hold_all(Call::Xml);
    vm1.listen_again();
    connected(&mut vm1);
    thread::sleep(Duration::from_millis(SETTLE.0 + 50));
    vm1.send(&request(OFF, b"vm2", fresh_seqno()));
    vm1.expect_silence(NEVER);
    gate.open();
    settle([&mut vm1]);
    assert_eq!(hypervisor.done_to("vm2"), []);
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS);
}

/// The path goes from one guest to another: who asks there from then on is the other.
#[test]
fn a_path_that_another_guest_has_by_now_is_that_guests() {
    let (hypervisor, mut end) = with_channel(&["vm1", "vm2", "vm3"]);
    let _bed = BridgeBed::setup(&hypervisor)
        .wire("classic = true\nclassic_virtio = true")
        .discover("")
        .group("one", &["vm1"], "allow_self = true")
        .group("others", &["vm2", "vm3"], "")
        .launch();
    reconnect([&mut end]);
    assert_ne!(ask(&mut end, STATUS, "vm3"), SUCCESS);
    let devices = channel(end.path());
    hypervisor.change("vm1", |guest| (guest.state, guest.devices) = (State::Off, String::new()));
    hypervisor.change("vm2", |guest| guest.devices = devices);
    hypervisor.tell(Happening::Changed(uuid("vm2")));
    end.close();
    reconnect([&mut end]);
    assert_eq!(ask(&mut end, STATUS, "vm3"), SUCCESS);
}

/// Its XML names no socket when the guest is said to have started; a moment later it does.
#[test]
fn a_socket_that_is_not_in_the_xml_at_once_is_waited_for() {
    let hypervisor = ScriptedHypervisor::with(["vm1", "vm2"]);
    hypervisor.change("vm1", |guest| guest.state = State::Off);
    let _bed = start(&hypervisor);
    hypervisor.wait_for(Call::Xml, "vm2", 1, DEADLINE);
    hypervisor.change("vm1", |guest| {
        guest.state = State::Running;
        guest.devices =
            "<channel type='unix'><target type='virtio' name='org.fencewire.fence.0'/></channel>".to_owned();
    });
    let before = hypervisor.count(Call::Xml, "vm1");
    hypervisor.tell(Happening::Started(uuid("vm1")));
    hypervisor.wait_for(Call::Xml, "vm1", before + 2, DEADLINE);
    let mut end = GuestChannel::listen();
    hypervisor.change("vm1", |guest| guest.devices = channel(end.path()));
    connected(&mut end);
}

/// It is marked when the event says that it was started, not at the next look around.
#[test]
fn a_run_is_marked_when_an_event_says_that_it_has_begun() {
    let (hypervisor, mut vm1) = with_channel(&["vm1", "vm2"]);
    let _bed = start(&hypervisor);
    connected(&mut vm1);
    hypervisor.wait_marked();
    hypervisor.change("vm2", |guest| guest.runs += 1);
    hypervisor.tell(Happening::Started(uuid("vm2")));
    hypervisor.wait_marked();
}

/// It takes what it is asked and does not answer: the guests of the other are found and served, and its own when it does.
#[test]
fn a_silent_hypervisor_costs_the_guests_of_another_nothing() {
    let (silent, mut late) = with_channel(&["vm1"]);
    let (other, mut vm2) = with_channel(&["vm2", "vm3"]);
    let gate = silent.hold_all(Call::Xml);
    let _bed = BridgeBed::setup(&silent)
        .beside(&other)
        .discover("")
        .group("all", &["vm1", "vm2", "vm3"], "")
        .wire("classic = true\nclassic_virtio = true")
        .launch();
    reconnect([&mut vm2]);
    assert_eq!(ask(&mut vm2, OFF, "vm3"), SUCCESS);
    let mut more = GuestChannel::listen();
    other.change("vm3", |guest| (guest.state, guest.devices) = (State::Running, channel(more.path())));
    other.tell(Happening::Started(uuid("vm3")));
    connected(&mut more);
    assert!(!late.accept_within(Duration::ZERO));
    gate.open();
    connected(&mut late);
}

/// What is served stays while the hypervisor cannot be asked, and all is looked at when it can.
#[test]
fn a_hypervisor_that_comes_back_is_looked_at_at_once() {
    let (hypervisor, mut vm1) = with_channel(&["vm1", "vm2", "vm3"]);
    let _bed = start(&hypervisor);
    reconnect([&mut vm1]);
    hypervisor.unreachable_after(0);
    hypervisor.tell(Happening::Changed(uuid("vm1")));
    let mut vm2 = GuestChannel::listen();
    hypervisor.change("vm2", |guest| guest.devices = channel(vm2.path()));
    assert_ne!(ask(&mut vm1, STATUS, "vm2"), SUCCESS, "its channel is open");
    hypervisor.reachable();
    hypervisor.tell(Happening::Returned);
    connected(&mut vm2);
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS);
}

/// One whose XML cannot be had, for a reason of its own.
#[test]
fn a_guest_whose_xml_fails_or_is_nonsense_costs_no_other() {
    let (hypervisor, mut vm1) = with_channel(&["vm1", "vm2", "vm3", "vm4"]);
    hypervisor.change("vm2", |guest| guest.xml = Some("<domain id='1'><devices>".to_owned()));
    hypervisor.change("vm3", |guest| guest.xml = Some("<domain id='1'/>".to_owned()));
    let many = "<disk type='file'><source file='/a'/></disk>".repeat(10_000);
    hypervisor.change("vm4", |guest| guest.devices = many);
    let _bed = start(&hypervisor);
    reconnect([&mut vm1]);
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), SUCCESS);
    // What is right again is served.
    let mut vm2 = GuestChannel::listen();
    hypervisor.change("vm2", |guest| (guest.xml, guest.devices) = (None, channel(vm2.path())));
    hypervisor.tell(Happening::Changed(uuid("vm2")));
    connected(&mut vm2);
}

/// The same socket in two guests' XML is neither's; when one of them is off it is the other's.
#[test]
fn a_socket_of_two_guests_is_nobodys_as_long_as_both_run() {
    let (hypervisor, mut end) = with_channel(&["vm1", "vm2"]);
    let mut other = GuestChannel::listen();
    hypervisor.change("vm2", |guest| guest.devices = channel(end.path()) + &channel(other.path()));
    let _bed = start(&hypervisor);
    reconnect([&mut other]);
    assert!(!end.accept_within(NEVER));
    assert_eq!(ask(&mut other, OFF, "vm1"), SUCCESS);
    hypervisor.tell(Happening::Changed(uuid("vm1")));
    reconnect([&mut end]);
    assert_eq!(ask(&mut end, STATUS, "vm1"), IS_OFF);
}

/// A reload turns on what was off, and off what was on; what is the same in both is not touched.
#[test]
fn a_reload_changes_what_is_found() {
    let (hypervisor, mut named) = with_channel(&["vm1", "vm2", "vm3"]);
    let mut other = GuestChannel::listen();
    hypervisor.change("vm2", |guest| guest.devices = serial(other.path()));
    let mut bed = start(&hypervisor);
    reconnect([&mut named]);
    assert!(!other.accept_within(Duration::ZERO));
    let directory = other.path().parent().expect("a folder").display().to_string();
    bed.reload(|text| text.replace("[discover]\n", &format!("[discover]\ndirectory = {directory:?}\n")));
    reconnect([&mut other]);
    assert_eq!(ask(&mut other, OFF, "vm3"), SUCCESS, "a serial port needs no classic_virtio");
    assert_eq!(ask(&mut named, STATUS, "vm2"), SUCCESS, "that one was not touched");
    bed.reload(|text| text.replace("[discover]\n", "[discover]\nvirtio_name = \"other.0\"\n"));
    named.expect_end(DEADLINE);
    assert_eq!(ask(&mut other, STATUS, "vm1"), SUCCESS);
}

/// A channel that is both is the configuration's: once, under the name that it has there, and a reload can give it back.
#[test]
fn a_channel_that_is_configured_too_is_served_once() {
    let (hypervisor, mut vm1) = with_channel(&["vm1", "vm2"]);
    let section = format!("[[channel]]\nkind = \"unix\"\npath = {:?}\nguest = \"vm1\"\n", vm1.path());
    let mut bed = BridgeBed::setup(&hypervisor).discover("").wire(&format!("classic = true\n{section}")).launch();
    reconnect([&mut vm1]);
    assert!(!vm1.is_called_again(NEVER), "it is connected once");
    assert_eq!(ask(&mut vm1, OFF, "vm2"), SUCCESS, "as the serial port that the configuration says it is");
    bed.reload(|text| text.replace(&section, ""));
    reconnect([&mut vm1]);
    assert_eq!(ask(&mut vm1, STATUS, "vm2"), IS_OFF);
}
