//! Real servers for the adapters' tests: on free ports, in temporary folders, killed when dropped. A missing program
//! fails the test: nothing here is ever skipped.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mpcium_core::Input;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer};

use crate::{
    notice::Notices,
    ports::{Event, Events},
};

/// How long tests wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A server process that can be stopped and started again with its data.
pub(crate) struct Server {
    program: PathBuf,
    arguments: Vec<String>,
    pub(crate) port: u16,
    child: Option<Child>,
    _folder: tempfile::TempDir,
}

impl Server {
    /// A nats-server with JetStream, not started.
    pub(crate) fn nats() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let arguments = ["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd", &folder.path().to_string_lossy()]
            .map(str::to_owned)
            .to_vec();
        Self { program: program("nats-server"), arguments, port, child: None, _folder: folder }
    }

    /// With further arguments.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// A Consul server that keeps its data, not started.
    pub(crate) fn consul() -> Self {
        Self::consul_with("")
    }

    /// One that allows nothing without a token; `master` allows everything.
    pub(crate) fn consul_that_denies(master: &str) -> Self {
        Self::consul_with(&format!(
            r#","acl":{{"enabled":true,"default_policy":"deny","tokens":{{"master":"{master}"}}}}"#
        ))
    }

    /// One that speaks HTTPS alone, with this certificate and key; with an authority, to clients of that authority only.
    pub(crate) fn consul_over_https(certificate: &Path, key: &Path, demands: Option<&Path>) -> Self {
        let authority = demands.map_or_else(String::new, |path| format!(r#","ca_file":"{}""#, path.display()));
        let mut server = Self::consul_with(&format!(
            r#","cert_file":"{}","key_file":"{}","verify_incoming_https":{}{authority}"#,
            certificate.display(),
            key.display(),
            demands.is_some(),
        ));
        // Of the two settings of a port the later one counts.
        server.arguments.extend(["-http-port".to_owned(), "-1".to_owned()]);
        server.arguments.extend(["-https-port".to_owned(), server.port.to_string()]);
        server
    }

    fn consul_with(further: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let (rpc, lan) = (free_port(), free_port());
        let configuration = format!(
            r#"{{"server":true,"bootstrap":true,"bind_addr":"127.0.0.1","client_addr":"127.0.0.1",
            "data_dir":"{}","log_level":"err","disable_update_check":true,
            "ports":{{"http":{port},"server":{rpc},"serf_lan":{lan},"serf_wan":-1,"dns":-1,"grpc":-1}},
            "performance":{{"raft_multiplier":1}}{further}}}"#,
            folder.path().join("data").display()
        );
        let path = folder.path().join("consul.json");
        std::fs::write(&path, configuration).expect("the configuration is written");
        let arguments = vec!["agent".to_owned(), "-config-file".to_owned(), path.to_string_lossy().into_owned()];
        Self { program: program("consul"), arguments, port, child: None, _folder: folder }
    }

    pub(crate) fn start(&mut self) {
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "{} does not listen", self.program.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn started(mut self) -> Self {
        self.start();
        self
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) certificate: PathBuf,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = folder.join(format!("{name}.pem"));
        let pem = params.self_signed(&key).expect("a certificate").pem();
        std::fs::write(&certificate, pem).expect("written");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A certificate for a host, and its key.
    pub(crate) fn issue(&self, folder: &Path, name: &str, host: &str) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a host");
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        let files = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&files.0, pem).expect("written");
        std::fs::write(&files.1, key.serialize_pem()).expect("written");
        files
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its number").port()
}

fn program(name: &str) -> PathBuf {
    let tools = std::env::var_os("MPCIUM_TOOLS")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools")), PathBuf::from);
    let fetched = tools.join("bin").join(name);
    assert!(fetched.exists(), "{} is not there: run scripts/fetch-servers.sh first", fetched.display());
    fetched
}

/// The next input that reaches the driver.
pub(crate) async fn next_input(events: &mut Events) -> Input {
    match tokio::time::timeout(PATIENCE, events.next()).await.expect("something arrives in time") {
        Some(Event::Input(input)) => input,
        Some(other) => panic!("an input was expected, not {other:?}"),
        None => panic!("the inbox is gone"),
    }
}

/// Waits until `condition` gives something.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "did not happen in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Notices that a test can look at.
pub(crate) fn heard() -> (Notices, Arc<Mutex<Vec<String>>>) {
    let texts = Arc::new(Mutex::new(Vec::new()));
    let notices = Notices::new("test", {
        let texts = texts.clone();
        move |notice| texts.lock().expect("no test panics here").push(notice.text)
    });
    (notices, texts)
}
