//! A node that cheats in DKLs23: exactly where a failed check says something about the set-up of a pair, that set-up is
//! banned for ever, by both sides; and whatever fails, the others go on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use mpcium_core::{
    Duration, Secret,
    protocol::{
        Abort, AuxiliarySet, AuxiliarySuite, Coverage, Curve, DistributedKeyGeneration, Dkls, Frost, Incoming, Pace,
        Party, Run, Signing, SigningSuite, Step, Suites,
    },
    report::Report,
    store::Keyspace,
};

use crate::world::{Disk, World, keygen, sign};

/// What is done to a message.
type Change = fn(&mut Vec<u8>);

/// What is changed of which message.
#[derive(Clone, Copy, Debug)]
struct Cheat {
    phase: Phase,
    round: u8,
    /// At which position the receiver of the message is that is changed; all are if this says nothing.
    to: Option<u16>,
    change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    SetUp,
    Signing,
}

/// What the cheater is told to do, and how often it has done it.
#[derive(Clone, Default)]
struct Orders(Arc<Mutex<(Option<Cheat>, usize)>>);

impl Orders {
    fn give(&self, cheat: Option<Cheat>) {
        *self.0.lock().expect("no panic") = (cheat, 0);
    }

    fn carried_out(&self) -> usize {
        self.0.lock().expect("no panic").1
    }

    fn watch(&self, phase: Phase, honest: Box<dyn Party>) -> Box<dyn Party> {
        Box::new(CheatingParty { orders: self.clone(), phase, honest })
    }
}

/// DKLs23 that changes messages as it is told.
struct Cheating(Orders);

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
        Some(self)
    }
    fn verify(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        Dkls.verify(public_key, message, signature)
    }
    fn start(&self, run: Run, signing: Signing) -> Result<Box<dyn Party>, Abort> {
        Ok(self.0.watch(Phase::Signing, SigningSuite::start(&Dkls, run, signing)?))
    }
}

impl AuxiliarySuite for Cheating {
    fn coverage(&self) -> Coverage {
        Dkls.coverage()
    }
    fn pace(&self, parties: u16) -> Pace {
        AuxiliarySuite::pace(&Dkls, parties)
    }
    fn ingredient_pieces(&self) -> u16 {
        Dkls.ingredient_pieces()
    }
    fn make_ingredient_piece(&self, seed: [u8; 32]) -> Secret {
        Dkls.make_ingredient_piece(seed)
    }
    fn start(&self, run: Run, ingredient: Vec<Secret>) -> Result<Box<dyn Party>, Abort> {
        Ok(self.0.watch(Phase::SetUp, AuxiliarySuite::start(&Dkls, run, ingredient)?))
    }
    fn check(&self, set: &AuxiliarySet, index: u16) -> Result<(), Abort> {
        Dkls.check(set, index)
    }
}

struct CheatingParty {
    orders: Orders,
    phase: Phase,
    honest: Box<dyn Party>,
}

impl Party for CheatingParty {
    fn advance(&mut self, inbox: Vec<Incoming>) -> Step {
        let mut step = self.honest.advance(inbox);
        let mut orders = self.orders.0.lock().expect("no panic");
        let (Some(cheat), times) = &mut *orders else { return step };
        if cheat.phase == self.phase {
            let chosen = |to: Option<u16>| cheat.to.is_none() || cheat.to == to;
            for outgoing in step.messages.iter_mut().filter(|m| m.bytes.first() == Some(&cheat.round) && chosen(m.to)) {
                (cheat.change)(&mut outgoing.bytes);
                *times += 1;
            }
        }
        step
    }
}

fn suites(secp256k1: Arc<dyn SigningSuite>) -> Suites {
    Suites { keygen: Arc::new(DistributedKeyGeneration), secp256k1, ed25519: Arc::new(Frost) }
}

