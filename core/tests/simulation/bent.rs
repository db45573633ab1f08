//! Ends that leave a check out: what comes to the real end is made to pass that check before. Only where such a fault is
//! planted.

use crate::bridge::Planted;
use fencewire_core::native::frame::{self, Deframer, FRAME_MAX, Payload};
use fencewire_core::native::keys::{Keys, Session};
use fencewire_core::native::message::{self, Head, Reply, Request};
use serde::Serialize;

pub(crate) struct Bent {
    planted: Planted,
    keys: Keys,
    coming: Deframer,
    going: Deframer,
    hello: Vec<u8>,
    sessions: Vec<Session>,
    counter: u32,
    /// Of the last request.
    id: u64,
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut out = heapless::Vec::<u8, FRAME_MAX>::new();
    frame::encode(payload, &mut out);
    out.to_vec()
}

fn written(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Payload::new();
    message::write(value, &mut bytes);
    bytes.to_vec()
}

fn frames(deframer: &mut Deframer, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for &byte in bytes {
        if deframer.push(byte) {
            found.push(deframer.payload().to_vec());
        }
    }
    found
}

impl Bent {
    pub(crate) fn new(planted: Planted, keys: Keys) -> Bent {
        let (coming, going) = (Deframer::new(), Deframer::new());
        Bent { planted, keys, coming, going, hello: Vec::new(), sessions: Vec::new(), counter: 0, id: 0 }
    }

    fn at_the_host(&self) -> bool {
        matches!(self.planted, Planted::NoTag | Planted::NoCounter | Planted::NoNonce)
    }

    fn at_the_guest(&self) -> bool {
        self.planted == Planted::NoId
    }

    fn welcomed(&mut self, welcome: &[u8]) {
        let Some((body, tag)) = message::split_tag(welcome) else { return };
        if !self.keys.proves_welcome(&self.hello, body, tag) {
            return;
        }
        let session = self.keys.session(&self.hello, welcome);
        if self.sessions.iter().all(|known| known.name != session.name) {
            self.sessions.push(session);
            self.counter = 0;
        }
    }

    /// Bytes on their way to a listener.
    pub(crate) fn before_listener(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        if !self.at_the_host() {
            return bytes;
        }
        let payloads = frames(&mut self.coming, &bytes);
        payloads.into_iter().flat_map(|payload| framed(&self.request_as_wished(payload))).collect()
    }

    fn request_as_wished(&mut self, payload: Vec<u8>) -> Vec<u8> {
        if payload.first() == Some(&message::HELLO) {
            self.hello.clone_from(&payload);
        }
        let Some((body, tag)) = message::split_tag(&payload) else { return payload };
        let Some((head, rest)) = message::read::<Head>(message::REQUEST, body) else { return payload };
        let Some(live) = self.sessions.last() else { return payload };
        let of = self.sessions.iter().find(|session| session.name == head.session);
        let good = of.is_some_and(|session| session.asking.proves(&[body], tag));
        let same = live.name == head.session;
        let counter = match self.planted {
            Planted::NoTag if same => head.counter,
            Planted::NoCounter if good && same => self.counter + 1,
            Planted::NoNonce if good => self.counter + 1,
            _ => return payload,
        };
        self.counter = self.counter.max(counter);
        let head = written(&Head { session: live.name, counter });
        let said = [&[message::REQUEST][..], &head, rest].concat();
        [&said[..], &live.asking.tag(&[&said])].concat()
    }

    /// Bytes that a listener says.
    pub(crate) fn after_listener(&mut self, bytes: &[u8]) {
        if self.at_the_host() {
            for payload in frames(&mut self.going, bytes) {
                if payload.first() == Some(&message::WELCOME) {
                    self.welcomed(&payload);
                }
            }
        }
    }

    /// Bytes that a client says.
    pub(crate) fn after_client(&mut self, bytes: &[u8]) {
        if !self.at_the_guest() {
            return;
        }
        for payload in frames(&mut self.going, bytes) {
            if payload.first() == Some(&message::HELLO) {
                self.hello.clone_from(&payload);
            }
            let Some((body, _)) = message::split_tag(&payload) else { continue };
            let Some((_, rest)) = message::read::<Head>(message::REQUEST, body) else { continue };
            if let Some((request, _)) = message::read::<Request<'_>>(0, &[&[0], rest].concat()) {
                self.id = request.id;
            }
        }
    }

    /// Bytes on their way to a client.
    pub(crate) fn before_client(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        if !self.at_the_guest() {
            return bytes;
        }
        let mut all = Vec::new();
        for payload in frames(&mut self.coming, &bytes) {
            if payload.first() == Some(&message::WELCOME) {
                self.welcomed(&payload);
            }
            all.extend(framed(&self.reply_as_wished(&payload).unwrap_or(payload)));
        }
        all
    }

    fn reply_as_wished(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let (body, tag) = message::split_tag(payload)?;
        let (head, rest) = message::read::<Head>(message::REPLY, body)?;
        let session = self.sessions.iter().find(|session| session.name == head.session)?;
        if !session.answering.proves(&[body], tag) {
            return None;
        }
        let bytes = [&[0], rest].concat();
        let (reply, entries) = message::read::<Reply>(0, &bytes)?;
        let said = written(&Reply { id: self.id, ..reply });
        let said = [&[message::REPLY][..], &written(&head), &said, entries].concat();
        Some([&said[..], &session.answering.tag(&[&said])].concat())
    }
}
