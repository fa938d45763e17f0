//! Which crate may use which: what ARCHITECTURE.md says is absent stays absent.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

const BASE: &[&str] = &["exegete-base"];
const TENSOR: &[&str] = &["exegete-tensor", "exegete-base"];
const JOINED: &[&str] = &["exegete-model", "exegete-sae", "exegete-store", "exegete-tensor", "exegete-base"];
const ABOVE_HARVEST: &[&str] =
    &["exegete-harvest", "exegete-model", "exegete-sae", "exegete-store", "exegete-tensor", "exegete-base"];
const EXPLAIN: &[&str] =
    &["exegete-methods", "exegete-model", "exegete-sae", "exegete-store", "exegete-tensor", "exegete-base"];

/// Crate, and those of ours that it may use. `exegete` and `exegete-bench` may use all and are not listed.
const MAY_USE: &[(&str, &[&str])] = &[
    ("exegete-base", &[]),
    ("exegete-tensor", BASE),
    ("exegete-hub", BASE),
    ("exegete-model", TENSOR),
    ("exegete-sae", TENSOR),
    ("exegete-store", BASE),
    ("exegete-harvest", JOINED),
    ("exegete-lab", ABOVE_HARVEST),
    ("exegete-methods", ABOVE_HARVEST),
    ("exegete-explain", EXPLAIN),
    ("exegete-figure", &[]),
    ("exegete-web", &["exegete-store", "exegete-figure", "exegete-base"]),
    ("exegete-testkit", TENSOR),
    ("xtask", &[]),
];
const MAY_USE_ALL: &[&str] = &["exegete", "exegete-bench"];
const TESTKIT: &str = "exegete-testkit";
const ENGINE_OWNER: &str = "exegete-tensor";
// Put together, so that the scan below does not find this file.
const ENGINE: &str = concat!("can", "dle");

#[test]
fn every_crate_uses_only_what_it_may() {
    let metadata = metadata();
    let ours: BTreeSet<&str> = metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    let mut faults = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let allowed = MAY_USE.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, allowed)| *allowed);
        if allowed.is_none() && !MAY_USE_ALL.contains(&name) {
            faults.push(format!("{name} has no line in MAY_USE"));
        }
        for dependency in package.dependencies.iter().filter(|dependency| ours.contains(dependency.name.as_str())) {
            let used = dependency.name.as_str();
            let in_tests = dependency.kind == DependencyKind::Development;
            let fine = if used == TESTKIT { in_tests } else { allowed.is_none_or(|allowed| allowed.contains(&used)) };
            if !fine {
                faults.push(format!("{name} may not use {used} ({:?})", dependency.kind));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_array_engine_is_named_in_one_crate() {
    let metadata = metadata();
    let mut faults = Vec::new();
    for package in metadata.workspace_packages().into_iter().filter(|package| package.name != ENGINE_OWNER) {
        let dependencies = package.dependencies.iter().filter(|dependency| dependency.name.starts_with(ENGINE));
        faults.extend(dependencies.map(|dependency| format!("{} depends on {}", package.name, dependency.name)));
        let folder = package.manifest_path.parent().expect("a manifest lies in a folder").as_std_path();
        for file in rust_files(folder) {
            let text = std::fs::read_to_string(&file).expect("a source file is text");
            // The word in prose is fine; a path into the engine's crates is not.
            if text.contains(&format!("{ENGINE}_")) {
                faults.push(format!("{} names {ENGINE}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A finished run is read and served without weights: no model and no tensors below store and web.
#[test]
fn store_and_web_know_no_tensors() {
    let metadata = metadata();
    for name in ["exegete-store", "exegete-web"] {
        let below = all_below(&metadata, name);
        let forbidden = |used: &&String| {
            used.starts_with(ENGINE) || ["exegete-tensor", "exegete-model", "exegete-sae"].contains(&used.as_str())
        };
        let found: Vec<_> = below.iter().filter(forbidden).collect();
        assert!(found.is_empty(), "{name} reaches {found:?}");
    }
}

fn metadata() -> Metadata {
    // At run time, since a shared target folder may hold a binary that another checkout compiled.
    let crate_dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo gives tests their crate's folder");
    let manifest = Path::new(&crate_dir).join("../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).exec().expect("cargo metadata")
}

/// The names of all crates that `name` is built from, itself and its tests' dependencies left out.
fn all_below(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let nodes = &metadata.resolve.as_ref().expect("cargo metadata resolves").nodes;
    let node_of: HashMap<&PackageId, _> = nodes.iter().map(|node| (&node.id, node)).collect();
    let packages = metadata.workspace_packages();
    let start = packages.iter().find(|package| package.name == name).expect("a crate of the workspace");
    let mut below = BTreeSet::new();
    let mut open = vec![&start.id];
    while let Some(id) = open.pop() {
        for dependency in &node_of[id].deps {
            let only_tests = dependency.dep_kinds.iter().all(|kind| kind.kind == DependencyKind::Development);
            if !only_tests && below.insert(metadata[&dependency.pkg].name.to_string()) {
                open.push(&dependency.pkg);
            }
        }
    }
    below
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the workspace") {
            let path = entry.expect("a folder entry").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}
