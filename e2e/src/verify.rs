//! Verification of signatures by programs that share no code with the cluster: the libraries k256 and ed25519-dalek,
//! and OpenSSL's command line.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey, signature::hazmat::PrehashVerifier as _};
use mpcium_client::{KeygenResult, SigningResult};

/// DER of a SubjectPublicKeyInfo of Ed25519, up to the key (RFC 8410).
const ED25519_INFO: &str = "302a300506032b6570032100";
/// DER of a SubjectPublicKeyInfo of an uncompressed point on secp256k1, up to the coordinates (RFC 5480, SEC 2).
const SECP256K1_INFO: &str = "3056301006072a8648ce3d020106052b8104000a03420004";

/// A wallet and its public keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wallet {
    /// Its id.
    pub id: String,
    /// The point on secp256k1: X ‖ Y, each 32 bytes big-endian.
    pub secp256k1: [u8; 64],
    /// The Ed25519 key.
    pub ed25519: [u8; 32],
}

impl Wallet {
    /// From the answer to a key generation.
    ///
    /// # Errors
    /// If a key is missing or of the wrong length, or no point on its curve.
    pub fn new(result: &KeygenResult) -> Result<Self, String> {
        let key = |curve: &str, bytes: &Option<Vec<u8>>| {
            bytes.clone().ok_or_else(|| format!("wallet {}: no {curve} key", result.wallet_id))
        };
        let length = |curve: &str| format!("wallet {}: the {curve} key has the wrong length", result.wallet_id);
        let wallet = Self {
            id: result.wallet_id.clone(),
            secp256k1: key("secp256k1", &result.ecdsa_pub_key)?.try_into().map_err(|_| length("secp256k1"))?,
            ed25519: key("Ed25519", &result.eddsa_pub_key)?.try_into().map_err(|_| length("Ed25519"))?,
        };
        wallet.ecdsa_key()?;
        wallet.eddsa_key()?;
        Ok(wallet)
    }

    fn ecdsa_key(&self) -> Result<VerifyingKey, String> {
        VerifyingKey::from_sec1_bytes(&[&[4], self.secp256k1.as_slice()].concat())
            .map_err(|error| format!("wallet {}: the secp256k1 key: {error}", self.id))
    }

    fn eddsa_key(&self) -> Result<ed25519_dalek::VerifyingKey, String> {
        ed25519_dalek::VerifyingKey::from_bytes(&self.ed25519)
            .map_err(|error| format!("wallet {}: the Ed25519 key: {error}", self.id))
    }

    /// Verifies an Ed25519 signature with ed25519-dalek, strictly.
    ///
    /// # Errors
    /// If it does not verify.
    pub fn verify_ed25519(&self, message: &[u8], result: &SigningResult) -> Result<(), String> {
        let signature = ed25519_dalek::Signature::from_slice(result.signature.as_deref().unwrap_or_default())
            .map_err(|error| format!("{}: the signature: {error}", result.tx_id))?;
        self.eddsa_key()?
            .verify_strict(message, &signature)
            .map_err(|error| format!("{}: the Ed25519 signature: {error}", result.tx_id))
    }

    /// Verifies an ECDSA signature over a digest with k256: the signature itself, its low s, and that its recovery
    /// byte leads to the wallet's key.
    ///
    /// # Errors
    /// If any of it is wrong.
    pub fn verify_ecdsa(&self, digest: &[u8; 32], result: &SigningResult) -> Result<(), String> {
        let signature = ecdsa_signature(result)?;
        let key = self.ecdsa_key()?;
        if signature.normalize_s() != signature {
            return Err(format!("{}: the ECDSA signature has a high s", result.tx_id));
        }
        key.verify_prehash(digest, &signature)
            .map_err(|error| format!("{}: the ECDSA signature: {error}", result.tx_id))?;
        let recovery = result
            .signature_recovery
            .as_deref()
            .and_then(|bytes| <[u8; 1]>::try_from(bytes).ok())
            .and_then(|[byte]| RecoveryId::from_byte(byte))
            .ok_or_else(|| format!("{}: no recovery byte: {:?}", result.tx_id, result.signature_recovery))?;
        let recovered = VerifyingKey::recover_from_prehash(digest, &signature, recovery)
            .map_err(|error| format!("{}: nobody is recovered: {error}", result.tx_id))?;
        if recovered != key {
            return Err(format!("{}: the recovery byte leads to another key", result.tx_id));
        }
        Ok(())
    }

