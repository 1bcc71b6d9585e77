//! What all scenarios share: the servers, the cluster, a client with a wallet, and an ear for every answer.

use std::path::{Path, PathBuf};

use e2e::{
    bus::{self, Answers, Watch},
    cluster::{Cluster, Node},
    go::{Go, GoSystem},
    load::{Asker, Load},
    programs,
    servers::Servers,
    verify::Wallet,
    wait::{self, PATIENCE},
};
use mpcium_client::{Kind, client::ClientError};
use mpcium_core::protocol::EcdsaProtocol;

/// How a scenario ended.
pub type Outcome = Result<(), String>;

/// How many nodes there are.
const NODES: usize = 3;

/// The shared cluster.
pub struct World {
    // Dropped from top to bottom: nodes end before the folder that they write into.
    pub cluster: Cluster,
    pub servers: Servers,
    pub asker: Asker,
    pub answers: Answers,
    pub nats: async_nats::Client,
    /// What passed on the bus so far.
    pub watch: Watch,
    /// Logs of processes besides the cluster's.
    pub extra_logs: Vec<PathBuf>,
    /// The Go system's own client, once it has been asked for; `None` in it where it cannot be had.
    go_system: Option<Option<GoSystem>>,
    folder: tempfile::TempDir,
}

impl World {
    /// Starts the nodes while there is no NATS yet, then NATS, and creates a wallet with the command line.
    pub async fn start(ecdsa: EcdsaProtocol) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
        let mut servers = Servers::new(folder.path())?;
        let mut cluster = Cluster::generate(folder.path(), NODES, &servers, ecdsa, "presignatures: 1\n")?;
        configure_passwords(&cluster)?;
        let started = Self::bring_up(&mut cluster, &mut servers, ecdsa).await;
        let (asker, answers, nats, watch) =
            started.map_err(|failure| format!("{failure}\n{}", cluster.logs(&servers)))?;
        Ok(Self { cluster, servers, asker, answers, nats, watch, extra_logs: Vec::new(), go_system: None, folder })
    }

    async fn bring_up(
        cluster: &mut Cluster,
        servers: &mut Servers,
        ecdsa: EcdsaProtocol,
    ) -> Result<(Asker, Answers, async_nats::Client, Watch), String> {
        servers.consul.start().await?;
        cluster.register().await?;
        cluster.start()?;
        for node in &mut cluster.nodes {
            let what = format!("{} to say that it waits for NATS", node.name);
            wait::until_sync(&what, PATIENCE, || {
                let status = node.status()?;
                check(status["starting"].as_str().is_some_and(|what| what.contains("NATS")), || status.to_string())
            })
            .await?;
            check(!node.has_crashed(), || format!("{} ended because there was no NATS", node.name))?;
        }
        servers.nats.start().await?;
        let nats = cluster.nats().await?;
        let watch = Watch::begin(&nats).await?;
        cluster.ready().await?;
        for node in &cluster.nodes {
            check(node.printed(0).contains("[READY] Node is ready"), || format!("{} prints no [READY]", node.name))?;
            let uses_primes = ecdsa == EcdsaProtocol::Cggmp24;
            check(node.status()?["test_primes"] == uses_primes, || format!("{} hides its test primes", node.name))?;
        }
        let client = cluster.client().await?;
        programs::run(&cluster.folder, &["wallet", "create", "shared", "--json", "-t", "120"])?;
        let wallet = Wallet::new(&client.create_wallet_and_wait("shared", PATIENCE).await.map_err(words)?)?;
        let answers = Answers::listen(&nats).await?;
        Ok((Asker { client, wallet }, answers, nats, watch))
    }

    /// The Go system's own client package, where the module can be had; said once where not.
    pub async fn go_system(&mut self, go: &Go) -> Result<Option<GoSystem>, String> {
        if self.go_system.is_none() {
            self.go_system = Some(go.system(self.folder.path()).await?);
        }
        Ok(self.go_system.clone().flatten())
    }

    /// Brings everything back to how scenarios begin.
    pub async fn heal(&mut self) -> Outcome {
        self.cluster.heal(&mut self.servers).await
    }

    /// Waits until every request in the queues has been settled: none may be left over, taken by a node and forgotten.
    pub async fn queues_are_settled(&self) -> Outcome {
        for kind in [Kind::Keygen, Kind::Sign, Kind::Reshare] {
            let what = format!("every {kind:?} request to be settled");
            wait::until(&what, PATIENCE, async || {
                let settled = bus::settled(&self.nats, kind).await;
                settled.map_err(|left| format!("{left}; {}", self.requests()))
            })
            .await?;
        }
        Ok(())
    }

    /// What the nodes say about the requests that they hold.
    fn requests(&self) -> String {
        let of = |node: &Node| {
            let status = node.status().unwrap_or_default();
            let requests = status.pointer("/node/requests").cloned().unwrap_or_default();
            format!("{} holds {requests}", node.name)
        };
        self.cluster.nodes.iter().map(of).collect::<Vec<_>>().join(", ")
    }

    /// A folder for files of one scenario.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        self.cluster.logs(&self.servers)
    }
}

/// Gives the nodes passwords for their servers, which ask for none and take any: so that they are there to be told.
fn configure_passwords(cluster: &Cluster) -> Outcome {
    let password = || format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let nats = format!("nats:\n  username: node\n  password: {}\n", password());
    let consul = format!("consul:\n  token: {}\n", password());
    for node in &cluster.nodes {
        let path = node.home.join("config.yaml");
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        let with = text.replacen("nats:\n", &nats, 1).replacen("consul:\n", &consul, 1);
        check(with.len() == text.len() + nats.len() + consul.len() - "nats:\nconsul:\n".len(), || {
            format!("{} has no place for passwords", path.display())
        })?;
        std::fs::write(&path, with).map_err(failed)?;
    }
    Ok(())
}

/// Fails unless it is so.
pub fn check(so: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if so { Ok(()) } else { Err(otherwise()) }
}

/// An error in words.
pub fn words(error: ClientError) -> String {
    error.to_string()
}

/// Waits until so many more requests of a load have been answered.
pub async fn progress(load: &Load, more: usize, while_what: &str) -> Outcome {
    load.progress(more, while_what).await
}
