//! Statements, certificates and records: what is believed, what is refused and why, and the bytes.

use std::collections::BTreeSet;

use mpcium_core::committee::Committee;
use mpcium_core::consensus::{self, Acceptor, Ballot, Level, Shown};
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

/// Asserts that a damaged first certificate is refused with this error.
fn refused(damage: impl FnOnce(&mut Certificate), expected: CertificateError) {
    let mut certificate = first_certificate();
    damage(&mut certificate);
    assert_eq!(certificate.verify(None, &keys), Err(expected));
}

#[test]
fn all_statements_and_enough_votes_make_a_certificate() {
    let (first, second) = (first_certificate(), second_certificate());
    assert_eq!(first.verify(None, &keys), Ok(()));
    assert_eq!(second.verify(Some(&first), &keys), Ok(()));
    assert_eq!(Certificate::verify_chain(&[first.clone(), second.clone()], &keys), Ok(()));
    assert_eq!(Certificate::verify_chain(&[second], &keys), Err((1, CertificateError::PreviousExpected(true))));
}

#[test]
fn certificates_of_one_decision_have_one_name_whoever_voted() {
    let first = first_certificate();
    let votes = [vote(&first.value, ballot(7), 1), vote(&first.value, ballot(7), 2), vote(&first.value, ballot(7), 3)];
    let other = Certificate::assemble(first.value.clone(), &votes, None, &keys).unwrap();
    assert_ne!(other, first);
    assert_eq!(other.hash(), first.hash());
    let rival = SessionFacts { session: SessionId([8; 32]), ..facts(1..=3, 2) };
    let votes = [vote(&value(&rival), ballot(1), 1), vote(&value(&rival), ballot(1), 2)];
    let rival = Certificate::assemble(value(&rival), &votes, None, &keys).unwrap();
    assert_ne!(rival.hash(), first.hash());
}

#[test]
fn one_prepared_statement_too_few_is_refused() {
    refused(|c| _ = c.value.prepared.remove(1), CertificateError::MissingPrepared(node(2)));
    refused(|c| _ = c.value.prepared.pop(), CertificateError::MissingPrepared(node(3)));
}

#[test]
fn a_prepared_statement_twice_or_of_a_stranger_is_refused() {
    refused(|c| c.value.prepared[1] = c.value.prepared[0], CertificateError::DuplicatePrepared(node(1)));
    refused(|c| c.value.prepared.swap(0, 1), CertificateError::DuplicatePrepared(node(1)));
    let stranger = Prepared::sign(first_certificate().value.session, &identity(9));
    refused(
        |c| c.value.prepared.push((stranger.node, stranger.signature)),
        CertificateError::PreparedByStranger(node(9)),
    );
}

#[test]
fn a_prepared_statement_signed_by_another_is_refused() {
    refused(|c| c.value.prepared[2].1 = c.value.prepared[0].1, CertificateError::BadPrepared(node(3)));
    refused(|c| c.value.prepared[0].1.0[5] ^= 1, CertificateError::BadPrepared(node(1)));
}

#[test]
fn one_vote_too_few_is_refused() {
    refused(|c| _ = c.votes.pop(), CertificateError::TooFewVotes { expected: 2, got: 1 });
    let value = value(&facts(1..=3, 2));
    assert_eq!(
        Certificate::assemble(value.clone(), &[], None, &keys),
        Err(CertificateError::TooFewVotes { expected: 2, got: 0 })
    );
    assert_eq!(
        Certificate::assemble(value.clone(), &[vote(&value, ballot(1), 2)], None, &keys),
        Err(CertificateError::TooFewVotes { expected: 2, got: 1 })
    );
}

#[test]
fn a_vote_twice_of_a_stranger_or_signed_by_another_is_refused() {
    refused(|c| c.votes[1] = c.votes[0], CertificateError::DuplicateVote(node(1)));
    let stranger = vote(&first_certificate().value, ballot(1), 9);
    refused(|c| c.votes.push((stranger.node, stranger.signature)), CertificateError::VoteByStranger(node(9)));
    refused(|c| c.votes[1].1 = c.votes[0].1, CertificateError::BadVote(node(3)));
    let value = value(&facts(1..=3, 2));
    let twice = [vote(&value, ballot(1), 1), vote(&value, ballot(1), 1)];
    assert_eq!(Certificate::assemble(value, &twice, None, &keys), Err(CertificateError::DuplicateVote(node(1))));
}

#[test]
fn votes_of_several_ballots_are_refused() {
    let value = value(&facts(1..=3, 2));
    let votes = [vote(&value, ballot(1), 1), vote(&value, ballot(2), 2)];
    assert_eq!(
        Certificate::assemble(value, &votes, None, &keys),
        Err(CertificateError::MixedBallots { expected: ballot(1), got: ballot(2) })
    );
    refused(|c| c.ballot = ballot(2), CertificateError::BadVote(node(1)));
    let other = vote(&first_certificate().value, ballot(2), 3);
    refused(|c| c.votes[1].1 = other.signature, CertificateError::BadVote(node(3)));
}

