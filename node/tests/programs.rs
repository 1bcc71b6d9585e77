//! The two programs as they are called from a shell. That this test exists also makes `cargo test --workspace` build
//! them, which the end-to-end tests need.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

const MPCIUM: &str = env!("CARGO_BIN_EXE_mpcium");
const CLI: &str = env!("CARGO_BIN_EXE_mpcium-cli");

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Runs a program in `home`, with nothing of this process's environment.
fn run(home: &Path, program: &str, line: &str) -> Output {
    Command::new(program)
        .args(line.split_whitespace())
        .env_clear()
        .env("HOME", home)
        .current_dir(home)
        .output()
        .expect("the program runs")
}

/// What a program says when it succeeds.
fn succeed(home: &Path, program: &str, line: &str) -> String {
    let output = run(home, program, line);
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{line}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// What a program complains of when it fails.
fn fail(home: &Path, program: &str, line: &str) -> String {
    let output = run(home, program, line);
    assert!(!output.status.success(), "{line} succeeded: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("text")
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&text(path)).expect("JSON")
}

#[test]
fn both_programs_say_their_name_and_version() {
    let home = folder();
    for (program, name) in [(MPCIUM, "mpcium"), (CLI, "mpcium-cli")] {
        // Scripts compare this line with that of the Go system: it is all that stdout holds.
        let line = format!("{name} version 0.3.5\n");
        let output = run(home.path(), program, "version");
        assert_eq!((String::from_utf8_lossy(&output.stdout).as_ref(), output.stderr.len()), (line.as_str(), 0));
        assert_eq!(succeed(home.path(), program, "-v"), line);
        assert_eq!(succeed(home.path(), program, "--version"), line);
        let document: serde_json::Value =
            serde_json::from_str(&succeed(home.path(), program, "version --json")).expect("JSON");
        assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(document["compatible_with"], "0.3.5");
    }
}

#[test]
fn errors_go_to_stderr_with_exit_code_1_whatever_they_are_about() {
    let home = folder();
    for line in [
        "start -n node0",
        "start",
        "no-such-command",
        "generate-peers -n 0",
        "generate-peers --no-such-flag",
        "benchmark keygen many",
        "recover -b nowhere -r there",
        "doctor",
        "",
    ] {
        let output = run(home.path(), MPCIUM, line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{line}");
    }
}

#[test]
fn a_command_whose_reader_has_gone_ends_without_a_word() {
    let home = folder();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(CLI)
        .args(["generate-peers", "-n", "2"])
        .current_dir(home.path())
        .stdout(writer)
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(home.path().join("peers.json").is_file(), "what it was asked for is done");
}

#[test]
fn one_dash_is_enough_for_a_long_flag() {
    let home = folder();
    succeed(home.path(), CLI, "generate-peers -number 2 -output p.json");
    succeed(home.path(), CLI, "generate-identity -node=node1 -peers p.json -output-dir ids");
    assert!(home.path().join("ids/node1_identity.json").is_file());
}

#[test]
fn shells_get_completions_for_the_name_that_was_called() {
    let home = folder();
    for (program, name) in [(MPCIUM, "mpcium"), (CLI, "mpcium-cli")] {
        for shell in ["bash", "zsh", "fish"] {
            let script = succeed(home.path(), program, &format!("completions {shell}"));
            assert!(script.contains(name) && script.contains("generate-identity"), "{shell}");
        }
        // And bash takes it.
        let path = home.path().join("completions");
        std::fs::write(&path, succeed(home.path(), program, "completions bash")).expect("written");
        let ask = format!("source {} && complete -p {name}", path.display());
        let output = Command::new("bash").args(["-euc", &ask]).output().expect("bash runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn help_names_every_command() {
    let home = folder();
    let said = succeed(home.path(), MPCIUM, "--help");
    for command in [
        "start",
        "status",
        "wallet",
        "sign",
        "demo",
        "generate-peers",
        "register-peers",
        "generate-identity",
        "generate-initiator",
        "generate-authorizer",
        "generate-configs",
        "doctor",
        "benchmark",
        "recover",
        "completions",
    ] {
        assert!(said.contains(command), "{command} is missing in:\n{said}");
        assert!(succeed(home.path(), CLI, &format!("{command} --help")).contains("Usage"));
    }
}

#[test]
fn a_start_without_a_configuration_fails_and_says_where_it_looked() {
    let home = folder();
    let said = fail(home.path(), MPCIUM, "start -n node0");
    assert!(said.contains("no configuration file") && said.contains("config.yaml"), "{said}");
}

#[test]
fn the_files_of_a_cluster_are_made_one_by_one() {
    let home = folder();
    let at = |name: &str| home.path().join(name);
    succeed(home.path(), CLI, "generate-peers -n 2");
    let peers = json(&at("peers.json"));
    let names: Vec<&String> = peers.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["node0", "node1"]);

    succeed(home.path(), CLI, "generate-identity --node node0");
    let public = json(&at("identity/node0_identity.json"));
    assert_eq!(public["node_name"], "node0");
    assert_eq!(public["node_id"], peers["node0"]);
    let private = text(&at("identity/node0_private.key"));
    // The Go system's form: seed and public key, 64 bytes in hexadecimal.
    assert_eq!(private.len(), 128);
    assert_eq!(private[64..], *public["public_key"].as_str().expect("text"));

    let said = succeed(home.path(), CLI, "generate-initiator");
    let initiator = json(&at("event_initiator.identity.json"));
    let line = format!("event_initiator_pubkey: \"{}\"", initiator["public_key"].as_str().expect("text"));
    assert!(said.contains(&line), "{said}");
    succeed(home.path(), CLI, "generate-authorizer --name alice --algorithm p256");
    assert_eq!(json(&at("alice.authorizer.identity.json"))["algorithm"], "p256");

    for file in ["identity/node0_private.key", "event_initiator.key", "alice.authorizer.key"] {
        assert_eq!(mode(&at(file)), 0o600, "{file}");
    }
}

#[test]
fn nothing_is_overwritten_unless_asked_for() {
    let home = folder();
    let at = |name: &str| home.path().join(name);
    succeed(home.path(), CLI, "generate-peers -n 2");
    succeed(home.path(), CLI, "generate-identity --node node0");
    succeed(home.path(), CLI, "generate-initiator");
    for (line, file) in [
        ("generate-peers -n 2", "peers.json"),
        ("generate-identity --node node0", "identity/node0_private.key"),
        ("generate-initiator", "event_initiator.key"),
    ] {
        let before = text(&at(file));
        let output = run(home.path(), CLI, line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("exists already"), "{line}: {said}");
        assert!(output.stdout.is_empty(), "{line}: nothing is written, so nothing is warned of");
        assert_eq!(text(&at(file)), before, "{line}");
    }
    let before = text(&at("event_initiator.key"));
    succeed(home.path(), CLI, "generate-initiator --overwrite");
    assert_ne!(text(&at("event_initiator.key")), before);
}

#[test]
fn an_identity_of_an_unknown_node_is_refused_with_the_names_that_exist() {
    let home = folder();
    succeed(home.path(), CLI, "generate-peers -n 2");
    let said = fail(home.path(), CLI, "generate-identity --node node7");
    assert!(said.contains("node7") && said.contains("node0, node1"), "{said}");
    assert!(!home.path().join("identity").exists());
}

#[test]
fn a_generated_cluster_has_private_files_and_its_nodes_read_their_configuration() {
    let home = folder();
    succeed(home.path(), MPCIUM, "generate-configs --output-dir dev --number 3 --consul 127.0.0.1:1");
    let node = home.path().join("dev/node1");
    for file in ["config.yaml", "identity/node1_private.key"] {
        assert_eq!(mode(&node.join(file)), 0o600, "{file}");
    }
    assert!(!node.join("identity/node0_private.key").exists(), "a node has nobody else's private key");
    // Everything but the node's name is in order, so that is what it complains of.
    let said = fail(&node, MPCIUM, "start -n node9");
    assert!(said.contains("peers.json does not name node9; it names node0, node1, node2"), "{said}");
    let said = fail(home.path(), MPCIUM, "generate-configs --output-dir dev --number 3");
    assert!(said.contains("holds a cluster already"), "{said}");
}

#[test]
fn all_problems_of_a_configuration_are_told_at_once() {
    let home = folder();
    let broken = "environment: development\nmpc_threshold: two\nnats: {url: nats://127.0.0.1:1}\n\
                  require_full_signature: perhaps\nchain_code: abc\n";
    std::fs::write(home.path().join("config.yaml"), broken).expect("written");
    let said = fail(home.path(), MPCIUM, "start -n node0");
    for key in ["mpc_threshold", "consul.address", "event_initiator_pubkey", "require_full_signature", "chain_code"] {
        assert!(said.contains(key), "{key} is missing in:\n{said}");
    }
}

#[test]
fn status_of_a_node_that_does_not_run_says_so() {
    let home = folder();
    succeed(home.path(), MPCIUM, "generate-configs --output-dir dev");
    let said = fail(&home.path().join("dev/node0"), MPCIUM, "status -n node0");
    assert!(said.contains("no node runs"), "{said}");
}

#[test]
fn a_key_that_is_none_is_refused_before_anything_is_sent() {
    let home = folder();
    let line = "sign -w w -k ed25519 -m hello --public-key abcd --nats nats://127.0.0.1:1";
    let said = fail(home.path(), MPCIUM, line);
    assert!(said.contains("--public-key: an ed25519 key has 32 bytes, got 2"), "{said}");
}
