//! A cluster of node processes, made by the program's own commands as an operator would make it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use mpcium_client::{
    Prefix,
    attest::Attesters,
    auth::Algorithm,
    client::{Client, Options},
    signer::LocalSigner,
};
use mpcium_core::{Secret, protocol::EcdsaProtocol};
use serde_json::Value;

use crate::{
    process::{Process, tail},
    programs,
    secrets::Secrets,
    servers::{Server, Servers},
    store::OpenStore,
    wait::{self, PATIENCE},
};

/// How long making auxiliary data may take on a busy machine.
const PROVISIONING_MAX: Duration = Duration::from_secs(400);
/// What a process must say before it accepts published primes.
pub const TEST_PRIMES_VARIABLE: &str = "MPCIUM_ACCEPT_PUBLISHED_TEST_PRIMES";

/// One node: its folder, and its process while it runs.
#[derive(Debug)]
pub struct Node {
    /// Its name in `peers.json`.
    pub name: String,
    /// Its id in `peers.json`.
    pub id: String,
    /// The folder in which it is started.
    pub home: PathBuf,
    /// Where its output is, over all its starts.
    pub log: PathBuf,
    process: Option<Process>,
}

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// Further arguments of `mpcium start`.
    pub arguments: Vec<String>,
    /// Environment variables, which override the configuration file.
    pub variables: Vec<(&'static str, String)>,
    /// With the log of production, for measuring.
    pub quiet: bool,
}

