//! How long an attempt waits for nodes that may be slow as long as they say that they are at work.

use crate::{Duration, Time};

/// Until when the nodes of an attempt are waited for.
pub(crate) struct Patience {
    /// Until then.
    pub until: Time,
    /// By then it is over everywhere, however slow anybody is.
    over_by: Time,
    /// What a sign of life is worth.
    step: Duration,
}

impl Patience {
    /// For an attempt that begins now and whose run takes at most so long.
    pub fn new(now: Time, run_max: Duration, step: Duration) -> Self {
        let over_by = now.after(run_max + step);
        Self { until: over_by, over_by, step }
    }

    /// The run is over here, so the others are about to finish too.
    pub fn finishing(&mut self, now: Time) {
        self.until = self.until.min(now.after(self.step));
    }

    /// Somebody is at work.
    pub fn go_on(&mut self, now: Time) {
        self.until = self.until.max(self.over_by.min(now.after(self.step)));
    }
}
