//! Consensus under every fault that the network and the nodes may have: never two different values.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_core::committee::Committee;
use mpcium_core::consensus::{
    Acceptor, Action, Ballot, Decided, Decree, Election, Grounds, Level, Promise, Proposer, Shown, VoteAnswer, Voted,
    Votes, liars,
};
use mpcium_core::{Incarnation, NodeId};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use serde::{Deserialize, Serialize};

/// A value is the number of the proposer that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Value(u32);

/// The value that is decided by as few votes as can be: those that no quorum of another can do without.
const CLOSE: Value = Value(0);

impl Decree for Value {
    type Name = Self;
    /// Nobody forges anything here, unless a test says so.
    type Proof = ();

    fn name(&self) -> Self {
        *self
    }

    fn quorum_of(name: &Self, deciding: &Committee) -> usize {
        if *name == CLOSE { deciding.meeting_quorum() } else { usize::from(deciding.threshold) }
    }
}

type Reasons = Grounds<Value, ()>;

/// What an acceptor answers a proposer that prepares.
fn promise(acceptor: &mut Acceptor<Value>, ballot: Ballot) -> Promise<Value> {
    match acceptor.prepare(ballot) {
        Ok(()) => Promise::Promised { voted: acceptor.voted().cloned(), other: acceptor.votes().other, proof: () },
        Err(promised) => Promise::Rejected { promised },
    }
}

fn free() -> Promise<Value> {
    Promise::Promised { voted: None, other: None, proof: () }
}

/// Promises of a ballot by members that have voted for nothing.
fn blank(members: std::ops::RangeInclusive<u8>, ballot: Ballot) -> Reasons {
    let promises = members.map(|number| Shown { node: node(number), votes: Votes::default(), proof: () }).collect();
    Grounds(vec![Level { ballot, promises }])
}

fn value(letter: char) -> Value {
    Value(u32::from(letter))
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn committee(n: u8, threshold: u16) -> Committee {
    Committee { members: (1..=n).map(node).collect(), threshold }
}

fn ballot(round: u64, number: u8) -> Ballot {
    Ballot { round, node: node(number), incarnation: Incarnation([1; 16]) }
}

/// One thing that may happen next; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Event {
    Deliver(usize),
    DeliverTwice(usize),
    Lose(usize),
    /// The acceptor stores its new state, then crashes before it answers, and comes back from the disk.
    CrashAfterWrite(usize),
    /// The acceptor crashes before its new state is on disk, so nothing is answered.
    CrashBeforeWrite(usize),
    RestartAcceptor(usize),
    Resend(usize),
    Retry(usize),
    /// The proposer's node starts anew: a new incarnation that remembers nothing.
    RestartProposer(usize),
}

#[derive(Clone, Debug)]
enum Packet {
    Prepare { proposer: usize, to: NodeId, ballot: Ballot },
    Promised { proposer: usize, from: NodeId, ballot: Ballot, answer: Promise<Value> },
    Vote { proposer: usize, to: NodeId, ballot: Ballot, value: Value, grounds: Reasons },
    Voted { proposer: usize, from: NodeId, ballot: Ballot, answer: VoteAnswer },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Memory {
    Durable,
    /// The planted bug: a restart forgets the promise but not the vote.
    ForgetsPromise,
    /// The planted bug: a restart forgets everything.
    ForgetsAll,
}

struct World {
    committee: Committee,
    memory: Memory,
    /// The disks: encoded acceptors.
    disks: BTreeMap<NodeId, Vec<u8>>,
    proposers: Vec<Proposer<Value>>,
    lives: Vec<u8>,
    packets: Vec<Packet>,
    /// Everybody that ever voted, by ballot and value: what an observer of everything would call decided.
    votes: BTreeMap<(Ballot, Value), BTreeSet<NodeId>>,
    /// What proposers reported.
    reported: BTreeSet<Value>,
}

impl World {
    fn new(n: u8, threshold: u16, proposers: usize, memory: Memory) -> Self {
        let committee = committee(n, threshold);
        let blank = postcard::to_allocvec(&Acceptor::<Value>::new()).unwrap();
        let mut world = Self {
            disks: committee.members.iter().map(|id| (*id, blank.clone())).collect(),
            committee,
            memory,
            proposers: Vec::new(),
            lives: vec![0; proposers],
            packets: Vec::new(),
            votes: BTreeMap::new(),
            reported: BTreeSet::new(),
        };
        for number in 0..proposers {
            let proposer = world.newborn(number);
            world.proposers.push(proposer);
            world.say(number);
        }
        world
    }

    fn newborn(&mut self, number: usize) -> Proposer<Value> {
        self.lives[number] += 1;
        let me = self.committee.members[number % self.committee.members.len()];
        let incarnation = Incarnation([self.lives[number] + 50 * number as u8; 16]);
        Proposer::new(&self.committee, me, incarnation, Value(number as u32), 0)
    }

