//! Signatures on both curves, by every pair of nodes, verified by libraries and by OpenSSL.

use e2e::{load::Order, programs, wait::PATIENCE};
use mpcium_client::{KeyType, SignRequest, SigningResult};
use serde_json::Value;

use crate::{
    clients::reconfigured,
    world::{Outcome, World, check, words},
};

/// An ECDSA request that comes too early waits, without keeping Ed25519 from being signed.
pub async fn ed25519_is_signed_while_ecdsa_waits_for_auxiliary_data(world: &mut World) -> Outcome {
    let early = world.asker.load(0, 1);
    for _ in 0..10 {
        world.asker.sign_new(KeyType::Ed25519).await?;
    }
    // Signed whole, with leading zero bytes, and accepted by a verifier that shares nothing with the cluster.
    let order = Order { message: b"\0\0 leading zeros count".to_vec(), ..Order::new(KeyType::Ed25519) };
    let result = world.asker.sign(&order).await?;
    world.asker.wallet.openssl_ed25519(world.folder(), &order.message, &result)?;
    early.finish().await.map(drop)
}

/// ECDSA signatures verify with k256 and with OpenSSL, for every node's auxiliary data.
pub async fn ecdsa_is_signed_once_auxiliary_data_is_there(world: &mut World) -> Outcome {
    world.cluster.provisioned().await?;
    let order = Order::new(KeyType::Secp256k1);
    let result = world.asker.sign(&order).await?;
    world.asker.wallet.openssl_ecdsa(world.folder(), &order.digest(), &result)?;
    // A wallet that is made now is served by the same auxiliary data.
    let made = world.asker.client.create_wallet_and_wait("a second one", PATIENCE).await.map_err(words)?;
    let mut asker = world.asker.clone();
    asker.wallet = e2e::verify::Wallet::new(&made)?;
    check(asker.wallet.secp256k1 != world.asker.wallet.secp256k1, || "two wallets have one key".to_owned())?;
    asker.sign_new(KeyType::Secp256k1).await?;
    asker.sign_new(KeyType::Ed25519).await.map(drop)
}

/// Nodes hash a message when they are told how; the digests were made by other programs.
pub async fn messages_are_hashed_by_the_nodes(world: &mut World) -> Outcome {
    const MESSAGE: &[u8] = b"hello";
    const DIGESTS: [(&str, &str); 3] = [
        ("sha256", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        ("sha256d", "9595c9df90075148eb06860365df33584b75bff782a510c6cd4883a419833d50"),
        ("keccak256", "1c8aff950685c2ed4bc3174f3472287b56d9517b9c948127319a09a7a36deac8"),
    ];
    world.cluster.provisioned().await?;
    for (hash, digest) in DIGESTS {
        let told = |error: String| format!("{hash}: {error}");
        let order = Order { message: MESSAGE.to_vec(), ..Order::new(KeyType::Secp256k1) };
        let request =
            SignRequest { tx: Some(MESSAGE.to_vec()), hash: hash.to_owned(), ..order.request(&world.asker.wallet) };
        let result = world.asker.client.sign_and_wait(request, PATIENCE).await.map_err(words).map_err(told)?;
        let digest = hex::decode(digest).ok().and_then(|bytes| bytes.try_into().ok()).ok_or("no digest")?;
        world.asker.wallet.verify_ecdsa(&digest, &result).map_err(told)?;
    }
    Ok(())
}

/// A cluster that is told to sign with the other protocol, and back, makes what that needs by itself; wallets stay what they
/// are.
pub async fn the_other_ecdsa_protocol_signs_with_the_same_keys(world: &mut World) -> Outcome {
    const OWN: &str = "ecdsa_protocol: cggmp24";
    world.cluster.provisioned().await?;
    let own = world.cluster.configurations()?;
    check(own.iter().all(|config| config.contains(OWN)), || format!("a configuration does not say {OWN}"))?;
    let change = |config: &str| config.replace(OWN, "ecdsa_protocol: dkls23");
    reconfigured(world, change, async |world| {
        world.cluster.provisioned().await?;
        world.asker.sign_new(KeyType::Secp256k1).await.map(drop)
    })
    .await?;
    // What was made for the first one is still there.
    world.cluster.provisioned().await?;
    world.asker.sign_new(KeyType::Secp256k1).await.map(drop)
}

/// Presignatures are made for those who send whole messages, and one signs the next.
pub async fn a_message_is_signed_with_a_presignature(world: &mut World) -> Outcome {
    world.cluster.provisioned().await?;
    // The queue gives requests to any node, and each leads presignatures of its own.
    for _ in 0..PRESIGNED_WITHIN {
        world.asker.sign_message(&Order::new(KeyType::Secp256k1)).await?;
        if world.cluster.presignatures_used()? > 0 {
            return Ok(());
        }
        world.cluster.presigned().await?;
    }
    Err(format!("{PRESIGNED_WITHIN} messages were signed and none with a presignature"))
}

/// After so many messages some node has had a second one; with three nodes and two signers, four are enough if nothing
/// is retried.
const PRESIGNED_WITHIN: usize = 12;

/// `mpcium sign` prints what verifies.
pub async fn the_command_line_signs(world: &mut World) -> Outcome {
    let wallet = &world.asker.wallet;
    for (curve, key_type) in [("ed25519", KeyType::Ed25519), ("secp256k1", KeyType::Secp256k1)] {
        let order = Order::new(key_type);
        let text = String::from_utf8_lossy(&order.message).into_owned();
        let arguments =
            ["sign", "-w", &wallet.id, "-k", curve, "-m", &text, "--tx-id", &order.tx_id, "--json", "-t", "120"];
        let printed = programs::run(&world.cluster.folder, &arguments)?;
        let printed: Value = serde_json::from_str(&printed).map_err(|error| format!("{printed}: {error}"))?;
        let bytes = |name: &str| printed[name].as_str().and_then(|text| hex::decode(text).ok());
        let result = SigningResult {
            tx_id: order.tx_id.clone(),
            r: bytes("r"),
            s: bytes("s"),
            signature_recovery: printed["recovery"].as_u64().and_then(|byte| u8::try_from(byte).ok()).map(|b| vec![b]),
            signature: bytes("signature"),
            ..SigningResult::default()
        };
        match key_type {
            KeyType::Ed25519 => wallet.verify_ed25519(&order.message, &result)?,
            KeyType::Secp256k1 => wallet.verify_ecdsa(&order.digest(), &result)?,
        }
    }
    Ok(())
}

/// With any one node stopped, the other two sign on both curves.
pub async fn each_pair_signs(world: &mut World) -> Outcome {
    for absent in 0..world.cluster.nodes.len() {
        let name = world.cluster.nodes[absent].name.clone();
        world.cluster.nodes[absent].stop().await?;
        for key_type in [KeyType::Ed25519, KeyType::Secp256k1] {
            world.asker.sign_new(key_type).await.map_err(|error| format!("without {name}: {error}"))?;
        }
        world.cluster.start()?;
        world.cluster.ready().await?;
    }
    Ok(())
}
