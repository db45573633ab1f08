//! Who answers `fence_wire` by TCP, and is no bridge, or one that breaks. It fails with one sentence, in its time, and never
//! takes for done what nobody said.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use fencewire_core::classic::key::{Hash, Key, TAG_LEN, Tag};
use fencewire_core::classic::packet::{REQUEST_LEN, decode_request};
use fencewire_core::{Ask, PowerAction};
use fencewire_tests::process::{DEADLINE, Finished, ours, run};
use rustix::net::sockopt::set_socket_linger;

const KEY: &[u8] = b"the key of these tests";
const CHALLENGE: Tag = [0x77; TAG_LEN];

const OFF: &[&str] = &["-o", "off", "-n", "vm2"];
const STATUS: &[&str] = &["-o", "status", "-n", "vm2"];

/// Runs the agent against whoever does this with its connection, for 2 s at most.
#[track_caller]
fn against(peer: impl FnOnce(TcpStream) + Send + 'static, question: &[&str]) -> Finished {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on the loopback interface");
    let port = listener.local_addr().expect("its address").port().to_string();
    let folder = tempfile::tempdir().expect("a private folder");
    let key = folder.path().join("key");
    fs::write(&key, KEY).expect("a key file");
    let (ended, end) = channel();
    thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
            peer(stream);
        }
        let _ = ended.send(());
    });
    let mut agent = Command::new(ours("fence_wire"));
    let finished = run(agent.args(["-T", "127.0.0.1", "-p", &port, "-t", "2", "-k"]).arg(key).args(question), DEADLINE);
    end.recv_timeout(DEADLINE).expect("the peer saw the agent's connection, and its end");
    finished
}

/// It failed, and said why in one sentence with these parts in it.
#[track_caller]
fn has_failed(finished: &Finished, parts: &[&str]) {
    let Finished { code, signal, stdout, stderr, .. } = finished;
    assert_eq!((*code, *signal, stdout.as_str()), (Some(1), None, ""), "{stderr}");
    let is_sentence = stderr.starts_with("fence_wire: ") && stderr.find('\n') == Some(stderr.len() - 1);
    assert!(is_sentence && parts.iter().all(|part| stderr.contains(part)), "{parts:?} in one sentence: {stderr:?}");
}

/// What an agent sends first: its request, and a challenge.
fn question(stream: &mut TcpStream) -> (Ask, Tag) {
    let mut request = [0; REQUEST_LEN];
    let mut challenge = [0; TAG_LEN];
    stream.read_exact(&mut request).expect("a request");
    stream.read_exact(&mut challenge).expect("a challenge");
    let (ask, _) = decode_request(&request, Hash::Sha256, &key()).expect("it is signed");
    (ask, challenge)
}

fn key() -> Key {
    Key::absorb(KEY).expect("a good key")
}

fn proof(challenge: &Tag) -> Tag {
    key().tag(Hash::Sha256, &[challenge])
}

/// Waits for the agent to go.
fn wait_for_end(mut stream: TcpStream) {
    drop(stream.read_to_end(&mut Vec::new()));
}

/// Ends it by force. What was sent before is there all the same.
fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket's option");
    drop(stream);
}

/// What a peer does after it has stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Waits,
    Closes,
    Resets,
}

impl Then {
    fn happens(self, stream: TcpStream) {
        match self {
            Then::Waits => wait_for_end(stream),
            Then::Closes => {
                stream.shutdown(Shutdown::Write).expect("an end");
                wait_for_end(stream);
            }
            Then::Resets => reset(stream),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Then::Waits => "time was up",
            Then::Closes => "it is closed",
            Then::Resets => "it was reset",
        }
    }
}

const EACH: [Then; 3] = [Then::Waits, Then::Closes, Then::Resets];

#[test]
fn a_peer_that_says_nothing() {
    for then in EACH {
        let finished = against(
            move |mut stream| {
                question(&mut stream);
                then.happens(stream);
            },
            OFF,
        );
        if then == Then::Waits {
            has_failed(&finished, &["(time was up): off for 'vm2' may have happened or may still happen"]);
        } else {
            has_failed(&finished, &["hung up on this request", "take nothing for done"]);
        }
        assert_eq!(finished.elapsed > Duration::from_secs(2), then == Then::Waits, "{finished:?}");
    }
}

/// As theirs does to whoever signs with another key: what came after the request is never read.
#[test]
fn a_peer_that_hangs_up_with_the_challenge_unread() {
    let hang_up = |mut stream: TcpStream| stream.read_exact(&mut [0; REQUEST_LEN]).expect("a request");
    has_failed(&against(hang_up, OFF), &["hung up on this request: compare key_file and hash"]);
    has_failed(&against(drop, STATUS), &["'127.0.0.1'"]);
}

#[test]
fn a_peer_that_stops_after_each_step() {
    // One byte of a proof, a proof, one byte of a challenge more, a challenge; and then it has got ours.
    for keep in [1, TAG_LEN - 1, TAG_LEN, TAG_LEN + 1, 2 * TAG_LEN] {
        for then in EACH {
            let stops = move |mut stream: TcpStream| {
                let (ask, challenge) = question(&mut stream);
                assert!(matches!(ask, Ask::Power(PowerAction::Off, _)));
                let said = [proof(&challenge), CHALLENGE].concat();
                stream.write_all(&said[..keep]).expect("the agent reads");
                if keep == said.len() {
                    let mut answer = [0; TAG_LEN];
                    stream.read_exact(&mut answer).expect("its proof");
                    assert_eq!(answer, proof(&CHALLENGE));
                }
                then.happens(stream);
            };
            let finished = against(stops, OFF);
            has_failed(&finished, &[then.word(), "off for 'vm2' may have happened or may still happen"]);
            assert_eq!(finished.elapsed > Duration::from_secs(2), then == Then::Waits, "{keep} {finished:?}");
        }
    }
}

