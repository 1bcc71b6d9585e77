//! The words of a command line before they are parsed.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    path::Path,
};

/// The name under which the program was called; both names know every command.
pub(super) fn program_name(word: Option<&OsString>) -> &'static str {
    let file = word.and_then(|word| Path::new(word).file_name());
    if file == Some(OsStr::new("mpcium-cli")) { "mpcium-cli" } else { "mpcium" }
}

/// Turns `-name` into `--name` where `name` is a long flag of some command: the command line library of the Go system
/// takes both, so scripts use both. What follows `--` is left alone.
pub(super) fn with_two_dashes(words: Vec<OsString>, command: &clap::Command) -> Vec<OsString> {
    let mut known = BTreeSet::new();
    long_flags(command, &mut known);
    let mut flags = true;
    let turned = words.into_iter().map(|word| {
        flags &= word != "--";
        let name = word.to_str().and_then(|text| text.strip_prefix('-')).filter(|rest| !rest.starts_with('-'));
        match name {
            Some(text) if flags && known.contains(text.split('=').next().unwrap_or(text)) => {
                OsString::from(format!("--{text}"))
            }
            _ => word,
        }
    });
    turned.collect()
}

/// The names of all long flags, of every command; those of one letter are never meant by one dash.
fn long_flags(command: &clap::Command, into: &mut BTreeSet<String>) {
    for argument in command.get_arguments() {
        let names = argument.get_long_and_visible_aliases().unwrap_or_default();
        let hidden = argument.get_all_aliases().unwrap_or_default();
        into.extend(names.into_iter().chain(hidden).filter(|name| name.len() > 1).map(str::to_owned));
    }
    for inner in command.get_subcommands() {
        long_flags(inner, into);
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    use super::*;

    fn turned(line: &str) -> String {
        let command = Command::new("x").subcommand(
            Command::new("y")
                .arg(Arg::new("name").short('n').long("name"))
                .arg(Arg::new("new").long("new-threshold").alias("nt")),
        );
        let words = with_two_dashes(line.split(' ').map(OsString::from).collect(), &command);
        words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_known_long_flags_get_a_second_dash() {
        assert_eq!(turned("x y -name a -nt 2 -n b"), "x y --name a --nt 2 -n b");
        assert_eq!(turned("x y -name=a -nt=2 -na -nb"), "x y --name=a --nt=2 -na -nb");
        assert_eq!(turned("x y --name a -- -name"), "x y --name a -- -name");
        assert_eq!(turned("x y - -"), "x y - -");
    }

    #[test]
    fn the_program_has_two_names() {
        assert_eq!(program_name(Some(&"/usr/bin/mpcium-cli".into())), "mpcium-cli");
        assert_eq!(program_name(Some(&"./mpcium".into())), "mpcium");
        assert_eq!(program_name(Some(&"renamed".into())), "mpcium");
        assert_eq!(program_name(None), "mpcium");
    }
}
