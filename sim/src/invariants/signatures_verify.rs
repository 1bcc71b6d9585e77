//! Every published signature verifies, by independent code, for the message that was asked for and under the wallet's
//! key; secp256k1 signatures are low-S and their recovery byte leads back to the key.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use mpcium_client::derive;
use mpcium_core::protocol::Curve;

use super::{Fact, Invariant};
use crate::world::{Answer, CHAIN_CODE, World};

/// Answers whose wallet's key no client knows yet wait until one does.
#[derive(Default)]
pub(super) struct SignaturesVerify {
    waiting: Vec<Answer>,
    /// De-duplication ids and documents that were good: repetitions need no second look.
    good: BTreeSet<(String, Vec<u8>)>,
}

impl Invariant for SignaturesVerify {
    fn name(&self) -> &'static str {
        "signatures_verify"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Answer { answer, .. } = fact else { return Ok(()) };
        if !answer.success {
            return Ok(());
        }
        if answer.transaction.is_empty() {
            let keys = world.clients.wallets.get(&answer.wallet).ok_or("a wallet nobody knows")?;
            if keys.secp256k1.len() != 64 || VerifyingKey::from_sec1_bytes(&sec1(&keys.secp256k1)).is_err() {
                return Err(format!("{} has no secp256k1 key", answer.wallet));
            }
            let known =
                keys.ed25519.as_slice().try_into().ok().and_then(|k| ed25519_dalek::VerifyingKey::from_bytes(k).ok());
            if known.is_none() {
                return Err(format!("{} has no Ed25519 key", answer.wallet));
            }
            let waiting = std::mem::take(&mut self.waiting);
            for answer in waiting {
                self.verify(world, &answer)?;
            }
            return Ok(());
        }
        self.verify(world, answer)
    }
}

/// The child key of a wallet's `X || Y`, in the same form.
fn child_secp256k1(xy: &[u8], path: &[u32]) -> Option<Vec<u8>> {
    if path.is_empty() {
        return Some(xy.to_vec());
    }
    let parent = derive::secp256k1_compressed(xy).ok()?;
    let child = derive::derive_secp256k1(&parent, &CHAIN_CODE, path).ok()?;
    derive::secp256k1_coordinates(&child.public_key).ok().map(|xy| xy.to_vec())
}

fn child_ed25519(key: &[u8], path: &[u32]) -> Option<Vec<u8>> {
    if path.is_empty() {
        return Some(key.to_vec());
    }
    Some(derive::derive_ed25519(key.try_into().ok()?, &CHAIN_CODE, path).ok()?.public_key.to_vec())
}

fn sec1(xy: &[u8]) -> Vec<u8> {
    [&[4], xy].concat()
}

impl SignaturesVerify {
    fn verify(&mut self, world: &World, answer: &Answer) -> Result<(), String> {
        let name = (answer.dedup.clone(), answer.raw.clone());
        if self.good.contains(&name) {
            return Ok(());
        }
        let Some(keys) = world.clients.wallets.get(&answer.wallet) else {
            self.waiting.push(answer.clone());
            return Ok(());
        };
        // By its place in the stream, if the answer still says that; by its id otherwise.
        let asked: Vec<_> = match super::answers_fit::request(world, answer) {
            Some(request) => vec![request],
            None => world
                .clients
                .requests
                .iter()
                .filter(|r| r.wallet == answer.wallet && r.transaction == answer.transaction)
                .collect(),
        };
        let field = |name: &str| {
            answer.body.get(name).and_then(|v| v.as_str()).and_then(|v| STANDARD.decode(v).ok()).unwrap_or_default()
        };
        let good = asked.iter().any(|request| match request.curve {
            Some(Curve::Secp256k1) => {
                let (r, s, recovery) = (field("r"), field("s"), field("signature_recovery"));
                child_secp256k1(&keys.secp256k1, &request.path)
                    .is_some_and(|key| secp256k1(&key, &request.message, &r, &s, &recovery))
            }
            Some(Curve::Ed25519) => child_ed25519(&keys.ed25519, &request.path)
                .is_some_and(|key| ed25519(&key, &request.message, &field("signature"))),
            None => false,
        });
        if good {
            self.good.insert(name);
            Ok(())
        } else {
            Err(format!(
                "{} of {}: the published signature is not over what was asked for, or not under the wallet's key: {}",
                answer.transaction,
                answer.wallet,
                String::from_utf8_lossy(&answer.raw)
            ))
        }
    }
}

fn secp256k1(key: &[u8], digest: &[u8], r: &[u8], s: &[u8], recovery: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_sec1_bytes(&sec1(key)), Signature::from_slice(&[r, s].concat()))
    else {
        return false;
    };
    let &[recovery] = recovery else { return false };
    let low = signature.normalize_s() == signature;
    let recovered =
        RecoveryId::from_byte(recovery).and_then(|id| VerifyingKey::recover_from_prehash(digest, &signature, id).ok());
    low && recovered == Some(key)
}

fn ed25519(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok(key) =
        key.try_into().map_err(|_| ()).and_then(|k| ed25519_dalek::VerifyingKey::from_bytes(k).map_err(|_| ()))
    else {
        return false;
    };
    ed25519_dalek::Signature::from_slice(signature).is_ok_and(|s| key.verify_strict(message, &s).is_ok())
}
