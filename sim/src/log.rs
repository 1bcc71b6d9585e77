//! The event log: one JSON object per line, with a running hash over everything that happened so far, so that two
//! runs of one seed can be compared byte by byte and the first difference found.

use std::io::Write as _;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Where a run is written to, and its hash. Without a file only the hash is kept. Every line is on disk at once: a run
/// may end in a panic.
#[derive(Debug)]
pub struct Log {
    hash: Sha256,
    events: u64,
    lines: Option<std::io::LineWriter<std::fs::File>>,
}

impl Log {
    /// A log, written to `path` if there is one.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn new(path: Option<&std::path::Path>) -> std::io::Result<Self> {
        let lines = path.map(std::fs::File::create).transpose()?.map(std::io::LineWriter::new);
        Ok(Self { hash: Sha256::new(), events: 0, lines })
    }

    /// Whether somebody will read the lines.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.lines.is_some()
    }

    /// Adds an event: `bytes` go into the hash, `fields` into the line. Both must come from the simulation alone.
    pub fn event(&mut self, at: u64, node: Option<usize>, kind: &str, bytes: &[u8], fields: impl FnOnce() -> Value) {
        self.events += 1;
        self.hash.update(at.to_be_bytes());
        self.hash.update((node.map_or(u64::MAX, |n| n as u64)).to_be_bytes());
        self.hash.update(kind.as_bytes());
        self.hash.update((bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
        if self.lines.is_none() {
            return;
        }
        let mut line = Map::new();
        line.insert("at_us".into(), at.into());
        if let Some(node) = node {
            line.insert("node".into(), format!("node{node}").into());
        }
        line.insert("kind".into(), kind.into());
        if let Value::Object(fields) = fields() {
            line.extend(fields);
        }
        line.insert("hash".into(), self.hash()[..16].into());
        if let Some(lines) = &mut self.lines {
            // A log that cannot be written must not change the run that it records.
            let _ = writeln!(lines, "{}", Value::Object(line));
        }
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The hash over all events so far, in hex.
    #[must_use]
    pub fn hash(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }
}
