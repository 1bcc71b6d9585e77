//! `make bench`: what an operation costs in the protocols' libraries alone ([`e2e::bare`]), in this project's suites
//! without network and store ([`e2e::alone`]), and through node processes, NATS and a client, in one run, and what a
//! message and a commit cost by themselves ([`e2e::floor`]). Prints one table; asserts nothing.
//!
//! Arguments choose clusters by protocol and number of nodes (`dkls23:3`, `cggmp24:9`); without any all six are measured,
//! with `short` those whose auxiliary data does not take minutes. `wallets:NUMBER`
//! measures instead a cluster whose stores hold so many wallets ([`e2e::filled`]), `advance` what CGGMP24 saves by work
//! done in advance, `presignatures` what a client waits for with and without one.
//!
//! Everything is measured for a time, not for a number of operations, so that a slow machine takes no longer. CPU times
//! are those of the processes as the system counts them, summed over all nodes.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use e2e::{
    alone::Committee,
    bare::Bare,
    cluster::{Cluster, Node, StartOptions},
    filled, floor,
    load::{Asker, Order},
    measure::{Traffic, cpu_of, own_cpu, percentile, shown, traffic},
    programs,
    servers::Servers,
    verify::Wallet,
    wait::{self, PATIENCE},
};
use futures::{StreamExt as _, stream};
use mpcium_client::{KeyType, MessageHash};
use mpcium_core::protocol::{Curve, EcdsaProtocol, Preimage};

/// How long each of the three is done: by the library, through the cluster one at a time, and many at a time.
const EACH: Duration = Duration::from_secs(4);
/// Requests in flight when CPU, messages and bytes of an operation are measured.
const IN_FLIGHT: usize = 16;
/// Requests in flight when only throughput is measured.
const OTHERS_IN_FLIGHT: [usize; 2] = [4, 64];
/// What takes longer than this by itself is measured with one number of requests in flight only: two processors have
/// enough to do with it.
const HEAVY: Duration = Duration::from_millis(300);
/// How long a node may take to fill its reserve of safe primes, which would disturb the measurement.
const RESERVE_MAX: Duration = Duration::from_secs(1200);

/// What is measured.
#[derive(Clone, Copy)]
enum Operation {
    Ed25519,
    Ecdsa,
    Wallet,
}

impl Operation {
    const ALL: [Self; 3] = [Self::Ed25519, Self::Ecdsa, Self::Wallet];

    fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "Ed25519",
            Self::Ecdsa => "ECDSA",
            Self::Wallet => "wallet",
        }
    }
}

/// One cluster that is measured.
#[derive(Clone, Copy)]
struct Setting {
    ecdsa: EcdsaProtocol,
    nodes: u16,
    threshold: u16,
}

/// Those of `short`, then the others.
const SETTINGS: [Setting; 6] = [
    Setting { ecdsa: EcdsaProtocol::Dkls23, nodes: 3, threshold: 2 },
    Setting { ecdsa: EcdsaProtocol::Dkls23, nodes: 5, threshold: 3 },
    Setting { ecdsa: EcdsaProtocol::Dkls23, nodes: 9, threshold: 5 },
    Setting { ecdsa: EcdsaProtocol::Cggmp24, nodes: 3, threshold: 2 },
    Setting { ecdsa: EcdsaProtocol::Cggmp24, nodes: 5, threshold: 3 },
    Setting { ecdsa: EcdsaProtocol::Cggmp24, nodes: 9, threshold: 5 },
];
/// How many of them are `short`.
const SHORT: usize = 4;

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.ecdsa, self.nodes)
    }
}

