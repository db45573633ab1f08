//! From what all guests have to what is served, what is refused and why, and what has to change. Pure: nothing is asked
//! and nothing is opened here.

use super::xml::{Port, Source};
use super::{Live, Rules, climbs};
use crate::channels::PortType;
use crate::config::SOCKET_PATH_MAX;
use fencewire_core::Uuid;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Channels of one guest that are served at most.
pub const PORTS_MAX: usize = 16;

/// Guests that are named in one line of the log at most.
const NAMED_MAX: usize = 4;

/// A guest on a hypervisor: its number in the configuration, and who.
pub type Where = (usize, Uuid);

/// A guest as [`wanted`] is given it.
#[derive(Debug, Clone, Copy)]
pub struct Guest<'a> {
    /// Where it runs.
    pub at: Where,
    /// What it has.
    pub live: &'a Live,
    /// It was seen for the first time a moment ago: what is missing may yet come.
    pub is_young: bool,
}

/// A channel that is to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whose it is.
    pub at: Where,
    /// That guest's name.
    pub name: String,
    /// The socket, as the guest's XML has it.
    pub path: PathBuf,
    /// What the guest has at its end.
    pub port: PortType,
    /// It is served for the folder in which it lies, and has to lie there.
    pub is_confined: bool,
}

/// What is to be, by all that is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What is to be served, by the socket's real path.
    pub places: BTreeMap<PathBuf, Place>,
    /// What is not, and what to do about it: a line each.
    pub refused: BTreeSet<String>,
    /// What is served in another way.
    pub remarks: BTreeSet<String>,
    /// Guests that have a socket in common. One of them may run no more.
    pub doubtful: BTreeSet<Where>,
}

/// What is to be served of what these guests have. `configured`: the real paths of the configuration's own channels.
pub fn wanted<'a>(
    guests: impl IntoIterator<Item = Guest<'a>>,
    configured: &BTreeSet<PathBuf>,
    rules: &Rules,
) -> Wanted {
    let mut wanted = Wanted::default();
    let mut claims: BTreeMap<&Path, Vec<(Guest, &Port)>> = BTreeMap::new();
    for guest in guests {
        match &guest.live.ports {
            Ok(ports) => claim(guest, ports, rules, &mut claims, &mut wanted.refused),
            Err(why) => {
                let who = who(&guest);
                wanted.refused.insert(format!("guest {who}: its XML cannot be understood ({why}): nothing is served"));
            }
        }
    }
    for (real, claims) in claims {
        let Some((guest, port)) = claims.first() else { continue };
        let Source::Listens { path, .. } = &port.source else { continue };
        if configured.contains(real) || configured.contains(path.as_path()) {
            let (who, what, path) = (who(guest), &port.what, path.display());
            wanted.remarks.insert(format!(
                "guest {who}: {what} at {path} has a [[channel]] of the configuration's, by which it is served"
            ));
            continue;
        }
        let owners: BTreeMap<Uuid, String> = claims.iter().map(|(guest, _)| (guest.at.1, who(guest))).collect();
        if owners.len() > 1 {
            wanted.refused.insert(shared(path, &owners));
            wanted.doubtful.extend(claims.iter().map(|(guest, _)| guest.at));
            continue;
        }
        let is_confined = claims.iter().all(|(_, port)| !port.is_named);
        let place =
            Place { at: guest.at, name: guest.live.name.clone(), path: path.clone(), port: port.port, is_confined };
        wanted.places.insert(real.to_owned(), place);
    }
    wanted
}

