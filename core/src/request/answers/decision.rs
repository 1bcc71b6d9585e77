//! One ballot as its coordinator sees it: who promised, what that leaves to be chosen, and who stored it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Attempt, DeliveryKey, Report, Signed, Value, Verdict};
use crate::{
    Incarnation, NodeId,
    planted::{Bug, planted},
};

/// What the promises leave to be chosen for a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Anything.
    Free,
    /// The request's result; `None`: it is not kept among the answers (a new wallet).
    Success(Option<Signed>),
    /// The result that the request's id has for another payload: nothing can be signed under it.
    Taken,
    /// This error.
    Error(Vec<u8>),
}

/// One ballot.
#[derive(Debug)]
pub(crate) struct Decision {
    ballot: Attempt,
    payload: [u8; 32],
    acceptors: Vec<NodeId>,
    deliveries: Vec<DeliveryKey>,
    pub(super) quorum: usize,
    promises: BTreeMap<NodeId, (Incarnation, Report)>,
    /// The numbers of the higher ballots that acceptors say they have promised.
    rejections: BTreeMap<NodeId, u64>,
    storing: Option<Storing>,
}

#[derive(Debug)]
struct Storing {
    value: Value,
    stored: BTreeSet<NodeId>,
}

/// How many of the acceptors are a quorum.
pub(crate) fn majority(acceptors: usize) -> usize {
    acceptors / 2 + 1
}

impl Decision {
    /// Nobody has promised anything yet.
    pub fn new(ballot: Attempt, payload: [u8; 32], acceptors: Vec<NodeId>, deliveries: Vec<DeliveryKey>) -> Self {
        let quorum = majority(acceptors.len());
        Self {
            ballot,
            payload,
            acceptors,
            deliveries,
            quorum,
            promises: BTreeMap::new(),
            rejections: BTreeMap::new(),
            storing: None,
        }
    }

    pub fn ballot(&self) -> Attempt {
        self.ballot
    }

    pub fn deliveries(&self) -> &[DeliveryKey] {
        &self.deliveries
    }

    /// Takes a promise, also a late or repeated one. What it shows after the choice changes nothing: the majority that was
    /// heard before would have shown it too if anything had been decided.
    pub fn on_promise(&mut self, from: NodeId, incarnation: Incarnation, mut report: Report) {
        if !self.acceptors.contains(&from) {
            return;
        }
        // Nothing was asked about others.
        report.verdicts.retain(|delivery, _| self.deliveries.contains(delivery));
        self.promises.insert(from, (incarnation, report));
        self.rejections.remove(&from);
    }

    /// An acceptor says that it has promised a higher ballot, and stores nothing of this one. One that says so ends
    /// nothing as long as the others are a quorum. If they are not, the ballot is over, and a later one needs a higher
    /// number than the one that is returned: so high a one was named by more than may lie.
    pub fn on_rejected(&mut self, from: NodeId, higher: u64) -> Option<u64> {
        let stored = self.storing.as_ref().is_some_and(|storing| storing.stored.contains(&from));
        if stored || !self.acceptors.contains(&from) {
            return None;
        }
        self.rejections.insert(from, higher);
        let spare = self.acceptors.len().saturating_sub(self.quorum);
        let mut numbers: Vec<u64> = self.rejections.values().copied().collect();
        numbers.sort_unstable();
        numbers.into_iter().rev().nth(spare)
    }

    /// The highest ballot's number that somebody has rejected this one for, while it has no quorum of promises.
    pub fn outbid(&self) -> Option<u64> {
        let waits = self.storing.is_none() && self.promises.len() < self.quorum;
        self.rejections.values().copied().max().filter(|_| waits)
    }

    /// A promise holds for one life only. What was stored stays stored.
    pub fn on_link_down(&mut self, peer: NodeId) {
        self.promises.remove(&peer);
        self.rejections.remove(&peer);
    }

    /// Whether enough have promised, and nothing is chosen yet.
    pub fn is_open(&self) -> bool {
        self.storing.is_none() && self.promises.len() + usize::from(planted(Bug::ClosedTooEarly)) >= self.quorum
    }

    /// Whether something has been chosen.
    pub fn is_storing(&self) -> bool {
        self.storing.is_some()
    }

    /// The result of the highest ballot that the promises show.
    fn result(&self) -> Option<&Signed> {
        let results = self.promises.values().filter_map(|(_, report)| report.result.as_ref());
        results.max_by_key(|(ballot, _)| *ballot).map(|(_, signed)| signed)
    }

    /// What the promises leave to be chosen for a delivery.
    pub fn bound(&self, delivery: &DeliveryKey) -> Bound {
        let verdicts = self.promises.values().filter_map(|(_, report)| report.verdicts.get(delivery));
        let verdict = verdicts.max_by_key(|(ballot, _)| *ballot);
        match (verdict, self.result()) {
            (Some((_, Verdict::Error(body))), _) => Bound::Error(body.clone()),
            (_, Some(signed)) if signed.payload != self.payload && !planted(Bug::PayloadUnchecked) => Bound::Taken,
            (_, Some(signed)) => Bound::Success(Some(signed.clone())),
            (Some((_, Verdict::Success)), None) => Bound::Success(None),
            (None, None) => Bound::Free,
        }
    }

    /// Whether the promises allow to store this.
    fn fits(&self, value: &Value) -> bool {
        let highest = self.result();
        if value.result.is_some() && highest.is_some() && value.result.as_ref() != highest {
            return false;
        }
        value.verdicts.iter().all(|(delivery, verdict)| match (self.bound(delivery), verdict) {
            (Bound::Free, _) | (Bound::Success(_), Verdict::Success) | (Bound::Taken, Verdict::Error(_)) => true,
            (Bound::Error(bound), Verdict::Error(body)) => bound == *body,
            (Bound::Error(_) | Bound::Taken, Verdict::Success) | (Bound::Success(_), Verdict::Error(_)) => false,
        })
    }

    /// Chooses; once only, and only what [`bound`](Self::bound) leaves.
    ///
    /// # Panics
    /// If this ballot has a value already, or the promises do not allow this one.
    pub fn choose(&mut self, value: Value) {
        assert!(self.storing.is_none(), "a ballot has one value");
        assert!(self.fits(&value), "what a ballot stores follows from its promises");
        self.storing = Some(Storing { value, stored: BTreeSet::new() });
    }

    /// Somebody stored it. The value, once it is decided.
    pub fn on_stored(&mut self, from: NodeId, incarnation: Incarnation) -> Option<&Value> {
        // Only the life that promised.
        let promised = self.promises.get(&from).is_some_and(|(life, _)| *life == incarnation);
        let storing = self.storing.as_mut()?;
        if promised {
            storing.stored.insert(from);
        }
        let enough = storing.stored.len() + usize::from(planted(Bug::DecidedTooEarly)) >= self.quorum;
        enough.then_some(&storing.value)
    }

    /// Who is still to promise.
    pub fn unpromised(&self) -> Vec<NodeId> {
        let open = |node: &NodeId| !self.promises.contains_key(node) && !self.rejections.contains_key(node);
        self.acceptors.iter().copied().filter(open).collect()
    }

    /// Who promised and is still to store, and what.
    pub fn unstored(&self) -> Option<(&Value, Vec<NodeId>)> {
        let storing = self.storing.as_ref()?;
        let missing = self
            .promises
            .keys()
            .copied()
            .filter(|node| !storing.stored.contains(node) && !self.rejections.contains_key(node));
        Some((&storing.value, missing.collect()))
    }
}
