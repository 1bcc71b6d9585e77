//! A node that cheats in a consistency check of DKLs23: its pairs are banned, and the others go on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mpcium_core::{
    Duration,
    protocol::{
        Abort, AuxiliarySuite, Curve, DistributedKeyGeneration, Dkls, Frost, Incoming, Pace, Party, Run, Signing,
        SigningSuite, Step, Suites,
    },
    report::Report,
};

use crate::world::{World, keygen, sign};

/// Where the matrix of the extension begins in the first message of a signature.
const MATRIX: usize = 1 + 4 * 32;

/// DKLs23 that changes the extension of the first message as long as it is told to.
struct Cheating(Arc<AtomicBool>);

impl SigningSuite for Cheating {
    fn name(&self) -> &'static str {
        SigningSuite::name(&Dkls)
    }
    fn curve(&self) -> Curve {
        Curve::Secp256k1
    }
    fn pace(&self, parties: u16) -> Pace {
        SigningSuite::pace(&Dkls, parties)
    }
    fn auxiliary(&self) -> Option<&dyn AuxiliarySuite> {
        Some(&Dkls)
    }
    fn verify(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        Dkls.verify(public_key, message, signature)
    }
    fn start(&self, run: Run, signing: Signing) -> Result<Box<dyn Party>, Abort> {
        let honest = SigningSuite::start(&Dkls, run, signing)?;
        if self.0.load(Ordering::Relaxed) { Ok(Box::new(CheatingParty(honest))) } else { Ok(honest) }
    }
}

struct CheatingParty(Box<dyn Party>);

impl Party for CheatingParty {
    fn advance(&mut self, inbox: Vec<Incoming>) -> Step {
        let mut step = self.0.advance(inbox);
        for outgoing in step.messages.iter_mut().filter(|outgoing| outgoing.bytes.first() == Some(&0)) {
            outgoing.bytes[MATRIX] ^= 1;
        }
        step
    }
}

fn suites(secp256k1: Arc<dyn SigningSuite>) -> Suites {
    Suites { keygen: Arc::new(DistributedKeyGeneration), secp256k1, ed25519: Arc::new(Frost) }
}

/// Three nodes with a wallet and complete auxiliary data, of which node 1 cheats while the flag is set.
fn world() -> (World, Arc<AtomicBool>) {
    let cheats = Arc::new(AtomicBool::new(false));
    let honest = || suites(Arc::new(Dkls));
    let mut world = World::with_suites(2, vec![honest(), suites(Arc::new(Cheating(cheats.clone()))), honest()], |_| {});
    world.request(&keygen("w"));
    assert_eq!(world.result("w", None)["error_code"], "");
    let complete = |w: &mut World| (0..3).all(|i| agreed(w, i).len() == 2);
    assert!(world.run_until(Duration::from_secs(60), complete), "{:#?}", world.last_reports());
    (world, cheats)
}

/// The usable sets of a node, by members.
fn agreed(world: &World, i: usize) -> BTreeSet<Vec<String>> {
    world.node(i).status(world.now()).auxiliary_sets.into_iter().filter(|s| s.agreed).map(|s| s.members).collect()
}

/// The banned sets of a node, by members.
fn banned(world: &World, i: usize) -> Vec<Vec<String>> {
    let sets = world.node(i).status(world.now()).auxiliary_sets;
    sets.into_iter().filter(|s| !s.banned.is_empty()).map(|s| s.members).collect()
}

fn assert_signs(world: &mut World, tx: &str) {
    world.request(&sign("w", "secp256k1", tx, &[0x5a; 32], &[]));
    let result = world.result("w", Some(tx));
    assert_eq!(result["error_code"], "", "{result}");
}

fn pair(one: u8, other: u8) -> Vec<String> {
    vec![format!("node{one}"), format!("node{other}")]
}

#[test]
fn pairs_of_nodes_make_their_set_ups_and_every_pair_signs() {
    let (mut world, _) = world();
    for number in 0..6 {
        assert_signs(&mut world, &format!("t{number}"));
    }
    for dead in 0..3 {
        world.kill(dead);
        assert_signs(&mut world, &format!("without{dead}"));
        world.start(dead);
        world.run_for(Duration::from_secs(5));
    }
    assert!(!world.reports.iter().any(|(_, report)| matches!(report, Report::PairBanned { .. })));
}

#[test]
fn a_cheater_is_banned_from_its_pairs_by_both_sides_for_ever_and_the_others_go_on() {
    let (mut world, cheats) = world();
    cheats.store(true, Ordering::Relaxed);
    for number in 0..6 {
        assert_signs(&mut world, &format!("t{number}"));
    }
    world.run_for(Duration::from_secs(5));
    let (first, second) = (pair(0, 1), pair(1, 2));
    assert!(banned(&world, 0).iter().all(|of| *of == first) && !banned(&world, 0).is_empty());
    // Both sides know of every ban, and nothing left for the cheater before it was durable.
    for (honest, of) in [(0, &first), (2, &second)] {
        assert_eq!(banned(&world, honest).len(), usize::from(banned(&world, 1).contains(of)));
        assert_eq!(agreed(&world, honest).contains(of), banned(&world, honest).is_empty());
    }
    assert_eq!(world.sent_while_banning, 0);
    assert!(agreed(&world, 0).contains(&pair(0, 2)) && agreed(&world, 2).contains(&pair(0, 2)));

    // It survives restarts of all, and the pair does not try again soon.
    cheats.store(false, Ordering::Relaxed);
    let before: Vec<_> = (0..3).map(|i| banned(&world, i)).collect();
    (0..3).for_each(|i| world.kill(i));
    (0..3).for_each(|i| world.start(i));
    world.run_for(Duration::from_secs(120));
    assert_eq!((0..3).map(|i| banned(&world, i)).collect::<Vec<_>>(), before);
    assert!(!agreed(&world, 0).contains(&first));
    assert_signs(&mut world, "after");

    // New auxiliary data ends the exclusion, and the old stays banned.
    world.run_for(Duration::from_secs(700));
    assert!((0..3).all(|i| agreed(&world, i).len() == 2), "{:#?}", world.last_reports());
    assert_eq!((0..3).map(|i| banned(&world, i)).collect::<Vec<_>>(), before);
    world.kill(2);
    assert_signs(&mut world, "together again");
}

#[test]
fn a_node_that_lost_its_set_ups_makes_new_ones() {
    let (mut world, _) = world();
    world.kill(1);
    world.disk(1).retain(|(keyspace, _), _| *keyspace != mpcium_core::store::Keyspace::Auxiliary);
    world.start(1);
    world.run_for(Duration::from_secs(90));
    assert!((0..3).all(|i| agreed(&world, i).len() == 2), "{:#?}", world.last_reports());
    world.kill(0);
    assert_signs(&mut world, "t");
}
