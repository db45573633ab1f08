//! `fencewired`: the command line. What each verb does is in `verbs`.
//!
//! ```text
//! fencewired --config FILE          serve
//! fencewired check --config FILE    say what is wrong with a configuration
//! fencewired status                 what the daemon does
//! fencewired attach GUEST           give a guest a channel
//! fencewired detach GUEST           take it away
//! fencewired keygen                 make the host's master key
//! fencewired enroll GUEST           give a guest a key of its own
//! fencewired revoke GUEST           make that key worthless
//! ```

mod verbs;

use fencewired::control::attach::{Verb, Wanted};
use fencewired::guests::Member;
use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

const DEFAULT_CONFIG: &str = "/etc/fencewire/fencewired.toml";

const HELP: &str = "\
fencewired: fences virtual machines for their siblings, through the channel each has to this host

  fencewired [--config FILE]         serve (FILE: /etc/fencewire/fencewired.toml)
  fencewired check [--config FILE]   say by line what is wrong with FILE; exit 1 if it cannot be served
  fencewired status [--json] [--config FILE]
                                     what the daemon does, by its control socket; exit 0 if all is served, 1 if
                                     something is not, 2 if there is no daemon to say so
  fencewired attach GUEST [--live] [--persistent] [--dry-run] [--config FILE]
                                     give a guest Fencewire's virtio channel: while it runs (--live), in its definition
                                     (--persistent), or as far as it runs and is defined; --dry-run shows the change
  fencewired detach GUEST [--live] [--persistent] [--dry-run] [--config FILE]
                                     take that channel away
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
    Status { file: PathBuf, json: bool },
    Change { file: PathBuf, guest: Member, verb: Verb, wanted: Wanted, dry_run: bool },
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
        Command::Check(file) => verbs::check::check(&file),
        Command::Status { file, json } => return verbs::status::status(&file, json),
        Command::Change { file, guest, verb, wanted, dry_run } => {
            verbs::attach::change(&file, &guest, verb, wanted, dry_run)
        }
        Command::Keygen(file) => verbs::keys::keygen(&file),
        Command::Enroll { file, guest, out } => verbs::keys::enroll(&file, &guest, out.as_deref()),
        Command::Revoke { file, guest } => verbs::keys::revoke(&file, &guest),
        Command::Serve(file) => verbs::serve::serve(&file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprint!("{why}");
            ExitCode::FAILURE
        }
    }
}

const VERBS: [&str; 7] = ["check", "status", "attach", "detach", "keygen", "enroll", "revoke"];

fn command(args: impl IntoIterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut parser = lexopt::Parser::from_iter(args);
    let mut file = PathBuf::from(DEFAULT_CONFIG);
    let (mut verb, mut guest, mut out): (Option<String>, _, _) = (None, None, None);
    let (mut wanted, mut dry_run, mut json) = (Wanted::default(), false, false);
    while let Some(arg) = parser.next()? {
        let verb_is = |names: &[&str]| verb.as_deref().is_some_and(|verb| names.contains(&verb));
        match arg {
            Short('c') | Long("config") => file = parser.value()?.into(),
            Short('h') | Long("help") => return Ok(Command::Say(HELP.to_owned())),
            Short('V') | Long("version") => {
                return Ok(Command::Say(format!("fencewired {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Long("out") if verb_is(&["enroll"]) => out = Some(parser.value()?.into()),
            Long("live") if verb_is(&["attach", "detach"]) => wanted.live = true,
            Long("persistent") if verb_is(&["attach", "detach"]) => wanted.persistent = true,
            Long("json") if verb_is(&["status"]) => json = true,
            Long("dry-run") if verb_is(&["attach", "detach"]) => dry_run = true,
            Value(word) if verb.is_none() && VERBS.iter().any(|known| word == *known) => verb = Some(word.string()?),
            Value(word) if verb_is(&["attach", "detach", "enroll", "revoke"]) && guest.is_none() => {
                guest = Some(Member::parse(&word.string()?));
            }
            other => return Err(other.unexpected()),
        }
    }
    let Some(verb) = verb else { return Ok(Command::Serve(file)) };
    let whom = guest.ok_or_else(|| format!("{verb}: which guest?"));
    Ok(match verb.as_str() {
        "check" => Command::Check(file),
        "status" => Command::Status { file, json },
        "keygen" => Command::Keygen(file),
        "attach" => Command::Change { file, guest: whom?, verb: Verb::Attach, wanted, dry_run },
        "detach" => Command::Change { file, guest: whom?, verb: Verb::Detach, wanted, dry_run },
        "enroll" => Command::Enroll { file, guest: whom?, out },
        _ => Command::Revoke { file, guest: whom? },
    })
}
