//! Makes the table of texts smaller, when the program is built. The two bytes that stand together most often become one
//! byte that no text has, and so on until those are used up: each then stands for two, of which each may stand for two.
//! Half of the table goes, and what undoes it takes a hundred bytes. Not part of the program: the build script has it,
//! and the tests.

use std::collections::BTreeMap;

/// The places in a template: `%a` and so on. In the packed table each is one byte.
const PLACES: &[u8] = b"aAbB1234lne";

/// The first of those bytes.
const FIRST_PLACE: u8 = 0x10;

/// The first of the bytes that stand for two.
const FIRST_PAIR: u8 = 0x80;

/// The texts, packed.
pub(crate) struct Packed {
    /// Each ended by a NUL.
    pub(crate) table: Vec<u8>,
    /// What each byte from [`FIRST_PAIR`] on stands for.
    pub(crate) pairs: Vec<[u8; 2]>,
}

/// Packs a table of texts, each ended by a NUL.
pub(crate) fn pack(table: &str) -> Packed {
    let mut texts: Vec<Vec<u8>> = table.split_inclusive('\0').map(marked).collect();
    let mut pairs = vec![];
    for code in FIRST_PAIR..=u8::MAX {
        let Some(pair) = most_frequent(&texts) else {
            break;
        };
        pairs.push(pair);
        for text in &mut texts {
            *text = replaced(text, pair, code);
        }
    }
    pairs.resize(usize::from(u8::MAX - FIRST_PAIR) + 1, [0; 2]);
    Packed { table: texts.concat(), pairs }
}

/// A text with its places as single bytes.
pub(crate) fn marked(text: &str) -> Vec<u8> {
    let mut marked = vec![];
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        assert!(matches!(byte, b'\0' | b'\t' | b'\n' | b' '..=b'~'), "more than plain letters: {text:?}");
        if byte == b'%' {
            let place = bytes.next().and_then(|letter| PLACES.iter().position(|place| *place == letter));
            marked.push(FIRST_PLACE + place.unwrap_or_else(|| panic!("no such place: {text:?}")) as u8);
        } else {
            marked.push(byte);
        }
    }
    marked
}

/// Of those that are as frequent it is the same one wherever it is built. Never one with a NUL: that ends a text.
fn most_frequent(texts: &[Vec<u8>]) -> Option<[u8; 2]> {
    let mut counts = BTreeMap::<[u8; 2], u32>::new();
    for pair in texts.iter().flat_map(|text| text.windows(2)).filter(|pair| pair[1] != 0) {
        *counts.entry([pair[0], pair[1]]).or_default() += 1;
    }
    counts.into_iter().filter(|(_, count)| *count > 1).max_by_key(|(_, count)| *count).map(|(pair, _)| pair)
}

fn replaced(text: &[u8], pair: [u8; 2], code: u8) -> Vec<u8> {
    let mut out = vec![];
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        let (one, after) = rest.strip_prefix(&pair).map_or((*byte, after), |after| (code, after));
        out.push(one);
        rest = after;
    }
    out
}
