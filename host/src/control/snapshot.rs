//! What a bridge does at one moment: the document that `fencewired status --json` prints.
//!
//! Its fields are documented in docs/operating.md. Within one [`VERSION`] fields are only added, and words are only added
//! where the documentation says that there may be others. Not here: how it is found out (the bridge), and how it is shown
//! to people (`table`).

use serde::{Deserialize, Serialize};

/// The version of the document.
pub const VERSION: u32 = 1;

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`VERSION`].
    pub version: u32,
    /// The program's version.
    pub program: String,
    /// Its process.
    pub pid: u32,
    /// Whether it serves, or ends.
    pub state: Serving,
    /// How long it has run.
    pub for_ms: u64,
    /// Whether everything is as it should be: what `fencewired status` ends with 0 for.
    pub all_served: bool,
    /// In the configuration's order.
    pub hypervisors: Vec<HypervisorStatus>,
    /// Every guest that they have, by UUID.
    pub guests: Vec<GuestStatus>,
    /// Every channel.
    pub channels: Vec<ChannelStatus>,
    /// Targets for which something runs or waits, by UUID.
    pub lanes: Vec<LaneStatus>,
    /// The power actions that were decided last, the newest first.
    pub fences: Vec<Fence>,
    /// Whether decisions are written down.
    pub records: RecordsStatus,
}

/// Whether a bridge goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serving {
    /// It serves.
    Serving,
    /// It finishes what has begun, and ends.
    Stopping,
}

/// One hypervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HypervisorStatus {
    /// libvirt's URI.
    pub uri: String,
    /// Whether it says who its guests are.
    pub state: Reach,
    /// Since when that is so.
    pub for_ms: u64,
    /// What libvirt says, where it is unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When it last said who its guests are.
    pub asked_ms_ago: Option<u64>,
    /// How many it had then.
    pub guests: usize,
    /// The threads that act.
    pub power: Workers,
    /// The threads that look.
    pub queries: Workers,
}

/// Whether a hypervisor says who its guests are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// It does.
    Answers,
    /// It has been asked, and has said nothing for half a second.
    Silent,
    /// It cannot be asked, or says that it cannot tell.
    Unreachable,
}

/// The threads of one kind for one hypervisor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    /// How many there are.
    pub threads: usize,
    /// How many of them are in a call.
    pub busy: usize,
    /// How many of those have hung for so long that another took their place.
    pub set_aside: usize,
    /// Calls that wait for a thread.
    pub waiting: usize,
}

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestStatus {
    /// The name that it bore when the hypervisors were last asked.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// on, off or unknown, as the hypervisors said when they were last asked.
    pub power: String,
}

/// One channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// As log and records name it: its path, or `tcp ADDRESS:PORT`.
    pub name: String,
    /// unix, unix-listen, tty or tcp; others may come.
    pub transport: String,
    /// Who is at its other end; none for a TCP port.
    pub guest: Option<ChannelGuest>,
    /// Whom the holders of its key may target; TCP ports only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether there is a connection.
    pub state: Link,
    /// Why there is none, in the system's words, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Since when that is so.
    pub for_ms: u64,
    /// How many connections there are.
    pub connections: usize,
    /// When the last byte came.
    pub heard_ms_ago: Option<u64>,
    /// When the last request came.
    pub asked_ms_ago: Option<u64>,
    /// Over which wire it came.
    pub wire: Wire,
    /// Whether a session of Fencewire's own wire is established.
    pub session: bool,
    /// Whether it is as it should be.
    pub served: bool,
}

/// Who is at a channel's other end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelGuest {
    /// As the channel is bound: a name or a UUID.
    pub bound: String,
    /// Its name, where it is known.
    pub name: Option<String>,
    /// Its UUID, where it is known.
    pub uuid: Option<String>,
}

/// Whether a channel is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// It is.
    Connected,
    /// It is called, and nobody has called.
    Listening,
    /// It is not, and is tried again.
    NotConnected,
}

/// A wire that was spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// No request has come.
    None,
    /// fence-virt's.
    Classic,
    /// Our own, by a guest without a key.
    NativeKeyless,
    /// Our own, with the guest's key.
    NativeKeyed,
}

/// What is done about one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Its name, where it is known.
    pub name: Option<String>,
    /// Its UUID.
    pub uuid: String,
    /// What runs.
    pub running: Option<Errand>,
    /// Requests that joined it.
    pub joined: usize,
    /// What waits, in its order.
    pub waiting: Vec<Errand>,
}

/// A power request that runs or waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// off, on or reboot.
    pub action: String,
    /// Who asked: a guest's name, or what else is known.
    pub requester: String,
    /// Since when it is asked for.
    pub for_ms: u64,
}

/// A power action that was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// When.
    pub ms_ago: u64,
    /// By which channel it was asked for.
    pub channel: String,
    /// Who asked, as the records name it.
    pub requester: String,
    /// off, on or reboot.
    pub action: String,
    /// Whom it was about, as the request names it.
    pub target: Option<String>,
    /// Its UUID, where it is known.
    pub uuid: Option<String>,
    /// What came of it, in the records' words.
    pub outcome: String,
    /// Why, where that needs saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether this repeats the answer to an earlier request.
    pub repeated: bool,
    /// From the request to the decision.
    pub took_ms: u64,
}

/// The records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsStatus {
    /// Whether nothing may be fenced that cannot be recorded.
    pub required: bool,
    /// Whether the last could be written.
    pub written: bool,
}
