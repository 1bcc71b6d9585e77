//! The client in TypeScript, and what the existing TypeScript client sends, against real clusters.

use e2e::{cluster::Cluster, node::Node, servers::Servers};
use serde_json::{Value, json};

use crate::{
    clients::reconfigured,
    world::{Outcome, World, check},
};

/// The streams that the existing TypeScript client makes where there are none.
const ITS_STREAMS: [&str; 3] = ["mpc-keygen", "mpc-signing", "mpc"];

/// Wallets, both curves, child keys, listeners, refusals; the example that newcomers start with; and the existing client.
pub async fn typescript_clients_are_served(world: &mut World) -> Outcome {
    let Some(node) = Node::ready().await? else { return Ok(()) };
    world.cluster.provisioned().await?;
    node.test("test-cluster/", Some(&whereabouts(&world.cluster)?)).await?;
    let printed = node.example("quick-start", &world.cluster.folder, &[("NATS_URL", world.cluster.nats_url())]).await?;
    let lines = ["Solana address", "Ethereum address", "Solana signature", "Ethereum signature"];
    check(lines.iter().all(|line| printed.contains(line)), || format!("the example printed: {printed}"))
}

/// A cluster that takes no request without a full signature serves the client, which sends one by itself.
pub async fn a_typescript_client_signs_every_field(world: &mut World) -> Outcome {
    let Some(node) = Node::ready().await? else { return Ok(()) };
    let change = |config: &str| config.replace("require_full_signature: false", "require_full_signature: true");
    reconfigured(world, change, async |world| node.test("test-strict/", Some(&whereabouts(&world.cluster)?)).await)
        .await
}

/// The existing client on an empty server makes streams that nodes and other clients cannot live with, and that the
/// server cannot change. The nodes name all of them and what to do; once that is done, what that client sends is served.
pub async fn a_typescript_client_comes_before_the_nodes(world: &mut World) -> Outcome {
    let Some(node) = Node::ready().await? else { return Ok(()) };
    let folder = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let mut servers = Servers::new(folder.path())?;
    let mut cluster = Cluster::generate(
        folder.path(),
        world.cluster.nodes.len(),
        &servers,
        mpcium_core::protocol::EcdsaProtocol::Cggmp24,
        "",
    )?;
    servers.start().await?;
    cluster.register().await?;
    node.test("test-empty/", Some(&whereabouts(&cluster)?)).await?;
    let served = repaired(&mut cluster, node).await;
    served.map_err(|failure| format!("{failure}\n{}", cluster.logs(&servers)))
}

async fn repaired(cluster: &mut Cluster, node: &Node) -> Outcome {
    let first = cluster.nodes.first_mut().ok_or("there is no node")?;
    first.start()?;
    let (well, said) = first.end(0).await?;
    check(!well, || format!("a node lives with the wrong streams: {said}"))?;
    let jetstream = async_nats::jetstream::new(cluster.nats().await?);
    for stream in ITS_STREAMS {
        check(said.contains(&format!("`nats stream rm {stream}`")), || format!("nothing about {stream}: {said}"))?;
        jetstream.delete_stream(stream).await.map_err(|error| format!("removing {stream}: {error}"))?;
    }
    cluster.start()?;
    cluster.ready().await?;
    let mut where_it_is = whereabouts(cluster)?;
    // Auxiliary data for the other curve would take minutes.
    where_it_is["curves"] = json!(["ed25519"]);
    node.test("test-cluster/existing.test.js", Some(&where_it_is)).await
}

/// Where everything is, for the tests in TypeScript.
fn whereabouts(cluster: &Cluster) -> Result<Value, String> {
    let ids: Vec<&str> = cluster.nodes.iter().map(|node| node.id.as_str()).collect();
    Ok(json!({
        "nats": cluster.nats_url(),
        "initiator_key": cluster.initiator_key(),
        "chain_code": cluster.setting("chain_code")?,
        "node_ids": ids,
        "curves": ["ed25519", "secp256k1"],
    }))
}
