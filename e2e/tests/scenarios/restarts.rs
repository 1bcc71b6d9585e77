//! Nodes that are killed without warning while signatures are being made.

use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::{
    load::Order,
    wait::{self, PATIENCE},
};
use mpcium_client::KeyType;

use crate::world::{Outcome, World, check, progress};

/// Of the 200 signatures so many are ECDSA.
const ECDSA: usize = 20;
/// And so many Ed25519.
const ED25519: usize = 180;
/// Requests in flight.
const IN_FLIGHT: usize = 16;

/// All 200 are answered with good signatures, and no request has two different answers on the bus.
pub async fn a_node_is_killed_in_the_middle_of_200_signatures(world: &mut World) -> Outcome {
    let orders: Vec<Order> = (0..ED25519 + ECDSA)
        .map(|number| {
            let ecdsa = number % ((ED25519 + ECDSA) / ECDSA) == 0;
            Order::new(if ecdsa { KeyType::Secp256k1 } else { KeyType::Ed25519 })
        })
        .collect();
    let done = AtomicUsize::new(0);
    let victim = &mut world.cluster.nodes[1];
    let kill = async {
        wait::until_sync("a third of the signatures", PATIENCE * 2, || {
            let done = done.load(Ordering::SeqCst);
            check(done >= orders.len() / 3, || format!("{done} signatures"))
        })
        .await?;
        victim.kill();
        Ok(())
    };
    futures::try_join!(world.asker.sign_all(&orders, IN_FLIGHT, &done), kill)?;

    let seen = world.answers.seen();
    for order in &orders {
        let answers = seen.get(&order.tx_id).map_or(0, std::collections::BTreeSet::len);
        check(answers == 1, || format!("{} has {answers} different answers", order.tx_id))?;
    }
    // The one that was killed comes back and works with each of the others.
    world.heal().await?;
    world.asker.sign_new(KeyType::Ed25519).await?;
    world.asker.sign_new(KeyType::Secp256k1).await.map(drop)
}

/// The others go on without each node, and it joins again, while clients never stop asking.
pub async fn every_node_is_killed_and_restarted_under_load(world: &mut World) -> Outcome {
    let load = world.asker.load(4, 1);
    for number in 0..world.cluster.nodes.len() {
        let name = world.cluster.nodes[number].name.clone();
        progress(&load, 20, "with all nodes").await?;
        world.cluster.nodes[number].kill();
        progress(&load, 20, &format!("without {name}")).await?;
        world.cluster.nodes[number].start()?;
        world.cluster.ready().await?;
    }
    progress(&load, 20, "after all restarts").await?;
    load.finish().await.map(drop)
}
