//! Text in and out: templates and the facts in them, the two streams out, cutting what came in. Not here: what is said
//! (see `texts`).

use crate::system::{Errno, Stream, System};
use crate::texts::Text;

/// What the places in a template stand for.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// `%a`; `%A`: in quotes, without anything that a terminal or a log would take for a command.
    pub(crate) a: &'a [u8],
    /// `%b`, `%B`: likewise.
    pub(crate) b: &'a [u8],
    /// `%1`
    pub(crate) one: Text,
    /// `%2`
    pub(crate) two: Text,
    /// `%l`: an option's letter, after a hyphen; nothing for 0.
    pub(crate) letter: u8,
    /// `%e`: why the kernel refused.
    pub(crate) errno: Errno,
    /// `%n`
    pub(crate) number: u32,
}

impl Facts<'_> {
    pub(crate) const NONE: Facts<'static> =
        Facts { a: b"", b: b"", one: Text::Nothing, two: Text::Nothing, letter: 0, errno: Errno(0), number: 0 };
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

    fn add(&mut self, template: &[u8], facts: &Facts<'_>) {
        let mut rest = template;
        while let [byte, after @ ..] = rest {
            rest = match (byte, after) {
                (b'%', [place, after @ ..]) => {
                    self.fill(*place, facts);
                    after
                }
                _ => {
                    self.push(&[*byte]);
                    after
                }
            };
        }
    }

    #[inline(never)]
    fn fill(&mut self, place: u8, facts: &Facts<'_>) {
        match place {
            b'a' => self.push(facts.a),
            b'A' => self.quote(facts.a),
            b'b' => self.push(facts.b),
            b'B' => self.quote(facts.b),
            b'1' => self.push(facts.one.bytes()),
            b'2' => self.push(facts.two.bytes()),
            b'l' if facts.letter == 0 => {}
            b'l' => self.push(&[b'-', facts.letter]),
            b'n' => self.number(facts.number),
            _ => match words(facts.errno) {
                Some(words) => self.push(words.bytes()),
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

    fn number(&mut self, mut number: u32) {
        // From the last digit to the first.
        let mut digits = heapless::Vec::<u8, 10>::new();
        while digits.push(b'0' + (number % 10) as u8).is_ok() && number >= 10 {
            number /= 10;
        }
        while let Some(digit) = digits.pop() {
            self.push(&[digit]);
        }
    }

    #[inline(never)]
    fn push(&mut self, bytes: &[u8]) {
        self.cut_off |= self.bytes.extend_from_slice(bytes).is_err();
    }
}

/// The kernel's reason, where it is one that a user meets.
fn words(errno: Errno) -> Option<Text> {
    const WORDS: [(u8, Text); 16] = [
        (2, Text::NoSuchFile),
        (5, Text::InputOutput),
        (6, Text::NoDevice),
        (7, Text::TooLong),
        (9, Text::Closed),
        (11, Text::Busy),
        (13, Text::NoPermission),
        (16, Text::Busy),
        (21, Text::Folder),
        (22, Text::NoPortAtAll),
        (25, Text::NoPortAtAll),
        (32, Text::NoReader),
        (36, Text::BadPath),
        (91, Text::NoPortAtAll),
        (110, Text::TimeUp),
        (111, Text::NobodyListens),
    ];
    WORDS.iter().find(|(number, _)| i32::from(*number) == errno.0).map(|&(_, words)| words)
}

/// Says one sentence on standard error. Where nobody can hear it, that is so.
pub(crate) fn say<S: System>(system: &S, template: Text, facts: &Facts<'_>) {
    let mut line = Buffer::new();
    line.push(b"fence_wire: ");
    line.add(template.bytes(), facts);
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
        self.buffer.add(template.bytes(), facts);
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

/// Whether `given` is `word`, whatever the case.
#[inline(never)]
pub(crate) fn is_word(given: &[u8], word: &[u8]) -> bool {
    given.len() == word.len() && given.iter().zip(word).all(|(a, b)| a.eq_ignore_ascii_case(b))
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
    use crate::stand_in::StandIn;

    fn filled(template: &str, facts: Facts<'_>) -> String {
        let mut buffer = Buffer::new();
        buffer.add(template.as_bytes(), &facts);
        String::from_utf8(buffer.bytes.to_vec()).unwrap()
    }

    #[test]
    fn templates_are_filled() {
        let facts = Facts {
            a: b"a\nb\x1b[0m",
            b: b"vm1",
            one: Text::Auto,
            two: Text::Classic,
            letter: b'o',
            errno: Errno(9999),
            number: u32::MAX,
        };
        assert_eq!(filled("%A: %B, %b; %1%2", facts), "'a?b?[0m': 'vm1', vm1; autoclassic");
        assert_eq!(filled("%a%l %n (%e)", facts), "a\nb\x1b[0m-o 4294967295 (error 9999)");
        assert_eq!(filled("%l%n%1", Facts::NONE), "0");
        assert_eq!(filled("%e, 100%", Facts { errno: Errno::NOENT, ..Facts::NONE }), "no such file, 100%");
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
        assert!(is_word(b"OfF", b"off") && is_word(b"", b""));
        assert!(!is_word(b"of", b"off") && !is_word(b"off ", b"off") && !is_word(b"o\xc6f", b"off"));
    }
}
