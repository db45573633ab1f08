//! Guests with a Linux system, on a libvirtd of the test's own.
//!
//! ```no_run
//! # use fencewire_tests::{guest::Guest, real_libvirt::Host};
//! let host = Host::start();
//! let [asker, target] = Guest::boot(&host, ["asker", "target"]);
//! let done = asker.run("fence_wire -o status -n target");
//! assert_eq!((done.code, target.qemu(&host).lives()), (Some(0), true), "{}", done.stderr);
//! ```
//!
//! Each is a q35 with one processor and 128 MiB, emulated: a boot takes two seconds, or more where others boot. Its system
//! is a Debian kernel with busybox, Debian's `fence_virt` and our agent in an initramfs (`make guest-image`); no disk, no
//! udev, no network. It has our virtio port, and a second serial port, `/dev/ttyS1`; where their sockets are on the host is
//! said by [`Guest::virtio`] and [`Guest::serial`]. The first serial port is the console, whose text a failure shows.
//!
//! Commands go to it by a virtio port of their own, so that whatever is done to the others stops no test. They are a
//! shell's; exit code, output, and the time as it was taken in the guest come back.

mod hand;
mod image;

use std::fs;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::process::{DEADLINE, Finished};
use crate::real_libvirt::{Host, Machine, Qemu};
use hand::Hand;

/// What the guests' ends of our channels are called in the guest.
pub const SERIAL: &str = "/dev/ttyS1";
/// The virtio port's name.
pub const PORT: &str = "org.fencewire.fence.0";
/// The port by which a guest carries out commands.
const HAND: &str = "org.fencewire.test.0";

/// From its start until a guest is ready. Two seconds where nothing else is to be done.
const BOOT_DEADLINE: Duration = Duration::from_secs(90);

/// How many guests of this test program boot now. Each keeps a processor busy; more than that only make one another late.
static BOOTING: Mutex<usize> = Mutex::new(0);
static BOOTED: Condvar = Condvar::new();

/// A guest that is ready.
#[derive(Debug)]
pub struct Guest {
    name: String,
    host: PathBuf,
    hand: Mutex<Hand>,
}

/// A command that a guest has begun with.
#[derive(Debug)]
#[must_use = "nobody hears what came of it"]
pub struct Begun<'a> {
    guest: &'a Guest,
    script: String,
    id: u64,
    deadline: Duration,
}

impl Guest {
    /// A machine with a system that has the two channels; defined nowhere yet.
    ///
    /// # Panics
    /// When the image is missing.
    #[track_caller]
    pub fn machine(host: &Host, name: &str) -> Machine {
        let [kernel, initramfs] = image::put(host);
        let at = |kind: &str| host.path(&format!("{name}.{kind}"));
        Machine::new(name)
            .system(&kernel, &initramfs, &at("console"))
            .serial_port(1, &at("serial"))
            .channel(HAND, &at("hand"))
            .channel(PORT, &at("virtio"))
    }

    /// Starts guests of these names and waits until they are ready.
    ///
    /// # Panics
    /// When the image is missing, or one does not become ready; with what is on its console.
    #[track_caller]
    pub fn boot<const N: usize>(host: &Host, names: [&str; N]) -> [Guest; N] {
        Self::boot_machines(host, names.map(|name| Self::machine(host, name)))
    }

    /// Starts these machines, which have a system, and waits until they are ready.
    ///
    /// # Panics
    /// When one does not become ready; with what is on its console.
    #[track_caller]
    pub fn boot_machines<const N: usize>(host: &Host, machines: [Machine; N]) -> [Guest; N] {
        thread::scope(|scope| {
            let boots = machines.map(|machine| {
                scope.spawn(move || {
                    let _turn = Turn::take();
                    host.run(&machine);
                    Self::of(host, machine.name())
                })
            });
            boots.map(|boot| boot.join().unwrap_or_else(|why| std::panic::resume_unwind(why)))
        })
    }

