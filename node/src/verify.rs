//! Verification of signatures with libraries that know nothing of this program: k256 and ed25519-dalek.

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey, signature::hazmat::PrehashVerifier as _};
use mpcium_client::{SigningResult, derive};
use sha3::{Digest as _, Keccak256};

use crate::addresses::{self, SecpPoint};

/// A public key under which a signature must verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// ECDSA on secp256k1.
    Secp256k1(SecpPoint),
    /// Ed25519.
    Ed25519([u8; 32]),
}

impl PublicKey {
    /// From hexadecimal text: for `secp256k1` the compressed or the uncompressed point (with or without its `04`), for
    /// `ed25519` 32 bytes.
    ///
    /// # Errors
    /// If it is no key of that kind.
    pub fn parse(key_type: &str, text: &str) -> Result<Self, String> {
        let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text))
            .map_err(|_| "expected hexadecimal digits".to_owned())?;
        if key_type == "ed25519" {
            let key =
                bytes.as_slice().try_into().map_err(|_| format!("an ed25519 key has 32 bytes, got {}", bytes.len()))?;
            ed25519_dalek::VerifyingKey::from_bytes(&key).map_err(|_| "is no ed25519 key".to_owned())?;
            return Ok(Self::Ed25519(key));
        }
        let compressed = match bytes.len() {
            33 => bytes.as_slice().try_into().map_err(|_| "is no secp256k1 key".to_owned())?,
            64 | 65 => derive::secp256k1_compressed(&bytes).map_err(|_| "is no secp256k1 key".to_owned())?,
            other => return Err(format!("a secp256k1 key has 33 or 65 bytes, got {other}")),
        };
        derive::secp256k1_coordinates(&compressed)
            .map(Self::Secp256k1)
            .map_err(|_| "is no point on secp256k1".to_owned())
    }

    /// The child key at the end of a path.
    ///
    /// # Errors
    /// If there is none.
    pub fn child(&self, chain_code: &[u8; 32], path: &[u32]) -> Result<Self, String> {
        match self {
            Self::Secp256k1(point) => derive::derive_secp256k1(&addresses::compressed(point), chain_code, path)
                .and_then(|child| derive::secp256k1_coordinates(&child.public_key))
                .map(Self::Secp256k1),
            Self::Ed25519(key) => {
                derive::derive_ed25519(key, chain_code, path).map(|child| Self::Ed25519(child.public_key))
            }
        }
        .map_err(|error| error.to_string())
    }

    /// Verifies a signature over a message (Ed25519) or a digest of 32 bytes (secp256k1).
    ///
    /// # Errors
    /// If it does not verify.
    pub fn verify(&self, message: &[u8], result: &SigningResult) -> Result<(), String> {
        match self {
            Self::Ed25519(key) => ed25519(key, message, result).map(drop),
            Self::Secp256k1(key) => {
                let digest = message.try_into().map_err(|_| format!("the digest has {} bytes", message.len()))?;
                ethereum(key, digest, result).map(drop)
            }
        }
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secp256k1(point) => f.write_str(&hex::encode(addresses::compressed(point))),
            Self::Ed25519(key) => f.write_str(&hex::encode(key)),
        }
    }
}

/// Verifies an Ed25519 signature and returns it in hexadecimal.
///
/// # Errors
/// If it does not verify.
pub fn ed25519(key: &[u8; 32], message: &[u8], result: &SigningResult) -> Result<String, String> {
    let bytes = result.signature.as_deref().unwrap_or_default();
    let key = ed25519_dalek::VerifyingKey::from_bytes(key).map_err(|error| format!("the public key: {error}"))?;
    let signature =
        ed25519_dalek::Signature::from_slice(bytes).map_err(|error| format!("the Ed25519 signature: {error}"))?;
    key.verify_strict(message, &signature).map_err(|error| format!("the Ed25519 signature: {error}"))?;
    Ok(hex::encode(bytes))
}

/// What wallets sign for a text message (EIP-191).
#[must_use]
pub fn ethereum_digest(text: &str) -> [u8; 32] {
    Keccak256::digest(format!("\x19Ethereum Signed Message:\n{}{text}", text.len())).into()
}

/// Verifies an ECDSA signature and recovers who signed; returns the 65-byte form that Ethereum uses and the address.
///
/// # Errors
/// If it does not verify, or recovers somebody else.
pub fn ethereum(key: &SecpPoint, digest: &[u8; 32], result: &SigningResult) -> Result<(String, String), String> {
    let signature = ecdsa(key, digest, result)?;
    let recovery = result.signature_recovery.as_deref().and_then(|bytes| bytes.first().copied()).unwrap_or(u8::MAX);
    let id = RecoveryId::from_byte(recovery).ok_or_else(|| format!("{recovery} is no recovery id"))?;
    let recovered = VerifyingKey::recover_from_prehash(digest, &signature, id)
        .map_err(|error| format!("nobody can be recovered from the signature: {error}"))?;
    let point = recovered.to_sec1_point(false);
    let coordinates: SecpPoint = point
        .as_bytes()
        .get(1..)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "the recovered key has an unexpected form".to_owned())?;
    if coordinates != *key {
        return Err("the signature recovers another key".to_owned());
    }
    let text = format!("0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + recovery);
    Ok((text, addresses::ethereum(&coordinates)))
}

