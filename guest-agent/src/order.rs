//! What was given, checked: what to do. Every option that this version cannot serve is refused here, before anything is
//! touched.

use crate::options::{Given, Key, Source};
use crate::system::{LineParams, Parity};
use crate::tcp::{Tcp, set_hash};
use crate::text::cut;
use crate::texts::Text;
use crate::trouble::Trouble;
use fencewire_core::{Ask, BadName, Millis, PowerAction, Target};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Help,
    Version,
    Metadata,
    /// See whether the options are right and the channel is there; ask nobody.
    Validate,
    Power(PowerAction),
    Status,
    Monitor,
    List,
    /// [`Job::List`], and whether each guest runs.
    ListStatus,
}

/// The actions and their names.
pub(crate) static ACTIONS: [(Text, Job); 9] = [
    (Text::Off, Job::Power(PowerAction::Off)),
    (Text::On, Job::Power(PowerAction::On)),
    (Text::Reboot, Job::Power(PowerAction::Reboot)),
    (Text::Status, Job::Status),
    (Text::Monitor, Job::Monitor),
    (Text::List, Job::List),
    (Text::ListStatus, Job::ListStatus),
    (Text::Metadata, Job::Metadata),
    (Text::ValidateAll, Job::Validate),
];

/// What to do, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order<'a> {
    pub(crate) job: Job,
    /// As it was given; empty where the job has none.
    pub(crate) guest: &'a [u8],
    /// A device, a socket or an address. None: look for the virtio port.
    pub(crate) device: Option<&'a [u8]>,
    /// It is an address, and the rest of the way there is in `tcp`.
    pub(crate) by_tcp: bool,
    pub(crate) tcp: Tcp<'a>,
    pub(crate) line: LineParams,
    /// For all between the delay and the last byte of the answer.
    pub(crate) timeout: Millis,
    /// Before anything is switched; nothing else waits. It is there for guests that fence each other.
    pub(crate) delay: Millis,
    pub(crate) debug: bool,
    /// Something was given of what proves who asks, and this way proves nothing.
    pub(crate) has_idle: bool,
    pub(crate) wire: Wire,
    /// A key that was named, where that need not be one for TCP.
    pub(crate) secret: Option<&'a [u8]>,
}

/// Which wire to speak, where the way leaves a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Native with a native key, else classic.
    Auto,
    /// Native, with or without a key.
    Native,
    Classic,
}

/// fence_virt's. Pacemaker's own for a fencing is 60 s.
const ACT_TIME: u32 = 30;

/// For what only asks. Pacemaker's own for a monitor is 20 s, and after it the agent is killed before it could say why.
const LOOK_TIME: u32 = 15;

/// Seconds that an option may ask for.
const SECONDS_MAX: u32 = 3600;

impl Job {
    /// Whether it switches something.
    pub(crate) const fn switches(self) -> bool {
        matches!(self, Job::Power(_))
    }

    /// Whether it is about one guest.
    #[inline(never)]
    const fn has_guest(self) -> bool {
        matches!(self, Job::Power(_) | Job::Status)
    }

    /// Its action's name.
    pub(crate) fn name(self) -> Text {
        ACTIONS.iter().find(|(_, job)| *job == self).map_or(Text::Nothing, |&(name, _)| name)
    }
}

