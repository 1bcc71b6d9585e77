//! Statements and certificates, judged with the keys of nodes that have signed a few of them: nothing verifies but these.
//!
//! Whatever is read as one of the kinds is checked with the same keys. If it verifies and is none of those that were
//! signed, then bytes that nobody signed are believed.

use std::{collections::BTreeMap, sync::OnceLock};

use mpcium_core::{
    Identity, Incarnation, NodeId, Secret,
    committee::Committee,
    consensus::Ballot,
    protocol::{Checked, Curve, KeyShare},
    wallet::{
        Activated, Certificate, ChoiceName, Prepared, PreparedSession, Promised, Refused, SessionFacts, SessionId,
        Signature, Slot, Value, Vote, Votes,
    },
};
use serde::{Serialize, de::DeserializeOwned};

const WALLET: &str = "wallet-1";

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn identity(number: u8) -> Identity {
    Identity::new(node(number), &[number; 32])
}

/// Nodes 1 to 7 are known.
fn keys(id: NodeId) -> Option<ed25519_dalek::VerifyingKey> {
    static KNOWN: OnceLock<BTreeMap<NodeId, ed25519_dalek::VerifyingKey>> = OnceLock::new();
    KNOWN.get_or_init(|| (1..=7).map(|number| (node(number), identity(number).public())).collect()).get(&id).copied()
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, node: node(1), incarnation: Incarnation([9; 16]) }
}

/// Of nodes 1 to 3, any two of which sign, or of a resharing to nodes 3 to 7, any three.
fn facts(previous: Option<&Certificate>) -> SessionFacts {
    let (members, threshold) = if previous.is_some() { (3..=7, 3) } else { (1..=3, 2) };
    SessionFacts {
        request_digest: [1; 32],
        wallet: WALLET.to_owned(),
        curves: Curve::ALL.to_vec(),
        epoch: u32::from(previous.is_some()),
        previous_certificate: previous.map_or([0; 32], Certificate::hash),
        session: SessionId([2; 32]),
        committee: Committee { members: members.map(node).collect(), threshold },
    }
}

fn shares(facts: &SessionFacts, index: u16) -> Vec<KeyShare> {
    let share = |curve: &Curve| {
        let length = if *curve == Curve::Secp256k1 { 33 } else { 32 };
        KeyShare {
            curve: *curve,
            threshold: facts.committee.threshold,
            index,
            secret: Secret::new(vec![77; 32]),
            public_key: vec![5; length],
            public_shares: facts.committee.members.iter().map(|member| vec![member.as_bytes()[0]; length]).collect(),
            checked: Checked::default(),
        }
    };
    facts.curves.iter().map(share).collect()
}

fn statements(facts: &SessionFacts) -> Vec<Prepared> {
    let sign = |(index, id): (u16, &NodeId)| {
        let (session, _) = PreparedSession::new(facts.clone(), *id, &shares(facts, index)).expect("it fits");
        Prepared::sign(session, &identity(id.as_bytes()[0]))
    };
    (0..).zip(&facts.committee.members).map(sign).collect()
}

fn made(previous: Option<&Certificate>) -> Certificate {
    let facts = facts(previous);
    let first = facts.committee.members[0];
    let (session, public_shares) = PreparedSession::new(facts.clone(), first, &shares(&facts, 0)).expect("it fits");
    let value = Value::assemble(session, public_shares, &statements(&facts)).expect("everybody has prepared");
    let vote = |number| Vote::sign(WALLET, facts.epoch, ballot(1), value.hash(), &identity(number));
    let votes = [vote(1), vote(2)];
    Certificate::assemble(value, &votes, previous, &keys).expect("two of three have voted")
}

/// All that was ever signed.
struct Signed {
    /// Certificates of two epochs; the second one needs the first.
    certificates: [Certificate; 2],
    statements: Vec<Prepared>,
    promise: Promised,
    votes: Vec<Vote>,
    refusal: Refused,
    activation: Activated,
}

