//! A monitor, a status or a list from the question to the answer: put to every hypervisor, answered when enough has been
//! said. They go past the lanes, and are never answered from memory.

use super::Bridge;
use super::fleet::{self, Fleet, Listed, PATIENCE};
use super::requests::{Ask, AskId, Decision};
use crate::clock;
use crate::guests::Requester;
use crate::power::hypervisor::{Guest, Hypervisor, HypervisorError, State};
use crate::power::incarnation::Incarnation;
use fencewire_core::{Answer, Ask as What, Details, Failure, ListEntry, Millis, Power, RequestId, Target, Uuid};
use std::collections::VecDeque;

/// A list that is being given out, entry by entry.
#[derive(Debug)]
pub(super) struct Listing {
    id: RequestId,
    rest: VecDeque<Listed>,
}

impl Bridge {
    pub(super) fn put_to_all(
        &mut self,
        id: AskId,
        requester: Requester,
        target: Option<Uuid>,
        question: fleet::Question,
    ) {
        if let Some(ask) = self.asks.get_mut(&id) {
            ask.said.clear();
            ask.said.resize_with(self.fleet.len(), || None);
            ask.put = clock::now();
            self.ask_all(id, requester, target, question);
        }
    }

    /// A hypervisor has said something to an ask.
    pub(super) fn said(&mut self, id: AskId, at: usize, said: Result<fleet::Answer, HypervisorError>) {
        let Some(place) = self.asks.get_mut(&id).and_then(|ask| ask.said.get_mut(at)) else { return };
        *place = Some(said);
        self.conclude(id, false);
    }

    /// Answers what some hypervisors have said enough to, and others are silent about.
    pub(super) fn conclude_late(&mut self, now: Millis) {
        let is_late = |ask: &Ask| now.since(ask.put) >= PATIENCE && ask.said.iter().any(Option::is_some);
        let late: Vec<AskId> = self.asks.iter().filter(|(_, ask)| is_late(ask)).map(|(id, _)| *id).collect();
        for id in late {
            self.conclude(id, true);
        }
    }

