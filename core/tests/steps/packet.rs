//! The packet wire's two ends, driven by steps: what a property's strategy or a fuzzer makes up, and what must hold of it.
//! Nothing is handed out or believed without its proofs, which are looked at here a second time.

use super::common::owner::{Told, answer};
use super::common::packets::{
    CHALLENGE, FRESH, HASHES, TIME_TO_ACT, UNSIGNED, entropy, proof, request, shared, signed, trust,
};
use super::common::{Answering, Asking, ENTROPY, asked, off};
use fencewire_core::classic::key::Hash;
use fencewire_core::classic::packet::{REQUEST_LEN, decode_request, decode_unsigned, encode_unsigned};
use fencewire_core::{Answer, Ask, Endpoint, Entropy, Event, Listener, Millis, Outcome, Power, Reply, Trust};

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Bytes(Vec<u8>),
    /// The right answer to the other end's challenge; with the other hash; to an older challenge.
    Proof,
    OtherProof,
    OldProof,
    /// The other end's challenge, sent back; a listener's last one, where this connection has none yet.
    Reflect,
    /// All that the other end waits for, as it should be.
    Handshake(Ask),
    Pass(u64),
    /// The peer reads so many bytes, or the port takes so many.
    Sent(usize),
    /// The owner answers in one of several ways: the request that is out, or an older one.
    Answer(u8, bool),
    Opened,
    Closed,
    Reset,
    Poll,
}

/// A connection, what was given to and read from the listener on it, and the one before it.
struct Line {
    end: Answering,
    told: Told,
    auth: Option<Hash>,
    connections: u8,
    connected: bool,
    given: Vec<u8>,
    read: Vec<u8>,
    old_challenge: [u8; 64],
}

impl Line {
    fn new(auth: Option<Hash>) -> Line {
        let trust = auth.map_or(Trust::Anybody, |auth| trust(Hash::Sha256, auth));
        let end = Answering { listener: Listener::of_packets(trust, TIME_TO_ACT), now: Millis(1_000_000) };
        let mut line = Line {
            end,
            told: Told::default(),
            auth,
            connections: 0,
            connected: false,
            given: Vec::new(),
            read: Vec::new(),
            old_challenge: [0; 64],
        };
        line.open();
        line
    }

    fn open(&mut self) {
        self.old_challenge = self.challenge().unwrap_or(self.old_challenge);
        self.connections += 1;
        self.connected = true;
        (self.given, self.read, self.told.taken) = (Vec::new(), Vec::new(), None);
        self.end.listener.opened(&entropy(self.connections), self.end.now);
    }

    /// The listener's, where it was read.
    fn challenge(&self) -> Option<[u8; 64]> {
        self.read.get(64..128)?.try_into().ok()
    }

    fn give(&mut self, bytes: &[u8]) {
        self.given.extend(bytes);
        let events = self.end.give(bytes);
        self.look_at(events);
    }

    fn read(&mut self, n: usize) {
        let unsent = self.end.listener.transmit();
        let n = n.min(unsent.len());
        self.read.extend(&unsent[..n]);
        self.end.listener.sent(n, self.end.now);
        // Rule 1: what is success on the wire was success to the owner.
        let proofs = if self.auth.is_some() { 128 } else { 0 };
        let success = match self.told.taken {
            Some(Answer::Outcome(outcome)) => !matches!(outcome, Outcome::Failed(_)),
            Some(Answer::Alive | Answer::Power(Power::On)) => true,
            _ => false,
        };
        assert!(self.read.get(proofs) != Some(&0) || success, "a success that nobody said");
    }

    /// Rules 2 and 5: what is handed out is what was said on this connection by somebody who proved itself on it.
    fn look_at(&mut self, events: Vec<Event>) {
        for event in &events {
            let Event::Asked(_, request) = event else { continue };
            assert!(self.connected);
            let packet = self.given.first_chunk().expect("a whole packet");
            let read = match self.auth {
                Some(auth) => {
                    let challenge = self.challenge().expect("it was read");
                    assert_eq!(self.given[240..304], proof(&challenge, auth));
                    assert_eq!(self.read[..64], proof(&self.given[176..240], auth));
                    assert!(![challenge, self.old_challenge].contains(&self.given[176..240].try_into().unwrap()));
                    decode_request(packet, Hash::Sha256, &shared())
                }
                None => decode_unsigned(packet),
            };
            assert_eq!(read, Ok((request.ask().clone(), request.key())));
        }
        self.told.events(events);
    }

