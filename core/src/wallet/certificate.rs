//! The proof that a session became a wallet's epoch.
//!
//! Invariant: a [`Certificate`] that [verifies](Certificate::verify) holds a signed "prepared" of *every* member of the
//! new committee and, in one ballot, the votes of at least the threshold of the deciding committee: the previous
//! epoch's, or at epoch 0 the committee itself. By consensus there is then only one such session per wallet and epoch.
//!
//! Different nodes may hold different votes for the same decision, so a certificate is *named* by the hash of what was
//! decided, not of its signatures: whoever holds a certificate of an epoch means the same by it.

use serde::{Deserialize, Serialize};

use super::statement::{
    FormError, Keys, Prepared, PreparedSession, PublicShares, SessionFacts, Signature, StatementError, Vote, encode,
};
use crate::NodeId;
use crate::committee::Committee;
use crate::consensus::Ballot;
use crate::limits::NODES_MAX;
use crate::planted::{Bug, planted};
use crate::tags;

/// A session that can become the epoch: all its members prepared it, with the proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// What all members state alike.
    pub session: PreparedSession,
    /// Every member's public share, per curve in the order of the curves.
    pub public_shares: Vec<PublicShares>,
    /// Each member's signature of its [`Prepared`] statement, in the order of the committee.
    pub prepared: Vec<(NodeId, Signature)>,
    /// Each member's signature over the client's answer, in the same order; empty if the session has no such answer.
    /// All members', so that whoever answers attaches the same.
    pub results: Vec<Signature>,
}

/// A decided session and its votes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// What was decided.
    pub value: Value,
    /// The ballot of all votes.
    pub ballot: Ballot,
    /// Signatures of [`Vote`] statements for the value in the ballot, sorted by node.
    pub votes: Vec<(NodeId, Signature)>,
}

/// What is wrong with a certificate or value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateError {
    /// The content cannot be right, whoever signed it.
    Form(FormError),
    /// A member's statement differs from the others in more than node and signature.
    StatementsDiffer(NodeId),
    /// A member's "prepared" is missing.
    MissingPrepared(NodeId),
    /// A "prepared" of a node that is no member.
    PreparedByStranger(NodeId),
    /// One node's "prepared" twice or out of order.
    DuplicatePrepared(NodeId),
    /// A "prepared" is not signed by its node.
    BadPrepared(NodeId),
    /// A vote for another wallet, epoch or session.
    VoteForOther(NodeId),
    /// Two certificates that are of different epochs, or mean the same.
    NoContradiction,
    /// The votes are of more than one ballot.
    MixedBallots {
        /// The ballot of the first vote.
        expected: Ballot,
        /// Another's.
        got: Ballot,
    },
    /// A vote of a node that is no member of the deciding committee.
    VoteByStranger(NodeId),
    /// One node's vote twice or out of order.
    DuplicateVote(NodeId),
    /// A vote is not signed by its node.
    BadVote(NodeId),
    /// Fewer votes than the deciding committee's threshold.
    TooFewVotes {
        /// The threshold.
        expected: usize,
        /// Number of votes.
        got: usize,
    },
    /// Nobody knows the key of a node.
    UnknownNode(NodeId),
    /// A previous certificate is needed and there is none, or there is one for epoch 0.
    PreviousExpected(bool),
    /// The previous certificate is of another wallet.
    OtherWallet {
        /// The certificate's wallet.
        expected: String,
        /// The previous certificate's.
        got: String,
    },
    /// The previous certificate is not of the epoch before.
    OtherEpoch {
        /// The certificate's epoch.
        epoch: u32,
        /// The previous certificate's.
        previous: u32,
    },
    /// The certificate names another previous certificate.
    OtherPrevious,
    /// Curves or public keys are not those of the previous epoch.
    PublicKeyChanged,
}