#[test]
fn votes_for_another_wallet_epoch_or_session_are_refused() {
    let value = value(&facts(1..=3, 2));
    let good = vote(&value, ballot(1), 1);
    for bad in [
        Vote::sign("wallet-2", 0, ballot(1), value.hash(), &identity(2)),
        Vote::sign("wallet-1", 1, ballot(1), value.hash(), &identity(2)),
        Vote::sign("wallet-1", 0, ballot(1), [0; 32], &identity(2)),
    ] {
        let assembled = Certificate::assemble(value.clone(), &[good.clone(), bad], None, &keys);
        assert_eq!(assembled, Err(CertificateError::VoteForOther(node(2))));
    }
}

#[test]
fn statements_that_differ_make_no_value() {
    let facts = facts(1..=3, 2);
    let good = value(&facts);
    let mut signed = statements(&facts);
    let mut other = good.session.clone();
    other.public_keys[0][3] ^= 1;
    signed[1] = Prepared::sign(other, &identity(2));
    assert_eq!(
        Value::assemble(good.session.clone(), good.public_shares.clone(), &signed),
        Err(CertificateError::StatementsDiffer(node(2)))
    );
    signed.remove(1);
    assert_eq!(
        Value::assemble(good.session, good.public_shares, &signed),
        Err(CertificateError::MissingPrepared(node(2)))
    );
}

#[test]
fn content_that_differs_from_what_was_signed_is_refused() {
    let bad = CertificateError::BadPrepared(node(1));
    refused(|c| c.value.session.facts.request_digest[0] ^= 1, bad.clone());
    refused(|c| c.value.session.facts.session.0[0] ^= 1, bad.clone());
    refused(|c| c.value.session.facts.wallet.push('x'), bad.clone());
    refused(|c| c.value.session.facts.committee.threshold = 3, bad.clone());
    refused(|c| c.value.session.public_keys[1][0] ^= 1, bad);
    refused(|c| c.value.public_shares[1][2][0] ^= 1, FormError::PublicSharesHash.into());
}

#[test]
fn malformed_content_is_refused_by_name() {
    refused(|c| c.value.session.facts.wallet.clear(), FormError::WalletLength(0).into());
    refused(|c| c.value.session.facts.wallet = "é".repeat(129), FormError::WalletLength(258).into());
    refused(
        |c| c.value.session.facts.committee.members.swap(0, 1),
        FormError::Committee { members: 3, threshold: 2 }.into(),
    );
    refused(
        |c| c.value.session.facts.committee.threshold = 1,
        FormError::Committee { members: 3, threshold: 1 }.into(),
    );
    refused(
        |c| c.value.session.facts.curves.reverse(),
        FormError::Curves(vec![Curve::Ed25519, Curve::Secp256k1]).into(),
    );
    refused(|c| c.value.session.facts.curves.clear(), FormError::Curves(vec![]).into());
    refused(
        |c| c.value.session.facts.curves[1] = Curve::Secp256k1,
        FormError::Curves(vec![Curve::Secp256k1; 2]).into(),
    );
    refused(
        |c| c.value.session.facts.previous_certificate = [1; 32],
        FormError::PreviousCertificate { epoch: 0 }.into(),
    );
    refused(
        |c| _ = c.value.session.public_keys.pop(),
        FormError::Count { what: "public keys", expected: 2, got: 1 }.into(),
    );
    refused(
        |c| _ = c.value.session.public_keys[0].pop(),
        FormError::PointLength { curve: Curve::Secp256k1, expected: 33, got: 32 }.into(),
    );
    refused(
        |c| _ = c.value.public_shares.pop(),
        FormError::Count { what: "lists of public shares", expected: 2, got: 1 }.into(),
    );
    refused(
        |c| _ = c.value.public_shares[1].pop(),
        FormError::Count { what: "public shares", expected: 3, got: 2 }.into(),
    );
    refused(
        |c| c.value.public_shares[1][0].push(0),
        FormError::PointLength { curve: Curve::Ed25519, expected: 32, got: 33 }.into(),
    );
}

#[test]
fn unknown_signers_are_named() {
    let only = |id: NodeId| keys(id).filter(|_| id != node(2));
    assert_eq!(first_certificate().verify(None, &only), Err(CertificateError::UnknownNode(node(2))));
}

#[test]
fn a_later_epoch_is_decided_by_the_committee_before_it() {
    let (first, value) = (first_certificate(), value(&second_facts()));
    assert_eq!(value.deciding_committee(Some(&first)).unwrap().members, first.facts().committee.members);
    // Nodes 4 to 6 are enough of the new committee, but it is not theirs to decide.
    let votes: Vec<_> = (4..=6).map(|number| vote(&value, ballot(1), number)).collect();
    assert_eq!(
        Certificate::assemble(value.clone(), &votes, Some(&first), &keys),
        Err(CertificateError::VoteByStranger(node(4)))
    );
    let votes = [vote(&value, ballot(1), 3)];
    assert_eq!(
        Certificate::assemble(value, &votes, Some(&first), &keys),
        Err(CertificateError::TooFewVotes { expected: 2, got: 1 })
    );
}

