//! The configuration file and the environment, checked as a whole before anything starts.
//!
//! Every key can be given in the file or by an environment variable (upper case, `.` becomes `_`), and the variable
//! wins, also for keys that the file does not name. All problems are reported together, each with the place that it
//! comes from. What leaves this module is typed; nothing outside reads the file again.

mod consul;
mod reader;
mod threshold;
mod yaml;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

pub use consul::consul;
use mpcium_client::{
    Prefix,
    auth::{Authorization, AuthorizerKey, InitiatorKey},
};
use mpcium_core::{NodeId, PeerInfo, limits, protocol::EcdsaProtocol};
use mpcium_io::consul::{ConsulTls, KeyPrefix};
pub use reader::{KEYS, Problem, Reader};
pub use threshold::{Counting, Remark, Settled, settle};

use crate::{monitor, secret_text::SecretText};

/// The signature algorithms of initiators and authorizers.
const ALGORITHMS: &[&str] = &["ed25519", "p256"];

/// Copies that a NATS cluster can keep of a stream and gain by it: an even number survives no more losses.
const REPLICAS: &[&str] = &["1", "3", "5"];

/// A client's consumer of results goes after so many days without the client.
const IDLE_CONSUMER_DAYS: u64 = 90;

/// Ingredients for auxiliary sets that a node keeps ahead: one for the next set that its cluster needs.
const INGREDIENTS_RESERVE: usize = 1;

/// Where stores are unless `db_path` says otherwise.
pub const DB_PATH_DEFAULT: &str = "./db";

/// How the node presents itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// JSON logs on stdout.
    Production,
    /// Coloured logs on stderr.
    Development,
}

/// How to reach NATS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsSettings {
    /// At least one server.
    pub urls: Vec<String>,
    /// User name.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<SecretText>,
    /// A `.creds` file.
    pub credentials: Option<PathBuf>,
    /// Client certificate and key, PEM.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Root certificates, PEM.
    pub root_certificates: Option<PathBuf>,
    /// Copies of each stream in a NATS cluster; `None`: new streams have one, others what they have.
    pub replicas: Option<usize>,
    /// What stands before the cluster's subjects and streams.
    pub prefix: Prefix,
    /// Clients' consumers of results that nobody has used for so long are removed; `None`: never.
    pub idle_consumers: Option<Duration>,
}

impl NatsSettings {
    /// Servers that want nothing but to be reached.
    #[must_use]
    pub fn plain(urls: Vec<String>) -> Self {
        Self {
            urls,
            username: None,
            password: None,
            credentials: None,
            client_certificate: None,
            root_certificates: None,
            replicas: None,
            prefix: Prefix::default(),
            idle_consumers: None,
        }
    }
}

/// How to reach Consul.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulSettings {
    /// `host:port` or a URL.
    pub address: String,
    /// HTTP basic user.
    pub username: Option<String>,
    /// HTTP basic password.
    pub password: Option<SecretText>,
    /// ACL token.
    pub token: Option<SecretText>,
    /// What stands before the cluster's keys.
    pub prefix: KeyPrefix,
    /// Certificates for an address with `https://`.
    pub tls: ConsulTls,
}

/// Everything that a node is configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where logs go.
    pub environment: Environment,
    /// The message bus.
    pub nats: NatsSettings,
    /// Discovery.
    pub consul: ConsulSettings,
    /// `mpc_threshold` as written.
    pub threshold: u16,
    /// How it is to be read, if the file says so.
    pub threshold_counts: Option<Counting>,
    /// Which protocol makes ECDSA signatures, the same at every node.
    pub ecdsa_protocol: EcdsaProtocol,
    /// The store's password, unless it comes from a file or a prompt.
    pub store_password: Option<SecretText>,
    /// Whose requests are served.
    pub initiator: InitiatorKey,
    /// Master chain code for child keys.
    pub chain_code: Option<[u8; 32]>,
    /// Folder in which each node has its store.
    pub db_path: PathBuf,
    /// Key generations that run at once.
    pub max_concurrent_keygen: usize,
    /// Signatures that run at once.
    pub max_concurrent_signing: usize,
    /// Presignatures that are kept ready per wallet and signers.
    pub presignatures: usize,
    /// Serve `GET /health` here.
    pub healthcheck: Option<String>,
    /// Serve `/live`, `/ready` and `/metrics` here.
    pub metrics: Option<String>,
    /// Who must approve requests besides.
    pub authorization: Authorization,
    /// Worker threads for cryptography.
    pub workers: usize,
    /// A signing request is answered within this time.
    pub signing_deadline: Duration,
    /// A key generation request is answered within this time.
    pub keygen_deadline: Duration,
    /// How far the nodes' clocks may differ.
    pub clock_skew: Duration,
}

