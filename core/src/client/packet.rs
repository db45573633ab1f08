//! How the two ends of a packet conversation prove that they hold the same key: the request and a challenge go out at
//! once; the reply counts once the other end has answered it.
//!
//! ```text
//! us     request · challenge               proof
//! them                       proof · challenge    code [· entries · zeros · code]
//! ```
//!
//! Without a key, the code follows the request.

use super::{Hash, Key};
use crate::classic::key::{KeyState, Tag};
use subtle::ConstantTimeEq;

/// What the other end must answer, and what we answer with.
#[derive(Debug)]
pub(super) struct Proofs {
    key: KeyState,
    /// Ours.
    pub(super) challenge: Tag,
}

impl Proofs {
    pub(super) fn new(key: &Key, auth: Hash) -> Proofs {
        Proofs { key: key.state(auth).clone(), challenge: [0; _] }
    }

    /// Whether this answers our challenge.
    pub(super) fn proves(&self, answer: &[u8]) -> bool {
        self.key.tag(&[&self.challenge]).ct_eq(answer).into()
    }

    /// Whether this is our own challenge.
    pub(super) fn is_ours(&self, challenge: &[u8]) -> bool {
        challenge == self.challenge
    }

    /// The answer to the other end's challenge.
    pub(super) fn answer(&self, challenge: &[u8]) -> Tag {
        self.key.tag(&[challenge])
    }
}
