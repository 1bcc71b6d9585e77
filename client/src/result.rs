//! What clusters answer: the result documents and the error codes.
//!
//! Field names, their order, nulls and encodings are those of the existing system; nothing is ever left out. The only
//! addition is `attestations`, which is written only if there are some and which other clients ignore.

use crate::gojson::{self, FieldReader, ObjectWriter, Value};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a request failed, as a fixed word. Clients of the existing system know all of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word in documents.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    /// Nothing more exact is known.
    Unknown = "ERROR_UNKNOWN",
    /// Peers did not answer in time.
    NetworkTimeout = "ERROR_NETWORK_TIMEOUT",
    /// No connection.
    NetworkConnection = "ERROR_NETWORK_CONNECTION",
    /// A subscription failed.
    NetworkSubscription = "ERROR_NETWORK_SUBSCRIPTION",
    /// A message could not be routed.
    MessageRouting = "ERROR_MESSAGE_ROUTING",
    /// A message to one peer failed.
    DirectMessaging = "ERROR_DIRECT_MESSAGING",
    /// A session took too long.
    SessionTimeout = "ERROR_SESSION_TIMEOUT",
    /// A session could not be created.
    SessionCreation = "ERROR_SESSION_CREATION",
    /// A session could not be started.
    SessionInitialization = "ERROR_SESSION_INITIALIZATION",
    /// A session could not be cleaned up.
    SessionCleanup = "ERROR_SESSION_CLEANUP",
    /// The request's id is taken by another request.
    SessionDuplicate = "ERROR_SESSION_DUPLICATE",
    /// The session is out of date.
    SessionStale = "ERROR_SESSION_STALE",
    /// Too few participants.
    InsufficientParticipants = "ERROR_INSUFFICIENT_PARTICIPANTS",
    /// The participants do not fit the wallet.
    IncompatiblePeerIds = "ERROR_INCOMPATIBLE_PEER_IDS",
    /// A peer is not ready.
    PeerNotReady = "ERROR_PEER_NOT_READY",
    /// A peer cannot be reached.
    PeerUnavailable = "ERROR_PEER_UNAVAILABLE",
    /// A participant is unknown.
    ParticipantNotFound = "ERROR_PARTICIPANT_NOT_FOUND",
    /// There is no such wallet.
    KeyNotFound = "ERROR_KEY_NOT_FOUND",
    /// There is such a wallet already, and it differs.
    KeyAlreadyExists = "ERROR_KEY_ALREADY_EXISTS",
    /// A key could not be generated.
    KeyGeneration = "ERROR_KEY_GENERATION",
    /// A share could not be saved.
    KeySave = "ERROR_KEY_SAVE",
    /// A share could not be loaded.
    KeyLoad = "ERROR_KEY_LOAD",
    /// A wallet's record could not be saved.
    KeyInfoSave = "ERROR_KEY_INFO_SAVE",
    /// A wallet's record could not be loaded.
    KeyInfoLoad = "ERROR_KEY_INFO_LOAD",
    /// A key could not be encoded.
    KeyEncoding = "ERROR_KEY_ENCODING",
    /// A key could not be decoded.
    KeyDecoding = "ERROR_KEY_DECODING",
    /// A field of the request has a value that is not allowed.
    MsgValidation = "ERROR_MSG_VALIDATION",
    /// A signature could not be made.
    SignatureGeneration = "ERROR_SIGNATURE_GENERATION",
    /// A signature does not verify.
    SignatureVerification = "ERROR_SIGNATURE_VERIFICATION",
    /// The initiator's signature is missing or does not verify.
    InvalidInitiatorSignature = "ERROR_INVALID_INITIATOR_SIGNATURE",
    /// Auxiliary data could not be generated.
    PreParamsGeneration = "ERROR_PRE_PARAMS_GENERATION",
    /// A protocol party could not be created.
    TssPartyCreation = "ERROR_TSS_PARTY_CREATION",
    /// A required authorizer has not signed.
    MissingAuthorizerSignature = "ERROR_MISSING_AUTHORIZER_SIGNATURE",
    /// An authorizer's signature does not verify.
    InvalidAuthorizerSignature = "ERROR_INVALID_AUTHORIZER_SIGNATURE",
    /// A document could not be written.
    MarshalFailure = "ERROR_MARSHAL_FAILURE",
    /// The document could not be read.
    UnmarshalFailure = "ERROR_UNMARSHAL_FAILURE",
    /// Stored data is damaged.
    DataCorruption = "ERROR_DATA_CORRUPTION",
    /// The store could not be read.
    StorageRead = "ERROR_STORAGE_READ",
    /// The store could not be written.
    StorageWrite = "ERROR_STORAGE_WRITE",
    /// The store could not be opened.
    StorageInit = "ERROR_STORAGE_INIT",
    /// A message or signature failed its check.
    MessageVerification = "ERROR_MESSAGE_VERIFICATION",
    /// A message is malformed.
    MessageFormat = "ERROR_MESSAGE_FORMAT",
    /// A message was not delivered.
    MessageDelivery = "ERROR_MESSAGE_DELIVERY",
    /// The request found no answer by its deadline; signing results with it say `is_timeout`.
    MaxDeliveryAttempts = "ERROR_MAX_DELIVERY_ATTEMPTS",
    /// The configuration is wrong.
    InvalidConfiguration = "ERROR_INVALID_CONFIGURATION",
    /// The threshold is not possible.
    InvalidThreshold = "ERROR_INVALID_THRESHOLD",
    /// No such kind of session.
    InvalidSessionType = "ERROR_INVALID_SESSION_TYPE",
    /// Out of some resource.
    ResourceExhausted = "ERROR_RESOURCE_EXHAUSTED",
    /// Out of memory.
    MemoryAllocation = "ERROR_MEMORY_ALLOCATION",
    /// Too many sessions.
    ConcurrencyLimit = "ERROR_CONCURRENCY_LIMIT",
    /// Key generation failed.
    KeygenFailure = "ERROR_KEYGEN_FAILURE",
    /// Signing failed.
    SigningFailure = "ERROR_SIGNING_FAILURE",
    /// Resharing failed.
    ReshareFailure = "ERROR_RESHARE_FAILURE",
    /// Cancelled.
    ContextCancelled = "ERROR_CONTEXT_CANCELLED",
    /// Given up.
    OperationAborted = "ERROR_OPERATION_ABORTED",
    /// Fewer nodes than must sign together can be reached.
    NotMajority = "ERROR_NOT_MAJORITY",
    /// Nodes that must take part are missing.
    ClusterNotReady = "ERROR_CLUSTER_NOT_READY",
}

