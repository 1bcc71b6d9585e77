//! `mpcium doctor` finds nothing wrong where nothing is, and names every broken set-up.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use async_nats::jetstream::{self, stream};
use e2e::{
    cluster::{Cluster, Node},
    process::Process,
    programs,
    servers::{Servers, free_port},
    wait::{self, PATIENCE},
};
use serde_json::Value;

/// What the doctor says in `home`, and whether it is content.
fn doctor(home: &Path, variables: &[(&str, &str)]) -> (bool, Vec<Value>) {
    let mut command = programs::command(&["doctor", "-n", "node0", "--json"]).expect("the program");
    let output = command.current_dir(home).envs(variables.iter().copied()).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let document: Value = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error} in {said}{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(document["healthy"].as_bool(), Some(output.status.success()), "{said}");
    assert!(output.status.success() || output.status.code() == Some(1));
    (output.status.success(), document["checks"].as_array().cloned().expect("checks"))
}

#[track_caller]
fn content(home: &Path) -> Vec<Value> {
    let (healthy, checks) = doctor(home, &[]);
    assert!(healthy, "{checks:#?}");
    checks
}

/// The doctor fails this check, with these words, and says what to do.
#[track_caller]
fn finds(home: &Path, variables: &[(&str, &str)], check: &str, words: &str) {
    let (healthy, checks) = doctor(home, variables);
    let found = checks.iter().find(|one| {
        one["check"] == check && one["outcome"] == "failed" && one["found"].as_str().unwrap_or_default().contains(words)
    });
    let Some(found) = found else { panic!("no failed {check:?} with {words:?} in {checks:#?}") };
    assert!(!healthy && !found["do"].as_str().unwrap_or_default().is_empty(), "{found}");
}

