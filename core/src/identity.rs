//! Who is who: node ids, long-term identity keys, incarnations.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hmac::{Hmac, Mac as _};
use mpcium_client::memory::{Scheme, made, or_computed, or_remembered};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::tags::{self, Tag};

#[cfg(test)]
thread_local! {
    /// What identities have signed or sealed in this thread, for the test that no two kinds share a preimage.
    pub(crate) static SIGNED: std::cell::RefCell<Vec<Vec<u8>>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// A node's permanent id: a UUID, as in `peers.json`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 16]);

impl NodeId {
    /// From the sixteen bytes of a UUID.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes of the UUID.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Parses the usual text form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, in either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|&at| bytes.get(at) != Some(&b'-')) {
            return None;
        }
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let mut id = [0; 16];
        hex::decode_to_slice(digits, &mut id).ok()?;
        Some(Self(id))
    }
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let h = hex::encode(self.0);
        write!(f, "{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
    }
}

impl std::fmt::Debug for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// One start of one node: sixteen random bytes, durable before anyone hears of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub [u8; 16]);

impl std::fmt::Display for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0[..4]))
    }
}

impl std::fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What everyone knows of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Permanent id.
    pub id: NodeId,
    /// Name for people (`node0`).
    pub name: String,
    /// Long-term Ed25519 key.
    pub key: VerifyingKey,
}

/// Bytes of what a node seals for itself.
pub const SEAL_BYTES: usize = 16;

/// This node's long-term key.
#[derive(Clone)]
pub struct Identity {
    id: NodeId,
    key: SigningKey,
    /// For what only this node has to know again: follows from the seed, so it lasts as long as the identity.
    own: Zeroizing<[u8; 32]>,
}

impl Identity {
    /// From the 32-byte Ed25519 seed.
    #[must_use]
    pub fn new(id: NodeId, seed: &[u8; 32]) -> Self {
        Self { id, key: SigningKey::from_bytes(seed), own: tags::IDENTITY_OWN.derive(seed, &[]) }
    }

    /// This node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// What this key and another node's give in an X25519 exchange, both converted from Ed25519: the same at both nodes
    /// and for ever, so nothing may depend on it that must stay secret if an identity leaks.
    #[must_use]
    pub fn agree(&self, peer: &VerifyingKey) -> Zeroizing<[u8; 32]> {
        let mut both = [self.key.verifying_key(), *peer].map(|key| key.to_bytes());
        both.sort_unstable();
        or_computed("key of an acquaintance", &both.each_ref().map(|key| key.as_slice()), || {
            let secret = StaticSecret::from(self.key.to_scalar_bytes());
            Zeroizing::new(secret.diffie_hellman(&PublicKey::from(peer.to_montgomery().to_bytes())).to_bytes())
        })
    }

    /// Seals `body`, under a domain tag, for this node itself: [`knows`](Self::knows) tells it from what anybody else made,
    /// and nobody but this node can tell.
    #[must_use]
    pub fn seal(&self, tag: Tag, body: &[u8]) -> [u8; SEAL_BYTES] {
        let seal = self.mac(tag, body).finalize().into_bytes();
        seal.first_chunk().copied().expect("SHA-256 has more bytes")
    }

    /// Whether this node has sealed `body` under a domain tag. Takes the same time for all seals.
    #[must_use]
    pub fn knows(&self, tag: Tag, body: &[u8], seal: &[u8; SEAL_BYTES]) -> bool {
        self.mac(tag, body).verify_truncated_left(seal).is_ok()
    }

    fn mac(&self, tag: Tag, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.own.as_slice()).expect("HMAC takes keys of any length");
        let message = tag.preimage(body);
        #[cfg(test)]
        SIGNED.with_borrow_mut(|signed| signed.push(message.clone()));
        mac.update(&message);
        mac
    }

    /// Signs `body` under a domain tag.
    #[must_use]
    pub fn sign(&self, tag: Tag, body: &[u8]) -> [u8; 64] {
        let message = tag.preimage(body);
        #[cfg(test)]
        SIGNED.with_borrow_mut(|signed| signed.push(message.clone()));
        let signature = self.key.sign(&message).to_bytes();
        made(Scheme::Node, self.key.verifying_key().as_bytes(), &message, &signature);
        signature
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.id)
    }
}

/// Whether `signature` is `key`'s over `body` under `tag` (strict: no small-order keys, no malleability).
#[must_use]
pub fn verify(key: &VerifyingKey, tag: Tag, body: &[u8], signature: &[u8]) -> bool {
    let message = tag.preimage(body);
    or_remembered(Scheme::Node, key.as_bytes(), &message, signature, || {
        Signature::from_slice(signature).is_ok_and(|s| key.verify_strict(&message, &s).is_ok())
    })
}
