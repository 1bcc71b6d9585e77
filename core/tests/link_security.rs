//! Links against strangers, replays, wrong identities, other configurations, rolled-back and duplicated nodes.

mod link_support;

use std::collections::BTreeSet;

use link_support::{CLEAN, Net, id, identity};
use mpcium_core::{
    Duration, Identity, Incarnation, limits,
    link::{DownReason, Lane, LinkConfig, LinkOutput, Links, Mark, Trouble},
};
use proptest::prelude::*;

#[test]
fn replaying_all_recorded_traffic_changes_nothing() {
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    net.send(0, 1, Lane::Signing, b"first life".to_vec());
    net.run_for(Duration::from_secs(2));
    net.start(1);
    net.run_until(Duration::from_secs(10), "second life", |n| n.ups(0).len() == 2 && n.all_up());
    net.send(0, 1, Lane::Signing, b"second life".to_vec());
    net.run_for(Duration::from_secs(2));
    let at = net.log.len();
    let recorded = net.recorded.clone();
    for (round, (from, to, bytes)) in recorded.iter().enumerate() {
        net.inject(*to, bytes);
        net.inject(*from, bytes);
        if round % 3 == 0 {
            net.run_for(Duration::from_millis(50));
        }
    }
    net.run_for(Duration::from_secs(5));
    let disturbing: Vec<_> = net.log[at..]
        .iter()
        .filter(|(_, output)| !matches!(output, LinkOutput::Trouble(Trouble::RateLimited { .. })))
        .collect();
    assert!(disturbing.is_empty(), "{disturbing:?}");
    assert!(net.all_up());
}

#[test]
fn strangers_and_flipped_bits_are_told_rarely_and_change_nothing() {
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    net.send(0, 1, Lane::Control, vec![7; 500]);
    net.run_for(Duration::from_secs(1));
    let at = net.log.len();
    let recorded = net.recorded.clone();
    for (_, to, bytes) in &recorded {
        for bit in 0..bytes.len().min(200) * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            net.inject(*to, &bytes);
        }
        for length in 0..bytes.len().min(200) {
            net.inject(*to, &bytes[..length]);
        }
    }
    assert!(net.all_up());
    assert!(net.log[at..].iter().all(|(_, output)| matches!(output, LinkOutput::Trouble(_))), "{:?}", net.tail());
    assert!(net.log.len() - at <= 2 * 8, "garbage floods reports: {}", net.log.len() - at);
    assert!(net.send(0, 1, Lane::Control, b"still here".to_vec()));
    net.run_until(Duration::from_secs(5), "delivery", |n| {
        n.count(1, Lane::Control) == 2 && n.received(1, Lane::Control)[1] == b"still here"
    });
}

#[test]
fn a_node_with_another_identity_key_gets_no_link() {
    let mut net = Net::new(2, 5, CLEAN);
    net.start(0);
    let honest = net.config(1);
    net.links[1] = Some(Links::new(LinkConfig { identity: Identity::new(id(1), &[9; 32]), ..honest }, net.now));
    net.drain(1);
    net.run_for(Duration::from_secs(10));
    assert!(!net.is_up(0, 1) && !net.is_up(1, 0));
    assert!(net.troubles(0).contains(&Trouble::BadSignature { peer: "node1".into() }), "{:?}", net.troubles(0));
}

#[test]
fn a_different_configuration_is_named_on_both_sides_and_makes_no_link() {
    let mut net = Net::new(2, 5, CLEAN);
    net.facets[1][0].1 = "3".into();
    net.facets[1].push(("suites".into(), "x".into()));
    net.start(0);
    net.start(1);
    net.run_for(Duration::from_secs(10));
    assert!(!net.is_up(0, 1) && !net.is_up(1, 0));
    for (node, peer) in [(0, "node1"), (1, "node0")] {
        let differs = vec!["suites".to_owned(), "threshold".to_owned()];
        assert!(
            net.troubles(node).contains(&Trouble::Configuration { peer: peer.into(), differs }),
            "{:?}",
            net.troubles(node)
        );
        let state = net.links[node].as_ref().map(|l| l.states()[0].clone()).expect("started");
        assert!(state.waits_for.contains("threshold"), "{state:?}");
    }
    assert!(!net.recorded.iter().any(|r| r.2[0] == 4));
    net.facets[1] = net.facets[0].clone();
    net.start(1);
    net.bring_up();
}

