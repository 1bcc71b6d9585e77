//! Consumers of vanished clients, against a real nats-server.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_nats::jetstream::{
    self, Context,
    consumer::{AckPolicy, Info, PullConsumer, pull},
};
use futures::StreamExt as _;
use mpcium_client::subjects;

use super::{
    Link, NatsOptions, consumers, keeper,
    tidy::{Patience, tidy},
};
use crate::test_servers::{Server, eventually, heard};

const DEADLINES: super::Deadlines = super::Deadlines {
    keygen: Duration::from_secs(900),
    signing: Duration::from_secs(180),
    reshare: Duration::from_secs(900),
};
/// Whoever is idle is given up at the second look, and removed soon.
const IMPATIENT: Patience = Patience { idle: Duration::ZERO, grace: Duration::from_secs(1) };
/// Whoever is idle is given up at the second look, and has all the time of this test to come back.
const WITH_GRACE: Patience = Patience { idle: Duration::ZERO, grace: Duration::from_secs(3600) };

struct World {
    context: Context,
    link: Arc<Link>,
    texts: Arc<std::sync::Mutex<Vec<String>>>,
    given_up: BTreeSet<String>,
    _server: Server,
}

impl World {
    /// Streams and durables as nodes make them.
    async fn new() -> Self {
        let server = Server::nats().started();
        let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.expect("connects");
        let context = jetstream::new(client);
        let (notices, texts) = heard();
        let link = Link::new(notices, &NatsOptions::new("", ""));
        keeper::put_right(&context, DEADLINES, &link).await.expect("made");
        Self { context, link, texts, given_up: BTreeSet::new(), _server: server }
    }

    /// The durable of a client, as the Go client makes it, which sends its configuration at each start.
    async fn client(&self, name: &str) -> PullConsumer {
        let config = pull::Config {
            durable_name: Some(format!("mpc_keygen_result_{name}")),
            filter_subjects: vec![format!("mpc.mpc_keygen_result.{name}.*")],
            ack_policy: AckPolicy::Explicit,
            max_deliver: 3,
            ..pull::Config::default()
        };
        self.context.create_consumer_on_stream(config, "mpc").await.expect("made")
    }

    async fn look(&mut self, patience: Patience) {
        tidy(&self.context, &self.link, patience, &mut self.given_up).await.expect("the server answers");
    }

    async fn info(&self, name: &str) -> Option<Info> {
        let stream = self.context.get_stream_no_info("mpc").await.expect("the stream");
        stream.consumer_info(format!("mpc_keygen_result_{name}")).await.ok()
    }

    fn said(&self, words: &str) -> usize {
        self.texts.lock().expect("whole").iter().filter(|text| text.contains(words)).count()
    }
}

fn is_marked(info: &Info) -> bool {
    info.config.metadata.contains_key("mpcium.idle")
}

#[tokio::test]
async fn a_vanished_clients_consumer_is_removed_and_its_results_are_kept() {
    let mut world = World::new().await;
    drop(world.client("gone").await);
    world.context.publish("mpc.mpc_keygen_result.gone.w", "late".into()).await.expect("sent").await.expect("kept");
    world.look(IMPATIENT).await;
    assert!(is_marked(&world.info("gone").await.expect("it is there")));
    world.look(IMPATIENT).await;
    assert_eq!(world.said("no client has used the consumer mpc_keygen_result_gone"), 1);
    eventually("the server removes it", async || world.info("gone").await.is_none().then_some(())).await;
    world.look(IMPATIENT).await;
    world.look(IMPATIENT).await;
    assert_eq!(world.said("the consumer mpc_keygen_result_gone has been removed"), 1);
    // What nodes and clients without an id use is not touched.
    for spec in subjects::STREAMS {
        for durable in consumers::durables_of(spec.name) {
            let config = consumers::info(&world.context, spec.name, &durable).await.expect("answers").expect(&durable);
            assert!(!config.metadata.contains_key("mpcium.idle") && config.inactive_threshold.is_zero(), "{durable}");
        }
    }
    // And whoever comes back after all finds its results.
    let back = world.client("gone").await;
    let mut messages = back.messages().await.expect("reads");
    assert_eq!(messages.next().await.expect("a result").expect("whole").payload, "late");
}

#[tokio::test]
async fn a_client_that_waits_for_results_keeps_its_consumer() {
    let mut world = World::new().await;
    let consumer = world.client("patient").await;
    let mut messages = consumer.messages().await.expect("reads");
    let reading = tokio::spawn(async move { while messages.next().await.is_some() {} });
    eventually("it asks", async || world.info("patient").await.filter(|info| info.num_waiting > 0)).await;
    for _ in 0..3 {
        world.look(IMPATIENT).await;
        let info = world.info("patient").await.expect("it is there");
        assert!(!is_marked(&info) && info.config.inactive_threshold.is_zero());
    }
    reading.abort();
}

#[tokio::test]
async fn a_client_that_comes_back_is_not_given_up_any_more() {
    let mut world = World::new().await;
    let consumer = world.client("back").await;
    world.look(WITH_GRACE).await;
    world.look(WITH_GRACE).await;
    let info = world.info("back").await.expect("it is there");
    assert_eq!(info.config.inactive_threshold, WITH_GRACE.grace);
    // It goes on as if nothing had been.
    let mut messages = consumer.messages().await.expect("reads");
    let reading = tokio::spawn(async move { while messages.next().await.is_some() {} });
    eventually("it asks", async || world.info("back").await.filter(|info| info.num_waiting > 0)).await;
    world.look(WITH_GRACE).await;
    let info = world.info("back").await.expect("it is there");
    assert!(!is_marked(&info) && info.config.inactive_threshold.is_zero());
    assert!(world.given_up.is_empty());
    reading.abort();
}

#[tokio::test]
async fn a_client_that_starts_again_begins_anew() {
    let mut world = World::new().await;
    drop(world.client("nightly").await);
    world.look(WITH_GRACE).await;
    world.look(WITH_GRACE).await;
    // It sends its own configuration, and ends again before anybody looks.
    drop(world.client("nightly").await);
    let info = world.info("nightly").await.expect("it is there");
    assert!(!is_marked(&info) && info.config.inactive_threshold.is_zero());
    world.look(WITH_GRACE).await;
    assert!(world.info("nightly").await.expect("it is there").config.inactive_threshold.is_zero());
}

#[tokio::test]
async fn a_removed_consumer_does_not_come_back_by_being_looked_at() {
    let mut world = World::new().await;
    drop(world.client("closed").await);
    world.look(WITH_GRACE).await;
    world.context.delete_consumer_from_stream("mpc_keygen_result_closed", "mpc").await.expect("removed");
    world.look(WITH_GRACE).await;
    assert!(world.info("closed").await.is_none());
}
