//! A file of guests for libvirt's own test driver, `test:///ABSOLUTE/FILE.xml`.
//!
//! The driver keeps its state in the connection: every program, and every connection of it, that opens the file starts
//! with the states written there and sees no change that another made. It keeps channels and serial ports in the XML
//! but makes none of their sockets; a test makes them (see [`crate::guest_channel`]).

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A domain state as libvirt numbers it. The test driver takes every one of them (libvirt 9.0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No state.
    NoState = 0,
    /// Running.
    Running = 1,
    /// Blocked on a resource; `virsh` prints "idle".
    Blocked = 2,
    /// Paused.
    Paused = 3,
    /// Being shut down.
    Shutdown = 4,
    /// Shut off.
    Shutoff = 5,
    /// Crashed. For the test driver such a guest is active: it has an id.
    Crashed = 6,
    /// Suspended by the guest's power management.
    PmSuspended = 7,
}

/// One guest of a [`LibvirtFile`]: running and without channels until told otherwise.
#[derive(Debug, Clone)]
pub struct Guest {
    name: String,
    uuid: String,
    state: State,
    devices: String,
}

impl Guest {
    /// A running guest of that name, whose UUID is made from the name: the same name has the same UUID everywhere.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), uuid: uuid_of(name), state: State::Running, devices: String::new() }
    }

    /// Gives it another UUID.
    #[must_use]
    pub fn uuid(mut self, uuid: &str) -> Self {
        uuid.clone_into(&mut self.uuid);
        self
    }

    /// Gives it another state.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.state = state;
        self
    }

    /// Adds a virtio-serial port that the guest knows as `target` and the host as the unix socket `path`, on which the
    /// guest's side listens.
    #[must_use]
    pub fn channel(self, target: &str, path: &Path) -> Self {
        let target = format!("<target type='virtio' name='{}'/>", escaped(target));
        self.device("channel", path, &target)
    }

    /// Adds a classic guestfwd channel (10.0.2.179:1229 in the guest) on the unix socket `path`.
    #[must_use]
    pub fn vmchannel(self, path: &Path) -> Self {
        self.device("channel", path, "<target type='guestfwd' address='10.0.2.179' port='1229'/>")
    }

    /// Adds a serial port, the guest's `/dev/ttyS<port>`, on the unix socket `path`.
    #[must_use]
    pub fn serial(self, port: u8, path: &Path) -> Self {
        self.device("serial", path, &format!("<target port='{port}'/>"))
    }

    /// Adds devices as they are written in XML.
    #[must_use]
    pub fn devices(mut self, xml: &str) -> Self {
        self.devices += xml;
        self
    }

    fn device(mut self, kind: &str, path: &Path, target: &str) -> Self {
        let path = escaped(path.to_str().expect("a test's paths are UTF-8"));
        writeln!(self.devices, "      <{kind} type='unix'><source mode='bind' path='{path}'/>{target}</{kind}>")
            .expect("a String takes everything");
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its UUID as text.
    pub fn uuid_text(&self) -> &str {
        &self.uuid
    }

    /// The state it has in the file.
    pub fn current_state(&self) -> State {
        self.state
    }

    /// Whether libvirt counts it as active: whether it has an id.
    pub fn is_active(&self) -> bool {
        self.state != State::Shutoff
    }

    fn xml(&self) -> String {
        let Self { name, uuid, state, devices } = self;
        let (name, state) = (escaped(name), *state as u8);
        format!(
            "  <domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
    <test:runstate>{state}</test:runstate>
    <name>{name}</name>
    <uuid>{uuid}</uuid>
    <memory>65536</memory>
    <vcpu>1</vcpu>
    <os><type>hvm</type></os>
    <devices>
{devices}    </devices>
  </domain>
"
        )
    }
}

/// The UUID that [`Guest::new`] gives to a guest of that name.
pub fn uuid_of(name: &str) -> String {
    // FNV-1a with 128 bits, then version 4 and the usual variant, so that every reader takes it for a UUID.
    let hash = name.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    let hash = hash & !(0xf << 76) | (0x4 << 76);
    let hash = hash & !(0x3 << 62) | (0x2 << 62);
    let hex = format!("{hash:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A file of guests, built with [`guest`](Self::guest) and written with [`write`](Self::write).
#[derive(Debug, Clone)]
pub struct LibvirtFile {
    path: PathBuf,
    guests: Vec<Guest>,
}

impl LibvirtFile {
    /// A file without guests at `path`. Nothing is written yet.
    ///
    /// # Panics
    /// When `path` is not absolute: the URI could not name it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        assert!(path.is_absolute(), "libvirt's test driver takes absolute paths only, not {}", path.display());
        Self { path, guests: Vec::new() }
    }

    /// Adds a guest.
    #[must_use]
    pub fn guest(mut self, guest: Guest) -> Self {
        self.guests.push(guest);
        self
    }

    /// Adds guests.
    #[must_use]
    pub fn guests(mut self, guests: impl IntoIterator<Item = Guest>) -> Self {
        self.guests.extend(guests);
        self
    }

    /// Writes the file and returns its URI.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self) -> String {
        let guests: String = self.guests.iter().map(Guest::xml).collect();
        fs::write(&self.path, format!("<node>\n{guests}</node>\n"))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", self.path.display()));
        self.uri()
    }

    /// The URI under which libvirt opens it.
    pub fn uri(&self) -> String {
        format!("test://{}", self.path.display())
    }
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;").replace('"', "&quot;")
}
