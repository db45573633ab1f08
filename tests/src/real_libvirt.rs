//! A real libvirtd of the test's own, with real QEMU processes: a host, as far as a fence can tell.
//!
//! ```no_run
//! # use fencewire_tests::real_libvirt::{Host, Machine};
//! let host = Host::start();
//! let qemu = host.run(&Machine::new("vm1"));
//! host.virsh(&["destroy", "vm1"]);
//! assert!(!qemu.lives());
//! ```
//!
//! It is a *session* daemon of an ordinary user (of `nobody`, where the test is root), whose folders are private: no
//! namespace and no privilege is needed, several run beside one another, and of the machine they touch nothing. It has
//! libvirt's QEMU driver and no other. The guests are emulated (TCG): the same on a machine with KVM as on one without.
//! They have no system and hardly anything else (see [`Machine`]): a QEMU takes 0.4 s to start and 40 MB.
//!
//! Whether a guest lives is said by its process ([`Qemu`]), never by libvirt.
//!
//! A `keeper` (`src/bin`) stands between the test and the libvirtd. It reaps at once, as an init would: an unreaped
//! QEMU looks alive to libvirt, and makes a second of each destroy. And it kills all that is left when the test ends,
//! even where that was killed itself.

mod machine;
mod qemu;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{lchown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::process::{DEADLINE, Process, of_the_tests, program, run, wait_until};

pub use machine::{Machine, Program};
pub use qemu::Qemu;

/// Debian's `nobody`, whom the libvirtd runs as where the test is root: root's would be the machine's own.
const NOBODY: u32 = 65_534;

/// What libvirt asks QEMU at the first start, which takes seconds, and keeps in files. They are the same for all.
static CAPABILITIES: Mutex<Vec<(PathBuf, Vec<u8>)>> = Mutex::new(Vec::new());

/// A libvirtd with its QEMUs; all of them are ended when it is dropped.
#[derive(Debug)]
pub struct Host {
    /// A line starts the libvirtd again; the end is the end of all. None when that has come.
    orders: Option<ChildStdin>,
    keeper: Process,
    libvirtd: Qemu,
    started: usize,
    folder: TempDir,
}

impl Host {
    /// Starts a libvirtd without guests, and waits until it takes connections.
    ///
    /// # Panics
    /// When a program is missing, or it does not come up.
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a private folder");
        // Only the first host has to ask QEMU; the others wait for what it hears.
        let mut capabilities = CAPABILITIES.lock().expect("a host that started");
        let is_first = capabilities.is_empty();
        prepare(folder.path(), &capabilities);
        let (keeper, orders) = keep(folder.path());
        let libvirtd = started(&keeper, 1);
        let host = Self { orders: Some(orders), keeper, libvirtd, started: 1, folder };
        host.wait_until_up();
        if is_first {
            host.virsh(&["version"]);
            *capabilities = read_folder(&host.path("cache"));
        }
        host
    }

    /// Under which URI it is reached.
    pub fn uri(&self) -> String {
        format!("qemu+unix:///session?socket={}", self.socket().display())
    }

    /// A path in its private folder, in which its QEMUs may write.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Defines a guest and leaves it off.
    ///
    /// # Panics
    /// When libvirt refuses.
    #[track_caller]
    pub fn define(&self, machine: &Machine) {
        self.virsh(&["define", &self.xml(machine)]);
    }

    /// Defines a guest and starts it.
    ///
    /// # Panics
    /// When libvirt refuses.
    #[track_caller]
    pub fn run(&self, machine: &Machine) -> Qemu {
        self.define(machine);
        self.switch_on(machine.name())
    }

    /// Starts a guest that is defined.
    ///
    /// # Panics
    /// When libvirt refuses.
    #[track_caller]
    pub fn switch_on(&self, name: &str) -> Qemu {
        self.virsh(&["start", name]);
        self.qemu(name)
    }

    /// Starts a guest that is not defined: it is gone when it is off.
    ///
    /// # Panics
    /// When libvirt refuses.
    #[track_caller]
    pub fn run_transient(&self, machine: &Machine) -> Qemu {
        self.virsh(&["create", &self.xml(machine)]);
        self.qemu(machine.name())
    }

    /// The process of a guest that libvirt says has one.
    ///
    /// # Panics
    /// When it has none.
    #[track_caller]
    pub fn qemu(&self, name: &str) -> Qemu {
        self.try_qemu(name).unwrap_or_else(|| panic!("{name} has no process"))
    }

