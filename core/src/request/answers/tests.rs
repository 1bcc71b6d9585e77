//! Members that crash and forget, messages that are lost, late and repeated, several coordinators at once: never two
//! answers to one delivery, never two results of one request.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

use super::{
    Attempt, DeliveryKey, Report, Signed, Value, Verdict,
    decision::{Bound, Decision, majority},
    promises::{Asked, Promises, Refusal},
};
use crate::{Incarnation, NodeId, WallTime, request::ledger::RequestKey};

const KEY: RequestKey = [7; 32];
const COORDINATORS: usize = 4;
const DELIVERIES: u8 = 4;

fn node(number: usize) -> NodeId {
    NodeId::from_bytes([number as u8 + 1; 16])
}

fn life(number: u8) -> Incarnation {
    Incarnation([number; 16])
}

/// The last delivery has another payload under the same id.
fn payload_of(delivery: u8) -> [u8; 32] {
    [u8::from(delivery == DELIVERIES - 1); 32]
}

/// One thing that may happen next; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Event {
    Deliver(usize),
    DeliverTwice(usize),
    Lose(usize),
    /// A member's oldest write becomes durable, and is told.
    Sync(usize),
    /// A member finishes a signature.
    Sign(usize, usize),
    /// A member starts anew with what is durable, and perhaps with what was on its way to the disk.
    Restart(usize, bool),
    /// A coordinator begins an attempt with some participants.
    Propose(usize, usize),
    /// A coordinator begins a ballot, and may give up with an error of its own.
    Decide(usize, usize, bool),
    /// It asks those again that have not answered.
    AskAgain(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mutation {
    None,
    /// `n − t + 1` members are a quorum.
    SmallQuorum,
    /// What is durable does not count as a promise.
    ForgetsBallots,
    /// Verdicts are not durable.
    ForgetsVerdicts,
    /// Verdicts of success are not kept, only results.
    ForgetsSuccesses,
    /// A later life promises ballots below those that an earlier one has promised.
    ForgetsPromises,
    /// A member stores what it promised in another ballot.
    StoresAnything,
}

#[derive(Clone, Debug)]
enum Say {
    Propose(Vec<DeliveryKey>),
    Accepted,
    Holds,
    Prepare(Vec<DeliveryKey>),
    Promised(Report),
    Store(Value),
    Stored,
    Rejected(Attempt),
}

/// Between a coordinator and one life of a member: links die with either end.
#[derive(Clone, Debug)]
struct Packet {
    coordinator: usize,
    ballot: Attempt,
    payload: [u8; 32],
    member: usize,
    life: u8,
    say: Say,
}

struct Write {
    value: Value,
    reply: Packet,
}

#[derive(Default)]
struct Member {
    life: u8,
    promises: Promises,
    memory: Report,
    disk: Report,
    writes: Vec<Write>,
    /// Attempts in which this life takes part.
    signing: BTreeMap<Attempt, ([u8; 32], Vec<DeliveryKey>, usize)>,
}

enum Works {
    Attempt { ballot: Attempt, payload: [u8; 32], deliveries: Vec<DeliveryKey>, stored: BTreeSet<usize> },
    Ballot { decision: Box<Decision>, payload: [u8; 32], gives_up: bool },
}

/// A verdict, the result that goes with it, and who holds it.
type Chosen = (Verdict, Option<Signed>, BTreeSet<usize>);

struct World {
    n: usize,
    t: usize,
    mutation: Mutation,
    members: Vec<Member>,
    coordinators: Vec<Option<Works>>,
    known: Vec<u64>,
    serial: u64,
    packets: Vec<Packet>,
    accepted: BTreeMap<Attempt, BTreeSet<usize>>,
    /// What became durable, where: what an observer of everything would call chosen.
    holders: BTreeMap<(DeliveryKey, Attempt), Chosen>,
    published: BTreeMap<DeliveryKey, BTreeSet<Vec<u8>>>,
    results: BTreeSet<Vec<u8>>,
}

fn store(report: &mut Report, ballot: Attempt, value: &Value) {
    if let Some(signed) = &value.result {
        report.result = Some((ballot, signed.clone()));
    }
    for (delivery, verdict) in &value.verdicts {
        report.verdicts.insert(*delivery, (ballot, verdict.clone()));
    }
}

impl World {
    fn new(n: usize, t: usize, mutation: Mutation) -> Self {
        Self {
            n,
            t,
            mutation,
            members: (0..n).map(|_| Member::default()).collect(),
            coordinators: (0..COORDINATORS).map(|_| None).collect(),
            known: vec![0; COORDINATORS],
            serial: 0,
            packets: Vec::new(),
            accepted: BTreeMap::new(),
            holders: BTreeMap::new(),
            published: BTreeMap::new(),
            results: BTreeSet::new(),
        }
    }

    fn quorum(&self) -> usize {
        if self.mutation == Mutation::SmallQuorum { self.n - self.t + 1 } else { majority(self.n) }
    }

    fn ballot(&mut self, coordinator: usize, choice: usize) -> Attempt {
        self.serial += 1;
        self.known[coordinator] += 1 + (choice % 3) as u64;
        let number = self.known[coordinator];
        Attempt { number, coordinator: node(coordinator), incarnation: life(0), serial: self.serial }
    }

    /// Some deliveries with one payload.
    fn deliveries(choice: usize) -> ([u8; 32], Vec<DeliveryKey>) {
        let first = (choice % usize::from(DELIVERIES)) as u8;
        let payload = payload_of(first);
        let all = (0..DELIVERIES).filter(|d| payload_of(*d) == payload);
        (payload, all.filter(|d| *d == first || choice & (16 << d) != 0).map(|d| [d; 32]).collect())
    }

    fn say(&mut self, coordinator: usize, ballot: Attempt, payload: [u8; 32], member: usize, say: Say) {
        let life = self.members[member].life;
        self.packets.push(Packet { coordinator, ballot, payload, member, life, say });
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Deliver(at) => {
                if let Some(at) = at.checked_rem(self.packets.len()) {
                    let packet = self.packets.swap_remove(at);
                    self.deliver(packet);
                }
            }
            Event::DeliverTwice(at) => {
                if let Some(at) = at.checked_rem(self.packets.len()) {
                    self.deliver(self.packets[at].clone());
                }
            }
            Event::Lose(at) => {
                if let Some(at) = at.checked_rem(self.packets.len()) {
                    self.packets.swap_remove(at);
                }
            }
            Event::Sync(at) => self.sync(at % self.n),
            Event::Sign(member, at) => self.sign(member % self.n, at),
            Event::Restart(at, written) => self.restart(at % self.n, written),
            Event::Propose(at, choice) => self.propose(at % COORDINATORS, choice),
            Event::Decide(at, choice, gives_up) => {
                let at = at % COORDINATORS;
                let ballot = self.ballot(at, choice);
                let (payload, deliveries) = Self::deliveries(choice / 3);
                let acceptors = (0..self.n).map(node).collect();
                let mut decision = Box::new(Decision::new(ballot, payload, acceptors, deliveries));
                decision.quorum = self.quorum();
                self.coordinators[at] = Some(Works::Ballot { decision, payload, gives_up });
                self.ask(at);
            }
            Event::AskAgain(at) => self.ask(at % COORDINATORS),
        }
    }

    fn propose(&mut self, at: usize, choice: usize) {
        let ballot = self.ballot(at, choice);
        let (payload, deliveries) = Self::deliveries(choice / 3);
        let works = Works::Attempt { ballot, payload, deliveries: deliveries.clone(), stored: BTreeSet::new() };
        self.coordinators[at] = Some(works);
        for member in 0..self.t {
            self.say(at, ballot, payload, (member + choice / 7) % self.n, Say::Propose(deliveries.clone()));
        }
    }

    fn ask(&mut self, at: usize) {
        let Some(Works::Ballot { decision, payload, .. }) = &self.coordinators[at] else { return };
        let (ballot, payload) = (decision.ballot(), *payload);
        let store = decision.unstored().map(|(value, missing)| (value.clone(), missing));
        let (unpromised, deliveries) = (decision.unpromised(), decision.deliveries().to_vec());
        let number = |id: NodeId| usize::from(id.as_bytes()[0]) - 1;
        if let Some((value, missing)) = store {
            for id in missing {
                self.say(at, ballot, payload, number(id), Say::Store(value.clone()));
            }
        }
        for id in unpromised {
            self.say(at, ballot, payload, number(id), Say::Prepare(deliveries.clone()));
        }
    }

    fn restart(&mut self, at: usize, written: bool) {
        let writes = std::mem::take(&mut self.members[at].writes);
        if written {
            // On the disk, but nobody has been told.
            for write in writes {
                store(&mut self.members[at].disk, write.reply.ballot, &write.value);
                self.durable(at, &write);
            }
        }
        let member = &mut self.members[at];
        let lowest = Attempt { number: 0, coordinator: node(0), incarnation: life(0), serial: 0 };
        match self.mutation {
            Mutation::ForgetsBallots => {
                let result = member.disk.result.iter_mut().map(|(ballot, _)| ballot);
                for ballot in result.chain(member.disk.verdicts.values_mut().map(|(ballot, _)| ballot)) {
                    *ballot = lowest;
                }
            }
            Mutation::ForgetsVerdicts => member.disk.verdicts.clear(),
            Mutation::ForgetsSuccesses => member.disk.verdicts.retain(|_, (_, verdict)| *verdict != Verdict::Success),
            _ => {}
        }
        member.memory = member.disk.clone();
        member.life += 1;
        let forgotten = self.known.iter().copied().max().unwrap_or(0);
        let forgotten = if self.mutation == Mutation::ForgetsPromises { 0 } else { forgotten };
        member.promises = Promises::after(forgotten);
        member.signing.clear();
        for works in self.coordinators.iter_mut().flatten() {
            if let Works::Ballot { decision, .. } = works {
                decision.on_link_down(node(at));
            }
        }
    }

    fn durable(&mut self, at: usize, write: &Write) {
        for (delivery, verdict) in &write.value.verdicts {
            let name = (*delivery, write.reply.ballot);
            let new = || (verdict.clone(), write.value.result.clone(), BTreeSet::new());
            let (known, result, holders) = self.holders.entry(name).or_insert_with(new);
            assert!(known == verdict && *result == write.value.result, "one ballot has one value");
            holders.insert(at);
        }
    }

    fn sync(&mut self, at: usize) {
        if self.members[at].writes.is_empty() {
            return;
        }
        let write = self.members[at].writes.remove(0);
        store(&mut self.members[at].disk, write.reply.ballot, &write.value);
        self.durable(at, &write);
        self.packets.push(write.reply);
    }

    fn write(&mut self, at: usize, ballot: Attempt, value: Value, reply: Packet) {
        store(&mut self.members[at].memory, ballot, &value);
        self.members[at].writes.push(Write { value, reply });
    }

    fn sign(&mut self, at: usize, choice: usize) {
        let ready: Vec<_> = self.members[at]
            .signing
            .iter()
            .filter(|(ballot, _)| self.accepted.get(ballot).is_some_and(|who| who.len() == self.t))
            .map(|(ballot, signing)| (*ballot, signing.clone()))
            .collect();
        let Some(at_ready) = choice.checked_rem(ready.len()) else { return };
        let (ballot, (payload, deliveries, coordinator)) = ready[at_ready].clone();
        self.members[at].signing.remove(&ballot);
        if !self.members[at].promises.allows(&KEY, ballot, deliveries.iter()) {
            return;
        }
        let signature = ballot.serial.to_be_bytes().to_vec();
        let result = Some(Signed { payload, signature, attestations: Vec::new() });
        let verdicts = deliveries.into_iter().map(|delivery| (delivery, Verdict::Success)).collect();
        let life = self.members[at].life;
        let reply = Packet { coordinator, ballot, payload, member: at, life, say: Say::Stored };
        self.write(at, ballot, Value { result, verdicts }, reply);
    }

    fn deliver(&mut self, packet: Packet) {
        // What was sent to, or by, an earlier life is lost.
        if self.members[packet.member].life != packet.life {
            return;
        }
        match packet.say {
            Say::Propose(_) | Say::Prepare(_) | Say::Store(_) => self.member_hears(packet),
            _ => self.coordinator_hears(packet),
        }
    }

    fn member_hears(&mut self, packet: Packet) {
        let Packet { coordinator, ballot, payload, member: at, .. } = packet.clone();
        let member = &mut self.members[at];
        let report = |deliveries: &[DeliveryKey], memory: &Report| {
            let mut report = memory.clone();
            report.verdicts.retain(|delivery, _| deliveries.contains(delivery));
            report
        };
        let asked =
            |deliveries, to_sign| Asked { key: KEY, payload, ballot, deliveries, until: WallTime(u64::MAX), to_sign };
        let say = match packet.say.clone() {
            Say::Propose(deliveries) => {
                let held = report(&deliveries, &member.memory);
                if !held.is_empty() {
                    Say::Holds
                } else {
                    match member.promises.promise(WallTime(0), &asked(&deliveries, true), &held) {
                        Ok(()) => {
                            member.signing.insert(ballot, (payload, deliveries, coordinator));
                            Say::Accepted
                        }
                        Err(Refusal::Higher(higher)) => Say::Rejected(higher),
                        Err(_) => return,
                    }
                }
            }
            Say::Prepare(deliveries) => {
                let held = report(&deliveries, &member.memory);
                match member.promises.promise(WallTime(0), &asked(&deliveries, false), &held) {
                    Ok(()) => Say::Promised(held),
                    Err(Refusal::Higher(higher)) => Say::Rejected(higher),
                    Err(_) => return,
                }
            }
            Say::Store(value) => {
                if member.promises.allows(&KEY, ballot, value.verdicts.keys())
                    || self.mutation == Mutation::StoresAnything
                {
                    let reply = Packet { say: Say::Stored, ..packet };
                    self.write(at, ballot, value, reply);
                }
                return;
            }
            _ => return,
        };
        self.packets.push(Packet { say, ..packet });
    }

    fn coordinator_hears(&mut self, packet: Packet) {
        let Packet { coordinator: at, ballot, member, life: member_life, say, .. } = packet;
        if let Say::Rejected(higher) = &say {
            self.known[at] = self.known[at].max(higher.number);
        }
        if matches!(say, Say::Accepted) {
            self.accepted.entry(ballot).or_default().insert(member);
        }
        let majority = self.quorum();
        match (&mut self.coordinators[at], say) {
            (Some(Works::Attempt { ballot: own, payload, deliveries, stored }), Say::Stored) if *own == ballot => {
                stored.insert(member);
                if stored.len() == majority {
                    let signature = ballot.serial.to_be_bytes().to_vec();
                    let result = Some(Signed { payload: *payload, signature, attestations: Vec::new() });
                    let verdicts = deliveries.iter().map(|delivery| (*delivery, Verdict::Success)).collect();
                    self.publish(&Value { result, verdicts });
                }
            }
            (Some(Works::Attempt { ballot: own, .. }), Say::Holds | Say::Rejected(_)) if *own == ballot => {
                self.coordinators[at] = None;
            }
            (Some(Works::Ballot { decision, .. }), Say::Rejected(higher)) if decision.ballot() == ballot => {
                let over = decision.on_rejected(node(member), higher.number).is_some();
                if over {
                    self.coordinators[at] = None;
                }
            }
            (Some(Works::Ballot { decision, .. }), Say::Promised(report)) if decision.ballot() == ballot => {
                decision.on_promise(node(member), life(member_life), report);
                self.choose(at);
            }
            (Some(Works::Ballot { decision, .. }), Say::Stored) if decision.ballot() == ballot => {
                if let Some(value) = decision.on_stored(node(member), life(member_life)).cloned() {
                    self.publish(&value);
                }
            }
            _ => {}
        }
    }

    /// As the coordinators of the node do.
    fn choose(&mut self, at: usize) {
        let Some(Works::Ballot { decision, gives_up, .. }) = &mut self.coordinators[at] else { return };
        if !decision.is_open() {
            return;
        }
        let own = decision.ballot().serial.to_be_bytes().to_vec();
        let mut value = Value::default();
        for delivery in decision.deliveries() {
            let verdict = match decision.bound(delivery) {
                Bound::Error(body) => Verdict::Error(body),
                Bound::Success(Some(signed)) => {
                    value.result = Some(signed);
                    Verdict::Success
                }
                // With everything in order a success is never without its result.
                Bound::Success(None) => {
                    assert_ne!(self.mutation, Mutation::None, "a success without a result");
                    continue;
                }
                Bound::Taken => Verdict::Error(own.clone()),
                Bound::Free if *gives_up => Verdict::Error(own.clone()),
                Bound::Free => continue,
            };
            value.verdicts.insert(*delivery, verdict);
        }
        if value.verdicts.is_empty() {
            self.coordinators[at] = None;
            return;
        }
        decision.choose(value);
        self.ask(at);
    }

    fn publish(&mut self, value: &Value) {
        for (delivery, verdict) in &value.verdicts {
            let answer = match (verdict, &value.result) {
                (Verdict::Error(body), _) => [b"error ", &body[..]].concat(),
                (Verdict::Success, Some(signed)) => {
                    self.results.insert(signed.signature.clone());
                    [b"result ", &signed.signature[..]].concat()
                }
                (Verdict::Success, None) => panic!("a success without a result"),
            };
            self.published.entry(*delivery).or_default().insert(answer);
        }
    }

    fn check(&self) -> Result<(), String> {
        if let Some((delivery, answers)) = self.published.iter().find(|(_, answers)| answers.len() > 1) {
            return Err(format!("delivery {} got {} answers: {answers:?}", delivery[0], answers.len()));
        }
        if self.results.len() > 1 {
            return Err(format!("two results: {:?}", self.results));
        }
        // What a majority holds of one ballot is decided, whether a coordinator came to know of it or not.
        let mut chosen = BTreeMap::<DeliveryKey, BTreeSet<Option<Vec<u8>>>>::new();
        for ((delivery, _), (verdict, result, holders)) in &self.holders {
            if holders.len() >= majority(self.n) {
                let answer = match verdict {
                    Verdict::Error(body) => Some(body.clone()),
                    Verdict::Success => result.as_ref().map(|signed| signed.signature.clone()),
                };
                chosen.entry(*delivery).or_default().insert(answer);
            }
        }
        match chosen.iter().find(|(_, values)| values.len() > 1) {
            Some((delivery, values)) => Err(format!("delivery {} has two verdicts: {values:?}", delivery[0])),
            None => Ok(()),
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let some = 0_usize..1 << 16;
    prop_oneof![
        12 => some.clone().prop_map(Event::Deliver),
        1 => some.clone().prop_map(Event::DeliverTwice),
        1 => some.clone().prop_map(Event::Lose),
        5 => some.clone().prop_map(Event::Sync),
        3 => (some.clone(), some.clone()).prop_map(|(member, at)| Event::Sign(member, at)),
        1 => (some.clone(), any::<bool>()).prop_map(|(at, written)| Event::Restart(at, written)),
        1 => (some.clone(), some.clone()).prop_map(|(at, choice)| Event::Propose(at, choice)),
        1 => (some.clone(), some.clone(), any::<bool>()).prop_map(|(at, choice, own)| Event::Decide(at, choice, own)),
        1 => some.prop_map(Event::AskAgain),
    ]
}

/// What is wrong with the mutated rules, if anything is found; and how many deliveries were answered.
fn search(mutation: Mutation, cases: u32) -> (Option<String>, usize) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let sizes = prop_oneof![Just((2, 2)), Just((3, 2)), Just((3, 3)), Just((4, 3)), Just((5, 3)), Just((5, 4))];
    let answered = std::cell::Cell::new(0);
    let result = runner.run(&(sizes, prop::collection::vec(event(), 100..600)), |((n, t), events)| {
        let mut world = World::new(n, t, mutation);
        for event in &events {
            world.happen(event);
            world.check().map_err(TestCaseError::fail)?;
        }
        answered.set(answered.get() + world.published.len());
        Ok(())
    });
    match result {
        Ok(()) => (None, answered.get()),
        Err(TestError::Fail(reason, _)) => (Some(reason.message().to_owned()), answered.get()),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn no_delivery_gets_two_answers_and_no_request_two_results() {
    let cases = 3_000;
    let (found, answered) = search(Mutation::None, cases);
    assert_eq!(found, None);
    assert!(answered > cases as usize / 4, "only {answered} deliveries were answered: the runs say little");
}

#[test]
fn every_rule_is_needed() {
    let mutations = [
        Mutation::SmallQuorum,
        Mutation::ForgetsBallots,
        Mutation::ForgetsVerdicts,
        Mutation::ForgetsSuccesses,
        Mutation::ForgetsPromises,
        Mutation::StoresAnything,
    ];
    let missed: Vec<Mutation> = mutations.into_iter().filter(|m| search(*m, 60_000).0.is_none()).collect();
    assert_eq!(missed, [], "rules without which nothing was found");
}

fn error(text: &str) -> Value {
    Value { result: None, verdicts: [([0; 32], Verdict::Error(text.as_bytes().to_vec()))].into() }
}

/// A ballot of the first coordinator about one delivery, promised by two acceptors of three.
fn promised() -> Decision {
    let ballot = Attempt { number: 5, coordinator: node(0), incarnation: life(0), serial: 1 };
    let mut decision = Decision::new(ballot, [0; 32], (0..3).map(node).collect(), vec![[0; 32]]);
    (0..2).for_each(|member| decision.on_promise(node(member), life(0), Report::default()));
    decision
}

#[test]
fn a_member_that_shows_something_else_after_the_choice_ends_no_ballot() {
    let mut decision = promised();
    decision.choose(error("chosen"));
    let higher = Attempt { number: 7, coordinator: node(2), incarnation: life(0), serial: 1 };
    let other = Verdict::Error(b"made up".to_vec());
    let report = Report { result: None, verdicts: [([0; 32], (higher, other))].into() };
    // Neither one who says it for the first time, nor one who has promised before.
    for member in [2, 1] {
        decision.on_promise(node(member), life(0), report.clone());
    }
    assert_eq!(decision.on_stored(node(0), life(0)), None);
    assert_eq!(decision.on_stored(node(1), life(0)), Some(&error("chosen")));
}

#[test]
fn one_acceptor_that_rejects_ends_no_ballot_and_chooses_nobodys_number() {
    let mut decision = promised();
    assert_eq!(decision.on_rejected(node(2), u64::MAX), None);
    assert_eq!(decision.on_rejected(node(2), u64::MAX), None, "twice the same is once");
    assert!(decision.unpromised().is_empty(), "it is not asked again");
    assert_eq!(decision.outbid(), None, "the others are enough");
    decision.on_link_down(node(1));
    assert_eq!(decision.outbid(), Some(u64::MAX), "the others are not");
    decision.on_promise(node(1), life(0), Report::default());
    decision.choose(error("chosen"));
    assert_eq!(decision.on_stored(node(0), life(0)), None);
    assert_eq!(decision.on_rejected(node(1), 9), Some(9), "two of three have promised another one");
    let mut decision = promised();
    decision.choose(error("chosen"));
    assert!(decision.on_stored(node(0), life(0)).is_none() && decision.on_stored(node(1), life(0)).is_some());
    assert_eq!(decision.on_rejected(node(1), 9), None, "what is stored is stored");
}
