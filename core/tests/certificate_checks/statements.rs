//! What one member says, and what counts as said.

use super::*;

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
