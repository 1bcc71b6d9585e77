//! One seed is one run: in this process, in another, with or without a log.

use std::{path::PathBuf, process::Command};

use sim::{run::run, scenario::Profile};

fn log_of_process(seed: u64, profile: Profile, number: u32) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{seed}-{number}.jsonl", profile.name()));
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["--profile", profile.name(), "--seed", &seed.to_string(), "--log"])
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

#[test]
fn two_processes_write_the_same_log_for_one_seed() {
    for (profile, seeds) in [(Profile::Ideal, 1..6), (Profile::Small, 1..4)] {
        for seed in seeds {
            let difference = first_difference(&log_of_process(seed, profile, 1), &log_of_process(seed, profile, 2));
            assert_eq!(difference, None, "seed {seed} of {} differs", profile.name());
        }
    }
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
