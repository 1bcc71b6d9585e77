//! A liar among those who make a wallet: what they join, what they refuse, what they vote for.

use mpcium_client::request::Request;

use super::{Liar, facts_of, world::World, world::code, world::keygen};
use crate::{
    Duration, Incarnation, NodeId, Time,
    committee::Committee,
    consensus::{Ballot, Decree as _, Election, Grounds as Levels, Level, Shown, liars},
    limits,
    link::Lane,
    message::Message,
    report::Report,
    request::answers::Attempt,
    store::Keyspace,
    wallet::{
        AcceptorRecord, Choice, ChoiceName, Closing, Grounds, Prepared, PreparedSession, Promised, Refused,
        SessionFacts, Signature, Slot, Value, Vote, Votes,
        activation::{Answer, Message as Wallet, Proposal},
        record::Stored as _,
    },
};

const LIAR: usize = 2;

/// Two honest nodes and a liar, of whom two sign.
fn world() -> (World, Liar) {
    let mut world = World::quiet(3, 2, |_| {});
    let liar = Liar::new(&mut world, LIAR);
    (world, liar)
}

fn records(world: &mut World, node: usize, keyspace: Keyspace) -> usize {
    world.disk(node).keys().filter(|(of, _)| *of == keyspace).count()
}

fn acceptor(world: &mut World, node: usize) -> Option<AcceptorRecord> {
    let record = world.disk(node).iter().find(|((of, _), _)| *of == Keyspace::Decisions);
    record.map(|(_, value)| AcceptorRecord::decode(value.expose()).expect("a record"))
}

fn proposal(world: &World, liar: &Liar, request: &Request) -> Proposal {
    Proposal {
        request: request.to_json(),
        deadline: world.now().wall.after(world.config(0).keygen_deadline),
        attempt: Attempt { number: 1, coordinator: liar.id(), incarnation: liar.incarnation, serial: 1 },
        slot: 0,
        participants: liar.participants(world),
        nonce: [1; 16],
    }
}

/// What an honest node answers to a proposal: nothing, why it declines, or the empty text if it joins.
fn propose(world: &mut World, liar: &mut Liar, to: usize, proposal: Proposal) -> Option<String> {
    let asked = proposal.session();
    let message = Message::Wallet(Wallet::Propose(Box::new(proposal)));
    liar.ask(world, to, (Lane::Control, &message), |message| match message {
        Message::Wallet(Wallet::Answer { session, answer }) if *session == asked => Some(match answer {
            Answer::Accepted => String::new(),
            Answer::Declined(decline) => decline.to_string(),
        }),
        _ => None,
    })
}

#[test]
fn a_member_joins_only_what_the_initiator_asked_for_as_it_is_configured() {
    type Change = fn(&mut Proposal, &World);
    let unsigned = |proposal: &mut Proposal, _: &World| {
        let mut request = keygen("w");
        request.set_signature(vec![1; 64]);
        proposal.request = request.to_json();
    };
    let changes: [(Change, &str); 12] = [
        (unsigned, "invalid signature from initiator"),
        (|p, _| p.request = b"{".to_vec(), "invalid JSON"),
        (|p, w| p.attempt.coordinator = w.id(1), "another coordinator than its sender"),
        (|p, w| p.deadline.0 = w.now().wall.0 - 1, "the deadline has passed"),
        (|p, _| p.deadline.0 += 3_600_000, "later than any request's can be"),
        (|p, _| p.participants.truncate(2), "the proposed committee is not the configured one"),
        (|p, _| p.participants.swap(1, 2), "the proposed committee is not the configured one"),
        (|p, _| p.participants[1] = p.participants[2], "is proposed twice"),
        (|p, _| p.participants.rotate_left(1), "the proposed committee is not the configured one"),
        (|p, _| _ = p.participants.remove(0), "does not name the node that it was sent to"),
        (|p, _| p.participants[1].1 = Incarnation([7; 16]), "has restarted"),
        (|p, _| p.participants[1].0 = NodeId::from_bytes([77; 16]), "it has no link to"),
    ];
    let (mut world, mut liar) = world();
    for (change, reason) in changes {
        let mut changed = proposal(&world, &liar, &keygen("w"));
        change(&mut changed, &world);
        let said = propose(&mut world, &mut liar, 0, changed).expect("an answer");
        assert!(said.contains(reason), "expected {reason:?}, got {said:?}");
    }
    assert!(!world.reports.iter().any(|(_, report)| matches!(report, Report::SessionStarted { .. })));
    // As it is it would have been joined.
    let honest = proposal(&world, &liar, &keygen("w"));
    assert_eq!(propose(&mut world, &mut liar, 0, honest.clone()), Some(String::new()));
    // But only once: a second run would overwrite what the first one made.
    let again = propose(&mut world, &mut liar, 0, honest).expect("an answer");
    assert!(again.contains("has run before"), "{again}");
}