    fn step(&mut self, step: Step) {
        let auth = self.auth.unwrap_or(Hash::Sha256);
        match step {
            Step::Bytes(bytes) => self.give(&bytes),
            Step::Proof => self.give(&proof(&self.challenge().unwrap_or(CHALLENGE), auth)),
            Step::OtherProof => {
                let other = HASHES[usize::from(auth == HASHES[0])];
                self.give(&proof(&self.challenge().unwrap_or(CHALLENGE), other));
            }
            Step::OldProof => self.give(&proof(&self.old_challenge, auth)),
            Step::Reflect => self.give(&self.challenge().unwrap_or(self.old_challenge)),
            Step::Handshake(ask) => self.handshake(&ask),
            Step::Pass(ms) => {
                let events = self.end.later(ms);
                self.look_at(events);
            }
            Step::Sent(n) => self.read(n),
            Step::Answer(kind, current) => self.told.answer(&mut self.end, kind, current),
            Step::Opened => self.open(),
            Step::Closed => {
                self.connected = false;
                self.end.listener.closed(self.end.now);
            }
            Step::Reset => {
                self.connected = false;
                self.end.listener.guest_was_reset(self.end.now);
            }
            Step::Poll => {}
        }
        let events = self.end.polled();
        self.look_at(events);
        let listener = &self.end.listener;
        assert!(listener.wake_at().is_none_or(|at| at > self.end.now), "due, and nothing came of it");
        assert!(!listener.is_idle(), "a connection that has proved nothing yet is not to be forgotten");
        assert!(!listener.is_over() || self.told.out().is_none(), "over with a request out");
        assert!(listener.is_proved() || self.told.out().is_none(), "out, and not proved");
    }

    fn handshake(&mut self, ask: &Ask) {
        match self.auth {
            Some(auth) => {
                self.give(&[&request(ask)[..], &CHALLENGE].concat());
                self.read(1_000);
                self.give(&proof(&self.challenge().unwrap_or(CHALLENGE), auth));
            }
            None => self.give(&encode_unsigned(ask, FRESH)),
        }
    }
}

/// Holds the listener to its promises, as its owner holds to its own.
pub(crate) fn with_a_careful_owner(auth: Option<Hash>, steps: Vec<Step>) {
    let mut line = Line::new(auth);
    for step in steps {
        line.step(step);
    }
    // Whoever comes next is heard.
    line.step(Step::Opened);
    line.step(Step::Handshake(off("good")));
    let (_, request) = line.told.out().expect("it is out");
    assert_eq!(request.ask(), &off("good"));
    // It ends by itself, and then the connection is over.
    line.step(Step::Pass(60_000));
    assert!(line.told.out().is_none() && line.end.listener.is_over());
}

/// Wants nothing but that it goes on.
pub(crate) fn with_a_careless_owner(auth: Option<Hash>, steps: Vec<Step>) {
    let trust = auth.map_or(Trust::Anybody, |auth| trust(Hash::Sha256, auth));
    let mut listener = Listener::of_packets(trust, TIME_TO_ACT);
    let mut now = 100_000_u64;
    let mut out = None;
    for (at, step) in steps.into_iter().enumerate() {
        // Every third step is in the past.
        let then = Millis(if at % 3 == 0 { now / 2 } else { now });
        let mut give = |bytes: &[u8]| assert!(listener.receive(bytes, then) <= bytes.len());
        match step {
            Step::Bytes(bytes) => give(&bytes),
            Step::Proof | Step::OtherProof | Step::OldProof | Step::Reflect => {
                let said = listener.transmit().get(64..128).map_or(CHALLENGE, |said| said.try_into().unwrap());
                let _ = listener.receive(&proof(&said, Hash::Sha256), then);
            }
            Step::Handshake(ask) => give(&[&request(&ask)[..], &CHALLENGE].concat()),
            Step::Pass(ms) => {
                now += ms;
                listener.wake(then);
            }
            Step::Sent(n) => listener.sent(n, then),
            Step::Answer(kind, _) => {
                if let Some((id, request)) = &out {
                    let _ = listener.answer(*id, answer(kind, Some(request)), then);
                }
            }
            // The same entropy again and again, too.
            Step::Opened => listener.opened(&ENTROPY, then),
            Step::Closed => listener.closed(then),
            Step::Reset => listener.guest_was_reset(then),
            Step::Poll => {
                if let Some(Event::Asked(id, request)) = listener.poll() {
                    out = Some((id, request));
                }
            }
        }
    }
    let mut end = Answering { listener, now: Millis(now) };
    end.reopened(&ENTROPY);
    let events = match auth {
        Some(auth) => {
            let challenge = end.challenged(&request(&off("good")));
            end.give(&proof(&challenge, auth))
        }
        None => end.give(&encode_unsigned(&off("good"), FRESH)),
    };
    assert_eq!(asked(events).1.ask(), &off("good"));
}

/// A client, and what was given to it on this connection.
struct Caller {
    end: Asking,
    ask: Ask,
    auth: Option<Hash>,
    careful: bool,
    connections: u8,
    /// How many bytes have gone on this connection.
    sent: usize,
    given: Vec<u8>,
    replies: Vec<Reply>,
}

impl Caller {
    fn entropy(&self) -> Entropy {
        entropy(self.connections)
    }

