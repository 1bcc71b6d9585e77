//! The protocols alone: all parties in this process, messages handed over in memory, nothing else. What one operation
//! costs here is the yardstick for what it costs through a cluster.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::Arc,
};

use mpcium_core::{
    Secret,
    protocol::{
        Abort, AuxiliarySet, AuxiliaryView, Coverage, Curve, EcdsaProtocol, Incoming, KeyShare, Opened, Outcome, Party,
        Preimage, Presignature, Presigning, Run, Signing, Status, Suites,
    },
};

/// One committee's keys and auxiliary data, all in one process.
#[derive(Debug)]
pub struct Committee {
    suites: Suites,
    members: u16,
    threshold: u16,
    shares: Vec<Vec<Arc<KeyShare>>>,
    /// Every member's part of the set of all members, or of each pair's set by its members; as nodes keep it.
    sets: BTreeMap<Vec<u16>, Vec<(AuxiliarySet, Option<Opened>)>>,
    occasion: u64,
    /// Bytes that all parties sent since they were last asked for.
    bytes: usize,
}

impl Committee {
    /// Makes keys, and auxiliary data, for CGGMP24 from a file of safe primes, which takes a minute or two.
    ///
    /// # Errors
    /// If the file is not what it should be, or a protocol fails.
    pub fn make(ecdsa: EcdsaProtocol, members: u16, threshold: u16, primes: &Path) -> Result<Self, String> {
        let suites = Suites::production(ecdsa);
        let (shares, sets) = (Vec::new(), BTreeMap::new());
        let mut committee = Self { suites: suites.clone(), members, threshold, shares, sets, occasion: 0, bytes: 0 };
        let shares = committee.make_wallet()?;
        committee.shares = shares.into_iter().map(|of| of.into_iter().map(Arc::new).collect()).collect();
        let auxiliary = suites.secp256k1.auxiliary().ok_or("the ECDSA suite has no auxiliary data")?;
        let each = usize::from(auxiliary.ingredient_pieces());
        let primes = read_primes(primes)?;
        let ingredients = primes.chunks_exact(each.max(1)).map(<[Secret]>::to_vec);
        if primes.len() < each * usize::from(members) {
            return Err(format!("{} primes are too few for {members} members", primes.len()));
        }
        let groups: Vec<Vec<u16>> = match auxiliary.coverage() {
            Coverage::Committee => vec![(0..members).collect()],
            Coverage::Pairs => (0..members).flat_map(|one| (one + 1..members).map(move |two| vec![one, two])).collect(),
        };
        let ingredients: Vec<Vec<Secret>> =
            if each == 0 { vec![Vec::new(); usize::from(members)] } else { ingredients.collect() };
        for group in groups {
            let runs = committee.runs(u16::try_from(group.len()).unwrap_or(u16::MAX));
            let parties = runs.into_iter().zip(&ingredients).map(|(run, pieces)| auxiliary.start(run, pieces.clone()));
            let mut sets = Vec::new();
            for outcome in run_all(parties, &mut committee.bytes)? {
                match outcome {
                    Outcome::Auxiliary(set) => {
                        let opened = auxiliary.open(&set);
                        sets.push((set, opened));
                    }
                    other => return Err(format!("expected auxiliary data, got {other:?}")),
                }
            }
            committee.sets.insert(group, sets);
        }
        Ok(committee)
    }

    /// Makes the keys of one wallet: every member's shares.
    ///
    /// # Errors
    /// If the protocol fails.
    pub fn make_wallet(&mut self) -> Result<Vec<Vec<KeyShare>>, String> {
        let runs = self.runs(self.members);
        let parties: Vec<_> = runs.into_iter().map(|run| self.suites.keygen.start(run, self.threshold)).collect();
        run_all(parties.into_iter(), &mut self.bytes)?
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
        let runs = self.runs(self.threshold);
        let signers: Vec<u16> = (0..self.threshold).collect();
        let suite = self.suites.signing(curve).clone();
        let parties = runs.into_iter().zip(&self.shares).enumerate().map(|(at, (run, shares))| {
            let key = shares.iter().find(|share| share.curve == curve).cloned();
            let key = key.ok_or_else(|| Abort::new("no key on this curve"))?;
            let auxiliary = suite.auxiliary().map(|_| self.views(at, signers.len())).unwrap_or_default();
            suite.start(run, Signing { key, signers: signers.clone(), message: message.to_vec(), auxiliary })
        });
        let parties: Vec<_> = parties.collect();
        match run_all(parties.into_iter(), &mut self.bytes)?.into_iter().next() {
            Some(Outcome::Signature(signature)) => Ok(signature),
            other => Err(format!("expected a signature, got {other:?}")),
        }
    }