    /// The process of a guest, where libvirt says that it has one.
    pub fn try_qemu(&self, name: &str) -> Option<Qemu> {
        let text = fs::read_to_string(self.path(&format!("run/libvirt/qemu/run/{name}.pid"))).ok()?;
        Qemu::of(text.trim().parse().ok()?)
    }

    /// Every process that this host has started for a guest and that lives, whatever libvirt knows of it.
    ///
    /// # Panics
    /// When the system does not say what runs.
    pub fn qemus(&self, name: &str) -> Vec<Qemu> {
        let [of_guest, of_host] = [format!("guest={name},"), self.path("config").display().to_string()];
        Qemu::all(|arguments| {
            [&of_guest, &of_host].iter().all(|what| arguments.iter().any(|word| word.contains(*what)))
        })
    }

    /// What libvirt says of a guest's state, such as "running (booted)".
    ///
    /// # Panics
    /// When libvirt does not know it.
    #[track_caller]
    pub fn state(&self, name: &str) -> String {
        self.virsh(&["domstate", "--reason", name])
    }

    /// How often this libvirtd was told to do that to a guest, by its name for it such as "virDomainDestroy".
    pub fn told(&self, call: &str, name: &str) -> usize {
        self.logged(&[&format!(": {call}:"), &format!("(VM: name={name},")])
    }

    /// How often this libvirtd has ended a guest because somebody told it to.
    pub fn destroyed(&self, name: &str) -> usize {
        self.logged(&["qemuProcessStop:", &format!(" name={name} "), "reason=destroyed"])
    }

    fn logged(&self, words: &[&str]) -> usize {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// Asks libvirt something with `virsh`, and gives what that prints.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn virsh(&self, arguments: &[&str]) -> String {
        self.try_virsh(arguments).unwrap_or_else(|why| panic!("virsh {}: {why}", arguments.join(" ")))
    }

