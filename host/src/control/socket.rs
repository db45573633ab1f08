//! The control socket: who calls it and may know is told what the bridge does.
//!
//! ```text
//! caller ── "status 1\n" ──▶ this thread ── Handle::snapshot ──▶ event loop
//!        ◀── one line of JSON ──          ◀── Snapshot ────────
//! ```
//!
//! One thread serves all callers and never waits for one: each has so long to ask and so long to read, there are only so
//! many, and one too many takes the place of the one that has asked nothing for longest. The event loop is asked for one
//! snapshot at a time, and all who asked before share it; it never waits for this thread. Not here: what is told
//! (`snapshot`), and whoever asks (`ask`).

use super::peer;
use super::snapshot::{Snapshot, VERSION};
use crate::bridge::Handle;
use crate::channels::listen_at;
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What is asked, to the end of its line: the verb, and the version of the document that the caller knows.
pub const STATUS: &str = "status 1";

/// The socket's permissions: the daemon's user, and the group that it runs as.
const MODE: u32 = 0o660;

/// Callers at a time.
const CALLERS: usize = 32;

/// Callers that are let in before the others have their turn.
const ACCEPTED_IN_A_TURN: usize = 64;

/// How long a caller may take to ask.
const ASK_TIME: Duration = Duration::from_secs(2);

/// How long the event loop may take to say what it does.
const LOOP_TIME: Duration = Duration::from_secs(5);

/// How long a caller may take to read the answer.
const READ_TIME: Duration = Duration::from_secs(5);

/// Between two snapshots, at least: whoever asks all the time costs the event loop a little, and no more.
const REST: Duration = Duration::from_millis(50);

/// Until callers are looked for again when one could not be let in.
const RETRY: Duration = Duration::from_secs(1);

/// Between two lines in the log about callers that may not ask.
const LOG_AGAIN: Duration = Duration::from_mins(1);

const LISTENER: Token = Token(0);
const WAKE: Token = Token(1);
/// Callers count from here.
const FIRST: usize = 2;

