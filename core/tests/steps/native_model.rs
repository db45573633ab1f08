//! A second way of keeping the sessions of a native listener: which frames count, and what may be said to whom.

use fencewire_core::classic::serial::{REQUEST_LEN, decode_request};
use fencewire_core::listener::{DEADLINE_MAX, HALF_OPEN, REQUEST_TIME};
use fencewire_core::native::frame::Deframer;
use fencewire_core::native::keys::{Keys, Session, TAG_LEN};
use fencewire_core::native::message::{
    self, Entry, HELLO, Head, Hello, REPLY, REQUEST, REQUEST_MAX, Reply, Request as Asked, Result as Came, Said,
    WELCOME, Welcome, What, Whom,
};
use fencewire_core::{Answer, Ask, Failure, Millis, Outcome, Power, PowerAction, Request};

/// A session whose welcome was read.
pub(crate) struct Known {
    pub(crate) session: Session,
    /// The hello that it answers.
    pub(crate) hello: Vec<u8>,
    /// Of the last frame that was said in it, that counted, and that was heard.
    pub(crate) said: u32,
    pub(crate) counted: u32,
    pub(crate) heard: u32,
}

/// The session that is pending.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pending {
    None,
    /// Of this hello; its welcome has not gone yet.
    Unread(Vec<u8>),
    /// This one; a request in it must have begun by then.
    Until(usize, Millis),
}

/// What was asked: the asker's id, what, which run, until when.
pub(crate) type Meant = (u64, Ask, Option<[u8; 16]>, u64);

/// What the listener may make of what comes, and what it may say.
pub(crate) struct Model {
    pub(crate) keys: Keys,
    pub(crate) coming: Deframer,
    pub(crate) going: Deframer,
    pub(crate) sessions: Vec<Known>,
    /// Hellos that were good, with the clock then.
    pub(crate) hellos: Vec<(Vec<u8>, Millis)>,
    pending: Pending,
    /// When the frame began that is coming.
    begun: Millis,
    /// A good hello has come, and whether it is the one of the session that is pending.
    greeted: Option<(Vec<u8>, bool)>,
    /// Welcomes that wait to be read.
    unread: usize,
    pub(crate) established: Option<usize>,
    /// What was asked in frames that count and was not handed out.
    pub(crate) meant: Vec<Meant>,
    /// All ids that were ever asked under.
    pub(crate) ids: Vec<u64>,
    /// Frames of ours since the last look that do not count.
    pub(crate) refused: usize,
    /// All that came, for what fence-virt's wire finds in it.
    pub(crate) stream: Vec<u8>,
    /// Answers that were taken, by the asker's id.
    pub(crate) answered: Vec<(u64, Answer<'static>)>,
    /// Whether a welcome had room cannot be seen where fence-virt's replies go first.
    pub(crate) is_unsure: bool,
}

impl Model {
    pub(crate) fn new(keys: Keys) -> Model {
        Model {
            keys,
            coming: Deframer::new(),
            going: Deframer::new(),
            sessions: Vec::new(),
            hellos: Vec::new(),
            pending: Pending::None,
            begun: Millis(0),
            greeted: None,
            unread: 0,
            established: None,
            meant: Vec::new(),
            ids: Vec::new(),
            refused: 0,
            stream: Vec::new(),
            answered: Vec::new(),
            is_unsure: false,
        }
    }

    pub(crate) fn closed(&mut self) {
        self.coming = Deframer::new();
        self.sessions.clear();
        self.hellos.clear();
        (self.pending, self.established, self.unread) = (Pending::None, None, 0);
    }

    pub(crate) fn comes(&mut self, bytes: &[u8], now: Millis) {
        self.stream.extend(bytes);
        for &byte in bytes {
            let begins = byte == 0 || !self.coming.has_begun();
            if !self.coming.push(byte) {
                self.begun = if begins { now } else { self.begun };
                continue;
            }
            let payload = self.coming.payload().to_vec();
            if payload.len() > REQUEST_MAX {
                continue;
            }
            let counts = match payload[0] {
                HELLO => self.hello(&payload, now),
                REQUEST => self.request(&payload, now),
                _ => continue,
            };
            self.refused += usize::from(counts.is_none() && payload.len() > TAG_LEN);
        }
    }

