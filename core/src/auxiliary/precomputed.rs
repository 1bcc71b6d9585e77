//! What a suite computes in advance from the public rows of agreed sets: once per set and start of the node, in the
//! background, in memory only. A signature that comes earlier does without.

use std::collections::BTreeMap;

use super::Auxiliary;
use crate::{
    context::{Context, JobFor},
    limits,
    protocol::{Done, Opened, Priority},
};

/// For which sets that has been ordered.
#[derive(Default)]
pub(super) struct Progress {
    /// How many rows each has.
    ordered: BTreeMap<[u8; 32], usize>,
    running: Option<[u8; 32]>,
}

impl Progress {
    pub fn rows(&self) -> usize {
        self.ordered.values().sum()
    }
}

impl Auxiliary {
    /// Orders the next set's precomputation, if there is room and none is under way.
    pub(super) fn precompute(&mut self, ctx: &mut Context) {
        let suite = ctx.suites.secp256k1.clone();
        let Some(auxiliary) = suite.auxiliary() else { return };
        if self.precomputed.running.is_some() {
            return;
        }
        let room = limits::PRECOMPUTED_ROWS_MAX.saturating_sub(self.precomputed.rows());
        let next = self.sets.iter().find_map(|(name, set)| {
            let wanted = set.is_agreed() && set.opened.is_none() && set.data.rows.len() <= room;
            let work = (wanted && !self.precomputed.ordered.contains_key(name))
                .then(|| auxiliary.precompute(&set.data.rows))
                .flatten()?;
            Some((*name, set.data.rows.len(), work))
        });
        let Some((name, rows, work)) = next else { return };
        self.precomputed.ordered.insert(name, rows);
        self.precomputed.running = Some(name);
        let work = Box::new(move |_: [u8; 32]| Done::Precomputed(work()));
        ctx.compute(JobFor::Precomputation, Priority::Background, "auxiliary tables", false, work);
    }

    pub fn on_precomputed(&mut self, ctx: &mut Context, made: Option<Opened>) {
        let set = self.precomputed.running.take().and_then(|name| self.sets.get_mut(&name));
        if let Some(set) = set {
            set.opened = made;
        }
        self.precompute(ctx);
    }
}
