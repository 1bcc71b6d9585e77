//! Signs a transfer on Solana and verifies the signature.
//!
//! ```sh
//! cargo run -p mpcium-client --features nats --example sign_solana -- --wallet treasury-1 --to ADDRESS --lamports 1000
//! ```
//!
//! For Ed25519 the cluster signs the message itself, whole and unhashed: here the serialized message of the
//! transaction. A real one has a recent block hash from the network; this one has zeros.

mod common;
#[path = "common/initiator.rs"]
mod initiator;

use common::{Arguments, Failure, PATIENCE};
use initiator::initiator;
use mpcium_client::{KeyType, SignRequest};

/// The system program, which is also an address that anybody may send to.
const SYSTEM_PROGRAM: &str = "11111111111111111111111111111111";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::read(&["--wallet", "--to", "--lamports", "--id"])?;
    let wallet_id = arguments.get("--wallet", "example-0");
    let to = bytes32(&bs58::decode(arguments.get("--to", SYSTEM_PROGRAM)).into_vec()?)?;
    let lamports: u64 = arguments.get("--lamports", "1000").parse()?;
    let client = arguments.client(initiator(&arguments)?).await?;

    // Asking for a wallet that exists returns it.
    let wallet = client.create_wallet_and_wait(wallet_id, PATIENCE).await?;
    let key = bytes32(&wallet.eddsa_pub_key.unwrap_or_default())?;
    let message = transfer(&key, &to, lamports, &[0; 32]);
    let request = SignRequest {
        key_type: KeyType::Ed25519.as_str().to_owned(),
        wallet_id: wallet_id.to_owned(),
        network_internal_code: "solana-mainnet".to_owned(),
        tx_id: arguments.get("--id", &format!("{wallet_id}-{}-{lamports}", bs58::encode(to).into_string())).to_owned(),
        tx: Some(message.clone()),
        ..SignRequest::default()
    };
    let signed = client.sign_and_wait(request, PATIENCE).await?.signature.ok_or("no signature")?;

    let signature = ed25519_dalek::Signature::from_slice(&signed)?;
    ed25519_dalek::VerifyingKey::from_bytes(&key)?.verify_strict(&message, &signature)?;
    println!("address: {}", bs58::encode(key).into_string());
    println!("signature: {}", bs58::encode(signed).into_string());
    client.close().await;
    Ok(())
}

/// The message of a transaction with one transfer: header, addresses, block hash, instruction.
fn transfer(from: &[u8; 32], to: &[u8; 32], lamports: u64, block_hash: &[u8; 32]) -> Vec<u8> {
    let mut message = vec![1, 0, 1, 3]; // one signer, one read-only program; three addresses
    message.extend_from_slice(from);
    message.extend_from_slice(to);
    message.extend_from_slice(&[0; 32]);
    message.extend_from_slice(block_hash);
    message.extend_from_slice(&[1, 2, 2, 0, 1, 12]); // one instruction: of the third address, with the first two
    message.extend_from_slice(&2_u32.to_le_bytes());
    message.extend_from_slice(&lamports.to_le_bytes());
    message
}

fn bytes32(bytes: &[u8]) -> Result<[u8; 32], Failure> {
    Ok(bytes.try_into().map_err(|_| format!("expected 32 bytes, got {}", bytes.len()))?)
}
