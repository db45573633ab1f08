//! Fencewire's virtio channel in a guest's definition: looked for, added, removed, or only shown.
//!
//! A guest has up to two definitions: the *live* one while it runs, and the *persistent* one from which it is started.
//! libvirt is given one `<channel>` element at a time, never a whole definition, so nothing else can be lost. What was
//! done is read back: what libvirt returns proves nothing. Not here: libvirt itself ([`Definition`] is what is asked of it).

use roxmltree::{Document, Node};
use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::thread;
use std::time::{Duration, Instant};

pub use super::definition::Domains;

/// How long QEMU may take to take a channel from a running guest.
pub const UNPLUG: Duration = Duration::from_secs(10);

/// Until the definition is read again.
const AGAIN: Duration = Duration::from_millis(50);

/// What libvirt gives a controller that does not say how many ports it has.
const PORTS: u32 = 31;

/// One of a guest's two definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Of the guest that runs.
    Live,
    /// From which it is started.
    Persistent,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Live => "live",
            Side::Persistent => "persistent",
        })
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// The guest is to have the channel.
    Attach,
    /// It is not to have it.
    Detach,
}

/// In which definitions. Neither: in those that there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The live one.
    pub live: bool,
    /// The persistent one.
    pub persistent: bool,
}

/// A guest on one hypervisor, as far as its definitions go. Errors are the hypervisor's words.
pub trait Definition {
    /// Whether it runs.
    fn is_active(&self) -> Result<bool, String>;
    /// Whether it is defined, and not gone when it is off.
    fn is_persistent(&self) -> Result<bool, String>;
    /// That definition.
    fn xml(&self, side: Side) -> Result<String, String>;
    /// Adds a device to these definitions: to all of them, or to none.
    fn attach(&self, device: &str, sides: &[Side]) -> Result<(), String>;
    /// Removes a device from that definition, or asks for it.
    fn detach(&self, device: &str, side: Side) -> Result<(), String>;
}

/// A change that was found to be necessary. Nothing is changed before [`Plan::carry_out`].
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    verb: Verb,
    name: String,
    /// What is to be given to libvirt, and for which definition.
    changes: Vec<(Side, String)>,
    /// Definitions that are as they should be.
    already: Vec<Side>,
    /// The guest runs, and keeps what it has until it is started anew.
    later: bool,
}

/// Why nothing, or not all, was done. Displays as a sentence that says what to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A live change of a guest that is off.
    Off,
    /// A persistent change of a guest that is not defined.
    Transient,
    /// A running guest has no place for another port. Says whether it has a persistent definition.
    NoPort(bool),
    /// It has a channel of that name that no bridge can connect to, of that type.
    OtherType(Side, String),
    /// libvirt did not do, or say, what it was asked.
    Libvirt(&'static str, String),
    /// What libvirt gave for a definition is none.
    NoXml(String),
    /// libvirt says that it has done it, and the definition is as it was.
    NotDone(Side),
    /// The running guest still had the channel when time was up. Says whether its persistent definition is without it.
    StillThere(bool),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Off => f.write_str("it is off: start it first, or leave out --live. Nothing was changed"),
            Trouble::Transient => f.write_str(
                "it is transient, and has no definition from which it is started again: leave out --persistent, and \
                 change the XML that it is created from (--dry-run shows the channel). Nothing was changed",
            ),
            Trouble::NoPort(persistent) => {
                f.write_str(
                    "it runs without a virtio-serial controller that has a free port, and libvirt adds none to a guest \
                     that runs: ",
                )?;
                f.write_str(if *persistent {
                    "use --persistent, then shut the guest down and start it; a reboot inside it is not enough. "
                } else {
                    "create it anew with the channel in its XML. "
                })?;
                f.write_str("Nothing was changed")
            }
            Trouble::OtherType(side, kind) => write!(
                f,
                "its {side} definition has a channel of this name with type {kind:?}, to which nobody can connect: \
                 detach it first. Nothing was changed"
            ),
            Trouble::Libvirt(doing, why) => write!(f, "{doing}: libvirt says: {why}"),
            Trouble::NoXml(why) => write!(f, "libvirt gave a definition that cannot be read ({why})"),
            Trouble::NotDone(side) => {
                write!(f, "libvirt says that it is done, but the {side} definition is as it was: see libvirt's log")
            }
            // What the guest has open there is no reason: QEMU does not ask it.
            Trouble::StillThere(elsewhere) => write!(
                f,
                "libvirt was asked, but {} s later the running guest still has the channel: QEMU has not said that it is gone. \
                 See libvirt's log for that guest, then run this again{}",
                UNPLUG.as_secs(),
                if *elsewhere { ". Its persistent definition is without it" } else { "" },
            ),
        }
    }
}

impl std::error::Error for Trouble {}

/// A channel as a definition has it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    kind: String,
    path: Option<String>,
    /// The element, byte for byte, without its indentation.
    text: String,
}