impl<'a> Order<'a> {
    /// Before anything was given.
    pub(crate) const NEW: Order<'static> = Order {
        job: Job::Help,
        guest: b"",
        device: None,
        by_tcp: false,
        tcp: Tcp::NEW,
        line: LineParams { baud: 115_200, data_bits: 8, parity: Parity::None, two_stop_bits: false },
        timeout: seconds(LOOK_TIME),
        delay: Millis(0),
        debug: false,
        has_idle: false,
        wire: Wire::Auto,
        secret: None,
    };

    /// Checks what was given.
    #[inline(never)]
    pub(crate) fn fill_in(&mut self, given: &Given<'a>) -> Result<(), Trouble<'a>> {
        self.job = job(given)?;
        // Pacemaker asks every agent for its metadata, with no thought of the rest.
        if matches!(self.job, Job::Help | Job::Version | Job::Metadata) {
            return Ok(());
        }
        if self.job.switches() {
            self.timeout = seconds(ACT_TIME);
        }
        self.by_tcp = !given.text(Key::IpAddress).is_empty();
        let mut way = None;
        for &(key, value) in given.all() {
            // Not given, as good as. But `multicast_address=` is no less a mistake than with an address.
            if value.is_empty() && key < Key::Debug {
                continue;
            }
            let known = match key {
                Key::Device | Key::ChannelAddress | Key::IpAddress | Key::Vsock => {
                    if let Some(other) = way {
                        return Err(Trouble::two_ways(other, key));
                    }
                    way = Some(key);
                    self.device = Some(value);
                    key != Key::IpAddress || self.tcp.set_address(value).is_some()
                }
                Key::Plug | Key::Port | Key::Domain if self.job.has_guest() => {
                    // Where two differ none is taken: Pacemaker sends `plug` beside a `port` from the configuration.
                    if !self.guest.is_empty() && self.guest != value {
                        return Err(Trouble::about(Text::TwoGuests, value));
                    }
                    self.guest = value;
                    true
                }
                Key::LineParams => line(value).map(|line| self.line = line).is_some(),
                Key::Timeout => number(value, 1, SECONDS_MAX).map(|count| self.timeout = seconds(count)).is_some(),
                Key::Delay => number(value, 0, SECONDS_MAX).map(|count| self.delay = seconds(count)).is_some(),
                Key::Debug => {
                    self.debug = is_yes(value);
                    true
                }
                Key::Wire => self.set_wire(value),
                Key::IpPort => number(value, 1, 65_535).map(|port| self.tcp.port = port as u16).is_some(),
                Key::Secret if !self.by_tcp => {
                    self.secret = Some(value);
                    true
                }
                Key::Hash | Key::Auth if !self.by_tcp => {
                    self.has_idle = true;
                    true
                }
                Key::Secret => {
                    self.tcp.key_file = value;
                    true
                }
                Key::Hash => set_hash(&mut self.tcp.hash, value),
                Key::Auth => set_hash(&mut self.tcp.auth, value),
                // `use_uuid=0` asks for nothing.
                Key::UseUuid if !is_yes(value) => true,
                Key::UseUuid | Key::MulticastAddress | Key::IpFamily | Key::Interface | Key::Retransmit => {
                    return Err(Trouble::unserved(key));
                }
                _ => true,
            };
            if !known {
                return Err(Trouble::value(key, value));
            }
        }
        if !self.job.switches() {
            self.delay = Millis(0);
        }
        match way {
            None | Some(Key::Device | Key::IpAddress) => {}
            Some(key) => return Err(Trouble::unserved(key)),
        }
        // A request that anybody can forge, or an answer that anybody can.
        if self.by_tcp && self.tcp.hash.is_some() != self.tcp.auth.is_some() {
            let key = if self.tcp.hash.is_none() { Key::Hash } else { Key::Auth };
            return Err(Trouble::value(key, given.text(key)));
        }
        if self.job.has_guest() && self.guest.is_empty() {
            let sentence = match given.source {
                Source::Nothing => Text::NothingGiven,
                Source::Garbage => Text::Garbage,
                Source::CommandLine | Source::Lines => Text::NoGuest,
            };
            return Err(Trouble::about(sentence, b""));
        }
        Ok(())
    }

    /// By TCP the bridge answers fence-virt's wire alone.
    fn set_wire(&mut self, word: &[u8]) -> bool {
        self.wire = if Text::Native.is(word) && !self.by_tcp {
            Wire::Native
        } else if Text::Classic.is(word) {
            Wire::Classic
        } else if Text::Auto.is(word) {
            Wire::Auto
        } else {
            return false;
        };
        true
    }

    /// What to ask the bridge.
    pub(crate) fn ask(&self) -> Result<Ask, BadName> {
        if !self.job.has_guest() {
            return Ok(if self.job == Job::Monitor { Ask::Monitor } else { Ask::List });
        }
        let target = Target::parse(self.guest)?;
        Ok(match self.job {
            Job::Power(action) => Ask::Power(action, target),
            _ => Ask::Status(target),
        })
    }
}

#[inline(never)]
const fn seconds(count: u32) -> Millis {
    Millis(count as u64 * 1000)
}

fn job<'a>(given: &Given<'a>) -> Result<Job, Trouble<'a>> {
    for (key, job) in [(Key::Help, Job::Help), (Key::Version, Job::Version)] {
        if given.last(key).is_some() {
            return Ok(job);
        }
    }
    // Given, but empty: whoever wrote that did not mean to reboot anything.
    let word = given.last(Key::Action).unwrap_or(b"reboot");
    let named = ACTIONS.iter().find(|(name, _)| name.is(word));
    named.map(|&(_, job)| job).ok_or(Trouble::value(Key::Action, word))
}

/// Whatever is not a no.
fn is_yes(value: &[u8]) -> bool {
    ![Text::Zero, Text::No, Text::False, Text::Off].iter().any(|&no| no.is(value))
}

