//! The adapter against a real nats-server.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::{
    self,
    consumer::{self, AckPolicy, DeliverPolicy, FromConsumer as _, pull},
    stream::{self, RetentionPolicy, StorageType},
};
use mpcium_core::{
    Input, NodeId,
    input::{Delivery, RequestKind},
    limits,
    output::{Publication, PublishId, Settlement},
};

use zeroize::Zeroizing;

use super::{Deadlines, Link, Nats, NatsError, NatsOptions, NatsPorts, copies, keeper};
use crate::{
    notice::Notices,
    ports::{Datagrams as _, Events, Inbox, Requests as _, Results as _},
    test_servers::{PATIENCE, Server, eventually, heard, next_input},
};

const DEADLINES: Deadlines = Deadlines {
    keygen: Duration::from_secs(900),
    signing: Duration::from_secs(180),
    reshare: Duration::from_secs(900),
};

struct Node {
    nats: Nats,
    ports: NatsPorts,
    events: Events,
}

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn options(server: &Server) -> NatsOptions {
    NatsOptions::new(format!("nats://127.0.0.1:{}", server.port), "test")
}

async fn node(server: &Server, n: u8) -> Node {
    let (inbox, events) = Inbox::new();
    let nats = Nats::connect(&options(server), Notices::silent()).await.expect("connects");
    let ports = nats.ports(id(n), &inbox, DEADLINES).await.expect("ports");
    Node { nats, ports, events }
}

async fn client(server: &Server) -> jetstream::Context {
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port)).await.expect("a client connects");
    jetstream::new(client)
}

async fn delivery(events: &mut Events) -> Delivery {
    match next_input(events).await {
        Input::Request(delivery) => delivery,
        other => panic!("a request was expected, not {other:?}"),
    }
}

async fn send_request(client: &jetstream::Context, subject: &'static str, body: &'static str) -> u64 {
    client.publish(subject, body.into()).await.expect("sent").await.expect("taken").sequence
}

async fn consumer_info(client: &jetstream::Context, stream: &str, name: &str) -> Option<consumer::Info> {
    client.get_stream_no_info(stream).await.ok()?.consumer_info(name).await.ok()
}

async fn delete_signing_consumer(client: &jetstream::Context) {
    // The server fails to delete what it is writing at that moment.
    eventually("the consumer is deleted", async || {
        client.delete_consumer_from_stream("mpc_signing_consumer", "mpc-signing").await.ok()
    })
    .await;
}

async fn stream_config(client: &jetstream::Context, name: &str) -> Option<stream::Config> {
    Some(client.get_stream(name).await.ok()?.cached_info().config.clone())
}

#[tokio::test]
async fn streams_and_durables_are_as_clients_expect() {
    let server = Server::nats().started();
    let _node = node(&server, 1).await;
    let client = client(&server).await;

    let week = Duration::from_secs(7 * 24 * 3600);
    for (name, subjects, retention, age) in [
        ("mpc-keygen", vec!["mpc.keygen_request.*"], RetentionPolicy::Limits, week),
        ("mpc-signing", vec!["mpc.signing_request.*"], RetentionPolicy::Limits, week),
        ("mpc-reshare", vec!["mpc.reshare_request.*"], RetentionPolicy::Limits, week),
        (
            "mpc",
            vec!["mpc.mpc_keygen_result.>", "mpc.mpc_signing_result.>", "mpc.mpc_reshare_result.>"],
            RetentionPolicy::WorkQueue,
            Duration::ZERO,
        ),
    ] {
        let config = stream_config(&client, name).await.expect(name);
        assert_eq!(config.subjects, subjects);
        assert_eq!((config.retention, config.storage), (retention, StorageType::File));
        assert_eq!((config.max_age, config.max_bytes), (age, 100_000_000));
        assert_eq!(config.duplicate_window, Duration::from_secs(120));
        assert_eq!(config.description, Some(format!("Stream for {name}")));
    }
    for (stream, name, filter) in [
        ("mpc-keygen", "mpc_keygen_consumer", "mpc.keygen_request.*"),
        ("mpc-signing", "mpc_signing_consumer", "mpc.signing_request.*"),
        ("mpc-reshare", "mpc_reshare_consumer", "mpc.reshare_request.*"),
    ] {
        let config = consumer_info(&client, stream, name).await.expect(name).config;
        assert_eq!(config.filter_subject, filter);
        assert!(config.filter_subjects.is_empty() && config.backoff.is_empty());
        assert_eq!((config.ack_policy, config.max_deliver), (AckPolicy::Explicit, -1));
        assert_eq!(config.ack_wait, Duration::from_secs(30));
        assert!(matches!(config.deliver_policy, DeliverPolicy::ByStartTime { .. }), "never from the beginning");
    }
    for (name, filter) in [
        ("mpc_keygen_result", "mpc.mpc_keygen_result.*"),
        ("mpc_signing_result", "mpc.mpc_signing_result.complete"),
        ("mpc_reshare_result", "mpc.mpc_reshare_result.*"),
    ] {
        let config = consumer_info(&client, "mpc", name).await.expect(name).config;
        assert_eq!(config.filter_subjects, [filter]);
        assert_eq!((config.max_deliver, config.max_ack_pending), (3, 1000));
    }
}