/// A node writes something and tells its peers that it is durable.
fn commit(net: &mut Net, node: usize) {
    net.disks[node].commits += 1;
    let commits = net.disks[node].commits;
    if let Some(links) = net.links[node].as_mut() {
        links.committed(commits);
    }
}

/// The starts that a node was told to have lost, in order.
fn lost(net: &Net, node: usize) -> Vec<Incarnation> {
    net.log
        .iter()
        .filter_map(|(n, output)| match output {
            LinkOutput::RolledBack { incarnation, .. } if *n == node => Some(*incarnation),
            _ => None,
        })
        .collect()
}

#[test]
fn a_rolled_back_node_and_its_peer_both_learn_of_it() {
    for node in [0, 1] {
        let peer = 1 - node;
        let mut net = Net::started(2, 5, CLEAN);
        net.bring_up();
        let backup = net.disks[node].clone();
        net.start(node);
        net.run_until(Duration::from_secs(10), "restart", |n| n.ups(peer).len() == 2 && n.all_up());
        assert_eq!((lost(&net, node), net.troubles(peer)), (vec![], vec![]));
        let lost_start = net.ups(peer)[1].1;
        net.disks[node] = backup;
        net.start(node);
        net.run_until(Duration::from_secs(10), "restored", |n| n.ups(peer).len() == 3 && n.all_up());
        assert_eq!(lost(&net, node), [lost_start]);
        assert!(net.troubles(node).contains(&Trouble::RolledBack { peer: format!("node{peer}") }));
        assert!(net.troubles(peer).contains(&Trouble::PeerRolledBack { peer: format!("node{node}") }));
    }
}

/// As when a machine goes on from an earlier state of its memory: the same start, with fewer commits.
#[test]
fn a_process_that_is_put_back_with_its_memory_is_told_by_whoever_heard_of_a_later_commit() {
    let put_back =
        |net: &Net| net.log.iter().any(|(n, output)| *n == 0 && matches!(output, LinkOutput::PutBack { .. }));
    for later in [false, true] {
        let mut net = Net::new(2, 5, CLEAN);
        let memory = net.config(0);
        net.links[0] = Some(Links::new(memory.clone(), net.now));
        net.drain(0);
        net.start(1);
        net.bring_up();
        if later {
            commit(&mut net, 0);
            net.send(0, 1, Lane::Control, b"stored".to_vec());
            net.run_until(Duration::from_secs(1), "delivery", |n| n.count(1, Lane::Control) == 1);
        }
        net.links[0] = Some(Links::new(memory.clone(), net.now));
        net.drain(0);
        let ups = net.ups(1).len();
        net.run_until(Duration::from_secs(20), "another handshake", |n| n.ups(1).len() > ups || put_back(n));
        assert_eq!(put_back(&net), later);
    }
}