/// A refusal is written for ever, so it costs a request that the initiator signed.
#[test]
fn a_member_refuses_only_sessions_of_valid_requests() {
    let (mut world, mut liar) = world();
    let request = keygen("w");
    let honest = facts_of(&world, &proposal(&world, &liar, &request));
    let mut unsigned = request.clone();
    unsigned.set_signature(vec![1; 64]);
    type Change = fn(&mut SessionFacts);
    let changes: [(Change, &Request); 5] = [
        (|_| {}, &unsigned),
        (|facts| facts.wallet = "other".to_owned(), &request),
        (|facts| facts.request_digest = [1; 32], &request),
        (|facts| facts.committee.threshold = 3, &request),
        (|facts| facts.committee.members.truncate(2), &request),
    ];
    let refused = |message: &Message| match message {
        Message::Wallet(Wallet::Refused(refused)) => Some(refused.clone()),
        _ => None,
    };
    for (number, (change, request)) in changes.into_iter().enumerate() {
        let mut facts = honest.clone();
        change(&mut facts);
        let query = Message::Wallet(Wallet::Query { facts: Box::new(facts), slot: 0, request: request.to_json() });
        assert!(liar.ask_again(&mut world, 0, &query, refused).is_none(), "change {number}");
        assert_eq!(records(&mut world, 0, Keyspace::Pending), 0, "change {number}");
    }
    let query = Message::Wallet(Wallet::Query { facts: Box::new(honest.clone()), slot: 0, request: request.to_json() });
    let answer = liar.ask_again(&mut world, 0, &query, refused).expect("a refusal");
    assert_eq!((answer.node, answer.session), (world.id(0), honest.session));
    assert_eq!(records(&mut world, 0, Keyspace::Pending), 1, "durable before it is said");
}

fn slot(wallet: &str, number: u32) -> Slot {
    Slot { wallet: wallet.to_owned(), epoch: 0, number }
}

#[test]
fn nobody_can_make_a_node_keep_promises_about_wallets_that_no_client_asked_for() {
    let (mut world, mut liar) = world();
    let ballot = Ballot { round: 1, node: liar.id(), incarnation: liar.incarnation };
    let prepare = |wallet: &str, request: Option<&Request>| {
        let request = request.map(Request::to_json);
        Message::Wallet(Wallet::Prepare { slot: slot(wallet, 0), ballot, request })
    };
    let mut unsigned = keygen("w");
    unsigned.set_signature(vec![1; 64]);
    // The first time a node only learns that it knows nothing of the wallet.
    for _ in 0..2 {
        for number in 0..50 {
            let invented = format!("invented {number}");
            for request in [None, Some(&keygen("w"))] {
                liar.say(&mut world, 0, Lane::Control, &prepare(&invented, request));
            }
        }
        liar.say(&mut world, 0, Lane::Control, &prepare("w", Some(&unsigned)));
        liar.run_for(&mut world, Duration::from_secs(3));
    }
    let promised = |message: &Message| matches!(message, Message::Wallet(Wallet::Promised(..))).then_some(());
    assert!(!liar.heard.iter().any(|(_, message)| promised(message).is_some()));
    assert_eq!(records(&mut world, 0, Keyspace::Decisions), 0);
    let asked_for = prepare("w", Some(&keygen("w")));
    assert!(liar.ask_again(&mut world, 0, &asked_for, promised).is_some());
    assert_eq!(records(&mut world, 0, Keyspace::Decisions), 1);
}

/// The three of them have run a key generation; both honest members are prepared, and only the liar holds everybody's
/// statements: it keeps its own back.
struct Open {
    world: World,
    liar: Liar,
    facts: SessionFacts,
    statements: Vec<Prepared>,
    public_shares: Vec<Vec<Vec<u8>>>,
}

impl Open {
    fn new() -> Self {
        let (mut world, mut liar) = world();
        world.request(&keygen("w"));
        let (facts, _, shares) = liar.join_keygen(&mut world);
        let (session, public_shares) = PreparedSession::new(facts.clone(), liar.id(), &shares).expect("its shares");
        let statements = stated(&mut world, &mut liar, session);
        Self { world, liar, facts, statements, public_shares }
    }

    /// The coordinator tries again, and another session gets as far.
    fn another(&mut self) -> Value {
        let (facts, _, shares) = self.liar.join_keygen(&mut self.world);
        let (session, public_shares) = PreparedSession::new(facts, self.liar.id(), &shares).expect("its shares");
        let statements = stated(&mut self.world, &mut self.liar, session.clone());
        Value::assemble(session, public_shares, &statements).expect("all statements")
    }

    fn value(&self) -> Value {
        let session = self.statements[0].session.clone();
        Value::assemble(session, self.public_shares.clone(), &self.statements).expect("all statements")
    }

    fn ballot(&self, round: u64) -> Ballot {
        Ballot { round, node: self.liar.id(), incarnation: self.liar.incarnation }
    }

    /// What a node answers to a proposer.
    fn ask_node(&mut self, node: usize, message: Wallet) -> Option<Wallet> {
        let message = Message::Wallet(message);
        self.liar.ask_again(&mut self.world, node, &message, |message| match message {
            Message::Wallet(
                answer @ (Wallet::Promised(..) | Wallet::Voted(_) | Wallet::Rejected { .. } | Wallet::Closing(_)),
            ) => Some(answer.clone()),
            _ => None,
        })
    }

