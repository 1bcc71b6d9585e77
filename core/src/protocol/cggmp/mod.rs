//! CGGMP24: threshold ECDSA on secp256k1 (Canetti, Gennaro, Goldfeder, Makriyannis, Peled; ePrint 2021/060, revised).
//!
//! The protocol is a library's. This folder adds what the library leaves open: both range proofs of round 1b are
//! enforced ([`range_proofs`]), the ring-Pedersen proof has its full strength ([`ring_pedersen`]), the sender of a
//! wrong partial signature is named, and no signature leaves unverified (`protocol::ecdsa`). Nothing outside of it knows of
//! Paillier keys.

mod auxiliary;
mod presigning;
mod primes;
mod range_proofs;
mod ring_pedersen;
mod rows;
mod signing;
mod tables;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use cggmp24::security_level::{SecurityLevel, SecurityLevel128};

use super::{
    Abort, AuxiliarySet, AuxiliarySuite, Curve, Opened, Pace, Party, Precomputation, Presigning, PresigningSuite, Run,
    Signing, SigningSuite,
};
use crate::{Duration, Secret};

/// Signs on secp256k1 with CGGMP24 at a security level.
///
/// The level is a type: the node is built with [`SecurityLevel128`], tests and simulations with a toy level that they
/// define themselves, so that nothing in the binary can select it.
pub struct Cggmp<L = SecurityLevel128>(PhantomData<fn() -> L>);

impl<L: SecurityLevel> Cggmp<L> {
    /// The suite at level `L`.
    #[must_use]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<L: SecurityLevel> Default for Cggmp<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: SecurityLevel> std::fmt::Debug for Cggmp<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cggmp({}-bit moduli)", L::RSA_PUBKEY_BITLEN + 1)
    }
}

/// Bytes of a modulus at level `L`.
fn modulus_bytes<L: SecurityLevel>() -> usize {
    (2 * L::RSA_PRIME_BITLEN).div_ceil(8) as usize
}

impl<L: SecurityLevel> SigningSuite for Cggmp<L> {
    fn name(&self) -> &'static str {
        if L::RSA_PUBKEY_BITLEN >= SecurityLevel128::RSA_PUBKEY_BITLEN { "cggmp24" } else { "cggmp24-toy" }
    }

    fn curve(&self) -> Curve {
        Curve::Secp256k1
    }

    fn pace(&self, parties: u16) -> Pace {
        // One step is below a second and a whole run is 1 to 4 seconds of work per party, on a machine that may be
        // ten times slower or busy with ten others.
        let parties = u64::from(parties);
        Pace {
            bytes: 6 * signing::bytes_max::<L>(),
            progress: Duration::from_secs(20),
            cap: Duration::from_secs(60 + 10 * parties),
            heavy: false,
        }
    }

    fn auxiliary(&self) -> Option<&dyn AuxiliarySuite> {
        Some(self)
    }

    fn verify(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        super::ecdsa::verify(public_key, message, signature)
    }

    fn start(&self, run: Run, signing: Signing) -> Result<Box<dyn Party>, Abort> {
        signing::start::<L>(run, signing)
    }

    fn presigning(&self) -> Option<&dyn PresigningSuite> {
        Some(self)
    }
}

impl<L: SecurityLevel> PresigningSuite for Cggmp<L> {
    fn pace(&self, parties: u16) -> Pace {
        SigningSuite::pace(self, parties)
    }

    fn start(&self, run: Run, presigning: Presigning) -> Result<Box<dyn Party>, Abort> {
        presigning::start::<L>(run, presigning)
    }
}

impl<L: SecurityLevel> AuxiliarySuite for Cggmp<L> {
    fn pace(&self, parties: u16) -> Pace {
        // 13 seconds of work for 3 parties and 34 for 9, our proofs another second per party, in steps of up to 20
        // seconds; nobody waits for it, so slow machines get ten times that.
        let parties = u64::from(parties);
        Pace {
            bytes: 4 * auxiliary::bytes_max::<L>(),
            progress: Duration::from_secs(120 + 30 * parties),
            cap: Duration::from_secs(600 + 120 * parties),
            heavy: true,
        }
    }

    fn ingredient_pieces(&self) -> u16 {
        primes::PIECES
    }

    fn make_ingredient_piece(&self, seed: [u8; 32]) -> Secret {
        primes::make_piece::<L>(seed)
    }

    fn start(&self, run: Run, ingredient: Vec<Secret>) -> Result<Box<dyn Party>, Abort> {
        auxiliary::start::<L>(run, &ingredient)
    }

    fn check(&self, set: &AuxiliarySet, index: u16) -> Result<(), Abort> {
        auxiliary::check::<L>(set, index)
    }

    fn precompute(&self, rows: &[Vec<u8>]) -> Option<Precomputation> {
        let rows = rows.to_vec();
        Some(Box::new(move || tables::Tables::make::<L>(&rows).map(Opened::new)))
    }
}
