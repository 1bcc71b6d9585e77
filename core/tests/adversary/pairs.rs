//! A liar in a cluster that signs with DKLs23: what it learns of a ban before that is durable, which set-ups are used, and
//! how often it has new ones made.

use std::sync::Arc;

use mpcium_client::request::Request;

use super::{
    Liar, Playing,
    auxiliary::{refused, wait},
    world::{World, code, keygen, sign},
};
use crate::{
    Duration, NodeId,
    auxiliary::{Agreed, Message as Auxiliary, Proposal as ToSetUp},
    input::RequestKind,
    link::Lane,
    message::{Message, SessionMessage},
    protocol::{
        AuxiliarySet, AuxiliaryView, Curve, DistributedKeyGeneration, Dkls, Frost, KeyShare, Outcome, Run,
        Signing as ToSign, Suites,
    },
    report::Report,
    request::{
        admission::read,
        answers::Attempt,
        signing::{Answer, Message as Signing, Proposal, message_to_sign},
    },
    store::Keyspace,
    wallet::{CertificateRecord, record::ShareRecord, record::Stored as _},
};

/// The wallet `w` of two honest nodes and a liar, of whom two sign, and every pair's set-up.
struct Cluster {
    world: World,
    liar: Liar,
    /// The honest node that the liar has to do with: the lower of the two leads their runs.
    with: usize,
    share: Arc<KeyShare>,
    certificate: [u8; 32],
    /// The set-up of the two, and its name.
    set: AuxiliarySet,
    name: [u8; 32],
    asked: u8,
}

impl Cluster {
    fn new(number: usize, with: usize) -> Self {
        let suites =
            Suites { keygen: Arc::new(DistributedKeyGeneration), secp256k1: Arc::new(Dkls), ed25519: Arc::new(Frost) };
        let mut world = World::with_suites(2, vec![suites; 3], |_| {});
        world.request(&keygen("w"));
        assert_eq!(code(&world.result("w", None)), "");
        let complete = |world: &mut World| {
            let agreed = |node| world.node(node).status(world.now()).auxiliary_sets.iter().filter(|s| s.agreed).count();
            (0..3).all(|node| agreed(node) == 2)
        };
        assert!(world.run_until(Duration::from_secs(60), complete), "{:#?}", world.last_reports());
        let liar = Liar::new(&mut world, number);
        let records = |world: &mut World, keyspace| -> Vec<(Vec<u8>, Vec<u8>)> {
            let of = world.disk(number).iter().filter(|((at, _), _)| *at == keyspace);
            of.map(|((_, key), value)| (key.clone(), value.expose().to_vec())).collect()
        };
        let shares = records(&mut world, Keyspace::Shares).into_iter();
        let mut shares = shares.map(|(_, value)| ShareRecord::decode(&value).expect("a record").share);
        let certificates = records(&mut world, Keyspace::Certificates);
        let mut certificates = certificates.iter().filter_map(|(_, value)| CertificateRecord::decode(value).ok());
        let peer = world.id(with);
        let mut sets = records(&mut world, Keyspace::Auxiliary).into_iter().filter_map(|(name, record)| {
            // Its kind, its members, the own place among them, and the data.
            let (_, members, _, set): (u32, Vec<NodeId>, u16, AuxiliarySet) =
                postcard::take_from_bytes(&record).expect("a set").0;
            members.contains(&peer).then_some((name, set))
        });
        let (name, set) = sets.next().expect("a set of the two");
        Self {
            share: Arc::new(shares.find(|share| share.curve == Curve::Secp256k1).expect("a share")),
            certificate: certificates.next().expect("a certificate").certificate.hash(),
            name: name.try_into().expect("a hash"),
            world,
            liar,
            with,
            set,
            asked: 0,
        }
    }

    /// The positions of the two in the committee, in order.
    fn two(&self) -> [u16; 2] {
        let (one, other) = (self.liar.number.min(self.with), self.liar.number.max(self.with));
        [u16::try_from(one).expect("few"), u16::try_from(other).expect("few")]
    }

    fn members(&self) -> Vec<NodeId> {
        self.two().into_iter().map(|at| self.world.id(at.into())).collect()
    }

    /// Tells which set-ups the liar holds, and gives its word on some.
    fn says(&mut self, sets: &[[u8; 32]], agreed: &[Agreed]) {
        let (sets, agreed) = (sets.to_vec(), agreed.to_vec());
        let state = Auxiliary::State { has_ingredient: false, sets, agreed, pairs: Vec::new(), banned: Vec::new() };
        self.liar.say(&mut self.world, self.with, Lane::Control, &Message::Auxiliary(state));
        self.liar.run_for(&mut self.world, Duration::from_millis(100));
    }

