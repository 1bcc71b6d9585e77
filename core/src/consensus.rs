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
//! # Nobody is believed that a decree is open
//! A proposer hands every acceptor the promises that allow its decree ([`Grounds`]), each signed by who made it, and an
//! acceptor votes only if they do. So a proposer that lies cannot have two decrees voted for, neither in two ballots
//! nor by asking different acceptors for different votes in one.
//!
//! A promise says which vote of the acceptor's was its highest, and which was its highest for anything else
//! ([`Votes`]). Grounds are levels. The first holds promises of the ballot that is voted in, the next ones promises of
//! lower and lower ballots `m` in which the same decree was open. A level of ballot `c` above one of ballot `m` shows
//! that in no ballot from `m` on and below `c` another decree was or will be decided; the last level shows that of all
//! ballots below its own. Most grounds have one level: nobody has voted for anything else.
//!
//! # Invariant: two different decisions name a liar
//! If no acceptor lies about its votes, no two different decrees are ever decided, whatever proposers do. If two are,
//! an acceptor's own signatures contradict each other ([`liars`]).
//!
//! Let `v` be decided in ballot `b`, and let `w` other than `v` be voted for in a ballot above `b`, on its grounds.
//! 1. One level of the grounds, of some ballot `c`, is above `b`, and the next one, of ballot `m`, is not (or there is
//!    none). By the [rule](allows) a quorum of `w` promised `c` and reports no vote for anything else above `m`; and if
//!    `m` is `b`, those of it that do not report the vote for `v` leave no quorum for `v`. So one that voted for `v` in
//!    `b`, say `a`, is among those whose promise does not show that.
//! 2. If `a` voted in `b` before it promised `c`, its promise must show it: as its highest vote, as its highest for
//!    anything but that, or below one for something that is not `w` either. It does not, so `a` has lied.
//! 3. If it promised `c` first, it must never vote in `b`, also after a restart, because the promise was durable before
//!    it was heard of. It did, so `a` has broken its promise.
//!
//! In one ballot two decrees need two quorums, whose common member has voted twice. Different slots of a wallet share
//! no ballot: an acceptor begins a slot above everything that it promised before ([`Acceptor::above`]).
//!
//! Signatures and rule are always checked, also by an acceptor that has not voted yet: which votes others cast it
//! cannot know.
//!
//! Progress needs one proposer that is left alone for long enough; those that meet a higher ballot step back for a
//! random while. That is the caller's business, as is everything about time. A proposer that asks for different votes
//! in one ballot and is then never heard of again can leave a decision open: its own vote may have made either.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::committee::Committee;
use crate::{
    Incarnation, NodeId, limits,
    planted::{Bug, planted},
};

/// What can be decided.
pub trait Decree: Clone + Eq {
    /// What stands for it in promises.
    type Name: Clone + fmt::Debug + Ord + Serialize + DeserializeOwned;
    /// What proves to others that an acceptor has promised something.
    type Proof: Clone + fmt::Debug + Eq + Serialize + DeserializeOwned;

    /// Its name; different decrees have different ones.
    fn name(&self) -> Self::Name;

    /// How many members of the deciding committee must vote for what has this name. Two different decrees whose quorums
    /// together are no more than the committee could both be decided.
    fn quorum_of(name: &Self::Name, deciding: &Committee) -> usize;

    /// How many members of the deciding committee must vote for it.
    fn quorum(&self, deciding: &Committee) -> usize {
        Self::quorum_of(&self.name(), deciding)
    }
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

impl Ballot {
    /// The lowest ballot above all of this one's round.
    #[must_use]
    pub fn next_round(&self) -> Self {
        let (node, incarnation) = (NodeId::from_bytes([0; 16]), Incarnation([0; 16]));
        Self { round: self.round.saturating_add(1), node, incarnation }
    }
}

/// What an acceptor says of its votes when it promises: enough to know since when it has voted for one thing only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Votes<N> {
    /// The highest vote.
    pub last: Option<(Ballot, N)>,
    /// The highest vote for anything else than that.
    pub other: Option<(Ballot, N)>,
}

impl<N> Default for Votes<N> {
    fn default() -> Self {
        Self { last: None, other: None }
    }
}

impl<N: Eq> Votes<N> {
    /// The highest vote for anything but this.
    fn against(&self, name: &N) -> Option<&(Ballot, N)> {
        if planted(Bug::VotesIgnored) {
            return None;
        }
        self.last.iter().chain(&self.other).find(|(_, voted)| voted != name)
    }

