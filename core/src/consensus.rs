//! Single-decree consensus (Paxos), by which a wallet's epoch is decided.
//!
//! One instance per [slot](crate::wallet::Slot). The [`Acceptor`]s are the members of the deciding committee; any of them
//! may drive a decision with a [`Proposer`]. Nothing here knows of wallets, links or disks: the caller makes an acceptor's
//! state durable *before* it sends the answer, and hands over only answers that it attributed and checked.
//!
//! # Quorums
//! A decree says how many acceptors must vote for it ([`Decree::quorum`]). The quorums of two *different* decrees always
//! have a member in common; those of one and the same need not ("flexible Paxos", Howard, Malkhi, Spiegelman 2016).
//!
//! # Invariant: no two different decrees are ever decided
//! A decree is decided once its quorum has voted for it in one ballot. Suppose `v` was decided in ballot `b`, and let
//! `c > b` be the lowest later ballot in which somebody asks for votes for a `w` other than `v`.
//! 1. The proposer of `c` holds promises of a quorum of `w`, none of which reports a vote above the highest vote for `w`
//!    that was reported to it. One of that quorum, say `a`, also voted in `b`.
//! 2. `a` voted in `b` before it promised `c`: after the promise it refuses every lower ballot, also after a restart,
//!    because the promise was durable before it was heard of. So `a`'s promise reports a vote of ballot `b` or later,
//!    and below `c`.
//! 3. All votes from `b` on and below `c` are for `v`, as `c` is the lowest exception. So `a` reports one that is above
//!    every vote for `w` that can have been reported, which contradicts 1.
//!
//! One ballot never carries two decrees: it names node and incarnation, an incarnation is never used again, and within
//! one a proposer never goes back to a round. An acceptor refuses a second decree in one ballot besides.
//!
//! Progress needs one proposer that is left alone for long enough; those that meet a higher ballot step back for a
//! random while. That is the caller's business, as is everything about time.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::committee::Committee;
use crate::{
    Incarnation, NodeId,
    planted::{Bug, planted},
};

/// What can be decided.
pub trait Decree: Clone + Eq {
    /// How many members of the deciding committee must vote for it. Two different decrees whose quorums together are no
    /// more than the committee could both be decided.
    fn quorum(&self, deciding: &Committee) -> usize;
}

/// Names one try of one proposer. Ordered by round, then node, then incarnation, so no two proposers share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Counts from 1.
    pub round: u64,
    /// Whose try it is.
    pub node: NodeId,
    /// In which of its lives.
    pub incarnation: Incarnation,
}

/// One member's memory of one decision. The caller writes it durably after every change, before the answer is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptor<V> {
    promised: Option<Ballot>,
    voted: Option<(Ballot, V)>,
}

/// The answer to "prepare".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Promise<V> {
    /// Will take part in no lower ballot.
    Promised {
        /// The vote of the highest ballot in which this acceptor voted so far.
        voted: Option<(Ballot, V)>,
    },
    /// Has promised a higher ballot.
    Rejected {
        /// That ballot.
        promised: Ballot,
    },
}

/// The answer to "vote".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoteAnswer {
    /// Voted for the value in the ballot.
    Voted,
    /// Has promised a higher ballot, or voted for another value in this one.
    Rejected {
        /// The ballot that stands in the way.
        promised: Ballot,
    },
}

impl<V> Default for Acceptor<V> {
    fn default() -> Self {
        Self { promised: None, voted: None }
    }
}

impl<V> Acceptor<V> {
    /// The same memory with its value put into another type.
    pub fn map<W>(self, into: impl FnOnce(V) -> W) -> Acceptor<W> {
        Acceptor { promised: self.promised, voted: self.voted.map(|(ballot, value)| (ballot, into(value))) }
    }
}

impl<V: Decree> Acceptor<V> {
    /// An acceptor that has promised and voted nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers a proposer that wants to use ballot `ballot`. A repetition gets the same answer.
    pub fn prepare(&mut self, ballot: Ballot) -> Promise<V> {
        match self.promised {
            Some(promised) if promised > ballot => Promise::Rejected { promised },
            _ => {
                self.promised = Some(ballot);
                Promise::Promised { voted: self.voted.clone() }
            }
        }
    }

