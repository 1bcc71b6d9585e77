//! What an ECDSA suite has to do, whichever it is: every test runs over CGGMP24 (at a toy security level) and DKLs23.

mod api {
    pub use mpcium_core::protocol::*;
}
mod common_protocol;
#[path = "common_protocol/toy.rs"]
mod toy;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use common_protocol::{dealt_anew, pump, pump_honestly, runs};
use k256::ecdsa::signature::hazmat::PrehashVerifier;
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use mpcium_core::Secret;
use mpcium_core::protocol::{
    AuxiliarySet, AuxiliaryView, Cggmp, Coverage, Curve, DistributedKeyGeneration, Dkls, KeyGeneration, KeyShare,
    Outcome, Party, Run, Signing, SigningSuite,
};
use toy::Toy;

/// A suite, and its auxiliary data among five nodes.
struct Case {
    suite: Box<dyn SigningSuite>,
    /// By members, each one's part in order.
    sets: BTreeMap<Vec<usize>, Vec<AuxiliarySet>>,
}

const NODES: usize = 5;

fn cases() -> &'static [Case] {
    static MADE: OnceLock<Vec<Case>> = OnceLock::new();
    MADE.get_or_init(|| vec![case(Box::new(Cggmp::<Toy>::new())), case(Box::new(Dkls))])
}

fn case(suite: Box<dyn SigningSuite>) -> Case {
    let auxiliary = suite.auxiliary().expect("both need auxiliary data");
    let groups: Vec<Vec<usize>> = match auxiliary.coverage() {
        Coverage::Committee => vec![(0..NODES).collect()],
        Coverage::Pairs => (0..NODES).flat_map(|one| (one + 1..NODES).map(move |other| vec![one, other])).collect(),
    };
    let make = |(members, occasion): (Vec<usize>, u8)| {
        let parties = runs(u16::try_from(members.len()).expect("few"), occasion).into_iter().map(|run| {
            let seed =
                |piece: u16| [16 * u8::try_from(run.index).expect("few") + u8::try_from(piece).expect("few") + 1; 32];
            let ingredient =
                (0..auxiliary.ingredient_pieces()).map(|piece| auxiliary.make_ingredient_piece(seed(piece))).collect();
            auxiliary.start(run, ingredient).expect("fits")
        });
        let sets = pump_honestly(parties.collect()).into_iter().map(|outcome| {
            let Outcome::Auxiliary(set) = outcome else { panic!("no auxiliary set") };
            set
        });
        (members, sets.collect())
    };
    let sets = groups.into_iter().zip(50..).map(make).collect();
    Case { suite, sets }
}

impl Case {
    /// What the signer at committee position `own` gets; `nodes[i]` is the node at committee position `i`.
    fn views(&self, nodes: &[usize], signers: &[u16], own: u16) -> Vec<AuxiliaryView> {
        let node = |position: u16| nodes[usize::from(position)];
        let at = |members: &[usize], of: usize| members.iter().position(|member| *member == of).expect("a member");
        if let Some((members, sets)) = self.sets.iter().find(|(members, _)| members.len() == NODES) {
            let set = &sets[at(members, node(own))];
            let rows = signers.iter().map(|signer| set.rows[at(members, node(*signer))].clone()).collect();
            return vec![AuxiliaryView { secret: set.secret.clone(), rows, opened: None }];
        }
        let others = signers.iter().filter(|other| **other != own);
        others
            .map(|other| {
                let mut members = vec![node(own), node(*other)];
                members.sort_unstable();
                let set = &self.sets[&members][at(&members, node(own))];
                AuxiliaryView { secret: set.secret.clone(), rows: set.rows.clone(), opened: None }
            })
            .collect()
    }

    fn parties(
        &self,
        shares: &[Arc<KeyShare>],
        nodes: &[usize],
        signers: &[u16],
        digest: &[u8],
    ) -> Vec<Box<dyn Party>> {
        let runs = runs(u16::try_from(signers.len()).expect("few"), 3).into_iter().zip(signers);
        runs.map(|(run, signer)| {
            let signing = Signing {
                key: shares[usize::from(*signer)].clone(),
                signers: signers.to_vec(),
                message: digest.to_vec(),
                auxiliary: self.views(nodes, signers, *signer),
            };
            self.suite.start(run, signing).expect("fits")
        })
        .collect()
    }

