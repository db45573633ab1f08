//! A snapshot for people: what `fencewired status` prints.

use super::snapshot::{ChannelStatus, Errand, Fence, HypervisorStatus, Link, Reach, Serving, Snapshot, Wire, Workers};
use std::fmt::Write as _;

/// Fences that are shown; programs see all.
const FENCES: usize = 10;

/// The whole, in lines.
pub fn table(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let Snapshot { program, pid, state, for_ms, all_served, .. } = snapshot;
    let does = match state {
        Serving::Serving => "serving",
        Serving::Stopping => "stopping: what has begun is finished",
    };
    let _ = writeln!(text, "fencewired {program}, process {pid}, {does}, for {}", time(*for_ms));
    if !snapshot.records.written {
        let refuses = if snapshot.records.required { ", and power actions are refused" } else { "" };
        let _ = writeln!(text, "records are NOT written{refuses}: see records.path, and the log");
    }
    let on = snapshot.guests.iter().filter(|guest| guest.power == "on").count();
    let _ = writeln!(text, "guests known: {} ({on} on)", snapshot.guests.len());
    let hypervisors = snapshot.hypervisors.iter().map(hypervisor).collect();
    section(&mut text, ["HYPERVISOR", "STATE", "FOR", "GUESTS", "ACTING", "LOOKING"], hypervisors);
    let channels = snapshot.channels.iter().map(channel).collect();
    section(&mut text, ["", "CHANNEL", "GUEST", "STATE", "FOR", "HEARD", "WIRE"], channels);
    let lanes = snapshot.lanes.iter().map(|lane| {
        let waiting: Vec<String> = lane.waiting.iter().map(errand).collect();
        let joined = if lane.joined > 0 { format!(" (and {} more)", lane.joined) } else { String::new() };
        [
            lane.name.clone().unwrap_or_else(|| lane.uuid.clone()),
            lane.running.as_ref().map_or_else(none, |running| format!("{}{joined}", errand(running))),
            if waiting.is_empty() { none() } else { waiting.join("; ") },
        ]
    });
    section(&mut text, ["TARGET", "RUNS", "WAITS"], lanes.collect());
    let fences = snapshot.fences.iter().take(FENCES).map(fence).collect();
    section(&mut text, ["LAST FENCES", "WHO", "WHAT", "WHOM", "OUTCOME", "TOOK"], fences);
    let _ = match all_served {
        true => writeln!(text, "\nall is served"),
        false => writeln!(text, "\nNOT all is served: see what is marked with an exclamation mark, and the log"),
    };
    text
}

fn hypervisor(hypervisor: &HypervisorStatus) -> [String; 6] {
    let state = match (hypervisor.state, &hypervisor.why) {
        (Reach::Answers, _) => "answers".to_owned(),
        (Reach::Silent, _) => "! silent".to_owned(),
        (Reach::Unreachable, why) => format!("! {}", why.as_deref().unwrap_or("unreachable")),
    };
    let workers = |workers: Workers| match workers {
        Workers { threads, busy, set_aside: 0, waiting: 0 } => format!("{busy} of {threads} busy"),
        Workers { threads, busy, set_aside, waiting } => {
            format!("{busy} of {threads} busy, {set_aside} set aside, {waiting} calls wait")
        }
    };
    [
        hypervisor.uri.clone(),
        state,
        time(hypervisor.for_ms),
        hypervisor.guests.to_string(),
        workers(hypervisor.power),
        workers(hypervisor.queries),
    ]
}

fn channel(channel: &ChannelStatus) -> [String; 7] {
    let guest = match (&channel.guest, &channel.group) {
        (Some(guest), _) => match (&guest.name, &guest.uuid) {
            (Some(name), Some(uuid)) => format!("{name} ({uuid})"),
            (None, Some(uuid)) => format!("{} ({uuid})", guest.bound),
            (_, None) => format!("{} (not known)", guest.bound),
        },
        (None, Some(group)) => format!("group {group}"),
        (None, None) => none(),
    };
    let state = match (channel.state, &channel.why) {
        (Link::Connected, _) if channel.connections > 1 => format!("{} connections", channel.connections),
        (Link::Connected, _) => "connected".to_owned(),
        (Link::Listening, _) => "listening".to_owned(),
        (Link::NotConnected, None) => "not connected".to_owned(),
        (Link::NotConnected, Some(why)) => format!("not connected: {why}"),
    };
    let wire = match (channel.wire, channel.session) {
        (Wire::None, _) => "-",
        (Wire::Classic, _) => "classic",
        (Wire::NativeKeyless, false) => "native keyless",
        (Wire::NativeKeyless, true) => "native keyless, in session",
        (Wire::NativeKeyed, false) => "native keyed",
        (Wire::NativeKeyed, true) => "native keyed, in session",
    };
    [
        if channel.served { " " } else { "!" }.to_owned(),
        channel.name.clone(),
        guest,
        state,
        time(channel.for_ms),
        channel.heard_ms_ago.map_or_else(none, |ago| format!("{} ago", time(ago))),
        wire.to_owned(),
    ]
}

fn errand(errand: &Errand) -> String {
    format!("{} for {}, since {}", errand.action, errand.requester, time(errand.for_ms))
}

fn fence(fence: &Fence) -> [String; 6] {
    let why = fence.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let repeated = if fence.repeated { " (repeated)" } else { "" };
    [
        format!("{} ago", time(fence.ms_ago)),
        fence.requester.clone(),
        fence.action.clone(),
        fence.target.clone().unwrap_or_else(none),
        format!("{}{why}{repeated}", fence.outcome),
        format!("{} ms", fence.took_ms),
    ]
}

fn none() -> String {
    "-".to_owned()
}

/// A time as people say it, with two units at most.
fn time(ms: u64) -> String {
    let seconds = ms / 1_000;
    let two = |big: u64, name: &str, small: u64, other: &str| match small {
        0 => format!("{big} {name}"),
        _ => format!("{big} {name} {small} {other}"),
    };
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

/// Lines below their headings, each column as wide as its widest cell. Nothing where there are no lines.
fn section<const N: usize>(text: &mut String, headings: [&str; N], lines: Vec<[String; N]>) {
    if lines.is_empty() {
        return;
    }
    // Names and libvirt's words are not ours: nothing in them may move the cursor.
    let clean = |cell: String| cell.replace(char::is_control, "\u{fffd}");
    let lines: Vec<[String; N]> =
        std::iter::once(headings.map(str::to_owned)).chain(lines.into_iter().map(|line| line.map(clean))).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    text.push('\n');
    for line in &lines {
        let mut shown = String::new();
        for (cell, width) in line.iter().zip(widths) {
            let _ = write!(shown, "{cell:width$}  ");
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests;
