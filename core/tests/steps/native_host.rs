//! The native wire's client, driven by steps: whoever is at the other end has the host's key, another's or none, and says
//! anything in any order.

use super::by_hand::{GUEST, ID, framed, keys, written};
use super::common::Asking;
use super::common::input::Input;
use super::native_bytes::said;
use fencewire_core::listener::DEADLINE_MAX;
use fencewire_core::native::frame::Deframer;
use fencewire_core::native::keys::{Keys, Session};
use fencewire_core::native::message::{
    self, Entry, HELLO, Head, Hello, REPLY, REQUEST, Reply as Replied, Request, Result as Came, Runs, Said, WELCOME,
    Welcome, What, Whom,
};
use fencewire_core::{Ask, Client, Endpoint, Entropy, Incarnation, Millis, Power, PowerAction, Reply, Speak, Target};

const STEPS: usize = 100;

/// How long the client has.
const PATIENCE: u64 = 40_000;

const SPANS: [u64; 10] = [0, 1, 299, 300, 1_000, 2_999, 3_000, 5_000, 39_999, 40_000];

/// A session that the host's end has made.
struct Made {
    session: Session,
    instance: u64,
    stamp: u64,
    /// Of the last reply, and of the last request that was heard in it.
    said: u32,
    heard: u32,
    /// The client can have taken its welcome: it answers a hello of this connection.
    is_good: bool,
}

struct Bed {
    end: Asking,
    ask: Ask,
    guard: Option<Incarnation>,
    keys: Keys,
    deadline: Millis,
    going: Deframer,
    /// Of the frame of which the port took a part.
    rest: Vec<u8>,
    hellos: Vec<Vec<u8>>,
    /// Of earlier connections.
    old: usize,
    made: Vec<Made>,
    /// All welcomes are of one instance, whose clock goes on; and the last deadline that was said, and to which instance.
    one_clock: bool,
    due: Option<(u64, u64)>,
    /// Of the request that was sent last.
    id: u64,
    /// What was said under the right key and id in a session of this connection; entries of lists.
    told: Vec<Said>,
    entries: usize,
    /// Chunks of a list that were said not to be the last: for each there is another request, with the next id.
    more: u64,
    noted: Vec<Vec<u8>>,
    recording: Vec<Vec<u8>>,
    queue: Vec<u8>,
    replies: Vec<Reply>,
}

impl Bed {
    fn new(ask: Ask, guard: Option<Incarnation>, keys: Keys, one_clock: bool) -> Bed {
        let now = Millis(1_000_000);
        let deadline = now.plus(Millis(PATIENCE));
        let client = Client::new(Speak::Native { keys: &keys, id: ID, guard }, &ask, deadline).expect("can be said");
        Bed {
            end: Asking { client, now },
            ask,
            guard,
            keys,
            deadline,
            going: Deframer::new(),
            rest: vec![],
            hellos: vec![],
            old: 0,
            made: vec![],
            one_clock,
            due: None,
            id: ID,
            told: vec![],
            entries: 0,
            more: 0,
            noted: vec![],
            recording: vec![],
            queue: vec![],
            replies: vec![],
        }
    }

    fn opens(&mut self, entropy: u8) {
        self.end.client.opened(&Entropy([entropy; 64]), self.end.now);
        self.old = self.hellos.len();
        self.made.iter_mut().for_each(|made| made.is_good = false);
        self.told.clear();
        self.going = Deframer::new();
    }

    /// The port takes so many bytes. Every frame of the client's is looked at.
    fn sends(&mut self, n: usize) {
        let bytes = self.end.client.transmit();
        if !bytes.starts_with(&self.rest) {
            // What has gone of the last frame is nothing: another one took its place.
            self.going = Deframer::new();
        }
        let (bytes, rest) = bytes.split_at(n.min(bytes.len()));
        let bytes = bytes.to_vec();
        self.rest = rest.to_vec();
        self.end.client.sent(bytes.len(), self.end.now);
        for &byte in &bytes {
            if self.going.push(byte) {
                let payload = self.going.payload().to_vec();
                match payload[0] {
                    HELLO => self.hello(payload),
                    REQUEST => self.request(&payload),
                    kind => panic!("a client says nothing of kind {kind}"),
                }
            }
        }
        self.recording.push(bytes);
    }

