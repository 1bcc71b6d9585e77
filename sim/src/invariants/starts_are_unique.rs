//! No two starts of any node have one incarnation, and nobody hears from one before it is durable: everything that binds
//! messages to a process, and everything that tells a store which was put back, rests on that.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_core::{report::Report, store::Keyspace};

use super::{Fact, Invariant};
use crate::world::World;

#[derive(Default)]
pub(super) struct StartsAreUnique {
    seen: BTreeSet<String>,
    /// Starts that are not durable yet, by node, as reports name them: by their first bytes in hex.
    unwritten: BTreeMap<usize, String>,
}

impl Invariant for StartsAreUnique {
    fn name(&self) -> &'static str {
        "starts_are_unique"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Report { node, report: Report::Started { incarnation, .. }, .. } => {
                self.unwritten.insert(*node, incarnation.clone());
                if !self.seen.insert(incarnation.clone()) {
                    return Err(format!("node{node} started as incarnation {incarnation}, which was there before"));
                }
            }
            Fact::Durable { node, batch } => {
                if let Some(incarnation) = self.unwritten.get(node)
                    && batch
                        .writes
                        .iter()
                        .any(|w| w.keyspace == Keyspace::Meta && hex::encode(&w.key).contains(incarnation.as_str()))
                {
                    self.unwritten.remove(node);
                }
            }
            Fact::Datagram { from, .. } => {
                if let Some(incarnation) = self.unwritten.get(from).filter(|_| !world.scenario.is_cheater(*from)) {
                    return Err(format!("node{from} speaks as incarnation {incarnation} before that is durable"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
