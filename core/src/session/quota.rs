//! How much of this node each peer may take up as a coordinator.
//!
//! A request that an initiator has signed lets its coordinator propose attempts as it likes. So each peer has a budget
//! of proposals that come to nothing, and may have so many sessions running here; beyond that the answer is *busy*,
//! which is no blame. What succeeds costs nothing.

use std::collections::BTreeMap;

use crate::{NodeId, Time, bucket::Bucket, limits};

/// All peers' budgets.
#[derive(Default)]
pub(super) struct Quotas {
    budgets: BTreeMap<NodeId, Bucket>,
}

impl Quotas {
    /// Whether a proposal of this peer is looked at, when so many of its sessions run here.
    pub fn admits(&mut self, now: Time, peer: NodeId, running: usize) -> bool {
        let full = || Bucket::new(now, limits::PROPOSALS_PER_SECOND, limits::PROPOSALS_BURST);
        running < limits::SESSIONS_PER_COORDINATOR && self.budgets.entry(peer).or_insert_with(full).admits(now)
    }

    /// What this peer had proposed has succeeded.
    pub fn succeeded(&mut self, peer: NodeId) {
        if let Some(budget) = self.budgets.get_mut(&peer) {
            budget.refund();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Duration;

    fn peer(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    #[test]
    fn a_coordinator_whose_attempts_fail_is_held_to_its_budget_and_takes_nobody_elses() {
        let mut quotas = Quotas::default();
        let now = Time(7);
        let admitted = (0..100_000).filter(|_| quotas.admits(now, peer(1), 0)).count();
        assert_eq!(admitted, limits::PROPOSALS_BURST as usize);
        assert!(quotas.admits(now, peer(2), 0));
        let later = now.after(Duration::from_secs(1));
        let admitted = (0..100_000).filter(|_| quotas.admits(later, peer(1), 0)).count();
        assert_eq!(admitted, limits::PROPOSALS_PER_SECOND as usize);
    }

    #[test]
    fn attempts_that_succeed_cost_nothing() {
        let mut quotas = Quotas::default();
        for _ in 0..10 * limits::PROPOSALS_BURST {
            assert!(quotas.admits(Time(7), peer(1), 0));
            quotas.succeeded(peer(1));
        }
    }

    #[test]
    fn one_coordinators_sessions_leave_room_for_others() {
        let mut quotas = Quotas::default();
        assert!(quotas.admits(Time(7), peer(1), limits::SESSIONS_PER_COORDINATOR - 1));
        assert!(!quotas.admits(Time(7), peer(1), limits::SESSIONS_PER_COORDINATOR));
    }
}
