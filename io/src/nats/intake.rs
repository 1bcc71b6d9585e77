//! Pulls requests from one durable, while intake is open and there is room.
//!
//! One bounded pull is outstanding at a time. The server proves with heartbeats that it still knows of it; a consumer
//! that has messages but delivers none is noticed, pulled from again, and in the end created anew. When intake
//! closes, whatever is on its way goes back to the queue at once, for other nodes.
//!
//! A consumer counts its own deliveries only. What was sent before the consumer was made may have been delivered, and
//! answered, by an earlier one of the same name, so its deliveries are never first ones.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Message, StatusCode, Subscriber,
    datetime::DateTime,
    jetstream::{
        self, Context,
        consumer::{PullConsumer, pull::BatchConfig},
    },
};
use futures::{FutureExt as _, StreamExt as _};
use mpcium_client::subjects::CLIENT_ID_HEADER;
use mpcium_core::{
    Input, WallTime,
    input::{Delivery, RequestKind},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Link,
    consumers::{Deadlines, RequestSpec},
    datagrams::send_now,
    requests::{Table, refusal},
};
use crate::{notice::Retry, ports::Inbox};

/// Requests that one pull asks for at most: small, so that nodes share a burst.
const BATCH_MAX: usize = 64;
/// How long the server keeps a pull.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that it still knows of the pull.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A pull of which nothing was heard for this long is lost.
const SILENCE_MAX: Duration = Duration::from_secs(12);
/// How often a quiet consumer is asked whether it has anything.
const STALL_CHECK: Duration = Duration::from_secs(15);
/// Stalls in a row after which the consumer itself is created anew.
const STALLS_MAX: u32 = 3;

/// What one queue's task needs.
pub(super) struct Intake {
    pub spec: &'static RequestSpec,
    pub context: Context,
    pub link: Arc<Link>,
    pub table: Arc<Table>,
    pub inbox: Inbox,
    pub deadlines: Deadlines,
    pub open: watch::Receiver<bool>,
}

/// Why pulling ended.
#[derive(Debug)]
enum Ended {
    /// Intake was closed.
    Closed,
    /// It has to begin anew.
    Trouble(String),
    /// The consumer has messages and delivers none.
    Stalled,
}

/// Runs until aborted, or until the port is gone.
pub(super) async fn run(mut intake: Intake) {
    let mut retry = Retry::new(&intake.link.notices, format!("the consumer {}", intake.spec.durable));
    let mut watch = StallWatch::default();
    while intake.open.wait_for(|open| *open).await.is_ok() {
        let spec = intake.spec;
        let consumer = if watch.stalls >= STALLS_MAX {
            watch = StallWatch::default();
            spec.create_anew(&intake.context, intake.deadlines, &intake.link).await
        } else {
            spec.put_right(&intake.context, intake.deadlines, &intake.link).await
        };
        let ended = match consumer {
            Ok(consumer) => pull(&mut intake, &consumer, &mut watch, &mut retry).await,
            Err(trouble) => Ended::Trouble(trouble.into_text()),
        };
        match ended {
            Ended::Closed => {}
            Ended::Stalled => {
                intake.link.notices.warn(format!("the consumer {} stalls; pulling anew", spec.durable));
            }
            Ended::Trouble(reason) => {
                let wait = tokio::time::sleep(retry.failed(&reason));
                // A new connection or an opened or closed intake is worth an immediate attempt.
                let mut connections = intake.link.connections.subscribe();
                tokio::select! {
                    () = wait => {}
                    _ = connections.changed() => {}
                    _ = intake.open.changed() => {}
                }
            }
        }
    }
}

