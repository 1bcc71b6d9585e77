//! The prompt of `mpcium demo --keep`.

use std::{io::Write as _, time::Instant};

use sha2::{Digest as _, Sha256};

use super::{
    ANSWER_MAX,
    cluster::{Cluster, NODES, name},
    progress::lasted,
};
use crate::{verify, wallet::WalletView};

/// Reads commands until the input ends.
///
/// # Errors
/// If the terminal fails; what a command does not achieve is only told.
pub async fn run(cluster: &mut Cluster) -> Result<(), String> {
    println!("\nThe cluster keeps running until you quit.");
    help();
    loop {
        print!("> ");
        std::io::stdout().flush().map_err(|error| error.to_string())?;
        let Some(line) = read_line().await? else {
            println!();
            return Ok(());
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        match command(cluster, &words).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => println!("{error}"),
        }
    }
}

fn help() {
    println!("  wallet NAME                          create a wallet (needs all nodes)");
    println!("  sign WALLET ed25519|secp256k1 TEXT   sign a text (for secp256k1 its SHA-256)");
    println!("  stop NODE | start NODE               pull a node's plug, or start it again");
    println!("  status | help | quit");
}

async fn command(cluster: &mut Cluster, words: &[&str]) -> Result<bool, String> {
    let started = Instant::now();
    match words {
        [] => {}
        ["quit" | "exit"] => return Ok(false),
        ["help"] => help(),
        ["wallet", wallet] => {
            let view = WalletView::new(&cluster.create_wallet(wallet, ANSWER_MAX).await?)?;
            println!("Ethereum  {}", view.ethereum_address);
            println!("Bitcoin   {}", view.bitcoin_address);
            println!("Solana    {}", view.solana_address);
            println!("created in {}", lasted(started));
        }
        ["sign", wallet, key_type @ ("ed25519" | "secp256k1"), first, rest @ ..] => {
            let text = rest.iter().fold((*first).to_owned(), |text, word| text + " " + word);
            let tx = if *key_type == "ed25519" { text.into_bytes() } else { Sha256::digest(text).to_vec() };
            println!("{}", verify::shown(&cluster.sign(wallet, key_type, &tx, ANSWER_MAX).await?));
            println!("signed in {}", lasted(started));
        }
        ["status"] => {
            for status in cluster.status().await {
                let up = 1 + status.peers.iter().filter(|peer| peer.up).count();
                let state = if status.ready { "ready" } else { "not ready" };
                println!("{}: {state}, {up} of {NODES} nodes answer", status.name);
                status.waiting_for.iter().for_each(|what| println!("  waits for {what}"));
            }
        }
        ["stop", node] => {
            cluster.stop_node(position(node)?)?;
            println!("{} of {NODES} nodes run", cluster.running());
        }
        ["start", node] => {
            cluster.start_node(position(node)?)?;
            println!("{} of {NODES} nodes run", cluster.running());
        }
        _ => {
            println!("not understood; the commands are");
            help();
        }
    }
    Ok(true)
}

/// The node with this name or number.
fn position(text: &str) -> Result<usize, String> {
    (0..NODES)
        .find(|position| text == name(*position) || text == position.to_string())
        .ok_or_else(|| format!("{text} is no node: {} to {}", name(0), name(NODES - 1)))
}

/// Reads one line on a thread of its own, because reading from a terminal cannot be interrupted.
async fn read_line() -> Result<Option<String>, String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|bytes| (bytes > 0).then_some(line))
    });
    read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_named_by_name_or_number() {
        assert_eq!(position("node2"), Ok(2));
        assert_eq!(position("0"), Ok(0));
        for bad in ["3", "node3", "", "-1", "nodenode1"] {
            assert!(position(bad).is_err(), "{bad}");
        }
    }
}
