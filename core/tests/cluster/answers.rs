//! Requests and their answers.

use mpcium_client::request::Request;
use mpcium_core::{
    Duration, Input, WallTime,
    input::{Delivery, DeliveryId, RequestKind},
    report::Report,
};

use crate::world::{World, code, keygen, sign};

#[test]
fn a_wallet_is_created_and_signs_on_ed25519() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    let wallet = world.result("w", None);
    assert_eq!(code(&wallet), "", "{wallet}");
    world.request(&sign("w", "ed25519", "t", b"\0\0hello", &[]));
    let result = world.result("w", Some("t"));
    assert_eq!(code(&result), "", "{result}");
    assert_eq!(result["result_type"], "success");
}

#[test]
fn a_wallet_signs_on_secp256k1_once_auxiliary_data_is_made_also_for_child_keys() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    for (tx, path) in [("t1", vec![]), ("t2", vec![44, 60, 0, 0, 1])] {
        world.request(&sign("w", "secp256k1", tx, &[0x5a; 32], &path));
        let result = world.result("w", Some(tx));
        assert_eq!(code(&result), "", "{result}");
    }
}

#[test]
fn an_ecdsa_request_that_comes_too_early_waits_for_auxiliary_data_at_whichever_node_and_blocks_no_other() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    for early in 0..6 {
        world.request(&sign("w", "secp256k1", &format!("early{early}"), &[0x5a; 32], &[]));
    }
    world.request(&sign("w", "ed25519", "other", b"m", &[]));
    for tx in ["early0", "early1", "early2", "early3", "early4", "early5", "other"] {
        let result = world.result("w", Some(tx));
        assert_eq!(code(&result), "", "{result}: {:#?}", world.last_reports());
    }
    for i in 0..3 {
        let status = world.node(i).status(world.now());
        assert!(status.auxiliary_sets.iter().any(|s| s.agreed), "node{i}: {status:?}");
        // One for each member: tables of them are made meanwhile.
        let rows = status.tables.iter().find(|table| table.name == "rows that something is computed from");
        assert_eq!(rows.map(|table| table.entries), Some(3), "node{i}: {status:?}");
    }
    world.run_for(Duration::from_secs(5));
    world.request(&sign("w", "secp256k1", "with tables", &[0x5a; 32], &[]));
    assert_eq!(code(&world.result("w", Some("with tables"))), "", "{:#?}", world.last_reports());
}

#[test]
fn one_signature_costs_one_batch_per_signer() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    world.request(&sign("w", "ed25519", "warm", b"m", &[]));
    world.result("w", Some("warm"));
    world.run_for(Duration::from_secs(5));
    let before = world.batches;
    world.request(&sign("w", "ed25519", "t", b"m", &[]));
    world.result("w", Some("t"));
    assert_eq!(world.batches - before, 2);
}

#[test]
fn signing_goes_on_without_the_node_that_is_not_needed() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    for dead in 0..3 {
        world.kill(dead);
        let tx = format!("t{dead}");
        world.request(&sign("w", "ed25519", &tx, b"m", &[]));
        let result = world.result("w", Some(&tx));
        assert_eq!(code(&result), "", "{result}");
        world.start(dead);
        world.run_for(Duration::from_secs(5));
    }
}

#[test]
fn a_request_that_a_killed_coordinator_took_is_answered_by_another_node_with_the_same_result() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    for micros in (0..12_000).step_by(250) {
        let tx = format!("t{micros}");
        world.request(&sign("w", "ed25519", &tx, b"m", &[]));
        world.run_for(Duration::from_micros(micros));
        let coordinator = (0..3).find(|i| world.node(*i).coordinated() > 0);
        if let Some(coordinator) = coordinator {
            world.kill(coordinator);
        }
        let result = world.result("w", Some(&tx));
        assert_eq!(code(&result), "", "killed after {micros} µs: {result}");
        if let Some(coordinator) = coordinator {
            world.start(coordinator);
        }
        world.run_for(Duration::from_secs(8));
        let answers = world.results.iter().filter(|r| r.2["tx_id"] == tx.as_str()).count();
        assert_eq!(answers, 1, "killed after {micros} µs: one delivery, one answer");
    }
}

#[test]
fn the_same_request_again_gets_the_stored_result_also_after_restarts_and_another_payload_is_refused() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    world.request(&sign("w", "ed25519", "t", b"m", &[]));
    let first = world.result("w", Some("t"));
    for i in 0..3 {
        world.kill(i);
    }
    for i in 0..3 {
        world.start(i);
    }
    world.results.clear();
    world.request(&sign("w", "ed25519", "t", b"m", &[]));
    assert_eq!(world.result("w", Some("t")), first);
    world.results.clear();
    world.request(&sign("w", "ed25519", "t", b"another", &[]));
    assert_eq!(code(&world.result("w", Some("t"))), "ERROR_SESSION_DUPLICATE");
}

#[test]
fn the_same_wallet_again_gets_the_stored_keys() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    let first = world.result("w", None);
    world.results.clear();
    world.request(&keygen("w"));
    assert_eq!(world.result("w", None), first);
}

