//! Runs simulations: one seed to replay it, or many to look for trouble; steps through logs, shrinks failing runs.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use sim::{
    changes::{Calm, Changes},
    kept::Kept,
    planted::Planted,
    run::{Outcome, execute},
    scenario::{At, Profile, Scenario},
    shrink::{self, Task},
    suite, view,
    world::Verdict,
};

/// Failing runs of one search whose logs are written: each is some megabytes.
const LOGS_MAX: usize = 8;

/// Simulated clusters of mpcium nodes: the real core and driver in a world decided by one number.
#[derive(Debug, Parser)]
#[command(name = "sim", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    tool: Option<Tool>,
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
    /// `ideal`, `small`, `byzantine`, `soak` or `upgrade`; `ideal`, or the one that fits the planted bug, if not given.
    #[arg(long, value_parser = profile)]
    profile: Option<Profile>,
    /// Threads; as many as there are processors if not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// With --seed: write what happens to this file, one JSON object per line.
    #[arg(long)]
    log: Option<PathBuf>,
    /// With --seed: print the scenario as JSON instead of running it.
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    changes: ChangeArguments,
    /// Plant this bug, to see whether it is noticed; `all` tries every one.
    #[arg(long, value_parser = planted, num_args = 1)]
    planted: Option<Plants>,
    /// Go on after a failure and list them all.
    #[arg(long)]
    keep_going: bool,
    /// With --seed, for a run that fails: write it down whole to this file, so that it stays what it is.
    #[arg(long, requires = "what")]
    keep: Option<PathBuf>,
    /// With --keep: what was wrong, in words.
    #[arg(long)]
    what: Option<String>,
    /// Replay a run that was written down, with several lucks; with --luck or --log, once.
    #[arg(long, conflicts_with_all = ["seed", "profile"])]
    kept: Option<PathBuf>,
    /// Write to this file what a cluster of this version leaves behind, for profile `upgrade` of later versions.
    #[arg(long)]
    freeze: Option<PathBuf>,
}

/// What can be done besides running.
#[derive(Debug, Subcommand)]
enum Tool {
    /// Step through a log: commands are asked for, or read from a pipe.
    View {
        /// The log, as `--log` wrote it.
        log: PathBuf,
        /// Carry out this command and stop; may be given several times.
        #[arg(short = 'e', long = "execute", value_name = "COMMAND")]
        execute: Vec<String>,
    },
    /// Reduce a failing run while it still violates the same invariant.
    Shrink(ShrinkArguments),
}

#[derive(Debug, Args)]
struct ShrinkArguments {
    /// The run's seed.
    #[arg(long)]
    seed: u64,
    /// Its profile.
    #[arg(long, default_value = "ideal", value_parser = profile)]
    profile: Profile,
    /// The bug that is planted in it.
    #[arg(long, value_parser = bug)]
    planted: Option<Planted>,
    #[command(flatten)]
    changes: ChangeArguments,
    /// How many times chance may fall differently before a smaller run counts as passing.
    #[arg(long, default_value_t = 3)]
    lucks: u64,
    /// Stop after this many runs.
    #[arg(long, default_value_t = 3_000)]
    runs: u64,
    /// Stop after this many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Threads; as many as there are processors if not given.
    #[arg(long)]
    jobs: Option<usize>,
}

/// With --seed: what to take away from the run. Numbers are those of the scenario that --show prints.
#[derive(Clone, Debug, Args)]
struct ChangeArguments {
    /// With --seed: leave these faults out.
    #[arg(long, value_delimiter = ',')]
    without_faults: Vec<usize>,
    /// With --seed: leave out these steps of clients.
    #[arg(long, value_delimiter = ',')]
    without_steps: Vec<usize>,
    /// With --seed: mend what is always a little broken (loss, late, clocks, …).
    #[arg(long, value_delimiter = ',', value_parser = Calm::parse)]
    calm: Vec<Calm>,
    /// With --seed: let faults end at other times, as FAULT=MICROSECONDS.
    #[arg(long, value_delimiter = ',', value_parser = fault_until)]
    fault_until: Vec<(usize, At)>,
    /// With --seed: end the first phase at this time, in microseconds.
    #[arg(long)]
    heal_at: Option<At>,
    /// With --seed or --kept: let chance fall differently in the same scenario.
    #[arg(long)]
    luck: Option<u64>,
}

impl ChangeArguments {
    fn changes(&self) -> Changes {
        Changes {
            without_faults: self.without_faults.iter().copied().collect(),
            without_steps: self.without_steps.iter().copied().collect(),
            calm: self.calm.iter().copied().collect(),
            fault_until: self.fault_until.iter().copied().collect(),
            heal_at: self.heal_at,
            luck: self.luck.unwrap_or(0),
        }
    }
}

fn fault_until(text: &str) -> Result<(usize, At), String> {
    let both = text.split_once('=').and_then(|(fault, at)| Some((fault.parse().ok()?, at.parse().ok()?)));
    both.ok_or_else(|| "expected FAULT=MICROSECONDS".to_owned())
}

