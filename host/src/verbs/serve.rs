//! `fencewired` alone: serves until it is told to end.

use super::load;
use fencewired::bridge::{Bridge, Handle};
use fencewired::config::{self, HypervisorConfig};
use fencewired::control::socket::Control;
use fencewired::log;
use fencewired::notify::Notifier;
use fencewired::power::hypervisor::Source;
use fencewired::power::libvirt::LibvirtSource;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use tracing_subscriber::filter::LevelFilter;

/// The environment variable that says what is logged.
const LOG: &str = "FENCEWIRED_LOG";

pub(crate) fn serve(file: &Path) -> Result<(), String> {
    let (config, findings) = load(file)?;
    let wanted = std::env::var(LOG).unwrap_or_else(|_| "info".to_owned());
    let level: LevelFilter = wanted
        .parse()
        .map_err(|_| format!("fencewired: {LOG}={wanted} is no level: give error, warn, info or debug\n"))?;
    // To the very end: it is the last thing to go.
    let _log = log::start(level).map_err(|why| format!("fencewired: no thread could be started: {why}\n"))?;
    for finding in findings.iter() {
        tracing::warn!(file = %file.display(), line = finding.line, "{}", finding.text);
    }
    raise_file_limit();
    let source = |config: &HypervisorConfig| Arc::new(LibvirtSource::new(&config.uri)) as Arc<dyn Source>;
    let sources = config.hypervisors.iter().map(source).collect();
    let control = config.control.clone();
    let bridge = Bridge::new(config, sources).map_err(|why| format!("fencewired: {why}\n"))?;
    let bridge = bridge.notifying(Notifier::from_environment());
    let handle = bridge.handle();
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|why| format!("fencewired: signals cannot be caught: {why}\n"))?;
    let watcher = thread::Builder::new().name("signals".to_owned());
    let file = file.to_owned();
    watcher
        .spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP => reload(&file, &handle),
                    _ => handle.stop(),
                }
            }
        })
        .map_err(|why| format!("fencewired: no thread could be started: {why}\n"))?;
    // To its end: what is finished at the stop is shown, too.
    let _control = serve_control(&control, bridge.handle());
    bridge.run().map_err(|why| format!("fencewired: the event queue failed: {why}\n"))
}

/// Makes the control socket. Fencing does not depend on it.
fn serve_control(path: &Path, handle: Handle) -> Option<Control> {
    let why = match Control::start(path, handle) {
        Ok(control) => return Some(control),
        Err(why) => why,
    };
    let hint = match why.kind() {
        io::ErrorKind::NotFound => "make its folder, for this user to write",
        io::ErrorKind::AddrInUse => "another fencewired serves there: end it, or name another path",
        io::ErrorKind::PermissionDenied => "let this user write its folder, or name another path",
        _ => "see control.socket",
    };
    tracing::warn!(path = %path.display(), %why, hint, "no control socket: fences are served, fencewired status is not");
    None
}

/// Takes over what the file says by now. One that cannot be served changes nothing.
fn reload(file: &Path, handle: &Handle) {
    let loaded = config::load(file);
    for finding in loaded.findings.iter() {
        if finding.is_error {
            tracing::error!(file = %file.display(), line = finding.line, "{}", finding.text);
        } else {
            tracing::warn!(file = %file.display(), line = finding.line, "{}", finding.text);
        }
    }
    match loaded.config {
        Some(config) => handle.reload(config),
        None => tracing::error!(file = %file.display(), "not reloaded: the configuration stays as it was"),
    }
}

/// A file for each channel: as many as the system allows at all, and not the few that programs get that do not ask.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(why) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%why, "the limit of open files could not be raised: a channel may find none left");
    }
}
