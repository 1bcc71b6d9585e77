//! `mpcium demo`: a cluster of three nodes in this process creates a wallet, signs for three chains, loses a node and
//! signs again. Everything is real but the bus; every signature is verified with libraries that know nothing of it.

mod cluster;
mod verify;

use std::{
    collections::BTreeSet,
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant, SystemTime},
};

use futures::{StreamExt as _, channel::mpsc};
use indicatif::{ProgressBar, ProgressStyle};
use mpcium_core::report::Report;
use sha2::{Digest as _, Sha256};

use self::cluster::{Cluster, Fact, NODES, THRESHOLD, name};
use crate::{
    addresses::SecpPoint,
    cli::Demo,
    keys, primes,
    wallet::{WalletView, public_keys},
};

/// How long the nodes may take to find each other.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long a signature or a wallet may take.
const ANSWER_MAX: Duration = Duration::from_secs(180);
/// How long the primes and the auxiliary data may take; slow machines take many minutes.
const AUXILIARY_MAX: Duration = Duration::from_secs(3600);
/// The wallet.
const WALLET: &str = "demo-wallet";

/// Runs the demonstration.
///
/// # Errors
/// Whatever did not work.
pub fn run(options: &Demo) -> Result<(), String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?
        .block_on(demonstrate(options))
}

async fn demonstrate(options: &Demo) -> Result<(), String> {
    let primes = options.primes.as_deref().map(primes::read).transpose()?;
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    println!("A cluster of {NODES} nodes in this process; any {THRESHOLD} of them sign, no one of them can.");
    println!("Each keeps its shares in an encrypted store of its own below {}.", folder.path().display());
    match &primes {
        Some(primes) if primes.published => {
            println!("TEST PRIMES: safe primes come from a published file. Fine for a demonstration, nothing else.");
        }
        Some(_) => println!("Safe primes come from a file."),
        None => println!("Each node makes its own safe primes in the background, which takes a minute or more."),
    }
    let (cluster, facts) = Cluster::start(folder.path(), primes.as_ref())?;
    let mut facts = Facts::new(facts, options.log.as_deref())?;
    let mut show = Show { cluster, wallet: None };
    show.all_ready(&mut facts).await?;
    let (secp256k1, ed25519) = show.create_wallet().await?;
    show.sign_solana(&ed25519).await?;
    show.auxiliary(&mut facts).await?;
    show.sign_ethereum(&secp256k1).await?;
    show.sign_bitcoin(&secp256k1).await?;

    let lost = NODES - 1;
    println!("\nPulling the plug of {}.", name(lost));
    show.cluster.stop_node(lost)?;
    println!("{} of {NODES} nodes are left.", show.cluster.running());
    show.sign_solana(&ed25519).await?;
    show.sign_ethereum(&secp256k1).await?;
    show.sign_bitcoin(&secp256k1).await?;
    println!("\nEvery signature verified, and no machine ever held a whole private key.");
    if options.keep {
        show.prompt().await?;
    }
    // The nodes' threads end with the process; only what they have stored would matter, and that is thrown away.
    Ok(())
}

/// What the nodes report, also written to a file if one was asked for.
struct Facts {
    receiver: mpsc::UnboundedReceiver<Fact>,
    log: Option<std::fs::File>,
}

impl Facts {
    fn new(receiver: mpsc::UnboundedReceiver<Fact>, log: Option<&std::path::Path>) -> Result<Self, String> {
        let log = log
            .map(|path| std::fs::File::create(path).map_err(|error| format!("{}: {error}", path.display())))
            .transpose()?;
        Ok(Self { receiver, log })
    }

    /// Reads facts until the function has what it wants.
    async fn until<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(usize, &Report) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let next = tokio::time::timeout_at(deadline, self.receiver.next());
            let Fact { node, at, report } = match next.await {
                Ok(Some(fact)) => fact,
                Ok(None) => return Err("the cluster has ended".to_owned()),
                Err(_) => return Err(format!("no {what} within {} s", patience.as_secs())),
            };
            self.write(node, at, &report)?;
            if let Report::Alarm { what } = &report {
                return Err(format!("{}: {what}", name(node)));
            }
            if let Some(found) = look(node, &report) {
                return Ok(found);
            }
        }
    }

    fn write(&mut self, node: usize, at: SystemTime, report: &Report) -> Result<(), String> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let time = keys::timestamp_millis(at);
        writeln!(log, "{time} {} {report}", name(node)).map_err(|error| format!("the log cannot be written: {error}"))
    }
}

