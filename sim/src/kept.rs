//! Runs that once failed, written down whole in `fixtures/runs`: what a seed draws changes with the drawing, these do
//! not. Core's own behaviour moves chance all the same, so each is replayed with several lucks; and where a planted bug
//! brings the old failure back, `make planted` demands that the run still notices it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    planted::Planted,
    run::{Outcome, execute},
    scenario::Scenario,
    world::Verdict,
};

/// How often chance falls differently in one replay.
pub const LUCKS: u64 = 4;

/// A run that was written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What was wrong, in words.
    pub what: String,
    /// The invariant that noticed it.
    pub invariant: String,
    /// The planted bug that brings it back; empty if none does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bug: String,
    /// Whether it is known and not mended yet: then it may fail.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// The run.
    pub scenario: Scenario,
}

impl Kept {
    /// Reads one.
    ///
    /// # Errors
    /// If there is none in this file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Writes it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        text.push('\n');
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// All that this crate keeps, by file.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn all() -> Result<Vec<(PathBuf, Self)>, String> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/runs");
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        paths.into_iter().map(|path| Ok((path.clone(), Self::read(&path)?))).collect()
    }

    /// The planted bug that brings the failure back, if this build has it.
    #[must_use]
    pub fn bug(&self) -> Option<Planted> {
        Planted::parse(&self.bug)
    }

    /// Runs it with several lucks and gives the first outcome that violates something, or the last one.
    #[must_use]
    pub fn replay(&self, planted: Option<Planted>) -> Outcome {
        let run = |luck| self.replay_once(luck, planted, None);
        let first = self.scenario.luck;
        let mut outcome = run(first);
        for luck in (0..).filter(|luck| *luck != first).take(usize::try_from(LUCKS - 1).unwrap_or(0)) {
            if outcome.verdict != Verdict::Passed {
                break;
            }
            outcome = run(luck);
        }
        outcome
    }

    /// Runs it with one luck, and writes its log to `log` if given.
    #[must_use]
    pub fn replay_once(&self, luck: u64, planted: Option<Planted>, log: Option<PathBuf>) -> Outcome {
        execute(Scenario { luck, planted, ..self.scenario.clone() }, log)
    }
}
