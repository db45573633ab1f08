//! What the service manager is told: that the bridge serves, reloads or stops, and that its event loop turns. Not here:
//! when. The event loop knows, and it alone says [`Notifier::alive`]: a loop that hangs is a daemon to be restarted.
//!
//! systemd's protocol, sd_notify(3): one datagram for each message, to the socket that the environment names; without
//! one, nothing is done at all. Nothing here waits. A manager that does not read must not stop a fence, so what its
//! socket does not take is kept, in order, and sent again at the next [`Notifier::alive`].

use fencewire_core::Millis;
use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;

/// Tells the service manager, where there is one that wants to be told.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<Manager>,
    watchdog: Option<Watchdog>,
}

/// Who is told.
#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// What its socket has not taken yet.
    waiting: VecDeque<String>,
}

/// A manager that restarts the daemon when it hears nothing for twice the period.
#[derive(Debug)]
struct Watchdog {
    period: Millis,
    told: Option<Millis>,
}

impl Notifier {
    /// For the manager that started this process: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say how.
    pub fn from_environment() -> Notifier {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Notifier::default();
        };
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let notifier = Notifier::to(&name, number("WATCHDOG_USEC").filter(|_| is_for_us));
        notifier.unwrap_or_else(|why| {
            tracing::warn!(?name, %why, "NOTIFY_SOCKET cannot be used: the service manager is told nothing");
            Notifier::default()
        })
    }

    fn to(name: &OsStr, watchdog_usec: Option<u64>) -> io::Result<Notifier> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "it is neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // Half the time that the manager waits, as sd_watchdog_enabled(3) advises.
        let period = |usec| Millis(usec / 2_000);
        let watchdog = watchdog_usec.filter(|usec| *usec > 0).map(|usec| Watchdog { period: period(usec), told: None });
        Ok(Notifier { manager: Some(Manager { socket, address, waiting: VecDeque::new() }), watchdog })
    }

    /// The bridge serves: for the first time, or again after [`Notifier::reloading`]. `status` is a short sentence for
    /// `systemctl status`.
    pub fn ready(&mut self, status: &str) {
        self.say(|| format!("READY=1\n{}", status_line(status)));
    }

    /// What `systemctl status` shows from now on: a short sentence.
    pub fn status(&mut self, status: &str) {
        self.say(|| status_line(status));
    }

    /// The configuration is being read again. [`Notifier::ready`] must follow, whether that succeeds or not.
    pub fn reloading(&mut self) {
        self.say(|| {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let usec = now.tv_sec.cast_unsigned() * 1_000_000 + now.tv_nsec.cast_unsigned() / 1_000;
            // From the same clock as the manager's, so that it knows this reload from one that it asked for later.
            format!("RELOADING=1\nMONOTONIC_USEC={usec}\n{}", status_line("reading the configuration again"))
        });
    }

    /// The bridge ends what has begun, then itself.
    pub fn stopping(&mut self, status: &str) {
        self.say(|| format!("STOPPING=1\n{}", status_line(status)));
    }

    /// The event loop turns. To be called by it, and again `next` from now at the latest; most calls send nothing.
    pub fn alive(&mut self, now: Millis, next: Millis) {
        let Some(manager) = &mut self.manager else { return };
        manager.send_waiting();
        let Some(watchdog) = &mut self.watchdog else { return };
        let is_due = |told: Millis| now.since(told).plus(next) >= watchdog.period;
        if manager.waiting.is_empty() && watchdog.told.is_none_or(is_due) {
            manager.waiting.push_back("WATCHDOG=1\n".to_owned());
            manager.send_waiting();
            watchdog.told = Some(now);
        }
    }

    fn say(&mut self, message: impl FnOnce() -> String) {
        if let Some(manager) = &mut self.manager {
            manager.waiting.push_back(message());
            manager.send_waiting();
        }
    }
}

impl Manager {
    fn send_waiting(&mut self) {
        while let Some(message) = self.waiting.front() {
            match self.socket.send_to_addr(message.as_bytes(), &self.address) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return,
                // Its socket is gone: it has no use for what was said to it.
                Err(why) => tracing::debug!(%why, "the service manager could not be told"),
                Ok(_) => {}
            }
            self.waiting.pop_front();
        }
    }
}

