//! `make bench`: what an operation costs in the protocols alone, and what the same operation costs through node
//! processes, NATS and a client, for both ECDSA protocols. Prints one table; asserts nothing. Arguments choose clusters:
//! `dkls23:3`, `dkls23:5`, `dkls23:9`, `cggmp24:3`.
//!
//! CPU times are those of the processes as the system counts them, summed over all parties. The protocols alone include
//! this project's checks on top of the library (see `docs/threat-model.md`), as the nodes run them.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use e2e::{
    alone::Committee,
    cluster::Cluster,
    load::{Asker, Order},
    programs,
    servers::Servers,
    verify::Wallet,
    wait::{self, PATIENCE},
};
use futures::{StreamExt as _, stream};
use mpcium_client::KeyType;
use mpcium_core::protocol::{Curve, EcdsaProtocol};
use rustix::time::{ClockId, clock_gettime};

/// How often the system counts a second of CPU in `/proc/PID/stat`: 100 on every Linux.
const TICKS_PER_SECOND: u32 = 100;
/// Requests in flight when throughput is measured.
const IN_FLIGHT: usize = 16;
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
            Self::Ed25519 => "Ed25519 signature",
            Self::Ecdsa => "ECDSA signature",
            Self::Wallet => "wallet",
        }
    }

    /// How often it is done for the protocols alone, one at a time, and many at a time.
    fn times(self, ecdsa: EcdsaProtocol) -> [usize; 3] {
        match self {
            Self::Ed25519 => [500, 400, 1600],
            Self::Ecdsa if ecdsa == EcdsaProtocol::Cggmp24 => [8, 10, 32],
            Self::Ecdsa => [100, 100, 400],
            Self::Wallet => [50, 40, 160],
        }
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

/// One cluster that is measured.
#[derive(Clone, Copy)]
struct Setting {
    ecdsa: EcdsaProtocol,
    nodes: u16,
    threshold: u16,
}

/// All that are measured unless the command line names some: `dkls23:3`, say.
const SETTINGS: [Setting; 4] = [
    Setting { ecdsa: EcdsaProtocol::Dkls23, nodes: 3, threshold: 2 },
    Setting { ecdsa: EcdsaProtocol::Dkls23, nodes: 5, threshold: 3 },
    Setting { ecdsa: EcdsaProtocol::Dkls23, nodes: 9, threshold: 5 },
    Setting { ecdsa: EcdsaProtocol::Cggmp24, nodes: 3, threshold: 2 },
];

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.ecdsa, self.nodes)
    }
}

async fn measure() -> Result<(), String> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |setting: &Setting| wanted.is_empty() || wanted.contains(&setting.to_string());
    println!(
        "{:<10} {:<18} {:>11} {:>10} {:>9} {:>9} {:>11} {:>12} {:>6} {:>9}",
        "cluster", "operation", "alone: CPU", "bytes", "p50", "p99", "at 16", "cluster: CPU", "ratio", "NATS: CPU"
    );
    for setting in SETTINGS.into_iter().filter(chosen) {
        measure_setting(setting).await?;
    }
    println!(
        "CPU and bytes per operation, all parties together; latency at 1 in flight, from the client's call to its result."
    );
    Ok(())
}

