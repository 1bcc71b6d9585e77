//! How soon a node may propose the next run for auxiliary data after one that led to nothing.
//!
//! Whoever proposes waits longer after each run that failed, and longer still after each that every participant completed
//! and somebody did not agree to. The others join no earlier than half of that: an honest proposer, whose clock and news
//! differ a little, is never refused for it.

use super::*;

/// How a node's last runs went.
pub(super) struct Pace {
    next: Time,
    /// The proposer's wait if the next run fails, and if it is not agreed to.
    failed: Duration,
    unagreed: Duration,
}

impl Auxiliary {
    /// How long it takes until a run that another node proposes is joined.
    pub(super) fn waits_for(&self, ctx: &Context, proposer: NodeId) -> Option<Duration> {
        let pace = self.paces.get(&proposer).filter(|_| proposer != ctx.me)?;
        Some(pace.next.since(ctx.now.time)).filter(|wait| !wait.is_zero())
    }

    /// A run is over, and nobody has agreed to what it made. How long its proposer waits.
    pub(super) fn ran(&mut self, ctx: &Context, proposer: NodeId, made: bool) -> Duration {
        let first = Pace { next: Time(0), failed: RETRY_MIN, unagreed: RETRY_MAX };
        let pace = self.paces.entry(proposer).or_insert(first);
        let wait = if made { pace.unagreed } else { pace.failed };
        if made {
            pace.failed = RETRY_MIN;
            pace.unagreed = (wait * 2).min(limits::AUXILIARY_WAIT_MAX);
        } else {
            pace.failed = (wait * 2).min(RETRY_MAX);
        }
        pace.next = ctx.now.time.after(wait / 2);
        wait
    }
}
