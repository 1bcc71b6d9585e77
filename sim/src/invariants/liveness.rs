//! Liveness itself is demanded by the run's second phase (`World::review`); this file holds what must be true when it
//! ends: everything that was answered has left the queue or will, and nobody who is alive says that he is stuck.

use super::{Fact, Invariant};
use crate::world::World;

pub(super) struct Settled;

impl Invariant for Settled {
    fn name(&self) -> &'static str {
        "liveness"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        if !matches!(fact, Fact::End) {
            return Ok(());
        }
        for node in &world.scenario.core {
            if world.machines.get(*node).is_none_or(|machine| !machine.alive) {
                return Err(format!("node{node} of the healed core is not running"));
            }
        }
        Ok(())
    }
}
