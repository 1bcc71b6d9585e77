//! Stores that cannot be used as they are: wrong password, in use, damaged, copied.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use e2e::{
    cluster::{Node, StartOptions},
    servers::{Server, free_port},
    wait::{self, PATIENCE},
};
use mpcium_client::KeyType;
use serde_json::Value;

use crate::world::{Outcome, World, check};

/// In at least so many files of a store a flipped byte cannot be harmless: journal, keys, integrity record, password.
const NAMED_MIN: usize = 4;

/// A node with the wrong password ends and says why; with the right one it goes on where it was.
pub async fn a_wrong_password_is_refused(world: &mut World) -> Outcome {
    let password = world.folder().join("wrong-password");
    fs::write(&password, "not the password of this store").map_err(|error| error.to_string())?;
    let node = &mut world.cluster.nodes[2];
    node.stop().await?;
    let from = node.log_length();
    let arguments = vec!["--password-file".to_owned(), password.to_string_lossy().into_owned()];
    node.start_with(&StartOptions { arguments, ..StartOptions::default() })?;
    let (success, said) = node.end(from).await?;
    check(!success && said.contains("wrong password for the store"), || format!("it said: {said}"))
}

/// A second process with a store that is in use ends and says why; the first is not disturbed.
pub async fn a_second_process_on_one_store_is_refused(world: &mut World) -> Outcome {
    let first = &world.cluster.nodes[2];
    let log = world.folder().join("second.log");
    let mut second = first.twin(&first.home, &log);
    second.start()?;
    let (success, said) = second.end(0).await?;
    world.extra_logs.push(log);
    check(!success && said.contains("is in use by another process"), || format!("it said: {said}"))?;
    world.cluster.ready().await?;
    world.asker.sign_new(KeyType::Ed25519).await.map(drop)
}

/// A byte flipped in the middle of any file of a store: the start names it, in an error or in an alarm, or nothing that
/// the store held is missing. An untouched copy raises no alarm.
pub async fn a_damaged_store_is_named(world: &mut World) -> Outcome {
    world.cluster.nodes[1].stop().await?;
    let original = &world.cluster.nodes[1];
    // The copies meet nobody, so that the cluster does not take them for a node that was rolled back.
    let folder = world.folder().join("apart");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let mut nats = Server::nats(&folder)?;
    nats.start().await?;
    let variables = vec![
        ("NATS_URL", format!("nats://{}", nats.address())),
        ("CONSUL_ADDRESS", format!("127.0.0.1:{}", free_port()?)),
    ];
    let options = StartOptions { variables, ..StartOptions::default() };
    let start = |name: &str, damaged: Option<&Path>| {
        let home = folder.join(name);
        copy(&original.home, &home)?;
        if let Some(file) = damaged {
            flip(&home.join(file))?;
        }
        let mut node = original.twin(&home, &folder.join(format!("{name}.log")));
        node.start_with(&options).map(|()| node)
    };

    let mut untouched = start("untouched", None)?;
    let expected = match opened(&mut untouched).await? {
        Opened::Holding(what) => what,
        Opened::Named(words) => return Err(format!("an untouched store is said to be damaged: {words}")),
    };
    world.extra_logs.push(untouched.log.clone());
    drop(untouched);

    let mut silent = Vec::new();
    let mut named = 0;
    for (number, file) in files(&original.store())?.iter().enumerate() {
        let file = file.strip_prefix(&original.home).map_err(|error| error.to_string())?;
        if !holds_anything(&original.home.join(file))? {
            continue;
        }
        let mut node = start(&format!("copy{number}"), Some(file))?;
        match opened(&mut node).await? {
            Opened::Named(_) => named += 1,
            Opened::Holding(what) if what == expected => {}
            Opened::Holding(what) => silent.push(format!("{}: {what:?}", file.display())),
        }
        world.extra_logs.push(node.log.clone());
    }
    check(silent.is_empty(), || format!("lost in silence, expected {expected:?}: {}", silent.join(", ")))?;
    check(named >= NAMED_MIN, || format!("damage was named in {named} files only"))
}

