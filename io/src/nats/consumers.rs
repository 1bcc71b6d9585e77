//! The durable consumers: those from which nodes take requests, and those that clients without an id read results by.
//!
//! One request durable is shared by all nodes. Its name and filter belong to the contract; its redelivery limits are
//! ours: a request is redelivered until it is answered, and one that waits blocks no other. A durable that has to be
//! created anew never starts at the beginning of the stream, or answered requests would be served again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{
    datetime,
    jetstream::{
        Context, ErrorCode,
        consumer::{AckPolicy, Config, DeliverPolicy, FromConsumer as _, PullConsumer, pull},
        context::ConsumerInfoErrorKind,
    },
};
use mpcium_client::{Prefix, subjects};
use mpcium_core::input::RequestKind;

use super::{Link, keeper::Trouble};

/// A delivery that is neither settled nor kept alive for this long goes to another node.
pub(super) const ACK_WAIT: Duration = Duration::from_secs(30);
/// Deliveries that may be unsettled at all nodes together.
const ACK_PENDING_MAX: i64 = 20_000;

/// How old a request may be and still be answered: a consumer that is created anew starts this long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For key generation.
    pub keygen: Duration,
    /// For signing.
    pub signing: Duration,
    /// For resharing.
    pub reshare: Duration,
}

impl Deadlines {
    fn of(self, kind: RequestKind) -> Duration {
        match kind {
            RequestKind::Keygen => self.keygen,
            RequestKind::Sign => self.signing,
            RequestKind::Reshare => self.reshare,
        }
    }
}

/// One queue of requests.
#[derive(Debug)]
pub(super) struct RequestSpec {
    /// What it brings.
    pub kind: RequestKind,
    /// The stream behind it, before whose name the prefix comes; and so it does before the filter.
    pub stream: &'static str,
    /// The durable's name.
    pub durable: &'static str,
    /// Its single filter.
    pub filter: &'static str,
}

/// All queues of requests.
pub(super) static REQUESTS: [RequestSpec; 3] =
    [request_spec(RequestKind::Keygen), request_spec(RequestKind::Sign), request_spec(RequestKind::Reshare)];

const fn request_spec(kind: RequestKind) -> RequestSpec {
    RequestSpec {
        kind,
        stream: subjects::request_stream_of(kind).name,
        durable: subjects::request_durable(kind),
        filter: subjects::request_filter(kind),
    }
}

/// Durables for results, with their kinds: those that clients without an id share.
fn results() -> impl Iterator<Item = (RequestKind, String)> {
    REQUESTS.iter().map(|spec| (spec.kind, subjects::result_durable(spec.kind, None)))
}

/// Whether a durable for results belongs to clients with an id, by its name.
pub(super) fn is_of_client(durable: &str) -> bool {
    results().any(|(_, shared)| durable.strip_prefix(&shared).is_some_and(|id| id.starts_with('_')))
}

impl RequestSpec {
    /// The configuration that this durable must have, given the one that it has.
    fn wanted(&self, existing: Option<&Config>, deadlines: Deadlines, prefix: &Prefix) -> Config {
        let mut config = existing.cloned().unwrap_or_else(|| Config {
            name: Some(self.durable.to_owned()),
            durable_name: Some(self.durable.to_owned()),
            deliver_policy: start(deadlines.of(self.kind)),
            ..Config::default()
        });
        config.deliver_subject = None;
        config.deliver_group = None;
        config.ack_policy = AckPolicy::Explicit;
        config.ack_wait = ACK_WAIT;
        config.backoff = Vec::new();
        config.max_deliver = -1;
        config.max_ack_pending = ACK_PENDING_MAX;
        config.max_batch = 0;
        config.max_expires = Duration::ZERO;
        config.inactive_threshold = Duration::ZERO;
        config.headers_only = false;
        config.filter_subject = prefix.subject(self.filter);
        config.filter_subjects = Vec::new();
        config
    }

    /// Creates the durable, or brings the one that exists (perhaps the existing system's) to what it must be.
    pub(super) async fn put_right(
        &self,
        context: &Context,
        deadlines: Deadlines,
        link: &Link,
    ) -> Result<PullConsumer, Trouble> {
        let stream = link.prefix.stream(self.stream);
        let existing = info(context, &stream, self.durable).await?;
        match self.take_over(context, deadlines, link, existing).await {
            // Another node has created it at the same moment with another start: what is there now is as good.
            Err(Trouble::Temporary(problem)) => match info(context, &stream, self.durable).await? {
                Some(found) => self.take_over(context, deadlines, link, Some(found)).await,
                None => Err(Trouble::Temporary(problem)),
            },
            done => done,
        }
    }

