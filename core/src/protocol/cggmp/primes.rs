//! Ingredients: the four safe primes that one member puts into one auxiliary set.
//!
//! A piece is one safe prime of the level's size, big-endian. The first two make the Paillier modulus, the other two
//! the ring-Pedersen modulus. They are used once: a modulus that serves two sets would tie their proofs together.

use cggmp24::PregeneratedPrimes;
use cggmp24::backend::{Integer, IsPrime};
use cggmp24::security_level::SecurityLevel;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::Secret;
use crate::protocol::Abort;

/// Pieces of one ingredient.
pub(super) const PIECES: u16 = 4;

/// Makes one piece: a safe prime that depends on nothing but the seed.
pub(super) fn make_piece<L: SecurityLevel>(seed: [u8; 32]) -> Secret {
    let mut rng = ChaCha20Rng::from_seed(seed);
    Secret::new(Integer::generate_safe_prime(&mut rng, L::RSA_PRIME_BITLEN).to_bytes_msf())
}

/// Checks an ingredient and gives it to the library's type.
pub(super) fn read_ingredient<L: SecurityLevel>(pieces: &[Secret]) -> Result<[Integer; 4], Abort> {
    let primes: [Integer; 4] = pieces
        .iter()
        .map(|piece| read_piece::<L>(piece))
        .collect::<Result<Vec<_>, _>>()?
        .try_into()
        .map_err(|read: Vec<_>| Abort::new(format!("an ingredient of {} pieces, expected {PIECES}", read.len())))?;
    for (at, prime) in primes.iter().enumerate() {
        if primes.iter().skip(at + 1).any(|other| other == prime) {
            return Err(Abort::new("an ingredient with the same prime twice"));
        }
    }
    Ok(primes)
}

pub(super) fn pregenerated<L: SecurityLevel>(primes: [Integer; 4]) -> Result<PregeneratedPrimes<L>, Abort> {
    PregeneratedPrimes::try_from(primes).map_err(|_| Abort::new("a prime is too small for the security level"))
}

fn read_piece<L: SecurityLevel>(piece: &Secret) -> Result<Integer, Abort> {
    /// Up to this number GMP runs the Baillie–PSW test alone, for which no counterexample is known.
    const PRIMALITY_ROUNDS: u32 = 24;
    let bits = u64::from(L::RSA_PRIME_BITLEN);
    let bytes = piece.expose();
    // Before anything is computed with it.
    if bytes.len() as u64 != bits.div_ceil(8) {
        return Err(Abort::new(format!("a piece of {} bytes, expected a prime of {bits} bits", bytes.len())));
    }
    let prime = Integer::from_bytes_msf(bytes);
    if prime.significant_bits() != bits {
        return Err(Abort::new(format!("a prime of {} bits, expected {bits}", prime.significant_bits())));
    }
    // The test draws nothing secret.
    let mut rng = ChaCha20Rng::from_seed([0; 32]);
    let half = prime.clone() >> 1u32;
    for number in [&prime, &half] {
        if number.is_probably_prime(PRIMALITY_ROUNDS, &mut rng) == IsPrime::No {
            return Err(Abort::new("a piece is no safe prime"));
        }
    }
    Ok(prime)
}
