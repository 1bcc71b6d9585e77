//! Links over a bad channel: delivery, order, lanes, restarts, timers, determinism.

mod link_support;

use link_support::{CLEAN, Faults, Net, id};
use mpcium_core::{
    Duration, limits,
    link::{DownReason, Lane, LinkOutput, SendError},
};
use proptest::prelude::*;

const LANES: [Lane; 3] = [Lane::Control, Lane::Signing, Lane::Bulk];

fn message(lane: usize, number: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![(lane * 31 + number * 7) as u8; length];
    for (at, byte) in (number as u32).to_le_bytes().into_iter().enumerate() {
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
    }
    bytes
}

#[test]
fn both_sides_starting_at_once_come_up_once() {
    for seed in 0..20 {
        let mut net = Net::started(3, seed, CLEAN);
        net.bring_up();
        net.run_for(Duration::from_secs(10));
        assert!(net.all_up());
        for node in 0..3 {
            assert_eq!(net.ups(node).len(), 2, "{:?}", net.tail());
            assert_eq!(net.downs(node), []);
            assert_eq!(net.troubles(node), []);
        }
    }
}

#[test]
fn a_node_that_starts_later_waits_for_no_timer_of_those_that_run() {
    for (first, second) in [(0, 1), (1, 0)] {
        for later in [0, 1, 20, 100, 249, 250, 251, 400, 3000] {
            let mut net = Net::new(2, later, CLEAN);
            net.start(first);
            if later > 0 {
                net.run_for(Duration::from_millis(later));
            }
            net.start(second);
            net.run_until(Duration::from_millis(5), &format!("{second} came up {later} ms later"), Net::all_up);
        }
    }
}

#[test]
fn a_message_crosses_a_clean_channel_without_waiting_for_a_timer() {
    let mut net = Net::started(2, 1, CLEAN);
    net.bring_up();
    net.run_for(Duration::from_secs(1));
    let before = net.now;
    assert!(net.send(0, 1, Lane::Signing, b"round one".to_vec()));
    net.run_until(Duration::from_secs(1), "delivery", |n| !n.received(1, Lane::Signing).is_empty());
    assert!(net.now.since(before) <= Duration::from_micros(CLEAN.delay));
}

#[test]
fn small_messages_of_one_drain_share_a_packet_and_answers_carry_acknowledgements() {
    let mut net = Net::started(2, 1, CLEAN);
    net.bring_up();
    net.run_for(Duration::from_millis(1200));
    let before = net.recorded.len();
    let now = net.now;
    for number in 0..5 {
        let links = net.links[0].as_mut().expect("started");
        links.send(now, id(1), Lane::Signing, message(1, number, 40)).expect("up");
    }
    net.drain(0);
    assert_eq!(net.recorded.len() - before, 1);
    net.run_until(Duration::from_secs(1), "delivery", |n| n.received(1, Lane::Signing).len() == 5);
    assert_eq!(net.recorded.len() - before, 1, "an acknowledgement left although an answer may follow");
    assert!(net.send(1, 0, Lane::Signing, b"answer".to_vec()));
    assert_eq!(net.recorded.len() - before, 2);
}

#[test]
fn bulk_does_not_block_signing() {
    for loss in [0, 10] {
        let mut net = Net::started(2, 3, Faults { loss, ..CLEAN });
        net.bring_up();
        for number in 0..3 {
            assert!(net.send(0, 1, Lane::Bulk, message(2, number, limits::MESSAGE_BYTES_MAX)));
        }
        assert!(net.send(0, 1, Lane::Signing, b"urgent".to_vec()));
        net.run_until(Duration::from_secs(10), "signing", |n| !n.received(1, Lane::Signing).is_empty());
        assert_eq!(net.count(1, Lane::Bulk), 0, "the signature came after 8 MiB queued before it");
        net.run_until(Duration::from_secs(600), "bulk", |n| n.count(1, Lane::Bulk) == 3);
        assert_eq!(net.received(1, Lane::Bulk)[2], message(2, 2, limits::MESSAGE_BYTES_MAX));
    }
}

