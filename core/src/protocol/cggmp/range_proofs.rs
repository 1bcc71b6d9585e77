//! The check of both range proofs of round 1b, which the library leaves out.
//!
//! In round 1 a signer encrypts its nonce shares `k` and `γ` under its Paillier key and proves, to each other signer
//! separately, that both are small (`psi0`, `psi1`). The library accepts the message if *either* proof is good,
//! because an `Option` is propagated the wrong way round. A nonce share out of range is what published attacks extract
//! keys with. So both proofs are verified here before the library sees the message; if they are good, the library's
//! own check accepts after the first one, so that nothing is verified more often than it has to be.

use cggmp24::ExecutionId;
use cggmp24::security_level::SecurityLevel;
use cggmp24::signing::msg::{MsgRound1a, MsgRound1b};
use generic_ec::curves::Secp256k1;
use paillier_zk::fast_paillier::EncryptionKey;
use paillier_zk::paillier_encryption_in_range_with_el_gamal as range;
use sha2::Sha256;

use super::rows::Row;

/// Encodes like the library's private type of the same tag: what a range proof of round 1b is bound to.
#[derive(udigest::Digestable)]
#[udigest(tag = "dfns.cggmp24.signing.proof_enc")]
struct Occasion<'a> {
    sid: ExecutionId<'a>,
    prover: u16,
    num: u8,
}

/// Verifies the range proofs that the other signers send to this one.
pub(super) struct Verifier {
    execution_id: Vec<u8>,
    /// This signer's ring-Pedersen parameters, under which the others commit.
    parameters: range::Aux,
    /// The signers' Paillier keys, in their order.
    keys: Vec<EncryptionKey>,
    security: range::SecurityParams,
}

impl Verifier {
    pub(super) fn new<L: SecurityLevel>(execution_id: Vec<u8>, own: &Row, rows: &[Row]) -> Self {
        Self {
            execution_id,
            parameters: (&own.library_parameters()).into(),
            keys: rows.iter().map(|row| EncryptionKey::from_n(row.paillier.clone())).collect(),
            security: range::SecurityParams { l: L::ELL, epsilon: L::EPSILON },
        }
    }

    /// Checks both proofs of `prover` about the ciphertexts of its round 1a.
    pub(super) fn check(
        &self,
        prover: u16,
        first: &MsgRound1a<Secp256k1>,
        proofs: &MsgRound1b<Secp256k1>,
    ) -> Result<(), String> {
        let key = self.keys.get(usize::from(prover)).ok_or_else(|| format!("no Paillier key of signer {prover}"))?;
        let sid = ExecutionId::new(&self.execution_id);
        let statements = [
            (0, "nonce share k", &first.K, &first.A1, &first.A2, &proofs.psi0),
            (1, "nonce share γ", &first.G, &first.B1, &first.B2, &proofs.psi1),
        ];
        for (num, what, ciphertext, b, x, proof) in statements {
            let data = range::Data { key, ciphertext, a: &first.Y, b, x };
            range::non_interactive::verify::<Secp256k1, Sha256>(
                &Occasion { sid, prover, num },
                &self.parameters,
                data,
                proof,
                &self.security,
            )
            .map_err(|_| format!("the range proof of the encrypted {what} is not valid"))?;
        }
        Ok(())
    }
}
