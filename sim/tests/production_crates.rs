//! The workspace sets `--cfg madsim` for everybody; it must not change the product, so nothing that the product
//! consists of may depend on madsim or on this crate.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// Packages of the lock file and what each depends on (development dependencies included, which only makes it stricter).
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let lock = std::fs::read_to_string(path).expect("the workspace has a lock file");
    let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let name = package.lines().find_map(|line| line.strip_prefix("name = ")).expect("a package has a name");
        let name = name.trim_matches('"').to_owned();
        let listed =
            package.split_once("dependencies = [").map_or("", |(_, rest)| rest.split(']').next().unwrap_or(""));
        let names = listed
            .lines()
            .filter_map(|line| line.trim().trim_matches(['"', ',']).split(' ').next().map(str::to_owned))
            .filter(|name| !name.is_empty());
        // Versions of one package are taken together: stricter, and no version is overlooked.
        packages.entry(name).or_default().extend(names);
    }
    packages
}

fn reachable(packages: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(name) = next.pop() {
        if seen.insert(name.clone()) {
            next.extend(packages.get(&name).into_iter().flatten().cloned());
        }
    }
    seen
}

#[test]
fn no_production_crate_depends_on_the_simulator() {
    let packages = dependencies();
    for product in ["mpcium", "mpcium-core", "mpcium-io", "mpcium-client"] {
        assert!(packages.contains_key(product), "{product} is not in the lock file");
        let reached = reachable(&packages, product);
        for simulator in ["madsim", "sim"] {
            assert!(!reached.contains(simulator), "{product} depends on {simulator}");
        }
    }
}

#[test]
fn the_simulator_is_found_where_it_is_used() {
    // Otherwise the test above could pass because it reads the lock file wrongly.
    assert!(reachable(&dependencies(), "sim").contains("madsim"));
}

/// The sources that the product is built from, build scripts included.
fn sources() -> Vec<(PathBuf, String)> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let products = ["client", "core", "io", "node"].map(|name| root.join(name));
    let scripts = products.iter().map(|product| product.join("build.rs")).filter(|script| script.is_file());
    let mut sources: Vec<PathBuf> = scripts.collect();
    let mut folders: Vec<PathBuf> = products.iter().map(|product| product.join("src")).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() { folders.push(path) } else { sources.push(path) }
        }
    }
    let read = |path: PathBuf| (std::fs::read_to_string(&path).unwrap_or_default(), path);
    sources.into_iter().map(read).map(|(text, path)| (path, text)).collect()
}

/// The configuration is set for all crates, so one that looks at it would be another program in the simulator than in
/// the release, or the same in both that behaves as in the simulator.
#[test]
fn no_production_crate_looks_at_the_simulators_setting() {
    let sources = sources();
    assert!(sources.len() > 100, "{} files are not the whole product", sources.len());
    for (path, text) in sources {
        assert!(!text.contains("madsim"), "{} names madsim", path.display());
    }
}

/// Programs that are shipped verify every signature every time.
#[test]
fn no_production_crate_remembers_signatures() {
    let mut seen = 0;
    for (path, text) in sources().into_iter().filter(|(path, _)| !path.ends_with("client/src/memory.rs")) {
        seen += usize::from(text.contains("or_remembered"));
        assert!(!text.contains("remember()") && !text.contains("::remember;"), "{}", path.display());
    }
    assert_eq!(seen, 3, "the places that may remember were not found");
}
