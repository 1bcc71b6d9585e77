//! Consumers that keep fewer copies than their stream.
//!
//! Existing clients set every stream to one copy when they start, and nodes put that right at once. nats-server (2.10.27)
//! then now and then forgets to give a durable of that stream its copies back, and never comes back to it: with the one
//! server that has it the durable is away. To be told to keep one copy, and then as many as the stream has, makes the
//! server look again.
//!
//! Only the queues of requests can be helped: on a stream with work-queue retention, as that of results is, the server
//! refuses a number of copies other than the stream's.
//!
//! A node may die between the two. So the first carries a mark in the consumer's metadata, and whoever finds it says the
//! second. A number of copies without the mark is somebody's wish, and is left alone.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::Context;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Link, consumers, raw};

/// How long the server has to give every consumer its copies, and how long between two looks.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often to look, at the most, after a stream was given its copies.
const LOOKS_MAX: u32 = 8;
/// How long to leave everything alone once nothing is behind: the node that was about to repair something may be gone.
const REST: Duration = Duration::from_secs(10 * 60);

/// The member of a consumer's configuration that says how many copies it has; without it, as many as its stream.
const REPLICAS: &str = "num_replicas";
/// The mark's name in a consumer's metadata: that it has one copy is this repair's doing.
const MARK: &str = "mpcium.copies";

/// Runs until aborted; looks at the start, after every time that a stream is given more copies, and now and then.
pub(super) async fn run(context: Context, link: Arc<Link>, replicas: usize) {
    loop {
        for _ in 0..LOOKS_MAX {
            tokio::time::sleep(PATIENCE).await;
            match put_right(&context, &link, replicas).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(problem) => link.notices.info(format!("copies of consumers could not be looked at: {problem}")),
            }
        }
        // Either way it is time to look again.
        let _ = tokio::time::timeout(REST, link.raised.notified()).await;
    }
}

/// Looks at the consumers that nodes share; says whether none was behind.
pub(super) async fn put_right(context: &Context, link: &Link, replicas: usize) -> Result<bool, String> {
    let mut whole = true;
    for spec in &consumers::REQUESTS {
        whole &= look(context, link, replicas, &link.prefix.stream(spec.stream), spec.durable).await?;
    }
    Ok(whole)
}

/// Looks at one consumer and makes the server look at it if it is behind; says whether it was not.
async fn look(context: &Context, link: &Link, replicas: usize, stream: &str, name: &str) -> Result<bool, String> {
    let Some(mut seen) = raw::look::<Seen>(context, stream, name).await? else { return Ok(true) };
    if !seen.is_begun() {
        let Some(copies) = seen.copies().filter(|copies| *copies < replicas) else { return Ok(true) };
        link.notices.info(format!("the consumer {name} has {copies} of {replicas} copies; it gets the others"));
        seen.begin();
        raw::update::<Seen>(context, stream, name, &seen.config).await?;
    }
    seen.finish();
    raw::update::<Seen>(context, stream, name, &seen.config).await?;
    Ok(false)
}

/// What the server says of a consumer.
#[derive(Debug, Deserialize)]
struct Seen {
    config: raw::Config,
    /// Missing where the server is alone.
    cluster: Option<Group>,
}

/// The servers that keep it.
#[derive(Debug, Deserialize)]
struct Group {
    leader: Option<String>,
    /// The others.
    #[serde(default)]
    replicas: Vec<Value>,
}

impl Seen {
    /// Whether a node has told the server to keep one copy, and has not come to the second step.
    fn is_begun(&self) -> bool {
        let one = self.config.get(REPLICAS).and_then(Value::as_u64) == Some(1);
        one && self.config.get("metadata").is_some_and(|metadata| metadata.get(MARK).is_some())
    }

    /// The first step: one copy, and the mark.
    fn begin(&mut self) {
        self.config.insert(REPLICAS.to_owned(), 1.into());
        let metadata = self.config.entry("metadata").or_insert_with(|| Map::new().into());
        if metadata.is_null() {
            *metadata = Map::new().into();
        }
        if let Value::Object(metadata) = metadata {
            metadata.insert(MARK.to_owned(), "1".into());
        }
    }

    /// The second: as many copies as the stream, and no mark.
    fn finish(&mut self) {
        self.config.insert(REPLICAS.to_owned(), 0.into());
        if let Some(Value::Object(metadata)) = self.config.get_mut("metadata") {
            metadata.remove(MARK);
        }
    }

    /// How many copies there are of a durable that is to have as many as its stream; `None` for any other, and while
    /// it has no leader, which alone knows.
    fn copies(&self) -> Option<usize> {
        let own = self.config.get(REPLICAS).and_then(Value::as_u64).is_some_and(|number| number > 0);
        let durable = self.config.get("durable_name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
        let group = self.cluster.as_ref().filter(|group| group.leader.as_ref().is_some_and(|name| !name.is_empty()))?;
        (durable && !own).then_some(group.replicas.len() + 1)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn copies(config: Value, cluster: Value) -> Option<usize> {
        serde_json::from_value::<Seen>(json!({"config": config, "cluster": cluster, "num_pending": 1}))
            .expect("parses")
            .copies()
    }

    #[test]
    fn only_a_durable_that_follows_its_stream_can_be_behind() {
        let durable = json!({"durable_name": "d", "num_replicas": 0});
        let alone = json!({"name": "c", "leader": "a"});
        assert_eq!(copies(durable.clone(), alone.clone()), Some(1));
        assert_eq!(
            copies(json!({"durable_name": "d"}), json!({"leader": "a", "replicas": [{"name": "b"}, {}]})),
            Some(3)
        );
        assert_eq!(copies(json!({"durable_name": "d", "num_replicas": 1}), alone.clone()), None, "somebody's wish");
        assert_eq!(copies(json!({"name": "ephemeral"}), alone), None, "the server keeps one of those");
        assert_eq!(copies(durable.clone(), json!({"name": "c"})), None, "nobody knows now");
        assert_eq!(copies(durable, Value::Null), None, "no cluster");
    }

    #[test]
    fn both_steps_together_change_nothing_and_one_alone_is_recognised() {
        for metadata in [json!(null), json!({}), json!({"theirs": "x"})] {
            let before = json!({"durable_name": "d", "num_replicas": 0, "metadata": metadata});
            let mut seen: Seen = serde_json::from_value(json!({"config": before, "cluster": null})).expect("parses");
            assert!(!seen.is_begun());
            seen.begin();
            assert!(seen.is_begun());
            assert_eq!(seen.copies(), None, "it has a number of its own now");
            seen.finish();
            assert!(!seen.is_begun());
            let kept = if metadata.is_null() { json!({}) } else { metadata };
            assert_eq!(Value::Object(seen.config), json!({"durable_name": "d", "num_replicas": 0, "metadata": kept}));
        }
    }
}
