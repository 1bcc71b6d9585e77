//! Results as they arrive: durable listeners for one client id, and the private lane that one-call waits use.
//!
//! Invariant: a result is acknowledged only after it has been handed over, and a lane never consumes a result that
//! belongs to another client: its client id is its own.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::{
    self, AckKind,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::mpsc;

use crate::{
    attest::{Attested, Attesters},
    client::{ClientError, check_attested},
    prefix::Prefix,
    request::Kind,
    result::{KeygenResult, ReshareResult, ResultError, SigningResult},
    subjects,
};

/// A private consumer without a reader for this long is removed by the server.
const ABANDONED_AFTER: Duration = Duration::from_secs(300);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A result document of one kind.
pub trait ResultDocument: Attested + Sized + Send + 'static {
    /// The kind of request that it answers.
    const KIND: Kind;

    /// Reads the document.
    ///
    /// # Errors
    /// If it is none of this kind.
    fn read(document: &[u8]) -> Result<Self, ResultError>;

    /// Code and reason, if it is an error.
    fn failure(&self) -> Option<(String, String)>;
}

macro_rules! result_documents {
    ($($result:ident: $kind:ident),*) => {$(
        impl ResultDocument for $result {
            const KIND: Kind = Kind::$kind;

            fn read(document: &[u8]) -> Result<Self, ResultError> {
                Self::from_json(document)
            }

            fn failure(&self) -> Option<(String, String)> {
                (!self.is_success()).then(|| (self.error_code.clone(), self.error_reason.clone()))
            }
        }
    )*};
}

result_documents!(KeygenResult: Keygen, SigningResult: Sign, ReshareResult: Reshare);

/// A connection's JetStream, and what stands before the names of the cluster there.
#[derive(Clone)]
pub(crate) struct Bus {
    pub jetstream: jetstream::Context,
    pub prefix: Prefix,
}

/// The results of one kind for one client id. What is not acknowledged is delivered again, three times at most; several
/// listeners with one client id share the results among them.
pub struct Results<T> {
    bus: Bus,
    client_id: Option<String>,
    attesters: Option<Arc<Attesters>>,
    messages: pull::Stream,
    kind: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for Results<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Results")
    }
}

/// One result, to be acknowledged (see [`Received::into_parts`]) when it has been dealt with.
#[derive(Debug)]
pub struct Received<T> {
    /// The document.
    pub result: T,
    /// The request's id as the subject tells it, where it does: the wallet for key generation, the session for
    /// resharing.
    pub request_id: Option<String>,
    token: Token,
}

/// A delivery that is to be settled.
#[derive(Debug)]
pub struct Token {
    message: jetstream::Message,
}

impl<T> Received<T> {
    /// The result and what settles its delivery.
    #[must_use]
    pub fn into_parts(self) -> (T, Token) {
        (self.result, self.token)
    }
}

impl Token {
    /// Removes the result from the queue.
    ///
    /// # Errors
    /// If the connection is gone; the result is then delivered again.
    pub async fn ack(&self) -> Result<(), ClientError> {
        self.message.ack().await.map_err(|error| ClientError::Consumer(error.to_string()))
    }

    /// Gives it back, to be delivered again at once.
    ///
    /// # Errors
    /// If the connection is gone; the result is then delivered again later.
    pub async fn nak(&self) -> Result<(), ClientError> {
        self.message.ack_with(AckKind::Nak(None)).await.map_err(|error| ClientError::Consumer(error.to_string()))
    }
}

impl<T: ResultDocument> Results<T> {
    pub(crate) async fn open(
        bus: &Bus,
        client_id: Option<&str>,
        attesters: Option<Arc<Attesters>>,
    ) -> Result<Self, ClientError> {
        let consumer = ensure_consumer(bus, T::KIND, client_id, None).await?;
        let messages = consumer.messages().await.map_err(|error| ClientError::Consumer(error.to_string()))?;
        let client_id = client_id.map(str::to_owned);
        Ok(Self { bus: bus.clone(), client_id, attesters, messages, kind: PhantomData })
    }