#[test]
fn a_full_lane_refuses_and_leaves_the_other_lanes_open() {
    let mut net = Net::started(2, 3, CLEAN);
    net.bring_up();
    net.cut.insert(1);
    let mut taken = 0;
    while net.send(0, 1, Lane::Bulk, vec![1; limits::MESSAGE_BYTES_MAX]) {
        taken += limits::MESSAGE_BYTES_MAX;
        assert!(taken <= limits::LANE_BYTES_MAX);
    }
    assert_eq!(taken, limits::LANE_BYTES_MAX);
    let now = net.now;
    let links = net.links[0].as_mut().expect("started");
    assert_eq!(links.send(now, id(1), Lane::Bulk, vec![1]), Err(SendError::Full));
    assert_eq!(links.send(now, id(1), Lane::Signing, vec![1]), Ok(()));
    assert_eq!(links.send(now, id(1), Lane::Signing, vec![1; limits::MESSAGE_BYTES_MAX + 1]), Err(SendError::Full));
    assert_eq!(links.send(now, id(1), Lane::Signing, Vec::new()), Err(SendError::Full), "nobody says nothing");
    let mut small = 0;
    while links.send(now, id(1), Lane::Control, vec![1]).is_ok() {
        small += 1;
        assert!(small <= limits::LANE_FRAGMENTS_MAX);
    }
}

#[test]
fn a_restarted_peer_goes_down_and_up_and_its_old_messages_stay_out() {
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    let old = net.ups(0)[0].1;
    // On its way when the peer restarts.
    for number in 0..20 {
        net.send(1, 0, Lane::Control, message(0, number, 100));
    }
    let late: Vec<Vec<u8>> = net.recorded.iter().filter(|(from, ..)| *from == 1).map(|r| r.2.clone()).collect();
    net.start(1);
    net.run_until(Duration::from_secs(10), "the new start", |n| n.ups(0).len() == 2 && n.all_up());
    let at = net.log.len();
    for bytes in late {
        net.inject(0, &bytes);
    }
    net.run_for(Duration::from_secs(5));
    assert_eq!(net.downs(0), [(id(1), old, DownReason::Restarted)]);
    assert_eq!(net.troubles(0), []);
    assert!(!net.log[at..].iter().any(|(n, o)| *n == 0 && matches!(o, LinkOutput::Message { .. })));
    assert!(net.send(0, 1, Lane::Control, b"hello again".to_vec()));
    net.run_until(Duration::from_secs(5), "delivery", |n| n.received(1, Lane::Control) == [b"hello again"]);
}

#[test]
fn silence_takes_the_link_down_and_the_peer_comes_back() {
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    net.cut.insert(1);
    net.run_until(Duration::from_secs(10), "down", |n| !n.is_up(0, 1) && !n.is_up(1, 0));
    assert_eq!(net.downs(0)[0].2, DownReason::Silent);
    let now = net.now;
    let refused = net.links[0].as_mut().map(|l| l.send(now, id(1), Lane::Control, vec![1]));
    assert_eq!(refused, Some(Err(SendError::NotUp)));
    let state = net.links[0].as_ref().map(|l| l.states()[0].clone()).expect("started");
    assert!(state.up_since.is_none() && !state.waits_for.is_empty());
    net.run_for(Duration::from_secs(120));
    net.cut.clear();
    net.bring_up();
}

#[test]
fn a_peer_that_leaves_is_down_at_once_and_its_goodbye_ends_no_later_link() {
    let mut net = Net::started(3, 5, CLEAN);
    net.bring_up();
    let before = net.recorded.len();
    let now = net.now;
    net.links[1].as_mut().expect("started").leave(now);
    net.drain(1);
    net.links[1] = None;
    let goodbyes = net.recorded[before..].to_vec();
    net.run_until(Duration::from_millis(100), "down", |n| !n.is_up(0, 1) && !n.is_up(2, 1));
    assert!([0, 2].iter().all(|node| net.downs(*node).last().expect("down").2 == DownReason::Left));
    assert!(net.is_up(0, 2) && net.is_up(2, 0), "nobody else has left");
    net.run_for(Duration::from_secs(20));
    net.start(1);
    net.bring_up();
    for (_, to, mut bytes) in goodbyes {
        net.inject(to, &bytes);
        *bytes.last_mut().expect("a packet") ^= 1;
        net.inject(to, &bytes);
    }
    assert!(net.all_up());
}

#[test]
fn an_idle_cluster_wakes_rarely() {
    let mut net = Net::started(2, 5, CLEAN);
    net.bring_up();
    net.run_for(Duration::from_secs(2));
    let (steps, datagrams) = (net.steps, net.recorded.len());
    net.run_for(Duration::from_secs(10));
    assert!(net.recorded.len() - datagrams <= 44, "{} heartbeats", net.recorded.len() - datagrams);
    assert!(net.steps - steps <= 120, "{} steps", net.steps - steps);
}

