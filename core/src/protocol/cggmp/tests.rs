//! What the guards around the library refuse, and whom they name. Each test changes messages between honest parties.

#[path = "../../../tests/common_protocol/toy.rs"]
mod toy;

use std::sync::{Arc, OnceLock};

use cggmp24::signing::msg::Msg as SigningMessage;
use generic_ec::curves::Secp256k1;
use sha2::Sha256;

use mpcium_client::MessageHash;

use self::toy::Toy;
use super::auxiliary::Wire;
use super::ring_pedersen::tests::proof_with_zero_challenge;
use super::ring_pedersen::{self, Parameters, Statement};
use super::{Cggmp, primes};
use crate::Secret;
use crate::protocol::testing::common_protocol::{End, Envelope, pump, pump_honestly, runs};
use crate::protocol::{
    AuxiliarySet, AuxiliarySuite, AuxiliaryView, Curve, DistributedKeyGeneration, KeyGeneration, KeyShare, Outcome,
    Party, Preimage, Presignature, Presigning, PresigningSuite, Signing, SigningSuite,
};

/// What is changed, and how.
type Change = (&'static str, fn(&mut Envelope));

type Message = SigningMessage<Secp256k1, Sha256>;

fn suite() -> Cggmp<Toy> {
    Cggmp::new()
}

fn ingredients() -> &'static [Vec<Secret>] {
    static MADE: OnceLock<Vec<Vec<Secret>>> = OnceLock::new();
    MADE.get_or_init(|| {
        (0..3u8)
            .map(|member| (0..4u8).map(|piece| primes::make_piece::<Toy>([16 * member + piece + 1; 32])).collect())
            .collect()
    })
}

fn auxiliary_parties(occasion: u8) -> Vec<Box<dyn Party>> {
    runs(3, occasion)
        .into_iter()
        .zip(ingredients())
        .map(|(run, ingredient)| AuxiliarySuite::start(&suite(), run, ingredient.clone()).expect("fits"))
        .collect()
}

fn sets() -> &'static [AuxiliarySet] {
    static MADE: OnceLock<Vec<AuxiliarySet>> = OnceLock::new();
    MADE.get_or_init(|| {
        pump_honestly(auxiliary_parties(1))
            .into_iter()
            .map(|outcome| {
                let Outcome::Auxiliary(set) = outcome else { panic!("no auxiliary set") };
                set
            })
            .collect()
    })
}

fn shares() -> &'static [Arc<KeyShare>] {
    static MADE: OnceLock<Vec<Arc<KeyShare>>> = OnceLock::new();
    MADE.get_or_init(|| {
        let parties = runs(3, 2).into_iter().map(|run| DistributedKeyGeneration.start(run, 2).expect("fits")).collect();
        pump_honestly(parties)
            .into_iter()
            .map(|outcome| {
                let Outcome::Keys(shares) = outcome else { panic!("no keys") };
                Arc::new(shares.into_iter().find(|share| share.curve == Curve::Secp256k1).expect("both curves"))
            })
            .collect()
    })
}

/// Members 0 and 2 sign.
const SIGNERS: [u16; 2] = [0, 2];

fn view(signer: u16) -> AuxiliaryView {
    let set = &sets()[usize::from(signer)];
    AuxiliaryView {
        secret: set.secret.clone(),
        rows: SIGNERS.iter().map(|signer| set.rows[usize::from(*signer)].clone()).collect(),
        opened: None,
    }
}

fn signing_parties(occasion: u8) -> Vec<Box<dyn Party>> {
    runs(2, occasion)
        .into_iter()
        .zip(SIGNERS)
        .map(|(run, signer)| {
            let signing = Signing {
                key: shares()[usize::from(signer)].clone(),
                signers: SIGNERS.to_vec(),
                message: vec![7; 32],
                auxiliary: vec![view(signer)],
            };
            SigningSuite::start(&suite(), run, signing).expect("fits")
        })
        .collect()
}

