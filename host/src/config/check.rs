//! From the file as written to a [`Config`], with a line for each thing that is wrong.
//!
//! Everything is looked at, so that one run shows all errors. Not here: whether the guests exist, which only the
//! hypervisor knows.

use super::schema::{self, File};
use super::{Config, Finding, HypervisorConfig, RecordsConfig};
use crate::discover::{Rules, is_local};
use crate::enrolled::Enrolled;
use crate::guests::Member;
use crate::policy::{Actions, Group};
use fencewire_core::{Millis, classic};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use toml::Spanned;

pub(super) const RECORDS_PATH: &str = "/var/log/fencewire/records.jsonl";
pub(super) const JOURNAL_PATH: &str = "/run/fencewire/journal";
pub(super) const STATE_PATH: &str = "/var/lib/fencewire";
pub(super) const SOCKET_PATH: &str = "/run/fencewire/control.sock";

/// How long our agent waits for a power action, unless it is told otherwise.
const AGENT_TIME_S: i64 = 30;

/// Bytes of a unix socket's path at most: `sun_path` has 108, the last of them a NUL.
pub(crate) const SOCKET_PATH_MAX: usize = 107;

/// Where the lines of a text begin.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Lines {
        Lines(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    /// The line of the byte at `offset`, counted from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}

pub(super) struct Check<'a> {
    lines: &'a Lines,
    findings: Vec<Finding>,
}

pub(super) fn check(file: &File, lines: &Lines) -> (Option<Config>, Vec<Finding>) {
    let mut check = Check { lines, findings: Vec::new() };
    let hypervisors = check.hypervisors(&file.hypervisor);
    let enrolled = check.enrolled(&file.wire);
    // A master key that cannot be read is an error of its own.
    let is_native = file.wire.keyless || file.wire.master_key.is_some();
    let groups = check.groups(&file.group, file.wire.classic, is_native);
    let channels = check.channels(&file.channel, &groups);
    check.wire(&file.wire);
    check.not_built_yet(file);
    let time_to_act = check.number(
        file.wire.classic_timeout_s.as_ref(),
        "wire.classic_timeout_s",
        1..=600,
        (classic::TIME_TO_ACT_MS / 1000).cast_signed(),
    );
    let discover = check.discover(&file.discover);
    check.times(file, &hypervisors, time_to_act);
    if file.channel.is_empty() {
        check.no_channel(&discover, &hypervisors);
    }
    let config = Config {
        hypervisors,
        channels,
        discover,
        groups,
        classic_virtio: file.wire.classic_virtio,
        keyless: file.wire.keyless,
        enrolled,
        time_to_act: Millis(time_to_act.cast_unsigned() * 1000),
        records: RecordsConfig {
            path: path_or(file.records.path.as_ref(), RECORDS_PATH),
            required: file.records.required,
        },
        journal: path_or(file.control.journal.as_ref(), JOURNAL_PATH),
        state: path_or(file.control.state.as_ref(), STATE_PATH),
        control: path_or(file.control.socket.as_ref(), SOCKET_PATH),
    };
    let usable = !check.findings.iter().any(|finding| finding.is_error);
    (usable.then_some(config), check.findings)
}

/// What is given, or the default.
fn path_or(given: Option<&Spanned<String>>, default: &str) -> PathBuf {
    given.map_or_else(|| PathBuf::from(default), |path| PathBuf::from(path.get_ref()))
}

