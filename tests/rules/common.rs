//! What the rules' tests share.

use fencewire_tests::bridge_bed::BridgeBed;
use fencewire_tests::guest_channel::{GuestChannel, REQUEST_LENGTH, STATUS, SUCCESS, fresh_seqno, request};
use fencewire_tests::scripted::{Call, ScriptedHypervisor};

pub(crate) use fencewire_tests::daemon::ask;

/// A hypervisor that gives up on a power action after a second and a half: short, so that a test which waits for that is
/// soon over, and long enough for everything that does work on a busy machine.
pub(crate) const IMPATIENT: &str = "deadline_ms = 1500";

/// A fresh request.
pub(crate) fn frame(action: u8, target: &str) -> [u8; REQUEST_LENGTH] {
    request(action, target.as_bytes(), fresh_seqno())
}

/// Three running guests.
pub(crate) fn three() -> ScriptedHypervisor {
    ScriptedHypervisor::with(["vm1", "vm2", "vm3"])
}

/// A bridge for them, and the channel of the first.
#[track_caller]
pub(crate) fn bed(hypervisor: &ScriptedHypervisor) -> (BridgeBed, GuestChannel) {
    let bed = BridgeBed::start(hypervisor);
    hypervisor.wait_marked();
    let channel = bed.channel("vm1");
    (bed, channel)
}

/// The same with a hypervisor that is [`IMPATIENT`].
#[track_caller]
pub(crate) fn impatient_bed(hypervisor: &ScriptedHypervisor) -> (BridgeBed, GuestChannel) {
    let bed = BridgeBed::setup(hypervisor).hypervisor(IMPATIENT).start();
    hypervisor.wait_marked();
    let channel = bed.channel("vm1");
    (bed, channel)
}

/// Says that nothing was done to any guest, once the bridge has dealt with all that went before on this channel.
#[track_caller]
pub(crate) fn expect_nothing_done(hypervisor: &ScriptedHypervisor, channel: &mut GuestChannel, target: &str) {
    assert_eq!(ask(channel, STATUS, target), SUCCESS, "{target} runs, and the bridge says so");
    for call in [Call::Destroy, Call::Start, Call::AbortJob, Call::RemoveSaved] {
        assert_eq!(hypervisor.count_all(call), 0, "{call:?}");
    }
}
