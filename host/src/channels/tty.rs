//! Serial ports of this host.

use mio::unix::SourceFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{
    ControlModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios, tcflush, tcgetattr, tcsetattr,
};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

/// `params`: speed, data bits, parity and stop bits, such as "115200,8N1". There are always 8 data bits: fewer do not
/// carry a byte, and both wires are made of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TtyParams {
    baud: u32,
    parity: Parity,
    stop_bits: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parity {
    None,
    Even,
    Odd,
}

impl Default for TtyParams {
    fn default() -> Self {
        TtyParams { baud: 115_200, parity: Parity::None, stop_bits: 1 }
    }
}

/// Why a text is no [`TtyParams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadParams {
    /// It is not of that form.
    Form,
    /// It has so many data bits.
    DataBits(u8),
}

impl fmt::Display for BadParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadParams::Form => f.write_str(
                "must be like \"115200,8N1\": speed, then 8 data bits, parity (N, E or O) and stop bits (1 or 2)",
            ),
            BadParams::DataBits(bits) => write!(
                f,
                "{bits} data bits carry no whole byte. Our own wire cannot work there, and fence-virt's would take a name for \
                 another guest's, and lose its lists. Set 8 here and at the other end, as in \"115200,8N1\" or \"9600,8E1\""
            ),
        }
    }
}

impl TtyParams {
    /// Reads the text.
    pub fn parse(text: &str) -> Result<TtyParams, BadParams> {
        let (baud, frame) = text.split_once(',').ok_or(BadParams::Form)?;
        let baud = baud.trim().parse().ok().filter(|baud| (50..=4_000_000).contains(baud)).ok_or(BadParams::Form)?;
        let [data, parity, stop] = frame.trim().as_bytes() else {
            return Err(BadParams::Form);
        };
        let parity = match parity.to_ascii_uppercase() {
            b'N' => Parity::None,
            b'E' => Parity::Even,
            b'O' => Parity::Odd,
            _ => return Err(BadParams::Form),
        };
        let stop_bits = match stop {
            b'1' => 1,
            b'2' => 2,
            _ => return Err(BadParams::Form),
        };
        match data {
            b'8' => Ok(TtyParams { baud, parity, stop_bits }),
            b'5'..=b'7' => Err(BadParams::DataBits(data - b'0')),
            _ => Err(BadParams::Form),
        }
    }

    fn apply(self, termios: &mut Termios) -> io::Result<()> {
        termios.make_raw();
        let modes = &mut termios.control_modes;
        modes.remove(ControlModes::CSIZE | ControlModes::PARENB | ControlModes::PARODD);
        modes.remove(ControlModes::CSTOPB | ControlModes::CRTSCTS | ControlModes::HUPCL);
        modes.insert(ControlModes::CS8);
        match self.parity {
            Parity::None => {}
            Parity::Even => modes.insert(ControlModes::PARENB),
            Parity::Odd => modes.insert(ControlModes::PARENB | ControlModes::PARODD),
        }
        if self.stop_bits == 2 {
            modes.insert(ControlModes::CSTOPB);
        }
        // CLOCAL: a carrier that comes and goes must neither block us nor hang us up.
        modes.insert(ControlModes::CREAD | ControlModes::CLOCAL);
        termios.special_codes[SpecialCodeIndex::VMIN] = 1;
        termios.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios.set_speed(self.baud)?;
        Ok(())
    }
}

/// An open serial port.
#[derive(Debug)]
pub struct Tty {
    file: File,
    fd: RawFd,
}

impl Tty {
    /// Opens a serial port, sets it to raw mode at `params`, and drops what waits in it.
    pub fn open(path: &Path, params: TtyParams) -> io::Result<Tty> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let mut termios = tcgetattr(&file).map_err(|why| match why {
            Errno::NOTTY => io::Error::new(io::ErrorKind::Unsupported, "what is there is not a serial port"),
            why => why.into(),
        })?;
        params.apply(&mut termios)?;
        tcsetattr(&file, OptionalActions::Now, &termios)?;
        tcflush(&file, QueueSelector::IOFlush)?;
        Ok(Tty { fd: file.as_raw_fd(), file })
    }

    pub(super) fn source(&self) -> SourceFd<'_> {
        SourceFd(&self.fd)
    }
}

impl Read for Tty {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Write for Tty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_good_and_bad() {
        assert_eq!(TtyParams::parse("115200,8N1"), Ok(TtyParams::default()));
        let odd = TtyParams { baud: 9600, parity: Parity::Odd, stop_bits: 2 };
        assert_eq!(TtyParams::parse("9600,8o2"), Ok(odd));
        for bad in ["", "115200", "115200,", "115200,9N1", "115200,8X1", "115200,8N3", "1,8N1", "fast,8N1", "9600,8N1x"]
        {
            assert_eq!(TtyParams::parse(bad), Err(BadParams::Form), "{bad}");
        }
        for (bad, bits) in [("115200,7N1", 7), ("9600,7E1", 7), ("9600,7O2", 7), ("9600,6N1", 6), ("9600,5E2", 5)] {
            assert_eq!(TtyParams::parse(bad), Err(BadParams::DataBits(bits)), "{bad}");
        }
    }
}
