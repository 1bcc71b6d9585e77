//! Every domain tag and key-derivation label in one place, so that no two uses can share a preimage.
//!
//! A signed or hashed structure is `tag || 0x00 || body`; tags contain no zero byte, so no tag is a prefix of another
//! tag's preimage.

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A domain tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(&'static str);

impl Tag {
    /// The text of the tag.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.0
    }

    /// `tag || 0x00 || body`: the bytes that are signed.
    #[must_use]
    pub fn preimage(self, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + body.len());
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(body);
        bytes
    }

    /// SHA-256 of `tag || 0x00 || body`.
    #[must_use]
    pub fn hash(self, body: &[u8]) -> [u8; 32] {
        Sha256::digest(self.preimage(body)).into()
    }

    /// The key that follows from a secret under this label, for what `body` names: HKDF-SHA256 without salt, its info
    /// `tag || 0x00 || body`.
    ///
    /// # Panics
    /// Never: HKDF gives as many bytes as its hash has.
    #[must_use]
    pub fn derive(self, secret: &[u8], body: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let derived = Hkdf::<Sha256>::new(None, secret).expand(&self.preimage(body), key.as_mut_slice());
        derived.expect("HKDF can give as many bytes as its hash has");
        key
    }
}

macro_rules! tags {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Tag = Tag($text);)*
        /// Every tag, for the test that they are distinct.
        pub const ALL: &[Tag] = &[$($name),*];
    };
}

tags! {
    /// Signature over a handshake transcript.
    HANDSHAKE = "mpcium/1 link handshake";
    /// HKDF label of a link's traffic keys.
    LINK_KEYS = "mpcium/1 link keys";
    /// MAC of a node, for itself, over how many commits its store holds.
    LINK_MARK = "mpcium/2 link mark";
    /// HKDF label of the key by which two nodes know each other's handshake messages before anything is verified.
    LINK_ACQUAINTANCE = "mpcium/1 link acquaintance";
    /// HKDF label of the key under which a node knows its own words again.
    IDENTITY_OWN = "mpcium/1 own words";
    /// Hash of the configuration facets that peers must share.
    FINGERPRINT = "mpcium/1 configuration fingerprint";
    /// Execution id that a run of a signing protocol is bound to.
    EXECUTION = "mpcium/1 execution id";
    /// Execution id that a key generation is bound to.
    EXECUTION_WALLET = "mpcium/1 execution id of a wallet";
    /// Execution id that the making of an auxiliary set is bound to.
    EXECUTION_AUXILIARY = "mpcium/1 execution id of an auxiliary set";
    /// Execution id that the making of a presignature is bound to.
    EXECUTION_PRESIGNING = "mpcium/1 execution id of a presignature";
    /// What a library binds one of a run's protocols to.
    EXECUTION_PART = "mpcium/1 execution id of a part";
    /// Id of a signing session.
    SESSION = "mpcium/1 session id";
    /// Id of a key generation's session.
    SESSION_WALLET = "mpcium/1 session id of a wallet";
    /// Id of an auxiliary set's session.
    SESSION_AUXILIARY = "mpcium/1 session id of an auxiliary set";
    /// Id of a session that makes a presignature.
    SESSION_PRESIGNING = "mpcium/1 session id of a presignature";
    /// Seed of a session's run.
    SESSION_SEED = "mpcium/1 session seed";
    /// Seed of a run's generator for one purpose.
    GENERATOR_SEED = "mpcium/1 generator seed";
    /// Seed from which an ingredient of auxiliary data is made.
    INGREDIENT_SEED = "mpcium/1 ingredient seed";
    /// Name of one delivery of a request.
    DELIVERY = "mpcium/1 delivery";
    /// Digest over all decoded fields of a request.
    REQUEST = "mpcium/1 request digest";
    /// Ledger key of a request.
    REQUEST_KEY = "mpcium/1 request key";
    /// Statement: this member's share of a session is durable.
    PREPARED = "mpcium/1 statement prepared";
    /// Statement: an acceptor takes part in no lower ballot of a slot.
    PROMISE = "mpcium/1 statement promise with votes";
    /// Statement: an acceptor's vote in the decision of an epoch.
    VOTE = "mpcium/1 statement vote";
    /// What is voted for when a slot is closed without a session.
    CLOSE = "mpcium/1 close a slot";
    /// Statement: this member never prepared a session and never will.
    REFUSED = "mpcium/1 statement refused";
    /// Statement: a certificate is durable at this member.
    ACTIVATED = "mpcium/1 statement activated";
    /// Hash of a certificate.
    CERTIFICATE = "mpcium/1 certificate";
    /// Hash of all public shares of a key.
    PUBLIC_SHARES = "mpcium/1 public shares";
    /// Name of an auxiliary set: hash of its public rows.
    AUXILIARY_SET = "mpcium/1 auxiliary set";
    /// Statement: a member agrees to an auxiliary set.
    AUXILIARY_AGREED = "mpcium/1 statement auxiliary set agreed";
    /// One member's part in making a pair's set-up.
    PAIR_SETUP = "mpcium/1 pair set-up";
    /// Commitment of a DKLs23 signer to its nonce point, the same for all other signers.
    NONCE_POINT = "mpcium/1 nonce point commitment";
    /// Challenge of the full-strength ring-Pedersen proof.
    RING_PEDERSEN = "mpcium/1 ring-Pedersen proof";
    /// Echo of one broadcast round.
    ECHO = "mpcium/1 broadcast echo";
    /// A participant's signature over a published result.
    RESULT = "mpcium/1 result";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_distinct_and_hold_no_zero_byte() {
        let mut seen = std::collections::BTreeSet::new();
        for tag in ALL {
            assert!(seen.insert(tag.text()), "{} twice", tag.text());
            assert!(!tag.text().bytes().any(|b| b == 0));
        }
    }
}
