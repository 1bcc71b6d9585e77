//! What clients ask for: the request documents, the bytes that initiators sign, and the checks before anything acts.
//!
//! A cluster verifies signatures over a re-encoding of the decoded document, so decoding keeps everything that the
//! encoding shows, the difference between `null` and empty included. Invariant: no signed bytes of a request that
//! passes [`Request::validate`] are the signed bytes of a request of another kind.

use serde::{Deserialize, Serialize};

use crate::{
    fields::FieldBytes,
    full::{FULL_SIGNATURE_FIELD, FullSignature},
    gojson::{self, FieldReader, ObjectWriter, Value},
    hash::MessageHash,
    result::ErrorCode,
};

/// Bytes of a request document.
pub const REQUEST_BYTES_MAX: usize = 512 * 1024;
/// Bytes of an id or a network code.
pub const ID_BYTES_MAX: usize = 256;
/// Bytes of an Ed25519 message.
pub const TX_BYTES_MAX: usize = 256 * 1024;
/// Levels of a derivation path.
pub const PATH_LEVELS_MAX: usize = 255;
/// Members of a new committee.
pub const COMMITTEE_MAX: usize = 32;
/// Authorizer signatures on one request.
pub const AUTHORIZER_SIGNATURES_MAX: usize = 64;
/// Bytes of one signature: 64 for Ed25519, up to 72 for P-256 in DER.
pub const SIGNATURE_BYTES_MAX: usize = 128;

/// Indices from here on are hardened, which needs a private key that nobody has.
const HARDENED: u32 = 1 << 31;

/// The kinds of request, each with a queue of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Create a wallet.
    Keygen,
    /// Sign with a wallet.
    Sign,
    /// Move one of a wallet's keys to another committee.
    Reshare,
}

/// The curves, each with one signature scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyType {
    /// ECDSA over secp256k1.
    Secp256k1,
    /// Ed25519 as in RFC 8032.
    Ed25519,
}

impl KeyType {
    /// Its name in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secp256k1 => "secp256k1",
            Self::Ed25519 => "ed25519",
        }
    }

    /// From its name in documents, exactly.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "secp256k1" => Some(Self::Secp256k1),
            "ed25519" => Some(Self::Ed25519),
            _ => None,
        }
    }
}

impl std::fmt::Display for KeyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An authorizer's approval of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizerSignature {
    /// Which authorizer, as named in the configuration.
    pub authorizer_id: String,
    /// Over [`Request::authorizer_bytes`].
    pub signature: Option<Vec<u8>>,
}

/// Create a wallet: one key on each curve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeygenRequest {
    /// The new wallet's id.
    pub wallet_id: String,
    /// The initiator's, over [`Request::canonical`].
    pub signature: Option<Vec<u8>>,
    /// Approvals.
    pub authorizer_signatures: Vec<AuthorizerSignature>,
    /// The initiator's signature over everything, which the existing clients do not send.
    pub full_signature: Option<FullSignature>,
}

/// Sign with a wallet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignRequest {
    /// Which of the wallet's keys: a [`KeyType`] by name.
    pub key_type: String,
    /// Which wallet.
    pub wallet_id: String,
    /// Free text, repeated in the result.
    pub network_internal_code: String,
    /// The request's id.
    pub tx_id: String,
    /// secp256k1: the digest, as a big-endian integer below the group order; or, if [`hash`](Self::hash) names a hash
    /// function, the message. Ed25519: the message.
    /// `None` and empty mean the same to the signer, but are different signed bytes.
    pub tx: Option<Vec<u8>>,
    /// secp256k1: how the nodes hash the message, a [`MessageHash`] by name; empty: `tx` is the digest. A request that
    /// names one needs a full signature, and the existing clients never do.
    pub hash: String,
    /// The initiator's, over [`Request::canonical`].
    pub signature: Option<Vec<u8>>,
    /// Child key indices; empty: the wallet's own key. Covered by the full signature only.
    pub derivation_path: Vec<u32>,
    /// Approvals.
    pub authorizer_signatures: Vec<AuthorizerSignature>,
    /// The initiator's signature over everything, which the existing clients do not send.
    pub full_signature: Option<FullSignature>,
}