    /// The guest of that name, which was just started, when it is ready.
    ///
    /// # Panics
    /// When it does not become ready; with what is on its console.
    #[track_caller]
    pub fn of(host: &Host, name: &str) -> Guest {
        let hand = Hand::connect(&host.path(&format!("{name}.hand")));
        let guest = Guest { name: name.to_owned(), host: host.path(""), hand: Mutex::new(hand) };
        guest.wait_until_ready(1);
        guest
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its virtio port's socket is on the host.
    pub fn virtio(&self) -> PathBuf {
        self.path("virtio")
    }

    /// Where its second serial port's socket is on the host.
    pub fn serial(&self) -> PathBuf {
        self.path("serial")
    }

    /// Its process.
    ///
    /// # Panics
    /// When it has none.
    #[track_caller]
    pub fn qemu(&self, host: &Host) -> Qemu {
        host.qemu(&self.name)
    }

    /// What it has written to its console since it was started.
    pub fn console(&self) -> String {
        fs::read(self.path("console")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Has a shell in the guest carry that out, and waits for its end.
    ///
    /// # Panics
    /// When it does not end in time; it is killed then.
    #[track_caller]
    pub fn run(&self, script: &str) -> Finished {
        self.begin(script).end()
    }

    /// The same for what is to succeed: what it has written, without the last line's end.
    ///
    /// # Panics
    /// When it fails, or does not end in time.
    #[track_caller]
    pub fn done(&self, script: &str) -> String {
        let done = self.run(script);
        assert_eq!(done.code, Some(0), "in {}: {script}: {done:?}", self.name);
        done.stdout.trim_end().to_owned()
    }

    /// Has a shell in the guest begin with that.
    ///
    /// # Panics
    /// When the guest takes no orders.
    #[track_caller]
    pub fn begin(&self, script: &str) -> Begun<'_> {
        self.begin_for(script, DEADLINE)
    }

    /// The same for what may take longer, or must not.
    ///
    /// # Panics
    /// When the guest takes no orders.
    #[track_caller]
    pub fn begin_for(&self, script: &str, deadline: Duration) -> Begun<'_> {
        let id = self.hand().order(script, deadline);
        Begun { guest: self, script: script.to_owned(), id, deadline }
    }

    /// Lets the guest do something that resets it, such as `reboot -f`, and waits until it is ready again.
    ///
    /// # Panics
    /// When it does not become ready again.
    #[track_caller]
    pub fn resets(&self, reset: impl FnOnce(&Self)) {
        let boots = self.hand().boots();
        reset(self);
        let _turn = Turn::take();
        self.wait_until_ready(boots + 1);
    }

    #[track_caller]
    fn wait_until_ready(&self, nth: usize) {
        let ready = self.hand().is_ready(nth, BOOT_DEADLINE);
        assert!(ready, "{} is not ready after {BOOT_DEADLINE:?}; its console says\n{}", self.name, self.console());
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.host.join(format!("{}.{kind}", self.name))
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Begun<'_> {
    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time; it is killed then.
    #[track_caller]
    pub fn end(self) -> Finished {
        /// For the guest to say that it took too long.
        const MORE: Duration = Duration::from_secs(10);
        let Self { guest, script, id, deadline } = self;
        match guest.hand().answer(id, deadline + MORE) {
            Some(Ok(finished)) => finished,
            Some(Err(why)) => panic!("in {}: {script}: {why}", guest.name),
            None => panic!("in {}: {script}: no word of it; the console says\n{}", guest.name, guest.console()),
        }
    }
}

/// One of as many boots at a time as there are processors.
struct Turn;

impl Turn {
    fn take() -> Self {
        let most = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let booting = BOOTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut booting =
            BOOTED.wait_while(booting, |booting| *booting >= most).unwrap_or_else(std::sync::PoisonError::into_inner);
        *booting += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *BOOTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner) -= 1;
        BOOTED.notify_one();
    }
}
