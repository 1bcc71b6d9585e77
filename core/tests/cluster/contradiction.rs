//! Two certificates for one epoch: whoever sees both signs with that wallet no more, for ever.

use mpcium_core::{
    Duration, Identity, Incarnation, NodeId,
    consensus::Ballot,
    report::Report,
    store::Keyspace,
    wallet::{Certificate, CertificateRecord, Prepared, SessionId, StoppedRecord, Value, Vote, record::Stored as _},
};

use crate::world::{World, code, keygen, query, sign};

fn identity(node: usize) -> Identity {
    let number = node as u8 + 1;
    Identity::new(NodeId::from_bytes([number; 16]), &[number; 32])
}

fn certificate(world: &mut World, node: usize) -> Certificate {
    let records = world.disk(node).iter().filter(|((keyspace, _), _)| *keyspace == Keyspace::Certificates);
    let mut certificates = records.filter_map(|(_, value)| CertificateRecord::decode(value.expose()).ok());
    certificates.next().expect("a certificate").certificate
}

/// What acceptors that vote twice can make of a certificate: another session with the same keys.
fn contradiction(of: &Certificate) -> Certificate {
    let mut session = of.value.session.clone();
    session.facts.session = SessionId([0xbb; 32]);
    let statements: Vec<Prepared> = (0..3).map(|node| Prepared::sign(session.clone(), &identity(node))).collect();
    let value = Value::assemble(session, of.value.public_shares.clone(), &statements).expect("a value");
    let facts = value.facts().clone();
    let ballot = Ballot { round: 7, node: identity(0).id(), incarnation: Incarnation([9; 16]) };
    let vote = |node| Vote::sign(&facts.wallet, facts.epoch, ballot, value.hash(), &identity(node));
    let votes = [vote(0), vote(1)];
    let keys = |id: NodeId| (0..3).map(identity).find(|i| i.id() == id).map(|i| i.public());
    Certificate::assemble(value, &votes, None, &keys).expect("a certificate")
}

fn stopped(world: &World, node: usize) -> Vec<String> {
    world.node(node).status(world.now()).stopped
}

/// Nodes 0 and 2 hold certificates that contradict each other, node 1 holds none.
fn divided() -> (World, Certificate, Certificate) {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    world.run_for(Duration::from_secs(2));
    let first = certificate(&mut world, 0);
    let second = contradiction(&first);
    for node in 0..3 {
        world.kill(node);
    }
    world.disk(1).retain(|(keyspace, _), _| *keyspace != Keyspace::Certificates);
    let record = CertificateRecord { certificate: second.clone(), vote: None };
    world.disk(2).insert((Keyspace::Certificates, record.key()), mpcium_core::Secret::new(record.encode()));
    for node in 0..3 {
        world.start(node);
    }
    world.run_for(Duration::from_secs(2));
    (world, first, second)
}

#[test]
fn a_node_that_sees_two_certificates_stops_the_keys_for_ever_even_if_it_held_none() {
    let (mut world, first, second) = divided();
    assert_eq!(stopped(&world, 1), [""; 0]);
    // It asks everybody and gets both answers at once, before either is durable.
    world.query(1, &query("w"));
    world.run_for(Duration::from_secs(2));
    let says = stopped(&world, 1);
    assert_eq!(says.len(), 1, "reports: {:#?}", world.last_reports());
    for certificate in [&first, &second] {
        assert!(says[0].contains(&hex::encode(certificate.hash())), "{says:?}");
    }
    let alarms = |world: &World| {
        let alarm = |(node, report): &&(usize, Report)| {
            *node == 1 && matches!(report, Report::Alarm { what } if what.contains("two certificates"))
        };
        world.reports.iter().filter(alarm).count()
    };
    assert_eq!(alarms(&world), 1);
    // No restart makes it forget; each says so once.
    for starts in 2..=3 {
        world.kill(1);
        world.start(1);
        world.run_for(Duration::from_secs(2));
        assert_eq!(stopped(&world, 1), says);
        assert_eq!(alarms(&world), starts);
    }
    let reply = world.query(1, &query("w"));
    assert!(reply.to_string().contains("two certificates"), "{reply}");
    // The two that hold one certificate each do not sign with it either: they do not agree, and node 1 takes no part.
    world.kill(2);
    world.request(&sign("w", "ed25519", "tx", &[5; 32], &[]));
    let answer = world.result("w", Some("tx"));
    assert_eq!(answer["result_type"], "error", "{answer}");
}

/// A client that asks for a wallet again whose keys sign no more is told so, and not that all is well.
#[test]
fn a_wallet_whose_keys_are_stopped_is_no_success() {
    let (mut world, known, other) = divided();
    let record = StoppedRecord { known, other, vote: None };
    for node in 0..3 {
        world.kill(node);
        world.disk(node).insert((Keyspace::Meta, record.key()), mpcium_core::Secret::new(record.encode()));
    }
    for node in 0..3 {
        world.start(node);
    }
    world.run_for(Duration::from_secs(2));
    world.results.clear();
    world.request(&keygen("w"));
    assert_eq!(code(&world.result("w", None)), "ERROR_DATA_CORRUPTION");
}
