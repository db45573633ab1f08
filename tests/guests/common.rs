//! What these tests share: a guest that asks, by every way that it has, and whom it asks about.

use std::fmt::Write as _;

use fencewire_tests::daemon::{Daemon, Setup};
use fencewire_tests::guest::{Begun, Guest, SERIAL};
use fencewire_tests::process::Finished;
use fencewire_tests::real_libvirt::{Host, Machine, Qemu};

/// Who asks: a guest with a system.
pub(crate) const ASKER: &str = "asker";
/// Whom it asks about: a process that can be ended, with no system in it.
pub(crate) const TARGET: &str = "target";

/// By which port and over which wire a guest asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    VirtioClassic,
    SerialClassic,
    VirtioNative,
    SerialNative,
}

pub(crate) const WAYS: [Way; 4] = [Way::VirtioClassic, Way::SerialClassic, Way::VirtioNative, Way::SerialNative];

impl Way {
    /// Our agent, told to go that way. The virtio port it has to find.
    pub(crate) fn agent(self) -> &'static str {
        match self {
            Way::VirtioClassic => "fence_wire -W classic",
            Way::SerialClassic => "fence_wire -W classic -D /dev/ttyS1",
            Way::VirtioNative => "fence_wire -W native",
            Way::SerialNative => "fence_wire -W native -D /dev/ttyS1",
        }
    }

    pub(crate) fn is_virtio(self) -> bool {
        matches!(self, Way::VirtioClassic | Way::VirtioNative)
    }

    pub(crate) fn is_native(self) -> bool {
        matches!(self, Way::VirtioNative | Way::SerialNative)
    }

    /// The device in that guest.
    pub(crate) fn device(self, guest: &Guest) -> String {
        if self.is_virtio() { virtio_device(guest) } else { SERIAL.to_owned() }
    }
}

/// What writes these bytes to a device as they are, in the guest's shell.
pub(crate) fn writing(bytes: &[u8], device: &str) -> String {
    let mut octal = String::new();
    for byte in bytes {
        write!(octal, "\\{byte:03o}").expect("a String takes everything");
    }
    format!("printf '{octal}' >{device}")
}

/// A tty as it is otherwise changes bytes, and echoes them.
pub(crate) fn make_raw(guest: &Guest) {
    guest.done(&format!("stty -F {SERIAL} raw -echo"));
}

/// What the virtio port of ours is called in `/dev`.
pub(crate) fn virtio_device(guest: &Guest) -> String {
    guest.done(
        "cd /sys/class/virtio-ports; for port in *; do grep -q fencewire.fence $port/name && echo /dev/$port; done",
    )
}

/// A host with a guest that asks. A bridge serves both of its ports, over every wire.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) daemon: Daemon,
    pub(crate) asker: Guest,
    pub(crate) host: Host,
}

impl Bed {
    /// With no target yet.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::with(|setup| setup)
    }

    /// The same with something else in the configuration.
    #[track_caller]
    pub(crate) fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let host = Host::start();
        let [asker] = Guest::boot(&host, [ASKER]);
        let daemon = change(setup(&host, &[&asker])).start();
        wait_connected(&daemon, &[&asker], 1);
        Self { daemon, asker, host }
    }

    /// Starts a target that the asker may fence.
    #[track_caller]
    pub(crate) fn target(&self) -> Qemu {
        self.host.run(&Machine::new(TARGET))
    }

    /// Runs our agent in the asker.
    #[track_caller]
    pub(crate) fn ask(&self, way: Way, what: &str) -> Finished {
        self.begin(way, what).end()
    }

    /// Starts our agent in the asker.
    #[track_caller]
    pub(crate) fn begin(&self, way: Way, what: &str) -> Begun<'_> {
        self.asker.begin(&format!("exec {} {what}", way.agent()))
    }

    /// Runs our agent in the asker; the exit code.
    #[track_caller]
    pub(crate) fn code(&self, way: Way, what: &str) -> i32 {
        let done = self.ask(way, what);
        done.code.unwrap_or_else(|| panic!("{way:?} {what}: {done:?}"))
    }
}

/// What serves both ports of these guests, over every wire; they, and whoever is called target, may fence one another.
pub(crate) fn setup(host: &Host, guests: &[&Guest]) -> Setup {
    let mut members: Vec<&str> = guests.iter().map(|guest| guest.name()).collect();
    members.extend([TARGET, "other"]);
    let mut setup = Daemon::setup().uri(&host.uri()).group("all", &members, "").wire("classic_virtio = true");
    setup = setup.wire("keyless = true");
    for guest in guests {
        setup = setup.virtio_channel("unix", &guest.virtio(), guest.name());
        setup = setup.channel("unix", &guest.serial(), guest.name());
    }
    setup
}

/// Waits until both ports of these guests were connected for that time.
#[track_caller]
pub(crate) fn wait_connected(daemon: &Daemon, guests: &[&Guest], nth: usize) {
    for guest in guests {
        daemon.wait_connected(&guest.virtio(), nth);
        daemon.wait_connected(&guest.serial(), nth);
    }
}
