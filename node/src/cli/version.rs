//! The versions that this program tells.
//!
//! Scripts compare the text of `mpcium version` with that of the system that this one replaces, so stdout holds exactly
//! that line. Our own version is told to people (on stderr, if that is a terminal) and to programs (`--json`).

use std::io::IsTerminal as _;

use serde::Serialize;

/// This program's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version of the Go system whose clients, files and command lines work with this program.
pub const COMPATIBLE_WITH: &str = "0.3.5";
/// What follows the program's name.
pub const LINE: &str = "version 0.3.5";

/// The JSON document of `mpcium version --json`.
#[derive(Debug, Serialize)]
struct Document {
    program: &'static str,
    version: &'static str,
    compatible_with: &'static str,
    arithmetic: &'static str,
}

/// The library that computes with large numbers.
#[must_use]
pub fn arithmetic() -> &'static str {
    if cfg!(feature = "gmp") { "gmp" } else { "pure-rust" }
}

/// `mpcium version`.
///
/// # Errors
/// Never, in fact: the document always has a JSON form.
pub fn print(program: &'static str, json: bool) -> Result<(), String> {
    if json {
        let document =
            Document { program, version: VERSION, compatible_with: COMPATIBLE_WITH, arithmetic: arithmetic() };
        println!("{}", serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?);
        return Ok(());
    }
    println!("{program} {LINE}");
    if std::io::stderr().is_terminal() {
        eprintln!("(this is {program} {VERSION} in Rust, which works as version {COMPATIBLE_WITH} of the Go system)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_the_compatible_version() {
        assert_eq!(LINE, format!("version {COMPATIBLE_WITH}"));
    }
}
