//! nats-server with JetStream, and Consul, both with their data on disk, so that they can be killed and restarted.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    http,
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
    /// Where it tells how it is: its own port, unless there is another for that.
    monitor: u16,
    process: Option<Process>,
}

impl Server {
    /// A nats-server with JetStream and data below `folder`; not started.
    ///
    /// # Errors
    /// If it is not installed, or there is no free port.
    pub fn nats(folder: &Path) -> Result<Self, String> {
        let (port, monitor) = (free_port()?, free_port()?);
        let data = folder.join("nats").to_string_lossy().into_owned();
        let (here, monitored) = (port.to_string(), monitor.to_string());
        let arguments = ["-a", "127.0.0.1", "-p", &here, "-m", &monitored, "-js", "-sd", &data].map(str::to_owned);
        Ok(Self { monitor, ..Self::new("nats-server", folder, port, arguments.to_vec())? })
    }

    /// Several of them that form one NATS cluster, each in a folder of its own below `folder`; not started.
    ///
    /// # Errors
    /// As [`Server::nats`], and if their configurations cannot be written.
    pub fn nats_cluster(folder: &Path, number: usize) -> Result<Vec<Self>, String> {
        let clients = (0..number).map(|_| free_port()).collect::<Result<Vec<_>, _>>()?;
        let routes = (0..number).map(|_| free_port()).collect::<Result<Vec<_>, _>>()?;
        let monitors = (0..number).map(|_| free_port()).collect::<Result<Vec<_>, _>>()?;
        let all: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let make = |(index, ((port, route), monitor)): (usize, ((u16, &u16), &u16))| {
            let home = folder.join(format!("nats-{index}"));
            std::fs::create_dir(&home).map_err(|error| format!("{}: {error}", home.display()))?;
            let configuration = format!(
                "server_name: nats-{index}\nlisten: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitor}\n\
                 jetstream {{ store_dir: {:?} }}\n\
                 cluster {{ name: custody, listen: 127.0.0.1:{route}, routes: [{}] }}\n",
                home.join("data"),
                all.join(", "),
            );
            let path = home.join("nats.conf");
            std::fs::write(&path, configuration).map_err(|error| format!("{}: {error}", path.display()))?;
            let arguments = vec!["-c".to_owned(), path.to_string_lossy().into_owned()];
            Ok(Self { monitor: *monitor, ..Self::new("nats-server", &home, port, arguments)? })
        };
        clients.into_iter().zip(&routes).zip(&monitors).enumerate().map(make).collect()
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
        let program = programs::server(name)?;
        Ok(Self { name, program, arguments, folder: folder.to_owned(), port, monitor: port, process: None })
    }

    /// Where it listens: `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port on which it tells how it is, over HTTP.
    #[must_use]
    pub fn monitor(&self) -> u16 {
        self.monitor
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

    /// Fails unless this nats-server says that it is well: that it follows what the other servers of its cluster do.
    ///
    /// # Errors
    /// What it says instead.
    pub fn is_well(&self) -> Result<(), String> {
        let (code, body) = http::get(self.monitor, "/healthz")?;
        if code == 200 { Ok(()) } else { Err(format!("{}: {body}", self.address())) }
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
