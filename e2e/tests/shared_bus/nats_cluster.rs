//! Three NATS servers keep three copies of each stream, and die under load.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    consumer::{FromConsumer as _, pull},
    stream,
};
use e2e::{
    bus::{self, Answers},
    cluster::Cluster,
    load::Asker,
    programs,
    servers::Server,
    verify::Wallet,
    wait::{self, PATIENCE},
};
use mpcium_client::{Kind, subjects};
use mpcium_core::protocol::EcdsaProtocol;

use crate::TURN;

/// Servers of the NATS cluster, and copies of each stream.
const SERVERS: usize = 3;
/// Requests in flight on each curve: Ed25519, ECDSA.
const LOAD: (usize, usize) = (8, 2);

/// How long a server that was started may take until it is well.
const WELL_MAX: Duration = Duration::from_secs(45);
/// How often a server is started that does not become well.
const STARTS_MAX: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_while_servers_of_a_nats_cluster_die() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut nats = Server::nats_cluster(folder.path(), SERVERS).expect("a NATS cluster");
    let mut consul = Server::consul(folder.path()).expect("Consul");
    let urls: Vec<String> = nats.iter().map(|server| format!("nats://{}", server.address())).collect();
    let mut cluster = Cluster::generate_with(
        folder.path(),
        3,
        (&urls.join(","), &consul.address()),
        EcdsaProtocol::Dkls23,
        "",
        &["--nats-replicas", "3"],
    )
    .expect("a cluster");
    let outcome = run(&mut cluster, &mut nats, &mut consul).await;
    let servers: Vec<&Server> = nats.iter().chain([&consul]).collect();
    if let Err(failure) = outcome {
        panic!("{failure}\n{}", cluster.logs_with(&servers));
    }
}

async fn run(cluster: &mut Cluster, nats: &mut [Server], consul: &mut Server) -> Result<(), String> {
    consul.start().await?;
    for server in nats.iter_mut() {
        server.start().await?;
    }
    for server in nats.iter_mut() {
        well(server).await?;
    }
    cluster.register().await?;
    cluster.start()?;
    cluster.ready().await?;
    cluster.provisioned().await?;
    let bus = cluster.nats().await?;
    whole(&bus).await?;

    let client = cluster.client().await?;
    let created = client.create_wallet_and_wait("shared", PATIENCE).await.map_err(|error| error.to_string())?;
    let asker = Asker { client, wallet: Wallet::new(&created)? };
    // One ear at each server: whichever dies, the others hear every answer.
    let mut ears = Vec::new();
    for server in nats.iter() {
        let connection = async_nats::connect(server.address()).await.map_err(|error| error.to_string())?;
        ears.push(Answers::listen(&connection).await?);
    }
    let load = asker.load(LOAD.0, LOAD.1);
    load.progress(30, "before a server dies").await?;

    let first = server_of(&bus, subjects::SIGNING_STREAM.name).await?;
    nats[first].kill();
    load.progress(60, "without the server that led the stream of requests").await?;
    nats[first].start().await?;
    well(&mut nats[first]).await?;
    whole(&bus).await?;
    load.progress(30, "with all servers again").await?;

    let leads_results = server_of(&bus, subjects::RESULT_STREAM.name).await?;
    let second = if leads_results == first { (first + 1) % nats.len() } else { leads_results };
    nats[second].kill();
    load.progress(60, "without another server").await?;
    nats[second].start().await?;
    well(&mut nats[second]).await?;
    whole(&bus).await?;
    load.progress(30, "with all servers again").await?;
    load.finish().await?;

    wait::until("every request to be settled", PATIENCE, async || bus::settled(&bus, Kind::Sign).await).await?;
    for (id, answers) in ears.iter().flat_map(Answers::seen) {
        if answers.len() != 1 {
            return Err(format!("{id} has {} different answers", answers.len()));
        }
    }
    for node in &mut cluster.nodes {
        let alarms = node.alarms()?;
        if node.has_crashed() || !alarms.is_empty() {
            return Err(format!("{}: {}", node.name, alarms.join("; ")));
        }
    }
    replicas_are_put_back(cluster, &bus).await
}

