//! The protocols alone: all parties in this process, messages handed over in memory, nothing else. What one operation
//! costs here is the yardstick for what it costs through a cluster.

use std::{collections::VecDeque, path::Path, sync::Arc};

use mpcium_core::{
    Secret,
    protocol::{
        Abort, AuxiliarySet, AuxiliaryView, Curve, Incoming, KeyShare, Outcome, Party, Run, Signing, Status, Suites,
    },
};

/// Members of the committee.
pub const MEMBERS: u16 = 3;
/// How many of them sign.
pub const THRESHOLD: u16 = 2;

/// One committee's keys and auxiliary data, all in one process.
#[derive(Debug)]
pub struct Committee {
    suites: Suites,
    shares: Vec<Vec<KeyShare>>,
    sets: Vec<AuxiliarySet>,
    occasion: u64,
}

impl Committee {
    /// Makes keys, and auxiliary data from a file of safe primes. Takes a minute or two.
    ///
    /// # Errors
    /// If the file is not what it should be, or a protocol fails.
    pub fn make(primes: &Path) -> Result<Self, String> {
        let suites = Suites::production();
        let mut committee = Self { suites: suites.clone(), shares: Vec::new(), sets: Vec::new(), occasion: 0 };
        committee.shares = committee.make_wallet()?;
        let auxiliary = suites.secp256k1.auxiliary().ok_or("the ECDSA suite has no auxiliary data")?;
        let each = usize::from(auxiliary.ingredient_pieces());
        let primes = read_primes(primes)?;
        let ingredients = primes.chunks_exact(each).map(<[Secret]>::to_vec);
        let runs = committee.runs(MEMBERS);
        if primes.len() < each * runs.len() {
            return Err(format!("{} primes are too few for {} members", primes.len(), runs.len()));
        }
        let parties = runs.into_iter().zip(ingredients).map(|(run, pieces)| auxiliary.start(run, pieces));
        for outcome in run_all(parties)? {
            match outcome {
                Outcome::Auxiliary(set) => committee.sets.push(set),
                other => return Err(format!("expected auxiliary data, got {other:?}")),
            }
        }
        Ok(committee)
    }

    /// Makes the keys of one wallet: every member's shares.
    ///
    /// # Errors
    /// If the protocol fails.
    pub fn make_wallet(&mut self) -> Result<Vec<Vec<KeyShare>>, String> {
        let parties: Vec<_> =
            self.runs(MEMBERS).into_iter().map(|run| self.suites.keygen.start(run, THRESHOLD)).collect();
        run_all(parties.into_iter())?
            .into_iter()
            .map(|outcome| match outcome {
                Outcome::Keys(shares) => Ok(shares),
                other => Err(format!("expected keys, got {other:?}")),
            })
            .collect()
    }

    /// Makes one signature with the first members.
    ///
    /// # Errors
    /// If the protocol fails.
    pub fn sign(&mut self, curve: Curve, message: &[u8]) -> Result<Vec<u8>, String> {
        let runs = self.runs(THRESHOLD);
        let signers: Vec<u16> = (0..THRESHOLD).collect();
        let suite = self.suites.signing(curve);
        let parties = runs.into_iter().zip(&self.shares).enumerate().map(|(at, (run, shares))| {
            let key = shares.iter().find(|share| share.curve == curve).cloned();
            let key = Arc::new(key.ok_or_else(|| Abort::new("no key on this curve"))?);
            let auxiliary = suite.auxiliary().and(self.sets.get(at)).map(|set| AuxiliaryView {
                secret: set.secret.clone(),
                rows: set.rows.iter().take(signers.len()).cloned().collect(),
            });
            suite.start(run, Signing { key, signers: signers.clone(), message: message.to_vec(), auxiliary })
        });
        match run_all(parties)?.into_iter().next() {
            Some(Outcome::Signature(signature)) => Ok(signature),
            other => Err(format!("expected a signature, got {other:?}")),
        }
    }

    fn runs(&mut self, parties: u16) -> Vec<Run> {
        self.occasion += 1;
        let mut execution_id = [0; 32];
        execution_id[..8].copy_from_slice(&self.occasion.to_le_bytes());
        let seed = |index: u16| {
            let mut seed = execution_id;
            seed[8..10].copy_from_slice(&index.to_le_bytes());
            seed
        };
        (0..parties).map(|index| Run { execution_id, index, parties, seed: seed(index) }).collect()
    }
}

/// Lets parties talk until all are done.
fn run_all(parties: impl Iterator<Item = Result<Box<dyn Party>, Abort>>) -> Result<Vec<Outcome>, String> {
    let mut parties = parties.collect::<Result<Vec<_>, _>>().map_err(|abort| abort.reason)?;
    let mut outcomes: Vec<Option<Outcome>> = parties.iter().map(|_| None).collect();
    let mut work: VecDeque<(usize, Vec<Incoming>)> = (0..parties.len()).map(|party| (party, Vec::new())).collect();
    while let Some((at, inbox)) = work.pop_front() {
        if outcomes[at].is_some() {
            continue;
        }
        let step = parties[at].advance(inbox);
        let from = u16::try_from(at).map_err(|error| error.to_string())?;
        for outgoing in step.messages {
            let broadcast = outgoing.to.is_none();
            for to in (0..parties.len()).filter(|to| *to != at && outgoing.to.is_none_or(|one| usize::from(one) == *to))
            {
                work.push_back((to, vec![Incoming { from, broadcast, bytes: outgoing.bytes.clone() }]));
            }
        }
        match step.status {
            Status::Waiting => {}
            Status::Done(outcome) => outcomes[at] = Some(outcome),
            Status::Failed(abort) => return Err(abort.reason),
        }
    }
    outcomes.into_iter().collect::<Option<_>>().ok_or_else(|| "a party waits for ever".to_owned())
}

fn read_primes(path: &Path) -> Result<Vec<Secret>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| hex::decode(line).map(Secret::new).map_err(|error| format!("{}: {error}", path.display())))
        .collect()
}
