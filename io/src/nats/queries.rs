//! Queries for wallets: requests with a reply over core NATS, shared among the nodes. Any of it may be lost; whoever
//! asks asks again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_nats::{Client, Subject};
use futures::StreamExt as _;
use mpcium_client::query::{QUERY_BYTES_MAX, WALLET_QUERY_GROUP, WALLET_QUERY_SUBJECT};
use mpcium_core::{Input, input::QueryId};

use super::{Link, datagrams::send_now};
use crate::{notice::Retry, ports::Inbox};

/// Queries whose reply is remembered; the oldest are forgotten first, as core answers or drops each within seconds.
const REMEMBERED_MAX: usize = 4096;

/// Where to reply to queries.
#[derive(Debug, Default)]
pub(super) struct Replies {
    table: Mutex<(u64, BTreeMap<QueryId, Subject>)>,
}

impl Replies {
    fn insert(&self, reply: Subject) -> QueryId {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, waiting) = &mut *table;
        *next += 1;
        let id = QueryId(*next);
        waiting.insert(id, reply);
        if waiting.len() > REMEMBERED_MAX {
            waiting.pop_first();
        }
        id
    }

    /// Sends a reply, or loses it.
    pub fn send(&self, client: &Client, query: QueryId, body: Vec<u8>) {
        let reply = self.table.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&query);
        if let Some(reply) = reply {
            send_now(client, reply, body.into());
        }
    }
}

/// Runs until aborted.
pub(super) async fn receive(client: Client, replies: Arc<Replies>, inbox: Inbox, link: Arc<Link>) {
    let subject = link.prefix.subject(WALLET_QUERY_SUBJECT);
    let mut retry = Retry::new(&link.notices, format!("the subscription to {subject}"));
    loop {
        match client.queue_subscribe(subject.clone(), WALLET_QUERY_GROUP.to_owned()).await {
            Ok(mut subscriber) => {
                retry.succeeded();
                while let Some(message) = subscriber.next().await {
                    if let Some(reply) = message.reply
                        && message.payload.len() <= QUERY_BYTES_MAX
                    {
                        inbox.put(Input::Query { query: replies.insert(reply), body: message.payload.into() });
                    }
                }
                tokio::time::sleep(retry.failed("it ended")).await;
            }
            Err(error) => tokio::time::sleep(retry.failed(&error.to_string())).await,
        }
    }
}
