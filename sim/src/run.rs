//! Executes one run on a fresh thread of its own, because the executor's random state is per thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use madsim::{Config, runtime::Runtime};
use mpcium_core::protocol::Suites;

use crate::{
    counters::Counters,
    frozen::Frozen,
    ideal::{self, Witness},
    invariants,
    log::Log,
    planted::Planted,
    scenario::{Profile, Scenario},
    small,
    world::{Verdict, World, lock, pump},
};

/// Stack of a run's thread: the big-integer code of real protocols nests deeply.
const STACK_BYTES: usize = 16 << 20;

/// What came out of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was run.
    pub scenario: Box<Scenario>,
    /// How it ended.
    pub verdict: Verdict,
    /// Hash over everything that happened; empty if the run ended in a panic.
    pub hash: String,
    /// What it counted.
    pub counters: Counters,
}

impl Outcome {
    /// The seed of what was run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.scenario.seed
    }

    /// The one command that replays the run of a seed and writes its log.
    #[must_use]
    pub fn replay(&self) -> String {
        let Scenario { profile, seed, luck, planted, .. } = *self.scenario;
        let profile = profile.name();
        let luck = if luck == 0 { String::new() } else { format!(" --luck {luck}") };
        format!("{} --profile {profile} --seed {seed}{luck} --log {profile}-{seed}.jsonl", program(planted))
    }

    /// The same for a run that was written down in `file`: no seed draws it any more.
    #[must_use]
    pub fn replay_kept(&self, file: &Path) -> String {
        let Scenario { luck, planted, .. } = *self.scenario;
        let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        format!("{} --kept {} --luck {luck} --log {name}-{luck}.jsonl", program(planted), file.display())
    }

    /// Runs the same once more and writes its log into the folder of what was built; says where.
    ///
    /// # Errors
    /// In words, if the log cannot be written.
    pub fn write_log(&self) -> Result<PathBuf, String> {
        let folder = built().join("sim-failures");
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let path = folder.join(format!("{}-{}.jsonl", self.scenario.profile.name(), self.scenario.seed));
        std::fs::File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let again = execute((*self.scenario).clone(), Some(path.clone()));
        if again.verdict == self.verdict { Ok(path) } else { Err("the same run has ended differently".to_owned()) }
    }
}

/// The command that runs what was built, with the bugs inside core where one of them is planted.
pub(crate) fn program(planted: Option<Planted>) -> String {
    let built = if planted.and_then(Planted::in_core).is_some() { "MPCIUM_PLANTED_BUGS=1 " } else { "" };
    let planted = planted.map(|planted| format!(" --planted {}", planted.name())).unwrap_or_default();
    format!("{built}cargo run -p sim --{planted}")
}

/// The folder into which this program was built, which cargo has marked; one for temporary files if it lies elsewhere.
fn built() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let marked = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    marked.map_or_else(std::env::temp_dir, Path::to_path_buf)
}

/// Runs the scenario of a seed; writes its log to `log` if given.
#[must_use]
pub fn run(seed: u64, profile: Profile, log: Option<&Path>) -> Outcome {
    execute(Scenario::draw(seed, profile), log.map(Path::to_path_buf))
}

/// Runs a scenario.
#[must_use]
pub fn execute(scenario: Scenario, log: Option<PathBuf>) -> Outcome {
    let ran = Box::new(scenario.clone());
    if scenario.prepared {
        // By a run of its own, and in a run no thread can be started. This one will find it.
        drop(small::left_before(&scenario));
    }
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || simulate(scenario, log));
    let ended = match thread {
        Ok(thread) => thread.join(),
        Err(error) => Err(Box::new(format!("no thread for the run: {error}")) as Box<dyn std::any::Any + Send>),
    };
    match ended {
        Ok((verdict, hash, counters)) => Outcome { scenario: ran, verdict, hash, counters },
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "a panic without words".into());
            let verdict = Verdict::Violated { invariant: "no_panic".into(), what };
            Outcome { scenario: ran, verdict, hash: String::new(), counters: Counters::default() }
        }
    }
}

/// Runs a scenario, such as the one that is [to be frozen](Scenario::to_freeze), and returns what it leaves behind.
///
/// # Errors
/// In words, if the run fails.
pub fn leave_behind(scenario: Scenario) -> Result<Frozen, String> {
    at_end(scenario, |world| world.freeze())
}

/// Runs a scenario with cheaters, and returns what nodes said to them: a message of each kind, as fuzzers want them.
///
/// # Errors
/// In words, if the run fails.
pub fn overhear(scenario: Scenario) -> Result<Vec<Vec<u8>>, String> {
    at_end(scenario, |world| world.cheating.heard())
}

fn at_end<T: Send + 'static>(scenario: Scenario, look: impl FnOnce(&World) -> T + Send + 'static) -> Result<T, String> {
    let run = move || {
        mpcium_client::memory::remember();
        let runtime = Runtime::with_seed_and_config(scenario.seed, Config::default());
        runtime.block_on(async move {
            let log = Log::new(None).map_err(|error| error.to_string())?;
            let witness = Arc::new(Witness::default());
            let suites = suites(&scenario, &witness);
            let world = World::new(scenario, suites, witness, invariants::all(), log);
            let verdict = pump(world.clone()).await;
            let mut world = lock(&world);
            let seen = look(&world);
            world.close();
            if verdict == Verdict::Passed { Ok(seen) } else { Err(format!("{verdict:?}")) }
        })
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).map_err(|error| error.to_string())?;
    thread.join().map_err(|_| "the run panicked".to_owned())?
}

fn suites(scenario: &Scenario, witness: &Arc<Witness>) -> Suites {
    match scenario.profile {
        Profile::Small => small::suites(scenario.seed),
        _ if scenario.pairs => ideal::pairwise_suites(witness, scenario.planted),
        _ => ideal::suites(witness, scenario.planted),
    }
}

fn simulate(scenario: Scenario, log: Option<PathBuf>) -> (Verdict, String, Counters) {
    // All nodes of the cluster are in this thread, and each verifies everything.
    mpcium_client::memory::remember();
    mpcium_core::planted::plant(scenario.planted.and_then(Planted::in_core));
    let runtime = Runtime::with_seed_and_config(scenario.seed, Config::default());
    runtime.block_on(async move {
        let log = match Log::new(log.as_deref()) {
            Ok(log) => log,
            Err(error) => panic!("the log cannot be written: {error}"),
        };
        let witness = Arc::new(Witness::default());
        let suites = suites(&scenario, &witness);
        let world = World::new(scenario, suites, witness, invariants::all(), log);
        let verdict = pump(world.clone()).await;
        lock(&world).close();
        // The executor drops the killed processes when it runs next; otherwise they would outlive the run.
        madsim::time::sleep(std::time::Duration::from_millis(1)).await;
        let world = lock(&world);
        (verdict, world.log.hash(), world.counters.clone())
    })
}
