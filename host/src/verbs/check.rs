//! `fencewired check`: what is wrong with a configuration, and what of it is not there yet.

use super::{guests_of, load};
use fencewire_core::Uuid;
use fencewired::channels::{self, ChannelSpec};
use fencewired::config::{self, Config};
use fencewired::discover::{self, Live, reconcile};
use fencewired::guests::Member;
use fencewired::power::hypervisor::{Guest, HypervisorError, Source as _};
use fencewired::power::libvirt::LibvirtSource;
use std::collections::BTreeSet;
use std::path::Path;

/// Checks the file, and what it names against the hypervisor where that can be asked.
pub(crate) fn check(file: &Path) -> Result<(), String> {
    let (config, findings) = load(file)?;
    print!("{findings}");
    let tried = config::try_folders(file);
    if tried.iter().any(|finding| finding.is_error) {
        return Err(tried.to_string());
    }
    print!("{tried}");
    let shown = file.display();
    let guests: Result<Vec<Vec<Guest>>, HypervisorError> = config.hypervisors.iter().map(guests_of).collect();
    match guests {
        Ok(guests) => {
            let guests = guests.concat();
            let is_known = |member: &Member| match member {
                Member::Name(name) => guests.iter().any(|guest| guest.name == *name),
                Member::Uuid(uuid) => guests.iter().any(|guest| guest.uuid == *uuid),
            };
            let members = config.groups.iter().flat_map(|group| &group.members);
            let named = members.chain(config.channels.iter().filter_map(ChannelSpec::guest));
            let unknown: BTreeSet<String> = named.filter(|member| !is_known(member)).map(Member::to_string).collect();
            for name in unknown {
                println!("{shown}: warning: the hypervisor knows no guest {name:?}; it is served when it comes");
            }
        }
        Err(why) => println!("{shown}: warning: nothing is served until the hypervisor answers: {why}"),
    }
    check_discovery(&config, &shown.to_string());
    let (channels, groups) = (config.channels.len(), config.groups.len());
    println!("{shown}: can be served ({channels} [[channel]], {groups} [[group]])");
    Ok(())
}

/// Says which channels would be found now, and which would be refused.
fn check_discovery(config: &Config, shown: &str) {
    let mut live: Vec<((usize, Uuid), Live)> = Vec::new();
    for (at, hypervisor) in config.hypervisors.iter().enumerate() {
        if !config.discover.is_on() || !discover::is_local(&hypervisor.uri) {
            continue;
        }
        // Why it does not answer was said already.
        let Ok(open) = LibvirtSource::new(&hypervisor.uri).connect() else { continue };
        for guest in open.guests().unwrap_or_default() {
            if let Ok(Some(found)) = discover::look(open.as_ref(), guest.uuid, &config.discover) {
                live.push(((at, guest.uuid), found));
            }
        }
    }
    let own = config.channels.iter().filter_map(|channel| match channel {
        ChannelSpec::Guest(own) => Some([own.path.clone(), discover::real_path(&own.path)]),
        ChannelSpec::Keyed(_) => None,
    });
    let guests = live.iter().map(|(at, live)| reconcile::Guest { at: *at, live, is_young: false });
    let wanted = reconcile::wanted(guests, &own.flatten().collect(), &config.discover);
    for line in &wanted.refused {
        println!("{shown}: warning: {line}");
    }
    for place in wanted.places.values() {
        let (path, who) = (place.path.display(), reconcile::shown(&place.name, place.at.1));
        println!("{shown}: found: channel {path} of guest {who}");
        if let Err(why) = channels::may_connect(&place.path) {
            println!("{shown}: warning: channel {path} cannot be opened: {why}");
        }
    }
}
