//! A liar who leads presignatures: what an honest node makes with it, and what it signs with one.

use std::sync::Arc;

use mpcium_client::{MessageHash, SignRequest, request::Request};

use super::{
    Liar, Playing,
    world::{World, code, in_full, keygen, sign, signed},
};
use crate::{
    Duration, NodeId,
    input::RequestKind,
    limits,
    link::Lane,
    message::{Message, SessionMessage},
    protocol::{
        AuxiliarySet, AuxiliaryView, Curve, KeyShare, Outcome, Party, Preimage, Presignature, Presigning, Run,
        Signing as ToSign,
    },
    report::Report,
    request::{
        admission::read,
        answers::Attempt,
        signing::{
            Answer, Decline, Message as Signing, Proposal, message_to_sign, presignatures::Proposal as ToPresign,
            result_of,
        },
    },
    session::SessionId,
    store::Keyspace,
    tags,
    wallet::{CertificateRecord, ShareRecord, record::Stored as _},
};

const LIAR: usize = 2;
/// Positions of node 0 and of the liar in the committee.
const SIGNERS: [u16; 2] = [0, 2];
const HOUR_MS: i64 = 3_600_000;
const NOT_HELD: &str = "it does not hold that presignature";

/// The wallet `w` of two honest nodes and a liar, of whom two sign, and everything that the liar's node had.
struct Cluster {
    world: World,
    liar: Liar,
    share: Arc<KeyShare>,
    set: AuxiliarySet,
    set_name: [u8; 32],
    certificate: [u8; 32],
    /// Proposals so far.
    asked: u8,
}

impl Cluster {
    /// The liar's node was honest until the wallet and the auxiliary data were there.
    fn new() -> Self {
        let mut world = World::with(3, 2, |config| config.presignatures = 1);
        world.request(&keygen("w"));
        assert_eq!(code(&world.result("w", None)), "");
        let ready = |world: &mut World| {
            let agreed = |node| world.node(node).status(world.now()).auxiliary_sets.iter().any(|set| set.agreed);
            (0..3).all(agreed)
        };
        assert!(world.run_until(Duration::from_secs(300), ready), "{:#?}", world.last_reports());
        let liar = Liar::new(&mut world, LIAR);
        let of = |keyspace| {
            move |((at, key), value): (&(Keyspace, Vec<u8>), &crate::Secret)| {
                (*at == keyspace).then(|| (key.clone(), value.expose().to_vec()))
            }
        };
        let shares = world.disk(LIAR).iter().filter_map(of(Keyspace::Shares));
        let mut shares = shares.map(|(_, value)| ShareRecord::decode(&value).expect("a record").share);
        let share = shares.find(|share| share.curve == Curve::Secp256k1).expect("a share");
        let mut certificates = world.disk(LIAR).iter().filter_map(of(Keyspace::Certificates));
        let certificate = certificates.find_map(|(_, value)| CertificateRecord::decode(&value).ok());
        let (name, set) = world.disk(LIAR).iter().find_map(of(Keyspace::Auxiliary)).expect("a set");
        // Its kind, its members, the own place among them, and the data.
        let (_, members, _, set): (u32, Vec<NodeId>, u16, AuxiliarySet) =
            postcard::take_from_bytes(&set).expect("a set").0;
        assert_eq!(members, (0..3).map(|node| world.id(node)).collect::<Vec<_>>());
        Self {
            world,
            liar,
            share: Arc::new(share),
            set,
            set_name: name.try_into().expect("a hash"),
            certificate: certificate.expect("a certificate").certificate.hash(),
            asked: 0,
        }
    }

    /// One in which the liar holds a presignature with node 0: its name, and its part.
    fn with_presignature() -> (Self, SessionId, Box<dyn Presignature>) {
        let mut cluster = Self::new();
        cluster.sign_in_full("first");
        let proposal = cluster.presigning();
        let made = cluster.presign(proposal.clone()).expect("node 0 takes part");
        (cluster, proposal.session(), made)
    }

    fn number(&mut self) -> u8 {
        self.asked += 1;
        self.asked
    }

    /// A proposal to node 0, to sign with the liar.
    fn proposal(&mut self, request: &Request, presignature: Option<SessionId>) -> Proposal {
        let all = self.liar.participants(&self.world);
        let number = self.number();
        Proposal {
            request: request.to_json(),
            deadline: self.world.now().wall.after(self.world.config(0).signing_deadline),
            attempt: Attempt {
                number: number.into(),
                coordinator: self.liar.id(),
                incarnation: self.liar.incarnation,
                serial: 1,
            },
            tries: 1,
            participants: vec![all[0], all[LIAR]],
            certificate: self.certificate,
            auxiliary: vec![self.set_name],
            deliveries: vec![[number; 32]],
            presignature,
            nonce: [number; 16],
        }
    }

