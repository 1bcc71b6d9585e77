//! The viewer over a real log: it steps, stops, reconstructs and compares, and says what is wrong with a command.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use sim::{
    planted::Planted,
    run::{execute, run},
    scenario::{Profile, Scenario},
    view::{Flow, Viewer, recording::Recording, state::State},
};

/// A run in which nodes die, and what they said.
fn log(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("view-{name}.jsonl"));
    let _ = run(353, Profile::Ideal, Some(&path));
    path
}

fn viewer(name: &str) -> Viewer {
    Viewer::new(Recording::read(&log(name)).expect("the simulator's own log"))
}

fn tell(viewer: &mut Viewer, command: &str) -> String {
    match viewer.command(command) {
        Ok(Flow::Tell(text)) => text,
        other => panic!("{command}: {other:?}"),
    }
}

fn piped(log: &Path, commands: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sim"))
        .arg("view")
        .arg(log)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the simulator can be started");
    child.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn stepping_forward_and_back_comes_to_the_same_place_and_state() {
    let mut viewer = viewer("steps");
    tell(&mut viewer, "next 20");
    let (line, state) = (tell(&mut viewer, "line"), tell(&mut viewer, "show all"));
    tell(&mut viewer, "next 300");
    assert_ne!(tell(&mut viewer, "show all"), state);
    tell(&mut viewer, "back 300");
    assert_eq!(tell(&mut viewer, "line"), line);
    assert_eq!(tell(&mut viewer, "show all"), state);
    // A place far behind is reached through kept states; what is known there does not depend on the way.
    tell(&mut viewer, "mark early");
    tell(&mut viewer, "goto end");
    tell(&mut viewer, "goto early");
    assert_eq!(tell(&mut viewer, "show all"), state);
    assert_eq!(
        tell(&mut viewer, "diff early here"),
        format!("from {0} to {0}: 0 differences", tell(&mut viewer, "marks").trim_start_matches("early: "))
    );
}

#[test]
fn breakpoints_on_node_session_and_kind_stop_there() {
    let mut viewer = viewer("breaks");
    tell(&mut viewer, "break node=node1 event=session_started");
    let stopped = tell(&mut viewer, "continue");
    assert!(stopped.contains("node1") && stopped.contains("started: attempt"), "{stopped}");
    let line: serde_json::Value = serde_json::from_str(&tell(&mut viewer, "line")).expect("the whole line is JSON");
    let session = line["report"]["session"].as_str().expect("a session").to_owned();

    let known = tell(&mut viewer, &format!("show node1/session/{session}"));
    assert!(known.contains(line["report"]["protocol"].as_str().expect("a protocol")), "{known}");
    assert_eq!(tell(&mut viewer, "delete all"), "no breakpoints");
    tell(&mut viewer, &format!("break session={session} event=session_ended node=node1"));
    let ended = tell(&mut viewer, "continue");
    assert!(ended.contains("ended after"), "{ended}");
    assert!(tell(&mut viewer, &format!("show node1/ended/{session}")).contains(" at "));
    assert!(!tell(&mut viewer, "show node1/session/").contains(&format!("node1/session/{session}")));

    tell(&mut viewer, "delete all");
    tell(&mut viewer, "break kind=heal");
    assert!(tell(&mut viewer, "continue").contains("heal"));
    assert!(tell(&mut viewer, "show run").contains("healed at"));
    tell(&mut viewer, "continue");
    assert!(viewer.command("next").is_err(), "the end was reached");
}

#[test]
fn the_state_follows_processes_records_and_requests() {
    let recording = Recording::read(&log("state")).expect("a log");
    let mut state = State::default();
    let (mut writes, mut deaths, mut answers) = (0, 0, 0);
    for line in &recording.lines {
        let before = state.clone();
        state.apply(line);
        let value = line.value();
        let node = &line.node;
        match line.kind.as_str() {
            "boot" => assert!(state.get(&format!("{node}/process")).is_some_and(|text| text.starts_with("runs"))),
            "kill" => {
                deaths += 1;
                assert!(state.get(&format!("{node}/process")).is_some_and(|text| text.starts_with("down")));
                assert!(state.iter().all(|(path, _)| !path.starts_with(&format!("{node}/session/"))));
            }
            "durable" => {
                writes += 1;
                let promised = before.iter().filter(|(_, text)| text.ends_with("not durable yet")).count();
                let still = state.iter().filter(|(_, text)| text.ends_with("not durable yet")).count();
                assert!(still <= promised);
            }
            "answer" => {
                answers += 1;
                let dedup = value["dedup"].as_str().expect("an id");
                assert!(
                    state.iter().any(|(path, _)| path.starts_with("request/") && path.ends_with(dedup)),
                    "the answer {dedup} belongs to no request"
                );
            }
            _ => {}
        }
    }
    assert!(writes > 10 && deaths > 1 && answers > 1, "{writes} writes, {deaths} deaths, {answers} answers");
    // What the disk really held when a process died is what had been reconstructed: no line lies about durability.
    let mut compared = 0;
    let mut state = State::default();
    for line in &recording.lines {
        let before = records(&state, &line.node);
        state.apply(line);
        if line.kind == "disk" && before.values().all(|text| text.ends_with("bytes")) {
            assert_eq!(records(&state, &line.node), before, "at {}", line.raw);
            compared += 1;
        }
    }
    assert!(compared > 0, "no process died with everything written");
}

fn records(state: &State, node: &str) -> std::collections::BTreeMap<String, String> {
    let below = format!("{node}/record/");
    let records = state.iter().filter(|(path, _)| path.starts_with(&below));
    records.map(|(path, text)| (path.to_owned(), text.to_owned())).collect()
}

#[test]
fn a_difference_names_what_came_what_went_and_what_changed() {
    let mut viewer = viewer("diff");
    tell(&mut viewer, "until kind=kill");
    tell(&mut viewer, "mark dead");
    tell(&mut viewer, "back");
    let text = tell(&mut viewer, "diff here dead");
    assert!(text.contains("/process: runs since"), "{text}");
    assert!(text.contains("now: down since"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("- node")), "links and sessions of the dead process go: {text}");
    assert!(tell(&mut viewer, "diff 0 end").lines().any(|line| line.starts_with("+ request/")));
}

#[test]
fn commands_from_a_pipe_do_the_same_and_a_bad_one_fails() {
    let path = log("pipe");
    let good = piped(&path, "# a comment\ninfo\nuntil event=wallet_activated\nshow wallet\nquit\nnonsense\n");
    let text = String::from_utf8_lossy(&good.stdout);
    assert!(good.status.success(), "{text}");
    assert!(text.contains("no violation in it") && text.contains("wallet/wallet-"), "{text}");

    let bad = piped(&path, "show\nfrobnicate\ngoto 99999999\nuntil nowhere=nothing\n");
    let text = String::from_utf8_lossy(&bad.stdout);
    assert!(!bad.status.success());
    assert!(text.contains("no command \"frobnicate\"") && text.contains("there is no line 99999999"), "{text}");
}

#[test]
fn a_violation_is_found_and_two_logs_are_told_apart() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("view-violation.jsonl");
    let mut scenario = Scenario::draw(1, Profile::Ideal);
    scenario.planted = Some(Planted::ConfirmedBeforeWrite);
    for seed in 1..40 {
        scenario = Scenario { planted: scenario.planted, ..Scenario::draw(seed, Profile::Ideal) };
        if execute(scenario.clone(), Some(path.clone())).verdict != sim::world::Verdict::Passed {
            break;
        }
    }
    let mut viewer = Viewer::new(Recording::read(&path).expect("a log"));
    let stopped = tell(&mut viewer, "continue");
    assert!(stopped.contains("invariant="), "{stopped}");
    assert!(tell(&mut viewer, "show run").contains("run/violation"));
    assert_eq!(tell(&mut viewer, "goto violation"), stopped);
    assert_eq!(tell(&mut viewer, &format!("compare {}", path.display())), "the logs are the same");
    let other = log("other");
    assert!(tell(&mut viewer, &format!("compare {}", other.display())).starts_with("the first difference is line"));
}

#[test]
fn what_is_no_log_is_refused_and_a_cut_line_is_not() {
    assert!(Recording::parse("").is_err());
    assert!(Recording::parse("garbage\nmore garbage\n").is_err_and(|error| error.contains("line 1")));
    let whole = std::fs::read_to_string(log("cut")).expect("a log");
    let cut = Recording::parse(&whole[..whole.len() - 20]).expect("a log whose last line is cut");
    assert!(cut.cut_off);
    let mut broken: Vec<&str> = whole.lines().take(10).collect();
    broken[4] = "{\"at_us\":1}";
    assert!(Recording::parse(&broken.join("\n")).is_err_and(|error| error.contains("line 5 has no kind")));
}
