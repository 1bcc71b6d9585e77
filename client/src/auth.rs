//! Who may ask: the initiator's signature on every request, and the approvals of authorizers where configured.
//!
//! Signatures are checked over the canonical bytes of the decoded request, never over the bytes that arrived.
//! Ed25519 verification is Go's: the scalar must be reduced, the equation is without cofactor. P-256 signatures are
//! strict DER over SHA-256, with a high or low S.

use std::collections::BTreeMap;

use ed25519_dalek::Verifier as _;
use p256::{ecdsa::signature::hazmat::PrehashVerifier as _, pkcs8::DecodePublicKey as _};
use sha2::{Digest as _, Sha256};

use crate::{
    gojson,
    memory::{Scheme, or_remembered},
    request::Request,
    result::ErrorCode,
};

/// A public key that signs requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// Ed25519 over the bytes themselves.
    Ed25519(ed25519_dalek::VerifyingKey),
    /// ECDSA over P-256 and SHA-256 of the bytes, signature in DER.
    P256(p256::ecdsa::VerifyingKey),
}

/// The key whose owner may make requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitiatorKey(pub PublicKey);

/// The key of somebody who approves requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizerKey(pub PublicKey);

/// A public key in a configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// No such algorithm.
    Algorithm(String),
    /// Not the text form of a key.
    Form(&'static str),
    /// Well-formed, but not a usable point.
    Point(&'static str),
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Algorithm(name) => write!(f, "unknown algorithm {name:?}: expected \"ed25519\" or \"p256\""),
            Self::Form(expected) => write!(f, "not a public key: expected {expected}"),
            Self::Point(problem) => write!(f, "not a usable public key: {problem}"),
        }
    }
}

impl std::error::Error for KeyError {}

/// Why a request is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// The request carries no initiator signature.
    SignatureEmpty,
    /// The initiator's signature is not over this request, or not by this key.
    InvalidSignature {
        /// The algorithm of the configured initiator.
        algorithm: Algorithm,
    },
    /// The cluster demands a full signature and the request carries none.
    FullSignatureMissing,
    /// The request names a hash for its message, which only a full signature may, and carries none.
    HashWithoutFullSignature,
    /// The full signature is not over this request, or not by this key.
    InvalidFullSignature,
    /// A required authorizer has not signed.
    MissingAuthorizer(String),
    /// Signed by somebody who is not configured.
    UnknownAuthorizer(String),
    /// An authorizer's signature is not over this request, or not by its key.
    InvalidAuthorizer {
        /// Which one.
        id: String,
        /// The algorithm of its key.
        algorithm: Algorithm,
    },
}

/// The signature algorithms of initiators and authorizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519.
    Ed25519,
    /// ECDSA over P-256.
    P256,
}

impl Algorithm {
    /// Its name in configurations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "p256",
        }
    }

    /// From its name in configurations.
    ///
    /// # Errors
    /// [`KeyError::Algorithm`] for anything but `ed25519` and `p256`.
    pub fn parse(name: &str) -> Result<Self, KeyError> {
        match name {
            "ed25519" => Ok(Self::Ed25519),
            "p256" => Ok(Self::P256),
            other => Err(KeyError::Algorithm(other.to_owned())),
        }
    }
}

impl AuthError {
    /// The code that the client is answered with.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::SignatureEmpty
            | Self::InvalidSignature { .. }
            | Self::FullSignatureMissing
            | Self::HashWithoutFullSignature
            | Self::InvalidFullSignature => ErrorCode::InvalidInitiatorSignature,
            Self::MissingAuthorizer(_) => ErrorCode::MissingAuthorizerSignature,
            Self::UnknownAuthorizer(_) | Self::InvalidAuthorizer { .. } => ErrorCode::InvalidAuthorizerSignature,
        }
    }

    /// The reason that the client is answered with: which check, and what it found.
    #[must_use]
    pub fn reason(&self) -> String {
        let check = match self {
            Self::SignatureEmpty
            | Self::InvalidSignature { .. }
            | Self::FullSignatureMissing
            | Self::HashWithoutFullSignature
            | Self::InvalidFullSignature => "Failed to verify initiator message",
            _ => "Failed to authorize initiator message",
        };
        format!("{check}: {self}")
    }
}

