//! Consumers of results whose clients have vanished.
//!
//! Every client with an id leaves durable consumers behind, and nobody ever removed them. A node may not simply do so:
//! whoever looks sees a client only while it asks for results. So each look leaves a mark in the consumer's metadata
//! with the time since which nobody has asked; whatever a client does ends it, also that it sends its own configuration
//! when it starts. Where the mark has become old enough, the *server* is told to remove the consumer unless somebody
//! asks within a while, which only the server can do without a gap between looking and removing.
//!
//! Nothing is lost by a removal: results are kept until they are acknowledged, whoever reads them, and a client that
//! comes back makes its consumer again and finds what waits for it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_nats::{datetime, jetstream::Context};
use futures::StreamExt as _;
use mpcium_client::subjects;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Link, consumers, raw};

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(15 * 60);
/// How long a client has to come back after all.
const GRACE: Duration = Duration::from_secs(3600);
/// The mark's name in a consumer's metadata.
const MARK: &str = "mpcium.idle";
/// The member of a consumer's configuration by which the server removes it when nobody uses it.
const THRESHOLD: &str = "inactive_threshold";

/// How long is long enough.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Without a client for this long, a consumer is given up.
    pub idle: Duration,
    /// It is removed when this has passed besides.
    pub grace: Duration,
}

/// Runs until aborted.
pub(super) async fn run(context: Context, link: Arc<Link>, idle: Duration) {
    let mut given_up = BTreeSet::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Err(problem) = tidy(&context, &link, Patience { idle, grace: GRACE }, &mut given_up).await {
            link.notices.info(format!("idle consumers of results could not be looked at: {problem}"));
        }
    }
}

/// Looks at every consumer of a client with an id. `given_up` holds those that the server was told to remove.
pub(super) async fn tidy(
    context: &Context,
    link: &Link,
    patience: Patience,
    given_up: &mut BTreeSet<String>,
) -> Result<(), String> {
    let stream = link.prefix.stream(subjects::RESULT_STREAM.name);
    let found = context.get_stream_no_info(&stream).await.map_err(|error| error.to_string())?;
    let mut names = BTreeSet::new();
    let mut all = found.consumer_names();
    while let Some(name) = all.next().await {
        names.insert(name.map_err(|error| error.to_string())?);
    }
    for name in given_up.difference(&names) {
        let kept = "results that wait for its client are kept";
        link.notices.info(format!("the consumer {name} has been removed, because no client used it; {kept}"));
    }
    given_up.retain(|name| names.contains(name));
    for name in names.iter().filter(|name| consumers::is_of_client(name)) {
        match look(context, &stream, name, patience).await? {
            Some(Step::GiveUp(idle)) => {
                given_up.insert(name.clone());
                link.notices.warn(format!(
                    "no client has used the consumer {name} for {} days: the server removes it unless one comes within \
                     {} minutes",
                    idle.as_secs() / 86_400,
                    patience.grace.as_secs() / 60
                ));
            }
            Some(Step::Clear | Step::Mark(_)) => drop(given_up.remove(name)),
            None => {}
        }
    }
    Ok(())
}

/// Looks at one consumer and takes the step that follows; `None` if there is none, or the consumer has just gone.
async fn look(context: &Context, stream: &str, name: &str, patience: Patience) -> Result<Option<Step>, String> {
    let Some(mut seen) = raw::look::<Seen>(context, stream, name).await? else { return Ok(None) };
    let Some(step) = seen.step(patience.idle)? else { return Ok(None) };
    seen.take(&step, patience.grace);
    let done = raw::update::<Seen>(context, stream, name, &seen.config).await?;
    Ok(done.map(|_| step))
}

/// What is to be done with a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Nobody uses it now: remember since when.
    Mark(String),
    /// Somebody does again.
    Clear,
    /// Nobody has for too long.
    GiveUp(Duration),
}

/// What the server says of a consumer.
#[derive(Debug, Deserialize)]
struct Seen {
    config: raw::Config,
    delivered: Position,
    ack_floor: Position,
    /// Requests for results that wait.
    num_waiting: u64,
    /// Whether somebody listens, where the server pushes.
    #[serde(default)]
    push_bound: bool,
    /// The server's clock.
    ts: Option<String>,
}

/// How far something has come.
#[derive(Debug, Deserialize)]
struct Position {
    consumer_seq: u64,
}

