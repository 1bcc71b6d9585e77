//! How the node is, over a socket that only its owner may open; and the readable form of the answer.
//!
//! The socket lies in the node's own folder and exists from the first moment, so that `mpcium status` can also say
//! what a node waits for that has not come up yet. Whoever connects gets one JSON document and the end of the stream.

use std::{
    fmt::Write as _,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use mpcium_core::{
    node::{PairState, Status},
    report::Report,
};
use mpcium_io::{
    consul::Consul,
    fjall::Census,
    nats::{Nats, Queues},
    ports::Inbox,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

use crate::{
    cli, keys,
    metrics::{Machine, Metrics},
};

/// The socket's name in the node's folder.
pub const SOCKET: &str = "status.sock";
/// How long one exchange may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);
/// How long Consul may take to answer.
const CONSUL_ANSWER_MAX: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What the socket answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The program's own version.
    pub version: String,
    /// The version of the Go system as which it works, which `mpcium version` prints.
    #[serde(default)]
    pub compatible_with: String,
    /// The node's process.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// Its safe primes came from the project's published file: whatever it does is a test.
    pub test_primes: bool,
    /// What the start waits for, in words; empty once the node runs.
    pub starting: String,
    /// Whether the connection to NATS is up; absent before there is one.
    pub nats_connected: Option<bool>,
    /// Whether Consul answers; absent before it has been asked.
    pub consul_connected: Option<bool>,
    /// Wallets whose certificate is in the store without a share of their keys; absent before the store is open.
    #[serde(default)]
    pub wallets_without_share: Option<usize>,
    /// The node itself; absent before it exists.
    pub node: Option<Status>,
}

/// What the process knows of itself, for its status and its metrics.
pub struct Process {
    started: SystemTime,
    test_primes: OnceLock<bool>,
    starting: Mutex<String>,
    nats: OnceLock<(async_nats::Client, Queues)>,
    consul: OnceLock<Consul>,
    folder: OnceLock<PathBuf>,
    census: OnceLock<Census>,
    inbox: OnceLock<Inbox>,
    metrics: Metrics,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Process(started at {})", keys::timestamp(self.started))
    }
}

impl Process {
    /// A process that has just started.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            started: SystemTime::now(),
            test_primes: OnceLock::new(),
            starting: Mutex::new(String::new()),
            nats: OnceLock::new(),
            consul: OnceLock::new(),
            folder: OnceLock::new(),
            census: OnceLock::new(),
            inbox: OnceLock::new(),
            metrics: Metrics::default(),
        })
    }

    /// The start now waits for this.
    pub fn waits_for(&self, what: &str) {
        what.clone_into(&mut self.starting.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Published primes are in use.
    pub fn uses_test_primes(&self) {
        // Saying it twice changes nothing.
        let _ = self.test_primes.set(true);
    }

    /// The connection to NATS exists.
    pub fn watch_nats(&self, nats: &Nats) {
        // There is one connection per process; the first one stays.
        let _ = self.nats.set((nats.client(), nats.queues()));
    }

    /// The node keeps what it keeps in this folder.
    pub fn keeps_in(&self, folder: &Path) {
        // There is one node per process; the first one stays.
        let _ = self.folder.set(folder.to_owned());
    }

    /// Whom to ask what the store holds.
    pub fn watch_store(&self, census: Census) {
        // There is one store per process; the first one stays.
        let _ = self.census.set(census);
    }

    /// These are the other nodes.
    pub fn knows<'a>(&self, peers: impl IntoIterator<Item = &'a str>) {
        self.metrics.knows(peers);
    }

    /// The core has said something.
    pub fn reported(&self, report: &Report) {
        self.metrics.record(report);
    }

    /// Whom to ask whether Consul answers.
    pub fn watch_consul(&self, consul: Consul) {
        // There is one Consul per process; the first one stays.
        let _ = self.consul.set(consul);
    }

    /// The node runs behind this inbox.
    pub fn runs(&self, inbox: Inbox) {
        // There is one node per process; the first one stays.
        let _ = self.inbox.set(inbox);
        self.waits_for("");
    }

    /// Whether the process does its work: it still starts, or its node answers. Returns when that is known.
    pub async fn answers(&self) -> bool {
        match self.inbox.get() {
            Some(inbox) => inbox.status().await.is_some(),
            None => true,
        }
    }

    /// The page that Prometheus reads.
    pub async fn scrape(&self) -> String {
        let (folder, started) = (self.folder.get().cloned(), self.started);
        let look = tokio::task::spawn_blocking(move || Machine::look(folder.as_deref(), started));
        let queues = async {
            match self.nats.get() {
                Some((client, queues)) if is_connected(client) => queues.depths().await,
                _ => Vec::new(),
            }
        };
        let (answer, queues, machine) = futures::join!(self.answer(), queues, look);
        let mut machine = machine.unwrap_or_default();
        machine.queues = queues;
        machine.nats_connects =
            self.nats.get().map(|(client, _)| client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed));
        self.metrics.render(&answer, &machine)
    }

    /// The present state.
    pub async fn answer(&self) -> Answer {
        let node = match self.inbox.get() {
            Some(inbox) => inbox.status().await,
            None => None,
        };
        let consul_connected = match self.consul.get() {
            Some(consul) => {
                let leader = tokio::time::timeout(CONSUL_ANSWER_MAX, consul.leader()).await;
                Some(matches!(leader, Ok(Ok(Some(_)))))
            }
            None => None,
        };
        Answer {
            version: cli::VERSION.to_owned(),
            compatible_with: cli::COMPATIBLE_WITH.to_owned(),
            pid: std::process::id(),
            started_at: keys::timestamp(self.started),
            test_primes: self.test_primes.get().is_some(),
            starting: self.starting.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            nats_connected: self.nats.get().map(|(client, _)| is_connected(client)),
            consul_connected,
            wallets_without_share: self.census.get().map(Census::wallets_without_share),
            node,
        }
    }
}