/// Move one of a wallet's keys to another committee.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReshareRequest {
    /// The request's id.
    pub session_id: String,
    /// The new members' UUIDs; `None` (`null`) and empty are different signed bytes.
    pub node_ids: Option<Vec<String>>,
    /// The new threshold; whether it counts signers or is the polynomial's degree is the cluster's configuration.
    pub new_threshold: i64,
    /// Which of the wallet's keys: a [`KeyType`] by name.
    pub key_type: String,
    /// Which wallet.
    pub wallet_id: String,
    /// The initiator's, over [`Request::canonical`].
    pub signature: Option<Vec<u8>>,
    /// Approvals.
    pub authorizer_signatures: Vec<AuthorizerSignature>,
    /// The initiator's signature over everything, which the existing clients do not send.
    pub full_signature: Option<FullSignature>,
}

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Create a wallet.
    Keygen(KeygenRequest),
    /// Sign with a wallet.
    Sign(SignRequest),
    /// Move a key to another committee.
    Reshare(ReshareRequest),
}

impl From<KeygenRequest> for Request {
    fn from(request: KeygenRequest) -> Self {
        Self::Keygen(request)
    }
}

impl From<SignRequest> for Request {
    fn from(request: SignRequest) -> Self {
        Self::Sign(request)
    }
}

impl From<ReshareRequest> for Request {
    fn from(request: ReshareRequest) -> Self {
        Self::Reshare(request)
    }
}

/// Why a document is not a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong, and in which field.
    pub reason: String,
    /// What could be read all the same, so that the answer can name the wallet and the request. Never act on it.
    pub partial: Box<Request>,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for DecodeError {}

/// A field with a value that no cluster acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The field's name in the document.
    pub field: &'static str,
    /// What is expected and what was found.
    pub problem: String,
}

impl Invalid {
    /// The code that the client is answered with.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        ErrorCode::MsgValidation
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for Invalid {}

impl Request {
    /// Reads a document by the rules of Go's `json.Unmarshal`: names in any case, the last repetition wins, unknown
    /// members are ignored, `null` is the zero value.
    ///
    /// # Errors
    /// If the bytes are longer than [`REQUEST_BYTES_MAX`], not one JSON object, or a field has the wrong type.
    pub fn decode(kind: Kind, body: &[u8]) -> Result<Self, DecodeError> {
        let mut request = Self::empty(kind);
        let failed = |request, reason| Err(DecodeError { reason, partial: Box::new(request) });
        if body.len() > REQUEST_BYTES_MAX {
            let reason = format!("the document has {} bytes, at most {REQUEST_BYTES_MAX} are read", body.len());
            return failed(request, reason);
        }
        let members = match gojson::parse(body) {
            Ok(Value::Object(members)) => members,
            Ok(Value::Null) => Vec::new(),
            Ok(other) => return failed(request, format!("expected an object, got {}", other.kind())),
            Err(error) => return failed(request, error.to_string()),
        };
        let mut reader = FieldReader::default();
        for (name, value) in members {
            request.read_member(&mut reader, &name, value);
        }
        match reader.first_error {
            None => Ok(request),
            Some((field, problem)) => failed(request, format!("{field}: {problem}")),
        }
    }

    fn empty(kind: Kind) -> Self {
        match kind {
            Kind::Keygen => Self::Keygen(KeygenRequest::default()),
            Kind::Sign => Self::Sign(SignRequest::default()),
            Kind::Reshare => Self::Reshare(ReshareRequest::default()),
        }
    }

