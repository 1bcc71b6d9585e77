//! What the Go system leaves on the bus and in Consul when its nodes are stopped: its streams, its consumers with their
//! own limits, requests in both states, its marks of readiness, its wallets.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use async_nats::jetstream::{
    self, Context,
    consumer::{AckPolicy, PullConsumer, pull},
    stream::{self, RetentionPolicy},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use e2e::wait::{self, PATIENCE};
use ed25519_dalek::{Signer as _, SigningKey};
use futures::StreamExt as _;

/// A wallet that its nodes made.
pub const WALLET: &str = "their-wallet";
/// A request that its nodes have answered, and that nobody may answer again.
pub const ANSWERED: &str = "answered-before";
/// A request that came when no node ran.
pub const WAITING: &str = "asked-in-between";

/// Days for which its streams keep requests.
const DAYS: u64 = 7;

/// Streams and consumers as its nodes make them, with a request in either state.
pub async fn on_the_bus(address: &str, initiator: &SigningKey) -> Result<(), String> {
    let client =
        wait::until("NATS", PATIENCE, async || async_nats::connect(address).await.map_err(|error| error.to_string()))
            .await?;
    let context = jetstream::new(client);
    for (name, subjects, retention) in [
        ("mpc-keygen", vec!["mpc.keygen_request.*"], RetentionPolicy::Limits),
        ("mpc-signing", vec!["mpc.signing_request.*"], RetentionPolicy::Limits),
        (
            "mpc",
            vec!["mpc.mpc_keygen_result.>", "mpc.mpc_signing_result.>", "mpc.mpc_reshare_result.>"],
            RetentionPolicy::WorkQueue,
        ),
    ] {
        let requests = retention == RetentionPolicy::Limits;
        let config = stream::Config {
            name: name.to_owned(),
            description: Some(format!("Stream for {name}")),
            subjects: subjects.into_iter().map(str::to_owned).collect(),
            retention,
            max_age: if requests { Duration::from_secs(DAYS * 86_400) } else { Duration::ZERO },
            max_bytes: 100_000_000,
            ..stream::Config::default()
        };
        context.create_stream(config).await.map_err(|error| format!("{name}: {error}"))?;
    }
    let keygen = queue(&context, "mpc-keygen", "mpc_keygen_consumer", "mpc.keygen_request.*", 2).await?;
    queue(&context, "mpc-signing", "mpc_signing_consumer", "mpc.signing_request.*", 20).await?;
    ask(&context, initiator, ANSWERED).await?;
    let mut taken = keygen.fetch().max_messages(1).messages().await.map_err(|error| error.to_string())?;
    let answered = taken.next().await.ok_or("nothing is in the queue")?.map_err(|error| error.to_string())?;
    answered.double_ack().await.map_err(|error| error.to_string())?;
    ask(&context, initiator, WAITING).await
}

async fn queue(
    context: &Context,
    stream: &str,
    durable: &str,
    filter: &str,
    at_once: i64,
) -> Result<PullConsumer, String> {
    let config = pull::Config {
        durable_name: Some(durable.to_owned()),
        filter_subject: filter.to_owned(),
        ack_policy: AckPolicy::Explicit,
        max_deliver: 4,
        backoff: vec![Duration::from_secs(30); 3],
        max_ack_pending: at_once,
        ..pull::Config::default()
    };
    context.create_consumer_on_stream(config, stream).await.map_err(|error| format!("{durable}: {error}"))
}

/// Asks for a wallet as its Go client does, also under that literal subject.
async fn ask(context: &Context, initiator: &SigningKey, wallet: &str) -> Result<(), String> {
    let signature = STANDARD.encode(initiator.sign(wallet.as_bytes()).to_bytes());
    let document = format!("{{\"wallet_id\":\"{wallet}\",\"signature\":\"{signature}\"}}");
    let sent = context.publish("mpc.keygen_request.*", document.into()).await.map_err(|error| error.to_string())?;
    sent.await.map(drop).map_err(|error| error.to_string())
}

/// Its wallet, and marks of nodes that were killed without taking them back.
pub fn in_consul(address: &str, ids: &[String]) {
    let info = format!("{{\"participant_peer_ids\":[\"{}\"],\"threshold\":1,\"version\":1}}", ids.join("\",\""));
    put(address, &format!("threshold_keyinfo/ecdsa:{WALLET}"), &info);
    for id in ids {
        put(address, &format!("ready/{id}"), "true");
    }
}

/// Writes a key into Consul.
fn put(address: &str, key: &str, value: &str) {
    let mut stream = TcpStream::connect(address).expect("connected");
    let head = format!("PUT /v1/kv/{key} HTTP/1.1\r\nHost: consul\r\nConnection: close\r\n");
    let request = format!("{head}Content-Length: {}\r\n\r\n{value}", value.len());
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