    fn ask(&mut self, message: Wallet) -> Option<Wallet> {
        self.ask_node(0, message)
    }

    fn prepare(&mut self, ballot: Ballot) -> Option<Wallet> {
        self.ask(Wallet::Prepare { slot: slot("w", 0), ballot, request: None })
    }

    /// What the liar says of its own votes when it promises.
    fn mine(&self, slot: Slot, ballot: Ballot, votes: Votes) -> Shown<ChoiceName, Signature> {
        shown(&Promised::sign(slot, ballot, votes, &self.liar.identity))
    }

    /// A node's promise, if it gives one.
    fn theirs(&mut self, node: usize, slot: Slot, ballot: Ballot) -> Option<Shown<ChoiceName, Signature>> {
        match self.ask_node(node, Wallet::Prepare { slot, ballot, request: None }) {
            Some(Wallet::Promised(promised, _)) => Some(shown(&promised)),
            _ => None,
        }
    }

    fn vote(&mut self, ballot: Ballot, value: Value) -> Option<Wallet> {
        self.choose(0, ballot, Choice::Session(Box::new(value)))
    }

    /// What node 0 answers when it is asked to vote, with its own promise and the liar's.
    fn choose(&mut self, number: u32, ballot: Ballot, choice: Choice) -> Option<Wallet> {
        let slot = slot("w", number);
        let promised = self.theirs(0, slot.clone(), ballot);
        let mine = self.mine(slot, ballot, Votes::default());
        let grounds = promised.map_or_else(Grounds::default, |theirs| Levels(vec![level(ballot, vec![theirs, mine])]));
        self.convince(number, ballot, choice, grounds)
    }

    /// What node 0 answers when it is asked to vote and shown this.
    fn convince(&mut self, number: u32, ballot: Ballot, choice: Choice, grounds: Grounds) -> Option<Wallet> {
        self.ask(Wallet::VoteFor { slot: slot("w", number), ballot, choice, grounds })
    }

    /// The sessions that node 0 names when a coordinator gives the request up.
    fn close(&mut self) -> Option<Vec<crate::session::SessionId>> {
        let close = Wallet::Close { wallet: "w".to_owned(), request_digest: self.facts.request_digest };
        self.liar.ask_again(&mut self.world, 0, &Message::Wallet(close), |message| match message {
            Message::Wallet(Wallet::Closed { prepared, .. }) => Some(prepared.clone()),
            _ => None,
        })
    }

    /// Has the first slot closed by the votes of node 0 and the liar.
    fn closing(&mut self) -> Closing {
        let ballot = self.ballot(7);
        let Some(Wallet::Voted(vote)) = self.choose(0, ballot, Choice::Close) else { panic!("no vote") };
        let slot = slot("w", 0);
        let mine = Vote::sign("w", 0, ballot, slot.close_hash(), &self.liar.identity);
        Closing::assemble(slot, ballot, &[*vote, mine])
    }

    fn show(&mut self, message: Wallet) {
        self.liar.say(&mut self.world, 0, Lane::Control, &Message::Wallet(message));
        self.liar.run_for(&mut self.world, Duration::from_millis(50));
    }

    fn voted(&mut self) -> Option<Ballot> {
        acceptor(&mut self.world, 0).and_then(|record| record.acceptor.voted().map(|voted| voted.ballot))
    }

    fn restart(&mut self) {
        self.liar.restart(&mut self.world, 0);
    }
}

/// Everybody's statements of a session, the liar's own included.
fn stated(world: &mut World, liar: &mut Liar, session: PreparedSession) -> Vec<Prepared> {
    let theirs = |liar: &Liar| -> Vec<Prepared> {
        let all = liar.heard.iter().filter_map(|(_, message)| match message {
            Message::Wallet(Wallet::Prepared(statement)) if statement.session == session => Some((**statement).clone()),
            _ => None,
        });
        all.collect()
    };
    let stated = |liar: &Liar, _: &mut World| (1..=2_u8).all(|n| theirs(liar).iter().any(|s| s.node == id(n)));
    assert!(liar.until(world, stated), "{:#?}", world.last_reports());
    let mut statements = theirs(liar);
    statements.push(Prepared::sign(session, &liar.identity));
    statements.sort_by_key(|statement| statement.node);
    statements.dedup_by_key(|statement| statement.node);
    statements
}

fn shown(promised: &Promised) -> Shown<ChoiceName, Signature> {
    Shown { node: promised.node, votes: promised.votes.clone(), proof: promised.signature }
}

