//! Two independent clusters on one NATS and one Consul, told apart by their prefixes alone.

use std::collections::BTreeSet;

use async_nats::jetstream;
use e2e::{
    cluster::Cluster,
    load::{Asker, Order},
    programs,
    servers::Servers,
    verify::Wallet,
    wait::PATIENCE,
};
use futures::StreamExt as _;
use mpcium_client::{KeyType, subjects};
use mpcium_core::protocol::EcdsaProtocol;
use serde_json::Value;

use crate::TURN;

/// Signatures of each cluster, under ids that both use.
const ORDERS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn clusters_share_a_bus_and_nothing_else() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut servers = Servers::new(folder.path()).expect("servers");
    let nats = format!("nats://{}", servers.nats.address());
    let consul = servers.consul.address();
    let generate = |name: &str, further: &[&str]| {
        let home = folder.path().join(name);
        std::fs::create_dir(&home).expect("a folder");
        Cluster::generate_with(&home, 3, (&nats, &consul), EcdsaProtocol::Dkls23, "", further).expect("a cluster")
    };
    let mut clusters =
        [generate("plain", &[]), generate("blue", &["--nats-prefix", "eu.blue", "--consul-prefix", "teams/blue"])];
    // The same initiator: a request of one that reached the other would be carried out there.
    let (key, public) = initiator(&clusters[0]);
    for cluster in &mut clusters {
        adopt(cluster, &key, &public);
    }
    if let Err(failure) = run(&mut clusters, &mut servers).await {
        panic!("{failure}\n{}{}", clusters[0].logs(&servers), clusters[1].logs(&servers));
    }
}

/// A cluster's initiator: its key file's text, and the public key.
fn initiator(cluster: &Cluster) -> (String, String) {
    let key = std::fs::read_to_string(cluster.initiator_key()).expect("the initiator's key");
    (key, cluster.setting("event_initiator_pubkey").expect("the initiator's public key"))
}

/// Makes this the cluster's initiator.
fn adopt(cluster: &Cluster, key: &str, public: &str) {
    std::fs::write(cluster.initiator_key(), key).expect("the key is written");
    let own = cluster.setting("event_initiator_pubkey").expect("a public key");
    for node in &cluster.nodes {
        let path = node.home.join("config.yaml");
        let config = std::fs::read_to_string(&path).expect("a configuration").replace(&own, public);
        std::fs::write(path, config).expect("the configuration is written");
    }
}

async fn run(clusters: &mut [Cluster; 2], servers: &mut Servers) -> Result<(), String> {
    servers.start().await?;
    let bus = clusters[0].nats().await?;
    let mut everything = bus.subscribe(">").await.map_err(|error| error.to_string())?;
    bus.flush().await.map_err(|error| error.to_string())?;
    for cluster in clusters.iter_mut() {
        // Nodes have the same names in both, with different ids.
        cluster.register().await?;
        cluster.start()?;
    }
    for cluster in clusters.iter_mut() {
        cluster.ready().await?;
        cluster.provisioned().await?;
    }

    let [plain, blue] = &*clusters;
    let (plain_client, blue_client) = (plain.client().await?, blue.client().await?);
    let created = tokio::join!(
        plain_client.create_wallet_and_wait("same", PATIENCE),
        blue_client.create_wallet_and_wait("same", PATIENCE),
    );
    let wallet = |created: Result<_, mpcium_client::client::ClientError>| {
        Wallet::new(&created.map_err(|error| error.to_string())?)
    };
    let one = Asker { client: plain_client, wallet: wallet(created.0)? };
    let other = Asker { client: blue_client, wallet: wallet(created.1)? };
    if one.wallet.ed25519 == other.wallet.ed25519 || one.wallet.secp256k1 == other.wallet.secp256k1 {
        return Err("both clusters say they have the same keys".to_owned());
    }
    // The same requests, at the same time.
    let orders: Vec<Order> =
        [KeyType::Ed25519, KeyType::Secp256k1].repeat(ORDERS / 2).into_iter().map(Order::new).collect();
    let done = Default::default();
    let signed = tokio::join!(one.sign_all(&orders, 6, &done), other.sign_all(&orders, 6, &done));
    signed.0?;
    signed.1?;
    for (asker, cluster) in [(&one, plain), (&other, blue)] {
        let found = asker.client.wallet("same", PATIENCE).await.map_err(|error| error.to_string())?;
        let members: BTreeSet<&str> = found.committee.iter().map(String::as_str).collect();
        let nodes: BTreeSet<&str> = cluster.nodes.iter().map(|node| node.id.as_str()).collect();
        if members != nodes || found.eddsa_pub_key.as_deref() != Some(&asker.wallet.ed25519[..]) {
            return Err(format!("the wallet of {} is told as {found:?}", cluster.folder.display()));
        }
        command_line_signs(cluster, asker)?;
        each_stream_holds_its_own(&bus, cluster).await?;
        doctor_is_content(cluster)?;
    }
    nothing_crossed(clusters, &mut everything).await
}

