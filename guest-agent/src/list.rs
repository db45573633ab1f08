//! A list's lines, as Pacemaker can read them.
//!
//! Pacemaker splits a list at white space, commas and semicolons, takes every token for a guest that it may fence by
//! that word, and drops lines with certain words in them. So a name goes out only where it stays one token and its
//! line stays; else the UUID stands in its place.

use crate::system::System;
use crate::text::{Facts, Output};
use crate::texts::Text;
use fencewire_core::Power;
use fencewire_core::classic::serial::Entry;

/// Writes an entry's line: `name,uuid`, and with `states` `name,uuid,on|off|unknown`. The columns stay where they are:
/// where the name will not do the UUID is in both; but in a plain list once is enough. False: the entry has neither a
/// name nor a UUID that will do, and nothing was written.
#[inline(never)]
pub(crate) fn write_line<S: System>(output: &mut Output<'_, S>, entry: &Entry, states: bool) -> bool {
    let uuid = entry.uuid.map(|uuid| uuid.text());
    let uuid = uuid.as_ref().map_or(&b""[..], |text| text);
    let name = if is_token(entry.name()) { entry.name() } else { uuid };
    let template = match entry.power {
        _ if !states && (uuid.is_empty() || name == uuid) => Text::LineOfOne,
        _ if !states => Text::Line,
        Power::On => Text::LineOn,
        Power::Off => Text::LineOff,
        Power::Unknown => Text::LineUnknown,
    };
    if !name.is_empty() {
        output.put(template, &Facts { a: name, b: uuid, ..Facts::NONE });
    }
    !name.is_empty()
}

fn is_token(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    !name.is_empty() && name.iter().all(is_plain) && !has(name, b"invalid") && !has(name, b"variable")
}

#[inline(never)]
fn has(name: &[u8], word: &[u8]) -> bool {
    (0..name.len()).any(|at| name.get(at..).is_some_and(|rest| rest.starts_with(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::StandIn;
    use fencewire_core::classic::serial::{decode_entry, encode_entry};
    use fencewire_core::{ListEntry, Uuid};

    const UUID: &str = "07070707-0707-0707-0707-070707070707";

    fn lines(name: &str, power: Power, with_uuid: bool) -> [String; 2] {
        let uuid = Uuid::from_bytes([7; 16]);
        let mut bytes = encode_entry(&ListEntry { name, uuid, power });
        if !with_uuid {
            bytes[64..128].fill(0);
        }
        let entry = decode_entry(&bytes).unwrap();
        [false, true].map(|states| {
            let system = StandIn::new();
            let mut output = Output::new(&system);
            let written = write_line(&mut output, &entry, states);
            output.finish().unwrap();
            assert_eq!(written, !system.output().is_empty());
            system.output()
        })
    }

    #[test]
    fn names_that_are_tokens() {
        for name in ["vm1", "VM-1.example_com", "1", "inva-lid", &"x".repeat(63)] {
            let [list, states] = lines(name, Power::On, true);
            assert_eq!(list, format!("{name},{UUID}\n"));
            assert_eq!(states, format!("{name},{UUID},on\n"));
        }
    }

    #[test]
    fn names_that_are_not() {
        for name in ["a b", "a,b", "a;b", "a=b", "a\tb", "büro", "vm(1)", "my-variable", "invalid", UUID] {
            let [list, states] = lines(name, Power::Off, true);
            assert_eq!(list, format!("{UUID}\n"), "{name}");
            assert_eq!(states, format!("{UUID},{UUID},off\n"), "{name}");
        }
    }

    #[test]
    fn an_entry_without_a_uuid_has_its_name_or_nothing() {
        assert_eq!(lines("vm1", Power::On, false), ["vm1\n", "vm1,,on\n"]);
        assert_eq!(lines("a b", Power::On, false), ["", ""]);
    }

    #[test]
    fn an_unknown_state_is_said() {
        let mut bytes = encode_entry(&ListEntry { name: "vm1", uuid: Uuid::from_bytes([7; 16]), power: Power::On });
        bytes[128] = 3;
        let system = StandIn::new();
        let mut output = Output::new(&system);
        assert!(write_line(&mut output, &decode_entry(&bytes).unwrap(), true));
        output.finish().unwrap();
        assert_eq!(system.output(), format!("vm1,{UUID},unknown\n"));
    }
}
