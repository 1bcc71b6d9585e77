//! A cluster that changes its ECDSA protocol: its wallets keep their keys, the other auxiliary data is made in the
//! background, and nodes that disagree say so when they meet.

use std::{collections::BTreeSet, sync::Arc};

use k256::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier as _};
use mpcium_client::{
    derive::derive_secp256k1,
    result::{KeygenResult, SigningResult},
};
use mpcium_core::{
    Duration,
    protocol::{Cggmp, DistributedKeyGeneration, Dkls, Frost, SigningSuite, Suites},
    report::Report,
    store::Keyspace,
};

use crate::world::{CHAIN_CODE, Toy, World, keygen, sign};

const DIGEST: [u8; 32] = [0x5a; 32];

fn suites(secp256k1: Arc<dyn SigningSuite>) -> Suites {
    Suites { keygen: Arc::new(DistributedKeyGeneration), secp256k1, ed25519: Arc::new(Frost) }
}

fn cggmp24() -> Suites {
    suites(Arc::new(Cggmp::<Toy>::new()))
}

fn dkls23() -> Suites {
    suites(Arc::new(Dkls))
}

/// Stops all nodes, and starts them with these suites.
fn restart_with(world: &mut World, suites: &Suites) {
    (0..3).for_each(|i| world.kill(i));
    (0..3).for_each(|i| world.change_suites(i, suites.clone()));
    (0..3).for_each(|i| world.start(i));
}

/// The wallet's key on secp256k1, compressed.
fn key_of(world: &mut World, wallet: &str) -> [u8; 33] {
    let made = KeygenResult::from_json(world.result(wallet, None).to_string().as_bytes()).expect("a result");
    let point = made.ecdsa_pub_key.expect("a key");
    let key = VerifyingKey::from_sec1_bytes(&[&[4], point.as_slice()].concat()).expect("a point");
    key.to_sec1_point(true).as_bytes().try_into().expect("33 bytes")
}

/// Asks for signatures of the wallet and of a child of it, and verifies them.
fn assert_sign(world: &mut World, key: &[u8; 33], name: &str) {
    for path in [&[][..], &[7, 8]] {
        let tx = format!("{name} {}", path.len());
        world.request(&sign("w", "secp256k1", &tx, &DIGEST, path));
        let result = SigningResult::from_json(world.result("w", Some(&tx)).to_string().as_bytes()).expect("a result");
        let child = derive_secp256k1(key, &CHAIN_CODE, path).expect("a child").public_key;
        let scalar = |bytes: Option<Vec<u8>>| <[u8; 32]>::try_from(bytes.expect("a number")).expect("32 bytes");
        let signature = Signature::from_scalars(scalar(result.r), scalar(result.s)).expect("a signature");
        let key = VerifyingKey::from_sec1_bytes(&child).expect("a point");
        key.verify_prehash(&DIGEST, &signature).unwrap_or_else(|error| panic!("{tx}: {error}"));
    }
}

/// How many runs that make auxiliary data began since the reports were last cleared.
fn auxiliary_runs(world: &World) -> usize {
    let begun = |(_, report): &&(usize, Report)| matches!(report, Report::SessionStarted { protocol, .. } if protocol == "auxiliary");
    world.reports.iter().filter(begun).count()
}

#[test]
fn wallets_keep_their_keys_when_the_cluster_changes_its_ecdsa_protocol_and_changes_back() {
    let mut world = World::with_suites(2, vec![cggmp24(); 3], |_| {});
    world.request(&keygen("w"));
    let key = key_of(&mut world, "w");
    assert_sign(&mut world, &key, "cggmp24");

    world.reports.clear();
    restart_with(&mut world, &dkls23());
    assert_sign(&mut world, &key, "dkls23");
    assert!(auxiliary_runs(&world) > 0, "the pairs' set-ups are made");
    // A wallet that was made in between is no different.
    world.request(&keygen("later"));
    assert_eq!(world.result("later", None)["error_code"], "");
    world.run_for(Duration::from_secs(60));

    world.reports.clear();
    restart_with(&mut world, &cggmp24());
    assert_sign(&mut world, &key, "cggmp24 again");
    assert_eq!(auxiliary_runs(&world), 0, "what was made before serves again");
    world.request(&sign("later", "secp256k1", "later", &DIGEST, &[]));
    assert_eq!(world.result("later", Some("later"))["error_code"], "");

    world.reports.clear();
    restart_with(&mut world, &dkls23());
    assert_sign(&mut world, &key, "dkls23 again");
    assert_eq!(auxiliary_runs(&world), 0, "what was made before serves again");
}