    fn propose(&mut self, proposal: Proposal) -> String {
        self.liar.propose(&mut self.world, 0, proposal).expect("an answer")
    }

    fn view(&self) -> AuxiliaryView {
        let rows = SIGNERS.iter().map(|at| self.set.rows[usize::from(*at)].clone()).collect();
        AuxiliaryView { secret: self.set.secret.clone(), rows, opened: None }
    }

    fn run(&self, execution_id: [u8; 32]) -> Run {
        Run { execution_id, index: 1, parties: 2, seed: [0xcc; 32] }
    }

    /// The run of a proposal to sign.
    fn signing_run(&self, request: &Request, proposal: &Proposal) -> Run {
        let admitted = read(RequestKind::Sign, &request.to_json()).expect("a request");
        let suite = self.world.suites(LIAR).secp256k1.name();
        self.run(proposal.execution_id(suite, &self.share.public_key, &admitted.all_fields))
    }

    fn take_part(&mut self, session: SessionId, lane: Lane, party: Box<dyn Party>) -> Outcome {
        let participants = vec![self.world.id(0), self.world.id(LIAR)];
        let outcome = self.liar.take_part(&mut self.world, session, Playing { participants, lane, party });
        self.liar.run_for(&mut self.world, Duration::from_secs(1));
        outcome
    }

    /// Signs a message with node 0 in the ordinary way.
    fn sign_in_full(&mut self, tx: &str) {
        let request = hashed(tx);
        let proposal = self.proposal(&request, None);
        assert_eq!(self.propose(proposal.clone()), "");
        let outcome = self.sign_with_node_0(&request, &proposal);
        assert!(matches!(outcome, Outcome::Signature(_)), "{outcome:?}");
    }

    /// The liar's honest part in an ordinary signature.
    fn sign_with_node_0(&mut self, request: &Request, proposal: &Proposal) -> Outcome {
        let admitted = read(RequestKind::Sign, &request.to_json()).expect("a request");
        let message = message_to_sign(admitted.signing()).expect("a message");
        let run = self.signing_run(request, proposal);
        let signing =
            ToSign { key: self.share.clone(), signers: SIGNERS.to_vec(), message, auxiliary: vec![self.view()] };
        let party = self.world.suites(LIAR).secp256k1.start(run, signing).expect("a possible run");
        self.take_part(proposal.session(), Lane::Signing, party)
    }

    fn presigning(&mut self) -> ToPresign {
        let all = self.liar.participants(&self.world);
        ToPresign {
            wallet: "w".to_owned(),
            certificate: self.certificate,
            participants: vec![all[0], all[LIAR]],
            auxiliary: vec![self.set_name],
            kept: Vec::new(),
            nonce: [self.number(); 16],
        }
    }

    /// Makes a presignature with node 0, or says why it does not take part.
    fn presign(&mut self, proposal: ToPresign) -> Result<Box<dyn Presignature>, String> {
        let asked = proposal.session();
        self.liar.say(&mut self.world, 0, Lane::Bulk, &Message::Presigning(proposal.clone()));
        self.liar.run_for(&mut self.world, Duration::from_millis(500));
        let refused = self.liar.heard.iter().find_map(|(_, message)| match message {
            Message::Session(SessionMessage::Abort { session, reason }) if *session == asked => Some(reason.clone()),
            _ => None,
        });
        refused.map_or_else(|| Ok(self.presign_with_node_0(&proposal)), Err)
    }

    /// The liar's honest part in a presignature.
    fn presign_with_node_0(&mut self, proposal: &ToPresign) -> Box<dyn Presignature> {
        let suite = self.world.suites(LIAR).secp256k1.clone();
        let run = self.run(proposal.execution_id(suite.name(), &self.share.public_key));
        let presigning =
            Presigning { key: self.share.clone(), signers: SIGNERS.to_vec(), auxiliary: vec![self.view()] };
        let party = suite.presigning().expect("it makes them").start(run, presigning).expect("a possible run");
        match self.take_part(proposal.session(), Lane::Bulk, party) {
            Outcome::Presignature(presignature) => presignature,
            other => panic!("no presignature: {other:?}"),
        }
    }

    /// Partial signatures that node 0 has said and the liar has not used.
    fn partials(&self) -> usize {
        self.liar.rounds.len()
    }
}