    fn say(&mut self, number: usize) {
        let proposer = &self.proposers[number];
        let Some(action) = proposer.current() else { return };
        for to in proposer.unanswered() {
            self.packets.push(match action.clone() {
                Action::Prepare { ballot } => Packet::Prepare { proposer: number, to, ballot },
                Action::Vote { ballot, value, grounds } => {
                    Packet::Vote { proposer: number, to, ballot, value, grounds }
                }
            });
        }
    }

    fn take(&mut self, choice: usize) -> Option<Packet> {
        let at = choice.checked_rem(self.packets.len())?;
        Some(self.packets.swap_remove(at))
    }

    fn restart(&mut self, id: NodeId) {
        let state: Acceptor<Value> = postcard::from_bytes(&self.disks[&id]).unwrap();
        assert!(state.is_well_formed());
        let after = match self.memory {
            Memory::Durable => return,
            Memory::ForgetsPromise => {
                let vote_only = (state.voted().map(|voted| voted.ballot), state.voted(), state.votes().other);
                postcard::to_allocvec(&vote_only).unwrap()
            }
            Memory::ForgetsAll => postcard::to_allocvec(&Acceptor::<Value>::new()).unwrap(),
        };
        self.disks.insert(id, after);
    }

    /// Hands a packet to its addressee. `written` and `answered`: how far an acceptor gets.
    fn deliver(&mut self, packet: Packet, written: bool, answered: bool) {
        match packet {
            Packet::Prepare { proposer, to, ballot } => {
                let mut acceptor: Acceptor<Value> = postcard::from_bytes(&self.disks[&to]).unwrap();
                let answer = promise(&mut acceptor, ballot);
                if written {
                    self.disks.insert(to, postcard::to_allocvec(&acceptor).unwrap());
                }
                if written && answered {
                    self.packets.push(Packet::Promised { proposer, from: to, ballot, answer });
                }
            }
            Packet::Vote { proposer, to, ballot, value, grounds } => {
                let mut acceptor: Acceptor<Value> = postcard::from_bytes(&self.disks[&to]).unwrap();
                let answer = acceptor.vote(&self.committee, ballot, value, grounds);
                assert!(answer != VoteAnswer::Unfounded || self.memory != Memory::Durable, "an honest proposer");
                if written {
                    self.disks.insert(to, postcard::to_allocvec(&acceptor).unwrap());
                    if answer == VoteAnswer::Voted {
                        self.votes.entry((ballot, value)).or_default().insert(to);
                    }
                }
                if written && answered {
                    self.packets.push(Packet::Voted { proposer, from: to, ballot, answer });
                }
            }
            Packet::Promised { proposer, from, ballot, answer } => {
                if self.proposers[proposer].on_promise(from, ballot, answer).is_some() {
                    self.say(proposer);
                }
            }
            Packet::Voted { proposer, from, ballot, answer } => {
                if let Some(decided) = self.proposers[proposer].on_vote(from, ballot, answer) {
                    assert!(decided.voters.len() >= decided.value.quorum(&self.committee));
                    self.reported.insert(decided.value);
                }
            }
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Deliver(choice) => {
                if let Some(packet) = self.take(choice) {
                    self.deliver(packet, true, true);
                }
            }
            Event::DeliverTwice(choice) => {
                if let Some(packet) = self.take(choice) {
                    self.packets.push(packet.clone());
                    self.deliver(packet, true, true);
                }
            }
            Event::Lose(choice) => drop(self.take(choice)),
            Event::CrashAfterWrite(choice) | Event::CrashBeforeWrite(choice) => {
                if let Some(packet) = self.take(choice) {
                    let acceptor = match &packet {
                        Packet::Prepare { to, .. } | Packet::Vote { to, .. } => Some(*to),
                        _ => None,
                    };
                    self.deliver(packet, matches!(event, Event::CrashAfterWrite(_)), false);
                    if let Some(id) = acceptor {
                        self.restart(id);
                    }
                }
            }
            Event::RestartAcceptor(choice) => {
                self.restart(self.committee.members[choice % self.committee.members.len()]);
            }
            Event::Resend(choice) => self.say(choice % self.proposers.len()),
            Event::Retry(choice) => {
                let number = choice % self.proposers.len();
                if self.proposers[number].retry().is_some() {
                    self.say(number);
                }
            }
            Event::RestartProposer(choice) => {
                let number = choice % self.proposers.len();
                if self.lives[number] < 40 {
                    self.proposers[number] = self.newborn(number);
                    self.say(number);
                }
            }
        }
    }

    fn chosen(&self) -> BTreeSet<Value> {
        let decided = self.votes.iter().filter(|((_, value), voters)| voters.len() >= value.quorum(&self.committee));
        decided.map(|((_, value), _)| *value).collect()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let chosen = self.chosen();
        prop_assert!(chosen.len() <= 1, "{chosen:?} are all decided");
        prop_assert!(self.reported.is_subset(&chosen), "{:?} reported, {chosen:?} decided", self.reported);
        Ok(())
    }

