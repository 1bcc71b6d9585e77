//! A node that knows that its store was put back signs nothing and makes no keys until it has been brought up to date.

use std::collections::BTreeSet;

use mpcium_core::report::Report;

use super::{Fact, Invariant};
use crate::{rare, world::World};

#[derive(Default)]
pub(super) struct BehindSitsOut {
    /// Who knows it, in this life.
    behind: BTreeSet<usize>,
}

impl Invariant for BehindSitsOut {
    fn name(&self) -> &'static str {
        "behind_sits_out"
    }

    fn check(&mut self, _: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Report { node, report, .. } = fact else { return Ok(()) };
        match report {
            // Whether it still knows depends on what was durable; if not, a peer tells it again.
            Report::Started { .. } | Report::CaughtUp => {
                self.behind.remove(node);
            }
            report if rare::tells_of_own_rollback(report) => {
                self.behind.insert(*node);
            }
            Report::SessionStarted { session, protocol, .. }
                if self.behind.contains(node) && protocol.as_str() != "auxiliary" =>
            {
                return Err(format!("node{node} knows that it was put back and takes part in {session} ({protocol})"));
            }
            _ => {}
        }
        Ok(())
    }
}