/// The control socket with its thread. Dropping it takes both away.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Makes the socket and serves it. A socket that an earlier run left there is replaced; one on which somebody listens
    /// is left alone, and an error.
    pub fn start(path: &Path, handle: Handle) -> io::Result<Control> {
        let mut listener = listen_at(path, MODE)?;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, snapshots) = mpsc::channel();
        let server = Server {
            poll,
            listener,
            handle,
            waker: waker.clone(),
            sender,
            snapshots,
            stop: stop.clone(),
            callers: BTreeMap::new(),
            next: FIRST,
            more: None,
            asked: 0,
            told: 0,
            rest_until: Instant::now(),
            denied_logged: None,
        };
        let thread = thread::Builder::new().name("control".to_owned()).spawn(move || server.run())?;
        Ok(Control { path: path.to_owned(), stop, waker, thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

struct Server {
    poll: Poll,
    listener: UnixListener,
    handle: Handle,
    waker: Arc<Waker>,
    sender: Sender<(u64, Snapshot)>,
    snapshots: Receiver<(u64, Snapshot)>,
    stop: Arc<AtomicBool>,
    /// The oldest first.
    callers: BTreeMap<usize, Caller>,
    next: usize,
    /// When callers are to be let in though nothing says that there are any.
    more: Option<Instant>,
    /// Snapshots that the loop was asked for, and those that it gave.
    asked: u64,
    told: u64,
    rest_until: Instant,
    denied_logged: Option<Instant>,
}

struct Caller {
    stream: UnixStream,
    state: State,
    until: Instant,
}

enum State {
    /// What came of its question.
    Asking(Vec<u8>),
    /// For that snapshot, or a later one.
    Waiting(u64),
    /// How much of it has gone.
    Answered(Arc<[u8]>, usize),
}

impl Server {
    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        while !self.stop.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(why) if why.kind() != io::ErrorKind::Interrupted => {
                    tracing::error!(%why, "the control socket is not served any more");
                    return;
                }
                _ => {}
            }
            let mut calls = self.more.is_some_and(|at| at <= Instant::now());
            for event in &events {
                match event.token() {
                    LISTENER => calls = true,
                    WAKE => {}
                    Token(caller) => self.turn(caller),
                }
            }
            while let Ok((number, snapshot)) = self.snapshots.try_recv() {
                self.tell(number, &snapshot);
            }
            if calls {
                self.let_in();
            }
            self.end_late();
            self.ask_the_loop();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let wants = |caller: &&Caller| matches!(caller.state, State::Waiting(number) if number > self.asked);
        let asks = self.callers.values().any(|caller| wants(&caller)).then_some(self.rest_until);
        let next = self.callers.values().map(|caller| caller.until).chain(self.more).chain(asks).min();
        // Rounded up: a timer that is about to be due must not be asked for again and again.
        next.map(|next| next.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    /// Lets in whoever calls and may.
    fn let_in(&mut self) {
        self.more = None;
        for _ in 0..ACCEPTED_IN_A_TURN {
            match self.listener.accept() {
                Ok((stream, _)) => self.called(stream),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return,
                Err(why) if matches!(why.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                Err(why) => {
                    tracing::warn!(%why, "a caller of the control socket could not be let in");
                    self.more = Some(Instant::now() + RETRY);
                    return;
                }
            }
        }
        self.more = Some(Instant::now());
    }

    fn called(&mut self, mut stream: UnixStream) {
        match peer::check(&stream) {
            Ok(()) => {}
            Err(who) => {
                // It is told if that goes at once, and costs nothing otherwise.
                let _ =
                    stream.write(&refusal(&format!("{who} may not ask: be root, or a member of the daemon's group")));
                let now = Instant::now();
                if self.denied_logged.is_none_or(|at| now.duration_since(at) >= LOG_AGAIN) {
                    self.denied_logged = Some(now);
                    tracing::warn!(who, "somebody who may not called the control socket; said once in a minute");
                }
                return;
            }
        }
        if self.callers.len() >= CALLERS {
            let silent = self.callers.iter().find(|(_, caller)| matches!(caller.state, State::Asking(_)));
            if let Some(oldest) = silent.or(self.callers.iter().next()).map(|(caller, _)| *caller) {
                self.callers.remove(&oldest);
            }
        }
        let caller = self.next;
        self.next += 1;
        let both = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(caller), both).is_ok() {
            let (state, until) = (State::Asking(Vec::new()), Instant::now() + ASK_TIME);
            self.callers.insert(caller, Caller { stream, state, until });
            self.turn(caller);
        }
    }

    /// Reads and writes what goes.
    fn turn(&mut self, at: usize) {
        let asked = self.asked;
        let Some(caller) = self.callers.get_mut(&at) else { return };
        if let State::Asking(question) = &mut caller.state {
            match read_line(&mut caller.stream, question) {
                Ok(true) if question[..] == *STATUS.as_bytes() => {
                    // What was asked of the loop before may be older than this question.
                    caller.state = State::Waiting(asked + 1);
                    caller.until = Instant::now() + LOOP_TIME;
                }
                Ok(true) => {
                    let text = format!("not understood: this program answers {STATUS:?} and the end of a line");
                    caller.answer(refusal(&text).into());
                }
                Ok(false) => return,
                Err(_) => {
                    self.callers.remove(&at);
                    return;
                }
            }
        }
        if caller.send() {
            self.callers.remove(&at);
        }
    }

    /// Asks the event loop for a snapshot, if somebody waits for one and none is on its way.
    fn ask_the_loop(&mut self) {
        let is_wanted =
            self.callers.values().any(|caller| matches!(caller.state, State::Waiting(number) if number > self.asked));
        if !is_wanted || self.told < self.asked || Instant::now() < self.rest_until {
            return;
        }
        self.asked += 1;
        let (sender, waker, number) = (self.sender.clone(), self.waker.clone(), self.asked);
        self.handle.snapshot(move |snapshot| {
            if sender.send((number, snapshot)).is_ok() {
                let _ = waker.wake();
            }
        });
    }

    fn tell(&mut self, number: u64, snapshot: &Snapshot) {
        self.told = number;
        self.rest_until = Instant::now() + REST;
        let mut line = serde_json::to_vec(snapshot).unwrap_or_default();
        line.push(b'\n');
        let line: Arc<[u8]> = line.into();
        let is_told = |caller: &Caller| matches!(caller.state, State::Waiting(wants) if wants <= number);
        let told: Vec<usize> = self.callers.iter().filter(|(_, caller)| is_told(caller)).map(|(at, _)| *at).collect();
        for at in told {
            if let Some(caller) = self.callers.get_mut(&at) {
                caller.answer(line.clone());
            }
            self.turn(at);
        }
    }

    fn end_late(&mut self) {
        let now = Instant::now();
        let late: Vec<usize> =
            self.callers.iter().filter(|(_, caller)| caller.until <= now).map(|(at, _)| *at).collect();
        for at in late {
            let Some(mut caller) = self.callers.remove(&at) else { continue };
            if matches!(caller.state, State::Waiting(_)) {
                let _ = caller.stream.write(&refusal("the event loop has not said for 5 s what it does"));
            }
        }
    }
}

impl Caller {
    fn answer(&mut self, line: Arc<[u8]>) {
        self.state = State::Answered(line, 0);
        self.until = Instant::now() + READ_TIME;
    }

    /// Sends as much as goes. Says whether there is nothing more to be done for it.
    fn send(&mut self) -> bool {
        let State::Answered(line, sent) = &mut self.state else { return false };
        while *sent < line.len() {
            match self.stream.write(&line[*sent..]) {
                Ok(0) => return true,
                Ok(more) => *sent += more,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return why.kind() != io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

/// Reads up to the end of a line, which is not kept. Says whether that has come; an error where it will not. A question
/// that is too long counts as ended.
fn read_line(stream: &mut impl Read, question: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => {
                let end = buffer[..got].iter().position(|byte| *byte == b'\n');
                question.extend_from_slice(&buffer[..end.unwrap_or(got)]);
                if end.is_some() || question.len() > STATUS.len() {
                    return Ok(true);
                }
            }
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
}

fn refusal(why: &str) -> Vec<u8> {
    let mut line = serde_json::json!({ "version": VERSION, "error": why }).to_string().into_bytes();
    line.push(b'\n');
    line
}