    /// Answers a proposer that asks for a vote. The caller has checked that `value` may become the epoch at all.
    pub fn vote(&mut self, ballot: Ballot, value: V) -> VoteAnswer {
        if let Some(promised) = self.promised.filter(|promised| *promised > ballot && !planted(Bug::VotesBelowPromise))
        {
            return VoteAnswer::Rejected { promised };
        }
        // Correct proposers never come here with two values; a wrong one must not make this acceptor vote twice.
        if self.voted.as_ref().is_some_and(|(earlier, other)| *earlier == ballot && *other != value) {
            return VoteAnswer::Rejected { promised: ballot };
        }
        self.promised = Some(ballot);
        self.voted = Some((ballot, value));
        VoteAnswer::Voted
    }

    /// The highest ballot promised.
    #[must_use]
    pub fn promised(&self) -> Option<Ballot> {
        self.promised
    }

    /// The vote of the highest ballot in which this acceptor voted.
    #[must_use]
    pub fn voted(&self) -> Option<&(Ballot, V)> {
        self.voted.as_ref()
    }

    /// Whether the state could have come from [`prepare`](Self::prepare) and [`vote`](Self::vote): a vote is never
    /// above the promise. For states that were read back.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        self.voted.as_ref().is_none_or(|(ballot, _)| self.promised.is_some_and(|promised| *ballot <= promised))
    }
}

/// What a proposer wants to say to every acceptor that has [not answered](Proposer::unanswered).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<V> {
    /// Ask for a promise.
    Prepare {
        /// The ballot to promise.
        ballot: Ballot,
    },
    /// Ask for a vote.
    Vote {
        /// The ballot to vote in.
        ballot: Ballot,
        /// The value to vote for.
        value: V,
    },
}

/// A decision, with everybody whose vote made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided<V> {
    /// The ballot in which the votes were cast.
    pub ballot: Ballot,
    /// What was decided.
    pub value: V,
    /// Who voted, in the order of ids: at least a quorum.
    pub voters: Vec<NodeId>,
}

/// One node's attempts to bring about one decision. Keeps nothing durable: a new life of the node is a new incarnation
/// and so never repeats a ballot.
#[derive(Clone, Debug)]
pub struct Proposer<V> {
    deciding: Committee,
    own: V,
    ballot: Ballot,
    highest_round: u64,
    beaten: bool,
    phase: Phase<V>,
}

#[derive(Clone, Debug)]
enum Phase<V> {
    Preparing { promises: BTreeMap<NodeId, Option<(Ballot, V)>> },
    Voting { value: V, votes: BTreeSet<NodeId> },
    Decided,
}

impl<V: Decree> Proposer<V> {
    /// Starts in the round after `after_round`; the first thing to say is [`current`](Self::current).
    ///
    /// `own` is what to propose where nothing else may have been decided. `after_round` must be at least the round of
    /// every ballot that this incarnation has used for this wallet ([`ballot`](Self::ballot) of earlier proposers); 0 if
    /// there was none.
    ///
    /// # Panics
    /// If `deciding` is not well formed (quorums would not intersect), or rounds are exhausted.
    #[must_use]
    pub fn new(deciding: &Committee, node: NodeId, incarnation: Incarnation, own: V, after_round: u64) -> Self {
        assert!(deciding.is_well_formed(), "two quorums of {deciding:?} need not intersect");
        let round = after_round.checked_add(1).expect("rounds are exhausted");
        Self {
            deciding: deciding.clone(),
            own,
            ballot: Ballot { round, node, incarnation },
            highest_round: round,
            beaten: false,
            phase: Phase::Preparing { promises: BTreeMap::new() },
        }
    }

    /// The ballot in use.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Whether somebody answered this ballot with a rejection: time to step back for a random while, then to
    /// [`retry`](Self::retry).
    #[must_use]
    pub fn is_beaten(&self) -> bool {
        self.beaten
    }

