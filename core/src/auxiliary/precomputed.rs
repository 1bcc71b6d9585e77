//! What a suite computes in advance from the public rows of agreed sets: once per set and start of the node, in the
//! background, in memory only. A signature that comes earlier does without.

use std::collections::BTreeSet;

use super::Auxiliary;
use crate::{
    context::{Context, JobFor},
    limits,
    protocol::{Done, Opened, Priority},
};

/// For which sets that has been ordered.
#[derive(Default)]
pub(super) struct Progress {
    ordered: BTreeSet<[u8; 32]>,
    running: Option<[u8; 32]>,
}

impl Auxiliary {
    /// Rows of the present sets from which something is computed or was.
    pub(super) fn precomputed_rows(&self) -> usize {
        let ordered = self.sets.iter().filter(|(name, _)| self.precomputed.ordered.contains(*name));
        ordered.map(|(_, set)| set.data.rows.len()).sum()
    }

    /// Orders the next set's precomputation, if there is room and none is under way.
    pub(super) fn precompute(&mut self, ctx: &mut Context) {
        let suite = ctx.suites.secp256k1.clone();
        let Some(auxiliary) = suite.auxiliary() else { return };
        if self.precomputed.running.is_some() {
            return;
        }
        self.precomputed.ordered.retain(|name| self.sets.contains_key(name));
        let room = limits::PRECOMPUTED_ROWS_MAX.saturating_sub(self.precomputed_rows());
        let next = self.sets.iter().find_map(|(name, set)| {
            let wanted = set.is_agreed() && set.opened.is_none() && set.data.rows.len() <= room;
            let work = (wanted && !self.precomputed.ordered.contains(name))
                .then(|| auxiliary.precompute(&set.data.rows))
                .flatten()?;
            Some((*name, work))
        });
        let Some((name, work)) = next else { return };
        self.precomputed.ordered.insert(name);
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
