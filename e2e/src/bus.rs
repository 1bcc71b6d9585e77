//! What passes on the bus, seen by somebody who takes no part: every answer that the nodes publish, and raw traffic
//! for a stranger to repeat.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt as _;
use mpcium_client::{Kind, Prefix, SigningResult, subjects};

/// Every different answer to each signing request, by the request's id: the documents as they were published, also
/// those that the server recognised as repetitions and stored only once.
pub type AnswersById = BTreeMap<String, BTreeSet<Vec<u8>>>;

/// Listens to every answer to a signing request, for as long as it lives.
#[derive(Debug)]
pub struct Answers {
    seen: Arc<Mutex<AnswersById>>,
    task: tokio::task::JoinHandle<()>,
}

impl Answers {
    /// Starts listening to a cluster without a prefix.
    ///
    /// # Errors
    /// If the subscription fails.
    pub async fn listen(nats: &async_nats::Client) -> Result<Self, String> {
        Self::listen_to(nats, &Prefix::default()).await
    }

    /// Starts listening to a cluster.
    ///
    /// # Errors
    /// If the subscription fails.
    pub async fn listen_to(nats: &async_nats::Client, prefix: &Prefix) -> Result<Self, String> {
        let subject = prefix.subject("mpc.mpc_signing_result.>");
        let mut published = nats.subscribe(subject).await.map_err(|error| format!("answers: {error}"))?;
        nats.flush().await.map_err(|error| format!("answers: {error}"))?;
        let seen = Arc::<Mutex<AnswersById>>::default();
        let into = seen.clone();
        let task = tokio::spawn(async move {
            while let Some(message) = published.next().await {
                if let Ok(result) = SigningResult::from_json(&message.payload) {
                    let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.entry(result.tx_id).or_default().insert(message.payload.into());
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// What has been published so far.
    #[must_use]
    pub fn seen(&self) -> AnswersById {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Fails while requests of a kind are in the queue and not settled: waiting for a node, or taken by one.
///
/// # Errors
/// If some are, saying how many; also if the server does not say.
pub async fn settled(nats: &async_nats::Client, kind: Kind) -> Result<(), String> {
    let stream = subjects::request_stream_of(kind).name;
    let jetstream = async_nats::jetstream::new(nats.clone());
    let stream = jetstream.get_stream(stream).await.map_err(|error| error.to_string())?;
    let info = stream.consumer_info(subjects::request_durable(kind)).await.map_err(|error| error.to_string())?;
    if info.num_pending == 0 && info.num_ack_pending == 0 {
        return Ok(());
    }
    Err(format!(
        "{} wait for a node, {} are taken (delivered {}, settled up to {}, delivered again {}, pulls {})",
        info.num_pending,
        info.num_ack_pending,
        info.delivered.stream_sequence,
        info.ack_floor.stream_sequence,
        info.num_redelivered,
        info.num_waiting,
    ))
}

/// Fails unless every stream and every consumer of it is kept by `replicas` servers, all of them up to date.
///
/// # Errors
/// What is missing; also if the servers do not say.
pub async fn replicated(nats: &async_nats::Client, replicas: usize) -> Result<(), String> {
    replicated_where(nats, replicas, |_| true).await
}

/// As [`replicated`], but of the consumers only for those from which nodes take requests.
///
/// # Errors
/// As [`replicated`].
pub async fn queues_replicated(nats: &async_nats::Client, replicas: usize) -> Result<(), String> {
    let queues = [Kind::Keygen, Kind::Sign, Kind::Reshare].map(subjects::request_durable);
    replicated_where(nats, replicas, |name| queues.contains(&name)).await
}

async fn replicated_where(
    nats: &async_nats::Client,
    replicas: usize,
    counts: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let jetstream = async_nats::jetstream::new(nats.clone());
    for spec in subjects::STREAMS {
        let name = spec.name;
        let stream = jetstream.get_stream(name).await.map_err(|error| format!("{name}: {error}"))?;
        all_current(name, stream.cached_info().cluster.as_ref(), replicas)?;
        let mut consumers = stream.consumers();
        while let Some(consumer) = consumers.next().await {
            let consumer = consumer.map_err(|error| format!("the consumers of {name}: {error}"))?;
            if counts(&consumer.name) {
                all_current(&format!("{name} {}", consumer.name), consumer.cluster.as_ref(), replicas)?;
            }
        }
    }
    Ok(())
}

fn all_current(
    what: &str,
    cluster: Option<&async_nats::jetstream::stream::ClusterInfo>,
    replicas: usize,
) -> Result<(), String> {
    let cluster = cluster.ok_or_else(|| format!("{what} is not in a cluster"))?;
    if cluster.leader.is_none() {
        return Err(format!("{what} has no leader"));
    }
    let current = cluster.replicas.iter().filter(|replica| replica.current && !replica.offline).count();
    if current + 1 == replicas && cluster.replicas.len() == current {
        return Ok(());
    }
    Err(format!("{what} is led by {:?}, followers {:?}", cluster.leader, cluster.replicas))
}

/// The name of the server that leads a stream.
///
/// # Errors
/// If it has no leader, or the servers do not say.
pub async fn leader(nats: &async_nats::Client, stream: &str) -> Result<String, String> {
    let jetstream = async_nats::jetstream::new(nats.clone());
    let found = jetstream.get_stream(stream).await.map_err(|error| format!("{stream}: {error}"))?;
    let leader = found.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone());
    leader.ok_or_else(|| format!("{stream} has no leader"))
}

/// Bytes that a [`Watch`] keeps. A cluster says more in a long test; all kinds of messages come early.
const WATCHED_BYTES_MAX: usize = 128 << 20;

/// Keeps what passes on a bus, from the beginning as much as there is room for: also what the servers say to themselves.
#[derive(Debug)]
pub struct Watch {
    kept: Arc<Mutex<Watched>>,
    task: tokio::task::JoinHandle<()>,
}

/// What a [`Watch`] has kept.
#[derive(Debug, Default)]
pub struct Watched {
    /// Messages, each with its subject and headers.
    pub messages: Vec<Vec<u8>>,
    /// Bytes of them all.
    pub bytes: usize,
    /// Messages for which there was no room.
    pub missed: usize,
}

impl Watch {
    /// Begins to keep.
    ///
    /// # Errors
    /// If the subscription fails.
    pub async fn begin(nats: &async_nats::Client) -> Result<Self, String> {
        let mut all = nats.subscribe(">").await.map_err(|error| format!("watching: {error}"))?;
        nats.flush().await.map_err(|error| format!("watching: {error}"))?;
        let kept = Arc::<Mutex<Watched>>::default();
        let into = kept.clone();
        let task = tokio::spawn(async move {
            while let Some(message) = all.next().await {
                let mut bytes = message.subject.as_str().as_bytes().to_vec();
                for (name, values) in message.headers.iter().flat_map(async_nats::HeaderMap::iter) {
                    let value: String = values.iter().map(|value| format!("\n{name}: {}", value.as_str())).collect();
                    bytes.extend(value.bytes());
                }
                bytes.push(b'\n');
                bytes.extend_from_slice(&message.payload);
                let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.bytes + bytes.len() > WATCHED_BYTES_MAX {
                    kept.missed += 1;
                } else {
                    kept.bytes += bytes.len();
                    kept.messages.push(bytes);
                }
            }
        });
        Ok(Self { kept, task })
    }

    /// Takes what was kept so far; then there is room again.
    #[must_use]
    pub fn take(&self) -> Watched {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One message as it passed.
#[derive(Clone, Debug)]
pub struct Passed {
    /// Its subject.
    pub subject: async_nats::Subject,
    /// Its headers.
    pub headers: Option<async_nats::HeaderMap>,
    /// Its bytes.
    pub payload: bytes::Bytes,
}

/// Records the cluster's subjects while `during` runs: what nodes say to each other, requests and answers.
///
/// # Errors
/// If the subscription fails, or `during` does.
pub async fn record<T>(
    nats: &async_nats::Client,
    during: impl Future<Output = Result<T, String>>,
) -> Result<(T, Vec<Passed>), String> {
    let mut all = nats.subscribe(">").await.map_err(|error| format!("recording: {error}"))?;
    nats.flush().await.map_err(|error| format!("recording: {error}"))?;
    let done = during.await?;
    all.unsubscribe().await.map_err(|error| format!("recording: {error}"))?;
    let mut passed = Vec::new();
    while let Some(message) = all.next().await {
        let subject = message.subject.as_str();
        if ["mpcium.", "mpc.", "mpc:"].iter().any(|prefix| subject.starts_with(prefix)) {
            passed.push(Passed { subject: message.subject, headers: message.headers, payload: message.payload });
        }
    }
    Ok((done, passed))
}
