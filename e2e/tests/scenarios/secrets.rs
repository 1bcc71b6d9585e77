//! Logs tell no secret, whatever happened in the scenarios before.

use base64::Engine as _;

use crate::world::{Outcome, World, check};

/// No log of any process holds the initiator's key, an identity or a store's password, in any usual spelling.
pub async fn no_secret_is_in_any_log(world: &mut World) -> Outcome {
    let mut logs: Vec<_> = world.cluster.nodes.iter().map(|node| node.log.clone()).collect();
    logs.extend([world.servers.nats.log(), world.servers.consul.log()]);
    logs.extend(world.extra_logs.iter().cloned());
    for (what, secret) in world.cluster.secrets()? {
        check(secret.len() >= 16, || format!("{what} is too short to be looked for"))?;
        let mut spellings = vec![secret.clone(), secret.to_uppercase(), hex::encode(&secret)];
        for bytes in [Some(secret.clone().into_bytes()), hex::decode(&secret).ok()].into_iter().flatten() {
            spellings.push(base64::engine::general_purpose::STANDARD_NO_PAD.encode(&bytes));
            spellings.push(format!("{bytes:?}"));
            spellings.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        for log in &logs {
            let text = std::fs::read(log).map_err(|error| format!("{}: {error}", log.display()))?;
            let text = String::from_utf8_lossy(&text);
            let told = spellings.iter().any(|spelling| text.contains(spelling.as_str()));
            check(!told, || format!("{} tells {what}", log.display()))?;
        }
    }
    for node in &world.cluster.nodes {
        check(node.log_length() > 1000, || format!("the log of {} is too short to prove anything", node.name))?;
    }
    Ok(())
}
