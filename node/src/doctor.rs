//! `mpcium doctor`: looks at everything that a node needs, changes nothing, and says of each thing what to do about it.
//!
//! It works beside a running node (then it asks it) and without one (then it opens the store itself, for a moment). A
//! warning is something that works now and may not later; a failure stops the node or makes it unfit.

mod clock;
mod files;
mod servers;
mod store;

use std::{path::Path, process::ExitCode};

use serde::Serialize;

use crate::{
    cli::Doctor,
    config::{self, ConsulSettings, NatsSettings, Settings},
};

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Could not be looked at, because something else is missing.
    Skipped,
    /// Works, but should be looked at.
    Warning,
    /// Keeps the node from working.
    Failed,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub check: &'static str,
    /// What it came to.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do about it; empty if nothing.
    #[serde(rename = "do")]
    pub advice: String,
}

/// All checks so far.
#[derive(Debug, Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn add(&mut self, check: &'static str, outcome: Outcome, found: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Check { check, outcome, found: found.into(), advice: advice.into() });
    }

    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Outcome::Ok, found, "");
    }

    fn skip(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Outcome::Skipped, found, "");
    }

    fn warn(&mut self, check: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Outcome::Warning, found, advice);
    }

    fn fail(&mut self, check: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Outcome::Failed, found, advice);
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.0.iter().filter(|check| check.outcome == outcome).count()
    }
}

/// The JSON document.
#[derive(Serialize)]
struct Document<'a> {
    healthy: bool,
    checks: &'a [Check],
}

/// What the configuration says, as far as it can be read.
struct Configured {
    /// All of it, if nothing is wrong.
    settings: Option<Settings>,
    nats: NatsSettings,
    consul: ConsulSettings,
}

/// `doctor`.
///
/// # Errors
/// If the findings cannot be shown; whatever is wrong with the node is a finding.
pub fn run(config: Option<&Path>, options: &Doctor) -> Result<ExitCode, String> {
    let mut findings = Findings::default();
    look(config, options, &mut findings)?;
    let healthy = findings.count(Outcome::Failed) == 0;
    if options.json {
        let document = Document { healthy, checks: &findings.0 };
        println!("{}", serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?);
    } else {
        print!("{}", render(&findings));
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look(config: Option<&Path>, options: &Doctor, findings: &mut Findings) -> Result<(), String> {
    let Some(configured) = configuration(config, findings) else { return Ok(()) };
    let cluster = files::look(&configured, options, findings);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        servers::look(&configured, cluster.as_ref(), findings).await;
        store::look(&configured, options, findings).await;
    });
    runtime.shutdown_background();
    Ok(())
}

/// Reads the configuration; `None`: there is none to speak of.
fn configuration(config: Option<&Path>, findings: &mut Findings) -> Option<Configured> {
    const CHECK: &str = "configuration";
    let mut reader = match config::open(config) {
        Ok(reader) => reader,
        Err(error) => {
            findings.fail(CHECK, error, "name the file with -c, or start in the folder that holds it");
            return None;
        }
    };
    let settings = match config::settings(&mut reader) {
        Ok(settings) => {
            findings.ok(CHECK, format!("{} can be used", reader.file().display()));
            Some(settings)
        }
        Err(errors) => {
            for problem in errors.0 {
                findings.fail(CHECK, problem.to_string(), "correct it; docs/operations.md lists every key");
            }
            None
        }
    };
    for warning in reader.warnings() {
        findings.warn(CHECK, warning.to_string(), "correct or remove it");
    }
    // What has been found wrong is not told twice.
    let (nats, consul) = (config::nats(&mut reader), config::consul(&mut reader));
    let variables = reader.variables_used();
    if !variables.is_empty() {
        findings.ok(CHECK, format!("the environment wins over the file with {}", variables.join(", ")));
    }
    files::configuration_is_private(&reader, findings);
    Some(Configured { settings, nats, consul })
}

/// The findings for people.
fn render(findings: &Findings) -> String {
    let width = findings.0.iter().map(|check| check.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in &findings.0 {
        let word = match check.outcome {
            Outcome::Ok => "ok  ",
            Outcome::Skipped => "--  ",
            Outcome::Warning => "WARN",
            Outcome::Failed => "FAIL",
        };
        text.push_str(&format!("{word}  {:width$}  {}\n", check.check, check.found));
        if !check.advice.is_empty() {
            text.push_str(&format!("      {:width$}  do: {}\n", "", check.advice));
        }
    }
    text.push_str(&format!(
        "\n{} checks: {} ok, {} to look at, {} failed, {} not possible\n",
        findings.0.len(),
        findings.count(Outcome::Ok),
        findings.count(Outcome::Warning),
        findings.count(Outcome::Failed),
        findings.count(Outcome::Skipped),
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_shown_with_what_to_do() {
        let mut findings = Findings::default();
        findings.ok("clock", "in step");
        findings.fail("store", "the password is wrong", "use the right one");
        findings.skip("primes", "the node does not run");
        findings.warn("NATS", "one replica", "set three");
        let text = render(&findings);
        assert!(text.contains("FAIL  store   the password is wrong\n              do: use the right one\n"), "{text}");
        assert!(text.contains("4 checks: 1 ok, 1 to look at, 1 failed, 1 not possible"), "{text}");
    }

    #[test]
    fn the_document_is_for_programs() {
        let mut findings = Findings::default();
        findings.fail("store", "x", "y");
        let json = serde_json::to_value(Document { healthy: false, checks: &findings.0 }).expect("JSON");
        let expected = serde_json::json!({
            "healthy": false,
            "checks": [{"check": "store", "outcome": "failed", "found": "x", "do": "y"}],
        });
        assert_eq!(json, expected);
    }
}