    fn hello(&mut self, payload: &[u8], now: Millis) -> Option<()> {
        let (body, tag) = message::split_tag(payload)?;
        let (hello, rest) = message::read::<Hello>(HELLO, body)?;
        let ours = (hello.guest, hello.generation) == (*self.keys.guest().as_bytes(), self.keys.generation());
        if self.keys.hello_tag(body) != tag || !ours || !rest.is_empty() {
            return None;
        }
        if hello.min > 1 || hello.max < 1 {
            return Some(());
        }
        self.hellos.push((payload.to_vec(), now));
        let is_again = match &self.pending {
            // Its welcome is on its way: nothing is said.
            Pending::Unread(hello) if hello == payload => return Some(()),
            Pending::None | Pending::Unread(_) => false,
            Pending::Until(at, until) => self.sessions[*at].hello == payload && now < *until,
        };
        self.greeted = Some((payload.to_vec(), is_again));
        Some(())
    }

    /// Whether the welcome to the hello that came last had room; nobody can tell where that cannot be seen.
    pub(crate) fn was_welcomed(&mut self, said: Option<bool>) {
        let Some((hello, is_again)) = self.greeted.take() else { return };
        match said {
            None => self.is_unsure = true,
            Some(false) => {}
            Some(true) => {
                self.unread += 1;
                if !is_again {
                    self.pending = Pending::Unread(hello);
                }
            }
        }
    }

    /// What waited to be read was dropped.
    pub(crate) fn was_not_read(&mut self, all: bool) {
        self.is_unsure |= !all && self.unread > 0;
        self.unread = 0;
        if matches!(self.pending, Pending::Unread(_)) {
            self.pending = Pending::None;
        }
    }

    fn request(&mut self, payload: &[u8], now: Millis) -> Option<()> {
        let (body, tag) = message::split_tag(payload)?;
        let (head, rest) = message::read::<Head>(REQUEST, body)?;
        let at = self.sessions.iter().position(|known| known.session.asking.tag(&[body]) == tag)?;
        let known = &mut self.sessions[at];
        let is_pending = match self.pending {
            Pending::Until(pending, until) => {
                let late = if self.begun < until { until.max(self.begun.plus(REQUEST_TIME)) } else { until };
                pending == at && now < late
            }
            _ => false,
        };
        let is_live = self.established == Some(at) || is_pending;
        if !is_live || known.session.name != head.session || head.counter <= known.counted {
            return None;
        }
        known.counted = head.counter;
        if self.established != Some(at) {
            (self.established, self.pending) = (Some(at), Pending::None);
        }
        let bytes = [&[0], rest].concat();
        if let Some((asked, [])) = message::read::<Asked<'_>>(0, &bytes) {
            self.ids.push(asked.id);
            if let Some((ask, run)) = meaning(&asked.what)
                && asked.deadline <= now.plus(DEADLINE_MAX).0
            {
                self.meant.push((asked.id, ask, run, asked.deadline));
            }
        }
        Some(())
    }

    /// Rules 2, 3 and 5: what is handed out was asked, by a frame that counts, and each frame asks once.
    pub(crate) fn handed_out(&mut self, request: &Request, classic: bool) {
        if !request.is_native() {
            assert!(classic, "that wire is not answered");
            let is_it = |frame: &[u8]| {
                let frame = frame.first_chunk().expect("a whole one");
                decode_request(frame) == Ok((request.ask().clone(), request.key()))
            };
            assert!(self.stream.windows(REQUEST_LEN).any(is_it), "nobody asked fence-virt's way: {request:?}");
            return;
        }
        let run = request.guard().map(|run| *run.as_bytes());
        let it = (request.key().id, request.ask().clone(), run, request.deadline().0);
        let at = self.meant.iter().position(|meant| *meant == it);
        let at = at.unwrap_or_else(|| panic!("nobody asked that, or once only: {request:?}"));
        self.meant.drain(..=at);
    }

    pub(crate) fn goes(&mut self, bytes: &[u8], now: Millis) {
        for &byte in bytes {
            if !self.going.push(byte) || self.is_unsure {
                continue;
            }
            let payload = self.going.payload().to_vec();
            match payload[0] {
                WELCOME => self.welcome(&payload, now),
                REPLY => self.reply(&payload),
                kind => panic!("a listener says nothing of kind {kind}"),
            }
        }
    }