impl ErrorCode {
    /// From the word in documents.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a request succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResultType {
    /// It did.
    Success,
    /// It did not.
    #[default]
    Error,
}

impl ResultType {
    /// The word in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
        }
    }
}

/// A participant's signature over a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attestation {
    /// The participant's UUID.
    pub node_id: String,
    /// With its identity key, over the result's `attested_bytes`.
    pub signature: Vec<u8>,
}

/// The answer to a key generation request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeygenResult {
    /// The wallet.
    pub wallet_id: String,
    /// secp256k1: X ‖ Y, 64 bytes big-endian. `None` on failure.
    pub ecdsa_pub_key: Option<Vec<u8>>,
    /// Ed25519: the usual 32 bytes. `None` on failure.
    pub eddsa_pub_key: Option<Vec<u8>>,
    /// Whether it succeeded.
    pub result_type: ResultType,
    /// For people; empty on success.
    pub error_reason: String,
    /// An [`ErrorCode`] by name; empty on success.
    pub error_code: String,
    /// The participants' signatures.
    pub attestations: Option<Vec<Attestation>>,
}

/// The answer to a signing request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigningResult {
    /// Whether it succeeded.
    pub result_type: ResultType,
    /// An [`ErrorCode`] by name; empty on success.
    pub error_code: String,
    /// For people; empty on success.
    pub error_reason: String,
    /// Whether it failed because no answer was found by its deadline.
    pub is_timeout: bool,
    /// From the request.
    pub network_internal_code: String,
    /// From the request.
    pub wallet_id: String,
    /// From the request.
    pub tx_id: String,
    /// secp256k1: 32 bytes big-endian.
    pub r: Option<Vec<u8>>,
    /// secp256k1: 32 bytes big-endian, at most half the group order.
    pub s: Option<Vec<u8>>,
    /// secp256k1: one byte; bit 0 is the parity of the nonce point's y, bit 1 whether its x exceeds the group order.
    pub signature_recovery: Option<Vec<u8>>,
    /// Ed25519: 64 bytes R ‖ S.
    pub signature: Option<Vec<u8>>,
    /// The participants' signatures.
    pub attestations: Option<Vec<Attestation>>,
}

