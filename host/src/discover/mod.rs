//! Channels that are found: in the live XML of the guests that run, and nowhere else.
//!
//! ```text
//! events ──"something happened to it"──▶ bridge::discovered ──▶ look (a worker: XML from the hypervisor)
//!                                              ▲                   │
//!                                              └── xml::read ◀─────┘        reconcile ──▶ channels opened and closed
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`xml`] | what a guest's XML says of its serial ports and channels |
//! | [`reconcile`] | from what all guests have to what is served, what is refused, and what changes |
//! | [`events`] | libvirt's events: when to look |
//! | `turn` | the event loop that these need |
//!
//! Not here: who asks for what when, which is the bridge's.

pub mod events;
pub mod reconcile;
mod turn;
pub mod xml;

use crate::channels::closed_folder;
use crate::power::hypervisor::{Hypervisor, HypervisorError};
use fencewire_core::Uuid;
use std::path::{Component, Path, PathBuf};
use xml::{Port, Source};

/// The name of the virtio channels that are found.
pub const VIRTIO_NAME: &str = "org.fencewire.fence.0";

/// Who QEMU's sockets belong to besides root and this process's own user, where nothing else is said: libvirt's users for
/// QEMU on Debian, Ubuntu and Arch, and on Fedora, RHEL and SUSE. Those that this system does not have are none.
pub const OWNERS: [&str; 2] = ["libvirt-qemu", "qemu"];

/// `[discover]`: which channels are found, and whose sockets are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Virtio channels of this name.
    pub virtio_name: Option<String>,
    /// Serial ports and channels of any name whose sockets lie below this folder.
    pub directory: Option<PathBuf>,
    /// Whose sockets are trusted besides root's and this process's own.
    pub owners: Vec<u32>,
}

impl Rules {
    /// Whether anything is looked for.
    pub const fn is_on(&self) -> bool {
        self.virtio_name.is_some() || self.directory.is_some()
    }
}

/// A guest that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Its name.
    pub name: String,
    /// Those of its ports that the rules are about; or why its XML cannot be understood.
    pub ports: Result<Vec<Port>, String>,
}

impl Live {
    /// Whether one of its ports has no socket yet.
    pub fn is_incomplete(&self) -> bool {
        self.ports.as_ref().is_ok_and(|ports| ports.iter().any(|port| port.source == Source::Missing))
    }
}

/// Whether the guests of a hypervisor are on this host. The paths of others mean nothing here, and what lies there is
/// somebody else's.
pub fn is_local(uri: &str) -> bool {
    let after = uri.split_once("//").map_or("/", |(_, after)| after);
    after.is_empty() || after.starts_with(['/', '?'])
}

/// Asks the hypervisor for a guest's ports. None: it does not run. Blocks.
pub fn look(hypervisor: &dyn Hypervisor, guest: Uuid, rules: &Rules) -> Result<Option<Live>, HypervisorError> {
    let text = match hypervisor.xml(guest) {
        Ok(text) => text,
        Err(HypervisorError::NoSuchGuest) => return Ok(None),
        Err(why) => return Err(why),
    };
    let name = || guest.to_string();
    Ok(match xml::read(&text, rules.virtio_name.as_deref()) {
        Ok(None) => None,
        Ok(Some(domain)) => {
            let ports = domain.ports.into_iter().filter_map(|port| resolved(port, rules)).collect();
            Some(Live { name: domain.name.unwrap_or_else(name), ports: Ok(ports) })
        }
        Err(why) => Some(Live { name: name(), ports: Err(why) }),
    })
}

/// The port with its folder's real path, if the rules are about it.
fn resolved(mut port: Port, rules: &Rules) -> Option<Port> {
    let is_below = |path: &Path| rules.directory.as_deref().is_some_and(|directory| is_below(path, directory));
    let is_inside = |real: &Path| rules.directory.as_deref().is_some_and(|directory| is_inside(real, directory));
    let is_ours = match &mut port.source {
        Source::Listens { path, real } => {
            *real = real_path(path);
            // Where a folder cannot be entered, links cannot be seen. They are looked at again whenever it is to be opened,
            // which fails until it can be.
            port.is_inside = is_inside(real) || (is_below(path) && closed_folder(path).is_some());
            port.is_inside || is_below(path)
        }
        Source::Calls(path) => is_below(path) || is_inside(&real_path(path)),
        Source::Missing | Source::Other(_) => false,
    };
    (port.is_named || is_ours).then_some(port)
}

/// Whether a path leads below a folder, by its words alone.
pub fn is_below(path: &Path, folder: &Path) -> bool {
    path != folder && path.starts_with(folder)
}

/// Whether a real path leads below a folder that may be reached by links itself.
pub fn is_inside(real: &Path, folder: &Path) -> bool {
    folder.canonicalize().is_ok_and(|folder| is_below(real, &folder))
}

/// Whether a path has a `..` in it.
pub fn climbs(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// The path with its folder's symbolic links resolved: two that lead to the same socket are the same. One whose folder is
/// not there is left as it is.
pub fn real_path(path: &Path) -> PathBuf {
    let real = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    real().filter(|_| path.is_absolute()).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hypervisor_with_a_host_in_its_uri_is_not_local() {
        for uri in [
            "qemu:///system",
            "qemu+unix:///session?socket=/run/x",
            "test:///default",
            "qemu:/system",
            "xen://",
            "qemu+unix://?socket=/run/x",
        ] {
            assert!(is_local(uri), "{uri}");
        }
        for uri in ["qemu+ssh://root@host/system", "qemu+tls://host/system", "qemu+tcp://[::1]/system", "xen://host"] {
            assert!(!is_local(uri), "{uri}");
        }
    }

    #[test]
    fn below_a_folder_is_what_has_more_parts_than_it() {
        let folder = Path::new("/run/fence");
        assert!(is_below(Path::new("/run/fence/a/b.sock"), folder));
        assert!(is_below(Path::new("/run//fence/./b.sock"), folder));
        for path in ["/run/fence", "/run/fence/", "/run/fence2/a", "run/fence/a", "/run"] {
            assert!(!is_below(Path::new(path), folder), "{path}");
        }
        assert!(climbs(Path::new("/run/fence/../a")) && !climbs(Path::new("/run/fence/..a")));
    }

    #[test]
    fn a_path_through_a_link_is_the_path_that_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, folder.path().join("link")).unwrap();
        assert_eq!(real_path(&folder.path().join("link/a.sock")), real.join("a.sock"));
        assert_eq!(real_path(Path::new("/nowhere/at/all.sock")), Path::new("/nowhere/at/all.sock"));
        assert_eq!(real_path(Path::new("all.sock")), Path::new("all.sock"), "relative to nothing");
    }
}