impl std::fmt::Display for AuthError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SignatureEmpty => f.write_str("signature is empty"),
            Self::InvalidSignature { algorithm: Algorithm::Ed25519 } => f.write_str("invalid signature from initiator"),
            Self::InvalidSignature { algorithm: Algorithm::P256 } => f.write_str("invalid signature"),
            Self::FullSignatureMissing => f.write_str(
                "this cluster takes only requests with a full_signature (require_full_signature), and this has none",
            ),
            Self::HashWithoutFullSignature => f.write_str(
                "hash: a message that the nodes are to hash needs a full_signature, and this request has none",
            ),
            Self::InvalidFullSignature => {
                f.write_str("full_signature: not the initiator's over all fields, id, expiry and client id")
            }
            Self::MissingAuthorizer(id) => write!(f, "missing required authorizer signature: {id}"),
            Self::UnknownAuthorizer(id) => {
                write!(f, "authorizer {id} verification failed: authorizer {id} not found in cache")
            }
            Self::InvalidAuthorizer { id, algorithm: Algorithm::Ed25519 } => {
                write!(f, "authorizer {id} verification failed: ed25519 verification failed for {id}")
            }
            Self::InvalidAuthorizer { id, algorithm: Algorithm::P256 } => {
                write!(f, "authorizer {id} verification failed: p256 verification failed for {id}: invalid signature")
            }
        }
    }
}

impl std::error::Error for AuthError {}

impl PublicKey {
    fn ed25519(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| KeyError::Form("64 hexadecimal digits"))?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Point("not on the curve"))?;
        if key.is_weak() {
            return Err(KeyError::Point("of small order: anybody could sign for it"));
        }
        Ok(Self::Ed25519(key))
    }

    fn p256(der: &[u8]) -> Result<Self, KeyError> {
        p256::ecdsa::VerifyingKey::from_public_key_der(der)
            .map(Self::P256)
            .map_err(|_| KeyError::Form("a P-256 SubjectPublicKeyInfo in DER"))
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::Ed25519,
            Self::P256(_) => Algorithm::P256,
        }
    }

    /// One byte for the algorithm and the key's bytes: the same for every text form of the same key.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => [&[1][..], key.as_bytes()].concat(),
            Self::P256(key) => [&[2][..], key.to_sec1_point(false).as_bytes()].concat(),
        }
    }

    /// Whether `signature` is this key's over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => or_remembered(Scheme::Ed25519, key.as_bytes(), message, signature, || {
                ed25519_dalek::Signature::from_slice(signature)
                    .and_then(|signature| key.verify(message, &signature))
                    .is_ok()
            }),
            Self::P256(key) => or_remembered(Scheme::P256, key.to_sec1_bytes().as_ref(), message, signature, || {
                p256::ecdsa::Signature::from_der(signature)
                    .and_then(|signature| key.verify_prehash(&Sha256::digest(message), &signature))
                    .is_ok()
            }),
        }
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).ok()
}

impl InitiatorKey {
    /// From the configuration. `ed25519`: 64 hexadecimal digits. `p256`: hexadecimal (with or without `0x`) or standard
    /// base64 of a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// If the algorithm is unknown, or the text is no such key.
    pub fn parse(algorithm: &str, text: &str) -> Result<Self, KeyError> {
        match Algorithm::parse(algorithm)? {
            Algorithm::Ed25519 => PublicKey::ed25519(text),
            Algorithm::P256 => {
                if let Some(key) = decode_hex(text).and_then(|der| PublicKey::p256(&der).ok()) {
                    return Ok(Self(key));
                }
                let form = KeyError::Form("hexadecimal or base64 of a P-256 SubjectPublicKeyInfo in DER");
                let der = gojson::decode_base64(text).map_err(|_| form.clone())?;
                PublicKey::p256(&der).map_err(|_| form)
            }
        }
        .map(Self)
    }

    /// See [`PublicKey::to_bytes`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }
}

impl AuthorizerKey {
    /// From the configuration. `ed25519`: 64 hexadecimal digits. `p256`: hexadecimal (with or without `0x`) of a
    /// SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// If the algorithm is unknown, or the text is no such key.
    pub fn parse(algorithm: &str, text: &str) -> Result<Self, KeyError> {
        match Algorithm::parse(algorithm)? {
            Algorithm::Ed25519 => PublicKey::ed25519(text),
            Algorithm::P256 => {
                let der =
                    decode_hex(text).ok_or(KeyError::Form("hexadecimal of a P-256 SubjectPublicKeyInfo in DER"))?;
                PublicKey::p256(&der)
            }
        }
        .map(Self)
    }
}

