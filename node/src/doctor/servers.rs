//! NATS, Consul, and the clock that this machine shares with them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mpcium_core::NodeId;
use mpcium_io::{
    nats::{Nats, StreamFound},
    notice::Notices,
};

use super::{Configured, Findings, clock, files::Cluster};
use crate::{discovery, start};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at both servers.
pub(super) async fn look(configured: &Configured, cluster: Option<&Cluster>, findings: &mut Findings) {
    nats(configured, cluster.map(|cluster| cluster.me), findings).await;
    consul(configured, cluster, findings).await;
}

/// How far the nodes' clocks may differ.
fn skew(configured: &Configured) -> f64 {
    configured.settings.as_ref().map_or(5.0, |settings| settings.clock_skew.as_secs_f64())
}

/// Compares a server's clock, which is known to within `precision` seconds, with this machine's.
fn compare(whose: &str, theirs: f64, precision: f64, skew: f64, findings: &mut Findings) {
    const CHECK: &str = "clock";
    let ahead = clock::now() - theirs;
    // The server's time is cut off at its precision: the middle is the best guess.
    let ahead = ahead - precision / 2.0;
    let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
    let found = format!("{:.1} s {direction} {whose}", ahead.abs());
    if ahead.abs() <= skew / 2.0 + precision {
        findings.ok(CHECK, found);
    } else if ahead.abs() <= skew + precision {
        findings.warn(CHECK, found, "keep the clocks in step (NTP); clock_skew_seconds is nearly used up");
    } else {
        let advice = format!("set the clock (NTP): more than {skew} s of difference makes nodes decline requests");
        findings.fail(CHECK, found, advice);
    }
}

async fn nats(configured: &Configured, me: Option<NodeId>, findings: &mut Findings) {
    const CHECK: &str = "NATS";
    if configured.nats.urls.is_empty() {
        findings.skip(CHECK, "nats.url is not configured");
        return;
    }
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notices = Notices::new("nats", {
        let heard = heard.clone();
        move |notice| heard.lock().unwrap_or_else(PoisonError::into_inner).push(notice.text)
    });
    let heard = || heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let options = start::nats_options(&configured.nats, "doctor");
    let urls = configured.nats.urls.join(", ");
    let nats = match tokio::time::timeout(PATIENCE, Nats::connect(&options, notices)).await {
        Ok(Ok(nats)) => nats,
        Ok(Err(error)) => {
            findings.fail(CHECK, error.to_string(), "use another server, or correct nats.* in the configuration");
            return;
        }
        Err(_) => {
            let why = heard().last().cloned().unwrap_or_else(|| "it does not answer".to_owned());
            let advice = "start it, or correct nats.url, user, password, credentials or certificates";
            findings.fail(CHECK, format!("{urls}: {why}"), advice);
            return;
        }
    };
    match nats.inspect().await {
        Err(error) => {
            findings.fail("JetStream", error, "start nats-server with JetStream (-js), and allow $JS.API.>");
        }
        Ok(inspection) => {
            findings.ok(CHECK, format!("{urls} is version {}, with JetStream", inspection.version));
            for stream in &inspection.streams {
                look_at_stream(stream, inspection.servers, configured.nats.replicas, findings);
            }
            if let Some(theirs) = inspection.time.as_deref().and_then(clock::rfc3339) {
                compare("NATS", theirs, 0.0, skew(configured), findings);
            }
        }
    }
    if let Some(me) = me {
        let unanswered = nats.try_rights(me).await;
        let refused: Vec<String> =
            heard().into_iter().filter(|text| text.to_lowercase().contains("violation")).collect();
        for refusal in &refused {
            findings.fail("permissions", refusal, "allow it; docs/operations.md lists what a node needs");
        }
        if refused.is_empty() {
            for problem in &unanswered {
                findings.warn("permissions", problem, "look at the server's log");
            }
            if unanswered.is_empty() {
                findings.ok("permissions", "what a node needs was tried and nothing is refused");
            }
        }
    }
    nats.close().await;
}