/// Pulls until something ends it.
async fn pull(intake: &mut Intake, consumer: &PullConsumer, watch: &mut StallWatch, retry: &mut Retry) -> Ended {
    let client = intake.context.client();
    let reply = async_nats::Subject::from(client.new_inbox());
    let mut subscriber = match client.subscribe(reply.clone()).await {
        Ok(subscriber) => subscriber,
        Err(error) => return Ended::Trouble(error.to_string()),
    };
    let table = intake.table.clone();
    let mut connections = intake.link.connections.subscribe();
    // What the outstanding pull may still bring; none is outstanding at zero.
    let mut expected = 0;
    let mut heard = Instant::now();
    let mut check = Instant::now() + STALL_CHECK;
    let mut created = consumer.cached_info().created;
    // Whether there was a pull all the time: the server ends it when it removes the consumer, and another one may have
    // been made since.
    let mut watched = true;
    loop {
        let settled = table.settled.notified();
        let mut settled = std::pin::pin!(settled);
        // Registered before room is looked at, so that a settlement in between is not missed.
        settled.as_mut().enable();
        if expected == 0 {
            expected = BATCH_MAX.min(table.room(intake.spec.kind));
            watched &= expected > 0;
            if expected > 0 {
                if !watched {
                    match consumer.get_info().await {
                        Err(error) => return Ended::Trouble(error.to_string()),
                        Ok(info) => created = info.created,
                    }
                    watched = true;
                }
                let batch = BatchConfig {
                    batch: expected,
                    expires: Some(PULL_EXPIRES),
                    idle_heartbeat: HEARTBEAT,
                    ..BatchConfig::default()
                };
                if let Err(error) = consumer.request_batch(batch, reply.clone()).await {
                    return Ended::Trouble(error.to_string());
                }
                heard = Instant::now();
            }
        }
        tokio::select! {
            biased;
            changed = intake.open.changed() => {
                if changed.is_err() || !*intake.open.borrow() {
                    give_back(subscriber, &client).await;
                    return Ended::Closed;
                }
            }
            _ = connections.changed() => (expected, watched) = (0, false),
            message = subscriber.next() => {
                heard = Instant::now();
                match message {
                    None => return Ended::Trouble("the subscription ended".to_owned()),
                    Some(message) => match message.status {
                        None => {
                            expected = expected.saturating_sub(1);
                            check = heard + STALL_CHECK;
                            watch.delivered();
                            retry.succeeded();
                            deliver(intake, message, created);
                        }
                        Some(status) => match pull_state(status, message.description.as_deref()) {
                            PullState::Alive => {}
                            PullState::Over => expected = 0,
                            PullState::Broken(reason) => return Ended::Trouble(reason),
                        },
                    },
                }
            }
            () = settled, if expected == 0 => {}
            () = sleep_until(heard + SILENCE_MAX), if expected > 0 => {
                return Ended::Trouble("the server lost the pull request".to_owned());
            }
            () = sleep_until(check), if expected > 0 => {
                check = Instant::now() + STALL_CHECK;
                match consumer.get_info().await {
                    Err(error) => return Ended::Trouble(error.to_string()),
                    Ok(info) => {
                        created = info.created;
                        let full = i64::try_from(info.num_ack_pending).unwrap_or(i64::MAX)
                            >= info.config.max_ack_pending;
                        let progress = Progress {
                            pending: info.num_pending,
                            delivered: info.delivered.consumer_sequence,
                            full,
                        };
                        if watch.looked(&progress) {
                            return Ended::Stalled;
                        }
                    }
                }
            }
        }
    }
}

/// What a status message says of the outstanding pull.
#[derive(Debug, PartialEq, Eq)]
enum PullState {
    Alive,
    Over,
    Broken(String),
}

fn pull_state(status: StatusCode, description: Option<&str>) -> PullState {
    let description = description.unwrap_or_default();
    match status {
        StatusCode::IDLE_HEARTBEAT => PullState::Alive,
        StatusCode::NOT_FOUND | StatusCode::TIMEOUT => PullState::Over,
        StatusCode::REQUEST_TERMINATED if description.eq_ignore_ascii_case("Batch Completed") => PullState::Over,
        StatusCode::NO_RESPONDERS => PullState::Broken("it is not there".to_owned()),
        _ => PullState::Broken(format!("{status} {description}")),
    }
}

/// How often a request has been delivered, as far as anybody knows. `counted` is what the consumer says that was made at
/// `created`.
fn deliveries(counted: i64, published: DateTime, created: DateTime) -> u64 {
    let counted = u64::try_from(counted).unwrap_or(0);
    if published < created { counted.saturating_add(1) } else { counted }
}

