//! `GET /health` for load balancers and orchestrators: 200 when the node is ready, 503 when it is not.
//!
//! Document and codes are those of the Go system. Plain HTTP, one route, no authentication, nothing secret; one
//! request per connection, each bounded in size and time, and only so many at once.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::status::{Answer, Process};

/// How long one exchange may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(5);
/// Bytes of a request that are read.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Connections that are served at once; more wait.
const CONNECTIONS_MAX: usize = 32;

/// The endpoint; it ends when this is dropped.
#[derive(Debug)]
pub struct Health(tokio::task::JoinHandle<()>);

impl Drop for Health {
    fn drop(&mut self) {
        self.0.abort();
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

/// Listens on `address`; a missing host (`:8080`) means every interface.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn serve(address: &str, process: Arc<Process>) -> Result<Health, String> {
    let full = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
    let listener = TcpListener::bind(&full).await.map_err(|error| format!("healthcheck.address {address}: {error}"))?;
    Ok(Health(tokio::spawn(accept(listener, process))))
}

async fn accept(listener: TcpListener, process: Arc<Process>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = places.clone().acquire_owned().await {
        // A connection that failed before it was accepted concerns only its own client.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let process = process.clone();
        tokio::spawn(async move {
            // A client that is too slow or gone gets no answer.
            let _ = tokio::time::timeout(EXCHANGE_MAX, exchange(stream, &process)).await;
            drop(place);
        });
    }
}

async fn exchange(mut stream: TcpStream, process: &Process) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < REQUEST_BYTES_MAX {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            break;
        }
        head.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
    let response = if is_health(&head) {
        respond(&process.answer().await)
    } else {
        http("404 Not Found", "text/plain", "404 page not found\n")
    };
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

/// Whether the request line asks for the one route, by any method.
fn is_health(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let path = words.nth(1).unwrap_or_default();
    path == b"/health" || path.starts_with(b"/health?")
}

fn respond(answer: &Answer) -> String {
    let document = document(answer);
    // The document is made of text and truth values: it always has a JSON form.
    let body = serde_json::to_string(&document).unwrap_or_default() + "\n";
    http(if document.ready { "200 OK" } else { "503 Service Unavailable" }, "application/json", &body)
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

fn http(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use mpcium_core::node::{IngredientStatus, PeerStatus, Status};

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
            pid: 1,
            started_at: String::new(),
            test_primes: false,
            starting: String::new(),
            nats_connected: Some(true),
            consul_connected: Some(consul),
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
                sessions: Vec::new(),
                requests: Vec::new(),
                undecided: Vec::new(),
                alarms: Vec::new(),
                tables: Vec::new(),
            }),
        }
    }

    #[test]
    fn the_document_is_the_go_systems() {
        let response = respond(&answer(true, true));
        assert!(response.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"), "{response}");
        let expected = "\r\n\r\n{\"status\":\"ready\",\"live\":true,\"ready\":true,\"details\":{\"all_peers_ready\":true,\
                        \"consul_connected\":true,\"majority_ready\":true,\"nats_connected\":true,\
                        \"peers_ready_count\":\"3/3\"}}\n";
        assert!(response.ends_with(expected), "{response}");
    }

    #[test]
    fn a_node_that_lacks_something_is_not_ready() {
        for response in [respond(&answer(false, true)), respond(&answer(true, false))] {
            assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
            assert!(response.contains("\"status\":\"not_ready\",\"live\":true,\"ready\":false"), "{response}");
        }
        assert!(respond(&answer(false, true)).contains("\"peers_ready_count\":\"1/3\""));
    }

    #[test]
    fn only_one_route_exists() {
        for line in ["GET /health HTTP/1.1\r\n", "POST /health HTTP/1.1\r\n", "GET /health?x=1 HTTP/1.0\r\n"] {
            assert!(is_health(line.as_bytes()), "{line}");
        }
        for line in ["GET / HTTP/1.1\r\n", "GET /healthz HTTP/1.1\r\n", "", "\0\0\0", "GET"] {
            assert!(!is_health(line.as_bytes()), "{line}");
        }
    }

    #[tokio::test]
    async fn it_answers_over_http() {
        let process = Process::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let health = Health(tokio::spawn(accept(listener, process)));
        for (request, code) in [("GET /health HTTP/1.1\r\n\r\n", "503"), ("GET /other HTTP/1.1\r\n\r\n", "404")] {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut response = String::new();
            stream.read_to_string(&mut response).await.expect("answered");
            assert!(response.starts_with(&format!("HTTP/1.1 {code} ")), "{response}");
        }
        drop(health);
    }
}
