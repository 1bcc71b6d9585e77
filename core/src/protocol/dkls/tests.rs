//! What is refused of every message, whom that names, and when it bans. Each test changes messages between honest
//! parties; party 1 cheats and party 0 finds out.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use dkls23_core::utilities::proofs::{DLogProof, EncProof};
use k256::elliptic_curve::sec1::ToSec1Point as _;
use k256::{AffinePoint, Scalar, Secp256k1};

use super::setup::First;
use super::{Dkls, wire};
use crate::protocol::testing::common_protocol::{End, Envelope, dealt_anew, pump, pump_honestly, runs};
use crate::protocol::{
    Abort, AuxiliarySet, AuxiliarySuite, AuxiliaryView, Curve, DistributedKeyGeneration, KeyGeneration, KeyShare,
    Outcome, Party, Signing, SigningSuite, runner,
};
use crate::tags;

/// Whom a failure names, and whether it bans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Nobody,
    Blames,
    Bans,
}
use Verdict::{Bans, Blames, Nobody};

fn verdict(end: End, what: &str) -> (Verdict, Abort) {
    let Some(Err(abort)) = end else { panic!("{what}: {end:?}") };
    let verdict = match (abort.culprits.as_slice(), abort.bans.as_slice()) {
        ([], []) => Nobody,
        ([1], []) => Blames,
        ([1], [1]) => Bans,
        _ => panic!("{what}: {abort:?}"),
    };
    (verdict, abort)
}

fn setup_parties(occasion: u8) -> Vec<Box<dyn Party>> {
    runs(2, occasion).into_iter().map(|run| AuxiliarySuite::start(&Dkls, run, Vec::new()).expect("fits")).collect()
}

fn pair(occasion: u8) -> Vec<AuxiliarySet> {
    let sets = pump_honestly(setup_parties(occasion)).into_iter().map(|outcome| {
        let Outcome::Auxiliary(set) = outcome else { panic!("no auxiliary set") };
        set
    });
    sets.collect()
}

/// The halves of the three pairs of three members, by pair.
fn pairs() -> &'static BTreeMap<(u16, u16), Vec<AuxiliarySet>> {
    static MADE: OnceLock<BTreeMap<(u16, u16), Vec<AuxiliarySet>>> = OnceLock::new();
    MADE.get_or_init(|| [(0, 1), (0, 2), (1, 2)].into_iter().zip(1..).map(|(of, on)| (of, pair(on))).collect())
}

fn shares(threshold: u16) -> Vec<Arc<KeyShare>> {
    let parties = runs(3, 9).into_iter().map(|run| DistributedKeyGeneration.start(run, threshold).expect("fits"));
    let shares = pump_honestly(parties.collect()).into_iter().map(|outcome| {
        let Outcome::Keys(shares) = outcome else { panic!("no keys") };
        Arc::new(shares.into_iter().find(|share| share.curve == Curve::Secp256k1).expect("both curves"))
    });
    shares.collect()
}

fn views(signers: &[u16], own: u16) -> Vec<AuxiliaryView> {
    let others = signers.iter().filter(|other| **other != own);
    others
        .map(|other| {
            let set = &pairs()[&(own.min(*other), own.max(*other))][usize::from(own > *other)];
            AuxiliaryView { secret: set.secret.clone(), rows: set.rows.clone(), opened: None }
        })
        .collect()
}

/// The shares of the three members, by threshold.
fn keys() -> &'static BTreeMap<usize, Vec<Arc<KeyShare>>> {
    static KEYS: OnceLock<BTreeMap<usize, Vec<Arc<KeyShare>>>> = OnceLock::new();
    KEYS.get_or_init(|| [(2, shares(2)), (3, shares(3))].into())
}

fn signing_parties(signers: &[u16], occasion: u8) -> Vec<Box<dyn Party>> {
    let runs = runs(u16::try_from(signers.len()).expect("few"), occasion).into_iter().zip(signers);
    runs.map(|(run, signer)| {
        let key = keys()[&signers.len()][usize::from(*signer)].clone();
        let signing =
            Signing { key, signers: signers.to_vec(), message: vec![7; 32], auxiliary: views(signers, *signer) };
        SigningSuite::start(&Dkls, run, signing).expect("fits")
    })
    .collect()
}

/// Changes the bytes of a message.
type Edit = fn(&mut Vec<u8>);

