//! The smallest HTTP server that probes and scrapers need: plain HTTP/1, one request per connection, nothing but a path
//! looked at. Each exchange is bounded in size and time, and only so many run at once.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// How long one exchange may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request that are read.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Connections that are served at once; more wait.
const CONNECTIONS_MAX: usize = 32;
/// How long accepting pauses after a failure, which may be that the process has no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// A running server; it ends when this is dropped.
pub struct Endpoint(tokio::task::JoinHandle<()>);

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endpoint")
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Code and words.
    pub status: &'static str,
    /// The media type.
    pub kind: &'static str,
    /// The body.
    pub body: String,
}

impl Response {
    /// There is nothing at this path.
    #[must_use]
    pub fn not_found() -> Self {
        Self { status: "404 Not Found", kind: "text/plain", body: "404 page not found\n".to_owned() }
    }
}

/// What a server answers.
pub trait Routes: Send + Sync + 'static {
    /// The answer for a path without its query. By any method.
    fn respond(&self, path: &str) -> impl Future<Output = Response> + Send;
}

/// Listens on `address`; a missing host (`:8080`) means every interface. `key` is the setting to name in an error.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn listen(key: &str, address: &str) -> Result<TcpListener, String> {
    let full = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
    TcpListener::bind(&full).await.map_err(|error| format!("{key} {address}: {error}"))
}

/// Serves until the endpoint is dropped.
pub fn serve<R: Routes>(listener: TcpListener, routes: Arc<R>) -> Endpoint {
    Endpoint(tokio::spawn(accept(listener, routes)))
}

async fn accept<R: Routes>(listener: TcpListener, routes: Arc<R>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let routes = routes.clone();
        tokio::spawn(async move {
            // A client that is too slow or gone gets no answer.
            let _ = tokio::time::timeout(EXCHANGE_MAX, exchange(stream, routes.as_ref())).await;
            drop(place);
        });
    }
}

async fn exchange<R: Routes>(mut stream: TcpStream, routes: &R) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < REQUEST_BYTES_MAX {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            break;
        }
        head.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
    let response = match path(&head) {
        Some(path) => routes.respond(path).await,
        None => Response { status: "400 Bad Request", kind: "text/plain", body: "400 bad request\n".to_owned() },
    };
    let body = if head.starts_with(b"HEAD ") { "" } else { &response.body };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        response.status,
        response.kind,
        response.body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// The path of a request line, without its query.
fn path(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let target = std::str::from_utf8(line).ok()?.split(' ').nth(1)?;
    target.split('?').next().filter(|path| path.starts_with('/'))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Sends a request as it is and returns the whole answer.
    pub(crate) async fn ask(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(request).await.expect("sent");
        stream.shutdown().await.expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).await.expect("answered");
        response
    }

    struct Echo;

    impl Routes for Echo {
        async fn respond(&self, path: &str) -> Response {
            Response { status: "200 OK", kind: "text/plain", body: format!("at {path}") }
        }
    }

    #[tokio::test]
    async fn only_the_path_counts_and_garbage_is_refused() {
        let listener = listen("an.address", "127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let _endpoint = serve(listener, Arc::new(Echo));
        for request in ["GET /a HTTP/1.1\r\n\r\n", "POST /a?x=/b HTTP/1.0\r\nHost: h\r\n\r\n", "PUT /a"] {
            assert!(ask(address, request.as_bytes()).await.ends_with("\r\n\r\nat /a"), "{request}");
        }
        let head = ask(address, b"HEAD /a HTTP/1.1\r\n\r\n").await;
        assert!(head.contains("Content-Length: 5") && head.ends_with("\r\n\r\n"), "{head}");
        for request in [&b""[..], b"\0\0\0", b"GET", b"GET a HTTP/1.1\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"] {
            assert!(ask(address, request).await.starts_with("HTTP/1.1 400 "), "{request:?}");
        }
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named_with_its_setting() {
        let listener = listen("x", "127.0.0.1:0").await.expect("a port");
        let taken = listener.local_addr().expect("its address").to_string();
        let error = listen("healthcheck.address", &taken).await.expect_err("taken");
        assert!(error.starts_with(&format!("healthcheck.address {taken}: ")), "{error}");
    }
}
