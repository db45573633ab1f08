//! Every text that the agent says, in one table. The build script reads it too, and packs it (see `pack`).
//!
//! A text is named by its number, one byte: the address and length of a string would take sixteen, wherever it is used,
//! and the whole program is to stay within a few pages.

macro_rules! texts {
    ($($name:ident = $text:literal)*) => {
        /// A text, by its number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Text {
            $($name,)*
        }

        /// One after the other, each ended by a NUL.
        #[allow(dead_code, reason = "for the build script")]
        pub(crate) const TABLE: &str = concat!($($text, "\0",)*);
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

    // Values of options, and the words for a state.
    Auto = "auto"
    Native = "native"
    Classic = "classic"
    Sha256 = "sha256"
    Sha512 = "sha512"
    None = "none"
    Zero = "0"
    No = "no"
    False = "false"
    StatusOn = "Status: ON\n"
    StatusOff = "Status: OFF\n"

    // Lists' lines.
    Line = "%a,%b\n"
    LineOfOne = "%a\n"
    LineOn = "%a,%b,on\n"
    LineOff = "%a,%b,off\n"
    LineUnknown = "%a,%b,unknown\n"

    // Options.
    Action = "action"
    Plug = "plug"
    Port = "port"
    Domain = "domain"
    SerialDevice = "serial_device"
    SerialParams = "serial_params"
    Timeout = "timeout"
    Delay = "delay"
    Wire = "wire"
    KeyFile = "key_file"
    Auth = "auth"
    Hash = "hash"
    IpPort = "ipport"
    Debug = "debug"
    OptionOld = "option"
    ChannelAddress = "channel_address"
    IpAddr = "ipaddr"
    Vsock = "vsock"
    MulticastAddress = "multicast_address"
    IpFamily = "ip_family"
    Interface = "interface"
    Retrans = "retrans"
    UseUuid = "use_uuid"

    // What is wrong with the command line and standard input.
    NoOption = "there is no option %A: see fence_wire -h"
    NoValue = "option %A needs a value: see fence_wire -h"
    Operand = "%A belongs to no option: see fence_wire -h"
    Input = "standard input cannot be read (%e): give key=value lines there, or options"
    NothingGiven = "no options, and nothing on standard input: see fence_wire -h"
    NoGuest = "no guest is named: give plug (-n)"
    Garbage = "not all lines are key=value: give action and plug"
    TwoGuests = "a second guest is named, %A: give one, in plug (or in pcmk_host_map)"
    BadName = "%A %1: use the guest's UUID"
    NameEmpty = "is no name"
    NameTooLong = "is longer than 63 bytes"
    NameNotUtf8 = "is not UTF-8"
    NameControl = "has a control character in it"
    NameMagic = "has abba in it, which this wire cannot carry"
    Value = "%2 is %A: give %1"
    GiveAction = "an action, as fence_wire -h lists them"
    GiveLineParams = "bit rate, data bits, parity, stop bits, as in 115200,8N1"
    GiveTimeout = "1 to 3600 seconds"
    GiveDelay = "0 to 3600 seconds"
    GivePort = "1 to 65535"
    GiveWire = "auto, classic or native (by TCP not native)"
    GiveAddress = "an IPv4 or IPv6 address (no name: there is no resolver here, and fencing must not wait for DNS)"
    GiveHash = "sha256 or sha512 (sha1 can be forged), or none for both hash and auth"
    Unserved = "%2 is not served: %1"
    UseDevice = "not in this version, use serial_device (-D)"
    UuidHasShape = "a UUID is known by its shape, leave it out"
    NoMulticast = "multicast needs a network, leave it out"
    TwoWays = "%1 and %2 are two ways to the host: give one"

    // What is wrong with the channel.
    NoPort = "there is no virtio port org.fencewire.fence.0: add it, or give serial_device (-D) or ipaddr (-T)"
    NeverQuiet = "%A never falls silent: see what else talks there"
    Nobody = "nobody has the host's end of %A: start the bridge there"
    Channel = "%A cannot be used (%e): %1"
    StartBridge = "start the bridge on the host"
    InUse = "see what else has it open"
    GiveKey = "give the host's key in key_file"
    SeeBridge = "see that the bridge runs"
    SeeNetwork = "see the address and the network"
    NoEntropy = "the kernel has no random bytes yet: ask again later"
    NameChannel = "name a serial port, a virtio port or a unix socket"

    // What is wrong with the answer.
    ForGuest = " for %A"
    Failed = "the bridge failed to %1: read its log"
    FailedOf = "the bridge did not confirm %1%2: take nothing for done, and read its log"
    NotDone = "the bridge did not confirm %1%2: %4; read its log"
    Denied = "the bridge does not allow %1%2 from this guest: see its configuration"
    Unknown = "the bridge cannot tell the status of %A: read its log"
    Dropped = "%B hung up on this request: compare key_file and hash with the host's, and take nothing for done"
    NotProved = "who answers at %B does not hold the key: do not trust it, and compare key_file and auth with the host's"
    NotAsked = "%B took no request (%e), so nothing was done: %3"
    PerhapsDone = "no answer through %B (%e): %1%2 may have happened or may still happen, so ask for its status: see that the bridge runs"
    NoAnswer = "no whole answer through %B (%e): see that the bridge runs"
    Output = "standard output cannot be written (%e): what is there is not all"

    // Why the bridge did not do it: its reasons, in their order.
    NotFound = "no hypervisor knows such a guest"
    NoHypervisor = "the hypervisor does not answer, so nothing was done"
    Unconfirmed = "it may have happened or may still happen, so ask for its status"
    Expired = "time was up, so nothing was done"
    AskerFenced = "this guest is being fenced, so nothing was done"
    Elsewhere = "the guest is or was migrating, and may run elsewhere"
    NotStarted = "the guest could not be started"
    TooMany = "too much waits there, so nothing was done: ask again later"
    NotRecorded = "it could not be recorded, so nothing was done"
    Replaced = "the guest was started anew, so nothing was done"
    Ambiguous = "the guest runs on two hypervisors, so nothing was done"
    Forbidden = "the configuration has changed, so nothing was done"

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
    NotValid = "not valid"
    NoReader = "its reader is gone"
    BadPath = "its path is too long"
    TimeUp = "time was up"
    Empty = "it is empty"
    Unreachable = "unreachable"
    Reset = "it was reset"
    NativeKey = "a native key is not for this wire"
    NobodyListens = "nobody listens"

    // What is said without being wrong.
    Asking = "asking through %B after dropping %n bytes%1"
    NoEffect = "; key_file, auth or hash has no effect"
    LeftOut = "guest %A is left out: it has no UUID, and such a name cannot be listed"

    // Help and metadata, of each option.
    AboutAction = "off, on, reboot (default), status, monitor, list, list-status, metadata or validate-all"
    AboutPlug = "Name or UUID of the guest to fence"
    AboutPort = "The same (deprecated; use plug)"
    AboutDevice = "A serial port, a virtio port or a unix socket (default: the virtio port org.fencewire.fence.0)"
    AboutLineParams = "For a serial port (default: 115200,8N1)"
    AboutTimeout = "Seconds for an answer (default: 30, or 15 where nothing is switched)"
    AboutDelay = "Seconds to wait before anything is switched"
    AboutWire = "auto (default: native with a native key), classic (as fence_virt), or native"
    AboutIpAddress = "IP address of the bridge, for TCP"
    AboutIpPort = "For TCP (default: 1229)"
    AboutKeyFile = "A native key; or for TCP (default: /etc/cluster/fence_xvm.key)"
    AboutHash = "For TCP: sha256 (default), sha512 or none, for the request"
    AboutAuth = "For TCP: sha256 (default), sha512 or none, for the challenges"
    AboutDebug = "Say what happens"
    AboutVersion = "Version"
    AboutHelp = "Help"

    // Help.
    HelpOption = "%l\t%4\t%3\n"
    HelpEnd = "Or key=value lines on standard input.\nExit code: 0 done, or on; 2 off; 1 not done, or not known.\n"

    // Metadata.
    MetadataBegin = r#"<?xml version="1.0" ?>
<resource-agent name="fence_wire" shortdesc="Fence agent for virtual machines">
<longdesc>Fences through a serial port, a virtio port, a unix socket or TCP to the host, where fencewired or fence_virtd listens.</longdesc>
<vendor-url>https://github.com/fencewire/fencewire</vendor-url>
<parameters>
"#
    MetadataParameter = r#"<parameter name="%4" unique="0" required="%1">
<getopt mixed="%l" />
<content type="%2" />
<shortdesc lang="en">%3</shortdesc>
</parameter>
"#
    MetadataActions = "</parameters>\n<actions>\n"
    MetadataAction = "<action name=\"%1\" />\n"
    MetadataEnd = "</actions>\n</resource-agent>\n"
    RequiredPlug = "1\" obsoletes=\"port"
    RequiredPort = "1\" deprecated=\"1\" obsoletes=\"domain"
    Deprecated = "0\" deprecated=\"1"
    Boolean = "boolean"
    String = "string"
    Second = "second"
}
