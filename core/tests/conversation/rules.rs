//! What must never happen, on a wire whose replies do not say to which request they belong.

use fencewire_core::listener::PIPELINE_TIME;
use fencewire_core::{Ask, Millis, Request, RequestKey};
use std::collections::{HashMap, HashSet};

/// A rule that did not hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A guest was fenced, and no client had sent that whole request.
    ActedUnasked(Ask),
    /// A request was carried out again when it was repeated.
    ActedTwice(Ask),
    /// A client took the reply to another's request for its own, when the listener knew of both.
    AnotherRequestsReply(Ask),
    /// A client was told "done", and it was not.
    FalseSuccess,
    /// With a sound line a request did not succeed in its time.
    NotCompleted(String),
    /// Something wants a turn for ever and nothing comes of it.
    Livelock,
    /// Events and answers contradict each other.
    WithdrawnWithoutRequest,
    AnswerWithoutRequest,
    GoneWithoutWithdrawn,
    AnswerNotTaken,
    IdUsedTwice,
}

/// Where a byte that reaches a client is from: whose answer, and when the listener let it go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) of: Option<RequestKey>,
    pub(crate) sent: Millis,
}

/// What has happened so far, as far as the rules ask for it.
#[derive(Default)]
pub(crate) struct Record {
    /// Frames are torn or damaged: a request's sequence number may have arrived as another.
    damaging: bool,
    said: HashMap<RequestKey, Ask>,
    acted: HashSet<RequestKey>,
    /// When a whole, undamaged frame first reached the listener.
    heard: HashMap<RequestKey, Millis>,
    /// What the listener handed out last under this key.
    taken: HashMap<RequestKey, Request>,
}

impl Record {
    pub(crate) fn new(damaging: bool) -> Record {
        Record { damaging, ..Record::default() }
    }

    pub(crate) fn said(&mut self, key: RequestKey, ask: &Ask) {
        self.said.insert(key, ask.clone());
    }

    pub(crate) fn heard(&mut self, key: RequestKey, now: Millis) {
        self.heard.entry(key).or_insert(now);
    }

    pub(crate) fn taken(&mut self, request: &Request) {
        self.taken.insert(request.key(), request.clone());
    }

    /// Rules 2 and 3: nothing that nobody asked for, and nothing twice.
    pub(crate) fn acted(&mut self, ask: &Ask, key: RequestKey) -> Result<(), Broken> {
        let known = self.said.contains_key(&key) || self.damaging && self.said.values().any(|said| said == ask);
        if !known {
            return Err(Broken::ActedUnasked(ask.clone()));
        }
        if !self.acted.insert(key) {
            return Err(Broken::ActedTwice(ask.clone()));
        }
        Ok(())
    }

    /// Rule 1: a success is that of the client's own request. `last` is where its last byte is from; none where the line
    /// made it up.
    ///
    /// On this wire nobody can help it if the reply to another request was on its way when the listener heard of this
    /// one, or if both came so close together that they may be from one client.
    pub(crate) fn succeeded(&self, key: RequestKey, ask: &Ask, last: Option<Origin>) -> Result<(), Broken> {
        let Some(Origin { of: Some(of), sent }) = last.filter(|last| last.of != Some(key)) else {
            return Ok(());
        };
        let (Some(&heard), Some(taken)) = (self.heard.get(&key), self.taken.get(&of)) else {
            return Ok(());
        };
        let on_its_way = sent <= heard;
        let together = heard.since(taken.received()) < PIPELINE_TIME;
        let damaged_copy = !self.said.contains_key(&of) && taken.ask() == ask;
        if on_its_way || together || damaged_copy { Ok(()) } else { Err(Broken::AnotherRequestsReply(ask.clone())) }
    }
}
