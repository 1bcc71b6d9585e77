//! `mpcium start`: from the configuration to a running node, and back down again.
//!
//! Order: configuration, passwords, identities, store, NATS, Consul, node. Each step says what it waits for, in the log
//! and on the status socket. Whatever waiting cannot cure ends the process with the reason. A signal drains the node
//! (no new requests, what runs may finish for a bounded time) and then stops it.

use std::{
    num::NonZeroUsize,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use mpcium_core::{
    Config, Identity, Input, Secret,
    node::Node,
    protocol::{EcdsaProtocol, Suites},
};
use mpcium_io::{
    clock::TokioClock,
    driver::{self, Ports},
    fjall::{self, Opened, PasswordCost},
    nats::{Deadlines, Nats, NatsOptions, NatsPorts, NatsTls},
    ports::{Clock as _, Inbox},
    workers::WorkerPool,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use zeroize::Zeroizing;

use crate::{
    cli::Start,
    config::{self, NatsSettings, Remark, Settings},
    discovery::{Discovery, NodeReports},
    files, health, keys, log, monitor, passwords, primes,
    secret_text::SecretText,
    status::{self, Process},
};

/// Where identities are, seen from the folder in which the node is started.
pub(crate) const IDENTITY_FOLDER: &str = "identity";
/// The file with the nodes' ids, likewise.
pub(crate) const PEERS_FILE: &str = "peers.json";
/// How long what runs may take to finish once the node has been told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How often the node is asked whether it has finished.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

/// The folder that holds all that one node keeps: its store, its status socket.
///
/// The name differs from that of the Go system's database, which lies at `<db_path>/<node>` and is left alone.
#[must_use]
pub fn node_folder(db_path: &Path, node: &str) -> PathBuf {
    db_path.join(format!("{node}.mpcium"))
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// The reason for which it cannot start or go on.
pub fn start(config: Option<&Path>, options: &Start) -> Result<ExitCode, String> {
    // Whatever this process writes, the store's files above all, is for its owner only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let prepared = prepare(config, options)?;
    // One thread for the node and its connections: what arrives is handled where it arrives. With more of them every
    // message wakes threads several times, which costs more than what they do; mathematics and store have their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let outcome = runtime.block_on(run(prepared));
    // Tasks that still retry something are not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(reason) => {
            log::fatal(&reason);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Everything that can be read before anything is opened.
struct Prepared {
    settings: Settings,
    config: Config,
    identity: Identity,
    name: String,
    password: SecretText,
    /// A peers file to register first.
    register: Option<PathBuf>,
    /// Safe primes for a new store.
    primes: Option<Vec<Secret>>,
    /// They are published ones.
    test_primes: bool,
}

fn prepare(config: Option<&Path>, options: &Start) -> Result<Prepared, String> {
    let mut reader = config::open(config)?;
    let settings = config::settings(&mut reader).map_err(|errors| errors.to_string())?;
    log::start(settings.environment, options.debug);
    for warning in reader.warnings() {
        log::warn(&warning.to_string());
    }
    let variables = reader.variables_used();
    if !variables.is_empty() {
        log::info(&format!("the environment wins over the configuration file with {}", variables.join(", ")));
    }
    let mut private =
        vec![files::private_key_path(Path::new(IDENTITY_FOLDER), &options.name, options.passwords.decrypt_private_key)];
    if reader.holds_password() {
        private.push(reader.file().to_owned());
    }
    for open in private.iter().filter_map(|path| files::open_to_others(path)) {
        log::warn(&format!("{open}; it should have mode 600"));
    }
    let password = passwords::store(settings.store_password.as_ref(), &options.passwords)?;
    let peers = files::read_peers(Path::new(PEERS_FILE))?;
    let Some(id) = peers.get(&options.name).copied() else {
        let names: Vec<&str> = peers.keys().map(String::as_str).collect();
        return Err(format!("{PEERS_FILE} does not name {}; it names {}", options.name, names.join(", ")));
    };
    let known = files::read_identities(Path::new(IDENTITY_FOLDER), &peers)?;
    let passphrase = passwords::identity(&options.passwords)?;
    let Some(me) = known.iter().find(|peer| peer.id == id) else {
        return Err(format!("there is no identity of {}", options.name));
    };
    let identity = files::read_identity(Path::new(IDENTITY_FOLDER), me, passphrase.as_ref())
        .map_err(|problem| problem.to_string())?;
    let (config, remark) = settings.for_core(id, known)?;
    match remark {
        Some(Remark::Note(text)) => log::info(&text),
        Some(Remark::Warning(text)) => log::warn(&text),
        None => {}
    }
    let mut test_primes = false;
    let primes = match &options.primes {
        None => None,
        Some(path) => {
            let all = primes::read(path)?;
            primes::refuse_published(&all, std::env::var(primes::TEST_PRIMES_VARIABLE).ok().as_deref())?;
            test_primes = all.published && settings.ecdsa_protocol == EcdsaProtocol::Cggmp24;
            let position = peers.keys().position(|name| *name == options.name).unwrap_or_default();
            Some(all.share_of(position, &Suites::production(settings.ecdsa_protocol))?)
        }
    };
    Ok(Prepared {
        settings,
        config,
        identity,
        name: options.name.clone(),
        password,
        register: options.peers.clone(),
        primes,
        test_primes,
    })
}

/// Opens the node's folder and the store in it.
fn open_store(prepared: &Prepared) -> Result<Open, String> {
    let db_path = &prepared.settings.db_path;
    let old = db_path.join(&prepared.name);
    if old.exists() {
        log::warn(&format!(
            "{} looks like a database of the Go system; it is left untouched and its wallets are not used",
            old.display()
        ));
    }
    let folder = node_folder(db_path, &prepared.name);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let path = folder.join("store");
    let password = Secret::new(prepared.password.expose().as_bytes().to_vec());
    let new = !path.exists();
    if let Some(primes) = &prepared.primes {
        primes::import(&path, &password, PasswordCost::STANDARD, primes, prepared.test_primes)?;
    }
    let opened = fjall::open(&path, &password, fjall::Options::create_if_absent(PasswordCost::STANDARD))
        .map_err(|error| error.to_string())?;
    let test_primes = primes::are_marked(&path);
    log::info(&format!("store {}: {}", path.display(), if new { "made" } else { "opened" }));
    Ok(Open { folder, opened, test_primes })
}

/// The node's folder and the store in it.
struct Open {
    folder: PathBuf,
    opened: Opened,
    /// Published primes were put into the store, now or at an earlier start.
    test_primes: bool,
}

async fn run(prepared: Prepared) -> Result<(), String> {
    let mut signals = Signals::new()?;
    let process = Process::new();
    let others = prepared.config.peers.iter().filter(|peer| peer.id != prepared.config.me);
    process.knows(others.map(|peer| peer.name.as_str()));
    process.waits_for("the store to be opened");
    // From the first moment, so that probes see what the start waits for.
    let settings = &prepared.settings;
    let _health = match &settings.healthcheck {
        Some(address) => Some(health::serve(address, process.clone()).await?),
        None => None,
    };
    let _monitor = match &settings.metrics {
        Some(address) => Some(monitor::serve(address, process.clone()).await?),
        None => None,
    };
    // Reading every record of a large store takes a while, during which probes are answered.
    let opening = tokio::task::spawn_blocking(move || {
        let open = open_store(&prepared);
        (prepared, open)
    });
    let (prepared, open) = opening.await.map_err(|error| format!("opening the store: {error}"))?;
    let Open { folder, opened, test_primes } = open?;
    process.keeps_in(&folder);
    let _socket = status::serve(&folder, process.clone())?;
    let (inbox, events) = Inbox::new();
    if test_primes {
        process.uses_test_primes();
        log::warn("TEST PRIMES: published primes are in use; whatever this node does protects nothing");
    }

    let started = tokio::select! {
        connected = connect(&prepared, &process, &inbox) => connected?,
        name = signals.any() => {
            log::info(&format!("told to stop ({name}) before the node had started"));
            return Ok(());
        }
    };
    let Connected { nats, ports: NatsPorts { datagrams, requests, results }, discovery } = started;

    let store = opened.store.start(inbox.clone()).map_err(|error| format!("no thread for the store: {error}"))?;
    process.watch_store(store.census());
    let workers = NonZeroUsize::new(prepared.settings.workers).unwrap_or(NonZeroUsize::MIN);
    let ports = Ports {
        datagrams,
        requests,
        results,
        store,
        workers: WorkerPool::start(workers, &inbox).map_err(|error| format!("no threads for workers: {error}"))?,
        clock: TokioClock::new(),
        reports: NodeReports { discovery: discovery.clone(), process: process.clone() },
    };
    let seed = keys::random_bytes::<32>()?;
    let suites = Suites::production(prepared.settings.ecdsa_protocol);
    let mut node = Node::new(prepared.config, prepared.identity, suites, opened.boot, seed, ports.clock.now());
    process.runs(inbox.clone());
    let stopper = tokio::spawn(stop_on_signal(signals, inbox.clone()));
    let outcome = driver::run(&mut node, events, &ports).await;
    stopper.abort();
    let Ports { store, workers, reports, .. } = ports;
    drop(reports);
    if let Some(discovery) = Arc::into_inner(discovery) {
        discovery.leave().await;
    }
    nats.close().await;
    // The store's thread finishes its last batch. Jobs on workers may take a minute and nobody waits for what they
    // compute: they end with the process.
    drop(store);
    workers.abandon();
    outcome.inspect(|()| log::info("stopped"))
}

/// What a node talks to.
struct Connected {
    nats: Nats,
    ports: NatsPorts,
    discovery: Arc<Discovery>,
}

async fn connect(prepared: &Prepared, process: &Process, inbox: &Inbox) -> Result<Connected, String> {
    let settings = &prepared.settings;
    let options = nats_options(&settings.nats, &prepared.name);
    process.waits_for("the NATS server");
    let nats = Nats::connect(&options, log::notices("nats")).await.map_err(|error| error.to_string())?;
    process.watch_nats(&nats);
    process.waits_for("JetStream");
    let deadlines = Deadlines {
        keygen: settings.keygen_deadline,
        signing: settings.signing_deadline,
        reshare: settings.keygen_deadline,
    };
    let ports = nats.ports(prepared.config.me, inbox, deadlines).await.map_err(|error| error.to_string())?;
    let discovery = Discovery::start(&settings.consul, &prepared.config, prepared.register.as_deref(), inbox)?;
    process.watch_consul(discovery.client());
    Ok(Connected { nats, ports, discovery })
}

/// What the adapter needs to reach NATS.
#[must_use]
pub fn nats_options(settings: &NatsSettings, name: &str) -> NatsOptions {
    let mut options = NatsOptions::new(settings.urls.join(","), format!("mpcium {name}"));
    options.user = settings.username.clone().map(|user| {
        let password = settings.password.as_ref().map_or_else(String::new, |password| password.expose().to_owned());
        (user, Zeroizing::new(password))
    });
    options.credentials.clone_from(&settings.credentials);
    options.replicas = settings.replicas;
    options.prefix = settings.prefix.clone();
    options.idle_consumers = settings.idle_consumers;
    if settings.client_certificate.is_some() || settings.root_certificates.is_some() {
        options.tls = Some(NatsTls {
            authority: settings.root_certificates.clone(),
            client: settings.client_certificate.clone(),
        });
    }
    options
}

/// The signals that ask a process to stop. The end of its terminal is one of them: whoever wants a node to outlive that
/// starts it with `nohup` or under a supervisor.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None`: whoever started the process wants it ignored, as `nohup` does.
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> Result<Self, String> {
        let on = |kind| signal(kind).map_err(|error| format!("signals cannot be received: {error}"));
        let ignored = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status));
        let hangup = if ignored { None } else { Some(on(SignalKind::hangup())?) };
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())?, hangup })
    }

    /// The name of the next one.
    async fn any(&mut self) -> &'static str {
        let Self { interrupt, terminate, hangup } = self;
        let hangup = async {
            match hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            () = hangup => "SIGHUP",
        }
    }
}