/// One line, whatever the sentence has in it.
fn status_line(status: &str) -> String {
    format!("STATUS={}\n", status.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn listen(address: &SocketAddr) -> UnixDatagram {
        let manager = UnixDatagram::bind_addr(address).expect("a socket to listen on");
        manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
        manager
    }

    fn heard(manager: &UnixDatagram) -> String {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).expect("a message in time");
        String::from_utf8(message[..length].to_vec()).expect("text")
    }

    fn nothing_more(manager: &UnixDatagram) {
        manager.set_nonblocking(true).expect("a socket that does not wait");
        let more = manager.recv(&mut [0; 256]);
        assert_eq!(more.map_err(|why| why.kind()), Err(io::ErrorKind::WouldBlock));
        manager.set_nonblocking(false).expect("a socket that waits");
    }

    #[test]
    fn what_is_said_arrives_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().expect("a private folder");
        let path = folder.path().join("notify");
        let hidden = format!("@{}", path.display());
        let address = SocketAddr::from_abstract_name(&hidden.as_bytes()[1..]).expect("a name that fits");
        for (name, manager) in [
            (path.as_os_str(), UnixDatagram::bind(&path).expect("a socket to listen on")),
            (OsStr::new(&hidden), listen(&address)),
        ] {
            let mut notifier = Notifier::to(name, None).expect("a notifier");
            notifier.ready("serving, with\ntwo lines");
            notifier.reloading();
            notifier.stopping("ending");
            assert_eq!(heard(&manager), "READY=1\nSTATUS=serving, with two lines\n");
            let reloading = heard(&manager);
            let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.split_once('\n'));
            let usec: u64 = usec.expect("the time of the reload").0.parse().expect("microseconds");
            assert!((usec / 1_000).abs_diff(crate::clock::now().0) < 60_000, "{reloading}");
            assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=ending\n");
        }
    }

    #[test]
    fn a_living_loop_is_heard_of_in_half_the_time_at_the_latest() {
        let folder = tempfile::tempdir().expect("a private folder");
        let path = folder.path().join("notify");
        let manager = listen(&SocketAddr::from_pathname(&path).expect("a path that fits"));
        let mut notifier = Notifier::to(path.as_os_str(), Some(2_000_000)).expect("a notifier");
        let mut heard_at = Vec::new();
        for at in (10_000..=12_000).step_by(250) {
            notifier.alive(Millis(at), Millis(250));
            manager.set_nonblocking(true).expect("a socket that does not wait");
            if manager.recv(&mut [0; 256]).is_ok() {
                heard_at.push(at);
            }
        }
        assert_eq!(heard_at, [10_000, 10_750, 11_500]);
    }

    #[test]
    fn who_did_not_ask_for_signs_of_life_gets_none() {
        let folder = tempfile::tempdir().expect("a private folder");
        let path = folder.path().join("notify");
        let manager = listen(&SocketAddr::from_pathname(&path).expect("a path that fits"));
        for asked in [None, Some(0)] {
            Notifier::to(path.as_os_str(), asked).expect("a notifier").alive(Millis(1), Millis(250));
        }
        nothing_more(&manager);
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nobody_up_and_hears_all_of_it_later() {
        let folder = tempfile::tempdir().expect("a private folder");
        let path = folder.path().join("notify");
        let manager = listen(&SocketAddr::from_pathname(&path).expect("a path that fits"));
        let mut notifier = Notifier::to(path.as_os_str(), Some(2_000_000)).expect("a notifier");
        // More than the system keeps for a socket: net.unix.max_dgram_qlen is 10 where nobody has raised it.
        let said = 2_000;
        for nth in 0..said {
            notifier.ready(&nth.to_string());
        }
        assert!(!notifier.manager.as_ref().expect("a manager").waiting.is_empty(), "the socket took all of it");
        for nth in 0..said {
            notifier.alive(Millis(1_000), Millis(250));
            assert_eq!(heard(&manager), format!("READY=1\nSTATUS={nth}\n"));
        }
        notifier.alive(Millis(1_000), Millis(250));
        assert_eq!(heard(&manager), "WATCHDOG=1\n");
        nothing_more(&manager);
    }

    #[test]
    fn a_manager_that_is_gone_or_cannot_be_reached_is_no_error() {
        let folder = tempfile::tempdir().expect("a private folder");
        let mut notifier = Notifier::to(folder.path().join("nobody").as_os_str(), Some(1_000_000)).expect("a notifier");
        notifier.ready("serving");
        notifier.alive(Millis(1_000), Millis(250));
        assert!(notifier.manager.expect("a manager").waiting.is_empty());
        let unknown = Notifier::to(OsStr::new("vsock:2:1234"), None);
        assert_eq!(unknown.map(|_| ()).map_err(|why| why.kind()), Err(io::ErrorKind::Unsupported));
    }
}
