//! `fencewired keygen`, `enroll` and `revoke`: which guests have keys of their own.

use super::{guests_of, load};
use fencewire_core::Uuid;
use fencewired::config;
use fencewired::enrolled::{Enrolled, create_new, fill};
use fencewired::guests::Member;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where the configuration has the master key. It need not be a configuration that can be served: without the key it is
/// none.
fn master_key(file: &Path) -> Result<PathBuf, String> {
    config::master_key(file).map_err(|why| format!("{}: {why}\n", file.display()))
}

pub(crate) fn keygen(file: &Path) -> Result<(), String> {
    let path = master_key(file)?;
    Enrolled::create(&path).map_err(|why| format!("fencewired: {why}\n"))?;
    let shown = path.display();
    println!(
        "{shown}: made. Let the user that fencewired runs as read it, and nobody else; keep a copy where you keep secrets"
    );
    Ok(())
}

pub(crate) fn enroll(file: &Path, guest: &Member, out: Option<&Path>) -> Result<(), String> {
    let (guest, mut enrolled) = enrolled(file, guest)?;
    let said = |why: String| format!("fencewired: {why}\n");
    // The file first: where there is none to be had, the guest's key stays what it is.
    let file = out.map(create_new).transpose().map_err(|why| {
        let out = out.unwrap_or(Path::new("")).display();
        said(match why.kind() {
            io::ErrorKind::AlreadyExists => format!("{out} is there already: name a new file with --out"),
            _ => format!("{out} cannot be written ({why}): nothing was changed; name another file with --out"),
        })
    })?;
    let key = enrolled.enroll(guest).map_err(|why| {
        // Nothing is in it yet.
        let _ = out.map(fs::remove_file);
        said(why)
    })?;
    match out.zip(file) {
        Some((out, file)) => {
            let written = fill(file, out, &*key);
            written.map_err(|why| said(format!("{} cannot be written ({why}): enroll again", out.display())))?;
            eprintln!(
                "{guest}: its key is in {}. Copy it into the guest, reload fencewired, remove the file",
                out.display()
            );
        }
        None => {
            io::stdout().write_all(&*key).map_err(|why| said(format!("standard output: {why}: enroll again")))?;
            eprintln!("{guest}: that is its key. Reload fencewired");
        }
    }
    Ok(())
}

pub(crate) fn revoke(file: &Path, guest: &Member) -> Result<(), String> {
    let (guest, mut enrolled) = enrolled(file, guest)?;
    enrolled.revoke(guest).map_err(|why| format!("fencewired: {why}\n"))?;
    println!("{guest}: its key is worthless once fencewired is reloaded; it is not served until it is enrolled again");
    Ok(())
}

/// Who is meant, and who is enrolled. A name has to be one that a hypervisor knows.
fn enrolled(file: &Path, guest: &Member) -> Result<(Uuid, Enrolled), String> {
    let path = master_key(file)?;
    let enrolled = Enrolled::load(&path).map_err(|why| format!("fencewired: {} {why}\n", path.display()))?;
    let name = match guest {
        Member::Uuid(uuid) => return Ok((*uuid, enrolled)),
        Member::Name(name) => name,
    };
    let (config, _) = load(file)?;
    let mut bearers: Vec<Uuid> = Vec::new();
    for hypervisor in &config.hypervisors {
        let guests = guests_of(hypervisor).map_err(|why| {
            format!("fencewired: {} does not say who {name:?} is ({why}): give its UUID\n", hypervisor.uri)
        })?;
        bearers.extend(guests.iter().filter(|guest| guest.name == *name).map(|guest| guest.uuid));
    }
    bearers.sort_unstable();
    bearers.dedup();
    match bearers[..] {
        [uuid] => Ok((uuid, enrolled)),
        [] => Err(format!("fencewired: no hypervisor knows a guest {name:?}: see virsh list --all --uuid --name\n")),
        _ => Err(format!("fencewired: more than one guest bears the name {name:?}: give its UUID\n")),
    }
}
