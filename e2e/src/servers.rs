//! nats-server with JetStream, and Consul, both with their data on disk, so that they can be killed and restarted.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    process::Process,
    programs,
    wait::{self, PATIENCE},
};

/// A port that nobody listens on at this moment.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16, String> {
    let port = || TcpListener::bind(("127.0.0.1", 0))?.local_addr();
    port().map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}

/// A server, running or not. Its data survives a stop.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Server {
    /// A nats-server with JetStream and data below `folder`; not started.
    ///
    /// # Errors
    /// If it is not installed, or there is no free port.
    pub fn nats(folder: &Path) -> Result<Self, String> {
        let port = free_port()?;
        let data = folder.join("nats").to_string_lossy().into_owned();
        let arguments = ["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd", &data].map(str::to_owned);
        Self::new("nats-server", folder, port, arguments.to_vec())
    }

    /// A Consul server with data below `folder`; not started.
    ///
    /// # Errors
    /// If it is not installed, there is no free port, or its configuration cannot be written.
    pub fn consul(folder: &Path) -> Result<Self, String> {
        let (port, rpc, lan) = (free_port()?, free_port()?, free_port()?);
        let configuration = serde_json::json!({
            "server": true, "bootstrap": true, "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
            "data_dir": folder.join("consul"), "log_level": "err", "disable_update_check": true,
            "ports": {"http": port, "server": rpc, "serf_lan": lan, "serf_wan": -1, "dns": -1, "grpc": -1},
            "performance": {"raft_multiplier": 1},
        });
        let path = folder.join("consul.json");
        std::fs::write(&path, configuration.to_string()).map_err(|error| format!("{}: {error}", path.display()))?;
        let arguments = vec!["agent".to_owned(), "-config-file".to_owned(), path.to_string_lossy().into_owned()];
        Self::new("consul", folder, port, arguments)
    }

    fn new(name: &'static str, folder: &Path, port: u16, arguments: Vec<String>) -> Result<Self, String> {
        Ok(Self { name, program: programs::server(name)?, arguments, folder: folder.to_owned(), port, process: None })
    }

    /// Where it listens: `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The id of its process, while it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Where its output is.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// Whether it has been started and not stopped.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Starts it and waits until it listens. One that runs is left alone.
    ///
    /// # Errors
    /// If it does not listen in time, or ends.
    pub async fn start(&mut self) -> Result<(), String> {
        if self.runs() {
            return Ok(());
        }
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        let mut process = Process::start(self.name, command, &self.folder, &self.log())?;
        let listens = format!("{} to listen on {}", self.name, self.address());
        wait::until_sync(&listens, PATIENCE, || {
            if let Some(status) = process.ended()? {
                return Err(format!("it ended with {status}"));
            }
            TcpStream::connect(("127.0.0.1", self.port)).map(drop).map_err(|error| error.to_string())
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills it and starts it again with its data.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn restart(&mut self) -> Result<(), String> {
        self.kill();
        self.start().await
    }
}

/// The two servers that a cluster needs.
#[derive(Debug)]
pub struct Servers {
    /// The message bus.
    pub nats: Server,
    /// Discovery.
    pub consul: Server,
}

impl Servers {
    /// Both, not started, with their data below `folder`.
    ///
    /// # Errors
    /// As [`Server::nats`] and [`Server::consul`].
    pub fn new(folder: &Path) -> Result<Self, String> {
        Ok(Self { nats: Server::nats(folder)?, consul: Server::consul(folder)? })
    }

    /// Starts those that do not run.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start(&mut self) -> Result<(), String> {
        self.consul.start().await?;
        self.nats.start().await
    }
}
