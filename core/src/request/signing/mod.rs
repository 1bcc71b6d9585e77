//! Signing requests: attempts as ballots, and answers that never contradict each other.
//!
//! A node that took a request from the queue is its [`coordinator`]; whoever holds shares of the wallet may be a
//! [`participant`]. An attempt runs with exactly `t` participants, each of which promises, for its incarnation, to
//! store no result of a lower attempt, and says so if it holds one. A result is published once `n − t + 1` members
//! hold it durably. Why two different results are never published: the holders of a published result meet the `t`
//! participants of any later attempt, so that attempt learns of it and adopts it instead of signing again; and a
//! participant of the later attempt that held nothing yet stores nothing of the earlier one any more.

pub(crate) mod coordinator;
pub(crate) mod participant;

use mpcium_client::{
    request::{KeyType, SignRequest},
    result::SigningResult,
};
use serde::{Deserialize, Serialize};

use super::{
    Attestations,
    admission::Admitted,
    answers::DeliveryKey,
    attestation,
    ledger::{Held, RequestKey},
};
use crate::{
    NodeId, WallTime,
    committee::Committee,
    context::Context,
    identity::verify,
    limits,
    planted::{Bug, planted},
    protocol::Curve,
    session::{Participant, SessionId},
    tags,
};

/// A ballot: the attempt's number, then its coordinator.
///
/// Promises are kept in memory only, so numbers must grow even where promises were forgotten: the number is at least
/// the coordinator's wall clock in milliseconds. Later attempts are then higher, whoever makes them, as far as the
/// clocks agree; and a number far ahead of the clock is refused, so that nobody can use numbers up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub number: u64,
    pub coordinator: NodeId,
}

impl Attempt {
    /// Whether the number is one that an honest coordinator could have chosen by now.
    pub fn is_plausible(&self, ctx: &Context) -> bool {
        self.number <= ctx.now.wall.after(ctx.config.clock_skew * 2 + limits::PROPOSAL_WAIT).0
    }
}

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
    /// The deliveries that the result will answer: a participant that remembers an error for one of them declines.
    pub deliveries: Vec<DeliveryKey>,
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
    /// Coordinator to members: promise this attempt, and say what is held, but sign nothing. Carries the client's
    /// document, so that nobody can close requests that no initiator signed.
    Close { request: Vec<u8>, attempt: Attempt },
    /// Member to coordinator.
    Closed { key: RequestKey, attempt: Attempt, answer: CloseAnswer },
    /// Coordinator to members that promised `attempt`: store this result under it.
    Adopt { request: Vec<u8>, attempt: Attempt, signature: Vec<u8>, attestations: Attestations },
    /// Member to coordinator: the adopted result is durable here.
    Adopted { key: RequestKey, attempt: Attempt },
    /// Participant to participants: its signature over the result document.
    Attested { session: SessionId, signature: Vec<u8> },
}

/// A participant's answer to a proposal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It promises the attempt, holds no result, and has started.
    Accepted,
    /// It promises the attempt and holds this result: adopt it.
    Holds(Held),
    /// It does not take part.
    Declined(Decline),
}

/// A member's answer to a coordinator that wants to close a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum CloseAnswer {
    /// It promises the attempt and holds no result.
    Empty,
    /// It promises the attempt and holds this result.
    Holds(Held),
    /// It promised a higher attempt.
    Higher(Attempt),
    /// It cannot tell: its store was rolled back or damaged.
    Unknown,
}

/// Why a participant does not take part. None of these is blame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Decline {
    /// The same request id is known with another payload.
    OtherPayload,
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
    /// The delivery was answered with this error before.
    Answered(Vec<u8>),
    /// Too late.
    Deadline,
    /// Its store was rolled back or damaged.
    Unfit,
}

impl std::fmt::Display for Decline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherPayload => f.write_str("the same id is known with another payload"),
            Self::Higher(attempt) => write!(f, "a higher attempt of {} is known", attempt.coordinator),
            Self::Busy => f.write_str("all its workers are busy"),
            Self::Links(what) | Self::Lacks(what) | Self::Refused(what) => f.write_str(what),
            Self::Answered(_) => f.write_str("the delivery was answered with an error before"),
            Self::Deadline => f.write_str("the deadline has passed"),
            Self::Unfit => f.write_str("its store is damaged or was rolled back"),
        }
    }
}

/// What continues after a write.
#[derive(Debug)]
pub(crate) enum After {
    /// A participant's result is durable: tell the coordinator.
    Stored { session: SessionId, coordinator: Participant, signature: Vec<u8>, attestations: Attestations },
    /// An adopted result is durable: tell the coordinator.
    Adopted { key: RequestKey, attempt: Attempt, coordinator: Participant },
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

/// Whether these are the signatures of exactly `t` members over the result with this signature, which verifies; or,
/// for results from before there were any, none.
pub(crate) fn are_attested(
    ctx: &Context,
    committee: &Committee,
    request: &Admitted,
    signature: &[u8],
    attestations: &Attestations,
) -> bool {
    if attestations.is_empty() {
        return true;
    }
    let bytes = result_of(request, signature, &Attestations::new()).attested_bytes();
    attestations.len() == usize::from(committee.threshold)
        && attestations.is_sorted_by(|a, b| a.0 < b.0)
        && attestations.iter().all(|(node, by)| {
            committee.position(*node).is_some()
                && ctx.config.peer(*node).is_some_and(|peer| verify(&peer.key, tags::RESULT, &bytes, by))
        })
}

/// The key that a request signs with: the wallet's, or its child.
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
    match curve {
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
    }
}
