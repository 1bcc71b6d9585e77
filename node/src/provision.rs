//! Commands that prepare a cluster: peers, identities, initiators, authorizers, whole sets of configurations.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use mpcium_client::Prefix;
use mpcium_io::{
    consul::{KeyPrefix, Registration},
    notice::Notices,
};

use crate::{
    cli::{Clients, GenerateConfigs},
    config, discovery,
    files::{self, Algorithm, Overwrite},
    keys, passwords,
};

/// `generate-peers`.
///
/// # Errors
/// If the file exists or cannot be written.
pub fn generate_peers(number: u16, output: &Path) -> Result<(), String> {
    files::write_peers(output, &files::new_peers(number))?;
    println!("Successfully generated peers file at {} with {number} nodes", output.display());
    Ok(())
}

/// `register-peers`.
///
/// # Errors
/// If the file or the configuration cannot be used, Consul does not answer, or holds another id for a name.
pub async fn register_peers(config: Option<&Path>, peers: &Path, environment: Option<&str>) -> Result<(), String> {
    if peers.components().any(|part| part == Component::ParentDir) {
        return Err(format!("{}: a path with .. is not accepted", peers.display()));
    }
    if !matches!(environment, None | Some("" | "production" | "development")) {
        return Err("environment: expected production or development".to_owned());
    }
    let mut reader = config::open(config)?;
    let settings = config::consul(&mut reader);
    reader.finish().map_err(|errors| errors.to_string())?;
    let consul = discovery::consul(&settings, Notices::silent())?;
    for (name, id) in files::read_peers(peers)? {
        match consul.register_peer(&name, id).await.map_err(|error| error.to_string())? {
            Registration::New => println!("Registered peer {name} with ID {id} to Consul"),
            Registration::Known => println!("Peer {name} already registered with same ID {id}, skipping"),
        }
    }
    Ok(())
}

/// `generate-identity`.
///
/// # Errors
/// If the node is not in the peers file, or the files exist and may not be replaced.
pub fn generate_identity(
    node: &str,
    peers: &Path,
    folder: &Path,
    encrypt: bool,
    overwrite: bool,
) -> Result<(), String> {
    let known = files::read_peers(peers)?;
    let Some(id) = known.get(node) else {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        return Err(format!("{} does not name {node}; it names {}", peers.display(), names.join(", ")));
    };
    files::refuse_existing(&files::identity_files(folder, node, encrypt), permission(overwrite))?;
    let passphrase = passphrase(encrypt)?;
    files::write_identity(folder, node, &id.to_string(), passphrase.as_ref(), permission(overwrite))?;
    println!("Successfully generated identity files for {node}");
    Ok(())
}

/// `generate-initiator`.
///
/// # Errors
/// If the files exist and may not be replaced.
pub fn generate_initiator(
    name: &str,
    folder: &Path,
    algorithm: Algorithm,
    encrypt: bool,
    overwrite: bool,
) -> Result<(), String> {
    files::refuse_existing(&files::client_files(folder, name, encrypt), permission(overwrite))?;
    let passphrase = passphrase(encrypt)?;
    let public = files::write_initiator(folder, name, algorithm, passphrase.as_ref(), permission(overwrite))?;
    println!("Successfully generated initiator {name} ({})", algorithm.name());
    println!("event_initiator_pubkey: \"{public}\"");
    println!("event_initiator_algorithm: {}", algorithm.name());
    Ok(())
}

/// `generate-authorizer`.
///
/// # Errors
/// If the name has other characters than letters, digits, `_` and `-`, or the files exist and may not be replaced.
pub fn generate_authorizer(
    name: &str,
    folder: &Path,
    algorithm: Algorithm,
    encrypt: bool,
    overwrite: bool,
) -> Result<(), String> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return Err(format!("{name:?}: an authorizer's name consists of letters, digits, _ and -"));
    }
    files::refuse_existing(
        &files::client_files(folder, &files::authorizer_base(name), encrypt),
        permission(overwrite),
    )?;
    let passphrase = passphrase(encrypt)?;
    let public = files::write_authorizer(folder, name, algorithm, passphrase.as_ref(), permission(overwrite))?;
    println!("Successfully generated authorizer {name} ({})", algorithm.name());
    println!("public_key: \"{public}\"");
    Ok(())
}