    /// Whether an acceptor that promises `ballot` can have voted so.
    #[must_use]
    pub fn is_well_formed(&self, ballot: Ballot) -> bool {
        match (&self.last, &self.other) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some((last, _)), None) => *last <= ballot,
            (Some((last, name)), Some((other, another))) => *last <= ballot && other < last && name != another,
        }
    }
}

/// An acceptor's promise as others are shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown<N, P> {
    /// Whose.
    pub node: NodeId,
    /// What it said of its votes.
    pub votes: Votes<N>,
    /// What proves that it said so.
    pub proof: P,
}

/// Promises of one ballot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level<N, P> {
    /// The ballot that was promised.
    pub ballot: Ballot,
    /// In the order of ids.
    pub promises: Vec<Shown<N, P>>,
}

/// The promises that allow a decree in a ballot. Empty: there is nothing to show (votes of versions that kept none).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grounds<N, P>(pub Vec<Level<N, P>>);

impl<N, P> Default for Grounds<N, P> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// The grounds of a vote for a decree.
pub type GroundsOf<V> = Grounds<<V as Decree>::Name, <V as Decree>::Proof>;

impl<N: Ord, P> Grounds<N, P> {
    /// Whether they allow `name` in `ballot`. That each promise was made by its node, in this decision, is for the caller
    /// to check.
    #[must_use]
    pub fn allow<V: Decree<Name = N, Proof = P>>(&self, deciding: &Committee, ballot: Ballot, name: &N) -> bool {
        let mut expected = Some(ballot);
        for (at, level) in self.0.iter().enumerate() {
            let since = self.0.get(at.saturating_add(1)).map(|next| next.ballot);
            let orderly = level.promises.is_sorted_by(|a, b| a.node < b.node)
                && level.promises.iter().all(|p| deciding.position(p.node).is_some())
                && level.promises.iter().all(|p| p.votes.is_well_formed(level.ballot));
            if expected != Some(level.ballot) || !orderly || since >= Some(level.ballot) {
                return false;
            }
            let votes: Vec<&Votes<N>> = level.promises.iter().map(|p| &p.votes).collect();
            if !allows::<V>(deciding, &votes, name, since) {
                return false;
            }
            expected = since;
        }
        (1..=limits::GROUNDS_LEVELS_MAX).contains(&self.0.len())
    }
}

/// The rule: whether these promises exclude that in any ballot from `since` on, and below theirs, anything but `name`
/// was or will be decided. `None`: in any ballot below.
fn allows<V: Decree>(deciding: &Committee, votes: &[&Votes<V::Name>], name: &V::Name, since: Option<Ballot>) -> bool {
    let against = votes.iter().map(|votes| votes.against(name));
    let in_favour: Vec<_> = against.filter(|against| against.map(|(ballot, _)| *ballot) <= since).collect();
    if in_favour.len() < V::quorum_of(name, deciding) {
        return false;
    }
    // Above `since` those in favour leave no quorum for anything else. In `since` itself a proposer that lies may have
    // asked for other votes too.
    let others: BTreeSet<&V::Name> =
        in_favour.iter().flatten().filter(|(ballot, _)| Some(*ballot) == since).map(|(_, other)| other).collect();
    others.into_iter().all(|other| {
        let not_for_it = in_favour.iter().filter(|a| !matches!(a, Some((at, n)) if Some(*at) == since && n == other));
        not_for_it.count() + V::quorum_of(other, deciding) > deciding.members.len()
    })
}

/// Votes of one ballot that decided something.
#[derive(Clone, Debug)]
pub struct Election<N> {
    /// The ballot.
    pub ballot: Ballot,
    /// What was decided.
    pub name: N,
    /// Who voted.
    pub voters: BTreeSet<NodeId>,
}

