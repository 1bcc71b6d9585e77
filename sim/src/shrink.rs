//! Reduces a failing run while it still violates the same invariant: first its faults, then what clients do, then what
//! is always a little broken, then how long things last. Over and over, until nothing more can go.
//!
//! Taking something away lets chance fall differently everywhere after it, so a smaller run may pass only by luck.
//! Every candidate is therefore tried with several lucks.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    changes::{Calm, Changes, earliest_heal},
    planted::Planted,
    run::{Outcome, execute, program},
    scenario::{At, Profile, SECOND, Scenario},
    world::Verdict,
};

/// What to shrink, and how hard to try.
#[derive(Clone, Debug)]
pub struct Task {
    /// The seed.
    pub seed: u64,
    /// The profile.
    pub profile: Profile,
    /// The bug that is planted.
    pub planted: Option<Planted>,
    /// What is taken away from the start.
    pub changes: Changes,
    /// Lucks that are tried with each candidate.
    pub lucks: u64,
    /// Runs after which it stops.
    pub runs: u64,
    /// Real time after which it stops.
    pub time: Option<Duration>,
    /// Threads.
    pub jobs: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// How the shrunk run ends.
    pub outcome: Outcome,
    /// What was taken away.
    pub changes: Changes,
    /// The scenario that is left.
    pub scenario: Scenario,
    /// Runs that it took.
    pub runs: u64,
    /// Whether it stopped because runs or time had run out.
    pub stopped: bool,
}

impl Shrunk {
    /// The one command that replays the shrunk run and writes its log.
    #[must_use]
    pub fn replay(&self) -> String {
        let (profile, seed) = (self.scenario.profile.name(), self.scenario.seed);
        format!(
            "{} --profile {profile} --seed {seed}{} --log {profile}-{seed}-shrunk.jsonl",
            program(self.scenario.planted),
            self.changes.flags()
        )
    }

    /// Faults that are left, by their numbers.
    #[must_use]
    pub fn faults(&self) -> Vec<usize> {
        (0..self.scenario.faults.len()).filter(|at| !self.scenario.without_faults.contains(at)).collect()
    }

    /// Steps that are left, by their numbers.
    #[must_use]
    pub fn steps(&self) -> Vec<usize> {
        (0..self.scenario.steps.len()).filter(|at| !self.scenario.without_steps.contains(at)).collect()
    }
}

impl std::fmt::Display for Shrunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Scenario { faults, steps, .. } = &self.scenario;
        writeln!(
            f,
            "after {} runs{}: {} of {} faults, {} of {} steps, a first phase of {:.1} s",
            self.runs,
            if self.stopped { " (stopped early: there may be more to take away)" } else { "" },
            self.faults().len(),
            faults.len(),
            self.steps().len(),
            steps.len(),
            seconds(self.scenario.healed_at)
        )?;
        for at in self.faults() {
            if let Some(fault) = faults.get(at) {
                let (from, until) = (seconds(fault.from), seconds(fault.until));
                writeln!(f, "  fault {at}, from {from:.1} s to {until:.1} s: {:?}", fault.kind)?;
            }
        }
        for at in self.steps() {
            if let Some(step) = steps.get(at) {
                writeln!(f, "  step {at}, at {:.1} s: {:?}", seconds(step.at), step.action)?;
            }
        }
        let broken: Vec<&str> =
            Calm::ALL.into_iter().filter(|calm| !self.changes.calm.contains(calm)).map(Calm::name).collect();
        if !broken.is_empty() {
            writeln!(f, "  left as drawn: {}", broken.join(", "))?;
        }
        if let Verdict::Violated { invariant, what } = &self.outcome.verdict {
            writeln!(f, "it violates {invariant}: {what}")?;
        }
        write!(f, "replay with: {}", self.replay())
    }
}

fn seconds(at: At) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let micros = at as f64;
    micros / 1e6
}

