//! The border at which a client's document becomes a checked request. Every node passes it for itself: the node that
//! took the request from the queue, and every participant that is asked to work for it.

use mpcium_client::{
    auth::{Authorization, authorize},
    request::{KeyType, Request, SignRequest},
    result::ErrorCode,
};

use super::ledger::RequestKey;
use crate::{
    Duration, WallTime,
    context::Context,
    input::RequestKind,
    limits,
    planted::{Bug, planted},
    protocol::Curve,
    tags,
};

/// A request that passed every check that needs no record.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    pub request: Request,
    /// Names the request: kind, wallet, and the client's id.
    pub key: RequestKey,
    /// What two deliveries of one request share: all fields but the signatures.
    pub payload: [u8; 32],
    /// An encoding of all decoded fields: what the execution id covers.
    pub all_fields: Vec<u8>,
}

/// Why a request is refused.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// What could be read of it, for the answer.
    pub request: Option<Box<Request>>,
    pub code: ErrorCode,
    pub reason: String,
}

impl Admitted {
    pub fn wallet(&self) -> &str {
        self.request.wallet_id()
    }

    /// The client's id of the request: transaction, session, or the wallet itself.
    pub fn id(&self) -> &str {
        self.request.request_id()
    }

    /// After this nobody works for it: its own expiry, with the allowance for clocks that differ. `None`: it has none.
    pub fn expiry(&self, ctx: &Context) -> Option<WallTime> {
        self.request.full_signature().map(|full| WallTime(full.expires_at).after(ctx.config.clock_skew))
    }

    /// Until when a request that the queue took at `taken` is worked for, given how long requests of its kind are.
    pub fn deadline(&self, ctx: &Context, taken: WallTime, within: Duration) -> WallTime {
        let deadline = taken.after(within);
        self.expiry(ctx).map_or(deadline, |expiry| deadline.min(expiry))
    }

    /// Whether its expiry is what ends it at `deadline`, and how that is put into words.
    pub fn expired(&self, ctx: &Context, deadline: WallTime) -> Option<(ErrorCode, String)> {
        let full = self.request.full_signature().filter(|_| self.expiry(ctx) == Some(deadline))?;
        let reason = format!(
            "the request expired before it could be carried out: full_signature.expires_at is {}; sign it anew",
            full.expires_at
        );
        Some((ErrorCode::SessionStale, reason))
    }

    /// The client id that the initiator signed, which counts more than the message's header.
    pub fn signed_client(&self) -> Option<&str> {
        self.request.full_signature().and_then(|full| full.client_id.as_deref())
    }

    /// The signing request that it is.
    ///
    /// # Panics
    /// If it is another kind: callers admit by kind.
    pub fn signing(&self) -> &SignRequest {
        match &self.request {
            Request::Sign(sign) => sign,
            other => panic!("a signing request was expected, not one for wallet {}", other.wallet_id()),
        }
    }

    /// The curve of a signing request.
    pub fn curve(&self) -> Curve {
        match self.signing().key_type() {
            Ok(KeyType::Ed25519) => Curve::Ed25519,
            // `admit` has refused unknown names.
            _ => Curve::Secp256k1,
        }
    }
}

/// Decodes, validates and authorises a document.
pub(crate) fn admit(ctx: &Context, kind: RequestKind, body: &[u8]) -> Result<Admitted, Refusal> {
    let admitted = read(kind, body)?;
    let nobody = Authorization::default();
    let authorization = if planted(Bug::AuthorizersUnchecked) { &nobody } else { &ctx.config.authorization };
    match authorize(&ctx.config.initiator, authorization, &admitted.request) {
        Ok(()) => Ok(admitted),
        Err(error) => {
            let (code, reason) = (error.code(), error.reason());
            Err(Refusal { request: Some(Box::new(admitted.request)), code, reason })
        }
    }
}

/// Decodes and validates a document, whoever wrote it.
pub(crate) fn read(kind: RequestKind, body: &[u8]) -> Result<Admitted, Refusal> {
    if body.len() > limits::REQUEST_BYTES_MAX {
        return Err(Refusal {
            request: None,
            code: ErrorCode::MsgValidation,
            reason: format!("the request has {} bytes and may have {} at most", body.len(), limits::REQUEST_BYTES_MAX),
        });
    }
    let request = Request::decode(kind, body).map_err(|error| Refusal {
        reason: error.to_string(),
        code: ErrorCode::UnmarshalFailure,
        request: Some(error.partial),
    })?;
    if let Err(invalid) = request.validate() {
        let reason = invalid.to_string();
        return Err(Refusal { request: Some(Box::new(request)), code: ErrorCode::MsgValidation, reason });
    }
    let kind_byte = [match kind {
        RequestKind::Keygen => 0_u8,
        RequestKind::Sign => 1,
        RequestKind::Reshare => 2,
    }];
    let mut named = kind_byte.to_vec();
    named.extend(u32::try_from(request.wallet_id().len()).unwrap_or(u32::MAX).to_be_bytes());
    named.extend(request.wallet_id().as_bytes());
    named.extend(request.request_id().as_bytes());
    Ok(Admitted {
        key: tags::REQUEST_KEY.hash(&named),
        payload: tags::REQUEST.hash(&request.payload_bytes()),
        all_fields: request.all_bytes(),
        request,
    })
}