/// Whose approval requests need besides the initiator's signature. The default asks for nobody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorization {
    /// Whether approvals are looked at at all.
    pub enabled: bool,
    /// Ids that must have signed every request.
    pub required: Vec<String>,
    /// The keys of all authorizers, required or not, by id.
    pub keys: BTreeMap<String, AuthorizerKey>,
    /// Whether every request must carry the initiator's signature over everything, and approvals must be over the same
    /// bytes. Not part of [`to_bytes`](Self::to_bytes).
    pub full_signature_required: bool,
}

impl Authorization {
    /// An authorizer's key. The existing system stores configured ids in lower case, so clients of a cluster that
    /// names `Alice` may sign as `alice`: an id also finds the one configured id that it is the lower case of.
    #[must_use]
    pub fn key(&self, id: &str) -> Option<&AuthorizerKey> {
        if let Some(key) = self.keys.get(id) {
            return Some(key);
        }
        let mut same = self.keys.iter().filter(|(configured, _)| configured.to_lowercase() == id);
        match (same.next(), same.next()) {
            (Some((_, key)), None) => Some(key),
            _ => None,
        }
    }

    /// An unambiguous encoding, for comparing the configurations of nodes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        fn put(out: &mut Vec<u8>, bytes: &[u8]) {
            out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            out.extend_from_slice(bytes);
        }
        let mut out = vec![u8::from(self.enabled)];
        out.extend_from_slice(&(self.required.len() as u64).to_be_bytes());
        let mut required: Vec<&String> = self.required.iter().collect();
        required.sort();
        required.iter().for_each(|id| put(&mut out, id.as_bytes()));
        for (id, key) in &self.keys {
            put(&mut out, id.as_bytes());
            put(&mut out, &key.0.to_bytes());
        }
        out
    }
}

/// Checks the initiator's signature.
///
/// # Errors
/// If there is none, or it does not verify.
pub fn verify_initiator(key: &InitiatorKey, request: &Request) -> Result<(), AuthError> {
    let signature = request.signature().unwrap_or_default();
    if signature.is_empty() {
        return Err(AuthError::SignatureEmpty);
    }
    if !key.0.verifies(&request.canonical(), signature) {
        return Err(AuthError::InvalidSignature { algorithm: key.0.algorithm() });
    }
    Ok(())
}

/// Checks everything that a request must carry: the initiator's signature; the full one, which must be there if it is
/// required or the request names a hash, and must be good if it is there; then that every required authorizer has signed; then every authorizer
/// signature that is there, required or not.
///
/// Authorizers of the existing system sign [`Request::authorizer_bytes`]. Where the request has a full signature they
/// may sign [`Request::full_bytes`] instead, and must if it is required.
///
/// # Errors
/// The first check that fails.
pub fn authorize(initiator: &InitiatorKey, authorization: &Authorization, request: &Request) -> Result<(), AuthError> {
    verify_initiator(initiator, request)?;
    let full_bytes = request.full_bytes();
    if let (Some(full), Some(bytes)) = (request.full_signature(), &full_bytes) {
        if !initiator.0.verifies(bytes, full.signature.as_deref().unwrap_or_default()) {
            return Err(AuthError::InvalidFullSignature);
        }
    } else if request.needs_full_signature() {
        return Err(AuthError::HashWithoutFullSignature);
    } else if authorization.full_signature_required {
        return Err(AuthError::FullSignatureMissing);
    }
    if !authorization.enabled {
        return Ok(());
    }
    let signatures = request.authorizer_signatures();
    for id in &authorization.required {
        if !signatures.iter().any(|item| item.authorizer_id == *id) {
            return Err(AuthError::MissingAuthorizer(id.clone()));
        }
    }
    if signatures.is_empty() {
        return Ok(());
    }
    let classic_bytes = (!authorization.full_signature_required).then(|| request.authorizer_bytes());
    for item in signatures {
        let id = &item.authorizer_id;
        let Some(AuthorizerKey(key)) = authorization.key(id) else {
            return Err(AuthError::UnknownAuthorizer(id.clone()));
        };
        let signature = item.signature.as_deref().unwrap_or_default();
        if ![&full_bytes, &classic_bytes].into_iter().flatten().any(|bytes| key.verifies(bytes, signature)) {
            return Err(AuthError::InvalidAuthorizer { id: id.clone(), algorithm: key.algorithm() });
        }
    }
    Ok(())
}
