//! `mpcium demo`: a cluster of three nodes in this process creates a wallet, signs for three chains, loses a node and
//! signs again. Everything is real but the bus; every signature is verified with libraries that know nothing of it.
//!
//! Nothing is left behind: whatever ends the demonstration, a signal included, stops the nodes and removes their folder.

mod cluster;
mod progress;
mod prompt;
mod watch;

use std::time::{Duration, Instant};

use mpcium_client::SigningResult;
use mpcium_core::protocol::EcdsaProtocol;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    cluster::{Cluster, NODES, THRESHOLD, name},
    progress::{Progress, lasted},
    watch::Watch,
};
use crate::{
    addresses::SecpPoint,
    cli::Demo,
    primes, verify,
    wallet::{WalletView, public_keys},
};

/// How long the nodes may take to find each other.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long a signature or a wallet may take.
const ANSWER_MAX: Duration = Duration::from_secs(180);
/// How long a node's own report of an answer may come after the answer.
const REPORT_MAX: Duration = Duration::from_secs(10);
/// How long the primes and the auxiliary data may take; slow machines take many minutes.
const AUXILIARY_MAX: Duration = Duration::from_secs(3600);
/// The wallet.
const WALLET: &str = "demo-wallet";

/// Runs the demonstration.
///
/// # Errors
/// Whatever did not work.
pub fn run(options: &Demo) -> Result<(), String> {
    // The stores below the temporary folder are for their owner only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let primes = options.primes.as_deref().map(primes::read).transpose()?;
    let folder = tempfile::Builder::new()
        .prefix("mpcium-demo-")
        .tempdir()
        .map_err(|error| format!("no temporary folder: {error}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let outcome = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        println!(
            "Three nodes in this process, each with an encrypted store of its own in {}.",
            folder.path().display()
        );
        println!("Any {THRESHOLD} of them can sign. No one of them can, and nobody ever holds a whole private key.");
        match &primes {
            _ if options.ecdsa == EcdsaProtocol::Dkls23 => {
                println!(
                    "ECDSA signatures with DKLs23, which needs no safe primes (--ecdsa cggmp24 for the other protocol)."
                );
            }
            Some(primes) if primes.published => {
                println!("TEST PRIMES: the safe primes are published ones. Fine for a demonstration, nothing else.");
            }
            Some(_) => println!("The safe primes come from a file."),
            None => println!("Each node makes its own safe primes in the background, which takes some minutes."),
        }
        let (cluster, facts) = Cluster::start(folder.path(), primes.as_ref(), options.ecdsa)?;
        let watch = Watch::start(facts, options.log.as_deref())?;
        let mut show = Show { cluster, watch, step: 0, ecdsa: options.ecdsa };
        let outcome = tokio::select! {
            outcome = show.play(options.keep) => outcome,
            _ = interrupt.recv() => Err("interrupted".to_owned()),
            _ = terminate.recv() => Err("told to stop".to_owned()),
        };
        show.cluster.stop_all();
        outcome
    });
    // A thread that waits for a line from the terminal is not waited for.
    runtime.shutdown_background();
    let path = folder.path().to_owned();
    let removed = folder.close().map_err(|error| format!("{} could not be removed: {error}", path.display()));
    outcome.and(removed)
}

/// The demonstration as it goes along.
struct Show {
    cluster: Cluster,
    watch: Watch,
    step: usize,
    ecdsa: EcdsaProtocol,
}

impl Show {
    async fn play(&mut self, keep: bool) -> Result<(), String> {
        self.headline("The nodes find and authenticate each other");
        let started = Instant::now();
        self.watch.until("complete cluster", READY_MAX, watch::Seen::complete).await?;
        println!("   node0, node1 and node2 are linked, every pair with keys of its own, after {}.", lasted(started));

        self.headline("A wallet: a secp256k1 and an Ed25519 key, both shared among the three nodes");
        let (secp256k1, ed25519) = self.create_wallet().await?;

        self.headline("A signature for Solana (Ed25519 needs no preparation)");
        self.sign_solana(&ed25519).await?;

        self.headline("Auxiliary data for ECDSA, made once by these nodes and then used by every wallet");
        self.auxiliary().await?;

        self.headline("Signatures for Ethereum and Bitcoin (ECDSA on secp256k1)");
        self.sign_ethereum(&secp256k1).await?;
        self.sign_bitcoin(&secp256k1).await?;

        let lost = NODES - 1;
        self.headline(&format!("{} loses its power; the other two sign for all three chains", name(lost)));
        self.cluster.stop_node(lost)?;
        self.sign_solana(&ed25519).await?;
        self.sign_ethereum(&secp256k1).await?;
        self.sign_bitcoin(&secp256k1).await?;

        println!("\nAll six signatures verified with {} of {NODES} nodes still running.", self.cluster.running());
        if keep {
            prompt::run(&mut self.cluster).await?;
        }
        Ok(())
    }

