//! What members sign about the birth of a key, so that others can be shown it later.
//!
//! Invariant: a signature means exactly one thing. Each kind is signed under its own domain tag over the postcard encoding
//! of a fixed structure, in which every variable part carries its length. Every body names its signer. The bytes are pinned by golden tests: changing
//! one is a change of protocol.

use ed25519_dalek::VerifyingKey;
use mpcium_client::{memory::or_computed, result::KeygenResult};
use serde::{Deserialize, Serialize};

use super::closing::Votes;
use crate::committee::Committee;
use crate::consensus::Ballot;
use crate::identity;
use crate::limits::ID_BYTES_MAX;
use crate::protocol::{Curve, KeyShare};
use crate::tags::{self, Tag};
use crate::{Identity, Incarnation, NodeId};

pub use crate::session::SessionId;

/// Finds the identity key of a node, `None` for strangers.
pub type Keys<'a> = dyn Fn(NodeId) -> Option<VerifyingKey> + 'a;

/// Every member's public share by position, for one curve.
pub type PublicShares = Vec<Vec<u8>>;

/// An Ed25519 signature by an identity key; 64 bytes, encoded as such.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Serde knows arrays up to 32; two halves encode to the same 64 bytes.
        let mut halves = [[0; 32]; 2];
        halves.as_flattened_mut().copy_from_slice(&self.0);
        halves.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let halves = <[[u8; 32]; 2]>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes.copy_from_slice(halves.as_flattened());
        Ok(Self(bytes))
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signature({}..)", hex::encode(&self.0[..4]))
    }
}

/// One decision about a wallet: which session becomes the epoch, or that none of those so far does and the next slot
/// decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The wallet.
    pub wallet: String,
    /// The epoch to be decided.
    pub epoch: u32,
    /// How many slots of this wallet and epoch were closed before.
    pub number: u32,
}

/// What is fixed about a key-generation or resharing session before it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// Digest over all decoded fields of the initiator-signed request.
    pub request_digest: [u8; 32],
    /// The wallet's id: UTF-8, 1 to [`ID_BYTES_MAX`] bytes.
    pub wallet: String,
    /// The curves on which keys are made, in the order of [`Curve::ALL`], each at most once.
    pub curves: Vec<Curve>,
    /// 0 at key generation, one more at each resharing.
    pub epoch: u32,
    /// [`Certificate::hash`](super::Certificate::hash) of the previous epoch; zeros at epoch 0.
    pub previous_certificate: [u8; 32],
    /// The session.
    pub session: SessionId,
    /// Who holds the shares that it makes.
    pub committee: Committee,
}

/// What all members of a session agree on once it has run: facts and public results. The common part of their
/// [`Prepared`] statements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedSession {
    /// The facts.
    pub facts: SessionFacts,
    /// The public keys, one per curve, in the order of the curves.
    pub public_keys: Vec<Vec<u8>>,
    /// [`public_shares_hash`] over the public shares of all curves.
    pub public_shares_hash: [u8; 32],
}

/// "My share of this session is durable here."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// What is prepared.
    pub session: PreparedSession,
    /// Who says so.
    pub node: NodeId,
    /// Under [`tags::PREPARED`].
    pub signature: Signature,
    /// Under [`tags::RESULT`]: the client's answer if this session becomes the wallet. There exactly if
    /// [`PreparedSession::result_bytes`] are.
    pub result: Option<Signature>,
}

/// "I take part in no ballot below this one, and these are my votes so far." Others are shown it as the reason to vote
/// ([`Grounds`](super::closing::Grounds)). An acceptor that has signed a vote which its promise of a higher ballot does not
/// show is proven wrong by its signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promised {
    /// The decision.
    pub slot: Slot,
    /// The promised ballot.
    pub ballot: Ballot,
    /// Its votes.
    pub votes: Votes,
    /// Who says so.
    pub node: NodeId,
    /// Under [`tags::PROMISE`].
    pub signature: Signature,
}

