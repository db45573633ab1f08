//! A libvirtd of the test's own, with libvirt's test driver in it and no other.
//!
//! Without driver modules it touches neither network nor QEMU, and is up in a fraction of a second. Its guests are those
//! of `test:///default`, which is one, named "test" and running; they are as in the beginning whenever its last client
//! has left, and whenever it is started anew.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use fencewire_tests::libvirt_file::{Guest, LibvirtFile};
use fencewire_tests::process::{DEADLINE, Process, program, wait_until};
use rustix::process::Signal;
use tempfile::TempDir;

/// A libvirtd; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Libvirtd {
    process: Option<Process>,
    folder: TempDir,
}

impl Libvirtd {
    /// Starts one and waits until it takes connections.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a private folder");
        fs::create_dir(folder.path().join("no-drivers")).expect("a folder without drivers");
        let configuration = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n",
            folder.path().display()
        );
        fs::write(folder.path().join("libvirtd.conf"), configuration).expect("a configuration file");
        let mut libvirtd = Self { process: None, folder };
        libvirtd.start_again();
        libvirtd
    }

    /// Its guest "test", whoever connects.
    pub(crate) fn uri(&self) -> String {
        format!("test+unix:///default?socket={}", self.socket().display())
    }

    /// The guests of a file, as they are there for each connection.
    #[track_caller]
    pub(crate) fn uri_of(&self, guests: impl IntoIterator<Item = Guest>) -> String {
        let path = self.folder.path().join("guests.xml");
        LibvirtFile::new(&path).guests(guests).write();
        format!("test+unix://{}?socket={}", path.display(), self.socket().display())
    }

    /// Lets it hang (SIGSTOP): it takes what it is sent and does nothing.
    pub(crate) fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it do what it was sent while it hung.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// Stops it.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(DEADLINE);
        }
    }

    /// Starts it after it was stopped.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        let at = |name| self.folder.path().join(name);
        let mut command = Command::new(program("libvirtd"));
        command.env("LIBVIRT_DRIVER_DIR", at("no-drivers"));
        command.arg("-f").arg(at("libvirtd.conf")).arg("-p").arg(at("pid"));
        let mut process = Process::start(&mut command);
        wait_until(DEADLINE, "libvirtd to take connections", || {
            assert!(process.is_running(), "libvirtd has ended: {}", process.stderr());
            UnixStream::connect(self.socket()).ok()
        });
        self.process = Some(process);
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("libvirt-sock")
    }
}
