//! The adapter against a real Consul.

use std::{collections::BTreeSet, time::Duration};

use mpcium_core::{Input, NodeId};
use reqwest::Method;

use super::{CALL_TIMEOUT, Consul, ConsulError, ConsulOptions, Registration};
use crate::{
    notice::Notices,
    ports::Inbox,
    test_servers::{PATIENCE, Server, eventually, heard, next_input},
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
