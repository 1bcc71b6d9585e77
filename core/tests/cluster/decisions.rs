//! Which prepared session becomes the wallet, when members die, come back, or come back with an old store.

use std::collections::BTreeSet;

use mpcium_core::{
    Duration,
    report::Report,
    store::Keyspace,
    wallet::{
        AcceptorRecord, CertificateRecord, ShareRecord,
        record::{Stored as _, share_key},
    },
};

use crate::world::{World, code, keygen, query, sign};

fn records(world: &mut World, node: usize, keyspace: Keyspace) -> Vec<Vec<u8>> {
    world.disk(node).iter().filter(|((of, _), _)| *of == keyspace).map(|(_, value)| value.expose().to_vec()).collect()
}

/// What a node has promised and voted, durably. Each of these tests has one wallet under way.
fn acceptor(world: &mut World, node: usize) -> Option<AcceptorRecord> {
    let all = records(world, node, Keyspace::Decisions);
    all.first().map(|bytes| AcceptorRecord::decode(bytes).expect("a record"))
}

fn certificates(world: &mut World, node: usize) -> Vec<CertificateRecord> {
    let all = records(world, node, Keyspace::Certificates);
    all.iter().filter_map(|bytes| CertificateRecord::decode(bytes).ok()).collect()
}

fn is_prepared(world: &mut World, node: usize) -> bool {
    !records(world, node, Keyspace::Pending).is_empty()
}

fn isolate(world: &mut World, node: usize, nodes: usize) {
    world.cut.extend((0..nodes).flat_map(|other| [(node, other), (other, node)]));
}

/// Every member holds the shares that the wallet's certificate is about, on both curves.
fn assert_complete(world: &mut World, nodes: usize, what: &str) {
    for node in 0..nodes {
        let held = certificates(world, node);
        assert_eq!(held.len(), 1, "{what}: certificates of node{node}");
        let facts = held[0].certificate.facts().clone();
        for curve in facts.curves {
            let key = (Keyspace::Shares, share_key(&facts.wallet, curve, facts.epoch, facts.session));
            let share = world.disk(node).get(&key).unwrap_or_else(|| panic!("{what}: no share of node{node}"));
            let share = ShareRecord::decode(share.expose()).expect("a share").share;
            assert_eq!(share.curve, curve, "{what}");
        }
        assert!(world.node(node).status(world.now()).undecided.is_empty(), "{what}: node{node} waits");
        assert!(acceptor(world, node).is_none(), "{what}: node{node} keeps what it voted");
    }
}

/// One member after the other is killed at every moment of a key generation and comes back.
#[test]
fn a_member_that_dies_at_any_moment_and_returns_leaves_one_wallet_with_all_its_shares() {
    for (nodes, threshold) in [(4_u8, 3_u16), (5, 3)] {
        let n = usize::from(nodes);
        for (dead, micros) in (2_000..26_000).step_by(3_000).enumerate().map(|(at, micros)| (at % n, micros)) {
            let mut world = World::quiet(nodes, threshold, |_| {});
            world.run_for(Duration::from_secs(2));
            world.request(&keygen("w"));
            world.run_for(Duration::from_micros(micros));
            world.kill(dead);
            world.run_for(Duration::from_secs(5));
            world.start(dead);
            let what = format!("{threshold} of {n}, node{dead} killed after {micros} µs");
            assert_eq!(code(&world.result("w", None)), "", "{what}");
            world.run_for(Duration::from_secs(30));
            assert_complete(&mut world, n, &what);
            world.kill((dead + 1) % n);
            world.request(&sign("w", "ed25519", "t", b"m", &[]));
            assert_eq!(code(&world.result("w", Some("t"))), "", "{what}");
        }
    }
}

