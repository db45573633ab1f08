//! The whole agent against a stand-in, by TCP: what goes out, what it takes for an answer, and how each break is told.

use super::tests::{End, agent, entries, list};
use crate::stand_in::{Bridge, Call, Peer, StandIn, Stays};
use crate::system::{Errno, Exit, Family};
use fencewire_core::classic::Code;
use fencewire_core::classic::key::{Hash, KEY_MAX, Key, TAG_LEN};
use fencewire_core::classic::packet::{REQUEST_LEN, decode_request, decode_unsigned};
use fencewire_core::classic::serial::END_OF_LIST;
use fencewire_core::{Ask, Power, PowerAction, Target, Uuid};

const OFF_VM2: &str = "-o off -n vm2 -T 10.0.0.1";
const STATUS_VM2: &str = "-o status -n vm2 -T 10.0.0.1";
const KEY_FILE: &str = "/etc/cluster/fence_xvm.key";
const KEY: &[u8] = b"a key that both ends have";
const CHALLENGE: [u8; TAG_LEN] = [0x77; TAG_LEN];

/// Where in what the agent sends its challenge ends, and its own proof.
const CHALLENGED: usize = REQUEST_LEN + TAG_LEN;
const PROVED: usize = CHALLENGED + TAG_LEN;

/// A server as fence_virtd is one: it wants requests signed with `hash` at least, and ends by force what it does not
/// like. `said`: all that comes in place of a code.
fn server(hash: Hash, auth: Hash, said: impl Into<Vec<u8>>) -> Peer {
    let answer = said.into();
    Peer(Box::new(move |came| {
        let key = Key::absorb(KEY).unwrap();
        let Some(request) = came.first_chunk() else { return (vec![], Stays::Open) };
        if decode_request(request, hash, &key).is_err() {
            return (vec![], Stays::Resets);
        }
        let Some(challenge) = came.get(REQUEST_LEN..CHALLENGED) else { return (vec![], Stays::Open) };
        let mut said = [key.tag(auth, &[challenge]), CHALLENGE].concat();
        let Some(proof) = came.get(CHALLENGED..PROVED) else { return (said, Stays::Open) };
        if proof == key.tag(auth, &[&CHALLENGE]) {
            said.extend(&answer);
        }
        (said, Stays::Closes)
    }))
}

/// One that asks for no proof and gives none.
fn trusting_server(code: Code) -> Peer {
    Peer(Box::new(move |came| match came.first_chunk() {
        None => (vec![], Stays::Open),
        Some(request) => {
            assert!(decode_unsigned(request).is_ok());
            (vec![code as u8], Stays::Closes)
        }
    }))
}

fn saying(code: Code) -> Peer {
    server(Hash::Sha256, Hash::Sha256, [code as u8])
}

fn net(bridge: Bridge) -> StandIn {
    StandIn::new().with_file(KEY_FILE, Ok(KEY)).with_bridge(bridge)
}

fn with(peer: Peer) -> StandIn {
    net(Bridge { peer: Some(peer), ..Bridge::default() })
}

/// The request that the agent sent, which is signed with its key.
fn asked(end: &End) -> Ask {
    let came = end.system.came();
    let request = came.first_chunk().expect("a whole request");
    decode_request(request, Hash::Sha256, &Key::absorb(KEY).unwrap()).unwrap().0
}