    /// The network heals, `threshold` acceptors answer, one proposer is alone.
    fn settle(&mut self, number: usize) -> Option<Value> {
        let alive: BTreeSet<NodeId> =
            self.committee.members.iter().copied().take(self.committee.threshold.into()).collect();
        self.packets.clear();
        self.proposers[number] = self.newborn(number);
        self.reported.clear();
        for _ in 0..100 {
            self.say(number);
            while !self.packets.is_empty() {
                let packet = self.packets.remove(0);
                let reaches = match &packet {
                    Packet::Prepare { to, .. } | Packet::Vote { to, .. } => alive.contains(to),
                    _ => true,
                };
                if reaches {
                    self.deliver(packet, true, true);
                }
            }
            if let Some(value) = self.reported.first() {
                return Some(*value);
            }
            assert!(self.proposers[number].is_beaten(), "nobody objects, yet nothing is decided");
            self.proposers[number].retry();
        }
        None
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let any = any::<usize>;
    prop::collection::vec(
        prop_oneof![
            24 => any().prop_map(Event::Deliver),
            3 => any().prop_map(Event::DeliverTwice),
            2 => any().prop_map(Event::Lose),
            2 => any().prop_map(Event::CrashAfterWrite),
            1 => any().prop_map(Event::CrashBeforeWrite),
            2 => any().prop_map(Event::RestartAcceptor),
            2 => any().prop_map(Event::Resend),
            3 => any().prop_map(Event::Retry),
            1 => any().prop_map(Event::RestartProposer),
        ],
        0..400,
    )
}

fn sizes() -> impl Strategy<Value = (u8, u16, usize)> {
    (2u8..=7).prop_flat_map(|n| (Just(n), u16::from(n) / 2 + 1..=u16::from(n), 1usize..=4))
}

fn never_two_values(
    (n, threshold, proposers): (u8, u16, usize),
    events: &[Event],
    memory: Memory,
) -> Result<(), TestCaseError> {
    let mut world = World::new(n, threshold, proposers, memory);
    for event in events {
        world.happen(event);
        world.check()?;
    }
    let before = world.chosen();
    let settled = world.settle(0);
    world.check()?;
    prop_assert!(settled.is_some(), "a proposer alone does not decide");
    prop_assert!(before.iter().all(|value| Some(*value) == settled), "{before:?} was decided, now {settled:?}");
    Ok(())
}

proptest! {
    #![proptest_config(Config { cases: 4000, ..Config::default() })]

    #[test]
    fn never_two_decisions_and_a_proposer_alone_always_decides(sizes in sizes(), events in events()) {
        never_two_values(sizes, &events, Memory::Durable)?;
    }
}

/// The test above is worth something only if it notices an acceptor that breaks its promise.
#[test]
fn a_forgetful_acceptor_is_noticed_by_the_property() {
    for memory in [Memory::ForgetsPromise, Memory::ForgetsAll] {
        let config = Config { cases: 20_000, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let outcome = TestRunner::new_with_rng(config, rng)
            .run(&(sizes(), events()), |(sizes, events)| never_two_values(sizes, &events, memory));
        assert!(matches!(outcome, Err(TestError::Fail(..))), "{memory:?} goes unnoticed");
    }
}

/// The states that matter are reached: several rounds, rejections, adoption of another's value, decisions during chaos.
#[test]
fn the_schedules_reach_the_interesting_states() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]);
    let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
    let (mut decided, mut adopted, mut beaten) = (0, 0, 0);
    for _ in 0..1000 {
        let ((n, threshold, proposers), events) = (sizes(), events()).new_tree(&mut runner).unwrap().current();
        let mut world = World::new(n, threshold, proposers, Memory::Durable);
        events.iter().for_each(|event| world.happen(event));
        decided += world.chosen().len();
        beaten += usize::from(world.proposers.iter().any(Proposer::is_beaten));
        let owner = |ballot: &Ballot| world.committee.position(ballot.node).map(u32::from);
        adopted += usize::from(proposers <= usize::from(n) && world.votes.keys().any(|(b, v)| owner(b) != Some(v.0)));
    }
    assert!(decided > 50 && adopted > 20 && beaten > 50, "{decided} decided, {adopted} adopted, {beaten} beaten");
}

/// An acceptor of three, of which two decide.
fn vote(acceptor: &mut Acceptor<Value>, ballot: Ballot, value: Value) -> VoteAnswer {
    acceptor.vote(&committee(3, 2), ballot, value, blank(1..=2, ballot))
}

