//! The five minutes of the README, command by command, with the programs that were built for the tests.

use std::{net::TcpListener, os::unix::fs::symlink, path::Path};

use e2e::{docs, programs, servers::free_port};

/// What the commands need of the caller's environment: the compiler is asked for its version.
const KEPT: [&str; 4] = ["HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "CARGO_HOME"];

#[test]
fn the_five_minutes_of_the_readme_go_as_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let outcome = follow(folder.path());
    // Whatever became of it, nothing goes on running.
    let stopped = docs::follow(folder.path(), "sh deployments/dev/cluster.sh stop dev", &[]);
    let printed = outcome.unwrap_or_else(|failure| panic!("{failure}\n{stopped:?}"));
    for expected in [
        "dev holds 3 nodes, 2 of which sign together",
        "node2     ready",
        "wallet     my-wallet",
        "attested   by node0, node1, node2",
        "signature  ",
        "recovery   ",
        "node0 ready: 2 of 3 nodes sign together",
        "0 failed",
        "nats stopped",
    ] {
        assert!(printed.contains(expected), "{expected} in:\n{printed}");
    }
    assert_eq!(printed.matches("verified   under ").count(), 2, "both signatures:\n{printed}");
}

fn follow(folder: &Path) -> Result<String, String> {
    let link = |to: &Path, name: &str| symlink(to, folder.join(name)).map_err(|error| format!("{name}: {error}"));
    for name in ["Makefile", "scripts", "deployments", ".tools"] {
        link(&programs::project().join(name), name)?;
    }
    // `target/debug` is where the tests' own programs are.
    let built = programs::mpcium()?;
    let target = folder.join("target");
    std::fs::create_dir(&target)
        .and_then(|()| symlink(built.parent().unwrap_or(&built), target.join("debug")))
        .map_err(|error| format!("target: {error}"))?;
    let nats = free_port()?.to_string();
    let consul = three_ports()?.to_string();
    // What `make` would build has been built.
    let mut variables = vec![("CARGO", "true"), ("NATS_PORT", nats.as_str()), ("CONSUL_PORT", consul.as_str())];
    let kept: Vec<(&str, String)> =
        KEPT.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?))).collect();
    variables.extend(kept.iter().map(|(name, value)| (*name, value.as_str())));
    // The logs are followed until somebody ends it.
    let commands = docs::commands("../README.md", Some("## Five minutes"), Some("## From Rust"))?;
    docs::follow(folder, &commands.replace("make logs ", "make -n logs "), &variables)
}

/// The first of three free ports in a row, which Consul gets.
fn three_ports() -> Result<u16, String> {
    for _ in 0..100 {
        let first = free_port()?;
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if first < u16::MAX - 2 && free(first + 1) && free(first + 2) {
            return Ok(first);
        }
    }
    Err("no three free ports in a row".to_owned())
}
