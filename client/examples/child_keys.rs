//! Derives child keys of a wallet, without asking the cluster, and signs with one of them.
//!
//! ```sh
//! cargo run -p mpcium-client --features nats --example child_keys -- --wallet treasury-1 --chain-code HEX --number 5
//! ```
//!
//! The chain code is that of the nodes' configuration. Whoever has it and a wallet's public keys can list all child keys.

mod common;
#[path = "common/initiator.rs"]
mod initiator;

use common::{Arguments, Failure, PATIENCE};
use initiator::initiator;
use mpcium_client::{
    KeyType, SignRequest,
    derive::{derive_ed25519, derive_secp256k1, secp256k1_compressed, secp256k1_coordinates},
};
use sha3::{Digest as _, Keccak256};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::read(&["--wallet", "--chain-code", "--number"])?;
    let wallet_id = arguments.get("--wallet", "example-0");
    let mut chain_code = [0; 32];
    hex::decode_to_slice(arguments.get("--chain-code", ""), &mut chain_code)
        .map_err(|error| format!("--chain-code: expected 64 hexadecimal digits: {error}"))?;
    let number: u32 = arguments.get("--number", "3").parse()?;
    let client = arguments.client(initiator(&arguments)?).await?;

    let wallet = client.create_wallet_and_wait(wallet_id, PATIENCE).await?;
    let secp256k1 = secp256k1_compressed(&wallet.ecdsa_pub_key.unwrap_or_default())?;
    let ed25519: [u8; 32] = wallet.eddsa_pub_key.unwrap_or_default().try_into().map_err(|_| "no Ed25519 key")?;
    for at in 0..number {
        let child = secp256k1_coordinates(&derive_secp256k1(&secp256k1, &chain_code, &[44, 60, 0, 0, at])?.public_key)?;
        let address = hex::encode(Keccak256::digest(child).get(12..).unwrap_or_default());
        println!("m/44/60/0/0/{at}: 0x{address}");
    }
    for at in 0..number {
        let child = derive_ed25519(&ed25519, &chain_code, &[44, 501, at, 0])?.public_key;
        println!("m/44/501/{at}/0: {}", bs58::encode(child).into_string());
    }

    let path = vec![44, 501, 0, 0];
    let message = b"signed by the first child key".to_vec();
    let request = SignRequest {
        key_type: KeyType::Ed25519.as_str().to_owned(),
        wallet_id: wallet_id.to_owned(),
        network_internal_code: "solana-mainnet".to_owned(),
        tx_id: format!("{wallet_id}-first-child"),
        tx: Some(message.clone()),
        derivation_path: path.clone(),
        ..SignRequest::default()
    };
    let signed = client.sign_and_wait(request, PATIENCE).await?.signature.ok_or("no signature")?;
    let child = derive_ed25519(&ed25519, &chain_code, &path)?.public_key;
    let signature = ed25519_dalek::Signature::from_slice(&signed)?;
    ed25519_dalek::VerifyingKey::from_bytes(&child)?.verify_strict(&message, &signature)?;
    println!("signature: {}", bs58::encode(signed).into_string());
    client.close().await;
    Ok(())
}
