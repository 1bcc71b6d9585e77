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

/// This part of the seeds reaches every rare state, as far as experience goes; fewer are not asked.
const ENOUGH: u64 = 20;

/// Seeds within which a planted bug must be noticed.
const PLANTED_SEEDS: u64 = 400;

/// States that the seeds of a profile must have reached, or the runs say less than they seem to.
const REACHED: [(Profile, &[&str]); 5] = [
    (
        Profile::Ideal,
        &[
            "a broken seal",
            "a damaged handshake",
            "a higher attempt ended a lower one",
            "a member did not hear that a wallet was decided",
            "a message was cut into fragments",
            "a node learned that it was rolled back",
            "a peer gave up before this one had started",
            "a peer's rollback was noticed",
            "a request waited for a free place",
            "a request waited for auxiliary data",
            "a request waited for peers",
            "a second ballot",
            "a session ended with a link",
            "a slot was closed",
            "a write failed",
            "alarm",
            "another session made the wallet",
            "auxiliary set ready",
            "crashed before a write",
            "crashed between sync and answer",
            "crashed between write and sync",
            "crashed inside a write",
            "decided in a later ballot",
            "declined: a higher attempt is known",
            "declined: a participant has restarted",
            "declined: another session runs",
            "declined: no link to a participant",
            "declined: unfit",
            "delivered again while the first taker works",
            "finished auxiliary",
            "finished keygen",
            "finished presign secp256k1",
            "finished sign ed25519",
            "finished sign secp256k1",
            "finished sign secp256k1 presigned",
            "healed core without auxiliary data",
            "link down",
            "link trouble",
            "lost acknowledgement of a publication",
            "lost delivery",
            "lost settlement",
            "messages overtook their proposal",
            "nobody heard from whom a wallet was decided",
            "node not ready",
            "promised above a vote",
            "proposal declined",
            "redelivery",
            "refused what it never prepared",
            "released delivery",
            "repeated publication",
            "request waits",
            "restart",
            "second or later attempt",
            "session ended with silent peers",
            "session failed",
            "started with an open decision",
            "started with an undecided session",
            "stopped in good order",
            "the coordinator ended an attempt",
            "the others were asked for a wallet",
            "the same id with another payload",
            "the same request again",
            "wallet activated",
        ],
    ),
    (
        Profile::Small,
        &["finished auxiliary", "finished keygen", "finished sign ed25519", "finished sign secp256k1", "restart"],
    ),
    (
        Profile::Byzantine,
        &[
            "cheater altered a message",
            "cheater claimed what nobody told it",
            "cheater answered with a wrong share",
            "cheater claimed another sender",
            "cheater delayed a message",
            "cheater dropped a message",
            "cheater equivocated",
            "cheater failed a check of a pair",
            "cheater fell silent after preparing",
            "cheater flooded its peers",
            "cheater proposed two sessions at once",
            "cheater proposed what nobody asked for",
            "cheater raised ballots",
            "cheater repeated a message",
            "cheater replayed a message",
            "cheater reported another signature",
            "finished sign ed25519",
            "finished sign secp256k1",
            "a pair was banned",
            "session ended with culprits",
        ],
    ),
    (
        Profile::Upgrade,
        &["a request that an earlier version answered", "finished sign secp256k1", "stopped in good order"],
    ),
    (Profile::Soak, &["finished sign secp256k1", "restart", "the same request again"]),
];

/// Faults of every kind must have happened in the ideal profile.
const FAULTS: [&str; 26] = [
    "blackout",
    "bus outage",
    "clock jump",
    "crash after sync",
    "crash before sync",
    "crash before write",
    "crash, torn write",
    "deaf",
    "delay",
    "discovery",
    "disk error",
    "full disk",
    "isolation",
    "kill",
    "loss",
    "mute",
    "one-way partition",
    "pause",
    "queue failover",
    "rollback",
    "rolling restart",
    "slow disk",
    "slow processor",
    "split",
    "stalled queue",
    "swizzle",
];

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
        if summary.runs >= count / ENOUGH {
            failed |= missing(profile, &summary);
        } else {
            println!("  too few seeds in {seconds} s to ask which rare states were reached");
        }
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

/// Says which states were never reached; whether any was not.
fn missing(profile: Profile, summary: &Summary) -> bool {
    let faults = |kind: &str| summary.counters.faults.get(kind).copied().unwrap_or(0);
    let never: Vec<&str> = REACHED
        .iter()
        .filter(|(of, _)| *of == profile)
        .flat_map(|(_, states)| states.iter().copied())
        .filter(|state| summary.counters.rare.get(*state).is_none_or(|count| *count == 0))
        .collect();
    let never: Vec<&str> = match profile {
        Profile::Ideal => never.into_iter().chain(FAULTS.into_iter().filter(|fault| faults(fault) == 0)).collect(),
        _ => never,
    };
    if !never.is_empty() {
        println!("profile {} never reached: {}", profile.name(), never.join(", "));
    }
    !never.is_empty()
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
