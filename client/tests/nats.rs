//! The client against a real nats-server and a scripted cluster. The server is found through `NATS_SERVER`, the
//! project's tools folder or the search path; without one these tests say so and check nothing.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, consumer::pull, message::PublishMessage};
use futures::StreamExt as _;
use mpcium_client::{
    ErrorCode, KeygenResult, Kind, Prefix, Request, ReshareRequest, ReshareResult, SignRequest, SigningResult,
    auth::verify_initiator,
    client::{Client, ClientError, ClientId, Options},
    signer::LocalSigner,
    subjects,
};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A missing program fails the tests: nothing here is ever skipped.
fn server_program() -> PathBuf {
    let tools = std::env::var_os("MPCIUM_TOOLS")
        .map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools").into(), PathBuf::from);
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    std::env::var_os("NATS_SERVER")
        .map(PathBuf::from)
        .into_iter()
        .chain([tools.join("bin/nats-server")])
        .chain(std::env::split_paths(&on_path).map(|folder| folder.join("nats-server")))
        .find(|path| path.is_file())
        .expect("no nats-server: run `make servers` (scripts/fetch-servers.sh), or name one in NATS_SERVER")
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn server() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let process = Command::new(server_program())
        .args(["-js", "-a", "127.0.0.1", "-p", "-1", "-sd"])
        .arg(folder.path())
        .arg("--ports_file_dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ports = folder.path().join(format!("nats-server_{}.ports", process.id()));
    let url = eventually("the server's port", || async {
        let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(&ports).ok()?).ok()?;
        ports["nats"][0].as_str().map(str::to_owned)
    })
    .await;
    Server { process, url, _folder: folder }
}

impl Server {
    async fn connect(&self) -> async_nats::Client {
        async_nats::connect(&self.url).await.unwrap()
    }

    async fn client(&self, client_id: ClientId) -> Client {
        self.client_with(Options { client_id, ..Options::default() }).await
    }

    async fn client_with(&self, options: Options) -> Client {
        Client::new(self.connect().await, LocalSigner::from_seed(&[7; 32]), options).await.unwrap()
    }

    async fn consumers(&self) -> Vec<String> {
        let jetstream = jetstream::new(self.connect().await);
        let stream = jetstream.get_stream("mpc").await.unwrap();
        let mut names: Vec<String> = stream.consumer_names().map(Result::unwrap).collect().await;
        names.sort();
        names
    }

    async fn all_results_are_taken(&self) {
        let jetstream = jetstream::new(self.connect().await);
        eventually("the results' acknowledgement", || async {
            let stream = jetstream.get_stream("mpc").await.ok()?;
            (stream.cached_info().state.messages == 0).then_some(())
        })
        .await;
    }

    /// A cluster that hands every request of a kind to the test.
    async fn cluster(&self, kind: Kind) -> Cluster {
        self.cluster_of(Prefix::default(), kind).await
    }

    async fn cluster_of(&self, prefix: Prefix, kind: Kind) -> Cluster {
        let jetstream = jetstream::new(self.connect().await);
        let stream = jetstream.get_stream(prefix.stream(subjects::request_stream_of(kind).name)).await.unwrap();
        let consumer = stream
            .create_consumer(pull::Config {
                durable_name: Some(subjects::request_durable(kind).to_owned()),
                filter_subject: prefix.subject(subjects::request_filter(kind)),
                ..pull::Config::default()
            })
            .await
            .unwrap();
        let mut messages = consumer.messages().await.unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                let request = Request::decode(kind, &message.payload).unwrap();
                let client = message.headers.as_ref().and_then(|h| h.get("ClientID")).map(|id| id.as_str().to_owned());
                let sequence = message.info().unwrap().stream_sequence;
                message.ack().await.unwrap();
                drop(sender.send(Asked { request, client, sequence }));
            }
        });
        Cluster { jetstream, prefix, kind, requests, task }
    }
}

struct Asked {
    request: Request,
    client: Option<String>,
    sequence: u64,
}

