//! What a run counted: work, faults, and the rare states that were reached (`sometimes`).

use std::collections::BTreeMap;

/// Counts of one run, or of many added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that clients sent.
    pub operations: u64,
    /// Answers that say success.
    pub successes: u64,
    /// Answers that say failure.
    pub failures: u64,
    /// Datagrams that nodes sent.
    pub datagrams: u64,
    /// Batches that nodes wrote.
    pub writes: u64,
    /// Simulated time, in microseconds.
    pub simulated_us: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Rare states by name.
    pub rare: BTreeMap<String, u64>,
    /// Failures by error code.
    pub reasons: BTreeMap<String, u64>,
}

impl Counters {
    /// A rare state was reached.
    pub fn sometimes(&mut self, what: &str) {
        if let Some(count) = self.rare.get_mut(what) {
            *count += 1;
        } else {
            self.rare.insert(what.into(), 1);
        }
    }

    /// A fault began.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// A request failed with this code.
    pub fn reason(&mut self, code: &str) {
        *self.reasons.entry(code.into()).or_default() += 1;
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.successes += other.successes;
        self.failures += other.failures;
        self.datagrams += other.datagrams;
        self.writes += other.writes;
        self.simulated_us += other.simulated_us;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (what, count) in &other.rare {
            *self.rare.entry(what.clone()).or_default() += count;
        }
        for (code, count) in &other.reasons {
            *self.reasons.entry(code.clone()).or_default() += count;
        }
    }
}

impl std::fmt::Display for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let hours = self.simulated_us as f64 / 3.6e9;
        writeln!(
            f,
            "  {} operations ({} succeeded, {} failed), {} datagrams, {} writes, {hours:.1} simulated hours",
            self.operations, self.successes, self.failures, self.datagrams, self.writes
        )?;
        let list = |counts: Vec<(String, u64)>| {
            let items: Vec<String> = counts.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
            items.join(", ")
        };
        writeln!(f, "  faults: {}", list(self.faults.iter().map(|(k, c)| ((*k).to_owned(), *c)).collect()))?;
        writeln!(f, "  failures: {}", list(self.reasons.clone().into_iter().collect()))?;
        write!(f, "  sometimes: {}", list(self.rare.clone().into_iter().collect()))
    }
}
