//! Clients of other makes, with every kind of initiator and with authorizers: clients with the habits of the Go system,
//! written in Go on the same libraries; the examples of the Rust client; keys in KMS.

use std::path::{Path, PathBuf};

use e2e::{
    cluster::Cluster,
    docs,
    go::Go,
    kms::{self, Kms},
    load::Asker,
    programs,
    servers::Servers,
    verify::Wallet,
    wait::{self, PATIENCE},
};
use mpcium_client::{
    KeyType,
    client::{Client, Options},
    kms::{KmsOptions, KmsSigner, StaticCredentials},
};
use serde_json::{Value, json};

use crate::world::{Outcome, World, check, words};

/// Scoped and shared answers, refusals, resharing, clients of two releases: what needs no auxiliary data.
pub async fn go_clients_are_served(world: &mut World) -> Outcome {
    let Some(go) = Go::find()? else { return Ok(()) };
    let where_it_is = whereabouts(&world.cluster, "ed25519", &world.cluster.initiator_key())?;
    let names = "TwoClients|WithoutAnId|NamedClient|Refusals|Reshare|OlderClient";
    go.test(&format!("^Test.*({names})"), &where_it_is).await?;
    let Some(system) = world.go_system(&go).await? else { return Ok(()) };
    system.test("^Test(Refusals|Reshare)", &where_it_is).await?;
    system.test_at_once("^TestSignsBeside", "^Test(SignsWithAnIdBeside|TwoClients)", &where_it_is).await
}

/// A wallet's keys and child keys on both curves.
pub async fn a_go_client_signs_on_both_curves(world: &mut World) -> Outcome {
    let Some(go) = Go::find()? else { return Ok(()) };
    world.cluster.provisioned().await?;
    let where_it_is = whereabouts(&world.cluster, "ed25519", &world.cluster.initiator_key())?;
    go.test("^Test(AWalletSignsOnBothCurves|ChildKeysSign)$", &where_it_is).await?;
    let Some(system) = world.go_system(&go).await? else { return Ok(()) };
    system.test("^TestAWalletSigns$", &where_it_is).await
}

/// An initiator with a key of P-256, in a file.
pub async fn a_go_client_signs_requests_with_p256(world: &mut World) -> Outcome {
    let Some(go) = Go::find()? else { return Ok(()) };
    let (key, public) = p256_initiator(&world.cluster)?;
    let where_it_is = whereabouts(&world.cluster, "p256", &key)?;
    reconfigured(
        world,
        |config| with_initiator(config, &public, "p256"),
        async |world| {
            let pattern = "^TestEveryFormOfTheInitiatorsKeySigns$";
            go.test(pattern, &where_it_is).await?;
            let Some(system) = world.go_system(&go).await? else { return Ok(()) };
            system.test(pattern, &where_it_is).await
        },
    )
    .await
}