    fn read_member(&mut self, reader: &mut FieldReader, name: &str, value: Value) {
        let fields: &[&str] = match self {
            Self::Keygen(_) => &KEYGEN_FIELDS,
            Self::Sign(_) => &SIGN_FIELDS,
            Self::Reshare(_) => &RESHARE_FIELDS,
        };
        if gojson::same_name(FULL_SIGNATURE_FIELD, name) {
            return FullSignature::read(reader, value, self.full_signature_mut());
        }
        let Some(&field) = fields.iter().find(|field| gojson::same_name(field, name)) else { return };
        match (self, field) {
            (Self::Keygen(r), "wallet_id") => reader.string(field, value, &mut r.wallet_id),
            (Self::Keygen(r), "signature") => reader.bytes(field, value, &mut r.signature),
            (Self::Keygen(r), _) => read_authorizers(reader, field, value, &mut r.authorizer_signatures),

            (Self::Sign(r), "key_type") => reader.string(field, value, &mut r.key_type),
            (Self::Sign(r), "wallet_id") => reader.string(field, value, &mut r.wallet_id),
            (Self::Sign(r), "network_internal_code") => reader.string(field, value, &mut r.network_internal_code),
            (Self::Sign(r), "tx_id") => reader.string(field, value, &mut r.tx_id),
            (Self::Sign(r), "tx") => reader.bytes(field, value, &mut r.tx),
            (Self::Sign(r), "hash") => reader.string(field, value, &mut r.hash),
            (Self::Sign(r), "signature") => reader.bytes(field, value, &mut r.signature),
            (Self::Sign(r), "derivation_path") => {
                let mut path = Some(std::mem::take(&mut r.derivation_path));
                reader.slice(field, value, &mut path, |reader, item| {
                    let mut index = 0;
                    reader.integer(field, item, &mut index);
                    index
                });
                r.derivation_path = path.unwrap_or_default();
            }
            (Self::Sign(r), _) => read_authorizers(reader, field, value, &mut r.authorizer_signatures),

            (Self::Reshare(r), "session_id") => reader.string(field, value, &mut r.session_id),
            (Self::Reshare(r), "node_ids") => reader.slice(field, value, &mut r.node_ids, |reader, item| {
                let mut id = String::new();
                reader.string(field, item, &mut id);
                id
            }),
            (Self::Reshare(r), "new_threshold") => reader.integer(field, value, &mut r.new_threshold),
            (Self::Reshare(r), "key_type") => reader.string(field, value, &mut r.key_type),
            (Self::Reshare(r), "wallet_id") => reader.string(field, value, &mut r.wallet_id),
            (Self::Reshare(r), "signature") => reader.bytes(field, value, &mut r.signature),
            (Self::Reshare(r), _) => read_authorizers(reader, field, value, &mut r.authorizer_signatures),
        }
    }

    /// The document as clients send it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut object = ObjectWriter::new();
        match self {
            Self::Keygen(r) => {
                object.string("wallet_id", &r.wallet_id).bytes("signature", r.signature.as_deref());
            }
            Self::Sign(r) => {
                r.write_signed(&mut object);
                object.bytes("signature", r.signature.as_deref());
                let path = Some(r.derivation_path.as_slice()).filter(|path| !path.is_empty());
                object.array("derivation_path", path, |out, index| out.extend_from_slice(index.to_string().as_bytes()));
            }
            Self::Reshare(r) => {
                r.write_signed(&mut object);
                if let Some(signature) = r.signature.as_deref().filter(|signature| !signature.is_empty()) {
                    object.bytes("signature", Some(signature));
                }
            }
        }
        let authorizers = self.authorizer_signatures();
        if !authorizers.is_empty() {
            object.array("authorizer_signatures", Some(authorizers), |out, item| {
                let mut element = ObjectWriter::new();
                element.string("authorizer_id", &item.authorizer_id).bytes("signature", item.signature.as_deref());
                out.extend_from_slice(&element.finish());
            });
        }
        if let Some(full) = self.full_signature() {
            full.write(&mut object);
        }
        object.finish()
    }

