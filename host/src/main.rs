//! `fencewired`: the command line.
//!
//! ```text
//! fencewired --config FILE          serve
//! fencewired check --config FILE    say what is wrong with a configuration
//! fencewired keygen                 make the host's master key
//! fencewired enroll GUEST           give a guest a key of its own
//! fencewired revoke GUEST           make that key worthless
//! ```

use fencewire_core::Uuid;
use fencewired::bridge::{Bridge, Handle};
use fencewired::channels::ChannelSpec;
use fencewired::config::{self, Config, Findings, HypervisorConfig};
use fencewired::enrolled::{Enrolled, create_new, fill};
use fencewired::guests::Member;
use fencewired::notify::Notifier;
use fencewired::power::hypervisor::{Guest, HypervisorError, Source};
use fencewired::power::libvirt::LibvirtSource;
use lexopt::prelude::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
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
  fencewired keygen [--config FILE]  make the master key that wire.master_key names
  fencewired enroll GUEST [--out KEY] [--config FILE]
                                     give a guest a key of its own, in a new file KEY or on standard output; the one
                                     that it had is worthless from the next reload on
  fencewired revoke GUEST [--config FILE]
                                     make a guest's key worthless from the next reload on
  fencewired --version | --help

FENCEWIRED_LOG sets what is logged to standard error: error, warn, info (default), debug.
";

enum Command {
    Serve(PathBuf),
    Check(PathBuf),
    Keygen(PathBuf),
    Enroll { file: PathBuf, guest: Member, out: Option<PathBuf> },
    Revoke { file: PathBuf, guest: Member },
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
        Command::Keygen(file) => keygen(&file),
        Command::Enroll { file, guest, out } => enroll(&file, &guest, out.as_deref()),
        Command::Revoke { file, guest } => revoke(&file, &guest),
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
    let mut file = PathBuf::from(DEFAULT_CONFIG);
    let (mut verb, mut guest, mut out) = (None, None, None);
    while let Some(arg) = parser.next()? {
        match arg {
            Short('c') | Long("config") => file = parser.value()?.into(),
            Short('h') | Long("help") => return Ok(Command::Say(HELP.to_owned())),
            Short('V') | Long("version") => {
                return Ok(Command::Say(format!("fencewired {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Long("out") if verb.as_deref() == Some("enroll") => out = Some(parser.value()?.into()),
            Value(word) if verb.is_none() && VERBS.iter().any(|known| word == *known) => verb = Some(word.string()?),
            Value(word) if matches!(verb.as_deref(), Some("enroll" | "revoke")) && guest.is_none() => {
                guest = Some(Member::parse(&word.string()?));
            }
            other => return Err(other.unexpected()),
        }
    }
    match (verb.as_deref(), guest) {
        (Some("check"), _) => Ok(Command::Check(file)),
        (Some("keygen"), _) => Ok(Command::Keygen(file)),
        (Some("enroll"), Some(guest)) => Ok(Command::Enroll { file, guest, out }),
        (Some("revoke"), Some(guest)) => Ok(Command::Revoke { file, guest }),
        (Some(verb), None) => Err(format!("{verb}: which guest?").into()),
        _ => Ok(Command::Serve(file)),
    }
}

const VERBS: [&str; 4] = ["check", "keygen", "enroll", "revoke"];

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

/// Where the configuration has the master key. It need not be a configuration that can be served: without the key it is none.
fn master_key(file: &Path) -> Result<PathBuf, String> {
    config::master_key(file).map_err(|why| format!("{}: {why}\n", file.display()))
}

fn keygen(file: &Path) -> Result<(), String> {
    let path = master_key(file)?;
    Enrolled::create(&path).map_err(|why| format!("fencewired: {why}\n"))?;
    let shown = path.display();
    println!(
        "{shown}: made. Let the user that fencewired runs as read it, and nobody else; keep a copy where you keep secrets"
    );
    Ok(())
}

fn enroll(file: &Path, guest: &Member, out: Option<&Path>) -> Result<(), String> {
    let (guest, mut enrolled) = enrolled(file, guest)?;
    let said = |why: String| format!("fencewired: {why}\n");
    // The file first: where there is none to be had, the guest's key stays what it is.
    let file = out.map(create_new).transpose().map_err(|why| {
        let out = out.unwrap_or(Path::new("")).display();
        said(match why.kind() {
            io::ErrorKind::AlreadyExists => format!("{out} is there already: name a new file with --out"),
            _ => format!("{out} cannot be written ({why}): nothing was changed; name another file with --out"),
        })
    })?;
    let key = enrolled.enroll(guest).map_err(|why| {
        // Nothing is in it yet.
        let _ = out.map(fs::remove_file);
        said(why)
    })?;
    match out.zip(file) {
        Some((out, file)) => {
            let written = fill(file, out, &*key);
            written.map_err(|why| said(format!("{} cannot be written ({why}): enroll again", out.display())))?;
            eprintln!(
                "{guest}: its key is in {}. Copy it into the guest, reload fencewired, remove the file",
                out.display()
            );
        }
        None => {
            io::stdout().write_all(&*key).map_err(|why| said(format!("standard output: {why}: enroll again")))?;
            eprintln!("{guest}: that is its key. Reload fencewired");
        }
    }
    Ok(())
}

fn revoke(file: &Path, guest: &Member) -> Result<(), String> {
    let (guest, mut enrolled) = enrolled(file, guest)?;
    enrolled.revoke(guest).map_err(|why| format!("fencewired: {why}\n"))?;
    println!("{guest}: its key is worthless once fencewired is reloaded; it is not served until it is enrolled again");
    Ok(())
}

/// Who is meant, and who is enrolled. A name has to be one that a hypervisor knows.
fn enrolled(file: &Path, guest: &Member) -> Result<(Uuid, Enrolled), String> {
    let path = master_key(file)?;
    let enrolled = Enrolled::load(&path).map_err(|why| format!("fencewired: {} {why}\n", path.display()))?;
    let name = match guest {
        Member::Uuid(uuid) => return Ok((*uuid, enrolled)),
        Member::Name(name) => name,
    };
    let (config, _) = load(file)?;
    let mut bearers: Vec<Uuid> = Vec::new();
    for hypervisor in &config.hypervisors {
        let guests = guests_of(hypervisor).map_err(|why| {
            format!("fencewired: {} does not say who {name:?} is ({why}): give its UUID\n", hypervisor.uri)
        })?;
        bearers.extend(guests.iter().filter(|guest| guest.name == *name).map(|guest| guest.uuid));
    }
    bearers.sort_unstable();
    bearers.dedup();
    match bearers[..] {
        [uuid] => Ok((uuid, enrolled)),
        [] => Err(format!("fencewired: no hypervisor knows a guest {name:?}: see virsh list --all --uuid --name\n")),
        _ => Err(format!("fencewired: more than one guest bears the name {name:?}: give its UUID\n")),
    }
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