impl Seen {
    fn step(&self, patience: Duration) -> Result<Option<Step>, String> {
        let now = self.ts.as_deref().and_then(|text| datetime::parse_rfc3339(text).ok());
        let now = now.ok_or("the server does not say what time it is")?.unix_timestamp();
        let state = format!("{}/{}", self.delivered.consumer_seq, self.ack_floor.consumer_seq);
        let in_use = self.num_waiting > 0 || self.push_bound;
        let given_up = self.config.get(THRESHOLD).and_then(Value::as_u64).is_some_and(|threshold| threshold > 0);
        let mark = self.config.get("metadata").and_then(|metadata| metadata.get(MARK)).and_then(Value::as_str);
        let Some(mark) = mark else {
            // One with a threshold of its client's choice is the server's business already.
            return Ok((!in_use && !given_up).then(|| Step::Mark(format!("{state}@{now}"))));
        };
        let since = match mark.split_once('@') {
            Some((then, since)) if then == state && !in_use => since.parse::<i64>().ok(),
            _ => None,
        };
        let Some(since) = since else { return Ok(Some(Step::Clear)) };
        let idle = Duration::from_secs(u64::try_from(now.saturating_sub(since)).unwrap_or(0));
        Ok((idle >= patience && !given_up).then_some(Step::GiveUp(idle)))
    }

    /// Changes the configuration as a step demands.
    fn take(&mut self, step: &Step, grace: Duration) {
        let mut metadata = match self.config.remove("metadata") {
            Some(Value::Object(metadata)) => metadata,
            _ => Map::new(),
        };
        match step {
            Step::Mark(mark) => drop(metadata.insert(MARK.to_owned(), mark.as_str().into())),
            Step::GiveUp(_) => {
                let nanoseconds = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
                self.config.insert(THRESHOLD.to_owned(), nanoseconds.into());
            }
            Step::Clear => {
                metadata.remove(MARK);
                self.config.remove(THRESHOLD);
            }
        }
        self.config.insert("metadata".to_owned(), metadata.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00.123456789Z";
    const DAY: Duration = Duration::from_secs(86_400);
    /// [`NOW`] in seconds since 1970.
    const SECONDS: i64 = 1_767_225_600;

    fn seen(config: Value, waiting: u64) -> Seen {
        let all = json!({
            "config": config, "delivered": {"consumer_seq": 7, "stream_seq": 9}, "num_waiting": waiting, "ts": NOW,
            "ack_floor": {"consumer_seq": 5, "stream_seq": 7}, "num_pending": 3,
        });
        serde_json::from_value(all).expect("what a server says")
    }

    fn marked(state: &str, days_ago: i64, threshold: u64) -> Value {
        let mark = format!("{state}@{}", SECONDS - days_ago * 86_400);
        json!({"durable_name": "d", THRESHOLD: threshold, "metadata": {MARK: mark, "theirs": "x"}})
    }

    fn step(config: Value, waiting: u64) -> Option<Step> {
        seen(config, waiting).step(DAY * 90).expect("it says the time")
    }

    #[test]
    fn one_that_nobody_uses_is_marked_and_given_up_when_that_has_lasted() {
        assert_eq!(step(json!({}), 0), Some(Step::Mark(format!("7/5@{SECONDS}"))));
        assert_eq!(step(marked("7/5", 89, 0), 0), None);
        assert_eq!(step(marked("7/5", 90, 0), 0), Some(Step::GiveUp(DAY * 90)));
    }

    #[test]
    fn any_sign_of_life_ends_a_mark() {
        assert_eq!(step(json!({}), 1), None);
        for config in [marked("7/5", 99, 0), marked("7/5", 99, 5)] {
            assert_eq!(step(config, 1), Some(Step::Clear), "somebody asks");
        }
        assert_eq!(step(marked("6/5", 99, 0), 0), Some(Step::Clear), "something was delivered");
        assert_eq!(step(marked("7/4", 99, 0), 0), Some(Step::Clear), "something was acknowledged");
        let mut pushed = seen(marked("7/5", 99, 0), 0);
        pushed.push_bound = true;
        assert_eq!(pushed.step(DAY), Ok(Some(Step::Clear)));
    }

    #[test]
    fn what_is_given_up_or_removes_itself_is_left_to_the_server() {
        assert_eq!(step(marked("7/5", 99, 5), 0), None);
        assert_eq!(step(json!({THRESHOLD: 300}), 0), None);
    }

    #[test]
    fn a_mark_that_cannot_be_read_or_lies_ahead_gives_nothing_up() {
        assert_eq!(step(json!({"metadata": {MARK: "7/5@yesterday"}}), 0), Some(Step::Clear));
        assert_eq!(step(json!({"metadata": {MARK: "nonsense"}}), 0), Some(Step::Clear));
        assert_eq!(step(marked("7/5", -400, 0), 0), None);
        let mut timeless = seen(marked("7/5", 99, 0), 0);
        timeless.ts = None;
        assert!(timeless.step(DAY).is_err());
    }

    #[test]
    fn steps_change_nothing_else_in_the_configuration() {
        let mut given_up = seen(marked("7/5", 90, 0), 0);
        given_up.take(&Step::GiveUp(DAY), Duration::from_secs(3600));
        let config = Value::Object(given_up.config.clone());
        assert_eq!(config, marked("7/5", 90, 3_600_000_000_000));
        given_up.take(&Step::Clear, DAY);
        assert_eq!(Value::Object(given_up.config), json!({"durable_name": "d", "metadata": {"theirs": "x"}}));
    }
}
