//! What the agent says of itself: the XML that Pacemaker and pcs read, and the help. Both are written from the one table
//! of options.

use crate::options::{Content, Key, OPTIONS};
use crate::order::ACTIONS;
use crate::system::System;
use crate::text::{Facts, Output, texts};
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
    for &(name, _) in &ACTIONS {
        output.put(Text::MetadataAction, &Facts { texts: texts(name, Text::Nothing), ..Facts::NONE });
    }
    output.put(Text::MetadataEnd, &Facts::NONE);
}

/// The options that are spoken of; in the metadata, those that have a name.
fn write_options<S: System>(output: &mut Output<'_, S>, template: Text) {
    for known in OPTIONS {
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
        if known.about != Text::Nothing && (known.name != Text::Nothing || template == Text::HelpOption) {
            let texts = [attributes, content, known.about, known.name];
            output.put(template, &Facts { texts, letter: known.letter, ..Facts::NONE });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::tests::spelled;
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
        assert!(
            xml.contains("<parameter name=\"port\" unique=\"0\" required=\"1\" deprecated=\"1\" obsoletes=\"domain\">")
        );
        assert!(xml.contains("<getopt mixed=\"\" />"), "domain has no letter");
        assert!(xml.contains("<action name=\"validate-all\" />\n</actions>"));
        for tag in ["<parameter ", "</parameter>", "<getopt mixed=", "<content type=", "<shortdesc lang="] {
            assert_eq!(xml.matches(tag).count(), 15, "{tag}");
        }
    }

    #[test]
    fn texts_need_no_escaping() {
        for known in OPTIONS {
            for text in [known.name, known.about].map(spelled) {
                assert!(!text.contains(['<', '>', '&', '"', '%']), "{text}");
            }
        }
    }

    #[test]
    fn no_letter_and_no_name_stands_for_two() {
        for (nth, known) in OPTIONS.iter().enumerate() {
            for other in &OPTIONS[..nth] {
                assert!(known.letter == 0 || known.letter != other.letter, "{known:?}");
                assert!(known.name == Text::Nothing || known.name != other.name, "{known:?}");
            }
        }
        assert_eq!(OPTIONS.len(), 26);
    }

    #[test]
    fn the_help_lists_what_there_is() {
        let help = written(write_help);
        assert!(help.contains("\n-n\tplug\tName or UUID"), "{help}");
        assert!(help.contains("\n-h\t\tHelp\n"), "{help}");
        assert!(!help.contains("multicast"));
    }
}