async fn measure_setting(setting: Setting) -> Result<(), String> {
    let Setting { ecdsa, nodes, threshold } = setting;
    eprintln!("bench: {setting}: auxiliary data for the protocols alone ...");
    let mut committee = Committee::make(ecdsa, nodes, threshold, &programs::test_primes())?;
    let mut alone = Vec::new();
    for operation in Operation::ALL {
        alone.push(measure_alone(&mut committee, operation, ecdsa)?);
    }
    eprintln!("bench: {setting}: starting a cluster; waiting for its auxiliary data ...");
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut servers = Servers::new(folder.path())?;
    servers.start().await?;
    let mut cluster = Cluster::generate(folder.path(), usize::from(nodes), &servers, ecdsa, "")?;
    cluster.register().await?;
    cluster.start()?;
    cluster.ready().await?;
    cluster.provisioned().await?;
    reserve_is_full(&cluster).await?;
    let client = cluster.client().await?;
    let made = client.create_wallet_and_wait("bench", PATIENCE).await.map_err(|error| error.to_string())?;
    let asker = Asker { client, wallet: Wallet::new(&made)? };
    for (operation, (alone, bytes)) in Operation::ALL.into_iter().zip(alone) {
        let measured = measure_cluster(&cluster, &servers, &asker, operation, ecdsa).await?;
        println!(
            "{:<10} {:<18} {:>11} {:>10} {:>9} {:>9} {:>9}/s {:>12} {:>6.2} {:>9}",
            setting.to_string(),
            operation.name(),
            shown(alone),
            bytes,
            shown(measured.p50),
            shown(measured.p99),
            format!("{:.1}", measured.per_second),
            shown(measured.nodes),
            measured.nodes.as_secs_f64() / alone.as_secs_f64(),
            shown(measured.nats),
        );
    }
    Ok(())
}

/// CPU time and bytes per operation of all parties in this process.
fn measure_alone(
    committee: &mut Committee,
    operation: Operation,
    ecdsa: EcdsaProtocol,
) -> Result<(Duration, usize), String> {
    let [times, ..] = operation.times(ecdsa);
    committee.take_bytes();
    let before = own_cpu();
    for number in 0..times {
        let message = [u8::try_from(number % 256).unwrap_or_default(); 32];
        match operation {
            Operation::Ed25519 => committee.sign(Curve::Ed25519, &message).map(drop)?,
            Operation::Ecdsa => committee.sign(Curve::Secp256k1, &message).map(drop)?,
            Operation::Wallet => committee.make_wallet().map(drop)?,
        }
    }
    let cpu = (own_cpu() - before) / u32::try_from(times).unwrap_or(u32::MAX);
    Ok((cpu, committee.take_bytes() / times))
}

/// What an operation costs through the cluster.
struct Measured {
    p50: Duration,
    p99: Duration,
    per_second: f64,
    nodes: Duration,
    nats: Duration,
}

async fn measure_cluster(
    cluster: &Cluster,
    servers: &Servers,
    asker: &Asker,
    operation: Operation,
    ecdsa: EcdsaProtocol,
) -> Result<Measured, String> {
    let [_, single, many] = operation.times(ecdsa);
    // The first ones open connections and lanes.
    once(asker, operation).await?;
    let mut latencies = Vec::new();
    for _ in 0..single {
        latencies.push(once(asker, operation).await?);
    }
    latencies.sort();
    let percentile = |of: usize| latencies[(latencies.len() - 1) * of / 100];

    let cpu = || -> Result<(Duration, Duration), String> {
        let nodes =
            cluster.nodes.iter().filter_map(e2e::cluster::Node::process_id).map(cpu_of).sum::<Result<Duration, _>>();
        Ok((nodes?, servers.nats.process_id().map_or(Ok(Duration::ZERO), cpu_of)?))
    };
    let (before, began) = (cpu()?, Instant::now());
    let outcomes: Vec<_> =
        stream::iter(0..many).map(|_| once(asker, operation)).buffer_unordered(IN_FLIGHT).collect().await;
    let (took, after) = (began.elapsed(), cpu()?);
    outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
    let times = u32::try_from(many).unwrap_or(u32::MAX);
    Ok(Measured {
        p50: percentile(50),
        p99: percentile(99),
        per_second: f64::from(times) / took.as_secs_f64(),
        nodes: (after.0 - before.0) / times,
        nats: (after.1 - before.1) / times,
    })
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

fn own_cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// User and system time of a process.
fn cpu_of(process: u32) -> Result<Duration, String> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // The fields after the program's name, which may hold spaces: state is number 3, utime 14 and stime 15.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u32>().ok());
    let (user, system) = ticks(14).zip(ticks(15)).ok_or_else(|| format!("{path}: {text:?}"))?;
    Ok(Duration::from_secs(1) * (user + system) / TICKS_PER_SECOND)
}

fn shown(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    if millis < 100.0 { format!("{millis:.2} ms") } else { format!("{millis:.0} ms") }
}
