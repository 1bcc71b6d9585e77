//! The real protocols: for ECDSA, by the seed, DKLs23 as in production or CGGMP24 at a toy security level, so that a run
//! takes seconds of computation instead of hours; FROST as in production. No binary of the product can name that level.
//!
//! DKLs23 draws from the thread's generator instead of one that core seeds. Every step seeds it by a system call, which the
//! simulator's executor answers, so it follows the seed as well.
//!
//! Nearly all the time of such a run would go into auxiliary data: a set-up with DKLs23 for every pair of nodes, or safe
//! primes. So most runs begin with what a quiet run of the same protocols has left of it, made once in a process
//! ([`left_before`]); in the others it is made under faults as everything else.

#[path = "../../core/tests/common_protocol/toy.rs"]
mod toy;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use mpcium_core::{
    protocol::{EcdsaProtocol, Suites, cggmp::Cggmp},
    store::Keyspace,
};

use self::toy::Toy;
use crate::{dice::Dice, frozen::OldRecord, run, scenario::Scenario};

/// How often ECDSA is DKLs23.
const DKLS: f64 = 0.5;

/// The suites of a cluster with real protocols. All nodes of a run have the same ones, also after a restart.
#[must_use]
pub fn suites(seed: u64) -> Suites {
    let dkls = Suites::production(EcdsaProtocol::Dkls23);
    if is_dkls(seed) { dkls } else { Suites { secp256k1: Arc::new(Cggmp::<Toy>::new()), ..dkls } }
}

fn is_dkls(seed: u64) -> bool {
    Dice::new(seed, "ecdsa protocol").chance(DKLS)
}

/// What every node of a cluster holds of auxiliary data after a quiet run, in the order of nodes.
pub type Auxiliary = Arc<Vec<Vec<OldRecord>>>;

/// Made once, by whoever needs it first.
type Once = Arc<OnceLock<Auxiliary>>;

/// What was made so far in this process, by the protocol (whether it is DKLs23) and the number of nodes.
static MADE: Mutex<BTreeMap<(bool, usize), Once>> = Mutex::new(BTreeMap::new());

/// The auxiliary data with which a run begins. It depends on nothing but the protocol and the nodes.
///
/// # Panics
/// If the quiet run fails: there is nothing to begin with then.
#[must_use]
pub fn left_before(scenario: &Scenario) -> Auxiliary {
    let key = (is_dkls(scenario.seed), scenario.nodes);
    let made = MADE.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
    made.get_or_init(|| {
        let quiet = (0..).map(|seed| Scenario::to_prepare(seed, scenario.nodes)).find(|s| is_dkls(s.seed) == key.0);
        let frozen = quiet.map(run::leave_behind);
        let mut disks = match frozen {
            Some(Ok(frozen)) => frozen.disks,
            other => panic!("no auxiliary data was made in advance: {other:?}"),
        };
        for disk in &mut disks {
            disk.retain(|(keyspace, ..)| matches!(keyspace, Keyspace::Auxiliary | Keyspace::Ingredients));
        }
        Arc::new(disks)
    })
    .clone()
}