fn is_connected(client: &async_nats::Client) -> bool {
    client.connection_state() == async_nats::connection::State::Connected
}

/// The socket of a running process; removed when dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
        // Left behind it does no harm: the next start replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves the status in `folder`, which only its owner may enter. Whoever holds the store's lock may replace a socket
/// that an earlier process left behind.
///
/// # Errors
/// If the socket cannot be made.
pub fn serve(folder: &Path, process: Arc<Process>) -> Result<Socket, String> {
    let path = folder.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{}: {error}", path.display()));
        }
        _ => {}
    }
    let listener = at_short_path(folder, |short| UnixListener::bind(short))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = process.answer().await;
            // An asker that went away, or that does not read, is its own concern.
            let _ = tokio::time::timeout(EXCHANGE_MAX, async {
                stream.write_all(&serde_json::to_vec(&answer)?).await?;
                stream.shutdown().await
            })
            .await;
        }
    });
    Ok(Socket { path, task })
}

/// Asks the node whose folder this is.
///
/// # Errors
/// If no node answers there.
pub async fn ask(folder: &Path) -> Result<Answer, String> {
    let path = folder.join(SOCKET);
    let exchange = async {
        let mut stream = connect(folder).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                format!("no node runs on {} ({error})", folder.display())
            }
            _ => format!("{}: {error}", path.display()),
        })?;
        let mut bytes = Vec::new();
        (&mut stream)
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| format!("{}: the answer is not a status: {error}", path.display()))
    };
    tokio::time::timeout(EXCHANGE_MAX, exchange)
        .await
        .map_err(|_| format!("the node at {} does not answer within {} s", path.display(), EXCHANGE_MAX.as_secs()))?
}

async fn connect(folder: &Path) -> std::io::Result<UnixStream> {
    let directory = std::fs::File::open(folder)?;
    UnixStream::connect(short_path(&directory)).await
}

/// A socket's path holds 107 bytes at most, folders may be deeper: the way through an open folder is always short.
fn at_short_path<T>(folder: &Path, use_path: impl FnOnce(PathBuf) -> std::io::Result<T>) -> std::io::Result<T> {
    let directory = std::fs::File::open(folder)?;
    use_path(short_path(&directory))
}

fn short_path(directory: &std::fs::File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

/// The answer for people.
#[must_use]
pub fn render(answer: &Answer) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_answer(&mut text, answer);
    text
}