impl std::fmt::Display for CertificateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Form(error) => error.fmt(f),
            Self::StatementsDiffer(node) => write!(f, "the statement of {node} is about something else"),
            Self::MissingPrepared(node) => write!(f, "no prepared statement of {node}"),
            Self::PreparedByStranger(node) => write!(f, "prepared statement of {node}, which is no member"),
            Self::DuplicatePrepared(node) => write!(f, "prepared statement of {node} twice or out of order"),
            Self::BadPrepared(node) => write!(f, "the signature under the prepared statement of {node} is not valid"),
            Self::NoContradiction => f.write_str("two certificates that do not contradict each other"),
            Self::VoteForOther(node) => write!(f, "the vote of {node} is for something else"),
            Self::MixedBallots { expected, got } => write!(f, "votes of ballot {got:?} among those of {expected:?}"),
            Self::VoteByStranger(node) => write!(f, "vote of {node}, which is no member of the deciding committee"),
            Self::DuplicateVote(node) => write!(f, "vote of {node} twice or out of order"),
            Self::BadVote(node) => write!(f, "the signature under the vote of {node} is not valid"),
            Self::TooFewVotes { expected, got } => write!(f, "{got} votes, expected at least {expected}"),
            Self::UnknownNode(node) => write!(f, "the identity key of {node} is unknown"),
            Self::PreviousExpected(true) => f.write_str("the certificate of the previous epoch is missing"),
            Self::PreviousExpected(false) => f.write_str("epoch 0 has no previous certificate"),
            Self::OtherWallet { expected, got } => {
                write!(f, "the previous certificate is of wallet {got:?}, expected {expected:?}")
            }
            Self::OtherEpoch { epoch, previous } => write!(f, "epoch {epoch} cannot follow epoch {previous}"),
            Self::OtherPrevious => f.write_str("the previous certificate is not the one that is named"),
            Self::PublicKeyChanged => f.write_str("curves or public keys differ from the previous epoch's"),
        }
    }
}

impl std::error::Error for CertificateError {}

impl From<FormError> for CertificateError {
    fn from(error: FormError) -> Self {
        Self::Form(error)
    }
}

impl Value {
    /// Puts together what all members stated. Signatures are checked by [`verify`](Self::verify).
    ///
    /// # Errors
    /// If a member's statement is missing, twice or a stranger's, statements differ in more than node and signature, or
    /// the public shares are not those of the statements.
    pub fn assemble(
        session: PreparedSession,
        public_shares: Vec<PublicShares>,
        statements: &[Prepared],
    ) -> Result<Self, CertificateError> {
        if let Some(other) = statements.iter().find(|statement| statement.session != session) {
            return Err(CertificateError::StatementsDiffer(other.node));
        }
        let mut sorted: Vec<&Prepared> = statements.iter().collect();
        sorted.sort_by_key(|statement| statement.node);
        let prepared = sorted.iter().map(|s| (s.node, s.signature)).collect();
        let results = sorted.iter().filter_map(|s| s.result).collect();
        let value = Self { session, public_shares, prepared, results };
        value.check()?;
        Ok(value)
    }

    /// Checks everything but signatures and history.
    ///
    /// # Errors
    /// Naming what is wrong.
    pub fn check(&self) -> Result<(), CertificateError> {
        self.session.check()?;
        self.session.check_public_shares(&self.public_shares)?;
        let members = &self.session.facts.committee.members;
        check_ordered(&self.prepared, CertificateError::DuplicatePrepared)?;
        if let Some((stranger, _)) = self.prepared.iter().find(|(node, _)| !members.contains(node)) {
            return Err(CertificateError::PreparedByStranger(*stranger));
        }
        if let Some(missing) = members.iter().find(|member| !self.prepared.iter().any(|(node, _)| node == *member))
            && !planted(Bug::StatementMissing)
        {
            return Err(CertificateError::MissingPrepared(*missing));
        }
        let expected = if self.session.result_bytes().is_some() { self.prepared.len() } else { 0 };
        if self.results.len() != expected {
            let got = self.results.len();
            return Err(FormError::Count { what: "signatures over the answer", expected, got }.into());
        }
        Ok(())
    }

