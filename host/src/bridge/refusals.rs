//! Bytes for which nothing was done: what is said of them in the log, and what their sender's owner can do.

use super::Bridge;
use fencewire_core::classic::key::WeakHash;
use fencewire_core::classic::packet::Unproved;
use fencewire_core::{Millis, Refusal};

impl Bridge {
    pub(super) fn refused(&mut self, token: usize, refusal: Refusal, now: Millis) {
        let Some(connection) = self.connections.get(&token) else { return };
        let from = connection.from.map(tracing::field::display);
        let channel = &mut self.channels[connection.channel];
        if !channel.may_log_refusal(now) {
            return;
        }
        let (channel, guest) = (&channel.name, channel.spec.guest().map(tracing::field::display));
        match refusal {
            Refusal::Noise(bytes) => tracing::warn!(channel, guest, bytes, "bytes that belong to no frame"),
            Refusal::Torn(bytes) => tracing::warn!(channel, guest, bytes, "a frame stopped before its end"),
            Refusal::Malformed(why) => {
                tracing::warn!(channel, guest, from, %why, "a frame that says nothing: answered with \"failed\"");
            }
            Refusal::NotProved => {
                let why = "its sender has another key or session, or sends a recording";
                tracing::warn!(channel, guest, why, "a frame that proves nothing");
            }
            Refusal::OtherWire => {
                let why = "the guest was enrolled, and is answered with its key only: give its agent the key file";
                tracing::warn!(channel, guest, why, "a frame of fence-virt's wire");
            }
            Refusal::Version { min, max } => {
                tracing::warn!(channel, guest, min, max, "an agent that speaks other versions of our wire: update it");
            }
            Refusal::TooMany => tracing::warn!(channel, guest, "more requests at once than are held: one dropped"),
            Refusal::Superseded => tracing::warn!(channel, guest, "a request that nobody waits for was dropped"),
            Refusal::ReplyNotRead => tracing::warn!(channel, guest, from, "nobody read the reply: dropped"),
            Refusal::Unproved(why) => tracing::warn!(channel, from, why = unproved(why), "a caller was refused"),
            Refusal::WrongProof => {
                let why = "a good request, but its sender does not prove that it holds the key: it sends a recording, or \
                           its auth is not channel.auth";
                tracing::warn!(channel, from, why, "a caller was refused");
            }
            Refusal::Reflection => {
                let why = "it sends a challenge of this bridge's own, or of another's with the same key: somebody tries \
                           to pass for a holder of the key";
                tracing::error!(channel, from, why, "a caller was refused");
            }
            Refusal::TooSlow => {
                tracing::warn!(channel, from, why = "it stopped before its proof", "a caller was refused");
            }
        }
    }
}

/// What it means that a packet proves nothing, and what to do.
fn unproved(why: Unproved) -> &'static str {
    match why {
        Unproved::WeakHash(WeakHash::None) => "it signs nothing: give its agent the key file, and -c sha256",
        Unproved::WeakHash(WeakHash::Sha1) => "it signs with SHA-1, which can be forged: give its agent -c sha256",
        Unproved::WeakHash(WeakHash::Unknown(_)) => "it signs with a hash that nobody knows",
        Unproved::BelowMinimum(_) => "it signs with a weaker hash than channel.hash",
        Unproved::Signature => "it has another key",
        Unproved::Signed(_) => {
            "it signs, and this channel has no key to check that with: give its agent -c none -C none"
        }
        Unproved::Malformed(_) => "it says nothing",
    }
}
