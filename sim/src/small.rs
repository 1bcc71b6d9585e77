//! The real protocols: CGGMP24 at a toy security level, so that a run takes seconds of computation instead of hours,
//! and FROST as in production. The toy level exists only here; no binary of the product can name it.

use std::sync::Arc;

use cggmp24::define_security_level;
use mpcium_core::protocol::{Suites, cggmp::Cggmp, frost::Frost, keygen::DistributedKeyGeneration};

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

/// The suites of a cluster with real protocols.
#[must_use]
pub fn suites() -> Suites {
    Suites {
        keygen: Arc::new(DistributedKeyGeneration),
        secp256k1: Arc::new(Cggmp::<Toy>::new()),
        ed25519: Arc::new(Frost),
    }
}