/// The command line takes the prefix from the configuration, or is told it; the examples are told.
fn command_line_signs(cluster: &Cluster, asker: &Asker) -> Result<(), String> {
    let key = hex::encode(asker.wallet.ed25519);
    let sign = ["sign", "-w", "same", "-k", "ed25519", "-m", "hello", "--public-key", &key];
    programs::run(&cluster.folder, &sign)?;
    let told = ["--nats", cluster.nats_url(), "--nats-prefix", cluster.prefix.as_str()];
    programs::run(&cluster.folder, &[sign.as_slice(), &told].concat())?;
    let printed = programs::run(
        &cluster.folder,
        &["benchmark", "sign-eddsa", "4", "same", "--key-path", "event_initiator.key", "--json"],
    )?;
    let report: Value = serde_json::from_str(&printed).map_err(|error| format!("{error}: {printed}"))?;
    if report["succeeded"] != 4 {
        return Err(format!("the benchmark: {report}"));
    }
    let created = ["--initiator", "event_initiator.key", "--prefix", "example"];
    programs::run_example(&cluster.folder, "create", &[&told, created.as_slice()].concat(), &[]).map(drop)
}

/// As many requests as were sent to this cluster, and no more.
async fn each_stream_holds_its_own(bus: &async_nats::Client, cluster: &Cluster) -> Result<(), String> {
    let jetstream = jetstream::new(bus.clone());
    // Orders, twice the command line, the benchmark; the wallet and the example's.
    for (spec, expected) in [(subjects::SIGNING_STREAM, ORDERS + 2 + 4), (subjects::KEYGEN_STREAM, 2)] {
        let name = cluster.prefix.stream(spec.name);
        let stream = jetstream.get_stream(&name).await.map_err(|error| format!("{name}: {error}"))?;
        let messages = stream.cached_info().state.messages;
        if messages != u64::try_from(expected).unwrap_or_default() {
            return Err(format!("{name} holds {messages} requests, expected {expected}"));
        }
    }
    Ok(())
}

fn doctor_is_content(cluster: &Cluster) -> Result<(), String> {
    let node = &cluster.nodes[0];
    let said = programs::run(&node.home, &["doctor", "-n", &node.name, "--json"])?;
    let said: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
    let checks = said["checks"].as_array().cloned().unwrap_or_default();
    for check in ["registrations", "streams", "permissions"] {
        let of: Vec<&Value> = checks.iter().filter(|one| one["check"] == check).collect();
        if of.is_empty() || of.iter().any(|one| one["outcome"] != "ok") {
            return Err(format!("the doctor of {}: {of:?}", cluster.folder.display()));
        }
    }
    Ok(())
}

/// Every message but JetStream's own is either of one cluster or of the other, and no node spoke to the other's.
async fn nothing_crossed(clusters: &mut [Cluster; 2], everything: &mut async_nats::Subscriber) -> Result<(), String> {
    everything.unsubscribe().await.map_err(|error| error.to_string())?;
    let mut seen = [0_usize; 2];
    while let Some(message) = everything.next().await {
        let subject = message.subject.as_str();
        if subject.starts_with("_INBOX") || subject.starts_with('$') {
            continue;
        }
        let of = usize::from(subject.starts_with("eu.blue."));
        let plain = subject.trim_start_matches("eu.blue.");
        if !["mpc.", "mpcium.", "mpc:"].iter().any(|begin| plain.starts_with(begin)) {
            return Err(format!("a message on {subject}"));
        }
        if clusters[1 - of].nodes.iter().any(|node| subject.contains(&node.id)) {
            return Err(format!("a node of the other cluster was spoken to on {subject}"));
        }
        seen[of] += 1;
    }
    if seen.contains(&0) {
        return Err(format!("messages of the two clusters: {seen:?}"));
    }
    for at in 0..2 {
        let others: Vec<String> = clusters[1 - at].nodes.iter().map(|node| node.id.clone()).collect();
        for node in &mut clusters[at].nodes {
            let printed = node.printed(0);
            if let Some(id) = others.iter().find(|id| printed.contains(*id)) {
                return Err(format!("{} in {} has heard of {id}", node.name, node.home.display()));
            }
            if node.has_crashed() || !node.alarms()?.is_empty() {
                return Err(format!("{} in {} is not well", node.name, node.home.display()));
            }
        }
    }
    Ok(())
}