#[test]
fn a_store_that_is_put_back_within_its_last_run_is_noticed_by_whoever_heard_of_a_later_commit() {
    for node in [0, 1] {
        let peer = 1 - node;
        let mut net = Net::started(2, 5, CLEAN);
        net.bring_up();
        let run = net.ups(peer)[0].1;
        let backup = net.disks[node].clone();
        // Nothing is lost: neither side says anything.
        net.start(node);
        net.run_until(Duration::from_secs(10), "restart", |n| n.ups(peer).len() == 2 && n.all_up());
        assert_eq!((lost(&net, node), net.troubles(node)), (vec![], vec![]));
        let run_again = net.ups(peer)[1].1;
        assert_ne!(run, run_again);
        let backup_again = net.disks[node].clone();
        commit(&mut net, node);
        // The message that rests on the commit brings word of it.
        net.send(node, peer, Lane::Control, b"stored".to_vec());
        net.run_until(Duration::from_secs(1), "delivery", |n| n.count(peer, Lane::Control) == 1);
        net.links[node] = None;
        net.disks[node] = backup_again;
        net.start(node);
        // What it writes before it meets its peer hides nothing.
        for _ in 0..50 {
            commit(&mut net, node);
        }
        net.run_until(Duration::from_secs(20), "restored", |n| n.ups(peer).len() == 3 && n.all_up());
        assert_eq!(lost(&net, node), [run_again]);
        assert!(net.troubles(peer).contains(&Trouble::PeerRolledBack { peer: format!("node{node}") }));
        // The older backup lacks two starts, of which the peer remembers the last.
        net.links[node] = None;
        net.disks[node] = backup;
        net.start(node);
        net.run_until(Duration::from_secs(20), "restored again", |n| n.ups(peer).len() == 4 && n.all_up());
        assert_eq!(lost(&net, node).len(), 2);
    }
}

#[test]
fn a_peer_that_restarts_still_knows_what_it_was_told() {
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    let backup = net.disks[0].clone();
    commit(&mut net, 0);
    // A heartbeat tells of the commit, and an idle peer writes that down by itself.
    net.run_for(Duration::from_secs(3));
    net.links = vec![None, None];
    net.disks[0] = backup;
    net.start(0);
    net.start(1);
    net.run_until(Duration::from_secs(10), "restored", Net::all_up);
    assert_eq!(lost(&net, 0).len(), 1);
}

#[test]
fn two_idle_nodes_do_not_remember_each_other_for_ever() {
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    commit(&mut net, 0);
    commit(&mut net, 1);
    net.run_for(Duration::from_secs(5));
    let at = net.log.len();
    net.run_for(Duration::from_secs(60));
    assert_eq!(net.log[at..], []);
}

#[test]
fn what_a_peer_said_is_taken_along_by_the_next_write() {
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    net.run_for(Duration::from_secs(3));
    commit(&mut net, 0);
    net.send(0, 1, Lane::Control, b"stored".to_vec());
    net.run_until(Duration::from_secs(1), "delivery", |n| n.count(1, Lane::Control) == 1);
    let links = net.links[1].as_mut().expect("started");
    let taken = links.take_unwritten();
    assert_eq!(taken.iter().map(|(peer, mark)| (*peer, mark.commits)).collect::<Vec<_>>(), [(id(0), 2)]);
    assert_eq!(links.take_unwritten(), []);
    for (peer, mark) in taken {
        net.persist(1, peer, mark);
    }
    let at = net.log.len();
    net.run_for(Duration::from_secs(5));
    assert_eq!(net.log[at..], [], "it was written already");
}

#[test]
fn a_rollback_is_durable_before_the_peer_forgets_what_shows_it() {
    for node in [0, 1] {
        let peer = 1 - node;
        let mut net = Net::started(2, 5, CLEAN);
        net.bring_up();
        net.run_for(Duration::from_secs(3));
        let backup = net.disks[node].clone();
        net.start(node);
        net.run_until(Duration::from_secs(10), "restart", |n| n.ups(peer).len() == 2 && n.all_up());
        net.run_for(Duration::from_secs(3));
        let remembered = net.disks[peer].remembered[&id(node)];
        net.disks[node] = backup;
        // Its disk takes its time: the node learns of the rollback and dies, again and again.
        for died in 1..=3 {
            net.start(node);
            net.fast_disk = false;
            net.run_until(Duration::from_secs(20), "noticed", |n| lost(n, node).len() == died);
            net.run_for(Duration::from_secs(20));
            assert!(!net.is_up(node, peer));
            net.links[node] = None;
            net.fast_disk = true;
            net.run_for(Duration::from_secs(5));
            assert_eq!(net.disks[peer].remembered[&id(node)], remembered, "the peer has forgotten");
        }
        net.start(node);
        net.bring_up();
        assert_eq!(lost(&net, node).len(), 4);
    }
}