/// `generate-configs`: one folder per node with everything that `mpcium start` wants to find in it.
///
/// # Errors
/// If the folder exists, the threshold is none, or a file cannot be written.
pub fn generate_configs(options: &GenerateConfigs) -> Result<(), String> {
    let root = &options.output_dir;
    if root.join("peers.json").exists() {
        return Err(format!("{} holds a cluster already; remove it first", root.display()));
    }
    check_prefixes(options)?;
    let nodes = usize::from(options.number);
    let threshold = options.threshold.unwrap_or(options.number / 2 + 1);
    config::settle(threshold, Some(config::Counting::Signers), nodes)?;
    let peers = files::new_peers(options.number);
    files::write_peers(&root.join("peers.json"), &peers)?;
    let initiator = files::write_initiator(root, "event_initiator", Algorithm::Ed25519, None, Overwrite::Refuse)?;
    let chain_code = hex::encode(keys::random_bytes::<32>()?);
    for (name, id) in &peers {
        let folder = root.join(name);
        files::write_peers(&folder.join("peers.json"), &peers)?;
        files::write_identity(&folder.join("identity"), name, id, None, Overwrite::Refuse)?;
        let config = node_config(options, threshold, &initiator, &chain_code, &random_password()?);
        files::write(&folder.join("config.yaml"), config.as_bytes(), Overwrite::Refuse)?;
    }
    share_identities(root, &peers)?;
    let config = client_config(options, threshold, &chain_code);
    files::write(&root.join("config.yaml"), config.as_bytes(), Overwrite::Refuse)?;
    println!(
        "{} holds {nodes} nodes, {threshold} of which sign together (ECDSA with {})",
        root.display(),
        options.ecdsa
    );
    Ok(())
}

/// Every node needs every other node's public identity, and so do clients that check who answers.
fn share_identities(root: &Path, peers: &BTreeMap<String, String>) -> Result<(), String> {
    let identities = |name: &str| -> PathBuf { root.join(name).join("identity") };
    for from in peers.keys() {
        let file = files::read(&files::identity_path(&identities(from), from))?;
        for to in peers.keys().filter(|to| *to != from) {
            files::write(&files::identity_path(&identities(to), from), &file, Overwrite::Refuse)?;
        }
        files::write(&files::identity_path(&root.join("identity"), from), &file, Overwrite::Refuse)?;
    }
    Ok(())
}

fn random_password() -> Result<String, String> {
    use base64::Engine as _;
    Ok(base64::engine::general_purpose::STANDARD_NO_PAD.encode(keys::random_bytes::<24>()?))
}

fn node_config(options: &GenerateConfigs, threshold: u16, initiator: &str, chain_code: &str, password: &str) -> String {
    format!(
        "# A node of a development cluster, made by `mpcium generate-configs`. All keys: config.yaml.template.\n\
         environment: development\n\
         {}\
         mpc_threshold: {threshold}\n\
         threshold_counts: signers\n\
         # How ECDSA signatures are made: dkls23 (milliseconds each) or cggmp24 (seconds each; the default of configurations\n\
         # that do not name one). The same at every node.\n\
         ecdsa_protocol: {}\n\
         event_initiator_pubkey: \"{initiator}\"\n\
         event_initiator_algorithm: ed25519\n\
         store_password: \"{password}\"\n\
         # The same at every node; child keys are derived with it.\n\
         chain_code: \"{chain_code}\"\n\
         # true: take only requests that carry a signature over every field, an id and an expiry. This project's clients\n\
         # send it, those of the Go system do not. The same at every node.\n\
         require_full_signature: {}\n\
         db_path: ./db\n\
         backup_enabled: false\n\
         max_concurrent_keygen: 2\n\
         max_concurrent_signing: 20\n",
        servers(options),
        options.ecdsa,
        options.clients == Clients::Full
    )
}

