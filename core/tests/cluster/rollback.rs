//! A node whose store was put back says nothing that others rely on before it has been brought up to date.

use mpcium_core::{Duration, report::Report, store::Keyspace, wallet::record::is_certificate_key};

use crate::world::{World, code, keygen, sign};

fn unfit(world: &World, node: usize) -> Vec<String> {
    world.node(node).status(world.now()).alarms
}

#[test]
fn a_store_that_is_put_back_within_its_last_run_makes_the_node_unfit_until_it_is_up_to_date() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    world.run_for(Duration::from_secs(2));
    let backup: Vec<_> = (0..3).map(|node| world.disk(node).clone()).collect();
    world.request(&sign("w", "ed25519", "tx", &[5; 32], &[]));
    world.result("w", Some("tx"));
    // Whoever signed has told the others with its first words after it had stored the result.
    let signer = (0..3).find(|node| *world.disk(*node) != backup[*node]).expect("somebody signed");
    world.kill(signer);
    *world.disk(signer) = backup[signer].clone();
    world.start(signer);
    let noticed = world.run_until(Duration::from_secs(10), |world| !unfit(world, signer).is_empty());
    assert!(noticed, "reports: {:#?}", world.last_reports());
    // It stays so whenever it dies, and comes back once no request of before can be answered any more.
    for _ in 0..3 {
        world.kill(signer);
        world.start(signer);
        world.run_for(Duration::from_secs(5));
        assert_eq!(unfit(&world, signer).len(), 1, "reports: {:#?}", world.last_reports());
    }
    let fit = world.run_until(Duration::from_secs(400), |world| unfit(world, signer).is_empty());
    assert!(fit, "reports: {:#?}", world.last_reports());
    let others_know = world.reports.iter().any(|(node, report)| {
        *node != signer
            && matches!(report, Report::LinkTrouble { what, alarm: true } if what.contains(&format!("node{signer}")))
    });
    assert!(others_know);
    // What was lost is known: nobody's memory of it stops the node again.
    world.kill(signer);
    world.start(signer);
    world.run_for(Duration::from_secs(10));
    assert_eq!(unfit(&world, signer), [""; 0]);
}

#[test]
fn restarts_alone_are_no_rollback() {
    let mut world = World::new(3, 2);
    world.request(&keygen("w"));
    world.result("w", None);
    for round in 0..12 {
        world.request(&sign("w", "ed25519", &format!("tx{round}"), &[5; 32], &[]));
        // In the middle of things.
        world.run_for(Duration::from_micros(700 * (round as u64 + 1)));
        world.kill(round % 3);
        world.start(round % 3);
        world.run_for(Duration::from_secs(3));
        for node in 0..3 {
            assert_eq!(unfit(&world, node), [""; 0], "reports: {:#?}", world.last_reports());
        }
    }
}

#[test]
fn a_node_with_an_empty_store_is_told_of_more_wallets_than_a_page_holds() {
    const WALLETS: usize = 40;
    let mut world = World::new(3, 2);
    for number in 0..WALLETS {
        let wallet = format!("w{number}");
        world.request(&keygen(&wallet));
        assert_eq!(code(&world.result(&wallet, None)), "");
    }
    world.run_for(Duration::from_secs(2));
    let certificates = |world: &mut World| {
        let of_certificates =
            |(keyspace, name): &&(Keyspace, Vec<u8>)| *keyspace == Keyspace::Certificates && is_certificate_key(name);
        world.disk(2).keys().filter(of_certificates).count()
    };
    assert_eq!(certificates(&mut world), WALLETS);
    world.kill(2);
    world.disk(2).clear();
    world.start(2);
    assert!(world.run_until(Duration::from_secs(10), |world| !unfit(world, 2).is_empty()));
    let told = world.run_until(Duration::from_secs(60), |world| certificates(world) == WALLETS);
    assert!(told, "{} certificates", certificates(&mut world));
    assert!(world.run_until(Duration::from_secs(400), |world| unfit(world, 2).is_empty()));
}