/// Who has signed what contradicts itself, if both of these were decided in one decision. `grounds`: on which an acceptor
/// voted for the one of the higher ballot. Nobody only if there is no contradiction, or the grounds allow nothing.
#[must_use]
pub fn liars<V: Decree>(
    first: &Election<V::Name>,
    second: &Election<V::Name>,
    grounds: &GroundsOf<V>,
) -> BTreeSet<NodeId> {
    let (lower, higher) = if first.ballot <= second.ballot { (first, second) } else { (second, first) };
    if lower.name == higher.name {
        return BTreeSet::new();
    }
    if lower.ballot == higher.ballot {
        return lower.voters.intersection(&higher.voters).copied().collect();
    }
    // The lowest level above the lower decision.
    let level = grounds.0.iter().rfind(|level| level.ballot > lower.ballot);
    let hides = |votes: &Votes<V::Name>| match votes.against(&higher.name) {
        Some((at, name)) => *at < lower.ballot || (*at == lower.ballot && *name != lower.name),
        None => true,
    };
    let promises = level.into_iter().flat_map(|level| &level.promises);
    promises.filter(|p| lower.voters.contains(&p.node) && hides(&p.votes)).map(|p| p.node).collect()
}

/// A vote, and what allowed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(serialize = "V: Serialize", deserialize = "V: Deserialize<'de>"))]
pub struct Voted<V: Decree> {
    /// In which ballot.
    pub ballot: Ballot,
    /// For what.
    pub value: V,
    /// Why that could be voted for.
    pub grounds: GroundsOf<V>,
}

/// One member's memory of one decision. The caller writes it durably after every change, before the answer is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(serialize = "V: Serialize", deserialize = "V: Deserialize<'de>"))]
pub struct Acceptor<V: Decree> {
    promised: Option<Ballot>,
    voted: Option<Voted<V>>,
    /// The highest vote for anything else.
    other: Option<(Ballot, V::Name)>,
}

/// The answer to "prepare".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(serialize = "V: Serialize", deserialize = "V: Deserialize<'de>"))]
pub enum Promise<V: Decree> {
    /// Will take part in no lower ballot.
    Promised {
        /// The vote of the highest ballot in which this acceptor voted so far.
        voted: Option<Voted<V>>,
        /// Its highest vote for anything else.
        other: Option<(Ballot, V::Name)>,
        /// What proves to others that it said so.
        proof: V::Proof,
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
    /// The promises that were shown do not allow it: only a proposer that lies is told so.
    Unfounded,
}

impl<V: Decree> Default for Acceptor<V> {
    fn default() -> Self {
        Self { promised: None, voted: None, other: None }
    }
}

impl<V: Decree> Acceptor<V> {
    /// An acceptor that has promised and voted nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An acceptor that takes part in no ballot of this one's round, nor below.
    #[must_use]
    pub fn above(ballot: Ballot) -> Self {
        Self { promised: Some(ballot.next_round()), ..Self::default() }
    }

    /// What a version that kept no grounds remembers.
    #[must_use]
    pub fn without_grounds(promised: Option<Ballot>, voted: Option<(Ballot, V)>) -> Self {
        let voted = voted.map(|(ballot, value)| Voted { ballot, value, grounds: Grounds::default() });
        Self { promised, voted, other: None }
    }

    /// Answers a proposer that wants to use ballot `ballot`: with the ballot that stands in the way, or with a promise
    /// that [`votes`](Self::votes) belongs to. A repetition gets the same answer.
    ///
    /// # Errors
    /// The higher ballot that was promised.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<(), Ballot> {
        match self.promised {
            Some(promised) if promised > ballot => Err(promised),
            _ => {
                self.promised = Some(ballot);
                Ok(())
            }
        }
    }

    /// Answers a proposer that asks for a vote. The caller has checked that `value` may become the epoch at all, and
    /// that the promises in `grounds` were made.
    pub fn vote(&mut self, deciding: &Committee, ballot: Ballot, value: V, grounds: GroundsOf<V>) -> VoteAnswer {
        if let Some(promised) = self.promised.filter(|promised| *promised > ballot && !planted(Bug::VotesBelowPromise))
        {
            return VoteAnswer::Rejected { promised };
        }
        let name = value.name();
        if let Some(earlier) = self.voted.as_ref().filter(|earlier| earlier.ballot == ballot) {
            // Correct proposers never come here with two values; a wrong one must not make this acceptor vote twice.
            let same = earlier.value.name() == name;
            return if same { VoteAnswer::Voted } else { VoteAnswer::Rejected { promised: ballot } };
        }
        if !grounds.allow::<V>(deciding, ballot, &name) {
            return VoteAnswer::Unfounded;
        }
        self.promised = Some(ballot);
        if let Some(earlier) = self.voted.replace(Voted { ballot, value, grounds })
            && earlier.value.name() != name
        {
            self.other = Some((earlier.ballot, earlier.value.name()));
        }
        VoteAnswer::Voted
    }