fn check_prefixes(options: &GenerateConfigs) -> Result<(), String> {
    let nats = options.nats_prefix.as_deref().unwrap_or_default();
    Prefix::parse(nats).map_err(|error| format!("--nats-prefix: {error}"))?;
    let consul = options.consul_prefix.as_deref().unwrap_or_default();
    KeyPrefix::parse(consul).map(drop).map_err(|error| format!("--consul-prefix: {error}"))
}

/// Where NATS and Consul are, and what is special there.
fn servers(options: &GenerateConfigs) -> String {
    let optional = |key: &str, value: &Option<String>| {
        value.as_ref().map_or_else(String::new, |value| format!("  {key}: {value}\n"))
    };
    [
        format!("nats:\n  url: {}\n", options.nats),
        optional("replicas", &options.nats_replicas),
        optional("prefix", &options.nats_prefix),
        format!("consul:\n  address: {}\n", options.consul),
        optional("prefix", &options.consul_prefix),
    ]
    .concat()
}

/// Enough for the commands that talk to the cluster from outside.
fn client_config(options: &GenerateConfigs, threshold: u16, chain_code: &str) -> String {
    format!(
        "# For clients: `mpcium wallet create`, `mpcium sign` and `mpcium register-peers` in this folder.\n\
         environment: development\n\
         {}\
         # With peers.json and identity/ beside this file: how many nodes must have signed an answer.\n\
         mpc_threshold: {threshold}\n\
         threshold_counts: signers\n\
         # As at the nodes: child keys follow from it and the wallet's public key.\n\
         chain_code: \"{chain_code}\"\n",
        servers(options)
    )
}

fn passphrase(encrypt: bool) -> Result<Option<crate::secret_text::SecretText>, String> {
    if encrypt {
        return passwords::prompt_new_passphrase().map(Some);
    }
    println!("WARNING: the private key is stored unencrypted; --encrypt protects it with a passphrase");
    Ok(None)
}

fn permission(overwrite: bool) -> Overwrite {
    if overwrite { Overwrite::Allow } else { Overwrite::Refuse }
}

#[cfg(test)]
mod tests {
    use mpcium_core::protocol::EcdsaProtocol;

    use super::*;

    fn options(folder: &Path) -> GenerateConfigs {
        GenerateConfigs {
            output_dir: folder.join("dev"),
            number: 3,
            threshold: None,
            ecdsa: EcdsaProtocol::Dkls23,
            clients: Clients::Existing,
            nats: "nats://127.0.0.1:4333,nats://127.0.0.1:4334".to_owned(),
            nats_replicas: Some("3".to_owned()),
            nats_prefix: Some("blue".to_owned()),
            consul_prefix: Some("teams/blue".to_owned()),
            consul: "127.0.0.1:8555".to_owned(),
        }
    }

