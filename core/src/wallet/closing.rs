//! What acceptors choose among in a slot, and the proof that a slot was closed.
//!
//! Invariant: a [`Closing`] that [verifies](Closing::verify) holds the votes of a [quorum](closing_quorum), in one ballot,
//! for closing exactly that slot. It has at least one member in common with the `t` that vote for a session, so by
//! [consensus](crate::consensus) no session of that slot becomes the epoch any more.

use serde::{Deserialize, Serialize};

use super::certificate::{CertificateError, Value, check_ordered, name_signer};
use super::statement::{Keys, Promised, Signature, Slot, StatementError, Vote, check_wallet};
use crate::NodeId;
use crate::committee::Committee;
use crate::consensus::{self, Ballot, Decree};
use crate::limits::{GROUNDS_LEVELS_MAX, NODES_MAX};

/// What acceptors vote on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    /// This session becomes the epoch.
    Session(Box<Value>),
    /// None that was proposed in this slot does; the next slot decides.
    Close,
}

/// What stands for a [`Choice`] in promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ChoiceName {
    /// The session with this [`Value::hash`].
    Session([u8; 32]),
    /// Closing the slot.
    Close,
}

impl ChoiceName {
    /// What a [`Vote`] in this slot names.
    #[must_use]
    pub fn hash(&self, slot: &Slot) -> [u8; 32] {
        match self {
            Self::Session(hash) => *hash,
            Self::Close => slot.close_hash(),
        }
    }
}

/// What an acceptor says of its votes in a slot.
pub type Votes = consensus::Votes<ChoiceName>;

/// The promises that allow a choice, with the signatures of their [`Promised`] statements.
pub type Grounds = consensus::Grounds<ChoiceName, Signature>;

impl Grounds {
    /// Checks that all of these promises were made, in this slot.
    ///
    /// # Errors
    /// Naming who has not signed one.
    pub fn verify(&self, slot: &Slot, keys: &Keys<'_>) -> Result<(), StatementError> {
        for level in &self.0 {
            for shown in &level.promises {
                let (slot, ballot, votes) = (slot.clone(), level.ballot, shown.votes.clone());
                Promised { slot, ballot, votes, node: shown.node, signature: shown.proof }.verify(keys)?;
            }
        }
        Ok(())
    }

    /// Whether there are no more levels and promises than honest members show: to be asked before anything is verified.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.0.len() <= GROUNDS_LEVELS_MAX && self.0.iter().all(|level| level.promises.len() <= NODES_MAX)
    }
}

impl Choice {
    /// What a [`Vote`] in this slot names.
    #[must_use]
    pub fn hash(&self, slot: &Slot) -> [u8; 32] {
        self.name().hash(slot)
    }

    /// The session, if it is one.
    #[must_use]
    pub fn session(&self) -> Option<&Value> {
        match self {
            Self::Session(value) => Some(value),
            Self::Close => None,
        }
    }
}

impl Decree for Choice {
    type Name = ChoiceName;
    type Proof = Signature;

    fn name(&self) -> ChoiceName {
        match self {
            Self::Session(value) => ChoiceName::Session(value.hash()),
            Self::Close => ChoiceName::Close,
        }
    }

    fn quorum_of(name: &ChoiceName, deciding: &Committee) -> usize {
        match name {
            ChoiceName::Session(_) => usize::from(deciding.threshold),
            ChoiceName::Close => closing_quorum(deciding),
        }
    }
}

/// How many members must vote for closing a slot: as many as for a session.
///
/// Fewer would meet the `t` voters of a session too, but perhaps in one member only: that one alone could have a session
/// decided, hide it, and have its slot closed with members that have not voted yet. With `t` of them there must be
/// `2t − n` that lie. Where a session needs everybody, one member is enough: if `n` were needed to close as well, a member
/// that is gone could keep a slot open for ever, and keys that need everybody are at the mercy of each member anyway.
#[must_use]
pub fn closing_quorum(deciding: &Committee) -> usize {
    let threshold = usize::from(deciding.threshold);
    if threshold < deciding.members.len() { threshold } else { 1 }
}

/// The proof that a slot was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The slot.
    pub slot: Slot,
    /// The ballot of all votes.
    pub ballot: Ballot,
    /// Signatures of [`Vote`] statements for closing the slot in the ballot, sorted by node.
    pub votes: Vec<(NodeId, Signature)>,
}

impl Closing {
    /// Puts the votes together. They are checked by [`verify`](Self::verify).
    #[must_use]
    pub fn assemble(slot: Slot, ballot: Ballot, votes: &[Vote]) -> Self {
        let mut votes: Vec<_> = votes.iter().map(|vote| (vote.node, vote.signature)).collect();
        votes.sort_by_key(|(node, _)| *node);
        Self { slot, ballot, votes }
    }

    /// Checks everything but signatures and who the members are.
    ///
    /// # Errors
    /// Naming what is wrong.
    pub fn check(&self) -> Result<(), CertificateError> {
        check_wallet(&self.slot.wallet)?;
        check_ordered(&self.votes, CertificateError::DuplicateVote)
    }

    /// Checks that these are votes enough of members of the deciding committee.
    ///
    /// # Errors
    /// Naming what is wrong.
    pub fn verify(&self, deciding: &Committee, keys: &Keys<'_>) -> Result<(), CertificateError> {
        self.check()?;
        let (expected, got) = (Choice::Close.quorum(deciding), self.votes.len());
        if got < expected {
            return Err(CertificateError::TooFewVotes { expected, got });
        }
        let value_hash = self.slot.close_hash();
        for (node, signature) in &self.votes {
            if deciding.position(*node).is_none() {
                return Err(CertificateError::VoteByStranger(*node));
            }
            let vote = Vote {
                wallet: self.slot.wallet.clone(),
                epoch: self.slot.epoch,
                ballot: self.ballot,
                value_hash,
                node: *node,
                signature: *signature,
            };
            vote.verify(keys).map_err(|error| name_signer(error, CertificateError::BadVote))?;
        }
        Ok(())
    }
}
