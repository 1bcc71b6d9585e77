//! Who signs a client's requests: the [`Signer`] trait and signers with a local key.
//!
//! Key files are those of the existing system. Invariant: a secret key never appears in `Debug` output or an error.

use std::path::Path;

use ed25519_dalek::Signer as _;
use futures::future::BoxFuture;
use p256::{
    ecdsa::signature::hazmat::PrehashSigner as _,
    pkcs8::{DecodePrivateKey as _, EncodePublicKey as _},
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    auth::{Algorithm, InitiatorKey, PublicKey},
    request::{AuthorizerSignature, Request},
};

/// Where key files are looked for by default.
pub const DEFAULT_KEY_FILE: &str = "./event_initiator.key";
/// How an age file begins, in binary and in text.
const AGE_HEADERS: [&[u8]; 2] = [b"age-encryption.org/v1\n", b"-----BEGIN AGE ENCRYPTED FILE-----"];
/// Bytes of a key file that are read.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Signs requests as the initiator: a local key, a key management service, a hardware module.
pub trait Signer: Send + Sync + 'static {
    /// The algorithm, which must be the cluster's `event_initiator_algorithm`.
    fn algorithm(&self) -> Algorithm;

    /// Signs the bytes: 64 bytes for Ed25519, DER over their SHA-256 for P-256.
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignerError>>;
}

/// Why a signer is of no use.
#[derive(Debug)]
pub enum SignerError {
    /// The key file cannot be read.
    File(std::io::Error),
    /// The content is no key of this algorithm.
    Content {
        /// The algorithm that was asked for.
        algorithm: Algorithm,
        /// What is expected.
        expected: &'static str,
    },
    /// The file is encrypted and no passphrase was given.
    PassphraseNeeded,
    /// The passphrase is wrong, or the file is damaged.
    Decrypt(String),
    /// The service that holds the key did not sign.
    Service(String),
    /// There is nothing to approve: the initiator has not signed the request.
    NotSigned,
}

impl std::fmt::Display for SignerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(error) => write!(f, "the key file cannot be read: {error}"),
            Self::Content { algorithm, expected } => {
                write!(f, "no {} key: expected {expected}", algorithm.as_str())
            }
            Self::PassphraseNeeded => f.write_str("the key file is encrypted: a passphrase is needed"),
            Self::Decrypt(problem) => write!(f, "the key file cannot be decrypted: {problem}"),
            Self::Service(problem) => write!(f, "the signing service failed: {problem}"),
            Self::NotSigned => f.write_str("the initiator has not signed the request"),
        }
    }
}

impl std::error::Error for SignerError {}

/// An authorizer's approval of a request that the initiator has signed
/// ([`Client::signed`](crate::client::Client::signed)). An authorizer should look at the request first, and check the
/// initiator's signature with [`verify_initiator`](crate::auth::verify_initiator).
///
/// # Errors
/// If the initiator has not signed, or the authorizer's signer fails.
pub async fn approve(
    authorizer: &impl Signer,
    authorizer_id: &str,
    request: &Request,
) -> Result<AuthorizerSignature, SignerError> {
    if request.signature().is_none_or(<[u8]>::is_empty) {
        return Err(SignerError::NotSigned);
    }
    let signature = authorizer.sign(&request.approval_bytes()).await?;
    Ok(AuthorizerSignature { authorizer_id: authorizer_id.to_owned(), signature: Some(signature) })
}

/// A secret key in memory.
#[derive(Clone)]
pub enum LocalSigner {
    /// Ed25519.
    Ed25519(Box<ed25519_dalek::SigningKey>),
    /// ECDSA over P-256, with deterministic nonces (RFC 6979): signing twice gives the same signature, which
    /// authorizers rely on.
    P256(Box<p256::ecdsa::SigningKey>),
}

impl std::fmt::Debug for LocalSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalSigner({})", self.public_key_text())
    }
}

