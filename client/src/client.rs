//! The asynchronous client: asks a cluster for wallets, signatures and resharings, and waits for the answers.
//!
//! Two ways to use it. [`Client::create_wallet`], [`Client::sign`] and [`Client::reshare`] return when the request is in
//! the queue; results arrive at a listener. The `..._and_wait` calls return the result. They use a private client id, so
//! they neither take results from listeners nor from other clients, and they register before they publish, so no result
//! is missed. Cancelling any call is safe: the request may still be carried out, and asking again is answered again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_nats::jetstream;
use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use crate::{
    attest::{Attesters, NotAttested},
    full::FullSignature,
    listen::{Bus, Delivered, Lane, ResultDocument, Results, Waiter, Waiters},
    prefix::Prefix,
    query::{WALLET_QUERY_SUBJECT, WalletQuery, WalletReply},
    request::{Invalid, KeygenRequest, Kind, Request, ReshareRequest, SignRequest},
    result::{ErrorCode, KeygenResult, ReshareResult, ResultError, ResultType, SigningResult},
    signer::{Signer, SignerError},
    subjects::{self, ClientIdError, StreamSpec},
};

/// A queue that does not take a request is tried again for so long: the servers of a NATS cluster need some ten seconds
/// to agree on who takes the place of one that has died. Well below the time for which repetitions are recognised.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(40);
/// A query without a reply for so long is sent again.
const QUERY_REPEAT: Duration = Duration::from_secs(4);
const PUBLISH_RETRY_MIN: Duration = Duration::from_millis(250);
const PUBLISH_RETRY_MAX: Duration = Duration::from_secs(2);
const RELISTEN_MIN: Duration = Duration::from_millis(100);
const RELISTEN_MAX: Duration = Duration::from_secs(5);

/// Whose results a client's listeners receive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientId {
    /// Nobody else's: an id is drawn, and its consumers are removed when the client is closed or dropped.
    #[default]
    Generated,
    /// Those of every client with this id, which share them. The consumers stay, so results wait for the next start.
    Named(String),
    /// Those of every client without an id, as the existing clients work by default.
    Unscoped,
}

/// How a [`Client`] behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose results its listeners receive.
    pub client_id: ClientId,
    /// Whether requests carry a signature over all fields, an id and an expiry beside the one that every cluster
    /// understands. Clusters with `require_full_signature: true` take no others; those of the existing system ignore it.
    /// Requests with [`SignRequest::hash`] are not made without.
    pub full_signatures: bool,
    /// How long a request with a full signature is valid from the moment it is signed.
    pub valid_for: Duration,
    /// The cluster's nodes: with them, only answers that enough of them have signed are believed. Others are passed over
    /// by calls that wait, which end with [`ClientError::NotAttested`] if nothing better comes in time, and are removed
    /// and reported by listeners. `None`: answers are believed as the bus brings them.
    pub attesters: Option<Attesters>,
    /// What stands before the cluster's names on a NATS that it shares with others: the nodes' `nats.prefix`.
    pub prefix: Prefix,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client_id: ClientId::default(),
            full_signatures: true,
            valid_for: Duration::from_secs(3600),
            attesters: None,
            prefix: Prefix::default(),
        }
    }
}

