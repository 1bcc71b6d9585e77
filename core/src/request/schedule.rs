//! When a request is looked at again: its deadline, and how long it rests between attempts.

use crate::{Duration, Time, WallTime, context::Context, limits};

/// The clocks of one request at its coordinator.
pub(crate) struct Schedule {
    /// By the queue's clock.
    pub deadline: WallTime,
    /// When it was taken.
    pub taken: Time,
    /// When it was last looked at.
    looked_at: Time,
    rest: Duration,
}

impl Schedule {
    /// Of a request that is taken now.
    pub fn new(ctx: &Context, deadline: WallTime) -> Self {
        Self { deadline, taken: ctx.now.time, looked_at: ctx.now.time, rest: limits::RETRY_MIN }
    }

    /// The request is looked at now.
    pub fn look(&mut self, ctx: &Context) {
        self.looked_at = ctx.now.time;
    }

    /// Whether the deadline has passed for everybody, however clocks differ.
    pub fn is_late(&self, ctx: &Context) -> bool {
        ctx.now.wall > self.deadline.after(ctx.config.clock_skew)
    }

    /// Until when it rests: a random while, twice as long each time.
    pub fn rest(&mut self, ctx: &mut Context) -> Time {
        let jitter = ctx.random_below(1000);
        let rest = self.rest.mul_f64(0.5 + f64::from(u32::try_from(jitter).unwrap_or(0)) / 1000.0);
        self.rest = (self.rest * 2).min(limits::RETRY_MAX);
        ctx.now.time.after(rest)
    }

    /// When a request that waits for something, at most until then, is looked at again; at the latest when a `deadline`
    /// of it has passed for everybody.
    pub fn wakes_at(&self, ctx: &Context, until: Option<Time>, deadline: WallTime) -> Time {
        // The deadline is on the wall clock; the timer on the monotonic one.
        let left = deadline.after(ctx.config.clock_skew + Duration::from_millis(1)).since(ctx.now.wall);
        let left = if left.is_zero() { self.help_out() } else { ctx.now.time.after(left) };
        // What is past has been looked at.
        until.filter(|until| *until > self.looked_at).map_or(left, |until| until.min(left))
    }

    /// When a request of which something is due at a time is looked at.
    pub fn due(&self, at: Time) -> Time {
        if at > self.looked_at { at } else { self.help_out() }
    }

    /// What has been looked at and is due all the same waits for a record that is being read: its arrival drives the
    /// request, the timer only helps out.
    fn help_out(&self) -> Time {
        self.looked_at.after(limits::RETRY_MIN)
    }
}
