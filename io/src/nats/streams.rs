//! The streams that clients and nodes share: the contract is that a client may create or update them at any time,
//! with its own idea of their limits, and that ours wins again soon after.
//!
//! Retention and storage cannot be changed by anybody, so they must be as the clients' own updates say. What an
//! operator may want differently (placement, metadata) is left as it is found, and so is the number of replicas unless
//! the node is told one.

use async_nats::jetstream::{
    Context, ErrorCode,
    context::{CreateStreamError, CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, SubjectTransform},
};

use mpcium_client::{
    Prefix,
    subjects::{Retention, StreamSpec},
};

use super::{
    Link,
    keeper::{Done, Trouble},
};

/// The configuration that a stream must have, given the one that it has, whose replicas are left alone.
pub(super) fn wanted(spec: &StreamSpec, prefix: &Prefix, existing: Option<&Config>) -> Config {
    let mut config = existing.cloned().unwrap_or_else(|| Config {
        name: prefix.stream(spec.name),
        retention: retention(spec),
        storage: StorageType::File,
        num_replicas: 1,
        max_consumers: -1,
        ..Config::default()
    });
    config.description = Some(spec.description.to_owned());
    config.subjects = spec.subjects.iter().map(|subject| prefix.subject(subject)).collect();
    config.max_age = spec.max_age.unwrap_or_default();
    config.max_bytes = spec.max_bytes;
    config.max_messages = -1;
    config.max_messages_per_subject = -1;
    config.max_message_size = -1;
    config.discard = DiscardPolicy::Old;
    config.no_ack = false;
    config.duplicate_window = config.duplicate_window.max(spec.duplicate_window);
    // Nothing depends on the subject under which a request is stored. One that the nodes' library cannot read (white
    // space beyond ASCII, no UTF-8) would cost each node that is given the request its connection.
    if let (Retention::Limits, [subject]) = (spec.retention, config.subjects.as_slice()) {
        let destination = subject.replace('*', "request");
        config.subject_transform = Some(SubjectTransform { source: subject.clone(), destination });
    }
    config
}

/// How a stream must forget, in the words of the client library.
pub(super) fn retention(spec: &StreamSpec) -> RetentionPolicy {
    match spec.retention {
        Retention::Limits => RetentionPolicy::Limits,
        Retention::WorkQueue => RetentionPolicy::WorkQueue,
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
    if existing.retention != retention(spec) || existing.storage != StorageType::File {
        return Err(Trouble::Conflict(format!(
            "the stream {name} exists with retention {:?} on {:?} storage, but clients need {:?} on File, and the \
             server cannot change that: stop all nodes and clients, remove the stream (`nats stream rm {name}`; \
             what it holds is lost), then start the nodes first",
            existing.retention,
            existing.storage,
            retention(spec),
        )));
    }
    let mut wanted = wanted(spec, &link.prefix, Some(&existing));
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
    let config = Config { num_replicas: link.replicas.unwrap_or(1), ..wanted(spec, &link.prefix, None) };
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