#[test]
fn a_start_that_never_was_is_a_lie_of_the_peer_and_nothing_more() {
    for liar in [0, 1] {
        let victim = 1 - liar;
        let mut net = Net::started(2, 5, CLEAN);
        net.bring_up();
        let genuine = net.disks[liar].remembered[&id(victim)];
        let forger = Identity::new(id(victim), &[9; 32]);
        let own = identity(liar);
        let mut raised = genuine.to_bytes();
        raised[16..24].copy_from_slice(&1_000_u64.to_le_bytes());
        for claim in [
            Mark::of(&forger, Incarnation([0xee; 16]), 1_000),
            Mark::from_bytes(&raised),
            // The liar's own seal, over its own start.
            Mark::of(&own, Incarnation([0xee; 16]), 1_000),
        ] {
            net.disks[liar].remembered.insert(id(victim), claim);
            net.log.clear();
            net.start(victim);
            net.start(liar);
            net.bring_up();
            assert!(net.troubles(victim).contains(&Trouble::FalseClaim { peer: format!("node{liar}") }));
            assert_eq!(lost(&net, victim), []);
            assert!(net.troubles(liar).is_empty(), "a lie is no rollback of whom it is about");
        }
    }
}

#[test]
fn a_loss_that_is_known_is_not_news_whoever_repeats_it() {
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    net.run_for(Duration::from_secs(3));
    let backup = net.disks[0].clone();
    commit(&mut net, 0);
    net.run_for(Duration::from_secs(3));
    let shown = net.disks[1].remembered[&id(0)];
    net.disks[0] = backup;
    net.start(0);
    net.run_until(Duration::from_secs(20), "restored", |n| lost(n, 0).len() == 1 && n.all_up());
    // The peer keeps what shows the loss, and shows it at every start.
    for _ in 0..5 {
        net.run_for(Duration::from_secs(15));
        net.disks[1].remembered.insert(id(0), shown);
        net.start(1);
        net.start(0);
        net.run_until(Duration::from_secs(20), "up again", Net::all_up);
    }
    assert_eq!(lost(&net, 0).len(), 1);
}

#[test]
fn two_processes_with_one_identity_are_noticed() {
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    // A second process with a copy of node 1's store. The bus gives both everything that is for node 1.
    let copy = net.config(1);
    net.disks[1].history.remove(&copy.incarnation);
    let mut twin = Links::new(copy, net.now);
    let mut seen = net.recorded.len();
    let end = net.now.after(Duration::from_secs(40));
    let mut twin_was_told = false;
    while net.now < end {
        net.step();
        let now = net.now;
        let arriving: Vec<Vec<u8>> =
            net.recorded[seen..].iter().filter(|(_, to, _)| *to == 1).map(|r| r.2.clone()).collect();
        seen = net.recorded.len();
        for bytes in arriving {
            twin.handle_datagram(now, &bytes);
        }
        if twin.wake_at().is_some_and(|at| at <= now) {
            twin.handle_wake(now);
        }
        while let Some(output) = twin.poll() {
            match output {
                LinkOutput::Datagram { bytes, .. } => net.inject(0, &bytes),
                LinkOutput::Remember { peer, mark } => twin.remembered(now, peer, mark),
                LinkOutput::RolledBack { incarnation, .. } => {
                    twin_was_told = true;
                    twin.conceded(now, incarnation);
                }
                _ => {}
            }
        }
    }
    assert!(net.troubles(0).contains(&Trouble::DuplicateIdentity { peer: "node1".into() }), "{:?}", net.troubles(0));
    let told = net.troubles(1).contains(&Trouble::RolledBack { peer: "node0".into() });
    assert!(told || twin_was_told, "neither process heard that its store is not the only one");
}

