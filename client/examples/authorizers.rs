//! Creates a wallet with the approvals of authorizers.
//!
//! ```sh
//! cargo run -p mpcium-client --features nats --example authorizers -- \
//!     --wallet treasury-1 --authorizers alice=ed25519:alice.authorizer.key,Bob=p256:Bob.authorizer.key
//! ```
//!
//! Here one program has all keys. In earnest the signed request travels to each authorizer ([`Request::to_json`]), who
//! looks at it, checks the initiator's signature, and sends back an approval.
//!
//! [`Request::to_json`]: mpcium_client::Request::to_json

mod common;
#[path = "common/initiator.rs"]
mod initiator;

use common::{Arguments, Failure, PATIENCE};
use initiator::initiator;
use mpcium_client::{KeygenRequest, Request, auth::Algorithm, signer::approve};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::read(&["--wallet", "--authorizers"])?;
    let wallet_id = arguments.get("--wallet", "example-0").to_owned();
    let client = arguments.client(initiator(&arguments)?).await?;

    let request = KeygenRequest { wallet_id, ..KeygenRequest::default() };
    let signed = client.signed(request).await?;
    let mut approvals = Vec::new();
    for entry in arguments.get("--authorizers", "").split(',').filter(|entry| !entry.is_empty()) {
        let wrong = || format!("{entry}: expected NAME=ALGORITHM:FILE");
        let (name, key) = entry.split_once('=').ok_or_else(wrong)?;
        let (algorithm, file) = key.split_once(':').ok_or_else(wrong)?;
        let signer = initiator::read(&arguments, Algorithm::parse(algorithm)?, file)?;
        approvals.push(approve(&signer, name, &signed).await?);
    }
    let Request::Keygen(mut request) = signed else { return Err("not the request that was signed".into()) };
    request.authorizer_signatures = approvals;
    let wallet = client.keygen_and_wait(request, PATIENCE).await?;
    println!("{}: ed25519 {}", wallet.wallet_id, hex::encode(wallet.eddsa_pub_key.unwrap_or_default()));
    client.close().await;
    Ok(())
}
