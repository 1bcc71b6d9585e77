//! The report of a benchmark: the Go system's lines, and a JSON document with the same numbers and more.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::keys;

/// What one benchmark did.
#[derive(Clone, Debug)]
pub(super) struct Run {
    kind: &'static str,
    batch_size: usize,
    requests: usize,
    lasted: Duration,
    /// What the successful ones took, shortest first.
    sorted: Vec<Duration>,
    /// Successes among the first batch that was answered.
    first_batch: usize,
}

impl Run {
    pub fn new(
        kind: &'static str,
        batch_size: u32,
        requests: usize,
        lasted: Duration,
        outcomes: &[Result<Duration, String>],
    ) -> Self {
        let batch_size = usize::try_from(batch_size).unwrap_or(usize::MAX).max(1);
        let mut sorted: Vec<Duration> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok().copied()).collect();
        sorted.sort_unstable();
        let first_batch = outcomes.iter().take(batch_size).filter(|outcome| outcome.is_ok()).count();
        Self { kind, batch_size, requests, lasted, sorted, first_batch }
    }

    pub fn succeeded(&self) -> usize {
        self.sorted.len()
    }

    fn mean(&self) -> Option<Duration> {
        let count = u32::try_from(self.sorted.len()).ok().filter(|count| *count > 0)?;
        Some(self.sorted.iter().sum::<Duration>() / count)
    }

    /// The duration below which this share of the operations stayed.
    fn quantile(&self, percent: usize) -> Option<Duration> {
        let last = self.sorted.len().checked_sub(1)?;
        self.sorted.get((last * percent + 50) / 100).copied()
    }
}

/// The report, as JSON or (by `Display`) as text.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    timestamp: String,
    operation_type: &'static str,
    #[serde(serialize_with = "seconds")]
    total_seconds: Duration,
    batches: usize,
    requests: usize,
    succeeded: usize,
    failed: usize,
    success_percent: f64,
    operations_per_minute: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<Seconds>,
    #[serde(skip)]
    batch_size: usize,
    #[serde(skip)]
    first_batch: usize,
    #[serde(skip)]
    fastest: Vec<Duration>,
}