#[track_caller]
fn outcome<'a>(checks: &'a [Value], check: &str) -> &'a str {
    let found = checks.iter().find(|one| one["check"] == check);
    found.and_then(|one| one["outcome"].as_str()).unwrap_or_else(|| panic!("no {check:?} in {checks:#?}"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        let kind = entry.file_type().expect("kind");
        if kind.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

/// A copy of the node's folder that may be broken.
fn patient(healthy: &Path, folder: &Path, name: &str) -> PathBuf {
    let home = folder.join(name);
    copy(healthy, &home);
    for part in ["db", "db/node0.mpcium"] {
        if home.join(part).exists() {
            fs::set_permissions(home.join(part), fs::Permissions::from_mode(0o700)).expect("permissions");
        }
    }
    home
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text.contains(from), "{from} in {text}");
    fs::write(path, text.replace(from, to)).expect("written");
}

struct World {
    folder: tempfile::TempDir,
    servers: Servers,
    cluster: Cluster,
}

async fn world() -> World {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut servers = Servers::new(folder.path()).expect("servers");
    servers.start().await.expect("servers");
    let cluster = Cluster::generate(folder.path(), 3, &servers, mpcium_core::protocol::EcdsaProtocol::Cggmp24, "")
        .expect("a cluster");
    cluster.register().await.expect("registered");
    World { folder, servers, cluster }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_node_is_found_healthy_before_its_first_start_while_it_runs_and_after() {
    let mut world = world().await;
    let home = world.cluster.nodes[0].home.clone();
    let before = content(&home);
    assert_eq!(outcome(&before, "store"), "ok");
    assert_eq!(outcome(&before, "registrations"), "ok");
    assert_eq!(outcome(&before, "permissions"), "ok");
    assert_eq!(outcome(&before, "streams"), "warning", "no node has made them yet");

    world.cluster.start().expect("started");
    if let Err(error) = world.cluster.ready().await {
        panic!("{error}\n{}", world.cluster.logs(&world.servers));
    }
    let running = content(&home);
    for check in ["readiness", "peers' answers", "streams", "clock", "Consul", "private key", "process"] {
        assert_eq!(outcome(&running, check), "ok", "{running:#?}");
    }
    assert_eq!(outcome(&running, "primes"), "warning", "they are published ones");

    for node in &mut world.cluster.nodes {
        node.stop().await.expect("stopped");
    }
    let after = content(&home);
    assert_eq!(outcome(&after, "store"), "ok");
    assert_eq!(outcome(&after, "auxiliary data"), "skipped");
    broken_stores(&world, &home);
}

/// What can be wrong with the store of a node that has run.
fn broken_stores(world: &World, healthy: &Path) {
    let home = patient(healthy, world.folder.path(), "password");
    let password = [("STORE_PASSWORD", "another one")];
    finds(&home, &password, "store", "password");

    let home = patient(healthy, world.folder.path(), "damage");
    fs::remove_file(home.join("db/node0.mpcium/store/integrity")).expect("removed");
    finds(&home, &[], "store", "integrity");

    let home = patient(healthy, world.folder.path(), "readable");
    fs::set_permissions(home.join("db/node0.mpcium"), fs::Permissions::from_mode(0o755)).expect("permissions");
    finds(&home, &[], "store", "can be used by others");

    let home = patient(healthy, world.folder.path(), "foreign");
    let store = home.join("db/node0.mpcium/store");
    fs::remove_dir_all(&store).expect("removed");
    fs::create_dir(&store).expect("made");
    fs::write(store.join("something"), "else").expect("written");
    finds(&home, &[], "store", "something");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_file_is_named() {
    let mut world = world().await;
    let healthy = world.cluster.nodes[0].home.clone();
    let folder = world.folder.path().to_owned();
    let broken = |name: &str| patient(&healthy, &folder, name);

    let home = broken("configuration");
    edit(&home.join("config.yaml"), "environment: development", "environment: staging");
    edit(&home.join("config.yaml"), "max_concurrent_keygen: 2", "max_concurrent_keygen: many");
    finds(&home, &[], "configuration", "config.yaml:2: environment: expected production or development");
    finds(&home, &[], "configuration", "max_concurrent_keygen: expected a whole number");

    let home = broken("none");
    fs::remove_file(home.join("config.yaml")).expect("removed");
    finds(&home, &[], "configuration", "no configuration file");

    let home = broken("shown");
    fs::set_permissions(home.join("config.yaml"), fs::Permissions::from_mode(0o644)).expect("permissions");
    finds(&home, &[], "configuration", "can be used by others");

    let home = broken("threshold");
    finds(&home, &[("MPC_THRESHOLD", "1")], "threshold", "between 2 and 3 nodes must sign together");

    let home = broken("peers");
    edit(&home.join("peers.json"), "node0", "nodeX");
    finds(&home, &[], "peers", "does not name node0");

    let home = broken("identity");
    fs::remove_file(home.join("identity/node2_identity.json")).expect("removed");
    finds(&home, &[], "identities", "node2_identity.json");

    let home = broken("id");
    let other = world.cluster.nodes[2].id.clone();
    edit(&home.join("identity/node1_identity.json"), &world.cluster.nodes[1].id, &other);
    finds(&home, &[], "identities", "but peers.json says");

    let home = broken("key");
    let stranger = world.cluster.nodes[1].home.join("identity/node1_private.key");
    fs::copy(stranger, home.join("identity/node0_private.key")).expect("copied");
    finds(&home, &[], "private key", "is not the private key of");

    let home = broken("open");
    let key = home.join("identity/node0_private.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("permissions");
    finds(&home, &[], "private key", "(mode 640)");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let variables = [("HEALTHCHECK_ENABLED", "true"), ("HEALTHCHECK_ADDRESS", address.as_str())];
    finds(&healthy, &variables, "addresses", &address);
    broken_servers(&mut world, &healthy).await;
}

/// What can be wrong with NATS and Consul.
async fn broken_servers(world: &mut World, home: &Path) {
    let nowhere = format!("127.0.0.1:{}", free_port().expect("a port"));
    finds(home, &[("NATS_URL", &nowhere)], "NATS", &nowhere);
    finds(home, &[("CONSUL_ADDRESS", &nowhere)], "Consul", "does not answer");

    let other = format!("{{\"node0\": \"{}\"}}", world.cluster.nodes[1].id);
    let strangers = world.folder.path().join("strangers");
    fs::create_dir(&strangers).expect("folder");
    fs::copy(home.join("config.yaml"), strangers.join("config.yaml")).expect("copied");
    fs::write(strangers.join("peers.json"), other).expect("written");
    let said = programs::run(&strangers, &["register-peers"]).expect_err("a conflict");
    assert!(said.contains("is registered with id"), "{said}");

    let nats = world.cluster.nats().await.expect("connected");
    let streams = jetstream::new(nats);
    let config = stream::Config {
        name: "mpc-signing".to_owned(),
        subjects: vec!["mpc.signing_request.*".to_owned()],
        retention: stream::RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    streams.create_stream(config).await.expect("made");
    finds(home, &[], "streams", "mpc-signing: retention WorkQueue");

    let folder = world.folder.path().join("plain");
    fs::create_dir(&folder).expect("folder");
    let (_plain, url) = nats_server(&folder, "").await;
    finds(home, &[("NATS_URL", &url)], "JetStream", "stream");

    let folder = world.folder.path().join("strict");
    fs::create_dir(&folder).expect("folder");
    let rights = format!(
        "jetstream {{ store_dir: {:?} }}\nauthorization {{ users: [ {{ user: node, password: secret, permissions: {{\n\
         publish: [\"$JS.API.>\", \"mpc.mpc_keygen_result.>\"], subscribe: [\"_INBOX_mpcium.>\"] }} }} ] }}\n",
        folder.join("data")
    );
    let (_strict, url) = nats_server(&folder, &rights).await;
    let variables = [("NATS_URL", url.as_str()), ("NATS_USERNAME", "node"), ("NATS_PASSWORD", "secret")];
    finds(home, &variables, "permissions", "mpcium.peer");
    finds(home, &variables, "permissions", "mpc.mpc_signing_result.doctor");
    let variables = [("NATS_URL", url.as_str()), ("NATS_USERNAME", "node"), ("NATS_PASSWORD", "wrong")];
    finds(home, &variables, "NATS", "uthorization");
}

/// A NATS server with a configuration of its own.
async fn nats_server(folder: &Path, configuration: &str) -> (Process, String) {
    let port = free_port().expect("a port");
    let path = folder.join("nats.conf");
    fs::write(&path, configuration).expect("written");
    let mut command = Command::new(programs::server("nats-server").expect("installed"));
    command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-c"]).arg(&path);
    let process = Process::start("nats-server", command, folder, &folder.join("nats.log")).expect("started");
    wait::until_sync("another nats-server", PATIENCE, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
    })
    .await
    .expect("it listens");
    (process, format!("nats://127.0.0.1:{port}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_waits_is_named_with_what_it_waits_for() {
    let mut world = world().await;
    let home = world.cluster.nodes[0].home.clone();
    world.cluster.nodes[0].start().expect("started");
    let node: &Node = &world.cluster.nodes[0];
    wait::until_sync("the node's own view", PATIENCE, || {
        let status = node.status()?;
        if status["node"].is_object() { Ok(()) } else { Err(status.to_string()) }
    })
    .await
    .expect("it runs");
    finds(&home, &[], "readiness", "node1");
    let (_, checks) = doctor(&home, &[]);
    assert_eq!(outcome(&checks, "peers' answers"), "warning");
}