#[test]
fn an_unknown_wallet_is_named_as_such() {
    let mut world = World::new(3, 2);
    world.request(&sign("nobody", "ed25519", "t", b"m", &[]));
    let result = world.result("nobody", Some("t"));
    assert_eq!(code(&result), "ERROR_KEY_NOT_FOUND");
}

#[test]
fn a_wrong_signature_is_answered_at_once() {
    let mut world = World::new(3, 2);
    let mut request = sign("w", "ed25519", "t", b"m", &[]);
    request.set_signature(vec![1; 64]);
    world.request(&request);
    assert_eq!(code(&world.result("w", Some("t"))), "ERROR_INVALID_INITIATOR_SIGNATURE");
}

#[test]
fn garbage_is_answered_at_once() {
    let mut world = World::new(3, 2);
    world.raw_request(RequestKind::Sign, b"{".to_vec());
    assert!(world.run_until(Duration::from_secs(10), |w| !w.results.is_empty()));
    assert_eq!(code(&world.results[0].2), "ERROR_UNMARSHAL_FAILURE");
}

#[test]
fn a_wallet_waits_for_a_missing_node_and_is_created_when_it_comes() {
    let mut world = World::new(3, 2);
    world.kill(2);
    world.request(&keygen("w"));
    world.run_for(Duration::from_secs(30));
    assert!(world.results.is_empty());
    assert!(
        world
            .reports
            .iter()
            .any(|(_, r)| matches!(r, Report::RequestWaits { waiting_for, .. } if waiting_for.contains("node2"))),
        "the node says for whom it waits"
    );
    world.start(2);
    assert_eq!(code(&world.result("w", None)), "");
}

#[test]
fn a_wallet_that_waits_in_vain_is_answered_after_the_deadline_naming_who_was_missing() {
    let mut world = World::new(3, 2);
    world.kill(2);
    world.request(&keygen("w"));
    let result = world.result("w", None);
    assert_eq!(code(&result), "ERROR_NETWORK_TIMEOUT");
    assert!(result["error_reason"].as_str().expect("a reason").contains("node2"), "{result}");
}

#[test]
fn a_key_generation_that_a_crash_interrupts_at_any_moment_ends_in_one_wallet_or_none() {
    for micros in (1_000..40_000).step_by(1_500) {
        let mut world = World::new(3, 2);
        world.run_for(Duration::from_secs(2));
        world.request(&keygen("w"));
        world.run_for(Duration::from_micros(micros));
        for i in 0..3 {
            world.kill(i);
        }
        for i in 0..3 {
            world.start(i);
        }
        let wallet = world.result("w", None);
        assert_eq!(code(&wallet), "", "crash after {micros} µs: {wallet}");
        world.request(&sign("w", "ed25519", "t", b"m", &[]));
        assert_eq!(code(&world.result("w", Some("t"))), "", "crash after {micros} µs");
        world.run_for(Duration::from_secs(30));
        for i in 0..3 {
            assert!(world.node(i).status(world.now()).undecided.is_empty(), "crash after {micros} µs");
        }
    }
}

#[test]
fn a_rolled_back_store_is_noticed_and_its_node_signs_no_more() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    let old = world.disk(0).clone();
    world.kill(0);
    world.start(0);
    world.run_for(Duration::from_secs(5));
    world.kill(0);
    *world.disk(0) = old;
    world.start(0);
    world.run_for(Duration::from_secs(5));
    assert!(!world.node(0).status(world.now()).ready);
    world.kill(0);
    world.start(0);
    world.run_for(Duration::from_secs(5));
    let status = world.node(0).status(world.now());
    assert!(status.alarms.iter().any(|a| a.contains("rolled back")), "another start does not forget it: {status:?}");
    world.request(&sign("w", "ed25519", "t", b"m", &[]));
    assert_eq!(code(&world.result("w", Some("t"))), "", "the others sign without it");
}

#[test]
fn a_rolled_back_node_is_brought_up_to_date_and_signs_again() {
    let mut world = World::new(3, 2);
    let old = world.disk(0).clone();
    world.kill(0);
    world.start(0);
    world.request(&keygen("w"));
    world.result("w", None);
    world.kill(0);
    *world.disk(0) = old;
    world.start(0);
    assert!(world.run_until(Duration::from_secs(20), |w| !w.node(0).status(w.now()).alarms.is_empty()));
    let fit = |w: &mut World| w.reports.iter().any(|(i, r)| *i == 0 && *r == Report::CaughtUp);
    assert!(world.run_until(Duration::from_secs(300), fit), "{:#?}", world.last_reports());
    assert!(world.node(0).status(world.now()).ready);
    // Its share of the wallet is gone, which it says; the others sign, whoever coordinates.
    for tx in ["a", "b", "c"] {
        world.request(&sign("w", "ed25519", tx, b"m", &[]));
        assert_eq!(code(&world.result("w", Some(tx))), "");
    }
    world.request(&keygen("w2"));
    assert_eq!(code(&world.result("w2", None)), "", "it takes part in what is new");
}

