//! A folder as the Go system's operators have it, made by hand to the letter, starts with our program unchanged.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use e2e::{
    process::{Process, tail},
    programs,
    servers::Servers,
    wait::{self, PATIENCE},
};
use ed25519_dalek::SigningKey;
use mpcium_client::{
    SignRequest,
    auth::Algorithm,
    client::{Client, ClientId, Options},
    signer::LocalSigner,
};

use crate::left_behind;

const NODES: [&str; 3] = ["test_node0", "test_node1", "test_node2"];
const PASSPHRASE: &str = "a passphrase, long enough";

/// The configuration of that system's own tests, with its old names and its keys without meaning, unquoted as `sed`
/// leaves them there.
fn configuration(servers: &Servers, initiator: &str, environment: &str) -> String {
    format!(
        "nats:\n  url: nats://{}\nconsul:\n  address: {}\n\nmpc_threshold: 1\nmpcium_version: 0.3.5\n\
         environment: {environment}\nbadger_password: F)ysJp?E]ol&I;^k\nevent_initiator_pubkey: {initiator}\n\
         event_initiator_algorithm: ed25519\ndb_path: ./test_db\nbackup_enabled: true\nbackup_period_seconds: 300\n\
         backup_dir: ./backups\nmax_concurrent_keygen: 1\nmax_concurrent_signing: 10\nsession_warm_up_delay_ms: 500\n\
         chain_code: {}\nhealthcheck:\n  enabled: false\n  address: 0.0.0.0:8080\n",
        servers.nats.address(),
        servers.consul.address(),
        "0a44d75cc4284b13bd9e73d049803ca449158b9d5b17235832c49c002b3a59bb",
    )
}

/// Makes the folder of one node. The identity of the first is encrypted by `age`, as `--encrypt` does it.
fn node(root: &Path, name: &str, servers: &Servers, initiator: &str, keys: &[SigningKey], ids: &[String]) -> PathBuf {
    let home = root.join(name);
    let identity = home.join("identity");
    fs::create_dir_all(&identity).expect("folders");
    // One logs as in production; the others' line of readiness is what that system's tests wait for.
    let environment = if name == NODES[2] { "production" } else { "development" };
    let config = home.join("config.yaml");
    fs::write(&config, configuration(servers, initiator, environment)).expect("written");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).expect("permissions");
    let peers: Vec<String> = NODES.iter().zip(ids).map(|(name, id)| format!("  \"{name}\": \"{id}\"")).collect();
    fs::write(home.join("peers.json"), format!("{{\n{}\n}}", peers.join(",\n"))).expect("written");
    for ((other, key), id) in NODES.iter().zip(keys).zip(ids) {
        let public = hex::encode(key.verifying_key().as_bytes());
        let text = format!(
            "{{\n  \"node_name\": \"{other}\",\n  \"node_id\": \"{id}\",\n  \"public_key\": \"{public}\",\n  \
             \"created_at\": \"2025-08-01T09:30:00Z\"\n}}"
        );
        fs::write(identity.join(format!("{other}_identity.json")), text).expect("written");
        if *other == name {
            // The 64 bytes that Go calls the private key, in hexadecimal, without a newline.
            let text = hex::encode(key.to_keypair_bytes());
            let path = identity.join(format!("{name}_private.key"));
            if name == NODES[0] {
                let recipient = age::scrypt::Recipient::new(PASSPHRASE.to_owned().into());
                let sealed = age::encrypt(&recipient, text.as_bytes()).expect("encrypted");
                fs::write(path.with_extension("key.age"), sealed).expect("written");
                fs::write(home.join("passphrase"), format!("{PASSPHRASE}\n")).expect("written");
            } else {
                fs::write(&path, text).expect("written");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
            }
        }
    }
    fs::create_dir(home.join("backups")).expect("a folder");
    fs::write(home.join("backups/latest.version"), "{}").expect("written");
    // What its own database leaves at this place.
    let database = home.join("test_db").join(name);
    fs::create_dir_all(&database).expect("folders");
    for file in ["MANIFEST", "KEYREGISTRY", "000001.vlog", "DISCARD"] {
        fs::write(database.join(file), "not ours").expect("written");
    }
    home
}

