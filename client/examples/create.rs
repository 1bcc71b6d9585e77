//! Creates wallets and shows their public keys.
//!
//! ```sh
//! cargo run -p mpcium-client --features nats --example create -- --initiator dev/event_initiator.key --number 3
//! ```
//!
//! Requests are sent at once and answered in any order, so they are listened for before the first one is sent.

mod common;
#[path = "common/initiator.rs"]
mod initiator;

use std::collections::BTreeSet;

use common::{Arguments, Failure, PATIENCE};
use initiator::initiator;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::read(&["--number", "--prefix"])?;
    let number: u32 = arguments.get("--number", "1").parse()?;
    let prefix = arguments.get("--prefix", "example");
    let client = arguments.client(initiator(&arguments)?).await?;
    let mut results = client.keygen_results().await?;

    let mut open = BTreeSet::new();
    for at in 0..number {
        let wallet = format!("{prefix}-{at}");
        client.create_wallet(&wallet).await?;
        open.insert(wallet);
    }
    while !open.is_empty() {
        let result = tokio::time::timeout(PATIENCE, results.next()).await?.ok_or("the listener ended")??;
        let (wallet, token) = result.into_parts();
        // Without this the result would be delivered again.
        token.ack().await?;
        if !open.remove(&wallet.wallet_id) {
            continue;
        }
        if !wallet.is_success() {
            return Err(format!("{}: {}: {}", wallet.wallet_id, wallet.error_code, wallet.error_reason).into());
        }
        let (secp256k1, ed25519) = (wallet.ecdsa_pub_key.unwrap_or_default(), wallet.eddsa_pub_key.unwrap_or_default());
        println!("{}: secp256k1 {} ed25519 {}", wallet.wallet_id, hex::encode(secp256k1), hex::encode(ed25519));
    }
    client.close().await;
    Ok(())
}
