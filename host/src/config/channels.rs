//! `[[channel]]`, checked: a guest's own, or a TCP port with a key.

use super::check::{Check, SOCKET_PATH_MAX};
use super::schema;
use crate::channels::{ChannelKind, ChannelSpec, GuestChannel, KeyedChannel, PortType, Trusted, TtyParams, explained};
use crate::policy::Group;
use fencewire_core::classic::key::Hash;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// What has to stand in the configuration where nobody has to prove anything.
const ANYBODY: &str = "none-anybody-may-fence";

impl Check<'_> {
    pub(super) fn channels(&mut self, list: &[Spanned<schema::Channel>], groups: &[Group]) -> Vec<ChannelSpec> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut channels = Vec::new();
        for channel in list {
            let line = self.line(channel.span().start);
            let kind = channel.get_ref().kind.get_ref().as_str();
            let spec = match kind {
                "tcp" => self.keyed(channel, groups).map(ChannelSpec::Keyed),
                "vsock" | "hybrid-vsock" => {
                    let text = format!(
                        "channel.kind = \"{kind}\": not served by this version; it serves unix, unix-listen, tty and tcp"
                    );
                    self.error_at(&channel.get_ref().kind, text);
                    None
                }
                _ => self.guests(channel, groups).map(ChannelSpec::Guest),
            };
            let Some(spec) = spec else { continue };
            let place = spec.to_string();
            if let Some(first) = seen.insert(place.clone(), line) {
                let key = if kind == "tcp" { "listen" } else { "path" };
                let place = place.trim_start_matches("tcp ");
                let text = format!("channel.{key} = \"{place}\": line {first} has a channel there already");
                self.error_at(channel, text);
            }
            channels.push(spec);
        }
        channels
    }

    /// A channel of kind tcp.
    fn keyed(&mut self, at: &Spanned<schema::Channel>, groups: &[Group]) -> Option<KeyedChannel> {
        let channel = at.get_ref();
        for (given, key) in [
            (&channel.path, "path"),
            (&channel.guest, "guest"),
            (&channel.params, "params"),
            (&channel.port, "port"),
            (&channel.mode, "mode"),
        ] {
            if let Some(given) = given {
                self.error_at(
                    given,
                    format!("channel.{key}: a tcp channel has none; it has listen, key_file and group"),
                );
            }
        }
        let listen = self.listen(at);
        let group = self.key_group(at, groups);
        let trust = self.trust(at);
        Some(KeyedChannel { listen: listen?, group: group?, trust: trust? })
    }

    fn listen(&mut self, at: &Spanned<schema::Channel>) -> Option<SocketAddr> {
        let Some(listen) = &at.get_ref().listen else {
            self.error_at(at, "channel of kind \"tcp\" without listen: say where, such as listen = \"192.0.2.1:1229\"");
            return None;
        };
        let parsed = listen.get_ref().as_str().and_then(|text| text.parse().ok());
        if parsed.is_none() {
            let given = match listen.get_ref() {
                toml::Value::Integer(port) => port.to_string(),
                other => format!("{:?}", other.as_str().unwrap_or("?")),
            };
            let text = format!(
                "channel.listen = {given}: must be an address and a port in quotes, such as \"192.0.2.1:1229\" or \
                 \"[::1]:1229\""
            );
            self.error_at(listen, text);
        }
        if let Some(address) = parsed.filter(|address: &SocketAddr| address.port() == 0) {
            let text = format!("channel.listen = \"{address}\": port 0 is none; name the one that the agents call");
            self.error_at(listen, text);
        }
        parsed
    }

    fn key_group(&mut self, at: &Spanned<schema::Channel>, groups: &[Group]) -> Option<String> {
        let Some(named) = &at.get_ref().group else {
            self.error_at(at, "channel of kind \"tcp\" without a group: say whom the key's holders may fence");
            return None;
        };
        let name = named.get_ref();
        match groups.iter().find(|group| group.name == *name) {
            Some(group) if group.classic => Some(name.clone()),
            Some(_) => {
                let text = format!(
                    "channel.group = {name:?}: that group may not use the classic wire, the only one that a tcp channel \
                     speaks. Set classic = true for it or under [wire]"
                );
                self.error_at(named, text);
                None
            }
            None => {
                self.error_at(named, format!("channel.group = {name:?}: there is no [[group]] of this name"));
                None
            }
        }
    }

    fn trust(&mut self, at: &Spanned<schema::Channel>) -> Option<Trusted> {
        let channel = at.get_ref();
        if channel.hash.as_ref().is_some_and(|hash| hash.get_ref() == ANYBODY) {
            if let Some(key) = &channel.key_file {
                let text =
                    format!("channel.key_file: with hash = \"{ANYBODY}\" no key is asked for; remove one of the two");
                self.error_at(key, text);
                return None;
            }
            if let Some(auth) = &channel.auth {
                self.error_at(auth, format!("channel.auth: with hash = \"{ANYBODY}\" nothing is proved; remove it"));
            }
            self.warn_at(
                at,
                format!("hash = \"{ANYBODY}\": whoever can connect here may fence the whole group. Use a key_file"),
            );
            return Some(Trusted::anybody());
        }
        let minimum = self.hash(channel.hash.as_ref(), "hash");
        let auth = self.hash(channel.auth.as_ref(), "auth");
        let Some(file) = &channel.key_file else {
            self.error_at(
                at,
                "channel of kind \"tcp\" without a key_file: anybody could fence. Name one, such as \
                 key_file = \"/etc/cluster/fence_xvm.key\"",
            );
            return None;
        };
        match Trusted::key(Path::new(file.get_ref()), minimum?, auth?) {
            Ok(trust) => Some(trust),
            Err(why) => {
                self.error_at(file, format!("channel.key_file = {:?} {why}", file.get_ref()));
                None
            }
        }
    }

    fn hash(&mut self, given: Option<&Spanned<String>>, key: &str) -> Option<Hash> {
        let Some(given) = given else { return Some(Hash::Sha256) };
        let text = match given.get_ref().as_str() {
            "sha256" => return Some(Hash::Sha256),
            "sha512" => return Some(Hash::Sha512),
            "sha1" => format!(
                "channel.{key} = \"sha1\": proofs over SHA-1 can be forged by who can pay for it, so it is not accepted. \
                 Use \"sha256\" here, and give -c and -C sha256 (their default) to the agents"
            ),
            "none" => format!(
                "channel.{key} = \"none\": anybody could fence. Use \"sha256\"; if that is really what you want, set \
                 hash = \"{ANYBODY}\", and no auth and no key_file"
            ),
            other => format!("channel.{key} = {other:?}: must be \"sha256\" or \"sha512\""),
        };
        self.error_at(given, text);
        None
    }

    /// A channel with a guest at its other end.
    fn guests(&mut self, at: &Spanned<schema::Channel>, groups: &[Group]) -> Option<GuestChannel> {
        let channel = at.get_ref();
        let kind = channel.kind.get_ref().as_str();
        for (given, key) in [
            (&channel.key_file, "key_file"),
            (&channel.group, "group"),
            (&channel.hash, "hash"),
            (&channel.auth, "auth"),
        ] {
            if let Some(given) = given {
                let text = format!("channel.{key}: only for kind \"tcp\"; who is at this channel's end is its guest");
                self.error_at(given, text);
            }
        }
        if let Some(listen) = &channel.listen {
            self.error_at(listen, "channel.listen: only for tcp and vsock; a unix-listen channel listens at its path");
        }
        let Some(path) = &channel.path else {
            self.error_at(at, format!("channel of kind \"{kind}\" without a path: say where it is"));
            return None;
        };
        self.path(path, kind);
        let Some(guest) = &channel.guest else {
            self.error_at(at, "channel without a guest: say who is at its other end, by name or UUID");
            return None;
        };
        let guest = self.member(guest, "channel.guest");
        if let Some(guest) = &guest
            && !groups.iter().any(|group| group.members.contains(guest))
        {
            self.warn_at(at, format!("channel.guest = \"{guest}\" is in no group: whatever it asks is denied"));
        }
        let kind = self.kind(channel, kind);
        let port = match channel.port.as_ref().map(|port| port.get_ref().as_str()) {
            None | Some("serial") => PortType::Serial,
            Some("virtio") => PortType::Virtio,
            Some(other) => {
                let text = format!("channel.port = {other:?}: must be \"serial\" or \"virtio\"");
                self.error_at(channel.port.as_ref()?, text);
                return None;
            }
        };
        Some(GuestChannel { kind: kind?, path: PathBuf::from(path.get_ref()), guest: guest?, port, found: None })
    }

    fn kind(&mut self, channel: &schema::Channel, kind: &str) -> Option<ChannelKind> {
        if let (Some(params), true) = (&channel.params, kind != "tty") {
            self.error_at(params, "channel.params: only a tty has these");
        }
        if let (Some(mode), true) = (&channel.mode, kind != "unix-listen") {
            self.error_at(mode, "channel.mode: only a unix-listen channel makes its socket; remove it");
        }
        match kind {
            "unix" => Some(ChannelKind::Unix),
            "unix-listen" => {
                let Some(mode) = &channel.mode else {
                    return Some(ChannelKind::UnixListen { mode: 0o600 });
                };
                match u32::from_str_radix(mode.get_ref(), 8) {
                    Ok(bits) if bits <= 0o777 => {
                        if bits & 0o007 != 0 {
                            let text = format!(
                                "channel.mode = {:?}: everybody on this host may ask in the guest's name. Take the last \
                                 digit's rights away, as in \"0660\"",
                                mode.get_ref()
                            );
                            self.warn_at(mode, text);
                        }
                        Some(ChannelKind::UnixListen { mode: bits })
                    }
                    _ => {
                        self.error_at(mode, format!("channel.mode = {:?}: must be like \"0660\"", mode.get_ref()));
                        None
                    }
                }
            }
            "tty" => {
                let Some(params) = &channel.params else {
                    return Some(ChannelKind::Tty(TtyParams::default()));
                };
                match TtyParams::parse(params.get_ref()) {
                    Ok(parsed) => Some(ChannelKind::Tty(parsed)),
                    Err(why) => {
                        let path = channel.path.as_ref().map(|path| format!(" for {:?}", path.get_ref()));
                        let path = path.unwrap_or_default();
                        self.error_at(params, format!("channel.params = {:?}{path}: {why}", params.get_ref()));
                        None
                    }
                }
            }
            other => {
                self.error_at(
                    &channel.kind,
                    format!("channel.kind = {other:?}: must be \"unix\", \"unix-listen\", \"tty\" or \"tcp\""),
                );
                None
            }
        }
    }

    /// What is wrong with a path for good is an error; what may come is a warning.
    fn path(&mut self, at: &Spanned<String>, kind: &str) {
        let path = Path::new(at.get_ref());
        let shown = path.display();
        if !path.is_absolute() {
            self.error_at(at, format!("channel.path = \"{shown}\": must begin with \"/\""));
            return;
        }
        if kind != "tty" && at.get_ref().len() > SOCKET_PATH_MAX {
            self.error_at(
                at,
                format!("channel.path = \"{shown}\": a socket's path has at most {SOCKET_PATH_MAX} bytes"),
            );
        }
        let found = match std::fs::metadata(path) {
            Ok(found) => found,
            Err(why) if why.kind() == std::io::ErrorKind::PermissionDenied => {
                let why = explained(why, path);
                return self.warn_at(at, format!("channel.path = \"{shown}\": {why}; it is served from then on"));
            }
            Err(_) if kind != "unix-listen" => {
                return self
                    .warn_at(at, format!("channel.path = \"{shown}\" is not there; it is served when it comes"));
            }
            Err(_) => {
                if !path.parent().is_some_and(Path::is_dir) {
                    self.warn_at(at, format!("channel.path = \"{shown}\": its folder is not there; make it"));
                }
                return;
            }
        };
        let is_socket = found.file_type().is_socket();
        let fits = if kind == "tty" { found.file_type().is_char_device() } else { is_socket };
        if !fits {
            let wanted = if kind == "tty" { "a character device" } else { "a socket" };
            self.error_at(at, format!("channel.path = \"{shown}\" is not {wanted}, as kind \"{kind}\" needs"));
        }
    }
}
