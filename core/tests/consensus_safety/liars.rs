//! Proposers that say what they like, and members that do: two decisions name a liar.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_core::consensus::{Election, VoteAnswer, liars};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::*;

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
