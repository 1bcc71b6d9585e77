//! A liar among those who sign: what they take part in, what they promise, and what they store.

use mpcium_client::{SigningResult, request::Request, result::ErrorCode};

use super::{
    Liar, Playing,
    world::{World, code, keygen, sign},
};
use crate::{
    Duration, Identity, Incarnation, NodeId,
    input::RequestKind,
    limits,
    link::{Lane, Mark},
    message::{Message, SessionMessage},
    protocol::{Curve, KeyShare, Outcome, Run, Signing as ToSign},
    report::Report as Fact,
    request::{
        admission::read,
        answers::{Attempt, Message as Answers, Report, Signed, Value, Verdict},
        signing::{Answer, Decline, Message as Signing, Proposal, message_to_sign, result_of},
    },
    store::Keyspace,
    tags,
    wallet::{CertificateRecord, Prepared, PreparedSession, activation::Message as Wallet, record::Stored as _},
};

const LIAR: usize = 2;

/// The wallet `w` of two honest nodes and a liar, of whom two sign.
struct Cluster {
    world: World,
    liar: Liar,
    shares: Vec<KeyShare>,
    certificate: [u8; 32],
    /// What node 0's ledger holds of the wallet's creation.
    held: usize,
}

impl Cluster {
    fn new() -> Self {
        let mut world = World::quiet(3, 2, |_| {});
        let mut liar = Liar::new(&mut world, LIAR);
        world.request(&keygen("w"));
        let (facts, _, shares) = liar.join_keygen(&mut world);
        let (session, _) = PreparedSession::new(facts, liar.id(), &shares).expect("its shares");
        let statement = Message::Wallet(Wallet::Prepared(Box::new(Prepared::sign(session, &liar.identity))));
        (0..LIAR).for_each(|node| liar.say(&mut world, node, Lane::Control, &statement));
        assert!(liar.until(&mut world, |_, world| !world.results.is_empty()), "{:#?}", world.last_reports());
        assert_eq!(code(&world.results[0].2), "");
        let records = world.disk(0).iter().filter(|((of, _), _)| *of == Keyspace::Certificates);
        let certificate = records
            .filter_map(|(_, value)| CertificateRecord::decode(value.expose()).ok())
            .map(|record| record.certificate.hash())
            .next();
        world.results.clear();
        let held = world.disk(0).keys().filter(|(of, _)| *of == Keyspace::Ledger).count();
        Self { world, liar, shares, certificate: certificate.expect("a certificate"), held }
    }

    fn ballot(&self, number: u64) -> Attempt {
        Attempt { number, coordinator: self.liar.id(), incarnation: self.liar.incarnation, serial: 1 }
    }

    /// A proposal to node 0, to sign with the liar.
    fn proposal(&self, request: &Request, number: u64) -> Proposal {
        let all = self.liar.participants(&self.world);
        Proposal {
            request: request.to_json(),
            deadline: self.world.now().wall.after(self.world.config(0).signing_deadline),
            attempt: self.ballot(number),
            tries: 1,
            participants: vec![all[0], all[LIAR]],
            certificate: self.certificate,
            auxiliary: Vec::new(),
            deliveries: vec![[1; 32]],
            presignature: None,
            nonce: [1; 16],
        }
    }

    /// What node 0 answers to a proposal: nothing, why it declines, or the empty text if it takes part.
    fn propose(&mut self, proposal: Proposal) -> Option<String> {
        self.liar.propose(&mut self.world, 0, proposal)
    }

    /// What node 0 answers to whoever decides.
    fn ask(&mut self, message: Answers) -> Option<Answers> {
        let message = Message::Answers(message);
        self.liar.ask_again(&mut self.world, 0, &message, |message| match message {
            Message::Answers(
                answer @ (Answers::Promised { .. } | Answers::Stored { .. } | Answers::Rejected { .. }),
            ) => Some(answer.clone()),
            _ => None,
        })
    }

    fn prepare(&mut self, request: &Request, ballot: Attempt) -> Option<Answers> {
        let request = request.to_json();
        self.ask(Answers::Prepare { kind: RequestKind::Sign, request, ballot, deliveries: vec![[1; 32]] })
    }