/// What it said before it went counts, however it went.
#[test]
fn a_peer_that_answers_and_goes_at_once() {
    for then in EACH {
        for (question_asked, code, expected) in [(OFF, 0, Some(0)), (STATUS, 0, Some(0)), (STATUS, 2, Some(2))] {
            let answers = move |mut stream: TcpStream| {
                let (_, challenge) = question(&mut stream);
                stream.write_all(&[proof(&challenge), CHALLENGE].concat()).expect("the agent reads");
                stream.read_exact(&mut [0; TAG_LEN]).expect("its proof");
                stream.write_all(&[code]).expect("the agent reads");
                then.happens(stream);
            };
            let finished = against(answers, question_asked);
            assert_eq!((finished.code, finished.stderr.as_str()), (expected, ""), "{then:?}");
        }
    }
}

#[test]
fn a_peer_that_does_not_hold_the_key() {
    type Says = fn(&Tag) -> Vec<u8>;
    let cases: [(&str, Says); 5] = [
        ("zeros", |_| vec![0; 1000]),
        ("garbage", |_| (0..1000u32).map(|nth| (nth * 37) as u8).collect()),
        ("our challenge, as proof and as challenge", |challenge| [*challenge, *challenge].concat()),
        ("a proof of another challenge", |_| proof(&CHALLENGE).to_vec()),
        ("a proof with one bit changed", |challenge| {
            let mut proof = proof(challenge);
            proof[31] ^= 1;
            [proof, CHALLENGE].concat()
        }),
    ];
    for (what, says) in cases {
        for question_asked in [OFF, STATUS] {
            let answers = move |mut stream: TcpStream| {
                let (_, challenge) = question(&mut stream);
                stream.write_all(&says(&challenge)).expect("the agent reads");
                let mut rest = Vec::new();
                drop(stream.read_to_end(&mut rest));
                assert!(rest.is_empty(), "it proves nothing to who has proved nothing");
            };
            let finished = against(answers, question_asked);
            has_failed(&finished, &["who answers at '127.0.0.1' does not hold the key: do not trust it"]);
            assert!(finished.elapsed < Duration::from_secs(2), "at once, {what}: {finished:?}");
        }
    }
}

/// Somebody between us and the bridge, who lets it answer our challenge, and has us answer our own.
#[test]
fn a_peer_that_sends_our_challenge_back() {
    let reflects = |mut stream: TcpStream| {
        let (_, challenge) = question(&mut stream);
        stream.write_all(&[proof(&challenge), challenge].concat()).expect("the agent reads");
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest));
        assert!(rest.is_empty());
    };
    has_failed(&against(reflects, OFF), &["does not hold the key"]);
}

#[test]
fn a_peer_that_never_stops_talking() {
    let talks = |stream: TcpStream| {
        let mut stream = &stream;
        while stream.write_all(&[0x5a; 4096]).is_ok() {}
    };
    has_failed(&against(talks, OFF), &["'127.0.0.1'"]);
    // One that holds the key, and whose list has no end.
    let lists = |mut stream: TcpStream| {
        let (_, challenge) = question(&mut stream);
        stream.write_all(&[proof(&challenge), CHALLENGE].concat()).expect("the agent reads");
        stream.read_exact(&mut [0; TAG_LEN]).expect("its proof");
        stream.write_all(&[253]).expect("the agent reads");
        while stream.write_all(&[b'x'; 130]).is_ok() {}
    };
    let finished = against(lists, &["-o", "monitor"]);
    has_failed(&finished, &["the bridge failed to monitor"]);
    let finished = against(lists, &["-o", "list"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.ends_with("(time was up): see that the bridge runs\n"), "its end is told");
    assert!(finished.elapsed < Duration::from_secs(4), "{:?}", finished.elapsed);
}

#[test]
fn a_peer_that_dribbles() {
    let dribbles = |mut stream: TcpStream| {
        let (_, challenge) = question(&mut stream);
        for byte in [proof(&challenge), CHALLENGE].concat() {
            if stream.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
    };
    let finished = against(dribbles, OFF);
    has_failed(&finished, &["(time was up)", "may have happened"]);
    assert!(finished.elapsed < Duration::from_secs(4), "{:?}", finished.elapsed);
}

/// A file that never ends, and one that nobody writes to: the agent must neither wait nor take a part for the whole.
#[test]
fn key_files_that_are_none() {
    let folder = tempfile::tempdir().expect("a private folder");
    let pipe = folder.path().join("pipe");
    let made = run(Command::new("mkfifo").arg(&pipe), DEADLINE);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let native = folder.path().join("native");
    fs::write(&native, "fencewire-key-1\n0123456789abcdef\n").expect("a key file");
    for (path, part) in [
        ("/dev/zero", "it is too long"),
        ("/dev/null", "it is empty"),
        ("/dev/tty", "'/dev/tty'"),
        ("/", "it is a folder"),
        ("/missing/key", "no such file"),
        (pipe.to_str().unwrap_or_default(), "it is empty"),
        (native.to_str().unwrap_or_default(), "a native key is not for this wire"),
    ] {
        // Nobody listens there, and nobody is called.
        let mut agent = Command::new(ours("fence_wire"));
        let finished = run(agent.args(["-T", "127.0.0.1", "-p", "1", "-k", path]).args(OFF), DEADLINE);
        has_failed(&finished, &[part, "give the host's key in key_file"]);
        assert!(finished.elapsed < Duration::from_secs(5), "at once: {:?}", finished.elapsed);
    }
}
