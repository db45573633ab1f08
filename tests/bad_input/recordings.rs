//! Who calls a TCP port without the key, with what it has heard of others' conversations.

use fencewire_core::classic::key::TAG_LEN;
use fencewire_core::classic::packet::{REQUEST_LEN, RequestPacket};
use fencewire_tests::caller::CHALLENGE;
use fencewire_tests::daemon::{Daemon, acts};
use fencewire_tests::guest_channel::{OFF, ON, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::process::DEADLINE;
use fencewire_tests::tcp_channel::TcpChannel;

/// A daemon with two ports of one key, as two hosts would be; and the recording of an "off" that was done, and undone.
struct Bed {
    daemon: Daemon,
    ports: [TcpChannel; 2],
    said: Vec<u8>,
    heard: Vec<u8>,
}

impl Bed {
    #[track_caller]
    fn start() -> Self {
        let guests = ["vm1", "vm2"].map(Guest::new);
        let daemon = Daemon::setup().known(guests).tcp("everybody", "").tcp("everybody", "").start();
        let ports = [daemon.tcp(0).clone(), daemon.tcp(1).clone()];
        let off = ports[0].terms.packet(OFF, "vm2");
        let mut caller = ports[0].call();
        let challenge = caller.challenged(&off);
        let proof = ports[0].terms.proof(&challenge);
        caller.send(&proof);
        let code = caller.reply();
        assert_eq!((code, ports[0].ask(ON, "vm2")), (SUCCESS, SUCCESS));
        let said = [&off[..], &CHALLENGE, &proof].concat();
        let heard = [&ports[0].terms.proof(&CHALLENGE)[..], &challenge, &[code]].concat();
        Self { daemon, ports, said, heard }
    }

    fn packet(&self) -> RequestPacket {
        *self.said.first_chunk().expect("the packet comes first")
    }

    /// Says that what was recorded is all that was done, whatever was done with it.
    #[track_caller]
    fn nothing_more_was_done(mut self) {
        for port in &self.ports {
            assert_eq!(port.ask(STATUS, "vm2"), SUCCESS, "still on");
        }
        let records = self.daemon.stop_and_read_records();
        let acts: Vec<_> = acts(&records).iter().map(|record| record["action"].as_str().unwrap_or_default()).collect();
        assert_eq!(acts, ["off", "on"], "{records:#?}");
    }
}

#[test]
fn a_recording_of_a_whole_conversation() {
    let bed = Bed::start();
    for port in &bed.ports {
        for piece in [bed.said.len(), REQUEST_LEN + TAG_LEN, REQUEST_LEN, 64, 1] {
            let mut caller = port.call();
            for piece in bed.said.chunks(piece) {
                // The bridge closes when it has heard enough.
                let _ = caller.try_send(piece);
            }
            let heard = caller.expect_end(DEADLINE).len();
            assert!([0, 2 * TAG_LEN].contains(&heard), "a proof and a challenge, if that, and no code: {heard} bytes");
        }
    }
    bed.daemon.wait_for_log("it sends a recording");
    bed.nothing_more_was_done();
}

/// A recorded request, and as its proof whatever else was heard.
#[test]
fn a_recorded_request_with_a_recorded_proof() {
    let bed = Bed::start();
    let (port, all) = (&bed.ports[0], [&bed.said[..], &bed.heard].concat());
    // Each place at which one of the parts begins, and some in between.
    for from in (0..all.len() - TAG_LEN).step_by(16) {
        let mut caller = port.call();
        caller.challenged(&bed.packet());
        caller.send(&all[from..from + TAG_LEN]);
        caller.expect_nothing();
    }
    bed.nothing_more_was_done();
}

/// Who sends the bridge's challenge back, on another connection, would hear the proof that it needs.
#[test]
fn a_challenge_of_the_bridges_own() {
    let bed = Bed::start();
    for (asked, reflected) in [(0, 0), (0, 1), (1, 0)] {
        let mut first = bed.ports[asked].call();
        let challenge = first.challenged(&bed.packet());
        let mut second = bed.ports[reflected].call();
        second.send(&[&bed.packet()[..], &challenge].concat());
        second.expect_nothing();
        // Nor on the same connection, as its own proof.
        first.send(&challenge);
        first.expect_nothing();
        let line = bed.daemon.wait_for_log("somebody tries to pass for a holder of the key");
        assert!(line.contains("ERROR"), "{line}");
    }
    // A recorded one, likewise.
    let mut caller = bed.ports[1].call();
    caller.send(&[&bed.packet()[..], &bed.heard[TAG_LEN..2 * TAG_LEN]].concat());
    caller.expect_nothing();
    bed.nothing_more_was_done();
}