    async fn take_over(
        &self,
        context: &Context,
        deadlines: Deadlines,
        link: &Link,
        existing: Option<Config>,
    ) -> Result<PullConsumer, Trouble> {
        let stream = link.prefix.stream(self.stream);
        let wanted = self.wanted(existing.as_ref(), deadlines, &link.prefix);
        if existing.as_ref() == Some(&wanted) {
            return context
                .get_consumer_from_stream(self.durable, &stream)
                .await
                .map_err(|error| Trouble::Temporary(format!("consumer {}: {error}", self.durable)));
        }
        if existing.as_ref().is_some_and(|config| config.deliver_subject.is_some()) {
            // One that pushes cannot be turned into one that is pulled from.
            return self.create_anew(context, deadlines, link).await;
        }
        let pull = pull::Config::try_from_consumer_config(wanted)
            .map_err(|error| Trouble::Temporary(format!("consumer {}: {error}", self.durable)))?;
        match context.create_consumer_on_stream(pull, &stream).await {
            Ok(consumer) => {
                let what = if existing.is_some() { "brought up to date" } else { "created" };
                link.notices.info(format!("the consumer {} is {what}", self.durable));
                Ok(consumer)
            }
            Err(error) => Err(Trouble::Temporary(format!("consumer {}: {error}", self.durable))),
        }
    }

    /// Removes a durable that does not work and makes it again, starting with the oldest request that can still be
    /// answered in time.
    pub(super) async fn create_anew(
        &self,
        context: &Context,
        deadlines: Deadlines,
        link: &Link,
    ) -> Result<PullConsumer, Trouble> {
        let stream = link.prefix.stream(self.stream);
        link.notices.warn(format!("the consumer {} does not work and is created anew", self.durable));
        context
            .delete_consumer_from_stream(self.durable, &stream)
            .await
            .map_err(|error| Trouble::Temporary(format!("consumer {}: {error}", self.durable)))?;
        let pull = pull::Config::try_from_consumer_config(self.wanted(None, deadlines, &link.prefix))
            .map_err(|error| Trouble::Temporary(format!("consumer {}: {error}", self.durable)))?;
        context
            .create_consumer_on_stream(pull, &stream)
            .await
            .map_err(|error| Trouble::Temporary(format!("consumer {}: {error}", self.durable)))
    }
}

/// Creates the durables for results where they are missing. Those that exist are the clients' business.
pub(super) async fn put_results_right(context: &Context, prefix: &Prefix) -> Result<(), Trouble> {
    let stream = prefix.stream(subjects::RESULT_STREAM.name);
    for (kind, durable) in results() {
        if info(context, &stream, &durable).await?.is_some() {
            continue;
        }
        let config = pull::Config {
            name: Some(durable.clone()),
            durable_name: Some(durable.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: subjects::RESULT_ACK_WAIT,
            max_deliver: subjects::RESULT_MAX_DELIVER,
            max_ack_pending: subjects::RESULT_MAX_ACK_PENDING,
            filter_subjects: vec![prefix.subject(&subjects::result_filter(kind, None))],
            ..pull::Config::default()
        };
        context
            .create_consumer_on_stream(config, &stream)
            .await
            .map_err(|error| Trouble::Temporary(format!("consumer {durable}: {error}")))?;
    }
    Ok(())
}

/// The durables that a stream must have.
pub(super) fn durables_of(stream: &str) -> Vec<String> {
    let requests = REQUESTS.iter().filter(|spec| spec.stream == stream).map(|spec| spec.durable.to_owned());
    let results = results().filter(|_| stream == subjects::RESULT_STREAM.name).map(|(_, durable)| durable);
    requests.chain(results).collect()
}

/// The configuration of a consumer, if it exists.
pub(super) async fn info(context: &Context, stream: &str, durable: &str) -> Result<Option<Config>, Trouble> {
    let stream = context
        .get_stream_no_info(stream)
        .await
        .map_err(|error| Trouble::Temporary(format!("stream {stream}: {error}")))?;
    match stream.consumer_info(durable).await {
        Ok(info) => Ok(Some(info.config)),
        Err(error) => match error.kind() {
            ConsumerInfoErrorKind::NotFound => Ok(None),
            ConsumerInfoErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
                Ok(None)
            }
            _ => Err(Trouble::Temporary(format!("consumer {durable}: {error}"))),
        },
    }
}

/// Where a new consumer starts: `age` ago. If the clock cannot be believed, with whatever comes from now on.
fn start(age: Duration) -> DeliverPolicy {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age).as_nanos();
    i128::try_from(nanos)
        .ok()
        .and_then(|nanos| datetime::from_nanos(nanos).ok())
        .map_or(DeliverPolicy::New, |start_time| DeliverPolicy::ByStartTime { start_time })
}