/// Whether the process was started with SIGHUP ignored, by what Linux says of it: the lowest bit stands for signal 1.
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Drains the node at the first signal and stops it when it is idle, after [`DRAIN_MAX`], or at a second signal.
async fn stop_on_signal(mut signals: Signals, inbox: Inbox) {
    let name = signals.any().await;
    log::info(&format!("stopping ({name}): no new requests; what runs may finish (a second signal stops at once)"));
    inbox.put(Input::Drain);
    tokio::select! {
        name = signals.any() => log::warn(&format!("stopping at once ({name})")),
        () = idle(&inbox) => {}
        () = tokio::time::sleep(DRAIN_MAX) => {
            log::warn(&format!("what still runs after {} s is given up", DRAIN_MAX.as_secs()));
        }
    }
    inbox.stop();
}

/// Returns when no client's request runs here any more, or the node has stopped.
async fn idle(inbox: &Inbox) {
    let mut look = tokio::time::interval(DRAIN_LOOK);
    while let Some(status) = inbox.status().await {
        if status.requests.is_empty() && status.sessions.iter().all(|session| session.wallet.is_empty()) {
            return;
        }
        look.tick().await;
    }
}

/// A core dump would hold every share and key of the process.
pub(crate) fn disable_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if setrlimit(Resource::Core, none).is_err() || set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err() {
        eprintln!("warning: core dumps could not be disabled");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_folder_is_not_the_old_database() {
        let folder = node_folder(Path::new("db"), "node0");
        assert_ne!(folder, Path::new("db").join("node0"));
        assert_eq!(folder.parent(), Some(Path::new("db")));
    }

    #[test]
    fn a_process_that_was_started_with_nohup_is_known_by_its_signals() {
        assert!(ignores_hangup("Name:\tmpcium\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n"));
        assert!(!ignores_hangup(""));
    }

    #[tokio::test]
    async fn the_end_of_the_terminal_stops_a_node_as_any_other_signal_does() {
        let mut signals = Signals::new().expect("signals");
        // Under `nohup` it has to stay ignored.
        if signals.hangup.is_some() {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::HUP).expect("a signal to itself");
            assert_eq!(signals.any().await, "SIGHUP");
        }
    }

    #[test]
    fn nats_settings_are_used_whenever_they_are_configured() {
        let settings = NatsSettings {
            urls: vec!["nats://a:1".to_owned(), "nats://b:2".to_owned()],
            username: Some("u".to_owned()),
            password: Some(SecretText::new("p".to_owned())),
            credentials: Some(PathBuf::from("x.creds")),
            client_certificate: None,
            root_certificates: Some(PathBuf::from("ca.pem")),
            replicas: Some(3),
            prefix: mpcium_client::Prefix::parse("blue").expect("a prefix"),
            idle_consumers: None,
        };
        let options = nats_options(&settings, "node0");
        assert_eq!((options.url.as_str(), options.replicas), ("nats://a:1,nats://b:2", Some(3)));
        assert_eq!(options.prefix.as_str(), "blue");
        assert_eq!(
            options.user.map(|(user, password)| (user, password.to_string())),
            Some(("u".to_owned(), "p".to_owned()))
        );
        assert_eq!(options.credentials, Some(PathBuf::from("x.creds")));
        assert_eq!(options.tls.and_then(|tls| tls.authority), Some(PathBuf::from("ca.pem")));
    }
}
