//! Which answer a delivery gets: decided once, whoever works on it and however often it is delivered.
//!
//! A request has one *result* at most (a signature; for a new wallet the certificate, which the activation decides), and
//! each of its deliveries one *verdict*: the result, or an error. A client's own retry is another delivery: an error for
//! one does not stop the other from succeeding. Results and verdicts are single-decree consensus registers (Paxos) that
//! share their ballots, the [`Attempt`]s. Acceptors are the members of the wallet (for a wallet that nobody knows: the
//! configured peers); every quorum is a majority `M = ⌊n/2⌋ + 1` of them, which is at most `t`.
//!
//! - A member that *promises* a ballot for a request and some of its deliveries says what it holds: the result and the
//!   verdicts, each with the ballot in which it was stored ([`Report`]). A first attempt's promises travel with its
//!   proposal, and its `t` participants are enough of them.
//! - With `M` promises the coordinator *chooses*, for each delivery: an error, if the verdict of the highest ballot is
//!   one; else the result of the highest ballot, if there is any; else it is free: to sign, or to give up with an error
//!   of its own ([`Decision`]). Signers store the result they made, others what they are asked to.
//! - A member *stores* something of a ballot only if it promised exactly that ballot, in this life. A result and the
//!   verdicts that go with it are one batch.
//! - Promises are not written. So a member that starts again promises no ballot that an earlier life of it may have known
//!   of: none whose number it would have taken for possible at the moment of the start.
//! - A delivery is answered once `M` members hold its verdict of one ballot durably.
//!
//! # Why no delivery gets two different answers
//! Say a value was chosen for a register in ballot `b` (by `M` members), and let `c > b` be the lowest later ballot whose
//! coordinator chose another value. Some member `a` is among those that stored in `b` and those whose promises of `c` the
//! coordinator had when it chose.
//! 1. If `a` stored in `b` before it promised `c`, then that promise reported a ballot of `b` or later. Between `b` and
//!    `c` nothing else was chosen by any coordinator (`c` is the lowest exception), so the highest report is the value of
//!    `b`, and the coordinator of `c` had to choose it.
//! 2. If `a` promised `c` first, then it refuses `b`: in the same life because it remembers, in a later one because the
//!    number of `c`, and so that of `b`, was possible before that began. It cannot have stored in `b`.
//!
//! A verdict that says success is a statement about the result: both are stored together, in one ballot, so a chosen
//! success has a chosen result, and that one is never replaced. Where the highest result belongs to another payload, a
//! success of a lower ballot was not chosen, and the delivery is free to be told so. A ballot has one value: its
//! coordinator makes each once, and chooses once. That what is durable counts as a promise ([`Report::highest`]) is a
//! second hold for clocks that go back.
//!
//! All of this holds among members that crash, restart and lose messages. A member that lies can spoil a request with an
//! error, but cannot make up a signature or a key: whoever is shown a result verifies it.

pub(crate) mod acceptor;
pub(crate) mod asking;
pub(crate) mod decision;
pub(crate) mod promises;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use mpcium_client::result::{KeygenResult, ReshareResult, SigningResult};

use super::{Attestations, ledger::RequestKey};
use crate::{Incarnation, NodeId, WallTime, context::Context, input::RequestKind, limits, session::Participant, tags};

/// Names a delivery for all nodes and for ever: a hash of its stream, sequence number and time.
pub(crate) type DeliveryKey = [u8; 32];

/// A ballot: the attempt's number, its coordinator, and which of the coordinator's it is.
///
/// The number is at least the coordinator's wall clock in milliseconds. Later attempts are then higher, whoever makes them,
/// as far as the clocks agree; and a number far ahead of the clock is refused, so that nobody can use numbers up, and a
/// member that has forgotten its promises knows up to where they may have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub number: u64,
    pub coordinator: NodeId,
    pub incarnation: Incarnation,
    /// Counts the attempts of that life: none is repeated, even if the clock goes back.
    pub serial: u64,
}