/// Why a call failed.
#[derive(Debug)]
pub enum ClientError {
    /// The client id cannot be used.
    ClientId(ClientIdError),
    /// The signer did not sign.
    Signer(SignerError),
    /// The request has a value that no cluster acts on; nothing was sent.
    Invalid(Invalid),
    /// A stream is neither there nor can be created.
    Stream {
        /// Its name.
        name: String,
        /// What the server said.
        problem: String,
    },
    /// The request could not be put into the queue.
    Publish(String),
    /// Results cannot be read.
    Consumer(String),
    /// A result that is no document of its kind.
    Result(ResultError),
    /// The cluster answered with an error.
    Refused {
        /// The answer's code, if it is a known one.
        code: Option<ErrorCode>,
        /// The answer's code as it was written.
        code_text: String,
        /// The answer's reason.
        reason: String,
    },
    /// An answer came that too few nodes have signed: a forged one, or an error that follows from the request alone,
    /// which nodes do not sign. Nothing is known about what became of the request.
    NotAttested {
        /// What is missing.
        problem: NotAttested,
        /// What the answer says, if it is an error: code and reason.
        says: Option<(String, String)>,
    },
    /// No answer in time. The request may still be carried out; asking again with the same id is answered again.
    Timeout {
        /// What was asked for.
        kind: Kind,
        /// The request's id.
        request_id: String,
        /// How long the call waited.
        waited: Duration,
    },
    /// No node replied to a query in time.
    NoReply {
        /// How long the call waited.
        waited: Duration,
    },
    /// The client has been closed.
    Closed,
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClientId(error) => error.fmt(f),
            Self::Signer(error) => error.fmt(f),
            Self::Invalid(error) => write!(f, "invalid request: {error}"),
            Self::Stream { name, problem } => write!(f, "stream {name}: {problem}"),
            Self::Publish(problem) => write!(f, "the request could not be put into the queue: {problem}"),
            Self::Consumer(problem) => write!(f, "results cannot be read: {problem}"),
            Self::Result(error) => error.fmt(f),
            Self::NotAttested { problem, says: None } => problem.fmt(f),
            Self::NotAttested { problem, says: Some((code, reason)) } => {
                write!(f, "{problem}; it says {code}: {reason}")
            }
            Self::Refused { code_text, reason, .. } => write!(f, "{code_text}: {reason}"),
            Self::Timeout { kind, request_id, waited } => {
                let kind = match kind {
                    Kind::Keygen => "key generation",
                    Kind::Sign => "signing",
                    Kind::Reshare => "resharing",
                };
                let waited = waited.as_secs_f64();
                write!(
                    f,
                    "no answer to the {kind} request {request_id:?} within {waited} s; it may still be carried out: ask again \
                     with the same id and content, which is answered again and never done twice"
                )
            }
            Self::NoReply { waited } => write!(f, "no node replied within {} s", waited.as_secs_f64()),
            Self::Closed => f.write_str("the client is closed"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<Invalid> for ClientError {
    fn from(error: Invalid) -> Self {
        Self::Invalid(error)
    }
}

impl From<SignerError> for ClientError {
    fn from(error: SignerError) -> Self {
        Self::Signer(error)
    }
}

/// A client of one cluster. Cloning is cheap; the clones are one client.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    bus: Bus,
    signer: Arc<dyn Signer>,
    client_id: Option<String>,
    generated: bool,
    private_id: String,
    /// For how long full signatures are valid, if there are any.
    valid_for: Option<Duration>,
    attesters: Option<Arc<Attesters>>,
    waiters: Arc<Waiters>,
    keygen_lane: OnceCell<Lane>,
    sign_lane: OnceCell<Lane>,
    reshare_lane: OnceCell<Lane>,
    closed: AtomicBool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("client_id", &self.inner.client_id).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client over a connection, and the cluster's streams where they are missing. Streams that are there are
    /// used as they are; none is changed or removed.
    ///
    /// # Errors
    /// If the client id cannot be used, or a stream is missing and cannot be created.
    pub async fn new(nats: async_nats::Client, signer: impl Signer, options: Options) -> Result<Self, ClientError> {
        let unique = |prefix: &str| {
            let inbox = nats.new_inbox();
            format!("{prefix}-{}", inbox.rsplit('.').next().unwrap_or(&inbox))
        };
        let (client_id, generated) = match options.client_id {
            ClientId::Generated => (Some(unique("client")), true),
            ClientId::Named(id) => {
                subjects::check_client_id(&id).map_err(ClientError::ClientId)?;
                (Some(id), false)
            }
            ClientId::Unscoped => (None, false),
        };
        let private_id = unique("call");
        let bus = Bus { jetstream: jetstream::new(nats), prefix: options.prefix };
        for stream in subjects::STREAMS {
            ensure_stream(&bus, stream).await?;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                bus,
                signer: Arc::new(signer),
                client_id,
                generated,
                private_id,
                valid_for: options.full_signatures.then_some(options.valid_for),
                attesters: options.attesters.map(Arc::new),
                waiters: Arc::default(),
                keygen_lane: OnceCell::new(),
                sign_lane: OnceCell::new(),
                reshare_lane: OnceCell::new(),
                closed: AtomicBool::new(false),
            }),
        })
    }

    /// The id under which listeners receive; `None` if it is [`ClientId::Unscoped`].
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.inner.client_id.as_deref()
    }

    /// Checks a request and puts the initiator's signatures in. For authorizers, who sign what the initiator signed
    /// ([`Request::approval_bytes`]); a request that has a signature is sent as it is.
    ///
    /// # Errors
    /// If the request is invalid or the signer fails.
    pub async fn signed(&self, request: impl Into<Request>) -> Result<Request, ClientError> {
        // Whoever sends it decides where the answer goes.
        self.inner.signed(request.into(), None).await
    }

    /// Asks for a wallet. The result goes to [`Client::keygen_results`].
    ///
    /// # Errors
    /// If the id is invalid, the signer fails, or the queue does not take the request.
    pub async fn create_wallet(&self, wallet_id: &str) -> Result<(), ClientError> {
        self.submit(KeygenRequest { wallet_id: wallet_id.to_owned(), ..KeygenRequest::default() }).await
    }

    /// Asks for a signature. The result goes to [`Client::signing_results`].
    ///
    /// # Errors
    /// If the request is invalid, the signer fails, or the queue does not take the request.
    pub async fn sign(&self, request: SignRequest) -> Result<(), ClientError> {
        self.submit(request).await
    }

    /// Asks to move a key to another committee. The result goes to [`Client::reshare_results`].
    ///
    /// # Errors
    /// If the request is invalid, the signer fails, or the queue does not take the request.
    pub async fn reshare(&self, request: ReshareRequest) -> Result<(), ClientError> {
        self.submit(request).await
    }

    /// Puts a request of any kind into its queue. The result goes to the listener of its kind.
    ///
    /// # Errors
    /// If the request is invalid, the signer fails, or the queue does not take the request.
    pub async fn submit(&self, request: impl Into<Request>) -> Result<(), ClientError> {
        let client_id = self.inner.client_id.as_deref();
        let request = self.inner.signed(request.into(), client_id).await?;
        self.inner.publish(&request, client_id).await.map(drop)
    }

    /// Creates a wallet and returns its public keys.
    ///
    /// # Errors
    /// As [`Client::create_wallet`], and if the cluster refuses or does not answer in time.
    pub async fn create_wallet_and_wait(
        &self,
        wallet_id: &str,
        timeout: Duration,
    ) -> Result<KeygenResult, ClientError> {
        let request = KeygenRequest { wallet_id: wallet_id.to_owned(), ..KeygenRequest::default() };
        self.keygen_and_wait(request, timeout).await
    }

    /// As [`Client::create_wallet_and_wait`], with approvals.
    ///
    /// # Errors
    /// As [`Client::create_wallet_and_wait`].
    pub async fn keygen_and_wait(
        &self,
        request: KeygenRequest,
        timeout: Duration,
    ) -> Result<KeygenResult, ClientError> {
        let result: KeygenResult = self.ask(request.into(), timeout).await?;
        if !result.is_success() {
            return Err(refused(result.code(), result.error_code, result.error_reason));
        }
        Ok(result)
    }

    /// Signs and returns the signature. Without [`Options::attesters`] the caller should verify it under the public key
    /// that it knows: the bus authenticates nothing.
    ///
    /// # Errors
    /// As [`Client::sign`], and if the cluster refuses or does not answer in time.
    pub async fn sign_and_wait(&self, request: SignRequest, timeout: Duration) -> Result<SigningResult, ClientError> {
        let result: SigningResult = self.ask(request.into(), timeout).await?;
        if !result.is_success() {
            return Err(refused(result.code(), result.error_code, result.error_reason));
        }
        Ok(result)
    }

    /// Moves a key and returns when the new committee holds it.
    ///
    /// # Errors
    /// As [`Client::reshare`], and if the cluster refuses or does not answer in time.
    pub async fn reshare_and_wait(
        &self,
        request: ReshareRequest,
        timeout: Duration,
    ) -> Result<ReshareResult, ClientError> {
        let result: ReshareResult = self.ask(request.into(), timeout).await?;
        if !result.is_success() {
            return Err(refused(result.code(), result.error_code, result.error_reason));
        }
        Ok(result)
    }

    /// Asks for a wallet that exists: its public keys, threshold, committee and epoch. A cluster that does not know it
    /// refuses with [`ErrorCode::KeyNotFound`]. With [`Options::attesters`] the keys must carry as many members'
    /// signatures as a success needs.
    ///
    /// # Errors
    /// If the signer fails, nobody answers in time, the cluster refuses, or the reply is not attested.
    pub async fn wallet(&self, wallet_id: &str, timeout: Duration) -> Result<WalletReply, ClientError> {
        let nats = self.inner.bus.jetstream.client();
        let subject = self.inner.bus.prefix.subject(WALLET_QUERY_SUBJECT);
        let inbox = nats.new_inbox();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut query = WalletQuery {
            wallet_id: wallet_id.to_owned(),
            request_id: inbox.rsplit('.').next().unwrap_or(&inbox).to_owned(),
            expires_at: u64::try_from(now.saturating_add(timeout).as_millis()).unwrap_or(u64::MAX),
            signature: None,
        };
        query.validate()?;
        query.signature = Some(self.inner.signer.sign(&query.signed_bytes()).await?);
        let mut late = ClientError::NoReply { waited: timeout };
        let ask = async {
            loop {
                // A node that stops may take a query with it, and at first there may be none.
                let reply = nats.request(subject.clone(), query.to_json().into());
                let reply = tokio::time::timeout(QUERY_REPEAT, reply).await;
                let Ok(Ok(message)) = reply else {
                    tokio::time::sleep(PUBLISH_RETRY_MIN).await;
                    continue;
                };
                let reply = match WalletReply::from_json(&message.payload) {
                    Ok(reply) if reply.request_id == query.request_id && reply.wallet_id == query.wallet_id => reply,
                    // Somebody else's words, who may say them as fast as they are asked for.
                    _ => {
                        tokio::time::sleep(PUBLISH_RETRY_MIN).await;
                        continue;
                    }
                };
                match self.inner.attesters.as_ref().map_or(Ok(()), |attesters| reply.check(attesters)) {
                    Ok(()) => break reply,
                    Err(problem) => {
                        late = ClientError::NotAttested { problem, says: None };
                        tokio::time::sleep(PUBLISH_RETRY_MIN).await;
                    }
                }
            }
        };
        let reply = tokio::time::timeout(timeout, ask).await;
        let reply = match reply {
            Ok(reply) => reply,
            Err(_) => return Err(late),
        };
        if reply.result_type == ResultType::Success {
            return Ok(reply);
        }
        Err(refused(ErrorCode::from_name(&reply.error_code), reply.error_code, reply.error_reason))
    }

    /// Listens for results of key generation.
    ///
    /// # Errors
    /// If the consumer is neither there nor can be created.
    pub async fn keygen_results(&self) -> Result<Results<KeygenResult>, ClientError> {
        Results::open(&self.inner.bus, self.inner.client_id.as_deref(), self.inner.attesters.clone()).await
    }

    /// Listens for results of signing.
    ///
    /// # Errors
    /// If the consumer is neither there nor can be created.
    pub async fn signing_results(&self) -> Result<Results<SigningResult>, ClientError> {
        Results::open(&self.inner.bus, self.inner.client_id.as_deref(), self.inner.attesters.clone()).await
    }

    /// Listens for results of resharing.
    ///
    /// # Errors
    /// If the consumer is neither there nor can be created.
    pub async fn reshare_results(&self) -> Result<Results<ReshareResult>, ClientError> {
        Results::open(&self.inner.bus, self.inner.client_id.as_deref(), self.inner.attesters.clone()).await
    }

    /// Calls a function with every result of key generation until the returned handle is dropped.
    ///
    /// # Errors
    /// As [`Client::keygen_results`].
    pub async fn on_keygen_result(
        &self,
        handle: impl FnMut(KeygenResult) + Send + 'static,
    ) -> Result<Listening, ClientError> {
        Ok(Listening::start(self.keygen_results().await?, handle))
    }

    /// Calls a function with every result of signing until the returned handle is dropped.
    ///
    /// # Errors
    /// As [`Client::signing_results`].
    pub async fn on_sign_result(
        &self,
        handle: impl FnMut(SigningResult) + Send + 'static,
    ) -> Result<Listening, ClientError> {
        Ok(Listening::start(self.signing_results().await?, handle))
    }

    /// Calls a function with every result of resharing until the returned handle is dropped.
    ///
    /// # Errors
    /// As [`Client::reshare_results`].
    pub async fn on_reshare_result(
        &self,
        handle: impl FnMut(ReshareResult) + Send + 'static,
    ) -> Result<Listening, ClientError> {
        Ok(Listening::start(self.reshare_results().await?, handle))
    }

    /// Removes the consumers that belong to this client alone, for all its clones: calls that wait end with
    /// [`ClientError::Closed`], and so do later ones. Dropping the last clone does the same in the background.
    pub async fn close(self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        for (_, lane) in self.inner.lanes() {
            lane.get().into_iter().for_each(Lane::stop);
        }
        self.inner.waiters.end_all();
        self.inner.remove_own_consumers().await;
    }

    /// Publishes under the private client id and waits for the answer to exactly this request.
    async fn ask<T: ResultDocument>(&self, request: Request, timeout: Duration) -> Result<T, ClientError> {
        let key = (request.kind(), request.wallet_id().to_owned(), request.request_id().to_owned());
        let mut late = ClientError::Timeout { kind: key.0, request_id: key.2.clone(), waited: timeout };
        let answer = async {
            let request = self.inner.signed(request, Some(&self.inner.private_id)).await?;
            let waiter = self.inner.waiter(key).await?;
            let sequence = self.inner.publish(&request, Some(&self.inner.private_id)).await?;
            self.inner.answer_to(sequence, waiter, &mut late).await
        };
        let outcome = tokio::time::timeout(timeout, answer).await;
        outcome.unwrap_or(Err(late))
    }
}

