//! Key generation and Ed25519 signing as core sees them: messages in, messages out.

mod api {
    pub use mpcium_core::protocol::*;
}
mod common_protocol;

use std::sync::Arc;

use common_protocol::{Envelope, pump, pump_honestly, runs};
use mpcium_core::Secret;
use mpcium_core::protocol::{
    Abort, Curve, DistributedKeyGeneration, Frost, Incoming, KeyGeneration, KeyShare, Outcome, Party, Run, Signing,
    SigningSuite,
};

/// What is changed, and how.
type Change = (&'static str, Box<dyn Fn(&mut KeyShare)>);

/// The same for a message on its way.
type EnvelopeChange = (&'static str, fn(&mut Envelope));

fn keygen_parties(members: u16, threshold: u16, occasion: u8) -> Vec<Box<dyn Party>> {
    runs(members, occasion)
        .into_iter()
        .map(|run| DistributedKeyGeneration.start(run, threshold).expect("possible numbers"))
        .collect()
}

/// One share per member, for one curve.
fn keys(members: u16, threshold: u16, occasion: u8, curve: Curve) -> Vec<Arc<KeyShare>> {
    pump_honestly(keygen_parties(members, threshold, occasion))
        .into_iter()
        .map(|outcome| {
            let Outcome::Keys(shares) = outcome else { panic!("no keys") };
            assert_eq!(shares.iter().map(|share| share.curve).collect::<Vec<_>>(), Curve::ALL);
            Arc::new(shares.into_iter().find(|share| share.curve == curve).expect("both curves"))
        })
        .collect()
}

fn frost_parties(shares: &[Arc<KeyShare>], signers: &[u16], message: &[u8], occasion: u8) -> Vec<Box<dyn Party>> {
    runs(u16::try_from(signers.len()).expect("few"), occasion)
        .into_iter()
        .zip(signers)
        .map(|(run, signer)| {
            let signing = Signing {
                key: shares[usize::from(*signer)].clone(),
                signers: signers.to_vec(),
                message: message.to_vec(),
                auxiliary: Vec::new(),
            };
            Frost.start(run, signing).expect("fits")
        })
        .collect()
}

fn assert_signs(shares: &[Arc<KeyShare>], signers: &[u16], message: &[u8]) {
    for outcome in pump_honestly(frost_parties(shares, signers, message, 9)) {
        let Outcome::Signature(signature) = outcome else { panic!("no signature") };
        assert_eq!(signature.len(), 64);
        assert!(Frost.verify(&shares[0].public_key, message, &signature));
        assert!(!Frost.verify(&shares[0].public_key, b"another message", &signature));
    }
}

#[test]
fn all_members_get_fitting_shares_of_two_keys() {
    for (members, threshold) in [(2, 2), (3, 2), (5, 3)] {
        for curve in Curve::ALL {
            let shares = keys(members, threshold, 1, curve);
            for (position, share) in shares.iter().enumerate() {
                assert_eq!(usize::from(share.index), position);
                assert_eq!(share.threshold, threshold);
                assert_eq!(share.public_key, shares[0].public_key);
                assert_eq!(share.public_shares, shares[0].public_shares);
                share.validate().expect("a valid share");
            }
        }
    }
}

#[test]
fn every_quorum_in_any_order_signs_on_ed25519() {
    let shares = keys(3, 2, 2, Curve::Ed25519);
    for signers in [[0, 1], [0, 2], [1, 2], [2, 0]] {
        assert_signs(&shares, &signers, b"pay");
    }
    let shares = keys(5, 3, 3, Curve::Ed25519);
    assert_signs(&shares, &[4, 1, 3], b"pay");
    assert_signs(&shares, &[0, 1, 2], b"pay");
}

#[test]
fn the_whole_message_is_signed_with_its_leading_zeros_and_may_be_empty() {
    let shares = keys(3, 2, 2, Curve::Ed25519);
    for message in [&b"\0\0hi"[..], b"", &[0; 300]] {
        assert_signs(&shares, &[0, 2], message);
    }
}

#[test]
fn child_keys_are_the_shifted_keys_and_sign() {
    let shares = keys(3, 2, 4, Curve::Ed25519);
    let mut delta = [0; 32];
    delta[0] = 5; // little-endian 5
    let children: Vec<_> = shares.iter().map(|share| Arc::new(share.shifted(&delta).expect("shifts"))).collect();
    let point = |bytes: &[u8]| {
        curve25519_dalek::edwards::CompressedEdwardsY(bytes.try_into().expect("32 bytes"))
            .decompress()
            .expect("a point")
    };
    let five = curve25519_dalek::Scalar::from(5u8);
    let expected = point(&shares[0].public_key) + curve25519_dalek::constants::ED25519_BASEPOINT_TABLE * &five;
    assert_eq!(children[0].public_key, expected.compress().to_bytes());
    for child in &children {
        child.validate().expect("a valid share");
    }
    assert_signs(&children, &[1, 2], b"pay");
}

#[test]
fn the_same_seeds_give_the_same_bytes() {
    let record = |parties: Vec<Box<dyn Party>>| {
        let mut transcript = Vec::new();
        pump(parties, |envelope| {
            transcript.push((envelope.from, envelope.to, envelope.bytes.clone()));
            vec![envelope]
        });
        transcript
    };
    assert_eq!(record(keygen_parties(3, 2, 5)), record(keygen_parties(3, 2, 5)));
    assert_ne!(record(keygen_parties(3, 2, 5)), record(keygen_parties(3, 2, 6)));
    let shares = keys(3, 2, 5, Curve::Ed25519);
    let once = record(frost_parties(&shares, &[0, 1], b"m", 7));
    assert_eq!(once, record(frost_parties(&shares, &[0, 1], b"m", 7)));
}

#[test]
fn one_seed_in_two_runs_never_repeats_a_nonce() {
    let shares = keys(3, 2, 5, Curve::Ed25519);
    let first_messages = |execution_id| {
        let run = Run { execution_id, index: 0, parties: 2, seed: [3; 32] };
        let signing =
            Signing { key: shares[0].clone(), signers: vec![0, 1], message: b"m".to_vec(), auxiliary: Vec::new() };
        Frost.start(run, signing).expect("fits").advance(Vec::new()).messages.remove(0).bytes
    };
    assert_ne!(first_messages([1; 32]), first_messages([2; 32]));
}

/// Runs with one message changed and gives back how party 0 ended.
fn with_change(
    parties: Vec<Box<dyn Party>>,
    number: usize,
    change: impl Fn(&mut Envelope) -> Vec<Envelope>,
) -> Option<Result<Outcome, Abort>> {
    let mut ends = pump(parties, |mut envelope| {
        if envelope.from == 1 && envelope.to == 0 && envelope.number == number {
            change(&mut envelope)
        } else {
            vec![envelope]
        }
    });
    ends.remove(0)
}

fn expect_blame(end: Option<Result<Outcome, Abort>>, culprits: &[u16], what: &str) {
    match end {
        Some(Err(abort)) => assert_eq!(abort.culprits, culprits, "{what}: {abort:?}"),
        other => panic!("{what}: expected a failed run, got {other:?}"),
    }
}

/// How many messages one keygen party sends to another: per curve two commitments, the echo, shares and the proof.
const KEYGEN_MESSAGES: usize = 10;

#[test]
fn a_message_of_another_run_is_blamed_on_its_sender_or_on_nobody() {
    let mut other = Vec::new();
    pump(keygen_parties(3, 2, 20), |envelope| {
        other.push(envelope.clone());
        vec![envelope]
    });
    for number in 0..KEYGEN_MESSAGES {
        let substitute = other.iter().find(|e| e.from == 1 && e.to == 0 && e.number == number).expect("sent").clone();
        let end = with_change(keygen_parties(3, 2, 21), number, |_| vec![substitute.clone()]);
        match end {
            Some(Err(abort)) => {
                assert!(abort.culprits.is_empty() || abort.culprits == [1], "message {number}: {abort:?}");
                // Only the first round and its echo can differ without anybody being provably at fault.
                if abort.culprits.is_empty() {
                    assert!(abort.reason.contains("reliable"), "message {number}: {abort:?}");
                }
            }
            other => panic!("message {number}: expected a failed run, got {other:?}"),
        }
    }
}

#[test]
fn undecodable_oversized_and_misplaced_messages_are_blamed_on_their_sender() {
    for number in 0..KEYGEN_MESSAGES {
        let changes: [EnvelopeChange; 6] = [
            ("empty", |e| e.bytes.clear()),
            ("garbage", |e| e.bytes[1] = 0xff),
            ("a third curve", |e| e.bytes[0] = 2),
            ("trailing bytes", |e| e.bytes.push(0)),
            ("too long", |e| e.bytes.resize(100_000, 0)),
            ("the wrong kind", |e| e.broadcast = !e.broadcast),
        ];
        for (what, change) in changes {
            let end = with_change(keygen_parties(3, 2, 22), number, |envelope| {
                change(envelope);
                vec![envelope.clone()]
            });
            expect_blame(end, &[1], &format!("{what}, message {number}"));
        }
    }
}

#[test]
fn repetitions_are_harmless_and_two_different_messages_are_equivocation() {
    for number in 0..KEYGEN_MESSAGES - 2 {
        let end = with_change(keygen_parties(3, 2, 23), number, |envelope| vec![envelope.clone(), envelope.clone()]);
        assert!(matches!(end, Some(Ok(Outcome::Keys(_)))), "message {number} twice: {end:?}");
    }
    let mut other = Vec::new();
    pump(keygen_parties(3, 2, 24), |envelope| {
        other.push(envelope.clone());
        vec![envelope]
    });
    for number in 0..KEYGEN_MESSAGES - 2 {
        let second = other.iter().find(|e| e.from == 1 && e.to == 0 && e.number == number).expect("sent").clone();
        let end = with_change(keygen_parties(3, 2, 23), number, |e| vec![e.clone(), second.clone()]);
        expect_blame(end, &[1], &format!("two messages in place of message {number}"));
    }
}

#[test]
fn a_wrong_partial_signature_is_blamed_on_its_sender() {
    let shares = keys(5, 3, 3, Curve::Ed25519);
    // Message 1 is the partial signature; its scalar follows the variant's number.
    let end = with_change(frost_parties(&shares, &[4, 1, 3], b"m", 30), 1, |envelope| {
        let mut other = Vec::new();
        pump(frost_parties(&shares, &[4, 1, 3], b"m", 31), |e| {
            other.push(e.clone());
            vec![e]
        });
        let foreign = other.iter().find(|e| e.from == 1 && e.to == 0 && e.number == 1).expect("sent");
        // The foreign partial signature, under this run's echo.
        let echo_at = envelope.bytes.len() - 32;
        let mut bytes = foreign.bytes[..echo_at].to_vec();
        bytes.extend_from_slice(&envelope.bytes[echo_at..]);
        vec![Envelope { bytes, ..envelope.clone() }]
    });
    expect_blame(end, &[1], "a foreign partial signature");
}

#[test]
fn telling_signers_different_nonce_commitments_frames_nobody() {
    let shares = keys(5, 3, 3, Curve::Ed25519);
    let mut other = Vec::new();
    pump(frost_parties(&shares, &[4, 1, 3], b"m", 33), |e| {
        other.push(e.clone());
        vec![e]
    });
    let foreign = other.iter().find(|e| e.from == 1 && e.number == 0).expect("sent").clone();
    // Party 1 tells party 2 other commitments than party 0: party 2's partial signature is then wrong for party 0.
    let ends = pump(frost_parties(&shares, &[4, 1, 3], b"m", 32), |envelope| {
        if envelope.from == 1 && envelope.to == 2 && envelope.number == 0 {
            vec![Envelope { bytes: foreign.bytes.clone(), ..envelope }]
        } else {
            vec![envelope]
        }
    });
    match &ends[0] {
        Some(Err(abort)) => assert!(abort.culprits.is_empty(), "{abort:?}"),
        other => panic!("expected a failed run, got {other:?}"),
    }
}

#[test]
fn impossible_numbers_are_refused_before_the_library_is_called() {
    let run = |index, parties| Run { execution_id: [1; 32], index, parties, seed: [2; 32] };
    for (index, parties, threshold) in [(0, 1, 1), (0, 0, 0), (3, 3, 2), (0, 3, 1), (0, 3, 4), (0, 33, 20)] {
        let refused = DistributedKeyGeneration.start(run(index, parties), threshold);
        assert!(refused.is_err(), "index {index} of {parties}, threshold {threshold}");
    }
    let shares = keys(3, 2, 2, Curve::Ed25519);
    let signing =
        |signers: Vec<u16>| Signing { key: shares[0].clone(), signers, message: vec![], auxiliary: Vec::new() };
    for (index, parties, signers) in [
        (0, 2, vec![0]),
        (0, 2, vec![1, 2]),
        (1, 2, vec![0, 1]),
        (0, 2, vec![0, 0]),
        (0, 2, vec![0, 9]),
        (0, 1, vec![0]),
    ] {
        assert!(Frost.start(run(index, parties), signing(signers.clone())).is_err(), "{signers:?}");
    }
}

#[test]
fn malformed_stored_shares_are_refused_with_a_reason() {
    for curve in Curve::ALL {
        let share = KeyShare::clone(&keys(3, 2, 2, curve)[0]);
        let zero_point = match curve {
            Curve::Secp256k1 => vec![0; 33],
            Curve::Ed25519 => {
                let mut identity = vec![0; 32];
                identity[0] = 1;
                identity
            }
        };
        let changes: Vec<Change> = vec![
            ("another secret", Box::new(|s| s.secret = Secret::new(vec![1; 32]))),
            ("a short secret", Box::new(|s| s.secret = Secret::new(vec![1; 31]))),
            ("a secret above the order", Box::new(|s| s.secret = Secret::new(vec![0xff; 32]))),
            ("a zero secret", Box::new(|s| s.secret = Secret::new(vec![0; 32]))),
            ("another position", Box::new(|s| s.index = 1)),
            ("a position outside", Box::new(|s| s.index = 3)),
            ("threshold 0", Box::new(|s| s.threshold = 0)),
            ("threshold 1", Box::new(|s| s.threshold = 1)),
            ("threshold above n", Box::new(|s| s.threshold = 4)),
            ("a higher threshold", Box::new(|s| s.threshold = 3)),
            ("swapped public shares", Box::new(|s| s.public_shares.swap(1, 2))),
            ("a missing public share", Box::new(|s| s.public_shares.truncate(1))),
            ("another public key", Box::new(|s| s.public_key = s.public_shares[1].clone())),
            ("a long public key", Box::new(|s| s.public_key.push(0))),
            ("the identity", Box::new(move |s| s.public_shares[2] = zero_point.clone())),
        ];
        for (what, change) in changes {
            let mut changed = share.clone();
            change(&mut changed);
            // A threshold that is only too high still fits all points on a polynomial of higher degree.
            if what != "a higher threshold" {
                let refused = changed.validate().expect_err(what);
                assert!(!refused.reason.is_empty());
            }
        }
    }
}

#[test]
fn debug_shows_no_secret() {
    for curve in Curve::ALL {
        let share = keys(3, 2, 2, curve)[0].clone();
        let debug = format!("{share:?}");
        assert!(debug.contains("Secret(..)"));
        assert!(!debug.contains(&format!("{:?}", share.secret.expose())));
    }
    // Messages may be shares for one party alone, and a run's seed is what its nonces come from.
    for mut party in keygen_parties(3, 2, 2) {
        let step = party.advance(Vec::new());
        let content = format!("{:?}", step.messages[0].bytes);
        assert!(!format!("{step:?}").contains(&content[1..20]), "{step:?}");
        let incoming = Incoming { from: 1, broadcast: true, bytes: step.messages[0].bytes.clone() };
        assert!(!format!("{incoming:?}").contains(&content[1..20]), "{incoming:?}");
    }
    let run = Run { execution_id: [1; 32], index: 0, parties: 2, seed: [213; 32] };
    let debug = format!("{run:?}");
    assert!(!debug.contains("213") && !debug.contains("d5d5"), "{debug}");
}
