//! Any operations on a ledger of four places, beside a model of what it promises.

use fencewire_core::{
    Accept, Admit, Endpoint, Event, Failure, Ledger, Listener, Millis, NotAdmitted, Observation, Outcome, Permit,
    Power, PowerAction, Remembered, Request, RequestKey, Restart,
};

use super::common::input::Input;
use super::common::{ENTROPY, frame, off, success};

const PLACES: usize = 4;

/// When what is in a journal had come first, and its target was seen off.
const JOURNALED: Millis = Millis(3);

/// Requests that there are.
const REQUESTS: u8 = 7;

/// One of several requests, received at `now`. By its number, its time to act is shorter than it is remembered, as usual,
/// or longer.
fn request(number: u8, now: Millis) -> Request {
    let time_to_act = [1_000, 25_000, 100_000][usize::from(number % 3)];
    let mut listener =
        Listener::new(Accept { settle: Millis(0), time_to_act: Millis(time_to_act), ..Accept::default() });
    listener.opened(&ENTROPY, now);
    let _ = listener.receive(&frame(&off("vm1"), u32::from(number)), now);
    match listener.poll() {
        Some(Event::Asked(_, request)) => request,
        other => panic!("a good frame: {other:?}"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Running,
    /// An earlier run began it.
    Interrupted,
    Settled(Outcome),
}

struct Place {
    key: RequestKey,
    until: Millis,
    state: State,
}

/// What the ledger remembers.
#[derive(Default)]
struct Model {
    places: Vec<Place>,
}

impl Model {
    fn place(&mut self, id: u64) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.key.id == id)
    }

    /// What the ledger is to say, in words.
    fn admit(&mut self, request: &Request, now: Millis) -> String {
        self.places.retain(|place| place.state == State::Running || place.until > now);
        let (key, late) = (request.key(), now >= request.deadline());
        let full = self.places.len() == PLACES;
        let act = |resumed: bool| format!("act {resumed}");
        let refused = |why: NotAdmitted| format!("{why:?}");
        match self.place(key.id) {
            Some(place) if place.key.body != key.body => refused(NotAdmitted::OtherBody),
            Some(Place { state: State::Settled(outcome), .. }) => format!("{outcome:?}"),
            Some(place) if place.state == State::Running => {
                place.until = place.until.max(request.remember_until());
                "running".to_owned()
            }
            _ if late => refused(NotAdmitted::Expired),
            Some(place) => {
                place.state = State::Running;
                act(true)
            }
            None if full => refused(NotAdmitted::Full),
            None => {
                let until = request.remember_until().max(request.deadline());
                self.places.push(Place { key, until, state: State::Running });
                act(false)
            }
        }
    }
}

/// The ledger, its model, and the chances to act that are out.
struct Bed {
    ledger: Ledger<PLACES>,
    model: Model,
    permits: Vec<(Permit, Request)>,
    now: Millis,
}

impl Bed {
    fn admit(&mut self, request: Request) {
        let expected = self.model.admit(&request, self.now);
        let said = match self.ledger.admit(&request, self.now) {
            Admit::Act(permit) => {
                let said = format!("act {}", permit.resumed());
                assert_eq!((permit.key(), permit.deadline()), (request.key(), request.deadline()));
                let received = if permit.resumed() { JOURNALED } else { request.received() };
                assert_eq!(permit.received(), received, "when it came first");
                assert!(self.now < permit.deadline(), "too late to begin anything");
                let out = self.permits.iter().any(|(out, _)| out.key() == permit.key());
                assert!(!out, "twice");
                self.permits.push((permit, request));
                said
            }
            Admit::Running => "running".to_owned(),
            Admit::Repeat(outcome) => format!("{outcome:?}"),
            Admit::Refused(why) => format!("{why:?}"),
        };
        assert_eq!(said, expected);
    }

    fn settle(&mut self, input: &mut Input<'_>) {
        let Some((permit, request)) = self.spent(input) else { return };
        let seen = Observation { power: input.power(), asked: Millis(u64::from(input.word())) };
        let after = seen.asked >= permit.received();
        assert_eq!(permit.confirm_off(seen).is_some(), seen.power == Power::Off && after, "{seen:?}");
        let action = input.one_of(&[PowerAction::Off, PowerAction::Reboot, PowerAction::On]);
        let outcome = if input.flag() {
            success(action, &permit, self.now.max(request.received()))
        } else {
            Outcome::Failed(Failure::Unconfirmed)
        };
        let place = self.model.place(permit.key().id).expect("what runs is remembered");
        place.state = State::Settled(outcome);
        self.ledger.settle(permit, outcome);
    }

