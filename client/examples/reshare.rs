//! Moves a wallet's key to another committee; the public key stays the same.
//!
//! ```sh
//! cargo run -p mpcium-client --features nats --example reshare -- \
//!     --wallet treasury-1 --curve ed25519 --nodes ID,ID,ID --threshold 2 --session move-1
//! ```
//!
//! Nodes are named by their ids, as in `peers.json`. Each of a wallet's two keys is moved by a request of its own.

mod common;
#[path = "common/initiator.rs"]
mod initiator;

use common::{Arguments, Failure, PATIENCE};
use initiator::initiator;
use mpcium_client::{KeyType, ReshareRequest};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::read(&["--wallet", "--curve", "--nodes", "--threshold", "--session"])?;
    let curve = arguments.get("--curve", "ed25519");
    let key_type = KeyType::from_name(curve).ok_or_else(|| format!("--curve {curve}: no such curve"))?;
    let nodes = arguments.get("--nodes", "").split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
    let client = arguments.client(initiator(&arguments)?).await?;
    let request = ReshareRequest {
        session_id: arguments.get("--session", "example-session").to_owned(),
        node_ids: Some(nodes),
        new_threshold: arguments.get("--threshold", "2").parse()?,
        key_type: key_type.as_str().to_owned(),
        wallet_id: arguments.get("--wallet", "example-0").to_owned(),
        ..ReshareRequest::default()
    };
    let moved = client.reshare_and_wait(request, PATIENCE).await?;
    let key = hex::encode(moved.pub_key.unwrap_or_default());
    println!("{}: {} {key}, {} sign from now on", moved.wallet_id, moved.key_type, moved.new_threshold);
    client.close().await;
    Ok(())
}
