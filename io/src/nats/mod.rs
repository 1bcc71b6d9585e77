//! NATS: JetStream for requests and results, core NATS for datagrams between nodes.
//!
//! The bus is treated as lossy and duplicating: nothing here is a ledger, and losing any message only costs time.
//! One connection carries everything. It is made and remade without end, and what it waits for is told in
//! [`Notices`]. Streams, durables and their configuration are the contract with clients; names and shapes stand in
//! `streams` and `consumers`.

#[cfg(test)]
mod access_tests;
mod consumers;
mod copies;
mod datagrams;
mod inspect;
mod intake;
mod keeper;
mod queries;
mod raw;
mod requests;
mod reshare;
mod results;
mod streams;
#[cfg(test)]
mod tests;
mod tidy;
#[cfg(test)]
mod tidy_tests;
mod trust;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event,
    jetstream::{self, Context},
};
use mpcium_client::Prefix;
use mpcium_core::NodeId;
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};
use zeroize::Zeroizing;

pub use consumers::Deadlines;
pub use datagrams::NatsDatagrams;
pub use inspect::{Inspection, QueueDepth, Queues, StreamFound};
pub use requests::NatsRequests;
pub use results::NatsResults;
pub use trust::NatsTls;

use crate::{
    nats::trust::explained,
    notice::{Notices, Retry},
    ports::Inbox,
};

/// Prefix of reply subjects, the same as the existing system's: access lists name it.
const INBOX_PREFIX: &str = "_INBOX_mpcium";
/// Commands (publications, mostly) that may wait for the socket before datagrams are dropped.
const COMMANDS_WAITING_MAX: usize = 8 * 1024;
/// How long one request to JetStream may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that carries nothing for two of these is dead.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// First wait before reconnecting; doubles up to [`RECONNECT_WAIT_MAX`].
const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(50);
/// Longest wait before reconnecting.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long [`Nats::close`] waits for acknowledgements and results on their way.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Oldest server, as major and minor version: 2.9 drops the multi-filter consumers that the Go client creates.
const SERVER_OLDEST: (i64, i64) = (2, 10);

/// How to reach NATS, and who we are there.
#[derive(Clone)]
pub struct NatsOptions {
    /// One or several server addresses, separated by commas: `nats://host:4222`, `tls://host:4222`.
    pub url: String,
    /// The connection's name in the server's lists.
    pub name: String,
    /// User and password.
    pub user: Option<(String, Zeroizing<String>)>,
    /// A credentials file (a user's JWT and its seed).
    pub credentials: Option<PathBuf>,
    /// TLS; `None`: as the server and the address demand, with the machine's certificate authorities.
    pub tls: Option<NatsTls>,
    /// Copies that the servers of a cluster keep of each stream; `None`: one of new streams, and whatever those that
    /// exist have.
    pub replicas: Option<usize>,
    /// Clients' consumers of results that nobody has used for so long are removed; `None`: never.
    pub idle_consumers: Option<Duration>,
    /// What stands before every subject and every stream's name; clusters that share a server differ in it.
    pub prefix: Prefix,
}

impl NatsOptions {
    /// Plain options for one address.
    #[must_use]
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            name: name.into(),
            user: None,
            credentials: None,
            tls: None,
            replicas: None,
            idle_consumers: None,
            prefix: Prefix::default(),
        }
    }

    async fn build(&self, link: &Arc<Link>) -> Result<ConnectOptions, NatsError> {
        let events = link.clone();
        let mut options = ConnectOptions::new()
            .name(&self.name)
            .custom_inbox_prefix(INBOX_PREFIX)
            .client_capacity(COMMANDS_WAITING_MAX)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            .max_reconnects(None)
            .reconnect_delay_callback(|attempts| {
                let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
                (RECONNECT_WAIT_MIN * 2_u32.pow(doublings)).min(RECONNECT_WAIT_MAX)
            })
            .event_callback(move |event| {
                events.happened(&event);
                async {}
            });
        if let Some((user, password)) = &self.user {
            options = options.user_and_password(user.clone(), password.to_string());
        }
        if let Some(path) = &self.credentials {
            options = options.credentials_file(path).await.map_err(|error| NatsError::file(path, &error))?;
        }
        // Also for servers that the first one tells of, in words that anybody on the way could have put there.
        let tls_everywhere = self.tls.is_some() || self.url.split(',').any(|url| url.trim().starts_with("tls://"));
        options = options.require_tls(tls_everywhere);
        if let Some(tls) = &self.tls {
            tls.check()?;
            if let Some(path) = &tls.authority {
                options = options.add_root_certificates(path.clone());
            }
            if let Some((certificate, key)) = &tls.client {
                options = options.add_client_certificate(certificate.clone(), key.clone());
            }
        }
        Ok(options)
    }
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions")
            .field("url", &without_password(&self.url))
            .field("name", &self.name)
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .field("credentials", &self.credentials)
            .field("tls", &self.tls)
            .field("replicas", &self.replicas)
            .field("idle_consumers", &self.idle_consumers)
            .field("prefix", &self.prefix.as_str())
            .finish()
    }
}