/// The answer to a resharing request. It does not name the session: only its subject does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReshareResult {
    /// The wallet.
    pub wallet_id: String,
    /// From the request.
    pub new_threshold: i64,
    /// From the request.
    pub key_type: String,
    /// The unchanged public key, encoded as in [`KeygenResult`]. `None` on failure.
    pub pub_key: Option<Vec<u8>>,
    /// Whether it succeeded.
    pub result_type: ResultType,
    /// For people; empty on success.
    pub error_reason: String,
    /// An [`ErrorCode`] by name; empty on success.
    pub error_code: String,
    /// The participants' signatures.
    pub attestations: Option<Vec<Attestation>>,
}

/// A document that is not a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultError(pub(crate) String);

impl std::fmt::Display for ResultError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a result document: {}", self.0)
    }
}

impl std::error::Error for ResultError {}

impl KeygenResult {
    /// A wallet was created: its X ‖ Y on secp256k1 and its Ed25519 key.
    #[must_use]
    pub fn success(wallet_id: &str, ecdsa: &[u8; 64], eddsa: &[u8; 32]) -> Self {
        Self {
            wallet_id: wallet_id.to_owned(),
            ecdsa_pub_key: Some(ecdsa.to_vec()),
            eddsa_pub_key: Some(eddsa.to_vec()),
            result_type: ResultType::Success,
            ..Self::default()
        }
    }

    /// No wallet was created.
    #[must_use]
    pub fn error(wallet_id: &str, code: ErrorCode, reason: impl Into<String>) -> Self {
        Self {
            wallet_id: wallet_id.to_owned(),
            error_reason: reason.into(),
            error_code: code.as_str().to_owned(),
            ..Self::default()
        }
    }

    fn write(&self) -> ObjectWriter {
        let mut object = ObjectWriter::new();
        object
            .string("wallet_id", &self.wallet_id)
            .bytes("ecdsa_pub_key", self.ecdsa_pub_key.as_deref())
            .bytes("eddsa_pub_key", self.eddsa_pub_key.as_deref())
            .string("result_type", self.result_type.as_str())
            .string("error_reason", &self.error_reason)
            .string("error_code", &self.error_code);
        object
    }

    fn read(&mut self, reader: &mut FieldReader, name: &str, value: Value) {
        match name {
            "wallet_id" => reader.string(name, value, &mut self.wallet_id),
            "ecdsa_pub_key" => reader.bytes(name, value, &mut self.ecdsa_pub_key),
            "eddsa_pub_key" => reader.bytes(name, value, &mut self.eddsa_pub_key),
            "result_type" => read_result_type(reader, value, &mut self.result_type),
            "error_reason" => reader.string(name, value, &mut self.error_reason),
            "error_code" => reader.string(name, value, &mut self.error_code),
            "attestations" => read_attestations(reader, value, &mut self.attestations),
            _ => {}
        }
    }
}

