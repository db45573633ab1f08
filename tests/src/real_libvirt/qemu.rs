//! A process that is no child of the test's, by its number and a handle that no reuse of the number can fool: a QEMU, or
//! the libvirtd itself.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::process::{DEADLINE, processor_time, readable, wait_until};

/// A process.
#[derive(Debug)]
pub struct Qemu {
    pid: Pid,
    /// Refers to this very process, whatever happens to its number.
    pidfd: OwnedFd,
}

impl Qemu {
    /// The process of that number, if there is one.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let pid = Pid::from_raw(pid)?;
        Some(Self { pid, pidfd: pidfd_open(pid, PidfdFlags::empty()).ok()? })
    }

    /// Every process that lives and whose command line is like that.
    pub(super) fn all(is_one: impl Fn(&[String]) -> bool) -> Vec<Self> {
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_one = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
            is_one(&words.collect::<Vec<_>>())
        };
        numbers.filter(is_one).filter_map(Self::of).filter(Self::lives).collect()
    }

    /// Its number.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it has not ended: it has memory, files and a processor, or may have one again. By the kernel's word.
    pub fn lives(&self) -> bool {
        !readable(&self.pidfd, Duration::ZERO)
    }

    /// Waits until it has had nothing to do for a tenth of a second: until what its guest does at its start is over.
    ///
    /// # Panics
    /// When that does not come.
    #[track_caller]
    pub fn wait_until_idle(&self) {
        let had = || processor_time(self.id().unsigned_abs());
        let mut last = (had(), Instant::now());
        wait_until(DEADLINE, "a process that has nothing to do", || {
            let now = had();
            if now != last.0 {
                last = (now, Instant::now());
            }
            (last.1.elapsed() >= Duration::from_millis(100)).then_some(())
        });
    }

    /// Lets it hang (SIGSTOP).
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it (SIGKILL), and waits for that.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    /// Whether it ends by itself within that time.
    pub fn ends_within(&self, time: Duration) -> bool {
        readable(&self.pidfd, time)
    }

    /// Kills it (SIGKILL), as nothing but a fault of its own would end it.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn crash(&self) {
        self.end(Signal::KILL);
    }

    /// Ends it by that signal.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub(super) fn end(&self, signal: Signal) {
        self.signal(signal);
        assert!(self.ends_within(DEADLINE), "process {} does not end", self.id());
    }

    fn signal(&self, signal: Signal) {
        match pidfd_send_signal(&self.pidfd, signal) {
            // It has ended.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(why) => panic!("process {} cannot be signalled: {}", self.id(), io::Error::from(why)),
        }
    }
}
