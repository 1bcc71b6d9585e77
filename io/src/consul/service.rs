//! What Consul shows of this node: a service with a health check that this process must renew, and the key
//! `ready/<node id>` of the existing system while the node is ready. Others decide nothing by either.

use std::time::Duration;

use mpcium_core::NodeId;
use reqwest::Method;
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

use super::{CALL_TIMEOUT, Consul, ConsulError};

/// The service's name, before which the cluster's prefix comes.
const SERVICE: &str = "mpcium";
/// Unrenewed for this long, the check fails.
const CHECK_TTL: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(10);
/// Failed for this long, Consul forgets the service.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// This node's presence in Consul, renewed by a task until [`Presence::leave`] or drop.
#[derive(Debug)]
pub struct Presence {
    consul: Consul,
    node: NodeId,
    ready: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Consul {
    /// Registers this node's service and keeps it registered and healthy. Must be called under tokio; returns at once.
    #[must_use]
    pub fn presence(&self, node: NodeId, name: &str) -> Presence {
        let ready = watch::Sender::new(false);
        let task = tokio::spawn(renew(self.clone(), node, name.to_owned(), ready.subscribe()));
        Presence { consul: self.clone(), node, ready, task }
    }

    async fn register_service(&self, node: NodeId, name: &str) -> Result<(), ConsulError> {
        let service = json!({
            "ID": service_id(node),
            "Name": self.options.prefix.service(SERVICE),
            "Tags": [name],
            "Meta": { "node_id": node.to_string(), "node_name": name },
            "Check": {
                "CheckID": check_id(node),
                "Name": "the node renews this",
                "TTL": format!("{}s", CHECK_TTL.as_secs()),
                "DeregisterCriticalServiceAfter": format!("{}s", FORGOTTEN_AFTER.as_secs()),
            },
        });
        let body = Some(service.to_string());
        let answer = self.call(Method::PUT, "agent/service/register", body, CALL_TIMEOUT).await?;
        answer.expect_success("the service's registration").map(drop)
    }

    /// Renews the check; `false`: the agent does not know it (any more).
    async fn pass(&self, node: NodeId) -> Result<bool, ConsulError> {
        let path = format!("agent/check/pass/{}", check_id(node));
        let answer = self.call(Method::PUT, &path, None, CALL_TIMEOUT).await?;
        // Old agents answer an unknown check with 500, newer ones with 404.
        if matches!(answer.status.as_u16(), 404 | 500) {
            return Ok(false);
        }
        answer.expect_success("the check's renewal").map(|_| true)
    }

    async fn tell_ready(&self, node: NodeId, ready: bool) -> Result<(), ConsulError> {
        let key = self.options.prefix.key(&format!("ready/{node}"));
        if ready { self.put(&key, "true").await } else { self.delete(&key).await }
    }
}

impl Presence {
    /// The node is ready, or is not any more.
    pub fn ready(&self, ready: bool) {
        self.ready.send_replace(ready);
    }

    /// Takes everything back. Errors are of no interest any more: the check runs out by itself.
    pub async fn leave(mut self) {
        // The task ends with its sender, after the round that it is in: one cut short could still arrive at Consul
        // after what follows, and undo it.
        self.ready = watch::Sender::new(false);
        let _ = tokio::time::timeout(CALL_TIMEOUT, &mut self.task).await;
        let _ = self.consul.tell_ready(self.node, false).await;
        let path = format!("agent/service/deregister/{}", service_id(self.node));
        let _ = self.consul.call(Method::PUT, &path, None, CALL_TIMEOUT).await;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn renew(consul: Consul, node: NodeId, name: String, mut ready: watch::Receiver<bool>) {
    let mut retry = consul.retry("Consul");
    loop {
        let is_ready = *ready.borrow_and_update();
        let wait = match renew_once(&consul, node, &name, is_ready).await {
            Ok(()) => {
                retry.succeeded();
                RENEWAL
            }
            Err(error) => retry.failed(&error.to_string()),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = ready.changed() => if changed.is_err() { return },
        }
    }
}

async fn renew_once(consul: &Consul, node: NodeId, name: &str, ready: bool) -> Result<(), ConsulError> {
    if !consul.pass(node).await? {
        consul.register_service(node, name).await?;
        consul.pass(node).await?;
    }
    // Repeated each time: nodes of the existing system remove the key of a node that they do not reach.
    consul.tell_ready(node, ready).await
}

fn service_id(node: NodeId) -> String {
    format!("{SERVICE}-{node}")
}

fn check_id(node: NodeId) -> String {
    format!("{SERVICE}-{node}-alive")
}