    fn store(&mut self, request: &Request, ballot: Attempt, value: Value) -> Option<Answers> {
        self.ask(Answers::Store { kind: RequestKind::Sign, request: request.to_json(), ballot, value })
    }

    /// What has come to node 0's ledger since.
    fn records(&mut self) -> usize {
        self.world.disk(0).keys().filter(|(of, _)| *of == Keyspace::Ledger).count() - self.held
    }

    /// The liar's signature over a request's result document, as it should be.
    fn attest(&self, request: &Request, signature: &[u8]) -> Vec<u8> {
        let admitted = read(RequestKind::Sign, &request.to_json()).expect("a request");
        let document = result_of(&admitted, signature, &Vec::new()).attested_bytes();
        self.liar.identity.sign(tags::RESULT, &document).to_vec()
    }

    /// Signs together with node 0, after it has taken part in the proposal.
    fn run(&mut self, request: &Request, proposal: &Proposal) -> Vec<u8> {
        let admitted = read(RequestKind::Sign, &request.to_json()).expect("a request");
        let share = self.shares.iter().find(|share| share.curve == Curve::Ed25519).expect("a share").clone();
        let suite = self.world.suites(LIAR).ed25519.clone();
        let run = Run {
            execution_id: proposal.execution_id(suite.name(), &share.public_key, &admitted.all_fields),
            index: 1,
            parties: 2,
            seed: [0xcc; 32],
        };
        let message = message_to_sign(admitted.signing()).expect("a message");
        let signing = ToSign { key: share.into(), signers: vec![0, 2], message, auxiliary: Vec::new() };
        let party = suite.start(run, signing).expect("a possible run");
        let playing = Playing { participants: vec![id(1), id(3)], lane: Lane::Signing, party };
        match self.liar.take_part(&mut self.world, proposal.session(), playing) {
            Outcome::Signature(signature) => signature,
            other => panic!("no signature: {other:?}"),
        }
    }
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn message(tx: &str) -> Request {
    sign("w", "ed25519", tx, b"m", &[])
}

fn unsigned(mut request: Request) -> Request {
    request.set_signature(vec![1; 64]);
    request
}

/// An error that answers this request.
fn error_for(tx: &str) -> Verdict {
    Verdict::Error(SigningResult::error("test", "w", tx, ErrorCode::NetworkTimeout, "no").to_json())
}

#[test]
fn a_signer_takes_part_only_in_what_the_initiator_asked_for_and_the_cluster_allows() {
    type Change = fn(&mut Proposal, &Cluster);
    let changes: [(Change, &str); 15] = [
        (|p, _| p.request = unsigned(message("t")).to_json(), "invalid signature from initiator"),
        (|p, _| p.request = b"{".to_vec(), "invalid JSON"),
        (|p, _| p.request = sign("x", "ed25519", "t", b"m", &[]).to_json(), "does not know wallet x"),
        (|p, _| p.attempt.coordinator = id(2), "another coordinator than its sender"),
        (|p, _| p.attempt.number = u64::MAX, "far ahead of this node's clock"),
        (|p, c| p.deadline.0 = c.world.now().wall.0 - 1, "the deadline has passed"),
        (|p, _| p.deadline.0 += 3_600_000, "later than any request's can be"),
        (|p, _| p.deliveries = vec![[1; 32]; limits::PROPOSAL_DELIVERIES_MAX + 1], "too many deliveries"),
        (|p, _| p.certificate = [9; 32], "another epoch of the wallet"),
        (|p, _| p.participants.truncate(1), "1 participants are proposed and 2 sign"),
        (|p, c| p.participants = c.liar.participants(&c.world), "3 participants are proposed and 2 sign"),
        (|p, _| p.participants[1] = p.participants[0], "is proposed twice"),
        (|p, c| p.participants[0] = c.liar.participants(&c.world)[1], "does not name the node that it was sent to"),
        (|p, _| p.participants[1].1 = Incarnation([7; 16]), "has restarted"),
        (|p, _| p.participants[1].0 = id(77), "it has no link to"),
    ];
    let mut cluster = Cluster::new();
    cluster.world.reports.clear();
    for (number, (change, reason)) in (1_u64..).zip(changes) {
        let mut changed = cluster.proposal(&message("t"), number);
        change(&mut changed, &cluster);
        let said = cluster.propose(changed).expect("an answer");
        assert!(said.contains(reason), "expected {reason:?}, got {said:?}");
    }
    assert!(!cluster.world.reports.iter().any(|(_, report)| matches!(report, Fact::SessionStarted { .. })));
    assert_eq!(cluster.records(), 0);
    // As it is it would have been accepted.
    let honest = cluster.proposal(&message("t"), 100);
    assert_eq!(cluster.propose(honest), Some(String::new()));
}

/// A protocol's mathematics take up to twenty seconds; a node that computes hears and answers all the same.
#[test]
fn a_party_goes_on_only_when_a_worker_has_computed_and_its_node_answers_meanwhile() {
    let mut cluster = Cluster::new();
    cluster.world.work.insert(0, None);
    let proposal = cluster.proposal(&message("t"), 1);
    assert_eq!(cluster.propose(proposal), Some(String::new()));
    cluster.liar.run_for(&mut cluster.world, Duration::from_secs(2));
    assert!(cluster.liar.rounds.is_empty(), "it computed while it handled an input");
    let another = cluster.proposal(&message("another"), 2);
    assert_eq!(cluster.propose(another), Some(String::new()));
}

#[test]
fn a_peer_that_says_that_it_is_busy_is_asked_again_soon() {
    let mut cluster = Cluster::new();
    // The request that is proposed to the liar; an honest node signs those that are not.
    let proposed = |cluster: &mut Cluster, tx: &str| {
        cluster.liar.heard.clear();
        cluster.world.request_to(0, &message(tx));
        let proposal = |liar: &Liar| {
            liar.heard.iter().find_map(|(_, message)| match message {
                Message::Signing(Signing::Propose(proposal)) => Some(proposal.session()),
                _ => None,
            })
        };
        cluster.liar.until(&mut cluster.world, |liar, _| proposal(liar).is_some());
        proposal(&cluster.liar)
    };
    let (first, second) = (proposed(&mut cluster, "t1"), proposed(&mut cluster, "t2"));
    let session = first.or(second).expect("of two requests one is proposed to it");
    let busy = Answer::Declined(Decline::Busy);
    cluster.liar.say(
        &mut cluster.world,
        0,
        Lane::Signing,
        &Message::Signing(Signing::Answer { session, answer: busy }),
    );
    // Another one signs instead.
    let answered = |world: &World| ["t1", "t2"].iter().all(|tx| world.results.iter().any(|r| r.2["tx_id"] == *tx));
    assert!(cluster.liar.until(&mut cluster.world, |_, world| answered(world)), "{:#?}", cluster.world.last_reports());
    assert!(cluster.world.results.iter().all(|result| code(&result.2).is_empty()));
    // Long before blame would have been forgotten.
    let again = (3..6).any(|number| proposed(&mut cluster, &format!("t{number}")).is_some());
    assert!(again, "whoever was busy is left out as if it had done wrong");
}

#[test]
fn a_promised_ballot_forbids_lower_ones_and_is_run_once() {
    let mut cluster = Cluster::new();
    let request = message("t");
    assert!(matches!(cluster.prepare(&request, cluster.ballot(10)), Some(Answers::Promised { .. })));
    let lower = cluster.proposal(&request, 9);
    let said = cluster.propose(lower).expect("an answer");
    assert!(said.contains("a higher attempt"), "{said}");
    let higher = cluster.proposal(&request, 11);
    assert_eq!(cluster.propose(higher.clone()), Some(String::new()));
    let again = Proposal { nonce: [2; 16], ..higher };
    let said = cluster.propose(again).expect("an answer");
    assert!(said.contains("a higher attempt"), "{said}");
    let expected = cluster.ballot(11);
    let rejected = cluster.prepare(&request, cluster.ballot(10));
    assert!(matches!(rejected, Some(Answers::Rejected { higher, .. }) if higher == expected), "{rejected:?}");
}

/// The signature is made, by both, but the ballot has been overtaken: nobody may count on its result any more.
#[test]
fn a_result_of_a_ballot_below_the_promised_one_is_not_stored() {
    for overtaken in [false, true] {
        let mut cluster = Cluster::new();
        let request = message("t");
        let proposal = cluster.proposal(&request, 10);
        assert_eq!(cluster.propose(proposal.clone()), Some(String::new()));
        if overtaken {
            assert!(matches!(cluster.prepare(&request, cluster.ballot(11)), Some(Answers::Promised { .. })));
        }
        let signature = cluster.run(&request, &proposal);
        let attestation = cluster.attest(&request, &signature);
        let attested = Signing::Attested { session: proposal.session(), signature: attestation };
        cluster.liar.say(&mut cluster.world, 0, Lane::Signing, &Message::Signing(attested));
        cluster.liar.run_for(&mut cluster.world, Duration::from_secs(1));
        assert_eq!(cluster.records() > 0, !overtaken, "overtaken: {overtaken}");
    }
}

/// What is stored is the whole answer: without everybody's signature over it there is none.
#[test]
fn a_result_is_stored_only_with_every_signers_attestation() {
    for wrong in [None, Some(vec![1; 64]), Some(vec![1; 3])] {
        let mut cluster = Cluster::new();
        let request = message("t");
        let proposal = cluster.proposal(&request, 10);
        assert_eq!(cluster.propose(proposal.clone()), Some(String::new()));
        cluster.run(&request, &proposal);
        if let Some(signature) = wrong {
            let attested = Message::Signing(Signing::Attested { session: proposal.session(), signature });
            cluster.liar.say(&mut cluster.world, 0, Lane::Signing, &attested);
        }
        cluster.liar.run_for(&mut cluster.world, Duration::from_secs(10));
        assert_eq!(cluster.records(), 0);
    }
}

#[test]
fn nothing_is_promised_or_stored_for_what_no_initiator_signed_or_in_anothers_name() {
    let mut cluster = Cluster::new();
    let request = message("t");
    let forged = unsigned(message("t"));
    let verdict = |tx| Value { result: None, verdicts: [([1; 32], error_for(tx))].into() };
    assert!(cluster.prepare(&forged, cluster.ballot(5)).is_none());
    assert!(cluster.store(&forged, cluster.ballot(5), verdict("t")).is_none());
    for ballot in [
        Attempt { coordinator: id(2), ..cluster.ballot(5) },
        Attempt { incarnation: Incarnation([7; 16]), ..cluster.ballot(5) },
        cluster.ballot(u64::MAX),
    ] {
        assert!(cluster.prepare(&request, ballot).is_none(), "{ballot:?}");
        assert!(cluster.store(&request, ballot, verdict("t")).is_none(), "{ballot:?}");
    }
    assert_eq!(cluster.records(), 0);
}

#[test]
fn only_what_answers_the_request_is_stored_and_only_in_the_promised_ballot() {
    let mut cluster = Cluster::new();
    let request = message("t");
    let delivery = [1; 32];
    let ballot = cluster.ballot(5);
    let of = |result, verdict| Value { result, verdicts: [(delivery, verdict)].into() };
    let payload = read(RequestKind::Sign, &request.to_json()).expect("a request").payload;
    let made_up = Signed { payload, signature: vec![1; 64], attestations: Vec::new() };
    assert!(cluster.store(&request, ballot, of(None, error_for("t"))).is_none(), "nothing is promised");
    assert!(matches!(cluster.prepare(&request, ballot), Some(Answers::Promised { .. })));
    let lower = cluster.ballot(4);
    let rejected = cluster.store(&request, lower, of(None, error_for("t")));
    assert!(matches!(rejected, Some(Answers::Rejected { higher, .. }) if higher == ballot), "{rejected:?}");
    for (value, what) in [
        (of(Some(made_up), Verdict::Success), "do not verify"),
        (of(None, Verdict::Success), "without a result"),
        (of(None, error_for("another")), "answers another request"),
    ] {
        let from = cluster.world.reports.len();
        assert!(cluster.store(&request, ballot, value).is_none(), "{what}");
        let said = &cluster.world.reports[from..];
        let named = |report: &Fact| matches!(report, Fact::Ignored { what: words, .. } if words.contains(what));
        assert!(said.iter().any(|(_, report)| named(report)), "{what}: {said:#?}");
    }
    let unasked = Value { result: None, verdicts: [([2; 32], error_for("t"))].into() };
    assert!(cluster.store(&request, ballot, unasked).is_none(), "a delivery that nobody asked about");
    assert_eq!(cluster.records(), 0);
    assert!(matches!(cluster.store(&request, ballot, of(None, error_for("t"))), Some(Answers::Stored { .. })));
    assert!(cluster.records() > 0, "durable before it is said");
    // Whoever asks later is told, also by another life of the node.
    for restarted in [false, true] {
        let mut number = 6;
        if restarted {
            cluster.liar.restart(&mut cluster.world, 0);
            cluster.liar.run_for(&mut cluster.world, Duration::from_secs(1));
            // Above what the earlier life may have promised.
            number = cluster.world.now().wall.after(highest_lead(&cluster) - Duration::from_millis(200)).0;
        }
        let expected = Report { result: None, verdicts: [(delivery, (ballot, error_for("t")))].into() };
        let promised = cluster.prepare(&request, cluster.ballot(number));
        let Some(Answers::Promised { report, .. }) = promised else { panic!("restarted: {restarted}: {promised:?}") };
        assert_eq!(report, expected, "restarted: {restarted}");
        let proposal = cluster.proposal(&request, number + 100);
        assert_eq!(
            cluster.propose(proposal).as_deref(),
            Some("it holds an answer"),
            "nothing is signed after an error"
        );
    }
    // What may have been promised in an earlier life is.
    let low = cluster.ballot(3);
    let rejected = cluster.prepare(&request, low);
    assert!(matches!(rejected, Some(Answers::Rejected { .. })), "{rejected:?}");
}

/// How far ahead of a member's clock a ballot's number may be.
fn highest_lead(cluster: &Cluster) -> Duration {
    cluster.world.config(0).clock_skew * 2 + limits::PROPOSAL_WAIT
}

/// What a member can do that is not among those who sign: it asks everybody for the highest ballot that may be promised,
/// again and again, and says that it has promised a higher one to whoever asks.
fn raise_ballots_until(cluster: &mut Cluster, request: &Request, patience: Duration, id: &str) -> Option<String> {
    let end = cluster.world.now().time.after(patience);
    let mut serial = 1;
    while cluster.world.now().time < end {
        let number = cluster.world.now().wall.after(highest_lead(cluster) - Duration::from_millis(1)).0;
        let highest = Attempt { serial, ..cluster.ballot(number) };
        serial += 1;
        let prepare = Answers::Prepare {
            kind: RequestKind::Sign,
            request: request.to_json(),
            ballot: highest,
            deliveries: vec![[1; 32]],
        };
        for node in 0..LIAR {
            cluster.liar.say(&mut cluster.world, node, Lane::Control, &Message::Answers(prepare.clone()));
        }
        for (from, message) in std::mem::take(&mut cluster.liar.heard) {
            if let Message::Answers(Answers::Prepare { ballot, .. }) = message {
                let key = read(RequestKind::Sign, &request.to_json()).expect("a request").key;
                let rejected = Answers::Rejected { key, ballot, higher: highest };
                let to = cluster.world.number(from);
                cluster.liar.say(&mut cluster.world, to, Lane::Control, &Message::Answers(rejected));
            }
        }
        cluster.liar.run_for(&mut cluster.world, Duration::from_millis(5));
        if let Some(result) = cluster.world.results.iter().find(|result| result.2["tx_id"] == id) {
            return Some(code(&result.2).to_owned());
        }
    }
    None
}

#[test]
fn a_member_that_raises_ballots_stops_no_signature() {
    let mut cluster = Cluster::new();
    for tx in ["t1", "t2"] {
        let request = message(tx);
        // It may even come first.
        let early = raise_ballots_until(&mut cluster, &request, Duration::from_millis(20), tx);
        assert_eq!(early, None, "nobody has asked yet");
        cluster.world.request_to(0, &request);
        let answer = raise_ballots_until(&mut cluster, &request, Duration::from_secs(60), tx);
        assert_eq!(answer.as_deref(), Some(""), "{:#?}", cluster.world.last_reports());
    }
}

#[test]
fn a_member_that_raises_ballots_stops_no_error() {
    let mut cluster = Cluster::new();
    let request = sign("unknown", "ed25519", "t", b"m", &[]);
    cluster.world.request_to(0, &request);
    let answer = raise_ballots_until(&mut cluster, &request, Duration::from_secs(30), "t");
    assert_eq!(answer.as_deref(), Some("ERROR_KEY_NOT_FOUND"), "{:#?}", cluster.world.last_reports());
}

/// As large an error as may be stored, for so many deliveries that nobody knows.
fn filling(tx: &str, first: u64) -> Value {
    let reason = "x".repeat(limits::ANSWER_BYTES_MAX - 1024);
    let error = SigningResult::error("test", "w", tx, ErrorCode::NetworkTimeout, &reason).to_json();
    let deliveries = (first..).take(limits::PROPOSAL_DELIVERIES_MAX).map(|number| {
        let mut delivery = [7; 32];
        delivery[..8].copy_from_slice(&number.to_be_bytes());
        (delivery, Verdict::Error(error.clone()))
    });
    Value { result: None, verdicts: deliveries.collect() }
}

impl Cluster {
    /// Whether node 0 stores verdicts for as many deliveries as a ballot may name.
    fn fills(&mut self, tx: &str, number: u64) -> bool {
        let (request, ballot) = (message(tx), self.ballot(number));
        let value = filling(tx, number * 100);
        let deliveries = value.verdicts.keys().copied().collect();
        let prepare = Answers::Prepare { kind: RequestKind::Sign, request: request.to_json(), ballot, deliveries };
        matches!(self.ask(prepare), Some(Answers::Promised { .. }))
            && matches!(self.store(&request, ballot, value), Some(Answers::Stored { .. }))
    }
}

#[test]
fn one_member_fills_nobodys_ledger() {
    let mut cluster = Cluster::new();
    // With one request, however long it goes on.
    let stored = (1..20).filter(|number| cluster.fills("t", *number)).count() * limits::PROPOSAL_DELIVERIES_MAX;
    assert_eq!(cluster.records(), stored);
    assert!(stored > 0 && stored <= limits::PROPOSAL_DELIVERIES_MAX + limits::DELIVERIES_NAMED_MAX, "{stored}");
    // With many.
    let full = (0..100).find(|number| !cluster.fills(&format!("t{number}"), 1));
    assert!(full.is_some(), "a hundred requests' worth of what nobody asked for");
    let told = |report: &Fact| matches!(report, Fact::Ignored { what, .. } if what.contains("one node may ask for"));
    assert!(cluster.world.reports.iter().any(|(_, report)| told(report)));
}

/// The machine was put back with its memory: what a presignature signed then it might sign another message with now.
#[test]
#[should_panic(expected = "the machine was put back with its memory")]
fn a_process_that_has_said_more_than_it_knows_ends() {
    let mut world = World::quiet(3, 2, |_| {});
    let liar = Liar::new(&mut world, LIAR);
    let incarnation = liar.links.incarnation_of(id(1)).expect("a link");
    // Only the node itself can seal this.
    let mark = Mark::of(&Identity::new(id(1), &[1; 32]), incarnation, 1_000_000);
    Liar::remembering(&mut world, LIAR, [(id(1), mark)].into());
}

/// Its own message again and again, while the others' party is with a worker: it must not take the room of what others
/// say, whom nobody could tell from those that are silent then.
#[test]
fn who_says_more_than_there_is_to_say_is_named_and_ends_the_run() {
    for large in [false, true] {
        let mut cluster = Cluster::new();
        cluster.world.work.insert(0, None);
        let proposal = cluster.proposal(&message("t"), 1);
        let session = proposal.session();
        assert_eq!(cluster.propose(proposal), Some(String::new()));
        let most = cluster.world.suites(0).ed25519.pace(2).bytes;
        let (size, times) = if large { (most / 2 + 1, 2) } else { (1, limits::SESSION_MESSAGES_MAX + 1) };
        let round = |bytes| Message::Session(SessionMessage::Round { session, broadcast: true, bytes });
        let ended = |cluster: &Cluster| {
            cluster.world.reports.iter().find_map(|(_, report)| match report {
                Fact::SessionEnded { session: ended, culprits, .. } if *ended == session.to_string() => {
                    Some(culprits.clone())
                }
                _ => None,
            })
        };
        for time in 0..times {
            assert_eq!(ended(&cluster), None, "after {time} messages");
            cluster.liar.say(&mut cluster.world, 0, Lane::Signing, &round(vec![1; size]));
            cluster.liar.run_for(&mut cluster.world, Duration::from_millis(50));
        }
        assert_eq!(ended(&cluster), Some(vec!["node2".to_owned()]));
    }
}
