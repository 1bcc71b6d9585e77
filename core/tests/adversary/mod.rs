//! Honest nodes against a member that lies: it has a valid identity, real links and real shares, and says what no honest
//! node says. The others are the cluster of `tests/cluster`. Messages between nodes are private to the crate, so it
//! includes these tests as its own.
//!
//! What a lie must not bring about is one test each, so that a check that is lost fails by its name; the simulator's
//! cheaters find what nobody thought of.

mod auxiliary;
mod catching_up;
mod limits;
mod pairs;
mod presignatures;
mod sessions;
mod signatures;
mod wallets;
#[allow(dead_code, reason = "the behaviour tests, with which it is shared, use the rest")]
#[path = "../cluster/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use self::world::World;
use crate::{
    Duration, Identity, Incarnation, NodeId, Time,
    input::RequestKind,
    link::{Lane, LinkConfig, LinkOutput, Links, Mark},
    message::{Message, SessionMessage},
    node::facets,
    protocol::{Incoming, Outcome, Party, Run, Status},
    request::{
        admission::read,
        signing::{Answer, Message as Signing, Proposal},
    },
    session::SessionId,
    tags,
    wallet::{
        Certificate, SessionFacts,
        activation::{Message as WalletMessage, Proposal as WalletProposal},
    },
};

/// How often the liar looks at what has arrived.
const TICK: Duration = Duration::from_millis(1);
/// How long it waits for something that should come, and for what should not.
const PATIENCE: Duration = Duration::from_secs(5);

/// A protocol in which the liar takes part honestly.
struct Playing {
    participants: Vec<NodeId>,
    lane: Lane,
    party: Box<dyn Party>,
}

/// A member that says whatever a test wants.
struct Liar {
    identity: Identity,
    number: usize,
    incarnation: Incarnation,
    links: Links,
    /// What the others said, in order, but for messages of protocols.
    heard: Vec<(NodeId, Message)>,
    rounds: Vec<(NodeId, SessionId, Incoming)>,
    playing: BTreeMap<SessionId, Playing>,
    finished: BTreeMap<SessionId, Outcome>,
    /// The key generations in which it took part.
    joined: BTreeSet<SessionId>,
}

impl Liar {
    /// Takes the place of a node, and meets the others.
    fn new(world: &mut World, number: usize) -> Self {
        Self::remembering(world, number, BTreeMap::new())
    }

    /// Takes the place of a node that remembers these marks of others.
    fn remembering(world: &mut World, number: usize, remembered: BTreeMap<NodeId, Mark>) -> Self {
        world.play(number);
        let config = world.config(number).clone();
        let identity = Identity::new(config.me, &[u8::try_from(number).expect("few nodes") + 1; 32]);
        let incarnation = Incarnation([0xee; 16]);
        let links = Links::new(
            LinkConfig {
                identity: identity.clone(),
                peers: config.peers.clone(),
                facets: facets(&config, world.suites(number)),
                incarnation,
                found: 0,
                commits: 1,
                history: BTreeMap::new(),
                remembered,
                seed: [0xdd; 32],
            },
            world.now().time,
        );
        let mut liar = Self {
            identity,
            number,
            incarnation,
            links,
            heard: Vec::new(),
            rounds: Vec::new(),
            playing: BTreeMap::new(),
            finished: BTreeMap::new(),
            joined: BTreeSet::new(),
        };
        let others: Vec<NodeId> = config.peers.iter().map(|p| p.id).filter(|id| *id != config.me).collect();
        let met = liar.until(world, |liar, world| {
            let numbers: Vec<usize> = others.iter().map(|id| world.number(*id)).collect();
            let all_up = |node: &usize| world.node(*node).status(world.now()).peers.iter().all(|peer| peer.up);
            others.iter().all(|id| liar.links.incarnation_of(*id).is_some()) && numbers.iter().all(all_up)
        });
        assert!(met, "no links: {:#?}", world.last_reports());
        liar
    }

    fn id(&self) -> NodeId {
        self.identity.id()
    }

    /// All members with the starts under which they answer, in the order of the committee.
    fn participants(&self, world: &World) -> Vec<(NodeId, Incarnation)> {
        let of = |id| if id == self.id() { self.incarnation } else { self.links.incarnation_of(id).expect("a link") };
        world.config(self.number).peers.iter().map(|peer| (peer.id, of(peer.id))).collect()
    }

    fn say(&mut self, world: &mut World, to: usize, lane: Lane, message: &Message) {
        let (now, to) = (world.now().time, world.id(to));
        self.links.send(now, to, lane, message.encode()).expect("the link takes it");
        self.work(world);
    }

