//! Text in and out: templates and the facts in them, the two streams out, cutting what came in. Not here: what is said
//! (see `texts`).

use crate::packed::{PAIRS, TABLE};
use crate::system::{Errno, Stream, System};
use crate::texts::Text;

/// What the places in a template stand for. In the packed table each is one byte, from 0x10 on in this order.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// `%a`; `%A`: in quotes, without anything that a terminal or a log would take for a command.
    pub(crate) a: &'a [u8],
    /// `%b`, `%B`: likewise.
    pub(crate) b: &'a [u8],
    /// `%1` to `%4`
    pub(crate) texts: [Text; 4],
    /// `%l`: an option's letter, after a hyphen; nothing for 0.
    pub(crate) letter: u8,
    /// `%n`
    pub(crate) number: u32,
    /// `%e`: why the kernel refused.
    pub(crate) errno: Errno,
}

impl Facts<'_> {
    pub(crate) const NONE: Facts<'static> =
        Facts { a: b"", b: b"", texts: [Text::Nothing; 4], letter: 0, number: 0, errno: Errno(0) };
}

/// Texts for the first places.
pub(crate) const fn texts(one: Text, two: Text) -> [Text; 4] {
    [one, two, Text::Nothing, Text::Nothing]
}

/// Bytes of a line, or of what is gathered before it is written, at most.
const BUFFER_MAX: usize = 1024;

/// Bytes of something quoted at most.
const QUOTED_MAX: usize = 128;

/// Text in the making.
struct Buffer {
    bytes: heapless::Vec<u8, BUFFER_MAX>,
    cut_off: bool,
}

impl Buffer {
    #[inline(never)]
    const fn new() -> Buffer {
        Buffer { bytes: heapless::Vec::new(), cut_off: false }
    }

    /// Adds a text.
    #[inline(never)]
    fn add(&mut self, text: Text, facts: &Facts<'_>) {
        let mut before = text as u8;
        for &byte in &TABLE {
            match (byte, before) {
                (0, 0) => break,
                (0, _) => before = before.wrapping_sub(1),
                (_, 0) => self.unpack(byte, facts),
                _ => {}
            }
        }
    }

    /// Adds what a byte of the table stands for.
    fn unpack(&mut self, byte: u8, facts: &Facts<'_>) {
        match byte {
            // Two bytes, and each may be two in turn.
            0x80.. => {
                let [first, second] = PAIRS[usize::from(byte & 0x7f)];
                self.unpack(first, facts);
                self.unpack(second, facts);
            }
            0x10..=0x1f => self.fill(byte, facts),
            _ => self.push(&[byte]),
        }
    }

    fn fill(&mut self, place: u8, facts: &Facts<'_>) {
        match place {
            0x10 => self.push(facts.a),
            0x11 => self.quote(facts.a),
            0x12 => self.push(facts.b),
            0x13 => self.quote(facts.b),
            0x14..=0x17 => self.add(facts.texts[usize::from(place & 3)], facts),
            0x18 if facts.letter == 0 => {}
            0x18 => self.push(&[b'-', facts.letter]),
            0x19 => self.number(facts.number),
            _ => match words(facts.errno) {
                Some(words) => self.add(words, facts),
                None => {
                    self.push(b"error ");
                    self.number(facts.errno.0.unsigned_abs());
                }
            },
        }
    }

    fn quote(&mut self, bytes: &[u8]) {
        self.push(b"'");
        for &byte in bytes.iter().take(QUOTED_MAX) {
            self.push(&[if byte < b' ' || byte == 0x7f { b'?' } else { byte }]);
        }
        self.push(if bytes.len() > QUOTED_MAX { b"...'" } else { b"'" });
    }

    #[inline(never)]
    fn number(&mut self, number: u32) {
        if number >= 10 {
            self.number(number / 10);
        }
        self.push(&[b'0' + (number % 10) as u8]);
    }

    #[inline(never)]
    fn push(&mut self, bytes: &[u8]) {
        self.cut_off |= self.bytes.extend_from_slice(bytes).is_err();
    }
}

/// The kernel's reason, where it is one that a user meets.
fn words(errno: Errno) -> Option<Text> {
    const WORDS: [(u8, Text); 21] = [
        (2, Text::NoSuchFile),
        (5, Text::InputOutput),
        (6, Text::NoDevice),
        (7, Text::TooLong),
        (9, Text::Closed),
        (11, Text::Busy),
        (13, Text::NoPermission),
        (16, Text::Busy),
        (21, Text::Folder),
        (22, Text::NotValid),
        (25, Text::NoPortAtAll),
        (32, Text::NoReader),
        (36, Text::BadPath),
        (61, Text::Empty),
        (91, Text::NoPortAtAll),
        (101, Text::Unreachable),
        (104, Text::Reset),
        (110, Text::TimeUp),
        (111, Text::NobodyListens),
        (113, Text::Unreachable),
        (129, Text::NativeKey),
    ];
    WORDS.iter().find(|(number, _)| i32::from(*number) == errno.0).map(|&(_, words)| words)
}

impl Text {
    /// Whether `given` is this word, whatever the case.
    #[inline(never)]
    pub(crate) fn is(self, given: &[u8]) -> bool {
        let mut word = Buffer::new();
        word.add(self, &Facts::NONE);
        // `eq_ignore_ascii_case` of the two would take four times the code.
        let mut pairs = given.iter().zip(&word.bytes);
        given.len() == word.bytes.len() && pairs.all(|(a, b)| a.eq_ignore_ascii_case(b))
    }

