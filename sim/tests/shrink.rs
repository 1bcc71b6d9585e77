//! Shrinking a run with a planted bug: what is left is small, fails the same way, and is replayed by one command.

use std::process::Command;

use sim::{
    changes::{Calm, Changes},
    planted::Planted,
    run::{Outcome, execute, run},
    scenario::{Profile, Scenario},
    shrink::{Task, shrink},
    world::Verdict,
};

fn with_bug(seed: u64, planted: Planted) -> Outcome {
    execute(Scenario { planted: Some(planted), ..Scenario::draw(seed, Profile::Ideal) }, None)
}

fn invariant(outcome: &Outcome) -> Option<&str> {
    match &outcome.verdict {
        Verdict::Violated { invariant, .. } => Some(invariant),
        Verdict::Passed => None,
    }
}

fn task(seed: u64, planted: Option<Planted>) -> Task {
    Task {
        seed,
        profile: Profile::Ideal,
        planted,
        changes: Changes::default(),
        lucks: 3,
        runs: 600,
        time: None,
        jobs: 2,
    }
}

/// A seed whose run has many faults and fails because of one of them.
fn crowded(planted: Planted, invariant_name: &str) -> u64 {
    (1..2_000)
        .filter(|seed| Scenario::draw(*seed, Profile::Ideal).faults.len() >= 4)
        .find(|seed| invariant(&with_bug(*seed, planted)) == Some(invariant_name))
        .expect("a failing run with several faults")
}

#[test]
fn what_is_left_is_small_and_violates_the_same_invariant() {
    let planted = Planted::DroppedPublication;
    let seed = crowded(planted, "acknowledged_after_answer");
    let shrunk = shrink(&task(seed, Some(planted)), |_| {}).expect("a failing run");
    assert_eq!(invariant(&shrunk.outcome), Some("acknowledged_after_answer"));
    // A lost publication needs one answered request and nothing else to be wrong.
    assert_eq!(shrunk.faults(), Vec::<usize>::new(), "{shrunk}");
    assert_eq!(shrunk.steps().len(), 1, "{shrunk}");
    assert_eq!(shrunk.changes.calm.len(), Calm::ALL.len(), "{shrunk}");
    assert!(!shrunk.stopped, "{shrunk}");
}

#[test]
fn a_fault_that_is_needed_stays() {
    let planted = Planted::Forgets(mpcium_core::store::Keyspace::Shares);
    let seed = crowded(planted, "durable_before_answer");
    let shrunk = shrink(&task(seed, Some(planted)), |_| {}).expect("a failing run");
    // A restart must find no shares, and only a fault makes a node restart in the first phase.
    assert_eq!(invariant(&shrunk.outcome), Some("durable_before_answer"));
    let drawn = Scenario::draw(seed, Profile::Ideal).faults.len();
    assert!((1..drawn).contains(&shrunk.faults().len()), "{shrunk}");
    assert!(shrunk.steps().len() <= 8, "{shrunk}");
    let without_any = Changes { without_faults: (0..shrunk.scenario.faults.len()).collect(), ..shrunk.changes.clone() };
    let mut scenario = Scenario { planted: Some(planted), ..Scenario::draw(seed, Profile::Ideal) };
    without_any.apply(&mut scenario).expect("faults that there are");
    assert_ne!(invariant(&execute(scenario, None)), Some("durable_before_answer"), "no fault is needed at all");
}

#[test]
fn the_printed_command_replays_the_shrunk_run() {
    let planted = Planted::AlteredAnswer;
    let seed = crowded(planted, "one_answer");
    let shrunk = shrink(&Task { runs: 60, ..task(seed, Some(planted)) }, |_| {}).expect("a failing run");
    let command = shrunk.replay();
    let log = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("shrunk.jsonl");
    let (arguments, _) = command.split_once(" --log ").expect("it writes a log");
    let arguments = arguments.trim_start_matches("cargo run -p sim -- ").split(' ');
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).arg("--log").arg(&log).output();
    let output = output.expect("the simulator can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("violates one_answer"), "{command}\n{text}");
    assert!(text.contains(&shrunk.outcome.hash), "another run than the one that was found:\n{text}");
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let planted = Planted::DroppedPublication;
    let seed = crowded(planted, "acknowledged_after_answer");
    let changes = |jobs| shrink(&Task { jobs, ..task(seed, Some(planted)) }, |_| {}).expect("a failing run").changes;
    assert_eq!(changes(1), changes(3));
}

#[test]
fn a_run_that_passes_is_not_shrunk() {
    let error = shrink(&task(7, None), |_| {}).expect_err("seed 7 passes");
    assert!(error.contains("nothing to shrink"), "{error}");
}

#[test]
fn changes_must_name_what_there_is() {
    let drawn = Scenario::draw(353, Profile::Ideal);
    let refused = |changes: Changes| changes.apply(&mut drawn.clone()).expect_err("refused");
    let beyond = Changes { without_faults: [999].into(), ..Changes::default() };
    assert!(refused(beyond).contains("there is no fault 999"));
    let beyond = Changes { without_steps: [999].into(), ..Changes::default() };
    assert!(refused(beyond).contains("there is no step 999"));
    let early = Changes { heal_at: Some(1), ..Changes::default() };
    assert!(refused(early).contains("cannot end"));
}

#[test]
fn leaving_nothing_out_changes_nothing() {
    let mut scenario = Scenario::draw(5, Profile::Ideal);
    let drawn = scenario.clone();
    Changes::default().apply(&mut scenario).expect("nothing to refuse");
    assert_eq!(scenario, drawn);
    assert_eq!(execute(scenario, None).hash, run(5, Profile::Ideal, None).hash);
}
