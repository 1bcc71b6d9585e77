//! No last secret of a signature leaves a node after the request's deadline, by that node's clock: whoever was told
//! that the request failed can rely on it. Only ideal suites show it.

use std::collections::BTreeSet;

use super::{Fact, Invariant};
use crate::world::World;

#[derive(Default)]
pub(super) struct Deadlines {
    /// Runs and parties whose secret came back from the worker too late to be sent.
    late: BTreeSet<([u8; 32], u16)>,
}

impl Invariant for Deadlines {
    fn name(&self) -> &'static str {
        "deadlines"
    }

    fn check(&mut self, world: &World, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Revealed { node, reveal } if !world.scenario.is_cheater(*node) => {
                let asked = world.clients.requests.iter().filter(|r| r.honest && r.message == reveal.message);
                let deadline = asked.map(|r| r.wall_ms).max().map(|at| at + 1_000 * world.scenario.signing_deadline_s);
                if deadline.is_some_and(|deadline| world.wall_of(*node) > deadline) {
                    self.late.insert((reveal.execution, reveal.position));
                }
                Ok(())
            }
            Fact::Absorbed { execution, position } if self.late.contains(&(*execution, *position)) => {
                Err(format!("the party at position {position} revealed its share after the request's deadline"))
            }
            _ => Ok(()),
        }
    }
}