    /// The bytes that the initiator signs: the bare wallet id for key generation, otherwise the Go encoding of the
    /// fields of the contract (see [`SignRequest`] and [`ReshareRequest`] for what is left out).
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut object = ObjectWriter::new();
        match self {
            Self::Keygen(r) => return r.wallet_id.as_bytes().to_vec(),
            Self::Sign(r) => r.write_signed(&mut object),
            Self::Reshare(r) => r.write_signed(&mut object),
        }
        object.finish()
    }

    /// The bytes of the full signature, which covers every field; `None` without one.
    #[must_use]
    pub fn full_bytes(&self) -> Option<Vec<u8>> {
        self.full_signature().map(|full| full.signed_bytes(&self.payload_bytes()))
    }

    /// What an authorizer should sign: the full bytes where the request has a full signature, otherwise
    /// [`authorizer_bytes`](Self::authorizer_bytes).
    #[must_use]
    pub fn approval_bytes(&self) -> Vec<u8> {
        self.full_bytes().unwrap_or_else(|| self.authorizer_bytes())
    }

    /// The bytes that authorizers of the existing system sign: they bind the initiator's bytes and signature.
    #[must_use]
    pub fn authorizer_bytes(&self) -> Vec<u8> {
        let mut object = ObjectWriter::new();
        object
            .string("initiator_id", self.initiator_id())
            .bytes("initiator_raw", Some(&self.canonical()))
            .bytes("initiator_sig", self.signature());
        object.finish()
    }

    /// An unambiguous encoding of everything that makes two requests the same: the kind and every decoded field except
    /// the signatures. Equal bytes exactly if those are equal.
    #[must_use]
    pub fn payload_bytes(&self) -> Vec<u8> {
        let mut out = FieldBytes::default();
        match self {
            Self::Keygen(r) => out.tag(1).string(&r.wallet_id),
            Self::Sign(r) => {
                out.tag(2).string(&r.key_type).string(&r.wallet_id).string(&r.network_internal_code).string(&r.tx_id);
                out.optional(r.tx.as_deref()).length(r.derivation_path.len());
                r.derivation_path.iter().for_each(|index| out.0.extend_from_slice(&index.to_be_bytes()));
                // Nothing else may follow the path, so requests without a hash have the bytes that they always had.
                if r.hash.is_empty() { &mut out } else { out.string(&r.hash) }
            }
            Self::Reshare(r) => {
                out.tag(3).string(&r.session_id);
                match &r.node_ids {
                    None => out.tag(0),
                    Some(ids) => {
                        out.tag(1).length(ids.len());
                        ids.iter().fold(&mut out, |out, id| out.string(id))
                    }
                };
                out.0.extend_from_slice(&r.new_threshold.to_be_bytes());
                out.string(&r.key_type).string(&r.wallet_id)
            }
        };
        out.0
    }

    /// An unambiguous encoding of all decoded fields, the signatures included. Equal bytes exactly if the requests are
    /// equal.
    #[must_use]
    pub fn all_bytes(&self) -> Vec<u8> {
        let mut out = FieldBytes::default();
        out.string_bytes(&self.payload_bytes()).optional(self.signature()).length(self.authorizer_signatures().len());
        for item in self.authorizer_signatures() {
            out.string(&item.authorizer_id).optional(item.signature.as_deref());
        }
        match self.full_signature() {
            None => drop(out.tag(0)),
            Some(full) => full.put(out.tag(1)),
        }
        out.0
    }

    /// Whether a cluster may act on it, as far as the document alone shows.
    ///
    /// # Errors
    /// The first field with a value that is not allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Keygen(r) => {
                check_id("wallet_id", &r.wallet_id)?;
                if r.wallet_id.starts_with('{') {
                    // The bare id is what is signed: such an id could be the signed bytes of another request.
                    return invalid("wallet_id", "must not begin with \"{\": its signature could pass for another's");
                }
            }
            Self::Sign(r) => r.validate()?,
            Self::Reshare(r) => r.validate()?,
        }
        check_signature_length("signature", self.signature())?;
        let authorizers = self.authorizer_signatures();
        if authorizers.len() > AUTHORIZER_SIGNATURES_MAX {
            let problem = format!("{} signatures, at most {AUTHORIZER_SIGNATURES_MAX} are read", authorizers.len());
            return invalid("authorizer_signatures", problem);
        }
        for item in authorizers {
            if item.authorizer_id.len() > ID_BYTES_MAX {
                return invalid(
                    "authorizer_signatures",
                    format!(
                        "an authorizer_id of {} bytes, at most {ID_BYTES_MAX} are allowed",
                        item.authorizer_id.len()
                    ),
                );
            }
            check_signature_length("authorizer_signatures", item.signature.as_deref())?;
        }
        self.full_signature().map_or(Ok(()), FullSignature::validate)
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Keygen(_) => Kind::Keygen,
            Self::Sign(_) => Kind::Sign,
            Self::Reshare(_) => Kind::Reshare,
        }
    }

    /// The wallet that it is about.
    #[must_use]
    pub fn wallet_id(&self) -> &str {
        match self {
            Self::Keygen(r) => &r.wallet_id,
            Self::Sign(r) => &r.wallet_id,
            Self::Reshare(r) => &r.wallet_id,
        }
    }

    /// Its own id within its kind: wallet, transaction or session id.
    #[must_use]
    pub fn request_id(&self) -> &str {
        match self {
            Self::Keygen(r) => &r.wallet_id,
            Self::Sign(r) => &r.tx_id,
            Self::Reshare(r) => &r.session_id,
        }
    }

    /// The id that stands in the bytes that authorizers sign.
    #[must_use]
    pub fn initiator_id(&self) -> &str {
        match self {
            Self::Keygen(r) => &r.wallet_id,
            Self::Sign(r) => &r.tx_id,
            Self::Reshare(r) => &r.wallet_id,
        }
    }

    /// The initiator's signature.
    #[must_use]
    pub fn signature(&self) -> Option<&[u8]> {
        match self {
            Self::Keygen(r) => r.signature.as_deref(),
            Self::Sign(r) => r.signature.as_deref(),
            Self::Reshare(r) => r.signature.as_deref(),
        }
    }

    /// Puts in the initiator's signature.
    pub fn set_signature(&mut self, signature: Vec<u8>) {
        match self {
            Self::Keygen(r) => r.signature = Some(signature),
            Self::Sign(r) => r.signature = Some(signature),
            Self::Reshare(r) => r.signature = Some(signature),
        }
    }

    /// The initiator's signature over everything, if there is one.
    #[must_use]
    pub const fn full_signature(&self) -> Option<&FullSignature> {
        match self {
            Self::Keygen(r) => r.full_signature.as_ref(),
            Self::Sign(r) => r.full_signature.as_ref(),
            Self::Reshare(r) => r.full_signature.as_ref(),
        }
    }

    /// Whether it asks for something that only a full signature can ask for: a message that the nodes hash.
    #[must_use]
    pub const fn needs_full_signature(&self) -> bool {
        matches!(self, Self::Sign(r) if !r.hash.is_empty())
    }

    /// Puts in, replaces or removes the initiator's signature over everything.
    pub const fn full_signature_mut(&mut self) -> &mut Option<FullSignature> {
        match self {
            Self::Keygen(r) => &mut r.full_signature,
            Self::Sign(r) => &mut r.full_signature,
            Self::Reshare(r) => &mut r.full_signature,
        }
    }

    /// Adds an authorizer's approval.
    pub fn approve(&mut self, authorizer_id: impl Into<String>, signature: Vec<u8>) {
        let item = AuthorizerSignature { authorizer_id: authorizer_id.into(), signature: Some(signature) };
        match self {
            Self::Keygen(r) => r.authorizer_signatures.push(item),
            Self::Sign(r) => r.authorizer_signatures.push(item),
            Self::Reshare(r) => r.authorizer_signatures.push(item),
        }
    }

    /// The approvals.
    #[must_use]
    pub fn authorizer_signatures(&self) -> &[AuthorizerSignature] {
        match self {
            Self::Keygen(r) => &r.authorizer_signatures,
            Self::Sign(r) => &r.authorizer_signatures,
            Self::Reshare(r) => &r.authorizer_signatures,
        }
    }
}