impl Attempt {
    /// Whether it is this peer's own, and the number one that an honest coordinator could have chosen by now.
    pub fn is_of(&self, ctx: &Context, from: Participant) -> bool {
        (self.coordinator, self.incarnation) == from && self.is_plausible(ctx)
    }

    /// Whether the number is one that an honest coordinator could have chosen by now.
    pub fn is_plausible(&self, ctx: &Context) -> bool {
        self.number <= ctx.highest_by_clock()
    }
}

/// The result of a signing request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signed {
    /// Digest of the payload, signatures left out, so that a randomised signature does not make a retry another request.
    pub payload: [u8; 32],
    /// The signature, in the suite's form.
    pub signature: Vec<u8>,
    /// The signatures of all signers over the result document: part of the result, so that whoever answers attaches the
    /// same.
    pub attestations: Attestations,
}

/// What a delivery is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// The request's result.
    Success,
    /// This document.
    Error(Vec<u8>),
}

/// What a member holds of a request and of some of its deliveries, with the ballots in which it was stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub result: Option<(Attempt, Signed)>,
    pub verdicts: BTreeMap<DeliveryKey, (Attempt, Verdict)>,
}

impl Report {
    pub fn is_empty(&self) -> bool {
        self.result.is_none() && self.verdicts.is_empty()
    }

    /// The highest ballot in which something was stored.
    pub fn highest(&self) -> Option<Attempt> {
        let result = self.result.as_ref().map(|(attempt, _)| *attempt);
        result.into_iter().chain(self.verdicts.values().map(|(attempt, _)| *attempt)).max()
    }
}

/// What members store in a ballot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Value {
    /// Goes with verdicts that say success, for a signing request.
    pub result: Option<Signed>,
    pub verdicts: BTreeMap<DeliveryKey, Verdict>,
}

impl Value {
    /// Whether it answers some delivery with the request's result.
    pub fn succeeds(&self) -> bool {
        self.verdicts.values().any(|verdict| *verdict == Verdict::Success)
    }
}

/// Between coordinators and acceptors. The client's document travels along, so that nobody can do this for requests that
/// no initiator signed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Promise this ballot, and say what is held.
    Prepare { kind: RequestKind, request: Vec<u8>, ballot: Attempt, deliveries: Vec<DeliveryKey> },
    /// The ballot is promised; this is held.
    Promised { key: RequestKey, ballot: Attempt, report: Report },
    /// Store this, if exactly the ballot is promised.
    Store { kind: RequestKind, request: Vec<u8>, ballot: Attempt, value: Value },
    /// It is durable at the sender.
    Stored { key: RequestKey, ballot: Attempt },
    /// A higher ballot is promised or stored at the sender.
    Rejected { key: RequestKey, ballot: Attempt, higher: Attempt },
}

/// What continues after a write.
#[derive(Debug)]
pub(crate) enum After {
    /// A ballot's value is durable here: tell who asked.
    Stored { key: RequestKey, ballot: Attempt, to: Participant },
}

/// The name of a delivery.
pub(crate) fn delivery_key(stream: &str, sequence: u64, timestamp: WallTime) -> DeliveryKey {
    let body = (stream, sequence, timestamp);
    tags::DELIVERY.hash(&postcard::to_stdvec(&body).expect("plain data serialises"))
}

/// Whether `body` is an error that answers this request: all that an error verdict may be.
pub(crate) fn is_error_for(kind: RequestKind, wallet: &str, id: &str, body: &[u8]) -> bool {
    body.len() <= limits::ANSWER_BYTES_MAX
        && match kind {
            RequestKind::Keygen => {
                KeygenResult::from_json(body).is_ok_and(|r| !r.is_success() && r.wallet_id == wallet)
            }
            RequestKind::Sign => SigningResult::from_json(body)
                .is_ok_and(|r| !r.is_success() && r.wallet_id == wallet && r.tx_id == id && r.signature.is_none()),
            RequestKind::Reshare => {
                ReshareResult::from_json(body).is_ok_and(|r| !r.is_success() && r.wallet_id == wallet)
            }
        }
}