struct Cluster {
    jetstream: jetstream::Context,
    prefix: Prefix,
    kind: Kind,
    requests: mpsc::UnboundedReceiver<Asked>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    async fn next(&mut self) -> Asked {
        let asked = tokio::time::timeout(PATIENCE, self.requests.recv()).await.expect("no request").unwrap();
        let initiator = LocalSigner::from_seed(&[7; 32]).public_key();
        assert_eq!(verify_initiator(&initiator, &asked.request), Ok(()));
        asked
    }

    async fn answer(&self, asked: &Asked, document: Vec<u8>) {
        let (id, client) = (asked.request.request_id(), asked.client.as_deref());
        let stream = subjects::request_stream_of(self.kind).name;
        let dedup = subjects::dedup_id(self.kind, id, client, stream, asked.sequence, 0);
        let message = PublishMessage::build().payload(document.into()).message_id(dedup);
        let subject = self.prefix.subject(&subjects::result_subject(self.kind, client, id));
        self.jetstream.send_publish(subject, message).await.unwrap().await.unwrap();
    }
}

fn keygen_success(asked: &Asked, mark: u8) -> Vec<u8> {
    KeygenResult::success(asked.request.wallet_id(), &[mark; 64], &[mark; 32]).to_json()
}

fn sign_request(tx_id: &str) -> SignRequest {
    SignRequest {
        key_type: "ed25519".into(),
        wallet_id: "w".into(),
        tx_id: tx_id.into(),
        tx: Some(b"message".to_vec()),
        ..SignRequest::default()
    }
}

#[tokio::test]
async fn clusters_that_differ_in_their_prefix_share_a_server_and_nothing_else() {
    let server = server().await;
    let mut waiting = Vec::new();
    for (mark, prefix) in (1..).zip(["", "blue", "eu.blue"]) {
        let prefix = Prefix::parse(prefix).unwrap();
        let client = server.client_with(Options { prefix: prefix.clone(), ..Options::default() }).await;
        let cluster = server.cluster_of(prefix, Kind::Keygen).await;
        let call = tokio::spawn(async move { client.create_wallet_and_wait("w", PATIENCE).await });
        waiting.push((mark, cluster, call));
    }
    for (mark, mut cluster, call) in waiting {
        let asked = cluster.next().await;
        cluster.answer(&asked, keygen_success(&asked, mark)).await;
        let result = call.await.unwrap().unwrap();
        assert_eq!(result.eddsa_pub_key, Some(vec![mark; 32]));
    }
}

#[tokio::test]
async fn streams_are_made_as_existing_clients_make_them_and_left_alone_when_there() {
    let server = server().await;
    let jetstream = jetstream::new(server.connect().await);
    jetstream
        .create_stream(jetstream::stream::Config {
            name: "mpc-keygen".into(),
            subjects: vec!["mpc.keygen_request.*".into()],
            max_age: Duration::from_secs(180),
            ..Default::default()
        })
        .await
        .unwrap();
    drop(server.client(ClientId::Generated).await);
    let config = |name: &'static str| {
        let jetstream = jetstream.clone();
        async move { jetstream.get_stream(name).await.unwrap().cached_info().config.clone() }
    };
    assert_eq!(config("mpc-keygen").await.max_age, Duration::from_secs(180), "was changed");
    let signing = config("mpc-signing").await;
    assert_eq!(signing.retention, jetstream::stream::RetentionPolicy::Limits);
    assert_eq!(signing.max_age, Duration::from_secs(7 * 24 * 3600));
    let results = config("mpc").await;
    assert_eq!(results.retention, jetstream::stream::RetentionPolicy::WorkQueue);
    assert_eq!(results.subjects.len(), 3);
    assert_eq!((results.max_bytes, signing.max_bytes), (100_000_000, 100_000_000));
}