const KEYGEN_FIELDS: [&str; 3] = ["wallet_id", "signature", "authorizer_signatures"];
const SIGN_FIELDS: [&str; 9] = [
    "key_type",
    "wallet_id",
    "network_internal_code",
    "tx_id",
    "tx",
    "hash",
    "signature",
    "derivation_path",
    "authorizer_signatures",
];
const RESHARE_FIELDS: [&str; 7] =
    ["session_id", "node_ids", "new_threshold", "key_type", "wallet_id", "signature", "authorizer_signatures"];

fn read_authorizers(reader: &mut FieldReader, field: &str, value: Value, into: &mut Vec<AuthorizerSignature>) {
    let mut items = Some(std::mem::take(into));
    reader.slice(field, value, &mut items, |reader, item| {
        let mut element = AuthorizerSignature::default();
        match item {
            Value::Null => {}
            Value::Object(members) => {
                for (name, value) in members {
                    if gojson::same_name(&name, "authorizer_id") {
                        reader.string("authorizer_signatures.authorizer_id", value, &mut element.authorizer_id);
                    } else if gojson::same_name(&name, "signature") {
                        reader.bytes("authorizer_signatures.signature", value, &mut element.signature);
                    }
                }
            }
            other => reader.wrong_type(field, "an object", &other),
        }
        element
    });
    *into = items.unwrap_or_default();
}

