//! The whole agent against a stand-in: what goes out, what is said, when it ends and with which code.

use super::run;
use crate::stand_in::{Bridge, Call, StandIn};
use crate::system::{Errno, Exit, Kind, LineParams, Parity};
use fencewire_core::classic::Code;
use fencewire_core::classic::serial::{END_OF_LIST, encode_entry, encode_reply};
use fencewire_core::{ListEntry, Power, Uuid};

const OFF_VM2: &str = "-o off -n vm2 -D /dev/x";
const STATUS_VM2: &str = "-o status -n vm2 -D /dev/x";

/// What came of one run.
#[derive(Debug)]
pub(super) struct End {
    pub(super) exit: Exit,
    pub(super) output: String,
    pub(super) error: String,
    /// Milliseconds.
    pub(super) took: u64,
    pub(super) system: StandIn,
}

impl End {
    /// It failed, with one sentence that has `part` in it.
    #[track_caller]
    pub(super) fn failed(&self, part: &str) {
        assert_eq!(self.exit, Exit::Failed, "{self:?}");
        assert_eq!(self.error.matches('\n').count(), 1, "{}", self.error);
        assert!(self.error.contains(part), "{}", self.error);
    }
}

pub(super) fn agent(system: StandIn, arguments: &str) -> End {
    let mut arguments = arguments.split_whitespace().map(str::as_bytes);
    let exit = run(&system, &mut || arguments.next());
    End { exit, output: system.output(), error: system.error(), took: system.time(), system }
}

/// A virtio port at /dev/x.
fn port(bridge: Bridge) -> StandIn {
    let bridge = Bridge { not_a_tty: Some(Errno::NOTTY), ..bridge };
    StandIn::new().with("/dev/x", Kind::Device).with_bridge(bridge)
}

fn tty(bridge: Bridge) -> StandIn {
    StandIn::new().with("/dev/x", Kind::Device).with_bridge(bridge)
}

fn socket(bridge: Bridge) -> StandIn {
    StandIn::new().with("/dev/x", Kind::Socket).with_bridge(bridge)
}

/// Answers the first request, 3 ms later.
fn answering(answer: impl Into<Vec<u8>>) -> Bridge {
    Bridge { answers: vec![(3, answer.into())], ..Bridge::default() }
}

fn saying(code: Code) -> Bridge {
    answering(encode_reply(code))
}

#[test]
fn a_power_action_over_each_kind_of_channel() {
    for (system, calls, took) in [
        (port(saying(Code::Success)), &[Call::Open, Call::Lock, Call::SetLine][..], 28),
        (tty(saying(Code::Success)), &[Call::Open, Call::Lock, Call::SetLine], 28),
        (socket(saying(Code::Success)), &[Call::Connect], 3),
    ] {
        let end = agent(system, OFF_VM2);
        assert_eq!((end.exit, end.error.as_str(), end.output.as_str()), (Exit::Done, "", ""));
        assert_eq!(end.took, took);
        assert_eq!(end.system.log(), calls);
        let came = end.system.came();
        assert_eq!(came.len(), 74);
        assert_eq!(&came[..10], b"abba\x01\0vm2\0");
        assert_eq!(&came[70..], &[0x79, 0x56, 0x34, 0]);
    }
}

#[test]
fn options_may_come_on_standard_input() {
    let input = b"nodename=node2\naction=Off\nport=vm2\nserial_device=/dev/x\ncrm_feature_set=3\n#end";
    let end = agent(socket(saying(Code::Success)).with_input(input), "");
    assert_eq!((end.exit, end.error.as_str()), (Exit::Done, ""));
    assert_eq!(&end.system.came()[..10], b"abba\x01\0vm2\0");
}

#[test]
fn nothing_and_garbage_on_standard_input() {
    agent(StandIn::new(), "").failed("nothing on standard input");
    agent(StandIn::new().with_input(b"\n# only this\n"), "").failed("nothing on standard input");
    agent(StandIn::new().with_input(b"\x00\xff\xfe\nzzz\n"), "").failed("not all lines are key=value");
    agent(StandIn::new().with_input_error(Errno(9)), "").failed("it is closed");
    agent(StandIn::new().with_input_error(Errno(21)), "").failed("folder");
}

