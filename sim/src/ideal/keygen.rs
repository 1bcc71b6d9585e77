//! Ideal key generation: commit to a contribution, reveal it, confirm the result; both curves in one run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use mpcium_core::{
    Secret,
    protocol::{Abort, Checked, Curve, KeyGeneration, KeyShare, Outcome, Pace, Party, Run},
};
use sha2::{Digest as _, Sha256};

use crate::planted::Planted;

use super::{
    Witness,
    curve::{Scalar, evaluate},
    pace,
    rounds::{Next, RoundParty, Rounds},
};

/// Results that are kept so that only the first party of a run computes them.
const RUNS_CACHED: usize = 16;

type Shares = Arc<Vec<Vec<KeyShare>>>;

/// Makes real Shamir shares of a key that all parties of the run could compute.
#[derive(Debug)]
pub struct IdealKeyGeneration {
    witness: Arc<Witness>,
    /// All parties' shares by the hash of all contributions: every party would compute the same.
    cache: Arc<Mutex<BTreeMap<[u8; 32], Shares>>>,
    planted: Option<Planted>,
}

impl IdealKeyGeneration {
    /// With the cluster's witness, and perhaps a bug.
    #[must_use]
    pub fn new(witness: Arc<Witness>, planted: Option<Planted>) -> Self {
        Self { witness, cache: Arc::default(), planted }
    }
}

impl KeyGeneration for IdealKeyGeneration {
    fn name(&self) -> &'static str {
        "ideal keygen"
    }

    fn pace(&self, _: u16) -> Pace {
        pace()
    }

    fn start(&self, run: Run, threshold: u16) -> Result<Box<dyn Party>, Abort> {
        if threshold == 0 || threshold > run.parties {
            return Err(Abort::new(format!("a threshold of {threshold} among {} parties is impossible", run.parties)));
        }
        self.witness.run(&run);
        let contribution: [u8; 32] =
            Sha256::digest([b"contribution".as_slice(), &run.seed, &run.execution_id].concat()).into();
        let party = IdealKeygenParty {
            run: run.clone(),
            threshold,
            contribution,
            stage: 0,
            commitments: Vec::new(),
            keys: None,
            witness: self.witness.clone(),
            cache: self.cache.clone(),
            planted: self.planted,
        };
        Ok(Box::new(RoundParty::new(&run, party)?))
    }
}

struct IdealKeygenParty {
    run: Run,
    threshold: u16,
    contribution: [u8; 32],
    stage: u8,
    commitments: Vec<Vec<u8>>,
    keys: Option<([u8; 32], Shares)>,
    witness: Arc<Witness>,
    cache: Arc<Mutex<BTreeMap<[u8; 32], Shares>>>,
    planted: Option<Planted>,
}

impl IdealKeygenParty {
    fn shares(&self, combined: [u8; 32]) -> Shares {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shares) = cache.get(&combined) {
            return shares.clone();
        }
        let per_curve: Vec<Vec<KeyShare>> = Curve::ALL.into_iter().map(|curve| self.deal(curve, combined)).collect();
        for share in per_curve.iter().flatten() {
            self.witness.secret(share.secret.expose());
        }
        let by_party = (0..usize::from(self.run.parties))
            .map(|p| per_curve.iter().filter_map(|shares| shares.get(p).cloned()).collect())
            .collect();
        let shares: Shares = Arc::new(by_party);
        if cache.len() >= RUNS_CACHED {
            cache.pop_first();
        }
        cache.insert(combined, shares.clone());
        shares
    }

    fn deal(&self, curve: Curve, combined: [u8; 32]) -> Vec<KeyShare> {
        let coefficients: Vec<Scalar> = (0..self.threshold)
            .map(|i| Scalar::hashed(curve, &[b"coefficient", &combined, &i.to_be_bytes()]))
            .collect();
        let public_key = coefficients.first().map(|c| c.public()).unwrap_or_default();
        let secrets: Vec<Scalar> =
            (1..=u64::from(self.run.parties)).map(|x| evaluate(curve, &coefficients, x)).collect();
        let public_shares: Vec<Vec<u8>> = secrets.iter().map(|s| s.public()).collect();
        (0..self.run.parties)
            .zip(secrets)
            .map(|(index, secret)| KeyShare {
                curve,
                threshold: self.threshold,
                index,
                secret: Secret::new(secret.bytes()),
                public_key: public_key.clone(),
                public_shares: public_shares.clone(),
                checked: Checked::default(),
            })
            .collect()
    }
}

fn commitment(contribution: &[u8], position: usize) -> Vec<u8> {
    Sha256::digest([b"commitment".as_slice(), contribution, &position.to_be_bytes()].concat()).to_vec()
}

impl Rounds for IdealKeygenParty {
    fn next(&mut self, heard: &[Vec<u8>]) -> Result<Next, Abort> {
        self.stage += 1;
        let me = usize::from(self.run.index);
        match self.stage {
            1 => Ok(Next::Broadcast(commitment(&self.contribution, me))),
            2 => {
                self.commitments = heard.to_vec();
                Ok(Next::Broadcast(self.contribution.to_vec()))
            }
            3 => {
                let mut combined = Sha256::new();
                combined.update(self.run.execution_id);
                for (position, (body, promised)) in heard.iter().zip(&self.commitments).enumerate() {
                    let body = if position == me { self.contribution.as_slice() } else { body };
                    if position != me && commitment(body, position) != *promised {
                        let culprit = u16::try_from(position).unwrap_or(u16::MAX);
                        return Err(Abort::blaming(culprit, "the contribution is not the one committed to"));
                    }
                    combined.update(body);
                }
                let combined: [u8; 32] = combined.finalize().into();
                let shares = self.shares(combined);
                self.keys = Some((combined, shares));
                // A point-to-point round, as the real protocol has one: a token that depends on the common result.
                Ok(Next::Each(vec![Sha256::digest(combined).to_vec(); usize::from(self.run.parties)]))
            }
            _ => {
                let Some((combined, shares)) = self.keys.take() else {
                    return Err(Abort::new("no keys were computed"));
                };
                let token = Sha256::digest(combined).to_vec();
                if heard.iter().enumerate().any(|(p, body)| p != me && *body != token) {
                    // Whoever sent it, or whoever told the two of us different things.
                    return Err(Abort::new("another key was computed"));
                }
                let mut own = shares.get(me).cloned().unwrap_or_default();
                if self.planted == Some(Planted::WrongShare) && me == 0 {
                    for share in &mut own {
                        let mut bytes = share.secret.expose().to_vec();
                        bytes[16] ^= 1;
                        share.secret = Secret::new(bytes);
                    }
                }
                Ok(Next::Done(Outcome::Keys(own)))
            }
        }
    }

    fn is_broadcast(&self, round: u8) -> bool {
        round < 2
    }

    fn rounds(&self) -> u8 {
        3
    }
}