    /// Says something and returns the first answer that `which` recognises within a few seconds.
    fn ask<T>(
        &mut self,
        world: &mut World,
        to: usize,
        (lane, message): (Lane, &Message),
        which: impl Fn(&Message) -> Option<T>,
    ) -> Option<T> {
        let from = world.id(to);
        let at = self.heard.len();
        self.say(world, to, lane, message);
        let answer = |liar: &Self| liar.heard[at..].iter().filter(|(by, _)| *by == from).find_map(|(_, m)| which(m));
        self.until(world, |liar, _| answer(liar).is_some());
        answer(self)
    }

    /// Asks again as long as there is no answer, as honest nodes do: the first time records may have to be read.
    fn ask_again<T>(
        &mut self,
        world: &mut World,
        to: usize,
        message: &Message,
        which: impl Fn(&Message) -> Option<T>,
    ) -> Option<T> {
        (0..2).find_map(|_| self.ask(world, to, (Lane::Control, message), &which))
    }

    /// The certificate that a node shows of a wallet that exists.
    fn certificate_of(&mut self, world: &mut World, at: usize, wallet: &str) -> Certificate {
        let ask = Message::Wallet(WalletMessage::Ask { wallet: wallet.to_owned(), at: Time(0) });
        let shown = |message: &Message| match message {
            Message::Wallet(WalletMessage::Certificate(certificate)) => Some((**certificate).clone()),
            _ => None,
        };
        self.ask_again(world, at, &ask, shown).expect("the wallet exists")
    }

    /// What a node answers to a proposal to sign: nothing, why it declines, or the empty text if it takes part.
    fn propose(&mut self, world: &mut World, to: usize, proposal: Proposal) -> Option<String> {
        let asked = proposal.session();
        let message = Message::Signing(Signing::Propose(Box::new(proposal)));
        self.ask(world, to, (Lane::Signing, &message), |message| match message {
            Message::Signing(Signing::Answer { session, answer }) if *session == asked => Some(match answer {
                Answer::Accepted => String::new(),
                Answer::Holds => "it holds an answer".to_owned(),
                Answer::Declined(decline) => decline.to_string(),
            }),
            _ => None,
        })
    }

    /// Another node is killed, starts again, and meets the liar.
    fn restart(&mut self, world: &mut World, node: usize) {
        let id = world.id(node);
        let before = self.links.incarnation_of(id);
        world.kill(node);
        world.start(node);
        let me = self.id().to_string();
        let back = self.until(world, |liar, world| {
            let knows_me = world.node(node).status(world.now()).peers.iter().any(|peer| peer.up && peer.id == me);
            knows_me && liar.links.incarnation_of(id).is_some_and(|now| Some(now) != before)
        });
        assert!(back, "{:#?}", world.last_reports());
    }

    /// Runs until `done` holds; `false` if a few seconds pass first.
    fn until(&mut self, world: &mut World, mut done: impl FnMut(&Self, &mut World) -> bool) -> bool {
        let end = world.now().time.after(PATIENCE);
        while !done(self, world) {
            if world.now().time >= end {
                return false;
            }
            world.run_for(TICK);
            self.work(world);
        }
        true
    }

    fn run_for(&mut self, world: &mut World, time: Duration) {
        let end = world.now().time.after(time);
        while world.now().time < end {
            world.run_for(TICK);
            self.work(world);
        }
    }

    fn work(&mut self, world: &mut World) {
        let now = world.now().time;
        for bytes in world.mail(self.number) {
            self.links.handle_datagram(now, &bytes);
        }
        if self.links.wake_at().is_some_and(|at| at <= now) {
            self.links.handle_wake(now);
        }
        while let Some(output) = self.links.poll() {
            match output {
                LinkOutput::Datagram { to, bytes } => world.post(to, bytes),
                LinkOutput::Remember { peer, mark } => self.links.remembered(now, peer, mark),
                LinkOutput::RolledBack { incarnation, .. } => self.links.conceded(now, incarnation),
                LinkOutput::Message { peer, bytes, .. } => match Message::decode(&bytes).expect("honest nodes sent it")
                {
                    Message::Session(SessionMessage::Round { session, broadcast, bytes }) => {
                        self.rounds.push((peer, session, Incoming { from: 0, broadcast, bytes }));
                    }
                    message => self.heard.push((peer, message)),
                },
                LinkOutput::PutBack { .. }
                | LinkOutput::Up { .. }
                | LinkOutput::Down { .. }
                | LinkOutput::Trouble(_) => {}
            }
        }
        self.play(world);
    }