/// The names of a node's auxiliary records.
fn records(world: &mut World, i: usize) -> BTreeSet<Vec<u8>> {
    let names = world.disk(i).keys().filter(|(keyspace, _)| *keyspace == Keyspace::Auxiliary);
    names.map(|(_, name)| name.clone()).collect()
}

#[test]
fn a_node_whose_store_was_put_back_gives_up_the_pairs_set_ups_also_while_another_protocol_signs() {
    let mut world = World::with_suites(2, vec![dkls23(); 3], |_| {});
    world.request(&keygen("w"));
    let key = key_of(&mut world, "w");
    let pairs = |w: &World, i: usize| w.node(i).status(w.now()).auxiliary_sets.iter().filter(|set| set.agreed).count();
    let complete = |w: &mut World| (0..3).all(|i| pairs(w, i) == 2);
    assert!(world.run_until(Duration::from_secs(60), complete), "{:#?}", world.last_reports());
    let set_ups = records(&mut world, 1);

    restart_with(&mut world, &cggmp24());
    assert_sign(&mut world, &key, "cggmp24");
    assert!(records(&mut world, 1).is_superset(&set_ups));
    world.run_for(Duration::from_secs(5));
    let disk = world.disk(1).clone();
    (0..3).for_each(|number| assert_sign(&mut world, &key, &format!("later {number}")));
    world.run_for(Duration::from_secs(5));
    world.kill(1);
    world.disk(1).clone_from(&disk);
    world.start(1);
    let noticed = |w: &mut World| !w.node(1).status(w.now()).alarms.is_empty();
    assert!(world.run_until(Duration::from_secs(10), noticed), "{:#?}", world.last_reports());
    world.run_for(Duration::from_secs(1));
    assert!(records(&mut world, 1).is_disjoint(&set_ups));
    assert_ne!(records(&mut world, 1).len(), 0, "a committee's set has nothing to do with it");

    restart_with(&mut world, &dkls23());
    assert!(world.run_until(Duration::from_secs(120), complete), "{:#?}", world.last_reports());
    assert!(records(&mut world, 1).is_disjoint(&set_ups));
    assert_sign(&mut world, &key, "dkls23 again");
}

#[test]
fn a_node_with_another_ecdsa_protocol_is_named_at_the_first_contact_and_the_others_go_on() {
    let mut world = World::with_suites(2, vec![dkls23(); 3], |_| {});
    world.request(&keygen("w"));
    let key = key_of(&mut world, "w");
    assert_sign(&mut world, &key, "all");
    world.kill(2);
    world.reports.clear();
    world.change_suites(2, cggmp24());
    world.start(2);
    let named = |by: usize, whom: &str, reports: &[(usize, Report)]| {
        reports.iter().any(|(i, report)| match report {
            Report::LinkTrouble { what, alarm: true } => {
                *i == by && what.contains("ECDSA protocol") && what.contains(whom)
            }
            _ => false,
        })
    };
    let all =
        |w: &mut World| (0..2).all(|i| named(i, "node2", &w.reports) && named(2, &format!("node{i}"), &w.reports));
    assert!(world.run_until(Duration::from_secs(30), all), "{:#?}", world.last_reports());
    assert!(world.node(2).status(world.now()).peers.iter().all(|peer| !peer.up));
    assert_sign(&mut world, &key, "two");
}