    /// Verifies an Ed25519 signature with OpenSSL's command line.
    ///
    /// # Errors
    /// If OpenSSL is not there or does not accept it.
    pub fn openssl_ed25519(&self, folder: &Path, message: &[u8], result: &SigningResult) -> Result<(), String> {
        let key = info(ED25519_INFO, &self.ed25519)?;
        openssl(folder, &key, message, result.signature.as_deref().unwrap_or_default(), &["-rawin"])
    }

    /// Verifies an ECDSA signature over a digest with OpenSSL's command line.
    ///
    /// # Errors
    /// If OpenSSL is not there or does not accept it.
    pub fn openssl_ecdsa(&self, folder: &Path, digest: &[u8; 32], result: &SigningResult) -> Result<(), String> {
        let key = info(SECP256K1_INFO, &self.secp256k1)?;
        openssl(folder, &key, digest, ecdsa_signature(result)?.to_der().as_bytes(), &[])
    }
}

fn ecdsa_signature(result: &SigningResult) -> Result<Signature, String> {
    let scalar = |name: &str, bytes: &Option<Vec<u8>>| -> Result<[u8; 32], String> {
        let bytes = bytes.as_deref().unwrap_or_default();
        bytes.try_into().map_err(|_| format!("{}: {name} has {} bytes, expected 32", result.tx_id, bytes.len()))
    };
    Signature::from_scalars(scalar("r", &result.r)?, scalar("s", &result.s)?)
        .map_err(|error| format!("{}: the ECDSA signature: {error}", result.tx_id))
}

fn info(prefix: &str, key: &[u8]) -> Result<Vec<u8>, String> {
    let mut der = hex::decode(prefix).map_err(|error| error.to_string())?;
    der.extend_from_slice(key);
    Ok(der)
}

fn openssl(folder: &Path, key: &[u8], message: &[u8], signature: &[u8], more: &[&str]) -> Result<(), String> {
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|error| format!("{}: {error}", path.display())).map(|()| path)
    };
    let (key, message, signature) =
        (file("key.der", key)?, file("message.bin", message)?, file("signature.bin", signature)?);
    let output = Command::new("openssl")
        .args(["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey"])
        .arg(key)
        .arg("-in")
        .arg(message)
        .arg("-sigfile")
        .arg(signature)
        .args(more)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("openssl: {error} (install the package openssl)"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("openssl does not accept the signature: {}", String::from_utf8_lossy(&said).trim()))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer as _;

    use super::*;

    fn signed(digest: &[u8; 32], message: &[u8]) -> (Wallet, SigningResult, SigningResult) {
        let key = k256::ecdsa::SigningKey::from_slice(&[7; 32]).expect("a scalar");
        let point = key.verifying_key().to_sec1_point(false);
        let (signature, recovery) = key.sign_prehash_recoverable(digest);
        let (r, s) = (signature.r().to_bytes(), signature.s().to_bytes());
        let (r, s) = (r.as_slice().try_into().expect("32"), s.as_slice().try_into().expect("32"));
        let ecdsa = SigningResult::success_ecdsa("", "w", "tx", &r, &s, recovery.to_byte());
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let eddsa = SigningResult::success_eddsa("", "w", "tx", &key.sign(message).to_bytes());
        let secp256k1 = point.as_bytes()[1..].try_into().expect("64 bytes");
        (Wallet { id: "w".to_owned(), secp256k1, ed25519: key.verifying_key().to_bytes() }, ecdsa, eddsa)
    }

    #[test]
    fn every_verifier_accepts_a_good_signature_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (digest, message) = ([9; 32], b"\0a message".as_slice());
        let (wallet, ecdsa, eddsa) = signed(&digest, message);
        wallet.verify_ecdsa(&digest, &ecdsa).expect("k256");
        wallet.openssl_ecdsa(folder.path(), &digest, &ecdsa).expect("openssl");
        wallet.verify_ed25519(message, &eddsa).expect("dalek");
        wallet.openssl_ed25519(folder.path(), message, &eddsa).expect("openssl");

        assert!(wallet.verify_ecdsa(&[8; 32], &ecdsa).is_err());
        assert!(wallet.openssl_ecdsa(folder.path(), &[8; 32], &ecdsa).is_err());
        assert!(wallet.verify_ed25519(b"a message", &eddsa).is_err());
        assert!(wallet.openssl_ed25519(folder.path(), b"a message", &eddsa).is_err());
        let recovery = ecdsa.signature_recovery.as_deref().expect("one")[0] ^ 1;
        let other = SigningResult { signature_recovery: Some(vec![recovery]), ..ecdsa };
        assert!(wallet.verify_ecdsa(&digest, &other).is_err());
    }
}