/// The last member's statement is known to nobody else when it goes away for longer than the request lives.
#[test]
fn a_member_that_vanishes_after_preparing_leaves_nobody_waiting_and_the_wallet_can_be_asked_for_again() {
    for (nodes, threshold) in [(3_u8, 2_u16), (4, 3), (5, 3), (5, 4)] {
        let n = usize::from(nodes);
        let last = n - 1;
        let mut world = World::quiet(nodes, threshold, |_| {});
        world.run_for(Duration::from_secs(2));
        world.request(&keygen("w"));
        assert!(world.run_until(Duration::from_secs(30), |w| is_prepared(w, last)));
        isolate(&mut world, last, n);
        let what = format!("{threshold} of {n}");
        let refused = world.result("w", None);
        assert_eq!(code(&refused), "ERROR_NETWORK_TIMEOUT", "{what}");
        let reason = refused["error_reason"].as_str().expect("a reason");
        assert!(reason.contains(&format!("node{last}")), "{what}: {reason}");
        world.run_for(Duration::from_secs(60));
        for node in 0..last {
            assert!(world.node(node).status(world.now()).undecided.is_empty(), "{what}: node{node} still waits");
        }
        // It comes back, hears that its session is over, and takes part in another.
        world.cut.clear();
        world.results.clear();
        world.run_for(Duration::from_secs(60));
        assert!(world.node(last).status(world.now()).undecided.is_empty(), "{what}: node{last} still waits");
        assert!((0..n).all(|node| certificates(&mut world, node).is_empty()), "{what}: no wallet after an error");
        world.request(&keygen("w"));
        assert_eq!(code(&world.result("w", None)), "", "{what}");
        world.run_for(Duration::from_secs(10));
        assert_complete(&mut world, n, &what);
        // Two sessions, two curves: the shares of the one that lost stay where they are.
        for node in 0..n {
            assert_eq!(records(&mut world, node, Keyspace::Shares).len(), 4, "{what}: node{node}");
        }
    }
}

/// One member dies at some moment of a key generation and never comes back: before anything is prepared, between
/// statements, between votes. Whoever is left answers: with the wallet or with an error, which is then final.
#[test]
fn a_member_that_dies_for_ever_at_any_moment_leaves_no_request_without_its_answer() {
    let mut ends = BTreeSet::new();
    for (nodes, threshold) in [(3_u8, 2_u16), (4, 3), (5, 3), (5, 4)] {
        let n = usize::from(nodes);
        for (dead, micros) in (1_000..26_000).step_by(1_700).enumerate().map(|(at, micros)| (at % n, micros)) {
            let what = format!("{threshold} of {n}, node{dead} killed after {micros} µs");
            let mut world = World::quiet(nodes, threshold, |_| {});
            world.run_for(Duration::from_secs(2));
            world.request(&keygen("w"));
            world.run_for(Duration::from_micros(micros));
            world.kill(dead);
            let answer = world.result("w", None);
            let made = code(&answer).is_empty();
            assert!(made || code(&answer) == "ERROR_NETWORK_TIMEOUT", "{what}: {answer}");
            world.run_for(Duration::from_secs(30));
            for node in (0..n).filter(|node| *node != dead) {
                assert!(world.node(node).status(world.now()).undecided.is_empty(), "{what}: node{node} still waits");
                assert_eq!(certificates(&mut world, node).len(), usize::from(made), "{what}: node{node}");
            }
            // Whatever it knows, it cannot change the answer.
            world.start(dead);
            world.run_for(Duration::from_secs(30));
            assert!((0..n).all(|node| certificates(&mut world, node).len() == usize::from(made)), "{what}");
            let closed = acceptor(&mut world, (dead + 1) % n).is_some_and(|record| record.slot.number > 0);
            assert!(!made || !closed, "{what}");
            ends.insert((made, closed));
        }
    }
    // A wallet, an error after nothing was prepared, an error after a slot was closed.
    assert_eq!(ends.len(), 3, "{ends:?}");
}