    /// The highest ballot promised.
    #[must_use]
    pub fn promised(&self) -> Option<Ballot> {
        self.promised
    }

    /// The vote of the highest ballot in which this acceptor voted.
    #[must_use]
    pub fn voted(&self) -> Option<&Voted<V>> {
        self.voted.as_ref()
    }

    /// What a promise says of the votes.
    #[must_use]
    pub fn votes(&self) -> Votes<V::Name> {
        let last = self.voted.as_ref().map(|voted| (voted.ballot, voted.value.name()));
        Votes { last, other: self.other.clone() }
    }

    /// Whether the state could have come from [`prepare`](Self::prepare) and [`vote`](Self::vote). For states that were
    /// read back.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let votes = self.votes();
        self.promised.map_or(votes.last.is_none() && votes.other.is_none(), |promised| votes.is_well_formed(promised))
    }
}

/// What a proposer wants to say to every acceptor that has [not answered](Proposer::unanswered).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<V: Decree> {
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
        /// What allows that.
        grounds: GroundsOf<V>,
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
pub struct Proposer<V: Decree> {
    deciding: Committee,
    own: V,
    ballot: Ballot,
    /// What acceptors say that they have promised instead, in this ballot.
    rejections: BTreeMap<NodeId, u64>,
    phase: Phase<V>,
}

#[derive(Clone, Debug)]
enum Phase<V: Decree> {
    Preparing { promises: BTreeMap<NodeId, Heard<V>> },
    Voting { value: V, grounds: GroundsOf<V>, votes: BTreeSet<NodeId> },
    Decided,
}

