//! The streams that clients and nodes share: the contract is that a client may create or update them at any time,
//! with its own idea of their limits, and that ours wins again soon after.
//!
//! Retention and storage cannot be changed by anybody, so they must be as the clients' own updates say. What an
//! operator may want differently (placement, metadata) is left as it is found, and so is the number of replicas unless
//! the node is told one.

use std::time::Duration;

use async_nats::jetstream::{
    Context, ErrorCode,
    context::{CreateStreamError, CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, SubjectTransform},
};

use mpcium_client::Prefix;

use super::{
    Link,
    keeper::{Done, Trouble},
};

/// Bytes that a stream holds before it forgets its oldest messages.
const BYTES_MAX: i64 = 100_000_000;
/// How long a request stays in its stream, answered or not.
const REQUEST_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Within this time a repeated de-duplication id is recognised (the server's default, which clients also send).
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The stream of reshare requests, ours alone.
pub(super) const RESHARE: &str = "mpc-reshare";

/// What must hold for one stream.
pub(super) struct StreamSpec {
    /// Its name, before which the prefix comes; and so it does below.
    pub name: &'static str,
    /// What it captures.
    pub subjects: &'static [&'static str],
    /// How long messages stay.
    pub retention: RetentionPolicy,
    /// How long they stay at most; zero: for ever.
    pub age_max: Duration,
}

/// All streams.
pub(super) const STREAMS: [StreamSpec; 4] = [
    StreamSpec {
        name: "mpc-keygen",
        subjects: &["mpc.keygen_request.*"],
        retention: RetentionPolicy::Limits,
        age_max: REQUEST_AGE_MAX,
    },
    StreamSpec {
        name: "mpc-signing",
        subjects: &["mpc.signing_request.*"],
        retention: RetentionPolicy::Limits,
        age_max: REQUEST_AGE_MAX,
    },
    StreamSpec {
        name: RESHARE,
        subjects: &["mpc.reshare_request.*"],
        retention: RetentionPolicy::Limits,
        age_max: REQUEST_AGE_MAX,
    },
    StreamSpec {
        name: "mpc",
        subjects: &["mpc.mpc_keygen_result.>", "mpc.mpc_signing_result.>", "mpc.mpc_reshare_result.>"],
        retention: RetentionPolicy::WorkQueue,
        age_max: Duration::ZERO,
    },
];

impl StreamSpec {
    /// The configuration that this stream must have, given the one that it has, whose replicas are left alone.
    pub(super) fn wanted(&self, prefix: &Prefix, existing: Option<&Config>) -> Config {
        let mut config = existing.cloned().unwrap_or_else(|| Config {
            name: prefix.stream(self.name),
            retention: self.retention,
            storage: StorageType::File,
            num_replicas: 1,
            max_consumers: -1,
            ..Config::default()
        });
        config.description = Some(format!("Stream for {}", self.name));
        config.subjects = self.subjects.iter().map(|subject| prefix.subject(subject)).collect();
        config.max_age = self.age_max;
        config.max_bytes = BYTES_MAX;
        config.max_messages = -1;
        config.max_messages_per_subject = -1;
        config.max_message_size = -1;
        config.discard = DiscardPolicy::Old;
        config.no_ack = false;
        config.duplicate_window = config.duplicate_window.max(DUPLICATE_WINDOW);
        // Nothing depends on the subject under which a request is stored. One that the nodes' library cannot read (white
        // space beyond ASCII, no UTF-8) would cost each node that is given the request its connection.
        if let (RetentionPolicy::Limits, [subject]) = (self.retention, config.subjects.as_slice()) {
            let destination = subject.replace('*', "request");
            config.subject_transform = Some(SubjectTransform { source: subject.clone(), destination });
        }
        config
    }
}

/// Creates a stream, or brings the one that exists back to what it must be.
///
/// Replicas come last and on their own: they cannot be raised while too few servers are up, and a stream with too few
/// can be used meanwhile.
pub(super) async fn put_right(context: &Context, spec: &StreamSpec, link: &Link) -> Result<Done, Trouble> {
    let (name, notices) = (link.prefix.stream(spec.name), &link.notices);
    let existing = match context.get_stream(&name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                return create(context, spec, link).await;
            }
            _ => return Err(Trouble::Temporary(format!("stream {name}: {error}"))),
        },
    };
    if existing.retention != spec.retention || existing.storage != StorageType::File {
        return Err(Trouble::Conflict(format!(
            "the stream {name} exists with retention {:?} on {:?} storage, but clients need {:?} on File, and the \
             server cannot change that: stop all nodes and clients, remove the stream (`nats stream rm {name}`; \
             what it holds is lost), then start the nodes first",
            existing.retention, existing.storage, spec.retention,
        )));
    }
    let mut wanted = spec.wanted(&link.prefix, Some(&existing));
    if wanted != existing {
        context.update_stream(&wanted).await.map_err(|error| trouble(&wanted, &error))?;
        notices.info(format!("the stream {name} had been changed; its configuration is restored"));
    }
    let Some(replicas) = link.replicas.filter(|replicas| *replicas != existing.num_replicas) else {
        return Ok(Done::Whole);
    };
    wanted.num_replicas = replicas;
    match context.update_stream(&wanted).await {
        Ok(_) => {
            notices.info(format!("the stream {name} had {} replicas; it gets {replicas}", existing.num_replicas));
            link.raised.notify_one();
            Ok(Done::Whole)
        }
        Err(error) => match trouble(&wanted, &error) {
            Trouble::Temporary(text) => Ok(Done::Except(format!(
                "{text}: it has {} replicas instead of {replicas} (nats.replicas)",
                existing.num_replicas
            ))),
            conflict @ Trouble::Conflict(_) => Err(conflict),
        },
    }
}

async fn create(context: &Context, spec: &StreamSpec, link: &Link) -> Result<Done, Trouble> {
    let config = Config { num_replicas: link.replicas.unwrap_or(1), ..spec.wanted(&link.prefix, None) };
    context.create_stream(&config).await.map_err(|error| trouble(&config, &error))?;
    link.notices.info(format!("the stream {} is created", config.name));
    Ok(Done::Whole)
}

fn trouble(config: &Config, error: &CreateStreamError) -> Trouble {
    let text = format!("stream {}: {error}", config.name);
    match error.kind() {
        CreateStreamErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP => {
            Trouble::Conflict(format!(
                "{text}: another stream captures {}; remove or change it",
                config.subjects.join(", ")
            ))
        }
        CreateStreamErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => {
            Trouble::Conflict(format!(
                "{text}: nats.replicas is more than 1, but the server is alone; make it a member of a NATS cluster of \
                 that many servers, or leave nats.replicas out"
            ))
        }
        _ => Trouble::Temporary(text),
    }
}
