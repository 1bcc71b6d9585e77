//! What clients are told when time has run out, and when. Time here is the cluster's own.

use mpcium_core::{Duration, Time, store::Keyspace};
use serde_json::Value;

use crate::world::{World, code, keygen, sign};

/// The moment and the document of the first answer.
fn answered(world: &mut World) -> (Time, Value) {
    assert!(world.run_until(Duration::from_secs(1200), |w| !w.results.is_empty()), "{:#?}", world.last_reports());
    (world.now().time, world.results[0].2.clone())
}

#[test]
fn a_signature_that_nobody_can_make_is_given_up_after_deadline_and_skew_with_peer_and_step() {
    for (nodes, threshold) in [(4_u8, 3_u16), (5, 4)] {
        let mut world = World::quiet(nodes, threshold, |_| {});
        world.request(&keygen("w"));
        assert_eq!(code(&world.result("w", None)), "");
        for node in [0, 1] {
            world.kill(node);
            world.disk(node).retain(|(keyspace, _), _| *keyspace != Keyspace::Shares);
            world.start(node);
        }
        world.run_for(Duration::from_secs(5));
        world.results.clear();
        let begin = world.now().time;
        world.request(&sign("w", "ed25519", "t", b"m", &[]));
        let (at, result) = answered(&mut world);
        assert_eq!(code(&result), "ERROR_NETWORK_TIMEOUT", "{result}");
        let (deadline, skew) = (world.config(0).signing_deadline, world.config(0).clock_skew);
        assert!(at.since(begin) >= deadline + skew, "somebody may still be signing: {:?}", at.since(begin));
        let reason = result["error_reason"].as_str().expect("a reason");
        assert!(reason.contains("its share of the wallet is not in its store"), "{reason}");
        assert!(reason.contains("node0") || reason.contains("node1"), "{reason}");
        world.run_for(Duration::from_secs(600));
        assert_eq!(world.results.len(), 1, "one answer, and nothing after it");
    }
}

#[test]
fn a_wallet_that_cannot_be_made_is_given_up_after_deadline_and_skew_with_everybody_who_is_missing() {
    for (nodes, threshold) in [(4_u8, 3_u16), (5, 3)] {
        let mut world = World::quiet(nodes, threshold, |_| {});
        world.run_for(Duration::from_secs(2));
        let missing: Vec<usize> = (0..usize::from(u16::from(nodes) - threshold)).collect();
        missing.iter().for_each(|node| world.kill(*node));
        let begin = world.now().time;
        world.request(&keygen("w"));
        let (at, result) = answered(&mut world);
        assert_eq!(code(&result), "ERROR_NETWORK_TIMEOUT", "{result}");
        let (deadline, skew) = (world.config(0).keygen_deadline, world.config(0).clock_skew);
        assert!(at.since(begin) >= deadline + skew, "{:?}", at.since(begin));
        let reason = result["error_reason"].as_str().expect("a reason");
        assert!(missing.iter().all(|node| reason.contains(&format!("node{node}"))), "{reason}");
    }
}

/// Everybody refuses what a node proposes whose clock is far ahead. It gives the request back to the queue instead of
/// keeping it until its deadline, and another one answers it.
#[test]
fn a_request_is_not_kept_by_a_node_whose_clock_is_wrong() {
    let mut world = World::quiet(3, 2, |_| {});
    world.run_for(Duration::from_secs(2));
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    world.set_ahead(0, Duration::from_secs(60));
    let asked = world.now().time;
    world.request_to(0, &sign("w", "ed25519", "t", b"message", &[]));
    assert_eq!(code(&world.result("w", Some("t"))), "");
    let took = world.now().time.since(asked);
    assert!(took < Duration::from_secs(20), "{took:?}");
}
