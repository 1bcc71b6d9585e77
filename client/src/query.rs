//! Asking for a wallet: a request with a reply over core NATS, signed by the initiator.
//!
//! Nothing is stored and nothing changes, so a lost query costs asking again. Invariant: a query's signed text is the
//! signed bytes of nothing else; like a full signature's it is a JSON object with a member of its own.

use sha2::{Digest as _, Sha256};

use crate::{
    attest::{Attesters, NotAttested},
    auth::{AuthError, InitiatorKey},
    fields::FieldBytes,
    gojson::{self, FieldReader, ObjectWriter, Value},
    request::{Invalid, check_id, check_signature_length},
    result::{Attestation, ErrorCode, KeygenResult, ResultError, ResultType, read_attestations, read_result_type},
};

/// Where queries are sent.
pub const WALLET_QUERY_SUBJECT: &str = "mpc.wallet_query";
/// Nodes share the queries: one of them answers each.
pub const WALLET_QUERY_GROUP: &str = "mpcium";
/// Bytes of a query.
pub const QUERY_BYTES_MAX: usize = 4096;
/// The one member of the signed text.
const SIGNED_MEMBER: &str = "mpcium_wallet_query_v1";
/// Begins the hashed bytes, a zero byte follows.
const DIGEST_TAG: &[u8] = b"mpcium/1 wallet query";

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalletQuery {
    /// Which wallet.
    pub wallet_id: String,
    /// Drawn anew for each query and repeated in the reply.
    pub request_id: String,
    /// Not answered after this: milliseconds since 1970.
    pub expires_at: u64,
    /// The initiator's, over [`WalletQuery::signed_bytes`].
    pub signature: Option<Vec<u8>>,
}

/// What is replied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalletReply {
    /// Which wallet.
    pub wallet_id: String,
    /// From the query.
    pub request_id: String,
    /// secp256k1: X ‖ Y, 64 bytes big-endian. `None` on failure.
    pub ecdsa_pub_key: Option<Vec<u8>>,
    /// Ed25519: the usual 32 bytes. `None` on failure.
    pub eddsa_pub_key: Option<Vec<u8>>,
    /// How many members sign together; 0 on failure.
    pub threshold: u32,
    /// How often the wallet has moved to another committee.
    pub epoch: u32,
    /// The UUIDs of the members; empty on failure.
    pub committee: Vec<String>,
    /// Whether the wallet was found.
    pub result_type: ResultType,
    /// For people; empty on success.
    pub error_reason: String,
    /// An [`ErrorCode`] by name; empty on success.
    pub error_code: String,
    /// The members' signatures over the [`KeygenResult`] with these keys, made when the wallet was.
    pub wallet_attestations: Vec<Attestation>,
    /// The answering node's, over everything before.
    pub attestations: Option<Vec<Attestation>>,
}

impl WalletQuery {
    /// What the initiator signs.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut covered = FieldBytes::default();
        covered.string(&self.wallet_id).string(&self.request_id);
        covered.0.extend_from_slice(&self.expires_at.to_be_bytes());
        let mut digest = Sha256::new();
        digest.update(DIGEST_TAG);
        digest.update([0]);
        digest.update(covered.0);
        let mut object = ObjectWriter::new();
        object.string(SIGNED_MEMBER, &hex::encode(digest.finalize()));
        object.finish()
    }

    /// The document as clients send it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut object = ObjectWriter::new();
        object.string("wallet_id", &self.wallet_id).string("request_id", &self.request_id);
        object.member("expires_at").extend_from_slice(self.expires_at.to_string().as_bytes());
        object.bytes("signature", self.signature.as_deref());
        object.finish()
    }

    /// Reads a query.
    ///
    /// # Errors
    /// If it is too long, not a JSON object, or a member has the wrong type.
    pub fn from_json(document: &[u8]) -> Result<Self, ResultError> {
        if document.len() > QUERY_BYTES_MAX {
            return Err(ResultError(format!("{} bytes, at most {QUERY_BYTES_MAX} are read", document.len())));
        }
        let mut query = Self::default();
        read_members(document, |reader, name, value| match name {
            "wallet_id" => reader.string(name, value, &mut query.wallet_id),
            "request_id" => reader.string(name, value, &mut query.request_id),
            "expires_at" => reader.integer(name, value, &mut query.expires_at),
            "signature" => reader.bytes(name, value, &mut query.signature),
            _ => {}
        })?;
        Ok(query)
    }

    /// Whether it can be answered, as far as the document alone shows.
    ///
    /// # Errors
    /// The first field with a value that is not allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_id("wallet_id", &self.wallet_id)?;
        check_id("request_id", &self.request_id)?;
        check_signature_length("signature", self.signature.as_deref())
    }

    /// Checks the initiator's signature.
    ///
    /// # Errors
    /// If there is none, or it does not verify.
    pub fn verify(&self, initiator: &InitiatorKey) -> Result<(), AuthError> {
        match self.signature.as_deref() {
            None | Some([]) => Err(AuthError::SignatureEmpty),
            Some(signature) if initiator.0.verifies(&self.signed_bytes(), signature) => Ok(()),
            Some(_) => Err(AuthError::InvalidSignature { algorithm: initiator.0.algorithm() }),
        }
    }
}