#[test]
fn an_acceptor_answers_a_repetition_alike_and_refuses_what_is_lower() {
    let mut acceptor = Acceptor::new();
    assert_eq!(promise(&mut acceptor, ballot(2, 1)), free());
    assert_eq!(promise(&mut acceptor, ballot(2, 1)), free());
    assert_eq!(promise(&mut acceptor, ballot(1, 9)), Promise::Rejected { promised: ballot(2, 1) });
    assert_eq!(vote(&mut acceptor, ballot(1, 9), value('x')), VoteAnswer::Rejected { promised: ballot(2, 1) });
    assert_eq!(vote(&mut acceptor, ballot(2, 1), value('y')), VoteAnswer::Voted);
    assert_eq!(vote(&mut acceptor, ballot(2, 1), value('y')), VoteAnswer::Voted);
    let voted = Voted { ballot: ballot(2, 1), value: value('y'), grounds: blank(1..=2, ballot(2, 1)) };
    let reported = Promise::Promised { voted: Some(voted), other: None, proof: () };
    assert_eq!(promise(&mut acceptor, ballot(3, 1)), reported);
    assert_eq!(vote(&mut acceptor, ballot(2, 1), value('y')), VoteAnswer::Rejected { promised: ballot(3, 1) });
}

#[test]
fn an_acceptor_never_votes_for_two_values_in_one_ballot() {
    let mut acceptor = Acceptor::new();
    assert_eq!(vote(&mut acceptor, ballot(1, 1), value('x')), VoteAnswer::Voted);
    assert_eq!(vote(&mut acceptor, ballot(1, 1), value('y')), VoteAnswer::Rejected { promised: ballot(1, 1) });
    assert_eq!(acceptor.voted().map(|voted| voted.value), Some(value('x')));
}

#[test]
fn a_vote_without_a_promise_before_counts_as_one() {
    let mut acceptor = Acceptor::new();
    assert_eq!(vote(&mut acceptor, ballot(5, 1), value('x')), VoteAnswer::Voted);
    assert_eq!(promise(&mut acceptor, ballot(4, 1)), Promise::Rejected { promised: ballot(5, 1) });
}

/// It says since when it has voted for one thing only, however often it voted.
#[test]
fn a_promise_names_the_highest_vote_and_the_highest_for_anything_else() {
    let mut acceptor = Acceptor::new();
    let (x, y) = (value('x'), value('y'));
    for (round, value, other) in
        [(1, x, None), (2, x, None), (3, y, Some((2, x))), (4, y, Some((2, x))), (5, x, Some((4, y)))]
    {
        assert_eq!(vote(&mut acceptor, ballot(round, 1), value), VoteAnswer::Voted);
        let other = other.map(|(round, value)| (ballot(round, 1), value));
        assert_eq!(acceptor.votes(), Votes { last: Some((ballot(round, 1), value)), other }, "round {round}");
        assert!(acceptor.is_well_formed());
    }
}

/// What must be shown to an acceptor of three, of which two decide, so that it votes in round 9.
#[test]
fn an_acceptor_votes_only_for_what_the_promises_leave_open() {
    let (x, y) = (value('x'), value('y'));
    let voted = |last: Option<(u64, Value)>, other: Option<(u64, Value)>| {
        let at = |(round, value)| (ballot(round, 1), value);
        Votes { last: last.map(at), other: other.map(at) }
    };
    let none = || voted(None, None);
    let level = |round: u64, promises: Vec<(u8, Votes<Value>)>| {
        let shown = |(number, votes)| Shown { node: node(number), votes, proof: () };
        Level { ballot: ballot(round, 1), promises: promises.into_iter().map(shown).collect() }
    };
    let open = |round| level(round, vec![(1, none()), (2, none())]);
    for (what, levels, expected) in [
        ("nothing", vec![], false),
        ("a quorum that has voted for nothing", vec![open(9)], true),
        ("one member", vec![level(9, vec![(1, none())])], false),
        ("one member twice", vec![level(9, vec![(1, none()), (1, none())])], false),
        ("a stranger", vec![level(9, vec![(1, none()), (7, none())])], false),
        ("another ballot", vec![open(8)], false),
        ("a vote for it", vec![level(9, vec![(1, voted(Some((3, x)), None)), (2, none())])], true),
        ("a vote for something else", vec![level(9, vec![(1, voted(Some((3, y)), None)), (2, none())])], false),
        (
            "one for it, and before for something else",
            { vec![level(9, vec![(1, voted(Some((4, x)), Some((3, y)))), (2, none())])] },
            false,
        ),
        (
            "the same, and why that could be",
            { vec![level(9, vec![(1, voted(Some((4, x)), Some((3, y)))), (2, none())]), open(4)] },
            true,
        ),
        (
            "another above one for it",
            { vec![level(9, vec![(1, voted(Some((5, y)), None)), (2, voted(Some((4, x)), None))]), open(4)] },
            false,
        ),
        (
            "another in the same ballot, by a proposer that lied",
            { vec![level(9, vec![(1, voted(Some((4, y)), None)), (2, voted(Some((4, x)), None))]), open(4)] },
            false,
        ),
        (
            "the same, by so few that it came to nothing",
            {
                let all = [voted(Some((4, y)), None), voted(Some((4, x)), None), none()];
                vec![level(9, (1..).zip(all).collect()), open(4)]
            },
            true,
        ),
        (
            "levels that do not go down",
            vec![level(9, vec![(1, voted(Some((3, y)), None)), (2, none())]), open(9)],
            false,
        ),
        ("votes above the promise", vec![level(9, vec![(1, voted(Some((10, x)), None)), (2, none())])], false),
    ] {
        let answer = Acceptor::new().vote(&committee(3, 2), ballot(9, 1), x, Grounds(levels));
        assert_eq!(answer == VoteAnswer::Voted, expected, "{what}");
        assert!(expected || answer == VoteAnswer::Unfounded, "{what}");
    }
}

