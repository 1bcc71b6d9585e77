//! What a majority of members hold durably of one ballot is decided, and no member stores anything else in a later one;
//! no member's record goes back to an earlier ballot or is forgotten; and ballots are numbered by clocks, so that later attempts are higher
//! even where promises were forgotten. With cheaters only the last holds: answers are decided among nodes that crash and
//! forget, not among nodes that lie.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_core::{LedgerEntry, store::Keyspace};

use super::{Fact, Invariant};
use crate::{
    scenario::{MILLISECOND, SECOND},
    world::{Machine, World},
};

/// Of one record, by whatever member.
#[derive(Default)]
struct Register {
    /// The last that each member has stored.
    last: BTreeMap<usize, LedgerEntry>,
    decided: Option<LedgerEntry>,
}

#[derive(Default)]
pub(super) struct AnswersStay {
    registers: BTreeMap<Vec<u8>, Register>,
}

impl Invariant for AnswersStay {
    fn name(&self) -> &'static str {
        "answers_stay"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Durable { node, batch } = fact else { return Ok(()) };
        for write in batch.writes.iter().filter(|write| write.keyspace == Keyspace::Ledger) {
            let Some(value) = &write.value else {
                // Whoever asks again, and however late, is answered as the first time.
                return Err(format!("node{node} forgot an answer"));
            };
            let Some(entry) = LedgerEntry::read(&write.key, value.expose()) else {
                return Err(format!("node{node} stored an answer that cannot be read"));
            };
            by_the_clock(world, *node, &entry)?;
            // The known limit of rollbacks.
            let forgotten = |machine: &Machine| machine.rolled_back_within_run || machine.has_forgotten();
            if world.proxies.is_empty() && !world.machines.iter().any(forgotten) {
                self.registers.entry(write.key.clone()).or_default().stored(world, *node, entry)?;
            }
        }
        Ok(())
    }
}

/// How old an attempt may be when something of it is stored: more than anybody goes on with one.
const OLDEST: u64 = 600 * SECOND / MILLISECOND;

fn by_the_clock(world: &World, node: usize, entry: &LedgerEntry) -> Result<(), String> {
    let (number, coordinator, ..) = entry.ballot;
    let honest = (0..world.machines.len())
        .any(|machine| world.machines[machine].id == coordinator && !world.scenario.is_cheater(machine));
    if honest && number < world.wall_ms().saturating_sub(OLDEST) {
        return Err(format!("node{node} stored an answer of attempt {number}, which no clock has said"));
    }
    Ok(())
}

impl Register {
    fn stored(&mut self, world: &World, node: usize, entry: LedgerEntry) -> Result<(), String> {
        if let Some(decided) = &self.decided
            && entry.ballot > decided.ballot
            && entry.value != decided.value
        {
            return Err(format!(
                "node{node} stored {} in attempt {:?}, but attempt {:?} had decided {}",
                hex::encode(&entry.value),
                entry.ballot,
                decided.ballot,
                hex::encode(&decided.value)
            ));
        }
        if let Some(last) = self.last.get(&node)
            && entry.ballot < last.ballot
            && !world.machines[node].rolled_back
        {
            let (from, to) = (last.ballot, entry.ballot);
            return Err(format!("node{node} went back from attempt {from:?} to {to:?}"));
        }
        self.last.insert(node, entry.clone());
        let holders: BTreeSet<usize> = self
            .last
            .iter()
            .filter(|(_, held)| held.ballot == entry.ballot && held.value == entry.value)
            .map(|(holder, _)| *holder)
            .collect();
        if holders.len() > world.scenario.nodes / 2 && self.decided.as_ref().is_none_or(|d| d.ballot < entry.ballot) {
            self.decided = Some(entry);
        }
        Ok(())
    }
}
