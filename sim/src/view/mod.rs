//! Steps through an event log: what happened, what state that left, and how two states differ.
//!
//! The same commands work at a prompt and from a pipe; from a pipe nothing is asked and a command that fails makes the
//! program fail, so that they can be used in tests.

mod commands;
pub mod recording;
pub mod state;

use std::{
    io::{BufRead, IsTerminal as _, Write},
    path::Path,
};

pub use commands::{Flow, Viewer};
use recording::Recording;

/// Opens a log and carries out commands: those given, or else those that are typed or piped in. `false` if a command
/// failed and nobody was there to see it.
///
/// # Errors
/// If the log cannot be read, or the terminal cannot be used.
pub fn view(path: &Path, commands: &[String]) -> Result<bool, String> {
    let mut viewer = Viewer::new(Recording::read(path)?);
    let input = std::io::stdin();
    let interactive = commands.is_empty() && input.is_terminal();
    let mut output = std::io::stdout().lock();
    let mut good = true;
    if interactive {
        let told = writeln!(output, "{}\n`help` lists the commands.", viewer.summary());
        told.map_err(|error| error.to_string())?;
    }
    if commands.is_empty() {
        talk(&mut viewer, &mut input.lock(), &mut output, interactive, &mut good)
    } else {
        let mut input = std::io::Cursor::new(commands.join("\n"));
        talk(&mut viewer, &mut input, &mut output, false, &mut good)
    }
    .map_err(|error| error.to_string())?;
    Ok(good || interactive)
}

fn talk(
    viewer: &mut Viewer,
    input: &mut impl BufRead,
    output: &mut impl Write,
    interactive: bool,
    good: &mut bool,
) -> std::io::Result<()> {
    let mut last = String::new();
    loop {
        if interactive {
            write!(output, "{}> ", viewer.prompt())?;
            output.flush()?;
        }
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim();
        if line.starts_with('#') || (line.is_empty() && (!interactive || last.is_empty())) {
            continue;
        }
        // An empty line repeats the last command, as in debuggers.
        if !line.is_empty() {
            last = line.to_owned();
        }
        match viewer.command(&last) {
            Ok(Flow::Quit) => return Ok(()),
            Ok(Flow::Tell(text)) => {
                if !text.is_empty() {
                    writeln!(output, "{text}")?;
                }
            }
            Err(error) => {
                *good = false;
                writeln!(output, "{error}")?;
            }
        }
    }
}