#[test]
fn hellos_beyond_the_rate_are_not_answered() {
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    net.run_for(Duration::from_secs(2));
    net.cut.insert(0);
    let before = net.recorded.len();
    for _ in 0..50 {
        // Restarts make fresh, genuine hellos.
        let config = net.config(1);
        let mut links = Links::new(config, net.now);
        while let Some(output) = links.poll() {
            if let LinkOutput::Datagram { bytes, .. } = output {
                net.inject(0, &bytes);
            }
        }
    }
    let replies = net.recorded[before..].iter().filter(|(from, _, bytes)| *from == 0 && bytes[0] == 2).count();
    assert!(replies >= 1 && replies <= limits::HANDSHAKES_PER_SECOND as usize, "{replies}");
    assert!(net.troubles(0).contains(&Trouble::RateLimited { peer: "node1".into() }));
    assert!(net.is_up(0, 1), "unfinished handshakes ended a link");
    net.cut.clear();
    net.run_for(Duration::from_secs(5));
    assert!(net.is_up(0, 1) && net.downs(0).iter().all(|d| d.2 != DownReason::Restarted));
}

/// How long node 1 takes to come back after a restart while `flood` reaches node 0 before each step.
fn return_under(flood: impl Fn(&Net, u64) -> Vec<Vec<u8>>) -> Duration {
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    for _ in 0..20 {
        net.start(1);
        net.run_until(Duration::from_secs(10), "restart", Net::all_up);
        net.run_for(Duration::from_millis(700));
    }
    net.links[1] = None;
    net.run_until(Duration::from_secs(10), "silence", |n| !n.is_up(0, 1));
    let shower = |net: &mut Net, round: u64| {
        for datagram in flood(net, round) {
            net.inject(0, &datagram);
        }
    };
    // All that is admitted at once is used up.
    for round in 0..100 {
        shower(&mut net, round);
    }
    net.start(1);
    let begun = net.now;
    for round in 100.. {
        if net.all_up() {
            break;
        }
        assert!(net.now.since(begun) < Duration::from_secs(60), "the flood keeps the link down");
        shower(&mut net, round);
        net.step();
    }
    net.now.since(begun)
}

#[test]
fn no_flood_of_hellos_delays_the_return_of_a_link() {
    let calm = return_under(|_, _| Vec::new());
    let sent_to_0 = |net: &Net, kind: u8| -> Vec<Vec<u8>> {
        net.recorded
            .iter()
            .filter(|(from, to, bytes)| *from == 1 && *to == 0 && bytes[0] == kind)
            .map(|r| r.2.clone())
            .collect()
    };
    // Everything that node 1 has ever said in handshakes, and what it says now.
    let replayed = return_under(|net, _| [1, 2, 3].map(|kind| sent_to_0(net, kind)).concat());
    // The same with other contents: a stranger can copy all but the key.
    let invented = return_under(|net, round| {
        let mut datagrams = [1, 2, 3].map(|kind| sent_to_0(net, kind)).concat();
        for datagram in &mut datagrams {
            let at = 10 + round as usize % (datagram.len() - 10);
            datagram[at] ^= 1;
        }
        datagrams
    });
    for (flood, took) in [("replayed", replayed), ("invented", invented)] {
        assert!(took <= calm + limits::HANDSHAKE_RETRY_MIN, "{flood}: {took:?} instead of {calm:?}");
    }
}

#[test]
fn messages_identities_and_configuration_values_do_not_travel_in_clear() {
    let mut net = Net::new(2, 5, CLEAN);
    for facets in &mut net.facets {
        facets.push(("authorizers".into(), "a very secret list of authorizers".into()));
    }
    net.start(0);
    net.start(1);
    net.bring_up();
    let text = b"the share is forty-two and so on".to_vec();
    net.send(0, 1, Lane::Signing, text.clone());
    net.run_until(Duration::from_secs(5), "delivery", |n| n.received(1, Lane::Signing).len() == 1);
    let contains = |needle: &[u8]| net.recorded.iter().any(|r| r.2.windows(needle.len()).any(|w| w == needle));
    assert!(!contains(&text));
    assert!(!contains(b"a very secret list of authorizers"));
}

