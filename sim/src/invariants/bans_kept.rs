//! Auxiliary data of a pair is never used again by a node that has found a check on it to fail, or was told so: not by
//! runs that were under way, not after a restart. And nobody hears of the failure before the ban is durable where it
//! was found, because a crash would then let the pair go on with what has been talked about.

use std::collections::{BTreeMap, BTreeSet};

use mpcium_core::{report::Report, store::Keyspace};

use super::{Fact, Invariant};
use crate::{
    ideal::{CHECK_FAILED, PairSeen},
    world::World,
};

/// The rows of a pair's auxiliary data, which name it.
type Rows = Vec<Vec<u8>>;

/// Where a set is recorded: node, and the name that reports give it.
type Place = (usize, String);

#[derive(Default)]
pub(super) struct BansKept {
    /// Who has made which auxiliary data.
    made: BTreeMap<Rows, BTreeSet<usize>>,
    /// What a node must not use any more since it reported a ban.
    banned: BTreeMap<Place, BTreeSet<Rows>>,
    /// Bans that have been durable.
    durable: BTreeSet<Place>,
}

impl Invariant for BansKept {
    fn name(&self) -> &'static str {
        "bans_kept"
    }

    fn check(&mut self, _: &World, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Pair { node, seen: PairSeen::Made(rows) } => {
                self.made.entry(rows.clone()).or_default().insert(*node);
                Ok(())
            }
            Fact::Pair { node, seen: PairSeen::Used(rows) } => {
                let banned = self.banned.iter().find(|((of, _), all)| of == node && all.contains(rows));
                banned
                    .map_or(Ok(()), |((_, set), _)| Err(format!("node{node} goes on with {set}, which it has banned")))
            }
            Fact::Durable { node, batch } => {
                // Of the stored forms of a set, the second one is a ban.
                let bans = batch.writes.iter().filter(|write| {
                    write.keyspace == Keyspace::Auxiliary
                        && write.value.as_ref().is_some_and(|value| value.expose().first() == Some(&1))
                });
                self.durable.extend(bans.map(|write| (*node, hex::encode(write.key.get(..4).unwrap_or_default()))));
                Ok(())
            }
            Fact::Report { node, report, .. } => self.report(*node, report),
            _ => Ok(()),
        }
    }
}

impl BansKept {
    fn report(&mut self, node: usize, report: &Report) -> Result<(), String> {
        match report {
            Report::PairBanned { peer, set, by, .. } => {
                if let Some(finder) = number(by).filter(|finder| *finder != node)
                    && !self.durable.contains(&(finder, set.clone()))
                {
                    return Err(format!("node{node} hears that {by} has banned {set}, which is not durable there"));
                }
                let Some(peer) = number(peer) else { return Ok(()) };
                let pair = BTreeSet::from([node, peer]);
                // Whatever the two have made so far: they hold one set at a time, and a new one comes after the ban.
                let rows = self.made.iter().filter(|(_, by)| **by == pair).map(|(rows, _)| rows.clone());
                self.banned.insert((node, set.clone()), rows.collect());
                Ok(())
            }
            Report::SessionEnded { reason, .. } if reason.contains(CHECK_FAILED) => {
                // "node4 gave up: node2 gave up: ...": whoever passes it on has heard of it; the last one found it.
                let told = reason.rsplit_once(" gave up: ").and_then(|(told, _)| number(told.rsplit(' ').next()?));
                match told.filter(|who| *who != node) {
                    Some(who) if !self.durable.iter().any(|(of, _)| *of == who) => {
                        Err(format!("node{node} hears of a failed check at node{who} before its ban is durable"))
                    }
                    _ => Ok(()),
                }
            }
            // What was not durable when the process died, it does not know any more, and neither does anybody else.
            Report::Started { .. } => {
                let durable = &self.durable;
                self.banned.retain(|place, _| place.0 != node || durable.contains(place));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn number(name: &str) -> Option<usize> {
    name.strip_prefix("node")?.parse().ok()
}
