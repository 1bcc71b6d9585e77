//! Runs a fixed number of seeds of every profile, one more that differs from commit to commit, every run that was
//! written down because it once failed, and every planted bug. A harness of its own, so that what was done is printed
//! and not only whether it was right.

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use sim::{
    kept::Kept,
    planted::Planted,
    reached::{FAULTS, REACHED},
    run::{Outcome, run},
    scenario::Profile,
    suite::{Plan, Summary, execute},
    world::Verdict,
};

/// Seeds per profile, and the seconds after which no further run starts, which are all that decides on a small machine:
/// nine minutes with everything below.
const SEEDS: [(Profile, u64, u64); 5] = [
    (Profile::Ideal, 10_000, 300),
    (Profile::Small, 600, 80),
    (Profile::Byzantine, 600, 50),
    (Profile::Upgrade, 400, 25),
    (Profile::Soak, 2, 20),
];

/// Seeds within which a planted bug must be noticed.
const PLANTED_SEEDS: u64 = 400;

fn main() -> ExitCode {
    // `cargo test -- --list` asks every harness what it has.
    if std::env::args().any(|argument| argument == "--list") {
        println!("profiles: test");
        return ExitCode::SUCCESS;
    }
    let commit = seed_of_commit();
    let mut failed = false;
    failed |= kept();
    for (profile, count, seconds) in SEEDS {
        let time = Some(Duration::from_secs(seconds));
        let summary = execute(&Plan { time, ..plan(profile, count, None) });
        println!("{summary}");
        println!("  and seed {commit}, which the current commit decides");
        let of_commit = run(commit, profile, None);
        for outcome in summary.failures.iter().chain([&of_commit]) {
            failed |= tell(outcome);
        }
        if summary.runs < count {
            println!("WARNING: only {} of {count} seeds of profile {} in {seconds} s", summary.runs, profile.name());
        }
        failed |= missing(profile, &summary);
    }
    // Those inside core, where this build has them, have a target of their own: `make planted`.
    for planted in Planted::OUTSIDE {
        failed |= unnoticed(planted);
    }
    // The closing line in the form that test runners read.
    println!("test result: {}. profiles", if failed { "FAILED" } else { "ok" });
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Replays the runs that were written down; whether one fails that should not, or is there to no purpose.
fn kept() -> bool {
    let runs = match Kept::all() {
        Ok(runs) => runs,
        Err(error) => {
            println!("{error}");
            return true;
        }
    };
    let mut failed = false;
    for (path, kept) in runs {
        let outcome = kept.replay(None);
        if let Verdict::Violated { invariant, what } = &outcome.verdict {
            println!("{}{} ({}):", if kept.open { "known and open: " } else { "" }, path.display(), kept.what);
            println!("it violates {invariant}: {what}\nreplay with: {}", outcome.replay_kept(&path));
            failed |= !kept.open;
        }
    }
    failed
}

fn plan(profile: Profile, count: u64, planted: Option<Planted>) -> Plan {
    let jobs = std::thread::available_parallelism().map_or(1, Into::into);
    Plan { profile, first: 1, count, jobs, time: None, keep_going: planted.is_none(), planted }
}

fn tell(outcome: &Outcome) -> bool {
    let Verdict::Violated { invariant, what } = &outcome.verdict else { return false };
    println!("seed {} violates {invariant}: {what}", outcome.seed());
    match outcome.write_log() {
        Ok(path) => println!("what happened: {}", path.display()),
        Err(error) => println!("no log was written: {error}"),
    }
    println!("replay with: {}", outcome.replay());
    true
}

/// Says which states were never reached, and where there were too few seeds to ask; whether either is a failure. Those
/// that need many seeds are not asked of a slow machine.
fn missing(profile: Profile, summary: &Summary) -> bool {
    let mut failed = false;
    let lists = || REACHED.iter().filter(|(of, ..)| *of == profile);
    let least = lists().map(|(_, enough, _)| *enough).min().unwrap_or(0);
    for (_, enough, states) in lists() {
        if summary.runs < *enough {
            let (runs, what) = (summary.runs, if *enough == least { "FAILED" } else { "WARNING" });
            println!("{what}: {runs} seeds are too few to ask for: {}", states.join(", "));
            failed |= *enough == least;
            continue;
        }
        let reached = |state: &str| summary.counters.rare.get(state).is_some_and(|count| *count > 0);
        failed |= never(profile, states.iter().copied().filter(|state| !reached(state)).collect());
    }
    if profile == Profile::Ideal && summary.runs >= least {
        let happened = |kind: &str| summary.counters.faults.get(kind).is_some_and(|count| *count > 0);
        failed |= never(profile, FAULTS.into_iter().filter(|fault| !happened(fault)).collect());
    }
    failed
}

fn never(profile: Profile, states: Vec<&str>) -> bool {
    if !states.is_empty() {
        println!("profile {} never reached: {}", profile.name(), states.join(", "));
    }
    !states.is_empty()
}

/// Says whether a planted bug was missed.
fn unnoticed(planted: Planted) -> bool {
    let summary = execute(&plan(Profile::Ideal, PLANTED_SEEDS, Some(planted)));
    match summary.failures.first().map(|outcome| (outcome.seed(), &outcome.verdict)) {
        Some((seed, Verdict::Violated { invariant, .. })) => {
            println!("planted {}: {invariant} noticed it at seed {seed}", planted.name());
            false
        }
        _ => {
            println!("planted {}: nothing noticed it within {PLANTED_SEEDS} seeds", planted.name());
            true
        }
    }
}

/// The first digits of the current commit; 0 outside a repository.
fn seed_of_commit() -> u64 {
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output();
    let commit = output.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    commit.and_then(|c| u64::from_str_radix(c.get(..12)?, 16).ok()).unwrap_or(0)
}
