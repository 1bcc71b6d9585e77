//! Many runs: seeds given out to threads, counts added up, the first failure kept.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    counters::Counters,
    planted::Planted,
    run::{Outcome, execute as execute_run},
    scenario::{Profile, Scenario},
    world::Verdict,
};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which profile.
    pub profile: Profile,
    /// The first seed.
    pub first: u64,
    /// How many seeds; `u64::MAX` for as many as the time allows.
    pub count: u64,
    /// Threads.
    pub jobs: usize,
    /// No run starts after this much real time.
    pub time: Option<Duration>,
    /// Whether to go on after a failure.
    pub keep_going: bool,
    /// A bug to plant in every run.
    pub planted: Option<Planted>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Which profile.
    pub profile: Profile,
    /// Runs.
    pub runs: u64,
    /// Everything counted.
    pub counters: Counters,
    /// Runs that violated something, by seed.
    pub failures: Vec<Outcome>,
    /// Real time.
    pub took: Duration,
}

/// Runs a plan.
#[must_use]
pub fn execute(plan: &Plan) -> Summary {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let found = Mutex::new((0_u64, Counters::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && plan.time.is_none_or(|time| began.elapsed() < time) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= plan.count {
                        break;
                    }
                    let mut scenario = Scenario::draw(plan.first.wrapping_add(number), plan.profile);
                    scenario.planted = plan.planted;
                    let mut outcome = execute_run(scenario.clone(), None);
                    // What fails without the bug as well does not show that the bug is noticed.
                    if plan.planted.is_some() && outcome.verdict != Verdict::Passed {
                        scenario.planted = None;
                        if execute_run(scenario, None).verdict != Verdict::Passed {
                            outcome.verdict = Verdict::Passed;
                        }
                    }
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.0 += 1;
                    found.1.add(&outcome.counters);
                    if outcome.verdict != Verdict::Passed {
                        // A search may run for hours; whoever watches wants to know at once.
                        if plan.keep_going
                            && let Verdict::Violated { invariant, what } = &outcome.verdict
                        {
                            eprintln!("seed {} violates {invariant}: {what}", outcome.seed());
                        }
                        if !plan.keep_going {
                            stop.store(true, Ordering::Relaxed);
                        }
                        found.2.push(outcome);
                    }
                }
            });
        }
    });
    let (runs, counters, mut failures) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|outcome| outcome.seed());
    Summary { profile: plan.profile, runs, counters, failures, took: began.elapsed() }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let per_hour = self.runs as f64 / self.took.as_secs_f64() * 3600.0;
        writeln!(
            f,
            "profile {}: {} seeds in {:.1} s ({per_hour:.0} an hour)",
            self.profile.name(),
            self.runs,
            self.took.as_secs_f64()
        )?;
        write!(f, "{}", self.counters)
    }
}