/// A request for a signature over a message that the nodes hash.
fn hashed(tx: &str) -> Request {
    let Request::Sign(request) = sign("w", "secp256k1", tx, b"", &[]) else { panic!("another kind") };
    let request: SignRequest = request.with_message(MessageHash::Keccak256, format!("pay {tx}"));
    signed(in_full(request.into(), HOUR_MS, None))
}

fn preimage(tx: &str) -> Preimage {
    Preimage { hash: MessageHash::Keccak256, message: format!("pay {tx}").into_bytes() }
}

/// Two messages under one presignature uncover the key, so a leader that names it twice gets one partial signature.
#[test]
fn a_presignature_signs_for_the_first_proposal_that_names_it_and_for_no_other() {
    for finished in [false, true] {
        let (mut cluster, id, mine) = Cluster::with_presignature();
        let request = hashed("second");
        let first = cluster.proposal(&request, Some(id));
        assert_eq!(cluster.propose(first.clone()), "");
        if finished {
            let run = cluster.signing_run(&request, &first);
            let party = mine.sign(run, &preimage("second")).expect("a possible run");
            let outcome = cluster.take_part(first.session(), Lane::Signing, party);
            assert!(matches!(outcome, Outcome::Signature(_)), "{outcome:?}");
        }
        cluster.liar.run_for(&mut cluster.world, Duration::from_secs(1));
        assert_eq!(cluster.partials(), usize::from(!finished));
        // Another message, a higher attempt at the same one, and the very same proposal.
        let another = cluster.proposal(&hashed("third"), Some(id));
        assert_eq!(cluster.propose(another), NOT_HELD);
        let higher = cluster.proposal(&request, Some(id));
        assert_eq!(cluster.propose(higher), NOT_HELD);
        assert_ne!(cluster.propose(first), "");
        cluster.liar.run_for(&mut cluster.world, Duration::from_secs(1));
        assert_eq!(cluster.partials(), usize::from(!finished));
        // What is signed in the ordinary way needs none.
        cluster.sign_in_full("fourth");
    }
}

/// Whoever may choose what is signed after the presignature is there may choose a message that every signer hashes, and
/// nothing else about it.
#[test]
fn a_presignature_signs_nothing_but_a_whole_message_for_the_key_and_signers_that_it_was_made_for() {
    type Change = fn(&mut Proposal, &Cluster);
    let digest = || in_full(sign("w", "secp256k1", "digest", &[7; 32], &[]), HOUR_MS, None).to_json();
    let child = || {
        let Request::Sign(mut request) = hashed("child") else { panic!("another kind") };
        request.derivation_path = vec![7];
        signed(in_full(request.into(), HOUR_MS, None)).to_json()
    };
    let (mut cluster, id, _mine) = Cluster::with_presignature();
    let changes: [(Change, &str); 4] = [
        (|p, _| p.participants.reverse(), NOT_HELD),
        (|p, c| p.participants[1] = c.liar.participants(&c.world)[1], NOT_HELD),
        (|p, _| p.certificate = [9; 32], "another epoch of the wallet"),
        (|p, _| p.presignature = Some(SessionId([9; 32])), NOT_HELD),
    ];
    for (change, reason) in changes {
        let mut changed = cluster.proposal(&hashed("second"), Some(id));
        change(&mut changed, &cluster);
        let said = cluster.propose(changed);
        assert!(said.contains(reason), "expected {reason:?}, got {said:?}");
    }
    for request in [digest(), child()] {
        let changed = Proposal { request, ..cluster.proposal(&hashed("second"), Some(id)) };
        assert_eq!(cluster.propose(changed), NOT_HELD);
    }
    assert_eq!(cluster.partials(), 0);
    // As it is it would have been accepted.
    let honest = cluster.proposal(&hashed("second"), Some(id));
    assert_eq!(cluster.propose(honest), "");
}

#[test]
fn nobody_hears_a_partial_signature_before_it_is_durable_that_its_presignature_is_used() {
    let (mut cluster, id, _mine) = Cluster::with_presignature();
    cluster.world.still.insert(0);
    let proposal = cluster.proposal(&hashed("second"), Some(id));
    assert_eq!(cluster.propose(proposal), "");
    cluster.liar.run_for(&mut cluster.world, Duration::from_secs(1));
    assert_eq!(cluster.partials(), 0, "it signed before the disk had confirmed anything");
    cluster.world.move_on(0);
    cluster.liar.run_for(&mut cluster.world, Duration::from_secs(1));
    assert_eq!(cluster.partials(), 1);
}