/// A number within these bounds.
#[inline(never)]
pub(crate) fn number(text: &[u8], low: u32, high: u32) -> Option<u32> {
    decimal(text).filter(|number| (low..=high).contains(number))
}

/// Up to 9 decimal digits and nothing else.
fn decimal(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    let mut number = 0u32;
    for &byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        // 9 digits do not overflow.
        number = number.wrapping_mul(10).wrapping_add(u32::from(byte - b'0'));
    }
    Some(number)
}

/// `115200,8N1`, or the bit rate alone.
#[inline(never)]
fn line(params: &[u8]) -> Option<LineParams> {
    let (baud, frame) = cut(params, b',');
    let baud = number(baud, 50, 4_000_000)?;
    let &[data_bits @ b'5'..=b'8', parity, stop_bits @ b'1'..=b'2'] = frame.unwrap_or(b"8N1") else {
        return None;
    };
    let parity = match parity & !0x20 {
        b'N' => Parity::None,
        b'E' => Parity::Even,
        b'O' => Parity::Odd,
        _ => return None,
    };
    Some(LineParams { baud, data_bits: data_bits - b'0', parity, two_stop_bits: stop_bits == b'2' })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::tests::spelled;
    use crate::stand_in::StandIn;

    /// The order, or the sentence.
    fn orders(lines: &str) -> Result<Order<'_>, String> {
        let mut given = Given::new();
        given.read_lines(lines.as_bytes());
        let mut order = Order::NEW;
        order.fill_in(&given).map_err(|trouble| {
            let system = StandIn::new();
            trouble.tell(&system);
            system.error()
        })?;
        Ok(order)
    }

    fn order(lines: &str) -> Order<'_> {
        orders(lines).unwrap()
    }

    /// Why `lines` are no order; `part` is in the sentence.
    #[track_caller]
    fn refused(lines: &str, part: &str) {
        let sentence = orders(lines).unwrap_err();
        assert!(sentence.contains(part), "{lines}: {sentence}");
    }

    fn job(lines: &str) -> (Job, &[u8]) {
        let order = order(lines);
        (order.job, order.guest)
    }

    const LINE: LineParams = Order::NEW.line;

    const REBOOT: Job = Job::Power(PowerAction::Reboot);

    #[test]
    fn every_action_in_any_case() {
        for (action, job) in ACTIONS {
            for key in ["action", "option", "ACTION"] {
                let action = spelled(action);
                for action in [action.to_ascii_lowercase(), action.to_ascii_uppercase()] {
                    assert_eq!(order(&format!("plug=vm2\n{key}={action}")).job, job);
                }
            }
        }
        assert_eq!(job("plug=vm2"), (REBOOT, &b"vm2"[..]));
    }

    #[test]
    fn actions_that_are_none() {
        for action in ["", "null", "offf", "of", "list_status", "off on"] {
            refused(&format!("plug=vm2\naction={action}"), &format!("action is '{action}': give an action"));
        }
    }

    #[test]
    fn the_guest_goes_by_three_names() {
        for lines in ["plug=vm2", "port=vm2", "domain=vm2", "port=vm2\nplug=vm2", "plug=\nport=vm2"] {
            assert_eq!(job(lines), (REBOOT, &b"vm2"[..]), "{lines}");
        }
        let uuid = "B33F94F9-8a30-4e83-9165-fd8681ee13cf";
        let lines = format!("action=status\nplug={uuid}");
        let target = Target::parse(uuid.as_bytes()).unwrap();
        assert_eq!(orders(&lines).unwrap().ask(), Ok(Ask::Status(target)));
    }

    #[test]
    fn guests_that_are_none() {
        refused("plug=vm2\nport=vm3", "a second guest is named, 'vm3'");
        refused("domain=vm2\nplug=vm3", "a second guest is named, 'vm3'");
        refused("", "nothing on standard input");
        refused("x", "not all lines are key=value");
        refused("action=status\nplug=", "no guest is named");
        refused("plug=\u{fffd}\nport=b", "a second guest");
        assert_eq!({ Order::NEW }.fill_in(&Given::new()), Err(Trouble::about(Text::NoGuest, b"")));
    }

    #[test]
    fn who_asks_nothing_of_a_guest_names_none_and_may_name_any() {
        for action in ["monitor", "list", "list-status", "metadata", "validate-all"] {
            for guest in ["", "port=node1\nplug=vm2\n"] {
                assert!(orders(&format!("{guest}action={action}")).is_ok(), "{action} {guest}");
            }
        }
    }

    #[test]
    fn numbers_and_their_bounds() {
        let times = |lines| {
            let order = order(lines);
            (order.timeout.0, order.delay.0)
        };
        assert_eq!(times("plug=a"), (30_000, 0));
        assert_eq!(times("action=monitor"), (15_000, 0));
        assert_eq!(times("plug=a\ntimeout=1\ndelay=0"), (1_000, 0));
        assert_eq!(times("plug=a\ntimeout=3600\ndelay=3600"), (3_600_000, 3_600_000));
        assert_eq!(times("plug=a\ntimeout=\ndelay="), (30_000, 0));
        assert_eq!(times("action=monitor\ntimeout=5\ndelay=5"), (5_000, 0));
        for bad in [
            "timeout=0",
            "timeout=3601",
            "timeout=-5",
            "timeout=20s",
            "timeout=+5",
            "timeout=1.5",
            "timeout=99999999999999999999",
            "delay=3601",
            "delay=x",
            "ipport=0",
            "ipport=65536",
        ] {
            let (name, value) = bad.split_once('=').unwrap();
            refused(&format!("plug=a\n{bad}"), &format!("{name} is '{value}': give "));
        }
    }

    #[test]
    fn serial_parameters() {
        let line = |params: &str| order(&format!("plug=a\nserial_params={params}")).line;
        assert_eq!(line(""), LINE);
        assert_eq!(line("115200,8N1"), LINE);
        assert_eq!(line("9600"), LineParams { baud: 9600, ..LINE });
        assert_eq!(
            line("9600,7e2"),
            LineParams { baud: 9600, data_bits: 7, parity: Parity::Even, two_stop_bits: true }
        );
        assert_eq!(line("9600,5O1").parity, Parity::Odd);
        for bad in [
            "0",
            "49",
            "4000001",
            "115200,",
            "115200, 8N1",
            "115200,8N",
            "115200,9N1",
            "115200,4N1",
            "115200,8X1",
            "115200,8N3",
            "x",
        ] {
            refused(&format!("plug=a\nserial_params={bad}"), &format!("serial_params is '{bad}'"));
        }
    }

    #[test]
    fn what_is_not_served_is_refused_with_what_to_use() {
        for (lines, part) in [
            ("multicast_address=225.0.0.12", "multicast"),
            ("ip_family=auto", "multicast"),
            ("retrans=20", "multicast"),
            ("use_uuid=1", "UUID"),
            ("channel_address=10.0.2.179", "serial_device"),
            ("vsock=2", "serial_device"),
            ("vsock=2\nserial_device=/dev/x", "serial_device and vsock"),
            ("vsock=2\nipaddr=::1", "ipaddr and vsock"),
            ("ipaddr=::1\nserial_device=/dev/x", "serial_device and ipaddr"),
            ("ipaddr=::1\nchannel_address=10.0.2.179", "channel_address and ipaddr"),
            ("ipaddr=localhost", "no name: there is no resolver here"),
            ("wire=native\nipaddr=::1", "by TCP not native"),
            ("wire=morse", "'morse'"),
        ] {
            for action in ["reboot", "monitor", "validate-all"] {
                refused(&format!("plug=a\naction={action}\n{lines}"), part);
            }
        }
        for served in [
            "use_uuid=0",
            "vsock=",
            "ipaddr=",
            "wire=auto",
            "wire=native",
            "wire=Classic",
            "auth=none\nhash=sha1\nkey_file=/x\nipport=1229",
        ] {
            assert!(orders(&format!("plug=a\n{served}")).is_ok(), "{served}");
        }
    }

    #[test]
    fn debug_in_its_spellings() {
        for (value, on) in
            [("1", true), ("", true), ("yes", true), ("ON", true), ("7", true), ("0", false), ("off", false)]
        {
            assert_eq!(order(&format!("plug=a\ndebug={value}")).debug, on, "{value}");
        }
    }

    #[test]
    fn help_and_metadata_come_before_what_is_wrong() {
        let job = |list: &[&'static str]| {
            let mut given = Given::new();
            let mut arguments = list.iter().map(|argument| argument.as_bytes());
            given.read_arguments(arguments.next().unwrap(), &mut || arguments.next()).unwrap();
            let mut order = Order::NEW;
            order.fill_in(&given).unwrap();
            order.job
        };
        assert_eq!(job(&["-o", "none", "-h"]), Job::Help);
        assert_eq!(job(&["-V", "-T", "::1"]), Job::Version);
        assert_eq!(job(&["-o", "metadata", "-t", "x"]), Job::Metadata);
    }
}