fn level(ballot: Ballot, mut promises: Vec<Shown<ChoiceName, Signature>>) -> Level<ChoiceName, Signature> {
    promises.sort_by_key(|shown| shown.node);
    Level { ballot, promises }
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

#[test]
fn an_acceptor_keeps_its_promise_also_after_a_restart_and_says_what_it_voted() {
    let mut open = Open::new();
    let value = open.value();
    let next_year = open.world.now().wall.0 + 365 * 24 * 3_600_000;
    for impossible in [Ballot { node: id(2), ..open.ballot(1) }, open.ballot(next_year), open.ballot(u64::MAX)] {
        assert!(open.prepare(impossible).is_none(), "{impossible:?}");
    }
    assert!(matches!(open.prepare(open.ballot(5)), Some(Wallet::Promised(_, None))));
    for restarted in [false, true] {
        if restarted {
            open.restart();
        }
        let higher = open.ballot(5);
        let lower = open.ballot(4);
        let is_higher =
            |answer: Option<Wallet>| matches!(answer, Some(Wallet::Rejected { promised, .. }) if promised == higher);
        assert!(is_higher(open.prepare(lower)), "restarted: {restarted}");
        assert!(is_higher(open.vote(lower, value.clone())), "restarted: {restarted}");
        assert_eq!(open.voted(), None, "restarted: {restarted}");
    }
    // Nobody else is to decide meanwhile.
    open.world.cut.extend([(0, 1), (1, 0)]);
    let ballot = open.ballot(5);
    let Some(Wallet::Voted(vote)) = open.vote(ballot, value.clone()) else { panic!("no vote") };
    let keys = |node: NodeId| open.world.config(0).peer(node).map(|peer| peer.key);
    vote.verify(&keys).expect("signed");
    assert_eq!((vote.node, vote.ballot, vote.value_hash), (id(1), ballot, value.hash()));
    assert_eq!(open.voted(), Some(ballot), "durable before it is said");
    open.restart();
    let Some(Wallet::Promised(_, Some(reported))) = open.prepare(open.ballot(9)) else { panic!("no promise") };
    assert_eq!(reported.0.session(), Some(&value), "a later proposer hears of the vote");
    assert!(reported.1.allow::<Choice>(&open.facts.committee, ballot, &reported.0.name()), "and why it was cast");
}

#[test]
fn an_acceptor_votes_only_for_what_everybody_has_prepared() {
    let mut open = Open::new();
    assert!(matches!(open.prepare(open.ballot(1)), Some(Wallet::Promised(_, None))));
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 6] = [
        (|value| value.prepared.truncate(2), "no prepared statement"),
        (|value| value.prepared[1].1 = Signature([1; 64]), "not valid"),
        (|value| value.prepared.swap(0, 1), "out of order"),
        (|value| value.public_shares[0].swap(0, 1), "public shares"),
        (|value| value.session.public_keys.swap(0, 1), "not prepared here"),
        (
            |value| value.session.facts.committee = Committee { threshold: 3, ..value.session.facts.committee.clone() },
            "not prepared here",
        ),
    ];
    for (change, reason) in changes {
        let mut changed = open.value();
        change(&mut changed);
        let from = open.world.reports.len();
        assert!(open.vote(open.ballot(1), changed).is_none(), "{reason}");
        let said = &open.world.reports[from..];
        let named = |report: &Report| matches!(report, Report::Ignored { what, .. } if what.contains(reason));
        assert!(said.iter().any(|(node, report)| *node == 0 && named(report)), "{reason}: {said:#?}");
    }
    assert_eq!(open.voted(), None);
    assert!(matches!(open.vote(open.ballot(1), open.value()), Some(Wallet::Voted(_))));
}

/// A proposer that holds two sessions which everybody has prepared gets a vote for the second one only if the promises of
/// a quorum leave it open. If it lies about its own votes for that, what it has signed convicts it.
#[test]
fn an_acceptor_believes_no_proposer_that_a_session_is_open() {
    let mut open = Open::new();
    let (first, second) = (open.value(), open.another());
    let choice = |value: &Value| Choice::Session(Box::new(value.clone()));
    open.world.cut.extend([(0, 1), (1, 0)]);
    let low = open.ballot(1);
    let Some(Wallet::Voted(vote)) = open.vote(low, first.clone()) else { panic!("no vote") };
    let (between, high) = (open.ballot(5), open.ballot(9));
    let slot = slot("w", 0);
    let none = Votes::default;
    let mine = |open: &Open, ballot, votes| open.mine(slot.clone(), ballot, votes);
    let voted = Votes { last: Some((between, choice(&second).name())), other: None };
    let honest = open.theirs(0, slot.clone(), high).expect("a promise");
    assert_eq!(honest.votes.last, Some((low, choice(&first).name())), "it says what it voted for");
    let forged = Shown { node: id(2), ..mine(&open, high, none()) };
    let in_another_slot = open.mine(Slot { number: 1, ..slot.clone() }, high, none());
    let (blank, claims) = (mine(&open, high, none()), mine(&open, high, voted));
    let below = level(between, vec![mine(&open, between, none())]);
    let lies = [
        ("nothing", vec![]),
        ("the promises of another ballot", vec![level(low, vec![mine(&open, low, none())])]),
        ("its own promise", vec![level(high, vec![blank.clone()])]),
        ("its own and one that tells of the vote", vec![level(high, vec![honest.clone(), blank.clone()])]),
        ("a promise in another's name", vec![level(high, vec![forged, blank.clone()])]),
        ("a promise of another slot", vec![level(high, vec![honest.clone(), in_another_slot])]),
        ("a vote that it made up", vec![level(high, vec![honest.clone(), claims.clone()])]),
        ("a vote that it made up, with its own promise", vec![level(high, vec![honest, claims]), below]),
    ];
    for (what, levels) in lies {
        for choice in [choice(&second), Choice::Close] {
            let from = open.world.reports.len();
            assert!(open.convince(0, high, choice, Levels(levels.clone())).is_none(), "{what}");
            let said = &open.world.reports[from..];
            let refused = |r: &Report| matches!(r, Report::Ignored { what, .. } if what.contains("promise"));
            assert!(said.iter().any(|(node, report)| *node == 0 && refused(report)), "{what}: {said:#?}");
        }
    }
    assert_eq!(open.voted(), Some(low));
    // Another member has voted for nothing, so the second session is open as far as anybody can know.
    let other = open.theirs(1, slot.clone(), high).expect("a promise");
    let grounds = Levels(vec![level(high, vec![other, blank])]);
    let answer = open.convince(0, high, choice(&second), grounds.clone());
    assert!(matches!(answer, Some(Wallet::Voted(_))), "{answer:?}");
    // The liar adds its votes to both: two certificates. It has signed one vote, and a promise that hides it.
    let voters = [vote.node, open.liar.id()].into();
    let first = Election { ballot: low, name: choice(&first).name(), voters };
    let voters = [vote.node, open.liar.id()].into();
    let second = Election { ballot: high, name: choice(&second).name(), voters };
    let kept = acceptor(&mut open.world, 0).expect("a record");
    let kept = &kept.acceptor.voted().expect("a vote").grounds;
    assert_eq!(*kept, grounds, "the evidence is kept with the vote");
    assert_eq!(liars::<Choice>(&first, &second, kept), [open.liar.id()].into());
}

