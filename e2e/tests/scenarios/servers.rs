//! NATS and Consul that go away under load and come back.

use std::time::Duration;

use e2e::wait::{self, PATIENCE};
use mpcium_client::KeyType;
use serde_json::Value;

use crate::world::{Outcome, World, check, progress};

/// NATS is killed and started again with its data: what was asked for is answered, and work goes on by itself.
pub async fn nats_is_restarted_under_load(world: &mut World) -> Outcome {
    let load = world.asker.load(4, 1);
    progress(&load, 20, "before NATS is killed").await?;
    world.servers.nats.kill();
    for node in &world.cluster.nodes {
        let what = format!("{} to notice that NATS is gone", node.name);
        wait::until_sync(&what, PATIENCE, || {
            let status = node.status()?;
            check(status["nats_connected"] == Value::Bool(false), || status.to_string())
        })
        .await?;
    }
    world.servers.nats.start().await?;
    world.cluster.ready().await?;
    progress(&load, 40, "after NATS has come back").await?;
    load.finish().await.map(drop)
}

/// Without Consul a running cluster signs on; nodes can even be restarted; and Consul is used again when it is back.
pub async fn consul_is_restarted_under_load(world: &mut World) -> Outcome {
    let load = world.asker.load(4, 1);
    progress(&load, 20, "before Consul is killed").await?;
    world.servers.consul.kill();
    check_consul(world, false).await?;
    progress(&load, 40, "without Consul").await?;
    world.cluster.nodes[0].kill();
    world.cluster.nodes[0].start()?;
    world.cluster.ready().await?;
    progress(&load, 20, "with a node that was started without Consul").await?;
    world.servers.consul.start().await?;
    check_consul(world, true).await?;
    progress(&load, 20, "after Consul has come back").await?;
    load.finish().await?;
    world.asker.sign_new(KeyType::Secp256k1).await.map(drop)
}

async fn check_consul(world: &World, connected: bool) -> Outcome {
    for node in &world.cluster.nodes {
        let what = format!("{} to see Consul {}", node.name, if connected { "again" } else { "gone" });
        wait::until_sync(&what, Duration::from_secs(120), || {
            let status = node.status()?;
            check(status["consul_connected"] == Value::Bool(connected), || status.to_string())
        })
        .await?;
    }
    Ok(())
}