/// Whether enough nodes have signed a result, if that is asked for.
pub(crate) fn check_attested<T: ResultDocument>(attesters: Option<&Attesters>, result: &T) -> Result<(), ClientError> {
    let checked = attesters.map_or(Ok(()), |attesters| attesters.check(result));
    checked.map_err(|problem| ClientError::NotAttested { problem, says: result.failure() })
}

fn refused(code: Option<ErrorCode>, code_text: String, reason: String) -> ClientError {
    ClientError::Refused { code, code_text, reason }
}

impl Inner {
    /// Puts the signatures in that are missing; the full one covers the client id if there is one.
    async fn signed(&self, mut request: Request, client_id: Option<&str>) -> Result<Request, ClientError> {
        request.validate()?;
        if request.signature().is_some_and(|signature| !signature.is_empty()) {
            return Ok(request);
        }
        if let Some(valid_for) = self.valid_for {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let inbox = self.bus.jetstream.client().new_inbox();
            *request.full_signature_mut() = Some(FullSignature {
                request_id: inbox.rsplit('.').next().unwrap_or(&inbox).to_owned(),
                expires_at: u64::try_from(now.saturating_add(valid_for).as_millis()).unwrap_or(u64::MAX),
                client_id: client_id.map(str::to_owned),
                signature: None,
            });
            request.validate()?;
            let bytes = request.full_bytes().unwrap_or_default();
            let signature = self.signer.sign(&bytes).await?;
            if let Some(full) = request.full_signature_mut() {
                full.signature = Some(signature);
            }
        } else if request.needs_full_signature() {
            let problem = "needs a full signature, which this client is told not to make".to_owned();
            return Err(Invalid { field: "hash", problem }.into());
        }
        let signature = self.signer.sign(&request.canonical()).await?;
        request.set_signature(signature);
        Ok(request)
    }

