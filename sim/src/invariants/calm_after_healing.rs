//! In a healed world nothing stalls: a session that begins once the core has settled does not end because somebody said
//! nothing or because it took too long. What hides behind retries while everything breaks shows here.

use std::collections::BTreeSet;

use mpcium_core::report::Report;

use super::{Fact, Invariant};
use crate::world::World;

#[derive(Default)]
pub(super) struct CalmAfterHealing {
    started: BTreeSet<(usize, String)>,
}

impl Invariant for CalmAfterHealing {
    fn name(&self) -> &'static str {
        "calm_after_healing"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Report { node, report, .. } = fact else { return Ok(()) };
        let settled = world.fresh_since.is_some_and(|since| world.now() > since);
        if !settled || world.scenario.cheated_core() {
            return Ok(());
        }
        match report {
            Report::SessionStarted { session, .. } => {
                self.started.insert((*node, session.clone()));
                Ok(())
            }
            Report::SessionEnded { session, reason, silent, protocol, .. }
                if self.started.contains(&(*node, session.clone()))
                    && (reason.starts_with("no progress") || reason.contains("took longer")) =>
            {
                Err(format!(
                    "node{node}: {protocol} stalled in a healed world: {reason}; silent: {}",
                    silent.join(", ")
                ))
            }
            _ => Ok(()),
        }
    }
}