    fn withdraw(&mut self, input: &mut Input<'_>) {
        let Some((permit, _)) = self.spent(input) else { return };
        let key = permit.key();
        if permit.resumed() {
            self.model.place(key.id).expect("what runs is remembered").state = State::Interrupted;
        } else {
            self.model.places.retain(|place| place.key != key);
        }
        self.ledger.withdraw(permit);
    }

    fn spent(&mut self, input: &mut Input<'_>) -> Option<(Permit, Request)> {
        (!self.permits.is_empty()).then(|| self.permits.swap_remove(input.below(self.permits.len())))
    }

    /// What is in a journal is there once, and no ledger knows of it yet.
    fn restore(&mut self, input: &mut Input<'_>) {
        let mut key = request(input.byte() % REQUESTS, Millis(0)).key();
        if input.byte() == 0 {
            key.body = [0; 16];
        }
        if self.model.place(key.id).is_some() {
            return;
        }
        let until = Millis(u64::from(input.word()) * 4);
        let action = input.one_of(&[PowerAction::Off, PowerAction::Reboot, PowerAction::On]);
        let restart = input.one_of(&[Restart::Started, Restart::NotStarted]);
        let seen = JOURNALED;
        let what = match input.below(3) {
            0 => Remembered::Begun(seen),
            1 => Remembered::Done(action, seen, restart),
            _ => Remembered::Failed(Failure::Unconfirmed),
        };
        let full = self.model.places.len() == PLACES;
        assert_eq!(self.ledger.restore(key, until, what), !full);
        if full {
            return;
        }
        let state = match what {
            Remembered::Begun(_) => State::Interrupted,
            Remembered::Failed(why) => State::Settled(Outcome::Failed(why)),
            Remembered::Done(..) => State::Settled(self.remembered(key, action, seen, restart)),
        };
        self.model.places.push(Place { key, until, state });
    }

    /// What a ledger makes of a success that was written down. Only a ledger can say that something was seen off: it is
    /// asked, and its answer looked at.
    fn remembered(&mut self, key: RequestKey, action: PowerAction, seen: Millis, restart: Restart) -> Outcome {
        let mut other = Ledger::<1>::new();
        assert!(other.restore(key, Millis(u64::MAX), Remembered::Done(action, seen, restart)));
        let number = (0..REQUESTS).find(|number| request(*number, Millis(0)).key().id == key.id).expect("one of them");
        let asked = request(number, self.now);
        let Admit::Repeat(outcome) = other.admit(&asked, self.now) else {
            // Restored under another body.
            assert_eq!(key.body, [0; 16]);
            return Outcome::On;
        };
        match (action, outcome) {
            (PowerAction::Off, Outcome::Off(off)) => assert_eq!(off.seen(), seen),
            (PowerAction::Reboot, Outcome::Rebooted(off, then)) => assert_eq!((off.seen(), then), (seen, restart)),
            (PowerAction::On, Outcome::On) => {}
            other => panic!("not what was done: {other:?}"),
        }
        outcome
    }
}

/// A ledger: any operations, in any order.
pub fn ledger(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut bed = Bed { ledger: Ledger::new(), model: Model::default(), permits: Vec::new(), now: Millis(1_000) };
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0..=2 => {
                let late = Millis(input.one_of(&[0, 0, 0, 999, 1_000, 25_000, 99_999]));
                let received = Millis(bed.now.since(late).0);
                bed.admit(request(input.byte() % REQUESTS, received));
            }
            3 | 4 => bed.settle(&mut input),
            5 => bed.withdraw(&mut input),
            6 => bed.restore(&mut input),
            _ => {
                let span = input.one_of(&[1, 999, 1_000, 25_000, 34_999, 35_000, 60_000, 100_000]);
                bed.now = bed.now.plus(Millis(span));
            }
        }
        assert_eq!(bed.ledger.len(), bed.model.places.len());
        assert_eq!(bed.ledger.is_empty(), bed.model.places.is_empty());
        assert!(bed.ledger.len() <= PLACES);
        let running = bed.model.places.iter().filter(|place| place.state == State::Running).count();
        assert_eq!(running, bed.permits.len(), "as many run as may");
    }
}
