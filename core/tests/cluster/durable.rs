//! Nothing is said before what it depends on is durable. Disks stand still at a moment that a test chooses: what is
//! written there can be read, is not confirmed, and is gone if the node dies.

use mpcium_core::{Duration, report::Report, store::Keyspace};

use crate::world::{World, code, keygen, sign};

/// Nodes whose disk holds something in a keyspace.
fn holders(world: &mut World, nodes: usize, keyspace: Keyspace) -> usize {
    (0..nodes).filter(|node| world.disk(*node).keys().any(|(of, _)| *of == keyspace)).count()
}

fn activated(world: &World) -> bool {
    world.reports.iter().any(|(_, report)| matches!(report, Report::WalletActivated { .. }))
}

#[test]
fn a_signature_is_answered_only_once_enough_members_hold_it_durably() {
    for (nodes, threshold) in [(3_u8, 2_u16), (4, 3), (5, 3), (5, 4)] {
        let (n, t) = (usize::from(nodes), usize::from(threshold));
        let mut world = World::quiet(nodes, threshold, |_| {});
        world.request(&keygen("w"));
        assert_eq!(code(&world.result("w", None)), "");
        world.run_for(Duration::from_secs(5));
        world.results.clear();
        // One more working disk would be enough.
        world.still.extend(n - t..n);
        world.request(&sign("w", "ed25519", "t", b"m", &[]));
        world.run_for(Duration::from_secs(60));
        assert!(
            world.results.is_empty(),
            "{t} of {n}: answered with {} holders",
            holders(&mut world, n, Keyspace::Ledger)
        );
        (0..n).for_each(|node| world.move_on(node));
        assert_eq!(code(&world.result("w", Some("t"))), "", "{t} of {n}");
        assert!(holders(&mut world, n, Keyspace::Ledger) > n - t, "{t} of {n}");
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.results.len(), 1, "{t} of {n}");
    }
}

/// Whoever died before its shares were durable has not prepared; nobody may rely on it.
#[test]
fn a_wallet_exists_only_once_the_shares_of_every_member_are_durable() {
    for (nodes, threshold) in [(3_u8, 2_u16), (4, 3)] {
        for still in 0..usize::from(nodes) {
            let mut world = World::quiet(nodes, threshold, |_| {});
            world.run_for(Duration::from_secs(2));
            world.still.insert(still);
            world.request(&keygen("w"));
            world.run_for(Duration::from_secs(60));
            assert!(!activated(&world) && world.results.is_empty(), "without the shares of node{still}");
            world.kill(still);
            world.still.clear();
            world.start(still);
            assert_eq!(code(&world.result("w", None)), "");
            assert_eq!(holders(&mut world, usize::from(nodes), Keyspace::Shares), usize::from(nodes));
            world.request(&sign("w", "ed25519", "t", b"m", &[]));
            assert_eq!(code(&world.result("w", Some("t"))), "");
        }
    }
}

/// The decision stands, but one node's word is not enough for an answer.
#[test]
fn a_wallet_that_only_one_node_holds_durably_is_not_answered() {
    let mut world = World::quiet(3, 2, |_| {});
    world.run_for(Duration::from_secs(2));
    world.request(&keygen("w"));
    let held = |world: &mut World| holders(world, 3, Keyspace::Certificates) == 1;
    assert!(world.run_until(Duration::from_secs(30), held));
    for node in 0..3 {
        if !world.disk(node).keys().any(|(of, _)| *of == Keyspace::Certificates) {
            world.still.insert(node);
        }
    }
    world.run_for(Duration::from_secs(60));
    assert!(world.results.is_empty(), "answered with one holder");
    (0..3).for_each(|node| world.move_on(node));
    assert_eq!(code(&world.result("w", None)), "");
    assert!(holders(&mut world, 3, Keyspace::Certificates) >= 2);
}

/// Of promises and votes that are lost nobody may have heard.
#[test]
fn a_decision_is_made_only_once_its_promises_and_votes_are_durable() {
    for (nodes, threshold) in [(3_u8, 2_u16), (4, 3), (5, 3)] {
        let (n, t) = (usize::from(nodes), usize::from(threshold));
        let mut world = World::quiet(nodes, threshold, |_| {});
        world.run_for(Duration::from_secs(2));
        world.request(&keygen("w"));
        let prepared = |world: &mut World| holders(world, n, Keyspace::Pending) == n;
        assert!(world.run_until(Duration::from_secs(30), prepared));
        // One more working disk would be a quorum.
        world.still.extend(t - 1..n);
        world.run_for(Duration::from_secs(60));
        assert!(!activated(&world) && world.results.is_empty(), "{t} of {n}: decided with {} durable votes", t - 1);
        // What was not durable is lost, and with it nothing that anybody heard.
        for node in t - 1..n {
            world.kill(node);
            world.still.remove(&node);
            world.start(node);
        }
        assert_eq!(code(&world.result("w", None)), "", "{t} of {n}");
    }
}

#[test]
fn a_node_says_nothing_before_its_start_is_durable() {
    let mut world = World::quiet(3, 2, |_| {});
    world.run_for(Duration::from_secs(5));
    world.kill(2);
    world.run_for(Duration::from_secs(5));
    world.still.insert(2);
    let before = world.sent(2);
    world.start(2);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.sent(2), before, "it speaks under a start that a crash would make it forget");
    world.move_on(2);
    let up = |world: &mut World| world.node(0).status(world.now()).peers.iter().all(|peer| peer.up);
    assert!(world.run_until(Duration::from_secs(10), up), "{:#?}", world.last_reports());
}

/// Two machines that are copies of each other draw the same numbers, but for their entropy.
#[test]
fn a_cloned_machine_repeats_no_nonce() {
    let nonce = |entropy: u8| {
        let mut world = World::quiet(3, 2, |_| {});
        world.request(&keygen("w"));
        let wallet = world.result("w", None);
        world.run_for(Duration::from_secs(5));
        world.entropy = entropy;
        world.request(&sign("w", "ed25519", "t", b"m", &[]));
        let signature = world.result("w", Some("t"))["signature"].as_str().expect("a signature").to_owned();
        // The first half of a signature is the nonce's point.
        (wallet["eddsa_pub_key"].clone(), signature[..40].to_owned())
    };
    let ((key, first), (same_key, same)) = (nonce(0), nonce(0));
    assert_eq!((&key, &first), (&same_key, &same), "with the same entropy all is the same");
    let (other_key, other) = nonce(1);
    assert_eq!(key, other_key);
    assert_ne!(first, other, "one nonce, and a second message would show the key");
}