fn bug(name: &str) -> Result<Planted, String> {
    match planted(name)? {
        Plants::One(planted) => Ok(planted),
        Plants::Each => Err("one bug, by its name".to_owned()),
    }
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
        let known: Vec<String> = Planted::all().into_iter().map(Planted::name).collect();
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

    fn profile(&self) -> Profile {
        self.profile.unwrap_or_else(|| self.bug().map_or(Profile::Ideal, Planted::profile))
    }

    fn plan(&self) -> suite::Plan {
        suite::Plan {
            profile: self.profile(),
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
    match &arguments.tool {
        Some(Tool::View { log, execute }) => return finish(view::view(log, execute)),
        Some(Tool::Shrink(arguments)) => return finish(shrink_run(arguments)),
        None => {}
    }
    if let Some(path) = &arguments.freeze {
        return freeze(path);
    }
    if let Some(path) = &arguments.kept {
        return finish(replay_kept(path, &arguments));
    }
    match (arguments.seed, arguments.planted) {
        (Some(seed), _) => one(seed, &arguments),
        (None, Some(Plants::Each)) => every_bug(&arguments),
        (None, _) => many(&arguments),
    }
}

/// Writes what a cluster of this version leaves behind.
fn freeze(path: &std::path::Path) -> ExitCode {
    let written = sim::run::leave_behind(Scenario::to_freeze())
        .and_then(|frozen| frozen.encode().map_err(|error| error.to_string()))
        .and_then(|bytes| std::fs::write(path, bytes).map_err(|error| error.to_string()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nothing was frozen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plants one bug after the other, prints by what each is noticed, and fails if one is not.
fn every_bug(arguments: &Arguments) -> ExitCode {
    let mut missed = false;
    for planted in Planted::all() {
        let profile = arguments.profile.unwrap_or_else(|| planted.profile());
        let plan = suite::Plan { profile, keep_going: false, planted: Some(planted), ..arguments.plan() };
        let summary = suite::execute(&plan);
        match summary.failures.first().map(|outcome| (outcome.seed(), &outcome.verdict)) {
            Some((seed, Verdict::Violated { invariant, what })) => {
                println!("| `{}` | {} | `{invariant}` | {seed} |", planted.name(), profile.name());
                eprintln!("  {what}");
            }
            _ => {
                missed = true;
                println!("| `{}` | {} | NOT NOTICED | {} |", planted.name(), profile.name(), summary.runs);
            }
        }
    }
    match kept_with_bugs() {
        Ok(lost) => missed |= lost,
        Err(error) => {
            eprintln!("{error}");
            missed = true;
        }
    }
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Brings back the old bugs of the runs that were written down; whether one is not noticed any more.
fn kept_with_bugs() -> Result<bool, String> {
    let mut lost = false;
    for (path, kept) in Kept::all()? {
        let Some(bug) = kept.bug() else { continue };
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match kept.replay(Some(bug)).verdict {
            Verdict::Violated { invariant, .. } => println!("| `{}` | run `{name}` | `{invariant}` |", bug.name()),
            Verdict::Passed => {
                lost = true;
                println!("| `{}` | run `{name}` | NOT NOTICED |", bug.name());
            }
        }
    }
    Ok(lost)
}

/// Replays a run that was written down; whether it passes.
fn replay_kept(path: &std::path::Path, arguments: &Arguments) -> Result<bool, String> {
    let kept = Kept::read(path)?;
    let outcome = match (arguments.changes.luck, arguments.log.clone()) {
        (None, None) => kept.replay(arguments.bug()),
        (luck, log) => kept.replay_once(luck.unwrap_or(kept.scenario.luck), arguments.bug(), log),
    };
    println!("{}: {}", path.display(), kept.what);
    println!("{}", outcome.counters);
    let failed = tell(&outcome);
    if failed && arguments.log.is_none() {
        println!("replay with: {}", outcome.replay_kept(path));
    }
    Ok(!failed)
}

/// Writes a failing run down.
fn keep(path: &std::path::Path, what: &str, scenario: Scenario) -> Result<bool, String> {
    let scenario = scenario.compact();
    let outcome = execute(scenario.clone(), None);
    let Verdict::Violated { invariant, .. } = &outcome.verdict else {
        return Err("the run passes: there is nothing to keep".to_owned());
    };
    let bug = scenario.planted.map(Planted::name).unwrap_or_default();
    Kept { what: what.to_owned(), invariant: invariant.clone(), bug, open: false, scenario }.write(path)?;
    tell(&outcome);
    Ok(true)
}

fn one(seed: u64, arguments: &Arguments) -> ExitCode {
    let mut scenario = Scenario::draw(seed, arguments.profile());
    scenario.planted = arguments.bug();
    if let Err(error) = arguments.changes.changes().apply(&mut scenario) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    if arguments.show {
        println!("{}", serde_json::to_string_pretty(&scenario).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    if let (Some(path), Some(what)) = (&arguments.keep, &arguments.what) {
        return finish(keep(path, what, scenario));
    }
    let outcome = execute(scenario, arguments.log.clone());
    println!("seed {seed}, profile {}: hash {}", arguments.profile().name(), outcome.hash);
    println!("{}", outcome.counters);
    if tell(&outcome) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn finish(result: Result<bool, String>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn shrink_run(arguments: &ShrinkArguments) -> Result<bool, String> {
    let task = Task {
        seed: arguments.seed,
        profile: arguments.profile,
        planted: arguments.planted,
        changes: arguments.changes.changes(),
        lucks: arguments.lucks,
        runs: arguments.runs,
        time: arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
        jobs: arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into)),
    };
    // Candidates that end in a panic would print it hundreds of times; the last one is told below.
    std::panic::set_hook(Box::new(|_| {}));
    println!("{}", shrink::shrink(&task, |what| eprintln!("{what}"))?);
    Ok(true)
}

fn many(arguments: &Arguments) -> ExitCode {
    let plan = arguments.plan();
    let summary = suite::execute(&plan);
    println!("{summary}");
    let mut failed = false;
    for (number, outcome) in summary.failures.iter().enumerate() {
        failed |= tell(outcome);
        // A planted bug is meant to be noticed.
        if arguments.planted.is_none() && number < LOGS_MAX {
            match outcome.write_log() {
                Ok(path) => println!("what happened: {}", path.display()),
                Err(error) => println!("no log was written: {error}"),
            }
        }
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
            println!("seed {} violates {invariant}: {what}", outcome.seed());
            true
        }
    }
}
