//! What one acceptor and one proposer do, rule by rule.

use mpcium_core::consensus::{Action, Decided, Proposer, VoteAnswer, Voted};

use super::*;

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

/// Two members of three voted for different values at the beginning, and whoever proposes since is interrupted when only
/// its own vote is cast. Each vote's grounds rest on those before, and there may be only so many levels of them.
#[test]
fn interrupted_ballots_do_not_use_up_the_levels_of_grounds() {
    let committee = committee(3, 2);
    let (first, second) = (ballot(1, 1), ballot(1, 2));
    let mut members = [Acceptor::new(), Acceptor::new()];
    let vote = |member: &mut Acceptor<Value>, ballot, value, grounds| member.vote(&committee, ballot, value, grounds);
    assert_eq!(vote(&mut members[0], first, value('v'), blank(1..=3, first)), VoteAnswer::Voted);
    assert_eq!(vote(&mut members[1], second, value('w'), blank(2..=3, second)), VoteAnswer::Voted);
    for round in 2..20_u64 {
        let number = u8::try_from(round % 2).unwrap() + 1;
        let mut proposer = Proposer::new(&committee, node(number), Incarnation([1; 16]), value('z'), round - 1);
        let asked = proposer.ballot();
        for (number, member) in (1..).zip(&mut members) {
            proposer.on_promise(node(number), asked, promise(member, asked));
        }
        let Some(Action::Vote { value: asked_for, grounds, .. }) = proposer.current() else {
            panic!("round {round}: nothing is proposed to two members that are there")
        };
        assert_eq!(asked_for, value('w'), "round {round}");
        let own = &mut members[usize::from(number) - 1];
        assert_eq!(vote(own, asked, asked_for, grounds), VoteAnswer::Voted, "round {round}");
    }
}