#[test]
fn ballots_are_ordered_by_round_then_node_then_incarnation() {
    let low = Ballot { round: 1, node: node(2), incarnation: Incarnation([1; 16]) };
    assert!(low < Ballot { incarnation: Incarnation([2; 16]), ..low });
    assert!(Ballot { incarnation: Incarnation([2; 16]), ..low } < Ballot { node: node(3), ..low });
    assert!(Ballot { node: node(3), ..low } < Ballot { round: 2, ..low });
}

fn proposer(own: Value) -> Proposer<Value> {
    Proposer::new(&committee(3, 2), node(1), Incarnation([1; 16]), own, 0)
}

#[test]
fn a_proposer_takes_the_value_of_the_highest_vote() {
    let mut proposer = Proposer::new(&committee(5, 3), node(1), Incarnation([1; 16]), value('a'), 8);
    let at = proposer.ballot();
    assert_eq!(at.round, 9);
    let voted = |ballot: Ballot, value| {
        let voted = Some(Voted { ballot, value, grounds: blank(1..=3, ballot) });
        Promise::Promised { voted, other: None, proof: () }
    };
    assert_eq!(proposer.on_promise(node(2), at, voted(ballot(3, 2), value('b'))), None);
    assert_eq!(proposer.on_promise(node(3), at, voted(ballot(4, 3), value('c'))), None);
    let Some(Action::Vote { ballot, value: chosen, grounds }) = proposer.on_promise(node(4), at, free()) else {
        panic!("it has a quorum")
    };
    assert_eq!((ballot, chosen), (at, value('c')));
    let mut acceptor = Acceptor::new();
    assert_eq!(acceptor.vote(&committee(5, 3), ballot, chosen, grounds), VoteAnswer::Voted);
}

#[test]
fn strangers_repetitions_and_other_ballots_do_not_count() {
    let mut proposer = proposer(value('a'));
    let at = proposer.ballot();
    assert_eq!(proposer.on_promise(node(1), at, free()), None);
    assert_eq!(proposer.on_promise(node(1), at, free()), None);
    assert_eq!(proposer.on_promise(node(9), at, free()), None);
    assert_eq!(proposer.on_promise(node(2), ballot(7, 1), free()), None);
    assert_eq!(proposer.on_vote(node(2), at, VoteAnswer::Voted), None, "a vote before it was asked for");
    assert_eq!(proposer.unanswered(), [node(2), node(3)]);
    let vote = Action::Vote { ballot: at, value: value('a'), grounds: blank(1..=2, at) };
    assert_eq!(proposer.on_promise(node(2), at, free()), Some(vote));
    assert_eq!(proposer.on_vote(node(3), at, VoteAnswer::Voted), None);
    assert_eq!(proposer.on_vote(node(3), at, VoteAnswer::Voted), None);
    assert_eq!(proposer.on_vote(node(9), at, VoteAnswer::Voted), None);
    assert_eq!(proposer.on_vote(node(1), ballot(7, 1), VoteAnswer::Voted), None);
    let decided = proposer.on_vote(node(1), at, VoteAnswer::Voted).expect("a quorum voted");
    assert_eq!((decided.value, decided.voters), (value('a'), vec![node(1), node(3)]));
    assert_eq!(proposer.on_vote(node(2), at, VoteAnswer::Voted), None, "reported once");
    assert!(proposer.is_decided() && proposer.current().is_none() && proposer.retry().is_none());
}

#[test]
fn a_beaten_proposer_retries_above_what_stands_in_the_way() {
    let mut proposer = proposer(value('a'));
    let at = proposer.ballot();
    assert_eq!(proposer.on_promise(node(2), at, Promise::Rejected { promised: ballot(40, 3) }), None);
    assert!(proposer.is_beaten() && !proposer.is_hopeless(), "the other two are a quorum");
    assert_eq!(proposer.on_promise(node(3), at, Promise::Rejected { promised: ballot(30, 3) }), None);
    assert!(proposer.is_hopeless());
    let Some(Action::Prepare { ballot: next }) = proposer.retry() else { panic!("it must prepare anew") };
    assert_eq!((next.round, next.node), (41, node(1)));
    assert!(!proposer.is_beaten());
    assert_eq!(proposer.on_promise(node(2), at, free()), None, "of the old ballot");
    assert_eq!(proposer.unanswered().len(), 3);
}

/// A member that names ever higher rounds drives nobody on: those that are a quorum without it count.
#[test]
fn a_member_that_names_high_rounds_is_passed_over() {
    let mut proposer = proposer(value('a'));
    let at = proposer.ballot();
    proposer.on_promise(node(3), at, Promise::Rejected { promised: ballot(1_000_000, 3) });
    proposer.on_promise(node(2), at, Promise::Rejected { promised: ballot(7, 3) });
    proposer.on_promise(node(1), at, free());
    let Some(Action::Prepare { ballot: next }) = proposer.retry() else { panic!("it must prepare anew") };
    assert_eq!(next.round, 8);
}

