//! What is under way comes to an end: when a cluster has been left alone for a while, its nodes hold nothing of finished
//! work but caches and records that are kept on purpose. Checked where runs are long enough to tell (profile soak).

use std::collections::{BTreeMap, VecDeque};

use mpcium_core::{store::Keyspace, wallet::AcceptorRecord};

use super::{Fact, Invariant};
use crate::{records, scenario::Profile, world::World};

/// Statuses that are kept per node: at a single moment something is always under way.
const KEPT: usize = 8;

/// Tables that must have been empty at one of the last looks.
const PASSING: [&str; 16] = [
    "writes under way",
    "reads under way",
    "jobs under way",
    "publications under way",
    "sessions",
    "sessions with early messages",
    "bytes of early messages",
    "deliveries",
    "ballots that wait for records",
    "signing requests",
    "attempts",
    "proposals that wait for records",
    "signatures in which this node takes part",
    "key generation requests",
    "key generations that run",
    "decisions under way",
];

#[derive(Default)]
pub(super) struct NothingGrows {
    looks: BTreeMap<usize, VecDeque<BTreeMap<String, usize>>>,
}

impl Invariant for NothingGrows {
    fn name(&self) -> &'static str {
        "nothing_grows"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        if world.scenario.profile != Profile::Soak {
            return Ok(());
        }
        match fact {
            Fact::Status { node, status } => {
                let looks = self.looks.entry(*node).or_default();
                if looks.len() == KEPT {
                    looks.pop_front();
                }
                looks.push_back(status.tables.iter().map(|table| (table.name.clone(), table.entries)).collect());
                Ok(())
            }
            Fact::End => world.scenario.core.iter().try_for_each(|node| self.at_rest(world, *node)),
            _ => Ok(()),
        }
    }
}

impl NothingGrows {
    fn at_rest(&self, world: &World, node: usize) -> Result<(), String> {
        let looks = self.looks.get(&node).ok_or(format!("node{node} was never looked at"))?;
        for table in PASSING {
            let least = looks.iter().filter_map(|look| look.get(table)).min();
            match least {
                None => return Err(format!("node{node} does not say how many {table} it has")),
                Some(0) => {}
                Some(left) => return Err(format!("node{node}, left alone, still has {left} {table}")),
            }
        }
        let Some(machine) = world.machines.get(node) else { return Ok(()) };
        let records = |keyspace: Keyspace| machine.disk.records(keyspace).count();
        // A node remembers which slots of wallets that do not exist are closed.
        let open = |record: &AcceptorRecord| record.slot.number == 0 || record.acceptor.voted().is_some();
        let decisions = machine.disk.records(Keyspace::Decisions);
        let left = decisions.filter(|(_, value)| records::read(value.expose()).is_ok_and(|record| open(&record)));
        if left.count() > 0 {
            return Err(format!("node{node}, left alone, still has open decisions on disk"));
        }
        let requests = world.clients.requests.len();
        if records(Keyspace::Ledger) > 2 * requests {
            return Err(format!("node{node} has {} ledger records of {requests} requests", records(Keyspace::Ledger)));
        }
        Ok(())
    }
}
