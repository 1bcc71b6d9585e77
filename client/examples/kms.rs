//! Creates wallets as an initiator whose key is in AWS KMS.
//!
//! ```sh
//! cargo run -p mpcium-client --features kms --example kms -- --key alias/mpcium-signing-key --region us-east-1
//! ```
//!
//! Without `--access-key FILE` (a file with the id and the secret on two lines) the credentials are those that AWS's
//! own tools would use: in production the role of the machine or container. docs/kms.md shows the whole way.

mod common;

use common::{Arguments, Failure, PATIENCE};
use mpcium_client::kms::{KmsOptions, KmsSigner, StaticCredentials};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments =
        Arguments::read(&["--key", "--region", "--endpoint", "--access-key", "--number", "-n", "--prefix"])?;
    let optional = |name| Some(arguments.get(name, "")).filter(|value: &&str| !value.is_empty()).map(str::to_owned);
    let credentials = match optional("--access-key") {
        Some(file) => {
            let text = std::fs::read_to_string(file)?;
            let (id, secret) = text.trim().split_once('\n').ok_or("expected two lines: an id, and a secret")?;
            Some(StaticCredentials::new(id.trim(), secret.trim()))
        }
        None => None,
    };
    let number: u32 = arguments.get("--number", arguments.get("-n", "1")).parse()?;
    let key_id = optional("--key").ok_or("--key: expected a key's id, its ARN, or an alias (alias/…)")?;
    let signer = KmsSigner::connect(KmsOptions {
        key_id,
        region: optional("--region"),
        endpoint: optional("--endpoint"),
        credentials,
    })
    .await?;
    println!("event_initiator_pubkey: \"{}\"", signer.public_key_text());
    println!("event_initiator_algorithm: p256");

    let client = arguments.client(signer).await?;
    for at in 0..number {
        let id = format!("{}-{at}", arguments.get("--prefix", "kms"));
        let wallet = client.create_wallet_and_wait(&id, PATIENCE).await?;
        let (secp256k1, ed25519) = (wallet.ecdsa_pub_key.unwrap_or_default(), wallet.eddsa_pub_key.unwrap_or_default());
        println!("{id}: secp256k1 {} ed25519 {}", hex::encode(secp256k1), hex::encode(ed25519));
    }
    client.close().await;
    Ok(())
}