    fn assert_signs(&self, shares: &[Arc<KeyShare>], nodes: &[usize], signers: &[u16], digest: [u8; 32]) {
        let mut signatures: Vec<Vec<u8>> = pump_honestly(self.parties(shares, nodes, signers, &digest))
            .into_iter()
            .map(|outcome| {
                let Outcome::Signature(signature) = outcome else { panic!("no signature") };
                signature
            })
            .collect();
        signatures.dedup();
        assert_eq!(signatures.len(), 1, "all signers hold the same signature");
        let bytes = &signatures[0];
        assert_eq!(bytes.len(), 65);

        // An implementation that shares nothing with those under test.
        let public_key = VerifyingKey::from_sec1_bytes(&shares[0].public_key).expect("a key");
        let signature = Signature::from_slice(&bytes[..64]).expect("two scalars");
        assert_eq!(signature.normalize_s(), signature, "low s");
        public_key.verify_prehash(&digest, &signature).expect("verifies");
        let recovery = RecoveryId::from_byte(bytes[64]).expect("0 to 3");
        assert_eq!(VerifyingKey::recover_from_prehash(&digest, &signature, recovery).expect("recovers"), public_key);

        // Either suite verifies what the other one made.
        for case in cases() {
            assert!(case.suite.verify(&shares[0].public_key, &digest, bytes));
            for position in [0, 40, 64] {
                let mut changed = bytes.clone();
                changed[position] ^= 1;
                assert!(!case.suite.verify(&shares[0].public_key, &digest, &changed), "byte {position} changed");
            }
            assert!(!case.suite.verify(&shares[0].public_key, &[1; 32], bytes));
        }
    }
}

fn keys(members: u16, threshold: u16) -> Vec<Arc<KeyShare>> {
    let parties =
        runs(members, 2).into_iter().map(|run| DistributedKeyGeneration.start(run, threshold).expect("fits")).collect();
    pump_honestly(parties)
        .into_iter()
        .map(|outcome| {
            let Outcome::Keys(shares) = outcome else { panic!("no keys") };
            Arc::new(shares.into_iter().find(|share| share.curve == Curve::Secp256k1).expect("both curves"))
        })
        .collect()
}

#[test]
fn every_pair_of_three_signs_in_either_order() {
    let shares = keys(3, 2);
    for case in cases() {
        for signers in [[0, 1], [0, 2], [1, 2], [2, 1]] {
            case.assert_signs(&shares, &[0, 1, 2], &signers, [0x5a; 32]);
        }
    }
}

#[test]
fn any_signers_of_five_sign_in_the_order_given() {
    let (three, four) = (keys(5, 3), keys(5, 4));
    for case in cases() {
        for signers in [[0, 1, 2], [4, 1, 3], [2, 4, 0]] {
            case.assert_signs(&three, &[0, 1, 2, 3, 4], &signers, [0x5a; 32]);
        }
        case.assert_signs(&four, &[0, 1, 2, 3, 4], &[1, 2, 3, 4], [0x5a; 32]);
    }
}

#[test]
fn a_committee_of_some_nodes_in_another_order_signs() {
    let shares = keys(3, 2);
    for case in cases() {
        case.assert_signs(&shares, &[4, 1, 3], &[0, 2], [0x5a; 32]);
        case.assert_signs(&shares, &[2, 0, 4], &[1, 2], [0x5a; 32]);
    }
}

#[test]
fn a_key_whose_holders_change_places_signs_with_the_auxiliary_data_that_there_is() {
    // One key, before and after a change of committee: the same nodes at other positions, one more of them, another
    // threshold.
    let before = keys(3, 2);
    let after = dealt_anew(&before, 4, 3);
    for share in &after {
        share.validate().expect("a valid share");
        assert_eq!(share.public_key, before[0].public_key);
    }
    let fewer = dealt_anew(&after, 3, 2);
    for case in cases() {
        case.assert_signs(&before, &[1, 2, 4], &[0, 2], [0x11; 32]);
        case.assert_signs(&after, &[4, 0, 1, 2], &[0, 2, 3], [0x22; 32]);
        case.assert_signs(&after, &[4, 0, 1, 2], &[3, 1, 2], [0x33; 32]);
        case.assert_signs(&fewer, &[2, 4, 1], &[1, 2], [0x44; 32]);
    }
}

