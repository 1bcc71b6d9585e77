//! Clusters of four and five nodes: who is needed and who is not, how the work is shared, and how much of it runs at once.

use std::collections::BTreeMap;

use mpcium_core::{Duration, input::RequestKind};

use crate::world::{World, attested_by, code, keygen, sign};

/// Clusters in which some nodes are not needed, with their thresholds.
const CLUSTERS: [(u8, u16); 3] = [(4, 3), (5, 3), (5, 4)];

/// All ways to take `many` of `of`.
fn choices(of: usize, many: usize) -> Vec<Vec<usize>> {
    let sets = (0_usize..1 << of).map(|bits| (0..of).filter(|at| bits >> at & 1 == 1).collect::<Vec<_>>());
    sets.filter(|set| set.len() == many).collect()
}

#[test]
fn any_t_of_n_sign_and_nobody_else_takes_part() {
    for (nodes, threshold) in CLUSTERS {
        let mut world = World::quiet(nodes, threshold, |_| {});
        world.request(&keygen("w"));
        assert_eq!(code(&world.result("w", None)), "");
        for dead in choices(usize::from(nodes), usize::from(u16::from(nodes) - threshold)) {
            dead.iter().for_each(|node| world.kill(*node));
            let tx = format!("without {dead:?}");
            world.request(&sign("w", "ed25519", &tx, b"m", &[]));
            let result = world.result("w", Some(&tx));
            assert_eq!(code(&result), "", "{nodes} nodes, {tx}: {result}");
            let signers = attested_by(&result);
            assert_eq!(signers.len(), usize::from(threshold), "{nodes} nodes, {tx}");
            for node in &dead {
                assert!(!signers.contains(&world.id(*node).to_string()), "{nodes} nodes, {tx}: a dead node has signed");
            }
            dead.iter().for_each(|node| world.start(*node));
            world.run_for(Duration::from_secs(5));
        }
    }
}

#[test]
fn with_one_node_fewer_than_sign_a_request_waits_and_any_node_that_comes_back_is_enough() {
    for (nodes, threshold) in CLUSTERS {
        let mut world = World::quiet(nodes, threshold, |_| {});
        world.request(&keygen("w"));
        assert_eq!(code(&world.result("w", None)), "");
        let dead: Vec<usize> = (0..=usize::from(u16::from(nodes) - threshold)).collect();
        dead.iter().for_each(|node| world.kill(*node));
        world.request(&sign("w", "ed25519", "t", b"m", &[]));
        world.run_for(Duration::from_secs(100));
        assert!(!world.results.iter().any(|result| result.2["tx_id"] == "t"), "{threshold} of {nodes}: too few signed");
        world.start(dead[1]);
        assert_eq!(code(&world.result("w", Some("t"))), "", "{threshold} of {nodes}");
    }
}

#[test]
fn a_node_that_reaches_fewer_than_t_takes_no_requests_and_the_others_answer() {
    let mut world = World::quiet(5, 3, |_| {});
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    // Two sides, of which one is too small.
    for (small, large) in [(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)] {
        world.cut.extend([(small, large), (large, small)]);
    }
    world.run_for(Duration::from_secs(10));
    for kind in [RequestKind::Keygen, RequestKind::Sign, RequestKind::Reshare] {
        assert_eq!((0..5).map(|node| world.takes(node, kind)).collect::<Vec<_>>(), [false, false, true, true, true]);
    }
    for number in 0..5 {
        let tx = format!("t{number}");
        world.request(&sign("w", "ed25519", &tx, b"m", &[]));
        assert_eq!(code(&world.result("w", Some(&tx))), "");
    }
    world.cut.clear();
    world.run_for(Duration::from_secs(10));
    assert!((0..5).all(|node| world.takes(node, RequestKind::Sign)), "{:#?}", world.last_reports());
}

#[test]
fn signatures_are_spread_over_all_members() {
    let mut world = World::quiet(5, 3, |_| {});
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    let mut work: BTreeMap<String, u32> = BTreeMap::new();
    for number in 0..50 {
        let tx = format!("t{number}");
        world.request(&sign("w", "ed25519", &tx, b"m", &[]));
        for signer in attested_by(&world.result("w", Some(&tx))) {
            *work.entry(signer).or_default() += 1;
        }
    }
    // 150 parts for five nodes: 30 each if it were exact.
    assert_eq!(work.len(), 5, "{work:?}");
    assert!(work.values().all(|parts| (20..=40).contains(parts)), "{work:?}");
}

#[test]
fn no_more_requests_run_at_once_than_configured_and_those_that_wait_get_their_turn() {
    let mut world = World::quiet(4, 3, |config| {
        config.max_concurrent_keygen = 1;
        config.max_concurrent_signing = 2;
    });
    world.run_for(Duration::from_secs(2));
    let mut most: BTreeMap<String, usize> = BTreeMap::new();
    // What a node runs is what it says that it attempts; several requests come to each node.
    let mut look = |world: &mut World| {
        for node in 0..4 {
            let requests = world.node(node).status(world.now()).requests;
            for kind in ["keygen", "sign"] {
                let running = requests.iter().filter(|r| r.kind == kind && r.state.starts_with("attempt")).count();
                let most = most.entry(kind.to_owned()).or_default();
                *most = running.max(*most);
            }
        }
        false
    };
    for number in 0..12 {
        world.request(&keygen(&format!("w{number}")));
    }
    world.run_until(Duration::from_secs(30), &mut look);
    for number in 0..32 {
        world.request(&sign("w0", "ed25519", &format!("t{number}"), b"m", &[]));
    }
    world.run_until(Duration::from_secs(30), &mut look);
    assert_eq!(world.results.len(), 12 + 32, "{:#?}", world.last_reports());
    assert!(world.results.iter().all(|result| code(&result.2).is_empty()));
    assert_eq!(most, [("keygen".to_owned(), 1), ("sign".to_owned(), 2)].into());
}

#[test]
fn auxiliary_data_is_made_without_a_node_that_stays_away_and_anew_when_it_comes() {
    let mut world = World::new(4, 3);
    world.kill(3);
    let sets = |world: &World, node: usize, members: usize| {
        let sets = world.node(node).status(world.now()).auxiliary_sets;
        sets.iter().any(|set| set.agreed && set.members.len() == members)
    };
    world.run_for(Duration::from_secs(200));
    assert!((0..3).all(|node| !sets(&world, node, 3)), "the missing node is waited for");
    let made = |world: &mut World| (0..3).all(|node| sets(world, node, 3));
    assert!(world.run_until(Duration::from_secs(300), made), "{:#?}", world.last_reports());
    world.start(3);
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    world.request(&sign("w", "secp256k1", "t", &[0x5a; 32], &[]));
    assert_eq!(code(&world.result("w", Some("t"))), "");
    let all = |world: &mut World| (0..4).all(|node| sets(world, node, 4));
    assert!(world.run_until(Duration::from_secs(600), all), "{:#?}", world.last_reports());
    world.kill(0);
    world.request(&sign("w", "secp256k1", "with the fourth", &[0x5a; 32], &[]));
    let result = world.result("w", Some("with the fourth"));
    assert_eq!(code(&result), "");
    assert!(attested_by(&result).contains(&world.id(3).to_string()));
}