    fn hello(&mut self, payload: Vec<u8>) {
        let (body, tag) = message::split_tag(&payload).expect("it has a tag");
        let (hello, rest) = message::read::<Hello>(HELLO, body).expect("it is one");
        assert!(rest.is_empty() && self.keys.proves_hello(body, tag));
        let (guest, generation) = (*self.keys.guest().as_bytes(), self.keys.generation());
        assert_eq!((hello.min, hello.max, hello.guest, hello.generation), (1, 1, guest, generation));
        let known = self.hellos.iter().position(|known| *known == payload);
        match known {
            None => self.hellos.push(payload),
            // With one entropy for two connections the nonces are the same, and nothing here gives one twice.
            Some(at) => assert_eq!(at + 1, self.hellos.len(), "a nonce that was used before"),
        }
    }

    fn request(&mut self, payload: &[u8]) {
        let (body, tag) = message::split_tag(payload).expect("it has a tag");
        let (head, rest) = message::read::<Head>(REQUEST, body).expect("it is one");
        let made = self.made.iter_mut().find(|made| made.session.asking.tag(&[body]) == tag);
        let made = made.expect("in a session that there is");
        assert!(made.is_good && made.session.name == head.session, "of another connection");
        assert!(head.counter > made.heard, "a counter that was used");
        made.heard = head.counter;
        let (clock, asked) = (made.stamp, made.instance);
        let bytes = [&[0], rest].concat();
        let (request, rest) = message::read::<Request<'_>>(0, &bytes).expect("it is one");
        assert!(rest.is_empty());
        // Rules 2 and 3: it asks for what it was made for, under its own id, and never becomes younger.
        assert!(means(&request.what, &self.ask, self.guard), "{request:?}");
        assert!(self.may_be_asked(request.id));
        self.id = request.id;
        let most = clock.saturating_add(PATIENCE.min(DEADLINE_MAX.0));
        assert!(request.deadline <= most, "later than it gives up itself");
        let is_power = matches!(self.ask, Ask::Power(..));
        if let Some((due, instance)) = self.due.filter(|_| is_power || self.one_clock) {
            assert_eq!(asked, instance, "what one may have done is asked of another");
            assert!(request.deadline <= due, "it has become younger");
        }
        self.due = Some((request.deadline, asked));
    }

    fn says(&mut self, frame: Vec<u8>) {
        self.queue.extend(&frame);
        self.recording.push(frame);
    }

    fn welcome(&mut self, input: &mut Input<'_>) {
        let Some(last) = self.hellos.len().checked_sub(1) else { return };
        let at = last.saturating_sub(usize::from(input.below(8) == 7));
        let hello = self.hellos[at].clone();
        let version = input.one_of(&[1, 1, 1, 1, 1, 1, 0, 2]);
        let clock = 5_000_000 + 2 * self.end.now.0;
        let any = [(7, 5_000_000), (7, clock), (8, 7), (8, u64::MAX - 9)];
        let (instance, stamp) = if self.one_clock { (7, clock) } else { input.one_of(&any) };
        let welcome = Welcome { min: 1, max: 1, version, instance, stamp, nonce: [input.byte(); 16] };
        let keys = self.key(input);
        let mut payload = [&[WELCOME][..], &written(&welcome)].concat();
        if input.below(16) == 15 {
            payload.extend(input.some().iter().take(20));
        }
        let tag = keys.welcome_tag(&hello, &payload);
        payload.extend(tag);
        let session = keys.session(&hello, &payload);
        let is_good = at >= self.old;
        if self.made.iter().all(|made| made.session.name != session.name) {
            self.made.push(Made { session, instance, stamp, said: 0, heard: 0, is_good });
        }
        self.says(framed(&payload));
    }

    /// The right ones, but for some.
    fn key(&self, input: &mut Input<'_>) -> Keys {
        match input.below(16) {
            14 => Keys::derive(b"another master", GUEST, 1),
            15 => keys(2),
            _ => self.keys.clone(),
        }
    }