/// Whoever has ballots promised, in ever higher rounds and without a pause, holds up no decision.
#[test]
fn a_proposer_that_never_stops_keeps_no_request_open() {
    let mut open = Open::new();
    let limit = open.world.now().time.after(open.world.config(0).keygen_deadline + Duration::from_secs(120));
    let slot = slot("w", 0);
    let prepare = |open: &mut Open, round: u64| {
        let ballot = open.ballot(round);
        for node in [0, 1] {
            let message = Wallet::Prepare { slot: slot.clone(), ballot, request: None };
            open.liar.say(&mut open.world, node, Lane::Control, &Message::Wallet(message));
        }
    };
    for round in [1000, 2000, 1 << 32, 1 << 40] {
        prepare(&mut open, round);
        open.liar.run_for(&mut open.world, Duration::from_secs(10));
    }
    assert_eq!(acceptor(&mut open.world, 0).and_then(|r| r.acceptor.promised()).map(|b| b.round), Some(1 << 40));
    let pause = open.world.config(0).keygen_deadline;
    open.liar.run_for(&mut open.world, pause.saturating_sub(Duration::from_secs(45)));
    while open.world.results.is_empty() && open.world.now().time < limit {
        let highest = open.world.now().wall.after(open.world.config(0).clock_skew * 2).0;
        prepare(&mut open, highest);
        open.liar.run_for(&mut open.world, Duration::from_millis(1));
    }
    assert!(!open.world.results.is_empty(), "{:#?}", open.world.last_reports());
    assert_eq!(code(&open.world.result("w", None)), "ERROR_NETWORK_TIMEOUT");
}

/// A slot that is closed stays closed: whoever speaks of it is shown why, and its sessions are nothing in the next one.
#[test]
fn who_knows_that_a_slot_is_closed_goes_on_in_the_next_one_also_after_a_restart() {
    let mut open = Open::new();
    // Nobody else is to decide meanwhile.
    open.world.cut.extend([(0, 1), (1, 0)]);
    let closing = open.closing();
    open.show(Wallet::Closing(Box::new(closing.clone())));
    for restarted in [false, true] {
        if restarted {
            open.restart();
        }
        let record = acceptor(&mut open.world, 0).expect("a record");
        assert_eq!((record.slot.number, record.closing.as_ref()), (1, Some(&closing)), "restarted: {restarted}");
        assert_eq!(records(&mut open.world, 0, Keyspace::Pending), 0, "restarted: {restarted}");
        assert_eq!(open.close(), Some(Vec::new()), "restarted: {restarted}");
        let answer = open.vote(open.ballot(9), open.value());
        assert!(matches!(answer, Some(Wallet::Closing(shown)) if *shown == closing), "restarted: {restarted}");
        let again = Choice::Session(Box::new(open.value()));
        assert!(open.choose(1, open.ballot(9), again).is_none(), "restarted: {restarted}");
    }
    // The other one hears of it as well.
    open.world.cut.clear();
    let knows = |_: &Liar, world: &mut World| world.node(1).status(world.now()).undecided.is_empty();
    assert!(open.liar.until(&mut open.world, knows), "{:#?}", open.world.last_reports());
    let late = proposal(&open.world, &open.liar, &keygen("w"));
    let said = propose(&mut open.world, &mut open.liar, 0, late).expect("an answer");
    assert!(said.contains("another slot"), "{said}");
    let in_the_open_slot = Proposal { slot: 1, ..proposal(&open.world, &open.liar, &keygen("w")) };
    assert_eq!(propose(&mut open.world, &mut open.liar, 0, in_the_open_slot), Some(String::new()));
    assert_eq!(records(&mut open.world, 0, Keyspace::Shares), 2, "of the session that came to nothing");
}

