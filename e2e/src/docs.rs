//! Commands in the project's documents, followed word for word.

use std::path::Path;

/// The `bash` blocks of a document, one after the other, from the start of the section `from` (or of the document) to
/// the start of the section `until` (or to the end).
///
/// # Errors
/// If the document cannot be read, or has no such section or no block in it.
pub fn commands(document: &str, from: Option<&str>, until: Option<&str>) -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(document);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let missing = |heading: &str| format!("{document} has no section {heading:?}");
    let text = match from {
        Some(heading) => text.split_once(heading).ok_or_else(|| missing(heading))?.1,
        None => &text,
    };
    let text = match until {
        Some(heading) => text.split_once(heading).ok_or_else(|| missing(heading))?.0,
        None => text,
    };
    let blocks: Vec<&str> =
        text.split("```bash\n").skip(1).filter_map(|rest| rest.split_once("```").map(|(block, _)| block)).collect();
    if blocks.is_empty() { Err(format!("{document} has no commands there")) } else { Ok(blocks.concat()) }
}

/// Runs commands with bash in `folder`, which is also the home folder, and returns what they printed. Nothing else of
/// the caller's environment counts but `variables`. The first command that fails ends it.
///
/// # Errors
/// If one fails: what was printed.
pub fn follow(folder: &Path, commands: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let output = std::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", commands])
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(variables.iter().copied())
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| format!("bash: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("the commands ended with {}:\n{printed}{said}\nin:\n{commands}", output.status))
}
