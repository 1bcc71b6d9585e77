//! The real protocols: for ECDSA, by the seed, DKLs23 as in production or CGGMP24 at a toy security level, so that a run
//! takes seconds of computation instead of hours; FROST as in production. The toy level exists only here; no binary of
//! the product can name it.
//!
//! DKLs23 draws from the thread's generator instead of one that core seeds. The simulator's executor answers the system
//! call that seeds it, and every run has a thread of its own, so it follows the seed as well.

use std::sync::Arc;

use cggmp24::define_security_level;
use mpcium_core::protocol::{EcdsaProtocol, Suites, cggmp::Cggmp};

use crate::dice::Dice;

/// How often ECDSA is DKLs23.
const DKLS: f64 = 0.5;

/// 600-bit moduli: fast, and worthless.
#[derive(Clone)]
pub(crate) struct Toy;

define_security_level!(Toy {
    kappa_bits: 256,
    rsa_prime_bitlen: 300,
    rsa_pubkey_bitlen: 599,
    epsilon: 440,
    ell: 140,
    ell_prime: 100,
    m: 128,
});

/// The suites of a cluster with real protocols. All nodes of a run have the same ones, also after a restart.
#[must_use]
pub fn suites(seed: u64) -> Suites {
    let dkls = Suites::production(EcdsaProtocol::Dkls23);
    if Dice::new(seed, "ecdsa protocol").chance(DKLS) {
        dkls
    } else {
        Suites { secp256k1: Arc::new(Cggmp::<Toy>::new()), ..dkls }
    }
}
