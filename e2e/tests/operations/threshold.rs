//! Both readings of `mpc_threshold`, and what a cluster does with them.

use e2e::{
    cluster::Cluster,
    load::{Asker, Order},
    servers::Servers,
    verify::Wallet,
    wait::{self, PATIENCE},
};
use mpcium_client::KeyType;
use mpcium_core::protocol::EcdsaProtocol;
use serde_json::Value;

/// What `generate-configs` writes for three nodes.
const GENERATED: &str = "mpc_threshold: 2\nthreshold_counts: signers\n";

#[tokio::test(flavor = "multi_thread")]
async fn mpc_threshold_is_read_as_the_configuration_says() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut servers = Servers::new(folder.path()).expect("servers");
    let mut cluster = Cluster::generate(folder.path(), 3, &servers, EcdsaProtocol::Dkls23, "").expect("a cluster");
    if let Err(failure) = run(&mut cluster, &mut servers).await {
        panic!("{failure}\n{}", cluster.logs(&servers));
    }
}

async fn run(cluster: &mut Cluster, servers: &mut Servers) -> Result<(), String> {
    servers.start().await?;
    cluster.register().await?;
    let generated = cluster.configurations()?;
    let with = |threshold: u16, counts: &str| -> Vec<String> {
        let lines = format!("mpc_threshold: {threshold}\n{counts}");
        generated.iter().map(|config| config.replace(GENERATED, &lines)).collect()
    };
    for (threshold, counts, signers) in [
        (1, "threshold_counts: degree\n", 2),
        // The other reading of this is what `generate-configs` writes, with which every other test runs.
        (2, "threshold_counts: degree\n", 3),
        // Only one reading is legal.
        (1, "", 2),
        (3, "", 3),
    ] {
        let case = format!("mpc_threshold {threshold} {}", counts.trim());
        cluster.restart_with(&with(threshold, counts)).await?;
        let reads = reads(cluster, &case, signers).await;
        reads.map_err(|failure| format!("{case}: {failure}"))?;
    }
    for node in &mut cluster.nodes {
        node.stop().await?;
    }
    refuses(cluster, &with(1, "threshold_counts: signers\n")).await?;
    refuses(cluster, &with(3, "threshold_counts: degree\n")).await
}

/// So many sign together: the nodes say so, a new wallet says so, and with one node away they sign or wait.
async fn reads(cluster: &mut Cluster, wallet: &str, signers: u64) -> Result<(), String> {
    for node in &cluster.nodes {
        let status = node.status()?;
        if status.pointer("/node/threshold").and_then(Value::as_u64) != Some(signers) {
            return Err(format!("{}: {status}", node.name));
        }
    }
    let client = cluster.client().await?;
    let created = client.create_wallet_and_wait(wallet, PATIENCE).await.map_err(|error| error.to_string())?;
    let asker = Asker { client, wallet: Wallet::new(&created)? };
    let told = asker.client.wallet(wallet, PATIENCE).await.map_err(|error| error.to_string())?;
    if u64::from(told.threshold) != signers {
        return Err(format!("the wallet's threshold is told as {}", told.threshold));
    }
    asker.sign_new(KeyType::Ed25519).await?;

    let spare = cluster.nodes.len() as u64 - signers;
    let absent = cluster.nodes.last_mut().ok_or("there is no node")?;
    absent.stop().await?;
    let signing = tokio::spawn(async move { asker.sign(&Order::new(KeyType::Ed25519)).await });
    if spare == 0 {
        // Nobody takes a request without enough nodes; it stays in the queue.
        let first = &cluster.nodes[0];
        wait::until_sync("a node that is not ready", PATIENCE, || {
            let status = first.status()?;
            let ready = status.pointer("/node/ready").and_then(Value::as_bool);
            if ready == Some(false) { Ok(()) } else { Err(status.to_string()) }
        })
        .await?;
        if signing.is_finished() {
            return Err(format!("signed by fewer than {signers}: {:?}", signing.await));
        }
        cluster.start()?;
        cluster.ready().await?;
    }
    signing.await.map_err(|error| error.to_string())?.map(drop)?;
    cluster.start()?;
    cluster.ready().await
}

/// A node does not start with fewer than a majority, or with more than there are, and names both readings.
async fn refuses(cluster: &mut Cluster, configurations: &[String]) -> Result<(), String> {
    let node = cluster.nodes.first_mut().ok_or("there is no node")?;
    std::fs::write(node.home.join("config.yaml"), &configurations[0]).map_err(|error| error.to_string())?;
    let before = node.log_length();
    node.start()?;
    let (well, said) = node.end(before).await?;
    let named = ["threshold_counts: signers", "threshold_counts: degree", "between 2 and 3"];
    if well || named.iter().any(|words| !said.contains(words)) {
        return Err(format!("it started, or did not say why not: {said}"));
    }
    Ok(())
}
