//! `[discover]`, checked: which channels are found, and whose sockets are trusted.

use super::check::Check;
use super::schema;
use crate::channels::closed_folder;
use crate::discover::{OWNERS, Rules, VIRTIO_NAME, climbs};
use std::fs;
use std::path::{Path, PathBuf};
use toml::Spanned;

impl Check<'_> {
    pub(super) fn discover(&mut self, given: &schema::Discover) -> Rules {
        let virtio_name = match &given.virtio_name {
            None => Some(VIRTIO_NAME.to_owned()),
            Some(name) => self.virtio_name(name),
        };
        let directory = given.directory.as_ref().and_then(|directory| self.directory(directory));
        let owners = match &given.owners {
            None => OWNERS.iter().filter_map(|name| user(name)).collect(),
            Some(names) => names.iter().filter_map(|name| self.owner(name)).collect(),
        };
        Rules { virtio_name, directory, owners }
    }

    fn virtio_name(&mut self, given: &Spanned<String>) -> Option<String> {
        let name = given.get_ref();
        if !is_a_ports_name(name) {
            self.error_at(given, format!("discover.virtio_name = {name:?}: no port has such a name"));
        }
        (!name.is_empty()).then(|| name.clone())
    }

    fn directory(&mut self, given: &Spanned<String>) -> Option<PathBuf> {
        let path = Path::new(given.get_ref());
        let shown = given.get_ref();
        if shown.is_empty() {
            return None;
        }
        if !path.is_absolute() || climbs(path) || path == Path::new("/") {
            let text = format!(
                "discover.directory = {shown:?}: must begin with \"/\", have no \"..\" and not be \"/\" itself"
            );
            self.error_at(given, text);
        } else if let Some(closed) = closed_folder(path) {
            let text = format!(
                "discover.directory = {shown:?}: this user may not enter the folder {}: let the daemon's. Its channels are \
                 served from then on",
                closed.display()
            );
            self.warn_at(given, text);
        } else if !path.exists() {
            self.warn_at(given, format!("discover.directory = {shown:?} is not there; it is searched when it comes"));
        } else if !path.is_dir() {
            self.error_at(given, format!("discover.directory = {shown:?} is no folder: name one"));
        }
        Some(path.to_owned())
    }

    fn owner(&mut self, given: &Spanned<String>) -> Option<u32> {
        let name = given.get_ref();
        let found = name.parse().ok().or_else(|| user(name));
        if found.is_none() {
            let text =
                format!("discover.owners: /etc/passwd has no user {name:?}: correct it, or give the user's number");
            self.error_at(given, text);
        }
        found
    }
}

/// Whether a virtio port can be called that. In a guest its name is a link's in a folder.
pub(super) fn is_a_ports_name(name: &str) -> bool {
    !name.chars().any(|letter| letter.is_control() || letter == '/')
}

/// The number of a user of this system.
fn user(name: &str) -> Option<u32> {
    number_in(&fs::read_to_string("/etc/passwd").ok()?, name)
}

fn number_in(passwd: &str, name: &str) -> Option<u32> {
    let mut users = passwd.lines().map(|line| line.split(':'));
    users.find_map(|mut user| if user.next() == Some(name) { user.nth(1)?.parse().ok() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nqemu:x:107:107:qemu user:/:/sbin/nologin\nbad\nodd:x:y:\n";
        assert_eq!((number_in(passwd, "root"), number_in(passwd, "qemu")), (Some(0), Some(107)));
        for name in ["", "qem", "bad", "odd", "x"] {
            assert_eq!(number_in(passwd, name), None, "{name}");
        }
    }
}
