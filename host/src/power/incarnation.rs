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
use std::fmt;
use std::io;

/// The token of one run of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation([u8; 16]);

/// The namespace of the element that holds it, and its name.
pub const NAMESPACE: &str = "https://fencewire.org/ns/incarnation/1";
/// The element's prefix.
pub const PREFIX: &str = "fencewire";

impl Incarnation {
    /// One that never was.
    pub fn new() -> io::Result<Incarnation> {
        Ok(Incarnation(*entropy()?.0.first_chunk().unwrap_or(&[0; 16])))
    }

    /// From its text.
    pub fn parse(text: &str) -> Option<Incarnation> {
        let is_hex = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
        Some(Incarnation(number.to_be_bytes()))
    }

    /// The element in which the guest's metadata has it.
    pub fn to_xml(self) -> String {
        format!("<incarnation>{self}</incarnation>")
    }

    /// From that element, as the hypervisor gives it back.
    pub fn from_xml(xml: &str) -> Option<Incarnation> {
        let (_, after) = xml.split_once('>')?;
        let (text, _) = after.split_once('<')?;
        Incarnation::parse(text.trim())
    }
}

/// Marks a run of a guest that has no mark yet. Blocks.
pub fn mark(hypervisor: &dyn Hypervisor, guest: Uuid) -> Result<(), HypervisorError> {
    if hypervisor.incarnation(guest)?.is_some() {
        return Ok(());
    }
    let new = Incarnation::new().map_err(|why| HypervisorError::Failed(why.to_string()))?;
    hypervisor.mark(guest, new)
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written() {
        let one = Incarnation::new().unwrap();
        assert_ne!(one, Incarnation::new().unwrap());
        assert_eq!(Incarnation::parse(&one.to_string()), Some(one));
        assert_eq!(Incarnation::from_xml(&one.to_xml()), Some(one));
        let given_back =
            format!("<fencewire:incarnation xmlns:fencewire=\"{NAMESPACE}\">{one}</fencewire:incarnation>\n");
        assert_eq!(Incarnation::from_xml(&given_back), Some(one));
    }

    #[test]
    fn what_is_none_is_none() {
        for xml in ["", "<a/>", "<a></a>", "<a>00</a>", "<a>+0000000000000000000000000000000</a>", "a>b"] {
            assert_eq!(Incarnation::from_xml(xml), None, "{xml}");
        }
    }
}
