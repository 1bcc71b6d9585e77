//! The signature over everything: the extra field `full_signature` of a request.
//!
//! The existing clients' signatures leave out the derivation path, say nothing of the kind of request, and hold for
//! ever. This one covers the kind, every field but the other signatures, an id, an expiry and, where the sender wants
//! it, the client id under which the answer is to be published. Invariant: the signed text is never the signed bytes of
//! anything else. It is a JSON object, which no wallet id may begin like, and its one member is that of no request.

use sha2::{Digest as _, Sha256};

use crate::{
    fields::FieldBytes,
    gojson::{self, FieldReader, ObjectWriter, Value},
    request::{ID_BYTES_MAX, Invalid, check_id, check_signature_length, invalid},
    subjects,
};

/// The field's name in documents.
pub const FULL_SIGNATURE_FIELD: &str = "full_signature";
/// The one member of the signed text.
const SIGNED_MEMBER: &str = "mpcium_request_v1";
/// Begins the hashed bytes, a zero byte follows.
const DIGEST_TAG: &[u8] = b"mpcium/1 full request";
/// Latest time that is accepted, in milliseconds since 1970: every JSON reader represents it exactly.
const EXPIRY_MAX: u64 = (1 << 53) - 1;

/// A signature over all fields of a request, with what it covers besides them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FullSignature {
    /// Drawn anew for each request that is signed: 1 to 256 bytes.
    pub request_id: String,
    /// Nobody works for the request after this, by their own clock and with the cluster's allowance for clocks that
    /// differ: milliseconds since 1970.
    pub expires_at: u64,
    /// Under which client id the answer is published, whatever the header of the message says; `None`: as the header
    /// says.
    pub client_id: Option<String>,
    /// The initiator's, over [`Request::full_bytes`](crate::Request::full_bytes).
    pub signature: Option<Vec<u8>>,
}

impl FullSignature {
    /// What is signed for a request with this payload (see [`Request::payload_bytes`](crate::Request::payload_bytes)):
    /// `{"mpcium_request_v1":"<SHA-256 in hexadecimal>"}`.
    pub(crate) fn signed_bytes(&self, payload: &[u8]) -> Vec<u8> {
        let mut digest = Sha256::new();
        digest.update(DIGEST_TAG);
        digest.update([0]);
        digest.update(self.covered(payload));
        let mut object = ObjectWriter::new();
        object.string(SIGNED_MEMBER, &hex::encode(digest.finalize()));
        object.finish()
    }

    fn covered(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = FieldBytes::default();
        out.string_bytes(payload).string(&self.request_id);
        out.0.extend_from_slice(&self.expires_at.to_be_bytes());
        out.optional(self.client_id.as_deref().map(str::as_bytes));
        out.0
    }

    /// An unambiguous encoding of everything in it.
    pub(crate) fn put(&self, out: &mut FieldBytes) {
        out.string_bytes(&self.covered(&[])).optional(self.signature.as_deref());
    }

    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        check_id("full_signature.request_id", &self.request_id)?;
        if self.expires_at > EXPIRY_MAX {
            return invalid("full_signature.expires_at", format!("{} is beyond {EXPIRY_MAX}", self.expires_at));
        }
        if let Some(client) = &self.client_id
            && let Err(error) = subjects::check_client_id(client)
        {
            return invalid("full_signature.client_id", error.to_string());
        }
        check_signature_length("full_signature.signature", self.signature.as_deref())
    }

    pub(crate) fn write(&self, object: &mut ObjectWriter) {
        let mut inner = ObjectWriter::new();
        inner.string("request_id", &self.request_id);
        inner.member("expires_at").extend_from_slice(self.expires_at.to_string().as_bytes());
        if let Some(client) = &self.client_id {
            inner.string("client_id", client);
        }
        inner.bytes("signature", self.signature.as_deref());
        object.member(FULL_SIGNATURE_FIELD).extend_from_slice(&inner.finish());
    }

    pub(crate) fn read(reader: &mut FieldReader, value: Value, into: &mut Option<Self>) {
        let members = match value {
            Value::Null => return,
            Value::Object(members) => members,
            other => return reader.wrong_type(FULL_SIGNATURE_FIELD, "an object", &other),
        };
        let full = into.get_or_insert_default();
        for (name, value) in members {
            let is = |field| gojson::same_name(field, &name);
            if is("request_id") {
                reader.string("full_signature.request_id", value, &mut full.request_id);
            } else if is("expires_at") {
                reader.integer("full_signature.expires_at", value, &mut full.expires_at);
            } else if is("client_id") {
                let mut client = full.client_id.take().unwrap_or_default();
                let given = value != Value::Null;
                reader.string("full_signature.client_id", value, &mut client);
                full.client_id = given.then_some(client);
            } else if is("signature") {
                reader.bytes("full_signature.signature", value, &mut full.signature);
            }
        }
    }
}

// The fields that are covered fit into an id's length each.
const _: () = assert!(subjects::CLIENT_ID_BYTES_MAX <= ID_BYTES_MAX);
