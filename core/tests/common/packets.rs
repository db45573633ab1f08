//! What the tests of the packet wire share: a key, and a caller who says each step by hand, so that it can say it wrongly.

use super::{Answering, Asking, ENTROPY, asked, off};
use fencewire_core::classic::Code;
use fencewire_core::classic::key::{Hash, Key, Tag};
use fencewire_core::classic::packet::{self, Fresh, REQUEST_LEN, RequestPacket};
use fencewire_core::{Ask, Endpoint, Entropy, Event, Listener, Millis, Request, RequestId, Signing, Speak, Trust};

pub(crate) const TIME_TO_ACT: Millis = Millis(25_000);

/// What makes a test's request another than the last, where it does not matter.
pub(crate) const FRESH: Fresh = Fresh { random: [1; 6], seqno: 7 };

/// What a caller by hand wants answered.
pub(crate) const CHALLENGE: Tag = [0xc1; 64];

pub(crate) const HASHES: [Hash; 2] = [Hash::Sha256, Hash::Sha512];

pub(crate) fn key(text: &str) -> Key {
    Key::absorb(text.as_bytes()).expect("a good key")
}

/// The key that both ends hold.
pub(crate) fn shared() -> Key {
    key("shared")
}

pub(crate) fn trust(minimum: Hash, auth: Hash) -> Trust {
    Trust::Key { key: shared(), minimum, auth }
}

pub(crate) fn entropy(byte: u8) -> Entropy {
    Entropy([byte; 64])
}

/// A request, signed with SHA-256 and the shared key.
pub(crate) fn request(ask: &Ask) -> RequestPacket {
    packet::encode_request(ask, FRESH, Hash::Sha256, &shared())
}

/// A packet with these changes, signed by somebody who holds the shared key and means them.
pub(crate) fn resigned(change: impl FnOnce(&mut RequestPacket)) -> RequestPacket {
    let mut bytes = request(&off("vm1"));
    bytes[REQUEST_LEN - 64..].fill(0);
    change(&mut bytes);
    let tag = shared().tag(Hash::Sha256, &[&bytes]);
    bytes[REQUEST_LEN - 64..].copy_from_slice(&tag);
    bytes
}

/// The shared key's answer to a challenge.
pub(crate) fn proof(challenge: &[u8], auth: Hash) -> Tag {
    shared().tag(auth, &[challenge])
}

impl Answering {
    /// A connection of the packet wire, just opened.
    pub(crate) fn of_packets(trust: Trust) -> Answering {
        let mut end = Answering { listener: Listener::of_packets(trust, TIME_TO_ACT), now: Millis(1_000_000) };
        end.listener.opened(&ENTROPY, end.now);
        end
    }

    /// With the shared key and SHA-256 throughout.
    pub(crate) fn keyed() -> Answering {
        Answering::of_packets(trust(Hash::Sha256, Hash::Sha256))
    }

    /// The caller sends its packet and a challenge, and reads. Says what it is to answer.
    pub(crate) fn challenged(&mut self, packet: &[u8]) -> Tag {
        assert_eq!(self.give(&[packet, &CHALLENGE].concat()), []);
        let said = self.read();
        assert_eq!(said.len(), 128);
        said[64..].try_into().unwrap()
    }

    /// The caller sends its packet and proves itself. Both with SHA-256.
    pub(crate) fn proved(&mut self, packet: &[u8]) -> Vec<Event> {
        let challenge = self.challenged(packet);
        self.give(&proof(&challenge, Hash::Sha256))
    }

    /// The same, and it is handed out.
    pub(crate) fn asked_for(&mut self, ask: &Ask) -> (RequestId, Request) {
        asked(self.proved(&request(ask)))
    }

    /// Another connection, with the old one's end not told.
    pub(crate) fn reopened(&mut self, entropy: &Entropy) -> Vec<Event> {
        self.listener.opened(entropy, self.now);
        self.polled()
    }

    /// No more is said, and no byte changes that.
    pub(crate) fn is_at_its_end(&mut self) {
        assert!(self.listener.is_over());
        assert!(self.listener.transmit().is_empty());
        assert_eq!(self.listener.wake_at(), None);
        assert_eq!(self.give(&[0; 1_000]), []);
        assert_eq!(self.later(100_000), []);
        assert!(self.listener.is_over());
    }
}

impl Asking {
    /// With the shared key and SHA-256 throughout; the request and the challenge are sent.
    pub(crate) fn keyed(ask: &Ask) -> Asking {
        let mut end = Asking::of_packets(signed(&shared(), Hash::Sha256, Hash::Sha256), ask, &ENTROPY);
        assert_eq!(end.written(), [&request(ask)[..], &ENTROPY.0].concat());
        end
    }

    /// The same, and both ends have proved themselves.
    pub(crate) fn proved(ask: &Ask) -> Asking {
        let mut end = Asking::keyed(ask);
        assert_eq!(end.give(&said_by_theirs(&ENTROPY)), []);
        assert_eq!(end.written(), proof(&CHALLENGE, Hash::Sha256));
        end
    }

    /// Nobody proves anything; the request is sent.
    pub(crate) fn unkeyed(ask: &Ask) -> Asking {
        let mut end = Asking::of_packets(UNSIGNED, ask, &ENTROPY);
        assert_eq!(end.written(), packet::encode_unsigned(ask, FRESH));
        end
    }

    /// It has ended: nothing more is sent, and no byte or moment changes what was said.
    pub(crate) fn is_at_its_end(&mut self) {
        assert!(self.client.is_over());
        assert_eq!((self.client.transmit(), self.client.wake_at()), (&[][..], None));
        assert_eq!(self.give(&[0; 1_000]), []);
        self.client.closed(self.now);
        self.client.opened(&ENTROPY, self.now);
        assert!(self.client.transmit().is_empty());
        assert_eq!(self.give(&[0; 1_000]), []);
        assert_eq!(self.later(100_000), []);
    }
}

/// What the other end says to the challenge that this entropy is, made by hand.
pub(crate) fn said_by_theirs(entropy: &Entropy) -> Vec<u8> {
    [proof(&entropy.0, Hash::Sha256), CHALLENGE].concat()
}

/// A code on this wire is one byte.
pub(crate) fn code(code: Code) -> Vec<u8> {
    vec![code as u8]
}

pub(crate) fn signed(key: &Key, hash: Hash, auth: Hash) -> Speak<'_> {
    Speak::ClassicPacket { fresh: FRESH, signing: Signing::Key { key, hash, auth } }
}

pub(crate) const UNSIGNED: Speak<'static> = Speak::ClassicPacket { fresh: FRESH, signing: Signing::Nothing };