/// Addresses may carry `user:password@`.
fn without_password(urls: &str) -> String {
    let hide = |url: &str| match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://{}", &url[..scheme], &url[at + 1..]),
        (None, Some(at)) => url[at + 1..].to_owned(),
        _ => url.to_owned(),
    };
    urls.split(',').map(hide).collect::<Vec<_>>().join(",")
}

/// Why NATS cannot be used until somebody changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsError {
    /// The address cannot be parsed.
    Address(String),
    /// A file cannot be read.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The server is too old.
    ServerTooOld {
        /// Its address.
        url: String,
        /// What it says of itself.
        version: String,
    },
    /// A stream or a consumer stands in the way; the text says what to do.
    Conflict(String),
}

impl NatsError {
    fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File { path: path.to_owned(), reason: error.to_string() }
    }
}

impl fmt::Display for NatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(what) => write!(f, "the NATS address cannot be used: {what}"),
            Self::File { path, reason } => write!(f, "{} cannot be read: {reason}", path.display()),
            Self::ServerTooOld { url, version } => write!(
                f,
                "the NATS server at {url} is version {version}; {}.{} or newer is needed, because older ones drop the \
                 consumers that existing clients create",
                SERVER_OLDEST.0, SERVER_OLDEST.1
            ),
            Self::Conflict(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for NatsError {}

/// What all parts that share the connection know of it.
#[derive(Debug)]
struct Link {
    notices: Notices,
    /// See [`NatsOptions::prefix`].
    prefix: Prefix,
    /// See [`NatsOptions::replicas`].
    replicas: Option<usize>,
    /// How often the connection came up; parts that must repeat something afterwards watch it.
    connections: watch::Sender<u64>,
    /// Somebody found that the streams are not as they should be.
    suspicion: Notify,
    /// A stream was given more copies.
    raised: Notify,
    /// Acknowledgements and results that the server has not confirmed.
    unconfirmed: watch::Sender<usize>,
    /// While the connection is down: what is told of the attempts to make it again.
    reconnecting: Mutex<Option<Retry>>,
}

impl Link {
    fn new(notices: Notices, options: &NatsOptions) -> Arc<Self> {
        Arc::new(Self {
            notices,
            prefix: options.prefix.clone(),
            replicas: options.replicas,
            connections: watch::Sender::new(0),
            suspicion: Notify::new(),
            raised: Notify::new(),
            unconfirmed: watch::Sender::new(0),
            reconnecting: Mutex::new(None),
        })
    }

    fn happened(&self, event: &Event) {
        let mut reconnecting = self.reconnecting.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Connected => {
                *reconnecting = None;
                self.connections.send_modify(|count| *count += 1);
                self.notices.info("connected");
            }
            Event::Disconnected => {
                *reconnecting = Some(Retry::new(&self.notices, "the NATS server"));
                self.notices.warn("connection lost; reconnecting");
            }
            Event::SlowConsumer(_) => {
                self.notices.warn("messages arrive faster than they are taken; some were dropped")
            }
            Event::LameDuckMode => self.notices.info("the server is about to stop"),
            Event::ServerError(error) => self.notices.warn(format!("the server says: {error}")),
            Event::ClientError(error) => match reconnecting.as_mut() {
                // The client library keeps the pace; this only keeps it from being told every time.
                Some(retry) => drop(retry.failed(&explained(&error.to_string()))),
                None => self.notices.warn(error.to_string()),
            },
            Event::Draining | Event::Closed => {}
        }
    }

    /// Counts something as unconfirmed until the guard is dropped.
    fn unconfirmed(self: &Arc<Self>) -> Unconfirmed {
        self.unconfirmed.send_modify(|count| *count += 1);
        Unconfirmed(self.clone())
    }
}

/// See [`Link::unconfirmed`].
#[derive(Debug)]
struct Unconfirmed(Arc<Link>);

impl Drop for Unconfirmed {
    fn drop(&mut self) {
        self.0.unconfirmed.send_modify(|count| *count -= 1);
    }
}