fn signed() -> &'static Signed {
    static SIGNED: OnceLock<Signed> = OnceLock::new();
    SIGNED.get_or_init(|| {
        let first = made(None);
        let second = made(Some(&first));
        let slot = Slot { wallet: WALLET.to_owned(), epoch: 0, number: 0 };
        let last = Votes { last: Some((ballot(1), ChoiceName::Session([6; 32]))), other: None };
        let of = |certificate: &Certificate| {
            let facts = certificate.value.facts();
            [1, 2].map(|n| Vote::sign(WALLET, facts.epoch, ballot(1), certificate.value.hash(), &identity(n)))
        };
        Signed {
            statements: [None, Some(&first)].into_iter().flat_map(|previous| statements(&facts(previous))).collect(),
            votes: [of(&first), of(&second)].concat(),
            certificates: [first, second],
            promise: Promised::sign(slot, ballot(2), last, &identity(2)),
            refusal: Refused::sign(WALLET, 0, SessionId([2; 32]), Incarnation([9; 16]), &identity(2)),
            activation: Activated::sign([6; 32], &identity(2)),
        }
    })
}

/// Fails if what these bytes are verifies and is none of those.
fn judge<T>(bytes: &[u8], verifies: impl FnOnce(&T) -> bool, known: &[T]) -> bool
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let Ok(read) = postcard::from_bytes::<T>(bytes) else { return false };
    let good = verifies(&read);
    assert!(!good || known.contains(&read), "nobody signed this: {read:?}");
    good
}

/// Whether these bytes are a statement that a node has signed.
#[must_use]
pub fn is_statement(bytes: &[u8]) -> bool {
    let Signed { statements, promise, votes, refusal, activation, .. } = signed();
    let alone = std::slice::from_ref;
    let good = [
        judge(bytes, |read: &Prepared| read.verify(&keys).is_ok(), statements),
        judge(bytes, |read: &Promised| read.verify(&keys).is_ok(), alone(promise)),
        judge(bytes, |read: &Vote| read.verify(&keys).is_ok(), votes),
        judge(bytes, |read: &Refused| read.verify(&keys).is_ok(), std::slice::from_ref(refusal)),
        judge(bytes, |read: &Activated| read.verify(&keys).is_ok(), std::slice::from_ref(activation)),
    ];
    good.contains(&true)
}

/// Whether these bytes are a certificate that nodes have made, or the value of one.
#[must_use]
pub fn is_certificate(bytes: &[u8]) -> bool {
    let [first, second] = &signed().certificates;
    let known = [first.clone(), second.clone()];
    let values = [first.value.clone(), second.value.clone()];
    [None, Some(first)].into_iter().any(|previous| {
        let certificate = judge(bytes, |read: &Certificate| read.verify(previous, &keys).is_ok(), &known);
        let value = judge(bytes, |read: &Value| read.verify(previous, &keys).is_ok(), &values);
        certificate || value
    })
}

pub(crate) fn statement(bytes: &[u8]) {
    super::decoder("statement", bytes);
    let _ = is_statement(bytes);
}

pub(crate) fn certificate(bytes: &[u8]) {
    super::decoder("certificate", bytes);
    let _ = is_certificate(bytes);
}

/// Seeds of both targets: everything that was signed, and one of each with a signature of another kind in it.
#[must_use]
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    fn encode(value: &impl Serialize) -> Vec<u8> {
        postcard::to_stdvec(value).expect("plain data serialises")
    }
    let Signed { certificates: [first, second], statements, promise, votes, refusal, activation } = signed();
    let foreign = Activated { signature: Signature(votes[0].signature.0), ..activation.clone() };
    vec![
        ("statement", "prepared".to_owned(), encode(&statements[0])),
        ("statement", "promised".to_owned(), encode(promise)),
        ("statement", "vote".to_owned(), encode(&votes[0])),
        ("statement", "refused".to_owned(), encode(refusal)),
        ("statement", "activated".to_owned(), encode(activation)),
        ("statement", "foreign_signature".to_owned(), encode(&foreign)),
        ("certificate", "first".to_owned(), encode(first)),
        ("certificate", "second".to_owned(), encode(second)),
        ("certificate", "value".to_owned(), encode(&first.value)),
    ]
}
