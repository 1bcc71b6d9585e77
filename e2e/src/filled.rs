//! What many wallets cost: a cluster of three whose stores hold so many, their records of the same sizes as a real
//! wallet's. `make bench BENCH=wallets:100000` prints it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use mpcium_client::KeyType;
use mpcium_core::{
    Secret,
    protocol::EcdsaProtocol,
    store::{Batch, Keyspace},
};
use mpcium_io::fjall::{Options, open};

use crate::{
    cluster::{Cluster, StartOptions},
    load::{Asker, Order},
    measure::{memory_of, percentile, shown},
    servers::Servers,
    store::OpenStore,
    verify::Wallet,
    wait::PATIENCE,
};

/// Wallets that become durable together while the stores are filled.
const WALLETS_PER_BATCH: u64 = 20_000;
/// Records that are read and written to measure one.
const SAMPLES: u64 = 500;
/// Signatures that are measured on each curve.
const SIGNATURES: usize = 200;
/// The keyspaces that grow with wallets and signatures.
const GROWING: [Keyspace; 3] = [Keyspace::Certificates, Keyspace::Shares, Keyspace::Ledger];

/// Fills the stores of a cluster with records of `wallets` wallets, each with one signature, and prints what they cost.
///
/// # Errors
/// If the cluster or a store fails.
pub async fn measure(wallets: u64) -> Result<(), String> {
    eprintln!("bench: {wallets} wallets: a cluster with one wallet ...");
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut servers = Servers::new(folder.path())?;
    servers.start().await?;
    let mut cluster = Cluster::generate(folder.path(), 3, &servers, EcdsaProtocol::Dkls23, "")?;
    cluster.register().await?;
    let quiet = StartOptions { quiet: true, ..StartOptions::default() };
    cluster.nodes.iter_mut().try_for_each(|node| node.start_with(&quiet))?;
    cluster.ready().await?;
    cluster.provisioned().await?;
    let client = cluster.client().await?;
    let made = client.create_wallet_and_wait("real", PATIENCE).await.map_err(|error| error.to_string())?;
    let asker = Asker { client, wallet: Wallet::new(&made)? };
    for key_type in [KeyType::Ed25519, KeyType::Secp256k1] {
        asker.sign_new(key_type).await?;
    }
    eprintln!("bench: {wallets} wallets: filling the stores of all nodes ...");
    let mut fillings = Vec::new();
    for node in &mut cluster.nodes {
        node.stop().await?;
        let (store, password) = (node.store(), Secret::new(node.store_password()?.into_bytes()));
        fillings.push(tokio::task::spawn_blocking(move || {
            let records = fill(&store, &password, wallets)?;
            Ok::<_, String>((store, password, records))
        }));
    }
    let mut filled = Vec::new();
    for filling in fillings {
        filled.push(filling.await.map_err(|error| error.to_string())??);
    }
    let Some((store, password, records)) = filled.pop() else { return Err("there is no node".to_owned()) };
    eprintln!("bench: {wallets} wallets: opening one of them and asking it ...");
    let cost = tokio::task::spawn_blocking(move || cost_of(&store, &password, &records, wallets));
    let mut cost = cost.await.map_err(|error| error.to_string())??;
    eprintln!("bench: {wallets} wallets: starting the nodes ...");
    let began = Instant::now();
    cluster.nodes.iter_mut().try_for_each(|node| node.start_with(&quiet))?;
    let others = u32::try_from(cluster.nodes.len()).unwrap_or(u32::MAX);
    cluster.ready_within(PATIENCE + cost.opening * others * 2).await?;
    let ready = began.elapsed();
    let (mut ed25519, mut ecdsa) = (Vec::new(), Vec::new());
    for (key_type, latencies) in [(KeyType::Ed25519, &mut ed25519), (KeyType::Secp256k1, &mut ecdsa)] {
        for _ in 0..SIGNATURES {
            let began = Instant::now();
            asker.ask(&Order::new(key_type)).await.map_err(|error| error.to_string())?;
            latencies.push(began.elapsed());
        }
    }
    let memory =
        cluster.nodes.iter().filter_map(|node| node.process_id()).map(memory_of).collect::<Result<Vec<_>, _>>()?;
    println!("wallets              {wallets}, each with its certificate, its share and one signature");
    println!("store                {:.1} MB", cost.bytes as f64 / 1e6);
    println!("opening it           {} (of which password: {})", shown(cost.opening), shown(cost.password));
    println!("three nodes ready    {} after their start", shown(ready));
    println!("memory of a node     {:.1} MB", memory.iter().max().copied().unwrap_or_default() as f64 / 1e6);
    println!(
        "reading a record     p50 {}, p99 {}",
        shown(percentile(&mut cost.reads, 50)),
        shown(percentile(&mut cost.reads, 99))
    );
    println!(
        "storing a result     p50 {}, p99 {}",
        shown(percentile(&mut cost.writes, 50)),
        shown(percentile(&mut cost.writes, 99))
    );
    println!(
        "Ed25519 signature    p50 {}, p99 {}",
        shown(percentile(&mut ed25519, 50)),
        shown(percentile(&mut ed25519, 99))
    );
    println!(
        "ECDSA signature      p50 {}, p99 {}",
        shown(percentile(&mut ecdsa, 50)),
        shown(percentile(&mut ecdsa, 99))
    );
    Ok(())
}