/// How party 0 ends when what party 1 sends it in one round is changed.
fn meddled(parties: Vec<Box<dyn Party>>, round: usize, change: &dyn Fn(&mut Vec<u8>)) -> End {
    pump(parties, |mut envelope| {
        if (envelope.from, envelope.to, envelope.number) == (1, 0, round) {
            change(&mut envelope.bytes);
        }
        vec![envelope]
    })
    .remove(0)
}

/// Where the fields of round 1 begin, behind the byte that numbers the round.
mod second {
    pub const ECHO: usize = 1;
    pub const BINDING: usize = ECHO + 32;
    pub const GAMMA_U: usize = BINDING + 32;
    pub const GAMMA_V: usize = GAMMA_U + 33;
    pub const PUBLIC_SHARE: usize = GAMMA_V + 33;
    pub const INSTANCE_POINT: usize = PUBLIC_SHARE + 33;
    pub const PSI: usize = INSTANCE_POINT + 33;
    pub const SALT: usize = PSI + 32;
    pub const TAU: usize = SALT + 64;
    pub const OTE_SALT: usize = TAU + 4 * 416 * 32;
    pub const VERIFY_R: usize = OTE_SALT + 32;
    pub const VERIFY_U: usize = VERIFY_R + 32;
    pub const GAMMA_SENDER: usize = VERIFY_U + 64;
    pub const END: usize = GAMMA_SENDER + 64;
}

#[test]
fn every_field_of_every_signing_message_is_checked_and_only_consistency_checks_ban() {
    assert_eq!(second::END, 1 + wire::SECOND);
    let u = 1 + 4 * 32;
    let x = u + 256 * 78;
    // The byte that is changed: of a number its last one, of a point its first, which holds the sign of y.
    let fields = [
        (0, "commitment to the nonce point", 1, Nobody),
        (0, "session binding", 33, Blames),
        (0, "commitment", 65, Blames),
        (0, "extension nonce", 97, Bans),
        (0, "extension matrix", u, Bans),
        (0, "extension matrix, last row", x - 1, Bans),
        (0, "extension check x", x, Bans),
        (0, "extension check t", x + 26, Bans),
        (0, "extension check t, last", wire::FIRST, Bans),
        (1, "echo", second::ECHO, Nobody),
        (1, "session binding", second::BINDING, Blames),
        (1, "gamma u", second::GAMMA_U, Bans),
        (1, "gamma v", second::GAMMA_V, Bans),
        (1, "public share", second::PUBLIC_SHARE, Bans),
        (1, "nonce point", second::INSTANCE_POINT, Blames),
        (1, "psi", second::PSI + 31, Blames),
        (1, "salt", second::SALT, Blames),
        (1, "correction of the pads of the nonce", second::TAU + 31, Bans),
        (1, "correction of the checks of the share", second::OTE_SALT - 1, Bans),
        (1, "extension salt", second::OTE_SALT, Bans),
        (1, "hash of r", second::VERIFY_R, Bans),
        (1, "u of the nonce", second::VERIFY_U + 31, Bans),
        (1, "u of the share", second::VERIFY_U + 63, Bans),
        (1, "adjustment of the nonce", second::GAMMA_SENDER + 31, Bans),
        (1, "adjustment of the share", second::GAMMA_SENDER + 63, Bans),
        (2, "summand of the denominator", 32, Nobody),
        (2, "summand of the numerator", 64, Nobody),
    ];
    for (round, what, at, expected) in fields {
        let end = meddled(signing_parties(&[0, 1], 20), round, &|bytes| bytes[at] ^= 1);
        assert_eq!(verdict(end, what).0, expected, "{what} of round {round}");
    }
}

/// The first coordinate of no point.
const NO_POINT: [u8; 32] = {
    let mut x = [0; 32];
    x[31] = 5; // 5³ + 7 is no square
    x
};

#[test]
fn points_at_infinity_numbers_above_the_order_and_wrong_lengths_are_refused_before_they_are_used() {
    for at in [second::GAMMA_U, second::GAMMA_V, second::PUBLIC_SHARE, second::INSTANCE_POINT] {
        let end = meddled(signing_parties(&[0, 1], 21), 1, &|bytes| bytes[at..at + 33].fill(0));
        assert_eq!(verdict(end, "the identity").0, Blames);
        let end = meddled(signing_parties(&[0, 1], 21), 1, &|bytes| bytes[at + 1..at + 33].copy_from_slice(&NO_POINT));
        assert_eq!(verdict(end, "no point of the curve").0, Blames);
    }
    for (round, at) in
        [(1, second::PSI), (1, second::TAU), (1, second::VERIFY_U), (1, second::GAMMA_SENDER), (2, 1), (2, 33)]
    {
        let end = meddled(signing_parties(&[0, 1], 21), round, &|bytes| bytes[at..at + 32].fill(0xff));
        assert_eq!(verdict(end, "a number above the order").0, Blames);
    }
    for round in 0..3 {
        let changes: [Edit; 3] = [|b| b.truncate(b.len() - 1), |b| b.push(0), |b| b.truncate(1)];
        for change in changes {
            assert_eq!(verdict(meddled(signing_parties(&[0, 1], 21), round, &change), "a wrong length").0, Blames);
        }
    }
}