impl Node {
    /// Whether it has been started and not stopped or killed.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// The id of its process, while it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// The folder that holds its store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.home.join("db").join(format!("{}.mpcium", self.name)).join("store")
    }

    /// The password of its store, as its configuration has it.
    ///
    /// # Errors
    /// If the configuration cannot be read or has none.
    pub fn store_password(&self) -> Result<String, String> {
        let config = read(&self.home.join("config.yaml"))?;
        let found = config.lines().find_map(|line| line.strip_prefix("store_password: "));
        let password = found.ok_or_else(|| format!("{}: no store password", self.name))?;
        Ok(password.trim_matches('"').to_owned())
    }

    /// Another process with the same identity, in a folder that holds the same files or a copy of them; not started.
    #[must_use]
    pub fn twin(&self, home: &Path, log: &Path) -> Self {
        let (name, id) = (self.name.clone(), self.id.clone());
        Self { name, id, home: home.to_owned(), log: log.to_owned(), process: None }
    }

    /// Starts the process. One that runs is left alone.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&mut self) -> Result<(), String> {
        self.start_with(&StartOptions::default())
    }

    /// Starts the process with further arguments and variables, and with a full log, so that a failure tells more and
    /// the search for secrets sees everything. One that runs is left alone.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_with(&mut self, options: &StartOptions) -> Result<(), String> {
        if self.runs() {
            return Ok(());
        }
        let primes = programs::test_primes();
        let mut command = programs::command(&["start", "-n", &self.name])?;
        command.args((!options.quiet).then_some("--debug"));
        command.arg("--primes").arg(&primes).args(&options.arguments).env(TEST_PRIMES_VARIABLE, "yes");
        command.envs(options.variables.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(&self.name, command, &self.home, &self.log)?);
        Ok(())
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    /// If it does not end in time or ends with an error.
    pub async fn stop(&mut self) -> Result<(), String> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let status = process.stop(PATIENCE).await?;
        if status.success() { Ok(()) } else { Err(format!("{} stopped with {status}", self.name)) }
    }

    /// Waits until it has ended by itself, and returns what it printed since it was started.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn end(&mut self, from: usize) -> Result<(bool, String), String> {
        let mut process = self.process.take().ok_or_else(|| format!("{} does not run", self.name))?;
        let status = process.wait(PATIENCE).await?;
        Ok((status.success(), self.printed(from)))
    }

    /// Whether the process has ended although nobody stopped it.
    #[must_use]
    pub fn has_crashed(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| !matches!(process.ended(), Ok(None)))
    }

    /// What it has printed, from byte `from` of its log on.
    #[must_use]
    pub fn printed(&self, from: usize) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
    }

    /// Bytes of its log.
    #[must_use]
    pub fn log_length(&self) -> usize {
        std::fs::metadata(&self.log).map_or(0, |file| usize::try_from(file.len()).unwrap_or(usize::MAX))
    }

    /// What `mpcium status --json` answers.
    ///
    /// # Errors
    /// If no process answers.
    pub fn status(&self) -> Result<Value, String> {
        let text = programs::run(&self.home, &["status", "-n", &self.name, "--json"])?;
        serde_json::from_str(&text).map_err(|error| format!("the status of {} is not JSON: {error}", self.name))
    }

    /// Its alarms, as the status shows them.
    ///
    /// # Errors
    /// As [`Node::status`].
    pub fn alarms(&self) -> Result<Vec<String>, String> {
        let status = self.status()?;
        let alarms = status.pointer("/node/alarms").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(alarms.iter().map(|alarm| alarm.as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Whether it takes requests and reaches `peers` others.
    fn check_ready(&self, peers: usize) -> Result<(), String> {
        let status = self.status()?;
        let ready = status.pointer("/node/ready").and_then(Value::as_bool).unwrap_or(false);
        let all = status.pointer("/node/peers").and_then(Value::as_array).cloned().unwrap_or_default();
        let up = all.iter().filter(|peer| peer["up"] == Value::Bool(true)).count();
        if ready && up >= peers { Ok(()) } else { Err(format!("{}: {status}", self.name)) }
    }

    fn check_provisioned(&self, members: usize) -> Result<(), String> {
        let status = self.status()?;
        let sets = status.pointer("/node/auxiliary_sets").and_then(Value::as_array).cloned().unwrap_or_default();
        let agreed = |of: usize| {
            let of = |set: &&Value| set["members"].as_array().is_some_and(|all| all.len() == of);
            sets.iter().filter(|set| set["agreed"] == Value::Bool(true)).filter(of).count()
        };
        // One set of all members, or one with each other member.
        let whole = agreed(members) > 0 || agreed(2) + 1 >= members;
        if whole { Ok(()) } else { Err(format!("{}: {status}", self.name)) }
    }
}

/// The nodes of one cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The folder that holds everything: peers, the initiator's key, one folder per node.
    pub folder: PathBuf,
    /// The nodes, in the order of their names.
    pub nodes: Vec<Node>,
    /// What stands before its names on the bus.
    pub prefix: Prefix,
    nats: String,
}

impl Cluster {
    /// Makes the folders of `number` nodes with `mpcium generate-configs` and appends `settings` to each
    /// configuration; starts nothing.
    ///
    /// # Errors
    /// If the command fails or writes something unexpected.
    pub fn generate(
        folder: &Path,
        number: usize,
        servers: &Servers,
        ecdsa: EcdsaProtocol,
        settings: &str,
    ) -> Result<Self, String> {
        let nats = format!("nats://{}", servers.nats.address());
        Self::generate_with(folder, number, (&nats, &servers.consul.address()), ecdsa, settings, &[])
    }

    /// As [`Cluster::generate`], with the addresses of NATS (several separated by commas) and Consul, and with further
    /// arguments of `mpcium generate-configs`.
    ///
    /// # Errors
    /// As [`Cluster::generate`].
    pub fn generate_with(
        folder: &Path,
        number: usize,
        (nats, consul): (&str, &str),
        ecdsa: EcdsaProtocol,
        settings: &str,
        further: &[&str],
    ) -> Result<Self, String> {
        let root = folder.join("cluster");
        let (number, name) = (number.to_string(), root.to_string_lossy());
        let arguments = ["-o", &name, "-n", &number, "--nats", nats, "--consul", consul, "--ecdsa", ecdsa.name()];
        programs::run(folder, &[["generate-configs"].as_slice(), &arguments, further].concat())?;
        let peers: BTreeMap<String, String> =
            serde_json::from_str(&read(&root.join("peers.json"))?).map_err(|error| format!("peers.json: {error}"))?;
        let mut nodes = Vec::new();
        for (name, id) in peers {
            let home = root.join(&name);
            let config = home.join("config.yaml");
            let text = read(&config)? + settings;
            std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
            let log = folder.join(format!("{name}.log"));
            nodes.push(Node { name, id, home, log, process: None });
        }
        let prefix = further.iter().skip_while(|argument| **argument != "--nats-prefix").nth(1);
        let prefix = Prefix::parse(prefix.unwrap_or(&"")).map_err(|error| error.to_string())?;
        Ok(Self { folder: root, nodes, prefix, nats: nats.to_owned() })
    }

    /// How many times a node took out a presignature to sign with it: each signature from one counts once per signer.
    ///
    /// # Errors
    /// If a node does not answer.
    pub fn presignatures_used(&self) -> Result<u64, String> {
        let used = |node: &Node| Ok(node.status()?["node"]["presignatures"]["used"].as_u64().unwrap_or(0));
        self.nodes.iter().map(used).sum()
    }

    /// Waits until every presignature is there that the nodes want.
    ///
    /// # Errors
    /// If that does not come.
    pub async fn presigned(&self) -> Result<(), String> {
        wait::until_sync("presignatures", PATIENCE, || {
            for node in &self.nodes {
                let status = node.status()?;
                let held = &status["node"]["presignatures"];
                if held["missing"] != 0 || held["making"] != 0 {
                    return Err(format!("{} has {held} and runs {}", node.name, status["node"]["sessions"]));
                }
            }
            Ok(())
        })
        .await
    }

    /// Writes the nodes into Consul, once it has a leader.
    ///
    /// # Errors
    /// If it does not take them in time.
    pub async fn register(&self) -> Result<(), String> {
        wait::until_sync("Consul to take the peers", PATIENCE, || {
            programs::run(&self.folder, &["register-peers", "-p", "peers.json"]).map(drop)
        })
        .await
    }

    /// Starts the nodes that do not run.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start(&mut self) -> Result<(), String> {
        self.nodes.iter_mut().try_for_each(Node::start)
    }

    /// Waits until every running node takes requests and reaches every other running one.
    ///
    /// # Errors
    /// If one does not in time, or has crashed.
    pub async fn ready(&mut self) -> Result<(), String> {
        self.ready_within(PATIENCE).await
    }

    /// The same for nodes that may need longer: one that was rolled back takes no part until the longest signing deadline
    /// has passed.
    ///
    /// # Errors
    /// As [`ready`](Self::ready).
    pub async fn ready_within(&mut self, patience: Duration) -> Result<(), String> {
        let others = self.nodes.iter().filter(|node| node.runs()).count().saturating_sub(1);
        for node in self.nodes.iter_mut().filter(|node| node.runs()) {
            let what = format!("{} to be ready with {others} others", node.name);
            let seen = wait::until_sync(&what, patience, || {
                if node.has_crashed() { Ok(true) } else { node.check_ready(others).map(|()| false) }
            });
            if seen.await? {
                return Err(format!("{} has ended by itself", node.name));
            }
        }
        Ok(())
    }

    /// Waits until every node has the auxiliary data of the whole cluster, without which ECDSA signatures wait.
    ///
    /// # Errors
    /// If one has not in time.
    pub async fn provisioned(&self) -> Result<(), String> {
        for node in &self.nodes {
            let what = format!("auxiliary data at {}", node.name);
            wait::until_sync(&what, PROVISIONING_MAX, || node.check_provisioned(self.nodes.len())).await?;
        }
        Ok(())
    }

    /// The nodes that have ended although nobody stopped them.
    pub fn crashed(&mut self) -> Vec<String> {
        self.nodes.iter_mut().filter_map(|node| node.has_crashed().then(|| node.name.clone())).collect()
    }

    /// Brings servers and nodes back to the state in which scenarios begin.
    ///
    /// # Errors
    /// If they do not come back, or a node had crashed (it is started again all the same).
    pub async fn heal(&mut self, servers: &mut Servers) -> Result<(), String> {
        let crashed = self.crashed();
        for node in self.nodes.iter_mut().filter(|node| crashed.contains(&node.name)) {
            node.kill();
        }
        servers.start().await?;
        self.start()?;
        self.ready().await?;
        if crashed.is_empty() { Ok(()) } else { Err(format!("ended by themselves: {}", crashed.join(", "))) }
    }

    /// The initiator's key file.
    #[must_use]
    pub fn initiator_key(&self) -> PathBuf {
        self.folder.join("event_initiator.key")
    }

    /// A client that signs with the initiator's key.
    ///
    /// # Errors
    /// If NATS cannot be reached or the key cannot be read.
    pub async fn client(&self) -> Result<Client, String> {
        self.connect(&self.initiator_key(), Options { attesters: Some(self.attesters()?), ..Options::default() }).await
    }

    /// A client that signs with the key in a file.
    ///
    /// # Errors
    /// If NATS cannot be reached or the key cannot be read.
    pub async fn client_with(&self, key: &Path) -> Result<Client, String> {
        self.connect(key, Options::default()).await
    }

    async fn connect(&self, key: &Path, options: Options) -> Result<Client, String> {
        let signer = LocalSigner::read(Algorithm::Ed25519, key, None).map_err(|error| error.to_string())?;
        let options = Options { prefix: self.prefix.clone(), ..options };
        Client::new(self.nats().await?, signer, options).await.map_err(|error| error.to_string())
    }

    /// The nodes, of which as many as sign together must have signed what clients believe.
    ///
    /// # Errors
    /// If the files of the first node cannot be read.
    pub fn attesters(&self) -> Result<Attesters, String> {
        let home = self.nodes.first().map(|node| node.home.clone()).unwrap_or_default();
        let signers = self.nodes.len() / 2 + 1;
        Attesters::read(&home.join("peers.json"), &home.join("identity"), signers).map_err(|error| error.to_string())
    }

    /// Where the cluster's bus is; several servers are separated by commas.
    #[must_use]
    pub fn nats_url(&self) -> &str {
        &self.nats
    }

    /// The value of a key at the top of the first node's configuration.
    ///
    /// # Errors
    /// If the file cannot be read or has no such key.
    pub fn setting(&self, key: &str) -> Result<String, String> {
        let node = self.nodes.first().ok_or("there is no node")?;
        let config = read(&node.home.join("config.yaml"))?;
        let found = config.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        found.map(|value| value.trim_matches('"').to_owned()).ok_or_else(|| format!("{}: no {key}", node.name))
    }

    /// The nodes' configuration files, in the nodes' order.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn configurations(&self) -> Result<Vec<String>, String> {
        self.nodes.iter().map(|node| read(&node.home.join("config.yaml"))).collect()
    }

    /// Stops all nodes, gives each its configuration, starts them and waits until they are ready.
    ///
    /// # Errors
    /// If a node does not stop, its file cannot be written, or the nodes do not become ready.
    pub async fn restart_with(&mut self, configurations: &[String]) -> Result<(), String> {
        for (node, configuration) in self.nodes.iter_mut().zip(configurations) {
            node.stop().await?;
            let path = node.home.join("config.yaml");
            std::fs::write(&path, configuration).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        self.start()?;
        self.ready().await
    }

    /// A connection to the cluster's bus.
    ///
    /// # Errors
    /// If NATS cannot be reached.
    pub async fn nats(&self) -> Result<async_nats::Client, String> {
        let servers: Vec<&str> = self.nats.split(',').collect();
        async_nats::connect(servers.as_slice()).await.map_err(|error| format!("{}: {error}", self.nats))
    }

    /// Everything secret that the tests know of, the contents of the stores included: what must never be in a log nor pass
    /// on the bus. The nodes must have been stopped.
    ///
    /// # Errors
    /// If a file or a store cannot be read, or there is less of it than a cluster has that has made a wallet and can sign.
    pub fn secrets(&self) -> Result<Secrets, String> {
        let mut secrets = Secrets::default();
        secrets.add("the initiator's key", read(&self.initiator_key())?.trim().as_bytes())?;
        let mut shared = BTreeMap::new();
        for node in &self.nodes {
            let key = read(&node.home.join("identity").join(format!("{}_private.key", node.name)))?;
            // Seed and public key in hexadecimal; only the seed is secret.
            let seed = key.get(..64).ok_or_else(|| format!("{}: the private key is too short", node.name))?;
            secrets.add(&format!("the identity of {}", node.name), seed.as_bytes())?;
            let password = node.store_password()?;
            secrets.add(&format!("the store password of {}", node.name), password.as_bytes())?;
            // One for all nodes, mostly.
            let config = read(&node.home.join("config.yaml"))?;
            for (section, key, value) in secret_settings(&config) {
                shared.entry(value.to_owned()).or_insert_with(|| format!("{section} {key}"));
            }
            let stored = OpenStore::open(&node.store(), &Secret::new(password.into_bytes()))
                .and_then(|mut store| store.secrets())
                .map_err(|error| format!("{}: {error}", node.name))?;
            for kind in ["a share of Secp256k1", "a share of Ed25519", "the auxiliary set"] {
                if !stored.iter().any(|(name, _)| name.starts_with(kind)) {
                    return Err(format!("the store of {} does not hold {kind}", node.name));
                }
            }
            for (name, secret) in stored {
                secrets.add(&format!("{name} of {}", node.name), secret.expose())?;
            }
        }
        shared.into_iter().try_for_each(|(value, name)| secrets.add(&name, value.as_bytes()))?;
        Ok(secrets)
    }

    /// The ends of all logs, for a failure.
    #[must_use]
    pub fn logs(&self, servers: &Servers) -> String {
        self.logs_with(&[&servers.nats, &servers.consul])
    }

    /// The ends of the nodes' logs and of those of some servers, for a failure.
    #[must_use]
    pub fn logs_with(&self, servers: &[&Server]) -> String {
        let of = |server: &&Server| (server.log(), server.log().display().to_string());
        let nodes = self.nodes.iter().map(|node| (node.log.clone(), node.name.clone()));
        nodes
            .chain(servers.iter().map(of))
            .map(|(log, name)| format!("---- end of the log of {name}\n{}\n", tail(&log)))
            .collect()
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The passwords and tokens of a configuration's servers, and the chain code: section, key and value.
fn secret_settings(config: &str) -> Vec<(&str, &str, &str)> {
    let mut found = Vec::new();
    let mut section = "";
    for line in config.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        if !key.starts_with([' ', '#']) {
            section = key;
        }
        let (key, value) = (key.trim(), value.trim().trim_matches('"'));
        let secret = match section {
            "nats" | "consul" => ["password", "token"].contains(&key),
            _ => key == "chain_code",
        };
        if secret && !value.is_empty() {
            found.push((section, key, value));
        }
    }
    found
}