impl LocalSigner {
    /// From the 32 bytes of an Ed25519 seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(seed)))
    }

    /// From the content of a key file. `ed25519`: the seed's 64 hexadecimal digits. `p256`: PKCS#8 or SEC1 in DER, raw
    /// or hexadecimal (with or without `0x`). White space around text is ignored.
    ///
    /// # Errors
    /// If the content is something else.
    pub fn parse(algorithm: Algorithm, content: &[u8]) -> Result<Self, SignerError> {
        match algorithm {
            Algorithm::Ed25519 => {
                let wrong = || SignerError::Content { algorithm, expected: "64 hexadecimal digits, the seed" };
                let mut seed = Zeroizing::new([0; 32]);
                hex::decode_to_slice(content.trim_ascii(), &mut *seed).map_err(|_| wrong())?;
                Ok(Self::from_seed(&seed))
            }
            Algorithm::P256 => {
                let text = content.trim_ascii();
                let text = text.strip_prefix(b"0x").unwrap_or(text);
                let decoded = hex::decode(text).map(Zeroizing::new);
                let der = decoded.as_ref().map_or(content, |der| der.as_slice());
                p256::SecretKey::from_pkcs8_der(der)
                    .ok()
                    .or_else(|| p256::SecretKey::from_sec1_der(der).ok())
                    .map(|key| Self::P256(Box::new(p256::ecdsa::SigningKey::from(key))))
                    .ok_or(SignerError::Content { algorithm, expected: "PKCS#8 or SEC1 in DER, raw or hexadecimal" })
            }
        }
    }

    /// From an age file that a passphrase protects. Takes about a second of work, by age's design.
    ///
    /// # Errors
    /// If the passphrase is wrong, the file is damaged, or the content is no key.
    pub fn parse_encrypted(algorithm: Algorithm, file: &[u8], passphrase: &str) -> Result<Self, SignerError> {
        let identity = age::scrypt::Identity::new(age::secrecy::SecretString::from(passphrase.to_owned()));
        let content = age::decrypt(&identity, file).map_err(|error| SignerError::Decrypt(error.to_string()))?;
        Self::parse(algorithm, &Zeroizing::new(content))
    }

    /// Reads a key file; one whose name ends in `.age`, or that is an age file by its content, is decrypted with the
    /// passphrase.
    ///
    /// # Errors
    /// If the file cannot be read or decrypted, or holds no key.
    pub fn read(algorithm: Algorithm, path: &Path, passphrase: Option<&str>) -> Result<Self, SignerError> {
        use std::io::Read as _;

        let file = std::fs::File::open(path).map_err(SignerError::File)?;
        let mut content = Zeroizing::new(Vec::new());
        file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut content).map_err(SignerError::File)?;
        let encrypted = AGE_HEADERS.iter().any(|header| content.starts_with(header));
        if encrypted || path.extension().is_some_and(|extension| extension == "age") {
            Self::parse_encrypted(algorithm, &content, passphrase.ok_or(SignerError::PassphraseNeeded)?)
        } else {
            Self::parse(algorithm, &content)
        }
    }

    /// The public key that a cluster has to know.
    #[must_use]
    pub fn public_key(&self) -> InitiatorKey {
        InitiatorKey(match self {
            Self::Ed25519(key) => PublicKey::Ed25519(key.verifying_key()),
            Self::P256(key) => PublicKey::P256(*key.verifying_key()),
        })
    }

    /// The public key as a cluster's configuration spells it: hexadecimal, for P-256 of the SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key_text(&self) -> String {
        match self {
            Self::Ed25519(key) => hex::encode(key.verifying_key().as_bytes()),
            Self::P256(key) => {
                key.verifying_key().to_public_key_der().map(|der| hex::encode(der.as_bytes())).unwrap_or_default()
            }
        }
    }

    /// Signs at once; see [`Signer::sign`].
    ///
    /// # Errors
    /// Never for Ed25519; for P-256 only if the library refuses.
    pub fn sign_now(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        match self {
            Self::Ed25519(key) => Ok(key.sign(message).to_bytes().to_vec()),
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key
                    .sign_prehash(&Sha256::digest(message))
                    .map_err(|error| SignerError::Service(error.to_string()))?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
        }
    }
}

