//! The configuration file as it is written, key by key. What the values mean is checked in [`super::check`].

use serde::Deserialize;
use toml::Spanned;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) hypervisor: Vec<Spanned<Hypervisor>>,
    #[serde(default)]
    pub(super) channel: Vec<Spanned<Channel>>,
    #[serde(default)]
    pub(super) group: Vec<Spanned<Group>>,
    #[serde(default)]
    pub(super) discover: Discover,
    #[serde(default)]
    pub(super) wire: Wire,
    #[serde(default)]
    pub(super) records: Records,
    #[serde(default)]
    pub(super) control: Control,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hypervisor {
    pub(super) uri: Spanned<String>,
    pub(super) workers: Option<Spanned<i64>>,
    pub(super) deadline_ms: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Channel {
    pub(super) kind: Spanned<String>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) guest: Option<Spanned<String>>,
    pub(super) params: Option<Spanned<String>>,
    pub(super) port: Option<Spanned<String>>,
    pub(super) mode: Option<Spanned<String>>,
    pub(super) listen: Option<Spanned<toml::Value>>,
    pub(super) key_file: Option<Spanned<String>>,
    pub(super) group: Option<Spanned<String>>,
    pub(super) hash: Option<Spanned<String>>,
    pub(super) auth: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) name: Spanned<String>,
    pub(super) members: Vec<Spanned<String>>,
    pub(super) actions: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) allow_self: bool,
    pub(super) budget_per_minute: Option<Spanned<i64>>,
    pub(super) classic: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Discover {
    pub(super) virtio_name: Option<Spanned<String>>,
    pub(super) directory: Option<Spanned<String>>,
    pub(super) owners: Option<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wire {
    #[serde(default)]
    pub(super) classic: bool,
    #[serde(default)]
    pub(super) classic_virtio: bool,
    pub(super) classic_timeout_s: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) keyless: bool,
    pub(super) master_key: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Records {
    pub(super) path: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) required: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Control {
    pub(super) socket: Option<Spanned<String>>,
    pub(super) journal: Option<Spanned<String>>,
    pub(super) state: Option<Spanned<String>>,
}