    /// A late answer to an earlier call with the same id is passed over, where the cluster says which request it answers;
    /// and so is one that is not attested, of which `late` then tells.
    async fn answer_to<T: ResultDocument>(
        &self,
        sequence: u64,
        mut waiter: Waiter,
        late: &mut ClientError,
    ) -> Result<T, ClientError> {
        while let Some(Delivered { document, answers }) = waiter.results.recv().await {
            if answers.is_some_and(|answers| answers != sequence) {
                continue;
            }
            let result = T::read(&document).map_err(ClientError::Result)?;
            match check_attested(self.attesters.as_deref(), &result) {
                Ok(()) => return Ok(result),
                Err(error) => *late = error,
            }
        }
        Err(ClientError::Closed)
    }

    /// Starts waiting; the private lane of this kind is there when this returns.
    async fn waiter(&self, key: (Kind, String, String)) -> Result<Waiter, ClientError> {
        let kind = key.0;
        let [(_, keygen), (_, sign), (_, reshare)] = self.lanes();
        let lane = match kind {
            Kind::Keygen => keygen,
            Kind::Sign => sign,
            Kind::Reshare => reshare,
        };
        lane.get_or_try_init(|| Lane::open(&self.bus, kind, &self.private_id, &self.waiters)).await?;
        let waiter = self.waiters.register(key);
        // Checked after registering: whoever closes later ends this waiter too.
        if self.closed.load(Ordering::SeqCst) { Err(ClientError::Closed) } else { Ok(waiter) }
    }

