//! Which guests have keys of their own: the host's master key, and the generation of each guest's.
//!
//! ```text
//! master.key          fencewire-master-1 · 64 hexadecimal digits
//! master.key.guests   UUID · generation [· revoked], a line each
//! ```
//!
//! Hosts between which guests migrate share both files. Whoever has the master key can ask in every guest's name; without it
//! no guest that was enrolled is served: then make another one and enroll them all again.
//!
//! Who changes the list of guests holds a lock on the master key meanwhile: none but those who may read that can hold
//! it, and it stays the same file.

use crate::entropy::entropy;
use fencewire_core::Uuid;
use fencewire_core::native::keys::{FILE_LEN, Keys, write_file};
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const HEAD: &str = "fencewire-master-1";

/// Bytes of a master key.
const MASTER_LEN: usize = 32;

/// The enrolled guests.
#[derive(Clone)]
pub struct Enrolled {
    master: Zeroizing<[u8; MASTER_LEN]>,
    guests: BTreeMap<Uuid, Generation>,
    path: PathBuf,
}

/// The key that a guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Generation {
    number: u32,
    /// Nobody has a key of that generation.
    revoked: bool,
}

impl PartialEq for Enrolled {
    fn eq(&self, other: &Enrolled) -> bool {
        // Both are this host's own: nobody measures how long it takes.
        *self.master == *other.master && self.guests == other.guests
    }
}

impl Eq for Enrolled {}

impl std::fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrolled").field("guests", &self.guests).finish_non_exhaustive()
    }
}

