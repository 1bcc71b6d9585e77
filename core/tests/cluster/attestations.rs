//! Answers carry the signatures of the nodes that give them, the same ones whoever answers.

use ed25519_dalek::SigningKey;
use mpcium_client::{
    KeygenResult, SigningResult,
    attest::{Attested, Attesters},
};
use mpcium_core::{Duration, NodeId, store::Keyspace};

use crate::world::{World, keygen, sign};

fn attesters(nodes: u8, demanded: usize) -> Attesters {
    let keys = (1..=nodes)
        .map(|n| (NodeId::from_bytes([n; 16]).to_string(), SigningKey::from_bytes(&[n; 32]).verifying_key()));
    Attesters::new(keys, demanded).expect("possible")
}

fn signing(document: &serde_json::Value) -> SigningResult {
    SigningResult::from_json(document.to_string().as_bytes()).expect("a result")
}

#[test]
fn a_wallet_is_attested_by_all_members_and_a_signature_by_its_signers() {
    for (nodes, threshold, ecdsa) in [(3, 2, true), (4, 3, false)] {
        let mut world = World::new(nodes, threshold);
        world.request(&keygen("w"));
        let document = world.result("w", None);
        let wallet = KeygenResult::from_json(document.to_string().as_bytes()).expect("a result");
        assert_eq!(attesters(nodes, usize::from(nodes)).check(&wallet), Ok(()));
        for (key_type, wanted) in [("ed25519", true), ("secp256k1", ecdsa)] {
            if wanted {
                world.request(&sign("w", key_type, key_type, &[0x5a; 32], &[]));
                let result = signing(&world.result("w", Some(key_type)));
                assert_eq!(attesters(nodes, usize::from(threshold)).check(&result), Ok(()), "{key_type}");
                assert_eq!(result.attestations().len(), usize::from(threshold));
            }
        }
    }
}

#[test]
fn an_error_that_depends_on_the_world_is_attested_by_whoever_gave_it_and_one_of_the_document_by_nobody() {
    let mut world = World::new(3, 2);
    world.request(&sign("nobody", "ed25519", "t", b"m", &[]));
    let result = signing(&world.result("nobody", Some("t")));
    assert_eq!(result.attestations().len(), 1);
    assert_eq!(attesters(3, 2).check(&result), Ok(()));
    let mut request = sign("w", "ed25519", "t", b"m", &[]);
    request.set_signature(vec![1; 64]);
    world.request(&request);
    assert!(signing(&world.result("w", Some("t"))).attestations().is_empty());
}

/// The world itself fails if two documents are published for one delivery.
#[test]
fn whoever_answers_again_attaches_the_same_attestations() {
    let mut world = World::new(4, 3);
    world.request(&keygen("w"));
    let wallet = world.result("w", None);
    world.request(&sign("w", "ed25519", "t", b"m", &[]));
    let first = world.result("w", Some("t"));
    for dead in 0..4 {
        world.kill(dead);
        world.results.clear();
        world.request(&keygen("w"));
        world.request(&sign("w", "ed25519", "t", b"m", &[]));
        assert_eq!(world.result("w", None), wallet);
        assert_eq!(world.result("w", Some("t")), first);
        world.start(dead);
        world.run_for(Duration::from_secs(5));
    }
}

#[test]
fn a_signer_that_dies_before_it_attested_stops_nobody() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    for micros in (2_000..9_000).step_by(350) {
        let tx = format!("t{micros}");
        world.request(&sign("w", "ed25519", &tx, b"m", &[]));
        world.run_for(Duration::from_micros(micros));
        let dead = (0..3).find(|i| world.node(*i).coordinated() == 0).expect("two do not coordinate");
        world.kill(dead);
        let result = signing(&world.result("w", Some(&tx)));
        assert_eq!(attesters(3, 2).check(&result), Ok(()), "killed after {micros} µs: {}", result.error_reason);
        world.start(dead);
        world.run_for(Duration::from_secs(8));
    }
}

#[test]
fn results_are_durable_with_their_attestations() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    world.request(&sign("w", "ed25519", "t", b"m", &[]));
    let result = signing(&world.result("w", Some("t")));
    let mut holders = 0;
    for node in 0..3 {
        let ledger = world.disk(node).iter().filter(|((keyspace, _), _)| *keyspace == Keyspace::Ledger);
        holders += ledger
            .filter(|(_, record)| {
                result
                    .attestations()
                    .iter()
                    .all(|item| record.expose().windows(item.signature.len()).any(|window| window == item.signature))
            })
            .count();
    }
    assert_eq!(holders, 2);
}
