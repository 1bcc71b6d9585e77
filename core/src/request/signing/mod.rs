//! Signing requests: attempts as ballots.
//!
//! A node that took a request from the queue is its [`coordinator`]; whoever holds shares of the wallet may be a
//! [`participant`]. An attempt runs with exactly `t` participants, each of which promises it, and takes part only if it
//! holds neither a result of the request nor a verdict of one of the deliveries that are to be answered. Whoever does
//! says so, and the coordinator decides those deliveries in a ballot of its own. Why no delivery ever gets two answers:
//! [`answers`](super::answers).

pub(crate) mod coordinator;
pub(crate) mod participant;
pub(crate) mod presignatures;

use mpcium_client::{
    memory::or_computed,
    request::{KeyType, SignRequest},
    result::SigningResult,
};
use serde::{Deserialize, Serialize};

use super::{
    Attestations,
    admission::Admitted,
    answers::{Attempt, DeliveryKey, Signed},
    attestation,
};
use crate::{
    WallTime,
    committee::Committee,
    context::Context,
    identity::verify,
    planted::{Bug, planted},
    protocol::Curve,
    session::{Participant, SessionId},
    tags,
    wallet::cache::Wallet,
};

/// What a coordinator asks the participants to do. They repeat every check: it has no authority.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Proposal {
    /// The client's document, unchanged.
    pub request: Vec<u8>,
    /// No message of the session leaves anyone after this.
    pub deadline: WallTime,
    pub attempt: Attempt,
    /// How often this coordinator has tried, for reports.
    pub tries: u32,
    /// In the order of their positions in the session.
    pub participants: Vec<Participant>,
    /// Hash of the certificate of the key epoch.
    pub certificate: [u8; 32],
    /// Names of the auxiliary sets, for suites that need them: one, or one for each participant with every later one.
    pub auxiliary: Vec<[u8; 32]>,
    /// The deliveries that the result will answer.
    pub deliveries: Vec<DeliveryKey>,
    /// A presignature of this coordinator and these participants, to sign with; `None`: they sign in the ordinary way.
    pub presignature: Option<SessionId>,
    /// Sixteen random bytes: no two proposals are the same.
    pub nonce: [u8; 16],
}

impl Proposal {
    /// The session that it proposes.
    pub fn session(&self) -> SessionId {
        SessionId(tags::SESSION.hash(&self.encode()))
    }

    /// What the protocol is bound to: everything that the proposal lists, the suite, and the (derived) public key.
    pub fn execution_id(&self, suite: &str, public_key: &[u8], all_fields: &[u8]) -> [u8; 32] {
        if planted(Bug::ExecutionIdReused) {
            return tags::EXECUTION.hash(all_fields);
        }
        let body = (suite, public_key, tags::REQUEST.hash(all_fields), self);
        tags::EXECUTION.hash(&postcard::to_stdvec(&body).expect("plain data serialises"))
    }

    fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain data serialises")
    }
}

/// Between coordinators and members.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Coordinator to participants.
    Propose(Box<Proposal>),
    /// Participant to coordinator.
    Answer { session: SessionId, answer: Answer },
    /// Participant to coordinator: the result is durable here, with everybody's signature over it.
    Stored { session: SessionId, signature: Vec<u8>, attestations: Attestations },
    /// Participant to participants: its signature over the result document.
    Attested { session: SessionId, signature: Vec<u8> },
}

/// A participant's answer to a proposal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It promises the attempt, holds nothing, and has started.
    Accepted,
    /// It holds a result of the request, or a verdict of one of the deliveries: there is nothing to sign.
    Holds,
    /// It does not take part.
    Declined(Decline),
}

/// Why a participant does not take part. None of these is blame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Decline {
    /// The same request id has a result for another payload.
    OtherPayload,
    /// The same request id is promised to another payload, which may come to nothing.
    OtherPromised,
    /// It promised a higher attempt.
    Higher(Attempt),
    /// Its workers are taken.
    Busy,
    /// A link among the participants is not what the proposal says.
    Links(String),
    /// It has not (yet) what the session needs: the wallet, its share, the auxiliary set.
    Lacks(String),
    /// The request fails a check here.
    Refused(String),
    /// Too late.
    Deadline,
    /// Its store was rolled back or damaged.
    Unfit,
    /// It does not hold the presignature that the proposal names.
    Presignature,
}

impl std::fmt::Display for Decline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherPayload => f.write_str("the same id is known with another payload"),
            Self::OtherPromised => f.write_str("the same id is being signed with another payload"),
            Self::Higher(attempt) => write!(f, "a higher attempt of {} is known", attempt.coordinator),
            Self::Busy => f.write_str("it is busy"),
            Self::Links(what) | Self::Lacks(what) | Self::Refused(what) => f.write_str(what),
            Self::Deadline => f.write_str("the deadline has passed"),
            Self::Presignature => f.write_str("it does not hold that presignature"),
            Self::Unfit => f.write_str("its store is damaged or was rolled back"),
        }
    }
}

