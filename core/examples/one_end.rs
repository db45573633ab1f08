//! Plays one end of one request again and again, against what the other end said in a recording: so the cost of that end
//! alone can be counted (`tests/instructions`). Nothing is random and no clock is read: every run does the very same.
//!
//! `one_end client|listener classic|keyless|keyed status|off TIMES`

use fencewire_core::native::keys::Keys;
use fencewire_core::{
    Accept, Admit, Answer, Ask, Client, Endpoint, Entropy, Event, Ledger, Listener, Millis, NativeAccept, Observation,
    Outcome, Power, PowerAction, Reply, Request, Speak, Target, Uuid,
};
use std::process::ExitCode;

const NOW: Millis = Millis(1_000_000);
const GUEST: Uuid = Uuid::from_bytes([7; 16]);

/// What is said over which wire.
struct Case {
    keys: Option<Keys>,
    ask: Ask,
}

impl Case {
    fn client(&self) -> Client {
        let speak = match &self.keys {
            Some(keys) => Speak::Native { keys, id: 0x1122_3344_5566_7788, guard: None },
            None => Speak::ClassicSerial { seqno: 7 },
        };
        let mut client = Client::new(speak, &self.ask, NOW.plus(Millis(20_000))).expect("it can be said");
        client.opened(&Entropy([1; 64]), NOW);
        client
    }

    fn listener(&self) -> Listener {
        let native = self.keys.clone().map(|keys| NativeAccept { keys, instance: 0x0102_0304_0506_0708 });
        let accept = Accept { settle: Millis(0), classic: native.is_none(), native, ..Accept::default() };
        let mut listener = Listener::new(accept);
        listener.opened(&Entropy([2; 64]), NOW);
        listener
    }
}

/// Answers as an owner does to whom the hypervisor has said what it wants to hear.
fn answer(request: &Request) -> Answer<'static> {
    let Ask::Power(..) = request.ask() else { return Answer::Power(Power::On) };
    let mut ledger = Ledger::<4>::new();
    let Admit::Act(permit) = ledger.admit(request, NOW) else { return Answer::Denied };
    let Some(off) = permit.confirm_off(Observation { power: Power::Off, asked: NOW }) else { return Answer::Denied };
    ledger.settle(permit, Outcome::Off(off));
    Answer::Outcome(Outcome::Off(off))
}

/// The listener hears this, and its owner answers what it is asked.
#[inline(never)]
fn hear(listener: &mut Listener, mut bytes: &[u8]) {
    loop {
        bytes = &bytes[listener.receive(bytes, NOW)..];
        while let Some(event) = listener.poll() {
            let Event::Asked(id, request) = event else { panic!("{event:?}") };
            listener.answer(id, answer(&request), NOW).expect("it was asked");
        }
        if bytes.is_empty() {
            return;
        }
    }
}

/// The client hears this. What came of it, if that was the end.
#[inline(never)]
fn learn(client: &mut Client, mut bytes: &[u8]) -> Option<Reply> {
    let mut reply = None;
    while !bytes.is_empty() && reply.is_none() {
        bytes = &bytes[client.receive(bytes, NOW)..];
        reply = client.poll();
    }
    reply
}

fn said(end: &mut impl Endpoint) -> Vec<u8> {
    let bytes = end.transmit().to_vec();
    end.sent(bytes.len(), NOW);
    bytes
}

/// What the client and the listener said in turn.
fn record(case: &Case) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut client, mut listener) = (case.client(), case.listener());
    let mut turns = Vec::new();
    loop {
        let there = said(&mut client);
        hear(&mut listener, &there);
        let back = said(&mut listener);
        assert!(!back.is_empty(), "no answer to {there:02x?}");
        let reply = learn(&mut client, &back);
        turns.push((there, back));
        if reply.is_some() {
            assert!(matches!(reply, Some(Reply::Done | Reply::Power(Power::On))), "{reply:?}");
            return turns;
        }
    }
}

fn play(end: &str, case: &Case, times: u32) -> Option<()> {
    let turns = record(case);
    for _ in 0..times {
        match end {
            "client" => {
                let mut client = case.client();
                let mut reply = None;
                for (there, back) in &turns {
                    client.sent(there.len(), NOW);
                    reply = learn(&mut client, back);
                }
                assert!(reply.is_some(), "it was the same a moment ago");
            }
            "listener" => {
                let mut listener = case.listener();
                for (there, back) in &turns {
                    hear(&mut listener, there);
                    assert_eq!(listener.transmit().len(), back.len(), "it was the same a moment ago");
                    listener.sent(back.len(), NOW);
                }
            }
            _ => return None,
        }
    }
    Some(())
}

fn run(arguments: &[String]) -> Option<()> {
    let [end, wire, action, times] = arguments else { return None };
    let target = Target::parse(b"nfs-server2").ok()?;
    let keys = match wire.as_str() {
        "classic" => None,
        "keyless" => Some(Keys::keyless()),
        "keyed" => Some(Keys::derive(&[9; 32], GUEST, 1)),
        _ => return None,
    };
    let ask = match action.as_str() {
        "status" => Ask::Status(target),
        "off" => Ask::Power(PowerAction::Off, target),
        _ => return None,
    };
    play(end, &Case { keys, ask }, times.parse().ok()?)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if run(&arguments).is_some() {
        return ExitCode::SUCCESS;
    }
    eprintln!("usage: one_end client|listener classic|keyless|keyed status|off TIMES");
    ExitCode::from(2)
}