#[test]
fn a_proposer_may_change_its_mind_before_it_asks_for_votes() {
    let mut proposer = Proposer::new(&committee(5, 4), node(1), Incarnation([1; 16]), value('a'), 0);
    let at = proposer.ballot();
    for member in [1, 2, 3] {
        assert_eq!(proposer.on_promise(node(member), at, free()), None, "no quorum for its own");
    }
    proposer.propose(CLOSE);
    assert!(matches!(proposer.current(), Some(Action::Vote { ballot, value: CLOSE, .. }) if ballot == at));
    // Once votes are asked for it is too late in this ballot.
    proposer.propose(value('a'));
    assert!(matches!(proposer.current(), Some(Action::Vote { value: CLOSE, .. })));
}

/// What a proposer of `own` asks votes for, when the members that are told answer its "prepare" one after the other.
fn proposes(n: u8, threshold: u16, own: Value, votes: &[Option<(u64, Value)>]) -> Option<Value> {
    let mut proposer = Proposer::new(&committee(n, threshold), node(1), Incarnation([1; 16]), own, 8);
    let at = proposer.ballot();
    for (member, voted) in (1..).zip(votes) {
        let voted = voted.map(|(round, value)| {
            let ballot = ballot(round, 1);
            Voted { ballot, value, grounds: blank(1..=threshold as u8, ballot) }
        });
        proposer.on_promise(node(member), at, Promise::Promised { voted, other: None, proof: () });
    }
    match proposer.current() {
        Some(Action::Vote { value, .. }) => Some(value),
        _ => None,
    }
}

/// Nothing is proposed before the promises at hand rule out that something else was decided, and then at once.
#[test]
fn a_proposer_waits_for_promises_enough_for_what_it_proposes() {
    let (a, b) = (value('a'), value('b'));
    let voted = |round, value| Some((round, value));
    for (n, t, own, votes, expected) in [
        (5, 4, a, vec![None, None, None], None),
        (5, 4, a, vec![None, None, None, None], Some(a)),
        // Two that never vote for it leave no quorum of a session.
        (5, 4, CLOSE, vec![None], None),
        (5, 4, CLOSE, vec![None, None], Some(CLOSE)),
        // One has voted, so the session may have been decided, unless enough others have not.
        (5, 4, CLOSE, vec![voted(1, b), None], None),
        (5, 4, CLOSE, vec![voted(1, b), None, None], Some(CLOSE)),
        (5, 4, CLOSE, vec![voted(1, b), voted(1, b), voted(1, b), None], Some(b)),
        (3, 2, CLOSE, vec![voted(1, b), None], Some(b)),
        (3, 3, CLOSE, vec![voted(1, b)], None),
        (3, 3, CLOSE, vec![voted(1, b), None], Some(CLOSE)),
        (2, 2, CLOSE, vec![None], Some(CLOSE)),
        // The highest vote counts, also against what is lower.
        (3, 2, a, vec![voted(1, CLOSE), None], Some(CLOSE)),
        (3, 2, a, vec![voted(3, b), voted(2, CLOSE)], Some(b)),
        (3, 2, a, vec![voted(2, b), voted(3, CLOSE)], Some(CLOSE)),
        (5, 4, a, vec![voted(3, CLOSE)], None),
        (5, 4, a, vec![voted(3, CLOSE), voted(2, b)], Some(CLOSE)),
    ] {
        assert_eq!(proposes(n, t, own, &votes), expected, "{t} of {n}, own {own:?}, votes {votes:?}");
    }
}

#[test]
fn a_value_of_a_smaller_quorum_is_decided_by_it() {
    let mut proposer = Proposer::new(&committee(5, 4), node(1), Incarnation([1; 16]), CLOSE, 0);
    let at = proposer.ballot();
    for member in [2, 3] {
        proposer.on_promise(node(member), at, free());
    }
    assert_eq!(proposer.on_vote(node(5), at, VoteAnswer::Voted), None);
    let decided = proposer.on_vote(node(2), at, VoteAnswer::Voted);
    assert_eq!(decided, Some(Decided { ballot: at, value: CLOSE, voters: vec![node(2), node(5)] }));
}

#[test]
fn exhausted_rounds_end_in_none_and_never_in_a_repeated_ballot() {
    let mut proposer = proposer(value('a'));
    let at = proposer.ballot();
    proposer.on_promise(node(2), at, Promise::Rejected { promised: ballot(u64::MAX, 3) });
    assert_eq!(proposer.retry(), None);
    assert_eq!(proposer.ballot(), at);
}

#[test]
#[should_panic(expected = "need not intersect")]
fn a_quorum_that_does_not_intersect_itself_is_refused() {
    let _ = Proposer::new(&committee(4, 2), node(1), Incarnation([1; 16]), value('a'), 0);
}