/// A vote for closing is a vote: a later proposer hears of it.
#[test]
fn who_has_voted_for_closing_says_so_also_after_a_restart() {
    let mut open = Open::new();
    open.world.cut.extend([(0, 1), (1, 0)]);
    open.closing();
    for restarted in [false, true] {
        if restarted {
            open.restart();
        }
        let answer = open.prepare(open.ballot(8));
        assert!(matches!(answer, Some(Wallet::Promised(_, Some((Choice::Close, _))))), "restarted: {restarted}");
    }
}

/// A closing is not worth more for being shown by a member.
#[test]
fn a_closing_that_lacks_anything_is_not_believed() {
    let mut open = Open::new();
    open.world.cut.extend([(0, 1), (1, 0)]);
    let genuine = open.closing();
    let another = |change: fn(&mut Closing)| {
        let mut changed = genuine.clone();
        change(&mut changed);
        changed
    };
    for changed in [
        another(|closing| closing.votes.truncate(1)),
        another(|closing| closing.votes[0].1 = closing.votes[1].1),
        another(|closing| closing.votes[1] = closing.votes[0]),
        another(|closing| closing.slot.number = 1),
        another(|closing| closing.slot.wallet = "v".to_owned()),
        another(|closing| closing.ballot.round += 1),
    ] {
        open.show(Wallet::Closing(Box::new(changed.clone())));
        assert_eq!(acceptor(&mut open.world, 0).map(|record| record.slot.number), Some(0), "{changed:?}");
        assert_eq!(open.close(), Some(vec![open.facts.session]), "{changed:?}");
    }
}

/// A coordinator that gives a request up hears of every session that may still win, voted for or not.
#[test]
fn a_coordinator_that_closes_hears_what_is_prepared() {
    let mut open = Open::new();
    // Nobody else is to decide meanwhile.
    open.world.cut.extend([(0, 1), (1, 0)]);
    assert_eq!(open.close(), Some(vec![open.facts.session]));
    assert!(matches!(open.vote(open.ballot(1), open.value()), Some(Wallet::Voted(_))));
    assert_eq!(open.close(), Some(vec![open.facts.session]));
    assert!(open.voted().is_some());
}

/// A member may name sessions that nobody else knows, again and again: that holds no answer up.
#[test]
fn a_member_that_names_sessions_which_nobody_knows_keeps_no_request_open() {
    let (mut world, mut liar) = world();
    world.request(&keygen("w"));
    let limit = world.now().time.after(world.config(0).keygen_deadline + Duration::from_secs(60));
    let mut read = 0;
    while world.results.is_empty() && world.now().time < limit {
        liar.run_for(&mut world, Duration::from_millis(200));
        let heard = liar.heard.split_off(read);
        for (from, message) in &heard {
            if let Message::Wallet(Wallet::Close { wallet, request_digest }) = message {
                let prepared = vec![crate::session::SessionId([read as u8; 32])];
                let answer = Wallet::Closed { wallet: wallet.clone(), request_digest: *request_digest, prepared };
                let to = world.number(*from);
                liar.say(&mut world, to, Lane::Control, &Message::Wallet(answer));
            }
        }
        liar.heard.extend(heard);
        read = liar.heard.len();
    }
    assert!(!world.results.is_empty(), "{:#?}", world.last_reports());
    assert_eq!(code(&world.result("w", None)), "ERROR_NETWORK_TIMEOUT");
}

/// A certificate is not worth more for being shown by a member.
#[test]
fn a_certificate_that_lacks_anything_is_not_believed() {
    let mut open = Open::new();
    let value = open.value();
    let ballot = open.ballot(1);
    let mine = Vote::sign("w", 0, ballot, value.hash(), &open.liar.identity);
    let forged = Vote { node: id(1), ..mine.clone() };
    for votes in [vec![mine.clone()], vec![forged, mine.clone()], vec![mine.clone(), mine]] {
        let certificate = crate::wallet::Certificate {
            value: value.clone(),
            ballot,
            votes: votes.iter().map(|vote| (vote.node, vote.signature)).collect(),
        };
        open.liar.say(&mut open.world, 0, Lane::Control, &Message::Wallet(Wallet::Certificate(Box::new(certificate))));
        open.liar.run_for(&mut open.world, Duration::from_millis(50));
        assert_eq!(records(&mut open.world, 0, Keyspace::Certificates), 0);
    }
}

/// A refusal counts for whoever signed it, and for the session that it names. A genuine one ends the waiting; but a
/// member that refuses what it has prepared ends nothing, because its statement is proof of the contrary.
#[test]
fn a_refusal_in_anothers_name_or_of_another_session_counts_for_nothing_and_a_false_one_ends_nothing() {
    let mut open = Open::new();
    let session = open.facts.session;
    let mine = |session| Refused::sign("w", 0, session, open.liar.incarnation, &open.liar.identity);
    let forged = Refused { node: id(2), ..mine(session) };
    let (genuine, other) = (mine(session), mine(crate::session::SessionId([5; 32])));
    let undecided = |open: &mut Open| open.world.node(0).status(open.world.now()).undecided.len();
    for refused in [forged, other] {
        open.show(Wallet::Refused(Box::new(refused)));
        assert_eq!(undecided(&mut open), 1, "it believed that");
    }
    open.show(Wallet::Refused(Box::new(genuine)));
    assert_eq!(undecided(&mut open), 0, "it waits for somebody who never comes");
    assert!(matches!(open.vote(open.ballot(1), open.value()), Some(Wallet::Voted(_))));
}

