//! The texts as the program has them: packed by the build script (see `pack`). What undoes it is in `text`.

include!(concat!(env!("OUT_DIR"), "/packed.rs"));

#[cfg(test)]
pub(crate) mod tests {
    use super::{PAIRS, TABLE};
    use crate::pack::{Packed, marked, pack};
    use crate::texts::{self, Text};

    /// A text as it was written.
    pub(crate) fn spelled(text: Text) -> &'static str {
        texts::TABLE.split('\0').nth(text as usize).unwrap()
    }

    fn unpacked(byte: u8, pairs: &[[u8; 2]]) -> Vec<u8> {
        match byte.checked_sub(0x80) {
            None => vec![byte],
            Some(number) => pairs[usize::from(number)].iter().flat_map(|part| unpacked(*part, pairs)).collect(),
        }
    }

    fn is_whole(written: &str, packed: &Packed) {
        assert_eq!(packed.pairs.len(), 128);
        assert!(packed.table.is_empty() || packed.table.ends_with(&[0]));
        let unpacked: Vec<u8> = packed.table.iter().flat_map(|byte| unpacked(*byte, &packed.pairs)).collect();
        assert_eq!(unpacked, written.split_inclusive('\0').flat_map(marked).collect::<Vec<u8>>());
    }

    #[test]
    fn nothing_is_lost() {
        for written in ["", "\0", "a\0", "aaaaa\0aaaa\0", "ab\0\0cab\0%a%A%e\0%a%A%e\0", texts::TABLE] {
            is_whole(written, &pack(written));
        }
        is_whole(texts::TABLE, &Packed { table: TABLE.to_vec(), pairs: PAIRS.to_vec() });
    }

    #[test]
    fn it_is_worth_it() {
        let size = TABLE.len() + PAIRS.len() * 2;
        assert!(size * 10 < texts::TABLE.len() * 7, "{size} bytes for {}", texts::TABLE.len());
    }

    #[test]
    fn each_number_has_its_text() {
        assert_eq!(spelled(Text::Nothing), "");
        assert_eq!(spelled(Text::ValidateAll), "validate-all");
        assert_eq!(texts::TABLE.matches('\0').count(), Text::Second as usize + 1);
    }
}
