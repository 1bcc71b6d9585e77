//! Consul: who should exist. Which nodes answer is a matter of the links between them, so a node goes on without
//! Consul, says that it waits for it, and merely shows its peers as not registered.

use std::sync::Arc;

use mpcium_core::{Config, NodeId, report::Report};
use mpcium_io::{
    consul::{Consul, ConsulError, ConsulOptions, Presence, Registration},
    notice::Notices,
    ports::{Inbox, Reports},
};
use zeroize::Zeroizing;

use crate::{config::ConsulSettings, files, log, status::Process};

/// A client as the settings say; nothing is sent yet.
///
/// # Errors
/// If the address is none.
pub fn consul(settings: &ConsulSettings, notices: Notices) -> Result<Consul, String> {
    let mut options = ConsulOptions::new(&settings.address);
    options.token = settings.token.as_ref().map(|token| Zeroizing::new(token.expose().to_owned()));
    options.user = settings.username.clone().map(|user| {
        let password = settings.password.as_ref().map_or("", |password| password.expose());
        (user, Zeroizing::new(password.to_owned()))
    });
    options.prefix = settings.prefix.clone();
    options.tls = settings.tls.clone();
    Consul::new(options, notices).map_err(|error| match error {
        ConsulError::File { .. } => format!("consul.tls: {error}"),
        _ => format!("consul.address: {error}"),
    })
}

/// This node in Consul, for as long as it runs.
#[derive(Debug)]
pub struct Discovery {
    consul: Consul,
    presence: Presence,
    watch: [tokio::task::JoinHandle<()>; 2],
}

impl Discovery {
    /// Registers the nodes of `register` (if given), then this node's service, and tells the inbox who is registered.
    /// Returns at once: whatever Consul does not answer is retried without end.
    ///
    /// # Errors
    /// If the address is none, or the file cannot be used.
    pub fn start(
        settings: &ConsulSettings,
        config: &Config,
        register: Option<&std::path::Path>,
        inbox: &Inbox,
    ) -> Result<Arc<Self>, String> {
        let consul = consul(settings, log::notices("consul"))?;
        let peers = register.map(files::read_peers).transpose()?.unwrap_or_default();
        let wallets = tokio::spawn(consul.clone().watch_wallets(inbox.clone()));
        let (watcher, inbox) = (consul.clone(), inbox.clone());
        let peers = tokio::spawn(async move {
            if !peers.is_empty() {
                watcher.wait_for_leader().await;
            }
            for (name, id) in peers {
                register_or_tell(&watcher, &name, id).await;
            }
            watcher.watch_peers(inbox).await;
        });
        let presence = consul.presence(config.me, &config.name(config.me));
        Ok(Arc::new(Self { consul, presence, watch: [wallets, peers] }))
    }

    /// The client, for questions.
    #[must_use]
    pub fn client(&self) -> Consul {
        self.consul.clone()
    }

    /// Takes this node's presence back.
    pub async fn leave(self) {
        self.watch.iter().for_each(tokio::task::JoinHandle::abort);
        self.presence.leave().await;
    }
}

/// `start --peers` never failed on a name that is registered already.
async fn register_or_tell(consul: &Consul, name: &str, id: NodeId) {
    match consul.register_peer(name, id).await {
        Ok(Registration::New) => log::info(&format!("registered peer {name} with id {id} in Consul")),
        Ok(Registration::Known) => {}
        Err(error @ ConsulError::Conflict { .. }) => log::warn(&error.to_string()),
        Err(error) => log::warn(&format!("peer {name} could not be registered: {error}")),
    }
}

/// The node's port for reports: the log, the metrics, and in Consul whether the node is ready.
#[derive(Clone, Debug)]
pub struct NodeReports {
    /// Who tells Consul.
    pub discovery: Arc<Discovery>,
    /// Who counts.
    pub process: Arc<Process>,
}

impl Reports for NodeReports {
    fn report(&self, report: Report) {
        match report {
            Report::Ready { .. } => self.discovery.presence.ready(true),
            Report::NotReady { .. } => self.discovery.presence.ready(false),
            _ => {}
        }
        self.process.reported(&report);
        log::report(&report);
    }
}