    /// Computes in advance what makes signatures cheaper, as nodes do once per set and start. Each set is read once
    /// here; in a cluster every member does so for itself.
    pub fn precompute(&mut self) {
        let suite = self.suites.secp256k1.clone();
        let Some(auxiliary) = suite.auxiliary() else { return };
        for sets in self.sets.values_mut() {
            let work = sets.first().and_then(|(set, _)| auxiliary.precompute(&set.rows));
            let Some(made) = work.and_then(|work| work()) else { continue };
            sets.iter_mut().for_each(|(_, opened)| *opened = Some(made.clone()));
        }
    }

    /// Makes one presignature with the first members: every signer's part.
    ///
    /// # Errors
    /// If the protocol fails, or makes none.
    pub fn presign(&mut self) -> Result<Vec<Box<dyn Presignature>>, String> {
        let runs = self.runs(self.threshold);
        let signers: Vec<u16> = (0..self.threshold).collect();
        let suite = self.suites.secp256k1.clone();
        let presigning = suite.presigning().ok_or("the protocol makes no presignatures")?;
        let parties = runs.into_iter().zip(&self.shares).enumerate().map(|(at, (run, shares))| {
            let key = shares.iter().find(|share| share.curve == Curve::Secp256k1).cloned();
            let key = key.ok_or_else(|| Abort::new("no key on this curve"))?;
            presigning
                .start(run, Presigning { key, signers: signers.clone(), auxiliary: self.views(at, signers.len()) })
        });
        let parties: Vec<_> = parties.collect();
        let part = |outcome| match outcome {
            Outcome::Presignature(presignature) => Ok(presignature),
            other => Err(format!("expected a presignature, got {other:?}")),
        };
        run_all(parties.into_iter(), &mut self.bytes)?.into_iter().map(part).collect()
    }

    /// Signs a message with a presignature.
    ///
    /// # Errors
    /// If the protocol fails.
    pub fn sign_with(&mut self, presignature: Vec<Box<dyn Presignature>>, preimage: &Preimage) -> Result<(), String> {
        let parties = presignature.into_iter().zip(self.runs(self.threshold));
        let parties: Vec<_> = parties.map(|(part, run)| part.sign(run, preimage)).collect();
        run_all(parties.into_iter(), &mut self.bytes).map(drop)
    }

    /// Bytes that all parties sent since this was last asked.
    pub fn take_bytes(&mut self) -> usize {
        std::mem::take(&mut self.bytes)
    }

    /// What the signer at position `at` of the first `signers` members gets.
    fn views(&self, at: usize, signers: usize) -> Vec<AuxiliaryView> {
        let mut views = Vec::new();
        for (members, sets) in &self.sets {
            let own = members.iter().position(|member| usize::from(*member) == at);
            let Some((set, opened)) = own.and_then(|own| sets.get(own)) else { continue };
            let of_all = members.len() == usize::from(self.members) && sets.len() != 2;
            if of_all || members.iter().all(|member| usize::from(*member) < signers) {
                let rows = if of_all { signers } else { set.rows.len() };
                views.push(AuxiliaryView {
                    secret: set.secret.clone(),
                    rows: set.rows.iter().take(rows).cloned().collect(),
                    opened: opened.clone(),
                });
            }
        }
        views
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

/// Lets parties talk until all are done, and adds up the bytes that they send.
fn run_all(
    parties: impl Iterator<Item = Result<Box<dyn Party>, Abort>>,
    bytes: &mut usize,
) -> Result<Vec<Outcome>, String> {
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
                *bytes += outgoing.bytes.len();
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
