//! A wallet's epoch never goes back, and an epoch has the same members wherever it is activated.

use std::collections::BTreeMap;

use mpcium_core::report::Report;

use super::{Fact, Invariant};
use crate::world::World;

#[derive(Default)]
pub(super) struct EpochsGrow {
    /// The highest epoch per process and wallet.
    at_node: BTreeMap<(usize, u64, String), u32>,
    members: BTreeMap<(String, u32), Vec<String>>,
}

impl Invariant for EpochsGrow {
    fn name(&self) -> &'static str {
        "epochs_grow"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Report { node, report: Report::WalletActivated { wallet, epoch, members }, .. } = fact else {
            return Ok(());
        };
        let first = self.members.entry((wallet.clone(), *epoch)).or_insert_with(|| members.clone());
        if first != members {
            return Err(format!("{wallet} epoch {epoch} has members {first:?} and {members:?}"));
        }
        let generation = world.machines.get(*node).map_or(0, |machine| machine.generation);
        let highest = self.at_node.entry((*node, generation, wallet.clone())).or_insert(*epoch);
        if *epoch < *highest {
            return Err(format!("node{node} activated epoch {epoch} of {wallet} after epoch {highest}"));
        }
        *highest = *epoch;
        Ok(())
    }
}