#[test]
fn status_is_the_exit_code() {
    for (code, exit, output) in [(Code::Success, Exit::Done, "Status: ON\n"), (Code::Off, Exit::Off, "Status: OFF\n")] {
        let end = agent(port(saying(code)), STATUS_VM2);
        assert_eq!((end.exit, end.output.as_str(), end.error.as_str()), (exit, output, ""));
        // Whoever does not read the words has the code all the same.
        assert_eq!(agent(port(saying(code)).with_output_room(0), STATUS_VM2).exit, exit);
    }
    agent(port(saying(Code::Failed)), STATUS_VM2).failed("cannot tell the status of 'vm2'");
    agent(port(saying(Code::Denied)), STATUS_VM2).failed("does not allow status for 'vm2' from this guest");
}

#[test]
fn a_monitor_never_ends_with_2() {
    let monitor = "-o monitor -D /dev/x";
    assert_eq!(agent(port(saying(Code::Success)), monitor).exit, Exit::Done);
    agent(port(saying(Code::Off)), monitor).failed("no whole answer");
    agent(port(saying(Code::Failed)), monitor).failed("failed to monitor");
    agent(port(saying(Code::Denied)), monitor).failed("does not allow monitor from this guest");
}

#[test]
fn refused_and_failed_power_actions() {
    agent(port(saying(Code::Denied)), OFF_VM2).failed("does not allow off for 'vm2' from this guest");
    agent(port(saying(Code::Failed)), OFF_VM2).failed("did not confirm off for 'vm2'");
}

#[test]
fn a_bridge_that_is_not_there_is_reported_at_once() {
    let nobody = || Bridge { gone_from: Some(0), ..Bridge::default() };
    for system in [port(nobody()), tty(nobody())] {
        let end = agent(system, OFF_VM2);
        end.failed("nobody has the host's end of '/dev/x'");
        assert_eq!((end.took, end.system.came()), (0, vec![]));
    }
    let end = agent(socket(Bridge { busy: Some((Errno::CONNREFUSED, u64::MAX)), ..Bridge::default() }), OFF_VM2);
    end.failed("nobody listens");
    assert_eq!(end.took, 0);
    let end = agent(socket(nobody()), OFF_VM2);
    end.failed("nothing was done");
    assert_eq!(end.took, 0);
    agent(StandIn::new(), OFF_VM2).failed("no such file");
    agent(StandIn::new(), "-o off -n vm2").failed("no virtio port");
}

#[test]
fn one_that_never_answers_is_given_its_time_and_asked_again() {
    for (arguments, took) in [
        (format!("{OFF_VM2} -t 2"), 2_000),
        (OFF_VM2.into(), 30_000),
        (STATUS_VM2.into(), 15_000),
        (format!("{OFF_VM2} -t 2 -w 7"), 9_000),
        (format!("{STATUS_VM2} -t 2 -w 7"), 2_000),
    ] {
        let end = agent(port(Bridge::default()), &arguments);
        end.failed("answer through '/dev/x' (time was up)");
        assert_eq!(end.took, took, "{arguments}");
        assert_eq!(end.error.contains("may have happened"), arguments.contains("off"));
        let came = end.system.came();
        assert!(came.len() > 74 && came.len().is_multiple_of(74));
        assert!(came.chunks(74).all(|frame| frame == &came[..74]), "all the same request");
    }
}

#[test]
fn an_answer_to_the_repetition_counts() {
    let bridge = Bridge { answers: vec![(0, vec![]), (5, encode_reply(Code::Success).into())], ..Bridge::default() };
    let end = agent(port(bridge), OFF_VM2);
    assert_eq!(end.exit, Exit::Done);
    assert!(end.took < 400);
}

#[test]
fn a_channel_that_takes_nothing_says_that_nothing_was_done() {
    for takes in [0, 73] {
        let bridge = Bridge { takes: Some(takes), ..Bridge::default() };
        let end = agent(port(bridge), OFF_VM2);
        end.failed("so nothing was done");
        assert_eq!(end.took, 30_000);
    }
}