/// All problems of one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "{one}"),
            many => {
                write!(f, "the configuration has {} problems:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl Settings {
    /// What the core is told: the settings as they apply to one node of a cluster, checked, and what the operator
    /// should know of how `mpc_threshold` was read.
    ///
    /// # Errors
    /// If threshold, peers or this node do not fit together.
    pub fn for_core(&self, me: NodeId, peers: Vec<PeerInfo>) -> Result<(mpcium_core::Config, Option<Remark>), String> {
        let settled = settle(self.threshold, self.threshold_counts, peers.len())?;
        let config = mpcium_core::Config {
            me,
            peers,
            threshold: settled.signers,
            chain_code: self.chain_code,
            initiator: self.initiator.clone(),
            authorization: self.authorization.clone(),
            max_concurrent_keygen: self.max_concurrent_keygen,
            max_concurrent_signing: self.max_concurrent_signing,
            presignatures: self.presignatures,
            signing_deadline: self.signing_deadline,
            keygen_deadline: self.keygen_deadline,
            clock_skew: self.clock_skew,
            workers: self.workers,
            ingredients_reserve: INGREDIENTS_RESERVE,
        };
        Ok((config.checked().map_err(|error| error.to_string())?, settled.remark))
    }
}

/// Finds the configuration file: the given one, or `config.yaml` in `.`, `/etc/mpcium/`, `$HOME/.mpcium/`.
///
/// # Errors
/// Where it was looked for.
pub fn find(given: Option<&Path>, home: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = given {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(format!("no configuration file at {}", path.display()))
        };
    }
    let mut places = vec![PathBuf::from("config.yaml"), PathBuf::from("/etc/mpcium/config.yaml")];
    places.extend(home.map(|home| home.join(".mpcium/config.yaml")));
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let list: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
        format!("no configuration file: looked for {} (or name one with -c)", list.join(", "))
    })
}

/// Opens the configuration file that the search finds, with this process's environment.
///
/// # Errors
/// If there is none, or it is not YAML of the right shape.
pub fn open(given: Option<&Path>) -> Result<Reader, String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let path = find(given, home.as_deref())?;
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    if let Some(other) = extension.filter(|e| ["toml", "ini", "env", "properties", "hcl"].contains(&e.as_str())) {
        return Err(format!("{}: expected YAML or JSON, and .{other} is another format", path.display()));
    }
    let source = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Reader::new(&path, &source, &|name| std::env::var(name).ok())
}