    /// Whether this proposer has reported a decision.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        matches!(self.phase, Phase::Decided)
    }

    /// What is to be said now to those in [`unanswered`](Self::unanswered), also as a repetition. `None` once decided.
    #[must_use]
    pub fn current(&self) -> Option<Action<V>> {
        let ballot = self.ballot;
        match &self.phase {
            Phase::Preparing { .. } => Some(Action::Prepare { ballot }),
            Phase::Voting { value, .. } => Some(Action::Vote { ballot, value: value.clone() }),
            Phase::Decided => None,
        }
    }

    /// The acceptors whose answer to [`current`](Self::current) is missing, in the order of ids.
    #[must_use]
    pub fn unanswered(&self) -> Vec<NodeId> {
        let answered = |id: &NodeId| match &self.phase {
            Phase::Preparing { promises } => promises.contains_key(id),
            Phase::Voting { votes, .. } => votes.contains(id),
            Phase::Decided => true,
        };
        self.deciding.members.iter().copied().filter(|id| !answered(id)).collect()
    }

    /// Takes an answer to "prepare" of ballot `ballot`. Returns what to say to every acceptor as soon as there are
    /// promises enough for something. Answers of strangers, to other ballots, and repetitions change nothing.
    ///
    /// The caller has verified the vote that the answer reports, as it would before voting for it.
    pub fn on_promise(&mut self, from: NodeId, ballot: Ballot, answer: Promise<V>) -> Option<Action<V>> {
        if ballot != self.ballot || self.deciding.position(from).is_none() {
            return None;
        }
        let voted = match answer {
            Promise::Rejected { promised } => {
                self.note_rejection(promised);
                return None;
            }
            Promise::Promised { voted } => voted,
        };
        let Phase::Preparing { promises } = &mut self.phase else { return None };
        if promises.contains_key(&from) {
            return None;
        }
        promises.insert(from, voted);
        let value = self.free_to_propose()?;
        self.phase = Phase::Voting { value, votes: BTreeSet::new() };
        self.current()
    }

    /// Takes an answer to "vote" in ballot `ballot`; the caller has verified the signed vote. Returns the decision once,
    /// with the vote that completes the quorum. Later votes, strangers, other ballots and repetitions change nothing.
    pub fn on_vote(&mut self, from: NodeId, ballot: Ballot, answer: VoteAnswer) -> Option<Decided<V>> {
        if ballot != self.ballot || self.deciding.position(from).is_none() {
            return None;
        }
        if let VoteAnswer::Rejected { promised } = answer {
            self.note_rejection(promised);
            return None;
        }
        let Phase::Voting { value, votes } = &mut self.phase else { return None };
        votes.insert(from);
        if votes.len() + usize::from(planted(Bug::VoteMissing)) < value.quorum(&self.deciding) {
            return None;
        }
        let decided = Decided { ballot, value: value.clone(), voters: votes.iter().copied().collect() };
        self.phase = Phase::Decided;
        Some(decided)
    }

    /// Starts over above every ballot that was met. `None` if the decision is known already, or no round is left
    /// (only a member that lies about rounds can bring that about).
    pub fn retry(&mut self) -> Option<Action<V>> {
        if self.is_decided() {
            return None;
        }
        let round = self.highest_round.max(self.ballot.round).checked_add(1)?;
        self.ballot.round = round;
        self.highest_round = round;
        self.beaten = false;
        self.phase = Phase::Preparing { promises: BTreeMap::new() };
        self.current()
    }

    /// What the promises at hand allow to propose: the value of the highest vote reported, or else its own. A value is
    /// allowed by a quorum of promises none of which reports a vote for another above the highest one for this.
    fn free_to_propose(&self) -> Option<V> {
        let Phase::Preparing { promises } = &self.phase else { return None };
        let highest = |of: &dyn Fn(&V) -> bool| {
            promises.values().flatten().filter(|(_, value)| of(value)).max_by_key(|(ballot, _)| *ballot)
        };
        let allowed = |value: &V| {
            let last = highest(&|other| other == value || planted(Bug::VotesIgnored)).map(|(ballot, _)| *ballot);
            let in_favour = promises.values().filter(|voted| voted.as_ref().map(|(ballot, _)| *ballot) <= last);
            in_favour.count() >= value.quorum(&self.deciding)
        };
        let reported = highest(&|_| !planted(Bug::VotesIgnored)).map(|(_, value)| value);
        reported.into_iter().chain([&self.own]).find(|value| allowed(value)).cloned()
    }

    fn note_rejection(&mut self, promised: Ballot) {
        self.beaten = true;
        self.highest_round = self.highest_round.max(promised.round);
    }
}