/// One member has voted for a session that the others are not sure of, and the one that both would need is gone. Closing
/// hears of the vote and brings the session to its end: the wallet is the answer, late but true.
#[test]
fn a_session_that_somebody_has_voted_for_is_brought_to_its_end_when_the_request_is_closed() {
    let voted = |world: &mut World, n: usize| {
        (0..n).filter(|node| acceptor(world, *node).is_some_and(|record| record.acceptor.voted().is_some())).count()
    };
    for (nodes, threshold) in [(3_u8, 2_u16), (4, 3), (5, 4)] {
        let n = usize::from(nodes);
        let mut world = World::quiet(nodes, threshold, |_| {});
        world.run_for(Duration::from_secs(2));
        world.request(&keygen("w"));
        assert!(world.run_until(Duration::from_secs(30), |w| voted(w, n) == 1));
        let first = (0..n).find(|node| acceptor(&mut world, *node).is_some_and(|r| r.acceptor.voted().is_some()));
        let first = first.expect("just seen");
        // From now on nobody hears of anything until the deadline has passed and somebody else is gone for good.
        for node in 0..n {
            isolate(&mut world, node, n);
        }
        let deadline = world.config(0).keygen_deadline;
        world.run_for(deadline);
        world.kill((first + 1) % n);
        world.cut.clear();
        let answer = world.result("w", None);
        assert_eq!(code(&answer), "", "{threshold} of {n}: {answer}");
    }
}

/// Everybody has prepared, and of five two are gone before anybody votes. Those that are left are no quorum for the
/// session, and none for closing its slot either, or one member could have had the session decided with the two that are
/// gone. As soon as so many are there as sign, the request has its answer and everybody the same.
#[test]
fn those_that_are_too_few_for_a_session_close_no_slot_and_wait_until_they_are_enough() {
    for dead in [[0, 1], [1, 2], [3, 4]] {
        let mut world = World::quiet(5, 4, |_| {});
        world.run_for(Duration::from_secs(2));
        world.request(&keygen("w"));
        let begun = |w: &mut World| (0..5).any(|node| acceptor(w, node).is_some());
        assert!(world.run_until(Duration::from_secs(30), begun), "{dead:?}");
        assert!((0..5).all(|node| is_prepared(&mut world, node)), "{dead:?}");
        let voted = |w: &mut World, node| acceptor(w, node).is_some_and(|r| r.acceptor.voted().is_some());
        assert!(!(0..5).any(|node| voted(&mut world, node)), "{dead:?}: too late");
        for node in dead {
            world.kill(node);
        }
        world.run_for(Duration::from_secs(1200));
        assert_eq!(world.results.len(), 0, "{dead:?}: {:?}", world.last_reports());
        for node in (0..5).filter(|node| !dead.contains(node)) {
            assert!(acceptor(&mut world, node).is_none_or(|r| r.slot.number == 0), "{dead:?}: node{node}");
        }
        world.start(dead[0]);
        let answer = world.result("w", None);
        world.start(dead[1]);
        world.run_for(Duration::from_secs(30));
        match code(&answer) {
            "" => assert_complete(&mut world, 5, &format!("{dead:?}")),
            "ERROR_NETWORK_TIMEOUT" => {
                for node in 0..5 {
                    let number = acceptor(&mut world, node).map(|r| r.slot.number);
                    assert_eq!((number, certificates(&mut world, node).len()), (Some(1), 0), "{dead:?}: node{node}");
                }
            }
            _ => panic!("{dead:?}: {answer}"),
        }
    }
}

/// Whoever began to decide is gone for good: the others hold all statements and are a quorum.
#[test]
fn a_decision_whose_proposer_dies_is_brought_to_its_end_by_the_others() {
    for (nodes, threshold) in [(3_u8, 2_u16), (4, 3), (5, 4)] {
        let n = usize::from(nodes);
        let mut world = World::quiet(nodes, threshold, |_| {});
        world.run_for(Duration::from_secs(2));
        world.request(&keygen("w"));
        let begun = |world: &mut World| (0..n).find(|node| acceptor(world, *node).is_some());
        let mut proposer = None;
        assert!(world.run_until(Duration::from_secs(30), |w| {
            proposer = begun(w);
            proposer.is_some()
        }));
        let proposer = proposer.expect("just seen");
        world.kill(proposer);
        let wallet = world.result("w", None);
        assert_eq!(code(&wallet), "", "{threshold} of {n}: {wallet}");
        world.run_for(Duration::from_secs(5));
        let decided = (0..n).filter(|node| *node != proposer && certificates(&mut world, *node).len() == 1).count();
        assert_eq!(decided, n - 1, "{threshold} of {n}");
        world.start(proposer);
        world.run_for(Duration::from_secs(10));
        assert_complete(&mut world, n, &format!("{threshold} of {n}"));
    }
}