/// One thing that liars do next; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Treason {
    /// Somebody asks a member to promise a ballot. One that lies says of its votes whatever it likes.
    Prepare { ballot: usize, member: usize, says: usize },
    /// Somebody asks some members to vote in a ballot, and shows promises that were made.
    Vote { value: u32, ballot: usize, members: u8, shows: usize },
}

/// Proposers that say what they like, and members that do. Every promise and every vote counts as signed.
struct Treacherous {
    committee: Committee,
    liars: BTreeSet<NodeId>,
    honest: BTreeMap<NodeId, Acceptor<Value>>,
    promises: Vec<(Ballot, Shown<Value, ()>)>,
    votes: BTreeMap<(Ballot, Value), BTreeSet<NodeId>>,
    /// On which honest members voted.
    grounds: BTreeMap<(Ballot, Value), Reasons>,
    /// Whether promises of honest members can be forged: that of course breaks everything.
    forgery: bool,
}

impl Treacherous {
    fn new(n: u8, threshold: u16, lying: usize, forgery: bool) -> Self {
        let committee = committee(n, threshold);
        let lying = lying % usize::from(threshold);
        Self {
            liars: committee.members.iter().copied().take(lying).collect(),
            honest: committee.members.iter().skip(lying).map(|id| (*id, Acceptor::new())).collect(),
            committee,
            promises: Vec::new(),
            votes: BTreeMap::new(),
            grounds: BTreeMap::new(),
            forgery,
        }
    }

    fn ballot(choice: usize) -> Ballot {
        ballot(choice as u64 % 6 + 1, (choice / 6 % 2) as u8 + 1)
    }

    fn happen(&mut self, event: &Treason) {
        match *event {
            Treason::Prepare { ballot, member, says } => {
                let ballot = Self::ballot(ballot);
                let id = self.committee.members[member % self.committee.members.len()];
                let votes = match self.honest.get_mut(&id) {
                    Some(acceptor) => match acceptor.prepare(ballot) {
                        Ok(()) => acceptor.votes(),
                        Err(_) => return,
                    },
                    None => {
                        let vote = |says: usize| (Self::ballot(says / 4), Value(says as u32 % 4));
                        let votes = match says % 3 {
                            0 => Votes::default(),
                            1 => Votes { last: Some(vote(says / 3)), other: None },
                            _ => Votes { last: Some(vote(says / 3)), other: Some(vote(says / 200)) },
                        };
                        if !votes.is_well_formed(ballot) {
                            return;
                        }
                        votes
                    }
                };
                self.promises.push((ballot, Shown { node: id, votes, proof: () }));
            }
            Treason::Vote { value, ballot, members, shows } => {
                let (ballot, value) = (Self::ballot(ballot), Value(value));
                let grounds = self.made_up(ballot, value, shows);
                let asked = self.committee.members.iter().enumerate().filter(|(at, _)| members & (1 << at) != 0);
                for (_, id) in asked {
                    let voted = match (self.honest.get_mut(id), &grounds) {
                        (None, _) => true,
                        (Some(acceptor), Some(grounds)) => {
                            let voted = acceptor.vote(&self.committee, ballot, value, grounds.clone());
                            let voted = voted == VoteAnswer::Voted;
                            if voted {
                                self.grounds.entry((ballot, value)).or_insert_with(|| grounds.clone());
                            }
                            voted
                        }
                        (Some(_), None) => false,
                    };
                    if voted {
                        self.votes.entry((ballot, value)).or_default().insert(*id);
                    }
                }
            }
        }
    }

    /// The best that a liar can show for a value: of each member the promise that it likes best, and below whatever
    /// has convinced somebody before.
    fn made_up(&self, ballot: Ballot, value: Value, shows: usize) -> Option<Reasons> {
        if self.forgery {
            return Some(blank(1..=self.committee.members.len() as u8, ballot));
        }
        let of = |id: &NodeId| {
            let made = self.promises.iter().filter(|(at, shown)| *at == ballot && shown.node == *id);
            let made: Vec<_> = made.map(|(_, shown)| shown.clone()).collect();
            made.get(shows.checked_rem(made.len())?).cloned()
        };
        let level = Level { ballot, promises: self.committee.members.iter().filter_map(of).collect() };
        let convinced = self.grounds.iter().filter(|((_, of), _)| *of == value).map(|(_, grounds)| grounds.0.clone());
        std::iter::once(Vec::new())
            .chain(convinced)
            .map(|below| Grounds([vec![level.clone()], below].concat()))
            .find(|grounds| grounds.allow::<Value>(&self.committee, ballot, &value))
            // Nothing that it can show allows it: it tries all the same.
            .or_else(|| Some(Grounds(vec![level])))
    }

    fn decided(&self) -> Vec<Election<Value>> {
        let decided = self.votes.iter().filter(|((_, value), voters)| voters.len() >= value.quorum(&self.committee));
        decided
            .map(|((ballot, name), voters)| Election { ballot: *ballot, name: *name, voters: voters.clone() })
            .collect()
    }

