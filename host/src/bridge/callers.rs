//! Who calls a channel that listens: let in, or let go in place of another.

use super::Bridge;
use super::connections::Connection;
use crate::channels::ChannelSpec;
use crate::clock;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

/// Connections at a time on a channel that its guest calls. More wait until one goes.
const CALLERS: usize = 4;

/// Connections at a time on a TCP port. For another, one goes of the address that has most of them: nobody keeps out who
/// calls from elsewhere. Of these, the first to go is the oldest that has proved nothing.
const TCP_CALLERS: usize = 256;

/// Callers that are let in before others have their turn.
const ACCEPTED_IN_A_TURN: usize = 64;

impl Bridge {
    /// Lets more callers in when the others have had their turn.
    pub(super) fn call_again(&mut self, at: usize) {
        let token = self.listeners.iter().find(|(_, channel)| **channel == at).map(|(token, _)| *token);
        if let Some(token) = token.filter(|_| !self.channels[at].is_again) {
            self.channels[at].is_again = true;
            self.again.push_back(token);
        }
    }

    /// Says whether more may wait than are let in in a turn.
    pub(super) fn accept_callers(&mut self, at: usize) -> bool {
        for _ in 0..ACCEPTED_IN_A_TURN {
            if self.stopping.is_some() || !self.has_room(at) {
                return false;
            }
            let Some(calls) = &self.channels[at].calls else { return false };
            match calls.accept() {
                Ok((stream, from)) => match self.connect(at, stream, from, clock::now()) {
                    Ok(()) => self.make_room(at),
                    Err(why) => {
                        tracing::warn!(channel = self.channels[at].name, %why, "a caller could not be served");
                    }
                },
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return false,
                Err(why) if matches!(why.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                Err(why) => {
                    // Out of descriptors, say: those that go free them.
                    tracing::warn!(channel = self.channels[at].name, %why, "a caller could not be accepted");
                    return false;
                }
            }
        }
        true
    }

    /// Whether one more caller can be let in.
    fn has_room(&self, at: usize) -> bool {
        let channel = &self.channels[at];
        match channel.spec {
            ChannelSpec::Guest(_) => channel.open < CALLERS,
            // Where there are too many, another goes.
            ChannelSpec::Keyed(_) => true,
        }
    }

    /// Of too many callers, ends one, which is not the newest.
    fn make_room(&mut self, at: usize) {
        if self.channels[at].callers.len() <= TCP_CALLERS {
            return;
        }
        let its = || self.channels[at].callers.iter().filter_map(|token| Some((*token, self.connections.get(token)?)));
        let mut crowds: HashMap<Option<IpAddr>, usize> = HashMap::new();
        its().for_each(|(_, open)| *crowds.entry(open.from).or_default() += 1);
        let crowd = |open: &Connection| crowds.get(&open.from).copied();
        // Tokens count up.
        let others = its().take(TCP_CALLERS);
        let goes = others.max_by_key(|(token, open)| (crowd(open), !open.is_proved(), Reverse(*token)));
        if let Some(goes) = goes.map(|(token, _)| token) {
            self.end(goes, "another calls, and most calls are from its address");
        }
    }
}