    fn lanes(&self) -> [(Kind, &OnceCell<Lane>); 3] {
        [(Kind::Keygen, &self.keygen_lane), (Kind::Sign, &self.sign_lane), (Kind::Reshare, &self.reshare_lane)]
    }

    /// Puts a request into its queue and returns its sequence there. Repeats are recognised by the server.
    async fn publish(&self, request: &Request, client_id: Option<&str>) -> Result<u64, ClientError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(ClientError::Closed);
        }
        let subject = self.bus.prefix.subject(&subjects::request_subject(request.kind(), request.request_id()));
        let message_id = self.bus.jetstream.client().new_inbox();
        let mut wait = PUBLISH_RETRY_MIN;
        let began = Instant::now();
        loop {
            let mut message =
                jetstream::message::PublishMessage::build().payload(request.to_json().into()).message_id(&message_id);
            if let Some(client_id) = client_id {
                message = message.header(subjects::CLIENT_ID_HEADER, client_id);
            }
            let acknowledged = match self.bus.jetstream.send_publish(subject.clone(), message).await {
                Ok(acknowledgement) => acknowledgement.await,
                Err(error) => Err(error),
            };
            match acknowledged {
                Ok(acknowledgement) => return Ok(acknowledgement.sequence),
                Err(error) if began.elapsed() >= PUBLISH_PATIENCE => {
                    return Err(ClientError::Publish(error.to_string()));
                }
                Err(_) => tokio::time::sleep(wait).await,
            }
            wait = (wait * 2).min(PUBLISH_RETRY_MAX);
        }
    }

    fn remove_own_consumers(&self) -> BoxFuture<'static, ()> {
        let mut names = Vec::new();
        for (kind, lane) in self.lanes() {
            if lane.initialized() {
                names.push(subjects::result_durable(kind, Some(&self.private_id)));
            }
            if self.generated {
                names.push(subjects::result_durable(kind, self.client_id.as_deref()));
            }
        }
        let bus = self.bus.clone();
        Box::pin(async move {
            let stream = bus.prefix.stream(subjects::RESULT_STREAM.name);
            for name in names {
                // One that was never made is not there to be removed; others the server forgets by itself.
                drop(bus.jetstream.delete_consumer_from_stream(name, stream.clone()).await);
            }
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !self.closed.load(Ordering::SeqCst)
        {
            runtime.spawn(self.remove_own_consumers());
        }
    }
}