#[test]
fn a_signer_that_shows_different_nonce_points_is_found_before_anybody_says_its_last_word() {
    let mut last_words = 0;
    let ends = pump(signing_parties(&[0, 1, 2], 22), |mut envelope| {
        if (envelope.from, envelope.to, envelope.number) == (1, 2, 0) {
            envelope.bytes[1] ^= 1;
        }
        last_words += usize::from(envelope.from != 1 && envelope.number == 2);
        vec![envelope]
    });
    for (position, end) in ends.into_iter().enumerate().filter(|(position, _)| *position != 1) {
        let (found, abort) = verdict(end, "equivocation");
        assert_eq!(found, Nobody, "party {position}");
        assert!(abort.reason.contains("different commitments"), "{abort:?}");
    }
    assert_eq!(last_words, 0);
}

#[test]
fn a_signer_that_opens_another_nonce_point_than_all_have_the_commitment_to_is_found() {
    // Its echo fits, and so does what the library has it commit to towards each other signer.
    let execution_id = runs(2, 27).remove(0).execution_id;
    let mut commitments = [[0; 32]; 2];
    let ends = pump(signing_parties(&[0, 1], 27), |mut envelope| {
        if envelope.number == 0 {
            envelope.bytes[1] ^= u8::from(envelope.from == 1);
            commitments[usize::from(envelope.from)].copy_from_slice(&envelope.bytes[1..33]);
        }
        if (envelope.from, envelope.number) == (1, 1) {
            let echo = tags::ECHO.hash(&[execution_id.as_slice(), commitments.as_flattened()].concat());
            envelope.bytes[second::ECHO..second::BINDING].copy_from_slice(&echo);
        }
        vec![envelope]
    });
    let (found, abort) = verdict(ends.into_iter().next().expect("two"), "another nonce point");
    assert_eq!(found, Blames);
    assert!(abort.reason.contains("not the one committed to"), "{abort:?}");
}

#[test]
fn public_shares_that_do_not_add_up_to_the_key_are_noticed_and_name_nobody() {
    let mut parties = signing_parties(&[0, 1], 28);
    // A share of the same key, but not of the same dealing, which the signer uses throughout.
    let key = dealt_anew(&keys()[&2], 3, 2).remove(1);
    let signing = Signing { key, signers: vec![0, 1], message: vec![7; 32], auxiliary: views(&[0, 1], 1) };
    parties[1] = SigningSuite::start(&Dkls, runs(2, 28).remove(1), signing).expect("fits");
    let (found, abort) = verdict(pump(parties, |envelope| vec![envelope]).remove(0), "another dealing");
    assert_eq!(found, Nobody);
    assert!(abort.reason.contains("polynomial inconsistency"), "{abort:?}");
}

#[test]
fn messages_of_another_run_are_refused_without_a_ban() {
    for round in 0..2 {
        let mut other = Vec::new();
        pump(signing_parties(&[0, 1], 23), |envelope| {
            if (envelope.from, envelope.number) == (1, round) {
                other = envelope.bytes.clone();
            }
            vec![envelope]
        });
        let end = meddled(signing_parties(&[0, 1], 24), round, &|bytes| bytes.clone_from(&other));
        let (found, _) = verdict(end, "a message of another run");
        assert!(matches!(found, Blames | Nobody), "round {round}: {found:?}");
    }
}

#[test]
fn halves_of_different_set_ups_of_one_pair_are_noticed_without_a_ban() {
    static OTHER: OnceLock<Vec<AuxiliarySet>> = OnceLock::new();
    let other = OTHER.get_or_init(|| pair(99));
    let mut parties = signing_parties(&[0, 1], 25);
    let key = shares(2)[1].clone();
    let auxiliary = vec![AuxiliaryView { secret: other[1].secret.clone(), rows: other[1].rows.clone(), opened: None }];
    let signing = Signing { key, signers: vec![0, 1], message: vec![7; 32], auxiliary };
    let run = runs(2, 25).remove(1);
    parties[1] = SigningSuite::start(&Dkls, run, signing).expect("fits");
    let end = pump(parties, |envelope| vec![envelope]).remove(0);
    assert_eq!(verdict(end, "another set-up").0, Blames);
}