/// What continues after a write.
#[derive(Debug)]
pub(crate) enum After {
    /// A participant has used a presignature up: it may sign with it.
    Used { session: SessionId },
    /// A participant's result is durable: tell the coordinator.
    Stored { session: SessionId, coordinator: Participant, signed: Signed },
}

/// The bytes that a suite signs for a request.
pub(crate) fn message_to_sign(request: &SignRequest) -> Result<Vec<u8>, String> {
    match request.key_type().map_err(|e| e.to_string())? {
        KeyType::Secp256k1 => request.digest().map(|d| d.to_vec()).map_err(|e| e.to_string()),
        KeyType::Ed25519 => Ok(request.message().to_vec()),
    }
}

/// The document that answers a request with a signature that verifies.
pub(crate) fn result_of(request: &Admitted, signature: &[u8], attestations: &Attestations) -> SigningResult {
    let sign = request.signing();
    let (network, wallet, tx) = (&sign.network_internal_code, &sign.wallet_id, &sign.tx_id);
    let mut result = if let (Curve::Ed25519, Ok(signature)) = (request.curve(), <&[u8; 64]>::try_from(signature)) {
        SigningResult::success_eddsa(network, wallet, tx, signature)
    } else if let (Curve::Secp256k1, Some((r, rest))) = (request.curve(), signature.split_first_chunk::<32>())
        && let Some((s, [recovery])) = rest.split_first_chunk::<32>()
    {
        SigningResult::success_ecdsa(network, wallet, tx, r, s, *recovery)
    } else {
        // The signature has verified, so it has one of the two forms.
        panic!("a verified signature of {} bytes has the wrong form", signature.len());
    };
    if !attestations.is_empty() {
        result.attestations = Some(attestations.iter().cloned().map(attestation).collect());
    }
    result
}

/// Whether a result has the signatures of exactly `t` members over its document. Its signature has verified.
pub(crate) fn are_attested(ctx: &Context, committee: &Committee, request: &Admitted, signed: &Signed) -> bool {
    let bytes = result_of(request, &signed.signature, &Attestations::new()).attested_bytes();
    signed.attestations.len() == usize::from(committee.threshold)
        && signed.attestations.is_sorted_by(|a, b| a.0 < b.0)
        && signed.attestations.iter().all(|(node, by)| {
            committee.position(*node).is_some()
                && ctx.config.peer(*node).is_some_and(|peer| verify(&peer.key, tags::RESULT, &bytes, by))
        })
}

/// Whether a signature is the right one for a request, under the wallet's (derived) key.
pub(crate) fn verifies(ctx: &Context, wallet: &Wallet, request: &Admitted, signature: &[u8]) -> bool {
    let curve = request.curve();
    let Some(public_key) = wallet.public_key(curve) else { return false };
    let Ok(key) = signing_key(curve, public_key, ctx.config.chain_code.as_ref(), &request.signing().derivation_path)
    else {
        return false;
    };
    let Ok(message) = message_to_sign(request.signing()) else { return false };
    ctx.suites.signing(curve).verify(&key.public_key, &message, signature)
}

/// The key that a request signs with: the wallet's, or its child.
#[derive(Clone)]
pub(crate) struct SigningKey {
    pub public_key: Vec<u8>,
    /// What is added to every share: 32 bytes in the curve's own order, `None` for the wallet's own key.
    pub shift: Option<[u8; 32]>,
}

/// Derives the key for `path` from the wallet's public key.
pub(crate) fn signing_key(
    curve: Curve,
    public_key: &[u8],
    chain_code: Option<&[u8; 32]>,
    path: &[u32],
) -> Result<SigningKey, String> {
    if path.is_empty() || planted(Bug::PathIgnored) {
        return Ok(SigningKey { public_key: public_key.to_vec(), shift: None });
    }
    let Some(chain_code) = chain_code else {
        return Err("derivation_path is given but the cluster has no chain_code".to_owned());
    };
    let malformed = || "the wallet's public key is malformed".to_owned();
    let indices: Vec<u8> = path.iter().flat_map(|index| index.to_be_bytes()).collect();
    let what = match curve {
        Curve::Secp256k1 => "child key on secp256k1",
        Curve::Ed25519 => "child key on Ed25519",
    };
    or_computed(what, &[public_key, chain_code, &indices], || match curve {
        Curve::Secp256k1 => {
            let parent = public_key.try_into().map_err(|_| malformed())?;
            let child = mpcium_client::derive::derive_secp256k1(parent, chain_code, path).map_err(|e| e.to_string())?;
            Ok(SigningKey { public_key: child.public_key.to_vec(), shift: Some(child.shift) })
        }
        Curve::Ed25519 => {
            let parent = public_key.try_into().map_err(|_| malformed())?;
            let child = mpcium_client::derive::derive_ed25519(parent, chain_code, path).map_err(|e| e.to_string())?;
            Ok(SigningKey { public_key: child.public_key.to_vec(), shift: Some(child.shift_little_endian()) })
        }
    })
}