impl SigningResult {
    /// An ECDSA signature; `s` must be low, `recovery` below 4.
    #[must_use]
    pub fn success_ecdsa(
        network: &str,
        wallet_id: &str,
        tx_id: &str,
        r: &[u8; 32],
        s: &[u8; 32],
        recovery: u8,
    ) -> Self {
        Self {
            result_type: ResultType::Success,
            r: Some(r.to_vec()),
            s: Some(s.to_vec()),
            signature_recovery: Some(vec![recovery]),
            ..Self::about(network, wallet_id, tx_id)
        }
    }

    /// An Ed25519 signature.
    #[must_use]
    pub fn success_eddsa(network: &str, wallet_id: &str, tx_id: &str, signature: &[u8; 64]) -> Self {
        Self {
            result_type: ResultType::Success,
            signature: Some(signature.to_vec()),
            ..Self::about(network, wallet_id, tx_id)
        }
    }

    /// Nothing was signed. `is_timeout` follows from the code.
    #[must_use]
    pub fn error(network: &str, wallet_id: &str, tx_id: &str, code: ErrorCode, reason: impl Into<String>) -> Self {
        Self {
            error_code: code.as_str().to_owned(),
            error_reason: reason.into(),
            is_timeout: matches!(code, ErrorCode::MaxDeliveryAttempts | ErrorCode::NetworkTimeout),
            ..Self::about(network, wallet_id, tx_id)
        }
    }

    fn about(network: &str, wallet_id: &str, tx_id: &str) -> Self {
        Self {
            network_internal_code: network.to_owned(),
            wallet_id: wallet_id.to_owned(),
            tx_id: tx_id.to_owned(),
            ..Self::default()
        }
    }

    fn write(&self) -> ObjectWriter {
        let mut object = ObjectWriter::new();
        object
            .string("result_type", self.result_type.as_str())
            .string("error_code", &self.error_code)
            .string("error_reason", &self.error_reason)
            .boolean("is_timeout", self.is_timeout)
            .string("network_internal_code", &self.network_internal_code)
            .string("wallet_id", &self.wallet_id)
            .string("tx_id", &self.tx_id)
            .bytes("r", self.r.as_deref())
            .bytes("s", self.s.as_deref())
            .bytes("signature_recovery", self.signature_recovery.as_deref())
            .bytes("signature", self.signature.as_deref());
        object
    }

    fn read(&mut self, reader: &mut FieldReader, name: &str, value: Value) {
        match name {
            "result_type" => read_result_type(reader, value, &mut self.result_type),
            "error_code" => reader.string(name, value, &mut self.error_code),
            "error_reason" => reader.string(name, value, &mut self.error_reason),
            "is_timeout" => reader.boolean(name, value, &mut self.is_timeout),
            "network_internal_code" => reader.string(name, value, &mut self.network_internal_code),
            "wallet_id" => reader.string(name, value, &mut self.wallet_id),
            "tx_id" => reader.string(name, value, &mut self.tx_id),
            "r" => reader.bytes(name, value, &mut self.r),
            "s" => reader.bytes(name, value, &mut self.s),
            "signature_recovery" => reader.bytes(name, value, &mut self.signature_recovery),
            "signature" => reader.bytes(name, value, &mut self.signature),
            "attestations" => read_attestations(reader, value, &mut self.attestations),
            _ => {}
        }
    }
}

impl ReshareResult {
    /// The key has moved; `pub_key` is encoded as in [`KeygenResult`].
    #[must_use]
    pub fn success(wallet_id: &str, new_threshold: i64, key_type: &str, pub_key: &[u8]) -> Self {
        Self {
            wallet_id: wallet_id.to_owned(),
            new_threshold,
            key_type: key_type.to_owned(),
            pub_key: Some(pub_key.to_vec()),
            result_type: ResultType::Success,
            ..Self::default()
        }
    }