fn look_at_stream(stream: &StreamFound, servers: usize, configured: Option<usize>, findings: &mut Findings) {
    const CHECK: &str = "streams";
    let name = &stream.name;
    let Some(differs) = &stream.differs else {
        findings.warn(CHECK, format!("there is no stream {name}"), "nothing: the first node that starts makes it");
        return;
    };
    if stream.conflict {
        findings.fail(
            CHECK,
            format!("{name}: {}", differs.join("; ")),
            format!(
                "stop all nodes and clients, remove the stream (`nats stream rm {name}`; what it holds is lost), then \
                 start the nodes first"
            ),
        );
        return;
    }
    if !differs.is_empty() {
        findings.warn(
            CHECK,
            format!("{name}: {}", differs.join("; ")),
            "nothing: running nodes put it right; older clients change it each time they start",
        );
    }
    for consumer in &stream.consumers_missing {
        let found = format!("{name} has no consumer {consumer}");
        findings.warn(CHECK, found, "nothing: the next node that starts, or looks, makes it");
    }
    if configured.is_none() && servers > 1 && stream.replicas < 3 {
        findings.warn(
            CHECK,
            format!("{name} has {} replica(s) although NATS has {servers} servers", stream.replicas),
            "set nats.replicas: 3 at every node and restart it (nodes put it back when an existing client sets 1)",
        );
    }
    if differs.is_empty() && stream.consumers_missing.is_empty() {
        findings.ok(CHECK, format!("{name} and its consumers, {} replica(s)", stream.replicas));
    }
}

async fn consul(configured: &Configured, cluster: Option<&Cluster>, findings: &mut Findings) {
    const CHECK: &str = "Consul";
    let address = &configured.consul.address;
    if address.is_empty() {
        findings.skip(CHECK, "consul.address is not configured");
        return;
    }
    let consul = match discovery::consul(&configured.consul, Notices::silent()) {
        Ok(consul) => consul,
        Err(error) => {
            findings.fail(CHECK, error, "correct consul.address");
            return;
        }
    };
    let advice = "start it, or correct consul.* in the configuration; running nodes go on without it";
    match tokio::time::timeout(PATIENCE, consul.leader()).await {
        Ok(Ok(Some(leader))) => findings.ok(CHECK, format!("{address} answers; the leader is {leader}")),
        Ok(Ok(None)) => {
            findings.fail(CHECK, format!("{address} has no leader"), "look at the Consul cluster");
            return;
        }
        Ok(Err(error)) => {
            findings.fail(CHECK, error.to_string(), advice);
            return;
        }
        Err(_) => {
            findings.fail(CHECK, format!("{address} does not answer"), advice);
            return;
        }
    }
    if let Ok(Some(date)) = consul.date().await
        && let Some(theirs) = clock::http_date(&date)
    {
        compare("Consul", theirs, 1.0, skew(configured), findings);
    }
    if let Ok(true) = consul.is_stranger().await {
        let found =
            format!("{address} has access control lists, and the token (or its absence) counts for nothing there");
        findings.fail(CHECK, found, "set consul.token; docs/operations.md says what it must allow");
        return;
    }
    wallets_elsewhere(&consul, findings).await;
    let Some(cluster) = cluster else { return };
    registrations(&consul, cluster, findings).await;
}

/// Wallets of the Go system, whose clients get nothing from here. One that cannot read the list is told by another check.
async fn wallets_elsewhere(consul: &mpcium_io::consul::Consul, findings: &mut Findings) {
    if let Ok((folder, wallets)) = consul.wallets_elsewhere().await
        && !wallets.is_empty()
    {
        let found = format!("{folder} in Consul names wallets of the Go system ({})", wallets.len());
        let advice = "this node signs only with those that are in its own store; keep that system's databases and run it \
                      for the others";
        findings.warn("wallets", found, advice);
    }
}

async fn registrations(consul: &mpcium_io::consul::Consul, cluster: &Cluster, findings: &mut Findings) {
    const CHECK: &str = "registrations";
    let registered = match consul.peers().await {
        Ok(registered) => registered,
        Err(error) => {
            findings.fail(CHECK, error.to_string(), "allow this node's token to read mpc_peers/");
            return;
        }
    };
    let mut right = true;
    for (name, id) in &cluster.peers {
        match registered.get(name) {
            Some(found) if found == id => {}
            Some(found) => {
                right = false;
                findings.fail(
                    CHECK,
                    format!("{name} is registered with id {found}, but peers.json says {id}"),
                    format!(
                        "find out which is right; remove {} from Consul or replace peers.json",
                        consul.peer_key(name)
                    ),
                );
            }
            None => {
                right = false;
                let advice = "mpcium-cli register-peers";
                findings.warn(CHECK, format!("{name} is not registered"), advice);
            }
        }
    }
    for name in registered.keys().filter(|name| !cluster.peers.contains_key(*name)) {
        right = false;
        let found = format!("{name} is registered, but peers.json does not name it");
        let advice =
            "another cluster's node, or one that is gone; clusters that share a Consul differ in consul.prefix";
        findings.warn(CHECK, found, advice);
    }
    if right {
        findings.ok(CHECK, format!("all {} nodes, with the ids of peers.json", cluster.peers.len()));
    }
}