/// "In this ballot I vote for this session, or for closing this slot." An acceptor that signs two for one ballot is proven
/// wrong by its signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The wallet of the decision.
    pub wallet: String,
    /// The epoch to be decided.
    pub epoch: u32,
    /// The ballot.
    pub ballot: Ballot,
    /// [`Choice::hash`](super::Choice::hash) of what is voted for.
    pub value_hash: [u8; 32],
    /// Who votes.
    pub node: NodeId,
    /// Under [`tags::VOTE`].
    pub signature: Signature,
}

/// "I never prepared this session and never will." Said by members of the session's committee only: of them alone it
/// follows that the session lacks a statement for ever, and cannot become the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The session's wallet.
    pub wallet: String,
    /// The epoch that it would have made.
    pub epoch: u32,
    /// The session.
    pub session: SessionId,
    /// Who refuses.
    pub node: NodeId,
    /// The incarnation of that node that the session's proposal names.
    pub incarnation: Incarnation,
    /// Under [`tags::REFUSED`].
    pub signature: Signature,
}

/// "This certificate is durable here."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activated {
    /// [`Certificate::hash`](super::Certificate::hash).
    pub certificate: [u8; 32],
    /// Who holds it.
    pub node: NodeId,
    /// Under [`tags::ACTIVATED`].
    pub signature: Signature,
}

/// Why a statement is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatementError {
    /// Its content cannot be right, whoever signed it.
    Form(FormError),
    /// Nobody knows the signer.
    UnknownNode(NodeId),
    /// The signature is not the signer's over this content.
    BadSignature(NodeId),
}

impl std::fmt::Display for StatementError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Form(error) => error.fmt(f),
            Self::UnknownNode(node) => write!(f, "signed by {node}, which is unknown"),
            Self::BadSignature(node) => write!(f, "the signature of {node} is not valid"),
        }
    }
}

impl std::error::Error for StatementError {}

impl From<FormError> for StatementError {
    fn from(error: FormError) -> Self {
        Self::Form(error)
    }
}

/// What is wrong with the content of a statement or certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormError {
    /// A wallet id is empty or longer than [`ID_BYTES_MAX`] bytes; this is its length.
    WalletLength(usize),
    /// Members are not sorted, too few or too many, or the threshold does not fit them.
    Committee {
        /// Number of members.
        members: usize,
        /// The threshold.
        threshold: u16,
    },
    /// No curve, a curve twice, or not in the order of [`Curve::ALL`].
    Curves(Vec<Curve>),
    /// Epoch 0 names a previous certificate, or a later epoch names none.
    PreviousCertificate {
        /// The epoch.
        epoch: u32,
    },
    /// There is not one of something per curve or per member.
    Count {
        /// Of what.
        what: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A point does not have the length of its curve's encoding.
    PointLength {
        /// The curve.
        curve: Curve,
        /// How long it should be.
        expected: usize,
        /// How long it is.
        got: usize,
    },
    /// The hash of the public shares is not the stated one.
    PublicSharesHash,
    /// A key share does not belong to the session: this field differs.
    KeyShare(&'static str),
    /// The signer is no member of the session's committee.
    NotAMember(NodeId),
    /// An acceptor's votes are above its promise, or in no order.
    VoteAbovePromise,
    /// A slot without the proof that the one before is closed, or with another's.
    Closing {
        /// The slot's number.
        slot: u32,
    },
    /// Something is longer than may be.
    TooManyBytes {
        /// What.
        what: &'static str,
        /// The most bytes.
        limit: usize,
        /// How many there are.
        got: usize,
    },
}

impl std::fmt::Display for FormError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WalletLength(got) => write!(f, "wallet id of {got} bytes, expected 1 to {ID_BYTES_MAX}"),
            Self::Committee { members, threshold } => {
                write!(f, "{members} members with threshold {threshold} are no well-formed committee")
            }
            Self::Curves(got) => write!(f, "curves {got:?}, expected at least one of {:?} in this order", Curve::ALL),
            Self::PreviousCertificate { epoch: 0 } => f.write_str("epoch 0 names a previous certificate"),
            Self::PreviousCertificate { epoch } => write!(f, "epoch {epoch} names no previous certificate"),
            Self::Count { what, expected, got } => write!(f, "{got} {what}, expected {expected}"),
            Self::PointLength { curve, expected, got } => {
                write!(f, "a point of {got} bytes on {curve:?}, expected {expected}")
            }
            Self::PublicSharesHash => f.write_str("the public shares do not have the stated hash"),
            Self::KeyShare(what) => write!(f, "the key share's {what} is not the session's"),
            Self::NotAMember(node) => write!(f, "{node} is no member of the committee"),
            Self::VoteAbovePromise => f.write_str("votes above the promise, or in no order"),
            Self::Closing { slot } => write!(f, "slot {slot} does not come with the closing of the slot before"),
            Self::TooManyBytes { what, limit, got } => write!(f, "{what} of {got} bytes, expected at most {limit}"),
        }
    }
}