/// Three nodes with a wallet and complete auxiliary data, of which node 1 cheats when it is told to.
fn world() -> (World, Orders) {
    world_of(2)
}

/// As [`world`], with so many signers.
fn world_of(threshold: u16) -> (World, Orders) {
    let orders = Orders::default();
    let honest = || suites(Arc::new(Dkls));
    let mut world =
        World::with_suites(threshold, vec![honest(), suites(Arc::new(Cheating(orders.clone()))), honest()], |_| {});
    world.request(&keygen("w"));
    assert_eq!(world.result("w", None)["error_code"], "");
    assert_complete(&mut world, 60);
    (world, orders)
}

fn assert_complete(world: &mut World, seconds: u64) {
    let complete = |w: &mut World| (0..3).all(|i| agreed(w, i).len() == 2);
    assert!(world.run_until(Duration::from_secs(seconds), complete), "{:#?}", world.last_reports());
}

fn disks(world: &mut World) -> Vec<Disk> {
    (0..3).map(|i| world.disk(i).clone()).collect()
}

/// Everything is again as it was when the disks were copied, at all nodes.
fn go_back(world: &mut World, disks: &[Disk]) {
    for (i, disk) in disks.iter().enumerate() {
        world.kill(i);
        world.disk(i).clone_from(disk);
    }
    (0..3).for_each(|i| world.start(i));
    world.reports.clear();
    world.run_for(Duration::from_secs(2));
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
    assert_signed(world, tx);
}

fn assert_signed(world: &mut World, tx: &str) {
    let result = world.result("w", Some(tx));
    assert_eq!(result["error_code"], "", "{result}");
}

/// Honest nodes coordinate signatures until the cheater has had its part in some.
fn sign_with_the_cheater(world: &mut World, name: &str) {
    for number in 0..6 {
        let tx = format!("{name} {number}");
        world.request_to(2 * (number % 2), &sign("w", "secp256k1", &tx, &[0x5a; 32], &[]));
        assert_signed(world, &tx);
    }
    world.run_for(Duration::from_secs(5));
}

fn pair(one: u8, other: u8) -> Vec<String> {
    vec![format!("node{one}"), format!("node{other}")]
}

/// Who found what about whom: the bans that honest nodes found themselves.
fn found(world: &World) -> Vec<(usize, String)> {
    let bans = world.reports.iter().filter_map(|(i, report)| match report {
        Report::PairBanned { peer, by, .. } if *by == format!("node{i}") => Some((*i, peer.clone())),
        _ => None,
    });
    bans.collect()
}

