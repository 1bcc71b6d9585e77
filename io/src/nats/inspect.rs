//! Looking without changing anything: how deep the queues are, and whether streams, consumers and permissions are what
//! a node needs. For metrics and for people who look for what is wrong.

use std::time::Duration;

use async_nats::{
    HeaderMap, Request,
    jetstream::{Context, ErrorCode, context::GetStreamErrorKind, stream},
};
use futures::future;
use mpcium_client::{Prefix, subjects};
use mpcium_core::{NodeId, input::RequestKind};
use serde::Deserialize;

use super::{Nats, consumers, datagrams, streams};

/// How long one question may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How much a queue of requests holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueDepth {
    /// `keygen`, `sign` or `reshare`.
    pub kind: &'static str,
    /// Requests that no node has taken.
    pub waiting: u64,
    /// Requests that some node has taken and not settled.
    pub unacknowledged: u64,
}

/// Asks the queues. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queues(Context, Prefix);

impl Queues {
    /// The depth of each queue that exists and answers in time.
    pub async fn depths(&self) -> Vec<QueueDepth> {
        let depths = consumers::REQUESTS.iter().map(|spec| async {
            let stream = self.0.get_stream_no_info(self.1.stream(spec.stream)).await.ok()?;
            let info = stream.consumer_info(spec.durable).await.ok()?;
            Some(QueueDepth {
                kind: match spec.kind {
                    RequestKind::Keygen => "keygen",
                    RequestKind::Sign => "sign",
                    RequestKind::Reshare => "reshare",
                },
                waiting: info.num_pending,
                unacknowledged: u64::try_from(info.num_ack_pending).unwrap_or(u64::MAX),
            })
        });
        let all = tokio::time::timeout(ANSWER_MAX, future::join_all(depths)).await;
        all.unwrap_or_default().into_iter().flatten().collect()
    }
}

/// One stream as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFound {
    /// Its name.
    pub name: String,
    /// What differs from what it must be; `None`: there is no such stream.
    pub differs: Option<Vec<String>>,
    /// Whether a difference is one that no node can put right.
    pub conflict: bool,
    /// Copies of it that the servers keep.
    pub replicas: usize,
    /// The durable consumers that are missing although their stream is there.
    pub consumers_missing: Vec<String>,
}

/// What a look at the bus found.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The server's version.
    pub version: String,
    /// Servers of its cluster that it knows of, itself included.
    pub servers: usize,
    /// Its clock, in RFC 3339; unknown while no stream exists.
    pub time: Option<String>,
    /// The streams, in the order in which they are made.
    pub streams: Vec<StreamFound>,
}

impl Nats {
    /// A handle with which the queues can be asked.
    #[must_use]
    pub fn queues(&self) -> Queues {
        Queues(self.context.clone(), self.link.prefix.clone())
    }

    /// Looks at everything that [`Nats::ports`] would put right, and changes nothing.
    ///
    /// # Errors
    /// If JetStream does not answer, or refuses.
    pub async fn inspect(&self) -> Result<Inspection, String> {
        let server = self.client.server_info();
        let mut found = Vec::new();
        let mut time = None;
        for spec in subjects::STREAMS {
            let one = self.look_at(spec).await?;
            if time.is_none() && one.differs.is_some() {
                time = self.time(&one.name).await;
            }
            found.push(one);
        }
        Ok(Inspection { version: server.version, servers: server.connect_urls.len().max(1), time, streams: found })
    }

    async fn look_at(&self, spec: &subjects::StreamSpec) -> Result<StreamFound, String> {
        let name = self.link.prefix.stream(spec.name);
        let mut found =
            StreamFound { name, differs: None, conflict: false, replicas: 0, consumers_missing: Vec::new() };
        let stream = match self.context.get_stream(&found.name).await {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    return Ok(found);
                }
                _ => return Err(format!("stream {}: {error}", found.name)),
            },
        };
        let config = &stream.cached_info().config;
        found.replicas = config.num_replicas;
        found.conflict = config.retention != streams::retention(spec) || config.storage != stream::StorageType::File;
        let wanted = streams::wanted(spec, &self.link.prefix, Some(config));
        let mut differs = Vec::new();
        if let Some(replicas) = self.link.replicas.filter(|replicas| *replicas != config.num_replicas) {
            differs.push(format!("{} replica(s), expected {replicas} (nats.replicas)", config.num_replicas));
        }
        if found.conflict {
            differs.push(format!(
                "retention {:?} on {:?} storage, expected {:?} on File",
                config.retention, config.storage, spec.retention
            ));
        }
        if wanted.subjects != config.subjects {
            differs.push(format!("subjects {}, expected {}", config.subjects.join(", "), wanted.subjects.join(", ")));
        }
        if wanted.max_age != config.max_age {
            differs.push(format!("max_age {:?}, expected {:?}", config.max_age, wanted.max_age));
        }
        if wanted.max_bytes != config.max_bytes {
            differs.push(format!("max_bytes {}, expected {}", config.max_bytes, wanted.max_bytes));
        }
        if differs.is_empty() && wanted != *config {
            differs.push("other settings".to_owned());
        }
        found.differs = Some(differs);
        for consumer in consumers::durables_of(spec.name) {
            if consumers::info(&self.context, &found.name, &consumer).await.ok().flatten().is_none() {
                found.consumers_missing.push(consumer);
            }
        }
        Ok(found)
    }

    /// The server's clock, which it puts into what it says of a stream.
    async fn time(&self, stream: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Said {
            ts: Option<String>,
        }
        let request = Request::new().timeout(Some(ANSWER_MAX));
        let answer = self.client.send_request(format!("$JS.API.STREAM.INFO.{stream}"), request).await.ok()?;
        serde_json::from_slice::<Said>(&answer.payload).ok()?.ts
    }

    /// Uses each right that a node needs once, without effect for anybody: what the server refuses arrives as a notice
    /// (`the server says: … permissions violation …`) before this returns. Returns what was not answered.
    pub async fn try_rights(&self, me: NodeId) -> Vec<String> {
        let mut unanswered = Vec::new();
        let prefix = &self.link.prefix;
        let own = datagrams::subject(prefix, me);
        let subscription = self.client.subscribe(own).await;
        // No node has this name, so nobody listens.
        let nobody = datagrams::subject(prefix, "doctor");
        if self.client.publish(nobody, Vec::new().into()).await.is_err() {
            unanswered.push("a datagram could not be published".to_owned());
        }
        for subject in ["mpc.mpc_keygen_result.doctor", "mpc.mpc_signing_result.doctor"] {
            // The stream refuses what expects another stream: the right is used and nothing is stored.
            let mut headers = HeaderMap::new();
            headers.insert(async_nats::header::NATS_EXPECTED_STREAM, "no-such-stream");
            let request = Request::new().headers(headers).timeout(Some(ANSWER_MAX));
            let subject = prefix.subject(subject);
            if let Err(error) = self.client.send_request(subject.clone(), request).await
                && error.kind() == async_nats::RequestErrorKind::TimedOut
            {
                unanswered.push(format!("nothing answers on {subject}"));
            }
        }
        // The server handles what one connection sends in order: after this round trip it has said everything.
        if self.client.flush().await.is_ok() {
            let ping = Request::new().timeout(Some(ANSWER_MAX));
            let _ = self.client.send_request("$JS.API.INFO", ping).await;
        }
        drop(subscription);
        unanswered
    }
}
