//! The options there are, and what was given: on the command line, or, where that is empty, as `key=value` lines on
//! standard input. Not here: what the values mean (see `order`).

use crate::system::{Errno, System};
use crate::text::{cut, trim};
use crate::texts::Text;
use crate::trouble::Trouble;

/// What an option is about. `-n` and `-H`, `action` and `option` are spellings; where a spelling matters it has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Key {
    Plug,
    Port,
    Domain,
    Device,
    LineParams,
    Timeout,
    Delay,
    Wire,
    IpPort,
    Auth,
    Hash,
    Secret,
    ChannelAddress,
    IpAddress,
    Vsock,
    // Up to here an empty value is none.
    Debug,
    Action,
    MulticastAddress,
    IpFamily,
    Interface,
    Retransmit,
    UseUuid,
    Version,
    Help,
}

const KEYS: usize = Key::Help as usize + 1;

/// What an option's value is, in the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// On the command line it has none.
    Flag,
    Text,
    Seconds,
}

/// One spelling of an option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) key: Key,
    /// On the command line; 0: only on standard input.
    pub(crate) letter: u8,
    pub(crate) content: Content,
    /// On standard input; nothing: only on the command line.
    pub(crate) name: Text,
    /// What help and metadata say of it; nothing: they do not speak of it.
    pub(crate) about: Text,
}

macro_rules! options {
    ($($key:ident $letter:literal $content:ident $name:ident $about:ident)*) => {
        pub(crate) const OPTIONS: &[Known] = &[$(Known {
            key: Key::$key,
            letter: $letter,
            content: Content::$content,
            name: Text::$name,
            about: Text::$about,
        },)*];
    };
}

// Every option of fence_virt and fence_xvm under its letter and key, and `wire`, which is ours.
options! {
    Action b'o' Text Action AboutAction
    Plug b'n' Text Plug AboutPlug
    Port b'H' Text Port AboutPort
    Domain 0 Text Domain AboutPort
    Device b'D' Text SerialDevice AboutDevice
    LineParams b'P' Text SerialParams AboutLineParams
    IpAddress b'T' Text IpAddr AboutIpAddress
    IpPort b'p' Text IpPort AboutIpPort
    Secret b'k' Text KeyFile AboutKeyFile
    Hash b'c' Text Hash AboutHash
    Auth b'C' Text Auth AboutAuth
    Timeout b't' Seconds Timeout AboutTimeout
    Delay b'w' Seconds Delay AboutDelay
    Wire b'W' Text Wire AboutWire
    Debug b'd' Flag Debug AboutDebug
    Version b'V' Flag Nothing AboutVersion
    Help b'h' Flag Nothing AboutHelp
    Help b'?' Flag Nothing Nothing
    Action 0 Text OptionOld Nothing
    ChannelAddress b'A' Text ChannelAddress Nothing
    Vsock b'S' Text Vsock Nothing
    MulticastAddress b'a' Text MulticastAddress Nothing
    IpFamily b'i' Text IpFamily Nothing
    Interface b'I' Text Interface Nothing
    Retransmit b'r' Text Retrans Nothing
    UseUuid b'u' Flag UseUuid Nothing
}

/// An option's name; of one that has none, nothing.
#[inline(never)]
pub(crate) fn name(key: Key) -> Text {
    OPTIONS.iter().find(|known| known.key == key).map_or(Text::Nothing, |known| known.name)
}

/// What the options came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    CommandLine,
    /// On standard input were no lines but comments.
    Nothing,
    /// Lines, all of them `key=value`.
    Lines,
    /// Lines, not all of them `key=value`.
    Garbage,
}

/// The last value that was given of each option.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    /// One of each key at most.
    values: heapless::Vec<(Key, &'a [u8]), KEYS>,
    pub(crate) source: Source,
}

/// Bytes of standard input, and one more, at most. Pacemaker's are a few hundred.
pub(crate) const INPUT_MAX: usize = 8192;

/// All of standard input, in `room`.
pub(crate) fn read_input<'a, S: System>(system: &S, room: &'a mut [u8; INPUT_MAX]) -> Result<&'a [u8], Errno> {
    let mut have = 0;
    while let Some(free) = room.get_mut(have..) {
        if free.is_empty() {
            return Err(Errno::TOOBIG);
        }
        match system.read_input(free) {
            Ok(0) => break,
            Ok(read) => have += read as usize,
            Err(errno) => return Err(errno),
        }
    }
    Ok(room.get(..have).unwrap_or_default())
}

