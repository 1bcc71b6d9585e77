//! The machine's clocks under tokio.
//!
//! The monotonic clock counts microseconds from the moment the [`TokioClock`] was made, so it says nothing about the
//! machine and never runs backwards; the wall clock is read afresh each time and may jump.

use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mpcium_core::{Now, Time, WallTime};
use tokio::time::Instant;

use crate::ports::Clock;

/// The production [`Clock`]. Clones share their origin.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    origin: Instant,
}

impl TokioClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Now {
        let micros = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        // A wall clock before 1970 is wrong in any case; requests then simply do not expire.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { time: Time(micros), wall: WallTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)) }
    }

    fn sleep_until(&self, time: Time) -> impl Future<Output = ()> {
        match self.origin.checked_add(Duration::from_micros(time.0)) {
            Some(at) => futures::future::Either::Left(tokio::time::sleep_until(at)),
            // Further away than the clock can count: never.
            None => futures::future::Either::Right(futures::future::pending()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn sleeping_ends_at_or_after_the_asked_time() {
        block_on(async {
            let clock = TokioClock::new();
            let wanted = clock.now().time.after(Duration::from_millis(5));
            clock.sleep_until(wanted).await;
            assert!(clock.now().time >= wanted);
        });
    }

    #[test]
    fn a_time_in_the_past_is_reached_at_once() {
        block_on(async {
            let clock = TokioClock::new();
            clock.sleep_until(Time(0)).await;
        });
    }

    #[test]
    fn the_end_of_time_is_never_reached() {
        block_on(async {
            let clock = TokioClock::new();
            let soon = clock.now().time.after(Duration::from_millis(5));
            let never = std::pin::pin!(clock.sleep_until(Time(u64::MAX)));
            let later = std::pin::pin!(clock.sleep_until(soon));
            let first = futures::future::select(never, later).await;
            assert!(matches!(first, futures::future::Either::Right(_)));
        });
    }

    #[test]
    fn wall_time_counts_from_1970() {
        block_on(async {
            // 2025-01-01: any machine that builds this is later.
            assert!(TokioClock::new().now().wall.0 > 1_735_689_600_000);
        });
    }
}