/// A promise that was heard.
#[derive(Clone, Debug)]
struct Heard<V: Decree> {
    votes: Votes<V::Name>,
    voted: Option<Voted<V>>,
    proof: V::Proof,
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
            rejections: BTreeMap::new(),
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
        !self.rejections.is_empty()
    }

    /// Whether so many have rejected this ballot that the others are no quorum. As long as they are, it is worth waiting
    /// for them: who rejects may lie.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        let needed = match &self.phase {
            Phase::Voting { value, .. } => value.quorum(&self.deciding),
            Phase::Preparing { .. } | Phase::Decided => self.own.quorum(&self.deciding),
        };
        self.rejections.len() + needed > self.deciding.members.len()
    }

    /// Whether this proposer has reported a decision.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        matches!(self.phase, Phase::Decided)
    }

    /// What it proposes where nothing else may have been decided.
    #[must_use]
    pub fn own(&self) -> &V {
        &self.own
    }

    /// From now on proposes `own` where nothing else may have been decided. If votes are asked for already, that is from
    /// the next ballot on.
    pub fn propose(&mut self, own: V) {
        self.own = own;
        self.consider();
    }

    /// What is to be said now to those in [`unanswered`](Self::unanswered), also as a repetition. `None` once decided.
    #[must_use]
    pub fn current(&self) -> Option<Action<V>> {
        let ballot = self.ballot;
        match &self.phase {
            Phase::Preparing { .. } => Some(Action::Prepare { ballot }),
            Phase::Voting { value, grounds, .. } => {
                Some(Action::Vote { ballot, value: value.clone(), grounds: grounds.clone() })
            }
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
    /// The caller has verified the vote that the answer reports, as it would before voting for it, and that all promises
    /// in it were made.
    pub fn on_promise(&mut self, from: NodeId, ballot: Ballot, answer: Promise<V>) -> Option<Action<V>> {
        if ballot != self.ballot || self.deciding.position(from).is_none() {
            return None;
        }
        let (voted, other, proof) = match answer {
            Promise::Rejected { promised } => {
                self.note_rejection(from, promised);
                return None;
            }
            Promise::Promised { voted, other, proof } => (voted, other, proof),
        };
        let last = voted.as_ref().map(|voted| (voted.ballot, voted.value.name()));
        let votes = Votes { last, other };
        let Phase::Preparing { promises } = &mut self.phase else { return None };
        if promises.contains_key(&from) || !votes.is_well_formed(ballot) {
            return None;
        }
        promises.insert(from, Heard { votes, voted, proof });
        self.consider()
    }

    /// Takes an answer to "vote" in ballot `ballot`; the caller has verified the signed vote. Returns the decision once,
    /// with the vote that completes the quorum. Later votes, strangers, other ballots and repetitions change nothing.
    pub fn on_vote(&mut self, from: NodeId, ballot: Ballot, answer: VoteAnswer) -> Option<Decided<V>> {
        if ballot != self.ballot || self.deciding.position(from).is_none() {
            return None;
        }
        match answer {
            VoteAnswer::Rejected { promised } => {
                self.note_rejection(from, promised);
                return None;
            }
            VoteAnswer::Unfounded => return None,
            VoteAnswer::Voted => {}
        }
        let Phase::Voting { value, votes, .. } = &mut self.phase else { return None };
        votes.insert(from);
        if votes.len() + usize::from(planted(Bug::VoteMissing)) < value.quorum(&self.deciding) {
            return None;
        }
        let decided = Decided { ballot, value: value.clone(), voters: votes.iter().copied().collect() };
        self.phase = Phase::Decided;
        Some(decided)
    }

    /// Starts over above the ballots that stood in the way. `None` if the decision is known already, or no round is
    /// left (only a member that lies about rounds can bring that about).
    pub fn retry(&mut self) -> Option<Action<V>> {
        if self.is_decided() {
            return None;
        }
        let round = self.round_to_beat().max(self.ballot.round).checked_add(1)?;
        self.ballot.round = round;
        self.rejections.clear();
        self.phase = Phase::Preparing { promises: BTreeMap::new() };
        self.current()
    }

    /// The lowest round above which so many take part, of those that have answered, that they are a quorum. Not the
    /// highest that anybody names, or one member that lies could name ever higher ones.
    fn round_to_beat(&self) -> u64 {
        let agreed = match &self.phase {
            Phase::Preparing { promises } => promises.len(),
            Phase::Voting { votes, .. } => votes.len(),
            Phase::Decided => 0,
        };
        let mut rounds: Vec<u64> = self.rejections.values().copied().collect();
        rounds.extend(vec![self.ballot.round; agreed]);
        rounds.sort_unstable();
        let threshold = usize::from(self.deciding.threshold);
        let enough =
            if rounds.len() < threshold { self.deciding.meeting_quorum().min(rounds.len()) } else { threshold };
        rounds.get(enough.saturating_sub(1)).copied().unwrap_or(self.ballot.round)
    }

    /// Goes on to asking for votes if the promises at hand allow anything.
    fn consider(&mut self) -> Option<Action<V>> {
        let (value, grounds) = self.free_to_propose()?;
        self.phase = Phase::Voting { value, grounds, votes: BTreeSet::new() };
        self.current()
    }

    /// What the promises at hand allow to propose, and why: the value of the highest vote reported that they allow, or
    /// else its own.
    fn free_to_propose(&self) -> Option<(V, GroundsOf<V>)> {
        let Phase::Preparing { promises } = &self.phase else { return None };
        let mut reported: Vec<&Voted<V>> = promises.values().filter_map(|heard| heard.voted.as_ref()).collect();
        reported.sort_by_key(|voted| std::cmp::Reverse(voted.ballot));
        let values = reported.iter().filter(|_| !planted(Bug::VotesIgnored)).map(|voted| &voted.value);
        values.chain([&self.own]).find_map(|value| {
            let name = value.name();
            let shown = |(node, heard): (&NodeId, &Heard<V>)| Shown {
                node: *node,
                votes: heard.votes.clone(),
                proof: heard.proof.clone(),
            };
            let level = Level { ballot: self.ballot, promises: promises.iter().map(shown).collect() };
            // What was enough for a vote is enough from any of its levels on, and the higher ones may not fit any more.
            let voted_for = reported.iter().filter(|voted| voted.value.name() == name).map(|voted| &voted.grounds.0);
            let below =
                voted_for.flat_map(|levels| (0..levels.len()).filter_map(|from| Some(levels.get(from..)?.to_vec())));
            let mut possible: Vec<_> = std::iter::once(Vec::new())
                .chain(below)
                .map(|below| Grounds([vec![level.clone()], below].concat()))
                .filter(|grounds| grounds.allow::<V>(&self.deciding, self.ballot, &name))
                .collect();
            // As few levels as can be: each next ballot may add one.
            possible.sort_by_key(|grounds| grounds.0.len());
            Some((value.clone(), possible.into_iter().next()?))
        })
    }

    fn note_rejection(&mut self, from: NodeId, promised: Ballot) {
        let highest = self.rejections.entry(from).or_default();
        *highest = promised.round.max(*highest);
    }
}