fn presigning_parties(occasion: u8) -> Vec<Box<dyn Party>> {
    runs(2, occasion)
        .into_iter()
        .zip(SIGNERS)
        .map(|(run, signer)| {
            let key = shares()[usize::from(signer)].clone();
            let presigning = Presigning { key, signers: SIGNERS.to_vec(), auxiliary: vec![view(signer)] };
            PresigningSuite::start(&suite(), run, presigning).expect("fits")
        })
        .collect()
}

fn presignatures(occasion: u8) -> Vec<Box<dyn Presignature>> {
    pump_honestly(presigning_parties(occasion))
        .into_iter()
        .map(|outcome| {
            let Outcome::Presignature(presignature) = outcome else { panic!("no presignature") };
            presignature
        })
        .collect()
}

fn preimage(hash: MessageHash) -> Preimage {
    Preimage { hash, message: b"pay 1 to Alice".to_vec() }
}

fn presigned_parties(occasion: u8, preimages: [&Preimage; 2]) -> Vec<Box<dyn Party>> {
    presignatures(occasion)
        .into_iter()
        .zip(runs(2, occasion + 1))
        .zip(preimages)
        .map(|((presignature, run), preimage)| presignature.sign(run, preimage).expect("fits"))
        .collect()
}

/// Runs with the messages from party 1 to party 0 changed, and gives back how party 0 ended.
fn meddled(parties: Vec<Box<dyn Party>>, mut meddle: impl FnMut(Envelope) -> Vec<Envelope>) -> End {
    pump(parties, |envelope| if (envelope.from, envelope.to) == (1, 0) { meddle(envelope) } else { vec![envelope] })
        .remove(0)
}

fn change_message(envelope: Envelope, change: impl FnOnce(&mut Message)) -> Vec<Envelope> {
    let mut message: Message = postcard::from_bytes(&envelope.bytes).expect("honest");
    change(&mut message);
    vec![Envelope { bytes: postcard::to_allocvec(&message).expect("encodes"), ..envelope }]
}

fn expect_blame(end: End, culprits: &[u16], words: &str) {
    match end {
        Some(Err(abort)) => {
            assert_eq!(abort.culprits, culprits, "{abort:?}");
            assert!(abort.reason.contains(words), "expected {words:?} in {abort:?}");
        }
        other => panic!("expected a failed run ({words}), got {other:?}"),
    }
}

#[test]
fn one_bad_range_proof_of_two_is_refused_and_blamed() {
    // Without the guard the library accepts both of these: it wants one good proof of the two.
    let bad_k = meddled(signing_parties(10), |envelope| {
        change_message(envelope, |message| {
            if let SigningMessage::Round1b(proofs) = message {
                proofs.psi0 = proofs.psi1.clone();
            }
        })
    });
    expect_blame(bad_k, &[1], "nonce share k");
    let bad_gamma = meddled(signing_parties(10), |envelope| {
        change_message(envelope, |message| {
            if let SigningMessage::Round1b(proofs) = message {
                proofs.psi1 = proofs.psi0.clone();
            }
        })
    });
    expect_blame(bad_gamma, &[1], "nonce share γ");
}

#[test]
fn range_proofs_that_overtake_their_ciphertexts_are_held_back_and_still_checked() {
    let swap = |bad: bool| {
        let mut first = None;
        meddled(signing_parties(11), move |envelope| match envelope.number {
            0 => {
                first = Some(envelope);
                Vec::new()
            }
            1 => {
                let proofs = change_message(envelope, |message| {
                    if let (true, SigningMessage::Round1b(proofs)) = (bad, message) {
                        proofs.psi0 = proofs.psi1.clone();
                    }
                });
                proofs.into_iter().chain(first.take()).collect()
            }
            _ => vec![envelope],
        })
    };
    assert!(matches!(swap(false), Some(Ok(Outcome::Signature(_)))));
    expect_blame(swap(true), &[1], "nonce share k");
}

#[test]
fn a_wrong_partial_signature_is_blamed_on_its_sender() {
    let end = meddled(signing_parties(12), |envelope| {
        change_message(envelope, |message| {
            if let SigningMessage::Round4(last) = message {
                last.partial_sig.sigma += generic_ec::Scalar::one();
            }
        })
    });
    expect_blame(end, &[1], "signature");
}