/// With all of three needed to sign, one vote closes a slot. Whoever has that much makes nobody keep anything for wallets
/// that no client asked for, and uses no slots up.
#[test]
fn a_closing_is_believed_only_of_wallets_that_a_client_asked_for_and_of_slots_that_may_be_open() {
    let mut world = World::quiet(3, 3, |_| {});
    let mut liar = Liar::new(&mut world, LIAR);
    let close = |world: &mut World, liar: &mut Liar, slot: Slot| {
        let ballot = Ballot { round: 3, node: liar.id(), incarnation: liar.incarnation };
        let vote = Vote::sign(&slot.wallet, 0, ballot, slot.close_hash(), &liar.identity);
        let closing = Closing::assemble(slot, ballot, &[vote]);
        liar.say(world, 0, Lane::Control, &Message::Wallet(Wallet::Closing(Box::new(closing))));
        liar.run_for(world, Duration::from_millis(50));
    };
    // The first time nothing is known of it.
    for _ in 0..2 {
        close(&mut world, &mut liar, slot("invented", 0));
    }
    assert_eq!(records(&mut world, 0, Keyspace::Decisions), 0);
    world.request(&keygen("w"));
    liar.join_keygen(&mut world);
    let far = slot("w", u32::MAX - 1);
    close(&mut world, &mut liar, far);
    assert_eq!(acceptor(&mut world, 0), None);
    close(&mut world, &mut liar, slot("w", 3));
    assert_eq!(acceptor(&mut world, 0).map(|record| record.slot.number), Some(4));
}

/// A member says of every session that it never prepares it, and keeps its statement: a wallet has room for so many.
#[test]
fn sessions_that_seem_to_be_lost_count_among_those_that_a_wallet_may_have() {
    let mut open = Open::new();
    let mut refused = 0;
    let mut last = open.facts.session;
    let number = |open: &mut Open| acceptor(&mut open.world, 0).map_or(0, |record| record.slot.number);
    while number(&mut open) == 0 {
        let mine = Refused::sign("w", 0, last, open.liar.incarnation, &open.liar.identity);
        for node in [0, 1] {
            let message = Message::Wallet(Wallet::Refused(Box::new(mine.clone())));
            open.liar.say(&mut open.world, node, Lane::Control, &message);
        }
        refused += 1;
        assert!(refused <= limits::PREPARED_PER_SLOT_MAX, "{refused} sessions are prepared");
        if refused == limits::PREPARED_PER_SLOT_MAX {
            // The next proposal finds no room, and the slot is closed.
            let closed = |_: &Liar, world: &mut World| acceptor(world, 0).is_some_and(|record| record.slot.number == 1);
            assert!((0..20).any(|_| open.liar.until(&mut open.world, closed)), "{:#?}", open.world.last_reports());
        } else {
            last = open.another().session.facts.session;
        }
    }
    assert_eq!(records(&mut open.world, 0, Keyspace::Shares), 2 * limits::PREPARED_PER_SLOT_MAX);
    assert_eq!(records(&mut open.world, 0, Keyspace::Pending), 0);
}

/// Who says, while a session runs for somebody else's request, that the request is over, ends nothing.
#[test]
fn a_member_cannot_end_a_session_of_another_coordinator_before_its_deadline() {
    let (mut world, mut liar) = world();
    world.request(&keygen("w"));
    let digest = |message: &Message| match message {
        Message::Wallet(Wallet::Propose(proposal)) => Some((**proposal).clone()),
        _ => None,
    };
    let proposed = |liar: &Liar| liar.heard.iter().find_map(|(_, message)| digest(message));
    assert!(liar.until(&mut world, |liar, _| proposed(liar).is_some()));
    let facts = facts_of(&world, &proposed(&liar).expect("just seen"));
    let close = Wallet::Close { wallet: "w".to_owned(), request_digest: facts.request_digest };
    for node in [0, 1] {
        let said = liar.ask_again(&mut world, node, &Message::Wallet(close.clone()), |message| match message {
            Message::Wallet(Wallet::Closed { prepared, .. }) => Some(prepared.clone()),
            _ => None,
        });
        assert_eq!(said, Some(vec![facts.session]), "it is about to be prepared");
    }
    liar.join_keygen(&mut world);
    let prepared = |_: &Liar, world: &mut World| (0..2).all(|node| records(world, node, Keyspace::Pending) == 1);
    assert!(liar.until(&mut world, prepared), "{:#?}", world.last_reports());
}