/// Shrinks a run. `tell` is shown what was achieved, from time to time.
///
/// # Errors
/// If the run passes, or the task names what the scenario does not have.
pub fn shrink(task: &Task, tell: impl FnMut(&str)) -> Result<Shrunk, String> {
    let mut search =
        Search { task, began: Instant::now(), runs: 1, goal: (String::new(), String::new()), best: None, tell };
    let outcome = search.run(&task.changes)?;
    search.goal = match goal(&outcome) {
        Some(goal) => goal,
        None => return Err(format!("seed {} passes: there is nothing to shrink", task.seed)),
    };
    search.best = Some((task.changes.clone(), outcome));
    loop {
        let before = search.changes();
        search.take_away(Part::Faults);
        search.take_away(Part::Steps);
        search.calm();
        search.shorten();
        if search.changes() == before || search.exhausted() {
            break;
        }
    }
    let stopped = search.exhausted();
    let runs = search.runs;
    let (changes, outcome) = search.best.ok_or("nothing was run")?;
    let scenario = scenario(task, &changes)?;
    Ok(Shrunk { outcome, changes, scenario, runs, stopped })
}

/// What a smaller run must show to be the same failure. Panics are told apart by their words, without numbers.
fn goal(outcome: &Outcome) -> Option<(String, String)> {
    let Verdict::Violated { invariant, what } = &outcome.verdict else { return None };
    let words = if invariant == "no_panic" {
        what.chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
    } else {
        String::new()
    };
    Some((invariant.clone(), words))
}

fn scenario(task: &Task, changes: &Changes) -> Result<Scenario, String> {
    let mut scenario = Scenario::draw(task.seed, task.profile);
    scenario.planted = task.planted;
    changes.apply(&mut scenario)?;
    Ok(scenario)
}

/// What consists of numbered things that can be left out.
#[derive(Clone, Copy)]
enum Part {
    Faults,
    Steps,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Faults => "faults",
            Self::Steps => "steps",
        }
    }

    fn left_out(self, changes: &mut Changes) -> &mut BTreeSet<usize> {
        match self {
            Self::Faults => &mut changes.without_faults,
            Self::Steps => &mut changes.without_steps,
        }
    }
}

struct Search<'a, Tell> {
    task: &'a Task,
    began: Instant,
    runs: u64,
    goal: (String, String),
    best: Option<(Changes, Outcome)>,
    tell: Tell,
}

