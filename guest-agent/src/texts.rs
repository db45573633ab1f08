//! Every text that the agent says, in one table.
//!
//! A text is named by its number, one byte: the address and length of a string would take sixteen, wherever it is used,
//! and the whole program is to stay within a few pages.

use crate::text::cut;

macro_rules! texts {
    ($($name:ident = $text:literal)*) => {
        /// A text, by its number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Text {
            $($name,)*
        }

        /// One after the other, each ended by a NUL.
        const TABLE: &str = concat!($($text, "\0",)*);
    };
}

// What stands for something else is said at `Facts`.
texts! {
    Nothing = ""

    // Actions.
    Off = "off"
    On = "on"
    Reboot = "reboot"
    Status = "status"
    Monitor = "monitor"
    List = "list"
    ListStatus = "list-status"
    Metadata = "metadata"
    ValidateAll = "validate-all"

    // Values of options, and lists' lines.
    Auto = "auto"
    Classic = "classic"
    Zero = "0"
    No = "no"
    False = "false"
    Line = "%a,%b\n"
    LineOfOne = "%a\n"
    LineOn = "%a,%b,on\n"
    LineOff = "%a,%b,off\n"
    LineUnknown = "%a,%b,unknown\n"
    StatusOn = "Status: ON\n"
    StatusOff = "Status: OFF\n"

    // What is wrong with the command line and standard input.
    NoOption = "no option has the letter %A: see fence_wire -h"
    NoValue = "option %A needs a value: see fence_wire -h"
    Operand = "%A belongs to no option: see fence_wire -h"
    Input = "standard input cannot be read (%e): give key=value lines there, or options"
    NothingGiven = "no options, and nothing on standard input: see fence_wire -h"
    NoGuest = "no guest is named: give plug (-n)"
    NoGuestInGarbage = "no guest is named, and not all lines are key=value: give plug"
    TwoGuests = "a second guest is named, %A: give one, in plug (or in pcmk_host_map)"
    BadName = "%A %1: use the guest's UUID"
    NameEmpty = "is no name"
    NameTooLong = "is longer than 63 bytes"
    NameNotUtf8 = "is not UTF-8"
    NameControl = "has a control character in it"
    NameMagic = "has abba in it, which this wire cannot carry"
    Value = "%b is %A: give %1"
    GiveAction = "an action, as fence_wire -h lists them"
    GiveLineParams = "bit rate, data bits, parity and stop bits, as in 115200,8N1"
    GiveTimeout = "1 to 3600 seconds"
    GiveDelay = "0 to 3600 seconds"
    GivePort = "1 to 65535"
    GiveWire = "auto or classic (native is not in this version)"
    Unserved = "%b is not served: %1"
    UseDevice = "not in this version, use serial_device (-D)"
    UuidHasShape = "a UUID is known by its shape, leave it out"
    NoMulticast = "multicast needs a network, leave it out"
    TwoWays = "%a and %b are two ways to the host: give one"

    // What is wrong with the channel.
    NoPort = "there is no virtio port org.fencewire.fence.0: add it, or give serial_device (-D)"
    NeverQuiet = "%A never falls silent: see what else talks there"
    Nobody = "nobody has the host's end of %A: start the bridge there"
    Channel = "%A cannot be used (%e): %1"
    StartBridge = "start the bridge on the host"
    InUse = "see what else has it open"
    NameChannel = "name a serial port, a virtio port or a unix socket"

    // What is wrong with the answer.
    Failed = "the bridge failed to %1: read its log"
    FailedOf = "the bridge did not confirm %1 of %A: take nothing for done, and read its log"
    Denied = "the bridge does not allow this guest to %1: see its configuration"
    DeniedOf = "the bridge does not allow this guest %1 of %A: see its configuration"
    Unknown = "the bridge cannot tell the status of %A: read its log"
    NotAsked = "%B took no request (%e), so nothing was done: see that the bridge runs"
    PerhapsDone = "no answer through %B (%e): %1 of %A may have happened or may still happen, so ask for its status; does the bridge run?"
    NoAnswer = "no whole answer through %B (%e): see that the bridge runs"
    Output = "standard output cannot be written (%e): what is there is not all"

    // Why the kernel refused.
    NoSuchFile = "no such file"
    InputOutput = "input/output error"
    NoDevice = "no such device"
    TooLong = "it is too long"
    Closed = "it is closed"
    Busy = "in use"
    NoPermission = "permission denied"
    Folder = "it is a folder"
    NoPortAtAll = "it is no port"
    NoReader = "its reader is gone"
    BadPath = "its path is too long"
    TimeUp = "time was up"
    NobodyListens = "nobody listens"

    // What is said without being wrong.
    Asking = "asking through %B after dropping %n bytes%1"
    NoEffect = "; key_file, auth, hash and ipport have no effect"
    LeftOut = "guest %A is left out: it has no UUID, and such a name cannot be listed"

    // Help.
    HelpOption = "%l\t%a\t%b\n"
    HelpEnd = "Or name=value lines on standard input.\nExit code: 0 done, or on; 2 off; 1 not done, or not known.\n"

    // Metadata.
    MetadataBegin = r#"<?xml version="1.0" ?>
<resource-agent name="fence_wire" shortdesc="Fence agent for virtual machines, without a network">
<longdesc>fence_wire fences a virtual machine through a virtio port, a serial port or a unix socket to the host, where fencewired or fence_virtd listens.</longdesc>
<vendor-url>https://github.com/fencewire/fencewire</vendor-url>
<parameters>
"#
    MetadataParameter = r#"<parameter name="%a" unique="0" required="%1">
<getopt mixed="%l" />
<content type="%2" />
<shortdesc lang="en">%b</shortdesc>
</parameter>
"#
    MetadataActions = "</parameters>\n<actions>\n"
    MetadataAction = "<action name=\"%1\" />\n"
    MetadataEnd = "</actions>\n</resource-agent>\n"
    RequiredPlug = "1\" obsoletes=\"port"
    RequiredPort = "1\" deprecated=\"1"
    Deprecated = "0\" deprecated=\"1"
    Boolean = "boolean"
    String = "string"
    Second = "second"
}

impl Text {
    /// The text.
    pub(crate) fn bytes(self) -> &'static [u8] {
        let mut rest = TABLE.as_bytes();
        for _ in 0..self as u8 {
            rest = cut(rest, 0).1.unwrap_or_default();
        }
        cut(rest, 0).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_its_text() {
        assert_eq!(Text::Nothing.bytes(), b"");
        assert_eq!(Text::ValidateAll.bytes(), b"validate-all");
        assert_eq!(Text::Second.bytes(), b"second");
        assert_eq!(TABLE.matches('\0').count(), Text::Second as usize + 1);
    }
}
