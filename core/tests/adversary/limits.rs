//! A liar that wants the others to compute, to keep, or to tell people what leads to nothing.

use super::{Liar, world::World, world::keygen};
use crate::{
    Duration, limits,
    link::Lane,
    message::Message,
    report::Report,
    wallet::{Signature, activation::Message as Wallet},
};

const LIAR: usize = 2;

/// Two honest nodes and a liar, of whom two sign.
fn world() -> (World, Liar) {
    let mut world = World::quiet(3, 2, |_| {});
    let liar = Liar::new(&mut world, LIAR);
    (world, liar)
}

/// What node 0 has told of messages that it ignored: each, and how many more there were.
fn ignored(world: &World) -> (usize, u64) {
    let of_node = || world.reports.iter().filter(|(node, _)| *node == 0);
    let told = of_node().filter(|(_, report)| matches!(report, Report::Ignored { .. })).count();
    let untold = of_node().map(|(_, report)| match report {
        Report::IgnoredUntold { messages, .. } => *messages,
        _ => 0,
    });
    (told, untold.sum())
}

#[test]
fn nonsense_is_told_to_people_only_so_often() {
    let (mut world, mut liar) = world();
    let node = world.id(0);
    let mut said = 0;
    for _ in 0..20 {
        for _ in 0..100 {
            liar.links.send(world.now().time, node, Lane::Control, vec![0xff]).expect("the link takes it");
            said += 1;
        }
        liar.run_for(&mut world, Duration::from_millis(50));
    }
    let burst = limits::IGNORED_BURST as usize;
    assert_eq!(ignored(&world), (burst, 0));
    // Later one more, and how many were left out.
    liar.run_for(&mut world, limits::TROUBLE_INTERVAL);
    liar.links.send(world.now().time, node, Lane::Control, vec![0xff]).expect("the link takes it");
    liar.run_for(&mut world, Duration::from_millis(50));
    assert_eq!(ignored(&world), (burst + 1, said - burst as u64));
}

/// A certificate that is held has been verified once, and who shows it again makes nobody verify it again.
#[test]
fn a_certificate_that_is_held_is_not_verified_again() {
    let mut world = World::quiet(3, 2, |_| {});
    world.request(&keygen("w"));
    world.result("w", None);
    let mut liar = Liar::new(&mut world, LIAR);
    let mut certificate = liar.certificate_of(&mut world, 0, "w");
    let activated = |message: &Message| matches!(message, Message::Wallet(Wallet::Activated(_))).then_some(());
    for (_, signature) in &mut certificate.votes {
        *signature = Signature([1; 64]);
    }
    let message = Message::Wallet(Wallet::Certificate(Box::new(certificate.clone())));
    assert!(liar.ask(&mut world, 0, (Lane::Control, &message), activated).is_some(), "it is held");
    assert_eq!(ignored(&world), (0, 0));
    // Of what is not held nothing is believed.
    certificate.value.session.facts.wallet = "v".to_owned();
    let message = Message::Wallet(Wallet::Certificate(Box::new(certificate)));
    assert!(liar.ask(&mut world, 0, (Lane::Control, &message), activated).is_none());
    assert_eq!(ignored(&world), (1, 0));
}