impl<Tell: FnMut(&str)> Search<'_, Tell> {
    fn changes(&self) -> Changes {
        self.best.as_ref().map(|(changes, _)| changes.clone()).unwrap_or_default()
    }

    fn exhausted(&self) -> bool {
        self.runs >= self.task.runs || self.task.time.is_some_and(|time| self.began.elapsed() >= time)
    }

    fn run(&self, changes: &Changes) -> Result<Outcome, String> {
        Ok(execute(scenario(self.task, changes)?, None))
    }

    /// Delta debugging over numbered things: leaves out ever smaller parts until each that is left is needed.
    fn take_away(&mut self, part: Part) {
        let Ok(scenario) = scenario(self.task, &self.changes()) else { return };
        let count = match part {
            Part::Faults => scenario.faults.len(),
            Part::Steps => scenario.steps.len(),
        };
        let mut changes = self.changes();
        let mut left: Vec<usize> = (0..count).filter(|at| !part.left_out(&mut changes).contains(at)).collect();
        // All at once, then halves, quarters, …
        let mut pieces = 1;
        while !left.is_empty() && !self.exhausted() {
            let size = left.len().div_ceil(pieces);
            let removals: Vec<Vec<usize>> = left.chunks(size).map(<[usize]>::to_vec).collect();
            let candidates = removals
                .iter()
                .map(|removal| {
                    let mut changes = self.changes();
                    part.left_out(&mut changes).extend(removal);
                    changes
                })
                .collect();
            match self.first_that_fails(candidates).and_then(|which| removals.get(which)) {
                Some(removal) => {
                    left.retain(|at| !removal.contains(at));
                    (self.tell)(&format!("{} of {count} {} are enough", left.len(), part.name()));
                    pieces = pieces.saturating_sub(1).max(2).min(left.len().max(1));
                }
                None if size == 1 => break,
                None => pieces = (2 * pieces).min(left.len()),
            }
        }
    }

    /// Mends what is always a little broken.
    fn calm(&mut self) {
        let left = |search: &Self| {
            let changes = search.changes();
            Calm::ALL.into_iter().filter(move |calm| !changes.calm.contains(calm)).collect::<Vec<_>>()
        };
        let mut everything = self.changes();
        everything.calm.extend(Calm::ALL);
        if left(self).is_empty() || self.first_that_fails(vec![everything]).is_some() {
            return;
        }
        for calm in left(self) {
            if self.exhausted() {
                return;
            }
            let mut changes = self.changes();
            changes.calm.insert(calm);
            if self.first_that_fails(vec![changes]).is_some() {
                (self.tell)(&format!("{} can be mended", calm.name()));
            }
        }
    }

    /// Ends faults and the first phase earlier.
    fn shorten(&mut self) {
        let Ok(before) = scenario(self.task, &self.changes()) else { return };
        for (at, fault) in before.faults.iter().enumerate() {
            let mut lasts = fault.until.saturating_sub(fault.from);
            while !before.without_faults.contains(&at) && lasts > SECOND && !self.exhausted() {
                lasts = (lasts / 2).max(SECOND);
                let mut changes = self.changes();
                changes.fault_until.insert(at, fault.from + lasts);
                if self.first_that_fails(vec![changes]).is_none() {
                    break;
                }
                (self.tell)(&format!("fault {at} may last {:.1} s", seconds(lasts)));
            }
        }
        let Ok(now) = scenario(self.task, &self.changes()) else { return };
        let earliest = earliest_heal(&now);
        let middle = earliest + now.healed_at.saturating_sub(earliest) / 2;
        for at in [earliest, earliest + SECOND, middle] {
            let mut changes = self.changes();
            changes.heal_at = Some(at);
            if at < now.healed_at && !self.exhausted() && self.first_that_fails(vec![changes]).is_some() {
                (self.tell)(&format!("the first phase may end at {:.1} s", seconds(at)));
                break;
            }
        }
    }

    /// Runs candidates, several at once, and keeps the first that still fails; says which. The result does not depend
    /// on the number of threads.
    fn first_that_fails(&mut self, candidates: Vec<Changes>) -> Option<usize> {
        let jobs = self.task.jobs.max(1);
        for (group, chunk) in candidates.chunks(jobs).enumerate() {
            if self.exhausted() {
                return None;
            }
            let tried: Vec<(u64, Option<(Changes, Outcome)>)> = std::thread::scope(|scope| {
                let this = &*self.task;
                let goal = &self.goal;
                let threads: Vec<_> =
                    chunk.iter().map(|changes| scope.spawn(move || attempt(this, goal, changes))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap_or((0, None))).collect()
            });
            self.runs += tried.iter().map(|(runs, _)| runs).sum::<u64>();
            for (place, (_, found)) in tried.into_iter().enumerate() {
                if let Some(found) = found {
                    self.best = Some(found);
                    return Some(group * jobs + place);
                }
            }
        }
        None
    }
}

/// Tries one candidate with several lucks; how many runs that took, and the one that failed as it should.
fn attempt(task: &Task, goal: &(String, String), changes: &Changes) -> (u64, Option<(Changes, Outcome)>) {
    let mut runs = 0;
    let others = (0..).filter(|luck| *luck != changes.luck);
    let lucks = std::iter::once(changes.luck).chain(others).take(usize::try_from(task.lucks.max(1)).unwrap_or(1));
    for luck in lucks {
        let changes = Changes { luck, ..changes.clone() };
        let Ok(scenario) = scenario(task, &changes) else { break };
        runs += 1;
        let outcome = execute(scenario, None);
        if self::goal(&outcome).as_ref() == Some(goal) {
            return (runs, Some((changes, outcome)));
        }
    }
    (runs, None)
}