impl std::error::Error for FormError {}

impl SessionFacts {
    /// Checks everything that can be wrong without knowing anything else.
    ///
    /// # Errors
    /// Naming the field that is wrong.
    pub fn check(&self) -> Result<(), FormError> {
        check_wallet(&self.wallet)?;
        if !self.committee.is_well_formed() {
            let Committee { members, threshold } = &self.committee;
            return Err(FormError::Committee { members: members.len(), threshold: *threshold });
        }
        if self.curves.is_empty() || !self.curves.is_sorted_by(|a, b| a < b) {
            return Err(FormError::Curves(self.curves.clone()));
        }
        if (self.epoch == 0) != (self.previous_certificate == [0; 32]) {
            return Err(FormError::PreviousCertificate { epoch: self.epoch });
        }
        Ok(())
    }
}

impl PreparedSession {
    /// What a session with these facts has made, from this member's shares (in the order of the facts' curves), and
    /// the public shares of all members per curve.
    ///
    /// # Errors
    /// If facts or shares are malformed, or a share does not belong to `node`'s place in the committee.
    pub fn new(facts: SessionFacts, node: NodeId, shares: &[KeyShare]) -> Result<(Self, Vec<PublicShares>), FormError> {
        let public_shares: Vec<PublicShares> = shares.iter().map(|share| share.public_shares.clone()).collect();
        let session = Self {
            facts,
            public_keys: shares.iter().map(|share| share.public_key.clone()).collect(),
            public_shares_hash: public_shares_hash(&public_shares),
        };
        session.check()?;
        session.check_public_shares(&public_shares)?;
        session.check_shares(node, shares)?;
        Ok((session, public_shares))
    }

    /// Checks everything that can be wrong without knowing the public shares.
    ///
    /// # Errors
    /// Naming the field that is wrong.
    pub fn check(&self) -> Result<(), FormError> {
        self.facts.check()?;
        check_count("public keys", self.facts.curves.len(), self.public_keys.len())?;
        self.facts.curves.iter().zip(&self.public_keys).try_for_each(|(curve, key)| check_point(*curve, key))
    }

    /// Checks that these are the public shares of all members on all curves.
    ///
    /// # Errors
    /// If their number, a length or their hash is wrong.
    pub fn check_public_shares(&self, public_shares: &[PublicShares]) -> Result<(), FormError> {
        check_count("lists of public shares", self.facts.curves.len(), public_shares.len())?;
        for (curve, shares) in self.facts.curves.iter().zip(public_shares) {
            check_count("public shares", self.facts.committee.members.len(), shares.len())?;
            shares.iter().try_for_each(|share| check_point(*curve, share))?;
        }
        if public_shares_hash(public_shares) != self.public_shares_hash {
            return Err(FormError::PublicSharesHash);
        }
        Ok(())
    }

