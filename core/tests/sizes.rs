//! How much memory the ends take: numbers that are in `docs/protocol.md` too. Fewer bytes are welcome; more need a reason.

use fencewire_core::{Client, Listener};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

#[test]
#[cfg(target_pointer_width = "64")]
fn the_ends_take_no_more_than_the_document_says() {
    let pinned = [("Client", size_of::<Client>(), 1_024), ("Listener", size_of::<Listener>(), 2_048)];
    for (name, size, aim) in pinned {
        let row = format!("| {name} | {size} | {aim} |");
        assert!(DOCUMENT.contains(&row), "the document does not say {row:?}");
        assert!(size <= aim, "{name}: over its aim");
    }
}
