//! The adapter against a real Consul.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use mpcium_core::{Input, NodeId};
use reqwest::Method;

use super::{CALL_TIMEOUT, Consul, ConsulError, ConsulOptions, ConsulTls, KeyPrefix, Registration};
use crate::{
    notice::Notices,
    ports::Inbox,
    test_servers::{Authority, PATIENCE, Server, eventually, heard, next_input},
};

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

async fn consul(server: &Server) -> Consul {
    let consul = Consul::new(ConsulOptions::new(format!("127.0.0.1:{}", server.port)), Notices::silent());
    let consul = consul.expect("good options");
    tokio::time::timeout(PATIENCE, consul.wait_for_leader()).await.expect("a leader in time");
    consul
}

#[tokio::test]
async fn a_peers_name_is_registered_once_and_never_changes_hands() {
    let server = Server::consul().started();
    let consul = consul(&server).await;
    assert_eq!(consul.register_peer("node0", id(1)).await, Ok(Registration::New));
    assert_eq!(consul.register_peer("node0", id(1)).await, Ok(Registration::Known));
    let error = consul.register_peer("node0", id(2)).await.expect_err("taken");
    assert!(matches!(&error, ConsulError::Conflict { found, .. } if *found == id(1).to_string()), "{error}");
    let raw = consul.get("mpc_peers/node0").await.expect("answers").expect("there");
    assert_eq!(raw, id(1).to_string().into_bytes(), "as text, without quotes");
    assert_eq!(consul.peers().await.expect("answers").into_iter().collect::<Vec<_>>(), [("node0".to_owned(), id(1))]);
}