/// Hands one message to the core.
fn deliver(intake: &Intake, message: Message, created: DateTime) {
    let message = jetstream::Message { message, context: intake.context.clone() };
    let Ok(info) = message.info() else {
        intake.link.notices.warn(format!("a message on {} is no delivery and is ignored", intake.spec.durable));
        return;
    };
    // Without the prefix: to the core a stream is what the contract calls it.
    let stream = intake.spec.stream.to_owned();
    let sequence = info.stream_sequence;
    let millis = info.published.unix_timestamp_nanos() / 1_000_000;
    let timestamp = WallTime(u64::try_from(millis).unwrap_or(0));
    let deliveries = deliveries(info.delivered, info.published, created);
    let Message { payload, headers, reply, .. } = message.message;
    let Some(reply) = reply else { return };
    let client = headers
        .as_ref()
        .and_then(|headers| headers.get(CLIENT_ID_HEADER))
        .map(|value| value.as_str().to_owned())
        .filter(|client| !client.is_empty());
    let kind: RequestKind = intake.spec.kind;
    let id = intake.table.insert(kind, reply);
    let delivery = Delivery { id, kind, body: payload.into(), client, stream, sequence, timestamp, deliveries };
    intake.inbox.put(Input::Request(delivery));
}

/// Ends the subscription and returns to the queue what had arrived or was on its way.
async fn give_back(mut subscriber: Subscriber, client: &async_nats::Client) {
    // What the server sends before it hears of this is lost here, and comes again after the acknowledgement wait.
    if subscriber.drain().await.is_err() {
        return;
    }
    let mut rest = std::pin::pin!(tokio::time::sleep(super::REQUEST_TIMEOUT));
    loop {
        tokio::select! {
            message = subscriber.next() => match message {
                None => return,
                Some(message) => {
                    if let (None, Some(reply)) = (message.status, message.reply) {
                        send_now(client, reply, refusal(Duration::ZERO));
                    }
                }
            },
            () = rest.as_mut().fuse() => return,
        }
    }
}

/// What a look at a consumer showed.
#[derive(Debug)]
struct Progress {
    /// Messages that wait for their first delivery.
    pending: u64,
    /// Deliveries so far.
    delivered: u64,
    /// Whether it may deliver nothing until something is settled.
    full: bool,
}

/// Notices a consumer that has something to deliver and does not.
#[derive(Debug, Default)]
struct StallWatch {
    idle_at: Option<u64>,
    stalls: u32,
}

impl StallWatch {
    /// A message came.
    fn delivered(&mut self) {
        *self = Self::default();
    }

    /// Whether two looks in a row found messages waiting, none delivered to any node, and nothing in the way.
    fn looked(&mut self, progress: &Progress) -> bool {
        let could = progress.pending > 0 && !progress.full;
        let stalled = could && self.idle_at == Some(progress.delivered);
        self.idle_at = could.then_some(progress.delivered);
        if stalled {
            self.stalls += 1;
        } else if !could {
            self.stalls = 0;
        }
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(pending: u64, delivered: u64, full: bool) -> Progress {
        Progress { pending, delivered, full }
    }

    #[test]
    fn a_consumer_with_messages_and_no_deliveries_is_stalled_at_the_second_look() {
        let mut watch = StallWatch::default();
        assert!(!watch.looked(&look(3, 10, false)));
        assert!(watch.looked(&look(3, 10, false)));
        assert_eq!(watch.stalls, 1);
    }

    #[test]
    fn a_consumer_that_delivers_to_another_node_is_not_stalled() {
        let mut watch = StallWatch::default();
        assert!(!watch.looked(&look(3, 10, false)));
        assert!(!watch.looked(&look(3, 11, false)));
    }

    #[test]
    fn a_consumer_without_messages_or_with_all_it_may_deliver_is_not_stalled() {
        let mut watch = StallWatch::default();
        for progress in [look(0, 10, false), look(0, 10, false), look(5, 10, true), look(5, 10, true)] {
            assert!(!watch.looked(&progress), "{progress:?}");
        }
    }

    #[test]
    fn a_delivery_ends_the_count_of_stalls() {
        let mut watch = StallWatch::default();
        watch.looked(&look(1, 1, false));
        watch.looked(&look(1, 1, false));
        watch.delivered();
        assert_eq!(watch.stalls, 0);
        assert!(!watch.looked(&look(1, 1, false)));
    }

    #[test]
    fn expiry_asks_again_and_anything_unknown_begins_anew() {
        assert_eq!(pull_state(StatusCode::IDLE_HEARTBEAT, None), PullState::Alive);
        assert_eq!(pull_state(StatusCode::TIMEOUT, Some("Request Timeout")), PullState::Over);
        assert_eq!(pull_state(StatusCode::REQUEST_TERMINATED, Some("Batch Completed")), PullState::Over);
        let broken = pull_state(StatusCode::REQUEST_TERMINATED, Some("Consumer Deleted"));
        assert_eq!(broken, PullState::Broken("409 Consumer Deleted".to_owned()));
    }
}