impl SignRequest {
    fn write_signed(&self, object: &mut ObjectWriter) {
        object
            .string("key_type", &self.key_type)
            .string("wallet_id", &self.wallet_id)
            .string("network_internal_code", &self.network_internal_code)
            .string("tx_id", &self.tx_id)
            .bytes("tx", self.tx.as_deref());
        // Part of what is signed: without it a message of at most 32 bytes could pass for a digest.
        if !self.hash.is_empty() {
            object.string("hash", &self.hash);
        }
    }

    fn validate(&self) -> Result<(), Invalid> {
        check_id("wallet_id", &self.wallet_id)?;
        check_id("tx_id", &self.tx_id)?;
        if self.network_internal_code.len() > ID_BYTES_MAX {
            let found = self.network_internal_code.len();
            return invalid("network_internal_code", format!("{found} bytes, at most {ID_BYTES_MAX} are allowed"));
        }
        let found = self.message().len();
        let hash = self.message_hash()?;
        match check_key_type(&self.key_type)? {
            KeyType::Ed25519 if hash.is_some() => {
                return invalid("hash", "only secp256k1 signs a digest: Ed25519 signs the message itself");
            }
            KeyType::Secp256k1 if hash.is_none() => drop(self.digest()?),
            _ if found > TX_BYTES_MAX => {
                return invalid("tx", format!("a message of {found} bytes, at most {TX_BYTES_MAX} are signed"));
            }
            KeyType::Secp256k1 => drop(self.digest()?),
            KeyType::Ed25519 => {}
        }
        let levels = self.derivation_path.len();
        if levels > PATH_LEVELS_MAX {
            return invalid("derivation_path", format!("{levels} levels, at most {PATH_LEVELS_MAX} are allowed"));
        }
        if let Some(index) = self.derivation_path.iter().find(|&&index| index >= HARDENED) {
            return invalid("derivation_path", format!("the index {index} must be non-hardened, below {HARDENED}"));
        }
        Ok(())
    }

    /// Which of the wallet's keys.
    ///
    /// # Errors
    /// If the name is unknown.
    pub fn key_type(&self) -> Result<KeyType, Invalid> {
        check_key_type(&self.key_type)
    }

    /// Asks for a signature over `message`, hashed by the nodes with `hash`, instead of over a digest.
    #[must_use]
    pub fn with_message(mut self, hash: MessageHash, message: impl Into<Vec<u8>>) -> Self {
        self.hash = hash.as_str().to_owned();
        self.tx = Some(message.into());
        self
    }

    /// How the message is hashed; `None`: `tx` is not hashed.
    ///
    /// # Errors
    /// If the name is unknown.
    pub fn message_hash(&self) -> Result<Option<MessageHash>, Invalid> {
        if self.hash.is_empty() {
            return Ok(None);
        }
        let shown: String = self.hash.chars().take(32).collect();
        let names = MessageHash::ALL.map(MessageHash::as_str).join(", ");
        let problem = format!("unknown hash function {shown:?}, expected one of {names}");
        MessageHash::from_name(&self.hash).map(Some).ok_or(Invalid { field: "hash", problem })
    }