/// The connection. Dropping it stops everything that it started.
#[derive(Debug)]
pub struct Nats {
    client: Client,
    context: Context,
    link: Arc<Link>,
    idle_consumers: Option<Duration>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// The node's ports on NATS.
#[derive(Debug)]
pub struct NatsPorts {
    /// To peers.
    pub datagrams: NatsDatagrams,
    /// From clients.
    pub requests: NatsRequests,
    /// To clients.
    pub results: NatsResults,
}

impl Nats {
    /// Connects, for as long as it takes. Must be called under tokio.
    ///
    /// # Errors
    /// Only what waiting does not cure: see [`NatsError`].
    pub async fn connect(options: &NatsOptions, notices: Notices) -> Result<Self, NatsError> {
        // Fails when the process has chosen a provider already, which is as good.
        let _ = async_nats::rustls::crypto::ring::default_provider().install_default();
        let shown = without_password(&options.url);
        let link = Link::new(notices.clone(), options);
        let mut retry = Retry::new(&notices, format!("the NATS server at {shown}"));
        let addresses: Vec<&str> = options.url.split(',').map(str::trim).collect();
        let client = loop {
            let attempt = options.build(&link).await?;
            match attempt.connect(addresses.as_slice()).await {
                Ok(client) => break client,
                Err(error) if error.kind() == ConnectErrorKind::ServerParse => {
                    return Err(NatsError::Address(shown));
                }
                Err(error) => tokio::time::sleep(retry.failed(&explained(&error.to_string()))).await,
            }
        };
        if !client.is_server_compatible(SERVER_OLDEST.0, SERVER_OLDEST.1, 0) {
            return Err(NatsError::ServerTooOld { url: shown, version: client.server_info().version });
        }
        retry.succeeded();
        // The event follows the connection; what repeats itself at each connection must not count the first one.
        let mut connections = link.connections.subscribe();
        let _ = tokio::time::timeout(CONNECT_TIMEOUT, connections.wait_for(|count| *count > 0)).await;
        let context = jetstream::context::ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client.clone());
        Ok(Self { client, context, link, idle_consumers: options.idle_consumers, tasks: Mutex::default() })
    }

    /// Makes the streams and the durables what they must be, for as long as that takes, subscribes this node, and
    /// starts the tasks behind the ports. Intake of requests starts closed.
    ///
    /// # Errors
    /// [`NatsError::Conflict`] when a stream of ours exists with properties that cannot be changed.
    pub async fn ports(&self, me: NodeId, inbox: &Inbox, deadlines: Deadlines) -> Result<NatsPorts, NatsError> {
        let mut retry = Retry::new(&self.link.notices, "JetStream");
        loop {
            match keeper::put_right(&self.context, deadlines, &self.link).await {
                Ok(keeper::Done::Whole) => break,
                // The streams can be used as they are, and the keeper goes on trying.
                Ok(keeper::Done::Except(what)) => {
                    self.link.notices.warn(what);
                    break;
                }
                Err(keeper::Trouble::Conflict(what)) => return Err(NatsError::Conflict(what)),
                Err(keeper::Trouble::Temporary(what)) => tokio::time::sleep(retry.failed(&what)).await,
            }
        }
        retry.succeeded();
        self.run(keeper::keep(self.client.clone(), self.context.clone(), self.link.clone(), deadlines));
        if let Some(replicas) = self.link.replicas.filter(|replicas| *replicas > 1) {
            self.run(copies::run(self.context.clone(), self.link.clone(), replicas));
        }
        if let Some(idle) = self.idle_consumers {
            self.run(tidy::run(self.context.clone(), self.link.clone(), idle));
        }
        self.run(reshare::forward(self.client.clone(), self.context.clone(), self.link.clone()));
        self.run(datagrams::receive(
            self.client.clone(),
            datagrams::subject(&self.link.prefix, me),
            inbox.clone(),
            self.link.clone(),
        ));

        let requests = NatsRequests::new(self.client.clone(), self.link.clone());
        for (spec, intake) in requests.intakes() {
            self.run(intake::run(intake::Intake {
                spec,
                context: self.context.clone(),
                link: self.link.clone(),
                table: requests.table(),
                inbox: inbox.clone(),
                deadlines,
                open: intake,
            }));
        }
        let replies = Arc::<queries::Replies>::default();
        self.run(queries::receive(self.client.clone(), replies.clone(), inbox.clone(), self.link.clone()));
        Ok(NatsPorts {
            datagrams: NatsDatagrams::new(self.client.clone(), self.link.prefix.clone()),
            requests,
            results: NatsResults::new(self.context.clone(), self.link.clone(), inbox.clone(), replies),
        })
    }

    /// Whether the connection is up now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// The connection, for the parts of the process that answer queries on it.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Gives acknowledgements and results a moment to reach the server, then stops everything.
    pub async fn close(self) {
        let mut unconfirmed = self.link.unconfirmed.subscribe();
        // Whether it was in time makes no difference to what follows: the queue delivers again.
        let _ = tokio::time::timeout(CLOSE_WAIT_MAX, unconfirmed.wait_for(|count| *count == 0)).await;
        // A subscription that ends from here on is no trouble.
        self.stop_tasks();
        let _ = tokio::time::timeout(CLOSE_WAIT_MAX, self.client.drain()).await;
    }

    fn stop_tasks(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task).abort_handle();
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.stop_tasks();
    }
}