fn main() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))
        .and_then(|runtime| runtime.block_on(measure()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<(), String> {
    let mut settings = Vec::new();
    let mut wallets = Vec::new();
    let (mut advance, mut presignatures) = (false, false);
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() {
        settings.extend(SETTINGS);
    }
    for word in wanted {
        match word.as_str() {
            "short" => settings.extend(SETTINGS.into_iter().take(SHORT)),
            "advance" => advance = true,
            "presignatures" => presignatures = true,
            word => match word.strip_prefix("wallets:").map(str::parse) {
                Some(number) => wallets.push(number.map_err(|error| format!("{word}: {error}"))?),
                None => {
                    let found = SETTINGS.into_iter().find(|setting| setting.to_string() == word);
                    settings.push(found.ok_or_else(|| format!("there is no cluster {word:?} to measure"))?);
                }
            },
        }
    }
    if !settings.is_empty() {
        println!(
            "{:<10} {:<8} {:>10} {:>10} {:>10} {:>6} {:>8} {:>8} {:>9} {:>9} {:>9} {:>10} {:>9} {:>10} {:>10} {:>9}",
            "cluster",
            "what",
            "library",
            "suite",
            "nodes",
            "ratio",
            "p50",
            "p99",
            "at 4",
            "at 16",
            "at 64",
            "NATS: CPU",
            "messages",
            "bus bytes",
            "library's",
            "suite's"
        );
    }
    for setting in settings {
        measure_setting(setting).await?;
    }
    if advance {
        measure_in_advance()?;
    }
    if presignatures {
        measure_presigned().await?;
    }
    for number in wallets {
        filled::measure(number).await?;
    }
    Ok(())
}

async fn measure_setting(setting: Setting) -> Result<(), String> {
    let Setting { ecdsa, nodes, threshold } = setting;
    eprintln!("bench: {setting}: starting a cluster; waiting for its auxiliary data ...");
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut servers = Servers::new(folder.path())?;
    servers.start().await?;
    let address = servers.nats.address();
    let floor =
        tokio::task::spawn_blocking(move || floor::measure(&address)).await.map_err(|error| error.to_string())??;
    let [message, commit] = [floor.message, floor.commit].map(|cost| cost.as_secs_f64() * 1e6);
    println!("{setting}: by itself a message on the bus costs its two ends {message:.1} µs, a commit {commit:.1} µs");
    let mut cluster = Cluster::generate(folder.path(), usize::from(nodes), &servers, ecdsa, "")?;
    cluster.register().await?;
    let quiet = StartOptions { quiet: true, ..StartOptions::default() };
    let began = Instant::now();
    cluster.nodes.iter_mut().try_for_each(|node| node.start_with(&quiet))?;
    // Meanwhile; what is measured later is not disturbed by it.
    let mut bare = Bare::make(ecdsa, nodes, threshold, &programs::test_primes())?;
    cluster.ready().await?;
    cluster.provisioned().await?;
    let (took, cpu) = (began.elapsed(), used(&cluster, &servers)?.nodes / u32::from(nodes));
    println!(
        "{setting}: auxiliary data of the whole cluster after {}, {} of CPU at each node",
        shown(took),
        shown(cpu)
    );
    reserve_is_full(&cluster).await?;
    // The suites' own auxiliary data for CGGMP24 takes minutes; their part beside the library's is small there.
    let mut suites = match ecdsa {
        EcdsaProtocol::Dkls23 => Some(Committee::make(ecdsa, nodes, threshold, &programs::test_primes())?),
        EcdsaProtocol::Cggmp24 => None,
    };
    let client = cluster.client().await?;
    let made = client.create_wallet_and_wait("bench", PATIENCE).await.map_err(|error| error.to_string())?;
    let asker = Asker { client, wallet: Wallet::new(&made)? };
    for operation in Operation::ALL {
        let (library, library_bytes) = measure_library(&mut bare, operation)?;
        let suite = suites.as_mut().map(|committee| measure_suite(committee, operation)).transpose()?;
        let measured = measure_cluster(&cluster, &servers, &asker, operation).await?;
        let (suite, suite_bytes) =
            suite.map_or(("-".to_owned(), "-".to_owned()), |(cpu, bytes)| (shown(cpu), bytes.to_string()));
        println!(
            "{:<10} {:<8} {:>10} {:>10} {:>10} {:>6.2} {:>8} {:>8} {:>9} {:>9} {:>9} {:>10} {:>9} {:>10} {:>10} {:>9}",
            setting.to_string(),
            operation.name(),
            shown(library),
            suite,
            shown(measured.nodes),
            measured.nodes.as_secs_f64() / library.as_secs_f64(),
            shown(measured.p50),
            shown(measured.p99),
            per_second(measured.others[0]),
            per_second(Some(measured.per_second)),
            per_second(measured.others[1]),
            shown(measured.nats),
            format!("{:.1}", measured.messages),
            measured.bytes,
            library_bytes,
            suite_bytes,
        );
    }
    Ok(())
}

/// How often something can be done in its time, and the CPU time of this process for each.
fn repeat(mut once: impl FnMut(u64) -> Result<(), String>) -> Result<Duration, String> {
    once(0)?;
    let (began, before, mut times) = (Instant::now(), own_cpu(), 0);
    while times == 0 || began.elapsed() < EACH {
        times += 1;
        once(times)?;
    }
    Ok((own_cpu() - before) / u32::try_from(times).unwrap_or(u32::MAX))
}

/// CPU time and bytes of all parties.
fn measure_library(bare: &mut Bare, operation: Operation) -> Result<(Duration, usize), String> {
    let once = |bare: &mut Bare, number: u64| match operation {
        Operation::Ed25519 => bare.sign(Curve::Ed25519, message(number)),
        Operation::Ecdsa => bare.sign(Curve::Secp256k1, message(number)),
        Operation::Wallet => bare.make_wallet(),
    };
    let cpu = repeat(|number| once(bare, number))?;
    Ok((cpu, bare.bytes_of(|bare| once(bare, 0))?))
}

/// CPU time and bytes of all parties.
fn measure_suite(committee: &mut Committee, operation: Operation) -> Result<(Duration, usize), String> {
    let once = |committee: &mut Committee, number: u64| match operation {
        Operation::Ed25519 => committee.sign(Curve::Ed25519, &message(number)).map(drop),
        Operation::Ecdsa => committee.sign(Curve::Secp256k1, &message(number)).map(drop),
        Operation::Wallet => committee.make_wallet().map(drop),
    };
    let cpu = repeat(|number| once(committee, number))?;
    committee.take_bytes();
    once(committee, 0)?;
    Ok((cpu, committee.take_bytes()))
}

/// What CGGMP24 can do in advance, 2 of 3, in this project's suite alone: CPU and bytes of all signers together.
fn measure_in_advance() -> Result<(), String> {
    eprintln!("bench: making auxiliary data for three members ...");
    let mut committee = Committee::make(EcdsaProtocol::Cggmp24, 3, 2, &programs::test_primes())?;
    let show = |what: &str, cpu: Duration, bytes: usize| println!("{what:<40} {:>10} {bytes:>10}", shown(cpu));
    println!("{:<40} {:>10} {:>10}", "CGGMP24, 2 of 3, both signers", "CPU", "bytes");
    let (cpu, bytes) = measure_suite(&mut committee, Operation::Ecdsa)?;
    show("signature, without tables", cpu, bytes);
    let before = own_cpu();
    committee.precompute();
    show("tables of a set, at each member, once", own_cpu() - before, 0);
    let (cpu, bytes) = measure_suite(&mut committee, Operation::Ecdsa)?;
    show("signature, with tables", cpu, bytes);
    let mut made = Vec::new();
    let cpu = repeat(|_| committee.presign().map(|presignature| made.push(presignature)))?;
    committee.take_bytes();
    made.push(committee.presign()?);
    show("presignature, with tables", cpu, committee.take_bytes());
    let (number, before) = (u32::try_from(made.len()).unwrap_or(u32::MAX), own_cpu());
    for presignature in made {
        committee.sign_with(presignature, &Preimage { hash: MessageHash::Sha256, message: b"message".to_vec() })?;
    }
    let bytes = committee.take_bytes() / usize::try_from(number).unwrap_or(usize::MAX);
    show("signature from a presignature", (own_cpu() - before) / number, bytes);
    Ok(())
}

/// Signatures of each kind whose latency is measured.
const PRESIGNED: usize = 20;

/// What a client waits for, 2 of 3, CGGMP24, one request after the other: without and with a presignature.
async fn measure_presigned() -> Result<(), String> {
    eprintln!("bench: starting a cluster that makes presignatures; waiting for its auxiliary data ...");
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut servers = Servers::new(folder.path())?;
    servers.start().await?;
    let settings = "presignatures: 1\n";
    let mut cluster = Cluster::generate(folder.path(), 3, &servers, EcdsaProtocol::Cggmp24, settings)?;
    cluster.register().await?;
    let quiet = StartOptions { quiet: true, ..StartOptions::default() };
    cluster.nodes.iter_mut().try_for_each(|node| node.start_with(&quiet))?;
    cluster.ready().await?;
    cluster.provisioned().await?;
    reserve_is_full(&cluster).await?;
    let client = cluster.client().await?;
    let made = client.create_wallet_and_wait("bench", PATIENCE).await.map_err(|error| error.to_string())?;
    let asker = Asker { client, wallet: Wallet::new(&made)? };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    while with.len() < PRESIGNED {
        let (order, before, began) = (Order::new(KeyType::Secp256k1), cluster.presignatures_used()?, Instant::now());
        asker.sign_message(&order).await?;
        let took = began.elapsed();
        if cluster.presignatures_used()? > before {
            with.push(took)
        } else {
            without.push(took)
        }
        cluster.presigned().await?;
    }
    while without.len() < PRESIGNED {
        without.push(once(&asker, Operation::Ecdsa).await?);
    }
    println!("{:<40} {:>10} {:>10}", "CGGMP24, 2 of 3, through the cluster", "p50", "p99");
    for (what, latencies) in [("without a presignature", &mut without), ("with one", &mut with)] {
        println!("{what:<40} {:>10} {:>10}", shown(percentile(latencies, 50)), shown(percentile(latencies, 99)));
    }
    Ok(())
}

fn message(number: u64) -> [u8; 32] {
    let mut message = [7; 32];
    message[..8].copy_from_slice(&number.to_le_bytes());
    message
}

/// What an operation costs through the cluster.
struct Measured {
    p50: Duration,
    p99: Duration,
    per_second: f64,
    /// With [`OTHERS_IN_FLIGHT`].
    others: [Option<f64>; OTHERS_IN_FLIGHT.len()],
    nodes: Duration,
    nats: Duration,
    messages: f64,
    bytes: u64,
}

/// What has been used so far.
struct Used {
    nodes: Duration,
    nats: Duration,
    traffic: Traffic,
}

fn used(cluster: &Cluster, servers: &Servers) -> Result<Used, String> {
    Ok(Used {
        nodes: cluster.nodes.iter().filter_map(Node::process_id).map(cpu_of).sum::<Result<_, _>>()?,
        nats: servers.nats.process_id().map_or(Ok(Duration::ZERO), cpu_of)?,
        traffic: traffic(servers.nats.monitor())?,
    })
}

async fn measure_cluster(
    cluster: &Cluster,
    servers: &Servers,
    asker: &Asker,
    operation: Operation,
) -> Result<Measured, String> {
    // The first ones open connections and lanes.
    once(asker, operation).await?;
    let mut latencies = Vec::new();
    let began = Instant::now();
    while latencies.is_empty() || began.elapsed() < EACH {
        latencies.push(once(asker, operation).await?);
    }

    let before = used(cluster, servers)?;
    let (times, took) = many(asker, operation, IN_FLIGHT).await?;
    let after = used(cluster, servers)?;
    let p50 = percentile(&mut latencies, 50);
    let mut others = [None; OTHERS_IN_FLIGHT.len()];
    if p50 < HEAVY {
        for (other, in_flight) in others.iter_mut().zip(OTHERS_IN_FLIGHT) {
            let (times, took) = many(asker, operation, in_flight).await?;
            *other = Some(f64::from(times) / took.as_secs_f64());
        }
    }
    Ok(Measured {
        p50,
        p99: percentile(&mut latencies, 99),
        per_second: f64::from(times) / took.as_secs_f64(),
        others,
        nodes: (after.nodes - before.nodes) / times,
        nats: (after.nats - before.nats) / times,
        messages: (after.traffic.messages - before.traffic.messages) as f64 / f64::from(times),
        bytes: (after.traffic.bytes - before.traffic.bytes) / u64::from(times),
    })
}

/// Does it with so many in flight; how often, and in what time.
async fn many(asker: &Asker, operation: Operation, in_flight: usize) -> Result<(u32, Duration), String> {
    let began = Instant::now();
    let outcomes: Vec<_> = stream::iter(0_usize..)
        .take_while(|number| std::future::ready(*number < in_flight || began.elapsed() < EACH))
        .map(|_| once(asker, operation))
        .buffer_unordered(in_flight)
        .collect()
        .await;
    let took = began.elapsed();
    let times = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?.len();
    Ok((u32::try_from(times).unwrap_or(u32::MAX), took))
}

fn per_second(times: Option<f64>) -> String {
    times.map_or("-".to_owned(), |times| format!("{times:.1}/s"))
}

/// Does it once and says how long it took.
async fn once(asker: &Asker, operation: Operation) -> Result<Duration, String> {
    let began = Instant::now();
    match operation {
        Operation::Ed25519 => asker.ask(&Order::new(KeyType::Ed25519)).await.map(drop),
        Operation::Ecdsa => asker.ask(&Order::new(KeyType::Secp256k1)).await.map(drop),
        Operation::Wallet => {
            let id = uuid::Uuid::new_v4().to_string();
            asker.client.create_wallet_and_wait(&id, PATIENCE).await.map(drop)
        }
    }
    .map_err(|error| error.to_string())?;
    Ok(began.elapsed())
}

async fn reserve_is_full(cluster: &Cluster) -> Result<(), String> {
    for node in &cluster.nodes {
        wait::until_sync("the reserve of safe primes", RESERVE_MAX, || {
            let status = node.status()?;
            let part = |name: &str| status.pointer(&format!("/node/ingredients/{name}")).cloned().unwrap_or_default();
            if part("making") == false && part("pieces").as_u64() >= part("wanted").as_u64().or(Some(1)) {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })
        .await?;
    }
    Ok(())
}