    /// Asks libvirt something with `virsh`: what that prints, or what it says against it.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn try_virsh(&self, arguments: &[&str]) -> Result<String, String> {
        let finished = run(self.virsh_command().args(arguments), DEADLINE);
        match finished.code {
            Some(0) => Ok(finished.stdout.trim().to_owned()),
            _ => Err(finished.stderr.trim().to_owned()),
        }
    }

    /// Starts a `virsh` that takes its time.
    ///
    /// # Panics
    /// When it is missing.
    #[track_caller]
    pub fn start_virsh(&self, arguments: &[&str]) -> Process {
        Process::start(self.virsh_command().args(arguments))
    }

    /// Starts a live migration of a guest to another host.
    ///
    /// # Panics
    /// When `virsh` is missing.
    #[track_caller]
    pub fn start_migration(&self, name: &str, to: &Host, flags: &[&str]) -> Process {
        let way = format!("unix://{}", to.path(&format!("{name}.migration")).display());
        let uri = to.uri();
        let fixed = ["migrate", "--live", "--persistent", name, &uri, "--migrateuri", &way];
        self.start_virsh(&[&fixed, flags].concat())
    }

    fn virsh_command(&self) -> Command {
        let mut command = Command::new(program("virsh"));
        command.args(["-q", "-c"]).arg(self.uri());
        command
    }

    /// Lets the libvirtd hang (SIGSTOP): it takes what it is sent and does nothing. Its QEMUs go on.
    pub fn hang(&self) {
        self.libvirtd.hang();
    }

    /// Lets it do what it was sent while it hung.
    pub fn go_on(&self) {
        self.libvirtd.go_on();
    }

    /// Kills the libvirtd (SIGKILL). Its QEMUs go on.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn kill(&self) {
        self.libvirtd.end(Signal::KILL);
    }

    /// Ends the libvirtd (SIGTERM). Its QEMUs go on.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn stop(&self) {
        self.libvirtd.end(Signal::TERM);
    }

    /// Starts the libvirtd after it was stopped or killed, and waits until it takes connections.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start_again(&mut self) {
        let orders = self.orders.as_mut().expect("until it is dropped");
        orders.write_all(b"\n").expect("the keeper reads");
        self.started += 1;
        self.libvirtd = started(&self.keeper, self.started);
        self.wait_until_up();
    }

    #[track_caller]
    fn wait_until_up(&self) {
        wait_until(DEADLINE, "libvirtd to take connections", || {
            assert!(self.libvirtd.lives(), "libvirtd has ended: {}", self.said());
            UnixStream::connect(self.socket()).ok()
        });
    }

    fn said(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let errors: Vec<_> = log.lines().filter(|line| line.contains(": error :")).collect();
        format!("{}{}", self.keeper.stderr(), errors.join("\n"))
    }

    fn socket(&self) -> PathBuf {
        self.path("libvirt-sock")
    }

    /// A file with the guest's XML. Makes what the guest boots from.
    #[track_caller]
    fn xml(&self, machine: &Machine) -> String {
        let [path, floppy] = ["xml", "floppy"].map(|kind| self.path(&format!("{}.{kind}", machine.name())));
        if let Some(sector) = machine.sector() {
            fs::write(&floppy, sector).expect("a floppy");
        }
        fs::write(&path, machine.xml(&floppy)).expect("a file for a guest's XML");
        path.to_str().expect("a test's paths are UTF-8").to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.orders = None;
        let end = Instant::now() + DEADLINE;
        while self.keeper.is_running() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The keeper with a libvirtd.
#[track_caller]
fn keep(folder: &Path) -> (Process, ChildStdin) {
    let mut command = Command::new(of_the_tests("keeper"));
    if geteuid().is_root() {
        command.arg(program("setpriv")).args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command.arg(program("libvirtd")).arg("-f").arg(folder.join("libvirtd.conf")).arg("-p").arg(folder.join("pid"));
    command
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .env("HOME", folder)
        .env("LIBVIRT_DRIVER_DIR", folder.join("drivers"));
    for (variable, name) in [
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_RUNTIME_DIR", "run"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_DATA_HOME", "data"),
    ] {
        command.env(variable, folder.join(name));
    }
    // Out of the terminal's reach: an interrupt ends the test, and the end of the test ends these.
    Process::start_with_pipe(command.process_group(0))
}

/// The libvirtd that the keeper has started for the `nth` time.
#[track_caller]
fn started(keeper: &Process, nth: usize) -> Qemu {
    wait_until(DEADLINE, "the keeper to start a libvirtd", || {
        let said = keeper.stdout();
        let (whole, _) = said.rsplit_once('\n')?;
        let pid = whole.lines().nth(nth - 1)?.parse().ok()?;
        Some(Qemu::of(pid).unwrap_or_else(|| panic!("libvirtd has ended: {}", keeper.stderr())))
    })
}

fn prepare(folder: &Path, capabilities: &[(PathBuf, Vec<u8>)]) {
    let at = |name: &str| folder.join(name);
    for name in ["config/libvirt", "run", "cache", "data", "drivers"] {
        fs::create_dir_all(at(name)).expect("a private folder");
    }
    let daemon = format!(
        "unix_sock_dir = \"{folder}\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\nhost_uuid = \"{}\"\n\
         log_filters = \"1:libvirt.domain 1:qemu.qemu_process\"\nlog_outputs = \"1:file:{folder}/log\"\n",
        // Without one of its own, libvirt takes two of them for the same host, and migrates nothing.
        fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a UUID").trim(),
        folder = folder.display(),
    );
    fs::write(at("libvirtd.conf"), daemon).expect("a configuration file");
    let driver = "stdio_handler = \"file\"\nsecurity_driver = \"none\"\nnamespaces = []\ncgroup_controllers = []\n";
    fs::write(at("config/libvirt/qemu.conf"), driver).expect("a configuration file");
    symlink(qemu_driver(), at("drivers/libvirt_driver_qemu.so")).expect("a link to the driver");
    for (path, content) in capabilities {
        let path = at("cache").join(path);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    if geteuid().is_root() {
        give_away(folder);
    }
}

/// libvirt's QEMU driver, wherever this architecture has its libraries.
#[track_caller]
fn qemu_driver() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let driver = folders
        .map(|folder| folder.join("libvirt/connection-driver/libvirt_driver_qemu.so"))
        .find(|driver| driver.exists());
    driver.unwrap_or_else(|| {
        panic!(
            "libvirt's QEMU driver is missing: it is in the Debian package libvirt-daemon-driver-qemu \
             (apt-get install libvirt-daemon-driver-qemu)"
        )
    })
}

fn give_away(path: &Path) {
    lchown(path, Some(NOBODY), Some(NOBODY)).expect("root may give files away");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("a folder") {
            give_away(&entry.expect("an entry").path());
        }
    }
}

/// Every file below a folder, with its path from there.
fn read_folder(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let content = fs::read(&path).expect("a file");
                files.push((path.strip_prefix(folder).expect("it is below").to_owned(), content));
            }
        }
    }
    files
}
