//! Asking for a wallet: who may, what is answered, and when a wallet is said not to exist.

use ed25519_dalek::SigningKey;
use mpcium_client::{
    attest::Attesters,
    query::{WalletQuery, WalletReply},
    result::ResultType,
};
use mpcium_core::{
    Duration, NodeId,
    store::Keyspace,
    wallet::{AcceptorRecord, record::Stored as _},
};

use crate::world::{World, code, keygen, query};

fn reply(world: &mut World, node: usize, query: &WalletQuery) -> WalletReply {
    let document = world.query(node, query);
    WalletReply::from_json(document.to_string().as_bytes()).expect("a reply")
}

fn attesters() -> Attesters {
    let keys =
        (1..=3).map(|n| (NodeId::from_bytes([n; 16]).to_string(), SigningKey::from_bytes(&[n; 32]).verifying_key()));
    Attesters::new(keys, 2).expect("possible")
}

#[test]
fn every_node_tells_of_a_wallet_what_its_creation_told_signed_by_itself_and_by_the_members() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    let made = world.result("w", None);
    world.run_for(Duration::from_secs(2));
    for node in 0..3 {
        let document = world.query(node, &query("w"));
        assert_eq!(document["ecdsa_pub_key"], made["ecdsa_pub_key"]);
        assert_eq!(document["eddsa_pub_key"], made["eddsa_pub_key"]);
        let mut reply = WalletReply::from_json(document.to_string().as_bytes()).expect("a reply");
        assert_eq!((reply.threshold, reply.epoch, reply.committee.len()), (2, 0, 3));
        assert_eq!(reply.check(&attesters()), Ok(()));
        reply.eddsa_pub_key = Some(vec![9; 32]);
        assert!(reply.check(&attesters()).is_err(), "another key is noticed");
    }
}

#[test]
fn a_wallet_is_said_not_to_exist_only_when_enough_nodes_agree() {
    let mut world = World::new(3, 2);
    world.run_for(Duration::from_secs(2));
    let answer = reply(&mut world, 0, &query("nobody"));
    assert_eq!((answer.result_type, answer.error_code.as_str()), (ResultType::Error, "ERROR_KEY_NOT_FOUND"));
    assert_eq!(answer.check(&attesters()), Ok(()), "signed by the node that says so");
    world.kill(1);
    world.kill(2);
    world.run_for(Duration::from_secs(5));
    let alone = reply(&mut world, 0, &query("nobody else"));
    assert_eq!(alone.error_code, "ERROR_CLUSTER_NOT_READY");
    assert!(alone.error_reason.contains("node1"), "{}", alone.error_reason);
}

/// Makes a wallet for which one node has voted, without hearing any more that it exists.
fn make_unheard(world: &mut World, node: usize) {
    let voted = |world: &mut World| {
        let record = world.disk(node).iter().find(|((keyspace, _), _)| *keyspace == Keyspace::Decisions);
        record.is_some_and(|(_, value)| {
            AcceptorRecord::decode(value.expose()).expect("a record").acceptor.voted().is_some()
        })
    };
    world.request_to(0, &keygen("w"));
    assert!(world.run_until(Duration::from_secs(5), voted));
    world.cut.extend([(0, node), (1, node)]);
    assert_eq!(code(&world.result("w", None)), "");
    assert!(!world.disk(node).keys().any(|(keyspace, _)| *keyspace == Keyspace::Certificates));
}

#[test]
fn a_wallet_that_was_made_since_the_last_question_is_not_denied() {
    let mut world = World::new(3, 2);
    world.run_for(Duration::from_secs(2));
    assert_eq!(reply(&mut world, 2, &query("w")).error_code, "ERROR_KEY_NOT_FOUND");
    make_unheard(&mut world, 2);
    assert_eq!(reply(&mut world, 2, &query("w")).error_code, "ERROR_CLUSTER_NOT_READY");
    world.cut.clear();
    assert!(world.run_until(Duration::from_secs(20), |world| {
        reply(world, 2, &query("w")).result_type == ResultType::Success
    }));
}

#[test]
fn a_node_that_has_prepared_a_wallet_does_not_count_itself_among_those_that_do_not_know_it() {
    // Where all have to sign, one that does not know a wallet is enough.
    let mut world = World::new(3, 3);
    world.run_for(Duration::from_secs(2));
    assert_eq!(reply(&mut world, 2, &query("nobody")).error_code, "ERROR_KEY_NOT_FOUND");
    make_unheard(&mut world, 2);
    assert_eq!(reply(&mut world, 2, &query("w")).error_code, "ERROR_CLUSTER_NOT_READY");
}

#[test]
fn only_the_initiator_may_ask_and_not_with_an_old_query() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    type Change = fn(&mut WalletQuery);
    let changes: [(Change, &str); 4] = [
        (|q| q.signature = None, "ERROR_INVALID_INITIATOR_SIGNATURE"),
        (|q| q.wallet_id.push('x'), "ERROR_INVALID_INITIATOR_SIGNATURE"),
        (|q| q.expires_at += 1, "ERROR_INVALID_INITIATOR_SIGNATURE"),
        (|q| q.request_id.clear(), "ERROR_MSG_VALIDATION"),
    ];
    for (change, code) in changes {
        let mut changed = query("w");
        change(&mut changed);
        assert_eq!(reply(&mut world, 0, &changed).error_code, code);
    }
    world.run_for(Duration::from_secs(3700));
    assert_eq!(reply(&mut world, 0, &query("w")).error_code, "ERROR_SESSION_STALE");
}

#[test]
fn a_flood_is_told_to_ask_later_and_a_second_later_all_is_well() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    world.run_for(Duration::from_secs(2));
    let codes: Vec<String> = (0..150).map(|_| reply(&mut world, 0, &query("w")).error_code).collect();
    assert!(codes.iter().any(|code| code == "ERROR_RESOURCE_EXHAUSTED"));
    assert!(codes.iter().filter(|code| code.is_empty()).count() >= 100);
    world.run_for(Duration::from_secs(2));
    assert_eq!(reply(&mut world, 0, &query("w")).error_code, "");
}