#[tokio::test]
async fn one_call_asks_and_returns_the_answer_for_ids_of_any_content() {
    let server = server().await;
    let client = server.client(ClientId::Generated).await;
    let mut keygen = server.cluster(Kind::Keygen).await;
    for id in ["plain", "dots.and spaces.*>", "émoji 😀:1", "%2E"] {
        let (result, ()) = tokio::join!(client.create_wallet_and_wait(id, PATIENCE), async {
            let asked = keygen.next().await;
            assert_eq!(asked.request.wallet_id(), id);
            keygen.answer(&asked, keygen_success(&asked, 3)).await;
        });
        assert_eq!(result.unwrap().wallet_id, id);
    }

    let mut signing = server.cluster(Kind::Sign).await;
    let (result, ()) = tokio::join!(client.sign_and_wait(sign_request("t.1"), PATIENCE), async {
        let asked = signing.next().await;
        signing.answer(&asked, SigningResult::success_eddsa("", "w", "t.1", &[5; 64]).to_json()).await;
    });
    assert_eq!(result.unwrap().signature, Some(vec![5; 64]));

    let mut resharing = server.cluster(Kind::Reshare).await;
    let request = ReshareRequest {
        session_id: "s.1".into(),
        node_ids: Some(vec!["a".into(), "b".into()]),
        new_threshold: 2,
        key_type: "ed25519".into(),
        wallet_id: "w".into(),
        ..ReshareRequest::default()
    };
    let (result, ()) = tokio::join!(client.reshare_and_wait(request, PATIENCE), async {
        let asked = resharing.next().await;
        let refusal = ReshareResult::error("w", 2, "ed25519", ErrorCode::KeyNotFound, "no such wallet");
        resharing.answer(&asked, refusal.to_json()).await;
    });
    assert!(matches!(result, Err(ClientError::Refused { code: Some(ErrorCode::KeyNotFound), .. })));

    let clone = client.clone();
    let (result, ()) = tokio::join!(clone.create_wallet_and_wait("never", PATIENCE), async {
        keygen.next().await;
        client.close().await;
    });
    assert!(matches!(result, Err(ClientError::Closed)), "{result:?}");
    assert!(matches!(clone.create_wallet("later").await, Err(ClientError::Closed)));
    assert_eq!(server.consumers().await, Vec::<String>::new(), "own consumers stay behind");
}