#[test]
fn a_broken_chain_is_refused_by_name() {
    let (first, second) = (first_certificate(), second_certificate());
    assert_eq!(second.verify(None, &keys), Err(CertificateError::PreviousExpected(true)));
    assert_eq!(first.verify(Some(&second), &keys), Err(CertificateError::PreviousExpected(false)));

    let check = |change: &dyn Fn(&mut SessionFacts)| {
        let mut facts = second_facts();
        change(&mut facts);
        value(&facts).verify(Some(&first), &keys)
    };
    assert_eq!(check(&|_| ()), Ok(()));
    assert_eq!(check(&|facts| facts.previous_certificate[0] ^= 1), Err(CertificateError::OtherPrevious));
    assert_eq!(check(&|facts| facts.epoch = 2), Err(CertificateError::OtherEpoch { epoch: 2, previous: 0 }));
    assert_eq!(
        check(&|facts| facts.wallet = "wallet-2".into()),
        Err(CertificateError::OtherWallet { expected: "wallet-2".into(), got: "wallet-1".into() })
    );
    assert_eq!(check(&|facts| _ = facts.curves.pop()), Err(CertificateError::PublicKeyChanged));
}

#[test]
fn a_changed_public_key_is_refused_at_a_resharing() {
    let facts = second_facts();
    let (mut session, public_shares) = PreparedSession::new(facts.clone(), node(3), &shares(&facts, node(3))).unwrap();
    session.public_keys[0][7] ^= 1;
    let signed: Vec<_> = (3..=7).map(|number| Prepared::sign(session.clone(), &identity(number))).collect();
    let value = Value::assemble(session, public_shares, &signed).unwrap();
    assert_eq!(value.verify(Some(&first_certificate()), &keys), Err(CertificateError::PublicKeyChanged));
}

#[test]
fn shares_that_are_not_the_sessions_are_not_prepared() {
    let facts = facts(1..=3, 2);
    let check = |change: &dyn Fn(&mut Vec<KeyShare>)| {
        let mut shares = shares(&facts, node(2));
        change(&mut shares);
        PreparedSession::new(facts.clone(), node(2), &shares).map(|_| ())
    };
    assert_eq!(check(&|_| ()), Ok(()));
    assert_eq!(check(&|shares| shares[0].index = 0), Err(FormError::KeyShare("index")));
    assert_eq!(check(&|shares| shares[1].threshold = 3), Err(FormError::KeyShare("threshold")));
    assert_eq!(check(&|shares| shares[1].secret = Secret::new(vec![])), Err(FormError::KeyShare("secret's length")));
    assert_eq!(check(&|shares| _ = shares.pop()), Err(FormError::Count { what: "public keys", expected: 2, got: 1 }));
    assert_eq!(
        PreparedSession::new(facts.clone(), node(9), &shares(&facts, node(1))).map(|_| ()),
        Err(FormError::NotAMember(node(9)))
    );
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

#[test]
fn a_statement_is_believed_only_as_it_was_signed() {
    let (prepared, promised, vote, refused, activated) = one_of_each();
    let bad = Err(StatementError::BadSignature(node(2)));
    let ok = Ok(());
    assert_eq!(prepared.verify(&keys), ok);
    assert_eq!(promised.verify(&keys), ok);
    assert_eq!(vote.verify(&keys), ok);
    assert_eq!(refused.verify(&keys), ok);
    assert_eq!(activated.verify(&keys), ok);

    let mut changed = prepared.clone();
    changed.session.facts.request_digest[0] ^= 1;
    assert_eq!(changed.verify(&keys), bad);
    assert_eq!(Promised { ballot: ballot(3), ..promised.clone() }.verify(&keys), bad);
    assert_eq!(Promised { votes: votes(None, None), ..promised.clone() }.verify(&keys), bad);
    assert_eq!(Promised { slot: slot(1), ..promised.clone() }.verify(&keys), bad);
    assert_eq!(Vote { ballot: ballot(3), ..vote.clone() }.verify(&keys), bad);
    assert_eq!(Vote { value_hash: [7; 32], ..vote.clone() }.verify(&keys), bad);
    assert_eq!(Vote { wallet: "wallet-2".into(), ..vote.clone() }.verify(&keys), bad);
    assert_eq!(Refused { session: SessionId([3; 32]), ..refused.clone() }.verify(&keys), bad);
    assert_eq!(Refused { incarnation: Incarnation([8; 16]), ..refused.clone() }.verify(&keys), bad);
    assert_eq!(Activated { certificate: [7; 32], ..activated.clone() }.verify(&keys), bad);

    let by_other = Err(StatementError::BadSignature(node(3)));
    assert_eq!(Prepared { node: node(3), ..prepared.clone() }.verify(&keys), by_other);
    assert_eq!(Vote { node: node(3), ..vote.clone() }.verify(&keys), by_other);
    assert_eq!(Vote { node: node(99), ..vote }.verify(&keys), Err(StatementError::UnknownNode(node(99))));
    let stranger = Prepared::sign(prepared.session, &identity(9));
    assert_eq!(stranger.verify(&keys), Err(FormError::NotAMember(node(9)).into()));
    for (session, close) in [(Some(3), None), (None, Some(1)), (Some(1), Some(1)), (Some(1), Some(2))] {
        let disorder = Promised::sign(slot(0), ballot(2), votes(session, close), &identity(2));
        assert_eq!(disorder.verify(&keys), Err(FormError::VoteAbovePromise.into()));
    }
}

#[test]
fn a_signature_of_one_kind_is_none_of_another() {
    let (prepared, promised, vote, refused, activated) = one_of_each();
    let signatures = [prepared.signature, promised.signature, vote.signature, refused.signature, activated.signature];
    assert_eq!(signatures.iter().map(|s| s.0).collect::<BTreeSet<_>>().len(), 5);
    let accepted = |signature: Signature| {
        [
            Prepared { signature, ..prepared.clone() }.verify(&keys).is_ok(),
            Promised { signature, ..promised.clone() }.verify(&keys).is_ok(),
            Vote { signature, ..vote.clone() }.verify(&keys).is_ok(),
            Refused { signature, ..refused.clone() }.verify(&keys).is_ok(),
            Activated { signature, ..activated.clone() }.verify(&keys).is_ok(),
        ]
    };
    for (kind, signature) in signatures.into_iter().enumerate() {
        let mut only = [false; 5];
        only[kind] = true;
        assert_eq!(accepted(signature), only);
    }
}

/// SHA-256, in hex, for bytes too many to print.
fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    hex::encode(Sha256::digest(bytes))
}

