//! The configuration: from a file's text to what the bridge may rely on.
//!
//! `schema` is the file as it is written; `check` turns it into a [`Config`] or says by line what is wrong. Nothing
//! else reads the schema: who holds a `Config` holds a checked one. `folders` tries what only a running program needs.

mod channels;
mod check;
mod discover;
mod folders;
mod schema;

pub(crate) use check::SOCKET_PATH_MAX;
pub use folders::try_folders;

use crate::channels::ChannelSpec;
use crate::discover::{Rules, VIRTIO_NAME};
use crate::enrolled::Enrolled;
use crate::policy::Group;
use fencewire_core::Millis;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The hypervisors that are asked and told, one at least, in the file's order.
    pub hypervisors: Vec<HypervisorConfig>,
    /// The channels, in the file's order.
    pub channels: Vec<ChannelSpec>,
    /// `[discover]`: which channels are found besides.
    pub discover: Rules,
    /// Who may fence whom.
    pub groups: Vec<Group>,
    /// `[wire] classic_virtio`: whether power may be changed over the classic wire on a virtio port.
    pub classic_virtio: bool,
    /// `[wire] keyless`: whether our own wire is answered to guests that have no key.
    pub keyless: bool,
    /// `[wire] master_key`: who has.
    pub enrolled: Option<Enrolled>,
    /// `[wire] classic_timeout_s`: from when on after its receipt nothing may be begun for a classic request.
    pub time_to_act: Millis,
    /// `[records]`.
    pub records: RecordsConfig,
    /// `[control] journal`: the folder on a tmpfs where begun power actions are written down.
    pub journal: PathBuf,
    /// `[control] state`: the folder that outlives the host's restart, where it is written down which guests are away.
    pub state: PathBuf,
    /// `[control] socket`: where whoever may is told what the bridge does.
    pub control: PathBuf,
}

/// `[[hypervisor]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HypervisorConfig {
    /// libvirt's URI.
    pub uri: String,
    /// Power actions carried out at the same time.
    pub workers: usize,
    /// How long one power action may take before it is answered "unknown, may still happen".
    pub deadline: Millis,
}

/// `[records]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordsConfig {
    /// Where one line per decision goes.
    pub path: PathBuf,
    /// Whether nothing may be fenced that cannot be recorded.
    pub required: bool,
}

/// One thing that [`load`] has to say of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the file cannot be used as it is.
    pub is_error: bool,
    /// The line, counted from 1; 0 where it is the file as a whole.
    pub line: usize,
    /// What is wrong, with the key in it, and what to do.
    pub text: String,
}

/// What [`load`] made of a file: a configuration unless there are errors, and all there is to say of it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration; none where a finding is an error.
    pub config: Option<Config>,
    /// By line.
    pub findings: Findings,
}

/// Findings and the file they are about. Displays as `FILE:LINE: error: …`, a line each.
#[derive(Debug)]
pub struct Findings {
    file: PathBuf,
    list: Vec<Finding>,
}

impl Findings {
    /// Each finding.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter()
    }

    /// One finding as it is shown.
    pub fn line(&self, finding: &Finding) -> String {
        let kind = if finding.is_error { "error" } else { "warning" };
        let file = self.file.display();
        match finding.line {
            0 => format!("{file}: {kind}: {}", finding.text),
            line => format!("{file}:{line}: {kind}: {}", finding.text),
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.iter().try_for_each(|finding| writeln!(f, "{}", self.line(finding)))
    }
}

/// Reads and checks a file.
pub fn load(file: &Path) -> Loaded {
    let refused = |line, text| Loaded { config: None, findings: only(file, Finding { is_error: true, line, text }) };
    match std::fs::read(file).map(String::from_utf8) {
        Ok(Ok(text)) => parse(file, &text),
        Ok(Err(why)) => {
            let good = String::from_utf8_lossy(&why.as_bytes()[..why.utf8_error().valid_up_to()]);
            let line = check::Lines::of(&good).line(good.len());
            refused(line, "not text in UTF-8: name a configuration file with --config, or correct this line".to_owned())
        }
        Err(why) => refused(0, format!("cannot be read ({why}): name a file that this user may read with --config")),
    }
}

/// Checks a text as if it had been read from `file`.
pub fn parse(file: &Path, text: &str) -> Loaded {
    match toml::from_str::<schema::File>(text) {
        Ok(parsed) => {
            let (config, mut list) = check::check(&parsed, &check::Lines::of(text));
            list.sort_by_key(|finding| finding.line);
            Loaded { config, findings: Findings { file: file.to_owned(), list } }
        }
        Err(why) => {
            let line = why.span().map_or(0, |span| check::Lines::of(text).line(span.start));
            let said = why.message().lines().collect::<Vec<_>>().join(" ");
            let wrong = line.checked_sub(1).and_then(|at| text.lines().nth(at)).unwrap_or_default();
            let wrong = wrong.trim().replace(char::is_control, "\u{fffd}");
            // The parser's own words often name no key.
            let text = if wrong.is_empty() { said } else { format!("{said}, in: {wrong}") };
            Loaded { config: None, findings: only(file, Finding { is_error: true, line, text }) }
        }
    }
}

/// Where the file has the master key, whatever else is wrong with it; or why that cannot be told.
pub fn master_key(file: &Path) -> Result<PathBuf, String> {
    let key = as_written(file)?.wire.master_key.ok_or("has no wire.master_key: name a file there")?;
    Ok(PathBuf::from(key.into_inner()))
}

/// Where the file has the control socket, whatever else is wrong with it; or why that cannot be told.
pub fn control_socket(file: &Path) -> Result<PathBuf, String> {
    let socket = as_written(file)?.control.socket;
    Ok(socket.map_or_else(|| PathBuf::from(check::SOCKET_PATH), |path| PathBuf::from(path.into_inner())))
}

/// How the virtio port is called that Fencewire's channel is in a guest: `discover.virtio_name`, or its default.
pub fn virtio_name(file: &Path) -> Result<String, String> {
    let name = as_written(file)?.discover.virtio_name.map_or_else(|| VIRTIO_NAME.to_owned(), Spanned::into_inner);
    if name.is_empty() || !discover::is_a_ports_name(&name) {
        return Err(format!("discover.virtio_name = {name:?}: no port has such a name; give one like {VIRTIO_NAME:?}"));
    }
    Ok(name)
}

/// What the file says, whether or not it can be served.
fn as_written(file: &Path) -> Result<schema::File, String> {
    let text =
        std::fs::read_to_string(file).map_err(|why| format!("cannot be read ({why}): name a file with --config"))?;
    toml::from_str(&text).map_err(|why| why.message().to_owned())
}

fn only(file: &Path, finding: Finding) -> Findings {
    Findings { file: file.to_owned(), list: vec![finding] }
}

#[cfg(test)]
mod tests;
