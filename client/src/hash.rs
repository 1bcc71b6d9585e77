//! The hash functions under which a client may send a whole message instead of its digest.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The hash functions that a signing request may name for its message: what is signed is then the digest that the nodes
/// compute themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MessageHash {
    /// SHA-256.
    Sha256,
    /// SHA-256 of SHA-256, as Bitcoin hashes what is signed.
    Sha256d,
    /// Keccak-256 with its original padding, as Ethereum hashes; not SHA3-256.
    Keccak256,
}

impl MessageHash {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha256d, Self::Keccak256];

    /// Its name in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha256d => "sha256d",
            Self::Keccak256 => "keccak256",
        }
    }

    /// From its name in documents, exactly.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.as_str() == name)
    }

    /// The digest of a message.
    #[must_use]
    pub fn digest(self, message: &[u8]) -> [u8; 32] {
        match self {
            Self::Sha256 => Sha256::digest(message).into(),
            Self::Sha256d => Sha256::digest(Sha256::digest(message)).into(),
            Self::Keccak256 => sha3::Keccak256::digest(message).into(),
        }
    }
}

impl std::fmt::Display for MessageHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