    /// Writes it to standard output. Where nobody reads it, that is so.
    pub(crate) fn write<S: System>(self, system: &S) {
        let mut line = Buffer::new();
        line.add(self, &Facts::NONE);
        let _ = system.write(Stream::Output, &line.bytes);
    }
}

/// Says one sentence on standard error. Where nobody can hear it, that is so.
pub(crate) fn say<S: System>(system: &S, template: Text, facts: &Facts<'_>) {
    let mut line = Buffer::new();
    line.push(b"fence_wire: ");
    line.add(template, facts);
    line.push(b"\n");
    let _ = system.write(Stream::Error, &line.bytes);
}

/// Standard output. What is put into it is there for certain only after [`finish`](Self::finish), which also says
/// whether all of it is.
pub(crate) struct Output<'s, S> {
    system: &'s S,
    buffer: Buffer,
    failed: Option<Errno>,
}

impl<'s, S: System> Output<'s, S> {
    pub(crate) const fn new(system: &'s S) -> Output<'s, S> {
        Output { system, buffer: Buffer::new(), failed: None }
    }

    /// Half of [`BUFFER_MAX`] at most.
    pub(crate) fn put(&mut self, template: Text, facts: &Facts<'_>) {
        self.buffer.add(template, facts);
        if self.buffer.bytes.len() > BUFFER_MAX / 2 {
            self.flush();
        }
    }

    /// Writes what is not written yet.
    pub(crate) fn finish(&mut self) -> Result<(), Errno> {
        self.flush();
        self.failed.map_or(Ok(()), Err)
    }

    fn flush(&mut self) {
        // Nothing after something that could not be written, or that is not whole.
        if self.failed.is_none() {
            self.failed = if self.buffer.cut_off {
                Some(Errno::TOOBIG)
            } else {
                self.system.write(Stream::Output, &self.buffer.bytes).err()
            };
        }
        self.buffer.bytes.clear();
    }
}

/// `text` without blanks around it.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// What is before the first `at` and what is after it; none after it: there is no `at`.
#[inline(never)]
pub(crate) fn cut(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        if *byte == at {
            let before = text.len() - rest.len();
            return (text.get(..before).unwrap_or_default(), Some(after));
        }
        rest = after;
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::marked;
    use crate::stand_in::StandIn;

    fn filled(template: &str, facts: Facts<'_>) -> String {
        let mut buffer = Buffer::new();
        for byte in marked(template) {
            buffer.unpack(byte, &facts);
        }
        String::from_utf8(buffer.bytes.to_vec()).unwrap()
    }

    #[test]
    fn templates_are_filled() {
        let facts = Facts {
            a: b"a\nb\x1b[0m",
            b: b"vm1",
            texts: texts(Text::Auto, Text::Classic),
            letter: b'o',
            errno: Errno(9999),
            number: u32::MAX,
        };
        assert_eq!(filled("%A: %B, %b; %1%2", facts), "'a?b?[0m': 'vm1', vm1; autoclassic");
        assert_eq!(filled("%a%l %n (%e)", facts), "a\nb\x1b[0m-o 4294967295 (error 9999)");
        assert_eq!(filled("%l%n%1", Facts::NONE), "0");
        assert_eq!(filled("%e, twice", Facts { errno: Errno::NOENT, ..Facts::NONE }), "no such file, twice");
        assert_eq!(filled("%n", Facts { number: 1090, ..Facts::NONE }), "1090");
    }

    #[test]
    fn what_is_quoted_has_bounds() {
        assert!(filled("%A", Facts { a: &[b'x'; 5000], ..Facts::NONE }).len() < 150);
    }

    #[test]
    fn output_comes_out_in_order() {
        let system = StandIn::new();
        let mut output = Output::new(&system);
        let mut expected = String::new();
        for size in [1, 500, 30, 170, 512, 512, 7] {
            let piece = size.to_string().repeat(size / 3 + 1);
            output.put(Text::LineOfOne, &Facts { a: piece.as_bytes(), ..Facts::NONE });
            expected += &piece;
            expected += "\n";
        }
        output.finish().unwrap();
        assert_eq!(system.output(), expected);
    }

    #[test]
    fn what_cannot_be_written_is_said_at_the_end() {
        for room in [0, 1, 513, 3000] {
            let system = StandIn::new().with_output_room(room);
            let mut output = Output::new(&system);
            for _ in 0..31 {
                output.put(Text::LineOfOne, &Facts { a: &[b'x'; 100], ..Facts::NONE });
            }
            assert_eq!(output.finish(), Err(Errno(32)));
        }
    }

    #[test]
    fn what_does_not_fit_does_not_look_whole() {
        let system = StandIn::new();
        let mut output = Output::new(&system);
        output.put(Text::LineOfOne, &Facts { a: &[b'x'; BUFFER_MAX + 1], ..Facts::NONE });
        assert_eq!(output.finish(), Err(Errno::TOOBIG));
        assert_eq!(system.output(), "");
    }

    #[test]
    fn cuts() {
        assert_eq!(cut(b"a=b=c", b'='), (&b"a"[..], Some(&b"b=c"[..])));
        assert_eq!(cut(b"a=", b'='), (&b"a"[..], Some(&b""[..])));
        assert_eq!(cut(b"=", b'='), (&b""[..], Some(&b""[..])));
        assert_eq!(cut(b"a", b'='), (&b"a"[..], None));
        assert_eq!(cut(b"", b'='), (&b""[..], None));
    }

    #[test]
    fn words_in_any_case() {
        assert!(Text::Off.is(b"OfF") && Text::Nothing.is(b"") && Text::ListStatus.is(b"list-status"));
        assert!(!Text::Off.is(b"of") && !Text::Off.is(b"off ") && !Text::Off.is(b"o\xc6f"));
    }
}
