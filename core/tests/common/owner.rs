//! A listener's owner, as property tests need one: answers in any way, and holds the listener to what it has told.

use super::{Answering, done, entry};
use fencewire_core::{Answer, Ask, Event, Failure, NotNow, Power, Request, RequestId};

/// An answer of any kind; "done" where the request is one that can be.
pub(crate) fn answer(kind: u8, request: Option<&Request>) -> Answer<'static> {
    match (kind, request) {
        (0, _) => Answer::Power(Power::On),
        (1, _) => Answer::Alive,
        (2 | 3, _) => Answer::Entry(entry("vm1")),
        (4, _) => Answer::EndOfList,
        (5, _) => Answer::Denied,
        (_, Some(request)) if matches!(request.ask(), Ask::Power(..)) => done(request),
        _ => Answer::Failed(Failure::NotFound),
    }
}

/// Follows what a careful owner is told: one request out at a time, each ended once.
#[derive(Default)]
pub(crate) struct Told {
    out: Option<(RequestId, Request)>,
    ended: Vec<RequestId>,
    /// The last answer that was taken.
    pub(crate) taken: Option<Answer<'static>>,
}

impl Told {
    /// The request that is out.
    pub(crate) fn out(&self) -> Option<&(RequestId, Request)> {
        self.out.as_ref()
    }

    pub(crate) fn events(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Asked(id, request) => {
                    assert!(self.out.is_none(), "two requests are out");
                    assert!(self.ended.iter().all(|ended| *ended < id), "an id that was used");
                    self.out = Some((id, request));
                }
                Event::EntryWanted(id) => {
                    let (out, request) = self.out.as_ref().expect("a list is out");
                    assert_eq!((*out, request.ask()), (id, &Ask::List));
                }
                Event::Withdrawn(id) => self.end(id),
                Event::Refused(_) => {}
            }
        }
    }

    fn end(&mut self, id: RequestId) {
        let (out, _) = self.out.take().expect("a request is out");
        assert_eq!(out, id);
        self.ended.push(id);
    }

    /// Answers, and holds the listener to what it says of that.
    pub(crate) fn answer(&mut self, end: &mut Answering, kind: u8, current: bool) {
        let answer = answer(kind, self.out.as_ref().map(|(_, request)| request));
        let ended = self.ended.last().copied();
        let Some(id) = self.out.as_ref().map(|(id, _)| *id).filter(|_| current).or(ended) else {
            return;
        };
        let is_out = self.out.as_ref().is_some_and(|(out, _)| *out == id);
        let last = !matches!(answer, Answer::Entry(_));
        let said = end.answer(id, answer);
        if said.is_ok() {
            self.taken = Some(answer);
        }
        match said {
            Ok(()) if last => self.end(id),
            Ok(()) => {}
            Err(NotNow::Gone) => assert!(!is_out, "gone, and nobody said so"),
            Err(NotNow::DoesNotFit | NotNow::EntryNotWanted) => assert!(is_out),
        }
    }
}
