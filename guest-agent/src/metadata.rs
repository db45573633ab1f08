//! What the agent says of itself: the XML that Pacemaker and pcs read, and the help. Both are written from the one table
//! of options.

use crate::options::{Content, Key, find_option};
use crate::order::ACTIONS;
use crate::system::System;
use crate::text::{Facts, Output};
use crate::texts::Text;

/// The agent's version.
const VERSION: &str = concat!("fence_wire ", env!("CARGO_PKG_VERSION"));

/// The version.
#[inline(never)]
pub(crate) fn write_version<S: System>(output: &mut Output<'_, S>) {
    output.put(Text::LineOfOne, &Facts { a: VERSION.as_bytes(), ..Facts::NONE });
}

/// The help.
pub(crate) fn write_help<S: System>(output: &mut Output<'_, S>) {
    write_version(output);
    write_options(output, Text::HelpOption);
    output.put(Text::HelpEnd, &Facts::NONE);
}

/// The metadata, valid by fence-agents' metadata.rng.
pub(crate) fn write_metadata<S: System>(output: &mut Output<'_, S>) {
    output.put(Text::MetadataBegin, &Facts::NONE);
    write_options(output, Text::MetadataParameter);
    output.put(Text::MetadataActions, &Facts::NONE);
    for (name, _) in ACTIONS {
        output.put(Text::MetadataAction, &Facts { one: name, ..Facts::NONE });
    }
    output.put(Text::MetadataEnd, &Facts::NONE);
}

/// The options that are spoken of; in the metadata, those that have a name.
fn write_options<S: System>(output: &mut Output<'_, S>, template: Text) {
    find_option(&mut |known, name, about| {
        let attributes = match known.key {
            Key::Plug => Text::RequiredPlug,
            Key::Port => Text::RequiredPort,
            Key::Domain => Text::Deprecated,
            _ => Text::Zero,
        };
        let content = match known.content {
            Content::Flag => Text::Boolean,
            Content::Text => Text::String,
            Content::Seconds => Text::Second,
        };
        if !about.is_empty() && (!name.is_empty() || template == Text::HelpOption) {
            let facts = Facts { a: name, b: about, one: attributes, two: content, letter: known.letter, ..Facts::NONE };
            output.put(template, &facts);
        }
        false
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::StandIn;

    fn written(write: impl Fn(&mut Output<'_, StandIn>)) -> String {
        let system = StandIn::new();
        let mut output = Output::new(&system);
        write(&mut output);
        output.finish().unwrap();
        system.output()
    }

    #[test]
    fn plug_obsoletes_port_and_every_parameter_has_what_the_schema_wants() {
        let xml = written(write_metadata);
        assert!(xml.contains(
            "<parameter name=\"plug\" unique=\"0\" required=\"1\" obsoletes=\"port\">\n<getopt mixed=\"-n\" />\n\
             <content type=\"string\" />\n<shortdesc lang=\"en\">"
        ));
        assert!(xml.contains("<parameter name=\"port\" unique=\"0\" required=\"1\" deprecated=\"1\">"));
        assert!(xml.contains("<getopt mixed=\"\" />"), "domain has no letter");
        assert!(xml.contains("<action name=\"validate-all\" />\n</actions>"));
        for tag in ["<parameter ", "</parameter>", "<getopt mixed=", "<content type=", "<shortdesc lang="] {
            assert_eq!(xml.matches(tag).count(), 14, "{tag}");
        }
    }

    #[test]
    fn texts_need_no_escaping() {
        find_option(&mut |_, name, about| {
            for text in [name, about].map(|text| str::from_utf8(text).unwrap()) {
                assert!(!text.contains(['<', '>', '&', '"', '%']), "{text}");
            }
            false
        });
    }

    #[test]
    fn no_letter_and_no_name_stands_for_two() {
        let mut before: Vec<(u8, &[u8])> = vec![];
        find_option(&mut |known, name, _| {
            for &(letter, other) in &before {
                assert!(known.letter == 0 || known.letter != letter, "{known:?}");
                assert!(name.is_empty() || name != other, "{known:?}");
            }
            before.push((known.letter, name));
            false
        });
        assert_eq!(before.len(), 26);
        assert_eq!(before.last(), Some(&(b'u', &b"use_uuid"[..])));
    }

    #[test]
    fn the_help_lists_what_there_is() {
        let help = written(write_help);
        assert!(help.contains("\n-n\tplug\tName or UUID"), "{help}");
        assert!(help.contains("\n-h\t\tHelp\n"), "{help}");
        assert!(!help.contains("multicast"));
    }
}