    /// What one who holds the key says, as far as the code.
    fn proofs(&self) -> Vec<u8> {
        self.auth.map_or(vec![], |auth| [proof(&self.entropy().0, auth), CHALLENGE].concat())
    }

    fn give(&mut self, bytes: &[u8]) {
        if !self.careful {
            assert!(self.end.client.receive(bytes, self.end.now) <= bytes.len());
            return;
        }
        self.given.extend(bytes);
        let replies = self.end.give(bytes);
        self.look_at(replies);
    }

    fn send(&mut self, n: usize) {
        let n = n.min(self.end.client.transmit().len());
        self.sent += n;
        self.end.client.sent(n, self.end.now);
    }

    /// Rule 1: what is told was said, on this connection, by somebody who proved itself on it.
    fn look_at(&mut self, replies: Vec<Reply>) {
        for reply in &replies {
            let by_the_other_end =
                !matches!(reply, Reply::TimedOut | Reply::Closed | Reply::Dropped | Reply::NotProved);
            let proofs = self.proofs();
            if by_the_other_end && *reply != Reply::Failed {
                let all = self.auth.map_or(REQUEST_LEN, |_| REQUEST_LEN + 64 + 64);
                assert_eq!(self.sent, all, "a reply before all was said that it could be one to");
            }
            if by_the_other_end && self.auth.is_some() {
                assert_eq!(self.given[..64], proofs[..64]);
                assert_ne!(self.given[64..128], self.entropy().0);
            }
            let code = self.given.get(proofs.len());
            match reply {
                Reply::Done => assert!(code == Some(&0) && matches!(self.ask, Ask::Power(..) | Ask::Monitor)),
                Reply::Power(power) => {
                    let meant = match code {
                        Some(0) => Power::On,
                        Some(2) => Power::Off,
                        _ => Power::Unknown,
                    };
                    assert!(*power == meant && matches!(self.ask, Ask::Status(_)));
                }
                Reply::Denied => assert_eq!(code, Some(&3)),
                Reply::Entry(_) | Reply::EndOfList => assert!(code == Some(&253) && self.ask == Ask::List),
                Reply::NotDone(_) => panic!("this wire cannot say why"),
                Reply::Failed | Reply::TimedOut | Reply::Closed | Reply::Dropped | Reply::NotProved => {}
            }
        }
        self.replies.extend(replies);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Bytes(bytes) => self.give(bytes),
            Step::Proof => self.give(self.proofs().get(..64).unwrap_or_default()),
            Step::OtherProof => self.give(&proof(&self.entropy().0, Hash::Sha512)),
            Step::OldProof => self.give(&proof(&entropy(self.connections - 1).0, Hash::Sha256)),
            Step::Reflect => self.give(&self.entropy().0),
            Step::Handshake(_) => {
                self.send(usize::MAX);
                self.give(&self.proofs());
                self.send(usize::MAX);
            }
            Step::Pass(ms) if self.careful => {
                let replies = self.end.later(*ms);
                self.look_at(replies);
            }
            Step::Pass(ms) => {
                self.end.now = Millis(if ms % 2 == 0 { self.end.now.0 + ms } else { self.end.now.0 / 2 });
                self.end.client.wake(self.end.now);
            }
            Step::Sent(n) => self.send(*n),
            Step::Opened | Step::Reset => {
                self.connections += 1;
                self.given.clear();
                self.sent = 0;
                self.end.client.opened(&self.entropy(), self.end.now);
            }
            Step::Closed => self.end.client.closed(self.end.now),
            Step::Answer(..) | Step::Poll => {}
        }
        if self.careful || matches!(step, Step::Answer(..) | Step::Poll) {
            let replies = self.end.polled();
            if self.careful {
                self.look_at(replies);
                assert!(self.end.client.wake_at().is_none_or(|at| at > self.end.now), "due, and nothing came of it");
            } else {
                self.replies.extend(replies);
            }
        }
    }
}

/// The same two of a client.
pub(crate) fn client(ask: &Ask, auth: Option<Hash>, careful: bool, steps: Vec<Step>) {
    let key = shared();
    let speak = auth.map_or(UNSIGNED, |auth| signed(&key, Hash::Sha256, auth));
    let end = Asking::of_packets(speak, ask, &entropy(1));
    let mut caller = Caller {
        end,
        ask: ask.clone(),
        auth,
        careful,
        connections: 1,
        sent: 0,
        given: Vec::new(),
        replies: Vec::new(),
    };
    for step in steps {
        caller.step(&step);
    }
    let Caller { mut end, mut replies, .. } = caller;
    end.now = end.now.max(Millis(1_000_000));
    replies.extend(end.polled());
    replies.extend(end.later(40_000));
    replies.extend(end.polled());
    let ends = replies.iter().filter(|reply| !matches!(reply, Reply::Entry(_))).count();
    assert_eq!(ends, 1, "it ends, and once: {replies:?}");
    assert!(end.client.is_over());
    assert!(ask == &Ask::List || replies.len() == 1, "entries of what is no list");
}