impl Signer for LocalSigner {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::Ed25519,
            Self::P256(_) => Algorithm::P256,
        }
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignerError>> {
        Box::pin(std::future::ready(self.sign_now(message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256_SEC1: &str = concat!(
        "307702010104200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20a00a06082a8648ce3d030107",
        "a14403420004515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f4536be3a50f318fbf9a5475902",
        "a221502bef0d57e08c53b2cc0a56f17d9f9354"
    );
    const P256_SPKI: &str = concat!(
        "3059301306072a8648ce3d020106082a8648ce3d03010703420004515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca",
        "515ad0a6c3b4035f4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354"
    );

    fn seed_text() -> String {
        hex::encode(std::array::from_fn::<u8, 32, _>(|at| u8::try_from(at).unwrap()))
    }

    #[test]
    fn key_files_of_both_algorithms_are_read() {
        let ed25519 = LocalSigner::parse(Algorithm::Ed25519, format!(" {}\n", seed_text()).as_bytes()).unwrap();
        assert_eq!(ed25519.public_key_text(), "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8");
        for content in
            [P256_SEC1.as_bytes().to_vec(), format!("0x{P256_SEC1}\n").into(), hex::decode(P256_SEC1).unwrap()]
        {
            let p256 = LocalSigner::parse(Algorithm::P256, &content).unwrap();
            assert_eq!(p256.public_key_text(), P256_SPKI);
            let signature = p256.sign_now(b"wallet-1").unwrap();
            assert!(p256.public_key().0.verifies(b"wallet-1", &signature));
            assert_eq!(signature, p256.sign_now(b"wallet-1").unwrap());
        }
        for bad in ["", "00", &seed_text()[1..]] {
            assert!(LocalSigner::parse(Algorithm::Ed25519, bad.as_bytes()).is_err());
            assert!(LocalSigner::parse(Algorithm::P256, bad.as_bytes()).is_err());
        }
    }

    #[test]
    fn encrypted_key_files_need_their_passphrase() {
        let mut recipient = age::scrypt::Recipient::new(age::secrecy::SecretString::from("open".to_owned()));
        recipient.set_work_factor(2);
        let file = age::encrypt(&recipient, seed_text().as_bytes()).unwrap();
        let signer = LocalSigner::parse_encrypted(Algorithm::Ed25519, &file, "open").unwrap();
        assert!(signer.public_key_text().starts_with("03a107bf"));
        assert!(matches!(
            LocalSigner::parse_encrypted(Algorithm::Ed25519, &file, "wrong"),
            Err(SignerError::Decrypt(_))
        ));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("event_initiator.key.age");
        std::fs::write(&path, &file).unwrap();
        assert!(matches!(LocalSigner::read(Algorithm::Ed25519, &path, None), Err(SignerError::PassphraseNeeded)));
        assert!(LocalSigner::read(Algorithm::Ed25519, &path, Some("open")).is_ok());
        // By its content, whatever its name.
        let renamed = folder.path().join("initiator.key");
        std::fs::write(&renamed, &file).unwrap();
        assert!(matches!(LocalSigner::read(Algorithm::Ed25519, &renamed, None), Err(SignerError::PassphraseNeeded)));
        assert!(LocalSigner::read(Algorithm::Ed25519, &renamed, Some("open")).is_ok());
        // P-256 in every inner form.
        for content in [P256_SEC1.as_bytes().to_vec(), hex::decode(P256_SEC1).unwrap()] {
            std::fs::write(&path, age::encrypt(&recipient, &content).unwrap()).unwrap();
            let p256 = LocalSigner::read(Algorithm::P256, &path, Some("open")).unwrap();
            assert_eq!(p256.public_key_text(), P256_SPKI);
        }
    }

    #[test]
    fn pkcs8_is_read_raw_and_in_hexadecimal() {
        use p256::pkcs8::EncodePrivateKey as _;

        let key = p256::SecretKey::from_sec1_der(&hex::decode(P256_SEC1).unwrap()).unwrap();
        let der = key.to_pkcs8_der().unwrap();
        let text = hex::encode(der.as_bytes());
        for content in [der.as_bytes().to_vec(), text.clone().into_bytes(), format!("0x{text}\n").into_bytes()] {
            assert_eq!(LocalSigner::parse(Algorithm::P256, &content).unwrap().public_key_text(), P256_SPKI);
        }
    }

    #[tokio::test]
    async fn an_authorizer_approves_only_what_the_initiator_has_signed() {
        let (initiator, authorizer) = (LocalSigner::from_seed(&[1; 32]), LocalSigner::from_seed(&[2; 32]));
        let mut request: Request =
            crate::KeygenRequest { wallet_id: "w".to_owned(), ..crate::KeygenRequest::default() }.into();
        assert!(matches!(approve(&authorizer, "alice", &request).await, Err(SignerError::NotSigned)));
        request.set_signature(initiator.sign_now(&request.canonical()).unwrap());
        let approval = approve(&authorizer, "alice", &request).await.unwrap();
        let signature = approval.signature.unwrap();
        assert_eq!(approval.authorizer_id, "alice");
        assert!(authorizer.public_key().0.verifies(&request.approval_bytes(), &signature));
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let signer = LocalSigner::from_seed(&[0x5a; 32]);
        assert!(!format!("{signer:?}").contains(&"5a".repeat(4)));
    }
}