    /// Checks that these are `node`'s shares of this session, one per curve in their order. Whether the secrets fit
    /// the public shares is the protocol's business.
    ///
    /// # Errors
    /// Naming what differs.
    pub fn check_shares(&self, node: NodeId, shares: &[KeyShare]) -> Result<(), FormError> {
        let committee = &self.facts.committee;
        let index = committee.position(node).ok_or(FormError::NotAMember(node))?;
        check_count("key shares", self.facts.curves.len(), shares.len())?;
        for ((share, curve), key) in shares.iter().zip(&self.facts.curves).zip(&self.public_keys) {
            for (what, same) in [
                ("curve", share.curve == *curve),
                ("threshold", share.threshold == committee.threshold),
                ("index", share.index == index),
                ("secret's length", share.secret.expose().len() == 32),
                ("public key", share.public_key == *key),
            ] {
                if !same {
                    return Err(FormError::KeyShare(what));
                }
            }
        }
        let public_shares: Vec<PublicShares> = shares.iter().map(|share| share.public_shares.clone()).collect();
        self.check_public_shares(&public_shares)
    }

    /// The document that answers the client, without attestations, if this session becomes the wallet. `None` for
    /// resharing, and if the keys are no points.
    #[must_use]
    pub fn result_bytes(&self) -> Option<Vec<u8>> {
        let (0, [Curve::Secp256k1, Curve::Ed25519], [ecdsa, eddsa]) =
            (self.facts.epoch, self.facts.curves.as_slice(), self.public_keys.as_slice())
        else {
            return None;
        };
        let ecdsa = or_computed("coordinates", &[ecdsa], || {
            mpcium_client::derive::secp256k1_coordinates(ecdsa.as_slice().try_into().ok()?).ok()
        })?;
        let eddsa = eddsa.as_slice().try_into().ok()?;
        Some(KeygenResult::success(&self.facts.wallet, &ecdsa, eddsa).attested_bytes())
    }

    /// What acceptors vote for: the hash of everything that all members state alike.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        tags::PREPARED.hash(&encode(self))
    }
}

impl Slot {
    /// The slot that must be closed before this one decides; `None` for the first.
    #[must_use]
    pub fn before(&self) -> Option<Self> {
        Some(Self { number: self.number.checked_sub(1)?, ..self.clone() })
    }

    /// What a [`Vote`] for closing this slot names.
    #[must_use]
    pub fn close_hash(&self) -> [u8; 32] {
        tags::CLOSE.hash(&encode(self))
    }
}

impl Prepared {
    /// Signs as `identity`. Only after its share is durable.
    #[must_use]
    pub fn sign(session: PreparedSession, identity: &Identity) -> Self {
        let node = identity.id();
        let signature = sign(identity, tags::PREPARED, &PreparedBody { session: &session, node });
        let result = session.result_bytes().map(|bytes| Signature(identity.sign(tags::RESULT, &bytes)));
        Self { session, node, signature, result }
    }

    /// Checks content, membership and signature.
    ///
    /// # Errors
    /// Naming what is wrong.
    pub fn verify(&self, keys: &Keys<'_>) -> Result<(), StatementError> {
        self.session.check()?;
        Self::verify_signature(&self.session, self.node, &self.signature, keys)?;
        let bytes = self.session.result_bytes();
        Self::verify_result(bytes.as_deref(), self.node, self.result.as_ref(), keys)
    }