/// A node has voted, and its store is put back to before that vote while the decision is still open. It cannot know what
/// it said, so it never says anything in that decision again; the others make it.
#[test]
fn an_acceptor_that_was_rolled_back_sits_out_the_decision_that_is_open() {
    let mut world = World::quiet(3, 2, |_| {});
    world.run_for(Duration::from_secs(2));
    world.request(&keygen("w"));
    assert!(world.run_until(Duration::from_secs(30), |w| (0..3).all(|node| is_prepared(w, node))));
    // All hear everybody's statements, but no promise becomes durable; then node 0 starts anew, so that the others remember
    // a start that the older store does not know.
    world.still = (0..3).collect();
    world.run_for(Duration::from_secs(5));
    let older = world.disk(0).clone();
    (0..3).for_each(|node| isolate(&mut world, node, 3));
    world.kill(0);
    (0..3).for_each(|node| world.move_on(node));
    world.start(0);
    assert!((0..3).all(|node| certificates(&mut world, node).is_empty()), "the decision must still be open");
    // Node 0 and node 1 meet until node 0 has voted; nobody gets to know that vote.
    world.cut.retain(|pair| ![(0, 1), (1, 0)].contains(pair));
    let voted = |w: &mut World| acceptor(w, 0).is_some_and(|record| record.acceptor.voted().is_some());
    assert!(world.run_until(Duration::from_secs(60), voted), "{:#?}", world.last_reports());
    isolate(&mut world, 0, 3);
    world.run_for(Duration::from_secs(5));
    assert!((0..3).all(|node| certificates(&mut world, node).is_empty()), "the decision must still be open");
    // Its store is put back, and it meets both others. From when they have met on, node 2's disk stands still: without
    // node 0 there is no quorum.
    world.kill(0);
    *world.disk(0) = older;
    world.start(0);
    world.cut.clear();
    let met = |w: &mut World| w.node(2).status(w.now()).peers.iter().all(|peer| peer.up);
    assert!(world.run_until(Duration::from_secs(30), met), "{:#?}", world.last_reports());
    world.still.insert(2);
    let fit = |w: &mut World| w.reports.iter().any(|(node, report)| *node == 0 && *report == Report::CaughtUp);
    assert!(world.run_until(Duration::from_secs(300), fit), "{:#?}", world.last_reports());
    world.run_for(Duration::from_secs(120));
    assert!(acceptor(&mut world, 0).is_none(), "it promised or voted again in a decision that it has forgotten");
    assert!((0..3).all(|node| certificates(&mut world, node).is_empty()), "nobody had a quorum");
    // Not even after another start.
    world.kill(0);
    world.start(0);
    world.run_for(Duration::from_secs(120));
    assert!(acceptor(&mut world, 0).is_none(), "a start made it forget that it sits out");
    world.move_on(2);
    assert_eq!(code(&world.result("w", None)), "");
    world.run_for(Duration::from_secs(20));
    let held = certificates(&mut world, 0);
    assert_eq!(held.len(), 1, "{:#?}", world.last_reports());
    assert!(held[0].certificate.votes.iter().all(|(node, _)| *node != world.id(0)), "the others decided");
}

