//! The streams that clients and nodes share: the contract is that a client may create or update them at any time,
//! with its own idea of their limits, and that ours wins again soon after.
//!
//! Retention and storage cannot be changed by anybody, so they must be as the clients' own updates say. What an
//! operator may want differently (replicas, placement, metadata) is left as it is found.

use std::time::Duration;

use async_nats::jetstream::{
    Context, ErrorCode,
    context::{CreateStreamError, CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, SubjectTransform},
};

use super::keeper::Trouble;
use crate::notice::Notices;

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
    /// Its name.
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
    /// The configuration that this stream must have, given the one that it has.
    pub(super) fn wanted(&self, existing: Option<&Config>) -> Config {
        let mut config = existing.cloned().unwrap_or_else(|| Config {
            name: self.name.to_owned(),
            retention: self.retention,
            storage: StorageType::File,
            num_replicas: 1,
            max_consumers: -1,
            ..Config::default()
        });
        config.description = Some(format!("Stream for {}", self.name));
        config.subjects = self.subjects.iter().map(|&subject| subject.to_owned()).collect();
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
pub(super) async fn put_right(context: &Context, spec: &StreamSpec, notices: &Notices) -> Result<(), Trouble> {
    let existing = match context.get_stream(spec.name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                return create(context, spec, notices).await;
            }
            _ => return Err(Trouble::Temporary(format!("stream {}: {error}", spec.name))),
        },
    };
    if existing.retention != spec.retention || existing.storage != StorageType::File {
        return Err(Trouble::Conflict(format!(
            "the stream {name} exists with retention {:?} on {:?} storage, but clients need {:?} on File, and the \
             server cannot change that: stop all nodes and clients, remove the stream (`nats stream rm {name}`; \
             what it holds is lost), then start the nodes first",
            existing.retention,
            existing.storage,
            spec.retention,
            name = spec.name,
        )));
    }
    let wanted = spec.wanted(Some(&existing));
    if wanted == existing {
        return Ok(());
    }
    context.update_stream(&wanted).await.map_err(|error| trouble(spec, &error))?;
    notices.info(format!("the stream {} had been changed; its configuration is restored", spec.name));
    Ok(())
}

async fn create(context: &Context, spec: &StreamSpec, notices: &Notices) -> Result<(), Trouble> {
    context.create_stream(spec.wanted(None)).await.map_err(|error| trouble(spec, &error))?;
    notices.info(format!("the stream {} is created", spec.name));
    Ok(())
}

fn trouble(spec: &StreamSpec, error: &CreateStreamError) -> Trouble {
    let text = format!("stream {}: {error}", spec.name);
    match error.kind() {
        CreateStreamErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP => {
            Trouble::Conflict(format!(
                "{text}: another stream captures {}; remove or change it",
                spec.subjects.join(", ")
            ))
        }
        _ => Trouble::Temporary(text),
    }
}
