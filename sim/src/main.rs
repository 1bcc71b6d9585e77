//! Runs simulations: one seed to replay it, or many to look for trouble.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use sim::{
    planted::Planted,
    run::{Outcome, execute},
    scenario::{Profile, Scenario},
    suite,
    world::Verdict,
};

/// Simulated clusters of mpcium nodes: the real core and driver in a world decided by one number.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    /// Run this seed only and print how it ended.
    #[arg(long)]
    seed: Option<u64>,
    /// Run this many seeds.
    #[arg(long, default_value_t = 1_000)]
    iterations: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Run as many seeds as fit in this many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// `ideal` or `small`.
    #[arg(long, default_value = "ideal", value_parser = profile)]
    profile: Profile,
    /// Threads; as many as there are processors if not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// With --seed: write what happens to this file, one JSON object per line.
    #[arg(long)]
    log: Option<PathBuf>,
    /// With --seed: print the scenario as JSON instead of running it.
    #[arg(long)]
    show: bool,
    /// With --seed: leave these faults out, by their numbers in the scenario.
    #[arg(long, value_delimiter = ',')]
    without_faults: Vec<usize>,
    /// Plant this bug, to see whether it is noticed; `all` tries every one.
    #[arg(long, value_parser = planted, num_args = 1)]
    planted: Option<Plants>,
    /// Go on after a failure and list them all.
    #[arg(long)]
    keep_going: bool,
}

fn profile(name: &str) -> Result<Profile, String> {
    Profile::parse(name).ok_or_else(|| {
        let known: Vec<&str> = Profile::ALL.into_iter().map(Profile::name).collect();
        format!("no profile of that name; there are {}", known.join(", "))
    })
}

/// What is planted: one bug, or each in turn.
#[derive(Clone, Copy, Debug)]
enum Plants {
    One(Planted),
    Each,
}

fn planted(name: &str) -> Result<Plants, String> {
    if name == "all" {
        return Ok(Plants::Each);
    }
    Planted::parse(name).map(Plants::One).ok_or_else(|| {
        let known: Vec<String> = Planted::ALL.into_iter().map(Planted::name).collect();
        format!("no bug of that name; there are all, {}", known.join(", "))
    })
}

impl Arguments {
    fn bug(&self) -> Option<Planted> {
        match self.planted {
            Some(Plants::One(planted)) => Some(planted),
            Some(Plants::Each) | None => None,
        }
    }

    fn plan(&self) -> suite::Plan {
        suite::Plan {
            profile: self.profile,
            first: self.first,
            count: if self.minutes.is_some() { u64::MAX } else { self.iterations },
            jobs: self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into)),
            time: self.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
            keep_going: self.keep_going,
            planted: self.bug(),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match (arguments.seed, arguments.planted) {
        (Some(seed), _) => one(seed, &arguments),
        (None, Some(Plants::Each)) => every_bug(&arguments),
        (None, _) => many(&arguments),
    }
}

/// Plants one bug after the other, prints by what each is noticed, and fails if one is not.
fn every_bug(arguments: &Arguments) -> ExitCode {
    let mut missed = false;
    for planted in Planted::ALL {
        let plan = suite::Plan { keep_going: false, planted: Some(planted), ..arguments.plan() };
        let summary = suite::execute(&plan);
        match summary.failures.first().map(|outcome| (outcome.seed, &outcome.verdict)) {
            Some((seed, Verdict::Violated { invariant, what })) => {
                println!("| `{}` | `{invariant}` | {seed} |", planted.name());
                eprintln!("  {what}");
            }
            _ => {
                missed = true;
                println!("| `{}` | NOT NOTICED in {} seeds | |", planted.name(), summary.runs);
            }
        }
    }
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn one(seed: u64, arguments: &Arguments) -> ExitCode {
    let mut scenario = Scenario::draw(seed, arguments.profile);
    scenario.planted = arguments.bug();
    if arguments.show {
        println!("{}", serde_json::to_string_pretty(&scenario).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    let mut number = 0;
    scenario.faults.retain(|_| {
        number += 1;
        !arguments.without_faults.contains(&(number - 1))
    });
    let outcome = execute(scenario, arguments.log.clone());
    println!("seed {seed}, profile {}: hash {}", arguments.profile.name(), outcome.hash);
    println!("{}", outcome.counters);
    if tell(&outcome) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn many(arguments: &Arguments) -> ExitCode {
    let plan = arguments.plan();
    let summary = suite::execute(&plan);
    println!("{summary}");
    let mut failed = false;
    for outcome in &summary.failures {
        failed |= tell(outcome);
        println!("replay with: {}", outcome.replay());
        if !arguments.keep_going {
            break;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Says what was violated; whether anything was.
fn tell(outcome: &Outcome) -> bool {
    match &outcome.verdict {
        Verdict::Passed => false,
        Verdict::Violated { invariant, what } => {
            println!("seed {} violates {invariant}: {what}", outcome.seed);
            true
        }
    }
}
