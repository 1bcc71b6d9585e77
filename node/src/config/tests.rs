//! Every key, every override, all errors at once.

use super::*;

const ED25519_KEY: &str = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
const P256_KEY: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200\
    04515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354";

const FULL: &str = r#"environment: development
nats:
  url: nats://a:4222
  urls: [nats://b:4222, nats://a:4222]
  replicas: 3
  prefix: eu.blue
  idle_consumer_days: 30
  username: user
  password: pass
  credentials: node.creds
  tls:
    client_cert: c.pem
    client_key: k.pem
    ca_cert: ca.pem
consul:
  address: localhost:8500
  username: cu
  password: cp
  token: ct
  prefix: teams/blue
mpc_threshold: 2
threshold_counts: signers
store_password: secret one
event_initiator_pubkey: "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
event_initiator_algorithm: ed25519
chain_code: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
db_path: ./data
backup_enabled: false
max_concurrent_keygen: 3
max_concurrent_signing: 11
presignatures: 3
healthcheck:
  enabled: true
  address: 127.0.0.1:8081
metrics:
  enabled: true
  address: 127.0.0.1:9001
authorization:
  enabled: true
  required_authorizers: [Alice]
  authorizer_public_keys:
    Alice:
      public_key: 3059301306072a8648ce3d020106082a8648ce3d03010703420004515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354
      algorithm: p256
workers: 4
signing_deadline_seconds: 60
keygen_deadline_seconds: 600
clock_skew_seconds: 2
require_full_signature: false
"#;

const MINIMAL: &str = "environment: production\nnats: {url: nats://a:4222}\nconsul: {address: localhost:8500}\n\
                       mpc_threshold: 1\nbadger_password: '0123456789abcdef'\nevent_initiator_pubkey: 03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8\n";

fn reader(source: &str, variables: &[(&str, &str)]) -> Reader {
    let variables: Vec<(String, String)> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Reader::new(Path::new("config.yaml"), source, &move |name| {
        variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    })
    .expect("valid YAML")
}

fn read(source: &str, variables: &[(&str, &str)]) -> Settings {
    settings(&mut reader(source, variables)).expect("valid configuration")
}

fn problems(source: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let errors = settings(&mut reader(source, variables)).expect_err("invalid configuration");
    errors.0.iter().map(ToString::to_string).collect()
}

#[test]
fn every_key_of_the_file_is_read() {
    let settings = read(FULL, &[]);
    assert_eq!(settings.environment, Environment::Development);
    assert_eq!(settings.nats.urls, ["nats://a:4222", "nats://b:4222"]);
    assert_eq!((settings.nats.replicas, settings.nats.prefix.as_str()), (Some(3), "eu.blue"));
    assert_eq!(settings.nats.idle_consumers, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(settings.consul.prefix, KeyPrefix::parse("teams/blue").expect("a prefix"));
    assert_eq!(settings.nats.username.as_deref(), Some("user"));
    assert_eq!(settings.nats.password, Some(SecretText::new("pass".to_owned())));
    assert_eq!(settings.nats.credentials, Some(PathBuf::from("node.creds")));
    assert_eq!(settings.nats.client_certificate, Some((PathBuf::from("c.pem"), PathBuf::from("k.pem"))));
    assert_eq!(settings.nats.root_certificates, Some(PathBuf::from("ca.pem")));
    assert_eq!(settings.consul.address, "localhost:8500");
    assert_eq!(settings.consul.username.as_deref(), Some("cu"));
    assert_eq!(settings.consul.password, Some(SecretText::new("cp".to_owned())));
    assert_eq!(settings.consul.token, Some(SecretText::new("ct".to_owned())));
    assert_eq!((settings.threshold, settings.threshold_counts), (2, Some(Counting::Signers)));
    assert_eq!(settings.store_password, Some(SecretText::new("secret one".to_owned())));
    assert_eq!(settings.initiator, InitiatorKey::parse("ed25519", ED25519_KEY).expect("key"));
    assert_eq!(settings.chain_code.map(|code| (code[0], code[31])), Some((0, 31)));
    assert_eq!(settings.db_path, PathBuf::from("./data"));
    assert_eq!((settings.max_concurrent_keygen, settings.max_concurrent_signing), (3, 11));
    assert_eq!(settings.presignatures, 3);
    assert_eq!(settings.healthcheck.as_deref(), Some("127.0.0.1:8081"));
    assert_eq!(settings.metrics.as_deref(), Some("127.0.0.1:9001"));
    assert!(settings.authorization.enabled);
    assert_eq!(settings.authorization.required, ["Alice"]);
    let alice = AuthorizerKey::parse("p256", P256_KEY).expect("key");
    assert_eq!(settings.authorization.keys, BTreeMap::from([("Alice".to_owned(), alice)]));
    assert_eq!(settings.workers, 4);
    assert_eq!((settings.signing_deadline.as_secs(), settings.keygen_deadline.as_secs()), (60, 600));
    assert_eq!(settings.clock_skew.as_secs(), 2);
    assert_eq!(reader(FULL, &[]).warnings(), []);
}

#[test]
fn an_authorization_that_asks_nobody_is_warned_about() {
    let warnings = |source: &str, variables: &[(&str, &str)]| {
        let mut reader = reader(source, variables);
        settings(&mut reader).expect("it goes on working");
        reader.warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let nobody = format!("{MINIMAL}authorization: {{enabled: true, required_authorizers: []}}\n");
    let got = warnings(&nobody, &[]);
    assert!(matches!(got.as_slice(), [one] if one.contains("authorization.enabled: NOBODY HAS TO APPROVE")), "{got:?}");
    let got = warnings(FULL, &[("AUTHORIZATION_ENABLED", "false")]);
    let named = |one: &String| one.contains("required_authorizers: NOBODY HAS TO APPROVE: it names Alice");
    assert!(matches!(got.as_slice(), [one] if named(one)), "{got:?}");
    let off = format!("{MINIMAL}authorization: {{enabled: false, required_authorizers: []}}\n");
    assert_eq!(warnings(&off, &[]), Vec::<String>::new());
}

#[test]
fn what_the_environment_says_is_known_by_the_names_of_its_variables() {
    assert_eq!(reader(FULL, &[]).variables_used(), Vec::<&str>::new());
    let variables = [("DB_PATH", "/elsewhere"), ("NATS_URL", "nats://c:4222"), ("UNRELATED", "x")];
    assert_eq!(reader(MINIMAL, &variables).variables_used(), ["DB_PATH", "NATS_URL"]);
    assert!(reader(MINIMAL, &[]).holds_password());
    let without = MINIMAL.replace("badger_password: '0123456789abcdef'\n", "");
    assert!(!reader(&without, &[("STORE_PASSWORD", "secret")]).holds_password());
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let settings = read(MINIMAL, &[]);
    assert_eq!(settings.environment, Environment::Production);
    assert_eq!(settings.store_password, Some(SecretText::new("0123456789abcdef".to_owned())));
    assert_eq!(settings.chain_code, None);
    assert_eq!(settings.db_path, PathBuf::from("./db"));
    assert_eq!((settings.max_concurrent_keygen, settings.max_concurrent_signing), (2, 20));
    assert_eq!(settings.presignatures, 0, "none are made unless somebody wants them");
    assert_eq!((settings.signing_deadline.as_secs(), settings.keygen_deadline.as_secs()), (180, 900));
    assert_eq!((settings.healthcheck, settings.metrics), (None, None));
    assert!(!settings.authorization.enabled);
    assert_eq!(settings.threshold_counts, None);
    assert_eq!((settings.nats.replicas, settings.nats.prefix.as_str()), (None, ""));
    assert_eq!(settings.nats.idle_consumers, Some(Duration::from_secs(90 * 86_400)));
    assert!(settings.workers >= 1);
}

#[test]
fn an_environment_variable_overrides_every_key_even_one_that_the_file_lacks() {
    let code = "ff".repeat(32);
    let variables: Vec<(&str, &str)> = vec![
        ("ENVIRONMENT", "production"),
        ("NATS_URL", "nats://x:1, nats://y:2"),
        ("NATS_URLS", "nats://y:2,nats://z:3"),
        ("NATS_REPLICAS", "5"),
        ("NATS_PREFIX", "green"),
        ("NATS_IDLE_CONSUMER_DAYS", "0"),
        ("NATS_USERNAME", "U"),
        ("NATS_PASSWORD", "P"),
        ("NATS_CREDENTIALS", "E.creds"),
        ("NATS_TLS_CLIENT_CERT", "C"),
        ("NATS_TLS_CLIENT_KEY", "K"),
        ("NATS_TLS_CA_CERT", "R"),
        ("CONSUL_ADDRESS", "h:1"),
        ("CONSUL_USERNAME", "CU"),
        ("CONSUL_PASSWORD", "CP"),
        ("CONSUL_TOKEN", "CT"),
        ("CONSUL_PREFIX", "teams/green"),
        ("CONSUL_TLS_CLIENT_CERT", "CC"),
        ("CONSUL_TLS_CLIENT_KEY", "CK"),
        ("CONSUL_TLS_CA_CERT", "CR"),
        ("MPC_THRESHOLD", "5"),
        ("THRESHOLD_COUNTS", "degree"),
        ("STORE_PASSWORD", "S"),
        ("BADGER_PASSWORD", "S"),
        ("EVENT_INITIATOR_PUBKEY", P256_KEY),
        ("EVENT_INITIATOR_ALGORITHM", "p256"),
        ("CHAIN_CODE", &code),
        ("DB_PATH", "/d"),
        ("MAX_CONCURRENT_KEYGEN", "7"),
        ("MAX_CONCURRENT_SIGNING", "8"),
        ("PRESIGNATURES", "5"),
        ("HEALTHCHECK_ENABLED", "true"),
        ("HEALTHCHECK_ADDRESS", ":9"),
        ("METRICS_ENABLED", "yes"),
        ("METRICS_ADDRESS", "[::1]:9"),
        ("AUTHORIZATION_ENABLED", "false"),
        ("AUTHORIZATION_REQUIRED_AUTHORIZERS", "a,b"),
        ("WORKERS", "9"),
        ("SIGNING_DEADLINE_SECONDS", "10"),
        ("KEYGEN_DEADLINE_SECONDS", "11"),
        ("CLOCK_SKEW_SECONDS", "12"),
        ("REQUIRE_FULL_SIGNATURE", "false"),
        ("ECDSA_PROTOCOL", "dkls23"),
        ("BACKUP_ENABLED", "false"),
    ];
    let covered = |key: &&str| variables.iter().any(|(name, _)| *name == reader::variable_name(key));
    let missed: Vec<&&str> = KEYS.iter().filter(|key| !covered(key)).collect();
    assert_eq!(missed, [&"backup_period_seconds", &"backup_dir"], "keys that this test forgets");
    for source in ["", "# empty\n", FULL] {
        let settings = read(source, &variables);
        assert_eq!(settings.environment, Environment::Production);
        assert_eq!(settings.nats.urls, ["nats://x:1", "nats://y:2", "nats://z:3"]);
        assert_eq!((settings.nats.replicas, settings.nats.prefix.as_str()), (Some(5), "green"));
        assert_eq!(settings.nats.idle_consumers, None);
        assert_eq!(settings.consul.prefix, KeyPrefix::parse("teams/green").expect("a prefix"));
        assert_eq!(settings.nats.username.as_deref(), Some("U"));
        assert_eq!(settings.nats.password, Some(SecretText::new("P".to_owned())));
        assert_eq!(settings.nats.credentials, Some(PathBuf::from("E.creds")));
        assert_eq!(settings.nats.client_certificate, Some((PathBuf::from("C"), PathBuf::from("K"))));
        assert_eq!(settings.nats.root_certificates, Some(PathBuf::from("R")));
        assert_eq!(settings.consul.address, "h:1");
        assert_eq!(settings.consul.username.as_deref(), Some("CU"));
        assert_eq!(settings.consul.password, Some(SecretText::new("CP".to_owned())));
        assert_eq!(settings.consul.token, Some(SecretText::new("CT".to_owned())));
        assert_eq!(settings.consul.tls.client, Some((PathBuf::from("CC"), PathBuf::from("CK"))));
        assert_eq!(settings.consul.tls.authority, Some(PathBuf::from("CR")));
        assert_eq!((settings.threshold, settings.threshold_counts), (5, Some(Counting::Degree)));
        assert_eq!(settings.store_password, Some(SecretText::new("S".to_owned())));
        assert_eq!(settings.initiator, InitiatorKey::parse("p256", P256_KEY).expect("key"));
        assert_eq!(settings.chain_code, Some([0xff; 32]));
        assert_eq!(settings.db_path, PathBuf::from("/d"));
        assert_eq!((settings.max_concurrent_keygen, settings.max_concurrent_signing), (7, 8));
        assert_eq!(settings.presignatures, 5);
        assert_eq!(settings.healthcheck.as_deref(), Some(":9"));
        assert_eq!(settings.metrics.as_deref(), Some("[::1]:9"));
        assert!(!settings.authorization.enabled);
        assert_eq!(settings.authorization.required, ["a", "b"]);
        assert_eq!(settings.workers, 9);
        assert_eq!(settings.signing_deadline.as_secs(), 10);
        assert_eq!(settings.keygen_deadline.as_secs(), 11);
        assert_eq!(settings.ecdsa_protocol, EcdsaProtocol::Dkls23);
        assert_eq!(settings.clock_skew.as_secs(), 12);
    }
}

#[test]
fn full_signatures_are_required_where_the_file_or_the_environment_says_so() {
    assert!(!read(MINIMAL, &[]).authorization.full_signature_required);
    let source = format!("{MINIMAL}require_full_signature: true\n");
    assert!(read(&source, &[]).authorization.full_signature_required);
    assert!(read(MINIMAL, &[("REQUIRE_FULL_SIGNATURE", "true")]).authorization.full_signature_required);
}

#[test]
fn an_authorizer_may_be_told_by_variables_alone() {
    let variables = [
        ("AUTHORIZATION_ENABLED", "true"),
        ("AUTHORIZATION_REQUIRED_AUTHORIZERS", "Alice,ops-2"),
        ("AUTHORIZATION_AUTHORIZER_PUBLIC_KEYS_ALICE_PUBLIC_KEY", P256_KEY),
        ("AUTHORIZATION_AUTHORIZER_PUBLIC_KEYS_ALICE_ALGORITHM", "p256"),
        ("AUTHORIZATION_AUTHORIZER_PUBLIC_KEYS_OPS_2_PUBLIC_KEY", ED25519_KEY),
    ];
    let settings = read(MINIMAL, &variables);
    assert_eq!(settings.authorization.required, ["Alice", "ops-2"]);
    let alice = AuthorizerKey::parse("p256", P256_KEY).expect("key");
    let ops = AuthorizerKey::parse("ed25519", ED25519_KEY).expect("key");
    assert_eq!(settings.authorization.keys, BTreeMap::from([("Alice".to_owned(), alice), ("ops-2".to_owned(), ops)]));
    // And a variable wins over the file for one that stands there.
    let other = [("AUTHORIZATION_AUTHORIZER_PUBLIC_KEYS_ALICE_ALGORITHM", "ed25519")];
    assert!(problems(FULL, &other)[0].contains("public_key"), "the file's key is a P-256 key");
}

#[test]
fn servers_are_named_by_either_key_and_variables_win_over_both() {
    let urls = |source: &str, variables: &[(&str, &str)]| read(&format!("{MINIMAL}{source}"), variables).nats.urls;
    assert_eq!(urls("", &[("NATS_URLS", "nats://b:1,nats://c:1")]), ["nats://b:1", "nats://c:1"]);
    assert_eq!(read(FULL, &[("NATS_URL", "nats://x:1")]).nats.urls, ["nats://x:1"]);
    let only_new = MINIMAL.replace("{url: nats://a:4222}", "{urls: [nats://b:1, nats://c:1]}");
    assert_eq!(read(&only_new, &[]).nats.urls, ["nats://b:1", "nats://c:1"]);
}

#[test]
fn streams_have_an_odd_number_of_replicas() {
    let found = problems(MINIMAL, &[("NATS_REPLICAS", "2")]);
    assert_eq!(found, ["environment variable NATS_REPLICAS: nats.replicas: expected 1 or 3 or 5, got \"2\""]);
}

#[test]
fn prefixes_are_checked() {
    let found = problems(MINIMAL, &[("NATS_PREFIX", "a..b"), ("CONSUL_PREFIX", "/a")]);
    assert!(found[0].starts_with("environment variable NATS_PREFIX: nats.prefix: expected parts of"), "{found:?}");
    assert!(found[1].starts_with("environment variable CONSUL_PREFIX: consul.prefix: expected at most"), "{found:?}");
}

#[test]
fn zero_at_once_means_the_default_as_it_always_did() {
    let source = format!("{MINIMAL}max_concurrent_signing: 0\nmax_concurrent_keygen: 0\n");
    let mut reader = reader(&source, &[]);
    let settings = settings(&mut reader).expect("valid configuration");
    assert_eq!((settings.max_concurrent_keygen, settings.max_concurrent_signing), (2, 20));
    assert_eq!(reader.warnings().len(), 2);
}

#[test]
fn the_documentation_names_every_key() {
    let text = include_str!("../../../docs/operations.md");
    for key in KEYS {
        // A row may hold several keys, the later ones by their last parts.
        let short = key.rsplit_once('.').map_or(*key, |(_, last)| last);
        let named = text.contains(&format!("`{key}`")) || text.contains(&format!("`.{short}`"));
        assert!(named, "{key} is not in docs/operations.md");
    }
}

#[test]
fn a_file_of_another_format_is_refused_by_its_name() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("config.toml");
    std::fs::write(&path, "environment = 'production'").expect("file");
    assert!(open(Some(&path)).expect_err("TOML").contains(".toml is another format"));
}

#[test]
fn an_empty_variable_changes_nothing() {
    assert_eq!(read(FULL, &[("NATS_USERNAME", "")]).nats.username.as_deref(), Some("user"));
}

#[test]
fn all_problems_are_reported_at_once_with_their_places() {
    let source = "environment: staging\nnats:\n  password: x\nmpc_threshold: two\nchain_code: abc\n\
                  event_initiator_pubkey: zz\nstore_password: a\nbadger_password: b\n";
    let problems = problems(source, &[("WORKERS", "many")]);
    let expected = [
        "config.yaml:1: environment: expected production or development, got \"staging\"",
        "config.yaml: nats.url: is required (in the file, or as environment variable NATS_URL)",
        "config.yaml:3: nats.password: needs nats.username beside it",
        "config.yaml: consul.address: is required (in the file, or as environment variable CONSUL_ADDRESS)",
        "config.yaml:4: mpc_threshold: expected a whole number from 0 to 1024, got \"two\"",
        "config.yaml:8: badger_password: differs from store_password, its new name; keep one of them",
        "config.yaml:6: event_initiator_pubkey: not a public key: expected 64 hexadecimal digits \
         (event_initiator_algorithm is ed25519)",
        "config.yaml:5: chain_code: expected 64 hexadecimal digits, got 3 characters",
        "environment variable WORKERS: workers: expected a whole number from 1 to 1024, got \"many\"",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    let reader = reader("mpc_treshold: 2\nnats:\n  uri: x\nsession_warm_up_delay_ms: 5\n", &[]);
    let warnings: Vec<String> = reader.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "config.yaml:1: mpc_treshold: mpc_treshold is no known key and has no effect; did you mean mpc_threshold?",
            "config.yaml:3: nats.uri: nats.uri is no known key and has no effect; did you mean nats.url?",
        ]
    );
}

#[test]
fn a_required_authorizer_without_a_key_is_an_error() {
    let source = format!("{MINIMAL}authorization:\n  enabled: true\n  required_authorizers: [bob]\n");
    assert!(problems(&source, &[])[0].contains("bob has no key"));
}

#[test]
fn secrets_are_not_printed() {
    let printed = format!("{:?}", read(FULL, &[]));
    for secret in ["secret one", "pass\"", "\"cp\"", "\"ct\""] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
}

#[test]
fn the_search_names_every_place() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let error = find(Some(&folder.path().join("none.yaml")), None).expect_err("nothing there");
    assert!(error.contains("none.yaml"));
    let home = folder.path().join(".mpcium");
    std::fs::create_dir(&home).expect("folder");
    std::fs::write(home.join("config.yaml"), "").expect("file");
    // The package folder holds no config.yaml; /etc/mpcium may exist on somebody's machine and then wins rightly.
    let found = find(None, Some(folder.path())).expect("found");
    assert!(found.starts_with(folder.path()) || found.starts_with("/etc/mpcium"), "{}", found.display());
}