    fn headline(&mut self, text: &str) {
        self.step += 1;
        println!("\n{}. {text}", self.step);
    }

    async fn create_wallet(&mut self) -> Result<(SecpPoint, [u8; 32]), String> {
        let started = Instant::now();
        let result = self.cluster.create_wallet(WALLET, ANSWER_MAX).await?;
        let view = WalletView::new(&result)?;
        println!("   {WALLET} exists after {}.", lasted(started));
        println!("   Ethereum  {}", view.ethereum_address);
        println!("   Bitcoin   {}", view.bitcoin_address);
        println!("   Solana    {}", view.solana_address);
        public_keys(&result)
    }

    async fn sign_solana(&self, key: &[u8; 32]) -> Result<(), String> {
        let text = "a Solana transaction";
        let (result, how) = self.sign("ed25519", text.as_bytes()).await?;
        let signature = verify::ed25519(key, text.as_bytes(), &result)?;
        println!("   Solana    {text:?}, {how}");
        println!("             {signature}");
        println!("             ed25519-dalek verifies it");
        Ok(())
    }

    async fn sign_ethereum(&self, key: &SecpPoint) -> Result<(), String> {
        let text = "an Ethereum message";
        let digest = verify::ethereum_digest(text);
        let (result, how) = self.sign("secp256k1", &digest).await?;
        let (signature, signer) = verify::ethereum(key, &digest, &result)?;
        println!("   Ethereum  {text:?}, {how}");
        println!("             {signature}");
        println!("             k256 verifies it and recovers the signer {signer}");
        Ok(())
    }

    async fn sign_bitcoin(&self, key: &SecpPoint) -> Result<(), String> {
        let text = "a Bitcoin transaction";
        let digest: [u8; 32] = Sha256::digest(Sha256::digest(text)).into();
        let (result, how) = self.sign("secp256k1", &digest).await?;
        let signature = verify::bitcoin(key, &digest, &result)?;
        println!("   Bitcoin   {text:?}, {how}");
        println!("             {signature}");
        println!("             k256 verifies it (DER, low s)");
        Ok(())
    }

    /// A signature, and in words who made it and how long that took.
    async fn sign(&self, key_type: &str, tx: &[u8]) -> Result<(SigningResult, String), String> {
        let started = Instant::now();
        let result = self.cluster.sign(WALLET, key_type, tx, ANSWER_MAX).await?;
        let took = lasted(started);
        let answered = |seen: &watch::Seen| seen.answered.contains_key(&result.tx_id);
        let mut seen = self.watch.until("report of the signature", REPORT_MAX, answered).await?;
        let signing = seen.answered.remove(&result.tx_id).unwrap_or_default();
        let mut how = format!("signed by {} in {took}", signing.signers.join(" and "));
        if signing.attempt > 1 {
            how.push_str(", without the node that did not answer at first");
        }
        Ok((result, how))
    }

    /// Waits for what ECDSA signatures need, showing how far it is.
    async fn auxiliary(&self) -> Result<(), String> {
        let started = Instant::now();
        // A set for each pair, or one for all.
        let sets = match self.ecdsa {
            EcdsaProtocol::Dkls23 => NODES - 1,
            EcdsaProtocol::Cggmp24 => 1,
        };
        if self.ecdsa == EcdsaProtocol::Dkls23 {
            self.watch.until("auxiliary data", AUXILIARY_MAX, |seen| seen.auxiliary_ready(sets)).await?;
            println!("   Ready at every pair of nodes {} later.", lasted(started));
            return Ok(());
        }
        let (mut wanted, mut made) = (0, [0; NODES]);
        for (known, status) in made.iter_mut().zip(self.cluster.status().await) {
            *known = status.ingredients.pieces;
            wanted += status.ingredients.wanted;
        }
        let progress = Progress::new(wanted);
        let look = |seen: &watch::Seen| {
            if seen.proving || seen.auxiliary_ready(sets) {
                progress.proving();
            } else {
                // What a node had before it first reported, it has still.
                progress.primes(seen.primes.iter().zip(made).map(|(seen, known)| known.max(*seen)).sum());
            }
            seen.auxiliary_ready(sets)
        };
        self.watch.until("auxiliary data", AUXILIARY_MAX, look).await?;
        progress.finish();
        println!("   Ready at every node after {}.", lasted(started));
        Ok(())
    }
}
