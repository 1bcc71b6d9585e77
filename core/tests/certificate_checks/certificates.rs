//! What proves a wallet to anybody, or that a slot is closed, and what does not.

use super::*;

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
    // Promises in a later slot, in which nobody had voted, hide nothing.
    let later = CastVote { slot: 1, ..lie.clone() };
    let (known, second) = (first.clone(), second);
    assert_eq!(StoppedRecord { known, other: second, vote: Some(later) }.liars(), [].into());
    let (known, other) = (first, certificate(&other, 4, [2, 3]));
    assert_eq!(StoppedRecord { known, other, vote: None }.liars(), [node(3)].into());
}

/// A slot of five members, four of whom sign.
#[test]
fn a_slot_is_closed_by_as_many_votes_as_a_session_needs() {
    let committee = facts(1..=5, 4).committee;
    let closed = closing(3, &[1, 2, 3, 4]);
    assert_eq!(closed.verify(&committee, &keys), Ok(()));
    // Two would meet every four, but in one member only, which could then have a session decided and closed.
    let too_few = closing(3, &[1, 2, 4]).verify(&committee, &keys);
    assert_eq!(too_few, Err(CertificateError::TooFewVotes { expected: 4, got: 3 }));
    for (n, threshold, quorum) in [(3, 2, 2), (5, 3, 3), (5, 4, 4), (9, 7, 7), (3, 3, 1), (5, 5, 1)] {
        let committee = facts(1..=n, threshold).committee;
        assert_eq!(Choice::Close.quorum(&committee), quorum, "{threshold} of {n}");
    }
    let twice = closing(3, &[1, 2, 4, 4]).verify(&committee, &keys);
    assert_eq!(twice, Err(CertificateError::DuplicateVote(node(4))));
    let stranger = closing(3, &[1, 2, 4, 9]).verify(&committee, &keys);
    assert_eq!(stranger, Err(CertificateError::VoteByStranger(node(9))));
    for changed in [
        Closing { slot: slot(4), ..closed.clone() },
        Closing { slot: Slot { epoch: 1, ..slot(3) }, ..closed.clone() },
        Closing { slot: Slot { wallet: "wallet-2".to_owned(), ..slot(3) }, ..closed.clone() },
        Closing { ballot: ballot(5), ..closed.clone() },
    ] {
        assert_eq!(changed.verify(&committee, &keys), Err(CertificateError::BadVote(node(1))), "{changed:?}");
    }
    // A vote for a session is none for closing.
    let value = value(&facts(1..=5, 4));
    let votes: Vec<_> = [1, 2, 3, 4].map(|number| vote(&value, ballot(4), number)).to_vec();
    let closed = Closing::assemble(slot(3), ballot(4), &votes);
    assert_eq!(closed.verify(&committee, &keys), Err(CertificateError::BadVote(node(1))));
}
