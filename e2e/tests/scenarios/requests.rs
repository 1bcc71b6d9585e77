//! Requests that are wrong, and requests that come again.

use e2e::{
    load::{Asker, Order},
    programs,
    wait::PATIENCE,
};
use mpcium_client::{KeyType, Kind, client::ClientError, result::ErrorCode, subjects};

use crate::world::{Outcome, World, check, words};

/// How often a request is repeated at once.
const COPIES: usize = 12;

fn refused_with<T>(what: &str, code: ErrorCode, outcome: Result<T, ClientError>) -> Outcome {
    match outcome {
        Err(ClientError::Refused { code: Some(found), .. }) if found == code => Ok(()),
        Err(error) => Err(format!("{what}: expected {code}, got {error}")),
        Ok(_) => Err(format!("{what}: was answered with success")),
    }
}

/// Whoever has another key gets an error at once, for wallets and for signatures.
pub async fn a_request_signed_with_another_key_is_refused(world: &mut World) -> Outcome {
    let folder = world.folder().join("stranger");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    programs::run(&folder, &["generate-initiator"])?;
    let client = world.cluster.client_with(&folder.join("event_initiator.key")).await?;
    let stranger = Asker { client: client.clone(), wallet: world.asker.wallet.clone() };
    for key_type in [KeyType::Ed25519, KeyType::Secp256k1] {
        let outcome = stranger.ask(&Order::new(key_type)).await;
        refused_with("a signature", ErrorCode::InvalidInitiatorSignature, outcome)?;
    }
    let outcome = client.create_wallet_and_wait("a stranger's", PATIENCE).await;
    refused_with("a wallet", ErrorCode::InvalidInitiatorSignature, outcome)?;
    // The id that the stranger used is not taken by that.
    world.asker.client.create_wallet_and_wait("a stranger's", PATIENCE).await.map(drop).map_err(words)
}

/// Asking for a wallet again gives the same keys.
pub async fn a_wallet_that_exists_is_answered_again(world: &mut World) -> Outcome {
    let wallet = &world.asker.wallet;
    let again = world.asker.client.create_wallet_and_wait(&wallet.id, PATIENCE).await.map_err(words)?;
    let again = e2e::verify::Wallet::new(&again)?;
    check(again == *wallet, || format!("the wallet has other keys now: {again:?}, before {wallet:?}"))
}

/// Signing with a wallet that nobody made is refused at once.
pub async fn an_unknown_wallet_is_refused(world: &mut World) -> Outcome {
    let mut asker = world.asker.clone();
    asker.wallet.id = "nobody's".to_owned();
    for key_type in [KeyType::Ed25519, KeyType::Secp256k1] {
        refused_with("a signature", ErrorCode::KeyNotFound, asker.ask(&Order::new(key_type)).await)?;
    }
    Ok(())
}

/// A request that comes twice, one after the other or at once, has one signature.
pub async fn the_same_request_has_one_answer(world: &mut World) -> Outcome {
    for key_type in [KeyType::Ed25519, KeyType::Secp256k1] {
        let order = Order::new(key_type);
        let (other, third) = (world.cluster.client().await?, world.cluster.client().await?);
        let other = Asker { client: other, wallet: world.asker.wallet.clone() };
        let third = Asker { client: third, wallet: world.asker.wallet.clone() };
        let (first, second) = futures::try_join!(world.asker.sign(&order), other.sign(&order))?;
        let later = third.sign(&order).await?;
        check(first == second && first == later, || {
            format!("{key_type}: different answers to {}: {first:?}, {second:?}, {later:?}", order.tx_id)
        })?;
        // Many copies at once, so that every node takes some.
        let request = world.asker.client.signed(order.request(&world.asker.wallet)).await.map_err(words)?;
        let subject = subjects::request_subject(Kind::Sign, &order.tx_id);
        for _ in 0..COPIES {
            world.nats.publish(subject.clone(), request.to_json().into()).await.map_err(|error| error.to_string())?;
        }
        world.queues_are_settled().await?;
        let answers = world.answers.seen().remove(&order.tx_id).unwrap_or_default();
        check(answers.len() == 1, || format!("{key_type}: {} different answers to {}", answers.len(), order.tx_id))?;
    }
    Ok(())
}

/// An id stands for one payload; the first one keeps it, also after a restart of all nodes.
pub async fn the_same_id_with_another_payload_is_refused(world: &mut World) -> Outcome {
    let order = Order::new(KeyType::Ed25519);
    let first = world.asker.sign(&order).await?;
    let other = Order { message: b"something else".to_vec(), ..order.clone() };
    refused_with("another message", ErrorCode::SessionDuplicate, world.asker.ask(&other).await)?;
    let other = Order { key_type: KeyType::Secp256k1, ..order.clone() };
    refused_with("another curve", ErrorCode::SessionDuplicate, world.asker.ask(&other).await)?;
    for node in &mut world.cluster.nodes {
        node.kill();
    }
    world.heal().await?;
    let other = Order { message: b"something else".to_vec(), ..order.clone() };
    refused_with("after a restart", ErrorCode::SessionDuplicate, world.asker.ask(&other).await)?;
    let again = world.asker.sign(&order).await?;
    check(first == again, || format!("another answer after a restart: {first:?}, {again:?}"))
}