#[test]
fn a_bridge_that_goes_away_is_reported_when_it_goes() {
    let goes = |answers| Bridge { goes_after_request: true, answers, ..Bridge::default() };
    let end = agent(port(goes(vec![])), OFF_VM2);
    end.failed("off for 'vm2' may have happened");
    assert_eq!(end.took, 25);
    // What it said before it went counts.
    let end = agent(port(goes(vec![(0, encode_reply(Code::Success).into())])), OFF_VM2);
    assert_eq!(end.exit, Exit::Done);
}

#[test]
fn an_answer_from_before_the_request_counts_for_nothing() {
    let success = || encode_reply(Code::Success).to_vec();
    for at in [0, 10, 20, 40] {
        let bridge =
            Bridge { unasked: (0..=at).step_by(10).map(|at| (at, success())).collect(), ..saying(Code::Failed) };
        let end = agent(port(bridge), OFF_VM2);
        end.failed("did not confirm");
        assert_eq!(end.took, at + 25 + 3);
    }
}

#[test]
fn a_channel_that_never_falls_silent_is_not_trusted() {
    let babble =
        || Bridge { unasked: (0..4_000).map(|at| (at * 10, b"abba\0".to_vec())).collect(), ..saying(Code::Success) };
    let end = agent(tty(babble()), OFF_VM2);
    end.failed("never falls silent");
    assert_eq!((end.took, end.system.came()), (15_000, vec![]));
}

#[test]
fn a_device_that_others_have_is_waited_for() {
    let busy = |until| Bridge { busy: Some((Errno::BUSY, until)), ..saying(Code::Success) };
    let end = agent(port(busy(1_990)), OFF_VM2);
    assert_eq!((end.exit, end.took), (Exit::Done, 2_000 + 28));
    let end = agent(port(busy(u64::MAX)), OFF_VM2);
    end.failed("in use");
    assert_eq!(end.took, 30_000);

    let locked = |until| Bridge { locked_until: until, ..saying(Code::Success) };
    let end = agent(tty(locked(990)), OFF_VM2);
    assert_eq!((end.exit, end.took), (Exit::Done, 1_000 + 28));
    let end = agent(tty(locked(u64::MAX)), &format!("{OFF_VM2} -t 3"));
    end.failed("in use");
    assert_eq!(end.took, 3_000);
    // Nothing of the line was changed while it was another's.
    assert!(!end.system.log().contains(&Call::SetLine));
}

#[test]
fn a_tty_is_set_as_asked() {
    let end = agent(tty(saying(Code::Success)), &format!("{OFF_VM2} -P 9600,7E2"));
    let line = LineParams { baud: 9600, data_bits: 7, parity: Parity::Even, two_stop_bits: true };
    assert_eq!(end.system.line(), Some(line));
    let no_uart = Bridge { not_a_tty: Some(Errno::IO), ..Bridge::default() };
    agent(tty(no_uart), OFF_VM2).failed("input/output error");
}

pub(super) fn entries(entries: &[(&str, u8, Power)]) -> Vec<u8> {
    let mut bytes = encode_reply(Code::HostList).to_vec();
    for &(name, uuid, power) in entries {
        bytes.extend(encode_entry(&ListEntry { name, uuid: Uuid::from_bytes([uuid; 16]), power }));
    }
    bytes
}

pub(super) fn list() -> Vec<u8> {
    let three = [("vm1", 1, Power::On), ("a b", 2, Power::Off), ("vm3", 3, Power::Off)];
    [&entries(&three)[..], &END_OF_LIST, &encode_reply(Code::Success)].concat()
}

#[test]
fn lists() {
    let [one, two, three] = [1u8, 2, 3].map(|byte| Uuid::from_bytes([byte; 16]));
    let end = agent(port(answering(list())), "-o list -D /dev/x");
    assert_eq!((end.exit, end.error.as_str()), (Exit::Done, ""));
    assert_eq!(end.output, format!("vm1,{one}\n{two}\nvm3,{three}\n"));

    let end = agent(port(answering(list())), "-o list-status -D /dev/x");
    assert_eq!((end.exit, end.error.as_str()), (Exit::Done, ""));
    assert_eq!(end.output, format!("vm1,{one},on\n{two},{two},off\nvm3,{three},off\n"));
}

