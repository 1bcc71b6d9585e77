//! What the ideal suites see from within: a fact that the invariants may use although no bus carries it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

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