    fn set_up_proposal(&mut self) -> ToSetUp {
        self.asked += 1;
        let all = self.liar.participants(&self.world);
        ToSetUp::new(self.two().into_iter().map(|at| all[usize::from(at)]).collect(), [self.asked; 16])
    }

    /// A set-up that the liar proposes and completes: its name, and the liar's word on it, which it has not given yet.
    /// Or why the other one does not take part.
    fn set_up(&mut self) -> Result<([u8; 32], Agreed), String> {
        let proposal = self.set_up_proposal();
        if let Some(reason) = refused(&mut self.world, &mut self.liar, self.with, &proposal) {
            return Err(reason);
        }
        let suite = self.world.suites(0).secp256k1.clone();
        let run = Run { execution_id: proposal.execution_id(suite.name()), index: 0, parties: 2, seed: [1; 32] };
        let party = suite.auxiliary().expect("it has some").start(run, Vec::new()).expect("a possible run");
        let playing = Playing { participants: self.members(), lane: Lane::Bulk, party };
        let outcome = self.liar.take_part(&mut self.world, proposal.session(), playing);
        let Outcome::Auxiliary(set) = outcome else { panic!("no set-up: {outcome:?}") };
        self.liar.run_for(&mut self.world, Duration::from_millis(100));
        Ok(Agreed::sign(suite.name(), &self.members(), &set, &self.liar.identity))
    }

    /// A proposal to sign with these set-ups.
    fn signing_proposal(&mut self, request: &Request, auxiliary: Vec<[u8; 32]>) -> Proposal {
        self.asked += 1;
        let all = self.liar.participants(&self.world);
        Proposal {
            request: request.to_json(),
            deadline: self.world.now().wall.after(self.world.config(0).signing_deadline),
            attempt: Attempt {
                number: self.asked.into(),
                coordinator: self.liar.id(),
                incarnation: self.liar.incarnation,
                serial: 1,
            },
            tries: 1,
            participants: self.two().into_iter().map(|at| all[usize::from(at)]).collect(),
            certificate: self.certificate,
            auxiliary,
            deliveries: vec![[self.asked; 32]],
            presignature: None,
            nonce: [self.asked; 16],
        }
    }

    /// What an honest signer would say first in a run.
    fn first_words(&self, request: &Request, proposal: &Proposal) -> Vec<u8> {
        let admitted = read(RequestKind::Sign, &request.to_json()).expect("a request");
        let suite = self.world.suites(0).secp256k1.clone();
        let execution_id = proposal.execution_id(suite.name(), &self.share.public_key, &admitted.all_fields);
        let index = u16::from(self.liar.number > self.with);
        let message = message_to_sign(admitted.signing()).expect("a message");
        let view = AuxiliaryView { secret: self.set.secret.clone(), rows: self.set.rows.clone(), opened: None };
        let signing = ToSign { key: self.share.clone(), signers: self.two().to_vec(), message, auxiliary: vec![view] };
        let run = Run { execution_id, index, parties: 2, seed: [1; 32] };
        let mut party = suite.start(run, signing).expect("a possible run");
        party.advance(Vec::new()).messages.remove(0).bytes
    }
}

fn request(tx: &str) -> Request {
    sign("w", "secp256k1", tx, &[0x5a; 32], &[])
}

/// The reason of a decline, where it is the answer to this proposal.
fn declined(message: &Message, proposal: &Proposal) -> Option<String> {
    match message {
        Message::Signing(Signing::Answer { session, answer: Answer::Declined(decline) })
            if *session == proposal.session() =>
        {
            Some(decline.to_string())
        }
        _ => None,
    }
}

#[test]
fn a_set_up_on_which_only_one_of_the_two_has_given_its_word_is_not_used() {
    let mut cluster = Cluster::new(0, 1);
    cluster.says(&[], &[]);
    let (name, agreed) = cluster.set_up().expect("the other one takes part");
    let proposal = cluster.signing_proposal(&request("too early"), vec![name]);
    let answer = cluster.liar.propose(&mut cluster.world, 1, proposal).expect("an answer");
    assert!(answer.contains("has not agreed"), "{answer}");
    cluster.says(&[name], &[agreed]);
    let proposal = cluster.signing_proposal(&request("in time"), vec![name]);
    assert_eq!(cluster.liar.propose(&mut cluster.world, 1, proposal).as_deref(), Some(""));
}

