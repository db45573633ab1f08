//! `fencewired attach` and `detach`: a guest's virtio channel.

use super::load;
use fencewired::config;
use fencewired::control::attach::{Domains, Plan, Verb, Wanted};
use fencewired::guests::Member;
use std::path::Path;

pub(crate) fn change(file: &Path, guest: &Member, verb: Verb, wanted: Wanted, dry_run: bool) -> Result<(), String> {
    let (config, _) = load(file)?;
    let name = config::virtio_name(file).map_err(|why| format!("{}: {why}\n", file.display()))?;
    let uris: Vec<&str> = config.hypervisors.iter().map(|hypervisor| hypervisor.uri.as_str()).collect();
    let guests = Domains::find(&uris, guest).map_err(|why| format!("fencewired: {why}\n"))?;
    let said = |guest: &Domains, why| format!("fencewired: {guest}: {why}\n");
    // All of them before the first change: what cannot be done on one is not begun on another.
    let plans: Result<Vec<(&Domains, Plan)>, String> = guests
        .iter()
        .map(|guest| Ok((guest, Plan::new(guest, verb, &name, wanted).map_err(|why| said(guest, why))?)))
        .collect();
    for (guest, plan) in plans? {
        if dry_run && !plan.is_done() {
            print!("{guest}: would be changed\n{}", plan.shown());
            continue;
        }
        let done = plan.carry_out(guest).map_err(|why| said(guest, why))?;
        print!("{guest}: {done}");
    }
    Ok(())
}
