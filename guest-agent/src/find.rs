//! Which device or socket leads to the bridge: the one that was named, else the virtio port that has our name. Never a
//! serial port by guess: the bytes could go to a console.

use crate::order::Order;
use crate::system::{Errno, Kind, Path, System};
use crate::text::{cut, trim};
use crate::texts::Text;
use crate::trouble::{Told, Trouble};

/// The virtio port that is ours where none is named.
const PORT_NAME: &[u8] = b"org.fencewire.fence.0";

/// Where udev makes links from the ports' names to the devices.
const PORTS_FOLDER: &[u8] = b"/dev/virtio-ports/";

/// Where the kernel lists the ports, with or without udev.
const SYSFS_FOLDER: &[u8] = b"/sys/class/virtio-ports/";

/// What a channel is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A tty or a virtio port.
    Device,
    /// A unix socket.
    Socket,
    /// TCP, to the order's address, which is not looked for.
    Tcp,
}

/// Whether something is there that can be the channel, and what. `path` becomes where.
#[inline(never)]
pub(crate) fn find<S: System>(system: &S, order: &Order<'_>, path: &mut Path) -> Result<Way, Told> {
    let trouble = match order.device {
        None if !find_port(system, path) => Trouble::about(Text::NoPort, b""),
        Some(bytes) if !path.set(bytes, b"") => Trouble::channel(bytes, Errno::NAMETOOLONG, false),
        _ if order.by_tcp => return Ok(Way::Tcp),
        _ => {
            let errno = match system.kind(path) {
                Ok(Kind::Device) => return Ok(Way::Device),
                Ok(Kind::Socket) => return Ok(Way::Socket),
                Ok(Kind::Folder) => Errno::ISDIR,
                Ok(Kind::Other) => Errno::NOTTY,
                Err(errno) => errno,
            };
            Trouble::channel(path.as_bytes(), errno, false)
        }
    };
    Err(trouble.tell(system))
}

/// The port that has our name: by udev's link, or by its `name` file.
fn find_port<S: System>(system: &S, path: &mut Path) -> bool {
    if path.set(PORTS_FOLDER, PORT_NAME) && system.kind(path).is_ok() {
        return true;
    }
    if !path.set(SYSFS_FOLDER, b"") || system.open_folder(path).is_err() {
        return false;
    }
    let mut entries = [0u8; 1024];
    loop {
        let read = system.read_folder(&mut entries).unwrap_or(0);
        let mut rest = entries.get(..read as usize).unwrap_or_default();
        if rest.is_empty() {
            return false;
        }
        while let Some((port, after)) = next_entry(rest) {
            rest = after;
            if path.set(SYSFS_FOLDER, port) && path.add(b"/name") && has_our_name(system, path) {
                return path.set(b"/dev/", port);
            }
        }
    }
}

fn has_our_name<S: System>(system: &S, file: &Path) -> bool {
    let mut content = [0u8; 64];
    let read = system.read_file(file, &mut content).unwrap_or(0);
    let name = content.get(..read as usize).unwrap_or_default();
    trim(name) == PORT_NAME
}

/// The name of the first entry and what follows it. An entry is `ino u64 · off i64 · reclen u16 · type u8 · name`, the
/// name ended by a NUL.
fn next_entry(entries: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes([*entries.get(16)?, *entries.get(17)?]));
    let (entry, after) = entries.split_at_checked(length)?;
    Some((cut(entry.get(19..)?, 0).0, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::StandIn;

    fn found(system: &StandIn, named: Option<&str>) -> Result<(String, Way), String> {
        let mut path = Path::new();
        let order = Order { device: named.map(str::as_bytes), ..Order::NEW };
        let way = find(system, &order, &mut path).map_err(|Told| system.error())?;
        Ok((String::from_utf8_lossy(path.as_bytes()).into_owned(), way))
    }

    #[test]
    fn what_is_named_is_taken_for_what_it_is() {
        let system = || {
            StandIn::new()
                .with("/dev/ttyS1", Kind::Device)
                .with("/run/x.sock", Kind::Socket)
                .with("/tmp", Kind::Folder)
                .with("/etc/passwd", Kind::Other)
                .with_error("/root/x", Errno(13))
        };
        assert_eq!(found(&system(), Some("/dev/ttyS1")), Ok(("/dev/ttyS1".into(), Way::Device)));
        assert_eq!(found(&system(), Some("/run/x.sock")), Ok(("/run/x.sock".into(), Way::Socket)));
        for (path, part) in [
            ("/tmp", "folder"),
            ("/etc/passwd", "no port"),
            ("/dev/ttyS9", "no such file"),
            ("/root/x", "permission denied"),
            ("a\0b", "path is too long"),
            (&"x".repeat(256), "path is too long"),
        ] {
            let sentence = found(&system(), Some(path)).unwrap_err();
            assert!(sentence.contains(part), "{path}: {sentence}");
        }
    }

    #[test]
    fn udevs_link_comes_first() {
        let system = StandIn::new()
            .with("/dev/virtio-ports/org.fencewire.fence.0", Kind::Device)
            .with_ports(&[("vport0p1", "org.fencewire.fence.0\n")]);
        let link = ("/dev/virtio-ports/org.fencewire.fence.0".into(), Way::Device);
        assert_eq!(found(&system, None), Ok(link));
    }

    #[test]
    fn without_udev_sysfs_knows() {
        let ports = [
            ("vport0p1", "org.qemu.guest_agent.0\n"),
            ("vport0p2", "org.fencewire.fence.01\n"),
            ("vport1p31", "org.fencewire.fence.0\n"),
        ];
        let system = StandIn::new().with("/dev/vport1p31", Kind::Device).with_ports(&ports);
        assert_eq!(found(&system, None), Ok(("/dev/vport1p31".into(), Way::Device)));
    }

    #[test]
    fn a_port_beyond_the_first_buffer_of_entries_is_found() {
        let many: Vec<(String, &str)> = (0..200).map(|nth| (format!("vport{nth}p1"), "other\n")).collect();
        let mut ports: Vec<(&str, &str)> = many.iter().map(|(port, name)| (port.as_str(), *name)).collect();
        ports.push(("vport200p1", "org.fencewire.fence.0\n"));
        let system = StandIn::new().with("/dev/vport200p1", Kind::Device).with_ports(&ports);
        assert_eq!(found(&system, None), Ok(("/dev/vport200p1".into(), Way::Device)));
    }

    #[test]
    fn nothing_is_taken_by_guess() {
        let others = StandIn::new()
            .with("/dev/ttyS1", Kind::Device)
            .with("/dev/vport0p1", Kind::Device)
            .with_ports(&[("vport0p1", "org.qemu.guest_agent.0\n")]);
        for system in [StandIn::new(), others] {
            let sentence = found(&system, None).unwrap_err();
            assert!(sentence.contains("org.fencewire.fence.0"), "{sentence}");
        }
    }

    #[test]
    fn broken_entries_end_the_search() {
        assert_eq!(next_entry(&[]), None);
        assert_eq!(next_entry(&[0; 19]), None);
        assert_eq!(next_entry(&[0xff; 64]), None);
        let mut short = [0; 32];
        short[16] = 18;
        assert_eq!(next_entry(&short), None);
    }
}
