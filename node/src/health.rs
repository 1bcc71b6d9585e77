//! `GET /health` for load balancers and orchestrators: 200 when the node is ready, 503 when it is not.
//!
//! Document and codes are those of the Go system. Plain HTTP, one route, no authentication, nothing secret. Unlike
//! there it answers from the first moment of the process.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    http::{self, Endpoint, Response, Routes},
    status::{Answer, Process},
};

/// The one route.
struct Health(Arc<Process>);

impl Routes for Health {
    async fn respond(&self, path: &str) -> Response {
        if path == "/health" { respond(&self.0.answer().await) } else { Response::not_found() }
    }
}

/// The document, in the order in which it is written.
#[derive(Serialize)]
struct Document {
    status: &'static str,
    live: bool,
    ready: bool,
    details: Details,
}

#[derive(Serialize)]
struct Details {
    all_peers_ready: bool,
    consul_connected: bool,
    majority_ready: bool,
    nats_connected: bool,
    peers_ready_count: String,
}

/// Serves the document on `address`.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn serve(address: &str, process: Arc<Process>) -> Result<Endpoint, String> {
    Ok(http::serve(http::listen("healthcheck.address", address).await?, Arc::new(Health(process))))
}

/// The answer of the route, for a process in this state.
pub(crate) fn respond(answer: &Answer) -> Response {
    let document = document(answer);
    // The document is made of text and truth values: it always has a JSON form.
    let body = serde_json::to_string(&document).unwrap_or_default() + "\n";
    Response {
        status: if document.ready { "200 OK" } else { "503 Service Unavailable" },
        kind: "application/json",
        body,
    }
}

fn document(answer: &Answer) -> Document {
    let nats = answer.nats_connected.unwrap_or(false);
    let consul = answer.consul_connected.unwrap_or(false);
    let (up, all, majority) = answer.node.as_ref().map_or((0, 0, false), |node| {
        let up = 1 + node.peers.iter().filter(|peer| peer.up).count();
        (up, node.peers.len() + 1, up >= usize::from(node.threshold))
    });
    let ready = nats && consul && majority;
    Document {
        status: if ready { "ready" } else { "not_ready" },
        live: true,
        ready,
        details: Details {
            all_peers_ready: all > 0 && up == all,
            consul_connected: consul,
            majority_ready: majority,
            nats_connected: nats,
            peers_ready_count: format!("{up}/{all}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use mpcium_core::node::{IngredientStatus, PeerStatus, PresignatureStatus, Status};

    use super::*;

    fn answer(up: bool, consul: bool) -> Answer {
        let peer = |name: &str, up| PeerStatus {
            name: name.to_owned(),
            id: String::new(),
            up,
            registered: true,
            detail: String::new(),
        };
        Answer {
            version: String::new(),
            compatible_with: String::new(),
            pid: 1,
            started_at: String::new(),
            test_primes: false,
            starting: String::new(),
            nats_connected: Some(true),
            consul_connected: Some(consul),
            wallets_without_share: None,
            node: Some(Status {
                id: String::new(),
                name: "node0".to_owned(),
                incarnation: String::new(),
                ready: up,
                waiting_for: Vec::new(),
                threshold: 2,
                peers: vec![peer("node1", up), peer("node2", up)],
                ingredients: IngredientStatus::default(),
                auxiliary_sets: Vec::new(),
                pairs: Vec::new(),
                presignatures: PresignatureStatus::default(),
                sessions: Vec::new(),
                requests: Vec::new(),
                undecided: Vec::new(),
                alarms: Vec::new(),
                stopped: Vec::new(),
                tables: Vec::new(),
            }),
        }
    }

    #[test]
    fn the_document_is_the_go_systems() {
        let response = respond(&answer(true, true));
        assert_eq!((response.status, response.kind), ("200 OK", "application/json"));
        let expected = "{\"status\":\"ready\",\"live\":true,\"ready\":true,\"details\":{\"all_peers_ready\":true,\
                        \"consul_connected\":true,\"majority_ready\":true,\"nats_connected\":true,\
                        \"peers_ready_count\":\"3/3\"}}\n";
        assert_eq!(response.body, expected);
    }

    #[test]
    fn a_node_that_lacks_something_is_not_ready() {
        for response in [respond(&answer(false, true)), respond(&answer(true, false))] {
            assert_eq!(response.status, "503 Service Unavailable");
            assert!(response.body.contains("\"status\":\"not_ready\",\"live\":true,\"ready\":false"), "{response:?}");
        }
        assert!(respond(&answer(false, true)).body.contains("\"peers_ready_count\":\"1/3\""));
    }

    #[tokio::test]
    async fn one_route_answers_by_any_method_before_there_is_a_node() {
        let listener = http::listen("healthcheck.address", "127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let _endpoint = http::serve(listener, Arc::new(Health(Process::new())));
        for (line, code) in [
            ("GET /health HTTP/1.1", "503"),
            ("POST /health HTTP/1.1", "503"),
            ("GET /health?x=1 HTTP/1.0", "503"),
            ("GET / HTTP/1.1", "404"),
            ("GET /healthz HTTP/1.1", "404"),
            ("GET /metrics HTTP/1.1", "404"),
        ] {
            let response = http::tests::ask(address, format!("{line}\r\n\r\n").as_bytes()).await;
            assert!(response.starts_with(&format!("HTTP/1.1 {code} ")), "{line}: {response}");
        }
    }
}
