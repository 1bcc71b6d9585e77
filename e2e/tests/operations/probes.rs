//! `/live`, `/ready`, `/health` and `/metrics` of real nodes.

use e2e::{
    cluster::{Cluster, StartOptions},
    http::get,
    servers::{Servers, free_port},
    wait::{self, PATIENCE},
};
use mpcium_client::SignRequest;

/// The values of all series of a metric, added up; zero if there are none.
fn sum(page: &str, series: &str) -> f64 {
    let values = page.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_tell_a_nodes_life_from_its_first_moment() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut servers = Servers::new(folder.path()).expect("servers");
    servers.consul.start().await.expect("consul");
    let mut cluster = Cluster::generate(folder.path(), 3, &servers, mpcium_core::protocol::EcdsaProtocol::Cggmp24, "")
        .expect("a cluster");
    let mut ports = Vec::new();
    for node in &mut cluster.nodes {
        let (health, metrics) = (free_port().expect("a port"), free_port().expect("a port"));
        let variables = vec![
            ("HEALTHCHECK_ENABLED", "true".to_owned()),
            ("HEALTHCHECK_ADDRESS", format!("127.0.0.1:{health}")),
            ("METRICS_ENABLED", "true".to_owned()),
            ("METRICS_ADDRESS", format!("127.0.0.1:{metrics}")),
        ];
        node.start_with(&StartOptions { variables, ..StartOptions::default() }).expect("started");
        ports.push((health, metrics));
    }
    // There is no NATS yet.
    let (health, metrics) = ports[0];
    wait::until_sync("a node that says that it waits for NATS", PATIENCE, || {
        let (code, body) = get(metrics, "/ready")?;
        if code == 503 && body.contains("NATS") { Ok(()) } else { Err(format!("{code} {body}")) }
    })
    .await
    .expect("it waits");
    assert_eq!(get(metrics, "/live").expect("answered").0, 200, "waiting is no failure");
    assert_eq!(get(health, "/health").expect("answered").0, 503);
    let page = get(metrics, "/metrics").expect("answered").1;
    assert!(page.contains("\nmpcium_starting 1\n") && page.contains("\nmpcium_nats_connected 0\n"), "{page}");
    // A core dump would hold every share.
    let process = cluster.nodes[0].process_id().expect("it runs");
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).expect("the system says");
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{limits}");

    servers.nats.start().await.expect("nats");
    cluster.register().await.expect("registered");
    if let Err(error) = cluster.ready().await {
        panic!("{error}\n{}", cluster.logs(&servers));
    }
    wait::until_sync("a node that is ready everywhere", PATIENCE, || {
        let (code, body) = get(health, "/health")?;
        if code == 200 && get(metrics, "/ready")?.0 == 200 { Ok(()) } else { Err(body) }
    })
    .await
    .expect("ready");
    let body = get(health, "/health").expect("answered").1;
    assert!(body.contains("\"peers_ready_count\":\"3/3\""), "{body}");

    let client = cluster.client().await.expect("a client");
    client.create_wallet_and_wait("w", PATIENCE).await.expect("a wallet");
    for tx in ["one", "two"] {
        let request = SignRequest {
            key_type: "ed25519".to_owned(),
            wallet_id: "w".to_owned(),
            tx_id: tx.to_owned(),
            tx: Some(b"hello".to_vec()),
            ..SignRequest::default()
        };
        client.sign_and_wait(request, PATIENCE).await.expect("a signature");
    }
    client.close().await;
    wait::until_sync("the counts", PATIENCE, || {
        let pages: Vec<String> =
            ports.iter().map(|(_, port)| get(*port, "/metrics").map(|(_, body)| body)).collect::<Result<_, _>>()?;
        let over_all = |series: &str| pages.iter().map(|page| sum(page, series)).sum::<f64>();
        let expected = [
            ("mpcium_requests_answered_total{kind=\"keygen\",code=\"success\"}", 1.0),
            ("mpcium_requests_answered_total{kind=\"sign\",code=\"success\"}", 2.0),
            ("mpcium_request_duration_seconds_count{kind=\"sign\",outcome=\"success\"}", 2.0),
            // Two sign, all three create.
            ("mpcium_sessions_ended_total{protocol=\"sign ed25519\",outcome=\"success\"}", 4.0),
            ("mpcium_wallets_activated_total", 3.0),
            ("mpcium_peer_up{", 6.0),
            ("mpcium_nodes_reachable", 9.0),
            ("mpcium_test_primes", 3.0),
            ("mpcium_queue_waiting{kind=\"sign\"}", 0.0),
            ("mpcium_nats_connects_total", 3.0),
        ];
        for (series, value) in expected {
            if over_all(series) != value {
                return Err(format!("{series} is {}, expected {value}, in:\n{}", over_all(series), pages.join("\n")));
            }
        }
        for page in &pages {
            if sum(page, "mpcium_store_bytes") <= 0.0 || sum(page, "process_resident_memory_bytes") <= 0.0 {
                return Err(page.clone());
            }
        }
        Ok(())
    })
    .await
    .expect("all is counted");

    let lost = cluster.nodes[2].name.clone();
    cluster.nodes[2].kill();
    wait::until_sync("the loss of a node in the numbers", PATIENCE, || {
        let page = get(metrics, "/metrics")?.1;
        let down = page.contains(&format!("mpcium_peer_up{{peer=\"{lost}\"}} 0"));
        let counted = page.contains(&format!("mpcium_link_down_total{{peer=\"{lost}\"}} 1"));
        if down && counted && sum(&page, "mpcium_nodes_reachable") == 2.0 { Ok(()) } else { Err(page) }
    })
    .await
    .expect("seen");
    assert_eq!(get(metrics, "/ready").expect("answered").0, 200, "two of three are enough");
}
