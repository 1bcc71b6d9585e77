//! All answers to one delivery are the same bytes, so never a success after an error; and all successes of one request
//! id are the same, so a retry never yields another signature or another wallet. A redelivery is answered under the id
//! of the first delivery, so there are never more ids than requests. A node that was put back and does not know it, or has
//! been brought up to date, says that it holds nothing, and what it held may be answered anew: the known limit of rollbacks.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fact, Invariant};
use crate::world::{Machine, World};

#[derive(Default)]
pub(super) struct OneAnswer {
    by_delivery: BTreeMap<String, Vec<u8>>,
    /// More than one only where a rollback had not been noticed yet.
    successes: BTreeMap<(String, String), BTreeSet<Vec<u8>>>,
    sent: BTreeMap<(String, String), usize>,
}

impl Invariant for OneAnswer {
    fn name(&self) -> &'static str {
        "one_answer"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Sent { request } = fact {
            *self.sent.entry((request.wallet.clone(), request.transaction.clone())).or_default() += 1;
        }
        let Fact::Answer { node, answer } = fact else { return Ok(()) };
        let forgotten = world.machines.iter().any(Machine::has_forgotten);
        let first = self.by_delivery.entry(answer.dedup.clone()).or_insert_with(|| answer.raw.clone());
        if *first != answer.raw && !forgotten {
            return Err(format!(
                "node{node} answered {} with {} although the answer was {}",
                answer.dedup,
                String::from_utf8_lossy(&answer.raw),
                String::from_utf8_lossy(first)
            ));
        }
        let answers = world.results.answers(&answer.wallet, &answer.transaction);
        // What is no request at all was never counted as sent.
        let sent = self.sent.get(&(answer.wallet.clone(), answer.transaction.clone()));
        if let Some(sent) = sent.filter(|sent| answers > **sent) {
            return Err(format!(
                "{} {} was sent {sent} times, but there are {answers} de-duplication ids of its answers",
                answer.wallet, answer.transaction
            ));
        }
        if answer.success {
            let request = (answer.wallet.clone(), answer.transaction.clone());
            let known = self.successes.entry(request).or_default();
            if let Some(first) = known.first().filter(|_| !known.contains(&answer.raw))
                && !forgotten
            {
                return Err(format!(
                    "{} {} succeeded twice differently: {} and {}",
                    answer.wallet,
                    answer.transaction,
                    String::from_utf8_lossy(first),
                    String::from_utf8_lossy(&answer.raw)
                ));
            }
            known.insert(answer.raw.clone());
        }
        Ok(())
    }
}