/// Existing clients set every stream's replicas to 1 when they start. Running nodes put that right, for
/// streams and for their own queues, also where one of them died over it; the doctor shows it.
async fn replicas_are_put_back(cluster: &mut Cluster, bus: &async_nats::Client) -> Result<(), String> {
    lower_replicas(bus).await?;
    put_back(bus).await?;
    for node in &mut cluster.nodes {
        node.stop().await?;
    }
    lower_replicas(bus).await?;
    leave_half_done(bus).await?;
    let home = &cluster.nodes[0].home;
    let said = programs::run(home, &["doctor", "-n", &cluster.nodes[0].name])?;
    for spec in subjects::STREAMS {
        let words = format!("{}: 1 replica(s), expected 3 (nats.replicas)", spec.name);
        if !said.contains(&words) {
            return Err(format!("the doctor does not say {words:?}: {said}"));
        }
    }
    cluster.start()?;
    cluster.ready().await?;
    put_back(bus).await
}

async fn lower_replicas(bus: &async_nats::Client) -> Result<(), String> {
    let jetstream = jetstream::new(bus.clone());
    for spec in subjects::STREAMS {
        let found = jetstream.get_stream(spec.name).await.map_err(|error| error.to_string())?;
        let config = stream::Config { num_replicas: 1, ..found.cached_info().config.clone() };
        jetstream.update_stream(config).await.map_err(|error| format!("{}: {error}", spec.name))?;
    }
    Ok(())
}

/// A queue as a node leaves it that dies while it gives it its copies back.
async fn leave_half_done(bus: &async_nats::Client) -> Result<(), String> {
    let (stream, durable) = (subjects::SIGNING_STREAM.name, subjects::request_durable(Kind::Sign));
    let jetstream = jetstream::new(bus.clone());
    let found = jetstream.get_stream(stream).await.map_err(|error| error.to_string())?;
    let mut config = found.consumer_info(durable).await.map_err(|error| error.to_string())?.config;
    config.num_replicas = 1;
    config.metadata.insert("mpcium.copies".to_owned(), "1".to_owned());
    let config = pull::Config::try_from_consumer_config(config).map_err(|error| error.to_string())?;
    found.create_consumer(config).await.map(drop).map_err(|error| format!("{durable}: {error}"))
}

/// Waits until a server that was started says that it is well, and starts it again as an operator has to: nats-server
/// 2.10.27 comes back now and then as one that hears the others and that they do not hear, and it stays so. Its own
/// `/healthz` says that it is not current; nothing else of its cluster is disturbed.
async fn well(server: &mut Server) -> Result<(), String> {
    let mut seen = String::new();
    for _ in 0..STARTS_MAX {
        let what = format!("the NATS server at {} to be well", server.address());
        match wait::until_sync(&what, WELL_MAX, || server.is_well()).await {
            Ok(()) => return Ok(()),
            Err(failure) => seen = failure,
        }
        eprintln!("e2e: started once more: {seen}");
        server.restart().await?;
    }
    Err(seen)
}

/// Waits until every server has everything.
async fn whole(bus: &async_nats::Client) -> Result<(), String> {
    let what = format!("{SERVERS} servers that have everything");
    wait::until(&what, PATIENCE, async || bus::replicated(bus, SERVERS).await).await
}

/// Waits until every server has the streams and the queues of requests. For consumers of results nodes can do nothing
/// where nats-server forgets to give them their copies back.
async fn put_back(bus: &async_nats::Client) -> Result<(), String> {
    let what = format!("{SERVERS} servers that have every queue");
    wait::until(&what, PATIENCE, async || bus::queues_replicated(bus, SERVERS).await).await
}

/// Which server leads a stream, by its place in the list.
async fn server_of(bus: &async_nats::Client, stream: &str) -> Result<usize, String> {
    let leader = wait::until("a leader", PATIENCE, async || bus::leader(bus, stream).await).await?;
    let number = leader.strip_prefix("nats-").and_then(|number| number.parse().ok());
    number.ok_or_else(|| format!("{leader} is none of the servers"))
}