#[test]
fn every_handshake_uses_fresh_keys() {
    // Traffic keys follow from ephemeral secrets alone; no two hellos or replies may share one.
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    for _ in 0..5 {
        net.start(1);
        net.run_until(Duration::from_secs(10), "restart", Net::all_up);
        net.run_for(Duration::from_secs(1));
    }
    let key_at = 10 + 16 + 16 + Mark::BYTES + 1 + Mark::BYTES;
    let mut keys = BTreeSet::new();
    // A message that is said again as it was shares its own keys only.
    let said: BTreeSet<&Vec<u8>> = net.recorded.iter().map(|r| &r.2).filter(|b| b[0] == 1 || b[0] == 2).collect();
    for bytes in said {
        assert!(keys.insert(bytes[key_at..key_at + 32].to_vec()), "an ephemeral key was used twice");
    }
    assert!(keys.len() >= 12);
    let identities: Vec<[u8; 32]> = (0..2).map(|n| identity(n).public().to_bytes()).collect();
    assert!(identities.iter().all(|key| !keys.contains(key.as_slice())));
}

#[test]
fn an_unanswered_hello_is_said_again_until_it_is_old_or_would_say_something_else() {
    let mut net = Net::new(2, 5, CLEAN);
    net.start(0);
    let hellos = |net: &Net| {
        let said: Vec<Vec<u8>> = net.recorded.iter().filter(|r| r.0 == 0 && r.2[0] == 1).map(|r| r.2.clone()).collect();
        let different: BTreeSet<&Vec<u8>> = said.iter().collect();
        (said.len(), different.len())
    };
    net.run_for(limits::HELLO_LASTS / 2);
    let (said, different) = hellos(&net);
    assert!(said > 5 && different == 1, "{said} hellos, {different} of them different");
    net.run_for(limits::HELLO_LASTS);
    assert_eq!(hellos(&net).1, 2, "no secret waits for an answer without end");
    commit(&mut net, 0);
    net.run_for(limits::HANDSHAKE_RETRY_MAX);
    assert_eq!(hellos(&net).1, 3, "a hello says how far its node has come");
    // What was said before the peer could hear it is answered when it is said again.
    let before = hellos(&net).1;
    net.start(1);
    net.bring_up();
    assert_eq!(hellos(&net).1, before);
}

#[test]
fn a_datagram_in_a_strangers_name_is_told_once() {
    let mut net = Net::new(3, 5, CLEAN);
    let stranger = net.config(2);
    let mut two = Net::new(2, 5, CLEAN);
    two.start(0);
    let mut links = Links::new(stranger, two.now);
    while let Some(output) = links.poll() {
        if let LinkOutput::Datagram { to, bytes } = output
            && to == id(0)
        {
            for _ in 0..100 {
                two.inject(0, &bytes);
            }
        }
    }
    assert_eq!(two.troubles(0), [Trouble::Stranger]);
    assert_eq!(two.links[0].as_ref().and_then(|l| l.incarnation_of(id(2))), None::<Incarnation>);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_garbage_is_survived(datagrams in prop::collection::vec(
        (0u8..6, 0u8..3, prop::collection::vec(any::<u8>(), 0..400)), 0..40,
    )) {
        let mut net = Net::started(2, 5, CLEAN);
        for (kind, version, rest) in datagrams {
            let mut bytes = vec![kind, version];
            bytes.extend_from_slice(&rest);
            net.inject(0, &bytes);
            // In the peer's name.
            bytes.splice(10.min(bytes.len())..26.min(bytes.len()), *id(1).as_bytes());
            net.inject(0, &bytes);
        }
        net.bring_up();
        prop_assert!(net.troubles(0).len() <= 12);
    }
}
