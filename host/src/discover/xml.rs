//! What a guest's XML says of its serial ports and channels. Reads text, asks nobody, and leaves it to others what is
//! served of that.

use crate::channels::PortType;
use roxmltree::{Document, Node, ParsingOptions};
use std::path::PathBuf;

/// The elements of a guest's XML at most. libvirt gives out 4 MB at most, which is far fewer.
const NODES: u32 = 4_000_000;

/// A guest that runs, by its XML.
#[derive(Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its name, where it has one.
    pub name: Option<String>,
    /// Its ports that have a unix socket, and those of the name that was asked for, whatever they have.
    pub ports: Vec<Port>,
}

/// A serial port or a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// What it is, for people: `serial port 1`, `channel "org.fencewire.fence.0"`.
    pub what: String,
    /// Whether it is a virtio channel of the name that was asked for.
    pub is_named: bool,
    /// Whether its socket really lies below the folder that is searched. Not said by the XML: [`super::look`] sees to it.
    pub is_inside: bool,
    /// What the guest has at its end.
    pub port: PortType,
    /// What it has on this host.
    pub source: Source,
}

/// What a port has on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// QEMU listens at a unix socket.
    Listens {
        /// As the XML has it.
        path: PathBuf,
        /// With the links of its folder resolved, as far as they can be.
        real: PathBuf,
    },
    /// QEMU calls, and somebody else would have to listen.
    Calls(PathBuf),
    /// Nothing is said of it.
    Missing,
    /// No unix socket, but this type of device.
    Other(String),
}

/// Reads a guest's XML. None: it is not that of a guest that runs, which has an id.
pub fn read(text: &str, virtio_name: Option<&str>) -> Result<Option<Domain>, String> {
    let options = ParsingOptions { nodes_limit: NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|why| why.to_string())?;
    let domain = document.root_element();
    if !domain.has_tag_name("domain") {
        return Err(format!("it begins with <{}>, not with <domain>", domain.tag_name().name()));
    }
    if domain.attribute("id").is_none() {
        return Ok(None);
    }
    let devices = domain.children().filter(|node| node.has_tag_name("devices")).flat_map(|node| node.children());
    let ports = devices.filter_map(|device| port(device, virtio_name)).collect();
    let name = child(domain, "name").and_then(|name| name.text()).map(str::to_owned);
    Ok(Some(Domain { name, ports }))
}

/// A device as a port, if it can be one of ours.
fn port(device: Node, virtio_name: Option<&str>) -> Option<Port> {
    let target = child(device, "target");
    let of_target = |key| target.and_then(|target| target.attribute(key));
    let (what, is_named, port) = match device.tag_name().name() {
        "serial" => (format!("serial port {}", of_target("port").unwrap_or("?")), false, PortType::Serial),
        "channel" => {
            let (kind, name) = (of_target("type"), of_target("name"));
            let is_named = kind == Some("virtio") && name.is_some() && name == virtio_name;
            let what = match (name, of_target("address")) {
                (Some(name), _) => format!("channel {name:?}"),
                (None, Some(address)) => format!("channel to {address}"),
                (None, None) => "channel".to_owned(),
            };
            // Nobody can flush any of them.
            (what, is_named, PortType::Virtio)
        }
        _ => return None,
    };
    let source = source(device);
    let is_unix = matches!(source, Source::Listens { .. } | Source::Calls(_));
    (is_named || is_unix).then_some(Port { what, is_named, is_inside: false, port, source })
}

