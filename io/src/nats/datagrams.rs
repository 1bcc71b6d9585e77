//! Bytes between nodes over core NATS: at most once, on one subject per node.
//!
//! Sending never waits and adds no hop: the publication goes straight into the connection's queue, and is lost when
//! that is full or the connection is down. Links above repeat what matters.

use std::{fmt::Display, sync::Arc};

use async_nats::{Client, connection::State};
use futures::{FutureExt as _, StreamExt as _};
use mpcium_client::Prefix;
use mpcium_core::{Input, NodeId, limits::DATAGRAM_BYTES_MAX};

use super::Link;
use crate::{
    notice::Retry,
    ports::{Datagrams, Inbox},
};

/// Subjects between nodes are this and the node's id.
const PEERS: &str = "mpcium.peer";

/// The subject on which a node takes datagrams.
pub(super) fn subject(prefix: &Prefix, node: impl Display) -> String {
    prefix.subject(&format!("{PEERS}.{node}"))
}

/// Sends to peers' subjects.
#[derive(Debug)]
pub struct NatsDatagrams {
    client: Client,
    prefix: Prefix,
}

impl NatsDatagrams {
    pub(super) fn new(client: Client, prefix: Prefix) -> Self {
        Self { client, prefix }
    }
}

impl Datagrams for NatsDatagrams {
    fn send(&self, to: NodeId, bytes: Vec<u8>) {
        // What would wait for a reconnection arrives too late to be of use, and costs memory.
        if self.client.connection_state() == State::Connected {
            send_now(&self.client, subject(&self.prefix, to), bytes.into());
        }
    }
}

/// Publishes without waiting, or not at all.
pub(super) fn send_now(client: &Client, subject: impl Into<async_nats::Subject>, payload: bytes::Bytes) {
    // Under tokio's cooperative budget a queue with room can still say "later", which here would mean "lost".
    let publication = tokio::task::unconstrained(client.publish(subject.into(), payload));
    let _ = publication.now_or_never();
}

/// Puts whatever arrives on this node's subject into the inbox. The client library subscribes again after each
/// reconnection by itself.
pub(super) async fn receive(client: Client, subject: String, inbox: Inbox, link: Arc<Link>) {
    let mut retry = Retry::new(&link.notices, format!("the subscription to {subject}"));
    loop {
        match client.subscribe(subject.clone()).await {
            Ok(mut subscriber) => {
                retry.succeeded();
                while let Some(message) = subscriber.next().await {
                    if message.payload.len() <= DATAGRAM_BYTES_MAX {
                        inbox.put(Input::Datagram(message.payload.into()));
                    }
                }
                tokio::time::sleep(retry.failed("it ended")).await;
            }
            Err(error) => tokio::time::sleep(retry.failed(&error.to_string())).await,
        }
    }
}
