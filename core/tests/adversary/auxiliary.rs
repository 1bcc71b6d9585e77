//! A liar among those who make auxiliary data: what they compute for it, and what they keep.

use super::{Liar, Playing, world::World};
use crate::{
    Duration, Incarnation, NodeId, Secret,
    auxiliary::{Agreed, Message as Auxiliary, Proposal},
    link::Lane,
    message::{Message, SessionMessage},
    protocol::{AuxiliarySet, Outcome, Run},
    store::Keyspace,
};

/// Three nodes that keep an ingredient in reserve, of whom two sign.
fn world() -> World {
    World::with(3, 2, |config| config.ingredients_reserve = 1)
}

fn has_ingredient(world: &World, node: usize) -> bool {
    let ingredients = world.node(node).status(world.now()).ingredients;
    ingredients.pieces >= ingredients.wanted
}

fn sets(world: &mut World, node: usize) -> usize {
    world.disk(node).keys().filter(|(of, _)| *of == Keyspace::Auxiliary).count()
}

/// Why a node does not join a run; nothing if it does.
pub(super) fn refused(world: &mut World, liar: &mut Liar, to: usize, proposal: &Proposal) -> Option<String> {
    let (from, asked) = (world.id(to), proposal.session());
    let at = liar.heard.len();
    liar.say(world, to, Lane::Bulk, &Message::Auxiliary(Auxiliary::Propose(proposal.clone())));
    liar.run_for(world, Duration::from_millis(20));
    liar.heard[at..].iter().find_map(|(by, message)| match message {
        Message::Session(SessionMessage::Abort { session, reason }) if *by == from && *session == asked => {
            Some(reason.clone())
        }
        _ => None,
    })
}

/// A run that the liar, who is the first of all, proposes and completes, and what it made; or why the others do not join.
fn run(world: &mut World, liar: &mut Liar, number: u8) -> Result<AuxiliarySet, String> {
    let participants = liar.participants(world);
    let proposal = Proposal::new(participants.clone(), [number; 16]);
    for node in [1, 2] {
        if let Some(reason) = refused(world, liar, node, &proposal) {
            return Err(reason);
        }
    }
    let suite = world.suites(0).secp256k1.clone();
    let auxiliary = suite.auxiliary().expect("it has some");
    let pieces = (0..auxiliary.ingredient_pieces())
        .map(|piece| auxiliary.make_ingredient_piece([number ^ (0x80 + u8::try_from(piece).expect("few pieces")); 32]));
    let run = Run { execution_id: proposal.execution_id(suite.name()), index: 0, parties: 3, seed: [number; 32] };
    let party = auxiliary.start(run, pieces.collect::<Vec<Secret>>()).expect("a possible run");
    let participants = participants.into_iter().map(|(node, _)| node).collect::<Vec<NodeId>>();
    let playing = Playing { participants, lane: Lane::Bulk, party };
    let outcome = liar.take_part(world, proposal.session(), playing);
    let Outcome::Auxiliary(set) = outcome else { panic!("no auxiliary set: {outcome:?}") };
    liar.run_for(world, Duration::from_millis(100));
    Ok(set)
}

/// The liar tells the others which sets it holds, and gives its word on them.
fn says(world: &mut World, liar: &mut Liar, sets: &[[u8; 32]], agreed: &[Agreed]) {
    let (sets, agreed) = (sets.to_vec(), agreed.to_vec());
    let state = Auxiliary::State { has_ingredient: true, sets, agreed, pairs: Vec::new(), banned: Vec::new() };
    (1..3).for_each(|node| liar.say(world, node, Lane::Control, &Message::Auxiliary(state.clone())));
    liar.run_for(world, Duration::from_millis(100));
}

/// Long enough for links to go on, in steps that are not too small.
pub(super) fn wait(world: &mut World, liar: &mut Liar, time: Duration) {
    let end = world.now().time.after(time);
    while world.now().time < end {
        world.run_for(Duration::from_millis(100));
        liar.work(world);
    }
}

#[test]
fn nobody_joins_a_run_for_members_that_have_a_set() {
    let mut world = world();
    let complete = |world: &mut World| {
        let agreed = |node| world.node(node).status(world.now()).auxiliary_sets.iter().any(|set| set.agreed);
        (0..3).all(|node| agreed(node) && has_ingredient(world, node))
    };
    assert!(world.run_until(Duration::from_secs(60), complete), "{:#?}", world.last_reports());
    let mut liar = Liar::new(&mut world, 0);
    let reason = run(&mut world, &mut liar, 1).expect_err("they have a set");
    assert!(reason.contains("have a set"), "{reason}");
    let told = |(_, message): &(NodeId, Message)| matches!(message, Message::Auxiliary(Auxiliary::State { .. }));
    assert!(liar.heard.iter().any(told), "whoever proposes does not know it");
}