/// What one filled store costs.
struct Cost {
    bytes: u64,
    password: Duration,
    opening: Duration,
    reads: Vec<Duration>,
    writes: Vec<Duration>,
}

/// The name of a copy of a record.
fn copy_of(name: &[u8], number: u64) -> Vec<u8> {
    [name, &number.to_be_bytes()].concat()
}

/// A record that every wallet has a copy of.
type Copied = (Keyspace, Vec<u8>, Secret);

/// Copies the records of the one wallet in a store until there are so many; returns what was copied.
fn fill(path: &Path, password: &Secret, wallets: u64) -> Result<Vec<Copied>, String> {
    let mut filling = OpenStore::open(path, password)?;
    let mut records = Vec::new();
    for keyspace in GROWING {
        let mut found: Vec<_> =
            filling.scan(keyspace, &[])?.into_iter().map(|(name, value)| (keyspace, name, value)).collect();
        if keyspace == Keyspace::Ledger {
            found.truncate(1);
        }
        records.extend(found);
    }
    for from in (0..wallets).step_by(usize::try_from(WALLETS_PER_BATCH).unwrap_or(usize::MAX)) {
        let mut batch = Batch::default();
        for number in from..(from + WALLETS_PER_BATCH).min(wallets) {
            for (keyspace, name, value) in &records {
                batch.put(*keyspace, copy_of(name, number), value.expose().to_vec());
            }
        }
        filling.persist(batch)?;
    }
    Ok(records)
}

/// Opens a filled store and asks it for records of all wallets.
fn cost_of(path: &Path, password: &Secret, records: &[Copied], wallets: u64) -> Result<Cost, String> {
    let began = Instant::now();
    // Refused after the password has been derived.
    let wrong = Secret::new(b"not the password".to_vec());
    if open(path, &wrong, Options::existing()).is_ok() {
        return Err("the store opens with any password".to_owned());
    }
    let password_takes = began.elapsed();
    let began = Instant::now();
    let mut filling = OpenStore::open(path, password)?;
    let opening = began.elapsed();
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        // Spread over all wallets.
        let number = sample.wrapping_mul(0x9e37_79b9_7f4a_7c15) % wallets.max(1);
        for (keyspace, name, value) in records.iter().filter(|_| wallets > 0) {
            let began = Instant::now();
            let found = filling.load(*keyspace, copy_of(name, number))?;
            reads.push(began.elapsed());
            if found.as_ref() != Some(value) {
                return Err(format!("a record of {} is not what was stored", keyspace.name()));
            }
        }
        let mut batch = Batch::default();
        batch.put(Keyspace::Ledger, copy_of(b"sample", sample), vec![7; 400]);
        let began = Instant::now();
        filling.persist(batch)?;
        writes.push(began.elapsed());
    }
    drop(filling);
    Ok(Cost { bytes: size(path)?, password: password_takes, opening, reads, writes })
}

/// Bytes of all files below a folder.
fn size(path: &Path) -> Result<u64, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
