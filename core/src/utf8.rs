//! UTF-8, one character after the other. The standard library's own check is quicker with long texts, and five times as
//! large, which the guest agent would feel.

/// The character that `text` begins with, and what follows it; none where that is not UTF-8.
#[inline(never)]
pub(crate) fn first_character(text: &[u8]) -> Option<(char, &[u8])> {
    let (&lead, mut rest) = text.split_first()?;
    let length = match lead.leading_ones() {
        0 => 1,
        length @ 2..=4 => length,
        _ => return None,
    };
    let mut number = u32::from(lead & (0xff >> length));
    for _ in 1..length {
        let (&next, after) = rest.split_first()?;
        if next & 0xc0 != 0x80 {
            return None;
        }
        number = number << 6 | u32::from(next & 0x3f);
        rest = after;
    }
    // A character has one spelling only: the shortest.
    let character = char::from_u32(number).filter(|character| character.len_utf8() == length as usize)?;
    Some((character, rest))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::String;

    /// Every two bytes; and up to four of those at which UTF-8 changes.
    #[test]
    fn utf_8_is_what_the_standard_library_takes_for_it() {
        let takes_it = |bytes: &[u8]| {
            let mut rest = bytes;
            let mut characters = String::new();
            while let Some((character, after)) = first_character(rest) {
                characters.push(character);
                rest = after;
            }
            let theirs = core::str::from_utf8(bytes).ok();
            assert_eq!(rest.is_empty().then_some(characters.as_str()), theirs, "{bytes:x?}");
        };
        for (one, two) in (0..=u8::MAX).flat_map(|one| (0..=u8::MAX).map(move |two| (one, two))) {
            takes_it(&[one, two]);
        }
        let edges = [
            0x00, 0x1f, 0x20, 0x7e, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec,
            0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf7, 0xf8, 0xff,
        ];
        for one in edges {
            for two in edges {
                for three in edges {
                    takes_it(&[one, two, three]);
                    for four in edges {
                        takes_it(&[one, two, three, four]);
                    }
                }
            }
        }
    }
}