    /// The same results again, after [`next`](Self::next) has ended or failed.
    ///
    /// # Errors
    /// If the consumer is neither there nor can be created.
    pub async fn reopen(&self) -> Result<Self, ClientError> {
        Self::open(&self.bus, self.client_id.as_deref(), self.attesters.clone()).await
    }

    /// The next result. A document that cannot be read is given back to the queue and reported, one that too few nodes
    /// have signed (where that is asked for) is removed and reported; the listener goes on.
    /// `None`: the listener has ended. Cancelling loses nothing: what was not acknowledged comes again.
    pub async fn next(&mut self) -> Option<Result<Received<T>, ClientError>> {
        let message = match self.messages.next().await? {
            Ok(message) => message,
            Err(error) => return Some(Err(ClientError::Consumer(error.to_string()))),
        };
        match T::read(&message.payload) {
            Ok(result) => {
                if let Err(error) = check_attested(self.attesters.as_deref(), &result) {
                    // It does not get better by being delivered again.
                    drop(message.ack_with(AckKind::Term).await);
                    return Some(Err(error));
                }
                let request_id = last_token(T::KIND, &message.subject);
                Some(Ok(Received { result, request_id, token: Token { message } }))
            }
            Err(error) => {
                // Whether or not this arrives, the server counts the delivery and gives up after the third.
                drop(message.ack_with(AckKind::Nak(None)).await);
                Some(Err(ClientError::Result(error)))
            }
        }
    }
}

fn last_token(kind: Kind, subject: &str) -> Option<String> {
    if kind == Kind::Sign {
        return None;
    }
    let token = subject.rsplit('.').next()?;
    Some(subjects::unescape_token(token).unwrap_or_else(|| token.to_owned()))
}

/// Finds or makes the consumer of a client id's results. With `abandoned_after` the server removes it when nobody reads.
async fn ensure_consumer(
    bus: &Bus,
    kind: Kind,
    client_id: Option<&str>,
    abandoned_after: Option<Duration>,
) -> Result<PullConsumer, ClientError> {
    let problem = |error: String| ClientError::Consumer(error);
    let stream = bus.prefix.stream(subjects::RESULT_STREAM.name);
    let stream = bus.jetstream.get_stream_no_info(stream).await.map_err(|error| problem(error.to_string()))?;
    let name = subjects::result_durable(kind, client_id);
    let filter = bus.prefix.subject(&subjects::result_filter(kind, client_id));
    if abandoned_after.is_none()
        && let Ok(existing) = stream.get_consumer::<pull::Config>(&name).await
    {
        let config = &existing.cached_info().config;
        if config.filter_subject == filter || config.filter_subjects == [filter.clone()] {
            return Ok(existing);
        }
    }
    stream
        .create_consumer(pull::Config {
            durable_name: Some(name),
            // The shared ones are spelled as the existing clients spell them, so that their updates change nothing.
            filter_subject: if abandoned_after.is_some() { filter.clone() } else { String::new() },
            filter_subjects: if abandoned_after.is_some() { Vec::new() } else { vec![filter] },
            ack_policy: AckPolicy::Explicit,
            deliver_policy: DeliverPolicy::All,
            ack_wait: subjects::RESULT_ACK_WAIT,
            max_deliver: subjects::RESULT_MAX_DELIVER,
            max_ack_pending: subjects::RESULT_MAX_ACK_PENDING,
            inactive_threshold: abandoned_after.unwrap_or_default(),
            ..pull::Config::default()
        })
        .await
        .map_err(|error| problem(error.to_string()))
}

/// What a waiting call waits for: kind, wallet and request id.
pub(crate) type WaitKey = (Kind, String, String);

/// A result for a waiting call, with the sequence of the request that it answers where the cluster says it.
pub(crate) struct Delivered {
    pub document: Bytes,
    pub answers: Option<u64>,
}

