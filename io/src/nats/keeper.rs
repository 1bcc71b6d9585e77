//! Keeps streams and durables as they must be, whoever changes them.
//!
//! Looks when the server announces a change, after each reconnection, when a publication finds no stream, and every
//! half minute besides, because announcements may be lost.

use std::{pin::pin, sync::Arc, time::Duration};

use async_nats::{Client, jetstream::Context};
use futures::{StreamExt as _, stream};
use mpcium_client::subjects;

use super::{Link, consumers, consumers::Deadlines, streams};
use crate::notice::Retry;

/// How often to look without a reason.
const INTERVAL: Duration = Duration::from_secs(30);
/// What the server announces changes on.
const ADVISORIES: [&str; 3] = [
    "$JS.EVENT.ADVISORY.STREAM.UPDATED.>",
    "$JS.EVENT.ADVISORY.STREAM.DELETED.>",
    "$JS.EVENT.ADVISORY.CONSUMER.DELETED.>",
];

/// Why something is not as it must be.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Waiting helps.
    Temporary(String),
    /// Somebody must change something; the text says what.
    Conflict(String),
}

/// How far things are as they must be.
#[derive(Debug)]
pub(super) enum Done {
    /// Altogether.
    Whole,
    /// They can be used, but for this reason are not yet what they are to be.
    Except(String),
}

impl Trouble {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Temporary(text) | Self::Conflict(text) => text,
        }
    }
}

/// Creates what is missing and restores what differs.
pub(super) async fn put_right(context: &Context, deadlines: Deadlines, link: &Link) -> Result<Done, Trouble> {
    let mut conflicts = Vec::new();
    let mut left = Vec::new();
    for spec in subjects::STREAMS {
        match streams::put_right(context, spec, link).await {
            Err(Trouble::Conflict(what)) => conflicts.push(what),
            Ok(Done::Except(what)) => left.push(what),
            other => drop(other?),
        }
    }
    if !conflicts.is_empty() {
        // All at once: whoever puts them right should not have to come back for the next.
        return Err(Trouble::Conflict(conflicts.join("\n")));
    }
    for spec in &consumers::REQUESTS {
        spec.put_right(context, deadlines, link).await?;
    }
    consumers::put_results_right(context, &link.prefix).await?;
    Ok(if left.is_empty() { Done::Whole } else { Done::Except(left.join("; ")) })
}

/// Runs until aborted.
pub(super) async fn keep(client: Client, context: Context, link: Arc<Link>, deadlines: Deadlines) {
    let mut subscriptions = Vec::new();
    for subject in ADVISORIES {
        // Without the permission to listen there is still the interval.
        if let Ok(subscription) = client.subscribe(subject).await {
            subscriptions.push(subscription);
        }
    }
    let names: Vec<_> = subjects::STREAMS.iter().map(|spec| link.prefix.stream(spec.name)).collect();
    let ours = |subject: &str| subject.split('.').any(|token| names.iter().any(|name| name == token));
    let mut announcements = pin!(stream::select_all(subscriptions).filter(move |message| {
        let relevant = ours(&message.subject);
        async move { relevant }
    }));
    let mut connections = link.connections.subscribe();
    connections.mark_unchanged();
    let mut retry = Retry::new(&link.notices, "JetStream");
    let mut wait = INTERVAL;
    loop {
        tokio::select! {
            Some(_) = announcements.next() => {}
            _ = connections.changed() => {}
            () = link.suspicion.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
        wait = match put_right(&context, deadlines, &link).await {
            Ok(Done::Whole) => {
                retry.succeeded();
                INTERVAL
            }
            Ok(Done::Except(what)) => retry.failed(&what),
            Err(trouble) => retry.failed(&trouble.into_text()),
        };
    }
}