    /// Checks all that an acceptor has to check before it votes, except what only it knows: that the initiator-signed
    /// request asks for this committee and threshold, and that at epoch 0 they are its own configured ones.
    ///
    /// `previous` is the verified certificate of the epoch before, `None` at epoch 0.
    ///
    /// # Errors
    /// Naming what is wrong.
    pub fn verify(&self, previous: Option<&Certificate>, keys: &Keys<'_>) -> Result<(), CertificateError> {
        self.check()?;
        self.deciding_committee(previous)?;
        for (node, signature) in &self.prepared {
            Prepared::verify_signature(&self.session, *node, signature, keys)
                .map_err(|error| name_signer(error, CertificateError::BadPrepared))?;
        }
        let bytes = self.session.result_bytes();
        for ((node, _), result) in self.prepared.iter().zip(&self.results) {
            Prepared::verify_result(bytes.as_deref(), *node, Some(result), keys)
                .map_err(|error| name_signer(error, CertificateError::BadPrepared))?;
        }
        Ok(())
    }

    /// Every member's signature over the client's answer, by node.
    pub fn attestations(&self) -> impl Iterator<Item = (NodeId, &Signature)> {
        self.prepared.iter().map(|(node, _)| *node).zip(&self.results)
    }

    /// The facts of the session.
    #[must_use]
    pub fn facts(&self) -> &SessionFacts {
        &self.session.facts
    }

    /// What a [`Vote`] names: [`PreparedSession::hash`].
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.session.hash()
    }

    /// Whose members decide whether this becomes the epoch, and by how many votes (the committee's threshold): the
    /// previous epoch's committee, or at epoch 0 the committee itself.
    ///
    /// # Errors
    /// If `previous` is not the certificate that this value follows, or the public key would change.
    pub fn deciding_committee<'a>(
        &'a self,
        previous: Option<&'a Certificate>,
    ) -> Result<&'a Committee, CertificateError> {
        let facts = self.facts();
        let previous = match (facts.epoch, previous) {
            (0, None) => return Ok(&facts.committee),
            (0, Some(_)) => return Err(CertificateError::PreviousExpected(false)),
            (_, None) => return Err(CertificateError::PreviousExpected(true)),
            (_, Some(previous)) => previous,
        };
        let before = previous.facts();
        if before.wallet != facts.wallet {
            return Err(CertificateError::OtherWallet { expected: facts.wallet.clone(), got: before.wallet.clone() });
        }
        if before.epoch.checked_add(1) != Some(facts.epoch) {
            return Err(CertificateError::OtherEpoch { epoch: facts.epoch, previous: before.epoch });
        }
        if previous.hash() != facts.previous_certificate {
            return Err(CertificateError::OtherPrevious);
        }
        if before.curves != facts.curves || previous.value.session.public_keys != self.session.public_keys {
            return Err(CertificateError::PublicKeyChanged);
        }
        Ok(&before.committee)
    }
}

impl Certificate {
    /// Puts together a decision: the value and the votes for it, of one ballot, of the deciding committee's members.
    /// Verifies everything, so that no node ever hands out a certificate that others refuse.
    ///
    /// # Errors
    /// As [`verify`](Self::verify), and if votes are of several ballots or for something else.
    pub fn assemble(
        value: Value,
        votes: &[Vote],
        previous: Option<&Self>,
        keys: &Keys<'_>,
    ) -> Result<Self, CertificateError> {
        let threshold = usize::from(value.deciding_committee(previous)?.threshold);
        let Some(first) = votes.first() else {
            return Err(CertificateError::TooFewVotes { expected: threshold, got: 0 });
        };
        let (facts, hash) = (value.facts(), value.hash());
        for vote in votes {
            if vote.wallet != facts.wallet || vote.epoch != facts.epoch || vote.value_hash != hash {
                return Err(CertificateError::VoteForOther(vote.node));
            }
            if vote.ballot != first.ballot {
                return Err(CertificateError::MixedBallots { expected: first.ballot, got: vote.ballot });
            }
        }
        let mut signatures: Vec<_> = votes.iter().map(|vote| (vote.node, vote.signature)).collect();
        signatures.sort_by_key(|(node, _)| *node);
        let certificate = Self { value, ballot: first.ballot, votes: signatures };
        certificate.verify(previous, keys)?;
        Ok(certificate)
    }

