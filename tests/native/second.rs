//! The second client: a program of its own, in Python, that has no line in common with ours.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fencewire_tests::guest_channel::GuestChannel;
use fencewire_tests::process::{DEADLINE, Finished, Process, program, wait_until};
use serde_json::Value;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/second_client/fence_second.py");

/// How it is called: where the host is, and with whose key.
#[derive(Debug, Clone)]
pub(crate) struct Second(Vec<String>);

/// What it printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) outcome: Value,
}

impl Said {
    /// # Panics
    /// When it has not ended by itself with a line of JSON.
    #[track_caller]
    pub(crate) fn of(finished: &Finished) -> Self {
        let outcome = serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|why| panic!("no outcome ({why}): {}{}", finished.stdout, finished.stderr));
        Self { code: finished.code, outcome }
    }

    /// A field of the outcome that is a text.
    #[track_caller]
    pub(crate) fn text(&self, field: &str) -> &str {
        self.outcome[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", self.outcome))
    }

    /// Says that nothing came.
    #[track_caller]
    pub(crate) fn is_nothing(&self) {
        assert_eq!((self.text("said"), self.outcome["sessions"].as_u64(), self.code), ("nothing", Some(0), Some(1)));
    }

    /// Says that a power action was done, and how.
    #[track_caller]
    pub(crate) fn is_done(&self, result: &str, repeated: bool) {
        let done = (self.text("said"), self.code, self.outcome["repeated"].as_bool());
        assert_eq!(done, ("done", Some(0), Some(repeated)), "{}", self.outcome);
        assert_eq!(self.text("result"), result, "{}", self.outcome);
        assert_eq!(self.outcome["seen_off"].as_bool(), Some(result != "on"), "{}", self.outcome);
    }
}

impl Second {
    /// Connects to that socket.
    pub(crate) fn connecting(path: &Path) -> Self {
        Self(vec!["--socket".to_owned(), text(path)])
    }

    /// Listens there, as QEMU does.
    pub(crate) fn listening(path: &Path) -> Self {
        Self(vec!["--listen".to_owned(), text(path)])
    }

    #[must_use]
    pub(crate) fn keyless(mut self) -> Self {
        self.0.push("--keyless".to_owned());
        self
    }

    #[must_use]
    pub(crate) fn key(mut self, file: &Path) -> Self {
        self.0.extend(["--key".to_owned(), text(file)]);
        self
    }

    #[track_caller]
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(program("python3"));
        // -B: nothing is left beside the script. -I: nothing of the environment's.
        Process::start(command.args(["-I", "-B", SCRIPT]).args(&self.0).args(arguments))
    }

    #[track_caller]
    pub(crate) fn ask(&self, arguments: &[&str]) -> Said {
        Said::of(&self.start(arguments).wait(2 * DEADLINE))
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a test's paths are UTF-8").to_owned()
}

/// Asks over a channel that stays the test's: of all that the client sends at once, `carry` makes what the host gets. Gives
/// what the client said, and all that came from the host meanwhile.
#[track_caller]
pub(crate) fn ask_over(
    channel: &mut GuestChannel,
    key: Option<&Path>,
    arguments: &[&str],
    mut carry: impl FnMut(Vec<u8>) -> Vec<u8>,
) -> (Said, Vec<u8>) {
    let mut heard = Vec::new();
    let start = |path: &Path| {
        let second = Second::connecting(path);
        key.map_or_else(|| second.clone().keyless(), |key| second.clone().key(key)).start(arguments)
    };
    let finished = between(start, |_, guest| {
        if let Some(bytes) = read(guest) {
            channel.send(&carry(bytes));
        }
        let bytes = channel.read_up_to(1 << 12, Duration::from_millis(2));
        heard.extend_from_slice(&bytes);
        // It may have ended.
        let _ = guest.write_all(&bytes);
    });
    (Said::of(&finished), heard)
}

/// Starts a client that connects to the socket which it is given, and calls `carry` until it has ended.
#[track_caller]
pub(crate) fn between(
    start: impl FnOnce(&Path) -> Process,
    mut carry: impl FnMut(&Process, &mut UnixStream),
) -> Finished {
    let folder = tempfile::tempdir().expect("a private folder");
    let path = folder.path().join("client.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    listener.set_nonblocking(true).expect("a socket that does not block");
    let mut process = start(&path);
    let mut guest = wait_until(DEADLINE, "the client to connect", || Some(listener.accept().ok()?.0));
    guest.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
    wait_until(2 * DEADLINE, "the client to end", || {
        carry(&process, &mut guest);
        (!process.is_running()).then_some(())
    });
    process.wait(DEADLINE)
}

/// What the client has sent.
pub(crate) fn read(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut buffer = [0; 1 << 10];
    let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
    Some(buffer[..read].to_vec())
}