#[test]
fn a_long_list_comes_out_whole() {
    let names: Vec<String> = (0..1000).map(|nth| format!("guest-{nth}")).collect();
    let all: Vec<(&str, u8, Power)> = names.iter().map(|name| (name.as_str(), 9, Power::On)).collect();
    let answer = [&entries(&all)[..], &END_OF_LIST, &encode_reply(Code::Success)].concat();
    let end = agent(port(answering(answer)), "-o list -D /dev/x");
    assert_eq!((end.exit, end.output.lines().count()), (Exit::Done, 1000));
    for (line, name) in end.output.lines().zip(&names) {
        assert_eq!(line.split(',').next(), Some(name.as_str()));
    }
}

#[test]
fn a_list_that_is_cut_off_is_none() {
    let whole = list();
    for keep in 0..whole.len() {
        let bridge = answering(&whole[..keep]);
        let end = agent(port(bridge), "-o list -D /dev/x -t 2");
        end.failed("no whole answer");
    }
    for room in 0..3 * 37 {
        agent(port(answering(list())).with_output_room(room), "-o list -D /dev/x").failed("standard output");
    }
}

#[test]
fn a_guest_without_uuid_and_usable_name_is_left_out_with_a_warning() {
    let mut answer = list();
    answer[5 + 130 + 64..][..64].fill(0);
    let end = agent(port(answering(answer)), "-o list -D /dev/x");
    assert_eq!((end.exit, end.output.lines().count()), (Exit::Done, 2));
    assert!(end.error.contains("left out"), "{}", end.error);
}

#[test]
fn validate_all_looks_and_does_not_touch() {
    let validate = "-o validate-all -H node1 -D /dev/x";
    let end = agent(port(Bridge::default()), validate);
    assert_eq!((end.exit, end.error.as_str()), (Exit::Done, ""));
    assert_eq!((end.system.log(), end.took), (vec![], 0));
    agent(StandIn::new(), validate).failed("no such file");
    agent(StandIn::new().with("/dev/x", Kind::Folder), validate).failed("folder");
    agent(port(Bridge::default()), &format!("{validate} -t none")).failed("timeout");
}

#[test]
fn help_version_and_metadata_need_nothing_but_standard_output() {
    for arguments in ["-h", "-V", "-o metadata", "-o METADATA -D /nowhere"] {
        let end = agent(StandIn::new(), arguments);
        assert_eq!((end.exit, end.error.as_str()), (Exit::Done, ""), "{arguments}");
        assert!(end.output.contains("fence_wire"), "{arguments}");
        agent(StandIn::new().with_output_room(5), arguments).failed("standard output");
    }
    let end = agent(StandIn::new().with_input(b"action=metadata"), "");
    assert!(end.output.starts_with("<?xml"));
}

#[test]
fn a_name_that_the_wire_cannot_carry_is_refused_before_anything_is_opened() {
    let long = "x".repeat(64);
    for (name, part) in [("xabbax", "abba"), (&long, "longer than 63 bytes"), ("a\0b", "control character")] {
        let end = agent(port(Bridge::default()), &format!("-o off -n {name} -D /dev/x"));
        end.failed(part);
        assert_eq!(end.system.log(), []);
    }
}

#[test]
fn debug_says_more() {
    let end = agent(port(saying(Code::Success)), &format!("{OFF_VM2} -d -k /etc/cluster/fence_xvm.key"));
    assert_eq!(end.exit, Exit::Done);
    assert!(end.error.contains("no effect") && end.error.contains("dropping 0 bytes"), "{}", end.error);
    let end = agent(port(saying(Code::Success)), &format!("{OFF_VM2} -k /etc/cluster/fence_xvm.key"));
    assert_eq!(end.error, "");
}