    /// Answers an ask if what the hypervisors have said is enough; for a late one, if it says anything.
    fn conclude(&mut self, id: AskId, is_late: bool) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        let is_complete = ask.said.iter().all(Option::is_some);
        let is_good = ask.said.iter().any(|said| matches!(said, Some(Ok(_))));
        let ready = match ask.request.ask() {
            What::Monitor => is_good || is_complete,
            What::Status(_) | What::List => is_complete || (is_late && is_good),
            What::Power(..) => false,
        };
        if !ready {
            return;
        }
        let said = std::mem::take(&mut ask.said);
        match ask.request.ask() {
            What::Status(_) => {
                let run = said.iter().flatten().find_map(|said| match said {
                    Ok(fleet::Answer::State(_, run)) => *run,
                    _ => None,
                });
                let guest = Fleet::power(&only(said, |answer| match answer {
                    fleet::Answer::State(guest, _) => Some(guest),
                    _ => None,
                }));
                self.state(id, guest, run);
            }
            What::List => {
                let lists = only(said, |answer| match answer {
                    fleet::Answer::List(guests) => Some(guests),
                    _ => None,
                });
                self.list(id, lists);
            }
            _ if is_good => self.finish(id, Answer::Alive.into()),
            _ => {
                let why = said.into_iter().flatten().find_map(Result::err);
                self.failed_query(id, &why.unwrap_or(HypervisorError::NoSuchGuest));
            }
        }
    }

    fn state(&mut self, id: AskId, state: Result<Guest, HypervisorError>, run: Option<Incarnation>) {
        let Some(ask) = self.asks.get(&id) else { return };
        match state {
            Ok(guest) if is_named_otherwise(ask.request.ask().target(), &guest.name) => {
                // It was renamed since the hypervisor was last asked who is who.
                if !self.refresh(id) {
                    self.finish(id, Answer::Failed(Failure::NotFound).into());
                }
            }
            Ok(guest) if guest.state.power() == Power::Off && self.lives(guest.uuid, ask.put) => {
                let why = Some("the hypervisor says that it is off, and its process has its channel open".to_owned());
                self.finish(id, Decision { answer: Answer::Power(Power::Unknown), why, details: Details::NONE });
            }
            Ok(guest) => {
                let details = Details { incarnation: run, ..Details::NONE };
                let is_away = guest.state == State::OffMigrated;
                let why = is_away.then(|| "it went to another host, and may run there".to_owned());
                self.finish(id, Decision { answer: Answer::Power(guest.state.power()), why, details });
            }
            // It went, and another may bear its name.
            Err(HypervisorError::NoSuchGuest) if is_by_name(ask.request.ask()) && self.refresh(id) => {}
            Err(why) => self.failed_query(id, &why),
        }
    }

    fn list(&mut self, id: AskId, said: Vec<Option<Result<Vec<Guest>, HypervisorError>>>) {
        let why = said.iter().flatten().find_map(|said| said.as_ref().err().cloned());
        if let Some(why) = why.filter(|_| !said.iter().flatten().any(Result::is_ok)) {
            return self.failed_query(id, &why);
        }
        let listed = self.fleet.list(&said);
        for (at, guests) in said.into_iter().enumerate() {
            if let Some(Ok(guests)) = guests {
                self.learn(at, guests);
            }
        }
        let Some(ask) = self.asks.get(&id) else { return };
        let Some(by) = self.by(ask.channel, ask.from, ask.request.is_native()) else { return };
        let mut rest: VecDeque<Listed> = listed.into_iter().filter(|guest| self.policy.lists(by, guest.uuid)).collect();
        let off = rest.iter().filter(|guest| guest.power == Power::Off).map(|guest| guest.uuid).collect();
        let living = self.living(&off, ask.put);
        for guest in rest.iter_mut().filter(|guest| living.contains(&guest.uuid)) {
            guest.power = Power::Unknown;
        }
        if ask.request.is_native() {
            // Its lists go on where they left off, by UUID.
            rest.make_contiguous().sort_by_key(|guest| guest.uuid);
        } else {
            rest.make_contiguous().sort_by(|a, b| a.name.cmp(&b.name));
        }
        let (token, request) = (ask.connection, ask.id);
        let shown = rest.len();
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.listing = Some(Listing { id: request, rest });
        }
        self.next_entry(token, request);
        self.pump(token);
        if let Some(ask) = self.asks.remove(&id) {
            self.record(&ask, &Answer::EndOfList, Some(format!("{shown} on it")), false);
        }
    }

    /// Gives a list's next entry, or its end.
    pub(super) fn next_entry(&mut self, token: usize, id: RequestId) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let Some(listing) = connection.listing.as_mut().filter(|listing| listing.id == id) else { return };
        let next = listing.rest.pop_front();
        if next.is_none() {
            connection.listing = None;
        }
        let answer = match &next {
            Some(guest) => Answer::Entry(ListEntry { name: &guest.name, uuid: guest.uuid, power: guest.power }),
            None => Answer::EndOfList,
        };
        if let Some(listener) = connection.listener() {
            let _ = listener.answer(id, answer, clock::now());
        }
    }

    pub(super) fn failed_query(&mut self, id: AskId, why: &HypervisorError) {
        let failure = match why {
            HypervisorError::NoSuchGuest => Failure::NotFound,
            HypervisorError::Unreachable(_) | HypervisorError::Failed(_) => Failure::Unreachable,
        };
        let why = Some(why.to_string());
        self.finish(id, Decision { answer: Answer::Failed(failure), why, details: Details::NONE });
    }
}

fn is_by_name(ask: &What) -> bool {
    matches!(ask.target(), Some(Target::Name(_)))
}

fn is_named_otherwise(target: Option<&Target>, name: &str) -> bool {
    matches!(target, Some(Target::Name(asked)) if asked.as_str() != name)
}

pub(super) fn state(hypervisor: &dyn Hypervisor, target: Option<Uuid>) -> Result<fleet::Answer, HypervisorError> {
    let guest = hypervisor.state(target.ok_or(HypervisorError::NoSuchGuest)?)?;
    Ok(fleet::Answer::State(guest, None))
}

/// For a wire that can say which run of the guest it is.
pub(super) fn state_and_run(
    hypervisor: &dyn Hypervisor,
    target: Option<Uuid>,
) -> Result<fleet::Answer, HypervisorError> {
    let target = target.ok_or(HypervisorError::NoSuchGuest)?;
    let guest = hypervisor.state(target)?;
    let run = if guest.state.power() == Power::On { hypervisor.incarnation(target).unwrap_or(None) } else { None };
    Ok(fleet::Answer::State(guest, run))
}

/// Of what each hypervisor said, what answers the question.
fn only<T>(
    said: Vec<Option<Result<fleet::Answer, HypervisorError>>>,
    what: impl Fn(fleet::Answer) -> Option<T>,
) -> Vec<Option<Result<T, HypervisorError>>> {
    let answer = |said| match said {
        Ok(answer) => what(answer).map(Ok),
        Err(why) => Some(Err(why)),
    };
    said.into_iter().map(|said| said.and_then(answer)).collect()
}
