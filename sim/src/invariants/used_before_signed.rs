//! A run with a presignature begins only after the node has committed that the presignature is used: the commit is what
//! tells a process whose memory was put back that it must not use it again.

use std::collections::BTreeMap;

use mpcium_core::{report::Report, store::Keyspace};

use super::{Fact, Invariant};
use crate::world::World;

#[derive(Default)]
pub(super) struct UsedBeforeSigned {
    /// Commits of each node, in this life, that hold nothing but their number, less the runs that have begun since.
    committed: BTreeMap<usize, usize>,
}

impl Invariant for UsedBeforeSigned {
    fn name(&self) -> &'static str {
        "used_before_signed"
    }

    fn check(&mut self, _: &World, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            // A batch may take marks of peers along.
            Fact::Durable { node, batch } => {
                let mut writes = batch.writes.iter().filter(|write| write.keyspace != Keyspace::Peers);
                let number = writes.next().is_some_and(|write| write.key == b"commits");
                if number && writes.next().is_none() {
                    *self.committed.entry(*node).or_default() += 1;
                }
                Ok(())
            }
            Fact::Report { node, report: Report::Started { .. }, .. } => {
                self.committed.remove(node);
                Ok(())
            }
            Fact::Report { node, report: Report::SessionStarted { protocol, .. }, .. }
                if protocol == "sign secp256k1 presigned" =>
            {
                let committed = self.committed.entry(*node).or_default();
                *committed = committed.checked_sub(1).ok_or_else(|| {
                    format!("node{node} signs with a presignature before it is durable that it is used")
                })?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
