//! Presignatures in a cluster: who gets one, that they are used once, and that a restart leaves none.

use mpcium_client::{MessageHash, SignRequest, request::Request};
use mpcium_core::{Duration, report::Report, store::Keyspace};

use crate::world::{World, in_full, keygen, sign, signed};

const HOUR_MS: i64 = 3_600_000;
const PRESIGNED: &str = "sign secp256k1 presigned";

fn world() -> World {
    let mut world = World::with(3, 2, |config| config.presignatures = 1);
    world.request(&keygen("w"));
    assert_eq!(world.result("w", None)["error_code"], "");
    world
}

/// A request for a signature over a message that the nodes hash.
fn hashed(tx: &str, path: &[u32]) -> Request {
    let Request::Sign(request) = sign("w", "secp256k1", tx, b"", path) else { panic!("another kind") };
    let request: SignRequest = request.with_message(MessageHash::Sha256d, format!("pay {tx}"));
    signed(in_full(request.into(), HOUR_MS, None))
}

/// The queue gives it to node 0, which has the presignatures: others have their own.
fn succeed(world: &mut World, request: &Request) {
    world.request_to(0, request);
    let result = world.result("w", Some(request.request_id()));
    assert_eq!(result["error_code"], "", "{result}");
}

/// Runs of this protocol that ended well, over all nodes.
fn ended(world: &World, name: &str) -> usize {
    let well = |r: &Report| matches!(r, Report::SessionEnded { protocol, reason, .. } if protocol == name && reason.is_empty());
    world.reports.iter().filter(|(_, report)| well(report)).count()
}

/// Presignatures that a node holds.
fn held(world: &World, node: usize) -> usize {
    let tables = world.node(node).status(world.now()).tables;
    tables.into_iter().find(|table| table.name == "presignatures").expect("a table").entries
}

fn commits(world: &mut World, node: usize) -> Vec<u8> {
    let record = world.disk(node).get(&(Keyspace::Meta, b"commits".to_vec())).expect("a record").expose();
    // The version, then the number.
    record[1..].iter().rev().copied().collect()
}

fn until_made(world: &mut World, parts: usize) {
    let made = world.run_until(Duration::from_secs(300), |w| ended(w, "presign secp256k1") >= parts);
    assert!(made, "no presignature: {:#?}", world.last_reports());
}

#[test]
fn whoever_sends_messages_is_served_from_presignatures_after_the_first() {
    let mut world = world();
    succeed(&mut world, &hashed("first", &[]));
    assert_eq!(ended(&world, PRESIGNED), 0, "nobody had asked before");
    until_made(&mut world, 2);
    succeed(&mut world, &hashed("second", &[]));
    assert_eq!(ended(&world, PRESIGNED), 2, "both signers: {:#?}", world.last_reports());
    // Another is made for the one that is used up, and that one is never used again.
    until_made(&mut world, 4);
    succeed(&mut world, &hashed("third", &[]));
    assert_eq!(ended(&world, PRESIGNED), 4);
    // An answer that is asked for again costs none.
    world.results.clear();
    succeed(&mut world, &hashed("third", &[]));
    assert_eq!(ended(&world, PRESIGNED), 4);
}

#[test]
fn digests_and_child_keys_never_get_one() {
    let mut world = world();
    succeed(&mut world, &hashed("first", &[]));
    until_made(&mut world, 2);
    succeed(&mut world, &hashed("child", &[7]));
    succeed(&mut world, &in_full(sign("w", "secp256k1", "digest", &[7; 32], &[]), HOUR_MS, None));
    assert_eq!(ended(&world, PRESIGNED), 0);
    succeed(&mut world, &hashed("second", &[]));
    assert_eq!(ended(&world, PRESIGNED), 2);
}

#[test]
fn a_restart_of_a_signer_leaves_none_and_signing_goes_on() {
    for restarted in 0..3 {
        let mut world = world();
        succeed(&mut world, &hashed("first", &[]));
        until_made(&mut world, 2);
        let signed = world.reports.iter().any(|(node, report)| {
            *node == restarted
                && matches!(report, Report::SessionEnded { protocol, .. } if protocol.starts_with("presign"))
        });
        world.kill(restarted);
        world.start(restarted);
        world.run_until(Duration::from_secs(20), |w| (0..3).all(|node| w.node(node).status(w.now()).ready));
        succeed(&mut world, &hashed("second", &[]));
        // Where the one that was not restarted has the presignature still, nobody else does.
        assert_eq!(ended(&world, PRESIGNED), if signed { 0 } else { 2 }, "node{restarted} restarted");
    }
}

#[test]
fn none_are_made_unless_every_signer_wants_them() {
    let mut world = World::new(3, 2);
    world.reconfigure(|config| config.presignatures = usize::from(config.name(config.me) == "node0"));
    for node in 0..3 {
        world.kill(node);
        world.start(node);
    }
    world.request(&keygen("w"));
    assert_eq!(world.result("w", None)["error_code"], "");
    succeed(&mut world, &hashed("first", &[]));
    world.run_for(Duration::from_secs(120));
    assert_eq!(ended(&world, "presign secp256k1"), 0);
    succeed(&mut world, &hashed("second", &[]));
}

#[test]
fn a_node_that_was_rolled_back_uses_none_and_drops_what_it_holds() {
    let mut world = world();
    succeed(&mut world, &hashed("first", &[]));
    until_made(&mut world, 2);
    let backup = world.disk(1).clone();
    succeed(&mut world, &hashed("second", &[]));
    assert_eq!(ended(&world, PRESIGNED), 2);
    until_made(&mut world, 4);
    assert_eq!(held(&world, 1), 1);
    world.kill(1);
    *world.disk(1) = backup;
    world.start(1);
    world.run_for(Duration::from_secs(10));
    assert!(!world.node(1).status(world.now()).alarms.is_empty(), "it has been told: {:#?}", world.last_reports());
    assert_eq!(held(&world, 1), 0);
    succeed(&mut world, &hashed("third", &[]));
    assert_eq!(ended(&world, PRESIGNED), 2, "nobody signs with what is left at node 0");
}

#[test]
fn it_is_durable_that_one_is_used_before_anybody_signs_with_it() {
    let mut world = world();
    succeed(&mut world, &hashed("first", &[]));
    until_made(&mut world, 2);
    let begun = |world: &World| {
        let presigned = |r: &Report| matches!(r, Report::SessionStarted { protocol, .. } if protocol == PRESIGNED);
        world.reports.iter().filter(|(node, report)| *node == 0 && presigned(report)).count()
    };
    let before = commits(&mut world, 0);
    world.request_to(0, &hashed("second", &[]));
    // The count of commits on the disk goes up before the run begins, not with what comes of it.
    assert!(world.run_until(Duration::from_secs(10), |world| begun(world) == 1));
    assert!(commits(&mut world, 0) > before);
}