/// The proposer that has had a slot closed learns of it even if its records of the wallet are not in memory just then.
#[test]
fn a_proposer_that_has_to_read_the_wallets_records_first_does_not_forget_that_the_slot_is_closed() {
    let mut open = Open::new();
    open.world.cut.extend([(0, 1), (1, 0)]);
    let proposal = |(from, message): &(NodeId, Message)| match message {
        Message::Wallet(Wallet::Propose(_)) => Some(*from),
        _ => None,
    };
    let coordinator = open.liar.heard.iter().find_map(proposal).expect("it took part");
    let node = open.world.number(coordinator);
    let deadline = open.world.config(0).keygen_deadline;
    let slot = slot("w", 0);
    let mut answered = 0;
    let end = open.world.now().time.after(deadline + Duration::from_secs(120));
    // The liar plays the acceptor that the coordinator needs, and answers its call to vote only when the wallet is forgotten.
    loop {
        assert!(open.world.now().time < end, "nobody closes: {:#?}", open.world.last_reports());
        open.liar.run_for(&mut open.world, Duration::from_millis(20));
        let heard = open.liar.heard.split_off(answered);
        let mut called = None;
        for (from, message) in &heard {
            if *from != coordinator {
                continue;
            }
            match message {
                Message::Wallet(Wallet::Prepare { ballot, .. }) => {
                    let promised = Promised::sign(slot.clone(), *ballot, Votes::default(), &open.liar.identity);
                    let message = Message::Wallet(Wallet::Promised(Box::new(promised), None));
                    open.liar.say(&mut open.world, node, Lane::Control, &message);
                }
                Message::Wallet(Wallet::Close { wallet, request_digest }) => {
                    let (wallet, request_digest) = (wallet.clone(), *request_digest);
                    let closed = Wallet::Closed { wallet, request_digest, prepared: vec![open.facts.session] };
                    open.liar.say(&mut open.world, node, Lane::Control, &Message::Wallet(closed));
                }
                Message::Wallet(Wallet::VoteFor { ballot, choice: Choice::Close, .. }) => called = Some(*ballot),
                _ => {}
            }
        }
        open.liar.heard.extend(heard);
        answered = open.liar.heard.len();
        let Some(ballot) = called else { continue };
        for number in 0..=limits::WALLETS_CACHED {
            let message = Message::Wallet(Wallet::Ask { wallet: format!("other{number}"), at: Time(0) });
            open.liar.say(&mut open.world, node, Lane::Control, &message);
        }
        let vote = Vote::sign("w", 0, ballot, slot.close_hash(), &open.liar.identity);
        let message = Message::Wallet(Wallet::Voted(Box::new(vote)));
        open.liar.say(&mut open.world, node, Lane::Control, &message);
        break;
    }
    let closed = |_: &Liar, world: &mut World| acceptor(world, node).is_some_and(|record| record.slot.number == 1);
    assert!(open.liar.until(&mut open.world, closed), "{:#?}", open.world.last_reports());
}

/// While a certificate is being written its member no longer knows what led to it. It must not speak as if it never had.
#[test]
fn a_member_says_nothing_of_a_decision_that_it_is_writing() {
    let mut open = Open::new();
    let own = open.statements.iter().find(|statement| statement.node == open.liar.id()).expect("its own").clone();
    for node in [0, 1] {
        let message = Message::Wallet(Wallet::Prepared(Box::new(own.clone())));
        open.liar.say(&mut open.world, node, Lane::Control, &message);
    }
    let voted = |record: AcceptorRecord| record.acceptor.voted().is_some();
    let decided = |world: &mut World| (0..2).all(|node| acceptor(world, node).is_some_and(voted));
    assert!(open.world.run_until(Duration::from_secs(5), decided), "{:#?}", open.world.last_reports());
    open.world.still.insert(0);
    let exists = |_: &Liar, world: &mut World| records(world, 1, Keyspace::Certificates) > 0;
    assert!(open.liar.until(&mut open.world, exists), "{:#?}", open.world.last_reports());
    let request = keygen("w").to_json();
    let heard = open.liar.heard.len();
    let asked = [
        Wallet::Query { facts: Box::new(open.facts.clone()), slot: 0, request: request.clone() },
        Wallet::Prepare { slot: slot("w", 0), ballot: open.ballot(9), request: Some(request) },
        Wallet::Ask { wallet: "w".to_owned(), at: Time(0) },
    ];
    for message in asked {
        open.liar.say(&mut open.world, 0, Lane::Control, &Message::Wallet(message));
    }
    open.liar.run_for(&mut open.world, Duration::from_millis(500));
    open.world.move_on(0);
    open.liar.run_for(&mut open.world, Duration::from_secs(1));
    let node = open.world.id(0);
    for (from, message) in &open.liar.heard[heard..] {
        let denies =
            matches!(message, Message::Wallet(Wallet::Refused(_) | Wallet::Promised(..) | Wallet::Unknown { .. }));
        assert!(*from != node || !denies, "{message:?}");
    }
    let kept = [Keyspace::Pending, Keyspace::Decisions].map(|keyspace| records(&mut open.world, 0, keyspace));
    assert_eq!(kept, [0, 0]);
    assert_eq!(records(&mut open.world, 0, Keyspace::Certificates), 2);
}