fn write_answer(out: &mut String, answer: &Answer) -> std::fmt::Result {
    if answer.test_primes {
        writeln!(out, "TEST PRIMES: this node's auxiliary data protects nothing\n")?;
    }
    let Some(node) = &answer.node else {
        writeln!(out, "starting (process {}, since {})", answer.pid, answer.started_at)?;
        return writeln!(
            out,
            "waits for  {}",
            if answer.starting.is_empty() { "its first step" } else { &answer.starting }
        );
    };
    let state = if node.ready { "ready" } else { "NOT READY" };
    writeln!(out, "{} {state}: {} of {} nodes sign together", node.name, node.threshold, node.peers.len() + 1)?;
    writeln!(out, "  id           {}", node.id)?;
    writeln!(out, "  process      {}, since {}", answer.pid, answer.started_at)?;
    writeln!(out, "  version      {}, works as {} of the Go system", answer.version, answer.compatible_with)?;
    writeln!(out, "  incarnation  {}", node.incarnation)?;
    for (what, connected) in [("NATS  ", answer.nats_connected), ("Consul", answer.consul_connected)] {
        if let Some(connected) = connected {
            writeln!(out, "  {what}       {}", if connected { "connected" } else { "NOT CONNECTED" })?;
        }
    }
    for what in &node.waiting_for {
        writeln!(out, "  waits for    {what}")?;
    }
    for alarm in &node.alarms {
        writeln!(out, "  ALARM        {alarm}")?;
    }
    if let Some(lost @ 1..) = answer.wallets_without_share {
        writeln!(out, "  SHARES LOST  {lost} wallets have no share here: for them this node is lost already")?;
    }
    for stopped in &node.stopped {
        writeln!(out, "  STOPPED KEYS {stopped}")?;
    }
    writeln!(out, "peers")?;
    let width = node.peers.iter().map(|peer| peer.name.len()).max().unwrap_or(0);
    for peer in &node.peers {
        let link = if peer.up { "up  " } else { "DOWN, waits for" };
        let registered = if peer.registered { "" } else { " (not registered in Consul)" };
        writeln!(out, "  {:width$}  {link} {}{registered}", peer.name, peer.detail)?;
    }
    let ingredients = &node.ingredients;
    let making = if ingredients.making { ", making more" } else { "" };
    if ingredients.pieces.max(ingredients.wanted) > 0 {
        writeln!(out, "safe primes    {} of {} in store{making}", ingredients.pieces, ingredients.wanted)?;
    }
    if node.auxiliary_sets.is_empty() {
        writeln!(out, "auxiliary sets none yet: ECDSA signatures wait, Ed25519 works")?;
    }
    for set in &node.auxiliary_sets {
        let agreed = match (set.banned.as_str(), set.agreed) {
            ("", true) => "ready".to_owned(),
            ("", false) => "not agreed yet".to_owned(),
            (reason, _) => format!("BANNED, {reason}"),
        };
        writeln!(out, "auxiliary set  {} {agreed} ({})", set.name, set.members.join(", "))?;
    }
    for pair in node.pairs.iter().filter(|pair| pair.state != PairState::Ready) {
        let state = if pair.state == PairState::Banned { "BANNED" } else { "missing" };
        writeln!(out, "pair           with {} {state}: {}", pair.peer, pair.detail)?;
    }
    let presignatures = &node.presignatures;
    if presignatures.wanted + presignatures.ready + presignatures.making > 0 {
        let making = if presignatures.making > 0 { ", making more" } else { "" };
        writeln!(out, "presignatures  {} ready{making}, {} used", presignatures.ready, presignatures.used)?;
    }
    writeln!(out, "sessions       {}", node.sessions.len())?;
    for session in &node.sessions {
        let waits = if session.waits_for.is_empty() {
            String::new()
        } else {
            format!(", waits for {}", session.waits_for.join(", "))
        };
        writeln!(out, "  {} {} {} {} ms{waits}", session.session, session.protocol, session.wallet, session.age_ms)?;
    }
    writeln!(out, "requests       {}", node.requests.len())?;
    for request in &node.requests {
        writeln!(
            out,
            "  {} {} {}: {} ({} ms)",
            request.kind, request.wallet, request.id, request.state, request.age_ms
        )?;
    }
    for undecided in &node.undecided {
        writeln!(out, "undecided      {undecided}")?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use mpcium_core::node::{
        AuxiliaryStatus, IngredientStatus, PairStatus, PeerStatus, PresignatureStatus, RequestStatus, SessionStatus,
    };

    use super::*;

    /// A node to whom all kinds of things happen.
    pub(crate) fn status() -> Status {
        Status {
            id: "123e4567-e89b-42d3-a456-426614174000".to_owned(),
            name: "node0".to_owned(),
            incarnation: "abcd".to_owned(),
            ready: false,
            waiting_for: vec!["node2".to_owned()],
            threshold: 2,
            peers: vec![PeerStatus {
                name: "node1".to_owned(),
                id: String::new(),
                up: true,
                registered: false,
                detail: "for 3 s".to_owned(),
            }],
            ingredients: IngredientStatus { pieces: 1, wanted: 4, making: true },
            auxiliary_sets: vec![AuxiliaryStatus {
                name: "s1".to_owned(),
                members: vec!["node0".to_owned()],
                agreed: true,
                banned: String::new(),
            }],
            pairs: vec![PairStatus {
                peer: "node1".to_owned(),
                state: PairState::Banned,
                detail: "ban 1, found by node1: a check failed; a new one in 600 s".to_owned(),
            }],
            presignatures: PresignatureStatus { wanted: 2, missing: 0, making: 1, ready: 3, used: 5 },
            sessions: vec![SessionStatus {
                session: "aa".to_owned(),
                protocol: "keygen".to_owned(),
                wallet: "w".to_owned(),
                age_ms: 5,
                waits_for: vec!["node1".to_owned()],
            }],
            requests: vec![RequestStatus {
                kind: "sign".to_owned(),
                wallet: "w".to_owned(),
                id: "tx".to_owned(),
                age_ms: 9,
                state: "waits for primes".to_owned(),
            }],
            undecided: vec!["w at epoch 0".to_owned()],
            alarms: vec!["look here".to_owned()],
            stopped: vec!["two certificates for epoch 0 of wallet w".to_owned()],
            tables: Vec::new(),
        }
    }

    /// What a process with this node answers.
    pub(crate) fn answer(node: Option<Status>) -> Answer {
        Answer {
            version: "0.9".to_owned(),
            compatible_with: "0.3.5".to_owned(),
            pid: 7,
            started_at: "then".to_owned(),
            test_primes: true,
            starting: String::new(),
            nats_connected: Some(false),
            consul_connected: Some(true),
            wallets_without_share: Some(6),
            node,
        }
    }

    #[test]
    fn the_readable_form_says_everything() {
        let text = render(&answer(Some(status())));
        for part in [
            "TEST PRIMES",
            "node0 NOT READY: 2 of 2",
            "0.9, works as 0.3.5 of the Go system",
            "waits for    node2",
            "node1  up   for 3 s",
            "not registered",
            "1 of 4 in store, making more",
            "s1 ready",
            "3 ready, making more, 5 used",
            "keygen",
            "waits for node1",
            "waits for primes",
            "w at epoch 0",
            "look here",
            "SHARES LOST  6 wallets have no share here",
            "STOPPED KEYS two certificates for epoch 0",
            "NOT CONNECTED",
        ] {
            assert!(text.contains(part), "{part} in:\n{text}");
        }
        let whole = Answer { wallets_without_share: Some(0), ..answer(Some(status())) };
        assert!(!render(&whole).contains("SHARES LOST"));
    }

    #[tokio::test]
    async fn only_the_owner_may_open_the_socket_and_it_answers_before_the_node_exists() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let deep = folder.path().join("x".repeat(120));
        std::fs::create_dir(&deep).expect("folder");
        assert!(ask(&deep).await.expect_err("nobody there").contains("no node runs"));
        let process = Process::new();
        process.waits_for("the NATS server");
        process.uses_test_primes();
        let socket = serve(&deep, process.clone()).expect("socket");
        let mode = std::fs::metadata(deep.join(SOCKET)).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let answer = ask(&deep).await.expect("answer");
        assert!(answer.test_primes && answer.node.is_none());
        assert!(render(&answer).contains("the NATS server"));
        let again = serve(&deep, process).expect("a socket left behind is replaced");
        drop(again);
        drop(socket);
        assert!(!deep.join(SOCKET).exists());
    }
}