    /// The key has not moved.
    #[must_use]
    pub fn error(
        wallet_id: &str,
        new_threshold: i64,
        key_type: &str,
        code: ErrorCode,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            wallet_id: wallet_id.to_owned(),
            new_threshold,
            key_type: key_type.to_owned(),
            error_reason: reason.into(),
            error_code: code.as_str().to_owned(),
            ..Self::default()
        }
    }

    fn write(&self) -> ObjectWriter {
        let mut object = ObjectWriter::new();
        object
            .string("wallet_id", &self.wallet_id)
            .integer("new_threshold", self.new_threshold)
            .string("key_type", &self.key_type)
            .bytes("pub_key", self.pub_key.as_deref())
            .string("result_type", self.result_type.as_str())
            .string("error_reason", &self.error_reason)
            .string("error_code", &self.error_code);
        object
    }

    fn read(&mut self, reader: &mut FieldReader, name: &str, value: Value) {
        match name {
            "wallet_id" => reader.string(name, value, &mut self.wallet_id),
            "new_threshold" => reader.integer(name, value, &mut self.new_threshold),
            "key_type" => reader.string(name, value, &mut self.key_type),
            "pub_key" => reader.bytes(name, value, &mut self.pub_key),
            "result_type" => read_result_type(reader, value, &mut self.result_type),
            "error_reason" => reader.string(name, value, &mut self.error_reason),
            "error_code" => reader.string(name, value, &mut self.error_code),
            "attestations" => read_attestations(reader, value, &mut self.attestations),
            _ => {}
        }
    }
}

macro_rules! documents {
    ($($result:ident),*) => {$(
        impl $result {
            /// The document as clusters publish it.
            #[must_use]
            pub fn to_json(&self) -> Vec<u8> {
                let mut object = self.write();
                write_attestations(&mut object, self.attestations.as_deref());
                object.finish()
            }

            /// The document without attestations: what they sign, under the cluster's own domain tag.
            #[must_use]
            pub fn attested_bytes(&self) -> Vec<u8> {
                self.write().finish()
            }

            /// Reads a document; members that are not known are ignored.
            ///
            /// # Errors
            /// If it is not a JSON object, a field has the wrong type, or `result_type` is missing or unknown.
            pub fn from_json(document: &[u8]) -> Result<Self, ResultError> {
                let members = match gojson::parse(document).map_err(|error| ResultError(error.to_string()))? {
                    Value::Object(members) => members,
                    other => return Err(ResultError(format!("expected an object, got {}", other.kind()))),
                };
                if !members.iter().any(|(name, _)| name == "result_type") {
                    return Err(ResultError("result_type is missing".to_owned()));
                }
                let mut result = Self::default();
                let mut reader = FieldReader::default();
                for (name, value) in members {
                    result.read(&mut reader, &name, value);
                }
                match reader.first_error {
                    None => Ok(result),
                    Some((field, problem)) => Err(ResultError(format!("{field}: {problem}"))),
                }
            }

            /// Whether the request succeeded.
            #[must_use]
            pub fn is_success(&self) -> bool {
                self.result_type == ResultType::Success
            }

            /// The code of a failure, if it is a known one.
            #[must_use]
            pub fn code(&self) -> Option<ErrorCode> {
                ErrorCode::from_name(&self.error_code)
            }
        }
    )*};
}

documents!(KeygenResult, SigningResult, ReshareResult);

pub(crate) fn write_attestations(object: &mut ObjectWriter, attestations: Option<&[Attestation]>) {
    if let Some(attestations) = attestations.filter(|attestations| !attestations.is_empty()) {
        object.array("attestations", Some(attestations), |out, item| {
            let mut element = ObjectWriter::new();
            element.string("node_id", &item.node_id).bytes("signature", Some(&item.signature));
            out.extend_from_slice(&element.finish());
        });
    }
}