#[test]
fn nothing_shows_a_ban_before_it_is_durable() {
    let mut cluster = Cluster::new(0, 1);
    let old = cluster.name;
    // A newer set-up, on which the liar keeps its word back for later.
    cluster.says(&[], &[]);
    let (new, agreed) = cluster.set_up().expect("the other one takes part");
    cluster.says(&[old], &[]);

    let proposal = cluster.signing_proposal(&request("cheat"), vec![old]);
    assert_eq!(cluster.liar.propose(&mut cluster.world, 1, proposal.clone()).as_deref(), Some(""));
    let mut bytes = cluster.first_words(&request("cheat"), &proposal);
    bytes[200] ^= 1;
    cluster.world.still.insert(1);
    let cheat = SessionMessage::Round { session: proposal.session(), broadcast: false, bytes };
    cluster.liar.say(&mut cluster.world, 1, Lane::Signing, &Message::Session(cheat));
    let found = |_: &Liar, world: &mut World| {
        world.reports.iter().any(|(node, report)| *node == 1 && matches!(report, Report::PairBanned { .. }))
    };
    assert!(cluster.liar.until(&mut cluster.world, found), "{:#?}", cluster.world.last_reports());

    let at = cluster.liar.heard.len();
    cluster.says(&[old, new], &[agreed]);
    let again = cluster.signing_proposal(&request("again"), vec![old]);
    let message = Message::Signing(Signing::Propose(Box::new(again.clone())));
    cluster.liar.say(&mut cluster.world, 1, Lane::Signing, &message);
    let new_one = cluster.set_up_proposal();
    assert_eq!(refused(&mut cluster.world, &mut cluster.liar, 1, &new_one), None);
    cluster.liar.run_for(&mut cluster.world, Duration::from_secs(2));
    let other = cluster.world.id(1);
    let heard: Vec<_> = cluster.liar.heard[at..].iter().filter(|(by, _)| *by == other).collect();
    assert!(heard.is_empty(), "{heard:#?}");

    cluster.world.move_on(1);
    let told = |liar: &Liar, _: &mut World| {
        let named = liar.heard[at..].iter().any(|(by, message)| match message {
            Message::Auxiliary(Auxiliary::State { banned, sets, .. }) => {
                *by == other && banned.contains(&old) && !sets.contains(&old)
            }
            _ => false,
        });
        let reason = liar.heard[at..].iter().find_map(|(_, message)| declined(message, &again));
        named && reason.is_some_and(|reason| reason.contains("banned"))
    };
    assert!(cluster.liar.until(&mut cluster.world, told), "{:#?}", &cluster.liar.heard[at..]);
}

#[test]
fn a_member_that_loses_one_set_up_after_another_waits_longer_and_longer_for_the_next() {
    let mut cluster = Cluster::new(0, 1);
    for pause in [0, 30, 60, 120] {
        cluster.says(&[], &[]);
        if pause > 0 {
            wait(&mut cluster.world, &mut cluster.liar, Duration::from_secs(pause - 2));
            let reason = cluster.set_up().expect_err("too soon");
            assert!(reason.contains("has lost"), "{reason}");
            wait(&mut cluster.world, &mut cluster.liar, Duration::from_secs(3));
        }
        let (name, agreed) = cluster.set_up().unwrap_or_else(|reason| panic!("after {pause} s: {reason}"));
        cluster.says(&[name], &[agreed]);
    }
}

#[test]
fn nobody_proposes_one_set_up_after_another_to_a_member_that_loses_them() {
    let mut cluster = Cluster::new(2, 0);
    let name = cluster.name;
    let mut at = cluster.liar.heard.len();
    // How often, since it was asked last.
    let mut proposed = |liar: &mut Liar, world: &mut World, time| {
        wait(world, liar, Duration::from_secs(time));
        let proposals = liar.heard[at..].iter().filter_map(|(by, message)| match message {
            Message::Auxiliary(Auxiliary::Propose(proposal)) if *by == world.id(0) => Some(proposal.session()),
            _ => None,
        });
        let sessions: Vec<_> = proposals.collect();
        at = liar.heard.len();
        for session in &sessions {
            let abort = SessionMessage::Abort { session: *session, reason: "no".to_owned() };
            liar.say(world, 0, Lane::Bulk, &Message::Session(abort));
        }
        sessions.len()
    };
    // The first time it may be true.
    wait(&mut cluster.world, &mut cluster.liar, Duration::from_secs(60));
    cluster.says(&[], &[]);
    assert_eq!(proposed(&mut cluster.liar, &mut cluster.world, 1), 1);
    cluster.says(&[name], &[]);
    wait(&mut cluster.world, &mut cluster.liar, Duration::from_secs(10));
    cluster.says(&[], &[]);
    assert_eq!(proposed(&mut cluster.liar, &mut cluster.world, 55), 0);
    assert_eq!(proposed(&mut cluster.liar, &mut cluster.world, 10), 1);
}
