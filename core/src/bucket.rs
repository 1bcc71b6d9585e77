//! A number of events per time, with some to spare.

use crate::{Duration, Time};

/// Lets events pass as long as there is credit, which time brings back.
pub(crate) struct Bucket {
    /// Microseconds that bring back one event.
    cost: u64,
    most: u64,
    credit: u64,
    at: Time,
}

impl Bucket {
    /// Full: `burst` events may pass at once, and so many a second in the long run.
    pub fn new(now: Time, per_second: u32, burst: u32) -> Self {
        Self::every(now, Duration::from_micros(1_000_000 / u64::from(per_second.max(1))), burst)
    }

    /// Full: `burst` events may pass at once, and one after each such time in the long run.
    pub fn every(now: Time, time: Duration, burst: u32) -> Self {
        let cost = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let most = cost.saturating_mul(u64::from(burst));
        Self { cost, most, credit: most, at: now }
    }

    /// Whether an event may pass; if so, it is paid for.
    pub fn admits(&mut self, now: Time) -> bool {
        self.admits_many(now, 1)
    }

    /// Whether so many events may pass at once; if so, they are paid for.
    pub fn admits_many(&mut self, now: Time, events: u64) -> bool {
        let passed = u64::try_from(now.since(self.at).as_micros()).unwrap_or(u64::MAX);
        self.credit = self.credit.saturating_add(passed).min(self.most);
        self.at = now;
        let price = self.cost.saturating_mul(events);
        let admitted = self.credit >= price;
        if admitted {
            self.credit -= price;
        }
        admitted
    }

    /// An event that passed is not to count.
    pub fn refund(&mut self) {
        self.credit = self.credit.saturating_add(self.cost).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_its_rate() {
        let start = Time(5);
        let mut bucket = Bucket::new(start, 8, 20);
        let passed = |bucket: &mut Bucket, now: Time| (0..1000).filter(|_| bucket.admits(now)).count();
        assert_eq!(passed(&mut bucket, start), 20);
        assert_eq!(passed(&mut bucket, start.after(Duration::from_millis(500))), 4);
        assert_eq!(passed(&mut bucket, start.after(Duration::from_millis(500))), 0);
        assert_eq!(passed(&mut bucket, start.after(Duration::from_secs(3600))), 20, "no more is saved");
        bucket.refund();
        assert_eq!(passed(&mut bucket, start.after(Duration::from_secs(3600))), 1);
        let much_later = start.after(Duration::from_secs(7200));
        assert!(!bucket.admits_many(much_later, 21));
        assert!(bucket.admits_many(much_later, 15));
        assert_eq!(passed(&mut bucket, much_later), 5);
    }
}