fn source(device: Node) -> Source {
    match device.attribute("type") {
        Some("unix") => {}
        other => return Source::Other(other.unwrap_or("none").to_owned()),
    }
    let Some(source) = child(device, "source") else { return Source::Missing };
    let Some(path) = source.attribute("path").filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Source::Missing;
    };
    match source.attribute("mode") {
        Some("connect") => Source::Calls(path),
        _ => Source::Listens { real: path.clone(), path },
    }
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Option<&str> = Some("org.fencewire.fence.0");

    fn domain(devices: &str) -> String {
        format!("<domain type='qemu' id='7'><name>vm1</name><devices>{devices}</devices></domain>")
    }

    #[track_caller]
    fn ports(devices: &str) -> Vec<Port> {
        let domain = read(&domain(devices), NAME).unwrap().expect("it runs");
        assert_eq!(domain.name.as_deref(), Some("vm1"));
        domain.ports
    }

    fn listens(path: &str) -> Source {
        Source::Listens { path: path.into(), real: path.into() }
    }

    /// As libvirt 9.0 writes it of a guest that runs.
    #[test]
    fn a_channel_of_ours_is_found_with_its_socket() {
        let path = "/var/lib/libvirt/qemu/channel/target/domain-7-vm1/org.fencewire.fence.0";
        let found = ports(&format!(
            "<channel type='unix'><source mode='bind' path='{path}'/>\
             <target type='virtio' name='org.fencewire.fence.0' state='disconnected'/><alias name='channel0'/>\
             <address type='virtio-serial' controller='0' bus='0' port='1'/></channel>"
        ));
        let what = "channel \"org.fencewire.fence.0\"".to_owned();
        assert_eq!(
            found,
            [Port { what, is_named: true, is_inside: false, port: PortType::Virtio, source: listens(path) }]
        );
    }

    #[test]
    fn other_ports_are_found_with_theirs() {
        let found = ports(
            "<disk type='file'/><serial type='unix'><source mode='bind' path='/run/a &amp; b'/><target port='1'/></serial>\
             <console type='unix'><source mode='bind' path='/run/c'/></console>\
             <channel type='unix'><source path='/run/d'/><target type='guestfwd' address='10.0.2.179' port='1229'/></channel>\
             <channel type='unix'><source mode='connect' path='/run/e'/><target type='virtio' name='x'/></channel>\
             <serial type='pty'><source path='/dev/pts/3'/></serial>\
             <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>",
        );
        let seen: Vec<_> = found.iter().map(|port| (port.what.as_str(), port.port, port.source.clone())).collect();
        assert_eq!(seen[0], ("serial port 1", PortType::Serial, listens("/run/a & b")));
        assert_eq!(seen[1], ("channel to 10.0.2.179", PortType::Virtio, listens("/run/d")));
        assert_eq!(seen[2], ("channel \"x\"", PortType::Virtio, Source::Calls("/run/e".into())));
        assert_eq!(found.len(), 3, "a console is its serial port once more; and the others have no socket: {found:?}");
        assert!(found.iter().all(|port| !port.is_named));
    }

    #[test]
    fn a_channel_of_ours_is_found_whatever_it_has() {
        let with = |kind: &str, source: &str| {
            let target = "<target type='virtio' name='org.fencewire.fence.0'/>";
            ports(&format!("<channel type='{kind}'>{source}{target}</channel>")).remove(0).source
        };
        assert_eq!(with("unix", ""), Source::Missing);
        assert_eq!(with("unix", "<source mode='bind'/>"), Source::Missing);
        assert_eq!(with("unix", "<source mode='bind' path=''/>"), Source::Missing);
        assert_eq!(with("unix", "<source mode='connect' path='/a'/>"), Source::Calls("/a".into()));
        assert_eq!(with("pty", "<source path='/dev/pts/1'/>"), Source::Other("pty".to_owned()));
        let two = "<channel type='unix'><target type='virtio' name='org.fencewire.fence.0'/></channel>".repeat(2);
        assert_eq!(ports(&two).len(), 2);
        // The same name at the end of something else is not ours.
        assert_eq!(ports("<channel type='pty'><target type='xen' name='org.fencewire.fence.0'/></channel>"), []);
    }

    #[test]
    fn a_guest_that_does_not_run_has_none() {
        let text = domain("<serial type='unix'><source path='/a'/></serial>");
        assert_eq!(read(&text.replace(" id='7'", ""), NAME), Ok(None));
    }

    #[test]
    fn little_is_enough_and_much_is_not_too_much() {
        let read = |text: &str| super::read(text, NAME);
        let nothing = Ok(Some(Domain { name: None, ports: vec![] }));
        assert_eq!(read("<domain id='1'/>"), nothing);
        assert_eq!(read("<domain id='1'><devices/></domain>"), nothing);
        assert_eq!(ports(&"<disk type='file'><source file='/a'/><target dev='vda'/></disk>".repeat(20_000)), []);
        assert_eq!(ports(&"<serial type='unix'><source path='/a'/></serial>".repeat(5_000)).len(), 5_000);
        let deep = format!("{}{}", "<a>".repeat(200_000), "</a>".repeat(200_000));
        assert_eq!(ports(&deep), [], "however deep");
    }

    #[test]
    fn what_is_no_domain_is_said_to_be_none() {
        for text in ["", "no xml", "<domain id='1'>", "<network id='1'/>", "<!DOCTYPE domain []><domain id='1'/>", "\0"]
        {
            assert!(read(text, NAME).is_err(), "{text}");
        }
    }
}