#[test]
fn every_question_to_each_kind_of_address() {
    let vm2 = || Target::parse(b"vm2").unwrap();
    for (action, ask) in [
        ("off", Ask::Power(PowerAction::Off, vm2())),
        ("on", Ask::Power(PowerAction::On, vm2())),
        ("reboot", Ask::Power(PowerAction::Reboot, vm2())),
        ("monitor", Ask::Monitor),
    ] {
        for (options, family, address) in [
            ("-T 10.0.0.1", Family::Ipv4, &[4, 0xcd, 10, 0, 0, 1][..]),
            ("-T 10.0.0.1 -p 65535", Family::Ipv4, &[0xff, 0xff, 10, 0, 0, 1]),
            ("-T fd00::1", Family::Ipv6, &[4, 0xcd, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ] {
            let end = agent(with(saying(Code::Success)), &format!("-o {action} -n vm2 {options}"));
            assert_eq!((end.exit, end.error.as_str(), end.output.as_str()), (Exit::Done, "", ""), "{action} {options}");
            assert_eq!((asked(&end), end.system.came().len()), (ask.clone(), PROVED));
            assert_eq!(end.system.log(), [Call::Connect]);
            let (reached, bytes) = end.system.address().unwrap();
            assert_eq!((reached, &bytes[..address.len()]), (family, address));
            assert!(bytes[address.len()..].iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn options_may_come_on_standard_input() {
    let input =
        b"action=off\nplug=vm2\nipaddr=10.0.0.1\nipport=1230\nkey_file=/key\nhash=SHA512\nauth=sha512\ntimeout=5";
    let system = with(server(Hash::Sha512, Hash::Sha512, [0])).with_file("/key", Ok(KEY)).with_input(input);
    let end = agent(system, "");
    assert_eq!((end.exit, end.error.as_str()), (Exit::Done, ""));
    assert_eq!(end.system.address().unwrap().1[..2], 1230u16.to_be_bytes());
}

#[test]
fn status_is_the_exit_code() {
    for (code, exit, output) in [(Code::Success, Exit::Done, "Status: ON\n"), (Code::Off, Exit::Off, "Status: OFF\n")] {
        let end = agent(with(saying(code)), STATUS_VM2);
        assert_eq!((end.exit, end.output.as_str(), end.error.as_str()), (exit, output, ""));
    }
    agent(with(saying(Code::Failed)), STATUS_VM2).failed("cannot tell the status of 'vm2'");
    agent(with(saying(Code::Denied)), OFF_VM2).failed("does not allow off for 'vm2'");
    agent(with(saying(Code::Failed)), OFF_VM2).failed("did not confirm off for 'vm2'");
}

#[test]
fn lists() {
    let [one, two, three] = [1u8, 2, 3].map(|byte| Uuid::from_bytes([byte; 16]));
    // The serial wire's, without its magics.
    let list = [&[Code::HostList as u8], &list()[5..5 + 4 * 130], &[0]].concat();
    let end = agent(with(server(Hash::Sha256, Hash::Sha256, list.clone())), "-o list -T ::1");
    assert_eq!((end.exit, end.error.as_str()), (Exit::Done, ""));
    assert_eq!(end.output, format!("vm1,{one}\n{two}\nvm3,{three}\n"));
    let end = agent(with(server(Hash::Sha256, Hash::Sha256, list.clone())), "-o list-status -T ::1");
    assert_eq!(end.output, format!("vm1,{one},on\n{two},{two},off\nvm3,{three},off\n"));
    for keep in 0..list.len() {
        let end = agent(with(server(Hash::Sha256, Hash::Sha256, &list[..keep])), "-o list -T ::1");
        end.failed("no whole answer");
        assert_eq!(end.output, "");
    }
}

#[test]
fn a_long_list_comes_out_whole() {
    let names: Vec<String> = (0..1000).map(|nth| format!("guest-{nth}")).collect();
    let all: Vec<(&str, u8, Power)> = names.iter().map(|name| (name.as_str(), 9, Power::On)).collect();
    let said = [&entries(&all)[4..], &END_OF_LIST, &[0]].concat();
    let end = agent(with(server(Hash::Sha256, Hash::Sha256, said)), "-o list -T ::1");
    assert_eq!((end.exit, end.output.lines().count()), (Exit::Done, 1000));
}

#[test]
fn what_is_asked_for_is_what_is_signed_and_answered_with() {
    for (minimum, auth, options, done) in [
        (Hash::Sha256, Hash::Sha256, "", true),
        (Hash::Sha256, Hash::Sha256, "-c sha512", true),
        (Hash::Sha512, Hash::Sha256, "-c sha512", true),
        (Hash::Sha512, Hash::Sha512, "-c sha512 -C sha512", true),
        (Hash::Sha256, Hash::Sha512, "-C sha512", true),
        (Hash::Sha256, Hash::Sha256, "-C sha512", false),
        (Hash::Sha256, Hash::Sha512, "", false),
    ] {
        let end = agent(with(server(minimum, auth, [0])), &format!("{OFF_VM2} {options}"));
        assert_eq!(end.exit == Exit::Done, done, "{options}: {}", end.error);
        if !done {
            end.failed("does not hold the key");
            assert!(end.error.contains("auth") && end.error.contains("'10.0.0.1'"), "{}", end.error);
        }
    }
    let weak = agent(with(server(Hash::Sha512, Hash::Sha256, [0])), OFF_VM2);
    weak.failed("hung up on this request: compare key_file and hash");
    assert!(weak.took < 10);
}

#[test]
fn with_none_no_key_is_looked_at() {
    let none = "-c none -C NONE";
    let system = |peer| StandIn::new().with_bridge(Bridge { peer: Some(peer), ..Bridge::default() });
    let end = agent(system(trusting_server(Code::Success)), &format!("{OFF_VM2} {none}"));
    assert_eq!((end.exit, end.error.as_str(), end.system.came().len()), (Exit::Done, "", REQUEST_LEN));
    let end = agent(system(trusting_server(Code::Off)), &format!("{STATUS_VM2} {none}"));
    assert_eq!(end.exit, Exit::Off);
    // Who wants a signature hangs up. Whether he had done what was asked before, one cannot see.
    let end = agent(system(saying(Code::Success)), &format!("{OFF_VM2} {none}"));
    end.failed("may have happened");
    for half in ["-c none", "-C none", "-c none -C sha256", "-C none -c sha512"] {
        let end = agent(system(trusting_server(Code::Success)), &format!("{OFF_VM2} {half}"));
        end.failed("is 'none': give sha256 or sha512");
        assert_eq!(end.system.log(), []);
    }
}

#[test]
fn hashes_that_are_none() {
    for (options, part) in [
        ("-c sha1", "hash is 'sha1': give sha256 or sha512 (sha1 can be forged)"),
        ("-C sha1", "auth is 'sha1': give sha256 or sha512 (sha1 can be forged)"),
        ("-c sha256x", "hash is 'sha256x'"),
        ("-C md5", "auth is 'md5'"),
    ] {
        let end = agent(with(saying(Code::Success)), &format!("{OFF_VM2} {options}"));
        end.failed(part);
        assert_eq!(end.system.log(), []);
    }
}

#[test]
fn keys_that_are_none() {
    let long = "/x".repeat(128);
    let longest = vec![7; KEY_MAX];
    for (path, content, part) in [
        ("/key", Err(Errno::NOENT), "'/key' cannot be used (no such file): give the host's key in key_file"),
        ("/key", Err(Errno(13)), "permission denied"),
        ("/key", Err(Errno::ISDIR), "it is a folder"),
        ("/key", Ok(&b""[..]), "it is empty"),
        ("/key", Ok(&[7; KEY_MAX + 1]), "it is too long"),
        ("/key", Ok(b"fencewire-key-1\n0123456789"), "a native key is not for this wire"),
        ("/key", Ok(b"fencewire-key-1\r\n0123456789"), "a native key is not for this wire"),
        ("/key", Ok(b"fencewire-key-1"), "a native key is not for this wire"),
        (long.as_str(), Ok(KEY), "its path is too long"),
    ] {
        for question in [OFF_VM2, STATUS_VM2, "-o list -T ::1", "-o validate-all -T ::1"] {
            let system = with(saying(Code::Success)).with_file(path, content);
            let end = agent(system, &format!("{question} -k {path}"));
            end.failed(part);
            assert_eq!((end.system.log(), end.took), (vec![], 0));
        }
    }
    for key in [&longest[..], b"\n", b"fencewire-key-12\n", b"x\nfencewire-key-1\n"] {
        let end = agent(with(saying(Code::Success)).with_file("/key", Ok(key)), &format!("{OFF_VM2} -k /key"));
        end.failed("hung up");
    }
}

#[test]
fn validate_all_reads_the_key_and_calls_nobody() {
    let end = agent(with(saying(Code::Success)), "-o validate-all -T ::1");
    assert_eq!((end.exit, end.error.as_str(), end.system.log()), (Exit::Done, "", vec![]));
    agent(StandIn::new(), "-o validate-all -T ::1").failed("no such file");
    agent(StandIn::new(), "-o validate-all -T localhost").failed("there is no resolver here");
}

#[test]
fn without_random_bytes_nobody_is_asked() {
    for question in [OFF_VM2, STATUS_VM2] {
        let end = agent(with(saying(Code::Success)).without_entropy(), question);
        end.failed("no random bytes");
        assert_eq!((end.system.log(), end.took), (vec![], 0));
    }
}

#[test]
fn nothing_that_is_random_is_used_twice() {
    let end = agent(with(saying(Code::Success)), OFF_VM2);
    let came = end.system.came();
    let challenge = &came[REQUEST_LEN..CHALLENGED];
    assert_eq!(challenge, (1..=64).collect::<Vec<u8>>());
    // After action, hashtype, addrlen, flags, domain, address and port.
    assert_eq!(came[98..104], [65, 66, 67, 68, 69, 70]);
}

#[test]
fn a_way_that_does_not_lead_there() {
    let at_once = |errno| net(Bridge { busy: Some((Errno(errno), u64::MAX)), ..Bridge::default() });
    let later = |errno| {
        let gone = Bridge { gone_from: Some(700), gone_with: Some(Errno(errno)), ..Bridge::default() };
        net(Bridge { connects_at: u64::MAX, ..gone })
    };
    for (errno, part) in [
        (111, "(nobody listens)"),
        (101, "(unreachable)"),
        (113, "(unreachable)"),
        (104, "(it was reset)"),
        (22, "(not valid)"),
        (97, "(error 97)"),
    ] {
        for (system, took) in [(at_once(errno), 0), (later(errno), 700)] {
            let end = agent(system, OFF_VM2);
            end.failed(part);
            let remedy = if errno == 111 { "start the bridge" } else { "see the address and the network" };
            assert!(end.error.contains(remedy) && end.error.contains("'10.0.0.1'"), "{}", end.error);
            assert!(!end.error.contains("happen"), "{}", end.error);
            assert_eq!((end.took, end.system.came()), (took, vec![]));
        }
    }
    let nowhere = Bridge { connects_at: u64::MAX, ..Bridge::default() };
    let end = agent(net(nowhere), &format!("{OFF_VM2} -t 3 -w 2"));
    end.failed("took no request (time was up), so nothing was done: see the address and the network");
    assert_eq!(end.took, 5_000);
}

#[test]
fn a_connection_that_takes_its_time_is_waited_for() {
    let slow = Bridge { connects_at: 2_000, peer: Some(saying(Code::Success)), ..Bridge::default() };
    let end = agent(net(slow), OFF_VM2);
    assert_eq!((end.exit, end.error.as_str()), (Exit::Done, ""));
    assert!((2_000..2_010).contains(&end.took), "{}", end.took);
}

/// The server of [`saying`] that says the first `keep` bytes of it, and then does this.
fn stopping(keep: usize, stays: Stays) -> Peer {
    let Peer(whole) = saying(Code::Success);
    Peer(Box::new(move |came| {
        let (mut said, _) = whole(came);
        if said.len() < keep || came.len() < CHALLENGED {
            return (said, Stays::Open);
        }
        said.truncate(keep);
        (said, stays)
    }))
}

#[test]
fn a_server_that_stops_anywhere_is_told_from_one_that_answers() {
    let whole = 2 * TAG_LEN + 1;
    for keep in 0..whole {
        for (stays, why) in
            [(Stays::Open, "time was up"), (Stays::Closes, "it is closed"), (Stays::Resets, "it was reset")]
        {
            let end = agent(with(stopping(keep, stays)), &format!("{OFF_VM2} -t 2"));
            if keep == 0 && stays != Stays::Open {
                end.failed("hung up on this request");
            } else {
                end.failed("off for 'vm2' may have happened or may still happen");
                assert!(end.error.contains(why), "{keep} {stays:?}: {}", end.error);
            }
            assert_eq!(end.took >= 2_000, stays == Stays::Open, "{keep} {stays:?}: {}", end.took);
            let end = agent(with(stopping(keep, stays)), &format!("{STATUS_VM2} -t 2"));
            assert!(end.exit == Exit::Failed && !end.error.contains("happen"), "{}", end.error);
        }
    }
    for stays in [Stays::Open, Stays::Closes, Stays::Resets] {
        let end = agent(with(stopping(whole, stays)), OFF_VM2);
        assert_eq!((end.exit, end.error.as_str()), (Exit::Done, ""), "what it said before it went counts");
    }
}

#[test]
fn who_does_not_hold_the_key_is_not_believed() {
    type Says = fn(&[u8]) -> Vec<u8>;
    let success = |proof: &[u8]| [proof, &[0x77; TAG_LEN], &[0]].concat();
    let cases: [(&str, Says); 5] = [
        ("garbage", |_| vec![0x5a; 200]),
        ("zeros: a code of success wherever one is looked for", |_| vec![0; 300]),
        ("our challenge, as a proof and as a challenge", |came| [&came[REQUEST_LEN..], &came[REQUEST_LEN..]].concat()),
        ("our request's own signature", |came| came[REQUEST_LEN - TAG_LEN..].to_vec()),
        ("another key's", |came| {
            let key = Key::absorb(b"another key").unwrap();
            [key.tag(Hash::Sha256, &[&came[REQUEST_LEN..CHALLENGED]]), [0; TAG_LEN]].concat()
        }),
    ];
    for (what, says) in cases {
        for stays in [Stays::Open, Stays::Closes] {
            let peer = move |came: &[u8]| match came.len() {
                CHALLENGED => (success(&says(came)), stays),
                _ => (vec![], Stays::Open),
            };
            let end = agent(with(Peer(Box::new(peer))), OFF_VM2);
            end.failed("who answers at '10.0.0.1' does not hold the key: do not trust it");
            assert_eq!((end.took < 10, end.system.came().len()), (true, CHALLENGED), "{what}");
        }
    }
}

/// It holds the key, or has somebody who does answer for it, and wants from us the answer to our own challenge.
#[test]
fn our_own_challenge_is_not_answered() {
    let peer = |came: &[u8]| match came.get(REQUEST_LEN..CHALLENGED) {
        None => (vec![], Stays::Open),
        Some(challenge) => {
            let proof = Key::absorb(KEY).unwrap().tag(Hash::Sha256, &[challenge]);
            ([&proof, challenge].concat(), Stays::Open)
        }
    };
    let end = agent(with(Peer(Box::new(peer))), OFF_VM2);
    end.failed("does not hold the key");
    assert_eq!(end.system.came().len(), CHALLENGED);
}

#[test]
fn a_code_that_is_none_or_answers_something_else_is_no_success() {
    for code in [2, 4, 9, 0x61, 253, 254, 255] {
        for question in [OFF_VM2, "-o monitor -T ::1"] {
            let end = agent(with(server(Hash::Sha256, Hash::Sha256, [code])), question);
            assert_eq!(end.exit, Exit::Failed, "{code}");
        }
    }
}

/// Nothing of what a power action's server says that asks nobody for a proof is taken for one, nor for "not done".
#[test]
fn one_that_proves_nothing_may_have_done_it() {
    let peer = |came: &[u8]| match came.len() {
        ..CHALLENGED => (vec![], Stays::Open),
        _ => (vec![Code::Success as u8], Stays::Closes),
    };
    agent(with(Peer(Box::new(peer))), OFF_VM2).failed("may have happened");
}

#[test]
fn the_delay_is_before_the_call() {
    let end = agent(with(saying(Code::Success)), &format!("{OFF_VM2} -w 7"));
    assert_eq!(end.exit, Exit::Done);
    assert!((7_000..7_010).contains(&end.took), "{}", end.took);
    // What is wrong is told before it.
    let end = agent(StandIn::new(), &format!("{OFF_VM2} -w 7"));
    end.failed("no such file");
    assert_eq!(end.took, 0);
}

/// A name that the serial wire cannot carry, this one can.
#[test]
fn names() {
    let end = agent(with(saying(Code::Success)), "-o off -n xabbax -T 10.0.0.1");
    assert_eq!((end.exit, end.error.as_str()), (Exit::Done, ""));
    for (name, part) in [("x".repeat(64), "longer than 63 bytes"), ("a\0b".into(), "control character")] {
        let end = agent(with(saying(Code::Success)), &format!("-o off -n {name} -T 10.0.0.1"));
        end.failed(part);
        assert_eq!(end.system.log(), []);
    }
}

#[test]
fn debug_says_more() {
    let end = agent(with(saying(Code::Success)), &format!("{OFF_VM2} -d -c sha512"));
    assert_eq!(
        (end.exit, end.error.as_str()),
        (Exit::Done, "fence_wire: asking through '10.0.0.1' after dropping 0 bytes\n")
    );
}