async fn ensure_stream(bus: &Bus, spec: &StreamSpec) -> Result<(), ClientError> {
    use jetstream::{
        context::CreateStreamErrorKind,
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
    };

    let name = bus.prefix.stream(spec.name);
    if bus.jetstream.get_stream(&name).await.is_ok() {
        return Ok(());
    }
    let created = bus
        .jetstream
        .create_stream(Config {
            name: name.clone(),
            description: Some(spec.description.to_owned()),
            subjects: spec.subjects.iter().map(|subject| bus.prefix.subject(subject)).collect(),
            retention: match spec.retention {
                subjects::Retention::Limits => RetentionPolicy::Limits,
                subjects::Retention::WorkQueue => RetentionPolicy::WorkQueue,
            },
            max_age: spec.max_age.unwrap_or_default(),
            max_bytes: spec.max_bytes,
            duplicate_window: spec.duplicate_window,
            storage: StorageType::File,
            discard: DiscardPolicy::Old,
            ..Config::default()
        })
        .await;
    match created {
        Ok(_) => Ok(()),
        // Somebody else made it in between, perhaps with other limits.
        Err(error)
            if matches!(error.kind(), CreateStreamErrorKind::JetStream(inner)
                if inner.error_code() == jetstream::ErrorCode::STREAM_NAME_EXIST) =>
        {
            Ok(())
        }
        Err(error) => Err(ClientError::Stream { name, problem: error.to_string() }),
    }
}

