//! Two ends of our own wire and the time; bytes are moved whole, step by step.

use crate::by_hand::keys;
use crate::common::ENOUGH;
use fencewire_core::native::keys::Keys;
use fencewire_core::{
    Accept, Answer, Ask, Client, Endpoint, Entropy, Event, Incarnation, Listener, Millis, NativeAccept, Reply, Request,
    RequestId, Speak,
};

/// More than either end needs to say all that it has at one point in time.
const TURNS: usize = 200;

/// Two ends and the time.
pub(crate) struct Pair {
    pub(crate) client: Client,
    pub(crate) listener: Listener,
    pub(crate) now: Millis,
    pub(crate) events: Vec<Event>,
    pub(crate) replies: Vec<Reply>,
}

impl Pair {
    pub(crate) fn new(ask: &Ask) -> Pair {
        Pair::with(ask, &keys(1), keys(1))
    }

    pub(crate) fn with(ask: &Ask, asking: &Keys, answering: Keys) -> Pair {
        Pair::guarded(ask, asking, answering, None)
    }

    pub(crate) fn guarded(ask: &Ask, asking: &Keys, answering: Keys, guard: Option<Incarnation>) -> Pair {
        let now = Millis(1_000_000);
        let speak = Speak::Native { keys: asking, id: 0x1234, guard };
        let client = Client::new(speak, ask, now.plus(Millis(20_000))).expect("can be said");
        let native = Some(NativeAccept { keys: answering, instance: 7 });
        let listener = Listener::new(Accept { classic: false, native, ..Accept::default() });
        let mut pair = Pair { client, listener, now, events: vec![], replies: vec![] };
        pair.listener.opened(&Entropy([2; 64]), now);
        pair.client.opened(&Entropy([1; 64]), now);
        pair
    }

    /// Moves bytes both ways until there are none. Gives what was said on the way.
    pub(crate) fn run(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let bytes = self.client.transmit().to_vec();
            self.client.sent(bytes.len(), self.now);
            self.hear(&bytes);
            let answers = self.listener.transmit().to_vec();
            self.listener.sent(answers.len(), self.now);
            self.reply(&answers);
            if bytes.is_empty() && answers.is_empty() {
                return (there, back);
            }
            there.extend(bytes);
            back.extend(answers);
        }
        panic!("there is always more to say")
    }

    pub(crate) fn hear(&mut self, mut bytes: &[u8]) {
        for _ in 0..ENOUGH {
            let taken = self.listener.receive(bytes, self.now);
            bytes = &bytes[taken..];
            let before = self.events.len();
            self.listener_tells();
            if bytes.is_empty() && self.events.len() == before {
                return;
            }
        }
        panic!("the listener does not take what comes")
    }

    pub(crate) fn reply(&mut self, mut bytes: &[u8]) {
        for _ in 0..ENOUGH {
            let taken = self.client.receive(bytes, self.now);
            bytes = &bytes[taken..];
            let before = self.replies.len();
            self.client_tells();
            if bytes.is_empty() && self.replies.len() == before {
                return;
            }
        }
        panic!("the client does not take what comes")
    }

    fn listener_tells(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.listener.poll()).take(ENOUGH));
    }

    fn client_tells(&mut self) {
        self.replies.extend(std::iter::from_fn(|| self.client.poll()).take(ENOUGH));
    }

    pub(crate) fn later(&mut self, ms: u64) {
        let until = self.now.plus(Millis(ms));
        for _ in 0..ENOUGH {
            let next = [self.client.wake_at(), self.listener.wake_at()].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(at);
            self.client.wake(self.now);
            self.listener.wake(self.now);
            self.listener_tells();
            self.client_tells();
            self.run();
        }
        panic!("one end wants to be woken for ever")
    }

    #[track_caller]
    pub(crate) fn asked(&mut self) -> (RequestId, Request) {
        self.run();
        match self.events.drain(..).collect::<Vec<_>>().as_slice() {
            [Event::Asked(id, request)] => (*id, request.clone()),
            other => panic!("not one request: {other:?}"),
        }
    }

    pub(crate) fn answer(&mut self, id: RequestId, answer: Answer<'_>) {
        self.listener.answer(id, answer, self.now).expect("it is out");
        self.run();
    }
}