    fn welcome(&mut self, payload: &[u8], now: Millis) {
        let (body, tag) = message::split_tag(payload).expect("it has a tag");
        let (welcome, rest) = message::read::<Welcome>(WELCOME, body).expect("it is one");
        assert_eq!((welcome.min, welcome.max, welcome.version, welcome.instance, rest), (1, 1, 1, 7, &[][..]));
        let answers = |(hello, since): &&(Vec<u8>, Millis)| {
            self.keys.proves_welcome(hello, body, tag) && since.0 == welcome.stamp
        };
        let (hello, _) = self.hellos.iter().find(answers).expect("a good hello was there").clone();
        let session = self.keys.session(&hello, payload);
        if self.sessions.iter().all(|known| known.session.name != session.name) {
            self.sessions.push(Known { session, hello, said: 0, counted: 0, heard: 0 });
        }
        self.unread -= 1;
        if self.unread == 0 && matches!(self.pending, Pending::Unread(_)) {
            self.pending = Pending::Until(self.sessions.len() - 1, now.plus(HALF_OPEN));
        }
    }

    /// Rule 1: what is said is what the owner said.
    fn reply(&mut self, payload: &[u8]) {
        let (body, tag) = message::split_tag(payload).expect("it has a tag");
        let (head, rest) = message::read::<Head>(REPLY, body).expect("it is one");
        let known = self.sessions.iter_mut().find(|known| known.session.answering.tag(&[body]) == tag);
        let known = known.expect("a session that somebody spoke in");
        assert_eq!(known.session.name, head.session);
        assert!(head.counter > known.heard && known.counted > 0, "a counter that was used, or nobody has asked");
        known.heard = head.counter;
        let bytes = [&[0], rest].concat();
        let (Reply { id, said }, rest) = message::read::<Reply>(0, &bytes).expect("it is one");
        assert!(self.ids.contains(&id), "an answer to nobody");
        if let Said::List(count, _) = said {
            entries(count, rest);
        } else {
            assert!(rest.is_empty());
        }
        let answers = self.answered.iter().filter(|(of, _)| *of == id).map(|(_, answer)| *answer);
        let is_said = answers.into_iter().any(|answer| is_that(&answer, &said)) || says_nothing(&said);
        assert!(is_said, "its owner never said {said:?}");
    }
}

fn meaning(what: &What<'_>) -> Option<(Ask, Option<[u8; 16]>)> {
    let power = |action, whom: &Whom<'_>| Some(Ask::Power(action, whom.target().ok()?));
    Some(match what {
        What::Off(whom, run) => (power(PowerAction::Off, whom)?, *run),
        What::Reboot(whom, run) => (power(PowerAction::Reboot, whom)?, *run),
        What::On(whom) => (power(PowerAction::On, whom)?, None),
        What::Status(whom) => (Ask::Status(whom.target().ok()?), None),
        What::Monitor => (Ask::Monitor, None),
        What::List(_) => (Ask::List, None),
    })
}

fn entries(count: u8, bytes: &[u8]) {
    let mut rest = bytes.to_vec();
    let mut last = None;
    for _ in 0..count {
        let bytes = [&[0], &rest[..]].concat();
        let (entry, behind) = message::read::<Entry<'_>>(0, &bytes).expect("as many as it says");
        assert!(last.is_none_or(|last| last < entry.uuid), "in the order of UUIDs");
        last = Some(entry.uuid);
        rest = behind.to_vec();
    }
    assert!(rest.is_empty(), "and no more");
}

/// What needs no answer of the owner's.
fn says_nothing(said: &Said) -> bool {
    match said {
        Said::Accepted | Said::Working | Said::Failed(_) => true,
        Said::Done(done) => matches!(done.result, Came::Failed(_)) && !done.seen_off,
        Said::Status(..) | Said::Alive | Said::List(..) | Said::Denied => false,
    }
}

fn is_that(answer: &Answer<'_>, said: &Said) -> bool {
    match (said, answer) {
        (Said::Done(done), Answer::Outcome(outcome)) => match (done.result, outcome) {
            (Came::Off, Outcome::Off(_)) | (Came::Rebooted | Came::NotStarted, Outcome::Rebooted(..)) => done.seen_off,
            (Came::On, Outcome::On) => !done.seen_off,
            _ => false,
        },
        (Said::Status(runs, None), Answer::Power(power)) => Power::from(*runs) == *power,
        (Said::Alive, Answer::Alive)
        | (Said::List(..), Answer::Entry(_) | Answer::EndOfList)
        | (Said::Denied, Answer::Denied | Answer::Failed(Failure::Forbidden)) => true,
        _ => false,
    }
}
