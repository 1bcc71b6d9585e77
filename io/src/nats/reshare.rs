//! Reshare requests: existing clients send them over core NATS, where they may be lost and reach every node. Every
//! node puts what it hears on the durable stream, whose de-duplication leaves one copy; only that makes coordinators.

use std::sync::Arc;

use async_nats::{Client, Message, jetstream::Context};
use futures::StreamExt as _;
use mpcium_client::{
    Kind,
    subjects::{CLIENT_ID_HEADER, RESHARE_CORE_SUBJECT, request_subject},
};
use mpcium_core::limits::REQUEST_BYTES_MAX;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::{Link, results::publish};
use crate::notice::Retry;

/// Requests that may be on their way to the stream at once; more are dropped, as core NATS may.
const FORWARDED_MAX: usize = 64;

/// Runs until aborted.
pub(super) async fn forward(client: Client, context: Context, link: Arc<Link>) {
    let room = Arc::new(Semaphore::new(FORWARDED_MAX));
    let subject = link.prefix.subject(RESHARE_CORE_SUBJECT);
    let mut retry = Retry::new(&link.notices, format!("the subscription to {subject}"));
    loop {
        match client.subscribe(subject.clone()).await {
            Ok(mut subscriber) => {
                retry.succeeded();
                while let Some(message) = subscriber.next().await {
                    if message.payload.len() > REQUEST_BYTES_MAX {
                        link.notices.warn(format!("a reshare request of {} bytes is ignored", message.payload.len()));
                    } else if let Ok(permit) = room.clone().try_acquire_owned() {
                        let (context, link) = (context.clone(), link.clone());
                        tokio::spawn(async move {
                            forward_one(&context, &link, message).await;
                            drop(permit);
                        });
                    }
                }
                tokio::time::sleep(retry.failed("it ended")).await;
            }
            Err(error) => tokio::time::sleep(retry.failed(&error.to_string())).await,
        }
    }
}

async fn forward_one(context: &Context, link: &Link, message: Message) {
    let client =
        message.headers.as_ref().and_then(|headers| headers.get(CLIENT_ID_HEADER)).map(|id| id.as_str().to_owned());
    // The header decides where the result goes: the same body for another client is another delivery.
    let mut digest = Sha256::new();
    digest.update(b"mpcium reshare request\0");
    digest.update(client.as_deref().unwrap_or_default().as_bytes());
    digest.update(b"\0");
    digest.update(&message.payload);
    let digest = hex::encode(digest.finalize());
    let subject = link.prefix.subject(&request_subject(Kind::Reshare, &digest));
    publish(context, link, "the stream of reshare requests", &subject, &digest, client.as_deref(), message.payload)
        .await;
}
