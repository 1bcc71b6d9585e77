//! Runs a fixed number of seeds of every profile, and one more that differs from commit to commit. A harness of its
//! own, so that what was done is printed and not only whether it was right.

use std::process::{Command, ExitCode};

use sim::{
    run::{Outcome, run},
    scenario::Profile,
    suite::{Plan, execute},
    world::Verdict,
};

/// Seeds per profile: as many as fit into the test's share of `make test`.
const SEEDS: [(Profile, u64); 2] = [(Profile::Ideal, 2_000), (Profile::Small, 60)];

fn main() -> ExitCode {
    // `cargo test -- --list` asks every harness what it has.
    if std::env::args().any(|argument| argument == "--list") {
        println!("profiles: test");
        return ExitCode::SUCCESS;
    }
    let jobs = std::thread::available_parallelism().map_or(1, Into::into);
    let commit = seed_of_commit();
    let mut failed = false;
    for (profile, count) in SEEDS {
        let summary = execute(&Plan { profile, first: 1, count, jobs, time: None, keep_going: false });
        println!("{summary}");
        let of_commit = run(commit, profile, None);
        println!("  and seed {commit}, which the current commit decides");
        for outcome in summary.failures.iter().take(1).chain([&of_commit]) {
            failed |= tell(outcome);
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn tell(outcome: &Outcome) -> bool {
    let Verdict::Violated { invariant, what } = &outcome.verdict else { return false };
    println!("seed {} violates {invariant}: {what}\nreplay with: {}", outcome.seed, outcome.replay());
    true
}

/// The first digits of the current commit; 0 outside a repository.
fn seed_of_commit() -> u64 {
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output();
    let commit = output.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    commit.and_then(|c| u64::from_str_radix(c.get(..12)?, 16).ok()).unwrap_or(0)
}
