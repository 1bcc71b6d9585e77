//! Stores that cannot be used as they are: wrong password, in use, damaged, copied.

use std::{
    fs,
    path::{Path, PathBuf},
};

use e2e::{
    cluster::{Node, StartOptions},
    servers::{Server, free_port},
    wait::{self, PATIENCE},
};
use mpcium_client::KeyType;

use crate::world::{Outcome, World, check};

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

/// A byte flipped in the middle of any file of a store: the start names it, in an error or in an alarm.
pub async fn a_damaged_store_is_named(world: &mut World) -> Outcome {
    world.cluster.nodes[1].stop().await?;
    let original = &world.cluster.nodes[1];
    // The damaged copies meet nobody, so that the cluster does not take them for a node that was rolled back.
    let folder = world.folder().join("apart");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let mut nats = Server::nats(&folder)?;
    nats.start().await?;
    let variables = vec![
        ("NATS_URL", format!("nats://{}", nats.address())),
        ("CONSUL_ADDRESS", format!("127.0.0.1:{}", free_port()?)),
    ];
    let options = StartOptions { variables, ..StartOptions::default() };

    let mut silent = Vec::new();
    let files = files(&original.store())?;
    check(files.len() >= 4, || format!("a store of only {} files", files.len()))?;
    let mut logs = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let home = folder.join(format!("copy{number}"));
        copy(&original.home, &home)?;
        let inside = file.strip_prefix(&original.home).map_err(|error| error.to_string())?;
        if !flip(&home.join(inside))? {
            continue;
        }
        let log = folder.join(format!("copy{number}.log"));
        let mut node = original.twin(&home, &log);
        node.start_with(&options)?;
        if !is_named(&mut node).await? {
            silent.push(inside.display().to_string());
        }
        logs.push(log);
    }
    world.extra_logs.extend(logs);
    check(silent.is_empty(), || format!("damage in these files was not named: {}", silent.join(", ")))
}

/// Whether a node that was started on a damaged store says so.
async fn is_named(node: &mut Node) -> Result<bool, String> {
    let ended = wait::until_sync("a node to open a damaged store", PATIENCE, || {
        if node.has_crashed() {
            return Ok(true);
        }
        let status = node.status()?;
        check(status.pointer("/node/id").is_some(), || status.to_string()).map(|()| false)
    })
    .await?;
    if !ended {
        return Ok(!node.alarms()?.is_empty());
    }
    let (success, said) = node.end(0).await?;
    check(!said.contains("panicked"), || format!("{} panicked: {said}", node.name))?;
    Ok(!success && said.contains("store"))
}

/// Flips a bit in the middle of what a file holds; false if it holds nothing.
fn flip(file: &Path) -> Result<bool, String> {
    let named = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut bytes = fs::read(file).map_err(named)?;
    // Preallocated zeros at the end hold nothing.
    let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { return Ok(false) };
    bytes[last / 2] ^= 0x10;
    fs::write(file, bytes).map_err(named)?;
    Ok(true)
}

/// Two processes with one identity, the second on a copy of the first one's store: both sides of the link say so, by
/// name, and the others sign on.
pub async fn a_copied_store_raises_an_alarm(world: &mut World) -> Outcome {
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
    Ok(())
}

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