    /// Checks one member's signature over the answer, which there must be exactly if there is an answer.
    ///
    /// # Errors
    /// If it is missing, of nobody, or wrong.
    pub fn verify_result(
        bytes: Option<&[u8]>,
        node: NodeId,
        result: Option<&Signature>,
        keys: &Keys<'_>,
    ) -> Result<(), StatementError> {
        let key = keys(node).ok_or(StatementError::UnknownNode(node))?;
        match (bytes, result) {
            (None, None) => Ok(()),
            (Some(bytes), Some(result)) if identity::verify(&key, tags::RESULT, bytes, &result.0) => Ok(()),
            _ => Err(StatementError::BadSignature(node)),
        }
    }

    /// Checks one member's signature over a session that was checked already.
    ///
    /// # Errors
    /// If the signer is no member or unknown, or the signature is wrong.
    pub fn verify_signature(
        session: &PreparedSession,
        node: NodeId,
        signature: &Signature,
        keys: &Keys<'_>,
    ) -> Result<(), StatementError> {
        if session.facts.committee.position(node).is_none() {
            return Err(FormError::NotAMember(node).into());
        }
        verify(keys, node, tags::PREPARED, &PreparedBody { session, node }, signature)
    }
}

impl Promised {
    /// Signs as `identity`. Only after the acceptor's state is durable.
    #[must_use]
    pub fn sign(slot: Slot, ballot: Ballot, votes: Votes, identity: &Identity) -> Self {
        let node = identity.id();
        let signature = sign(identity, tags::PROMISE, &PromiseBody { slot: &slot, ballot, votes: &votes, node });
        Self { slot, ballot, votes, node, signature }
    }

    /// Checks content and signature. Whether the signer is an acceptor of the decision is for the caller to check.
    ///
    /// # Errors
    /// Naming what is wrong.
    pub fn verify(&self, keys: &Keys<'_>) -> Result<(), StatementError> {
        let Self { slot, ballot, votes, node, signature } = self;
        check_wallet(&slot.wallet)?;
        if !votes.is_well_formed(*ballot) {
            return Err(FormError::VoteAbovePromise.into());
        }
        let body = PromiseBody { slot, ballot: *ballot, votes, node: *node };
        verify(keys, *node, tags::PROMISE, &body, signature)
    }
}

impl Vote {
    /// Signs as `identity`. Only after the acceptor's state is durable.
    #[must_use]
    pub fn sign(wallet: &str, epoch: u32, ballot: Ballot, value_hash: [u8; 32], identity: &Identity) -> Self {
        let node = identity.id();
        let body = VoteBody { kind: VoteBody::KIND, wallet, epoch, ballot, value_hash, node };
        let signature = sign(identity, tags::VOTE, &body);
        Self { wallet: wallet.to_owned(), epoch, ballot, value_hash, node, signature }
    }

    /// Checks content and signature. Whether the signer is an acceptor of the decision is for the caller to check.
    ///
    /// # Errors
    /// Naming what is wrong.
    pub fn verify(&self, keys: &Keys<'_>) -> Result<(), StatementError> {
        let Self { wallet, epoch, ballot, value_hash, node, signature } = self;
        check_wallet(wallet)?;
        let (epoch, ballot, value_hash) = (*epoch, *ballot, *value_hash);
        let body = VoteBody { kind: VoteBody::KIND, wallet, epoch, ballot, value_hash, node: *node };
        verify(keys, *node, tags::VOTE, &body, signature)
    }
}

impl Refused {
    /// Signs as `identity`. Only after it is durable, or for an older incarnation, which can prepare nothing any more.
    #[must_use]
    pub fn sign(wallet: &str, epoch: u32, session: SessionId, incarnation: Incarnation, identity: &Identity) -> Self {
        let node = identity.id();
        let signature = sign(identity, tags::REFUSED, &RefusedBody { wallet, epoch, session, node, incarnation });
        Self { wallet: wallet.to_owned(), epoch, session, node, incarnation, signature }
    }