impl Plan {
    /// Finds out what has to be changed so that the guest has, or has not, the channel of that name.
    pub fn new(guest: &dyn Definition, verb: Verb, name: &str, wanted: Wanted) -> Result<Plan, Trouble> {
        let (is_active, is_persistent) = kinds(guest)?;
        if wanted.live && !is_active {
            return Err(Trouble::Off);
        }
        if wanted.persistent && !is_persistent {
            return Err(Trouble::Transient);
        }
        let neither = wanted == Wanted::default();
        let sides = [(Side::Live, is_active, wanted.live), (Side::Persistent, is_persistent, wanted.persistent)];
        let sides = sides.into_iter().filter(|(_, there, wanted)| *wanted || (neither && *there));
        let later = is_active && wanted.persistent && !wanted.live;
        let mut plan = Plan { verb, name: name.to_owned(), changes: Vec::new(), already: Vec::new(), later };
        for (side, ..) in sides {
            let xml = read(guest, side)?;
            let found = channels(&xml, name)?;
            match verb {
                Verb::Attach => match found.first() {
                    Some(found) if found.kind != "unix" => {
                        return Err(Trouble::OtherType(side, found.kind.clone()));
                    }
                    Some(_) => plan.already.push(side),
                    None if side == Side::Live && !has_free_port(&xml)? => return Err(Trouble::NoPort(is_persistent)),
                    None => plan.changes.push((side, element(name))),
                },
                Verb::Detach if found.is_empty() => plan.already.push(side),
                Verb::Detach => plan.changes.extend(found.into_iter().map(|found| (side, found.text))),
            }
        }
        Ok(plan)
    }

    /// Whether everything is as it should be.
    pub fn is_done(&self) -> bool {
        self.changes.is_empty()
    }

    /// The change, a line for each line of XML that comes or goes.
    pub fn shown(&self) -> String {
        let mut text = String::new();
        let sign = if self.verb == Verb::Attach { '+' } else { '-' };
        for (side, device) in &self.changes {
            let _ = writeln!(text, "  {side} definition, below <devices>:");
            for line in device.lines() {
                let _ = writeln!(text, "{sign}   {line}");
            }
        }
        if self.verb == Verb::Attach && !self.is_done() {
            text += "  libvirt adds the socket's path and the port's number; to a persistent definition also a\n  \
                     virtio-serial controller, where none has a free port\n";
        }
        text
    }

    /// Makes the change, and gives a sentence about it.
    pub fn carry_out(&self, guest: &dyn Definition) -> Result<String, Trouble> {
        match self.verb {
            Verb::Attach => self.attach(guest)?,
            Verb::Detach => self.detach(guest, UNPLUG)?,
        }
        let changed: Vec<Side> = self.changes.iter().map(|(side, _)| *side).collect();
        let (done, already) = match self.verb {
            Verb::Attach => ("attached", "has the channel already"),
            Verb::Detach => ("detached", "has no such channel"),
        };
        let mut text = match (&changed[..], &self.already[..]) {
            ([], already_sides) => format!("{already}, {}: nothing was changed\n", in_words(already_sides)),
            (changed, []) => format!("{done}, {}\n", in_words(changed)),
            (changed, sides) => format!("{done}, {}; it {already}, {}\n", in_words(changed), in_words(sides)),
        };
        if self.later && !changed.is_empty() {
            text += "  it runs: that counts from its next start on; a reboot inside it is not enough\n";
        }
        if self.verb == Verb::Attach {
            let _ = writeln!(text, "  in the guest: the virtio port {}", self.name);
            if let Some(path) = self.path(guest) {
                let _ = writeln!(text, "  on this host: {path}");
            }
        }
        Ok(text)
    }

    fn attach(&self, guest: &dyn Definition) -> Result<(), Trouble> {
        let Some((_, device)) = self.changes.first() else { return Ok(()) };
        let sides: Vec<Side> = self.changes.iter().map(|(side, _)| *side).collect();
        let doing = "the channel could not be attached, and nothing was changed";
        guest.attach(device, &sides).map_err(|why| Trouble::Libvirt(doing, why))?;
        for side in sides {
            if channels(&read(guest, side)?, &self.name)?.is_empty() {
                return Err(Trouble::NotDone(side));
            }
        }
        Ok(())
    }