#[test]
fn repeated_messages_are_harmless_and_two_different_ones_are_equivocation() {
    for round in 0..3 {
        let twice = |second: &dyn Fn(Envelope) -> Envelope| {
            pump(signing_parties(&[0, 1], 26), |envelope| {
                let chosen = (envelope.from, envelope.to, envelope.number) == (1, 0, round);
                if chosen { vec![envelope.clone(), second(envelope)] } else { vec![envelope] }
            })
            .remove(0)
        };
        assert!(matches!(twice(&|same| same), Some(Ok(Outcome::Signature(_)))), "round {round}");
        let end = twice(&|mut other| {
            other.bytes[40] ^= 1;
            other
        });
        // In the last round the first one has already finished the signature.
        assert!(round == 2 || verdict(end, "two different ones").0 == Blames, "round {round}");
    }
}

/// Changes the first message of a set-up.
type Change = fn(&mut First);

/// How member 0 ends when the first message of member 1 is changed.
fn meddled_setup(change: &dyn Fn(&mut First)) -> End {
    meddled(setup_parties(30), 0, &|bytes| {
        let mut first: First = postcard::from_bytes(&bytes[1..]).expect("honest");
        change(&mut first);
        bytes.truncate(1);
        bytes.extend(postcard::to_stdvec(&first).expect("serialises"));
    })
}

#[test]
fn every_field_of_every_set_up_message_is_checked_and_nothing_bans() {
    let changes: [(&str, Change); 23] = [
        ("commitment to the seed", |first| first.seed_commitment[0] ^= 1),
        ("nonce of the gadget", |first| first.gadget_nonce += Scalar::ONE),
        ("seed of the base transfers", |first| first.base_seed[0] ^= 1),
        ("the exponent's point", |first| first.exponent_proof.point = AffinePoint::GENERATOR),
        ("the exponent's point, the identity", |first| first.exponent_proof.point = AffinePoint::IDENTITY),
        ("a response of the exponent's proof", |first| {
            first.exponent_proof.proofs[63].challenge_response += Scalar::ONE;
        }),
        ("a challenge of the exponent's proof", |first| first.exponent_proof.proofs[0].challenge[3] ^= 1),
        ("a challenge of the exponent's proof, empty", |first| first.exponent_proof.proofs[40].challenge.clear()),
        ("a challenge of the exponent's proof, too long", |first| first.exponent_proof.proofs[40].challenge.push(0)),
        ("a response of the exponent's proof less", |first| first.exponent_proof.proofs.truncate(63)),
        ("a response of the exponent's proof more", |first| {
            let again = first.exponent_proof.proofs[0].clone();
            first.exponent_proof.proofs.push(again);
        }),
        ("a commitment of the exponent's proof twice", |first| {
            first.exponent_proof.rand_commitments[1] = first.exponent_proof.rand_commitments[0];
        }),
        ("a commitment of the exponent's proof less", |first| first.exponent_proof.rand_commitments.truncate(63)),
        ("a proof of a choice less", |first| first.choice_proofs.truncate(255)),
        ("a proof of a choice more", |first| first.choice_proofs.push(first.choice_proofs[0].clone())),
        ("a response of the proof of a choice", |first| {
            first.choice_proofs[9].proof1.challenge_response += Scalar::ONE
        }),
        ("a challenge of the proof of a choice", |first| first.choice_proofs[9].challenge0 += Scalar::ONE),
        ("a commitment of the proof of a choice", |first| {
            first.choice_proofs[9].commitments1.rc_h = AffinePoint::GENERATOR;
        }),
        ("another generator", |first| first.choice_proofs[9].proof0.base_g = first.choice_proofs[9].proof0.base_h),
        ("another base point", |first| first.choice_proofs[9].proof1.base_h = AffinePoint::GENERATOR),
        ("two proofs of choices exchanged", |first| first.choice_proofs.swap(0, 255)),
        ("a choice at the identity", |first| first.choice_proofs[9].proof0.point_v = AffinePoint::IDENTITY),
        ("another point of a choice", |first| first.choice_proofs[9].proof0.point_u = AffinePoint::GENERATOR),
    ];
    for (what, change) in changes {
        assert_eq!(verdict(meddled_setup(&change), what).0, Blames, "{what}");
    }
    let off_the_curve = meddled(setup_parties(30), 0, &|bytes| {
        let first: First = postcard::from_bytes(&bytes[1..]).expect("honest");
        let point = first.exponent_proof.point.to_sec1_point(true);
        let at = bytes.windows(33).position(|window| window == point.as_bytes()).expect("it is in the message");
        bytes[at + 1..at + 33].copy_from_slice(&NO_POINT);
    });
    let (found, abort) = verdict(off_the_curve, "a point off the curve");
    assert_eq!(found, Blames);
    assert!(abort.reason.contains("cannot be read"), "{abort:?}");
    for (what, at) in [("seed", 1), ("salt", 33), ("transcript", 97)] {
        let end = meddled(setup_parties(30), 1, &|bytes| bytes[at] ^= 1);
        assert_eq!(verdict(end, what).0, Blames, "{what}");
    }
    let lengths: [Edit; 3] = [|b| b.truncate(b.len() - 1), |b| b.push(0), |b| b.resize(1 << 18, 0)];
    for change in lengths {
        for round in 0..2 {
            assert_eq!(verdict(meddled(setup_parties(30), round, &change), "length").0, Blames, "round {round}");
        }
    }
}