pub(crate) fn read_attestations(reader: &mut FieldReader, value: Value, into: &mut Option<Vec<Attestation>>) {
    reader.slice("attestations", value, into, |reader, item| {
        let mut element = Attestation::default();
        let Value::Object(members) = item else {
            reader.wrong_type("attestations", "an object", &item);
            return element;
        };
        let mut signature = None;
        for (name, value) in members {
            match name.as_str() {
                "node_id" => reader.string("attestations.node_id", value, &mut element.node_id),
                "signature" => reader.bytes("attestations.signature", value, &mut signature),
                _ => {}
            }
        }
        element.signature = signature.unwrap_or_default();
        element
    });
}

pub(crate) fn read_result_type(reader: &mut FieldReader, value: Value, into: &mut ResultType) {
    match &value {
        Value::String(text) if text == "success" => *into = ResultType::Success,
        Value::String(text) if text == "error" => *into = ResultType::Error,
        other => reader.wrong_type("result_type", "\"success\" or \"error\"", other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_is_written_in_the_order_of_the_contract() {
        let result = SigningResult::success_eddsa("test", "w", "t", &[7; 64]);
        let expected = format!(
            concat!(
                r#"{{"result_type":"success","error_code":"","error_reason":"","is_timeout":false,"#,
                r#""network_internal_code":"test","wallet_id":"w","tx_id":"t","r":null,"s":null,"#,
                r#""signature_recovery":null,"signature":"{}Bw=="}}"#
            ),
            "BwcH".repeat(21)
        );
        assert_eq!(String::from_utf8(result.to_json()).unwrap(), expected);
    }

    #[test]
    fn errors_have_null_keys_and_named_codes() {
        let keygen = KeygenResult::error("w", ErrorCode::KeyAlreadyExists, "Key already exists: w");
        assert_eq!(
            String::from_utf8(keygen.to_json()).unwrap(),
            concat!(
                r#"{"wallet_id":"w","ecdsa_pub_key":null,"eddsa_pub_key":null,"result_type":"error","#,
                r#""error_reason":"Key already exists: w","error_code":"ERROR_KEY_ALREADY_EXISTS"}"#
            )
        );
        let reshare = ReshareResult::error("w", 2, "ed25519", ErrorCode::KeyNotFound, "none");
        assert_eq!(
            String::from_utf8(reshare.to_json()).unwrap(),
            concat!(
                r#"{"wallet_id":"w","new_threshold":2,"key_type":"ed25519","pub_key":null,"result_type":"error","#,
                r#""error_reason":"none","error_code":"ERROR_KEY_NOT_FOUND"}"#
            )
        );
        assert!(SigningResult::error("", "w", "t", ErrorCode::MaxDeliveryAttempts, "late").is_timeout);
        assert!(SigningResult::error("", "w", "t", ErrorCode::NetworkTimeout, "late").is_timeout);
        assert!(!SigningResult::error("", "w", "t", ErrorCode::KeyNotFound, "none").is_timeout);
    }

    #[test]
    fn documents_survive_a_round_trip() {
        let mut signing = SigningResult::success_ecdsa("n<", "w", "t", &[1; 32], &[2; 32], 1);
        signing.attestations = Some(vec![Attestation { node_id: "a".to_owned(), signature: vec![9; 64] }]);
        assert_eq!(SigningResult::from_json(&signing.to_json()), Ok(signing.clone()));
        assert!(!String::from_utf8(signing.attested_bytes()).unwrap().contains("attestations"));
        let keygen = KeygenResult::success("w", &[3; 64], &[4; 32]);
        assert_eq!(KeygenResult::from_json(&keygen.to_json()), Ok(keygen));
        let reshare = ReshareResult::success("w", 2, "secp256k1", &[5; 64]);
        assert_eq!(ReshareResult::from_json(&reshare.to_json()), Ok(reshare));
    }

    #[test]
    fn what_is_no_result_is_refused() {
        for bad in ["", "[]", "{}", r#"{"result_type":1}"#, r#"{"result_type":"success","wallet_id":7}"#] {
            assert!(KeygenResult::from_json(bad.as_bytes()).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn codes_are_distinct_and_found_by_name() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.as_str()), Some(*code));
        }
        assert_eq!(ErrorCode::ALL.len(), 57);
    }
}