#[tokio::test]
async fn waiting_calls_and_listeners_never_take_each_others_results() {
    let server = server().await;
    let clients = [
        server.client(ClientId::Named("svc-a".into())).await,
        server.client(ClientId::Named("svc-a".into())).await,
        server.client(ClientId::Unscoped).await,
    ];
    let mut named = clients[0].keygen_results().await.unwrap();
    let mut unscoped = clients[2].keygen_results().await.unwrap();
    let mut cluster = server.cluster(Kind::Keygen).await;
    let calls = clients.iter().map(|client| client.create_wallet_and_wait("same", PATIENCE));
    let (results, ()) = tokio::join!(futures::future::join_all(calls), async {
        let mut asked = Vec::new();
        for _ in 0..3 {
            asked.push(cluster.next().await);
        }
        for (mark, asked) in (1..).zip(asked.iter().rev()) {
            cluster.answer(asked, keygen_success(asked, mark)).await;
        }
    });
    let mut marks: Vec<u8> = results.into_iter().map(|result| result.unwrap().eddsa_pub_key.unwrap()[0]).collect();
    marks.sort();
    assert_eq!(marks, [1, 2, 3], "every call gets the answer to its own request");

    clients[1].create_wallet("for-a").await.unwrap();
    clients[2].create_wallet("for-all").await.unwrap();
    for _ in 0..2 {
        let asked = cluster.next().await;
        cluster.answer(&asked, keygen_success(&asked, 9)).await;
    }
    for (listener, expected) in [(&mut named, "for-a"), (&mut unscoped, "for-all")] {
        let received = tokio::time::timeout(PATIENCE, listener.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(received.result.wallet_id, expected);
        assert_eq!(received.request_id.as_deref(), Some(expected));
        let (_, token) = received.into_parts();
        token.ack().await.unwrap();
    }
    for client in clients {
        client.close().await;
    }
    assert_eq!(server.consumers().await, ["mpc_keygen_result", "mpc_keygen_result_svc_a"]);
}

#[tokio::test]
async fn a_late_answer_is_not_taken_for_the_next_calls() {
    let server = server().await;
    let client = server.client(ClientId::Generated).await;
    let mut cluster = server.cluster(Kind::Sign).await;
    let early = client.sign_and_wait(sign_request("t"), Duration::from_millis(300)).await;
    assert!(matches!(early, Err(ClientError::Timeout { .. })), "{early:?}");
    let first = cluster.next().await;

    let mut other = sign_request("t");
    other.tx = Some(b"another message".to_vec());
    let (result, ()) = tokio::join!(client.sign_and_wait(other, PATIENCE), async {
        let second = cluster.next().await;
        cluster.answer(&first, SigningResult::success_eddsa("", "w", "t", &[1; 64]).to_json()).await;
        let refusal = SigningResult::error("", "w", "t", ErrorCode::SessionDuplicate, "taken");
        cluster.answer(&second, refusal.to_json()).await;
    });
    assert!(matches!(result, Err(ClientError::Refused { code: Some(ErrorCode::SessionDuplicate), .. })), "{result:?}");
}

#[tokio::test]
async fn what_a_listener_does_not_acknowledge_comes_again() {
    let server = server().await;
    let client = server.client(ClientId::Generated).await;
    let mut cluster = server.cluster(Kind::Sign).await;
    let mut results = client.signing_results().await.unwrap();
    client.sign(sign_request("t")).await.unwrap();
    let asked = cluster.next().await;
    assert_eq!(asked.client.as_deref(), client.client_id());
    cluster.answer(&asked, SigningResult::success_eddsa("", "w", "t", &[1; 64]).to_json()).await;
    for acknowledged in [false, true] {
        let received = tokio::time::timeout(PATIENCE, results.next()).await.unwrap().unwrap().unwrap();
        let (result, token) = received.into_parts();
        assert_eq!(result.tx_id, "t");
        if acknowledged { token.ack().await.unwrap() } else { token.nak().await.unwrap() }
    }
    server.all_results_are_taken().await;
    drop(results);
    drop(client);
    eventually("the removal of the dropped client's consumers", || async {
        server.consumers().await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn callbacks_outlive_their_consumer() {
    let server = server().await;
    let client = server.client(ClientId::Named("svc".into())).await;
    let mut cluster = server.cluster(Kind::Keygen).await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let listening = client.on_keygen_result(move |result| drop(sender.send(result.wallet_id))).await.unwrap();
    let jetstream = jetstream::new(server.connect().await);
    for wallet in ["before", "after"] {
        client.create_wallet(wallet).await.unwrap();
        let asked = cluster.next().await;
        cluster.answer(&asked, keygen_success(&asked, 1)).await;
        let got = tokio::time::timeout(PATIENCE, seen.recv()).await.expect("no result");
        assert_eq!(got.as_deref(), Some(wallet));
        server.all_results_are_taken().await;
        jetstream.delete_consumer_from_stream("mpc_keygen_result_svc", "mpc").await.unwrap();
    }
    drop(listening);
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_is_sent() {
    let server = server().await;
    let bad_id = Options { client_id: ClientId::Named("a.b".into()), ..Options::default() };
    let refused = Client::new(server.connect().await, LocalSigner::from_seed(&[7; 32]), bad_id).await;
    assert!(matches!(refused, Err(ClientError::ClientId(_))));
    let client = server.client(ClientId::Unscoped).await;
    assert!(matches!(client.create_wallet("{}").await, Err(ClientError::Invalid(_))));
    let hardened = SignRequest { derivation_path: vec![1 << 31], ..sign_request("t") };
    let refused = client.sign_and_wait(hardened, PATIENCE).await;
    assert!(matches!(refused, Err(ClientError::Invalid(invalid)) if invalid.field == "derivation_path"));
    let stream = jetstream::new(server.connect().await).get_stream("mpc-signing").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 0);
}
