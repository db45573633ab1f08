//! What Debian's `fence_virtd` 4.12.1 does behind its TCP listener, and ours must not. `their_client_tcp` has what ours
//! does.

use std::time::{Duration, Instant};

use fencewire_core::classic::key::Hash;
use fencewire_tests::caller::{Terms, unsigned};
use fencewire_tests::fence_virt::by_tcp;
use fencewire_tests::fence_virtd::tcp::ByTcp;
use fencewire_tests::guest_channel::{IS_OFF, MONITOR, OFF, STATUS, SUCCESS};
use fencewire_tests::libvirt_file::Guest;
use fencewire_tests::tcp_channel::{KEY, TcpChannel};

fn guests() -> [Guest; 2] {
    ["vm1", "vm2"].map(Guest::new)
}

/// How long a caller who knows what it is about takes to be answered.
fn a_status(channel: &TcpChannel) -> Duration {
    let begun = Instant::now();
    assert_eq!(channel.ask(STATUS, "vm2"), SUCCESS);
    begun.elapsed()
}

/// Ours: at once.
#[test]
fn theirs_lets_a_silent_caller_delay_another() {
    let daemon = ByTcp::start(guests(), "sha256", "sha256");
    let alone = a_status(daemon.channel());

    let _silent = daemon.channel().call();
    let beside = a_status(daemon.channel());

    assert!(beside > Duration::from_millis(500) && alone < Duration::from_millis(100), "{alone:?}, then {beside:?}");
}

/// Ours: at once. Who holds no key can do this with a recording, as often as it likes: four of them are more than the
/// 30 s that `fence_virt` waits.
#[test]
fn theirs_lets_a_recorded_request_delay_everybody_by_ten_seconds() {
    let daemon = ByTcp::start(guests(), "sha256", "sha256");

    let mut recording = daemon.channel().call();
    recording.send(&daemon.channel().terms.packet(MONITOR, ""));
    let beside = a_status(daemon.channel());

    assert!(beside > Duration::from_secs(9), "{beside:?}");
}

/// Ours: gets the first one's answer.
#[test]
fn theirs_closes_on_a_repeated_packet() {
    let daemon = ByTcp::start(guests(), "sha256", "sha256");
    let off = daemon.channel().terms.packet(OFF, "vm2");
    assert_eq!(daemon.channel().call().ask(&off), SUCCESS);

    let mut again = daemon.channel().call();
    again.send(&off);

    again.expect_nothing();
}

/// Ours: `hash` is what requests are signed with at least.
#[test]
fn theirs_takes_a_weaker_hash_than_it_was_told_to() {
    let daemon = ByTcp::start(guests(), "sha512", "sha256");

    assert_eq!(daemon.channel().terms.hash, Hash::Sha256);
    assert_eq!(daemon.channel().ask(OFF, "vm2"), SUCCESS);

    assert_eq!(daemon.channel().ask(STATUS, "vm2"), IS_OFF);
}

/// Ours: `auth` is what challenges are answered with.
#[test]
fn theirs_answers_challenges_with_another_hash_than_it_was_told_to() {
    let daemon = ByTcp::start(guests(), "sha512", "sha512");
    let ask = |auth| {
        by_tcp(daemon.channel().address(), daemon.channel().key_file(), &["-c", "sha512", "-C", auth, "-o", "monitor"])
    };

    assert_eq!((ask("sha512").code, ask("sha256").code), (Some(1), Some(0)));
}

/// Ours: refuses to start.
#[test]
fn theirs_asks_nobody_for_a_proof_when_it_cannot_read_its_key() {
    let daemon = ByTcp::with_unreadable_key(guests(), "sha256", "sha256");
    let ask = |action| {
        let mut caller = daemon.channel().call();
        caller.send(&unsigned(action, "vm2"));
        caller.reply()
    };

    assert_eq!((ask(OFF), ask(STATUS)), (SUCCESS, IS_OFF), "off, by somebody without a key");
}

/// Ours: refuses to start.
#[test]
fn theirs_uses_the_beginning_of_a_key_that_is_too_long() {
    let key: Vec<u8> = KEY.repeat(20);
    let daemon = ByTcp::with_key(guests(), &key, "sha256", "sha256");
    let beginning = Terms::of(&key[..4096]);

    let mut caller = daemon.channel().call();
    caller.use_terms(&beginning);
    assert_eq!(caller.ask(&beginning.packet(STATUS, "vm2")), SUCCESS);
}
