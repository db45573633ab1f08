//! Another configuration in place of the one that is served. What is the same in both is not touched: no connection of
//! it is closed, and nothing that has begun is stopped.

use super::channel::Channel;
use super::requests::AskId;
use super::{Bridge, Wires};
use crate::channels::ChannelSpec;
use crate::config::{Config, HypervisorConfig, RecordsConfig};
use crate::policy::Policy;
use fencewire_core::Failure;
use std::path::PathBuf;

/// What of a configuration is fixed while the program runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) hypervisors: Vec<HypervisorConfig>,
    records: RecordsConfig,
    journal: PathBuf,
    state: PathBuf,
    control: PathBuf,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Fixed {
        Fixed {
            hypervisors: config.hypervisors.clone(),
            records: config.records.clone(),
            journal: config.journal.clone(),
            state: config.state.clone(),
            control: config.control.clone(),
        }
    }

    fn warn_of_changes(&self, other: &Fixed) {
        for (key, same) in [
            ("[[hypervisor]]", self.hypervisors == other.hypervisors),
            ("[records]", self.records == other.records),
            ("control.journal", self.journal == other.journal),
            ("control.state", self.state == other.state),
            ("control.socket", self.control == other.control),
        ] {
            if !same {
                tracing::warn!(key, "changed, and not taken over by a reload: restart fencewired for that");
            }
        }
    }
}

impl Bridge {
    /// Serves `config` from now on.
    pub(super) fn reload(&mut self, config: Config) {
        if self.stopping.is_some() {
            return;
        }
        self.notifier.reloading();
        self.fixed.warn_of_changes(&Fixed::of(&config));
        self.set_wires(Wires::of(&config, self.wires.instance));
        self.policy = Policy::new(config.groups, config.classic_virtio);
        let members = self.policy.members().chain(config.channels.iter().filter_map(ChannelSpec::guest));
        self.roster = self.roster.anew(members);
        self.policy.bind(&self.roster);
        self.fleet.distrust();
        self.ask_who_is_who();
        let (gone, new) = self.replace_channels(config.channels);
        self.rediscover(config.discover);
        self.decide_waiting_anew();
        tracing::info!(gone, new, channels = self.channels_served(), "reloaded");
        self.notifier.ready(&self.status());
    }

    fn channels_served(&self) -> usize {
        self.channels.iter().filter(|channel| !channel.retired).count()
    }

    /// What the service manager shows.
    pub(super) fn status(&self) -> String {
        format!("serving; channels: {}", self.channels_served())
    }

    fn set_wires(&mut self, wires: Wires) {
        self.fleet.set_time_to_act(&self.fixed.hypervisors, wires.time_to_act);
        if self.wires != wires {
            self.wires = wires;
            self.listen_anew();
        }
    }

    /// Closes the channels that are not among `specs` and opens those that are not among the channels. Says how many.
    fn replace_channels(&mut self, mut specs: Vec<ChannelSpec>) -> (usize, usize) {
        let mut gone = 0;
        for at in 0..self.channels.len() {
            let channel = &self.channels[at];
            if channel.retired || channel.place.is_some() {
                continue;
            }
            match specs.iter().position(|spec| *spec == channel.spec) {
                Some(same) => {
                    specs.swap_remove(same);
                }
                None => {
                    self.retire(at, "the configuration does not have it any more");
                    gone += 1;
                }
            }
        }
        let new = specs.len();
        for spec in specs {
            let at = self.put_channel(Channel::new(spec));
            self.open_channel(at);
        }
        (gone, new)
    }

    /// Gives a channel its place.
    pub(super) fn put_channel(&mut self, channel: Channel) -> usize {
        let at = self.free_place();
        match self.channels.get_mut(at) {
            Some(place) => *place = channel,
            None => self.channels.push(channel),
        }
        at
    }

    /// A place among the channels that nothing refers to any more, or a new one.
    fn free_place(&self) -> usize {
        let is_free = |at: &usize| self.channels[*at].retired && !self.asks.values().any(|ask| ask.channel == *at);
        (0..self.channels.len()).find(is_free).unwrap_or(self.channels.len())
    }

    /// Whoever waits in a lane is asked again whether it may.
    fn decide_waiting_anew(&mut self) {
        let waiting: Vec<AskId> = self.lanes.waiting().collect();
        for id in waiting {
            let allowed = self.asks.get(&id).and_then(|ask| {
                let by = self.by(ask.channel, ask.from, ask.request.is_native())?;
                let fencewire_core::Ask::Power(action, _) = ask.request.ask() else { return None };
                self.policy.power(by, *action, ask.target).ok()
            });
            if let Some(refused) = self.lanes.allow_anew(id, allowed) {
                self.refuse(refused, Failure::Forbidden);
            }
        }
    }
}