/// The demonstration as it goes along.
struct Show {
    cluster: Cluster,
    wallet: Option<WalletView>,
}

impl Show {
    async fn all_ready(&self, facts: &mut Facts) -> Result<(), String> {
        let started = Instant::now();
        let mut ready = [false; NODES];
        let mut links = BTreeSet::new();
        facts
            .until("complete cluster", READY_MAX, |node, report| {
                match report {
                    Report::Ready { .. } => ready.iter_mut().skip(node).take(1).for_each(|known| *known = true),
                    Report::NotReady { .. } => ready.iter_mut().skip(node).take(1).for_each(|known| *known = false),
                    Report::LinkUp { peer, .. } => {
                        links.insert((node, peer.clone()));
                    }
                    Report::LinkDown { peer, .. } => {
                        links.remove(&(node, peer.clone()));
                    }
                    _ => {}
                }
                // Ready means that enough nodes answer; a wallet needs them all.
                (ready.iter().all(|known| *known) && links.len() == NODES * (NODES - 1)).then_some(())
            })
            .await?;
        println!("All nodes have found and authenticated each other after {}.", lasted(started));
        Ok(())
    }

    async fn create_wallet(&mut self) -> Result<(SecpPoint, [u8; 32]), String> {
        let started = Instant::now();
        let result = self.cluster.create_wallet(WALLET, ANSWER_MAX).await?;
        let view = WalletView::new(&result)?;
        println!("\nCreated wallet {WALLET:?} in {}: one key on each curve, shared among all nodes.", lasted(started));
        println!("  Ethereum  {}", view.ethereum_address);
        println!("  Bitcoin   {}", view.bitcoin_address);
        println!("  Solana    {}", view.solana_address);
        self.wallet = Some(view);
        public_keys(&result)
    }

    async fn sign_solana(&self, key: &[u8; 32]) -> Result<(), String> {
        let message = b"a Solana transaction";
        let started = Instant::now();
        let result = self.cluster.sign(WALLET, "ed25519", message, ANSWER_MAX).await?;
        let signature = verify::ed25519(key, message, &result)?;
        println!("\nSigned for Solana in {}; ed25519-dalek verifies it.", lasted(started));
        println!("  {signature}");
        Ok(())
    }

    async fn sign_ethereum(&self, key: &SecpPoint) -> Result<(), String> {
        let text = "an Ethereum message";
        let digest = verify::ethereum_digest(text);
        let started = Instant::now();
        let result = self.cluster.sign(WALLET, "secp256k1", &digest, ANSWER_MAX).await?;
        let (signature, signer) = verify::ethereum(key, &digest, &result)?;
        println!("\nSigned for Ethereum in {}; k256 verifies it and recovers {signer}.", lasted(started));
        println!("  {signature}");
        Ok(())
    }

    async fn sign_bitcoin(&self, key: &SecpPoint) -> Result<(), String> {
        let digest: [u8; 32] = Sha256::digest(Sha256::digest("a Bitcoin transaction")).into();
        let started = Instant::now();
        let result = self.cluster.sign(WALLET, "secp256k1", &digest, ANSWER_MAX).await?;
        let signature = verify::bitcoin(key, &digest, &result)?;
        println!("\nSigned for Bitcoin in {}; k256 verifies it (low s, DER):", lasted(started));
        println!("  {signature}");
        Ok(())
    }

    /// Waits for what ECDSA signatures need, showing how far it is.
    async fn auxiliary(&self, facts: &mut Facts) -> Result<(), String> {
        let started = Instant::now();
        let wanted: usize = self.cluster.status().await.iter().map(|status| status.ingredients.wanted).sum();
        let mut made: Vec<usize> = self.cluster.status().await.iter().map(|status| status.ingredients.pieces).collect();
        let mut agreed = [false; NODES];
        for (known, status) in agreed.iter_mut().zip(self.cluster.status().await) {
            *known = status.auxiliary_sets.iter().any(|set| set.agreed);
        }
        if agreed.iter().all(|known| *known) {
            return Ok(());
        }
        println!("\nECDSA needs auxiliary data, made once for this set of nodes and used by every wallet.");
        let bar = Bar::new(wanted);
        bar.show(made.iter().sum());
        facts
            .until("auxiliary data", AUXILIARY_MAX, |node, report| {
                match report {
                    Report::IngredientMade { pieces, .. } => {
                        made.iter_mut().skip(node).take(1).for_each(|known| *known = *pieces);
                        bar.show(made.iter().sum());
                    }
                    Report::AuxiliaryReady { .. } => {
                        agreed.iter_mut().skip(node).take(1).for_each(|known| *known = true);
                    }
                    Report::SessionStarted { protocol, .. } if protocol == "auxiliary" => bar.finish(),
                    _ => {}
                }
                agreed.iter().all(|known| *known).then_some(())
            })
            .await?;
        println!("The auxiliary data is ready at every node after {}.", lasted(started));
        Ok(())
    }

