//! `mpcium benchmark`: many requests of one kind against a running cluster, measured as a client sees them.
//!
//! The report has the lines of the Go system's command, because scripts read them; `--json` gives the same numbers and
//! more. Every operation is timed from the moment its request is sent to the moment its result is here.

mod report;

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mpcium_client::{
    ReshareRequest, SignRequest,
    auth::Algorithm,
    client::{Client, ClientError},
    signer::LocalSigner,
};

use self::report::{Report, Run};
use crate::{
    cli::{Benchmark, BenchmarkKind, BenchmarkOptions, Load},
    files, keys, passwords,
    wallet::Connection,
};

/// Requests are sent this far apart.
const SPACING: Duration = Duration::from_millis(10);
/// How often the progress is told.
const PROGRESS: Duration = Duration::from_secs(10);
/// Failures that are shown one by one.
const FAILURES_SHOWN: usize = 5;

/// One operation.
#[derive(Clone)]
enum Operation {
    Keygen { wallet: String },
    Sign(SignRequest),
    Reshare(ReshareRequest),
}

/// Runs a benchmark and reports it.
///
/// # Errors
/// If the cluster cannot be reached, no operation succeeds, or the report cannot be written.
pub async fn run(config: Option<&Path>, benchmark: &Benchmark) -> Result<(), String> {
    let options = &benchmark.options;
    let (kind, load) = kind(&benchmark.what);
    let total = usize::try_from(load.n).unwrap_or(usize::MAX);
    let operations: Vec<Operation> =
        (0..total).map(|number| operation(&benchmark.what, number)).collect::<Result<_, _>>()?;
    let connection = Connection::with_signer(config, &options.bus, signer(options)?).await?;
    if options.debug {
        eprintln!("{kind}: {total} requests, {} ms apart, {} s for each", SPACING.as_millis(), load.timeout);
    }
    let started = Instant::now();
    let outcomes = carry_out(&connection.client, operations, load, started, options).await?;
    let run = Run::new(kind, load.batch_size, total, started.elapsed(), &outcomes);
    connection.close().await;

    let report = Report::new(&run, SystemTime::now());
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?);
    } else {
        print!("{report}");
    }
    let output = options.output.clone().unwrap_or_else(|| PathBuf::from("benchmark/output.txt"));
    append(&output, &format!("{report}{}\n", "=".repeat(80)))?;
    for failure in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).take(FAILURES_SHOWN) {
        eprintln!("failed: {failure}");
    }
    if run.succeeded() == 0 {
        return Err("no operation succeeded".to_owned());
    }
    Ok(())
}

/// What the report calls it, and how much of it there is.
fn kind(what: &BenchmarkKind) -> (&'static str, Load) {
    match what {
        BenchmarkKind::Keygen(load) => ("KEYGEN", *load),
        BenchmarkKind::SignEcdsa { load, .. } => ("ECDSA SIGNING", *load),
        BenchmarkKind::SignEddsa { load, .. } => ("EDDSA SIGNING", *load),
        BenchmarkKind::Reshare { load, .. } => ("RESHARE", *load),
    }
}

fn operation(what: &BenchmarkKind, number: usize) -> Result<Operation, String> {
    let id = |prefix: &str| -> Result<String, String> {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let random = hex::encode(keys::random_bytes::<8>()?);
        Ok(format!("{prefix}-{number}-{nanos}-{}-{random}", std::process::id()))
    };
    let sign = |key_type: &str, prefix: &str, wallet: &str| -> Result<Operation, String> {
        Ok(Operation::Sign(SignRequest {
            key_type: key_type.to_owned(),
            wallet_id: wallet.to_owned(),
            network_internal_code: "benchmark".to_owned(),
            tx_id: id(prefix)?,
            tx: Some(keys::random_bytes::<32>()?.to_vec()),
            ..SignRequest::default()
        }))
    };
    match what {
        BenchmarkKind::Keygen(_) => Ok(Operation::Keygen { wallet: id("benchmark-keygen")? }),
        BenchmarkKind::SignEcdsa { wallet, .. } => sign("secp256k1", "benchmark-ECDSA-sign", wallet),
        BenchmarkKind::SignEddsa { wallet, .. } => sign("ed25519", "benchmark-EdDSA-sign", wallet),
        BenchmarkKind::Reshare { wallet, new_threshold, node_ids, .. } => Ok(Operation::Reshare(ReshareRequest {
            session_id: id("benchmark-reshare")?,
            node_ids: Some(node_ids.clone()),
            new_threshold: *new_threshold,
            key_type: "secp256k1".to_owned(),
            wallet_id: wallet.clone(),
            ..ReshareRequest::default()
        })),
    }
}

