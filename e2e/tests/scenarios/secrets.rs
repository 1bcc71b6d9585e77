//! Nothing that a process prints and nothing that passes on the bus tells a secret, whatever happened in the scenarios
//! before.

use crate::world::{Outcome, World, check};

/// Neither the log or the status of a process nor anything that passed on the bus since the cluster was made holds a key,
/// a share, a secret of an auxiliary set or a password, in any usual spelling.
pub async fn no_secret_is_told(world: &mut World) -> Outcome {
    let mut texts = Vec::new();
    for node in &mut world.cluster.nodes {
        texts.push((format!("the status of {}", node.name), node.status()?.to_string().into_bytes()));
        node.stop().await?;
        check(node.log_length() > 1000, || format!("the log of {} is too short to prove anything", node.name))?;
    }
    let mut logs: Vec<_> = world.cluster.nodes.iter().map(|node| node.log.clone()).collect();
    logs.extend([world.servers.nats.log(), world.servers.consul.log()]);
    logs.extend(world.extra_logs.iter().cloned());
    for log in logs {
        let text = std::fs::read(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        texts.push((log.display().to_string(), text));
    }
    let passed = world.watch.take();
    for what in ["mpcium.", "mpc.mpc_keygen_result.", "$JS."] {
        let heard = passed.messages.iter().any(|message| message.starts_with(what.as_bytes()));
        check(heard, || format!("nothing below {what} was heard of {} messages", passed.messages.len()))?;
    }
    let secrets = world.cluster.secrets()?;
    for (what, text) in texts {
        if let Some(secret) = secrets.told_by(&text) {
            return Err(format!("{what} tells {secret}"));
        }
    }
    for message in &passed.messages {
        if let Some(secret) = secrets.told_by(message) {
            let subject = message.split(|byte| *byte == b'\n').next().unwrap_or_default();
            return Err(format!("a message to {} tells {secret}", String::from_utf8_lossy(subject)));
        }
    }
    let (number, messages, megabytes) = (secrets.number(), passed.messages.len(), passed.bytes >> 20);
    crate::say(&format!(
        "{number} secrets are in none of {messages} messages ({megabytes} MB, {} not seen)",
        passed.missed
    ));
    Ok(())
}