/// Reads everything that a node needs.
///
/// # Errors
/// Every problem at once.
pub fn settings(reader: &mut Reader) -> Result<Settings, ConfigErrors> {
    let environment = reader.choice("environment", &["production", "development"]).map(|text| match text.as_str() {
        "production" => Environment::Production,
        _ => Environment::Development,
    });
    if environment.is_none() {
        reader.required("environment");
    }
    let nats = nats(reader);
    let consul = consul(reader);
    let threshold = reader.number("mpc_threshold", 0, 1024);
    if threshold.is_none() {
        reader.required("mpc_threshold");
    }
    let counting = reader.choice("threshold_counts", &["signers", "degree"]).and_then(|text| Counting::parse(&text));
    let names = EcdsaProtocol::ALL.map(EcdsaProtocol::name);
    let ecdsa_protocol = reader.choice("ecdsa_protocol", &names).and_then(|name| EcdsaProtocol::parse(&name));
    let store_password = store_password(reader);
    let initiator = initiator(reader);
    let chain_code = chain_code(reader);
    let authorization = authorization(reader);
    let healthcheck = reader.switch("healthcheck.enabled").unwrap_or(false);
    let healthcheck_address = reader.text("healthcheck.address").unwrap_or_else(|| ":8080".to_owned());
    let metrics = reader.switch("metrics.enabled").unwrap_or(false);
    let metrics_address = reader.text("metrics.address").unwrap_or_else(|| monitor::ADDRESS_DEFAULT.to_owned());
    for ignored in ["backup_enabled", "backup_period_seconds", "backup_dir"] {
        if reader.written(ignored) && (ignored != "backup_enabled" || reader.switch(ignored) == Some(true)) {
            reader.warn(ignored, "this version makes no backups yet; nothing is written".to_owned());
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut seconds = |key, default| Duration::from_secs(reader.number(key, 1, 86_400).unwrap_or(default));
    let signing_deadline = seconds("signing_deadline_seconds", 180);
    let keygen_deadline = seconds("keygen_deadline_seconds", 900);
    let clock_skew = seconds("clock_skew_seconds", 5);
    let max_concurrent_keygen = limit(reader, "max_concurrent_keygen", 2);
    let max_concurrent_signing = limit(reader, "max_concurrent_signing", 20);
    let workers = reader.number("workers", 1, 1024).and_then(|n| usize::try_from(n).ok()).unwrap_or(cores);
    let presignatures_max = u64::try_from(limits::PRESIGNATURES_PER_GROUP_MAX).unwrap_or(u64::MAX);
    let presignatures = reader.number("presignatures", 0, presignatures_max).and_then(|n| usize::try_from(n).ok());
    let presignatures = presignatures.unwrap_or(0);
    let db_path = reader.path("db_path").unwrap_or_else(|| PathBuf::from(DB_PATH_DEFAULT));
    reader.finish()?;
    let (Some(environment), Some(threshold), Some(initiator)) =
        (environment, threshold.and_then(|n| u16::try_from(n).ok()), initiator)
    else {
        // Whatever is required and missing has been noted, so `finish` has failed already.
        return Err(ConfigErrors(Vec::new()));
    };
    Ok(Settings {
        environment,
        nats,
        consul,
        threshold,
        threshold_counts: counting,
        ecdsa_protocol: ecdsa_protocol.unwrap_or(EcdsaProtocol::Cggmp24),
        store_password,
        initiator,
        chain_code,
        db_path,
        max_concurrent_keygen,
        max_concurrent_signing,
        presignatures,
        healthcheck: healthcheck.then_some(healthcheck_address),
        metrics: metrics.then_some(metrics_address),
        authorization,
        workers,
        signing_deadline,
        keygen_deadline,
        clock_skew,
    })
}

/// How many of something may run at once. The Go system took zero as its default, so configurations hold it.
fn limit(reader: &mut Reader, key: &str, default: usize) -> usize {
    match reader.number(key, 0, 1024).and_then(|number| usize::try_from(number).ok()) {
        Some(0) => {
            reader.warn(key, format!("0 means the default, {default}"));
            default
        }
        Some(number) => number,
        None => default,
    }
}

/// Reads how to reach NATS; problems stay in the reader.
pub fn nats(reader: &mut Reader) -> NatsSettings {
    let urls = reader.joint_list(&["nats.url", "nats.urls"]);
    if urls.is_empty() {
        reader.required("nats.url");
    }
    let mut client_certificate = client_certificate(reader, "nats.tls.client_cert", "nats.tls.client_key");
    let mut root_certificates = reader.path("nats.tls.ca_cert");
    // In production the Go system took these three files without being told to; a configuration that relied on them
    // keeps working.
    if reader.text("environment").as_deref() == Some("production")
        && client_certificate.is_none()
        && root_certificates.is_none()
    {
        let certs = ["client-cert.pem", "client-key.pem", "rootCA.pem"].map(|name| Path::new("certs").join(name));
        if let [certificate, key, root] = &certs
            && certs.iter().all(|path| path.is_file())
        {
            client_certificate = Some((certificate.clone(), key.clone()));
            root_certificates = Some(root.clone());
        }
    }
    let settings = NatsSettings {
        urls,
        username: reader.text("nats.username"),
        password: reader.text("nats.password").map(SecretText::new),
        credentials: reader.path("nats.credentials"),
        client_certificate,
        root_certificates,
        replicas: reader.choice("nats.replicas", REPLICAS).and_then(|number| number.parse().ok()),
        prefix: parsed(reader, "nats.prefix", |text| Prefix::parse(text).map_err(|error| error.to_string())),
        idle_consumers: Some(reader.number("nats.idle_consumer_days", 0, 36_500).unwrap_or(IDLE_CONSUMER_DAYS))
            .filter(|days| *days > 0)
            .map(|days| Duration::from_secs(days * 86_400)),
    };
    if settings.password.is_some() && settings.username.is_none() {
        reader.problem("nats.password", "needs nats.username beside it".to_owned());
    }
    settings
}

/// A client's certificate and its key, which belong together.
fn client_certificate(reader: &mut Reader, certificate: &str, key: &str) -> Option<(PathBuf, PathBuf)> {
    match (reader.path(certificate), reader.path(key)) {
        (Some(certificate), Some(key)) => return Some((certificate, key)),
        (None, None) => {}
        (Some(_), None) => reader.problem(certificate, format!("needs {key} beside it")),
        (None, Some(_)) => reader.problem(key, format!("needs {certificate} beside it")),
    }
    None
}

/// A key's value as its type, or the type's default; what is no such value is a problem of the reader's.
fn parsed<T: Default>(reader: &mut Reader, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
    let Some(text) = reader.text(key) else { return T::default() };
    parse(&text).unwrap_or_else(|problem| {
        reader.problem(key, problem);
        T::default()
    })
}

fn store_password(reader: &mut Reader) -> Option<SecretText> {
    let new = reader.text("store_password").map(SecretText::new);
    let old = reader.text("badger_password").map(SecretText::new);
    match (new, old) {
        (Some(new), Some(old)) if new != old => {
            reader.problem("badger_password", "differs from store_password, its new name; keep one of them".to_owned());
            None
        }
        (new, old) => new.or(old),
    }
}

/// Reads the master chain code; problems stay in the reader.
pub fn chain_code(reader: &mut Reader) -> Option<[u8; 32]> {
    let text = SecretText::new(reader.text("chain_code")?);
    let mut code = [0; 32];
    if text.expose().len() != 64 || hex::decode_to_slice(text.expose(), &mut code).is_err() {
        let got = text.expose().chars().count();
        reader.problem("chain_code", format!("expected 64 hexadecimal digits, got {got} characters"));
        return None;
    }
    Some(code)
}

fn initiator(reader: &mut Reader) -> Option<InitiatorKey> {
    let algorithm = reader.choice("event_initiator_algorithm", ALGORITHMS).unwrap_or_else(|| "ed25519".to_owned());
    let Some(text) = reader.text("event_initiator_pubkey") else {
        reader.required("event_initiator_pubkey");
        return None;
    };
    match InitiatorKey::parse(&algorithm, &text) {
        Ok(key) => Some(key),
        Err(error) => {
            reader.problem("event_initiator_pubkey", format!("{error} (event_initiator_algorithm is {algorithm})"));
            None
        }
    }
}

fn authorization(reader: &mut Reader) -> Authorization {
    let prefix = "authorization.authorizer_public_keys";
    let mut keys = BTreeMap::new();
    let enabled = reader.switch("authorization.enabled").unwrap_or(false);
    let required = reader.list("authorization.required_authorizers").unwrap_or_default();
    let mut ids = reader.children(prefix);
    // One that only variables tell of is known by being required.
    for id in &required {
        if !ids.contains(id) && reader.written(&format!("{prefix}.{id}.public_key")) {
            ids.push(id.clone());
        }
    }
    for id in ids {
        let key_name = format!("{prefix}.{id}.public_key");
        let algorithm =
            reader.choice(&format!("{prefix}.{id}.algorithm"), ALGORITHMS).unwrap_or_else(|| "ed25519".to_owned());
        match reader.text(&key_name) {
            None => reader.required(&key_name),
            Some(text) => match AuthorizerKey::parse(&algorithm, &text) {
                Ok(key) => drop(keys.insert(id, key)),
                Err(error) => reader.problem(&key_name, format!("{error} (its algorithm is {algorithm})")),
            },
        }
    }
    let authorization = Authorization {
        enabled,
        required,
        keys,
        full_signature_required: reader.switch("require_full_signature").unwrap_or(false),
    };
    for id in authorization.required.iter().filter(|id| enabled && authorization.key(id).is_none()) {
        reader.problem("authorization.required_authorizers", format!("{id} has no key under {prefix}"));
    }
    if enabled && authorization.required.is_empty() {
        let what = "NOBODY HAS TO APPROVE: it is true and authorization.required_authorizers names nobody, so the \
                    initiator's signature alone is enough";
        reader.warn("authorization.enabled", what.to_owned());
    }
    if !enabled && !authorization.required.is_empty() {
        let names = authorization.required.join(", ");
        let what = format!("NOBODY HAS TO APPROVE: it names {names}, and authorization.enabled is not true");
        reader.warn("authorization.required_authorizers", what);
    }
    authorization
}

#[cfg(test)]
mod tests;