impl Check<'_> {
    fn say(&mut self, is_error: bool, offset: usize, text: String) {
        let line = if offset == usize::MAX { 0 } else { self.lines.line(offset) };
        self.findings.push(Finding { is_error, line, text });
    }

    /// The line of the byte at `offset`.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.line(offset)
    }

    /// An error about the file as a whole.
    fn error(&mut self, text: &str) {
        self.say(true, usize::MAX, text.to_owned());
    }

    pub(super) fn error_at<T>(&mut self, at: &Spanned<T>, text: impl Into<String>) {
        self.say(true, at.span().start, text.into());
    }

    pub(super) fn warn_at<T>(&mut self, at: &Spanned<T>, text: impl Into<String>) {
        self.say(false, at.span().start, text.into());
    }

    fn number(
        &mut self,
        given: Option<&Spanned<i64>>,
        key: &str,
        range: std::ops::RangeInclusive<i64>,
        default: i64,
    ) -> i64 {
        let Some(given) = given else { return default };
        let value = *given.get_ref();
        if !range.contains(&value) {
            self.error_at(given, format!("{key} = {value}: must be {} to {}", range.start(), range.end()));
            return default;
        }
        value
    }

    fn hypervisors(&mut self, list: &[Spanned<schema::Hypervisor>]) -> Vec<HypervisorConfig> {
        if list.is_empty() {
            self.error("no [[hypervisor]]: add one with its libvirt uri, such as uri = \"qemu:///system\"");
        }
        let mut hypervisors: Vec<HypervisorConfig> = Vec::with_capacity(list.len());
        for hypervisor in list {
            let given = hypervisor.get_ref();
            let uri = given.uri.get_ref();
            if !uri.contains(':') {
                let text = format!("hypervisor.uri = {uri:?}: not a libvirt URI such as qemu:///system");
                self.error_at(&given.uri, text);
            }
            if hypervisors.iter().any(|other| other.uri == *uri) {
                // Every guest of it would be seen on two, and none be fenced.
                self.error_at(
                    &given.uri,
                    format!("hypervisor.uri = {uri:?}: there is a [[hypervisor]] of this uri already"),
                );
            }
            let workers = self.number(given.workers.as_ref(), "hypervisor.workers", 1..=16, 4);
            let deadline = self.number(given.deadline_ms.as_ref(), "hypervisor.deadline_ms", 100..=600_000, 20_000);
            hypervisors.push(HypervisorConfig {
                uri: uri.clone(),
                workers: usize::try_from(workers).unwrap_or(4),
                deadline: Millis(deadline.cast_unsigned()),
            });
        }
        hypervisors
    }

    fn groups(&mut self, list: &[Spanned<schema::Group>], classic: bool, is_native: bool) -> Vec<Group> {
        if list.is_empty() {
            self.error("no [[group]]: nobody may fence anybody, so this configuration serves nobody");
        }
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut groups = Vec::new();
        for group in list {
            let group = group.get_ref();
            let name = group.name.get_ref();
            let line = self.line(group.name.span().start);
            if let Some(first) = seen.insert(name, line) {
                self.error_at(
                    &group.name,
                    format!("group.name = {name:?}: line {first} has a group of this name already"),
                );
            }
            if group.members.len() < 2 && !group.allow_self {
                self.warn_at(
                    &group.name,
                    format!("group {name:?} has fewer than two members: nobody in it can fence another"),
                );
            }
            if group.actions.as_ref().is_some_and(Vec::is_empty) {
                self.warn_at(
                    &group.name,
                    format!(
                        "group {name:?} has actions = []: its members may do nothing to one another, not even ask for a \
                         status. Leave actions out for all four"
                    ),
                );
            }
            let mut members: Vec<Member> = Vec::new();
            for member in &group.members {
                let Some(parsed) = self.member(member, "group.members") else {
                    continue;
                };
                if members.contains(&parsed) {
                    self.error_at(member, format!("group {name:?} names {:?} twice", member.get_ref()));
                }
                members.push(parsed);
            }
            let budget = self.number(group.budget_per_minute.as_ref(), "group.budget_per_minute", 1..=100_000, 30);
            groups.push(Group {
                name: name.clone(),
                members,
                actions: self.actions(group.actions.as_deref()),
                allow_self: group.allow_self,
                budget_per_minute: usize::try_from(budget).unwrap_or(30),
                classic: group.classic.unwrap_or(classic),
            });
        }
        if !list.is_empty() && !is_native && groups.iter().all(|group| !group.classic) {
            self.error(
                "no group may use the classic wire, and our own is not served either: this serves nobody. \
                 Set keyless = true, master_key or classic = true under [wire], or classic = true for a group",
            );
        }
        groups
    }

    fn actions(&mut self, given: Option<&[Spanned<String>]>) -> Actions {
        let Some(given) = given else { return Actions::ALL };
        let mut actions = Actions::NONE;
        for action in given {
            let name = action.get_ref();
            if !actions.add(name) {
                self.error_at(
                    action,
                    format!("group.actions: {name:?} is none of \"off\", \"on\", \"reboot\", \"status\""),
                );
            }
        }
        actions
    }

    pub(super) fn member(&mut self, text: &Spanned<String>, key: &str) -> Option<Member> {
        let name = text.get_ref();
        if name.is_empty() || name.chars().any(char::is_control) {
            self.error_at(text, format!("{key}: {name:?} is no guest's name: give a libvirt domain's name or UUID"));
            return None;
        }
        if name.contains("abba") || name.len() > fencewire_core::words::NAME_MAX {
            self.warn_at(
                text,
                format!(
                    "{key}: the classic wire cannot carry {name:?} (over 63 bytes, or \"abba\" in it): \
                     in the cluster's configuration, name this guest by its UUID"
                ),
            );
        }
        Some(Member::parse(name))
    }

    fn enrolled(&mut self, wire: &schema::Wire) -> Option<Enrolled> {
        let path = wire.master_key.as_ref()?;
        match Enrolled::load(Path::new(path.get_ref())) {
            Ok(enrolled) => Some(enrolled),
            Err(why) => {
                // Without it, guests that have a key would be served without.
                self.error_at(path, format!("wire.master_key = {:?} {why}", path.get_ref()));
                None
            }
        }
    }

    fn wire(&mut self, wire: &schema::Wire) {
        if wire.classic_virtio && !wire.classic {
            self.error("wire.classic_virtio = true without wire.classic = true: set both, or neither");
        }
    }

    /// There is no channel in the file: nobody is served where none are found either.
    fn no_channel(&mut self, discover: &Rules, hypervisors: &[HypervisorConfig]) {
        let why = if !discover.is_on() {
            "none are looked for (discover.virtio_name = \"\")"
        } else if !hypervisors.is_empty() && !hypervisors.iter().any(|hypervisor| is_local(&hypervisor.uri)) {
            "no [[hypervisor]] of this host, whose guests' channels are found"
        } else {
            return;
        };
        self.error(&format!(
            "no [[channel]], and {why}: this configuration serves nobody. Add one for each guest that is to fence others"
        ));
    }

    /// Who waits for whom: each has to give up before the one that waits for it.
    fn times(&mut self, file: &File, hypervisors: &[HypervisorConfig], time_to_act: i64) {
        for (hypervisor, given) in hypervisors.iter().zip(&file.hypervisor) {
            let deadline = hypervisor.deadline.0;
            if deadline < time_to_act.cast_unsigned() * 1_000 {
                continue;
            }
            let text = format!(
                "hypervisor.deadline_ms = {deadline} is not below wire.classic_timeout_s = {time_to_act}: it ends after \
                 that time, whatever it says. Lower the first, or raise the second"
            );
            let given = given.get_ref().deadline_ms.as_ref().or(file.wire.classic_timeout_s.as_ref());
            match given {
                Some(given) => self.warn_at(given, text),
                None => self.say(false, usize::MAX, text),
            }
        }
        if let Some(given) = file.wire.classic_timeout_s.as_ref().filter(|_| time_to_act >= AGENT_TIME_S) {
            let text = format!(
                "wire.classic_timeout_s = {time_to_act} is not below the {AGENT_TIME_S} s that an agent waits for a power \
                 action: it may happen when its agent has given up. Lower it, or raise every agent's timeout"
            );
            self.warn_at(given, text);
        }
    }

    /// Known keys of parts that are not built. What would be less safe than it looks is an error.
    fn not_built_yet(&mut self, file: &File) {
        let control = &file.control;
        for (path, key) in [
            (&file.records.path, "records.path"),
            (&control.journal, "control.journal"),
            (&control.state, "control.state"),
            (&control.socket, "control.socket"),
        ] {
            if let Some(path) = path
                && !Path::new(path.get_ref()).is_absolute()
            {
                self.error_at(path, format!("{key} = {:?}: must begin with \"/\"", path.get_ref()));
            }
        }
        if let Some(path) = &file.records.path
            && Path::new(path.get_ref()).is_dir()
        {
            self.error_at(path, format!("records.path = {:?} is a folder: name a file", path.get_ref()));
        }
        if let Some(path) = control.socket.as_ref().filter(|path| path.get_ref().len() > SOCKET_PATH_MAX) {
            let shown = path.get_ref();
            let text = format!("control.socket = {shown:?}: a socket's path has at most {SOCKET_PATH_MAX} bytes");
            self.error_at(path, text);
        }
        if let Some(path) = control.state.as_ref().or(control.journal.as_ref())
            && path_or(control.state.as_ref(), STATE_PATH) == path_or(control.journal.as_ref(), JOURNAL_PATH)
        {
            let text = "control.state and control.journal are one folder: name two, the journal's on a tmpfs and the state's not";
            self.error_at(path, text.to_owned());
        }
        for (path, key) in [(&control.journal, "control.journal"), (&control.state, "control.state")] {
            if let Some(path) = path
                && Path::new(path.get_ref()).exists()
                && !Path::new(path.get_ref()).is_dir()
            {
                self.error_at(path, format!("{key} = {:?} is no folder: name one", path.get_ref()));
            }
        }
    }
}
