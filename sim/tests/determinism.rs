//! One seed is one run: in this process, in another, with or without a log.

use std::{path::PathBuf, process::Command};

use madsim::{Config, runtime::Runtime};
use mpcium_core::protocol::{AuxiliarySuite, Dkls, Run};
use sim::{
    changes::Changes,
    run::run,
    scenario::{At, HOUR, Profile, SECOND, Scenario},
};

fn log_of_process(seed: u64, profile: Profile, number: u32, changes: &Changes) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{seed}-{number}.jsonl", profile.name()));
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["--profile", profile.name(), "--seed", &seed.to_string()])
        .args(changes.flags().split_whitespace())
        .arg("--log")
        .arg(&path)
        .output()
        .expect("the simulator can be started");
    let log = std::fs::read(&path).expect("the simulator wrote its log");
    assert!(!log.is_empty(), "nothing happened: {}", String::from_utf8_lossy(&output.stdout));
    log
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<String> {
    let (a, b) = (String::from_utf8_lossy(a), String::from_utf8_lossy(b));
    let pair = a.lines().zip(b.lines()).find(|(a, b)| a != b);
    pair.map(|(a, b)| format!("{a}\n{b}")).or_else(|| (a.len() != b.len()).then(|| "one is longer".to_owned()))
}

/// Fails unless two processes write the same log for a seed.
fn compare(seed: u64, profile: Profile, changes: &Changes) {
    let log = |number| log_of_process(seed, profile, number, changes);
    let difference = first_difference(&log(1), &log(2));
    assert_eq!(difference, None, "seed {seed} of {} differs", profile.name());
}

/// What leaves the first hours of a run of days: the rest is more of the same.
fn first_hours(scenario: &Scenario, hours: u64) -> Changes {
    let end = hours * HOUR;
    let late = |at: &At| *at > end;
    let faults = scenario.faults.iter().enumerate().filter(|(_, fault)| late(&fault.until));
    let steps = scenario.steps.iter().enumerate().filter(|(_, step)| late(&step.at));
    Changes {
        without_faults: faults.map(|(number, _)| number).collect(),
        without_steps: steps.map(|(number, _)| number).collect(),
        heal_at: Some(end + SECOND),
        ..Changes::default()
    }
}

#[test]
fn two_processes_write_the_same_log_for_one_seed() {
    let seeds = [(Profile::Ideal, 1..6), (Profile::Small, 1..4), (Profile::Byzantine, 1..2), (Profile::Upgrade, 1..2)];
    for (profile, seeds) in seeds {
        seeds.for_each(|seed| compare(seed, profile, &Changes::default()));
    }
    compare(1, Profile::Soak, &first_hours(&Scenario::draw(1, Profile::Soak), 3));
}

#[test]
fn a_log_does_not_change_the_run() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("observed.jsonl");
    for seed in 1..6 {
        let observed = run(seed, Profile::Ideal, Some(&path));
        assert_eq!(run(seed, Profile::Ideal, None).hash, observed.hash, "seed {seed}");
    }
}

#[test]
fn two_seeds_are_two_runs() {
    assert_ne!(run(1, Profile::Ideal, None).hash, run(2, Profile::Ideal, None).hash);
}

/// The first message of a pair's set-up, under an executor that answers the machine's randomness from this seed.
fn first_words(seed: u64) -> Vec<u8> {
    Runtime::with_seed_and_config(seed, Config::default()).block_on(async {
        let run = Run { execution_id: [1; 32], index: 0, parties: 2, seed: [2; 32] };
        let mut party = AuxiliarySuite::start(&Dkls, run, Vec::new()).expect("a possible run");
        party.advance(Vec::new()).messages.remove(0).bytes
    })
}

/// Its library draws from the thread's generator, which would go on where the runs before have left it.
#[test]
fn a_step_of_dkls23_depends_on_the_machine_s_randomness_of_that_moment_alone() {
    // From here on the thread has its generator, whose making draws as well.
    let other = first_words(2);
    let once = first_words(1);
    assert_eq!(first_words(1), once);
    assert_ne!(once, other);
}
