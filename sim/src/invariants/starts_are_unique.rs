//! No two starts of any node have one incarnation: everything that binds messages to a process rests on that.

use std::collections::BTreeSet;

use mpcium_core::report::Report;

use super::{Fact, Invariant};
use crate::world::World;

#[derive(Default)]
pub(super) struct StartsAreUnique {
    seen: BTreeSet<String>,
}

impl Invariant for StartsAreUnique {
    fn name(&self) -> &'static str {
        "starts_are_unique"
    }

    fn check(&mut self, _: &World, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Report { node, report: Report::Started { incarnation, .. }, .. } = fact else { return Ok(()) };
        if self.seen.insert(incarnation.clone()) {
            Ok(())
        } else {
            Err(format!("node{node} started as incarnation {incarnation}, which was there before"))
        }
    }
}