#[tokio::test]
async fn what_a_client_changes_is_restored() {
    let server = Server::nats().started();
    let _node = node(&server, 1).await;
    let client = client(&server).await;
    let original = stream_config(&client, "mpc").await.expect("the stream");
    let old_client = stream::Config {
        subjects: vec!["mpc.mpc_keygen_result.*".into(), "mpc.mpc_signing_result.*".into()],
        max_bytes: 10_485_760,
        ..original.clone()
    };
    client.update_stream(&old_client).await.expect("the client's update");
    eventually("the configuration is restored", async || {
        stream_config(&client, "mpc").await.filter(|config| *config == original)
    })
    .await;
    client.delete_stream("mpc-signing").await.expect("deleted");
    eventually("the stream is created again, with its consumer", async || {
        consumer_info(&client, "mpc-signing", "mpc_signing_consumer").await
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_changed_is_an_error_that_says_what_to_do() {
    let server = Server::nats().started();
    let client = client(&server).await;
    let wrong = stream::Config {
        name: "mpc".into(),
        subjects: vec!["mpc.mpc_keygen_result.>".into()],
        ..stream::Config::default()
    };
    client.create_stream(wrong).await.expect("created");
    let nats = Nats::connect(&options(&server), Notices::silent()).await.expect("connects");
    let (inbox, _events) = Inbox::new();
    let error = nats.ports(id(1), &inbox, DEADLINES).await.expect_err("a conflict");
    assert!(matches!(error, NatsError::Conflict(_)));
    let text = error.to_string();
    assert!(text.contains("WorkQueue") && text.contains("nats stream rm mpc"), "{text}");
}

#[tokio::test]
async fn a_request_arrives_whole_and_is_gone_once_acknowledged() {
    let server = Server::nats().started();
    let mut node = node(&server, 1).await;
    let client = client(&server).await;
    node.ports.requests.intake(RequestKind::Sign, true);

    let mut headers = async_nats::HeaderMap::new();
    headers.insert("ClientID", "shop");
    let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    // The Go client publishes to the literal asterisk.
    let subject = "mpc.signing_request.*";
    let sent = client.publish_with_headers(subject, headers, "{}".into()).await.expect("sent").await.expect("taken");

    let first = delivery(&mut node.events).await;
    assert_eq!(
        (first.kind, first.body.as_slice(), first.client.as_deref()),
        (RequestKind::Sign, &b"{}"[..], Some("shop"))
    );
    assert_eq!((first.stream.as_str(), first.sequence, first.deliveries), ("mpc-signing", sent.sequence, 1));
    assert!(u128::from(first.timestamp.0) + 1000 >= before, "milliseconds since 1970");

    node.ports.requests.settle(first.id, Settlement::KeepAlive);
    node.ports.requests.settle(first.id, Settlement::Release(Duration::from_millis(50)));
    let second = delivery(&mut node.events).await;
    assert_eq!((second.sequence, second.deliveries), (sent.sequence, 2));
    assert_ne!(second.id, first.id);

    node.ports.requests.settle(second.id, Settlement::Acknowledge);
    eventually("nothing is pending", async || {
        let info = consumer_info(&client, "mpc-signing", "mpc_signing_consumer").await?;
        (info.num_ack_pending == 0 && info.ack_floor.stream_sequence == sent.sequence).then_some(())
    })
    .await;
}

/// Publishes a request with a header under a subject of any bytes, as no library would.
fn send_raw(server: &Server, subject: &[u8], body: &str) {
    use std::io::{BufRead as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port)).expect("connects");
    let headers = "NATS/1.0\r\nClientID: shop\r\n\r\n";
    let mut sent = b"CONNECT {\"verbose\":false,\"headers\":true}\r\nHPUB ".to_vec();
    sent.extend_from_slice(subject);
    sent.extend_from_slice(format!(" {} {}\r\n", headers.len(), headers.len() + body.len()).as_bytes());
    sent.extend_from_slice(format!("{headers}{body}\r\nPING\r\n").as_bytes());
    stream.write_all(&sent).expect("sent");
    let mut lines = std::io::BufReader::new(stream).lines();
    assert!(lines.any(|line| line.expect("an answer") == "PONG"), "the server has taken it");
}

#[tokio::test]
async fn a_request_under_a_subject_that_no_library_reads_is_a_request_like_any_other() {
    let server = Server::nats().started();
    let mut node = node(&server, 1).await;
    let connections = node.nats.link.connections.subscribe();
    node.ports.requests.intake(RequestKind::Sign, true);
    for subject in
        ["mpc.signing_request.a\u{2028}b".as_bytes(), b"mpc.signing_request.\xff\xfe", b"mpc.signing_request.\xc2\x85"]
    {
        send_raw(&server, subject, "odd");
        let odd = delivery(&mut node.events).await;
        assert_eq!((odd.body.as_slice(), odd.client.as_deref(), odd.deliveries), (&b"odd"[..], Some("shop"), 1));
        node.ports.requests.settle(odd.id, Settlement::Acknowledge);
    }
    assert!(!connections.has_changed().expect("the node runs"), "a request cost the node its connection");
}

#[tokio::test]
async fn a_node_whose_intake_is_closed_leaves_requests_to_others() {
    let server = Server::nats().started();
    let mut one = node(&server, 1).await;
    let mut two = node(&server, 2).await;
    let client = client(&server).await;
    one.ports.requests.intake(RequestKind::Keygen, true);
    send_request(&client, "mpc.keygen_request.a", "first").await;
    let held = delivery(&mut one.events).await;
    assert_eq!(held.body, b"first");

    one.ports.requests.intake(RequestKind::Keygen, false);
    two.ports.requests.intake(RequestKind::Keygen, true);
    eventually("only the second node's pull is left", async || {
        let info = consumer_info(&client, "mpc-keygen", "mpc_keygen_consumer").await?;
        (info.num_waiting == 1).then_some(())
    })
    .await;
    send_request(&client, "mpc.keygen_request.b", "second").await;
    assert_eq!(delivery(&mut two.events).await.body, b"second");
    one.ports.requests.settle(held.id, Settlement::Release(Duration::ZERO));
    assert_eq!(delivery(&mut two.events).await.body, b"first");
}

#[tokio::test]
async fn a_consumer_that_disappears_is_created_anew_and_pulled_from() {
    let server = Server::nats().started();
    let mut node = node(&server, 1).await;
    let client = client(&server).await;
    node.ports.requests.intake(RequestKind::Sign, true);
    send_request(&client, "mpc.signing_request.a", "first").await;
    let first = delivery(&mut node.events).await;
    node.ports.requests.settle(first.id, Settlement::Acknowledge);

    delete_signing_consumer(&client).await;
    send_request(&client, "mpc.signing_request.b", "second").await;
    // The new consumer starts at the deadline, so the acknowledged one may come once more.
    loop {
        let next = delivery(&mut node.events).await;
        node.ports.requests.settle(next.id, Settlement::Acknowledge);
        if next.body == b"second" {
            break;
        }
        assert_eq!(next.body, b"first");
        assert!(next.deliveries > 1, "it was answered, and is taken for a first delivery");
    }
    // What comes later is new.
    send_request(&client, "mpc.signing_request.c", "third").await;
    let third = delivery(&mut node.events).await;
    assert_eq!((third.body.as_slice(), third.deliveries), (&b"third"[..], 1));
}

#[tokio::test]
async fn requests_that_an_earlier_consumer_may_have_delivered_are_redeliveries_for_a_node_that_only_waited() {
    let server = Server::nats().started();
    let mut one = node(&server, 1).await;
    let client = client(&server).await;
    // Full: it has no pull outstanding, so the server does not tell it that the consumer goes.
    one.ports.requests.intake(RequestKind::Sign, true);
    let mut held = Vec::new();
    for _ in 0..limits::REQUESTS_MAX {
        send_request(&client, "mpc.signing_request.a", "held").await;
        held.push(delivery(&mut one.events).await);
    }
    send_request(&client, "mpc.signing_request.b", "waits").await;
    delete_signing_consumer(&client).await;
    let _two = node(&server, 2).await;
    let recreated =
        eventually("it is made anew", async || consumer_info(&client, "mpc-signing", "mpc_signing_consumer").await)
            .await;
    assert_eq!(recreated.delivered.consumer_sequence, 0);
    for held in held {
        one.ports.requests.settle(held.id, Settlement::Acknowledge);
    }
    for _ in 0..=limits::REQUESTS_MAX {
        let again = delivery(&mut one.events).await;
        assert!(again.deliveries > 1, "{:?} is taken for a first delivery", again.body);
        one.ports.requests.settle(again.id, Settlement::Acknowledge);
    }
}

#[tokio::test]
async fn the_existing_systems_consumer_is_updated_in_place() {
    let server = Server::nats().started();
    drop(node(&server, 1).await);
    let client = client(&server).await;
    delete_signing_consumer(&client).await;
    send_request(&client, "mpc.signing_request.a", "answered long ago").await;
    let theirs = pull::Config {
        name: Some("mpc_signing_consumer".into()),
        durable_name: Some("mpc_signing_consumer".into()),
        filter_subject: "mpc.signing_request.*".into(),
        max_deliver: 4,
        backoff: vec![Duration::from_secs(30); 3],
        max_ack_pending: 20,
        ..pull::Config::default()
    };
    let theirs = client.create_consumer_on_stream(theirs, "mpc-signing").await.expect("created");
    use futures::StreamExt as _;
    let mut batch = theirs.fetch().max_messages(1).messages().await.expect("pulled");
    batch.next().await.expect("one").expect("good").double_ack().await.expect("acknowledged");
    send_request(&client, "mpc.signing_request.b", "not answered yet").await;

    let mut node = node(&server, 2).await;
    let info = consumer_info(&client, "mpc-signing", "mpc_signing_consumer").await.expect("it is there");
    assert_eq!((info.config.max_deliver, info.config.deliver_policy), (-1, DeliverPolicy::All));
    assert!(info.config.backoff.is_empty() && info.config.max_ack_pending > 1000);
    node.ports.requests.intake(RequestKind::Sign, true);
    assert_eq!(delivery(&mut node.events).await.body, b"not answered yet");
}

#[tokio::test]
async fn what_a_node_left_half_done_is_finished_and_a_wish_for_one_copy_is_respected() {
    let server = Server::nats().started();
    let client = client(&server).await;
    let (notices, _) = heard();
    let link = Link::new(notices, &options(&server));
    keeper::put_right(&client, DEADLINES, &link).await.expect("made");
    for (stream, name, mark) in [
        ("mpc-signing", "mpc_signing_consumer", "mpcium.copies"),
        // Somebody's own, with metadata of theirs.
        ("mpc-keygen", "mpc_keygen_consumer", "theirs"),
    ] {
        let mut config = consumer_info(&client, stream, name).await.expect("it is there").config;
        config.num_replicas = 1;
        config.metadata.insert(mark.to_owned(), "1".to_owned());
        let config = pull::Config::try_from_consumer_config(config).expect("it is pulled from");
        client.create_consumer_on_stream(config, stream).await.expect("changed");
    }
    assert_eq!(copies::put_right(&client, &link, 3).await, Ok(false), "one was behind");
    let finished = consumer_info(&client, "mpc-signing", "mpc_signing_consumer").await.expect("it is there").config;
    assert_eq!((finished.num_replicas, finished.metadata.contains_key("mpcium.copies")), (0, false));
    let wished = consumer_info(&client, "mpc-keygen", "mpc_keygen_consumer").await.expect("it is there").config;
    assert_eq!((wished.num_replicas, wished.metadata.contains_key("theirs")), (1, true));
    assert_eq!(copies::put_right(&client, &link, 3).await, Ok(true), "none is behind");
}

#[tokio::test]
async fn a_result_is_published_once_however_often_it_is_asked_for() {
    let server = Server::nats().started();
    let mut node = node(&server, 1).await;
    let client = client(&server).await;
    for (number, body) in [(1, "the answer"), (2, "the answer")] {
        node.ports.results.publish(Publication {
            id: PublishId(number),
            subject: "mpc.mpc_keygen_result.w".into(),
            dedup: "keygen:w:1".into(),
            body: body.into(),
        });
        assert!(matches!(next_input(&mut node.events).await, Input::Published(PublishId(n)) if n == number));
    }
    let mut stream = client.get_stream("mpc").await.expect("the stream");
    assert_eq!(stream.info().await.expect("its state").state.messages, 1);
}

#[tokio::test]
async fn a_result_waits_for_its_stream_to_be_restored() {
    let server = Server::nats().started();
    let mut node = node(&server, 1).await;
    let client = client(&server).await;
    client.delete_stream("mpc").await.expect("deleted");
    node.ports.results.publish(Publication {
        id: PublishId(7),
        subject: "mpc.mpc_signing_result.complete".into(),
        dedup: "sign:t".into(),
        body: b"{}".to_vec(),
    });
    assert!(matches!(next_input(&mut node.events).await, Input::Published(PublishId(7))));
}

#[tokio::test]
async fn a_restarted_server_is_found_again_for_datagrams_and_requests() {
    let mut server = Server::nats().started();
    let mut one = node(&server, 1).await;
    let two = node(&server, 2).await;
    one.ports.requests.intake(RequestKind::Sign, true);
    server.stop();
    eventually("the loss is noticed", async || (!one.nats.is_connected()).then_some(())).await;
    two.ports.datagrams.send(id(1), b"lost".to_vec());
    server.start();
    eventually("both are connected again", async || (one.nats.is_connected() && two.nats.is_connected()).then_some(()))
        .await;

    let client = client(&server).await;
    send_request(&client, "mpc.signing_request.a", "request").await;
    let (mut datagram, mut request) = (false, false);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !(datagram && request) {
        assert!(tokio::time::Instant::now() < deadline, "datagram: {datagram}, request: {request}");
        two.ports.datagrams.send(id(1), b"hello".to_vec());
        let wait = Duration::from_millis(100);
        match tokio::time::timeout(wait, next_input(&mut one.events)).await {
            Ok(Input::Datagram(bytes)) => datagram |= bytes == b"hello",
            Ok(Input::Request(delivery)) => request |= delivery.body == b"request",
            Ok(other) => panic!("unexpected {other:?}"),
            Err(_) => {}
        }
    }
}

#[tokio::test]
async fn a_node_waits_for_a_server_that_is_not_there_yet_and_says_so() {
    let mut server = Server::nats();
    let (notices, texts) = heard();
    let options = options(&server);
    let connecting = tokio::spawn(async move { Nats::connect(&options, notices).await });
    let port = server.port;
    eventually("it says what it waits for", async || {
        let texts = texts.lock().expect("whole");
        texts
            .iter()
            .any(|text| text.starts_with(&format!("waits for the NATS server at nats://127.0.0.1:{port}")))
            .then_some(())
    })
    .await;
    server.start();
    let nats = tokio::time::timeout(PATIENCE, connecting).await.expect("in time").expect("no panic").expect("connects");
    assert!(nats.is_connected());
}

#[tokio::test]
async fn user_and_password_open_a_protected_server_and_a_wrong_one_is_told() {
    let server = Server::nats().with(&["--user", "node", "--pass", "right"]).started();
    let mut options = options(&server);
    options.user = Some(("node".to_owned(), Zeroizing::new("right".to_owned())));
    assert!(Nats::connect(&options, Notices::silent()).await.expect("connects").is_connected());

    options.user = Some(("node".to_owned(), Zeroizing::new("wrong".to_owned())));
    let (notices, texts) = heard();
    let connecting = tokio::spawn(async move { Nats::connect(&options, notices).await });
    eventually("it says why it waits", async || {
        let texts = texts.lock().expect("whole");
        texts.iter().any(|text| text.contains("authorization violation")).then_some(())
    })
    .await;
    connecting.abort();
    assert!(!texts.lock().expect("whole").iter().any(|text| text.contains("wrong")));
}

#[tokio::test]
async fn closing_first_delivers_what_was_published() {
    let server = Server::nats().started();
    let node = node(&server, 1).await;
    let client = client(&server).await;
    node.ports.results.publish(Publication {
        id: PublishId(1),
        subject: "mpc.mpc_signing_result.complete".into(),
        dedup: "sign:t".into(),
        body: b"{}".to_vec(),
    });
    node.nats.close().await;
    let mut stream = client.get_stream("mpc").await.expect("the stream");
    assert_eq!(stream.info().await.expect("its state").state.messages, 1);
}

#[tokio::test]
async fn a_reshare_request_over_core_nats_is_queued_once() {
    let server = Server::nats().started();
    let mut one = node(&server, 1).await;
    let _two = node(&server, 2).await;
    let client = client(&server).await;
    one.ports.requests.intake(RequestKind::Reshare, true);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("ClientID", "shop");
    client.client().publish_with_headers("mpc:reshare", headers, "{\"s\":1}".into()).await.expect("sent");
    let delivery = delivery(&mut one.events).await;
    assert_eq!((delivery.kind, delivery.body.as_slice()), (RequestKind::Reshare, &b"{\"s\":1}"[..]));
    assert_eq!(delivery.client.as_deref(), Some("shop"));
    let mut stream = client.get_stream("mpc-reshare").await.expect("the stream");
    assert_eq!(stream.info().await.expect("its state").state.messages, 1);
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_with_that_reason() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let old = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let info = br#"INFO {"server_id":"S","version":"2.9.25","max_payload":1048576,"proto":1,"headers":true}"#;
        socket.write_all(&[info, &b"\r\n"[..]].concat()).await.expect("greets");
        let mut buffer = [0; 4096];
        while socket.read(&mut buffer).await.is_ok_and(|count| count > 0) {
            if socket.write_all(b"PONG\r\n").await.is_err() {
                break;
            }
        }
    });
    let options = NatsOptions::new(format!("127.0.0.1:{port}"), "test");
    let error = Nats::connect(&options, Notices::silent()).await.expect_err("too old");
    assert!(error.to_string().contains("2.9.25") && error.to_string().contains("2.10 or newer"), "{error}");
    old.abort();
}

#[test]
fn debug_of_options_shows_no_password() {
    let mut options = NatsOptions::new("nats://u:hunter2@localhost:4222,nats://localhost:4223", "node0");
    options.user = Some(("user".to_owned(), Zeroizing::new("swordfish".to_owned())));
    let shown = format!("{options:?}");
    assert!(shown.contains("nats://localhost:4222,nats://localhost:4223"), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("swordfish"), "{shown}");
}
