//! Consensus: never two different values, whatever the network and the nodes do.

mod crashes;
mod liars;
mod rules;

use mpcium_core::committee::Committee;
use mpcium_core::consensus::{Acceptor, Ballot, Decree, Grounds, Level, Promise, Shown, Votes};
use mpcium_core::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};

/// A value is the number of the proposer that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Value(u32);

/// The value that is decided by as few votes as can be: those that no quorum of another can do without.
const CLOSE: Value = Value(0);

impl Decree for Value {
    type Name = Self;
    /// Nobody forges anything here, unless a test says so.
    type Proof = ();

    fn name(&self) -> Self {
        *self
    }

    fn quorum_of(name: &Self, deciding: &Committee) -> usize {
        if *name == CLOSE { deciding.meeting_quorum() } else { usize::from(deciding.threshold) }
    }
}

type Reasons = Grounds<Value, ()>;

/// What an acceptor answers a proposer that prepares.
fn promise(acceptor: &mut Acceptor<Value>, ballot: Ballot) -> Promise<Value> {
    match acceptor.prepare(ballot) {
        Ok(()) => Promise::Promised { voted: acceptor.voted().cloned(), other: acceptor.votes().other, proof: () },
        Err(promised) => Promise::Rejected { promised },
    }
}

fn free() -> Promise<Value> {
    Promise::Promised { voted: None, other: None, proof: () }
}

/// Promises of a ballot by members that have voted for nothing.
fn blank(members: std::ops::RangeInclusive<u8>, ballot: Ballot) -> Reasons {
    let promises = members.map(|number| Shown { node: node(number), votes: Votes::default(), proof: () }).collect();
    Grounds(vec![Level { ballot, promises }])
}

fn value(letter: char) -> Value {
    Value(u32::from(letter))
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn committee(n: u8, threshold: u16) -> Committee {
    Committee { members: (1..=n).map(node).collect(), threshold }
}

fn ballot(round: u64, number: u8) -> Ballot {
    Ballot { round, node: node(number), incarnation: Incarnation([1; 16]) }
}
