//! Statements, certificates and records: what is believed, what is refused and why, and the bytes.

mod certificates;
mod records;
mod statements;

use std::collections::BTreeSet;

use mpcium_core::committee::Committee;
use mpcium_core::consensus::{self, Acceptor, Ballot, Decree as _, Level, Shown};
use mpcium_core::protocol::{Checked, Curve, KeyShare};
use mpcium_core::store::{Batch, Keyspace};
use mpcium_core::wallet::record::{
    RefusedRecord, Stored, certificate_key, decision_key, pending_key, share_key, wallet_prefix,
};
use mpcium_core::wallet::statement::public_shares_hash;
use mpcium_core::wallet::{
    AcceptorRecord, Activated, CastVote, Certificate, CertificateError, CertificateRecord, Choice, ChoiceName, Closing,
    FormError, Grounds, PendingRecord, Prepared, PreparedRecord, PreparedSession, Promised, RecordError, Refused,
    SessionFacts, SessionId, ShareRecord, Signature, Slot, StatementError, StoppedRecord, Value, Vote, Votes,
};
use mpcium_core::{Identity, Incarnation, NodeId, Secret, limits};

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn identity(number: u8) -> Identity {
    Identity::new(node(number), &[number; 32])
}

/// Nodes 1 to 40 are known.
fn keys(id: NodeId) -> Option<ed25519_dalek::VerifyingKey> {
    let number = id.as_bytes()[0];
    (number <= 40 && id == node(number)).then(|| identity(number).public())
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, node: node(1), incarnation: Incarnation([9; 16]) }
}

fn facts(members: std::ops::RangeInclusive<u8>, threshold: u16) -> SessionFacts {
    SessionFacts {
        request_digest: [1; 32],
        wallet: "wallet-1".into(),
        curves: Curve::ALL.to_vec(),
        epoch: 0,
        previous_certificate: [0; 32],
        session: SessionId([2; 32]),
        committee: Committee { members: members.map(node).collect(), threshold },
    }
}

fn shares(facts: &SessionFacts, id: NodeId) -> Vec<KeyShare> {
    let share = |curve: &Curve| {
        let length = if *curve == Curve::Secp256k1 { 33 } else { 32 };
        KeyShare {
            curve: *curve,
            threshold: facts.committee.threshold,
            index: facts.committee.position(id).unwrap(),
            secret: Secret::new(vec![77; 32]),
            public_key: vec![5; length],
            public_shares: facts.committee.members.iter().map(|m| vec![m.as_bytes()[0]; length]).collect(),
            checked: Checked::default(),
        }
    };
    facts.curves.iter().map(share).collect()
}

fn statements(facts: &SessionFacts) -> Vec<Prepared> {
    let sign = |id: &NodeId| {
        let (session, _) = PreparedSession::new(facts.clone(), *id, &shares(facts, *id)).unwrap();
        Prepared::sign(session, &identity(id.as_bytes()[0]))
    };
    facts.committee.members.iter().map(sign).collect()
}

fn value(facts: &SessionFacts) -> Value {
    let first = facts.committee.members[0];
    let (session, public_shares) = PreparedSession::new(facts.clone(), first, &shares(facts, first)).unwrap();
    Value::assemble(session, public_shares, &statements(facts)).unwrap()
}

fn vote(value: &Value, at: Ballot, number: u8) -> Vote {
    Vote::sign(&value.facts().wallet, value.facts().epoch, at, value.hash(), &identity(number))
}

/// Of wallet-1 at epoch 0: nodes 1 to 3, any 2 of them; votes of 3 and 1.
fn first_certificate() -> Certificate {
    let value = value(&facts(1..=3, 2));
    let votes = [vote(&value, ballot(1), 3), vote(&value, ballot(1), 1)];
    Certificate::assemble(value, &votes, None, &keys).unwrap()
}

/// The facts of a resharing from nodes 1 to 3 to nodes 3 to 7.
fn second_facts() -> SessionFacts {
    SessionFacts {
        epoch: 1,
        previous_certificate: first_certificate().hash(),
        session: SessionId([3; 32]),
        ..facts(3..=7, 3)
    }
}

fn second_certificate() -> Certificate {
    let value = value(&second_facts());
    let votes = [vote(&value, ballot(4), 1), vote(&value, ballot(4), 2)];
    Certificate::assemble(value, &votes, Some(&first_certificate()), &keys).unwrap()
}

fn slot(number: u32) -> Slot {
    Slot { wallet: "wallet-1".to_owned(), epoch: 0, number }
}

/// Votes for a session in one round, and before that for closing in another.
fn votes(session: Option<u64>, close: Option<u64>) -> Votes {
    Votes {
        last: session.map(|round| (ballot(round), ChoiceName::Session([6; 32]))),
        other: close.map(|round| (ballot(round), ChoiceName::Close)),
    }
}

/// One of each kind, signed by node 2.
fn one_of_each() -> (Prepared, Promised, Vote, Refused, Activated) {
    (
        statements(&facts(1..=3, 2)).swap_remove(1),
        Promised::sign(slot(0), ballot(2), votes(Some(1), None), &identity(2)),
        Vote::sign("wallet-1", 0, ballot(2), [6; 32], &identity(2)),
        Refused::sign("wallet-1", 0, SessionId([2; 32]), Incarnation([9; 16]), &identity(2)),
        Activated::sign([6; 32], &identity(2)),
    )
}

/// SHA-256, in hex, for bytes too many to print.
fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    hex::encode(Sha256::digest(bytes))
}

fn voted_record() -> AcceptorRecord {
    let mut record = AcceptorRecord::new("wallet-1", 0);
    record.acceptor.prepare(ballot(1)).unwrap();
    let facts = facts(1..=3, 2);
    let choice = Choice::Session(Box::new(value(&facts)));
    assert_eq!(record.acceptor.vote(&facts.committee, ballot(1), choice, grounds()), consensus::VoteAnswer::Voted);
    record
}

/// Promises of two members that have voted for nothing.
fn grounds() -> Grounds {
    let promised = |n| Promised::sign(slot(0), ballot(1), votes(None, None), &identity(n));
    let shown = |n| Shown { node: node(n), votes: votes(None, None), proof: promised(n).signature };
    consensus::Grounds(vec![Level { ballot: ballot(1), promises: vec![shown(1), shown(2)] }])
}

fn closing(number: u32, members: &[u8]) -> Closing {
    let hash = Choice::Close.hash(&slot(number));
    let votes: Vec<_> = members.iter().map(|n| Vote::sign("wallet-1", 0, ballot(4), hash, &identity(*n))).collect();
    Closing::assemble(slot(number), ballot(4), &votes)
}