fn signer(options: &BenchmarkOptions) -> Result<LocalSigner, String> {
    let path = options.key_path.clone().unwrap_or_else(|| PathBuf::from("./event_initiator.key"));
    let encrypted = options.prompt_password || path.extension().is_some_and(|extension| extension == "age");
    let at = |error: mpcium_client::signer::SignerError| format!("{}: {error}", path.display());
    let file = files::read(&path)?;
    if encrypted {
        let passphrase = passwords::prompt_identity_passphrase()?;
        return LocalSigner::parse_encrypted(Algorithm::Ed25519, &file, passphrase.expose()).map_err(at);
    }
    LocalSigner::parse(Algorithm::Ed25519, &file).map_err(at)
}

/// Sends all requests and returns what came of each: the time it took, or why it failed.
async fn carry_out(
    client: &Client,
    operations: Vec<Operation>,
    load: Load,
    started: Instant,
    options: &BenchmarkOptions,
) -> Result<Vec<Result<Duration, String>>, String> {
    let total = operations.len();
    let (done, mut results) = tokio::sync::mpsc::unbounded_channel();
    let patience = Duration::from_secs(load.timeout.saturating_mul(u64::from(load.n)));
    let client = client.clone();
    let sender = tokio::spawn(async move {
        let mut pace = tokio::time::interval(SPACING);
        for operation in operations {
            pace.tick().await;
            let (client, done) = (client.clone(), done.clone());
            tokio::spawn(async move {
                let begun = Instant::now();
                let outcome = one(&client, operation, patience).await;
                // Whoever waited has been told to stop.
                let _ = done.send(outcome.map(|()| begun.elapsed()).map_err(|error| error.to_string()));
            });
        }
    });
    let mut outcomes = Vec::with_capacity(total);
    let mut progress = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS, PROGRESS);
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(|error| format!("signals cannot be received: {error}"))?;
    while outcomes.len() < total {
        tokio::select! {
            outcome = results.recv() => match outcome {
                Some(outcome) => {
                    if options.debug && let Err(error) = &outcome {
                        eprintln!("failed: {error}");
                    }
                    outcomes.push(outcome);
                }
                None => break,
            },
            _ = progress.tick() => {
                let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
                let line = format!(
                    "{} of {total} after {} s, {failed} failed", outcomes.len(), started.elapsed().as_secs()
                );
                if options.json || std::io::stderr().is_terminal() { eprintln!("{line}") } else { println!("{line}") }
            }
            _ = interrupt.recv() => break,
        }
    }
    sender.abort();
    // What was asked for and has not come counts as failed.
    outcomes.resize_with(total, || Err("interrupted".to_owned()));
    Ok(outcomes)
}

async fn one(client: &Client, operation: Operation, patience: Duration) -> Result<(), ClientError> {
    match operation {
        Operation::Keygen { wallet } => client.create_wallet_and_wait(&wallet, patience).await.map(drop),
        Operation::Sign(request) => client.sign_and_wait(request, patience).await.map(drop),
        Operation::Reshare(request) => client.reshare_and_wait(request, patience).await.map(drop),
    }
}

/// Adds the report to the file of all reports.
fn append(path: &Path, text: &str) -> Result<(), String> {
    let at = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(at)?;
    }
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(at)?;
    file.write_all(text.as_bytes()).map_err(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { n: 3, timeout: 60, batch_size: 10 };

    #[test]
    fn ids_are_those_of_the_existing_command_and_never_repeat() {
        let what = BenchmarkKind::SignEddsa { load: LOAD, wallet: "w".to_owned() };
        let mut ids = Vec::new();
        for _ in 0..10 {
            let Operation::Sign(request) = operation(&what, 7).expect("made") else { panic!("a signature") };
            assert_eq!((request.network_internal_code.as_str(), request.wallet_id.as_str()), ("benchmark", "w"));
            assert_eq!(request.tx.map(|tx| tx.len()), Some(32));
            ids.push(request.tx_id);
        }
        let parts: Vec<&str> = ids[0].split('-').collect();
        assert_eq!(parts[..4], ["benchmark", "EdDSA", "sign", "7"]);
        assert_eq!((parts.len(), parts[6].len()), (7, 16));
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 10);
    }

    #[test]
    fn reports_are_added_to_what_is_there() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("benchmark/output.txt");
        append(&path, "one\n").expect("written");
        append(&path, "two\n").expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "one\ntwo\n");
    }
}
