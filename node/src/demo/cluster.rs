//! A whole cluster in one process: real stores, real workers, real protocols; only the bus is in memory.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use futures::{StreamExt as _, channel::mpsc};
use mpcium_client::{
    KeygenRequest, KeygenResult, Request, SignRequest, SigningResult, auth::Authorization, signer::LocalSigner,
};
use mpcium_core::{
    Config, Identity, NodeId, PeerInfo, Secret,
    input::RequestKind,
    node::{Node, Status},
    protocol::{EcdsaProtocol, Suites},
    report::Report,
};
use mpcium_io::{
    clock::TokioClock,
    driver::{self, Ports},
    fjall::{self, PasswordCost},
    memory::{Bus, BusOptions, PublishedResult},
    ports::{Clock as _, Inbox, Reports},
    workers::WorkerPool,
};

use crate::{keys, primes};

/// How many nodes the cluster has.
pub const NODES: usize = 3;
/// How many of them sign together.
pub const THRESHOLD: u16 = 2;
/// The client's id on the bus.
const CLIENT: &str = "demo";

/// A fact from one of the nodes.
pub struct Fact {
    /// Which node, by its position.
    pub node: usize,
    /// When it was reported.
    pub at: SystemTime,
    /// The fact.
    pub report: Report,
}

/// The cluster.
pub struct Cluster {
    folder: PathBuf,
    bus: Bus,
    signer: LocalSigner,
    configs: Vec<Config>,
    identities: Vec<Identity>,
    suites: Suites,
    running: BTreeMap<usize, Running>,
    reports: mpsc::UnboundedSender<Fact>,
    password: Secret,
}

/// One node that runs.
struct Running {
    inbox: Inbox,
    thread: std::thread::JoinHandle<Result<(), String>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({} running, {})", self.running.len(), self.folder.display())
    }
}

/// Where one node's facts go.
#[derive(Clone)]
struct Sink {
    position: usize,
    reports: mpsc::UnboundedSender<Fact>,
}

impl Reports for Sink {
    fn report(&self, report: Report) {
        // Nobody listens any more when the demonstration ends.
        let _ = self.reports.unbounded_send(Fact { node: self.position, at: SystemTime::now(), report });
    }
}

impl Cluster {
    /// Makes a cluster in `folder` and starts every node. The receiver gets what the nodes report.
    ///
    /// # Errors
    /// If a store or a thread cannot be made, or there are too few primes.
    pub fn start(
        folder: &Path,
        primes: Option<&primes::Primes>,
        ecdsa: EcdsaProtocol,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Fact>), String> {
        let signer = LocalSigner::from_seed(&keys::random_bytes::<32>()?);
        let mut identities = Vec::new();
        let mut peers = Vec::new();
        for position in 0..NODES {
            let id = NodeId::from_bytes(*uuid::Uuid::new_v4().as_bytes());
            let identity = Identity::new(id, &keys::random_bytes::<32>()?);
            peers.push(PeerInfo { id, name: name(position), key: identity.public() });
            identities.push(identity);
        }
        let chain_code = keys::random_bytes::<32>()?;
        let configs = identities
            .iter()
            .map(|identity| config(identity.id(), &peers, &signer, chain_code))
            .collect::<Result<Vec<_>, _>>()?;
        let (reports, receiver) = mpsc::unbounded();
        let password = Secret::new(keys::random_bytes::<32>()?.to_vec());
        let mut cluster = Self {
            folder: folder.to_owned(),
            bus: Bus::new(BusOptions::default()),
            signer,
            configs,
            identities,
            suites: Suites::production(ecdsa),
            running: BTreeMap::new(),
            reports,
            password,
        };
        for position in 0..NODES {
            if let Some(primes) = primes {
                let share = primes.share_of(position, &cluster.suites)?;
                primes::import(
                    &cluster.store(position),
                    &cluster.password,
                    PasswordCost::TRIVIAL,
                    &share,
                    primes.published,
                )?;
            }
            cluster.start_node(position)?;
        }
        Ok((cluster, receiver))
    }

