//! One run of a guest, told from the next.
//!
//! 128 random bits in the guest's live metadata: they go when the guest is off, and stay through a reset, a restart of
//! libvirtd, a migration and a save. So a guest that has another token, or none where it had one, is not the one any more
//! that it was. Domain ids are no such thing: libvirt gives them out again.
//!
//! A run is marked when it is first seen, by a thread that does nothing else: libvirt marks no guest in which something
//! hangs, and says so after half a minute.

use super::hypervisor::{Hypervisor, HypervisorError};
use crate::entropy::entropy;
use fencewire_core::Uuid;
use std::io;

pub use fencewire_core::Incarnation;

/// The namespace of the element that holds it, and its name.
pub const NAMESPACE: &str = "https://fencewire.org/ns/incarnation/1";
/// The element's prefix.
pub const PREFIX: &str = "fencewire";

/// One that never was.
pub fn new() -> io::Result<Incarnation> {
    Ok(Incarnation::from_bytes(*entropy()?.0.first_chunk().unwrap_or(&[0; 16])))
}

/// From its text.
pub fn parse(text: &str) -> Option<Incarnation> {
    let is_hex = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
    Some(Incarnation::from_bytes(number.to_be_bytes()))
}

/// The element in which the guest's metadata has it.
pub fn to_xml(incarnation: Incarnation) -> String {
    format!("<incarnation>{incarnation}</incarnation>")
}

/// From that element, as the hypervisor gives it back.
pub fn from_xml(xml: &str) -> Option<Incarnation> {
    let (_, after) = xml.split_once('>')?;
    let (text, _) = after.split_once('<')?;
    parse(text.trim())
}

/// Marks a run of a guest that has no mark yet. Blocks.
pub fn mark(hypervisor: &dyn Hypervisor, guest: Uuid) -> Result<(), HypervisorError> {
    if hypervisor.incarnation(guest)?.is_some() {
        return Ok(());
    }
    let new = new().map_err(|why| HypervisorError::Failed(why.to_string()))?;
    hypervisor.mark(guest, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written() {
        let one = new().unwrap();
        assert_ne!(one, new().unwrap());
        assert_eq!(parse(&one.to_string()), Some(one));
        assert_eq!(from_xml(&to_xml(one)), Some(one));
        let given_back =
            format!("<fencewire:incarnation xmlns:fencewire=\"{NAMESPACE}\">{one}</fencewire:incarnation>\n");
        assert_eq!(from_xml(&given_back), Some(one));
    }

    #[test]
    fn what_is_none_is_none() {
        for xml in ["", "<a/>", "<a></a>", "<a>00</a>", "<a>+0000000000000000000000000000000</a>", "a>b"] {
            assert_eq!(from_xml(xml), None, "{xml}");
        }
    }
}
