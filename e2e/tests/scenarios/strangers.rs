//! Somebody who reaches the bus and has no key: garbage and repetitions on every subject.

use e2e::{
    bus::{self, Passed},
    load::Order,
};
use mpcium_client::{KeyType, SigningResult};
use sha2::{Digest as _, Sha256};

use crate::world::{Outcome, World, check};

/// How often everything that was recorded is repeated.
const REPETITIONS: usize = 3;

/// Bytes of any length that look like nothing.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut block = Sha256::digest([seed]);
    while bytes.len() < length {
        bytes.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    bytes.truncate(length);
    bytes
}

fn garbage() -> Vec<Vec<u8>> {
    let texts = [
        "",
        "{",
        "null",
        "[]",
        "{}",
        "\"text\"",
        "{\"wallet_id\":7}",
        "{\"wallet_id\":\"x\",\"signature\":\"AAAA\"}",
        "{\"wallet_id\":\"shared\",\"key_type\":\"ed25519\",\"tx_id\":\"t\",\"tx\":\"AA==\",\"signature\":\"!\"}",
        "{\"wallet_id\":\"\\u0000\",\"wallet_id\":null,\"derivation_path\":[-1,1e99]}",
    ];
    let lengths = [1, 2, 16, 33, 64, 100, 500, 1500, 65_000, 400_000];
    texts
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .chain((0..).zip(lengths).map(|(seed, length)| noise(seed, length)))
        .chain([b"[".repeat(100_000), vec![0; 70_000], vec![0xff; 70_000]])
        .collect()
}

/// Nothing of it stops a node, changes an answer, or raises an alarm; signatures go on meanwhile and afterwards.
pub async fn garbage_and_replays_change_nothing(world: &mut World) -> Outcome {
    let orders = [Order::new(KeyType::Ed25519), Order::new(KeyType::Secp256k1)];
    let asker = world.asker.clone();
    let (_, recorded) = bus::record(&world.nats, async {
        for order in &orders {
            asker.sign(order).await?;
        }
        let wallet = format!("recorded {}", orders[0].tx_id);
        asker.client.create_wallet_and_wait(&wallet, e2e::wait::PATIENCE).await.map_err(|error| error.to_string())
    })
    .await?;
    let seen = |part: &str| recorded.iter().any(|message| message.subject.contains(part));
    for part in ["mpcium.peer.", "mpc.signing_request.", "mpc.keygen_request.", "mpc.mpc_signing_result."] {
        check(seen(part), || format!("nothing was recorded on {part}"))?;
    }

    let load = world.asker.load(1, 0);
    let mut subjects: Vec<String> =
        ["mpc.keygen_request.x", "mpc.signing_request.x", "mpc.reshare_request.x", "mpc:reshare"]
            .map(str::to_owned)
            .to_vec();
    subjects.extend(world.cluster.nodes.iter().map(|node| format!("mpcium.peer.{}", node.id)));
    subjects.extend(["mpc.mpc_signing_result.x.complete", "mpc.mpc_keygen_result.x.x"].map(str::to_owned));
    for subject in &subjects {
        for payload in garbage() {
            publish(world, &Passed { subject: subject.as_str().into(), headers: None, payload: payload.into() })
                .await?;
        }
    }
    for _ in 0..REPETITIONS {
        for message in &recorded {
            publish(world, message).await?;
        }
    }
    // What one node was told, told to another, and the other way round.
    for (message, subject) in recorded.iter().zip(subjects.iter().cycle()) {
        publish(world, &Passed { subject: subject.as_str().into(), ..message.clone() }).await?;
    }
    world.nats.flush().await.map_err(|error| error.to_string())?;

    crate::world::progress(&load, 20, "after garbage and replays").await?;
    load.finish().await?;
    world.asker.sign_new(KeyType::Secp256k1).await?;
    let crashed = world.cluster.crashed();
    check(crashed.is_empty(), || format!("ended by themselves: {}", crashed.join(", ")))?;
    world.cluster.ready().await?;
    world.queues_are_settled().await?;
    let answers = world.answers.seen();
    for order in &orders {
        // A document with the id of a good request that is none itself is answered with an error of its own; the
        // request has one answer.
        let all = answers.get(&order.tx_id).cloned().unwrap_or_default();
        let results = all.iter().filter_map(|document| SigningResult::from_json(document).ok());
        let good = results.filter(SigningResult::is_success).count();
        check(good == 1, || format!("{} has {good} different signatures", order.tx_id))?;
    }
    for node in &world.cluster.nodes {
        let alarms = node.alarms()?;
        check(alarms.is_empty(), || format!("{} raises alarms: {}", node.name, alarms.join("; ")))?;
    }
    Ok(())
}

async fn publish(world: &World, message: &Passed) -> Outcome {
    let Passed { subject, headers, payload } = message.clone();
    match headers {
        // Without its id the server would take a repeated request for what it is.
        Some(mut headers) => {
            if headers.get("Nats-Msg-Id").is_some() {
                headers.insert("Nats-Msg-Id", uuid::Uuid::new_v4().to_string());
            }
            world.nats.publish_with_headers(subject, headers, payload).await
        }
        None => world.nats.publish(subject, payload).await,
    }
    .map_err(|error| format!("the stranger cannot publish: {error}"))
}
