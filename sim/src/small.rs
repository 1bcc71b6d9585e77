//! The real protocols: for ECDSA, by the seed, DKLs23 as in production or CGGMP24 at a toy security level, so that a run
//! takes seconds of computation instead of hours; FROST as in production. No binary of the product can name that level.
//!
//! DKLs23 draws from the thread's generator instead of one that core seeds. The simulator's executor answers the system
//! call that seeds it, and every run has a thread of its own, so it follows the seed as well.

#[path = "../../core/tests/common_protocol/toy.rs"]
mod toy;

use std::sync::Arc;

use mpcium_core::protocol::{EcdsaProtocol, Suites, cggmp::Cggmp};

use self::toy::Toy;
use crate::dice::Dice;

/// How often ECDSA is DKLs23.
const DKLS: f64 = 0.5;

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