#[test]
fn a_signing_message_of_another_run_is_blamed_on_its_sender_or_on_nobody() {
    let mut other = Vec::new();
    pump(signing_parties(13), |envelope| {
        other.push(envelope.clone());
        vec![envelope]
    });
    let sent = other.iter().filter(|e| (e.from, e.to) == (1, 0)).count();
    assert_eq!(sent, 6, "round 1a, 1b, the echo, rounds 2, 3 and 4");
    for number in 0..sent {
        let end = meddled(signing_parties(14), |envelope| {
            let substitute = other.iter().find(|e| (e.from, e.to) == (1, 0) && e.number == number).expect("sent");
            vec![if envelope.number == number { substitute.clone() } else { envelope }]
        });
        match end {
            Some(Err(abort)) => {
                let words = ["reliab", "different broadcast", "echo"];
                let echo = words.iter().any(|word| abort.reason.contains(word));
                assert!(abort.culprits == [1] || (abort.culprits.is_empty() && echo), "message {number}: {abort:?}");
            }
            other => panic!("message {number}: expected a failed run, got {other:?}"),
        }
    }
}

#[test]
fn undecodable_signing_messages_are_blamed_on_their_sender() {
    let changes: [Change; 5] = [
        ("empty", |e| e.bytes.clear()),
        ("no such round", |e| e.bytes[0] = 77),
        ("trailing bytes", |e| e.bytes.push(0)),
        ("too long", |e| e.bytes.resize(1_000_000, 0)),
        ("the wrong kind", |e| e.broadcast = !e.broadcast),
    ];
    for number in 0..6 {
        for (what, change) in changes {
            let end = meddled(signing_parties(15), |mut envelope| {
                if envelope.number == number {
                    change(&mut envelope);
                }
                vec![envelope]
            });
            match end {
                Some(Err(abort)) => assert_eq!(abort.culprits, [1], "{what}, message {number}: {abort:?}"),
                other => panic!("{what}, message {number}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_number_in_an_impossible_radix_is_blamed_and_does_not_take_the_node_down() {
    // The library's integers travel with their radix, and its parser panics on one that it does not know. The first
    // number of round 1a follows the round's number: radix 16, then digits.
    let end = meddled(signing_parties(16), |mut envelope| {
        if envelope.number == 0 {
            assert_eq!(envelope.bytes[..2], [0, 16]);
            envelope.bytes[1] = 1;
        }
        vec![envelope]
    });
    expect_blame(end, &[1], "decoded");
}

#[test]
fn repeated_signing_messages_are_harmless_and_different_ones_are_equivocation() {
    let mut other = Vec::new();
    pump(signing_parties(18), |envelope| {
        other.push(envelope.clone());
        vec![envelope]
    });
    for number in 0..6 {
        let twice = meddled(signing_parties(17), |envelope| {
            if envelope.number == number { vec![envelope.clone(), envelope] } else { vec![envelope] }
        });
        assert!(matches!(twice, Some(Ok(Outcome::Signature(_)))), "message {number} twice: {twice:?}");
    }
    // After the last message the run is over and nothing more is read.
    for number in 0..5 {
        let two = meddled(signing_parties(17), |envelope| {
            let second = other.iter().find(|e| (e.from, e.to) == (1, 0) && e.number == number).expect("sent");
            if envelope.number == number { vec![envelope, second.clone()] } else { vec![envelope] }
        });
        match two {
            Some(Err(abort)) => assert_eq!(abort.culprits, [1], "message {number}: {abort:?}"),
            other => panic!("two in place of message {number}: {other:?}"),
        }
    }
}

fn change_wire(envelope: Envelope, change: impl FnOnce(&mut Wire<Toy>)) -> Vec<Envelope> {
    let mut wire: Wire<Toy> = postcard::from_bytes(&envelope.bytes).expect("honest");
    change(&mut wire);
    vec![Envelope { bytes: postcard::to_allocvec(&wire).expect("encodes"), ..envelope }]
}

#[test]
fn bad_ring_pedersen_proofs_are_refused_and_blamed() {
    use cggmp24::key_refresh::Msg;

    let meddle = |change: &dyn Fn(&mut Wire<Toy>)| {
        meddled(auxiliary_parties(20), |envelope| {
            change_wire(envelope, |wire| {
                if matches!(wire.message, Msg::Round2(_)) {
                    change(wire);
                }
            })
        })
    };
    expect_blame(meddle(&|wire| wire.proof = None), &[1], "without a proof");
    // Right wherever the challenge bit is zero, as the library's own proof is in 96 places.
    let zeros = meddle(&|wire| {
        let Msg::Round2(announced) = &wire.message else { return };
        let parameters =
            Parameters { modulus: announced.hat_N.clone(), s: announced.s.clone(), t: announced.t.clone() };
        wire.proof = wire.proof.take().map(|proof| proof_with_zero_challenge(&proof, &parameters));
    });
    expect_blame(zeros, &[1], "equation");
    // Made by somebody who knows the factors, but for another exponent.
    let [_, _, p, q] = primes::read_ingredient::<Toy>(&ingredients()[1]).expect("an ingredient");
    let wrong_exponent = meddle(&|wire| {
        let Msg::Round2(announced) = &wire.message else { return };
        let parameters =
            Parameters { modulus: announced.hat_N.clone(), s: announced.s.clone(), t: announced.t.clone() };
        let mut rng = <rand_chacha::ChaCha20Rng as rand_core::SeedableRng>::from_seed([9; 32]);
        let (_, witness) = ring_pedersen::draw_as_the_library(&mut rng, &p, &q).expect("primes");
        let statement = Statement { execution_id: &[20; 32], prover: 1, parameters: &parameters };
        wire.proof = ring_pedersen::prove(&statement, &witness, &mut rng);
    });
    expect_blame(wrong_exponent, &[1], "equation");
}

#[test]
fn a_ring_pedersen_proof_of_another_run_or_a_misplaced_one_is_blamed() {
    use cggmp24::key_refresh::Msg;

    let mut foreign = None;
    pump(auxiliary_parties(21), |envelope| {
        let wire: Wire<Toy> = postcard::from_bytes(&envelope.bytes).expect("honest");
        if envelope.from == 1 && wire.proof.is_some() {
            foreign = wire.proof;
        }
        vec![envelope]
    });
    let foreign = foreign.expect("sent");
    let replayed = meddled(auxiliary_parties(22), |envelope| {
        change_wire(envelope, |wire| {
            if matches!(wire.message, Msg::Round2(_)) {
                wire.proof = Some(foreign.clone());
            }
        })
    });
    expect_blame(replayed, &[1], "refused");
    let misplaced = meddled(auxiliary_parties(22), |envelope| {
        change_wire(envelope, |wire| {
            if matches!(wire.message, Msg::Round1(_)) {
                wire.proof = Some(foreign.clone());
            }
        })
    });
    expect_blame(misplaced, &[1], "none");
}

#[test]
fn an_auxiliary_message_of_another_run_is_blamed_on_its_sender_or_on_nobody() {
    let mut other = Vec::new();
    pump(auxiliary_parties(23), |envelope| {
        other.push(envelope.clone());
        vec![envelope]
    });
    for number in 0..4 {
        let end = meddled(auxiliary_parties(24), |envelope| {
            let substitute = other.iter().find(|e| (e.from, e.to) == (1, 0) && e.number == number).expect("sent");
            vec![if envelope.number == number { substitute.clone() } else { envelope }]
        });
        match end {
            Some(Err(abort)) => {
                let echo = abort.reason.contains("not reliable");
                assert!(abort.culprits == [1] || (abort.culprits.is_empty() && echo), "message {number}: {abort:?}");
            }
            other => panic!("message {number}: expected a failed run, got {other:?}"),
        }
    }
}

#[test]
fn a_presignature_signs_a_message_in_one_round_and_the_signature_is_an_ordinary_one() {
    for (occasion, hash) in (60u8..).step_by(2).zip(MessageHash::ALL) {
        let preimage = preimage(hash);
        let mut sent = 0;
        let ends = pump(presigned_parties(occasion, [&preimage; 2]), |envelope| {
            sent += 1;
            vec![envelope]
        });
        assert_eq!(sent, 2, "each party says one thing to the other");
        for end in ends {
            let Some(Ok(Outcome::Signature(signature))) = end else { panic!("no signature: {end:?}") };
            let (key, digest) = (&shares()[0].public_key, preimage.digest());
            assert!(suite().verify(key, &digest, &signature));
            let verifying = k256::ecdsa::VerifyingKey::from_sec1_bytes(key).expect("a key");
            let recovery = k256::ecdsa::RecoveryId::from_byte(signature[64]).expect("0 to 3");
            let plain = k256::ecdsa::Signature::from_slice(&signature[..64]).expect("r and s");
            assert_eq!(
                k256::ecdsa::VerifyingKey::recover_from_prehash(&digest, &plain, recovery).ok(),
                Some(verifying)
            );
        }
    }
}

#[test]
fn a_partial_signature_over_another_message_or_of_another_presignature_is_blamed() {
    let (ours, theirs) = (preimage(MessageHash::Keccak256), preimage(MessageHash::Sha256));
    for (at, end) in (0u16..).zip(pump(presigned_parties(70, [&ours, &theirs]), |envelope| vec![envelope])) {
        expect_blame(end, &[1 - at], "its partial signature");
    }
    let mut mixed = presigned_parties(72, [&ours; 2]);
    mixed[1] = presigned_parties(74, [&ours; 2]).remove(1);
    for (at, end) in (0u16..).zip(pump(mixed, |envelope| vec![envelope])) {
        expect_blame(end, &[1 - at], "its partial signature");
    }
}

#[test]
fn malformed_partial_signatures_are_blamed_and_repeated_ones_ignored() {
    let ours = preimage(MessageHash::Sha256d);
    let changes: [Change; 4] = [
        ("cannot be decoded", |envelope| envelope.bytes.truncate(5)),
        ("after the end", |envelope| envelope.bytes.push(0)),
        ("at most 256 allowed", |envelope| envelope.bytes = vec![0; 257]),
        ("sent as Direct", |envelope| envelope.broadcast = false),
    ];
    for (words, change) in changes {
        let end = meddled(presigned_parties(76, [&ours; 2]), |mut envelope| {
            change(&mut envelope);
            vec![envelope]
        });
        expect_blame(end, &[1], words);
    }
    let twice = meddled(presigned_parties(78, [&ours; 2]), |envelope| vec![envelope.clone(), envelope]);
    assert!(matches!(twice, Some(Ok(Outcome::Signature(_)))), "{twice:?}");
}

#[test]
fn a_presignature_signs_only_in_its_own_place() {
    let ours = preimage(MessageHash::Sha256);
    for (run, words) in [(runs(2, 81).remove(1), "party 0 of 2"), (runs(3, 81).remove(0), "party 0 of 2")] {
        let refused = presignatures(80).remove(0).sign(run, &ours).map(drop).expect_err("does not fit");
        assert!(refused.reason.contains(words), "{refused:?}");
    }
}

#[test]
fn a_run_that_makes_a_presignature_has_the_same_guards_and_no_fourth_round() {
    let bad = meddled(presigning_parties(82), |envelope| {
        change_message(envelope, |message| {
            if let SigningMessage::Round1b(proofs) = message {
                proofs.psi1 = proofs.psi0.clone();
            }
        })
    });
    expect_blame(bad, &[1], "nonce share γ");
    let early = meddled(presigning_parties(82), |envelope| {
        change_message(envelope, |message| {
            if let SigningMessage::Round3(round) = message {
                let partial_sig = cggmp24::signing::PartialSignature { sigma: round.delta };
                *message = SigningMessage::Round4(cggmp24::signing::msg::MsgRound4 { partial_sig });
            }
        })
    });
    expect_blame(early, &[1], "where a presignature is made");
    // Nor is what one kind of run says of any use in the other: they are bound to different occasions.
    let mut mixed = presigning_parties(83);
    mixed[1] = signing_parties(83).remove(1);
    assert!(pump(mixed, |envelope| vec![envelope]).into_iter().all(|end| matches!(end, Some(Err(_)))));
}
