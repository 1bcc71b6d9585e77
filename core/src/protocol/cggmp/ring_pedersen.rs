//! A proof at full strength that ring-Pedersen parameters are well formed: that `s` is a power of `t` modulo `N`.
//!
//! The library sends such a proof itself, but only the first 32 of its 128 challenge bits depend on the hash (a
//! counter is never advanced), so that a cheater needs 2³² attempts. With parameters where `s` is no power of `t`,
//! the commitments under them stop hiding, and range proofs leak what they should hide. Here all 128 bits are drawn.
//!
//! It is Schnorr's proof for a group of unknown order with one-bit challenges (Πprm in the CGGMP paper), made
//! non-interactive: `A_k = t^{a_k}`, `e = SHA-256(tag, execution id, prover, N, s, t, A_1..A_128)`,
//! `z_k = a_k + e_k λ mod φ(N)`, accepted if `t^{z_k} = A_k s^{e_k}` for every `k`.

use cggmp24::backend::Integer;
use paillier_zk::fast_paillier::utils::CrtExp;
use rand_core::RngCore;
use serde::{Deserialize, Serialize};

use crate::tags;

/// Number of one-bit challenges: a cheater succeeds with probability 2⁻¹²⁸ per hash.
const CHALLENGES: usize = 128;

/// Public parameters of one party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) modulus: Integer,
    pub(crate) s: Integer,
    pub(crate) t: Integer,
}

/// What proves that parameters are well formed. Not `Debug`.
pub(crate) struct Witness {
    /// Exponentiation modulo `N` by way of its factors.
    exponentiation: CrtExp,
    phi: Integer,
    lambda: Integer,
}

/// Occasion of a proof: nobody can use it in another run or as another party.
pub(crate) struct Statement<'a> {
    pub(crate) execution_id: &'a [u8; 32],
    pub(crate) prover: u16,
    pub(crate) parameters: &'a Parameters,
}

/// The proof as it travels: 128 pairs of big-endian integers without leading zeros.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Proof {
    commitments: Vec<Vec<u8>>,
    responses: Vec<Vec<u8>>,
}

/// Draws parameters exactly as the library does from the same generator (`generate_pedersen_params` in its `utils`):
/// first the root of `t`, then the exponent.
///
/// The library does not hand out the exponent, which a proof needs. Of the two ways to have it, this is the one that
/// is easy to prove right: the caller compares the parameters that the library announces with these and stops if they
/// differ, so a library that draws otherwise can fail a run but not weaken it. The alternative is an auxiliary-data
/// session of our own on the library's proofs, five times the code.
pub(crate) fn draw_as_the_library(rng: &mut impl RngCore, p: &Integer, q: &Integer) -> Option<(Parameters, Witness)> {
    let exponentiation = CrtExp::build_n(p, q)?;
    let modulus = p * q;
    let phi = (p - 1u8) * (q - 1u8);
    let root = Integer::sample_in_mult_group_of(rng, &modulus);
    let lambda = Integer::random_below(phi.clone() >> 2u32, rng);
    let t = root.square().modulo(&modulus);
    let s = exponentiation.exp(&t, &exponentiation.prepare_exponent(&lambda))?;
    Some((Parameters { modulus, s, t }, Witness { exponentiation, phi, lambda }))
}

/// Makes a proof; `None` only if the witness belongs to other parameters.
pub(crate) fn prove(statement: &Statement<'_>, witness: &Witness, rng: &mut impl RngCore) -> Option<Proof> {
    let Parameters { t, .. } = statement.parameters;
    let nonces: Vec<Integer> = (0..CHALLENGES).map(|_| witness.phi.random_below_ref(rng)).collect();
    let commitments = nonces
        .iter()
        .map(|nonce| {
            let exponent = witness.exponentiation.prepare_exponent(nonce);
            witness.exponentiation.exp(t, &exponent).map(|commitment| commitment.to_bytes_msf())
        })
        .collect::<Option<Vec<_>>>()?;
    let challenge = challenge(statement, &commitments);
    let responses = nonces
        .into_iter()
        .enumerate()
        .map(|(k, nonce)| {
            let response = if bit(&challenge, k) { (nonce + &witness.lambda).modulo(&witness.phi) } else { nonce };
            response.to_bytes_msf()
        })
        .collect();
    Some(Proof { commitments, responses })
}