    /// Reads commands until the input ends.
    async fn prompt(&mut self) -> Result<(), String> {
        println!("\nThe cluster keeps running. Commands:");
        println!("  wallet NAME                        create a wallet");
        println!("  sign WALLET ed25519|secp256k1 TEXT  sign a text (secp256k1: its SHA-256)");
        println!("  status | stop N | start N | quit");
        loop {
            print!("> ");
            std::io::stdout().flush().map_err(|error| error.to_string())?;
            let Some(line) = read_line().await? else { return Ok(()) };
            let words: Vec<&str> = line.split_whitespace().collect();
            match self.command(&words).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => println!("{error}"),
            }
        }
    }

    async fn command(&mut self, words: &[&str]) -> Result<bool, String> {
        let position = |text: &str| {
            text.trim_start_matches("node")
                .parse::<usize>()
                .map_err(|_| format!("{text} is no node: 0 to {}", NODES - 1))
        };
        match words {
            [] => {}
            ["quit" | "exit"] => return Ok(false),
            ["wallet", wallet] => {
                let view = WalletView::new(&self.cluster.create_wallet(wallet, ANSWER_MAX).await?)?;
                println!("{}\n{}\n{}", view.ethereum_address, view.bitcoin_address, view.solana_address);
            }
            ["sign", wallet, key_type @ ("ed25519" | "secp256k1"), text @ ..] => {
                let text = text.join(" ");
                let tx = if *key_type == "ed25519" { text.into_bytes() } else { Sha256::digest(text).to_vec() };
                println!("{}", verify::shown(&self.cluster.sign(wallet, key_type, &tx, ANSWER_MAX).await?));
            }
            ["status"] => {
                for status in self.cluster.status().await {
                    let up = 1 + status.peers.iter().filter(|peer| peer.up).count();
                    let state = if status.ready { "ready" } else { "not ready" };
                    println!(
                        "{}: {state}, {up} of {NODES} nodes answer, {} sessions",
                        status.name,
                        status.sessions.len()
                    );
                }
            }
            ["stop", node] => self.cluster.stop_node(position(node)?)?,
            ["start", node] => self.cluster.start_node(position(node)?)?,
            _ => println!("not understood: wallet, sign, status, stop, start, quit"),
        }
        Ok(true)
    }
}

/// Reads one line on a thread of its own, because reading from a terminal cannot be interrupted.
async fn read_line() -> Result<Option<String>, String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|bytes| (bytes > 0).then_some(line))
    });
    read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Progress of the primes: a bar on a terminal, a line per step elsewhere.
struct Bar {
    bar: Option<ProgressBar>,
    wanted: usize,
}

impl Bar {
    fn new(wanted: usize) -> Self {
        let style = ProgressStyle::with_template("  safe primes [{bar:40}] {pos}/{len}  {elapsed}");
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(u64::try_from(wanted).unwrap_or(u64::MAX));
            bar.enable_steady_tick(Duration::from_secs(1));
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self { bar, wanted }
    }

    fn show(&self, made: usize) {
        match &self.bar {
            Some(bar) => bar.set_position(u64::try_from(made).unwrap_or(u64::MAX)),
            None => println!("  safe primes: {made} of {}", self.wanted),
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.finish();
            println!("  The nodes prove to each other that their numbers are sound.");
        }
    }
}

fn lasted(since: Instant) -> String {
    let elapsed = since.elapsed();
    if elapsed < Duration::from_secs(2) {
        format!("{} ms", elapsed.as_millis())
    } else {
        format!("{:.1} s", elapsed.as_secs_f64())
    }
}