/// One delivery of a signing request, the `count`th time.
fn delivered(world: &World, request: &Request, sequence: u64, count: u64) -> Delivery {
    Delivery {
        id: DeliveryId(1_000_000 + 100 * sequence + count),
        kind: RequestKind::Sign,
        body: request.to_json(),
        client: None,
        stream: "another stream".to_owned(),
        sequence,
        timestamp: WallTime(world.now().wall.0 / 1_000_000 * 1_000_000),
        deliveries: count,
    }
}

/// How many nodes have answered it.
fn answers(world: &World, sequence: u64) -> usize {
    let tx = format!("t{sequence}");
    world.reports.iter().filter(|(_, r)| matches!(r, Report::RequestAnswered { id, .. } if *id == tx)).count()
}

#[test]
fn a_delivery_that_several_nodes_work_on_at_once_gets_one_error() {
    let mut world = World::new(5, 3);
    world.run_for(Duration::from_secs(2));
    for sequence in 0..20 {
        let request = sign("nobody", "ed25519", &format!("t{sequence}"), b"m", &[]);
        for node in 0..3 {
            let delivery = delivered(&world, &request, sequence, node + 1);
            world.give(usize::try_from(node).expect("small"), Input::Request(delivery));
            world.run_for(Duration::from_micros(150 * sequence));
        }
        // The world compares what they say.
        assert!(world.run_until(Duration::from_secs(60), |w| answers(w, sequence) == 3), "{:#?}", world.last_reports());
        assert_eq!(code(&world.result("nobody", Some(&format!("t{sequence}")))), "ERROR_KEY_NOT_FOUND");
    }
}

#[test]
fn an_error_stays_an_error_for_its_delivery_and_does_not_stop_the_clients_retry() {
    let mut world = World::new(3, 2);
    let request = sign("w", "ed25519", "t", b"m", &[]);
    world.run_for(Duration::from_secs(2));
    let delivery = delivered(&world, &request, 7, 1);
    world.give(0, Input::Request(delivery.clone()));
    let error = world.result("w", Some("t"));
    assert_eq!(code(&error), "ERROR_KEY_NOT_FOUND");
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    for i in 0..3 {
        world.kill(i);
    }
    for i in 0..3 {
        world.start(i);
    }
    world.run_for(Duration::from_secs(5));
    // Also where the queue has lost count of its deliveries, and after the request has a result.
    for count in [2, 1] {
        world.results.clear();
        world.give(1, Input::Request(Delivery { id: DeliveryId(count), deliveries: count, ..delivery.clone() }));
        assert_eq!(world.result("w", Some("t")), error, "delivery {count}");
        world.results.clear();
        world.request(&request);
        assert_eq!(code(&world.result("w", Some("t"))), "", "a retry after delivery {count}");
    }
}

#[test]
fn a_signature_stays_the_answer_of_its_delivery_when_two_nodes_take_it_while_links_break() {
    for micros in (0..15_000).step_by(500) {
        let mut world = World::with(3, 2, |config| config.signing_deadline = Duration::from_secs(10));
        world.request(&keygen("w"));
        world.result("w", None);
        let request = sign("w", "ed25519", "t1", b"m", &[]);
        let delivery = delivered(&world, &request, 1, 1);
        world.give(0, Input::Request(delivery.clone()));
        world.run_for(Duration::from_micros(micros));
        // The first taker is cut off; the second one gives up alone or signs with the third.
        world.cut.extend([(0, 1), (1, 0), (0, 2), (2, 0)]);
        world.give(1, Input::Request(Delivery { id: DeliveryId(2), deliveries: 2, ..delivery }));
        world.run_for(Duration::from_secs(8));
        world.cut.clear();
        // The world compares what they say.
        world.run_until(Duration::from_secs(60), |w| answers(w, 1) >= 2);
        assert!(answers(&world, 1) > 0, "cut after {micros} µs: {:#?}", world.last_reports());
    }
}

#[test]
fn a_wallet_of_another_system_is_not_created_again_and_a_hint_changes_nothing_for_ours() {
    let mut world = World::new(3, 2);
    world.request(&keygen("ours"));
    assert_eq!(code(&world.result("ours", None)), "");
    for node in 0..3 {
        world.give(node, Input::WalletsElsewhere(["theirs".to_owned(), "ours".to_owned()].into()));
    }
    world.request(&keygen("theirs"));
    let refused = world.result("theirs", None);
    assert_eq!(code(&refused), "ERROR_KEY_ALREADY_EXISTS");
    assert!(refused["error_reason"].as_str().is_some_and(|reason| reason.contains("migrated")), "{refused}");
    // A wallet that exists here is answered with what is here, and its name elsewhere forbids nothing.
    world.request(&sign("ours", "ed25519", "t", b"m", &[]));
    assert_eq!(code(&world.result("ours", Some("t"))), "");
    world.results.clear();
    world.request(&keygen("ours"));
    assert_eq!(code(&world.result("ours", None)), "");
    // Gone from there: then it may be created.
    for node in 0..3 {
        world.give(node, Input::WalletsElsewhere([].into()));
    }
    world.results.clear();
    world.request(&keygen("theirs"));
    assert_eq!(code(&world.result("theirs", None)), "");
}