impl Enrolled {
    /// Makes a master key where there is none.
    pub fn create(path: &Path) -> Result<(), String> {
        let shown = path.display();
        let mut master = Zeroizing::new([0; MASTER_LEN]);
        let random = entropy().map_err(|why| format!("no random bytes: {why}"))?;
        master.copy_from_slice(&random.0[..MASTER_LEN]);
        let mut text = Zeroizing::new(format!("{HEAD}\n"));
        for byte in master.iter() {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
        let written = create_new(path).and_then(|file| fill(file, path, text.as_bytes()));
        written.and_then(|()| sync_folder_of(path)).map_err(|why| match why.kind() {
            io::ErrorKind::AlreadyExists => format!(
                "{shown} is there already: with another master key no guest would be served that was enrolled with this one. \
                 Remove it first if that is what you want"
            ),
            _ => format!("{shown} cannot be written ({why})"),
        })
    }

    /// Reads the master key and who is enrolled.
    pub fn load(path: &Path) -> Result<Enrolled, String> {
        let file = File::open(path).map_err(|why| {
            format!("cannot be read ({why}): let this program's user read it, or make one with fencewired keygen")
        })?;
        let mode = file.metadata().map_err(|why| why.to_string())?.permissions().mode() & 0o7777;
        if mode & 0o007 != 0 {
            return Err(format!("has permissions {mode:04o}, which lets everybody read or change it: chmod o= it"));
        }
        let mut text = Zeroizing::new(String::with_capacity(256));
        file.take(200).read_to_string(&mut text).map_err(|why| format!("cannot be read ({why})"))?;
        let master = parse_master(&text).ok_or("is no master key: make one with fencewired keygen")?;
        let guests = guests_path(path);
        let list = match fs::read_to_string(&guests) {
            Ok(list) => list,
            Err(why) if why.kind() == io::ErrorKind::NotFound => String::new(),
            Err(why) => return Err(format!("has its guests in {}, which cannot be read ({why})", guests.display())),
        };
        let guests = parse_guests(&list).map_err(|line| {
            format!("has its guests in {}: line {line} is not \"UUID generation\"", guests.display())
        })?;
        Ok(Enrolled { master, guests, path: path.to_owned() })
    }

    /// The guest's keys; none where it was never enrolled. Those of a guest whose key was revoked, nobody has.
    pub fn keys(&self, guest: Uuid) -> Option<Keys> {
        let generation = self.guests.get(&guest)?;
        Some(Keys::derive(&*self.master, guest, generation.number))
    }

    /// Whether that guest was enrolled, if its key was revoked since, too.
    pub fn has(&self, guest: Uuid) -> bool {
        self.guests.contains_key(&guest)
    }

    /// Gives a guest a new key, and makes the one that it had worthless. Gives the text of its key file. Others may do the
    /// same at the same time.
    pub fn enroll(&mut self, guest: Uuid) -> Result<Zeroizing<[u8; FILE_LEN]>, String> {
        let _lock = self.lock()?;
        let number = self.next(guest)?;
        self.guests.insert(guest, Generation { number, revoked: false });
        self.save()?;
        Ok(Zeroizing::new(write_file(&Keys::derive(&*self.master, guest, number))))
    }

    /// Makes the key that a guest has worthless. It is not served until it is enrolled again.
    pub fn revoke(&mut self, guest: Uuid) -> Result<(), String> {
        let _lock = self.lock()?;
        if !self.guests.contains_key(&guest) {
            return Err(format!("{guest} was never enrolled: there is nothing to revoke"));
        }
        let number = self.next(guest)?;
        self.guests.insert(guest, Generation { number, revoked: true });
        self.save()
    }

    /// Waits until nobody else changes the list, and reads what it says by then. The file is locked until it is closed.
    fn lock(&mut self) -> Result<File, String> {
        let cannot = |why: io::Error| format!("{} cannot be locked ({why}): nothing was changed", self.path.display());
        let locked = loop {
            let file = File::open(&self.path).map_err(cannot)?;
            flock(&file, FlockOperation::LockExclusive).map_err(|why| cannot(why.into()))?;
            // Another master key may have been made while this one was waited for.
            let is = |file: &fs::Metadata| (file.dev(), file.ino());
            if is(&file.metadata().map_err(cannot)?) == is(&fs::metadata(&self.path).map_err(cannot)?) {
                break file;
            }
        };
        *self = Enrolled::load(&self.path).map_err(|why| format!("{} {why}", self.path.display()))?;
        Ok(locked)
    }

    fn next(&self, guest: Uuid) -> Result<u32, String> {
        let last = self.guests.get(&guest).map_or(0, |generation| generation.number);
        last.checked_add(1).ok_or_else(|| format!("{guest} has had every key there is: make another master key"))
    }

    /// Whole or not at all, also when the machine stops: a guest without its line would be one that was never enrolled.
    /// Nothing in it is secret, and the daemon need not run as the user who enrols: everybody may read it.
    fn save(&self) -> Result<(), String> {
        let path = guests_path(&self.path);
        let mut text = String::new();
        for (guest, Generation { number, revoked }) in &self.guests {
            let _ = writeln!(text, "{guest} {number}{}", if *revoked { " revoked" } else { "" });
        }
        let new = path.with_extension("guests.new");
        let _ = fs::remove_file(&new);
        create_new(&new)
            .and_then(|file| file.set_permissions(Permissions::from_mode(0o644)).map(|()| file))
            .and_then(|file| fill(file, &new, text.as_bytes()))
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| sync_folder_of(&path))
            .map_err(|why| format!("{} cannot be written ({why})", path.display()))
    }
}

/// A new file that only its owner reads.
pub fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Writes all of such a file and waits for the disk, or removes it.
pub fn fill(mut file: File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// Waits until the disk knows the name, too.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn guests_path(master: &Path) -> PathBuf {
    let mut path = master.as_os_str().to_owned();
    path.push(".guests");
    path.into()
}

fn parse_master(text: &str) -> Option<Zeroizing<[u8; MASTER_LEN]>> {
    let digits = text.strip_prefix(HEAD)?.trim();
    let mut master = Zeroizing::new([0; MASTER_LEN]);
    if digits.len() != 2 * MASTER_LEN || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (place, pair) in master.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *place = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(master)
}