/// The library takes all of these for good.
#[test]
fn the_identity_is_refused_although_its_proofs_are_sound() {
    let session = |purpose| runner::execution_id(&runs(2, 30)[1], purpose);
    let receiving = session("dkls23 pair, 1 receives");
    let exponent = DLogProof::<Secp256k1>::prove(&Scalar::ZERO, &receiving).expect("a proof");
    assert!(DLogProof::verify(&exponent, &receiving));
    let end = meddled_setup(&|first| first.exponent_proof = exponent.clone());
    let (found, abort) = verdict(end, "an exponent of zero");
    assert_eq!(found, Blames);
    assert!(abort.reason.contains("the identity in the proof of the base sender's exponent"), "{abort:?}");

    let number = 7u16;
    let sending = [number.to_be_bytes().as_slice(), &session("dkls23 pair, 0 receives")].concat();
    for choice in [false, true] {
        let end = meddled_setup(&|first| {
            let proof = &mut first.choice_proofs[usize::from(number)];
            *proof = EncProof::prove(&sending, &proof.proof0.base_h, &Scalar::ZERO, choice);
            assert!(proof.verify(&sending));
        });
        let (found, abort) = verdict(end, "a choice behind a mask of zero");
        assert_eq!(found, Blames);
        assert!(abort.reason.contains("the identity in a proof of the base receiver's choice"), "{abort:?}");
    }
}

#[test]
fn the_identity_among_the_commitments_of_a_proof_is_refused() {
    let end = meddled_setup(&|first| first.exponent_proof.rand_commitments[3] = AffinePoint::IDENTITY);
    let (found, abort) = verdict(end, "a commitment at the identity");
    assert_eq!(found, Blames);
    assert!(abort.reason.contains("the identity in the proof of the base sender's exponent"), "{abort:?}");
}

#[test]
fn a_first_message_of_another_set_up_of_the_pair_is_refused() {
    let mut other = Vec::new();
    pump(setup_parties(31), |envelope| {
        if (envelope.from, envelope.number) == (1, 0) {
            other = envelope.bytes.clone();
        }
        vec![envelope]
    });
    let end = meddled(setup_parties(32), 0, &|bytes| bytes.clone_from(&other));
    assert_eq!(verdict(end, "a first message of another run").0, Blames);
}

#[test]
fn a_half_is_only_good_for_its_own_rows_and_position() {
    let sets = &pairs()[&(0, 1)];
    for (at, set) in sets.iter().enumerate() {
        let at = u16::try_from(at).expect("two");
        Dkls.check(set, at).expect("fits");
        assert!(Dkls.check(set, 1 - at).is_err());
        let mut other_rows = set.clone();
        other_rows.rows.swap(0, 1);
        assert!(Dkls.check(&other_rows, at).is_err());
        for length in [0, 1, 100, set.secret.expose().len() - 1] {
            let secret = crate::Secret::new(set.secret.expose()[..length].to_vec());
            assert!(Dkls.check(&AuxiliarySet { secret, rows: set.rows.clone() }, at).is_err(), "{length} bytes");
        }
    }
    assert_eq!(sets[0].rows, sets[1].rows);
}
