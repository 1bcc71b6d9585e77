//! Under every fault of the network and of nodes that crash: never two values, and a proposer alone always decides.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_core::consensus::{Action, Proposer, VoteAnswer};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::*;

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