#[test]
fn an_attempt_that_is_over_before_the_use_is_durable_signs_nothing_and_uses_the_presignature_up() {
    let (mut cluster, id, _mine) = Cluster::with_presignature();
    cluster.world.still.insert(0);
    let first = cluster.proposal(&hashed("second"), Some(id));
    assert_eq!(cluster.propose(first.clone()), "");
    let over = SessionMessage::Abort { session: first.session(), reason: "over".to_owned() };
    cluster.liar.say(&mut cluster.world, 0, Lane::Signing, &Message::Session(over));
    cluster.liar.run_for(&mut cluster.world, Duration::from_secs(1));
    cluster.world.move_on(0);
    cluster.liar.run_for(&mut cluster.world, Duration::from_secs(1));
    let again = cluster.proposal(&hashed("third"), Some(id));
    assert_eq!(cluster.propose(again), NOT_HELD);
    assert_eq!(cluster.partials(), 0);
}

#[test]
fn another_start_of_a_signer_holds_no_presignature() {
    let (mut cluster, id, _mine) = Cluster::with_presignature();
    cluster.liar.restart(&mut cluster.world, 0);
    let proposal = cluster.proposal(&hashed("second"), Some(id));
    assert_eq!(cluster.propose(proposal), NOT_HELD);
}

/// Making one costs a second of every signer's processor: a leader has as many made as clients gave cause for.
#[test]
fn presignatures_are_made_for_those_who_signed_for_a_client_and_only_so_many() {
    type Change = fn(&mut ToPresign, &Cluster);
    let mut cluster = Cluster::new();
    let early = cluster.presigning();
    let said = cluster.presign(early).expect_err("nobody has asked");
    assert!(said.contains("no client of this wallet"), "{said}");
    cluster.sign_in_full("first");
    let changes: [(Change, &str); 6] = [
        (|p, _| p.wallet = "x".to_owned(), "no client of this wallet"),
        (|p, _| p.certificate = [9; 32], "another epoch of the wallet"),
        (|p, _| p.participants.reverse(), "no client of this wallet"),
        (|p, c| p.participants[1] = c.liar.participants(&c.world)[1], "is one of its signers"),
        (|p, _| p.auxiliary = vec![[9; 32]], "does not hold that auxiliary set"),
        (|p, _| p.kept = vec![SessionId([9; 32]); limits::PRESIGNATURES_PER_WALLET_MAX + 1], "than anybody may hold"),
    ];
    for (change, reason) in changes {
        let mut changed = cluster.presigning();
        change(&mut changed, &cluster);
        let said = cluster.presign(changed).expect_err("no honest leader says so");
        assert!(said.contains(reason), "expected {reason:?}, got {said:?}");
    }
    let first = cluster.presigning();
    cluster.presign(first.clone()).expect("a client asked");
    let second = ToPresign { kept: vec![first.session()], ..cluster.presigning() };
    cluster.presign(second).expect("twice as many as are kept ready, since some may fail");
    let third = cluster.presigning();
    let said = cluster.presign(third).expect_err("that was enough for one request");
    assert!(said.contains("no client of this wallet"), "{said}");
    // An attempt alone is no reason for more; a signature is.
    let unfinished = cluster.proposal(&hashed("second"), None);
    assert_eq!(cluster.propose(unfinished), "");
    let fourth = cluster.presigning();
    assert!(cluster.presign(fourth).is_err());
    cluster.sign_in_full("third");
    let fifth = cluster.presigning();
    cluster.presign(fifth).expect("a client asked again");
}

/// What a signer does whom node 0 asks to sign with a presignature.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// It says that it has none.
    Lost,
    /// It signs another message with it.
    AnotherMessage,
    /// It says nothing.
    Silence,
}

