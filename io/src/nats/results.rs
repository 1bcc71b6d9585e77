//! The port for results: published to JetStream with a de-duplication id, until the stream has them.

use std::sync::Arc;

use async_nats::jetstream::{Context, message::PublishMessage};
use mpcium_client::subjects::CLIENT_ID_HEADER;
use mpcium_core::{Input, input::QueryId, output::Publication};
use tokio::runtime::Handle;

use super::{Link, queries::Replies};
use crate::{
    notice::Retry,
    ports::{Inbox, Results},
};

/// Publishes results.
#[derive(Debug)]
pub struct NatsResults {
    context: Context,
    link: Arc<Link>,
    inbox: Inbox,
    replies: Arc<Replies>,
    runtime: Handle,
}

impl NatsResults {
    pub(super) fn new(context: Context, link: Arc<Link>, inbox: Inbox, replies: Arc<Replies>) -> Self {
        Self { context, link, inbox, replies, runtime: Handle::current() }
    }
}

impl Results for NatsResults {
    fn reply(&self, query: QueryId, body: Vec<u8>) {
        self.replies.send(&self.context.client(), query, body);
    }

    fn publish(&self, publication: Publication) {
        let (context, link, inbox) = (self.context.clone(), self.link.clone(), self.inbox.clone());
        let unconfirmed = link.unconfirmed();
        self.runtime.spawn(async move {
            let _unconfirmed = unconfirmed;
            let id = publication.id;
            let subject = link.prefix.subject(&publication.subject);
            let what = format!("the stream of results to take {subject}");
            let body = publication.body.into();
            publish(&context, &link, &what, &subject, &publication.dedup, None, body).await;
            inbox.put(Input::Published(id));
        });
    }
}

/// Publishes until a stream has the message; an earlier copy in the stream counts.
pub(super) async fn publish(
    context: &Context,
    link: &Link,
    what: &str,
    subject: &str,
    dedup: &str,
    client: Option<&str>,
    body: bytes::Bytes,
) {
    let mut retry = Retry::new(&link.notices, what);
    loop {
        let mut message = PublishMessage::build().payload(body.clone()).message_id(dedup);
        if let Some(client) = client {
            message = message.header(CLIENT_ID_HEADER, client);
        }
        let outcome = match context.send_publish(subject.to_owned(), message).await {
            Ok(acknowledgement) => acknowledgement.await.map(drop),
            Err(error) => Err(error),
        };
        let Err(error) = outcome else {
            retry.succeeded();
            return;
        };
        // Perhaps a client has changed what the stream captures.
        link.suspicion.notify_one();
        tokio::time::sleep(retry.failed(&error.to_string())).await;
    }
}