impl<'a> Given<'a> {
    pub(crate) const fn new() -> Given<'a> {
        Given { values: heapless::Vec::new(), source: Source::CommandLine }
    }

    /// Each option that was given, once, with its last value.
    pub(crate) fn all(&self) -> &[(Key, &'a [u8])] {
        &self.values
    }

    /// The last value; empty where there is none.
    pub(crate) fn text(&self, key: Key) -> &'a [u8] {
        self.last(key).unwrap_or_default()
    }

    /// The last value, which may be empty; none where the option was not given.
    #[inline(never)]
    pub(crate) fn last(&self, key: Key) -> Option<&'a [u8]> {
        self.values.iter().find(|(given, _)| *given == key).map(|&(_, value)| value)
    }

    #[inline(never)]
    fn set(&mut self, key: Key, value: &'a [u8]) {
        match self.values.iter_mut().find(|(given, _)| *given == key) {
            Some((_, last)) => *last = value,
            None => _ = self.values.push((key, value)),
        }
    }

    /// From the command line, as getopt reads it: `-o off`, `-ooff`, `-dooff`, `--` at the end. `first` has been taken
    /// from `arguments` already.
    pub(crate) fn read_arguments(
        &mut self,
        first: &'a [u8],
        arguments: &mut dyn FnMut() -> Option<&'a [u8]>,
    ) -> Result<(), Trouble<'a>> {
        let mut ended = false;
        let mut next = Some(first);
        while let Some(argument) = next {
            let mut letters = match argument {
                [b'-', letters @ ..] if !ended && !letters.is_empty() => letters,
                _ => return Err(Trouble::about(Text::Operand, argument)),
            };
            if letters == b"-" {
                ended = true;
                letters = b"";
            }
            while let [letter, after @ ..] = letters {
                letters = after;
                let Some(known) = OPTIONS.iter().find(|known| known.letter == *letter && *letter != 0) else {
                    return Err(Trouble::about(Text::NoOption, core::slice::from_ref(letter)));
                };
                let mut value: &[u8] = b"";
                if known.content != Content::Flag {
                    value = match core::mem::take(&mut letters) {
                        [] => arguments().ok_or(Trouble::about(Text::NoValue, core::slice::from_ref(letter)))?,
                        attached => attached,
                    };
                }
                self.set(known.key, value);
            }
            next = arguments();
        }
        Ok(())
    }

    /// From `key=value` lines in any order. Comments and unknown keys are ignored; so is a line that is no
    /// `key=value`, but it is noted, and no action is then taken for granted.
    pub(crate) fn read_lines(&mut self, input: &'a [u8]) {
        self.source = Source::Nothing;
        let mut rest = Some(input);
        while let Some(text) = rest {
            let (line, after) = cut(text, b'\n');
            rest = after;
            let (name, value) = cut(trim(line), b'=');
            let name = trim(name);
            match value {
                _ if name.starts_with(b"#") => {}
                None if name.is_empty() => {}
                Some(value) if name.iter().all(u8::is_ascii_graphic) => {
                    if self.source == Source::Nothing {
                        self.source = Source::Lines;
                    }
                    let known = OPTIONS.iter().find(|known| known.name.is(name) && !name.is_empty());
                    if let Some(known) = known {
                        self.set(known.key, trim(value));
                    }
                }
                _ => self.source = Source::Garbage,
            }
        }
        // Without an action it would be a reboot. But perhaps the action was in a line that could not be read.
        if self.source == Source::Garbage && self.last(Key::Action).is_none() {
            self.values.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::StandIn;

    fn arguments<'a>(list: &[&'a str]) -> Result<Given<'a>, Trouble<'a>> {
        let mut given = Given::new();
        let mut rest = list.iter().map(|argument| argument.as_bytes());
        given.read_arguments(rest.next().unwrap(), &mut || rest.next())?;
        Ok(given)
    }

    fn lines(input: &[u8]) -> Given<'_> {
        let mut given = Given::new();
        given.read_lines(input);
        given
    }

    #[test]
    fn letters_and_values_together_and_apart() {
        for list in [
            &["-o", "status", "-n", "vm2", "-d", "-d"][..],
            &["-ostatus", "-nvm2", "-dd"],
            &["-ddostatus", "-nvm2", "--"],
            &["-o", "off", "-ddnvm2", "-ostatus"],
        ] {
            let given = arguments(list).unwrap();
            assert_eq!(given.last(Key::Action), Some(&b"status"[..]), "{list:?}");
            assert_eq!(given.last(Key::Plug), Some(&b"vm2"[..]), "{list:?}");
            assert!(given.last(Key::Debug).is_some() && given.source == Source::CommandLine, "{list:?}");
        }
        assert_eq!(arguments(&["-n", "-o"]).unwrap().last(Key::Plug), Some(&b"-o"[..]));
        assert!(arguments(&["-?"]).unwrap().last(Key::Help).is_some());
        assert!(arguments(&["-V"]).unwrap().last(Key::Version).is_some());
    }

    #[test]
    fn arguments_that_are_none() {
        for (list, trouble) in [
            (&["-x"][..], Trouble::about(Text::NoOption, b"x")),
            (&["-dx"], Trouble::about(Text::NoOption, b"x")),
            (&["-o"], Trouble::about(Text::NoValue, b"o")),
            (&["-do"], Trouble::about(Text::NoValue, b"o")),
            (&["status"], Trouble::about(Text::Operand, b"status")),
            (&["-"], Trouble::about(Text::Operand, b"-")),
            (&[""], Trouble::about(Text::Operand, b"")),
            (&["-d", "--", "vm2"], Trouble::about(Text::Operand, b"vm2")),
            (&["--plug", "vm2"], Trouble::about(Text::NoOption, b"-")),
            (&["-\0"], Trouble::about(Text::NoOption, b"\0")),
        ] {
            assert_eq!(arguments(list).unwrap_err(), trouble, "{list:?}");
        }
    }

    #[test]
    fn lines_in_any_order_and_shape() {
        let given = lines(
            b"# a comment=1\n\nnodename=node2\r\n port = vm 2 \nunknown=x\nPLUG=a=b\noption=off\naction=Status\nserial_device=/dev/x",
        );
        assert_eq!(given.last(Key::Port), Some(&b"vm 2"[..]));
        assert_eq!(given.last(Key::Plug), Some(&b"a=b"[..]));
        assert_eq!(given.last(Key::Action), Some(&b"Status"[..]));
        assert_eq!(given.last(Key::Device), Some(&b"/dev/x"[..]));
        assert_eq!(given.source, Source::Lines);
        assert_eq!(given.last(Key::Timeout), None);
    }

    #[test]
    fn the_last_value_wins() {
        let given = lines(b"plug=a\nplug=b\naction=off\naction=\n");
        assert_eq!(given.last(Key::Plug), Some(&b"b"[..]));
        assert_eq!(given.last(Key::Action), Some(&b""[..]));
    }

    #[test]
    fn garbage_gives_nothing_and_is_noted() {
        let given = lines(b"\x7fELF\x02\x01\n\0\0\0=\0\nhello\n=\n==\nversion=1\nhelp=1");
        assert_eq!(given.source, Source::Garbage);
        assert!(given.values.is_empty());
        for nothing in [&b""[..], b"\n\n", b" \r\n# comment", b"  # a=b"] {
            assert_eq!(lines(nothing).source, Source::Nothing);
        }
    }

    #[test]
    fn beside_garbage_nothing_counts_without_an_action() {
        for garbage in ["action", "\u{feff}action=off", "act\0ion=off", "a ction=off"] {
            let input = format!("{garbage}\nplug=vm2\n");
            let given = lines(input.as_bytes());
            assert_eq!((given.source, given.last(Key::Plug)), (Source::Garbage, None), "{garbage:?}");
            let input = format!("{input}action=status\n");
            let given = lines(input.as_bytes());
            assert_eq!((given.source, given.last(Key::Plug)), (Source::Garbage, Some(&b"vm2"[..])), "{garbage:?}");
        }
    }

    #[test]
    fn input_that_cannot_be_read() {
        let mut room = [0; INPUT_MAX];
        let mut read = |system: StandIn| read_input(&system, &mut room).map(<[u8]>::len);
        assert_eq!(read(StandIn::new().with_input(b"a=b\nc=d")), Ok(7));
        assert_eq!(read(StandIn::new().with_input(&[b'x'; INPUT_MAX - 1])), Ok(INPUT_MAX - 1));
        assert_eq!(read(StandIn::new().with_input(&[b'x'; INPUT_MAX])), Err(Errno::TOOBIG));
        assert_eq!(read(StandIn::new().with_input_error(Errno(9))), Err(Errno(9)));
        assert_eq!(read(StandIn::new().with_input_error(Errno::TIMEDOUT)), Err(Errno::TIMEDOUT));
    }
}