/// An initiator whose key is in KMS: the walk-through of docs/kms.md to the letter, then the Rust client and a client in
/// Go with every way to name the key and to have credentials.
pub async fn initiators_keys_stay_in_kms(world: &mut World) -> Outcome {
    let kms = Kms::start(world.folder(), &[]).await?;
    let home = world.folder().join("walk-through");
    let link = |to: &Path, name: &str| {
        std::os::unix::fs::symlink(to, home.join(name)).map_err(|error| format!("{name}: {error}"))
    };
    std::fs::create_dir(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    link(&programs::project().join(".tools"), ".tools")?;
    link(&world.cluster.folder, "dev")?;
    let example = programs::example("kms")?.to_string_lossy().into_owned();
    let nats = world.cluster.nats_url().to_owned();
    let here = |commands: String| {
        commands
            .replace("http://localhost:4566", &kms.endpoint())
            .replace("nats://127.0.0.1:4222", &nats)
            .replace("cargo run -p mpcium-client --features kms --example kms --", &example)
    };

    let own = world.cluster.configurations()?;
    let before = here(docs::commands("kms.md", None, Some("### Start the nodes"))?);
    docs::follow(&home, &before, &[])?;
    let changed = world.cluster.configurations()?;
    world.cluster.restart_with(&changed).await?;
    let outcome = kms_serves(world, &kms, &home, here(docs::commands("kms.md", Some("### Start the nodes"), None)?));
    outcome.await.and(world.cluster.restart_with(&own).await)
}

/// The cluster has been told to serve the key of the walk-through.
async fn kms_serves(world: &mut World, kms: &Kms, home: &Path, rest: String) -> Outcome {
    let read = |name: &str| std::fs::read_to_string(home.join(name)).map_err(|error| format!("{name}: {error}"));
    let public = read("public-key.txt")?.trim().to_owned();
    let made: Value = serde_json::from_str(&read("key.json")?).map_err(|error| format!("key.json: {error}"))?;
    let text = |name: &str| made["KeyMetadata"][name].as_str().unwrap_or_default().to_owned();
    let (id, arn) = (text("KeyId"), text("Arn"));
    let preamble = format!("export PATH=\"$PWD/.tools/kms/bin:$PATH\" KMS_KEY_ID={id}\n");
    let printed = docs::follow(home, &(preamble + &rest), &[])?;
    for expected in [format!("event_initiator_pubkey: \"{public}\""), "kms-0: secp256k1 ".into(), "kms-1: ".into()] {
        check(printed.contains(&expected), || format!("expected {expected} in:\n{printed}"))?;
    }

    // Roles: of a profile, and of a web identity, both exchanged at the emulator of STS.
    let config = "[profile base]\naws_access_key_id = test\naws_secret_access_key = test\n\
                  [profile custody]\nrole_arn = arn:aws:iam::123456789012:role/custody\nsource_profile = base\n";
    let (config_file, token_file) = (home.join("config"), home.join("token"));
    std::fs::write(&config_file, config)
        .and_then(|()| std::fs::write(&token_file, "header.claims.signature"))
        .map_err(|error| format!("the files of a role: {error}"))?;
    let (config_file, token_file) = (config_file.to_string_lossy(), token_file.to_string_lossy());
    let endpoint = kms.endpoint();
    let everywhere = [("AWS_ENDPOINT_URL", endpoint.as_str()), ("AWS_EC2_METADATA_DISABLED", "true")];
    let profile = [("AWS_CONFIG_FILE", &*config_file), ("AWS_PROFILE", "custody")];
    let web = [("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod"), ("AWS_WEB_IDENTITY_TOKEN_FILE", &*token_file)];
    for (prefix, variables) in [("profile", profile), ("web", web)] {
        let arguments = ["--key", &arn, "--nats", world.cluster.nats_url(), "--prefix", prefix];
        let printed = programs::run_example(home, "kms", &arguments, &[everywhere, variables].concat())?;
        check(printed.contains(&format!("{prefix}-0: ")), || printed.clone())?;
    }

    let signer = KmsSigner::connect(KmsOptions {
        key_id: arn.clone(),
        endpoint: Some(kms.endpoint()),
        credentials: Some(StaticCredentials::new("test", "test")),
        ..KmsOptions::default()
    })
    .await
    .map_err(|error| error.to_string())?;
    check(signer.public_key_text() == public, || format!("another key: {}", signer.public_key_text()))?;
    let client = Client::new(world.cluster.nats().await?, signer, Options::default()).await.map_err(words)?;
    let wallet = client.create_wallet_and_wait("a wallet by KMS", PATIENCE).await.map_err(words)?;
    let asker = Asker { client, wallet: Wallet::new(&wallet)? };
    asker.sign_new(KeyType::Ed25519).await?;

    let Some(go) = Go::find()? else { return Ok(()) };
    let mut where_it_is = whereabouts(&world.cluster, "ed25519", &world.cluster.initiator_key())?;
    let keys = [id, arn, "alias/mpcium-signing-key".to_owned()];
    where_it_is["kms"] = json!({"endpoint": kms.endpoint(), "region": kms::REGION, "keys": keys});
    go.test("^TestAKeyServiceSigns$", &where_it_is).await?;
    let Some(system) = world.go_system(&go).await? else { return Ok(()) };
    system.test("^TestAKeyServiceSigns$", &where_it_is).await
}

/// The examples of the Rust client do what they say.
pub async fn the_examples_run(world: &mut World) -> Outcome {
    world.cluster.provisioned().await?;
    let cluster = &world.cluster;
    let run = |name: &str, more: &[&str]| {
        let arguments = [&["--nats", cluster.nats_url(), "--initiator", "event_initiator.key"], more].concat();
        programs::run_example(&cluster.folder, name, &arguments, &[])
    };
    let printed = run("create", &["--number", "2"])?;
    check(printed.lines().count() == 2 && printed.contains("example-1: secp256k1 "), || printed.clone())?;
    // Each verifies its signature before it shows it.
    let ethereum = run("sign_ethereum", &["--text", "hello"])?;
    check(ethereum.contains("address: 0x") && ethereum.contains("signature: 0x"), || ethereum.clone())?;
    check(run("sign_ethereum", &["--text", "hello"])? == ethereum, || "asked twice, signed twice".to_owned())?;
    let solana = run("sign_solana", &["--lamports", "5"])?;
    check(solana.contains("signature: "), || solana.clone())?;
    let children = run("child_keys", &["--chain-code", &cluster.setting("chain_code")?])?;
    check(children.contains("m/44/501/2/0: ") && children.contains("signature: "), || children.clone())?;
    let nodes = cluster.nodes.iter().map(|node| node.id.as_str()).collect::<Vec<_>>().join(",");
    match run("reshare", &["--nodes", &nodes]) {
        Ok(printed) => check(printed.contains("2 sign from now on"), || printed.clone()),
        // A cluster without resharing says so.
        Err(said) => check(said.contains("ERROR_RESHARE_FAILURE"), || said.clone()),
    }
}

/// Requests that authorizers have to approve, one of them with a name in upper case and a key of P-256.
pub async fn authorizers_approve_requests(world: &mut World) -> Outcome {
    let folder = world.cluster.folder.clone();
    let mut where_it_is = whereabouts(&world.cluster, "ed25519", &world.cluster.initiator_key())?;
    let mut authorizers = Vec::new();
    let mut settings = "\nauthorization:\n  enabled: true\n  required_authorizers: [alice, Bob]\n  \
                        authorizer_public_keys:\n"
        .to_owned();
    for (name, algorithm) in [("alice", "ed25519"), ("Bob", "p256")] {
        programs::run(&folder, &["generate-authorizer", "-n", name, "-a", algorithm, "-o", "."])?;
        let public = public_key(&folder.join(format!("{name}.authorizer.identity.json")))?;
        settings += &format!("    {name}:\n      public_key: \"{public}\"\n      algorithm: {algorithm}\n");
        let path = folder.join(format!("{name}.authorizer.key"));
        authorizers.push(format!("{name}={algorithm}:{}", path.display()));
        where_it_is["authorizers"][name] = json!({"Algorithm": algorithm, "Path": path});
    }
    // The initiator's key is one of P-256 the second time, with which clients of the Go system cannot have approvals.
    let (p256_key, p256) = p256_initiator(&world.cluster)?;
    let example = |world: &World, wallet: &str, algorithm: &str, key: &Path, authorizers: &str| {
        let (nats, key) = (world.cluster.nats_url(), key.to_string_lossy());
        let arguments = ["--nats", nats, "--initiator", &key, "--algorithm", algorithm, "--wallet", wallet];
        programs::run_example(&folder, "authorizers", &[&arguments[..], &["--authorizers", authorizers]].concat(), &[])
    };
    let change = |config: &str| config.to_owned() + &settings;
    reconfigured(world, change, async |world| {
        let key = world.cluster.initiator_key();
        example(world, "approved", "ed25519", &key, &authorizers.join(","))?;
        let refused = example(world, "refused", "ed25519", &key, &authorizers[0]);
        let expected = "missing required authorizer signature: Bob";
        check(refused.as_ref().is_err_and(|said| said.contains(expected)), || format!("{refused:?}"))?;
        let Some(go) = Go::find()? else { return Ok(()) };
        go.test("^TestAuthorizersApprove$", &where_it_is).await?;
        let Some(system) = world.go_system(&go).await? else { return Ok(()) };
        system.test("^TestAuthorizersApprove$", &where_it_is).await
    })
    .await?;
    let change = |config: &str| with_initiator(config, &p256, "p256") + &settings;
    reconfigured(world, change, async |world| {
        example(world, "approved again", "p256", &p256_key, &authorizers.join(",")).map(drop)
    })
    .await
}

/// A client that comes before every node makes the streams, with which the nodes then have to live.
pub async fn a_go_client_comes_before_the_nodes(world: &mut World) -> Outcome {
    let Some(go) = Go::find()? else { return Ok(()) };
    let folder = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let mut servers = Servers::new(folder.path())?;
    let mut cluster = Cluster::generate(
        folder.path(),
        world.cluster.nodes.len(),
        &servers,
        mpcium_core::protocol::EcdsaProtocol::Cggmp24,
        "",
    )?;
    servers.start().await?;
    cluster.register().await?;
    let nats = cluster.nats().await?;
    let where_it_is = whereabouts(&cluster, "ed25519", &cluster.initiator_key())?;
    let nodes = async {
        wait::until("the client to have asked", PATIENCE * 3, async || {
            let jetstream = async_nats::jetstream::new(nats.clone());
            let stream = jetstream.get_stream("mpc-keygen").await.map_err(|error| error.to_string())?;
            let asked = stream.get_info().await.map_err(|error| error.to_string())?.state.messages;
            if asked > 0 { Ok(()) } else { Err("nothing is in the queue".to_owned()) }
        })
        .await?;
        cluster.start()
    };
    let system = world.go_system(&go).await?;
    let client = async {
        let pattern = "^TestAClientThatComesBeforeTheNodes$";
        match &system {
            Some(system) => system.test(pattern, &where_it_is).await,
            None => go.test(pattern, &where_it_is).await,
        }
    };
    let (nodes, client) = futures::join!(nodes, client);
    nodes.and(client).map_err(|failure| format!("{failure}\n{}", cluster.logs(&servers)))
}

/// Where everything is, for the Go module.
fn whereabouts(cluster: &Cluster, algorithm: &str, key: &Path) -> Result<Value, String> {
    let ids: Vec<&str> = cluster.nodes.iter().map(|node| node.id.as_str()).collect();
    Ok(json!({
        "nats": cluster.nats_url(),
        "chain_code": cluster.setting("chain_code")?,
        "initiators": [{"Algorithm": algorithm, "Path": key}],
        "authorizers": {},
        "node_ids": ids,
    }))
}

/// The key file of an initiator with a key of P-256, made at the first call, and its public key.
fn p256_initiator(cluster: &Cluster) -> Result<(PathBuf, String), String> {
    let (key, identity) = (cluster.folder.join("p256.key"), cluster.folder.join("p256.identity.json"));
    if !key.exists() {
        programs::run(&cluster.folder, &["generate-initiator", "-n", "p256", "-a", "p256", "-o", "."])?;
    }
    Ok((key, public_key(&identity)?))
}

fn public_key(identity: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(identity).map_err(|error| format!("{}: {error}", identity.display()))?;
    let identity: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", identity.display()))?;
    identity["public_key"].as_str().map(str::to_owned).ok_or_else(|| format!("no public key in {identity}"))
}

/// A configuration that serves another initiator.
fn with_initiator(config: &str, public: &str, algorithm: &str) -> String {
    config
        .lines()
        .map(|line| match line.split_once(':') {
            Some(("event_initiator_pubkey", _)) => format!("event_initiator_pubkey: \"{public}\"\n"),
            Some(("event_initiator_algorithm", _)) => format!("event_initiator_algorithm: {algorithm}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

/// Restarts all nodes with other configurations for the time of `during`, and then with their own again.
pub async fn reconfigured(
    world: &mut World,
    change: impl Fn(&str) -> String,
    during: impl AsyncFnOnce(&mut World) -> Outcome,
) -> Outcome {
    let own = world.cluster.configurations()?;
    let changed: Vec<String> = own.iter().map(|config| change(config)).collect();
    let outcome = match world.cluster.restart_with(&changed).await {
        Ok(()) => during(world).await,
        Err(failure) => Err(failure),
    };
    outcome.and(world.cluster.restart_with(&own).await)
}