    #[test]
    fn every_generated_folder_holds_what_a_node_needs() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let options = options(folder.path());
        generate_configs(&options).expect("generated");
        let mut passwords = Vec::new();
        let mut chain_codes = Vec::new();
        for name in ["node0", "node1", "node2"] {
            let home = options.output_dir.join(name);
            let path = home.join("config.yaml");
            let source = std::fs::read_to_string(&path).expect("config");
            let mut reader = config::Reader::new(&path, &source, &|_| None).expect("YAML");
            let settings = config::settings(&mut reader).expect("complete");
            assert_eq!(reader.warnings(), []);
            assert_eq!(settings.ecdsa_protocol, EcdsaProtocol::Dkls23);
            assert_eq!(settings.nats.urls, ["nats://127.0.0.1:4333", "nats://127.0.0.1:4334"]);
            assert_eq!((settings.nats.replicas, settings.nats.prefix.as_str()), (Some(3), "blue"));
            assert_eq!(settings.consul.prefix, KeyPrefix::parse("teams/blue").expect("a prefix"));
            let peers = files::read_peers(&home.join("peers.json")).expect("peers");
            let known = files::read_identities(&home.join("identity"), &peers).expect("identities");
            let me = known.iter().find(|peer| peer.name == name).expect("itself");
            files::read_identity(&home.join("identity"), me, None).expect("private key");
            let (core, remark) = settings.for_core(me.id, known.clone()).expect("fits");
            assert_eq!((core.threshold, core.peers.len(), remark), (2, 3, None));
            passwords.push(settings.store_password.expect("password").expose().to_owned());
            chain_codes.push(settings.chain_code.expect("chain code"));
        }
        passwords.sort();
        passwords.dedup();
        assert_eq!(passwords.len(), 3, "every store has a password of its own");
        chain_codes.dedup();
        assert_eq!(chain_codes.len(), 1, "all nodes share the chain code");
        assert!(generate_configs(&options).expect_err("exists").contains("holds a cluster already"));
    }

    #[test]
    fn clients_without_full_signatures_are_let_in_unless_they_are_not_wanted() {
        for (clients, demanded) in [(Clients::Existing, false), (Clients::Full, true)] {
            let folder = tempfile::tempdir().expect("temporary folder");
            let options = GenerateConfigs { clients, ..options(folder.path()) };
            generate_configs(&options).expect("generated");
            let mut reader = config::open(Some(&options.output_dir.join("node0/config.yaml"))).expect("YAML");
            let settings = config::settings(&mut reader).expect("complete");
            assert_eq!(settings.authorization.full_signature_required, demanded);
            assert!(reader.is_in_file("require_full_signature"));
        }
    }

    #[test]
    fn a_threshold_below_the_majority_is_not_generated() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let options = GenerateConfigs { threshold: Some(1), ..options(folder.path()) };
        assert!(generate_configs(&options).is_err());
        assert!(!options.output_dir.exists());
    }

    #[test]
    fn a_prefix_that_is_none_is_not_generated() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let bad = GenerateConfigs { nats_prefix: Some("a b".to_owned()), ..options(folder.path()) };
        assert!(generate_configs(&bad).expect_err("no prefix").starts_with("--nats-prefix: "));
        let bad = GenerateConfigs { consul_prefix: Some("/a".to_owned()), ..options(folder.path()) };
        assert!(generate_configs(&bad).expect_err("no prefix").starts_with("--consul-prefix: "));
    }

    #[test]
    fn the_template_names_every_key_and_nothing_else() {
        let source = include_str!("../../config.yaml.template");
        let mut reader = config::Reader::new(Path::new("config.yaml.template"), source, &|_| None).expect("YAML");
        assert_eq!(reader.warnings(), []);
        for key in config::KEYS.iter().filter(|key| **key != "badger_password") {
            let name = key.rsplit('.').next().expect("a name");
            assert!(source.contains(&format!("{name}:")), "{key} is not in the template");
        }
        // Only what the operator has to fill in is missing.
        let errors = config::settings(&mut reader).expect_err("incomplete");
        let keys: Vec<&str> = errors.0.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["event_initiator_pubkey"]);
    }

    #[test]
    fn authorizers_have_plain_names() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for name in ["", "a b", "a/b", "é"] {
            assert!(generate_authorizer(name, folder.path(), Algorithm::Ed25519, false, false).is_err());
        }
        generate_authorizer("a_B-9", folder.path(), Algorithm::Ed25519, false, false).expect("generated");
    }

    #[tokio::test]
    async fn peers_are_not_read_from_paths_that_climb() {
        let error = register_peers(None, Path::new("../peers.json"), None).await.expect_err("climbs");
        assert!(error.contains(".."));
    }
}
