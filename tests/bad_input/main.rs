//! Bad input of every kind: each gets a clear answer or a line in the log that names the file, the key or the frame; each
//! changes nothing; and each leaves every other channel working.
//!
//! | module | what is bad |
//! |---|---|
//! | `configuration` | the file, a key, a value, a path, a guest |
//! | `command_line` | the arguments of `fencewired` |
//! | `frames` | bytes on a channel that are no frame, half of one, or one that says nothing |
//! | `names` | names of guests |
//! | `peers` | who asks and does not read, or asks too much at once |
//! | `callers` | who calls a TCP port and stops, dribbles, says nonsense, or too much |
//! | `recordings` | who calls a TCP port with what it has heard of others, and no key |
//! | `tcp_configuration` | a TCP port's keys in the configuration, its key file, its address |
//! | `agent` | what `fence_wire` is given |
//! | `tcp_peers` | who answers `fence_wire` by TCP |

mod agent;
mod callers;
mod command_line;
mod configuration;
mod frames;
mod names;
mod peers;
mod recordings;
mod tcp_configuration;
mod tcp_peers;

use std::collections::BTreeMap;

use fencewire_tests::daemon::{Daemon, Setup, ask, states};
use fencewire_tests::guest_channel::{GuestChannel, IS_OFF, STATUS};
use fencewire_tests::libvirt_file::{Guest, State};
use fencewire_tests::tcp_channel::TcpChannel;

/// A daemon whose guests are one that is on ("running"), one that is off ("stopped"), those whose channels are misused,
/// and a witness with a channel of its own, all in one group.
struct Bed {
    daemon: Daemon,
    witness: GuestChannel,
    before: BTreeMap<String, u8>,
}

impl Bed {
    /// With channels for these guests.
    #[track_caller]
    fn start(misused: impl IntoIterator<Item = Guest>) -> Self {
        Self::of(Daemon::setup().served(misused))
    }

    /// With whatever else a daemon serves.
    #[track_caller]
    fn of(setup: Setup) -> Self {
        let targets = [Guest::new("running"), Guest::new("stopped").state(State::Shutoff)];
        let mut daemon = setup.known(targets).served([Guest::new("witness")]).start();
        let mut witness = daemon.channel("witness");
        let before = states(&mut witness);
        Self { daemon, witness, before }
    }

    /// With a TCP port.
    #[track_caller]
    fn with_tcp() -> (Self, TcpChannel) {
        let bed = Self::of(Daemon::setup().tcp("everybody", ""));
        let channel = bed.daemon.tcp(0).clone();
        (bed, channel)
    }

    /// With a channel for one guest, which is returned.
    #[track_caller]
    fn with_one() -> (Self, GuestChannel) {
        let mut bed = Self::start([Guest::new("misused")]);
        let channel = bed.daemon.channel("misused");
        (bed, channel)
    }

    /// Says that the witness is served, and that every byte sent before on any other channel was read: one thread reads
    /// them all, what came first first, up to 4096 bytes of each channel in a turn.
    #[track_caller]
    fn others_are_served(&mut self) {
        assert_eq!(ask(&mut self.witness, STATUS, "stopped"), IS_OFF, "the witness");
    }

    /// Says that the witness is served, no guest is in another state than before, and nothing was begun.
    #[track_caller]
    fn nothing_was_done(mut self) {
        self.others_are_served();
        assert_eq!(states(&mut self.witness), self.before);
        self.daemon.stop_and_expect_no_act();
    }
}

/// Says that this channel is served, and that no reply to anything before is on its way.
#[track_caller]
fn is_served(channel: &mut GuestChannel) {
    assert_eq!(ask(channel, STATUS, "stopped"), IS_OFF);
}
