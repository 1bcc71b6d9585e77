//! Signs a text as Ethereum wallets do (EIP-191) and recovers the signer's address.
//!
//! ```sh
//! cargo run -p mpcium-client --features nats --example sign_ethereum -- --wallet treasury-1 --text hello
//! ```
//!
//! For secp256k1 the cluster signs a digest, which the client computes: Keccak-256 here, for a transaction as well.

mod common;
#[path = "common/initiator.rs"]
mod initiator;

use common::{Arguments, Failure, PATIENCE};
use initiator::initiator;
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use mpcium_client::{KeyType, SignRequest};
use sha3::{Digest as _, Keccak256};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::read(&["--wallet", "--text", "--id"])?;
    let (wallet_id, text) = (arguments.get("--wallet", "example-0"), arguments.get("--text", "hello"));
    let client = arguments.client(initiator(&arguments)?).await?;

    // Asking for a wallet that exists returns it.
    let wallet = client.create_wallet_and_wait(wallet_id, PATIENCE).await?;
    let key = wallet.ecdsa_pub_key.ok_or("the wallet has no secp256k1 key")?;
    let address = address(&key);

    let digest = Keccak256::digest(format!("\u{19}Ethereum Signed Message:\n{}{text}", text.len()));
    let request = SignRequest {
        key_type: KeyType::Secp256k1.as_str().to_owned(),
        wallet_id: wallet_id.to_owned(),
        network_internal_code: "ethereum-mainnet".to_owned(),
        // The same id with the same digest returns the same signature, however often it is asked for.
        tx_id: arguments.get("--id", &format!("{wallet_id}-{}", hex::encode(digest))).to_owned(),
        tx: Some(digest.to_vec()),
        ..SignRequest::default()
    };
    let signed = client.sign_and_wait(request, PATIENCE).await?;
    let part = |bytes: Option<Vec<u8>>| <[u8; 32]>::try_from(bytes.unwrap_or_default()).map_err(|_| "not 32 bytes");
    let signature = Signature::from_scalars(part(signed.r)?, part(signed.s)?)?;
    let recovery = signed.signature_recovery.and_then(|bytes| bytes.first().copied()).ok_or("no recovery byte")?;
    let recovery = RecoveryId::from_byte(recovery).ok_or("not a recovery byte")?;

    // Trust the mathematics, not the bus.
    let signer = VerifyingKey::recover_from_prehash(&digest, &signature, recovery)?;
    let point = signer.to_sec1_point(false);
    let recovered = self::address(point.as_bytes().get(1..).unwrap_or_default());
    if recovered != address {
        return Err(format!("signed by {recovered}, expected {address}").into());
    }
    println!("address: 0x{address}");
    println!("signature: 0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + recovery.to_byte());
    client.close().await;
    Ok(())
}

/// The last 20 bytes of the key's hash, without the checksum in upper-case letters.
fn address(key: &[u8]) -> String {
    hex::encode(Keccak256::digest(key).get(12..).unwrap_or_default())
}