    /// Checks everything but signatures and history.
    ///
    /// # Errors
    /// Naming what is wrong.
    pub fn check(&self) -> Result<(), CertificateError> {
        self.value.check()?;
        check_ordered(&self.votes, CertificateError::DuplicateVote)?;
        if self.votes.len() > NODES_MAX {
            return Err(FormError::Count { what: "votes", expected: NODES_MAX, got: self.votes.len() }.into());
        }
        Ok(())
    }

    /// Checks everything, given the verified certificate of the epoch before (`None` at epoch 0).
    ///
    /// # Errors
    /// Naming what is wrong.
    pub fn verify(&self, previous: Option<&Self>, keys: &Keys<'_>) -> Result<(), CertificateError> {
        self.value.verify(previous, keys)?;
        let deciding = self.value.deciding_committee(previous)?;
        self.check()?;
        let (facts, value_hash) = (self.facts(), self.value.hash());
        for (node, signature) in &self.votes {
            if deciding.position(*node).is_none() {
                return Err(CertificateError::VoteByStranger(*node));
            }
            let vote = Vote {
                wallet: facts.wallet.clone(),
                epoch: facts.epoch,
                ballot: self.ballot,
                value_hash,
                node: *node,
                signature: *signature,
            };
            vote.verify(keys).map_err(|error| name_signer(error, CertificateError::BadVote))?;
        }
        let (expected, got) = (usize::from(deciding.threshold), self.votes.len());
        if got + usize::from(planted(Bug::VoteMissing)) < expected {
            return Err(CertificateError::TooFewVotes { expected, got });
        }
        Ok(())
    }

    /// Verifies a wallet's certificates from epoch 0 on, without a gap.
    ///
    /// # Errors
    /// The epoch whose certificate is refused, and why.
    pub fn verify_chain(chain: &[Self], keys: &Keys<'_>) -> Result<(), (u32, CertificateError)> {
        let mut previous = None;
        for certificate in chain {
            certificate.verify(previous, keys).map_err(|error| (certificate.facts().epoch, error))?;
            previous = Some(certificate);
        }
        Ok(())
    }

    /// The facts of the decided session.
    #[must_use]
    pub fn facts(&self) -> &SessionFacts {
        self.value.facts()
    }

    /// The certificate's name: a hash of what was decided. Equal for all certificates of one decision, whichever
    /// votes they hold; different for two decisions of one epoch.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        tags::CERTIFICATE.hash(&encode(&self.value.session))
    }
}

/// Signatures come sorted by node and each node's once, so that one set of signatures has one encoding.
pub(super) fn check_ordered(
    signatures: &[(NodeId, Signature)],
    error: fn(NodeId) -> CertificateError,
) -> Result<(), CertificateError> {
    match signatures.iter().zip(signatures.iter().skip(1)).find(|((a, _), (b, _))| a >= b) {
        Some((_, (node, _))) => Err(error(*node)),
        None => Ok(()),
    }
}

pub(super) fn name_signer(error: StatementError, bad_signature: fn(NodeId) -> CertificateError) -> CertificateError {
    match error {
        StatementError::Form(error) => CertificateError::Form(error),
        StatementError::UnknownNode(node) => CertificateError::UnknownNode(node),
        StatementError::BadSignature(node) => bad_signature(node),
    }
}
