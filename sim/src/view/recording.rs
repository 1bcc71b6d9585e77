//! A log as it was written: its lines, where they are in time, and which of them somebody looks for.

use std::path::Path;

use serde_json::Value;

/// Characters of a line's contents that are shown without being asked for.
const DESCRIBED_MAX: usize = 240;

/// One line of a log.
#[derive(Clone, Debug)]
pub struct Line {
    /// Microseconds since the run began.
    pub at: u64,
    /// At which node; empty if at none.
    pub node: String,
    /// What kind of event.
    pub kind: String,
    /// The line itself.
    pub raw: String,
}

impl Line {
    fn parse(raw: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(raw).map_err(|error| format!("is no JSON: {error}"))?;
        let at = value.get("at_us").and_then(Value::as_u64).ok_or("has no time (at_us)")?;
        let kind = value.get("kind").and_then(Value::as_str).ok_or("has no kind")?;
        let node = value.get("node").and_then(Value::as_str).unwrap_or_default();
        Ok(Self { at, node: node.into(), kind: kind.into(), raw: raw.into() })
    }

    /// Everything in it.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.raw).unwrap_or(Value::Null)
    }

    /// The line as people read it, without its number.
    #[must_use]
    pub fn describe(&self) -> String {
        let value = self.value();
        let who = if self.node.is_empty() { "world" } else { &self.node };
        let says = value.get("says").and_then(Value::as_str);
        let what = match says {
            Some(says) => says.to_owned(),
            None => value
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(name, _)| !["at_us", "node", "kind", "hash"].contains(&name.as_str()))
                .map(|(name, value)| format!("{name}={}", plain(value)))
                .collect::<Vec<_>>()
                .join(" "),
        };
        let what = match what.char_indices().nth(DESCRIBED_MAX) {
            Some((end, _)) => format!("{}… (`line` shows all)", &what[..end]),
            None => what,
        };
        format!("{} {who:<6} {:<9} {what}", seconds(self.at), self.kind)
    }
}

/// A value without the quotes of JSON where it needs none.
#[must_use]
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Simulated time for people, to the microsecond: two events of one log never look simultaneous unless they are.
#[must_use]
pub fn seconds(at: u64) -> String {
    format!("{:>4}.{:06} s", at / 1_000_000, at % 1_000_000)
}

/// A whole log.
#[derive(Debug)]
pub struct Recording {
    /// Its lines, in order.
    pub lines: Vec<Line>,
    /// Whether the last line was cut off, as when the run ended in a panic.
    pub cut_off: bool,
}

impl Recording {
    /// Reads a log.
    ///
    /// # Errors
    /// If the file cannot be read, or a line other than the last is no line of a log.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// A log from its text.
    ///
    /// # Errors
    /// If a line other than the last is no line of a log, or there is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raws: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let mut lines = Vec::with_capacity(raws.len());
        let mut cut_off = false;
        for (number, raw) in raws.iter().enumerate() {
            match Line::parse(raw) {
                Ok(line) => lines.push(line),
                Err(_) if number + 1 == raws.len() && number > 0 => cut_off = true,
                Err(error) => return Err(format!("line {} {error}", number + 1)),
            }
        }
        if lines.is_empty() { Err("the log is empty".into()) } else { Ok(Self { lines, cut_off }) }
    }

    /// How many lines there are up to and including everything that happened at a time.
    #[must_use]
    pub fn until(&self, at: u64) -> usize {
        self.lines.partition_point(|line| line.at <= at)
    }
}

/// Terms that a line must all satisfy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// The field begins with this text; fields of reports count as fields of the line.
    Field(String, String),
    /// The line contains this text, in whatever case.
    Text(String),
}

impl Filter {
    /// Reads terms: `name=value` or a word.
    ///
    /// # Errors
    /// If there is none.
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        if words.is_empty() {
            return Err(
                "say what to look for: name=value (node=node1 kind=report event=link_down session=ab12) or words"
                    .into(),
            );
        }
        let term = |word: &&str| match word.split_once('=') {
            Some(("text", value)) => Term::Text(value.to_lowercase()),
            Some((name, value)) if !name.is_empty() => Term::Field(name.to_owned(), value.to_owned()),
            _ => Term::Text(word.to_lowercase()),
        };
        Ok(Self(words.iter().map(term).collect()))
    }

    /// Whether a line satisfies all terms.
    #[must_use]
    pub fn matches(&self, line: &Line) -> bool {
        // What costs least is asked first: a log may have millions of lines.
        let cheap = self.0.iter().all(|term| match term {
            Term::Field(name, value) if name == "node" => line.node == *value,
            Term::Field(name, value) if name == "kind" => line.kind == *value,
            Term::Field(_, value) => line.raw.contains(value.as_str()),
            Term::Text(text) => line.raw.to_lowercase().contains(text.as_str()),
        });
        if !cheap {
            return false;
        }
        let value = line.value();
        self.0.iter().all(|term| match term {
            Term::Field(name, _) if name == "node" || name == "kind" => true,
            Term::Field(name, wanted) => [value.get(name), value.get("report").and_then(|report| report.get(name))]
                .into_iter()
                .flatten()
                .any(|found| plain(found).starts_with(wanted.as_str())),
            Term::Text(_) => true,
        })
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let terms: Vec<String> = self
            .0
            .iter()
            .map(|term| match term {
                Term::Field(name, value) => format!("{name}={value}"),
                Term::Text(text) => text.clone(),
            })
            .collect();
        f.write_str(&terms.join(" "))
    }
}