type Waiting = BTreeMap<WaitKey, Vec<(u64, mpsc::UnboundedSender<Delivered>)>>;

/// Calls that wait for results.
#[derive(Default)]
pub(crate) struct Waiters {
    waiting: Mutex<(u64, Waiting)>,
}

/// One waiting call; dropping it ends the wait.
pub(crate) struct Waiter {
    waiters: Arc<Waiters>,
    key: WaitKey,
    number: u64,
    pub results: mpsc::UnboundedReceiver<Delivered>,
}

impl Waiters {
    pub(crate) fn register(self: &Arc<Self>, key: WaitKey) -> Waiter {
        let (sender, results) = mpsc::unbounded_channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.0 += 1;
        let number = waiting.0;
        waiting.1.entry(key.clone()).or_default().push((number, sender));
        Waiter { waiters: Arc::clone(self), key, number, results }
    }

    /// Ends every wait without a result.
    pub(crate) fn end_all(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).1.clear();
    }

    fn deliver(&self, key: &WaitKey, document: &Bytes, answers: Option<u64>) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, sender) in waiting.1.get(key).into_iter().flatten() {
            // A receiver that has gone removes itself; nobody misses this result.
            drop(sender.send(Delivered { document: document.clone(), answers }));
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(senders) = waiting.1.get_mut(&self.key) {
            senders.retain(|(number, _)| *number != self.number);
            if senders.is_empty() {
                waiting.1.remove(&self.key);
            }
        }
    }
}

/// The private lane of one kind: a consumer of its own and the task that hands its results to waiting calls.
pub(crate) struct Lane {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lane {
    /// Reads no more results.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }

    /// Makes the consumer, then starts handing over. The client id must belong to nobody else.
    pub(crate) async fn open(
        bus: &Bus,
        kind: Kind,
        client_id: &str,
        waiters: &Arc<Waiters>,
    ) -> Result<Self, ClientError> {
        let consumer = ensure_consumer(bus, kind, Some(client_id), Some(ABANDONED_AFTER)).await?;
        let (bus, client_id, waiters) = (bus.clone(), client_id.to_owned(), Arc::clone(waiters));
        let task = tokio::spawn(async move {
            let mut consumer = Some(consumer);
            let mut wait = RETRY_MIN;
            loop {
                // The server forgets consumers that nobody reads, for instance while the connection is down for long.
                let opened = match consumer.take() {
                    Some(consumer) => Ok(consumer),
                    None => ensure_consumer(&bus, kind, Some(&client_id), Some(ABANDONED_AFTER)).await,
                };
                if let Ok(opened) = opened
                    && let Ok(mut messages) = opened.messages().await
                {
                    while let Some(Ok(message)) = messages.next().await {
                        wait = RETRY_MIN;
                        hand_over(kind, &message, &waiters);
                        if message.ack().await.is_err() {
                            break;
                        }
                    }
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        });
        Ok(Self { task })
    }
}

/// Results that no call waits for are dropped: their calls have ended, and asking again is answered again.
fn hand_over(kind: Kind, message: &jetstream::Message, waiters: &Waiters) {
    let document = &message.payload;
    let key = match kind {
        Kind::Keygen => {
            KeygenResult::from_json(document).ok().map(|result| (result.wallet_id.clone(), result.wallet_id))
        }
        Kind::Sign => SigningResult::from_json(document).ok().map(|result| (result.wallet_id, result.tx_id)),
        Kind::Reshare => ReshareResult::from_json(document)
            .ok()
            .and_then(|result| Some((result.wallet_id, last_token(kind, &message.subject)?))),
    };
    let Some((wallet_id, request_id)) = key else { return };
    let answers = message
        .headers
        .as_ref()
        .and_then(|headers| headers.get(async_nats::header::NATS_MESSAGE_ID))
        .and_then(|id| subjects::answered_sequence(kind, id.as_str()));
    waiters.deliver(&(kind, wallet_id, request_id), document, answers);
}