/// How a start ended.
enum Opened {
    /// It said that the store is damaged.
    Named(String),
    /// It went on, and holds this.
    Holding(Value),
}

/// Waits for what a node that was started on a store makes of it.
async fn opened(node: &mut Node) -> Result<Opened, String> {
    let status = wait::until_sync("a node to open its store", PATIENCE, || {
        if node.has_crashed() {
            return Ok(None);
        }
        let status = node.status()?;
        check(status.pointer("/node/id").is_some(), || status.to_string()).map(|()| Some(status))
    })
    .await?;
    let Some(status) = status else {
        let (success, said) = node.end(0).await?;
        check(!success && said.contains("store"), || format!("it does not speak of its store: {said}"))?;
        return Ok(Opened::Named(said));
    };
    let alarms = node.alarms()?;
    if !alarms.is_empty() {
        return Ok(Opened::Named(alarms.join("; ")));
    }
    let part = |name: &str| status.pointer(name).cloned().unwrap_or_default();
    Ok(Opened::Holding(Value::from([part("/node/auxiliary_sets"), part("/node/undecided")].to_vec())))
}

/// Whether a file holds anything but zeros, with which files are preallocated.
fn holds_anything(file: &Path) -> Result<bool, String> {
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(bytes.iter().any(|byte| *byte != 0))
}

/// Flips a bit in the middle of what a file holds.
fn flip(file: &Path) -> Outcome {
    let named = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut bytes = fs::read(file).map_err(named)?;
    // Preallocated zeros at the end hold nothing.
    if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
        bytes[last / 2] ^= 0x10;
    }
    fs::write(file, bytes).map_err(named)
}

/// Two processes with one identity, the second on a copy of the first one's store: both sides of the link say so, by
/// name, and the others sign on.
pub async fn a_copied_store_raises_an_alarm(world: &mut World) -> Outcome {
    world.cluster.provisioned().await?;
    let number = world.cluster.nodes.len() - 1;
    world.cluster.nodes[number].stop().await?;
    let home = world.folder().join("copied");
    copy(&world.cluster.nodes[number].home, &home)?;
    world.heal().await?;
    let before: Vec<usize> = world.cluster.nodes.iter().map(Node::log_length).collect();
    let log = world.folder().join("copied.log");
    let mut twin = world.cluster.nodes[number].twin(&home, &log);
    let name = twin.name.clone();
    world.extra_logs.push(log);
    twin.start()?;
    wait::until_sync("an alarm about two processes with one identity", PATIENCE, || {
        let nodes = world.cluster.nodes.iter().take(number).zip(&before);
        let said: Vec<String> = nodes.map(|(node, from)| node.printed(*from)).collect();
        let named = |text: &String| text.contains("identity") && text.contains(&name) && text.contains("ERR");
        check(said.iter().any(named), || said.join("\n"))
    })
    .await?;
    for key_type in [KeyType::Ed25519, KeyType::Secp256k1] {
        world.asker.sign_new(key_type).await?;
    }
    twin.kill();
    // If its peers have heard more of the twin than of the real node, that one has to be brought up to date.
    world.cluster.ready_within(UP_TO_DATE_MAX).await
}

/// Above the default signing deadline of three minutes.
const UP_TO_DATE_MAX: Duration = Duration::from_secs(300);

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let named = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(named)? {
        let path = entry.map_err(named)?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a folder and everything in it that is a file or a folder.
fn copy(from: &Path, to: &Path) -> Outcome {
    for file in files(from)? {
        let target = to.join(file.strip_prefix(from).map_err(|error| error.to_string())?);
        let named = |error: std::io::Error| format!("{}: {error}", target.display());
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(named)?;
        }
        fs::copy(&file, &target).map_err(named)?;
    }
    Ok(())
}