/// Verifies an ECDSA signature and returns it in DER, as Bitcoin uses it.
///
/// # Errors
/// If it does not verify, or has a high s.
pub fn bitcoin(key: &SecpPoint, digest: &[u8; 32], result: &SigningResult) -> Result<String, String> {
    Ok(hex::encode(ecdsa(key, digest, result)?.to_der().as_bytes()))
}

/// A signature of either kind, unverified, in hexadecimal.
#[must_use]
pub fn shown(result: &SigningResult) -> String {
    [&result.signature, &result.r, &result.s]
        .into_iter()
        .flatten()
        .filter(|bytes| !bytes.is_empty())
        .map(hex::encode)
        .collect()
}

fn ecdsa(key: &SecpPoint, digest: &[u8; 32], result: &SigningResult) -> Result<Signature, String> {
    let scalar = |name: &str, bytes: &Option<Vec<u8>>| -> Result<[u8; 32], String> {
        let bytes = bytes.as_deref().unwrap_or_default();
        bytes.try_into().map_err(|_| format!("{name} has {} bytes, expected 32", bytes.len()))
    };
    let signature = Signature::from_scalars(scalar("r", &result.r)?, scalar("s", &result.s)?)
        .map_err(|error| format!("the ECDSA signature: {error}"))?;
    if signature.normalize_s() != signature {
        return Err("the ECDSA signature has a high s".to_owned());
    }
    let key = VerifyingKey::from_sec1_bytes(&addresses::compressed(key))
        .map_err(|error| format!("the public key: {error}"))?;
    key.verify_prehash(digest, &signature).map_err(|error| format!("the ECDSA signature: {error}"))?;
    Ok(signature)
}

#[cfg(test)]
mod tests {
    use k256::ecdsa::SigningKey;

    use super::*;

    fn signed(digest: &[u8; 32]) -> (SecpPoint, SigningResult) {
        let key = SigningKey::from_slice(&[7; 32]).expect("a scalar");
        let (signature, recovery) = key.sign_prehash_recoverable(digest);
        let (r, s) = (signature.r().to_bytes(), signature.s().to_bytes());
        let point = key.verifying_key().to_sec1_point(false);
        let coordinates = point.as_bytes()[1..].try_into().expect("64 bytes");
        let (r, s) = (r.as_slice().try_into().expect("32"), s.as_slice().try_into().expect("32"));
        (coordinates, SigningResult::success_ecdsa("", "w", "tx", &r, &s, recovery.to_byte()))
    }

    #[test]
    fn good_signatures_verify_and_recover_their_signer() {
        let digest = ethereum_digest("hello");
        let (key, result) = signed(&digest);
        let (text, address) = ethereum(&key, &digest, &result).expect("verifies");
        assert_eq!(address, addresses::ethereum(&key));
        assert_eq!(text.len(), 2 + 2 * 65);
        assert!(bitcoin(&key, &digest, &result).expect("verifies").starts_with("30"));
    }

    #[test]
    fn public_keys_are_read_in_every_usual_form() {
        let digest = ethereum_digest("hello");
        let (point, result) = signed(&digest);
        let compressed = hex::encode(addresses::compressed(&point));
        for text in
            [compressed.clone(), format!("0x{compressed}"), hex::encode(point), format!("04{}", hex::encode(point))]
        {
            let key = PublicKey::parse("secp256k1", &text).expect("a key");
            assert_eq!(key.to_string(), compressed);
            key.verify(&digest, &result).expect("verifies");
            let child = key.child(&[1; 32], &[44, 60]).expect("a child");
            assert!(child != key && child.verify(&digest, &result).is_err());
        }
        for (kind, text) in
            [("secp256k1", "ab"), ("secp256k1", "zz"), ("ed25519", &compressed), ("secp256k1", &"00".repeat(33))]
        {
            assert!(PublicKey::parse(kind, text).is_err(), "{kind} {text}");
        }
    }

    #[test]
    fn wrong_signatures_do_not_verify() {
        let digest = ethereum_digest("hello");
        let (key, result) = signed(&digest);
        assert!(bitcoin(&key, &ethereum_digest("other"), &result).is_err());
        let mut other = result.clone();
        other.signature_recovery = Some(vec![result.signature_recovery.expect("one")[0] ^ 1]);
        assert!(ethereum(&key, &digest, &other).is_err());
        other.r = None;
        assert!(bitcoin(&key, &digest, &other).expect_err("no r").contains("0 bytes"));
        assert!(ed25519(&[3; 32], b"m", &SigningResult::success_eddsa("", "w", "tx", &[0; 64])).is_err());
    }

    #[test]
    fn a_text_message_is_hashed_as_wallets_do() {
        // The example of web3.eth.accounts.hashMessage.
        assert_eq!(
            hex::encode(ethereum_digest("Hello World")),
            "a1de988600a42c4b4ab089b619297c17d53cffae5d5120d82d8a92d0bb3b78f2"
        );
    }
}