#[tokio::test]
async fn clusters_with_different_prefixes_do_not_see_each_other() {
    let server = Server::consul().started();
    let plain = consul(&server).await;
    let with = |prefix: &str| {
        let mut options = ConsulOptions::new(format!("127.0.0.1:{}", server.port));
        options.prefix = KeyPrefix::parse(prefix).expect("a prefix");
        Consul::new(options, Notices::silent()).expect("good options")
    };
    let (blue, nested) = (with("blue"), with("teams/blue"));
    for (number, consul) in [&plain, &blue, &nested].into_iter().enumerate() {
        let id = id(u8::try_from(number).expect("a small number"));
        assert_eq!(consul.register_peer("node0", id).await, Ok(Registration::New));
        let peers: Vec<_> = consul.peers().await.expect("answers").into_iter().collect();
        assert_eq!(peers, [("node0".to_owned(), id)]);
    }
    assert_eq!(plain.get("teams/blue/mpc_peers/node0").await, Ok(Some(id(2).to_string().into_bytes())));
    let error = blue.register_peer("node0", id(9)).await.expect_err("taken");
    assert!(error.to_string().contains("remove blue/mpc_peers/node0 first"), "{error}");
    plain.put("threshold_keyinfo/ecdsa:w", r#"{"version":1}"#).await.expect("written");
    assert_eq!(blue.key_info("ecdsa", "w").await, Ok(None));

    let presence = blue.presence(id(1), "node0");
    presence.ready(true);
    let key = format!("blue/ready/{}", id(1));
    eventually("ready is shown", async || plain.get(&key).await.ok().flatten()).await;
    let health = plain.call(Method::GET, "health/service/blue-mpcium", None, CALL_TIMEOUT).await.expect("answers");
    assert!(String::from_utf8_lossy(&health.body).contains(&id(1).to_string()));
    let health = plain.call(Method::GET, "health/service/mpcium", None, CALL_TIMEOUT).await.expect("answers");
    assert_eq!(health.body.trim_ascii(), b"[]");
    presence.leave().await;
}

#[test]
fn a_prefix_of_keys_is_a_path_of_plain_names() {
    for good in ["", "blue", "teams/blue-2", "a.b_c"] {
        assert!(KeyPrefix::parse(good).is_ok(), "{good:?}");
    }
    for bad in ["/", "/a", "a/", "a//b", "a b", "..", "a/./b", "é", "mpc_peers", "a/ready/b", &"a".repeat(101)] {
        assert!(KeyPrefix::parse(bad).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn changes_of_the_register_reach_the_inbox_also_after_a_restart() {
    let mut server = Server::consul().started();
    let consul = consul(&server).await;
    let (inbox, mut events) = Inbox::new();
    let watching = tokio::spawn(consul.clone().watch_peers(inbox));
    assert!(matches!(next_input(&mut events).await, Input::Peers(peers) if peers.is_empty()));
    consul.register_peer("node0", id(2)).await.expect("registered");
    assert!(matches!(next_input(&mut events).await, Input::Peers(peers) if peers == [id(2)]));
    consul.put("mpc_peers/stranger", "no id").await.expect("written");

    server.stop();
    server.start();
    consul.wait_for_leader().await;
    eventually("writing works again", async || consul.register_peer("node1", id(1)).await.ok()).await;
    let after = next_input(&mut events).await;
    assert!(matches!(&after, Input::Peers(peers) if *peers == [id(1), id(2)]), "{after:?}");
    watching.abort();
}

#[tokio::test]
async fn a_node_is_seen_as_healthy_and_ready_until_it_leaves() {
    let server = Server::consul().started();
    let consul = consul(&server).await;
    let presence = consul.presence(id(1), "node0");
    let health = async || {
        let answer = consul.call(Method::GET, "health/service/mpcium?passing", None, CALL_TIMEOUT).await.ok()?;
        String::from_utf8(answer.body).ok()
    };
    eventually("the check passes", async || health().await.filter(|text| text.contains(&id(1).to_string()))).await;
    presence.ready(true);
    let key = format!("ready/{}", id(1));
    eventually("ready is shown", async || {
        consul.get(&key).await.ok().flatten().filter(|value| value.as_slice() == b"true")
    })
    .await;

    // An agent that forgot the service, as a replaced one does, hears of it again.
    let forget = format!("agent/service/deregister/mpcium-{}", id(1));
    consul.call(Method::PUT, &forget, None, CALL_TIMEOUT).await.expect("answers");
    eventually("it is registered again", async || health().await.filter(|text| text.contains(&id(1).to_string())))
        .await;

    presence.leave().await;
    assert_eq!(consul.get(&key).await, Ok(None));
    eventually("the service is gone", async || health().await.filter(|text| text.trim() == "[]")).await;
}

#[tokio::test]
async fn key_info_of_the_existing_system_is_read_under_both_names() {
    let server = Server::consul().started();
    let consul = consul(&server).await;
    let text = r#"{"participant_peer_ids":["a"],"threshold":1,"version":2}"#;
    consul.put("threshold_keyinfo/ecdsa:w 1", text).await.expect("written");
    consul.put("threshold_keyinfo/old", r#"{"threshold":1}"#).await.expect("written");
    let info = consul.key_info("ecdsa", "w 1").await.expect("answers").expect("there");
    assert_eq!((info.participant_peer_ids, info.threshold, info.version), (vec!["a".to_owned()], 1, 2));
    assert_eq!(consul.key_info("eddsa", "w 1").await, Ok(None));
    assert_eq!(consul.key_info("eddsa", "old").await.expect("answers").expect("there").version, 0);
}

#[tokio::test]
async fn the_existing_systems_wallets_reach_the_inbox_by_their_ids() {
    let server = Server::consul().started();
    let consul = consul(&server).await;
    consul.put("threshold_keyinfo/ecdsa:a/b:1", "{}").await.expect("written");
    consul.put("threshold_keyinfo/eddsa:a/b:1", "{}").await.expect("written");
    consul.put("threshold_keyinfo/old", "{}").await.expect("written");
    let (inbox, mut events) = Inbox::new();
    let watching = tokio::spawn(consul.clone().watch_wallets(inbox));
    let expected = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    let first = next_input(&mut events).await;
    assert!(matches!(&first, Input::WalletsElsewhere(all) if *all == expected(&["a/b:1", "old"])), "{first:?}");
    consul.put("threshold_keyinfo/ecdsa:new", "{}").await.expect("written");
    let then = next_input(&mut events).await;
    assert!(matches!(&then, Input::WalletsElsewhere(all) if *all == expected(&["a/b:1", "new", "old"])), "{then:?}");
    watching.abort();
    let (folder, wallets) = consul.wallets_elsewhere().await.expect("answers");
    assert_eq!((folder.as_str(), wallets), ("threshold_keyinfo/", expected(&["a/b:1", "new", "old"])));
}

/// What a node's token must allow.
const POLICY: &str = r#"
    key_prefix "mpc_peers/" { policy = "write" }
    key_prefix "ready/" { policy = "write" }
    key_prefix "threshold_keyinfo/" { policy = "read" }
    service "mpcium" { policy = "write" }
"#;

#[tokio::test]
async fn a_token_opens_a_consul_that_denies_by_default() {
    const MASTER: &str = "6d1c7d2b-8a5e-4b0e-9f6a-0d7f1f0a1c11";
    let server = Server::consul_that_denies(MASTER).started();
    let with = |token: Option<&str>| {
        let mut options = ConsulOptions::new(format!("127.0.0.1:{}", server.port));
        options.token = token.map(|token| token.to_owned().into());
        Consul::new(options, Notices::silent()).expect("good options")
    };
    let master = with(Some(MASTER));
    let make = async |path: &str, body: serde_json::Value| {
        let answer = master.call(Method::PUT, path, Some(body.to_string()), CALL_TIMEOUT).await.ok()?;
        serde_json::from_slice::<serde_json::Value>(&answer.expect_success(path).ok()?).ok()
    };
    let policy = serde_json::json!({"Name": "node", "Rules": POLICY});
    eventually("a policy", async || make("acl/policy", policy.clone()).await).await;
    let token = make("acl/token", serde_json::json!({"Policies": [{"Name": "node"}]})).await.expect("a token");
    let node = with(token["SecretID"].as_str());

    // All that a node does.
    assert_eq!(node.register_peer("node0", id(1)).await, Ok(Registration::New));
    assert_eq!(node.peers().await.expect("answers").len(), 1);
    assert_eq!(node.key_info("ecdsa", "w").await, Ok(None));
    assert_eq!(node.is_stranger().await, Ok(false));
    let presence = node.presence(id(1), "node0");
    presence.ready(true);
    let key = format!("ready/{}", id(1));
    eventually("ready is shown", async || node.get(&key).await.ok().flatten()).await;
    presence.leave().await;
    assert_eq!(node.get(&key).await, Ok(None));

    for (token, words) in [(None, "Permission denied"), (Some("11111111-2222-3333-4444-555555555555"), "ACL not found")]
    {
        let stranger = with(token);
        assert_eq!(stranger.is_stranger().await, Ok(true));
        let error = stranger.register_peer("node1", id(2)).await.expect_err("not allowed").to_string();
        assert!(error.contains(words) && error.contains("look at consul.token"), "{error}");
    }
    // Where nobody is asked for a token, nobody is a stranger.
    let open = Server::consul().started();
    assert_eq!(consul(&open).await.is_stranger().await, Ok(false));
}

/// Options for a Consul that speaks HTTPS.
fn over_https(server: &Server, tls: ConsulTls) -> ConsulOptions {
    ConsulOptions { tls, ..ConsulOptions::new(format!("https://127.0.0.1:{}", server.port)) }
}

#[tokio::test]
async fn https_is_spoken_with_an_authority_and_with_a_certificate_of_ones_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [authority, stranger] = ["authority", "stranger"].map(|name| Authority::new(folder.path(), name));
    let (certificate, key) = authority.issue(folder.path(), "server", "127.0.0.1");
    let client = authority.issue(folder.path(), "node", "node0");
    let trusted = Some(authority.certificate.clone());
    let authorities = folder.path().join("authorities");
    std::fs::create_dir_all(authorities.join("folder")).expect("a folder");
    for (name, from) in [("0.pem", &stranger), ("1.pem", &authority)] {
        std::fs::copy(&from.certificate, authorities.join(name)).expect("copied");
    }
    for (demands, client) in [(None, None), (Some(authority.certificate.as_path()), Some(client))] {
        let server = Server::consul_over_https(&certificate, &key, demands).started();
        let with = |authority: Option<PathBuf>, client: Option<(PathBuf, PathBuf)>| {
            Consul::new(over_https(&server, ConsulTls { authority, client }), Notices::silent()).expect("good files")
        };
        let consul = with(trusted.clone(), client.clone());
        tokio::time::timeout(PATIENCE, consul.wait_for_leader()).await.expect("a leader in time");
        assert_eq!(consul.register_peer("node0", id(1)).await, Ok(Registration::New));
        assert_eq!(consul.peers().await.expect("answers").len(), 1);

        // A folder with the right authority among others, as a machine's own.
        with(Some(authorities.clone()), client.clone()).leader().await.expect("trusted");

        let told = async |consul: Consul| consul.leader().await.expect_err("no way in").to_string();
        let error = told(with(Some(stranger.certificate.clone()), client.clone())).await;
        assert!(error.contains("consul.tls.ca_cert"), "{error}");
        if client.is_some() {
            let error = told(with(trusted.clone(), None)).await;
            assert!(error.contains("consul.tls.client_cert"), "{error}");
        }
    }
}

#[tokio::test]
async fn what_keeps_a_node_from_speaking_https_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "authority");
    let (certificate, key) = authority.issue(folder.path(), "server", "elsewhere.example");
    let tls = ConsulTls { authority: Some(authority.certificate.clone()), client: None };
    let told = async |server: Server| {
        let consul = Consul::new(over_https(&server, tls.clone()), Notices::silent()).expect("good files");
        consul.leader().await.expect_err("no way in").to_string()
    };
    let error = told(Server::consul_over_https(&certificate, &key, None).started()).await;
    assert!(error.contains("is for another host"), "{error}");
    let error = told(Server::consul().started()).await;
    assert!(error.contains("speaks plain HTTP"), "{error}");

    let garbage = folder.path().join("garbage.pem");
    std::fs::write(&garbage, "neither a certificate nor a key").expect("written");
    let missing = folder.path().join("missing.pem");
    for (bad, authority, client) in [
        (&garbage, Some(garbage.clone()), None),
        (&missing, Some(missing.clone()), None),
        (&garbage, None, Some((certificate.clone(), garbage.clone()))),
        (&garbage, None, Some((garbage.clone(), key.clone()))),
    ] {
        let options = ConsulOptions { tls: ConsulTls { authority, client }, ..ConsulOptions::new("https://h:1") };
        let error = Consul::new(options, Notices::silent()).expect_err("a bad file").to_string();
        assert!(error.contains(&bad.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_consul_that_is_not_there_is_waited_for_and_named() {
    let mut server = Server::consul();
    let (notices, texts) = heard();
    let address = format!("127.0.0.1:{}", server.port);
    let consul = Consul::new(ConsulOptions::new(&address), notices).expect("good options");
    let waiting = tokio::spawn(async move { consul.wait_for_leader().await });
    eventually("it says what it waits for", async || {
        let texts = texts.lock().expect("whole");
        texts.iter().any(|text| text.starts_with(&format!("waits for Consul at {address}"))).then_some(())
    })
    .await;
    server.start();
    tokio::time::timeout(PATIENCE + Duration::from_secs(10), waiting).await.expect("in time").expect("no panic");
}