/// Failed signatures at honest nodes, and whom they name.
fn failures(world: &World) -> Vec<Vec<String>> {
    let ends = world.reports.iter().filter_map(|(i, report)| match report {
        Report::SessionEnded { protocol, reason, culprits, .. }
            if *i != 1 && protocol != "keygen" && !reason.is_empty() && !reason.contains("gave up") =>
        {
            Some(culprits.clone())
        }
        _ => None,
    });
    ends.collect()
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
fn a_cheat_in_any_message_of_a_signature_bans_exactly_where_it_touches_the_set_up() {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Expected {
        Nobody,
        Blames,
        Bans,
    }
    use Expected::{Bans, Blames, Nobody};
    fn flip(bytes: &mut [u8], at: usize) {
        bytes[at] ^= 1;
    }
    // Where the fields lie: `core/src/protocol/dkls/wire.rs`, behind the byte that numbers the round. All of them are
    // tried between two parties in `core/src/protocol/dkls/tests.rs`.
    const MATRIX: usize = 1 + 4 * 32;
    const GAMMA_U: usize = 1 + 2 * 32;
    const PSI: usize = GAMMA_U + 4 * 33;
    const CORRECTIONS: usize = PSI + 32 + 64;
    let cheats: [(&str, Expected, u8, Change); 12] = [
        ("the commitment to the nonce point", Nobody, 0, |m| flip(m, 1)),
        ("the binding to the session", Blames, 0, |m| flip(m, 1 + 32)),
        ("the extension's matrix", Bans, 0, |m| flip(m, MATRIX)),
        ("the extension's last check value", Bans, 0, |m| m.last_mut().into_iter().for_each(|byte| *byte ^= 1)),
        ("the length of round 0", Blames, 0, |m| m.truncate(m.len() - 1)),
        ("the echo", Nobody, 1, |m| flip(m, 1)),
        ("a check point", Bans, 1, |m| flip(m, GAMMA_U)),
        ("the nonce's mask", Blames, 1, |m| flip(m, PSI + 31)),
        ("a correction", Bans, 1, |m| flip(m, CORRECTIONS + 31)),
        ("the last adjustment", Bans, 1, |m| m.last_mut().into_iter().for_each(|byte| *byte ^= 1)),
        ("a summand", Nobody, 2, |m| flip(m, 32)),
        ("a round that does not exist", Blames, 2, |m| m[0] = 3),
    ];
    let (mut world, orders) = world();
    let disks = disks(&mut world);
    for (number, (what, expected, round, change)) in cheats.into_iter().enumerate() {
        go_back(&mut world, &disks);
        orders.give(Some(Cheat { phase: Phase::Signing, round, to: None, change }));
        sign_with_the_cheater(&mut world, &format!("cheat {number}"));
        assert!(orders.carried_out() > 0, "{what}");
        orders.give(None);

        let (found, failures) = (found(&world), failures(&world));
        assert!(!failures.is_empty(), "{what}: nobody noticed");
        assert!(failures.iter().flatten().all(|culprit| culprit == "node1"), "{what}: {failures:?}");
        assert_eq!(failures.iter().any(|culprits| !culprits.is_empty()), expected != Nobody, "{what}: {failures:?}");
        assert_eq!(!found.is_empty(), expected == Bans, "{what}: {found:?}");
        assert!(found.iter().all(|(by, peer)| *by != 1 && peer == "node1"), "{what}: {found:?}");
        // Both sides know of every ban, nothing left for the cheater before it was durable, and the honest pair signs.
        for (honest, of) in [(0, pair(0, 1)), (2, pair(1, 2))] {
            let banned_here = found.iter().any(|(by, _)| *by == honest);
            assert_eq!(banned(&world, honest).contains(&of), banned_here, "{what}");
            assert_eq!(banned(&world, 1).contains(&of), banned_here, "{what}");
            assert_eq!(agreed(&world, honest).contains(&of), !banned_here, "{what}");
            assert!(agreed(&world, honest).contains(&pair(0, 2)), "{what}");
        }
        assert_eq!(world.sent_while_banning, 0, "{what}");
    }
}

#[test]
fn a_cheat_in_any_message_of_a_set_up_bans_nobody_and_the_others_sign() {
    let (mut world, orders) = world();
    let mut disks = disks(&mut world);
    disks.iter_mut().for_each(|disk| disk.retain(|(keyspace, _), _| *keyspace != Keyspace::Auxiliary));
    for round in 0..2 {
        orders.give(Some(Cheat { phase: Phase::SetUp, round, to: None, change: |m| m[40] ^= 1 }));
        go_back(&mut world, &disks);
        let noticed = |w: &mut World| agreed(w, 0).contains(&pair(0, 2)) && failures(w).len() >= 2;
        assert!(world.run_until(Duration::from_secs(60), noticed), "{:#?}", world.last_reports());
        assert!(failures(&world).iter().all(|culprits| *culprits == ["node1"]), "{:?}", failures(&world));
        for number in 0..2 {
            let tx = format!("while round {round} is wrong {number}");
            world.request_to(2 * number, &sign("w", "secp256k1", &tx, &[0x5a; 32], &[]));
            assert_signed(&mut world, &tx);
        }
        assert!((0..3).all(|i| banned(&world, i).is_empty()), "round {round}");
        assert_eq!(agreed(&world, 1).len(), 0, "round {round}");
        // A failed set-up leaves nothing behind: the next one is like the first.
        orders.give(None);
        assert_complete(&mut world, 180);
    }
}

/// Makes node 0 ban its pair with node 1, which stops the moment that it is found out if `stop` says so.
fn ban(world: &mut World, orders: &Orders, tx: &str, stop: bool) {
    let known = banned(world, 0).len();
    let cheat = Cheat { phase: Phase::Signing, round: 0, to: None, change: |m| m[200] ^= 1 };
    orders.give(Some(cheat));
    world.kill(2);
    world.request_to(0, &sign("w", "secp256k1", tx, &[0x5a; 32], &[]));
    let found = |w: &mut World| banned(w, 0).len() > known;
    assert!(world.run_until(Duration::from_secs(60), found), "{:#?}", world.last_reports());
    if stop {
        world.kill(1);
    }
    orders.give(None);
    world.start(2);
    assert_signed(world, tx);
}

#[test]
fn among_three_signers_only_the_pair_that_a_failed_check_is_about_is_banned_and_by_nobody_else() {
    for round in 0..2 {
        let (mut world, orders) = world_of(3);
        // A row of the extension's matrix, and a correction.
        let change: Change = if round == 0 { |m| m[200] ^= 1 } else { |m| m[1 + 2 * 32 + 4 * 33 + 32 + 64 + 31] ^= 1 };
        orders.give(Some(Cheat { phase: Phase::Signing, round, to: Some(0), change }));
        world.request_to(2, &sign("w", "secp256k1", "tx", &[0x5a; 32], &[]));
        let both = |w: &mut World| (0..2).all(|i| banned(w, i) == [pair(0, 1)]);
        assert!(world.run_until(Duration::from_secs(60), both), "round {round}: {:#?}", world.last_reports());
        world.run_for(Duration::from_secs(20));
        assert_eq!(found(&world), [(0, "node1".to_owned())], "round {round}");
        assert_eq!((banned(&world, 0).len(), banned(&world, 1).len(), banned(&world, 2).len()), (1, 1, 0));
        assert_eq!(agreed(&world, 2), [pair(0, 2), pair(1, 2)].into(), "round {round}");
    }
}

#[test]
fn a_check_that_fails_after_the_session_was_given_up_bans_all_the_same() {
    let (mut world, orders) = world();
    orders.give(Some(Cheat { phase: Phase::Signing, round: 0, to: None, change: |m| m[200] ^= 1 }));
    world.kill(2);
    // Both of its steps together take longer than a session lasts.
    world.eager.insert(0);
    world.work.insert(0, Some(20_000_000));
    world.request_to(0, &sign("w", "secp256k1", "tx", &[0x5a; 32], &[]));
    let given_up = |w: &mut World| {
        let ends = w.reports.iter().filter(|(i, report)| match report {
            Report::SessionEnded { protocol, reason, .. } => {
                *i == 0 && protocol == "sign secp256k1" && reason.contains("took longer")
            }
            _ => false,
        });
        ends.count() > 0
    };
    assert!(world.run_until(Duration::from_secs(60), given_up), "{:#?}", world.last_reports());
    orders.give(None);
    assert!(banned(&world, 0).is_empty(), "{:#?}", world.last_reports());
    let both = |w: &mut World| (0..2).all(|i| banned(w, i) == [pair(0, 1)]);
    assert!(world.run_until(Duration::from_secs(15), both), "{:#?}", world.last_reports());
}

#[test]
fn a_member_that_missed_the_ban_learns_of_it_when_the_two_meet_and_keeps_it() {
    let (mut world, orders) = world();
    ban(&mut world, &orders, "found out", true);
    // Node 1 comes back with a disk that knows nothing of it; the link carries it over before anything is signed.
    world.start(1);
    let told = |w: &mut World| banned(w, 1) == [pair(0, 1)];
    assert!(world.run_until(Duration::from_secs(20), told), "{:#?}", world.last_reports());
    assert!(!agreed(&world, 1).contains(&pair(0, 1)));
    // It is on its disk now, and does not hang on the other's word.
    world.kill(0);
    world.kill(1);
    world.start(1);
    assert_eq!(banned(&world, 1), [pair(0, 1)]);
    assert_signs(&mut world, "the others");
    world.start(0);
    for number in 0..6 {
        assert_signs(&mut world, &format!("t{number}"));
    }
    let together = |(_, report): &(usize, Report)| match report {
        Report::SessionStarted { protocol, participants, .. } => {
            protocol == "sign secp256k1" && *participants == pair(0, 1)
        }
        _ => false,
    };
    let at = world.reports.iter().rposition(|(_, report)| matches!(report, Report::PairBanned { .. }));
    assert!(!world.reports[at.expect("banned")..].iter().any(together), "a banned pair signed");
}

#[test]
fn a_pair_makes_a_new_set_up_only_after_a_wait_that_doubles_with_every_ban_and_outlasts_restarts() {
    let (mut world, orders) = world();
    for (number, minutes) in [10, 20].into_iter().enumerate() {
        ban(&mut world, &orders, &format!("ban {number}"), false);
        let bans: BTreeSet<_> = banned(&world, 0).into_iter().collect();
        assert_eq!((banned(&world, 0).len(), bans), (number + 1, [pair(0, 1)].into()));
        world.run_for(Duration::from_secs(minutes * 30));
        (0..2).for_each(|i| world.kill(i));
        (0..2).for_each(|i| world.start(i));
        world.run_for(Duration::from_secs(minutes * 30 - 60));
        assert!(!agreed(&world, 0).contains(&pair(0, 1)), "too early after ban {number}");
        assert_complete(&mut world, 180);
        // The old ones stay banned, and the new one signs.
        assert_eq!(banned(&world, 0).len(), number + 1);
        assert_eq!(banned(&world, 1).len(), number + 1);
        world.kill(2);
        assert_signs(&mut world, &format!("together again {number}"));
        world.start(2);
        world.run_for(Duration::from_secs(5));
    }
}

#[test]
fn a_node_that_lost_its_set_ups_makes_new_ones() {
    let (mut world, _) = world();
    world.kill(1);
    world.disk(1).retain(|(keyspace, _), _| *keyspace != Keyspace::Auxiliary);
    world.start(1);
    assert_complete(&mut world, 90);
    world.kill(0);
    assert_signs(&mut world, "t");
}

/// The names of a node's auxiliary records.
fn records(world: &mut World, i: usize) -> BTreeSet<Vec<u8>> {
    let names = world.disk(i).keys().filter(|(keyspace, _)| *keyspace == Keyspace::Auxiliary);
    names.map(|(_, name)| name.clone()).collect()
}

#[test]
fn a_node_whose_store_was_put_back_gives_up_its_set_ups_and_makes_new_ones() {
    let (mut world, _) = world();
    let (disk, before) = (world.disk(1).clone(), records(&mut world, 1));
    for number in 0..4 {
        assert_signs(&mut world, &format!("later {number}"));
    }
    world.run_for(Duration::from_secs(5));
    world.kill(1);
    world.disk(1).clone_from(&disk);
    world.start(1);
    let gone = |w: &mut World| records(w, 1).is_disjoint(&before);
    assert!(world.run_until(Duration::from_secs(30), gone), "{:#?}", world.last_reports());
    // The others' halves are of no use without this node's.
    let replaced = |w: &mut World| (0..3).all(|i| records(w, i).is_disjoint(&before) && agreed(w, i).len() == 2);
    assert!(world.run_until(Duration::from_secs(120), replaced), "{:#?}", world.last_reports());
    assert!((0..3).all(|i| banned(&world, i).is_empty()));
}