    /// Whether a member has signed a vote that contradicts another of its votes, or its promise of a higher ballot.
    fn contradicts_itself(&self, id: NodeId) -> bool {
        let votes: Vec<(Ballot, Value)> =
            self.votes.iter().filter(|(_, voters)| voters.contains(&id)).map(|(vote, _)| *vote).collect();
        let twice =
            votes.iter().any(|(at, value)| votes.iter().any(|(other, another)| at == other && value != another));
        let hidden = |(promised, shown): &(Ballot, Shown<Value, ()>)| {
            let shows = |(at, value): &(Ballot, Value)| {
                let Votes { last, other } = &shown.votes;
                match last {
                    Some((last, name)) if name == value => last >= at,
                    Some((last, _)) if last < at => false,
                    Some(_) => other.as_ref().is_some_and(|(other, name)| other > at || (other == at && name == value)),
                    None => false,
                }
            };
            shown.node == id && votes.iter().any(|vote| vote.0 < *promised && !shows(vote))
        };
        twice || self.promises.iter().any(hidden)
    }

    /// Every pair of decisions names somebody, and only members that have signed contradictions. How many pairs.
    fn check(&self) -> Result<usize, TestCaseError> {
        let decided = self.decided();
        let mut pairs = 0;
        for (at, first) in decided.iter().enumerate() {
            for second in decided.iter().skip(at + 1).filter(|second| second.name != first.name) {
                let higher = first.ballot.max(second.ballot);
                let higher = if first.ballot == higher { first } else { second };
                // Closing takes so few votes that liars alone may be enough; nobody else then says why.
                let grounds = self.grounds.get(&(higher.ballot, higher.name));
                if grounds.is_none() && first.ballot != second.ballot {
                    prop_assert!(higher.voters.is_subset(&self.liars));
                    continue;
                }
                pairs += 1;
                let named = liars::<Value>(first, second, &grounds.cloned().unwrap_or_default());
                prop_assert!(!named.is_empty(), "{first:?} and {second:?} name nobody");
                prop_assert!(named.is_subset(&self.liars), "{named:?} are named, {:?} lie", self.liars);
                prop_assert!(named.iter().all(|id| self.contradicts_itself(*id)), "no proof against {named:?}");
            }
        }
        Ok(pairs)
    }
}

fn treasons() -> impl Strategy<Value = Vec<Treason>> {
    let any = any::<usize>;
    prop::collection::vec(
        prop_oneof![
            3 => (any(), any(), any()).prop_map(|(ballot, member, says)| Treason::Prepare { ballot, member, says }),
            2 => (0..4_u32, any(), 0..=u8::MAX, any())
                .prop_map(|(value, ballot, members, shows)| Treason::Vote { value, ballot, members, shows }),
        ],
        0..200,
    )
}

fn traitors() -> impl Strategy<Value = (u8, u16, usize)> {
    (2u8..=6).prop_flat_map(|n| (Just(n), u16::from(n) / 2 + 1..=u16::from(n), any::<usize>()))
}

fn every_pair_names_a_liar(
    (n, threshold, lying): (u8, u16, usize),
    events: &[Treason],
    forgery: bool,
) -> Result<usize, TestCaseError> {
    let mut world = Treacherous::new(n, threshold, lying, forgery);
    events.iter().for_each(|event| world.happen(event));
    world.check()
}

proptest! {
    #![proptest_config(Config { cases: 20_000, ..Config::default() })]

    /// Without lying acceptors that means that there is no pair, whatever the proposers do.
    #[test]
    fn any_two_decisions_name_a_member_that_has_signed_a_contradiction(sizes in traitors(), events in treasons()) {
        every_pair_names_a_liar(sizes, &events, false)?;
    }
}

/// The test above is worth something only if it notices an acceptor that believes what it is told, and if lies lead to
/// different decisions at all.
#[test]
fn believing_a_proposer_is_noticed_and_liars_are_caught() {
    let rng = || TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]);
    let config = || Config { cases: 5_000, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let outcome = TestRunner::new_with_rng(config(), rng())
        .run(&(traitors(), treasons()), |(sizes, events)| every_pair_names_a_liar(sizes, &events, true).map(|_| ()));
    assert!(matches!(outcome, Err(TestError::Fail(..))), "it goes unnoticed");
    let (mut honest, mut caught) = (0, 0);
    let mut runner = TestRunner::new_with_rng(config(), rng());
    for _ in 0..5_000 {
        let (sizes, events) = (traitors(), treasons()).new_tree(&mut runner).unwrap().current();
        let (n, threshold, lying) = sizes;
        let mut world = Treacherous::new(n, threshold, lying, false);
        events.iter().for_each(|event| world.happen(event));
        honest += usize::from(world.liars.is_empty() && !world.decided().is_empty());
        caught += usize::from(world.check().unwrap() > 0);
    }
    assert!(honest > 100 && caught > 100, "{honest} decided without lies, {caught} pairs");
}