impl WalletReply {
    /// The reply to a query that cannot be answered otherwise.
    #[must_use]
    pub fn error(query: &WalletQuery, code: ErrorCode, reason: impl Into<String>) -> Self {
        Self {
            wallet_id: query.wallet_id.clone(),
            request_id: query.request_id.clone(),
            error_code: code.as_str().to_owned(),
            error_reason: reason.into(),
            ..Self::default()
        }
    }

    fn write(&self) -> ObjectWriter {
        let mut object = ObjectWriter::new();
        object
            .string("wallet_id", &self.wallet_id)
            .string("request_id", &self.request_id)
            .bytes("ecdsa_pub_key", self.ecdsa_pub_key.as_deref())
            .bytes("eddsa_pub_key", self.eddsa_pub_key.as_deref())
            .integer("threshold", self.threshold.into())
            .integer("epoch", self.epoch.into())
            .array("committee", Some(&self.committee), |out, id| gojson::write_string(out, id))
            .string("result_type", self.result_type.as_str())
            .string("error_reason", &self.error_reason)
            .string("error_code", &self.error_code)
            .array("wallet_attestations", Some(&self.wallet_attestations), |out, item| {
                let mut element = ObjectWriter::new();
                element.string("node_id", &item.node_id).bytes("signature", Some(&item.signature));
                out.extend_from_slice(&element.finish());
            });
        object
    }

    /// What the answering node signs.
    #[must_use]
    pub fn attested_bytes(&self) -> Vec<u8> {
        self.write().finish()
    }

    /// The document as nodes send it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut object = self.write();
        crate::result::write_attestations(&mut object, self.attestations.as_deref());
        object.finish()
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// If it is not a JSON object, or a member has the wrong type.
    pub fn from_json(document: &[u8]) -> Result<Self, ResultError> {
        let mut reply = Self::default();
        let (mut committee, mut by_members) = (None, None);
        read_members(document, |reader, name, value| match name {
            "wallet_id" => reader.string(name, value, &mut reply.wallet_id),
            "request_id" => reader.string(name, value, &mut reply.request_id),
            "ecdsa_pub_key" => reader.bytes(name, value, &mut reply.ecdsa_pub_key),
            "eddsa_pub_key" => reader.bytes(name, value, &mut reply.eddsa_pub_key),
            "threshold" => reader.integer(name, value, &mut reply.threshold),
            "epoch" => reader.integer(name, value, &mut reply.epoch),
            "committee" => reader.slice(name, value, &mut committee, |reader, item| {
                let mut id = String::new();
                reader.string("committee", item, &mut id);
                id
            }),
            "result_type" => read_result_type(reader, value, &mut reply.result_type),
            "error_reason" => reader.string(name, value, &mut reply.error_reason),
            "error_code" => reader.string(name, value, &mut reply.error_code),
            "wallet_attestations" => read_attestations(reader, value, &mut by_members),
            "attestations" => read_attestations(reader, value, &mut reply.attestations),
            _ => {}
        })?;
        reply.committee = committee.unwrap_or_default();
        reply.wallet_attestations = by_members.unwrap_or_default();
        Ok(reply)
    }

    /// Checks who says so: the reply by one node, the keys by as many members as a success needs.
    ///
    /// # Errors
    /// If too few nodes have signed one of the two.
    pub fn check(&self, attesters: &Attesters) -> Result<(), NotAttested> {
        attesters.check_document(&self.attested_bytes(), self.attestations.as_deref().unwrap_or_default(), 1)?;
        if self.result_type == ResultType::Error {
            return Ok(());
        }
        attesters.check_document(&self.wallet_document(), &self.wallet_attestations, attesters.for_success())
    }

    /// What the members signed when the wallet was made: the [`KeygenResult`] with these keys.
    #[must_use]
    pub fn wallet_document(&self) -> Vec<u8> {
        let keys = KeygenResult {
            wallet_id: self.wallet_id.clone(),
            ecdsa_pub_key: self.ecdsa_pub_key.clone(),
            eddsa_pub_key: self.eddsa_pub_key.clone(),
            result_type: ResultType::Success,
            ..KeygenResult::default()
        };
        keys.attested_bytes()
    }
}

fn read_members(document: &[u8], mut read: impl FnMut(&mut FieldReader, &str, Value)) -> Result<(), ResultError> {
    let members = match gojson::parse(document).map_err(|error| ResultError(error.to_string()))? {
        Value::Object(members) => members,
        other => return Err(ResultError(format!("expected an object, got {}", other.kind()))),
    };
    let mut reader = FieldReader::default();
    for (name, value) in members {
        read(&mut reader, &name, value);
    }
    match reader.first_error {
        None => Ok(()),
        Some((field, problem)) => Err(ResultError(format!("{field}: {problem}"))),
    }
}
