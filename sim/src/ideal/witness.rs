//! What the ideal suites see from within: a fact that the invariants may use although no bus carries it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use mpcium_core::protocol::Run;
use sha2::{Digest as _, Sha256};

/// Results that are kept.
const MEMO_MAX: usize = 4_096;

/// Shared by all nodes of one simulated cluster; outlives their crashes.
#[derive(Debug, Default)]
pub struct Witness {
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    /// A party's nonce contribution, and the run and message that it served.
    nonces: BTreeMap<[u8; 32], [u8; 32]>,
    /// Messages for which any party began to sign.
    messages: BTreeSet<Vec<u8>>,
    /// Secrets that must not be seen outside.
    secrets: BTreeSet<Vec<u8>>,
    violations: Vec<String>,
    /// What one party computed and the others would compute again, by the hash of all that goes in.
    memo: BTreeMap<[u8; 32], Vec<u8>>,
    /// Runs by execution id and position, and the seed of that party.
    runs: BTreeMap<([u8; 32], u16), [u8; 32]>,
    /// Last secrets that were revealed since somebody asked.
    reveals: Vec<Reveal>,
    /// Last secrets of others that were taken in since somebody asked.
    absorbed: Vec<([u8; 32], u16)>,
    /// What became of auxiliary data of pairs since somebody asked.
    pairs: Vec<PairSeen>,
}

/// What a party did with the auxiliary data of a pair, which its rows name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairSeen {
    /// It finished making it.
    Made(Vec<Vec<u8>>),
    /// It took a step of a signature with it.
    Used(Vec<Vec<u8>>),
}

/// A party's last secret of a signing run, with which the others can finish without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reveal {
    /// The run.
    pub execution: [u8; 32],
    /// The party.
    pub position: u16,
    /// What is signed.
    pub message: Vec<u8>,
}

impl Witness {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A party began to sign this message.
    pub(crate) fn signing(&self, message: &[u8]) {
        self.facts().messages.insert(message.to_vec());
    }

    /// A one-time secret was used for what `purpose` hashes.
    pub(crate) fn nonce(&self, nonce: [u8; 32], purpose: [u8; 32]) {
        let mut facts = self.facts();
        let earlier = *facts.nonces.entry(nonce).or_insert(purpose);
        if earlier != purpose {
            facts.violations.push("a one-time secret was used for two messages or runs".into());
        }
    }

    /// What `compute` gives, or what it gave for the same inputs before: every party of a run signs and verifies the
    /// same, and scenarios would otherwise spend a third of their time on that.
    pub(crate) fn once(&self, inputs: &[&[u8]], compute: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
        let mut hash = Sha256::new();
        for input in inputs {
            hash.update((input.len() as u64).to_be_bytes());
            hash.update(input);
        }
        let key: [u8; 32] = hash.finalize().into();
        if let Some(known) = self.facts().memo.get(&key) {
            return known.clone();
        }
        let computed = compute();
        let memo = &mut self.facts().memo;
        if memo.len() >= MEMO_MAX {
            memo.clear();
        }
        memo.insert(key, computed.clone());
        computed
    }

    /// A party begins a run. No two runs may have one execution id: each party has a seed of its own in every run.
    pub(crate) fn run(&self, run: &Run) {
        let mut facts = self.facts();
        let earlier = *facts.runs.entry((run.execution_id, run.index)).or_insert(run.seed);
        if earlier != run.seed {
            facts.violations.push("two runs have the same execution id".into());
        }
    }

    /// A party reveals its last secret, if its node sends the message.
    pub(crate) fn reveal(&self, reveal: Reveal) {
        self.facts().reveals.push(reveal);
    }

    /// A party has received another's last secret.
    pub(crate) fn absorb(&self, execution: [u8; 32], position: u16) {
        self.facts().absorbed.push((execution, position));
    }

    /// A party finished making the auxiliary data of a pair.
    pub(crate) fn pair_made(&self, rows: &[Vec<u8>]) {
        self.facts().pairs.push(PairSeen::Made(rows.to_vec()));
    }

    /// A party takes a step of a signature with the auxiliary data of a pair.
    pub(crate) fn pair_used(&self, rows: &[Vec<u8>]) {
        self.facts().pairs.push(PairSeen::Used(rows.to_vec()));
    }

    /// What became of auxiliary data of pairs since the last call.
    pub fn take_pairs(&self) -> Vec<PairSeen> {
        std::mem::take(&mut self.facts().pairs)
    }

    /// Last secrets that were revealed since the last call.
    pub fn take_reveals(&self) -> Vec<Reveal> {
        std::mem::take(&mut self.facts().reveals)
    }

    /// Last secrets that were taken in since the last call: run and sender.
    pub fn take_absorbed(&self) -> Vec<([u8; 32], u16)> {
        std::mem::take(&mut self.facts().absorbed)
    }

    /// These bytes must never be seen outside.
    pub(crate) fn secret(&self, bytes: &[u8]) {
        self.facts().secrets.insert(bytes.to_vec());
    }

    /// Messages that parties began to sign since the last call.
    pub fn take_messages(&self) -> BTreeSet<Vec<u8>> {
        std::mem::take(&mut self.facts().messages)
    }

    /// Secrets that came into being since the last call.
    pub fn take_secrets(&self) -> BTreeSet<Vec<u8>> {
        std::mem::take(&mut self.facts().secrets)
    }

    /// What was wrong since the last call.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.facts().violations)
    }
}