/// Ed25519 signatures are deterministic, so these also pin every signed byte. A change here is a change of protocol
/// and of what is on disks: it needs a new tag or schema version, never new numbers.
#[test]
fn the_bytes_of_every_statement_are_these() {
    let (prepared, promised, vote, refused, activated) = one_of_each();
    let hex = |bytes: Vec<u8>| hex::encode(bytes);
    assert_eq!(
        [
            hex(postcard::to_allocvec(&vote).unwrap()),
            hex(postcard::to_allocvec(&promised).unwrap()),
            hex(postcard::to_allocvec(&refused).unwrap()),
            hex(postcard::to_allocvec(&activated).unwrap()),
            hex(postcard::to_allocvec(&prepared).unwrap()),
        ],
        GOLDEN_STATEMENTS,
    );
}

/// The same again without the program's own encoder: tag, zero byte, and a body whose every part stands here.
#[test]
fn the_signed_bytes_are_tag_zero_and_a_body_of_fixed_order() {
    let (_, promised, vote, refused, activated) = one_of_each();
    let wallet: &[u8] = b"\x08wallet-1";
    let ballot = |round: u8| [&[round][..], &[1; 16], &[9; 16]].concat();
    let epoch: &[u8] = &[0];
    let me: &[u8] = &[2; 16];
    for (signature, parts) in [
        (vote.signature, [b"mpcium/1 statement vote\0\x01", wallet, epoch, &ballot(2), &[6; 32], me].concat()),
        (
            promised.signature,
            [
                &b"mpcium/1 statement promise with votes\0"[..],
                wallet,
                epoch,
                &[0],
                &ballot(2),
                &[1],
                &ballot(1),
                &[0],
                &[6; 32],
                &[0],
                me,
            ]
            .concat(),
        ),
        (refused.signature, [b"mpcium/1 statement refused\0", wallet, epoch, &[2; 32], me, &[9; 16]].concat()),
        (activated.signature, [&b"mpcium/1 statement activated\0"[..], &[6; 32], me].concat()),
    ] {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        assert!(identity(2).public().verify_strict(&parts, &signature).is_ok(), "{}", hex::encode(parts));
    }
}

#[test]
fn the_hashes_and_records_are_these() {
    let (first, second) = (first_certificate(), second_certificate());
    let [.., share] = shares(first.facts(), node(1)).try_into().map(|s: [KeyShare; 2]| s).unwrap();
    let share = ShareRecord { session: SessionId([2; 32]), share };
    let refused = PendingRecord::Refused(RefusedRecord { statement: one_of_each().3 });
    assert_eq!(
        [
            hex::encode(first.value.hash()),
            hex::encode(first.hash()),
            hex::encode(public_shares_hash(&first.value.public_shares)),
            digest(&CertificateRecord { certificate: second, vote: None }.encode()),
            digest(&voted_record().encode()),
            digest(&PendingRecord::Prepared(prepared_record().into()).encode()),
            digest(&refused.encode()),
            digest(&share.encode()),
        ],
        GOLDEN_HASHES,
    );
}