/// What one operation took.
#[derive(Debug, Serialize)]
struct Seconds {
    #[serde(serialize_with = "seconds")]
    mean: Duration,
    #[serde(serialize_with = "seconds")]
    median: Duration,
    #[serde(serialize_with = "seconds")]
    p90: Duration,
    #[serde(serialize_with = "seconds")]
    p99: Duration,
    #[serde(serialize_with = "seconds")]
    min: Duration,
    #[serde(serialize_with = "seconds")]
    max: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl Report {
    pub fn new(run: &Run, at: SystemTime) -> Self {
        let succeeded = run.succeeded();
        let (done, requests) = (succeeded as f64, run.requests.max(1) as f64);
        let minutes = run.lasted.as_secs_f64() / 60.0;
        let seconds = run.mean().and_then(|mean| {
            Some(Seconds {
                mean,
                median: run.quantile(50)?,
                p90: run.quantile(90)?,
                p99: run.quantile(99)?,
                min: run.quantile(0)?,
                max: run.quantile(100)?,
            })
        });
        Self {
            timestamp: keys::timestamp(at),
            operation_type: run.kind,
            total_seconds: run.lasted,
            batches: run.requests.div_ceil(run.batch_size),
            requests: run.requests,
            succeeded,
            failed: run.requests.saturating_sub(succeeded),
            success_percent: done / requests * 100.0,
            operations_per_minute: if minutes > 0.0 { done / minutes } else { 0.0 },
            seconds,
            batch_size: run.batch_size,
            first_batch: run.first_batch,
            fastest: run.sorted.iter().take(run.batch_size).copied().collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = "=".repeat(80);
        writeln!(f, "{line}\n{} BENCHMARK RESULTS SUMMARY\n{line}", self.operation_type)?;
        writeln!(f, "Timestamp: {}", self.timestamp)?;
        writeln!(f, "Operation Type: {}", self.operation_type)?;
        writeln!(f, "Total benchmark time: {}", go_duration(self.total_seconds))?;
        writeln!(f, "Total batches sent: {}", self.batches)?;
        writeln!(f, "Total requests sent: {}", self.requests)?;
        writeln!(f, "Successful completions: {}", self.succeeded)?;
        writeln!(f, "Failed operations: {}", self.failed)?;
        writeln!(f, "Success rate: {:.2}%", self.success_percent)?;
        writeln!(f, "Error rate: {:.2}%", 100.0 - self.success_percent)?;
        writeln!(f, "Average operations per minute: {:.2}", self.operations_per_minute)?;
        if let Some(seconds) = &self.seconds {
            writeln!(f, "Average operation time: {}", go_duration(seconds.mean))?;
            writeln!(f, "Median operation time: {}", go_duration(seconds.median))?;
        }
        writeln!(f, "\n{} REQUEST ANALYSIS", self.batch_size)?;
        writeln!(
            f,
            "Completed from first {}: {}/{}",
            self.batch_size,
            self.first_batch,
            self.batch_size.min(self.requests)
        )?;
        if let (Some(fastest), Some(slowest)) = (self.fastest.first(), self.fastest.last()) {
            writeln!(f, "Fastest (first {}): {}", self.batch_size, go_duration(*fastest))?;
            writeln!(f, "Slowest (first {}): {}", self.batch_size, go_duration(*slowest))?;
        }
        Ok(())
    }
}

/// A duration as Go writes it: `1h2m3.5s`, `12.25ms`, `0s`.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let scaled = |unit: u128, name: &str| {
        let fraction = format!("{:0width$}", nanos % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}{name}", nanos / unit)
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => scaled(1_000, "µs"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "ms"),
        _ => {
            let whole = duration.as_secs();
            let rest = Duration::new(whole % 60, duration.subsec_nanos());
            let nanos = rest.as_nanos();
            let fraction = format!("{:09}", nanos % 1_000_000_000);
            let fraction = fraction.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            let seconds = format!("{}{point}{fraction}s", rest.as_secs());
            match (whole / 3600, whole / 60 % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        for (nanos, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (12_250_000, "12.25ms"),
            (1_000_000_000, "1s"),
            (59_999_000_000, "59.999s"),
            (60_000_000_000, "1m0s"),
            (3_723_500_000_000, "1h2m3.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }

    fn run() -> Run {
        let took = |ms| Ok(Duration::from_millis(ms));
        let outcomes = [took(40), Err("no".to_owned()), took(10), took(30), took(20)];
        Run::new("KEYGEN", 2, 5, Duration::from_secs(30), &outcomes)
    }

    #[test]
    fn the_text_has_the_lines_that_scripts_read() {
        let text = Report::new(&run(), SystemTime::UNIX_EPOCH).to_string();
        for line in [
            "KEYGEN BENCHMARK RESULTS SUMMARY",
            "Timestamp: 1970-01-01T00:00:00Z",
            "Operation Type: KEYGEN",
            "Total benchmark time: 30s",
            "Total batches sent: 3",
            "Total requests sent: 5",
            "Successful completions: 4",
            "Failed operations: 1",
            "Success rate: 80.00%",
            "Error rate: 20.00%",
            "Average operations per minute: 8.00",
            "Average operation time: 25ms",
            "Median operation time: 30ms",
            "2 REQUEST ANALYSIS",
            "Completed from first 2: 1/2",
            "Fastest (first 2): 10ms",
            "Slowest (first 2): 20ms",
        ] {
            assert!(text.lines().any(|got| got == line), "{line:?} in:\n{text}");
        }
    }

    #[test]
    fn without_a_success_no_time_is_claimed() {
        let run = Run::new("KEYGEN", 10, 1, Duration::from_secs(1), &[Err("no".to_owned())]);
        let text = Report::new(&run, SystemTime::UNIX_EPOCH).to_string();
        assert!(!text.contains("operation time") && !text.contains("Fastest"), "{text}");
        assert!(text.contains("Success rate: 0.00%"), "{text}");
    }

    #[test]
    fn the_document_has_the_quantiles() {
        let json = serde_json::to_value(Report::new(&run(), SystemTime::UNIX_EPOCH)).expect("JSON");
        assert_eq!(json["seconds"]["max"], 0.04);
        assert_eq!(json["seconds"]["min"], 0.01);
        assert_eq!(json["failed"], 1);
    }
}