#[test]
fn a_link_waits_for_the_disk_and_then_comes_up() {
    let mut net = Net::new(2, 5, CLEAN);
    net.fast_disk = false;
    net.start(0);
    net.start(1);
    net.run_for(Duration::from_secs(20));
    assert!(!net.is_up(0, 1) && !net.is_up(1, 0));
    let mut done = 0;
    let end = net.now.after(Duration::from_secs(30));
    while !net.all_up() {
        assert!(net.now < end, "{:?}", net.tail());
        while let Some((node, output)) = net.log.get(done).cloned() {
            done += 1;
            if let LinkOutput::Remember { peer, mark } = output {
                net.persist(node, peer, mark);
                net.drain(node);
            }
        }
        net.step();
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let mut net = Net::started(3, 9, Faults { loss: 15, duplication: 10, corruption: 3, delay: 40_000 });
        net.bring_up();
        for number in 0..30 {
            net.send(number % 3, (number + 1) % 3, LANES[number % 3], message(0, number, number * 4001));
        }
        net.run_for(Duration::from_secs(20));
        (net.recorded, net.log)
    };
    assert!(run() == run());
}

#[test]
fn no_counter_is_used_twice_on_a_link() {
    let mut net = Net::started(2, 11, Faults { loss: 30, duplication: 10, corruption: 0, delay: 50_000 });
    net.bring_up();
    for number in 0..60 {
        net.send(number % 2, 1 - number % 2, LANES[number % 3], message(0, number, 5000));
    }
    net.start(1);
    net.run_for(Duration::from_secs(30));
    let mut seen = std::collections::BTreeSet::new();
    let mut packets = 0;
    for (from, _, bytes) in net.recorded.iter().filter(|r| r.2[0] == 4) {
        packets += 1;
        assert!(seen.insert((*from, bytes[2..18].to_vec())), "link id and counter sent twice by node {from}");
    }
    assert!(packets > 100);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_message_arrives_once_and_in_order_in_its_lane(
        seed in any::<u64>(),
        loss in 0u64..35,
        duplication in 0u64..30,
        corruption in 0u64..10,
        delay in 1u64..150_000,
        messages in prop::collection::vec((0usize..2, 0usize..3, prop_oneof![1usize..200, 60_000usize..300_000]), 1..60),
    ) {
        let mut net = Net::started(2, seed, Faults { loss, duplication, corruption, delay });
        net.bring_up();
        let incarnations = (net.ups(0).len(), net.ups(1).len());
        let mut expected = vec![vec![Vec::new(); 3]; 2];
        for (number, (from, lane, length)) in messages.into_iter().enumerate() {
            let bytes = message(lane, number, length);
            if net.send(from, 1 - from, LANES[lane], bytes.clone()) {
                expected[1 - from][lane].push(bytes);
            }
            if number % 3 == 0 {
                net.step();
            }
        }
        let complete = |net: &Net| (0..2).all(|node| (0..3).all(|lane| {
            net.received(node, LANES[lane]).len() >= expected[node][lane].len()
        }));
        let end = net.now.after(Duration::from_secs(120));
        while !complete(&net) && net.now < end && (net.ups(0).len(), net.ups(1).len()) == incarnations {
            net.step();
        }
        net.run_for(Duration::from_secs(1));
        // A link that went silent by bad luck loses its tail; it never repeats or reorders.
        let unbroken = (net.ups(0).len(), net.ups(1).len()) == incarnations
            && net.downs(0).is_empty() && net.downs(1).is_empty();
        for (node, lanes) in expected.iter().enumerate() {
            for (lane, sent) in LANES.into_iter().zip(lanes) {
                let received = net.received(node, lane);
                if unbroken {
                    prop_assert_eq!(&received, sent);
                } else {
                    prop_assert!(sent.starts_with(&received));
                }
            }
        }
    }

    #[test]
    fn links_heal_after_any_restarts_and_cuts(
        seed in any::<u64>(),
        events in prop::collection::vec((0usize..3, any::<bool>(), 1u64..4000), 1..12),
    ) {
        let mut net = Net::started(3, seed, Faults { loss: 10, duplication: 10, corruption: 2, delay: 30_000 });
        for (node, restart, pause) in events {
            if restart {
                net.start(node);
            } else if !net.cut.remove(&node) {
                net.cut.insert(node);
            }
            net.run_for(Duration::from_millis(pause));
        }
        net.cut.clear();
        net.run_until(Duration::from_secs(60), "healed", Net::all_up);
        net.faults = CLEAN;
        net.run_for(Duration::from_secs(8));
        prop_assert!(net.all_up());
        for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
            let before = net.received(to, Lane::Signing).len();
            prop_assert!(net.send(from, to, Lane::Signing, vec![from as u8]));
            net.run_until(Duration::from_secs(5), "delivery", |n| n.received(to, Lane::Signing).len() > before);
        }
        for node in 0..3 {
            prop_assert!(!net.troubles(node).iter().any(mpcium_core::link::Trouble::is_alarm), "{:?}", net.troubles(node));
        }
    }
}