    fn reply(&mut self, input: &mut Input<'_>) {
        let said = if input.flag() { self.answer(input) } else { said(input) };
        let number = self.made.len();
        let Some(at) = number.checked_sub(1 + input.below(8) / 7) else { return };
        let id = [self.id, self.id, self.id, self.id, self.id, self.id, self.id + 1, self.id - 1][input.below(8)];
        let made = &mut self.made[at];
        let counter = input.one_of(&[None, None, None, None, Some(1), Some(0), Some(u32::MAX)]);
        let counter = counter.unwrap_or(made.said.saturating_add(1));
        made.said = made.said.max(counter);
        let mut payload =
            [&[REPLY][..], &written(&Head { session: made.session.name, counter }), &written(&Replied { id, said })]
                .concat();
        if let Said::List(count, _) = said {
            let names = ["vm1", "", "a name"];
            for number in 0..count.min(3) {
                let name = names[usize::from(number)];
                payload.extend(written(&Entry { uuid: input.array(), runs: Runs::On, name }));
            }
        } else {
            payload.extend(input.some().iter().take(9));
        }
        let turned = input.below(16) == 15;
        let key = if turned { &made.session.asking } else { &made.session.answering };
        payload.extend(key.tag(&[&payload]));
        self.says(framed(&payload));
    }

    /// One that fits.
    fn answer(&self, input: &mut Input<'_>) -> Said {
        let runs = input.one_of(&[Runs::On, Runs::Off, Runs::Unknown]);
        match (&self.ask, said(input)) {
            (Ask::Status(_), _) => Said::Status(runs, None),
            (Ask::Monitor, _) => Said::Alive,
            (Ask::List, _) => Said::List(input.byte() & 3, input.flag()),
            (Ask::Power(..), Said::Done(done)) => Said::Done(done),
            (_, other) => other,
        }
    }

    /// Whether the client can be at that id. It reads a chunk that has come before it was asked for: who has the key may
    /// guess what is asked next.
    fn may_be_asked(&self, id: u64) -> bool {
        let more = if self.ask == Ask::List { self.more } else { 0 };
        (self.id..=ID + more).contains(&id)
    }

    /// What comes is noted as what may be told: under the right key and id, in a session of this connection.
    fn notes(&mut self, bytes: &[u8], coming: &mut Deframer) {
        for &byte in bytes {
            if !coming.push(byte) {
                continue;
            }
            let payload = coming.payload().to_vec();
            let Some((body, tag)) = message::split_tag(&payload) else { continue };
            let Some((_, rest)) = message::read::<Head>(REPLY, body) else { continue };
            let is_good = |made: &Made| made.is_good && made.session.answering.tag(&[body]) == tag;
            // One that comes twice counts once.
            if !self.made.iter().any(is_good) || self.noted.contains(&payload) {
                continue;
            }
            self.noted.push(payload.clone());
            let bytes = [&[0], rest].concat();
            let Some((replied, _)) = message::read::<Replied>(0, &bytes) else { continue };
            if self.may_be_asked(replied.id) {
                self.told.push(replied.said);
                if let Said::List(count, more) = replied.said {
                    self.entries += usize::from(count);
                    self.more += u64::from(more);
                }
            }
        }
    }

