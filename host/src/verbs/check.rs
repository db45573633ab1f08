//! `fencewired check`: what is wrong with a configuration, and what of it is not there yet.

use super::{guests_of, load};
use fencewired::channels::ChannelSpec;
use fencewired::guests::Member;
use fencewired::power::hypervisor::{Guest, HypervisorError};
use std::collections::BTreeSet;
use std::path::Path;

/// Checks the file, and what it names against the hypervisor where that can be asked.
pub(crate) fn check(file: &Path) -> Result<(), String> {
    let (config, findings) = load(file)?;
    print!("{findings}");
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
    let (channels, groups) = (config.channels.len(), config.groups.len());
    println!("{shown}: can be served ({channels} [[channel]], {groups} [[group]])");
    Ok(())
}