/// A request whose presignature comes to nothing is signed in the ordinary way, by whoever can.
#[test]
fn a_signer_that_spoils_a_presignature_does_not_keep_the_others_from_signing() {
    for lie in [Lie::Lost, Lie::AnotherMessage, Lie::Silence] {
        let mut cluster = Cluster::new();
        // Work is spread: of two requests one comes to the liar.
        let (tx, proposal) = ["first", "second"]
            .into_iter()
            .find_map(|tx| Some((tx, cluster.asked_by_node_0(tx)?)))
            .expect("of two requests one is proposed to it");
        cluster.serve(tx, &proposal);
        assert_eq!(code(&cluster.result(tx)), "");
        let mine = cluster.presign_as_asked();
        // Node 0 may have presignatures with node 1 as well.
        let (tx, proposal) = (0..3)
            .find_map(|number| {
                let tx = ["third", "fourth", "fifth"][number];
                Some((tx, cluster.asked_by_node_0(tx)?))
            })
            .expect("it is asked to sign with the presignature");
        assert!(proposal.presignature.is_some());
        match lie {
            Lie::Lost => cluster.answer(&proposal, Answer::Declined(Decline::Presignature)),
            Lie::AnotherMessage => {
                cluster.answer(&proposal, Answer::Accepted);
                let run = cluster.signing_run(&hashed(tx), &proposal);
                let mut party = mine.sign(run, &preimage("all of it to the liar")).expect("a possible run");
                let bytes = party.advance(Vec::new()).messages.remove(0).bytes;
                let round = SessionMessage::Round { session: proposal.session(), broadcast: true, bytes };
                cluster.liar.say(&mut cluster.world, 0, Lane::Signing, &Message::Session(round));
            }
            Lie::Silence => {}
        }
        assert_eq!(code(&cluster.result(tx)), "", "{lie:?}");
        let blamed =
            |report: &Report| matches!(report, Report::SessionEnded { culprits, .. } if culprits == &["node2"]);
        let blamed = cluster.world.reports.iter().any(|(_, report)| blamed(report));
        assert_eq!(blamed, matches!(lie, Lie::AnotherMessage), "{lie:?}");
    }
}

impl Cluster {
    /// A client's request comes to node 0; what that proposes to the liar, if anything.
    fn asked_by_node_0(&mut self, tx: &str) -> Option<Proposal> {
        let request = hashed(tx);
        self.world.request_to(0, &request);
        let body = request.to_json();
        let proposed = |liar: &Liar| {
            liar.heard.iter().find_map(|(_, message)| match message {
                Message::Signing(Signing::Propose(proposal)) if proposal.request == body => Some((**proposal).clone()),
                _ => None,
            })
        };
        let answered = |world: &World| world.results.iter().any(|result| result.2["tx_id"] == tx);
        self.liar.until(&mut self.world, |liar, world| proposed(liar).is_some() || answered(world));
        proposed(&self.liar)
    }

    fn result(&mut self, tx: &str) -> serde_json::Value {
        let found = |world: &World| world.results.iter().find(|result| result.2["tx_id"] == tx).map(|r| r.2.clone());
        self.liar.until(&mut self.world, |_, world| found(world).is_some());
        found(&self.world).unwrap_or_else(|| panic!("no result: {:#?}", self.world.last_reports()))
    }

    fn answer(&mut self, proposal: &Proposal, answer: Answer) {
        let message = Message::Signing(Signing::Answer { session: proposal.session(), answer });
        self.liar.say(&mut self.world, 0, Lane::Signing, &message);
    }

    /// Signs in the ordinary way as node 0 proposes, to the end.
    fn serve(&mut self, tx: &str, proposal: &Proposal) {
        let (session, request) = (proposal.session(), hashed(tx));
        self.answer(proposal, Answer::Accepted);
        let admitted = read(RequestKind::Sign, &request.to_json()).expect("a request");
        let Outcome::Signature(signature) = self.sign_with_node_0(&request, proposal) else { panic!("no signature") };
        let document = result_of(&admitted, &signature, &Vec::new()).attested_bytes();
        let own = self.liar.identity.sign(tags::RESULT, &document).to_vec();
        let attested = Signing::Attested { session, signature: own.clone() };
        self.liar.say(&mut self.world, 0, Lane::Signing, &Message::Signing(attested));
        let heard = |liar: &Liar| {
            liar.heard.iter().find_map(|(_, message)| match message {
                Message::Signing(Signing::Attested { session: of, signature }) if *of == session => {
                    Some(signature.clone())
                }
                _ => None,
            })
        };
        assert!(self.liar.until(&mut self.world, |liar, _| heard(liar).is_some()));
        let attestations = vec![(self.world.id(0), heard(&self.liar).expect("just seen")), (self.liar.id(), own)];
        let stored = Signing::Stored { session, signature, attestations };
        self.liar.say(&mut self.world, 0, Lane::Signing, &Message::Signing(stored));
    }

    /// Takes part in the presignature that node 0 proposes.
    fn presign_as_asked(&mut self) -> Box<dyn Presignature> {
        let proposed = |liar: &Liar| {
            liar.heard.iter().find_map(|(_, message)| match message {
                Message::Presigning(proposal) => Some(proposal.clone()),
                _ => None,
            })
        };
        assert!(self.liar.until(&mut self.world, |liar, _| proposed(liar).is_some()), "node 0 wants none");
        let proposal = proposed(&self.liar).expect("just seen");
        self.presign_with_node_0(&proposal)
    }
}
