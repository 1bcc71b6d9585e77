//! `docs/promises.md` says of each promise what fails when it is broken. Here that page is held to what there is.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const NOTHING: &str = "**nothing**";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All sources below a folder that end so, as one text.
fn all_below(folder: &str, extension: &str) -> String {
    let mut folders = vec![root().join(folder)];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|of| of == extension) {
                text += &fs::read_to_string(&path).expect("a source");
            }
        }
    }
    text
}

/// Whether a source has a test of that name: a function below an attribute, or a property.
fn has_test(source: &str, name: &str) -> bool {
    let Some(at) = source.find(&format!("fn {name}(")) else { return false };
    let above = source[..at].trim_end().lines().rev().take_while(|line| !line.trim().is_empty());
    above.into_iter().any(|line| line.trim_start().starts_with("#[") && line.contains("test"))
}

/// Why a reference is not true, or nothing.
fn problem(reference: &str) -> Option<String> {
    let quoted = |name: &str| format!("\"{name}\"");
    if let Some((path, name)) = reference.split_once("::").filter(|(path, _)| path.ends_with(".rs")) {
        return match fs::read_to_string(root().join(path)) {
            Err(error) => Some(error.to_string()),
            Ok(source) => (!has_test(&source, name)).then(|| "there is no such test".to_owned()),
        };
    }
    let (kind, name) = reference.split_once(' ')?;
    let found = match kind {
        "invariant" => {
            read(&format!("sim/src/invariants/{name}.rs")).contains(&quoted(name))
                && read("sim/src/invariants/mod.rs").contains(&format!("Box::new({name}::"))
        }
        "planted" => {
            let sources = [read("core/src/planted.rs"), all_below("sim/src", "rs")];
            // What a disk forgets is named after the keyspace.
            let forgotten =
                name.strip_prefix("forgets-").is_some_and(|of| read("core/src/store.rs").contains(&quoted(of)));
            forgotten || sources.iter().any(|source| source.contains(&quoted(name)))
        }
        "counter" => read("sim/src/reached.rs").contains(&quoted(name)),
        "scenario" => read("e2e/tests/scenarios/main.rs").contains(&format!("::{name},")),
        "situation" => read("core/tests/cluster/situations.rs").contains(&quoted(name)),
        "go" => all_below("e2e/go", "go").contains(&format!("func {name}(")),
        "rule" => read("core/clippy.toml").contains(&format!("path = {}", quoted(name))),
        _ => return Some("no kind of reference that is known".to_owned()),
    };
    (!found).then(|| "there is none".to_owned())
}

fn in_ticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The promises: what, where, what fails.
fn rows(page: &str) -> Vec<[&str; 3]> {
    let cells = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    cells
        .filter(|line| !line.starts_with("| promise |"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            cells.try_into().unwrap_or_else(|cells| panic!("not three cells: {cells:?}"))
        })
        .collect()
}

#[test]
fn every_promise_names_what_fails_and_all_of_that_exists() {
    let page = read("docs/promises.md");
    let rows = rows(&page);
    assert!(rows.len() > 80, "{} promises were read", rows.len());
    let mut wrong = Vec::new();
    let mut promises = BTreeSet::new();
    for [promise, place, failing] in rows {
        if !promises.insert(promise) {
            wrong.push(format!("twice: {promise}"));
        }
        let places: Vec<&str> = in_ticks(place).collect();
        if places.is_empty() || !places.iter().all(|path| root().join(path).exists()) {
            wrong.push(format!("{promise}: kept in {place}, which is not there"));
        }
        // What a cell says besides may name an attribute or a setting.
        let is_reference = |text: &&str| text.contains(".rs::") || text.split(' ').count() > 1 && !text.contains('=');
        let references: Vec<&str> = in_ticks(failing).filter(is_reference).collect();
        if references.is_empty() && !failing.contains(NOTHING) && !failing.starts_with("the compiler") {
            wrong.push(format!("{promise}: names nothing that fails"));
        }
        for reference in references {
            if let Some(problem) = problem(reference) {
                wrong.push(format!("{promise}: `{reference}`: {problem}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Otherwise the test above could pass because it recognises nothing.
#[test]
fn what_does_not_exist_is_noticed() {
    let here = "core/tests/promises.rs::what_does_not_exist_is_noticed";
    assert_eq!(problem(here), None);
    for reference in [
        "core/tests/promises.rs::problem",
        "core/tests/promises.rs::no_such_test",
        "core/tests/no_such_file.rs::at_all",
        "planted no-such-bug",
        "counter no such state",
        "scenario no_such_scenario",
        "situation no such situation",
        "go TestNothing",
        "rule std::nothing",
        "rumour of a test",
    ] {
        assert!(problem(reference).is_some(), "{reference}");
    }
}