    /// Checks content and signature. Whether the signer counts is for the caller to check.
    ///
    /// # Errors
    /// Naming what is wrong.
    pub fn verify(&self, keys: &Keys<'_>) -> Result<(), StatementError> {
        let Self { wallet, epoch, session, node, incarnation, signature } = self;
        check_wallet(wallet)?;
        let body = RefusedBody { wallet, epoch: *epoch, session: *session, node: *node, incarnation: *incarnation };
        verify(keys, *node, tags::REFUSED, &body, signature)
    }
}

impl Activated {
    /// Signs as `identity`. Only after the certificate is durable.
    #[must_use]
    pub fn sign(certificate: [u8; 32], identity: &Identity) -> Self {
        let node = identity.id();
        let signature = sign(identity, tags::ACTIVATED, &ActivatedBody { certificate, node });
        Self { certificate, node, signature }
    }

    /// Checks the signature. Whether the signer is a member is for the caller to check.
    ///
    /// # Errors
    /// Naming what is wrong.
    pub fn verify(&self, keys: &Keys<'_>) -> Result<(), StatementError> {
        let Self { certificate, node, signature } = self;
        verify(keys, *node, tags::ACTIVATED, &ActivatedBody { certificate: *certificate, node: *node }, signature)
    }
}

/// Hash over every member's public share on every curve, by curve and position.
#[must_use]
pub fn public_shares_hash(public_shares: &[PublicShares]) -> [u8; 32] {
    tags::PUBLIC_SHARES.hash(&encode(public_shares))
}

/// Bytes of an encoded point on `curve`.
#[must_use]
pub fn point_bytes(curve: Curve) -> usize {
    match curve {
        Curve::Secp256k1 => 33,
        Curve::Ed25519 => 32,
    }
}

#[derive(Serialize)]
struct PreparedBody<'a> {
    session: &'a PreparedSession,
    node: NodeId,
}

#[derive(Serialize)]
struct PromiseBody<'a> {
    slot: &'a Slot,
    ballot: Ballot,
    votes: &'a Votes,
    node: NodeId,
}

#[derive(Serialize)]
struct VoteBody<'a> {
    kind: u8,
    wallet: &'a str,
    epoch: u32,
    ballot: Ballot,
    value_hash: [u8; 32],
    node: NodeId,
}

impl VoteBody<'_> {
    /// Told votes from promises while both were signed under one tag. Certificates keep such votes for ever.
    const KIND: u8 = 1;
}

#[derive(Serialize)]
struct RefusedBody<'a> {
    wallet: &'a str,
    epoch: u32,
    session: SessionId,
    node: NodeId,
    incarnation: Incarnation,
}

#[derive(Serialize)]
struct ActivatedBody {
    certificate: [u8; 32],
    node: NodeId,
}

pub(super) fn check_wallet(wallet: &str) -> Result<(), FormError> {
    if (1..=ID_BYTES_MAX).contains(&wallet.len()) { Ok(()) } else { Err(FormError::WalletLength(wallet.len())) }
}

fn check_count(what: &'static str, expected: usize, got: usize) -> Result<(), FormError> {
    if got == expected { Ok(()) } else { Err(FormError::Count { what, expected, got }) }
}

fn check_point(curve: Curve, point: &[u8]) -> Result<(), FormError> {
    let expected = point_bytes(curve);
    if point.len() == expected { Ok(()) } else { Err(FormError::PointLength { curve, expected, got: point.len() }) }
}

fn sign(identity: &Identity, tag: Tag, body: &impl Serialize) -> Signature {
    Signature(identity.sign(tag, &encode(body)))
}

fn verify(
    keys: &Keys<'_>,
    node: NodeId,
    tag: Tag,
    body: &impl Serialize,
    signature: &Signature,
) -> Result<(), StatementError> {
    let key = keys(node).ok_or(StatementError::UnknownNode(node))?;
    if identity::verify(&key, tag, &encode(body), &signature.0) {
        Ok(())
    } else {
        Err(StatementError::BadSignature(node))
    }
}

/// The one encoding of everything that is signed or hashed here.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain data always encodes into memory")
}