/// Or the number of a line that is none.
fn parse_guests(text: &str) -> Result<BTreeMap<Uuid, Generation>, usize> {
    let mut guests = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let mut words = line.split_ascii_whitespace();
        let Some(uuid) = words.next().filter(|word| !word.starts_with('#')) else { continue };
        let uuid = Uuid::parse(uuid.as_bytes());
        let number = words.next().and_then(|word| word.parse().ok()).filter(|number| *number > 0);
        let revoked = match words.next() {
            None => Some(false),
            Some("revoked") => Some(true),
            Some(_) => None,
        };
        match (uuid, number, revoked) {
            (Some(uuid), Some(number), Some(revoked)) if words.next().is_none() && !guests.contains_key(&uuid) => {
                guests.insert(uuid, Generation { number, revoked });
            }
            _ => return Err(at + 1),
        }
    }
    Ok(guests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencewire_core::native::keys::read_file;

    const GUEST: Uuid = Uuid::from_bytes([7; 16]);

    #[test]
    fn a_guest_is_enrolled_again_and_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        Enrolled::create(&path).unwrap();
        assert!(Enrolled::create(&path).unwrap_err().contains("there already"));
        let mut enrolled = Enrolled::load(&path).unwrap();
        assert!(enrolled.keys(GUEST).is_none());
        let first = read_file(&*enrolled.enroll(GUEST).unwrap()).unwrap();
        let second = read_file(&*enrolled.enroll(GUEST).unwrap()).unwrap();
        let loaded = Enrolled::load(&path).unwrap();
        assert!(loaded == enrolled);
        let now = loaded.keys(GUEST).unwrap();
        let tag = |keys: &Keys| keys.hello_tag(b"\x01");
        assert_eq!(tag(&now), tag(&second));
        assert_ne!(tag(&now), tag(&first), "the first key is worth nothing any more");
        enrolled.revoke(GUEST).unwrap();
        let revoked = Enrolled::load(&path).unwrap().keys(GUEST).expect("it stays one that has a key");
        assert!(tag(&revoked) != tag(&second) && tag(&revoked) != tag(&first));
        assert!(enrolled.revoke(Uuid::from_bytes([8; 16])).is_err());
    }

    /// Each has read the list before the others change it, as programs do that are started together.
    #[test]
    fn who_changes_the_list_at_the_same_time_loses_nothing() {
        const EACH: u32 = 8;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        Enrolled::create(&path).unwrap();
        let guest = |number: u8| Uuid::from_bytes([number; 16]);
        let change = |own: u8| {
            let mut enrolled = Enrolled::load(&path).unwrap();
            let mut generations = Vec::new();
            for _ in 0..EACH {
                generations.push(read_file(&*enrolled.enroll(GUEST).unwrap()).unwrap().generation());
                enrolled.enroll(guest(own)).unwrap();
                enrolled.revoke(guest(own)).unwrap();
            }
            assert!(generations.is_sorted(), "{generations:?}");
            generations
        };
        let mut all: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = (100..106).map(|own| scope.spawn(move || change(own))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        assert_eq!(all, (1..=6 * EACH).collect::<Vec<_>>(), "no two got the same key");
        let loaded = Enrolled::load(&path).unwrap();
        assert_eq!(loaded.guests[&GUEST], Generation { number: 6 * EACH, revoked: false });
        for own in 100..106 {
            assert_eq!(loaded.guests[&guest(own)], Generation { number: 2 * EACH, revoked: true });
        }
    }

    /// While one waits, somebody makes another master key: a key of the old one would be worthless.
    #[test]
    fn a_master_key_that_was_replaced_meanwhile_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        Enrolled::create(&path).unwrap();
        let mut enrolled = Enrolled::load(&path).unwrap();
        let old = enrolled.master.clone();
        fs::remove_file(&path).unwrap();
        assert!(enrolled.enroll(GUEST).unwrap_err().contains("cannot be locked"));
        Enrolled::create(&path).unwrap();
        let key = read_file(&*enrolled.enroll(GUEST).unwrap()).unwrap();
        let tag = |keys: &Keys| keys.hello_tag(b"\x01");
        assert_eq!(tag(&key), tag(&Enrolled::load(&path).unwrap().keys(GUEST).unwrap()));
        assert_ne!(tag(&key), tag(&Keys::derive(&*old, GUEST, 1)));
    }

    #[test]
    fn files_that_are_none_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        assert!(Enrolled::load(&path).unwrap_err().contains("cannot be read"));
        Enrolled::create(&path).unwrap();
        for bad in ["nonsense", "7 1", "07070707-0707-0707-0707-070707070707", "07070707-0707-0707-0707-070707070707 0"]
        {
            fs::write(guests_path(&path), format!("# comment\n\n{bad}\n")).unwrap();
            assert!(Enrolled::load(&path).unwrap_err().contains("line 3"), "{bad}");
        }
        fs::remove_file(guests_path(&path)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Enrolled::load(&path).unwrap_err().contains("0644"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "fencewire-master-1\n00\n").unwrap();
        assert!(Enrolled::load(&path).unwrap_err().contains("no master key"));
    }
}