fn start(home: &Path, name: &str) -> Process {
    let mut command = programs::command(&["start", "-n", name]).expect("the program");
    if name == NODES[0] {
        command.args(["--decrypt-private-key", "--identity-password-file", "passphrase"]);
    }
    Process::start(name, command, home, &home.join("stderr.log")).expect("started")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_the_go_system_starts_unchanged_and_serves_its_clients() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut servers = Servers::new(folder.path()).expect("servers");
    servers.start().await.expect("servers");
    let initiator = SigningKey::from_bytes(&[9; 32]);
    fs::write(folder.path().join("event_initiator.key"), hex::encode(initiator.as_bytes())).expect("written");
    let public = hex::encode(initiator.verifying_key().as_bytes());
    let keys: Vec<SigningKey> = (1..=3).map(|seed| SigningKey::from_bytes(&[seed; 32])).collect();
    let ids: Vec<String> = NODES.iter().map(|_| uuid::Uuid::new_v4().to_string()).collect();
    let homes: Vec<PathBuf> =
        NODES.iter().map(|name| node(folder.path(), name, &servers, &public, &keys, &ids)).collect();

    let registered = programs::run(&homes[0], &["register-peers"]);
    wait::until_sync("Consul to take the peers", PATIENCE, || programs::run(&homes[0], &["register-peers"]).map(drop))
        .await
        .unwrap_or_else(|error| panic!("{error}, {registered:?}"));
    let again = programs::run(&homes[1], &["-c", "config.yaml", "register-peers", "-p", "peers.json"]).expect("known");
    assert!(
        again.contains(&format!("Peer test_node0 already registered with same ID {}, skipping", ids[0])),
        "{again}"
    );

    left_behind::in_consul(&servers.consul.address(), &ids);
    left_behind::on_the_bus(&servers.nats.address(), &initiator).await.expect("as that system leaves it");

    let mut processes: Vec<Process> = homes.iter().zip(NODES).map(|(home, name)| start(home, name)).collect();
    for (home, process) in homes.iter().zip(&mut processes) {
        let log = home.join("stderr.log");
        let seen = wait::until_sync("the line that scripts wait for", PATIENCE, || {
            if let Some(status) = process.ended()? {
                return Ok(Err(format!("{status}: {}", tail(&log))));
            }
            let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
            if text.contains("[READY] Node is ready") { Ok(Ok(text)) } else { Err(text) }
        });
        let text = seen.await.expect("ready").expect("it runs");
        assert!(text.contains("read as the polynomial's degree"), "2 of 3, as that system's nodes would: {text}");
        assert!(text.contains("looks like a database of the Go system"), "{text}");
        assert!(!text.contains("no known key"), "every key of that system is known: {text}");
    }

    let nats = async_nats::connect(format!("nats://{}", servers.nats.address())).await.expect("connected");
    let signer = LocalSigner::read(Algorithm::Ed25519, &folder.path().join("event_initiator.key"), None).expect("key");
    let options = Options { client_id: ClientId::Named("e2e-suite".to_owned()), ..Options::default() };
    let client = Client::new(nats, signer, options).await.expect("a client");
    let wallet = client.create_wallet_and_wait("wallet", PATIENCE).await.expect("a wallet");
    assert_eq!(wallet.eddsa_pub_key.map(|key| key.len()), Some(32));
    let request = SignRequest {
        key_type: "ed25519".to_owned(),
        wallet_id: "wallet".to_owned(),
        network_internal_code: "test".to_owned(),
        tx_id: "tx".to_owned(),
        tx: Some(b"Hello, MPC World!".to_vec()),
        derivation_path: vec![44, 60, 0, 0, 1],
        ..SignRequest::default()
    };
    let signed = client.sign_and_wait(request, PATIENCE).await.expect("a signature");
    assert_eq!(signed.signature.map(|signature| signature.len()), Some(64));
    let refused = client.create_wallet_and_wait(left_behind::WALLET, PATIENCE).await;
    let refused = refused.expect_err("it is another system's").to_string();
    assert!(refused.starts_with("ERROR_KEY_ALREADY_EXISTS: ") && refused.contains("migrated"), "{refused}");
    // What came while nobody was there is answered, and nothing a second time.
    let made = wait::until("the wallet of the request that waited", PATIENCE, async || {
        client.wallet(left_behind::WAITING, PATIENCE).await.map_err(|error| error.to_string())
    });
    made.await.expect("made");
    let unknown = client.wallet(left_behind::ANSWERED, PATIENCE).await.expect_err("not asked for again").to_string();
    assert!(unknown.contains("ERROR_KEY_NOT_FOUND"), "{unknown}");
    client.close().await;
    doctor(&homes[1]);
    benchmark(folder.path(), &homes[1]);

    for (process, home) in processes.iter_mut().zip(&homes) {
        let status = process.stop(PATIENCE).await.expect("stopped");
        assert!(status.success(), "{status}: {}", tail(&home.join("stderr.log")));
    }
    for (home, name) in homes.iter().zip(NODES) {
        let log = fs::read_to_string(home.join("stderr.log")).expect("a log");
        assert!(log.contains("names wallets of the Go system (1)"), "{log}");
        assert_eq!(fs::read(home.join("backups/latest.version")).expect("left alone"), b"{}");
        let database = home.join("test_db").join(name);
        assert_eq!(fs::read_to_string(database.join("MANIFEST")).expect("left alone"), "not ours");
        assert_eq!(fs::read_dir(&database).expect("left alone").count(), 4);
        let mode =
            fs::metadata(home.join("test_db").join(format!("{name}.mpcium"))).expect("ours").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

/// `mpcium doctor` beside the running node names what is left of the other system, and that everybody may read the
/// password in its configuration.
fn doctor(home: &Path) {
    let mut command = programs::command(&["doctor", "-n", NODES[1]]).expect("the program");
    let output = command.current_dir(home).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    for part in [
        "threshold_keyinfo/ in Consul names wallets of the Go system (1)",
        "looks like a database of the Go system",
        "do: chmod 600 config.yaml",
    ] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
}

/// `mpcium-cli benchmark` in the way that scripts call it.
fn benchmark(folder: &Path, home: &Path) {
    let line = ["benchmark", "-c", "config.yaml", "--key-path", "../event_initiator.key", "sign-eddsa", "20", "wallet"];
    let said = programs::run(home, &line).expect("it runs");
    for part in [
        "EDDSA SIGNING BENCHMARK RESULTS SUMMARY",
        "Total requests sent: 20",
        "Successful completions: 20",
        "Success rate: 100.00%",
        "Median operation time: ",
        "10 REQUEST ANALYSIS",
        "Completed from first 10: 10/10",
    ] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    let kept = fs::read_to_string(home.join("benchmark/output.txt")).expect("the report is kept");
    assert!(kept.starts_with(&said) && kept.ends_with(&format!("{}\n", "=".repeat(80))), "{kept}");
    let json =
        ["benchmark", "--json", "--key-path", "../event_initiator.key", "sign-eddsa", "5", "nowhere", "-t", "20"];
    let error = programs::run(&folder.join("test_node1"), &json).expect_err("no such wallet");
    assert!(error.contains("ERROR_KEY_NOT_FOUND") && error.contains("no operation succeeded"), "{error}");
}