/// A running listener, which outlives lost connections and consumers; dropping it ends it.
#[derive(Debug)]
pub struct Listening {
    task: tokio::task::JoinHandle<()>,
}

impl Listening {
    fn start<T: ResultDocument>(mut results: Results<T>, mut handle: impl FnMut(T) + Send + 'static) -> Self {
        let task = tokio::spawn(async move {
            let mut wait = RELISTEN_MIN;
            loop {
                match results.next().await {
                    Some(Ok(received)) => {
                        wait = RELISTEN_MIN;
                        let (result, token) = received.into_parts();
                        handle(result);
                        // If this fails the result is delivered again: at least once.
                        drop(token.ack().await);
                    }
                    Some(Err(ClientError::Result(_) | ClientError::NotAttested { .. })) => {}
                    Some(Err(_)) | None => {
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(RELISTEN_MAX);
                        if let Ok(reopened) = results.reopen().await {
                            results = reopened;
                        }
                    }
                }
            }
        });
        Self { task }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waited_in_vain_is_told_that_it_may_still_be_done() {
        let late = |waited| ClientError::Timeout { kind: Kind::Sign, request_id: "tx-7".to_owned(), waited };
        let text = late(Duration::from_millis(1500)).to_string();
        assert!(text.starts_with("no answer to the signing request \"tx-7\" within 1.5 s; it may still be"), "{text}");
        assert!(text.contains("ask again with the same id"), "{text}");
        assert!(late(Duration::ZERO).to_string().contains(" within 0 s;"));
    }
}