    /// The persistent definition first: that is done or not. The guest that runs may take its time.
    fn detach(&self, guest: &dyn Definition, patience: Duration) -> Result<(), Trouble> {
        for (side, device) in self.changes.iter().rev() {
            let doing = "the channel could not be detached";
            guest.detach(device, *side).map_err(|why| Trouble::Libvirt(doing, why))?;
        }
        let until = Instant::now() + patience;
        for (side, _) in self.changes.iter().rev() {
            while !channels(&read(guest, *side)?, &self.name)?.is_empty() {
                match side {
                    Side::Persistent => return Err(Trouble::NotDone(*side)),
                    Side::Live if Instant::now() >= until => {
                        return Err(Trouble::StillThere(kinds(guest)?.1 && !self.is_in_persistent(guest)?));
                    }
                    Side::Live => thread::sleep(AGAIN),
                }
                // It may have gone off meanwhile, and its live definition with it.
                if *side == Side::Live && !kinds(guest)?.0 {
                    break;
                }
            }
        }
        Ok(())
    }

    fn is_in_persistent(&self, guest: &dyn Definition) -> Result<bool, Trouble> {
        Ok(!channels(&read(guest, Side::Persistent)?, &self.name)?.is_empty())
    }

    /// Where the socket of the running guest is.
    fn path(&self, guest: &dyn Definition) -> Option<String> {
        let xml = read(guest, Side::Live).ok().filter(|_| kinds(guest).is_ok_and(|(is_active, _)| is_active))?;
        channels(&xml, &self.name).ok()?.pop()?.path
    }
}

/// Whether it is active, and whether it is persistent.
fn kinds(guest: &dyn Definition) -> Result<(bool, bool), Trouble> {
    let doing = "it cannot be told whether it runs";
    let is_active = guest.is_active().map_err(|why| Trouble::Libvirt(doing, why))?;
    Ok((is_active, guest.is_persistent().map_err(|why| Trouble::Libvirt(doing, why))?))
}

fn read(guest: &dyn Definition, side: Side) -> Result<String, Trouble> {
    guest.xml(side).map_err(|why| Trouble::Libvirt("its definition cannot be read", why))
}

fn in_words(sides: &[Side]) -> String {
    sides.iter().map(Side::to_string).collect::<Vec<_>>().join(" and ")
}

/// The channel as libvirt is given it.
fn element(name: &str) -> String {
    let name = name.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;");
    format!("<channel type='unix'>\n  <source mode='bind'/>\n  <target type='virtio' name='{name}'/>\n</channel>")
}

/// The virtio channels of that name, of the guest itself and not of what somebody wrote into its metadata.
fn channels(xml: &str, name: &str) -> Result<Vec<Found>, Trouble> {
    let document = Document::parse(xml).map_err(|why| Trouble::NoXml(why.to_string()))?;
    let is_ours = |channel: &Node<'_, '_>| {
        children(*channel, "target")
            .any(|target| target.attribute("type") == Some("virtio") && target.attribute("name") == Some(name))
    };
    let found = devices(&document, "channel").into_iter().filter(is_ours).map(|channel| Found {
        kind: channel.attribute("type").unwrap_or_default().to_owned(),
        path: children(channel, "source").find_map(|source| source.attribute("path")).map(str::to_owned),
        text: dedented(xml, channel.range()),
    });
    Ok(found.collect())
}

/// Whether a controller that QEMU has, too, has a port to which nothing is attached. libvirt does not look, and leaves a
/// controller in the live definition that does not exist.
fn has_free_port(xml: &str) -> Result<bool, Trouble> {
    let document = Document::parse(xml).map_err(|why| Trouble::NoXml(why.to_string()))?;
    let addresses = document.descendants().filter(|node| {
        node.has_tag_name("address")
            && node.attribute("type") == Some("virtio-serial")
            && node.attribute("port").is_some()
    });
    let taken: HashSet<(&str, u32)> = addresses
        .filter_map(|node| {
            Some((node.attribute("controller").unwrap_or("0"), node.attribute("port")?.parse::<u32>().ok()?))
        })
        .collect();
    let controllers = devices(&document, "controller").into_iter().filter(|controller| {
        controller.attribute("type") == Some("virtio-serial") && children(*controller, "alias").next().is_some()
    });
    let has_free = |controller: Node<'_, '_>| {
        let index = controller.attribute("index").unwrap_or("0");
        let ports = controller.attribute("ports").and_then(|ports| ports.parse().ok()).unwrap_or(PORTS);
        // The port of number 0 is for a console.
        (1..ports).any(|port| !taken.contains(&(index, port)))
    };
    Ok(controllers.into_iter().any(has_free))
}

fn devices<'a, 'input>(document: &'a Document<'input>, name: &'static str) -> Vec<Node<'a, 'input>> {
    children(document.root_element(), "devices").flat_map(|devices| children(devices, name)).collect()
}

fn children<'a, 'input>(node: Node<'a, 'input>, name: &'static str) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.is_element() && child.has_tag_name(name))
}

/// That part of a text, without the indentation that its first line has there.
fn dedented(text: &str, range: std::ops::Range<usize>) -> String {
    let line = text[..range.start].rfind('\n').map_or(0, |end| end + 1);
    let indentation = &text[line..range.start];
    let lines = text[range].lines().map(|line| line.strip_prefix(indentation).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
