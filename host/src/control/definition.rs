//! libvirt behind [`Definition`], and which guest on which hypervisor is meant.

use super::attach::{Definition, Side};
use crate::guests::Member;
use std::fmt;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

/// A guest on one hypervisor.
pub struct Domains {
    uri: String,
    name: String,
    uuid: String,
    domain: Domain,
    /// The guests of some drivers live in it.
    _connect: Connect,
}

impl Domains {
    /// Who is meant, on each of these hypervisors that has it; or a sentence that says why that cannot be told. All of them
    /// have to answer: one that does not may have another guest of that name.
    pub fn find(uris: &[&str], guest: &Member) -> Result<Vec<Domains>, String> {
        // Errors are returned by each call; without this, libvirt prints them to standard error as well.
        virt::error::clear_error_callback();
        let mut found: Vec<Domains> = Vec::new();
        for uri in uris {
            let silent = |why: &Error| {
                format!(
                    "{uri} does not say who {:?} is ({}): see that libvirt runs and that this user may talk to it. \
                     Nothing was changed",
                    guest.to_string(),
                    why.message()
                )
            };
            let connect = Connect::open(Some(uri)).map_err(|why| silent(&why))?;
            let domain = match guest {
                Member::Name(name) => connect.lookup_domain_by_name(name),
                Member::Uuid(uuid) => connect.lookup_domain_by_uuid_string(&uuid.to_string()),
            };
            let domain = match domain {
                Ok(domain) => domain,
                Err(why) if why.code() == virt::enumutil::Enum::Known(ErrorNumber::NoDomain) => continue,
                Err(why) => return Err(silent(&why)),
            };
            let name = domain.name().map_err(|why| silent(&why))?;
            let uuid = domain.uuid_string().map_err(|why| silent(&why))?;
            found.push(Domains { uri: (*uri).to_owned(), name, uuid, domain, _connect: connect });
        }
        match &found[..] {
            [] => {
                Err(format!("no hypervisor knows a guest {:?}: see virsh list --all --uuid --name", guest.to_string()))
            }
            [first, others @ ..] if others.iter().any(|other| other.uuid != first.uuid) => {
                Err(format!("more than one guest bears the name {:?}: give its UUID", guest.to_string()))
            }
            _ => Ok(found),
        }
    }
}

/// As `name (UUID), hypervisor`.
impl fmt::Display for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) on {}", self.name, self.uuid, self.uri)
    }
}

impl fmt::Debug for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Domains").field(&self.to_string()).finish()
    }
}

impl Definition for Domains {
    fn is_active(&self) -> Result<bool, String> {
        self.domain.is_active().map_err(words)
    }

    fn is_persistent(&self) -> Result<bool, String> {
        self.domain.is_persistent().map_err(words)
    }

    fn xml(&self, side: Side) -> Result<String, String> {
        let flags = match side {
            Side::Live => 0,
            Side::Persistent => sys::VIR_DOMAIN_XML_INACTIVE,
        };
        self.domain.xml_desc(flags).map_err(words)
    }

    fn attach(&self, device: &str, sides: &[Side]) -> Result<(), String> {
        let flags = sides.iter().fold(0, |flags, side| flags | flag(*side));
        self.domain.attach_device_flags(device, flags).map_err(words)
    }

    fn detach(&self, device: &str, side: Side) -> Result<(), String> {
        self.domain.detach_device_flags(device, flag(side)).map_err(words)
    }
}

const fn flag(side: Side) -> u32 {
    match side {
        Side::Live => sys::VIR_DOMAIN_AFFECT_LIVE,
        Side::Persistent => sys::VIR_DOMAIN_AFFECT_CONFIG,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn words(why: Error) -> String {
    why.message().to_owned()
}
