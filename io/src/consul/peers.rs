//! The register of peers, and hints about wallets that another system made.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mpcium_core::{Input, NodeId};
use serde::Deserialize;

use super::{Consul, ConsulError, api::json};
use crate::ports::Inbox;

/// Peers stand below this, by name; before it comes the cluster's prefix, and so it does before all keys.
const PEERS: &str = "mpc_peers/";
/// What the existing system tells of its wallets stands below this.
const KEY_INFO: &str = "threshold_keyinfo/";
/// The folders of a cluster, the one of nodes that are ready among them.
pub(super) const FOLDERS: [&str; 3] = ["mpc_peers", "threshold_keyinfo", "ready"];
/// How long one question for news may wait.
const WATCH_WAIT: Duration = Duration::from_secs(55);

/// What became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// The peer is registered now.
    New,
    /// It had been, with the same id.
    Known,
}

/// What Consul says of a wallet. Anybody can write there: it may be a reason to refuse, never to permit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KeyInfoHint {
    /// Node ids, as text.
    #[serde(default)]
    pub participant_peer_ids: Vec<String>,
    /// The polynomial's degree: one more node signs.
    #[serde(default)]
    pub threshold: i64,
    /// How often the key was reshared; 0 before versions existed.
    #[serde(default)]
    pub version: i64,
}

impl Consul {
    /// All registered peers by name. What is no node id is left out, with a notice.
    ///
    /// # Errors
    /// When Consul does not answer, or refuses.
    pub async fn peers(&self) -> Result<BTreeMap<String, NodeId>, ConsulError> {
        let (_, entries) = self.list(&self.options.prefix.key(PEERS), None).await?;
        Ok(self.parse_peers(entries))
    }

    /// The key under which a peer is registered.
    #[must_use]
    pub fn peer_key(&self, name: &str) -> String {
        self.options.prefix.key(&format!("{PEERS}{name}"))
    }

    /// Registers a peer, if its name is free.
    ///
    /// # Errors
    /// [`ConsulError::Conflict`] when the name stands for another node; or when Consul does not answer, or refuses.
    pub async fn register_peer(&self, name: &str, id: NodeId) -> Result<Registration, ConsulError> {
        let key = self.peer_key(name);
        loop {
            if self.create(&key, &id.to_string()).await? {
                return Ok(Registration::New);
            }
            // Gone again in between: then the name is free after all.
            let Some(found) = self.get(&key).await? else { continue };
            let found = String::from_utf8_lossy(&found).trim().to_owned();
            return if NodeId::parse(&found) == Some(id) {
                Ok(Registration::Known)
            } else {
                Err(ConsulError::Conflict { name: name.to_owned(), key, wanted: id, found })
            };
        }
    }

    /// Tells the inbox which peers are registered, now and at each change, without end.
    pub async fn watch_peers(self, inbox: Inbox) {
        let mut retry = self.retry("Consul");
        let mut index = 0;
        let mut told: Option<Vec<NodeId>> = None;
        let folder = self.options.prefix.key(PEERS);
        loop {
            let newer_than = (index > 0).then_some((index, WATCH_WAIT));
            match self.list(&folder, newer_than).await {
                Ok((now, entries)) => {
                    retry.succeeded();
                    // Consul asks clients to begin anew when the index goes backwards (it was restored or replaced).
                    index = if now < index { 0 } else { now };
                    let mut peers: Vec<NodeId> = self.parse_peers(entries).into_values().collect();
                    peers.sort_unstable();
                    peers.dedup();
                    if told.as_ref() != Some(&peers) {
                        told = Some(peers.clone());
                        inbox.put(Input::Peers(peers));
                    }
                }
                Err(error) => {
                    index = 0;
                    tokio::time::sleep(retry.failed(&error.to_string())).await;
                }
            }
        }
    }

    /// Tells the inbox which wallets the existing system has written key information of, now and at each change, without
    /// end.
    pub async fn watch_wallets(self, inbox: Inbox) {
        let mut retry = self.retry("the list of the existing system's wallets in Consul");
        let mut index = 0;
        let mut told = BTreeSet::new();
        let folder = self.options.prefix.key(KEY_INFO);
        loop {
            let newer_than = (index > 0).then_some((index, WATCH_WAIT));
            match self.names(&folder, newer_than).await {
                Ok((now, names)) => {
                    retry.succeeded();
                    index = if now < index { 0 } else { now };
                    let wallets = wallets_of(&names);
                    if told.is_empty() && !wallets.is_empty() {
                        self.notices.warn(format!(
                            "{folder} in Consul names wallets of the Go system ({}); this node signs only with those that \
                             are in its own store",
                            wallets.len()
                        ));
                    }
                    if told != wallets {
                        told.clone_from(&wallets);
                        inbox.put(Input::WalletsElsewhere(wallets));
                    }
                    // Without any such key Consul may have no index to wait for.
                    if index == 0 {
                        tokio::time::sleep(WATCH_WAIT).await;
                    }
                }
                Err(error) => {
                    index = 0;
                    tokio::time::sleep(retry.failed(&error.to_string())).await;
                }
            }
        }
    }

    /// The wallets of which the existing system has written key information, and where in Consul.
    ///
    /// # Errors
    /// When Consul does not answer, or refuses.
    pub async fn wallets_elsewhere(&self) -> Result<(String, BTreeSet<String>), ConsulError> {
        let folder = self.options.prefix.key(KEY_INFO);
        let (_, names) = self.names(&folder, None).await?;
        Ok((folder, wallets_of(&names)))
    }

    /// What the existing system has written of a wallet's key: `curve` is `ecdsa` or `eddsa`.
    ///
    /// # Errors
    /// When Consul does not answer, refuses, or holds something else there.
    pub async fn key_info(&self, curve: &str, wallet: &str) -> Result<Option<KeyInfoHint>, ConsulError> {
        // Older deployments have no curve in the name.
        for key in [format!("{KEY_INFO}{curve}:{wallet}"), format!("{KEY_INFO}{wallet}")] {
            if let Some(value) = self.get(&self.options.prefix.key(&key)).await? {
                return json(&value).map(Some);
            }
        }
        Ok(None)
    }

    fn parse_peers(&self, entries: Vec<(String, Vec<u8>)>) -> BTreeMap<String, NodeId> {
        let mut peers = BTreeMap::new();
        let folder = self.options.prefix.key(PEERS);
        for (key, value) in entries {
            let Some(name) = key.strip_prefix(folder.as_str()).filter(|name| !name.is_empty()) else { continue };
            match std::str::from_utf8(&value).ok().and_then(|text| NodeId::parse(text.trim())) {
                Some(id) => {
                    peers.insert(name.to_owned(), id);
                }
                None => self.notices.warn(format!("{key} holds no node id and is ignored")),
            }
        }
        peers
    }
}

/// The wallets of keys' names.
fn wallets_of(names: &[String]) -> BTreeSet<String> {
    names.iter().map(|name| wallet_of(name).to_owned()).collect()
}

/// The wallet of a key's name, which has the curve before it except in old deployments.
fn wallet_of(name: &str) -> &str {
    name.strip_prefix("ecdsa:").or_else(|| name.strip_prefix("eddsa:")).unwrap_or(name)
}