    /// Rule 1: what is told was said.
    fn hears(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            assert!(!self.replies.iter().any(|reply| !matches!(reply, Reply::Entry(_))), "it had ended");
            let is_said = self.told.iter().any(|said| self.may_tell(said, &reply));
            let is_own = match reply {
                Reply::TimedOut => self.end.now >= self.deadline,
                Reply::Closed => true,
                _ => false,
            };
            assert!(is_said || is_own, "nobody said that: {reply:?} to {:?} by {:?}", self.ask, self.told);
            self.replies.push(reply);
        }
        let listed = self.replies.iter().filter(|reply| matches!(reply, Reply::Entry(_))).count();
        assert!(listed <= self.entries);
    }

    fn may_tell(&self, said: &Said, reply: &Reply) -> bool {
        match (said, reply) {
            (Said::Done(done), Reply::Done) => match (&self.ask, done.result) {
                (Ask::Power(PowerAction::Off, _), Came::Off)
                | (Ask::Power(PowerAction::Reboot, _), Came::Rebooted | Came::NotStarted) => done.seen_off,
                (Ask::Power(PowerAction::On, _), Came::On) => true,
                _ => false,
            },
            (Said::Alive, Reply::Done) => self.ask == Ask::Monitor,
            (Said::Status(runs, _), Reply::Power(power)) => {
                matches!(self.ask, Ask::Status(_)) && Power::from(*runs) == *power
            }
            (Said::List(..), Reply::Entry(_) | Reply::EndOfList) => self.ask == Ask::List,
            (Said::Failed(reason), Reply::NotDone(why)) => *why == (*reason).into(),
            (Said::Done(done), Reply::NotDone(why)) => done.result == Came::Failed((*why).into()),
            // The last: an answer to something else.
            (Said::Denied, Reply::Denied)
            | (Said::Done(_) | Said::Status(..) | Said::Alive | Said::List(..), Reply::Failed) => true,
            _ => false,
        }
    }

    fn deliver(&mut self, n: usize, coming: &mut Deframer) {
        let n = n.min(self.queue.len());
        let bytes: Vec<u8> = self.queue.drain(..n).collect();
        self.notes(&bytes, coming);
        let replies = self.end.give(&bytes);
        self.hears(replies);
    }

    fn step(&mut self, input: &mut Input<'_>, coming: &mut Deframer) {
        match input.below(16) {
            0..=2 => self.sends(usize::MAX),
            3 => self.sends(usize::from(input.byte())),
            4 | 5 => self.welcome(input),
            6..=9 => self.reply(input),
            10 => self.queue.extend(input.some()),
            11 | 12 => self.again(input),
            13 => {
                let replies = self.end.later(input.one_of(&SPANS));
                self.hears(replies);
            }
            14 => {
                let replies = self.end.later(u64::from(input.word()) / 8);
                self.hears(replies);
            }
            _ if input.below(4) == 3 => self.end.client.closed(self.end.now),
            _ => {
                // Another connection's entropy is another.
                self.opens(self.hellos.len() as u8 + 2);
                *coming = Deframer::new();
            }
        }
        match input.below(8) {
            0..=4 => self.deliver(usize::MAX, coming),
            5 => self.deliver(usize::from(input.byte()), coming),
            6 => (0..self.queue.len()).for_each(|_| self.deliver(1, coming)),
            _ => {}
        }
        let replies = self.end.polled();
        self.hears(replies);
        assert!(self.end.client.wake_at().is_none_or(|at| at > self.end.now), "due, and nothing came of it");
    }

    fn again(&mut self, input: &mut Input<'_>) {
        let Some(last) = self.recording.len().checked_sub(1) else { return };
        let mut frame = self.recording[last.saturating_sub(input.below(256))].clone();
        if input.flag() && !frame.is_empty() {
            let at = input.below(256) % frame.len();
            match input.below(3) {
                0 => frame[at] ^= input.byte(),
                1 => frame.truncate(at),
                _ => _ = frame.remove(at),
            }
        }
        self.queue.extend(frame);
    }
}

fn means(what: &What<'_>, ask: &Ask, guard: Option<Incarnation>) -> bool {
    let guard = guard.map(|guard| *guard.as_bytes());
    let is_target = |whom: &Whom<'_>, target: &Target| whom.target().as_ref() == Ok(target);
    match (what, ask) {
        (What::Off(whom, run), Ask::Power(PowerAction::Off, target))
        | (What::Reboot(whom, run), Ask::Power(PowerAction::Reboot, target)) => {
            is_target(whom, target) && *run == guard
        }
        (What::On(whom), Ask::Power(PowerAction::On, target)) | (What::Status(whom), Ask::Status(target)) => {
            is_target(whom, target)
        }
        (What::Monitor, Ask::Monitor) | (What::List(_), Ask::List) => true,
        _ => false,
    }
}

/// The client of a guest that was enrolled, or of one of those without a key.
pub(crate) fn client(input: &mut Input<'_>) {
    let mine = if input.flag() { Keys::keyless() } else { keys(1) };
    let guard = input.flag().then_some(Incarnation::from_bytes([5; 16]));
    let mut bed = Bed::new(input.ask(), guard, mine, input.flag());
    let mut coming = Deframer::new();
    bed.opens(1);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        bed.step(input, &mut coming);
    }
    // It ends, and once, at its deadline at the latest.
    let replies = bed.end.later(PATIENCE);
    bed.hears(replies);
    let replies = bed.end.polled();
    bed.hears(replies);
    let ends = bed.replies.iter().filter(|reply| !matches!(reply, Reply::Entry(_))).count();
    assert_eq!(ends, 1, "{:?}", bed.replies);
    assert!(bed.end.client.is_over() && bed.end.client.transmit().is_empty());
    assert_eq!(bed.end.client.wake_at(), None);
}