/// A node votes for closing a slot, and its store is put back to before the wallet was asked for. It hears from the
/// others that something was decided about the wallet, and says nothing about it any more; but it can be a member.
#[test]
fn a_node_that_has_forgotten_its_vote_for_closing_sits_out_and_still_holds_a_share() {
    let mut world = World::quiet(3, 2, |_| {});
    world.run_for(Duration::from_secs(2));
    let older = world.disk(1).clone();
    world.kill(1);
    world.start(1);
    world.run_for(Duration::from_secs(2));
    world.request(&keygen("w"));
    assert!(world.run_until(Duration::from_secs(30), |w| is_prepared(w, 2)));
    isolate(&mut world, 2, 3);
    assert_eq!(code(&world.result("w", None)), "ERROR_NETWORK_TIMEOUT");
    world.run_for(Duration::from_secs(5));
    world.cut.clear();
    world.run_for(Duration::from_secs(20));
    assert!((0..3).all(|node| acceptor(&mut world, node).is_some_and(|record| record.slot.number == 1)));
    world.kill(1);
    *world.disk(1) = older;
    world.start(1);
    let fit = |w: &mut World| w.reports.iter().any(|(node, report)| *node == 1 && *report == Report::CaughtUp);
    assert!(world.run_until(Duration::from_secs(300), fit), "{:#?}", world.last_reports());
    let remembered = (Keyspace::Meta, b"sits out w".to_vec());
    assert!(world.disk(1).contains_key(&remembered), "{:#?}", world.last_reports());
    world.results.clear();
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "", "{:#?}", world.last_reports());
    world.run_for(Duration::from_secs(20));
    for node in 0..3 {
        let held = certificates(&mut world, node);
        assert_eq!(held.len(), 1, "node{node}");
        assert!(held[0].certificate.votes.iter().all(|(node, _)| *node != world.id(1)), "node1 voted");
    }
}

/// More wallets than fit into one page of what a peer tells.
#[test]
fn a_node_that_was_rolled_back_learns_every_wallet_before_it_is_fit_again() {
    const WALLETS: usize = 70;
    let mut world = World::quiet(3, 2, |_| {});
    world.run_for(Duration::from_secs(2));
    let older = world.disk(0).clone();
    world.kill(0);
    world.start(0);
    world.run_for(Duration::from_secs(2));
    for number in 0..WALLETS {
        let wallet = format!("w{number}");
        world.request(&keygen(&wallet));
        assert_eq!(code(&world.result(&wallet, None)), "");
    }
    world.kill(0);
    *world.disk(0) = older;
    world.start(0);
    let fit = |w: &mut World| w.reports.iter().any(|(node, report)| *node == 0 && *report == Report::CaughtUp);
    assert!(world.run_until(Duration::from_secs(400), fit), "{:#?}", world.last_reports());
    let known: BTreeSet<String> =
        certificates(&mut world, 0).iter().map(|record| record.certificate.facts().wallet.clone()).collect();
    assert_eq!(known.len(), WALLETS, "it is fit and lacks wallets");
}

/// A node that cannot rely on its records says nothing that others rely on, and they do without it.
#[test]
fn a_node_with_a_damaged_store_takes_part_in_nothing() {
    let mut world = World::quiet(3, 2, |_| {});
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "");
    world.kill(2);
    world.damage.insert(2, "two records are missing".to_owned());
    world.start(2);
    world.run_for(Duration::from_secs(5));
    world.reports.clear();
    let status = world.node(2).status(world.now());
    assert!(!status.ready && status.alarms == ["two records are missing"], "{status:?}");
    for number in 0..3 {
        let tx = format!("t{number}");
        world.request(&sign("w", "ed25519", &tx, b"m", &[]));
        assert_eq!(code(&world.result("w", Some(&tx))), "");
    }
    // With one other it is no quorum: not for a signature, not for a wallet, not for saying that there is none.
    world.kill(1);
    world.run_for(Duration::from_secs(5));
    world.results.clear();
    world.request(&sign("w", "ed25519", "alone", b"m", &[]));
    world.request(&keygen("another"));
    assert_eq!(world.query(0, &query("nobody"))["error_code"], "ERROR_CLUSTER_NOT_READY");
    world.run_for(Duration::from_secs(600));
    assert!(world.results.is_empty(), "{:?}", world.results);
    let worked = |report: &Report| match report {
        Report::SessionStarted { protocol, .. } => protocol != "auxiliary",
        Report::RequestTaken { .. } => true,
        _ => false,
    };
    assert!(!world.reports.iter().any(|(node, report)| *node == 2 && worked(report)), "it works");
    // Another start does not mend anything.
    world.kill(2);
    world.start(2);
    world.run_for(Duration::from_secs(30));
    assert!(world.results.is_empty(), "{:?}", world.results);
}