#[test]
fn child_keys_sign() {
    let shares = keys(3, 2);
    let mut delta = [0; 32];
    delta[31] = 5; // big-endian 5
    let children: Vec<_> = shares.iter().map(|share| Arc::new(share.shifted(&delta).expect("shifts"))).collect();
    for child in &children {
        child.validate().expect("a valid share");
    }
    let point = |bytes: &[u8]| k256::PublicKey::from_sec1_bytes(bytes).expect("a point").to_projective();
    let expected = point(&shares[0].public_key) + k256::ProjectivePoint::GENERATOR * k256::Scalar::from(5u64);
    assert_eq!(point(&children[0].public_key), expected);
    for case in cases() {
        case.assert_signs(&children, &[0, 1, 2], &[0, 2], [0x5a; 32]);
    }
    assert!(shares[0].shifted(&[0xff; 32]).is_err(), "a shift above the order");
}

#[test]
fn digests_of_any_value_below_the_order_are_signed_and_others_refused() {
    let shares = keys(3, 2);
    let mut one = [0; 32];
    one[31] = 1;
    for case in cases() {
        case.assert_signs(&shares, &[0, 1, 2], &[0, 1], one);
        let start = |message: Vec<u8>| {
            let run = Run { execution_id: [1; 32], index: 0, parties: 2, seed: [2; 32] };
            let auxiliary = case.views(&[0, 1, 2], &[0, 1], 0);
            case.suite.start(run, Signing { key: shares[0].clone(), signers: vec![0, 1], message, auxiliary })
        };
        for (message, words) in
            [(vec![1; 31], "31 bytes"), (vec![0; 33], "33 bytes"), (vec![], "0 bytes"), (vec![0xff; 32], "order")]
        {
            let Err(refused) = start(message) else { panic!("accepted where {words:?} is wrong") };
            assert!(refused.reason.contains(words), "{refused:?}");
        }
        // Zero is a digest: what a client means by no bytes at all.
        for outcome in pump_honestly(case.parties(&shares, &[0, 1, 2], &[0, 1], &[0; 32])) {
            let Outcome::Signature(signature) = outcome else { panic!("no signature") };
            assert!(case.suite.verify(&shares[0].public_key, &[0; 32], &signature));
        }
    }
}

/// What is changed, and how.
type Change = (&'static str, fn(&mut Signing));

#[test]
fn what_does_not_fit_together_is_refused_at_the_start() {
    let shares = keys(3, 2);
    let changes: [Change; 8] = [
        ("no auxiliary data", |s| s.auxiliary.clear()),
        ("a view twice", |s| s.auxiliary.push(s.auxiliary[0].clone())),
        ("a row less", |s| drop(s.auxiliary[0].rows.pop())),
        ("swapped rows", |s| s.auxiliary[0].rows.swap(0, 1)),
        ("a damaged row", |s| s.auxiliary[0].rows[1].truncate(20)),
        ("a damaged secret", |s| s.auxiliary[0].secret = Secret::new(vec![1; 9])),
        ("three signers", |s| s.signers.push(2)),
        ("the same signer twice", |s| s.signers[1] = 0),
    ];
    for case in cases() {
        let good = || Signing {
            key: shares[0].clone(),
            signers: vec![0, 1],
            message: vec![1; 32],
            auxiliary: case.views(&[0, 1, 2], &[0, 1], 0),
        };
        let run = |index, parties| Run { execution_id: [1; 32], index, parties, seed: [2; 32] };
        assert!(case.suite.start(run(0, 2), good()).is_ok());
        for (index, parties) in [(1, 2), (0, 3), (2, 2), (0, 1), (0, 0)] {
            assert!(case.suite.start(run(index, parties), good()).is_err(), "position {index} of {parties}");
        }
        for (what, change) in &changes {
            let mut signing = good();
            change(&mut signing);
            assert!(case.suite.start(run(0, 2), signing).is_err(), "{}: {what}", case.suite.name());
        }
        let mut others_share = good();
        others_share.key = Arc::new(KeyShare { index: 1, ..KeyShare::clone(&others_share.key) });
        assert!(case.suite.start(run(0, 2), others_share).is_err(), "somebody else's key share");
    }
}

#[test]
fn a_message_less_never_ends_in_a_signature() {
    let shares = keys(3, 2);
    for case in cases() {
        for number in 0..3 {
            let ends = pump(case.parties(&shares, &[0, 1, 2], &[0, 1], &[1; 32]), |envelope| {
                if (envelope.from, envelope.number) == (1, number) { Vec::new() } else { vec![envelope] }
            });
            assert!(ends[0].is_none(), "{}: it waits for message {number}", case.suite.name());
        }
    }
}