/// Checks a proof. The caller has bounded the size of the modulus.
pub(crate) fn verify(statement: &Statement<'_>, proof: &Proof) -> Result<(), &'static str> {
    let Parameters { modulus, s, t } = statement.parameters;
    if modulus.is_even() || !s.in_mult_group_of(modulus) || !t.in_mult_group_of(modulus) {
        return Err("the parameters are not in their group");
    }
    if proof.commitments.len() != CHALLENGES || proof.responses.len() != CHALLENGES {
        return Err("the proof does not have 128 commitments and responses");
    }
    let challenge = challenge(statement, &proof.commitments);
    for (k, (commitment, response)) in proof.commitments.iter().zip(&proof.responses).enumerate() {
        let commitment = canonical(commitment).ok_or("a commitment is not in canonical encoding")?;
        let response = canonical(response).ok_or("a response is not in canonical encoding")?;
        if !commitment.in_mult_group_of(modulus) || response >= *modulus {
            return Err("a commitment or response is out of range");
        }
        let left = t.pow_mod_ref(&response, modulus).ok_or("a response is no exponent")?;
        let right = if bit(&challenge, k) { (s * commitment).modulo(modulus) } else { commitment };
        if left != right {
            return Err("an equation of the proof does not hold");
        }
    }
    Ok(())
}

fn bit(challenge: &[u8; 32], k: usize) -> bool {
    challenge.get(k / 8).is_some_and(|byte| byte >> (k % 8) & 1 == 1)
}

fn canonical(bytes: &[u8]) -> Option<Integer> {
    (bytes.first() != Some(&0)).then(|| Integer::from_bytes_msf(bytes))
}

/// The hash whose first 128 bits are the challenge. Every part is preceded by its length.
fn challenge(statement: &Statement<'_>, commitments: &[Vec<u8>]) -> [u8; 32] {
    let Parameters { modulus, s, t } = statement.parameters;
    let mut body = Vec::new();
    body.extend_from_slice(statement.execution_id);
    body.extend_from_slice(&statement.prover.to_be_bytes());
    let numbers = [modulus, s, t].map(Integer::to_bytes_msf);
    for part in numbers.iter().chain(commitments) {
        body.extend_from_slice(&(part.len() as u64).to_be_bytes());
        body.extend_from_slice(part);
    }
    tags::RING_PEDERSEN.hash(&body)
}

#[cfg(test)]
pub(super) mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    /// What is changed, and how.
    type Change = (&'static str, fn(&mut Proof));

    const EXECUTION: [u8; 32] = [7; 32];

    fn rng(seed: u8) -> ChaCha20Rng {
        ChaCha20Rng::from_seed([seed; 32])
    }

    fn drawn() -> (Parameters, Witness) {
        let mut rng = rng(1);
        let [p, q] = [(); 2].map(|()| Integer::generate_safe_prime(&mut rng, 300));
        draw_as_the_library(&mut rng, &p, &q).expect("primes")
    }

    fn statement(parameters: &Parameters) -> Statement<'_> {
        Statement { execution_id: &EXECUTION, prover: 2, parameters }
    }

    /// A proof whose equations hold wherever the challenge bit is zero, whatever `s` is.
    pub(in crate::protocol::cggmp) fn proof_with_zero_challenge(proof: &Proof, parameters: &Parameters) -> Proof {
        let commitments = proof
            .responses
            .iter()
            .map(|response| {
                let response = Integer::from_bytes_msf(response);
                parameters.t.pow_mod_ref(&response, &parameters.modulus).expect("an exponent").to_bytes_msf()
            })
            .collect();
        Proof { commitments, responses: proof.responses.clone() }
    }

    #[test]
    fn an_honest_proof_holds_and_only_for_its_occasion() {
        let (parameters, witness) = drawn();
        let proof = prove(&statement(&parameters), &witness, &mut rng(2)).expect("fits");
        assert_eq!(verify(&statement(&parameters), &proof), Ok(()));
        let elsewhere = Statement { execution_id: &[8; 32], ..statement(&parameters) };
        assert!(verify(&elsewhere, &proof).is_err());
        let as_another = Statement { prover: 1, ..statement(&parameters) };
        assert!(verify(&as_another, &proof).is_err());
    }

    #[test]
    fn a_wrong_exponent_is_refused() {
        let (parameters, mut witness) = drawn();
        witness.lambda = &witness.lambda + &Integer::one();
        let proof = prove(&statement(&parameters), &witness, &mut rng(2)).expect("fits");
        assert!(verify(&statement(&parameters), &proof).is_err());
    }

    #[test]
    fn parameters_whose_s_is_no_power_of_t_are_refused() {
        let (mut parameters, witness) = drawn();
        // Minus a square is no square modulo a product of two primes that are 3 modulo 4; powers of t are squares.
        parameters.s = &parameters.modulus - &parameters.s;
        let proof = prove(&statement(&parameters), &witness, &mut rng(2)).expect("fits");
        assert!(verify(&statement(&parameters), &proof).is_err());
    }

    #[test]
    fn a_proof_that_is_right_in_its_first_32_bits_only_is_refused() {
        let (parameters, witness) = drawn();
        let statement = statement(&parameters);
        let honest = prove(&statement, &witness, &mut rng(2)).expect("fits");
        let zero = proof_with_zero_challenge(&honest, &parameters);
        // Answers as the library would: 32 bits of the hash, then zeros. With `s` no power of `t` these are the 32
        // equations that a cheater has to be lucky with.
        let challenge = challenge(&statement, &zero.commitments);
        let responses = zero
            .responses
            .iter()
            .enumerate()
            .map(|(k, response)| {
                let response = Integer::from_bytes_msf(response);
                let answered = if k < 32 && bit(&challenge, k) { response + &witness.lambda } else { response };
                answered.modulo(&witness.phi).to_bytes_msf()
            })
            .collect();
        let forged = Proof { commitments: zero.commitments, responses };
        assert!(holds_for_32_bits(&statement, &forged), "the library's kind of check would accept it");
        assert!(verify(&statement, &forged).is_err());
    }

    /// The check with the library's weakness.
    fn holds_for_32_bits(statement: &Statement<'_>, proof: &Proof) -> bool {
        let Parameters { modulus, s, t } = statement.parameters;
        let challenge = challenge(statement, &proof.commitments);
        proof.commitments.iter().zip(&proof.responses).enumerate().all(|(k, (commitment, response))| {
            let commitment = Integer::from_bytes_msf(commitment);
            let left = t.pow_mod_ref(&Integer::from_bytes_msf(response), modulus).expect("an exponent");
            left == if k < 32 && bit(&challenge, k) { (s * commitment).modulo(modulus) } else { commitment }
        })
    }

    #[test]
    fn degenerate_proofs_are_refused() {
        let (parameters, witness) = drawn();
        let proof = prove(&statement(&parameters), &witness, &mut rng(2)).expect("fits");
        let changes: [Change; 5] = [
            ("a commitment less", |proof| drop(proof.commitments.pop())),
            ("a response less", |proof| drop(proof.responses.pop())),
            ("a zero commitment", |proof| proof.commitments[0].clear()),
            ("a leading zero", |proof| proof.responses[0].insert(0, 0)),
            ("a huge response", |proof| proof.responses[0].insert(0, 1)),
        ];
        for (what, change) in changes {
            let mut changed = proof.clone();
            change(&mut changed);
            assert!(verify(&statement(&parameters), &changed).is_err(), "{what}");
        }
        let mut outside = parameters.clone();
        outside.s = &parameters.s + &parameters.modulus;
        assert!(verify(&statement(&outside), &proof).is_err());
    }

    #[test]
    fn all_128_challenge_bits_vary() {
        let (parameters, witness) = drawn();
        let mut ones = [0; CHALLENGES];
        for seed in 0..40 {
            let proof = prove(&statement(&parameters), &witness, &mut rng(seed)).expect("fits");
            let challenge = challenge(&statement(&parameters), &proof.commitments);
            for (k, count) in ones.iter_mut().enumerate() {
                *count += u32::from(bit(&challenge, k));
            }
        }
        // A constant bit would be 0 or 40 times one; a fair one is so with probability 2^-39.
        assert!(ones.iter().all(|count| (1..40).contains(count)), "{ones:?}");
    }
}