/// Of a guest's ports, those that can be served claim their sockets; of the others it is said why not.
fn claim<'a>(
    guest: Guest<'a>,
    ports: &'a [Port],
    rules: &Rules,
    claims: &mut BTreeMap<&'a Path, Vec<(Guest<'a>, &'a Port)>>,
    refused: &mut BTreeSet<String>,
) {
    let mut claimed = 0;
    for port in ports {
        match fault(port, rules) {
            Some(_) if guest.is_young && port.source == Source::Missing => {}
            Some(fault) => {
                refused.insert(format!("guest {}: {} is not served: {fault}", who(&guest), port.what));
            }
            None if claimed == PORTS_MAX => {
                let (who, path) = (who(&guest), &port.what);
                refused.insert(format!(
                    "guest {who} has more than {PORTS_MAX} channels of ours: from {path} on they are not served. One is enough"
                ));
                return;
            }
            None => {
                if let Source::Listens { real, .. } = &port.source {
                    claims.entry(real).or_default().push((guest, port));
                    claimed += 1;
                }
            }
        }
    }
}

/// Why a port cannot be served, and what to do.
fn fault(port: &Port, rules: &Rules) -> Option<String> {
    let path = match &port.source {
        Source::Listens { path, .. } => path,
        Source::Calls(path) => {
            let path = path.display();
            return Some(format!(
                "with mode='connect' QEMU calls {path}, where nobody listens: write mode='bind', or name that path under \
                 [[channel]] with kind = \"unix-listen\""
            ));
        }
        Source::Missing => {
            return Some("its XML names no socket: write type='unix' and <source mode='bind'/>".to_owned());
        }
        Source::Other(kind) => return Some(format!("it is of type='{kind}': write type='unix'")),
    };
    let shown = path.display().to_string();
    if !path.is_absolute() {
        return Some(format!("its path {shown:?} is relative: write one that begins with \"/\""));
    }
    if climbs(path) {
        return Some(format!("its path {shown:?} has a \"..\" in it: write it without"));
    }
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Some(format!("its path {shown:?} has over {SOCKET_PATH_MAX} bytes, which no socket's has"));
    }
    let directory = rules.directory.as_deref().filter(|_| !port.is_named && !port.is_inside)?.display();
    Some(format!(
        "its path {shown:?} leads out of discover.directory ({directory}) by a link, or its folder is not there"
    ))
}

fn who(guest: &Guest) -> String {
    shown(&guest.live.name, guest.at.1)
}

/// A guest as the log names it: one line, whatever its name is.
pub fn shown(name: &str, uuid: Uuid) -> String {
    format!("{} ({uuid})", name.escape_debug())
}

fn shared(path: &Path, owners: &BTreeMap<Uuid, String>) -> String {
    let mut text = format!("the socket {} is in the XML of more than one guest: ", path.display());
    let named: Vec<&str> = owners.values().take(NAMED_MAX).map(String::as_str).collect();
    text += &named.join(", ");
    if owners.len() > NAMED_MAX {
        let _ = write!(text, " and {} more", owners.len() - NAMED_MAX);
    }
    text += ". It is served for none of them: give each guest a path of its own";
    text
}

/// From what is served to what is to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What is to be closed.
    pub gone: Vec<PathBuf>,
    /// What is to be opened. Where it is in both, it is another's now.
    pub new: Vec<(PathBuf, Place)>,
}

/// What has to change for `wanted` to be served. A guest's other name changes nothing.
pub fn changes(served: &BTreeMap<PathBuf, Place>, wanted: &BTreeMap<PathBuf, Place>) -> Changes {
    let is_same = |one: &Place, other: &Place| {
        one.at == other.at && one.path == other.path && one.port == other.port && one.is_confined == other.is_confined
    };
    let stays = |real: &PathBuf, place: &Place, others: &BTreeMap<PathBuf, Place>| {
        others.get(real).is_some_and(|other| is_same(place, other))
    };
    let gone = served.iter().filter(|(real, place)| !stays(real, place, wanted)).map(|(real, _)| real.clone());
    let new = wanted.iter().filter(|(real, place)| !stays(real, place, served));
    Changes { gone: gone.collect(), new: new.map(|(real, place)| (real.clone(), place.clone())).collect() }
}

#[cfg(test)]
mod tests;