fn prepared_record() -> PreparedRecord {
    let facts = facts(1..=3, 2);
    let public_shares = value(&facts).public_shares;
    PreparedRecord { statement: statements(&facts).swap_remove(1), public_shares, request: b"{}".to_vec() }
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

fn cast_vote() -> CastVote {
    voted_record().cast_vote().unwrap()
}

/// A certificate as it was written before votes were kept with it.
#[test]
fn a_certificate_of_the_first_schema_version_is_read() {
    let certificate = second_certificate();
    let written = postcard::to_allocvec(&(0_u8, &certificate)).unwrap();
    // As that version pinned it.
    assert_eq!(digest(&written), GOLDEN_CERTIFICATE_V1);
    assert_eq!(CertificateRecord::decode(&written), Ok(CertificateRecord { certificate, vote: None }));
}

/// Two certificates, and what was shown to a voter for the one of the higher ballot, name who has lied: the member that
/// voted for the other one and hid it. Without that, only members that voted for both in one ballot are named.
#[test]
fn two_certificates_name_who_lied_and_nobody_else() {
    let facts = facts(1..=3, 2);
    let other = SessionFacts { session: SessionId([0xbb; 32]), ..facts.clone() };
    let certificate = |facts: &SessionFacts, round, voters: [u8; 2]| {
        let value = value(facts);
        let votes = voters.map(|number| vote(&value, ballot(round), number));
        Certificate::assemble(value, &votes, None, &keys).unwrap()
    };
    let name = |facts: &SessionFacts| ChoiceName::Session(value(facts).hash());
    let shown = |number: u8, round, last| {
        let votes = Votes { last, other: None };
        let proof = Promised::sign(slot(0), ballot(round), votes.clone(), &identity(number)).signature;
        Shown { node: node(number), votes, proof }
    };
    // Members 1 and 3 have voted for the first one in round 4; 3 has hidden that when it promised round 7.
    let cast = |promises| CastVote {
        slot: 0,
        ballot: ballot(7),
        name: name(&other),
        grounds: consensus::Grounds(vec![Level { ballot: ballot(7), promises }]),
    };
    let lie = cast(vec![shown(2, 7, None), shown(3, 7, None)]);
    assert!(lie.grounds.allow::<Choice>(&facts.committee, lie.ballot, &lie.name));
    let (first, second) = (certificate(&facts, 4, [1, 3]), certificate(&other, 7, [2, 3]));
    for (known, other) in [(&first, &second), (&second, &first)] {
        let record = |vote| StoppedRecord { known: known.clone(), other: other.clone(), vote };
        assert_eq!(record(Some(lie.clone())).liars(), [node(3)].into());
        assert!(record(Some(lie.clone())).to_string().contains(&node(3).to_string()));
        let blind = record(None);
        assert_eq!(blind.liars(), [].into());
        assert!(!blind.to_string().contains("contradicts itself"));
        let record = record(Some(lie.clone()));
        assert_eq!(StoppedRecord::decode(&record.encode()), Ok(record));
    }
    let (known, other) = (first, certificate(&other, 4, [2, 3]));
    assert_eq!(StoppedRecord { known, other, vote: None }.liars(), [node(3)].into());
}

/// What is shown to acceptors must have been promised by whom it names, in this slot, this ballot, and with these votes.
#[test]
fn grounds_are_believed_only_as_they_were_signed() {
    assert_eq!(grounds().verify(&slot(0), &keys), Ok(()));
    let bad = |n| Err(StatementError::BadSignature(node(n)));
    assert_eq!(grounds().verify(&slot(1), &keys), bad(1));
    assert_eq!(grounds().verify(&Slot { epoch: 1, ..slot(0) }, &keys), bad(1));
    assert_eq!(grounds().verify(&Slot { wallet: "wallet-2".to_owned(), ..slot(0) }, &keys), bad(1));
    let changed = |change: fn(&mut Level<ChoiceName, Signature>)| {
        let mut grounds = grounds();
        change(&mut grounds.0[0]);
        grounds.verify(&slot(0), &keys)
    };
    assert_eq!(changed(|level| level.ballot = ballot(2)), bad(1));
    assert_eq!(changed(|level| level.promises[1].votes = votes(Some(1), None)), bad(2));
    assert_eq!(changed(|level| level.promises[1].node = node(3)), bad(3));
    assert_eq!(changed(|level| level.promises[1].node = node(99)), Err(StatementError::UnknownNode(node(99))));
}

fn closing(number: u32, members: &[u8]) -> Closing {
    let hash = Choice::Close.hash(&slot(number));
    let votes: Vec<_> = members.iter().map(|n| Vote::sign("wallet-1", 0, ballot(4), hash, &identity(*n))).collect();
    Closing::assemble(slot(number), ballot(4), &votes)
}

/// Four of five sign, so two that never vote for a session leave no quorum for it.
#[test]
fn a_slot_is_closed_by_so_many_votes_that_the_others_are_no_quorum() {
    let committee = facts(1..=5, 4).committee;
    let closed = closing(3, &[4, 2]);
    assert_eq!(closed.verify(&committee, &keys), Ok(()));
    let too_few = closing(3, &[4]).verify(&committee, &keys);
    assert_eq!(too_few, Err(CertificateError::TooFewVotes { expected: 2, got: 1 }));
    let twice = closing(3, &[4, 4]).verify(&committee, &keys);
    assert_eq!(twice, Err(CertificateError::DuplicateVote(node(4))));
    let stranger = closing(3, &[4, 9]).verify(&committee, &keys);
    assert_eq!(stranger, Err(CertificateError::VoteByStranger(node(9))));
    for changed in [
        Closing { slot: slot(4), ..closed.clone() },
        Closing { slot: Slot { epoch: 1, ..slot(3) }, ..closed.clone() },
        Closing { slot: Slot { wallet: "wallet-2".to_owned(), ..slot(3) }, ..closed.clone() },
        Closing { ballot: ballot(5), ..closed.clone() },
    ] {
        assert_eq!(changed.verify(&committee, &keys), Err(CertificateError::BadVote(node(2))), "{changed:?}");
    }
    // A vote for a session is none for closing.
    let value = value(&facts(1..=5, 4));
    let votes: Vec<_> = [2, 4].map(|number| vote(&value, ballot(4), number)).to_vec();
    let closed = Closing::assemble(slot(3), ballot(4), &votes);
    assert_eq!(closed.verify(&committee, &keys), Err(CertificateError::BadVote(node(2))));
}

/// What a version without slots wrote is in the first slot, and keeps its word about sessions that it refused.
#[test]
fn an_acceptor_of_the_first_schema_version_is_read() {
    let value = value(&facts(1..=3, 2));
    let acceptor = (Some(ballot(1)), Some((ballot(1), value)));
    let written =
        |refused: &[SessionId]| postcard::to_allocvec(&(0_u8, "wallet-1", 0_u32, &acceptor, refused)).unwrap();
    // As that version pinned it.
    assert_eq!(digest(&written(&[])), "f4d704b3a17f85d1bc552bd5585c0ee5d706d857b76bb9c4104a06be0dc8afbc");
    let refused = vec![SessionId([7; 32])];
    let expected = AcceptorRecord { refused: refused.clone(), ..without_grounds() };
    assert_eq!(AcceptorRecord::decode(&written(&refused)), Ok(expected));
}

/// The second one's votes have no grounds either.
#[test]
fn an_acceptor_of_the_second_schema_version_is_read() {
    let choice = Choice::Session(Box::new(value(&facts(1..=3, 2))));
    let acceptor = (Some(ballot(1)), Some((ballot(1), choice)));
    let written = postcard::to_allocvec(&(1_u8, slot(0), None::<Closing>, &acceptor, Vec::<SessionId>::new())).unwrap();
    // As that version pinned it.
    assert_eq!(digest(&written), GOLDEN_ACCEPTOR_V2);
    assert_eq!(AcceptorRecord::decode(&written), Ok(without_grounds()));
}

fn without_grounds() -> AcceptorRecord {
    let choice = Choice::Session(Box::new(value(&facts(1..=3, 2))));
    let acceptor = Acceptor::without_grounds(Some(ballot(1)), Some((ballot(1), choice)));
    AcceptorRecord { acceptor, ..AcceptorRecord::new("wallet-1", 0) }
}

#[test]
fn an_acceptor_of_a_later_slot_holds_the_closing_of_the_one_before() {
    let mut record = AcceptorRecord::after(closing(0, &[1, 2]), None).unwrap();
    assert_eq!(record.slot, slot(1));
    assert!(record.acceptor.prepare(ballot(4)).is_err(), "of the slot before");
    let mut later = AcceptorRecord::after(closing(0, &[1, 2]), Some(ballot(6))).unwrap();
    assert!(later.acceptor.prepare(ballot(6)).is_err() && later.acceptor.prepare(ballot(7)).is_ok());
    assert!(record.acceptor.prepare(ballot(5)).is_ok());
    assert_eq!(AcceptorRecord::decode(&record.encode()), Ok(record.clone()));
    let wrong = Err(FormError::Closing { slot: 1 });
    for closing in [None, Some(closing(1, &[1, 2]))] {
        let record = AcceptorRecord { closing, ..record.clone() };
        let Err(RecordError::Content { error: CertificateError::Form(error), .. }) =
            AcceptorRecord::decode(&record.encode())
        else {
            panic!("it was read")
        };
        assert_eq!(Err::<(), _>(error), wrong);
    }
    assert_eq!(AcceptorRecord::after(closing(u32::MAX, &[1]), None), None);
}

#[test]
fn records_come_back_as_they_were() {
    let certificate = CertificateRecord { certificate: second_certificate(), vote: Some(cast_vote()) };
    assert_eq!(CertificateRecord::decode(&certificate.encode()).as_ref(), Ok(&certificate));
    let mut acceptor = AcceptorRecord::decode(&voted_record().encode()).unwrap();
    assert_eq!(acceptor, voted_record());
    assert_eq!(acceptor.acceptor.prepare(ballot(2)), Ok(()));
    assert!(
        matches!(acceptor.acceptor.voted(), Some(voted) if voted.ballot == ballot(1) && voted.grounds == grounds())
    );
    let prepared = PendingRecord::Prepared(prepared_record().into());
    assert_eq!(PendingRecord::decode(&prepared.encode()), Ok(prepared));
    let refused = PendingRecord::Refused(RefusedRecord { statement: one_of_each().3 });
    assert_eq!(PendingRecord::decode(&refused.encode()), Ok(refused));
    let blank = AcceptorRecord::new("w", 3);
    assert_eq!(AcceptorRecord::decode(&blank.encode()), Ok(blank));
}

#[test]
fn preparing_is_one_batch_with_every_share_in_the_erasable_keyspace() {
    let (record, facts) = (prepared_record(), facts(1..=3, 2));
    let mut batch = Batch::default();
    record.clone().store(shares(&facts, node(2)), &mut batch).unwrap();
    let at = |curve| (Keyspace::Shares, share_key("wallet-1", curve, 0, facts.session));
    let names: Vec<_> = batch.writes.iter().map(|write| (write.keyspace, write.key.clone())).collect();
    assert_eq!(
        names,
        [at(Curve::Secp256k1), at(Curve::Ed25519), (Keyspace::Pending, pending_key("wallet-1", 0, facts.session))]
    );
    for (write, share) in batch.writes.iter().zip(shares(&facts, node(2))) {
        let stored = ShareRecord::decode(write.value.as_ref().unwrap().expose());
        assert_eq!(stored, Ok(ShareRecord { session: facts.session, share }));
    }
    let secret = [77; 32];
    let pending = batch.writes[2].value.as_ref().unwrap().expose();
    assert!(!pending.windows(32).any(|bytes| bytes == secret), "a secret outside the erasable keyspace");

    let mut untouched = Batch::default();
    assert_eq!(record.store(shares(&facts, node(1)), &mut untouched), Err(FormError::KeyShare("index").into()));
    assert_eq!(untouched, Batch::default());
}

#[test]
fn damaged_records_are_refused() {
    let bytes = voted_record().encode();
    let encoding = Err(RecordError::Encoding { what: AcceptorRecord::WHAT });
    assert_eq!(AcceptorRecord::decode(&bytes[..bytes.len() - 1]), encoding);
    assert_eq!(AcceptorRecord::decode(&[&bytes[..], &[0]].concat()), encoding, "trailing bytes");
    let mut future = bytes.clone();
    future[0] = 9;
    assert_eq!(AcceptorRecord::decode(&future), encoding, "unknown schema version");
    assert_eq!(
        AcceptorRecord::decode(&vec![0; AcceptorRecord::BYTES_MAX + 1]),
        Err(RecordError::TooLong {
            what: AcceptorRecord::WHAT,
            limit: AcceptorRecord::BYTES_MAX,
            got: AcceptorRecord::BYTES_MAX + 1
        })
    );
    let other = AcceptorRecord { slot: Slot { wallet: "wallet-2".into(), ..slot(0) }, ..voted_record() };
    assert!(matches!(
        AcceptorRecord::decode(&other.encode()),
        Err(RecordError::Content { error: CertificateError::VoteForOther(_), .. })
    ));
    let mut short = prepared_record();
    short.public_shares[0].pop();
    assert!(matches!(
        PendingRecord::decode(&PendingRecord::Prepared(short.into()).encode()),
        Err(RecordError::Content { error: CertificateError::Form(FormError::Count { .. }), .. })
    ));
    let mut certificate = first_certificate();
    certificate.value.session.facts.committee.threshold = 1;
    assert!(matches!(
        CertificateRecord::decode(&CertificateRecord { certificate, vote: None }.encode()),
        Err(RecordError::Content { error: CertificateError::Form(FormError::Committee { .. }), .. })
    ));
}

/// A number has many encodings in postcard (trailing empty groups of bits); only the shortest is read.
#[test]
fn only_the_one_encoding_is_read() {
    let record = AcceptorRecord::new("w", 3);
    let bytes = record.encode();
    assert_eq!(bytes, [2, 1, b'w', 3, 0, 0, 0, 0, 0, 0]);
    let padded = [2, 1, b'w', 0x83, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(AcceptorRecord::decode(&padded), Err(RecordError::Encoding { what: AcceptorRecord::WHAT }));
}

#[test]
fn the_largest_records_fit_their_limits() {
    let facts = SessionFacts { wallet: "w".repeat(limits::ID_BYTES_MAX), ..facts(1..=32, 17) };
    let value = value(&facts);
    let votes: Vec<_> = (1..=32).map(|number| vote(&value, ballot(u64::MAX), number)).collect();
    let certificate = Certificate::assemble(value.clone(), &votes, None, &keys).unwrap();
    let bytes = CertificateRecord { certificate, vote: None }.encode();
    assert!(bytes.len() * 5 < CertificateRecord::BYTES_MAX, "{} bytes", bytes.len());
    assert!(CertificateRecord::decode(&bytes).is_ok());
    let statement = statements(&facts).swap_remove(31);
    let request = vec![1; limits::REQUEST_BYTES_MAX];
    let record = PreparedRecord { statement, public_shares: value.public_shares, request };
    let record = PendingRecord::Prepared(record.into());
    assert!(PendingRecord::decode(&record.encode()).is_ok());
    assert!(share_key(&facts.wallet, Curve::Ed25519, 0, facts.session).len() <= limits::RECORD_KEY_BYTES_MAX);
}

#[test]
fn names_of_records_are_distinct_and_sort_by_epoch() {
    let (session, wallets) = (SessionId([255; 32]), ["a", "aa", "a\0", "b", "\u{1}a"]);
    let mut names = BTreeSet::new();
    for wallet in wallets {
        for epoch in [0, 1, 255, 256, u32::MAX] {
            assert!(names.insert(certificate_key(wallet, epoch)));
            assert_eq!(decision_key(wallet, epoch), certificate_key(wallet, epoch));
            assert!(names.insert(pending_key(wallet, epoch, session)));
            for curve in Curve::ALL {
                assert!(names.insert(share_key(wallet, curve, epoch, session)));
            }
            assert!(certificate_key(wallet, epoch) <= certificate_key(wallet, epoch.saturating_add(1)));
        }
        let mine = names.iter().filter(|name| name.starts_with(&wallet_prefix(wallet))).count();
        assert_eq!(mine, 5 * 4, "exactly the names of wallet {wallet:?} begin with its prefix");
    }
}

const GOLDEN_STATEMENTS: [&str; 5] = [
    "0877616c6c65742d31000201010101010101010101010101010101090909090909090909090909090909090606060606\
     06060606060606060606060606060606060606060606060606060602020202020202020202020202020202e37d6f2039\
     441269b0a4c79379791fcd6b3e59add379a6e51fd80e838c5cd807f19122b711aa95ba18572790ebb5efd0ed78303d31\
     475b7943c312b6d829910e",
    "0877616c6c65742d31000002010101010101010101010101010101010909090909090909090909090909090901010101\
     010101010101010101010101010109090909090909090909090909090909000606060606060606060606060606060606\
     060606060606060606060606060606000202020202020202020202020202020283f50cb1997fb6f16b68dbe5b4d09d11\
     1f6458efcbb7b56863360bb21c21d91a61fdcee0a5e77e39aa45af81a87fcf20cf179a5f92512df495ebeae2bbd5200b",
    "0877616c6c65742d31000202020202020202020202020202020202020202020202020202020202020202020202020202\
     02020202020202020202090909090909090909090909090909097d35bf950f377d607d7ea2bc9de382eaf7a9c61ea583\
     ca4e60f0514e087fd6f8306a2339a5f710b449f688410d7183b3dfabc9010dd7e7ac299207a844353102",
    "060606060606060606060606060606060606060606060606060606060606060602020202020202020202020202020202\
     3f51ce61186aef09c5dfa6605cac1d629ccdde63ae2b6ff793247a427c3a9ecf8068bf39a943b2dbe85b3a77f63696f9\
     1f7702558bad43b9425cd9ab4fe7280d",
    "01010101010101010101010101010101010101010101010101010101010101010877616c6c65742d3102000100000000\
     000000000000000000000000000000000000000000000000000000000002020202020202020202020202020202020202\
     020202020202020202020202020301010101010101010101010101010101020202020202020202020202020202020303\
     030303030303030303030303030302022105050505050505050505050505050505050505050505050505050505050505\
     050520050505050505050505050505050505050505050505050505050505050505050556a3fbcc407f822d47baef607f\
     4d992d3bdec5d172862287bf28d697415da6ff02020202020202020202020202020202e10f006706c4ba08079816d9e5\
     f225a8874f587e33dd32b7c39877cced14083b61634c9079105a1e3b3bfb0aee694e5622ba3bd1ba918f5cfad5554bb3\
     74b10100",
];

const GOLDEN_CERTIFICATE_V1: &str = "c935d79fd1fea2dc453289c2d33546343e3bebcc9e8a7de0e76b897170316e93";

const GOLDEN_ACCEPTOR_V2: &str = "a43a23e13d00d7a6b67c263f6713bcfe6cb4861b6e2d31de54183dfa97b27733";

const GOLDEN_HASHES: [&str; 8] = [
    "3d443d944864c7e2c7795a4578cdd5e1a010ce1eb0d4650a7e6f04ac32e241a2",
    "72019c352b81bdc3e785a8c8ac8ecbe41301c6b7e71bd375f3a6c028925af628",
    "56a3fbcc407f822d47baef607f4d992d3bdec5d172862287bf28d697415da6ff",
    "d3c60c82c341c505302bbeabbb4b065d5dfb493940cafbf3f3a9ae583d170b9e",
    "e87e18c82737c8524cae38e72cba67339a38bc8e516c8fdfff19a771eac83cad",
    "eb3522ec3275d0cb94fdc0561c918cb7664c1402cabec2453f2fecf1e138b994",
    "d39485ef14547a92d7ab94c6175e3df6ac5b66cb46073fd7b7ca3cb2ba95c1ef",
    "28c6a65b4e3e4b44a5610af66346dce51b26762448a6a262ed5ff81550a580f2",
];
