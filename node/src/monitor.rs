//! `/live`, `/ready` and `/metrics` for supervisors and Prometheus, on an address of their own.
//!
//! * `/live`: the process does its work; restart it if this fails for long. Waiting for a server is no failure.
//! * `/ready`: requests are being taken. Unlike `/health` it does not depend on Consul, because the node does not.
//! * `/metrics`: see [`crate::metrics`].
//!
//! Nothing secret is told, but names of peers are, so the address is on the loopback unless configured otherwise.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use crate::{
    health,
    http::{self, Endpoint, Response, Routes},
    status::{Answer, Process},
};

/// Where these are served unless `metrics.address` says otherwise.
pub const ADDRESS_DEFAULT: &str = "127.0.0.1:9464";
/// A node that does not look into its inbox for so long does not work.
const LOOP_MAX: Duration = Duration::from_secs(8);

struct Monitor(Arc<Process>);

impl Routes for Monitor {
    async fn respond(&self, path: &str) -> Response {
        match path {
            "/live" => match tokio::time::timeout(LOOP_MAX, self.0.answers()).await {
                Ok(true) => plain("200 OK", "live\n"),
                Ok(false) => plain("503 Service Unavailable", "the node has stopped\n"),
                Err(_) => plain("503 Service Unavailable", "the node does not answer\n"),
            },
            "/ready" => ready(&self.0.answer().await),
            "/health" => health::respond(&self.0.answer().await),
            "/metrics" => Response {
                status: "200 OK",
                kind: "text/plain; version=0.0.4; charset=utf-8",
                body: self.0.scrape().await,
            },
            _ => Response::not_found(),
        }
    }
}

#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    waiting_for: Vec<&'a str>,
}

fn ready(answer: &Answer) -> Response {
    let connected = answer.nats_connected == Some(true);
    let mut waiting_for: Vec<&str> = Vec::new();
    let mut ready = connected;
    match &answer.node {
        None if answer.starting.is_empty() => waiting_for.push("the first step of the start"),
        None => waiting_for.push(&answer.starting),
        Some(node) => {
            // A node that is ready may still wait for something, auxiliary data for one.
            waiting_for.extend(node.waiting_for.iter().map(String::as_str));
            ready &= node.ready;
            if !connected {
                waiting_for.push("the NATS server");
            }
        }
    }
    ready &= answer.node.is_some();
    // Truth and text: it always has a JSON form.
    let body = serde_json::to_string(&Ready { ready, waiting_for }).unwrap_or_default() + "\n";
    Response { status: if ready { "200 OK" } else { "503 Service Unavailable" }, kind: "application/json", body }
}

fn plain(status: &'static str, text: &str) -> Response {
    Response { status, kind: "text/plain", body: text.to_owned() }
}

/// Serves on `address`.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn serve(address: &str, process: Arc<Process>) -> Result<Endpoint, String> {
    Ok(http::serve(http::listen("metrics.address", address).await?, Arc::new(Monitor(process))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_waits_is_live_and_not_ready() {
        let process = Process::new();
        process.waits_for("the NATS server");
        let monitor = Monitor(process);
        assert_eq!(monitor.respond("/live").await.status, "200 OK");
        let ready = monitor.respond("/ready").await;
        assert_eq!(ready.status, "503 Service Unavailable");
        assert_eq!(ready.body, "{\"ready\":false,\"waiting_for\":[\"the NATS server\"]}\n");
        assert_eq!(monitor.respond("/health").await.status, "503 Service Unavailable");
        let metrics = monitor.respond("/metrics").await;
        assert!(metrics.body.contains("\nmpcium_starting 1\n"), "{}", metrics.body);
        assert_eq!(monitor.respond("/").await, Response::not_found());
    }

    #[tokio::test]
    async fn a_process_whose_node_has_stopped_is_not_live() {
        let process = Process::new();
        let (inbox, events) = mpcium_io::ports::Inbox::new();
        process.runs(inbox);
        drop(events);
        let live = Monitor(process).respond("/live").await;
        assert_eq!((live.status, live.body.as_str()), ("503 Service Unavailable", "the node has stopped\n"));
    }
}