#[test]
fn only_the_first_of_the_members_proposes_a_run() {
    let mut world = world();
    let mut liar = Liar::new(&mut world, 2);
    assert!(liar.until(&mut world, |_, world| (0..2).all(|node| has_ingredient(world, node))));
    let mut participants: Vec<(NodeId, Incarnation)> = liar.participants(&world);
    let all = Proposal::new(participants.clone(), [1; 16]);
    let reason = refused(&mut world, &mut liar, 1, &all).expect("the first one is node 0");
    assert!(reason.contains("first of the members"), "{reason}");
    participants.remove(0);
    let without = Proposal::new(participants, [2; 16]);
    let reason = refused(&mut world, &mut liar, 1, &without).expect("the first one is node 1");
    assert!(reason.contains("first of the members"), "{reason}");
}

/// It completes each run, keeps its word on the set back, and begins again.
#[test]
fn a_proposer_to_whose_sets_nobody_can_agree_waits_longer_and_longer_and_fills_no_store() {
    let mut world = world();
    let mut liar = Liar::new(&mut world, 0);
    assert!(liar.until(&mut world, |_, world| (1..3).all(|node| has_ingredient(world, node))));
    let mut pause = Duration::from_secs(30);
    for number in 0..8 {
        run(&mut world, &mut liar, 2 * number).unwrap_or_else(|reason| panic!("run {number}: {reason}"));
        wait(&mut world, &mut liar, pause - Duration::from_secs(2));
        let reason = run(&mut world, &mut liar, 2 * number + 1).expect_err("too soon");
        assert!(reason.contains("led to nothing"), "{reason}");
        wait(&mut world, &mut liar, Duration::from_secs(2));
        pause = (pause * 2).min(Duration::from_secs(1800));
    }
    // The two others have one of their own by now.
    for node in 1..3 {
        let agreed = world.node(node).status(world.now()).auxiliary_sets.iter().filter(|set| set.agreed).count();
        assert_eq!(agreed, 1, "{:#?}", world.last_reports());
        let kept = sets(&mut world, node);
        assert!((2..=5).contains(&kept), "{kept} sets");
    }
}

/// It completes each run, agrees, says that it has lost the set, and begins again.
#[test]
fn a_member_that_loses_one_set_after_another_waits_longer_and_longer_for_the_next() {
    let mut world = world();
    let mut liar = Liar::new(&mut world, 0);
    assert!(liar.until(&mut world, |_, world| (1..3).all(|node| has_ingredient(world, node))));
    let suite = world.suites(0).secp256k1.name();
    let members: Vec<NodeId> = (0..3).map(|node| world.id(node)).collect();
    let mut pauses = [0, 0, 30, 60, 120].into_iter();
    for number in 0..5 {
        let pause = Duration::from_secs(pauses.next().expect("five"));
        if let Some(most) = pause.checked_sub(Duration::from_secs(2)) {
            wait(&mut world, &mut liar, most);
            let reason = run(&mut world, &mut liar, 2 * number + 1).expect_err("too soon");
            assert!(reason.contains("has lost"), "{reason}");
            wait(&mut world, &mut liar, Duration::from_secs(3));
        }
        let set = run(&mut world, &mut liar, 2 * number).unwrap_or_else(|reason| panic!("run {number}: {reason}"));
        let (name, agreed) = Agreed::sign(suite, &members, &set, &liar.identity);
        says(&mut world, &mut liar, &[name], &[agreed]);
        let ready = |node| world.node(node).status(world.now()).auxiliary_sets.iter().any(|set| set.agreed);
        assert!((1..3).all(ready), "run {number}: {:#?}", world.last_reports());
        says(&mut world, &mut liar, &[], &[]);
    }
}

#[test]
fn nobody_says_that_it_holds_a_set_before_that_is_durable() {
    let mut world = world();
    let mut liar = Liar::new(&mut world, 0);
    assert!(liar.until(&mut world, |_, world| (1..3).all(|node| has_ingredient(world, node))));
    world.still.insert(1);
    let set = run(&mut world, &mut liar, 1).expect("there is no other set");
    let members: Vec<NodeId> = liar.participants(&world).into_iter().map(|(node, _)| node).collect();
    let (name, agreed) = Agreed::sign(world.suites(0).secp256k1.name(), &members, &set, &liar.identity);
    // News, which each of them answers with all that it has.
    says(&mut world, &mut liar, &[name], &[agreed]);
    let holders = |liar: &Liar| {
        let holds = |(from, message): &(NodeId, Message)| match message {
            Message::Auxiliary(Auxiliary::State { sets, .. }) if sets.contains(&name) => Some(*from),
            _ => None,
        };
        liar.heard.iter().filter_map(holds).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(holders(&liar), [world.id(2)].into());
    world.move_on(1);
    wait(&mut world, &mut liar, Duration::from_secs(1));
    assert_eq!(holders(&liar), [world.id(1), world.id(2)].into());
}