    /// Starts one node that does not run, over the store that it has.
    ///
    /// # Errors
    /// If it runs, or its store cannot be opened.
    pub fn start_node(&mut self, position: usize) -> Result<(), String> {
        let (Some(config), Some(identity)) = (self.configs.get(position), self.identities.get(position)) else {
            return Err(format!("there is no {}", name(position)));
        };
        if self.running.contains_key(&position) {
            return Err(format!("{} runs already", name(position)));
        }
        let (config, identity) = (config.clone(), identity.clone());
        let (path, password, bus) = (self.store(position), self.password.clone(), self.bus.clone());
        let suites = self.suites.clone();
        let sink = Sink { position, reports: self.reports.clone() };
        let (inbox, events) = Inbox::new();
        let node_inbox = inbox.clone();
        let thread = std::thread::Builder::new()
            .name(name(position))
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .map_err(|error| error.to_string())?;
                let opened = fjall::open(&path, &password, fjall::Options::create_if_absent(PasswordCost::TRIVIAL))
                    .map_err(|error| error.to_string())?;
                runtime.block_on(async move {
                    let member = bus.join(config.me, node_inbox.clone());
                    let workers = NonZeroUsize::new(config.workers).unwrap_or(NonZeroUsize::MIN);
                    let ports = Ports {
                        datagrams: member.clone(),
                        requests: member.clone(),
                        results: member,
                        store: opened.store.start(node_inbox.clone()).map_err(|error| error.to_string())?,
                        workers: WorkerPool::start(workers, &node_inbox).map_err(|error| error.to_string())?,
                        clock: TokioClock::new(),
                        reports: sink,
                    };
                    let me = config.me;
                    let seed = keys::random_bytes::<32>()?;
                    let now = ports.clock.now();
                    let mut node = Node::new(config, identity, suites, opened.boot, seed, now);
                    let outcome = driver::run(&mut node, events, &ports).await;
                    bus.leave(me);
                    ports.workers.abandon();
                    outcome
                })
            })
            .map_err(|error| format!("no thread for {}: {error}", name(position)))?;
        self.running.insert(position, Running { inbox, thread });
        Ok(())
    }

    /// Stops one node at once, as if its plug had been pulled: nothing is handed over first.
    ///
    /// # Errors
    /// If it does not run, or had failed.
    pub fn stop_node(&mut self, position: usize) -> Result<(), String> {
        let Some(node) = self.running.remove(&position) else {
            return Err(format!("{} does not run", name(position)));
        };
        if let Some(config) = self.configs.get(position) {
            self.bus.leave(config.me);
        }
        node.inbox.stop();
        node.thread.join().unwrap_or_else(|_| Err(format!("{} has failed", name(position))))
    }

    /// Stops every node that runs; whether one of them had failed no longer matters.
    pub fn stop_all(&mut self) {
        for position in 0..NODES {
            let _ = self.stop_node(position);
        }
    }

    /// The running nodes' own view.
    pub async fn status(&self) -> Vec<Status> {
        let mut all = Vec::new();
        for node in self.running.values() {
            all.extend(node.inbox.status().await);
        }
        all
    }

    /// How many nodes run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Asks for a wallet and waits.
    ///
    /// # Errors
    /// The cluster's answer, or none within the time.
    pub async fn create_wallet(&self, wallet: &str, patience: Duration) -> Result<KeygenResult, String> {
        let request = KeygenRequest { wallet_id: wallet.to_owned(), ..KeygenRequest::default() };
        let results = self.send(RequestKind::Keygen, request.into())?;
        let result = find(results, patience, |result| {
            KeygenResult::from_json(&result.body)
                .ok()
                .filter(|answer| answer.wallet_id == wallet && result.subject.contains("keygen"))
        })
        .await?;
        if result.is_success() { Ok(result) } else { Err(format!("{}: {}", result.error_code, result.error_reason)) }
    }

    /// Asks for a signature and waits.
    ///
    /// # Errors
    /// The cluster's answer, or none within the time.
    pub async fn sign(
        &self,
        wallet: &str,
        key_type: &str,
        tx: &[u8],
        patience: Duration,
    ) -> Result<SigningResult, String> {
        let tx_id = uuid::Uuid::new_v4().to_string();
        let request = SignRequest {
            key_type: key_type.to_owned(),
            wallet_id: wallet.to_owned(),
            tx_id: tx_id.clone(),
            tx: Some(tx.to_vec()),
            ..SignRequest::default()
        };
        let results = self.send(RequestKind::Sign, request.into())?;
        let result = find(results, patience, |result| {
            SigningResult::from_json(&result.body).ok().filter(|answer| answer.tx_id == tx_id)
        })
        .await?;
        if result.is_success() { Ok(result) } else { Err(format!("{}: {}", result.error_code, result.error_reason)) }
    }

    /// Listens first, so that no answer is missed.
    fn send(
        &self,
        kind: RequestKind,
        mut request: Request,
    ) -> Result<mpsc::UnboundedReceiver<PublishedResult>, String> {
        request.validate().map_err(|error| error.to_string())?;
        let signature = self.signer.sign_now(&request.canonical()).map_err(|error| error.to_string())?;
        request.set_signature(signature);
        let results = self.bus.results(1);
        self.bus.request(kind, request.to_json(), Some(CLIENT.to_owned()));
        Ok(results)
    }

    fn store(&self, position: usize) -> PathBuf {
        self.folder.join(name(position))
    }
}

/// A node's name.
#[must_use]
pub fn name(position: usize) -> String {
    format!("node{position}")
}

async fn find<T>(
    results: mpsc::UnboundedReceiver<PublishedResult>,
    patience: Duration,
    matches: impl Fn(&PublishedResult) -> Option<T>,
) -> Result<T, String> {
    let mut found = std::pin::pin!(results.filter_map(|result| std::future::ready(matches(&result))));
    match tokio::time::timeout(patience, found.next()).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err("the bus has ended".to_owned()),
        Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
    }
}

fn config(me: NodeId, peers: &[PeerInfo], signer: &LocalSigner, chain_code: [u8; 32]) -> Result<Config, String> {
    Config {
        me,
        peers: peers.to_vec(),
        threshold: THRESHOLD,
        chain_code: Some(chain_code),
        initiator: signer.public_key(),
        authorization: Authorization::default(),
        max_concurrent_keygen: 2,
        max_concurrent_signing: 20,
        presignatures: 0,
        signing_deadline: Duration::from_secs(180),
        keygen_deadline: Duration::from_secs(900),
        clock_skew: Duration::from_secs(1),
        workers: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        // One auxiliary set is all that this cluster ever needs.
        ingredients_reserve: 0,
    }
    .checked()
    .map_err(|error| error.to_string())
}