    /// Goes on with the protocols in which it takes part.
    fn play(&mut self, world: &mut World) {
        let (known, unknown): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.rounds).into_iter().partition(|(_, id, _)| self.playing.contains_key(id));
        self.rounds = unknown;
        for (from, session, mut incoming) in known {
            let Some(playing) = self.playing.get(&session) else { continue };
            let at = playing.participants.iter().position(|node| *node == from).expect("a participant");
            incoming.from = u16::try_from(at).expect("few nodes");
            self.advance(world, session, vec![incoming]);
        }
    }

    fn advance(&mut self, world: &mut World, session: SessionId, inbox: Vec<Incoming>) {
        let Some(mut playing) = self.playing.remove(&session) else { return };
        let step = playing.party.advance(inbox);
        let now = world.now().time;
        for outgoing in step.messages {
            let broadcast = outgoing.to.is_none();
            let round = Message::Session(SessionMessage::Round { session, broadcast, bytes: outgoing.bytes }).encode();
            for (at, node) in playing.participants.iter().enumerate() {
                let addressed = outgoing.to.is_none_or(|to| usize::from(to) == at);
                if addressed && *node != self.id() {
                    self.links.send(now, *node, playing.lane, round.clone()).expect("the link takes it");
                }
            }
        }
        match step.status {
            Status::Waiting => drop(self.playing.insert(session, playing)),
            Status::Done(outcome) => drop(self.finished.insert(session, outcome)),
            Status::Failed(abort) => panic!("an honest run failed: {}", abort.reason),
        }
    }

    /// Takes part in a run to its end.
    fn take_part(&mut self, world: &mut World, session: SessionId, playing: Playing) -> Outcome {
        self.playing.insert(session, playing);
        self.advance(world, session, Vec::new());
        self.work(world);
        assert!(self.until(world, |liar, _| liar.finished.contains_key(&session)), "{:#?}", world.last_reports());
        self.finished.remove(&session).expect("just seen")
    }

    /// Takes part honestly in the next key generation that a node proposes; it is left to the test what to state about it.
    fn join_keygen(&mut self, world: &mut World) -> (SessionFacts, WalletProposal, Vec<crate::protocol::KeyShare>) {
        let proposed = |liar: &Self| {
            liar.heard.iter().find_map(|(from, message)| match message {
                Message::Wallet(WalletMessage::Propose(proposal)) if !liar.joined.contains(&proposal.session()) => {
                    Some((*from, (**proposal).clone()))
                }
                _ => None,
            })
        };
        // A coordinator whose last attempt came to nothing takes a while.
        let waited = (0..10).any(|_| self.until(world, |liar, _| proposed(liar).is_some()));
        assert!(waited, "{:#?}", world.last_reports());
        let (from, proposal) = proposed(self).expect("just seen");
        let session = proposal.session();
        self.joined.insert(session);
        let suite = world.suites(self.number).keygen.clone();
        let facts = facts_of(world, &proposal);
        let participants: Vec<NodeId> = proposal.participants.iter().map(|p| p.0).collect();
        let index = participants.iter().position(|node| *node == self.id()).expect("it takes part");
        let run = Run {
            execution_id: proposal.execution_id(suite.name(), &facts),
            index: u16::try_from(index).expect("few nodes"),
            parties: u16::try_from(participants.len()).expect("few nodes"),
            seed: [0xcc; 32],
        };
        let party = suite.start(run, facts.committee.threshold).expect("a possible run");
        let accepted = WalletMessage::Answer { session, answer: crate::wallet::activation::Answer::Accepted };
        let coordinator = world.number(from);
        self.say(world, coordinator, Lane::Control, &Message::Wallet(accepted));
        match self.take_part(world, session, Playing { participants, lane: Lane::Control, party }) {
            Outcome::Keys(shares) => (facts, proposal, shares),
            other => panic!("not keys: {other:?}"),
        }
    }
}

/// The facts of a proposed key generation, as every member computes them.
fn facts_of(world: &World, proposal: &WalletProposal) -> SessionFacts {
    let request = read(RequestKind::Keygen, &proposal.request).expect("a request");
    let config = world.config(0);
    let committee = crate::committee::Committee {
        members: config.peers.iter().map(|peer| peer.id).collect(),
        threshold: config.threshold,
    };
    proposal.facts(request.wallet(), tags::REQUEST.hash(&request.all_fields), committee)
}
