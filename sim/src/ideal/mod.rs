//! Ideal suites: the same message shapes as the real protocols with trivial mathematics, for very many scenarios.
//!
//! Keys are real Shamir shares on the real curves and signatures are real ones, so the core's own checks and the
//! harness's work unchanged; but nothing is hidden from the other parties of a run. The [`Witness`] watches from
//! within what no outside checker can see: which messages are signed, and that no one-time secret serves two of them.

mod auxiliary;
mod curve;
mod keygen;
mod presigning;
mod rounds;
mod signing;
mod witness;

use std::sync::Arc;

use crate::planted::Planted;
use mpcium_core::{
    Duration,
    protocol::{Coverage, Curve, Pace, Suites},
};

pub use auxiliary::IdealAuxiliary;
pub use curve::{interpolated_public_key, public_key_of};
pub use keygen::IdealKeyGeneration;
pub use signing::{CHECK_FAILED, IdealSigning};
pub use witness::{PairSeen, Reveal, Witness};

/// How long ideal runs may take.
pub(crate) fn pace() -> Pace {
    Pace { bytes: 64 * 1024, progress: Duration::from_secs(5), cap: Duration::from_secs(30), heavy: false }
}

/// The suites of an ideal cluster; all of its nodes share the witness. A bug may be planted in them.
#[must_use]
pub fn suites(witness: &Arc<Witness>, planted: Option<Planted>) -> Suites {
    suites_with(Coverage::Committee, witness, planted)
}

/// The same with auxiliary data for each pair of nodes, which a failed check of the other's messages bans.
#[must_use]
pub fn pairwise_suites(witness: &Arc<Witness>, planted: Option<Planted>) -> Suites {
    suites_with(Coverage::Pairs, witness, planted)
}

fn suites_with(coverage: Coverage, witness: &Arc<Witness>, planted: Option<Planted>) -> Suites {
    Suites {
        keygen: Arc::new(IdealKeyGeneration::new(witness.clone(), planted)),
        secp256k1: Arc::new(IdealSigning::new(
            Curve::Secp256k1,
            Some(IdealAuxiliary::new(coverage, witness.clone())),
            witness.clone(),
            planted,
        )),
        ed25519: Arc::new(IdealSigning::new(Curve::Ed25519, None, witness.clone(), planted)),
    }
}