    /// The message of an Ed25519 request or of one that names a hash; `None` is the empty message.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        self.tx.as_deref().unwrap_or_default()
    }

    /// The digest of a secp256k1 request: the hash of the message if the request names how to hash it, and `tx` as a
    /// big-endian integer, 32 bytes, otherwise. Then nothing is hashed; missing leading zeros are added, surplus ones
    /// removed.
    ///
    /// # Errors
    /// If the integer is not below the group order, or the hash is unknown.
    pub fn digest(&self) -> Result<[u8; 32], Invalid> {
        use k256::elliptic_curve::PrimeField;

        let digest = match self.message_hash()? {
            Some(hash) => hash.digest(self.message()),
            None => self.padded_tx()?,
        };
        if bool::from(k256::Scalar::from_repr(digest.into()).is_none()) {
            return invalid("tx", "a secp256k1 digest must be below the order of the group");
        }
        Ok(digest)
    }

    fn padded_tx(&self) -> Result<[u8; 32], Invalid> {
        let tx = self.message();
        let significant = tx.iter().position(|&byte| byte != 0).and_then(|start| tx.get(start..)).unwrap_or_default();
        let mut digest = [0; 32];
        let Some(place) = 32_usize.checked_sub(significant.len()).and_then(|start| digest.get_mut(start..)) else {
            let found = significant.len();
            return invalid(
                "tx",
                format!("a secp256k1 digest has at most 32 bytes, got {found}; nothing is hashed here"),
            );
        };
        place.copy_from_slice(significant);
        Ok(digest)
    }
}

impl ReshareRequest {
    fn write_signed(&self, object: &mut ObjectWriter) {
        object
            .string("session_id", &self.session_id)
            .array("node_ids", self.node_ids.as_deref(), |out, id| gojson::write_string(out, id))
            .integer("new_threshold", self.new_threshold)
            .string("key_type", &self.key_type)
            .string("wallet_id", &self.wallet_id);
    }

    fn validate(&self) -> Result<(), Invalid> {
        check_id("session_id", &self.session_id)?;
        check_id("wallet_id", &self.wallet_id)?;
        check_key_type(&self.key_type)?;
        let ids = self.node_ids.as_deref().unwrap_or_default();
        if ids.is_empty() || ids.len() > COMMITTEE_MAX {
            return invalid("node_ids", format!("a committee has 1 to {COMMITTEE_MAX} members, got {}", ids.len()));
        }
        let mut seen = std::collections::BTreeSet::new();
        for id in ids {
            check_id("node_ids", id)?;
            if !seen.insert(id) {
                return invalid("node_ids", format!("{id} twice"));
            }
        }
        if usize::try_from(self.new_threshold).map_or(true, |threshold| threshold > ids.len()) {
            let (found, members) = (self.new_threshold, ids.len());
            return invalid("new_threshold", format!("{found} is not possible with {members} members"));
        }
        Ok(())
    }

    /// Which of the wallet's keys.
    ///
    /// # Errors
    /// If the name is unknown.
    pub fn key_type(&self) -> Result<KeyType, Invalid> {
        check_key_type(&self.key_type)
    }
}

pub(crate) fn invalid<T>(field: &'static str, problem: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid { field, problem: problem.into() })
}

pub(crate) fn check_id(field: &'static str, id: &str) -> Result<(), Invalid> {
    if id.is_empty() {
        return invalid(field, "must not be empty");
    }
    if id.len() > ID_BYTES_MAX {
        return invalid(field, format!("{} bytes, at most {ID_BYTES_MAX} are allowed", id.len()));
    }
    Ok(())
}

fn check_key_type(name: &str) -> Result<KeyType, Invalid> {
    let shown: String = name.chars().take(32).collect();
    KeyType::from_name(name).ok_or(Invalid {
        field: "key_type",
        problem: format!("unsupported key type: {shown:?}, expected \"secp256k1\" or \"ed25519\""),
    })
}

pub(crate) fn check_signature_length(field: &'static str, signature: Option<&[u8]>) -> Result<(), Invalid> {
    match signature.map(<[u8]>::len) {
        Some(found) if found > SIGNATURE_BYTES_MAX => {
            invalid(field, format!("a signature of {found} bytes, at most {SIGNATURE_BYTES_MAX} are read"))
        }
        _ => Ok(()),
    }
}
