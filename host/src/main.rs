//! `fencewired`: the command line.
//!
//! ```text
//! fencewired --config FILE          serve
//! fencewired check --config FILE    say what is wrong with a configuration
//! ```

use fencewired::bridge::{Bridge, Handle};
use fencewired::channels::ChannelSpec;
use fencewired::config::{self, Config, Findings, HypervisorConfig};
use fencewired::guests::Member;
use fencewired::notify::Notifier;
use fencewired::power::hypervisor::{Guest, HypervisorError, Source};
use fencewired::power::libvirt::LibvirtSource;
use lexopt::prelude::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use tracing_subscriber::filter::LevelFilter;

/// The environment variable that says what is logged.
const LOG: &str = "FENCEWIRED_LOG";

const DEFAULT_CONFIG: &str = "/etc/fencewire/fencewired.toml";

const HELP: &str = "\
fencewired: fences virtual machines for their siblings, through the channel each has to this host

  fencewired [--config FILE]         serve (FILE: /etc/fencewire/fencewired.toml)
  fencewired check [--config FILE]   say by line what is wrong with FILE; exit 1 if it cannot be served
  fencewired --version | --help

FENCEWIRED_LOG sets what is logged to standard error: error, warn, info (default), debug.
";

enum Command {
    Serve(PathBuf),
    Check(PathBuf),
    Say(String),
}

fn main() -> ExitCode {
    let command = match command(std::env::args_os()) {
        Ok(command) => command,
        Err(why) => {
            eprintln!("fencewired: {why}; try fencewired --help");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Say(text) => {
            print!("{text}");
            Ok(())
        }
        Command::Check(file) => check(&file),
        Command::Serve(file) => serve(&file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprint!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn command(args: impl IntoIterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut parser = lexopt::Parser::from_iter(args);
    let (mut file, mut checks) = (PathBuf::from(DEFAULT_CONFIG), false);
    while let Some(arg) = parser.next()? {
        match arg {
            Short('c') | Long("config") => file = parser.value()?.into(),
            Short('h') | Long("help") => return Ok(Command::Say(HELP.to_owned())),
            Short('V') | Long("version") => {
                return Ok(Command::Say(format!("fencewired {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Value(verb) if verb == "check" && !checks => checks = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(if checks { Command::Check(file) } else { Command::Serve(file) })
}

/// A configuration and what there is to say of it; or all that as the error.
fn load(file: &Path) -> Result<(Config, Findings), String> {
    let loaded = config::load(file);
    match loaded.config {
        Some(config) => Ok((config, loaded.findings)),
        None => Err(loaded.findings.to_string()),
    }
}

/// Checks the file, and what it names against the hypervisor where that can be asked.
fn check(file: &Path) -> Result<(), String> {
    let (config, findings) = load(file)?;
    print!("{findings}");
    let shown = file.display();
    let guests: Result<Vec<Vec<Guest>>, HypervisorError> = config.hypervisors.iter().map(guests_of).collect();
    match guests {
        Ok(guests) => {
            let guests = guests.concat();
            let is_known = |member: &Member| match member {
                Member::Name(name) => guests.iter().any(|guest| guest.name == *name),
                Member::Uuid(uuid) => guests.iter().any(|guest| guest.uuid == *uuid),
            };
            let members = config.groups.iter().flat_map(|group| &group.members);
            let named = members.chain(config.channels.iter().filter_map(ChannelSpec::guest));
            let unknown: BTreeSet<String> = named.filter(|member| !is_known(member)).map(Member::to_string).collect();
            for name in unknown {
                println!("{shown}: warning: the hypervisor knows no guest {name:?}; it is served when it comes");
            }
        }
        Err(why) => println!("{shown}: warning: nothing is served until the hypervisor answers: {why}"),
    }
    let (channels, groups) = (config.channels.len(), config.groups.len());
    println!("{shown}: can be served ({channels} [[channel]], {groups} [[group]])");
    Ok(())
}

fn serve(file: &Path) -> Result<(), String> {
    let (config, findings) = load(file)?;
    let wanted = std::env::var(LOG).unwrap_or_else(|_| "info".to_owned());
    let level: LevelFilter = wanted
        .parse()
        .map_err(|_| format!("fencewired: {LOG}={wanted} is no level: give error, warn, info or debug\n"))?;
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false).init();
    for finding in findings.iter() {
        tracing::warn!(file = %file.display(), line = finding.line, "{}", finding.text);
    }
    raise_file_limit();
    let source = |config: &HypervisorConfig| Arc::new(LibvirtSource::new(&config.uri)) as Arc<dyn Source>;
    let sources = config.hypervisors.iter().map(source).collect();
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
    bridge.run().map_err(|why| format!("fencewired: the event queue failed: {why}\n"))
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

fn guests_of(config: &HypervisorConfig) -> Result<Vec<Guest>, HypervisorError> {
    LibvirtSource::new(&config.uri).connect()?.guests()
}

/// A file for each channel: as many as the system allows at all, and not the few that programs get that do not ask.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(why) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%why, "the limit of open files could not be raised: a channel may find none left");
    }
}
